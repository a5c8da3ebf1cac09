/* VM.h - what the handlers of VMs share: VM_create.c, VM_clone.c, VM_provision.c, VM_memory.c,
 * templates.c, enrol.c, ova_import.c */
#pragma once

#include "master/handler.h"

/* The VM and its metrics from a draft: fields that the server keeps get what a halted VM has,
 * unless the draft says otherwise (enrol.c makes running control domains). Returns the VM. */
ref_t vm_create(struct call *, struct txn *, struct object *draft);

/* The draft of a VM that does not run. */
void vm_draft_halt(struct object *draft);

/* Checks that need no other object: 0, or -ERR_MEMORY_CONSTRAINT_VIOLATION [text],
 * -ERR_INVALID_VALUE [field, value]. */
int vm_check_memory(struct call *, int64_t static_min, int64_t dynamic_min, int64_t dynamic_max,
                    int64_t static_max);
int vm_check_vcpus(struct call *, int64_t max, int64_t at_startup);
int vm_check_shadow(struct call *, const char *name, double multiplier);
int vm_check_platform(struct call *, const struct value *platform, int64_t vcpus_max);
/* All of these, and the numbers that have setters with limits. */
int vm_check(struct call *, const struct object *draft);

/* Deletes the VM with its VBDs, VIFs, consoles and metrics. The disks stay. */
void vm_delete(struct txn *, ref_t vm);

/* After a change of what memory_overhead depends on. */
void vm_count_overhead(struct txn *, ref_t vm);

/* A new generation id "n:m". */
const char *vm_generation_id_new(struct call *);

/* The MAC address of a VM's interface, from the VM's other_config["mac_seed"] and the device, else
 * random. */
const char *vif_mac_new(struct call *, const struct object *vm, const char *device);
bool vif_mac_is_valid(const char *mac);
/* A new interface or drive from a draft whose VM and network or disk are live, with the checks and
 * the choices of the constructors: a free device for "autodetect", a MAC address for none. 0 or the
 * constructor's error. */
int vif_create(struct call *, struct txn *, struct object *draft, ref_t *ret);
int vbd_create(struct call *, struct txn *, struct object *draft, ref_t *ret);
/* A copy for another VM, with a new MAC address; for a snapshot, which never runs, with the same. */
void vif_copy(struct call *, struct txn *, ref_t vif, ref_t vm);
/* A copy for another VM with that VDI (null: as the old one has it). */
void vbd_copy(struct call *, struct txn *, ref_t vbd, ref_t vm, ref_t vdi);
