/* test_agent_link.c - an agent's link to its master: hello, frames in order, who is followed, notes until they are
 * acknowledged */
#include "tests/unit/agent_world.h"

/* ---- hello and link ---- */

static void hello_says_who_and_what_runs(void **state)
{
    struct fixture *f = *state;
    struct wire_frame *hello = last_of(f, WIRE_HELLO);
    const struct value *item;

    assert_true(ref_equal(hello->host, host));
    assert_int_equal(hello->guests.length, 0);
    assert_true(agent_is_linked(f->agent));
    start(f, 3);
    f->got.count = 0;
    agent_restart(f);
    hello = last_of(f, WIRE_HELLO);
    assert_int_equal(hello->epoch, 5);
    assert_true(ref_equal(hello->holder, alice));
    assert_int_equal(hello->guests.length, 1);
    item = &hello->guests.items[0];
    assert_string_equal(value_map_text(item, "state", ""), "running");
    assert_string_equal(value_map_text(item, "progress", ""), "ran");
    assert_int_equal(value_map_find(item, "epoch")->i, 3);
    assert_string_equal(value_map_text(&hello->about, "memory_bytes", ""), "1073741824");
}

static void clients_are_told_whose_slave_it_is(void **state)
{
    struct fixture *f = *state;
    struct standing_now now;

    standing_get(f->standing, &now);
    assert_int_equal(now.kind, STANDING_SLAVE);
    assert_string_equal(now.master_address, "192.0.2.1");
    assert_true(now.is_linked);
    pass_ms(f, 6000); /* nothing is heard of the master */
    standing_get(f->standing, &now);
    assert_int_equal(now.kind, STANDING_SLAVE);
    assert_false(now.is_linked);
    welcome(f);
    standing_get(f->standing, &now);
    assert_true(now.is_linked);
    agent_down(f);
    standing_destroy(&f->standing);
    f->standing = standing_new();
    f->is_silent = true;
    agent_up(f); /* that it had a master is not enough: this one may be another's by now */
    standing_get(f->standing, &now);
    assert_int_equal(now.kind, STANDING_BOOTING);
}

/* As the master tells them, with the directory; kept for the next agent, which may find no master. */
static void accounts_are_kept(void **state)
{
    struct fixture *f = *state;
    struct value items[] = {value_text("root"), value_text("$y$hash")};
    struct wire_frame frame = {.type = WIRE_DIRECTORY, .body = VALUE_EMPTY_MAP};
    uint64_t syncs;

    say(f, frame); /* of an older master, which tells none */
    run(f);
    assert_null(accounts_hash(f->ledger, "root", f->arena));
    frame.accounts = VALUE_MAP(1, items);
    syncs = f->disk.syncs;
    say(f, frame);
    run(f);
    assert_string_equal(accounts_hash(f->ledger, "root", f->arena), "$y$hash");
    assert_true(f->disk.syncs > syncs); /* at once, without any operation */
    frame.accounts = (struct value){0}; /* not told: as they were */
    say(f, frame);
    run(f);
    f->is_silent = true;
    agent_restart(f);
    assert_string_equal(accounts_hash(f->ledger, "root", f->arena), "$y$hash");
}

static void a_link_can_be_made_anew(void **state)
{
    struct fixture *f = *state;
    uint64_t old = f->link;

    agent_link_renew(f->agent);
    run(f);
    assert_false(agent_is_linked(f->agent));
    assert_true(last_of(f, WIRE_HELLO)->link > old);
    welcome(f);
    assert_true(agent_is_linked(f->agent));
}

/* The master is left: nothing is said to it any more, and what still comes from it is not heard. */
static void a_master_can_be_left(void **state)
{
    struct fixture *f = *state;
    struct standing_now now;
    int hellos;

    agent_link_leave(f->agent);
    standing_put_booting(f->standing);
    hellos = count_of(f, WIRE_HELLO);
    assert_false(agent_is_linked(f->agent));
    assert_string_equal(f->master_key, ""); /* connected to nobody */
    snprintf(f->master_key, sizeof f->master_key, "the-master");
    say(f, (struct wire_frame){.type = WIRE_BEAT});
    pass_ms(f, 20000);
    agent_link_renew(f->agent);
    pass_ms(f, 1000);
    assert_int_equal(count_of(f, WIRE_HELLO), hellos);
    standing_get(f->standing, &now);
    assert_int_equal(now.kind, STANDING_BOOTING);
    agent_link_to(f->agent, "tcp://m", "the-master");
    run(f);
    welcome(f);
    assert_true(agent_is_linked(f->agent));
}

static void hello_waits_until_the_driver_can_tell(void **state)
{
    struct fixture *f = *state;

    agent_down(f);
    f->got.count = 0;
    f->fake.is_blind = true;
    agent_up(f);
    pass_ms(f, 2000);
    assert_int_equal(f->got.count, 0);
    f->fake.is_blind = false;
    pass_ms(f, 500);
    assert_non_null(last_of(f, WIRE_HELLO));
}

static void frames_of_older_links_and_doubled_frames_are_dropped(void **state)
{
    struct fixture *f = *state;
    uint64_t old = f->link;
    struct slave_vm_kill_args args = {.vm = vm1_text, .epoch = 3};
    struct wire_frame frame = {.type = WIRE_CALL,
                               .id = {9, 99},
                               .name = "vm_pause",
                               .deadline_ms = 1000,
                               .epoch = f->epoch,
                               .holder = f->holder,
                               .body = slave_call_pack(slave_call_row(SLAVE_CALL_vm_pause), &args, f->arena)};
    ref_t id;

    start(f, 3);
    f->transport.receiver.down(f->transport.receiver.arg, f->master_key, "test");
    pass_ms(f, 300);
    welcome(f);
    assert_true(f->link > old);
    frame.link = old;
    frame.seq = 2;
    say_raw(f, &frame);
    run(f);
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    assert_string_equal(code_of(f, frame.id), "no reply");

    id = simple(f, SLAVE_CALL_vm_pause, 3);
    assert_string_equal(state_of(f, id), "paused");
    simple(f, SLAVE_CALL_vm_unpause, 3);
    frame.link = f->link;
    frame.seq = 1; /* the pause once more */
    say_raw(f, &frame);
    run(f);
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    assert_true(agent_is_linked(f->agent));
}

static void a_gap_ends_the_link(void **state)
{
    struct fixture *f = *state;
    int hellos = count_of(f, WIRE_HELLO);

    f->sent++; /* one was lost */
    say(f, (struct wire_frame){.type = WIRE_BEAT});
    run(f);
    pass_ms(f, 100);
    assert_false(agent_is_linked(f->agent));
    assert_true(count_of(f, WIRE_HELLO) > hellos);
    welcome(f);
    assert_true(agent_is_linked(f->agent));
}

static void beats_go_each_second_and_silence_ends_the_link(void **state)
{
    struct fixture *f = *state;
    int beats = count_of(f, WIRE_BEAT);

    for (int i = 0; i < 10; i++) {
        pass_ms(f, 1000);
        say(f, (struct wire_frame){.type = WIRE_BEAT});
    }
    assert_in_range(count_of(f, WIRE_BEAT) - beats, 9, 11);
    assert_true(agent_is_linked(f->agent));
    pass_ms(f, 6500);
    assert_false(agent_is_linked(f->agent));
}

static void lower_epochs_and_second_holders_are_refused(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    f->epoch = 4;
    id = start(f, 3);
    assert_string_equal(code_of(f, id), "no reply");
    assert_non_null(last_of(f, WIRE_REFUSE));
    assert_int_equal(last_of(f, WIRE_REFUSE)->epoch, 5);
    assert_null(fake_find(&f->fake, vm1));
    f->epoch = 5;
    f->holder = bob;
    f->sent = 0;
    id = start(f, 3);
    assert_string_equal(code_of(f, id), "no reply");
    assert_null(fake_find(&f->fake, vm1));
    /* a higher epoch is followed, for ever */
    f->epoch = 6;
    f->sent = 0;
    id = start(f, 3);
    assert_string_equal(state_of(f, id), "running");
    agent_restart(f);
    assert_int_equal(last_of(f, WIRE_HELLO)->epoch, 6);
    f->epoch = 5;
    f->holder = alice;
    f->got.count = 1;
    f->got.list[0] = *last_of(f, WIRE_HELLO);
    agent_down(f);
    f->got.count = 0;
    agent_up(f);
    assert_false(agent_is_linked(f->agent));
    assert_non_null(last_of(f, WIRE_REFUSE));
}

/* ---- notes ---- */

static void a_guest_that_ends_by_itself_is_told_until_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct wire_frame *note;
    uint64_t number;

    start(f, 3);
    fake_guest_changes(&f->fake, vm1, GUEST_CRASHED);
    run(f);
    note = last_of(f, WIRE_NOTE);
    assert_non_null(note);
    assert_string_equal(note->name, "guest");
    assert_true(ref_equal(note->vm, vm1));
    assert_int_equal(note->vm_epoch, 3);
    assert_string_equal(value_map_text(&note->body, "change", ""), "crashed");
    number = note->number;

    f->got.count = 0;
    f->transport.receiver.down(f->transport.receiver.arg, f->master_key, "test");
    pass_ms(f, 300);
    welcome(f);
    note = last_of(f, WIRE_NOTE);
    assert_non_null(note);
    assert_int_equal(note->number, number);
    say(f, (struct wire_frame){.type = WIRE_ACK, .number = number});
    f->got.count = 0;
    f->transport.receiver.down(f->transport.receiver.arg, f->master_key, "test");
    pass_ms(f, 300);
    welcome(f);
    assert_null(last_of(f, WIRE_NOTE));
}

static void samples_replace_one_another(void **state)
{
    struct fixture *f = *state;
    struct wire_frame *note;

    start(f, 3);
    f->transport.receiver.down(f->transport.receiver.arg, f->master_key, "test");
    pass_ms(f, 20000);
    f->got.count = 0;
    f->agent->config.master_dead_ms = 100000;
    pass_ms(f, 2100);
    welcome(f);
    assert_int_equal(count_of(f, WIRE_NOTE), 1);
    note = last_of(f, WIRE_NOTE);
    assert_string_equal(note->name, "samples");
    assert_int_equal(value_map_find(&note->body, "memory_total")->i, 1 << 30);
    assert_int_equal(value_map_find(&note->body, "memory_free")->i, (1 << 30) - (1 << 20));
    assert_int_equal(value_map_find(&note->body, "guests")->length, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(hello_says_who_and_what_runs),
        TEST(clients_are_told_whose_slave_it_is),
        TEST(accounts_are_kept),
        TEST(a_link_can_be_made_anew),
        TEST(a_master_can_be_left),
        TEST(hello_waits_until_the_driver_can_tell),
        TEST(frames_of_older_links_and_doubled_frames_are_dropped),
        TEST(a_gap_ends_the_link),
        TEST(beats_go_each_second_and_silence_ends_the_link),
        TEST(lower_epochs_and_second_holders_are_refused),
        TEST(a_guest_that_ends_by_itself_is_told_until_acknowledged),
        TEST(samples_replace_one_another),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
