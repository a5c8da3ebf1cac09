/* block_map.h - which blocks of a disk a file of it will have
 *
 * Formats that store a disk in blocks say where each lies before the first of them; to write one in a single pass it must
 * be known beforehand which there are: those that may hold data, or those that differ from another disk. */
#pragma once

#include "slave/disk_io.h"

struct block_map {
    int64_t block_bytes; /* a power of two, at most BLOCK_MAP_STEP */
    int64_t blocks;      /* of the disk */
    int64_t used;        /* of the file */
    unsigned char *bits; /* one for each block */
};

#define BLOCK_MAP_STEP (2 * 1024 * 1024)

/* Look at a disk; with a base (else NULL) both are read. 0 or a negative errno. The map is to be done in either case. */
int block_map_init(struct block_map *, struct disk_io *disk, int64_t block_bytes, struct disk_io *base);
void block_map_done(struct block_map *);

static inline bool block_map_has(const struct block_map *map, int64_t block)
{
    return map->bits[block / 8] >> (block % 8) & 1;
}

/* Bytes of a disk, which may lie behind its end, where zeros are. 0 or a negative errno. */
int block_read(struct disk_io *disk, void *bytes, size_t count, int64_t at);
