/* fuzz_disk.h - what the targets of disks' formats share: a stream of the input, and a disk to read it into */
#pragma once

#include <stdio.h>
#include <unistd.h>

#include "slave/disk_io.h"
#include "slave/storage.h"
#include "slave/stream.h"

#define FUZZ_DISK_BYTES (1024 * 1024)

struct bytes_source {
    struct source base;
    const uint8_t *bytes;
    size_t left, piece; /* what a read gives at most */
};

static ssize_t bytes_source_read(struct source *base, const void **ret_bytes)
{
    struct bytes_source *source = CONTAINER_OF(base, struct bytes_source, base);
    size_t count = MIN(source->left, source->piece);

    *ret_bytes = source->bytes;
    source->bytes += count;
    source->left -= count;
    return (ssize_t) count;
}

static void bytes_source_init(struct bytes_source *source, const uint8_t *bytes, size_t count, size_t piece)
{
    *source = (struct bytes_source){.base.read = bytes_source_read, .bytes = bytes, .left = count, .piece = piece};
}

/* One for all inputs; its file has no name any more. */
static struct disk_io *fuzz_disk(void)
{
    static struct disk_io *disk;
    char directory[] = "/tmp/drover-fuzz-XXXXXX", path[64], text[DISK_IO_TEXT_BYTES];
    FILE *file;

    if (disk)
        return disk;
    if (!mkdtemp(directory))
        abort();
    snprintf(path, sizeof path, "%s/disk", directory);
    file = fopen(path, "w");
    if (!file || ftruncate(fileno(file), FUZZ_DISK_BYTES) < 0
        || disk_io_open(&disk, &(struct sr_place){.directory = directory}, "disk", "raw", true, NULL, text) < 0)
        abort();
    fclose(file);
    unlink(path);
    rmdir(directory);
    return disk;
}
