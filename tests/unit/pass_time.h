/* pass_time.h - time for a loop on a fake clock: it passes timer by timer, as fast as the machine can */
#pragma once

#include "shared/clock.h"
#include "shared/loop.h"

/* Run until nothing happens without time passing. */
static inline void run_until_idle(struct loop *loop)
{
    while (loop_step(loop))
        ;
}

/* Let ms pass: each timer that is due meanwhile runs at its own time, those that it starts too. */
static inline void pass_time(struct loop *loop, struct fake_clock *clock, uint64_t ms)
{
    uint64_t end = clock_now_ms(&clock->clock) + ms;

    run_until_idle(loop);
    while (loop_next_timer_ms(loop) <= end) {
        fake_clock_set_ms(clock, MAX(loop_next_timer_ms(loop), clock_now_ms(&clock->clock)));
        run_until_idle(loop);
    }
    fake_clock_set_ms(clock, end);
    run_until_idle(loop);
}
