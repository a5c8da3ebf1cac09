/* account.h - who may log in with a password
 *
 * Accounts are durable rows of ours (model/internal.def) with a yescrypt hash. How passwords are checked, and what keeps
 * people from guessing them, is in shared/passwords.h; each host of the pool is told the hashes of those who may log in there
 * while it has no master (slave_hello.c). */
#pragma once

#include "master/call.h"
#include "master/store.h"

/* Is this the account's password? From a fiber; waits. call->caller.address is where the question comes from.
 * Returns 0 and the account's row as a reference, or -ERR_SESSION_AUTHENTICATION_FAILED [user,
 * text]. */
int account_check(struct call *, const char *user, const char *password, ref_t *ret_account);

/* A hash to store, in the arena: 0, or -ERR_CHANGE_PASSWORD_REJECTED [text]. From a fiber; waits.
 */
int account_hash(struct call *, const char *password, const char **ret_hash);

/* The account of that name, or NULL. */
const struct object *account_find(const struct view *, const char *user);

/* {name: hash} of those who may log in at a host without a master (session.slave_local_login_with_password), in the
 * arena; as they are visible, so nothing is told that a crash could take back. */
struct value accounts_of_hosts(struct store *, struct arena *);
