/* vms.c - the guests of this host as the agent knows them, and the driver's operations as something to wait for */
#include "slave/vms.h"

#include <errno.h>
#include <stdio.h>

#include "shared/clock.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"

struct vm *vm_find(struct agent *agent, ref_t uuid)
{
    return refmap_get(&agent->vms, uuid);
}

struct vm *vm_of(struct agent *agent, ref_t uuid)
{
    struct vm *vm = vm_find(agent, uuid);

    if (!vm) {
        vm = new0(struct vm);
        vm->agent = agent;
        vm->uuid = uuid;
        vm->domid = -1;
        uuid_print(vm->text, uuid);
        refmap_put(&agent->vms, uuid, vm);
    }
    return vm;
}

struct vm *vm_named(struct op *op, const char *uuid)
{
    ref_t vm;

    if (!uuid_parse(uuid, strlen(uuid), &vm)) {
        op_fail(op, UUID_INVALID, "VM", uuid);
        return NULL;
    }
    return vm_of(op->agent, vm);
}

/* ---- lock and state ---- */

void vm_lock(struct vm *vm)
{
    fiber_uncancellable_begin();
    while (vm->is_locked)
        waitq_wait(&vm->lock_queue, 0);
    vm->is_locked = true;
    fiber_uncancellable_end();
}

void vm_unlock(struct vm *vm)
{
    assert(vm->is_locked);
    vm->is_locked = false;
    waitq_wake_one(&vm->lock_queue);
}

void vm_unlock_p(struct vm **vm)
{
    if (*vm)
        vm_unlock(*vm);
}

struct vm *vm_locked(struct vm *vm)
{
    vm_lock(vm);
    return vm;
}

int vm_wait_change(struct vm *vm, uint64_t deadline_ms)
{
    return waitq_wait(&vm->changed, deadline_ms);
}

void vm_set_state(struct vm *vm, enum guest_state state)
{
    vm->state = state;
    waitq_wake_all(&vm->changed);
}

struct ledger_vm vm_row(const struct vm *vm)
{
    const struct ledger_vm *row = ledger_vm(vm->agent->ledger, vm->uuid);

    return row ? *row : (struct ledger_vm){.vm = vm->uuid, .progress = VM_NONE, .domid = -1};
}

void vm_put(struct vm *vm, uint64_t epoch, enum vm_progress progress)
{
    struct ledger_vm row = vm_row(vm);

    row.epoch = epoch;
    row.progress = progress;
    row.domid = vm->domid;
    row.change[0] = '\0';
    ledger_put_vm(vm->agent->ledger, &row);
}

/* ---- answers ---- */

const char *guest_state_text(enum guest_state state)
{
    static const char *const texts[] = {
        [GUEST_NONE] = "ended",      [GUEST_RECEIVING] = "receiving", [GUEST_PAUSED] = "paused",
        [GUEST_RUNNING] = "running", [GUEST_SENT] = "sent",           [GUEST_ENDED] = "ended",
    };

    return texts[state];
}

struct value vm_answer(struct op *op, const struct vm *vm)
{
    return op_map(op, "state", guest_state_text(vm->state), "domid", op_text(op, "%lld", (long long) vm->domid), NULL);
}

int vm_bad_state(struct op *op, const struct vm *vm, const char *expected)
{
    static const char *const wire[] = {
        [GUEST_NONE] = "halted",     [GUEST_RECEIVING] = "halted", [GUEST_PAUSED] = "paused",
        [GUEST_RUNNING] = "running", [GUEST_SENT] = "paused",      [GUEST_ENDED] = "halted",
    };

    return op_fail(op, VM_BAD_POWER_STATE, vm->text, expected, wire[vm->state]);
}

int op_check_master(struct op *op)
{
    if (op->epoch == ledger_epoch(op->agent->ledger))
        return 0;
    return op_fail(op, INTERNAL_ERROR, "the master that asked for this is not followed any more");
}

int vm_check_epoch(struct op *op, const struct vm *vm, int64_t epoch)
{
#ifndef DROVER_BUG_epoch_check_off
    uint64_t seen = vm_row(vm).epoch;

    if (epoch <= 0 || (uint64_t) epoch < seen)
        return op_fail(op, INTERNAL_ERROR,
                       op_text(op, "VM %s: epoch %lld is below %llu, which was seen here", vm->text, (long long) epoch,
                               (unsigned long long) seen));
#else
    (void) op;
    (void) vm;
    (void) epoch;
#endif
    return 0;
}

int vm_take(struct op *op, const char *uuid, int64_t epoch, struct vm **ret_locked)
{
    struct vm *vm = vm_named(op, uuid);

    if (!vm)
        return -op->failure.code;
    *ret_locked = vm_locked(vm);
    return vm_check_epoch(op, vm, epoch);
}

/* ---- the driver's operations ---- */

struct driving {
    struct op *op;         /* whose; its id goes with progress. NULL: nobody waits any more */
    struct vm *vm;
    bool is_done;
    int result;
    char text[256];
    struct waitq done;
};

static ref_t driving_key(uint64_t number)
{
    return (ref_t){1, number};
}

uint64_t driving_begin(struct agent *agent, struct op *op, struct vm *vm)
{
    struct driving *driving;
    uint64_t number;

    op_write_down(op);
    driving = new0(struct driving);
    number = ++agent->driving_last;
    driving->op = op;
    driving->vm = vm;
    refmap_put(&agent->driving, driving_key(number), driving);
    return number;
}

/* The driver has a code and a text for people; its row wants to know what it is about. What has no place for the text is told
 * to the log. */
static int driver_failed(struct op *op, const struct vm *vm, int result, const char *text)
{
    log_info(vm->text, "the hypervisor: %s", text);
    switch (-result) {
    case ERR_VM_BAD_POWER_STATE:
        return vm_bad_state(op, vm, "running");
    case ERR_TASK_CANCELLED:
        return op_fail(op, TASK_CANCELLED, op->id_text);
    case ERR_HOST_STILL_BOOTING:
        return op_fail(op, HOST_STILL_BOOTING);
    case ERR_SR_BACKEND_FAILURE:
        return op_fail(op, SR_BACKEND_FAILURE, op_text(op, "%d", EIO), "", text);
    case ERR_INVALID_VALUE: /* the options are all that a driver reads */
        return op_fail(op, INVALID_VALUE, "other_config", text);
    case ERR_DOMAIN_EXISTS:
        return op_fail(op, DOMAIN_EXISTS, vm->text, op_text(op, "%lld", (long long) vm->domid));
    case ERR_OTHER_OPERATION_IN_PROGRESS:
        return op_fail(op, OTHER_OPERATION_IN_PROGRESS, "VM", vm->text, "", "");
    case ERR_VM_MIGRATE_FAILED:
        return op_fail(op, VM_MIGRATE_FAILED, vm->text, "", "", text);
    case ERR_HOST_NOT_ENOUGH_FREE_MEMORY: /* how much that guest wants its caller knows */
        return op_fail(op, HOST_NOT_ENOUGH_FREE_MEMORY, "0", "0");
    case ERR_DEVICE_DETACH_REJECTED: /* which device that is, too (vm_devices.c) */
        return op_fail(op, DEVICE_DETACH_REJECTED, "", "", text);
    case ERR_DEVICE_ALREADY_EXISTS:
        return op_fail(op, DEVICE_ALREADY_EXISTS, "");
    case ERR_INVALID_DEVICE:
        return op_fail(op, INVALID_DEVICE, "");
    case ERR_BOOTLOADER_FAILED:
        return op_fail(op, BOOTLOADER_FAILED, vm->text, text);
    case ERR_FAILED_TO_START_EMULATOR:
        return op_fail(op, FAILED_TO_START_EMULATOR, vm->text, "", text);
    case ERR_INTERNAL_ERROR:
        return op_fail(op, INTERNAL_ERROR, text);
    default:
        return op_fail(op, INTERNAL_ERROR, op_text(op, "the hypervisor failed: %s", text));
    }
}

int driving_wait(struct op *op, struct vm *vm, uint64_t number, int started)
{
    struct agent *agent = op->agent;
    struct driving *driving = refmap_get(&agent->driving, driving_key(number));
    int result = started;

    if (started == 0) {
        fiber_uncancellable_begin();
        while (!driving->is_done)
            waitq_wait(&driving->done, 0);
        fiber_uncancellable_end();
        result = driving->result;
    }
    refmap_take(&agent->driving, driving_key(number));
    if (result < 0)
        result = driver_failed(op, vm, result, driving->text[0] ? driving->text : "refused at once");
    free(driving);
    return result;
}

static void on_done(void *arg, uint64_t number, int result, const char *text)
{
    struct agent *agent = arg;
    struct driving *driving = refmap_get(&agent->driving, driving_key(number));

    if (!driving || driving->is_done)
        return;
    driving->is_done = true;
    driving->result = result;
    snprintf(driving->text, sizeof driving->text, "%s", text ? text : "");
    waitq_wake_all(&driving->done);
}

static void on_progress(void *arg, uint64_t number, double share)
{
    struct agent *agent = arg;
    struct driving *driving = refmap_get(&agent->driving, driving_key(number));
    struct value items[4], body = VALUE_MAP(2, items);

    if (!driving || driving->is_done)
        return;
    items[0] = value_text("operation");
    items[1] = value_text(driving->op->id_text);
    items[2] = value_text("share");
    items[3] = VALUE_FLOAT(share);
    agent_note(agent, "progress", driving->vm->uuid, driving->vm->guest_epoch, &body, true);
}

/* ---- guests change by themselves ---- */

/* As the note "guest" has it; "" for an end that somebody ordered. */
static const char *change_text(enum guest_change change)
{
    switch (change) {
    case GUEST_SHUT_DOWN:
        return "shut_down";
    case GUEST_REBOOTED:
        return "rebooted";
    case GUEST_CRASHED:
        return "crashed";
    case GUEST_VANISHED:
        return "vanished";
    default:
        return "";
    }
}

struct ending {
    struct agent *agent;
    ref_t vm;
    uint64_t epoch;
    enum guest_change change;
    int64_t domid;
};

/* Told once it is written down. */
static void ending_main(void *arg)
{
    struct ending *ending = arg;
    struct value items[] = {
        value_text("change"), value_text(change_text(ending->change)),
        value_text("domid"), VALUE_INT(ending->domid),
    };
    struct value body = VALUE_MAP(2, items);

    ledger_sync(ending->agent->ledger);
    agent_note(ending->agent, "guest", ending->vm, ending->epoch, &body, false);
    free(ending);
}

void vm_tell_ended(struct vm *vm, uint64_t epoch, enum guest_change change)
{
    struct ending *ending = new0(struct ending);
    struct ledger_vm row;

    vm_put(vm, epoch, VM_ENDED);
    row = vm_row(vm);
    snprintf(row.change, sizeof row.change, "%s", change_text(change));
    ledger_put_vm(vm->agent->ledger, &row);
    *ending = (struct ending){vm->agent, vm->uuid, epoch, change, vm->domid};
    if (!fiber_spawn(vm->agent->loop, ending_main, ending, "guest ended"))
        free(ending); /* hello tells it */
}

static void on_changed(void *arg, ref_t uuid, uint64_t epoch, enum guest_change change)
{
    struct agent *agent = arg;
    struct vm *vm = vm_of(agent, uuid);
    struct ledger_vm row = vm_row(vm);

    (void) epoch; /* the driver's; ours may have risen since, when a move was taken back */
    if (vm->state == GUEST_NONE || vm->state == GUEST_ENDED)
        return;
    log_info(vm->text, "the guest has ended by itself (%d)", (int) change);
    vm->ended_by = change;
    vm_set_state(vm, GUEST_ENDED);
    if (row.progress == VM_RECEIVING)
        return; /* a copy that came to nothing; receive_wait sees it */
    if (vm->is_being_killed)
        vm_put(vm, row.epoch, VM_ENDED); /* the operation that does it tells it */
    else
        vm_tell_ended(vm, row.epoch, change);
}

/* Guests that ended with it are told behind this: the master looks for another host then. */
static void on_reachable(void *arg, bool is_reachable)
{
    struct agent *agent = arg;
    struct value items[] = {value_text("state"), value_text(is_reachable ? "there" : "away")}, body = VALUE_MAP(1, items);

    if (!agent->is_adopted || agent->is_driver_away == !is_reachable)
        return;
    agent->is_driver_away = !is_reachable;
    log_info(NULL, is_reachable ? "guests can be made here again" : "no guests can be made here for now");
    agent_note(agent, "hypervisor", NULL_REF, 0, &body, true);
}

/* ---- adopting ---- */

static void on_found(void *arg, const struct guest_found *found)
{
    struct vm *vm = vm_of(arg, found->vm);

    vm->state = found->state;
    vm->guest_epoch = found->epoch;
    vm->domid = found->domid;
    vm->ended_by = found->ended_by;
}

/* What the driver says and what is written down, brought together after a restart. */
static void adopt_vm(struct agent *agent, struct vm *vm)
{
    struct ledger_vm row = vm_row(vm);
    enum vm_progress before = row.progress;

    if (row.domid > (int64_t) ledger_meta_number(agent->ledger, "domid"))
        ledger_put_meta_number(agent->ledger, "domid", (uint64_t) row.domid);
    if (row.epoch < vm->guest_epoch) { /* written down before the driver was told; else the ledger is not this host's */
        log_error(vm->text, "a guest of epoch %llu is above the ledger's %llu", (unsigned long long) vm->guest_epoch,
                  (unsigned long long) row.epoch);
        row.epoch = vm->guest_epoch;
        row.progress = VM_RAN;
    }
    switch (vm->state) {
    case GUEST_SENT:
        if (row.progress == VM_RAN)
            row.progress = VM_PAUSED_FOR_MOVE; /* the promise that its last agent was about to give */
        break; /* aborted: the VM has gone on, and back; what was sent then is of no right any more */
    case GUEST_RUNNING:
        if (row.progress == VM_STARTING || row.progress == VM_PAUSED_FOR_MOVE)
            row.progress = VM_RAN;
        break;
    case GUEST_RECEIVING: /* the driver gives it up by itself: its agent is gone */
    case GUEST_PAUSED:    /* received, or starting, or paused */
        break;
    case GUEST_ENDED:
    case GUEST_NONE:
        if (row.progress == VM_RAN && vm->state == GUEST_ENDED)
            snprintf(row.change, sizeof row.change, "%s", change_text(vm->ended_by));
        if (row.progress == VM_RAN || row.progress == VM_PAUSED_FOR_MOVE)
            row.progress = VM_ENDED;
        if (row.progress == VM_RECEIVING) {
            row.progress = VM_ABORTED;
            memcpy(row.aborted, row.move, sizeof row.aborted);
        }
        break;
    }
    if (vm->domid > 0)
        row.domid = vm->domid;
    if (row.progress != before || row.progress != VM_NONE)
        ledger_put_vm(agent->ledger, &row);
    log_info(vm->text, "adopted: guest %s, epoch %llu, %s", guest_state_text(vm->state),
             (unsigned long long) row.epoch, vm_progress_text(row.progress));
}

bool vms_adopt(struct agent *agent)
{
    const struct ledger_vm *row;
    void *vm;
    ref_t key;

    if (agent->hypervisor->list(agent->hypervisor, on_found, agent) < 0)
        return false;
    for (size_t at = 0; (row = ledger_each_vm(agent->ledger, &at));)
        if (row->progress != VM_ENDED && row->progress != VM_ABORTED && row->progress != VM_NONE)
            vm_of(agent, row->vm);
    for (size_t at = 0; refmap_each(&agent->vms, &at, &key, &vm);)
        adopt_vm(agent, vm);
    return true;
}

/* ---- hello ---- */

static struct value report_vm(const struct vm *vm, struct arena *arena)
{
    struct ledger_vm row = vm_row(vm);
    struct value *items = arena_alloc_array(arena, 12 + VM_DEVICE_ITEMS, sizeof *items);

    items[0] = value_text("vm");
    items[1] = VALUE_REF(vm->uuid);
    items[2] = value_text("epoch");
    items[3] = VALUE_INT((int64_t) row.epoch);
    items[4] = value_text("state");
    items[5] = value_text(guest_state_text(vm->state));
    items[6] = value_text("progress");
    items[7] = value_text(vm_progress_text(row.progress));
    items[8] = value_text("move");
    items[9] = value_text(arena_strdup(arena, row.move));
    items[10] = value_text("domid");
    items[11] = VALUE_INT(vm->domid);
    return VALUE_MAP(6 + vm_devices_report(vm, arena, items + 12) / 2, items);
}

struct value vms_report(struct agent *agent, struct arena *arena)
{
    struct value *items = arena_alloc_array(arena, agent->vms.count, sizeof *items);
    uint32_t count = 0;
    void *value;
    ref_t key;

    for (size_t at = 0; refmap_each(&agent->vms, &at, &key, &value);) {
        const struct vm *vm = value;
        struct ledger_vm row = vm_row(vm);

        if (vm->state != GUEST_NONE || (row.progress != VM_ENDED && row.progress != VM_ABORTED && row.progress != VM_NONE))
            items[count++] = report_vm(vm, arena);
    }
    return VALUE_SET(count, items);
}

/* ---- set up ---- */

void vms_init(struct agent *agent)
{
    agent->hypervisor->events = (struct hypervisor_events){
        .done = on_done,
        .progress = on_progress,
        .changed = on_changed,
        .reachable = on_reachable,
        .arg = agent,
    };
}

void vms_done(struct agent *agent)
{
    void *value;
    ref_t key;

    for (size_t at = 0; refmap_each(&agent->vms, &at, &key, &value);) {
        receive_destroy(value);
        free(value);
    }
    for (size_t at = 0; refmap_each(&agent->driving, &at, &key, &value);)
        free(value);
    refmap_done(&agent->vms);
    refmap_done(&agent->driving);
}
