/* disk_nbd.c - a qcow2 disk through a qemu-nbd of its own (qemu_nbd.h)
 *
 * A qcow2 is read in pieces, several on their way at once: one after the other the two processes would wait for each
 * other more than they copy. */
#include "slave/disk_nbd.h"

#include <errno.h>
#include <libnbd.h>

#include "slave/qemu_nbd.h"

#define PIECE_BYTES  (512 * 1024)          /* of one request */
#define PIECES       8                     /* on their way at once */
#define STATUS_BYTES (1024 * 1024 * 1024)  /* of one question for holes, one order for zeros: 32 bits at most */
#define EXTENTS_MAX  4096                  /* remembered of an answer */

struct extent {
    int64_t end;
    bool has_data; /* may have */
};

struct disk_nbd {
    struct qemu_nbd server;

    /* What the last answer told of [known_at, the last extent's end). */
    int64_t known_at;
    struct extent known[EXTENTS_MAX];
    int known_count;
};

static int open_either(struct disk_nbd **ret, int dir, const char *directory, const char *name, int alone, bool is_writable,
                       const _Atomic bool *is_cancelled, char *ret_text)
{
    _cleanup_(disk_nbd_close) struct disk_nbd *disk = new0(struct disk_nbd);
    int r = qemu_nbd_start(&disk->server, dir, directory, name, alone, is_writable, is_cancelled, ret_text);

    if (r < 0)
        return r;
    *ret = TAKE(disk);
    return 0;
}

int disk_nbd_open(struct disk_nbd **ret, int dir, const char *directory, const char *name, bool is_writable,
                  const _Atomic bool *is_cancelled, char ret_text[DISK_IO_TEXT_BYTES])
{
    return open_either(ret, dir, directory, name, -1, is_writable, is_cancelled, ret_text);
}

int disk_nbd_open_alone(struct disk_nbd **ret, int fd, const _Atomic bool *is_cancelled, char ret_text[DISK_IO_TEXT_BYTES])
{
    return open_either(ret, -1, "/", "the image", fd, false, is_cancelled, ret_text);
}

void disk_nbd_close(struct disk_nbd **disk_p)
{
    struct disk_nbd *disk = *disk_p;

    if (!disk)
        return;
    qemu_nbd_end(&disk->server);
    free(disk);
    *disk_p = NULL;
}

int64_t disk_nbd_size(const struct disk_nbd *disk)
{
    return disk->server.size;
}

/* ---- holes ---- */

static int64_t known_end(const struct disk_nbd *disk)
{
    return disk->known_count ? disk->known[disk->known_count - 1].end : disk->known_at;
}

/* Pairs of bytes and flags; pairs of one kind become one. */
static int learn(void *user_data, const char *context, uint64_t offset, uint32_t *entries, size_t count, _unused_ int *error)
{
    struct disk_nbd *disk = user_data;

    if (!streq(context, LIBNBD_CONTEXT_BASE_ALLOCATION) || (int64_t) offset != disk->known_at || disk->known_count)
        return 0;
    for (size_t i = 0; i + 1 < count; i += 2) {
        bool has_data = !(entries[i + 1] & LIBNBD_STATE_ZERO);
        int64_t end = MIN(known_end(disk) + (int64_t) entries[i], disk->server.size);

        if (disk->known_count && disk->known[disk->known_count - 1].has_data == has_data)
            disk->known[disk->known_count - 1].end = end;
        else if (disk->known_count < EXTENTS_MAX)
            disk->known[disk->known_count++] = (struct extent){end, has_data};
        else
            break;
    }
    return 0;
}

static int ask(struct disk_nbd *disk, int64_t at)
{
    int r;

    disk->known_at = at;
    disk->known_count = 0;
    r = qemu_nbd_finish(&disk->server,
                        nbd_aio_block_status(disk->server.handle, (uint64_t) MIN(disk->server.size - at, (int64_t) STATUS_BYTES),
                                             (uint64_t) at, (nbd_extent_callback){.callback = learn, .user_data = disk},
                                             NBD_NULL_COMPLETION, 0));
    if (r < 0)
        return r;
    return known_end(disk) > at ? 0 : -EIO;
}

int disk_nbd_next_data(struct disk_nbd *disk, int64_t at, int64_t *ret_at, int64_t *ret_end)
{
    if (!disk->server.knows_holes && at < disk->server.size) {
        *ret_at = at;
        *ret_end = disk->server.size;
        return 0;
    }
    while (at < disk->server.size) {
        if (at < disk->known_at || at >= known_end(disk)) {
            int r = ask(disk, at);

            if (r < 0)
                return r;
        }
        for (int i = 0; i < disk->known_count; i++) {
            if (disk->known[i].end <= at)
                continue;
            if (disk->known[i].has_data) {
                *ret_at = at;
                *ret_end = disk->known[i].end;
                return 0;
            }
            at = disk->known[i].end;
        }
    }
    return -ENXIO;
}

/* ---- bytes ---- */

/* A run of requests; cookies of those on their way, the oldest first. */
struct run {
    int64_t cookies[PIECES];
    int first, count;
};

/* Wait for the oldest. */
static int finish_one(struct disk_nbd *disk, struct run *run)
{
    int64_t cookie = run->cookies[run->first];

    run->first = (run->first + 1) % PIECES;
    run->count--;
    return qemu_nbd_finish(&disk->server, cookie);
}

/* Read into `in`, or write from `out`. After a failure nothing is begun any more, but what is on its way is waited for: it
 * uses the caller's memory, unless the child was given up. */
static int transfer(struct disk_nbd *disk, char *in, const char *out, size_t count, int64_t at)
{
    struct run run = {0};
    int r = 0;

    for (size_t done = 0; (r == 0 && done < count) || run.count > 0;) {
        if (r == 0 && done < count && run.count < PIECES) {
            size_t piece = MIN(count - done, (size_t) PIECE_BYTES);
            uint64_t offset = (uint64_t) at + done;
            int64_t cookie = in ? nbd_aio_pread(disk->server.handle, in + done, piece, offset, NBD_NULL_COMPLETION, 0)
                                : nbd_aio_pwrite(disk->server.handle, out + done, piece, offset, NBD_NULL_COMPLETION, 0);

            if (cookie < 0) {
                r = qemu_nbd_error();
                continue;
            }
            run.cookies[(run.first + run.count++) % PIECES] = cookie;
            done += piece;
        } else {
            int error = finish_one(disk, &run);

            r = r < 0 ? r : error;
        }
    }
    return r;
}

int disk_nbd_read(struct disk_nbd *disk, void *bytes, size_t count, int64_t at)
{
    return transfer(disk, bytes, NULL, count, at);
}

/* What is known to be zeros behind a write stays so. */
static void forget(struct disk_nbd *disk, int64_t at, int64_t end)
{
    if (at >= known_end(disk) || end <= disk->known_at)
        return;
    if (end >= known_end(disk))
        disk->known_count = 0;
    else
        disk->known_at = end;
}

int disk_nbd_write(struct disk_nbd *disk, const void *bytes, size_t count, int64_t at)
{
    forget(disk, at, at + (int64_t) count);
    return transfer(disk, NULL, bytes, count, at);
}

/* Where there are zeros already nothing is written: a new disk would get tables for them. */
int disk_nbd_write_zeros(struct disk_nbd *disk, int64_t count, int64_t at)
{
    int64_t end = at + count;

    while (at < end) {
        int64_t data, data_end;
        int r = disk_nbd_next_data(disk, at, &data, &data_end);

        if (r == -ENXIO || (r == 0 && data >= end))
            return 0;
        if (r < 0)
            return r;
        at = MIN(MIN(data_end, end), data + (int64_t) STATUS_BYTES);
        forget(disk, data, at);
        r = qemu_nbd_finish(&disk->server, nbd_aio_zero(disk->server.handle, (uint64_t) (at - data), (uint64_t) data,
                                                        NBD_NULL_COMPLETION, 0));
        if (r < 0)
            return r;
    }
    return 0;
}

int disk_nbd_sync(struct disk_nbd *disk)
{
    return qemu_nbd_finish(&disk->server, nbd_aio_flush(disk->server.handle, NBD_NULL_COMPLETION, 0));
}
