/* refmap.h - a table from references to pointers
 *
 * Open addressing, at most three quarters full; deleting moves the followers of a run back, so there are no tombstones
 * and a table that empties is as quick as a new one. References are random uuids, so their low bits serve as the hash.
 * One thread at a time; the null reference is no key; what the pointers lead to is the caller's. A zeroed map is empty. */
#pragma once

#include "shared/ref.h"

struct refmap_slot {
    ref_t key;
    void *value; /* NULL: a free slot */
};

struct refmap {
    struct refmap_slot *slots;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
};

void refmap_done(struct refmap *);

void *refmap_get(const struct refmap *, ref_t key); /* NULL when missing */
/* Replaces what was there and returns it; the value is not NULL. */
void *refmap_put(struct refmap *, ref_t key, void *value);
/* Returns what was there. */
void *refmap_take(struct refmap *, ref_t key);

/* for (size_t i = 0; refmap_each(map, &i, &key, &value);) - in no order; the map must not change meanwhile. */
bool refmap_each(const struct refmap *, size_t *at, ref_t *ret_key, void **ret_value);
