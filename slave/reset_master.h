/* reset_master.h - pool.emergency_reset_master: this host is to follow another master */
#pragma once

#include "shared/base.h"

struct agent;
struct arena;
struct failure;

/* From a fiber; waits for names to be found, and for the ledger. The host joins there by the pool's secret, as at its first
 * start; what it knows of epochs stays, so a master that is older than the one it left gets no order through.
 *
 *   address  a numeric address or a name; "ADDRESS:PORT" where the new master takes hosts at another port than the present one
 *   own      of this host, when no master can be there; NULL: one may
 *
 * Returns 0 - it is in the ledger, and the host on its way -, -ERR_HOST_ITS_OWN_SLAVE, -ERR_INVALID_VALUE [master_address,
 * text] for what no master can have, or -ERR_OPERATION_NOT_ALLOWED [text] on a host that cannot join. */
int reset_master(struct agent *, const char *address, const char *own, struct arena *, struct failure *);
