/* ova_import.c - from what ova.xml says to objects of this pool: what is matched, and what is to be
 * made
 *
 * Each object of the file has a fate here: it stands for one that is here, becomes one, or is left
 * out. Deciding looks at the VMs first, since drives and interfaces of a VM that is left out do not
 * matter, nor do the disks and networks that only those use. ova_create.c then carries it out. */
#include "master/ova_import.h"

#include "master/VM.h"
#include "master/limits.h"
#include "master/network.h"
#include "master/ova_fate.h"
#include "master/storage.h"

static struct fate *fate_of(const struct ova_import *import, ref_t ref)
{
    return ova_object(import->plan, ref) ? &import->fates[ova_number(ref)] : NULL;
}

static int not_found(struct ova_import *import, ref_t ref)
{
    return fail(import->call, IMPORT_ERROR_FAILED_TO_FIND_OBJECT, ova_id(import->plan, ref));
}

static int senseless(struct ova_import *import, const char *id, const char *what)
{
    return fail(import->call, IMPORT_ERROR,
                arena_text(import->call->arena, "%.100s: %s", id, what));
}

/* ---- VMs ---- */

/* A template of the product's, which every pool has. */
static const struct object *default_template(const struct view *view, const struct object *draft)
{
    const struct object *vm;
    struct view_iter vms;

    if (!VM_get_is_default_template(draft))
        return NULL;
    view_each_name(&vms, view, CLASS_OF(VM), VM_get_name_label(draft));
    while ((vm = view_next(&vms)))
        if (VM_get_is_default_template(vm))
            return vm;
    return NULL;
}

int ova_check_uuid(struct ova_import *import, const struct view *view, const struct object *draft)
{
    struct call *call = import->call;
    const struct object *existing;
    const char *uuid;
    int r = uuid_wanted(call, VM_get_uuid(draft), &uuid);

    if (r < 0)
        return r;
    existing = view_by_uuid(view, CLASS_OF(VM), uuid);
    if (existing)
        return fail(call, DUPLICATE_VM, ref_text(call, existing->ref), uuid);
    return 0;
}

static int decide_vm(struct ova_import *import, const struct view *view, const struct object *draft)
{
    struct fate *fate = fate_of(import, draft->ref);
    const struct object *here = default_template(view, draft);
    int r;

    if (here)
        fate->here = here->ref;
    if (here || VM_get_is_control_domain(draft)) /* each host has its own */
        return 0;
    r = vm_check(import->call, draft);
    if (r == 0 && import->options.is_restore)
        r = ova_check_uuid(import, view, draft);
    fate->is_made = r == 0;
    return r;
}

/* Parents must end somewhere, and a snapshot is not of itself nor of a snapshot: others walk along
 * these. */
static int check_snapshots(struct ova_import *import, const struct object *draft)
{
    const struct object *of = ova_object(import->plan, VM_get_snapshot_of(draft)), *vm = draft;
    size_t steps = 0;

    if (VM_get_is_a_snapshot(draft) && of && VM_get_is_a_snapshot(of))
        return senseless(import, ova_id(import->plan, draft->ref), "a snapshot of a snapshot");
    while ((vm = ova_object(import->plan, VM_get_parent(vm))))
        if (++steps > MIN((size_t) SNAPSHOT_DEPTH_MAX, import->plan->count))
            return senseless(import, ova_id(import->plan, draft->ref), "its parents have no end");
    return 0;
}

/* ---- disks ---- */

static const struct object *iso_named(const struct view *view, const char *name)
{
    const struct object *vdi, *sr;
    struct view_iter vdis;

    view_each_name(&vdis, view, CLASS_OF(VDI), name);
    while ((vdi = view_next(&vdis))) {
        sr = view_get(view, SR, VDI_get_SR(vdi));
        if (sr && streq(SR_get_content_type(sr), "iso"))
            return vdi;
    }
    return NULL;
}

static const struct object *vdi_here(const struct ova_import *import, const struct view *view,
                                     const struct object *draft)
{
    const char *uuid = VDI_get_uuid(draft);

    if (import->options.vdi_map)
        uuid = value_map_text(import->options.vdi_map, uuid, uuid);
    return view_by_uuid(view, CLASS_OF(VDI), uuid);
}

/* The disk of a drive, or a suspend image: found here or to be made. */
static int decide_disk(struct ova_import *import, const struct view *view, ref_t ref, bool is_cd)
{
    const struct object *draft = ova_object(import->plan, ref), *here = NULL, *sr;
    struct fate *fate = fate_of(import, ref);
    bool is_iso;

    if (!draft)
        return is_cd ? 0 : not_found(import, ref);
    if (!ref_is_null(fate->here) || fate->is_made)
        return 0;
    sr = ova_object(import->plan, VDI_get_SR(draft));
    is_iso = is_cd || (sr && streq(SR_get_content_type(sr), "iso"));
    if (import->options.is_metadata)
        here = vdi_here(import, view, draft);
    if (!here && is_iso)
        here = iso_named(view, VDI_get_name_label(draft));
    if (here)
        fate->here = here->ref;
    else if (!is_iso && !import->options.is_metadata)
        fate->is_made = true;
    else if (!is_cd)
        return fail(import->call, IMPORT_ERROR_FAILED_TO_FIND_OBJECT,
                    import->options.is_metadata ? VDI_get_uuid(draft) : ova_id(import->plan, ref));
    return 0;
}

/* What misses its disk is left out, when the client insists. */
static int forgive(struct ova_import *import, int r, struct fate *fate)
{
    if (r == -ERR_IMPORT_ERROR_FAILED_TO_FIND_OBJECT && import->options.is_forced) {
        import->call->failure.code = 0;
        fate->is_left_out = true;
        return 0;
    }
    return r;
}

static int decide_vbd(struct ova_import *import, const struct view *view,
                      const struct object *draft)
{
    struct fate *fate = fate_of(import, draft->ref), *vm = fate_of(import, VBD_get_VM(draft));
    bool is_cd = VBD_get_type(draft) == vbd_type_CD;
    int r;

    if (!vm)
        return not_found(import, VBD_get_VM(draft));
    fate->is_made = vm->is_made;
    if (!fate->is_made || VBD_get_empty(draft))
        return 0;
    r = decide_disk(import, view, VBD_get_VDI(draft), is_cd);
    return forgive(import, r, fate);
}

static int decide_suspend_image(struct ova_import *import, const struct view *view,
                                const struct object *draft)
{
    struct fate *fate = fate_of(import, draft->ref), image = {0};
    int r;

    if (!fate->is_made || VM_get_power_state(draft) != vm_power_state_Suspended)
        return 0;
    r = forgive(import, decide_disk(import, view, VM_get_suspend_VDI(draft), false), &image);
    fate->is_suspended = r == 0 && !image.is_left_out;
    return r;
}

/* ---- networks, SRs, hosts ---- */

static const struct object *first_named(const struct view *view, const struct class *class,
                                        const char *name)
{
    struct view_iter iter;

    view_each_name(&iter, view, class, name);
    return view_next(&iter);
}

static const struct object *network_on(const struct view *view, const char *bridge)
{
    const struct object *network;
    struct view_iter networks;

    if (!*bridge)
        return NULL;
    view_each(&networks, view, CLASS_OF(network));
    while ((network = view_next(&networks)))
        if (streq(network_get_bridge(network), bridge))
            return network;
    return NULL;
}

static int decide_vif(struct ova_import *import, const struct view *view,
                      const struct object *draft)
{
    struct fate *fate = fate_of(import, draft->ref), *vm = fate_of(import, VIF_get_VM(draft));
    const struct object *wanted = ova_object(import->plan, VIF_get_network(draft)), *here;
    struct fate *network;

    if (!vm)
        return not_found(import, VIF_get_VM(draft));
    fate->is_made = vm->is_made;
    if (!fate->is_made)
        return 0;
    if (!wanted)
        return not_found(import, VIF_get_network(draft));
    network = fate_of(import, wanted->ref);
    if (network->is_made || !ref_is_null(network->here))
        return 0;
    here = view_by_uuid(view, CLASS_OF(network), network_get_uuid(wanted));
    if (!here && *network_get_name_label(wanted))
        here = first_named(view, CLASS_OF(network), network_get_name_label(wanted));
    if (!here)
        here = network_on(view, network_get_bridge(wanted));
    if (here)
        network->here = here->ref;
    else
        network->is_made = true;
    return 0;
}

/* Where a VM would rather run, where it would suspend to: wishes, which may come to nothing. */
static void match(struct ova_import *import, const struct view *view, const struct object *draft)
{
    const struct object *here = NULL;

    if (draft->class == CLASS_OF(host))
        here = view_by_uuid(view, CLASS_OF(host), host_get_uuid(draft));
    else if (draft->class == CLASS_OF(SR)) {
        here = view_by_uuid(view, CLASS_OF(SR), SR_get_uuid(draft));
        if (!here && *SR_get_name_label(draft))
            here = first_named(view, CLASS_OF(SR), SR_get_name_label(draft));
    }
    if (here)
        fate_of(import, draft->ref)->here = here->ref;
}

/* ---- the disks to be made ---- */

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct ova_new_disk *) a)->id, ((const struct ova_new_disk *) b)->id);
}

static int find_sr(struct ova_import *import, const struct view *view, ref_t *ret)
{
    struct call *call = import->call;
    const struct object *pool = pool_object(view), *sr;
    ref_t wanted = import->options.sr;

    if (ref_is_null(wanted)) {
        wanted = pool ? pool_get_default_SR(pool) : NULL_REF;
        if (!view_get(view, SR, wanted))
            return fail(call, DEFAULT_SR_NOT_FOUND, ref_text(call, wanted));
    }
    sr = live(call, view, SR, wanted);
    if (!sr)
        return -ERR_HANDLE_INVALID;
    if (streq(SR_get_content_type(sr), "iso") || streq(SR_get_type(sr), "iso"))
        return fail(call, SR_OPERATION_NOT_SUPPORTED, ref_text(call, wanted));
    *ret = wanted;
    return 0;
}

static struct object *draft_disk(struct ova_import *import, const struct object *from, ref_t sr)
{
    struct object *draft = draft_of(import->call->arena, CLASS_OF(VDI), from->fields);
    struct value *fields = draft->fields;

    for (int i = 0; i < CLASS_OF(VDI)->field_count; i++)
        if (CLASS_OF(VDI)->fields[i].type->kind == KIND_REF)
            fields[i] = VALUE_REF(NULL_REF);
    fields[F_VDI_SR] = VALUE_REF(sr);
    fields[F_VDI_location] = value_text("");
    fields[F_VDI_missing] = VALUE_BOOL(false);
    fields[F_VDI_storage_lock] = VALUE_BOOL(false);
    fields[F_VDI_cbt_enabled] = VALUE_BOOL(false);
    fields[F_VDI_metadata_latest] = VALUE_BOOL(false);
    fields[F_VDI_is_tools_iso] = VALUE_BOOL(false);
    if (!VDI_get_is_a_snapshot(draft))
        fields[F_VDI_snapshot_time] = VALUE_DATETIME(0);
    return draft;
}

/* Numbers of networks that are to be made, as network.create would have them. */
static int check_networks(struct ova_import *import)
{
    int r = 0;

    for (size_t i = 0; i < import->plan->count && r == 0; i++) {
        const struct object *draft = import->plan->objects[i].draft;

        if (import->fates[i].is_made && draft->class == CLASS_OF(network))
            r = network_check_mtu(import->call, network_get_MTU(draft));
    }
    return r;
}

static int list_disks(struct ova_import *import, const struct view *view)
{
    struct call *call = import->call;
    ref_t sr = NULL_REF;
    int r = ref_is_null(import->options.sr) ? 0 : find_sr(import, view, &sr);

    import->disks = arena_alloc_array(call->arena, DISKS_MAX, sizeof *import->disks);
    for (size_t i = 0; i < import->plan->count && r == 0; i++) {
        const struct object *draft = import->plan->objects[i].draft;

        if (!import->fates[i].is_made || draft->class != CLASS_OF(VDI))
            continue;
        if (import->disk_count == DISKS_MAX)
            return fail(call, IMPORT_ERROR, "too many disks");
        if (VDI_get_virtual_size(draft) <= 0 || VDI_get_virtual_size(draft) > VDI_BYTES_MAX)
            return fail(call, INVALID_VALUE, "VDI.virtual_size",
                        int_text(call, VDI_get_virtual_size(draft)));
        if (ref_is_null(sr))
            r = find_sr(import, view, &sr);
        import->disks[import->disk_count++] = (struct ova_new_disk){
            .id = import->plan->objects[i].id,
            .draft = draft_disk(import, draft, sr),
            .virtual_size = VDI_get_virtual_size(draft),
            .number = i,
        };
    }
    qsort(import->disks, (size_t) import->disk_count, sizeof *import->disks, by_id);
    return r;
}

/* ---- all of it ---- */

static int decide_object(struct ova_import *import, const struct view *view,
                         const struct object *draft)
{
    if (draft->class == CLASS_OF(VBD))
        return decide_vbd(import, view, draft);
    if (draft->class == CLASS_OF(VIF))
        return decide_vif(import, view, draft);
    if (draft->class == CLASS_OF(VM))
        return decide_suspend_image(import, view, draft);
    match(import, view, draft);
    return 0;
}

int ova_import_decide(struct call *call, const struct view *view, const struct ova_plan *plan,
                      const struct ova_import_options *options, struct ova_import **ret)
{
    struct ova_import *import = arena_new0(call->arena, struct ova_import);
    int r = 0;

    import->call = call;
    import->plan = plan;
    import->options = *options;
    import->fates = arena_alloc_array(call->arena, plan->count, sizeof *import->fates);
    for (size_t i = 0; i < plan->count && r == 0; i++) {
        const struct object *draft = plan->objects[i].draft;

        if (!draft || draft->class != CLASS_OF(VM))
            continue;
        r = decide_vm(import, view, draft);
        if (r == 0)
            r = check_snapshots(import, draft);
    }
    for (size_t i = 0; i < plan->count && r == 0; i++)
        if (plan->objects[i].draft)
            r = decide_object(import, view, plan->objects[i].draft);
    if (r == 0)
        r = check_networks(import);
    if (r == 0)
        r = list_disks(import, view);
    *ret = import;
    return r;
}
