/* PIF.c - the physical interfaces of hosts: records, made when a host enrols */
#include "master/handler.h"

SETTER(PIF, disallow_unplug, self, VALUE_BOOL)

int PIF_set_primary_address_type(struct call *call,
                                 const struct PIF_set_primary_address_type_args *args,
                                 struct value *ret)
{
    (void) ret;
    return field_set(call, CLASS_OF(PIF), args->self, F_PIF_primary_address_type,
                     VALUE_ENUM(primary_address_type, (int) args->primary_address_type));
}

int PIF_set_property(struct call *call, const struct PIF_set_property_args *args, struct value *ret)
{
    const struct object *pif = live(call, call_view(call), PIF, args->self);
    struct value properties;

    (void) ret;
    if (!pif)
        return -ERR_HANDLE_INVALID;
    if (!streq(args->name, "gro") || (!streq(args->value, "on") && !streq(args->value, "off")))
        return fail(call, INVALID_VALUE, args->name, args->value);
    properties = map_with_text(call->arena, PIF_get_properties(pif), args->name, args->value);
    return field_set(call, CLASS_OF(PIF), args->self, F_PIF_properties, properties);
}
