/* transfer_upload.h - the body of an HTTP request as the source of an import's codec
 *
 *      socket --> http_upload, a bounded ring --> source.read() on the codec's thread
 *
 * The codec takes what it needs: what it leaves unread stays in the socket, whose client then waits. */
#pragma once

#include "shared/http.h"
#include "slave/stream.h"

struct place;
struct transfer_rate;
struct upload_source;

/* Takes the upload's reference.
 *
 *   is_open_ended   a body that ends in order before its length has ended well (clients that do not know it say 2^50)
 *   is_cancelled    read before each wait: what is still read is not wanted; whoever sets it also breaks the upload
 *   place           lent to others while the client sends nothing (transfer_places.h)
 *   figures, rate, place outlive it; the last two may be NULL */
struct upload_source *upload_source_new(struct http_upload *, bool is_open_ended, const _Atomic bool *is_cancelled,
                                        struct transfer_figures *figures, struct transfer_rate *rate, struct place *place);
/* NULL is fine. */
void upload_source_destroy(struct upload_source **);

struct source *upload_source_of(struct upload_source *);
