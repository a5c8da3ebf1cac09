/* vm_state.c - what changes in the records when a VM begins to run, moves, stops or is suspended */
#include "master/vm_state.h"

#include "master/config.h"
#include "master/core.h"
#include "master/memory.h"
#include "master/put.h"
#include "master/vm_config.h"
#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/listeners.h"
#include "shared/xmlrpc.h"

#define VM_INVERSE(name) (&CLASS_OF(VM)->fields[F_VM_##name])

/* Changing what an index gives while walking it is fine: an iterator goes on behind the key it gave
 * last. */
static void each(struct view_iter *it, struct txn *txn, const struct field *inverse, ref_t vm)
{
    view_each_inverse(it, txn_view(txn), inverse, vm);
}

uint64_t vm_put_next_epoch(struct txn *txn, ref_t vm)
{
    int64_t epoch = VM_get_epoch(txn_get(txn, VM, vm)) + 1;

    VM_put_epoch(txn, vm, epoch);
    return (uint64_t) epoch;
}

uint64_t vm_epoch_above_all(const struct core *core, const struct txn *txn)
{
    return core->epoch << 32 | (uint32_t) view_generation(txn_view(txn));
}

uint64_t vm_put_fresh_epoch(struct core *core, struct txn *txn, ref_t vm)
{
    /* A host would take an epoch that it has seen to its end for one that has run already. */
    uint64_t epoch = MAX((uint64_t) VM_get_epoch(txn_get(txn, VM, vm)) + 1, vm_epoch_above_all(core, txn));

    VM_put_epoch(txn, vm, (int64_t) epoch);
    return epoch;
}

/* ---- devices ---- */

void vm_put_reserved(struct txn *txn, ref_t vm, bool is_reserved)
{
    const struct object *device;
    struct view_iter devices;

    each(&devices, txn, VM_INVERSE(VBDs), vm);
    while ((device = view_next(&devices)))
        VBD_put_reserved(txn, device->ref, is_reserved);
    each(&devices, txn, VM_INVERSE(VIFs), vm);
    while ((device = view_next(&devices)))
        VIF_put_reserved(txn, device->ref, is_reserved);
}

static void attach_devices(struct txn *txn, ref_t vm, bool is_hvm)
{
    const struct object *device;
    struct view_iter devices;
    char name[VBD_DEVICE_BYTES];

    each(&devices, txn, VM_INVERSE(VBDs), vm);
    while ((device = view_next(&devices))) {
        if (!VBD_get_currently_attached(device) && !VBD_get_reserved(device))
            continue; /* it is another VM's, or was made meanwhile */
        VBD_put_device(txn, device->ref, vbd_device(name, device, is_hvm));
        VBD_put_currently_attached(txn, device->ref, true);
        VBD_put_reserved(txn, device->ref, false);
    }
    each(&devices, txn, VM_INVERSE(VIFs), vm);
    while ((device = view_next(&devices))) {
        VIF_put_currently_attached(txn, device->ref, true);
        VIF_put_reserved(txn, device->ref, false);
    }
}

static void detach_devices(struct txn *txn, ref_t vm)
{
    const struct object *device;
    struct view_iter devices;

    vm_put_reserved(txn, vm, false);
    each(&devices, txn, VM_INVERSE(VBDs), vm);
    while ((device = view_next(&devices)))
        VBD_put_currently_attached(txn, device->ref, false);
    each(&devices, txn, VM_INVERSE(VIFs), vm);
    while ((device = view_next(&devices)))
        VIF_put_currently_attached(txn, device->ref, false);
    each(&devices, txn, VM_INVERSE(VUSBs), vm);
    while ((device = view_next(&devices)))
        VUSB_put_currently_attached(txn, device->ref, false);
}

/* ---- consoles ---- */

/* ":8443", the port of HTTPS of this master and so of every host of the pool (design.md section 3, "Addresses"); "" for 443,
 * and where nothing is set. */
static const char *https_port(struct arena *arena, const struct core *core)
{
    const struct config *config = core->config;
    char address[128];
    uint16_t port = 0;

    if (!config || config->listen_tls.count == 0
        || !listener_split(config->listen_tls.items[0], address, sizeof address, &port)
        || port == 443 || port == 0)
        return "";
    return arena_text(arena, ":%u", port);
}

/* An IPv6 address stands in brackets. */
static const char *console_location(struct arena *arena, const struct core *core,
                                    const struct object *host, const char *console_uuid)
{
    const char *address = host ? host_get_address(host) : "";
    bool is_v6 = strchr(address, ':');

    return arena_text(arena, "https://%s%s%s%s/console?uuid=%s", is_v6 ? "[" : "", address,
                      is_v6 ? "]" : "", https_port(arena, core), console_uuid);
}

static void console_new(struct txn *txn, struct core *core, ref_t vm,
                        enum console_protocol protocol)
{
    struct value fields[F_console_port + 1] = {
        [F_console_protocol] = VALUE_ENUM(console_protocol, (int) protocol),
        [F_console_VM] = VALUE_REF(vm),
    };

    assert(CLASS_OF(console)->field_count == ARRAY_SIZE(fields));
    txn_create_new(txn, core->random, CLASS_OF(console), fields);
}

static void make_consoles(struct txn *txn, struct core *core, ref_t vm)
{
    const struct object *object = txn_get(txn, VM, vm);
    bool is_hvm = vm_is_hvm(object);

    if (view_count_inverse(txn_view(txn), VM_INVERSE(consoles), vm) > 0)
        return;
    if (is_hvm || !streq(value_map_text(VM_get_other_config(object), "disable_pv_vnc", ""), "1"))
        console_new(txn, core, vm, console_protocol_rfb);
    if (!is_hvm)
        console_new(txn, core, vm, console_protocol_vt100);
}

/* Clients go straight to the host that the VM runs on. */
static void place_consoles(struct txn *txn, const struct core *core, ref_t vm, ref_t host)
{
    struct arena *arena = arena_new();
    const struct object *console;
    struct view_iter consoles;

    each(&consoles, txn, VM_INVERSE(consoles), vm);
    while ((console = view_next(&consoles)))
        console_put_location(
            txn, console->ref,
            console_location(arena, core, txn_get(txn, host, host), console_get_uuid(console)));
    arena_destroy(&arena);
}

static void destroy_consoles(struct txn *txn, ref_t vm)
{
    const struct object *console;
    struct view_iter consoles;

    each(&consoles, txn, VM_INVERSE(consoles), vm);
    while ((console = view_next(&consoles)))
        txn_delete(txn, CLASS_OF(console), console->ref);
}

/* ---- metrics, and what it was booted with ---- */

static void put_metrics(struct txn *txn, struct core *core, ref_t vm)
{
    const struct object *object = txn_get(txn, VM, vm);
    ref_t metrics = VM_get_metrics(object);

    if (!txn_get(txn, VM_metrics, metrics)) {
        metrics = txn_create_new(txn, core->random, CLASS_OF(VM_metrics), NULL);
        VM_put_metrics(txn, vm, metrics);
    }
    VM_metrics_put_start_time(txn, metrics, clock_utc_s(core->clock));
    VM_metrics_put_VCPUs_number(txn, metrics, VM_get_VCPUs_at_startup(object));
    VM_metrics_put_memory_actual(txn, metrics, VM_get_memory_dynamic_max(object));
    VM_metrics_put_hvm(txn, metrics, vm_is_hvm(object));
    VM_metrics_put_current_domain_type(txn, metrics,
                                       vm_is_hvm(object) ? domain_type_hvm : domain_type_pv);
}

/* What our hypervisors do with any guest, whether it has drivers that say so or not: suspending and
 * moving need no help from inside, and shutting down is a power button. The lifecycle rules look
 * here. */
static void put_guest_metrics(struct txn *txn, struct core *core, ref_t vm)
{
    static const char *const features[] = {"feature-suspend",      "feature-shutdown",
                                           "feature-poweroff",     "feature-reboot",
                                           "feature-vcpu-hotplug", "feature-balloon"};
    struct value other[2 * ARRAY_SIZE(features)], map;
    ref_t metrics = VM_get_guest_metrics(txn_get(txn, VM, vm));

    if (txn_get(txn, VM_guest_metrics, metrics))
        return;
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        other[2 * i] = value_text(features[i]);
        other[2 * i + 1] = value_text("1");
    }
    map = VALUE_MAP(ARRAY_SIZE(features), other);
    metrics = txn_create_new(txn, core->random, CLASS_OF(VM_guest_metrics), NULL);
    VM_guest_metrics_put_other(txn, metrics, &map);
    VM_guest_metrics_put_live(txn, metrics, true);
    VM_guest_metrics_put_last_updated(txn, metrics, clock_utc_s(core->clock));
    VM_put_guest_metrics(txn, vm, metrics);
}

/* The fields of a VM that a guest cannot see changed before it boots again, as XML-RPC text. The
 * same VM booted again gives the same text, so most starts do not write it. */
static void put_booted_record(struct txn *txn, ref_t vm)
{
    static const int booted[] = {
        F_VM_memory_static_max,
        F_VM_memory_dynamic_max,
        F_VM_memory_dynamic_min,
        F_VM_memory_static_min,
        F_VM_VCPUs_max,
        F_VM_VCPUs_at_startup,
        F_VM_VCPUs_params,
        F_VM_PV_bootloader,
        F_VM_PV_kernel,
        F_VM_PV_ramdisk,
        F_VM_PV_args,
        F_VM_PV_bootloader_args,
        F_VM_HVM_boot_policy,
        F_VM_HVM_boot_params,
        F_VM_HVM_shadow_multiplier,
        F_VM_platform,
        F_VM_domain_type,
    };
    const struct object *object = txn_get(txn, VM, vm);
    struct value items[2 * ARRAY_SIZE(booted)], record;
    struct buffer text;

    buffer_init(&text, SIZE_MAX); /* of what is stored already */
    for (size_t i = 0; i < ARRAY_SIZE(booted); i++) {
        items[2 * i] = value_text(CLASS_OF(VM)->fields[booted[i]].name);
        items[2 * i + 1] = object->fields[booted[i]];
    }
    record = VALUE_MAP(ARRAY_SIZE(booted), items);
    xmlrpc_value(&text, &record);
    VM_put_last_booted_record(txn, vm, buffer_text(&text));
    buffer_done(&text);
}

static void put_cpu_flags(struct txn *txn, ref_t vm, ref_t host)
{
    const struct object *object = txn_get(txn, host, host);
    const struct value *info = object ? host_get_cpu_info(object) : NULL;
    struct value items[4], map = VALUE_MAP(2, items);

    if (!info)
        return;
    items[0] = value_text("vendor");
    items[1] = value_text(value_map_text(info, "vendor", ""));
    items[2] = value_text("features");
    items[3] = value_text(value_map_text(info, "features", ""));
    VM_put_last_boot_CPU_flags(txn, vm, &map);
}

/* ---- transitions ---- */

void vm_put_home(struct txn *txn, struct core *core, ref_t vm, ref_t host, int64_t domid,
                 bool is_paused)
{
    VM_put_power_state(txn, vm, is_paused ? vm_power_state_Paused : vm_power_state_Running);
    VM_put_resident_on(txn, vm, host);
    VM_put_scheduled_to_be_resident_on(txn, vm, NULL_REF);
    VM_put_domid(txn, vm, domid);
    VM_put_again_after(txn, vm, "");
    make_consoles(txn, core, vm);
    place_consoles(txn, core, vm, host);
}

void vm_put_booted(struct txn *txn, struct core *core, ref_t vm, ref_t host, int64_t domid,
                   bool is_paused)
{
    attach_devices(txn, vm, vm_is_hvm(txn_get(txn, VM, vm)));
    put_metrics(txn, core, vm);
    put_guest_metrics(txn, core, vm);
    put_booted_record(txn, vm);
    put_cpu_flags(txn, vm, host);
    VM_put_requires_reboot(txn, vm, false);
    vm_put_home(txn, core, vm, host, domid, is_paused);
}

void vm_put_halted(struct txn *txn, ref_t vm)
{
    VM_put_again_after(txn, vm, "");
    vm_put_halted_for_now(txn, vm);
}

void vm_put_halted_for_now(struct txn *txn, ref_t vm)
{
    VM_put_power_state(txn, vm, vm_power_state_Halted);
    VM_put_resident_on(txn, vm, NULL_REF);
    VM_put_scheduled_to_be_resident_on(txn, vm, NULL_REF);
    VM_put_domid(txn, vm, -1);
    VM_put_requires_reboot(txn, vm, false);
    detach_devices(txn, vm);
    destroy_consoles(txn, vm);
}

void vm_put_suspended(struct txn *txn, ref_t vm)
{
    VM_put_power_state(txn, vm, vm_power_state_Suspended);
    VM_put_image_epoch(txn, vm, VM_get_epoch(txn_get(txn, VM, vm)));
    VM_put_resident_on(txn, vm, NULL_REF);
    VM_put_scheduled_to_be_resident_on(txn, vm, NULL_REF);
    VM_put_domid(txn, vm, -1);
    destroy_consoles(txn, vm);
}
