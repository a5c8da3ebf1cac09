/* call.h - one API call on its way through the master: who asks, what for, and what becomes of it
 *
 * A call is made by front.c when a request's body is complete, and travels the road of dispatch.c. A READ call stays on
 * its HTTP loop and sees a pinned generation; any other becomes a fiber of the core. Everything that belongs to a call
 * lives in its arena and vanishes with it. */
#pragma once

#include "shared/arena.h"
#include "shared/failure.h"
#include "shared/model.h"

struct core;
struct listing;
struct slave_operation;
struct view;

/* Who is asking; copied from the session's row when the call is checked. */
struct caller {
    ref_t session;          /* null before login and for the Unix socket's root */
    enum role role;         /* ROLE_LOCAL_ROOT: Unix socket peer of uid 0, or the pool secret */
    bool is_pool;           /* a pool (slave_login) session */
    bool is_local_superuser;
    const char *user_name;
    const char *originator;
    const char *address;    /* peer's address, or "unix" */
};

struct call {
    struct core *core;
    struct arena *arena;
    const char *name;             /* as the client wrote it, without "Async." */
    const struct method *method;  /* NULL until found */
    bool is_async;
    struct caller caller;
    const void *args;             /* struct <Class>_<message>_args, for messages with a row */
    const struct value *values;   /* the same arguments, typed, by position; method->param_count of them */
    const struct view *view;      /* ACTS_READ: the pinned generation */
    ref_t task;                   /* the task's row; null for a synchronous call */
    const char *tag;              /* for logs and current_operations: the task's ref, or "DummyRef:|uuid|VM.start" */
    ref_t intent;                 /* the INTENT row that this call owns, or null (claim.h) */
    ref_t next_operation;         /* id for the next slave call, already in the INTENT; or null (slaves.h) */
    struct slave_operation *operations; /* slave calls that the slaves still remember (slaves.h) */
    bool is_in_doubt;             /* of the last slave call: slave_call_in_doubt() */
    uint64_t depends;             /* newest generation that the call has read or made in the core */
    uint64_t started_ms;
    struct failure failure;
    int http_status;              /* when its failure's usual one is not meant (http_call.h); 0 */
    struct value reply;
    struct listing *listing;      /* instead of the reply, for what is written piece by piece (listing.h) */
    bool is_bare;                 /* the reply goes without Status and Value: system.listMethods */
};

/* The call fails: remembers code and details for the client, returns -ERR_<code>. Callers pass it up unchanged:
 *     return fail(call, VM_BAD_POWER_STATE, ref_text(call, vm), "running", "halted"); */
#define fail(call, code, ...) failure_set(&(call)->failure, (call)->arena, code, ##__VA_ARGS__)

/* Text forms in the call's arena. */
const char *ref_text(struct call *, ref_t);
const char *int_text(struct call *, int64_t);

/* The core's newest state, noting that the call now rests on it. Good until the fiber waits. */
const struct view *call_view(struct call *);

/* The disk refuses writes (core->read_only_why): -ERR_OPERATION_NOT_ALLOWED, which says so. */
int call_refuse_write(struct call *);

/* Ends a transaction: applies it, waits until it is visible. 0, or, where the disk refuses writes,
 * call_refuse_write(); there is no other failure (store_wait_visible). */
struct txn;
int call_commit(struct call *, struct txn **);

/* Handlers: int VM_start(struct call *, const struct VM_start_args *, struct value *ret) for each METHOD row. */
#define METHOD(class, name, role, acts, async, result, life, flags, args)                          \
    int class##_##name(struct call *, const struct class##_##name##_args *, struct value *ret);
#include "shared/model/rows.h"
