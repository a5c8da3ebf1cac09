/* store.h - the objects of the pool and their versions: generations, transactions, durability
 *
 *   core thread:   store_begin -> reads and puts -> store_apply -> generation g, the core's newest
 *                                                        |
 *                       sinks (journal, mirror) <--------+ struct changes of g
 *                          | every required sink has acknowledged g
 *                          v
 *                    g becomes visible: readers on other threads pin it, listeners are told,
 *                    fibers that waited for g go on
 *
 * Objects are immutable versions. Tables and indexes are path-copying trees (shared/tree.h), so a
 * generation is one root, and a reader that pins a root sees exactly the pool as it was, without
 * locks, however slowly it reads. Only the core thread makes generations, one transaction at a
 * time, and no fiber waits inside one.
 *
 * What is durable: an object of a CLASS_PERSIST class, without its FIELD_VOLATILE fields. A
 * generation that holds only volatile changes is visible as soon as those before it are. (design.md
 * section 4) */
#pragma once

#include "shared/model.h"
#include "shared/tree.h"

struct buffer;
struct clock;
struct loop;
struct random;
struct store;
struct txn;

/* ---- reading ---- */

/* The pool at one generation. */
struct view;

/* Pin the newest visible generation, from any thread; view_unpin gives it back. A pin keeps old
 * versions in memory: view_age_ms and view_held_bytes tell how long and how much, for the limits of
 * 60 s and 256 MiB. */
struct view *store_pin(struct store *);
void view_unpin(struct view **);
uint64_t view_age_ms(const struct view *);
size_t view_held_bytes(const struct view *);

/* The core's own newest state, made durable or not; core thread only. The view itself follows the
 * newest generation, what was read from it is good until the next store_apply. Whoever lets
 * anything out that rests on it first waits for store_newest() to be durable: core_emit() (core.h).
 */
const struct view *store_core_view(struct store *);

uint64_t view_generation(const struct view *);

/* NULL when there is no such object. view_get (view, VM, ref) for a class known at compile time. */
const struct object *view_object(const struct view *, const struct class *, ref_t);
#define view_get(view, class, ref) view_object((view), CLASS_OF(class), (ref))

/* By uuid in either case; NULL when unknown. */
const struct object *view_by_uuid(const struct view *, const struct class *, const char *uuid);
size_t view_count(const struct view *, const struct class *);

/* Iteration in the order of refs. An iterator may be kept as long as its view. Within a
 * transaction, and on the core's view, it goes on behind the key it gave last, whatever was changed
 * meanwhile: deleting what it gives is fine. view_next() gives NULL at the end, and again when
 * asked again. */
struct view_iter {
    const struct view *view;
    const struct class *class;
    int what; /* is walked: see view.c */
    int slot;
    uint64_t changes;     /* of the view, when `tree` was set */
    struct tree_key from; /* go on here, */
    bool is_after;        /* behind it, */
    bool has_prefix;      /* up to the end of its first two words */
    struct tree_iter tree;
    const char *name;
};
void view_each(struct view_iter *, const struct view *, const struct class *);
void view_each_after(struct view_iter *, const struct view *, const struct class *, ref_t after);
/* Objects with this name_label; the text must live as long as the iterator. */
void view_each_name(struct view_iter *, const struct view *, const struct class *,
                    const char *name_label);
/* Objects whose reference makes up an inverse set: view_each_inverse(&it, view,
 * &CLASS_OF(VM)->fields[F_VM_VBDs], vm) gives the VM's VBDs. For a many-to-many relation, too
 * (host.updates is stored, pool_update.hosts derived). */
void view_each_inverse(struct view_iter *, const struct view *, const struct field *inverse,
                       ref_t of);
const struct object *view_next(struct view_iter *);
size_t view_count_inverse(const struct view *, const struct field *inverse, ref_t of);
/* The same as a set of refs in the arena: the value of the field. */
struct value view_inverse(const struct view *, const struct field *inverse, ref_t of,
                          struct arena *);
/* Field of an object: stored ones as they are, inverse ones from the view. */
struct value view_field(const struct view *, const struct object *, const struct field *,
                        struct arena *);

/* Objects of a class modified after a generation, oldest change first, each once with its newest
 * version. A transaction enters its own changes here when it is applied. */
void view_each_changed(struct view_iter *, const struct view *, const struct class *,
                       uint64_t after_generation);
/* Deleted after a generation. */
struct deleted {
    ref_t ref;
    uint64_t created, deleted; /* generations */
};
void view_each_deleted(struct view_iter *, const struct view *, const struct class *,
                       uint64_t after_generation);
bool view_next_deleted(struct view_iter *, struct deleted *ret);
/* The oldest generation since which all deletions of the class are still known. After a start that
 * is the epoch's first: volatile fields went back to their defaults, so whoever read an earlier
 * epoch needs everything anew anyway. */
uint64_t view_deletions_known_since(const struct view *, const struct class *);

/* ---- writing (core thread) ---- */

/* Destroyed when its sinks' threads have ended and all views are unpinned. */
struct store *store_new(struct clock *, struct loop *);
void store_destroy(struct store **);

/* How many deletions each class remembers for event readers; 8192 unless told, at least 512. */
void store_keep_deletions(struct store *, size_t count);

/* One transaction at a time; nothing is visible to others before store_apply. txn_end rolls back
 * what was not applied: _cleanup_(txn_end) struct txn *txn = store_begin(store); */
struct txn *store_begin(struct store *);
void txn_end(struct txn **);

/* The state as this transaction has made it so far, indexes included. */
const struct view *txn_view(const struct txn *);
#define txn_get(txn, class, ref) view_object(txn_view(txn), CLASS_OF(class), (ref))

/* Values are copied. A put of the value that stands is no change. The object must exist. */
void txn_put(struct txn *, const struct class *, ref_t, int field, struct value);
/* A new object: `fields` has class->field_count values (FIELD_INVERSE ones ignored, VALUE_VOID for
 * the initial one), or is NULL for all initial ones. A transaction does not create again what it
 * deleted. */
void txn_create(struct txn *, const struct class *, ref_t, const struct value *fields);
/* With a new ref and a new uuid; returns the ref. */
ref_t txn_create_new(struct txn *, struct random *, const struct class *,
                     const struct value *fields);
void txn_delete(struct txn *, const struct class *, ref_t);
/* A change without a difference: counts as modified for event readers (event.inject). */
void txn_touch(struct txn *, const struct class *, ref_t);

/* Close the transaction: its changes are generation g of the core's state and go to the sinks.
 * Inverse fields count: objects that a changed reference left or joined are modified too, and so do
 * those of store_set_follow(). Returns g, or the newest generation when nothing was changed. Nobody else sees g before it is durable. */
uint64_t store_apply(struct txn **);

/* What is shown of an object without being stored may follow from others (lifecycle_follow.c). For each object that a
 * transaction changes, as it is applied, fn is called with the view before and the object before and after: NULL before it
 * was there, and after it has gone. It touches those whose shown fields are others now, in the transaction's view, and
 * changes nothing else. NULL: nothing follows from anything, as in a new store. */
typedef void store_follow_fn(struct txn *, const struct view *before, const struct object *old,
                             const struct object *new);
void store_set_follow(struct store *, store_follow_fn *fn);

uint64_t store_newest(const struct store *);         /* core's newest generation */
uint64_t store_newest_durable(const struct store *); /* the newest one with a durable change */
uint64_t store_visible(struct store *);              /* newest visible generation; any thread */

/* Wait until a generation is visible: 0. Fibers only. Never fails and is never cancelled: while the
 * outcome is unknown the fiber stays frozen (design.md: nothing is ever taken back). */
void store_wait_visible(struct store *, uint64_t generation);

/* ---- changes: the redo record, the event, the unit of replay ---- */

enum change_kind { CHANGE_CREATE, CHANGE_MODIFY, CHANGE_DELETE, CHANGE_TOUCH };

struct change {
    enum change_kind kind;
    const struct class *class;
    ref_t ref;
    int field_count;   /* CREATE: the fields that differ from the initial value; MODIFY: those that
                          changed */
    const int *fields; /* numbers */
    const struct value *values;
};

struct changes {
    uint64_t generation;
    uint64_t follows;       /* the durable generation before this one; 0 for the first */
    uint64_t class_mask[2]; /* bit per class number: classes with any change, for waking readers */
    bool is_durable;        /* holds at least one durable change */
    int count;
    const struct change *list;
    int skipped; /* by changes_decode: classes and fields that we do not know */
};

/* Durable part only, MessagePack map {g, f, c: [[kind, class, ref, {field name: value}]...]}; the
 * same bytes go to SQLite and Redis. Encoding is pure; decoding checks foreign bytes: unknown
 * classes and fields are skipped (newer versions may have written them) and counted, malformed
 * input is -EBADMSG. */
void changes_encode(const struct changes *, struct buffer *out);
int changes_decode(const void *bytes, size_t count, struct arena *, struct changes *ret);

/* The {field name: value} of one change, on its own: what an object table keeps of an object that
 * was created so. Decoded to class->field_count values, VALUE_VOID where there is none. */
void change_fields_encode(const struct change *, struct buffer *out);
int change_fields_decode(const struct class *, const void *bytes, size_t count, struct arena *,
                         struct value *ret_fields);

/* Where changes go. append() is called on the core thread, in order, for every generation, durable
 * or not; `changes` is good during the call only. A required sink acknowledges durable generations
 * in order with store_acknowledge (any thread): everything up to `generation` is safe there. */
struct store_sink {
    const char *name;
    bool is_required;
    void (*append)(struct store_sink *, const struct changes *);
    uint64_t acknowledged;   /* the store's */
    struct store_sink *next; /* the store's */
};
/* A new sink is taken to hold every durable generation there is. */
void store_add_sink(struct store *, struct store_sink *);
/* From now on the sink is waited for, or is no longer; what is visible stays so. */
void store_require_sink(struct store *, struct store_sink *, bool is_required);
void store_acknowledge(struct store *, struct store_sink *, uint64_t generation);

/* Told on the core thread after a generation became visible: which classes changed since the last
 * telling. From the loop, never inside store_apply. */
struct store_listener {
    void (*visible)(struct store_listener *, uint64_t generation, const uint64_t class_mask[2]);
    struct store_listener *next;
};
void store_add_listener(struct store *, struct store_listener *);
void store_remove_listener(struct store *, struct store_listener *);

/* ---- starting ---- */

/* Before any transaction: fill the store. load_object takes whole objects (from the object tables
 * or a snapshot; fields by number, FIELD_INVERSE ones ignored, VALUE_VOID for the initial one),
 * load_changes applies redo records in order; load_end sets the epoch's first generation, the next
 * multiple of 2^32 above the highest known, and makes everything visible. `highest_known` is then
 * what the epoch's first durable generation follows. References to objects that are not there stay
 * as they are.
 *
 * What was written by others may be wrong: -EBADMSG when an object comes twice, when changes do not
 * fit the objects or are not newer than what is there. The store then holds nothing of that call.
 */
int store_load_object(struct store *, const struct class *, ref_t, const struct value *fields,
                      uint64_t created, uint64_t modified);
int store_load_changes(struct store *, const struct changes *);
void store_load_end(struct store *, uint64_t epoch, uint64_t highest_known);

/* From now on nothing that ought to be durable is changed: a transaction that would is dropped by store_apply(), with a line
 * in the log. For a master whose disk refuses writes; whoever asks for a write is refused before. */
void store_set_read_only(struct store *);
/* How many were dropped. */
uint64_t store_dropped(const struct store *);
uint64_t store_epoch(const struct store *);
static inline uint64_t store_first_generation(uint64_t highest_known)
{
    return ((highest_known >> 32) + 1) << 32;
}

/* Epochs and the last generation inherited from each, newest first; kept in the journal's and
 * mirror's meta data. */
struct epoch_entry {
    uint64_t epoch, first, inherited; /* first generation of the epoch; the last one before it */
};

/* Figures for /metrics; core thread. */
struct store_figures {
    uint64_t generations, versions_live, bytes_live, bytes_retired;
    uint64_t oldest_pin_age_ms;
    uint64_t waiting_durable;
};
void store_figures(struct store *, struct store_figures *ret);
