/* SR.c - storage repositories: made, introduced, forgotten, destroyed
 *
 *   create      SR and PBDs in the store --> sr_create on the given host --> sr_attach on all hosts
 * (shared) or it alone introduce   the SR alone; PBD.create and PBD.plug follow forget      records
 * only; the files stay destroy     sr_destroy on a host that has a PBD, then the records */
#include "master/SR.h"

#include <ctype.h>

#include "master/blob.h"
#include "master/claim.h"
#include "master/slaves.h"
#include "shared/fiber.h"

/* Types are found in either case, as xapi does. */
static const struct sr_driver *driver_named(struct call *call, const char *type)
{
    char *lower = arena_strdup(call->arena, type);
    const struct sr_driver *driver;

    for (char *p = lower; *p; p++)
        *p = (char) tolower((unsigned char) *p);
    driver = sr_driver(lower);
    if (!driver)
        fail(call, SR_UNKNOWN_DRIVER, type);
    return driver;
}

static int check_device_config(struct call *call, const struct sr_driver *driver,
                               const struct value *device_config)
{
    const char *location = storage_directory(device_config);

    if (!driver->needs_location)
        return 0;
    if (location[0] != '/')
        return failure_set_text(
            &call->failure, call->arena, "SR_BACKEND_FAILURE_90", 3,
            (const char *const[]){"", "device_config needs location, an absolute path", ""});
    return 0;
}

static struct object *draft_sr(struct call *call, const struct sr_driver *driver,
                               const char *name_label, const char *name_description,
                               const char *content_type, bool is_shared,
                               const struct value *sm_config)
{
    struct object *draft = draft_new(call->arena, CLASS_OF(SR));
    struct value *fields = draft->fields;

    fields[F_SR_name_label] = value_text(name_label);
    fields[F_SR_name_description] = value_text(name_description);
    fields[F_SR_type] = value_text(driver->type);
    fields[F_SR_content_type] = value_text(*content_type        ? content_type
                                           : driver->is_content ? "iso"
                                                                : "user");
    fields[F_SR_shared] = VALUE_BOOL(is_shared);
    fields[F_SR_sm_config] = *sm_config;
    fields[F_SR_default_vdi_visibility] = VALUE_BOOL(true);
    return draft;
}

/* The SR and its PBDs; nothing else refers to them yet. */
static void drop_records(struct txn *txn, ref_t sr)
{
    struct view_iter iter;
    const struct object *object;
    ref_t ref;

    while (view_each_inverse(&iter, txn_view(txn), &CLASS_OF(SR)->fields[F_SR_VDIs], sr),
           (object = view_next(&iter)))
        storage_drop_vdi(txn, object->ref);
    while (view_each_inverse(&iter, txn_view(txn), &CLASS_OF(SR)->fields[F_SR_PBDs], sr),
           (object = view_next(&iter))) {
        ref = object->ref;
        txn_delete(txn, CLASS_OF(PBD), ref);
    }
    blobs_delete(txn, SR_get_blobs(txn_get(txn, SR, sr)));
    txn_delete(txn, CLASS_OF(SR), sr);
}

/* A creation that failed leaves nothing: what was attached is detached, the records go. */
static void take_back(struct call *call, ref_t sr)
{
    struct failure before = call->failure;
    _cleanup_(txn_end) struct txn *txn = NULL;

    fiber_uncancellable_begin();
    txn = store_begin(call->core->store);
    if (txn_get(txn, SR, sr))
        drop_records(txn, sr);
    call_commit(call, &txn);
    fiber_uncancellable_end();
    call->failure = before;
}

/* The store's part of SR.create: SR and PBDs. */
static int create_records(struct call *call, const struct SR_create_args *args,
                          const struct sr_driver *driver, ref_t *ret_sr)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct object *draft = draft_sr(call, driver, args->name_label, args->name_description,
                                    args->content_type, args->shared, args->sm_config);
    const struct object *host;
    struct view_iter hosts;

    if (!live(call, txn_view(txn), host, args->host))
        return -ERR_HANDLE_INVALID;
    draft->fields[F_SR_physical_size] = VALUE_INT(args->physical_size);
    if (streq(driver->type, "shared-file"))
        draft->fields[F_SR_sm_config] =
            map_with_text(call->arena, args->sm_config, STORAGE_MARKER, "true");
    *ret_sr = draft_create(call, txn, draft);
    view_each(&hosts, txn_view(txn), CLASS_OF(host));
    while ((host = view_next(&hosts)))
        if (args->shared || ref_equal(host->ref, args->host))
            pbd_create(call, txn, host->ref, *ret_sr, args->device_config);
    return call_commit(call, &txn);
}

/* Attach on all hosts that have a PBD; on the others than `first` a failure only leaves the PBD
 * unplugged. */
static int attach_all(struct call *call, ref_t sr, ref_t first)
{
    const struct object *pbd = storage_pbd(call_view(call), sr, first);
    struct value pbds;
    int r;

    if (!pbd)
        return fail(call, SR_NOT_ATTACHED, ref_text(call, sr));
    r = pbd_attach(call, pbd->ref);
    if (r < 0)
        return r;
    pbds = view_inverse(call_view(call), &CLASS_OF(SR)->fields[F_SR_PBDs], sr, call->arena);
    for (uint32_t i = 0; i < pbds.length; i++) {
        pbd = view_get(call_view(call), PBD, pbds.items[i].ref);
        if (pbd && !PBD_get_currently_attached(pbd))
            pbd_attach(call, pbds.items[i].ref);
    }
    call->failure.code = 0;
    return 0;
}

int SR_create(struct call *call, const struct SR_create_args *args, struct value *ret)
{
    const struct sr_driver *driver = driver_named(call, args->type);
    struct slave_sr_create_args create;
    struct value map;
    ref_t sr = NULL_REF;
    int r;

    if (!driver)
        return -ERR_SR_UNKNOWN_DRIVER;
    if (args->shared && streq(driver->type, "file"))
        return fail(call, INVALID_VALUE, "shared", "true");
    r = check_device_config(call, driver, args->device_config);
    if (r < 0)
        return r;
    r = create_records(call, args, driver, &sr);
    if (r < 0)
        return r;
    r = storage_sr_map(call, sr, args->host, &map);
    if (r == 0) {
        create.sr = &map;
        r = slave_sr_create(call, args->host, &create, NULL);
    }
    if (r == 0)
        r = attach_all(call, sr, args->host);
    if (r < 0) {
        take_back(call, sr);
        return r;
    }
    *ret = VALUE_REF(sr);
    return 0;
}

int SR_introduce(struct call *call, const struct SR_introduce_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct sr_driver *driver = driver_named(call, args->type);
    struct object *draft;
    const char *uuid;
    int r;

    if (!driver)
        return -ERR_SR_UNKNOWN_DRIVER;
    r = uuid_wanted(call, args->uuid, &uuid);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    if (view_by_uuid(txn_view(txn), CLASS_OF(SR), uuid))
        return fail(call, SR_UUID_EXISTS, uuid);
    draft = draft_sr(call, driver, args->name_label, args->name_description, args->content_type,
                     args->shared, args->sm_config);
    draft->fields[F_SR_uuid] = value_text(uuid);
    *ret = VALUE_REF(draft_create(call, txn, draft));
    return call_commit(call, &txn);
}

int SR_forget(struct call *call, const struct SR_forget_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(SR), args->sr, storage_operations_forget);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    claim_end_txn(&claim, txn);
    if (txn_get(txn, SR, args->sr))
        drop_records(txn, args->sr);
    return call_commit(call, &txn);
}

int SR_destroy(struct call *call, const struct SR_destroy_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct slave_sr_destroy_args destroy;
    const struct object *pbd;
    struct view_iter pbds;
    struct value map;
    ref_t host;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(SR), args->sr, storage_operations_destroy);
    if (r < 0)
        return r;
    view_each_inverse(&pbds, call_view(call), &CLASS_OF(SR)->fields[F_SR_PBDs], args->sr);
    pbd = view_next(&pbds);
    if (!pbd)
        return fail(call, SR_HAS_NO_PBDS, ref_text(call, args->sr));
    host = PBD_get_host(pbd);
    r = storage_sr_map(call, args->sr, host, &map);
    if (r < 0)
        return r;
    destroy.sr = &map;
    r = slave_sr_destroy(call, host, &destroy, NULL);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    claim_end_txn(&claim, txn);
    if (txn_get(txn, SR, args->sr))
        drop_records(txn, args->sr);
    return call_commit(call, &txn);
}

/* A directory is probed by looking whether SRs of ours use it already. */
int SR_probe(struct call *call, const struct SR_probe_args *args, struct value *ret)
{
    const struct sr_driver *driver = driver_named(call, args->type);
    const char *location = storage_directory(args->device_config);
    const char *text = "<?xml version=\"1.0\" ?><SRlist>";
    const struct object *pbd;
    struct view_iter pbds;
    int r;

    if (!driver)
        return -ERR_SR_UNKNOWN_DRIVER;
    r = check_device_config(call, driver, args->device_config);
    if (r < 0)
        return r;
    view_each_inverse(&pbds, call_view(call), &CLASS_OF(host)->fields[F_host_PBDs], args->host);
    while ((pbd = view_next(&pbds))) {
        const struct object *sr = view_get(call_view(call), SR, PBD_get_SR(pbd));

        if (sr && streq(SR_get_type(sr), driver->type)
            && streq(storage_directory(PBD_get_device_config(pbd)), location))
            text = arena_text(call->arena, "%s<SR><UUID>%s</UUID></SR>", text, SR_get_uuid(sr));
    }
    *ret = value_text(arena_text(call->arena, "%s</SRlist>", text));
    return 0;
}

/* ---- fields ---- */

int SR_set_shared(struct call *call, const struct SR_set_shared_args *args, struct value *ret)
{
    struct view_iter pbds;
    const struct object *first;

    (void) ret;
    view_each_inverse(&pbds, call_view(call), &CLASS_OF(SR)->fields[F_SR_PBDs], args->sr);
    first = view_next(&pbds);
    if (!args->value && first && view_next(&pbds))
        return fail(call, SR_HAS_MULTIPLE_PBDS, ref_text(call, first->ref));
    return field_set(call, CLASS_OF(SR), args->sr, F_SR_shared, VALUE_BOOL(args->value));
}

SETTER(SR, name_label, sr, value_text)
SETTER(SR, name_description, sr, value_text)
SETTER_WITHIN(SR, physical_size, self, SR_BYTES_MAX)
SETTER_WITHIN(SR, virtual_allocation, self, SR_BYTES_MAX)
SETTER_WITHIN(SR, physical_utilisation, self, SR_BYTES_MAX)

/* Hosts that live and see the SR. */
int SR_get_live_hosts(struct call *call, const struct SR_get_live_hosts_args *args,
                      struct value *ret)
{
    const struct view *view = call_view(call);
    size_t count = view_count_inverse(view, &CLASS_OF(SR)->fields[F_SR_PBDs], args->sr);
    struct value *items = arena_alloc_array(call->arena, count, sizeof *items);
    const struct object *pbd;
    struct view_iter pbds;
    uint32_t n = 0;

    view_each_inverse(&pbds, view, &CLASS_OF(SR)->fields[F_SR_PBDs], args->sr);
    while ((pbd = view_next(&pbds))) {
        const struct object *host = view_get(view, host, PBD_get_host(pbd));
        const struct object *metrics =
            host ? view_get(view, host_metrics, host_get_metrics(host)) : NULL;

        if (PBD_get_currently_attached(pbd) && metrics && host_get_enabled(host)
            && host_metrics_get_live(metrics))
            items[n++] = VALUE_REF(host->ref);
    }
    *ret = VALUE_SET(n, items);
    return 0;
}
