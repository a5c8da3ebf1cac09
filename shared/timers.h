/* timers.h - the heap of timers inside a loop. Programs use timer_start and timer_stop of loop.h. */
#pragma once

#include "shared/base.h"

struct loop;

/* Embedded in what it belongs to; a zeroed one is stopped. Must be stopped before its memory goes. */
struct timer {
    uint64_t due_us;           /* by the loop's clock */
    uint64_t order;            /* of two that are due together, the one started first runs first */
    size_t place;              /* in the heap, counted from 1; 0: not running */
    struct loop *loop;
    void (*fn)(void *arg);
    void *arg;
};

struct timers {
    struct timer **heap;       /* four children each: half as deep as a binary heap, same comparisons a level in one cache line */
    size_t count, room;
    uint64_t order_next;
};

void timers_add(struct timers *timers, struct timer *timer);       /* due_us is set, not in the heap; sets order */
void timers_remove(struct timers *timers, struct timer *timer);    /* in the heap */
void timers_done(struct timers *timers);                           /* forgets all that still run */

static inline struct timer *timers_first(const struct timers *timers)
{
    return timers->count ? timers->heap[0] : NULL;
}
