/* vm_work.h - one operation of one VM that acts on a host: claim, INTENT, and how both end
 *
 *   work_begin      one transaction: claim, checks, what is reserved, VM epoch, INTENT with
 *                   the operation's id
 *   slave_vm_...    the effect, after that is durable
 *   work_conclude   one transaction: what came of it, INTENT and claim gone
 *
 *     _cleanup_(work_end) struct work work = {0};
 *     r = work_begin(&work, call, &work_pause, args->vm);
 *     if (r < 0)
 *         return r;
 *     r = slave_vm_pause(call, work.host, &args, &answer);
 *     return work_conclude(&work, r, &answer);
 *
 * What comes of an operation is written down once, in its kind: `done` when the host did it,
 * `undone` when it certainly did not. When the host's answer is not to be had the VM is in doubt:
 * the call fails with HOST_OFFLINE, but INTENT and claim stay, and recovery.c concludes the same
 * work by the same kind as soon as the host answers, the next master too. So a lost reply, a lost
 * host and a lost master end alike. */
#pragma once

#include "master/claim.h"

struct work;

/* The state that a host tells: {state: running|paused|ended, domid}. */
enum guest_is {
    GUEST_IS_RUNNING,
    GUEST_IS_PAUSED,
    GUEST_IS_ENDED,
    GUEST_IS_NOWHERE, /* only for was_done: the host knows nothing of it, having lost it */
};

struct work_kind {
    const char *name; /* in the INTENT */
    int operation;    /* enum vm_operations: what the claim shows */
    bool is_ours;     /* the pool's own work: begins when nothing else is under way, rules aside */
    bool is_hard;     /* begins beside others, and cancels them */
    bool lets_run; /* gives a right to run: not while hosts are awaited (awaited.h) */
    bool is_cancellable; /* waiting for the host may be given up: the guest may take its time */
    /* In the first transaction, after the claim: more checks, what is reserved, host and epoch.
     * NULL: the host where the VM is resident, at the epoch that it has. */
    int (*begin)(struct work *, struct txn *);
    void (*done)(struct work *, struct txn *, enum guest_is, int64_t domid);
    void (*undone)(struct work *, struct txn *); /* NULL: nothing to put back */
    /* Before `undone`: see to it that what that says is true. Negative: the host cannot be asked, and
     * the work is in doubt. NULL: it is true when the operation did not happen. */
    int (*see_undone)(struct work *);
    /* After the last transaction is durable: what may fail without harm. NULL: nothing. */
    void (*after)(struct work *);
    /* The agent was restarted in the middle of the operation, or has never heard of it, and the
     * guest is in this state now, at the work's epoch: was it done? */
    bool (*was_done)(enum guest_is);
    /* Instead of was_done, where the state does not tell: make the slave call again. */
    int (*repeat)(struct work *, struct value *ret_answer);
};

struct work {
    struct call *call; /* NULL: nothing is under way */
    const struct work_kind *kind;
    ref_t vm, host, intent;
    uint64_t epoch;
    const char *uuid; /* the VM's, in the call's arena */
    struct claim claim, host_claim;
    /* What kinds need; set by the handler before, or by `begin`, and kept in the INTENT's details.
     */
    bool is_arrival;   /* the host takes the VM in; else it has it */
    ref_t wanted_host; /* null: any */
    bool is_paused, is_forced;
    bool is_anew;      /* nobody has asked for it: guest_again.c */
    ref_t vdi; /* of the suspend image */
    void *detail; /* the handler's own, for its kind; NULL when recovery.c has taken the work up */
};

/* 0: the work is under way and call->intent is its INTENT. Otherwise nothing was changed. */
int work_begin(struct work *, struct call *, const struct work_kind *, ref_t vm);

/* `r` and `answer` are those of the slave call. Returns what the handler returns. */
int work_conclude(struct work *, int r, const struct value *answer);

/* What the work was about has gone on without it, by orders that these records lack: nothing of it is ours to do. The hosts are
 * asked what the VM is. Returns what the handler returns. */
int work_give_up(struct work *);

/* Whether `undone` may be said now: 0, or negative. Failures of the work's own call stay what they were. */
int work_see_undone(struct work *);

/* What is under way and not concluded did not happen. */
void work_end(struct work *);

/* For longer work (VM_migrate.c): its own INTENT, and the pieces. The transaction in
 * work_finish_begin() ends claim and INTENT with whatever the caller adds. */
int work_claim(struct work *, struct call *, const struct work_kind *, ref_t vm,
               int (*begin)(struct work *, struct txn *));
void work_intend(struct work *, struct txn *, ref_t source, ref_t destination, const char *step);
struct txn *work_finish_begin(struct work *);
/* Nobody works on it from now on: INTENT and claim stay, recovery.c goes on when the hosts answer.
 */
void work_leave_in_doubt(struct work *);

/* recovery.c: take up the work of an INTENT whose call is gone: claim and INTENT are this call's,
 * whose tag is theirs. False when its kind or its VM are unknown. It ends with work_conclude,
 * work_end or work_abandon. */
bool work_adopt(struct work *, struct call *, const struct object *intent);
void work_abandon(struct work *);

/* The kinds of VM_power.c, VM_suspend.c and VM_migrate.c; NULL for other operations. */
const struct work_kind *work_kind_find(const char *operation);

/* An answer of the host. */
enum guest_is answer_state(const struct value *answer);
int64_t answer_domid(const struct value *answer);

/* A failure of a slave names VMs by uuid; clients know references. */
int slave_failure(struct call *, ref_t vm, int r);

/* The VM's INTENT, or NULL. */
const struct object *intent_of_vm(const struct view *, ref_t vm);
