/* fiber.h - long work as plain functions that give way only where they wait
 *
 * A fiber is a function with a stack of its own that runs on its loop's thread. It runs until it
 * waits, so between two waits nothing else of the loop happens and no locks are needed. Who wakes
 * it names it: a wait queue, a completion, a deadline or a cancel. A woken fiber goes to the end of
 * the run queue; it never runs inside its waker.
 *
 *   fiber_spawn -> READY -> RUNNING -> WAITING -> READY ... -> RUNNING -> its function returns
 *
 * Stacks are small (64 KiB): no parser, getaddrinfo, TLS, SQLite or large local array there. Such
 * work goes to fiber_on_loop_stack when it is quick and to workers_run when it may block.
 *
 * A struct fiber is valid until its function returns; who keeps a pointer must be told by that
 * function. All deadlines are absolute, in ms of the loop's clock; 0 means none. Everything here is
 * for the loop's thread, except completion_post. */
#pragma once

#include "shared/base.h"
#include "shared/loop.h"

struct fiber;
struct waitq;

#define FIBERS_MAX_DEFAULT 4096

struct loop_limits {
    unsigned fibers_max; /* at once; 0: FIBERS_MAX_DEFAULT */
};

void loop_set_limits(struct loop *loop, const struct loop_limits *limits);

/* Have fn(arg) run as a fiber, later in this round or in the next. The name is copied (31
 * characters). NULL when fibers_max exist already, when there is no memory for a stack, or when the
 * loop is abandoned. */
struct fiber *fiber_spawn(struct loop *loop, void (*fn)(void *arg), void *arg, const char *name);

/* The fiber that is running in this thread, or NULL. */
struct fiber *fiber_self(void);

const char *fiber_name(const struct fiber *fiber);
struct loop *fiber_loop(const struct fiber *fiber);
size_t fiber_count(const struct loop *loop);

/* The call it works for, for whoever dispatches calls. */
void fiber_set_user(struct fiber *fiber, void *user);
void *fiber_user(const struct fiber *fiber);

#define FIBER_LOG_TAG_BYTES 128
/* What its log lines name: the task or call. Copied (127 characters: a call's name and a uuid); ""
 * for none. */
void fiber_set_log_tag(struct fiber *fiber, const char *tag);
const char *fiber_log_tag(const struct fiber *fiber);

/* Run fn(arg) now, with the thread's own large stack, before anything else of the loop. fn may not
 * wait: for it fiber_self() is NULL. Outside of fibers it is a plain call. */
void fiber_on_loop_stack(void (*fn)(void *arg), void *arg);

/* --- waiting --- */

/* Fibers waiting for one thing, first come first served. Embedded; a zeroed one is empty. */
struct waitq {
    struct fiber *first, *last;
};

/* Wait until woken: 0, -ETIMEDOUT or -ECANCELED. Woken counts: a deadline or cancel that comes
 * between the wake-up and the fiber's next run does not take it back. A deadline in the past
 * answers at once. */
int waitq_wait(struct waitq *queue, uint64_t deadline_ms);

/* Returns whether there was one. */
bool waitq_wake_one(struct waitq *queue);

/* Returns how many there were. */
size_t waitq_wake_all(struct waitq *queue);

static inline bool waitq_is_empty(const struct waitq *queue)
{
    return !queue->first;
}

/* 0 or -ECANCELED. */
int fiber_sleep(uint64_t ms);

/* Let the other ready fibers run first. Not ended by cancel. */
void fiber_yield(void);

/* Wait until fd has one of the events (EPOLLIN, ...). The descriptor must not be watched by anyone
 * else. Returns 0 and the events, -ETIMEDOUT, -ECANCELED or -errno. */
int fiber_wait_fd(int fd, uint32_t events, uint64_t deadline_ms, uint32_t *ret_events);

/* --- cancel --- */

/* From now on every wait of the fiber, one under way included, answers -ECANCELED at once, unless
 * it is between uncancellable_begin and _end. Until fiber_cancel_clear. */
void fiber_cancel(struct fiber *fiber);
bool fiber_is_cancelled(const struct fiber *fiber);
void fiber_cancel_clear(struct fiber *fiber);

/* Of the running fiber; they nest. Undoing and committing must not be interrupted half-way. */
void fiber_uncancellable_begin(void);
void fiber_uncancellable_end(void);

/* --- promises not to wait --- */

/* Between begin and end a wait is a bug in our code, and asserted: the store does so while a
 * transaction is open. They nest. Outside of fibers, where nobody can wait, they do nothing. */
void fiber_forbid_wait_begin(void);
void fiber_forbid_wait_end(void);

/* --- freezing --- */

/* No fiber of this loop runs again and none is unwound, so that no guard takes back what may have
 * been promised (design, "Nothing is ever taken back"). Called by a fiber it does not return.
 * Messages and timers of the loop still run; wait queues may still be woken, to no effect.
 * loop_destroy releases the stacks. */
void loop_abandon(struct loop *loop);
bool loop_is_abandoned(const struct loop *loop);

/* --- completions --- */

/* An event that happens once, with a result, mostly in another thread. It has two ends: the
 * waiter's, which completion_drop gives up, and the poster's, which completion_post gives up. It
 * lives until both are gone, so a result that arrives after the waiter has given up meets nobody
 * and does no harm. */
struct completion;

struct completion *completion_new(struct loop *loop);

/* Any thread, exactly once: the result goes to the waiter through the loop's mailbox. Do not touch
 * it afterwards. */
void completion_post(struct completion *completion, int result);

/* Wait for the result. 0 and the result (ret_result may be NULL), -ETIMEDOUT or -ECANCELED; a
 * result that is already there is given even to a cancelled fiber. May be called again, and by
 * several fibers. */
int completion_wait(struct completion *completion, uint64_t deadline_ms, int *ret_result);
bool completion_is_done(const struct completion *completion);

/* The waiter's end; a cleanup. No fiber may be waiting. NULL is fine. */
void completion_drop(struct completion **completion_p);
