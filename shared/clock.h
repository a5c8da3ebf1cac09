/* clock.h - what time it is, through a table that the simulator replaces.
 *
 * Two kinds of time, never mixed. Whatever decides (deadlines, leases, heartbeats) uses now_ms or
 * now_us: CLOCK_BOOTTIME, which never jumps and goes on while the machine sleeps. What people and
 * records see uses utc_s or utc_ms: the wall clock, which an administrator may set to anything at
 * any moment. */
#pragma once

#include "shared/base.h"

struct clock {
    uint64_t (*now_ms)(struct clock *clock);
    uint64_t (*now_us)(struct clock *clock);
    int64_t (*utc_s)(struct clock *clock);
    int64_t (*utc_ms)(struct clock *clock);
};

/* The machine's own clocks. Any thread; lives for ever. */
struct clock *clock_real(void);

static inline uint64_t clock_now_ms(struct clock *clock)
{
    return clock->now_ms(clock);
}

static inline uint64_t clock_now_us(struct clock *clock)
{
    return clock->now_us(clock);
}

static inline int64_t clock_utc_s(struct clock *clock)
{
    return clock->utc_s(clock);
}

static inline int64_t clock_utc_ms(struct clock *clock)
{
    return clock->utc_ms(clock);
}

/* A clock that moves only when it is told to. One thread at a time. Both kinds of time advance
 * together; fake_clock_set_utc moves the wall clock alone, as an administrator would. */
struct fake_clock {
    struct clock clock;  /* hand out &fake.clock */
    uint64_t time_us;    /* what now_us answers */
    int64_t utc_less_us; /* wall clock minus time_us */
};

/* Starts at start_ms (not 0: a deadline of 0 means none) and utc_s. */
void fake_clock_init(struct fake_clock *fake, uint64_t start_ms, int64_t utc_s);
void fake_clock_advance_ms(struct fake_clock *fake, uint64_t by_ms);
void fake_clock_set_ms(struct fake_clock *fake, uint64_t now_ms); /* never backwards: asserted */
void fake_clock_set_utc(struct fake_clock *fake, int64_t utc_s);
