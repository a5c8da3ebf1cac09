/* guest_devices.h - the disks and interfaces of a guest, as a list that owns its texts, and its form in messages between
 * driver and guests process
 *
 * A device is found by its class and its number as text: disk "0" and interface "0" are two. */
#pragma once

#include "slave/guest_link.h"
#include "slave/hypervisor.h"

#define GUEST_DEVICES_MAX 512 /* of a class in one guest; the API has 255 */

void guest_devices_done(struct guest_devices *); /* empties it */

/* NULL: there is none. Good until the list changes. */
struct guest_disk *guest_devices_disk(const struct guest_devices *, const char *device);
struct guest_nic *guest_devices_nic(const struct guest_devices *, const char *device);

/* Copies. One of the same name is replaced; false when there are GUEST_DEVICES_MAX already. */
bool guest_devices_put_disk(struct guest_devices *, const struct guest_disk *);
bool guest_devices_put_nic(struct guest_devices *, const struct guest_nic *);
/* False when there was none. */
bool guest_devices_drop_disk(struct guest_devices *, const char *device);
bool guest_devices_drop_nic(struct guest_devices *, const char *device);

/* Two keys of a message, "disks" and "nics": arrays of [device, path, format, is_read_only, is_cd] and of [device, mac,
 * bridge, mtu]; an empty path is none. */
void guest_devices_pack(struct guest_frame *, const struct guest_devices *);
/* False, and an empty list, when the message does not tell of devices, or not in this form. */
bool guest_devices_unpack(const struct guest_message *, struct guest_devices *ret);
