/* VM_memory.c - how much memory and how many virtual CPUs a VM has, halted and running
 *
 * The order of the limits is one promise: static_min <= dynamic_min <= dynamic_max <= static_max.
 * memory_overhead follows each change of what it depends on. A running guest is told its new
 * target; the record keeps what was accepted. */
#include "master/VM.h"

#include "master/claim.h"
#include "master/memory.h"
#include "master/room.h"
#include "master/slaves.h"
#include "shared/fiber.h"

/* How near to its target a guest's memory counts as there, and how long it is waited for. */
#define TARGET_NEAR_BYTES (16 * MIB)
#define TARGET_WAIT_MS    256000
#define TARGET_LOOK_MS    200

#define KEEP INT64_MIN /* a limit that stays */

struct limits {
    int64_t static_min, dynamic_min, dynamic_max, static_max;
};

static void settle(int64_t *limit, int64_t now)
{
    if (*limit == KEEP)
        *limit = now;
}

/* Tell a running guest its new target. */
static int set_target_live(struct call *call, ref_t ref, int64_t target_bytes)
{
    const struct object *vm = live(call, call_view(call), VM, ref);
    struct slave_vm_set_memory_args args;

    if (!vm)
        return -ERR_HANDLE_INVALID;
    args = (struct slave_vm_set_memory_args){.vm = arena_strdup(call->arena, VM_get_uuid(vm)),
                                             .epoch = VM_get_epoch(vm),
                                             .target_bytes = target_bytes};
    return slave_vm_set_memory(call, VM_get_resident_on(vm), &args, NULL);
}

/* A running guest may get more only as far as its host has it. */
static int check_room(struct call *call, const struct object *vm, int64_t dynamic_min)
{
    const struct room_host *room = room_host(call->core->room, VM_get_resident_on(vm));
    int64_t more = dynamic_min - VM_get_memory_dynamic_min(vm);

    if (!room || more <= 0 || more <= room_free_bytes(room))
        return 0;
    return fail(call, HOST_NOT_ENOUGH_FREE_MEMORY, int_text(call, more),
                int_text(call, MAX(room_free_bytes(room), (int64_t) 0)));
}

static int set_limits(struct call *call, ref_t ref, enum vm_operations operation,
                      struct limits limits)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *vm;
    int r;

    r = claim_begin(&claim, call, CLASS_OF(VM), ref, (int) operation);
    if (r < 0)
        return r;
    vm = live(call, call_view(call), VM, ref);
    if (!vm)
        return -ERR_HANDLE_INVALID;
    settle(&limits.static_min, VM_get_memory_static_min(vm));
    settle(&limits.dynamic_min, VM_get_memory_dynamic_min(vm));
    settle(&limits.dynamic_max, VM_get_memory_dynamic_max(vm));
    settle(&limits.static_max, VM_get_memory_static_max(vm));
    r = vm_check_memory(call, limits.static_min, limits.dynamic_min, limits.dynamic_max,
                        limits.static_max);
    if (r < 0)
        return r;
    if (limits.static_max < MIB) /* memory is given in these; none at all is for VMs in the making */
        return fail(call, MEMORY_CONSTRAINT_VIOLATION, "1 MiB <= memory_static_max");
    if (VM_get_power_state(vm) == vm_power_state_Running && !VM_get_is_control_domain(vm)) {
        r = check_room(call, vm, limits.dynamic_min);
        if (r == 0)
            r = set_target_live(call, ref, limits.dynamic_max);
        if (r < 0)
            return r;
    }

    txn = store_begin(call->core->store);
    if (!live(call, txn_view(txn), VM, ref))
        return -ERR_HANDLE_INVALID;
    VM_put_memory_static_min(txn, ref, limits.static_min);
    VM_put_memory_dynamic_min(txn, ref, limits.dynamic_min);
    VM_put_memory_dynamic_max(txn, ref, limits.dynamic_max);
    VM_put_memory_static_max(txn, ref, limits.static_max);
    VM_put_memory_target(txn, ref, limits.dynamic_max);
    vm_count_overhead(txn, ref);
    claim_end_txn(&claim, txn);
    return call_commit(call, &txn);
}

int VM_set_memory_limits(struct call *call, const struct VM_set_memory_limits_args *args,
                         struct value *ret)
{
    (void) ret;
    return set_limits(
        call, args->self, vm_operations_changing_memory_limits,
        (struct limits){args->static_min, args->dynamic_min, args->dynamic_max, args->static_max});
}

int VM_set_memory(struct call *call, const struct VM_set_memory_args *args, struct value *ret)
{
    (void) ret;
    return set_limits(call, args->self, vm_operations_changing_memory_limits,
                      (struct limits){KEEP, args->value, args->value, args->value});
}

int VM_set_memory_dynamic_range(struct call *call,
                                const struct VM_set_memory_dynamic_range_args *args,
                                struct value *ret)
{
    (void) ret;
    return set_limits(call, args->self, vm_operations_changing_dynamic_range,
                      (struct limits){KEEP, args->min, args->max, KEEP});
}

int VM_set_memory_dynamic_min(struct call *call, const struct VM_set_memory_dynamic_min_args *args,
                              struct value *ret)
{
    (void) ret;
    return set_limits(call, args->self, vm_operations_changing_dynamic_range,
                      (struct limits){KEEP, args->value, KEEP, KEEP});
}

int VM_set_memory_dynamic_max(struct call *call, const struct VM_set_memory_dynamic_max_args *args,
                              struct value *ret)
{
    (void) ret;
    return set_limits(call, args->self, vm_operations_changing_dynamic_range,
                      (struct limits){KEEP, KEEP, args->value, KEEP});
}

int VM_set_memory_static_range(struct call *call,
                               const struct VM_set_memory_static_range_args *args,
                               struct value *ret)
{
    (void) ret;
    return set_limits(call, args->self, vm_operations_changing_static_range,
                      (struct limits){args->min, KEEP, KEEP, args->max});
}

int VM_set_memory_static_min(struct call *call, const struct VM_set_memory_static_min_args *args,
                             struct value *ret)
{
    (void) ret;
    return set_limits(call, args->self, vm_operations_changing_static_range,
                      (struct limits){args->value, KEEP, KEEP, KEEP});
}

int VM_set_memory_static_max(struct call *call, const struct VM_set_memory_static_max_args *args,
                             struct value *ret)
{
    (void) ret;
    return set_limits(call, args->self, vm_operations_changing_static_range,
                      (struct limits){KEEP, KEEP, KEEP, args->value});
}

/* ---- targets ---- */

int VM_set_memory_target_live(struct call *call, const struct VM_set_memory_target_live_args *args,
                              struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *vm;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(VM), args->self, vm_operations_changing_memory_live);
    if (r < 0)
        return r;
    vm = live(call, call_view(call), VM, args->self);
    if (!vm)
        return -ERR_HANDLE_INVALID;
    if (args->target < VM_get_memory_static_min(vm) || args->target > VM_get_memory_static_max(vm))
        return fail(call, MEMORY_CONSTRAINT_VIOLATION,
                    "the target must lie between static_min and static_max");
    r = check_room(call, vm, args->target);
    if (r == 0 && !VM_get_is_control_domain(vm))
        r = set_target_live(call, args->self, args->target);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    if (!live(call, txn_view(txn), VM, args->self))
        return -ERR_HANDLE_INVALID;
    VM_put_memory_target(txn, args->self, args->target);
    VM_put_memory_dynamic_min(txn, args->self, args->target);
    VM_put_memory_dynamic_max(txn, args->self, args->target);
    claim_end_txn(&claim, txn);
    return call_commit(call, &txn);
}

/* The guest's memory as its host last measured it, or -1 while nobody has. */
static int64_t memory_actual(const struct view *view, const struct object *vm)
{
    const struct object *metrics = view_get(view, VM_metrics, VM_get_metrics(vm));

    return metrics && VM_metrics_get_memory_actual(metrics) > 0
               ? VM_metrics_get_memory_actual(metrics)
               : -1;
}

int VM_wait_memory_target_live(struct call *call,
                               const struct VM_wait_memory_target_live_args *args,
                               struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    uint64_t deadline_ms = clock_now_ms(call->core->clock) + TARGET_WAIT_MS;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(VM), args->self, vm_operations_awaiting_memory_live);
    if (r < 0)
        return r;
    for (;;) {
        const struct view *view = call_view(call);
        const struct object *vm = live(call, view, VM, args->self);
        int64_t actual;

        if (!vm)
            return -ERR_HANDLE_INVALID;
        actual = memory_actual(view, vm);
        if (actual >= 0 && llabs(actual - VM_get_memory_target(vm)) <= TARGET_NEAR_BYTES)
            return 0;
        if (clock_now_ms(call->core->clock) > deadline_ms)
            return failure_set_text(&call->failure, call->arena, "VM_MEMORY_TARGET_WAIT_TIMEOUT", 1,
                                    (const char *const[]){ref_text(call, args->self)});
        if (fiber_sleep(TARGET_LOOK_MS) < 0)
            return fail(call, TASK_CANCELLED, ref_text(call, call->task));
    }
}

int VM_get_cooperative(struct call *call, const struct VM_get_cooperative_args *args,
                       struct value *ret)
{
    if (!live(call, call_view(call), VM, args->self))
        return -ERR_HANDLE_INVALID;
    *ret = VALUE_BOOL(true); /* no balloon driver that could refuse */
    return 0;
}

int VM_compute_memory_overhead(struct call *call,
                               const struct VM_compute_memory_overhead_args *args,
                               struct value *ret)
{
    const struct object *vm = live(call, call_view(call), VM, args->vm);

    if (!vm)
        return -ERR_HANDLE_INVALID;
    *ret = VALUE_INT(vm_memory_overhead_bytes(vm));
    return 0;
}

/* The largest static_max that fits with its overhead into `total` bytes: the overhead grows with
 * it, so it is sought by halving. */
int VM_maximise_memory(struct call *call, const struct VM_maximise_memory_args *args,
                       struct value *ret)
{
    const struct object *vm = live(call, call_view(call), VM, args->self);
    int64_t low = 0, high = MIN(MAX(args->total, (int64_t) 0), MEMORY_BYTES_MAX) / MIB;

    if (!vm)
        return -ERR_HANDLE_INVALID;
    while (low < high) {
        int64_t mib = low + (high - low + 1) / 2;
        int64_t overhead = memory_overhead_bytes(
            vm_is_hvm(vm), VM_get_domain_type(vm) == domain_type_pv_in_pvh, mib * MIB,
            VM_get_VCPUs_max(vm), VM_get_HVM_shadow_multiplier(vm));

        if (mib * MIB + overhead <= args->total)
            low = mib;
        else
            high = mib - 1;
    }
    *ret = VALUE_INT(low * MIB);
    return 0;
}

/* ---- shadow memory ---- */

static int set_shadow_multiplier(struct call *call, ref_t self, enum vm_operations operation,
                                 double multiplier)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    int r = vm_check_shadow(call, "multiplier", multiplier);

    if (r < 0)
        return r;
    r = claim_begin(&claim, call, CLASS_OF(VM), self, (int) operation);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    if (!live(call, txn_view(txn), VM, self))
        return -ERR_HANDLE_INVALID;
    VM_put_HVM_shadow_multiplier(txn, self, multiplier);
    vm_count_overhead(txn, self);
    claim_end_txn(&claim, txn);
    return call_commit(call, &txn);
}

int VM_set_HVM_shadow_multiplier(struct call *call,
                                 const struct VM_set_HVM_shadow_multiplier_args *args,
                                 struct value *ret)
{
    (void) ret;
    return set_shadow_multiplier(call, args->self, vm_operations_changing_shadow_memory,
                                 args->value);
}

int VM_set_shadow_multiplier_live(struct call *call,
                                  const struct VM_set_shadow_multiplier_live_args *args,
                                  struct value *ret)
{
    (void) ret;
    return set_shadow_multiplier(call, args->self, vm_operations_changing_shadow_memory_live,
                                 args->multiplier);
}

/* ---- virtual CPUs ---- */

static int set_vcpus(struct call *call, ref_t self, int64_t max, int64_t at_startup)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *vm;
    int r;

    r = claim_begin(&claim, call, CLASS_OF(VM), self, vm_operations_changing_VCPUs);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    vm = live(call, txn_view(txn), VM, self);
    if (!vm)
        return -ERR_HANDLE_INVALID;
    settle(&max, VM_get_VCPUs_max(vm));
    settle(&at_startup, VM_get_VCPUs_at_startup(vm));
    r = vm_check_vcpus(call, max, at_startup);
    if (r < 0)
        return r;
    VM_put_VCPUs_max(txn, self, max);
    VM_put_VCPUs_at_startup(txn, self, at_startup);
    vm_count_overhead(txn, self);
    claim_end_txn(&claim, txn);
    return call_commit(call, &txn);
}

int VM_set_VCPUs_max(struct call *call, const struct VM_set_VCPUs_max_args *args, struct value *ret)
{
    const struct object *vm = live(call, call_view(call), VM, args->self);

    (void) ret;
    if (!vm)
        return -ERR_HANDLE_INVALID;
    /* The client must lower VCPUs_at_startup first; then the number named is the one refused. */
    if (args->value < VM_get_VCPUs_at_startup(vm))
        return fail(call, INVALID_VALUE, "VCPUs_max", int_text(call, args->value));
    return set_vcpus(call, args->self, args->value, KEEP);
}

int VM_set_VCPUs_at_startup(struct call *call, const struct VM_set_VCPUs_at_startup_args *args,
                            struct value *ret)
{
    (void) ret;
    return set_vcpus(call, args->self, KEEP, args->value);
}

int VM_set_VCPUs_number_live(struct call *call, const struct VM_set_VCPUs_number_live_args *args,
                             struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct slave_vm_set_vcpus_args set;
    const struct object *vm;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(VM), args->self, vm_operations_changing_VCPUs_live);
    if (r < 0)
        return r;
    vm = live(call, call_view(call), VM, args->self);
    if (!vm)
        return -ERR_HANDLE_INVALID;
    if (args->nvcpu < 1 || args->nvcpu > VM_get_VCPUs_max(vm))
        return fail(call, INVALID_VALUE, "nvcpu", int_text(call, args->nvcpu));
    set = (struct slave_vm_set_vcpus_args){.vm = arena_strdup(call->arena, VM_get_uuid(vm)),
                                           .epoch = VM_get_epoch(vm),
                                           .vcpus = args->nvcpu};
    r = slave_vm_set_vcpus(call, VM_get_resident_on(vm), &set, NULL);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    vm = live(call, txn_view(txn), VM, args->self);
    if (!vm)
        return -ERR_HANDLE_INVALID;
    if (txn_get(txn, VM_metrics, VM_get_metrics(vm)))
        VM_metrics_put_VCPUs_number(txn, VM_get_metrics(vm), args->nvcpu);
    VM_put_VCPUs_at_startup(txn, args->self, args->nvcpu);
    claim_end_txn(&claim, txn);
    return call_commit(call, &txn);
}

int VM_add_to_VCPUs_params_live(struct call *call,
                                const struct VM_add_to_VCPUs_params_live_args *args,
                                struct value *ret)
{
    (void) ret;
    return field_add_to(call, CLASS_OF(VM), args->self, F_VM_VCPUs_params, value_text(args->key),
                        value_text(args->value));
}
