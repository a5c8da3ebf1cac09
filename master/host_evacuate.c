/* host_evacuate.c - letting VMs in or not, and emptying a host (wire.md section 13)
 *
 * evacuate: the claim closes the host for VMs that would come; a plan gives each VM a destination,
 * counting what is placed already; then every VM is moved by the very call that a client would
 * make. flows.h sees to it that few move at a time. A move that fails does not stop the others:
 * what is left afterwards is planned again, a few times. */
#include "master/background.h"
#include "master/claim.h"
#include "master/core.h"
#include "master/enrol.h"
#include "master/placement.h"
#include "master/put.h"
#include "master/task.h"
#include "master/VM_boot.h"
#include "shared/fiber.h"

/* So often what is left is planned anew: hosts fill up and go away while a large host is emptied.
 */
#define ROUNDS_MAX 3

/* ---- disable, enable ---- */

static bool is_live(const struct view *view, const struct object *host)
{
    const struct object *metrics = view_get(view, host_metrics, host_get_metrics(host));

    return metrics && host_metrics_get_live(metrics);
}

/* A disabled host enables itself when it starts again (enrol.c), unless the user said that it shall not. */
static void put_enabled(struct txn *txn, ref_t host_ref, bool is_enabled, bool auto_enable)
{
    const struct object *host = txn_get(txn, host, host_ref);
    struct value key = value_text(HOST_STAYS_DISABLED), yes = value_text("true"), map;
    struct arena *arena = arena_new();

    if (!is_enabled && !auto_enable)
        map = value_map_with(arena, host_get_other_config(host), &key, &yes);
    else
        map = value_map_without(arena, host_get_other_config(host), &key);
    host_put_other_config(txn, host_ref, &map);
    host_put_enabled(txn, host_ref, is_enabled);
    arena_destroy(&arena);
}

int host_disable(struct call *call, const struct host_disable_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    (void) ret;
    if (!txn_get(txn, host, args->host))
        return fail(call, HANDLE_INVALID, "host", ref_text(call, args->host));
    put_enabled(txn, args->host, false, args->auto_enable);
    return call_commit(call, &txn);
}

int host_enable(struct call *call, const struct host_enable_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    struct txn *txn;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(host), args->host, host_allowed_operations_enable);
    if (r < 0)
        return r;
    if (!is_live(call_view(call), view_get(call_view(call), host, args->host)))
        return fail(call, HOST_STILL_BOOTING);
    txn = store_begin(call->core->store);
    claim_end_txn(&claim, txn);
    put_enabled(txn, args->host, true, true);
    return call_commit(call, &txn);
}

/* ---- what balloons ---- */

/* Every VM of ours does what it is told about its memory: the hypervisors that we drive see to
 * that. */
int host_get_uncooperative_resident_VMs(struct call *call,
                                        const struct host_get_uncooperative_resident_VMs_args *args,
                                        struct value *ret)
{
    (void) call;
    (void) args;
    *ret = VALUE_EMPTY_SET;
    return 0;
}

int host_get_uncooperative_domains(struct call *call,
                                   const struct host_get_uncooperative_domains_args *args,
                                   struct value *ret)
{
    (void) call;
    (void) args;
    *ret = VALUE_EMPTY_SET;
    return 0;
}

/* ---- the plan ---- */

struct leaving {
    ref_t vm, destination;  /* null: nowhere, */
    struct failure why_not; /* and why */
};

struct plan {
    struct call *call;
    const struct view *view;
    ref_t host;
    struct leaving *vms;
    int count, without;
};

static bool plan_allows(void *arg, ref_t vm, ref_t host)
{
    struct plan *plan = arg;

    return assert_lets_in(plan->call, plan->view, host) == 0
           && assert_can_boot_here(plan->call, plan->view, vm, host, BOOT_ANY_MEMORY) == 0;
}

/* Why does a VM have no place? The first host that refuses it for another reason than memory says
 * so, if all do. */
static void explain(struct plan *plan, struct leaving *leaving)
{
    struct call *call = plan->call;
    bool is_memory = false, has_other_host = false;
    int count;
    const struct room_host *hosts = room_hosts(call->core->room, &count);

    call->failure = (struct failure){0};
    for (int i = 0; i < count; i++) {
        if (ref_equal(hosts[i].host, plan->host) || !hosts[i].is_enabled || !hosts[i].is_live)
            continue;
        has_other_host = true;
        is_memory |= plan_allows(plan, leaving->vm, hosts[i].host);
    }
    if (!has_other_host)
        fail(call, NO_HOSTS_AVAILABLE, ref_text(call, leaving->vm));
    else if (is_memory)
        fail(call, HOST_NOT_ENOUGH_FREE_MEMORY, ref_text(call, leaving->vm));
    leaving->why_not = call->failure;
    call->failure = (struct failure){0};
}

/* A destination for every VM that runs there. Suspended and halted ones are nowhere. */
static void plan_make(struct plan *plan, struct call *call, ref_t host)
{
    const struct field *residents = &CLASS_OF(host)->fields[F_host_resident_VMs];
    const struct object *vm;
    struct placement_vm *needs;
    struct view_iter vms;
    ref_t *destinations;
    size_t most;
    int hosts_count;
    const struct room_host *hosts = room_hosts(call->core->room, &hosts_count);

    *plan = (struct plan){.call = call, .view = call_view(call), .host = host};
    most = view_count_inverse(plan->view, residents, host);
    needs = arena_alloc_array(call->arena, most, sizeof *needs);
    destinations = arena_alloc_array(call->arena, most, sizeof *destinations);
    plan->vms = arena_alloc_array(call->arena, most, sizeof *plan->vms);
    view_each_inverse(&vms, plan->view, residents, host);
    while ((vm = view_next(&vms)))
        if (!VM_get_is_control_domain(vm))
            needs[plan->count++] = boot_needs(vm);
    plan->without = placement_evacuate(hosts, hosts_count, host, needs, plan->count, plan_allows,
                                       plan, destinations);
    for (int i = 0; i < plan->count; i++) {
        plan->vms[i] = (struct leaving){.vm = needs[i].vm, .destination = destinations[i]};
        if (ref_is_null(destinations[i]))
            explain(plan, &plan->vms[i]);
    }
    call->failure = (struct failure){0};
}

static struct value failure_texts(struct call *call, const struct failure *failure)
{
    struct value *items = arena_alloc_array(call->arena, failure->count + 1, sizeof *items);

    items[0] = value_text(failure->text);
    for (unsigned i = 0; i < failure->count; i++)
        items[i + 1] = value_text(failure->params[i]);
    return VALUE_SET(failure->count + 1, items);
}

int host_get_vms_which_prevent_evacuation(
    struct call *call, const struct host_get_vms_which_prevent_evacuation_args *args,
    struct value *ret)
{
    struct value *items;
    uint32_t count = 0;
    struct plan plan;

    plan_make(&plan, call, args->self);
    items = arena_alloc_array(call->arena, 2 * (size_t) plan.without, sizeof *items);
    for (int i = 0; i < plan.count; i++) {
        if (!ref_is_null(plan.vms[i].destination))
            continue;
        items[2 * count] = VALUE_REF(plan.vms[i].vm);
        items[2 * count++ + 1] = failure_texts(call, &plan.vms[i].why_not);
    }
    *ret = VALUE_MAP(count, items);
    return 0;
}

/* "code,params|code,params" */
int host_assert_can_evacuate(struct call *call, const struct host_assert_can_evacuate_args *args,
                             struct value *ret)
{
    const char *text = "";
    struct plan plan;

    (void) ret;
    plan_make(&plan, call, args->host);
    if (plan.without == 0)
        return 0;
    for (int i = 0; i < plan.count; i++) {
        const struct failure *why = &plan.vms[i].why_not;

        if (!ref_is_null(plan.vms[i].destination))
            continue;
        text = arena_text(call->arena, "%s%s%s", text, *text ? "|" : "", why->text);
        for (unsigned j = 0; j < why->count; j++)
            text = arena_text(call->arena, "%s,%s", text, why->params[j]);
    }
    return fail(call, CANNOT_EVACUATE_HOST, text);
}

/* ---- the moves ---- */

/* Shared by the evacuating call and its movers; the last one frees it. */
struct evacuation {
    unsigned users;
    int moving, finished, planned;
    struct waitq changed;
    struct arena *arena;
    struct failure failure; /* of the first move that failed for good */
    bool is_cancelled;
};

struct mover {
    struct evacuation *evacuation;
    ref_t vm, host, network;
};

static void evacuation_drop(struct evacuation *evacuation)
{
    if (--evacuation->users > 0)
        return;
    arena_destroy(&evacuation->arena);
    free(evacuation);
}

static void mover_main(struct call *call, void *arg)
{
    struct mover *mover = arg;
    struct evacuation *evacuation = mover->evacuation;
    struct value items[4], options = VALUE_MAP(1, items), nothing;
    struct VM_pool_migrate_args args = {mover->vm, mover->host, &options};
    int r = -ERR_TASK_CANCELLED;

    items[0] = value_text("live");
    items[1] = value_text("true");
    if (!ref_is_null(mover->network)) {
        items[2] = value_text("network");
        items[3] = value_text(ref_text(call, mover->network));
        options.length = 2;
    }
    if (!evacuation->is_cancelled)
        r = VM_pool_migrate(call, &args, &nothing);
    /* One that stopped meanwhile, or is gone, is not there any more: that is what was wanted. */
    if (r < 0 && r != -ERR_VM_BAD_POWER_STATE && r != -ERR_HANDLE_INVALID
        && !evacuation->failure.code)
        failure_copy(&evacuation->failure, evacuation->arena, &call->failure);
    evacuation->moving--;
    evacuation->finished++;
    waitq_wake_all(&evacuation->changed);
    evacuation_drop(evacuation);
    free(mover);
}

static void move_all(struct evacuation *evacuation, struct plan *plan, ref_t network)
{
    for (int i = 0; i < plan->count; i++) {
        struct mover *mover;

        if (ref_is_null(plan->vms[i].destination))
            continue;
        mover = new0(struct mover);
        *mover = (struct mover){evacuation, plan->vms[i].vm, plan->vms[i].destination, network};
        evacuation->users++;
        evacuation->moving++;
        evacuation->planned++;
        background_run(plan->call->core, "VM.pool_migrate", "", mover_main, mover);
    }
}

/* A cancel lets the moves that are under way come to their end, and begins no more. */
static int wait_for_moves(struct call *call, struct evacuation *evacuation)
{
    while (evacuation->moving > 0) {
        if (waitq_wait(&evacuation->changed, 0) < 0) {
            evacuation->is_cancelled = true;
            return task_cancelled(call);
        }
        task_progress(call, (double) evacuation->finished / evacuation->planned);
    }
    return 0;
}

static int evacuate_rounds(struct call *call, struct evacuation *evacuation, ref_t host,
                           ref_t network)
{
    struct plan plan;
    int r;

    for (int round = 0; round < ROUNDS_MAX; round++) {
        plan_make(&plan, call, host);
        if (plan.count == 0)
            return 0;
        for (int i = 0; i < plan.count && plan.without > 0; i++) {
            if (!ref_is_null(plan.vms[i].destination))
                continue;
            call->failure = plan.vms[i].why_not;
            return -call->failure.code;
        }
        evacuation->failure = (struct failure){0};
        core_emit(call);
        move_all(evacuation, &plan, network);
        r = wait_for_moves(call, evacuation);
        if (r < 0)
            return r;
    }
    plan_make(&plan, call, host);
    if (plan.count == 0)
        return 0;
    if (!evacuation->failure.code)
        return fail(call, INTERNAL_ERROR, "VMs were left on the host");
    failure_copy(&call->failure, call->arena, &evacuation->failure);
    return -call->failure.code;
}

/* batch_size is how many moves xapi keeps under way; here flows.h knows what each host can bear. */
int host_evacuate(struct call *call, const struct host_evacuate_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    struct evacuation *evacuation;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(host), args->host, host_allowed_operations_evacuate);
    if (r < 0)
        return r;
    evacuation = new0(struct evacuation);
    evacuation->users = 1;
    evacuation->arena = arena_new();
    task_set_cancellable(call, true);
    r = evacuate_rounds(call, evacuation, args->host, args->network);
    task_set_cancellable(call, false);
    evacuation_drop(evacuation);
    return r;
}
