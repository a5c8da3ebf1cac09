/* guest_table.h - things found by a reference: guests by their VM, operations by their number
 *
 * A chained hash table; the nodes are embedded in what they find, and the table owns nothing. */
#pragma once

#include "shared/base.h"
#include "shared/ref.h"

struct guest_node {
    ref_t key;
    struct guest_node *next;
};

struct guest_table {
    struct guest_node **slots; /* a power of two of them */
    size_t slot_count, count;
};

struct guest_node *guest_table_find(const struct guest_table *table, ref_t key);
void guest_table_add(struct guest_table *table,
                     struct guest_node *node); /* key set, not yet in the table */
void guest_table_remove(struct guest_table *table, struct guest_node *node); /* in the table */
void guest_table_done(struct guest_table *table); /* the nodes are left alone */

/* Call fn for each node; it may remove (and free) that node, but no other. Returns the first result
 * that is not 0, else 0. */
int guest_table_each(struct guest_table *table, int (*fn)(void *arg, struct guest_node *node),
                     void *arg);
