/* claim.h - long operations claim the objects they work on
 *
 * A claim shows as {tag: operation} in the object's current_operations, is checked against the
 * rules of lifecycle.h when it begins, and ends with its scope:
 *
 *     _cleanup_(claim_end) struct claim claim = {0};
 *     r = claim_begin(&claim, call, CLASS_OF(VM), args->vm, vm_operations_start);
 *
 * An object that is busy with another operation is waited for (up to 2 h, cancellable, woken when
 * an operation on that object ends); every other refusal is returned at once. Claims are volatile.
 * What must be finished or undone after a restart of the master is the durable INTENT row, which
 * begins in the transaction of the claim where the caller has more to write in it
 * (claim_begin_txn). */
#pragma once

#include "master/call.h"
#include "master/store.h"

struct claim {
    struct call *call;
    const struct class *class;
    ref_t ref;
    int operation;
    bool is_kept; /* claim_keep: stays when the scope ends */
};

/* 0, -ERR_HANDLE_INVALID when the object vanished meanwhile, -ERR_TASK_CANCELLED, or the rule's
 * refusal. */
int claim_begin(struct claim *, struct call *, const struct class *, ref_t, int operation);

/* The same in an open transaction that the caller commits: no waiting,
 * -ERR_OTHER_OPERATION_IN_PROGRESS is returned. */
int claim_begin_txn(struct claim *, struct call *, struct txn *, const struct class *, ref_t,
                    int operation);

/* Wait until an operation on the object has ended, or returns -ERR_TASK_CANCELLED. For callers of
 * claim_begin_txn. */
int claim_wait(struct call *, ref_t);

/* Ends the claim in a transaction of its own; harmless when nothing is held. */
void claim_end(struct claim *);
/* Ends it in the caller's transaction, so that the operation's last change and the claim's end are
 * one generation. */
void claim_end_txn(struct claim *, struct txn *);
/* The claim outlives its call: a VM in doubt stays claimed until its host answers or is fenced.
 * claim_release ends such a claim later, by its tag. */
void claim_keep(struct claim *);
void claim_release(struct core *, struct txn *, const struct class *, ref_t, const char *tag);
