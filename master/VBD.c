/* VBD.c - the drives of VMs
 *
 * A drive of a halted VM is a record. Of a running one, plugging, unplugging and changing a CD are
 * calls to the slave that runs it; the record follows when the slave has done it. */
#include "master/VM.h"
#include "master/claim.h"
#include "master/lifecycle.h"
#include "master/memory.h"
#include "master/slaves.h"
#include "master/storage.h"
#include "master/vm_config.h"
#include "master/vm_work.h"

/* ---- devices ---- */

/* By the VM's drives but `self`. */
static void find_taken(const struct view *view, ref_t vm, ref_t self,
                       bool ret_taken[VBD_DEVICES_MAX])
{
    const struct object *vbd;
    struct view_iter vbds;

    memset(ret_taken, 0, VBD_DEVICES_MAX);
    view_each_inverse(&vbds, view, &CLASS_OF(VM)->fields[F_VM_VBDs], vm);
    while ((vbd = view_next(&vbds))) {
        int number = vbd_device_number(VBD_get_userdevice(vbd));

        if (number >= 0 && !ref_equal(vbd->ref, self))
            ret_taken[number] = true;
    }
}

int VM_get_allowed_VBD_devices(struct call *call,
                               const struct VM_get_allowed_VBD_devices_args *args,
                               struct value *ret)
{
    struct value *items = arena_alloc_array(call->arena, VBD_DEVICES_MAX, sizeof *items);
    bool taken[VBD_DEVICES_MAX];
    uint32_t count = 0;

    find_taken(call_view(call), args->vm, NULL_REF, taken);
    for (int i = 0; i < VBD_DEVICES_MAX; i++)
        if (!taken[i])
            items[count++] = value_text(int_text(call, i));
    *ret = VALUE_SET(count, items);
    return 0;
}

/* The place of drive `self` (null: of one in the making): the one asked for, or the first free one
 * for "autodetect". 0, -ERR_INVALID_DEVICE or -ERR_DEVICE_ALREADY_EXISTS [wanted]. */
static int find_place(struct call *call, const struct view *view, ref_t vm, ref_t self,
                      const char *wanted, const char **ret_device)
{
    bool taken[VBD_DEVICES_MAX];
    int number = 0;

    find_taken(view, vm, self, taken);
    if (streq(wanted, "autodetect")) {
        while (number < VBD_DEVICES_MAX && taken[number])
            number++;
        if (number == VBD_DEVICES_MAX)
            return fail(call, INVALID_DEVICE, wanted);
    } else {
        number = vbd_device_number(wanted);
        if (number < 0)
            return fail(call, INVALID_DEVICE, wanted);
        if (taken[number])
            return fail(call, DEVICE_ALREADY_EXISTS, wanted);
    }
    *ret_device = int_text(call, number);
    return 0;
}

/* ---- made and unmade ---- */

/* The checks of wire.md section 10 that concern the disk. */
static int check_disk(struct call *call, const struct view *view, struct object *draft)
{
    bool is_cd = VBD_get_type(draft) == vbd_type_CD;
    const struct object *vdi;

    if (VBD_get_empty(draft)) {
        if (!is_cd)
            return fail(call, VBD_NOT_REMOVABLE_MEDIA, "in constructor");
        draft->fields[F_VBD_VDI] = VALUE_REF(NULL_REF);
    }
    if (is_cd && VBD_get_mode(draft) != vbd_mode_RO)
        return fail(call, VBD_CDS_MUST_BE_READONLY);
    if (VBD_get_empty(draft))
        return 0;
    vdi = live(call, view, VDI, VBD_get_VDI(draft));
    if (!vdi)
        return -ERR_HANDLE_INVALID;
    if (VBD_get_mode(draft) == vbd_mode_RW && VDI_get_read_only(vdi))
        return fail(call, VDI_READONLY, ref_text(call, vdi->ref));
    return 0;
}

int vbd_create(struct call *call, struct txn *txn, struct object *draft, ref_t *ret)
{
    const struct view *view = txn_view(txn);
    const char *device;
    int r;

    if (!live(call, view, VM, VBD_get_VM(draft)))
        return -ERR_HANDLE_INVALID;
    r = check_disk(call, view, draft);
    if (r == 0)
        r = find_place(call, view, VBD_get_VM(draft), NULL_REF, VBD_get_userdevice(draft), &device);
    if (r < 0)
        return r;
    draft->fields[F_VBD_userdevice] = value_text(device);
    *ret = draft_create(call, txn, draft);
    return 0;
}

int VBD_create(struct call *call, const struct VBD_create_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct object *draft = draft_of(call->arena, CLASS_OF(VBD), args->args->record.fields);
    ref_t vbd;
    int r;

    draft->fields[F_VBD_currently_attached] = VALUE_BOOL(false);
    r = vbd_create(call, txn, draft, &vbd);
    if (r < 0)
        return r;
    *ret = VALUE_REF(vbd);
    return call_commit(call, &txn);
}

void vbd_copy(struct call *call, struct txn *txn, ref_t vbd, ref_t vm, ref_t vdi)
{
    struct object *draft = draft_of(call->arena, CLASS_OF(VBD), txn_get(txn, VBD, vbd)->fields);
    struct value *fields = draft->fields;

    fields[F_VBD_VM] = VALUE_REF(vm);
    if (!ref_is_null(vdi))
        fields[F_VBD_VDI] = VALUE_REF(vdi);
    fields[F_VBD_allowed_operations] = VALUE_EMPTY_SET;
    fields[F_VBD_current_operations] = VALUE_EMPTY_MAP;
    fields[F_VBD_reserved] = VALUE_BOOL(false);
    fields[F_VBD_storage_lock] = VALUE_BOOL(false);
    fields[F_VBD_status_code] = VALUE_INT(0);
    fields[F_VBD_status_detail] = value_text("");
    fields[F_VBD_runtime_properties] = VALUE_EMPTY_MAP;
    /* The devices of a suspended guest stay as they were. */
    if (VM_get_power_state(txn_get(txn, VM, vm)) != vm_power_state_Suspended) {
        fields[F_VBD_currently_attached] = VALUE_BOOL(false);
        fields[F_VBD_device] = value_text("");
    }
    draft_create(call, txn, draft);
}

static int check_idle(struct call *call, const struct object *vbd)
{
    const struct value *operations = VBD_get_current_operations(vbd);

    return operations->length == 0
               ? 0
               : fail(call, OTHER_OPERATION_IN_PROGRESS, "VBD", ref_text(call, vbd->ref),
                      enum_text(&enum_type_vbd_operations, operations->items[1].e.index),
                      operations->items[0].text);
}

int VBD_destroy(struct call *call, const struct VBD_destroy_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct object *vbd = live(call, txn_view(txn), VBD, args->self), *vm;
    int r;

    (void) ret;
    if (!vbd)
        return -ERR_HANDLE_INVALID;
    if (VBD_get_currently_attached(vbd) || VBD_get_reserved(vbd)) {
        vm = txn_get(txn, VM, VBD_get_VM(vbd));
        return fail(call, OPERATION_NOT_ALLOWED,
                    arena_text(call->arena, "VBD '%s' still attached to '%s'", VBD_get_uuid(vbd),
                               vm ? VM_get_uuid(vm) : ""));
    }
    r = check_idle(call, vbd);
    if (r < 0)
        return r;
    txn_delete(txn, CLASS_OF(VBD), args->self);
    return call_commit(call, &txn);
}

/* ---- plug ---- */

/* A host names the drive by its number; clients know it by its reference. */
static int refused(struct call *call, ref_t vbd, int r)
{
    if (r == -ERR_DEVICE_DETACH_REJECTED)
        return fail(call, DEVICE_DETACH_REJECTED, "VBD", ref_text(call, vbd),
                    call->failure.params[2]);
    return r;
}

/* Where the guest runs, and what a slave call about it names. */
struct guest {
    ref_t vm, host;
    const char *uuid;
    int64_t epoch;
};

static int find_guest(struct call *call, ref_t vm_ref, struct guest *ret)
{
    const struct object *vm = live(call, call_view(call), VM, vm_ref);

    if (!vm)
        return -ERR_HANDLE_INVALID;
    *ret = (struct guest){vm_ref, VM_get_resident_on(vm),
                          arena_strdup(call->arena, VM_get_uuid(vm)), VM_get_epoch(vm)};
    return 0;
}

/* The drive as slaves name it; `vdi` null: an empty CD drive. The host must see the disk. */
static int disk_map(struct call *call, const struct object *vbd, ref_t vdi_ref, ref_t host,
                    struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *vdi;

    if (!ref_is_null(vdi_ref)) {
        vdi = live(call, view, VDI, vdi_ref);
        if (!vdi)
            return -ERR_HANDLE_INVALID;
        if (!storage_is_attached(view, VDI_get_SR(vdi), host))
            return fail(call, VM_REQUIRES_SR, ref_text(call, VBD_get_VM(vbd)),
                        ref_text(call, VDI_get_SR(vdi)));
    }
    *ret = vm_disk(call, view, vbd, vdi_ref, host);
    return 0;
}

/* Until it is known what came of the plug nobody else gets the disk, whoever dies meanwhile: what the guest has then is the
 * host's to say (attached.c). */
static void put_reserved(struct call *call, ref_t vbd, bool is_reserved)
{
    struct txn *txn = store_begin(call->core->store);

    if (txn_get(txn, VBD, vbd))
        VBD_put_reserved(txn, vbd, is_reserved);
    call->depends = MAX(call->depends, store_apply(&txn));
}

int VBD_plug(struct call *call, const struct VBD_plug_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct slave_vbd_plug_args plug;
    const struct object *vbd, *vm;
    char device[VBD_DEVICE_BYTES];
    struct guest guest;
    struct value disk;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(VBD), args->self, vbd_operations_plug);
    if (r < 0)
        return r;
    vbd = live(call, call_view(call), VBD, args->self);
    if (!vbd)
        return -ERR_HANDLE_INVALID;
    r = find_guest(call, VBD_get_VM(vbd), &guest);
    if (r == 0)
        r = disk_map(call, vbd, VBD_get_VDI(vbd), guest.host, &disk);
    if (r < 0)
        return r;
    plug = (struct slave_vbd_plug_args){.vm = guest.uuid, .epoch = guest.epoch, .disk = &disk};
    put_reserved(call, args->self, true); /* without a wait behind the claim's checks */
    r = slave_vbd_plug(call, guest.host, &plug, NULL);
    if (r < 0) {
        if (!slave_call_in_doubt(call))
            put_reserved(call, args->self, false);
        return slave_failure(call, guest.vm, r);
    }

    txn = store_begin(call->core->store);
    vbd = live(call, txn_view(txn), VBD, args->self);
    if (!vbd)
        return -ERR_HANDLE_INVALID;
    vm = txn_get(txn, VM, VBD_get_VM(vbd));
    if (vm && VM_get_power_state(vm) == vm_power_state_Running) {
        VBD_put_currently_attached(txn, args->self, true);
        VBD_put_device(txn, args->self, vbd_device(device, vbd, vm_is_hvm(vm)));
    }
    VBD_put_reserved(txn, args->self, false);
    claim_end_txn(&claim, txn);
    return call_commit(call, &txn);
}

static int unplug(struct call *call, ref_t self, enum vbd_operations operation)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct slave_vbd_unplug_args args;
    const struct object *vbd;
    struct guest guest;
    int r;

    r = claim_begin(&claim, call, CLASS_OF(VBD), self, (int) operation);
    if (r < 0)
        return r;
    vbd = live(call, call_view(call), VBD, self);
    if (!vbd)
        return -ERR_HANDLE_INVALID;
    args.device = arena_strdup(call->arena, VBD_get_userdevice(vbd));
    r = find_guest(call, VBD_get_VM(vbd), &guest);
    if (r < 0)
        return r;
    args.vm = guest.uuid;
    args.epoch = guest.epoch;
    args.forced = operation == vbd_operations_unplug_force;
    r = slave_vbd_unplug(call, guest.host, &args, NULL);
    if (r < 0)
        return refused(call, self, slave_failure(call, guest.vm, r));

    txn = store_begin(call->core->store);
    if (!live(call, txn_view(txn), VBD, self))
        return -ERR_HANDLE_INVALID;
    VBD_put_currently_attached(txn, self, false);
    VBD_put_device(txn, self, "");
    claim_end_txn(&claim, txn);
    return call_commit(call, &txn);
}

int VBD_unplug(struct call *call, const struct VBD_unplug_args *args, struct value *ret)
{
    (void) ret;
    return unplug(call, args->self, vbd_operations_unplug);
}

int VBD_unplug_force(struct call *call, const struct VBD_unplug_force_args *args, struct value *ret)
{
    (void) ret;
    return unplug(call, args->self, vbd_operations_unplug_force);
}

int VBD_unplug_force_no_safety_check(struct call *call,
                                     const struct VBD_unplug_force_no_safety_check_args *args,
                                     struct value *ret)
{
    (void) ret;
    return unplug(call, args->self, vbd_operations_unplug_force);
}

int VBD_assert_attachable(struct call *call, const struct VBD_assert_attachable_args *args,
                          struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *vbd = live(call, view, VBD, args->self);

    (void) ret;
    if (!vbd)
        return -ERR_HANDLE_INVALID;
    return operation_check(view, vbd, vbd_operations_attach, false, call->arena, &call->failure);
}

/* ---- CDs ---- */

/* Change what is in the drive: `vdi` null takes it out. */
static int change_cd(struct call *call, ref_t self, ref_t vdi, enum vbd_operations operation)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *vbd, *vm;
    int r;

    r = claim_begin(&claim, call, CLASS_OF(VBD), self, (int) operation);
    if (r < 0)
        return r;
    vbd = live(call, call_view(call), VBD, self);
    vm = vbd ? live(call, call_view(call), VM, VBD_get_VM(vbd)) : NULL;
    if (!vm)
        return -ERR_HANDLE_INVALID;
    if (VBD_get_currently_attached(vbd)
        && (VM_get_power_state(vm) == vm_power_state_Running
            || VM_get_power_state(vm) == vm_power_state_Paused)) {
        struct slave_cd_change_args change;
        struct guest guest;
        struct value disk;

        r = find_guest(call, VBD_get_VM(vbd), &guest);
        if (r == 0)
            r = disk_map(call, vbd, vdi, guest.host, &disk);
        if (r < 0)
            return r;
        change =
            (struct slave_cd_change_args){.vm = guest.uuid, .epoch = guest.epoch, .disk = &disk};
        r = slave_cd_change(call, guest.host, &change, NULL);
        if (r < 0)
            return slave_failure(call, guest.vm, r);
    }
    txn = store_begin(call->core->store);
    if (!live(call, txn_view(txn), VBD, self)
        || (!ref_is_null(vdi) && !live(call, txn_view(txn), VDI, vdi)))
        return -ERR_HANDLE_INVALID;
    VBD_put_VDI(txn, self, vdi);
    VBD_put_empty(txn, self, ref_is_null(vdi));
    claim_end_txn(&claim, txn);
    return call_commit(call, &txn);
}

int VBD_eject(struct call *call, const struct VBD_eject_args *args, struct value *ret)
{
    (void) ret;
    return change_cd(call, args->vbd, NULL_REF, vbd_operations_eject);
}

int VBD_insert(struct call *call, const struct VBD_insert_args *args, struct value *ret)
{
    (void) ret;
    if (!live(call, call_view(call), VDI, args->vdi))
        return -ERR_HANDLE_INVALID;
    return change_cd(call, args->vbd, args->vdi, vbd_operations_insert);
}

/* ---- fields ---- */

/* What a guest knows the drive by, and what its disk was opened for, stays while it has it:
 * suspended guests have theirs, too. */
static int check_detached(struct call *call, const struct object *vbd)
{
    if (VBD_get_currently_attached(vbd) || VBD_get_reserved(vbd))
        return fail(call, DEVICE_ALREADY_ATTACHED, ref_text(call, vbd->ref));
    return check_idle(call, vbd);
}

int VBD_set_type(struct call *call, const struct VBD_set_type_args *args, struct value *ret)
{
    const struct object *vbd = live(call, call_view(call), VBD, args->self);
    int r;

    (void) ret;
    if (!vbd)
        return -ERR_HANDLE_INVALID;
    if (args->value == VBD_get_type(vbd))
        return 0;
    if (args->value == vbd_type_CD && VBD_get_mode(vbd) != vbd_mode_RO)
        return fail(call, VBD_CDS_MUST_BE_READONLY);
    if (args->value != vbd_type_CD && VBD_get_empty(vbd))
        return fail(call, VBD_NOT_REMOVABLE_MEDIA, ref_text(call, args->self));
    r = check_detached(call, vbd);
    if (r < 0)
        return r;
    return field_set(call, CLASS_OF(VBD), args->self, F_VBD_type,
                     VALUE_ENUM(vbd_type, (int) args->value));
}

int VBD_set_userdevice(struct call *call, const struct VBD_set_userdevice_args *args,
                       struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *vbd = live(call, view, VBD, args->self);
    const char *device;
    int r;

    (void) ret;
    if (!vbd)
        return -ERR_HANDLE_INVALID;
    if (streq(args->value, VBD_get_userdevice(vbd)))
        return 0;
    r = find_place(call, view, VBD_get_VM(vbd), args->self, args->value, &device);
    if (r == 0)
        r = check_detached(call, vbd);
    if (r < 0)
        return r;
    return field_set(call, CLASS_OF(VBD), args->self, F_VBD_userdevice, value_text(device));
}

int VBD_set_mode(struct call *call, const struct VBD_set_mode_args *args, struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *vbd = live(call, view, VBD, args->self), *vm, *vdi;

    (void) ret;
    if (!vbd)
        return -ERR_HANDLE_INVALID;
    vm = view_get(view, VM, VBD_get_VM(vbd));
    if (vm && VM_get_power_state(vm) != vm_power_state_Halted)
        return fail(call, VM_BAD_POWER_STATE, ref_text(call, vm->ref), "halted",
                    power_state_text(VM_get_power_state(vm)));
    if (args->value == vbd_mode_RW) {
        vdi = view_get(view, VDI, VBD_get_VDI(vbd));
        if (VBD_get_type(vbd) == vbd_type_CD)
            return fail(call, VBD_CDS_MUST_BE_READONLY);
        if (vdi && VDI_get_read_only(vdi))
            return fail(call, VDI_READONLY, ref_text(call, vdi->ref));
    }
    return field_set(call, CLASS_OF(VBD), args->self, F_VBD_mode,
                     VALUE_ENUM(vbd_mode, (int) args->value));
}
