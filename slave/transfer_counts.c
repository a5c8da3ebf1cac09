/* transfer_counts.c - what the transfers of a host have added up to since its agent began */
#include "slave/transfer_counts.h"

#include "shared/clock.h"
#include "shared/log.h"

#define TELL_MS 10000

void transfer_count_refused(struct transfer_counts *counts, const char *path, const char *peer, unsigned requests_max)
{
    uint64_t refused = atomic_fetch_add(&counts->refused, 1) + 1;
    uint64_t now_ms = clock_now_ms(clock_real()), told_ms = atomic_load(&counts->told_ms);

    if ((told_ms > 0 && now_ms < told_ms + TELL_MS) || !atomic_compare_exchange_strong(&counts->told_ms, &told_ms, now_ms))
        return;
    log_warning(NULL,
                "a client's %s from %s is refused with 503: %u transfers are there, as many as the setting transfer_requests "
                "allows; refused since the agent began: %llu",
                path, peer, requests_max, (unsigned long long) refused);
}
