/* vhd_write.c - a disk as a VHD file: first which blocks, then the bytes */
#include "slave/vhd_write.h"

#include <errno.h>
#include <stdio.h>

#include "slave/big_endian.h"
#include "slave/vhd.h"

#define TABLE_PART   16384 /* entries of the BAT sent at once */
#define BITMAP_BYTES VHD_SECTOR
#define STORED_BYTES (BITMAP_BYTES + VHD_BLOCK_BYTES) /* of a block in the file */

static_assert(VHD_BLOCK_BYTES / VHD_SECTOR / 8 == BITMAP_BYTES, "the bitmap of a block is one sector");

struct vhd_plan {
    struct disk_io *disk;
    struct vhd_footer footer;
    struct vhd_header header;
    int64_t blocks;           /* of the disk */
    int64_t blocks_used;      /* of the file */
    unsigned char *is_used;   /* a bit for each block */
};

static bool is_used(const struct vhd_plan *plan, int64_t block)
{
    return plan->is_used[block / 8] >> (block % 8) & 1;
}

static void use(struct vhd_plan *plan, int64_t block)
{
    if (is_used(plan, block))
        return;
    plan->is_used[block / 8] |= (unsigned char) (1 << (block % 8));
    plan->blocks_used++;
}

/* ---- which blocks ---- */

/* Those that may hold data of one disk, within the blocks of the other. */
static int use_data(struct vhd_plan *plan, struct disk_io *disk)
{
    int64_t at = 0, end;
    int r;

    while ((r = disk_io_next_data(disk, at, &at, &end)) == 0 && at < plan->blocks * VHD_BLOCK_BYTES) {
        int64_t last = MIN((end - 1) / VHD_BLOCK_BYTES, plan->blocks - 1);

        for (int64_t block = at / VHD_BLOCK_BYTES; block <= last; block++)
            use(plan, block);
        at = (last + 1) * VHD_BLOCK_BYTES;
        if (at >= disk_io_size(disk))
            return 0;
    }
    return r == -ENXIO ? 0 : r;
}

/* A block of a disk; zeros behind its end. */
static int read_block(struct disk_io *disk, int64_t block, char *bytes)
{
    int64_t at = block * VHD_BLOCK_BYTES;
    size_t count = (size_t) MAX(MIN(disk_io_size(disk) - at, (int64_t) VHD_BLOCK_BYTES), (int64_t) 0);

    memset(bytes + count, 0, VHD_BLOCK_BYTES - count);
    return count > 0 ? disk_io_read(disk, bytes, count, at) : 0;
}

/* Leave out those that are as the base's. */
static int leave_same(struct vhd_plan *plan, struct disk_io *base)
{
    _cleanup_(free_p) char *ours = alloc0(VHD_BLOCK_BYTES);
    _cleanup_(free_p) char *theirs = alloc0(VHD_BLOCK_BYTES);

    for (int64_t block = 0; block < plan->blocks; block++) {
        int r;

        if (!is_used(plan, block))
            continue;
        r = read_block(plan->disk, block, ours);
        if (r == 0)
            r = read_block(base, block, theirs);
        if (r < 0)
            return r;
        if (memcmp(ours, theirs, VHD_BLOCK_BYTES) == 0) {
            plan->is_used[block / 8] &= (unsigned char) ~(1 << (block % 8));
            plan->blocks_used--;
        }
    }
    return 0;
}

static void set_base(struct vhd_plan *plan, const struct vhd_base *base)
{
    char uuid[UUID_TEXT_BYTES];

    plan->footer.type = VHD_DIFFERENCING;
    plan->header.parent = base->uuid;
    plan->header.parent_made_utc = base->made_utc;
    snprintf(plan->header.parent_name, sizeof plan->header.parent_name, "%s.vhd", uuid_print(uuid, base->uuid));
    plan->header.locator_at = plan->header.table_at;
    plan->header.table_at += VHD_SECTOR;
}

int vhd_plan_make(struct vhd_plan **ret, struct disk_io *disk, ref_t uuid, int64_t made_utc, const struct vhd_base *base,
                  char ret_text[DISK_IO_TEXT_BYTES])
{
    _cleanup_(vhd_plan_destroy) struct vhd_plan *plan = NULL;
    int64_t size = disk_io_size(disk);
    int r;

    ret_text[0] = '\0';
    if (size > VHD_BYTES_MAX) {
        snprintf(ret_text, DISK_IO_TEXT_BYTES, "the disk has more than the %lld bytes of a VHD", VHD_BYTES_MAX);
        return -EFBIG;
    }
    plan = new0(struct vhd_plan);
    plan->disk = disk;
    plan->blocks = vhd_blocks(size, VHD_BLOCK_BYTES);
    plan->is_used = alloc0((size_t) plan->blocks / 8 + 1);
    plan->footer = (struct vhd_footer){
        .type = VHD_DYNAMIC,
        .size = (size + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR,
        .header_at = VHD_FOOTER_BYTES,
        .made_utc = made_utc,
        .uuid = uuid,
    };
    plan->header = (struct vhd_header){
        .table_at = VHD_FOOTER_BYTES + VHD_HEADER_BYTES,
        .entries = (uint32_t) plan->blocks,
        .block_bytes = VHD_BLOCK_BYTES,
    };
    r = use_data(plan, disk);
    if (r == 0 && base) {
        set_base(plan, base);
        r = use_data(plan, base->disk); /* what is zeros now may have been data */
        if (r == 0)
            r = leave_same(plan, base->disk);
    }
    if (r < 0)
        return r;
    *ret = TAKE(plan);
    return 0;
}

void vhd_plan_destroy(struct vhd_plan **plan_p)
{
    if (!*plan_p)
        return;
    free((*plan_p)->is_used);
    free(*plan_p);
    *plan_p = NULL;
}

static int64_t table_bytes(const struct vhd_plan *plan)
{
    return (plan->blocks * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
}

int64_t vhd_stream_bytes(const struct vhd_plan *plan)
{
    return (int64_t) plan->header.table_at + table_bytes(plan) + plan->blocks_used * STORED_BYTES + VHD_FOOTER_BYTES;
}

/* ---- the bytes ---- */

static int write_table(const struct vhd_plan *plan, struct sink *sink)
{
    _cleanup_(free_p) char *part = alloc0(TABLE_PART * 4);
    int64_t next = (int64_t) plan->header.table_at + table_bytes(plan), entries = table_bytes(plan) / 4;
    int r = 0;

    for (int64_t first = 0; first < entries && r == 0; first += TABLE_PART) {
        int64_t count = MIN(entries - first, (int64_t) TABLE_PART);

        for (int64_t i = 0; i < count; i++) {
            uint32_t entry = VHD_UNUSED;

            if (first + i < plan->blocks && is_used(plan, first + i)) {
                entry = (uint32_t) (next / VHD_SECTOR);
                next += STORED_BYTES;
            }
            put_be32(part + 4 * i, entry);
        }
        r = sink->write(sink, part, (size_t) count * 4);
    }
    return r;
}

static int write_blocks(const struct vhd_plan *plan, struct sink *sink, struct transfer_figures *figures)
{
    _cleanup_(free_p) char *bytes = alloc0(STORED_BYTES);
    int64_t size = disk_io_size(plan->disk);

    memset(bytes, 0xff, BITMAP_BYTES); /* a block that is there is there as a whole */
    for (int64_t block = 0; block < plan->blocks; block++) {
        if (is_used(plan, block)) {
            int r = read_block(plan->disk, block, bytes + BITMAP_BYTES);

            if (r == 0)
                r = sink->write(sink, bytes, STORED_BYTES);
            if (r < 0)
                return r;
        }
        if (figures)
            figures->disk_bytes_done += MIN(size - block * VHD_BLOCK_BYTES, (int64_t) VHD_BLOCK_BYTES);
    }
    return 0;
}

int vhd_write(struct vhd_plan *plan, struct sink *sink, struct transfer_figures *figures)
{
    unsigned char footer[VHD_FOOTER_BYTES], header[VHD_HEADER_BYTES], locator[VHD_SECTOR];
    int r;

    vhd_footer_write(footer, &plan->footer);
    vhd_header_write(header, &plan->header);
    vhd_locator_write(locator, plan->header.parent_name);
    if (figures)
        figures->disk_bytes_total += disk_io_size(plan->disk);
    r = sink->write(sink, footer, sizeof footer);
    if (r == 0)
        r = sink->write(sink, header, sizeof header);
    if (r == 0 && plan->footer.type == VHD_DIFFERENCING)
        r = sink->write(sink, locator, sizeof locator);
    if (r == 0)
        r = write_table(plan, sink);
    if (r == 0)
        r = write_blocks(plan, sink, figures);
    return r < 0 ? r : sink->write(sink, footer, sizeof footer);
}
