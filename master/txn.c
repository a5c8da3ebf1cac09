/* txn.c - transactions: the next generation in the making
 *
 * A transaction works on the next generation's trees directly, so that its reads see its own
 * changes, indexes included; giving it up is tree_rollback(). The first put of an object copies its
 * newest version, further ones change the copy in place. `before` stays what readers of older
 * generations see, and is what the final differences are taken against at the end:
 *
 *   settle    objects put back to what they were get their old version again: no change
 *   touch     what a told reference left or joined gets a new version without a difference
 *   list      struct changes: creates, modifies, touches, deletes
 *   finish    index by generation, retire what was superseded, commit the trees, publish */
#include "master/versions.h"

#include <stdio.h>

#include "shared/random.h"

#include <xxhash.h>

/* ---- packed values ---- */

static void *block_of(const struct value *value)
{
    return value->is_packed ? (void *) (uintptr_t) value->text : NULL;
}

static bool is_shared(const struct value *a, const struct value *b)
{
    return a->is_packed && b->is_packed && a->text == b->text;
}

void version_free_all(void *object_)
{
    struct object *object = object_;

    for (int i = 0; i < object->class->field_count; i++)
        if (object->fields[i].is_packed)
            value_unpack(&object->fields[i]);
    free(version_of(object));
}

static size_t value_bytes(const struct object *object)
{
    size_t bytes = 0;

    for (int i = 0; i < object->class->field_count; i++)
        if (object->fields[i].is_packed)
            bytes += value_packed_bytes(&object->fields[i]);
    return bytes;
}

/* A value for keeping. Initial values are the model's and cost nothing. */
static struct value value_keep(struct txn *txn, const struct field *field,
                               const struct value *value)
{
    struct value kept;

    if (value_equal(value, &field->initial))
        return field->initial;
    kept = value_pack(value);
    if (kept.is_packed) {
        txn->store->bytes_live += value_packed_bytes(&kept);
        if (!txn->is_bulk)
            tree_created(txn->store->owner, block_of(&kept), free);
    }
    return kept;
}

static void value_retire(struct txn *txn, const struct value *value)
{
    size_t bytes;

    if (!value->is_packed)
        return;
    bytes = value_packed_bytes(value);
    txn->store->bytes_live -= bytes;
    tree_retire(txn->store->owner, block_of(value), free, bytes);
}

static void version_retire(struct txn *txn, const struct object *object)
{
    size_t bytes = version_bytes(object->class);

    txn->store->bytes_live -= bytes;
    tree_retire(txn->store->owner, version_of(object), free, bytes);
}

/* The version of an object that is gone, and all its values. */
static void object_retire(struct txn *txn, const struct object *object)
{
    size_t bytes = version_bytes(object->class) + value_bytes(object);

    txn->store->bytes_live -= bytes;
    tree_retire(txn->store->owner, (void *) (uintptr_t) object, version_free_all, bytes);
}

static struct object *version_new(struct txn *txn, const struct class *class, ref_t ref)
{
    struct version *version = alloc0(version_bytes(class));

    version->object.class = class;
    version->object.ref = ref;
    txn->store->bytes_live += version_bytes(class);
    if (!txn->is_bulk)
        tree_created(txn->store->owner, version, free);
    return &version->object;
}

/* ---- the generation's roots ---- */

/* The class root of this generation. Asking for it to change it: iterators must look again. */
static struct class_root *own_class(struct txn *txn, const struct class *class)
{
    const struct shape *shape = &txn->store->shapes[class->number];
    struct class_root *old = txn->root->classes[class->number], *own;
    size_t bytes = sizeof *own + (size_t) shape->told_count * sizeof own->relations[0];

    assert(shape->is_stored);
    txn->view.changes++;
    if (old->generation == txn->generation)
        return old;
    own = alloc0(bytes);
    memcpy(own, old, bytes);
    own->generation = txn->generation;
    tree_created(txn->store->owner, own, free);
    tree_retire(txn->store->owner, old, free, bytes);
    txn->root->classes[class->number] = own;
    return own;
}

/* ---- indexes ---- */

struct tree_key key_of_name(const struct value *name, ref_t ref)
{
    XXH128_hash_t hash = XXH3_128bits(name->text, name->length);

    return (struct tree_key){{hash.high64, hash.low64, ref.hi, ref.lo}};
}

static void index_set(struct txn *txn, struct tree_node **root, struct tree_key key, bool is_in)
{
    if (is_in)
        tree_put(txn->store->owner, root, &key, NULL);
    else
        tree_remove(txn->store->owner, root, &key, NULL);
}

/* Enter one field's value into the indexes, or take it out. */
static void index_field(struct txn *txn, const struct object *object, int field, bool is_in)
{
    const struct class *class = object->class;
    const struct shape *shape = &txn->store->shapes[class->number];
    const struct value *value = &object->fields[field];
    int slot = shape->slot[field];
    ref_t uuid;

    if (field == shape->uuid) {
        if (uuid_parse(value->text, value->length, &uuid))
            index_set(txn, &own_class(txn, class)->uuids, key_of_pair(uuid, object->ref), is_in);
    } else if (field == class->name_label) {
        index_set(txn, &own_class(txn, class)->names, key_of_name(value, object->ref), is_in);
    } else if (slot >= 0 && value->kind == KIND_REF) {
        if (!ref_is_null(value->ref))
            index_set(txn, &own_class(txn, class)->relations[slot],
                      key_of_pair(value->ref, object->ref), is_in);
    } else if (slot >= 0) {
        for (uint32_t i = 0; i < value->length; i++)
            index_set(txn, &own_class(txn, class)->relations[slot],
                      key_of_pair(value->items[i].ref, object->ref), is_in);
    }
}

static void index_object(struct txn *txn, const struct object *object, bool is_in)
{
    const struct shape *shape = &txn->store->shapes[object->class->number];

    if (shape->uuid >= 0)
        index_field(txn, object, shape->uuid, is_in);
    if (object->class->name_label >= 0)
        index_field(txn, object, object->class->name_label, is_in);
    for (int i = 0; i < shape->told_count; i++)
        index_field(txn, object, shape->told[i], is_in);
}

static void table_put(struct txn *txn, const struct object *object)
{
    struct tree_key key = key_of_ref(object->ref);

    tree_put(txn->store->owner, &own_class(txn, object->class)->objects, &key,
             (void *) (uintptr_t) object);
}

/* The index by generation keeps the version beside the key: each version has a key of its own. */
static void changed_set(struct txn *txn, const struct object *object, bool is_in)
{
    struct tree_key key = {{object->modified, object->ref.hi, object->ref.lo, 0}};
    struct tree_node **root = &own_class(txn, object->class)->changed;

    if (is_in)
        tree_put(txn->store->owner, root, &key, (void *) (uintptr_t) object);
    else
        tree_remove(txn->store->owner, root, &key, NULL);
}

/* ---- beginning and giving up ---- */

struct txn *txn_open(struct store *store, uint64_t generation)
{
    struct txn *txn = &store->txn;

    assert(loop_is_current(store->loop));
    assert(!txn->is_open);
    tree_begin(store->owner, generation);
    txn->generation = generation;
    txn->root = store_root_copy(store->core.root);
    txn->root->generation = generation;
    txn->view.root = txn->root;
    txn->view.changes++;
    txn->first = txn->recent = NULL;
    txn->last = &txn->first;
    txn->bytes_before = store->bytes_live;
    txn->is_bulk = false;
    txn->is_open = true;
    if (!store->is_loading) /* whoever loads may wait for the next part */
        fiber_forbid_wait_begin();
    return txn;
}

static void txn_shut(struct txn *txn)
{
    arena_reset(txn->arena);
    txn->root = NULL;
    txn->view.root = NULL;
    txn->is_open = false;
    if (!txn->store->is_loading)
        fiber_forbid_wait_end();
}

struct txn *store_begin(struct store *store)
{
    assert(!store->is_loading);
    return txn_open(store, store_newest(store) + 1);
}

void txn_end(struct txn **txn_p)
{
    struct txn *txn = TAKE(*txn_p);

    if (!txn)
        return;
    assert(txn->is_open);
    tree_rollback(txn->store->owner);
    txn->store->bytes_live = txn->bytes_before;
    free(txn->root);
    txn_shut(txn);
}

const struct view *txn_view(const struct txn *txn)
{
    assert(txn->is_open);
    return &txn->view;
}

/* ---- changing objects ---- */

static struct txn_entry *entry_new(struct txn *txn, const struct object *before,
                                   struct object *after)
{
    const struct object *object = after ? after : before;
    int words = (object->class->field_count + 63) / 64;
    struct txn_entry *entry =
        arena_alloc(txn->arena, sizeof *entry + (size_t) words * sizeof entry->dirty[0]);

    entry->class = object->class;
    entry->ref = object->ref;
    entry->before = before;
    entry->after = after;
    *txn->last = entry;
    txn->last = &entry->next;
    txn->recent = entry;
    if (after)
        version_of(after)->entry = entry;
    return entry;
}

/* The entry of an object that this transaction has changed, or NULL. */
static struct txn_entry *entry_find(const struct txn *txn, const struct object *object)
{
    return object->modified == txn->generation ? version_of(object)->entry : NULL;
}

/* The object's entry, with a version that may be changed. */
static struct txn_entry *entry_own(struct txn *txn, const struct object *object)
{
    struct txn_entry *entry = entry_find(txn, object);
    struct object *after;

    if (entry)
        return entry;
    after = version_new(txn, object->class, object->ref);
    after->created = object->created;
    after->modified = txn->generation;
    memcpy(after->fields, object->fields,
           (size_t) object->class->field_count * sizeof after->fields[0]);
    entry = entry_new(txn, object, after);
    table_put(txn, after);
    return entry;
}

static bool value_suits(const struct field *field, const struct value *value)
{
    return value->kind == field->type->kind && !(field->flags & FIELD_INVERSE)
           && (value->kind != KIND_ENUM || value->e.type == field->type->enum_type);
}

/* The object as the transaction has made it. Mostly the one that was changed last: no need to look
 * it up. */
static const struct object *newest(const struct txn *txn, const struct class *class, ref_t ref)
{
    const struct object *object = txn->recent ? txn->recent->after : NULL;

    assert(txn->is_open);
    if (object && object->class == class && ref_equal(object->ref, ref))
        return object;
    return view_object(&txn->view, class, ref);
}

void txn_put(struct txn *txn, const struct class *class, ref_t ref, int number, struct value value)
{
    const struct object *object = newest(txn, class, ref);
    const struct field *field = &class->fields[number];
    struct txn_entry *entry;
    struct value *place, old;

    assert(object && number >= 0 && number < class->field_count && value_suits(field, &value));
    if (value_equal(&object->fields[number], &value))
        return;
    entry = entry_own(txn, object);
    place = &entry->after->fields[number];
    old = *place;
    index_field(txn, entry->after, number, false);
    if (entry->before && value_equal(&entry->before->fields[number], &value))
        *place = entry->before->fields[number]; /* put back */
    else
        *place = value_keep(txn, field, &value);
    index_field(txn, entry->after, number, true);
    entry->dirty[number / 64] |= 1ull << number % 64;

    /* Reads of this transaction may still hold the old value, so it lives to the end. What the
     * version before owns is retired there, too, if the final value is another. */
    if (!entry->before || !is_shared(&old, &entry->before->fields[number]))
        value_retire(txn, &old);
}

struct object *txn_add(struct txn *txn, const struct class *class, ref_t ref,
                       const struct value *fields)
{
    struct object *object = version_new(txn, class, ref);

    assert(!ref_is_null(ref) && !view_object(txn_view(txn), class, ref));
    object->created = object->modified = txn->generation;
    for (int i = 0; i < class->field_count; i++) {
        const struct field *field = &class->fields[i];

        if (field->flags & FIELD_INVERSE)
            continue;
        if (!fields || fields[i].kind == KIND_VOID) {
            object->fields[i] = field->initial;
            continue;
        }
        assert(value_suits(field, &fields[i]));
        object->fields[i] = value_keep(txn, field, &fields[i]);
    }
    table_put(txn, object);
    index_object(txn, object, true);
    return object;
}

/* Deletions of this generation with these first bits: none, or our own. */
static bool was_deleted(const struct txn *txn, const struct class *class, ref_t ref)
{
    struct tree_key prefix = {{txn->generation, ref.hi}};

    return tree_count_range(view_class(&txn->view, class)->deleted, &prefix) > 0;
}

void txn_create(struct txn *txn, const struct class *class, ref_t ref, const struct value *fields)
{
    assert(
        !was_deleted(txn, class, ref)); /* one transaction cannot tell "deleted and came again" */
    entry_new(txn, NULL, txn_add(txn, class, ref, fields));
}

ref_t txn_create_new(struct txn *txn, struct random *random, const struct class *class,
                     const struct value *fields)
{
    const struct shape *shape = &txn->store->shapes[class->number];
    struct value *all = arena_alloc_array(txn->arena, (size_t) class->field_count, sizeof *all);
    char uuid[UUID_TEXT_BYTES];
    ref_t ref = ref_new(random);

    if (fields)
        memcpy(all, fields, (size_t) class->field_count * sizeof *all);
    if (shape->uuid >= 0)
        all[shape->uuid] = value_text(uuid_print(uuid, ref_new(random)));
    txn_create(txn, class, ref, all);
    return ref;
}

void txn_delete(struct txn *txn, const struct class *class, ref_t ref)
{
    const struct object *object = view_object(txn_view(txn), class, ref);
    struct class_root *root;
    struct txn_entry *entry;
    struct tree_key key = key_of_ref(ref);

    assert(object);
    root = own_class(txn, class);
    index_object(txn, object, false);
    tree_remove(txn->store->owner, &root->objects, &key, NULL);
    entry = entry_find(txn, object);
    if (!entry) {
        entry = entry_new(txn, object, NULL);
    } else if (!entry->before) {
        object_retire(txn, object); /* came and went: nobody else ever hears of it */
    } else {
        for (int i = 0; i < class->field_count; i++)
            if (!is_shared(&object->fields[i], &entry->before->fields[i]))
                value_retire(txn, &object->fields[i]);
        version_retire(txn, object);
    }
    entry->after = NULL;
    if (entry->before) {
        key = (struct tree_key){{txn->generation, ref.hi, ref.lo, entry->before->created}};
        tree_put(txn->store->owner, &root->deleted, &key, NULL);
    }
}

void txn_touch(struct txn *txn, const struct class *class, ref_t ref)
{
    const struct object *object = view_object(txn_view(txn), class, ref);

    assert(object);
    entry_own(txn, object)->is_touched = true;
}

/* ---- closing ---- */

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
            table_put(txn, entry->before);
            version_retire(txn, entry->after); /* all its values are those of `before` */
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
            entry_own(txn, target)->is_touched = true;
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
    struct class_root *root = own_class(txn, class);

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
        changed_set(txn, before, false);
    if (after)
        changed_set(txn, after, true);
    if (before && after) {
        for (int i = next_dirty(entry, 0); i < entry->class->field_count;
             i = next_dirty(entry, i + 1))
            if (!is_shared(&before->fields[i], &after->fields[i]))
                value_retire(txn, &before->fields[i]);
        version_retire(txn, before);
    } else if (before) {
        object_retire(txn, before);
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
    if (!txn->first) {
        txn_end(txn_p);
        return store_newest(store);
    }
    list_changes(txn, &changes);
    for (struct txn_entry *entry = txn->first; entry; entry = entry->next)
        entry_finish(txn, entry);
    finish(txn, &changes);
    *txn_p = NULL;
    return store_newest(store);
}

/* ---- for load.c ---- */

void txn_add_end(struct txn *txn, struct object *object)
{
    changed_set(txn, object, true);
    txn->store->versions_live++;
}

void txn_finish_bulk(struct txn *txn)
{
    finish(txn, &(struct changes){.generation = txn->generation});
}
