/* storage_marker.c - the file by which a shared directory is known
 *
 *   SR.create --> sr_create writes DIR/.drover-sr: the SR's uuid --> each host that attaches the SR
 * finds it there
 *
 * Where the file system is not mounted there is a directory all the same, empty and of the host's
 * own: disks would land on its root file system, and a scan would find all disks gone. */
#include "slave/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define MARKER ".drover-sr"

/* 0, or -ENOENT when there is none. */
static int read_marker(int dir, char ret_uuid[MARKER_BYTES])
{
    _cleanup_(close_fd) int fd = dir_open_file(dir, MARKER, O_RDONLY);
    ssize_t length = fd < 0 ? 0 : read(fd, ret_uuid, MARKER_BYTES - 1);

    if (fd < 0 || length < 0)
        return fd < 0 ? fd : -errno;
    ret_uuid[length] = '\0';
    ret_uuid[strcspn(ret_uuid, "\r\n")] = '\0';
    return 0;
}

int sr_marker_check(int dir, const char *uuid, bool must_exist, char ret_text[MARKER_TEXT_BYTES])
{
    char there[MARKER_BYTES];
    int r = read_marker(dir, there);

    if (r == -ENOENT && !must_exist)
        return 0;
    if (r == -ENOENT)
        snprintf(ret_text, MARKER_TEXT_BYTES,
                 "no file " MARKER " in it, which the SR's directory has: is it mounted?");
    else if (r < 0)
        snprintf(ret_text, MARKER_TEXT_BYTES, MARKER ": %s", strerror(-r));
    else if (!streq(there, uuid)) {
        r = -EEXIST;
        snprintf(ret_text, MARKER_TEXT_BYTES,
                 "it is the directory of the SR %s, as its file " MARKER " says", there);
    }
    return r;
}

int sr_marker_write(int dir, const char *uuid)
{
    _cleanup_(close_fd) int fd =
        openat(dir, MARKER ".new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    char line[MARKER_BYTES];
    int length = snprintf(line, sizeof line, "%s\n", uuid);

    if (fd < 0 || write(fd, line, (size_t) length) != length || fsync(fd) < 0
        || renameat(dir, MARKER ".new", dir, MARKER) < 0 || fsync(dir) < 0)
        return -errno;
    return 0;
}

void sr_marker_remove(int dir, const char *uuid)
{
    char there[MARKER_BYTES];

    if (read_marker(dir, there) == 0 && streq(there, uuid))
        unlinkat(dir, MARKER, 0);
}
