/* disk_nbd.h - a disk through a qemu-nbd of its own; what disk_io.c does with formats other than raw */
#pragma once

#include "slave/disk_io.h"

struct disk_nbd;

/* As disk_io_open; `dir` is the directory's descriptor. */
int disk_nbd_open(struct disk_nbd **ret, int dir, const char *directory, const char *name, bool is_writable,
                  const _Atomic bool *is_cancelled, char ret_text[DISK_IO_TEXT_BYTES]);
/* As disk_io_open_alone. */
int disk_nbd_open_alone(struct disk_nbd **ret, int fd, const _Atomic bool *is_cancelled, char ret_text[DISK_IO_TEXT_BYTES]);
int64_t disk_nbd_size(const struct disk_nbd *);

/* As their namesakes of disk_io.h; ranges lie inside the disk. */
int disk_nbd_next_data(struct disk_nbd *, int64_t at, int64_t *ret_at, int64_t *ret_end);
int disk_nbd_read(struct disk_nbd *, void *bytes, size_t count, int64_t at);
int disk_nbd_write(struct disk_nbd *, const void *bytes, size_t count, int64_t at);
int disk_nbd_write_zeros(struct disk_nbd *, int64_t count, int64_t at);
int disk_nbd_sync(struct disk_nbd *);
void disk_nbd_close(struct disk_nbd **);
