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

static int tls_result(struct connection *conn, int result)
{
    switch (SSL_get_error(conn->ssl, result)) {
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

int http_io_handshake(struct connection *conn)
{
    int result;

    ERR_clear_error();
    result = SSL_do_handshake(conn->ssl);
    if (result == 1)
        return 0;
    result = tls_result(conn, result);
    if (result == IO_AGAIN)
        conn->is_readable = conn->is_writable = false;
    return result == IO_AGAIN ? IO_AGAIN : IO_ERROR;
}

ssize_t http_io_read(struct connection *conn, char *to, size_t bytes)
{
    ssize_t got;

    if (conn->is_at_eof)
        return 0;
    if (!conn->is_readable)
        return IO_AGAIN;

    if (conn->ssl) {
        int result;

        ERR_clear_error();
        result = SSL_read(conn->ssl, to, (int) MIN(bytes, (size_t) INT32_MAX));
        got = result > 0 ? result : tls_result(conn, result);
    } else {
        do
            got = recv(conn->fd, to, bytes, 0);
        while (got < 0 && errno == EINTR);
        if (got < 0)
            got = errno == EAGAIN || errno == EWOULDBLOCK ? IO_AGAIN : IO_ERROR;
        else if ((size_t) got < bytes && !conn->is_closed_by_peer && conn->phase == PHASE_HEAD)
            conn->is_readable = false;
    }
    if (got == 0)
        conn->is_at_eof = true;
    else if (got == IO_AGAIN)
        conn->is_readable = false;
    else if (got > 0)
        conn->moved_bytes += (size_t) got;
    return got;
}

static ssize_t tls_write(struct connection *conn)
{
    size_t bytes = MIN(evbuffer_get_length(conn->out), (size_t) TLS_WRITE_BYTES);
    int result;

    ERR_clear_error();
    result = SSL_write(conn->ssl, evbuffer_pullup(conn->out, (ssize_t) bytes), (int) bytes);
    if (result <= 0)
        return tls_result(conn, result) == IO_AGAIN ? IO_AGAIN : IO_ERROR;
    evbuffer_drain(conn->out, (size_t) result);
    return result;
}

static ssize_t plain_write(struct connection *conn)
{
    ssize_t sent = evbuffer_write(conn->out, conn->fd);

    if (sent >= 0)
        return sent;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? IO_AGAIN : IO_ERROR;
}

int http_io_flush(struct connection *conn)
{
    size_t bytes = 0;

    while (conn->is_writable && evbuffer_get_length(conn->out) > 0) {
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
    return 0;
}

bool http_io_is_hung_up(struct connection *conn)
{
    struct pollfd state = {.fd = conn->fd};

    return poll(&state, 1, 0) > 0 && (state.revents & (POLLERR | POLLHUP));
}

void http_io_end_writing(struct connection *conn)
{
    if (conn->ssl && SSL_is_init_finished(conn->ssl)) {
        ERR_clear_error();
        SSL_shutdown(conn->ssl);
        ERR_clear_error();
    }
    shutdown(conn->fd, SHUT_WR);
}

void http_io_close(struct connection *conn)
{
    if (conn->fd < 0)
        return;
    if (conn->is_cut) {
        struct linger at_once = {.l_onoff = 1, .l_linger = 0};

        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
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
