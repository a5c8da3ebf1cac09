/* PBD.c - how a host reaches a storage repository: created, plugged, unplugged, destroyed */
#include "master/SR.h"
#include "master/claim.h"
#include "master/slaves.h"

ref_t pbd_create(struct call *call, struct txn *txn, ref_t host, ref_t sr,
                 const struct value *device_config)
{
    struct object *draft = draft_new(call->arena, CLASS_OF(PBD));

    draft->fields[F_PBD_host] = VALUE_REF(host);
    draft->fields[F_PBD_SR] = VALUE_REF(sr);
    draft->fields[F_PBD_device_config] = *device_config;
    return draft_create(call, txn, draft);
}

int PBD_create(struct call *call, const struct PBD_create_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct object *draft = draft_of(call->arena, CLASS_OF(PBD), args->args->record.fields);
    const struct object *sr = live(call, txn_view(txn), SR, PBD_get_SR(draft)), *other;
    struct view_iter pbds;

    if (!sr || !live(call, txn_view(txn), host, PBD_get_host(draft)))
        return -ERR_HANDLE_INVALID;
    view_each_inverse(&pbds, txn_view(txn), &CLASS_OF(SR)->fields[F_SR_PBDs], sr->ref);
    while ((other = view_next(&pbds))) {
        if (ref_equal(PBD_get_host(other), PBD_get_host(draft)))
            return fail(call, PBD_EXISTS, ref_text(call, sr->ref),
                        ref_text(call, PBD_get_host(draft)), ref_text(call, other->ref));
        if (!SR_get_shared(sr))
            return fail(call, SR_NOT_SHARABLE, ref_text(call, sr->ref),
                        ref_text(call, PBD_get_host(draft)));
    }
    *ret = VALUE_REF(draft_create(call, txn, draft));
    return call_commit(call, &txn);
}

int PBD_destroy(struct call *call, const struct PBD_destroy_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct object *pbd = live(call, txn_view(txn), PBD, args->self);

    (void) ret;
    if (!pbd)
        return -ERR_HANDLE_INVALID;
    if (PBD_get_currently_attached(pbd))
        return fail(call, OPERATION_NOT_ALLOWED, "PBD is currently attached");
    txn_delete(txn, CLASS_OF(PBD), args->self);
    return call_commit(call, &txn);
}

/* ---- plug ---- */

static bool any_attached(const struct view *view, ref_t sr)
{
    const struct object *pbd;
    struct view_iter pbds;

    view_each_inverse(&pbds, view, &CLASS_OF(SR)->fields[F_SR_PBDs], sr);
    while ((pbd = view_next(&pbds)))
        if (PBD_get_currently_attached(pbd))
            return true;
    return false;
}

int pbd_attach(struct call *call, ref_t ref)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *pbd = live(call, call_view(call), PBD, ref), *sr;
    struct slave_sr_attach_args attach;
    struct value map;
    ref_t sr_ref, host;
    bool is_first, makes_marker;
    int r;

    if (!pbd)
        return -ERR_HANDLE_INVALID;
    sr_ref = PBD_get_SR(pbd);
    host = PBD_get_host(pbd);
    sr = live(call, call_view(call), SR, sr_ref);
    if (!sr)
        return -ERR_HANDLE_INVALID;
    map = storage_sr_map_of(call->arena, sr, PBD_get_device_config(pbd));
    makes_marker = streq(SR_get_type(sr), "shared-file") && !storage_has_marker(sr)
                   && !any_attached(call_view(call), sr_ref);
    if (makes_marker)
        map = map_with_text(call->arena, &map, "marker", "make");
    attach.sr = &map;
    r = slave_sr_attach(call, host, &attach, NULL);
    if (r < 0)
        return r;

    txn = store_begin(call->core->store);
    if (!live(call, txn_view(txn), PBD, ref))
        return -ERR_HANDLE_INVALID;
    is_first = !any_attached(txn_view(txn), sr_ref);
    PBD_put_currently_attached(txn, ref, true);
    if (makes_marker) {
        struct value sm_config = map_with_text(
            call->arena, SR_get_sm_config(txn_get(txn, SR, sr_ref)), STORAGE_MARKER, "true");

        SR_put_sm_config(txn, sr_ref, &sm_config);
    }
    call_commit(call, &txn);
    return is_first ? sr_read_content(call, sr_ref, host) : 0;
}

int PBD_plug(struct call *call, const struct PBD_plug_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    const struct object *pbd = live(call, call_view(call), PBD, args->self);
    int r;

    (void) ret;
    if (!pbd)
        return -ERR_HANDLE_INVALID;
    if (PBD_get_currently_attached(pbd))
        return 0;
    r = claim_begin(&claim, call, CLASS_OF(SR), PBD_get_SR(pbd), storage_operations_plug);
    if (r < 0)
        return r;
    return pbd_attach(call, args->self);
}

/* ---- unplug ---- */

/* Has the host the VM that the drive is of, or is it to have it? */
static bool is_vm_of(const struct view *view, const struct object *vbd, ref_t host)
{
    const struct object *vm = view_get(view, VM, VBD_get_VM(vbd));

    return vm
           && (ref_equal(VM_get_resident_on(vm), host) || ref_equal(VM_get_scheduled_to_be_resident_on(vm), host));
}

/* A disk of the SR that the host uses: of a guest there, or of one that begins; or one that is being made, read or written,
 * which another host may be doing. Null: none. */
static ref_t disk_in_use(struct call *call, ref_t sr, ref_t host)
{
    const struct view *view = call_view(call);
    const struct object *vdi, *vbd;
    struct view_iter vdis, vbds;

    view_each_inverse(&vdis, view, &CLASS_OF(SR)->fields[F_SR_VDIs], sr);
    while ((vdi = view_next(&vdis))) {
        if (storage_is_being_made(call, vdi) || VDI_get_current_operations(vdi)->length > 0)
            return vdi->ref;
        view_each_inverse(&vbds, view, &CLASS_OF(VDI)->fields[F_VDI_VBDs], vdi->ref);
        while ((vbd = view_next(&vbds)))
            if ((VBD_get_currently_attached(vbd) || VBD_get_reserved(vbd)) && is_vm_of(view, vbd, host))
                return vdi->ref;
    }
    return NULL_REF;
}

int PBD_unplug(struct call *call, const struct PBD_unplug_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    const struct object *pbd = live(call, call_view(call), PBD, args->self);
    struct slave_sr_detach_args detach;
    struct value map;
    ref_t sr, host, vdi;
    int r;

    (void) ret;
    if (!pbd)
        return -ERR_HANDLE_INVALID;
    if (!PBD_get_currently_attached(pbd))
        return 0;
    sr = PBD_get_SR(pbd);
    host = PBD_get_host(pbd);
    r = claim_begin(&claim, call, CLASS_OF(SR), sr, storage_operations_unplug);
    if (r < 0)
        return r;
    vdi = disk_in_use(call, sr, host);
    if (!ref_is_null(vdi))
        return fail(call, VDI_IN_USE, ref_text(call, vdi), "unplug");

    /* First nobody may begin to use it there any more, then it goes. */
    r = field_set(call, CLASS_OF(PBD), args->self, F_PBD_currently_attached, VALUE_BOOL(false));
    if (r == 0)
        r = storage_sr_map(call, sr, host, &map);
    if (r < 0)
        return r;
    detach.sr = &map;
    r = slave_sr_detach(call, host, &detach, NULL);
    if (r < 0) {
        struct failure failure = call->failure;

        field_set(call, CLASS_OF(PBD), args->self, F_PBD_currently_attached, VALUE_BOOL(true));
        call->failure = failure;
    }
    return r;
}

int PBD_set_device_config(struct call *call, const struct PBD_set_device_config_args *args,
                          struct value *ret)
{
    const struct object *pbd = live(call, call_view(call), PBD, args->self);

    (void) ret;
    if (!pbd)
        return -ERR_HANDLE_INVALID;
    if (PBD_get_currently_attached(pbd))
        return fail(call, OPERATION_NOT_ALLOWED, "PBD is currently attached");
    return field_set(call, CLASS_OF(PBD), args->self, F_PBD_device_config, *args->value);
}
