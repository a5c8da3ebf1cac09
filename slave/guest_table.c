/* guest_table.c - things found by a reference */
#include "slave/guest_table.h"

#define SLOTS_FIRST 64

static struct guest_node **slot_of(const struct guest_table *table, ref_t key)
{
    uint64_t hash = (key.hi ^ key.lo) * 0x9e3779b97f4a7c15ULL; /* spreads consecutive numbers too */

    return &table->slots[(hash >> 32) & (table->slot_count - 1)];
}

struct guest_node *guest_table_find(const struct guest_table *table, ref_t key)
{
    if (table->slot_count == 0)
        return NULL;
    for (struct guest_node *node = *slot_of(table, key); node; node = node->next)
        if (ref_equal(node->key, key))
            return node;
    return NULL;
}

static void put(struct guest_table *table, struct guest_node *node)
{
    struct guest_node **slot = slot_of(table, node->key);

    node->next = *slot;
    *slot = node;
}

static void grow(struct guest_table *table)
{
    struct guest_table old = *table;

    table->slot_count = MAX(2 * old.slot_count, (size_t) SLOTS_FIRST);
    table->slots = new0_array(struct guest_node *, table->slot_count);
    for (size_t i = 0; i < old.slot_count; i++)
        for (struct guest_node *node = old.slots[i], *next; node; node = next) {
            next = node->next;
            put(table, node);
        }
    free(old.slots);
}

void guest_table_add(struct guest_table *table, struct guest_node *node)
{
    assert(!guest_table_find(table, node->key));
    if (table->count == table->slot_count)
        grow(table);
    put(table, node);
    table->count++;
}

void guest_table_remove(struct guest_table *table, struct guest_node *node)
{
    struct guest_node **place = slot_of(table, node->key);

    while (*place != node)
        place = &(*place)->next; /* it is there: our promise */
    *place = node->next;
    table->count--;
}

void guest_table_done(struct guest_table *table)
{
    free(table->slots);
    *table = (struct guest_table){0};
}

int guest_table_each(struct guest_table *table, int (*fn)(void *arg, struct guest_node *node),
                     void *arg)
{
    for (size_t i = 0; i < table->slot_count; i++)
        for (struct guest_node *node = table->slots[i], *next; node; node = next) {
            int r;

            next = node->next;
            r = fn(arg, node);
            if (r != 0)
                return r;
        }
    return 0;
}
