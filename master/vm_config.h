/* vm_config.h - a VM's record as the agents want it: the arguments config, disks, nics and image of
 * slave_calls.def */
#pragma once

#include "master/call.h"
#include "master/store.h"

/* What a host is told to build a guest from. All of it is in the call's arena. */
struct vm_config {
    const char *uuid;
    struct value config, disks, nics;
};

/* For a guest that is to run on this host, which sees its SRs: one that goes on - resumed, or moved - has the devices that it
 * has had plugged; one that boots has all interfaces of the VM, and also the drives that were reserved for that. */
enum vm_devices { DEVICES_AT_BOOT, DEVICES_ATTACHED };
void vm_config(struct call *, const struct view *, ref_t vm, ref_t host, enum vm_devices devices,
               struct vm_config *ret);

/* One drive with this disk in it (null: nothing), and one interface on this network. */
struct value vm_disk(struct call *, const struct view *, const struct object *vbd, ref_t vdi,
                     ref_t host);
struct value vm_nic(struct call *, const struct view *, const struct object *vif, ref_t network);

/* The image of a suspended guest: where its VDI is on this host. */
struct value vm_image(struct call *, const struct view *, ref_t vdi, ref_t host);

/* An SR as this host sees it: {uuid, type, location, marker}. */
struct value vm_sr(struct call *, const struct view *, ref_t sr, ref_t host);

/* The number a userdevice means: "3", "xvdd", "hdd", "sda"; -1 for another text. */
#define VBD_DEVICES_MAX 255 /* "0" to "254" */
int vbd_device_number(const char *userdevice);
/* What the guest calls the device: xvda, or hda for the first disks of an HVM guest. Into a buffer;
 * returns it. */
#define VBD_DEVICE_BYTES 16
const char *vbd_device(char out[VBD_DEVICE_BYTES], const struct object *vbd, bool is_hvm);
