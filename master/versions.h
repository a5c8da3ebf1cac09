/* versions.h - what store.c, txn.c, view.c and load.c share: how the objects' versions and indexes
 * lie in memory
 *
 *   root of g ---> class root of VM ---> objects   {ref}                       -> newest version
 *        |         class root of VBD     uuids     {uuid, ref}
 *        |              ...              names     {hash of name_label, ref}
 *        v                               changed   {modified, ref}             -> newest version
 *   root of g+1 (shares the class        deleted   {deleted, ref, created}
 *   roots that g+1 did not touch)        relations {target, own ref}, one tree for each told field
 *
 * Versions of one object share the packed values that did not change. The newest owns them all:
 * what a change replaces is retired by the generation that replaced it, value by value, and a
 * deleted object's version takes all its values along. Everything goes through the accounts of the
 * trees (tree_created, tree_retire), so rollback and reclaim free it in the right order and no
 * counts are kept. */
#pragma once

#include "shared/arena.h"
#include "shared/fiber.h"
#include "shared/loop.h"
#include "shared/tree.h"

#include "master/store.h"

#include <pthread.h>
#include <stdatomic.h>

/* Deletions kept for event readers, for each class, unless store_keep_deletions says otherwise:
 * minutes of the fastest churn (tasks) for 40 bytes each. */
#define DELETIONS_KEPT_DEFAULT 8192u
#define DELETIONS_KEPT_LEAST   512u

/* What a commit frees at most, so that the end of a long pin does not hold up the core: more than
 * it can have retired itself, for each object that it changed. One changed field retires about
 * fifteen nodes and things. */
#define RECLAIM_AT_ONCE  256u
#define RECLAIM_A_CHANGE 128u

struct version {
    struct txn_entry *entry; /* of the transaction that makes this version, until it ends */
    struct object object;
};

static inline struct version *version_of(const struct object *object)
{
    return CONTAINER_OF(object, struct version, object);
}

static inline size_t version_bytes(const struct class *class)
{
    return sizeof(struct version) + (size_t) class->field_count * sizeof(struct value);
}

/* What the rows say about a class, looked up once. */
struct shape {
    int uuid;       /* number of the field, or -1 */
    int told_count; /* fields that an inverse set is derived from: */
    int *told;      /* their numbers */
    int *slot;      /* by field number: place in class_root.relations, or -1 */
    bool is_stored; /* the class has objects */
};

struct class_root {
    uint64_t generation;  /* that made this copy */
    uint64_t known_since; /* all deletions after this generation are in `deleted` */
    struct tree_node *objects, *uuids, *names, *changed, *deleted;
    struct tree_node *relations[];
};

struct root {
    uint64_t generation;
    uint64_t
        durable; /* newest durable generation up to this one: what sinks must have acknowledged */
    uint64_t retired_bytes; /* ever, up to this generation */
    uint64_t class_mask[2]; /* what this generation changed */
    struct waitq waiters;   /* for it to become visible */
    struct class_root *classes[CLASS_COUNT];
};

struct view {
    struct store *store;
    const struct root *root;
    uint64_t changes; /* of the root, for iterators over a state that moves */
    uint64_t pinned_ms;
    struct view *prev, *next;
};

/* An object that a transaction changes. */
struct txn_entry {
    struct txn_entry *next;
    const struct class *class;
    ref_t ref;
    const struct object *before; /* NULL: created by this transaction */
    struct object *after;        /* NULL: deleted by it */
    bool is_touched;
    int differences;  /* fields that differ in the end */
    uint64_t dirty[]; /* a bit for each field that was put */
};

struct txn {
    struct store *store;
    uint64_t generation;
    struct root *root; /* being made; class roots are copied when first changed */
    struct view view;
    struct arena *arena;
    struct txn_entry *first, **last;
    struct txn_entry *recent; /* the last one */
    uint64_t bytes_before;    /* store.bytes_live, for giving up */
    bool is_open;
    bool is_bulk; /* filling the store at start: never given up */
};

/* Something to do for the store once the loop gets to it, asked for any number of times before. The
 * loop may have it still when the store has gone: then it finds no store, and frees itself. */
struct errand {
    struct loop_item item;
    struct store *store;
    void (*run)(struct store *store);
    atomic_bool is_posted;
};

struct store {
    struct clock *clock;
    struct loop *loop;
    struct shape shapes[CLASS_COUNT];
    struct tree_owner *owner;
    struct txn txn;
    struct view core; /* the newest generation */
    size_t deletions_kept;
    uint64_t epoch;
    store_follow_fn *follow; /* or NULL */

    bool is_read_only;     /* durable changes are dropped: store_set_read_only() */
    uint64_t dropped;      /* how many were */
    bool is_loading;       /* from the first load call to store_load_end */
    uint64_t load_highest; /* newest generation met in what was loaded */

    /* generations made and not yet visible, a ring by generation */
    struct root **pending;
    uint32_t pending_size; /* a power of two */
    uint32_t pending_first, pending_count;
    uint64_t durable_newest;
    uint64_t generations;

    /* shared with readers, under the mutex */
    pthread_mutex_t mutex;
    const struct root *visible_root;
    struct view *oldest_pin, *newest_pin;

    _Atomic uint64_t visible;       /* generation of visible_root */
    _Atomic uint64_t retired_bytes; /* root.retired_bytes of the newest generation */

    struct store_sink *sinks;
    struct store_listener *listeners;
    uint64_t tell_mask[2]; /* changed since the listeners were told */
    struct errand *advance, *tell, *reclaim;

    uint64_t versions_live, bytes_live;
};

static inline struct tree_key key_of_ref(ref_t ref)
{
    return (struct tree_key){{ref.hi, ref.lo, 0, 0}};
}

static inline struct tree_key key_of_pair(ref_t a, ref_t b)
{
    return (struct tree_key){{a.hi, a.lo, b.hi, b.lo}};
}

/* The name index' key; names of one hash are told apart by whoever reads it. */
struct tree_key key_of_name(const struct value *name, ref_t ref);

static inline const struct class_root *view_class(const struct view *view,
                                                  const struct class *class)
{
    assert(view->store->shapes[class->number].is_stored);
    return view->root->classes[class->number];
}

/* store.c */
struct root *store_root_copy(const struct root *from);
void store_publish(struct store *store, struct root *root, const struct changes *changes);

/* version.c: the transaction's hand on values, versions and indexes. */
bool value_is_shared(const struct value *a, const struct value *b);
struct value txn_keep_value(struct txn *txn, const struct field *field, const struct value *value);
void txn_retire_value(struct txn *txn, const struct value *value);
struct object *txn_new_version(struct txn *txn, const struct class *class, ref_t ref);
void txn_retire_version(struct txn *txn, const struct object *object);
void txn_retire_object(struct txn *txn, const struct object *object);
struct class_root *txn_own_class(struct txn *txn, const struct class *class);
void txn_index_field(struct txn *txn, const struct object *object, int field, bool is_in);
void txn_index_object(struct txn *txn, const struct object *object, bool is_in);
void txn_put_table(struct txn *txn, const struct object *object);
void txn_set_changed(struct txn *txn, const struct object *object, bool is_in);
/* Free the newest version of an object, with all its values. */
void version_free_all(void *object);

/* txn.c. A transaction of any generation; its end; an object without an entry among the changes;
 * the entry of an object, with a version of this generation. */
struct txn *txn_open(struct store *store, uint64_t generation);
void txn_shut(struct txn *txn);
struct object *txn_add(struct txn *txn, const struct class *class, ref_t ref,
                       const struct value *fields);
struct txn_entry *txn_own_object(struct txn *txn, const struct object *object);

/* apply.c, for load.c: the loaded object's place in the index by generation; the end of a
 * transaction that has no entries. */
void txn_add_end(struct txn *txn, struct object *object);
void txn_finish_bulk(struct txn *txn);
