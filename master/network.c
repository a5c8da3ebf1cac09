/* network.c - virtual networks, each a bridge on every host that has a PIF in it or runs a VM on it
 */
#include "master/network.h"

#include <stdio.h>

#include <xxhash.h>

#include "master/blob.h"
#include "master/limits.h"

#define MTU_DEFAULT 1500

/* ---- names of bridges ---- */

/* That two names have the same one is no more likely than that two references are the same. */
static ref_t bridge_key(const char *bridge)
{
    XXH128_hash_t hash = XXH3_128bits(bridge, strlen(bridge));

    return (ref_t){hash.high64 | 1, hash.low64}; /* null is no key */
}

static bool bridge_is_taken(const struct bridges *bridges, const char *bridge)
{
    return refmap_get(&bridges->taken, bridge_key(bridge));
}

static void bridge_take(struct bridges *bridges, const char *bridge)
{
    refmap_put(&bridges->taken, bridge_key(bridge), (void *) bridge);
}

void bridges_collect(struct bridges *bridges, const struct view *view)
{
    const struct object *network;
    struct view_iter networks;

    *bridges = (struct bridges){0};
    view_each(&networks, view, CLASS_OF(network));
    while ((network = view_next(&networks)))
        bridge_take(bridges, network_get_bridge(network));
}

void bridges_done(struct bridges *bridges)
{
    refmap_done(&bridges->taken);
}

/* "xapi0" and so on, as clients know them. */
static const char *bridge_new(struct call *call, struct bridges *bridges)
{
    char bridge[32];

    do
        snprintf(bridge, sizeof bridge, "xapi%u", bridges->next++);
    while (bridge_is_taken(bridges, bridge));
    return arena_strdup(call->arena, bridge);
}

/* ---- calls ---- */

int network_check_mtu(struct call *call, int64_t mtu)
{
    return mtu < MTU_MIN || mtu > MTU_MAX ? fail(call, INVALID_VALUE, "MTU", int_text(call, mtu)) : 0;
}

int network_set_MTU(struct call *call, const struct network_set_MTU_args *args, struct value *ret)
{
    int r = network_check_mtu(call, args->value);

    (void) ret;
    return r < 0 ? r
                 : field_set(call, CLASS_OF(network), args->self, F_network_MTU, VALUE_INT(args->value));
}

int network_create(struct call *call, const struct network_create_args *args, struct value *ret)
{
    _cleanup_(bridges_done) struct bridges bridges = {0};
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct object *draft = draft_of(call->arena, CLASS_OF(network), args->args->record.fields);
    const char *bridge = network_get_bridge(draft);
    int r;

    if (network_get_MTU(draft) <= 0)
        draft->fields[F_network_MTU] = VALUE_INT(MTU_DEFAULT);
    r = network_check_mtu(call, network_get_MTU(draft));
    if (r < 0)
        return r;
    bridges_collect(&bridges, txn_view(txn));
    if (*bridge && bridge_is_taken(&bridges, bridge))
        return fail(call, BRIDGE_NAME_EXISTS, bridge);
    *ret = VALUE_REF(network_make(call, txn, draft, &bridges));
    return call_commit(call, &txn);
}

ref_t network_make(struct call *call, struct txn *txn, struct object *draft, struct bridges *bridges)
{
    const char *bridge = network_get_bridge(draft);

    if (!*bridge || bridge_is_taken(bridges, bridge))
        draft->fields[F_network_bridge] = value_text(bridge = bridge_new(call, bridges));
    bridge_take(bridges, bridge);
    return draft_create(call, txn, draft);
}

/* The refs of an inverse set, as one detail of an error. */
static const char *refs_text(struct call *call, const struct value *refs)
{
    const char *text = "";

    for (uint32_t i = 0; i < refs->length; i++)
        text = arena_text(call->arena, "%s%s%s", text, i ? ";" : "",
                          ref_text(call, refs->items[i].ref));
    return text;
}

int network_destroy(struct call *call, const struct network_destroy_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct view *view = txn_view(txn);
    const struct object *network = live(call, view, network, args->self), *vif;
    struct view_iter vifs;
    struct value refs;

    (void) ret;
    if (!network)
        return -ERR_HANDLE_INVALID;
    refs = view_inverse(view, &CLASS_OF(network)->fields[F_network_PIFs], args->self, call->arena);
    if (refs.length > 0)
        return fail(call, NETWORK_CONTAINS_PIF, refs_text(call, &refs));
    /* Interfaces of halted VMs keep no network; those of running ones do. */
    view_each_inverse(&vifs, view, &CLASS_OF(network)->fields[F_network_VIFs], args->self);
    while ((vif = view_next(&vifs)))
        if (VIF_get_currently_attached(vif))
            return fail(call, NETWORK_CONTAINS_VIF, ref_text(call, vif->ref));
    while (view_each_inverse(&vifs, txn_view(txn), &CLASS_OF(network)->fields[F_network_VIFs],
                             args->self),
           (vif = view_next(&vifs)))
        txn_delete(txn, CLASS_OF(VIF), vif->ref);
    blobs_delete(txn, network_get_blobs(txn_get(txn, network, args->self)));
    txn_delete(txn, CLASS_OF(network), args->self);
    return call_commit(call, &txn);
}

int network_set_default_locking_mode(struct call *call,
                                     const struct network_set_default_locking_mode_args *args,
                                     struct value *ret)
{
    (void) ret;
    return field_set(call, CLASS_OF(network), args->network, F_network_default_locking_mode,
                     VALUE_ENUM(network_default_locking_mode, (int) args->value));
}

int network_add_purpose(struct call *call, const struct network_add_purpose_args *args,
                        struct value *ret)
{
    const struct object *network = live(call, call_view(call), network, args->self);
    struct value purpose = VALUE_ENUM(network_purpose, (int) args->value);
    int other =
        args->value == network_purpose_nbd ? network_purpose_insecure_nbd : network_purpose_nbd;

    (void) ret;
    if (!network)
        return -ERR_HANDLE_INVALID;
    if (value_set_has(network_get_purpose(network), &VALUE_ENUM(network_purpose, other)))
        return fail(call, NETWORK_INCOMPATIBLE_PURPOSES,
                    enum_text(&enum_type_network_purpose, (int) args->value),
                    enum_text(&enum_type_network_purpose, other));
    return field_add(call, CLASS_OF(network), args->self, F_network_purpose, purpose);
}

int network_remove_purpose(struct call *call, const struct network_remove_purpose_args *args,
                           struct value *ret)
{
    (void) ret;
    return field_remove(call, CLASS_OF(network), args->self, F_network_purpose,
                        VALUE_ENUM(network_purpose, (int) args->value));
}
