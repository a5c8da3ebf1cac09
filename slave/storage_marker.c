/* storage_marker.c - the way to the directory of an SR, and the file by which a shared one is known
 *
 *   SR.create --> sr_create writes DIR/.drover-sr: the SR's uuid --> whoever opens the directory, on any host, finds it there
 *
 * Where the file system is not mounted there is a directory all the same, empty and of the host's own: disks would land on its
 * root file system, a scan would find all disks gone, and a guest would write beside the disk that it thinks it has. So what is
 * done to an SR, for whatever call, goes through sr_open(). */
#include "slave/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define MARKER       ".drover-sr"
#define MARKER_BYTES 64 /* of its content: a line with a uuid */

/* ---- the file ---- */

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

int sr_marker_check(const struct sr_place *place, int dir, char ret_text[STORAGE_TEXT_BYTES])
{
    char there[MARKER_BYTES];
    int r = place->marker == MARKER_NONE ? 0 : read_marker(dir, there);

    if (place->marker == MARKER_NONE || (r == -ENOENT && place->marker != MARKER_MUST_BE))
        return 0;
    if (r == -ENOENT)
        snprintf(ret_text, STORAGE_TEXT_BYTES, "no file " MARKER " in %s: is it mounted?", place->directory);
    else if (r < 0)
        snprintf(ret_text, STORAGE_TEXT_BYTES, "%s/" MARKER ": %s", place->directory, strerror(-r));
    else if (!streq(there, place->uuid)) {
        r = -EEXIST;
        snprintf(ret_text, STORAGE_TEXT_BYTES, "file " MARKER " is that of the SR %s in %s", there, place->directory);
    }
    return r;
}

int sr_marker_write(int dir, const char *uuid)
{
    _cleanup_(close_fd) int fd = openat(dir, MARKER ".new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
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

/* ---- the directory ---- */

static struct sr_place place_from(const char *type, const char *directory, const char *uuid, const char *marker)
{
    enum sr_marker needs = streq(marker, "make")                               ? MARKER_MAKE
                           : streq(marker, "check") || streq(marker, "unmade") ? MARKER_MUST_BE
                                                                               : MARKER_MAY_LACK;

    return (struct sr_place){
        .directory = directory,
        .uuid = uuid,
        .marker = streq(type, "shared-file") ? needs : MARKER_NONE,
        .is_unmade = streq(marker, "unmade"),
    };
}

struct sr_place sr_place_of(const struct value *sr)
{
    return place_from(value_map_text(sr, "type", ""), value_map_text(sr, "location", ""), value_map_text(sr, "uuid", ""),
                      value_map_text(sr, "marker", ""));
}

struct sr_place sr_place_of_disk(const struct value *disk)
{
    return place_from(value_map_text(disk, "sr_type", ""), value_map_text(disk, "sr_location", ""),
                      value_map_text(disk, "sr", ""), value_map_text(disk, "sr_marker", ""));
}

int sr_open_unchecked(const struct sr_place *place, char ret_text[STORAGE_TEXT_BYTES])
{
    int dir = open(place->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir >= 0)
        return dir;
    dir = -errno;
    snprintf(ret_text, STORAGE_TEXT_BYTES, "%s: %s", place->directory,
             dir == -ENOENT ? "there is no such directory: is it mounted?" : strerror(-dir));
    return dir;
}

int sr_open(const struct sr_place *place, char ret_text[STORAGE_TEXT_BYTES])
{
    int dir = sr_open_unchecked(place, ret_text);
    int r = dir < 0 ? dir : sr_marker_check(place, dir, ret_text);

    if (r == 0 && place->marker == MARKER_MAKE) {
        r = sr_marker_write(dir, place->uuid);
        if (r < 0)
            snprintf(ret_text, STORAGE_TEXT_BYTES, "%s/" MARKER ": %s", place->directory, strerror(-r));
    }
    if (r == 0)
        return dir;
    close_fd(&dir);
    return r;
}
