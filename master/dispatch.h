/* dispatch.h - the road every call takes
 *
 *   any thread   dispatch(request)      which message, are the arguments of its types
 *       READ     right here: session, role, references, answer - from a pinned generation
 *       MASTER   mailbox -> a fiber of the core: the same checks on the newest state, the
 *                handler, core_emit, answer
 *       Async    the same, but the answer is the task's reference, and comes before the handler
 *
 * When all fibers are taken, requests wait in order, up to a limit; beyond it they are answered
 * with TOO_MANY_PENDING_TASKS. Tasks leave a quarter of the fibers to calls whose client waits. */
#pragma once

#include "master/call.h"
#include "shared/loop.h"

struct dispatch;
struct reader_loop;

/* What a READ handler returns when its answer comes later (events.h). */
#define CALL_PARKED 1

/* A call with what brought it. Lives in the call's arena. */
struct request {
    struct call call;
    struct dispatch *dispatch;
    const char *text;        /* the name as sent */
    const struct value *raw; /* parameters as parsed, the session among them */
    unsigned raw_count;
    const char *bad_text; /* a string among them that is no UTF-8, or NULL */
    const char *fault;    /* why they could not be read, or NULL */
    const char *task_id; /* HTTP headers of these names, or NULL */
    const char *subtask_of;
    struct reader_loop *reader; /* the HTTP loop that brought it, for calls that park; or NULL */

    /* Called once, with 0 or a negative error: reply, listing or failure are in the call. On the
     * thread that ran the call. With is_last the request is the callee's, who ends with
     * request_destroy(); otherwise the call goes on as a task, and what is needed of the reply must
     * be taken before returning. */
    void (*answer)(struct request *, int r, bool is_last);

    /* Of HTTP requests: wait without a thread; gone(arg) is called, on the loop, when the client
     * went away. */
    void (*park)(struct request *, void (*gone)(void *arg), void *arg);
    void *user; /* of whoever made the request */

    const char *session; /* first parameter; the rest is dispatch's */
    bool uses_session;   /* session_use_end() is owed */
    int bound;           /* result of args_bind */
    bool is_internal;    /* InternalAsync */
    bool is_early;       /* refused by the gate, which JSON-RPC tells in a form of its own */
    struct view *pinned;
    struct loop_item item;
    struct request *next;

    void (*work)(struct request *);      /* of dispatch_work; else NULL */
    void (*forgotten)(struct request *); /* or NULL: the master stops, and there will be no answer */
};

/* A new request with an arena of its own, everything else zero. */
struct request *request_new(struct dispatch *);
/* Frees all that the call made. NULL is fine. */
void request_destroy(struct request **);

struct dispatch_limits {
    unsigned fibers_max; /* calls at once */
    size_t queue_max;    /* calls that wait for a fiber */
    size_t tasks_max;    /* tasks that wait for a fiber */
};
struct dispatch *dispatch_new(struct core *, const struct dispatch_limits *);
void dispatch_destroy(struct dispatch **);

enum dispatched {
    DISPATCH_ANSWERED, /* already, on this thread; the request is gone */
    DISPATCH_PARKED,   /* waits on this thread; park() was called */
    DISPATCH_LATER,    /* will be answered by the core's thread, or has been */
};

/* Any thread. The request may be gone afterwards. */
enum dispatched dispatch(struct request *);

/* Work of an HTTP request that stands for no method (http_call.h makes these): the caller and the
 * call's name are set already. From any thread; work(request) runs once on a fiber, within the
 * limits of tasks, and ends with answer(). When it may not begin - emergency, no room, too many -
 * there is only answer() with the failure, on the core's thread as well. */
void dispatch_work(struct request *, void (*work)(struct request *));

/* On the core's thread: the first line of a task's story, who asked for it, from where, its uuid;
 * task_end() writes the last one. `what` says what it is about where no arguments of a call do, or
 * is "". */
void dispatch_log_asked(struct call *, const char *what);
/* The same of what was refused before it had a task, and that it was. */
void dispatch_log_refused(struct call *);

/* Pin the newest visible generation for the call, giving back an older pin; or give it back only.
 */
void request_pin(struct request *);
void request_unpin(struct request *);

/* A gate before all checks: emergency mode of a host without a master. 0 lets the call in, on any
 * thread. */
typedef int dispatch_gate_fn(struct call *, const struct method *, void *arg);
void dispatch_set_gate(struct dispatch *, dispatch_gate_fn *, void *arg);

/* The checks from the session on, for handlers of other HTTP requests that stand for a method.
 * Returns 0 or a negative error. */
int dispatch_check(struct request *, const struct method *);

struct dispatch_figures {
    uint64_t reads, calls, tasks; /* since the start */
    uint64_t refused;             /* TOO_MANY_PENDING_TASKS */
    uint64_t not_implemented;
    unsigned running; /* fibers */
    size_t queued, tasks_queued;
};
/* On the core's thread. */
void dispatch_figures(struct dispatch *, struct dispatch_figures *ret);
/* How often a LATER row was called. */
uint64_t dispatch_later_count(struct dispatch *, int method_number);
