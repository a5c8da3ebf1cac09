/* limits.h - how large a client's number may be
 *
 * Far above what any machine has, and low enough that sums over all VMs of a pool, and products with their vCPUs, stay below
 * 2^63. What is beyond is answered INVALID_VALUE [field, value] (wire.md section 4). */
#pragma once

#define VCPUS_MAX             1024        /* of a VM; also what agents give a guest at most */
#define MEMORY_BYTES_MAX      (1ll << 46) /* of a VM: 64 TiB */
#define SHADOW_MULTIPLIER_MAX 1000.0
#define VDI_BYTES_MAX         (1ll << 46)
#define SR_BYTES_MAX          (1ll << 60)
#define MTU_MIN               68          /* what IPv4 needs at least; agents refuse less */
#define MTU_MAX               65535
