/* lifecycle_storage.c - the rules of disks and storage repositories (VDI, SR), wire.md section 10
 */
#include "master/lifecycle_rules.h"

#include "master/storage.h"

/* What an operation takes of the storage driver, by the names of SM.features. Operations without a
 * row take nothing. */
static const char *const vdi_features[] = {
    [vdi_operations_clone] = "VDI_CLONE",
    [vdi_operations_resize] = "VDI_RESIZE",
    [vdi_operations_resize_online] = "VDI_RESIZE_ONLINE",
    [vdi_operations_snapshot] = "VDI_SNAPSHOT",
    [vdi_operations_mirror] = "VDI_MIRROR",
    [vdi_operations_destroy] = "VDI_DELETE",
    [vdi_operations_update] = "VDI_UPDATE",
    [vdi_operations_generate_config] = "VDI_GENERATE_CONFIG",
    [vdi_operations_enable_cbt] = "VDI_CONFIG_CBT",
    [vdi_operations_disable_cbt] = "VDI_CONFIG_CBT",
    [vdi_operations_data_destroy] = "VDI_CONFIG_CBT",
    [vdi_operations_list_changed_blocks] = "VDI_CONFIG_CBT",
    [vdi_operations_set_on_boot] = "VDI_RESET_ON_BOOT",
    [vdi_operations_revert_to] = "VDI_REVERT",
    [vdi_operations_revert_from] = "VDI_REVERT",
};

static const char *const sr_features[] = {
    [storage_operations_update] = "SR_UPDATE",
    [storage_operations_vdi_create] = "VDI_CREATE",
    [storage_operations_vdi_introduce] = "VDI_INTRODUCE",
    [storage_operations_vdi_destroy] = "VDI_DELETE",
    [storage_operations_vdi_resize] = "VDI_RESIZE",
    [storage_operations_vdi_clone] = "VDI_CLONE",
    [storage_operations_vdi_snapshot] = "VDI_SNAPSHOT",
    [storage_operations_vdi_mirror] = "VDI_MIRROR",
    [storage_operations_vdi_enable_cbt] = "VDI_CONFIG_CBT",
    [storage_operations_vdi_disable_cbt] = "VDI_CONFIG_CBT",
    [storage_operations_vdi_data_destroy] = "VDI_CONFIG_CBT",
    [storage_operations_vdi_list_changed_blocks] = "VDI_CONFIG_CBT",
    [storage_operations_vdi_set_on_boot] = "VDI_RESET_ON_BOOT",
    [storage_operations_vdi_generate_config] = "VDI_GENERATE_CONFIG",
    [storage_operations_vdi_resize_online] = "VDI_RESIZE_ONLINE",
    [storage_operations_vdi_update] = "VDI_UPDATE",
    [storage_operations_vdi_revert] = "VDI_REVERT",
};

/* The driver that serves an SR: the SM object of its type. */
static const struct object *driver_of(const struct view *view, const struct object *sr)
{
    const struct object *sm;
    struct view_iter drivers;

    view_each(&drivers, view, CLASS_OF(SM));
    while ((sm = view_next(&drivers)))
        if (streq(SM_get_type(sm), SR_get_type(sr)))
            return sm;
    return NULL;
}

static bool sr_can(const struct view *view, const struct object *sr, const char *feature)
{
    const struct object *sm = driver_of(view, sr);
    const struct value *features = sm ? SM_get_features(sm) : NULL;

    for (uint32_t i = 0; features && i < features->length; i++)
        if (streq(features->items[2 * i].text, feature))
            return true;
    return false;
}

bool sr_is_attached(const struct view *view, ref_t sr)
{
    const struct object *pbd;
    struct view_iter pbds;

    view_each_inverse(&pbds, view, &CLASS_OF(SR)->fields[F_SR_PBDs], sr);
    while ((pbd = view_next(&pbds)))
        if (PBD_get_currently_attached(pbd))
            return true;
    return false;
}

/* Operations that may run while a VM has the disk open. */
static bool is_live_capable(int operation)
{
    switch (operation) {
    case vdi_operations_snapshot:
    case vdi_operations_resize_online:
    case vdi_operations_blocked:
    case vdi_operations_clone:
    case vdi_operations_revert_to:
    case vdi_operations_mirror:
    case vdi_operations_enable_cbt:
    case vdi_operations_disable_cbt:
    case vdi_operations_data_destroy:
        return true;
    default:
        return false;
    }
}

static int check_vdi_users(struct check *check)
{
    const struct object *vdi = check->object, *vbd;
    const char *operation = operation_text(&enum_type_vdi_operations, check->operation);
    struct view_iter vbds;
    int r;

    view_each_inverse(&vbds, check->view, &CLASS_OF(VDI)->fields[F_VDI_VBDs], vdi->ref);
    while ((vbd = view_next(&vbds))) {
        bool is_still = VBD_get_mode(vbd) == vbd_mode_RO || !storage_is_open(check->view, vbd);
        const struct value *operations = VBD_get_current_operations(vbd);

        if ((VBD_get_currently_attached(vbd) || VBD_get_reserved(vbd))
            && !is_live_capable(check->operation)
            && !(check->operation == vdi_operations_copy && is_still))
            return refuse(check, VDI_IN_USE, check_self(check), operation);
        if (operations->length > 0) {
            if (!check->arena)
                return -ERR_OTHER_OPERATION_IN_PROGRESS;
            r = refuse(check, OTHER_OPERATION_IN_PROGRESS, "VDI", check_self(check),
                       operation_text(&enum_type_vbd_operations, operations->items[1].e.index),
                       operations->items[0].text);
            check->failure->in_way = vbd->ref;
            return r;
        }
    }
    return 0;
}

static int check_ha_vdi(struct check *check)
{
    enum vdi_type type = VDI_get_type(check->object);
    const struct object *pool;
    struct view_iter pools;

    if (type != vdi_type_ha_statefile && type != vdi_type_redo_log)
        return 0;
    if (check->operation == vdi_operations_copy)
        return refuse(check, OPERATION_NOT_ALLOWED,
                      "A disk of the pool's high availability cannot be copied");
    view_each(&pools, check->view, CLASS_OF(pool));
    pool = view_next(&pools);
    if (pool && pool_get_ha_enabled(pool))
        return refuse(check, HA_IS_ENABLED);
    return 0;
}

/* Copies and exports read the disk, for as long as it takes. In xapi they plug it into their host's control domain meanwhile, so
 * that what may not be done under a guest is refused; here it waits for their end, which the client of an export sees before
 * we do. */
static int check_others(struct check *check)
{
    bool is_beside_copies = check->operation == vdi_operations_copy || is_live_capable(check->operation);
    const struct value *operations = VDI_get_current_operations(check->object);

    for (uint32_t i = 0; i < operations->length; i++)
        if (!is_beside_copies || operations->items[2 * i + 1].e.index != vdi_operations_copy)
            return refuse_busy(check, check->object, "; ");
    return 0;
}

int check_VDI(struct check *check)
{
    const struct object *vdi = check->object;
    const struct object *sr = view_get(check->view, SR, VDI_get_SR(vdi));
    const char *feature;
    int r;

    /* In the making, or left half made: nobody's yet, whatever becomes of it. */
    if (!streq(VDI_get_maker(vdi), ""))
        return refuse(check, VDI_NOT_MANAGED, check_self(check));
    r = check_others(check);
    if (r < 0)
        return r;
    if (!sr)
        return refuse(check, HANDLE_INVALID, "SR", check_ref(check, VDI_get_SR(vdi)));
    if (check->operation == vdi_operations_resize && !sr_is_attached(check->view, sr->ref))
        return refuse_unlisted(check, "SR_NO_PBDS", 1, check_ref(check, sr->ref));
    r = check_vdi_users(check);
    if (r < 0)
        return r;
    feature =
        check->operation < (int) ARRAY_SIZE(vdi_features) ? vdi_features[check->operation] : NULL;
    if (feature && !sr_can(check->view, sr, feature))
        return refuse(check, SR_OPERATION_NOT_SUPPORTED, check_ref(check, sr->ref));

    switch (check->operation) {
    case vdi_operations_destroy:
        if (streq(SR_get_type(sr), "udev"))
            return refuse(check, VDI_IS_A_PHYSICAL_DEVICE, check_self(check));
        if (SR_get_is_tools_sr(sr))
            return refuse(check, SR_OPERATION_NOT_SUPPORTED, check_ref(check, sr->ref));
        if (VDI_get_type(vdi) == vdi_type_rrd)
            return refuse(check, VDI_HAS_RRDS, check_self(check));
        return check_ha_vdi(check);
    case vdi_operations_resize:
    case vdi_operations_forget:
    case vdi_operations_copy:
        return check_ha_vdi(check);
    case vdi_operations_snapshot:
        if (VDI_get_sharable(vdi))
            return refuse_unlisted(check, "VDI_IS_SHARABLE", 1, check_self(check));
        return 0;
    default:
        return 0;
    }
}

int check_SR(struct check *check)
{
    const struct object *sr = check->object, *vdi;
    const struct value *operations = SR_get_current_operations(sr);
    const char *feature =
        check->operation < (int) ARRAY_SIZE(sr_features) ? sr_features[check->operation] : NULL;
    struct view_iter vdis;

    if (feature && !sr_can(check->view, sr, feature))
        return refuse(check, SR_OPERATION_NOT_SUPPORTED, check_self(check));
    for (uint32_t i = 0; i < operations->length; i++)
        if (check->operation != storage_operations_plug
            || operations->items[2 * i + 1].e.index != storage_operations_plug)
            return refuse_busy(check, sr, "; ");

    if (check->operation == storage_operations_destroy
        || check->operation == storage_operations_forget) {
        if (sr_is_attached(check->view, sr->ref))
            return refuse(check, SR_HAS_PBD, check_self(check));
    }
    if (check->operation == storage_operations_destroy) {
        if (view_count_inverse(check->view, &CLASS_OF(SR)->fields[F_SR_PBDs], sr->ref) == 0)
            return refuse_unlisted(check, "SR_NO_PBDS", 1, check_self(check));
        view_each_inverse(&vdis, check->view, &CLASS_OF(SR)->fields[F_SR_VDIs], sr->ref);
        while ((vdi = view_next(&vdis)))
            if (VDI_get_managed(vdi) && VDI_get_type(vdi) != vdi_type_rrd)
                return refuse(check, SR_NOT_EMPTY);
    }
    return 0;
}
