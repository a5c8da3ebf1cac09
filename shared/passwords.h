/* passwords.h - is it the right password? And what those get who guess
 *
 *   password -> may this address have one checked? -> digest, or yescrypt in a worker -> right: at once
 *                    | no: a glance                                                  -> wrong: later
 *
 * A password is checked first and its sender made to wait afterwards, only if it was wrong: a guesser shares his address
 * with others - a proxy, a machine with one misconfigured script - and theirs is right. What keeps him from learning by
 * the answer that does not come (whoever is not told "yes" at once may hang up and go on) is that he stays in the books
 * while he waits: the wrong passwords of an address are answered one after the other, each after a growing delay, and
 * with a handful of them under way nothing more from there is checked.
 *
 * Hashing takes a worker some 50 ms, so at most two are under way and few wait; a password that was right before is
 * recognised by a keyed digest in memory instead. The pool's secret is compared as it is, under the same rules.
 *
 * Used by the master, and by each host for its local sessions. Everything is for the loop's thread. */
#pragma once

#include "shared/base.h"

struct clock;
struct passwords;
struct random;
struct workers;

#define PASSWORD_BYTES_MAX 512

/* What is given is the caller's and outlives it. */
struct passwords *passwords_new(struct clock *, struct random *, struct workers *);
/* No fiber is inside any more, or ever runs again. */
void passwords_destroy(struct passwords **);

/* Is this the password that was hashed? From a fiber; waits.
 *
 *   address  where the question comes from
 *   hash     crypt(3) form; NULL: there is no account of that name, which takes as long to find out
 *
 * Returns NULL for a right one, else why not, a lasting text for people. */
const char *passwords_check(struct passwords *, const char *address, const char *hash, const char *password);

/* The same of a secret that is known in clear; "" or NULL: nobody has it. */
const char *passwords_check_secret(struct passwords *, const char *address, const char *right, const char *given);

/* A hash to store, yescrypt, to be freed; NULL when it cannot be made now. From a fiber; waits. */
char *passwords_hash(struct passwords *, const char *password);

/* Why the password cannot be used, a lasting text; NULL: it can. */
const char *password_fault(const char *password);

/* A hash without a loop, for the first start; blocks. NULL when the password cannot be used. */
char *password_hash(const char *password);

/* In a time that does not depend on where they differ. Any thread. */
bool secrets_equal(const char *a, const char *b);
