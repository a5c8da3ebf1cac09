/* clock.c - the real clocks, and the one that tests and the simulator move by hand */
#include "shared/clock.h"

#include <time.h>

static uint64_t read_us(clockid_t id)
{
    struct timespec now;

    if (clock_gettime(id, &now) < 0)
        die("clock_gettime(%d) fails", (int) id);
    return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

static uint64_t real_now_us(_unused_ struct clock *clock)
{
    return read_us(CLOCK_BOOTTIME);
}

static uint64_t real_now_ms(_unused_ struct clock *clock)
{
    return read_us(CLOCK_BOOTTIME) / 1000;
}

static int64_t real_utc_ms(_unused_ struct clock *clock)
{
    return (int64_t) (read_us(CLOCK_REALTIME) / 1000);
}

static int64_t real_utc_s(_unused_ struct clock *clock)
{
    return (int64_t) (read_us(CLOCK_REALTIME) / 1000000);
}

struct clock *clock_real(void)
{
    static struct clock real = {
        .now_ms = real_now_ms,
        .now_us = real_now_us,
        .utc_s = real_utc_s,
        .utc_ms = real_utc_ms,
    };

    return &real;
}

static struct fake_clock *fake_of(struct clock *clock)
{
    return CONTAINER_OF(clock, struct fake_clock, clock);
}

static uint64_t fake_now_us(struct clock *clock)
{
    return fake_of(clock)->time_us;
}

static uint64_t fake_now_ms(struct clock *clock)
{
    return fake_of(clock)->time_us / 1000;
}

static int64_t fake_utc_ms(struct clock *clock)
{
    struct fake_clock *fake = fake_of(clock);

    return ((int64_t) fake->time_us + fake->utc_less_us) / 1000;
}

static int64_t fake_utc_s(struct clock *clock)
{
    return fake_utc_ms(clock) / 1000;
}

void fake_clock_init(struct fake_clock *fake, uint64_t start_ms, int64_t utc_s)
{
    *fake = (struct fake_clock){
        .clock = {.now_ms = fake_now_ms,
                  .now_us = fake_now_us,
                  .utc_s = fake_utc_s,
                  .utc_ms = fake_utc_ms},
        .time_us = start_ms * 1000,
    };
    fake_clock_set_utc(fake, utc_s);
}

void fake_clock_advance_ms(struct fake_clock *fake, uint64_t by_ms)
{
    fake->time_us += by_ms * 1000;
}

void fake_clock_set_ms(struct fake_clock *fake, uint64_t now_ms)
{
    assert(now_ms * 1000 >= fake->time_us);
    fake->time_us = now_ms * 1000;
}

void fake_clock_set_utc(struct fake_clock *fake, int64_t utc_s)
{
    fake->utc_less_us = utc_s * 1000000 - (int64_t) fake->time_us;
}
