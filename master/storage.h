/* storage.h - disks from the master's side: who can reach an SR, and disks in the making
 *
 * A disk is a file that a slave makes and a VDI that says so, and either could be left without the
 * other. So the VDI comes first, hidden (managed = false) and marked with the master's life that
 * makes it; then the file is made; then the VDI is shown, in the transaction that gives the file
 * its meaning:
 *
 *     _cleanup_(disks_undo) struct disks disks = {.call = call};
 *     txn ... disks_add(&disks, txn, draft)      commit       hidden VDIs, durable
 *     disk_make_empty / _clone / _copy                        files, one after the other
 *     txn ... disks_keep(&disks, txn)            commit       shown, with their sizes
 *
 * Whatever is not kept is undone: files removed, VDIs deleted. What a master that died left behind
 * is found by the mark and removed when all hosts that see the SR are back (storage_sweep); the mark
 * names the call, too, so that this does not happen while its INTENT says that a host may still be
 * at it. */
#pragma once

#include "master/handler.h"

/* ---- who reaches an SR ---- */

/* A live host with an attached PBD of the SR, the master's own if it has one. 0,
 * -ERR_SR_HAS_NO_PBDS [sr] when no host is attached, -ERR_HOST_OFFLINE [host] when none that is
 * lives. */
int storage_host(struct call *, ref_t sr, ref_t *ret_host);
/* One that sees both; -ERR_SR_NOT_ATTACHED [to_sr] when there is none. */
int storage_host_of_both(struct call *, ref_t sr, ref_t to_sr, ref_t *ret_host);
/* The SR as slave calls name it on that host: {uuid, type, location, marker}. 0, -ERR_HANDLE_INVALID,
 * -ERR_SR_NOT_ATTACHED [sr]. */
int storage_sr_map(struct call *, ref_t sr, ref_t host, struct value *ret);
/* In sm_config of an SR of type shared-file: its directory has a file by which each host knows it
 * (docs/storage.md). */
#define STORAGE_MARKER "directory-marker"
bool storage_has_marker(const struct object *sr);

/* storage_host() and the SR as it is there. */
int storage_host_map(struct call *, ref_t sr, ref_t *ret_host, struct value *ret);
struct value storage_sr_map_of(struct arena *, const struct object *sr,
                               const struct value *device_config);

/* Where an SR is on a host, as slave calls about disks name it: sr, sr_type, sr_location, sr_marker. Texts of the view's
 * objects; "" where there is no such SR, or the host has no PBD of it. */
struct storage_place {
    const char *uuid, *type, *location, *marker;
};
struct storage_place storage_place(const struct view *, ref_t sr, ref_t host);

/* The directory that a PBD's device_config names: "location", or as some drivers of xapi have it
 * "path"; "" for none. */
const char *storage_directory(const struct value *device_config);

const struct object *storage_pbd(const struct view *, ref_t sr, ref_t host); /* or NULL */
/* Does the host see the SR: is its PBD attached? */
bool storage_is_attached(const struct view *, ref_t sr, ref_t host);
bool storage_host_lives(const struct view *, ref_t host);
/* May the operation begin on the SR? Waits while the SR is busy; takes no claim. */
int storage_check_SR(struct call *, ref_t sr, enum storage_operations);

/* The VM whose running guest may write to the disk now; null when there is none. Control domains do not count: what is plugged
 * into one is opened by nobody yet. */
ref_t storage_writer(const struct view *, ref_t vdi);

/* Has the drive its disk open, or is it about to? Not so those of suspended VMs, which nobody runs. */
bool storage_is_open(const struct view *, const struct object *vbd);
/* Has another drive the disk that this drive is for, such that the two may not have it at once? A drive has its disk while it is
 * attached - but for those of suspended VMs - and while it is reserved: a guest is about to get it, or it is not known yet whether
 * it did. */
bool storage_is_taken(const struct view *, const struct object *vbd, const struct object *vdi);

/* May drives have the disk: is it managed, and not in the making? */
bool storage_is_shown(const struct object *vdi);
/* What keeps a drive of that mode from getting the disk, of what is under way on it: tag and operation, or NULL. Of what copies
 * and exports read nobody may have more than they: who writes waits. */
const struct value *storage_busy_for(const struct object *vdi, enum vbd_mode);
/* Has any drive the disk, or is about to get it, such that a guest may write? As storage_is_taken() has it. */
bool storage_is_written(const struct view *, const struct object *vdi);
/* One of its drives that is being plugged, unplugged or changed; null when there is none. */
ref_t storage_changing_drive(const struct view *, ref_t vdi);

/* "raw" or "qcow2": VDI.sm_config["image-format"], else by the file's name. */
const char *storage_disk_format(const struct object *vdi);

/* ---- the SR's sums ---- */

/* Ask the SR for its size and use, from that host, and store them; failures are ignored, since the
 * next change asks anew. */
void storage_refresh(struct call *, ref_t sr, ref_t host);
/* The same behind the call, which does not wait: whether that disk answers is nothing to whoever has done its work. One at a time
 * asks an SR, and once more when this was called meanwhile. */
void storage_refresh_later(struct call *, ref_t sr, ref_t host);
/* An SR's sums follow its VDIs. */
void storage_count(struct txn *, ref_t sr, int64_t virtual_bytes, int64_t physical_bytes);
/* Deletes a VDI: its disk VBDs go with it, CD drives become empty. The SR's sums follow. */
void storage_drop_vdi(struct txn *, ref_t vdi);

/* ---- disks in the making ---- */

#define DISKS_MAX 256 /* more than a VM can have drives */

struct made_disk {
    ref_t vdi, sr;
    ref_t host;           /* where it was made, or is being made; null before */
    const char *location; /* file name in the SR */
    const char *format;
    int64_t virtual_size, physical_utilisation;
    bool is_made;         /* the host has said so */
};

struct disks {
    struct call *call;
    struct made_disk list[DISKS_MAX];
    int count;
    bool is_kept;
};

/* Heap, since a fiber's stack is small: _cleanup_(disks_undo) struct disks *disks =
 * disks_new(call); */
struct disks *disks_new(struct call *);
/* A draft from another disk's record: what belongs to that one only is as in a new one, of its being
 * a snapshot, too. */
struct object *vdi_draft_copy(struct call *, const struct object *vdi);
/* A hidden VDI from the draft, whose SR and virtual_size are set; returns its ref. */
ref_t disks_add(struct disks *, struct txn *, struct object *draft);
/* The disk's file. 0 or the slave's error. */
int disk_make_empty(struct disks *, ref_t vdi);
int disk_make_clone(struct disks *, ref_t vdi, ref_t source);
int disk_make_copy(struct disks *, ref_t vdi, ref_t source);
/* Made by another call: what the host says of the file. */
void disks_made(struct disks *, ref_t vdi, const struct value *answer);
/* Are all hidden VDIs still there? 0, or -ERR_HANDLE_INVALID. */
int disks_check(struct disks *, struct txn *);
/* All disks are shown from this transaction on. 0, or -ERR_HANDLE_INVALID when one has vanished
 * meanwhile. */
int disks_keep(struct disks *, struct txn *);
/* A host is making or filling them, and it is not known what becomes of that: nothing is undone here. They are swept when the INTENT
 * of the call has been settled, or the transfer that fills them is over. In a transaction of its own. */
void disks_leave(struct disks *);
/* Is a call of this master making the disk now? */
bool storage_is_being_made(struct call *, const struct object *vdi);
/* Removes what was not kept; frees. */
void disks_undo(struct disks **);

/* Remove the file and the VDI. The caller holds the claim. 0 or the slave's error; then the VDI
 * stays. */
int disk_remove(struct call *, ref_t vdi);

/* When the store is loaded: counts what earlier masters left half made. */
void storage_start(struct core *);
/* After a host's storage is up: remove what was left half made on SRs that this host sees, if all
 * that see them are back or declared dead. */
void storage_sweep(struct call *, ref_t host);
