/* raw_vdi_doubt.h - a disk that is being overwritten stays claimed until nobody can be at it any more
 *
 *   begin     INTENT, durable: this host writes to this disk
 *   end       INTENT and claim gone, in one transaction
 *   leave     the host cannot be asked, or its disk does not answer it: INTENT and claim stay
 *                ... until it says that what is left of it is over (transfer_left.h),
 *                    or is declared dead; the next master goes on with it */
#pragma once

#include "master/http_transfer.h"

struct claim;

/* The operation of such an INTENT, and the name of the kind of transfer that leaves it. */
#define RAW_WRITE "VDI.import_raw_vdi"

/* With the disk's claim held. */
void raw_write_begin(struct http_transfer *, ref_t vdi);
/* `r` is what the host's part ended with, settled. Ends the claim unless the host may still write. Returns r. */
int raw_write_end(struct http_transfer *, struct claim *, int r);

/* A master's start (struct transfer_kind): the disk that an earlier one had written to is claimed again. */
void raw_write_recover(struct txn *, const struct object *intent);
/* After core->slaves is there. */
void raw_writes_start(struct core *);
/* The transfer of this number is over at its host. Nothing happens when it was none of these, or an import lives that sees to it. */
void raw_write_over(struct call *, ref_t transfer);
/* The host is fenced or declared dead: it writes no more. */
void raw_writes_host_gone(struct call *, ref_t host);
