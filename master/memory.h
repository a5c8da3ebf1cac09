/* memory.h - the memory a VM needs besides its own (wire.md section 12, "Memory accounting") */
#pragma once

#include "shared/model.h"

#define MIB (1024LL * 1024)

/* overhead MiB = extra (HVM 2, PV 1) + shadow + 38 pages per vCPU (+ shim for PV-in-PVH). */
int64_t memory_overhead_bytes(bool is_hvm, bool is_pv_in_pvh, int64_t static_max_bytes,
                              int64_t vcpus_max, double shadow_multiplier);
int64_t vm_memory_overhead_bytes(const struct object *vm);
/* What a start or arrival needs: dynamic_min (PV-in-PVH: static_max) + overhead. */
int64_t vm_memory_need_bytes(const struct object *vm);
bool vm_is_hvm(const struct object *vm);
