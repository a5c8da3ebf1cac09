/* load.c - filling the store at start: whole objects first, then redo records, then the epoch
 * begins
 *
 * All objects go into one generation, so nothing is copied or retired and each node is filled to
 * the brim when refs come in order. Each redo record is a transaction of its own generation, as it
 * was when it was made; only that no sink hears of it, and that what it supersedes is freed at
 * once. */
#include "master/versions.h"

#include <errno.h>

#define BULK_GENERATION 1u /* the first there can be */

static struct txn *bulk(struct store *store)
{
    if (!store->txn.is_open) {
        assert(store_newest(store) == 0); /* redo records come after objects */
        store->is_loading = true;
        txn_open(store, BULK_GENERATION)->is_bulk = true;
    }
    assert(store->txn.is_bulk);
    return &store->txn;
}

static void bulk_end(struct store *store)
{
    if (store->txn.is_open) {
        assert(store->txn.is_bulk);
        txn_finish_bulk(&store->txn);
    }
}

int store_load_object(struct store *store, const struct class *class, ref_t ref,
                      const struct value *fields, uint64_t created, uint64_t modified)
{
    struct txn *txn = bulk(store);
    struct object *object;

    if (!store->shapes[class->number].is_stored || ref_is_null(ref) || created > modified
        || view_object(&txn->view, class, ref))
        return -EBADMSG;
    object = txn_add(txn, class, ref, fields);
    object->created = created;
    object->modified = modified;
    txn_add_end(txn, object);
    store->load_highest = MAX(store->load_highest, modified);
    return 0;
}

/* One change; false when it does not fit the objects. */
static bool replay(struct txn *txn, const struct change *change)
{
    const struct class *class = change->class;
    bool is_there;

    if (!txn->store->shapes[class->number].is_stored || ref_is_null(change->ref))
        return false;
    is_there = view_object(&txn->view, class, change->ref);
    if (is_there == (change->kind == CHANGE_CREATE))
        return false;
    switch (change->kind) {
    case CHANGE_CREATE: {
        _cleanup_(free_p) void *all = new0_array(struct value, (size_t) class->field_count);
        struct value *fields = all;

        for (int i = 0; i < change->field_count; i++)
            fields[change->fields[i]] = change->values[i];
        txn_create(txn, class, change->ref, fields);
        break;
    }
    case CHANGE_MODIFY:
        for (int i = 0; i < change->field_count; i++)
            txn_put(txn, class, change->ref, change->fields[i], change->values[i]);
        break;
    case CHANGE_TOUCH:
        txn_touch(txn, class, change->ref);
        break;
    case CHANGE_DELETE:
        txn_delete(txn, class, change->ref);
        break;
    }
    return true;
}

int store_load_changes(struct store *store, const struct changes *changes)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    bool has_deleted = false;

    bulk_end(store);
    store->is_loading = true;
    if (changes->generation <= MAX(store_newest(store), store->load_highest))
        return -EBADMSG;
    txn = txn_open(store, changes->generation);
    for (int i = 0; i < changes->count; i++) {
        /* Deletes come last in a record of ours, so nothing is deleted and comes again within one.
         */
        if (has_deleted && changes->list[i].kind == CHANGE_CREATE)
            return -EBADMSG;
        has_deleted |= changes->list[i].kind == CHANGE_DELETE;
        if (!replay(txn, &changes->list[i]))
            return -EBADMSG;
    }
    store_apply(&txn);
    store->load_highest = changes->generation;
    return 0;
}

void store_load_end(struct store *store, uint64_t epoch, uint64_t highest_known)
{
    struct root *root;

    bulk_end(store);
    assert(!store->oldest_pin && store->pending_count == 0);
    highest_known = MAX(highest_known, MAX(store->load_highest, store_newest(store)));
    root = (struct root *) (uintptr_t) store->core.root; /* nobody has read it yet */
    root->generation = store_first_generation(highest_known);
    root->durable = store->durable_newest = highest_known;
    for (int i = 0; i < CLASS_COUNT; i++)
        if (root->classes[i])
            root->classes[i]->known_since = root->generation;
    for (struct store_sink *sink = store->sinks; sink; sink = sink->next)
        sink->acknowledged = highest_known;
    store->epoch = epoch;
    store->is_loading = false;
    atomic_store(&store->visible, root->generation);
}

void store_set_read_only(struct store *store)
{
    store->is_read_only = true;
}

uint64_t store_dropped(const struct store *store)
{
    return store->dropped;
}

uint64_t store_epoch(const struct store *store)
{
    return store->epoch;
}
