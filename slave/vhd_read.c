/* vhd_read.c - a VHD file into a disk, in one forward pass
 *
 * Which kind it is shows in the first sector: the copy of the footer with which dynamic files begin, or else the first
 * bytes of a fixed one, whose footer comes last. */
#include "slave/vhd_read.h"

#include <errno.h>
#include <stdio.h>

#include "slave/big_endian.h"
#include "slave/disk_writer.h"
#include "slave/stream_reader.h"
#include "slave/vhd.h"

#define ENTRIES_MAX (1U << 22)    /* of a BAT: 2 TiB in blocks of 512 KiB, the smallest in use */
#define TABLE_PART  16384         /* entries of it read at once */
#define TAKE_BYTES  (1024 * 1024) /* of a source at once */
#define HEAD_MAX    (64 << 20)    /* where header and BAT begin at the latest; there are only names before them */

/* A block of the file. */
struct stored {
    uint32_t sector; /* where */
    uint32_t block;  /* of the disk */
};

struct vhd_reader {
    struct stream_reader stream; /* the file */
    struct disk_writer writer;   /* the disk */
    ref_t base;                  /* what the disk has the contents of */
    struct vhd_footer footer;    /* of a dynamic file, as its first sector says */
    struct vhd_header header;
    struct stored *stored;       /* in the file's order, once the table is read */
    size_t stored_count;
    char *text;                  /* the caller's, for people */
};

static int refuse(struct vhd_reader *reader, int error, const char *why)
{
    snprintf(reader->text, DISK_IO_TEXT_BYTES, "%s", why);
    return error;
}

static int64_t disk_bytes(const struct vhd_reader *reader)
{
    return disk_io_size(reader->writer.disk);
}

/* A VHD has whole sectors; of the last the disk may have a part. */
static int check_size(struct vhd_reader *reader, int64_t size)
{
    return size > (disk_bytes(reader) + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR
               ? refuse(reader, -EFBIG, "the VHD's disk is larger than the disk that it is for")
               : 0;
}

/* Bytes of the stream, without those behind the disk's end. */
static int put(struct vhd_reader *reader, const void *bytes, size_t count, int64_t at)
{
    int64_t room = MAX(disk_bytes(reader) - at, (int64_t) 0);

    return disk_writer_put(&reader->writer, bytes, (size_t) MIN((int64_t) count, room), at);
}

/* Zeros up to a border, or to the disk's end. */
static int put_zeros(struct vhd_reader *reader, int64_t at, int64_t end)
{
    end = MIN(end, disk_bytes(reader));
    return at < end ? disk_writer_put_zeros(&reader->writer, end - at, at) : 0;
}

/* Nobody knows where the stream ends (stream.h), and this is the file's end: no further read, which might wait for ever. */
static bool may_stop(const struct vhd_reader *reader)
{
    return reader->stream.source->is_endless && reader->stream.left == 0;
}

/* ---- fixed ---- */

static bool is_fixed_footer(const unsigned char last[VHD_FOOTER_BYTES], int64_t size, struct vhd_footer *ret)
{
    return vhd_footer_read(ret, last) == 0 && ret->type == VHD_FIXED && ret->size == size;
}

/* The footer is known when the end is: the last sector is held back while more comes. */
static int read_fixed(struct vhd_reader *reader, const unsigned char first[VHD_FOOTER_BYTES])
{
    unsigned char last[VHD_FOOTER_BYTES];
    struct vhd_footer footer;
    int64_t at = 0;
    int r = 0;

    memcpy(last, first, sizeof last);
    while (r == 0 && !(may_stop(reader) && is_fixed_footer(last, at, &footer))) {
        const char *some;
        ssize_t n = stream_reader_some(&reader->stream, &some, TAKE_BYTES);
        size_t count = (size_t) n, from_last;

        if (n < 0)
            return (int) n;
        if (n == 0)
            break;
        r = check_size(reader, at + n);
        if (r < 0)
            return r;
        /* `count` bytes may be written now: of those held back first. */
        from_last = MIN(count, sizeof last);
        r = put(reader, last, from_last, at);
        if (r == 0 && count > from_last)
            r = put(reader, some, count - from_last, at + (int64_t) from_last);
        memmove(last, last + from_last, sizeof last - from_last);
        memcpy(last + sizeof last - from_last, some + count - from_last, from_last);
        at += n;
    }
    if (r < 0)
        return r;
    if (!is_fixed_footer(last, at, &footer))
        return refuse(reader, -EBADMSG, "no VHD: it neither begins nor ends as one");
    reader->footer = footer;
    return put_zeros(reader, at, INT64_MAX);
}

/* ---- dynamic: header and table ---- */

/* Go on at an offset of the file. */
static int go_to(struct vhd_reader *reader, uint64_t at)
{
    if (at < (uint64_t) reader->stream.at || at > INT64_MAX)
        return refuse(reader, -EOPNOTSUPP, "the parts of the VHD are not in the order in which a stream can be read");
    return stream_reader_skip(&reader->stream, (int64_t) at - reader->stream.at);
}

static int read_header(struct vhd_reader *reader)
{
    unsigned char bytes[VHD_HEADER_BYTES];
    int r = check_size(reader, reader->footer.size);

    if (r == 0)
        r = reader->footer.header_at > HEAD_MAX ? refuse(reader, -EBADMSG, "the VHD's header is out of place")
                                                : go_to(reader, reader->footer.header_at);
    if (r == 0)
        r = stream_reader_exact(&reader->stream, bytes, sizeof bytes);
    if (r < 0)
        return r;
    if (vhd_header_read(&reader->header, bytes) < 0)
        return refuse(reader, -EBADMSG, "the VHD's header is damaged");
    if (reader->header.table_at > HEAD_MAX)
        return refuse(reader, -EBADMSG, "the VHD's block table is out of place");
    if (reader->header.entries > ENTRIES_MAX
        || reader->header.entries < vhd_blocks(reader->footer.size, reader->header.block_bytes))
        return refuse(reader, -EBADMSG, "the VHD's block table does not fit its disk");
    if (reader->footer.type == VHD_DIFFERENCING
        && (ref_is_null(reader->base) || !ref_equal(reader->base, reader->header.parent)))
        return refuse(reader, -EOPNOTSUPP, "the VHD holds only differences from another disk");
    return go_to(reader, reader->header.table_at);
}

static int compare_stored(const void *a, const void *b)
{
    uint32_t first = ((const struct stored *) a)->sector, second = ((const struct stored *) b)->sector;

    return first < second ? -1 : first > second;
}

/* Entries behind the last block of the disk may be there, but not used. */
static int take_entries(struct vhd_reader *reader, const unsigned char *part, uint32_t first, uint32_t count)
{
    int64_t blocks = vhd_blocks(reader->footer.size, reader->header.block_bytes);

    for (uint32_t i = 0; i < count; i++) {
        uint32_t sector = get_be32(part + 4 * (size_t) i);

        if (sector == VHD_UNUSED)
            continue;
        if (first + i >= blocks)
            return refuse(reader, -EBADMSG, "the VHD's block table names blocks that its disk does not have");
        reader->stored[reader->stored_count++] = (struct stored){sector, first + i};
    }
    return 0;
}

/* Each block lies behind the table and the block before it. */
static int check_order(struct vhd_reader *reader)
{
    uint64_t sectors = (vhd_bitmap_bytes(reader->header.block_bytes) + (uint64_t) reader->header.block_bytes) / VHD_SECTOR;
    uint64_t least = ((uint64_t) reader->stream.at + VHD_SECTOR - 1) / VHD_SECTOR;

    if (reader->stored_count == 0)
        return 0;
    qsort(reader->stored, reader->stored_count, sizeof *reader->stored, compare_stored);
    for (size_t i = 0; i < reader->stored_count; i++) {
        if (reader->stored[i].sector < least)
            return refuse(reader, -EBADMSG, "blocks of the VHD overlap");
        least = reader->stored[i].sector + sectors;
    }
    return 0;
}

static int read_table(struct vhd_reader *reader)
{
    _cleanup_(free_p) unsigned char *part = alloc0(TABLE_PART * 4);
    uint32_t entries = reader->header.entries, room = 0;
    int r = 0;

    for (uint32_t first = 0; first < entries && r == 0; first += TABLE_PART) {
        uint32_t count = MIN(entries - first, (uint32_t) TABLE_PART);

        r = stream_reader_exact(&reader->stream, part, count * 4UL);
        if (r < 0)
            return r;
        if (reader->stored_count + count > room) { /* as much as has come, not as much as was said */
            room = MIN(MAX(2 * room, (uint32_t) reader->stored_count + count), entries);
            reader->stored = realloc_array(reader->stored, room, sizeof *reader->stored);
        }
        r = take_entries(reader, part, first, count);
    }
    return r < 0 ? r : check_order(reader);
}

/* ---- dynamic: blocks ---- */

/* What the file has no blocks for: zeros, or for a differencing one what is there. Behind its end are zeros. */
static int write_gaps(struct vhd_reader *reader)
{
    int64_t block_bytes = reader->header.block_bytes, size = reader->footer.size, at = 0;
    int64_t blocks = vhd_blocks(size, reader->header.block_bytes);
    _cleanup_(free_p) unsigned char *is_stored = alloc0((size_t) blocks + 1);
    int r = 0;

    for (size_t i = 0; i < reader->stored_count; i++)
        is_stored[reader->stored[i].block] = 1;
    for (int64_t block = 0; block < blocks && r == 0 && reader->footer.type == VHD_DYNAMIC; block++) {
        if (!is_stored[block] && block + 1 < blocks && !is_stored[block + 1])
            continue; /* at once with the next */
        if (!is_stored[block])
            r = put_zeros(reader, at, (block + 1) * block_bytes);
        at = (block + 1) * block_bytes;
    }
    return r < 0 ? r : put_zeros(reader, size, INT64_MAX);
}

static bool has_sector(const unsigned char *bitmap, int64_t sector)
{
    return bitmap[sector / 8] >> (7 - sector % 8) & 1;
}

/* A run of sectors that are in the file or are not; [at, end) of the disk. */
static int read_run(struct vhd_reader *reader, bool is_there, int64_t at, int64_t end)
{
    if (!is_there) {
        int r = stream_reader_skip(&reader->stream, end - at);

        return r == 0 && reader->footer.type == VHD_DYNAMIC ? put_zeros(reader, at, end) : r;
    }
    while (at < end) {
        const char *some;
        ssize_t n = stream_reader_some(&reader->stream, &some, (size_t) MIN(end - at, (int64_t) TAKE_BYTES));
        int r;

        if (n <= 0)
            return n < 0 ? (int) n : -ENODATA;
        r = put(reader, some, (size_t) n, at);
        if (r < 0)
            return r;
        at += n;
    }
    return 0;
}

static int read_block(struct vhd_reader *reader, const struct stored *stored, unsigned char *bitmap)
{
    int64_t block_bytes = reader->header.block_bytes, at = stored->block * block_bytes;
    int64_t size = MIN(block_bytes, reader->footer.size - at), sectors = (size + VHD_SECTOR - 1) / VHD_SECTOR;
    int r = go_to(reader, (uint64_t) stored->sector * VHD_SECTOR);

    if (r == 0)
        r = stream_reader_exact(&reader->stream, bitmap, vhd_bitmap_bytes(reader->header.block_bytes));
    for (int64_t first = 0, next; first < sectors && r == 0; first = next) {
        bool is_there = has_sector(bitmap, first);

        for (next = first + 1; next < sectors && has_sector(bitmap, next) == is_there;)
            next++;
        r = read_run(reader, is_there, at + first * VHD_SECTOR, at + MIN(next * VHD_SECTOR, size));
    }
    /* What the block has behind the disk's end. */
    return r < 0 ? r : stream_reader_skip(&reader->stream, block_bytes - size);
}

static bool is_same_footer(const struct vhd_reader *reader, const unsigned char last[VHD_FOOTER_BYTES])
{
    struct vhd_footer footer;

    return vhd_footer_read(&footer, last) == 0 && footer.type == reader->footer.type
           && footer.size == reader->footer.size;
}

/* The footer is what comes last, wherever that is. */
static int read_footer(struct vhd_reader *reader)
{
    unsigned char last[VHD_FOOTER_BYTES];
    int r = stream_reader_exact(&reader->stream, last, sizeof last);

    while (r == 0 && !(may_stop(reader) && is_same_footer(reader, last))) {
        const char *some;
        ssize_t n = stream_reader_some(&reader->stream, &some, sizeof last);

        if (n < 0)
            return (int) n;
        if (n == 0)
            break;
        memmove(last, last + n, sizeof last - (size_t) n);
        memcpy(last + sizeof last - n, some, (size_t) n);
    }
    if (r < 0)
        return r;
    if (!is_same_footer(reader, last))
        return refuse(reader, -EBADMSG, "the VHD does not end with its footer");
    return 0;
}

static int read_dynamic(struct vhd_reader *reader)
{
    _cleanup_(free_p) unsigned char *bitmap = NULL;
    int r = read_header(reader);

    if (r == 0)
        r = read_table(reader);
    if (r == 0)
        r = write_gaps(reader);
    if (r < 0)
        return r;
    bitmap = alloc0(vhd_bitmap_bytes(reader->header.block_bytes));
    for (size_t i = 0; i < reader->stored_count && r == 0; i++)
        r = read_block(reader, &reader->stored[i], bitmap);
    return r < 0 ? r : read_footer(reader);
}

/* ---- all ---- */

static int read_either(struct vhd_reader *reader, const unsigned char first[VHD_FOOTER_BYTES])
{
    if (memcmp(first, VHD_COOKIE, 8) != 0)
        return read_fixed(reader, first);
    if (vhd_footer_read(&reader->footer, first) < 0)
        return refuse(reader, -EBADMSG, "the VHD's first sector is damaged");
    return reader->footer.type == VHD_FIXED ? read_fixed(reader, first) : read_dynamic(reader);
}

int vhd_read(struct disk_io *disk, struct source *source, ref_t base, struct transfer_figures *figures,
             char ret_text[DISK_IO_TEXT_BYTES])
{
    struct vhd_reader reader = {.stream.source = source, .base = base, .text = ret_text};
    unsigned char first[VHD_FOOTER_BYTES];
    int r;

    ret_text[0] = '\0';
    disk_writer_init(&reader.writer, disk, figures);
    if (figures)
        figures->disk_bytes_total += disk_io_size(disk);
    r = stream_reader_exact(&reader.stream, first, sizeof first);
    if (r == 0)
        r = read_either(&reader, first);
    if (r == 0)
        r = disk_writer_flush(&reader.writer);
    if (r == -ENODATA)
        r = refuse(&reader, -EBADMSG, "the VHD ends too early");
    free(reader.stored);
    disk_writer_done(&reader.writer);
    return r;
}
