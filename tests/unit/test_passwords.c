/* test_passwords.c - what is the right password, and what guessing costs, on a fake clock; workers run at once
 *
 * How this looks to clients is in test_session.c (master) and test_local_calls.c (slave). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>
#undef fail

#include "shared/clock.h"
#include "shared/fiber.h"
#include "shared/passwords.h"
#include "shared/random.h"
#include "shared/workers.h"
#include "tests/unit/pass_time.h"

#define HERE  "192.0.2.1"
#define THERE "192.0.2.2"

struct fixture {
    struct fake_clock clock;
    struct seeded_random random;
    struct loop *loop;
    struct workers *workers;
    struct passwords *passwords;
    char *hash; /* of "sesame" */
};

/* A question on its way. */
struct question {
    struct fixture *f;
    const char *address, *hash, *secret, *password; /* a secret, or a hash */
    bool is_answered;
    const char *why;
};

static void question_main(void *arg)
{
    struct question *q = arg;

    q->why = q->secret ? passwords_check_secret(q->f->passwords, q->address, q->secret, q->password)
                       : passwords_check(q->f->passwords, q->address, q->hash, q->password);
    q->is_answered = true;
}

static void run(struct fixture *f)
{
    run_until_idle(f->loop);
}

static void pass_ms(struct fixture *f, uint64_t ms)
{
    pass_time(f->loop, &f->clock, ms);
}

static void ask(struct question *q)
{
    q->is_answered = false;
    assert_non_null(fiber_spawn(q->f->loop, question_main, q, "question"));
    run(q->f);
}

static bool is_right(struct fixture *f, const char *address, const char *hash, const char *password)
{
    struct question q = {.f = f, .address = address, .hash = hash, .password = password};

    ask(&q);
    pass_ms(f, 60000);
    assert_true(q.is_answered);
    return !q.why;
}

static int begin(void **state)
{
    struct fixture *f = new0(struct fixture);

    fake_clock_init(&f->clock, 1000000, 1700000000);
    seeded_random_init(&f->random, 1);
    f->loop = loop_new(&f->clock.clock);
    f->workers = workers_new(0, "test");
    f->passwords = passwords_new(&f->clock.clock, &f->random.random, f->workers);
    f->hash = password_hash("sesame");
    assert_non_null(f->hash);
    *state = f;
    return 0;
}

static int end(void **state)
{
    struct fixture *f = *state;

    passwords_destroy(&f->passwords);
    workers_destroy(&f->workers);
    loop_destroy(&f->loop);
    free(f->hash);
    free(f);
    return 0;
}

static void only_the_password_is_right(void **state)
{
    struct fixture *f = *state;
    _cleanup_(free_p) char *other = password_hash("sesame"), *new = password_hash("changed");
    char long_one[PASSWORD_BYTES_MAX + 2];

    assert_true(is_right(f, HERE, f->hash, "sesame"));
    assert_true(is_right(f, HERE, f->hash, "sesame")); /* recognised */
    assert_true(is_right(f, HERE, other, "sesame"));
    assert_false(is_right(f, HERE, f->hash, "sesam"));
    assert_false(is_right(f, HERE, f->hash, ""));
    assert_false(is_right(f, HERE, new, "sesame")); /* what was right before it was changed */
    assert_true(is_right(f, HERE, new, "changed"));
    assert_false(is_right(f, HERE, NULL, "sesame"));
    assert_false(is_right(f, HERE, "", ""));
    assert_false(is_right(f, HERE, "no hash", "no hash"));
    memset(long_one, 'x', sizeof long_one - 1);
    long_one[sizeof long_one - 1] = '\0';
    assert_false(is_right(f, HERE, f->hash, long_one));
    assert_null(password_hash(long_one));
    assert_null(password_hash(""));
    assert_non_null(password_fault(""));
    assert_null(password_fault("x"));
}

static void a_secret_is_compared_under_the_same_rules(void **state)
{
    struct fixture *f = *state;
    struct question right = {.f = f, .address = HERE, .secret = "secret", .password = "secret"};
    struct question wrong = {.f = f, .address = HERE, .secret = "secret", .password = "secre"};
    struct question none = {.f = f, .address = THERE, .secret = "", .password = ""};

    ask(&right);
    assert_true(right.is_answered && !right.why);
    ask(&none);
    assert_true(none.is_answered && none.why);
    for (int i = 0; i < 3; i++) {
        ask(&wrong);
        assert_true(wrong.is_answered);
        assert_string_equal(wrong.why, "wrong pool secret");
    }
    ask(&wrong);
    assert_false(wrong.is_answered);
    ask(&right);
    assert_true(right.is_answered && !right.why); /* who knows it never waits */
    pass_ms(f, 250);
    assert_true(wrong.is_answered);
    assert_false(secrets_equal("a", "b"));
    assert_false(secrets_equal("a", "ab"));
    assert_true(secrets_equal("ab", "ab"));
}

/* However many ask from one address, few are looked at; from another one nobody notices, and he who logs in as before gets
 * in between them, until both queues of the address are full. */
static void guesses_are_looked_at_one_by_one(void **state)
{
    enum { QUEUE = 8, GLANCED = 64, ALL = 80 };
    struct fixture *f = *state;
    struct question guesses[ALL], right = {.f = f, .address = HERE, .hash = f->hash, .password = "sesame"};
    int answered = 0;

    assert_true(is_right(f, HERE, f->hash, "sesame"));
    for (int i = 0; i < 3; i++)
        assert_false(is_right(f, HERE, f->hash, "guess"));
    for (size_t i = 0; i < ALL; i++) {
        guesses[i] = (struct question){.f = f, .address = HERE, .hash = f->hash, .password = "guess"};
        ask(&guesses[i]);
        assert_int_equal(guesses[i].is_answered, i >= QUEUE + GLANCED);
        if (i == QUEUE + GLANCED - 2 || i == ALL - 1) {
            ask(&right);
            assert_true(right.is_answered && !right.why == (i < QUEUE + GLANCED));
        }
    }
    right.address = THERE;
    ask(&right);
    assert_true(right.is_answered && !right.why);
    right.address = HERE;
    pass_ms(f, 100); /* the first of those that were glanced at is answered */
    assert_true(guesses[QUEUE].is_answered && !guesses[QUEUE + 1].is_answered);
    ask(&right);
    assert_true(right.is_answered && !right.why);
    pass_ms(f, 1000);
    for (size_t i = 0; i < ALL; i++)
        answered += guesses[i].is_answered;
    assert_in_range(answered, ALL - QUEUE - GLANCED + 11, ALL - QUEUE - GLANCED + 11 + 4);
    pass_ms(f, 60000);
    for (size_t i = 0; i < ALL; i++)
        assert_true(guesses[i].is_answered && guesses[i].why);
}

static void a_quiet_time_is_forgiven(void **state)
{
    struct fixture *f = *state;
    struct question q = {.f = f, .address = HERE, .hash = f->hash, .password = "guess"};

    for (int i = 0; i < 10; i++)
        assert_false(is_right(f, HERE, f->hash, "guess"));
    ask(&q);
    assert_false(q.is_answered);
    pass_ms(f, 5000);
    assert_true(q.is_answered);
    pass_ms(f, 600000);
    for (int i = 0; i < 3; i++) {
        ask(&q);
        assert_true(q.is_answered);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(only_the_password_is_right),
        TEST(a_secret_is_compared_under_the_same_rules),
        TEST(guesses_are_looked_at_one_by_one),
        TEST(a_quiet_time_is_forgiven),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
