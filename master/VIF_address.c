/* VIF_address.c - which addresses an interface may use, and which a guest is told to use
 *
 * Kept with the record and handed to who enforces them; the simulated hypervisor has no packets to
 * filter. */
#include "master/handler.h"

#include <arpa/inet.h>

static bool is_address(int family, const char *text)
{
    unsigned char bytes[sizeof(struct in6_addr)];

    return inet_pton(family, text, bytes) == 1;
}

/* "10.0.0.2/24" */
static bool is_cidr(struct arena *arena, int family, const char *text)
{
    const char *slash = strchr(text, '/');
    char *end;
    long bits;

    if (!slash || slash[1] < '0' || slash[1] > '9')
        return false;
    bits = strtol(slash + 1, &end, 10);
    return !*end && bits <= (family == AF_INET ? 32 : 128)
           && is_address(family, arena_text(arena, "%.*s", (int) (slash - text), text));
}

SETTER(VIF, trunks, self, VALUE_GIVEN)

int VIF_set_locking_mode(struct call *call, const struct VIF_set_locking_mode_args *args,
                         struct value *ret)
{
    (void) ret;
    return field_set(call, CLASS_OF(VIF), args->self, F_VIF_locking_mode,
                     VALUE_ENUM(vif_locking_mode, (int) args->value));
}

static int set_allowed(struct call *call, ref_t self, int field, int family,
                       const struct value *addresses)
{
    for (uint32_t i = 0; i < addresses->length; i++)
        if (!is_address(family, addresses->items[i].text))
            return fail(call, INVALID_IP_ADDRESS_SPECIFIED, CLASS_OF(VIF)->fields[field].name);
    return field_set(call, CLASS_OF(VIF), self, field, *addresses);
}

int VIF_set_ipv4_allowed(struct call *call, const struct VIF_set_ipv4_allowed_args *args,
                         struct value *ret)
{
    (void) ret;
    return set_allowed(call, args->self, F_VIF_ipv4_allowed, AF_INET, args->value);
}

int VIF_set_ipv6_allowed(struct call *call, const struct VIF_set_ipv6_allowed_args *args,
                         struct value *ret)
{
    (void) ret;
    return set_allowed(call, args->self, F_VIF_ipv6_allowed, AF_INET6, args->value);
}

int VIF_add_ipv4_allowed(struct call *call, const struct VIF_add_ipv4_allowed_args *args,
                         struct value *ret)
{
    (void) ret;
    if (!is_address(AF_INET, args->value))
        return fail(call, INVALID_IP_ADDRESS_SPECIFIED, "ipv4_allowed");
    return field_add(call, CLASS_OF(VIF), args->self, F_VIF_ipv4_allowed, value_text(args->value));
}

int VIF_add_ipv6_allowed(struct call *call, const struct VIF_add_ipv6_allowed_args *args,
                         struct value *ret)
{
    (void) ret;
    if (!is_address(AF_INET6, args->value))
        return fail(call, INVALID_IP_ADDRESS_SPECIFIED, "ipv6_allowed");
    return field_add(call, CLASS_OF(VIF), args->self, F_VIF_ipv6_allowed, value_text(args->value));
}

int VIF_remove_ipv4_allowed(struct call *call, const struct VIF_remove_ipv4_allowed_args *args,
                            struct value *ret)
{
    (void) ret;
    return field_remove(call, CLASS_OF(VIF), args->self, F_VIF_ipv4_allowed,
                        value_text(args->value));
}

int VIF_remove_ipv6_allowed(struct call *call, const struct VIF_remove_ipv6_allowed_args *args,
                            struct value *ret)
{
    (void) ret;
    return field_remove(call, CLASS_OF(VIF), args->self, F_VIF_ipv6_allowed,
                        value_text(args->value));
}

int VIF_add_trunks(struct call *call, const struct VIF_add_trunks_args *args, struct value *ret)
{
    (void) ret;
    if (args->value < 0 || args->value > 4094)
        return fail(call, INVALID_VALUE, "trunks", int_text(call, args->value));
    return field_add(call, CLASS_OF(VIF), args->self, F_VIF_trunks, VALUE_INT(args->value));
}

int VIF_remove_trunks(struct call *call, const struct VIF_remove_trunks_args *args,
                      struct value *ret)
{
    (void) ret;
    return field_remove(call, CLASS_OF(VIF), args->self, F_VIF_trunks, VALUE_INT(args->value));
}

/* ---- what the guest is told ---- */

static int check_configuration(struct call *call, int family, bool is_static, const char *address,
                               const char *gateway)
{
    if (!is_static)
        return 0;
    if (!is_cidr(call->arena, family, address))
        return fail(call, INVALID_CIDR_ADDRESS_SPECIFIED, "address");
    if (*gateway && !is_address(family, gateway))
        return fail(call, INVALID_IP_ADDRESS_SPECIFIED, "gateway");
    return 0;
}

/* The same three fields for each family. */
static int configure(struct call *call, ref_t self, int family, struct value mode, bool is_static, const char *address,
                     const char *gateway)
{
    static const struct {
        int mode, addresses, gateway;
    } v4 = {F_VIF_ipv4_configuration_mode, F_VIF_ipv4_addresses, F_VIF_ipv4_gateway},
      v6 = {F_VIF_ipv6_configuration_mode, F_VIF_ipv6_addresses, F_VIF_ipv6_gateway}, *fields;
    _cleanup_(txn_end) struct txn *txn = NULL;
    int r = check_configuration(call, family, is_static, address, gateway);

    if (r < 0)
        return r;
    fields = family == AF_INET ? &v4 : &v6;
    txn = store_begin(call->core->store);
    if (!live(call, txn_view(txn), VIF, self))
        return -ERR_HANDLE_INVALID;
    txn_put(txn, CLASS_OF(VIF), self, fields->mode, mode);
    txn_put(txn, CLASS_OF(VIF), self, fields->addresses, is_static ? text_set(call->arena, address, NULL) : VALUE_EMPTY_SET);
    txn_put(txn, CLASS_OF(VIF), self, fields->gateway, value_text(is_static ? gateway : ""));
    return call_commit(call, &txn);
}

int VIF_configure_ipv4(struct call *call, const struct VIF_configure_ipv4_args *args,
                       struct value *ret)
{
    (void) ret;
    return configure(call, args->self, AF_INET, VALUE_ENUM(vif_ipv4_configuration_mode, (int) args->mode),
                     args->mode == vif_ipv4_configuration_mode_Static, args->address, args->gateway);
}

int VIF_configure_ipv6(struct call *call, const struct VIF_configure_ipv6_args *args,
                       struct value *ret)
{
    (void) ret;
    return configure(call, args->self, AF_INET6, VALUE_ENUM(vif_ipv6_configuration_mode, (int) args->mode),
                     args->mode == vif_ipv6_configuration_mode_Static, args->address, args->gateway);
}
