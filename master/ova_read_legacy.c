/* ova_read_legacy.c - `<appliance version="0.1">`, the form of exports before the current one
 * (wire.md section 20)
 *
 *      <appliance version="0.1">
 *        <vm name="..."> <label>its name</label> <shortdesc/>
 *          <config mem_set="bytes" vcpus="1" distrib="windows" distrib_version="win2k"/>
 *          <hacks is_hvm="true" kernel_boot_cmdline="..."/>
 *          <vbd device="xvda" function="root" mode="w" vdi="vdi_xvda"/> ...
 *        </vm> ...
 *        <vdi name="vdi_xvda" size="bytes" source="file://xvda" type="dir-gzipped-chunks"
 * variety="system"/> ...
 *      </appliance>
 *
 * The document is small, so libxml2's tree reads it. It becomes the drafts that the current form
 * would have: the VMs, each with its drives and an empty CD drive, and the disks. What the VMs are
 * is as xapi made them of such a file; words that choose between a few are told apart without
 * regard to case, as there. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "master/handler.h"
#include "master/ova_read.h"

#define MIB            (1 << 20)
#define SIZE_BYTES_MAX ((int64_t) 1 << 50)

struct reading {
    struct arena *arena;
    struct failure *failure;
    struct ova_plan *plan;
};

__attribute__((format(printf, 2, 3))) static int bad(struct reading *r, const char *format, ...)
{
    char reason[FAILURE_PARAM_BYTES_MAX / 2];
    va_list args;

    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    return failure_set(r->failure, r->arena, IMPORT_ERROR,
                       arena_text(r->arena, "ova.xml: %s", reason));
}

static const char *attribute(struct reading *r, xmlNode *node, const char *name,
                             const char *otherwise)
{
    xmlChar *text = node ? xmlGetProp(node, (const xmlChar *) name) : NULL;
    const char *copy;

    if (!text)
        return otherwise;
    copy = arena_strdup(r->arena, (const char *) text);
    xmlFree(text);
    return copy;
}

static bool is_word(const char *text, const char *word)
{
    return strcasecmp(text, word) == 0;
}

static bool is_named(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && xmlStrEqual(node->name, (const xmlChar *) name);
}

/* The node itself, or the first behind it that is named so; or NULL. */
static xmlNode *next_named(xmlNode *node, const char *name)
{
    while (node && !is_named(node, name))
        node = node->next;
    return node;
}

static xmlNode *child(xmlNode *parent, const char *name)
{
    return next_named(parent->children, name);
}

/* The text of a child element, without white space around it. */
static const char *child_text(struct reading *r, xmlNode *parent, const char *name)
{
    xmlNode *node = child(parent, name);
    xmlChar *text = node ? xmlNodeGetContent(node) : NULL;
    size_t start, end;
    const char *copy;

    if (!text)
        return "";
    start = strspn((const char *) text, " \t\r\n");
    end = strlen((const char *) text);
    while (end > start && strchr(" \t\r\n", text[end - 1]))
        end--;
    copy = arena_dup(r->arena, text + start, end - start);
    xmlFree(text);
    return copy;
}

static bool parse_bytes(const char *text, int64_t *ret)
{
    char *end;

    errno = 0;
    *ret = strtoll(text, &end, 10);
    return *text && !*end && errno == 0 && *ret > 0 && *ret <= SIZE_BYTES_MAX;
}

/* ---- drafts ---- */

static struct object *add(struct reading *r, const struct class *class, const char *id)
{
    struct ova_plan *plan = r->plan;
    struct object *draft = draft_new(r->arena, class);

    draft->ref = ova_ref(plan->count);
    plan->objects[plan->count++] =
        (struct ova_object){.draft = draft, .id = id, .class_name = class->name};
    return draft;
}

/* The name is the label's text. The attribute `name` is what the file calls the VM, and stands in
 * for a label that is not there. */
static const char *name_of(struct reading *r, xmlNode *vm)
{
    return child(vm, "label") ? child_text(r, vm, "label") : attribute(r, vm, "name", "");
}

/* Windows 2000 did not boot with the devices that all others were given. */
static struct value platform_of(struct reading *r, xmlNode *config)
{
    bool is_win2k = streq(attribute(r, config, "distrib", ""), "windows")
                    && streq(attribute(r, config, "distrib_version", ""), "win2k");
    const char *has_acpi = is_win2k ? "false" : "true";

    return text_map(r->arena, "acpi", has_acpi, "apic", has_acpi, "nx", "false", "pae", "true", NULL);
}

static int add_vm(struct reading *r, xmlNode *vm, ref_t *ret)
{
    xmlNode *config = child(vm, "config"), *hacks = child(vm, "hacks");
    const char *name = name_of(r, vm), *mem_set = attribute(r, config, "mem_set", "");
    struct object *draft = add(r, CLASS_OF(VM), "/vm");
    struct value *fields = draft->fields;
    int64_t memory;

    *ret = draft->ref;
    if (!parse_bytes(mem_set, &memory) || memory < 16 * MIB)
        return bad(r, "vm %s: mem_set=\"%s\" is no size of a memory", name, mem_set);
    fields[F_VM_name_label] = value_text(arena_text(r->arena, "%s import", name));
    fields[F_VM_name_description] = value_text(child_text(r, vm, "shortdesc"));
    fields[F_VM_user_version] = VALUE_INT(0);
    fields[F_VM_memory_static_min] = VALUE_INT(16 * MIB);
    fields[F_VM_memory_dynamic_min] = fields[F_VM_memory_dynamic_max] =
        fields[F_VM_memory_static_max] = fields[F_VM_memory_target] = VALUE_INT(memory);
    fields[F_VM_VCPUs_max] = fields[F_VM_VCPUs_at_startup] = VALUE_INT(1);
    fields[F_VM_actions_after_shutdown] = VALUE_ENUM(on_normal_exit, on_normal_exit_destroy);
    fields[F_VM_actions_after_reboot] = VALUE_ENUM(on_normal_exit, on_normal_exit_restart);
    fields[F_VM_actions_after_crash] = VALUE_ENUM(on_crash_behaviour, on_crash_behaviour_destroy);
    fields[F_VM_platform] = platform_of(r, config);
    fields[F_VM_PV_bootloader] = value_text("pygrub"); /* of both kinds: a boot policy goes before it */
    fields[F_VM_PV_legacy_args] = value_text(attribute(r, hacks, "kernel_boot_cmdline", ""));
    if (is_word(attribute(r, hacks, "is_hvm", "true"), "true")) {
        fields[F_VM_HVM_boot_policy] = value_text("BIOS order");
        fields[F_VM_HVM_boot_params] = text_map(r->arena, "order", "cd", NULL);
    }
    return 0;
}

static bool parse_variety(const char *text, enum vdi_type *ret)
{
    static const struct {
        const char *text;
        enum vdi_type type;
    } known[] = {
        {"system", vdi_type_system},       {"user", vdi_type_user},
        {"ephemeral", vdi_type_ephemeral}, {"suspend", vdi_type_suspend},
        {"crashdump", vdi_type_crashdump}, {"metadata", vdi_type_metadata},
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (is_word(text, known[i].text)) {
            *ret = known[i].type;
            return true;
        }
    return false;
}

/* The disk: its id is the directory that holds it, one name without a way out of the archive. */
static int add_vdi(struct reading *r, xmlNode *node)
{
    const char *name = attribute(r, node, "name", ""), *size_text = attribute(r, node, "size", "");
    const char *type_text = attribute(r, node, "type", "");
    const char *variety = attribute(r, node, "variety", "system");
    const char *source = attribute(r, node, "source", ""), *directory = "";
    struct object *draft;
    int64_t size;
    enum vdi_type type;

    if (!parse_bytes(size_text, &size))
        return bad(r, "vdi %s: size=\"%s\" is no size of a disk", name, size_text);
    if (!streq(type_text, "dir-gzipped-chunks"))
        return bad(r, "vdi %s: unknown type=\"%s\"", name, type_text);
    if (!parse_variety(variety, &type))
        return bad(r, "vdi %s: unknown variety=\"%s\"", name, variety);
    if (strncmp(source, "file://", strlen("file://")) == 0)
        directory = source + strlen("file://");
    if (!*directory || strchr(directory, '/')
        || streq(directory, ".") || streq(directory, ".."))
        return bad(r, "vdi %s: source=\"%s\" names no directory of the archive", name, source);
    for (size_t i = 0; i < r->plan->count; i++)
        if (streq(r->plan->objects[i].id, directory))
            return bad(r, "vdi %s: two disks in one directory, %s", name, directory);
    draft = add(r, CLASS_OF(VDI), directory);
    draft->fields[F_VDI_name_label] = value_text(name);
    draft->fields[F_VDI_virtual_size] = VALUE_INT(size);
    draft->fields[F_VDI_type] = VALUE_ENUM(vdi_type, (int) type);
    return 0;
}

static const struct object *vdi_named(const struct reading *r, const char *name)
{
    for (size_t i = 0; i < r->plan->count; i++) {
        const struct object *draft = r->plan->objects[i].draft;

        if (draft->class == CLASS_OF(VDI) && streq(VDI_get_name_label(draft), name))
            return draft;
    }
    return NULL;
}

static int add_vbd(struct reading *r, ref_t vm, xmlNode *node)
{
    const char *mode = attribute(r, node, "mode", ""), *name = attribute(r, node, "vdi", "");
    const struct object *vdi = vdi_named(r, name);
    const char *device = attribute(r, node, "device", "");
    bool is_writable = is_word(mode, "w") || is_word(mode, "rw");
    struct value *fields;

    if (!vdi)
        return failure_set(r->failure, r->arena, IMPORT_ERROR_FAILED_TO_FIND_OBJECT, name);
    if (!is_writable && !is_word(mode, "r") && !is_word(mode, "ro"))
        return bad(r, "vbd %s: unknown mode=\"%s\"", device, mode);
    fields = add(r, CLASS_OF(VBD), "/vbd")->fields;
    fields[F_VBD_VM] = VALUE_REF(vm);
    fields[F_VBD_VDI] = VALUE_REF(vdi->ref);
    fields[F_VBD_userdevice] = value_text(device);
    fields[F_VBD_bootable] = VALUE_BOOL(is_word(attribute(r, node, "function", ""), "root"));
    fields[F_VBD_mode] = VALUE_ENUM(vbd_mode, is_writable ? vbd_mode_RW : vbd_mode_RO);
    fields[F_VBD_type] = VALUE_ENUM(vbd_type, vbd_type_Disk);
    fields[F_VBD_unpluggable] = VALUE_BOOL(VDI_get_type(vdi) != vdi_type_system);
    fields[F_VBD_other_config] = text_map(r->arena, "owner", "", NULL);
    return 0;
}

static void add_cd_drive(struct reading *r, ref_t vm)
{
    struct value *fields = add(r, CLASS_OF(VBD), "/cd")->fields;

    fields[F_VBD_VM] = VALUE_REF(vm);
    fields[F_VBD_userdevice] = value_text("autodetect");
    fields[F_VBD_mode] = VALUE_ENUM(vbd_mode, vbd_mode_RO);
    fields[F_VBD_type] = VALUE_ENUM(vbd_type, vbd_type_CD);
    fields[F_VBD_empty] = VALUE_BOOL(true);
}

/* ---- the document ---- */

static int add_disks(struct reading *r, xmlNode *root)
{
    int result = 0;

    for (xmlNode *node = next_named(root->children, "vdi"); node && result == 0;
         node = next_named(node->next, "vdi"))
        result = add_vdi(r, node);
    return result;
}

static int add_vm_and_drives(struct reading *r, xmlNode *vm)
{
    ref_t ref;
    int result = add_vm(r, vm, &ref);

    for (xmlNode *node = next_named(vm->children, "vbd"); node && result == 0;
         node = next_named(node->next, "vbd"))
        result = add_vbd(r, ref, node);
    if (result == 0)
        add_cd_drive(r, ref);
    return result;
}

/* Drafts that the document may make: of a VM its own and its CD drive's. The text's length bounds
 * them. */
static size_t count_objects(xmlNode *root)
{
    size_t count = 0;

    for (xmlNode *node = root->children; node; node = node->next) {
        count += is_named(node, "vdi") ? 1 : is_named(node, "vm") ? 2 : 0;
        if (is_named(node, "vm"))
            count += xmlChildElementCount(node);
    }
    return count;
}

static int read_document(struct reading *r, xmlDoc *document)
{
    xmlNode *root = xmlDocGetRootElement(document);
    int result;

    if (!root || document->intSubset || !xmlStrEqual(root->name, (const xmlChar *) "appliance"))
        return bad(r, "it is no appliance");
    if (!streq(attribute(r, root, "version", ""), "0.1"))
        return failure_set(r->failure, r->arena, IMPORT_INCOMPATIBLE_VERSION);
    if (!child(root, "vm"))
        return bad(r, "it has no vm");
    r->plan->objects = arena_alloc_array(r->arena, count_objects(root), sizeof *r->plan->objects);
    result = add_disks(r, root);
    for (xmlNode *vm = child(root, "vm"); vm && result == 0; vm = next_named(vm->next, "vm"))
        result = add_vm_and_drives(r, vm);
    return result;
}

/* Entities live in document types, and those are not wanted: looked for in the text, so that
 * nothing is expanded. */
int ova_read_legacy(struct arena *arena, const char *text, size_t length, struct ova_plan *ret,
                    struct failure *failure)
{
    struct reading r = {.arena = arena, .failure = failure, .plan = ret};
    xmlDoc *document;
    int result;

    ret->is_legacy = true;
    if (length > OVA_LEGACY_BYTES_MAX)
        return bad(&r, "it is too long");
    if (memchr(text, '\0', length) || memmem(text, length, "<!DOCTYPE", 9)
        || memmem(text, length, "<!ENTITY", 8))
        return bad(&r, "a document type is not accepted");
    document = xmlReadMemory(text, (int) length, NULL, NULL,
                             XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (!document)
        return bad(&r, "not well-formed");
    result = read_document(&r, document);
    xmlFreeDoc(document);
    return result;
}
