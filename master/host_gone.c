/* host_gone.c - hosts that do not come back, and VMs that an operator declares halted
 *
 * Nobody can tell a host that is off from one that cannot be reached. These calls take the
 * operator's word for it, as far as the pool does not know better: a host that still talks to us is
 * live, whatever anyone says. A guest that runs on nevertheless is ended when its host returns: its
 * VM's epoch is lower than the model's. */
#include "master/awaited.h"
#include "master/blob.h"
#include "master/core.h"
#include "master/guest_changes.h"
#include "master/put.h"
#include "master/raw_vdi_doubt.h"
#include "master/recovery.h"
#include "master/slaves.h"
#include "master/storage.h"
#include "master/vm_work.h"

static bool is_live(struct call *call, ref_t host_ref)
{
    const struct object *host = view_get(call_view(call), host, host_ref);
    const struct object *metrics =
        host ? view_get(call_view(call), host_metrics, host_get_metrics(host)) : NULL;

    return slave_is_linked(call->core->slaves, host_ref)
           || (metrics && host_metrics_get_live(metrics));
}

static int assert_not_live(struct call *call, ref_t host)
{
    if (!view_get(call_view(call), host, host))
        return fail(call, HANDLE_INVALID, "host", ref_text(call, host));
    if (ref_equal(host, call->core->host) || is_live(call, host))
        return fail(call, HOST_IS_LIVE, ref_text(call, host));
    return 0;
}

/* ---- VM.power_state_reset ---- */

/* A host that can be asked must not have the VM; nor may it be reset behind that host's back. */
static int assert_not_there(struct call *call, ref_t vm, ref_t host)
{
    const char *uuid = VM_get_uuid(view_get(call_view(call), VM, vm));
    struct value state = VALUE_VOID;
    const char *text;

    if (ref_is_null(host) || !is_live(call, host))
        return 0;
    if (slave_vm_ask(call, host, &(struct slave_vm_ask_args){arena_strdup(call->arena, uuid)},
                     &state)
        == 0) {
        text = value_map_text(&state, "state", "");
        if (streq(text, "running") || streq(text, "paused") || streq(text, "sent")
            || streq(text, "receiving"))
            return fail(call, DOMAIN_EXISTS, ref_text(call, vm),
                        value_map_text(&state, "domid", "-1"));
    }
    return fail(call, HOST_IS_LIVE, ref_text(call, host));
}

int VM_power_state_reset(struct call *call, const struct VM_power_state_reset_args *args,
                         struct value *ret)
{
    const struct object *vm = view_get(call_view(call), VM, args->vm), *intent;
    ref_t hosts[4];

    (void) ret;
    if (!vm)
        return fail(call, HANDLE_INVALID, "VM", ref_text(call, args->vm));
    if (VM_get_is_control_domain(vm))
        return fail(call, CANNOT_RESET_CONTROL_DOMAIN, ref_text(call, args->vm));
    intent = intent_of_vm(call_view(call), args->vm);
    hosts[0] = VM_get_resident_on(vm);
    hosts[1] = VM_get_scheduled_to_be_resident_on(vm);
    hosts[2] = intent ? intent_get_source(intent) : NULL_REF;
    hosts[3] = intent ? intent_get_destination(intent) : NULL_REF;
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        int r = assert_not_there(call, args->vm, hosts[i]);

        if (r < 0)
            return r;
    }
    return vm_halt_by_decree(call, args->vm);
}

/* ---- host.declare_dead, host.destroy ---- */

int host_declare_dead(struct call *call, const struct host_declare_dead_args *args,
                      struct value *ret)
{
    int r = assert_not_live(call, args->host);

    (void) ret;
    if (r == 0)
        r = recovery_host_gone(call, args->host);
    if (r < 0)
        return r;
    slaves_declare_dead(call->core->slaves, args->host);
    storage_sweep(call, args->host); /* what it may have been making is waited for no longer */
    raw_writes_host_gone(call, args->host);
    awaited_host_done(call->core, args->host);
    return 0;
}

static void delete_all(struct txn *txn, const struct class *class, const struct field *inverse,
                       ref_t of)
{
    struct view_iter all;
    const struct object *object;

    view_each_inverse(&all, txn_view(txn), inverse, of);
    while ((object = view_next(&all)))
        txn_delete(txn, class, object->ref);
}

#define HOST_INVERSE(name) (&CLASS_OF(host)->fields[F_host_##name])

int host_destroy(struct call *call, const struct host_destroy_args *args, struct value *ret)
{
    const struct object *pool = view_get(call_view(call), pool, call->core->pool), *vm;
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct view_iter residents;
    ref_t metrics, control_domain;
    int r = assert_not_live(call, args->self);

    (void) ret;
    if (r < 0)
        return r;
    if (pool && pool_get_ha_enabled(pool))
        return fail(call, HA_IS_ENABLED);
    view_each_inverse(&residents, call_view(call), HOST_INVERSE(resident_VMs), args->self);
    while ((vm = view_next(&residents)))
        if (!VM_get_is_control_domain(vm))
            return fail(call, HOST_HAS_RESIDENT_VMS, ref_text(call, args->self));

    txn = store_begin(call->core->store);
    metrics = host_get_metrics(txn_get(txn, host, args->self));
    control_domain = host_get_control_domain(txn_get(txn, host, args->self));
    delete_all(txn, CLASS_OF(PBD), HOST_INVERSE(PBDs), args->self);
    delete_all(txn, CLASS_OF(PIF), HOST_INVERSE(PIFs), args->self);
    delete_all(txn, CLASS_OF(host_cpu), HOST_INVERSE(host_CPUs), args->self);
    if (txn_get(txn, VM, control_domain))
        blobs_delete(txn, VM_get_blobs(txn_get(txn, VM, control_domain)));
    delete_all(txn, CLASS_OF(VM), HOST_INVERSE(resident_VMs), args->self);
    if (txn_get(txn, VM, control_domain))
        txn_delete(txn, CLASS_OF(VM), control_domain);
    if (txn_get(txn, host_metrics, metrics))
        txn_delete(txn, CLASS_OF(host_metrics), metrics);
    blobs_delete(txn, host_get_blobs(txn_get(txn, host, args->self)));
    txn_delete(txn, CLASS_OF(host), args->self);
    call_commit(call, &txn);
    awaited_host_done(call->core, args->self);
    return 0;
}
