/* workers.h - threads for what blocks: password hashing, files, transfers, compression
 *
 * A fiber hands over a function and waits until a thread has run it; the loop goes on meanwhile.
 * The function touches nothing of the loop's but what its argument lends it. With no threads, as in
 * the simulator, it is run at once on the loop's own stack, and the fiber does not even wait. */
#pragma once

#include "shared/base.h"

struct workers;

/* At most so many threads, started as they are needed; 0: run everything at once, in the caller. Any
 * number of jobs may wait for a thread: every job is a fiber, and those are limited. The name, up to 15
 * characters, is what `top` shows. */
struct workers *workers_new(unsigned threads, const char *name);

/* Waits for the running and the queued jobs. Before the loop's own end: jobs work with memory on
 * fibers' stacks. NULL is fine. */
void workers_destroy(struct workers **workers_p);

/* From a fiber: have fn(arg) run by a thread and wait for its end, whatever happens meanwhile: arg
 * may lie on the fiber's stack. Not ended by cancel, and never refused. */
void workers_run(struct workers *workers, void (*fn)(void *arg), void *arg);

/* As many as workers_new() was told. */
unsigned workers_threads(const struct workers *workers);

/* Any thread: jobs that wait for a thread, for /metrics. */
size_t workers_queued(struct workers *workers);
