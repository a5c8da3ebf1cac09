/* pool.c - the pool as a whole: what can be asked of it, and fields with a rule of their own */
#include "master/handler.h"

/* Every acknowledged change is durable before it is answered, so there is nothing to flush but what
 * is under way. */
int pool_sync_database(struct call *call, const struct pool_sync_database_args *args,
                       struct value *ret)
{
    (void) args, (void) ret;
    store_wait_visible(call->core->store, store_newest(call->core->store));
    return 0;
}

int pool_is_slave(struct call *call, const struct pool_is_slave_args *args, struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *pool = pool_object(view);

    if (!live(call, view, host, args->host))
        return -ERR_HANDLE_INVALID;
    *ret = VALUE_BOOL(!pool || !ref_equal(pool_get_master(pool), args->host));
    return 0;
}

int pool_has_extension(struct call *call, const struct pool_has_extension_args *args,
                       struct value *ret)
{
    (void) call, (void) args;
    *ret = VALUE_BOOL(false);
    return 0;
}

/* Nothing here is licensed. */
int pool_get_license_state(struct call *call, const struct pool_get_license_state_args *args,
                           struct value *ret)
{
    if (!live(call, call_view(call), pool, args->self))
        return -ERR_HANDLE_INVALID;
    *ret = text_map(call->arena, "edition", "free", "expiry", "never", NULL);
    return 0;
}

SETTER(pool, igmp_snooping_enabled, self, VALUE_BOOL)
SETTER(pool, custom_uefi_certificates, self, value_text)
SETTER(pool, uefi_certificates, self, value_text)

int pool_add_to_guest_agent_config(struct call *call,
                                   const struct pool_add_to_guest_agent_config_args *args,
                                   struct value *ret)
{
    (void) ret;
    return field_add_to(call, CLASS_OF(pool), args->self, F_pool_guest_agent_config,
                        value_text(args->key), value_text(args->value));
}

int pool_remove_from_guest_agent_config(struct call *call,
                                        const struct pool_remove_from_guest_agent_config_args *args,
                                        struct value *ret)
{
    (void) ret;
    return field_remove_from(call, CLASS_OF(pool), args->self, F_pool_guest_agent_config,
                             value_text(args->key));
}
