/* test_VM_faults.c - each operation on a VM while its message is refused or lost, its host vanishes, or the master dies */
#include "tests/unit/power_world.h"

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

struct operation {
    const char *name;
    int slave_call;                    /* the message that goes wrong */
    int (*run)(void);                  /* from begin to end; the call's result */
    enum vm_power_state before, after; /* of the VM, when nothing goes wrong */
};

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

/* The new world's VM, without any trouble. */
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

/* ---- what goes wrong ---- */

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
    /* its record still says live */
    assert_int_equal(API(host_declare_dead, .host = world->hosts[dead].ref), -ERR_HOST_IS_LIVE);
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

/* ---- with each operation ---- */

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

/* ---- with one of them ---- */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_refused),
        cmocka_unit_test(each_lost_before_its_effect),
        cmocka_unit_test(each_lost_after_its_effect),
        cmocka_unit_test(each_lost_and_the_agent_restarted),
        cmocka_unit_test(each_lost_and_its_host_declared_dead),
        cmocka_unit_test(each_survives_the_master),
        WORLD_TEST(a_guest_that_stands_after_its_snapshot_failed_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
