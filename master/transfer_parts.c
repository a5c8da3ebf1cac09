/* transfer_parts.c - what transfers of VMs and of single disks share */
#include "master/transfer_parts.h"

#include "master/claim.h"

int transfer_claim(struct claim *claim, struct call *call, const struct class *class, ref_t ref, int operation)
{
    return claim_begin_within(claim, call, class, ref, operation, TRANSFER_WAIT_MS);
}

int transfer_disk(struct call *call, ref_t ref, ref_t host, const char *prefix, struct value *ret)
{
    const struct object *vdi = live(call, call_view(call), VDI, ref);
    struct storage_place place;
    struct value map;

    if (!vdi)
        return -ERR_HANDLE_INVALID;
    if (!storage_is_attached(call_view(call), VDI_get_SR(vdi), host))
        return fail(call, SR_NOT_ATTACHED, ref_text(call, VDI_get_SR(vdi)));
    place = storage_place(call_view(call), VDI_get_SR(vdi), host);
    if (streq(place.type, "dummy"))
        return fail(call, SR_OPERATION_NOT_SUPPORTED, ref_text(call, VDI_get_SR(vdi)));
    map = text_map(call->arena, "sr", place.uuid, "sr_type", place.type, "sr_location", place.location,
                   "sr_marker", place.marker, "location", VDI_get_location(vdi), "format", storage_disk_format(vdi), "prefix",
                   prefix, NULL);
    *ret = value_copy(call->arena, &map); /* objects change while others are claimed */
    return 0;
}

int transfer_sr(struct call *call, const struct view *view, const struct value *params, const struct object **ret)
{
    const struct object *pool = pool_object(view);

    if (transfer_param(params, "sr_id") || transfer_param(params, "sr_uuid"))
        return transfer_object(call, view, params, CLASS_OF(SR), "sr_id",
                               transfer_param(params, "sr_uuid") ? "sr_uuid" : "sr_id", ret);
    *ret = pool ? view_get(view, SR, pool_get_default_SR(pool)) : NULL;
    return *ret ? 0 : fail(call, DEFAULT_SR_NOT_FOUND, pool ? ref_text(call, pool_get_default_SR(pool)) : "");
}
