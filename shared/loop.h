/* loop.h - the event loop of a core thread: mailbox, timers, file descriptors.
 *
 *   other threads --loop_post--> mailbox --+
 *   timer_start ------------------ timers -+--> one step at a time, each a plain function
 *   loop_defer, woken fibers -- run queue -+
 *   epoll ----------------------- watches -+
 *
 * A loop belongs to one thread at a time, and everything here is for that thread only unless it
 * says "any thread". loop_run sleeps when there is nothing to do; loop_step never does, which is
 * how the simulator drives many loops in one thread with a clock of its own. Nothing is global, so
 * loops do not meet.
 *
 * Fairness: a round takes a bounded number of messages, then all due timers, then a bounded number
 * from the run queue, then the descriptors that are ready. A flood in one of them delays the
 * others, it does not starve them. */
#pragma once

#include "shared/base.h"
#include "shared/clock.h"
#include "shared/timers.h"

struct loop;

struct loop *loop_new(struct clock *clock);

/* Ends a loop that is not running. Messages not yet taken are dropped (their drop function is
 * called, if they have one), timers stop, suspended fibers are released without being unwound. NULL
 * is fine. Whoever posts from another thread has ended before, or holds the loop (loop_hold). */
void loop_destroy(struct loop **loop_p);

struct clock *loop_clock(const struct loop *loop);
uint64_t loop_now_ms(const struct loop *loop);

/* Does the calling thread own the loop? The thread that made it does, until another one runs it.
 * For assert(). */
bool loop_is_current(const struct loop *loop);

/* --- running --- */

/* Run until loop_stop. The calling thread becomes the owner. Needs the real clock. */
void loop_run(struct loop *loop);

/* Any thread: loop_run returns after its present round, or at once when it is called later. */
void loop_stop(struct loop *loop);

/* One round of what is ready now, without waiting; the calling thread becomes the owner. Returns
 * whether anything ran, so that `while (loop_step(loop));` runs the loop until it is idle. */
bool loop_step(struct loop *loop);

/* When the first timer is due, by the loop's clock, rounded up; UINT64_MAX when no timer runs. */
uint64_t loop_next_timer_ms(const struct loop *loop);

/* --- mailbox --- */

/* A message, embedded in what it is about; zero what is not named here. */
struct loop_item {
    struct loop_item *next;               /* the loop's */
    void (*run)(struct loop_item *item);  /* in the loop's thread; may free the item */
    void (*drop)(struct loop_item *item); /* instead, if the loop is destroyed first; or NULL */
};

/* Any thread: have the item run by the loop. Messages of one sender run in their order. The item
 * must not be posted again before it runs. Returns false when the loop was destroyed (only who
 * holds the loop may find out); the item was not taken then. */
bool loop_post(struct loop *loop, struct loop_item *item);

/* Any thread: the same with a message that is allocated and freed for you. */
void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg);

/* Loop thread: have the item run soon, after what is already in the run queue. */
void loop_defer(struct loop *loop, struct loop_item *item);

/* Any thread: while held, a destroyed loop still answers loop_post (with false). */
struct loop *loop_hold(struct loop *loop);
void loop_release(struct loop *loop);

/* --- timers --- */

/* Have fn(arg) called once, after delay_ms. One that already runs is moved. Safe in callbacks, also
 * in the timer's own; fn does not run before timer_start has returned, whatever the delay. */
void timer_start(struct loop *loop, struct timer *timer, uint64_t delay_ms, void (*fn)(void *arg),
                 void *arg);

/* The same at a time of the loop's clock; at once when that has passed. */
void timer_start_at(struct loop *loop, struct timer *timer, uint64_t due_ms, void (*fn)(void *arg),
                    void *arg);

/* fn will not be called. A stopped timer is left alone. */
void timer_stop(struct timer *timer);

static inline bool timer_is_running(const struct timer *timer)
{
    return timer->place > 0;
}

/* --- file descriptors --- */

/* Call fn(arg, events) whenever fd has one of events (EPOLLIN, EPOLLOUT, ...; EPOLLERR and EPOLLHUP
 * always). Level triggered. A descriptor that is already watched gets the new events, fn and arg.
 * Returns 0 or -errno: -EPERM for a descriptor that cannot be waited for, as a regular file. */
int loop_watch_fd(struct loop *loop, int fd, uint32_t events,
                  void (*fn)(void *arg, uint32_t events), void *arg);

/* Before fd is closed. fn is not called again, not even for events that were already fetched. */
void loop_unwatch_fd(struct loop *loop, int fd);

/* --- counters --- */

struct loop_counters {
    uint64_t rounds;   /* times around */
    uint64_t sleeps;   /* of these, how many found nothing to do */
    uint64_t items;    /* messages run */
    uint64_t deferred; /* steps from the run queue: each time a fiber goes on is one */
    uint64_t timers;   /* timers fired */
    uint64_t fd_events;
    uint64_t timers_running;
    uint64_t longest_step_us; /* the longest that one step ever kept the others waiting */
    uint64_t fibers;          /* that exist now */
    uint64_t fibers_most;     /* that ever existed at once */
    uint64_t fibers_spawned;
    uint64_t fibers_refused; /* fiber_spawn had none free */
};

/* Any thread. Each figure is right, though not all of the same moment. */
void loop_counters_read(const struct loop *loop, struct loop_counters *ret_counters);

/* --- for fiber.c --- */

struct fibers;

struct fibers *loop_fibers(const struct loop *loop);
void loop_set_fibers(struct loop *loop, struct fibers *fibers,
                     void (*destroy)(struct fibers *fibers));
void loop_count_fibers(struct loop *loop, uint64_t now, uint64_t spawned, uint64_t refused);
