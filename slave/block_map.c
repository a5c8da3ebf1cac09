/* block_map.c - which blocks of a disk a file of it will have */
#include "slave/block_map.h"

#include <errno.h>

static void set(struct block_map *map, int64_t block, bool is_used)
{
    unsigned char bit = (unsigned char) (1 << (block % 8));

    if (block_map_has(map, block) == is_used)
        return;
    map->bits[block / 8] ^= bit;
    map->used += is_used ? 1 : -1;
}

int block_read(struct disk_io *disk, void *bytes, size_t count, int64_t at)
{
    size_t inside = (size_t) MAX(MIN(disk_io_size(disk) - at, (int64_t) count), (int64_t) 0);

    memset((char *) bytes + inside, 0, count - inside);
    return inside > 0 ? disk_io_read(disk, bytes, inside, at) : 0;
}

/* Blocks in which that disk may hold data. */
static int add_data(struct block_map *map, struct disk_io *disk)
{
    int64_t at = 0, end, limit = MIN(map->blocks * map->block_bytes, disk_io_size(disk));

    while (at < limit) {
        int r = disk_io_next_data(disk, at, &at, &end);

        if (r == -ENXIO || (r == 0 && at >= limit))
            return 0;
        if (r < 0)
            return r;
        end = MIN(end, limit);
        for (int64_t block = at / map->block_bytes; block * map->block_bytes < end; block++)
            set(map, block, true);
        at = end;
    }
    return 0;
}

/* Leave out those that are as the base's. */
static int leave_same(struct block_map *map, struct disk_io *disk, struct disk_io *base)
{
    _cleanup_(free_p) char *ours = alloc0(BLOCK_MAP_STEP);
    _cleanup_(free_p) char *theirs = alloc0(BLOCK_MAP_STEP);
    int64_t step = BLOCK_MAP_STEP / map->block_bytes;

    for (int64_t first = 0; first < map->blocks; first += step) {
        int64_t end = MIN(first + step, map->blocks), block = first;
        int r;

        while (block < end && !block_map_has(map, block))
            block++;
        if (block == end)
            continue;
        r = block_read(disk, ours, BLOCK_MAP_STEP, first * map->block_bytes);
        if (r == 0)
            r = block_read(base, theirs, BLOCK_MAP_STEP, first * map->block_bytes);
        if (r < 0)
            return r;
        for (; block < end; block++) {
            int64_t at = (block - first) * map->block_bytes;

            if (memcmp(ours + at, theirs + at, (size_t) map->block_bytes) == 0)
                set(map, block, false);
        }
    }
    return 0;
}

int block_map_init(struct block_map *map, struct disk_io *disk, int64_t block_bytes, struct disk_io *base)
{
    int64_t size = disk_io_size(disk);
    int r;

    assert(BLOCK_MAP_STEP % block_bytes == 0);
    *map = (struct block_map){.block_bytes = block_bytes, .blocks = size / block_bytes + (size % block_bytes != 0)};
    map->bits = alloc0((size_t) map->blocks / 8 + 1);
    r = add_data(map, disk);
    if (r == 0 && base) {
        r = add_data(map, base); /* what is zeros now may have been data */
        if (r == 0)
            r = leave_same(map, disk, base);
    }
    return r;
}

void block_map_done(struct block_map *map)
{
    free(map->bits);
    *map = (struct block_map){0};
}
