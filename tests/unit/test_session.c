/* test_session.c - how long sessions live, how many there are, what guessing costs; and calls in a
 * crowd */
#include "tests/unit/mini_master.h"

#define LIMITS (&(struct dispatch_limits){.fibers_max = 64, .queue_max = 64, .tasks_max = 64})
#define TASKS  (&(struct task_limits) TASK_LIMITS_DEFAULT)

static bool is_alive(struct mini *mini, const char *session)
{
    return mini_get(mini, session, session);
}

static void a_session_lives_a_day_after_its_last_use(void **state)
{
    struct mini mini;
    struct mini_call call, other;

    (void) state;
    mini_start(&mini);
    mini_call(&mini, &other, "session.login_with_password", "root", MINI_PASSWORD);
    mini_advance(&mini, 599000);
    mini_call(&mini, &call, "pool.get_all", mini.session);
    assert_int_equal(session_get_last_active(mini_get(&mini, session, mini.session)), 1700000000);
    mini_advance(&mini, 2000);
    mini_call(&mini, &call, "pool.get_all", mini.session);
    assert_int_equal(session_get_last_active(mini_get(&mini, session, mini.session)), 1700000601);
    mini_advance(&mini, 86400000 - 601000);
    assert_true(is_alive(&mini, mini.session));
    mini_advance(&mini, 61000);
    assert_false(is_alive(&mini, other.text));
    assert_true(is_alive(&mini, mini.session));
    mini_call(&mini, &call, "pool.get_all", other.text);
    assert_string_equal(call.code, "SESSION_INVALID");
    /* Unfinished work keeps its session. */
    mini_call(&mini, &call, "task.create", mini.session, "x", "");
    mini_advance(&mini, 3600000 * 23);
    mini_call(&mini, &other, "task.set_progress", mini.session, call.text);
    assert_true(is_alive(&mini, mini.session));
    mini_stop(&mini);
}

static void idle_sessions_are_evicted_oldest_first(void **state)
{
    struct mini mini;
    struct mini_call call;
    char sessions[8][REF_TEXT_BYTES];
    struct session_limits limits = SESSION_LIMITS_DEFAULT;

    (void) state;
    limits.per_originator = 3;
    mini_start_with(&mini, LIMITS, &limits, TASKS);
    for (int i = 0; i < 3; i++) {
        mini_call(&mini, &call, "session.login_with_password", "root", MINI_PASSWORD, "1", "o");
        strcpy(sessions[i], call.text);
        mini_advance(&mini, 1000);
    }
    mini_advance(&mini, 1201000);
    mini_call(&mini, &call, "pool.get_all", sessions[0]); /* in use again */
    mini_run(&mini);
    mini_call(&mini, &call, "session.login_with_password", "root", MINI_PASSWORD, "1", "o");
    assert_int_equal(call.r, 0);
    assert_true(is_alive(&mini, sessions[0]));
    assert_false(is_alive(&mini, sessions[1]));
    assert_true(is_alive(&mini, sessions[2]));
    mini_call(&mini, &call, "session.login_with_password", "root", MINI_PASSWORD, "1", "other");
    assert_int_equal(call.r, 0);
    assert_int_equal(sessions_count(&mini.core), 5);
    mini_stop(&mini);
}

static ref_t ref_of(const char *session)
{
    ref_t ref;

    assert_true(ref_parse(session, strlen(session), &ref));
    return ref;
}

static int log_in(struct mini *mini, char *ret_session)
{
    struct mini_call call;

    mini_call(mini, &call, "session.login_with_password", "root", MINI_PASSWORD, "1", "cron");
    if (call.r == 0)
        strcpy(ret_session, call.text);
    return call.r;
}

/* Who never logs out is in his own way for a minute, and in no other's who uses his session. */
static void a_crowd_of_unused_sessions_is_no_lock(void **state)
{
    struct mini mini;
    struct mini_call call;
    char sessions[6][REF_TEXT_BYTES], newcomer[REF_TEXT_BYTES];
    struct session_limits limits = SESSION_LIMITS_DEFAULT;

    (void) state;
    limits.per_originator = 3;
    mini_start_with(&mini, LIMITS, &limits, TASKS);
    for (int i = 0; i < 6; i++)
        assert_int_equal(log_in(&mini, sessions[i]), 0);
    assert_true(log_in(&mini, newcomer) < 0);
    mini_advance(&mini, 30000);
    mini_call(&mini, &call, "pool.get_all", sessions[0]);         /* is used */
    session_use_begin(&mini.core, ref_of(sessions[1]));           /* waits for an event */
    mini_call(&mini, &call, "task.create", sessions[2], "x", ""); /* has a task */
    mini_advance(&mini, 29000);
    assert_true(log_in(&mini, newcomer) < 0);
    mini_call(&mini, &call, "pool.get_all", sessions[2]);
    mini_advance(&mini, 1000);
    assert_int_equal(log_in(&mini, newcomer), 0);
    assert_false(is_alive(&mini, sessions[3]) || is_alive(&mini, sessions[4])
                 || is_alive(&mini, sessions[5]));
    assert_true(is_alive(&mini, sessions[0]) && is_alive(&mini, sessions[1])
                && is_alive(&mini, sessions[2]));
    mini_advance(&mini, 60000); /* the first is unused now */
    assert_int_equal(log_in(&mini, sessions[3]), 0);
    assert_false(is_alive(&mini, sessions[0]));
    assert_true(is_alive(&mini, sessions[1]) && is_alive(&mini, sessions[2]));
    session_use_end(&mini.core, ref_of(sessions[1]));
    mini_advance(&mini, 59000);
    log_in(&mini, sessions[4]);
    assert_true(is_alive(&mini, sessions[1]));
    mini_advance(&mini, 61000);
    assert_int_equal(log_in(&mini, sessions[5]), 0);
    assert_false(is_alive(&mini, sessions[1]));
    assert_true(is_alive(&mini, sessions[2]));
    mini_stop(&mini);
}

static void a_guesser_waits_longer_and_longer(void **state)
{
    struct mini mini;
    struct mini_call call, waiting[10], other;

    (void) state;
    mini_start(&mini);
    for (int i = 0; i < 3; i++) {
        mini_call(&mini, &call, "session.login_with_password", "root", "wrong");
        assert_true(call.is_answered); /* everybody mistypes */
        assert_string_equal(call.code, "SESSION_AUTHENTICATION_FAILED");
    }
    mini_call(&mini, &call, "session.login_with_password", "root", "wrong");
    assert_false(call.is_answered);
    mini_advance(&mini, 250);
    assert_true(call.is_answered);
    mini_call(&mini, &call, "session.login_with_password", "root", "wrong");
    mini_advance(&mini, 499);
    assert_false(call.is_answered);
    mini_advance(&mini, 1);
    assert_true(call.is_answered);
    /* Of one address only a few may wait; of another nobody has to. */
    for (int i = 0; i < 10; i++)
        mini_begin(&mini, &waiting[i], "session.login_with_password", "root", "wrong");
    mini_run(&mini);
    assert_false(waiting[0].is_answered);
    assert_false(waiting[7].is_answered);
    assert_false(waiting[8].is_answered);
    mini_advance(&mini, 100); /* what was only glanced at */
    assert_true(waiting[8].is_answered && !waiting[9].is_answered);
    mini_begin_from(&mini, &other, "192.0.2.2", "session.login_with_password", "root",
                    MINI_PASSWORD, (char *) NULL);
    mini_run(&mini);
    assert_true(other.is_answered);
    assert_int_equal(other.r, 0);
    mini_advance(&mini, 60000);
    assert_true(waiting[7].is_answered);
    /* Who knows the password does not wait for those who do not, even while their address is full. */
    for (int i = 0; i < 10; i++)
        mini_begin(&mini, &waiting[i], "session.login_with_password", "root", "wrong");
    mini_run(&mini);
    assert_false(waiting[7].is_answered);
    mini_call(&mini, &call, "session.login_with_password", "root", MINI_PASSWORD);
    assert_true(call.is_answered);
    assert_int_equal(call.r, 0);
    mini_advance(&mini, 60000);
    assert_true(waiting[7].is_answered);
    mini_begin(&mini, &waiting[0], "session.login_with_password", "root", "wrong");
    mini_call(&mini, &call, "session.login_with_password", "root", MINI_PASSWORD);
    assert_true(call.is_answered && !waiting[0].is_answered);
    assert_int_equal(call.r, 0);
    mini_advance(&mini, 60000);
    /* Ten minutes of quiet are forgiven. */
    mini_advance(&mini, 700000);
    mini_call(&mini, &call, "session.login_with_password", "root", "wrong");
    mini_advance(&mini, 5000);
    mini_call(&mini, &call, "session.login_with_password", "root", MINI_PASSWORD);
    assert_true(call.is_answered);
    assert_int_equal(call.r, 0);
    mini_stop(&mini);
}

static void guessers_of_the_pool_secret_wait_too(void **state)
{
    struct mini mini;
    struct mini_call call, other;

    (void) state;
    mini_start(&mini);
    for (int i = 0; i < 3; i++) {
        mini_call(&mini, &call, "session.slave_local_login", "wrong");
        assert_true(call.is_answered);
        assert_string_equal(call.code, "SESSION_AUTHENTICATION_FAILED");
    }
    mini_call(&mini, &call, "session.slave_local_login", "wrong");
    assert_false(call.is_answered);
    mini_call(&mini, &other, "session.slave_local_login", "pool secret");
    assert_true(other.is_answered);
    assert_int_equal(other.r, 0);
    mini_advance(&mini, 250);
    assert_true(call.is_answered);
    mini_stop(&mini);
}

static void add_account(struct mini *mini, const char *name, const char *password, const char *role)
{
    struct value fields[16] = {0};
    const struct class *class = CLASS_OF(account);
    char *hash = password_hash(password);
    struct txn *txn = store_begin(mini->core.store);

    for (int i = 0; i < class->field_count; i++)
        fields[i] = class->fields[i].initial;
    fields[F_account_name_label] = value_text(name);
    fields[F_account_password_hash] = value_text(hash);
    fields[F_account_role] = value_text(role);
    txn_create_new(txn, mini->core.random, class, fields);
    store_apply(&txn);
    txn_end(&txn);
    free(hash);
    mini_run(mini);
}

static void a_local_session_is_for_the_calls_of_a_host_in_need(void **state)
{
    struct mini mini;
    struct mini_call call, local;

    (void) state;
    mini_start(&mini);
    add_account(&mini, "ada", "x", "read-only");
    mini_call(&mini, &call, "session.slave_local_login_with_password", "ada", "x");
    assert_string_equal(call.code, "SESSION_AUTHORIZATION_FAILED");
    mini_call(&mini, &local, "session.slave_local_login_with_password", "root", MINI_PASSWORD);
    assert_int_equal(local.r, 0);
    mini_call(&mini, &call, "host.is_in_emergency_mode", local.text);
    assert_int_equal(call.r, 0);
    mini_call(&mini, &call, "host.local_assert_healthy", local.text); /* the pool's own, and for its secret only */
    assert_int_equal(call.r, 0);
    mini_call(&mini, &call, "host.local_assert_healthy", mini.session);
    assert_string_equal(call.code, "INTERNAL_ERROR");
    mini_call(&mini, &call, "pool.emergency_reset_master", local.text, "192.0.2.1");
    assert_string_equal(call.code, "OPERATION_NOT_ALLOWED");
    mini_call(&mini, &call, "pool.get_all", local.text);
    assert_string_equal(call.code, "SESSION_INVALID");
    mini_call(&mini, &call, "session.logout", local.text);
    assert_string_equal(call.code, "SESSION_INVALID");
    mini_call(&mini, &call, "session.local_logout", local.text);
    assert_int_equal(call.r, 0);
    assert_false(is_alive(&mini, local.text));
    mini_stop(&mini);
}

static void calls_wait_for_a_fiber_up_to_a_limit(void **state)
{
    struct mini mini;
    struct mini_call blocked[2], queued[3], refused, call;
    struct dispatch_figures figures;
    char address[32];

    (void) state;
    mini_start_with(&mini,
                    &(struct dispatch_limits){.fibers_max = 2, .queue_max = 3, .tasks_max = 1},
                    &(struct session_limits) SESSION_LIMITS_DEFAULT, TASKS);
    for (int i = 0; i < 2; i++) { /* guessers sleep in their fibers */
        snprintf(address, sizeof address, "192.0.2.%d", 100 + i);
        for (int j = 0; j < 3; j++) {
            mini_begin_from(&mini, &call, address, "session.login_with_password", "root", "x",
                            (char *) NULL);
            mini_run(&mini);
        }
    }
    mini_begin_from(&mini, &blocked[0], "192.0.2.100", "session.login_with_password", "root", "x",
                    (char *) NULL);
    mini_begin_from(&mini, &blocked[1], "192.0.2.101", "session.login_with_password", "root", "x",
                    (char *) NULL);
    for (int i = 0; i < 3; i++)
        mini_begin(&mini, &queued[i], "task.create", mini.session, "x", "");
    mini_begin(&mini, &refused, "task.create", mini.session, "x", "");
    mini_run(&mini);
    dispatch_figures(mini.core.dispatch, &figures);
    assert_int_equal(figures.running, 2);
    assert_int_equal(figures.queued, 3);
    assert_true(refused.is_answered);
    assert_string_equal(refused.code, "TOO_MANY_PENDING_TASKS");
    assert_false(queued[0].is_answered);
    mini_call(&mini, &call, "pool.get_all", mini.session); /* who only reads needs no fiber */
    assert_true(call.is_answered);
    mini_advance(&mini, 10000);
    for (int i = 0; i < 3; i++) {
        assert_true(queued[i].is_answered);
        assert_int_equal(queued[i].r, 0);
    }
    dispatch_figures(mini.core.dispatch, &figures);
    assert_int_equal(figures.running + figures.queued, 0);
    assert_int_equal(figures.refused, 1);
    mini_stop(&mini);
}

static int closed(struct call *call, const struct method *method, void *arg)
{
    (void) arg;
    if (method && method->flags & METHOD_EMERGENCY)
        return 0;
    return fail(call, HOST_IS_SLAVE, "192.0.2.9");
}

static void the_gate_comes_before_all(void **state)
{
    struct mini mini;
    struct mini_call call;

    (void) state;
    mini_start(&mini);
    dispatch_set_gate(mini.core.dispatch, closed, NULL);
    mini_call(&mini, &call, "pool.get_all", "nonsense");
    assert_string_equal(call.code, "HOST_IS_SLAVE");
    mini_call(&mini, &call, "session.login_with_password");
    assert_string_equal(call.code, "HOST_IS_SLAVE");
    mini_call(&mini, &call, "no.such", "x");
    assert_string_equal(call.code, "HOST_IS_SLAVE");
    mini_call(&mini, &call, "session.slave_local_login_with_password", "root", MINI_PASSWORD);
    assert_int_equal(call.r, 0);
    mini_stop(&mini);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_lives_a_day_after_its_last_use),
        cmocka_unit_test(idle_sessions_are_evicted_oldest_first),
        cmocka_unit_test(a_crowd_of_unused_sessions_is_no_lock),
        cmocka_unit_test(a_guesser_waits_longer_and_longer),
        cmocka_unit_test(guessers_of_the_pool_secret_wait_too),
        cmocka_unit_test(a_local_session_is_for_the_calls_of_a_host_in_need),
        cmocka_unit_test(calls_wait_for_a_fiber_up_to_a_limit),
        cmocka_unit_test(the_gate_comes_before_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
