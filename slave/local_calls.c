/* local_calls.c - the calls for a host in need */
#include "slave/local_calls.h"

#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/model.h"
#include "shared/passwords.h"
#include "shared/system_status.h"
#include "slave/accounts.h"
#include "slave/agent.h"
#include "slave/local_sessions.h"
#include "slave/reset_master.h"
#include "slave/standing.h"

/* At once: those who guess wait for their answers, and the agent's fibers are for the master's orders. */
#define CALLS_MAX  64
/* Of these, logins: whoever has a session is served, however many guess. */
#define LOGINS_MAX 48

struct local_calls {
    struct local_calls_config config;
    struct agent *agent;
    struct local_sessions *sessions;
    struct passwords *passwords;
    struct local_call *first;       /* not answered yet */
    unsigned count, login_count;
};

#define call_fail(call, code, ...) failure_set(&(call)->failure, (call)->arena, code, ##__VA_ARGS__)

/* ---- logins ---- */

static int open_session(struct local_call *call, const char *user, const char *why_not)
{
    const char *details[] = {user, why_not};

    if (why_not) {
        log_info(NULL, "%s from %s failed: %s", call->bound.name, call->address, why_not);
        return failure_set_text(&call->failure, call->arena, "SESSION_AUTHENTICATION_FAILED", 2, details);
    }
    log_info(NULL, "%s from %s", call->bound.name, call->address);
    call->reply = VALUE_REF(local_sessions_open(call->calls->sessions));
    return 0;
}

static int slave_local_login(struct local_call *call)
{
    const struct session_slave_local_login_args *args = call->bound.args;
    struct local_calls *calls = call->calls;

    return open_session(call, "",
                        passwords_check_secret(calls->passwords, call->address, calls->config.pool_secret,
                                               args->psecret));
}

static int slave_local_login_with_password(struct local_call *call)
{
    const struct session_slave_local_login_with_password_args *args = call->bound.args;
    struct local_calls *calls = call->calls;
    const char *why = NULL;

    if (!call->is_root)
        why = passwords_check(calls->passwords, call->address,
                              accounts_hash(calls->config.ledger, args->uname, call->arena), args->pwd);
    return open_session(call, args->uname, why);
}

/* ---- what can be asked ---- */

static int is_in_emergency_mode(struct local_call *call)
{
    struct standing_now now;

    standing_get(call->calls->config.standing, &now);
    call->reply = VALUE_BOOL(now.kind != STANDING_SLAVE);
    return 0;
}

static int local_assert_healthy(struct local_call *call)
{
    struct standing_now now;

    standing_get(call->calls->config.standing, &now);
    if (now.kind == STANDING_SLAVE)
        return 0;
    standing_failure(&now, call->arena, &call->failure);
    return -call->failure.code;
}

/* ---- what can be done ---- */

static int signal_networking_change(struct local_call *call)
{
    struct agent *agent = call->calls->agent;

    if (!agent)
        return call_fail(call, HOST_STILL_BOOTING);
    agent_link_renew(agent);
    agent_join_renew(agent);
    return 0;
}

static int shutdown_agent(struct local_call *call)
{
    log_info(NULL, "%s from %s: the agent ends, guests run on", call->bound.name, call->address);
    call->calls->config.shut_down(call->calls->config.arg);
    return 0;
}

static int emergency_reset_master(struct local_call *call)
{
    const struct pool_emergency_reset_master_args *args = call->bound.args;
    const struct local_calls_config *config = &call->calls->config;

    if (!call->calls->agent)
        return call_fail(call, HOST_STILL_BOOTING);
    log_info(NULL, "%s from %s", call->bound.name, call->address);
    return reset_master(call->calls->agent, args->master_address, config->has_listeners ? config->address : NULL,
                        call->arena, &call->failure);
}

/* ---- the road of a call, as at the master (master/dispatch.c) ---- */

static int run(struct local_call *call, ref_t session)
{
    const struct method *method = call->bound.method;

    switch (method->number) {
    case METHOD_NUMBER_session_slave_local_login:
        return slave_local_login(call);
    case METHOD_NUMBER_session_slave_local_login_with_password:
        return slave_local_login_with_password(call);
    case METHOD_NUMBER_session_local_logout:
        local_sessions_close(call->calls->sessions, session);
        return 0;
    case METHOD_NUMBER_host_is_in_emergency_mode:
        return is_in_emergency_mode(call);
    case METHOD_NUMBER_host_local_assert_healthy:
        return local_assert_healthy(call);
    case METHOD_NUMBER_pool_is_slave:
        call->reply = VALUE_BOOL(true);
        return 0;
    case METHOD_NUMBER_host_get_system_status_capabilities:
        call->reply = value_text(SYSTEM_STATUS_CAPABILITIES);
        return 0;
    case METHOD_NUMBER_host_signal_networking_change:
        return signal_networking_change(call);
    case METHOD_NUMBER_host_shutdown_agent:
        return shutdown_agent(call);
    case METHOD_NUMBER_pool_emergency_reset_master:
        return emergency_reset_master(call);
    default:
        return call_fail(call, NOT_IMPLEMENTED, method->name);
    }
}

static bool is_login(const struct local_call *call)
{
    return call->bound.method->flags & METHOD_NO_SESSION;
}

static int check_and_run(struct local_call *call)
{
    ref_t session = NULL_REF;

    if (call->result < 0 && call->result != -ERR_HANDLE_INVALID)
        return call->result; /* count, types */
    if (!is_login(call) && !local_sessions_use(call->calls->sessions, call->bound.session, &session))
        return call_fail(call, SESSION_INVALID, call->bound.session);
    if (call->result < 0)
        return call->result;
    if (call->bound.is_async)
        return rpc_refuse_async(call->bound.name, call->arena, &call->failure);
    return run(call, session);
}

/* ---- coming and going ---- */

static void unlink_call(struct local_call *call)
{
    struct local_calls *calls = call->calls;

    *(call->before ? &call->before->after : &calls->first) = call->after;
    if (call->after)
        call->after->before = call->before;
    calls->count--;
    calls->login_count -= is_login(call);
}

static void call_main(void *arg)
{
    struct local_call *call = arg;

    call->reply = VALUE_VOID;
    call->result = check_and_run(call);
    unlink_call(call);
    call->answer(call);
}

static void arrive(struct loop_item *item)
{
    struct local_call *call = CONTAINER_OF(item, struct local_call, item);
    struct local_calls *calls = call->calls;

    if (calls->count < CALLS_MAX && (!is_login(call) || calls->login_count < LOGINS_MAX)
        && fiber_spawn(calls->config.loop, call_main, call, call->bound.name)) {
        call->after = calls->first;
        if (calls->first)
            calls->first->before = call;
        calls->first = call;
        calls->count++;
        calls->login_count += is_login(call);
    } else {
        call->result = call_fail(call, TOO_MANY_PENDING_TASKS);
        call->answer(call);
    }
}

static void forget(struct loop_item *item)
{
    local_call_free(CONTAINER_OF(item, struct local_call, item));
}

void local_calls_take(struct local_calls *calls, struct local_call *call)
{
    call->calls = calls;
    call->item = (struct loop_item){.run = arrive, .drop = forget};
    loop_post(calls->config.loop, &call->item);
}

void local_call_free(struct local_call *call)
{
    struct arena *arena = call->arena;

    arena_destroy(&arena); /* the call itself is in it */
}

/* ---- life ---- */

size_t local_calls_sessions(const struct local_calls *calls)
{
    return local_sessions_count(calls->sessions);
}

struct local_calls *local_calls_new(const struct local_calls_config *config)
{
    struct local_calls *calls = new0(struct local_calls);

    calls->config = *config;
    calls->sessions = local_sessions_new(loop_clock(config->loop), config->random);
    calls->passwords = passwords_new(loop_clock(config->loop), config->random, config->workers);
    return calls;
}

void local_calls_start(struct local_calls *calls, struct agent *agent)
{
    calls->agent = agent;
}

void local_calls_destroy(struct local_calls **calls_p)
{
    struct local_calls *calls = TAKE(*calls_p);
    struct local_call *call;

    if (!calls)
        return;
    while ((call = calls->first)) {
        calls->first = call->after;
        local_call_free(call);
    }
    passwords_destroy(&calls->passwords);
    local_sessions_destroy(&calls->sessions);
    free(calls);
}
