/* qcow2_read.c - a qcow2 file that a client sends, into a disk */
#include "slave/qcow2_read.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "slave/disk_writer.h"
#include "slave/qcow2_check.h"
#include "slave/storage.h"

#define COPY_BYTES   (2 * 1024 * 1024)
#define STORE_NAME   ".import-"
#define TOO_LARGE    "the image's disk is larger than the disk that it is for"
#define STORE_LEFT_S 3600 /* so old a name is nobody's any more, even if the clocks of hosts that share the directory differ */

static int refuse(char *ret_text, int error, const char *why)
{
    snprintf(ret_text, DISK_IO_TEXT_BYTES, "%s", why);
    return error;
}

static int bad_image(char *ret_text, int r)
{
    return r == -EBADMSG ? refuse(ret_text, r, "the image is damaged, or ends too early") : r;
}

/* ---- storing the file ---- */

/* Data and tables of a full disk, some of them twice: QEMU keeps internal snapshots and old tables in the file. */
static int64_t stored_max(const struct disk_io *disk)
{
    return 2 * disk_io_size(disk) + (64LL << 20);
}

bool qcow2_is_store(const char *name)
{
    return strncmp(name, STORE_NAME, strlen(STORE_NAME)) == 0;
}

void qcow2_sweep(int dir)
{
    DIR *list = dir_list(dir);
    time_t before = time(NULL) - STORE_LEFT_S;
    struct dirent *entry;
    struct stat st;

    while (list && (entry = readdir(list)))
        if (qcow2_is_store(entry->d_name) && fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0
            && S_ISREG(st.st_mode) && st.st_mtime < before)
            unlinkat(dir, entry->d_name, 0);
    if (list)
        closedir(list);
}

/* Where the file system knows no files without a name (NFS) it has one for a moment, in which somebody may kill us. */
static int make_store_named(const char *directory)
{
    _cleanup_(close_fd) int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char path[4096];
    int fd;

    if (dir < 0)
        return -errno;
    qcow2_sweep(dir);
    if (snprintf(path, sizeof path, "%s/" STORE_NAME "XXXXXX", directory) >= (int) sizeof path)
        return -ENAMETOOLONG;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    unlink(path);
    return fd;
}

/* A descriptor, or a negative errno. */
static int make_store(const char *directory)
{
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0)
        return fd;
    return errno == EOPNOTSUPP || errno == EISDIR ? make_store_named(directory) : -errno;
}

static int store(int fd, struct source *source, int64_t most, int64_t *ret_bytes, char *ret_text)
{
    int64_t at = 0;

    for (;;) {
        const void *bytes;
        ssize_t count = source->read(source, &bytes);

        *ret_bytes = at;
        if (count <= 0)
            return (int) count;
        if (count > most - at)
            return refuse(ret_text, -EFBIG, "the image is larger than one of such a disk can be");
        for (ssize_t done = 0; done < count;) {
            ssize_t n = write(fd, (const char *) bytes + done, (size_t) (count - done));

            if (n < 0 && errno != EINTR)
                return -errno;
            done += n > 0 ? n : 0;
        }
        at += count;
    }
}

/* ---- copying ---- */

static int copy_data(struct disk_io *image, struct disk_writer *writer, int64_t at, int64_t end, char *bytes)
{
    while (at < end) {
        size_t count = (size_t) MIN(end - at, (int64_t) COPY_BYTES);
        int r = disk_io_read(image, bytes, count, at);

        if (r < 0)
            return r == -EIO ? -EBADMSG : r; /* its file was just written: it is the image that is wrong */
        r = disk_writer_put(writer, bytes, count, at);
        if (r < 0)
            return r;
        at += (int64_t) count;
    }
    return 0;
}

/* The image is at most as large as the disk, but for a part of a sector. */
static int copy(struct disk_io *image, struct disk_writer *writer)
{
    _cleanup_(free_p) char *bytes = alloc0(COPY_BYTES);
    int64_t size = disk_io_size(writer->disk), at = 0;
    int r = 0;

    while (at < size && r == 0) {
        int64_t data = size, end = size;

        r = disk_io_next_data(image, at, &data, &end);
        if (r == -ENXIO)
            r = 0;
        else if (r < 0)
            return r == -EIO ? -EBADMSG : r;
        data = MIN(data, size);
        end = MIN(end, size);
        if (data > at)
            r = disk_writer_put_zeros(writer, data - at, at);
        if (r == 0)
            r = copy_data(image, writer, data, end, bytes);
        at = end;
    }
    return r < 0 ? r : disk_writer_flush(writer);
}

int qcow2_read(struct disk_io *disk, struct source *source, const char *directory, struct transfer_figures *figures,
               char ret_text[DISK_IO_TEXT_BYTES])
{
    _cleanup_(close_fd) int fd = make_store(directory);
    _cleanup_(disk_io_close) struct disk_io *image = NULL;
    _cleanup_(disk_writer_done) struct disk_writer writer = {0};
    int64_t stored = 0;
    int r;

    ret_text[0] = '\0';
    if (fd < 0)
        return fd;
    if (figures)
        figures->disk_bytes_total += disk_io_size(disk);
    r = store(fd, source, stored_max(disk), &stored, ret_text);
    if (r < 0)
        return r;
    r = qcow2_check(fd, stored, disk_io_size(disk));
    if (r == -EFBIG)
        return refuse(ret_text, r, TOO_LARGE);
    if (r < 0)
        return bad_image(ret_text, r);
    r = disk_io_open_alone(&image, fd, disk, ret_text);
    if (r < 0)
        return r == -EINVAL ? -EOPNOTSUPP : r == -EIO ? -EBADMSG : r;
    if (disk_io_size(image) - disk_io_size(disk) >= 512) /* as its reader understands it */
        return refuse(ret_text, -EFBIG, TOO_LARGE);
    disk_writer_init(&writer, disk, figures);
    r = copy(image, &writer);
    return bad_image(ret_text, r);
}
