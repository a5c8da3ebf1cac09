/* handler.c - what the classes' handlers share */
#include "master/handler.h"

#include <stdarg.h>

#include "shared/random.h"

const struct object *live_object(struct call *call, const struct view *view,
                                 const struct class *class, ref_t ref)
{
    const struct object *object = view_object(view, class, ref);

    if (!object)
        fail(call, HANDLE_INVALID, class->name, ref_text(call, ref));
    return object;
}

/* ---- one field ---- */

int field_set(struct call *call, const struct class *class, ref_t ref, int field,
              struct value value)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    if (!live_object(call, txn_view(txn), class, ref))
        return -ERR_HANDLE_INVALID;
    txn_put(txn, class, ref, field, value);
    return call_commit(call, &txn);
}

int field_set_within(struct call *call, const struct class *class, ref_t ref, int field,
                     int64_t value, int64_t most)
{
    if (value < 0 || value > most)
        return fail(call, INVALID_VALUE, class->fields[field].name, int_text(call, value));
    return field_set(call, class, ref, field, VALUE_INT(value));
}

/* The field of the object as it stands, or NULL and the call has failed. */
static const struct value *field_of(struct call *call, struct txn *txn, const struct class *class,
                                    ref_t ref, int field)
{
    const struct object *object = live_object(call, txn_view(txn), class, ref);

    return object ? &object->fields[field] : NULL;
}

static const struct value *map_find(const struct value *map, const struct value *key)
{
    for (uint32_t i = 0; i < map->length; i++)
        if (value_equal(&map->items[2 * i], key))
            return &map->items[2 * i + 1];
    return NULL;
}

int field_add_to(struct call *call, const struct class *class, ref_t ref, int field,
                 struct value key, struct value value)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct value *map = field_of(call, txn, class, ref, field);

    if (!map)
        return -ERR_HANDLE_INVALID;
    if (map_find(map, &key)) {
        const char *text = key.kind == KIND_ENUM ? enum_text(key.e.type, key.e.index) : key.text;

        return fail(call, MAP_DUPLICATE_KEY, class->name, class->fields[field].name,
                    ref_text(call, ref), text);
    }
    txn_put(txn, class, ref, field, value_map_with(call->arena, map, &key, &value));
    return call_commit(call, &txn);
}

int field_remove_from(struct call *call, const struct class *class, ref_t ref, int field,
                      struct value key)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct value *map = field_of(call, txn, class, ref, field);

    if (!map)
        return -ERR_HANDLE_INVALID;
    txn_put(txn, class, ref, field, value_map_without(call->arena, map, &key));
    return call_commit(call, &txn);
}

int field_add(struct call *call, const struct class *class, ref_t ref, int field,
              struct value member)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct value *set = field_of(call, txn, class, ref, field);

    if (!set)
        return -ERR_HANDLE_INVALID;
    txn_put(txn, class, ref, field, value_set_with(call->arena, set, &member));
    return call_commit(call, &txn);
}

int field_remove(struct call *call, const struct class *class, ref_t ref, int field,
                 struct value member)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct value *set = field_of(call, txn, class, ref, field);

    if (!set)
        return -ERR_HANDLE_INVALID;
    txn_put(txn, class, ref, field, value_set_without(call->arena, set, &member));
    return call_commit(call, &txn);
}

/* ---- drafts ---- */

static struct object *draft_empty(struct arena *arena, const struct class *class)
{
    struct object *draft =
        arena_alloc(arena, sizeof *draft + (size_t) class->field_count * sizeof draft->fields[0]);

    draft->class = class;
    return draft;
}

struct object *draft_new(struct arena *arena, const struct class *class)
{
    struct object *draft = draft_empty(arena, class);

    for (int i = 0; i < class->field_count; i++)
        draft->fields[i] = class->fields[i].initial;
    return draft;
}

/* The number of the field uuid; every class with objects has one. */
static int uuid_field(const struct class *class)
{
    const struct field *field = model_field(class, "uuid");

    assert(field);
    return field->number;
}

struct object *draft_of(struct arena *arena, const struct class *class, const struct value *fields)
{
    struct object *draft = draft_new(arena, class);

    for (int i = 0; i < class->field_count; i++)
        if (!(class->fields[i].flags & FIELD_INVERSE) && fields[i].kind != KIND_VOID) {
            draft->fields[i] = fields[i];
            draft->fields[i].is_packed = false; /* the block stays its owner's */
        }
    draft->fields[uuid_field(class)] = value_text("");
    return draft;
}

ref_t draft_create(struct call *call, struct txn *txn, struct object *draft)
{
    struct value *uuid = &draft->fields[uuid_field(draft->class)];

    if (streq(uuid->text, ""))
        *uuid = value_text(uuid_new_text(call));
    draft->ref = ref_new(call->core->random);
    txn_create(txn, draft->class, draft->ref, draft->fields);
    return draft->ref;
}

/* ---- small values ---- */

static struct value text_list(struct arena *arena, va_list args, uint32_t *ret_count)
{
    struct value *items;
    uint32_t count = 0;
    va_list again;

    va_copy(again, args);
    while (va_arg(again, const char *))
        count++;
    va_end(again);
    items = arena_alloc_array(arena, count, sizeof *items);
    for (uint32_t i = 0; i < count; i++)
        items[i] = value_text(va_arg(args, const char *));
    *ret_count = count;
    return VALUE_SET(count, items);
}

struct value text_map(struct arena *arena, ...)
{
    struct value list;
    uint32_t count;
    va_list args;

    va_start(args, arena);
    list = text_list(arena, args, &count);
    va_end(args);
    assert(count % 2 == 0);
    return VALUE_MAP(count / 2, list.items);
}

struct value text_set(struct arena *arena, ...)
{
    struct value list;
    uint32_t count;
    va_list args;

    va_start(args, arena);
    list = text_list(arena, args, &count);
    va_end(args);
    return list;
}

struct value map_with_text(struct arena *arena, const struct value *map, const char *key,
                           const char *value)
{
    struct value key_value = value_text(key), text = value_text(value);

    return value_map_with(arena, map, &key_value, &text);
}

struct value map_without_text(struct arena *arena, const struct value *map, const char *key)
{
    struct value key_value = value_text(key);

    return value_map_without(arena, map, &key_value);
}

const char *uuid_new_text(struct call *call)
{
    char text[UUID_TEXT_BYTES];

    return arena_strdup(call->arena, uuid_print(text, ref_new(call->core->random)));
}

int uuid_wanted(struct call *call, const char *text, const char **ret_uuid)
{
    char canonical[UUID_TEXT_BYTES];
    ref_t uuid;

    if (streq(text, "")) {
        *ret_uuid = uuid_new_text(call);
        return 0;
    }
    if (!uuid_parse(text, strlen(text), &uuid))
        return fail(call, INVALID_VALUE, "uuid", text);
    *ret_uuid = arena_strdup(call->arena, uuid_print(canonical, uuid));
    return 0;
}

const struct object *pool_object(const struct view *view)
{
    struct view_iter pools;

    view_each(&pools, view, CLASS_OF(pool));
    return view_next(&pools);
}
