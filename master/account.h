/* account.h - passwords, and those who guess them
 *
 * Accounts are durable rows of ours (model/internal.def) with a yescrypt hash. Hashing takes a
 * worker some 50 ms, so at most two are under way and few wait; a password that was right before is
 * recognised by a keyed digest in memory instead. An address with failed logins gets its
 * next refusals only after a growing delay; a right password never waits (account.c). */
#pragma once

#include "master/call.h"
#include "master/store.h"

struct accounts;

#define PASSWORD_BYTES_MAX 512

struct accounts *accounts_new(struct core *);
void accounts_destroy(struct accounts **);

/* Is this the account's password? From a fiber; waits. `address` is where the question comes from.
 * Returns 0 and the account's row as a reference, or -ERR_SESSION_AUTHENTICATION_FAILED [user,
 * text]. */
int account_check(struct call *, const char *user, const char *password, ref_t *ret_account);

/* A hash to store, in the arena: 0, or -ERR_CHANGE_PASSWORD_REJECTED [text]. From a fiber; waits.
 */
int account_hash(struct call *, const char *password, const char **ret_hash);

/* The account of that name, or NULL. */
const struct object *account_find(const struct view *, const char *user);

/* The same as account_hash() outside of calls, for the first start; blocks. NULL when the password
 * cannot be used. */
char *password_hash(const char *password);
