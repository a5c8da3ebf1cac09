/* random_pool.h - pools of random objects for the tests of store, changes and journal: random
 * transactions, a digest of what a view shows, and a naive check that its indexes say what its
 * objects say */
#pragma once

#include "master/put.h"
#include "master/store.h"

#include "shared/arena.h"
#include "shared/random.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#include <xxhash.h>

/* Every kind of relation: ref, ref to its own class, set of refs; durable and volatile; named and
 * not. */
static const int pool_classes[] = {CLASS_NUMBER_VM, CLASS_NUMBER_VBD, CLASS_NUMBER_host,
                                   CLASS_NUMBER_PCI, CLASS_NUMBER_session};

static inline uint64_t digest_value(uint64_t seed, const struct value *value)
{
    seed = XXH3_64bits_withSeed(&value->kind, 1, seed);
    switch (value->kind) {
    case KIND_STRING:
        return XXH3_64bits_withSeed(value->text, value->length + 1, seed);
    case KIND_INT:
    case KIND_DATETIME:
        return XXH3_64bits_withSeed(&value->i, sizeof value->i, seed);
    case KIND_FLOAT:
        return XXH3_64bits_withSeed(&value->f, sizeof value->f, seed);
    case KIND_BOOL:
        return XXH3_64bits_withSeed(&value->b, sizeof value->b, seed);
    case KIND_ENUM:
        return XXH3_64bits_withSeed(&value->e.index, sizeof value->e.index, seed);
    case KIND_REF:
        return XXH3_64bits_withSeed(&value->ref, sizeof value->ref, seed);
    case KIND_SET:
    case KIND_MAP:
        for (uint32_t i = 0; i < value->length * (value->kind == KIND_MAP ? 2 : 1); i++)
            seed = digest_value(seed, &value->items[i]);
        return XXH3_64bits_withSeed(&value->length, sizeof value->length, seed);
    default:
        return seed;
    }
}

/* Of all objects of a view, inverse sets included. `durable_only`: without what a restart forgets.
 */
static inline uint64_t digest_view(const struct view *view, bool durable_only, bool with_modified)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    uint64_t digest = 0;

    for (int c = 0; c < CLASS_COUNT; c++) {
        const struct class *class = &model_classes[c];
        const struct object *object;
        struct view_iter it;

        if (!(class->flags & CLASS_IN_DATABASE)
            || (durable_only && !(class->flags & CLASS_PERSIST)))
            continue;
        view_each(&it, view, class);
        while ((object = view_next(&it))) {
            digest = XXH3_64bits_withSeed(&object->ref, sizeof object->ref, digest);
            digest = XXH3_64bits_withSeed(&object->created, sizeof object->created, digest);
            if (with_modified)
                digest = XXH3_64bits_withSeed(&object->modified, sizeof object->modified, digest);
            for (int f = 0; f < class->field_count; f++) {
                const struct field *field = &class->fields[f];
                struct value value;

                if (durable_only && (field->flags & FIELD_VOLATILE))
                    continue;
                if (durable_only && (field->flags & FIELD_INVERSE)
                    && !(field->inverse_class->flags & CLASS_PERSIST))
                    continue;
                value = view_field(view, object, field, arena);
                digest = digest_value(digest, &value);
            }
        }
        arena_reset(arena);
    }
    return digest;
}

static inline bool refers(const struct value *value, ref_t ref)
{
    if (value->kind == KIND_REF)
        return ref_equal(value->ref, ref);
    for (uint32_t i = 0; i < value->length; i++)
        if (ref_equal(value->items[i].ref, ref))
            return true;
    return false;
}

/* Indexes against a scan of the table, for the classes of the random pool. A transaction's own view
 * has its changes not yet in the index by generation. */
static inline void check_indexes(const struct view *view, bool is_applied)
{
    for (size_t c = 0; c < ARRAY_SIZE(pool_classes); c++) {
        const struct class *class = &model_classes[pool_classes[c]];
        const struct object *object, *other;
        struct view_iter it, inner;
        size_t count = 0, changed = 0;

        view_each(&it, view, class);
        while ((object = view_next(&it))) {
            bool found = class->name_label < 0;

            count++;
            assert_ptr_equal(view_object(view, class, object->ref), object);
            if (model_field(class, "uuid")) {
                const char *uuid = object->fields[model_field(class, "uuid")->number].text;

                if (*uuid)
                    assert_ptr_equal(view_by_uuid(view, class, uuid), object);
            }
            if (!found) {
                view_each_name(&inner, view, class, object->fields[class->name_label].text);
                while ((other = view_next(&inner))) {
                    assert_string_equal(other->fields[class->name_label].text,
                                        object->fields[class->name_label].text);
                    found |= other == object;
                }
                assert_true(found);
            }
            for (int f = 0; f < class->field_count; f++) {
                const struct field *inverse = &class->fields[f];
                size_t expected = 0, got = 0;

                if (!(inverse->flags & FIELD_INVERSE))
                    continue;
                view_each(&inner, view, inverse->inverse_class);
                while ((other = view_next(&inner)))
                    expected += refers(&other->fields[inverse->inverse_field], object->ref);
                assert_int_equal(view_count_inverse(view, inverse, object->ref), expected);
                view_each_inverse(&inner, view, inverse, object->ref);
                while ((other = view_next(&inner))) {
                    assert_true(refers(&other->fields[inverse->inverse_field], object->ref));
                    got++;
                }
                assert_int_equal(got, expected);
            }
        }
        assert_int_equal(view_count(view, class), count);
        if (!is_applied)
            continue;
        view_each_changed(&it, view, class, 0);
        for (uint64_t last = 0; (object = view_next(&it)); last = object->modified) {
            assert_true(object->modified >= last);
            assert_ptr_equal(view_object(view, class, object->ref), object);
            changed++;
        }
        assert_int_equal(changed, count);
    }
}

static inline ref_t random_object(const struct view *view, struct random *random,
                                  const struct class *class)
{
    ref_t after = {random_u64(random), 0};
    const struct object *object;
    struct view_iter it;

    view_each_after(&it, view, class, after);
    object = view_next(&it);
    return object ? object->ref : NULL_REF;
}

static inline void random_create(struct txn *txn, struct random *random)
{
    const struct class *class =
        &model_classes[pool_classes[random_below(random, ARRAY_SIZE(pool_classes))]];
    ref_t ref = txn_create_new(txn, random, class, NULL);

    if (class == CLASS_OF(VBD))
        VBD_put_VM(txn, ref, random_object(txn_view(txn), random, CLASS_OF(VM)));
}

static inline void random_put(struct txn *txn, struct random *random, const struct class *class,
                              ref_t ref)
{
    char text[32];
    struct value items[4], set;
    uint32_t n = 0;

    snprintf(text, sizeof text, "name %u", (unsigned) random_below(random, 4));
    if (class == CLASS_OF(VM)) {
        switch (random_below(random, 6)) {
        case 0:
            VM_put_name_label(txn, ref, text);
            break;
        case 1:
            VM_put_resident_on(txn, ref, random_object(txn_view(txn), random, CLASS_OF(host)));
            break;
        case 2:
            VM_put_parent(txn, ref, random_object(txn_view(txn), random, CLASS_OF(VM)));
            break;
        case 3:
            VM_put_memory_target(txn, ref, (int64_t) random_below(random, 5) - 2);
            break;
        case 4: /* volatile */
            items[0] = VALUE_ENUM(vm_operations, (int) random_below(random, 5));
            set = VALUE_SET(random_below(random, 2), items);
            VM_put_allowed_operations(txn, ref, &set);
            break;
        case 5:
            items[0] = value_text("key"), items[1] = value_text(text);
            set = VALUE_MAP(random_below(random, 2), items);
            VM_put_other_config(txn, ref, &set);
            break;
        }
    } else if (class == CLASS_OF(VBD)) {
        if (random_below(random, 2))
            VBD_put_VM(txn, ref, random_object(txn_view(txn), random, CLASS_OF(VM)));
        else
            VBD_put_bootable(txn, ref, random_below(random, 2));
    } else if (class == CLASS_OF(host)) {
        host_put_name_label(txn, ref, text);
    } else if (class == CLASS_OF(PCI)) {
        for (uint32_t i = 0; i < ARRAY_SIZE(items); i++) {
            ref_t vm = random_object(txn_view(txn), random, CLASS_OF(VM));

            if (!ref_is_null(vm) && random_below(random, 2))
                items[n++] = VALUE_REF(vm);
        }
        set = VALUE_SET(n, items);
        PCI_put_attached_VMs(txn, ref, &set);
    } else {
        session_put_auth_user_sid(txn, ref, text);
    }
}

/* A few random changes. */
static inline void random_changes(struct txn *txn, struct random *random)
{
    for (uint64_t n = random_below(random, 8); n-- > 0;) {
        const struct class *class =
            &model_classes[pool_classes[random_below(random, ARRAY_SIZE(pool_classes))]];
        ref_t ref = random_object(txn_view(txn), random, class);
        uint64_t what = random_below(random, 20);

        if (ref_is_null(ref) || what < 2)
            random_create(txn, random);
        else if (what < 4 && view_count(txn_view(txn), class) > 3)
            txn_delete(txn, class, ref);
        else if (what < 5)
            txn_touch(txn, class, ref);
        else
            random_put(txn, random, class, ref);
    }
}
