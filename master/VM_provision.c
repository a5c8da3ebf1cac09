/* VM_provision.c - a clone of a template becomes a VM: its disks are made, and it is a template no
 * more
 *
 * Which disks, other_config["disks"] says (provision.h); the key goes when they stand. A VM without
 * it gets none. */
#include "master/VM.h"
#include "master/claim.h"
#include "master/provision.h"
#include "master/storage.h"

/* The SR that a disk is to be on. */
static int find_sr(struct call *call, const struct provision_disk *wanted, ref_t *ret_sr)
{
    const struct view *view = call_view(call);
    const struct object *pool = pool_object(view), *sr;

    if (*wanted->sr) {
        sr = view_by_uuid(view, CLASS_OF(SR), wanted->sr);
        if (!sr)
            return fail(call, UUID_INVALID, "SR", wanted->sr);
        *ret_sr = sr->ref;
        return 0;
    }
    *ret_sr = pool ? pool_get_default_SR(pool) : NULL_REF;
    if (ref_is_null(*ret_sr) || !view_get(view, SR, *ret_sr))
        return fail(call, DEFAULT_SR_NOT_FOUND, ref_text(call, *ret_sr));
    return 0;
}

static struct object *draft_vdi(struct call *call, const struct object *vm,
                                const struct provision_disk *wanted, ref_t sr)
{
    struct object *draft = draft_new(call->arena, CLASS_OF(VDI));
    struct value *fields = draft->fields;

    fields[F_VDI_name_label] =
        value_text(arena_text(call->arena, "%s %s", VM_get_name_label(vm), wanted->device));
    fields[F_VDI_name_description] = value_text("Made by VM.provision");
    fields[F_VDI_SR] = VALUE_REF(sr);
    fields[F_VDI_virtual_size] = VALUE_INT(wanted->size_bytes);
    fields[F_VDI_type] = VALUE_ENUM(vdi_type, wanted->is_system ? vdi_type_system : vdi_type_user);
    return draft;
}

static void create_vbd(struct call *call, struct txn *txn, ref_t vm, ref_t vdi,
                       const struct provision_disk *wanted)
{
    struct object *draft = draft_new(call->arena, CLASS_OF(VBD));
    struct value *fields = draft->fields;

    fields[F_VBD_VM] = VALUE_REF(vm);
    fields[F_VBD_VDI] = VALUE_REF(vdi);
    fields[F_VBD_userdevice] = value_text(wanted->device);
    fields[F_VBD_bootable] = VALUE_BOOL(wanted->is_bootable);
    fields[F_VBD_mode] = VALUE_ENUM(vbd_mode, vbd_mode_RW);
    fields[F_VBD_type] = VALUE_ENUM(vbd_type, vbd_type_Disk);
    fields[F_VBD_other_config] = text_map(call->arena, "owner", "", NULL);
    draft_create(call, txn, draft);
}

/* A drive in the place of a wanted one. */
static bool is_taken(const struct view *view, ref_t vm, const char *device)
{
    const struct object *vbd;
    struct view_iter vbds;

    view_each_inverse(&vbds, view, &CLASS_OF(VM)->fields[F_VM_VBDs], vm);
    while ((vbd = view_next(&vbds)))
        if (streq(VBD_get_userdevice(vbd), device))
            return true;
    return false;
}

/* Hidden VDIs for all wanted disks. */
static int add_disks(struct call *call, ref_t vm_ref, struct disks *disks,
                     const struct provision_disk *wanted, const ref_t *srs, int count)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    for (int i = 0; i < count; i++) {
        const struct object *vm = live(call, txn_view(txn), VM, vm_ref);

        if (!vm)
            return -ERR_HANDLE_INVALID;
        if (is_taken(txn_view(txn), vm_ref, wanted[i].device))
            return fail(call, DEVICE_ALREADY_EXISTS, wanted[i].device);
        disks_add(disks, txn, draft_vdi(call, vm, &wanted[i], srs[i]));
    }
    return call_commit(call, &txn);
}

/* Drives, the key gone, and the VM no template any more. */
static int finish(struct call *call, ref_t vm_ref, struct disks *disks,
                  const struct provision_disk *wanted, struct claim *claim)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct object *vm = live(call, txn_view(txn), VM, vm_ref);
    struct value other_config;
    ref_t metrics;
    int r;

    if (!vm)
        return -ERR_HANDLE_INVALID;
    metrics = VM_get_metrics(vm);
    other_config = map_without_text(call->arena, VM_get_other_config(vm), "disks");
    r = disks_keep(disks, txn);
    if (r < 0)
        return r;
    for (int i = 0; i < disks->count; i++)
        create_vbd(call, txn, vm_ref, disks->list[i].vdi, &wanted[i]);
    VM_put_other_config(txn, vm_ref, &other_config);
    VM_put_is_a_template(txn, vm_ref, false);
    if (txn_get(txn, VM_metrics, metrics))
        VM_metrics_put_install_time(txn, metrics, clock_utc_s(call->core->clock));
    claim_end_txn(claim, txn);
    return call_commit(call, &txn);
}

int VM_provision(struct call *call, const struct VM_provision_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(disks_undo) struct disks *disks = NULL;
    struct provision_disk *wanted = NULL;
    const struct object *vm;
    const char *xml;
    ref_t *srs;
    int count = 0, r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(VM), args->vm, vm_operations_provision);
    if (r < 0)
        return r;
    vm = live(call, call_view(call), VM, args->vm);
    if (!vm)
        return -ERR_HANDLE_INVALID;
    xml = value_map_text(VM_get_other_config(vm), "disks", NULL);
    r = xml ? provision_parse(call, arena_strdup(call->arena, xml), &wanted, &count) : 0;
    if (r < 0)
        return r;

    srs = arena_alloc_array(call->arena, (size_t) count, sizeof *srs);
    for (int i = 0; i < count; i++) {
        r = find_sr(call, &wanted[i], &srs[i]);
        if (r == 0)
            r = storage_check_SR(call, srs[i], storage_operations_vdi_create);
        if (r < 0)
            return r;
    }
    disks = disks_new(call);
    r = add_disks(call, args->vm, disks, wanted, srs, count);
    for (int i = 0; r == 0 && i < count; i++)
        r = disk_make_empty(disks, disks->list[i].vdi);
    return r < 0 ? r : finish(call, args->vm, disks, wanted, &claim);
}
