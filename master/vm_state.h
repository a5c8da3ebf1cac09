/* vm_state.h - what changes in the records when a VM begins to run, moves, stops or is suspended
 * (wire.md section 11)
 *
 * Each function is the record's side of one transition, in the transaction of whoever brought it
 * about; claims, INTENTs and messages are the caller's. Nothing here talks to a host. */
#pragma once

#include "master/store.h"

struct core;

/* The VM runs (or stands paused) on the host, freshly built: devices - of the drives those that were
 * attached, or reserved for it -, consoles, metrics, what it was booted with. */
void vm_put_booted(struct txn *, struct core *, ref_t vm, ref_t host, int64_t domid,
                   bool is_paused);

/* The same guest as before, resumed from its image or arrived from another host: its devices never
 * went. */
void vm_put_home(struct txn *, struct core *, ref_t vm, ref_t host, int64_t domid, bool is_paused);

/* It has ended. */
void vm_put_halted(struct txn *, ref_t vm);
/* ... and is to begin anew: again_after stays. */
void vm_put_halted_for_now(struct txn *, ref_t vm);

/* It rests in its suspend VDI; the devices stay attached in the record. */
void vm_put_suspended(struct txn *, ref_t vm);

/* Reserve the VM's devices for a start, or give them back. */
void vm_put_reserved(struct txn *, ref_t vm, bool is_reserved);

/* The VM's next epoch: the right to run goes on elsewhere, or ends with its host. Rights that the records have forgotten are
 * not below it, and are believed when their hosts tell of them. */
uint64_t vm_put_next_epoch(struct txn *, ref_t vm);
/* An epoch above all that any VM has had until now, also by a master before this one that the records have forgotten: a
 * master's epoch is above all earlier ones', and it gives each right in a generation of its own, of which it makes fewer than
 * 2^32. */
uint64_t vm_epoch_above_all(const struct core *, const struct txn *);
/* For a right that is new, when all hosts have told of theirs: above all that there can have been. */
uint64_t vm_put_fresh_epoch(struct core *, struct txn *, ref_t vm);
