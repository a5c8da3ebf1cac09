/* http_tunnel.c - connections taken over, and the relay that most of them become
 *
 *      client <--> bufferevent a  ==>  bufferevent b <--> console, or another host
 *                                 <==
 *
 * A direction has ended when its source has, and what was queued is with its destination; then the
 * destination is told by ending our writing to it.
 *
 * Bufferevents read 4 KiB at a time and register and unregister the socket for each write: too slow
 * for disks. So plain sockets are read here, much at once, and that is written right away; only
 * what the destination does not take is queued in its bufferevent, and its source left alone
 * meanwhile. TLS is the bufferevent's affair.
 *
 * A side that fails takes the other one along, which is closed without having been told of an end.
 * A side that only takes no more bytes is another thing: a server that refuses an upload answers,
 * and closes. Its answer is passed on, and what its client still sends is thrown away for a while,
 * for a connection that is closed with bytes unread is reset, and the answer lost. */
#include "shared/http_internal.h"

#include <errno.h>
#include <event2/bufferevent_ssl.h>

/* A source is not read while so much waits to be encrypted, and read again at half of it. */
#define RELAY_BYTES_MAX 262144

/* Read at once, and written. */
#define RELAY_MOVE_BYTES 131072

/* So much of one direction passes before the others have their turn. */
#define RELAY_TURN_BYTES 262144

/* When one side has ended, how long the other may be silent before it is taken for gone. */
#define RELAY_END_S 60

/* When the server is gone, how long what its client still sends is thrown away. */
#define RELAY_LINGER_S 5

/* --- taking over ----------------------------------------------------------------------------- */

/* What TLS has received must not stay in there: the socket would not tell of it again. */
static void tls_empty(struct connection *conn)
{
    char bytes[4096];

    SSL_set_read_ahead(conn->ssl, 0);
    while (SSL_has_pending(conn->ssl)) {
        ssize_t got;

        conn->is_readable = true;
        got = http_io_read(conn, bytes, sizeof bytes);
        if (got <= 0)
            return;
        http_input_append(&conn->in, bytes, (size_t) got);
    }
}

static struct bufferevent *connection_to_bufferevent(struct connection *conn)
{
    struct event_base *base = conn->loop->base;
    struct bufferevent *bev;
    struct evbuffer *input;

    if (conn->ssl) {
        tls_empty(conn);
        bev = bufferevent_openssl_socket_new(base, conn->fd, conn->ssl, BUFFEREVENT_SSL_OPEN,
                                             BEV_OPT_CLOSE_ON_FREE);
        if (bev)
            bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    } else
        bev = bufferevent_socket_new(base, conn->fd, BEV_OPT_CLOSE_ON_FREE);
    if (!bev)
        die("out of memory (bufferevent)");
    conn->fd = -1;
    conn->ssl = NULL;

    input = bufferevent_get_input(bev);
    evbuffer_unfreeze(input, 0); /* bufferevents keep others from adding to their input */
    if (conn->in.start < conn->in.end)
        evbuffer_add(input, conn->in.data + conn->in.start, conn->in.end - conn->in.start);
    conn->in.start = conn->in.end;
    if (!bufferevent_openssl_get_ssl(bev))
        evbuffer_freeze(input, 0);
    return bev;
}

void http_take_over(struct http_request *request, const char *head,
                    void (*fn)(struct http_request *, struct bufferevent *, void *), void *arg)
{
    struct exchange *ex = http_exchange_of(request);
    struct connection *conn = ex->connection;
    struct bufferevent *bev;

    assert(ex->answer == ANSWER_NONE && !ex->is_head_sent && !ex->upload);
    ex->answer = ANSWER_DONE;
    http_connection_detach(conn);
    bev = connection_to_bufferevent(conn);
    bufferevent_write_buffer(bev, conn->out);
    bufferevent_write(bev, head, strlen(head));

    bufferevent_incref(bev); /* fn may free it */
    fn(request, bev, arg);
    if (evbuffer_get_length(bufferevent_get_input(bev)) > 0)
        bufferevent_trigger(bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
    bufferevent_decref(bev);
    http_connection_kill(conn);
}

/* --- relaying -------------------------------------------------------------------------------- */

struct relay;

struct relay_side {
    struct relay *relay;
    struct relay_side *other;
    struct bufferevent *connection;
    struct event readable; /* of a plain socket; its bufferevent only writes */
    bool is_plain;         /* and connected, so that `readable` is there */
    bool is_last;          /* the other has ended: it may not be silent for ever */
    bool has_ended;        /* nothing more comes from it */
    bool is_broken;        /* nothing more can be sent to it */
    bool has_failed;       /* it ended by an error */
    bool is_told;          /* that the other has ended */
};

struct relay {
    struct relay_side a, b; /* the client, and the server that was connected for it */
    struct event linger_event;
    LIST_ENTRY(relay) next;
    void (*done)(void *);
    void *arg;
};

static struct evbuffer *relay_queue(const struct relay_side *side)
{
    return bufferevent_get_output(side->connection);
}

/* Is so much on its way to this side that its source has to wait? */
static bool relay_is_full(const struct relay_side *to)
{
    size_t queued = evbuffer_get_length(relay_queue(to));

    return !to->is_broken && queued >= (to->is_plain ? 1 : RELAY_BYTES_MAX);
}

static void relay_listen(struct relay_side *side)
{
    struct timeval end = {.tv_sec = RELAY_END_S};

    if (side->has_ended)
        return;
    if (side->is_plain)
        event_add(&side->readable, side->is_last ? &end : NULL);
    else if (bufferevent_openssl_get_ssl(side->connection))
        bufferevent_enable(side->connection, EV_READ);
}

static void relay_ignore(struct relay_side *side)
{
    if (side->is_plain)
        event_del(&side->readable);
    else
        bufferevent_disable(side->connection, EV_READ);
}

/* Is everything from this side where it should go? */
static bool relay_is_through(const struct relay_side *side)
{
    return side->has_ended && (side->other->is_told || side->other->is_broken);
}

static void relay_tell_end(struct relay_side *side)
{
    SSL *ssl = bufferevent_openssl_get_ssl(side->connection);

    side->is_told = true;
    if (side->other->has_failed) /* an end would say that this was all */
        return;
    if (ssl)
        SSL_shutdown(ssl);
    shutdown(bufferevent_getfd(side->connection), SHUT_WR);
}

static void relay_end(struct relay *relay)
{
    LIST_REMOVE(relay, next);
    event_del(&relay->linger_event);
    relay_ignore(&relay->a);
    relay_ignore(&relay->b);
    bufferevent_free(relay->a.connection);
    bufferevent_free(relay->b.connection);
    if (relay->done)
        relay->done(relay->arg);
    free(relay);
}

void http_relay_end_all(struct http_loop *loop)
{
    while (!LIST_EMPTY(&loop->relays))
        relay_end(LIST_FIRST(&loop->relays));
}

static void on_relay_linger(evutil_socket_t fd, short what, void *arg)
{
    (void) fd;
    (void) what;
    relay_end(arg);
}

/* After each change: pass on ends, and be gone when both are through. */
static void relay_settle(struct relay *relay)
{
    struct relay_side *sides[] = {&relay->a, &relay->b};

    if (relay->a.has_ended && relay->a.is_broken)
        relay->b.has_ended = true; /* nobody is left to hear what the server still has to say */
    for (int i = 0; i < 2; i++) {
        struct relay_side *side = sides[i];

        if (side->other->has_ended && !side->is_told && !side->is_broken
            && evbuffer_get_length(relay_queue(side)) == 0)
            relay_tell_end(side);
    }
    if (relay->a.is_told && relay->b.is_broken && !evtimer_pending(&relay->linger_event, NULL))
        evtimer_add(&relay->linger_event, &(struct timeval){.tv_sec = RELAY_LINGER_S});
    if (relay_is_through(&relay->a) && relay_is_through(&relay->b))
        relay_end(relay);
}

/* --- a side that ends or fails; the relay may be gone after that */

/* It takes no more. What it has said before is still to come, then its end. */
static void relay_refused(struct relay_side *side)
{
    side->is_broken = true;
    side->is_last = true;
    bufferevent_disable(side->connection, EV_WRITE);
    bufferevent_set_timeouts(side->connection, &(struct timeval){.tv_sec = RELAY_END_S}, NULL);
    relay_listen(side);
    relay_listen(side->other); /* for nobody */
    relay_settle(side->relay);
}

/* Nothing more comes from it. */
static void relay_ended(struct relay_side *side, bool has_failed)
{
    struct timeval end = {.tv_sec = RELAY_END_S};
    struct relay_side *other = side->other;
    bool is_tls = bufferevent_openssl_get_ssl(side->connection);

    relay_ignore(side);
    side->has_ended = true;
    side->has_failed = has_failed;
    if (has_failed || is_tls) { /* an error, silence, or TLS, which then writes no more */
        side->is_broken = true;
        bufferevent_disable(side->connection, EV_WRITE);
    }
    other->is_last = true;
    bufferevent_set_timeouts(other->connection, &end, &end);
    if (has_failed || is_tls) {
        relay_ignore(other);
        other->has_ended = true;
    } else if (!relay_is_full(side))
        relay_listen(other); /* with its time */
    relay_settle(side->relay);
}

/* Closed, or reset? */
static void relay_write_failed(struct relay_side *side, int error)
{
    if (error == EPIPE)
        relay_refused(side);
    else
        relay_ended(side, true);
}

/* --- bytes */

/* Returns 0, or a negative errno of the destination's socket. */
static int relay_write(struct relay_side *to, const char *bytes, size_t count)
{
    ssize_t sent = 0;

    if (to->is_broken)
        return 0;
    if (to->is_plain && evbuffer_get_length(relay_queue(to)) == 0) {
        do
            sent = send(bufferevent_getfd(to->connection), bytes, count, MSG_NOSIGNAL);
        while (sent < 0 && errno == EINTR);
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            return -errno;
        sent = MAX(sent, (ssize_t) 0);
    }
    if ((size_t) sent < count)
        bufferevent_write(to->connection, bytes + sent, count - (size_t) sent);
    return 0;
}

/* From socket to socket, as long as it flows. */
static void relay_move(struct relay_side *side)
{
    char bytes[RELAY_MOVE_BYTES];
    size_t moved = 0;
    ssize_t got;

    do {
        int r;

        got = recv(bufferevent_getfd(side->connection), bytes, sizeof bytes, 0);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
            return;
        if (got <= 0) {
            relay_ended(side, got < 0);
            return;
        }
        r = relay_write(side->other, bytes, (size_t) got);
        if (r < 0) {
            relay_write_failed(side->other, -r);
            return;
        }
        moved += (size_t) got;
    } while (got == sizeof bytes && moved < RELAY_TURN_BYTES && !relay_is_full(side->other));
    if (relay_is_full(side->other))
        relay_ignore(side);
}

static void on_relay_readable(evutil_socket_t fd, short what, void *arg)
{
    struct relay_side *side = arg;

    (void) fd;
    if (what & EV_READ)
        relay_move(side);
    else
        relay_ended(side, true); /* silence */
}

/* What the bufferevent holds that has come from this side: of TLS, or from before the relay. */
static int relay_pass_on(struct relay_side *side)
{
    struct evbuffer *input = bufferevent_get_input(side->connection);

    while (evbuffer_get_length(input) > 0) {
        size_t count = MAX(evbuffer_get_contiguous_space(input), (size_t) 1);
        int r =
            relay_write(side->other, (const char *) evbuffer_pullup(input, (ssize_t) count), count);

        if (r < 0)
            return r;
        evbuffer_drain(input, count);
    }
    return 0;
}

static void on_relay_read(struct bufferevent *connection, void *arg)
{
    struct relay_side *side = arg;
    int r = relay_pass_on(side);

    (void) connection;
    if (r < 0)
        relay_write_failed(side->other, -r);
    else if (relay_is_full(side->other))
        relay_ignore(side);
}

/* The queue of this side has become short: its source may go on. */
static void on_relay_write(struct bufferevent *connection, void *arg)
{
    struct relay_side *side = arg;

    (void) connection;
    if (!relay_is_full(side))
        relay_listen(side->other);
    relay_settle(side->relay);
}

static void relay_connected(struct relay_side *side)
{
    int fd = bufferevent_getfd(side->connection);

    if (side->is_plain || fd < 0 || bufferevent_openssl_get_ssl(side->connection))
        return;
    event_assign(&side->readable, bufferevent_get_base(side->connection), fd, EV_READ | EV_PERSIST,
                 on_relay_readable, side);
    side->is_plain = true;
}

static void on_relay_event(struct bufferevent *connection, short what, void *arg)
{
    struct relay_side *side = arg;
    bool is_tls = bufferevent_openssl_get_ssl(connection);
    int error = EVUTIL_SOCKET_ERROR();

    if (what & BEV_EVENT_CONNECTED) { /* the caller may still have been connecting it */
        relay_connected(side);
        if (!relay_is_full(side->other))
            relay_listen(side);
        return;
    }
    if (!is_tls && (what & BEV_EVENT_WRITING) && (what & BEV_EVENT_ERROR) && error == EPIPE) {
        relay_refused(side); /* closed, not reset */
        return;
    }
    if (is_tls)
        (void) relay_pass_on(
            side); /* what came before the end; a destination that fails now is found later */
    relay_ended(side, !(what & BEV_EVENT_EOF));
}

static void relay_side_init(struct relay_side *side, struct relay *relay, struct relay_side *other,
                            struct bufferevent *connection)
{
    *side = (struct relay_side){.relay = relay, .other = other, .connection = connection};
    bufferevent_setcb(connection, on_relay_read, on_relay_write, on_relay_event, side);
    if (bufferevent_openssl_get_ssl(
            connection)) /* writes a record at a time; libevent 2.1 mixes up more */
        bufferevent_setwatermark(connection, EV_WRITE, RELAY_BYTES_MAX / 2, 0);
    else
        bufferevent_set_max_single_write(connection, RELAY_MOVE_BYTES);
}

void http_relay(struct bufferevent *client, struct bufferevent *server, void (*done)(void *),
                void *arg)
{
    struct relay *relay = new0(struct relay);
    struct http_loop *loop = http_loop_here();

    assert(loop);
    LIST_INSERT_HEAD(&loop->relays, relay, next);
    relay->done = done;
    relay->arg = arg;
    evtimer_assign(&relay->linger_event, loop->base, on_relay_linger, relay);
    relay_side_init(&relay->a, relay, &relay->b, client);
    relay_side_init(&relay->b, relay, &relay->a, server);
    for (int i = 0; i < 2; i++) {
        struct relay_side *side = i == 0 ? &relay->a : &relay->b;

        (void) relay_pass_on(
            side); /* what it has read already: queued, no socket is written to yet */
        bufferevent_enable(side->connection, EV_WRITE);
    }
    relay_connected(&relay->a);
    relay_connected(&relay->b);
    relay_listen(&relay->a);
    relay_listen(&relay->b);
}
