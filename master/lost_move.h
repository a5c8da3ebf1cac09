/* lost_move.h - a guest that was sent for a move which the records do not know of */
#pragma once

#include "shared/ref.h"

struct core;

/* The host has the VM, at the model's epoch, sent and standing since; no INTENT names the move. In a fiber: it runs on there as
 * soon as every other host has confirmed that the copy is gone. */
void lost_move_undo(struct core *, ref_t source, ref_t vm_uuid, uint64_t epoch, const char *move);
