/* emergency.c - at the master, the calls for a host in need (wire.md section 15)
 *
 * They are for hosts that have lost their master, and slaves answer them by themselves (slave/local_calls.h). Asked here they
 * are about the master itself, which is in no need as long as it answers. A local session may make all of them, and any
 * session of the pool with the role of their rows. */
#include "master/handler.h"

#include "master/slaves.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/system_status.h"

/* From host.shutdown_agent to the end: its answer is sent meanwhile. */
#define SHUTDOWN_MS 500

int host_is_in_emergency_mode(struct call *call, const struct host_is_in_emergency_mode_args *args,
                              struct value *ret)
{
    (void) call, (void) args;
    *ret = VALUE_BOOL(false);
    return 0;
}

int host_local_assert_healthy(struct call *call, const struct host_local_assert_healthy_args *args,
                              struct value *ret)
{
    (void) call, (void) args, (void) ret;
    return 0;
}

int host_get_system_status_capabilities(struct call *call,
                                        const struct host_get_system_status_capabilities_args *args,
                                        struct value *ret)
{
    (void) call, (void) args;
    *ret = value_text(SYSTEM_STATUS_CAPABILITIES);
    return 0;
}

/* Links may be dead without anybody having noticed: those that live show it by a hello. */
int host_signal_networking_change(struct call *call,
                                  const struct host_signal_networking_change_args *args,
                                  struct value *ret)
{
    (void) args, (void) ret;
    if (call->core->slaves)
        slaves_ask_hellos(call->core->slaves);
    return 0;
}

static void end_soon(void *arg)
{
    struct core *core = arg;

    fiber_sleep(SHUTDOWN_MS);
    loop_stop(core->loop);
}

/* Here it is the master that ends; the agent of its host, a process of its own, goes on. */
int host_shutdown_agent(struct call *call, const struct host_shutdown_agent_args *args,
                        struct value *ret)
{
    (void) args, (void) ret;
    if (!fiber_spawn(call->core->loop, end_soon, call->core, "shutdown"))
        return fail(call, TOO_MANY_PENDING_TASKS);
    log_info(call->tag, "host.shutdown_agent asked by %s from %s: the master ends",
             *call->caller.user_name ? call->caller.user_name : "nobody by name", call->caller.address);
    return 0;
}

/* Who is master does not become a slave while it is at work: two programs with the roles of one would be there. */
int pool_emergency_reset_master(struct call *call, const struct pool_emergency_reset_master_args *args,
                                struct value *ret)
{
    (void) args, (void) ret;
    return fail(call, OPERATION_NOT_ALLOWED,
                "this is the pool's master: end it first, then ask the agent of its host");
}
