/* task.h - work that outlives its request: progress, cancel, result (wire.md section 6)
 *
 *   Async.VM.start -> row pending, its reference is the reply -> handler -> row ended,
 *                                                                           one transaction
 *
 * The row is durable before its reference is answered, and before the handler makes its first
 * INTENT: a master that dies in between finds a pending task without one, and ends it. A task that
 * has ended is never moved again.
 *
 * Handlers see none of this. They may report progress, say from when to when they can be cancelled,
 * and return -ERR_TASK_CANCELLED (task_cancelled) when a wait answered -ECANCELED. For calls
 * without a row all this does nothing. */
#pragma once

#include "master/call.h"

struct tasks;
struct txn;

struct task_limits {
    unsigned kept_max;  /* tasks kept that finished over five minutes ago */
    uint64_t kept_s;    /* finished ones go after */
    uint64_t pending_s; /* pending ones without work go after */
};
#define TASK_LIMITS_DEFAULT                                   \
    {                                                         \
        .kept_max = 20000, .kept_s = 3900, .pending_s = 86400 \
    }

struct tasks *tasks_new(struct core *, const struct task_limits *);
void tasks_destroy(struct tasks **);

/* After the store is loaded, before the first call: pending tasks that nobody continues end as
 * failed. Those with an INTENT row are left to whoever finishes or undoes that. */
void tasks_recover(struct core *);

/* ---- for handlers ---- */

/* How much of the work is done, 0 to 1. Written at most once a second, never backwards; does not
 * wait. */
void task_progress(struct call *, double share);

/* From now on the task may be cancelled: waits answer -ECANCELED once it was. Or: no longer. */
void task_set_cancellable(struct call *, bool);
bool task_is_cancelled(const struct call *);

/* Fails with TASK_CANCELLED [task]. */
int task_cancelled(struct call *);

/* Ends a task in the caller's transaction: with a result, or with a failure when there is one. For
 * work that goes on without its call, after a restart; and for a call whose success must stand in the
 * transaction of its last change, from which on it does not fail. False when the task is gone or has ended
 * before. */
bool task_put_end(struct core *, struct txn *, ref_t task, const struct value *result,
                  const struct failure *);

/* ---- for HTTP handlers that report into a task (import, export) ---- */

/* A request that names this task, as text, was refused before it took it: whoever waits for the task
 * is told why. But a task that a call works on stays that call's, whoever else names it. In the
 * caller's transaction. */
void task_put_refused(struct core *, struct txn *, const char *task, const struct failure *);

/* A new pending row. 0 or -ERR_TOO_MANY_PENDING_TASKS. */
int task_new(struct call *, const char *label, const char *description, ref_t parent, ref_t *ret);
/* The same, and the call works on it; the parent as text, or NULL. Also -ERR_HANDLE_INVALID. */
int task_attach_new(struct call *, const char *label, const char *description,
                    const char *subtask_of);

/* ---- for task_calls.c, and for requests that are no calls ---- */

/* A cancel was asked for, and is in the row; or who wanted the work has gone. */
void task_want_cancel(struct core *, ref_t task);
/* Does a call work on it? Its end will be that call's. */
bool task_has_work(const struct core *, ref_t task);
bool task_is_pending(const struct object *task);
/* The last state of a pending task, without result or failure; or the end of its row, if its client
 * has destroyed it meanwhile. */
void task_put_ended(struct core *, struct txn *, ref_t task, enum task_status_type);

/* ---- for dispatch.c, on the call's fiber ---- */

/* A row for an async call; or the row of the request's task-id header, which no other call may be at
 * work on. `name` is the label, "Async.VM.start". */
int task_attach(struct call *, const char *name, const char *task_id, const char *subtask_of);
/* A synchronous call is over; its row, if it was given one, stays as it is. */
void task_detach(struct call *);
/* An async call is over: r and the reply or failure go into the row. */
void task_end(struct call *, int r);
/* The call leaves its fiber, and goes on in another. */
void task_suspend(struct call *);
void task_resume(struct call *);
