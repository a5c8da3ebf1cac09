/* standing.h - how this host stands to its pool, as clients are told that ask it and not its master
 * (wire.md sections 5, 14 and 15)
 *
 *   booting --welcome--> slave of ADDRESS --welcome of another master--> slave of that one
 *      |  ^                   |
 *      |  +- sent to another -+
 *      +----------+-----------+--- refused by the master --> unknown to it --welcome--> ...
 *
 * The agent writes it down, on its loop; any thread may read. A host whose master has fallen silent stays its
 * slave: clients are sent to where the pool will be served again. Everywhere a standing that is NULL is one that
 * nobody asks for, as in the simulator. */
#pragma once

#include "shared/base.h"
#include "shared/ref.h"

struct arena;
struct failure;

/* A name or a numeric address. */
#define STANDING_ADDRESS_BYTES 256

/* Letters, digits and what stands in numeric addresses: so it can be shown on a page as it is. */
bool is_host_address(const char *text);

struct standing *standing_new(void);
void standing_destroy(struct standing **);

/* Welcomed by the master whose host has this address; "" or NULL: it does not say. An address with bytes that no
 * address has counts as none. */
void standing_put_master(struct standing *, const char *address);
/* Its link has ended, and the next one does not stand yet. */
void standing_put_silent(struct standing *);
/* It is to follow another master, which has not welcomed it yet. */
void standing_put_booting(struct standing *);
/* The master wants to know nothing of this host: its secret is wrong, or it was taken out of the pool. */
void standing_put_unknown(struct standing *, ref_t host);

enum standing_kind {
    STANDING_BOOTING,
    STANDING_SLAVE,
    STANDING_UNKNOWN,
};

struct standing_now {
    enum standing_kind kind;
    bool is_linked;
    char master_address[STANDING_ADDRESS_BYTES]; /* STANDING_SLAVE */
    ref_t host;                                  /* STANDING_UNKNOWN */
};

void standing_get(struct standing *, struct standing_now *ret);

/* What an API call gets instead of an answer: HOST_IS_SLAVE [address], or the reason why this host cannot yet say
 * whose slave it is: HOST_STILL_BOOTING [], HOST_UNKNOWN_TO_MASTER [uuid]. */
void standing_failure(const struct standing_now *, struct arena *, struct failure *ret);
