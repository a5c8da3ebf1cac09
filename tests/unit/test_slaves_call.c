/* test_slaves_call.c - slave calls: answered, lost, asked for, sent again, in doubt */
#include "tests/unit/slaves_world.h"

static void a_call_is_answered_and_confirmed(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    struct wire_frame *sent;

    caller_begin(f, &caller);
    sent = last_of(f, WIRE_CALL);
    assert_string_equal(sent->name, "vm_unpause");
    assert_int_equal(sent->epoch, 7);
    assert_int_equal(sent->deadline_ms, 60000);
    assert_string_equal(value_map_text(&sent->body, "vm", ""), vm1_text);
    assert_false(caller.is_done);
    reply_running(f, sent->id);
    assert_int_equal(caller.r, 0);
    assert_false(caller.is_in_doubt);
    assert_string_equal(value_map_text(&caller.ret, "state", ""), "running");
    assert_true(ref_equal(last_of(f, WIRE_CONFIRM)->operations.items[0].ref, sent->id));
    caller_end(&caller);
}

static void a_failure_comes_with_its_details(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    struct value params[] = {value_text(vm1_text), value_text("paused"), value_text("halted")};

    caller_begin(f, &caller);
    say(f, (struct wire_frame){.type = WIRE_REPLY,
                               .id = last_of(f, WIRE_CALL)->id,
                               .code = "VM_BAD_POWER_STATE",
                               .params = VALUE_SET(3, params)});
    assert_int_equal(caller.r, -ERR_VM_BAD_POWER_STATE);
    assert_string_equal(caller.call.failure.params[2], "halted");
    assert_false(caller.is_in_doubt);
    caller_end(&caller);
}

/* Slaves know uuids, files and operations, clients know references. */
static void a_failure_names_what_clients_know(void **state)
{
    struct fixture *f = *state;
    struct core *core = &f->mini.core;
    struct txn *txn = store_begin(core->store);
    ref_t sr = txn_create_new(txn, core->random, CLASS_OF(SR), NULL);
    ref_t vdi = txn_create_new(txn, core->random, CLASS_OF(VDI), NULL);
    ref_t old = txn_create_new(txn, core->random, CLASS_OF(VDI), NULL);
    const char *sr_uuid, *file;
    struct arena *arena = arena_new();

    sr_uuid = arena_strdup(arena, SR_get_uuid(txn_get(txn, SR, sr)));
    file = arena_text(arena, "%s.raw", VDI_get_uuid(txn_get(txn, VDI, vdi)));
    VDI_put_location(txn, vdi, file);
    VDI_put_location(txn, old, "from-before.raw");
    store_apply(&txn);
    mini_run(&f->mini);
    {
        const struct {
            const char *code, *first, *second, *expected_second;
            ref_t expected;
        } cases[] = {
            {"VDI_LOCATION_MISSING", sr_uuid, "a.raw", "a.raw", sr},
            {"VDI_IN_USE", file, "attach", "attach", vdi},
            {"VDI_IN_USE", "from-before.raw", "attach", "attach", old},
            {"VDI_IN_USE", "of-nobody.raw", "attach", "attach", NULL_REF},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
            struct value params[] = {value_text(cases[i].first), value_text(cases[i].second)};
            struct asker caller = {0};
            const struct failure *failure = &caller.call.failure;

            caller_begin(f, &caller);
            say(f, (struct wire_frame){.type = WIRE_REPLY,
                                       .id = last_of(f, WIRE_CALL)->id,
                                       .code = cases[i].code,
                                       .params = VALUE_SET(2, params)});
            assert_true(caller.r < 0);
            assert_string_equal(failure->params[0], ref_is_null(cases[i].expected)
                                                        ? cases[i].first
                                                        : ref_text(&caller.call, cases[i].expected));
            assert_string_equal(failure->params[1], cases[i].expected_second);
            caller_end(&caller);
        }
    }
    arena_destroy(&arena);
}

static void a_result_of_the_wrong_form_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    struct value item = VALUE_INT(3);

    caller_begin(f, &caller);
    say(f, (struct wire_frame){.type = WIRE_REPLY, .id = last_of(f, WIRE_CALL)->id, .body = VALUE_SET(1, &item)});
    assert_true(caller.is_done);
    assert_true(caller.r < 0);
    caller_end(&caller);
}

static void a_lost_reply_is_asked_for_on_the_next_link(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id;

    caller_begin(f, &caller);
    id = last_of(f, WIRE_CALL)->id;
    link_down(f);
    reply_running(f, id); /* of the old link: dropped */
    assert_false(caller.is_done);
    hello(f);
    assert_true(ref_equal(last_of(f, WIRE_ASK)->id, id));
    answer(f, id, "pending");
    assert_false(caller.is_done);
    reply_running(f, id);
    assert_int_equal(caller.r, 0);
    caller_end(&caller);
}

static void never_means_that_it_may_be_sent_anew(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id, second;

    caller_begin(f, &caller);
    id = last_of(f, WIRE_CALL)->id;
    hello(f);
    answer(f, id, "never");
    assert_false(caller.is_done);
    second = last_of(f, WIRE_CALL)->id;
    assert_false(ref_equal(id, second)); /* the first one is void for ever */
    reply_running(f, second);
    assert_int_equal(caller.r, 0);
    caller_end(&caller);
}

static void never_after_the_deadline_is_the_end(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id;

    caller_begin(f, &caller);
    id = last_of(f, WIRE_CALL)->id;
    pass_ms(f, 61000, true);
    assert_true(ref_equal(last_of(f, WIRE_ASK)->id, id));
    answer(f, id, "never");
    assert_int_equal(caller.r, -ERR_HOST_OFFLINE);
    assert_false(caller.is_in_doubt);
    caller_end(&caller);
}

static void an_interrupted_call_is_sent_again_under_its_id(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id;

    caller_begin(f, &caller);
    id = last_of(f, WIRE_CALL)->id;
    hello(f);
    assert_int_equal(count_of(f, WIRE_CALL), 1);
    answer(f, id, "interrupted");
    assert_int_equal(count_of(f, WIRE_CALL), 2);
    assert_true(ref_equal(last_of(f, WIRE_CALL)->id, id));
    reply_running(f, id);
    assert_int_equal(caller.r, 0);
    caller_end(&caller);
}

static void after_the_deadline_it_asks_and_then_is_in_doubt(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id;

    caller_begin(f, &caller);
    id = last_of(f, WIRE_CALL)->id;
    pass_ms(f, 59000, true);
    assert_null(last_of(f, WIRE_ASK));
    pass_ms(f, 2000, true);
    assert_true(ref_equal(last_of(f, WIRE_ASK)->id, id));
    assert_false(caller.is_done);
    pass_ms(f, 6000, true);
    assert_int_equal(caller.r, -ERR_HOST_OFFLINE);
    assert_true(caller.is_in_doubt);
    assert_null(last_of(f, WIRE_CONFIRM)); /* somebody will ask for it */
    caller_end(&caller);
}

static void a_host_that_is_given_up_leaves_doubt(void **state)
{
    struct fixture *f = *state;
    struct asker sent = {0}, late = {0}, unknown = {.host = {1, 1}};

    caller_begin(f, &sent);
    pass_ms(f, 12000, false);
    assert_int_equal(sent.r, -ERR_HOST_OFFLINE);
    assert_true(sent.is_in_doubt);
    caller_begin(f, &late); /* at once, and nothing was sent */
    assert_int_equal(late.r, -ERR_HOST_OFFLINE);
    assert_false(late.is_in_doubt);
    caller_begin(f, &unknown);
    assert_int_equal(unknown.r, -ERR_HOST_OFFLINE);
    assert_int_equal(count_of(f, WIRE_CALL), 1);
    caller_end(&sent);
    caller_end(&late);
    caller_end(&unknown);
}

static void a_call_waits_for_a_link_that_is_only_away(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};

    link_down(f);
    caller_begin(f, &caller);
    assert_null(last_of(f, WIRE_CALL));
    hello(f);
    assert_non_null(last_of(f, WIRE_CALL));
    reply_running(f, last_of(f, WIRE_CALL)->id);
    assert_int_equal(caller.r, 0);
    caller_end(&caller);
}

static void cancelling_leaves_doubt_when_it_was_sent(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};

    caller_begin(f, &caller);
    fiber_cancel(caller.fiber);
    mini_run(&f->mini);
    assert_int_equal(caller.r, -ERR_TASK_CANCELLED);
    assert_true(caller.is_in_doubt);
    caller_end(&caller);
}

static ref_t make_intent(struct fixture *f, const char *operation_id)
{
    struct txn *txn = store_begin(f->mini.core.store);
    ref_t intent = txn_create_new(txn, f->mini.core.random, CLASS_OF(intent), NULL);

    intent_put_operation_id(txn, intent, operation_id);
    store_apply(&txn);
    txn_end(&txn);
    mini_run(&f->mini);
    return intent;
}

static void the_intent_names_the_operation_before_it_leaves(void **state)
{
    struct fixture *f = *state;
    struct core *core = &f->mini.core;
    struct asker caller = {0};
    struct wire_frame *sent;
    char uuid[UUID_TEXT_BYTES];

    caller.call.intent = make_intent(f, "");
    caller_begin(f, &caller);
    sent = last_of(f, WIRE_CALL);
    assert_string_equal(intent_get_operation_id(view_get(store_core_view(core->store), intent, caller.call.intent)),
                        uuid_print(uuid, sent->id));
    reply_running(f, sent->id);
    assert_int_equal(caller.r, 0);
    assert_null(last_of(f, WIRE_CONFIRM)); /* not before the INTENT has ended */
    slave_confirm(&caller.call);
    assert_non_null(last_of(f, WIRE_CONFIRM));
    caller_end(&caller);
}

static void a_hello_confirms_what_nobody_will_ask_for(void **state)
{
    struct fixture *f = *state;
    struct value ids[] = {VALUE_REF(((ref_t){8, 1})), VALUE_REF(((ref_t){8, 2}))};
    struct wire_frame *confirm;
    char uuid[UUID_TEXT_BYTES];

    make_intent(f, uuid_print(uuid, ids[1].ref));
    f->operations = VALUE_SET(2, ids);
    hello(f);
    confirm = last_of(f, WIRE_CONFIRM);
    assert_non_null(confirm);
    assert_int_equal(confirm->operations.length, 1);
    assert_true(ref_equal(confirm->operations.items[0].ref, ids[0].ref));
}

static void an_earlier_operation_can_be_asked_for(void **state)
{
    struct fixture *f = *state;
    struct asker done = {.is_asking = true, .operation = {8, 1}}, never = {.is_asking = true, .operation = {8, 2}},
                  lost = {.is_asking = true, .operation = {8, 3}};

    caller_begin(f, &done);
    assert_true(ref_equal(last_of(f, WIRE_ASK)->id, done.operation));
    answer(f, done.operation, "done");
    assert_int_equal(done.r, 0);
    assert_int_equal(done.answer, SLAVE_ANSWER_DONE);
    assert_int_equal(done.result, 0);
    assert_string_equal(value_map_text(&done.ret, "state", ""), "running");
    caller_begin(f, &never);
    hello(f); /* asked again on the new link */
    answer(f, never.operation, "never");
    assert_int_equal(never.answer, SLAVE_ANSWER_NEVER);
    caller_begin(f, &lost);
    pass_ms(f, 11000, true);
    assert_int_equal(lost.r, -ERR_HOST_OFFLINE);
    caller_end(&done);
    caller_end(&never);
    caller_end(&lost);
}

static void crash_points_lose_messages_as_a_network_would(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id;

    assert_true(crash_arm("master.vm_unpause.call.before:drop-reply"));
    caller_begin(f, &caller);
    assert_null(last_of(f, WIRE_CALL));
    pass_ms(f, 1000, true);
    assert_int_equal(last_of(f, WIRE_BEAT)->seq, last_of(f, WIRE_DIRECTORY)->seq + 2); /* the slave sees the gap, */
    hello(f);                                                                          /* says hello, */
    id = last_of(f, WIRE_ASK)->id;
    answer(f, id, "never");                                                            /* and has not seen it: */
    reply_running(f, last_of(f, WIRE_CALL)->id);                                       /* it is sent anew */
    assert_int_equal(caller.r, 0);
    assert_false(caller.is_in_doubt);
    caller_end(&caller);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_call_is_answered_and_confirmed),
        TEST(a_failure_comes_with_its_details),
        TEST(a_failure_names_what_clients_know),
        TEST(a_result_of_the_wrong_form_is_an_error),
        TEST(a_lost_reply_is_asked_for_on_the_next_link),
        TEST(never_means_that_it_may_be_sent_anew),
        TEST(never_after_the_deadline_is_the_end),
        TEST(an_interrupted_call_is_sent_again_under_its_id),
        TEST(after_the_deadline_it_asks_and_then_is_in_doubt),
        TEST(a_host_that_is_given_up_leaves_doubt),
        TEST(a_call_waits_for_a_link_that_is_only_away),
        TEST(cancelling_leaves_doubt_when_it_was_sent),
        TEST(the_intent_names_the_operation_before_it_leaves),
        TEST(a_hello_confirms_what_nobody_will_ask_for),
        TEST(an_earlier_operation_can_be_asked_for),
        TEST(crash_points_lose_messages_as_a_network_would),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
