/* test_VM_power.c - start, stop, suspend and their kin, one after the other and beside one another */
#include "tests/unit/power_world.h"
#include "master/lifecycle.h"

/* ---- one after the other ---- */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(start_runs_the_vm),
        WORLD_TEST(whole_life),
        WORLD_TEST(a_right_is_above_all_of_earlier_masters),
        WORLD_TEST(suspend_and_resume),
        WORLD_TEST(suspend_needs_an_sr),
        WORLD_TEST(what_must_stay_is_not_suspended),
        WORLD_TEST(reset_is_for_the_dead),
        WORLD_TEST(nothing_is_told_before_it_is_durable),
        WORLD_TEST(room_is_reserved_while_vms_start),
        WORLD_TEST(hard_shutdown_ends_a_clean_one),
        WORLD_TEST(operations_wait_for_one_another),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
