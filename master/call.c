/* call.c - what every handler uses of its call, and the gate through which everything leaves the
 * core */
#include "master/call.h"

#include "master/core.h"
#include "master/store.h"
#include "shared/fiber.h"

const char *ref_text(struct call *call, ref_t ref)
{
    char text[REF_TEXT_BYTES];

    return arena_strdup(call->arena, ref_print(text, ref));
}

const char *int_text(struct call *call, int64_t number)
{
    return arena_text(call->arena, "%lld", (long long) number);
}

const struct view *call_view(struct call *call)
{
    if (call->view)
        return call->view;
    call->depends = MAX(call->depends, store_newest(call->core->store));
    return store_core_view(call->core->store);
}

int call_refuse_write(struct call *call)
{
    return fail(call, OPERATION_NOT_ALLOWED,
                arena_text(call->arena, "the master's disk refuses writes (%s)", call->core->read_only_why));
}

int call_commit(struct call *call, struct txn **txn)
{
    uint64_t dropped = store_dropped(call->core->store), generation = store_apply(txn);

    if (store_dropped(call->core->store) != dropped)
        return call_refuse_write(call);

    call->depends = MAX(call->depends, generation);
#ifndef DROVER_BUG_reply_before_durability
    store_wait_visible(call->core->store, generation);
#endif
    return 0;
}

/* Without HA a master may act as long as it lives. */
bool may_act(const struct core *core)
{
    (void) core;
    return true;
}

void core_emit(struct call *call)
{
#ifndef DROVER_BUG_reply_before_durability
    store_wait_visible(call->core->store, call->depends);
#endif
    if (!may_act(call->core))
        loop_abandon(call->core->loop);
}
