/* slaves.h - the hosts' agents as the master sees them: a link for each, calls, notes, who is alive
 *
 *   handler's fiber                     core thread                     slave
 *   slave_vm_start() --+
 *     operation id into the INTENT
 *     core_emit: all durable ---------> call ------------------------->
 *     waits                             reply <------------------------- result, written down there
 *   0 / -ERR_x / in doubt <-----------+
 *   ... the outcome durable,
 *   slave_confirm() -----------------------> confirm ----------------> forgets the result
 *
 * A deadline or a lost link proves nothing about what happened: the master asks the slave for the operation by its id
 * (after the deadline, and on each new link), and the slave answers with the result, "pending", or "never" - having
 * voided the id first. Only when the slave cannot be asked is the call in doubt: then what it was about stays claimed
 * by that host until the host answers or is fenced. (design.md section 5, docs/protocol.md) */
#pragma once

#include "master/call.h"
#include "shared/link.h"
#include "shared/slave_calls.h"

struct core;
struct slaves;
struct txn;

/* ---- calls, from fibers ---- */

/* int slave_vm_start(struct call *, ref_t host, const struct slave_vm_start_args *, struct value *ret)
 *
 * Returns
 *   0                   done; the result is in *ret (may be NULL), in the call's arena
 *   -ERR_<code>         the slave refused or failed; code and details are in call->failure
 *   -ERR_HOST_OFFLINE   [host]; it is not reachable. Nothing happened - unless slave_call_in_doubt(call)
 *   -ERR_TASK_CANCELLED [task]; the fiber was cancelled while it waited. In doubt, if the call has an effect and was sent
 *
 * A fiber that must not be interrupted holds uncancellable_begin(). */
#define SLAVE_CALL(name, deadline_ms, effect, result, args)                                        \
    int slave_##name(struct call *, ref_t host, const struct slave_##name##_args *, struct value *ret);
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL

/* The same for any row, by its number. */
int slave_call(struct call *, ref_t host, int number, const void *args, struct value *ret);

/* Did the last slave call end without knowing whether it had its effect? Then what it was about belongs to that host
 * until slave_ask() gives an answer or the host is fenced. */
bool slave_call_in_doubt(const struct call *);

/* The id of the next EFFECT call, drawn now and written into the call's INTENT (call->intent) in the caller's
 * transaction. Without this, and with an INTENT, the slave call does so in a transaction of its own. */
ref_t slave_operation_prepare(struct call *, struct txn *);

/* The outcomes of the call's operations are durable, or will never be asked for: the slaves may forget them. Called
 * when the INTENT has ended; calls without an INTENT are confirmed by themselves. */
void slave_confirm(struct call *);
/* Of one operation, for who has found it in an INTENT. */
void slave_confirm_operation(struct core *, ref_t host, ref_t operation);

/* What became of an operation, asked of its host. Voids it, if it has not begun. */
enum slave_answer {
    SLAVE_ANSWER_DONE,        /* *ret, or the failure is in call->failure and *ret_result is negative */
    SLAVE_ANSWER_PENDING,     /* it goes on */
    SLAVE_ANSWER_NEVER,       /* it did not happen and never will */
    SLAVE_ANSWER_INTERRUPTED, /* the agent was restarted in the middle of it: ask for the state (slave_vm_ask) */
};
/* 0, or -ERR_HOST_OFFLINE [host], -ERR_TASK_CANCELLED. */
int slave_ask(struct call *, ref_t host, ref_t operation, enum slave_answer *ret_answer, int *ret_result,
              struct value *ret);

/* ---- who is there ---- */

/* Linked: it has said hello to this master, and its beats arrive. */
bool slave_is_linked(const struct slaves *, ref_t host);
/* It has an agent, and was not declared dead since that was heard. */
bool slave_may_hold_guests(const struct slaves *, ref_t host);
/* Wait until it is, or returns -ERR_HOST_OFFLINE [host] at the deadline, -ERR_TASK_CANCELLED. */
int slave_wait_linked(struct call *, ref_t host, uint64_t deadline_ms);
/* Has it ever said hello to this master as one that follows it, so that nobody else has ordered anything there since? Only hosts
 * that are waited for are asked to (awaited.h). */
bool slave_has_followed(const struct slaves *, ref_t host);

/* The unix socket at which the slave of the master's own host serves HTTP, as its last hello named it; false when there
 * has been none. From any thread, since HTTP loops ask. `slaves` may be NULL. */
#define SLAVE_SOCKET_BYTES 108
bool slaves_own_socket(struct slaves *, char ret_path[SLAVE_SOCKET_BYTES]);

/* ---- what slaves tell ---- */

/* A guest as a slave reports it. */
struct slave_guest {
    ref_t vm_uuid;
    uint64_t epoch;
    const char *state;    /* "receiving", "paused", "running", "sent", "ended" */
    const char *progress; /* of slave/ledger.h: "starting", "ran", "receiving", "aborted", "paused-for-move", "ended" */
    const char *move;     /* of receiving, sent and aborted ones */
    int64_t domid;
    const char *disks, *nics; /* a line for each device, as vm_ask tells them; NULL: not told */
};

/* Notes: a handler for each name, run in the host's note fiber, so notes of one host come one after the other. The note
 * is acknowledged when the handler has returned: whatever must not be lost is durable by then. A handler that has to wait
 * for a claim or a slave spawns a fiber of its own. vm and epoch are 0 in notes that concern none; a note of an epoch
 * below the model's never arrives. */
struct slave_note {
    const char *name;
    ref_t host;
    ref_t vm_uuid;
    uint64_t epoch;
    const struct value *body;
};
void slaves_on_note(struct slaves *, const char *name, void (*fn)(struct core *, const struct slave_note *));

/* A host said hello: a fiber of its own, after epochs above the model's have been committed (slave_hello.c). */
void slaves_on_hello(struct slaves *, void (*fn)(struct core *, ref_t host, const struct slave_guest *, size_t count));

/* A host is linked, or was given up (host_dead_s without a beat): on the core thread, outside of fibers. */
void slaves_on_live(struct slaves *, void (*fn)(struct core *, ref_t host, bool is_live));

/* Every host that is linked is to say hello anew: to tell what runs there. */
void slaves_ask_hellos(struct slaves *);

/* An operator says that the host is dead: it is not waited for any more. */
void slaves_declare_dead(struct slaves *, ref_t host);

/* ---- set up ---- */

/* What hosts know that this master does not (slave_opening.c). */
struct slaves_known {
    uint64_t epoch;      /* the highest that a host follows, */
    ref_t holder;        /* and who had it */
    uint64_t generation; /* the newest that any of them was told of */
};

struct slaves_config {
    uint64_t host_dead_ms;       /* 0: 10 s */
    const char *pool_secret;     /* enrolment by secret; NULL: none */
    const char *link_endpoint;   /* what enrolled slaves are told: "tcp://ADDRESS:PORT" */
    const char *key;             /* this master's public key */
    uint64_t generation;         /* the newest that was known to this master when it started */
    /* A host follows another master, of this epoch, which is not below ours: it is not welcomed. */
    void (*on_higher_epoch)(struct core *, uint64_t epoch);
    /* Hosts that are ours follow an epoch that we have forgotten. The master is to begin anew above it; until then nobody is
     * welcomed. NULL: it cannot. */
    void (*begin_above)(struct core *, const struct slaves_known *);
    /* A host knows of generations that this master never had. */
    void (*on_newer_generation)(struct core *, uint64_t generation);
};

/* The transport is the caller's and outlives it; both may be NULL: then every host is away. Sets core->slaves. */
struct slaves *slaves_new(struct core *, const struct slaves_config *, struct link_transport *,
                          struct link_transport *join_transport);
/* Reads the hosts' keys from the store, from now on with its changes. After the store is loaded. */
void slaves_start(struct slaves *);
void slaves_destroy(struct slaves **);

struct slaves_figures {
    unsigned hosts, linked;
    uint64_t calls, replies, in_doubt, notes, frames_refused;
};
void slaves_figures(const struct slaves *, struct slaves_figures *ret);
