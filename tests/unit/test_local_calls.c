/* test_local_calls.c - the calls for a host in need, as a slave answers them: by itself, to whoever has logged in there
 *
 * The loop is the test's own, on a fake clock; workers run at once. What goes on between an agent and its masters is in
 * test_agent_link.c and test_join.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>
#undef fail

#include "shared/clock.h"
#include "shared/fiber.h"
#include "shared/model.h"
#include "shared/passwords.h"
#include "shared/random.h"
#include "shared/workers.h"
#include "slave/accounts.h"
#include "slave/ledger.h"
#include "slave/local_calls.h"
#include "slave/local_sessions.h"
#include "slave/standing.h"
#include "tests/unit/pass_time.h"

#define SECRET    "the pool's secret"
#define PASSWORD  "sesame"
#define NO_ONE    "OpaqueRef:6a7f1f4c-0000-4000-8000-000000000001"
#define ASKED_MAX 100

/* What came of a call. */
struct answered {
    bool is_answered;
    int result;
    char code[64], last[256]; /* of a failure: code, and its last detail */
    struct value value;       /* booleans */
    char text[128];           /* strings and references */
};

struct fixture {
    struct fake_clock clock;
    struct seeded_random random;
    struct loop *loop;
    struct workers *workers;
    struct ledger_disk disk;
    struct ledger *ledger;
    struct standing *standing;
    struct local_calls *calls;
    struct arena *arena; /* of the test */
    int shutdowns;
};

static void shut_down(void *arg)
{
    struct fixture *f = arg;

    f->shutdowns++;
}

static void pass_ms(struct fixture *f, uint64_t ms)
{
    pass_time(f->loop, &f->clock, ms);
}

static void up(struct fixture *f)
{
    int error;

    f->loop = loop_new(&f->clock.clock);
    f->workers = workers_new(0, "test");
    f->ledger = ledger_new(f->loop, ledger_memory_open(&f->disk, f->loop), &error);
    f->standing = standing_new();
    f->calls = local_calls_new(&(struct local_calls_config){
        .loop = f->loop,
        .random = &f->random.random,
        .workers = f->workers,
        .ledger = f->ledger,
        .standing = f->standing,
        .pool_secret = SECRET,
        .address = "192.0.2.2",
        .has_listeners = true,
        .shut_down = shut_down,
        .arg = f,
    });
}

static void down(struct fixture *f)
{
    loop_abandon(f->loop);
    local_calls_destroy(&f->calls);
    standing_destroy(&f->standing);
    ledger_destroy(&f->ledger);
    workers_destroy(&f->workers);
    loop_destroy(&f->loop);
}

static void sync_main(void *arg)
{
    struct fixture *f = arg;

    ledger_sync(f->ledger);
}

static void put_accounts(struct fixture *f, const char *name, const char *password)
{
    _cleanup_(free_p) char *hash = password_hash(password);
    struct value items[] = {value_text("other"), value_text("$y$no"), value_text(name), value_text(hash)};
    struct value accounts = VALUE_MAP(2, items);

    accounts_put(f->ledger, &accounts);
    assert_non_null(fiber_spawn(f->loop, sync_main, f, "sync"));
    run_until_idle(f->loop);
}

static int begin(void **state)
{
    struct fixture *f = new0(struct fixture);

    model_init();
    fake_clock_init(&f->clock, 1000000, 1700000000);
    seeded_random_init(&f->random, 1);
    f->arena = arena_new();
    up(f);
    put_accounts(f, "root", PASSWORD);
    *state = f;
    return 0;
}

static int end(void **state)
{
    struct fixture *f = *state;

    down(f);
    ledger_disk_done(&f->disk);
    arena_destroy(&f->arena);
    free(f);
    return 0;
}

static void take_answer(struct local_call *call)
{
    struct answered *answered = call->user;

    assert_false(answered->is_answered);
    answered->is_answered = true;
    answered->result = call->result;
    if (call->result < 0) {
        snprintf(answered->code, sizeof answered->code, "%s", call->failure.text);
        if (call->failure.count > 0)
            snprintf(answered->last, sizeof answered->last, "%s", call->failure.params[call->failure.count - 1]);
    } else if (call->reply.kind == KIND_REF) {
        ref_print(answered->text, call->reply.ref);
    } else if (call->reply.kind == KIND_STRING) {
        snprintf(answered->text, sizeof answered->text, "%s", call->reply.text);
    } else {
        answered->value = call->reply;
    }
    local_call_free(call);
}

static void ask_with(struct fixture *f, struct answered *answered, const char *address, bool is_root, const char *name,
                     va_list texts)
{
    struct arena *arena = arena_new();
    struct local_call *call = arena_new0(arena, struct local_call);
    struct value *params = arena_alloc_array(arena, 8, sizeof *params);
    const char *text;
    unsigned count = 0;

    while ((text = va_arg(texts, const char *)))
        params[count++] = value_text(arena_strdup(arena, text));
    *answered = (struct answered){0};
    call->arena = arena;
    call->address = address;
    call->is_root = is_root;
    call->answer = take_answer;
    call->user = answered;
    call->result = rpc_bind(arena_strdup(arena, name), params, count, NULL, NULL, arena, &call->bound, &call->failure);
    local_calls_take(f->calls, call);
}

/* Texts up to NULL. The call may wait for the clock. */
static void ask(struct fixture *f, struct answered *answered, const char *name, ...)
{
    va_list texts;

    va_start(texts, name);
    ask_with(f, answered, "192.0.2.1", false, name, texts);
    va_end(texts);
    run_until_idle(f->loop);
}

static void ask_from(struct fixture *f, struct answered *answered, const char *address, bool is_root, const char *name, ...)
{
    va_list texts;

    va_start(texts, name);
    ask_with(f, answered, address, is_root, name, texts);
    va_end(texts);
    run_until_idle(f->loop);
}

static void assert_fails(const struct answered *answered, const char *code, const char *last)
{
    assert_true(answered->is_answered);
    assert_true(answered->result < 0);
    assert_string_equal(answered->code, code);
    assert_string_equal(answered->last, last);
}

static const char *login(struct fixture *f)
{
    struct answered answered;

    ask(f, &answered, "session.slave_local_login", SECRET, NULL);
    assert_int_equal(answered.result, 0);
    return arena_strdup(f->arena, answered.text);
}

/* ---- logins ---- */

static void logins_by_secret_and_password(void **state)
{
    struct fixture *f = *state;
    struct answered answered;

    ask(f, &answered, "session.slave_local_login", SECRET "x", NULL);
    assert_fails(&answered, "SESSION_AUTHENTICATION_FAILED", "wrong pool secret");
    ask(f, &answered, "session.slave_local_login_with_password", "root", "wrong", NULL);
    assert_fails(&answered, "SESSION_AUTHENTICATION_FAILED", "wrong user name or password");
    ask(f, &answered, "session.slave_local_login_with_password", "nobody", PASSWORD, NULL);
    assert_fails(&answered, "SESSION_AUTHENTICATION_FAILED", "wrong user name or password");
    assert_int_equal(local_calls_sessions(f->calls), 0);
    ask_from(f, &answered, "unix", true, "session.slave_local_login_with_password", "root", "", NULL);
    assert_int_equal(answered.result, 0);
    ask_from(f, &answered, "192.0.2.9", false, "session.slave_local_login_with_password", "root", PASSWORD, NULL);
    assert_int_equal(answered.result, 0);
    ask(f, &answered, "host.is_in_emergency_mode", answered.text, NULL);
    assert_int_equal(answered.result, 0);
    assert_true(answered.value.b);
}

static void without_a_secret_nobody_logs_in_by_it(void **state)
{
    struct fixture *f = *state;
    struct local_calls *with = f->calls;
    struct answered answered;

    for (int i = 0; i < 2; i++) {
        f->calls = local_calls_new(&(struct local_calls_config){.loop = f->loop,
                                                                .random = &f->random.random,
                                                                .workers = f->workers,
                                                                .ledger = f->ledger,
                                                                .standing = f->standing,
                                                                .pool_secret = i ? "" : NULL});
        ask(f, &answered, "session.slave_local_login", "", NULL);
        assert_fails(&answered, "SESSION_AUTHENTICATION_FAILED", "wrong pool secret");
        local_calls_destroy(&f->calls);
    }
    f->calls = with;
}

static void accounts_are_remembered_and_replaced(void **state)
{
    struct fixture *f = *state;
    struct answered answered;

    down(f);
    up(f);
    ask(f, &answered, "session.slave_local_login_with_password", "root", PASSWORD, NULL);
    assert_int_equal(answered.result, 0);
    put_accounts(f, "root", "changed");
    ask(f, &answered, "session.slave_local_login_with_password", "root", PASSWORD, NULL);
    assert_fails(&answered, "SESSION_AUTHENTICATION_FAILED", "wrong user name or password");
    ask(f, &answered, "session.slave_local_login_with_password", "root", "changed", NULL);
    assert_int_equal(answered.result, 0);
    put_accounts(f, "ann", PASSWORD); /* root is not among them any more */
    down(f);
    up(f);
    ask(f, &answered, "session.slave_local_login_with_password", "root", "changed", NULL);
    assert_fails(&answered, "SESSION_AUTHENTICATION_FAILED", "wrong user name or password");
    ask(f, &answered, "session.slave_local_login_with_password", "ann", PASSWORD, NULL);
    assert_int_equal(answered.result, 0);
}

/* What a master tells is read back as it was told, or not at all. */
static void what_is_no_account_is_left_out(void **state)
{
    struct fixture *f = *state;
    struct value items[] = {value_text("a"),    value_text("hash-a"), value_text("two words"), value_text("hash-2"),
                            value_text("c\nd"), value_text("hash-c"), value_text("e"),         value_text("has h"),
                            value_text(""),     value_text("hash-f"), value_text("g"),         VALUE_INT(3),
                            value_text("h"),    value_text("hash\nx root")};
    struct value accounts = VALUE_MAP(7, items), none = {.kind = KIND_VOID}, huge[2];
    char *name = alloc0(100000);

    accounts_put(f->ledger, &accounts);
    assert_string_equal(accounts_hash(f->ledger, "a", f->arena), "hash-a");
    assert_string_equal(accounts_hash(f->ledger, "two words", f->arena), "hash-2");
    assert_null(accounts_hash(f->ledger, "c\nd", f->arena));
    assert_null(accounts_hash(f->ledger, "c", f->arena));
    assert_null(accounts_hash(f->ledger, "d", f->arena));
    assert_null(accounts_hash(f->ledger, "e", f->arena));
    assert_null(accounts_hash(f->ledger, "", f->arena));
    assert_null(accounts_hash(f->ledger, "root", f->arena));
    accounts_put(f->ledger, &none); /* nothing was told */
    assert_string_equal(accounts_hash(f->ledger, "a", f->arena), "hash-a");
    memset(name, 'x', 99999);
    huge[0] = value_text(name);
    huge[1] = value_text("hash");
    accounts_put(f->ledger, &VALUE_MAP(1, huge));
    assert_null(accounts_hash(f->ledger, name, f->arena));
    assert_null(accounts_hash(f->ledger, "a", f->arena));
    free(name);
}

static void guessers_wait_and_others_do_not(void **state)
{
    struct fixture *f = *state;
    const char *session = login(f);
    struct answered guesses[ASKED_MAX], answered;
    unsigned waiting = 0;

    for (int i = 0; i < 3; i++)
        ask(f, &answered, "session.slave_local_login", "guess", NULL);
    ask(f, &answered, "session.slave_local_login", "guess", NULL);
    assert_false(answered.is_answered);
    pass_ms(f, 250);
    assert_true(answered.is_answered);
    for (int i = 0; i < ASKED_MAX; i++) {
        char address[32];

        snprintf(address, sizeof address, "192.0.2.%d", 100 + i / 12); /* from several, which takes more than one may have */
        ask_from(f, &guesses[i], address, false, "session.slave_local_login_with_password", "root", "guess", NULL);
        waiting += !guesses[i].is_answered;
    }
    assert_true(waiting > 30);
    assert_true(waiting <= 48); /* the agent's fibers are for its master's orders */
    assert_string_equal(guesses[ASKED_MAX - 1].code, "TOO_MANY_PENDING_TASKS");
    ask(f, &answered, "host.is_in_emergency_mode", session, NULL);
    assert_true(answered.is_answered && answered.result == 0);
    pass_ms(f, 60000);
    for (int i = 0; i < ASKED_MAX; i++)
        assert_true(guesses[i].is_answered && guesses[i].result < 0);
    ask(f, &answered, "session.slave_local_login_with_password", "root", PASSWORD, NULL);
    assert_true(answered.is_answered && answered.result == 0);
}

/* ---- sessions ---- */

static void a_thousand_logins_take_bounded_room(void **state)
{
    struct fixture *f = *state;
    const char *used = login(f), *idle = login(f), *last = NULL;
    struct answered answered;

    for (int i = 0; i < 1000; i++) {
        pass_ms(f, 10);
        last = login(f);
        ask(f, &answered, "host.is_in_emergency_mode", used, NULL);
        assert_int_equal(answered.result, 0); /* the one that is used is never the longest unused one */
    }
    assert_int_equal(local_calls_sessions(f->calls), LOCAL_SESSIONS_MAX);
    ask(f, &answered, "host.is_in_emergency_mode", idle, NULL);
    assert_fails(&answered, "SESSION_INVALID", idle);
    ask(f, &answered, "host.is_in_emergency_mode", last, NULL);
    assert_int_equal(answered.result, 0);
}

static void sessions_end(void **state)
{
    struct fixture *f = *state;
    const char *used = login(f), *idle = login(f), *left = login(f);
    struct answered answered;

    ask(f, &answered, "session.local_logout", left, NULL);
    assert_int_equal(answered.result, 0);
    ask(f, &answered, "session.local_logout", left, NULL);
    assert_fails(&answered, "SESSION_INVALID", left);
    pass_ms(f, 43200000);
    ask(f, &answered, "host.is_in_emergency_mode", used, NULL);
    assert_int_equal(answered.result, 0);
    pass_ms(f, 43200000);
    ask(f, &answered, "host.is_in_emergency_mode", idle, NULL);
    assert_fails(&answered, "SESSION_INVALID", idle);
    ask(f, &answered, "host.is_in_emergency_mode", used, NULL);
    assert_int_equal(answered.result, 0);
    assert_int_equal(local_calls_sessions(f->calls), 1);
    down(f);
    up(f);
    ask(f, &answered, "host.is_in_emergency_mode", used, NULL);
    assert_fails(&answered, "SESSION_INVALID", used);
}

/* ---- the road ---- */

static void a_local_session_is_asked_for(void **state)
{
    static const char *const texts[] = {NO_ONE, "OpaqueRef:NULL", "", "nonsense"};
    struct fixture *f = *state;
    struct answered answered;
    size_t count, asked = 0;
    const struct method *const *methods = model_methods(&count);

    for (size_t i = 0; i < count; i++) {
        const struct method *method = methods[i];
        const char *a = NULL, *b = NULL;

        if (!(method->flags & METHOD_EMERGENCY) || method->flags & METHOD_NO_SESSION)
            continue;
        if (method->params_required > 0)
            a = method->params[0].type->kind == KIND_REF ? NO_ONE : "x";
        if (method->params_required > 1)
            b = "1";
        for (size_t j = 0; j < ARRAY_SIZE(texts); j++) {
            char async[64];

            snprintf(async, sizeof async, "Async.%s", method->name);
            ask(f, &answered, j % 2 ? async : method->name, texts[j], a, b, NULL);
            if (streq(answered.code, "FIELD_TYPE_ERROR"))
                continue; /* its second parameter is no text */
            assert_fails(&answered, "SESSION_INVALID", texts[j]);
            asked++;
        }
    }
    assert_true(asked > 40);
    assert_int_equal(f->shutdowns, 0);
}

static void errors_come_in_their_order(void **state)
{
    struct fixture *f = *state;
    const char *session = login(f);
    struct answered answered;

    ask(f, &answered, "host.is_in_emergency_mode", NULL);
    assert_fails(&answered, "MESSAGE_PARAMETER_COUNT_MISMATCH", "-1");
    ask(f, &answered, "host.is_in_emergency_mode", "nonsense", "more", NULL);
    assert_fails(&answered, "MESSAGE_PARAMETER_COUNT_MISMATCH", "1");
    ask(f, &answered, "pool.is_slave", "nonsense", "no reference", NULL);
    assert_fails(&answered, "SESSION_INVALID", "nonsense");
    ask(f, &answered, "pool.is_slave", session, "no reference", NULL);
    assert_fails(&answered, "HANDLE_INVALID", "no reference");
    ask(f, &answered, "Async.host.shutdown_agent", session, NULL);
    assert_fails(&answered, "Fault", "No async mode for this operation (rpc: host.shutdown_agent)");
    ask(f, &answered, "Async.session.slave_local_login", SECRET, NULL);
    assert_fails(&answered, "Fault", "No async mode for this operation (rpc: session.slave_local_login)");
    ask(f, &answered, "pool.emergency_transition_to_master", session, NULL);
    assert_fails(&answered, "NOT_IMPLEMENTED", "pool.emergency_transition_to_master");
}

static void a_host_tells_how_it_is(void **state)
{
    static const ref_t host = {0x6a7f1f4c00004000, 0x8000000000000001};
    struct fixture *f = *state;
    const char *session = login(f);
    struct answered answered;

    ask(f, &answered, "host.local_assert_healthy", session, NULL);
    assert_fails(&answered, "HOST_STILL_BOOTING", "");
    standing_put_unknown(f->standing, host);
    ask(f, &answered, "host.local_assert_healthy", session, NULL);
    assert_fails(&answered, "HOST_UNKNOWN_TO_MASTER", "6a7f1f4c-0000-4000-8000-000000000001");
    ask(f, &answered, "host.is_in_emergency_mode", session, NULL);
    assert_true(answered.value.b);
    standing_put_master(f->standing, "192.0.2.7");
    standing_put_silent(f->standing);
    ask(f, &answered, "host.local_assert_healthy", session, NULL);
    assert_int_equal(answered.result, 0);
    ask(f, &answered, "host.is_in_emergency_mode", session, NULL);
    assert_int_equal(answered.result, 0);
    assert_false(answered.value.b);
    ask(f, &answered, "pool.is_slave", session, NO_ONE, NULL);
    assert_true(answered.result == 0 && answered.value.b);
    ask(f, &answered, "host.get_system_status_capabilities", session, NO_ONE, NULL);
    assert_int_equal(answered.result, 0);
    assert_non_null(strstr(answered.text, "<system-status-capabilities/>"));
    ask(f, &answered, "host.shutdown_agent", session, NULL);
    assert_int_equal(answered.result, 0);
    assert_int_equal(f->shutdowns, 1);
    /* These two are the agent's. */
    ask(f, &answered, "host.signal_networking_change", session, NULL);
    assert_fails(&answered, "HOST_STILL_BOOTING", "");
    ask(f, &answered, "pool.emergency_reset_master", session, "192.0.2.8", NULL);
    assert_fails(&answered, "HOST_STILL_BOOTING", "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(logins_by_secret_and_password),
        TEST(without_a_secret_nobody_logs_in_by_it),
        TEST(accounts_are_remembered_and_replaced),
        TEST(what_is_no_account_is_left_out),
        TEST(guessers_wait_and_others_do_not),
        TEST(a_thousand_logins_take_bounded_room),
        TEST(sessions_end),
        TEST(a_local_session_is_asked_for),
        TEST(errors_come_in_their_order),
        TEST(a_host_tells_how_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
