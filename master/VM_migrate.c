/* VM_migrate.c - move a running VM to another host of the pool
 *
 *   source slave            master                       destination slave
 *                           claim VM; room on both; INTENT (durable)
 *                           receive_open  ------------->  empty VM, paused; gives an endpoint
 *   send  <---------------  (endpoint)
 *   memory, page by page  ============================>
 *   VM paused, disks flushed and released,
 *   "paused for move X" fsynced
 *        done  ---------->
 *                           COMMIT: owner = destination, VM epoch + 1   (one durable transaction)
 *                           unpause(epoch + 1)  ------->  VM runs
 *   forget  <-------------
 *                           claim ends, events, task success
 *
 * COMMIT is the point of no return. Before it every return puts things back: the destination first
 * confirms that its copy is dropped, then the source resumes, by our word only. After it the way is
 * forward: the destination runs the VM; only if it confirms that it never did and never will (or is
 * fenced), a second COMMIT gives the next epoch to the source, and if that has lost it too, the VM
 * is Halted.
 *
 * Room: scheduled_to_be_resident_on is the destination before COMMIT and the source after it, until
 * the source has forgotten its copy: both hosts count the memory exactly as long as the claim
 * lasts.
 *
 * A host that does not answer leaves the move in doubt. Then the call ends, claim and INTENT stay,
 * and move_settle() goes on from the INTENT's step when the hosts are back - in this master's life
 * or the next one's. */
#include "master/VM_migrate.h"

#include "master/core.h"
#include "master/flows.h"
#include "master/guest_changes.h"
#include "master/lifecycle.h"
#include "master/message.h"
#include "master/put.h"
#include "master/slaves.h"
#include "master/task.h"
#include "master/VM_boot.h"
#include "master/VM_power.h"
#include "master/vm_config.h"
#include "master/vm_state.h"
#include "shared/fiber.h"
#include "shared/log.h"

/* The INTENT's steps. */
#define STEP_COPYING   "copying"
#define STEP_COMMITTED "committed"

struct move {
    struct work work; /* claim, INTENT, the VM's epoch before the move */
    ref_t source, destination;
    bool is_in_doubt; /* a host has not confirmed what must be known */
    bool is_over;     /* finished, or settled */
};

/* What stands at each end, until it is kept or undone. */
struct receive {
    struct move *move;
    struct value endpoint;
};
struct send {
    struct move *move;
};

/* The move's name at both hosts: that of its INTENT. */
static const char *name_of(const struct move *move)
{
    char text[UUID_TEXT_BYTES];

    return arena_strdup(move->work.call->arena, uuid_print(text, move->work.intent));
}

static int64_t epoch_of(const struct move *move)
{
    return (int64_t) move->work.epoch;
}

/* ---- beginning ---- */

/* Options as text: {live, force, compress: "true" or "false", network: a reference}. */
struct options {
    bool is_forced;
    const char *compress;
    ref_t network;
};

static int options_read(struct call *call, const struct value *options, struct options *ret)
{
    static const char *const flags[] = {"live", "force", "compress"};
    const char *network = value_map_text(options, "network", "");

    *ret = (struct options){0};
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        const char *text = value_map_text(options, flags[i], "false");

        if (!streq(text, "true") && !streq(text, "false"))
            return fail(call, INVALID_VALUE, flags[i], text);
    }
    ret->is_forced = streq(value_map_text(options, "force", ""), "true");
    ret->compress = value_map_text(options, "compress", NULL);
    if (*network
        && (!ref_parse(network, strlen(network), &ret->network)
            || !view_get(call_view(call), network, ret->network)))
        return fail(call, HANDLE_INVALID, "network", network);
    return 0;
}

static struct move *move_of(struct work *work)
{
    return CONTAINER_OF(work, struct move, work);
}

/* In the first transaction, after the claim. */
static int move_begin_txn(struct work *work, struct txn *txn)
{
    struct move *move = move_of(work);
    struct call *call = work->call;
    const struct object *vm = txn_get(txn, VM, work->vm);
    unsigned flags = work->is_forced ? BOOT_ANY_CPU : 0;
    int r;

    move->source = VM_get_resident_on(vm);
    move->destination = work->wanted_host;
    work->host = move->source;
    work->epoch = (uint64_t) VM_get_epoch(vm);
    if (!work->is_forced) { /* asked of the state before the claim, which would be in the way */
        r = operation_check(store_core_view(call->core->store),
                            view_get(store_core_view(call->core->store), VM, work->vm),
                            vm_operations_pool_migrate, true, call->arena, &call->failure);
        if (r < 0)
            return r;
    }
    if (ref_equal(move->source, move->destination))
        flags |= BOOT_LOCAL | BOOT_DISABLED;
    r = assert_can_boot_here(call, txn_view(txn), work->vm, move->destination, flags);
    if (r == 0 && !(flags & BOOT_LOCAL))
        r = claim_begin_txn(&work->host_claim, call, txn, CLASS_OF(host), move->destination,
                            host_allowed_operations_vm_migrate);
    if (r < 0)
        return r;
    if (flags & BOOT_LOCAL)
        return 0; /* nothing will be done, so nothing must be undone: there is no copy to drop */
    VM_put_scheduled_to_be_resident_on(txn, work->vm, move->destination);
    work_intend(work, txn, move->source, move->destination, STEP_COPYING);
    return 0;
}

static int move_begin(struct move *move, struct call *call, const struct VM_pool_migrate_args *args,
                      const struct options *options)
{
    move->work.wanted_host = args->host;
    move->work.is_forced = options->is_forced;
    return work_claim(&move->work, call, &work_pool_migrate, args->vm, move_begin_txn);
}

/* The last of the guards: claim, room and INTENT end in one transaction - or stay, in doubt. */
static void move_end(struct move *move)
{
    struct work *work = &move->work;
    struct call *call = work->call;
    struct txn *txn;

    if (!call)
        return;
    if (move->is_in_doubt) {
        work_leave_in_doubt(work);
    } else if (!move->is_over) {
        txn = work_finish_begin(work);
        if (txn_get(txn, VM, work->vm))
            VM_put_scheduled_to_be_resident_on(txn, work->vm, NULL_REF);
        call_commit(call, &txn);
    }
    work->call = NULL;
}

/* ---- the destination takes it in ---- */

/* Where the destination listens: its address in the network that the caller chose. */
static int address_in(struct call *call, ref_t network, ref_t host, const char **ret_address)
{
    const struct view *view = call_view(call);
    const struct object *pif;
    struct view_iter pifs;

    *ret_address = "";
    if (ref_is_null(network))
        return 0;
    view_each_inverse(&pifs, view, &CLASS_OF(network)->fields[F_network_PIFs], network);
    while ((pif = view_next(&pifs))) {
        if (ref_equal(PIF_get_host(pif), host) && !streq(PIF_get_IP(pif), "")) {
            *ret_address = arena_strdup(call->arena, PIF_get_IP(pif));
            return 0;
        }
    }
    return fail(call, HOST_CANNOT_ATTACH_NETWORK, ref_text(call, host), ref_text(call, network));
}

/* The guest's configuration, and how its memory is to travel. */
static struct value config_for(struct call *call, const struct value *config,
                               const struct options *options, const char *address)
{
    const struct object *pool = view_get(call_view(call), pool, call->core->pool);
    bool is_compressed = options->compress ? streq(options->compress, "true")
                                           : pool && pool_get_migration_compression(pool);
    struct value keys[] = {value_text("compress"), value_text("address")};
    struct value texts[] = {value_text(is_compressed ? "true" : "false"), value_text(address)};
    struct value with = value_map_with(call->arena, config, &keys[0], &texts[0]);

    return *address ? value_map_with(call->arena, &with, &keys[1], &texts[1]) : with;
}

static int receive_open(struct receive *receive, struct move *move, const struct options *options)
{
    struct call *call = move->work.call;
    struct vm_config config;
    struct value with_options;
    const char *address;
    int r = address_in(call, options->network, move->destination, &address);

    if (r < 0)
        return r;
    vm_config(call, call_view(call), move->work.vm, move->destination, DEVICES_ATTACHED, &config);
    with_options = config_for(call, &config.config, options, address);
    receive->move = move; /* even a lost answer may have opened it */
    r = slave_vm_receive_open(call, move->destination,
                              &(struct slave_vm_receive_open_args){
                                  .vm = config.uuid,
                                  .epoch = epoch_of(move) + 1,
                                  .move = name_of(move),
                                  .config = &with_options,
                                  .disks = &config.disks,
                                  .nics = &config.nics,
                              },
                              &receive->endpoint);
    if (r < 0 && !slave_call_in_doubt(call))
        receive->move = NULL; /* refused: nothing is there */
    return slave_failure(call, move->work.vm, r);
}

/* Drop the copy. 0: it is gone, never ran and never will. */
static int copy_drop(struct move *move)
{
    struct call *call = move->work.call;

    return slave_vm_receive_abort(
        call, move->destination,
        &(struct slave_vm_receive_abort_args){move->work.uuid, epoch_of(move) + 1, name_of(move)},
        NULL);
}

/* The guard that runs first. As long as the copy may exist, the source must not run again. */
static void receive_abort(struct receive *receive)
{
    struct move *move = receive->move;
    struct failure kept;

    if (!move)
        return;
    kept = move->work.call->failure;
    fiber_uncancellable_begin();
    if (copy_drop(move) < 0)
        move->is_in_doubt = true;
    fiber_uncancellable_end();
    move->work.call->failure = kept;
}

static void receive_keep(struct receive *receive)
{
    receive->move = NULL;
}

/* ---- the source sends it ---- */

/* What the client is told: that the guest ended, that it was cancelled, that a host is away - or
 * why the move failed. */
static int send_failure(struct move *move, int r)
{
    struct call *call = move->work.call;
    const char *why;

    if (r == 0 || r == -ERR_HOST_OFFLINE || r == -ERR_TASK_CANCELLED
        || r == -ERR_VM_BAD_POWER_STATE)
        return slave_failure(call, move->work.vm, r);
    why = call->failure.count ? call->failure.params[call->failure.count - 1] : "";
    if (r != -ERR_VM_MIGRATE_FAILED)
        why = arena_text(call->arena, "%s %s", call->failure.text, why);
    return fail(call, VM_MIGRATE_FAILED, ref_text(call, move->work.vm),
                ref_text(call, move->source), ref_text(call, move->destination), why);
}

static int send_run(struct send *send, struct move *move, const struct value *endpoint)
{
    struct call *call = move->work.call;
    int r;

    send->move = move;
    r = slave_vm_send(
        call, move->source,
        &(struct slave_vm_send_args){move->work.uuid, epoch_of(move), name_of(move), endpoint},
        NULL);
    if (r == -ERR_HOST_OFFLINE && !slave_call_in_doubt(call))
        send->move = NULL; /* it never heard of it, and runs on */
    return send_failure(move, r);
}

/* The source runs it again, if it stands. */
static int source_resume(struct move *move)
{
    struct slave_vm_send_abort_args args = {move->work.uuid, epoch_of(move), name_of(move)};

    return slave_vm_send_abort(move->work.call, move->source, &args, NULL);
}

/* The guard that runs second. */
static void send_abort(struct send *send)
{
    struct move *move = send->move;
    struct failure kept;
    int r;

    if (!move || move->is_in_doubt)
        return;
    kept = move->work.call->failure;
    fiber_uncancellable_begin();
    r = source_resume(move);
    if (r < 0 && r != -ERR_VM_BAD_POWER_STATE) /* a guest that ended by itself is told by its host's
                                                  note */
        move->is_in_doubt = true;
    fiber_uncancellable_end();
    move->work.call->failure = kept;
}

static void send_keep(struct send *send)
{
    send->move = NULL;
}

/* ---- COMMIT, and forward ---- */

static void log_commit(struct call *call, ref_t vm_ref, ref_t host_ref, uint64_t epoch)
{
    const struct view *view = store_core_view(call->core->store); /* waits for nothing */
    const struct object *vm = view_get(view, VM, vm_ref), *host = view_get(view, host, host_ref);

    if (vm && host)
        log_info(call->tag, "COMMIT: VM %s is the host's %s now, at epoch %lld", VM_get_uuid(vm),
                 host_get_uuid(host), (long long) epoch);
}

/* The right to run goes to `host`, at the next epoch; `other` keeps its room until its copy is
 * gone. */
static void commit(struct move *move, ref_t host, ref_t other)
{
    struct call *call = move->work.call;
    struct txn *txn = store_begin(call->core->store);
    uint64_t epoch;

    VM_put_resident_on(txn, move->work.vm, host);
    VM_put_scheduled_to_be_resident_on(txn, move->work.vm, other);
    epoch = vm_put_next_epoch(txn, move->work.vm);
    intent_put_step(txn, move->work.intent, STEP_COMMITTED);
#ifdef DROVER_BUG_unpause_before_commit_durable
    store_apply(&txn); /* deliberately wrong: the unpause leaves before a crash could no longer take
                          the COMMIT back */
#else
    call_commit(call, &txn);
#endif
    log_commit(call, move->work.vm, host, epoch);
}

/* Claim and INTENT end with what the VM is in the end. A guest that has ended where it went did so
 * by itself: what the VM's owner wants then is done, and its host forgets it before the VM is
 * Halted. */
static void conclude(struct move *move, ref_t host, enum guest_is guest, int64_t domid,
                     const char *message)
{
    struct work *work = &move->work;
    struct call *call = work->call;
    struct txn *txn = work_finish_begin(work);

    vm_put_home(txn, call->core, work->vm, host, domid, guest == GUEST_IS_PAUSED);
    if (message)
        message_about_vm(txn, call->core, message, MESSAGE_VM_PRIORITY, work->vm, host,
                         "has been moved");
    call_commit(call, &txn);
    if (guest == GUEST_IS_ENDED)
        guest_compare_later(call->core, work->vm);
    move->is_over = true;
}

/* The source drops what is left there. If it cannot now, it is asked again later: nothing depends
 * on it. */
static void source_forget(struct move *move)
{
    struct call *call = move->work.call;
    struct slave_vm_forget_args args = {move->work.uuid, epoch_of(move) + 1};
    struct failure kept = call->failure;
    ref_t uuid;

    if (slave_vm_forget(call, move->source, &args, NULL) < 0
        && uuid_parse(args.vm, strlen(args.vm), &uuid))
        guest_remove_later(call->core, move->source, uuid, (uint64_t) args.epoch, NULL);
    call->failure = kept;
}

/* The VM as it is when nobody has it any more. */
static void conclude_halted(struct move *move)
{
    struct call *call = move->work.call;
    struct txn *txn = work_finish_begin(&move->work);

    vm_put_halted(txn, move->work.vm);
    call_commit(call, &txn);
    move->is_over = true;
}

/* After the second COMMIT: the source runs it again, unless it has lost it, too. */
static int back_at_source(struct move *move, bool source_is_gone, const char *why)
{
    struct call *call = move->work.call;
    struct value answer = VALUE_VOID;
    struct slave_vm_unpause_args unpause = {move->work.uuid, epoch_of(move) + 2};
    int r = source_is_gone ? 0 : slave_vm_unpause(call, move->source, &unpause, &answer);

    if (r < 0 && (slave_call_in_doubt(call) || r == -ERR_HOST_OFFLINE)) {
        move->is_in_doubt = true;
        return r;
    }
    if (r == 0 && answer_state(&answer) != GUEST_IS_ENDED)
        conclude(move, move->source, answer_state(&answer), answer_domid(&answer), NULL);
    else
        conclude_halted(move);
    return fail(call, VM_MIGRATE_FAILED, ref_text(call, move->work.vm),
                ref_text(call, move->source), ref_text(call, move->destination), why);
}

/* Back to the source, which holds the guest as it was at COMMIT: the right to run there is a new
 * one. */
static int fall_back(struct move *move, const char *why)
{
    commit(move, move->source, move->destination);
    return back_at_source(move, false, why);
}

/* After COMMIT. Every call may be repeated; the next master repeats them too. */
static int move_finish(struct move *move, bool destination_is_gone)
{
    struct call *call = move->work.call;
    struct value answer = VALUE_VOID;
    const char *why = "the destination is gone";
    int r;

    if (destination_is_gone)
        return fall_back(move, why);
    r = slave_vm_unpause(call, move->destination,
                         &(struct slave_vm_unpause_args){move->work.uuid, epoch_of(move) + 1},
                         &answer);
    if (r < 0) {
        why = call->failure.text;
        if (slave_call_in_doubt(call) || r == -ERR_HOST_OFFLINE) {
            move->is_in_doubt = true;
            return r;
        }
        r = copy_drop(move); /* refused: did it never run, and never will? */
        if (r < 0 && r != -ERR_VM_BAD_POWER_STATE) {
            move->is_in_doubt = true;
            return r;
        }
        if (r == 0)
            return fall_back(move, why);
        r = slave_vm_ask(call, move->destination, &(struct slave_vm_ask_args){move->work.uuid},
                         &answer);
        if (r < 0) {
            move->is_in_doubt = true;
            return r;
        }
    }
    source_forget(move);
    call->failure = (struct failure){0};
    conclude(move, move->destination, answer_state(&answer), answer_domid(&answer), "VM_MIGRATED");
    return 0;
}

/* ---- the call ---- */

int VM_pool_migrate(struct call *call, const struct VM_pool_migrate_args *args, struct value *ret)
{
    _cleanup_(move_end) struct move move = {0}; /* last: claim, room and INTENT */
    _cleanup_(flow_leave) struct flow flow = {0};
    _cleanup_(send_abort) struct send send = {0};          /* second: the source resumes */
    _cleanup_(receive_abort) struct receive receive = {0}; /* first: the copy is dropped */
    struct options options;
    int r;

    (void) ret;
    r = options_read(call, args->options, &options);
    if (r < 0)
        return r;
    r = move_begin(&move, call, args, &options);
    if (r < 0)
        return r;
    if (ref_equal(move.source, move.destination))
        return 0; /* it is there already, and runs */

    task_set_cancellable(call, true);
    r = flow_enter(&flow, call, move.source, move.destination);
    if (r == 0)
        r = receive_open(&receive, &move, &options);
    if (r == 0)
        r = send_run(&send, &move, &receive.endpoint);
    task_set_cancellable(call, false);
    if (r == -ERR_VM_BAD_POWER_STATE) /* not what the model had said */
        guest_compare_later(call->core, move.work.vm);
    if (r < 0)
        return r;

    /* All sent: the source stands, and stays so until our word. From here nothing is undone. */
    fiber_uncancellable_begin();
    receive_keep(&receive);
    send_keep(&send);
    commit(&move, move.destination, move.source);
    r = move_finish(&move, false);
    fiber_uncancellable_end();
    return r;
}

const struct work_kind work_pool_migrate = {
    .name = "pool_migrate",
    .operation = vm_operations_pool_migrate,
    .lets_run = true,
    .is_cancellable = true,
};

/* ---- settling what nobody works on ---- */

static void move_adopt(struct move *move, struct call *call, const struct object *intent)
{
    move->source = intent_get_source(intent);
    move->destination = intent_get_destination(intent);
    work_adopt(&move->work, call, intent);
}

static bool is_there(struct call *call, ref_t host, ref_t gone)
{
    return ref_equal(host, gone) || slave_is_linked(call->core->slaves, host);
}

/* Who has the right to run after a COMMIT: did a second one give it back to the source? */
static bool went_back(struct call *call, const struct object *intent)
{
    const struct object *vm = view_get(call_view(call), VM, intent_get_VM(intent));

    return vm && ref_equal(VM_get_resident_on(vm), intent_get_source(intent))
           && VM_get_epoch(vm) == intent_get_epoch(intent) + 2;
}

int64_t move_epochs_taken(const struct object *intent, ref_t resident)
{
    if (!streq(intent_get_step(intent), STEP_COMMITTED))
        return 0;
    return ref_equal(resident, intent_get_source(intent)) ? 2 : 1;
}

bool move_can_be_settled(struct call *call, const struct object *intent, ref_t gone)
{
    bool source = is_there(call, intent_get_source(intent), gone);
    bool destination = is_there(call, intent_get_destination(intent), gone);

    /* After COMMIT only its owner can say whether it runs; the other one is told to forget, now or
     * at its hello. */
    if (streq(intent_get_step(intent), STEP_COMMITTED))
        return went_back(call, intent) ? source : destination;
    return source && destination;
}

/* Was everything sent, and does the destination hold it? Then the move may as well be finished. */
static bool is_all_sent(struct move *move)
{
    struct call *call = move->work.call;
    struct value source = VALUE_VOID, destination = VALUE_VOID;

    return slave_vm_ask(call, move->source, &(struct slave_vm_ask_args){move->work.uuid}, &source)
               == 0
           && slave_vm_ask(call, move->destination, &(struct slave_vm_ask_args){move->work.uuid},
                           &destination)
                  == 0
           && streq(value_map_text(&source, "state", ""), "sent")
           && streq(value_map_text(&source, "move", ""), name_of(move))
           && streq(value_map_text(&destination, "state", ""), "paused")
           && streq(value_map_text(&destination, "move", ""), name_of(move));
}

/* Before COMMIT: the copy goes, then the source runs on. */
static int settle_uncommitted(struct move *move, ref_t gone)
{
    struct call *call = move->work.call;
    struct txn *txn;
    int r = 0;

    if (ref_is_null(gone) && is_all_sent(move)) {
        commit(move, move->destination, move->source);
        return move_finish(move, false);
    }
    if (!ref_equal(move->destination, gone))
        r = copy_drop(move);
    if (r == -ERR_VM_BAD_POWER_STATE) { /* it ran: another master has committed, and these records are older than that */
        call->failure = (struct failure){0};
        commit(move, move->destination, move->source);
        return move_finish(move, false);
    }
    if (r == 0 && !ref_equal(move->source, gone)) {
        r = source_resume(move);
        if (r == -ERR_VM_BAD_POWER_STATE) /* it ended; the source's report says how */
            r = 0;
    }
    if (r < 0) {
        move->is_in_doubt = true;
        return r;
    }
    txn = work_finish_begin(&move->work);
    if (ref_equal(move->source, gone)) {
        vm_put_next_epoch(txn, move->work.vm);
        vm_put_halted(txn, move->work.vm);
    }
    VM_put_scheduled_to_be_resident_on(txn, move->work.vm, NULL_REF);
    call_commit(call, &txn);
    move->is_over = true;
    return fail(call, VM_MIGRATE_FAILED, ref_text(call, move->work.vm),
                ref_text(call, move->source), ref_text(call, move->destination),
                "a host or the master was lost before everything was sent");
}

int move_settle(struct call *call, const struct object *intent, ref_t gone)
{
    _cleanup_(move_end) struct move move = {0};
    bool is_committed = streq(intent_get_step(intent), STEP_COMMITTED);

    move_adopt(
        &move, call,
        intent); /* a claim again, and the reason why nobody else touches the INTENT meanwhile */
    fiber_uncancellable_begin(); /* hard operations wait for it: the guest's owner is being found */
    if (!is_committed)
        settle_uncommitted(&move, gone);
    else if (went_back(call, intent))
        back_at_source(&move, ref_equal(move.source, gone), "the destination never ran it");
    else
        move_finish(&move, ref_equal(move.destination, gone));
    fiber_uncancellable_end();
    return move.is_in_doubt ? -ERR_HOST_OFFLINE : 0;
}
