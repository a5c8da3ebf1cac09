/* histogram.c - see histogram.h */
#include "tests/bench/histogram.h"

/* Values below 256 have slots of their own; above, the highest bit and the seven behind it are the slot. */
static size_t slot_of(uint64_t value)
{
    int shift = 63 - __builtin_clzll(value | 1) - HISTOGRAM_STEP_BITS;

    if (shift <= 0)
        return (size_t) value;
    return ((size_t) shift << HISTOGRAM_STEP_BITS) + (size_t) (value >> shift);
}

static uint64_t slot_most(size_t slot)
{
    size_t shift = slot >> HISTOGRAM_STEP_BITS;

    if (shift <= 1)
        return slot;
    shift--;
    return (((uint64_t) (slot - (shift << HISTOGRAM_STEP_BITS)) + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->slots[slot_of(value)]++;
    histogram->count++;
    histogram->sum += value;
    histogram->most = MAX(histogram->most, value);
}

uint64_t histogram_at(const struct histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t) ((double) histogram->count * share), seen = 0;

    if (histogram->count == 0)
        return 0;
    wanted = MIN(wanted + ((double) wanted < (double) histogram->count * share), histogram->count);
    for (size_t i = 0; i < HISTOGRAM_SLOTS; i++) {
        seen += histogram->slots[i];
        if (seen >= wanted && seen > 0)
            return MIN(slot_most(i), histogram->most);
    }
    return histogram->most;
}
