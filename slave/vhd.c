/* vhd.c - the structures of a VHD file, written and read */
#include "slave/vhd.h"

#include <errno.h>

#include "slave/big_endian.h"

#define EPOCH_UTC         946684800 /* 2000-01-01: times count from there */
#define VERSION           0x00010000
#define FEATURES          2         /* a bit that is always set */
#define NOWHERE           UINT64_MAX
#define LOCATOR_WINDOWS   0x57327275 /* W2ru: a relative path in UTF-16, little-endian */
#define BLOCK_BYTES_LEAST 4096
#define BLOCK_BYTES_MOST  (1U << 28)

/* Offsets. */
enum {
    FOOTER_FEATURES = 8,
    FOOTER_VERSION = 12,
    FOOTER_HEADER_AT = 16,
    FOOTER_TIME = 24,
    FOOTER_CREATOR = 28,
    FOOTER_CREATOR_VERSION = 32,
    FOOTER_CREATOR_OS = 36,
    FOOTER_FIRST_SIZE = 40,
    FOOTER_SIZE = 48,
    FOOTER_GEOMETRY = 56,
    FOOTER_TYPE = 60,
    FOOTER_CHECKSUM = 64,
    FOOTER_UUID = 68,

    HEADER_NEXT = 8,
    HEADER_TABLE_AT = 16,
    HEADER_VERSION = 24,
    HEADER_ENTRIES = 28,
    HEADER_BLOCK_BYTES = 32,
    HEADER_CHECKSUM = 36,
    HEADER_PARENT = 40,
    HEADER_PARENT_TIME = 56,
    HEADER_PARENT_NAME = 64,
    HEADER_LOCATOR = 576, /* the first of eight: code, room, length, 0, where */
};

/* ---- what both have ---- */

/* The complement of the sum of all bytes, those of the checksum itself left out. */
static uint32_t checksum(const unsigned char *bytes, size_t count, size_t checksum_at)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < count; i++)
        if (i < checksum_at || i >= checksum_at + 4)
            sum += bytes[i];
    return ~sum;
}

static void put_uuid(unsigned char *at, ref_t uuid)
{
    put_be64(at, uuid.hi);
    put_be64(at + 8, uuid.lo);
}

static ref_t get_uuid(const unsigned char *at)
{
    return (ref_t){get_be64(at), get_be64(at + 8)};
}

static uint32_t vhd_time(int64_t utc)
{
    return (uint32_t) MIN(MAX(utc - EPOCH_UTC, (int64_t) 0), (int64_t) UINT32_MAX);
}

int64_t vhd_blocks(int64_t size, uint32_t block_bytes)
{
    return size / block_bytes + (size % block_bytes != 0);
}

uint32_t vhd_bitmap_bytes(uint32_t block_bytes)
{
    uint32_t bytes = block_bytes / VHD_SECTOR / 8;

    return MAX((bytes + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR, (uint32_t) VHD_SECTOR);
}

/* ---- footer ---- */

/* Cylinders, heads and sectors of a track, by the rule of the specification's appendix. They cannot say most sizes; who
 * reads our files goes by the size (see the creator below). */
static void put_geometry(unsigned char *at, int64_t size)
{
    int64_t sectors = MIN(size / VHD_SECTOR, 65535LL * 16 * 255), rows;
    int track = 17, heads;

    if (sectors >= 65535LL * 16 * 63) {
        track = 255;
        heads = 16;
    } else {
        heads = (int) MAX((sectors / track + 1023) / 1024, (int64_t) 4);
        if (heads > 16 || sectors / track >= heads * 1024) {
            heads = 16;
            track = 31;
        }
        if (heads == 16 && track == 31 && sectors / track >= heads * 1024)
            track = 63;
    }
    rows = sectors / track;
    put_be16(at, (uint16_t) (rows / heads));
    at[2] = (unsigned char) heads;
    at[3] = (unsigned char) track;
}

void vhd_footer_write(unsigned char bytes[VHD_FOOTER_BYTES], const struct vhd_footer *footer)
{
    memset(bytes, 0, VHD_FOOTER_BYTES);
    memcpy(bytes, VHD_COOKIE, 8);
    put_be32(bytes + FOOTER_FEATURES, FEATURES);
    put_be32(bytes + FOOTER_VERSION, VERSION);
    put_be64(bytes + FOOTER_HEADER_AT, footer->header_at);
    put_be32(bytes + FOOTER_TIME, vhd_time(footer->made_utc));
    /* XenServer's own: of others programs take the size from the geometry, which would cut the disk. */
    memcpy(bytes + FOOTER_CREATOR, "tap", 4);
    put_be32(bytes + FOOTER_CREATOR_VERSION, 0x00010003);
    put_be64(bytes + FOOTER_FIRST_SIZE, (uint64_t) footer->size);
    put_be64(bytes + FOOTER_SIZE, (uint64_t) footer->size);
    put_geometry(bytes + FOOTER_GEOMETRY, footer->size);
    put_be32(bytes + FOOTER_TYPE, footer->type);
    put_uuid(bytes + FOOTER_UUID, footer->uuid);
    put_be32(bytes + FOOTER_CHECKSUM, checksum(bytes, VHD_FOOTER_BYTES, FOOTER_CHECKSUM));
}

int vhd_footer_read(struct vhd_footer *ret, const unsigned char bytes[VHD_FOOTER_BYTES])
{
    uint32_t type = get_be32(bytes + FOOTER_TYPE);
    uint64_t size = get_be64(bytes + FOOTER_SIZE);

    if (memcmp(bytes, VHD_COOKIE, 8) != 0 || get_be32(bytes + FOOTER_VERSION) >> 16 != VERSION >> 16
        || get_be32(bytes + FOOTER_CHECKSUM) != checksum(bytes, VHD_FOOTER_BYTES, FOOTER_CHECKSUM))
        return -EBADMSG;
    if (type < VHD_FIXED || type > VHD_DIFFERENCING || size > (uint64_t) INT64_MAX)
        return -EBADMSG;
    *ret = (struct vhd_footer){
        .type = type,
        .size = (int64_t) size,
        .header_at = get_be64(bytes + FOOTER_HEADER_AT),
        .made_utc = (int64_t) get_be32(bytes + FOOTER_TIME) + EPOCH_UTC,
        .uuid = get_uuid(bytes + FOOTER_UUID),
    };
    return 0;
}

/* ---- header ---- */

void vhd_header_write(unsigned char bytes[VHD_HEADER_BYTES], const struct vhd_header *header)
{
    memset(bytes, 0, VHD_HEADER_BYTES);
    memcpy(bytes, "cxsparse", 8);
    put_be64(bytes + HEADER_NEXT, NOWHERE);
    put_be64(bytes + HEADER_TABLE_AT, header->table_at);
    put_be32(bytes + HEADER_VERSION, VERSION);
    put_be32(bytes + HEADER_ENTRIES, header->entries);
    put_be32(bytes + HEADER_BLOCK_BYTES, header->block_bytes);
    if (!ref_is_null(header->parent)) {
        unsigned char *locator = bytes + HEADER_LOCATOR;

        put_uuid(bytes + HEADER_PARENT, header->parent);
        put_be32(bytes + HEADER_PARENT_TIME, vhd_time(header->parent_made_utc));
        for (size_t i = 0; header->parent_name[i]; i++)
            put_be16(bytes + HEADER_PARENT_NAME + 2 * i, (unsigned char) header->parent_name[i]);
        put_be32(locator, LOCATOR_WINDOWS);
        put_be32(locator + 4, VHD_SECTOR); /* bytes: what programs write and read, whatever the specification says */
        put_be32(locator + 8, (uint32_t) (2 * (strlen(header->parent_name) + 2)));
        put_be64(locator + 16, header->locator_at);
    }
    put_be32(bytes + HEADER_CHECKSUM, checksum(bytes, VHD_HEADER_BYTES, HEADER_CHECKSUM));
}

void vhd_locator_write(unsigned char bytes[VHD_SECTOR], const char *parent_name)
{
    memset(bytes, 0, VHD_SECTOR);
    bytes[0] = '.';
    bytes[2] = '\\';
    for (size_t i = 0; parent_name[i]; i++)
        bytes[4 + 2 * i] = (unsigned char) parent_name[i];
}

int vhd_header_read(struct vhd_header *ret, const unsigned char bytes[VHD_HEADER_BYTES])
{
    uint32_t block_bytes = get_be32(bytes + HEADER_BLOCK_BYTES);

    if (memcmp(bytes, "cxsparse", 8) != 0 || get_be32(bytes + HEADER_VERSION) >> 16 != VERSION >> 16
        || get_be32(bytes + HEADER_CHECKSUM) != checksum(bytes, VHD_HEADER_BYTES, HEADER_CHECKSUM))
        return -EBADMSG;
    if (block_bytes < BLOCK_BYTES_LEAST || block_bytes > BLOCK_BYTES_MOST || (block_bytes & (block_bytes - 1)) != 0)
        return -EBADMSG;
    *ret = (struct vhd_header){
        .table_at = get_be64(bytes + HEADER_TABLE_AT),
        .entries = get_be32(bytes + HEADER_ENTRIES),
        .block_bytes = block_bytes,
        .parent = get_uuid(bytes + HEADER_PARENT),
        .parent_made_utc = (int64_t) get_be32(bytes + HEADER_PARENT_TIME) + EPOCH_UTC,
    };
    return 0;
}
