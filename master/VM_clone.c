/* VM_clone.c - a second VM from a first one: clone (copy on write, quick) and copy (every byte)
 *
 *   claim the VM --> hidden VDIs, one for each disk --> files, made by a host that sees the SR
 *                --> one transaction: VM, metrics, VBDs, VIFs, disks shown
 *
 * Whatever fails on the way, nothing remains (storage.h). The clone has its own uuid, MAC
 * addresses, generation id and mac_seed, is halted or as suspended as the original, and is no
 * default template even if that is one. CDs are not copied: the clone's drive holds the same one.
 */
#include "master/VM.h"
#include "master/claim.h"
#include "master/storage.h"
#include "master/task.h"

/* One drive of the original, and the disk made for the clone's. */
struct drive {
    ref_t vbd;
    ref_t source; /* its disk; null: nothing is to be copied */
    ref_t made;
};

struct cloning {
    struct call *call;
    ref_t vm;
    bool is_copy;
    ref_t to_sr; /* of a copy; null: each disk stays in its SR */
    struct disks *disks;
    struct drive *drives;
    int count;
    struct drive image; /* the suspend image; its vbd is null */
};

static int find_drives(struct cloning *c)
{
    const struct view *view = call_view(c->call);
    const struct object *vm = live(c->call, view, VM, c->vm), *vbd;
    size_t count = view_count_inverse(view, &CLASS_OF(VM)->fields[F_VM_VBDs], c->vm);
    struct view_iter vbds;

    if (!vm)
        return -ERR_HANDLE_INVALID;
    c->drives = arena_alloc_array(c->call->arena, count, sizeof *c->drives);
    view_each_inverse(&vbds, view, &CLASS_OF(VM)->fields[F_VM_VBDs], c->vm);
    while ((vbd = view_next(&vbds))) {
        struct drive *drive = &c->drives[c->count++];

        drive->vbd = vbd->ref;
        if (VBD_get_type(vbd) == vbd_type_Disk && !VBD_get_empty(vbd))
            drive->source = VBD_get_VDI(vbd);
    }
    if (VM_get_power_state(vm) == vm_power_state_Suspended)
        c->image.source = VM_get_suspend_VDI(vm);
    if (c->count >= DISKS_MAX)
        return fail(c->call, INVALID_VALUE, "VBDs", int_text(c->call, c->count));
    return 0;
}

/* May the SR take the new disk? One that cannot clone gets a copy. */
static int check_target(struct cloning *c, ref_t sr)
{
    int r;

    if (!c->is_copy) {
        r = storage_check_SR(c->call, sr, storage_operations_vdi_clone);
        if (r != -ERR_SR_OPERATION_NOT_SUPPORTED)
            return r;
    }
    return storage_check_SR(c->call, sr, storage_operations_vdi_create);
}

static int check_targets(struct cloning *c)
{
    for (int i = 0; i <= c->count; i++) {
        struct drive *drive = i < c->count ? &c->drives[i] : &c->image;
        const struct object *vdi;
        int r;

        if (ref_is_null(drive->source))
            continue;
        vdi = live(c->call, call_view(c->call), VDI, drive->source);
        if (!vdi)
            return -ERR_HANDLE_INVALID;
        r = check_target(c, ref_is_null(c->to_sr) ? VDI_get_SR(vdi) : c->to_sr);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The hidden VDIs of all disks, in one transaction. */
static int add_disks(struct cloning *c)
{
    struct call *call = c->call;
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    for (int i = 0; i <= c->count; i++) {
        struct drive *drive = i < c->count ? &c->drives[i] : &c->image;
        const struct object *vdi;
        struct object *draft;

        if (ref_is_null(drive->source))
            continue;
        vdi = live(call, txn_view(txn), VDI, drive->source);
        if (!vdi)
            return -ERR_HANDLE_INVALID;
        draft = vdi_draft_copy(call, vdi);
        if (!ref_is_null(c->to_sr))
            draft->fields[F_VDI_SR] = VALUE_REF(c->to_sr);
        drive->made = disks_add(c->disks, txn, draft);
    }
    return call_commit(call, &txn);
}

static int make_disk(struct cloning *c, struct drive *drive)
{
    _cleanup_(claim_end) struct claim claim = {0};
    struct call *call = c->call;
    bool is_copy = c->is_copy;
    int r;

    r = claim_begin(&claim, call, CLASS_OF(VDI), drive->source,
                    is_copy ? vdi_operations_copy : vdi_operations_clone);
    if (r == -ERR_SR_OPERATION_NOT_SUPPORTED) {
        is_copy = true;
        r = claim_begin(&claim, call, CLASS_OF(VDI), drive->source, vdi_operations_copy);
    }
    if (r < 0)
        return r;
    /* The VM is halted, but a disk may be another one's as well, or have become that one's while we waited. */
    if (!ref_is_null(storage_writer(call_view(call), drive->source)))
        return fail(call, VDI_IN_USE, ref_text(call, drive->source), is_copy ? "copy" : "clone");
    return is_copy ? disk_make_copy(c->disks, drive->made, drive->source)
                   : disk_make_clone(c->disks, drive->made, drive->source);
}

static int make_disks(struct cloning *c)
{
    for (int i = 0; i <= c->count; i++) {
        struct drive *drive = i < c->count ? &c->drives[i] : &c->image;
        int r = ref_is_null(drive->source) ? 0 : make_disk(c, drive);

        if (r < 0)
            return r;
        task_progress(c->call, (double) (i + 1) / (c->count + 2));
    }
    return 0;
}

/* The new VM's record from the old one's. */
static struct object *draft_clone(struct call *call, const struct object *vm, const char *new_name,
                                  ref_t image)
{
    struct object *draft = draft_of(call->arena, CLASS_OF(VM), vm->fields);
    struct value *fields = draft->fields, other_config;

    vm_draft_halt(draft);
    if (VM_get_power_state(vm) == vm_power_state_Suspended)
        fields[F_VM_power_state] = VALUE_ENUM(vm_power_state, vm_power_state_Suspended);
    fields[F_VM_suspend_VDI] = VALUE_REF(image);
    fields[F_VM_name_label] = value_text(new_name);
    fields[F_VM_is_default_template] = VALUE_BOOL(false);
    fields[F_VM_is_a_snapshot] = VALUE_BOOL(false);
    fields[F_VM_is_a_template] = VALUE_BOOL(VM_get_is_a_template(vm));
    fields[F_VM_snapshot_of] = VALUE_REF(NULL_REF);
    fields[F_VM_snapshot_time] = VALUE_DATETIME(0);
    fields[F_VM_transportable_snapshot_id] = value_text("");
    fields[F_VM_snapshot_info] = VALUE_EMPTY_MAP;
    fields[F_VM_snapshot_metadata] = value_text("");
    fields[F_VM_parent] = VALUE_REF(NULL_REF);
    fields[F_VM_appliance] = VALUE_REF(NULL_REF);
    fields[F_VM_ha_always_run] = VALUE_BOOL(false);
    fields[F_VM_reference_label] = value_text(VM_get_reference_label(vm));
    fields[F_VM_blobs] = VALUE_EMPTY_MAP;
    if (!streq(VM_get_generation_id(vm), ""))
        fields[F_VM_generation_id] = value_text(vm_generation_id_new(call));
    other_config = map_without_text(call->arena, VM_get_other_config(vm), "default_template");
    other_config = map_without_text(call->arena, &other_config, "xensource_internal");
    fields[F_VM_other_config] =
        map_with_text(call->arena, &other_config, "mac_seed", uuid_new_text(call));
    return draft;
}

/* The transaction that makes the new VM. */
static int create_clone(struct cloning *c, struct claim *claim, const char *new_name, ref_t *ret_vm)
{
    struct call *call = c->call;
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct object *vm = live(call, txn_view(txn), VM, c->vm);
    struct value vifs;
    int r;

    if (!vm)
        return -ERR_HANDLE_INVALID;
    r = disks_keep(c->disks, txn);
    if (r < 0)
        return r;
    vm = txn_get(txn, VM, c->vm);
    *ret_vm = vm_create(call, txn, draft_clone(call, vm, new_name, c->image.made));
    for (int i = 0; i < c->count; i++)
        if (txn_get(txn, VBD, c->drives[i].vbd))
            vbd_copy(call, txn, c->drives[i].vbd, *ret_vm, c->drives[i].made);
    vifs = view_inverse(txn_view(txn), &CLASS_OF(VM)->fields[F_VM_VIFs], c->vm, call->arena);
    for (uint32_t i = 0; i < vifs.length; i++)
        vif_copy(call, txn, vifs.items[i].ref, *ret_vm);
    claim_end_txn(claim, txn);
    return call_commit(call, &txn);
}

static int duplicate(struct call *call, ref_t vm, const char *new_name, bool is_copy, ref_t to_sr,
                     struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(disks_undo) struct disks *disks = NULL;
    struct cloning c = {.call = call, .vm = vm, .is_copy = is_copy, .to_sr = to_sr};
    ref_t clone = NULL_REF;
    int r;

    r = claim_begin(&claim, call, CLASS_OF(VM), vm,
                    is_copy ? vm_operations_copy : vm_operations_clone);
    if (r < 0)
        return r;
    r = find_drives(&c);
    if (r == 0)
        r = check_targets(&c);
    if (r < 0)
        return r;
    c.disks = disks = disks_new(call);
    r = add_disks(&c);
    task_set_cancellable(call, true);
    if (r == 0)
        r = make_disks(&c);
    task_set_cancellable(call, false);
    if (r == 0)
        r = create_clone(&c, &claim, new_name, &clone);
    *ret = VALUE_REF(clone);
    return r;
}

int VM_clone(struct call *call, const struct VM_clone_args *args, struct value *ret)
{
    return duplicate(call, args->vm, args->new_name, false, NULL_REF, ret);
}

int VM_copy(struct call *call, const struct VM_copy_args *args, struct value *ret)
{
    /* Without an SR each disk is copied inside its own. */
    if (!ref_is_null(args->sr) && !live(call, call_view(call), SR, args->sr))
        return -ERR_HANDLE_INVALID;
    return duplicate(call, args->vm, args->new_name, true, args->sr, ret);
}
