/* fuzz_vhd.c - any bytes as a VHD file: refused, or a disk
 *
 * The first byte: bit 0 has the sums of footer and header put right, else few inputs would come past them; bit 1 says that
 * the disk is the base of a differencing file; the others choose how much a read of the stream gives. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "slave/big_endian.h"
#include "slave/vhd.h"
#include "slave/vhd_read.h"

#define DISK_BYTES (1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bytes_source {
    struct source base;
    const uint8_t *bytes;
    size_t left, piece;
};

static ssize_t give(struct source *base, const void **ret_bytes)
{
    struct bytes_source *source = CONTAINER_OF(base, struct bytes_source, base);
    size_t count = MIN(source->left, source->piece);

    *ret_bytes = source->bytes;
    source->bytes += count;
    source->left -= count;
    return (ssize_t) count;
}

/* One for all inputs; it has no name any more. */
static struct disk_io *open_disk(void)
{
    char directory[] = "/tmp/drover-fuzz-XXXXXX", path[64], text[DISK_IO_TEXT_BYTES];
    struct disk_io *disk;
    FILE *file;

    if (!mkdtemp(directory))
        abort();
    snprintf(path, sizeof path, "%s/disk", directory);
    file = fopen(path, "w");
    if (!file || ftruncate(fileno(file), DISK_BYTES) < 0 || disk_io_open(&disk, directory, "disk", "raw", true, text) < 0)
        abort();
    fclose(file);
    unlink(path);
    rmdir(directory);
    return disk;
}

static void put_sum(uint8_t *bytes, size_t count, size_t at)
{
    uint32_t sum = 0;

    memset(bytes + at, 0, 4);
    for (size_t i = 0; i < count; i++)
        sum += bytes[i];
    put_be32(bytes + at, ~sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct disk_io *disk;
    ref_t base = {0x1111111122224333, 0x8444555555555555};
    char text[DISK_IO_TEXT_BYTES];
    struct bytes_source source = {.base.read = give};
    uint8_t *copy;
    int r;

    if (!disk)
        disk = open_disk();
    if (size == 0)
        return 0;
    copy = alloc0(size);
    memcpy(copy, data + 1, size - 1);
    source.bytes = copy;
    source.left = size - 1;
    source.piece = 1 + ((size_t) (data[0] >> 2) << 7);
    if (data[0] & 1 && source.left >= VHD_FOOTER_BYTES) {
        put_sum(copy, VHD_FOOTER_BYTES, 64);
        put_sum(copy + source.left - VHD_FOOTER_BYTES, VHD_FOOTER_BYTES, 64);
        if (source.left >= VHD_FOOTER_BYTES + VHD_HEADER_BYTES)
            put_sum(copy + VHD_FOOTER_BYTES, VHD_HEADER_BYTES, 36);
    }
    r = vhd_read(disk, &source.base, data[0] & 2 ? base : NULL_REF, NULL, text);
    if (r < 0 ? !text[0] : source.left != 0)
        abort(); /* refused without a word, or taken without a look at all of it */
    free(copy);
    return 0;
}
