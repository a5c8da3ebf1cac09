/* histogram.h - how long things took, so that any share of them can be asked for
 *
 * Counts by size: 128 steps between a power of two and the next, so what is read back is at most one part in 128 above
 * what went in, whatever its size. Adding is a few instructions and the memory is fixed; nothing is sampled or dropped. */
#pragma once

#include "shared/base.h"

#define HISTOGRAM_STEP_BITS 7
#define HISTOGRAM_SLOTS     ((64 - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS)

struct histogram {
    uint64_t count, most, sum;
    uint64_t slots[HISTOGRAM_SLOTS];
};

void histogram_add(struct histogram *histogram, uint64_t value);

/* The value that this share (0 to 1) of all does not exceed; 0 when there are none. */
uint64_t histogram_at(const struct histogram *histogram, double share);
