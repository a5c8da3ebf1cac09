/* VM_create.c - VMs come and go: constructor, what each new VM gets, destructor */
#include "master/VM.h"

#include <inttypes.h>

#include "master/blob.h"
#include "master/claim.h"
#include "master/memory.h"
#include "master/slaves.h"
#include "master/storage.h"
#include "master/vm_state.h"
#include "shared/random.h"

/* ---- checks ---- */

int vm_check_memory(struct call *call, int64_t static_min, int64_t dynamic_min, int64_t dynamic_max,
                    int64_t static_max)
{
    if (static_min < 0)
        return fail(call, INVALID_VALUE, "memory_static_min", int_text(call, static_min));
    if (static_max > MEMORY_BYTES_MAX)
        return fail(call, INVALID_VALUE, "memory_static_max", int_text(call, static_max));
    if (static_min > dynamic_min || dynamic_min > dynamic_max
        || dynamic_max > static_max)
        return fail(call, MEMORY_CONSTRAINT_VIOLATION,
                    "memory limits must satisfy: static_min <= dynamic_min <= dynamic_max <= "
                    "static_max");
    return 0;
}

int vm_check_vcpus(struct call *call, int64_t max, int64_t at_startup)
{
    if (max < 1 || max > VCPUS_MAX)
        return fail(call, INVALID_VALUE, "VCPUs_max", int_text(call, max));
    if (at_startup < 1 || at_startup > max)
        return fail(call, INVALID_VALUE, "VCPUs_at_startup", int_text(call, at_startup));
    return 0;
}

int vm_check_shadow(struct call *call, const char *name, double multiplier)
{
    if (!(multiplier >= 1.0 && multiplier <= SHADOW_MULTIPLIER_MAX)) /* nor not a number */
        return fail(call, INVALID_VALUE, name, arena_text(call->arena, "%g", multiplier));
    return 0;
}

/* Numbers of a constructor's record whose setters would refuse them. */
static int check_numbers(struct call *call, const struct object *draft)
{
    static const int from_zero[] = {F_VM_hardware_platform_version, F_VM_start_delay,
                                    F_VM_shutdown_delay, F_VM_order, F_VM_memory_target};

    for (size_t i = 0; i < ARRAY_SIZE(from_zero); i++) {
        const struct field *field = &CLASS_OF(VM)->fields[from_zero[i]];
        int64_t value = draft->fields[from_zero[i]].i;

        if (value < 0 || (from_zero[i] == F_VM_memory_target && value > MEMORY_BYTES_MAX))
            return fail(call, INVALID_VALUE, field->name, int_text(call, value));
    }
    return vm_check_shadow(call, "HVM_shadow_multiplier", VM_get_HVM_shadow_multiplier(draft));
}

/* The few keys of platform whose value a hypervisor could not make sense of. */
int vm_check_platform(struct call *call, const struct value *platform, int64_t vcpus_max)
{
    static const char *const switches[] = {"acpi",     "apic",      "pae",        "nx",
                                           "viridian", "nomigrate", "nested-virt"};
    const char *cores = value_map_text(platform, "cores-per-socket", NULL);

    for (size_t i = 0; i < ARRAY_SIZE(switches); i++) {
        const char *text = value_map_text(platform, switches[i], "true");

        if (!streq(text, "true") && !streq(text, "false") && !streq(text, "1") && !streq(text, "0"))
            return fail(call, INVALID_VALUE, arena_text(call->arena, "platform:%s", switches[i]),
                        text);
    }
    if (cores) {
        char *end;
        long long count = strtoll(cores, &end, 10);

        if (*end || count < 1)
            return fail(call, INVALID_VALUE, "platform:cores-per-socket", cores);
        if (vcpus_max > 0 && vcpus_max % count != 0)
            return fail(call, VCPU_MAX_NOT_CORES_PER_SOCKET_MULTIPLE, int_text(call, vcpus_max),
                        cores);
    }
    return 0;
}

/* ---- made ---- */

const char *vm_generation_id_new(struct call *call)
{
    return arena_text(call->arena, "%" PRId64 ":%" PRId64, (int64_t) random_u64(call->core->random),
                      (int64_t) random_u64(call->core->random));
}

void vm_draft_halt(struct object *draft)
{
    struct value *fields = draft->fields;

    fields[F_VM_power_state] = VALUE_ENUM(vm_power_state, vm_power_state_Halted);
    fields[F_VM_allowed_operations] = VALUE_EMPTY_SET;
    fields[F_VM_current_operations] = VALUE_EMPTY_MAP;
    fields[F_VM_resident_on] = VALUE_REF(NULL_REF);
    fields[F_VM_scheduled_to_be_resident_on] = VALUE_REF(NULL_REF);
    fields[F_VM_domid] = VALUE_INT(-1);
    fields[F_VM_epoch] = VALUE_INT(0);
    fields[F_VM_image_epoch] = VALUE_INT(0);
    fields[F_VM_again_after] = value_text("");
    fields[F_VM_metrics] = VALUE_REF(NULL_REF);
    fields[F_VM_guest_metrics] = VALUE_REF(NULL_REF);
    fields[F_VM_requires_reboot] = VALUE_BOOL(false);
}

/* hvm and pv are what HVM_boot_policy says, where the client names no domain type; and the other
 * way round. */
static void settle_domain_type(struct object *draft)
{
    struct value *type = &draft->fields[F_VM_domain_type],
                 *policy = &draft->fields[F_VM_HVM_boot_policy];

    if (type->e.index == domain_type_unspecified)
        type->e.index = streq(policy->text, "") ? domain_type_pv : domain_type_hvm;
    else if (type->e.index != domain_type_hvm)
        *policy = value_text("");
    else if (streq(policy->text, ""))
        *policy = value_text("BIOS order");
}

static ref_t create_metrics(struct call *call, struct txn *txn, const struct object *vm)
{
    struct object *draft = draft_new(call->arena, CLASS_OF(VM_metrics));

    draft->fields[F_VM_metrics_hvm] = VALUE_BOOL(vm_is_hvm(vm));
    draft->fields[F_VM_metrics_current_domain_type] =
        VALUE_ENUM(domain_type, domain_type_unspecified);
    draft->fields[F_VM_metrics_last_updated] = VALUE_DATETIME(clock_utc_s(call->core->clock));
    return draft_create(call, txn, draft);
}

/* A VM may have the uuid of one that was destroyed (an export that is restored), whose epochs hosts and disks remember: at
 * a lower one it would be taken for a VM that has run already. The memory that it comes with, if any, is what it is to go on
 * from. */
ref_t vm_create(struct call *call, struct txn *txn, struct object *draft)
{
    draft->fields[F_VM_epoch] = draft->fields[F_VM_image_epoch] =
        VALUE_INT((int64_t) vm_epoch_above_all(call->core, txn));
    settle_domain_type(draft);
    draft->fields[F_VM_memory_overhead] = VALUE_INT(vm_memory_overhead_bytes(draft));
    if (ref_is_null(VM_get_metrics(draft)))
        draft->fields[F_VM_metrics] = VALUE_REF(create_metrics(call, txn, draft));
    return draft_create(call, txn, draft);
}

/* A suspended VM may be made from its record: its image must be there. */
static int settle_power_state(struct call *call, const struct view *view, const struct value *given,
                              struct object *draft)
{
    enum vm_power_state state = (enum vm_power_state) given[F_VM_power_state].e.index;
    ref_t image = given[F_VM_suspend_VDI].ref;

    if (state != vm_power_state_Suspended) {
        draft->fields[F_VM_suspend_VDI] = VALUE_REF(NULL_REF);
        return 0;
    }
    if (!live(call, view, VDI, image))
        return -ERR_HANDLE_INVALID;
    draft->fields[F_VM_power_state] = VALUE_ENUM(vm_power_state, vm_power_state_Suspended);
    return 0;
}

int vm_check(struct call *call, const struct object *draft)
{
    int r = vm_check_memory(call, VM_get_memory_static_min(draft), VM_get_memory_dynamic_min(draft),
                            VM_get_memory_dynamic_max(draft), VM_get_memory_static_max(draft));

    if (r == 0)
        r = vm_check_vcpus(call, VM_get_VCPUs_max(draft), VM_get_VCPUs_at_startup(draft));
    if (r == 0)
        r = vm_check_platform(call, VM_get_platform(draft), VM_get_VCPUs_max(draft));
    if (r == 0)
        r = check_numbers(call, draft);
    return r;
}

int VM_create(struct call *call, const struct VM_create_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct value *given = args->args->record.fields;
    struct object *draft = draft_of(call->arena, CLASS_OF(VM), given);
    const struct object *pool = pool_object(txn_view(txn));
    int r;

    vm_draft_halt(draft);
    draft->fields[F_VM_is_control_domain] = VALUE_BOOL(false);
    draft->fields[F_VM_is_default_template] = VALUE_BOOL(false);
    r = vm_check(call, draft);
    if (r == 0)
        r = settle_power_state(call, txn_view(txn), given, draft);
    if (r < 0)
        return r;
    if (pool && pool_get_policy_no_vendor_device(pool))
        draft->fields[F_VM_has_vendor_device] = VALUE_BOOL(false);
    if (VM_get_memory_target(draft) == 0)
        draft->fields[F_VM_memory_target] = VALUE_INT(VM_get_memory_dynamic_max(draft));
    *ret = VALUE_REF(vm_create(call, txn, draft));
    return call_commit(call, &txn);
}

void vm_count_overhead(struct txn *txn, ref_t ref)
{
    const struct object *vm = txn_get(txn, VM, ref);

    VM_put_memory_overhead(txn, ref, vm_memory_overhead_bytes(vm));
}

/* ---- unmade ---- */

/* All objects that make up an inverse set. Each look begins anew, since the deletion changes the
 * index. */
static void delete_each(struct txn *txn, const struct field *inverse, ref_t of)
{
    const struct object *object;
    struct view_iter iter;

    for (;;) {
        view_each_inverse(&iter, txn_view(txn), inverse, of);
        object = view_next(&iter);
        if (!object)
            return;
        txn_delete(txn, object->class, object->ref);
    }
}

static void delete_if_there(struct txn *txn, const struct class *class, ref_t ref)
{
    if (!ref_is_null(ref) && view_object(txn_view(txn), class, ref))
        txn_delete(txn, class, ref);
}

void vm_delete(struct txn *txn, ref_t ref)
{
    static const int parts[] = {F_VM_VBDs,  F_VM_VIFs,  F_VM_consoles,   F_VM_VUSBs,
                                F_VM_VTPMs, F_VM_VGPUs, F_VM_crash_dumps};
    const struct object *vm = txn_get(txn, VM, ref), *child;
    ref_t metrics = VM_get_metrics(vm), guest_metrics = VM_get_guest_metrics(vm),
          parent = VM_get_parent(vm);
    struct view_iter children;

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        delete_each(txn, &CLASS_OF(VM)->fields[parts[i]], ref);
    /* In the tree of snapshots its children hang from its parent now. */
    while (view_each_inverse(&children, txn_view(txn), &CLASS_OF(VM)->fields[F_VM_children], ref),
           (child = view_next(&children)))
        VM_put_parent(txn, child->ref, parent);
    delete_if_there(txn, CLASS_OF(VM_metrics), metrics);
    delete_if_there(txn, CLASS_OF(VM_guest_metrics), guest_metrics);
    blobs_delete(txn, VM_get_blobs(txn_get(txn, VM, ref)));
    txn_delete(txn, CLASS_OF(VM), ref);
}

int VM_destroy(struct call *call, const struct VM_destroy_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *vm;
    ref_t image;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(VM), args->self, vm_operations_destroy);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    vm = live(call, txn_view(txn), VM, args->self);
    if (!vm)
        return -ERR_HANDLE_INVALID;
    image = VM_get_power_state(vm) == vm_power_state_Suspended ? VM_get_suspend_VDI(vm) : NULL_REF;
    claim_end_txn(&claim, txn);
    vm_delete(txn, args->self);
    r = call_commit(call, &txn);

    /* What the guest had in memory is nobody's any more. A host that is away keeps the VM from
     * nobody: the disk stays visible and can be destroyed later. */
    if (!ref_is_null(image) && view_get(call_view(call), VDI, image)
        && disk_remove(call, image) < 0)
        call->failure.code = 0;
    return r;
}
