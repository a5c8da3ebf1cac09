/* ova_write.h - VMs as the ova.xml of an export (wire.md section 20)
 *
 * The text is one XML-RPC value: {version, objects}, each object {class, id, snapshot}. The ids are
 * Ref:0, Ref:1 and so on in the order in which they are met, walking from the VMs; a reference to
 * what is not in the file is OpaqueRef:NULL, and is missing from sets and maps. The same pool gives
 * the same bytes each time. What belongs to one moment or to one pool is left out: operations under
 * way, import_task, blobs, what a host keeps; and, unless the power state is preserved, where and
 * how the VM runs.
 *
 * Everything is read from the view, so a pinned one can be written by a thread of its own
 * (workers.h), as it should be: a whole pool is many megabytes. */
#pragma once

#include "master/store.h"
#include "shared/buffer.h"

struct arena;

#define OVA_EXPORT_VSN 2
#define OVA_BYTES_MAX  (64u << 20) /* of one ova.xml: some 3,000 VMs */

struct ova_options {
    bool preserve_power_state; /* else all VMs are Halted, detached, without their suspend image */
    bool with_snapshots; /* of each VM, and how they hang together; a snapshot in vms[] is always
                            one */
    bool without_VIFs, without_VBDs;
    ref_t host; /* whose software_version the file names */
};

/* A disk whose contents follow ova.xml in the stream. */
struct ova_disk {
    ref_t vdi;
    const char *prefix; /* "Ref:7": its id, and where its blocks are in the archive */
};

/* Append the text to `out`, whose is_full tells that it did not fit.
 *
 *   vms         live VMs of the view; none twice
 *   ret_disks   in the order in which the stream has them, by the text of the prefix: all but those
 * in a CD drive or in an SR of ISOs. May be NULL. In the arena, as all that is made here. */
void ova_write(const struct view *, struct arena *, const ref_t *vms, size_t count,
               const struct ova_options *, struct buffer *out, struct ova_disk **ret_disks,
               size_t *ret_disk_count);
