/* xva_world.h - disks in memory and tars made by hand, for the tests of XVAs
 *
 * The disk is a double of slave/disk_io.h: pages that exist or do not, and counters. Defined here
 * it is taken instead of the library's. */
#pragma once

#include "slave/disk_io.h"
#include "tests/unit/memory_stream.h"

#include <errno.h>
#include <stdio.h>
#include <xxhash.h>

/* ---- disks ---- */

#define PAGE_BYTES 4096

struct disk_io {
    int64_t size;
    char **pages; /* NULL: a hole */
    int64_t hole_bytes_read;
    int64_t bytes_read, bytes_written;
    int64_t fail_read_at, fail_write_at; /* -1: never */
    int fail_result;
    unsigned syncs;
    int64_t passed; /* what disk_io_passed() told last */
};

static struct disk_io *world_disk(int64_t size)
{
    struct disk_io *io = new0(struct disk_io);

    io->size = size;
    io->pages = calloc((size_t) (size / PAGE_BYTES + 1),
                       sizeof *io->pages); /* costs nothing until touched */
    io->fail_read_at = io->fail_write_at = -1;
    return io;
}

void disk_io_close(struct disk_io **io_p)
{
    struct disk_io *io = TAKE(*io_p);

    if (!io)
        return;
    for (int64_t i = 0; i <= io->size / PAGE_BYTES; i++)
        free(io->pages[i]);
    free(io->pages);
    free(io);
}

int64_t disk_io_size(const struct disk_io *io)
{
    return io->size;
}

int disk_io_next_data(struct disk_io *io, int64_t at, int64_t *ret_at, int64_t *ret_end)
{
    int64_t page = at / PAGE_BYTES, end;

    while (page * PAGE_BYTES < io->size && !io->pages[page])
        page++;
    if (page * PAGE_BYTES >= io->size)
        return -ENXIO;
    end = page;
    while (end * PAGE_BYTES < io->size && io->pages[end])
        end++;
    *ret_at = MAX(at, page * PAGE_BYTES);
    *ret_end = MIN(end * PAGE_BYTES, io->size);
    return 0;
}

int disk_io_read(struct disk_io *io, void *bytes, size_t count, int64_t at)
{
    assert(at >= 0 && at + (int64_t) count <= io->size);
    if (io->fail_read_at >= at && io->fail_read_at < at + (int64_t) count)
        return io->fail_result;
    io->bytes_read += (int64_t) count;
    for (size_t done = 0; done < count;) {
        int64_t here = at + (int64_t) done;
        size_t n = MIN(count - done, (size_t) (PAGE_BYTES - here % PAGE_BYTES));
        const char *page = io->pages[here / PAGE_BYTES];

        if (page)
            memcpy((char *) bytes + done, page + here % PAGE_BYTES, n);
        else
            memset((char *) bytes + done, 0, n);
        io->hole_bytes_read += page ? 0 : (int64_t) n;
        done += n;
    }
    return 0;
}

int disk_io_passed(struct disk_io *io, int64_t end)
{
    assert(end > 0 && end <= io->size);
    io->passed = end;
    return 0;
}

int disk_io_write(struct disk_io *io, const void *bytes, size_t count, int64_t at)
{
    assert(at >= 0 && count > 0 && at + (int64_t) count <= io->size);
    if (io->fail_write_at >= at && io->fail_write_at < at + (int64_t) count)
        return io->fail_result;
    io->bytes_written += (int64_t) count;
    for (size_t done = 0; done < count;) {
        int64_t here = at + (int64_t) done;
        size_t n = MIN(count - done, (size_t) (PAGE_BYTES - here % PAGE_BYTES));
        char **page = &io->pages[here / PAGE_BYTES];

        if (!*page)
            *page = alloc0(PAGE_BYTES);
        memcpy(*page + here % PAGE_BYTES, (const char *) bytes + done, n);
        done += n;
    }
    return 0;
}

/* Codecs of XVAs have no use for it; what they share with others has. */
int disk_io_write_zeros(struct disk_io *io, int64_t count, int64_t at)
{
    (void) io;
    (void) count;
    (void) at;
    return -ENOTSUP;
}

int disk_io_sync(struct disk_io *io)
{
    io->syncs++;
    return 0;
}

/* Bytes that differ with the seed, never 0. */
_unused_ static void world_fill(struct disk_io *io, int64_t at, int64_t count, unsigned seed)
{
    char *bytes = alloc0((size_t) count + 1);

    for (int64_t i = 0; i < count; i++)
        bytes[i] = (char) ((seed * 2654435761u + (unsigned) ((at + i) * 40503)) >> 11 | 1);
    if (count > 0)
        disk_io_write(io, bytes, (size_t) count, at);
    free(bytes);
}

_unused_ static bool world_disks_equal(struct disk_io *a, struct disk_io *b)
{
    static char x[65536], y[65536];

    if (a->size != b->size)
        return false;
    for (int64_t at = 0; at < a->size; at += (int64_t) sizeof x) {
        size_t n = (size_t) MIN((int64_t) sizeof x, a->size - at);

        disk_io_read(a, x, n, at);
        disk_io_read(b, y, n, at);
        if (memcmp(x, y, n) != 0)
            return false;
    }
    return true;
}

/* ---- tars by hand ---- */

struct tar_head {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100],
        magic[6], version[2];
    char user[32], group[32], major[8], minor[8], prefix[155], padding[12];
};

/* A header of any type; sizes that do not fit are in base 256. */
static void tar_head(struct buffer *tar, const char *name, char type, int64_t size)
{
    struct tar_head head = {.mode = "0000644",
                            .uid = "0000000",
                            .gid = "0000000",
                            .mtime = "00000000000",
                            .magic = "ustar",
                            .version = {'0', '0'},
                            .type = type};
    unsigned sum = 0;

    strncpy(head.name, name, sizeof head.name - 1);
    if (type == '1' || type == '2')
        strcpy(head.link, "/etc/passwd");
    if (size < 1LL << 33)
        snprintf(head.size, sizeof head.size, "%011llo", (unsigned long long) size);
    else
        for (unsigned i = 0; i < 12; i++)
            head.size[i] = (char) (i == 0 ? 0x80 : i < 4 ? 0 : size >> 8 * (11 - i));
    memset(head.checksum, ' ', sizeof head.checksum);
    for (unsigned i = 0; i < sizeof head; i++)
        sum += ((unsigned char *) &head)[i];
    snprintf(head.checksum, sizeof head.checksum, "%06o", sum);
    _Static_assert(sizeof head == 512, "a record");
    buffer_add(tar, &head, sizeof head);
}

static void tar_body(struct buffer *tar, const void *bytes, size_t count)
{
    static const char zeros[512];

    buffer_add(tar, bytes, count);
    buffer_add(tar, zeros, (512 - count % 512) % 512);
}

_unused_ static void tar_file(struct buffer *tar, const char *name, const void *bytes, size_t count)
{
    tar_head(tar, name, '0', (int64_t) count);
    tar_body(tar, bytes, count);
}

_unused_ static void tar_end(struct buffer *tar)
{
    static const char zeros[1024];

    buffer_add(tar, zeros, sizeof zeros);
}

/* A block and its checksum by XXH64. */
_unused_ static void tar_block(struct buffer *tar, const char *name, const void *bytes,
                               size_t count)
{
    char checksum_name[120], digits[17];

    tar_file(tar, name, bytes, count);
    snprintf(checksum_name, sizeof checksum_name, "%s.xxhash", name);
    snprintf(digits, sizeof digits, "%016llX", (unsigned long long) XXH64(bytes, count, 0));
    tar_file(tar, checksum_name, digits, 16);
}
