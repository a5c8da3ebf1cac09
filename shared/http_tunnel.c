/* http_tunnel.c - connections taken over, and the relay that most of them become
 *
 *      client <--> bufferevent a  ==>  bufferevent b <--> console, or another host
 *                                 <==
 *
 * A direction has ended when its source has, and what was queued is with its destination; then the
 * destination is told by ending our writing to it.
 *
 * A side that fails takes the other one along, which is closed without having been told of an end.
 * A side that only takes no more bytes is another thing: a server that refuses an upload answers,
 * and closes. Its answer is passed on, and what its client still sends is thrown away for a while,
 * for a connection that is closed with bytes unread is reset, and the answer lost. */
#include "shared/http_internal.h"

#include <errno.h>
#include <event2/bufferevent_ssl.h>

/* A source is not read while so much waits at its destination, and read again at half of it. */
#define RELAY_BYTES_MAX 262144

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
    bool has_ended;  /* nothing more comes from it */
    bool is_broken;  /* nothing more can be sent to it */
    bool has_failed; /* it ended by an error */
    bool is_told;    /* that the other has ended */
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

static void on_relay_read(struct bufferevent *connection, void *arg)
{
    struct relay_side *side = arg;

    if (side->other->is_broken) {
        struct evbuffer *input = bufferevent_get_input(connection);

        evbuffer_drain(input, evbuffer_get_length(input));
        return;
    }
    bufferevent_write_buffer(side->other->connection, bufferevent_get_input(connection));
    if (evbuffer_get_length(relay_queue(side->other)) >= RELAY_BYTES_MAX)
        bufferevent_disable(connection, EV_READ);
}

/* The queue of this side has become short: its source may go on. */
static void on_relay_write(struct bufferevent *connection, void *arg)
{
    struct relay_side *side = arg;

    (void) connection;
    if (!side->other->has_ended)
        bufferevent_enable(side->other->connection, EV_READ);
    relay_settle(side->relay);
}

/* It takes no more. What it has said before is still to come, then its end. */
static void relay_refused(struct relay_side *side)
{
    struct timeval end = {.tv_sec = RELAY_END_S};

    side->is_broken = true;
    bufferevent_disable(side->connection, EV_WRITE);
    bufferevent_set_timeouts(side->connection, &end, NULL);
    if (!side->has_ended)
        bufferevent_enable(side->connection, EV_READ);
    if (!side->other->has_ended)
        bufferevent_enable(side->other->connection, EV_READ); /* for nobody */
    relay_settle(side->relay);
}

static void on_relay_event(struct bufferevent *connection, short what, void *arg)
{
    struct relay_side *side = arg;
    struct timeval end = {.tv_sec = RELAY_END_S};
    bool is_tls = bufferevent_openssl_get_ssl(connection);

    if (what & BEV_EVENT_CONNECTED) /* the caller may still have been connecting it */
        return;
    if (!is_tls && (what & BEV_EVENT_WRITING) && (what & BEV_EVENT_ERROR)
        && EVUTIL_SOCKET_ERROR() == EPIPE) { /* closed, not reset */
        relay_refused(side);
        return;
    }
    on_relay_read(connection, side); /* what came before the end */
    side->has_ended = true;
    side->has_failed = !(what & BEV_EVENT_EOF);
    if (side->has_failed || is_tls) /* an error, silence, or TLS, which then writes no more */
        side->is_broken = true;
    bufferevent_disable(connection, side->is_broken ? EV_READ | EV_WRITE : EV_READ);
    bufferevent_set_timeouts(side->other->connection, &end, &end);
    if (side->has_failed || is_tls) {
        bufferevent_disable(side->other->connection, EV_READ);
        side->other->has_ended = true;
    }
    relay_settle(side->relay);
}

static void relay_side_init(struct relay_side *side, struct relay *relay, struct relay_side *other,
                            struct bufferevent *connection)
{
    *side = (struct relay_side){.relay = relay, .other = other, .connection = connection};
    bufferevent_setcb(connection, on_relay_read, on_relay_write, on_relay_event, side);
    bufferevent_setwatermark(connection, EV_WRITE, RELAY_BYTES_MAX / 2, 0);
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
    on_relay_read(client, &relay->a); /* what they have read already */
    on_relay_read(server, &relay->b);
    bufferevent_enable(client, EV_READ | EV_WRITE);
    bufferevent_enable(server, EV_READ | EV_WRITE);
}
