/* vhd_write.h - a disk as a VHD file, in one forward pass
 *
 * Which blocks the file will have is found first, so its length is known before its first byte. With a base the file is a
 * differencing disk, which has only the blocks that differ from the base.
 *
 *     vhd_plan_make(&plan, disk, uuid, now, base, text);
 *     ... Content-Length: vhd_stream_bytes(plan) ...
 *     vhd_write(plan, sink, figures);
 *
 * The same disk, uuid and time make the same bytes. Blocks: for a transfer's own thread. */
#pragma once

#include "shared/ref.h"
#include "slave/disk_io.h"
#include "slave/stream.h"

struct vhd_plan;

/* What a differencing disk is based on. */
struct vhd_base {
    struct disk_io *disk; /* lives until the plan is made */
    ref_t uuid;           /* by which a reader knows it; its file is called <uuid>.vhd */
    int64_t made_utc;     /* s */
};

/* Find out which blocks hold data, or with a base (else NULL) differ, for which both disks are read. The disk lives and
 * stands still until the plan is gone. 0; -EFBIG: larger than VHD_BYTES_MAX, which is XenAPI's VDI_TOO_LARGE; or a negative
 * errno of the disks. ret_text says what was wrong, for people. */
int vhd_plan_make(struct vhd_plan **ret, struct disk_io *disk, ref_t uuid, int64_t made_utc, const struct vhd_base *base,
                  char ret_text[DISK_IO_TEXT_BYTES]);
void vhd_plan_destroy(struct vhd_plan **);

/* Length of the file. */
int64_t vhd_stream_bytes(const struct vhd_plan *);

/* 0 or a negative errno, of the disk or the sink. figures may be NULL; the disk counts as a whole, holes too. */
int vhd_write(struct vhd_plan *, struct sink *, struct transfer_figures *figures);
