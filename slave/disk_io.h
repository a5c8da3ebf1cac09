/* disk_io.h - the contents of a disk, whatever its format: read, holes found, written
 *
 *      raw       the file itself: pread, SEEK_DATA, pwrite
 *      qcow2     a qemu-nbd of its own on a socket without a name, spoken to by libnbd (disk_nbd.c, qemu_nbd.h)
 *
 * Reads below a qcow2's backing files as the guest would see them. One user at a time; blocks, so it belongs into a
 * thread that may (workers.h, stream.h), never on a fiber or a loop. */
#pragma once

#include "shared/base.h"

#include <stdint.h>

struct disk_io;
struct sr_place;

#define DISK_IO_TEXT_BYTES 256

/* Open a disk file of an SR's directory (storage.h), never through a link. What a qcow2 rests on must lie in the same
 * directory and its format be stated. One that is to be written and that someone else has open to write is refused
 * (image_lock.h), -EBUSY; a qcow2 that a program of QEMU's has open, too: -EIO. The text says so.
 *
 *   format       "raw" or "qcow2"; it is never guessed
 *   is_writable  else no byte of the file changes
 *   is_cancelled NULL, or what other threads may set and outlives the disk: once it is true, what is asked of the disk, this
 *                opening first, ends with -ECANCELED. So a codec ends that has nobody to ask meanwhile - it compares two disks, or
 *                copies one - and so does one whose qemu-nbd does not answer: that is killed after a second. A call that hangs in
 *                the kernel, as on a network file system whose server is away, ends when the kernel lets it.
 *   ret_text     what went wrong, for people
 *
 * Returns 0 or a negative errno. */
int disk_io_open(struct disk_io **ret, const struct sr_place *place, const char *name, const char *format,
                 bool is_writable, const _Atomic bool *is_cancelled, char ret_text[DISK_IO_TEXT_BYTES]);

/* A qcow2 file that came from outside, to be read: what it names is not even looked for, so one that rests on another disk
 * is refused. It ends when `with` does, the disk that it is for. The descriptor stays the caller's. 0 or a negative errno and its
 * text. */
int disk_io_open_alone(struct disk_io **ret, int fd, const struct disk_io *with, char ret_text[DISK_IO_TEXT_BYTES]);

/* Bytes, as the guest sees the disk. */
int64_t disk_io_size(const struct disk_io *);

/* The next stretch that may hold data, at or after `at`: [*ret_at, *ret_end), not empty. What lies between is zeros that
 * need not be read. 0; -ENXIO when nothing comes up to the end of the disk; or another negative errno. */
int disk_io_next_data(struct disk_io *, int64_t at, int64_t *ret_at, int64_t *ret_end);

/* All of the bytes, which lie inside the disk. Read fastest is one after the other, where disk_io_next_data() has told of data. 0 or a
 * negative errno: -EINVAL outside the disk, -EROFS when not opened to write. After a failed read nobody knows what is in the buffer. */
int disk_io_read(struct disk_io *, void *bytes, size_t count, int64_t at);
int disk_io_write(struct disk_io *, const void *bytes, size_t count, int64_t at);
/* These bytes read as zeros from now on, and take no room where the format allows. */
int disk_io_write_zeros(struct disk_io *, int64_t count, int64_t at);

/* Who reads or writes a disk from its begin to its end has no more need of what lies before `end`: of a raw disk it goes out of the
 * kernel's memory, in which otherwise it would take the place of what guests read often. What was written is written to the disk
 * beneath first, and waited for some MiB later, so that the sync at the end does not find all of it. An end before the last one is of
 * another pass. 0, or the negative errno of a write that failed, which the sync does not tell again. */
int disk_io_passed(struct disk_io *, int64_t end);

/* What was written is on the disk beneath. 0 or a negative errno. */
int disk_io_sync(struct disk_io *);

/* Without a sync, what was written may be lost. NULL is fine. */
void disk_io_close(struct disk_io **);
