/* txn.c - transactions: the next generation in the making
 *
 * A transaction works on the next generation's trees directly, so that its reads see its own
 * changes, indexes included; giving it up is tree_rollback(). The first put of an object copies its
 * newest version, further ones change the copy in place. `before` stays what readers of older
 * generations see, and is what the final differences are taken against at the end (apply.c). */
#include "master/versions.h"

#include "shared/random.h"

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

void txn_shut(struct txn *txn)
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
struct txn_entry *txn_own_object(struct txn *txn, const struct object *object)
{
    struct txn_entry *entry = entry_find(txn, object);
    struct object *after;

    if (entry)
        return entry;
    after = txn_new_version(txn, object->class, object->ref);
    after->created = object->created;
    after->modified = txn->generation;
    memcpy(after->fields, object->fields,
           (size_t) object->class->field_count * sizeof after->fields[0]);
    entry = entry_new(txn, object, after);
    txn_put_table(txn, after);
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
    entry = txn_own_object(txn, object);
    place = &entry->after->fields[number];
    old = *place;
    txn_index_field(txn, entry->after, number, false);
    if (entry->before && value_equal(&entry->before->fields[number], &value))
        *place = entry->before->fields[number]; /* put back */
    else
        *place = txn_keep_value(txn, field, &value);
    txn_index_field(txn, entry->after, number, true);
    entry->dirty[number / 64] |= 1ull << number % 64;

    /* Reads of this transaction may still hold the old value, so it lives to the end. What the
     * version before owns is retired there, too, if the final value is another. */
    if (!entry->before || !value_is_shared(&old, &entry->before->fields[number]))
        txn_retire_value(txn, &old);
}

struct object *txn_add(struct txn *txn, const struct class *class, ref_t ref,
                       const struct value *fields)
{
    struct object *object = txn_new_version(txn, class, ref);

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
        object->fields[i] = txn_keep_value(txn, field, &fields[i]);
    }
    txn_put_table(txn, object);
    txn_index_object(txn, object, true);
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
    root = txn_own_class(txn, class);
    txn_index_object(txn, object, false);
    tree_remove(txn->store->owner, &root->objects, &key, NULL);
    entry = entry_find(txn, object);
    if (!entry) {
        entry = entry_new(txn, object, NULL);
    } else if (!entry->before) {
        txn_retire_object(txn, object); /* came and went: nobody else ever hears of it */
    } else {
        for (int i = 0; i < class->field_count; i++)
            if (!value_is_shared(&object->fields[i], &entry->before->fields[i]))
                txn_retire_value(txn, &object->fields[i]);
        txn_retire_version(txn, object);
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
    txn_own_object(txn, object)->is_touched = true;
}
