/* guest_strays.c - guests that a host has and, by the model, should not have
 *
 *   a copy that arrives, of a move that is over    called off
 *   a guest whose right is elsewhere, or over      ended and forgotten, at the model's epoch
 *   a guest at the model's own epoch, of a VM that  believed: nothing but the model's own right
 *   the model has halted                           can have made it run
 *   a guest of a VM that the model does not know   left alone, and told
 *
 * A hello is only a reason to look (guest_changes.c): what it says may be over by the time that it
 * is read. So whatever is done rests on the model and on the host as they are then. */
#include "master/guests_internal.h"

#include <errno.h>
#include <stdio.h>

#include "master/attached.h"
#include "master/background.h"
#include "master/claim.h"
#include "master/core.h"
#include "master/message.h"
#include "master/put.h"
#include "master/slaves.h"
#include "master/vm_state.h"
#include "master/vm_work.h"
#include "shared/fiber.h"
#include "shared/log.h"

/* Between two attempts to remove a guest that should not be there. */
#define STRAY_FIRST_MS 1000
#define STRAY_LAST_MS  60000

static void tell_unknown(struct core *core, ref_t host_ref, const char *uuid)
{
    struct txn *txn = store_begin(core->store);
    const struct object *host = txn_get(txn, host, host_ref);
    struct arena *arena = arena_new();

    if (host)
        message_raise(txn, core, "VM_UNKNOWN", MESSAGE_HOST_PRIORITY, cls_Host, host_get_uuid(host),
                      arena_text(arena, "Host '%s' runs a guest %s that the pool does not know",
                                 host_get_name_label(host), uuid));
    store_apply(&txn);
    arena_destroy(&arena);
}

/* A guest, or a copy of one, that is on a host without the right to be. */
struct stray {
    ref_t host, vm_uuid;
    uint64_t epoch;
    char move[UUID_TEXT_BYTES]; /* a copy that arrives for this move; "": a guest */
};

static const struct object *vm_of(struct call *call, const struct stray *stray)
{
    char uuid[UUID_TEXT_BYTES];

    return view_by_uuid(call_view(call), CLASS_OF(VM), uuid_print(uuid, stray->vm_uuid));
}

/* Is it being started there? Then the model's epoch is that of the new guest. */
static bool is_starting(struct call *call, ref_t vm, ref_t host)
{
    const struct object *intent = intent_of_vm(call_view(call), vm);

    return intent && ref_is_null(intent_get_source(intent))
           && ref_equal(intent_get_destination(intent), host);
}

/* A copy is called off, so that its epoch may arrive there again; a guest is ended at the model's
 * epoch, so that nothing below it ever runs there. 0 when nothing of it is left. */
static int stray_drop(struct call *call, const struct stray *stray)
{
    const struct object *vm = vm_of(call, stray);
    char uuid[UUID_TEXT_BYTES];
    int64_t epoch = MAX((int64_t) stray->epoch, vm ? VM_get_epoch(vm) : 0);
    int r;

    uuid_print(uuid, stray->vm_uuid);
    if (*stray->move)
        return slave_vm_receive_abort(
            call, stray->host,
            &(struct slave_vm_receive_abort_args){uuid, (int64_t) stray->epoch, stray->move}, NULL);
    if (vm && ref_equal(VM_get_resident_on(vm), stray->host))
        return 0; /* it has got the right meanwhile, */
    if (vm && is_starting(call, vm->ref, stray->host))
        return 0; /* or is about to: nothing older is left of it then */
    r = slave_vm_kill(call, stray->host, &(struct slave_vm_kill_args){uuid, epoch}, NULL);
    return r < 0 ? r
                 : slave_vm_forget(call, stray->host, &(struct slave_vm_forget_args){uuid, epoch},
                                   NULL);
}

/* Old records may say that the VM is resident on this host, and a copy that was to arrive there has hidden that it is not. */
static void look_behind(struct call *call, const struct stray *stray)
{
    const struct object *vm = vm_of(call, stray);

    if (*stray->move && vm && ref_equal(VM_get_resident_on(vm), stray->host))
        guest_compare_later(call->core, vm->ref);
}

/* Until it is gone, or its host is: that shows it again when it comes back. */
static void stray_main(struct call *call, void *arg)
{
    struct stray *stray = arg;
    uint64_t wait_ms = STRAY_FIRST_MS;
    char uuid[UUID_TEXT_BYTES];

    while (stray_drop(call, stray) < 0 && slave_is_linked(call->core->slaves, stray->host)) {
        log_warning(call->tag,
                    "guest %s has no right to be on its host, and could not be removed: %s",
                    uuid_print(uuid, stray->vm_uuid), call->failure.text);
        if (fiber_sleep(wait_ms) < 0)
            break;
        wait_ms = MIN(2 * wait_ms, (uint64_t) STRAY_LAST_MS);
    }
    look_behind(call, stray);
    free(stray);
}

void guest_remove_later(struct core *core, ref_t host, ref_t vm_uuid, uint64_t epoch,
                        const char *move)
{
    struct stray *stray = new0(struct stray);

    *stray = (struct stray){host, vm_uuid, epoch, ""};
    if (move)
        snprintf(stray->move, sizeof stray->move, "%s", move);
    background_run(core, "stray guest", "", stray_main, stray);
}

static bool is_halted_at(const struct object *vm, uint64_t epoch)
{
    return vm && (uint64_t) VM_get_epoch(vm) == epoch && ref_is_null(VM_get_resident_on(vm))
           && VM_get_power_state(vm) == vm_power_state_Halted;
}

/* Claim the VM when nobody works on it any more. False when the model has changed its mind. */
static bool claim_halted(struct call *call, const struct stray *stray, struct claim *claim)
{
    const struct object *vm;

    while (is_halted_at(vm = vm_of(call, stray), stray->epoch)) {
        struct txn *txn = store_begin(call->core->store);
        int r = claim_take_txn(claim, call, txn, CLASS_OF(VM), vm->ref, vm_operations_start, false);

        if (r == 0) {
            call->depends = MAX(call->depends, store_apply(&txn));
            return true;
        }
        txn_end(&txn);
        if (claim_wait_object(call, vm->ref, 0) < 0)
            return false;
    }
    return false;
}

/* 0: it runs there, and the model says so now. */
static int adopt(struct call *call, const struct stray *stray)
{
    _cleanup_(claim_end) struct claim claim = {0};
    struct value state = VALUE_VOID;
    char uuid[UUID_TEXT_BYTES];
    struct slave_vm_ask_args args = {uuid_print(uuid, stray->vm_uuid)};
    const char *text;
    struct txn *txn;

    if (!claim_halted(call, stray, &claim) || slave_vm_ask(call, stray->host, &args, &state) < 0
        || !is_halted_at(vm_of(call, stray), stray->epoch))
        return -EAGAIN;
    text = value_map_text(&state, "state", "");
    if (strtoull(value_map_text(&state, "epoch", "0"), NULL, 10) != stray->epoch
        || !streq(value_map_text(&state, "progress", ""), "ran")
        || (!streq(text, "running") && !streq(text, "paused")))
        return -EAGAIN;
    log_warning(call->tag, "VM %s runs although the model had it halted; believed",
                VM_get_uuid(vm_of(call, stray)));
    txn = store_begin(call->core->store);
    vm_put_reserved(txn, claim.ref, true);
    vm_put_booted(txn, call->core, claim.ref, stray->host, answer_domid(&state),
                  streq(text, "paused"));
    attached_put(txn, claim.ref, value_map_text(&state, "disks", NULL), value_map_text(&state, "nics", NULL));
    claim_end_txn(&claim, txn);
    call_commit(call, &txn);
    return 0;
}

/* The model says that it runs nowhere, and yet nothing of its epoch can run but by the model's own
 * right: it is the VM - if it is still there. The hello may be older than what ended it. */
static void adopt_main(struct call *call, void *arg)
{
    struct stray *stray = arg;

    if (adopt(call, stray) < 0) /* what is left of it goes, unless it has got the right meanwhile */
        guest_remove_later(call->core, stray->host, stray->vm_uuid, stray->epoch, NULL);
    free(stray);
}

static void adopt_later(struct core *core, ref_t host, const struct slave_guest *guest)
{
    struct stray *stray = new0(struct stray);

    *stray = (struct stray){host, guest->vm_uuid, guest->epoch, ""};
    background_run(core, "guest", "", adopt_main, stray);
}

void stray_look_at(struct core *core, ref_t host, const struct slave_guest *guest)
{
    const struct view *view = store_core_view(core->store);
    bool is_ended = streq(guest->state, "ended") || streq(guest->state, "none");
    bool is_copy = streq(guest->progress, "receiving");
    const struct object *intent;
    char uuid[UUID_TEXT_BYTES];
    const struct object *vm = view_by_uuid(view, CLASS_OF(VM), uuid_print(uuid, guest->vm_uuid));

    if (!vm) {
        if (is_ended || is_copy)
            guest_remove_later(core, host, guest->vm_uuid, guest->epoch,
                               is_copy ? guest->move : NULL);
        else
            tell_unknown(core, host, uuid);
        return;
    }
    intent = intent_of_vm(view, vm->ref);
    if (ref_equal(VM_get_resident_on(vm), host) && guest->epoch == (uint64_t) VM_get_epoch(vm))
        return; /* compare_residents() has seen to it */
    if (intent
        && (ref_equal(intent_get_source(intent), host)
            || ref_equal(intent_get_destination(intent), host)))
        return; /* someone is at work with it, or recovery.c will be */
    if (!is_ended && !intent && is_halted_at(vm, guest->epoch) && streq(guest->progress, "ran")) {
        adopt_later(core, host, guest);
        return;
    }
    guest_remove_later(core, host, guest->vm_uuid, guest->epoch, is_copy ? guest->move : NULL);
}
