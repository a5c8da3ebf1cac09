/* slave_failure.c - what slaves' failures are about, as clients know it
 *
 * A slave names things as they are named to it: VMs, SRs and VDIs by uuid, a disk by its file, an operation by its id. Clients
 * know references. Which parameter names what stands in the row of the error (errors.def). What the model does not know - it
 * may have gone meanwhile - stays as the slave has said it. */
#include "master/slaves_internal.h"

#include <stdio.h>

#include "shared/arena.h"

#define NAME_BYTES 32

static const struct class *class_named(const char *param)
{
    return streq(param, "vm")     ? CLASS_OF(VM)
           : streq(param, "vdi")  ? CLASS_OF(VDI)
           : streq(param, "sr")   ? CLASS_OF(SR)
           : streq(param, "host") ? CLASS_OF(host)
                                  : NULL;
}

/* The file of a disk is named after its VDI, but for those that were there before their records. */
static const struct object *vdi_of_file(const struct view *view, const char *name)
{
    char uuid[UUID_TEXT_BYTES];
    const struct object *vdi;
    struct view_iter all;

    snprintf(uuid, sizeof uuid, "%s", name);
    vdi = view_by_uuid(view, CLASS_OF(VDI), uuid);
    if (vdi && streq(VDI_get_location(vdi), name))
        return vdi;
    view_each(&all, view, CLASS_OF(VDI));
    while ((vdi = view_next(&all)))
        if (streq(VDI_get_location(vdi), name))
            return vdi;
    return NULL;
}

static const char *named(struct call *call, const struct view *view, const char *param, const char *text)
{
    const struct class *class = class_named(param);
    const struct object *object = class ? view_by_uuid(view, class, text) : NULL;

    if (streq(param, "task") && !ref_is_null(call->task))
        return ref_text(call, call->task);
    if (!object && class == CLASS_OF(VDI))
        object = vdi_of_file(view, text);
    return object ? ref_text(call, object->ref) : text;
}

void slave_failure_name(struct call *call)
{
    const struct view *view = store_core_view(call->core->store);
    const struct error_row *row = call->failure.code > ERR_NONE_ ? model_error(call->failure.code) : NULL;
    const char *at = row ? row->params : "";

    for (unsigned i = 0; *at && i < call->failure.count; i++) {
        size_t length = strcspn(at, ",");
        char param[NAME_BYTES];

        snprintf(param, sizeof param, "%.*s", (int) length, at);
        /* "class,object": the class stands before it */
        if (streq(param, "object") && i > 0 && streq(call->failure.params[i - 1], "VM"))
            snprintf(param, sizeof param, "vm");
        call->failure.params[i] = named(call, view, param, call->failure.params[i]);
        at += length + (at[length] == ',');
    }
}
