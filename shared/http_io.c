/* http_io.c - bytes in and out of a socket, plain or TLS
 *
 * Sockets are edge-triggered: after an edge we may read until a read says "later". For the heads of
 * plain sockets a read that came back short says so too, unless the end is already waiting behind the
 * data, which epoll told. Of a reset it does not tell in that way, and one that came in the same edge
 * as the data is not told again: so bodies are read until there is nothing, and asked for once more
 * when somebody begins to wait for them. */
#include "shared/http_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <unistd.h>

/* One TLS record. */
#define TLS_WRITE_BYTES 16384

/* --- TLS ------------------------------------------------------------------------------------- */

static int tls_result(const SSL *ssl, int result)
{
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return IO_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        ERR_clear_error();
        return IO_ERROR;
    }
}

ssize_t http_io_tls_read(SSL *ssl, char *to, size_t bytes)
{
    int result;

    ERR_clear_error();
    result = SSL_read(ssl, to, (int) MIN(bytes, (size_t) INT32_MAX));
    return result > 0 ? result : tls_result(ssl, result);
}

ssize_t http_io_tls_write(SSL *ssl, const char *from, size_t bytes)
{
    int result;

    ERR_clear_error();
    result = SSL_write(ssl, from, (int) MIN(bytes, (size_t) TLS_WRITE_BYTES));
    if (result > 0)
        return result;
    return tls_result(ssl, result) == IO_AGAIN ? IO_AGAIN : IO_ERROR;
}

int http_io_tls_end(SSL *ssl)
{
    int result;

    ERR_clear_error();
    result = SSL_shutdown(ssl);
    if (result >= 0)
        return 0;
    return tls_result(ssl, result) == IO_AGAIN ? IO_AGAIN : IO_ERROR;
}

int http_io_handshake(struct connection *conn)
{
    int result;

    ERR_clear_error();
    result = SSL_do_handshake(conn->ssl);
    if (result == 1)
        return 0;
    result = tls_result(conn->ssl, result);
    if (result == IO_AGAIN)
        conn->is_readable = conn->is_writable = false;
    return result == IO_AGAIN ? IO_AGAIN : IO_ERROR;
}

/* --- in -------------------------------------------------------------------------------------- */

/* A unix socket's first byte tells what is spoken there: 1, or 0 and -1 like recv(). */
static ssize_t begin(struct connection *conn)
{
    char first;
    ssize_t got = recv(conn->fd, &first, 1, MSG_PEEK);

    if (got == 1) {
        conn->has_begun = true;
        conn->is_parcelled = first == 0;
    }
    return got;
}

static ssize_t plain_read(struct connection *conn, char *to, size_t bytes)
{
    ssize_t got;

    do {
        got = conn->peer.is_unix && !conn->has_begun ? begin(conn) : 1;
        if (got == 1)
            got = conn->is_parcelled ? http_parcel_recv(&conn->parcels, conn->fd, to, bytes) : recv(conn->fd, to, bytes, 0);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? IO_AGAIN : IO_ERROR;
    if ((size_t) got < bytes && !conn->is_closed_by_peer && conn->phase == PHASE_HEAD && !conn->is_parcelled)
        conn->is_readable = false;
    return got;
}

ssize_t http_io_read(struct connection *conn, char *to, size_t bytes)
{
    ssize_t got;

    if (conn->is_at_eof)
        return 0;
    if (!conn->is_readable)
        return IO_AGAIN;

    got = conn->ssl ? http_io_tls_read(conn->ssl, to, bytes) : plain_read(conn, to, bytes);
    if (got == 0)
        conn->is_at_eof = true;
    else if (got == IO_AGAIN)
        conn->is_readable = false;
    else if (got > 0)
        conn->moved_bytes += (size_t) got;
    return got;
}

/* --- out ------------------------------------------------------------------------------------- */

/* Is what is in out the last that is ever said here? */
static bool is_last(const struct connection *conn)
{
    return conn->phase == PHASE_LINGER
           || (conn->exchange && conn->exchange->answer == ANSWER_DONE && !conn->is_keep_alive);
}

bool http_io_is_flushed(const struct connection *conn)
{
    return evbuffer_get_length(conn->out) == 0 && (conn->is_end_said || !is_last(conn));
}

/* Make what is queued a parcel, when the one before is gone, and pack the end behind the last. */
static void pack(struct connection *conn)
{
    size_t bytes = evbuffer_get_length(conn->out);
    unsigned char head[HTTP_PARCEL_HEAD_BYTES];

    if (bytes > 0 && conn->parcel_left == 0) {
        bytes = MIN(bytes, (size_t) HTTP_PARCEL_BYTES_MAX);
        http_parcel_begin(head, bytes);
        evbuffer_prepend(conn->out, head, sizeof head);
        conn->parcel_left = sizeof head + bytes;
        bytes = evbuffer_get_length(conn->out);
    }
    if (bytes == conn->parcel_left && is_last(conn) && !conn->is_end_said) {
        http_parcel_begin(head, 0);
        evbuffer_add(conn->out, head, sizeof head);
        conn->parcel_left += sizeof head;
        conn->is_end_said = true;
    }
}

static ssize_t tls_write(struct connection *conn)
{
    size_t bytes = MIN(evbuffer_get_length(conn->out), (size_t) TLS_WRITE_BYTES);
    ssize_t sent = http_io_tls_write(conn->ssl, (const char *) evbuffer_pullup(conn->out, (ssize_t) bytes), bytes);

    if (sent > 0)
        evbuffer_drain(conn->out, (size_t) sent);
    return sent;
}

static ssize_t plain_write(struct connection *conn)
{
    ssize_t sent = evbuffer_write_atmost(conn->out, conn->fd, conn->is_parcelled ? (ssize_t) conn->parcel_left : -1);

    if (sent >= 0) {
        conn->parcel_left -= conn->is_parcelled ? (size_t) sent : 0;
        return sent;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? IO_AGAIN : IO_ERROR;
}

/* All is sent, and nothing follows. TLS has a word for that, which may have to wait like any other. */
static void say_end(struct connection *conn)
{
    if (conn->ssl && SSL_is_init_finished(conn->ssl) && http_io_tls_end(conn->ssl) == IO_AGAIN) {
        conn->is_writable = false;
        return;
    }
    shutdown(conn->fd, SHUT_WR);
    conn->is_end_said = true;
}

/* Is there anything to send? */
static bool has_more(struct connection *conn)
{
    if (conn->is_parcelled)
        pack(conn);
    return evbuffer_get_length(conn->out) > 0;
}

int http_io_flush(struct connection *conn)
{
    size_t bytes = 0;

    while (has_more(conn) && conn->is_writable) {
        ssize_t sent = conn->ssl ? tls_write(conn) : plain_write(conn);

        if (sent == IO_ERROR)
            return IO_ERROR;
        if (sent == IO_AGAIN) {
            conn->is_writable = false;
            break;
        }
        conn->moved_bytes += (size_t) sent;
        bytes += (size_t) sent;
        if (bytes >= HTTP_FLUSH_BYTES) { /* a quick reader of much does not stop the others */
            http_loop_schedule(conn);
            break;
        }
    }
    if (evbuffer_get_length(conn->out) == 0 && conn->is_writable && !http_io_is_flushed(conn))
        say_end(conn);
    return 0;
}

/* --- ends ------------------------------------------------------------------------------------ */

bool http_io_is_hung_up(struct connection *conn)
{
    struct pollfd state = {.fd = conn->fd};

    return poll(&state, 1, 0) > 0 && (state.revents & (POLLERR | POLLHUP));
}

void http_io_make_cut(int fd)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

void http_io_close(struct connection *conn)
{
    if (conn->fd < 0)
        return;
    if (conn->is_cut)
        http_io_make_cut(conn->fd);
    if (conn->ssl) {
        SSL_set_quiet_shutdown(conn->ssl, 1);
        SSL_free(conn->ssl);
    }
    close_fd(&conn->fd);
}

/* --- input ----------------------------------------------------------------------------------- */

void http_input_clear(struct input *in)
{
    if (!in->is_borrowed)
        free(in->data);
    *in = (struct input){0};
}

/* Room for that many bytes more behind what is there. */
static void input_reserve(struct input *in, size_t bytes)
{
    size_t held = in->end - in->start;
    size_t size = MAX(in->size, (size_t) 1024);
    char *data;

    if (in->size - in->end >= bytes)
        return;
    if (in->size - held >= bytes) {
        memmove(in->data, in->data + in->start, held);
        in->start = 0;
        in->end = held;
        return;
    }
    while (size - held < bytes)
        size *= 2;
    data = realloc_array(NULL, size, 1);
    if (held)
        memcpy(data, in->data + in->start, held);
    http_input_clear(in);
    *in = (struct input){.data = data, .end = held, .size = size};
}

void http_input_append(struct input *in, const char *data, size_t bytes)
{
    input_reserve(in, bytes);
    memcpy(in->data + in->end, data, bytes);
    in->end += bytes;
}

int http_input_fill(struct connection *conn, size_t bytes_max)
{
    struct input *in = &conn->in;
    ssize_t got;

    if (conn->is_at_eof)
        return 0;
    if (!conn->is_readable)
        return IO_AGAIN;
    if (in->start == in->end && !in->is_borrowed) {
        http_input_clear(in);
        *in = (struct input){
            .data = conn->loop->scratch, .size = HTTP_READ_BYTES, .is_borrowed = true};
    } else if (in->start == in->end)
        in->start = in->end = 0;
    else if (in->end == in->size)
        input_reserve(in, 1);

    got = http_io_read(conn, in->data + in->end, MIN(in->size - in->end, bytes_max));
    if (got <= 0)
        return (int) got;
    in->end += (size_t) got;
    return 1;
}

void http_input_settle(struct connection *conn)
{
    struct input *in = &conn->in;

    if (in->start == in->end)
        http_input_clear(in);
    else if (in->is_borrowed) {
        struct input own = {0};

        http_input_append(&own, in->data + in->start, in->end - in->start);
        *in = own;
    }
}
