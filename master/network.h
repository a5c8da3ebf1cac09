/* network.h - networks made by others than clients */
#pragma once

#include "master/handler.h"
#include "shared/refmap.h"

/* 0, or -ERR_INVALID_VALUE. */
int network_check_mtu(struct call *, int64_t mtu);

/* The names of bridges that are taken, collected once for all networks that a transaction makes: one that looked through all
 * networks for each new one would hold the core up for minutes when a file brings thousands. */
struct bridges {
    struct refmap taken; /* hash of the name -> the name, which is the view's or the draft's */
    unsigned next;       /* the least number of an "xapi" bridge that may be free */
};

/* Of all networks. */
void bridges_collect(struct bridges *, const struct view *);
void bridges_done(struct bridges *);

/* From a draft; with a bridge name of its own when that of the draft is taken or missing. Its name is taken from then on. */
ref_t network_make(struct call *, struct txn *, struct object *draft, struct bridges *);
