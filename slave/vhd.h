/* vhd.h - the structures of a VHD file
 *
 *      fixed                  dynamic, differencing
 *      the disk's bytes       copy of the footer
 *      footer                 header
 *                             parent's names (differencing)
 *                             BAT: for each block of the disk the sector where it begins, or VHD_UNUSED
 *                             blocks, in any order: a bitmap of their sectors, padded to a sector, then the data
 *                             footer
 *
 * A clear bit of the bitmap is a sector that reads as zeros, or of a differencing disk as the parent's. All numbers are
 * big-endian. vhd_write.h and vhd_read.h stream such files.
 * Source: Microsoft, Virtual Hard Disk Image Format Specification, version 1.0 (2006). */
#pragma once

#include "shared/ref.h"

#define VHD_COOKIE       "conectix"        /* with which the footer begins */
#define VHD_SECTOR       512
#define VHD_FOOTER_BYTES 512
#define VHD_HEADER_BYTES 1024
#define VHD_BLOCK_BYTES  (2 * 1024 * 1024) /* of a block, unless a file says otherwise */
#define VHD_BYTES_MAX    (2040LL << 30)    /* of a disk: the format's and XenServer's limit */
#define VHD_UNUSED       UINT32_MAX
#define VHD_NAME_MAX     64                /* characters of a parent's file name; ours are <uuid>.vhd */

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

struct vhd_footer {
    enum vhd_type type;
    int64_t size;         /* of the disk, bytes */
    uint64_t header_at;   /* where the header begins; all ones for a fixed disk */
    int64_t made_utc;     /* s */
    ref_t uuid;
};

struct vhd_header {
    uint64_t table_at;    /* where the BAT begins */
    uint32_t entries;     /* of it */
    uint32_t block_bytes; /* a power of two */

    /* Of a differencing disk. */
    ref_t parent;
    int64_t parent_made_utc;
    char parent_name[VHD_NAME_MAX + 1]; /* plain ASCII; not read */
    uint64_t locator_at;  /* where vhd_locator_write's sector lies; not read */
};

void vhd_footer_write(unsigned char bytes[VHD_FOOTER_BYTES], const struct vhd_footer *);
void vhd_header_write(unsigned char bytes[VHD_HEADER_BYTES], const struct vhd_header *);
/* The sector that leads to the parent by its name, in the same directory. */
void vhd_locator_write(unsigned char bytes[VHD_SECTOR], const char *parent_name);

/* 0, or -EBADMSG: another cookie, version, type or checksum, or what no disk can have. */
int vhd_footer_read(struct vhd_footer *ret, const unsigned char bytes[VHD_FOOTER_BYTES]);
int vhd_header_read(struct vhd_header *ret, const unsigned char bytes[VHD_HEADER_BYTES]);

/* Blocks of a disk of so many bytes. */
int64_t vhd_blocks(int64_t size, uint32_t block_bytes);
/* Bytes of a block's bitmap, padding included. */
uint32_t vhd_bitmap_bytes(uint32_t block_bytes);
