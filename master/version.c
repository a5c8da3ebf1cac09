/* version.c - what a transaction does to trees and memory: versions, their values, indexes
 *
 * Everything that is made is entered as created by the open generation, everything that is replaced
 * as retired by it, so giving up and reclaiming need not know what a transaction did. versions.h
 * tells who owns what. */
#include "master/versions.h"

#include <xxhash.h>

/* ---- packed values ---- */

static void *block_of(const struct value *value)
{
    return value->is_packed ? (void *) (uintptr_t) value->text : NULL;
}

bool value_is_shared(const struct value *a, const struct value *b)
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
struct value txn_keep_value(struct txn *txn, const struct field *field, const struct value *value)
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

void txn_retire_value(struct txn *txn, const struct value *value)
{
    size_t bytes;

    if (!value->is_packed)
        return;
    bytes = value_packed_bytes(value);
    txn->store->bytes_live -= bytes;
    tree_retire(txn->store->owner, block_of(value), free, bytes);
}

void txn_retire_version(struct txn *txn, const struct object *object)
{
    size_t bytes = version_bytes(object->class);

    txn->store->bytes_live -= bytes;
    tree_retire(txn->store->owner, version_of(object), free, bytes);
}

/* The version of an object that is gone, and all its values. */
void txn_retire_object(struct txn *txn, const struct object *object)
{
    size_t bytes = version_bytes(object->class) + value_bytes(object);

    txn->store->bytes_live -= bytes;
    tree_retire(txn->store->owner, (void *) (uintptr_t) object, version_free_all, bytes);
}

struct object *txn_new_version(struct txn *txn, const struct class *class, ref_t ref)
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
struct class_root *txn_own_class(struct txn *txn, const struct class *class)
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
void txn_index_field(struct txn *txn, const struct object *object, int field, bool is_in)
{
    const struct class *class = object->class;
    const struct shape *shape = &txn->store->shapes[class->number];
    const struct value *value = &object->fields[field];
    int slot = shape->slot[field];
    ref_t uuid;

    if (field == shape->uuid) {
        if (uuid_parse(value->text, value->length, &uuid))
            index_set(txn, &txn_own_class(txn, class)->uuids, key_of_pair(uuid, object->ref),
                      is_in);
    } else if (field == class->name_label) {
        index_set(txn, &txn_own_class(txn, class)->names, key_of_name(value, object->ref), is_in);
    } else if (slot >= 0 && value->kind == KIND_REF) {
        if (!ref_is_null(value->ref))
            index_set(txn, &txn_own_class(txn, class)->relations[slot],
                      key_of_pair(value->ref, object->ref), is_in);
    } else if (slot >= 0) {
        for (uint32_t i = 0; i < value->length; i++)
            index_set(txn, &txn_own_class(txn, class)->relations[slot],
                      key_of_pair(value->items[i].ref, object->ref), is_in);
    }
}

void txn_index_object(struct txn *txn, const struct object *object, bool is_in)
{
    const struct shape *shape = &txn->store->shapes[object->class->number];

    if (shape->uuid >= 0)
        txn_index_field(txn, object, shape->uuid, is_in);
    if (object->class->name_label >= 0)
        txn_index_field(txn, object, object->class->name_label, is_in);
    for (int i = 0; i < shape->told_count; i++)
        txn_index_field(txn, object, shape->told[i], is_in);
}

void txn_put_table(struct txn *txn, const struct object *object)
{
    struct tree_key key = key_of_ref(object->ref);

    tree_put(txn->store->owner, &txn_own_class(txn, object->class)->objects, &key,
             (void *) (uintptr_t) object);
}

/* The index by generation keeps the version beside the key: each version has a key of its own. */
void txn_set_changed(struct txn *txn, const struct object *object, bool is_in)
{
    struct tree_key key = {{object->modified, object->ref.hi, object->ref.lo, 0}};
    struct tree_node **root = &txn_own_class(txn, object->class)->changed;

    if (is_in)
        tree_put(txn->store->owner, root, &key, (void *) (uintptr_t) object);
    else
        tree_remove(txn->store->owner, root, &key, NULL);
}
