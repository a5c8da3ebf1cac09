/* qcow2_write.h - a disk as a qcow2 file, in one forward pass
 *
 *     header, refcounts, L1 table, L2 tables, data clusters in the disk's order
 *
 * QEMU writes such files as the data comes, with tables in between. Here it is known beforehand which clusters hold data,
 * so all tables come first, nothing is written twice, and the length is known before the first byte:
 *
 *     qcow2_plan_make(&plan, disk, base, text);
 *     ... Content-Length: qcow2_stream_bytes(plan) ...
 *     qcow2_write(plan, sink, figures);
 *
 * With a base the file has only the clusters that differ from it, and names <uuid>.qcow2 as what it rests on. The same
 * disk makes the same bytes. Blocks: for a transfer's own thread.
 * Source: QEMU, docs/interop/qcow2.txt, version 3. */
#pragma once

#include "shared/ref.h"
#include "slave/disk_io.h"
#include "slave/stream.h"

struct qcow2_plan;

/* What a file of differences rests on. */
struct qcow2_base {
    struct disk_io *disk; /* lives until the plan is made */
    ref_t uuid;           /* its file is called <uuid>.qcow2 */
};

/* Find out which clusters hold data, or with a base (else NULL) differ, for which both disks are read. The disk lives and
 * stands still until the plan is gone. 0 or a negative errno of the disks. */
int qcow2_plan_make(struct qcow2_plan **ret, struct disk_io *disk, const struct qcow2_base *base);
void qcow2_plan_destroy(struct qcow2_plan **);

/* Length of the file. */
int64_t qcow2_stream_bytes(const struct qcow2_plan *);

/* 0 or a negative errno, of the disk or the sink. figures may be NULL; the disk counts as a whole, holes too. */
int qcow2_write(struct qcow2_plan *, struct sink *, struct transfer_figures *figures);
