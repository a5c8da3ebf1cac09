/* VM_boot.c - may this VM run on this host, and on which host should it
 *
 * The checks stand in the order of wire.md section 12: the first refusal is what the client is
 * told. The same function answers VM.assert_can_boot_here, guards every start, resume and move, and
 * filters the hosts that placement tries. */
#include "master/VM_boot.h"

#include "master/core.h"
#include "master/lifecycle.h"
#include "master/memory.h"
#include "master/placement.h"
#include "master/put.h"
#include "master/storage.h"
#include "master/VM.h"

#define VM_INVERSE(name) (&CLASS_OF(VM)->fields[F_VM_##name])

/* One question: may this VM run here? */
struct boot {
    struct call *call;
    const struct view *view;
    const struct object *vm, *host;
    unsigned flags;
};

static bool is_between(int64_t low, int64_t x, int64_t high)
{
    return low <= x && x <= high;
}

static int check_parameters(struct boot *boot)
{
    const struct object *vm = boot->vm;
    struct call *call = boot->call;

    if (!is_between(1, VM_get_VCPUs_max(vm), VCPUS_MAX))
        return fail(call, INVALID_VALUE, "VCPUs_max", int_text(call, VM_get_VCPUs_max(vm)));
    if (!is_between(1, VM_get_VCPUs_at_startup(vm), VM_get_VCPUs_max(vm)))
        return fail(call, INVALID_VALUE, "VCPUs_at_startup",
                    int_text(call, VM_get_VCPUs_at_startup(vm)));
    if (!is_between(0, VM_get_memory_static_min(vm), VM_get_memory_dynamic_min(vm)))
        return fail(call, INVALID_VALUE, "memory_static_min",
                    int_text(call, VM_get_memory_static_min(vm)));
    if (VM_get_memory_dynamic_min(vm) > VM_get_memory_dynamic_max(vm))
        return fail(call, INVALID_VALUE, "memory_dynamic_min",
                    int_text(call, VM_get_memory_dynamic_min(vm)));
    if (VM_get_memory_dynamic_max(vm) > VM_get_memory_static_max(vm))
        return fail(call, INVALID_VALUE, "memory_dynamic_max",
                    int_text(call, VM_get_memory_dynamic_max(vm)));
    return vm_check_shadow(call, "HVM_shadow_multiplier", VM_get_HVM_shadow_multiplier(vm));
}

static int check_host_is_there(struct boot *boot)
{
    const struct object *metrics = view_get(boot->view, host_metrics, host_get_metrics(boot->host));

    if (!metrics || !host_metrics_get_live(metrics))
        return fail(boot->call, HOST_NOT_LIVE);
    if (!(boot->flags & BOOT_DISABLED) && !host_get_enabled(boot->host)
        && !VM_get_is_control_domain(boot->vm))
        return fail(boot->call, HOST_DISABLED, ref_text(boot->call, boot->host->ref));
    if (host_get_guests_away(boot->host))
        return fail(boot->call, HOST_STILL_BOOTING);
    return 0;
}

static int check_platform(struct boot *boot)
{
    const struct value *versions = host_get_virtual_hardware_platform_versions(boot->host);
    int64_t wanted = VM_get_hardware_platform_version(boot->vm);
    struct call *call = boot->call;
    const char *text = "";

    for (uint32_t i = 0; i < versions->length; i++) {
        if (versions->items[i].i == wanted)
            return 0;
        text = arena_text(call->arena, "%s%s%lld", text, i ? "," : "",
                          (long long) versions->items[i].i);
    }
    return fail(call, VM_HOST_INCOMPATIBLE_VIRTUAL_HARDWARE_PLATFORM_VERSION,
                ref_text(call, boot->host->ref), text, ref_text(call, boot->vm->ref),
                int_text(call, wanted));
}

/* Feature words "178bfbff-f6fa3203-...": has the host every bit that the guest has seen? */
static bool features_are_within(const char *guest, const char *host)
{
    while (*guest && *host) {
        char *guest_end, *host_end;
        unsigned long long guest_word = strtoull(guest, &guest_end, 16);
        unsigned long long host_word = strtoull(host, &host_end, 16);

        if (guest_end == guest || host_end == host)
            return true; /* not in our form: nothing can be said */
        if (guest_word & ~host_word)
            return false;
        guest = *guest_end == '-' ? guest_end + 1 : guest_end;
        host = *host_end == '-' ? host_end + 1 : host_end;
    }
    return true;
}

/* A guest that has booted knows its CPU. */
static int check_cpu(struct boot *boot)
{
    const struct value *seen = VM_get_last_boot_CPU_flags(boot->vm),
                       *has = host_get_cpu_info(boot->host);
    const char *vendor = value_map_text(seen, "vendor", ""),
               *host_vendor = value_map_text(has, "vendor", "");
    const char *reason = NULL;

    if (boot->flags & BOOT_ANY_CPU || VM_get_power_state(boot->vm) == vm_power_state_Halted)
        return 0;
    if (*vendor && *host_vendor && !streq(vendor, host_vendor))
        reason = "VM last booted on a CPU of another vendor";
    else if (!features_are_within(value_map_text(seen, "features", ""),
                                  value_map_text(has, "features", "")))
        reason = "VM last booted on a CPU with features this host's CPU does not have";
    return reason ? fail(boot->call, VM_INCOMPATIBLE_WITH_THIS_HOST,
                         ref_text(boot->call, boot->vm->ref), ref_text(boot->call, boot->host->ref),
                         reason)
                  : 0;
}

static int check_sr(struct boot *boot, ref_t vdi_ref)
{
    const struct object *vdi = view_get(boot->view, VDI, vdi_ref);

    if (!vdi || storage_is_attached(boot->view, VDI_get_SR(vdi), boot->host->ref))
        return 0;
    return fail(boot->call, VM_REQUIRES_SR, ref_text(boot->call, boot->vm->ref),
                ref_text(boot->call, VDI_get_SR(vdi)));
}

static int check_storage(struct boot *boot)
{
    struct view_iter vbds;
    const struct object *vbd;
    int r;

    view_each_inverse(&vbds, boot->view, VM_INVERSE(VBDs), boot->vm->ref);
    while ((vbd = view_next(&vbds))) {
        if (VBD_get_empty(vbd))
            continue;
        r = check_sr(boot, VBD_get_VDI(vbd));
        if (r < 0)
            return r;
    }
    return VM_get_power_state(boot->vm) == vm_power_state_Suspended
               ? check_sr(boot, VM_get_suspend_VDI(boot->vm))
               : 0;
}

static bool is_assumed_shared(const struct object *network)
{
    return streq(value_map_text(network_get_other_config(network), "assume_network_is_shared", ""),
                 "true");
}

static bool has_pif_on(const struct view *view, const struct object *network, ref_t host,
                       bool *ret_has_any)
{
    struct view_iter pifs;
    const struct object *pif;

    *ret_has_any = false;
    view_each_inverse(&pifs, view, &CLASS_OF(network)->fields[F_network_PIFs], network->ref);
    while ((pif = view_next(&pifs))) {
        *ret_has_any = true;
        if (ref_equal(PIF_get_host(pif), host))
            return true;
    }
    return false;
}

/* A network without PIFs exists only inside one host: where its first VIF runs. */
static bool is_pinned_elsewhere(struct boot *boot, const struct object *network)
{
    struct view_iter vifs;
    const struct object *vif, *other;

    view_each_inverse(&vifs, boot->view, &CLASS_OF(network)->fields[F_network_VIFs], network->ref);
    while ((vif = view_next(&vifs))) {
        if (!VIF_get_currently_attached(vif) || ref_equal(VIF_get_VM(vif), boot->vm->ref))
            continue;
        other = view_get(boot->view, VM, VIF_get_VM(vif));
        if (other && !ref_is_null(VM_get_resident_on(other))
            && !ref_equal(VM_get_resident_on(other), boot->host->ref))
            return true;
    }
    return false;
}

static int check_networks(struct boot *boot)
{
    struct call *call = boot->call;
    struct view_iter vifs;
    const struct object *vif;
    bool has_any;

    view_each_inverse(&vifs, boot->view, VM_INVERSE(VIFs), boot->vm->ref);
    while ((vif = view_next(&vifs))) {
        const struct object *network = view_get(boot->view, network, VIF_get_network(vif));

        if (!network || is_assumed_shared(network)
            || has_pif_on(boot->view, network, boot->host->ref, &has_any))
            continue;
        if (has_any)
            return fail(call, VM_REQUIRES_NETWORK, ref_text(call, boot->vm->ref),
                        ref_text(call, network->ref));
        if (is_pinned_elsewhere(boot, network))
            return fail(call, HOST_CANNOT_ATTACH_NETWORK, ref_text(call, boot->host->ref),
                        ref_text(call, network->ref));
    }
    return 0;
}

static int check_hvm(struct boot *boot)
{
    const struct value *capabilities = host_get_capabilities(boot->host);

    if (!vm_is_hvm(boot->vm) || capabilities->length == 0)
        return 0;
    for (uint32_t i = 0; i < capabilities->length; i++)
        if (strstr(capabilities->items[i].text, "hvm"))
            return 0;
    return fail(boot->call, VM_HVM_REQUIRED, ref_text(boot->call, boot->vm->ref));
}

static int check_memory(struct boot *boot)
{
    const struct room_host *room = room_host(boot->call->core->room, boot->host->ref);
    int64_t need = vm_memory_need_bytes(boot->vm), available = room ? room_free_bytes(room) : 0;

    if (boot->flags & (BOOT_ANY_MEMORY | BOOT_LOCAL) || need <= available)
        return 0;
    return fail(boot->call, HOST_NOT_ENOUGH_FREE_MEMORY, int_text(boot->call, need),
                int_text(boot->call, MAX(available, (int64_t) 0)));
}

static int check_cpus(struct boot *boot)
{
    const struct room_host *room = room_host(boot->call->core->room, boot->host->ref);
    int64_t vcpus = VM_get_VCPUs_max(boot->vm);

    if (!room || room->cpus == 0 || vcpus <= room->cpus)
        return 0;
    return fail(boot->call, HOST_NOT_ENOUGH_PCPUS, int_text(boot->call, vcpus),
                int_text(boot->call, room->cpus));
}

int assert_can_boot_here(struct call *call, const struct view *view, ref_t vm, ref_t host,
                         unsigned flags)
{
    static int (*const checks[])(struct boot *) = {
        check_parameters, check_host_is_there, check_platform, check_cpu,  check_storage,
        check_networks,   check_hvm,           check_memory,   check_cpus,
    };
    struct boot boot = {call, view, view_get(view, VM, vm), view_get(view, host, host), flags};

    if (!boot.vm)
        return fail(call, HANDLE_INVALID, "VM", ref_text(call, vm));
    if (!boot.host)
        return fail(call, HANDLE_INVALID, "host", ref_text(call, host));
    for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
        int r = checks[i](&boot);

        if (r < 0)
            return r;
    }
    return 0;
}

int assert_lets_in(struct call *call, const struct view *view, ref_t host_ref)
{
    const struct object *host = view_get(view, host, host_ref);
    const struct value *operations = host ? host_get_current_operations(host) : NULL;

    for (uint32_t i = 0; operations && i < operations->length; i++)
        if (operations->items[2 * i + 1].e.index == host_allowed_operations_evacuate)
            return fail(call, HOST_EVACUATE_IN_PROGRESS, ref_text(call, host_ref));
    return 0;
}

/* ---- disks ---- */

static int assert_disk_free(struct call *call, const struct view *view, const struct object *vbd)
{
    const struct object *vdi = VBD_get_empty(vbd) ? NULL : view_get(view, VDI, VBD_get_VDI(vbd));
    const struct value *busy;

    if (!vdi)
        return 0;
    if (!storage_is_shown(vdi))
        return fail(call, VDI_NOT_MANAGED, ref_text(call, vbd->ref));
    busy = storage_busy_for(vdi, VBD_get_mode(vbd));
    if (busy)
        return fail(call, OTHER_OPERATION_IN_PROGRESS, "VDI", ref_text(call, vdi->ref),
                    enum_text(busy[1].e.type, busy[1].e.index), busy[0].text);
    if (storage_is_taken(view, vbd, vdi))
        return fail(call, VDI_IN_USE, ref_text(call, vdi->ref));
    if (VBD_get_mode(vbd) == vbd_mode_RW && VDI_get_read_only(vdi))
        return fail(call, VDI_READONLY, ref_text(call, vdi->ref));
    return 0;
}

/* Each is looked at when those before it are reserved, for two drives of one VM may have the same disk. */
int reserve_disks(struct call *call, struct txn *txn, ref_t vm, bool only_attached)
{
    const struct object *vbd;
    struct view_iter vbds;

    view_each_inverse(&vbds, txn_view(txn), VM_INVERSE(VBDs), vm);
    while ((vbd = view_next(&vbds))) {
        int r;

        if (only_attached && !VBD_get_currently_attached(vbd))
            continue;
        r = assert_disk_free(call, txn_view(txn), vbd);
        if (r < 0)
            return r;
        VBD_put_reserved(txn, vbd->ref, true);
    }
    return 0;
}

int reserve_free_disks(struct call *call, struct txn *txn, ref_t vm, ref_t host)
{
    struct boot boot = {call, txn_view(txn), txn_get(txn, VM, vm), txn_get(txn, host, host), 0};
    struct failure before = call->failure;
    const struct object *vbd;
    struct view_iter vbds;
    int r = 0;

    view_each_inverse(&vbds, txn_view(txn), VM_INVERSE(VBDs), vm);
    while (r == 0 && (vbd = view_next(&vbds))) {
        bool has_it = VBD_get_currently_attached(vbd);

        if (!has_it && assert_disk_free(call, txn_view(txn), vbd) < 0)
            continue;
        r = boot.host && !VBD_get_empty(vbd) ? check_sr(&boot, VBD_get_VDI(vbd)) : 0;
        if (r == 0 && !has_it)
            VBD_put_reserved(txn, vbd->ref, true);
    }
    if (r == 0)
        call->failure = before;
    return r;
}

/* ---- choosing ---- */

struct placement_vm boot_needs(const struct object *vm)
{
    int64_t overhead = vm_memory_overhead_bytes(vm);

    return (struct placement_vm){
        .vm = vm->ref,
        .need_bytes = vm_memory_need_bytes(vm),
        .static_max_bytes = VM_get_memory_static_max(vm) + overhead,
        .dynamic_max_bytes = VM_get_memory_dynamic_max(vm) + overhead,
        .affinity = VM_get_affinity(vm),
    };
}

struct question {
    struct call *call;
    const struct view *view;
    ref_t vm;
    unsigned flags;
};

static bool allows(void *arg, ref_t host)
{
    struct question *question = arg;

    return assert_lets_in(question->call, question->view, host) == 0
           && assert_can_boot_here(question->call, question->view, question->vm, host,
                                   question->flags)
                  == 0;
}

/* Memory aside, does any host take it? Then memory is the reason: that of the host with most room.
 */
static int explain_refusal(struct question *question, int64_t need_bytes)
{
    struct call *call = question->call;
    int64_t available = -1;
    int count;
    const struct room_host *hosts = room_hosts(call->core->room, &count);

    question->flags |= BOOT_ANY_MEMORY;
    for (int i = 0; i < count; i++)
        if (allows(question, hosts[i].host))
            available = MAX(available, MAX(room_free_bytes(&hosts[i]), (int64_t) 0));
    call->failure = (struct failure){0};
    if (available < 0 || available >= need_bytes)
        return fail(call, NO_HOSTS_AVAILABLE);
    return fail(call, HOST_NOT_ENOUGH_FREE_MEMORY, int_text(call, need_bytes),
                int_text(call, available));
}

int choose_host(struct call *call, const struct view *view, ref_t vm_ref, unsigned flags,
                ref_t *ret_host)
{
    const struct object *vm = view_get(view, VM, vm_ref);
    struct placement_vm needs = boot_needs(vm);
    struct question question = {call, view, vm_ref, flags};
    struct boot parameters = {call, view, vm, NULL, flags};
    int count, r;
    const struct room_host *hosts = room_hosts(call->core->room, &count);

    r = check_parameters(&parameters); /* wrong on every host: say what is wrong */
    if (r < 0)
        return r;
    *ret_host = placement_choose(hosts, count, call->core->host, &needs, allows, &question,
                                 call->core->random);
    if (ref_is_null(*ret_host))
        return explain_refusal(&question, needs.need_bytes);
    call->failure = (struct failure){0};
    return 0;
}

/* ---- calls ---- */

int VM_assert_can_boot_here(struct call *call, const struct VM_assert_can_boot_here_args *args,
                            struct value *ret)
{
    (void) ret;
    return assert_can_boot_here(call, call_view(call), args->self, args->host, 0);
}

int VM_get_possible_hosts(struct call *call, const struct VM_get_possible_hosts_args *args,
                          struct value *ret)
{
    const struct view *view = call_view(call);
    int count;
    const struct room_host *hosts = room_hosts(call->core->room, &count);
    struct value *items = arena_alloc_array(call->arena, (size_t) count, sizeof *items);
    uint32_t possible = 0;

    for (int i = 0; i < count; i++)
        if (assert_can_boot_here(call, view, args->vm, hosts[i].host, BOOT_ANY_CPU) == 0)
            items[possible++] = VALUE_REF(hosts[i].host);
    call->failure = (struct failure){0};
    *ret = VALUE_SET(possible, items);
    return 0;
}

/* Does every host of the pool reach it? */
static bool is_shared_network(const struct view *view, const struct object *network)
{
    struct view_iter hosts;
    const struct object *host;
    bool has_any;

    if (is_assumed_shared(network))
        return true;
    view_each(&hosts, view, CLASS_OF(host));
    while ((host = view_next(&hosts)))
        if (!has_pif_on(view, network, host->ref, &has_any))
            return false;
    return true;
}

int VM_assert_agile(struct call *call, const struct VM_assert_agile_args *args, struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *device, *vdi, *sr, *network;
    struct view_iter devices;

    (void) ret;
    view_each_inverse(&devices, view, VM_INVERSE(VBDs), args->self);
    while ((device = view_next(&devices))) {
        vdi = VBD_get_empty(device) ? NULL : view_get(view, VDI, VBD_get_VDI(device));
        sr = vdi ? view_get(view, SR, VDI_get_SR(vdi)) : NULL;
        if (sr && !SR_get_shared(sr))
            return fail(call, HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED, ref_text(call, sr->ref));
    }
    view_each_inverse(&devices, view, VM_INVERSE(VIFs), args->self);
    while ((device = view_next(&devices))) {
        network = view_get(view, network, VIF_get_network(device));
        if (network && !is_shared_network(view, network))
            return fail(call, HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED,
                        ref_text(call, network->ref));
    }
    return 0;
}

int VM_assert_operation_valid(struct call *call, const struct VM_assert_operation_valid_args *args,
                              struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *vm = view_get(view, VM, args->self);

    (void) ret;
    if (!vm)
        return fail(call, HANDLE_INVALID, "VM", ref_text(call, args->self));
    return operation_check(view, vm, (int) args->op, true, call->arena, &call->failure);
}

int VM_update_allowed_operations(struct call *call,
                                 const struct VM_update_allowed_operations_args *args,
                                 struct value *ret)
{
    /* They are computed whenever they are read, so they are never out of date. */
    (void) call;
    (void) args;
    (void) ret;
    return 0;
}
