/* VM_snapshot.c - VM.snapshot: a VM as it is now, kept beside it
 *
 *   claim the VM --> snapshots of its disks, all of one moment (snapshot.h)
 *                --> one transaction: VM, metrics, VBDs, VIFs, disks shown, the tree of snapshots
 *
 * What runs goes on running, and of its memory nothing is kept: a snapshot is halted, what it was
 * says snapshot_info. It has the MAC addresses and the other_config of the original, since it never
 * runs itself; clones of it get their own. CDs are not copied: the snapshot's drive holds the same
 * one.
 *
 *     snapshot 1 <-parent- snapshot 2 <-parent- the VM          each snapshot_of the VM */
#include "master/VM.h"
#include "master/message.h"
#include "master/snapshot.h"
#include "shared/clock.h"

struct vm_snapshot {
    const char *new_name;
    const struct value *ignore_vdis;
    ref_t made;
};

static bool is_ignored(const struct vm_snapshot *wanted, ref_t vdi)
{
    for (uint32_t i = 0; i < wanted->ignore_vdis->length; i++)
        if (ref_equal(wanted->ignore_vdis->items[i].ref, vdi))
            return true;
    return false;
}

static bool has_disk(const struct object *vbd)
{
    return VBD_get_type(vbd) == vbd_type_Disk && !VBD_get_empty(vbd);
}

static int choose_disks(struct snapshot *snapshot, const struct view *view)
{
    const struct vm_snapshot *wanted = snapshot->arg;
    const struct object *vbd;
    struct view_iter vbds;
    int r = 0;

    view_each_inverse(&vbds, view, &CLASS_OF(VM)->fields[F_VM_VBDs], snapshot->vm);
    while (r == 0 && (vbd = view_next(&vbds)))
        if (has_disk(vbd) && !is_ignored(wanted, VBD_get_VDI(vbd)))
            r = snapshot_add(snapshot, VBD_get_VDI(vbd));
    return r;
}

static struct object *draft_snapshot(struct snapshot *snapshot, const struct object *vm)
{
    const struct vm_snapshot *wanted = snapshot->arg;
    struct call *call = snapshot->call;
    struct object *draft = draft_of(call->arena, CLASS_OF(VM), vm->fields);
    struct value *fields = draft->fields;

    vm_draft_halt(draft);
    fields[F_VM_name_label] = value_text(wanted->new_name);
    fields[F_VM_is_a_template] = VALUE_BOOL(true);
    fields[F_VM_is_default_template] = VALUE_BOOL(false);
    fields[F_VM_is_a_snapshot] = VALUE_BOOL(true);
    fields[F_VM_snapshot_of] = VALUE_REF(vm->ref);
    fields[F_VM_snapshot_time] = VALUE_DATETIME(clock_utc_s(call->core->clock));
    fields[F_VM_snapshot_info] =
        text_map(call->arena, "power-state-at-snapshot",
                 enum_text(&enum_type_vm_power_state, VM_get_power_state(vm)), "disk-snapshot-type",
                 "crash_consistent", NULL);
    fields[F_VM_snapshot_metadata] = value_text("");
    fields[F_VM_transportable_snapshot_id] = value_text("");
    fields[F_VM_suspend_VDI] = VALUE_REF(NULL_REF);
    fields[F_VM_blocked_operations] = VALUE_EMPTY_MAP;
    fields[F_VM_appliance] = VALUE_REF(NULL_REF);
    fields[F_VM_ha_always_run] = VALUE_BOOL(false);
    fields[F_VM_blobs] = VALUE_EMPTY_MAP;
    return draft;
}

static void copy_devices(struct snapshot *snapshot, struct txn *txn, ref_t made)
{
    const struct vm_snapshot *wanted = snapshot->arg;
    struct call *call = snapshot->call;
    const struct view *view = txn_view(txn);
    struct value vbds =
        view_inverse(view, &CLASS_OF(VM)->fields[F_VM_VBDs], snapshot->vm, call->arena);
    struct value vifs =
        view_inverse(view, &CLASS_OF(VM)->fields[F_VM_VIFs], snapshot->vm, call->arena);

    for (uint32_t i = 0; i < vbds.length; i++) {
        const struct object *vbd = txn_get(txn, VBD, vbds.items[i].ref);
        ref_t disk = has_disk(vbd) ? snapshot_made(snapshot, VBD_get_VDI(vbd)) : NULL_REF;

        /* One that was added since is not of that moment. */
        if (has_disk(vbd) && (ref_is_null(disk) || is_ignored(wanted, VBD_get_VDI(vbd))))
            continue;
        vbd_copy(call, txn, vbds.items[i].ref, made, disk);
    }
    for (uint32_t i = 0; i < vifs.length; i++)
        vif_copy(call, txn, vifs.items[i].ref, made);
}

static int finish(struct snapshot *snapshot, struct txn *txn)
{
    struct vm_snapshot *wanted = snapshot->arg;
    struct call *call = snapshot->call;
    const struct object *vm = live(call, txn_view(txn), VM, snapshot->vm);

    if (!vm)
        return -ERR_HANDLE_INVALID;
    wanted->made = vm_create(call, txn, draft_snapshot(snapshot, vm));
    copy_devices(snapshot, txn, wanted->made);
    VM_put_parent(txn, snapshot->vm, wanted->made);
    message_about_vm(txn, call->core, "VM_SNAPSHOTTED", MESSAGE_VM_PRIORITY, snapshot->vm,
                     snapshot->host, "has been snapshotted");
    return 0;
}

int VM_snapshot(struct call *call, const struct VM_snapshot_args *args, struct value *ret)
{
    struct vm_snapshot wanted = {.new_name = args->new_name, .ignore_vdis = args->ignore_vdis};
    _cleanup_(snapshot_end) struct snapshot snapshot = {
        .call = call,
        .vm = args->vm,
        .operation = vdi_operations_snapshot,
        .choose = choose_disks,
        .draft = vdi_draft_snapshot,
        .finish = finish,
        .arg = &wanted,
    };
    int r;

    r = snapshot_run(&snapshot);
    *ret = VALUE_REF(wanted.made);
    return r;
}
