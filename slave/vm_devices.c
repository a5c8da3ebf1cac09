/* vm_devices.c - disks and network interfaces of a guest that runs
 *
 * No driver has a function for these yet: a simulated guest has no use for its devices, so what is checked here is all that
 * happens - the right to the VM, that its guest is there, the file, and the owner record that a writable disk gets before
 * anything may open it. Disks that were plugged later are remembered with the others, for the next host that takes over. */
#include <stdio.h>
#include <string.h>

#include "slave/storage.h"
#include "slave/vms.h"

/* With the lock: the right is this one, and the guest is there. */
static int check_guest(struct op *op, const struct vm *vm, int64_t epoch)
{
    int r = vm_check_epoch(op, vm, epoch);

    if (r == 0 && ((vm->state != GUEST_RUNNING && vm->state != GUEST_PAUSED) || vm->sending))
        r = vm_bad_state(op, vm, "running");
    return r;
}

/* The file that a map names; NULL for an empty drive or a dummy SR. */
static int disk_path(struct op *op, const struct value *disk, const char **ret_path)
{
    const char *sr = value_map_text(disk, "sr_location", ""), *location = value_map_text(disk, "location", "");

    *ret_path = NULL;
    if (streq(value_map_text(disk, "sr_type", "file"), "dummy")
        || (!location[0] && streq(value_map_text(disk, "type", "Disk"), "CD")))
        return 0;
    if (sr[0] != '/' || !storage_name_is_good(location))
        return op_fail(op, VDI_LOCATION_MISSING, value_map_text(disk, "sr", ""), location);
    *ret_path = op_text(op, "%s/%s", sr, location);
    return 0;
}

static bool is_writable(const struct value *disk)
{
    return streq(value_map_text(disk, "mode", "RW"), "RW") && !streq(value_map_text(disk, "type", "Disk"), "CD");
}

int do_vbd_plug(struct op *op, const struct slave_vbd_plug_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *locked = NULL;
    struct vm *vm = vm_named(op, args->vm);
    const char *path, *line;
    struct ledger_vm row;
    int r;

    if (!vm || disk_path(op, args->disk, &path) < 0)
        return -op->failure.code;
    locked = vm_locked(vm);
    r = check_guest(op, vm, args->epoch);
    if (r < 0)
        return r;
    if (path && is_writable(args->disk)) {
        line = op_text(op, "%s\n", path);
        r = owner_take(op, line, (uint64_t) args->epoch, (uint64_t) args->epoch);
        if (r < 0)
            return r;
        row = vm_row(vm);
        if (!strstr(row.disks ? row.disks : "", line)) {
            row.disks = (char *) op_text(op, "%s%s", row.disks ? row.disks : "", line);
            ledger_put_vm(op->agent->ledger, &row);
        }
    }
    *ret = vm_answer(op, vm);
    return 0;
}

/* What needs nothing but a guest with this right. */
static int check_only(struct op *op, const char *uuid, int64_t epoch, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *locked = NULL;
    struct vm *vm = vm_named(op, uuid);
    int r;

    if (!vm)
        return -op->failure.code;
    locked = vm_locked(vm);
    r = check_guest(op, vm, epoch);
    if (r == 0)
        *ret = vm_answer(op, vm);
    return r;
}

int do_vbd_unplug(struct op *op, const struct slave_vbd_unplug_args *args, struct value *ret)
{
    return check_only(op, args->vm, args->epoch, ret);
}

int do_cd_change(struct op *op, const struct slave_cd_change_args *args, struct value *ret)
{
    const char *path;
    int r = disk_path(op, args->disk, &path);

    return r < 0 ? r : check_only(op, args->vm, args->epoch, ret);
}

int do_vif_plug(struct op *op, const struct slave_vif_plug_args *args, struct value *ret)
{
    return check_only(op, args->vm, args->epoch, ret);
}

int do_vif_unplug(struct op *op, const struct slave_vif_unplug_args *args, struct value *ret)
{
    return check_only(op, args->vm, args->epoch, ret);
}
