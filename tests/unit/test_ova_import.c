/* test_ova_import.c - what an import matches, makes, leaves out and refuses; what an export holds
 */
#include "tests/unit/ova_place.h"

#include <xxhash.h>

#include "master/storage.h"
#include "shared/refmap.h"

/* ---- a pool with something in it ---- */

static ref_t make_vm(struct place *place, struct txn *txn, const char *name)
{
    struct object *draft = draft_new(place->call.arena, CLASS_OF(VM));
    struct value *fields = draft->fields;

    vm_draft_halt(draft);
    fields[F_VM_name_label] = value_text(name);
    fields[F_VM_memory_dynamic_min] = fields[F_VM_memory_dynamic_max] =
        fields[F_VM_memory_static_max] = VALUE_INT(64 * MIB);
    fields[F_VM_VCPUs_max] = fields[F_VM_VCPUs_at_startup] = VALUE_INT(1);
    return vm_create(&place->call, txn, draft);
}

static ref_t add_drive(struct place *place, struct txn *txn, ref_t vm, ref_t vdi,
                       const char *device, enum vbd_type type)
{
    struct object *draft = draft_new(place->call.arena, CLASS_OF(VBD));
    struct value *fields = draft->fields;
    ref_t made;

    fields[F_VBD_VM] = VALUE_REF(vm);
    fields[F_VBD_VDI] = VALUE_REF(vdi);
    fields[F_VBD_userdevice] = value_text(device);
    fields[F_VBD_type] = VALUE_ENUM(vbd_type, (int) type);
    fields[F_VBD_mode] = VALUE_ENUM(vbd_mode, type == vbd_type_CD ? vbd_mode_RO : vbd_mode_RW);
    assert_int_equal(vbd_create(&place->call, txn, draft, &made), 0);
    return made;
}

static void add_text(struct buffer *to, const char *text)
{
    buffer_add(to, text, strlen(text));
}

static void add_object(struct arena *arena, struct buffer *to, const char *class, int number, const char *members)
{
    add_text(to, arena_text(arena, "<value><struct><member><name>class</name><value>%s</value></member><member><name>id</name><value>%s %d</value>"
                                   "</member><member><name>snapshot</name><value><struct>%s</struct></value></member></struct></value>",
                            class, class, number, members));
}

static const struct view *view_of(struct place *place)
{
    return store_core_view(place->call.core->store);
}

static size_t count_of(struct place *place, const struct class *class)
{
    return view_count(view_of(place), class);
}

static const struct object *vm_named(struct place *place, const char *name)
{
    struct view_iter vms;

    view_each_name(&vms, view_of(place), CLASS_OF(VM), name);
    return view_next(&vms);
}

static const char *write_one(struct place *place, ref_t vm, const struct ova_options *options)
{
    struct buffer out;
    const char *text;

    buffer_init(&out, OVA_BYTES_MAX);
    ova_write(view_of(place), place->call.arena, &vm, 1, options, &out, NULL, NULL);
    text = arena_strdup(place->call.arena, buffer_text(&out));
    buffer_done(&out);
    return text;
}

static int bring_in(struct place *place, const char *text, const struct ova_import_options *options,
                    struct ova_import **ret)
{
    struct ova_import *import;
    int r = place_import(place, text, strlen(text), options, &import);

    if (ret)
        *ret = import;
    return r;
}

static void expect_failure(struct place *place, const char *code, const char *detail)
{
    assert_string_equal(place->call.failure.text, code);
    if (detail)
        assert_string_equal(place->call.failure.params[place->call.failure.count - 1], detail);
}

/* Two pools: the first with a VM "a", a disk and a CD. */
struct pools {
    struct place from, to;
    ref_t vm, disk;
    const char *text; /* of its export */
};

static int setup(void **state)
{
    static const struct ova_options plain = {0};
    struct pools *p = new0(struct pools);
    struct txn *txn;
    struct view_iter isos;

    place_open(&p->from, 11);
    place_open(&p->to, 12);
    place_add_storage(&p->from);
    place_add_storage(&p->to);
    txn = store_begin(p->from.call.core->store);
    p->vm = make_vm(&p->from, txn, "a");
    p->disk = place_add_vdi(&p->from, txn, p->from.sr, "disk");
    add_drive(&p->from, txn, p->vm, p->disk, "0", vbd_type_Disk);
    view_each_inverse(&isos, txn_view(txn), &CLASS_OF(SR)->fields[F_SR_VDIs], p->from.isos);
    add_drive(&p->from, txn, p->vm, view_next(&isos)->ref, "3", vbd_type_CD);
    store_apply(&txn);
    p->text = write_one(&p->from, p->vm, &plain);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct pools *p = *state;

    place_close(&p->from);
    place_close(&p->to);
    free(p);
    return 0;
}

/* The drive of the new VM "a" at a device. */
static const struct object *drive(struct place *place, const char *device)
{
    const struct object *vbd;
    struct view_iter vbds;

    view_each_inverse(&vbds, view_of(place), &CLASS_OF(VM)->fields[F_VM_VBDs],
                      vm_named(place, "a")->ref);
    while ((vbd = view_next(&vbds)) && !streq(VBD_get_userdevice(vbd), device))
        ;
    return vbd;
}

/* ---- disks and CDs ---- */

static void disks_go_to_the_default_sr_and_cds_by_name(void **state)
{
    struct pools *p = *state;
    static const struct ova_import_options plain = {0};
    struct ova_import *import;
    const struct object *cd;

    assert_int_equal(bring_in(&p->to, p->text, &plain, &import), 0);
    assert_int_equal(import->disk_count, 1);
    assert_int_equal(import->disks[0].virtual_size, MIB);
    assert_true(ref_equal(VBD_get_VDI(drive(&p->to, "0")), import->disks[0].vdi));
    assert_true(
        ref_equal(VDI_get_SR(view_get(view_of(&p->to), VDI, import->disks[0].vdi)), p->to.sr));
    cd = drive(&p->to, "3");
    assert_string_equal(VDI_get_name_label(view_get(view_of(&p->to), VDI, VBD_get_VDI(cd))),
                        "debian.iso");
    assert_int_equal(VM_get_current_operations(vm_named(&p->to, "a"))->length,
                     1); /* until it is done */
}

static void a_cd_that_is_not_here_leaves_an_empty_drive(void **state)
{
    struct pools *p = *state;
    static const struct ova_import_options plain = {0};
    struct txn *txn = store_begin(p->to.call.core->store);

    SR_put_content_type(txn, p->to.isos, "user");
    store_apply(&txn);
    assert_int_equal(bring_in(&p->to, p->text, &plain, NULL), 0);
    assert_true(VBD_get_empty(drive(&p->to, "3")));
    assert_true(ref_is_null(VBD_get_VDI(drive(&p->to, "3"))));
}

static void an_sr_must_take_disks(void **state)
{
    struct pools *p = *state;
    struct ova_import_options options = {.sr = p->to.isos};
    struct txn *txn;

    assert_true(bring_in(&p->to, p->text, &options, NULL) < 0);
    expect_failure(&p->to, "SR_OPERATION_NOT_SUPPORTED", NULL);
    options.sr = (ref_t){1, 1};
    assert_true(bring_in(&p->to, p->text, &options, NULL) < 0);
    expect_failure(&p->to, "HANDLE_INVALID", NULL);
    txn = store_begin(p->to.call.core->store);
    pool_put_default_SR(txn, pool_object(txn_view(txn))->ref, NULL_REF);
    store_apply(&txn);
    options.sr = NULL_REF;
    assert_true(bring_in(&p->to, p->text, &options, NULL) < 0);
    expect_failure(&p->to, "DEFAULT_SR_NOT_FOUND", "OpaqueRef:NULL");
    assert_null(vm_named(&p->to, "a"));
}

static void metadata_finds_its_disks_by_uuid_or_map(void **state)
{
    struct pools *p = *state;
    struct ova_import_options options = {.is_metadata = true};
    const char *uuid = VDI_get_uuid(view_get(view_of(&p->from), VDI, p->disk));
    struct txn *txn = store_begin(p->to.call.core->store);
    ref_t other = place_add_vdi(&p->to, txn, p->to.sr, "elsewhere");
    struct value map;

    map = text_map(p->to.call.arena, uuid, VDI_get_uuid(txn_get(txn, VDI, other)), NULL);
    store_apply(&txn);
    assert_true(bring_in(&p->to, p->text, &options, NULL) < 0);
    expect_failure(&p->to, "IMPORT_ERROR_FAILED_TO_FIND_OBJECT", uuid);
    options.vdi_map = &map;
    assert_int_equal(bring_in(&p->to, p->text, &options, NULL), 0);
    assert_true(ref_equal(VBD_get_VDI(drive(&p->to, "0")), other));
    assert_int_equal(VM_get_current_operations(vm_named(&p->to, "a"))->length, 0);
}

static void force_leaves_out_what_misses_its_disk(void **state)
{
    struct pools *p = *state;
    static const struct ova_import_options options = {.is_metadata = true, .is_forced = true};

    assert_int_equal(bring_in(&p->to, p->text, &options, NULL), 0);
    assert_null(drive(&p->to, "0"));
    assert_non_null(drive(&p->to, "3"));
}

/* ---- VMs ---- */

static void restore_refuses_a_vm_that_is_here(void **state)
{
    struct pools *p = *state;
    static const struct ova_import_options options = {.is_restore = true};
    const char *uuid = VM_get_uuid(view_get(view_of(&p->from), VM, p->vm));

    assert_int_equal(bring_in(&p->to, p->text, &options, NULL), 0);
    assert_string_equal(VM_get_uuid(vm_named(&p->to, "a")), uuid);
    assert_true(bring_in(&p->to, p->text, &options, NULL) < 0);
    expect_failure(&p->to, "DUPLICATE_VM", uuid);
    assert_string_equal(p->to.call.failure.params[0],
                        ref_text(&p->to.call, vm_named(&p->to, "a")->ref));
}

static void a_suspended_vm_keeps_its_image(void **state)
{
    struct pools *p = *state;
    static const struct ova_options preserve = {.preserve_power_state = true}, plain = {0};
    static const struct ova_import_options options = {0};
    struct txn *txn = store_begin(p->from.call.core->store);
    ref_t image = place_add_vdi(&p->from, txn, p->from.sr, "image");
    const struct object *vm;
    struct ova_import *import;

    VM_put_power_state(txn, p->vm, vm_power_state_Suspended);
    VM_put_suspend_VDI(txn, p->vm, image);
    store_apply(&txn);
    assert_int_equal(bring_in(&p->to, write_one(&p->from, p->vm, &plain), &options, &import), 0);
    assert_int_equal(import->disk_count, 1);
    vm = vm_named(&p->to, "a");
    assert_int_equal(VM_get_power_state(vm), vm_power_state_Halted);
    txn = store_begin(p->to.call.core->store);
    vm_delete(txn, vm->ref);
    store_apply(&txn);
    assert_int_equal(bring_in(&p->to, write_one(&p->from, p->vm, &preserve), &options, &import), 0);
    assert_int_equal(import->disk_count, 2);
    vm = vm_named(&p->to, "a");
    assert_int_equal(VM_get_power_state(vm), vm_power_state_Suspended);
    assert_string_equal(VDI_get_name_label(view_get(view_of(&p->to), VDI, VM_get_suspend_VDI(vm))),
                        "image");
}

static void a_snapshot_alone_is_the_result(void **state)
{
    struct pools *p = *state;
    static const struct ova_options with = {.with_snapshots = true}, without = {0};
    static const struct ova_import_options options = {0};
    struct txn *txn = store_begin(p->from.call.core->store);
    ref_t snapshot = make_vm(&p->from, txn, "snapshot");
    struct ova_import *import;
    struct value vms;

    VM_put_is_a_snapshot(txn, snapshot, true);
    VM_put_is_a_template(txn, snapshot, true);
    VM_put_snapshot_of(txn, snapshot, p->vm);
    VM_put_snapshot_time(txn, snapshot, 1000);
    store_apply(&txn);
    assert_int_equal(bring_in(&p->to, write_one(&p->from, snapshot, &without), &options, &import),
                     0);
    vms = ova_import_result(import);
    assert_int_equal(vms.length, 1);
    assert_true(VM_get_is_a_snapshot(view_get(view_of(&p->to), VM, vms.items[0].ref)));
    assert_true(ref_is_null(VM_get_snapshot_of(view_get(view_of(&p->to), VM, vms.items[0].ref))));

    assert_int_equal(bring_in(&p->to, write_one(&p->from, p->vm, &with), &options, &import), 0);
    vms = ova_import_result(import);
    assert_int_equal(vms.length, 1);
    assert_string_equal(VM_get_name_label(view_get(view_of(&p->to), VM, vms.items[0].ref)), "a");
    assert_int_equal(view_count_inverse(view_of(&p->to), &CLASS_OF(VM)->fields[F_VM_snapshots],
                                        vms.items[0].ref),
                     1);
}

/* What others do to the SR changes no byte: an export that was interrupted can go on. */
static void others_change_nothing_in_the_text(void **state)
{
    struct pools *p = *state;
    static const struct ova_options plain = {0};
    _cleanup_(free_p) char *before = dup_text(write_one(&p->from, p->vm, &plain));
    struct txn *txn = store_begin(p->from.call.core->store);
    struct view_iter srs;
    const struct object *sr;
    unsigned count = 0;

    view_each(&srs, view_of(&p->from), CLASS_OF(SR));
    while ((sr = view_next(&srs))) {
        storage_count(txn, sr->ref, 1 << 30, 1 << 20);
        SR_put_physical_size(txn, sr->ref, 4711);
        count++;
    }
    store_apply(&txn);
    assert_true(count > 0);
    assert_string_equal(write_one(&p->from, p->vm, &plain), before);
}

static void default_templates_and_control_domains_are_here_already(void **state)
{
    struct pools *p = *state;
    static const struct ova_options plain = {0};
    static const struct ova_import_options options = {0};
    struct txn *txn = store_begin(p->to.call.core->store);
    ref_t here = make_vm(&p->to, txn, "a");
    struct ova_import *import;
    size_t before;

    VM_put_is_a_template(txn, here, true);
    VM_put_is_default_template(txn, here, true);
    store_apply(&txn);
    txn = store_begin(p->from.call.core->store);
    VM_put_is_a_template(txn, p->vm, true);
    VM_put_is_default_template(txn, p->vm, true);
    store_apply(&txn);
    before = count_of(&p->to, CLASS_OF(VM));
    assert_int_equal(bring_in(&p->to, write_one(&p->from, p->vm, &plain), &options, &import), 0);
    assert_int_equal(ova_import_result(import).length + (uint32_t) import->disk_count, 0);
    txn = store_begin(p->from.call.core->store);
    VM_put_is_default_template(txn, p->vm, false);
    VM_put_is_control_domain(txn, p->vm, true);
    store_apply(&txn);
    assert_int_equal(bring_in(&p->to, write_one(&p->from, p->vm, &plain), &options, &import), 0);
    assert_int_equal(count_of(&p->to, CLASS_OF(VM)), before);
}

static void what_is_undone_leaves_nothing(void **state)
{
    struct pools *p = *state;
    static const struct ova_options plain = {0};
    static const struct ova_import_options options = {0};
    static const int classes[] = {CLASS_NUMBER_VM,         CLASS_NUMBER_VBD,
                                  CLASS_NUMBER_VIF,        CLASS_NUMBER_network,
                                  CLASS_NUMBER_VM_metrics, CLASS_NUMBER_VM_guest_metrics};
    size_t before[ARRAY_SIZE(classes)];
    struct ova_import *import;
    struct object *draft = draft_new(p->from.call.arena, CLASS_OF(network));
    struct object *vif = draft_new(p->from.call.arena, CLASS_OF(VIF));
    struct txn *txn = store_begin(p->from.call.core->store);
    ref_t made;

    draft->fields[F_network_name_label] = value_text("of its own");
    vif->fields[F_VIF_network] = VALUE_REF(draft_create(&p->from.call, txn, draft));
    vif->fields[F_VIF_VM] = VALUE_REF(p->vm);
    vif->fields[F_VIF_device] = value_text("0");
    assert_int_equal(vif_create(&p->from.call, txn, vif, &made), 0);
    store_apply(&txn);
    for (size_t i = 0; i < ARRAY_SIZE(classes); i++)
        before[i] = count_of(&p->to, &model_classes[classes[i]]);
    assert_int_equal(bring_in(&p->to, write_one(&p->from, p->vm, &plain), &options, &import), 0);
    assert_int_equal(count_of(&p->to, CLASS_OF(network)), before[3] + 1);
    txn = store_begin(p->to.call.core->store);
    ova_import_undo(import, txn);
    store_apply(&txn);
    for (size_t i = 0; i < ARRAY_SIZE(classes); i++)
        assert_int_equal(count_of(&p->to, &model_classes[classes[i]]), before[i]);
}

/* From its creation on a VM is somebody's, whom a harder operation can make stop; and so it is until the end, either way. */
static void a_vm_is_claimed_until_it_is_whole(void **state)
{
    static const struct ova_import_options options = {0}, metadata = {.is_metadata = true};
    struct pools *p = *state;
    struct core *core = p->to.call.core;
    struct ova_import *import;
    const struct object *vm;
    struct txn *txn;
    ref_t ref;

    for (int is_undone = 0; is_undone < 2; is_undone++) {
        assert_int_equal(bring_in(&p->to, p->text, &options, &import), 0);
        ref = vm_named(&p->to, "a")->ref;
        vm = view_get(view_of(&p->to), VM, ref);
        assert_int_equal(VM_get_current_operations(vm)->length, 1);
        assert_int_equal(VM_get_current_operations(vm)->items[1].e.index, vm_operations_import);
        assert_ptr_equal(claim_live_call(core, ref), &p->to.call);
        txn = store_begin(core->store);
        if (is_undone)
            ova_import_undo(import, txn);
        else
            ova_import_done(import, txn);
        store_apply(&txn);
        assert_null(claim_live_call(core, ref));
        vm = view_get(view_of(&p->to), VM, ref);
        assert_int_equal(vm != NULL, !is_undone);
        if (vm) {
            assert_int_equal(VM_get_current_operations(vm)->length, 0);
            txn = store_begin(core->store);
            vm_delete(txn, ref);
            store_apply(&txn);
        }
    }
    assert_true(bring_in(&p->to, p->text, &metadata, &import) < 0); /* its disk is not here */
}

/* Names of bridges are found in one walk: a file of a megabyte once held the core up for a minute. */
static void many_networks_find_their_bridges(void **state)
{
    enum { NETWORKS = 3000 };
    static const struct ova_import_options metadata = {.is_metadata = true};
    struct pools *p = *state;
    struct arena *arena = p->to.call.arena;
    const struct object *network;
    struct view_iter networks;
    struct refmap seen = {0};
    struct buffer text;
    size_t before = count_of(&p->to, CLASS_OF(network));

    buffer_init(&text, OVA_BYTES_MAX);
    add_text(&text, "<value><struct><member><name>version</name><value><struct/></value></member><member><name>objects</name>"
                    "<value><array><data>");
    for (int i = 0; i < NETWORKS; i++) {
        if (i % 7 == 0)
            add_object(arena, &text, "VM", i - i % 7, "<member><name>memory_static_max</name><value>67108864</value></member>"
                                                      "<member><name>memory_dynamic_max</name><value>67108864</value></member>"
                                                      "<member><name>memory_dynamic_min</name><value>67108864</value></member>"
                                                      "<member><name>VCPUs_max</name><value>1</value></member>"
                                                      "<member><name>VCPUs_at_startup</name><value>1</value></member>");
        add_object(arena, &text, "network", i, i % 3 ? "" : "<member><name>bridge</name><value>xapi7</value></member>");
        add_object(arena, &text, "VIF", i, arena_text(arena, "<member><name>VM</name><value>VM %d</value></member><member><name>network</name>"
                                                             "<value>network %d</value></member><member><name>device</name><value>%d</value></member>",
                                                      i - i % 7, i, i % 7));
    }
    add_text(&text, "</data></array></value></member></struct></value>");
    assert_int_equal(bring_in(&p->to, buffer_text(&text), &metadata, NULL), 0);
    assert_int_equal(count_of(&p->to, CLASS_OF(network)), before + NETWORKS);
    view_each(&networks, view_of(&p->to), CLASS_OF(network));
    while ((network = view_next(&networks))) {
        const char *bridge = network_get_bridge(network);
        XXH128_hash_t hash = XXH3_128bits(bridge, strlen(bridge));

        assert_null(refmap_put(&seen, (ref_t){hash.high64, hash.low64}, (void *) network)); /* no two have the same one */
    }
    refmap_done(&seen);
    buffer_done(&text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(disks_go_to_the_default_sr_and_cds_by_name),
        TEST(a_cd_that_is_not_here_leaves_an_empty_drive),
        TEST(an_sr_must_take_disks),
        TEST(metadata_finds_its_disks_by_uuid_or_map),
        TEST(force_leaves_out_what_misses_its_disk),
        TEST(restore_refuses_a_vm_that_is_here),
        TEST(a_suspended_vm_keeps_its_image),
        TEST(a_snapshot_alone_is_the_result),
        TEST(others_change_nothing_in_the_text),
        TEST(default_templates_and_control_domains_are_here_already),
        TEST(what_is_undone_leaves_nothing),
        TEST(a_vm_is_claimed_until_it_is_whole),
        TEST(many_networks_find_their_bridges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
