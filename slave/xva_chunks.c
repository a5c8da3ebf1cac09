/* xva_chunks.c - disks of a legacy archive, appliance version 0.1 (xva_read.h)
 *
 *      sda/chunk-000000000.gz     the disk's first 1,000,000,000 bytes, as gzip
 *      sda/chunk-000000001.gz     the next ones; the last chunk is short
 *
 * also spelled chunk000000000.gz. A chunk's place is its number alone, and the tools that made such
 * archives packed directories, so chunks come in any order and directories are members too. Every
 * chunk has to come, once, and each but a disk's last has to be full: that is all there is against
 * a cut, beside gzip's own checksums. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "shared/decompress.h"
#include "slave/xva_reader.h"

#define CHUNK_BYTES   ((int64_t) 1000 * 1000 * 1000)
#define NUMBER_DIGITS 9
#define NAME_BYTES    300

struct chunk_disk {
    int64_t count, come; /* chunks that it has, that came */
    bool *is_come;
};

struct chunks {
    struct xva_reader *reader;
    const struct xva_import *import;
    struct disk_thread *thread;
    struct gunzip *gunzip;
    struct chunk_disk *disks;
};

/* The first chunk that has not come. */
static void expected_name(const struct chunks *chunks, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "the end of the archive");
    for (unsigned i = 0; i < chunks->import->count; i++)
        for (int64_t k = 0; k < chunks->disks[i].count; k++)
            if (!chunks->disks[i].is_come[k]) {
                snprintf(name, NAME_BYTES, "%s/chunk-%09lld.gz", chunks->import->disks[i].prefix,
                         (long long) k);
                return;
            }
}

/* "chunk-000000012.gz" or "chunk000000012.gz"; else -1. */
static int64_t chunk_number(const char *text)
{
    int64_t number = 0;

    if (strncmp(text, "chunk", 5) != 0)
        return -1;
    text += text[5] == '-' ? 6 : 5;
    if (strspn(text, "0123456789") != NUMBER_DIGITS || !streq(text + NUMBER_DIGITS, ".gz"))
        return -1;
    for (unsigned i = 0; i < NUMBER_DIGITS; i++)
        number = number * 10 + (text[i] - '0');
    return number;
}

static int find_chunk(const struct chunks *chunks, const char *name, int64_t *ret_number)
{
    for (unsigned i = 0; i < chunks->import->count; i++) {
        const char *prefix = chunks->import->disks[i].prefix;
        size_t length = strlen(prefix);

        if (strncmp(name, prefix, length) == 0 && name[length] == '/') {
            *ret_number = chunk_number(name + length + 1);
            return *ret_number >= 0 ? (int) i : -1;
        }
    }
    return -1;
}

/* Unpack a member into the disk. */
static int read_chunk(struct chunks *chunks, const char *name, unsigned disk, int64_t number)
{
    const struct xva_import_disk *to = &chunks->import->disks[disk];
    int64_t begin = number * CHUNK_BYTES, at = begin, end = MIN(begin + CHUNK_BYTES, to->bytes);
    const char *bytes, *out;
    ssize_t n;

    gunzip_begin(chunks->gunzip);
    while ((n = xva_member_read(chunks->reader, &bytes)) > 0) {
        size_t count = (size_t) n;
        ssize_t unpacked;

        while ((unpacked = gunzip_run(chunks->gunzip, &bytes, &count, &out)) > 0) {
            int r;

            if (unpacked > end - at)
                return xva_fail_text(chunks->reader, "%s has more bytes than its place has", name);
            r = disk_thread_write(chunks->thread, disk, out, (size_t) unpacked, at);
            if (r < 0)
                return r;
            at += unpacked;
            atomic_fetch_add(&chunks->reader->figures->disk_bytes_done, (int64_t) unpacked);
        }
        if (unpacked < 0)
            return xva_fail_text(chunks->reader, "%s is damaged", name);
    }
    if (n < 0)
        return (int) n;
    if (!gunzip_is_complete(chunks->gunzip))
        return xva_fail(chunks->reader, "IMPORT_ERROR_PREMATURE_EOF");
    if (at < end && number + 1 < chunks->disks[disk].count)
        return xva_fail_text(chunks->reader, "%s has %lld bytes instead of %lld", name,
                             (long long) (at - begin), (long long) (end - begin));
    atomic_fetch_add(&chunks->reader->figures->disk_bytes_done,
                     end - at); /* zeros at the disk's end */
    return 0;
}

static bool is_directory_of_disk(const struct chunks *chunks, const struct member *member)
{
    for (unsigned i = 0; member->is_directory && i < chunks->import->count; i++) {
        const char *prefix = chunks->import->disks[i].prefix;
        size_t length = strlen(prefix);

        if (strncmp(member->name, prefix, length) == 0 && streq(member->name + length, "/"))
            return true;
    }
    return false;
}

static int take_member(struct chunks *chunks, const struct member *member)
{
    char expected[NAME_BYTES];
    int64_t number = -1;
    int disk;
    int r;

    if (is_directory_of_disk(chunks, member))
        return 0;
    disk = member->is_directory ? -1 : find_chunk(chunks, member->name, &number);
    if (disk < 0 || number >= chunks->disks[disk].count || chunks->disks[disk].is_come[number]) {
        expected_name(chunks, expected);
        return xva_fail_unexpected(chunks->reader, expected, member->name);
    }
    r = read_chunk(chunks, member->name, (unsigned) disk, number);
    if (r < 0)
        return r;
    chunks->disks[disk].is_come[number] = true;
    chunks->disks[disk].come++;
    return 0;
}

static int check_all(struct chunks *chunks)
{
    for (unsigned i = 0; i < chunks->import->count; i++)
        if (chunks->disks[i].come < chunks->disks[i].count)
            return xva_fail_at(chunks->reader,
                               chunks->disks[i].come > 0 ? "IMPORT_ERROR_PREMATURE_EOF"
                                                         : "IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND",
                               chunks->import->disks[i].prefix);
    return 0;
}

static int read_all(struct chunks *chunks)
{
    char expected[NAME_BYTES];
    struct member member;
    int r;

    for (;;) {
        expected_name(chunks, expected);
        r = xva_next_member(chunks->reader, expected, true, &member);
        if (r <= 0)
            break;
        r = take_member(chunks, &member);
        if (r < 0)
            return r;
    }
    if (r == 0)
        r = check_all(chunks);
    if (r == 0)
        r = xva_finish(chunks->reader);
    return r < 0 ? r : disk_thread_sync(chunks->thread);
}

int xva_read_chunks(struct xva_reader *reader, const struct xva_import *import)
{
    struct chunks chunks = {
        .reader = reader,
        .import = import,
        .thread = disk_thread_new(import),
        .gunzip = gunzip_new(),
        .disks = new0_array(struct chunk_disk, import->count + 1),
    };
    int r;

    for (unsigned i = 0; i < import->count; i++) {
        struct chunk_disk *disk = &chunks.disks[i];

        disk->count = (import->disks[i].bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
        disk->is_come = new0_array(bool, (size_t) disk->count + 1);
    }
    xva_expect_bytes(reader, import);
    r = chunks.thread ? read_all(&chunks) : -EAGAIN;
    disk_thread_destroy(&chunks.thread);
    gunzip_destroy(&chunks.gunzip);
    for (unsigned i = 0; i < import->count; i++)
        free(chunks.disks[i].is_come);
    free(chunks.disks);
    return r;
}
