/* slave_stubs.c - slave_vm_start() and all the others: each a row handed to slave_call() */
#include "master/slaves.h"

#define SLAVE_CALL(name, deadline_ms, effect, result, args)                                        \
    int slave_##name(struct call *call, ref_t host, const struct slave_##name##_args *arguments,   \
                     struct value *ret)                                                            \
    {                                                                                              \
        return slave_call(call, host, SLAVE_CALL_##name, arguments, ret);                          \
    }
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL
