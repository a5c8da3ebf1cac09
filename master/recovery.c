/* recovery.c - what nobody works on any more: finished or undone from what the hosts say
 *
 *   orphan   --- its hosts are linked ---> settling: a fiber asks them, and concludes the work
 *      ^                                        |
 *      +---- a host is lost again --------------+---> settled: INTENT and claim gone, task ended
 *
 * What became of an operation is asked by its id, so a slave that has not seen it voids it before
 * it says "never". When the agent was restarted in the middle, the state of the guest decides; a
 * guest that is not there at the work's epoch is barred from that epoch first. Moves have rules of
 * their own (VM_migrate.c). */
#include "master/recovery.h"

#include "master/awaited.h"
#include "master/background.h"
#include "master/core.h"
#include "master/guest_changes.h"
#include "master/put.h"
#include "master/slaves.h"
#include "master/storage.h"
#include "master/task.h"
#include "master/VM_migrate.h"
#include "master/VM_power.h"
#include "master/vm_state.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/refmap.h"
#include "shared/timers.h"

/* Asked again so often whether an operation that goes on has ended. */
#define PENDING_MS 500
/* Between two attempts when the hosts are there and still nothing can be concluded. */
#define RETRY_MS 2000
/* Hosts have so long after a master's start to say hello; then tasks that wait for them end. */
#define HELLO_MS 30000

/* After the last work that was overtaken; there may be more. */
#define LOOK_MS 1000

struct orphan {
    struct core *core;
    ref_t intent;
    bool is_settling;
    bool is_stuck; /* recovery_host_gone: tried, and another host is away */
    struct timer retry;
};

struct recovery {
    struct refmap orphans; /* of struct orphan, by intent */
    struct timer hello;
    struct timer look; /* work that was overtaken is gone: hosts are asked what runs there */
};

struct recovery *recovery_new(struct core *core)
{
    (void) core;
    return new0(struct recovery);
}

void recovery_destroy(struct recovery **recovery_p)
{
    struct recovery *recovery = TAKE(*recovery_p);
    void *value;

    if (!recovery)
        return;
    for (size_t i = 0; refmap_each(&recovery->orphans, &i, NULL, &value);) {
        timer_stop(&((struct orphan *) value)->retry);
        free(value);
    }
    refmap_done(&recovery->orphans);
    timer_stop(&recovery->hello);
    timer_stop(&recovery->look);
    free(recovery);
}

/* ---- kinds ---- */

const struct work_kind *work_kind_find(const char *operation)
{
    static const struct work_kind *const kinds[] = {
        &work_start,        &work_start_on,       &work_restart,       &work_pause,
        &work_unpause,      &work_clean_shutdown, &work_hard_shutdown, &work_clean_reboot,
        &work_hard_reboot,  &work_suspend,        &work_resume,        &work_resume_on,
        &work_pool_migrate,  &work_snapshot,
    };

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (streq(kinds[i]->name, operation))
            return kinds[i];
    return NULL;
}

/* ---- settling one operation ---- */

/* A guest that was sent runs, as far as these records can know: they lack the move, and when the work is concluded that one is
 * seen to (guest_compare_later). */
static struct value as_running(struct call *call, const struct value *state)
{
    struct value *items = arena_alloc_array(call->arena, 4, sizeof *items);

    items[0] = value_text("state");
    items[1] = value_text("running");
    items[2] = value_text("domid");
    items[3] = value_text(value_map_text(state, "domid", "-1"));
    return VALUE_MAP(2, items);
}

/* What the host says of the guest at the work's epoch. */
static int ask_state(struct work *work, enum guest_is *ret_guest, struct value *ret_state)
{
    int r =
        slave_vm_ask(work->call, work->host, &(struct slave_vm_ask_args){work->uuid}, ret_state);
    const char *state;

    if (r < 0)
        return r;
    state = value_map_text(ret_state, "state", "");
    *ret_guest = GUEST_IS_NOWHERE;
    if (strtoull(value_map_text(ret_state, "epoch", "0"), NULL, 10) != work->epoch)
        return 0;
    if (streq(state, "sent")) {
        *ret_state = as_running(work->call, ret_state);
        state = "running";
    }
    if (streq(state, "running") || streq(state, "paused") || streq(state, "ended"))
        *ret_guest = answer_state(ret_state);
    return 0;
}

/* The guest's state decides, since the agent no longer knows how far its operation got. */
static int settle_by_state(struct work *work)
{
    struct slave_vm_kill_args kill = {work->uuid, (int64_t) work->epoch};
    struct slave_vm_unpause_args unpause = {work->uuid, (int64_t) work->epoch};
    struct value state = VALUE_VOID;
    struct core *core = work->call->core;
    enum guest_is guest;
    int r;

    if (work->kind->repeat) {
        r = work->kind->repeat(work, &state);
        if (r < 0 && (slave_call_in_doubt(work->call) || r == -ERR_HOST_OFFLINE))
            return r;
        work_conclude(work, r, &state);
        return 0;
    }
    r = ask_state(work, &guest, &state);
    if (r == 0 && guest == GUEST_IS_NOWHERE) /* nor shall it begin to be */
        r = slave_vm_kill(work->call, work->host, &kill, &state);
    else if (r == 0 && guest == GUEST_IS_PAUSED && work->is_arrival && !work->is_paused)
        r = slave_vm_unpause(work->call, work->host, &unpause, &state);
    if (r < 0)
        return r;
    if (work->kind->was_done(guest))
        work_conclude(work, 0, &state);
    else
        work_end(work);
    guest_compare_later(core, work->vm);
    return 0;
}

/* The host has not heard of the operation - or has forgotten it, since another master has concluded it and these records are
 * older than that. Where a right to run was to be given, the guest tells: at the work's epoch it can only be by this work. */
static int settle_never(struct work *work)
{
    struct call *call = work->call;
    struct value state = VALUE_VOID;
    enum guest_is guest = GUEST_IS_NOWHERE;
    int r = work->kind->lets_run && work->kind->was_done ? ask_state(work, &guest, &state) : 0;

    if (r < 0)
        return r;
    if (guest != GUEST_IS_NOWHERE && work->kind->was_done(guest)) {
        work_conclude(work, 0, &state);
        guest_compare_later(call->core, work->vm);
        return 0;
    }
    fail(call, HOST_OFFLINE, ref_text(call, work->host));
    return work_see_undone(work);
}

/* Wait for an operation that goes on, and ask again. A guest that takes its time to shut down may
 * be overtaken by a hard operation: then nothing is left to wait for. */
static int ask_until_over(struct work *work, ref_t operation, enum slave_answer *ret_answer,
                          int *ret_result, struct value *ret)
{
    for (;;) {
        int r = slave_ask(work->call, work->host, operation, ret_answer, ret_result, ret);

        if (r < 0 || *ret_answer != SLAVE_ANSWER_PENDING)
            return r;
        if (fiber_sleep(PENDING_MS) < 0)
            return task_cancelled(work->call);
    }
}

/* 0: settled, and call->failure is what the operation's own call would have told. */
static int work_settle(struct call *call, const struct object *intent)
{
    _cleanup_(work_end) struct work work = {0};
    const char *id_text = intent_get_operation_id(intent);
    enum slave_answer answer = SLAVE_ANSWER_INTERRUPTED;
    struct value result = VALUE_VOID;
    ref_t operation = NULL_REF, ref = intent->ref;
    int r = 0, operation_result = 0;

    work_adopt(&work, call, intent);
    if (uuid_parse(id_text, strlen(id_text), &operation)
        || ref_parse(id_text, strlen(id_text), &operation))
        r = ask_until_over(&work, operation, &answer, &operation_result, &result);
    if (r == -ERR_TASK_CANCELLED)
        return 0; /* work_end: the hard operation that cancelled us takes it from here */
    fiber_uncancellable_begin();
    if (r == 0 && answer == SLAVE_ANSWER_INTERRUPTED) {
        r = settle_by_state(&work);
    } else if (r == 0 && answer == SLAVE_ANSWER_NEVER) {
        r = settle_never(&work);
    } else if (r == 0) {
        work_conclude(&work, operation_result, &result);
        if (view_get(call_view(call), intent, ref)) /* what it says is not seen to yet */
            r = -ERR_HOST_OFFLINE;
    }
    if (r < 0 && work.call)
        work_abandon(&work);
    fiber_uncancellable_end();
    if (r < 0)
        return r;
    if (answer == SLAVE_ANSWER_DONE || answer == SLAVE_ANSWER_INTERRUPTED)
        slave_confirm_operation(call->core, work.host, operation);
    return 0;
}

/* The work's host is gone for good. What was to begin there did not, what was there has ended; a
 * guest that was to be resumed there may have run and written to its disks, so its image is no
 * longer what its disks fit to. */
static void work_settle_gone(struct call *call, const struct object *intent)
{
    struct work work = {0};
    struct txn *txn;
    bool is_resume;

    work_adopt(&work, call, intent);
    is_resume = work.kind == &work_resume || work.kind == &work_resume_on;
    fail(call, HOST_OFFLINE, ref_text(call, work.host));
    txn = work_finish_begin(&work);
    if (work.kind->undone)
        work.kind->undone(&work, txn);
    vm_put_next_epoch(txn, work.vm);
    vm_put_halted(txn, work.vm);
    if (is_resume)
        VM_put_suspend_VDI(txn, work.vm, NULL_REF);
    call_commit(call, &txn);
    if (!work.kind->is_cancellable)
        fiber_uncancellable_end();
    if (is_resume)
        suspend_image_destroy(call, work.vdi);
}

/* A higher epoch of the VM was believed: a master that these records do not know of has concluded the work, and gone on from
 * there. */
static bool is_overtaken(struct call *call, const struct object *intent)
{
    const struct object *vm = view_get(call_view(call), VM, intent_get_VM(intent));
    int64_t highest = intent_get_epoch(intent);

    if (vm && streq(intent_get_operation(intent), work_pool_migrate.name))
        highest += move_epochs_taken(intent, VM_get_resident_on(vm));
    return vm && VM_get_epoch(vm) > highest;
}

static uint64_t epoch_at(struct call *call, ref_t host, const char *uuid)
{
    struct value state = VALUE_VOID;

    if (ref_is_null(host) || !slave_is_linked(call->core->slaves, host)
        || slave_vm_ask(call, host, &(struct slave_vm_ask_args){uuid}, &state) < 0)
        return 0;
    return strtoull(value_map_text(&state, "epoch", "0"), NULL, 10);
}

/* The same of a VM that is over by now, so no host has told of it: a host that takes part refuses, since it has seen a higher
 * epoch than the work can have given it. */
static bool was_overtaken(struct call *call, ref_t ref)
{
    const struct object *intent = view_get(call_view(call), intent, ref);
    const struct object *vm = intent ? view_get(call_view(call), VM, intent_get_VM(intent)) : NULL;
    bool is_move = intent && streq(intent_get_operation(intent), work_pool_migrate.name);
    uint64_t at_source, at_destination;
    ref_t source, destination;
    const char *uuid;

    if (!vm)
        return false;
    source = intent_get_source(intent);
    destination = intent_get_destination(intent);
    uuid = arena_strdup(call->arena, VM_get_uuid(vm));
    at_source = at_destination = (uint64_t) intent_get_epoch(intent);
    if (is_move) {
        at_source += (uint64_t) move_epochs_taken(intent, source);
        at_destination++;
    }
    return epoch_at(call, source, uuid) > at_source || epoch_at(call, destination, uuid) > at_destination;
}

static void look_at_hosts(void *arg)
{
    struct core *core = arg;

    slaves_ask_hellos(core->slaves);
}

void recovery_ask_hosts(struct core *core)
{
    timer_start(core->loop, &core->recovery->look, LOOK_MS, look_at_hosts, core);
}

static void settle_overtaken(struct call *call, const struct object *intent)
{
    struct work work = {0};

    work_adopt(&work, call, intent);
    work_give_up(&work);
}

/* ---- orphans ---- */

/* Work of other classes has INTENTs of other kinds; those are their modules' affair. */
static bool is_ours(const struct object *intent)
{
    return work_kind_find(intent_get_operation(intent));
}

static bool can_be_settled(struct call *call, const struct object *intent, ref_t gone)
{
    ref_t host = ref_is_null(intent_get_destination(intent)) ? intent_get_source(intent)
                                                             : intent_get_destination(intent);

    /* The records may be old, and the work may have been concluded, and followed by other work: to go
     * on with it may give a right to run a second time. */
    if (awaited_any(call->core) && ref_is_null(gone))
        return false;
    if (streq(intent_get_operation(intent), work_pool_migrate.name))
        return move_can_be_settled(call, intent, gone);
    return ref_equal(host, gone) || slave_is_linked(call->core->slaves, host);
}

/* 0: settled. */
static int settle(struct call *call, const struct object *intent, ref_t gone)
{
    ref_t ref = intent->ref, task = intent_get_task(intent);
    bool is_move = streq(intent_get_operation(intent), work_pool_migrate.name);
    ref_t host = ref_is_null(intent_get_destination(intent)) ? intent_get_source(intent)
                                                             : intent_get_destination(intent);
    struct value nothing = VALUE_VOID;
    struct txn *txn;
    int r = 0;

    call->failure = (struct failure){0};
    if (is_overtaken(call, intent))
        settle_overtaken(call, intent);
    else if (is_move)
        r = move_settle(call, intent, gone);
    else if (ref_equal(host, gone))
        work_settle_gone(call, intent);
    else
        r = work_settle(call, intent);
    if (r < 0) {
        if (!was_overtaken(call, ref))
            return r;
        settle_overtaken(call, view_get(call_view(call), intent, ref));
    }
    txn = store_begin(call->core->store);
    task_put_end(call->core, txn, task, &nothing, call->failure.code ? &call->failure : NULL);
    call_commit(call, &txn);
    storage_sweep(call, host); /* the disks that it was to make are nobody's now */
    return 0;
}

static void orphan_forget(struct core *core, struct orphan *orphan)
{
    timer_stop(&orphan->retry);
    refmap_take(&core->recovery->orphans, orphan->intent);
    free(orphan);
}

static void orphan_wake(void *arg);

static void orphan_main(struct call *call, void *arg)
{
    struct orphan *orphan = arg;
    const struct object *intent = view_get(call_view(call), intent, orphan->intent);
    bool is_settled = !intent || !view_get(call_view(call), VM, intent_get_VM(intent));

    core_emit(call);
    intent = view_get(call_view(call), intent, orphan->intent);
    if (!is_settled && intent && can_be_settled(call, intent, NULL_REF))
        is_settled = settle(call, intent, NULL_REF) == 0;
    orphan->is_settling = false;
    if (is_settled || !view_get(call_view(call), intent, orphan->intent))
        orphan_forget(call->core, orphan);
    else if (can_be_settled(call, view_get(call_view(call), intent, orphan->intent), NULL_REF))
        timer_start(call->core->loop, &orphan->retry, RETRY_MS, orphan_wake, orphan);
}

/* Take it up, unless someone does. */
static void orphan_wake(void *arg)
{
    struct orphan *orphan = arg;
    struct core *core = orphan->core;
    const struct object *intent = view_get(store_core_view(core->store), intent, orphan->intent);

    timer_stop(&orphan->retry);
    if (orphan->is_settling)
        return;
    orphan->is_settling = true;
    background_run(core, "recovery",
                   intent ? value_map_text(intent_get_details(intent), "tag", "") : "", orphan_main,
                   orphan);
}

static struct orphan *orphan_add(struct core *core, ref_t intent)
{
    struct orphan *orphan = refmap_get(&core->recovery->orphans, intent);

    if (!orphan) {
        orphan = new0(struct orphan);
        orphan->core = core;
        orphan->intent = intent;
        refmap_put(&core->recovery->orphans, intent, orphan);
    }
    return orphan;
}

void recovery_orphan(struct core *core, ref_t intent)
{
    struct orphan *orphan = orphan_add(core, intent);

    if (!orphan->is_settling) /* else it is its own fiber that gives it up, and sees to the next
                                 attempt */
        timer_start(core->loop, &orphan->retry, 0, orphan_wake, orphan);
}

void recovery_host_is_there(struct core *core, ref_t host)
{
    const struct view *view = store_core_view(core->store);
    void *value;

    for (size_t i = 0; refmap_each(&core->recovery->orphans, &i, NULL, &value);) {
        struct orphan *orphan = value;
        const struct object *intent = view_get(view, intent, orphan->intent);

        if (intent && !orphan->is_settling
            && (ref_equal(intent_get_source(intent), host)
                || ref_equal(intent_get_destination(intent), host)))
            timer_start(core->loop, &orphan->retry, 0, orphan_wake, orphan);
    }
}

void recovery_look_again(struct core *core)
{
    void *value;

    for (size_t i = 0; refmap_each(&core->recovery->orphans, &i, NULL, &value);) {
        struct orphan *orphan = value;

        if (!orphan->is_settling)
            timer_start(core->loop, &orphan->retry, 0, orphan_wake, orphan);
    }
}

/* ---- a master's start ---- */

/* The hosts have had their time. The work stays claimed until they come, but whoever waits for its
 * task is told. */
static void hello_is_over(void *arg)
{
    struct core *core = arg;
    struct arena *arena = arena_new();
    struct txn *txn = store_begin(core->store);
    void *value;

    for (size_t i = 0; refmap_each(&core->recovery->orphans, &i, NULL, &value);) {
        struct orphan *orphan = value;
        const struct object *intent = txn_get(txn, intent, orphan->intent);
        struct failure failure = {0};
        char host[REF_TEXT_BYTES];

        if (!intent || orphan->is_settling)
            continue;
        failure_set(&failure, arena, HOST_OFFLINE,
                    ref_print(host, ref_is_null(intent_get_destination(intent))
                                        ? intent_get_source(intent)
                                        : intent_get_destination(intent)));
        task_put_end(core, txn, intent_get_task(intent), NULL, &failure);
    }
    store_apply(&txn);
    arena_destroy(&arena);
}

void recovery_start(struct core *core)
{
    struct txn *txn = store_begin(core->store);
    const struct object *intent;
    struct view_iter all;

    view_each(&all, txn_view(txn), CLASS_OF(intent));
    while ((intent = view_next(&all))) {
        if (!is_ours(intent))
            continue;
        if (!txn_get(txn, VM, intent_get_VM(intent))) {
            txn_delete(txn, CLASS_OF(intent), intent->ref);
            continue;
        }
        claim_restore(txn, CLASS_OF(VM), intent_get_VM(intent),
                      value_map_text(intent_get_details(intent), "tag", "recovery"),
                      work_kind_find(intent_get_operation(intent))->operation);
        orphan_add(core, intent->ref);
    }
    store_apply(&txn);
    timer_start(core->loop, &core->recovery->hello, HELLO_MS, hello_is_over, core);
}

/* ---- hosts that are gone for good, and VMs that an operator declares halted ---- */

/* What is known about the VM ends here: INTENTs, claims, tasks. In the caller's transaction. */
static void put_halted_by_decree(struct call *call, struct txn *txn, struct claim *claim, ref_t vm)
{
    const struct value *operations;
    struct failure failure = {0};
    const struct object *intent;

    failure_set(&failure, call->arena, HOST_OFFLINE,
                ref_text(call, VM_get_resident_on(txn_get(txn, VM, vm))));
    while ((intent = intent_of_vm(txn_view(txn), vm))) {
        task_put_end(call->core, txn, intent_get_task(intent), NULL, &failure);
        txn_delete(txn, CLASS_OF(intent), intent->ref);
    }
    claim_end_txn(claim, txn);
    while ((operations = VM_get_current_operations(txn_get(txn, VM, vm)))->length > 0)
        claim_release(call->core, txn, CLASS_OF(VM), vm,
                      arena_strdup(call->arena, operations->items[0].text));
    vm_put_next_epoch(txn, vm);
    vm_put_halted(txn, vm);
}

int vm_halt_by_decree(struct call *call, ref_t vm)
{
    _cleanup_(claim_end) struct claim claim = {0};
    struct txn *txn = store_begin(call->core->store);
    int r =
        claim_take_txn(&claim, call, txn, CLASS_OF(VM), vm, vm_operations_power_state_reset, true);

    if (r < 0) {
        txn_end(&txn);
        return r;
    }
    call->depends = MAX(call->depends, store_apply(&txn));
    r = claim_alone(&claim);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    if (txn_get(txn, VM, vm))
        put_halted_by_decree(call, txn, &claim, vm);
    return call_commit(call, &txn);
}

/* The next VM that is resident on the host, behind `after`; control domains aside. */
static ref_t next_resident(struct call *call, ref_t host, ref_t after)
{
    struct view_iter vms;
    const struct object *vm;

    view_each_inverse(&vms, call_view(call), &CLASS_OF(host)->fields[F_host_resident_VMs], host);
    while ((vm = view_next(&vms)))
        if (!VM_get_is_control_domain(vm) && ref_compare(vm->ref, after) > 0)
            return vm->ref;
    return NULL_REF;
}

/* The first orphan that has to do with the host and that nobody is settling. */
static struct orphan *next_orphan(struct call *call, ref_t host)
{
    void *value;

    for (size_t i = 0; refmap_each(&call->core->recovery->orphans, &i, NULL, &value);) {
        struct orphan *orphan = value;
        const struct object *intent = view_get(call_view(call), intent, orphan->intent);

        if (intent && !orphan->is_settling && !orphan->is_stuck
            && can_be_settled(call, intent, host)
            && (ref_equal(intent_get_source(intent), host)
                || ref_equal(intent_get_destination(intent), host)))
            return orphan;
    }
    return NULL;
}

int recovery_host_gone(struct call *call, ref_t host)
{
    const char *own_tag = call->tag;
    struct orphan *orphan;
    ref_t vm = NULL_REF;
    int r;

    while ((orphan = next_orphan(call, host))) {
        const struct object *intent = view_get(call_view(call), intent, orphan->intent);

        orphan->is_settling = true;
        call->tag = arena_strdup(call->arena,
                                 value_map_text(intent_get_details(intent), "tag", "recovery"));
        r = settle(call, intent, host);
        call->tag = own_tag;
        call->failure = (struct failure){0};
        orphan->is_settling = false;
        orphan->is_stuck = r < 0;
        if (r == 0)
            orphan_forget(call->core, orphan);
    }
    while (!ref_is_null(vm = next_resident(call, host, vm))) {
        r = vm_halt_by_decree(call, vm);
        if (r < 0 && r != -ERR_HANDLE_INVALID)
            return r;
    }
    call->failure = (struct failure){0};
    return 0;
}
