/* test_workers.c - blocking work beside the loop, its queue, and the form without threads */
#include "shared/workers.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/fiber.h"

struct world {
    struct loop *loop;
    struct workers *workers;
    sem_t gate;       /* jobs wait here */
    pthread_t thread; /* the loop's */
    unsigned left;
    unsigned long sum;
};

static void world_init(struct world *world, unsigned threads)
{
    *world = (struct world){.loop = loop_new(clock_real()), .thread = pthread_self()};
    world->workers = workers_new(threads, "test-workers-with-a-long-name");
    sem_init(&world->gate, 0, 0);
}

static void world_done(struct world *world)
{
    workers_destroy(&world->workers);
    loop_destroy(&world->loop);
    sem_destroy(&world->gate);
}

struct work {
    struct world *world;
    unsigned long square; /* in: the number; out: its square */
    bool is_here;
};

static void square(void *arg)
{
    struct work *work = arg;

    assert_null(fiber_self());
    work->is_here = pthread_equal(pthread_self(), work->world->thread);
    work->square *= work->square;
}

static void let_square(void *arg)
{
    struct world *world = arg;
    struct work work = {.world = world, .square = world->left--};

    for (int i = 0; i < 2; i++)
        workers_run(world->workers, square, &work);
    assert_false(work.is_here);
    world->sum += work.square;
    if (fiber_count(world->loop) == 1)
        loop_stop(world->loop);
}

static void many_fibers_let_work(_unused_ void **state)
{
    struct world world;
    unsigned long expected = 0;

    world_init(&world, 3);
    world.left = 300;
    for (unsigned long i = 1; i <= 300; i++) {
        fiber_spawn(world.loop, let_square, &world, "worker");
        expected += i * i * i * i;
    }
    loop_run(world.loop);
    assert_int_equal(world.sum, expected);
    world_done(&world);
}

static void wait_at_gate(void *arg)
{
    struct world *world = arg;

    sem_wait(&world->gate);
}

static void let_wait(void *arg)
{
    struct world *world = arg;

    workers_run(world->workers, wait_at_gate, world);
    if (--world->left == 0)
        loop_stop(world->loop);
}

/* However many come, and whether they are cancelled: none is refused, and none is left before its end. */
static void all_wait_for_the_one_thread(_unused_ void **state)
{
    struct world world;

    world_init(&world, 1);
    world.left = 1;
    fiber_spawn(world.loop, let_wait, &world, "first");
    loop_step(world.loop);
    while (workers_queued(world.workers) > 0) /* until the thread has taken it */
        sched_yield();
    world.left = 5;
    for (int i = 0; i < 4; i++)
        fiber_cancel(fiber_spawn(world.loop, let_wait, &world, "queued"));
    loop_step(world.loop);
    assert_int_equal(world.left, 5);
    assert_int_equal(workers_queued(world.workers), 4);
    for (int i = 0; i < 5; i++)
        sem_post(&world.gate);
    loop_run(world.loop);
    assert_int_equal(world.left, 0);
    world_done(&world);
}

static void frozen_fibers_leave_their_jobs_behind(_unused_ void **state)
{
    struct world world;

    world_init(&world, 1);
    world.left = 2;
    for (int i = 0; i < 2; i++)
        fiber_spawn(world.loop, let_wait, &world, "frozen");
    loop_step(world.loop);
    loop_abandon(world.loop);
    sem_post(&world.gate);
    sem_post(&world.gate);
    world_done(&world); /* the jobs end, their results meet nobody */
    assert_int_equal(world.left, 2);
}

static void let_square_here(void *arg)
{
    struct world *world = arg;
    struct work work = {.world = world, .square = 5};

    workers_run(world->workers, square, &work);
    assert_true(work.is_here);
    world->sum = work.square;
}

static void without_threads_work_is_done_at_once(_unused_ void **state)
{
    struct world world;

    world_init(&world, 0);
    fiber_spawn(world.loop, let_square_here, &world, "here");
    assert_true(loop_step(world.loop));
    assert_int_equal(world.sum, 25);
    let_square_here(&world);
    world_done(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_fibers_let_work),
        cmocka_unit_test(all_wait_for_the_one_thread),
        cmocka_unit_test(frozen_fibers_leave_their_jobs_behind),
        cmocka_unit_test(without_threads_work_is_done_at_once),
    };

    return cmocka_run_group_tests_name("workers", tests, NULL, NULL);
}
