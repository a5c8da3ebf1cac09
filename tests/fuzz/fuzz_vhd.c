/* fuzz_vhd.c - any bytes as a VHD file: refused, or a disk
 *
 * The first byte: bit 0 has the sums of footer and header put right, else few inputs would come past them; bit 1 says that
 * the disk is the base of a differencing file; the others choose how much a read of the stream gives. */
#include "slave/big_endian.h"
#include "slave/vhd.h"
#include "slave/vhd_read.h"
#include "tests/fuzz/fuzz_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
    ref_t base = {0x1111111122224333, 0x8444555555555555};
    char text[DISK_IO_TEXT_BYTES];
    struct bytes_source source;
    uint8_t *copy;
    int r;

    if (size == 0)
        return 0;
    copy = alloc0(size);
    memcpy(copy, data + 1, size - 1);
    bytes_source_init(&source, copy, size - 1, 1 + ((size_t) (data[0] >> 2) << 7));
    if (data[0] & 1 && source.left >= VHD_FOOTER_BYTES) {
        put_sum(copy, VHD_FOOTER_BYTES, 64);
        put_sum(copy + source.left - VHD_FOOTER_BYTES, VHD_FOOTER_BYTES, 64);
        if (source.left >= VHD_FOOTER_BYTES + VHD_HEADER_BYTES)
            put_sum(copy + VHD_FOOTER_BYTES, VHD_HEADER_BYTES, 36);
    }
    r = vhd_read(fuzz_disk(), &source.base, data[0] & 2 ? base : NULL_REF, NULL, text);
    if (r < 0 ? !text[0] : source.left != 0)
        abort(); /* refused without a word, or taken without a look at all of it */
    free(copy);
    return 0;
}
