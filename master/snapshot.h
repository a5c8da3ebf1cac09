/* snapshot.h - new disks from old ones, all of them as the old ones are at one moment
 *
 *     _cleanup_(snapshot_end) struct snapshot snapshot = {.call = call, .vm = vm, ...};
 *     r = snapshot_run(&snapshot);
 *
 * Where a running VM has the disks open, its host makes them, with the guest standing still for the
 * moment; otherwise nobody writes to them, and each is cloned by a host that sees its SR. In both
 * cases the VM, if there is one, and the disks are claimed; the new VDIs are hidden until one
 * transaction shows them all, with whatever `finish` adds to it; and whatever fails, nothing of
 * them remains. */
#pragma once

#include "master/claim.h"
#include "master/storage.h"

struct snapshot_disk {
    ref_t source, made;
    struct claim claim; /* on the source */
};

struct snapshot {
    /* the caller's */
    struct call *call;
    ref_t vm; /* whose disks they are, or who has the disk open; null: nobody has */
    enum vdi_operations operation; /* snapshot or clone: what the sources' claims show, and what an
                                      SR must be able to do */
    bool is_of_disk; /* one disk is the object, not the VM, which is claimed only while it runs */
    /* snapshot_add() for each disk; called under the claim, and perhaps once before. 0 or the
     * failure. */
    int (*choose)(struct snapshot *, const struct view *);
    /* What the new VDI's fields are besides its source's. */
    void (*draft)(struct snapshot *, struct object *draft, ref_t source);
    /* In the last transaction, in which the new disks are shown. 0, or the failure, before it has
     * changed anything. */
    int (*finish)(struct snapshot *, struct txn *);
    void *arg; /* for these three */

    /* snapshot.c's */
    struct snapshot_disk *list; /* DISKS_MAX of them, in the call's arena */
    int count;
    struct disks *disks; /* the new ones */
    struct claim claim;  /* on a VM that does not run */
    ref_t host;          /* where the guest runs, or null */
    int r;               /* of finish */
};

/* For `draft`: a snapshot of the source, of now. */
void vdi_draft_snapshot(struct snapshot *, struct object *draft, ref_t source);

/* A disk that is there already counts once. 0, or -ERR_INVALID_VALUE ["VBDs", count] when there are
 * too many. */
int snapshot_add(struct snapshot *, ref_t vdi);
/* The new disk of this one, or null. */
ref_t snapshot_made(const struct snapshot *, ref_t source);

/* 0, or the failure: of the claims (lifecycle.h), of the SR, of the host. */
int snapshot_run(struct snapshot *);

/* Releases everything; undoes what was not finished. */
void snapshot_end(struct snapshot *);
