/* test_loop.c - mailbox, timers, descriptors, fairness, of a real and of a stepped loop; clock and
 * random */
#include "shared/loop.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/random.h"

/* What happened, in order, as text. */
static char trace[4096];

static void say(const char *word)
{
    size_t used = strlen(trace);

    snprintf(trace + used, sizeof(trace) - used, "%s ", word);
}

static void say_arg(void *arg)
{
    say(arg);
}

struct bench {
    struct fake_clock clock;
    struct loop *loop;
};

static int bench_up(void **state)
{
    struct bench *bench = new0(struct bench);

    fake_clock_init(&bench->clock, 1000, 1700000000);
    bench->loop = loop_new(&bench->clock.clock);
    trace[0] = '\0';
    *state = bench;
    return 0;
}

static int bench_down(void **state)
{
    struct bench *bench = *state;

    loop_destroy(&bench->loop);
    free(bench);
    return 0;
}

static void run_until_idle(struct loop *loop)
{
    while (loop_step(loop))
        ;
}

static void messages_run_in_order(void **state)
{
    struct bench *bench = *state;

    loop_call(bench->loop, say_arg, "a");
    loop_call(bench->loop, say_arg, "b");
    loop_call(bench->loop, say_arg, "c");
    assert_true(loop_step(bench->loop));
    assert_string_equal(trace, "a b c ");
    assert_false(loop_step(bench->loop));
}

static void timers_run_in_order(void **state)
{
    struct bench *bench = *state;
    struct timer late = {0}, early = {0}, tie = {0}, stopped = {0};

    assert_int_equal(loop_next_timer_ms(bench->loop), UINT64_MAX);
    timer_start(bench->loop, &late, 20, say_arg, "late");
    timer_start(bench->loop, &early, 10, say_arg, "early");
    timer_start_at(bench->loop, &tie, 1010, say_arg, "tie");
    timer_start(bench->loop, &stopped, 5, say_arg, "stopped");
    timer_stop(&stopped);
    timer_stop(&stopped);
    assert_int_equal(loop_next_timer_ms(bench->loop), 1010);
    fake_clock_advance_ms(&bench->clock, 9);
    assert_false(loop_step(bench->loop));
    fake_clock_advance_ms(&bench->clock, 1);
    assert_true(loop_step(bench->loop));
    assert_string_equal(trace, "early tie ");
    assert_false(timer_is_running(&early));
    assert_true(timer_is_running(&late));
    fake_clock_set_ms(&bench->clock, 5000);
    run_until_idle(bench->loop);
    assert_string_equal(trace, "early tie late ");
}

static void timer_rounds_up_and_saturates(void **state)
{
    struct bench *bench = *state;
    struct timer timer = {0}, never = {0};

    bench->clock.time_us += 500;
    timer_start(bench->loop, &timer, 1, say_arg, "x");
    timer_start(bench->loop, &never, UINT64_MAX, say_arg, "never");
    assert_int_equal(loop_next_timer_ms(bench->loop), 1002);
    fake_clock_set_ms(&bench->clock, 1001);
    assert_false(loop_step(bench->loop));
    fake_clock_set_ms(&bench->clock, 1002);
    assert_true(loop_step(bench->loop));
    timer_stop(&never);
    timer_start_at(bench->loop, &never, UINT64_MAX, say_arg, "never");
    assert_false(loop_step(bench->loop));
    timer_stop(&never);
}

/* The heap against a plain search, with many starts and stops. */
static void timers_agree_with_a_sorted_list(void **state)
{
    struct bench *bench = *state;
    struct timer timers[500] = {{0}};
    struct seeded_random seeded;
    uint64_t last_us = 0;

    seeded_random_init(&seeded, 7);
    for (int i = 0; i < 20000; i++) {
        struct timer *timer = &timers[random_below(&seeded.random, ARRAY_SIZE(timers))];

        if (random_below(&seeded.random, 3) == 0)
            timer_stop(timer);
        else
            timer_start(bench->loop, timer, random_below(&seeded.random, 1000), say_arg, "");
        if (i % 100 == 0) {
            uint64_t least = UINT64_MAX;

            for (size_t j = 0; j < ARRAY_SIZE(timers); j++)
                if (timer_is_running(&timers[j]))
                    least = MIN(least, timers[j].due_us / 1000);
            assert_int_equal(loop_next_timer_ms(bench->loop), least);
        }
    }
    while (loop_next_timer_ms(bench->loop) != UINT64_MAX) {
        assert_true(loop_next_timer_ms(bench->loop) * 1000 >= last_us);
        last_us = loop_next_timer_ms(bench->loop) * 1000;
        fake_clock_set_ms(&bench->clock, loop_next_timer_ms(bench->loop));
        assert_true(loop_step(bench->loop));
    }
}

struct repeating {
    struct loop *loop;
    struct timer timer;
    int runs;
};

static void repeat(void *arg)
{
    struct repeating *repeating = arg;

    repeating->runs++;
    timer_start_at(repeating->loop, &repeating->timer, 1, repeat, repeating); /* long past */
}

static void a_timer_without_delay_starves_nobody(void **state)
{
    struct bench *bench = *state;
    struct repeating a = {.loop = bench->loop}, b = {.loop = bench->loop};

    timer_start(bench->loop, &a.timer, 0, repeat, &a);
    timer_start(bench->loop, &b.timer, 0, repeat, &b);
    for (int i = 1; i <= 10; i++) {
        loop_call(bench->loop, say_arg, "m");
        assert_true(loop_step(bench->loop));
        assert_int_equal(a.runs, i);
        assert_int_equal(b.runs, i);
    }
    assert_string_equal(trace, "m m m m m m m m m m ");
    timer_stop(&a.timer);
    timer_stop(&b.timer);
}

static void flood(void *arg)
{
    loop_call(arg, flood, arg);
    loop_call(arg, say_arg, "");
}

static void a_flood_of_messages_does_not_starve_timers(void **state)
{
    struct bench *bench = *state;
    struct timer timer = {0};

    for (int i = 0; i < 1000; i++)
        loop_call(bench->loop, flood, bench->loop);
    timer_start(bench->loop, &timer, 0, say_arg, "timer");
    assert_true(loop_step(bench->loop));
    assert_non_null(strstr(trace, "timer"));
}

struct dropped {
    struct loop_item item;
    bool is_dropped;
};

static void drop(struct loop_item *item)
{
    CONTAINER_OF(item, struct dropped, item)->is_dropped = true;
}

static void never_run(_unused_ struct loop_item *item)
{
    fail();
}

static void a_destroyed_loop_drops_and_refuses(void **state)
{
    struct bench *bench = *state;
    struct loop *loop = loop_hold(bench->loop);
    struct dropped dropped = {.item = {.run = never_run, .drop = drop}};
    struct timer timer = {0};

    loop_call(loop, say_arg, "lost");
    assert_true(loop_post(loop, &dropped.item));
    timer_start(loop, &timer, 0, say_arg, "lost");
    loop_destroy(&bench->loop);
    assert_null(bench->loop);
    assert_true(dropped.is_dropped);
    timer_stop(&timer);
    assert_false(loop_post(loop, &dropped.item));
    loop_call(loop, say_arg, "lost");
    loop_release(loop);
    assert_string_equal(trace, "");
}

struct two_fds {
    struct loop *loop;
    int fds[2];
    int calls;
};

static void unwatch_both(void *arg, uint32_t events)
{
    struct two_fds *two = arg;

    assert_int_equal(events, EPOLLIN);
    two->calls++;
    for (int i = 0; i < 2; i++) {
        loop_unwatch_fd(two->loop, two->fds[i]);
        /* the same number, watched anew: the event already fetched is not for this use of it */
        assert_int_equal(loop_watch_fd(two->loop, two->fds[i], 0, unwatch_both, two), 0);
    }
}

static void an_unwatched_fd_is_silent(void **state)
{
    struct bench *bench = *state;
    struct two_fds two = {.loop = bench->loop};

    for (int i = 0; i < 2; i++) {
        two.fds[i] = eventfd(1, EFD_CLOEXEC);
        assert_int_equal(loop_watch_fd(bench->loop, two.fds[i], EPOLLIN, unwatch_both, &two), 0);
    }
    assert_true(loop_step(bench->loop));
    assert_int_equal(two.calls, 1);
    assert_false(loop_step(bench->loop));
    for (int i = 0; i < 2; i++) {
        loop_unwatch_fd(bench->loop, two.fds[i]);
        loop_unwatch_fd(bench->loop, two.fds[i]);
        close(two.fds[i]);
    }
}

static void a_regular_file_cannot_be_watched(void **state)
{
    struct bench *bench = *state;
    FILE *file = tmpfile();

    assert_int_equal(loop_watch_fd(bench->loop, fileno(file), EPOLLIN, unwatch_both, NULL), -EPERM);
    loop_unwatch_fd(bench->loop, fileno(file));
    fclose(file);
}

/* --- with threads and the real clock --- */

#define SENDERS  4
#define MESSAGES 20000

struct meeting {
    struct loop *loop;
    unsigned last[SENDERS]; /* the loop thread's, no lock: the sanitizer would object */
    unsigned total;
};

struct message {
    struct loop_item item;
    struct meeting *meeting;
    unsigned sender, number;
};

struct sender {
    struct meeting *meeting;
    unsigned number;
};

static void message_run(struct loop_item *item)
{
    struct message *message = CONTAINER_OF(item, struct message, item);
    struct meeting *meeting = message->meeting;

    assert_true(loop_is_current(meeting->loop));
    assert_int_equal(meeting->last[message->sender] + 1, message->number);
    meeting->last[message->sender] = message->number;
    if (++meeting->total == SENDERS * MESSAGES)
        loop_stop(meeting->loop);
    free(message);
}

static void *send_all(void *arg)
{
    struct sender *sender = arg;

    for (unsigned i = 1; i <= MESSAGES; i++) {
        struct message *message = new0(struct message);

        *message = (struct message){{.run = message_run}, sender->meeting, sender->number, i};
        assert_true(loop_post(sender->meeting->loop, &message->item));
        if (i % 1000 == 0)
            sched_yield(); /* lets the loop fall asleep now and then */
    }
    return NULL;
}

static void many_senders_keep_their_order(_unused_ void **state)
{
    struct meeting meeting = {.loop = loop_new(clock_real())};
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];
    struct loop_counters counters;

    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){&meeting, i};
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    loop_run(meeting.loop);
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(meeting.total, SENDERS * MESSAGES);
    loop_counters_read(meeting.loop, &counters);
    assert_int_equal(counters.items, SENDERS * MESSAGES);
    loop_destroy(&meeting.loop);
}

static void *run_loop(void *arg)
{
    loop_run(arg);
    return NULL;
}

struct ping {
    struct loop *here, *there;
    int left;
};

static void ping(void *arg)
{
    struct ping *ping_ = arg;
    struct loop *to = ping_->there;

    if (ping_->left-- == 0) {
        loop_stop(ping_->here);
        loop_stop(ping_->there);
        return;
    }
    ping_->there = ping_->here;
    ping_->here = to;
    loop_call(to, ping, ping_);
}

/* Each hop finds the other loop asleep or falling asleep: a lost wake-up would hang here. */
static void two_loops_play_ping_pong(_unused_ void **state)
{
    struct loop *a = loop_new(clock_real()), *b = loop_new(clock_real());
    struct ping game = {.here = a, .there = b, .left = 5000};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, run_loop, b), 0);
    loop_call(a, ping, &game);
    loop_run(a);
    pthread_join(thread, NULL);
    assert_int_equal(game.left, -1);
    loop_destroy(&a);
    loop_destroy(&b);
}

static void stop_loop(void *arg)
{
    loop_stop(arg);
}

static void a_real_timer_is_not_early(_unused_ void **state)
{
    struct loop *loop = loop_new(clock_real());
    struct timer timer = {0};
    uint64_t began_us = clock_now_us(clock_real());

    timer_start(loop, &timer, 3, stop_loop, loop);
    loop_run(loop);
    assert_true(clock_now_us(clock_real()) - began_us >= 3000);
    loop_stop(loop);
    loop_run(loop); /* returns at once */
    loop_destroy(&loop);
}

/* --- clock and random --- */

static void fake_clock_keeps_two_times(_unused_ void **state)
{
    struct fake_clock fake;

    fake_clock_init(&fake, 5000, 100);
    fake_clock_advance_ms(&fake, 1500);
    assert_int_equal(clock_now_ms(&fake.clock), 6500);
    assert_int_equal(clock_utc_ms(&fake.clock), 101500);
    fake_clock_set_utc(&fake, 50);
    assert_int_equal(clock_now_ms(&fake.clock), 6500);
    assert_int_equal(clock_utc_s(&fake.clock), 50);
}

static void a_seed_gives_its_stream(_unused_ void **state)
{
    struct seeded_random a, b, c;
    unsigned seen = 0;

    seeded_random_init(&a, 1);
    seeded_random_init(&b, 1);
    seeded_random_init(&c, 2);
    for (int i = 0; i < 100; i++) {
        uint64_t x = random_u64(&a.random);

        assert_int_equal(x, random_u64(&b.random));
        assert_int_not_equal(x, random_u64(&c.random));
        seen |= 1u << random_below(&a.random, 6);
        (void) random_u64(&b.random);
    }
    assert_int_equal(seen, 0x3f);
    assert_int_equal(random_below(&a.random, 1), 0);
    assert_true(random_below(&a.random, UINT64_MAX) < UINT64_MAX);
    assert_int_not_equal(random_u64(random_real()), random_u64(random_real()));
}

#define STEPPED(test) cmocka_unit_test_setup_teardown(test, bench_up, bench_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STEPPED(messages_run_in_order),
        STEPPED(timers_run_in_order),
        STEPPED(timer_rounds_up_and_saturates),
        STEPPED(timers_agree_with_a_sorted_list),
        STEPPED(a_timer_without_delay_starves_nobody),
        STEPPED(a_flood_of_messages_does_not_starve_timers),
        STEPPED(a_destroyed_loop_drops_and_refuses),
        STEPPED(an_unwatched_fd_is_silent),
        STEPPED(a_regular_file_cannot_be_watched),
        cmocka_unit_test(many_senders_keep_their_order),
        cmocka_unit_test(two_loops_play_ping_pong),
        cmocka_unit_test(a_real_timer_is_not_early),
        cmocka_unit_test(fake_clock_keeps_two_times),
        cmocka_unit_test(a_seed_gives_its_stream),
    };

    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
