/* placement.c - which host a VM fits on, and how to empty a host
 *
 * Choosing is two steps, so that the expensive question (does the host see every SR and network of
 * the VM?) is asked for few hosts: first the hosts are sorted into the categories of wire.md
 * section 12 by figures alone, then they are tried in order, at random inside a category, until one
 * allows the VM. */
#include "master/placement.h"

#include "shared/random.h"

enum category { FITS_STATIC_MAX, FITS_DYNAMIC_MAX, FITS_BALLOONED, FITS_NOT };

static enum category category_of(const struct room_host *host, const struct placement_vm *vm)
{
    int64_t space = host->memory_total_bytes - host->memory_overhead_bytes;

    if (!host->is_enabled || !host->is_live || host->committed_bytes + vm->need_bytes > space)
        return FITS_NOT;
    if (host->static_max_bytes + vm->static_max_bytes <= space)
        return FITS_STATIC_MAX;
    if (host->dynamic_max_bytes + vm->dynamic_max_bytes <= space)
        return FITS_DYNAMIC_MAX;
    return FITS_BALLOONED;
}

ref_t placement_choose(const struct room_host *hosts, int count, ref_t master,
                       const struct placement_vm *vm, placement_allows allows, void *arg,
                       struct random *random)
{
    _cleanup_(free_p) int *order = new0_array(int, count);

    if (!ref_is_null(vm->affinity)) {
        for (int i = 0; i < count; i++)
            if (ref_equal(hosts[i].host, vm->affinity) && category_of(&hosts[i], vm) != FITS_NOT
                && allows(arg, hosts[i].host))
                return hosts[i].host;
    }
    for (enum category category = FITS_STATIC_MAX; category < FITS_NOT; category++) {
        int candidates = 0, master_at = -1;

        for (int i = 0; i < count; i++)
            if (category_of(&hosts[i], vm) == category)
                order[candidates++] = i;
        /* A random order, in place; the master last where there is room enough to prefer others. */
        for (int i = candidates - 1; i > 0; i--) {
            int j = (int) random_below(random, (uint64_t) i + 1);
            int swap = order[i];

            order[i] = order[j];
            order[j] = swap;
        }
        for (int i = 0; i < candidates; i++)
            if (ref_equal(hosts[order[i]].host, master))
                master_at = i;
        if (master_at >= 0 && category != FITS_BALLOONED) {
            int swap = order[candidates - 1];

            order[candidates - 1] = order[master_at];
            order[master_at] = swap;
        }
        for (int i = 0; i < candidates; i++)
            if (allows(arg, hosts[order[i]].host))
                return hosts[order[i]].host;
    }
    return NULL_REF;
}

static int by_need(const void *a, const void *b)
{
    const struct placement_vm *left = *(const struct placement_vm *const *) a;
    const struct placement_vm *right = *(const struct placement_vm *const *) b;

    if (left->need_bytes != right->need_bytes)
        return left->need_bytes > right->need_bytes ? -1 : 1;
    return ref_compare(left->vm, right->vm);
}

int placement_evacuate(const struct room_host *hosts, int count, ref_t leaving,
                       const struct placement_vm *vms, int vm_count,
                       bool (*allows)(void *arg, ref_t vm, ref_t host), void *arg,
                       ref_t *ret_destinations)
{
    _cleanup_(free_p) const struct placement_vm **order =
        new0_array(const struct placement_vm *, vm_count);
    _cleanup_(free_p) int64_t *free_bytes = new0_array(int64_t, count);
    int without = 0;

    for (int i = 0; i < count; i++)
        free_bytes[i] =
            hosts[i].is_enabled && hosts[i].is_live && !ref_equal(hosts[i].host, leaving)
                ? room_free_bytes(&hosts[i])
                : -1;
    for (int i = 0; i < vm_count; i++)
        order[i] = &vms[i];
    qsort(order, (size_t) vm_count, sizeof *order, by_need);

    for (int i = 0; i < vm_count; i++) {
        const struct placement_vm *vm = order[i];
        int best = -1;

        /* The host with the most room left takes it: that spreads the load and keeps room for a big
         * one. */
        for (int h = 0; h < count; h++)
            if (free_bytes[h] >= vm->need_bytes && (best < 0 || free_bytes[h] > free_bytes[best])
                && allows(arg, vm->vm, hosts[h].host))
                best = h;
        ret_destinations[vm - vms] = best < 0 ? NULL_REF : hosts[best].host;
        if (best < 0)
            without++;
        else
            free_bytes[best] -= vm->need_bytes;
    }
    return without;
}
