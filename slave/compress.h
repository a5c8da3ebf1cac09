/* compress.h - a sink that compresses what is written to it into another sink
 *
 *     none      not here: the other sink is used itself
 *     gzip      one member, in parallel (compress_gzip.c)
 *     zstd      one frame, in parallel (compress_zstd.c)
 *
 * What comes out depends only on what goes in, not on the number of threads or on how it was cut
 * into writes, so an export that was interrupted can be made again up to the same byte. The other
 * sink is written to by the caller's thread alone.
 *
 * All compressions of a process share a thread for each processor, up to COMPRESS_WORKERS_MAX: the first ones take what is
 * left, and each has at least one. Ten exports at once cost some 48 MiB, buffers included, however many processors there are
 * (drover-bench-xva measures it). */
#pragma once

#include "slave/stream.h"

enum compression { COMPRESSION_NONE, COMPRESSION_GZIP, COMPRESSION_ZSTD };

#define COMPRESS_WORKERS_MAX 8u

/* gzip or zstd. The sink below is lent until the end. NULL when there is no thread to be had. */
struct sink *compress_new(enum compression kind, struct sink *below);
/* The last bytes. 0 or the negative errno that any write had. */
int compress_end(struct sink *sink);
/* Waits for its threads. NULL is fine. */
void compress_destroy(struct sink **sink_p);

#define COMPRESS_RECIPE_BYTES 64

/* A text that differs when something else comes out of the same bytes: another library, other settings. Of
 * COMPRESSION_NONE it is empty. */
void compress_recipe(enum compression kind, char ret[COMPRESS_RECIPE_BYTES]);

/* ---- between compress*.c ---- */

struct compressor {
    struct sink sink; /* what the user writes to */
    enum compression kind;
    struct sink *below;
    unsigned workers; /* threads that it may use, at least 1 */
};

struct compressor *compress_gzip_new(unsigned workers);
int compress_gzip_end(struct compressor *compressor);
void compress_gzip_destroy(struct compressor *compressor);
void compress_gzip_recipe(char ret[COMPRESS_RECIPE_BYTES]);

struct compressor *compress_zstd_new(unsigned workers);
int compress_zstd_end(struct compressor *compressor);
void compress_zstd_destroy(struct compressor *compressor);
void compress_zstd_recipe(char ret[COMPRESS_RECIPE_BYTES]);
