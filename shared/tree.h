/* tree.h - the ordered tree beneath the datamodel: every table and index of the store is one.
 *
 * A tree is a root: a pointer to an immutable node, NULL when empty. A change makes a new root
 * which shares all nodes but a path with the old one, so whoever keeps an old root sees exactly
 * what it held, while the one writer goes on. Readers take no locks; the store publishes roots and
 * keeps the list of pins.
 *
 *      root of 7      root of 8              generation 8 put a key below c:
 *           a             a'                 a' and c' are created in 8, a and c are retired by 8,
 *          / \           / \                 b belongs to both
 *         b   c         b   c'
 *
 * Memory is kept by generation, not by reference counts. While generation g is open its own nodes
 * change in place; older ones are copied and the replaced node goes to the list of what g retired.
 * A reader pinned at p may need what was retired by g only if p < g, so tree_reclaim() frees lists
 * from the oldest on. The objects that the trees point to live and die by the same lists
 * (tree_created, tree_retire).
 *
 * Everything that takes an owner belongs to the writer's thread. The functions that take only a
 * root may run in any thread, on a root that is committed and pinned; on the root of the open
 * generation they belong to the writer, and an iterator there ends with the next change. */
#pragma once

#include "shared/base.h"

struct tree_node;
struct tree_owner;

/* Ordered by w[0], then w[1], w[2], w[3]. A scan or a count can fix the first two. */
struct tree_key {
    uint64_t w[4];
};

/* The accounts of all trees of a store. Destroying rolls an open generation back and frees
 * everything retired; the live trees are given back before, by tree_free(). */
struct tree_owner *tree_owner_new(void);
void tree_owner_destroy(struct tree_owner **owner);

/* Open a generation, above all that were committed; at most one is open. */
void tree_begin(struct tree_owner *owner, uint64_t generation);
void tree_commit(struct tree_owner *owner);

/* Free what the open generation created and forget what it retired. The caller goes back to its old
 * roots. */
void tree_rollback(struct tree_owner *owner);

/* Put a thing of the store's own under the open generation: tree_created() frees it on rollback,
 * newest first; tree_retire() frees it when no reader can see it any more. A thing created and
 * retired by the same generation is freed once. free_fn must not call the owner. */
void tree_created(struct tree_owner *owner, void *thing, void (*free_fn)(void *thing));
void tree_retire(struct tree_owner *owner, void *thing, void (*free_fn)(void *thing), size_t bytes);

/* Free what generations up to the oldest pinned one retired; costs what is freed. The second form
 * stops after `things_max` nodes and things, so that the end of a long pin does not hold up the
 * core: true means that there is more. */
void tree_reclaim(struct tree_owner *owner, uint64_t oldest_pinned_generation);
bool tree_reclaim_some(struct tree_owner *owner, uint64_t oldest_pinned_generation,
                       size_t things_max);

/* Bytes retired by later generations and not yet freed: what a reader pinned here holds back. */
size_t tree_retired_bytes(const struct tree_owner *owner, uint64_t since_generation);

/* Bytes of all nodes, live and retired, without those kept for reuse. */
size_t tree_node_bytes(const struct tree_owner *owner);

/* Set a key's value, in the open generation. Returns true if the key was there before. Keys that
 * arrive in order fill their nodes entirely, so sorted input is also the way to load a store. */
bool tree_put(struct tree_owner *owner, struct tree_node **root, const struct tree_key *key,
              void *value);

/* Remove a key, in the open generation. Returns false, nothing changed or copied, if there is none.
 * ret_value may be NULL. */
bool tree_remove(struct tree_owner *owner, struct tree_node **root, const struct tree_key *key,
                 void **ret_value);

/* Free a whole tree at once, between generations, when nobody reads it. free_value may be NULL; it
 * is called for each value, in order. */
void tree_free(struct tree_owner *owner, struct tree_node **root, void (*free_value)(void *value));

/* ret_value may be NULL, and is written only when the key is there. */
bool tree_get(const struct tree_node *root, const struct tree_key *key, void **ret_value);

/* Keys in the tree, O(1); keys with the first two words of the prefix, O(log n). */
size_t tree_count(const struct tree_node *root);
size_t tree_count_range(const struct tree_node *root, const struct tree_key *prefix);

#define TREE_DEPTH_MAX 12 /* 2^32 keys in nodes a third full need 11 levels */

/* A place in a tree, on the stack, without anything to destroy. It is good as long as its root is
 * pinned; a cursor that outlives its pin keeps its last key and seeks again, which costs one
 * tree_get(). */
struct tree_iter {
    struct {
        const struct tree_node *node;
        unsigned index;
    } path[TREE_DEPTH_MAX]; /* from the root to a leaf; the leaf's index is the next key's */
    unsigned levels;        /* of the path; 0: nothing to visit */
    bool has_prefix;
    uint64_t prefix[2];
};

/* To the first key that is not below this one; or, to go on behind it, to the first above it. */
void tree_iter_seek(struct tree_iter *it, const struct tree_node *root, const struct tree_key *key);
void tree_iter_seek_after(struct tree_iter *it, const struct tree_node *root,
                          const struct tree_key *key);

/* End where the first two words are no longer the prefix's; after a seek within the prefix. */
void tree_iter_limit(struct tree_iter *it, const struct tree_key *prefix);

/* From the first key with the prefix's first two words to the last one. */
void tree_iter_prefix(struct tree_iter *it, const struct tree_node *root,
                      const struct tree_key *prefix);

/* Step over a key. Returns false at the end. Both results may be NULL. */
bool tree_iter_next(struct tree_iter *it, struct tree_key *ret_key, void **ret_value);
