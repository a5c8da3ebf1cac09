/* test_storage_api.c - disks, storage repositories, and hosts that bring them */
#include "api_world.h"

static int create_disk(struct world *world, ref_t sr, const char *size, struct value *ret)
{
    return CALL(world, ret, VDI_create,
                .args =
                    record(world, "VDI.create", "name_label", value_text("d"), "SR", VALUE_REF(sr),
                           "virtual_size", value_text(size), "type", value_text("user"), "sharable",
                           VALUE_BOOL(false), "read_only", VALUE_BOOL(false), NULL));
}

static void disk_is_hidden_until_its_file_stands(_unused_ void **state)
{
    struct world world;
    struct value ret;
    const struct object *vdi;

    world_init(&world);
    assert_true(create_disk(&world, world.shared, "0", NULL) < 0);
    FAILED(&world, INVALID_VALUE, "virtual_size", "0");
    assert_true(create_disk(&world, world.shared, "-1", NULL) < 0);
    FAILED(&world, INVALID_VALUE, "virtual_size", "-1");
    assert_true(create_disk(&world, world.shared, "9223372036854775807", NULL) < 0);
    FAILED(&world, INVALID_VALUE, "virtual_size", "9223372036854775807");
    world.fail_call = "disk_create";
    assert_true(create_disk(&world, world.shared, "1048576", NULL) < 0);
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 0);
    assert_string_equal(world.calls, "disk_create h1 raw\ndisk_destroy h1 \n");

    world.fail_call = NULL;
    assert_int_equal(create_disk(&world, world.shared, "1048576", &ret), 0);
    vdi = GET(&world, VDI, ret.ref);
    assert_true(VDI_get_managed(vdi));
    assert_string_equal(VDI_get_maker(vdi), "");
    assert_string_equal(storage_disk_format(vdi), "raw");
    assert_int_equal(SR_get_virtual_allocation(GET(&world, SR, world.shared)), 1048576);
    assert_int_equal(SR_get_physical_utilisation(GET(&world, SR, world.shared)), 4096);
    assert_int_equal(CALL(&world, NULL, VDI_destroy, .self = ret.ref), 0);
    assert_int_equal(SR_get_virtual_allocation(GET(&world, SR, world.shared)), 0);
    world_done(&world);
}

struct welcome {
    struct world *world;
    ref_t host;
    uint64_t agent_start;
};

static void welcome_fiber(void *arg)
{
    struct welcome *welcome = arg;

    host_welcome(&welcome->world->core, welcome->host, welcome->agent_start);
}

static void welcome(struct world *world, ref_t host, uint64_t agent_start)
{
    struct welcome welcome = {world, host, agent_start};

    assert_non_null(fiber_spawn(world->loop, welcome_fiber, &welcome, "welcome"));
    rest(world);
}

/* What a master that died left half made goes when a host is back. */
static void half_made_disks_are_swept(_unused_ void **state)
{
    struct world world;
    struct txn *txn;
    struct object *draft;
    ref_t vdi;

    world_init(&world);
    txn = store_begin(world.core.store);
    draft = draft_new(world.arena, CLASS_OF(VDI));
    draft->fields[F_VDI_SR] = VALUE_REF(world.shared);
    draft->fields[F_VDI_maker] = value_text("an earlier master");
    vdi = add(&world, txn, draft);
    store_apply(&txn);
    storage_start(&world.core);
    assert_int_equal(world.core.left_over_disks, 1);

    assert_true(CALL(&world, NULL, VDI_destroy, .self = vdi) < 0); /* nobody's */
    FAILED(&world, VDI_NOT_MANAGED, text_of(&world, vdi));
    calls_clear(&world);
    welcome(&world, world.h2, 1);
    assert_non_null(strstr(world.calls, "disk_destroy"));
    assert_int_equal(world.core.left_over_disks, 0);
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 0);
    world_done(&world);
}

/* Some go another way, with their SR: then nothing is left to look for at each hello. */
static void half_made_disks_are_counted_anew(_unused_ void **state)
{
    struct world world;
    struct txn *txn;
    ref_t left[2];

    world_init(&world);
    txn = store_begin(world.core.store);
    for (size_t i = 0; i < ARRAY_SIZE(left); i++) {
        struct object *draft = draft_new(world.arena, CLASS_OF(VDI));

        draft->fields[F_VDI_SR] = VALUE_REF(world.shared);
        draft->fields[F_VDI_maker] = value_text("an earlier master");
        left[i] = add(&world, txn, draft);
    }
    store_apply(&txn);
    storage_start(&world.core);
    assert_int_equal(world.core.left_over_disks, 2);
    txn = store_begin(world.core.store);
    storage_drop_vdi(txn, left[0]);
    store_apply(&txn);

    welcome(&world, world.h2, 1);
    assert_int_equal(world.core.left_over_disks, 0);
    world_done(&world);
}

static void snapshots_are_disks_of_their_own(_unused_ void **state)
{
    struct world world;
    struct value ret, params;
    const struct object *vdi;
    ref_t disk, snapshot;

    world_init(&world);
    params = text_map(world.arena, "a", "b", NULL);
    assert_int_equal(create_disk(&world, world.shared, "8388608", &ret), 0);
    disk = ret.ref;
    assert_int_equal(CALL(&world, &ret, VDI_snapshot, .vdi = disk, .driver_params = &params), 0);
    snapshot = ret.ref;
    vdi = GET(&world, VDI, snapshot);
    assert_true(VDI_get_is_a_snapshot(vdi));
    assert_true(ref_equal(VDI_get_snapshot_of(vdi), disk));
    assert_int_equal(VDI_get_snapshot_time(vdi), 1700000000);
    assert_string_equal(value_map_text(VDI_get_sm_config(vdi), "a", ""), "b");
    assert_int_equal(view_count_inverse(store_core_view(world.core.store),
                                        &CLASS_OF(VDI)->fields[F_VDI_snapshots], disk),
                     1);
    assert_int_equal(SR_get_virtual_allocation(GET(&world, SR, world.shared)), 2 * 8388608);
    assert_int_equal(CALL(&world, &ret, VDI_clone, .vdi = snapshot, .driver_params = &params), 0);
    vdi = GET(&world, VDI, ret.ref);
    assert_false(VDI_get_is_a_snapshot(vdi));
    assert_true(ref_is_null(VDI_get_snapshot_of(vdi)));
    assert_int_equal(CALL(&world, NULL, VDI_destroy, .self = disk), 0); /* the snapshot stays */
    assert_non_null(GET(&world, VDI, snapshot));
    assert_int_equal(CALL(&world, NULL, VDI_set_sharable, .self = snapshot, .value = true), 0);
    assert_true(CALL(&world, NULL, VDI_snapshot, .vdi = snapshot, .driver_params = &params) < 0);
    FAILED(&world, VDI_IS_SHARABLE, text_of(&world, snapshot));
    assert_int_equal(VDI_get_current_operations(GET(&world, VDI, snapshot))->length, 0);
    world_done(&world);
}

static void sizes_follow_a_resize(_unused_ void **state)
{
    struct world world;
    struct value ret;

    world_init(&world);
    assert_int_equal(create_disk(&world, world.shared, "1048576", &ret), 0);
    assert_true(CALL(&world, NULL, VDI_resize, .vdi = ret.ref, .size = 1000) < 0);
    FAILED(&world, VDI_TOO_SMALL, text_of(&world, ret.ref), "1048576");
    assert_true(CALL(&world, NULL, VDI_resize, .vdi = ret.ref, .size = INT64_MAX) < 0);
    FAILED(&world, VDI_TOO_LARGE, text_of(&world, ret.ref), "70368744177664");
    assert_int_equal(CALL(&world, NULL, VDI_resize, .vdi = ret.ref, .size = 4194304), 0);
    assert_int_equal(VDI_get_virtual_size(GET(&world, VDI, ret.ref)), 4194304);
    assert_int_equal(SR_get_virtual_allocation(GET(&world, SR, world.shared)), 4194304);
    world_done(&world);
}

static void unattached_sr_has_no_host(_unused_ void **state)
{
    struct world world;
    struct txn *txn;
    ref_t lonely;

    world_init(&world);
    txn = store_begin(world.core.store);
    lonely = add_sr(&world, txn, "file", false);
    store_apply(&txn);
    assert_true(create_disk(&world, lonely, "1048576", NULL) < 0);
    FAILED(&world, SR_HAS_NO_PBDS, text_of(&world, lonely));
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 0);
    world_done(&world);
}

static void sr_lives_and_ends(_unused_ void **state)
{
    struct world world;
    struct value ret, config, none = VALUE_EMPTY_MAP, pbds;
    ref_t sr;

    world_init(&world);
    config = text_map(world.arena, "location", "/srv/iso", NULL);
    assert_true(CALL(&world, NULL, SR_create, .host = world.h1, .device_config = &config,
                     .name_label = "x", .name_description = "", .type = "lvmoiscsi",
                     .content_type = "", .sm_config = &none)
                < 0);
    FAILED(&world, SR_UNKNOWN_DRIVER, "lvmoiscsi");
    assert_true(CALL(&world, NULL, SR_create, .host = world.h1, .device_config = &none,
                     .name_label = "x", .name_description = "", .type = "iso", .content_type = "",
                     .sm_config = &none)
                < 0);
    assert_string_equal(world.failure.text, "SR_BACKEND_FAILURE_90");
    assert_int_equal(world.failure.count, 3);

    calls_clear(&world);
    assert_int_equal(CALL(&world, &ret, SR_create, .host = world.h2, .device_config = &config,
                          .name_label = "x", .name_description = "", .type = "ISO",
                          .content_type = "iso", .shared = true, .sm_config = &none),
                     0);
    sr = ret.ref;
    assert_string_equal(world.calls,
                        "sr_create h2 \nsr_attach h2 \nsr_scan h2 \nsr_stat h2 \nsr_attach h1 \n");
    assert_int_equal(SR_get_physical_size(GET(&world, SR, sr)), 1000000000);
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 1); /* found.iso */
    assert_true(create_disk(&world, sr, "1048576", NULL) < 0);
    FAILED(&world, SR_OPERATION_NOT_SUPPORTED, text_of(&world, sr));

    assert_true(CALL(&world, NULL, SR_forget, .sr = sr) < 0);
    FAILED(&world, SR_HAS_PBD, text_of(&world, sr));
    pbds = view_inverse(store_core_view(world.core.store), &CLASS_OF(SR)->fields[F_SR_PBDs], sr,
                        world.arena);
    for (uint32_t i = 0; i < pbds.length; i++)
        assert_int_equal(CALL(&world, NULL, PBD_unplug, .self = pbds.items[i].ref), 0);
    assert_true(CALL(&world, NULL, SR_destroy, .sr = sr) < 0);
    FAILED(&world, SR_NOT_EMPTY);
    assert_int_equal(CALL(&world, NULL, SR_create_new_blob, .sr = sr, .name = "b", .mime_type = ""),
                     0);
    assert_int_equal(count_of(&world, CLASS_OF(blob)), 1);
    assert_int_equal(CALL(&world, NULL, SR_forget, .sr = sr), 0);
    assert_int_equal(count_of(&world, CLASS_OF(blob)), 0); /* it ends with its owner */
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 0);
    assert_null(GET(&world, PBD, pbds.items[0].ref));
    world_done(&world);
}

static void failed_sr_leaves_nothing(_unused_ void **state)
{
    struct world world;
    struct value config, none = VALUE_EMPTY_MAP;
    size_t srs, pbds;

    world_init(&world);
    config = text_map(world.arena, "location", "/srv/x", NULL);
    srs = count_of(&world, CLASS_OF(SR));
    pbds = count_of(&world, CLASS_OF(PBD));
    world.fail_call = "sr_attach";
    assert_true(CALL(&world, NULL, SR_create, .host = world.h1, .device_config = &config,
                     .name_label = "x", .name_description = "", .type = "shared-file",
                     .content_type = "", .shared = true, .sm_config = &none)
                < 0);
    FAILED(&world, INTERNAL_ERROR, "the slave says no");
    assert_int_equal(count_of(&world, CLASS_OF(SR)), srs);
    assert_int_equal(count_of(&world, CLASS_OF(PBD)), pbds);
    world_done(&world);
}

static void scan_marks_what_is_missing(_unused_ void **state)
{
    struct world world;
    struct value ret;

    world_init(&world);
    assert_int_equal(create_disk(&world, world.shared, "1048576", &ret), 0);
    assert_int_equal(CALL(&world, NULL, SR_scan, .sr = world.shared), 0);
    assert_true(VDI_get_missing(
        GET(&world, VDI, ret.ref))); /* the slave of this test knows only found.iso */
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 2);
    assert_int_equal(CALL(&world, NULL, SR_scan, .sr = world.shared), 0);
    assert_int_equal(count_of(&world, CLASS_OF(VDI)), 2);
    assert_int_equal(SR_get_current_operations(GET(&world, SR, world.shared))->length, 0);
    world_done(&world);
}

static void host_enrols_once(_unused_ void **state)
{
    struct world world;
    const struct object *host, *dom0, *pif;
    struct view_iter pifs;
    struct value about;
    size_t hosts, vms, pbds;
    ref_t uuid, ref;

    world_init(&world);
    about = text_map(world.arena, "name", "three", "address", "10.0.0.3", "memory_bytes",
                     "8589934592", "cpus", "2", "storage", "/var/lib/drover/sr", NULL);
    uuid = ref_new(world.core.random);
    pbds = count_of(&world, CLASS_OF(PBD));
    ref = host_enrol(&world.core, uuid, "key3", &about, NULL);
    hosts = count_of(&world, CLASS_OF(host));
    vms = count_of(&world, CLASS_OF(VM));
    assert_int_equal(count_of(&world, CLASS_OF(PBD)),
                     pbds + 2); /* its own SR, and the shared one */
    assert_true(ref_equal(host_enrol(&world.core, uuid, "key3", &about, NULL), ref));
    assert_int_equal(count_of(&world, CLASS_OF(host)), hosts);
    assert_int_equal(count_of(&world, CLASS_OF(VM)), vms);
    assert_int_equal(count_of(&world, CLASS_OF(PBD)), pbds + 2);

    host = GET(&world, host, ref);
    assert_false(host_get_enabled(host));
    assert_string_equal(value_map_text(host_get_software_version(host), "product_version", ""),
                        "8.3.0");
    assert_int_equal(host_get_API_version_major(host), 2);
    assert_int_equal(view_count_inverse(store_core_view(world.core.store),
                                        &CLASS_OF(host)->fields[F_host_host_CPUs], ref),
                     2);
    dom0 = GET(&world, VM, host_get_control_domain(host));
    assert_true(VM_get_is_control_domain(dom0));
    assert_int_equal(VM_get_domid(dom0), 0);
    assert_int_equal(VM_get_power_state(dom0), vm_power_state_Running);
    assert_true(ref_equal(VM_get_resident_on(dom0), ref));
    view_each_inverse(&pifs, store_core_view(world.core.store),
                      &CLASS_OF(host)->fields[F_host_PIFs], ref);
    pif = view_next(&pifs);
    assert_string_equal(PIF_get_IP(pif), "10.0.0.3");
    assert_string_equal(network_get_bridge(GET(&world, network, PIF_get_network(pif))), "xenbr0");
    assert_int_equal(CALL(&world, NULL, VM_destroy, .self = dom0->ref), -ERR_VM_BAD_POWER_STATE);
    world_done(&world);
}

/* The master's own host has a record before its agent speaks, and the agent's uuid if that is
 * known. */
static void host_known_by_uuid_gets_the_rest_of_its_records(_unused_ void **state)
{
    struct world world;
    struct value about;
    struct object *draft, *metrics;
    struct txn *txn;
    char text[UUID_TEXT_BYTES];
    ref_t uuid, ref;

    world_init(&world);
    uuid = ref_new(world.core.random);
    txn = store_begin(world.core.store);
    metrics = draft_new(world.arena, CLASS_OF(host_metrics));
    draft = draft_new(world.arena, CLASS_OF(host));
    draft->fields[F_host_metrics] = VALUE_REF(add(&world, txn, metrics));
    draft->fields[F_host_uuid] = value_text(uuid_print(text, uuid));
    draft->fields[F_host_enabled] = VALUE_BOOL(true);
    ref = add(&world, txn, draft);
    store_apply(&txn);
    about = text_map(world.arena, "name", "three", "address", "10.0.0.3", NULL);
    assert_true(ref_equal(host_enrol(&world.core, uuid, "key3", &about, NULL), ref));
    assert_false(host_get_enabled(GET(&world, host, ref)));
    assert_non_null(GET(&world, VM, host_get_control_domain(GET(&world, host, ref))));
    welcome(&world, ref, 1);
    assert_true(host_get_enabled(GET(&world, host, ref)));
    world_done(&world);
}

/* Without the uuid it is known by its address. */
static void agent_of_the_masters_host_takes_its_record(_unused_ void **state)
{
    struct world world;
    struct value about;
    struct txn *txn;
    size_t hosts;
    ref_t uuid;

    world_init(&world);
    txn = store_begin(world.core.store);
    host_put_curve_key(txn, world.h1, "");
    store_apply(&txn);
    about = text_map(world.arena, "name", "one", "address", "10.0.0.1", NULL);
    uuid = ref_new(world.core.random);
    hosts = count_of(&world, CLASS_OF(host));
    assert_true(ref_equal(host_enrol(&world.core, uuid, "key", &about, NULL), world.h1));
    assert_int_equal(count_of(&world, CLASS_OF(host)), hosts);
    assert_string_equal(host_get_curve_key(GET(&world, host, world.h1)), "key");

    /* Another one at the same address is another host. */
    uuid = ref_new(world.core.random);
    assert_false(ref_equal(host_enrol(&world.core, uuid, "key2", &about, NULL), world.h1));
    world_done(&world);
}

static void new_host_is_enabled_when_its_storage_is_up(_unused_ void **state)
{
    struct world world;
    struct value about;
    struct txn *txn;
    ref_t host;

    world_init(&world);
    about = text_map(world.arena, "name", "three", "address", "10.0.0.3", "storage", "/sr", NULL);
    host = host_enrol(&world.core, ref_new(world.core.random), "key3", &about, NULL);
    calls_clear(&world);
    welcome(&world, host, 1);
    assert_non_null(strstr(world.calls, "sr_attach"));
    assert_true(host_get_enabled(GET(&world, host, host)));

    /* An operator's decision stands when the agent says hello again. */
    txn = store_begin(world.core.store);
    host_put_enabled(txn, host, false);
    store_apply(&txn);
    welcome(&world, host, 1);
    assert_false(host_get_enabled(GET(&world, host, host)));
    world_done(&world);
}

static void started_host_is_enabled_unless_a_user_said_no(_unused_ void **state)
{
    struct world world;
    struct value about, ret = VALUE_VOID;
    ref_t host;

    world_init(&world);
    about = text_map(world.arena, "name", "three", "address", "10.0.0.3", "storage", "/sr", NULL);
    host = host_enrol(&world.core, ref_new(world.core.random), "key3", &about, NULL);
    welcome(&world, host, 1);
    assert_int_equal(CALL(&world, &ret, host_disable, .host = host, .auto_enable = true), 0);
    welcome(&world, host, 1); /* only its link broke */
    assert_false(host_get_enabled(GET(&world, host, host)));
    welcome(&world, host, 2);
    assert_true(host_get_enabled(GET(&world, host, host)));

    assert_int_equal(CALL(&world, &ret, host_disable, .host = host, .auto_enable = false), 0);
    welcome(&world, host, 3);
    assert_false(host_get_enabled(GET(&world, host, host)));
    assert_int_equal(CALL(&world, &ret, host_disable, .host = host, .auto_enable = true), 0);
    welcome(&world, host, 4);
    assert_true(host_get_enabled(GET(&world, host, host)));
    world_done(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disk_is_hidden_until_its_file_stands),
        cmocka_unit_test(half_made_disks_are_swept),
        cmocka_unit_test(half_made_disks_are_counted_anew),
        cmocka_unit_test(snapshots_are_disks_of_their_own),
        cmocka_unit_test(sizes_follow_a_resize),
        cmocka_unit_test(unattached_sr_has_no_host),
        cmocka_unit_test(sr_lives_and_ends),
        cmocka_unit_test(failed_sr_leaves_nothing),
        cmocka_unit_test(scan_marks_what_is_missing),
        cmocka_unit_test(host_enrols_once),
        cmocka_unit_test(host_known_by_uuid_gets_the_rest_of_its_records),
        cmocka_unit_test(agent_of_the_masters_host_takes_its_record),
        cmocka_unit_test(new_host_is_enabled_when_its_storage_is_up),
        cmocka_unit_test(started_host_is_enabled_unless_a_user_said_no),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
