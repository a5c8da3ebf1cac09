/* guest_samples.c - what hosts and guests use, and how far long operations have got: volatile figures
 *
 *   note "samples" {memory_free, guests: {uuid: {epoch, vcpu_seconds, memory, ...}}}
 *                                                             every 5 s from each host
 *   note "progress" {operation, share}                                  of moves, suspends, copies
 *
 * Only volatile fields are written, so figures cost no sync; a task's progress is task.c's affair.
 */
#include "master/claim.h"
#include "master/core.h"
#include "master/guests_internal.h"
#include "master/put.h"
#include "master/slaves.h"
#include "master/task.h"

/* A note that was held up by a broken link may come right before the next: of a host's figures
 * those are taken that are at least so far apart. */
#define APART_S 4

/* wire.md section 22: changes of memory below this are none. */
#define MEMORY_DELTA_BYTES (1 << 20)

#define MEMORY_BYTES_MOST 0x1p60

/* More vCPUs than these are not listed one by one. */
#define VCPUS_SHOWN_MAX 256

/* The last sample of a guest's CPU time. */
struct usage {
    double vcpu_seconds, at_s;
};

/* A number of an agent's note. */
static double figure(const struct value *map, const char *key)
{
    const struct value *value = map->kind == KIND_MAP ? value_map_find(map, key) : NULL;

    if (!value)
        return 0;
    return value->kind == KIND_INT ? (double) value->i : value->kind == KIND_FLOAT ? value->f : 0;
}

/* Bytes of memory that any machine may have; an agent's nonsense is 0. */
static int64_t memory_figure(const struct value *map, const char *key)
{
    double bytes = figure(map, key);

    return bytes > 0 && bytes < MEMORY_BYTES_MOST ? (int64_t) bytes : 0;
}

static bool memory_differs(int64_t before_bytes, int64_t now_bytes)
{
    return llabs(now_bytes - before_bytes) >= MEMORY_DELTA_BYTES;
}

/* CPU time since the last sample, as a share of one vCPU. */
static double vcpu_share(struct guests *guests, ref_t vm, const struct value *sample, double now_s,
                         int64_t vcpus)
{
    struct usage *usage = refmap_get(&guests->usages, vm);
    double share = 0, seconds = figure(sample, "vcpu_seconds");

    if (!usage) {
        usage = new0(struct usage);
        refmap_put(&guests->usages, vm, usage);
    } else if (now_s > usage->at_s && seconds >= usage->vcpu_seconds && vcpus > 0) {
        share = (seconds - usage->vcpu_seconds) / (now_s - usage->at_s) / (double) vcpus;
    }
    *usage = (struct usage){seconds, now_s};
    return MIN(share, 1.0);
}

/* Agents do not tell the vCPUs of a guest apart: all have the same share. */
static void put_vcpu_shares(struct txn *txn, ref_t metrics, int64_t vcpus, double share)
{
    struct value *items = new0_array(struct value, 2 * (size_t) vcpus), map;

    for (int64_t i = 0; i < vcpus; i++) {
        items[2 * i] = VALUE_INT(i);
        items[2 * i + 1] = VALUE_FLOAT(share);
    }
    map = VALUE_MAP((uint32_t) vcpus, items);
    VM_metrics_put_VCPUs_utilisation(txn, metrics, &map);
    free(items);
}

static void put_sample(struct txn *txn, struct core *core, ref_t vm_uuid,
                       const struct value *sample, double now_s)
{
    char uuid[UUID_TEXT_BYTES];
    const struct object *vm = view_by_uuid(txn_view(txn), CLASS_OF(VM), uuid_print(uuid, vm_uuid));
    ref_t metrics = vm ? VM_get_metrics(vm) : NULL_REF;
    int64_t vcpus = vm ? MIN(VM_get_VCPUs_at_startup(vm), (int64_t) VCPUS_SHOWN_MAX) : 0;
    int64_t memory = memory_figure(sample, "memory");

    if (!txn_get(txn, VM_metrics, metrics) || (int64_t) figure(sample, "epoch") != VM_get_epoch(vm))
        return;
    put_vcpu_shares(txn, metrics, vcpus, vcpu_share(core->guests, vm->ref, sample, now_s, vcpus));
    if (memory_differs(VM_metrics_get_memory_actual(txn_get(txn, VM_metrics, metrics)), memory))
        VM_metrics_put_memory_actual(txn, metrics, memory);
    VM_metrics_put_last_updated(txn, metrics, clock_utc_s(core->clock));
}

static void put_host_figures(struct txn *txn, struct core *core, ref_t host_ref,
                             const struct value *body)
{
    const struct object *host = txn_get(txn, host, host_ref);
    const struct object *metrics = host ? txn_get(txn, host_metrics, host_get_metrics(host)) : NULL;
    int64_t now_s = clock_utc_s(core->clock), age_s, memory = memory_figure(body, "memory_free");

    if (!metrics || !value_map_find(body, "memory_free"))
        return;
    age_s = now_s - host_metrics_get_last_updated(metrics); /* negative: the clock was set back */
    if (age_s >= 0 && age_s < APART_S)
        return;
    if (memory_differs(host_metrics_get_memory_free(metrics), memory))
        host_metrics_put_memory_free(txn, metrics->ref, memory);
    host_metrics_put_last_updated(txn, metrics->ref, now_s);
}

/* VMs come and go for years: keep the samples of those that are there. */
static void drop_gone(struct core *core)
{
    struct refmap *usages = &core->guests->usages, kept = {0};
    const struct view *view = store_core_view(core->store);
    void *usage;
    ref_t vm;

    if (usages->count <= 2 * view_count(view, CLASS_OF(VM)) + 64)
        return;
    for (size_t i = 0; refmap_each(usages, &i, &vm, &usage);) {
        if (view_get(view, VM, vm))
            refmap_put(&kept, vm, usage);
        else
            free(usage);
    }
    refmap_done(usages);
    *usages = kept;
}

/* All guests of a host in one. */
static void on_samples(struct core *core, const struct slave_note *note)
{
    const struct value *guests = value_map_find(note->body, "guests");
    double now_s = (double) loop_now_ms(core->loop) / 1000;
    struct txn *txn;

    if (!guests || guests->kind != KIND_MAP)
        return;
    txn = store_begin(core->store);
    put_host_figures(txn, core, note->host, note->body);
    for (uint32_t i = 0; i < guests->length; i++)
        if (guests->items[2 * i].kind == KIND_REF)
            put_sample(txn, core, guests->items[2 * i].ref, &guests->items[2 * i + 1], now_s);
    store_apply(&txn);
    drop_gone(core);
}

/* How far a move, or another long operation, has got. */
static void on_progress(struct core *core, const struct slave_note *note)
{
    char uuid[UUID_TEXT_BYTES];
    const struct object *vm =
        view_by_uuid(store_core_view(core->store), CLASS_OF(VM), uuid_print(uuid, note->vm_uuid));
    struct call *call = vm ? claim_live_call(core, vm->ref) : NULL;
    const struct value *share = value_map_find(note->body, "share");

    if (call && share && share->kind == KIND_FLOAT)
        task_progress(call, share->f);
}

void samples_start(struct core *core)
{
    slaves_on_note(core->slaves, "samples", on_samples);
    slaves_on_note(core->slaves, "progress", on_progress);
}
