/* host.c - hosts: what can be asked of one, and fields with a rule of their own
 *
 * How hosts come to be is in enrol.c; who runs where, and how a host is emptied, is the business of
 * VMs. */
#include "master/handler.h"

#include <time.h>

#include "master/room.h"

/* ---- asked ---- */

int host_list_methods(struct call *call, const struct host_list_methods_args *args,
                      struct value *ret)
{
    size_t count;
    const struct method *const *methods = model_methods(&count);
    struct value *items = arena_alloc_array(call->arena, count, sizeof *items);
    uint32_t n = 0;

    (void) args;
    for (size_t i = 0; i < count; i++)
        if (!(methods[i]->flags & (METHOD_HIDDEN | METHOD_REMOVED)))
            items[n++] = value_text(methods[i]->name);
    *ret = VALUE_SET(n, items);
    return 0;
}

int host_get_servertime(struct call *call, const struct host_get_servertime_args *args,
                        struct value *ret)
{
    (void) args;
    *ret = VALUE_DATETIME(clock_utc_s(call->core->clock));
    return 0;
}

/* The wall clock of the master's time zone, which all hosts of a pool share. */
int host_get_server_localtime(struct call *call, const struct host_get_server_localtime_args *args,
                              struct value *ret)
{
    time_t now = (time_t) clock_utc_s(call->core->clock);
    struct tm local;

    (void) args;
    localtime_r(&now, &local);
    *ret = VALUE_DATETIME((int64_t) now + local.tm_gmtoff);
    return 0;
}

int host_compute_free_memory(struct call *call, const struct host_compute_free_memory_args *args,
                             struct value *ret)
{
    const struct room_host *room = room_host(call->core->room, args->host);

    if (!room)
        return fail(call, HANDLE_INVALID, "host", ref_text(call, args->host));
    call_view(call); /* the answer rests on what is newest */
    *ret = VALUE_INT(MAX(room_free_bytes(room), (int64_t) 0));
    return 0;
}

/* What the host needs besides its guests' own memory: its own overhead, and that of each guest on
 * it. */
int host_compute_memory_overhead(struct call *call,
                                 const struct host_compute_memory_overhead_args *args,
                                 struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *host = live(call, view, host, args->host), *vm;
    struct view_iter vms;
    int64_t bytes;

    if (!host)
        return -ERR_HANDLE_INVALID;
    bytes = host_get_memory_overhead(host);
    view_each_inverse(&vms, view, &CLASS_OF(host)->fields[F_host_resident_VMs], args->host);
    while ((vm = view_next(&vms)))
        bytes += VM_get_memory_overhead(vm);
    *ret = VALUE_INT(bytes);
    return 0;
}

int host_get_management_interface(struct call *call,
                                  const struct host_get_management_interface_args *args,
                                  struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *pif;
    struct view_iter pifs;

    view_each_inverse(&pifs, view, &CLASS_OF(host)->fields[F_host_PIFs], args->host);
    while ((pif = view_next(&pifs)))
        if (PIF_get_management(pif)) {
            *ret = VALUE_REF(pif->ref);
            return 0;
        }
    return fail(call, PIF_HAS_NO_NETWORK_CONFIGURATION, ref_text(call, args->host));
}

/* Programs of other vendors have no place to extend this API. */
int host_has_extension(struct call *call, const struct host_has_extension_args *args,
                       struct value *ret)
{
    (void) call, (void) args;
    *ret = VALUE_BOOL(false);
    return 0;
}

/* All that hosts tell is taken in when they tell it; nothing waits for a synchronisation. */
int host_sync_data(struct call *call, const struct host_sync_data_args *args, struct value *ret)
{
    (void) ret;
    return live(call, call_view(call), host, args->host) ? 0 : -ERR_HANDLE_INVALID;
}

/* ---- fields ---- */

static bool is_hostname(const char *name)
{
    size_t length = strlen(name);

    return length > 0 && length < 64 && name[0] != '-'
           && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.")
                  == length;
}

int host_set_hostname_live(struct call *call, const struct host_set_hostname_live_args *args,
                           struct value *ret)
{
    (void) ret;
    if (!is_hostname(args->hostname))
        return fail(call, HOST_NAME_INVALID,
                    "a host name has 1 to 63 letters, digits, dots and hyphens");
    return field_set(call, CLASS_OF(host), args->host, F_host_hostname, value_text(args->hostname));
}

int host_set_power_on_mode(struct call *call, const struct host_set_power_on_mode_args *args,
                           struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    (void) ret;
    if (!live(call, txn_view(txn), host, args->self))
        return -ERR_HANDLE_INVALID;
    host_put_power_on_mode(txn, args->self, args->power_on_mode);
    host_put_power_on_config(txn, args->self, args->power_on_config);
    return call_commit(call, &txn);
}

SETTER(host, multipathing, host, VALUE_BOOL)
SETTER(host, iscsi_iqn, host, value_text)
SETTER_WITHIN(host, console_idle_timeout, self, INT64_MAX)
SETTER(host, max_cstate, self, value_text)

int host_set_numa_affinity_policy(struct call *call,
                                  const struct host_set_numa_affinity_policy_args *args,
                                  struct value *ret)
{
    (void) ret;
    return field_set(call, CLASS_OF(host), args->self, F_host_numa_affinity_policy,
                     VALUE_ENUM(host_numa_affinity_policy, (int) args->value));
}
