/* guest_changes.c - guests change by themselves, and hosts come back with other guests than the
 * model knows
 *
 *   note "guest"   {change: shut_down|rebooted|crashed|vanished, domid}
 *                  a guest ended: follow what the VM's owner wants then
 *   hello          what really runs on the host: compare with the model, VM by VM; how a guest ended that nobody was told of,
 *                  the host says when it is asked
 *
 * Either is only a reason to look: it may be old when it comes. So the VM is claimed, which keeps
 * everybody else away, then its host is asked, and only what it says then is written down. And as
 * an operation may still be under way there that nobody here waits for any more - a reboot that was
 * overtaken - no VM becomes Halted by what a host says: first the host has forgotten the guest, and
 * thereby its epoch is over there for good (docs/protocol.md, Notes). What is to begin anew does so in
 * guest_again.c.
 *
 * The master believes hosts about what runs, and the model about who owns it (design.md section 5).
 * So a VM that should run on the host and does not is Halted; a guest that runs there without the
 * right to is ended by the master's word; and what an operation is working on is left to that
 * operation - or, if nobody works on it, to recovery.c. Epochs above the model's were committed
 * before we are called. */
#include "master/guests_internal.h"

#include <stdio.h>

#include "master/attached.h"
#include "master/background.h"
#include "master/claim.h"
#include "master/core.h"
#include "master/lost_move.h"
#include "master/message.h"
#include "master/put.h"
#include "master/recovery.h"
#include "master/slaves.h"
#include "master/VM_power.h"
#include "master/vm_state.h"
#include "shared/fiber.h"
#include "shared/log.h"

/* Between two attempts to have a host forget a guest that has ended. */
#define FORGET_FIRST_MS 1000
#define FORGET_LAST_MS  60000

struct guests *guests_new(struct core *core)
{
    (void) core;
    return new0(struct guests);
}

void guests_destroy(struct guests **guests_p)
{
    struct guests *guests = TAKE(*guests_p);
    void *bounce;

    if (!guests)
        return;
    for (size_t i = 0; refmap_each(&guests->bounces, &i, NULL, &bounce);)
        free(bounce);
    refmap_done(&guests->bounces);
    for (size_t i = 0; refmap_each(&guests->usages, &i, NULL, &bounce);)
        free(bounce);
    refmap_done(&guests->usages);
    for (size_t i = 0; refmap_each(&guests->lost_moves, &i, NULL, &bounce);)
        free(bounce);
    refmap_done(&guests->lost_moves);
    free(guests);
}

/* ---- a guest that has ended ---- */

static const struct object *vm_of(struct call *call, const struct ward *ward)
{
    char uuid[UUID_TEXT_BYTES];

    return view_by_uuid(call_view(call), CLASS_OF(VM), uuid_print(uuid, ward->vm_uuid));
}

/* Is this still about the guest that the model knows? A reboot goes on at the same epoch, with a
 * new guest of a higher number. */
static bool is_current(const struct object *vm, const struct ward *ward)
{
    return vm && (uint64_t) VM_get_epoch(vm) == ward->epoch
           && ref_equal(VM_get_resident_on(vm), ward->host)
           && (ward->domid <= 0 || ward->domid >= VM_get_domid(vm))
           && (VM_get_power_state(vm) == vm_power_state_Running
               || VM_get_power_state(vm) == vm_power_state_Paused);
}

/* A guest may end before the record says that it runs: its start is concluded later than it is told. */
bool ward_wait_until_idle(struct call *call, const struct ward *ward, ref_t *ret_vm)
{
    const struct object *vm;

    while ((vm = vm_of(call, ward)) && (uint64_t) VM_get_epoch(vm) == ward->epoch) {
        *ret_vm = vm->ref;
        if (VM_get_current_operations(vm)->length == 0)
            return is_current(vm, ward);
        if (claim_wait_object(call, vm->ref, 0) < 0)
            return false;
    }
    return false;
}

static uint64_t epoch_of(const struct value *state)
{
    return strtoull(value_map_text(state, "epoch", "0"), NULL, 10);
}

static bool is_at_epoch(const struct value *state, uint64_t epoch)
{
    return epoch_of(state) == epoch;
}

bool ward_claim_when_idle(struct call *call, const struct ward *ward, struct claim *claim)
{
    ref_t vm;

    while (ward_wait_until_idle(call, ward, &vm)) {
        struct txn *txn = store_begin(call->core->store);
        int r =
            claim_take_txn(claim, call, txn, CLASS_OF(VM), vm, vm_operations_clean_shutdown, false);

        if (r == 0) {
            call->depends = MAX(call->depends, store_apply(&txn));
            return true;
        }
        txn_end(&txn);
    }
    return false;
}

/* What the host has of it now. With the claim. */
static int ask(struct call *call, const struct ward *ward, struct value *ret_state)
{
    char uuid[UUID_TEXT_BYTES];

    return slave_vm_ask(call, ward->host,
                        &(struct slave_vm_ask_args){uuid_print(uuid, ward->vm_uuid)}, ret_state);
}

int ward_forget(struct call *call, const struct ward *ward, uint64_t epoch)
{
    char uuid[UUID_TEXT_BYTES];

    return slave_vm_forget(
        call, ward->host,
        &(struct slave_vm_forget_args){uuid_print(uuid, ward->vm_uuid), (int64_t) epoch}, NULL);
}

static void put_ended(struct call *call, struct claim *claim, const struct ward *ward)
{
    struct txn *txn = store_begin(call->core->store);
    ref_t vm = claim->ref;

    if (ward->ending == ENDING_CRASHED || ward->ending == ENDING_VANISHED)
        message_about_vm(txn, call->core, "VM_CRASHED", MESSAGE_VM_CRASHED_PRIORITY, vm, ward->host,
                         "has crashed");
    else
        message_about_vm(txn, call->core, "VM_SHUTDOWN", MESSAGE_VM_PRIORITY, vm, ward->host,
                         ward->ending == ENDING_LOST ? "was lost" : "has shut down");
    vm_put_halted(txn, vm);
    claim_end_txn(claim, txn);
    call_commit(call, &txn);
}

/* It is there: the record says how. */
static void put_present(struct call *call, struct claim *claim, const struct value *state)
{
    struct txn *txn = store_begin(call->core->store);

    VM_put_power_state(txn, claim->ref,
                       answer_state(state) == GUEST_IS_PAUSED ? vm_power_state_Paused
                                                              : vm_power_state_Running);
    VM_put_domid(txn, claim->ref, answer_domid(state));
    attached_put(txn, claim->ref, value_map_text(state, "disks", NULL),
                 value_map_text(state, "nics", NULL));
    claim_end_txn(claim, txn);
    call_commit(call, &txn);
}

/* The host would not forget it: it has begun it anew meanwhile, or there is trouble. True: look
 * again. */
static bool after_refusal(struct call *call, struct ward *ward, struct claim *claim)
{
    char uuid[UUID_TEXT_BYTES];

    claim_end(claim);
    if (call->failure.code == ERR_VM_BAD_POWER_STATE)
        return true;
    if (!slave_is_linked(call->core->slaves, ward->host))
        return false; /* its hello is the next reason to look */
    log_warning(call->tag, "VM %s has ended, and its host cannot forget it: %s",
                uuid_print(uuid, ward->vm_uuid), call->failure.text);
    ward->wait_ms = ward->wait_ms ? MIN(2 * ward->wait_ms, (uint64_t) FORGET_LAST_MS)
                                  : FORGET_FIRST_MS;
    return fiber_sleep(ward->wait_ms) == 0;
}

/* One look, with the claim. True: look again. */
static bool look_claimed(struct call *call, struct ward *ward, struct claim *claim)
{
    struct value state = VALUE_VOID;
    const struct object *vm;
    ref_t ref = claim->ref;
    const char *text;
    bool is_left_over;

    if (ask(call, ward, &state) < 0)
        return false; /* away, or the claim was overtaken: its hello, or who overtook it, sees to it
                       */
    vm = view_get(call_view(call), VM, ref);
    if (!is_current(vm, ward)) /* halted by decree while we asked */
        return false;
    text = value_map_text(&state, "state", "");
    /* The VM has gone on since it was sent, and was on its way back when that was called off. */
    is_left_over = streq(text, "sent") && streq(value_map_text(&state, "progress", ""), "aborted");
    if (epoch_of(&state) > ward->epoch && !streq(text, "ended") && !streq(text, "none") && !is_left_over)
        return false; /* these records are old: its hello proves it */
    if (!is_at_epoch(&state, ward->epoch) || streq(text, "none") || is_left_over) {
        if (ward->ending == ENDING_NONE)
            ward->ending = ENDING_LOST; /* with its host: nobody wants it to begin anew unasked */
    } else if (streq(text, "running") || streq(text, "paused")) {
        put_present(call, claim, &state);
        return false;
    } else if (streq(text, "sent")) { /* and nobody works on it */
        lost_move_undo(call->core, ward->host, ward->vm_uuid, ward->epoch, value_map_text(&state, "move", ""));
        return false;
    } else if (!streq(text, "ended")) {
        return false; /* on its way */
    } else if (ward->domid > 0 && answer_domid(&state) > ward->domid) {
        return false; /* a later guest has ended as well: that is told, too */
    } else if (ward->ending == ENDING_NONE) {
        ward->ending = ending_named(value_map_text(&state, "change", ""));
        if (ward->ending == ENDING_NONE) /* with its host, or by somebody's order */
            ward->ending = ENDING_SHUT_DOWN;
    }
    if (ward_wants_restart(vm, ward)) {
        ward_begin_anew(call, claim, ward);
    } else if (ward_forget(call, ward, MAX(ward->epoch, epoch_of(&state))) == 0) {
        put_ended(call, claim, ward);
    } else {
        return after_refusal(call, ward, claim);
    }
    return false;
}

static void look_after(struct call *call, struct ward *ward)
{
    bool again;

    do {
        _cleanup_(claim_end) struct claim claim = {0};

        again = ward_claim_when_idle(call, ward, &claim) && look_claimed(call, ward, &claim);
    } while (again);
}

static void look_after_main(struct call *call, void *arg)
{
    struct ward *ward = arg;

    look_after(call, ward);
    free(ward);
}

static void look_after_later(struct core *core, const struct ward *ward)
{
    struct ward *own = new0(struct ward);

    *own = *ward;
    background_run(core, "guest", "", look_after_main, own);
}

static void compare_later(struct core *core, ref_t host, const struct object *vm)
{
    struct ward ward = {
        .host = host, .epoch = (uint64_t) VM_get_epoch(vm), .ending = ENDING_NONE};

    if (uuid_parse(VM_get_uuid(vm), strlen(VM_get_uuid(vm)), &ward.vm_uuid))
        look_after_later(core, &ward);
}

void guest_compare_later(struct core *core, ref_t vm_ref)
{
    const struct object *vm = view_get(store_core_view(core->store), VM, vm_ref);

    if (vm && !ref_is_null(VM_get_resident_on(vm)))
        compare_later(core, VM_get_resident_on(vm), vm);
}

static void on_guest(struct core *core, const struct slave_note *note)
{
    const struct value *domid = value_map_find(note->body, "domid");
    struct ward ward = {
        .host = note->host,
        .vm_uuid = note->vm_uuid,
        .epoch = note->epoch,
        .ending = ending_named(value_map_text(note->body, "change", "")),
        .domid = domid && domid->kind == KIND_INT ? domid->i : 0,
    };

    if (ward.ending != ENDING_NONE)
        look_after_later(core, &ward);
}

/* ---- a host's hello: VMs that should be there ---- */

static const struct slave_guest *guest_of(const struct slave_guest *guests, size_t count,
                                          const struct object *vm)
{
    ref_t uuid;

    if (!uuid_parse(VM_get_uuid(vm), strlen(VM_get_uuid(vm)), &uuid))
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (ref_equal(guests[i].vm_uuid, uuid))
            return &guests[i];
    return NULL;
}

static bool agrees(const struct view *view, const struct object *vm,
                   const struct slave_guest *guest)
{
    if (!guest || guest->epoch != (uint64_t) VM_get_epoch(vm))
        return false;
    return streq(guest->state,
                 VM_get_power_state(vm) == vm_power_state_Paused ? "paused" : "running")
           && attached_agree(view, vm->ref, guest->disks, guest->nics);
}

static void compare_residents(struct core *core, ref_t host, const struct slave_guest *guests,
                              size_t count)
{
    const struct view *view = store_core_view(core->store);
    struct view_iter residents;
    const struct object *vm;

    view_each_inverse(&residents, view, &CLASS_OF(host)->fields[F_host_resident_VMs], host);
    while ((vm = view_next(&residents)))
        if (!VM_get_is_control_domain(vm) && !agrees(view, vm, guest_of(guests, count, vm)))
            compare_later(core, host, vm);
}

/* Those whose start or resume there is under way: what the agent remembers of that operation, and
 * will answer, is how it ended then; the guest may be gone since. */
static void compare_arrivals(struct core *core, ref_t host)
{
    const struct view *view = store_core_view(core->store);
    const struct object *intent, *vm;
    struct view_iter intents;

    view_each(&intents, view, CLASS_OF(intent));
    while ((intent = view_next(&intents))) {
        vm = view_get(view, VM, intent_get_VM(intent));
        if (vm && ref_equal(intent_get_destination(intent), host)
            && intent_get_epoch(intent) == VM_get_epoch(vm))
            compare_later(core, host, vm);
    }
}

/* ---- hello ---- */

static void on_hello(struct core *core, ref_t host, const struct slave_guest *guests, size_t count)
{
    compare_residents(core, host, guests, count);
    compare_arrivals(core, host);
    for (size_t i = 0; i < count; i++)
        stray_look_at(core, host, &guests[i]);
    recovery_host_is_there(core, host);
}

void guests_start(struct core *core)
{
    slaves_on_note(core->slaves, "guest", on_guest);
    samples_start(core);
    slaves_on_hello(core->slaves, on_hello);
    if (!core->read_only_why)
        wards_go_on(core);
}
