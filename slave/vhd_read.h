/* vhd_read.h - a VHD file into a disk, in one forward pass
 *
 * Fixed and dynamic files, with their blocks in any order. A differencing file is taken only onto the disk that it is
 * based on: nobody here follows the names of parents. Nothing in a file is believed: sums of both structures, and a BAT
 * whose blocks overlap or lie outside are refused before anything is written. Memory: 8 bytes for each block that the
 * file has, 32 MiB at most. Blocks: for a transfer's own thread. */
#pragma once

#include "shared/ref.h"
#include "slave/disk_io.h"
#include "slave/stream.h"

/* The disk's contents become what the file says; zeros follow where it is smaller than the disk.
 *
 *   base    the uuid of the VHD of which the disk has the contents, NULL_REF for none; a differencing file of this
 *           parent is written over them, and what it leaves out stays
 *   ret_text what was wrong, for people
 *
 * 0, or
 *   -EFBIG         the file's disk is larger than ours
 *   -EBADMSG       no VHD, or damaged, or it ends too early
 *   -EOPNOTSUPP    a differencing file of another parent; or one that cannot be read in order
 * or a negative errno of the disk or the source. After a failure the disk holds some of the old and some of the new. No
 * sync; figures may be NULL. */
int vhd_read(struct disk_io *disk, struct source *source, ref_t base, struct transfer_figures *figures,
             char ret_text[DISK_IO_TEXT_BYTES]);
