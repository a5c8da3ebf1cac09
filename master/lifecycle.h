/* lifecycle.h - which operation fits which state: the rules of wire.md section 10 and 11 as one
 * table per class
 *
 * Pure functions of a view. The calls check with them when they claim an object (claim.h), and
 * allowed_operations is not stored anywhere: it is computed from the same rules when a record is
 * read, so it is always exact. What moves it without a change of the object itself is told by
 * lifecycle_follow(): a rule that looks at another object has a row there, too. */
#pragma once

#include "master/store.h"
#include "shared/failure.h"

/* May `operation` (an index of the class's operations enum: vm_operations for VM, and so on) begin
 * on the object?
 *
 *   strict   as allowed_operations asks: also what a caller may override with force
 * (VM_IS_IMMOBILE)
 *
 * 0, or the first refusal in wire.md's order with its details in `failure`.
 * -ERR_OTHER_OPERATION_IN_PROGRESS means: try again when an operation has ended on the object that
 * is in the way, which is the one that the details name or else failure->in_way (a disk is refused
 * for what is done with a drive of it).
 * Classes: VM VBD VIF VDI SR host pool network; others allow nothing. */
int operation_check(const struct view *, const struct object *, int operation, bool strict,
                    struct arena *, struct failure *failure);

/* The set for the field allowed_operations; an empty set for classes without rules. */
struct value allowed_operations(const struct view *, const struct object *, struct arena *);

/* Touches the objects whose allowed_operations are others by a change of this one, for store_set_follow(): so they have an
 * event, as if the field were stored. */
void lifecycle_follow(struct txn *, const struct view *before, const struct object *old,
                      const struct object *new);

/* "halted", as error parameters spell states. */
const char *power_state_text(enum vm_power_state);
