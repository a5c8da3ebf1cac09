/* test_agent_calls.c - calls at an agent: each effect once, whatever is lost, repeated or restarted */
#include "tests/unit/agent_world.h"

static void a_start_happens_once(void **state)
{
    struct fixture *f = *state;
    ref_t id = start(f, 3);

    assert_string_equal(state_of(f, id), "running");
    f->got.count = 0;
    start_as(f, id, 3); /* the same operation: the same reply */
    assert_string_equal(state_of(f, id), "running");
    id = start(f, 3); /* another one, the same right */
    assert_string_equal(state_of(f, id), "running");
    assert_int_equal(guest(f)->starts, 1);
    assert_int_equal(guest(f)->runs, 1);

    fake_guest_changes(&f->fake, vm1, GUEST_SHUT_DOWN);
    run(f);
    id = start(f, 3); /* ended since: that is the answer */
    assert_string_equal(state_of(f, id), "ended");
    assert_int_equal(guest(f)->starts, 1);
    id = start(f, 2);
    assert_string_equal(code_of(f, id), "INTERNAL_ERROR");
    id = start(f, 4); /* a new right */
    assert_string_equal(state_of(f, id), "running");
    assert_int_equal(guest(f)->starts, 2);
}

static void a_result_is_kept_until_it_is_confirmed(void **state)
{
    struct fixture *f = *state;
    ref_t id = start(f, 3);
    struct value item = VALUE_REF(id);

    agent_restart(f);
    ask(f, id);
    assert_string_equal(answer_of(f, id), "done");
    assert_string_equal(value_map_text(&of_id(f, WIRE_ANSWER, id)->body, "state", ""), "running");
    assert_int_equal(last_of(f, WIRE_HELLO)->operations.length, 1);
    say(f, (struct wire_frame){.type = WIRE_CONFIRM, .operations = VALUE_SET(1, &item)});
    run(f);
    assert_int_equal(ledger_op_count(f->ledger), 0);
}

static void what_was_asked_before_it_came_never_happens(void **state)
{
    struct fixture *f = *state;
    ref_t id = new_id(f);

    ask(f, id);
    assert_string_equal(answer_of(f, id), "never");
    start_as(f, id, 3);
    assert_string_equal(code_of(f, id), "INTERNAL_ERROR");
    agent_restart(f);
    start_as(f, id, 3);
    assert_null(fake_find(&f->fake, vm1));
    ask(f, id);
    assert_string_equal(answer_of(f, id), "never");
}

static void never_is_said_only_when_it_is_in_the_file(void **state)
{
    struct fixture *f = *state;
    ref_t id = new_id(f);

    f->disk.sync_ms = 200;
    ask(f, id);
    pass_ms(f, 100);
    assert_string_equal(answer_of(f, id), "no answer");
    pass_ms(f, 200);
    assert_string_equal(answer_of(f, id), "never");
}

static void an_effect_waits_until_its_id_is_in_the_file(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    f->disk.sync_ms = 200;
    id = start(f, 3);
    pass_ms(f, 100);
    assert_null(fake_find(&f->fake, vm1));
    ask(f, id);
    assert_string_equal(answer_of(f, id), "pending");
    f->disk.sync_ms = 0;
    agent_restart(f); /* nothing had been written: it never happened */
    ask(f, id);
    assert_string_equal(answer_of(f, id), "never");
    assert_null(fake_find(&f->fake, vm1));
}

static void an_interrupted_start_is_finished_when_repeated(void **state)
{
    struct fixture *f = *state;
    ref_t id = new_id(f);

    f->fake.is_holding = true; /* the guest is made, its agent does not hear of it */
    start_as(f, id, 3);
    pass_ms(f, 100);
    assert_int_equal(guest(f)->starts, 1);
    f->fake.is_holding = false;
    agent_restart(f);
    ask(f, id);
    assert_string_equal(answer_of(f, id), "interrupted");
    start_as(f, id, 3);
    assert_string_equal(state_of(f, id), "running");
    assert_int_equal(guest(f)->starts, 1);
    assert_int_equal(guest(f)->runs, 1);
}

/* Whatever a driver fails with, clients get what the row of the code says. */
static void a_drivers_failure_fits_its_row(void **state)
{
    struct fixture *f = *state;
    static const struct {
        int code;
        const char *first;
    } cases[] = {
        {ERR_SR_BACKEND_FAILURE, "5"},
        {ERR_INVALID_VALUE, "other_config"},
        {ERR_DOMAIN_EXISTS, vm1_text},
        {ERR_OTHER_OPERATION_IN_PROGRESS, "VM"},
        {ERR_HOST_NOT_ENOUGH_FREE_MEMORY, "134217728"}, /* what a guest of no options has */
        {ERR_VM_MIGRATE_FAILED, vm1_text},
        {ERR_FAILED_TO_START_EMULATOR, vm1_text},
        {ERR_INVALID_DEVICE, ""},
        {ERR_HOST_STILL_BOOTING, NULL},
        {ERR_INTERNAL_ERROR, "it failed"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct error_row *row = model_error(cases[i].code);
        struct wire_frame *reply;
        ref_t id;

        f->fake.fail_next = -cases[i].code;
        id = start(f, (int64_t) i + 3);
        assert_string_equal(code_of(f, id), row->code);
        reply = of_id(f, WIRE_REPLY, id);
        assert_int_equal(reply->params.length, row->param_count);
        if (cases[i].first)
            assert_string_equal(reply->params.items[0].text, cases[i].first);
    }
}

static void a_start_that_fails_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    f->fake.fail_next = -ERR_BOOTLOADER_FAILED;
    id = start(f, 3);
    assert_string_equal(code_of(f, id), "BOOTLOADER_FAILED");
    assert_int_equal(of_id(f, WIRE_REPLY, id)->params.length, 2);
    assert_string_equal(of_id(f, WIRE_REPLY, id)->params.items[0].text, vm1_text);
    id = start(f, 3);
    assert_string_equal(state_of(f, id), "ended");
    id = start(f, 4);
    assert_string_equal(state_of(f, id), "running");
}

/* The guest was made, and cannot be let run: the master takes it for not started, so nothing of it stays. */
static void a_start_that_fails_when_repeated_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    ref_t id = new_id(f);

    f->fake.is_holding = true;
    start_as(f, id, 3);
    pass_ms(f, 100);
    f->fake.is_holding = false;
    agent_restart(f);
    f->fake.fail_next = -ERR_INTERNAL_ERROR;
    start_as(f, id, 3);
    assert_string_equal(code_of(f, id), "INTERNAL_ERROR");
    assert_int_not_equal(guest(f)->found.state, GUEST_PAUSED);
    assert_string_equal(state_of(f, start(f, 4)), "running");
}

static void replies_are_lost_at_named_points(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    assert_true(crash_arm("slave.vm_start.reply.before:drop-reply"));
    id = start(f, 3);
    assert_string_equal(code_of(f, id), "no reply");
    pass_ms(f, 1000);
    assert_int_equal(last_of(f, WIRE_BEAT)->seq, 2); /* by which the master notices */
    ask(f, id);
    assert_string_equal(answer_of(f, id), "done");
    assert_true(crash_arm("slave.vm_pause.call.before:drop-reply"));
    id = simple(f, SLAVE_CALL_vm_pause, 3);
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    say(f, (struct wire_frame){.type = WIRE_BEAT}); /* by which the agent notices */
    pass_ms(f, 100);
    assert_false(agent_is_linked(f->agent));
    welcome(f);
    ask(f, id);
    assert_string_equal(answer_of(f, id), "never");
}

static void bad_calls_are_answered(void **state)
{
    struct fixture *f = *state;
    ref_t id = new_id(f);
    struct slave_vm_kill_args args = {.vm = "no uuid", .epoch = 3};
    struct value map = VALUE_EMPTY_MAP;

    say(f, (struct wire_frame){.type = WIRE_CALL, .id = id, .name = "vm_dance", .deadline_ms = 1, .body = map});
    run(f);
    assert_string_equal(code_of(f, id), "INTERNAL_ERROR");
    id = new_id(f);
    say(f, (struct wire_frame){.type = WIRE_CALL, .id = id, .name = "vm_kill", .deadline_ms = 1, .body = map});
    run(f);
    assert_string_equal(code_of(f, id), "FIELD_TYPE_ERROR");
    id = call(f, SLAVE_CALL_vm_kill, &args);
    assert_string_equal(code_of(f, id), "UUID_INVALID");
    f->transport.receiver.frame(f->transport.receiver.arg, f->master_key, "garbage", 7);
    f->transport.receiver.frame(f->transport.receiver.arg, "somebody else", "\x80", 1);
    assert_true(agent_is_linked(f->agent));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_start_happens_once),
        TEST(a_result_is_kept_until_it_is_confirmed),
        TEST(what_was_asked_before_it_came_never_happens),
        TEST(never_is_said_only_when_it_is_in_the_file),
        TEST(an_effect_waits_until_its_id_is_in_the_file),
        TEST(an_interrupted_start_is_finished_when_repeated),
        TEST(a_drivers_failure_fits_its_row),
        TEST(a_start_that_fails_leaves_nothing),
        TEST(a_start_that_fails_when_repeated_leaves_nothing),
        TEST(replies_are_lost_at_named_points),
        TEST(bad_calls_are_answered),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
