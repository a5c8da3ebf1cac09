/* refmap.c - a table from references to pointers */
#include "shared/refmap.h"

#define CAPACITY_FIRST 16

static size_t home_of(const struct refmap *map, ref_t key)
{
    /* Made references are random; the mixing is for those that tests and the simulator number one by one. */
    uint64_t mixed = (key.lo ^ key.hi) * 0x9e3779b97f4a7c15u;

    return (size_t) (mixed >> 32) & (map->capacity - 1);
}

/* The slot of the key, or the free one where it belongs. */
static struct refmap_slot *slot_of(const struct refmap *map, ref_t key)
{
    size_t i = home_of(map, key);

    while (map->slots[i].value && !ref_equal(map->slots[i].key, key))
        i = (i + 1) & (map->capacity - 1);
    return &map->slots[i];
}

static void grow(struct refmap *map)
{
    struct refmap old = *map;

    map->capacity = old.capacity ? old.capacity * 2 : CAPACITY_FIRST;
    map->slots = new0_array(struct refmap_slot, map->capacity);
    for (size_t i = 0; i < old.capacity; i++)
        if (old.slots[i].value)
            *slot_of(map, old.slots[i].key) = old.slots[i];
    free(old.slots);
}

void refmap_done(struct refmap *map)
{
    free(map->slots);
    *map = (struct refmap){0};
}

void *refmap_get(const struct refmap *map, ref_t key)
{
    return map->capacity ? slot_of(map, key)->value : NULL;
}

void *refmap_put(struct refmap *map, ref_t key, void *value)
{
    struct refmap_slot *slot;
    void *before;

    assert(value && !ref_is_null(key));
    if (4 * (map->count + 1) > 3 * map->capacity)
        grow(map);
    slot = slot_of(map, key);
    before = slot->value;
    map->count += !before;
    *slot = (struct refmap_slot){key, value};
    return before;
}

void *refmap_take(struct refmap *map, ref_t key)
{
    size_t mask = map->capacity - 1, hole, i;
    void *taken;

    if (!map->capacity)
        return NULL;
    hole = (size_t) (slot_of(map, key) - map->slots);
    taken = map->slots[hole].value;
    if (!taken)
        return NULL;
    map->count--;
    /* Each follower in the run moves into the hole unless that lies before its home. */
    for (i = (hole + 1) & mask; map->slots[i].value; i = (i + 1) & mask) {
        size_t home = home_of(map, map->slots[i].key);

        if (((i - home) & mask) >= ((i - hole) & mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole] = (struct refmap_slot){0};
    return taken;
}

bool refmap_each(const struct refmap *map, size_t *at, ref_t *ret_key, void **ret_value)
{
    for (; *at < map->capacity; (*at)++) {
        if (!map->slots[*at].value)
            continue;
        if (ret_key)
            *ret_key = map->slots[*at].key;
        *ret_value = map->slots[*at].value;
        (*at)++;
        return true;
    }
    return false;
}
