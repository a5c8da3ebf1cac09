/* http_relay.c - a connection that goes on to another server
 *
 *      client (TCP or TLS) <--> side a  ==>  side b <--> another server: our agent, a console
 *                                       <==
 *
 * What can be read of one side is written to the other right away, much at once: a TLS client's records are gathered first, so
 * that the server is not woken for each. What the destination does not take is queued, and its source left alone until that has
 * gone.
 *
 * There are two kinds of ends, and each is passed on as what it is:
 *
 *   in order   what was queued goes out, then the other side is told by ending our writing to it
 *   cut        both are closed at once, the other one by a reset, so that it sees that something is missing
 *
 * A server that only takes no more bytes is another thing: it refuses an upload, answers, and closes. Its answer is passed on,
 * and what its client still sends is thrown away for a while, for a connection that is closed with bytes unread is reset, and
 * the answer lost. */
#include "shared/http_internal.h"

#include <errno.h>
#include <sys/uio.h>

/* Read at once, and written. */
#define RELAY_MOVE_BYTES 131072

/* So much of one direction passes before the others have their turn. */
#define RELAY_TURN_BYTES 262144

/* How long a server that is not of this machine may say nothing when its client has ended, before it is taken for gone. */
#define RELAY_SILENCE_S 60

/* How long a side that is not of this machine may take nothing while something waits for it: about what a server of ours gives
 * a client behind a relay (http_loop.c). The relay does not hear it cut a connection that it does not read. */
#define RELAY_STALL_S 320

/* When the server has said all, how long the client may take to end. */
#define RELAY_LINGER_S 5

struct relay_side {
    struct relay *relay;
    struct relay_side *other;
    int fd;
    SSL *ssl;                     /* or NULL */
    bool is_local;                /* a unix socket */
    bool in_parcels;              /* bytes come and go in parcels */
    struct parcel_reader parcels;
    struct evbuffer *queue;       /* on its way to it; in parcels already */
    struct event readable, writable;
    bool has_ended;               /* nothing more comes from it: it said so */
    bool is_told;                 /* that the other has ended */
    bool is_deaf;                 /* the server: it takes no more */
};

struct relay {
    struct relay_side a, b; /* the client, and the server */
    struct event linger_event;
    LIST_ENTRY(relay) next;
    void (*done)(void *);
    void *arg;
};

/* --- the end --------------------------------------------------------------------------------- */

static void relay_side_done(struct relay_side *side)
{
    event_del(&side->readable);
    event_del(&side->writable);
    if (side->ssl) {
        SSL_set_quiet_shutdown(side->ssl, 1);
        SSL_free(side->ssl);
    }
    close_fd(&side->fd);
    evbuffer_free(side->queue);
}

static void relay_end(struct relay *relay)
{
    LIST_REMOVE(relay, next);
    event_del(&relay->linger_event);
    relay_side_done(&relay->a);
    relay_side_done(&relay->b);
    if (relay->done)
        relay->done(relay->arg);
    free(relay);
}

static void relay_cut(struct relay *relay)
{
    http_io_make_cut(relay->a.fd);
    http_io_make_cut(relay->b.fd);
    relay_end(relay);
}

void http_relay_end_all(struct http_loop *loop)
{
    while (!LIST_EMPTY(&loop->relays))
        relay_cut(LIST_FIRST(&loop->relays));
}

static void on_relay_linger(evutil_socket_t fd, short what, void *arg)
{
    (void) fd;
    (void) what;
    relay_end(arg);
}

/* --- waiting --------------------------------------------------------------------------------- */

/* Something waits for this side, so its source has to wait. */
static bool relay_is_full(const struct relay_side *to)
{
    return evbuffer_get_length(to->queue) > 0;
}

/* What was read of the socket already, and may be had without another edge of it. */
static bool relay_holds_more(const struct relay_side *side)
{
    if (side->ssl)
        return SSL_has_pending(side->ssl) || (SSL_get_shutdown(side->ssl) & SSL_RECEIVED_SHUTDOWN);
    return side->in_parcels && side->parcels.is_over;
}

static void relay_listen(struct relay_side *side)
{
    static const struct timeval silence = {.tv_sec = RELAY_SILENCE_S};
    bool is_awaited = side == &side->relay->b && side->other->has_ended && !side->is_local;

    if (side->has_ended)
        return;
    event_add(&side->readable, is_awaited ? &silence : NULL);
    if (relay_holds_more(side))
        event_active(&side->readable, EV_READ, 0);
}

static void relay_await_room(struct relay_side *side)
{
    static const struct timeval stall = {.tv_sec = RELAY_STALL_S};

    event_add(&side->writable, side->is_local ? NULL : &stall);
}

/* --- bytes out ------------------------------------------------------------------------------- */

/* In these functions the result is the number of bytes that the socket took, IO_AGAIN or IO_ERROR, with errno where it is the
 * socket's. */
static ssize_t socket_result(ssize_t sent)
{
    if (sent >= 0)
        return sent;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? IO_AGAIN : IO_ERROR;
}

/* Several records, as long as they go. */
static ssize_t relay_send_tls(struct relay_side *to, const char *bytes, size_t count)
{
    size_t done = 0;

    while (done < count) {
        ssize_t sent = http_io_tls_write(to->ssl, bytes + done, count - done);

        if (sent == IO_ERROR)
            return IO_ERROR;
        if (sent == IO_AGAIN)
            break;
        done += (size_t) sent;
    }
    return (ssize_t) done;
}

/* Queue what is left of a head, if there is one, and bytes, when `sent` of both together have gone. */
static void relay_queue(struct relay_side *to, const struct iovec parts[2], size_t sent)
{
    for (int i = 0; i < 2; i++) {
        size_t gone = MIN(sent, parts[i].iov_len);

        evbuffer_add(to->queue, (char *) parts[i].iov_base + gone, parts[i].iov_len - gone);
        sent -= gone;
    }
    if (relay_is_full(to))
        relay_await_room(to);
}

/* Send, and queue what is not taken. With 0 bytes: the end of parcels. Returns 0 or IO_ERROR. */
static int relay_send(struct relay_side *to, const char *bytes, size_t count)
{
    unsigned char head[HTTP_PARCEL_HEAD_BYTES];
    struct iovec parts[2] = {
        {.iov_base = head, .iov_len = to->in_parcels ? sizeof head : 0},
        {.iov_base = (char *) bytes, .iov_len = count},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent = IO_AGAIN;

    if (to->is_deaf)
        return 0;
    http_parcel_begin(head, count);
    if (!relay_is_full(to))
        sent = to->ssl ? relay_send_tls(to, bytes, count) : socket_result(sendmsg(to->fd, &message, MSG_NOSIGNAL));
    if (sent == IO_ERROR)
        return IO_ERROR;
    relay_queue(to, parts, (size_t) MAX(sent, (ssize_t) 0));
    return 0;
}

/* At the beginning, when no socket is asked yet. */
static void relay_put(struct relay_side *to, const char *bytes, size_t count)
{
    unsigned char head[HTTP_PARCEL_HEAD_BYTES];

    if (count == 0)
        return;
    http_parcel_begin(head, count);
    relay_queue(to, (struct iovec[]){{head, to->in_parcels ? sizeof head : 0}, {(char *) bytes, count}}, 0);
}

/* What waits for it. Returns 0 or IO_ERROR. */
static int relay_flush(struct relay_side *to)
{
    while (relay_is_full(to)) {
        size_t count = MIN(evbuffer_get_length(to->queue), (size_t) RELAY_MOVE_BYTES);
        ssize_t sent;

        if (to->ssl) {
            sent = relay_send_tls(to, (const char *) evbuffer_pullup(to->queue, (ssize_t) count), count);
            evbuffer_drain(to->queue, (size_t) MAX(sent, (ssize_t) 0));
        } else
            sent = socket_result(evbuffer_write(to->queue, to->fd));
        if (sent == IO_ERROR)
            return IO_ERROR;
        if (sent <= 0)
            break;
    }
    return 0;
}

/* --- ends ------------------------------------------------------------------------------------ */

/* Returns 0, or IO_AGAIN when the word has to wait for room, or IO_ERROR. */
static int relay_tell_end(struct relay_side *side)
{
    int r = 0;

    if (side->in_parcels)
        r = relay_send(side, "", 0);
    else if (side->ssl)
        r = http_io_tls_end(side->ssl);
    if (r < 0)
        return r;
    side->is_told = true;
    if (!side->in_parcels)
        shutdown(side->fd, SHUT_WR);
    return 0;
}

/* It takes no more. What it has said before is still to come, then its end. */
static void relay_refused(struct relay_side *server)
{
    server->is_deaf = true;
    evbuffer_drain(server->queue, evbuffer_get_length(server->queue));
    event_del(&server->writable);
    relay_listen(server->other); /* for nobody */
}

/* Nothing can be sent to it. Returns false when that is the end of the relay. */
static bool relay_write_failed(struct relay_side *side, int error)
{
    if (side == &side->relay->b && (side->in_parcels || error == EPIPE)) { /* closed; or it does not matter how, parcels will tell */
        relay_refused(side);
        return true;
    }
    relay_cut(side->relay);
    return false;
}

/* Pass an end on. Returns false when that was the end of the relay. */
static bool relay_settle_side(struct relay_side *side)
{
    int r;

    if (!side->other->has_ended || side->is_told || side->is_deaf || relay_is_full(side))
        return true;
    r = relay_tell_end(side);
    if (r == IO_AGAIN)
        relay_await_room(side);
    return r != IO_ERROR || relay_write_failed(side, errno);
}

/* After each change: pass ends on, and be gone when all is said. */
static void relay_settle(struct relay *relay)
{
    struct relay_side *client = &relay->a, *server = &relay->b;

    if (!relay_settle_side(client) || !relay_settle_side(server))
        return;
    if (!client->is_told)
        return;
    if (client->has_ended)
        relay_end(relay);
    else if (!evtimer_pending(&relay->linger_event, NULL)) {
        if (!server->is_deaf)
            relay_refused(server);
        evtimer_add(&relay->linger_event, &(struct timeval){.tv_sec = RELAY_LINGER_S});
    }
}

static void relay_ended(struct relay_side *side)
{
    side->has_ended = true;
    event_del(&side->readable);
    if (event_pending(&side->other->readable, EV_READ, NULL))
        relay_listen(side->other); /* from now on with its time */
    relay_settle(side->relay);
}

/* --- bytes in -------------------------------------------------------------------------------- */

/* As many records as there are. */
static ssize_t relay_read_tls(SSL *ssl, char *to, size_t bytes)
{
    size_t done = 0;
    ssize_t got = 0;

    while (done < bytes) {
        got = http_io_tls_read(ssl, to + done, bytes - done);
        if (got <= 0)
            break;
        done += (size_t) got;
    }
    return done > 0 ? (ssize_t) done : got; /* what stands behind the bytes is told again */
}

/* Bytes, 0 for an end in order, IO_AGAIN or IO_ERROR. */
static ssize_t relay_read(struct relay_side *side, char *to, size_t bytes)
{
    if (side->ssl)
        return relay_read_tls(side->ssl, to, bytes);
    return socket_result(side->in_parcels ? http_parcel_recv(&side->parcels, side->fd, to, bytes)
                                          : recv(side->fd, to, bytes, 0));
}

/* From side to side, as long as it flows. The relay may be gone after that. */
static void relay_move(struct relay_side *side)
{
    char bytes[RELAY_MOVE_BYTES];
    size_t moved = 0;

    while (moved < RELAY_TURN_BYTES && !relay_is_full(side->other)) {
        ssize_t got = relay_read(side, bytes, sizeof bytes);

        if (got == IO_AGAIN)
            return;
        if (got == IO_ERROR) {
            relay_cut(side->relay);
            return;
        }
        if (got == 0) {
            relay_ended(side);
            return;
        }
        if (relay_send(side->other, bytes, (size_t) got) < 0 && !relay_write_failed(side->other, errno))
            return;
        moved += (size_t) got;
    }
    if (relay_is_full(side->other))
        event_del(&side->readable);
    else
        relay_listen(side); /* when the others had their turn */
}

static void on_relay_readable(evutil_socket_t fd, short what, void *arg)
{
    struct relay_side *side = arg;

    (void) fd;
    if (what & EV_READ)
        relay_move(side);
    else
        relay_cut(side->relay); /* silence */
}

static void on_relay_writable(evutil_socket_t fd, short what, void *arg)
{
    struct relay_side *side = arg;

    (void) fd;
    if (what & EV_TIMEOUT) {
        relay_cut(side->relay);
        return;
    }
    if (relay_flush(side) < 0) {
        if (relay_write_failed(side, errno))
            relay_settle(side->relay);
        return;
    }
    if (!relay_is_full(side)) {
        event_del(&side->writable);
        relay_listen(side->other);
    }
    relay_settle(side->relay);
}

/* --- the beginning --------------------------------------------------------------------------- */

static void relay_side_init(struct relay_side *side, struct relay *relay, struct relay_side *other, struct event_base *base, int fd)
{
    int domain = AF_UNSPEC;
    socklen_t size = sizeof domain;

    *side = (struct relay_side){.relay = relay, .other = other, .fd = fd, .queue = evbuffer_new()};
    if (!side->queue)
        die("out of memory (evbuffer)");
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
    side->is_local = domain == AF_UNIX;
    event_assign(&side->readable, base, fd, EV_READ | EV_PERSIST, on_relay_readable, side);
    event_assign(&side->writable, base, fd, EV_WRITE | EV_PERSIST, on_relay_writable, side);
}

void http_relay(struct http_request *request, const struct http_onward *onward)
{
    struct exchange *ex = http_exchange_of(request);
    struct connection *conn = ex->connection;
    struct relay *relay = new0(struct relay);
    struct http_loop *loop = conn->loop;

    assert(ex->answer == ANSWER_NONE && !ex->is_head_sent && !ex->upload && !request->is_passed);
    ex->answer = ANSWER_DONE;
    http_connection_detach(conn);
    LIST_INSERT_HEAD(&loop->relays, relay, next);
    relay->done = onward->done;
    relay->arg = onward->arg;
    evtimer_assign(&relay->linger_event, loop->base, on_relay_linger, relay);
    relay_side_init(&relay->a, relay, &relay->b, loop->base, conn->fd);
    relay_side_init(&relay->b, relay, &relay->a, loop->base, onward->fd);
    relay->a.ssl = TAKE(conn->ssl);
    relay->b.in_parcels = onward->in_parcels;
    conn->fd = -1;

    evbuffer_add_buffer(relay->a.queue, conn->out);
    relay_put(&relay->a, onward->head, strlen(onward->head));
    if (onward->first)
        relay_put(&relay->b, (const char *) evbuffer_pullup(onward->first, -1), evbuffer_get_length(onward->first));
    if (conn->in.start < conn->in.end)
        relay_put(&relay->b, conn->in.data + conn->in.start, conn->in.end - conn->in.start);
    relay_listen(&relay->a);
    relay_listen(&relay->b);
    http_connection_kill(conn);
}
