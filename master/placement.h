/* placement.h - which host a VM fits on, and how to empty a host: pure functions, tested from files
 * (tests/plan) */
#pragma once

#include "master/room.h"

struct random;

/* What a VM needs. */
struct placement_vm {
    ref_t vm;
    int64_t need_bytes;                          /* dynamic_min + overhead: must fit */
    int64_t static_max_bytes, dynamic_max_bytes; /* + overhead: fits better */
    ref_t affinity;                              /* null: none */
};

/* May this host take the VM at all, memory aside (SRs, networks, versions, HVM)? Asked for hosts in
 * the order in which they would be chosen, so that few are asked. */
typedef bool (*placement_allows)(void *arg, ref_t host);

/* The order of wire.md section 12: affinity; where all static_max fit; where all dynamic_max fit;
 * by ballooning only. Random inside a category, the first two biased away from the master. Null
 * when none fits. */
ref_t placement_choose(const struct room_host *hosts, int count, ref_t master,
                       const struct placement_vm *, placement_allows, void *arg, struct random *);

/* Empty a host: a destination for each VM, the biggest first, each to the host with most room left.
 * Writes null where none fits; returns the number without a place. */
int placement_evacuate(const struct room_host *hosts, int count, ref_t leaving,
                       const struct placement_vm *vms, int vm_count,
                       bool (*allows)(void *arg, ref_t vm, ref_t host), void *arg,
                       ref_t *ret_destinations);
