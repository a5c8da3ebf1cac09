/* test_filter.c - filter expressions, and what event readers are told since a generation */
#include "master/filter.h"
#include "master/subscription.h"
#include "tests/unit/mini_master.h"

/* ---- filters ---- */

static int parse(const char *text, struct arena *arena, struct filter **filter,
                 struct failure *failure)
{
    return filter_parse(text, CLASS_OF(role), arena, filter, failure);
}

static unsigned matches(struct mini *mini, const char *text)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    const struct view *view = store_core_view(mini->core.store);
    struct failure failure = {0};
    struct filter *filter;
    struct view_iter iter;
    const struct object *object;
    unsigned n = 0;

    assert_int_equal(parse(text, arena, &filter, &failure), 0);
    view_each(&iter, view, CLASS_OF(role));
    while ((object = view_next(&iter)))
        n += filter_matches(filter, view, object, arena);
    return n;
}

static void expressions_choose_objects(void **state)
{
    static const struct {
        const char *text;
        unsigned count;
    } cases[] = {
        {"true", 6},
        {"false", 0},
        {"not false", 6},
        {"not not true", 6},
        {"true or false and false", 6}, /* and binds tighter */
        {"(true or false) and false", 0},
        {"field \"name__label\"=\"vm-admin\"", 1},
        {"field 'name_label' = 'vm-admin'", 1},
        {"\"vm-admin\" = field \"name_label\"", 1},
        {"\"a\\\"b\" = \"a\\\"b\"", 6},
        {"field \"is_internal\" = \"false\" and not field \"name_label\" = \"vm-admin\"", 5},
        {"field \"subroles\"=\"()\"", 6},
        {"field \"name_label\" = field \"name_description\"", 0},
        {"  (  true  )  ", 6},
        {"false or false or true and true and true", 6},
    };
    struct mini mini;

    (void) state;
    mini_start(&mini);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        print_message("%s\n", cases[i].text);
        assert_int_equal(matches(&mini, cases[i].text), cases[i].count);
    }
    mini_stop(&mini);
}

static void bad_expressions_are_refused(void **state)
{
    static const char *const bad[] = {
        "",
        " ",
        "true false",
        "(",
        ")",
        "()",
        "not",
        "true and",
        "field",
        "field \"x\"",
        "\"a\"",
        "\"a\" =",
        "\"a\"=\"b",
        "truely",
        "a = b",
        "field \"nothing\" = \"x\"",
        "= \"a\"",
        "\"a\" == \"b\"",
        "true or or true",
        "\"a\\",
    };
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct failure failure = {0};
    struct filter *filter;
    char deep[FILTER_DEPTH_MAX * 2 + 8];

    (void) state;
    model_init();
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        print_message("%s\n", bad[i]);
        assert_int_equal(parse(bad[i], arena, &filter, &failure), -ERR_INVALID_VALUE);
        assert_int_equal(failure.count, 2);
        assert_string_equal(failure.params[0], bad[i]);
    }
    memset(deep, '(', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    assert_int_equal(parse(deep, arena, &filter, &failure), -ERR_INVALID_VALUE);
}

static void a_uuid_is_found_where_it_decides(void **state)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct failure failure = {0};
    struct filter *filter;

    (void) state;
    model_init();
    assert_int_equal(parse("field \"uuid\"=\"u\"", arena, &filter, &failure), 0);
    assert_string_equal(filter_uuid(filter), "u");
    assert_int_equal(parse("true and 'u' = field \"uuid\" and true", arena, &filter, &failure), 0);
    assert_string_equal(filter_uuid(filter), "u");
    assert_int_equal(parse("true or field \"uuid\"=\"u\"", arena, &filter, &failure), 0);
    assert_null(filter_uuid(filter));
    assert_int_equal(parse("not field \"uuid\"=\"u\"", arena, &filter, &failure), 0);
    assert_null(filter_uuid(filter));
}

/* ---- happenings ---- */

static void happenings_are_the_difference_of_two_generations(void **state)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct value words[2] = {value_text("Pool"), value_text("task")},
                 elements = VALUE_SET(2, words);
    struct subscription subscription;
    struct happenings happenings;
    struct happened happened;
    struct failure failure = {0};
    struct mini_call a, b, call;
    struct mini mini;
    uint64_t before;

    (void) state;
    mini_start(&mini);
    assert_int_equal(subscription_parse(&elements, arena, &subscription, &failure), 0);
    mini_call(&mini, &a, "task.create", mini.session, "a", "");
    before = store_newest(mini.core.store);
    mini_call(&mini, &b, "task.create", mini.session, "b", "");
    mini_call(&mini, &call, "task.set_status", mini.session, a.text, "success");
    mini_call(&mini, &call, "task.create", mini.session, "c", "");
    {
        char c[REF_TEXT_BYTES];

        strcpy(c, call.text); /* came and went unseen */
        mini_call(&mini, &call, "task.set_status", mini.session, c, "success");
        mini_call(&mini, &call, "task.destroy", mini.session, c);
    }
    happenings_begin(&happenings, arena, store_core_view(mini.core.store), &subscription, before,
                     NULL);
    assert_true(happenings_next(&happenings, &happened));
    assert_int_equal(happened.what, HAPPENED_ADD);
    assert_string_equal(task_get_name_label(happened.object), "b");
    assert_true(happenings_next(&happenings, &happened));
    assert_int_equal(happened.what, HAPPENED_MOD);
    assert_string_equal(task_get_name_label(happened.object), "a");
    assert_false(happenings_next(&happenings, &happened));
    before = store_newest(mini.core.store);
    mini_call(&mini, &call, "task.destroy", mini.session, a.text);
    happenings_begin(&happenings, arena, store_core_view(mini.core.store), &subscription, before,
                     NULL);
    assert_true(happenings_next(&happenings, &happened));
    assert_int_equal(happened.what, HAPPENED_DEL);
    assert_null(happened.object);
    assert_false(happenings_next(&happenings, &happened));
    happenings_begin(&happenings, arena, store_core_view(mini.core.store), &subscription, 0, NULL);
    assert_true(happenings_next(&happenings, &happened));
    assert_int_equal(happened.what, HAPPENED_ADD);
    mini_stop(&mini);
}

static void a_reader_that_missed_deletions_is_told_so(void **state)
{
    struct mini mini;
    struct mini_call call;
    char task[REF_TEXT_BYTES];

    (void) state;
    mini_start(&mini);
    store_keep_deletions(mini.core.store, 512);
    {
        _cleanup_(arena_destroy) struct arena *arena = arena_new();
        struct value word = value_text("task"), elements = VALUE_SET(1, &word);
        struct subscription subscription;
        struct failure failure = {0};
        uint64_t before = store_newest(mini.core.store);

        assert_int_equal(subscription_parse(&elements, arena, &subscription, &failure), 0);
        assert_false(subscription_missed(&subscription, store_core_view(mini.core.store), before));
        for (int i = 0; i < 1100; i++) {
            mini_call(&mini, &call, "task.create", mini.session, "x", "");
            strcpy(task, call.text);
            mini_call(&mini, &call, "task.set_status", mini.session, task, "success");
            mini_call(&mini, &call, "task.destroy", mini.session, task);
        }
        assert_true(subscription_missed(&subscription, store_core_view(mini.core.store), before));
        assert_false(subscription_missed(&subscription, store_core_view(mini.core.store),
                                         store_newest(mini.core.store)));
    }
    mini_stop(&mini);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_choose_objects),
        cmocka_unit_test(bad_expressions_are_refused),
        cmocka_unit_test(a_uuid_is_found_where_it_decides),
        cmocka_unit_test(happenings_are_the_difference_of_two_generations),
        cmocka_unit_test(a_reader_that_missed_deletions_is_told_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
