/* VM_boot.h - may this VM run on this host, and on which host should it */
#pragma once

#include "master/call.h"
#include "master/store.h"

struct placement_vm;

enum boot_flags {
    BOOT_ANY_MEMORY = 1, /* free memory is not asked for */
    BOOT_ANY_CPU = 2,    /* nor the CPU's features */
    BOOT_DISABLED = 4,   /* nor whether the host is enabled */
    BOOT_LOCAL = 8,      /* the VM is there already: its own memory is not free, and not needed */
};

/* The checks of wire.md section 12, in order: 0 or the first refusal. `view` is the core's own, or
 * a transaction's. */
int assert_can_boot_here(struct call *, const struct view *, ref_t vm, ref_t host, unsigned flags);

/* Does the host let VMs in? -ERR_HOST_EVACUATE_IN_PROGRESS [host]. */
int assert_lets_in(struct call *, const struct view *, ref_t host);

/* Reserve the VM's drives for a guest that begins to run, all or those that are attached; from then on nobody else gets their
 * disks. When somebody has one, or two drives one: -ERR_VDI_IN_USE, -ERR_VDI_READONLY, or -ERR_OTHER_OPERATION_IN_PROGRESS while someone works on
 * it; the transaction is then to be given up. */
int reserve_disks(struct call *, struct txn *, ref_t vm, bool only_attached);
/* For a guest that begins anew on that host, and keeps what it has: also the drives that it has not, as far as nobody has their
 * disks. -ERR_VM_REQUIRES_SR [vm, sr] when the host does not see one of all these; the transaction is then to be given up. */
int reserve_free_disks(struct call *, struct txn *, ref_t vm, ref_t host);

/* What placement wants to know of a VM. */
struct placement_vm boot_needs(const struct object *vm);

/* A host for a VM that begins to run: 0 and the host, -ERR_NO_HOSTS_AVAILABLE, or
 * -ERR_HOST_NOT_ENOUGH_FREE_MEMORY [needed, available] when memory is all that is missing. */
int choose_host(struct call *, const struct view *, ref_t vm, unsigned flags, ref_t *ret_host);
