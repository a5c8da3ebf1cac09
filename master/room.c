/* room.c - how full each host is, kept up to date change by change
 *
 * Each VM that a host counts has a share: what it adds, and to which hosts. A change of the VM takes the old share off and
 * puts the new one on; a VM that is at home nowhere has none. A change of a host or of its metrics reads that host's own
 * figures anew. A host that comes later than VMs which name it counts them once, when it comes. */
#include "master/room.h"

#include "master/memory.h"
#include "shared/refmap.h"

struct share {
    ref_t hosts[2]; /* resident_on and scheduled_to_be_resident_on; null when there is none or both are the same */
    int64_t need_bytes, static_max_bytes, dynamic_max_bytes;
    int vcpus, vms;
};

struct room {
    struct store_sink sink;
    struct store *store;
    struct room_host *hosts; /* sorted by ref */
    int count, capacity;
    struct refmap shares;    /* of struct share, by VM */
    struct refmap metrics;   /* host_metrics -> ref_t of the host */
};

/* ---- hosts ---- */

/* The place of the host, or where it would be. */
static int place_of(const struct room *room, ref_t host)
{
    int low = 0, high = room->count;

    while (low < high) {
        int middle = (low + high) / 2;

        if (ref_compare(room->hosts[middle].host, host) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct room_host *find(const struct room *room, ref_t host)
{
    int place = place_of(room, host);

    return place < room->count && ref_equal(room->hosts[place].host, host) ? &room->hosts[place] : NULL;
}

static void count_share(struct room_host *host, const struct share *share, int sign)
{
    host->committed_bytes += sign * share->need_bytes;
    host->static_max_bytes += sign * share->static_max_bytes;
    host->dynamic_max_bytes += sign * share->dynamic_max_bytes;
    host->vcpus += sign * share->vcpus;
    host->vms += sign * share->vms;
}

static struct room_host *host_add(struct room *room, ref_t ref)
{
    int place = place_of(room, ref);
    void *share;

    if (room->count == room->capacity) {
        room->capacity = room->capacity ? 2 * room->capacity : 16;
        room->hosts = realloc_array(room->hosts, (size_t) room->capacity, sizeof room->hosts[0]);
    }
    memmove(&room->hosts[place + 1], &room->hosts[place],
            (size_t) (room->count++ - place) * sizeof room->hosts[0]);
    room->hosts[place] = (struct room_host){.host = ref};
    for (size_t i = 0; refmap_each(&room->shares, &i, NULL, &share);)
        for (int j = 0; j < 2; j++)
            if (ref_equal(((struct share *) share)->hosts[j], ref))
                count_share(&room->hosts[place], share, 1);
    return &room->hosts[place];
}

static void metrics_forget(struct room *room, ref_t host)
{
    ref_t metrics;
    void *of;

    for (size_t i = 0; refmap_each(&room->metrics, &i, &metrics, &of);) {
        if (ref_equal(*(ref_t *) of, host)) {
            free(refmap_take(&room->metrics, metrics));
            return;
        }
    }
}

static int cpu_count(const struct object *host)
{
    return (int) strtol(value_map_text(host_get_cpu_info(host), "cpu_count", "0"), NULL, 10);
}

static void host_read(struct room *room, ref_t ref)
{
    const struct view *view = store_core_view(room->store);
    const struct object *object = view_get(view, host, ref);
    struct room_host *host = find(room, ref);
    const struct object *metrics;
    ref_t *of;

    if (!object) {
        if (host) {
            memmove(host, host + 1, (size_t) (&room->hosts[--room->count] - host) * sizeof *host);
            metrics_forget(room, ref);
        }
        return;
    }
    if (!host)
        host = host_add(room, ref);
    if (!ref_is_null(host_get_metrics(object)) && !refmap_get(&room->metrics, host_get_metrics(object))) {
        metrics_forget(room, ref);
        of = new0(ref_t);
        *of = ref;
        refmap_put(&room->metrics, host_get_metrics(object), of);
    }
    metrics = view_get(view, host_metrics, host_get_metrics(object));
    host->is_enabled = host_get_enabled(object);
    host->memory_overhead_bytes = host_get_memory_overhead(object);
    host->cpus = cpu_count(object);
    host->is_live = metrics && host_metrics_get_live(metrics);
    host->memory_total_bytes = metrics ? host_metrics_get_memory_total(metrics) : 0;
}

/* ---- VMs ---- */

static void share_count(struct room *room, const struct share *share, int sign)
{
    for (int i = 0; i < 2; i++) {
        struct room_host *host = find(room, share->hosts[i]);

        if (host)
            count_share(host, share, sign);
    }
}

static void share_of(const struct object *vm, struct share *ret)
{
    ref_t scheduled = VM_get_scheduled_to_be_resident_on(vm);
    int64_t overhead = vm_memory_overhead_bytes(vm);

    *ret = (struct share){
        .hosts = {VM_get_resident_on(vm), ref_equal(scheduled, VM_get_resident_on(vm)) ? NULL_REF : scheduled},
        .need_bytes = vm_memory_need_bytes(vm),
        .static_max_bytes = VM_get_memory_static_max(vm) + overhead,
        .dynamic_max_bytes = VM_get_memory_dynamic_max(vm) + overhead,
        .vcpus = VM_get_is_control_domain(vm) ? 0 : (int) VM_get_VCPUs_at_startup(vm),
        .vms = !VM_get_is_control_domain(vm),
    };
}

static void vm_read(struct room *room, ref_t ref)
{
    const struct object *vm = view_get(store_core_view(room->store), VM, ref);
    struct share *share = refmap_take(&room->shares, ref);

    if (share)
        share_count(room, share, -1);
    if (!vm || (ref_is_null(VM_get_resident_on(vm)) && ref_is_null(VM_get_scheduled_to_be_resident_on(vm)))) {
        free(share);
        return;
    }
    if (!share)
        share = new0(struct share);
    share_of(vm, share);
    share_count(room, share, 1);
    refmap_put(&room->shares, ref, share);
}

/* Only these fields of a VM matter; most changes are about others. */
static bool vm_concerns_us(const struct change *change)
{
    if (change->kind == CHANGE_CREATE || change->kind == CHANGE_DELETE)
        return true;
    for (int i = 0; i < change->field_count; i++) {
        switch (change->fields[i]) {
        case F_VM_resident_on:
        case F_VM_scheduled_to_be_resident_on:
        case F_VM_memory_static_max:
        case F_VM_memory_dynamic_max:
        case F_VM_memory_dynamic_min:
        case F_VM_VCPUs_max:
        case F_VM_VCPUs_at_startup:
        case F_VM_HVM_boot_policy:
        case F_VM_HVM_shadow_multiplier:
        case F_VM_domain_type:
        case F_VM_is_control_domain:
            return true;
        }
    }
    return false;
}

static void append(struct store_sink *sink, const struct changes *changes)
{
    struct room *room = CONTAINER_OF(sink, struct room, sink);

    for (int i = 0; i < changes->count; i++) {
        const struct change *change = &changes->list[i];
        const ref_t *host;

        switch (change->class->number) {
        case CLASS_NUMBER_VM:
            if (vm_concerns_us(change))
                vm_read(room, change->ref);
            break;
        case CLASS_NUMBER_host:
            if (change->kind != CHANGE_TOUCH)
                host_read(room, change->ref);
            break;
        case CLASS_NUMBER_host_metrics:
            host = refmap_get(&room->metrics, change->ref);
            if (host)
                host_read(room, *host);
            break;
        }
    }
}

/* ---- the whole ---- */

struct room *room_new(struct store *store)
{
    struct room *room = new0(struct room);
    const struct object *object;
    struct view_iter all;

    room->store = store;
    room->sink = (struct store_sink){.name = "room", .append = append};
    view_each(&all, store_core_view(store), CLASS_OF(host));
    while ((object = view_next(&all)))
        host_read(room, object->ref);
    view_each(&all, store_core_view(store), CLASS_OF(VM));
    while ((object = view_next(&all)))
        vm_read(room, object->ref);
    store_add_sink(store, &room->sink);
    return room;
}

void room_destroy(struct room **room_p)
{
    struct room *room = TAKE(*room_p);
    void *value;

    if (!room)
        return;
    for (size_t i = 0; refmap_each(&room->shares, &i, NULL, &value);)
        free(value);
    for (size_t i = 0; refmap_each(&room->metrics, &i, NULL, &value);)
        free(value);
    refmap_done(&room->shares);
    refmap_done(&room->metrics);
    free(room->hosts);
    free(room);
}

const struct room_host *room_hosts(const struct room *room, int *ret_count)
{
    *ret_count = room->count;
    return room->hosts;
}

const struct room_host *room_host(const struct room *room, ref_t host)
{
    return find(room, host);
}
