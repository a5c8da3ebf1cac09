/* test_vm_api.c - VMs made, cloned, provisioned, changed and destroyed, with all that belongs to
 * them */
#include "api_world.h"

static ref_t make_vm(struct world *world, const char *name)
{
    struct value ret, memory = value_text("268435456");

    if (CALL(world, &ret, VM_create,
             .args = record(world, "VM.create", "name_label", value_text(name), "user_version",
                            value_text("1"), "is_a_template", VALUE_BOOL(false), "affinity",
                            value_text("OpaqueRef:NULL"), "memory_static_max", memory,
                            "memory_dynamic_max", memory, "memory_dynamic_min", memory,
                            "memory_static_min", value_text("0"), "VCPUs_max", value_text("2"),
                            "VCPUs_at_startup", value_text("1"), "actions_after_shutdown",
                            value_text("destroy"), "actions_after_reboot", value_text("restart"),
                            "actions_after_crash", value_text("restart"), "HVM_boot_policy",
                            value_text("BIOS order"), NULL)))
        GIVE_UP("%s\n", world->failure.text);
    return ret.ref;
}

static ref_t make_disk(struct world *world, ref_t sr, const char *size)
{
    struct value ret;

    if (CALL(world, &ret, VDI_create,
             .args = record(world, "VDI.create", "SR", VALUE_REF(sr), "virtual_size",
                            value_text(size), "type", value_text("user"), "sharable",
                            VALUE_BOOL(false), "read_only", VALUE_BOOL(false), NULL)))
        GIVE_UP("%s\n", world->failure.text);
    return ret.ref;
}

static int add_drive(struct world *world, ref_t vm, ref_t vdi, const char *device, const char *mode,
                     const char *type, bool is_empty, struct value *ret)
{
    return CALL(world, ret, VBD_create,
                .args = record(world, "VBD.create", "VM", VALUE_REF(vm), "VDI", VALUE_REF(vdi),
                               "userdevice", value_text(device), "bootable", VALUE_BOOL(true),
                               "mode", value_text(mode), "type", value_text(type), "empty",
                               VALUE_BOOL(is_empty), "qos_algorithm_type", value_text(""), NULL));
}

static int add_nic_with(struct world *world, ref_t vm, const char *device, const char *mac,
                        const char *mtu, struct value *ret)
{
    struct view_iter networks;

    view_each(&networks, store_core_view(world->core.store), CLASS_OF(network));
    return CALL(world, ret, VIF_create,
                .args = record(world, "VIF.create", "VM", VALUE_REF(vm), "network",
                               VALUE_REF(view_next(&networks)->ref), "device", value_text(device),
                               "MAC", value_text(mac), "MTU", value_text(mtu),
                               "qos_algorithm_type", value_text(""), NULL));
}

static int add_nic(struct world *world, ref_t vm, const char *device, const char *mac,
                   struct value *ret)
{
    return add_nic_with(world, vm, device, mac, "1500", ret);
}

static void new_vm_has_all_that_a_halted_vm_has(_unused_ void **state)
{
    struct world world;
    const struct object *vm, *metrics;
    ref_t ref;

    world_init(&world);
    ref = make_vm(&world, "a");
    vm = GET(&world, VM, ref);
    metrics = GET(&world, VM_metrics, VM_get_metrics(vm));
    assert_non_null(metrics);
    assert_int_equal(VM_get_power_state(vm), vm_power_state_Halted);
    assert_int_equal(VM_get_domid(vm), -1);
    assert_true(ref_is_null(VM_get_resident_on(vm)));
    assert_int_equal(VM_get_domain_type(vm), domain_type_hvm);
    assert_true(VM_get_memory_overhead(vm) > 0);
    assert_int_equal(VM_get_memory_target(vm), 268435456);

    assert_int_equal(CALL(&world, NULL, VM_destroy, .self = ref), 0);
    assert_null(GET(&world, VM, ref));
    assert_int_equal(CALL(&world, NULL, VM_destroy, .self = ref), -ERR_HANDLE_INVALID);
    FAILED(&world, HANDLE_INVALID, "VM", text_of(&world, ref));
    world_done(&world);
}

static void memory_limits_keep_their_order(_unused_ void **state)
{
    struct world world;
    int64_t before;
    ref_t vm;

    world_init(&world);
    vm = make_vm(&world, "a");
    before = VM_get_memory_overhead(GET(&world, VM, vm));
    assert_true(CALL(&world, NULL, VM_set_memory_dynamic_range, .self = vm, .min = 300 << 20,
                     .max = 200 << 20)
                < 0);
    assert_string_equal(world.failure.text, "MEMORY_CONSTRAINT_VIOLATION");
    assert_int_equal(world.failure.count, 1);
    assert_int_equal(CALL(&world, NULL, VM_set_memory_limits, .self = vm, .static_min = 1 << 30,
                          .static_max = 4ll << 30, .dynamic_min = 2ll << 30,
                          .dynamic_max = 3ll << 30),
                     0);
    assert_int_equal(VM_get_memory_static_max(GET(&world, VM, vm)), 4ll << 30);
    assert_true(VM_get_memory_overhead(GET(&world, VM, vm)) > before);

    assert_true(CALL(&world, NULL, VM_set_VCPUs_at_startup, .self = vm, .value = 3) < 0);
    FAILED(&world, INVALID_VALUE, "VCPUs_at_startup", "3");
    assert_int_equal(CALL(&world, NULL, VM_set_VCPUs_max, .self = vm, .value = 4), 0);
    assert_int_equal(CALL(&world, NULL, VM_set_VCPUs_at_startup, .self = vm, .value = 3), 0);
    assert_true(CALL(&world, NULL, VM_set_VCPUs_max, .self = vm, .value = 2) < 0);

    make_running(&world, vm, world.h2);
    calls_clear(&world);
    assert_int_equal(CALL(&world, NULL, VM_set_memory_dynamic_range, .self = vm, .min = 1ll << 30,
                          .max = 2ll << 30),
                     0);
    assert_string_equal(world.calls, "vm_set_memory h2 2147483648\n");
    assert_true(
        CALL(&world, NULL, VM_set_memory_static_range, .self = vm, .min = 0, .max = 5ll << 30) < 0);
    FAILED(&world, VM_BAD_POWER_STATE, text_of(&world, vm), "halted", "running");

    vm = make_vm(&world, "b");
    assert_true(CALL(&world, NULL, VM_set_memory_limits, .self = vm, .static_min = 0,
                     .static_max = 0, .dynamic_min = 0, .dynamic_max = 0)
                < 0);
    FAILED(&world, MEMORY_CONSTRAINT_VIOLATION, "1 MiB <= memory_static_max");
    world_done(&world);
}

static void template_is_cloned_and_provisioned(_unused_ void **state)
{
    struct world world;
    struct value ret;
    const struct object *vm, *vbd, *vdi;
    struct view_iter vbds;
    ref_t template, clone;

    world_init(&world);
    template = template_named(&world, "Debian Etch 4.0");
    assert_int_equal(CALL(&world, NULL, VM_destroy, .self = template), -ERR_VM_IS_TEMPLATE);
    assert_int_equal(CALL(&world, &ret, VM_clone, .vm = template, .new_name = "etch"), 0);
    clone = ret.ref;
    vm = GET(&world, VM, clone);
    assert_string_equal(VM_get_name_label(vm), "etch");
    assert_true(VM_get_is_a_template(vm));
    assert_false(VM_get_is_default_template(vm));
    assert_null(value_map_find(VM_get_other_config(vm), "default_template"));
    assert_non_null(value_map_find(VM_get_other_config(vm), "disks"));
    assert_non_null(value_map_find(VM_get_other_config(vm), "mac_seed"));
    assert_string_not_equal(VM_get_uuid(vm), VM_get_uuid(GET(&world, VM, template)));
    assert_int_equal(VM_get_current_operations(GET(&world, VM, template))->length, 0);

    calls_clear(&world);
    assert_int_equal(CALL(&world, NULL, VM_provision, .vm = clone), 0);
    assert_string_equal(world.calls, "disk_create h1 raw\n");
    vm = GET(&world, VM, clone);
    assert_false(VM_get_is_a_template(vm));
    assert_null(value_map_find(VM_get_other_config(vm), "disks"));
    view_each_inverse(&vbds, store_core_view(world.core.store), &CLASS_OF(VM)->fields[F_VM_VBDs],
                      clone);
    vbd = view_next(&vbds);
    vdi = GET(&world, VDI, VBD_get_VDI(vbd));
    assert_string_equal(VBD_get_userdevice(vbd), "0");
    assert_true(VBD_get_bootable(vbd));
    assert_true(VDI_get_managed(vdi));
    assert_int_equal(VDI_get_virtual_size(vdi), 8ll << 30);
    assert_int_equal(VDI_get_type(vdi), vdi_type_system);
    assert_int_equal(SR_get_virtual_allocation(GET(&world, SR, world.shared)), 8ll << 30);
    assert_true(CALL(&world, NULL, VM_provision, .vm = clone) < 0);
    FAILED(&world, ONLY_PROVISION_TEMPLATE);
    world_done(&world);
}

static void provision_without_a_default_sr_makes_nothing(_unused_ void **state)
{
    struct world world;
    struct value ret;

    world_init(&world);
    assert_int_equal(CALL(&world, &ret, VM_clone, .vm = template_named(&world, "Debian Etch 4.0"),
                          .new_name = "etch"),
                     0);
    {
        struct txn *txn = store_begin(world.core.store);

        pool_put_default_SR(txn, world.core.pool, NULL_REF);
        store_apply(&txn);
    }
    assert_true(CALL(&world, NULL, VM_provision, .vm = ret.ref) < 0);
    FAILED(&world, DEFAULT_SR_NOT_FOUND, "OpaqueRef:NULL");
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 0);
    assert_int_equal(
        CALL(&world, NULL, VM_remove_from_other_config, .self = ret.ref, .key = "disks"), 0);
    assert_int_equal(CALL(&world, NULL, VM_add_to_other_config, .self = ret.ref, .key = "disks",
                          .value = "<!DOCTYPE x><provision/>"),
                     0);
    assert_true(CALL(&world, NULL, VM_provision, .vm = ret.ref) < 0);
    FAILED(&world, INVALID_VALUE, "other_config:disks", "<!DOCTYPE x><provision/>");
    world_done(&world);
}

static void clone_has_disks_nics_and_cds_of_its_own(_unused_ void **state)
{
    struct world world;
    struct value ret, vifs, vbds;
    const struct object *old_vif, *new_vif;
    ref_t vm, disk, clone;

    world_init(&world);
    vm = make_vm(&world, "a");
    disk = make_disk(&world, world.shared, "8388608");
    assert_int_equal(add_drive(&world, vm, disk, "0", "RW", "Disk", false, NULL), 0);
    assert_int_equal(add_drive(&world, vm, NULL_REF, "3", "RO", "CD", true, NULL), 0);
    assert_int_equal(add_nic(&world, vm, "0", "", &ret), 0);
    old_vif = GET(&world, VIF, ret.ref);
    calls_clear(&world);
    assert_int_equal(CALL(&world, &ret, VM_clone, .vm = vm, .new_name = "b"), 0);
    assert_string_equal(world.calls, "disk_clone h1 \n");
    clone = ret.ref;

    vifs = view_inverse(store_core_view(world.core.store), &CLASS_OF(VM)->fields[F_VM_VIFs], clone,
                        world.arena);
    assert_int_equal(vifs.length, 1);
    new_vif = GET(&world, VIF, vifs.items[0].ref);
    assert_string_not_equal(VIF_get_MAC(old_vif), VIF_get_MAC(new_vif));
    vbds = view_inverse(store_core_view(world.core.store), &CLASS_OF(VM)->fields[F_VM_VBDs], clone,
                        world.arena);
    assert_int_equal(vbds.length, 2);
    for (uint32_t i = 0; i < vbds.length; i++) {
        const struct object *vbd = GET(&world, VBD, vbds.items[i].ref);

        assert_false(ref_equal(VBD_get_VDI(vbd), disk));
        assert_int_equal(ref_is_null(VBD_get_VDI(vbd)), VBD_get_type(vbd) == vbd_type_CD);
    }
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 2);
    assert_int_equal(VDI_get_current_operations(GET(&world, VDI, disk))->length, 0);

    assert_int_equal(CALL(&world, NULL, VM_destroy, .self = clone), 0);
    assert_null(GET(&world, VBD, vbds.items[0].ref));
    assert_null(GET(&world, VIF, vifs.items[0].ref));
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 2);
    world_done(&world);
}

static void failed_clone_leaves_nothing(_unused_ void **state)
{
    struct world world;
    struct value ret;
    size_t vms;
    ref_t vm;

    world_init(&world);
    vm = make_vm(&world, "a");
    assert_int_equal(add_drive(&world, vm, make_disk(&world, world.shared, "8388608"), "0", "RW",
                               "Disk", false, NULL),
                     0);
    assert_int_equal(add_drive(&world, vm, make_disk(&world, world.shared, "8388608"), "1", "RW",
                               "Disk", false, NULL),
                     0);
    vms = count_of(&world, CLASS_OF(VM));
    calls_clear(&world);
    world.fail_call = "disk_clone";
    world.fail_after = 1;
    assert_true(CALL(&world, &ret, VM_clone, .vm = vm, .new_name = "b") < 0);
    FAILED(&world, INTERNAL_ERROR, "the slave says no");
    assert_string_equal(world.calls,
                        "disk_clone h1 \ndisk_clone h1 \ndisk_destroy h1 \ndisk_destroy h1 \n");
    assert_int_equal(count_of(&world, CLASS_OF(VM)), vms);
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 2);
    assert_int_equal(VM_get_current_operations(GET(&world, VM, vm))->length, 0);
    assert_int_equal(SR_get_virtual_allocation(GET(&world, SR, world.shared)), 2 * 8388608);
    world_done(&world);
}

static ref_t disk_of(struct world *world, ref_t vm, const char *device)
{
    struct view_iter vbds;
    const struct object *vbd;

    view_each_inverse(&vbds, store_core_view(world->core.store), &CLASS_OF(VM)->fields[F_VM_VBDs],
                      vm);
    while ((vbd = view_next(&vbds)))
        if (streq(VBD_get_userdevice(vbd), device))
            return VBD_get_VDI(vbd);
    return NULL_REF;
}

static void snapshot_is_the_vm_as_it_was(_unused_ void **state)
{
    struct world world;
    struct value ret, ignored_item, ignored, vifs;
    const struct object *snapshot, *vif;
    ref_t vm, first, second, disks[2], disk;

    world_init(&world);
    vm = make_vm(&world, "a");
    for (int i = 0; i < 2; i++) {
        disks[i] = make_disk(&world, world.shared, "8388608");
        assert_int_equal(
            add_drive(&world, vm, disks[i], i ? "1" : "0", "RW", "Disk", false, NULL), 0);
    }
    assert_int_equal(add_drive(&world, vm, NULL_REF, "3", "RO", "CD", true, NULL), 0);
    assert_int_equal(add_nic(&world, vm, "0", "02:00:00:00:00:01", NULL), 0);
    ignored_item = VALUE_REF(disks[1]);
    ignored = VALUE_SET(1, &ignored_item);
    calls_clear(&world);
    assert_int_equal(
        CALL(&world, &ret, VM_snapshot, .vm = vm, .new_name = "then", .ignore_vdis = &ignored), 0);
    assert_string_equal(world.calls, "disk_clone h1 \n");
    first = ret.ref;
    snapshot = GET(&world, VM, first);
    assert_string_equal(VM_get_name_label(snapshot), "then");
    assert_true(VM_get_is_a_snapshot(snapshot) && VM_get_is_a_template(snapshot));
    assert_true(ref_equal(VM_get_snapshot_of(snapshot), vm));
    assert_int_equal(VM_get_snapshot_time(snapshot), 1700000000);
    assert_string_equal(
        value_map_text(VM_get_snapshot_info(snapshot), "power-state-at-snapshot", ""), "Halted");
    assert_true(ref_is_null(VM_get_parent(snapshot)));
    assert_true(ref_equal(VM_get_parent(GET(&world, VM, vm)), first));
    assert_true(ref_is_null(disk_of(&world, first, "1")));
    disk = disk_of(&world, first, "0");
    assert_true(VDI_get_is_a_snapshot(GET(&world, VDI, disk)));
    assert_true(ref_equal(VDI_get_snapshot_of(GET(&world, VDI, disk)), disks[0]));
    assert_int_equal(VDI_get_snapshot_time(GET(&world, VDI, disk)), 1700000000);
    assert_true(VDI_get_managed(GET(&world, VDI, disk)));
    vifs = view_inverse(store_core_view(world.core.store), &CLASS_OF(VM)->fields[F_VM_VIFs], first,
                        world.arena);
    assert_int_equal(vifs.length, 1);
    vif = GET(&world, VIF, vifs.items[0].ref);
    assert_string_equal(VIF_get_MAC(vif), "02:00:00:00:00:01");
    assert_int_equal(count_of(&world, CLASS_OF(message)), 1);

    /* A second one grows the tree; the first may go, and takes nothing along. */
    ignored.length = 0;
    assert_int_equal(
        CALL(&world, &ret, VM_snapshot, .vm = vm, .new_name = "later", .ignore_vdis = &ignored),
        0);
    second = ret.ref;
    assert_true(ref_equal(VM_get_parent(GET(&world, VM, second)), first));
    assert_true(ref_equal(VM_get_parent(GET(&world, VM, vm)), second));
    assert_int_equal(
        view_count_inverse(store_core_view(world.core.store),
                           &CLASS_OF(VM)->fields[F_VM_snapshots], vm),
        2);
    assert_int_equal(CALL(&world, NULL, VM_destroy, .self = first), 0);
    assert_non_null(GET(&world, VDI, disk));
    assert_true(ref_is_null(VM_get_parent(GET(&world, VM, second))));
    assert_int_equal(CALL(&world, NULL, VDI_destroy, .self = disk), 0);
    assert_non_null(GET(&world, VDI, disks[0]));

    /* A snapshot is no VM that could run, but what it holds can be had. */
    assert_true(
        CALL(&world, NULL, VM_snapshot, .vm = second, .new_name = "x", .ignore_vdis = &ignored)
        < 0);
    FAILED(&world, VM_IS_SNAPSHOT, text_of(&world, second), "snapshot");
    assert_int_equal(CALL(&world, &ret, VM_clone, .vm = second, .new_name = "again"), 0);
    assert_int_equal(CALL(&world, NULL, VM_provision, .vm = ret.ref), 0);
    snapshot = GET(&world, VM, ret.ref);
    assert_false(VM_get_is_a_snapshot(snapshot) || VM_get_is_a_template(snapshot));
    assert_true(ref_is_null(VM_get_snapshot_of(snapshot)));
    disk = disk_of(&world, ret.ref, "1");
    assert_false(VDI_get_is_a_snapshot(GET(&world, VDI, disk)));
    assert_true(ref_is_null(VDI_get_snapshot_of(GET(&world, VDI, disk))));
    vifs = view_inverse(store_core_view(world.core.store), &CLASS_OF(VM)->fields[F_VM_VIFs],
                        ret.ref, world.arena);
    assert_string_not_equal(VIF_get_MAC(GET(&world, VIF, vifs.items[0].ref)), "02:00:00:00:00:01");
    world_done(&world);
}

static void failed_snapshot_leaves_nothing(_unused_ void **state)
{
    struct world world;
    struct value none = VALUE_EMPTY_SET, params = VALUE_EMPTY_MAP;
    ref_t vm, disk, template;

    world_init(&world);
    vm = make_vm(&world, "a");
    disk = make_disk(&world, world.shared, "8388608");
    assert_int_equal(add_drive(&world, vm, disk, "0", "RW", "Disk", false, NULL), 0);
    world.fail_call = "disk_clone";
    assert_true(
        CALL(&world, NULL, VM_snapshot, .vm = vm, .new_name = "b", .ignore_vdis = &none) < 0);
    FAILED(&world, INTERNAL_ERROR, "the slave says no");
    world.fail_after = 0;
    assert_true(CALL(&world, NULL, VDI_snapshot, .vdi = disk, .driver_params = &params) < 0);
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 1);
    assert_true(ref_is_null(VM_get_parent(GET(&world, VM, vm))));
    assert_int_equal(VM_get_current_operations(GET(&world, VM, vm))->length, 0);
    assert_int_equal(VDI_get_current_operations(GET(&world, VDI, disk))->length, 0);
    assert_int_equal(count_of(&world, CLASS_OF(message)), 0);

    template = template_named(&world, "Debian Etch 4.0");
    assert_true(
        CALL(&world, NULL, VM_snapshot, .vm = template, .new_name = "b", .ignore_vdis = &none) < 0);
    FAILED(&world, VM_IS_TEMPLATE, text_of(&world, template), "snapshot");
    world_done(&world);
}

static void copy_goes_to_another_sr_by_a_host_that_sees_both(_unused_ void **state)
{
    struct world world;
    struct value ret, vbds;
    ref_t vm;

    world_init(&world);
    vm = make_vm(&world, "a");
    assert_int_equal(add_drive(&world, vm, make_disk(&world, world.shared, "8388608"), "0", "RW",
                               "Disk", false, NULL),
                     0);
    calls_clear(&world);
    assert_int_equal(CALL(&world, &ret, VM_copy, .vm = vm, .new_name = "b", .sr = world.local), 0);
    assert_string_equal(world.calls, "disk_copy h2 \n");
    vbds = view_inverse(store_core_view(world.core.store), &CLASS_OF(VM)->fields[F_VM_VBDs],
                        ret.ref, world.arena);
    assert_true(
        ref_equal(VDI_get_SR(GET(&world, VDI, VBD_get_VDI(GET(&world, VBD, vbds.items[0].ref)))),
                  world.local));
    world_done(&world);
}

/* Nobody writes the disks of a suspended VM. */
static void a_suspended_vm_is_copied(_unused_ void **state)
{
    struct world world;
    struct value ret, vbds;
    struct txn *txn;
    ref_t vm, disk, image;

    world_init(&world);
    vm = make_vm(&world, "a");
    disk = make_disk(&world, world.shared, "8388608");
    image = make_disk(&world, world.shared, "8388608");
    assert_int_equal(add_drive(&world, vm, disk, "0", "RW", "Disk", false, &ret), 0);
    txn = store_begin(world.core.store);
    VBD_put_currently_attached(txn, ret.ref, true);
    store_apply(&txn);
    make_running(&world, vm, world.h1);
    assert_true(CALL(&world, NULL, VDI_copy, .vdi = disk, .sr = world.local) < 0);
    FAILED(&world, VDI_IN_USE, text_of(&world, disk), "copy");

    txn = store_begin(world.core.store);
    VM_put_power_state(txn, vm, vm_power_state_Suspended);
    VM_put_resident_on(txn, vm, NULL_REF);
    VM_put_suspend_VDI(txn, vm, image);
    store_apply(&txn);
    assert_int_equal(CALL(&world, &ret, VM_copy, .vm = vm, .new_name = "b", .sr = NULL_REF), 0);
    assert_int_equal(VM_get_power_state(GET(&world, VM, ret.ref)), vm_power_state_Suspended);
    vbds = view_inverse(store_core_view(world.core.store), &CLASS_OF(VM)->fields[F_VM_VBDs],
                        ret.ref, world.arena);
    assert_int_equal(vbds.length, 1);
    assert_false(ref_equal(VBD_get_VDI(GET(&world, VBD, vbds.items[0].ref)), disk));
    assert_true(CALL(&world, NULL, VDI_destroy, .self = disk) < 0);
    FAILED(&world, VDI_IN_USE, text_of(&world, disk), "destroy");
    world_done(&world);
}

static void drives_are_checked(_unused_ void **state)
{
    struct world world;
    struct value ret;
    struct txn *txn;
    ref_t vm, disk, second;

    world_init(&world);
    vm = make_vm(&world, "a");
    disk = make_disk(&world, world.shared, "8388608");
    assert_true(add_drive(&world, vm, disk, "zero", "RW", "Disk", false, NULL) < 0);
    FAILED(&world, INVALID_DEVICE, "zero");
    assert_true(add_drive(&world, vm, disk, "255", "RW", "Disk", false, NULL) < 0);
    FAILED(&world, INVALID_DEVICE, "255");
    assert_true(add_drive(&world, vm, NULL_REF, "1", "RW", "Disk", true, NULL) < 0);
    FAILED(&world, VBD_NOT_REMOVABLE_MEDIA, "in constructor");
    assert_true(add_drive(&world, vm, disk, "3", "RW", "CD", false, NULL) < 0);
    FAILED(&world, VBD_CDS_MUST_BE_READONLY);
    assert_int_equal(add_drive(&world, vm, disk, "xvda", "RW", "Disk", false, &ret), 0);
    assert_string_equal(VBD_get_userdevice(GET(&world, VBD, ret.ref)), "0");
    assert_true(add_drive(&world, vm, disk, "0", "RW", "Disk", false, NULL) < 0);
    FAILED(&world, DEVICE_ALREADY_EXISTS, "0");
    assert_int_equal(add_drive(&world, vm, disk, "autodetect", "RO", "Disk", false, &ret), 0);
    assert_string_equal(VBD_get_userdevice(GET(&world, VBD, ret.ref)), "1");
    second = ret.ref;
    assert_int_equal(CALL(&world, &ret, VM_get_allowed_VBD_devices, .vm = vm), 0);
    assert_int_equal(ret.length, 253);
    assert_string_equal(ret.items[0].text, "2");

    assert_true(CALL(&world, NULL, VBD_set_userdevice, .self = second, .value = "zzz") < 0);
    FAILED(&world, INVALID_DEVICE, "zzz");
    assert_true(CALL(&world, NULL, VBD_set_userdevice, .self = second, .value = "999") < 0);
    FAILED(&world, INVALID_DEVICE, "999");
    assert_true(CALL(&world, NULL, VBD_set_userdevice, .self = second, .value = "0") < 0);
    FAILED(&world, DEVICE_ALREADY_EXISTS, "0");
    assert_int_equal(CALL(&world, NULL, VBD_set_userdevice, .self = second, .value = "1"), 0);
    assert_int_equal(CALL(&world, NULL, VBD_set_userdevice, .self = second, .value = "xvdh"), 0);
    assert_string_equal(VBD_get_userdevice(GET(&world, VBD, second)), "7");
    assert_int_equal(CALL(&world, NULL, VBD_set_type, .self = second, .value = vbd_type_CD), 0);
    assert_true(CALL(&world, NULL, VBD_set_mode, .self = second, .value = vbd_mode_RW) < 0);
    FAILED(&world, VBD_CDS_MUST_BE_READONLY);
    assert_int_equal(CALL(&world, NULL, VBD_set_type, .self = second, .value = vbd_type_Disk), 0);
    assert_int_equal(CALL(&world, NULL, VBD_set_mode, .self = second, .value = vbd_mode_RW), 0);
    assert_true(CALL(&world, NULL, VBD_set_type, .self = second, .value = vbd_type_CD) < 0);
    FAILED(&world, VBD_CDS_MUST_BE_READONLY);
    assert_int_equal(add_drive(&world, vm, NULL_REF, "3", "RO", "CD", true, &ret), 0);
    assert_true(CALL(&world, NULL, VBD_set_type, .self = ret.ref, .value = vbd_type_Disk) < 0);
    FAILED(&world, VBD_NOT_REMOVABLE_MEDIA, text_of(&world, ret.ref));

    assert_int_equal(CALL(&world, NULL, VDI_set_read_only, .self = disk, .value = true), 0);
    assert_true(add_drive(&world, vm, disk, "2", "RW", "Disk", false, NULL) < 0);
    FAILED(&world, VDI_READONLY, text_of(&world, disk));

    txn = store_begin(world.core.store);
    VBD_put_currently_attached(txn, second, true);
    store_apply(&txn);
    assert_int_equal(CALL(&world, NULL, VBD_set_userdevice, .self = second, .value = "7"), 0);
    assert_true(CALL(&world, NULL, VBD_set_userdevice, .self = second, .value = "8") < 0);
    FAILED(&world, DEVICE_ALREADY_ATTACHED, text_of(&world, second));
    assert_true(CALL(&world, NULL, VBD_set_type, .self = second, .value = vbd_type_Floppy) < 0);
    FAILED(&world, DEVICE_ALREADY_ATTACHED, text_of(&world, second));
    world_done(&world);
}

static void interfaces_are_checked(_unused_ void **state)
{
    struct world world;
    struct value ret;
    ref_t vm;

    world_init(&world);
    vm = make_vm(&world, "a");
    assert_true(add_nic(&world, vm, "x", "", NULL) < 0);
    FAILED(&world, INVALID_DEVICE, "x");
    assert_true(add_nic(&world, vm, "0", "00:16:3e:zz:00:00", NULL) < 0);
    FAILED(&world, MAC_INVALID, "00:16:3e:zz:00:00");
    assert_true(add_nic(&world, vm, "0", "01:16:3e:00:00:00", NULL) < 0);
    FAILED(&world, MAC_INVALID, "01:16:3e:00:00:00");
    assert_int_equal(add_nic(&world, vm, "0", "00:16:3E:00:00:01", &ret), 0);
    assert_string_equal(VIF_get_MAC(GET(&world, VIF, ret.ref)), "00:16:3e:00:00:01");
    assert_false(VIF_get_MAC_autogenerated(GET(&world, VIF, ret.ref)));
    assert_true(add_nic(&world, vm, "0", "", NULL) < 0);
    FAILED(&world, DEVICE_ALREADY_EXISTS, "0");
    assert_int_equal(add_nic(&world, vm, "1", "", &ret), 0);
    assert_true(add_nic_with(&world, vm, "2", "", "-1", NULL) < 0);
    FAILED(&world, INVALID_VALUE, "MTU", "-1");
    assert_true(vif_mac_is_valid(VIF_get_MAC(GET(&world, VIF, ret.ref))));
    assert_true(VIF_get_MAC_autogenerated(GET(&world, VIF, ret.ref)));
    world_done(&world);
}

static void devices_of_a_running_vm_go_through_its_host(_unused_ void **state)
{
    struct world world;
    struct value ret;
    ref_t vm, disk, vbd, cd, image;

    world_init(&world);
    vm = make_vm(&world, "a");
    assert_int_equal(CALL(&world, NULL, VM_set_domain_type, .self = vm, .value = domain_type_pv),
                     0);
    disk = make_disk(&world, world.shared, "8388608");
    image = make_disk(&world, world.shared, "4096");
    assert_int_equal(add_drive(&world, vm, disk, "1", "RW", "Disk", false, &ret), 0);
    vbd = ret.ref;
    assert_int_equal(add_drive(&world, vm, NULL_REF, "3", "RO", "CD", true, &ret), 0);
    cd = ret.ref;
    assert_true(CALL(&world, NULL, VBD_plug, .self = vbd) < 0);
    FAILED(&world, VM_BAD_POWER_STATE, text_of(&world, vm), "running", "halted");

    make_running(&world, vm, world.h2);
    calls_clear(&world);
    assert_int_equal(CALL(&world, NULL, VBD_insert, .vbd = cd, .vdi = image), 0);
    assert_int_equal(CALL(&world, NULL, VBD_eject, .vbd = cd), 0);
    assert_string_equal(world.calls, ""); /* the guest has no such drive */
    assert_int_equal(CALL(&world, NULL, VBD_plug, .self = cd), 0);
    assert_int_equal(CALL(&world, NULL, VBD_plug, .self = vbd), 0);
    assert_true(VBD_get_currently_attached(GET(&world, VBD, vbd)));
    assert_string_equal(VBD_get_device(GET(&world, VBD, vbd)), "xvdb");
    assert_true(CALL(&world, NULL, VBD_plug, .self = vbd) < 0);
    FAILED(&world, DEVICE_ALREADY_ATTACHED, text_of(&world, vbd));
    assert_true(CALL(&world, NULL, VBD_destroy, .self = vbd) < 0);
    assert_string_equal(world.failure.text, "OPERATION_NOT_ALLOWED");
    assert_true(CALL(&world, NULL, VDI_destroy, .self = disk) < 0);
    FAILED(&world, VDI_IN_USE, text_of(&world, disk), "destroy");
    assert_int_equal(CALL(&world, NULL, VBD_insert, .vbd = cd, .vdi = image), 0);
    assert_false(VBD_get_empty(GET(&world, VBD, cd)));
    assert_true(CALL(&world, NULL, VBD_insert, .vbd = cd, .vdi = image) < 0);
    FAILED(&world, VBD_NOT_EMPTY, text_of(&world, cd));
    assert_int_equal(CALL(&world, NULL, VBD_eject, .vbd = cd), 0);
    assert_true(CALL(&world, NULL, VBD_eject, .vbd = cd) < 0);
    FAILED(&world, VBD_IS_EMPTY, text_of(&world, cd));
    assert_int_equal(CALL(&world, NULL, VBD_unplug, .self = vbd), 0);
    assert_int_equal(CALL(&world, NULL, VBD_destroy, .self = vbd), 0);
    assert_non_null(strstr(world.calls, "vbd_plug h2 1\ncd_change h2 "));
    assert_non_null(strstr(world.calls, "cd_change h2 nothing\nvbd_unplug h2 1\n"));
    world_done(&world);
}

static void templates_are_made_once(_unused_ void **state)
{
    struct world world;
    size_t vms;

    world_init(&world);
    vms = count_of(&world, CLASS_OF(VM));
    template_named(&world, "Other install media");
    template_named(&world, "Red Hat Enterprise Linux 5.3 x64");
    template_named(&world, "Windows 7");
    pool_furnish(&world.core);
    assert_int_equal(count_of(&world, CLASS_OF(VM)), vms);
    assert_int_equal(count_of(&world, CLASS_OF(SM)), 4);
    assert_int_equal(count_of(&world, CLASS_OF(network)), 1);
    world_done(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_vm_has_all_that_a_halted_vm_has),
        cmocka_unit_test(memory_limits_keep_their_order),
        cmocka_unit_test(template_is_cloned_and_provisioned),
        cmocka_unit_test(provision_without_a_default_sr_makes_nothing),
        cmocka_unit_test(clone_has_disks_nics_and_cds_of_its_own),
        cmocka_unit_test(failed_clone_leaves_nothing),
        cmocka_unit_test(snapshot_is_the_vm_as_it_was),
        cmocka_unit_test(failed_snapshot_leaves_nothing),
        cmocka_unit_test(copy_goes_to_another_sr_by_a_host_that_sees_both),
        cmocka_unit_test(a_suspended_vm_is_copied),
        cmocka_unit_test(drives_are_checked),
        cmocka_unit_test(interfaces_are_checked),
        cmocka_unit_test(devices_of_a_running_vm_go_through_its_host),
        cmocka_unit_test(templates_are_made_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
