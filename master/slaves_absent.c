/* slaves_absent.c - until the link to the slaves stands: every host is away
 *
 * slaves.c takes this file's place, and then it goes. */
#include "master/slaves.h"

static int away(struct call *call, ref_t host)
{
    return fail(call, HOST_OFFLINE, ref_text(call, host));
}

#define SLAVE_CALL(name, deadline_ms, effect, result, args_)                                \
    int slave_##name(struct call *call, ref_t host, const struct slave_##name##_args *args, \
                     struct value *ret)                                                     \
    {                                                                                       \
        (void) args, (void) ret;                                                            \
        return away(call, host);                                                            \
    }
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL
