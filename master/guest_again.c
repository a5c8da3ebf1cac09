/* guest_again.c - a VM whose guest has ended by itself begins anew, as its owner wants
 *
 *   Running --guest ended--> (waits, if it ran for less than two minutes)
 *      |                        |
 *      |   its host can make guests: a new one there, at the VM's place (VM_power.c, vm_restart)
 *      |                        | failed, or what runs the guests there is away
 *      v                        v
 *   Running <--a start-- Halted, its host has forgotten it
 *                               | no start succeeds for ten minutes: message VM_RESTART_FAILED
 *                               v
 *                            Halted
 *
 * The start is one as by VM.start, wherever the VM may run. It is this VM's as long as nobody else has touched it: a start, an
 * epoch that is not ours, or other wishes for what comes after a crash end the matter. No right is given twice by this: each
 * attempt is an operation like any other, with a claim, an INTENT and an epoch of its own. What is in doubt is waited for.
 *
 * VM.again_after, which says how the guest ended, is the wish in the records: whatever makes the VM run, or ends it for good,
 * takes it away (vm_state.c, and a start that begins), so a new master goes on with those that still have it. */
#include "master/guests_internal.h"

#include "master/background.h"
#include "master/core.h"
#include "master/message.h"
#include "master/put.h"
#include "master/VM_power.h"
#include "master/vm_state.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"

/* A guest that ran for less than this before it wants to begin anew is kept waiting, longer each
 * time. */
#define BOUNCE_RAN_S    120
#define BOUNCE_FIRST_MS 1000
#define BOUNCE_LAST_MS  60000

/* Between two attempts to start what could not be started, and how long that is tried. */
#define AGAIN_FIRST_MS 1000
#define AGAIN_LAST_MS  15000
#define AGAIN_TRIED_MS (10 * 60 * 1000)

/* A VM that begins anew too often. */
struct bounce {
    uint64_t delay_ms;
};

bool ward_wants_restart(const struct object *vm, const struct ward *ward)
{
    switch (ward->ending) {
    case ENDING_SHUT_DOWN:
        return VM_get_actions_after_shutdown(vm) == on_normal_exit_restart;
    case ENDING_REBOOTED:
        return VM_get_actions_after_reboot(vm) == on_normal_exit_restart;
    case ENDING_CRASHED:
    case ENDING_VANISHED:
        return VM_get_actions_after_crash(vm) == on_crash_behaviour_restart
               || VM_get_actions_after_crash(vm) == on_crash_behaviour_coredump_and_restart
               || VM_get_actions_after_crash(vm) == on_crash_behaviour_rename_restart;
    default:
        return false;
    }
}

/* How long the VM has to wait before it begins anew. */
static uint64_t bounce_delay_ms(struct call *call, const struct object *vm)
{
    struct guests *guests = call->core->guests;
    const struct object *metrics = view_get(call_view(call), VM_metrics, VM_get_metrics(vm));
    int64_t ran_s =
        metrics ? clock_utc_s(call->core->clock) - VM_metrics_get_start_time(metrics) : 0;
    struct bounce *bounce = refmap_get(&guests->bounces, vm->ref);

    if (ran_s >= BOUNCE_RAN_S || ran_s < 0) {
        free(refmap_take(&guests->bounces, vm->ref));
        return 0;
    }
    if (!bounce) {
        bounce = new0(struct bounce);
        bounce->delay_ms = BOUNCE_FIRST_MS;
        refmap_put(&guests->bounces, vm->ref, bounce);
        return bounce->delay_ms;
    }
    bounce->delay_ms = MIN(2 * bounce->delay_ms, (uint64_t) BOUNCE_LAST_MS);
    return bounce->delay_ms;
}

static const char *const endings[] = {
    [ENDING_SHUT_DOWN] = "shut_down",
    [ENDING_REBOOTED] = "rebooted",
    [ENDING_CRASHED] = "crashed",
    [ENDING_VANISHED] = "vanished",
};

enum ending ending_named(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(endings); i++)
        if (streq(name, endings[i]))
            return (enum ending) i;
    return ENDING_NONE;
}

/* With the claim, which ends: from now on it is remembered that the VM is to begin anew. */
static void put_wish(struct call *call, struct claim *claim, const struct ward *ward)
{
    struct txn *txn = store_begin(call->core->store);
    ref_t vm = claim->ref;

    if (ward->ending == ENDING_CRASHED || ward->ending == ENDING_VANISHED)
        message_about_vm(txn, call->core, "VM_CRASHED", MESSAGE_VM_CRASHED_PRIORITY, vm, ward->host, "has crashed");
    VM_put_again_after(txn, vm, endings[ward->ending]);
    claim_end_txn(claim, txn);
    call_commit(call, &txn);
}

/* It stays Halted, unless it is somebody else's affair by now; why, for people, or NULL. */
static void drop_wish(struct call *call, ref_t vm_ref, uint64_t epoch, const char *why)
{
    struct txn *txn = store_begin(call->core->store);
    const struct object *vm = txn_get(txn, VM, vm_ref);

    if (vm && VM_get_power_state(vm) == vm_power_state_Halted && (uint64_t) VM_get_epoch(vm) == epoch) {
        VM_put_again_after(txn, vm_ref, "");
        if (why)
            message_about_vm(txn, call->core, "VM_RESTART_FAILED", MESSAGE_VM_CRASHED_PRIORITY, vm_ref, NULL_REF, why);
    }
    call_commit(call, &txn);
}

static const struct object *vm_now(struct call *call, ref_t vm)
{
    return view_get(call_view(call), VM, vm);
}

/* ---- where it was ---- */

static bool can_make_guests(struct call *call, ref_t host_ref)
{
    const struct object *host = view_get(call_view(call), host, host_ref);

    return host && !host_get_guests_away(host);
}

/* Its place and its memory there are given up. False when the matter is settled meanwhile, or cannot be settled: its host's
 * next hello is the next reason to look. */
static bool leave_place(struct call *call, const struct ward *ward)
{
    uint64_t wait_ms = AGAIN_FIRST_MS;

    for (;;) {
        _cleanup_(claim_end) struct claim claim = {0};
        struct txn *txn;

        if (!ward_claim_when_idle(call, ward, &claim))
            return false;
        if (ward_forget(call, ward, ward->epoch) == 0) {
            txn = store_begin(call->core->store);
            vm_put_halted_for_now(txn, claim.ref);
            claim_end_txn(&claim, txn);
            call_commit(call, &txn);
            return true;
        }
        claim_end(&claim);
        if (!slave_is_linked(call->core->slaves, ward->host) || fiber_sleep(wait_ms) < 0)
            return false;
        wait_ms = MIN(2 * wait_ms, (uint64_t) AGAIN_LAST_MS);
    }
}

/* ---- wherever it may run ---- */

/* Halted as our last attempt has left it, and nobody works on it? */
static bool is_left_to_us(struct call *call, ref_t vm_ref, const struct ward *ward, uint64_t epoch)
{
    const struct object *vm;

    while ((vm = vm_now(call, vm_ref)) && VM_get_current_operations(vm)->length > 0)
        if (claim_wait_object(call, vm_ref, 0) < 0)
            return false;
    return vm && VM_get_power_state(vm) == vm_power_state_Halted && (uint64_t) VM_get_epoch(vm) == epoch
           && *VM_get_again_after(vm) && ward_wants_restart(vm, ward);
}

static void start_somewhere(struct call *call, ref_t vm, const struct ward *ward, uint64_t epoch)
{
    uint64_t until_ms = loop_now_ms(call->core->loop) + AGAIN_TRIED_MS, wait_ms = AGAIN_FIRST_MS;
    const char *why = NULL;

    while (is_left_to_us(call, vm, ward, epoch)) {
        call->failure = (struct failure){0};
        if (vm_start_again(call, vm, &epoch) == 0)
            return;
        log_warning(call->tag, "a guest that ended by itself was not started anew: %s", call->failure.text);
        if (loop_now_ms(call->core->loop) >= until_ms) {
            why = arena_text(call->arena, "has ended by itself and cannot be started again: %s", call->failure.text);
            break;
        }
        if (fiber_sleep(wait_ms) < 0)
            return;
        wait_ms = MIN(2 * wait_ms, (uint64_t) AGAIN_LAST_MS);
    }
    drop_wish(call, vm, epoch, why);
}

void ward_begin_anew(struct call *call, struct claim *claim, const struct ward *ward)
{
    uint64_t epoch = ward->epoch;
    ref_t vm = claim->ref;

    put_wish(call, claim, ward);
    if (fiber_sleep(bounce_delay_ms(call, vm_now(call, vm))) < 0 || !ward_wait_until_idle(call, ward, &vm))
        return;
    if (can_make_guests(call, ward->host)) {
        if (vm_restart(call, vm, &epoch) == 0)
            return;
        log_warning(call->tag, "a guest that ended by itself was not started anew where it was: %s", call->failure.text);
    }
    if (epoch == ward->epoch && !leave_place(call, ward)) /* nothing has been tried: it is where it was */
        return;
    start_somewhere(call, vm, ward, epoch);
}

/* ---- what an earlier master was at ---- */

/* Where its guest was is settled by now, or will be by whoever has it claimed. A VM that is still Running is its host's
 * affair: the hello tells of a guest that has ended. */
static void go_on(struct call *call, void *arg)
{
    ref_t *vm_ref = arg;
    const struct object *vm = vm_now(call, *vm_ref);
    struct ward ward = {.ending = ENDING_NONE};

    while (vm && VM_get_current_operations(vm)->length > 0 && claim_wait_object(call, *vm_ref, 0) == 0)
        vm = vm_now(call, *vm_ref);
    if (vm && VM_get_power_state(vm) == vm_power_state_Halted) {
        ward.ending = ending_named(VM_get_again_after(vm));
        start_somewhere(call, *vm_ref, &ward, (uint64_t) VM_get_epoch(vm));
    }
    free(vm_ref);
}

void wards_go_on(struct core *core)
{
    struct view_iter vms;
    const struct object *vm;

    view_each(&vms, store_core_view(core->store), CLASS_OF(VM));
    while ((vm = view_next(&vms))) {
        ref_t *ref;

        if (!*VM_get_again_after(vm))
            continue;
        ref = new0(ref_t);
        *ref = vm->ref;
        background_run(core, "guest", "", go_on, ref);
    }
}
