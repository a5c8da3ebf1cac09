/* pool_world.h - a master's core above hosts without processes: for the tests of power operations,
 * moves and recovery
 *
 * A pool of three hosts with one VM; store, claims, tasks and handlers are real, and the clock is
 * moved by hand. Calls are made as dispatch.c makes them, each with a task. The master can die and
 * start anew from what is durable. */
#pragma once

#include "fake_slaves.h"
#include "tests/unit/pass_time.h"

/* ---- the master ---- */

/* The disk has everything up to here. */
static void sync_done(void *arg)
{
    (void) arg;
    store_acknowledge(world->core.store, &world->sink, world->appended);
}

static void sink_append(struct store_sink *sink, const struct changes *changes)
{
    if (!changes->is_durable)
        return;
    (void) sink;
    world->appended = changes->generation;
    if (world->is_disk_stopped)
        return;
    if (!world->sync_ms)
        sync_done(NULL);
    else if (!timer_is_running(&world->sync)) /* what comes meanwhile is synced with it */
        timer_start(world->core.loop, &world->sync, world->sync_ms, sync_done, NULL);
}

static void start_master(void)
{
    static const struct task_limits limits = TASK_LIMITS_DEFAULT;
    struct core *core = &world->core;

    world->sink = (struct store_sink){.name = "test", .is_required = true, .append = sink_append};
    store_add_sink(core->store, &world->sink);
    core->claims = claims_new();
    core->room = room_new(core->store);
    core->flows = flows_new(0);
    core->recovery = recovery_new(core);
    core->guests = guests_new(core);
    core->tasks = tasks_new(core, &limits);
    core->slaves = (struct slaves *) world->hosts; /* only the calls of fake_slaves.h take it */
    guests_start(core);
}

static void stop_master(void)
{
    struct core *core = &world->core;

    tasks_destroy(&core->tasks);
    guests_destroy(&core->guests);
    recovery_destroy(&core->recovery);
    flows_destroy(&core->flows);
    claims_destroy(&core->claims);
}

static void new_loop_and_store(void)
{
    world->core.loop = loop_new(&world->clock.clock);
    world->core.store = store_new(&world->clock.clock, world->core.loop);
}

/* Run until nothing happens without time passing. */
static void settle_now(void)
{
    run_until_idle(world->core.loop);
}

/* Let time pass, timers included. */
_unused_ static void pass_ms(uint64_t ms)
{
    pass_time(world->core.loop, &world->clock, ms);
}

/* kill -9 and a new start from what is durable. */
_unused_ static void restart_master(void)
{
    struct store *old = world->core.store;
    struct loop *old_loop = world->core.loop;
    struct view *view;

    if (!world->has_crashed)
        loop_abandon(old_loop);
    timer_stop(&world->sync);
    world->crash_call = -1;
    world->has_crashed = false;
    view = store_pin(old);
    new_loop_and_store();
    for (int c = 0; c < CLASS_COUNT; c++) {
        const struct class *class = &model_classes[c];
        const struct object *object;
        struct view_iter all;

        if (!(class->flags & CLASS_PERSIST))
            continue;
        view_each(&all, view, class);
        while ((object = view_next(&all))) {
            struct value *fields = new0_array(struct value, (size_t) class->field_count);

            for (int i = 0; i < class->field_count; i++)
                if (!(class->fields[i].flags & (FIELD_VOLATILE | FIELD_INVERSE)))
                    fields[i] = object->fields[i];
            assert_int_equal(store_load_object(world->core.store, class, object->ref, fields,
                                               object->created, object->modified),
                             0);
            free(fields);
        }
    }
    store_load_end(world->core.store, ++world->core.epoch, view_generation(view));
    view_unpin(&view);
    {
        struct core kept = world->core;

        world->core.loop = old_loop;
        loop_destroy(&world->core.loop); /* suspended fibers are released, not unwound */
        stop_master();
        room_destroy(&world->core.room);
        store_destroy(&old);
        world->core = kept;
    }
    world->core.holder = ref_new(world->core.random);
    start_master();
    storage_start(&world->core);
    tasks_recover(&world->core);
    recovery_start(&world->core);
    settle_now();
}

/* ---- the pool ---- */

static ref_t new_object(struct txn *txn, const struct class *class)
{
    return txn_create_new(txn, &world->random.random, class, NULL);
}

static ref_t new_disk(struct txn *txn, ref_t sr)
{
    ref_t vdi = new_object(txn, CLASS_OF(VDI));

    VDI_put_SR(txn, vdi, sr);
    VDI_put_managed(txn, vdi, true);
    return vdi;
}

static ref_t new_drive(struct txn *txn, ref_t vm, ref_t vdi, const char *userdevice)
{
    ref_t vbd = new_object(txn, CLASS_OF(VBD));

    VBD_put_VM(txn, vbd, vm);
    VBD_put_VDI(txn, vbd, vdi);
    VBD_put_userdevice(txn, vbd, userdevice);
    VBD_put_mode(txn, vbd, vbd_mode_RW);
    VBD_put_type(txn, vbd, vbd_type_Disk);
    return vbd;
}

/* With a drive of world->vdi. */
static ref_t new_vm(struct txn *txn, const char *name, int64_t memory)
{
    ref_t vm = new_object(txn, CLASS_OF(VM)), vif;

    VM_put_name_label(txn, vm, name);
    VM_put_memory_static_max(txn, vm, memory);
    VM_put_memory_dynamic_max(txn, vm, memory);
    VM_put_memory_dynamic_min(txn, vm, memory);
    VM_put_VCPUs_max(txn, vm, 1);
    VM_put_VCPUs_at_startup(txn, vm, 1);
    VM_put_domid(txn, vm, -1);
    VM_put_actions_after_reboot(txn, vm, on_normal_exit_restart);
    new_drive(txn, vm, world->vdi, "0");
    vif = new_object(txn, CLASS_OF(VIF));
    VIF_put_VM(txn, vif, vm);
    VIF_put_network(txn, vif, world->network);
    VIF_put_device(txn, vif, "0");
    return vm;
}

static void new_host(struct txn *txn, int i)
{
    ref_t host = new_object(txn, CLASS_OF(host)), metrics = new_object(txn, CLASS_OF(host_metrics)),
          pbd, pif;
    struct value zero = VALUE_INT(0), versions = VALUE_SET(1, &zero);
    char name[16];

    snprintf(name, sizeof name, "h%d", i);
    host_put_name_label(txn, host, name);
    host_put_address(txn, host, "127.0.1.1");
    host_put_enabled(txn, host, true);
    host_put_metrics(txn, host, metrics);
    host_put_virtual_hardware_platform_versions(txn, host, &versions);
    host_metrics_put_live(txn, metrics, true);
    host_metrics_put_memory_total(txn, metrics, 4 * GIB);
    pbd = new_object(txn, CLASS_OF(PBD));
    PBD_put_host(txn, pbd, host);
    PBD_put_SR(txn, pbd, world->sr);
    PBD_put_currently_attached(txn, pbd, true);
    pif = new_object(txn, CLASS_OF(PIF));
    PIF_put_host(txn, pif, host);
    PIF_put_network(txn, pif, world->network);
    world->hosts[i].ref = host;
    world->hosts[i].is_linked = true;
}

/* That a type of storage can do what is done with disks here. */
static void new_driver(struct txn *txn, const char *type)
{
    static const char *const features[] = {"VDI_CLONE", "VDI_SNAPSHOT", "VDI_DELETE"};
    ref_t sm = new_object(txn, CLASS_OF(SM));
    struct value items[2 * ARRAY_SIZE(features)], map = VALUE_MAP(ARRAY_SIZE(features), items);

    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        items[2 * i] = value_text(features[i]);
        items[2 * i + 1] = VALUE_INT(1);
    }
    SM_put_type(txn, sm, type);
    SM_put_features(txn, sm, &map);
}

static int world_setup(void **state)
{
    struct txn *txn;

    model_init();
    log_set_level(LOG_ERROR);
    world = new0(struct world);
    *state = world;
    fake_clock_init(&world->clock, 1000, 1700000000);
    seeded_random_init(&world->random, 42);
    world->core.clock = &world->clock.clock;
    world->core.random = &world->random.random;
    world->trouble_call = world->crash_call = world->slow_call = world->trouble_host = -1;
    world->refused_call = -1;
    world->core.epoch = 1;
    world->core.holder = ref_new(world->core.random);
    new_loop_and_store();
    store_load_end(world->core.store, 1, 0);
    start_master();
    txn = store_begin(world->core.store);
    world->core.pool = world->pool = new_object(txn, CLASS_OF(pool));
    world->sr = new_object(txn, CLASS_OF(SR));
    SR_put_shared(txn, world->sr, true);
    SR_put_type(txn, world->sr, "shared-file");
    pool_put_default_SR(txn, world->pool, world->sr);
    new_driver(txn, "shared-file");
    world->vdi = new_disk(txn, world->sr);
    world->network = new_object(txn, CLASS_OF(network));
    for (int i = 0; i < HOSTS; i++)
        new_host(txn, i);
    world->core.host = world->hosts[0].ref;
    pool_put_master(txn, world->pool, world->core.host);
    world->vm = new_vm(txn, "web", GIB);
    store_apply(&txn);
    settle_now();
    return 0;
}

static int world_teardown(void **state)
{
    (void) state;
    loop_abandon(world->core.loop);
    timer_stop(&world->sync);
    settle_now();
    {
        struct loop *loop = world->core.loop;

        loop_destroy(&loop);
    }
    stop_master();
    room_destroy(&world->core.room);
    store_destroy(&world->core.store);
    free(world);
    world = NULL;
    return 0;
}

#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

/* One VM more; what another one has keeps nobody from starting it. */
_unused_ static ref_t new_vm_with_own_disk(const char *name, int64_t memory)
{
    struct txn *txn = store_begin(world->core.store);
    ref_t kept = world->vdi, vm;

    world->vdi = new_disk(txn, world->sr);
    vm = new_vm(txn, name, memory);
    world->vdi = kept;
    store_apply(&txn);
    return vm;
}

/* ---- asking ---- */

static const struct view *model(void)
{
    return store_core_view(world->core.store);
}

static const struct object *vm_now(void)
{
    return view_get(model(), VM, world->vm);
}

_unused_ static const char *vm_uuid(void)
{
    return VM_get_uuid(vm_now());
}

_unused_ static enum vm_power_state power(void)
{
    return VM_get_power_state(vm_now());
}

_unused_ static struct fake_guest *guest_on(int host)
{
    return fake_guest(&world->hosts[host], vm_uuid());
}

_unused_ static int resident(void)
{
    for (int i = 0; i < HOSTS; i++)
        if (ref_equal(VM_get_resident_on(vm_now()), world->hosts[i].ref))
            return i;
    return -1;
}

/* Room by adding up, as room.c must have it. */
_unused_ static void assert_room(void)
{
    for (int i = 0; i < HOSTS; i++) {
        const struct room_host *room = room_host(world->core.room, world->hosts[i].ref);
        int64_t committed = 0;
        struct view_iter vms;
        const struct object *vm;

        view_each(&vms, model(), CLASS_OF(VM));
        while ((vm = view_next(&vms)))
            if (ref_equal(VM_get_resident_on(vm), world->hosts[i].ref)
                || ref_equal(VM_get_scheduled_to_be_resident_on(vm), world->hosts[i].ref))
                committed += vm_memory_need_bytes(vm);
        if (room) {
            assert_int_equal(room->committed_bytes, committed);
        } else {
            assert_int_equal(committed, 0);
        }
    }
}

static void assert_no_half_made_disks(void)
{
    struct view_iter vdis;
    const struct object *vdi;

    view_each(&vdis, model(), CLASS_OF(VDI));
    while ((vdi = view_next(&vdis))) {
        assert_string_equal(VDI_get_maker(vdi), "");
        assert_int_equal(VDI_get_current_operations(vdi)->length, 0);
    }
    assert_int_equal(world->core.left_over_disks, 0);
}

/* Nothing is under way or left behind, and the model says what really runs. */
_unused_ static void assert_quiet(void)
{
    const struct object *vbd;
    struct view_iter vbds;
    int running = 0;

    view_each(&vbds, model(), CLASS_OF(VBD));
    while ((vbd = view_next(&vbds)))
        assert_false(VBD_get_reserved(vbd));
    assert_int_equal(view_count(model(), CLASS_OF(intent)), 0);
    assert_no_half_made_disks();
    assert_int_equal(VM_get_current_operations(vm_now())->length, 0);
    assert_true(ref_is_null(VM_get_scheduled_to_be_resident_on(vm_now())));
    for (int i = 0; i < HOSTS; i++) {
        const struct object *host = view_get(model(), host, world->hosts[i].ref);
        const struct fake_guest *guest = guest_on(i);

        if (host)
            assert_int_equal(host_get_current_operations(host)->length, 0);
        running += streq(guest->state, "running");
        if (!world->hosts[i].is_linked)
            continue;
        if (resident() == i) {
            assert_int_equal(guest->epoch, VM_get_epoch(vm_now()));
            assert_string_equal(guest->state,
                                power() == vm_power_state_Paused ? "paused" : "running");
        } else {
            assert_string_not_equal(guest->state, "running");
            assert_string_not_equal(guest->state, "sent");
            assert_string_not_equal(guest->state, "receiving");
        }
    }
    assert_true(running <= 1);
    assert_int_equal(flows_running(world->core.flows), 0);
    assert_int_equal(flows_waiting(world->core.flows), 0);
    assert_room();
}

/* ---- calls ---- */

/* One API call as dispatch.c makes it, with a task. */
struct api {
    struct call call;
    struct arena *arena;
    const char *name;
    int (*run)(struct call *, const void *args, struct value *ret);
    const void *args;
    struct fiber *fiber;
    ref_t task;
    int result;
    bool is_over;
    char code[64];
};

_unused_ static void api_main(void *arg)
{
    struct api *api = arg;
    struct call *call = &api->call;

    fiber_set_user(fiber_self(), call);
    api->result = task_attach(call, api->name, NULL, NULL);
    if (api->result == 0) {
        api->task = call->task;
        api->result = api->run(call, api->args, &call->reply);
        task_end(call, api->result);
    }
    snprintf(api->code, sizeof api->code, "%s", api->result < 0 ? call->failure.text : "");
    api->is_over = true;
}

_unused_ static void api_begin(struct api *api, const char *name,
                      int (*run)(struct call *, const void *, struct value *), const void *args)
{
    *api = (struct api){.name = name, .run = run, .args = args, .arena = arena_new()};
    api->call = (struct call){
        .core = &world->core,
        .arena = api->arena,
        .name = name,
        .method = model_method(name),
        .is_async = true,
        .caller = {.role = ROLE_POOL_ADMIN,
                   .user_name = "root",
                   .originator = "",
                   .address = "test"},
        .tag = "test",
    };
    api->fiber = fiber_spawn(world->core.loop, api_main, api, name);
    assert_non_null(api->fiber);
    settle_now();
}

_unused_ static void api_done(struct api *api)
{
    arena_destroy(&api->arena);
}

/* The handlers with untyped arguments. */
#define AS_RUN(handler) ((int (*)(struct call *, const void *, struct value *))(void *) (handler))

/* A call from begin to end: its result, and its error's code in last_code. */
_unused_ static char last_code[64];
_unused_ static int api_call(const char *name,
                             int (*run)(struct call *, const void *, struct value *),
                             const void *args)
{
    struct api api;
    int result;

    api_begin(&api, name, run, args);
    pass_ms(5000);
    assert_true(api.is_over || world->has_crashed);
    result = api.result;
    snprintf(last_code, sizeof last_code, "%s", api.code);
    if (api.is_over) {
        const struct object *task = view_get(model(), task, api.task);

        assert_non_null(task);
        assert_int_equal(task_get_status(task), result == 0 ? task_status_type_success
                                                : result == -ERR_TASK_CANCELLED
                                                    ? task_status_type_cancelled
                                                    : task_status_type_failure);
        api_done(&api);
    }
    /* after a crash the call's stack still refers to its memory */
    return result;
}

#define API(handler, ...) \
    api_call("VM.start", AS_RUN(handler), &(struct handler##_args){__VA_ARGS__})

/* ---- hosts come and go ---- */

struct hello {
    int host;
    struct slave_guest guests[GUESTS_MAX];
    size_t count;
};

_unused_ static void hello_main(void *arg)
{
    struct hello *hello = arg;

    world->on_hello(&world->core, world->hosts[hello->host].ref, hello->guests, hello->count);
    free(hello);
}

_unused_ static void say_hello(int i)
{
    struct fake_host *host = &world->hosts[i];
    struct hello *hello = new0(struct hello);

    host->is_linked = true;
    host->is_declared_dead = false;
    hello->host = i;
    for (int j = 0; j < GUESTS_MAX; j++) {
        struct fake_guest *guest = &host->guests[j];
        struct slave_guest *told = &hello->guests[hello->count];

        if (!guest->vm[0] || (streq(guest->state, "none") && !streq(guest->progress, "receiving")))
            continue;
        *told = (struct slave_guest){.epoch = guest->epoch,
                                     .state = guest->state,
                                     .progress = guest->progress,
                                     .move = guest->move,
                                     .domid = guest->domid};
        uuid_parse(guest->vm, 36, &told->vm_uuid);
        hello->count++;
    }
    assert_non_null(fiber_spawn(world->core.loop, hello_main, hello, "hello"));
    settle_now();
}

/* Every host that is away comes back. */
_unused_ static void all_return(void)
{
    for (int i = 0; i < HOSTS; i++)
        if (!world->hosts[i].is_linked)
            say_hello(i);
    pass_ms(10000);
}

_unused_ static void set_live(int host, bool is_live)
{
    struct txn *txn = store_begin(world->core.store);

    host_metrics_put_live(txn, host_get_metrics(txn_get(txn, host, world->hosts[host].ref)),
                          is_live);
    store_apply(&txn);
    settle_now();
}

struct note {
    int host;
    uint64_t epoch;
    const char *change;
    int64_t domid;
};

_unused_ static void note_main(void *arg)
{
    struct note *note = arg;
    struct value items[] = {value_text("change"), value_text(note->change), value_text("domid"),
                            VALUE_INT(note->domid)},
                 body = VALUE_MAP(2, items);
    struct slave_note told = {"guest", world->hosts[note->host].ref, NULL_REF, note->epoch, &body};

    uuid_parse(vm_uuid(), 36, &told.vm_uuid);
    world->on_guest(&world->core, &told);
    free(note);
}

_unused_ static void say_note(int host, uint64_t epoch, const char *change, int64_t domid)
{
    struct note *note = new0(struct note);

    *note = (struct note){host, epoch, change, domid};
    assert_non_null(fiber_spawn(world->core.loop, note_main, note, "note"));
    settle_now();
}

/* The guest ends by itself. */
_unused_ static void guest_ends(int host, const char *change)
{
    guest_on(host)->state = "ended";
    guest_on(host)->progress = "ended";
    guest_on(host)->change = change;
    say_note(host, guest_on(host)->epoch, change, guest_on(host)->domid);
}

#define SOME_MOVE "5c3d5f0e-6a0f-4a59-8f6e-0d3f4b1d2c11"

/* The host was told to send its guest, and did: it stands there until a master knows what became of the move. */
_unused_ static void guest_is_sent(int host)
{
    guest_on(host)->state = "sent";
    guest_on(host)->progress = "paused-for-move";
    strcpy(guest_on(host)->move, SOME_MOVE);
}
