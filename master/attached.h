/* attached.h - which devices a running VM has, as its host tells it, against its VBDs and VIFs
 *
 * A plug whose answer was lost, or whose master died before it wrote it down, has happened or not: the host knows. It tells
 * with each hello, and when asked (vm_ask), so the records follow what the guest has.
 *
 *   disks   a line for each: "0 vm1.raw"; "3 " for an empty drive, and for a disk of a dummy SR
 *   nics    a line for each: "0"
 *
 * NULL: the host does not tell, and nothing is concluded. Devices that somebody is plugging or unplugging are left to him. */
#pragma once

#include "master/store.h"

/* Do the records say the same? */
bool attached_agree(const struct view *, ref_t vm, const char *disks, const char *nics);

/* Make them. The VM is claimed by the caller, so nobody begins to plug. */
void attached_put(struct txn *, ref_t vm, const char *disks, const char *nics);
