/* derived.c - the messages that every class has
 *
 * Reading ones run on an HTTP loop over the call's pinned view, writing ones in a fiber of the
 * core. A field with a rule of its own has a METHOD row of its own instead. */
#include "master/derived.h"

#include "master/core.h"
#include "master/filter.h"
#include "master/listing.h"
#include "master/record.h"
#include "master/store.h"
#include "shared/dbtext.h"

static int handle_invalid(struct call *call, const struct class *class, ref_t ref)
{
    return fail(call, HANDLE_INVALID, class->name, ref_text(call, ref));
}

/* ---- reading ---- */

static int get(struct call *call, const struct method *method, ref_t self, struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *object = view_object(view, method->class, self);

    if (!object)
        return handle_invalid(call, method->class, self);
    *ret = method->kind == METHOD_GET ? record_field(view, object, method->field, call->arena)
                                      : record_value(view, object, call->arena);
    return 0;
}

static int get_by_uuid(struct call *call, const struct method *method, const char *uuid,
                       struct value *ret)
{
    const struct object *object = view_by_uuid(call_view(call), method->class, uuid);

    if (!object)
        return fail(call, UUID_INVALID, method->class->name, uuid);
    *ret = VALUE_REF(object->ref);
    return 0;
}

static int get_all_where(struct call *call, const struct method *method, const char *expression,
                         bool with_records)
{
    struct filter *filter;
    int r = filter_parse(expression, method->class, call->arena, &filter, &call->failure);

    if (r < 0)
        return r;
    call->listing =
        listing_objects(call->arena, call_view(call), method->class, filter, with_records);
    return 0;
}

/* ---- writing ---- */

/* A key as MAP_DUPLICATE_KEY shows it. */
static const char *key_text(struct call *call, const struct value *key)
{
    _cleanup_(buffer_done) struct buffer text = {0};

    if (key->kind == KIND_STRING)
        return key->text;
    buffer_init(&text, SIZE_MAX);
    dbtext_print(&text, key);
    return arena_dup(call->arena, text.bytes, text.length);
}

static const struct value *map_find(const struct value *map, const struct value *key)
{
    for (uint32_t i = 0; i < map->length; i++)
        if (value_equal(&map->items[2 * i], key))
            return &map->items[2 * i + 1];
    return NULL;
}

static int changed_value(struct call *call, const struct method *method,
                         const struct object *object, const struct value *values, struct value *ret)
{
    const struct value *now = &object->fields[method->field->number];

    switch (method->kind) {
    case METHOD_SET:
        *ret = values[1];
        return 0;
    case METHOD_ADD:
        *ret = value_set_with(call->arena, now, &values[1]);
        return 0;
    case METHOD_REMOVE:
        *ret = value_set_without(call->arena, now, &values[1]);
        return 0;
    case METHOD_ADD_TO:
        if (map_find(now, &values[1]))
            return fail(call, MAP_DUPLICATE_KEY, method->class->name, method->field->name,
                        ref_text(call, object->ref), key_text(call, &values[1]));
        *ret = value_map_with(call->arena, now, &values[1], &values[2]);
        return 0;
    case METHOD_REMOVE_FROM:
        *ret = value_map_without(call->arena, now, &values[1]);
        return 0;
    default:
        assert(!"reading message");
        return 0;
    }
}

static int put(struct call *call, const struct method *method, const struct value *values)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct object *object = view_object(txn_view(txn), method->class, values[0].ref);
    struct value value;
    int r;

    if (!object)
        return handle_invalid(call, method->class, values[0].ref);
    r = changed_value(call, method, object, values, &value);
    if (r < 0)
        return r;
    txn_put(txn, method->class, object->ref, method->field->number, value);
    return call_commit(call, &txn);
}

int derived_run(struct call *call, const struct method *method, const struct value *values,
                struct value *ret)
{
    *ret = VALUE_VOID;
    switch (method->kind) {
    case METHOD_GET:
    case METHOD_GET_RECORD:
        return get(call, method, values[0].ref, ret);
    case METHOD_GET_BY_UUID:
        return get_by_uuid(call, method, values[0].text, ret);
    case METHOD_GET_BY_NAME_LABEL:
        call->listing = listing_named(call->arena, call_view(call), method->class, values[0].text);
        return 0;
    case METHOD_GET_ALL:
    case METHOD_GET_ALL_RECORDS:
        call->listing = listing_objects(call->arena, call_view(call), method->class, NULL,
                                        method->kind == METHOD_GET_ALL_RECORDS);
        return 0;
    case METHOD_GET_ALL_WHERE:
    case METHOD_GET_ALL_RECORDS_WHERE:
        return get_all_where(call, method, values[0].text,
                             method->kind == METHOD_GET_ALL_RECORDS_WHERE);
    case METHOD_SET:
    case METHOD_ADD:
    case METHOD_REMOVE:
    case METHOD_ADD_TO:
    case METHOD_REMOVE_FROM:
        return put(call, method, values);
    case METHOD_CUSTOM:
        break;
    }
    assert(!"a row's message");
    return 0;
}
