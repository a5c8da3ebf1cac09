/* disk_nbd.c - a qcow2 disk through a qemu-nbd of its own (qemu_nbd.h)
 *
 * A qcow2 is read in pieces, several on their way at once: one after the other the two processes would wait for each
 * other more than they copy.
 *
 * For the same reason a disk that is opened to be read is read ahead: where a reader goes on where it stopped, requests
 * for the data behind it are on their way while it works on what it has.
 *
 *      read before | copied: their bytes are there | on their way            |  hole  | on its way |
 *                  ^ read_end                                                                      1 MiB in all
 *
 * They fill memory of the disk's own, a ring, until a read wants their bytes or passes by. Only what is known to hold data is
 * read so. Nobody is told of one that fails: whoever wants its bytes reads them then, and that fails or does not. */
#include "slave/disk_nbd.h"

#include <errno.h>
#include <libnbd.h>

#include "slave/qemu_nbd.h"

#define PIECE_BYTES  (512 * 1024)          /* of one request */
#define PIECES       8                     /* on their way at once */
#define STATUS_BYTES (1024 * 1024 * 1024)  /* of one question for holes, one order for zeros: 32 bits at most */
#define EXTENTS_MAX  4096                  /* remembered of an answer */

#define AHEAD_BYTES  (256 * 1024)          /* of one request ahead of the reader */
#define AHEAD_COUNT  4                     /* of these */

struct extent {
    int64_t end;
    bool has_data; /* may have */
};

/* A request ahead of the reader, for [at, end). */
struct ahead {
    int64_t at, end;
    int64_t cookie; /* 0: its bytes are there */
};

struct disk_nbd {
    struct qemu_nbd server;

    /* What the last answer told of [known_at, the last extent's end). */
    int64_t known_at;
    struct extent known[EXTENTS_MAX];
    int known_count;

    bool reads_ahead;                /* not one that is written, nor one where that has failed */
    int64_t read_end;                /* of the last read */
    struct ahead ahead[AHEAD_COUNT]; /* a ring; its places rise */
    int ahead_first, ahead_count;
    char *ahead_bytes;               /* AHEAD_BYTES for each; NULL while there are none */
};

static int open_either(struct disk_nbd **ret, int dir, const char *directory, const char *name, int alone, bool is_writable,
                       const _Atomic bool *is_cancelled, char *ret_text)
{
    _cleanup_(disk_nbd_close) struct disk_nbd *disk = new0(struct disk_nbd);
    int r = qemu_nbd_start(&disk->server, dir, directory, name, alone, is_writable, is_cancelled, ret_text);

    if (r < 0)
        return r;
    disk->reads_ahead = !is_writable;
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
    qemu_nbd_end(&disk->server); /* nothing is written to what follows any more */
    free(disk->ahead_bytes);
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

/* The next stretch that may hold data, of what the last answer told. */
static bool next_known_data(const struct disk_nbd *disk, int64_t at, int64_t *ret_at, int64_t *ret_end)
{
    if (at < disk->known_at)
        return false;
    for (int i = 0; i < disk->known_count; i++) {
        if (disk->known[i].end <= at)
            continue;
        if (disk->known[i].has_data) {
            *ret_at = at;
            *ret_end = disk->known[i].end;
            return true;
        }
        at = disk->known[i].end;
    }
    return false;
}

int disk_nbd_next_data(struct disk_nbd *disk, int64_t at, int64_t *ret_at, int64_t *ret_end)
{
    if (!disk->server.knows_holes && at < disk->server.size) {
        *ret_at = at;
        *ret_end = disk->server.size;
        return 0;
    }
    while (!next_known_data(disk, at, ret_at, ret_end)) {
        int r;

        if (at >= disk->known_at)
            at = MAX(at, known_end(disk)); /* zeros up to there */
        if (at >= disk->server.size)
            return -ENXIO;
        r = ask(disk, at);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- requests ---- */

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
    int r = disk->server.is_given_up ? -ECANCELED : 0;

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

/* ---- reading, and ahead of it ---- */

/* The oldest; NULL: none. */
static struct ahead *first_ahead(struct disk_nbd *disk)
{
    return disk->ahead_count > 0 ? &disk->ahead[disk->ahead_first] : NULL;
}

static char *bytes_of(const struct disk_nbd *disk, const struct ahead *ahead)
{
    return disk->ahead_bytes + (ahead - disk->ahead) * AHEAD_BYTES;
}

/* Until its bytes are there. After a failure nothing is read ahead any more: of some it is not known whether they are over, so no
 * memory is used twice. */
static void await(struct disk_nbd *disk, struct ahead *ahead)
{
    if (ahead->cookie != 0 && qemu_nbd_finish(&disk->server, ahead->cookie) < 0)
        disk->reads_ahead = false;
    ahead->cookie = 0;
}

/* What ends there or before is not wanted any more. */
static void drop_ahead(struct disk_nbd *disk, int64_t end)
{
    struct ahead *ahead;

    while ((ahead = first_ahead(disk)) && ahead->end <= end) {
        await(disk, ahead);
        disk->ahead_first = (disk->ahead_first + 1) % AHEAD_COUNT;
        disk->ahead_count--;
    }
}

/* Copy what was read ahead from `at` on, or a part of it. The number of bytes; 0: there are none. */
static int64_t take_ahead(struct disk_nbd *disk, char *bytes, int64_t at, int64_t end)
{
    struct ahead *ahead;

    drop_ahead(disk, at);
    ahead = first_ahead(disk);
    if (!ahead || ahead->at > at)
        return 0;
    await(disk, ahead);
    if (!disk->reads_ahead) {
        drop_ahead(disk, INT64_MAX);
        return 0;
    }
    end = MIN(end, ahead->end);
    memcpy(bytes, bytes_of(disk, ahead) + (at - ahead->at), (size_t) (end - at));
    return end - at;
}

/* The bytes lie where they belong by then. */
static int see_chunk(_unused_ void *user_data, _unused_ const void *bytes, _unused_ size_t count, _unused_ uint64_t at,
                     _unused_ unsigned status, _unused_ int *error)
{
    return 0;
}

/* All of it in one answer (DF). A read that QEMU would answer in parts, data and holes, and that fails, makes it close the connection:
 * nobody would get what lies before the damage. There are no holes in these. */
static int64_t begin_ahead(struct disk_nbd *disk, char *bytes, size_t count, int64_t at)
{
    return nbd_aio_pread_structured(disk->server.handle, bytes, count, (uint64_t) at, (nbd_chunk_callback){.callback = see_chunk},
                                    NBD_NULL_COMPLETION, LIBNBD_CMD_FLAG_DF);
}

/* Begin what follows the last of them, or the last read. They end at multiples, whatever the reader's steps: so do clusters. */
static void read_ahead(struct disk_nbd *disk)
{
    int64_t at = disk->read_end, end;

    if (disk->ahead_count > 0)
        at = disk->ahead[(disk->ahead_first + disk->ahead_count - 1) % AHEAD_COUNT].end;
    while (disk->reads_ahead && disk->ahead_count < AHEAD_COUNT && next_known_data(disk, at, &at, &end)) {
        struct ahead *ahead = &disk->ahead[(disk->ahead_first + disk->ahead_count) % AHEAD_COUNT];

        if (!disk->ahead_bytes)
            disk->ahead_bytes = alloc0((size_t) AHEAD_COUNT * AHEAD_BYTES);
        end = MIN(end, (at / AHEAD_BYTES + 1) * AHEAD_BYTES);
        *ahead = (struct ahead){at, end, begin_ahead(disk, bytes_of(disk, ahead), (size_t) (end - at), at)};
        if (ahead->cookie < 0)
            return;
        disk->ahead_count++;
        at = end;
    }
}

int disk_nbd_read(struct disk_nbd *disk, void *bytes, size_t count, int64_t at)
{
    int64_t begin = at, end = at + (int64_t) count;
    bool goes_on = at == disk->read_end;
    int r = 0;

    if (at < disk->read_end)
        drop_ahead(disk, INT64_MAX);
    while (r == 0 && at < end) {
        char *to = (char *) bytes + (at - begin);
        int64_t n = take_ahead(disk, to, at, end);

        if (n == 0) {
            n = disk->ahead_count > 0 ? MIN(end, first_ahead(disk)->at) - at : end - at;
            r = transfer(disk, to, NULL, (size_t) n, at);
        }
        at += n;
    }
    disk->read_end = end;
    drop_ahead(disk, end);
    if (r == 0 && (goes_on || disk->ahead_count > 0))
        read_ahead(disk);
    if (disk->ahead_count == 0 && disk->reads_ahead) { /* whoever has many disks open reads one after the other */
        free(disk->ahead_bytes);
        disk->ahead_bytes = NULL;
    }
    return r;
}

/* ---- writing ---- */

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
