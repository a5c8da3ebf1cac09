/* pile.h - where a parser gathers values whose number it does not know yet
 *
 * Items of a set are pushed one after the other; at its end those above the mark of its beginning move to the
 * arena and one value takes their place. So nothing is allocated for a count that someone merely claims. */
#pragma once

#include "shared/base.h"
#include "shared/value.h"

struct arena;

struct pile {
    struct value *values;
    uint32_t count, room;
    uint32_t pushed;     /* in all, against pushed_max */
    uint32_t pushed_max;
};

void pile_done(struct pile *pile);
/* False when there have been too many. */
bool pile_push(struct pile *pile, struct value value);
/* The values above the mark, moved to the arena; NULL when there are none. They leave the pile. */
const struct value *pile_take(struct pile *pile, uint32_t mark, struct arena *arena);
