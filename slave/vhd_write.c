/* vhd_write.c - a disk as a VHD file: first which blocks, then the bytes */
#include "slave/vhd_write.h"

#include <errno.h>
#include <stdio.h>

#include "slave/big_endian.h"
#include "slave/block_map.h"
#include "slave/vhd.h"

#define TABLE_PART   16384 /* entries of the BAT sent at once */
#define BITMAP_BYTES VHD_SECTOR
#define STORED_BYTES (BITMAP_BYTES + VHD_BLOCK_BYTES) /* of a block in the file */

static_assert(VHD_BLOCK_BYTES / VHD_SECTOR / 8 == BITMAP_BYTES, "the bitmap of a block is one sector");

struct vhd_plan {
    struct disk_io *disk;     /* the caller's */
    struct vhd_footer footer; /* as it will be written, twice */
    struct vhd_header header;
    struct block_map blocks;  /* those that the file has */
};

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
    r = block_map_init(&plan->blocks, disk, VHD_BLOCK_BYTES, base ? base->disk : NULL);
    if (r < 0)
        return r;
    plan->footer = (struct vhd_footer){
        .type = VHD_DYNAMIC,
        .size = (size + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR,
        .header_at = VHD_FOOTER_BYTES,
        .made_utc = made_utc,
        .uuid = uuid,
    };
    plan->header = (struct vhd_header){
        .table_at = VHD_FOOTER_BYTES + VHD_HEADER_BYTES,
        .entries = (uint32_t) plan->blocks.blocks,
        .block_bytes = VHD_BLOCK_BYTES,
    };
    if (base)
        set_base(plan, base);
    *ret = TAKE(plan);
    return 0;
}

void vhd_plan_destroy(struct vhd_plan **plan_p)
{
    if (!*plan_p)
        return;
    block_map_done(&(*plan_p)->blocks);
    free(*plan_p);
    *plan_p = NULL;
}

static int64_t table_bytes(const struct vhd_plan *plan)
{
    return (plan->blocks.blocks * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
}

int64_t vhd_stream_bytes(const struct vhd_plan *plan)
{
    return (int64_t) plan->header.table_at + table_bytes(plan) + plan->blocks.used * STORED_BYTES + VHD_FOOTER_BYTES;
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

            if (first + i < plan->blocks.blocks && block_map_has(&plan->blocks, first + i)) {
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
    for (int64_t block = 0; block < plan->blocks.blocks; block++) {
        if (block_map_has(&plan->blocks, block)) {
            int r = block_read(plan->disk, bytes + BITMAP_BYTES, VHD_BLOCK_BYTES, block * VHD_BLOCK_BYTES);

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
