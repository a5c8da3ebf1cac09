/* ova_import.h - from what ova.xml says to objects of this pool (wire.md section 20)
 *
 *      txn = store_begin()
 *      ova_import_decide(call, txn_view(txn), plan, options, &import)    what is matched, what is
 * made; may fail for each of import->disks: disk.vdi = disks_add(disks, txn, disk.draft)      (not
 * of metadata alone) ova_import_create(import, txn)                                    may fail:
 * then the caller rolls back call_commit()                                                     all
 * of it exists, or nothing
 *
 * Metadata alone is then imported; its disks exist already. Otherwise the contents follow, the VMs
 * claimed (`import`) until ova_import_done(), in the transaction that shows the disks, or until
 * ova_import_undo(), when something failed. */
#pragma once

#include "master/claim.h"
#include "master/handler.h"
#include "master/network.h"
#include "master/ova_read.h"

struct ova_import_options {
    bool is_restore;  /* keep the VMs' uuids and MAC addresses; a VM that exists is an error */
    bool is_forced;   /* leave out what misses its disk instead of failing */
    bool is_metadata; /* no disks follow: they are found by their uuids */
    ref_t sr;         /* for new disks; null: the pool's default_SR */
    const struct value
        *vdi_map; /* metadata: uuid in the file -> uuid here; NULL: they are the same */
};

/* A disk to be made, in the order in which the stream has them. */
struct ova_new_disk {
    const char *id;       /* in the file: the prefix of its blocks */
    struct object *draft; /* for disks_add(), which changes it */
    int64_t virtual_size; /* bytes */
    ref_t vdi;            /* the caller's to fill in, before ova_import_create() */
    size_t number;        /* among the file's objects */
};

struct ova_import {
    struct call *call;
    const struct ova_plan *plan;
    struct ova_import_options options;
    struct ova_new_disk *disks;
    int disk_count;
    struct fate *fates; /* of each object of the file: ova_import.c's */
    struct claim *claims; /* of the VMs, while their disks have no contents yet */
    size_t claim_count;
    struct bridges bridges; /* while networks are made */
};

/* Decide; nothing is changed. Everything is in the call's arena. 0 or a negative error:
 *
 *   -ERR_DUPLICATE_VM [existing, uuid]                    restore, and the VM is there
 *   -ERR_IMPORT_ERROR_FAILED_TO_FIND_OBJECT [id or uuid]  something needed is in the file or here
 * no more -ERR_DEFAULT_SR_NOT_FOUND [sr], -ERR_SR_OPERATION_NOT_SUPPORTED [sr], -ERR_HANDLE_INVALID
 * ["SR", sr] what VM.create says of memory limits, VCPUs and platform; -ERR_IMPORT_ERROR [text] for
 * what hangs together in no sensible way */
int ova_import_decide(struct call *, const struct view *, const struct ova_plan *,
                      const struct ova_import_options *, struct ova_import **ret);

/* Make networks, VMs, drives and interfaces; the task's other_config says so. 0 or what VBD.create
 * and VIF.create say: devices, MAC addresses. */
int ova_import_create(struct ova_import *, struct txn *);

/* The VMs, snapshots only when there is nothing else: the task's result. In the call's arena. */
struct value ova_import_result(const struct ova_import *);

/* A line in the log for each of these: what was in the file is known from here on. The view is the
 * transaction's that has made them. */
void ova_import_log(const struct ova_import *, const struct view *);

/* The contents are there: the VMs are free. */
void ova_import_done(struct ova_import *, struct txn *);
/* They are not: delete again what was created. Disks are the caller's (disks_undo). */
void ova_import_undo(struct ova_import *, struct txn *);
/* What was created, for an INTENT: a map of texts, in the call's arena. */
struct value ova_import_made(const struct ova_import *);
/* ova_import_undo() by a later master, which has that map only. */
void ova_import_delete(struct txn *, const struct value *made);
