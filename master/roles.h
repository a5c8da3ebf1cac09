/* roles.h - what a caller may do: the least role on the method's row (design.md section 13)
 *
 * The six roles are ordered, each has all rights of those before it. LOCAL_ROOT is none of them:
 * its rows are for the Unix socket's root and for holders of the pool secret. */
#pragma once

#include "master/call.h"

/* 0 or -ERR_RBAC_PERMISSION_DENIED [permission, text]. */
int role_check(struct call *, const struct method *);

/* For rules inside handlers ("any task"): `permission` is what the error names. */
int role_require(struct call *, enum role, const char *permission);

/* "pool-admin" and so on; false for another text. */
bool role_parse(const char *name, enum role *ret_role);

/* Names of all messages that a role may call, lower case, as session.rbac_permissions shows them;
 * empty for a local superuser, who is not asked. */
struct value roles_permissions(const char *role, struct arena *);
