/* transfer_places.h - how many transfers of a host are at work at once
 *
 *      codec's thread   take ==> work ... the client does not read: give ... it does: take ==> work ... give
 *
 * What is scarce are the disks and the processors, so a place is held by who works. Who waits for its client gives it to the next
 * one meanwhile, and gets one again in the order of asking: slow clients hold nobody up. Who was called off loses it at once: its
 * disk may keep it for ever. */
#pragma once

#include "shared/base.h"

#include <stdatomic.h>

struct places;

struct places *places_new(unsigned count);
/* Nobody has one, or waits. NULL is fine. */
void places_destroy(struct places **);

/* How many wait for one. Any thread. */
unsigned places_waiting(struct places *);
/* How many have one. Any thread. */
unsigned places_held(struct places *);

/* ---- of one transfer ---- */

struct place {
    struct places *places;            /* outlives it */
    const _Atomic bool *is_cancelled; /* who waits for a place then waits no longer */
    bool is_held;                     /* with the lock of the places */
    _Atomic bool waits_for_client;    /* and has lent it; any thread reads */
};

/* From the codec's thread; waits. 0, or -ECANCELED without a place. */
int place_take(struct place *);
/* Harmless without one. */
void place_give(struct place *);
/* *is_cancelled has become true: whoever waits is woken, who has a place has it no more, whatever it still does. Any thread. */
void place_lose(struct place *);

/* Around a wait for the client; NULL is fine, and then nothing happens. */
void place_lend(struct place *);
int place_take_back(struct place *);
