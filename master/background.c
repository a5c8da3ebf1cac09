/* background.c - calls that nobody made */
#include "master/background.h"

#include "master/core.h"
#include "shared/fiber.h"
#include "shared/timers.h"

#define FIBER_RETRY_MS 100

struct background {
    struct call call;
    void (*fn)(struct call *, void *arg);
    void *arg;
    struct timer retry;
};

static void background_main(void *arg)
{
    struct background *background = arg;
    struct arena *arena = background->call.arena;

    background->fn(&background->call, background->arg);
    free(background);
    arena_destroy(&arena);
}

static void background_try(void *arg)
{
    struct background *background = arg;
    struct core *core = background->call.core;
    struct fiber *fiber =
        fiber_spawn(core->loop, background_main, background, background->call.name);

    if (fiber)
        fiber_set_log_tag(fiber, background->call.tag);
    else
        timer_start(core->loop, &background->retry, FIBER_RETRY_MS, background_try, background);
}

void background_run(struct core *core, const char *name, const char *tag,
                    void (*fn)(struct call *, void *arg), void *arg)
{
    struct background *background = new0(struct background);
    struct call *call = &background->call;
    char uuid[UUID_TEXT_BYTES];

    call->core = core;
    call->arena = arena_new();
    call->name = name;
    call->caller = (struct caller){
        .role = ROLE_LOCAL_ROOT,
        .is_pool = true,
        .is_local_superuser = true,
        .user_name = "pool",
        .originator = "pool",
        .address = "local",
    };
    call->tag = *tag ? arena_strdup(call->arena, tag)
                     : arena_text(call->arena, "DummyRef:|%s|%s",
                                  uuid_print(uuid, ref_new(core->random)), name);
    call->started_ms = loop_now_ms(core->loop);
    background->fn = fn;
    background->arg = arg;
    background_try(background);
}
