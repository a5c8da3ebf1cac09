/* tree.c - the tree itself: find, put, remove, count, iterate
 *
 * tree.h has the idea, tree_node.h the shape.
 *
 * A change first walks down without touching anything and notes its path; if there is something to
 * do it makes the path its own from the root on (tree_node_own copies what an older generation
 * made), edits the leaf, and walks up again: counts, splits, or joins.
 *
 *   put      a full node gives half of its entries to a new node on its right. At the right edge of
 *            the tree it gives nothing: keys that come in order leave full nodes behind.
 *   remove   a node less than a third full joins a neighbour, or both share evenly if that is too
 *            much for one. Between a third and full nothing moves: put and remove do not flap.
 *
 * Every node but those on the right edge is therefore at least a third full, and none is empty. */
#include "shared/tree_node.h"

#define FILL_MIN (TREE_FANOUT / 3)

struct step {
    struct tree_node *node;
    unsigned index;
    bool is_edge; /* nothing in the tree is to the right of this node */
};

/* ---- one node: reading */

static int compare_rest(const struct tree_entry *entry, const struct tree_key *key)
{
    for (int i = 0; i < 3; i++)
        if (entry->rest[i] != key->w[i + 1])
            return entry->rest[i] < key->w[i + 1] ? -1 : 1;
    return 0;
}

/* The first entry, `low` or later, which is not below the key; with `or_equal`, which is above it.
 *
 * Counting the smaller first words beats bisecting them: nothing to mispredict, no load waits for
 * another. The second part has work to do where keys share their first word, as in the indexes of
 * relations. */
static unsigned node_search(const struct tree_node *node, unsigned low, const struct tree_key *key,
                            bool or_equal)
{
    const uint64_t *first = node->first;
    uint64_t word = key->w[0];
    unsigned used = node->used, below = 0, high;

    for (unsigned i = low; i < used; i++)
        below += first[i] < word;
    low += below;
    high = low;
    while (high < used && first[high] == word)
        high++;
    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (compare_rest(&node->entries[middle], key) < (or_equal ? 1 : 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Which child of an inner node the key belongs to. */
static unsigned node_child(const struct tree_node *node, const struct tree_key *key)
{
    return node_search(node, 1, key, true) - 1;
}

static bool node_has(const struct tree_node *node, unsigned i, const struct tree_key *key)
{
    return i < node->used && node->first[i] == key->w[0]
           && compare_rest(&node->entries[i], key) == 0;
}

static struct tree_key node_key(const struct tree_node *node, unsigned i)
{
    const struct tree_entry *entry = &node->entries[i];

    return (struct tree_key){{node->first[i], entry->rest[0], entry->rest[1], entry->rest[2]}};
}

/* Ask for all of a node at once: in a large tree a lookup mostly waits for the last two levels. */
static const struct tree_node *fetched(const struct tree_node *node)
{
    for (size_t at = 0; at < sizeof *node; at += 64)
        __builtin_prefetch((const char *) node + at);
    return node;
}

/* ---- one node: changing */

static void node_set_key(struct tree_node *node, unsigned i, const struct tree_key *key)
{
    node->first[i] = key->w[0];
    memcpy(node->entries[i].rest, &key->w[1], sizeof node->entries[i].rest);
}

/* Move entries within a node, or copy them to another; only the arrays, not `used`. */
static void copy_entries(struct tree_node *to, unsigned to_index, const struct tree_node *from,
                         unsigned index, unsigned count)
{
    memmove(&to->first[to_index], &from->first[index], count * sizeof to->first[0]);
    memmove(&to->entries[to_index], &from->entries[index], count * sizeof to->entries[0]);
    if (to->level > 0)
        memmove(&to->counts[to_index], &from->counts[index], count * sizeof to->counts[0]);
}

static void node_sum(struct tree_node *node)
{
    node->count = node->used;
    if (node->level > 0) {
        node->count = 0;
        for (unsigned i = 0; i < node->used; i++)
            node->count += node->counts[i];
    }
}

/* Take over what changed in a child's count. */
static void node_recount(struct tree_node *node, unsigned i)
{
    node->count -= node->counts[i];
    node->counts[i] = node->entries[i].child->count;
    node->count += node->counts[i];
}

static void node_insert(struct tree_node *node, unsigned i, const struct tree_key *key, void *value)
{
    assert(node->used < TREE_FANOUT);
    copy_entries(node, i + 1, node, i, node->used - i);
    node_set_key(node, i, key);
    node->entries[i].value = value;
    node->used++;
    node->count++;
}

static void node_insert_child(struct tree_node *node, unsigned i, struct tree_node *child)
{
    struct tree_key key = node_key(child, 0);

    assert(node->used < TREE_FANOUT);
    copy_entries(node, i + 1, node, i, node->used - i);
    node_set_key(node, i, &key);
    node->entries[i].child = child;
    node->counts[i] = child->count;
    node->used++;
    node->count += child->count;
}

static void node_delete(struct tree_node *node, unsigned i)
{
    node->count -= node->level > 0 ? node->counts[i] : 1;
    copy_entries(node, i, node, i + 1, node->used - i - 1);
    node->used--;
}

/* ---- finding */

bool tree_get(const struct tree_node *root, const struct tree_key *key, void **ret_value)
{
    const struct tree_node *node = root;
    unsigned i;

    if (!node)
        return false;
    while (node->level > 0)
        node = fetched(node->entries[node_child(node, key)].child);
    i = node_search(node, 0, key, false);
    if (!node_has(node, i, key))
        return false;
    if (ret_value)
        *ret_value = node->entries[i].value;
    return true;
}

/* The path to where the key is or would be; returns its length. */
static unsigned find_path(struct tree_node *root, const struct tree_key *key,
                          struct step path[TREE_DEPTH_MAX])
{
    struct tree_node *node = root;
    bool is_edge = true;
    unsigned levels = 0;

    while (node->level > 0) {
        unsigned i = node_child(node, key);

        path[levels++] = (struct step){node, i, is_edge};
        is_edge = is_edge && i + 1 == node->used;
        fetched(node = node->entries[i].child);
    }
    path[levels++] = (struct step){node, node_search(node, 0, key, false), is_edge};
    return levels;
}

static void own_path(struct tree_owner *owner, struct tree_node **root, struct step path[],
                     unsigned levels)
{
    for (unsigned i = 0; i < levels; i++) {
        struct tree_node *node = tree_node_own(owner, path[i].node);

        if (node == path[i].node)
            continue;
        path[i].node = node;
        if (i == 0)
            *root = node;
        else
            path[i - 1].node->entries[path[i - 1].index].child = node;
    }
}

/* ---- putting */

/* Make room for an entry at step->index in a full node: the step is then at its place in one of the
 * two halves. Returns the new right half. */
static struct tree_node *split(struct tree_owner *owner, struct step *step)
{
    struct tree_node *left = step->node;
    struct tree_node *right = tree_node_new(owner, left->level);
    unsigned keep = TREE_FANOUT / 2;

    if (step->is_edge && step->index == left->used)
        keep = left->used;
    right->used = (uint16_t) (left->used - keep);
    copy_entries(right, 0, left, keep, right->used);
    left->used = (uint16_t) keep;
    node_sum(left);
    node_sum(right);
    if (step->index > keep || step->index == TREE_FANOUT) {
        step->node = right;
        step->index -= keep;
    }
    return right;
}

static void grow_root(struct tree_owner *owner, struct tree_node **root, struct tree_node *right)
{
    struct tree_node *top = tree_node_new(owner, (*root)->level + 1u);

    assert(top->level < TREE_DEPTH_MAX);
    node_insert_child(top, 0, *root);
    node_insert_child(top, 1, right);
    *root = top;
}

bool tree_put(struct tree_owner *owner, struct tree_node **root, const struct tree_key *key,
              void *value)
{
    struct step path[TREE_DEPTH_MAX];
    struct step *leaf;
    struct tree_node *right = NULL; /* new, to be made known to the level above */
    unsigned levels;

    if (!*root)
        *root = tree_node_new(owner, 0);
    levels = find_path(*root, key, path);
    own_path(owner, root, path, levels);
    leaf = &path[levels - 1];
    if (node_has(leaf->node, leaf->index, key)) {
        leaf->node->entries[leaf->index].value = value;
        return true;
    }
    assert((*root)->count < UINT32_MAX);

    if (leaf->node->used == TREE_FANOUT)
        right = split(owner, leaf);
    node_insert(leaf->node, leaf->index, key, value);
    for (struct step *step = leaf; step-- > path;) {
        struct tree_node *child = right;

        node_recount(step->node, step->index);
        if (!child)
            continue;
        step->index++;
        right = step->node->used == TREE_FANOUT ? split(owner, step) : NULL;
        node_insert_child(step->node, step->index, child);
    }
    if (right)
        grow_root(owner, root, right);
    return false;
}

/* ---- removing */

/* Child i of an inner node has too few entries: join it with a neighbour, or share with it. Entries
 * move with their keys, and the left one of two stays, so that tree_node.h's rule about first keys
 * holds. */
static void rebalance(struct tree_owner *owner, struct tree_node *parent, unsigned i)
{
    unsigned l = i > 0 ? i - 1 : 0;
    struct tree_node *left = parent->entries[l].child, *right;
    struct tree_key first;
    unsigned total, keep;

    if (parent->used == 1) { /* on the right edge a child may be alone */
        if (left->used == 0) {
            node_delete(parent, 0);
            tree_node_drop(owner, left);
        }
        return;
    }
    right = parent->entries[l + 1].child;
    total = (unsigned) left->used + right->used;
    left = parent->entries[l].child = tree_node_own(owner, left);

    if (total <= TREE_FANOUT) {
        copy_entries(left, left->used, right, 0, right->used);
        left->used = (uint16_t) total;
        node_sum(left);
        node_delete(parent, l + 1);
        tree_node_drop(owner, right);
        node_recount(parent, l);
        return;
    }

    right = parent->entries[l + 1].child = tree_node_own(owner, right);
    keep = total / 2;
    if (left->used < keep) {
        unsigned moved = keep - left->used;

        copy_entries(left, left->used, right, 0, moved);
        copy_entries(right, 0, right, moved, right->used - moved);
    } else {
        unsigned moved = left->used - keep;

        copy_entries(right, moved, right, 0, right->used);
        copy_entries(right, 0, left, keep, moved);
    }
    left->used = (uint16_t) keep;
    right->used = (uint16_t) (total - keep);
    node_sum(left);
    node_sum(right);
    first = node_key(right, 0);
    node_set_key(parent, l + 1, &first);
    node_recount(parent, l);
    node_recount(parent, l + 1);
}

/* A root without entries is no tree, an inner one with a single child adds nothing. */
static void shrink_root(struct tree_owner *owner, struct tree_node **root)
{
    while (*root && ((*root)->used == 0 || ((*root)->level > 0 && (*root)->used == 1))) {
        struct tree_node *top = *root;

        *root = top->used > 0 ? top->entries[0].child : NULL;
        tree_node_drop(owner, top);
    }
}

bool tree_remove(struct tree_owner *owner, struct tree_node **root, const struct tree_key *key,
                 void **ret_value)
{
    struct step path[TREE_DEPTH_MAX];
    struct step *leaf;
    unsigned levels;

    if (!*root)
        return false;
    levels = find_path(*root, key, path);
    leaf = &path[levels - 1];
    if (!node_has(leaf->node, leaf->index, key))
        return false;
    own_path(owner, root, path, levels);
    if (ret_value)
        *ret_value = leaf->node->entries[leaf->index].value;

    node_delete(leaf->node, leaf->index);
    for (struct step *step = leaf; step-- > path;) {
        node_recount(step->node, step->index);
        if (step[1].node->used < FILL_MIN)
            rebalance(owner, step->node, step->index);
    }
    shrink_root(owner, root);
    return true;
}

void tree_free(struct tree_owner *owner, struct tree_node **root, void (*free_value)(void *value))
{
    struct tree_node *node = TAKE(*root);

    if (!node)
        return;
    for (unsigned i = 0; i < node->used; i++) {
        if (node->level > 0)
            tree_free(owner, &node->entries[i].child, free_value);
        else if (free_value)
            free_value(node->entries[i].value);
    }
    tree_node_free(owner, node);
}

/* ---- counting */

size_t tree_count(const struct tree_node *root)
{
    return root ? root->count : 0;
}

/* How many keys of the tree are below the key; with `or_equal`, not above it. */
static size_t tree_rank(const struct tree_node *root, const struct tree_key *key, bool or_equal)
{
    const struct tree_node *node = root;
    size_t rank = 0;

    if (!node)
        return 0;
    while (node->level > 0) {
        unsigned child = node_child(node, key);

        for (unsigned i = 0; i < child; i++)
            rank += node->counts[i];
        node = fetched(node->entries[child].child);
    }
    return rank + node_search(node, 0, key, or_equal);
}

size_t tree_count_range(const struct tree_node *root, const struct tree_key *prefix)
{
    struct tree_key first = {{prefix->w[0], prefix->w[1], 0, 0}};
    struct tree_key last = {{prefix->w[0], prefix->w[1], UINT64_MAX, UINT64_MAX}};

    return tree_rank(root, &last, true) - tree_rank(root, &first, false);
}

/* ---- iterating */

static void iter_start(struct tree_iter *it, const struct tree_node *root,
                       const struct tree_key *key, bool after)
{
    const struct tree_node *node = root;

    it->levels = 0;
    it->has_prefix = false;
    if (!node)
        return;
    for (;;) {
        unsigned i = node->level > 0 ? node_child(node, key) : node_search(node, 0, key, after);

        it->path[it->levels].node = node;
        it->path[it->levels].index = i;
        it->levels++;
        if (node->level == 0)
            return;
        node = fetched(node->entries[i].child);
    }
}

void tree_iter_seek(struct tree_iter *it, const struct tree_node *root, const struct tree_key *key)
{
    iter_start(it, root, key, false);
}

void tree_iter_seek_after(struct tree_iter *it, const struct tree_node *root,
                          const struct tree_key *key)
{
    iter_start(it, root, key, true);
}

void tree_iter_limit(struct tree_iter *it, const struct tree_key *prefix)
{
    it->has_prefix = true;
    it->prefix[0] = prefix->w[0];
    it->prefix[1] = prefix->w[1];
}

void tree_iter_prefix(struct tree_iter *it, const struct tree_node *root,
                      const struct tree_key *prefix)
{
    struct tree_key first = {{prefix->w[0], prefix->w[1], 0, 0}};

    iter_start(it, root, &first, false);
    tree_iter_limit(it, prefix);
}

/* The leaf is exhausted: up to where there is a next child, and down its left side.
 * False: there is none. */
static bool iter_next_leaf(struct tree_iter *it)
{
    unsigned level = it->levels - 1;

    do {
        if (level == 0)
            return false;
        level--;
    } while (it->path[level].index + 1 >= it->path[level].node->used);
    it->path[level].index++;
    for (; level + 1 < it->levels; level++) {
        it->path[level + 1].node =
            fetched(it->path[level].node->entries[it->path[level].index].child);
        it->path[level + 1].index = 0;
    }
    return true;
}

bool tree_iter_next(struct tree_iter *it, struct tree_key *ret_key, void **ret_value)
{
    const struct tree_node *leaf;
    unsigned i;

    if (it->levels == 0)
        return false;
    if (it->path[it->levels - 1].index >= it->path[it->levels - 1].node->used
        && !iter_next_leaf(it)) {
        it->levels = 0;
        return false;
    }
    leaf = it->path[it->levels - 1].node;
    i = it->path[it->levels - 1].index++;
    if (it->has_prefix
        && (leaf->first[i] != it->prefix[0] || leaf->entries[i].rest[0] != it->prefix[1])) {
        it->levels = 0;
        return false;
    }
    if (ret_key)
        *ret_key = node_key(leaf, i);
    if (ret_value)
        *ret_value = leaf->entries[i].value;
    return true;
}
