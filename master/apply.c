/* apply.c - closing a transaction: what has changed in the end, who is touched by it, and its
 * publication
 *
 *   settle    objects put back to what they were get their old version again: no change
 *   touch     what a told reference left or joined gets a new version without a difference
 *   follow    so does what is shown otherwise because of the change (lifecycle_follow.c)
 *   list      struct changes: creates, modifies, touches, deletes
 *   finish    index by generation, retire what was superseded, commit the trees, publish */
#include "master/versions.h"
#include "shared/log.h"

static bool is_dirty(const struct txn_entry *entry, int field)
{
    return entry->dirty[field / 64] >> field % 64 & 1;
}

/* The first field from `field` on that was put, or the count of fields. */
static int next_dirty(const struct txn_entry *entry, int field)
{
    int count = entry->class->field_count;

    while (field < count) {
        uint64_t rest = entry->dirty[field / 64] >> field % 64;

        if (rest)
            return field + __builtin_ctzll(rest);
        field = (field / 64 + 1) * 64;
    }
    return count;
}

/* The first field from `field` on that the transaction changed in the end, or the count of fields.
 * A new object is compared with the initial values. */
static int next_difference(const struct txn_entry *entry, int field)
{
    const struct class *class = entry->class;
    const struct value *after = entry->after->fields;

    if (entry->before) {
        field = next_dirty(entry, field);
        while (field < class->field_count
               && value_equal(&entry->before->fields[field], &after[field]))
            field = next_dirty(entry, field + 1);
        return field;
    }
    while (field < class->field_count
           && (class->fields[field].flags & FIELD_INVERSE
               || value_equal(&class->fields[field].initial, &after[field])))
        field++;
    return field;
}

static int count_differences(const struct txn_entry *entry)
{
    int count = 0;

    for (int i = next_difference(entry, 0); i < entry->class->field_count; count++)
        i = next_difference(entry, i + 1);
    return count;
}

/* Drop entries that are no change in the end. */
static void settle(struct txn *txn)
{
    struct txn_entry **p = &txn->first, *entry;

    while ((entry = *p)) {
        entry->differences = entry->after ? count_differences(entry) : 0;
        if (entry->after && entry->before && !entry->is_touched && entry->differences == 0) {
            txn_put_table(txn, entry->before);
            txn_retire_version(txn, entry->after); /* all its values are those of `before` */
        } else if (entry->after || entry->before) {
            p = &entry->next;
            continue;
        }
        *p = entry->next;
    }
    txn->last = p;
}

static bool value_refers(const struct value *value, ref_t ref)
{
    if (!value)
        return false;
    if (value->kind == KIND_REF)
        return ref_equal(value->ref, ref);
    for (uint32_t i = 0; i < value->length; i++)
        if (ref_equal(value->items[i].ref, ref))
            return true;
    return false;
}

/* Touch what `value` refers to and `other` does not. */
static void touch_targets(struct txn *txn, const struct class *class, const struct value *value,
                          const struct value *other)
{
    const struct value *items = value && value->kind == KIND_SET ? value->items : value;
    uint32_t count = !value ? 0 : value->kind == KIND_SET ? value->length : 1;

    for (uint32_t i = 0; i < count; i++) {
        const struct object *target;

        if (ref_is_null(items[i].ref) || value_refers(other, items[i].ref))
            continue;
        target = view_object(&txn->view, class, items[i].ref);
        if (target)
            txn_own_object(txn, target)->is_touched = true;
    }
}

/* Inverse sets count as fields of the object they belong to: it changes when a reference joins or
 * leaves. */
static void touch(struct txn *txn)
{
    struct txn_entry **end =
        txn->last; /* what is touched comes behind, and touches nobody itself */

    for (struct txn_entry **p = &txn->first; p != end; p = &(*p)->next) {
        const struct txn_entry *entry = *p;
        const struct shape *shape = &txn->store->shapes[entry->class->number];

        for (int i = 0; i < shape->told_count; i++) {
            const struct field *field = &entry->class->fields[shape->told[i]];
            const struct value *before =
                entry->before ? &entry->before->fields[field->number] : NULL;
            const struct value *after = entry->after ? &entry->after->fields[field->number] : NULL;

            if (before && after && !is_dirty(entry, field->number))
                continue;
            touch_targets(txn, field->told->class, before, after);
            touch_targets(txn, field->told->class, after, before);
        }
    }
}

/* Touch those whose shown fields follow from what was changed. A touch alone moves nobody: what is shown follows from stored
 * fields only. */
static void follow(struct txn *txn)
{
    struct txn_entry **end = txn->last; /* what is touched comes behind */

    if (!txn->store->follow)
        return;
    for (struct txn_entry **p = &txn->first; p != end; p = &(*p)->next) {
        const struct txn_entry *entry = *p;

        if (!entry->before || !entry->after || entry->differences > 0)
            txn->store->follow(txn, &txn->store->core, entry->before, entry->after);
    }
}

static enum change_kind entry_kind(const struct txn_entry *entry)
{
    if (!entry->before)
        return CHANGE_CREATE;
    if (!entry->after)
        return CHANGE_DELETE;
    return entry->differences > 0 ? CHANGE_MODIFY : CHANGE_TOUCH;
}

/* One entry as a change; says whether any of it is durable. */
static struct change change_of(struct txn *txn, const struct txn_entry *entry, bool *ret_is_durable)
{
    int count = entry->differences;
    int *fields = arena_alloc_array(txn->arena, (size_t) count, sizeof *fields);
    struct value *values = arena_alloc_array(txn->arena, (size_t) count, sizeof *values);
    struct change change = {entry_kind(entry), entry->class, entry->ref, count, fields, values};
    bool is_durable = change.kind == CHANGE_CREATE || change.kind == CHANGE_DELETE;

    for (int n = 0, i = -1; n < count; n++) {
        i = next_difference(entry, i + 1);
        fields[n] = i;
        values[n] = entry->after->fields[i];
        is_durable |= !(entry->class->fields[i].flags & FIELD_VOLATILE);
    }
    *ret_is_durable = is_durable && entry->class->flags & CLASS_PERSIST;
    return change;
}

static void list_changes(struct txn *txn, struct changes *changes)
{
    struct change *list, *by_kind[CHANGE_TOUCH + 1];
    int counts[CHANGE_TOUCH + 1] = {0};

    *changes =
        (struct changes){.generation = txn->generation, .follows = txn->store->durable_newest};
    for (struct txn_entry *entry = txn->first; entry; entry = entry->next) {
        counts[entry_kind(entry)]++;
        changes->count++;
    }
    list = arena_alloc_array(txn->arena, (size_t) changes->count, sizeof *list);
    by_kind[CHANGE_CREATE] = list;
    by_kind[CHANGE_MODIFY] = by_kind[CHANGE_CREATE] + counts[CHANGE_CREATE];
    by_kind[CHANGE_TOUCH] = by_kind[CHANGE_MODIFY] + counts[CHANGE_MODIFY];
    by_kind[CHANGE_DELETE] = by_kind[CHANGE_TOUCH] + counts[CHANGE_TOUCH];
    for (struct txn_entry *entry = txn->first; entry; entry = entry->next) {
        bool is_durable;
        struct change change = change_of(txn, entry, &is_durable);

        *by_kind[change.kind]++ = change;
        changes->is_durable |= is_durable;
        changes->class_mask[entry->class->number / 64] |= 1ull << entry->class->number % 64;
    }
    changes->list = list;
}

/* Forget the oldest deletions beyond what is kept. */
static void deletions_prune(struct txn *txn, const struct class *class)
{
    struct class_root *root = txn_own_class(txn, class);

    while (tree_count(root->deleted) > txn->store->deletions_kept) {
        struct tree_iter it;
        struct tree_key oldest;

        tree_iter_seek(&it, root->deleted, &(struct tree_key){{0}});
        tree_iter_next(&it, &oldest, NULL);
        tree_remove(txn->store->owner, &root->deleted, &oldest, NULL);
        root->known_since = oldest.w[0];
    }
}

/* The entry's objects change hands: index them by generation, retire what the new version replaces.
 */
static void entry_finish(struct txn *txn, const struct txn_entry *entry)
{
    const struct object *before = entry->before, *after = entry->after;

    if (before)
        txn_set_changed(txn, before, false);
    if (after)
        txn_set_changed(txn, after, true);
    if (before && after) {
        for (int i = next_dirty(entry, 0); i < entry->class->field_count;
             i = next_dirty(entry, i + 1))
            if (!value_is_shared(&before->fields[i], &after->fields[i]))
                txn_retire_value(txn, &before->fields[i]);
        txn_retire_version(txn, before);
    } else if (before) {
        txn_retire_object(txn, before);
        deletions_prune(txn, entry->class);
    }
    txn->store->versions_live += !before;
    txn->store->versions_live -= !after;
}

/* The trees become those of the generation. */
static void finish(struct txn *txn, const struct changes *changes)
{
    struct store *store = txn->store;
    struct root *root = txn->root, *old = (struct root *) (uintptr_t) store->core.root;

    tree_retire(store->owner, old, free, sizeof *old);
    tree_commit(store->owner);
    if (changes->is_durable)
        store->durable_newest = root->durable = txn->generation;
    root->retired_bytes += tree_retired_bytes(store->owner, txn->generation - 1);
    memcpy(root->class_mask, changes->class_mask, sizeof root->class_mask);
    store_publish(store, root, changes);
    txn_shut(txn);
}

uint64_t store_apply(struct txn **txn_p)
{
    struct txn *txn = *txn_p;
    struct store *store = txn->store;
    struct changes changes;

    assert(txn->is_open);
    settle(txn);
    touch(txn);
    follow(txn);
    if (!txn->first) {
        txn_end(txn_p);
        return store_newest(store);
    }
    list_changes(txn, &changes);
    if (changes.is_durable && store->is_read_only) {
        log_warning(NULL, "a change was dropped: the disk refuses writes");
        store->dropped++;
        txn_end(txn_p);
        return store_newest(store);
    }
    for (struct txn_entry *entry = txn->first; entry; entry = entry->next)
        entry_finish(txn, entry);
    finish(txn, &changes);
    *txn_p = NULL;
    return store_newest(store);
}

/* ---- for load.c ---- */

void txn_add_end(struct txn *txn, struct object *object)
{
    txn_set_changed(txn, object, true);
    txn->store->versions_live++;
}

void txn_finish_bulk(struct txn *txn)
{
    finish(txn, &(struct changes){.generation = txn->generation});
}
