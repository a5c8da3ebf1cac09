/* transfer_parts.h - what transfers of VMs and of single disks share (http_transfer.h) */
#pragma once

#include "master/http_transfer.h"

struct claim;

/* Their clients wait so long for a VM or a disk that is busy (wire.md section 10). */
#define TRANSFER_WAIT_MS 120000

/* claim_begin() for a transfer: one that is busy is waited for so long and not longer. */
int transfer_claim(struct claim *, struct call *, const struct class *, ref_t, int operation);

/* A disk as transfers' slave calls name it: {sr, sr_type, sr_location, sr_marker, location, format, prefix}, in the call's
 * arena. For a disk that is claimed, or in the making: from then on its SR stays where it is. 0, -ERR_HANDLE_INVALID,
 * -ERR_SR_NOT_ATTACHED [sr] when the host has ceased to see it, -ERR_SR_OPERATION_NOT_SUPPORTED [sr] when its disks have no
 * contents. */
int transfer_disk(struct call *, ref_t vdi, ref_t host, const char *prefix, struct value *ret);

/* The SR that `sr_id` or `sr_uuid` names, else the default SR of the pool. 0, or the failure. */
int transfer_sr(struct call *, const struct view *, const struct value *params, const struct object **ret);
