/* attached.c - which devices a running VM has, as its host tells it, against its VBDs and VIFs */
#include "master/attached.h"

#include <stdio.h>

#include "master/memory.h"
#include "master/put.h"
#include "master/vm_config.h"
#include "shared/log.h"

#define NAME_BYTES_MAX 256 /* NAME_MAX of file systems, and its end */

#define VM_INVERSE(name) (&CLASS_OF(VM)->fields[F_VM_##name])

/* The rest of the line of this device: a file name, perhaps empty. False: there is none. */
static bool find_device(const char *lines, const char *device, char ret_name[NAME_BYTES_MAX])
{
    size_t length = strlen(device);
    const char *end;

    for (const char *line = lines; (end = strchr(line, '\n')); line = end + 1) {
        const char *name = line + length;

        if (strncmp(line, device, length) != 0 || (*name != ' ' && *name != '\n'))
            continue;
        name += *name == ' ';
        snprintf(ret_name, NAME_BYTES_MAX, "%.*s", (int) (end - name), name);
        return true;
    }
    return false;
}

/* What is in a CD drive, by the records. */
static const char *location_in(const struct view *view, const struct object *vbd)
{
    const struct object *vdi = VBD_get_empty(vbd) ? NULL : view_get(view, VDI, VBD_get_VDI(vbd));

    return vdi ? VDI_get_location(vdi) : "";
}

static bool vbd_agrees(const struct view *view, const struct object *vbd, const char *disks)
{
    char name[NAME_BYTES_MAX];
    bool is_there = find_device(disks, VBD_get_userdevice(vbd), name);

    if (VBD_get_current_operations(vbd)->length > 0)
        return true;
    if (VBD_get_currently_attached(vbd) != is_there || VBD_get_reserved(vbd))
        return false; /* reserved: a plug in doubt */
    return !is_there || VBD_get_type(vbd) != vbd_type_CD || streq(name, location_in(view, vbd));
}

static bool vif_agrees(const struct object *vif, const char *nics)
{
    char name[NAME_BYTES_MAX];

    return VIF_get_current_operations(vif)->length > 0
           || VIF_get_currently_attached(vif) == find_device(nics, VIF_get_device(vif), name);
}

bool attached_agree(const struct view *view, ref_t vm, const char *disks, const char *nics)
{
    const struct object *device;
    struct view_iter devices;

    if (!disks || !nics)
        return true;
    view_each_inverse(&devices, view, VM_INVERSE(VBDs), vm);
    while ((device = view_next(&devices)))
        if (!vbd_agrees(view, device, disks))
            return false;
    view_each_inverse(&devices, view, VM_INVERSE(VIFs), vm);
    while ((device = view_next(&devices)))
        if (!vif_agrees(device, nics))
            return false;
    return true;
}

/* A disk of this file name; all are looked at, which is seldom. */
static const struct object *vdi_at(const struct view *view, const char *location)
{
    const struct object *vdi;
    struct view_iter all;

    view_each(&all, view, CLASS_OF(VDI));
    while ((vdi = view_next(&all)))
        if (streq(VDI_get_location(vdi), location))
            return vdi;
    return NULL;
}

static void put_vbd(struct txn *txn, ref_t vbd_ref, bool is_hvm, const char *disks)
{
    const struct object *vbd = txn_get(txn, VBD, vbd_ref), *vdi;
    char name[NAME_BYTES_MAX], device[VBD_DEVICE_BYTES];
    bool is_there = find_device(disks, VBD_get_userdevice(vbd), name);

    VBD_put_currently_attached(txn, vbd_ref, is_there);
    VBD_put_reserved(txn, vbd_ref, false);
    VBD_put_device(txn, vbd_ref, is_there ? vbd_device(device, vbd, is_hvm) : "");
    if (!is_there || VBD_get_type(vbd) != vbd_type_CD || streq(name, location_in(txn_view(txn), vbd)))
        return;
    vdi = *name ? vdi_at(txn_view(txn), name) : NULL;
    VBD_put_VDI(txn, vbd_ref, vdi ? vdi->ref : NULL_REF);
    VBD_put_empty(txn, vbd_ref, !vdi);
}

void attached_put(struct txn *txn, ref_t vm, const char *disks, const char *nics)
{
    bool is_hvm = vm_is_hvm(txn_get(txn, VM, vm));
    const struct object *device;
    struct view_iter devices;
    char name[NAME_BYTES_MAX];

    if (!disks || !nics)
        return;
    /* Changing what an index gives while walking it is fine: an iterator goes on behind the key it
     * gave last. */
    view_each_inverse(&devices, txn_view(txn), VM_INVERSE(VBDs), vm);
    while ((device = view_next(&devices))) {
        if (vbd_agrees(txn_view(txn), device, disks))
            continue;
        log_info(NULL, "VBD %s: the guest has it otherwise than the record; believed",
                 VBD_get_uuid(device));
        put_vbd(txn, device->ref, is_hvm, disks);
    }
    view_each_inverse(&devices, txn_view(txn), VM_INVERSE(VIFs), vm);
    while ((device = view_next(&devices))) {
        if (vif_agrees(device, nics))
            continue;
        log_info(NULL, "VIF %s: the guest has it otherwise than the record; believed",
                 VIF_get_uuid(device));
        VIF_put_currently_attached(txn, device->ref,
                                   find_device(nics, VIF_get_device(device), name));
    }
}
