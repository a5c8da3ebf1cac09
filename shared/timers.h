/* timers.h - the heap of timers inside a loop. Programs use loop.h. */
#pragma once

#include "shared/base.h"

struct loop;

/* Embedded in what it belongs to; a zeroed one is stopped. Is stopped before its memory goes. */
struct timer {
    uint64_t due_us; /* by the loop's clock */
    uint64_t order;  /* of two that are due together, the one started first runs first */
    size_t place;    /* in the heap, counted from 1; 0: not running */
    struct loop *loop;
    void (*fn)(void *arg);
    void *arg;
};

struct timers {
    struct timer **heap; /* four children each: half as deep as a binary heap */
    size_t count, room;
    uint64_t order_next;
};

/* One that is not in the heap, with due_us set. */
void timers_add(struct timers *timers, struct timer *timer);

/* One that is. */
void timers_remove(struct timers *timers, struct timer *timer);

/* Stops all. */
void timers_done(struct timers *timers);

static inline struct timer *timers_first(const struct timers *timers)
{
    return timers->count ? timers->heap[0] : NULL;
}
