/* raw_vdi.c - GET /export_raw_vdi, PUT /import_raw_vdi: one disk's contents (wire.md section 21)
 *
 *   export          claim (copy) --> slave_export_raw
 *   import, vdi=    claim (update), INTENT --> slave_import_raw, over what the disk held (raw_vdi_doubt.c)
 *   import, sr_id=  a new disk, hidden --> slave_import_raw --> shown; nothing of it remains when that fails */
#include "master/claim.h"
#include "master/limits.h"
#include "master/raw_vdi_doubt.h"
#include "master/slaves.h"
#include "master/task.h"
#include "master/transfer_parts.h"

#include <inttypes.h>

struct format {
    const char *name, *content_type;
    bool has_base;      /* may be the difference to another disk */
};

static const struct format formats[] = {
    {"raw", "application/octet-stream", false},
    {"vhd", "application/vhd", true},
    {"tar", "application/x-tar", false},
    {"qcow2", "application/x-qemu-disk", true},
};

static int refuse(struct call *call, int status, const char *text)
{
    call->http_status = status;
    return fail(call, INTERNAL_ERROR, text);
}

/* What is not served is told by name. */
static int find_format(struct call *call, const struct value *params, const struct format **ret)
{
    const char *name = value_map_text(params, "format", "raw");

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (streq(formats[i].name, name)) {
            *ret = &formats[i];
            if (transfer_param(params, "base") && !formats[i].has_base)
                return refuse(call, 400, arena_text(call->arena, "Format %s knows no differences to a base", name));
            return 0;
        }
    return refuse(call, 404, arena_text(call->arena, "Unknown format %s", name));
}

static int find_vdi(struct call *call, const struct view *view, const struct value *params, const struct object **ret)
{
    int r = transfer_object(call, view, params, CLASS_OF(VDI), "vdi", "vdi", ret);

    return r == -ERR_INVALID_VALUE ? fail(call, VDI_MISSING, "", "vdi=UUID or vdi=REF is needed") : r;
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

static int needs_export(struct call *call, const struct view *view, const struct value *params, struct transfer_needs *ret)
{
    const struct object *base;
    int r = needs_vdi(call, view, params, ret);

    if (r == -ERR_VDI_MISSING)
        call->http_status = 500; /* of an import it is 400 */
    if (r == 0 && transfer_param(params, "base")) {
        r = transfer_object(call, view, params, CLASS_OF(VDI), "base", "base", &base);
        if (r == 0)
            transfer_needs_add(ret, VDI_get_SR(base));
    }
    return r;
}

/* A disk that is read: claimed, and where it is. */
static int take_disk(struct http_transfer *transfer, ref_t ref, struct claim *claim, struct value *ret_disk)
{
    struct call *call = transfer->call;
    int r = transfer_claim(claim, call, CLASS_OF(VDI), ref, vdi_operations_copy);

    return r < 0 ? r : transfer_disk(call, ref, transfer->host, "vdi", ret_disk);
}

static int run_export(struct http_transfer *transfer)
{
    _cleanup_(claim_end) struct claim claim = {0}, base_claim = {0};
    struct call *call = transfer->call;
    const struct object *vdi, *base = NULL;
    const struct format *format;
    struct value disks[2], set, options;
    const char *uuid, *base_uuid = "";
    ref_t ref, base_ref = NULL_REF;
    int r = find_vdi(call, call_view(call), transfer->params, &vdi);

    if (r == 0)
        r = find_format(call, transfer->params, &format);
    if (r == 0 && transfer_param(transfer->params, "base"))
        r = transfer_object(call, call_view(call), transfer->params, CLASS_OF(VDI), "base", "base", &base);
    if (r < 0)
        return r;
    ref = vdi->ref;
    uuid = arena_strdup(call->arena, VDI_get_uuid(vdi));
    if (base && ref_equal(base->ref, ref))
        return fail(call, INVALID_VALUE, "base", ref_text(call, ref)); /* from itself a disk does not differ */
    if (base) {
        base_ref = base->ref;
        base_uuid = arena_strdup(call->arena, VDI_get_uuid(base));
    }
    r = http_transfer_task(transfer, "VDI.export_raw_vdi", transfer_about(call, "VDI", uuid, VDI_get_name_label(vdi)));
    if (r == 0)
        r = take_disk(transfer, ref, &claim, &disks[0]);
    if (r == 0 && !ref_is_null(base_ref))
        r = take_disk(transfer, base_ref, &base_claim, &disks[1]);
    if (r < 0)
        return r;
    set = VALUE_SET(ref_is_null(base_ref) ? 1 : 2, disks);
    options = text_map(call->arena, "format", format->name, "uuid", uuid, "base_uuid", base_uuid, "file_name",
                       arena_text(call->arena, "%s.%s", uuid, format->name), "content_type", format->content_type, "task",
                       ref_is_null(call->task) ? "" : ref_text(call, call->task), NULL);
    task_set_cancellable(call, true);
    r = slave_export_raw(call, transfer->host, &(struct slave_export_raw_args){transfer->id, &set, &options}, NULL);
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
        return fail(call, VDI_MISSING, "", "vdi=, or sr_id= for a new disk, is needed");
    r = transfer_sr(call, view, params, &sr);
    if (r == 0)
        transfer_needs_add(ret, sr->ref);
    return r;
}

static int receive(struct http_transfer *transfer, ref_t ref, const struct format *format)
{
    struct call *call = transfer->call;
    struct value disk, options;
    int r = transfer_disk(call, ref, transfer->host, "vdi", &disk);

    if (r < 0)
        return r;
    options = text_map(call->arena, "format", format->name, "chunked",
                       transfer_param(transfer->params, "chunked") ? "true" : "false", "task",
                       ref_text(call, call->task), NULL);
    task_set_cancellable(call, true);
    r = slave_import_raw(call, transfer->host, &(struct slave_import_raw_args){transfer->id, &disk, &options}, NULL);
    r = http_transfer_settle(transfer, r);
    task_set_cancellable(call, false);
    return r;
}

/* Over what a disk holds. It is busy for everybody else meanwhile, and no VM may have it open. */
static int run_import_into(struct http_transfer *transfer, const struct format *format)
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
    r = http_transfer_task(transfer, "VDI.import_raw_vdi",
                           transfer_about(call, "VDI", VDI_get_uuid(vdi), VDI_get_name_label(vdi)));
    if (r == 0)
        r = transfer_claim(&claim, call, CLASS_OF(VDI), ref, vdi_operations_update);
    if (r < 0)
        return r;
    raw_write_begin(transfer, ref);
    r = raw_write_end(transfer, &claim, receive(transfer, ref, format));
    if (!transfer->is_left) /* else its disk may not answer that either */
        storage_refresh_later(call, sr, transfer->host);
    return r;
}

/* Into a new disk of the body's size. */
static int run_import_new(struct http_transfer *transfer, const struct format *format)
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
    if (!streq(format->name, "raw") || transfer_param(transfer->params, "chunked"))
        return fail(call, VDI_MISSING, ref_text(call, sr_ref), /* only plain bytes tell the size beforehand */
                    streq(format->name, "raw") ? "chunked needs vdi=" : arena_text(call->arena, "format %s needs vdi=", format->name));
    if (transfer->length <= 0 || transfer->length > VDI_BYTES_MAX)
        return fail(call, INVALID_VALUE, "content-length", int_text(call, transfer->length));
    r = http_transfer_task(transfer, "VDI.import_raw_vdi",
                           transfer_about(call, "new disk in SR", SR_get_uuid(sr), SR_get_name_label(sr)));
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
    if (transfer->is_left)
        disks_leave(disks); /* the host may be at its file: it goes when that is over */
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    r = disks_keep(disks, txn);
    if (r < 0)
        return r;
    call->reply = VALUE_REF(vdi);
    task_put_end(call->core, txn, call->task, &call->reply, NULL); /* as import.c keeps its VMs */
    call_commit(call, &txn);
    storage_refresh_later(call, sr_ref, transfer->host);
    return 0;
}

static int run_import(struct http_transfer *transfer)
{
    const struct format *format;
    int r = find_format(transfer->call, transfer->params, &format);

    if (r == 0 && transfer_param(transfer->params, "base"))
        r = refuse(transfer->call, 400, "Differences are not taken in");
    if (r < 0 || http_transfer_is_probe(transfer))
        return r;
    return transfer_param(transfer->params, "vdi") ? run_import_into(transfer, format) : run_import_new(transfer, format);
}

const struct transfer_kind transfer_export_raw = {
    .name = "VDI.export_raw_vdi",
    .realm = "export_raw_vdi",
    .least = ROLE_VM_ADMIN,
    .needs = needs_export,
    .run = run_export,
};

const struct transfer_kind transfer_import_raw = {
    .name = RAW_WRITE,
    .realm = "import_raw_vdi",
    .is_upload = true,
    .least = ROLE_VM_ADMIN,
    .needs = needs_target,
    .run = run_import,
    .recover = raw_write_recover,
};
