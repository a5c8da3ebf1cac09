/* claim.h - long operations claim the objects they work on
 *
 * A claim shows as {tag: operation} in the object's current_operations, is checked against the
 * rules of lifecycle.h when it begins, and ends with its scope:
 *
 *     _cleanup_(claim_end) struct claim claim = {0};
 *     r = claim_begin(&claim, call, CLASS_OF(VM), args->vm, vm_operations_start);
 *
 * An object that is busy with another operation is waited for (up to 2 h, cancellable, woken when
 * an operation ends on the object that has the operation in the way); every other refusal is returned at once. Claims are volatile.
 * What must be finished or undone after a restart of the master is the durable INTENT row, which
 * begins in the transaction of the claim where the caller has more to write in it (claim_begin_txn,
 * and vm_work.h for the operations of VMs).
 *
 *   begin ---> live: a fiber works on it ----> end
 *                 |          ^
 *                 keep       adopt          a VM in doubt: nobody works on it, and nobody else may
 *                 v          |
 *               kept -------------- release */
#pragma once

#include "master/call.h"
#include "master/store.h"

struct claims;
struct fiber;

struct claim {
    struct call *call; /* NULL: nothing is held */
    const struct class *class;
    ref_t ref;
    int operation;
    struct fiber *fiber;        /* that works on it: who has a better claim cancels it */
    struct claim *next, **link; /* the live claims on this object */
};

struct claims *claims_new(void);
void claims_destroy(struct claims **);

/* 0, -ERR_HANDLE_INVALID when the object vanished meanwhile, -ERR_TASK_CANCELLED, or the rule's
 * refusal. */
int claim_begin(struct claim *, struct call *, const struct class *, ref_t, int operation);
/* The same, but one that is busy is waited for so long. */
int claim_begin_within(struct claim *, struct call *, const struct class *, ref_t, int operation, uint64_t wait_ms);

/* The same in an open transaction that the caller commits: no waiting,
 * -ERR_OTHER_OPERATION_IN_PROGRESS is returned. */
int claim_begin_txn(struct claim *, struct call *, struct txn *, const struct class *, ref_t,
                    int operation);

/* The pool's own work (a guest that ended is started anew): no rule is asked. Returns
 * -ERR_OTHER_OPERATION_IN_PROGRESS while anyone else has the object, unless `beside_others`. */
int claim_take_txn(struct claim *, struct call *, struct txn *, const struct class *, ref_t,
                   int operation, bool beside_others);

/* For callers of claim_begin_txn after that refusal, outside of the transaction: wait until an
 * operation has ended on the object that is in the way by call->failure (lifecycle.h). 0: try again;
 * -ERR_TASK_CANCELLED, or the refusal after 2 h of `since_ms`. */
int claim_wait(struct call *, uint64_t since_ms);

/* Wait until any operation has ended on the object, or until the deadline: 0 or
 * -ERR_TASK_CANCELLED. */
int claim_wait_object(struct call *, ref_t, uint64_t deadline_ms);

/* Hard operations: cancel whoever else works on the object, and wait until they have ended; kept
 * claims stay. 0 or -ERR_TASK_CANCELLED. */
int claim_alone(struct claim *);

/* Ends the claim in a transaction of its own; harmless when nothing is held. */
void claim_end(struct claim *);
/* Ends it in the caller's transaction, so that the operation's last change and the claim's end are
 * one generation. The caller goes on to apply that. */
void claim_end_txn(struct claim *, struct txn *);

/* The claim outlives its call: a VM in doubt stays claimed until its host answers or is fenced.
 * Kept claims go by their tag: claim_adopt makes one live again, claim_release ends it,
 * claim_restore makes one for what an earlier master left behind. */
void claim_keep(struct claim *);
void claim_adopt(struct claim *, struct call *, const struct class *, ref_t, int operation);
void claim_restore(struct txn *, const struct class *, ref_t, const char *tag, int operation);
void claim_release(struct core *, struct txn *, const struct class *, ref_t, const char *tag);

/* The call of a fiber that is at work on the object; NULL when there is none. */
struct call *claim_live_call(const struct core *, ref_t);
