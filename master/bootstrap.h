/* bootstrap.h - the first start: a pool of one host, its roles, the account of root */
#pragma once

#include "master/core.h"

struct bootstrap {
    ref_t pool_uuid, host_uuid; /* null: drawn */
    const char *pool_name;
    const char *host_name, *host_address;
    const char
        *root_password; /* NULL: there is none, which only a pool with accounts can do without */
};

/* Fill what is missing in a loaded store, and set core->pool and core->host. Returns 0, or -1 with
 * a sentence in the log: the password cannot be used. Before the first call. */
int bootstrap(struct core *, const struct bootstrap *);

/* The six roles have the same references in every pool. */
ref_t bootstrap_role_ref(int role);
