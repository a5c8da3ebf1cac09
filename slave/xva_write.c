/* xva_write.c - disks into a tar, sparse (xva_write.h)
 *
 *      next_data, read -> zeros? -> hash -> libarchive -> [compress] -> skip -> sink
 *
 * All of it in one thread, a piece at a time, which stays in the processor's cache meanwhile. What could be done at once is
 * done elsewhere: the kernel, or disk_nbd.c, reads ahead, compressions have threads, and an HTTP loop sends.
 *
 * We ask the disk where data is and never read a hole. Blocks that are all zeros are left
 * out, the first and the last of each disk excepted: readers take the size of a gap from the first
 * block, and see by the last one that a disk is complete. A block is not gathered before it is
 * sent: its pieces go on as they come, except that leading zeros are only counted until something
 * else shows that the block is one to send.
 *
 * A long stretch of written zeros takes its time to read, and what is between us and the client may
 * take silence for an end. xapi sends an empty block when it has sent nothing for 5 s. Here the
 * stream has to come out the same each time, so that is left to the place and not to the clock: a
 * block is sent each XVA_SIGN_BYTES, whatever it holds. Not an empty one, behind which the numbers
 * of blocks and their places differ: not all who read XVAs know that.
 *
 * libarchive writes the tar: unbuffered, half a microsecond a block. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <xxhash.h>

#include "slave/disk_writer.h"
#include "slave/xva_write.h"

#define TAR_RECORD_BYTES 512
#define CHECKSUM_DIGITS  16
#define PIECE_BYTES      ((size_t) 256 * 1024) /* read at once */

/* ---- what leaves ---- */

struct outlet {
    struct sink sink; /* what libarchive, or the compression, writes to */
    struct sink *below;
    int64_t skip; /* bytes that are still held back */
};

static int outlet_write(struct sink *sink, const void *bytes, size_t count)
{
    struct outlet *outlet = CONTAINER_OF(sink, struct outlet, sink);
    size_t skipped = (size_t) MIN(outlet->skip, (int64_t) count);

    outlet->skip -= (int64_t) skipped;
    if (skipped == count)
        return 0;
    return outlet->below->write(outlet->below, (const char *) bytes + skipped, count - skipped);
}

struct writing {
    const struct xva_export_disk *disks;
    struct transfer_figures *figures;
    struct outlet outlet;
    struct sink *compress; /* NULL: none */
    struct archive *archive;
    struct archive_entry *entry;
    int result;    /* the first that went wrong; nothing is written after it */
    bool is_dense; /* of the disks behind the first that has any bytes: nothing is left out */
    char *piece;   /* PIECE_BYTES */

    /* The disk that is written. */
    const char *prefix;
    struct disk_io *io;
    int64_t data_at, data_end; /* the next stretch of data, at or after where we are; known while we
                                  are before its end */

    /* The block that comes in pieces. */
    int64_t block_at, block_end;
    bool is_begun; /* its header was written */
    bool is_hashed;
    int64_t zeros; /* bytes it began with, while not begun */
    XXH64_state_t *hash;
};

static la_ssize_t archive_sink(struct archive *archive, void *arg, const void *bytes, size_t count)
{
    struct writing *writing = arg;
    struct sink *sink = writing->compress ? writing->compress : &writing->outlet.sink;

    if (writing->result == 0)
        writing->result = sink->write(sink, bytes, count);
    if (writing->result == 0)
        return (la_ssize_t) count;
    archive_set_error(archive, -writing->result, "cannot write");
    return -1;
}

/* What libarchive answered. It fails only where the sink has, or for want of memory. */
static int archive_result(struct writing *writing, la_ssize_t r)
{
    return r >= 0 ? 0 : writing->result < 0 ? writing->result : -EIO;
}

static int begin_member(struct writing *writing, const char *name, size_t bytes)
{
    archive_entry_clear(writing->entry);
    archive_entry_set_pathname(writing->entry, name);
    archive_entry_set_size(writing->entry, (la_int64_t) bytes);
    archive_entry_set_filetype(writing->entry, AE_IFREG);
    archive_entry_set_perm(writing->entry, 0644);
    archive_entry_set_mtime(writing->entry, 0, 0); /* the same stream each time */
    return archive_result(writing, archive_write_header(writing->archive, writing->entry));
}

static int write_member_bytes(struct writing *writing, const char *bytes, size_t count)
{
    return archive_result(writing, archive_write_data(writing->archive, bytes, count));
}

static int write_member(struct writing *writing, const char *name, const char *bytes, size_t count)
{
    int r = begin_member(writing, name, count);

    return r < 0 ? r : write_member_bytes(writing, bytes, count);
}

/* ---- what the disk holds ---- */

/* Make the next stretch known. At the end of data it lies at the disk's end. */
static int find_data(struct writing *writing, int64_t at)
{
    int r;

    if (at < writing->data_end)
        return 0;
    r = disk_io_next_data(writing->io, at, &writing->data_at, &writing->data_end);
    if (r == -ENXIO) {
        writing->data_at = writing->data_end = INT64_MAX;
        return 0;
    }
    if (r < 0)
        return r;
    /* the promise of disk_io.h, which we would loop without end over */
    return writing->data_at < writing->data_end && writing->data_end > at ? 0 : -EIO;
}

/* What the disk holds there becomes the piece; holes without reading them. */
static int read_piece(struct writing *writing, int64_t begin, int64_t end, bool *ret_is_zero)
{
    char *bytes = writing->piece;
    bool is_hole = true;
    int r;

    for (int64_t at = begin; at < end;) {
        int64_t from, to;

        r = find_data(writing, at);
        if (r < 0)
            return r;
        from = MIN(MAX(at, writing->data_at), end);
        to = MIN(writing->data_end, end);
        if (from > at)
            memset(bytes + (at - begin), 0, (size_t) (from - at));
        if (from < end) {
            r = disk_io_read(writing->io, bytes + (from - begin), (size_t) (to - from), from);
            if (r < 0)
                return r;
            is_hole = false;
        }
        at = from < end ? to : end;
    }
    *ret_is_zero = is_hole || bytes_are_zero(bytes, (size_t) (end - begin));
    return 0;
}

/* ---- blocks ---- */

#define NAME_BYTES \
    300 /* of a member: prefixes are short, and libarchive refuses what ustar has no room for */

static void block_name(struct writing *writing, const char *suffix, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "%s/%08lld%s", writing->prefix,
             (long long) (writing->block_at / XVA_BLOCK_BYTES), suffix);
}

static int block_bytes(struct writing *writing, const char *bytes, size_t count)
{
    if (writing->is_hashed)
        XXH64_update(writing->hash, bytes, count);
    return write_member_bytes(writing, bytes, count);
}

/* The header, and the zeros that were held back. */
static int begin_block(struct writing *writing)
{
    static const char zeros[PIECE_BYTES];
    char name[NAME_BYTES];
    int64_t bytes = writing->block_end - writing->block_at;
    int64_t stream_bytes = bytes + 5 * TAR_RECORD_BYTES; /* at most: two headers, two paddings, a checksum */
    int r;

    /* Nobody sees a hash that is skipped. Under a compression we cannot tell where its bytes go. */
    writing->is_hashed = writing->compress || writing->outlet.skip < stream_bytes;
    writing->is_begun = true;
    XXH64_reset(writing->hash, 0);
    block_name(writing, "", name);
    r = begin_member(writing, name, (size_t) bytes);
    for (; r == 0 && writing->zeros > 0;
         writing->zeros -= MIN(writing->zeros, (int64_t) PIECE_BYTES))
        r = block_bytes(writing, zeros, (size_t) MIN(writing->zeros, (int64_t) PIECE_BYTES));
    return r;
}

static int end_block(struct writing *writing)
{
    char name[NAME_BYTES], digits[CHECKSUM_DIGITS + 1];

    block_name(writing, ".xxhash", name);
    snprintf(digits, sizeof digits, "%016llX",
             writing->is_hashed ? (unsigned long long) XXH64_digest(writing->hash) : 0);
    return write_member(writing, name, digits, CHECKSUM_DIGITS);
}

static int write_piece(struct writing *writing, int64_t at, int64_t end)
{
    bool is_zero;
    int r = read_piece(writing, at, end, &is_zero);

    if (r == 0 && is_zero && !writing->is_begun) {
        writing->zeros += end - at;
        return 0;
    }
    if (r == 0 && !writing->is_begun)
        r = begin_block(writing);
    return r < 0 ? r : block_bytes(writing, writing->piece, (size_t) (end - at));
}

/* `is_wanted`: also when it is zeros. */
static int write_block(struct writing *writing, int64_t block_at, int64_t block_end, bool is_wanted)
{
    int r = 0;

    writing->block_at = block_at;
    writing->block_end = block_end;
    writing->is_begun = false;
    writing->zeros = 0;
    for (int64_t at = block_at, end; at < block_end && r == 0; at = end) {
        end = MIN(at + (int64_t) PIECE_BYTES, block_end);
        r = write_piece(writing, at, end);
        if (r == 0)
            atomic_fetch_add(&writing->figures->disk_bytes_done, end - at);
    }
    if (r == 0)
        r = disk_io_passed(writing->io, block_end);
    if (r == 0 && !writing->is_begun && is_wanted)
        r = begin_block(writing);
    return r == 0 && writing->is_begun ? end_block(writing) : r;
}

/* ---- disks ---- */

static int64_t last_block_at(int64_t size)
{
    return (size - 1) / XVA_BLOCK_BYTES * XVA_BLOCK_BYTES;
}

/* The first block at or behind this one that is sent even when it is zeros. */
static int64_t next_sent_block_at(int64_t at, int64_t last)
{
    return MIN((at + XVA_SIGN_BYTES - 1) / XVA_SIGN_BYTES * XVA_SIGN_BYTES, last);
}

/* Over a hole, from the block at `at` to the first that has data, or is sent anyway, or is `sent_at`: `at` when it is that one. */
static int skip_hole(struct writing *writing, int64_t at, int64_t sent_at, int64_t *ret)
{
    int r = find_data(writing, at);

    if (r < 0)
        return r;
    *ret = MAX(at, MIN(writing->data_at / XVA_BLOCK_BYTES * XVA_BLOCK_BYTES, sent_at));
    atomic_fetch_add(&writing->figures->disk_bytes_done, *ret - at);
    return 0;
}

static int write_disk(struct writing *writing, const struct xva_export_disk *disk)
{
    int64_t size = disk_io_size(disk->io), at = 0, last;
    int r = 0;

    writing->prefix = disk->prefix;
    writing->io = disk->io;
    writing->data_at = writing->data_end = 0;
    if (size == 0)
        return 0;
    last = last_block_at(size);
    while (r == 0 && at <= last) {
        int64_t sent_at = next_sent_block_at(at, last);

        if (!writing->is_dense && at < sent_at)
            r = skip_hole(writing, at, sent_at, &at);
        if (r == 0)
            r = write_block(writing, at, MIN(at + XVA_BLOCK_BYTES, size), writing->is_dense || at == sent_at);
        at += XVA_BLOCK_BYTES;
    }
    return r;
}

/* ---- together ---- */

static int compare_prefixes(const void *a, const void *b)
{
    return strcmp(((const struct xva_export_disk *) a)->prefix,
                  ((const struct xva_export_disk *) b)->prefix);
}

/* xapi takes the size of a gap from the first block of the stream, not of the disk. Where that one
 * is short, since the first disk is smaller than a block, it would misread the gaps of the disks
 * behind it: then none are left. */
static bool must_be_dense(const struct xva_export_disk *disks, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        int64_t size = disk_io_size(disks[i].io);

        if (size > 0)
            return size < XVA_BLOCK_BYTES;
    }
    return false;
}

static int write_all(struct writing *writing, const struct xva_export *export)
{
    int r = export->ova ? write_member(writing, "ova.xml", export->ova, export->ova_bytes) : 0;

    for (unsigned i = 0; i < export->disk_count && r == 0; i++)
        r = write_disk(writing, &writing->disks[i]);
    if (r < 0)
        return r;
    r = archive_result(writing, archive_write_close(writing->archive));
    if (r == 0 && writing->compress)
        r = compress_end(writing->compress);
    if (r == 0 && writing->outlet.skip > 0)
        r = -ERANGE;
    return r;
}

int xva_write(const struct xva_export *export, struct sink *sink, struct transfer_figures *figures)
{
    struct xva_export_disk *disks = new0_array(struct xva_export_disk, export->disk_count + 1);
    struct writing writing = {
        .disks = disks,
        .figures = figures,
        .outlet = {.sink.write = outlet_write,
                   .below = sink,
                   .skip = export->skip},
        .archive = archive_write_new(),
        .entry = archive_entry_new(),
        .piece = alloc0(PIECE_BYTES),
        .hash = XXH64_createState(),
    };
    int64_t total = 0;
    int r;

    if (!writing.archive || !writing.entry || !writing.hash)
        die("out of memory for an export");
    for (unsigned i = 0; i < export->disk_count; i++) {
        disks[i] = export->disks[i];
        total += disk_io_size(disks[i].io);
    }
    atomic_store(&figures->disk_bytes_total, total);
    qsort(disks, export->disk_count, sizeof *disks, compare_prefixes);
    writing.is_dense = must_be_dense(disks, export->disk_count);
    if (export->compression != COMPRESSION_NONE)
        writing.compress = compress_new(export->compression, &writing.outlet.sink);
    if (archive_write_set_format_ustar(writing.archive) != ARCHIVE_OK
        || archive_write_add_filter_none(writing.archive) != ARCHIVE_OK
        || archive_write_set_bytes_per_block(writing.archive, 0) != ARCHIVE_OK
        || archive_write_open(writing.archive, &writing, NULL, archive_sink, NULL) != ARCHIVE_OK)
        r = -EIO;
    else if (export->compression != COMPRESSION_NONE && !writing.compress)
        r = -EAGAIN;
    else
        r = write_all(&writing, export);
    if (r < 0)
        writing.result = r; /* then the end of the archive is not written */
    archive_write_close(
        writing.archive); /* libarchive's free does not, after a failure, and leaks then */
    archive_write_free(writing.archive);
    archive_entry_free(writing.entry);
    XXH64_freeState(writing.hash);
    compress_destroy(&writing.compress);
    free(writing.piece);
    free(disks);
    return r;
}
