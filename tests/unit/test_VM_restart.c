/* test_VM_restart.c - guests that end by themselves: the VM is Halted, or begins anew where that can be */
#include "tests/unit/power_world.h"

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

/* ---- and when the master dies that was at it ---- */

static void put_all_away(bool are_away)
{
    for (int i = 0; i < HOSTS; i++)
        put_guests_away(i, are_away);
}

static void unlink_all(void)
{
    for (int i = 0; i < HOSTS; i++)
        world->hosts[i].is_linked = false;
}

/* It has crashed, and no host can make it again for now. */
static void crash_and_wait(void)
{
    put_after_crash(on_crash_behaviour_restart);
    assert_int_equal(start(false), 0);
    put_all_away(true);
    guest_ends(resident(), "crashed");
    pass_ms(20000);
    assert_int_equal(power(), vm_power_state_Halted);
    assert_true(has_message("VM_CRASHED"));
}

static void a_new_master_goes_on(void **state)
{
    (void) state;
    crash_and_wait();
    unlink_all();
    restart_master();
    pass_ms(5000);
    assert_int_equal(power(), vm_power_state_Halted);
    all_return();
    pass_ms(15000);
    assert_int_equal(power(), vm_power_state_Running);
    assert_string_equal(guest_on(resident())->state, "running");
    assert_int_equal(runners(vm_uuid()), 1);
    assert_quiet();

    /* The wish is fulfilled. */
    assert_int_equal(op_hard_shutdown(), 0);
    restart_master();
    pass_ms(60000);
    assert_int_equal(power(), vm_power_state_Halted);
    assert_quiet();
}

/* At each message of the new start. */
static void a_master_dies_at_its_attempt(void **state)
{
    (void) state;
    for (int is_after = 0; is_after < 2; is_after++) {
        world_setup(state);
        put_after_crash(on_crash_behaviour_restart);
        assert_int_equal(start(false), 0);
        pass_ms(200000);
        world->crash_call = SLAVE_CALL_vm_start;
        world->crash_after = is_after;
        guest_ends(resident(), "crashed");
        pass_ms(5000);
        assert_true(world->has_crashed);
        unlink_all();
        restart_master();
        all_return();
        pass_ms(60000);
        assert_int_equal(power(), vm_power_state_Running);
        assert_int_equal(runners(vm_uuid()), 1);
        assert_quiet();
        world_teardown(state);
    }
}

/* The one that was told has died right then, or none was there: the host says how its guest has ended. */
static void a_new_master_hears_how_it_ended(void **state)
{
    static const char *const ends[] = {"crashed", "vanished", "shut_down"};

    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        int home;

        world_setup(state);
        put_after_crash(on_crash_behaviour_restart);
        assert_int_equal(start(false), 0);
        home = resident();
        unlink_all();
        guest_on(home)->state = guest_on(home)->progress = "ended";
        guest_on(home)->change = ends[i];
        restart_master();
        all_return();
        pass_ms(60000);
        assert_int_equal(power(), streq(ends[i], "shut_down") ? vm_power_state_Halted : vm_power_state_Running);
        assert_int_equal(has_message("VM_CRASHED"), !streq(ends[i], "shut_down"));
        assert_quiet();
        world_teardown(state);
    }
}

/* Nor does the next one, when its owner has settled the matter meanwhile. */
static void a_new_master_begins_nothing_that_is_not_wanted(void **state)
{
    enum { STARTED, OTHER_WISHES, START_REFUSED, TOO_LATE, WAYS };

    for (int way = 0; way < WAYS; way++) {
        world_setup(state);
        crash_and_wait();
        if (way == STARTED) {
            put_all_away(false);
            assert_int_equal(start(false), 0);
            assert_int_equal(op_hard_shutdown(), 0);
        } else if (way == OTHER_WISHES) {
            put_after_crash(on_crash_behaviour_destroy);
        } else if (way == START_REFUSED) {
            put_all_away(false);
            world->refused_call = SLAVE_CALL_vm_start;
            assert_int_not_equal(start(false), 0);
        } else {
            pass_ms(11 * 60 * 1000);
            assert_true(has_message("VM_RESTART_FAILED"));
        }
        unlink_all();
        restart_master();
        all_return();
        pass_ms(60000);
        assert_int_equal(power(), vm_power_state_Halted);
        assert_int_equal(runners(vm_uuid()), 0);
        assert_quiet();
        world_teardown(state);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(a_guest_shuts_down),
        WORLD_TEST(a_guest_crashes),
        WORLD_TEST(a_guest_reboots_where_it_is),
        WORLD_TEST(no_guest_is_sent_where_none_can_be_made),
        WORLD_TEST(a_vm_begins_anew_where_it_can),
        WORLD_TEST(a_vm_begins_anew_after_a_refusal),
        WORLD_TEST(a_vm_that_is_not_wanted_any_more_stays_halted),
        WORLD_TEST(a_new_master_goes_on),
        cmocka_unit_test(a_master_dies_at_its_attempt),
        cmocka_unit_test(a_new_master_hears_how_it_ended),
        cmocka_unit_test(a_new_master_begins_nothing_that_is_not_wanted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
