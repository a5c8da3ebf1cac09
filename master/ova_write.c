/* ova_write.c - VMs as the ova.xml of an export
 *
 *      walk: VMs -> drives, disks, SRs, interfaces, networks ...   each object gets its number when
 * it is first met write: one object after the other, its references by those numbers
 *
 * The walk takes drives and interfaces by their device and snapshots by their age, so that a VM
 * imported elsewhere, under other references, is written in the same order again. */
#include "master/ova_write.h"

#include <stdio.h>

#include "master/api_version.h"
#include "master/record.h"
#include "shared/arena.h"
#include "shared/refmap.h"
#include "shared/xmlrpc.h"

struct met {
    const struct object *object;
    bool is_in_stream; /* a VDI whose contents follow */
};

struct walk {
    const struct view *view;
    struct arena *arena;
    const struct ova_options *options;
    struct refmap numbers; /* ref -> number + 1 */
    struct met *met;
    size_t count, room;
};

/* ---- the walk ---- */

static struct met *find(const struct walk *w, ref_t ref)
{
    uintptr_t number = ref_is_null(ref) ? 0 : (uintptr_t) refmap_get(&w->numbers, ref);

    return number ? &w->met[number - 1] : NULL;
}

/* Adds the object unless it is there already or is none; true when it is new. */
static bool add(struct walk *w, const struct object *object)
{
    if (!object || find(w, object->ref))
        return false;
    if (w->count == w->room) {
        w->room = w->room ? 2 * w->room : 64;
        w->met = realloc_array(w->met, w->room, sizeof *w->met);
    }
    w->met[w->count++] = (struct met){object, false};
    refmap_put(&w->numbers, object->ref, (void *) w->count);
    return true;
}

/* All of an inverse set, sorted. */
static const struct object **sorted(const struct walk *w, const struct field *inverse, ref_t of,
                                    int (*compare)(const void *, const void *), size_t *ret_count)
{
    size_t count = view_count_inverse(w->view, inverse, of), n = 0;
    const struct object **list = arena_alloc_array(w->arena, count, sizeof *list), *object;
    struct view_iter iter;

    view_each_inverse(&iter, w->view, inverse, of);
    while (n < count && (object = view_next(&iter)))
        list[n++] = object;
    qsort(list, n, sizeof *list, compare);
    *ret_count = n;
    return list;
}

/* Devices are numbers mostly: "2" comes before "10". */
static int by_text(const char *a, const char *b)
{
    size_t x = strlen(a), y = strlen(b);

    return x != y ? (x < y ? -1 : 1) : strcmp(a, b);
}

static int by_userdevice(const void *a, const void *b)
{
    const struct object *x = *(const struct object *const *) a,
                        *y = *(const struct object *const *) b;
    int order = by_text(VBD_get_userdevice(x), VBD_get_userdevice(y));

    return order ? order : strcmp(VBD_get_uuid(x), VBD_get_uuid(y));
}

static int by_device(const void *a, const void *b)
{
    const struct object *x = *(const struct object *const *) a,
                        *y = *(const struct object *const *) b;
    int order = by_text(VIF_get_device(x), VIF_get_device(y));

    return order ? order : strcmp(VIF_get_uuid(x), VIF_get_uuid(y));
}

static int by_age(const void *a, const void *b)
{
    const struct object *x = *(const struct object *const *) a,
                        *y = *(const struct object *const *) b;
    int64_t older = VM_get_snapshot_time(x), newer = VM_get_snapshot_time(y);
    int order = older < newer ? -1 : older > newer;

    order = order ? order : strcmp(VM_get_name_label(x), VM_get_name_label(y));
    return order ? order : strcmp(VM_get_uuid(x), VM_get_uuid(y));
}

static void walk_vdi(struct walk *w, ref_t ref, bool has_contents)
{
    const struct object *vdi = view_get(w->view, VDI, ref), *sr;

    if (!vdi)
        return;
    sr = view_get(w->view, SR, VDI_get_SR(vdi));
    add(w, vdi);
    if (has_contents && !(sr && streq(SR_get_content_type(sr), "iso")))
        find(w, ref)->is_in_stream = true;
    add(w, sr);
}

static void walk_vbds(struct walk *w, ref_t vm)
{
    size_t count;
    const struct object **vbds =
        sorted(w, &CLASS_OF(VM)->fields[F_VM_VBDs], vm, by_userdevice, &count);

    for (size_t i = 0; i < count; i++) {
        add(w, vbds[i]);
        walk_vdi(w, VBD_get_VDI(vbds[i]), VBD_get_type(vbds[i]) != vbd_type_CD);
    }
}

static void walk_vifs(struct walk *w, ref_t vm)
{
    size_t count;
    const struct object **vifs = sorted(w, &CLASS_OF(VM)->fields[F_VM_VIFs], vm, by_device, &count);

    for (size_t i = 0; i < count; i++) {
        add(w, vifs[i]);
        add(w, view_get(w->view, network, VIF_get_network(vifs[i])));
    }
}

static void walk_vm(struct walk *w, const struct object *vm)
{
    if (!add(w, vm))
        return;
    add(w, view_get(w->view, VM_metrics, VM_get_metrics(vm)));
    add(w, view_get(w->view, VM_guest_metrics, VM_get_guest_metrics(vm)));
    add(w, view_get(w->view, host, VM_get_affinity(vm)));
    if (w->options->preserve_power_state) {
        add(w, view_get(w->view, host, VM_get_resident_on(vm)));
        if (VM_get_power_state(vm) == vm_power_state_Suspended)
            walk_vdi(w, VM_get_suspend_VDI(vm), true);
    }
    add(w, view_get(w->view, SR, VM_get_suspend_SR(vm)));
    if (!w->options->without_VBDs)
        walk_vbds(w, vm->ref);
    if (!w->options->without_VIFs)
        walk_vifs(w, vm->ref);
    if (w->options->with_snapshots) {
        size_t count;
        const struct object **snapshots =
            sorted(w, &CLASS_OF(VM)->fields[F_VM_snapshots], vm->ref, by_age, &count);

        for (size_t i = 0; i < count; i++)
            walk_vm(w, snapshots[i]); /* which have none of their own */
    }
}

/* ---- references ---- */

static struct value id_value(const struct walk *w, ref_t ref)
{
    const struct met *met = find(w, ref);

    return value_text(met ? arena_text(w->arena, "Ref:%zu", (size_t) (met - w->met))
                          : "OpaqueRef:NULL");
}

static int by_number(const void *a, const void *b)
{
    return by_text(((const struct value *) a)->text, ((const struct value *) b)->text);
}

/* A set of references, or a map with references: without what is not in the file. */
static struct value several(const struct walk *w, const struct value *value)
{
    uint32_t step = value->kind == KIND_MAP ? 2 : 1, n = 0;
    struct value *items = arena_alloc_array(w->arena, (size_t) step * value->length, sizeof *items);

    for (uint32_t i = 0; i < value->length; i++) {
        bool is_there = true;

        for (uint32_t j = 0; j < step; j++) {
            const struct value *item = &value->items[step * i + j];

            items[step * n + j] = item->kind == KIND_REF ? id_value(w, item->ref) : *item;
            is_there &= item->kind != KIND_REF || find(w, item->ref);
        }
        n += is_there;
    }
    if (step == 1)
        qsort(items, n, sizeof *items, by_number);
    return step == 1 ? VALUE_SET(n, items) : VALUE_MAP(n, items);
}

static bool is_of_refs(const struct type *type)
{
    return type->kind == KIND_REF || (type->element && type->element->kind == KIND_REF)
           || (type->key && type->key->kind == KIND_REF);
}

static struct value with_ids(const struct walk *w, const struct field *field,
                             const struct value *value)
{
    if (!is_of_refs(field->type))
        return *value;
    return value->kind == KIND_REF ? id_value(w, value->ref) : several(w, value);
}

/* ---- what is shown of an object ---- */

static struct value without_import_task(const struct walk *w, const struct value *map)
{
    struct value key = value_text("import_task");

    return value_map_without(w->arena, map, &key);
}

static void show_vm(const struct walk *w, struct value *fields)
{
    fields[F_VM_other_config] = without_import_task(w, &fields[F_VM_other_config]);
    fields[F_VM_scheduled_to_be_resident_on] = VALUE_REF(NULL_REF);
    if (w->options->preserve_power_state)
        return;
    fields[F_VM_power_state] = VALUE_ENUM(vm_power_state, vm_power_state_Halted);
    fields[F_VM_suspend_VDI] = VALUE_REF(NULL_REF);
    fields[F_VM_resident_on] = VALUE_REF(NULL_REF);
    fields[F_VM_domid] = VALUE_INT(-1);
    fields[F_VM_requires_reboot] = VALUE_BOOL(false);
}

static void show_device(const struct walk *w, const struct class *class, struct value *fields)
{
    bool is_vbd = class == CLASS_OF(VBD);

    if (w->options->preserve_power_state)
        return;
    fields[is_vbd ? F_VBD_currently_attached : F_VIF_currently_attached] = VALUE_BOOL(false);
    fields[is_vbd ? F_VBD_reserved : F_VIF_reserved] = VALUE_BOOL(false);
    fields[is_vbd ? F_VBD_status_code : F_VIF_status_code] = VALUE_INT(0);
    fields[is_vbd ? F_VBD_status_detail : F_VIF_status_detail] = value_text("");
    fields[is_vbd ? F_VBD_runtime_properties : F_VIF_runtime_properties] = VALUE_EMPTY_MAP;
    if (is_vbd) {
        fields[F_VBD_device] = value_text("");
        fields[F_VBD_storage_lock] = VALUE_BOOL(false);
    }
}

/* What was measured of a VM that is written as Halted is nothing. */
static void show_metrics(const struct walk *w, struct value *fields)
{
    const struct class *class = CLASS_OF(VM_metrics);

    if (w->options->preserve_power_state)
        return;
    for (int i = 0; i < class->field_count; i++)
        if (class->fields[i].flags & FIELD_VOLATILE && i != F_VM_metrics_hvm)
            fields[i] = class->fields[i].initial;
    fields[F_VM_metrics_current_domain_type] = VALUE_ENUM(domain_type, domain_type_unspecified);
}

/* Of a host only what a person would know it by. */
static void show_host(struct value *fields)
{
    static const int shown[] = {F_host_uuid, F_host_name_label, F_host_name_description,
                                F_host_hostname, F_host_address};

    for (int i = 0; i < CLASS_OF(host)->field_count; i++) {
        bool is_shown = false;

        for (size_t j = 0; j < ARRAY_SIZE(shown); j++)
            is_shown |= shown[j] == i;
        if (!is_shown)
            fields[i] = CLASS_OF(host)->fields[i].flags & FIELD_INVERSE
                            ? VALUE_EMPTY_SET
                            : CLASS_OF(host)->fields[i].initial;
    }
}

/* How full an SR is, and how much room a disk takes there, changes with what others do: an export that was interrupted
 * must be able to go on (docs/transfers.md). */
static void show_storage(const struct class *class, struct value *fields)
{
    if (class == CLASS_OF(VDI)) {
        fields[F_VDI_physical_utilisation] = VALUE_INT(0);
        return;
    }
    fields[F_SR_virtual_allocation] = VALUE_INT(0);
    fields[F_SR_physical_utilisation] = VALUE_INT(0);
    fields[F_SR_physical_size] = VALUE_INT(0);
}

/* The record's members as they are in the file, references still as references. */
static void show(const struct walk *w, const struct object *object, struct value *fields)
{
    const struct class *class = object->class;

    for (int i = 0; i < class->field_count; i++) {
        const struct field *field = &class->fields[i];

        if (streq(field->name, "allowed_operations"))
            fields[i] = VALUE_EMPTY_SET;
        else if (streq(field->name, "current_operations") || streq(field->name, "blobs"))
            fields[i] = VALUE_EMPTY_MAP;
        else if (!(field->flags & FIELD_INTERNAL))
            fields[i] = record_field(w->view, object, field, w->arena);
    }
    if (class == CLASS_OF(VM))
        show_vm(w, fields);
    else if (class == CLASS_OF(VBD) || class == CLASS_OF(VIF))
        show_device(w, class, fields);
    else if (class == CLASS_OF(VDI) || class == CLASS_OF(SR))
        show_storage(class, fields);
    else if (class == CLASS_OF(host))
        show_host(fields);
    else if (class == CLASS_OF(network))
        fields[F_network_other_config] = without_import_task(w, &fields[F_network_other_config]);
    else if (class == CLASS_OF(VM_metrics))
        show_metrics(w, fields);
    else if (class == CLASS_OF(VM_guest_metrics) && !w->options->preserve_power_state)
        fields[F_VM_guest_metrics_live] = VALUE_BOOL(false);
}

/* ---- the text ---- */

static void write_member(struct buffer *out, const char *name, const struct value *value,
                         bool is_first)
{
    xmlrpc_map_key(out, name, strlen(name), is_first);
    xmlrpc_value(out, value);
}

static void write_object(const struct walk *w, const struct object *object, struct buffer *out)
{
    const struct class *class = object->class;
    struct value *fields = arena_alloc_array(w->arena, (size_t) class->field_count, sizeof *fields);
    struct value name = value_text(class->name), id = id_value(w, object->ref);
    bool is_first = true;

    show(w, object, fields);
    xmlrpc_map_begin(out, 3);
    write_member(out, "class", &name, true);
    write_member(out, "id", &id, false);
    xmlrpc_map_key(out, "snapshot", strlen("snapshot"), false);
    xmlrpc_map_begin(out, (size_t) class->field_count);
    for (int i = 0; i < class->field_count; i++) {
        struct value value = with_ids(w, &class->fields[i], &fields[i]);

        if (class->fields[i].flags & FIELD_INTERNAL || value.kind == KIND_VOID)
            continue;
        write_member(out, class->fields[i].name, &value, is_first);
        is_first = false;
    }
    xmlrpc_map_end(out, (size_t) class->field_count);
    xmlrpc_map_end(out, 3);
}

/* The date is the build's, not today's: the same VM gives the same bytes. */
static void write_version(const struct walk *w, struct buffer *out)
{
    static const char *const texts[] = {"hostname", "date", "product_version", "product_brand",
                                        "build_number"};
    const struct object *host = view_get(w->view, host, w->options->host);
    const struct value none = VALUE_EMPTY_MAP,
                       *software = host ? host_get_software_version(host) : &none;
    struct value value;

    xmlrpc_map_begin(out, 8);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        value = value_text(value_map_text(software, texts[i], ""));
        write_member(out, texts[i], &value, i == 0);
    }
    value = VALUE_INT(API_MAJOR);
    write_member(out, "xapi_major", &value, false);
    value = VALUE_INT(API_MINOR);
    write_member(out, "xapi_minor", &value, false);
    value = VALUE_INT(OVA_EXPORT_VSN);
    write_member(out, "export_vsn", &value, false);
    xmlrpc_map_end(out, 8);
}

static void write_text(struct walk *w, struct buffer *out)
{
    _cleanup_(arena_destroy) struct arena *scratch = arena_new();
    struct arena *kept = w->arena;

    xmlrpc_map_begin(out, 2);
    xmlrpc_map_key(out, "version", strlen("version"), true);
    write_version(w, out);
    xmlrpc_map_key(out, "objects", strlen("objects"), false);
    xmlrpc_set_begin(out, w->count);
    w->arena = scratch;
    for (size_t i = 0; i < w->count && !out->is_full; i++) {
        write_object(w, w->met[i].object, out);
        arena_reset(scratch);
    }
    w->arena = kept;
    xmlrpc_set_end(out, w->count);
    xmlrpc_map_end(out, 2);
}

/* ---- disks ---- */

static int by_prefix(const void *a, const void *b)
{
    return strcmp(((const struct ova_disk *) a)->prefix, ((const struct ova_disk *) b)->prefix);
}

static void list_disks(const struct walk *w, struct ova_disk **ret, size_t *ret_count)
{
    struct ova_disk *disks = arena_alloc_array(w->arena, w->count, sizeof *disks);
    size_t n = 0;

    for (size_t i = 0; i < w->count; i++)
        if (w->met[i].is_in_stream)
            disks[n++] =
                (struct ova_disk){w->met[i].object->ref, arena_text(w->arena, "Ref:%zu", i)};
    qsort(disks, n, sizeof *disks, by_prefix);
    *ret = disks;
    *ret_count = n;
}

void ova_write(const struct view *view, struct arena *arena, const ref_t *vms, size_t count,
               const struct ova_options *options, struct buffer *out, struct ova_disk **ret_disks,
               size_t *ret_disk_count)
{
    struct walk w = {.view = view, .arena = arena, .options = options};

    for (size_t i = 0; i < count; i++)
        walk_vm(&w, view_get(view, VM, vms[i]));
    write_text(&w, out);
    if (ret_disks)
        list_disks(&w, ret_disks, ret_disk_count);
    refmap_done(&w.numbers);
    free(w.met);
}
