/* lifecycle_device.c - the rules of disks and network interfaces of a VM (VBD, VIF), wire.md
 * section 10 */
#include "master/lifecycle_rules.h"

#include "master/memory.h"
#include "master/storage.h"

/* The operation that keeps a VM from having devices plugged: shutting down, suspending, pausing - and
 * moving, for the host that it moves to has been told which devices to expect. -1: none. */
static int blocking_vm_operation(const struct object *vm)
{
    const struct value *operations = VM_get_current_operations(vm);

    for (uint32_t i = 0; i < operations->length; i++) {
        int operation = operations->items[2 * i + 1].e.index;

        if (operation == vm_operations_clean_shutdown || operation == vm_operations_hard_shutdown
            || operation == vm_operations_suspend || operation == vm_operations_pause
            || operation == vm_operations_pool_migrate)
            return operation;
    }
    return -1;
}

static int refuse_vm_operation(struct check *check, const struct object *vm, int operation)
{
    if (!check->arena)
        return -ERR_OPERATION_NOT_ALLOWED;
    return refuse(check, OPERATION_NOT_ALLOWED,
                  arena_text(check->arena, "Current operation on VM:%s is %s",
                             check_ref(check, vm->ref),
                             operation_text(&enum_type_vm_operations, operation)));
}

/* Does an HVM guest lack what hot plugging needs? PV guests always have it. */
static bool lacks_drivers(struct check *check, const struct object *vm)
{
    const struct object *metrics =
        view_get(check->view, VM_guest_metrics, VM_get_guest_metrics(vm));

    return vm_is_hvm(vm)
           && !(metrics && VM_guest_metrics_get_PV_drivers_version(metrics)->length > 0);
}

static int refuse_state(struct check *check, const struct object *vm, const char *expected)
{
    return refuse(check, VM_BAD_POWER_STATE, check_ref(check, vm->ref), expected,
                  power_state_text(VM_get_power_state(vm)));
}

/* plug and unplug of a VBD against the VM's state and its own. */
static int check_vbd_plugging(struct check *check, const struct object *vm)
{
    const struct object *vbd = check->object;
    bool is_plug =
        check->operation == vbd_operations_attach || check->operation == vbd_operations_plug;
    int operation = blocking_vm_operation(vm);

    if (VM_get_power_state(vm) != vm_power_state_Running)
        return refuse_state(check, vm, "running");
    if (is_plug && VBD_get_currently_attached(vbd))
        return refuse(check, DEVICE_ALREADY_ATTACHED, check_self(check));
    if (!is_plug && !VBD_get_currently_attached(vbd))
        return refuse(check, DEVICE_ALREADY_DETACHED, check_self(check));
    if (operation >= 0)
        return refuse_vm_operation(check, vm, operation);
    if (lacks_drivers(check, vm)) {
        if (VBD_get_type(vbd) == vbd_type_CD)
            return refuse(check, OPERATION_NOT_ALLOWED,
                          "HVM CDROMs cannot be hotplugged/unplugged, only inserted or ejected");
        return refuse(check, VM_MISSING_PV_DRIVERS, check_ref(check, vm->ref));
    }
    return 0;
}

static int check_vbd_disk(struct check *check)
{
    const struct object *vdi = view_get(check->view, VDI, VBD_get_VDI(check->object));

    if (!vdi)
        return 0;
    if (!storage_is_shown(vdi))
        return refuse(check, VDI_NOT_MANAGED, check_self(check));
    if (storage_busy_for(vdi, VBD_get_mode(check->object)))
        return refuse_busy(check, vdi, "; ");
    if (storage_is_taken(check->view, check->object, vdi))
        return refuse(check, VDI_IN_USE, check_ref(check, vdi->ref));
    if (VBD_get_mode(check->object) == vbd_mode_RW && VDI_get_read_only(vdi))
        return refuse(check, VDI_READONLY, check_ref(check, vdi->ref));
    return 0;
}

int check_VBD(struct check *check)
{
    const struct object *vbd = check->object;
    const struct object *vm = view_get(check->view, VM, VBD_get_VM(vbd));
    const struct value *operations = VBD_get_current_operations(vbd);
    bool is_pausing =
        check->operation == vbd_operations_pause || check->operation == vbd_operations_unpause;
    bool attaches = check->operation == vbd_operations_attach
                    || check->operation == vbd_operations_plug
                    || check->operation == vbd_operations_insert;
    int r;

    if (operations->length > 0 && !is_pausing)
        return refuse_busy(check, vbd, "; ");
    if (!vm)
        return refuse(check, HANDLE_INVALID, "VM", check_ref(check, VBD_get_VM(vbd)));

    if ((check->operation == vbd_operations_unplug
         || check->operation == vbd_operations_unplug_force)
        && !VBD_get_unpluggable(vbd))
        return refuse(check, VBD_NOT_UNPLUGGABLE, check_self(check));
    if (check->operation == vbd_operations_insert || check->operation == vbd_operations_eject) {
        if (VBD_get_type(vbd) != vbd_type_CD)
            return refuse(check, VBD_NOT_REMOVABLE_MEDIA, check_self(check));
        if (check->operation == vbd_operations_eject && VBD_get_empty(vbd))
            return refuse(check, VBD_IS_EMPTY, check_self(check));
        if (check->operation == vbd_operations_insert && !VBD_get_empty(vbd))
            return refuse(check, VBD_NOT_EMPTY, check_self(check));
        if (VM_get_power_state(vm) == vm_power_state_Suspended)
            return refuse_state(check, vm, "halted, running");
    } else if (is_pausing) {
        if (VM_get_power_state(vm) != vm_power_state_Running
            && VM_get_power_state(vm) != vm_power_state_Paused)
            return refuse_state(check, vm, "running");
    } else {
        r = check_vbd_plugging(check, vm);
        if (r < 0)
            return r;
    }
    return attaches ? check_vbd_disk(check) : 0;
}

int check_VIF(struct check *check)
{
    const struct object *vif = check->object;
    const struct object *vm = view_get(check->view, VM, VIF_get_VM(vif));
    const struct value *operations = VIF_get_current_operations(vif);
    int operation;

    if (operations->length > 0)
        return refuse_busy(check, vif, "; ");
    if (!vm)
        return refuse(check, HANDLE_INVALID, "VM", check_ref(check, VIF_get_VM(vif)));
    if (VM_get_power_state(vm) != vm_power_state_Running)
        return refuse_state(check, vm, "running");
    if (check->operation != vif_operations_unplug && VIF_get_currently_attached(vif))
        return refuse(check, DEVICE_ALREADY_ATTACHED, check_self(check));
    if (check->operation == vif_operations_unplug && !VIF_get_currently_attached(vif))
        return refuse(check, DEVICE_ALREADY_DETACHED, check_self(check));
    operation = blocking_vm_operation(vm);
    if (operation >= 0)
        return refuse_vm_operation(check, vm, operation);
    if (lacks_drivers(check, vm))
        return refuse(check, VM_MISSING_PV_DRIVERS, check_ref(check, vm->ref));
    return 0;
}
