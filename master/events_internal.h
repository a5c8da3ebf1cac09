/* events_internal.h - what events.c, event_wait.c and event_calls.c share */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "master/events.h"
#include "master/store.h"
#include "master/subscription.h"
#include "shared/timers.h"

#define READER_LOOPS_MAX 64
#define ID_MARKS \
    65536 /* generations whose event numbers are known: 1 MiB, seconds of the busiest pool */

/* From which number the events of a generation count. */
struct id_mark {
    uint64_t generation, first_id;
};

/* A session's registration for event.next. */
struct registration {
    ref_t session;
    struct arena *arena; /* of the subscription */
    struct subscription subscription;
    char **elements; /* as registered, for unregister; malloc'd */
    uint32_t element_count;
    uint64_t cursor; /* generation that the reader knows */
    struct registration *next;
};

struct events {
    struct core *core;
    pthread_mutex_t mutex; /* of all that follows, but the atomics */
    struct registration *registrations[1024];
    struct reader_loop *loops[READER_LOOPS_MAX];
    unsigned loop_count;
    struct reader_loop *ended[READER_LOOPS_MAX];
    unsigned ended_count;
    struct id_mark *marks; /* marks[n % ID_MARKS] */
    uint64_t mark_count;
    uint64_t id_next;
    struct epoch_entry *epochs;
    size_t epoch_count;
    struct store_sink sink;
    struct store_listener listener;
    struct timer heartbeat;
    _Atomic uint64_t waiting, waiting_next, wakes, answers;
};

/* What a blocked reader is. */
struct reader {
    struct request *request;
    bool is_next; /* event.next; else event.from */
    struct subscription subscription;
    uint64_t cursor;      /* generation that it knows */
    uint64_t deadline_ms; /* event.from: 0 for none */
};

/* ---- events.c ---- */

/* With which number the events of a generation begin, and that of the next change. Any thread. */
uint64_t events_first_id(struct events *, uint64_t generation);
uint64_t events_next_id(struct events *);
/* Was this generation ever told for good, by this master or those before it? */
bool events_knows(struct events *, uint64_t generation);
void events_add_loop(struct events *, struct reader_loop *);
void events_remove_loop(struct events *, struct reader_loop *);

/* The call's session registers for `more` elements, or gives up `less`; either may be NULL. 0 or a
 * parse failure. */
int registration_change(struct events *, struct call *, const struct value *more,
                        const struct value *less);
/* The present subscription, copied to the arena, and the generation up to which the reader knows.
 * False: none. */
bool registration_read(struct events *, ref_t session, struct arena *, struct subscription *ret,
                       uint64_t *ret_cursor);
/* The reader was told up to this generation. */
void registration_told(struct events *, ref_t session, uint64_t generation);
void registration_end(struct events *, ref_t session);

/* ---- event_wait.c ---- */

/* On its HTTP loop: wait for something to tell, then answer the request. `looked_at` is the
 * generation in which there was nothing; with a holdoff there is something, but the reader has to
 * wait that long. Returns CALL_PARKED. */
int reader_park(const struct reader *, uint64_t looked_at, uint64_t holdoff_ms);

/* How long this reader has to wait for its next answer; note that it is answered now. */
uint64_t reader_holdoff_ms(struct reader_loop *, const struct call *, const struct subscription *);
void reader_answered(struct reader_loop *, const struct call *, const struct subscription *);

/* Messages to a loop that has ended may still be on their way, so it is freed with the events. */
void reader_loop_free(struct reader_loop *);

/* Any thread: classes have changed; the session's registration has. */
void reader_loop_wake(struct reader_loop *, const uint64_t class_mask[2]);
void reader_loop_reread(struct reader_loop *, ref_t session);

/* ---- event_calls.c ---- */

/* Answer a reader that has waited, from its request's view. The request is gone afterwards. */
void reader_answer(const struct reader *);
