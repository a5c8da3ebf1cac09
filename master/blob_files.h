/* blob_files.h - what blobs hold: a file each at the master, DIR/blobs/<uuid>
 *
 *   PUT:  <uuid>.<n>.new  -- synced -->  rename to <uuid>  -->  blob.size, blob.last_updated,
 * durable GET:  the file as it is when it is opened; a file never changes, it is replaced
 *
 * A blob that nobody has written has no file, and holds nothing. A file whose blob is deleted goes
 * when that is durable; what a master that died left over goes at the next start, and records
 * follow the files then. Nothing of this is in the store's copies or in Redis. */
#pragma once

#include "master/call.h"

struct blobs;

/* The directory, made if missing; sweeps it. Bytes that one blob, and all of them, may hold. Before
 * the first call, outside of fibers; NULL with a line in the log. */
struct blobs *blobs_open(struct core *, const char *directory, uint64_t one_max, uint64_t all_max);
/* When no worker runs any more. */
void blobs_close(struct blobs **);

/* ---- on fibers ---- */

/* A client reads or writes one: so many may at once, strangers half as many. False: too many now.
 * Whoever got leave says when it ends. */
#define BLOB_TRANSFERS_MAX 64
bool blobs_enter(struct blobs *, bool is_stranger);
void blobs_leave(struct blobs *);

/* The file of a blob for reading, with its size; -1 and 0 when nobody has written it. The caller
 * closes it, in a worker. 0, or -ERR_INTERNAL_ERROR when it cannot be read. */
int blob_open(struct call *, const struct object *blob, int *ret_fd, int64_t *ret_bytes);

/* New contents on their way. */
struct blob_writing;

/* Room for `bytes`, which is all that will come, and a file. 0, -ERR_INVALID_VALUE when a blob may
 * not hold so much, -ERR_OUT_OF_SPACE when all of them may not, or the disk has no room. */
int blob_write_begin(struct call *, const struct object *blob, int64_t bytes,
                     struct blob_writing **ret);
/* The next bytes. Blocks: in a worker, one at a time. False when the disk refuses them. */
bool blob_write(struct blob_writing *, const char *bytes, size_t count);
bool blob_write_has_failed(const struct blob_writing *);
/* All has come: they take the place of the old ones, in one step, and the record says so. 0,
 * -ERR_HANDLE_INVALID when the blob was destroyed meanwhile, -ERR_INTERNAL_ERROR when the disk
 * fails. */
int blob_write_end(struct call *, struct blob_writing *);
/* Frees; what was not ended leaves nothing. A cleanup; NULL is fine. */
void blob_write_drop(struct blob_writing **);
