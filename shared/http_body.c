/* http_body.c - request bodies, gathered whole or passed on as an upload
 *
 * An upload is a ring between the loop, which fills it, and one consumer on any thread. When it is
 * full the loop leaves the socket alone, so TCP holds the client back; when half of it is free
 * again the consumer's thread posts the loop. Once both have let go of it, it is freed.
 *
 * A whole body costs memory before anybody knows whose it is, so all of them share a bound. A client can hold its part for
 * body_ms and come again, so nobody waits for room: who finds none is told, and who sends little needs none.
 *
 * The free part of the ring belongs to the loop: unless the body comes in chunks, the socket is
 * read right into it, without the lock. */
#include "shared/http_internal.h"

struct http_upload {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int references; /* the loop's and the consumer's */
    enum http_upload_state state;
    bool loop_waits;   /* for room */
    bool is_abandoned; /* by the consumer */
    struct http_ticket ticket;
    void (*fn)(struct http_upload *, void *);
    void *arg;
    size_t size, start, used;
    char data[];
};

/* --- the ring -------------------------------------------------------------------------------- */

/* Room for the loop to fill; when there is none it will be posted. */
static size_t upload_room(struct http_upload *upload)
{
    size_t room;

    pthread_mutex_lock(&upload->lock);
    room = upload->size - upload->used; /* all of it, when it was abandoned */
    upload->loop_waits = room == 0;
    pthread_mutex_unlock(&upload->lock);
    return room;
}

static bool upload_is_full(struct http_upload *upload)
{
    bool is_full;

    pthread_mutex_lock(&upload->lock);
    is_full = upload->loop_waits;
    pthread_mutex_unlock(&upload->lock);
    return is_full;
}

static void upload_notify(struct http_upload *upload)
{
    bool is_abandoned;

    pthread_mutex_lock(&upload->lock);
    is_abandoned = upload->is_abandoned;
    pthread_mutex_unlock(&upload->lock);
    if (!is_abandoned)
        upload->fn(upload, upload->arg);
}

/* The free part, or its first stretch when it goes around the end: where the next bytes belong. */
static char *upload_free(struct http_upload *upload, size_t *ret_bytes)
{
    char *data;
    size_t end;

    pthread_mutex_lock(&upload->lock);
    if (upload->used == 0)
        upload->start = 0; /* the nearer memory */
    end = (upload->start + upload->used) % upload->size;
    data = upload->data + end;
    *ret_bytes = MIN(upload->size - upload->used, upload->size - end);
    pthread_mutex_unlock(&upload->lock);
    return data;
}

/* So many bytes more, which lie there. */
static void upload_add(struct http_upload *upload, size_t bytes)
{
    bool was_empty;

    pthread_mutex_lock(&upload->lock);
    was_empty = upload->used == 0;
    if (!upload->is_abandoned)
        upload->used += bytes;
    pthread_cond_broadcast(&upload->changed);
    pthread_mutex_unlock(&upload->lock);
    if (was_empty)
        upload_notify(upload);
}

static void upload_append(struct http_upload *upload, const char *data, size_t bytes)
{
    while (bytes > 0) {
        size_t some;
        char *to = upload_free(upload, &some);

        some = MIN(some, bytes);
        assert(some > 0);
        memcpy(to, data, some);
        upload_add(upload, some);
        data += some;
        bytes -= some;
    }
}

static size_t upload_look(struct http_upload *upload, const char **ret_data,
                          enum http_upload_state *ret_state)
{
    if (ret_state)
        *ret_state = upload->state;
    *ret_data = upload->data + upload->start;
    return MIN(upload->used, upload->size - upload->start);
}

size_t http_upload_peek(struct http_upload *upload, const char **ret_data,
                        enum http_upload_state *ret_state)
{
    size_t bytes;

    pthread_mutex_lock(&upload->lock);
    bytes = upload_look(upload, ret_data, ret_state);
    pthread_mutex_unlock(&upload->lock);
    return bytes;
}

size_t http_upload_wait(struct http_upload *upload, const char **ret_data,
                        enum http_upload_state *ret_state)
{
    size_t bytes;

    pthread_mutex_lock(&upload->lock);
    while (upload->used == 0 && upload->state == HTTP_UPLOAD_OPEN)
        pthread_cond_wait(&upload->changed, &upload->lock);
    bytes = upload_look(upload, ret_data, ret_state);
    pthread_mutex_unlock(&upload->lock);
    return bytes;
}

static void upload_continue(struct http_request *request, void *arg)
{
    (void) request; /* the run that follows each ticket does it */
    (void) arg;
}

void http_upload_consumed(struct http_upload *upload, size_t bytes)
{
    struct http_ticket ticket;
    bool wake;

    pthread_mutex_lock(&upload->lock);
    assert(bytes <= upload->used);
    upload->start = (upload->start + bytes) % upload->size;
    upload->used -= bytes;
    wake = upload->loop_waits && upload->size - upload->used >= (upload->size + 1) / 2;
    if (wake)
        upload->loop_waits = false;
    ticket = upload->ticket;
    pthread_mutex_unlock(&upload->lock);
    if (wake)
        http_loop_post_ticket(ticket, upload_continue, NULL, true);
}

static void upload_release(struct http_upload *upload)
{
    int left;

    pthread_mutex_lock(&upload->lock);
    left = --upload->references;
    pthread_mutex_unlock(&upload->lock);
    if (left > 0)
        return;
    pthread_cond_destroy(&upload->changed);
    pthread_mutex_destroy(&upload->lock);
    free(upload);
}

void http_upload_unref(struct http_upload **upload_p)
{
    struct http_upload *upload = TAKE(*upload_p);
    struct http_ticket ticket;
    bool wake;

    if (!upload)
        return;
    pthread_mutex_lock(&upload->lock);
    upload->is_abandoned = true;
    upload->used = 0;
    wake = upload->loop_waits;
    upload->loop_waits = false;
    ticket = upload->ticket;
    pthread_mutex_unlock(&upload->lock);
    if (wake)
        http_loop_post_ticket(ticket, upload_continue, NULL, true);
    upload_release(upload);
}

/* The loop lets go: nothing more comes. */
void http_body_upload_end(struct exchange *ex, enum http_upload_state state)
{
    struct http_upload *upload = TAKE(ex->upload);

    if (!upload)
        return;
    pthread_mutex_lock(&upload->lock);
    upload->state = state;
    upload->loop_waits = false;
    pthread_cond_broadcast(&upload->changed);
    pthread_mutex_unlock(&upload->lock);
    upload_notify(upload);
    upload_release(upload);
}

void http_allow_silence(struct http_request *request, int silence_ms)
{
    struct exchange *ex = http_exchange_of(request);

    assert(!ex->upload && silence_ms > 0);
    ex->silence_ms = silence_ms;
}

struct http_upload *http_consume(struct http_request *request, size_t buffer_bytes,
                                 void (*fn)(struct http_upload *, void *), void *arg)
{
    struct exchange *ex = http_exchange_of(request);
    struct http_upload *upload;

    assert(ex->answer == ANSWER_NONE && (ex->body == BODY_UNREAD || ex->body == BODY_DONE)
           && !ex->upload);
    assert(buffer_bytes > 0);
    upload = alloc0(sizeof *upload + buffer_bytes);
    pthread_mutex_init(&upload->lock, NULL);
    pthread_cond_init(&upload->changed, NULL);
    upload->references = 2;
    upload->ticket = http_ticket_of(request);
    upload->fn = fn;
    upload->arg = arg;
    upload->size = buffer_bytes;
    ex->upload = upload;
    ex->is_parked = true;
    ex->body = BODY_UPLOAD; /* also where there is no body: its end is told from http_body_step */
    ex->connection->is_readable = true; /* or not: see http_io.c */
    http_connection_touch(ex->connection);
    return upload;
}

/* --- bodies ---------------------------------------------------------------------------------- */

void http_read_body(struct http_request *request, size_t bytes_max,
                    void (*fn)(struct http_request *, const char *, size_t, void *), void *arg)
{
    struct exchange *ex = http_exchange_of(request);

    assert(ex->answer == ANSWER_NONE && (ex->body == BODY_UNREAD || ex->body == BODY_DONE)
           && !ex->on_body);
    ex->body_bytes_max = bytes_max;
    ex->on_body = fn;
    ex->on_body_arg = arg;
    ex->body = BODY_WHOLE;
    ex->connection->is_readable = true; /* or not: see http_io.c */
    http_connection_touch(ex->connection);
}

enum body_result { BODY_RUN, BODY_NEEDS_INPUT, BODY_ENDS, BODY_BAD };

/* Take the next run of body, at most bytes_max, out of what has arrived. With bytes_max 0 only an
 * end that is known without more input is found. */
static enum body_result body_next(struct exchange *ex, size_t bytes_max, const char **ret_data,
                                  size_t *ret_bytes)
{
    struct input *in = &ex->connection->in;
    size_t bytes = MIN(in->end - in->start, bytes_max);

    if (bytes > 0)
        *ret_data = in->data + in->start;
    switch (ex->framing) {
    case FRAMING_NONE:
        return BODY_ENDS;
    case FRAMING_LENGTH:
        if (ex->body_left == 0)
            return BODY_ENDS;
        bytes = MIN(bytes, ex->body_left);
        ex->body_left -= bytes;
        break;
    case FRAMING_CHUNKED:
        while (true) {
            size_t used;
            enum http_chunks_result result;

            bytes = MIN(in->end - in->start, bytes_max);
            result = http_chunks_next(&ex->chunks, bytes > 0 ? in->data + in->start : "", bytes,
                                      &used, ret_data, ret_bytes);
            in->start += used;
            switch (result) {
            case HTTP_CHUNKS_DATA:
                return BODY_RUN;
            case HTTP_CHUNKS_END:
                return BODY_ENDS;
            case HTTP_CHUNKS_BAD:
                return BODY_BAD;
            case HTTP_CHUNKS_MORE:
                if (in->start == in->end || bytes_max == 0)
                    return BODY_NEEDS_INPUT;
            }
        }
    case FRAMING_UNTIL_CLOSE:
        if (in->start == in->end && ex->connection->is_at_eof)
            return BODY_ENDS;
        break;
    }
    in->start += bytes;
    *ret_bytes = bytes;
    return bytes > 0 ? BODY_RUN : BODY_NEEDS_INPUT;
}

/* On a unix socket that says nothing of its end (http_parcel.c), one that is closed altogether has an end like one whose
 * sender was killed. Who means it as the body's end waits for the answer, and half-closes. */
static bool is_abandoned(struct connection *conn)
{
    return conn->peer.is_unix && !conn->is_parcelled && http_io_is_hung_up(conn);
}

/* After a read. Returns true when there is input (`got` is positive), or the news that it has ended in order. */
static bool body_got(struct exchange *ex, ssize_t got)
{
    struct connection *conn = ex->connection;

    if (got > 0)
        return true;
    if (got == IO_AGAIN)
        return false;
    if (got == 0 && !is_abandoned(conn)) {
        if (ex->framing == FRAMING_UNTIL_CLOSE)
            return true;
        if (ex->framing == FRAMING_LENGTH && ex->body == BODY_UPLOAD) {
            ex->body = BODY_DONE;
            conn->is_keep_alive = false;
            http_body_upload_end(ex, HTTP_UPLOAD_SHORT);
            return true;
        }
    }
    conn->is_cut = ex->is_head_sent; /* who was told 200 must not take the end for the answer's */
    http_connection_kill(conn);
    return false;
}

static bool body_fill(struct exchange *ex, size_t bytes_max)
{
    return body_got(ex, http_input_fill(ex->connection, bytes_max));
}

/* The client waits for our word before it sends, unless it did not wait. */
void http_body_invite(struct exchange *ex)
{
    struct connection *conn = ex->connection;

    if (!ex->expects_continue)
        return;
    ex->expects_continue = false;
    if (conn->in.start == conn->in.end)
        evbuffer_add(conn->out, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

/* Count what is gathered and so many bytes more; false when there is no room for them. */
static bool body_count(struct exchange *ex, size_t bytes)
{
    struct http_server *server = ex->connection->loop->server;
    size_t all = ex->gathered.end + bytes, counted, more;

    counted = all > HTTP_BODY_FREE_BYTES ? all - HTTP_BODY_FREE_BYTES : 0;
    more = counted - ex->body_counted;
    if (more == 0)
        return true;
    if (atomic_fetch_add(&server->bodies_bytes, more) + more > server->config.bodies_bytes_max) {
        atomic_fetch_sub(&server->bodies_bytes, more);
        return false;
    }
    ex->body_counted = counted;
    return true;
}

void http_body_uncount(struct exchange *ex)
{
    if (ex->body_counted > 0)
        atomic_fetch_sub(&ex->connection->loop->server->bodies_bytes, ex->body_counted);
    ex->body_counted = 0;
}

/* What the handler makes of the body takes about as much, as long as the request: so that is still counted. */
static void body_deliver(struct exchange *ex, const char *data, size_t bytes)
{
    ex->body = BODY_DONE;
    ex->on_body(&ex->request, bytes > 0 ? data : "", bytes, ex->on_body_arg);
    http_input_clear(&ex->gathered);
    http_exchange_check(ex);
}

static bool body_whole_step(struct exchange *ex)
{
    struct connection *conn = ex->connection;
    struct input *in = &conn->in;
    const char *data;
    size_t bytes;

    if (ex->framing == FRAMING_LENGTH && ex->gathered.end == 0) {
        if (ex->body_left > ex->body_bytes_max) {
            http_connection_refuse(conn, 413);
            return true;
        }
        if (in->end - in->start >= ex->body_left) { /* it came with the head: no copy */
            data = in->data + in->start;
            bytes = ex->body_left;
            in->start += bytes;
            ex->body_left = 0;
            body_deliver(ex, data, bytes);
            return true;
        }
    }
    if (ex->expects_continue) {
        http_body_invite(ex);
        return true;
    }
    while (true) {
        switch (body_next(ex, SIZE_MAX, &data, &bytes)) {
        case BODY_RUN:
            if (bytes > ex->body_bytes_max - ex->gathered.end) {
                http_connection_refuse(conn, 413);
                return true;
            }
            if (!body_count(ex, bytes)) {
                http_connection_refuse(conn, 503);
                return true;
            }
            http_input_append(&ex->gathered, data, bytes);
            break;
        case BODY_ENDS:
            body_deliver(ex, ex->gathered.data, ex->gathered.end);
            return true;
        case BODY_BAD:
            http_connection_refuse(conn, 400);
            return true;
        case BODY_NEEDS_INPUT:
            return body_fill(ex, HTTP_READ_BYTES);
        }
    }
}

/* From the socket into the ring. */
static bool upload_read(struct exchange *ex)
{
    size_t bytes;
    char *to = upload_free(ex->upload, &bytes);
    ssize_t got;

    bytes = MIN(bytes, (size_t) HTTP_UPLOAD_READ_BYTES);
    if (ex->framing == FRAMING_LENGTH)
        bytes = MIN(bytes, ex->body_left);
    got = http_io_read(ex->connection, to, bytes);
    if (got > 0) {
        if (ex->framing == FRAMING_LENGTH)
            ex->body_left -= (size_t) got;
        upload_add(ex->upload, (size_t) got);
    }
    return body_got(ex, got);
}

static bool body_upload_step(struct exchange *ex)
{
    struct connection *conn = ex->connection;
    const char *data;
    size_t bytes, room;

    if (ex->expects_continue) {
        http_body_invite(ex);
        return true;
    }
    room = upload_room(ex->upload);
    switch (body_next(ex, room, &data, &bytes)) {
    case BODY_RUN:
        upload_append(ex->upload, data, bytes);
        return true;
    case BODY_ENDS:
        ex->body = BODY_DONE;
        http_body_upload_end(ex, HTTP_UPLOAD_COMPLETE);
        return true;
    case BODY_BAD:
        http_connection_refuse(conn, 400);
        return true;
    case BODY_NEEDS_INPUT:
        break;
    }
    if (room == 0)
        return false;
    /* never more than fits: nothing is left over */
    return ex->framing == FRAMING_CHUNKED ? body_fill(ex, room) : upload_read(ex);
}

static bool body_drain_step(struct exchange *ex)
{
    const char *data;
    size_t bytes;

    while (true) {
        switch (body_next(ex, SIZE_MAX, &data, &bytes)) {
        case BODY_RUN:
            break;
        case BODY_ENDS:
            ex->body = BODY_DONE;
            return true;
        case BODY_BAD:
            http_connection_kill(ex->connection);
            return false;
        case BODY_NEEDS_INPUT:
            return body_fill(ex, HTTP_READ_BYTES);
        }
    }
}

bool http_body_step(struct exchange *ex)
{
    switch (ex->body) {
    case BODY_WHOLE:
        return body_whole_step(ex);
    case BODY_UPLOAD:
        return body_upload_step(ex);
    case BODY_DRAIN:
        return body_drain_step(ex);
    case BODY_UNREAD:
    case BODY_ABANDONED:
    case BODY_DONE:
        break;
    }
    return false;
}

bool http_body_is_wanted(const struct exchange *ex)
{
    return ex->body == BODY_WHOLE || ex->body == BODY_DRAIN
           || (ex->body == BODY_UPLOAD && !upload_is_full(ex->upload));
}
