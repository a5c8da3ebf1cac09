/* test_agent_life.c - guests that an agent starts, pauses, shuts down, reboots and kills */
#include "tests/unit/agent_world.h"

static void pause_unpause_kill_and_forget(void **state)
{
    struct fixture *f = *state;

    start(f, 3);
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_pause, 3)), "paused");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_unpause, 3)), "running");
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_forget, 3)), "VM_BAD_POWER_STATE");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_kill, 3)), "ended");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_kill, 3)), "ended");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_unpause, 3)), "ended");
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_pause, 3)), "VM_BAD_POWER_STATE");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_forget, 3)), "ended");
    assert_int_equal(count_of(f, WIRE_NOTE), 0); /* what the master did itself it need not be told */
}

static void a_shutdown_is_answered_when_the_guest_has_ended(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_shutdown_args args = {.vm = vm1_text, .epoch = 3, .timeout_s = 60};
    struct wire_frame *note;
    ref_t id, again;

    start(f, 3);
    id = call(f, SLAVE_CALL_vm_shutdown, &args);
    pass_ms(f, 2000);
    assert_string_equal(code_of(f, id), "no reply");
    fake_guest_changes(&f->fake, vm1, GUEST_SHUT_DOWN);
    run(f);
    assert_string_equal(state_of(f, id), "ended");
    assert_int_equal(count_of(f, WIRE_NOTE), 1); /* who asked for it may no longer wait */
    note = last_of(f, WIRE_NOTE);
    assert_string_equal(value_map_text(&note->body, "change", ""), "shut_down");
    assert_int_equal(value_map_find(&note->body, "domid")->i, guest(f)->found.domid);

    start(f, 4);
    args.epoch = 4;
    args.timeout_s = 2;
    again = call(f, SLAVE_CALL_vm_shutdown, &args);
    pass_ms(f, 3000);
    assert_string_equal(code_of(f, again), "VM_SHUTDOWN_TIMEOUT");
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
}

static void a_kill_ends_what_waits(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_shutdown_args args = {.vm = vm1_text, .epoch = 3, .timeout_s = 600};
    ref_t shutdown, kill;

    start(f, 3);
    shutdown = call(f, SLAVE_CALL_vm_shutdown, &args);
    kill = simple(f, SLAVE_CALL_vm_kill, 3);
    run(f);
    assert_string_equal(state_of(f, kill), "ended");
    assert_string_equal(state_of(f, shutdown), "ended");
}

static void reboot_as(struct fixture *f, ref_t id, bool is_hard)
{
    struct slave_vm_reboot_args args = {.vm = vm1_text,
                                        .epoch = 3,
                                        .config = &no_options,
                                        .disks = &no_disks,
                                        .nics = &no_disks,
                                        .is_hard = is_hard,
                                        .timeout_s = 600};

    call_as(f, id, SLAVE_CALL_vm_reboot, &args);
}

static ref_t reboot(struct fixture *f, bool is_hard)
{
    ref_t id = new_id(f);

    reboot_as(f, id, is_hard);
    return id;
}

static void a_reboot_happens_once(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    start(f, 3);
    f->fake.is_holding = false;
    id = reboot(f, true);
    assert_string_equal(state_of(f, id), "running");
    assert_int_equal(guest(f)->starts, 2);

    id = new_id(f);
    assert_true(crash_arm("slave.vm_reboot.effect:drop-reply"));
    f->disk.sync_ms = 0;
    reboot_as(f, id, true);
    assert_int_equal(guest(f)->starts, 3);
    agent_restart(f);
    reboot_as(f, id, true);
    assert_string_equal(state_of(f, id), "running");
    assert_int_equal(guest(f)->starts, 3);
}

static void a_kill_ends_a_reboot_that_waits(void **state)
{
    struct fixture *f = *state;
    ref_t waiting, kill;

    start(f, 3);
    waiting = reboot(f, false);
    kill = simple(f, SLAVE_CALL_vm_kill, 3);
    run(f);
    assert_string_equal(state_of(f, kill), "ended");
    assert_string_equal(code_of(f, waiting), "VM_BAD_POWER_STATE");
    assert_int_equal(guest(f)->starts, 1);
}

/* Those that wait had asked another guest, which is gone. */
static void a_hard_reboot_is_not_undone_by_what_it_overtook(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_shutdown_args args = {.vm = vm1_text, .epoch = 3, .timeout_s = 600};
    ref_t clean, shutdown, hard;
    struct wire_frame *note;

    start(f, 3);
    clean = reboot(f, false);
    shutdown = call(f, SLAVE_CALL_vm_shutdown, &args);
    hard = reboot(f, true);
    pass_ms(f, 1000);
    assert_string_equal(state_of(f, hard), "running");
    assert_string_equal(code_of(f, clean), "TASK_CANCELLED");
    assert_string_equal(code_of(f, shutdown), "TASK_CANCELLED");
    assert_int_equal(guest(f)->starts, 2);
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);

    fake_guest_changes(&f->fake, vm1, GUEST_CRASHED); /* the new one: nobody waits for it */
    run(f);
    note = last_of(f, WIRE_NOTE);
    assert_non_null(note);
    assert_string_equal(value_map_text(&note->body, "change", ""), "crashed");
}

static void a_reboot_that_fails_half_way_is_told(void **state)
{
    struct fixture *f = *state;
    struct wire_frame *note;
    ref_t id;

    start(f, 3);
    f->fake.fail_next = -ERR_BOOTLOADER_FAILED;
    id = reboot(f, true);
    run(f);
    assert_string_equal(code_of(f, id), "BOOTLOADER_FAILED");
    note = last_of(f, WIRE_NOTE);
    assert_non_null(note);
    assert_string_equal(note->name, "guest");
    assert_int_equal(note->vm_epoch, 3);
}

/* As vm_ask tells it. */
static const char *change(struct fixture *f)
{
    ref_t id = call(f, SLAVE_CALL_vm_ask, &(struct slave_vm_ask_args){.vm = vm1_text});

    run(f);
    return value_map_text(&of_id(f, WIRE_REPLY, id)->body, "change", "none");
}

/* By whoever was there to see it, for a master that was not. */
static void how_a_guest_ended_is_remembered(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(change(f), "");
    start(f, 3);
    assert_string_equal(change(f), "");
    fake_guest_changes(&f->fake, vm1, GUEST_CRASHED);
    run(f);
    assert_string_equal(change(f), "crashed");
    agent_restart(f);
    assert_string_equal(change(f), "crashed");
    start(f, 4);
    assert_string_equal(change(f), "");
    guest(f)->found.state = GUEST_ENDED; /* while no agent is there */
    guest(f)->found.ended_by = GUEST_REBOOTED;
    agent_restart(f);
    assert_string_equal(change(f), "rebooted");
    start(f, 5);
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_kill, 5)), "ended");
    assert_string_equal(change(f), ""); /* that was somebody's order */
}

static void a_late_abort_leaves_a_running_guest_its_right(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_receive_abort_args abort = {.vm = vm1_text, .epoch = 4, .move = "move"};
    ref_t id;

    start(f, 3);
    id = call(f, SLAVE_CALL_vm_receive_abort, &abort);
    run(f);
    assert_string_equal(state_of(f, id), "running");
    id = simple(f, SLAVE_CALL_vm_pause, 3);
    run(f);
    assert_string_equal(state_of(f, id), "paused");
}

/* A guest cannot be made while what runs them is away: told at once, and with each hello. */
static void a_driver_that_is_away_is_told(void **state)
{
    struct fixture *f = *state;
    struct hypervisor_events *events = &f->fake.hypervisor.events;
    int notes;

    pass_ms(f, 100);
    notes = count_of(f, WIRE_NOTE);
    events->reachable(events->arg, true); /* as it was */
    pass_ms(f, 100);
    assert_int_equal(count_of(f, WIRE_NOTE), notes);
    events->reachable(events->arg, false);
    pass_ms(f, 100);
    assert_string_equal(last_of(f, WIRE_NOTE)->name, "hypervisor");
    assert_string_equal(value_map_text(&last_of(f, WIRE_NOTE)->body, "state", ""), "away");
    agent_link_renew(f->agent);
    pass_ms(f, 1000);
    assert_string_equal(value_map_text(&last_of(f, WIRE_HELLO)->about, "hypervisor_state", ""), "away");
    welcome(f);
    events->reachable(events->arg, true);
    pass_ms(f, 100);
    assert_string_equal(value_map_text(&last_of(f, WIRE_NOTE)->body, "state", ""), "there");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_driver_that_is_away_is_told),
        TEST(pause_unpause_kill_and_forget),
        TEST(a_shutdown_is_answered_when_the_guest_has_ended),
        TEST(a_kill_ends_what_waits),
        TEST(a_reboot_happens_once),
        TEST(a_kill_ends_a_reboot_that_waits),
        TEST(a_hard_reboot_is_not_undone_by_what_it_overtook),
        TEST(a_reboot_that_fails_half_way_is_told),
        TEST(how_a_guest_ended_is_remembered),
        TEST(a_late_abort_leaves_a_running_guest_its_right),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
