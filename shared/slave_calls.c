/* slave_calls.c - the rows of slave_calls.def as a table, and arguments between their struct and the wire */
#include "shared/slave_calls.h"

#include <pthread.h>

#include "shared/arena.h"
#include "shared/args.h"
#include "shared/failure.h"

/* The few types that the rows use. */
#define TYPE_(...)      (&(const struct type){__VA_ARGS__})
#define TYPE_STRING     TYPE_(KIND_STRING)
#define TYPE_INT        TYPE_(KIND_INT)
#define TYPE_BOOL       TYPE_(KIND_BOOL)
#define TYPE_STRING_MAP TYPE_(KIND_MAP, .key = TYPE_STRING, .element = TYPE_STRING)
#define TYPE_SET(x)     TYPE_(KIND_SET, .element = TYPE_##x)

#define NO_ARGS
#define ARG(type_, name_) {.name = #name_, .type = TYPE_##type_},
#define SLAVE_CALL(name_, deadline_, effect_, result_, args_)                                      \
    static struct param params_##name_[] = {args_{0}};
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL
#undef ARG
#undef NO_ARGS

#define EFFECT true
#define ASK    false
static struct slave_call rows[SLAVE_CALL_COUNT] = {
#define SLAVE_CALL(name_, deadline_, effect_, result_, args_)                                      \
    {.name = #name_,                                                                               \
     .number = SLAVE_CALL_##name_,                                                                 \
     .deadline_ms = deadline_,                                                                     \
     .has_effect = effect_,                                                                        \
     .shape = {.name = #name_,                                                                     \
               .message = #name_,                                                                  \
               .result = TYPE_##result_,                                                           \
               .params = params_##name_,                                                           \
               .args_bytes = sizeof(struct slave_##name_##_args),                                  \
               .number = -1}},
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL
};
#undef EFFECT
#undef ASK

static struct param *const params[SLAVE_CALL_COUNT] = {
#define SLAVE_CALL(name_, deadline_, effect_, result_, args_) params_##name_,
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL
};

static const char *const names[SLAVE_CALL_COUNT] = {
#define SLAVE_CALL(name_, deadline_, effect_, result_, args_) #name_,
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL
};

/* Counts and offsets, which the rows do not say. An argument is a pointer, an int64_t or a bool. */
static void init_once(void)
{
    for (int i = 0; i < SLAVE_CALL_COUNT; i++) {
        struct method *shape = &rows[i].shape;
        size_t end = 0, align = 1;

        for (struct param *param = params[i]; param->name; param++) {
            size_t bytes = param->type->kind == KIND_BOOL ? sizeof(bool) : sizeof(int64_t);

            end = (end + bytes - 1) / bytes * bytes;
            param->offset = end;
            end += bytes;
            align = MAX(align, bytes);
            shape->param_count++;
        }
        shape->params_required = shape->param_count;
        end = (end + align - 1) / align * align;
        if (end != shape->args_bytes || shape->param_count > SLAVE_CALL_PARAMS_MAX)
            die("slave_calls: arguments of %s do not lie as expected", rows[i].name);
    }
}

static void init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, init_once);
}

const struct slave_call *slave_call_row(int number)
{
    assert(number >= 0 && number < SLAVE_CALL_COUNT);
    init();
    return &rows[number];
}

const struct slave_call *slave_call_find(const char *name)
{
    for (int i = 0; i < SLAVE_CALL_COUNT; i++)
        if (streq(rows[i].name, name))
            return slave_call_row(i);
    return NULL;
}

const char *const *slave_call_names(size_t *ret_count)
{
    *ret_count = SLAVE_CALL_COUNT;
    return names;
}

struct value slave_call_pack(const struct slave_call *row, const void *args, struct arena *arena)
{
    const struct method *shape = &row->shape;
    struct value *items = arena_alloc_array(arena, 2 * (size_t) shape->param_count, sizeof *items);

    for (int i = 0; i < shape->param_count; i++) {
        const struct param *param = &shape->params[i];
        const char *at = (const char *) args + param->offset;
        struct value *value = &items[2 * i + 1];

        items[2 * i] = value_text(param->name);
        switch (param->type->kind) {
        case KIND_STRING:
            *value = value_text(*(const char *const *) at);
            break;
        case KIND_INT:
            *value = VALUE_INT(*(const int64_t *) at);
            break;
        case KIND_BOOL:
            *value = VALUE_BOOL(*(const bool *) at);
            break;
        default:
            *value = **(const struct value *const *) at;
        }
    }
    return VALUE_MAP((uint32_t) shape->param_count, items);
}

int slave_call_bind(const struct slave_call *row, const struct value *map, struct arena *arena, void *args,
                    struct failure *failure)
{
    const struct method *shape = &row->shape;
    struct value raw[SLAVE_CALL_PARAMS_MAX];
    struct value *values = arena_alloc_array(arena, SLAVE_CALL_PARAMS_MAX, sizeof *values);

    for (int i = 0; i < shape->param_count; i++) {
        const struct value *value = map->kind == KIND_MAP ? value_map_find(map, shape->params[i].name) : NULL;

        if (!value)
            return failure_set(failure, arena, FIELD_TYPE_ERROR, shape->params[i].name);
        raw[i] = *value;
    }
    return args_bind(shape, raw, (unsigned) shape->param_count, arena, args, values, failure);
}

int slave_call_check_result(const struct slave_call *row, const struct value *raw, struct arena *arena,
                            struct value *ret, struct failure *failure)
{
    return value_type_check(row->shape.result, raw, row->name, PLACE_MEMBER, arena, ret, failure);
}
