/* enrol.h - what a pool has from its first start, and how hosts come into it
 *
 *   pool_furnish      storage drivers, the default network, the built-in templates         each
 * start of the master host_enrol        a new host's records in one transaction: host, metrics,
 * CPUs, control domain, PIF, local SR, PBDs host_welcome      its storage attached by slave calls,
 * then enabled                     each hello, in a fiber
 *
 * What a host tells of itself is a string map; all keys are optional:
 *   name, address, memory_bytes, cpus, cpu_vendor, cpu_model, cpu_mhz, cpu_flags, version (of
 * Drover), kernel, hypervisor ("sim", "qemu"), storage (directory for its local SR) */
#pragma once

#include "master/core.h"
#include "shared/value.h"

/* After the store is loaded and the pool object stands, outside of fibers: nothing is waited for.
 * Sets core->pool. */
void pool_furnish(struct core *);

/* The host of this uuid: made, or brought up to date with what it tells. `key` is its public CURVE
 * key. The records are durable when the returned generation is visible. In or outside of fibers. */
ref_t host_enrol(struct core *, ref_t uuid, const char *key, const struct value *about,
                 uint64_t *ret_generation);

/* A host that is enrolled said hello: its PBDs are plugged, disks that a dead master left half made
 * are removed. A host whose agent has started since the last welcome is enabled when its storage is
 * up, unless its other_config says HOST_STAYS_DISABLED (wire.md sections 13, 14). `agent_start` is
 * the number of that start. From a fiber; logs what fails. */
void host_welcome(struct core *, ref_t host, uint64_t agent_start);

/* The key in other_config of a host that a user disabled until he enables it, even if it starts
 * meanwhile: host.disable with auto_enable = false. */
#define HOST_STAYS_DISABLED "drover_disabled_by_user"
