/* recovery.h - what nobody works on any more: finished or undone from what the hosts say
 *
 * An INTENT without a fiber is an orphan: its call ended in doubt, or its master did. When a host
 * says hello, the orphans that it has to do with are taken up again: the host is asked what became
 * of the operation, and the work is concluded as its handler would have. A host that is given up
 * for good (declare_dead, fenced) answers by that. (design.md sections 5 and 6) */
#pragma once

#include "shared/ref.h"

struct core;
struct recovery;

struct recovery *recovery_new(struct core *);
void recovery_destroy(struct recovery **);

/* A master has started and its store is loaded, nothing is answered yet: claims for what an earlier
 * master left under way, and an end for every task that nobody can continue. */
void recovery_start(struct core *);

/* Nobody works on this INTENT; taken up at once if its hosts are there. */
void recovery_orphan(struct core *, ref_t intent);

/* What could not be settled so far may be now. */
void recovery_look_again(struct core *);
/* Work was given up that had kept others from believing what hosts have told of its VM: they are asked again, soon. */
void recovery_ask_hosts(struct core *);
/* The host has said hello, and what it said was looked at: what waits for it goes on. */
void recovery_host_is_there(struct core *, ref_t host);

/* The VM is halted, as an operator or a fence says: its next epoch, and the end of whatever was
 * under way or in doubt about it. Nothing is sent to any host. */
struct call;
int vm_halt_by_decree(struct call *, ref_t vm);

/* The host runs nothing and never will at the epochs it had: fenced, or the operator says so. From
 * a fiber. Its VMs are halted and what was in doubt about it is settled. */
int recovery_host_gone(struct call *, ref_t host);
