/* transfer_left.h - transfers that nobody here works on any more, and that are still at work at their host
 *
 *   import's fiber                  here                                     slave
 *   cancelled: transfer_abort ------------------------------------------->   cut; a disk keeps its thread
 *             <-------------------------------------------------------------- no end within 20 s
 *   the task ends, the disks stay
 *   taken ------------------------> transfer_abort ---------------------->   waits
 *                                                  <----------------------   ... no end within 20 s
 *                                   transfer_abort ---------------------->   waits, and the disk answers
 *                                                  <----------------------   over
 *                                   claim and half-made disks go
 *
 * However often a host tells of one, it costs one fiber here and one call there. Without a link nobody is asked: the next hello, or the
 * next beat of the host, begins it again (raw_vdi_doubt.c, http_transfer.c); that a claim is held is in an INTENT meanwhile, and which
 * disks are half made in their records, so the next master goes on with it. */
#pragma once

#include "master/call.h"

struct transfers_left;

/* When core->transfers is made. */
void transfers_left_start(struct core *);
void transfers_left_destroy(struct transfers_left **);

/* As long as the host has a link it is asked to end this one, and when that is over nobody has what it held any more: the claim of a
 * disk that was being overwritten (raw_vdi_doubt.h) and disks that were being made (storage_sweep). False when that is under way
 * already. `id` is the slave's number of it. */
bool transfer_left_end(struct core *, ref_t host, ref_t id);
