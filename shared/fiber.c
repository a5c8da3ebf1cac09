/* fiber.c - long work as plain functions that give way only where they wait
 *
 * Scheduling is nothing but the loop's run queue: a fiber carries a loop_item, and to wake it is to
 * queue that item. All waits are fiber_wait(): at most one wait queue, at most one timer, and the
 * flag of cancel; whichever comes first takes the fiber out of the others, so no stale wake-up
 * exists.
 *
 * A fiber whose function has returned stays inside its coroutine, in front of the next turn of
 * fiber_main's loop, and waits in the pool for a new function: spawning then costs neither system
 * call nor page fault. */
#include "shared/fiber.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "shared/coroutine.h"

/* Stacks kept for reuse; those above are given back when a burst is over. */
#define POOL_MAX 256

enum fiber_state {
    FIBER_IDLE,  /* in the pool */
    FIBER_READY, /* in the run queue */
    FIBER_RUNNING,
    FIBER_WAITING,
};

struct fiber {
    struct loop *loop;
    struct fibers *fibers;
    struct coroutine *coroutine;
    struct loop_item item; /* in the run queue while READY */
    enum fiber_state state;
    struct fiber *older, *newer; /* among those alive; in the pool only `older` */

    /* from spawn to return */
    void (*fn)(void *arg);
    void *arg;
    char name[32], log_tag[FIBER_LOG_TAG_BYTES];
    void *user;
    bool is_cancelled;
    unsigned uncancellable, forbid_wait; /* begins without their end */

    /* while WAITING */
    struct waitq *queue;           /* NULL: for the timer alone */
    struct fiber *before, *behind; /* in the queue */
    struct timer timer;
    int wait_result;

    /* fiber_on_loop_stack */
    void (*loop_fn)(void *arg);
    void *loop_arg;
};

struct fibers {
    struct loop *loop;
    struct fiber *newest; /* all that are alive */
    size_t count, max;
    struct fiber *pool; /* last returned, first used: its stack is warm */
    size_t pooled;
    bool is_abandoned;
};

static _Thread_local struct fiber *current;

/* Not inlined: the compiler may not remember the variable's address from before a switch. */
__attribute__((noinline)) struct fiber *fiber_self(void)
{
    return current;
}

__attribute__((noinline)) static void set_current(struct fiber *fiber)
{
    current = fiber;
}

/* --- birth, running, end --- */

static void fiber_release(struct fiber *fiber)
{
    coroutine_destroy(&fiber->coroutine);
    free(fiber);
}

static void fibers_destroy(struct fibers *fibers)
{
    struct fiber *fiber;

    while ((fiber = fibers->newest)) {
        fibers->newest = fiber->older;
        fiber_release(fiber);
    }
    while ((fiber = fibers->pool)) {
        fibers->pool = fiber->older;
        fiber_release(fiber);
    }
    free(fibers);
}

static struct fibers *fibers_of(struct loop *loop)
{
    struct fibers *fibers = loop_fibers(loop);

    if (fibers)
        return fibers;
    fibers = new0(struct fibers);
    fibers->loop = loop;
    fibers->max = FIBERS_MAX_DEFAULT;
    loop_set_fibers(loop, fibers, fibers_destroy);
    return fibers;
}

void loop_set_limits(struct loop *loop, const struct loop_limits *limits)
{
    fibers_of(loop)->max = limits->fibers_max ? limits->fibers_max : FIBERS_MAX_DEFAULT;
}

/* What every coroutine runs, one fiber's function after the other. */
static void fiber_main(void *arg)
{
    struct fiber *fiber = arg;

    for (;;) {
        fiber->fn(fiber->arg);
        assert(fiber->uncancellable == 0 && fiber->forbid_wait == 0);
        fiber->state = FIBER_IDLE;
        coroutine_leave(fiber->coroutine);
    }
}

static void retire(struct fiber *fiber)
{
    struct fibers *fibers = fiber->fibers;

    if (fiber->newer)
        fiber->newer->older = fiber->older;
    else
        fibers->newest = fiber->older;
    if (fiber->older)
        fiber->older->newer = fiber->newer;
    fiber->newer = fiber->older = NULL;
    loop_count_fibers(fibers->loop, --fibers->count, 0, 0);

    if (fibers->pooled >= POOL_MAX) {
        fiber_release(fiber);
        return;
    }
    fiber->older = fibers->pool;
    fibers->pool = fiber;
    fibers->pooled++;
}

/* The fiber's turn in the run queue. */
static void fiber_enter(struct loop_item *item)
{
    struct fiber *fiber = CONTAINER_OF(item, struct fiber, item);

    if (fiber->fibers->is_abandoned)
        return;
    assert(fiber->state == FIBER_READY && !fiber_self());
    fiber->state = FIBER_RUNNING;
    for (;;) {
        void (*fn)(void *arg);

        set_current(fiber);
        coroutine_enter(fiber->coroutine);
        set_current(NULL);
        fn = TAKE(fiber->loop_fn);
        if (!fn)
            break;
        fn(fiber->loop_arg);
        if (fiber->fibers->is_abandoned)
            return;
    }
    if (fiber->state == FIBER_IDLE)
        retire(fiber);
}

static void make_ready(struct fiber *fiber)
{
    fiber->state = FIBER_READY;
    loop_defer(fiber->loop, &fiber->item);
}

/* One from the pool, else a new one, else NULL. */
static struct fiber *fiber_take(struct fibers *fibers)
{
    struct fiber *fiber = fibers->pool;

    if (fiber) {
        fibers->pool = TAKE(fiber->older);
        fibers->pooled--;
        return fiber;
    }
    fiber = new0(struct fiber);
    fiber->loop = fibers->loop;
    fiber->fibers = fibers;
    fiber->item.run = fiber_enter;
    fiber->coroutine = coroutine_new(fiber_main, fiber);
    if (!fiber->coroutine) {
        free(fiber);
        return NULL;
    }
    return fiber;
}

struct fiber *fiber_spawn(struct loop *loop, void (*fn)(void *arg), void *arg, const char *name)
{
    struct fibers *fibers = fibers_of(loop);
    struct fiber *fiber = NULL;

    assert(loop_is_current(loop));
    if (fibers->count < fibers->max && !fibers->is_abandoned)
        fiber = fiber_take(fibers);
    if (!fiber) {
        loop_count_fibers(loop, fibers->count, 0, 1);
        return NULL;
    }
    fiber->fn = fn;
    fiber->arg = arg;
    snprintf(fiber->name, sizeof(fiber->name), "%s", name);
    fiber->log_tag[0] = '\0';
    fiber->user = NULL;
    fiber->is_cancelled = false;
    fiber->older = fibers->newest;
    if (fiber->older)
        fiber->older->newer = fiber;
    fibers->newest = fiber;
    loop_count_fibers(loop, ++fibers->count, 1, 0);
    make_ready(fiber);
    return fiber;
}

const char *fiber_name(const struct fiber *fiber)
{
    return fiber->name;
}

struct loop *fiber_loop(const struct fiber *fiber)
{
    return fiber->loop;
}

size_t fiber_count(const struct loop *loop)
{
    const struct fibers *fibers = loop_fibers(loop);

    return fibers ? fibers->count : 0;
}

void fiber_set_user(struct fiber *fiber, void *user)
{
    fiber->user = user;
}

void *fiber_user(const struct fiber *fiber)
{
    return fiber->user;
}

void fiber_set_log_tag(struct fiber *fiber, const char *tag)
{
    snprintf(fiber->log_tag, sizeof(fiber->log_tag), "%s", tag);
}

const char *fiber_log_tag(const struct fiber *fiber)
{
    return fiber->log_tag;
}

void fiber_on_loop_stack(void (*fn)(void *arg), void *arg)
{
    struct fiber *self = fiber_self();

    if (!self) {
        fn(arg);
        return;
    }
    self->loop_fn = fn;
    self->loop_arg = arg;
    coroutine_leave(self->coroutine); /* fiber_enter calls it and comes back */
}

/* --- waiting --- */

static void queue_append(struct waitq *queue, struct fiber *fiber)
{
    assert(!queue->last || queue->last->loop == fiber->loop);
    fiber->queue = queue;
    fiber->before = queue->last;
    fiber->behind = NULL;
    if (queue->last)
        queue->last->behind = fiber;
    else
        queue->first = fiber;
    queue->last = fiber;
}

static void queue_remove(struct fiber *fiber)
{
    struct waitq *queue = TAKE(fiber->queue);

    if (!queue)
        return;
    if (fiber->before)
        fiber->before->behind = fiber->behind;
    else
        queue->first = fiber->behind;
    if (fiber->behind)
        fiber->behind->before = fiber->before;
    else
        queue->last = fiber->before;
    fiber->before = fiber->behind = NULL;
}

static void fiber_wake(struct fiber *fiber, int result)
{
    assert(fiber->state == FIBER_WAITING && loop_is_current(fiber->loop));
    queue_remove(fiber);
    timer_stop(&fiber->timer);
    fiber->wait_result = result;
    make_ready(fiber);
}

static void wait_timed_out(void *arg)
{
    fiber_wake(arg, -ETIMEDOUT);
}

/* Every wait comes through here. */
static int fiber_wait(struct waitq *queue, uint64_t deadline_ms)
{
    struct fiber *self = fiber_self();

    assert(self && self->forbid_wait == 0);
    if (self->is_cancelled && self->uncancellable == 0)
        return -ECANCELED;
    if (deadline_ms > 0 && deadline_ms <= loop_now_ms(self->loop))
        return -ETIMEDOUT;
    if (queue)
        queue_append(queue, self);
    if (deadline_ms > 0)
        timer_start_at(self->loop, &self->timer, deadline_ms, wait_timed_out, self);
    self->state = FIBER_WAITING;
    coroutine_leave(self->coroutine);
    return self->wait_result;
}

int waitq_wait(struct waitq *queue, uint64_t deadline_ms)
{
    return fiber_wait(queue, deadline_ms);
}

bool waitq_wake_one(struct waitq *queue)
{
    if (!queue->first)
        return false;
    fiber_wake(queue->first, 0);
    return true;
}

size_t waitq_wake_all(struct waitq *queue)
{
    size_t woken = 0;

    while (waitq_wake_one(queue))
        woken++;
    return woken;
}

/* The timer is started by delay, as that counts from now and not from the last full millisecond. */
int fiber_sleep(uint64_t ms)
{
    struct fiber *self = fiber_self();
    int r;

    assert(self && self->forbid_wait == 0);
    if (self->is_cancelled && self->uncancellable == 0)
        return -ECANCELED;
    timer_start(self->loop, &self->timer, ms, wait_timed_out, self);
    r = fiber_wait(NULL, 0);
    return r == -ETIMEDOUT ? 0 : r;
}

void fiber_yield(void)
{
    struct fiber *self = fiber_self();

    assert(self && self->forbid_wait == 0);
    make_ready(self);
    coroutine_leave(self->coroutine);
}

struct fd_wait {
    struct waitq queue;
    uint32_t events;
};

static void fd_ready(void *arg, uint32_t events)
{
    struct fd_wait *wait = arg;

    wait->events |= events;
    waitq_wake_one(&wait->queue);
}

int fiber_wait_fd(int fd, uint32_t events, uint64_t deadline_ms, uint32_t *ret_events)
{
    struct loop *loop = fiber_self()->loop;
    struct fd_wait wait = {0};
    /* Once: should we freeze, a ready descriptor must not keep the loop spinning. */
    int r = loop_watch_fd(loop, fd, events | EPOLLONESHOT, fd_ready, &wait);

    if (r < 0)
        return r;
    r = waitq_wait(&wait.queue, deadline_ms);
    loop_unwatch_fd(loop, fd);
    if (r == 0)
        *ret_events = wait.events;
    return r;
}

/* --- cancel, promises not to wait, freezing --- */

void fiber_cancel(struct fiber *fiber)
{
    assert(loop_is_current(fiber->loop));
    fiber->is_cancelled = true;
    if (fiber->state == FIBER_WAITING && fiber->uncancellable == 0 && !fiber->fibers->is_abandoned)
        fiber_wake(fiber, -ECANCELED);
}

bool fiber_is_cancelled(const struct fiber *fiber)
{
    return fiber->is_cancelled;
}

void fiber_cancel_clear(struct fiber *fiber)
{
    fiber->is_cancelled = false;
}

void fiber_uncancellable_begin(void)
{
    fiber_self()->uncancellable++;
}

void fiber_uncancellable_end(void)
{
    assert(fiber_self()->uncancellable > 0);
    fiber_self()->uncancellable--;
}

void fiber_forbid_wait_begin(void)
{
    if (fiber_self())
        fiber_self()->forbid_wait++;
}

void fiber_forbid_wait_end(void)
{
    if (!fiber_self())
        return;
    assert(fiber_self()->forbid_wait > 0);
    fiber_self()->forbid_wait--;
}

void loop_abandon(struct loop *loop)
{
    struct fibers *fibers = fibers_of(loop);
    struct fiber *self = fiber_self();

    assert(loop_is_current(loop));
    fibers->is_abandoned = true;
    /* Out of every queue and heap: nothing finds a frozen fiber, though what it waited for may
     * outlive it. */
    for (struct fiber *fiber = fibers->newest; fiber; fiber = fiber->older) {
        queue_remove(fiber);
        timer_stop(&fiber->timer);
    }
    if (self && self->loop == loop) {
        self->state = FIBER_WAITING;
        coroutine_leave(self->coroutine);
        die("an abandoned fiber runs");
    }
}

bool loop_is_abandoned(const struct loop *loop)
{
    const struct fibers *fibers = loop_fibers(loop);

    return fibers && fibers->is_abandoned;
}

/* --- completions --- */

struct completion {
    struct loop_item item;
    struct loop *loop; /* held */
    atomic_uint ends;  /* waiter and poster */
    bool is_done;      /* the rest is the loop thread's */
    int result;
    struct waitq waiters;
};

struct completion *completion_new(struct loop *loop)
{
    struct completion *completion = new0(struct completion);

    completion->loop = loop_hold(loop);
    atomic_store(&completion->ends, 2);
    return completion;
}

static void give_up_end(struct completion *completion)
{
    if (atomic_fetch_sub(&completion->ends, 1) > 1)
        return;
    loop_release(completion->loop);
    free(completion);
}

static void completion_lost(struct loop_item *item)
{
    give_up_end(CONTAINER_OF(item, struct completion, item));
}

static void completion_arrived(struct loop_item *item)
{
    struct completion *completion = CONTAINER_OF(item, struct completion, item);

    completion->is_done = true;
    waitq_wake_all(&completion->waiters);
    give_up_end(completion);
}

void completion_post(struct completion *completion, int result)
{
    completion->result = result; /* read by the loop after it took the message */
    completion->item.run = completion_arrived;
    completion->item.drop = completion_lost;
    if (!loop_post(completion->loop, &completion->item))
        give_up_end(completion);
}

int completion_wait(struct completion *completion, uint64_t deadline_ms, int *ret_result)
{
    if (!completion->is_done) {
        int r = waitq_wait(&completion->waiters, deadline_ms);

        if (r < 0)
            return r;
    }
    if (ret_result)
        *ret_result = completion->result;
    return 0;
}

bool completion_is_done(const struct completion *completion)
{
    return completion->is_done;
}

void completion_drop(struct completion **completion_p)
{
    struct completion *completion = TAKE(*completion_p);

    if (!completion)
        return;
    assert(waitq_is_empty(&completion->waiters));
    give_up_end(completion);
}
