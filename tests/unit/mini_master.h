/* mini_master.h - a master without a process: core, store, sessions, tasks, events and dispatch on
 * a fake clock
 *
 *     struct mini mini;
 *     mini_start(&mini, NULL);
 *     assert_int_equal(mini_call(&mini, "pool.get_all", mini.session, 0), 0);
 *
 * Workers run at once, so a call is over when the loop is idle - or waits for the clock, which the
 * test moves. */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>
#undef fail /* the master has one of its own */

#include "master/bootstrap.h"
#include "master/claim.h"
#include "master/dispatch.h"
#include "master/events.h"
#include "master/put.h"
#include "master/room.h"
#include "master/session.h"
#include "master/task.h"
#include "shared/fiber.h"
#include "shared/passwords.h"
#include "shared/random.h"
#include "shared/workers.h"
#include "tests/unit/pass_time.h"

#define MINI_PASSWORD "sesame"

struct mini {
    struct core core;
    struct fake_clock fake;
    struct seeded_random random;
    char session[REF_TEXT_BYTES]; /* of root */
};

/* A call on its way, and what became of it. */
struct mini_call {
    bool is_answered, is_last;
    int r;
    char code[64];
    char text[128]; /* a string or reference that was answered */
};

_unused_ static void mini_run(struct mini *mini)
{
    run_until_idle(mini->core.loop);
}

/* Move the clock on, timer by timer. */
_unused_ static void mini_advance(struct mini *mini, uint64_t ms)
{
    pass_time(mini->core.loop, &mini->fake, ms);
}

static void mini_answered(struct request *request, int r, bool is_last)
{
    struct mini_call *call = request->user;
    const struct value *reply = &request->call.reply;

    call->is_answered = true;
    call->is_last = is_last;
    call->r = r;
    if (r < 0)
        snprintf(call->code, sizeof call->code, "%s", request->call.failure.text);
    else if (reply->kind == KIND_STRING)
        snprintf(call->text, sizeof call->text, "%s", reply->text);
    else if (reply->kind == KIND_REF)
        ref_print(call->text, reply->ref);
    if (is_last)
        request_destroy(&request);
}

/* Strings as parameters, the session first; NULL ends them. From an address. */
_unused_ static void mini_begin_from(struct mini *mini, struct mini_call *call, const char *address,
                                     const char *name, ...)
{
    struct request *request = request_new(mini->core.dispatch);
    struct value *raw = arena_alloc_array(request->call.arena, 16, sizeof *raw);
    va_list texts;
    const char *text;

    *call = (struct mini_call){0};
    va_start(texts, name);
    while ((text = va_arg(texts, const char *)))
        raw[request->raw_count++] = value_text(arena_strdup(request->call.arena, text));
    va_end(texts);
    request->text = arena_strdup(request->call.arena, name);
    request->raw = raw;
    request->call.caller = (struct caller){.user_name = "", .originator = "", .address = address};
    request->answer = mini_answered;
    request->user = call;
    dispatch(request);
}
#define mini_begin(mini, call, ...) \
    mini_begin_from((mini), (call), "192.0.2.1", __VA_ARGS__, (char *) NULL)

/* Until it is answered or waits for the clock. */
#define mini_call(mini, call, ...)               \
    do {                                         \
        mini_begin((mini), (call), __VA_ARGS__); \
        mini_run(mini);                          \
    } while (0)

/* The rest of the start, on the clock that the core has. */
_unused_ static void mini_boot(struct mini *mini, const struct dispatch_limits *calls,
                               const struct session_limits *sessions,
                               const struct task_limits *tasks)
{
    struct bootstrap first = {.pool_name = "mini",
                              .host_name = "mini",
                              .host_address = "127.0.0.1",
                              .root_password = MINI_PASSWORD};
    struct core *core = &mini->core;
    struct mini_call login;

    core->loop = loop_new(core->clock);
    loop_set_limits(core->loop, &(struct loop_limits){.fibers_max = 256});
    core->workers = workers_new(0, "mini");
    core->store = store_new(core->clock, core->loop);
    core->epoch = 1;
    store_load_end(core->store, 1, 0);
    core->claims = claims_new();
    core->room = room_new(core->store);
    assert_int_equal(bootstrap(core, &first), 0);
    core->passwords = passwords_new(core->clock, core->random, core->workers);
    core->sessions = sessions_new(core, sessions, "pool secret");
    core->tasks = tasks_new(core, tasks);
    tasks_recover(core);
    core->events = events_new(core);
    core->dispatch = dispatch_new(core, calls);
    mini_call(mini, &login, "session.login_with_password", "root", MINI_PASSWORD);
    assert_true(login.is_answered);
    assert_int_equal(login.r, 0);
    strcpy(mini->session, login.text);
}

_unused_ static void mini_start_with(struct mini *mini, const struct dispatch_limits *calls,
                                     const struct session_limits *sessions,
                                     const struct task_limits *tasks)
{
    model_init();
    *mini = (struct mini){0};
    fake_clock_init(&mini->fake, 1000000, 1700000000);
    seeded_random_init(&mini->random, 1);
    mini->core.clock = &mini->fake.clock;
    mini->core.random = &mini->random.random;
    mini_boot(mini, calls, sessions, tasks);
}

_unused_ static void mini_start(struct mini *mini)
{
    mini_start_with(
        mini, &(struct dispatch_limits){.fibers_max = 64, .queue_max = 64, .tasks_max = 64},
        &(struct session_limits) SESSION_LIMITS_DEFAULT, &(struct task_limits) TASK_LIMITS_DEFAULT);
}

/* On the machine's clock and random numbers, for tests whose core runs in a thread. */
_unused_ static void mini_start_real(struct mini *mini)
{
    model_init();
    *mini = (struct mini){0};
    mini->core.clock = clock_real();
    mini->core.random = random_real();
    mini_boot(mini, &(struct dispatch_limits){.fibers_max = 64, .queue_max = 64, .tasks_max = 64},
              &(struct session_limits) SESSION_LIMITS_DEFAULT,
              &(struct task_limits) TASK_LIMITS_DEFAULT);
}

_unused_ static void mini_stop(struct mini *mini)
{
    struct core *core = &mini->core;

    mini_run(mini);
    dispatch_destroy(&core->dispatch);
    workers_destroy(&core->workers);
    events_destroy(&core->events);
    tasks_destroy(&core->tasks);
    sessions_destroy(&core->sessions);
    passwords_destroy(&core->passwords);
    loop_destroy(&core->loop);
    claims_destroy(&core->claims);
    store_destroy(&core->store);
    room_destroy(&core->room);
}

/* The one row of a class, or NULL. */
#define mini_get(mini, class, text)                                      \
    ({                                                                   \
        ref_t mini_ref_ = NULL_REF;                                      \
        ref_parse((text), strlen(text), &mini_ref_);                     \
        view_get(store_core_view((mini)->core.store), class, mini_ref_); \
    })
