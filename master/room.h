/* room.h - how full each host is, kept up to date change by change
 *
 * Memory by the formulas of wire.md section 12: free = memory_total - memory_overhead - sum over
 * VMs with resident_on or scheduled_to_be_resident_on = host of (memory_dynamic_min +
 * memory_overhead). A start looks at every host, so the sums are not made anew each time: room is a
 * sink of the store that sees every change of the core before anything else runs. A reservation is
 * nothing but scheduled_to_be_resident_on, so room is free exactly when that is cleared. */
#pragma once

#include "master/store.h"

struct room;

struct room_host {
    ref_t host;
    bool is_enabled, is_live;
    int64_t memory_total_bytes, memory_overhead_bytes;
    int64_t committed_bytes;  /* dynamic_min + overhead of residents and arrivals */
    int64_t static_max_bytes; /* their static_max + overhead: for the first category of placement */
    int64_t dynamic_max_bytes;
    int vms;   /* residents and arrivals, control domains not counted */
    int cpus;  /* physical CPUs */
    int vcpus; /* VCPUs_at_startup of residents and arrivals */
};

/* Registers with the store and counts what is there. Destroyed after the last transaction. */
struct room *room_new(struct store *);
void room_destroy(struct room **);

/* All hosts, in order of refs; good until the next transaction. */
const struct room_host *room_hosts(const struct room *, int *ret_count);
const struct room_host *room_host(const struct room *, ref_t host); /* NULL: unknown */
static inline int64_t room_free_bytes(const struct room_host *host)
{
    return host->memory_total_bytes - host->memory_overhead_bytes - host->committed_bytes;
}
