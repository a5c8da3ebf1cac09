/* test_link.c - frames over real CURVE sockets on loopback: who is let in, who is who, who does not read */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/link.h"
#include "shared/loop.h"
#include "tests/unit/no_log.h"

#define WAIT_MS 20000

/* libzmq is not instrumented: what it hands from thread to thread by its own atomics would look unsynchronised. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1";
}

/* One end: what it got. */
struct end {
    struct link_transport *transport;
    char public[LINK_KEY_BYTES], secret[LINK_KEY_BYTES];
    int frames, downs, refusals;
    size_t bytes;
    char last[256], last_key[LINK_KEY_BYTES];
};

struct fixture {
    struct loop *loop;
    struct end master, slave, other;
};

static void on_frame(void *arg, const char *key, const void *bytes, size_t count)
{
    struct end *end = arg;

    end->frames++;
    end->bytes += count;
    snprintf(end->last, sizeof end->last, "%.*s", (int) MIN(count, (size_t) 200), (const char *) bytes);
    snprintf(end->last_key, sizeof end->last_key, "%s", key);
}

static void on_down(void *arg, const char *key, const char *why)
{
    struct end *end = arg;

    (void) key;
    (void) why;
    end->downs++;
}

static void on_refused(void *arg, const char *key)
{
    struct end *end = arg;

    snprintf(end->last_key, sizeof end->last_key, "%s", key);
    end->refusals++;
}

static void end_start(struct end *end, struct link_transport *transport)
{
    end->transport = transport;
    transport->receiver = (struct link_receiver){on_frame, on_down, end, on_refused};
}

static int begin(void **state)
{
    struct fixture *f = new0(struct fixture);
    int error;

    f->loop = loop_new(clock_real());
    link_keys_new(f->master.public, f->master.secret);
    link_keys_new(f->slave.public, f->slave.secret);
    link_keys_new(f->other.public, f->other.secret);
    end_start(&f->master, link_zmq_listen(f->loop, "tcp://127.0.0.1:*", f->master.secret, false, &error));
    assert_int_equal(error, 0);
    end_start(&f->slave, link_zmq_connect(f->loop, f->slave.secret));
    end_start(&f->other, link_zmq_connect(f->loop, f->other.secret));
    *state = f;
    return 0;
}

static int end(void **state)
{
    struct fixture *f = *state;

    f->slave.transport->destroy(&f->slave.transport);
    f->other.transport->destroy(&f->other.transport);
    f->master.transport->destroy(&f->master.transport);
    loop_destroy(&f->loop);
    free(f);
    return 0;
}

/* Step the loop until the condition holds; a transport gives nothing to wait for but its messages. */
#define UNTIL(f, condition)                                                                        \
    do {                                                                                           \
        uint64_t until_ = clock_now_ms(clock_real()) + WAIT_MS;                                    \
        while (!(condition)) {                                                                     \
            assert_true(clock_now_ms(clock_real()) < until_);                                      \
            if (!loop_step((f)->loop))                                                             \
                usleep(500);                                                                       \
        }                                                                                          \
    } while (0)

static void say(struct end *end, const char *key, const char *text)
{
    end->transport->send(end->transport, key, text, strlen(text));
}


static void join(struct end *end, const char *endpoint, const char *master_key)
{
    end->transport->connect(end->transport, endpoint, master_key);
}

/* Until the connection stands frames are dropped, so a greeting is repeated. */
static void greet(struct fixture *f, struct end *end, const char *text)
{
    int before = f->master.frames;

    for (int i = 0; f->master.frames == before; i++) {
        uint64_t until = clock_now_ms(clock_real()) + 50;

        assert_true(i < WAIT_MS / 50);
        say(end, f->master.public, text);
        while (f->master.frames == before && clock_now_ms(clock_real()) < until)
            if (!loop_step(f->loop))
                usleep(500);
    }
}

static void the_sender_is_who_has_the_key(void **state)
{
    struct fixture *f = *state;
    const char *at = link_zmq_endpoint(f->master.transport);

    f->master.transport->allow(f->master.transport, f->slave.public, true);
    f->master.transport->allow(f->master.transport, f->other.public, true);
    join(&f->slave, at, f->master.public);
    join(&f->other, at, f->master.public);
    greet(f, &f->slave, "from slave");
    assert_string_equal(f->master.last_key, f->slave.public);
    greet(f, &f->other, "from other");
    UNTIL(f, streq(f->master.last, "from other"));
    assert_string_equal(f->master.last_key, f->other.public);

    say(&f->master, f->other.public, "to other");
    say(&f->master, f->slave.public, "to slave");
    UNTIL(f, f->slave.frames == 1 && f->other.frames == 1);
    assert_string_equal(f->slave.last, "to slave");
    assert_string_equal(f->other.last, "to other");
    assert_string_equal(f->slave.last_key, f->master.public);
}

static void an_unknown_key_is_refused_and_a_known_one_can_be_shut_out(void **state)
{
    struct fixture *f = *state;
    const char *at = link_zmq_endpoint(f->master.transport);

    f->master.transport->allow(f->master.transport, f->slave.public, true);
    join(&f->other, at, f->master.public);
    join(&f->slave, at, f->master.public);
    for (int i = 0; i < 20; i++) {
        say(&f->other, f->master.public, "let me in");
        greet(f, &f->slave, "mine");
        assert_string_equal(f->master.last_key, f->slave.public);
    }
    f->master.transport->allow(f->master.transport, f->slave.public, false);
    f->master.transport->allow(f->master.transport, f->other.public, true);
    f->master.frames = 0;
    say(&f->slave, f->master.public, "still mine?");
    greet(f, &f->other, "now mine");
    assert_string_equal(f->master.last_key, f->other.public);
}

static void a_master_with_another_key_is_not_believed(void **state)
{
    struct fixture *f = *state;
    const char *at = link_zmq_endpoint(f->master.transport);

    f->master.transport->allow(f->master.transport, f->slave.public, true);
    f->master.transport->allow(f->master.transport, f->other.public, true);
    join(&f->slave, at, f->other.public); /* expects another server */
    join(&f->other, at, f->master.public);
    for (int i = 0; i < 10; i++) {
        say(&f->slave, f->other.public, "hello?");
        greet(f, &f->other, "right");
        assert_string_equal(f->master.last_key, f->other.public);
    }
    UNTIL(f, f->slave.refusals > 0); /* and does not understand what it is told */
    assert_string_equal(f->slave.last_key, f->other.public);
    assert_int_equal(f->other.refusals, 0);
    join(&f->slave, at, f->master.public);
    greet(f, &f->slave, "the right one");
}

static void a_peer_that_is_gone_or_deaf_is_told_of_once(void **state)
{
    struct fixture *f = *state;
    const char *at = link_zmq_endpoint(f->master.transport);
    char *big = alloc0(60000);
    int sent = 0;

    memset(big, 'x', 60000 - 1);
    f->master.transport->allow(f->master.transport, f->slave.public, true);
    f->master.transport->allow(f->master.transport, f->other.public, true);
    join(&f->slave, at, f->master.public);
    join(&f->other, at, f->master.public);
    greet(f, &f->slave, "hello");
    greet(f, &f->other, "hello");
    /* The loop takes nothing while this goes on, so the slave end stops reading at its limit. */
    while (f->master.downs == 0 && sent < 20000) {
        for (int i = 0; i < 50; i++)
            sent += f->master.transport->send(f->master.transport, f->slave.public, big, 60000);
        usleep(1000);
        if (sent > 4000)
            break;
    }
    /* the other one is served meanwhile */
    say(&f->master, f->other.public, "quick");
    UNTIL(f, f->other.frames == 1);
    assert_true((size_t) f->slave.frames * 60000 == f->slave.bytes);
    free(big);

    f->other.transport->connect(f->other.transport, NULL, NULL);
    for (int i = 0; f->master.downs == 0 && i < 1000; i++) {
        say(&f->master, f->other.public, "gone?");
        usleep(1000);
        while (loop_step(f->loop))
            ;
    }
    assert_true(f->master.downs >= 1);
    /* and back again */
    join(&f->other, at, f->master.public);
    greet(f, &f->other, "back");
}

static void an_open_socket_takes_any_key_and_names_it(void **state)
{
    struct fixture *f = *state;
    struct end door = {0};
    int error;

    link_keys_from_secret("pool secret", door.public, door.secret);
    end_start(&door, link_zmq_listen(f->loop, "tcp://127.0.0.1:*", door.secret, true, &error));
    assert_int_equal(error, 0);
    join(&f->slave, link_zmq_endpoint(door.transport), door.public);
    for (int i = 0; door.frames == 0 && i < WAIT_MS; i++) {
        say(&f->slave, door.public, "may I join");
        usleep(1000);
        while (loop_step(f->loop))
            ;
    }
    assert_string_equal(door.last_key, f->slave.public);
    door.transport->destroy(&door.transport);
}

static void an_address_in_use_is_an_error(void **state)
{
    struct fixture *f = *state;
    int error;

    assert_null(link_zmq_listen(f->loop, link_zmq_endpoint(f->master.transport), f->other.secret, false, &error));
    assert_true(error < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_sender_is_who_has_the_key, begin, end),
        cmocka_unit_test_setup_teardown(an_unknown_key_is_refused_and_a_known_one_can_be_shut_out, begin, end),
        cmocka_unit_test_setup_teardown(a_master_with_another_key_is_not_believed, begin, end),
        cmocka_unit_test_setup_teardown(a_peer_that_is_gone_or_deaf_is_told_of_once, begin, end),
        cmocka_unit_test_setup_teardown(an_open_socket_takes_any_key_and_names_it, begin, end),
        cmocka_unit_test_setup_teardown(an_address_in_use_is_an_error, begin, end),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
