/* vm_devices.c - disks and network interfaces of a guest that runs: plugged, unplugged, told
 *
 * A writable disk gets its owner record before the guest may open it, and the ledger knows it before that, for the right to it
 * must be renewed wherever the guest goes on with a higher epoch. When the guest has let go, or never took it, both are undone:
 *
 *   plug     ledger (synced) -> owner record -> guest
 *   unplug   guest -> ledger, owner record
 *
 * What the guest really has is the driver's word. So an operation that was cut short needs no memory of its own: run again it
 * finds the device there or not, and whatever the ledger names beyond what the guest has is given back. */
#include <stdio.h>
#include <string.h>

#include "shared/clock.h"
#include "slave/guest_devices.h"
#include "slave/storage.h"
#include "slave/vms.h"

/* The guest that a call is about, as vm_take() has it, when it is there. */
static int take_guest(struct op *op, const char *uuid, int64_t epoch, struct vm **ret_locked)
{
    int r = vm_take(op, uuid, epoch, ret_locked);
    const struct vm *vm = *ret_locked;

    if (r == 0 && ((vm->state != GUEST_RUNNING && vm->state != GUEST_PAUSED) || vm->sending))
        r = vm_bad_state(op, vm, "running");
    return r;
}

/* The same for a call that brings a disk: what it is, and its files are there. */
static int take_guest_and_disk(struct op *op, const char *uuid, int64_t epoch, const struct value *map, struct vm **ret_locked,
                               struct guest_disk *ret_disk)
{
    int r = guest_plan_disk(op, map, op->arena, ret_disk);

    if (r == 0)
        r = take_guest(op, uuid, epoch, ret_locked);
    if (r == 0)
        r = storage_check_files(op, map, 1);
    return r;
}

static const struct guest_devices *devices_of(const struct vm *vm)
{
    struct hypervisor *hypervisor = vm->agent->hypervisor;

    return vm->state == GUEST_RUNNING || vm->state == GUEST_PAUSED ? hypervisor->devices(hypervisor, vm->uuid) : NULL;
}

/* ---- disks ---- */

static bool has_writable(const struct guest_devices *devices, const char *path, size_t length)
{
    for (int i = 0; i < devices->disk_count; i++) {
        const struct guest_disk *disk = &devices->disks[i];

        if (guest_disk_is_writable(disk) && strlen(disk->path) == length && memcmp(disk->path, path, length) == 0)
            return true;
    }
    return false;
}

/* What the ledger names and the guest has not got is nobody's: out of the ledger, and given back. */
static void settle_disks(struct op *op, struct vm *vm)
{
    const struct guest_devices *devices = devices_of(vm);
    const char *kept = "", *gone = "", *at, *end;
    struct ledger_vm row = vm_row(vm);

    if (!devices || !row.disks)
        return;
    for (at = row.disks; (end = strchr(at, '\n')); at = end + 1) {
        const char **list = has_writable(devices, at, (size_t) (end - at)) ? &kept : &gone;

        *list = op_text(op, "%s%.*s\n", *list, (int) (end - at), at);
    }
    if (!gone[0])
        return;
    row.disks = (char *) kept;
    ledger_put_vm(vm->agent->ledger, &row); /* synced with the operation's end */
    owner_give_back(op, vm, gone);
}

/* The right to a disk that the guest is about to get. */
static int take_disk(struct op *op, struct vm *vm, const char *path, uint64_t epoch)
{
    struct ledger_vm row = vm_row(vm);
    const char *line = op_text(op, "%s\n", path), *before = row.disks ? row.disks : "";
    const char *found = strstr(before, line);

    if (!found || (found > before && found[-1] != '\n')) {
        row.disks = (char *) op_text(op, "%s%s", before, line);
        ledger_put_vm(op->agent->ledger, &row);
        op_sync(op);
    }
    return owner_take(op, vm, line, epoch, epoch);
}

/* The driver's refusals name the device: who it is for clients is the master's to say. */
static int name_device(struct op *op, const char *class, const char *device, int r)
{
    const struct failure *failure = &op->failure;
    const char *text = failure->count ? failure->params[failure->count - 1] : "";

    if (r == -ERR_DEVICE_DETACH_REJECTED)
        return op_fail(op, DEVICE_DETACH_REJECTED, class, device, text);
    if (r == -ERR_DEVICE_ALREADY_EXISTS)
        return op_fail(op, DEVICE_ALREADY_EXISTS, device);
    if (r == -ERR_INVALID_DEVICE)
        return op_fail(op, INVALID_DEVICE, device);
    return r;
}

/* The call's answer, when it is done. There is no INTENT for a plug: a master that could not wait for it does not ask what came of it,
 * and believes the hello that it got meanwhile; so it gets another one. */
static int conclude(struct op *op, const struct vm *vm, int r, struct value *ret)
{
    struct agent *agent = op->agent;

    if (op->link != agent_link_number(agent) || clock_now_ms(agent->clock) >= op->deadline_ms)
        agent_link_tell_anew(agent, "what a guest has may have changed since the hello");
    if (r == 0)
        *ret = vm_answer(op, vm);
    return r;
}

int do_vbd_plug(struct op *op, const struct slave_vbd_plug_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    struct guest_disk disk;
    int r = take_guest_and_disk(op, args->vm, args->epoch, args->disk, &vm, &disk);

    if (r < 0)
        return r;
    if (guest_disk_is_writable(&disk))
        r = take_disk(op, vm, disk.path, (uint64_t) args->epoch);
    if (r == 0)
        r = name_device(op, "VBD", disk.device, DRIVE(op, vm, plug_disk, vm->uuid, &disk));
    if (r < 0)
        settle_disks(op, vm);
    return conclude(op, vm, r, ret);
}

int do_vbd_unplug(struct op *op, const struct slave_vbd_unplug_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    int r = take_guest(op, args->vm, args->epoch, &vm);

    if (r == 0)
        r = name_device(op, "VBD", args->device, DRIVE(op, vm, unplug_disk, vm->uuid, args->device, args->forced));
    if (r == 0)
        settle_disks(op, vm);
    return conclude(op, vm, r, ret);
}

int do_cd_change(struct op *op, const struct slave_cd_change_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    struct guest_disk disk;
    int r = take_guest_and_disk(op, args->vm, args->epoch, args->disk, &vm, &disk);

    if (r == 0)
        r = name_device(op, "VBD", disk.device, DRIVE(op, vm, change_cd, vm->uuid, &disk));
    return conclude(op, vm, r, ret);
}

/* ---- network interfaces ---- */

int do_vif_plug(struct op *op, const struct slave_vif_plug_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    struct guest_nic nic;
    int r = guest_plan_nic(op, args->nic, op->arena, &nic);

    if (r == 0)
        r = take_guest(op, args->vm, args->epoch, &vm);
    if (r == 0)
        r = name_device(op, "VIF", nic.device, DRIVE(op, vm, plug_nic, vm->uuid, &nic));
    return conclude(op, vm, r, ret);
}

int do_vif_unplug(struct op *op, const struct slave_vif_unplug_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    int r = take_guest(op, args->vm, args->epoch, &vm);

    if (r == 0)
        r = name_device(op, "VIF", args->device, DRIVE(op, vm, unplug_nic, vm->uuid, args->device, args->forced));
    return conclude(op, vm, r, ret);
}

/* ---- told to the master ---- */

uint32_t vm_devices_report(const struct vm *vm, struct arena *arena, struct value *items)
{
    const struct guest_devices *devices = devices_of(vm);
    const char *disks = "", *nics = "";

    if (!devices)
        return 0;
    for (int i = 0; i < devices->disk_count; i++) {
        const struct guest_disk *disk = &devices->disks[i];
        const char *slash = disk->path ? strrchr(disk->path, '/') : NULL;

        disks = arena_text(arena, "%s%s %s\n", disks, disk->device, slash ? slash + 1 : "");
    }
    for (int i = 0; i < devices->nic_count; i++)
        nics = arena_text(arena, "%s%s\n", nics, devices->nics[i].device);
    items[0] = value_text("disks");
    items[1] = value_text(disks);
    items[2] = value_text("nics");
    items[3] = value_text(nics);
    return VM_DEVICE_ITEMS;
}
