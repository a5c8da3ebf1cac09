/* VM_migrate.h - moving a running VM, for who is not the call itself: recovery.c, host_evacuate.c
 */
#pragma once

#include "master/call.h"

struct object;

/* Finish or undo the move of an INTENT that nobody works on, from what its two hosts say. `gone` is
 * a host that is fenced or declared dead, or null. 0 when it is settled, -ERR_HOST_OFFLINE when a
 * host has still to be waited for. What the move's own call would have returned is in
 * call->failure: none means success. */
int move_settle(struct call *, const struct object *intent, ref_t gone);

/* The hosts that a move needs to hear from before it can be settled. */
bool move_can_be_settled(struct call *, const struct object *intent, ref_t gone);

/* By how many the VM's epoch may be above that of the move's INTENT, when it is resident there. */
int64_t move_epochs_taken(const struct object *intent, ref_t resident);
