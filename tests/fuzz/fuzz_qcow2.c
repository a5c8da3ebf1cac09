/* fuzz_qcow2.c - any bytes as a qcow2 file: refused, or facts that are texts and a size; and tables that lead into the file
 *
 * The data of such a file is QEMU's to read, in a process of its own. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "slave/qcow2_check.h"
#include "slave/storage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    struct disk_facts facts;

    if (fd < 0)
        fd = memfd_create("image", MFD_CLOEXEC);
    if (ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t) size)
        abort();
    if (disk_facts_of(fd, "qcow2", &facts) == 0
        && (facts.virtual_size < 0 || !memchr(facts.backing, 0, sizeof facts.backing)
            || !memchr(facts.backing_format, 0, sizeof facts.backing_format)))
        abort();
    switch (qcow2_check(fd, (int64_t) size, 1LL << 40)) {
    case 0:
    case -EFBIG:
    case -EBADMSG:
        return 0;
    default:
        abort();
    }
}
