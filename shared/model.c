/* model.c - the rows of model/ *.def as tables
 *
 * The rows give flat tables of fields, parameters and messages, in the order of the files. model_init() cuts
 * them up by class, parses the defaults, ties each inverse set to the references it is derived from, and adds
 * the derived messages of wire.md section 9. Afterwards nothing here changes any more, so every thread may read. */
#include "shared/model.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>

#include "shared/arena.h"

/* ---- the rows ---- */

#define V(constant, text, life) text,
#define ENUM(name, values) static const char *const texts_##name[] = {values};
#include "shared/model/enums.def"
#undef ENUM
#undef V

#define V(constant, text, life) life,
#define ENUM(name, values) static const char *const lives_##name[] = {values};
#include "shared/model/enums.def"
#undef ENUM
#undef V

#define V(constant, text, life)
#define ENUM(name, values)                                                                         \
    const struct enum_type enum_type_##name = {#name, ARRAY_SIZE(texts_##name), texts_##name,      \
                                               lives_##name};
#include "shared/model/enums.def"
#undef ENUM
#undef V

struct class model_classes[CLASS_COUNT] = {
#define CLASS(name_, life_, flags_)                                                                \
    {.name = #name_, .number = CLASS_NUMBER_##name_, .life = life_, .flags = (flags_)},
#include "shared/model/rows.h"
};

/* Types are compound literals at file scope: constants with static storage. */
#define TYPE_(...)       (&(const struct type){__VA_ARGS__})
#define TYPE_VOID        TYPE_(KIND_VOID)
#define TYPE_STRING      TYPE_(KIND_STRING)
#define TYPE_SECRET      TYPE_(KIND_STRING, .is_secret = true)
#define TYPE_INT         TYPE_(KIND_INT)
#define TYPE_FLOAT       TYPE_(KIND_FLOAT)
#define TYPE_BOOL        TYPE_(KIND_BOOL)
#define TYPE_DATETIME    TYPE_(KIND_DATETIME)
#define TYPE_ENUM(e)     TYPE_(KIND_ENUM, .enum_type = &enum_type_##e)
#define TYPE_REF(c)      TYPE_(KIND_REF, .class = CLASS_OF(c))
#define TYPE_RECORD(c)   TYPE_(KIND_RECORD, .class = CLASS_OF(c))
#define TYPE_SET(x)      TYPE_(KIND_SET, .element = TYPE_##x)
#define TYPE_MAP(k, v)   TYPE_(KIND_MAP, .key = TYPE_##k, .element = TYPE_##v)
#define TYPE_STRING_SET  TYPE_(KIND_SET, .element = TYPE_STRING)
#define TYPE_STRING_MAP  TYPE_(KIND_MAP, .key = TYPE_STRING, .element = TYPE_STRING)
#define TYPE_OPTION(x)   TYPE_##x
#define TYPE_OBJECT      TYPE_(KIND_RECORD)

#define ACCESS_RO        .qualifier = QUALIFIER_RO, .writer = ROLE_LOCAL_ROOT
#define ACCESS_STATIC_RO .qualifier = QUALIFIER_STATIC_RO, .writer = ROLE_LOCAL_ROOT
#define ACCESS_RW(r)     .qualifier = QUALIFIER_RW, .writer = ROLE_##r

/* Defaults, as texts. */
#define NONE    NULL
#define EMPTY   ""
#define NIL_REF "OpaqueRef:NULL"

static struct field all_fields[] = {
#define FIELD(class_, name_, type_, access_, default_, life_, flags_)                              \
    {.name = #name_,                                                                               \
     .class = CLASS_OF(class_),                                                                    \
     .type = TYPE_##type_,                                                                         \
     ACCESS_##access_,                                                                             \
     .default_text = default_,                                                                     \
     .life = life_,                                                                                \
     .flags = (flags_),                                                                            \
     .number = F_##class_##_##name_},
#define INVERSE(class_, name_, other_, field_, life_, flags_)                                      \
    {.name = #name_,                                                                               \
     .class = CLASS_OF(class_),                                                                    \
     .type = TYPE_SET(REF(other_)),                                                                \
     ACCESS_RO,                                                                                    \
     .life = life_,                                                                                \
     .flags = (flags_) | FIELD_INVERSE,                                                            \
     .number = F_##class_##_##name_,                                                               \
     .inverse_class = CLASS_OF(other_),                                                            \
     .inverse_field = F_##other_##_##field_},
#include "shared/model/rows.h"
};

/* Parameters of all messages one after the other; each message's end with a row without a name. */
#define NO_ARGS
#define ARG(type_, name_)                         {.name = #name_, .type = TYPE_##type_},
#define OPT(type_, name_, default_, since_)                                                        \
    {.name = #name_, .type = TYPE_##type_, .default_text = default_, .since = since_},
static struct param all_params[] = {
#define METHOD(class, name, role, acts, async, result, life, flags, args) args {0},
#define LATER(class, name, role, acts, async, result, life, flags, args)  args {0},
#include "shared/model/rows.h"
};

#define ASYNC true
#define SYNC  false
static struct method rows[METHOD_COUNT] = {
#define METHOD_ROW(class_, name_, role_, acts_, async_, result_, life_, flags_)                    \
    {.name = #class_ "." #name_,                                                                   \
     .message = #name_,                                                                            \
     .class = CLASS_OF(class_),                                                                    \
     .kind = METHOD_CUSTOM,                                                                        \
     .role = ROLE_##role_,                                                                         \
     .acts = ACTS_##acts_,                                                                         \
     .is_async = async_,                                                                           \
     .result = TYPE_##result_,                                                                     \
     .life = life_,                                                                                \
     .flags = (flags_),                                                                            \
     .args_bytes = sizeof(struct class_##_##name_##_args),                                         \
     .number = METHOD_NUMBER_##class_##_##name_},
#define METHOD(class, name, role, acts, async, result, life, flags, args)                          \
    METHOD_ROW(class, name, role, acts, async, result, life, flags)
#define LATER(class, name, role, acts, async, result, life, flags, args)                           \
    METHOD_ROW(class, name, role, acts, async, result, life, (flags) | METHOD_LATER)
#include "shared/model/rows.h"
};

static const struct error_row errors[] = {
#define ERROR(code_, life_, params_) {.code = #code_, .life = life_, .params = params_},
#include "shared/model/errors.def"
#undef ERROR
};
static int error_param_counts[ARRAY_SIZE(errors)];
static struct error_row error_rows[ARRAY_SIZE(errors)];

/* ---- what model_init makes of them ---- */

static struct arena *memory;            /* of all of it; lives as long as the process */
static const struct method **methods;   /* sorted by name */
static size_t method_count;
static const struct method **method_table; /* open addressing, by hash of "Class.message" */
static size_t method_table_size;           /* a power of two */

struct value type_zero(const struct type *type)
{
    switch (type->kind) {
    case KIND_STRING:
        return value_text("");
    case KIND_ENUM:
        return (struct value){.kind = KIND_ENUM, .e = {type->enum_type, 0}};
    case KIND_RECORD:
        return VALUE_VOID;
    default:
        return (struct value){.kind = (uint8_t) type->kind};
    }
}

/* The value of a default's text. Sets and maps other than the empty ones are few: one item, one string pair. */
static struct value default_parse(const struct type *type, const char *text)
{
    struct value value = type_zero(type);
    bool ok = true;

    if (!text || streq(text, ""))
        return value;
    switch (type->kind) {
    case KIND_STRING:
        return value_text(text);
    case KIND_INT:
        value.i = strtoll(text, NULL, 10);
        break;
    case KIND_FLOAT:
        value.f = strtod(text, NULL);
        break;
    case KIND_BOOL:
        value.b = streq(text, "true");
        break;
    case KIND_DATETIME:
        ok = datetime_parse(text, strlen(text), &value.i);
        break;
    case KIND_ENUM:
        value.e.index = enum_index(type->enum_type, text);
        ok = value.e.index >= 0;
        break;
    case KIND_REF:
        ok = ref_parse(text, strlen(text), &value.ref);
        break;
    case KIND_SET: {
        /* "[item]": one item */
        char *inner = arena_strdup(memory, text + 1);
        struct value *item = arena_new0(memory, struct value);

        inner[strlen(inner) - 1] = '\0';
        *item = default_parse(type->element, inner);
        value = VALUE_SET(1, item);
        break;
    }
    case KIND_MAP: {
        /* {"key"->"value","key"->"value"}: quoted strings, kept for the life of the process */
        char *rest = arena_strdup(memory, text);
        struct value *items = arena_alloc_array(memory, 16, sizeof *items);
        uint32_t strings = 0;

        for (char *p = strchr(rest, '"'); p && strings < 16; p = strchr(p, '"')) {
            char *end = strchr(p + 1, '"');

            assert(end);
            *end = '\0';
            items[strings++] = value_text(p + 1);
            p = end + 1;
        }
        value = VALUE_MAP(strings / 2, items);
        break;
    }
    default:
        ok = false;
    }
    if (!ok)
        die("model: bad default '%s'", text);
    return value;
}

static const char *db_name(const struct field *field)
{
    const char *mark = strchr(field->name, '_');
    size_t length = strlen(field->name);
    char *name;

    if (!(field->flags & (FIELD_NS | FIELD_NS2)))
        return field->name;
    if (field->flags & FIELD_NS2)
        mark = strchr(mark + 1, '_');
    assert(mark);
    name = arena_alloc(memory, length + 2);
    memcpy(name, field->name, (size_t) (mark - field->name));
    name[mark - field->name] = '_';
    strcpy(name + (mark - field->name) + 1, mark);
    return name;
}

static void fields_init(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(all_fields); i++) {
        struct field *field = &all_fields[i];
        struct class *class = &model_classes[field->class->number];

        if (!class->fields)
            class->fields = field;
        assert(field->number == class->field_count && &class->fields[field->number] == field);
        class->field_count++;
        field->db_name = db_name(field);
        field->initial = field->flags & FIELD_INVERSE ? VALUE_VOID
                                                      : default_parse(field->type, field->default_text);
        if (streq(field->name, "name_label"))
            class->name_label = field->number;
    }
    for (size_t i = 0; i < ARRAY_SIZE(all_fields); i++) {
        struct field *inverse = &all_fields[i];

        if (inverse->flags & FIELD_INVERSE) {
            struct field *source = &inverse->inverse_class->fields[inverse->inverse_field];

            assert(!source->told);
            source->told = inverse;
        }
    }
}

static void classes_init(void)
{
    for (int i = 0; i < CLASS_COUNT; i++) {
        char *lower = arena_strdup(memory, model_classes[i].name);

        for (char *p = lower; *p; p++)
            *p = (char) tolower((unsigned char) *p);
        model_classes[i].event_name = lower;
        model_classes[i].name_label = -1;
    }
}

static void type_layout(const struct type *type, size_t *ret_bytes, size_t *ret_align)
{
    switch (type->kind) {
    case KIND_BOOL:
        *ret_bytes = sizeof(bool), *ret_align = _Alignof(bool);
        break;
    case KIND_ENUM:
        *ret_bytes = sizeof(int), *ret_align = _Alignof(int);
        break;
    case KIND_REF:
        *ret_bytes = sizeof(ref_t), *ret_align = _Alignof(ref_t);
        break;
    default:
        *ret_bytes = 8, *ret_align = 8;
    }
}

/* Parameters lie in the argument struct as the C rules lay them out; the total proves it. */
static void params_init(void)
{
    struct param *param = all_params;

    for (int i = 0; i < METHOD_COUNT; i++) {
        struct method *method = &rows[i];
        size_t end = 0, align_max = 1;

        method->params = param;
        for (; param->name; param++) {
            size_t bytes, align;

            type_layout(param->type, &bytes, &align);
            end = (end + align - 1) / align * align;
            param->offset = end;
            end += bytes;
            align_max = MAX(align_max, align);
            method->param_count++;
            if (param->default_text) {
                param->initial = default_parse(param->type, param->default_text);
            } else {
                assert(method->params_required == method->param_count - 1);
                method->params_required++;
            }
        }
        param++;
        end = (end + align_max - 1) / align_max * align_max;
        if (end != method->args_bytes)
            die("model: arguments of %s do not lie as expected", method->name);
        if (strstr(method->life, "removed:"))
            method->flags |= METHOD_REMOVED;
    }
}

/* ---- derived messages ---- */

static size_t hash_name(const char *name)
{
    size_t hash = 5381;

    for (; *name; name++)
        hash = hash * 33 ^ (unsigned char) *name;
    return hash ^ hash >> 15;
}

/* The slot of a name: its message, or the empty place where it belongs. */
static const struct method **method_slot(const char *name)
{
    size_t i = hash_name(name) & (method_table_size - 1);

    while (method_table[i] && !streq(method_table[i]->name, name))
        i = (i + 1) & (method_table_size - 1);
    return &method_table[i];
}

static void method_add(const struct method *method)
{
    const struct method **slot = method_slot(method->name);

    if (*slot)
        return; /* a METHOD row wins over the derived message of that name */
    *slot = method;
    methods[method_count++] = method;
}

static const struct type *type_new(struct type type)
{
    return memcpy(arena_new0(memory, struct type), &type, sizeof type);
}

static struct param *params_of(const struct type *second, const char *second_name, const struct type *third,
                               const char *third_name, const struct class *self)
{
    struct param *params = arena_alloc_array(memory, 4, sizeof *params);
    int n = 0;

    if (self)
        params[n++] = (struct param){.name = "self", .type = type_new((struct type){.kind = KIND_REF, .class = self})};
    if (second)
        params[n++] = (struct param){.name = second_name, .type = second};
    if (third)
        params[n++] = (struct param){.name = third_name, .type = third};
    return params;
}

static const struct type string_type = {.kind = KIND_STRING};
static const struct type void_type = {.kind = KIND_VOID};

static void derive(const struct class *class, enum method_kind kind, const char *prefix, const struct field *field,
                   const struct type *result, struct param *params)
{
    struct method *method = arena_new0(memory, struct method);
    const char *name = arena_text(memory, "%s.%s%s", class->name, prefix, field ? field->name : "");
    bool writes = kind >= METHOD_SET;

    *method = (struct method){
        .name = name,
        .message = strchr(name, '.') + 1,
        .class = class,
        .kind = kind,
        .field = field,
        .role = writes ? field->writer
                : class->flags & CLASS_SECRET ? ROLE_POOL_OPERATOR
                                              : ROLE_READ_ONLY,
        .acts = writes ? ACTS_MASTER : ACTS_READ,
        .result = result,
        .life = field ? field->life : class->life,
        .flags = kind == METHOD_GET_ALL_WHERE || kind == METHOD_GET_ALL_RECORDS_WHERE ? METHOD_HIDDEN : 0,
        .params = params,
        .number = -1,
    };
    while (params[method->param_count].name)
        method->param_count++;
    method->params_required = method->param_count;
    if (strstr(method->life, "removed:"))
        method->flags |= METHOD_REMOVED; /* the record still carries the field, with its default */
    method_add(method);
}

static void derive_class(const struct class *class)
{
    const struct type *ref = type_new((struct type){.kind = KIND_REF, .class = class});
    const struct type *record = type_new((struct type){.kind = KIND_RECORD, .class = class});
    const struct type *refs = type_new((struct type){.kind = KIND_SET, .element = ref});
    const struct type *records = type_new((struct type){.kind = KIND_MAP, .key = ref, .element = record});

    derive(class, METHOD_GET_RECORD, "get_record", NULL, record, params_of(NULL, NULL, NULL, NULL, class));
    derive(class, METHOD_GET_BY_UUID, "get_by_uuid", NULL, ref, params_of(&string_type, "uuid", NULL, NULL, NULL));
    if (class->name_label >= 0 && !(class->flags & CLASS_NO_BY_NAME))
        derive(class, METHOD_GET_BY_NAME_LABEL, "get_by_name_label", NULL, refs,
               params_of(&string_type, "label", NULL, NULL, NULL));
    if (class->flags & CLASS_GET_ALL) {
        derive(class, METHOD_GET_ALL, "get_all", NULL, refs, params_of(NULL, NULL, NULL, NULL, NULL));
        derive(class, METHOD_GET_ALL_RECORDS, "get_all_records", NULL, records,
               params_of(NULL, NULL, NULL, NULL, NULL));
        derive(class, METHOD_GET_ALL_WHERE, "get_all_where", NULL, refs,
               params_of(&string_type, "expr", NULL, NULL, NULL));
        derive(class, METHOD_GET_ALL_RECORDS_WHERE, "get_all_records_where", NULL, records,
               params_of(&string_type, "expr", NULL, NULL, NULL));
    }
    for (int i = 0; i < class->field_count; i++) {
        const struct field *field = &class->fields[i];

        if (field->flags & FIELD_INTERNAL)
            continue;
        derive(class, METHOD_GET, "get_", field, field->type, params_of(NULL, NULL, NULL, NULL, class));
        if (field->qualifier != QUALIFIER_RW)
            continue;
        derive(class, METHOD_SET, "set_", field, &void_type, params_of(field->type, "value", NULL, NULL, class));
        if (field->type->kind == KIND_SET) {
            derive(class, METHOD_ADD, "add_", field, &void_type,
                   params_of(field->type->element, "value", NULL, NULL, class));
            derive(class, METHOD_REMOVE, "remove_", field, &void_type,
                   params_of(field->type->element, "value", NULL, NULL, class));
        } else if (field->type->kind == KIND_MAP) {
            derive(class, METHOD_ADD_TO, "add_to_", field, &void_type,
                   params_of(field->type->key, "key", field->type->element, "value", class));
            derive(class, METHOD_REMOVE_FROM, "remove_from_", field, &void_type,
                   params_of(field->type->key, "key", NULL, NULL, class));
        }
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct method *const *) a)->name, (*(const struct method *const *) b)->name);
}

static void methods_init(void)
{
    size_t most = METHOD_COUNT;

    for (int i = 0; i < CLASS_COUNT; i++)
        most += 8 + 5 * (size_t) model_classes[i].field_count;
    method_table_size = 1024;
    while (method_table_size < 2 * most)
        method_table_size *= 2;
    method_table = arena_alloc_array(memory, method_table_size, sizeof(*method_table));
    methods = arena_alloc_array(memory, most, sizeof(*methods));
    for (int i = 0; i < METHOD_COUNT; i++)
        method_add(&rows[i]);
    for (int i = 0; i < CLASS_COUNT; i++)
        if (model_classes[i].flags & CLASS_IN_DATABASE && !(model_classes[i].flags & (CLASS_INTERNAL | CLASS_ROWS_ONLY)))
            derive_class(&model_classes[i]);
    qsort(methods, method_count, sizeof *methods, by_name);
}

static void errors_init(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        error_rows[i] = errors[i];
        for (const char *p = errors[i].params; *p; p++)
            error_param_counts[i] += p == errors[i].params || p[-1] == ',';
        error_rows[i].param_count = error_param_counts[i];
    }
}

static void init_once(void)
{
    memory = arena_new();
    classes_init();
    fields_init();
    params_init();
    methods_init();
    errors_init();
}

void model_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, init_once);
}

/* ---- lookup ---- */

const struct class *model_class(const char *name)
{
    for (int i = 0; i < CLASS_COUNT; i++)
        if (streq(model_classes[i].name, name))
            return &model_classes[i];
    return NULL;
}

const struct class *model_class_any_case(const char *name, size_t length)
{
    for (int i = 0; i < CLASS_COUNT; i++)
        if (strlen(model_classes[i].name) == length && strncasecmp(model_classes[i].name, name, length) == 0)
            return &model_classes[i];
    return NULL;
}

const struct field *model_field(const struct class *class, const char *name)
{
    for (int i = 0; i < class->field_count; i++)
        if (streq(class->fields[i].name, name) || streq(class->fields[i].db_name, name))
            return &class->fields[i];
    return NULL;
}

const struct method *model_method(const char *name)
{
    const struct method *method = *method_slot(name);
    char dotted[128];

    if (method || strchr(name, '.') || strlen(name) >= sizeof dotted)
        return method;
    /* "VM_get_power_state": class names hold underscores too, so the longest class that fits wins. */
    strcpy(dotted, name);
    for (char *mark = strrchr(dotted, '_'); mark;) {
        *mark = '.';
        method = *method_slot(dotted);
        if (method)
            return method;
        *mark = '_';
        do {
            mark = mark == dotted ? NULL : mark - 1;
        } while (mark && *mark != '_');
    }
    return NULL;
}

const struct method *model_method_row(int number)
{
    assert(number >= 0 && number < METHOD_COUNT);
    return &rows[number];
}

const struct method *const *model_methods(size_t *ret_count)
{
    *ret_count = method_count;
    return methods;
}

const struct error_row *model_error(int code)
{
    assert(code > ERR_NONE_ && code < ERR_END_);
    return &error_rows[code - ERR_NONE_ - 1];
}

int enum_index(const struct enum_type *type, const char *text)
{
    for (int i = 0; i < type->count; i++)
        if (streq(type->texts[i], text))
            return i;
    return -1;
}

size_t type_print(char *out, size_t bytes, const struct type *type)
{
    static const char *const names[] = {
        [KIND_VOID] = "void",   [KIND_STRING] = "string",     [KIND_INT] = "int",
        [KIND_FLOAT] = "float", [KIND_DATETIME] = "datetime", [KIND_BOOL] = "bool",
    };
    char key[128], element[192];

    switch (type->kind) {
    case KIND_ENUM:
        return (size_t) snprintf(out, bytes, "enum %s", type->enum_type->name);
    case KIND_REF:
        return (size_t) snprintf(out, bytes, "ref %s", type->class->name);
    case KIND_RECORD:
        return (size_t) snprintf(out, bytes, "record %s",
                                 type->class ? type->class->name : "of the class named in `class`");
    case KIND_SET:
        type_print(element, sizeof element, type->element);
        return (size_t) snprintf(out, bytes, "set(%s)", element);
    case KIND_MAP:
        type_print(key, sizeof key, type->key);
        type_print(element, sizeof element, type->element);
        return (size_t) snprintf(out, bytes, "map(%s,%s)", key, element);
    default:
        return (size_t) snprintf(out, bytes, "%s", type->is_secret ? "secretstring" : names[type->kind]);
    }
}

const char *role_name(enum role role)
{
    static const char *const names[] = {
        [ROLE_READ_ONLY] = "read-only",         [ROLE_VM_OPERATOR] = "vm-operator",
        [ROLE_VM_ADMIN] = "vm-admin",           [ROLE_VM_POWER_ADMIN] = "vm-power-admin",
        [ROLE_POOL_OPERATOR] = "pool-operator", [ROLE_POOL_ADMIN] = "pool-admin",
        [ROLE_LOCAL_ROOT] = "local-root",
    };

    return names[role];
}
