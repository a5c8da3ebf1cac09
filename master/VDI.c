/* VDI.c - virtual disks: made, copied, resized, removed; and what a client may say of them
 *
 * Files are the slaves' work (storage.h). The checks are those of wire.md section 10, by the
 * claims. */
#include "master/claim.h"
#include "master/lifecycle.h"
#include "master/slaves.h"
#include "master/snapshot.h"
#include "master/storage.h"
#include "master/task.h"
#include "shared/clock.h"

/* What a new disk begins as, whatever it is made from. */
static struct object *new_draft(struct call *call, const struct value *fields)
{
    struct object *draft = draft_of(call->arena, CLASS_OF(VDI), fields);

    draft->fields[F_VDI_allowed_operations] = VALUE_EMPTY_SET;
    draft->fields[F_VDI_current_operations] = VALUE_EMPTY_MAP;
    draft->fields[F_VDI_missing] = VALUE_BOOL(false);
    draft->fields[F_VDI_storage_lock] = VALUE_BOOL(false);
    draft->fields[F_VDI_parent] = VALUE_REF(NULL_REF);
    return draft;
}

/* The disk is made: everybody may see it. */
static int show(struct disks *disks, ref_t vdi, struct value *ret)
{
    struct call *call = disks->call;
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    int r = disks_keep(disks, txn);

    if (r < 0)
        return r;
    *ret = VALUE_REF(vdi);
    return call_commit(call, &txn);
}

int VDI_create(struct call *call, const struct VDI_create_args *args, struct value *ret)
{
    _cleanup_(disks_undo) struct disks *disks = NULL;
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct object *draft = new_draft(call, args->args->record.fields);
    ref_t vdi;
    int r;

    if (VDI_get_virtual_size(draft) <= 0 || VDI_get_virtual_size(draft) > VDI_BYTES_MAX)
        return fail(call, INVALID_VALUE, "virtual_size",
                    int_text(call, VDI_get_virtual_size(draft)));
    r = storage_check_SR(call, VDI_get_SR(draft), storage_operations_vdi_create);
    if (r < 0)
        return r;

    disks = disks_new(call);
    txn = store_begin(call->core->store);
    vdi = disks_add(disks, txn, draft);
    call_commit(call, &txn);

    r = disk_make_empty(disks, vdi);
    if (r < 0)
        return r;
    return show(disks, vdi, ret);
}

int VDI_destroy(struct call *call, const struct VDI_destroy_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(VDI), args->self, vdi_operations_destroy);
    if (r < 0)
        return r;
    return disk_remove(call, args->self);
}

struct object *vdi_draft_copy(struct call *call, const struct object *vdi)
{
    struct object *draft = new_draft(call, vdi->fields);

    draft->fields[F_VDI_is_a_snapshot] = VALUE_BOOL(false);
    draft->fields[F_VDI_snapshot_of] = VALUE_REF(NULL_REF);
    draft->fields[F_VDI_snapshot_time] = VALUE_DATETIME(0);
    draft->fields[F_VDI_is_tools_iso] = VALUE_BOOL(false);
    return draft;
}

void vdi_draft_snapshot(struct snapshot *snapshot, struct object *draft, ref_t source)
{
    draft->fields[F_VDI_is_a_snapshot] = VALUE_BOOL(true);
    draft->fields[F_VDI_snapshot_of] = VALUE_REF(source);
    draft->fields[F_VDI_snapshot_time] = VALUE_DATETIME(clock_utc_s(snapshot->call->core->clock));
}

/* ---- clones and snapshots ---- */

struct clone {
    ref_t source;
    const struct value *driver_params; /* into the new disk's sm_config */
};

static void draft_clone(struct snapshot *snapshot, struct object *draft, ref_t source)
{
    struct arena *arena = snapshot->call->arena;
    const struct clone *clone = snapshot->arg;
    const struct value *driver_params = clone->driver_params;

    if (snapshot->operation == vdi_operations_snapshot)
        vdi_draft_snapshot(snapshot, draft, source);
    for (uint32_t i = 0; i < driver_params->length; i++)
        draft->fields[F_VDI_sm_config] =
            map_with_text(arena, VDI_get_sm_config(draft), driver_params->items[2 * i].text,
                          driver_params->items[2 * i + 1].text);
}

static int choose_one(struct snapshot *snapshot, const struct view *view)
{
    const struct clone *clone = snapshot->arg;

    (void) view;
    return snapshot_add(snapshot, clone->source);
}

static int nothing_more(struct snapshot *snapshot, struct txn *txn)
{
    (void) snapshot;
    (void) txn;
    return 0;
}

static int clone_or_snapshot(struct call *call, ref_t vdi, enum vdi_operations operation,
                             const struct value *driver_params, struct value *ret)
{
    struct clone clone = {vdi, driver_params};
    _cleanup_(snapshot_end) struct snapshot snapshot = {
        .call = call,
        .vm = storage_writer(call_view(call), vdi),
        .operation = operation,
        .is_of_disk = true,
        .choose = choose_one,
        .draft = draft_clone,
        .finish = nothing_more,
        .arg = &clone,
    };
    const struct object *record = live(call, call_view(call), VDI, vdi);
    int r;

    if (!record)
        return -ERR_HANDLE_INVALID;
    /* Several guests may write to it, and no one host can have them all stand still. */
    if (!ref_is_null(snapshot.vm) && VDI_get_sharable(record)
        && operation == vdi_operations_clone)
        return fail(call, VDI_IN_USE, ref_text(call, vdi), "clone");
    r = snapshot_run(&snapshot);
    *ret = VALUE_REF(snapshot_made(&snapshot, vdi));
    return r;
}

int VDI_snapshot(struct call *call, const struct VDI_snapshot_args *args, struct value *ret)
{
    return clone_or_snapshot(call, args->vdi, vdi_operations_snapshot, args->driver_params, ret);
}

int VDI_clone(struct call *call, const struct VDI_clone_args *args, struct value *ret)
{
    return clone_or_snapshot(call, args->vdi, vdi_operations_clone, args->driver_params, ret);
}

/* ---- copies ---- */

static int copy(struct call *call, ref_t source, ref_t to_sr, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(disks_undo) struct disks *disks = NULL;
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *old;
    struct object *draft;
    ref_t vdi;
    int r;

    r = claim_begin(&claim, call, CLASS_OF(VDI), source, vdi_operations_copy);
    if (r < 0)
        return r;
    old = live(call, call_view(call), VDI, source);
    if (!old)
        return -ERR_HANDLE_INVALID;
    if (ref_is_null(to_sr))
        to_sr = VDI_get_SR(old);
    r = storage_check_SR(call, to_sr, storage_operations_vdi_create);
    if (r < 0)
        return r;

    disks = disks_new(call);
    txn = store_begin(call->core->store);
    old = live(call, txn_view(txn), VDI, source);
    if (!old)
        return -ERR_HANDLE_INVALID;
    draft = vdi_draft_copy(call, old);
    draft->fields[F_VDI_SR] = VALUE_REF(to_sr);
    vdi = disks_add(disks, txn, draft);
    call_commit(call, &txn);

    task_set_cancellable(call, true);
    r = disk_make_copy(disks, vdi, source);
    task_set_cancellable(call, false);
    if (r < 0)
        return r;
    return show(disks, vdi, ret);
}

int VDI_copy(struct call *call, const struct VDI_copy_args *args, struct value *ret)
{
    /* Copies into a disk that stands, or of the difference to another disk, come with changed block
     * tracking. */
    if (!ref_is_null(args->base_vdi) || !ref_is_null(args->into_vdi))
        return fail(call, NOT_IMPLEMENTED, "VDI.copy with base_vdi or into_vdi");
    return copy(call, args->vdi, args->sr, ret);
}

int VDI_resize(struct call *call, const struct VDI_resize_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct slave_disk_resize_args resize = {.virtual_size = args->size};
    const struct object *vdi;
    struct value sr, answer;
    int64_t virtual_size, physical_utilisation;
    ref_t sr_ref, host;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(VDI), args->vdi, vdi_operations_resize);
    if (r < 0)
        return r;
    vdi = live(call, call_view(call), VDI, args->vdi);
    if (!vdi)
        return -ERR_HANDLE_INVALID;
    /* A disk never shrinks: what the guest keeps at its end would be lost. */
    if (args->size < VDI_get_virtual_size(vdi))
        return fail(call, VDI_TOO_SMALL, ref_text(call, args->vdi),
                    int_text(call, VDI_get_virtual_size(vdi)));
    if (args->size > VDI_BYTES_MAX)
        return fail(call, VDI_TOO_LARGE, ref_text(call, args->vdi), int_text(call, VDI_BYTES_MAX));
    sr_ref = VDI_get_SR(vdi);
    resize.location = arena_strdup(call->arena, VDI_get_location(vdi));
    r = storage_host_map(call, sr_ref, &host, &sr);
    if (r < 0)
        return r;
    resize.sr = &sr;
    r = slave_disk_resize(call, host, &resize, &answer);
    if (r < 0)
        return r;

    txn = store_begin(call->core->store);
    vdi = live(call, txn_view(txn), VDI, args->vdi);
    if (!vdi)
        return -ERR_HANDLE_INVALID;
    virtual_size =
        strtoll(value_map_text(&answer, "virtual_size", int_text(call, args->size)), NULL, 10);
    physical_utilisation =
        strtoll(value_map_text(&answer, "physical_utilisation",
                               int_text(call, VDI_get_physical_utilisation(vdi))),
                NULL, 10);
    storage_count(txn, sr_ref, virtual_size - VDI_get_virtual_size(vdi),
                  physical_utilisation - VDI_get_physical_utilisation(vdi));
    VDI_put_virtual_size(txn, args->vdi, virtual_size);
    VDI_put_physical_utilisation(txn, args->vdi, physical_utilisation);
    return call_commit(call, &txn);
}

int VDI_forget(struct call *call, const struct VDI_forget_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(VDI), args->vdi, vdi_operations_forget);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    claim_end_txn(&claim, txn);
    if (txn_get(txn, VDI, args->vdi))
        storage_drop_vdi(txn, args->vdi);
    return call_commit(call, &txn);
}

/* ---- disks that exist already ---- */

/* What the SR says of one file; -ERR_VDI_LOCATION_MISSING [sr, location] when it has none. */
static int find_file(struct call *call, ref_t sr_ref, const char *location, struct value *ret)
{
    struct slave_sr_scan_args scan;
    struct value sr, files;
    ref_t host;
    int r;

    r = storage_host_map(call, sr_ref, &host, &sr);
    if (r < 0)
        return r;
    scan.sr = &sr;
    r = slave_sr_scan(call, host, &scan, &files);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < files.length; i++)
        if (streq(value_map_text(&files.items[i], "location", ""), location)) {
            *ret = files.items[i];
            return 0;
        }
    return fail(call, VDI_LOCATION_MISSING, ref_text(call, sr_ref), location);
}

static const struct object *vdi_at(const struct view *view, ref_t sr, const char *location)
{
    const struct object *vdi;
    struct view_iter vdis;

    view_each_inverse(&vdis, view, &CLASS_OF(SR)->fields[F_SR_VDIs], sr);
    while ((vdi = view_next(&vdis)))
        if (streq(VDI_get_location(vdi), location))
            return vdi;
    return NULL;
}

static int64_t file_int(const struct value *file, const char *key)
{
    return strtoll(value_map_text(file, key, "0"), NULL, 10);
}

int VDI_introduce(struct call *call, const struct VDI_introduce_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct object *draft = draft_new(call->arena, CLASS_OF(VDI));
    struct value *fields = draft->fields;
    struct value file;
    const char *uuid;
    int r;

    r = uuid_wanted(call, args->uuid, &uuid);
    if (r < 0)
        return r;
    r = storage_check_SR(call, args->SR, storage_operations_vdi_introduce);
    if (r < 0)
        return r;
    r = find_file(call, args->SR, args->location, &file);
    if (r < 0)
        return r;

    txn = store_begin(call->core->store);
    if (!live(call, txn_view(txn), SR, args->SR))
        return -ERR_HANDLE_INVALID;
    if (vdi_at(txn_view(txn), args->SR, args->location))
        return fail(call, LOCATION_NOT_UNIQUE, ref_text(call, args->SR), args->location);
    if (view_by_uuid(txn_view(txn), CLASS_OF(VDI), uuid))
        return fail(call, INVALID_VALUE, "uuid", uuid);
    fields[F_VDI_uuid] = value_text(uuid);
    fields[F_VDI_name_label] = value_text(args->name_label);
    fields[F_VDI_name_description] = value_text(args->name_description);
    fields[F_VDI_SR] = VALUE_REF(args->SR);
    fields[F_VDI_type] = VALUE_ENUM(vdi_type, (int) args->type);
    fields[F_VDI_sharable] = VALUE_BOOL(args->sharable);
    fields[F_VDI_read_only] = VALUE_BOOL(args->read_only);
    fields[F_VDI_other_config] = *args->other_config;
    fields[F_VDI_location] = value_text(args->location);
    fields[F_VDI_xenstore_data] = *args->xenstore_data;
    fields[F_VDI_sm_config] = map_with_text(call->arena, args->sm_config, "image-format",
                                            value_map_text(&file, "format", "raw"));
    fields[F_VDI_managed] = VALUE_BOOL(args->managed);
    fields[F_VDI_virtual_size] = VALUE_INT(file_int(&file, "virtual_size"));
    fields[F_VDI_physical_utilisation] = VALUE_INT(file_int(&file, "physical_utilisation"));
    fields[F_VDI_metadata_of_pool] = VALUE_REF(args->metadata_of_pool);
    fields[F_VDI_is_a_snapshot] = VALUE_BOOL(args->is_a_snapshot);
    fields[F_VDI_snapshot_time] = VALUE_DATETIME(args->snapshot_time);
    fields[F_VDI_snapshot_of] = VALUE_REF(args->snapshot_of);
    *ret = VALUE_REF(draft_create(call, txn, draft));
    storage_count(txn, args->SR, VDI_get_virtual_size(draft), VDI_get_physical_utilisation(draft));
    return call_commit(call, &txn);
}

int VDI_update(struct call *call, const struct VDI_update_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *vdi;
    struct value file;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(VDI), args->vdi, vdi_operations_update);
    if (r < 0)
        return r;
    vdi = live(call, call_view(call), VDI, args->vdi);
    if (!vdi)
        return -ERR_HANDLE_INVALID;
    r = find_file(call, VDI_get_SR(vdi), arena_strdup(call->arena, VDI_get_location(vdi)), &file);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    vdi = live(call, txn_view(txn), VDI, args->vdi);
    if (!vdi)
        return -ERR_HANDLE_INVALID;
    storage_count(txn, VDI_get_SR(vdi), file_int(&file, "virtual_size") - VDI_get_virtual_size(vdi),
                  file_int(&file, "physical_utilisation") - VDI_get_physical_utilisation(vdi));
    VDI_put_virtual_size(txn, args->vdi, file_int(&file, "virtual_size"));
    VDI_put_physical_utilisation(txn, args->vdi, file_int(&file, "physical_utilisation"));
    return call_commit(call, &txn);
}

/* ---- fields ---- */

SETTER(VDI, name_label, self, value_text)
SETTER(VDI, name_description, self, value_text)
SETTER(VDI, sharable, self, VALUE_BOOL)
SETTER(VDI, managed, self, VALUE_BOOL)
SETTER(VDI, missing, self, VALUE_BOOL)
SETTER_WITHIN(VDI, virtual_size, self, VDI_BYTES_MAX)
SETTER_WITHIN(VDI, physical_utilisation, self, SR_BYTES_MAX)
SETTER(VDI, is_a_snapshot, self, VALUE_BOOL)
SETTER(VDI, snapshot_of, self, VALUE_REF)
SETTER(VDI, snapshot_time, self, VALUE_DATETIME)
SETTER(VDI, metadata_of_pool, self, VALUE_REF)
SETTER(VDI, allow_caching, self, VALUE_BOOL)

/* A disk that somebody writes cannot become read-only. */
int VDI_set_read_only(struct call *call, const struct VDI_set_read_only_args *args,
                      struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *vbd;
    struct view_iter vbds;

    (void) ret;
    view_each_inverse(&vbds, view, &CLASS_OF(VDI)->fields[F_VDI_VBDs], args->self);
    while (args->value && (vbd = view_next(&vbds)))
        if (VBD_get_currently_attached(vbd) && VBD_get_mode(vbd) == vbd_mode_RW)
            return fail(call, VDI_IN_USE, ref_text(call, args->self), "set_read_only");
    return field_set(call, CLASS_OF(VDI), args->self, F_VDI_read_only, VALUE_BOOL(args->value));
}

int VDI_set_on_boot(struct call *call, const struct VDI_set_on_boot_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(VDI), args->self, vdi_operations_set_on_boot);
    if (r < 0)
        return r;
    return field_set(call, CLASS_OF(VDI), args->self, F_VDI_on_boot,
                     VALUE_ENUM(on_boot, (int) args->value));
}
