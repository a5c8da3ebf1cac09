/* qcow2_read.h - a qcow2 file that a client sends, into a disk
 *
 * Its tables may lie anywhere, behind what they lead to as well, so the file is stored first: in a file without a name
 * in the disk's directory, where there is room for disks, and which is gone however the agent ends. What may be stored is
 * bounded by the disk's size. Then a qemu-nbd reads it, which never opens what the file names. Blocks: for a transfer's
 * own thread. */
#pragma once

#include "slave/disk_io.h"
#include "slave/stream.h"

/* The disk's contents become what the file says; zeros follow where it is smaller than the disk.
 *
 *   directory  where the file is kept meanwhile
 *   ret_text   what was wrong, for people
 *
 * 0, or
 *   -EFBIG         the file's disk is larger than ours, or the file larger than one of such a disk may be
 *   -EBADMSG       no qcow2, or damaged
 *   -EOPNOTSUPP    it rests on another disk, or has its data in another file
 * or a negative errno of the disk, the source or the directory. Before all of the file has come the disk is untouched;
 * after a later failure it holds some of the old and some of the new. No sync; figures may be NULL. */
int qcow2_read(struct disk_io *disk, struct source *source, const char *directory, struct transfer_figures *figures,
               char ret_text[DISK_IO_TEXT_BYTES]);

/* Does the file's name say that it is such a store? It has one where file systems know no files without: for a moment. */
bool qcow2_is_store(const char *name);
/* Removes those of a directory that were left by who was killed in that moment. */
void qcow2_sweep(int dir);
