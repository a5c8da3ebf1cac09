/* http.c - the life of a connection
 *
 *      accept --> HANDSHAKE --> HEAD <----------------+
 *                  (TLS)         | whole head         | answer sent, keep-alive
 *                                v                    |
 *                             EXCHANGE ---------------+
 *                                | answer sent, close; or the request was refused
 *                                v
 *                             LINGER --> closed
 *
 * http_connection_run() is the only driver: it steps until nothing more can be done now, which is
 * when the socket, the handler, the producer or the consumer has to move first. Whatever moves (an
 * edge, a ticket, a turn, a deadline) ends there again. It never nests: what happens inside of
 * callbacks only changes state.
 *
 * Nothing of a pipelined next request is looked at before the answer to this one is sent, which is
 * also what bounds the memory of one who pipelines. */
#include "shared/http_internal.h"

#include <errno.h>

/* Steps of one run; then other connections have their turn. */
#define STEPS_MAX 16

/* Empty lines before a request that we overlook, as some clients end a body with one. */
#define EMPTY_LINES_MAX 4

/* --- beginning and end ----------------------------------------------------------------------- */

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct connection *conn = arg;

    (void) fd;
    if (what & EV_CLOSED)
        conn->is_closed_by_peer = true;
    if (what & (EV_READ | EV_CLOSED))
        conn->is_readable = true;
    if (what & EV_WRITE)
        conn->is_writable = true;
    if (conn->ssl) /* TLS may need either to do the other */
        conn->is_readable = conn->is_writable = true;

    /* Where we do not read, nothing else would tell that the client is gone. It may half-close. And of an upload that is full
     * the socket may hold the rest: that is read when there is room, and then the end. */
    if (conn->phase == PHASE_EXCHANGE && evbuffer_get_length(conn->out) == 0
        && !http_body_is_wanted(conn->exchange) && conn->exchange->body != BODY_UPLOAD && http_io_is_hung_up(conn)) {
        conn->is_cut = true;
        http_connection_kill(conn);
        return;
    }
    http_connection_run(conn);
}

void http_connection_new(struct http_loop *loop, int fd, SSL *ssl, const struct peer *peer)
{
    struct connection *conn = new0(struct connection);

    conn->loop = loop;
    conn->fd = fd;
    conn->ssl = ssl;
    conn->peer = *peer;
    conn->out = evbuffer_new();
    conn->phase = ssl ? PHASE_HANDSHAKE : PHASE_HEAD;
    if (!conn->out)
        die("out of memory (evbuffer)");
    http_loop_slot_take(conn);
    http_loop_set_deadline(conn, ssl ? DEADLINE_HANDSHAKE : DEADLINE_HEAD);

    /* One registration for the life of the connection; the first edge comes at once. */
    if (event_assign(&conn->event, loop->base, fd,
                     EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST, on_socket, conn)
            < 0
        || event_add(&conn->event, NULL) < 0)
        http_connection_kill(conn);
}

void http_connection_detach(struct connection *conn)
{
    if (event_initialized(&conn->event))
        event_del(&conn->event);
    http_loop_unschedule(conn);
    http_loop_forget_deadline(conn);
}

static void connection_free(struct connection *conn)
{
    struct http_loop *loop = conn->loop;

    conn->is_running = conn->is_dead =
        true; /* callbacks of the exchange may not bring us here again */
    http_connection_detach(conn);
    if (conn->exchange)
        http_exchange_free(conn->exchange);
    http_loop_slot_free(conn);
    http_io_close(conn);
    http_input_clear(&conn->in);
    evbuffer_free(conn->out);
    http_server_forget_peer(loop->server, &conn->peer);
    free(conn);
}

void http_connection_kill(struct connection *conn)
{
    conn->is_dead = true;
    if (!conn->is_running)
        connection_free(conn);
}

void http_connection_touch(struct connection *conn)
{
    if (!conn->is_running)
        http_loop_schedule(conn);
}

/* --- phases ---------------------------------------------------------------------------------- */

/* The exchange is over, whether answered or not. */
static void exchange_end(struct connection *conn)
{
    struct exchange *ex = conn->exchange;

    http_exchange_free(ex);
    conn->exchange = NULL;
    conn->has_served = true;
    conn->head_line = 0;
}

static void linger_begin(struct connection *conn)
{
    conn->phase = PHASE_LINGER;
    conn->is_keep_alive = false;
}

/* The client's mistake, answered by us. What is in out already goes before it. */
void http_connection_refuse(struct connection *conn, int status)
{
    struct exchange *ex = conn->exchange;
    int minor = ex ? ex->request.minor : 1;
    bool can_answer = !ex || (ex->answer == ANSWER_NONE && !ex->is_head_sent);

    if (can_answer)
        evbuffer_add_printf(conn->out,
                            "HTTP/1.%d %d %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                            minor, status, http_status_text(status));
    else
        conn->is_cut = true;
    if (ex)
        exchange_end(conn);
    if (can_answer)
        linger_begin(conn);
    else
        http_connection_kill(conn);
}

static bool handshake_step(struct connection *conn)
{
    switch (http_io_handshake(conn)) {
    case 0:
        conn->phase = PHASE_HEAD;
        return true;
    case IO_ERROR:
        http_connection_kill(conn);
    }
    return false;
}

/* A handler that neither answered nor said what it waits for would leave the client hanging. */
void http_exchange_check(const struct exchange *ex)
{
    assert(ex->connection->is_dead || ex->answer != ANSWER_NONE || ex->is_parked
           || ex->body == BODY_WHOLE);
}

/* A head is there: make it a request and tell the handler. */
static bool exchange_begin(struct connection *conn, size_t head_bytes)
{
    const struct http_config *config = &conn->loop->server->config;
    struct exchange *ex = http_exchange_new(conn, head_bytes);
    int status;

    memcpy(ex->text, conn->in.data + conn->in.start, head_bytes);
    conn->in.start += head_bytes;
    conn->exchange = ex;
    conn->phase = PHASE_EXCHANGE;
    http_loop_set_deadline(conn, DEADLINE_NONE); /* so that the next one of its kind begins anew */
    atomic_fetch_add_explicit(&conn->loop->requests, 1, memory_order_relaxed);

    status = http_head_parse(ex->text, head_bytes, ex->text + head_bytes, &ex->head);
    ex->request.minor = ex->head.minor;
    if (status) {
        http_connection_refuse(conn, status);
        return true;
    }
    http_exchange_describe(ex);
    conn->is_keep_alive = ex->head.is_keep_alive;
    config->handle(&ex->request, config->arg);
    http_exchange_check(ex);
    return true;
}

static bool head_step(struct connection *conn)
{
    struct input *in = &conn->in;
    size_t bytes_max = conn->loop->server->config.head_bytes_max;
    int head_bytes;

    if (in->start < in->end) {
        const char *text = in->data + in->start;
        size_t bytes = in->end - in->start;

        for (int i = 0; i < EMPTY_LINES_MAX && bytes >= 2 && memcmp(text, "\r\n", 2) == 0; i++) {
            in->start += 2;
            text += 2;
            bytes -= 2;
            conn->head_line = 0;
        }
        if (bytes == 1 && *text == '\r')
            head_bytes = 0;
        else
            head_bytes = http_head_end(text, bytes, &conn->head_line);
        if (head_bytes < 0) {
            http_connection_refuse(conn, 400);
            return true;
        }
        if ((size_t) head_bytes > bytes_max || (head_bytes == 0 && bytes > bytes_max)) {
            http_connection_refuse(conn, 431);
            return true;
        }
        if (head_bytes > 0)
            return exchange_begin(conn, (size_t) head_bytes);
    }

    switch (http_input_fill(conn, HTTP_READ_BYTES)) {
    case 1:
        return true;
    case IO_AGAIN:
        return false;
    }
    http_connection_kill(
        conn); /* the end between requests, or in the middle of a head: nobody to answer */
    return false;
}

/* All is sent. */
static bool answer_sent(struct connection *conn)
{
    bool was_read = conn->exchange->body == BODY_DONE;

    if (conn->exchange->produce_sent)
        conn->exchange->produce_sent(conn->exchange->produce_arg);
    exchange_end(conn);
    if (conn->is_keep_alive) {
        conn->phase = PHASE_HEAD;
        return true;
    }
    /* Closing a socket that has unread bytes resets it, and the client may lose the answer. */
    if (conn->is_at_eof || (was_read && conn->in.start == conn->in.end && !conn->is_readable)) {
        http_connection_kill(conn);
        return false;
    }
    linger_begin(conn);
    return true;
}

static bool exchange_step(struct connection *conn)
{
    struct exchange *ex = conn->exchange;

    if (http_io_flush(conn) < 0) {
        http_connection_kill(conn);
        return false;
    }
    if (ex->answer == ANSWER_PRODUCING && !ex->is_producer_waiting
        && evbuffer_get_length(conn->out) == 0) {
        http_produce_step(ex);
        if (conn->is_dead)
            return false;
        if (http_io_flush(conn) < 0) {
            http_connection_kill(conn);
            return false;
        }
        if (ex->answer == ANSWER_PRODUCING && !ex->is_producer_waiting && conn->is_writable)
            http_loop_schedule(conn); /* the others first */
    }
    if (ex->answer == ANSWER_DONE && http_io_is_flushed(conn)
        && (ex->body == BODY_DONE || ex->body == BODY_ABANDONED))
        return answer_sent(conn);
    return http_body_step(ex);
}

static bool linger_step(struct connection *conn)
{
    int got;

    if (http_io_flush(conn) < 0) {
        http_connection_kill(conn);
        return false;
    }
    if (!http_io_is_flushed(conn))
        return false;
    http_loop_set_deadline(conn, DEADLINE_LINGER);
    conn->in.start = conn->in.end;
    got = http_input_fill(conn, HTTP_READ_BYTES);
    if (got == IO_AGAIN)
        return false;
    if (got != 1)
        http_connection_kill(conn);
    return got == 1;
}

static bool connection_step(struct connection *conn)
{
    switch (conn->phase) {
    case PHASE_HANDSHAKE:
        return handshake_step(conn);
    case PHASE_HEAD:
        return head_step(conn);
    case PHASE_EXCHANGE:
        return exchange_step(conn);
    case PHASE_LINGER:
        return linger_step(conn);
    }
    return false;
}

/* What are we waiting for, and so: until when? */
static enum deadline connection_deadline(const struct connection *conn)
{
    const struct exchange *ex = conn->exchange;

    switch (conn->phase) {
    case PHASE_HANDSHAKE:
        return DEADLINE_HANDSHAKE;
    case PHASE_HEAD:
        return conn->has_served && conn->in.start == conn->in.end ? DEADLINE_IDLE : DEADLINE_HEAD;
    case PHASE_LINGER:
        return http_io_is_flushed(conn) ? DEADLINE_LINGER : DEADLINE_RATE;
    case PHASE_EXCHANGE:
        break;
    }
    if (!http_io_is_flushed(conn))
        return DEADLINE_RATE;
    if (!http_body_is_wanted(ex))
        return DEADLINE_NONE;
    if (ex->body != BODY_UPLOAD)
        return DEADLINE_BODY;
    return ex->silence_ms > 0 ? DEADLINE_SILENCE : DEADLINE_RATE;
}

void http_connection_run(struct connection *conn)
{
    int steps = 0;

    assert(!conn->is_running && !conn->is_dead);
    conn->is_running = true;
    while (connection_step(conn) && !conn->is_dead) {
        if (++steps == STEPS_MAX) {
            http_loop_schedule(conn);
            break;
        }
    }
    conn->is_running = false;
    if (conn->is_dead) {
        connection_free(conn);
        return;
    }
    http_input_settle(conn);
    http_loop_set_deadline(conn, connection_deadline(conn));
}

void http_connection_enter(struct connection *conn)
{
    assert(!conn->is_running && !conn->is_dead);
    conn->is_running = true;
}

void http_connection_leave(struct connection *conn)
{
    conn->is_running = false;
    if (conn->is_dead)
        connection_free(conn);
    else
        http_connection_run(conn);
}

/* The deadline has passed. */
void http_connection_expired(struct connection *conn)
{
    http_connection_enter(conn);
    switch (conn->deadline) {
    case DEADLINE_HEAD:
        http_connection_refuse(conn, 408);
        break;
    case DEADLINE_BODY:
        if (conn->exchange->answer == ANSWER_NONE)
            http_connection_refuse(conn, 408);
        else
            http_connection_kill(conn);
        break;
    case DEADLINE_RATE:
    case DEADLINE_SILENCE:
        if (conn->moved_bytes < (conn->deadline == DEADLINE_SILENCE ? 1 : conn->loop->server->config.rate_window_bytes)) {
            conn->is_cut = true;
            http_connection_kill(conn);
        }
        http_loop_set_deadline(conn, DEADLINE_NONE); /* the next window */
        break;
    case DEADLINE_HANDSHAKE:
    case DEADLINE_IDLE:
    case DEADLINE_LINGER:
        http_connection_kill(conn);
        break;
    case DEADLINE_NONE:
        break;
    }
    http_connection_leave(conn);
}
