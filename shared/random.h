/* random.h - random bytes, through a table that the simulator replaces.
 *
 * random_real() asks the kernel and is good for secrets. A seeded_random gives the same bytes for
 * the same seed and is good for simulation and tests only. */
#pragma once

#include "shared/base.h"

struct random {
    void (*bytes)(struct random *random, void *ret_bytes, size_t count);
};

/* The kernel's, read ahead per thread. Any thread; lives for ever. */
struct random *random_real(void);

struct seeded_random {
    struct random random; /* hand out &seeded.random */
    uint64_t state[4];    /* xoshiro256** */
};

void seeded_random_init(struct seeded_random *seeded, uint64_t seed);

static inline void random_bytes(struct random *random, void *ret_bytes, size_t count)
{
    random->bytes(random, ret_bytes, count);
}

uint64_t random_u64(struct random *random);

/* Evenly from 0 to limit - 1; limit is at least 1. */
uint64_t random_below(struct random *random, uint64_t limit);
