/* fuzz_chunked.c - any bytes as the records of a chunked import: refused with a text, or read to the end
 *
 * The first byte chooses how much a read of the stream gives. */
#include "slave/raw_stream.h"
#include "tests/fuzz/fuzz_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[DISK_IO_TEXT_BYTES];
    struct bytes_source source;
    int r;

    if (size == 0)
        return 0;
    bytes_source_init(&source, data + 1, size - 1, 1 + data[0]);
    r = raw_import_chunked(fuzz_disk(), &source.base, NULL, text);
    if (r < 0 ? !text[0] : source.left != 0)
        abort();
    return 0;
}
