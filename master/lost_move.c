/* lost_move.c - a guest that was sent for a move which the records do not know of
 *
 * Only a master with an old copy of the records meets this: the move's INTENT is among what they lack. The source promised to
 * stand until the master's word, and it is not known to whom it has sent. So what undoing a move means is done with every
 * host: each confirms that its copy, if it has one, is gone and will never run; then the source runs on. A host that has given
 * the copy a right to run has told so by its VM epoch, and the source is no longer what the model says - unless the guest has
 * ended since and is forgotten, which hellos leave out. Then the host refuses: the copy has run there, or the VM has gone on to
 * higher epochs. The VM is what the host with the highest one has of it. */
#include "master/lost_move.h"

#include <stdio.h>
#include <stdlib.h>

#include "master/awaited.h"
#include "master/background.h"
#include "master/core.h"
#include "master/guests_internal.h"
#include "master/put.h"
#include "master/recovery.h"
#include "master/slaves.h"
#include "master/vm_work.h"
#include "shared/fiber.h"
#include "shared/log.h"

/* Between two rounds, while a host is away. */
#define AGAIN_MS 2000

struct lost_move {
    ref_t source, vm_uuid;
    uint64_t epoch;
    char vm[UUID_TEXT_BYTES], move[UUID_TEXT_BYTES];
};

/* Is it still the source's, and does nobody work on it? */
static bool is_current(struct call *call, const struct lost_move *lost)
{
    const struct object *vm = view_by_uuid(call_view(call), CLASS_OF(VM), lost->vm);

    return vm && ref_equal(VM_get_resident_on(vm), lost->source) && (uint64_t) VM_get_epoch(vm) == lost->epoch
           && !intent_of_vm(call_view(call), vm->ref);
}

/* Where the VM has gone on to. */
struct sequel {
    ref_t host;
    uint64_t epoch; /* 0: nowhere */
    bool has_run;   /* else a copy was to arrive there, so it has run elsewhere before */
};

/* The host would not drop a copy. 0: since the VM has gone on, or may have, at an epoch that it has seen. */
static int find_sequel(struct call *call, const struct lost_move *lost, ref_t host, int refusal, struct sequel *sequel)
{
    struct value state = VALUE_VOID;
    struct sequel here = {.host = host};
    const char *progress;

    if (slave_call_in_doubt(call) || refusal == -ERR_HOST_OFFLINE
        || slave_vm_ask(call, host, &(struct slave_vm_ask_args){lost->vm}, &state) < 0)
        return refusal;
    here.epoch = strtoull(value_map_text(&state, "epoch", "0"), NULL, 10);
    if (here.epoch <= lost->epoch)
        return refusal; /* it could not */
    progress = value_map_text(&state, "progress", "");
    here.has_run = !streq(progress, "receiving") && !streq(progress, "aborted");
    if (here.has_run > sequel->has_run || (here.has_run == sequel->has_run && here.epoch > sequel->epoch))
        *sequel = here;
    return 0;
}

/* 0: the copy is nowhere, but perhaps there is a sequel. Hosts without an agent, or that were declared dead, have none. */
static int drop_copies(struct call *call, const struct lost_move *lost, struct sequel *ret_sequel)
{
    struct slave_vm_receive_abort_args args = {lost->vm, (int64_t) lost->epoch + 1, lost->move};
    ref_t at = NULL_REF;
    int r = 0;

    *ret_sequel = (struct sequel){0};
    while (r == 0) {
        struct view_iter hosts;
        const struct object *host;

        view_each_after(&hosts, call_view(call), CLASS_OF(host), at);
        host = view_next(&hosts);
        if (!host)
            return 0;
        at = host->ref;
        if (ref_equal(at, lost->source) || !slave_may_hold_guests(call->core->slaves, at))
            continue;
        r = slave_vm_receive_abort(call, at, &args, NULL);
        if (r < 0)
            r = find_sequel(call, lost, at, r, ret_sequel);
    }
    return r;
}

/* What it is then, which devices it has among that, the old records do not say: its host is asked. */
static int run_on(struct call *call, const struct lost_move *lost)
{
    struct slave_vm_send_abort_args args = {lost->vm, (int64_t) lost->epoch, lost->move};
    int r = slave_vm_send_abort(call, lost->source, &args, NULL);

    if (r == 0 && is_current(call, lost))
        guest_compare_later(call->core, view_by_uuid(call_view(call), CLASS_OF(VM), lost->vm)->ref);
    return r == -ERR_VM_BAD_POWER_STATE ? 0 : r; /* it ended, its host tells */
}

/* The move was committed: the VM is where it went, as far as that host still has it, and what was sent goes. */
static void follow(struct call *call, const struct lost_move *lost, const struct sequel *sequel)
{
    struct txn *txn;
    ref_t vm;

    if (!is_current(call, lost))
        return;
    log_warning(call->tag, "VM %s has gone on to epoch %llu since the move %s", lost->vm,
                (unsigned long long) sequel->epoch, lost->move);
    txn = store_begin(call->core->store);
    vm = view_by_uuid(txn_view(txn), CLASS_OF(VM), lost->vm)->ref;
    VM_put_epoch(txn, vm, (int64_t) sequel->epoch);
    VM_put_resident_on(txn, vm, sequel->host);
    call_commit(call, &txn);
    guest_compare_later(call->core, vm);
}

/* Has the VM gone on elsewhere? We have found that out, or its host has told of it meanwhile. Then what was sent goes. */
static void remove_what_was_sent(struct call *call, const struct lost_move *lost)
{
    const struct object *vm = view_by_uuid(call_view(call), CLASS_OF(VM), lost->vm);

    if (vm && (uint64_t) VM_get_epoch(vm) > lost->epoch)
        guest_remove_later(call->core, lost->source, lost->vm_uuid, lost->epoch, NULL);
}

static int undo(struct call *call, const struct lost_move *lost)
{
    struct sequel sequel;
    int r = drop_copies(call, lost, &sequel);

    if (r < 0)
        return r;
    if (sequel.epoch == 0)
        return run_on(call, lost);
    follow(call, lost, &sequel);
    return 0;
}

static void undo_main(struct call *call, void *arg)
{
    struct lost_move *lost = arg;

    if (awaited_wait(call, 0) == 0) /* a right that somebody has given is known then */
        while (is_current(call, lost) && undo(call, lost) < 0)
            if (fiber_sleep(AGAIN_MS) < 0)
                break;
    remove_what_was_sent(call, lost);
    refmap_take(&call->core->guests->lost_moves, lost->vm_uuid);
    free(lost);
}

void lost_move_undo(struct core *core, ref_t source, ref_t vm_uuid, uint64_t epoch, const char *move)
{
    struct lost_move *lost;

    if (refmap_get(&core->guests->lost_moves, vm_uuid))
        return;
    lost = new0(struct lost_move);
    *lost = (struct lost_move){.source = source, .vm_uuid = vm_uuid, .epoch = epoch};
    uuid_print(lost->vm, vm_uuid);
    snprintf(lost->move, sizeof lost->move, "%s", move);
    log_warning(NULL, "VM %s was sent for the move %s, which is not in the records; it is undone", lost->vm, move);
    refmap_put(&core->guests->lost_moves, vm_uuid, lost);
    background_run(core, "lost move", "", undo_main, lost);
}
