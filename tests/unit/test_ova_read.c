/* test_ova_read.c - ova.xml of both forms: what is read of it, and what is refused */
#include "tests/unit/mini_master.h"

#include "master/VM.h"
#include "master/ova_read.h"

struct reading {
    struct arena *arena;
    struct ova_plan plan;
    struct failure failure;
};

static int setup(void **state)
{
    struct reading *r = new0(struct reading);

    model_init();
    r->arena = arena_new();
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct reading *r = *state;

    arena_destroy(&r->arena);
    free(r);
    return 0;
}

static int read_text(struct reading *r, const char *text)
{
    return ova_read(r->arena, text, strlen(text), &r->plan, &r->failure);
}

static void refuses(struct reading *r, const char *text, const char *code, const char *detail)
{
    assert_true(read_text(r, text) < 0);
    assert_string_equal(r->failure.text, code);
    if (detail && !strstr(r->failure.params[0], detail))
        assert_string_equal(r->failure.params[0], detail);
}

/* ---- the current form ---- */

#define M(name, value) "<member><name>" name "</name><value>" value "</value></member>"
#define S(members)     "<struct>" members "</struct>"
#define VERSION(major, minor, vsn) \
    M("version", S(M("xapi_major", major) M("xapi_minor", minor) M("export_vsn", vsn)))
#define OVA(objects)                    \
    "<value>" S(VERSION("2", "20", "2") \
                    M("objects", "<array><data>" objects "</data></array>")) "</value>"
#define OBJECT(class, id, members) \
    "<value>" S(M("class", class) M("id", id) M("snapshot", S(members))) "</value>"

static void fields_have_their_types(void **state)
{
    struct reading *r = *state;
    const struct object *vm, *vbd;

    assert_int_equal(
        read_text(
            r, OVA(OBJECT(
                   "VM", "Ref:0",
                   M("name_label", "a &amp; b") M("VCPUs_max", "<i4>3</i4>") M(
                       "memory_static_max", "65536") M("is_a_template", "<boolean>1</boolean>")
                       M("other_config", S(M("k", "v"))) M("tomorrow", "<array><data/></array>") M(
                           "allowed_operations", "<array><data><value>fly</value></data></array>"))
                       OBJECT("robot", "Ref:1", "")
                           OBJECT("VBD", "x", M("VM", "Ref:0") M("VDI", "Ref:9") M("mode", "RO")))),
        0);
    assert_int_equal(r->plan.count, 3);
    assert_null(r->plan.objects[1].draft);
    vbd = r->plan.objects[2].draft;
    vm = ova_object(&r->plan, VBD_get_VM(vbd));
    assert_ptr_equal(vm, r->plan.objects[0].draft);
    assert_string_equal(VM_get_name_label(vm), "a & b");
    assert_int_equal(VM_get_VCPUs_max(vm), 3);
    assert_int_equal(VM_get_memory_static_max(vm), 65536);
    assert_true(VM_get_is_a_template(vm));
    assert_string_equal(value_map_text(VM_get_other_config(vm), "k", ""), "v");
    assert_true(VM_get_HVM_shadow_multiplier(vm) == 1.0); /* missing: the model's default */
    assert_int_equal(VBD_get_mode(vbd), vbd_mode_RO);
    assert_null(ova_object(&r->plan, VBD_get_VDI(vbd)));
    assert_string_equal(ova_id(&r->plan, VBD_get_VDI(vbd)), "Ref:9");
}

static void wrong_files_are_told_apart(void **state)
{
    struct reading *r = *state;

    refuses(r, "", "IMPORT_ERROR", NULL);
    refuses(r, "<value>", "IMPORT_ERROR", NULL);
    refuses(r, "<methodCall/>", "IMPORT_ERROR", NULL);
    refuses(r, "<value>x</value>", "IMPORT_ERROR", "no struct");
    refuses(r, "<value><struct/></value>", "IMPORT_ERROR", "no version");
    refuses(r, "<!DOCTYPE v [<!ENTITY e 'x'>]><value>&e;</value>", "IMPORT_ERROR", "document type");
    refuses(r, "<value>" S(VERSION("2", "20", "2")) "</value>", "IMPORT_ERROR", "no objects");
    refuses(r, "<value>" S(VERSION("3", "0", "2")) "</value>", "IMPORT_INCOMPATIBLE_VERSION", NULL);
    refuses(r, "<value>" S(VERSION("2", "99", "2")) "</value>", "IMPORT_INCOMPATIBLE_VERSION",
            NULL);
    refuses(r, "<value>" S(VERSION("1", "9", "3")) "</value>", "IMPORT_INCOMPATIBLE_VERSION", NULL);
    refuses(r, OVA("<value>x</value>"), "IMPORT_ERROR", "no struct");
    refuses(r, OVA(OBJECT("VM", "", "")), "IMPORT_ERROR", "without class and id");
    refuses(r, OVA(OBJECT("VM", "a", "") OBJECT("VM", "a", "")), "IMPORT_ERROR", "two objects");
    refuses(r, OVA(OBJECT("VM", "a", M("VCPUs_max", "many"))), "INVALID_VALUE", "VM.VCPUs_max");
    refuses(r, OVA(OBJECT("VM", "a", M("VCPUs_max", "<array><data/></array>"))), "FIELD_TYPE_ERROR",
            "VM.VCPUs_max");
    refuses(r, OVA(OBJECT("VM", "a", M("affinity", "a"))), "FIELD_TYPE_ERROR", "VM.affinity");
    refuses(r, OVA(OBJECT("VBD", "a", M("mode", "RWX"))), "INVALID_VALUE", "VBD.mode");
}

static void depth_is_bounded(void **state)
{
    struct reading *r = *state;
    char *text = alloc0(200000);

    for (int i = 0; i < 5000; i++)
        strcat(text + (i ? 20 * (i - 1) : 0), "<value><array><data>");
    refuses(r, text, "IMPORT_ERROR", "nested deeper");
    free(text);
}

/* ---- the old form ---- */

#define APPLIANCE(version, vm, vdis)                                                      \
    "<?xml version=\"1.0\"?><!-- old --><appliance version=\"" version "\">" vm vdis "</" \
    "appliance>"
#define OLD_VM(vbds)                                                            \
    "<vm name=\"vm\"><label> etch\n</label><shortdesc> \n a guest\n</shortdesc>" \
    "<config mem_set=\"268435456\" vcpus=\"2\"/>"                               \
    "<hacks is_hvm=\"false\" kernel_boot_cmdline=\"root=/dev/xvda1 ro\"/>" vbds "</vm>"
#define OLD_VBD "<vbd device=\"xvda\" function=\"root\" mode=\"w\" vdi=\"v1\"/>"
#define OLD_VDI(source) \
    "<vdi name=\"v1\" size=\"4294967296\" source=\"" source "\" type=\"dir-gzipped-chunks\"/>"

/* The n-th object of its class. */
static const struct object *nth(const struct reading *r, const struct class *class, int n)
{
    const struct object *found = NULL;

    for (size_t i = 0; i < r->plan.count && !found; i++)
        if (r->plan.objects[i].draft->class == class && n-- == 0)
            found = r->plan.objects[i].draft;
    assert_non_null(found);
    return found;
}

static const char *platform_of(const struct object *vm, const char *key)
{
    return value_map_text(VM_get_platform(vm), key, "");
}

static void the_old_form_is_read(void **state)
{
    struct reading *r = *state;
    const struct object *vm, *vdi, *vbd, *cd;

    assert_int_equal(read_text(r, APPLIANCE("0.1", OLD_VM(OLD_VBD), OLD_VDI("file://xvda"))), 0);
    assert_true(r->plan.is_legacy);
    assert_int_equal(r->plan.count, 4);
    vm = nth(r, CLASS_OF(VM), 0), vdi = nth(r, CLASS_OF(VDI), 0);
    vbd = nth(r, CLASS_OF(VBD), 0), cd = nth(r, CLASS_OF(VBD), 1);
    assert_string_equal(VM_get_name_label(vm), "etch import"); /* the label, not the name */
    assert_string_equal(VM_get_name_description(vm), "a guest");
    assert_int_equal(VM_get_user_version(vm), 0);
    assert_int_equal(VM_get_memory_static_min(vm), 16 << 20);
    assert_int_equal(VM_get_memory_dynamic_min(vm), 256 << 20);
    assert_int_equal(VM_get_memory_static_max(vm), 256 << 20);
    assert_int_equal(VM_get_VCPUs_max(vm), 1);
    assert_int_equal(VM_get_actions_after_shutdown(vm), on_normal_exit_destroy);
    assert_int_equal(VM_get_actions_after_reboot(vm), on_normal_exit_restart);
    assert_int_equal(VM_get_actions_after_crash(vm), on_crash_behaviour_destroy);
    assert_string_equal(platform_of(vm, "acpi"), "true");
    assert_string_equal(platform_of(vm, "apic"), "true");
    assert_string_equal(platform_of(vm, "nx"), "false");
    assert_string_equal(platform_of(vm, "pae"), "true");
    assert_string_equal(VM_get_PV_bootloader(vm), "pygrub");
    assert_string_equal(VM_get_PV_legacy_args(vm), "root=/dev/xvda1 ro");
    assert_string_equal(VM_get_HVM_boot_policy(vm), "");
    assert_string_equal(ova_id(&r->plan, vdi->ref), "xvda");
    assert_true(VDI_get_virtual_size(vdi) == 4294967296);
    assert_int_equal(VDI_get_type(vdi), vdi_type_system);
    assert_ptr_equal(ova_object(&r->plan, VBD_get_VDI(vbd)), vdi);
    assert_string_equal(VBD_get_userdevice(vbd), "xvda");
    assert_true(VBD_get_bootable(vbd) && !VBD_get_unpluggable(vbd));
    assert_int_equal(VBD_get_mode(vbd), vbd_mode_RW);
    assert_non_null(value_map_find(VBD_get_other_config(vbd), "owner"));
    assert_true(VBD_get_empty(cd) && VBD_get_type(cd) == vbd_type_CD);
    assert_string_equal(VBD_get_userdevice(cd), "autodetect");
    assert_ptr_equal(ova_object(&r->plan, VBD_get_VM(vbd)), vm);
    assert_ptr_equal(ova_object(&r->plan, VBD_get_VM(cd)), vm);
}

static void the_old_form_defaults_to_hvm(void **state)
{
    struct reading *r = *state;
    const struct object *vm;

    assert_int_equal(
        read_text(r, APPLIANCE("0.1", "<vm name=\"w\"><config mem_set=\"16777216\"/></vm>", "")),
        0);
    vm = nth(r, CLASS_OF(VM), 0);
    assert_string_equal(VM_get_name_label(vm), "w import"); /* no label: its name */
    assert_string_equal(VM_get_HVM_boot_policy(vm), "BIOS order");
    assert_string_equal(value_map_text(VM_get_HVM_boot_params(vm), "order", ""), "cd");
    assert_string_equal(VM_get_PV_bootloader(vm), "pygrub");
}

static void windows_2000_of_old_has_no_acpi(void **state)
{
    struct reading *r = *state;
    const struct object *vm;

    assert_int_equal(read_text(r, APPLIANCE("0.1",
                                            "<vm><label>w2k</label><config mem_set=\"16777216\" "
                                            "distrib=\"windows\" distrib_version=\"win2k\"/></vm>",
                                            "")),
                     0);
    vm = nth(r, CLASS_OF(VM), 0);
    assert_string_equal(platform_of(vm, "acpi"), "false");
    assert_string_equal(platform_of(vm, "apic"), "false");
    assert_string_equal(platform_of(vm, "pae"), "true");
}

#define SHOUTED(variety)                                                                         \
    APPLIANCE("0.1",                                                                             \
              "<vm><label>s</label><config mem_set=\"16777216\"/><hacks is_hvm=\"True\"/>"       \
              "<vbd device=\"hda\" function=\"Root\" mode=\"W\" vdi=\"v1\"/>"                    \
              "<vbd device=\"hdb\" function=\"data\" mode=\"R\" vdi=\"v1\"/></vm>",              \
              "<vdi name=\"v1\" size=\"4096\" source=\"file://a\" type=\"dir-gzipped-chunks\" "    \
              "variety=\"" variety "\"/>")

static void words_of_old_are_read_in_any_case(void **state)
{
    struct reading *r = *state;
    const struct object *root, *data;

    assert_int_equal(read_text(r, SHOUTED("System")), 0);
    root = nth(r, CLASS_OF(VBD), 0), data = nth(r, CLASS_OF(VBD), 1);
    assert_string_equal(VM_get_HVM_boot_policy(nth(r, CLASS_OF(VM), 0)), "BIOS order");
    assert_int_equal(VDI_get_type(nth(r, CLASS_OF(VDI), 0)), vdi_type_system);
    assert_true(VBD_get_bootable(root) && VBD_get_mode(root) == vbd_mode_RW);
    assert_true(!VBD_get_bootable(data) && VBD_get_mode(data) == vbd_mode_RO);
    assert_int_equal(read_text(r, SHOUTED("Metadata")), 0);
    assert_int_equal(VDI_get_type(nth(r, CLASS_OF(VDI), 0)), vdi_type_metadata);
}

static void several_vms_of_old_have_their_own_drives(void **state)
{
    struct reading *r = *state;
    const struct object *one, *two;

    assert_int_equal(read_text(r, APPLIANCE("0.1", OLD_VM(OLD_VBD)
                                                "<vm><label>two</label><config mem_set=\"16777216\"/></vm>",
                                            OLD_VDI("file://xvda"))),
                     0);
    one = nth(r, CLASS_OF(VM), 0), two = nth(r, CLASS_OF(VM), 1);
    assert_int_equal(r->plan.count, 6);
    assert_string_equal(VM_get_name_label(one), "etch import");
    assert_string_equal(VM_get_name_label(two), "two import");
    assert_ptr_equal(ova_object(&r->plan, VBD_get_VM(nth(r, CLASS_OF(VBD), 0))), one);
    assert_ptr_equal(ova_object(&r->plan, VBD_get_VM(nth(r, CLASS_OF(VBD), 1))), one);
    assert_ptr_equal(ova_object(&r->plan, VBD_get_VM(nth(r, CLASS_OF(VBD), 2))), two);
    assert_true(VBD_get_empty(nth(r, CLASS_OF(VBD), 2)));
}

static void wrong_old_files_are_refused(void **state)
{
    struct reading *r = *state;

    refuses(r, APPLIANCE("0.2", OLD_VM(""), ""), "IMPORT_INCOMPATIBLE_VERSION", NULL);
    refuses(r, APPLIANCE("0.1", "", ""), "IMPORT_ERROR", "no vm");
    refuses(r, APPLIANCE("0.1", OLD_VM("<vbd device=\"hdc\" mode=\"x\" vdi=\"v1\"/>"), OLD_VDI("file://a")),
            "IMPORT_ERROR", "vbd hdc: unknown mode=\"x\"");
    refuses(r, SHOUTED("large"), "IMPORT_ERROR", "vdi v1: unknown variety=\"large\"");
    refuses(r, APPLIANCE("0.1", OLD_VM(OLD_VBD), ""), "IMPORT_ERROR_FAILED_TO_FIND_OBJECT", "v1");
    refuses(r, APPLIANCE("0.1", "<vm name=\"x\"/>", ""), "IMPORT_ERROR", "mem_set");
    refuses(r, APPLIANCE("0.1", OLD_VM(""), OLD_VDI("file://../etc")), "IMPORT_ERROR", "source");
    refuses(r, APPLIANCE("0.1", OLD_VM(""), OLD_VDI("file://..")), "IMPORT_ERROR", "source");
    refuses(r, APPLIANCE("0.1", OLD_VM(""), OLD_VDI("http://x")), "IMPORT_ERROR", "source");
    refuses(r, APPLIANCE("0.1", OLD_VM(""), OLD_VDI("file://a") OLD_VDI("file://a")),
            "IMPORT_ERROR", "one directory");
    refuses(r, "<!DOCTYPE a [<!ENTITY e 'x'>]>" APPLIANCE("0.1", "&e;", ""), "IMPORT_ERROR", NULL);
    refuses(r, "<appliance version=\"0.1\"><vm>", "IMPORT_ERROR", "not well-formed");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fields_have_their_types),
        TEST(wrong_files_are_told_apart),
        TEST(depth_is_bounded),
        TEST(the_old_form_is_read),
        TEST(the_old_form_defaults_to_hvm),
        TEST(windows_2000_of_old_has_no_acpi),
        TEST(words_of_old_are_read_in_any_case),
        TEST(several_vms_of_old_have_their_own_drives),
        TEST(wrong_old_files_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
