/* storage_file.c - what is done to one disk file, in a worker thread */
#include "slave/storage.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define COPY_BYTES (1024 * 1024)

int dir_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

/* A regular file of the directory; never through a link. */
static int open_in(int dir, const char *name, int flags)
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

/* The qcow2 header: magic, version, offset and length of the backing file's name, cluster bits, size. */
static int qcow2_facts(int fd, struct disk_facts *ret)
{
    unsigned char header[32];
    uint64_t backing_at, size;
    uint32_t magic, backing_bytes;

    if (pread(fd, header, sizeof header, 0) != (ssize_t) sizeof header)
        return -EBADMSG;
    memcpy(&magic, header, 4);
    memcpy(&backing_at, header + 8, 8);
    memcpy(&backing_bytes, header + 16, 4);
    memcpy(&size, header + 24, 8);
    backing_at = be64toh(backing_at);
    backing_bytes = be32toh(backing_bytes);
    ret->virtual_size = (int64_t) be64toh(size);
    if (be32toh(magic) != 0x514649fb || ret->virtual_size < 0 || backing_bytes >= sizeof ret->backing)
        return -EBADMSG;
    if (backing_at && pread(fd, ret->backing, backing_bytes, (off_t) backing_at) != (ssize_t) backing_bytes)
        return -EBADMSG;
    return 0;
}

int disk_facts(int dir, const char *name, const char *format, struct disk_facts *ret)
{
    _cleanup_(close_fd) int fd = open_in(dir, name, O_RDONLY);
    struct stat st;

    *ret = (struct disk_facts){0};
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    snprintf(ret->format, sizeof ret->format, "%s", format);
    ret->virtual_size = st.st_size;
    ret->physical_utilisation = (int64_t) st.st_blocks * 512;
    return streq(format, "qcow2") ? qcow2_facts(fd, ret) : 0;
}

/* ---- making and copying ---- */

static int sync_both(int fd, int dir)
{
    return fsync(fd) < 0 || fsync(dir) < 0 ? -errno : 0;
}

int disk_make_raw(int dir, const char *name, int64_t bytes)
{
    _cleanup_(close_fd) int fd = open_in(dir, name, O_RDWR | O_CREAT | O_EXCL);
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
    _cleanup_(close_fd) int from = open_in(dir, source, O_RDONLY);
    _cleanup_(close_fd) int to = -1;
    int r;

    if (from < 0)
        return from;
    to = open_in(to_dir, name, O_RDWR | O_CREAT | O_EXCL);
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

static bool is_zero(const char *bytes, size_t count)
{
    return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0);
}

/* From `at` to `end`, leaving out blocks of zeros. */
static int copy_range(int from, int to, off_t at, off_t end, char *bytes)
{
    while (at < end) {
        size_t want = (size_t) MIN((off_t) COPY_BYTES, end - at);
        ssize_t have = pread(from, bytes, want, at);

        if (have < 0)
            return -errno;
        if (have == 0)
            return 0; /* it became shorter */
        for (ssize_t done = 0; done < have;) {
            size_t block = (size_t) MIN((ssize_t) 65536, have - done);
            ssize_t wrote = (ssize_t) block;

            if (!is_zero(bytes + done, block))
                wrote = pwrite(to, bytes + done, block, at + done);
            if (wrote <= 0)
                return wrote < 0 ? -errno : -EIO;
            done += wrote;
        }
        at += have;
    }
    return 0;
}

static int copy_data(int from, int to)
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
        r = copy_range(from, to, data, hole, bytes);
        if (r < 0)
            return r;
        at = hole;
    }
}

int disk_copy_sparse(int dir, const char *source, int to_dir, const char *name)
{
    _cleanup_(close_fd) int from = open_in(dir, source, O_RDONLY);
    _cleanup_(close_fd) int to = -1;
    struct stat st;
    int r = 0;

    if (from < 0)
        return from;
    if (fstat(from, &st) < 0)
        return -errno;
    to = open_in(to_dir, name, O_RDWR | O_CREAT | O_EXCL);
    if (to < 0)
        return to;
    if (ftruncate(to, st.st_size) < 0)
        r = -errno;
    if (r == 0)
        r = copy_data(from, to);
    if (r == 0)
        r = sync_both(to, to_dir);
    if (r < 0)
        unlinkat(to_dir, name, 0);
    return r;
}

/* ---- qemu-img ---- */

/* Where it runs and where its words go; 0 or a positive errno. */
static int spawn_in(const char *directory, int said, char *const argv[], pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    int error = posix_spawn_file_actions_init(&actions);

    if (error)
        return error;
    error = posix_spawn_file_actions_addchdir_np(&actions, directory);
    if (!error)
        error = posix_spawn_file_actions_adddup2(&actions, said, 1);
    if (!error)
        error = posix_spawn_file_actions_adddup2(&actions, said, 2);
    if (!error)
        error = posix_spawnp(ret_pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

int qemu_img(const char *directory, char ret_text[256], const char *const arguments[])
{
    const char *argv[16] = {"qemu-img"};
    int said[2], status, error, count = 1;
    size_t length = 0;
    ssize_t n;
    pid_t pid;

    for (int i = 0; arguments[i]; i++) {
        assert(count < (int) ARRAY_SIZE(argv) - 1);
        argv[count++] = arguments[i];
    }
    ret_text[0] = '\0';
    if (pipe2(said, O_CLOEXEC) < 0)
        return -errno;
    error = spawn_in(directory, said[1], (char *const *) argv, &pid);
    close(said[1]);
    if (error) {
        close(said[0]);
        snprintf(ret_text, 256, "qemu-img cannot be run: %s", strerror(error));
        return -error;
    }
    while ((n = read(said[0], ret_text + length, 255 - length)) > 0 || (n < 0 && errno == EINTR))
        length += n > 0 ? (size_t) n : 0;
    close(said[0]);
    ret_text[length] = '\0';
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}
