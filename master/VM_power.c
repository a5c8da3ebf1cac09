/* VM_power.c - start, pause, unpause, shut down, reboot
 *
 * Every operation here is one slave call between two transactions (vm_work.h). Its kind says what
 * the first one reserves and what comes of each answer; the handler makes the call. suspend and
 * resume are in VM_suspend.c, moving in VM_migrate.c. */
#include "master/VM_power.h"

#include "master/core.h"
#include "master/guest_changes.h"
#include "master/lifecycle.h"
#include "master/message.h"
#include "master/put.h"
#include "master/slaves.h"
#include "master/task.h"
#include "master/VM_boot.h"
#include "master/vm_config.h"
#include "master/vm_state.h"
#include "shared/fiber.h"

/* wire.md section 11: how long a guest may take to shut down. */
#define SHUTDOWN_TIMEOUT_S 1200

static void tell(struct work *work, struct txn *txn, const char *name, const char *what)
{
    message_about_vm(txn, work->call->core, name, MESSAGE_VM_PRIORITY, work->vm, work->host, what);
}

static struct core *core_of(const struct work *work)
{
    return work->call->core;
}

/* ---- start ---- */

int arrival_begin(struct work *work, struct txn *txn, enum host_allowed_operations operation)
{
    struct call *call = work->call;
    const struct object *vm = txn_get(txn, VM, work->vm);
    unsigned flags = work->is_forced ? BOOT_ANY_CPU : 0;
    int r;

    if (!ref_is_null(VM_get_scheduled_to_be_resident_on(
            vm))) /* reserved for it by someone who plans ahead */
        work->host = VM_get_scheduled_to_be_resident_on(vm);
    else
        work->host = work->wanted_host;
    if (ref_is_null(work->host)) {
        r = choose_host(call, txn_view(txn), work->vm, flags, &work->host);
    } else {
        r = assert_lets_in(call, txn_view(txn), work->host);
        if (r == 0)
            r = assert_can_boot_here(call, txn_view(txn), work->vm, work->host, flags);
    }
    if (r < 0)
        return r;
    r = claim_begin_txn(&work->host_claim, call, txn, CLASS_OF(host), work->host, (int) operation);
    if (r < 0)
        return r;
    VM_put_scheduled_to_be_resident_on(txn, work->vm, work->host);
    work->epoch = vm_put_fresh_epoch(call->core, txn, work->vm);
    work->is_arrival = true;
    return 0;
}

void arrival_undone(struct work *work, struct txn *txn)
{
    VM_put_scheduled_to_be_resident_on(txn, work->vm, NULL_REF);
}

static int start_begin(struct work *work, struct txn *txn)
{
    int r = reserve_disks(work->call, txn, work->vm, false);

    if (r < 0)
        return r;
    r = arrival_begin(work, txn, host_allowed_operations_vm_start);
    if (r < 0)
        return r;
    vm_put_reserved(txn, work->vm, true);
    if (!work->is_anew)
        VM_put_again_after(txn, work->vm, "");
    return 0;
}

static void start_done(struct work *work, struct txn *txn, enum guest_is guest, int64_t domid)
{
    vm_put_booted(txn, core_of(work), work->vm, work->host, domid, guest == GUEST_IS_PAUSED);
    tell(work, txn, "VM_STARTED", "has started");
    if (guest == GUEST_IS_ENDED) /* it has run, and is over already */
        vm_put_halted(txn, work->vm);
}

static void start_undone(struct work *work, struct txn *txn)
{
    arrival_undone(work, txn);
    vm_put_reserved(txn, work->vm, false);
}

/* At its epoch it can only be there, or have been there, because this start ran it. */
static bool start_was_done(enum guest_is guest)
{
    return guest != GUEST_IS_NOWHERE;
}

const struct work_kind work_start = {
    .name = "start",
    .operation = vm_operations_start,
    .lets_run = true,
    .begin = start_begin,
    .done = start_done,
    .undone = start_undone,
    .was_done = start_was_done,
};
const struct work_kind work_start_on = {
    .name = "start_on",
    .operation = vm_operations_start_on,
    .lets_run = true,
    .begin = start_begin,
    .done = start_done,
    .undone = start_undone,
    .was_done = start_was_done,
};

int start_run(struct work *work)
{
    struct call *call = work->call;
    struct vm_config config;
    struct value answer = VALUE_VOID;
    int r;

    vm_config(call, call_view(call), work->vm, work->host, DEVICES_AT_BOOT, &config);
    r = slave_vm_start(call, work->host,
                       &(struct slave_vm_start_args){
                           .vm = config.uuid,
                           .epoch = (int64_t) work->epoch,
                           .config = &config.config,
                           .disks = &config.disks,
                           .nics = &config.nics,
                           .paused = work->is_paused,
                       },
                       &answer);
    return work_conclude(work, r, &answer);
}

int VM_start(struct call *call, const struct VM_start_args *args, struct value *ret)
{
    _cleanup_(work_end) struct work work = {.is_paused = args->start_paused,
                                            .is_forced = args->force};
    int r;

    (void) ret;
    r = work_begin(&work, call, &work_start, args->vm);
    return r < 0 ? r : start_run(&work);
}

int VM_start_on(struct call *call, const struct VM_start_on_args *args, struct value *ret)
{
    _cleanup_(work_end) struct work work = {
        .is_paused = args->start_paused, .is_forced = args->force, .wanted_host = args->host};
    int r;

    (void) ret;
    r = work_begin(&work, call, &work_start_on, args->vm);
    return r < 0 ? r : start_run(&work);
}

/* ---- restart: a new guest where the old one ended ---- */

/* The VM keeps its place and its memory there; only the right to run is new. */
static int restart_begin(struct work *work, struct txn *txn)
{
    if (ref_is_null(work->host)) /* it was stopped for good meanwhile */
        return fail(work->call, VM_BAD_POWER_STATE, ref_text(work->call, work->vm), "running",
                    "halted");
    work->epoch = vm_put_fresh_epoch(core_of(work), txn, work->vm);
    return reserve_free_disks(work->call, txn, work->vm, work->host);
}

static void restart_done(struct work *work, struct txn *txn, enum guest_is guest, int64_t domid)
{
    vm_put_booted(txn, core_of(work), work->vm, work->host, domid, guest == GUEST_IS_PAUSED);
    tell(work, txn, "VM_REBOOTED", "has rebooted");
    if (guest == GUEST_IS_ENDED)
        vm_put_halted(txn, work->vm);
}

static void restart_undone(struct work *work, struct txn *txn)
{
    vm_put_halted_for_now(txn, work->vm); /* guest_again.c goes on elsewhere */
}

/* Whoever wanted the restart had seen the old guest end, but a reboot may have made a new one since. The kill ends what there
 * is, and bars it. */
static int restart_see_undone(struct work *work)
{
    struct slave_vm_kill_args kill = {work->uuid, (int64_t) work->epoch};

    return slave_vm_kill(work->call, work->host, &kill, NULL);
}

const struct work_kind work_restart = {
    .name = "restart",
    .operation = vm_operations_clean_reboot, /* what it is to a user */
    .lets_run = true,
    .is_ours = true,
    .begin = restart_begin,
    .done = restart_done,
    .undone = restart_undone,
    .see_undone = restart_see_undone,
    .was_done = start_was_done,
};

/* *epoch is only changed when the work has begun. */
static int run_again(struct call *call, const struct work_kind *kind, ref_t vm, uint64_t *epoch)
{
    _cleanup_(work_end) struct work work = {.is_anew = true};
    int r;

    r = work_begin(&work, call, kind, vm);
    if (r < 0)
        return r;
    *epoch = work.epoch;
    return start_run(&work);
}

int vm_restart(struct call *call, ref_t vm, uint64_t *epoch)
{
    return run_again(call, &work_restart, vm, epoch);
}

int vm_start_again(struct call *call, ref_t vm, uint64_t *epoch)
{
    return run_again(call, &work_start, vm, epoch);
}

/* ---- pause, unpause ---- */

static void pause_done(struct work *work, struct txn *txn, enum guest_is guest, int64_t domid)
{
    (void) domid;
    if (guest == GUEST_IS_ENDED) {
        vm_put_halted(txn, work->vm);
        return;
    }
    VM_put_power_state(txn, work->vm, vm_power_state_Paused);
    tell(work, txn, "VM_PAUSED", "has been paused");
}

static bool pause_was_done(enum guest_is guest)
{
    return guest != GUEST_IS_RUNNING;
}

const struct work_kind work_pause = {
    .name = "pause",
    .operation = vm_operations_pause,
    .done = pause_done,
    .was_done = pause_was_done,
};

int VM_pause(struct call *call, const struct VM_pause_args *args, struct value *ret)
{
    _cleanup_(work_end) struct work work = {0};
    struct value answer = VALUE_VOID;
    int r;

    (void) ret;
    r = work_begin(&work, call, &work_pause, args->vm);
    if (r < 0)
        return r;
    r = slave_vm_pause(call, work.host,
                       &(struct slave_vm_pause_args){work.uuid, (int64_t) work.epoch}, &answer);
    return work_conclude(&work, r, &answer);
}

static void unpause_done(struct work *work, struct txn *txn, enum guest_is guest, int64_t domid)
{
    (void) domid;
    if (guest == GUEST_IS_ENDED) { /* by itself, so more may come of it than that it is Halted */
        guest_compare_later(core_of(work), work->vm);
        return;
    }
    VM_put_power_state(txn, work->vm, vm_power_state_Running);
    tell(work, txn, "VM_UNPAUSED", "has been unpaused");
}

static bool unpause_was_done(enum guest_is guest)
{
    return guest != GUEST_IS_PAUSED;
}

const struct work_kind work_unpause = {
    .name = "unpause",
    .operation = vm_operations_unpause,
    .lets_run = true,
    .done = unpause_done,
    .was_done = unpause_was_done,
};

int VM_unpause(struct call *call, const struct VM_unpause_args *args, struct value *ret)
{
    _cleanup_(work_end) struct work work = {0};
    struct value answer = VALUE_VOID;
    int r;

    (void) ret;
    r = work_begin(&work, call, &work_unpause, args->vm);
    if (r < 0)
        return r;
    r = slave_vm_unpause(call, work.host,
                         &(struct slave_vm_unpause_args){work.uuid, (int64_t) work.epoch}, &answer);
    return work_conclude(&work, r, &answer);
}

/* ---- shutting down ---- */

static void shutdown_done(struct work *work, struct txn *txn, enum guest_is guest, int64_t domid)
{
    (void) guest;
    (void) domid;
    tell(work, txn, "VM_SHUTDOWN", "has been shut down");
    VM_put_ha_always_run(txn, work->vm, false);
    vm_put_halted(txn, work->vm);
}

static bool shutdown_was_done(enum guest_is guest)
{
    return guest == GUEST_IS_ENDED || guest == GUEST_IS_NOWHERE;
}

const struct work_kind work_clean_shutdown = {
    .name = "clean_shutdown",
    .operation = vm_operations_clean_shutdown,
    .is_cancellable = true,
    .done = shutdown_done,
    .was_done = shutdown_was_done,
};

/* The guest may take its time, so the wait can be given up. The guest has been asked all the same:
 * the VM stays claimed until it has ended or its time is over, unless a hard operation ends that.
 */
int VM_clean_shutdown(struct call *call, const struct VM_clean_shutdown_args *args,
                      struct value *ret)
{
    _cleanup_(work_end) struct work work = {0};
    struct value answer = VALUE_VOID;
    int r;

    (void) ret;
    r = work_begin(&work, call, &work_clean_shutdown, args->vm);
    if (r < 0)
        return r;
    task_set_cancellable(call, true);
    r = slave_vm_shutdown(
        call, work.host,
        &(struct slave_vm_shutdown_args){work.uuid, (int64_t) work.epoch, SHUTDOWN_TIMEOUT_S},
        &answer);
    task_set_cancellable(call, false);
    return work_conclude(&work, r, &answer);
}

const struct work_kind work_hard_shutdown = {
    .name = "hard_shutdown",
    .operation = vm_operations_hard_shutdown,
    .is_hard = true,
    .done = shutdown_done,
    .was_done = shutdown_was_done,
};

/* Suspended: there is no guest, only its image. */
static int shutdown_suspended(struct work *work)
{
    struct call *call = work->call;
    ref_t image = VM_get_suspend_VDI(view_get(call_view(call), VM, work->vm));
    struct txn *txn = work_finish_begin(work);

    shutdown_done(work, txn, GUEST_IS_ENDED, -1);
    VM_put_suspend_VDI(txn, work->vm, NULL_REF);
    call_commit(call, &txn);
    suspend_image_destroy(call, image);
    return 0;
}

int VM_hard_shutdown(struct call *call, const struct VM_hard_shutdown_args *args, struct value *ret)
{
    _cleanup_(work_end) struct work work = {0};
    struct value answer = VALUE_VOID;
    int r;

    (void) ret;
    r = work_begin(&work, call, &work_hard_shutdown, args->vm);
    if (r < 0)
        return r;
    if (ref_is_null(
            work.intent)) /* nothing runs: suspended, or ended while we waited for others to stop */
        return VM_get_power_state(view_get(call_view(call), VM, work.vm))
                       == vm_power_state_Suspended
                   ? shutdown_suspended(&work)
                   : 0;
    r = slave_vm_kill(call, work.host,
                      &(struct slave_vm_kill_args){work.uuid, (int64_t) work.epoch}, &answer);
    return work_conclude(&work, r, &answer);
}

int VM_shutdown(struct call *call, const struct VM_shutdown_args *args, struct value *ret)
{
    const struct object *vm = view_get(call_view(call), VM, args->vm);
    int r;

    if (vm && VM_get_power_state(vm) == vm_power_state_Running) {
        r = VM_clean_shutdown(call, &(struct VM_clean_shutdown_args){args->vm}, ret);
        if (r != -ERR_VM_SHUTDOWN_TIMEOUT && r != -ERR_VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT
            && r != -ERR_VM_LACKS_FEATURE)
            return r;
        call->failure = (struct failure){0};
    }
    return VM_hard_shutdown(call, &(struct VM_hard_shutdown_args){args->vm}, ret);
}

/* ---- rebooting ---- */

/* A reboot keeps the host and the epoch: the right to run does not change. Nor do the devices: what was unplugged, and is
 * another VM's by now, stays that one's. No guest ends for one that its host could not make: what a start would check of the
 * disks is checked first. */
static int reboot_begin(struct work *work, struct txn *txn)
{
    return reserve_free_disks(work->call, txn, work->vm, work->host);
}

static void reboot_undone(struct work *work, struct txn *txn)
{
    vm_put_reserved(txn, work->vm, false);
}

static void reboot_done(struct work *work, struct txn *txn, enum guest_is guest, int64_t domid)
{
    if (guest == GUEST_IS_ENDED) {
        vm_put_halted(txn, work->vm);
        return;
    }
    vm_put_booted(txn, core_of(work), work->vm, work->host, domid, guest == GUEST_IS_PAUSED);
    tell(work, txn, "VM_REBOOTED", "has rebooted");
}

static bool reboot_was_done(enum guest_is guest)
{
    (void) guest;
    return true;
}

const struct work_kind work_clean_reboot = {
    .name = "clean_reboot",
    .operation = vm_operations_clean_reboot,
    .is_cancellable = true,
    .begin = reboot_begin,
    .done = reboot_done,
    .undone = reboot_undone,
    .was_done = reboot_was_done,
};
const struct work_kind work_hard_reboot = {
    .name = "hard_reboot",
    .operation = vm_operations_hard_reboot,
    .is_hard = true,
    .begin = reboot_begin,
    .done = reboot_done,
    .undone = reboot_undone,
    .was_done = reboot_was_done,
};

static int reboot_run(struct work *work, bool is_hard)
{
    struct call *call = work->call;
    struct vm_config config;
    struct value answer = VALUE_VOID;
    int r;

    vm_config(call, call_view(call), work->vm, work->host, DEVICES_AT_BOOT, &config);
    r = slave_vm_reboot(call, work->host,
                        &(struct slave_vm_reboot_args){
                            .vm = config.uuid,
                            .epoch = (int64_t) work->epoch,
                            .config = &config.config,
                            .disks = &config.disks,
                            .nics = &config.nics,
                            .is_hard = is_hard,
                            .timeout_s = SHUTDOWN_TIMEOUT_S,
                        },
                        &answer);
    return work_conclude(work, r, &answer);
}

int VM_clean_reboot(struct call *call, const struct VM_clean_reboot_args *args, struct value *ret)
{
    _cleanup_(work_end) struct work work = {0};
    int r;

    (void) ret;
    r = work_begin(&work, call, &work_clean_reboot, args->vm);
    if (r < 0)
        return r;
    task_set_cancellable(call, true);
    r = reboot_run(&work, false);
    task_set_cancellable(call, false);
    return r;
}

int VM_hard_reboot(struct call *call, const struct VM_hard_reboot_args *args, struct value *ret)
{
    _cleanup_(work_end) struct work work = {0};
    int r;

    (void) ret;
    r = work_begin(&work, call, &work_hard_reboot, args->vm);
    if (r < 0)
        return r;
    if (ref_is_null(work.intent))
        return fail(call, VM_BAD_POWER_STATE, ref_text(call, args->vm), "paused;running",
                    power_state_text(VM_get_power_state(view_get(call_view(call), VM, work.vm))));
    return reboot_run(&work, true);
}
