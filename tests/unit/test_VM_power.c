/* test_VM_power.c - start, stop, suspend and their kin, with hosts that refuse, vanish and return
 */
#include "pool_world.h"

#include "master/VM_power.h"
#include "master/lifecycle.h"

static int start(bool is_paused)
{
    return API(VM_start, .vm = world->vm, .start_paused = is_paused);
}

static void assert_halted(void)
{
    struct view_iter vbds;
    const struct object *vbd;

    assert_int_equal(power(), vm_power_state_Halted);
    assert_int_equal(resident(), -1);
    assert_int_equal(VM_get_domid(vm_now()), -1);
    assert_int_equal(view_count_inverse(model(), &CLASS_OF(VM)->fields[F_VM_consoles], world->vm),
                     0);
    view_each_inverse(&vbds, model(), &CLASS_OF(VM)->fields[F_VM_VBDs], world->vm);
    while ((vbd = view_next(&vbds))) {
        assert_false(VBD_get_currently_attached(vbd));
        assert_false(VBD_get_reserved(vbd));
    }
}

static bool has_message(const char *name)
{
    struct view_iter messages;
    const struct object *message;

    view_each(&messages, model(), CLASS_OF(message));
    while ((message = view_next(&messages)))
        if (streq(message_get_name(message), name)
            && streq(message_get_obj_uuid(message), vm_uuid()))
            return true;
    return false;
}

static void start_runs_the_vm(void **state)
{
    struct view_iter vbds;
    const struct object *vbd;

    (void) state;
    assert_int_equal(start(false), 0);
    assert_int_equal(power(), vm_power_state_Running);
    assert_true(resident() >= 0);
    assert_true(VM_get_domid(vm_now()) > 0);
    assert_in_range(VM_get_epoch(vm_now()), world->core.epoch << 32, store_newest(world->core.store));
    assert_string_equal(guest_on(resident())->state, "running");
    view_each_inverse(&vbds, model(), &CLASS_OF(VM)->fields[F_VM_VBDs], world->vm);
    vbd = view_next(&vbds);
    assert_true(VBD_get_currently_attached(vbd));
    assert_string_equal(VBD_get_device(vbd), "xvda");
    assert_int_equal(view_count_inverse(model(), &CLASS_OF(VM)->fields[F_VM_consoles], world->vm),
                     2);
    assert_int_equal(
        VM_metrics_get_start_time(view_get(model(), VM_metrics, VM_get_metrics(vm_now()))),
        1700000000);
    assert_true(strstr(VM_get_last_booted_record(vm_now()), "memory_static_max"));
    assert_true(has_message("VM_STARTED"));
    assert_quiet();
    assert_int_equal(start(false), -ERR_VM_BAD_POWER_STATE);
    assert_quiet();
}

static void whole_life(void **state)
{
    int home;

    (void) state;
    assert_int_equal(start(true), 0);
    assert_int_equal(power(), vm_power_state_Paused);
    assert_quiet();
    assert_int_equal(API(VM_unpause, .vm = world->vm), 0);
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(API(VM_pause, .vm = world->vm), 0);
    assert_int_equal(power(), vm_power_state_Paused);
    assert_quiet();
    assert_int_equal(API(VM_unpause, .vm = world->vm), 0);
    home = resident();
    assert_int_equal(API(VM_clean_reboot, .vm = world->vm), 0);
    assert_int_equal(resident(), home);
    assert_true(has_message("VM_REBOOTED"));
    assert_int_equal(API(VM_hard_reboot, .vm = world->vm), 0);
    assert_quiet();
    assert_int_equal(API(VM_clean_shutdown, .vm = world->vm), 0);
    assert_halted();
    assert_quiet();
    assert_int_equal(API(VM_start_on, .vm = world->vm, .host = world->hosts[2].ref), 0);
    assert_int_equal(resident(), 2);
    assert_int_equal(API(VM_shutdown, .vm = world->vm), 0);
    assert_halted();
    assert_int_equal(start(false), 0);
    assert_int_equal(API(VM_hard_shutdown, .vm = world->vm), 0);
    assert_halted();
    assert_int_equal(API(VM_hard_shutdown, .vm = world->vm), -ERR_VM_BAD_POWER_STATE);
    assert_quiet();
}

/* The records may have forgotten masters: what those gave is below what a master with an epoch above theirs gives. */
static void a_right_is_above_all_of_earlier_masters(void **state)
{
    (void) state;
    assert_int_equal(start(false), 0);
    assert_int_equal(API(VM_hard_shutdown, .vm = world->vm), 0);
    world->core.epoch = 7;
    assert_int_equal(start(false), 0);
    assert_true((uint64_t) VM_get_epoch(vm_now()) > 7ull << 32);
    assert_int_equal(API(VM_hard_shutdown, .vm = world->vm), 0);
    assert_quiet();
}

static void suspend_and_resume(void **state)
{
    const struct object *image;
    ref_t vdi;
    int64_t before;

    (void) state;
    assert_int_equal(start(false), 0);
    before = VM_get_epoch(vm_now());
    assert_int_equal(API(VM_suspend, .vm = world->vm), 0);
    assert_int_equal(power(), vm_power_state_Suspended);
    assert_int_equal(VM_get_image_epoch(vm_now()), before);
    assert_int_equal(resident(), -1);
    vdi = VM_get_suspend_VDI(vm_now());
    image = view_get(model(), VDI, vdi);
    assert_int_equal(VDI_get_type(image), vdi_type_suspend);
    assert_true(ref_equal(VDI_get_SR(image), world->sr));
    assert_quiet();
    assert_int_equal(API(VM_resume, .vm = world->vm), 0);
    assert_int_equal(power(), vm_power_state_Running);
    assert_true(VM_get_epoch(vm_now()) > before);
    assert_null(view_get(model(), VDI, vdi));
    assert_int_equal(world->calls[SLAVE_CALL_disk_destroy], 1);
    assert_quiet();
    assert_int_equal(API(VM_suspend, .vm = world->vm), 0);
    vdi = VM_get_suspend_VDI(vm_now());
    assert_int_equal(API(VM_hard_shutdown, .vm = world->vm), 0);
    assert_halted();
    assert_null(view_get(model(), VDI, vdi));
    assert_true(ref_is_null(VM_get_suspend_VDI(vm_now())));
    assert_quiet();
}

static void suspend_needs_an_sr(void **state)
{
    struct txn *txn;

    (void) state;
    assert_int_equal(start(false), 0);
    txn = store_begin(world->core.store);
    pool_put_default_SR(txn, world->pool, NULL_REF);
    store_apply(&txn);
    assert_int_equal(API(VM_suspend, .vm = world->vm), -ERR_VM_NO_SUSPEND_SR);
    assert_int_equal(power(), vm_power_state_Running);
    assert_quiet();
}

/* ---- each operation failing in each way ---- */

struct operation {
    const char *name;
    int slave_call;
    int (*run)(void);
    enum vm_power_state before, after;
};

static int op_start(void)
{
    return start(false);
}
static int op_pause(void)
{
    return API(VM_pause, .vm = world->vm);
}
static int op_unpause(void)
{
    return API(VM_unpause, .vm = world->vm);
}
static int op_clean_shutdown(void)
{
    return API(VM_clean_shutdown, .vm = world->vm);
}
static int op_hard_shutdown(void)
{
    return API(VM_hard_shutdown, .vm = world->vm);
}
static int op_clean_reboot(void)
{
    return API(VM_clean_reboot, .vm = world->vm);
}
static int op_hard_reboot(void)
{
    return API(VM_hard_reboot, .vm = world->vm);
}
static int op_suspend(void)
{
    return API(VM_suspend, .vm = world->vm);
}
static int op_resume(void)
{
    return API(VM_resume, .vm = world->vm);
}

/* Each adds one to the VM's snapshots; what does not come to be leaves nothing, no hidden disk either. */
static int op_snapshot(void)
{
    const struct value none = VALUE_EMPTY_SET;
    size_t vdis = view_count(model(), CLASS_OF(VDI)), vms = view_count(model(), CLASS_OF(VM));
    int r = API(VM_snapshot, .vm = world->vm, .new_name = "then", .ignore_vdis = &none);

    if (r == 0 && !world->has_crashed) {
        assert_int_equal(view_count(model(), CLASS_OF(VDI)), vdis + 1);
        assert_int_equal(view_count(model(), CLASS_OF(VM)), vms + 1);
    }
    return r;
}

static const struct operation operations[] = {
    {"start", SLAVE_CALL_vm_start, op_start, vm_power_state_Halted, vm_power_state_Running},
    {"pause", SLAVE_CALL_vm_pause, op_pause, vm_power_state_Running, vm_power_state_Paused},
    {"unpause", SLAVE_CALL_vm_unpause, op_unpause, vm_power_state_Paused, vm_power_state_Running},
    {"clean_shutdown", SLAVE_CALL_vm_shutdown, op_clean_shutdown, vm_power_state_Running,
     vm_power_state_Halted},
    {"hard_shutdown", SLAVE_CALL_vm_kill, op_hard_shutdown, vm_power_state_Running,
     vm_power_state_Halted},
    {"clean_reboot", SLAVE_CALL_vm_reboot, op_clean_reboot, vm_power_state_Running,
     vm_power_state_Running},
    {"hard_reboot", SLAVE_CALL_vm_reboot, op_hard_reboot, vm_power_state_Running,
     vm_power_state_Running},
    {"snapshot", SLAVE_CALL_vm_snapshot, op_snapshot, vm_power_state_Running,
     vm_power_state_Running},
    {"snapshot of a paused one", SLAVE_CALL_vm_snapshot, op_snapshot, vm_power_state_Paused,
     vm_power_state_Paused},
    {"suspend", SLAVE_CALL_vm_suspend, op_suspend, vm_power_state_Running,
     vm_power_state_Suspended},
    {"resume", SLAVE_CALL_vm_resume, op_resume, vm_power_state_Suspended, vm_power_state_Running},
};

static void bring_to(enum vm_power_state wanted)
{
    if (wanted == vm_power_state_Halted)
        return;
    assert_int_equal(start(wanted == vm_power_state_Paused), 0);
    if (wanted == vm_power_state_Suspended)
        assert_int_equal(op_suspend(), 0);
    assert_int_equal(power(), wanted);
}

static void with_each(void (*test)(const struct operation *, enum trouble), enum trouble trouble)
{
    void *state;

    for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
        world_setup(&state);
        print_message("  %s\n", operations[i].name);
        bring_to(operations[i].before);
        test(&operations[i], trouble);
        world_teardown(&state);
    }
}

static void make_trouble(const struct operation *operation, enum trouble trouble)
{
    world->trouble_call = operation->slave_call;
    world->trouble = trouble;
}

static void refused(const struct operation *operation, enum trouble trouble)
{
    make_trouble(operation, trouble);
    assert_int_equal(operation->run(), -ERR_INTERNAL_ERROR);
    assert_int_equal(power(), operation->before);
    assert_quiet();
    assert_int_equal(operation->run(), 0); /* and it can be done again */
    assert_int_equal(power(), operation->after);
    assert_quiet();
}

/* The host vanishes with the answer: the VM stays claimed until it is back. */
static void lost(const struct operation *operation, enum trouble trouble)
{
    make_trouble(operation, trouble);
    assert_int_equal(operation->run(), -ERR_HOST_OFFLINE);
    assert_int_equal(VM_get_current_operations(vm_now())->length, 1);
    assert_int_equal(view_count(model(), CLASS_OF(intent)), 1);
    assert_int_equal(power(), operation->before);
    assert_room();
    /* nothing else may be done with it meanwhile */
    if (operation->before != vm_power_state_Halted)
        assert_int_equal(op_hard_shutdown(), -ERR_HOST_OFFLINE);
    pass_ms(60000);
    assert_int_equal(view_count(model(), CLASS_OF(intent)), 1);
    all_return();
    assert_int_equal(power(), trouble == LOST_AFTER ? operation->after : operation->before);
    assert_quiet();
}

static void lost_and_interrupted(const struct operation *operation, enum trouble trouble)
{
    make_trouble(operation, trouble);
    assert_int_equal(operation->run(), -ERR_HOST_OFFLINE);
    for (int i = 0; i < HOSTS; i++)
        world->hosts[i].forgets_results = true;
    all_return();
    if (trouble == LOST_AFTER)
        assert_int_equal(power(), operation->after);
    assert_quiet();
}

static void lost_and_declared_dead(const struct operation *operation, enum trouble trouble)
{
    int dead = 0;

    make_trouble(operation, trouble);
    assert_int_equal(operation->run(), -ERR_HOST_OFFLINE);
    while (world->hosts[dead].is_linked)
        dead++;
    assert_int_equal(API(host_declare_dead, .host = world->hosts[dead].ref),
                     dead == 0 ? -ERR_HOST_IS_LIVE
                               : -ERR_HOST_IS_LIVE); /* its record still says live */
    set_live(dead, false);
    if (dead == 0) { /* the master's own host is never dead while it speaks */
        assert_int_equal(API(host_declare_dead, .host = world->hosts[dead].ref), -ERR_HOST_IS_LIVE);
        all_return();
    } else {
        assert_int_equal(API(host_declare_dead, .host = world->hosts[dead].ref), 0);
        assert_halted();
        assert_quiet();
        all_return(); /* what runs there nevertheless is ended */
        assert_int_equal(runners(vm_uuid()), 0);
        set_live(dead, true);
        assert_int_equal(start(false), 0);
    }
    assert_quiet();
}

static void master_dies(const struct operation *operation, enum trouble when)
{
    world->crash_call = operation->slave_call;
    world->crash_after = when == LOST_AFTER;
    operation->run();
    assert_true(world->has_crashed);
    restart_master();
    assert_int_equal(VM_get_current_operations(vm_now())->length, 1);
    for (int i = 0; i < HOSTS; i++)
        say_hello(i);
    pass_ms(10000);
    assert_int_equal(power(), when == LOST_AFTER ? operation->after : operation->before);
    assert_quiet();
}

static void each_refused(void **state)
{
    (void) state;
    with_each(refused, REFUSED);
}
static void each_lost_before_its_effect(void **state)
{
    (void) state;
    with_each(lost, LOST_BEFORE);
}
static void each_lost_after_its_effect(void **state)
{
    (void) state;
    with_each(lost, LOST_AFTER);
}
static void each_lost_and_the_agent_restarted(void **state)
{
    (void) state;
    with_each(lost_and_interrupted, LOST_BEFORE);
    with_each(lost_and_interrupted, LOST_AFTER);
}
static void each_lost_and_its_host_declared_dead(void **state)
{
    (void) state;
    with_each(lost_and_declared_dead, LOST_BEFORE);
    with_each(lost_and_declared_dead, LOST_AFTER);
}
static void each_survives_the_master(void **state)
{
    (void) state;
    with_each(master_dies, LOST_BEFORE);
    with_each(master_dies, LOST_AFTER);
}

/* ---- order and room ---- */

static void nothing_is_told_before_it_is_durable(void **state)
{
    struct VM_start_args args = {.vm = world->vm};
    struct api api;

    (void) state;
    world->is_disk_stopped = true;
    api_begin(&api, "VM.start", AS_RUN(VM_start), &args);
    pass_ms(1000);
    assert_int_equal(world->calls[SLAVE_CALL_vm_start], 0);
    world->is_disk_stopped = false;
    store_acknowledge(world->core.store, &world->sink, world->appended);
    pass_ms(1000);
    store_acknowledge(world->core.store, &world->sink, world->appended);
    pass_ms(1000);
    assert_int_equal(world->calls[SLAVE_CALL_vm_start], 1);
    assert_true(api.is_over);
    assert_int_equal(api.result, 0);
    api_done(&api);
    assert_quiet();
}

static void room_is_reserved_while_vms_start(void **state)
{
    struct VM_start_args args[4];
    struct api apis[4];
    int started = 0, refusals = 0;

    (void) state;
    /* one VM of 3 GiB a host of 4 GiB: of four that start at once, one finds no place */
    world->slow_call = SLAVE_CALL_vm_start;
    for (int i = 0; i < 4; i++) {
        args[i] = (struct VM_start_args){.vm = new_vm_with_own_disk("big", 3 * GIB)};
        api_begin(&apis[i], "VM.start", AS_RUN(VM_start), &args[i]);
        settle_now();
        assert_room();
    }
    world->slow_over = true;
    pass_ms(5000);
    for (int i = 0; i < 4; i++) {
        assert_true(apis[i].is_over);
        started += apis[i].result == 0;
        refusals += apis[i].result == -ERR_HOST_NOT_ENOUGH_FREE_MEMORY;
        api_done(&apis[i]);
    }
    assert_int_equal(started, 3);
    assert_int_equal(refusals, 1);
    assert_room();
}

static void a_disk_is_one_vms_at_a_time(void **state)
{
    struct VM_start_args args[2] = {{.vm = world->vm}, {.vm = world->vm}};
    struct api apis[2];
    struct txn *txn;

    (void) state;
    txn = store_begin(world->core.store);
    args[1].vm = new_vm(txn, "other", GIB); /* with the same disk */
    store_apply(&txn);
    world->slow_call = SLAVE_CALL_vm_start;
    for (int i = 0; i < 2; i++)
        api_begin(&apis[i], "VM.start", AS_RUN(VM_start), &args[i]);
    world->slow_over = true;
    pass_ms(5000);
    assert_int_equal(apis[0].result, 0);
    assert_int_equal(apis[1].result, -ERR_VDI_IN_USE);
    for (int i = 0; i < 2; i++)
        api_done(&apis[i]);
    assert_quiet();
}

static void hard_shutdown_ends_a_clean_one(void **state)
{
    struct VM_clean_shutdown_args args = {world->vm};
    struct api api;

    (void) state;
    assert_int_equal(start(false), 0);
    world->slow_call = SLAVE_CALL_vm_shutdown; /* a guest that never listens */
    api_begin(&api, "VM.clean_shutdown", AS_RUN(VM_clean_shutdown), &args);
    pass_ms(2000);
    assert_false(api.is_over);
    assert_int_equal(API(VM_hard_shutdown, .vm = world->vm), 0);
    assert_true(api.is_over);
    assert_int_equal(api.result, -ERR_TASK_CANCELLED);
    api_done(&api);
    assert_halted();
    pass_ms(5000);
    assert_quiet();
}

static void operations_wait_for_one_another(void **state)
{
    struct VM_pause_args pause = {world->vm};
    struct VM_unpause_args unpause = {world->vm};
    struct api first, second;

    (void) state;
    assert_int_equal(start(false), 0);
    world->slow_call = SLAVE_CALL_vm_pause;
    api_begin(&first, "VM.pause", AS_RUN(VM_pause), &pause);
    api_begin(&second, "VM.pause", AS_RUN(VM_pause), &pause);
    pass_ms(1000);
    assert_false(first.is_over || second.is_over);
    world->slow_over = true;
    pass_ms(1000);
    assert_int_equal(first.result, 0);
    assert_true(second.is_over);
    assert_int_equal(second.result, -ERR_VM_BAD_POWER_STATE); /* it is Paused by then */
    api_done(&first);
    api_done(&second);
    api_begin(&first, "VM.unpause", AS_RUN(VM_unpause), &unpause);
    pass_ms(1000);
    assert_int_equal(first.result, 0);
    api_done(&first);
    assert_quiet();
}

/* ---- guests by themselves ---- */

static void a_guest_shuts_down(void **state)
{
    (void) state;
    assert_int_equal(start(false), 0);
    guest_ends(resident(), "shut_down");
    pass_ms(1000);
    assert_halted();
    assert_true(has_message("VM_SHUTDOWN"));
    assert_quiet();
}

static void a_guest_reboots_where_it_is(void **state)
{
    int home;
    int64_t before;

    (void) state;
    assert_int_equal(start(false), 0);
    before = VM_get_epoch(vm_now());
    home = resident();
    guest_ends(home, "rebooted");
    pass_ms(500);
    assert_int_equal(world->calls[SLAVE_CALL_vm_start],
                     1); /* it ran for less than two minutes: later */
    pass_ms(2000);
    assert_int_equal(world->calls[SLAVE_CALL_vm_start], 2);
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(resident(), home);
    assert_true(VM_get_epoch(vm_now()) > before);
    assert_quiet();
    pass_ms(200000);
    guest_ends(home, "rebooted");
    pass_ms(1);
    assert_int_equal(world->calls[SLAVE_CALL_vm_start], 3); /* it ran for long: at once */
    assert_quiet();
}

/* Its agent followed another master before the disks were taken. */
static void a_guest_that_stands_after_its_snapshot_failed_goes_on(void **state)
{
    (void) state;
    assert_int_equal(start(false), 0);
    guest_on(resident())->state = "paused";
    world->refused_call = SLAVE_CALL_vm_snapshot;
    assert_true(op_snapshot() < 0);
    assert_string_equal(guest_on(resident())->state, "running");
    assert_quiet();
    assert_int_equal(API(VM_pause, .vm = world->vm), 0); /* who is paused by a user stays so */
    world->refused_call = SLAVE_CALL_vm_snapshot;
    assert_true(op_snapshot() < 0);
    assert_string_equal(guest_on(resident())->state, "paused");
    assert_quiet();
}

static void put_attached(ref_t vbd, bool is_attached)
{
    struct txn *txn = store_begin(world->core.store);

    VBD_put_currently_attached(txn, vbd, is_attached);
    store_apply(&txn);
    settle_now();
}

static bool is_attached(ref_t vbd)
{
    return VBD_get_currently_attached(view_get(model(), VBD, vbd));
}

/* It was unplugged, and is another VM's by now. */
static void what_another_vm_has_stays_with_it(void **state)
{
    ref_t vdi, other, mine, theirs, new;
    struct txn *txn;

    (void) state;
    assert_int_equal(start(false), 0);
    txn = store_begin(world->core.store);
    vdi = new_disk(txn, world->sr);
    other = new_object(txn, CLASS_OF(VM));
    VM_put_power_state(txn, other, vm_power_state_Running);
    mine = new_drive(txn, world->vm, vdi, "1");
    theirs = new_drive(txn, other, vdi, "0");
    new = new_drive(txn, world->vm, NULL_REF, "2");
    VBD_put_currently_attached(txn, theirs, true);
    store_apply(&txn);
    settle_now();

    assert_int_equal(op_hard_reboot(), 0);
    assert_false(is_attached(mine));
    assert_true(is_attached(new)); /* nobody else's: as at a start */
    assert_int_equal(op_clean_reboot(), 0);
    assert_false(is_attached(mine));
    assert_quiet();
    pass_ms(200000);
    guest_ends(resident(), "rebooted"); /* also by itself */
    pass_ms(1);
    assert_int_equal(world->calls[SLAVE_CALL_vm_start], 2);
    assert_int_equal(power(), vm_power_state_Running);
    assert_false(is_attached(mine));
    assert_quiet();

    put_attached(theirs, false);
    assert_int_equal(op_hard_reboot(), 0);
    assert_true(is_attached(mine));
    assert_int_equal(API(VM_suspend, .vm = world->vm), 0);
    put_attached(theirs, true); /* who is suspended does not keep it */
    assert_int_equal(API(VM_resume, .vm = world->vm), -ERR_VDI_IN_USE);
    assert_int_equal(power(), vm_power_state_Suspended);
    assert_quiet();
    put_attached(theirs, false);
    assert_int_equal(API(VM_resume, .vm = world->vm), 0);
    assert_true(is_attached(mine));
    assert_quiet();
}

/* A drive whose disk only another host sees: a reboot would end a guest for one that cannot be made. */
static ref_t put_drive_of_elsewhere(void)
{
    struct txn *txn = store_begin(world->core.store);
    ref_t sr = new_object(txn, CLASS_OF(SR)), vbd = new_drive(txn, world->vm, new_disk(txn, sr), "1");

    store_apply(&txn);
    settle_now();
    return vbd;
}

static void no_reboot_ends_what_it_cannot_begin_anew(void **state)
{
    int64_t epoch;
    ref_t vbd;

    (void) state;
    assert_int_equal(start(false), 0);
    epoch = VM_get_epoch(vm_now());
    vbd = put_drive_of_elsewhere();
    assert_int_equal(op_hard_reboot(), -ERR_VM_REQUIRES_SR);
    assert_int_equal(op_clean_reboot(), -ERR_VM_REQUIRES_SR);
    assert_int_equal(world->calls[SLAVE_CALL_vm_reboot], 0);
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(VM_get_epoch(vm_now()), epoch);
    assert_false(VBD_get_reserved(view_get(model(), VBD, vbd)));
    assert_false(has_message("VM_CRASHED"));
    assert_string_equal(guest_on(resident())->state, "running");
    assert_quiet();
}

static void a_guest_crashes(void **state)
{
    (void) state;
    assert_int_equal(start(false), 0);
    guest_ends(resident(), "crashed");
    pass_ms(1000);
    assert_halted();
    assert_true(has_message("VM_CRASHED"));
    assert_quiet();
}

/* As its agent tells it when what runs the guests has died, or is back. */
static void put_guests_away(int host, bool is_away)
{
    struct txn *txn = store_begin(world->core.store);

    host_put_guests_away(txn, world->hosts[host].ref, is_away);
    store_apply(&txn);
    settle_now();
}

static void put_after_crash(enum on_crash_behaviour action)
{
    struct txn *txn = store_begin(world->core.store);

    VM_put_actions_after_crash(txn, world->vm, action);
    store_apply(&txn);
    settle_now();
}

static void no_guest_is_sent_where_none_can_be_made(void **state)
{
    (void) state;
    put_guests_away(1, true);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(start(false), 0);
        assert_int_not_equal(resident(), 1);
        assert_int_equal(op_hard_shutdown(), 0);
    }
    assert_int_equal(API(VM_start_on, .vm = world->vm, .host = world->hosts[1].ref), -ERR_HOST_STILL_BOOTING);
    put_guests_away(0, true);
    put_guests_away(2, true);
    assert_int_equal(start(false), -ERR_NO_HOSTS_AVAILABLE);
    put_guests_away(1, false);
    assert_int_equal(start(false), 0);
    assert_int_equal(resident(), 1);
    assert_quiet();
}

static void a_vm_begins_anew_where_it_can(void **state)
{
    int home;

    (void) state;
    put_after_crash(on_crash_behaviour_restart);
    assert_int_equal(start(false), 0);
    home = resident();
    put_guests_away(home, true);
    guest_ends(home, "vanished");
    pass_ms(3000);
    assert_int_equal(power(), vm_power_state_Running); /* elsewhere */
    assert_int_not_equal(resident(), home);
    assert_string_equal(guest_on(resident())->state, "running");
    assert_string_equal(guest_on(home)->state, "none");
    assert_true(has_message("VM_CRASHED"));
    assert_quiet();

    pass_ms(200000);
    home = resident();
    for (int i = 0; i < HOSTS; i++)
        put_guests_away(i, true);
    guest_ends(home, "crashed");
    pass_ms(3000);
    assert_halted(); /* nowhere, for now */
    pass_ms(60000);
    assert_halted();
    put_guests_away(home, false);
    pass_ms(15000);
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(resident(), home);
    assert_false(has_message("VM_RESTART_FAILED"));
    assert_quiet();
}

/* A restart that its host refuses. */
static void a_vm_begins_anew_after_a_refusal(void **state)
{
    (void) state;
    put_after_crash(on_crash_behaviour_restart);
    assert_int_equal(start(false), 0);
    pass_ms(200000);
    world->refused_call = SLAVE_CALL_vm_start;
    guest_ends(resident(), "crashed");
    pass_ms(5000);
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(world->calls[SLAVE_CALL_vm_start], 3);
    assert_quiet();

    /* Nor where another drive keeps it away: there is no host for all of them. */
    put_drive_of_elsewhere();
    guest_ends(resident(), "crashed");
    pass_ms(5000);
    assert_halted();
    assert_quiet();
    pass_ms(11 * 60 * 1000);
    assert_true(has_message("VM_RESTART_FAILED"));
    assert_halted();
    assert_quiet();
}

/* What its owner wants, or does with it, ends the attempts. */
static void a_vm_that_is_not_wanted_any_more_stays_halted(void **state)
{
    int home;

    (void) state;
    put_after_crash(on_crash_behaviour_restart);
    for (int with_start = 0; with_start < 2; with_start++) {
        assert_int_equal(start(false), 0);
        home = resident();
        for (int i = 0; i < HOSTS; i++)
            put_guests_away(i, true);
        guest_ends(home, "crashed");
        pass_ms(20000);
        assert_halted();
        if (!with_start)
            put_after_crash(on_crash_behaviour_destroy);
        for (int i = 0; i < HOSTS; i++)
            put_guests_away(i, false);
        if (with_start) {
            assert_int_equal(start(false), 0);
            assert_int_equal(op_hard_shutdown(), 0);
        }
        pass_ms(60000);
        assert_halted();
        assert_quiet();
        put_after_crash(on_crash_behaviour_restart);
    }
    assert_false(has_message("VM_RESTART_FAILED"));
}

static void old_news_are_no_news(void **state)
{
    uint64_t before;
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    before = (uint64_t) VM_get_epoch(vm_now());
    assert_int_equal(op_hard_shutdown(), 0);
    assert_int_equal(API(VM_start_on, .vm = world->vm, .host = world->hosts[home].ref), 0);
    say_note(home, before, "shut_down", 1); /* of the guest before */
    pass_ms(5000);
    assert_int_equal(power(), vm_power_state_Running);
    assert_quiet();
}

/* A reboot keeps the epoch: the guest's number tells which one the news is of. */
static void news_of_the_guest_before_a_reboot_are_old(void **state)
{
    int64_t before;

    (void) state;
    assert_int_equal(start(false), 0);
    before = VM_get_domid(vm_now());
    assert_int_equal(op_clean_reboot(), 0);
    guest_on(resident())->state = "ended"; /* nobody has asked yet */
    say_note(resident(), (uint64_t) VM_get_epoch(vm_now()), "shut_down", before);
    pass_ms(5000);
    assert_int_equal(power(), vm_power_state_Running);
    say_note(resident(), (uint64_t) VM_get_epoch(vm_now()), "shut_down", guest_on(resident())->domid);
    pass_ms(5000);
    assert_halted();
    assert_quiet();
}

/* A reboot that nobody waits for any more goes on at the host: what has ended there may run again
 * before the model says Halted, and must not do so after it. */
/* In old records the VM is being started; in truth it was, and was sent for a move that these records lack. */
static void a_start_that_a_forgotten_move_has_followed(void **state)
{
    static const enum trouble troubles[] = {LOST_BEFORE, LOST_AFTER};

    for (size_t i = 0; i < ARRAY_SIZE(troubles); i++) {
        int host = 0;

        world_setup(state);
        bring_to(vm_power_state_Halted);
        world->trouble_call = SLAVE_CALL_vm_start;
        world->trouble = troubles[i];
        assert_int_equal(start(false), -ERR_HOST_OFFLINE);
        while (world->hosts[host].is_linked)
            host++;
        world->hosts[host].forgets_results = troubles[i] == LOST_AFTER;
        guest_on(host)->epoch = (uint64_t) VM_get_epoch(vm_now());
        guest_is_sent(host);
        all_return();
        pass_ms(20000);
        assert_int_equal(power(), vm_power_state_Running);
        assert_int_equal(resident(), host);
        assert_string_equal(guest_on(host)->state, "running");
        assert_int_equal(runners(vm_uuid()), 1);
        assert_quiet();
        world_teardown(state);
    }
}

static void nothing_is_halted_before_its_host_has_forgotten_it(void **state)
{
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    world->slow_call = SLAVE_CALL_vm_forget;
    guest_ends(home, "shut_down");
    pass_ms(1000);
    assert_int_equal(world->calls[SLAVE_CALL_vm_forget], 1);
    assert_int_equal(power(), vm_power_state_Running);
    begin_at(guest_on(home), (uint64_t) VM_get_epoch(vm_now()), "ran", "running");
    world->slow_over = true;
    pass_ms(5000);
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(resident(), home);
    assert_int_equal(VM_get_domid(vm_now()), guest_on(home)->domid);
    assert_quiet();
}

/* What a host said before an operation ended is not believed after it. */
static void an_answer_that_has_become_old_is_not_believed(void **state)
{
    struct VM_pause_args pause = {world->vm};
    struct VM_unpause_args unpause = {world->vm};
    struct api first, second;
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    guest_on(home)->state = "paused"; /* so that its hello is a reason to ask */
    world->slow_call = SLAVE_CALL_vm_ask;
    say_hello(home);
    api_begin(&first, "VM.pause", AS_RUN(VM_pause), &pause);
    pass_ms(1000);
    api_begin(&second, "VM.unpause", AS_RUN(VM_unpause), &unpause);
    pass_ms(1000);
    world->slow_over = true; /* and "paused" arrives */
    pass_ms(5000);
    assert_true(first.is_over && second.is_over);
    assert_int_equal(power() == vm_power_state_Running,
                     streq(guest_on(home)->state, "running"));
    api_done(&first);
    api_done(&second);
    assert_quiet();
}

/* A hello waits for the master's disk before anybody looks at it. */
static void a_hello_that_has_become_old_brings_nothing_back(void **state)
{
    struct hello *hello = new0(struct hello);
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    hello->host = home;
    hello->count = 1;
    hello->guests[0] = (struct slave_guest){
        .epoch = (uint64_t) VM_get_epoch(vm_now()), .state = "running", .progress = "ran", .move = "", .domid = 1};
    uuid_parse(vm_uuid(), 36, &hello->guests[0].vm_uuid);
    assert_int_equal(op_hard_shutdown(), 0);
    assert_non_null(fiber_spawn(world->core.loop, hello_main, hello, "hello"));
    settle_now();
    assert_int_equal(power(), vm_power_state_Halted);
    pass_ms(5000);
    assert_halted();
    assert_quiet();
}

/* But what runs at the model's own epoch is the VM, whatever the model says. */
static void a_guest_with_the_models_own_right_is_the_vm(void **state)
{
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    assert_int_equal(op_hard_shutdown(), 0);
    begin_at(guest_on(home), (uint64_t) VM_get_epoch(vm_now()), "ran", "running");
    say_hello(home);
    pass_ms(5000);
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(resident(), home);
    assert_int_equal(VM_get_domid(vm_now()), guest_on(home)->domid);
    assert_quiet();
}

/* No note came, and no hello: that the host refuses shows it. */
static void a_refusal_shows_what_was_missed(void **state)
{
    (void) state;
    assert_int_equal(start(false), 0);
    guest_on(resident())->state = "none";
    assert_int_equal(API(VM_pause, .vm = world->vm), -ERR_VM_BAD_POWER_STATE);
    pass_ms(5000);
    assert_halted();
    assert_quiet();
}

/* The records were old: while the host that they name is told to end the guest, another one proves that the VM is there. */
static void what_is_done_elsewhere_halts_nothing(void **state)
{
    struct VM_hard_shutdown_args args;
    struct txn *txn;
    struct api api;
    uint64_t epoch;

    (void) state;
    assert_int_equal(API(VM_start_on, .vm = world->vm, .host = world->hosts[0].ref), 0);
    args = (struct VM_hard_shutdown_args){.vm = world->vm};
    world->slow_call = SLAVE_CALL_vm_kill;
    api_begin(&api, "VM.hard_shutdown", AS_RUN(VM_hard_shutdown), &args);
    epoch = guest_on(0)->epoch + 1000;
    *guest_on(1) = *guest_on(0);
    guest_on(1)->epoch = epoch;
    guest_on(0)->state = "none";
    guest_on(0)->progress = "ended";
    txn = store_begin(world->core.store); /* as slave_hello.c does */
    VM_put_epoch(txn, world->vm, (int64_t) epoch);
    VM_put_resident_on(txn, world->vm, world->hosts[1].ref);
    store_apply(&txn);
    world->slow_over = true;
    pass_ms(5000);
    assert_true(api.is_over);
    assert_string_equal(api.code, "INTERNAL_ERROR");
    api_done(&api);
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(resident(), 1);
    assert_int_equal(runners(vm_uuid()), 1);
    assert_quiet();
}

static void a_host_comes_back_empty(void **state)
{
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    lose_host(&world->hosts[home]);
    guest_on(home)->state = "none"; /* the machine was switched off and on */
    all_return();
    assert_halted();
    assert_quiet();
}

static void start_and_stop(int host)
{
    assert_int_equal(API(VM_start_on, .vm = world->vm, .host = world->hosts[host].ref), 0);
    assert_int_equal(API(VM_hard_shutdown, .vm = world->vm), 0); /* sweeps */
}

/* A host that was told to make a disk is given up, and may make it all the same: so nobody takes its file away before it is back. */
static void a_disk_goes_when_nobody_can_be_making_it(void **state)
{
    struct value none = VALUE_EMPTY_SET;

    (void) state;
    world->trouble_call = SLAVE_CALL_disk_clone;
    world->trouble = LOST_BEFORE;
    assert_int_equal(API(VM_snapshot, .vm = world->vm, .new_name = "then", .ignore_vdis = &none), -ERR_HOST_OFFLINE);
    assert_false(world->hosts[0].is_linked); /* it was to make it */
    set_live(0, false);
    start_and_stop(1);
    assert_int_equal(world->core.left_over_disks, 1);
    all_return();
    set_live(0, true);
    world->calls[SLAVE_CALL_disk_destroy] = 0;
    start_and_stop(1);
    assert_int_equal(world->calls[SLAVE_CALL_disk_destroy], HOSTS); /* who was told is not known */
    assert_quiet();
}

static void reset_is_for_the_dead(void **state)
{
    int home;
    int64_t before;

    (void) state;
    assert_int_equal(start(false), 0);
    before = VM_get_epoch(vm_now());
    home = resident();
    assert_int_equal(API(VM_power_state_reset, .vm = world->vm), -ERR_DOMAIN_EXISTS);
    assert_quiet();
    lose_host(&world->hosts[home]);
    assert_int_equal(API(VM_power_state_reset, .vm = world->vm), -ERR_HOST_IS_LIVE);
    set_live(home, false);
    assert_int_equal(API(VM_power_state_reset, .vm = world->vm), 0);
    assert_halted();
    assert_true(VM_get_epoch(vm_now()) > before);
    set_live(home, true);
    all_return();
    assert_int_equal(runners(vm_uuid()), 0); /* its guest had no right to run any more */
    assert_quiet();
}

static void put_mode(ref_t vbd, enum vbd_mode mode)
{
    struct txn *txn = store_begin(world->core.store);

    VBD_put_mode(txn, vbd, mode);
    store_apply(&txn);
}

/* Two drives of one VM are no better than those of two. */
static void a_disk_is_written_by_one_drive(void **state)
{
    struct txn *txn = store_begin(world->core.store);
    struct view_iter vbds;
    ref_t first, second;

    (void) state;
    view_each_inverse(&vbds, txn_view(txn), &CLASS_OF(VM)->fields[F_VM_VBDs], world->vm);
    first = view_next(&vbds)->ref;
    second = new_drive(txn, world->vm, world->vdi, "5");
    store_apply(&txn);
    assert_int_equal(start(false), -ERR_VDI_IN_USE);
    assert_halted();
    put_mode(second, vbd_mode_RO);
    assert_int_equal(start(false), -ERR_VDI_IN_USE);
    assert_halted();
    put_mode(first, vbd_mode_RO);
    assert_int_equal(start(false), 0);
    assert_true(VBD_get_currently_attached(view_get(model(), VBD, first)));
    assert_true(VBD_get_currently_attached(view_get(model(), VBD, second)));
    assert_quiet();
}

static bool is_allowed(int operation)
{
    struct arena *arena = arena_new();
    struct value wanted = VALUE_ENUM(vm_operations, operation),
                 allowed = allowed_operations(model(), vm_now(), arena);
    bool is_in = value_set_has(&allowed, &wanted);

    arena_destroy(&arena);
    return is_in;
}

static void what_must_stay_is_not_suspended(void **state)
{
    struct txn *txn = store_begin(world->core.store);
    struct value pair[2] = {value_text("nomigrate"), value_text("true")};
    struct value platform = VALUE_MAP(1, pair);

    (void) state;
    VM_put_platform(txn, world->vm, &platform);
    store_apply(&txn);
    assert_int_equal(start(false), 0);
    assert_false(is_allowed(vm_operations_suspend) || is_allowed(vm_operations_checkpoint)
                 || is_allowed(vm_operations_pool_migrate));
    assert_true(is_allowed(vm_operations_snapshot));
    assert_int_equal(API(VM_suspend, .vm = world->vm), -ERR_VM_IS_IMMOBILE);
    assert_int_equal(power(), vm_power_state_Running);
    assert_quiet();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(start_runs_the_vm),
        WORLD_TEST(whole_life),
        WORLD_TEST(a_right_is_above_all_of_earlier_masters),
        WORLD_TEST(suspend_and_resume),
        WORLD_TEST(suspend_needs_an_sr),
        cmocka_unit_test(each_refused),
        cmocka_unit_test(each_lost_before_its_effect),
        cmocka_unit_test(each_lost_after_its_effect),
        cmocka_unit_test(each_lost_and_the_agent_restarted),
        cmocka_unit_test(each_lost_and_its_host_declared_dead),
        cmocka_unit_test(each_survives_the_master),
        WORLD_TEST(nothing_is_told_before_it_is_durable),
        WORLD_TEST(room_is_reserved_while_vms_start),
        WORLD_TEST(a_disk_is_one_vms_at_a_time),
        WORLD_TEST(hard_shutdown_ends_a_clean_one),
        WORLD_TEST(operations_wait_for_one_another),
        WORLD_TEST(a_guest_shuts_down),
        WORLD_TEST(no_reboot_ends_what_it_cannot_begin_anew),
        WORLD_TEST(a_guest_reboots_where_it_is),
        WORLD_TEST(a_guest_that_stands_after_its_snapshot_failed_goes_on),
        WORLD_TEST(what_another_vm_has_stays_with_it),
        WORLD_TEST(a_guest_crashes),
        WORLD_TEST(no_guest_is_sent_where_none_can_be_made),
        WORLD_TEST(a_vm_begins_anew_where_it_can),
        WORLD_TEST(a_vm_begins_anew_after_a_refusal),
        WORLD_TEST(a_vm_that_is_not_wanted_any_more_stays_halted),
        WORLD_TEST(old_news_are_no_news),
        WORLD_TEST(news_of_the_guest_before_a_reboot_are_old),
        cmocka_unit_test(a_start_that_a_forgotten_move_has_followed),
        WORLD_TEST(nothing_is_halted_before_its_host_has_forgotten_it),
        WORLD_TEST(an_answer_that_has_become_old_is_not_believed),
        WORLD_TEST(a_hello_that_has_become_old_brings_nothing_back),
        WORLD_TEST(a_guest_with_the_models_own_right_is_the_vm),
        WORLD_TEST(a_refusal_shows_what_was_missed),
        WORLD_TEST(what_is_done_elsewhere_halts_nothing),
        WORLD_TEST(a_host_comes_back_empty),
        WORLD_TEST(a_disk_goes_when_nobody_can_be_making_it),
        WORLD_TEST(reset_is_for_the_dead),
        WORLD_TEST(a_disk_is_written_by_one_drive),
        WORLD_TEST(what_must_stay_is_not_suspended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
