/* args.c - from what a client wrote to typed arguments */
#include "shared/args.h"

#include <errno.h>
#include <stdio.h>

#include "shared/arena.h"
#include "shared/failure.h"
#include "shared/model.h"

/* What the conversion of one parameter carries along. */
struct binding {
    struct arena *arena;
    struct failure *failure;
    const char *name;        /* of the parameter or record member at hand */
    enum value_place place;
};

static int convert(struct binding *b, const struct type *type, const struct value *raw, struct value *ret);

/* ---- errors ---- */

static int wrong_type(struct binding *b)
{
    return failure_set(b->failure, b->arena, FIELD_TYPE_ERROR, b->name);
}

static int wrong_text(struct binding *b, const char *text)
{
    return failure_set(b->failure, b->arena, INVALID_VALUE, b->name, text);
}

/* A value in few words, for an error's detail. */
static const char *describe(struct binding *b, const struct value *value)
{
    char text[MAX(REF_TEXT_BYTES, DATETIME_TEXT_BYTES)];

    switch ((enum kind) value->kind) {
    case KIND_STRING:
        return value->text;
    case KIND_INT:
        return arena_text(b->arena, "%lld", (long long) value->i);
    case KIND_FLOAT:
        return arena_text(b->arena, "%.16g", value->f);
    case KIND_BOOL:
        return value->b ? "true" : "false";
    case KIND_DATETIME:
        return arena_strdup(b->arena, datetime_print(text, value->i));
    case KIND_ENUM:
        return enum_text(value->e.type, value->e.index);
    case KIND_REF:
        return arena_strdup(b->arena, ref_print(text, value->ref));
    default:
        return "";
    }
}

/* ---- scalars ---- */

static int convert_string(struct binding *b, const struct type *type, const struct value *raw, struct value *ret)
{
    if (raw->kind != KIND_STRING)
        return wrong_type(b);
    *ret = *raw;
    if (text_is_xml(raw->text, raw->length))
        return 0;
    if (b->place != PLACE_CTOR || !text_is_utf8(raw->text, raw->length))
        return failure_set(b->failure, b->arena, INVALID_VALUE, "Invalid UTF-8 string in parameter",
                           type->is_secret ? "" : raw->text);
    /* A new object's texts end before the first character that XML cannot carry (wire.md section 2). */
    ret->length = (uint32_t) text_good_length(raw->text, raw->length, true);
    ret->text = arena_dup(b->arena, raw->text, ret->length);
    return 0;
}

/* A whole decimal number that fits, nothing else. */
static bool parse_int(const char *text, int64_t *ret)
{
    const char *digits = text + (*text == '-' || *text == '+');
    char *end;

    if (*digits < '0' || *digits > '9')
        return false;
    errno = 0;
    *ret = strtoll(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static int convert_int(struct binding *b, const struct value *raw, struct value *ret)
{
    int64_t number;

    if (raw->kind == KIND_INT) {
        *ret = VALUE_INT(raw->i);
        return 0;
    }
    if (raw->kind != KIND_STRING)
        return wrong_type(b);
    if (!parse_int(raw->text, &number))
        return wrong_text(b, raw->text);
    *ret = VALUE_INT(number);
    return 0;
}

static int convert_float(struct binding *b, const struct value *raw, struct value *ret)
{
    if (raw->kind == KIND_FLOAT)
        *ret = VALUE_FLOAT(raw->f);
    else if (raw->kind == KIND_INT)
        *ret = VALUE_FLOAT((double) raw->i);
    else
        return wrong_type(b);
    return 0;
}

static int convert_bool(struct binding *b, const struct value *raw, struct value *ret)
{
    if (raw->kind != KIND_BOOL)
        return wrong_type(b);
    *ret = VALUE_BOOL(raw->b);
    return 0;
}

static int convert_datetime(struct binding *b, const struct value *raw, struct value *ret)
{
    int64_t utc_s;

    if (raw->kind == KIND_DATETIME) {
        *ret = VALUE_DATETIME(raw->i);
        return 0;
    }
    if (raw->kind != KIND_STRING)
        return wrong_type(b);
    if (!datetime_parse(raw->text, raw->length, &utc_s))
        return wrong_text(b, raw->text);
    *ret = VALUE_DATETIME(utc_s);
    return 0;
}

static int convert_enum(struct binding *b, const struct type *type, const struct value *raw, struct value *ret)
{
    int index;

    if (raw->kind == KIND_ENUM && raw->e.type == type->enum_type) {
        *ret = *raw;
        return 0;
    }
    if (raw->kind != KIND_STRING)
        return wrong_type(b);
    index = enum_index(type->enum_type, raw->text);
    if (index < 0)
        return wrong_text(b, raw->text);
    *ret = (struct value){.kind = KIND_ENUM, .e = {type->enum_type, index}};
    return 0;
}

static int convert_ref(struct binding *b, const struct type *type, const struct value *raw, struct value *ret)
{
    ref_t ref = NULL_REF;

    if (raw->kind == KIND_REF) {
        *ret = VALUE_REF(raw->ref);
        return 0;
    }
    if (raw->kind != KIND_STRING)
        return wrong_type(b);
    if (!ref_parse(raw->text, raw->length, &ref) && (raw->length > 0 || b->place == PLACE_PARAMETER))
        return failure_set(b->failure, b->arena, HANDLE_INVALID, type->class->name, raw->text);
    *ret = VALUE_REF(ref);
    return 0;
}

/* ---- sets, maps, records ---- */

/* Where the items of a set or map, the members of a record stand. */
static enum value_place place_inside(const struct binding *b)
{
    return b->place == PLACE_PARAMETER ? PLACE_MEMBER : b->place;
}

static int convert_item(struct binding *b, const struct type *type, const struct value *raw, struct value *ret)
{
    struct binding inner = *b;

    inner.place = place_inside(b);
    return convert(&inner, type, raw, ret);
}

/* A set holds each item once; a client that repeats one means the same set. */
static uint32_t drop_repeated(struct value *items, uint32_t count)
{
    uint32_t kept = 0;

    if (!value_find_repeated(items, count, 1))
        return count;
    for (uint32_t i = 0; i < count; i++) {
        struct value before = VALUE_SET(kept, items);

        if (!value_set_has(&before, &items[i]))
            items[kept++] = items[i];
    }
    return kept;
}

/* Sets and maps that need the slow road of drop_repeated() are refused beyond this many items. */
#define REPEATING_ITEMS_MAX 4096

static int convert_set(struct binding *b, const struct type *type, const struct value *raw, struct value *ret)
{
    struct value *items;

    if (raw->kind != KIND_SET)
        return wrong_type(b);
    items = arena_alloc(b->arena, raw->length * sizeof *items);
    for (uint32_t i = 0; i < raw->length; i++) {
        int r = convert_item(b, type->element, &raw->items[i], &items[i]);

        if (r < 0)
            return r;
    }
    if (raw->length > REPEATING_ITEMS_MAX) {
        const struct value *repeated = value_find_repeated(items, raw->length, 1);

        if (repeated)
            return wrong_text(b, describe(b, repeated));
        *ret = VALUE_SET(raw->length, items);
        return 0;
    }
    *ret = VALUE_SET(drop_repeated(items, raw->length), items);
    return 0;
}

static int convert_map(struct binding *b, const struct type *type, const struct value *raw, struct value *ret)
{
    const struct value *repeated;
    struct value *items;

    if (raw->kind != KIND_MAP)
        return wrong_type(b);
    items = arena_alloc(b->arena, 2 * (size_t) raw->length * sizeof *items);
    for (uint32_t i = 0; i < 2 * raw->length; i++) {
        int r = convert_item(b, i % 2 ? type->element : type->key, &raw->items[i], &items[i]);

        if (r < 0)
            return r;
    }
    repeated = value_find_repeated(items, raw->length, 2);
    if (repeated)
        return wrong_text(b, describe(b, repeated));
    *ret = VALUE_MAP(raw->length, items);
    return 0;
}

/* What a record's field is when its member is missing. */
static int convert_missing(struct binding *b, const struct field *field, struct value *ret)
{
    if (field->type->kind == KIND_ENUM && !field->default_text) {
        b->name = field->name;
        return wrong_text(b, "");
    }
    *ret = field->initial;
    return 0;
}

static int convert_record(struct binding *b, const struct type *type, const struct value *raw, struct value *ret)
{
    const struct class *class = type->class;
    bool is_ctor = b->place == PLACE_CTOR;
    struct value *fields;

    if (raw->kind == KIND_RECORD && (!class || raw->record.class == class)) {
        *ret = *raw;
        return 0;
    }
    if (raw->kind != KIND_MAP || !class)
        return wrong_type(b);
    if (raw->length > RECORD_MEMBERS_MAX)
        return wrong_text(b, "too many members");
    fields = arena_alloc(b->arena, (size_t) class->field_count * sizeof *fields);
    for (int i = 0; i < class->field_count; i++) {
        const struct field *field = &class->fields[i];
        bool is_ours = field->flags & (FIELD_INTERNAL | FIELD_INVERSE) || (is_ctor && field->qualifier == QUALIFIER_RO);
        const struct value *member = is_ours ? NULL : value_map_find(raw, field->name);
        struct binding inner = {b->arena, b->failure, field->name, place_inside(b)};
        int r = 0;

        if (is_ours)
            fields[i] = field->initial;
        else if (!member || member->kind == KIND_NIL)
            r = convert_missing(&inner, field, &fields[i]);
        else
            r = convert(&inner, field->type, member, &fields[i]);
        if (r < 0)
            return r;
    }
    *ret = (struct value){.kind = KIND_RECORD, .record = {class, fields}};
    return 0;
}

static int convert(struct binding *b, const struct type *type, const struct value *raw, struct value *ret)
{
    switch (type->kind) {
    case KIND_STRING:
        return convert_string(b, type, raw, ret);
    case KIND_INT:
        return convert_int(b, raw, ret);
    case KIND_FLOAT:
        return convert_float(b, raw, ret);
    case KIND_BOOL:
        return convert_bool(b, raw, ret);
    case KIND_DATETIME:
        return convert_datetime(b, raw, ret);
    case KIND_ENUM:
        return convert_enum(b, type, raw, ret);
    case KIND_REF:
        return convert_ref(b, type, raw, ret);
    case KIND_SET:
        return convert_set(b, type, raw, ret);
    case KIND_MAP:
        return convert_map(b, type, raw, ret);
    case KIND_RECORD:
        return convert_record(b, type, raw, ret);
    case KIND_VOID:
    case KIND_NIL:
        break;
    }
    return wrong_type(b);
}

int value_type_check(const struct type *type, const struct value *raw, const char *name, enum value_place place,
                     struct arena *arena, struct value *ret, struct failure *failure)
{
    struct binding binding = {arena, failure, name, place};

    return convert(&binding, type, raw, ret);
}

/* ---- calls ---- */

void args_store(const struct method *method, const struct value *values, void *args)
{
    for (int i = 0; i < method->param_count; i++) {
        void *at = (char *) args + method->params[i].offset;
        const struct value *value = &values[i];

        switch (method->params[i].type->kind) {
        case KIND_STRING:
            *(const char **) at = value->text;
            break;
        case KIND_INT:
        case KIND_DATETIME:
            *(int64_t *) at = value->i;
            break;
        case KIND_FLOAT:
            *(double *) at = value->f;
            break;
        case KIND_BOOL:
            *(bool *) at = value->b;
            break;
        case KIND_ENUM:
            *(int *) at = value->e.index; /* enums are ints with both compilers; model_init checks the layout */
            break;
        case KIND_REF:
            *(ref_t *) at = value->ref;
            break;
        default:
            *(const struct value **) at = value;
        }
    }
}

int args_bind(const struct method *method, const struct value *raw, unsigned raw_count, struct arena *arena,
              void *args, struct value *ret_values, struct failure *failure)
{
    unsigned most = (unsigned) method->param_count, least = (unsigned) method->params_required;
    enum value_place place = method->flags & METHOD_CTOR ? PLACE_CTOR : PLACE_PARAMETER;

    if (raw_count < least || raw_count > most)
        return failure_set(failure, arena, MESSAGE_PARAMETER_COUNT_MISMATCH, method->name,
                           arena_text(arena, "%u", raw_count < least ? least : most),
                           arena_text(arena, "%u", raw_count));
    for (unsigned i = 0; i < most; i++) {
        const struct param *param = &method->params[i];
        int r = 0;

        if (i < raw_count)
            r = value_type_check(param->type, &raw[i], param->name, place, arena, &ret_values[i], failure);
        else
            ret_values[i] = param->initial;
        if (r < 0)
            return r;
    }
    if (args)
        args_store(method, ret_values, args);
    return 0;
}
