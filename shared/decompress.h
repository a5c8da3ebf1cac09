/* decompress.h - a source that finds out how another source is compressed, and unpacks it
 *
 *     none   the bytes begin with a tar header: its checksum is right
 *     zstd   28 B5 2F FD; any number of frames
 *     gzip   1F 8B; any number of members
 *
 * Source of the order: wire.md section 20. One layer only: what was compressed twice is no archive.
 * What is none of them is passed on, for the tar reader to refuse. Checksums of the compression are
 * checked, and an end in the middle of it is -EPIPE.
 *
 * Memory is bounded whatever the bytes say: 64 KiB for gzip; for zstd at most the 8 MiB window that
 * every decoder has to support (levels up to 19; the usual ones need 0.5 to 4 MiB); what needs more
 * is -E2BIG. How much comes out is for the user to bound. */
#pragma once

#include "shared/stream.h"

/* What to say of -E2BIG. */
#define DECOMPRESS_WINDOW_TEXT "it was compressed with a window of more than 8 MiB (zstd --long): compress it anew without"

/* The source below is lent until the end. */
struct source *decompress_new(struct source *below);
void decompress_destroy(struct source **source_p);

/* One gzip stream of many that come in pieces: a chunk of a legacy archive. */
struct gunzip;
struct gunzip *gunzip_new(void);
void gunzip_destroy(struct gunzip **gunzip_p);
/* Forget what came before. */
void gunzip_begin(struct gunzip *gunzip);
/* Unpack from *bytes, which move on; what came out is good until the next call: its number, 0 when
 * all of *bytes is used up; or -EBADMSG. */
ssize_t gunzip_run(struct gunzip *gunzip, const char **bytes, size_t *count, const char **ret_out);
/* May it end here: is no member half-way? */
bool gunzip_is_complete(const struct gunzip *gunzip);
