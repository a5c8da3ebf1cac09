/* disk_writer.h - what comes in small pieces, written to a disk in large ones; zeros become holes
 *
 * Imports of raw disks overwrite disks that exist: zeros are not left out but written as zeros, which take no room. The
 * disks of an imported VM are new, so there they are left out. (xva_disk_thread.c, which writes those from a thread of its own,
 * shares disk_write_runs().) */
#pragma once

#include "slave/disk_io.h"
#include "slave/stream.h"

struct disk_writer {
    struct disk_io *disk;             /* open to write */
    struct transfer_figures *figures; /* disk_bytes_done counts what was written; may be NULL */
    char *bytes;                      /* gathered: `count` of them belong to `at` */
    size_t count;
    int64_t at;
};

void disk_writer_init(struct disk_writer *, struct disk_io *disk, struct transfer_figures *figures);
/* What was gathered and not flushed is lost. */
void disk_writer_done(struct disk_writer *);

/* 0 or a negative errno, which may come from earlier bytes. The range lies inside the disk. */
int disk_writer_put(struct disk_writer *, const void *bytes, size_t count, int64_t at);
int disk_writer_put_zeros(struct disk_writer *, int64_t count, int64_t at);
/* Hand what was gathered to the disk. No sync. */
int disk_writer_flush(struct disk_writer *);

/* These bytes now: runs of data, and runs of zeros as zeros - or not at all on a disk that is new and reads as zeros. */
int disk_write_runs(struct disk_io *, const void *bytes, size_t count, int64_t at, bool is_new);

bool bytes_are_zero(const void *bytes, size_t count);
