/* methods.c - from a METHOD row's number to its handler
 *
 * Each row becomes a small function that gives the arguments their type. A row without a handler
 * does not link. */
#include "master/methods.h"

#define METHOD(class, name, role, acts, async, result, life, flags, args_)                  \
    static int run_##class##_##name(struct call *call, const void *args, struct value *ret) \
    {                                                                                       \
        return class##_##name(call, args, ret);                                             \
    }
#include "shared/model/rows.h"

method_fn *const method_functions[METHOD_COUNT] = {
#define METHOD(class, name, role, acts, async, result, life, flags, args) \
    [METHOD_NUMBER_##class##_##name] = run_##class##_##name,
#include "shared/model/rows.h"
};
