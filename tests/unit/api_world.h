/* api_world.h - for tests of handlers: a store, a pool of two hosts with a shared and a local SR,
 * and slaves that are functions of this file
 *
 * A handler runs as a fiber, as in the master, until everything has come to rest. Slave calls are
 * written down in world.calls ("disk_create h1 <location>"); they answer with the little truth that
 * handlers rely on, or fail when world.fail_call names them. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#undef fail /* cmocka's; ours is of master/call.h */

#include "master/SR.h"
#include "master/VM.h"
#include "master/claim.h"
#include "master/enrol.h"
#include "master/room.h"
#include "master/slaves.h"
#include "shared/args.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "shared/random.h"

struct world {
    struct fake_clock clock;
    struct seeded_random seeded;
    struct loop *loop;
    struct arena *arena;
    struct core core;
    struct failure failure; /* of the last handler that failed */
    char calls[4096];       /* slave calls since calls_clear() */
    const char *fail_call;  /* this slave call fails, */
    int fail_after;         /* after so many that succeed */
    ref_t h1, h2, shared, local;
};

static struct world *the_world; /* for the slaves */

#define GIVE_UP(...)              \
    do {                          \
        print_error(__VA_ARGS__); \
        assert_true(false);       \
    } while (0)

/* ---- slaves ---- */

static const char *call_subject(struct world *world, int number, const void *args)
{
    switch (number) {
    case SLAVE_CALL_disk_create:
        return ((const struct slave_disk_create_args *) args)->format;
    case SLAVE_CALL_vbd_plug:
        return value_map_text(((const struct slave_vbd_plug_args *) args)->disk, "device", "");
    case SLAVE_CALL_vbd_unplug:
        return ((const struct slave_vbd_unplug_args *) args)->device;
    case SLAVE_CALL_vif_plug:
        return value_map_text(((const struct slave_vif_plug_args *) args)->nic, "bridge", "");
    case SLAVE_CALL_cd_change:
        return value_map_text(((const struct slave_cd_change_args *) args)->disk, "location",
                              "nothing");
    case SLAVE_CALL_vm_set_memory:
        return arena_text(
            world->arena, "%lld",
            (long long) ((const struct slave_vm_set_memory_args *) args)->target_bytes);
    default:
        return "";
    }
}

static struct value disk_answer(struct world *world, const char *location, int64_t size)
{
    return text_map(world->arena, "location", location, "format", "raw", "virtual_size",
                    arena_text(world->arena, "%lld", (long long) size), "physical_utilisation",
                    "4096", NULL);
}

static int slave_answers(struct call *call, ref_t host, int number, const void *args,
                         struct value *ret)
{
    struct world *world = the_world;
    const char *name = slave_call_row(number)->name;
    size_t used = strlen(world->calls);
    struct value answer = VALUE_EMPTY_MAP;

    fiber_yield(); /* as a real one would let others run */
    snprintf(world->calls + used, sizeof world->calls - used, "%s %s %s\n", name,
             ref_equal(host, world->h1)   ? "h1"
             : ref_equal(host, world->h2) ? "h2"
                                          : "?",
             call_subject(world, number, args));
    if (world->fail_call && streq(world->fail_call, name) && world->fail_after-- == 0)
        return fail(call, INTERNAL_ERROR, "the slave says no");
    switch (number) {
    case SLAVE_CALL_disk_create: {
        const struct slave_disk_create_args *create = args;

        answer = disk_answer(world, create->location, create->virtual_size);
        break;
    }
    case SLAVE_CALL_disk_clone:
        answer =
            disk_answer(world, ((const struct slave_disk_clone_args *) args)->location, 8 << 20);
        break;
    case SLAVE_CALL_disk_copy:
        answer =
            disk_answer(world, ((const struct slave_disk_copy_args *) args)->location, 8 << 20);
        break;
    case SLAVE_CALL_disk_resize: {
        const struct slave_disk_resize_args *resize = args;

        answer = disk_answer(world, resize->location, resize->virtual_size);
        break;
    }
    case SLAVE_CALL_sr_scan: {
        struct value *files = arena_alloc_array(world->arena, 1, sizeof *files);

        files[0] = disk_answer(world, "found.iso", 700 << 20);
        answer = VALUE_SET(1, files);
        break;
    }
    case SLAVE_CALL_sr_stat:
        answer = text_map(world->arena, "physical_size", "1000000000", "physical_utilisation",
                          "5000000", NULL);
        break;
    }
    if (ret)
        *ret = answer;
    return 0;
}

#define SLAVE_CALL(name, deadline_ms, effect, result, args_)                                \
    int slave_##name(struct call *call, ref_t host, const struct slave_##name##_args *args, \
                     struct value *ret)                                                     \
    {                                                                                       \
        return slave_answers(call, host, SLAVE_CALL_##name, args, ret);                     \
    }
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL

_unused_ static void calls_clear(struct world *world)
{
    world->calls[0] = '\0';
}

/* ---- running handlers ---- */

typedef int any_handler(struct call *, const void *, struct value *);

struct running {
    struct world *world;
    any_handler *handler;
    const void *args;
    struct call call;
    struct value ret;
    int r;
    bool is_done;
};

static void run_fiber(void *arg)
{
    struct running *running = arg;

    running->r = running->handler(&running->call, running->args, &running->ret);
    running->is_done = true;
}

static void rest(struct world *world)
{
    while (loop_step(world->loop))
        ;
}

static int begin_handler(struct world *world, struct running *running, any_handler *handler,
                         const void *args)
{
    static int number;

    *running = (struct running){
        .world = world,
        .handler = handler,
        .args = args,
        .call = {.core = &world->core,
                 .arena = world->arena,
                 .name = "test",
                 .tag = arena_text(world->arena, "DummyRef:|%d|test", number++)},
    };
    assert_non_null(fiber_spawn(world->loop, run_fiber, running, "test"));
    rest(world);
    return running->is_done;
}

static int run_handler(struct world *world, any_handler *handler, const void *args,
                       struct value *ret)
{
    struct running running;

    assert_true(begin_handler(world, &running, handler, args));
    world->failure = running.call.failure;
    if (running.r < 0)
        assert_int_equal(running.r, -world->failure.code);
    if (ret)
        *ret = running.ret;
    return running.r;
}

/* CALL (world, &ret, VM_clone, .vm = vm, .new_name = "x") */
#define CALL(world, ret, handler, ...) \
    run_handler((world), (any_handler *) (handler), &(struct handler##_args){__VA_ARGS__}, (ret))

/* The last handler failed with this code and these details. */
#define FAILED(world, code_, ...)                                                \
    do {                                                                         \
        const char *const expected_[] = {#code_, ##__VA_ARGS__};                 \
        assert_string_equal((world)->failure.text, expected_[0]);                \
        assert_int_equal((world)->failure.count, ARRAY_SIZE(expected_) - 1);     \
        for (unsigned i_ = 1; i_ < ARRAY_SIZE(expected_); i_++)                  \
            assert_string_equal((world)->failure.params[i_ - 1], expected_[i_]); \
    } while (0)

/* A constructor's record as a client would send it: names and texts, ended by NULL. */
_unused_ static const struct value *record(struct world *world, const char *method_name, ...)
{
    const struct method *method = model_method(method_name);
    struct value *items = arena_alloc_array(world->arena, 64, sizeof *items);
    struct value *bound = arena_alloc_array(world->arena, 1, sizeof *bound);
    struct value raw;
    const char *name;
    uint32_t count = 0;
    va_list list;

    va_start(list, method_name);
    while ((name = va_arg(list, const char *))) {
        items[2 * count] = value_text(name);
        items[2 * count++ + 1] = va_arg(list, struct value);
    }
    va_end(list);
    raw = VALUE_MAP(count, items);
    if (args_bind(method, &raw, 1, world->arena, NULL, bound, &world->failure) < 0)
        GIVE_UP("%s: %s %s", method_name, world->failure.text, world->failure.params[0]);
    return bound;
}

_unused_ static const char *text_of(struct world *world, ref_t ref)
{
    char text[REF_TEXT_BYTES];

    return arena_strdup(world->arena, ref_print(text, ref));
}

#define GET(world, class, ref) view_get(store_core_view((world)->core.store), class, (ref))

/* ---- the pool ---- */

static ref_t add(struct world *world, struct txn *txn, struct object *draft)
{
    struct call call = {.core = &world->core, .arena = world->arena};

    return draft_create(&call, txn, draft);
}

static ref_t add_sr(struct world *world, struct txn *txn, const char *type, bool is_shared)
{
    struct object *sr = draft_new(world->arena, CLASS_OF(SR));

    sr->fields[F_SR_type] = value_text(type);
    sr->fields[F_SR_name_label] = value_text(type);
    sr->fields[F_SR_shared] = VALUE_BOOL(is_shared);
    return add(world, txn, sr);
}

static void add_pbd(struct world *world, struct txn *txn, ref_t host, ref_t sr)
{
    struct object *pbd = draft_new(world->arena, CLASS_OF(PBD));

    pbd->fields[F_PBD_host] = VALUE_REF(host);
    pbd->fields[F_PBD_SR] = VALUE_REF(sr);
    pbd->fields[F_PBD_currently_attached] = VALUE_BOOL(true);
    pbd->fields[F_PBD_device_config] = text_map(world->arena, "location", "/srv", NULL);
    add(world, txn, pbd);
}

static void world_fill(struct world *world)
{
    struct value about = text_map(world->arena, "name", "one", "address", "10.0.0.1",
                                  "memory_bytes", "17179869184", "cpus", "4", NULL);
    struct value about2 = text_map(world->arena, "name", "two", "address", "10.0.0.2",
                                   "memory_bytes", "17179869184", "cpus", "4", NULL);
    struct txn *txn = store_begin(world->core.store);

    world->core.pool = add(world, txn, draft_new(world->arena, CLASS_OF(pool)));
    store_apply(&txn);
    pool_furnish(&world->core);
    world->h1 = host_enrol(&world->core, ref_new(world->core.random), "key1", &about, NULL);
    world->h2 = host_enrol(&world->core, ref_new(world->core.random), "key2", &about2, NULL);
    world->core.host = world->h1;
    txn = store_begin(world->core.store);
    world->shared = add_sr(world, txn, "shared-file", true);
    world->local = add_sr(world, txn, "file", false);
    add_pbd(world, txn, world->h1, world->shared);
    add_pbd(world, txn, world->h2, world->shared);
    add_pbd(world, txn, world->h2, world->local);
    pool_put_default_SR(txn, world->core.pool, world->shared);
    pool_put_master(txn, world->core.pool, world->h1);
    store_apply(&txn);
}

static void world_init(struct world *world)
{
    model_init();
    memset(world, 0, sizeof *world);
    the_world = world;
    log_set_level(LOG_WARNING);
    fake_clock_init(&world->clock, 1000, 1700000000);
    seeded_random_init(&world->seeded, 42);
    world->arena = arena_new();
    world->loop = loop_new(&world->clock.clock);
    world->core.clock = &world->clock.clock;
    world->core.random = &world->seeded.random;
    world->core.loop = world->loop;
    world->core.store = store_new(&world->clock.clock, world->loop);
    world->core.holder = ref_new(world->core.random);
    world->core.claims = claims_new();
    world->core.room = room_new(world->core.store);
    world_fill(world);
}

static void world_done(struct world *world)
{
    claims_destroy(&world->core.claims);
    store_destroy(&world->core.store);
    room_destroy(&world->core.room);
    loop_destroy(&world->loop);
    arena_destroy(&world->arena);
}

/* The default template of that name. */
_unused_ static ref_t template_named(struct world *world, const char *name)
{
    struct view_iter vms;
    const struct object *vm;

    view_each_name(&vms, store_core_view(world->core.store), CLASS_OF(VM), name);
    vm = view_next(&vms);
    assert_non_null(vm);
    return vm->ref;
}

_unused_ static size_t count_of(struct world *world, const struct class *class)
{
    return view_count(store_core_view(world->core.store), class);
}

/* As if a host ran it. */
_unused_ static void make_running(struct world *world, ref_t vm, ref_t host)
{
    struct txn *txn = store_begin(world->core.store);

    VM_put_power_state(txn, vm, vm_power_state_Running);
    VM_put_resident_on(txn, vm, host);
    VM_put_domid(txn, vm, 7);
    VM_put_epoch(txn, vm, 3);
    store_apply(&txn);
}
