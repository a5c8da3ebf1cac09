/* accounts.h - who may log in at this host while it has no master: names and hashes, as the last master told them
 *
 * One row of the ledger, "accounts", holds them all, a line for each: the hash, a blank, the name. The master tells them after
 * each hello and when one changes; a host that was away goes by the old ones until then. */
#pragma once

#include "shared/value.h"

struct arena;
struct ledger;

/* From now on these: {name: hash}, of a master that we follow. What cannot be an account is left out, and so is what goes
 * beyond the room. Safe with the next ledger_sync(). */
void accounts_put(struct ledger *, const struct value *accounts);

/* The hash of that account's password, in the arena; NULL: there is none of that name. */
const char *accounts_hash(const struct ledger *, const char *name, struct arena *);
