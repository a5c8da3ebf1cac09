/* ova_read_legacy.c - `<appliance version="0.1">`, the form of exports before the current one
 * (wire.md section 20)
 *
 *      <appliance version="0.1">
 *        <vm name="..."> <label/> <shortdesc/>
 *          <config mem_set="bytes" vcpus="1"/> <hacks is_hvm="true" kernel_boot_cmdline="..."/>
 *          <vbd device="xvda" function="root" mode="w" vdi="vdi_xvda"/> ...
 *        </vm>
 *        <vdi name="vdi_xvda" size="bytes" source="file://xvda" type="dir-gzipped-chunks"
 * variety="system"/> ...
 *      </appliance>
 *
 * The document is small, so libxml2's tree reads it. It becomes the drafts that the current form
 * would have: one VM, its drives and disks, an empty CD drive. */
#include <errno.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "master/handler.h"
#include "master/ova_read.h"

#define DISKS_OF_VM_MAX 254
#define MIB             (1 << 20)
#define SIZE_BYTES_MAX  ((int64_t) 1 << 50)

struct reading {
    struct arena *arena;
    struct failure *failure;
    struct ova_plan *plan;
    xmlNode *vm;
    xmlNode *vdis[DISKS_OF_VM_MAX];
    size_t vdi_count;
};

static int bad(struct reading *r, const char *reason)
{
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

static bool is_named(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && xmlStrEqual(node->name, (const xmlChar *) name);
}

static xmlNode *child(xmlNode *parent, const char *name)
{
    xmlNode *node = parent->children;

    while (node && !is_named(node, name))
        node = node->next;
    return node;
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

static int add_vm(struct reading *r)
{
    xmlNode *config = child(r->vm, "config"), *hacks = child(r->vm, "hacks");
    const char *name = attribute(r, r->vm, "name", "");
    struct value *fields = add(r, CLASS_OF(VM), "/vm")->fields;
    int64_t memory;

    if (!parse_bytes(attribute(r, config, "mem_set", ""), &memory) || memory < 16 * MIB)
        return bad(r, "config: mem_set is no size of a memory");
    fields[F_VM_name_label] = value_text(arena_text(r->arena, "%s import", name));
    fields[F_VM_name_description] = value_text(child_text(r, r->vm, "shortdesc"));
    fields[F_VM_user_version] = VALUE_INT(1);
    fields[F_VM_memory_static_min] = VALUE_INT(16 * MIB);
    fields[F_VM_memory_dynamic_min] = fields[F_VM_memory_dynamic_max] =
        fields[F_VM_memory_static_max] = fields[F_VM_memory_target] = VALUE_INT(memory);
    fields[F_VM_VCPUs_max] = fields[F_VM_VCPUs_at_startup] = VALUE_INT(1);
    fields[F_VM_actions_after_shutdown] = VALUE_ENUM(on_normal_exit, on_normal_exit_destroy);
    fields[F_VM_actions_after_reboot] = VALUE_ENUM(on_normal_exit, on_normal_exit_restart);
    fields[F_VM_actions_after_crash] = VALUE_ENUM(on_crash_behaviour, on_crash_behaviour_restart);
    if (streq(attribute(r, hacks, "is_hvm", "true"), "true")) {
        fields[F_VM_HVM_boot_policy] = value_text("BIOS order");
        fields[F_VM_HVM_boot_params] = text_map(r->arena, "order", "cd", NULL);
    } else {
        fields[F_VM_PV_bootloader] = value_text("pygrub");
        fields[F_VM_PV_legacy_args] = value_text(attribute(r, hacks, "kernel_boot_cmdline", ""));
    }
    return 0;
}

static enum vdi_type variety_of(const char *text, bool *ret_is_known)
{
    static const struct {
        const char *text;
        enum vdi_type type;
    } known[] = {
        {"system", vdi_type_system},       {"user", vdi_type_user},
        {"ephemeral", vdi_type_ephemeral}, {"suspend", vdi_type_suspend},
        {"crashdump", vdi_type_crashdump},
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (streq(known[i].text, text)) {
            *ret_is_known = true;
            return known[i].type;
        }
    *ret_is_known = false;
    return vdi_type_system;
}

/* The disk: its id is the directory that holds it, one name without a way out of the archive. */
static int add_vdi(struct reading *r, xmlNode *node)
{
    const char *source = attribute(r, node, "source", ""), *directory = "";
    struct object *draft;
    int64_t size;
    bool is_known;
    enum vdi_type type = variety_of(attribute(r, node, "variety", "system"), &is_known);

    if (!parse_bytes(attribute(r, node, "size", ""), &size))
        return bad(r, "vdi: size is no size of a disk");
    if (!streq(attribute(r, node, "type", ""), "dir-gzipped-chunks") || !is_known)
        return bad(r, "vdi: unknown type or variety");
    if (strncmp(source, "file://", strlen("file://")) == 0)
        directory = source + strlen("file://");
    if (!*directory || strchr(directory, '/')
        || streq(directory, ".") || streq(directory, ".."))
        return bad(r, "vdi: source names no directory of the archive");
    for (size_t i = 0; i < r->plan->count; i++)
        if (streq(r->plan->objects[i].id, directory))
            return bad(r, "two disks in one directory");
    draft = add(r, CLASS_OF(VDI), directory);
    draft->fields[F_VDI_name_label] = value_text(attribute(r, node, "name", ""));
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

static int add_vbd(struct reading *r, xmlNode *node)
{
    const char *mode = attribute(r, node, "mode", ""), *name = attribute(r, node, "vdi", "");
    const struct object *vdi = vdi_named(r, name);
    bool is_writable = streq(mode, "w") || streq(mode, "rw");
    struct value *fields;

    if (!vdi)
        return failure_set(r->failure, r->arena, IMPORT_ERROR_FAILED_TO_FIND_OBJECT, name);
    if (!is_writable && !streq(mode, "r") && !streq(mode, "ro"))
        return bad(r, "vbd: unknown mode");
    fields = add(r, CLASS_OF(VBD), "/vbd")->fields;
    fields[F_VBD_VM] = VALUE_REF(ova_ref(0));
    fields[F_VBD_VDI] = VALUE_REF(vdi->ref);
    fields[F_VBD_userdevice] = value_text(attribute(r, node, "device", ""));
    fields[F_VBD_bootable] = VALUE_BOOL(streq(attribute(r, node, "function", ""), "root"));
    fields[F_VBD_mode] = VALUE_ENUM(vbd_mode, is_writable ? vbd_mode_RW : vbd_mode_RO);
    fields[F_VBD_type] = VALUE_ENUM(vbd_type, vbd_type_Disk);
    fields[F_VBD_unpluggable] = VALUE_BOOL(VDI_get_type(vdi) != vdi_type_system);
    fields[F_VBD_other_config] = text_map(r->arena, "owner", "", NULL);
    return 0;
}

static void add_cd_drive(struct reading *r)
{
    struct value *fields = add(r, CLASS_OF(VBD), "/cd")->fields;

    fields[F_VBD_VM] = VALUE_REF(ova_ref(0));
    fields[F_VBD_userdevice] = value_text("autodetect");
    fields[F_VBD_mode] = VALUE_ENUM(vbd_mode, vbd_mode_RO);
    fields[F_VBD_type] = VALUE_ENUM(vbd_type, vbd_type_CD);
    fields[F_VBD_empty] = VALUE_BOOL(true);
}

/* ---- the document ---- */

static int find_parts(struct reading *r, xmlNode *root)
{
    for (xmlNode *node = root->children; node; node = node->next) {
        if (is_named(node, "vm") && r->vm)
            return bad(r, "more than one vm");
        if (is_named(node, "vm"))
            r->vm = node;
        if (!is_named(node, "vdi"))
            continue;
        if (r->vdi_count == DISKS_OF_VM_MAX)
            return bad(r, "too many disks");
        r->vdis[r->vdi_count++] = node;
    }
    return r->vm ? 0 : bad(r, "it has no vm");
}

static int read_document(struct reading *r, xmlDoc *document)
{
    xmlNode *root = xmlDocGetRootElement(document);
    int result, drives = 0;

    if (!root || document->intSubset || !xmlStrEqual(root->name, (const xmlChar *) "appliance"))
        return bad(r, "it is no appliance");
    if (!streq(attribute(r, root, "version", ""), "0.1"))
        return failure_set(r->failure, r->arena, IMPORT_INCOMPATIBLE_VERSION);
    result = find_parts(r, root);
    r->plan->objects =
        arena_alloc_array(r->arena, 2 + 2 * DISKS_OF_VM_MAX, sizeof *r->plan->objects);
    if (result == 0)
        result = add_vm(r);
    for (size_t i = 0; i < r->vdi_count && result == 0; i++)
        result = add_vdi(r, r->vdis[i]);
    for (xmlNode *node = result == 0 ? r->vm->children : NULL; node && result == 0;
         node = node->next)
        if (is_named(node, "vbd"))
            result = drives++ < DISKS_OF_VM_MAX ? add_vbd(r, node) : bad(r, "too many drives");
    if (result == 0)
        add_cd_drive(r);
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
