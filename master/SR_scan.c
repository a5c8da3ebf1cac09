/* SR_scan.c - an SR's files against its VDIs
 *
 * Unknown files become VDIs, known ones get their sizes, and a VDI without its file is marked
 * missing - not deleted, as xapi would: a directory that is not mounted for a moment must not cost
 * anybody the links between VMs and disks. */
#include "master/SR.h"
#include "master/claim.h"
#include "master/slaves.h"

static int64_t file_int(const struct value *file, const char *key)
{
    return strtoll(value_map_text(file, key, "0"), NULL, 10);
}

/* A file's name without its ending. */
static const char *stem(struct arena *arena, const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot ? arena_text(arena, "%.*s", (int) (dot - name), name) : name;
}

/* Images of suspended guests are told by their names. */
static enum vdi_type type_of(const char *location)
{
    const char *dot = strrchr(location, '.');

    return dot && streq(dot, ".suspend") ? vdi_type_suspend : vdi_type_user;
}

/* A new VDI for a file that nobody knows. Our own files are named by the VDI's uuid, which it gets
 * back. */
static void introduce(struct call *call, struct txn *txn, ref_t sr, const struct sr_driver *driver,
                      const struct value *file)
{
    struct object *draft = draft_new(call->arena, CLASS_OF(VDI));
    const char *location = value_map_text(file, "location", "");
    const char *name = stem(call->arena, location);
    struct value *fields = draft->fields;
    ref_t uuid;

    if (uuid_parse(name, strlen(name), &uuid)
        && !view_by_uuid(txn_view(txn), CLASS_OF(VDI), name)) {
        char canonical[UUID_TEXT_BYTES];

        fields[F_VDI_uuid] = value_text(arena_strdup(call->arena, uuid_print(canonical, uuid)));
    } else {
        fields[F_VDI_name_label] = value_text(location);
    }
    fields[F_VDI_SR] = VALUE_REF(sr);
    fields[F_VDI_location] = value_text(location);
    fields[F_VDI_type] = VALUE_ENUM(vdi_type, type_of(location));
    fields[F_VDI_read_only] = VALUE_BOOL(driver->is_content);
    fields[F_VDI_managed] = VALUE_BOOL(true);
    fields[F_VDI_virtual_size] = VALUE_INT(file_int(file, "virtual_size"));
    fields[F_VDI_physical_utilisation] = VALUE_INT(file_int(file, "physical_utilisation"));
    fields[F_VDI_sm_config] =
        text_map(call->arena, "image-format", value_map_text(file, "format", "raw"), NULL);
    draft_create(call, txn, draft);
}

static int by_location(const void *a, const void *b)
{
    return strcmp(value_map_text(a, "location", ""), value_map_text(b, "location", ""));
}

int sr_read_content(struct call *call, ref_t sr_ref, ref_t host)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct slave_sr_scan_args scan;
    const struct sr_driver *driver;
    const struct object *sr, *vdi;
    struct value map, files, refs, *sorted;
    int64_t allocated = 0;
    bool *is_known;
    int r;

    r = storage_sr_map(call, sr_ref, host, &map);
    if (r < 0)
        return r;
    scan.sr = &map;
    r = slave_sr_scan(call, host, &scan, &files);
    if (r < 0)
        return r;

    txn = store_begin(call->core->store);
    sr = live(call, txn_view(txn), SR, sr_ref);
    driver = sr ? sr_driver(SR_get_type(sr)) : NULL;
    if (!driver)
        return sr ? fail(call, SR_UNKNOWN_DRIVER, SR_get_type(sr)) : -ERR_HANDLE_INVALID;
    sorted = arena_dup(call->arena, files.items, files.length * sizeof *sorted);
    qsort(sorted, files.length, sizeof *sorted, by_location);
    is_known = arena_alloc(call->arena, files.length);

    /* The puts change what the index yields, so the refs are taken down first. */
    refs = view_inverse(txn_view(txn), &CLASS_OF(SR)->fields[F_SR_VDIs], sr_ref, call->arena);
    for (uint32_t i = 0; i < refs.length; i++) {
        ref_t ref = refs.items[i].ref;
        struct value key, *file;

        vdi = txn_get(txn, VDI, ref);
        key = text_map(call->arena, "location", VDI_get_location(vdi), NULL);
        file = bsearch(&key, sorted, files.length, sizeof *sorted, by_location);
        if (file)
            is_known[file - sorted] = true;
        if (!streq(VDI_get_maker(vdi), ""))
            continue;
        if (streq(driver->type, "dummy"))
            file = NULL;
        else
            VDI_put_missing(txn, ref, !file);
        if (file) {
            VDI_put_virtual_size(txn, ref, file_int(file, "virtual_size"));
            VDI_put_physical_utilisation(txn, ref, file_int(file, "physical_utilisation"));
        }
        allocated += VDI_get_virtual_size(txn_get(txn, VDI, ref));
    }
    for (uint32_t i = 0; i < files.length; i++)
        if (!is_known[i]) {
            introduce(call, txn, sr_ref, driver, &sorted[i]);
            allocated += file_int(&sorted[i], "virtual_size");
        }
    SR_put_virtual_allocation(txn, sr_ref, allocated);
    call_commit(call, &txn);
    storage_refresh(call, sr_ref, host);
    return 0;
}

int SR_scan(struct call *call, const struct SR_scan_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    ref_t host;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(SR), args->sr, storage_operations_scan);
    if (r < 0)
        return r;
    r = storage_host(call, args->sr, &host);
    if (r < 0)
        return r;
    return sr_read_content(call, args->sr, host);
}

int SR_update(struct call *call, const struct SR_update_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    ref_t host;
    int r;

    (void) ret;
    r = claim_begin(&claim, call, CLASS_OF(SR), args->sr, storage_operations_update);
    if (r < 0)
        return r;
    r = storage_host(call, args->sr, &host);
    if (r < 0)
        return r;
    storage_refresh(call, args->sr, host);
    return 0;
}
