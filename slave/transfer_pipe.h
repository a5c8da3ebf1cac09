/* transfer_pipe.h - what an export's codec writes on its thread becomes an HTTP answer on a loop
 *
 *      codec's thread                                  HTTP loop
 *      sink.write() -->  [ a few blocks, 1 MiB ]  --> produce() --> socket
 *      waits when full                                says HTTP_WAIT when empty, is resumed
 *
 * A client that goes away, or a transfer that is not wanted any more, ends the codec's next write. */
#pragma once

#include "shared/http.h"
#include "slave/stream.h"

struct pipe;
struct place;
struct transfer_rate;

/* `figures` counts what passes, `rate` (may be NULL) bounds how fast, `place` (may be NULL; transfer_places.h) is lent to others
 * while the codec waits for the client; all outlive the codec. */
struct pipe *pipe_new(struct http_ticket, struct transfer_figures *figures, struct transfer_rate *rate, struct place *place);

/* Begin the answer: status, headers as http.h wants them, and the length or HTTP_LENGTH_UNKNOWN. Any thread, once. */
void pipe_begin(struct pipe *, int status, const char *headers, int64_t length);

/* What the codec writes to. */
struct sink *pipe_sink(struct pipe *);

/* From the codec's thread: that was all, or it is broken off (r < 0) and the client is to see that. Waits until the answer
 * has ended, unless it was cancelled. Returns r, or -EPIPE when the client did not take all of it, -ECANCELED. */
int pipe_end(struct pipe *, int r);

/* Any thread: whatever waits ends now. */
void pipe_cancel(struct pipe *);

/* Of the maker. NULL is fine. */
void pipe_unref(struct pipe **);
