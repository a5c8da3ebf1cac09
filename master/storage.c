/* storage.c - disks from the master's side: who can reach an SR, and its sums */
#include "master/storage.h"

#include "master/background.h"
#include "master/claim.h"
#include "master/lifecycle.h"
#include "master/slaves.h"

/* ---- who reaches an SR ---- */

/* A host has a few of them, whatever the pool's size; a shared SR one for each host. */
const struct object *storage_pbd(const struct view *view, ref_t sr, ref_t host)
{
    const struct object *pbd;
    struct view_iter pbds;

    view_each_inverse(&pbds, view, &CLASS_OF(host)->fields[F_host_PBDs], host);
    while ((pbd = view_next(&pbds)))
        if (ref_equal(PBD_get_SR(pbd), sr))
            return pbd;
    return NULL;
}

bool storage_is_attached(const struct view *view, ref_t sr, ref_t host)
{
    const struct object *pbd = storage_pbd(view, sr, host);

    return pbd && PBD_get_currently_attached(pbd);
}

bool storage_host_lives(const struct view *view, ref_t host_ref)
{
    const struct object *host = view_get(view, host, host_ref);
    const struct object *metrics =
        host ? view_get(view, host_metrics, host_get_metrics(host)) : NULL;

    return metrics && host_metrics_get_live(metrics);
}

/* How gladly a live host is asked: one whose link has gone a moment ago may be dead, our own is near. */
static int rank_host(const struct core *core, ref_t host)
{
    return 1 + 2 * slave_is_linked(core->slaves, host) + ref_equal(host, core->host);
}

/* A live host that sees the SR, and the other one, if it is not null. */
static int find_host(struct call *call, ref_t sr, ref_t other, ref_t *ret_host)
{
    const struct view *view = call_view(call);
    const struct object *pbd;
    struct view_iter pbds;
    ref_t found = NULL_REF, dead = NULL_REF;
    int best = 0;

    view_each_inverse(&pbds, view, &CLASS_OF(SR)->fields[F_SR_PBDs], sr);
    while ((pbd = view_next(&pbds))) {
        ref_t host = PBD_get_host(pbd);

        if (!PBD_get_currently_attached(pbd)
            || (!ref_is_null(other) && !storage_is_attached(view, other, host)))
            continue;
        if (!storage_host_lives(view, host)) {
            dead = host;
        } else if (rank_host(call->core, host) > best) {
            best = rank_host(call->core, host);
            found = host;
        }
    }
    *ret_host = found;
    if (!ref_is_null(found))
        return 0;
    if (!ref_is_null(dead))
        return fail(call, HOST_OFFLINE, ref_text(call, dead));
    return -ERR_SR_HAS_NO_PBDS;
}

int storage_host(struct call *call, ref_t sr, ref_t *ret_host)
{
    int r;

    if (!live(call, call_view(call), SR, sr))
        return -ERR_HANDLE_INVALID;
    r = find_host(call, sr, NULL_REF, ret_host);
    return r == -ERR_SR_HAS_NO_PBDS ? fail(call, SR_HAS_NO_PBDS, ref_text(call, sr)) : r;
}

int storage_host_of_both(struct call *call, ref_t sr, ref_t to_sr, ref_t *ret_host)
{
    int r = storage_host(call, sr, ret_host);

    if (r < 0 || ref_equal(sr, to_sr))
        return r;
    r = storage_host(call, to_sr, ret_host);
    if (r < 0)
        return r;
    r = find_host(call, sr, to_sr, ret_host);
    return r == -ERR_SR_HAS_NO_PBDS ? fail(call, SR_NOT_ATTACHED, ref_text(call, to_sr)) : r;
}

const char *storage_directory(const struct value *device_config)
{
    return value_map_text(device_config, "location", value_map_text(device_config, "path", ""));
}

bool storage_has_marker(const struct object *sr)
{
    return streq(SR_get_type(sr), "shared-file")
           && streq(value_map_text(SR_get_sm_config(sr), STORAGE_MARKER, ""), "true");
}

struct value storage_sr_map_of(struct arena *arena, const struct object *sr,
                               const struct value *device_config)
{
    const char *marker = storage_has_marker(sr) ? "marker" : NULL; /* NULL ends the list */
    struct value map = text_map(arena, "uuid", SR_get_uuid(sr), "type", SR_get_type(sr), "location",
                                storage_directory(device_config), marker, "check", NULL);

    return value_copy(arena, &map);
}

struct storage_place storage_place(const struct view *view, ref_t sr_ref, ref_t host)
{
    const struct object *sr = view_get(view, SR, sr_ref), *pbd = storage_pbd(view, sr_ref, host);

    return (struct storage_place){
        .uuid = sr ? SR_get_uuid(sr) : "",
        .type = sr ? SR_get_type(sr) : "",
        .location = pbd ? storage_directory(PBD_get_device_config(pbd)) : "",
        .marker = sr && storage_has_marker(sr) ? "check" : "",
    };
}

int storage_sr_map(struct call *call, ref_t sr, ref_t host, struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *object = live(call, view, SR, sr);
    const struct object *pbd = storage_pbd(view, sr, host);

    if (!object)
        return -ERR_HANDLE_INVALID;
    if (!pbd)
        return fail(call, SR_NOT_ATTACHED, ref_text(call, sr));
    *ret = storage_sr_map_of(call->arena, object, PBD_get_device_config(pbd));
    return 0;
}

int storage_host_map(struct call *call, ref_t sr, ref_t *ret_host, struct value *ret)
{
    int r = storage_host(call, sr, ret_host);

    return r < 0 ? r : storage_sr_map(call, sr, *ret_host, ret);
}

int storage_check_SR(struct call *call, ref_t ref, enum storage_operations operation)
{
    uint64_t since_ms = loop_now_ms(call->core->loop);

    for (;;) {
        const struct view *view = call_view(call);
        const struct object *sr = live(call, view, SR, ref);
        int r;

        if (!sr)
            return -ERR_HANDLE_INVALID;
        r = operation_check(view, sr, (int) operation, false, call->arena, &call->failure);
        if (r != -ERR_OTHER_OPERATION_IN_PROGRESS)
            return r;
        r = claim_wait(call, since_ms);
        if (r < 0)
            return r;
    }
}

ref_t storage_writer(const struct view *view, ref_t vdi)
{
    const struct object *vbd;
    struct view_iter vbds;

    view_each_inverse(&vbds, view, &CLASS_OF(VDI)->fields[F_VDI_VBDs], vdi);
    while ((vbd = view_next(&vbds))) {
        const struct object *vm = view_get(view, VM, VBD_get_VM(vbd));

        if (vm && VBD_get_currently_attached(vbd) && VBD_get_mode(vbd) == vbd_mode_RW
            && !VM_get_is_control_domain(vm)
            && (VM_get_power_state(vm) == vm_power_state_Running
                || VM_get_power_state(vm) == vm_power_state_Paused))
            return vm->ref;
    }
    return NULL_REF;
}

bool storage_is_open(const struct view *view, const struct object *vbd)
{
    const struct object *vm = view_get(view, VM, VBD_get_VM(vbd));

    if (VBD_get_reserved(vbd))
        return true;
    return VBD_get_currently_attached(vbd) && !(vm && VM_get_power_state(vm) == vm_power_state_Suspended);
}

bool storage_is_taken(const struct view *view, const struct object *vbd, const struct object *vdi)
{
    const struct object *other;
    struct view_iter others;

    if (VDI_get_sharable(vdi))
        return false;
    view_each_inverse(&others, view, &CLASS_OF(VDI)->fields[F_VDI_VBDs], vdi->ref);
    while ((other = view_next(&others)))
        if (!ref_equal(other->ref, vbd->ref) && storage_is_open(view, other)
            && (VBD_get_mode(other) == vbd_mode_RW || VBD_get_mode(vbd) == vbd_mode_RW))
            return true;
    return false;
}

bool storage_is_written(const struct view *view, const struct object *vdi)
{
    const struct object *vbd;
    struct view_iter vbds;

    view_each_inverse(&vbds, view, &CLASS_OF(VDI)->fields[F_VDI_VBDs], vdi->ref);
    while ((vbd = view_next(&vbds)))
        if (VBD_get_mode(vbd) == vbd_mode_RW && storage_is_open(view, vbd))
            return true;
    return false;
}

ref_t storage_changing_drive(const struct view *view, ref_t vdi)
{
    const struct object *vbd;
    struct view_iter vbds;

    view_each_inverse(&vbds, view, &CLASS_OF(VDI)->fields[F_VDI_VBDs], vdi);
    while ((vbd = view_next(&vbds)))
        if (VBD_get_current_operations(vbd)->length > 0)
            return vbd->ref;
    return NULL_REF;
}

bool storage_is_shown(const struct object *vdi)
{
    return VDI_get_managed(vdi) && streq(VDI_get_maker(vdi), "");
}

const struct value *storage_busy_for(const struct object *vdi, enum vbd_mode mode)
{
    const struct value *operations = VDI_get_current_operations(vdi);

    for (uint32_t i = 0; i < operations->length; i++) {
        int operation = operations->items[2 * i + 1].e.index;

        if (operation != vdi_operations_mirror && (operation != vdi_operations_copy || mode == vbd_mode_RW))
            return &operations->items[2 * i];
    }
    return NULL;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);

    return length >= end_length && streq(text + length - end_length, end);
}

const char *storage_disk_format(const struct object *vdi)
{
    const char *format = value_map_text(VDI_get_sm_config(vdi), "image-format", NULL);

    if (format)
        return format;
    return ends_with(VDI_get_location(vdi), ".qcow2") ? "qcow2" : "raw";
}

/* ---- sums ---- */

static int64_t map_int(const struct value *map, const char *key)
{
    return strtoll(value_map_text(map, key, "0"), NULL, 10);
}

void storage_refresh(struct call *call, ref_t sr, ref_t host)
{
    struct failure before = call->failure;
    struct slave_sr_stat_args args;
    struct value map, stat;

    if (storage_sr_map(call, sr, host, &map) == 0) {
        args.sr = &map;
        if (slave_sr_stat(call, host, &args, &stat) == 0) {
            _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

            if (txn_get(txn, SR, sr)) {
                SR_put_physical_size(txn, sr, map_int(&stat, "physical_size"));
                SR_put_physical_utilisation(txn, sr, map_int(&stat, "physical_utilisation"));
            }
            call_commit(call, &txn);
        }
    }
    call->failure = before;
}

/* An SR that is being asked behind some call. */
struct refreshing {
    ref_t sr, host;
    bool is_wanted; /* once more: it has changed since it was asked */
    struct refreshing *next;
};

static struct refreshing **refreshing_slot(struct core *core, ref_t sr)
{
    struct refreshing **slot = &core->refreshing;

    while (*slot && !ref_equal((*slot)->sr, sr))
        slot = &(*slot)->next;
    return slot;
}

static void refresh_main(struct call *call, void *arg)
{
    struct refreshing *refreshing = arg;

    while (refreshing->is_wanted) {
        refreshing->is_wanted = false;
        storage_refresh(call, refreshing->sr, refreshing->host);
    }
    *refreshing_slot(call->core, refreshing->sr) = refreshing->next;
    free(refreshing);
}

void storage_refresh_later(struct call *call, ref_t sr, ref_t host)
{
    struct refreshing **slot = refreshing_slot(call->core, sr);
    bool is_under_way = *slot;

    if (!is_under_way)
        *slot = new0(struct refreshing);
    (*slot)->sr = sr;
    (*slot)->host = host; /* the last one that has changed it */
    (*slot)->is_wanted = true;
    if (!is_under_way)
        background_run(call->core, "SR.refresh", call->tag, refresh_main, *slot);
}

void storage_count(struct txn *txn, ref_t ref, int64_t virtual_bytes, int64_t physical_bytes)
{
    const struct object *sr = txn_get(txn, SR, ref);

    if (!sr)
        return;
    SR_put_virtual_allocation(txn, ref,
                              MAX(SR_get_virtual_allocation(sr) + virtual_bytes, (int64_t) 0));
    sr = txn_get(txn, SR, ref);
    SR_put_physical_utilisation(txn, ref,
                                MAX(SR_get_physical_utilisation(sr) + physical_bytes, (int64_t) 0));
}

void storage_drop_vdi(struct txn *txn, ref_t ref)
{
    const struct object *vdi = txn_get(txn, VDI, ref), *vbd;

    for (;;) {
        struct view_iter vbds;

        view_each_inverse(&vbds, txn_view(txn), &CLASS_OF(VDI)->fields[F_VDI_VBDs], ref);
        vbd = view_next(&vbds);
        if (!vbd)
            break;
        if (VBD_get_type(vbd) == vbd_type_CD) {
            ref_t drive = vbd->ref;

            VBD_put_empty(txn, drive, true);
            VBD_put_VDI(txn, drive, NULL_REF);
        } else {
            txn_delete(txn, CLASS_OF(VBD), vbd->ref);
        }
    }
    vdi = txn_get(txn, VDI, ref);
    storage_count(txn, VDI_get_SR(vdi), -VDI_get_virtual_size(vdi),
                  -VDI_get_physical_utilisation(vdi));
    txn_delete(txn, CLASS_OF(VDI), ref);
}
