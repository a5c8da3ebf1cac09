/* vm_ops.c - the life of a guest: start, resume, pause, shut down, reboot, suspend, kill
 *
 * "Be at epoch e and have run once": each right to run is used at most once. Before a guest may run, the ledger says so
 * (ran), and that is synced; what the ledger does not say has certainly not run. So whoever asks again after a lost
 * answer or a restart gets the state of the one guest that epoch e has ever made, and no second one. */
#include <errno.h>

#include "shared/clock.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "slave/storage.h"
#include "slave/vms.h"

/* End what is left of the VM's guest, and have the driver forget it. With the lock. */
static int clear_guest(struct op *op, struct vm *vm)
{
    int r = 0;

    vm->is_being_killed = true;
    if (vm->receive)
        r = receive_drop(op, vm);
    if (r == 0)
        r = DRIVE(op, vm, kill, vm->uuid);
    if (r == 0)
        r = DRIVE(op, vm, forget, vm->uuid);
    vm->is_being_killed = false;
    if (r == 0)
        vm_set_state(vm, GUEST_NONE);
    return r;
}

/* The guest of this right is over, and the disks are anybody's. */
static void put_ended(struct op *op, struct vm *vm, uint64_t epoch)
{
    vm_put(vm, epoch, VM_ENDED);
    owner_give_back(op, vm, vm_row(vm).disks);
}

/* A guest that is complete and paused gets the right to run at the epoch. The order is the promise: owner records,
 * ledger, and then the guest. */
int vm_let_run(struct op *op, struct vm *vm, uint64_t epoch, const char *disks)
{
    enum guest_state before = vm->state;
    bool was_sent = before == GUEST_SENT;
    int r = owner_take(op, vm, disks, epoch, epoch);

    if (r == 0)
        r = op_check_master(op);
    if (r == 0 && vm->state != before)
        r = vm_bad_state(op, vm, "paused"); /* it ended while we waited, and has not run by this right */
    if (r < 0)
        return r;
    vm_put(vm, epoch, VM_RAN);
    op_sync(op);
    vm->guest_epoch = epoch;
    (void) receive_drop(op, vm); /* it has arrived */
    r = was_sent ? DRIVE(op, vm, resume_sent, vm->uuid, epoch) : DRIVE(op, vm, unpause, vm->uuid);
    if (r == 0 && vm->state != GUEST_ENDED)
        vm_set_state(vm, GUEST_RUNNING);
    return r;
}

/* ---- start and resume ---- */

struct begin {
    struct vm *vm;
    uint64_t epoch;
    const struct value *config, *disks, *nics;
    const char *image;            /* NULL: start */
    const struct value *image_map; /* where that is */
    uint64_t image_epoch;         /* at which the image was made: nothing may have run since */
    bool is_paused;
};

/* Owner records, locks and what the guest writes go beside its disks: nothing of that where an SR is not mounted, or beside a
 * disk whose file is gone. */
static int check_places(struct op *op, const struct begin *begin)
{
    int r = storage_check_files(op, begin->disks->items, begin->disks->length);

    return r == 0 && begin->image ? storage_check_files(op, begin->image_map, 1) : r;
}

/* With epoch and progress seen to: make the guest, have it run. */
static int make_guest(struct op *op, const struct begin *begin)
{
    struct vm *vm = begin->vm;
    struct ledger *ledger = op->agent->ledger;
    struct guest_plan plan;
    struct ledger_vm row;
    int r = guest_plan_make(op, vm, begin->epoch, begin->config, begin->disks, begin->nics, op->arena, &plan);

    if (r == 0)
        r = check_places(op, begin);
    if (r == 0)
        r = op_check_master(op);
    if (r < 0)
        return r;
    plan.config.domid = vm->domid = ledger_next_domid(ledger);
    row = vm_row(vm);
    row.epoch = begin->epoch;
    row.progress = VM_STARTING;
    row.domid = vm->domid;
    row.disks = plan.disks;
    row.move[0] = '\0';
    ledger_put_vm(ledger, &row);
    op_sync(op);
    vm->guest_epoch = begin->epoch;
    r = owner_take(op, vm, plan.disks, begin->epoch, begin->image ? begin->image_epoch : begin->epoch);
    if (r < 0)
        return r;
    r = begin->image ? DRIVE(op, vm, restore, &plan.config, begin->image) : DRIVE(op, vm, start, &plan.config);
    if (r == -ERR_HOST_NOT_ENOUGH_FREE_MEMORY)
        r = op_fail(op, HOST_NOT_ENOUGH_FREE_MEMORY, op_text(op, "%lld", (long long) plan.config.memory_target_bytes), "0");
    if (r < 0)
        return r;
    vm_set_state(vm, GUEST_PAUSED);
    if (!begin->is_paused)
        return vm_let_run(op, vm, begin->epoch, plan.disks);
    vm_put(vm, begin->epoch, VM_RAN); /* it has been given to the master, who may unpause it */
    return 0;
}

/* A guest that could not be made leaves nothing behind, and its epoch is used up. When it has not run its image is still what
 * its disks fit to, and the owner records say so: the master tries again with the epoch of the image. */
static int failed_to_make(struct op *op, const struct begin *begin, int r)
{
    struct failure failure = op->failure;
    struct vm *vm = begin->vm;
    struct ledger_vm row = vm_row(vm);

    if (clear_guest(op, vm) < 0)
        log_warning(vm->text, "what is left of a guest that could not be started cannot be cleared");
    else if (begin->image && row.epoch == begin->epoch && row.progress == VM_STARTING)
        owner_undo(op, vm, row.disks, begin->epoch, begin->image_epoch);
    put_ended(op, vm, begin->epoch);
    op->failure = failure;
    return r;
}

static int begin_guest(struct op *op, const struct begin *begin, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = vm_locked(begin->vm);
    struct ledger_vm row = vm_row(vm);
    int r = vm_check_epoch(op, vm, (int64_t) begin->epoch);

    if (r < 0)
        return r;
    if (row.epoch == begin->epoch && row.progress != VM_STARTING && row.progress != VM_ABORTED) {
        if (row.progress == VM_RECEIVING || row.progress == VM_PAUSED_FOR_MOVE)
            return vm_bad_state(op, vm, "halted");
        if (row.progress == VM_RAN && vm->state == GUEST_PAUSED && !begin->is_paused) {
            r = vm_let_run(op, vm, begin->epoch, row.disks);
            if (r < 0)
                return failed_to_make(op, begin, r);
        }
        *ret = vm_answer(op, vm);
        return 0;
    }
    if (row.epoch == begin->epoch && row.progress == VM_STARTING && vm->state == GUEST_PAUSED) {
        /* made before the agent was restarted */
        r = begin->is_paused ? 0 : vm_let_run(op, vm, begin->epoch, row.disks);
        if (r < 0)
            return failed_to_make(op, begin, r);
        if (begin->is_paused)
            vm_put(vm, begin->epoch, VM_RAN);
    } else {
        /* A guest of an older right goes first: the master gives a new one only when it is over. */
        r = vm->state == GUEST_NONE ? 0 : clear_guest(op, vm);
        if (r < 0)
            return r;
        r = make_guest(op, begin);
        if (r < 0)
            return op_check_master(op) < 0 && vm_row(vm).epoch < begin->epoch
                       ? r /* the next master may give this epoch anew */
                       : failed_to_make(op, begin, r);
    }
    *ret = vm_answer(op, vm);
    return r;
}

int do_vm_start(struct op *op, const struct slave_vm_start_args *args, struct value *ret)
{
    struct begin begin = {
        .vm = vm_named(op, args->vm),
        .epoch = (uint64_t) args->epoch,
        .config = args->config,
        .disks = args->disks,
        .nics = args->nics,
        .is_paused = args->paused,
    };

    return begin.vm ? begin_guest(op, &begin, ret) : -op->failure.code;
}

int do_vm_resume(struct op *op, const struct slave_vm_resume_args *args, struct value *ret)
{
    struct begin begin = {
        .vm = vm_named(op, args->vm),
        .epoch = (uint64_t) args->epoch,
        .config = args->config,
        .disks = args->disks,
        .nics = args->nics,
        .is_paused = args->paused,
        .image_map = args->image,
        .image_epoch = (uint64_t) args->image_epoch,
    };

    if (!begin.vm || storage_image_path(op, args->image, &begin.image) < 0)
        return -op->failure.code;
    return begin_guest(op, &begin, ret);
}

/* ---- pause and unpause ---- */

int do_vm_pause(struct op *op, const struct slave_vm_pause_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    int r = vm_take(op, args->vm, args->epoch, &vm);

    if (r < 0)
        return r;
    if (vm->state == GUEST_RUNNING && !vm->sending) {
        r = DRIVE(op, vm, pause, vm->uuid);
        if (r < 0)
            return r;
        if (vm->state == GUEST_RUNNING)
            vm_set_state(vm, GUEST_PAUSED);
    }
    if (vm->state != GUEST_PAUSED) /* it may have ended meanwhile */
        return vm_bad_state(op, vm, "running");
    *ret = vm_answer(op, vm);
    return 0;
}

/* The right of this epoch was never used here and never will be: said once, true for ever. */
static int never_at(struct op *op, struct vm *vm, uint64_t epoch)
{
    vm_put(vm, epoch, VM_ABORTED); /* in the file before it is said: with the operation's outcome */
    return vm_bad_state(op, vm, "paused");
}

static int unpause_at(struct op *op, struct vm *vm, uint64_t epoch)
{
    struct ledger_vm row = vm_row(vm);

    if (row.epoch == epoch && row.progress == VM_RECEIVING) {
        int r = receive_wait(op, vm);

        if (r < 0)
            return r;
        row = vm_row(vm);
    }
    if (row.epoch == epoch) {
        switch (row.progress) {
        case VM_RECEIVING:
        case VM_STARTING:
        case VM_RAN:
            return vm->state == GUEST_PAUSED ? vm_let_run(op, vm, epoch, row.disks) : 0;
        case VM_ABORTED:
        case VM_NONE:
            return never_at(op, vm, epoch);
        case VM_PAUSED_FOR_MOVE:
            return vm_bad_state(op, vm, "paused"); /* by vm_send_abort only */
        default:
            return 0; /* ended: that is the answer */
        }
    }
    /* A higher right for the guest that is here: the second COMMIT of a move gives it back to the source. */
    if ((vm->state == GUEST_SENT && row.progress != VM_ABORTED) || (vm->state == GUEST_PAUSED && row.progress == VM_RAN))
        return vm_let_run(op, vm, epoch, row.disks);
    if (vm->state == GUEST_RUNNING && row.progress == VM_RAN) {
        int r = owner_take(op, vm, row.disks, epoch, epoch);

        if (r == 0)
            r = op_check_master(op);
        if (r == 0)
            vm_put(vm, epoch, VM_RAN);
        return r;
    }
    return never_at(op, vm, epoch);
}

int do_vm_unpause(struct op *op, const struct slave_vm_unpause_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    int r = vm_take(op, args->vm, args->epoch, &vm);

    if (r == 0)
        r = unpause_at(op, vm, (uint64_t) args->epoch);
    if (r == 0)
        *ret = vm_answer(op, vm);
    return r;
}

/* ---- the end of a guest ---- */

int do_vm_kill(struct op *op, const struct slave_vm_kill_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *locked = NULL;
    struct vm *vm = vm_named(op, args->vm);
    int r;

    if (!vm)
        return -op->failure.code;
    r = vm_check_epoch(op, vm, args->epoch);
    if (r < 0)
        return r;
    if (vm->is_locked || vm->sending) {
        /* Somebody waits for this guest, perhaps for long: it ends under his hands. */
        vm->is_being_killed = true;
        if (vm->stop)
            atomic_store(vm->stop, true);
        r = DRIVE(op, vm, kill, vm->uuid);
        vm->is_being_killed = false;
        if (r < 0)
            return r;
    }
    locked = vm_locked(vm);
    r = vm_check_epoch(op, vm, args->epoch);
    if (r == 0)
        r = clear_guest(op, vm);
    if (r < 0)
        return r;
    put_ended(op, vm, (uint64_t) args->epoch);
    *ret = vm_answer(op, vm);
    return 0;
}

static bool has_ended(const struct vm *vm)
{
    return vm->state == GUEST_ENDED || vm->state == GUEST_NONE;
}

/* Ask the guest to end and wait until it has. With the lock, which is given up while it takes its time: a hard operation
 * may end that guest first and have another one run, which nobody has asked to end. (That the guest ends by itself is told
 * all the same: who asked for it may no longer wait for us.) */
static int end_by_asking(struct op *op, struct vm *vm, int64_t timeout_s, bool is_reboot)
{
    uint64_t deadline_ms = clock_now_ms(op->agent->clock) + (uint64_t) MAX(timeout_s, (int64_t) 0) * 1000;
    int64_t domid = vm->domid;
    int r = 0;

    if (vm->state != GUEST_RUNNING || vm->sending)
        return vm_bad_state(op, vm, "running");
    r = DRIVE(op, vm, ask_shutdown, vm->uuid, is_reboot);
    vm_unlock(vm);
    while (r == 0 && !has_ended(vm) && vm->domid == domid)
        if (vm_wait_change(vm, deadline_ms) == -ETIMEDOUT)
            r = op_fail(op, VM_SHUTDOWN_TIMEOUT, vm->text, op_text(op, "%lld", (long long) timeout_s));
    vm_lock(vm);
    if (vm->domid != domid)
        return op_fail(op, TASK_CANCELLED, op->id_text);
    return r < 0 && has_ended(vm) ? 0 : r;
}

int do_vm_shutdown(struct op *op, const struct slave_vm_shutdown_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    int r = vm_take(op, args->vm, args->epoch, &vm);

    if (r == 0 && !has_ended(vm))
        r = end_by_asking(op, vm, args->timeout_s, false);
    if (r == 0)
        r = vm_check_epoch(op, vm, args->epoch);
    if (r == 0 && vm->state == GUEST_ENDED)
        r = clear_guest(op, vm);
    if (r < 0)
        return r;
    put_ended(op, vm, (uint64_t) args->epoch);
    *ret = vm_answer(op, vm);
    return 0;
}

/* The same right goes on with a new guest. The ledger says when the old one is over and a new one begins, so that the
 * operation, run again after a restart of the agent, does not reboot a second time. */
int do_vm_reboot(struct op *op, const struct slave_vm_reboot_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    struct begin begin = {
        .epoch = (uint64_t) args->epoch,
        .config = args->config,
        .disks = args->disks,
        .nics = args->nics,
    };
    int r = vm_take(op, args->vm, args->epoch, &vm);
    struct ledger_vm row;

    if (r < 0)
        return r;
    begin.vm = vm;
    row = vm_row(vm);
    if (row.epoch != begin.epoch || row.progress == VM_RECEIVING || row.progress == VM_PAUSED_FOR_MOVE || vm->sending)
        return vm_bad_state(op, vm, "running");
    if (!ref_equal(row.reboot, op->id)) {
        r = check_places(op, &begin); /* no guest ends for one that cannot be made */
        if (r == 0 && !args->is_hard && !has_ended(vm)) {
            r = end_by_asking(op, vm, args->timeout_s, true);
            if (r == 0)
                r = vm_check_epoch(op, vm, args->epoch);
        }
        if (r == 0 && vm->state == GUEST_NONE) /* killed while we waited: that was the end of its right */
            r = vm_bad_state(op, vm, "running");
        if (r == 0)
            r = clear_guest(op, vm);
        if (r < 0)
            return r;
        row = vm_row(vm);
        row.reboot = op->id; /* goes to the file with STARTING */
        ledger_put_vm(op->agent->ledger, &row);
    } else if (vm->state == GUEST_RUNNING) {
        *ret = vm_answer(op, vm);
        return 0;
    } else {
        r = clear_guest(op, vm); /* made, perhaps half, before the restart; it has not run */
        if (r < 0)
            return r;
    }
    r = make_guest(op, &begin);
    if (r < 0) {
        r = failed_to_make(op, &begin, r);
        vm_tell_ended(vm, begin.epoch, GUEST_CRASHED); /* the reply says only that it does not run anew */
        return r;
    }
    *ret = vm_answer(op, vm);
    return 0;
}

int do_vm_suspend(struct op *op, const struct slave_vm_suspend_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    const char *image;
    int r = storage_image_path(op, args->image, &image);

    if (r == 0)
        r = vm_take(op, args->vm, args->epoch, &vm);
    if (r < 0)
        return r;
    if (!(has_ended(vm) && vm_row(vm).progress == VM_ENDED && storage_image_is_complete(image))) {
        if (vm->state != GUEST_RUNNING || vm->sending)
            return vm_bad_state(op, vm, "running");
        r = storage_check(op, args->image, 1);
        if (r == 0)
            r = DRIVE(op, vm, save, vm->uuid, image);
        if (r < 0)
            return r;
        vm_set_state(vm, GUEST_ENDED);
    }
    storage_image_grow(image, strtoll(value_map_text(args->image, "bytes", "0"), NULL, 10));
    vm_put(vm, (uint64_t) args->epoch, VM_ENDED);
    op_sync(op);
    r = clear_guest(op, vm);
    if (r < 0)
        return r;
    owner_give_back(op, vm, vm_row(vm).disks);
    *ret = vm_answer(op, vm);
    return 0;
}

/* ---- small changes ---- */

int do_vm_set_memory(struct op *op, const struct slave_vm_set_memory_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    int r = vm_take(op, args->vm, args->epoch, &vm);

    if (r == 0)
        r = DRIVE(op, vm, set_memory_target, vm->uuid, args->target_bytes);
    if (r == 0)
        *ret = vm_answer(op, vm);
    return r;
}

int do_vm_set_vcpus(struct op *op, const struct slave_vm_set_vcpus_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    int r;

    if (args->vcpus < 1 || args->vcpus > 4096)
        return op_fail(op, INVALID_VALUE, "vcpus", op_text(op, "%lld", (long long) args->vcpus));
    r = vm_take(op, args->vm, args->epoch, &vm);
    if (r == 0)
        r = DRIVE(op, vm, set_vcpus, vm->uuid, (int) args->vcpus);
    if (r == 0)
        *ret = vm_answer(op, vm);
    return r;
}

static int add_devices(struct op *op, const struct vm *vm, struct value *map)
{
    struct value *items = arena_alloc_array(op->arena, 2 * map->length + VM_DEVICE_ITEMS, sizeof *items);

    memcpy(items, map->items, 2 * map->length * sizeof *items);
    map->length += vm_devices_report(vm, op->arena, items + 2 * map->length) / 2;
    map->items = items;
    return 0;
}

int do_vm_ask(struct op *op, const struct slave_vm_ask_args *args, struct value *ret)
{
    struct vm *vm = vm_named(op, args->vm);
    struct ledger_vm row;

    if (!vm)
        return -op->failure.code;
    row = vm_row(vm);
    *ret = op_map(op, "state", guest_state_text(vm->state), "epoch", op_text(op, "%llu", (unsigned long long) row.epoch),
                  "progress", vm_progress_text(row.progress), "domid", op_text(op, "%lld", (long long) vm->domid),
                  "move", row.move, "change", row.change, NULL);
    return add_devices(op, vm, ret);
}
