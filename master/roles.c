/* roles.c - what a caller may do */
#include "master/roles.h"

#include <ctype.h>

static const char *permission_name(struct arena *arena, const char *method)
{
    char *name = arena_strdup(arena, method);

    for (char *p = name; *p; p++)
        *p = (char) tolower((unsigned char) *p);
    return name;
}

int role_require(struct call *call, enum role least, const char *permission)
{
    if (call->caller.role >= least)
        return 0;
    return fail(call, RBAC_PERMISSION_DENIED, permission,
                arena_text(call->arena, "this takes the role %s, the session has %s",
                           role_name(least), role_name(call->caller.role)));
}

int role_check(struct call *call, const struct method *method)
{
    /* Its own rule, with its own error, is stricter than a role and lets a superuser in over the
     * network, too. */
    if (method->number == METHOD_NUMBER_session_change_password)
        return 0;
    if (method->flags & METHOD_NO_SESSION || call->caller.role >= method->role)
        return 0;
    return role_require(call, method->role, permission_name(call->arena, method->name));
}

bool role_parse(const char *name, enum role *ret_role)
{
    for (enum role role = ROLE_READ_ONLY; role <= ROLE_LOCAL_ROOT; role++) {
        if (streq(role_name(role), name)) {
            *ret_role = role;
            return true;
        }
    }
    return false;
}

struct value roles_permissions(const char *name, struct arena *arena)
{
    size_t count, n = 0;
    const struct method *const *methods = model_methods(&count);
    struct value *items;
    enum role role;

    if (!role_parse(name, &role) || role == ROLE_LOCAL_ROOT)
        return VALUE_EMPTY_SET;
    items = arena_alloc_array(arena, count, sizeof *items);
    for (size_t i = 0; i < count; i++)
        if (methods[i]->role <= role && !(methods[i]->flags & METHOD_NO_SESSION))
            items[n++] = value_text(permission_name(arena, methods[i]->name));
    return VALUE_SET((uint32_t) n, items);
}
