/* vm_work.c - one operation of one VM that acts on a host: claim, INTENT, and how both end */
#include "master/vm_work.h"

#include "master/awaited.h"
#include "master/core.h"
#include "master/guest_changes.h"
#include "master/put.h"
#include "master/recovery.h"
#include "master/slaves.h"
#include "master/storage.h"
#include "shared/fiber.h"

#define LINK_WAIT_MS 10000 /* as long as a silent host is taken to be alive */

/* How long to wait before looking again whether what is in doubt is being settled. */
#define SETTLING_MS 100

/* ---- the INTENT's row ---- */

static struct value details_of(const struct work *work)
{
    struct arena *arena = work->call->arena;
    struct value *items = arena_alloc_array(arena, 8, sizeof *items);
    uint32_t count = 0;

    items[2 * count] = value_text("tag");
    items[2 * count++ + 1] = value_text(work->call->tag);
    if (work->is_paused) {
        items[2 * count] = value_text("paused");
        items[2 * count++ + 1] = value_text("true");
    }
    if (!ref_is_null(work->vdi)) {
        items[2 * count] = value_text("vdi");
        items[2 * count++ + 1] = value_text(ref_text(work->call, work->vdi));
    }
    return VALUE_MAP(count, items);
}

void work_intend(struct work *work, struct txn *txn, ref_t source, ref_t destination,
                 const char *step)
{
    struct call *call = work->call;
    struct value details = details_of(work);
    struct value fields[F_intent_created + 1] = {
        [F_intent_task] = VALUE_REF(call->task),
        [F_intent_operation] = value_text(work->kind->name),
        [F_intent_VM] = VALUE_REF(work->vm),
        [F_intent_source] = VALUE_REF(source),
        [F_intent_destination] = VALUE_REF(destination),
        [F_intent_epoch] = VALUE_INT((int64_t) work->epoch),
        [F_intent_step] = value_text(step),
        [F_intent_details] = details,
        [F_intent_created] = VALUE_DATETIME(clock_utc_s(call->core->clock)),
    };

    assert(CLASS_OF(intent)->field_count == ARRAY_SIZE(fields));
    work->intent = txn_create_new(txn, call->core->random, CLASS_OF(intent), fields);
}

const struct object *intent_of_vm(const struct view *view, ref_t vm)
{
    struct view_iter all; /* as many as there is work under way */
    const struct object *intent;

    view_each(&all, view, CLASS_OF(intent));
    while ((intent = view_next(&all)))
        if (ref_equal(intent_get_VM(intent), vm))
            return intent;
    return NULL;
}

bool work_adopt(struct work *work, struct call *call, const struct object *intent)
{
    const struct object *vm = view_get(call_view(call), VM, intent_get_VM(intent));
    const struct work_kind *kind = work_kind_find(intent_get_operation(intent));
    const char *vdi = value_map_text(intent_get_details(intent), "vdi", "");
    bool is_arrival = !ref_is_null(intent_get_destination(intent));

    if (!vm || !kind)
        return false;
    *work = (struct work){
        .call = call,
        .kind = kind,
        .vm = vm->ref,
        .host = is_arrival ? intent_get_destination(intent) : intent_get_source(intent),
        .intent = intent->ref,
        .epoch = (uint64_t) intent_get_epoch(intent),
        .uuid = arena_strdup(call->arena, VM_get_uuid(vm)),
        .is_arrival = is_arrival,
        .is_paused = value_map_find(intent_get_details(intent), "paused"),
    };
    ref_parse(vdi, strlen(vdi), &work->vdi);
    claim_adopt(&work->claim, call, CLASS_OF(VM), work->vm, kind->operation);
    if (!kind->is_cancellable)
        fiber_uncancellable_begin();
    return true;
}

/* ---- beginning ---- */

static int begin_once(struct work *work, int (*begin)(struct work *, struct txn *))
{
    _cleanup_(txn_end) struct txn *txn = store_begin(work->call->core->store);
    struct call *call = work->call;
    int r;

    call_view(call);
    if (work->kind->is_ours)
        r = claim_take_txn(&work->claim, call, txn, CLASS_OF(VM), work->vm, work->kind->operation,
                           false);
    else
        r = claim_begin_txn(&work->claim, call, txn, CLASS_OF(VM), work->vm, work->kind->operation);
    if (r < 0)
        return r;
    work->uuid = arena_strdup(call->arena, VM_get_uuid(txn_get(txn, VM, work->vm)));
    if (begin) {
        r = begin(work, txn);
        if (r < 0)
            return r;
    }
    call->depends = MAX(call->depends, store_apply(&txn));
    return 0;
}

/* A host that is taken to be alive may be without a link for a moment: its agent, or this master, has just been started
 * again. Such a moment fails nobody's call. */
static int assert_linked(struct call *call, ref_t host)
{
    const struct view *view = call_view(call);
    const struct object *record = view_get(view, host, host), *metrics;

    if (ref_is_null(host) || slave_is_linked(call->core->slaves, host))
        return 0;
    metrics = record ? view_get(view, host_metrics, host_get_metrics(record)) : NULL;
    if (!metrics || !host_metrics_get_live(metrics))
        return fail(call, HOST_OFFLINE, ref_text(call, host));
    return slave_wait_linked(call, host, clock_now_ms(call->core->clock) + LINK_WAIT_MS);
}

/* Waits: the INTENT may be gone afterwards. */
static int assert_hosts_linked(struct call *call, const struct object *intent)
{
    ref_t destination = intent_get_destination(intent);
    int r = assert_linked(call, intent_get_source(intent));

    return r < 0 ? r : assert_linked(call, destination);
}

/* After a refusal of begin_once(): until it may have become void. Who waits for a call of ours sees
 * its end. But what is in doubt ends only when its hosts are there, and whoever asks for the next
 * operation is told that they are not. */
static int wait_for_others(struct work *work, uint64_t since_ms)
{
    struct call *call = work->call;
    const struct object *intent = intent_of_vm(call_view(call), work->vm);
    int r;

    if (work->kind->is_ours || !intent || claim_live_call(call->core, work->vm))
        return claim_wait(call, since_ms);
    r = assert_hosts_linked(call, intent);
    if (r == 0) /* it may have ended while we waited for a host: look again soon */
        r = claim_wait_object(call, work->vm, loop_now_ms(call->core->loop) + SETTLING_MS);
    return r;
}

/* While the records may be old no right to run is given. A call waits as long as a silent host is taken to be alive; the pool's
 * own work has time. */
static int wait_for_hosts(struct call *call, const struct work_kind *kind, uint64_t since_ms)
{
    return kind->lets_run ? awaited_wait(call, kind->is_ours ? 0 : since_ms + LINK_WAIT_MS) : 0;
}

/* The claim and whatever `begin` adds to its transaction; waits while another operation is in the
 * way. */
int work_claim(struct work *work, struct call *call, const struct work_kind *kind, ref_t vm,
               int (*begin)(struct work *, struct txn *))
{
    uint64_t since_ms = loop_now_ms(call->core->loop);
    int r;

    work->call = call;
    work->kind = kind;
    work->vm = vm;
    for (;;) {
        r = wait_for_hosts(call, kind, since_ms);
        if (r < 0) {
            work->call = NULL;
            return r;
        }
        r = begin_once(work, begin);
        if (r == 0)
            return 0;
        claim_end(&work->host_claim); /* what they put was rolled back */
        claim_end(&work->claim);
        if (r == -ERR_OTHER_OPERATION_IN_PROGRESS)
            r = wait_for_others(work, since_ms);
        if (r < 0) {
            work->call = NULL;
            return r;
        }
    }
}

/* The VM's host and epoch as they are. */
static void begin_where_it_is(struct work *work, struct txn *txn)
{
    const struct object *vm = txn_get(txn, VM, work->vm);

    work->host = VM_get_resident_on(vm);
    work->epoch = (uint64_t) VM_get_epoch(vm);
}

/* INTENT and operation id, in the transaction that decides on the work. */
static void begin_intent(struct work *work, struct txn *txn)
{
    work_intend(work, txn, work->is_arrival ? NULL_REF : work->host,
                work->is_arrival ? work->host : NULL_REF, "");
    work->call->intent = work->intent;
    slave_operation_prepare(work->call, txn);
}

static int begin_all(struct work *work, struct txn *txn)
{
    int r;

    begin_where_it_is(work, txn);
    if (work->kind->begin) {
        r = work->kind->begin(work, txn);
        if (r < 0)
            return r;
    }
    begin_intent(work, txn);
    return 0;
}

/* Cancel who works on the VM and wait until they have ended. What they leave in doubt is settled by
 * recovery.c at once if its hosts are there; otherwise nobody can act on the VM before they are. */
static int wait_until_alone(struct work *work)
{
    struct call *call = work->call;
    uint64_t deadline_ms = loop_now_ms(call->core->loop) + LINK_WAIT_MS;
    const struct object *intent;
    int r;

    for (;;) {
        r = claim_alone(&work->claim);
        if (r < 0)
            return r;
        intent = intent_of_vm(call_view(call), work->vm);
        if (!intent)
            return 0;
        r = awaited_wait(call, deadline_ms);
        intent = intent_of_vm(call_view(call), work->vm);
        if (r == 0 && intent)
            r = assert_hosts_linked(call, intent);
        if (r == 0)
            r = claim_wait_object(call, work->vm, loop_now_ms(call->core->loop) + SETTLING_MS);
        if (r < 0)
            return r;
    }
}

/* Hard operations begin in two steps: the claim, beside what is under way; and the work, when that
 * has ended. */
static int begin_hard(struct work *work)
{
    struct call *call = work->call;
    const struct object *vm;
    struct txn *txn;
    int r;

    r = wait_until_alone(work);
    if (r < 0)
        return r;
    vm = view_get(call_view(call), VM, work->vm);
    if (!vm)
        return fail(call, HANDLE_INVALID, "VM", ref_text(call, work->vm));
    if (ref_is_null(VM_get_resident_on(vm)))
        return 0; /* what we waited for has ended it; the handler looks */
    txn = store_begin(call->core->store);
    r = begin_all(work, txn);
    if (r == 0)
        call->depends = MAX(call->depends, store_apply(&txn));
    txn_end(&txn);
    return r;
}

int work_begin(struct work *work, struct call *call, const struct work_kind *kind, ref_t vm)
{
    int r = work_claim(work, call, kind, vm, kind->is_hard ? NULL : begin_all);

    if (r < 0)
        return r;
    if (kind->is_hard) {
        r = begin_hard(work);
        if (r < 0) {
            claim_end(&work->claim);
            work->call = NULL;
            return r;
        }
    }
    if (!kind->is_cancellable)
        fiber_uncancellable_begin();
    return 0;
}

/* ---- concluding ---- */

static void close_work(struct work *work)
{
    if (!work->kind->is_cancellable)
        fiber_uncancellable_end();
    work->call->intent = NULL_REF;
    work->call = NULL;
}

struct txn *work_finish_begin(struct work *work)
{
    struct txn *txn = store_begin(work->call->core->store);

    if (!ref_is_null(work->intent) && txn_get(txn, intent, work->intent))
        txn_delete(txn, CLASS_OF(intent), work->intent);
    claim_end_txn(&work->host_claim, txn);
    claim_end_txn(&work->claim, txn);
    return txn;
}

void work_leave_in_doubt(struct work *work)
{
    claim_end(&work->host_claim);
    claim_keep(&work->claim);
    recovery_orphan(work->call->core, work->intent);
    work->call->intent = NULL_REF;
}

static void undo(struct work *work)
{
    struct call *call = work->call;
    struct txn *txn = work_finish_begin(work);

    if (work->kind->undone && txn_get(txn, VM, work->vm))
        work->kind->undone(work, txn);
    call_commit(call, &txn);
    slave_confirm(call);
}

static void finish(struct work *work, const struct value *answer)
{
    struct call *call = work->call;
    struct txn *txn = work_finish_begin(work);

    work->kind->done(work, txn, answer_state(answer), answer_domid(answer));
    call_commit(call, &txn);
    slave_confirm(call);
    call->intent = NULL_REF;
    if (work->kind->after)
        work->kind->after(work);
    if (work->kind->is_hard) /* what it has cancelled may have left disks half made */
        storage_sweep(call, work->host);
}

int work_see_undone(struct work *work)
{
    struct failure kept = work->call->failure;
    int r = work->kind->see_undone ? work->kind->see_undone(work) : 0;

    work->call->failure = kept;
    return r;
}

/* A higher epoch of the VM was believed since the work began: it was begun with records that are older than that, and is about a
 * guest that is not the VM any more. */
static bool is_overtaken(const struct work *work)
{
    const struct object *vm = view_get(call_view(work->call), VM, work->vm);

    return vm && (uint64_t) VM_get_epoch(vm) > work->epoch;
}

int work_give_up(struct work *work)
{
    struct call *call = work->call;
    struct txn *txn;
    int r = fail(call, INTERNAL_ERROR, "the pool's records were old, so what became of this is not known");

    txn = work_finish_begin(work);
    VM_put_scheduled_to_be_resident_on(txn, work->vm, NULL_REF);
    if (work->kind->undone && !work->kind->see_undone) /* what was set aside for it; the state is told */
        work->kind->undone(work, txn);
    call_commit(call, &txn);
    slave_confirm(call);
    recovery_ask_hosts(call->core);
    close_work(work);
    return r;
}

int work_conclude(struct work *work, int r, const struct value *answer)
{
    struct call *call = work->call;

    if (is_overtaken(work))
        return work_give_up(work);
    if (r < 0 && (slave_call_in_doubt(call) || work_see_undone(work) < 0)) {
        work_leave_in_doubt(work);
    } else if (r < 0) {
        undo(work);
        if (r == -ERR_VM_BAD_POWER_STATE) /* not what the model had said */
            guest_compare_later(call->core, work->vm);
        r = slave_failure(call, work->vm, r);
    } else {
        finish(work, answer);
    }
    close_work(work);
    return r;
}

void work_end(struct work *work)
{
    if (!work->call)
        return;
    undo(work);
    close_work(work);
}

void work_abandon(struct work *work)
{
    work_leave_in_doubt(work);
    close_work(work);
}

/* ---- answers ---- */

enum guest_is answer_state(const struct value *answer)
{
    const char *state =
        answer && answer->kind == KIND_MAP ? value_map_text(answer, "state", "") : "";

    if (streq(state, "running"))
        return GUEST_IS_RUNNING;
    return streq(state, "paused") ? GUEST_IS_PAUSED : GUEST_IS_ENDED;
}

int64_t answer_domid(const struct value *answer)
{
    const char *text =
        answer && answer->kind == KIND_MAP ? value_map_text(answer, "domid", "-1") : "-1";

    return strtoll(text, NULL, 10);
}

int slave_failure(struct call *call, ref_t vm, int r)
{
    const struct error_row *row = r < -ERR_NONE_ ? model_error(-r) : NULL;

    if (row && row->param_count > 0 && call->failure.count > 0
        && (strncmp(row->params, "vm,", 3) == 0 || streq(row->params, "vm")))
        call->failure.params[0] = ref_text(call, vm);
    return r;
}
