/* transfer_counts.h - what the transfers of a host have added up to since its agent began, for GET /metrics; and those that are
 * refused for want of room, for the log, too */
#pragma once

#include "shared/base.h"

#include <stdatomic.h>

/* All zero at first. */
struct transfer_counts {
    _Atomic uint64_t refused; /* any thread */
    _Atomic uint64_t told_ms; /* when the log had its last line about that; 0: never */

    /* the agent's loop */
    uint64_t gave_way;       /* slow ones that were cut for others */
    uint64_t sent_bytes;     /* over the connections of exports, */
    uint64_t received_bytes; /* and of imports */
};

/* One was refused, since there were as many as transfer_requests allows. Any thread. The log tells of it, but not more often than
 * each ten seconds: who is refused tries again and again. */
void transfer_count_refused(struct transfer_counts *, const char *path, const char *peer, unsigned requests_max);
