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
 * All compressions of a process share COMPRESS_WORKERS_MAX threads: the first ones take one for
 * each processor, later ones what is left, and each has at least one. A worker costs about 1.5 MiB,
 * buffers included. So ten exports at once cost 40 MiB in all where there are two processors (which
 * drover-bench-xva measures), and with the five more workers of a large machine below 50. */
#pragma once

#include "slave/stream.h"

enum compression { COMPRESSION_NONE, COMPRESSION_GZIP, COMPRESSION_ZSTD };

#define COMPRESS_WORKERS_MAX 12

/* gzip or zstd. The sink below is lent until the end. NULL when there is no thread to be had. */
struct sink *compress_new(enum compression kind, struct sink *below);
/* The last bytes. 0 or the negative errno that any write had. */
int compress_end(struct sink *sink);
/* Waits for its threads. NULL is fine. */
void compress_destroy(struct sink **sink_p);

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

struct compressor *compress_zstd_new(unsigned workers);
int compress_zstd_end(struct compressor *compressor);
void compress_zstd_destroy(struct compressor *compressor);
