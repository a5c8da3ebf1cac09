/* local_calls.h - the calls for a host in need: what a slave answers by itself, whatever its master does (wire.md section 15)
 *
 *   slave_front.c: read, bound  --mailbox-->  the agent's loop: a fiber per call
 *                                               session? Async? not here yet?  -> a failure
 *   slave_front.c: the reply    <--answer---    what the row's name stands for
 *
 * They are the rows with METHOD_EMERGENCY. Logins give a local session (local_sessions.h); all others ask for one, and no
 * other session will do: those of the pool are known to its master only. Whoever has one may make all of them, since the
 * roles of the pool are the master's to know; accounts that have too little of one are not told to hosts.
 *
 *   session.slave_local_login                by the pool's secret
 *   session.slave_local_login_with_password  by the accounts that the master has told (accounts.h)
 *   session.local_logout
 *   host.is_in_emergency_mode                has no master welcomed this host since its start?
 *   host.local_assert_healthy                fails with the reason why not
 *   pool.is_slave                            yes (called ping_slave among hosts)
 *   host.get_system_status_capabilities      no reports are made here: an empty list
 *   host.signal_networking_change            the link to the master is made anew
 *   host.shutdown_agent                      the agent ends; its guests run on
 *   pool.emergency_reset_master              another master is followed (reset_master.h)
 *
 * The others of the list come with high availability and answer NOT_IMPLEMENTED until then. */
#pragma once

#include "shared/arena.h"
#include "shared/failure.h"
#include "shared/loop.h"
#include "shared/rpc.h"

struct agent;
struct ledger;
struct local_calls;
struct random;
struct standing;
struct workers;

struct local_calls_config {
    struct loop *loop;       /* the agent's */
    struct random *random;   /* good for secrets */
    struct workers *workers; /* passwords and names of hosts take their time */
    struct ledger *ledger;   /* the accounts */
    struct standing *standing;
    const char *pool_secret; /* NULL: this host knows none */
    const char *address;     /* of this host */
    bool has_listeners;      /* it answers at that address itself, so no master does */
    void (*shut_down)(void *arg); /* end the process, soon: the answer is still to be sent */
    void *arg;
};

/* What is given is the caller's and outlives it. */
struct local_calls *local_calls_new(const struct local_calls_config *);
/* From now on there is an agent; before, what needs it answers HOST_STILL_BOOTING. */
void local_calls_start(struct local_calls *, struct agent *);
/* The loop runs no fiber any more. Calls that were not answered are forgotten. */
void local_calls_destroy(struct local_calls **);

/* One call. Made by whoever read it, with all that belongs to it, in an arena of its own. */
struct local_call {
    struct arena *arena;
    struct rpc_bound bound;  /* its row has METHOD_EMERGENCY */
    int result;              /* of rpc_bind(), whose failure is in `failure` */
    const char *address;     /* who asks */
    bool is_root;            /* the kernel says so: logs in without a password */
    struct failure failure;
    struct value reply;
    /* Called once, on the agent's loop: result is 0 with the reply, or negative with the failure. The call is the callee's,
     * who ends with local_call_free(). */
    void (*answer)(struct local_call *);
    void *user;              /* of whoever made it */

    struct local_calls *calls;
    struct loop_item item;
    struct local_call *before, *after; /* of those that are not answered */
};

/* From any thread. */
void local_calls_take(struct local_calls *, struct local_call *);
void local_call_free(struct local_call *);

/* Logins that are kept in memory, for tests. */
size_t local_calls_sessions(const struct local_calls *);
