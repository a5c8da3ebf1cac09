/* disk_io.c - raw disks as files; other formats by disk_nbd.c */
#include "slave/disk_io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "slave/disk_nbd.h"
#include "slave/image_lock.h"
#include "slave/storage.h"

static_assert(DISK_IO_TEXT_BYTES >= STORAGE_TEXT_BYTES, "sr_open() writes into these");

#define ZEROS_BYTES  (1024 * 1024)           /* written at once where a file system cannot make holes */
#define PASSED_BYTES ((int64_t) 4096 * 1024) /* let go at once: some, since each time costs, and few, so that they are still in the
                                                processor's cache when the kernel uses the same memory again */
#define BEHIND_BYTES (4 * PASSED_BYTES)      /* that are on their way to the disk beneath before one is waited for */

struct disk_io {
    bool is_writable;
    int64_t size;
    const _Atomic bool *is_cancelled; /* or NULL */
    int64_t passed;  /* what lies before it was let go, or is on its way to the disk beneath */
    int64_t written; /* what lies before it was let go, of a disk that is written */

    /* one of the two */
    int fd;
    struct disk_nbd *nbd;
};

/* ---- opening ---- */

static int open_raw(struct disk_io *disk, int dir, const char *name, char *ret_text)
{
    struct stat st;
    int r = 0;

    disk->fd = dir_open_file(dir, name, disk->is_writable ? O_RDWR : O_RDONLY);
    if (disk->fd < 0)
        r = disk->fd;
    else if (fstat(disk->fd, &st) < 0)
        r = -errno;
    else if (disk->is_writable)
        r = image_lock(disk->fd);
    if (r < 0) {
        snprintf(ret_text, DISK_IO_TEXT_BYTES, "%.160s: %s", name,
                 r == -EBUSY                     ? "someone else has it open to write"
                 : r == -EINVAL || r == -ELOOP ? "no plain file"
                                                 : strerror(-r));
        return r;
    }
    disk->size = st.st_size;
    return 0;
}

int disk_io_open(struct disk_io **ret, const struct sr_place *place, const char *name, const char *format,
                 bool is_writable, const _Atomic bool *is_cancelled, char ret_text[DISK_IO_TEXT_BYTES])
{
    _cleanup_(disk_io_close) struct disk_io *disk = new0(struct disk_io);
    _cleanup_(close_fd) int dir = -1;
    int r;

    disk->is_writable = is_writable;
    disk->is_cancelled = is_cancelled;
    disk->fd = -1;
    ret_text[0] = '\0';
    dir = sr_open(place, ret_text);
    if (dir < 0)
        return dir;
    if (strchr(name, '/') || (!streq(format, "raw") && !streq(format, "qcow2"))) {
        snprintf(ret_text, DISK_IO_TEXT_BYTES, "%.160s: no disk of format %.20s", name, format);
        return -EINVAL;
    }
    if (streq(format, "raw")) {
        r = open_raw(disk, dir, name, ret_text);
    } else {
        r = disk_nbd_open(&disk->nbd, dir, place->directory, name, is_writable, is_cancelled, ret_text);
        if (r == 0)
            disk->size = disk_nbd_size(disk->nbd);
    }
    if (r < 0)
        return r;
    *ret = TAKE(disk);
    return 0;
}

int disk_io_open_alone(struct disk_io **ret, int fd, const struct disk_io *with, char ret_text[DISK_IO_TEXT_BYTES])
{
    struct disk_nbd *nbd;
    int r = disk_nbd_open_alone(&nbd, fd, with->is_cancelled, ret_text);

    if (r < 0)
        return r;
    *ret = new0(struct disk_io);
    **ret = (struct disk_io){.is_cancelled = with->is_cancelled, .size = disk_nbd_size(nbd), .fd = -1, .nbd = nbd};
    return 0;
}

void disk_io_close(struct disk_io **disk_p)
{
    struct disk_io *disk = *disk_p;

    if (!disk)
        return;
    close_fd(&disk->fd);
    disk_nbd_close(&disk->nbd);
    free(disk);
    *disk_p = NULL;
}

static bool is_cancelled(const struct disk_io *disk)
{
    return disk->is_cancelled && atomic_load(disk->is_cancelled);
}

int64_t disk_io_size(const struct disk_io *disk)
{
    return disk->size;
}

/* ---- reading ---- */

static bool is_inside(const struct disk_io *disk, int64_t count, int64_t at)
{
    return at >= 0 && count >= 0 && at <= disk->size && count <= disk->size - at;
}

int disk_io_next_data(struct disk_io *disk, int64_t at, int64_t *ret_at, int64_t *ret_end)
{
    off_t data, hole;

    if (is_cancelled(disk))
        return -ECANCELED;
    if (disk->nbd)
        return disk_nbd_next_data(disk->nbd, at, ret_at, ret_end);
    data = lseek(disk->fd, at, SEEK_DATA);
    if (data < 0)
        return -errno;
    if (data >= disk->size)
        return -ENXIO; /* the file has grown since */
    hole = lseek(disk->fd, data, SEEK_HOLE);
    if (hole < 0)
        return -errno;
    *ret_at = data;
    *ret_end = MIN((int64_t) hole, disk->size);
    return 0;
}

int disk_io_read(struct disk_io *disk, void *bytes, size_t count, int64_t at)
{
    if (!is_inside(disk, (int64_t) count, at))
        return -EINVAL;
    if (is_cancelled(disk))
        return -ECANCELED;
    if (disk->nbd)
        return disk_nbd_read(disk->nbd, bytes, count, at);
    for (size_t done = 0; done < count;) {
        ssize_t n = pread(disk->fd, (char *) bytes + done, count - done, at + (off_t) done);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return -EIO; /* somebody has made it shorter */
        done += n > 0 ? (size_t) n : 0;
    }
    return 0;
}

/* ---- writing ---- */

static int may_write(const struct disk_io *disk, int64_t count, int64_t at)
{
    if (!disk->is_writable)
        return -EROFS;
    if (is_cancelled(disk))
        return -ECANCELED;
    return is_inside(disk, count, at) ? 0 : -EINVAL;
}

int disk_io_write(struct disk_io *disk, const void *bytes, size_t count, int64_t at)
{
    int r = may_write(disk, (int64_t) count, at);

    if (r < 0)
        return r;
    if (disk->nbd)
        return disk_nbd_write(disk->nbd, bytes, count, at);
    for (size_t done = 0; done < count;) {
        ssize_t n = pwrite(disk->fd, (const char *) bytes + done, count - done, at + (off_t) done);

        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t) n : 0;
    }
    return 0;
}

int disk_io_write_zeros(struct disk_io *disk, int64_t count, int64_t at)
{
    _cleanup_(free_p) char *zeros = NULL;
    int r = may_write(disk, count, at);

    if (r < 0 || count == 0)
        return r;
    if (disk->nbd)
        return disk_nbd_write_zeros(disk->nbd, count, at);
    if (fallocate(disk->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, count) == 0)
        return 0;
    if (errno != EOPNOTSUPP)
        return -errno;
    zeros = alloc0(ZEROS_BYTES);
    for (int64_t done = 0; done < count && r == 0; done += ZEROS_BYTES)
        r = disk_io_write(disk, zeros, (size_t) MIN(count - done, (int64_t) ZEROS_BYTES), at + done);
    return r;
}

int disk_io_sync(struct disk_io *disk)
{
    if (!disk->is_writable)
        return 0;
    if (is_cancelled(disk))
        return -ECANCELED;
    if (disk->nbd)
        return disk_nbd_sync(disk->nbd);
    return fdatasync(disk->fd) < 0 ? -errno : 0;
}

/* ---- passing ---- */

static void let_go(struct disk_io *disk, int64_t from, int64_t to)
{
    (void) posix_fadvise(disk->fd, from, to - from, POSIX_FADV_DONTNEED); /* not being heard is only slower */
}

/* Begin to write the stretch; then wait for what lies BEHIND_BYTES before its end, which was begun long ago. */
static int write_behind(struct disk_io *disk, int64_t from, int64_t upto)
{
    int64_t done = upto - BEHIND_BYTES;

    if (sync_file_range(disk->fd, from, upto - from, SYNC_FILE_RANGE_WRITE) < 0)
        return -errno;
    if (done <= disk->written)
        return 0;
    if (sync_file_range(disk->fd, disk->written, done - disk->written,
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) < 0)
        return -errno;
    let_go(disk, disk->written, done);
    disk->written = done;
    return 0;
}

int disk_io_passed(struct disk_io *disk, int64_t end)
{
    int64_t from, upto = end == disk->size ? end : end / PASSED_BYTES * PASSED_BYTES;

    if (disk->nbd)
        return 0;
    if (end < disk->passed)
        disk->passed = disk->written = 0;
    if (upto <= disk->passed)
        return 0;
    from = disk->passed;
    disk->passed = upto;
    if (disk->is_writable)
        return write_behind(disk, from, upto);
    let_go(disk, from, upto);
    return 0;
}
