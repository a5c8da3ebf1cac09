/* trace.h - what happened in a simulation: the last events, a fingerprint of all, and how it fails
 *
 * Every event is a line with the simulated time. The fingerprint is that of all lines, so two runs of a seed are the
 * same exactly when their fingerprints are. A failure prints the seed and the last events, and ends the process: a
 * simulation runs in a process of its own. */
#pragma once

#include "shared/base.h"
#include "shared/clock.h"

#define TRACE_FAILED 3 /* exit status of a process whose simulation has failed */

struct trace {
    uint64_t seed;
    struct clock *clock;
    uint64_t began_ms;
    bool is_verbose;         /* print events as they come */
    uint64_t events;
    uint64_t fingerprint;
    void (*last_will)(void *arg); /* before the process ends by a failure */
    void *last_will_arg;
    char lines[200][256];    /* the last ones; a ring */
};

void trace_init(struct trace *, uint64_t seed, struct clock *, bool is_verbose);
void trace_event(struct trace *, const char *format, ...) _printf_(2, 3);

/* A promise is broken. */
_noreturn_ void trace_fail(struct trace *, const char *format, ...) _printf_(2, 3);
/* The last events to stderr, and the last will; for a handler of fatal signals, too. */
void trace_print(const struct trace *);
