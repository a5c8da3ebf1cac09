/* guest_plug.c - disks and interfaces that a guest gets or gives up while it runs
 *
 * The guest has a device when it is in guest->devices: the list that every agent is told, from which its counters follow, and
 * whose writable disks it has open while it holds its lock. A guest has no drivers that would take their time, so a change is
 * complete at once; what a real one does is to be seen with sim-refuses-unplug. */
#include "shared/model.h"
#include "slave/guest.h"

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && streq(a, b));
}

/* Its files are open from its first run on, be it paused since. */
static bool has_files(const struct guest *guest)
{
    return guest->lock_fd >= 0 || guest->journal_fd >= 0 || guest->file_count > 0
           || guest->state == GUEST_RUNNING;
}

static int too_many(struct guest_error *error)
{
    return guest_fail(error, ERR_INVALID_DEVICE, "the guest has %d devices, which is all it takes",
                      GUEST_DEVICES_MAX);
}

int guest_plug_disk(struct guest *guest, const struct guest_disk *disk, struct guest_error *error)
{
    const struct guest_disk *there = guest_devices_disk(&guest->devices, disk->device);
    int r = 0;

    if (there && same_text(there->path, disk->path))
        return 0;
    if (there)
        return guest_fail(error, ERR_DEVICE_ALREADY_EXISTS, "%.60s", disk->device);
    if (!guest_devices_put_disk(&guest->devices, disk))
        return too_many(error);
    if (has_files(guest))
        r = guest_disks_open(guest, error);
    if (r < 0)
        guest_devices_drop_disk(&guest->devices, disk->device);
    return r;
}

static int refuse(const struct guest *guest, struct guest_error *error)
{
    return guest_fail(error, ERR_DEVICE_DETACH_REJECTED, "%s does not let the device go",
                      guest->name);
}

int guest_unplug_disk(struct guest *guest, const char *device, bool is_forced,
                      struct guest_error *error)
{
    if (!guest_devices_disk(&guest->devices, device))
        return 0;
    if (guest->options.refuses_unplug && !is_forced)
        return refuse(guest, error);
    guest_disk_close(guest, device);
    guest_devices_drop_disk(&guest->devices, device);
    return 0;
}

int guest_change_cd(struct guest *guest, const struct guest_disk *disk, struct guest_error *error)
{
    const struct guest_disk *there = guest_devices_disk(&guest->devices, disk->device);

    if (!there || !there->is_cd)
        return guest_fail(error, ERR_INVALID_DEVICE, "the guest has no CD drive %.60s",
                          disk->device);
    guest_devices_put_disk(&guest->devices, disk);
    return 0;
}

int guest_plug_nic(struct guest *guest, const struct guest_nic *nic, struct guest_error *error)
{
    const struct guest_nic *there = guest_devices_nic(&guest->devices, nic->device);

    if (there && same_text(there->bridge, nic->bridge) && same_text(there->mac, nic->mac))
        return 0;
    if (there)
        return guest_fail(error, ERR_DEVICE_ALREADY_EXISTS, "%.60s", nic->device);
    return guest_devices_put_nic(&guest->devices, nic) ? 0 : too_many(error);
}

int guest_unplug_nic(struct guest *guest, const char *device, bool is_forced,
                     struct guest_error *error)
{
    if (!guest_devices_nic(&guest->devices, device))
        return 0;
    if (guest->options.refuses_unplug && !is_forced)
        return refuse(guest, error);
    guest_devices_drop_nic(&guest->devices, device);
    return 0;
}
