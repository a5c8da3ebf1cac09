/* raw_vdi.c - GET /export_raw_vdi, PUT /import_raw_vdi: one disk's contents (wire.md section 21)
 *
 *   export          claim (copy) --> slave_export_raw
 *   import, vdi=    claim (update) --> slave_import_raw, over what the disk held
 *   import, sr_id=  a new disk, hidden --> slave_import_raw --> shown; nothing of it remains when that fails */
#include "master/claim.h"
#include "master/export.h"
#include "master/slaves.h"
#include "master/task.h"

#include <inttypes.h>

/* Formats that clients may ask for and that are not served are told by name. */
static int check_format(struct call *call, const struct value *params, bool is_upload, const char **ret)
{
    const char *format = value_map_text(params, "format", "raw");

    *ret = format;
    if (transfer_param(params, "base"))
        return fail(call, NOT_IMPLEMENTED, "raw disks with base");
    if (streq(format, "raw") || streq(format, "vhd"))
        return 0;
    if (streq(format, "tar") || streq(format, "qcow2"))
        return fail(call, NOT_IMPLEMENTED, arena_text(call->arena, "%s of a raw disk with format %s",
                                                      is_upload ? "import" : "export", format));
    return fail(call, INTERNAL_ERROR, arena_text(call->arena, "Unknown format %s", format));
}

static int find_vdi(struct call *call, const struct view *view, const struct value *params, const struct object **ret)
{
    int r = transfer_object(call, view, params, CLASS_OF(VDI), "vdi", "vdi", ret);

    return r == -ERR_INVALID_VALUE ? fail(call, VDI_MISSING, "", "") : r;
}

/* The SR of a new disk: named, else the pool's. */
int transfer_sr(struct call *call, const struct view *view, const struct value *params, const struct object **ret)
{
    const struct object *pool = pool_object(view);
    int r;

    if (transfer_param(params, "sr_id") || transfer_param(params, "sr_uuid")) {
        r = transfer_object(call, view, params, CLASS_OF(SR), "sr_id",
                            transfer_param(params, "sr_uuid") ? "sr_uuid" : "sr_id", ret);
        return r;
    }
    *ret = pool ? view_get(view, SR, pool_get_default_SR(pool)) : NULL;
    return *ret ? 0 : fail(call, DEFAULT_SR_NOT_FOUND, pool ? ref_text(call, pool_get_default_SR(pool)) : "");
}

static int needs_vdi(struct call *call, const struct view *view, const struct value *params, struct transfer_needs *ret)
{
    const struct object *vdi;
    int r = find_vdi(call, view, params, &vdi);

    if (r == 0)
        transfer_needs_add(ret, VDI_get_SR(vdi));
    return r;
}

/* ---- out ---- */

static int run_export(struct http_transfer *transfer)
{
    _cleanup_(claim_end) struct claim claim = {0};
    struct call *call = transfer->call;
    const char *format, *uuid;
    struct value disk, options;
    const struct object *vdi;
    ref_t ref;
    int r = find_vdi(call, call_view(call), transfer->params, &vdi);

    if (r == 0)
        r = check_format(call, transfer->params, false, &format);
    if (r < 0)
        return r;
    ref = vdi->ref;
    uuid = arena_strdup(call->arena, VDI_get_uuid(vdi));
    r = http_transfer_task(transfer, "VDI.export_raw_vdi", uuid);
    if (r == 0)
        r = transfer_claim(&claim, call, CLASS_OF(VDI), ref, vdi_operations_copy);
    if (r < 0)
        return r;
    vdi = live(call, call_view(call), VDI, ref);
    if (!vdi)
        return -ERR_HANDLE_INVALID;
    disk = transfer_disk(call, vdi, transfer->host, "");
    options = text_map(call->arena, "format", format, "uuid", uuid, "file_name",
                       arena_text(call->arena, "%s.%s", uuid, format), "content_type",
                       streq(format, "vhd") ? "application/vhd" : "application/octet-stream", "task",
                       ref_is_null(call->task) ? "" : ref_text(call, call->task), NULL);
    task_set_cancellable(call, true);
    r = slave_export_raw(call, transfer->host, &(struct slave_export_raw_args){transfer->id, &disk, &options}, NULL);
    r = http_transfer_settle(transfer, r);
    task_set_cancellable(call, false);
    return r;
}

/* ---- in ---- */

static int needs_target(struct call *call, const struct view *view, const struct value *params, struct transfer_needs *ret)
{
    const struct object *sr;
    int r;

    if (transfer_param(params, "vdi"))
        return needs_vdi(call, view, params, ret);
    if (!transfer_param(params, "sr_id") && !transfer_param(params, "sr_uuid"))
        return fail(call, VDI_MISSING, "", "");
    r = transfer_sr(call, view, params, &sr);
    if (r == 0)
        transfer_needs_add(ret, sr->ref);
    return r;
}

static int receive(struct http_transfer *transfer, ref_t ref, const char *format)
{
    struct call *call = transfer->call;
    const struct object *vdi = live(call, call_view(call), VDI, ref);
    struct value disk, options;
    int r;

    if (!vdi)
        return -ERR_HANDLE_INVALID;
    disk = transfer_disk(call, vdi, transfer->host, "");
    options = text_map(call->arena, "format", format, "chunked",
                       transfer_param(transfer->params, "chunked") ? "true" : "false", NULL);
    task_set_cancellable(call, true);
    r = slave_import_raw(call, transfer->host, &(struct slave_import_raw_args){transfer->id, &disk, &options}, NULL);
    r = http_transfer_settle(transfer, r);
    task_set_cancellable(call, false);
    return r;
}

/* Over what a disk holds. It is busy for everybody else meanwhile, and no VM may have it open. */
static int run_import_into(struct http_transfer *transfer, const char *format)
{
    _cleanup_(claim_end) struct claim claim = {0};
    struct call *call = transfer->call;
    const struct object *vdi;
    ref_t ref, sr;
    int r = find_vdi(call, call_view(call), transfer->params, &vdi);

    if (r < 0)
        return r;
    ref = vdi->ref;
    sr = VDI_get_SR(vdi);
    if (VDI_get_read_only(vdi))
        return fail(call, VDI_READONLY, ref_text(call, ref));
    r = http_transfer_task(transfer, "VDI.import_raw_vdi", arena_strdup(call->arena, VDI_get_uuid(vdi)));
    if (r == 0)
        r = transfer_claim(&claim, call, CLASS_OF(VDI), ref, vdi_operations_update);
    if (r == 0)
        r = receive(transfer, ref, format);
    storage_refresh(call, sr, transfer->host);
    return r;
}

/* Into a new disk of the body's size. */
static int run_import_new(struct http_transfer *transfer, const char *format)
{
    _cleanup_(disks_undo) struct disks *disks = NULL;
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct call *call = transfer->call;
    struct object *draft = draft_new(call->arena, CLASS_OF(VDI));
    const struct object *sr;
    ref_t sr_ref, vdi;
    int r = transfer_sr(call, call_view(call), transfer->params, &sr);

    if (r < 0)
        return r;
    sr_ref = sr->ref;
    if (!streq(format, "raw") || transfer_param(transfer->params, "chunked"))
        return fail(call, VDI_MISSING, ref_text(call, sr_ref), ""); /* only plain bytes tell the size beforehand */
    if (transfer->length <= 0)
        return fail(call, INVALID_VALUE, "content-length", int_text(call, transfer->length));
    r = http_transfer_task(transfer, "VDI.import_raw_vdi", "");
    if (r == 0)
        r = storage_check_SR(call, sr_ref, storage_operations_vdi_create);
    if (r < 0)
        return r;
    draft->fields[F_VDI_name_label] = value_text("Imported VDI");
    draft->fields[F_VDI_SR] = VALUE_REF(sr_ref);
    draft->fields[F_VDI_virtual_size] = VALUE_INT(transfer->length);
    draft->fields[F_VDI_type] = VALUE_ENUM(vdi_type, vdi_type_user);
    disks = disks_new(call);
    txn = store_begin(call->core->store);
    vdi = disks_add(disks, txn, draft);
    call_commit(call, &txn);
    r = disk_make_empty(disks, vdi);
    if (r == 0)
        r = receive(transfer, vdi, format);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    r = disks_keep(disks, txn);
    if (r < 0)
        return r;
    call_commit(call, &txn);
    storage_refresh(call, sr_ref, transfer->host);
    call->reply = VALUE_REF(vdi);
    return 0;
}

static int run_import(struct http_transfer *transfer)
{
    const char *format;
    int r = check_format(transfer->call, transfer->params, true, &format);

    if (r < 0 || http_transfer_is_probe(transfer))
        return r;
    return transfer_param(transfer->params, "vdi") ? run_import_into(transfer, format) : run_import_new(transfer, format);
}

const struct transfer_kind transfer_export_raw = {
    .name = "VDI.export_raw_vdi",
    .realm = "export_raw_vdi",
    .least = ROLE_VM_ADMIN,
    .needs = needs_vdi,
    .run = run_export,
};

const struct transfer_kind transfer_import_raw = {
    .name = "VDI.import_raw_vdi",
    .realm = "import_raw_vdi",
    .is_upload = true,
    .least = ROLE_VM_ADMIN,
    .needs = needs_target,
    .run = run_import,
};
