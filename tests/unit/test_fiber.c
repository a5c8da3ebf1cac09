/* test_fiber.c - fibers: waiting, cancel, deadlines, freezing, completions, stacks */
#include "shared/fiber.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/random.h"

/* One world a test: a stepped loop with a clock that we move, and what happened as text. */
struct world {
    struct fake_clock clock;
    struct loop *loop;
    struct waitq queue;
    struct completion *completion;
    struct fiber *other;
    uint64_t deadline_ms;
    int result;
    char trace[8192];
};

static void say(struct world *world, const char *word)
{
    size_t used = strlen(world->trace);

    snprintf(world->trace + used, sizeof(world->trace) - used, "%s ", word);
}

static void say_result(struct world *world, int r)
{
    say(world, r == 0 ? "0" : strerrorname_np(-r));
}

static int world_up(void **state)
{
    struct world *world = new0(struct world);

    fake_clock_init(&world->clock, 1000, 0);
    world->loop = loop_new(&world->clock.clock);
    *state = world;
    return 0;
}

static int world_down(void **state)
{
    struct world *world = *state;

    loop_destroy(&world->loop);
    free(world);
    return 0;
}

static void idle(struct world *world)
{
    while (loop_step(world->loop))
        ;
}

static struct fiber *spawn(struct world *world, void (*fn)(void *arg))
{
    struct fiber *fiber = fiber_spawn(world->loop, fn, world, "test");

    assert_non_null(fiber);
    return fiber;
}

/* --- running and waiting --- */

static void say_names(void *arg)
{
    struct world *world = arg;

    say(world, fiber_name(fiber_self()));
    fiber_yield();
    say(world, fiber_name(fiber_self()));
}

static void fibers_take_turns(void **state)
{
    struct world *world = *state;

    fiber_spawn(world->loop, say_names, world, "a");
    fiber_spawn(world->loop, say_names, world, "b");
    assert_string_equal(world->trace, "");
    assert_int_equal(fiber_count(world->loop), 2);
    idle(world);
    assert_string_equal(world->trace, "a b a b ");
    assert_int_equal(fiber_count(world->loop), 0);
    assert_null(fiber_self());
}

static void wait_once(void *arg)
{
    struct world *world = arg;

    say_result(world, waitq_wait(&world->queue, world->deadline_ms));
}

static void a_wake_up_does_not_run_inside_the_waker(void **state)
{
    struct world *world = *state;

    spawn(world, wait_once);
    spawn(world, wait_once);
    spawn(world, wait_once);
    idle(world);
    assert_true(waitq_wake_one(&world->queue));
    assert_string_equal(world->trace, "");
    idle(world);
    assert_string_equal(world->trace, "0 ");
    assert_int_equal(waitq_wake_all(&world->queue), 2);
    assert_true(waitq_is_empty(&world->queue));
    assert_false(waitq_wake_one(&world->queue));
    idle(world);
    assert_string_equal(world->trace, "0 0 0 ");
}

static void a_deadline_ends_a_wait(void **state)
{
    struct world *world = *state;

    world->deadline_ms = 1010;
    spawn(world, wait_once);
    idle(world);
    fake_clock_set_ms(&world->clock, 1009);
    idle(world);
    assert_string_equal(world->trace, "");
    fake_clock_set_ms(&world->clock, 1010);
    idle(world);
    assert_string_equal(world->trace, "ETIMEDOUT ");
    assert_true(waitq_is_empty(&world->queue));
    spawn(world, wait_once); /* the deadline has passed */
    idle(world);
    assert_string_equal(world->trace, "ETIMEDOUT ETIMEDOUT ");
}

static void a_wake_up_is_not_lost_to_the_deadline(void **state)
{
    struct world *world = *state;

    world->deadline_ms = 1010;
    spawn(world, wait_once);
    idle(world);
    waitq_wake_one(&world->queue);
    fiber_cancel(world->other = spawn(world, wait_once));
    fake_clock_set_ms(&world->clock, 2000);
    idle(world);
    assert_string_equal(world->trace, "0 ECANCELED ");
    assert_int_equal(loop_next_timer_ms(world->loop), UINT64_MAX);
}

static void sleep_and_tell(void *arg)
{
    struct world *world = arg;

    say_result(world, fiber_sleep(10));
    say(world, loop_now_ms(world->loop) == 1010 ? "in time" : "wrong time");
    say_result(world, fiber_sleep(0));
}

static void sleep_takes_its_time(void **state)
{
    struct world *world = *state;

    spawn(world, sleep_and_tell);
    idle(world);
    fake_clock_set_ms(&world->clock, loop_next_timer_ms(world->loop));
    idle(world);
    assert_string_equal(world->trace, "0 in time 0 ");
}

static void wait_for_pipe(void *arg)
{
    struct world *world = arg;
    uint32_t events = 0;

    say_result(world, fiber_wait_fd(world->result, EPOLLIN, world->deadline_ms, &events));
    say(world, events & EPOLLIN ? "in" : "none");
}

static void a_descriptor_can_be_waited_for(void **state)
{
    struct world *world = *state;
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    world->result = ends[0];
    world->deadline_ms = 1010;
    spawn(world, wait_for_pipe);
    idle(world);
    assert_int_equal(write(ends[1], "x", 1), 1);
    idle(world);
    assert_int_equal(read(ends[0], &(char){0}, 1), 1);
    spawn(world, wait_for_pipe);
    idle(world);
    fake_clock_set_ms(&world->clock, 1010);
    idle(world);
    assert_string_equal(world->trace, "0 in ETIMEDOUT none ");
    close(ends[0]);
    close(ends[1]);
}

/* --- cancel --- */

static void wait_until_cancelled(void *arg)
{
    struct world *world = arg;

    fiber_uncancellable_begin();
    fiber_uncancellable_begin();
    say_result(world, waitq_wait(&world->queue, 0));
    fiber_uncancellable_end();
    say_result(world, waitq_wait(&world->queue, 0));
    say(world, fiber_is_cancelled(fiber_self()) ? "flag" : "no flag");
    fiber_uncancellable_end();
    say_result(world, waitq_wait(&world->queue, 0));
    say_result(world, fiber_sleep(1));
    fiber_yield();
    fiber_cancel_clear(fiber_self());
    say_result(world, waitq_wait(&world->queue, 0));
}

static void cancel_waits_for_what_must_not_be_interrupted(void **state)
{
    struct world *world = *state;
    struct fiber *fiber = spawn(world, wait_until_cancelled);

    idle(world);
    fiber_cancel(fiber);
    idle(world);
    assert_string_equal(world->trace, "");
    waitq_wake_one(&world->queue);
    idle(world);
    assert_string_equal(world->trace, "0 ");
    waitq_wake_one(&world->queue);
    idle(world);
    assert_string_equal(world->trace, "0 0 flag ECANCELED ECANCELED ");
    fiber_cancel(fiber);
    idle(world);
    assert_string_equal(world->trace, "0 0 flag ECANCELED ECANCELED ECANCELED ");
}

/* --- completions --- */

static void wait_for_completion(void *arg)
{
    struct world *world = arg;
    _cleanup_(completion_drop) struct completion *completion = completion_new(world->loop);

    world->completion = completion;
    say_result(world, completion_wait(completion, world->deadline_ms, &world->result));
}

static void a_completion_brings_its_result(void **state)
{
    struct world *world = *state;

    spawn(world, wait_for_completion);
    idle(world);
    completion_post(world->completion, -42);
    assert_string_equal(world->trace, "");
    idle(world);
    assert_string_equal(world->trace, "0 ");
    assert_int_equal(world->result, -42);
}

static void a_late_completion_is_harmless(void **state)
{
    struct world *world = *state;

    world->deadline_ms = 1001;
    spawn(world, wait_for_completion);
    idle(world);
    fake_clock_set_ms(&world->clock, 1001);
    idle(world);
    assert_string_equal(world->trace, "ETIMEDOUT ");
    completion_post(world->completion, 1); /* the poster's end is still good */
    idle(world);
    assert_int_equal(world->result, 0);
}

static void a_completion_may_outlive_its_loop(void **state)
{
    struct world *world = *state;
    struct completion *taken = completion_new(world->loop), *late = completion_new(world->loop),
                      *end;

    end = taken;
    completion_post(taken, 1); /* dropped with the loop's mailbox */
    loop_destroy(&world->loop);
    completion_drop(&end);
    end = late;
    completion_post(late, 1);
    completion_drop(&end);
    completion_drop(&end);
}

static void prefer_the_result(void *arg)
{
    struct world *world = arg;

    wait_once(world);
    assert_true(completion_is_done(world->completion));
    say_result(world, completion_wait(world->completion, 1, &world->result));
    completion_drop(&world->completion);
}

static void a_result_that_is_there_beats_cancel(void **state)
{
    struct world *world = *state;

    world->completion = completion_new(world->loop);
    world->other = spawn(world, prefer_the_result);
    idle(world);
    completion_post(world->completion, 7);
    idle(world);
    fiber_cancel(world->other);
    idle(world);
    assert_string_equal(world->trace, "ECANCELED 0 ");
    assert_int_equal(world->result, 7);
}

#define POSTS 2000

struct posting {
    struct loop *loop;
    pthread_mutex_t lock;
    struct completion *next; /* under the lock: to be posted */
    bool is_over;
    int sum;
};

static void *post_all(void *arg)
{
    struct posting *posting = arg;
    bool is_over = false;

    while (!is_over) {
        struct completion *completion;

        pthread_mutex_lock(&posting->lock);
        completion = TAKE(posting->next);
        is_over = posting->is_over;
        pthread_mutex_unlock(&posting->lock);
        if (completion)
            completion_post(completion, 1);
        else
            sched_yield();
    }
    return NULL;
}

static void wait_often(void *arg)
{
    struct posting *posting = arg;

    for (int i = 0; i < POSTS; i++) {
        _cleanup_(completion_drop) struct completion *completion = completion_new(posting->loop);
        int result = 0;

        pthread_mutex_lock(&posting->lock);
        posting->next = completion;
        pthread_mutex_unlock(&posting->lock);
        /* every third gives up early, sometimes before and sometimes after the post */
        if (completion_wait(completion, i % 3 ? 0 : loop_now_ms(posting->loop) + 1, &result) == 0)
            posting->sum += result;
        else
            posting->sum++;
        for (;;) {
            bool is_taken;

            pthread_mutex_lock(&posting->lock);
            is_taken = !posting->next;
            pthread_mutex_unlock(&posting->lock);
            if (is_taken)
                break;
            fiber_yield();
        }
    }
    pthread_mutex_lock(&posting->lock);
    posting->is_over = true;
    pthread_mutex_unlock(&posting->lock);
    loop_stop(posting->loop);
}

static void another_thread_completes(_unused_ void **state)
{
    struct posting posting = {.loop = loop_new(clock_real()), .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, post_all, &posting), 0);
    fiber_spawn(posting.loop, wait_often, &posting, "waiter");
    loop_run(posting.loop);
    pthread_join(thread, NULL);
    assert_int_equal(posting.sum, POSTS);
    loop_destroy(&posting.loop);
}

/* --- freezing --- */

static void guard(struct world **world)
{
    say(*world, "unwound");
}

static void hold_a_guard(void *arg)
{
    _cleanup_(guard) struct world *world = arg;
    _cleanup_(free_p) char *owned = dup_text("owned by a frozen fiber");

    say_result(world, waitq_wait(&world->queue, 1050));
    say(world, owned);
}

static void abandon(void *arg)
{
    _cleanup_(guard) struct world *world = arg;

    loop_abandon(world->loop);
    say(world, "went on");
}

static void an_abandoned_loop_is_frozen(void **state)
{
    struct world *world = *state;
    struct fiber *waiting = spawn(world, hold_a_guard), *woken = spawn(world, hold_a_guard);

    idle(world);
    assert_true(waiting && woken);
    waitq_wake_one(&world->queue);
    spawn(world, abandon);
    fiber_spawn(world->loop, hold_a_guard, world, "new");
    /* the first of the two runs before the one that abandons, the new one does not run at all */
    idle(world);
    assert_string_equal(world->trace, "0 owned by a frozen fiber unwound ");
    assert_true(loop_is_abandoned(world->loop));
    assert_true(waitq_is_empty(&world->queue));
    fiber_cancel(woken);
    fake_clock_set_ms(&world->clock, 2000);
    idle(world);
    assert_null(fiber_spawn(world->loop, hold_a_guard, world, "refused"));
    loop_destroy(&world->loop);
    assert_string_equal(world->trace, "0 owned by a frozen fiber unwound ");
}

static void abandon_here(void *arg)
{
    loop_abandon(((struct world *) arg)->loop);
}

static void abandon_from_loop_stack(void *arg)
{
    _cleanup_(guard) struct world *world = arg;

    fiber_on_loop_stack(abandon_here, world);
}

static void freezing_reaches_a_fiber_on_the_loop_stack(void **state)
{
    struct world *world = *state;

    spawn(world, abandon_from_loop_stack);
    idle(world);
    assert_string_equal(world->trace, "");
}

/* --- stacks and limits --- */

__attribute__((noinline)) static int use_stack(int kib)
{
    volatile char frame[1024];

    memset((void *) frame, kib, sizeof(frame));
    return kib <= 0 ? frame[0] : use_stack(kib - 1) + frame[1023];
}

static void use_forty_kib(void *arg)
{
    struct world *world = arg;

    waitq_wait(&world->queue, 0);
    world->result += use_stack(40) != 0;
    fiber_yield();
}

static void four_thousand_fibers(void **state)
{
    struct world *world = *state;
    struct loop_counters counters;

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < FIBERS_MAX_DEFAULT; i++)
            spawn(world, use_forty_kib);
        assert_null(fiber_spawn(world->loop, use_forty_kib, world, "too many"));
        idle(world);
        assert_int_equal(waitq_wake_all(&world->queue), FIBERS_MAX_DEFAULT);
        idle(world);
        assert_int_equal(fiber_count(world->loop), 0);
    }
    assert_int_equal(world->result, 2 * FIBERS_MAX_DEFAULT);
    loop_counters_read(world->loop, &counters);
    assert_int_equal(counters.fibers, 0);
    assert_int_equal(counters.fibers_most, FIBERS_MAX_DEFAULT);
    assert_int_equal(counters.fibers_spawned, 2 * FIBERS_MAX_DEFAULT);
    assert_int_equal(counters.fibers_refused, 2);
}

static void the_limit_is_a_setting(void **state)
{
    struct world *world = *state;

    loop_set_limits(world->loop, &(struct loop_limits){.fibers_max = 1});
    spawn(world, wait_once);
    assert_null(fiber_spawn(world->loop, wait_once, world, "second"));
    idle(world);
    waitq_wake_one(&world->queue);
    idle(world);
    spawn(world, wait_once);
}

static void use_a_mebibyte(void *arg)
{
    struct world *world = arg;

    assert_null(fiber_self());
    world->result = use_stack(1024) != 0;
    say(world, "large");
}

static void borrow(void *arg)
{
    struct world *world = arg;

    say(world, "before");
    fiber_on_loop_stack(use_a_mebibyte, world);
    say(world, "after");
    assert_non_null(fiber_self());
}

static void the_loop_lends_its_stack(void **state)
{
    struct world *world = *state;

    spawn(world, borrow);
    spawn(world, say_names);
    idle(world);
    assert_string_equal(world->trace, "before large after test test ");
    assert_int_equal(world->result, 1);
    fiber_on_loop_stack(use_a_mebibyte, world);
}

__attribute__((noinline)) static int recurse_for_ever(volatile int *depth)
{
    volatile char frame[512];

    frame[0] = (char) ++*depth;
    return *depth < 0 ? 0 : recurse_for_ever(depth) + frame[0];
}

static void overflow(_unused_ void *arg)
{
    volatile int depth = 0;

    recurse_for_ever(&depth);
}

static void forbidden_wait(void *arg)
{
    fiber_forbid_wait_begin();
    waitq_wait(&((struct world *) arg)->queue, 0);
}

/* How a child process ends that runs the fiber. */
static int fate_of(struct world *world, void (*fn)(void *arg))
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        assert_non_null(freopen("/dev/null", "w", stderr));
        /* The handlers of cmocka and the sanitizers would make an exit of it. */
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        spawn(world, fn);
        idle(world);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void an_overflow_kills_and_does_not_corrupt(void **state)
{
    int status = fate_of(*state, overflow);

    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static void a_forbidden_wait_is_asserted(void **state)
{
    int status = fate_of(*state, forbidden_wait);

    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void keep_promise(void *arg)
{
    struct world *world = arg;

    fiber_forbid_wait_begin();
    fiber_forbid_wait_begin();
    fiber_forbid_wait_end();
    fiber_forbid_wait_end();
    fiber_set_log_tag(fiber_self(), "task-1");
    fiber_set_user(fiber_self(), world);
    fiber_yield();
    assert_string_equal(fiber_log_tag(fiber_self()), "task-1");
    assert_ptr_equal(fiber_user(fiber_self()), world);
    assert_ptr_equal(fiber_loop(fiber_self()), world->loop);
}

static void expect_nothing_inherited(_unused_ void *arg)
{
    assert_string_equal(fiber_log_tag(fiber_self()), "");
    assert_null(fiber_user(fiber_self()));
    assert_false(fiber_is_cancelled(fiber_self()));
}

static void a_reused_fiber_inherits_nothing(void **state)
{
    struct world *world = *state;
    struct fiber *first = spawn(world, keep_promise);

    fiber_cancel(first);
    idle(world);
    assert_ptr_equal(spawn(world, expect_nothing_inherited), first);
    idle(world);
    fiber_forbid_wait_begin(); /* outside of fibers: nothing */
    fiber_forbid_wait_end();
}

/* --- the same seed gives the same story --- */

struct story {
    struct world *world;
    struct seeded_random seeded;
    struct fiber *fibers[8];
};

static void live(void *arg)
{
    struct story *story = arg;
    struct random *random = &story->seeded.random;
    struct loop *loop = story->world->loop;

    for (int i = 0; i < 20; i++) {
        int r = 0;

        switch (random_below(random, 4)) {
        case 0:
            r = fiber_sleep(random_below(random, 20));
            break;
        case 1:
            r = waitq_wait(&story->world->queue, loop_now_ms(loop) + random_below(random, 20));
            break;
        case 2:
            waitq_wake_one(&story->world->queue);
            break;
        case 3:
            fiber_yield();
            break;
        }
        say(story->world, fiber_name(fiber_self()));
        say_result(story->world, r);
    }
}

static char *tell(uint64_t seed)
{
    struct world *world;
    struct story story = {0};
    char *told;

    world_up((void **) &world);
    story.world = world;
    seeded_random_init(&story.seeded, seed);
    for (int i = 0; i < 8; i++)
        fiber_spawn(world->loop, live, &story, (char[]){(char) ('a' + i), '\0'});
    for (;;) {
        idle(world);
        if (loop_next_timer_ms(world->loop) == UINT64_MAX)
            break;
        fake_clock_set_ms(&world->clock, loop_next_timer_ms(world->loop));
    }
    told = dup_text(world->trace);
    world_down((void **) &world);
    return told;
}

static void a_seed_tells_one_story(_unused_ void **state)
{
    _cleanup_(free_p) char *once = tell(5), *again = tell(5), *other = tell(6);

    assert_string_equal(once, again);
    assert_string_not_equal(once, other);
    assert_non_null(strstr(once, "ETIMEDOUT"));
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_up, world_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(fibers_take_turns),
        IN_WORLD(a_wake_up_does_not_run_inside_the_waker),
        IN_WORLD(a_deadline_ends_a_wait),
        IN_WORLD(a_wake_up_is_not_lost_to_the_deadline),
        IN_WORLD(sleep_takes_its_time),
        IN_WORLD(a_descriptor_can_be_waited_for),
        IN_WORLD(cancel_waits_for_what_must_not_be_interrupted),
        IN_WORLD(a_completion_brings_its_result),
        IN_WORLD(a_late_completion_is_harmless),
        IN_WORLD(a_completion_may_outlive_its_loop),
        IN_WORLD(a_result_that_is_there_beats_cancel),
        cmocka_unit_test(another_thread_completes),
        IN_WORLD(an_abandoned_loop_is_frozen),
        IN_WORLD(freezing_reaches_a_fiber_on_the_loop_stack),
        IN_WORLD(four_thousand_fibers),
        IN_WORLD(the_limit_is_a_setting),
        IN_WORLD(the_loop_lends_its_stack),
        IN_WORLD(an_overflow_kills_and_does_not_corrupt),
        IN_WORLD(a_forbidden_wait_is_asserted),
        IN_WORLD(a_reused_fiber_inherits_nothing),
        cmocka_unit_test(a_seed_tells_one_story),
    };

    return cmocka_run_group_tests_name("fiber", tests, NULL, NULL);
}
