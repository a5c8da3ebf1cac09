/* test_VM_disks.c - whose a disk is: when VMs start, reboot and resume, and when nobody knows whether it was made */
#include "tests/unit/power_world.h"

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
    assert_true(is_attached(first));
    assert_true(is_attached(second));
    assert_quiet();
}

static void put_attached(ref_t vbd, bool is_attached)
{
    struct txn *txn = store_begin(world->core.store);

    VBD_put_currently_attached(txn, vbd, is_attached);
    store_apply(&txn);
    settle_now();
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(a_disk_is_one_vms_at_a_time),
        WORLD_TEST(a_disk_is_written_by_one_drive),
        WORLD_TEST(what_another_vm_has_stays_with_it),
        WORLD_TEST(no_reboot_ends_what_it_cannot_begin_anew),
        WORLD_TEST(a_disk_goes_when_nobody_can_be_making_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
