/* blob.h - blobs, which clients keep in the pool, and who owns them
 *
 * A blob's record is an object like any other; its contents are a file (blob_files.h). It may hang
 * in the map `blobs` of a VM, host, pool, network or SR, and then it ends with that. */
#pragma once

#include "master/store.h"

/* Deletes the blobs of an object that is about to be deleted: its map `blobs`. The files follow
 * when that is durable. */
void blobs_delete(struct txn *, const struct value *blobs);
