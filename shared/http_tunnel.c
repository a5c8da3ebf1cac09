/* http_tunnel.c - connections taken over
 *
 * For who speaks something else than HTTP behind a head: the connection becomes a bufferevent, and what was read of it already
 * lies in that one's input. What only goes on to another server is relayed instead (http_relay.c). */
#include "shared/http_internal.h"

#include <event2/bufferevent_ssl.h>

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

    assert(ex->answer == ANSWER_NONE && !ex->is_head_sent && !ex->upload && !request->is_passed);
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
