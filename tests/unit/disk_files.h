/* disk_files.h - a directory of disks, for tests of what reads and writes them: made, filled by a shell, gone
 *
 *     begin    DIR is there             make_disk   a.raw, data at some places, open as `disk`
 *     run      a shell's line in DIR    make_used   b.raw, full of other bytes, open as `other`
 *     end      DIR is gone              open_disk   any other
 *
 * To be included after cmocka.h. */
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/buffer.h"
#include "slave/disk_io.h"
#include "slave/storage.h"

#define MIB 1048576

struct disk_files {
    char dir[64];
    char text[DISK_IO_TEXT_BYTES];  /* what was wrong */
    struct disk_io *disk, *other;   /* closed at the end; NULL: none */
    const _Atomic bool *is_cancelled; /* of those opened from now on; or NULL */
};

static void disk_files_make(struct disk_files *files)
{
    strcpy(files->dir, "/tmp/drover-disks-XXXXXX");
    assert_non_null(mkdtemp(files->dir));
}

/* What it says on standard output is nobody's; it has to end well. */
static void run(struct disk_files *files, const char *format, ...) _printf_(2, 3);
static void run(struct disk_files *files, const char *format, ...)
{
    char command[600], line[700];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    snprintf(line, sizeof line, "cd %s && { %s; } >/dev/null", files->dir, command);
    if (system(line) != 0)
        fail_msg("%s", line);
}

/* An import leaves nothing of what it has stored meanwhile. */
static void disk_files_done(struct disk_files *files)
{
    disk_io_close(&files->disk);
    disk_io_close(&files->other);
    run(files, "test -z \"$(ls -A | grep import)\" && rm -rf %s", files->dir);
}

_unused_ static int begin(void **state)
{
    struct disk_files *files = new0(struct disk_files);

    disk_files_make(files);
    *state = files;
    return 0;
}

_unused_ static int end(void **state)
{
    disk_files_done(*state);
    free(*state);
    return 0;
}

static struct disk_io *open_disk(struct disk_files *files, const char *name, const char *format, bool is_writable)
{
    struct disk_io *disk = NULL;
    int r = disk_io_open(&disk, &(struct sr_place){.directory = files->dir}, name, format, is_writable,
                         files->is_cancelled, files->text);

    if (r < 0)
        fail_msg("%d %s", r, files->text);
    return disk;
}

_unused_ static void make_disk(struct disk_files *files, int64_t size)
{
    disk_io_close(&files->disk);
    run(files, "rm -f a.raw && truncate -s %lld a.raw", (long long) size);
    files->disk = open_disk(files, "a.raw", "raw", true);
    if (size >= 21 * MIB)
        run(files, "for at in 0 3 4 20; do "
                   "head -c 1M /dev/urandom | dd of=a.raw bs=1M seek=$at conv=notrunc status=none; done");
    if (size > 0)
        assert_int_equal(disk_io_write(files->disk, "z", 1, size - 1), 0);
}

_unused_ static void make_used(struct disk_files *files, int64_t size)
{
    disk_io_close(&files->other);
    run(files, "head -c %lld /dev/zero | tr '\\0' '\\377' >b.raw", (long long) size);
    files->other = open_disk(files, "b.raw", "raw", true);
}

_unused_ static void write_file(struct disk_files *files, const char *name, const struct buffer *bytes)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", files->dir, name);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes->bytes, 1, bytes->length, file), bytes->length);
    assert_int_equal(fclose(file), 0);
}

_unused_ static void read_file(struct disk_files *files, const char *name, struct buffer *ret)
{
    char path[128], bytes[65536];
    FILE *file;
    size_t n;

    snprintf(path, sizeof path, "%s/%s", files->dir, name);
    file = fopen(path, "r");
    assert_non_null(file);
    buffer_init(ret, SIZE_MAX);
    while ((n = fread(bytes, 1, sizeof bytes, file)) > 0)
        buffer_add(ret, bytes, n);
    fclose(file);
}
