/* args.h - from what a client wrote to typed arguments
 *
 * A parser knows no schema: it gives strings where enums and references are meant, maps where records are, and
 * integers that may be strings. Here each value gets the type of its row, or the client an error that names
 * what is wrong (wire.md sections 2 to 4):
 *
 *   too few, too many               MESSAGE_PARAMETER_COUNT_MISMATCH [method, expected, received]
 *   another kind of value           FIELD_TYPE_ERROR [name]
 *   text that is no such value      INVALID_VALUE [name, text]
 *   text that is no valid text      INVALID_VALUE ["Invalid UTF-8 string in parameter", text]
 *   a reference not in our form     HANDLE_INVALID [class, text]
 *
 * `name` is the parameter's, or the member's inside a record. Whether a reference names a live object is not
 * asked here: no parser and no argument ever needs the store. */
#pragma once

#include "shared/base.h"

struct arena;
struct failure;
struct method;
struct type;
struct value;

/* Members of one struct given for a record; far more than any class has fields. */
#define RECORD_MEMBERS_MAX 1024

/* Bind the arguments of a call.
 *
 *   raw         as parsed, without the session
 *   args        [out] the method's argument struct, method->args_bytes of it; NULL for derived messages
 *   ret_values  [out] the same arguments as typed values, method->param_count of them. Sets, maps and records
 *               in `args` point to them, so they must live as long; texts point into `raw` or the arena.
 *
 * The record of a constructor (METHOD_CTOR) takes only what a client may set: server-maintained fields have their
 * initial values, whatever was given. Returns 0 or a negative error, which is then in `failure`. */
int args_bind(const struct method *method, const struct value *raw, unsigned raw_count, struct arena *arena,
              void *args, struct value *ret_values, struct failure *failure);

/* Store typed values into the argument struct; for values that did not come from a client. */
void args_store(const struct method *method, const struct value *values, void *args);

/* Where a value stands, for what is said about it. */
enum value_place {
    PLACE_PARAMETER, /* the empty string is an error where a reference is meant */
    PLACE_MEMBER,    /* in a record, set or map: there it is the null reference */
    PLACE_CTOR,      /* a constructor's record and what is in it: server-maintained members are ignored, texts
                        that XML cannot carry are cut instead of refused */
};

/* One value: of a derived setter, of a slave call. A typed value passes as it is. The result shares texts with
 * `raw`. Returns 0 or a negative error, which is then in `failure`. */
int value_type_check(const struct type *type, const struct value *raw, const char *name, enum value_place place,
                     struct arena *arena, struct value *ret, struct failure *failure);
