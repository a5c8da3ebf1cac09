/* transfer_rate.h - how fast all transfers of a host together may be
 *
 * A bucket that fills at the rate and holds a quarter of a second's worth; who takes more than there is waits its share.
 * Turns are taken in the order of asking, and all turns are of the same size, so transfers at once get alike: one whose codec
 * takes much at once has as many turns to wait for. */
#pragma once

#include "shared/base.h"

#include <stdatomic.h>

struct transfer_rate;

/* 0 bytes a second: no bound. */
struct transfer_rate *transfer_rate_new(int64_t bytes_per_s);
void transfer_rate_destroy(struct transfer_rate **);

/* As many as should be waited for at once: a quarter of a second's worth, so that a stream goes on and does not stand still for
 * long and then come in one piece. At least 1; SIZE_MAX for NULL. */
size_t transfer_rate_piece(const struct transfer_rate *);

/* Wait until so many bytes of a transfer may pass, in whole turns: what is less than one stands in *owed, the transfer's own, 0
 * at first, and is paid with what follows. 0, or -ECANCELED when *is_cancelled has become true, which is looked at a few times a
 * second; what it had not waited for yet is then others'. NULL for rate: 0 at once. */
int transfer_rate_wait(struct transfer_rate *, size_t *owed, size_t bytes, const _Atomic bool *is_cancelled);
