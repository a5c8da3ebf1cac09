/* vms.h - the guests of this host as the agent knows them
 *
 * The driver knows what runs, the ledger which right it has; struct vm holds both together with what is going on. A VM's
 * lock is held by an operation while it decides and acts; long waits (a move, a guest that shuts down) happen without
 * it, and who waits looks again afterwards. */
#pragma once

#include <stdatomic.h>

#include "shared/fiber.h"
#include "slave/agent.h"
#include "slave/hypervisor.h"
#include "slave/ledger.h"

struct receive;

struct vm {
    struct agent *agent;
    ref_t uuid;
    char text[UUID_TEXT_BYTES];
    enum guest_state state;     /* what the driver has */
    uint64_t guest_epoch;       /* at which that guest was made, or has been given the right to run since */
    int64_t domid;
    enum guest_change ended_by;
    bool is_being_killed;       /* by an operation, with the lock: its end is no news */
    bool is_locked;
    struct waitq lock_queue, changed;
    struct receive *receive;    /* vm_move.c */
    atomic_bool *stop;          /* of long work with files under the lock: set when the guest is to end; NULL: there is none */
    uint64_t sending;           /* number of the driver's operation that sends it, or 0 */
};

/* Finds or makes it. */
struct vm *vm_of(struct agent *, ref_t uuid);
/* From a call's text; NULL, with op_fail() done, for what is no uuid. */
struct vm *vm_named(struct op *, const char *uuid);
struct vm *vm_find(struct agent *, ref_t uuid);

/* Fibers. */
void vm_lock(struct vm *);
void vm_unlock(struct vm *);
void vm_unlock_p(struct vm **); /* _cleanup_(vm_unlock_p) struct vm *locked = vm_locked(vm); */
struct vm *vm_locked(struct vm *);

/* Wait for any change of the VM's state: 0, -ETIMEDOUT. */
int vm_wait_change(struct vm *, uint64_t deadline_ms);
void vm_set_state(struct vm *, enum guest_state);

/* Its ledger row; one at epoch 0 when there is none. */
struct ledger_vm vm_row(const struct vm *);
/* Write down how far it got; in the file at the next ledger_sync. That its guest has ended by itself is forgotten by it. */
void vm_put(struct vm *, uint64_t epoch, enum vm_progress);

/* The right at this epoch is over, since the guest has ended by itself: write down how, and tell the master then. */
void vm_tell_ended(struct vm *, uint64_t epoch, enum guest_change change);

const char *guest_state_text(enum guest_state);

/* {state, domid}, as calls about a VM's life answer. */
struct value vm_answer(struct op *, const struct vm *);
int vm_bad_state(struct op *, const struct vm *, const char *expected);
/* Refuses an operation that was asked for by a master that is not followed any more. What this host may run is told to a new
 * master once it is followed, and is complete: nothing of an older order begins to run behind that. Asked right before a
 * right to run is written down, with no wait between. */
int op_check_master(struct op *);
/* Refuses epochs below the highest seen. */
int vm_check_epoch(struct op *, const struct vm *, int64_t epoch);
/* The VM that a call is about, with its lock, at an epoch that is not refused: 0 or the failure. With most failures, too, the
 * lock is held: _cleanup_(vm_unlock_p) struct vm *vm = NULL; */
int vm_take(struct op *, const char *uuid, int64_t epoch, struct vm **ret_locked);

/* ---- the driver's operations ---- */

/* Number of a new one; then call the driver with it; then wait for its end. */
uint64_t driving_begin(struct agent *, struct op *, struct vm *);
/* started: what the driver's function returned. 0, or the failure. Not ended by anything but the driver. */
int driving_wait(struct op *, struct vm *, uint64_t number, int started);

#define DRIVE(op, vm, function, ...)                                                               \
    ({                                                                                             \
        uint64_t number_ = driving_begin((op)->agent, (op), (vm));                                 \
        struct hypervisor *hv_ = (op)->agent->hypervisor;                                          \
        driving_wait((op), (vm), number_, hv_->function(hv_, number_, ##__VA_ARGS__));             \
    })

void vms_init(struct agent *);    /* sets the driver's events */
void vms_done(struct agent *);
/* Take over what the driver says and bring the ledger in line. False when the driver cannot tell yet. */
bool vms_adopt(struct agent *);
/* What hello says: a set of maps. */
struct value vms_report(struct agent *, struct arena *);

/* ---- what a guest is made of ---- */

struct guest_plan {
    struct guest_config config;
    char *disks;                /* paths of writable disks, each with a newline: whose owner records it takes */
};
int guest_plan_make(struct op *, struct vm *, uint64_t epoch, const struct value *config, const struct value *disks,
                    const struct value *nics, struct arena *, struct guest_plan *ret);

/* One of each. */
int guest_plan_disk(struct op *, const struct value *map, struct arena *, struct guest_disk *ret);
int guest_plan_nic(struct op *, const struct value *map, struct arena *, struct guest_nic *ret);

/* ---- devices of a guest that is there (vm_devices.c) ---- */

/* What the guest has, for hello and vm_ask: two pairs of keys and texts, a line for each device.
 *
 *   disks   "0 vm1.raw": number and file name; "3 " for an empty drive and for a disk without a file
 *   nics    "0"
 *
 * `items` has room for four values. Returns 4, or 0 where the driver cannot tell. */
#define VM_DEVICE_ITEMS 4
uint32_t vm_devices_report(const struct vm *, struct arena *, struct value *items);

/* ---- the life of a guest (vm_ops.c) ---- */

/* A guest that is complete and paused gets the right to run at the epoch, and runs. With the lock. `disks`: the paths whose
 * owner records it takes. 0, or the failure: -ERR_VDI_IN_USE when a higher right has been used. */
int vm_let_run(struct op *op, struct vm *vm, uint64_t epoch, const char *disks);

/* ---- owner records (owner.c) ---- */

/* Write our right beside each disk, unless one stands there that is another host's and not lower, or above `last_epoch`: what
 * has run since has written to the disk. VDI_IN_USE [location, text]. `disks`: paths, each with a newline. */
int owner_take(struct op *, const struct vm *, const char *disks, uint64_t epoch, uint64_t last_epoch);
/* The guest has let these disks go: other VMs may take them, and this one by the same right or a higher one. Records that are
 * not this VM's and this host's stay. A disk that cannot be given back is logged: it is no reason to fail. */
void owner_give_back(struct op *, const struct vm *, const char *disks);
/* The same of a right that was taken and not used: what was saved at `last_epoch` is still what the disks fit to. */
void owner_undo(struct op *, const struct vm *, const char *disks, uint64_t epoch, uint64_t last_epoch);

/* ---- moves (vm_move.c) ---- */

/* Wait until the copy that arrives is complete: 0, or that it is not. With the lock held; it is given up meanwhile. */
int receive_wait(struct op *, struct vm *);
/* Drop what is arriving, if anything is; returns when nothing of it is left. With the lock. */
int receive_drop(struct op *, struct vm *);
/* Without waiting: whoever connects now is late. For the agent's end. */
void receive_destroy(struct vm *);
