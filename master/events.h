/* events.h - who is told about a change: event.from, event.next, readers that wait
 * (wire.md section 7)
 *
 *   event.from on an HTTP loop -> anything since the token? -> answer
 *                                      | nothing
 *                                      v
 *                    parked: the request and this, some kB; no thread, no fiber, no pin
 *                                      ^
 *   core: generation visible -> loops with a reader of what changed -> those readers look again
 *
 * A reader is woken by class, or by object where it named objects, so a commit costs in proportion
 * to those who care. The first change is answered at once; a reader that was answered less than 50
 * ms ago waits for those 50 ms, so that a storm of changes reaches it in batches. */
#pragma once

#include "master/call.h"
#include "master/dispatch.h"

struct events;
struct http_loop;

struct events *events_new(struct core *);
void events_destroy(struct events **);

/* After the store is loaded: which generations former masters told about. Newest first; copied. */
struct epoch_entry;
void events_set_epochs(struct events *, const struct epoch_entry *, size_t count);

/* The readers of one HTTP loop: made on that loop when it starts, ended on it when it stops. */
struct reader_loop *reader_loop_new(struct events *, struct http_loop *);
void reader_loop_destroy(struct reader_loop **);

struct event_figures {
    uint64_t waiting; /* readers now */
    uint64_t wakes;   /* that looked again */
    uint64_t answers; /* of those that had waited */
};
void events_figures(struct events *, struct event_figures *ret);
