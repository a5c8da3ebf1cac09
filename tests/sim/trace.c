/* trace.c - what happened in a simulation */
#include "tests/sim/trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

void trace_init(struct trace *trace, uint64_t seed, struct clock *clock, bool is_verbose)
{
    *trace = (struct trace){
        .seed = seed, .clock = clock, .began_ms = clock_now_ms(clock), .is_verbose = is_verbose};
}

static char *line_of(const struct trace *trace, uint64_t event)
{
    return (char *) trace->lines[event % ARRAY_SIZE(trace->lines)];
}

void trace_event(struct trace *trace, const char *format, ...)
{
    uint64_t ms = clock_now_ms(trace->clock) - trace->began_ms;
    char *line = line_of(trace, trace->events++);
    size_t bytes = sizeof trace->lines[0];
    int used = snprintf(line, bytes, "%5llu.%03llu  ", (unsigned long long) (ms / 1000),
                        (unsigned long long) (ms % 1000));
    va_list args;

    va_start(args, format);
    vsnprintf(line + used, bytes - (size_t) used, format, args);
    va_end(args);
    trace->fingerprint = XXH64(line, strlen(line), trace->fingerprint);
    if (trace->is_verbose)
        fprintf(stderr, "%s\n", line);
}

void trace_print(const struct trace *trace)
{
    uint64_t count = MIN(trace->events, (uint64_t) ARRAY_SIZE(trace->lines));

    if (!trace->is_verbose)
        for (uint64_t i = trace->events - count; i < trace->events; i++)
            fprintf(stderr, "%s\n", line_of(trace, i));
    fprintf(stderr, "seed %llu, %llu events\n", (unsigned long long) trace->seed,
            (unsigned long long) trace->events);
    if (trace->last_will)
        trace->last_will(trace->last_will_arg);
}

void trace_fail(struct trace *trace, const char *format, ...)
{
    va_list args;

    trace_print(trace);
    fprintf(stderr, "BROKEN: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nagain: scripts/simulate --seed %llu\n", (unsigned long long) trace->seed);
    fflush(stderr);
    _exit(TRACE_FAILED);
}
