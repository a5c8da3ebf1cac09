/* templates.c - the built-in templates: what a VM of a well-known system looks like before it is
 * installed
 *
 * A row for each family, with the releases that it comes in; each release is one default template.
 * Clients look at the names, at other_config (install-distro, install-methods, disks) and at the
 * recommendations. */
#include "master/templates.h"

#include "master/VM.h"
#include "master/memory.h"

enum installer {
    INSTALLER_NONE, /* an HVM guest boots from its CD */
    INSTALLER_RHLIKE,
    INSTALLER_SLESLIKE,
    INSTALLER_DEBIANLIKE,
};

struct family {
    const char *names;    /* "%s" is the release */
    const char *releases; /* separated by commas; a release that ends in "+" comes as "x64" too */
    enum installer installer;
    int memory_min_mib; /* static_min; the other limits are twice that */
    int disk_gib;
    int memory_max_gib; /* recommended limit */
    const char *PV_args;
    bool is_windows;
};

static const struct family families[] = {
    {"Red Hat Enterprise Linux %s", "4.5,4.6,4.7", INSTALLER_RHLIKE, 256, 8, 16,
     "graphical utf8 console=xvc0 xencons=xvc", false},
    {"Red Hat Enterprise Linux %s", "5.0+,5.1+,5.2+,5.3+", INSTALLER_RHLIKE, 512, 8, 32,
     "graphical utf8", false},
    {"CentOS %s", "4.5,4.6,4.7", INSTALLER_RHLIKE, 256, 8, 16,
     "graphical utf8 console=xvc0 xencons=xvc", false},
    {"CentOS %s", "5.0+,5.1+,5.2+,5.3+", INSTALLER_RHLIKE, 512, 8, 32, "graphical utf8", false},
    {"Oracle Enterprise Linux %s", "5.0+,5.1+,5.2+,5.3+", INSTALLER_RHLIKE, 512, 8, 32,
     "graphical utf8", false},
    {"SUSE Linux Enterprise Server %s", "9 SP4", INSTALLER_SLESLIKE, 256, 8, 16,
     "console=ttyS0 xencons=ttyS", false},
    {"SUSE Linux Enterprise Server %s", "10 SP1+,10 SP2+,11+", INSTALLER_SLESLIKE, 512, 8, 32,
     "console=ttyS0 xencons=ttyS", false},
    {"Debian %s", "Etch 4.0,Lenny 5.0", INSTALLER_DEBIANLIKE, 128, 8, 32, " -- quiet console=hvc0",
     false},
    {"Windows %s", "2000 SP4", INSTALLER_NONE, 256, 8, 4, "", true},
    {"Windows XP %s", "SP2,SP3", INSTALLER_NONE, 256, 8, 4, "", true},
    {"Windows Server %s", "2003+", INSTALLER_NONE, 256, 8, 32, "", true},
    {"Windows Server %s", "2008+", INSTALLER_NONE, 512, 24, 32, "", true},
    {"Windows %s", "Vista,7+", INSTALLER_NONE, 1024, 24, 32, "", true},
    {"Citrix XenApp on Windows Server %s", "2003+,2008+", INSTALLER_NONE, 512, 24, 32, "", true},
    {"Other install media", NULL, INSTALLER_NONE, 128, 8, 32, "", false},
};

static const struct {
    const char *distro, *methods;
} installers[] = {
    [INSTALLER_NONE] = {NULL, NULL},
    [INSTALLER_RHLIKE] = {"rhlike", "cdrom,nfs,http,ftp"},
    [INSTALLER_SLESLIKE] = {"sleslike", "cdrom,nfs,http,ftp"},
    [INSTALLER_DEBIANLIKE] = {"debianlike", "cdrom,http,ftp"},
};

#define VCPUS_MAX_RECOMMENDED 16

static const char *recommendations(struct arena *arena, const struct family *family)
{
    return arena_text(arena,
                      "<restrictions><restriction field=\"memory-static-max\" max=\"%lld\"/>"
                      "<restriction field=\"vcpus-max\" max=\"%d\"/>"
                      "<restriction property=\"number-of-vbds\" max=\"255\"/>"
                      "<restriction property=\"number-of-vifs\" max=\"7\"/></restrictions>",
                      (long long) family->memory_max_gib * 1024 * MIB, VCPUS_MAX_RECOMMENDED);
}

static struct value other_config(struct arena *arena, const struct family *family, const char *name)
{
    struct value map = text_map(arena, "default_template", "true", "disks",
                                arena_text(arena,
                                           "<provision><disk device=\"0\" size=\"%lld\" sr=\"\" "
                                           "bootable=\"true\" type=\"system\"/></provision>",
                                           (long long) family->disk_gib * 1024 * MIB),
                                NULL);

    if (family->installer == INSTALLER_NONE)
        return map;
    map = map_with_text(arena, &map, "linux_template", "true");
    map = map_with_text(arena, &map, "install-distro", installers[family->installer].distro);
    map = map_with_text(arena, &map, "install-methods", installers[family->installer].methods);
    if (family->installer == INSTALLER_DEBIANLIKE)
        map = map_with_text(arena, &map, "debian-release", strstr(name, "Etch") ? "etch" : "lenny");
    return map;
}

static void set_boot(struct arena *arena, struct object *draft, const struct family *family)
{
    struct value *fields = draft->fields;

    if (family->installer != INSTALLER_NONE) {
        fields[F_VM_domain_type] = VALUE_ENUM(domain_type, domain_type_pv);
        fields[F_VM_PV_bootloader] = value_text("eliloader");
        fields[F_VM_PV_args] = value_text(family->PV_args);
        fields[F_VM_platform] = text_map(arena, "acpi", "true", "apic", "true", "nx", "false",
                                         "pae", "true", "viridian", "false", NULL);
        return;
    }
    fields[F_VM_domain_type] = VALUE_ENUM(domain_type, domain_type_hvm);
    fields[F_VM_HVM_boot_policy] = value_text("BIOS order");
    fields[F_VM_HVM_boot_params] = text_map(arena, "order", "cdn", NULL);
    fields[F_VM_platform] =
        text_map(arena, "acpi", "true", "apic", "true", "nx", "true", "pae", "true", "stdvga", "0",
                 "viridian", family->is_windows ? "true" : "false", NULL);
}

static void create_template(struct call *call, struct txn *txn, const struct family *family,
                            const char *name)
{
    struct arena *arena = call->arena;
    struct object *draft = draft_new(arena, CLASS_OF(VM));
    struct value *fields = draft->fields;
    int64_t memory_min = family->memory_min_mib * MIB, memory = 2 * memory_min;

    vm_draft_halt(draft);
    fields[F_VM_name_label] = value_text(name);
    fields[F_VM_name_description] = value_text(
        family->installer == INSTALLER_NONE
            ? "Clone it, give the clone disks with VM.provision, insert the installation CD and "
              "start it"
            : "Clone it, set other_config:install-repository, then VM.provision and VM.start");
    fields[F_VM_user_version] = VALUE_INT(1);
    fields[F_VM_is_a_template] = VALUE_BOOL(true);
    fields[F_VM_is_default_template] = VALUE_BOOL(true);
    fields[F_VM_memory_static_min] = VALUE_INT(memory_min);
    fields[F_VM_memory_dynamic_min] = VALUE_INT(memory);
    fields[F_VM_memory_dynamic_max] = VALUE_INT(memory);
    fields[F_VM_memory_static_max] = VALUE_INT(memory);
    fields[F_VM_memory_target] = VALUE_INT(memory);
    fields[F_VM_VCPUs_max] = VALUE_INT(1);
    fields[F_VM_VCPUs_at_startup] = VALUE_INT(1);
    fields[F_VM_actions_after_shutdown] = VALUE_ENUM(on_normal_exit, on_normal_exit_destroy);
    fields[F_VM_actions_after_reboot] = VALUE_ENUM(on_normal_exit, on_normal_exit_restart);
    fields[F_VM_actions_after_crash] = VALUE_ENUM(on_crash_behaviour, on_crash_behaviour_restart);
    fields[F_VM_recommendations] = value_text(recommendations(arena, family));
    fields[F_VM_other_config] = other_config(arena, family, name);
    fields[F_VM_has_vendor_device] = VALUE_BOOL(family->is_windows);
    set_boot(arena, draft, family);
    vm_create(call, txn, draft);
}

static bool stands(const struct view *view, const char *name)
{
    const struct object *vm;
    struct view_iter vms;

    view_each_name(&vms, view, CLASS_OF(VM), name);
    while ((vm = view_next(&vms)))
        if (VM_get_is_default_template(vm))
            return true;
    return false;
}

static int create_if_missing(struct call *call, struct txn *txn, const struct family *family,
                             const char *name)
{
    if (stands(txn_view(txn), name))
        return 0;
    create_template(call, txn, family, name);
    return 1;
}

/* The name of a family's release. */
static const char *name_of(struct arena *arena, const struct family *family, const char *release,
                           int length, const char *suffix)
{
    const char *mark = strstr(family->names, "%s");

    return arena_text(arena, "%.*s%.*s%s", (int) (mark - family->names), family->names, length,
                      release, suffix);
}

int templates_create(struct call *call, struct txn *txn)
{
    int made = 0;

    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        const struct family *family = &families[i];

        if (!family->releases)
            made += create_if_missing(call, txn, family, family->names);
        for (const char *release = family->releases; release; release = strchr(release, ',')) {
            int length;

            release += *release == ',';
            length = (int) strcspn(release, ",");
            if (release[length - 1] == '+')
                made += create_if_missing(call, txn, family,
                                          name_of(call->arena, family, release, --length, " x64"));
            made += create_if_missing(call, txn, family,
                                      name_of(call->arena, family, release, length, ""));
        }
    }
    return made;
}
