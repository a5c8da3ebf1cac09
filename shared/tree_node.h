/* tree_node.h - what a node is, for tree.c, tree_owner.c and their test; everybody else uses
 * tree.h.
 *
 * A B+tree: leaves hold keys and values, inner nodes hold for each child a key that is not above
 * any key of the child and above every key of the child before. The first child of a node has the
 * very key that stands for the node one level up - except along the left edge of the tree, where
 * nothing is before it, keys may be below it, and a search therefore does not look at it.
 *
 * A node is searched by the first words of its keys, which lie together; the rest of a key and its
 * value are half a cache line, which is read where the first words have not decided. */
#pragma once

#include "shared/tree.h"

/* Measured with 16, 24, 32 and 40: 16 makes a million keys a level deeper and lookups a third
 * slower; 32 gains a few per cent there, but then each change leaves a third more behind for the
 * readers of old generations. */
#define TREE_FANOUT 24

struct tree_entry {
    uint64_t rest[3]; /* w[1] to w[3] of the key */
    union {
        void *value;             /* in a leaf */
        struct tree_node *child; /* in an inner node */
    };
};

struct tree_node {
    uint64_t generation; /* that created it */
    uint32_t count;      /* keys in the leaves below; of a leaf: its entries */
    uint16_t used;       /* entries */
    uint16_t level;      /* 0 is a leaf */

    uint64_t first[TREE_FANOUT]; /* w[0] of the keys */
    struct tree_entry entries[TREE_FANOUT];
    uint32_t counts[]; /* inner nodes only: the count of each child */
};

static inline size_t tree_node_size(unsigned level)
{
    return sizeof(struct tree_node) + (level > 0 ? TREE_FANOUT * sizeof(uint32_t) : 0);
}

/* A node of the open generation; its entries are not set. */
struct tree_node *tree_node_new(struct tree_owner *owner, unsigned level);

/* The node itself if the open generation made it, else a copy of it, and the node is retired. */
struct tree_node *tree_node_own(struct tree_owner *owner, struct tree_node *node);

/* The node is no longer part of the tree. */
void tree_node_drop(struct tree_owner *owner, struct tree_node *node);

/* Free at once, between generations. */
void tree_node_free(struct tree_owner *owner, struct tree_node *node);
