/* slave_calls.h - the calls from master to slave as C types and as a table
 *
 * The rows stand in model/slave_calls.def. Here they become `struct slave_vm_start_args` and a table of {name, deadline,
 * effect, shape}. The two ends make their own of them: master/slaves.h a function to call,
 *     int slave_vm_start(struct call *, ref_t host, const struct slave_vm_start_args *, struct value *ret);
 * and slave/agent.h a function to fill in, whose absence is an error of the linker,
 *     int do_vm_start(struct op *, const struct slave_vm_start_args *, struct value *ret);
 *
 * On the wire arguments are a map by name, so that a later version may add one: who does not know it ignores it. */
#pragma once

#include "shared/model.h"

struct failure;

enum slave_call_number {
#define SLAVE_CALL(name, deadline_ms, effect, result, args) SLAVE_CALL_##name,
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL
    SLAVE_CALL_COUNT,
};

#define NO_ARGS
#define ARG(type, name) CTYPE_##type name;
#define SLAVE_CALL(name, deadline_ms, effect, result, args)                                        \
    struct slave_##name##_args {                                                                   \
        args                                                                                       \
    };
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL
#undef ARG
#undef NO_ARGS

struct slave_call {
    const char *name;
    int number;             /* SLAVE_CALL_x */
    int deadline_ms;        /* how long a caller waits at most, if it has no shorter deadline of its own */
    bool has_effect;
    struct method shape;    /* parameters, argument struct and result, in the form that args_bind() knows */
};

/* The most parameters that a row has. */
#define SLAVE_CALL_PARAMS_MAX 8

const struct slave_call *slave_call_row(int number);
const struct slave_call *slave_call_find(const char *name);    /* NULL when unknown */

/* All names, in the order of the rows: for the crash matrix and docs. */
const char *const *slave_call_names(size_t *ret_count);

/* The argument struct as the map that travels. Texts and items stay the caller's, the map is in the arena. */
struct value slave_call_pack(const struct slave_call *row, const void *args, struct arena *arena);

/* The map as the argument struct: row->shape.args_bytes in `args`. Returns 0 or a negative error, then in `failure`. */
int slave_call_bind(const struct slave_call *row, const struct value *map, struct arena *arena, void *args,
                    struct failure *failure);

/* Is it what the row promises? A result comes from another machine. */
int slave_call_check_result(const struct slave_call *row, const struct value *raw, struct arena *arena,
                            struct value *ret, struct failure *failure);
