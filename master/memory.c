/* memory.c - the memory a VM needs besides its own */
#include "master/memory.h"

#define PAGES_PER_MIB      256 /* of 4 KiB */
#define VCPU_PAGES         38  /* per vCPU, Xen's own structures */
#define SHADOW_VCPU_PAGES  256 /* per vCPU, the least that Xen asks for */
#define SHADOW_PAGES_A_MIB 2   /* page tables and the p2m map, per MiB of the guest */
#define SHIM_MIB           23  /* PV-in-PVH: the shim itself, */
#define SHIM_MIB_DIVISOR   90  /* and a share of the guest */

static int64_t mib_up(int64_t pages)
{
    return (pages + PAGES_PER_MIB - 1) / PAGES_PER_MIB;
}

int64_t memory_overhead_bytes(bool is_hvm, bool is_pv_in_pvh, int64_t static_max_bytes,
                              int64_t vcpus_max, double shadow_multiplier)
{
    int64_t static_max_mib = (static_max_bytes + MIB - 1) / MIB;
    int64_t shadow_base_mib =
        mib_up(SHADOW_VCPU_PAGES * vcpus_max + SHADOW_PAGES_A_MIB * static_max_mib);
    int64_t shadow_mib = (int64_t) ((is_hvm ? shadow_multiplier : 1.0) * (double) shadow_base_mib);
    int64_t mib = (is_hvm ? 2 : 1) + MAX(1, shadow_mib) + mib_up(VCPU_PAGES * vcpus_max);

    if (is_pv_in_pvh)
        mib += SHIM_MIB + static_max_mib / SHIM_MIB_DIVISOR;
    return mib * MIB;
}

bool vm_is_hvm(const struct object *vm)
{
    switch (VM_get_domain_type(vm)) {
    case domain_type_hvm:
    case domain_type_pvh:
        return true;
    case domain_type_pv:
    case domain_type_pv_in_pvh:
        return false;
    default:
        return !streq(VM_get_HVM_boot_policy(vm), "");
    }
}

static bool is_pv_in_pvh(const struct object *vm)
{
    return VM_get_domain_type(vm) == domain_type_pv_in_pvh;
}

int64_t vm_memory_overhead_bytes(const struct object *vm)
{
    return memory_overhead_bytes(vm_is_hvm(vm), is_pv_in_pvh(vm), VM_get_memory_static_max(vm),
                                 VM_get_VCPUs_max(vm), VM_get_HVM_shadow_multiplier(vm));
}

int64_t vm_memory_need_bytes(const struct object *vm)
{
    return (is_pv_in_pvh(vm) ? VM_get_memory_static_max(vm) : VM_get_memory_dynamic_min(vm))
           + vm_memory_overhead_bytes(vm);
}
