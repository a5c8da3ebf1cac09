/* pile.c - where a parser gathers values */
#include "shared/pile.h"

#include "shared/arena.h"

#define FIRST_VALUES 32

void pile_done(struct pile *pile)
{
    free(pile->values);
    *pile = (struct pile){0};
}

bool pile_push(struct pile *pile, struct value value)
{
    if (pile->pushed == pile->pushed_max)
        return false;
    if (pile->count == pile->room) {
        pile->room = pile->room ? 2 * pile->room : FIRST_VALUES;
        pile->values = realloc_array(pile->values, pile->room, sizeof *pile->values);
    }
    pile->values[pile->count++] = value;
    pile->pushed++;
    return true;
}

const struct value *pile_take(struct pile *pile, uint32_t mark, struct arena *arena)
{
    uint32_t count = pile->count - mark;
    struct value *items;

    assert(mark <= pile->count);
    if (count == 0)
        return NULL;
    items = arena_alloc_array(arena, count, sizeof *items);
    memcpy(items, pile->values + mark, count * sizeof *items);
    pile->count = mark;
    return items;
}
