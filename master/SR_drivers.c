/* SR_drivers.c - the types of storage repositories: what each can, and their SM objects
 *
 * The work itself is done by the slave (slave/storage). A type is a row here; its features decide
 * which operations lifecycle.h allows. */
#include "master/SR.h"

#define DISK_FEATURES "VDI_CREATE", "VDI_DELETE", "VDI_CLONE", "VDI_SNAPSHOT", "VDI_RESIZE", "SR_UPDATE"

static const struct sr_driver drivers[] = {
    {"file",
     "Local directory",
     "Disks as files in a directory of one host",
     false,
     true,
     {DISK_FEATURES, "SR_PROBE", "VDI_INTRODUCE", "VDI_UPDATE"}},
    {"shared-file",
     "Shared directory",
     "Disks as files in a directory that several hosts see",
     false,
     true,
     {DISK_FEATURES, "SR_PROBE", "VDI_INTRODUCE", "VDI_UPDATE"}},
    {"iso",
     "Image library",
     "CD images in a directory",
     true,
     true,
     {"SR_PROBE", "SR_UPDATE", "VDI_INTRODUCE"}},
    {"dummy",
     "Dummy",
     "Disks that hold nothing, for tests of scale",
     false,
     false,
     {DISK_FEATURES}},
};

const struct sr_driver *sr_driver(const char *type)
{
    for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
        if (streq(drivers[i].type, type))
            return &drivers[i];
    return NULL;
}

static const struct object *sm_of_type(const struct view *view, const char *type)
{
    const struct object *sm;
    struct view_iter sms;

    view_each(&sms, view, CLASS_OF(SM));
    while ((sm = view_next(&sms)))
        if (streq(SM_get_type(sm), type))
            return sm;
    return NULL;
}

/* The driver's features: as a set of names, and as a map to version 1. */
static void features_of(struct arena *arena, const struct sr_driver *driver,
                        struct value *ret_names, struct value *ret_versions)
{
    struct value *names = arena_alloc_array(arena, ARRAY_SIZE(driver->features), sizeof *names);
    struct value *versions =
        arena_alloc_array(arena, 2 * ARRAY_SIZE(driver->features), sizeof *versions);
    uint32_t count = 0;

    while (count < ARRAY_SIZE(driver->features) && driver->features[count]) {
        names[count] = versions[2 * count] = value_text(driver->features[count]);
        versions[2 * count + 1] = VALUE_INT(1);
        count++;
    }
    *ret_names = VALUE_SET(count, names);
    *ret_versions = VALUE_MAP(count, versions);
}

static void driver_create(struct call *call, struct txn *txn, const struct sr_driver *driver)
{
    struct arena *arena = call->arena;
    const struct object *sm = sm_of_type(txn_view(txn), driver->type);
    struct object *draft = draft_new(arena, CLASS_OF(SM));
    struct value names, versions;

    features_of(arena, driver, &names, &versions);
    if (sm) {
        ref_t ref = sm->ref;

        SM_put_capabilities(txn, ref, &names);
        SM_put_features(txn, ref, &versions);
        SM_put_version(txn, ref, DROVER_VERSION);
        return;
    }
    draft->fields[F_SM_name_label] = value_text(driver->name);
    draft->fields[F_SM_name_description] = value_text(driver->description);
    draft->fields[F_SM_type] = value_text(driver->type);
    draft->fields[F_SM_vendor] = value_text("Drover");
    draft->fields[F_SM_version] = value_text(DROVER_VERSION);
    draft->fields[F_SM_required_api_version] = value_text("1.0");
    draft->fields[F_SM_driver_filename] = value_text("drover-slave");
    draft->fields[F_SM_capabilities] = names;
    draft->fields[F_SM_features] = versions;
    if (driver->needs_location)
        draft->fields[F_SM_configuration] =
            text_map(arena, "location", "directory on the host (required)", NULL);
    draft_create(call, txn, draft);
}

void sr_drivers_create(struct call *call, struct txn *txn)
{
    for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
        driver_create(call, txn, &drivers[i]);
}

int SR_get_supported_types(struct call *call, const struct SR_get_supported_types_args *args,
                           struct value *ret)
{
    struct value *items = arena_alloc_array(call->arena, ARRAY_SIZE(drivers), sizeof *items);

    (void) args;
    for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
        items[i] = value_text(drivers[i].type);
    *ret = VALUE_SET(ARRAY_SIZE(drivers), items);
    return 0;
}
