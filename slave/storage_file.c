/* storage_file.c - what is done to one disk file, in a worker thread */
#include "slave/storage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "slave/big_endian.h"
#include "slave/child.h"
#include "slave/disk_writer.h"
#include "slave/qcow2.h"

#define COPY_BYTES (1024 * 1024)

DIR *dir_list(int dir)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);

    if (!list)
        close_fd(&fd);
    return list;
}

int dir_open_file(int dir, const char *name, int flags)
{
    struct stat st;
    int fd = openat(dir, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0644);

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return -EINVAL;
    }
    return fd;
}

/* ---- facts ---- */

#define EXTENSIONS_END 65536 /* they lie in the first cluster; QEMU writes some 500 bytes */

/* The backing file's format stands in an extension behind the header. */
static int qcow2_backing_format(int fd, uint32_t at, struct disk_facts *ret)
{
    unsigned char extension[8];
    uint32_t bytes = 0;

    for (; at < EXTENSIONS_END; at += 8 + ((bytes + 7) & ~7u)) {
        if (pread(fd, extension, sizeof extension, at) != (ssize_t) sizeof extension)
            return -EBADMSG;
        bytes = get_be32(extension + 4);
        if (get_be32(extension) == 0)
            return 0;
        if (bytes > EXTENSIONS_END)
            return -EBADMSG;
        if (get_be32(extension) != QCOW2_BACKING_FORMAT)
            continue;
        if (bytes >= sizeof ret->backing_format || pread(fd, ret->backing_format, bytes, at + 8) != (ssize_t) bytes)
            return -EBADMSG;
        return 0;
    }
    return 0;
}

static int qcow2_facts(int fd, struct disk_facts *ret)
{
    unsigned char header[QCOW2_HEADER_BYTES] = "";
    uint64_t backing_at;
    uint32_t backing_bytes;
    bool is_version_3;

    if (pread(fd, header, sizeof header, 0) < QCOW2_HEADER_BYTES_2)
        return -EBADMSG;
    is_version_3 = get_be32(header + QCOW2_VERSION) >= 3;
    backing_at = get_be64(header + QCOW2_BACKING_AT);
    backing_bytes = get_be32(header + QCOW2_BACKING_BYTES);
    ret->virtual_size = (int64_t) get_be64(header + QCOW2_SIZE);
    ret->has_data_file = is_version_3 && (get_be64(header + QCOW2_INCOMPATIBLE) & QCOW2_DATA_FILE);
    if (get_be32(header) != QCOW2_MAGIC || ret->virtual_size < 0 || backing_bytes >= sizeof ret->backing)
        return -EBADMSG;
    if (!backing_at)
        return 0;
    if (pread(fd, ret->backing, backing_bytes, (off_t) backing_at) != (ssize_t) backing_bytes)
        return -EBADMSG;
    return qcow2_backing_format(fd, is_version_3 ? get_be32(header + QCOW2_HEADER_LENGTH) : QCOW2_HEADER_BYTES_2, ret);
}

int disk_facts_of(int fd, const char *format, struct disk_facts *ret)
{
    struct stat st;

    *ret = (struct disk_facts){0};
    if (fstat(fd, &st) < 0)
        return -errno;
    snprintf(ret->format, sizeof ret->format, "%s", format);
    ret->virtual_size = st.st_size;
    ret->physical_utilisation = (int64_t) st.st_blocks * 512;
    return streq(format, "qcow2") ? qcow2_facts(fd, ret) : 0;
}

int disk_facts(int dir, const char *name, const char *format, struct disk_facts *ret)
{
    _cleanup_(close_fd) int fd = dir_open_file(dir, name, O_RDONLY);

    *ret = (struct disk_facts){0};
    return fd < 0 ? fd : disk_facts_of(fd, format, ret);
}

/* ---- making and copying ---- */

static int sync_both(int fd, int dir)
{
    return fsync(fd) < 0 || fsync(dir) < 0 ? -errno : 0;
}

int disk_sync(int dir, const char *name)
{
    _cleanup_(close_fd) int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -errno : sync_both(fd, dir);
}

int disk_make_raw(int dir, const char *name, int64_t bytes)
{
    _cleanup_(close_fd) int fd = dir_open_file(dir, name, O_RDWR | O_CREAT | O_EXCL);
    int r;

    if (fd < 0)
        return fd;
    r = ftruncate(fd, bytes) < 0 ? -errno : sync_both(fd, dir);
    if (r < 0)
        unlinkat(dir, name, 0);
    return r;
}

int disk_reflink(int dir, const char *source, int to_dir, const char *name)
{
    _cleanup_(close_fd) int from = dir_open_file(dir, source, O_RDONLY);
    _cleanup_(close_fd) int to = -1;
    int r;

    if (from < 0)
        return from;
    to = dir_open_file(to_dir, name, O_RDWR | O_CREAT | O_EXCL);
    if (to < 0)
        return to;
    r = ioctl(to, FICLONE, from) < 0 ? -errno : sync_both(to, to_dir);
    if (r < 0) {
        unlinkat(to_dir, name, 0);
        if (r == -EXDEV || r == -EINVAL || r == -ENOTTY || r == -ENOSYS || r == -ETXTBSY)
            r = -EOPNOTSUPP;
    }
    return r;
}

/* From `at` to `end`, leaving out blocks of zeros. */
static int copy_range(int from, int to, off_t at, off_t end, char *bytes, const atomic_bool *stop)
{
    while (at < end) {
        size_t want = (size_t) MIN((off_t) COPY_BYTES, end - at);
        ssize_t have = pread(from, bytes, want, at);

        if (stop && atomic_load(stop))
            return -ECANCELED;
        if (have < 0)
            return -errno;
        if (have == 0)
            return 0; /* it became shorter */
        for (ssize_t done = 0; done < have;) {
            size_t block = (size_t) MIN((ssize_t) 65536, have - done);
            ssize_t wrote = (ssize_t) block;

            if (!bytes_are_zero(bytes + done, block))
                wrote = pwrite(to, bytes + done, block, at + done);
            if (wrote <= 0)
                return wrote < 0 ? -errno : -EIO;
            done += wrote;
        }
        at += have;
    }
    return 0;
}

static int copy_data(int from, int to, const atomic_bool *stop)
{
    _cleanup_(free_p) char *bytes = alloc0(COPY_BYTES);
    off_t at = 0;

    for (;;) {
        off_t data = lseek(from, at, SEEK_DATA), hole;
        int r;

        if (data < 0)
            return errno == ENXIO ? 0 : -errno;
        hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0)
            return -errno;
        r = copy_range(from, to, data, hole, bytes, stop);
        if (r < 0)
            return r;
        at = hole;
    }
}

int disk_copy_sparse(int dir, const char *source, int to_dir, const char *name, const atomic_bool *stop)
{
    _cleanup_(close_fd) int from = dir_open_file(dir, source, O_RDONLY);
    _cleanup_(close_fd) int to = -1;
    struct stat st;
    int r = 0;

    if (from < 0)
        return from;
    if (fstat(from, &st) < 0)
        return -errno;
    to = dir_open_file(to_dir, name, O_RDWR | O_CREAT | O_EXCL);
    if (to < 0)
        return to;
    if (ftruncate(to, st.st_size) < 0)
        r = -errno;
    if (r == 0)
        r = copy_data(from, to, stop);
    if (r == 0)
        r = sync_both(to, to_dir);
    if (r < 0)
        unlinkat(to_dir, name, 0);
    return r;
}

/* ---- qemu-img ---- */

int qemu_img(const char *directory, char ret_text[STORAGE_TEXT_BYTES], const char *const arguments[])
{
    const char *argv[16] = {"qemu-img"};
    struct child child;
    int r, count = 1;

    for (int i = 0; arguments[i]; i++) {
        assert(count < (int) ARRAY_SIZE(argv) - 1);
        argv[count++] = arguments[i];
    }
    ret_text[0] = '\0';
    r = child_start(&child, directory, argv, NULL, 0);
    if (r < 0) {
        snprintf(ret_text, STORAGE_TEXT_BYTES, "qemu-img cannot be run: %s", strerror(-r));
        return r;
    }
    child_hear(&child, ret_text, STORAGE_TEXT_BYTES);
    return child_end(&child, -1);
}
