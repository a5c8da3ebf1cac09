/* role_calls.c - the messages of class role: which role may call what, by the rows */
#include "master/call.h"
#include "master/roles.h"
#include "master/store.h"

#include <strings.h>

int role_get_permissions_name_label(struct call *call,
                                    const struct role_get_permissions_name_label_args *args,
                                    struct value *ret)
{
    *ret = roles_permissions(role_get_name_label(view_get(call_view(call), role, args->self)),
                             call->arena);
    return 0;
}

/* Does the role hold the permission, which is a message's name in lower case? */
static bool permits(enum role role, const char *permission)
{
    size_t count;
    const struct method *const *methods = model_methods(&count);

    for (size_t i = 0; i < count; i++)
        if (strcasecmp(methods[i]->name, permission) == 0)
            return methods[i]->role <= role;
    return false;
}

int role_get_by_permission_name_label(struct call *call,
                                      const struct role_get_by_permission_name_label_args *args,
                                      struct value *ret)
{
    const struct view *view = call_view(call);
    struct value *items =
        arena_alloc_array(call->arena, view_count(view, CLASS_OF(role)), sizeof *items);
    struct view_iter iter;
    const struct object *row;
    uint32_t n = 0;

    view_each(&iter, view, CLASS_OF(role));
    while ((row = view_next(&iter))) {
        enum role role;

        if (role_parse(role_get_name_label(row), &role) && permits(role, args->label))
            items[n++] = VALUE_REF(row->ref);
    }
    *ret = VALUE_SET(n, items);
    return 0;
}
