/* VM_power.h - the power operations of VMs that others need too: recovery.c, guest_changes.c,
 * host_evacuate.c */
#pragma once

#include "master/vm_work.h"

extern const struct work_kind work_start, work_start_on, work_pause, work_unpause,
    work_clean_shutdown, work_hard_shutdown, work_clean_reboot, work_hard_reboot; /* VM_power.c */
extern const struct work_kind work_suspend, work_resume, work_resume_on;          /* VM_suspend.c */
extern const struct work_kind work_pool_migrate;                                  /* VM_migrate.c */
extern const struct work_kind work_snapshot;                                      /* snapshot.c */

/* A guest that ended by itself begins anew on the host where it was, in the same power state all
 * the while; if that fails the VM is Halted. (guest_changes.c, a reboot that was interrupted) */
extern const struct work_kind work_restart;
int vm_restart(struct call *, ref_t vm, uint64_t *epoch);
/* One that is Halted by now, on any host. Both set *epoch to that of the new right when it was given. */
int vm_start_again(struct call *, ref_t vm, uint64_t *epoch);

/* Run a new guest on the work's host: the slave call of start, restart and start_on. */
int start_run(struct work *);

/* Choose or check the host, claim it for `operation`, reserve it and raise the epoch: the first
 * transaction of start and resume. */
int arrival_begin(struct work *, struct txn *, enum host_allowed_operations operation);
/* ... and what it had reserved, when nothing came of it. */
void arrival_undone(struct work *, struct txn *);

/* Delete the VDI of a suspend image that nobody needs any more, file and record. A file that cannot
 * be deleted keeps its record, so that someone can. */
void suspend_image_destroy(struct call *, ref_t vdi);
