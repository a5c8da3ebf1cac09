/* raw_http.h - a client for tests that says exactly the bytes it is told, over TCP, TLS or a unix
 * socket
 *
 * Everything blocks, with a timeout of 20 s after which the test fails. */
#pragma once

#include "shared/base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define RAW_TIMEOUT_S 20

struct raw {
    int fd;
    SSL *ssl;   /* or NULL */
    char *text; /* what has come and was not yet taken; a C string too */
    size_t bytes;
    bool is_over; /* the server has ended or reset the connection */
    bool was_reset; /* it was no end in order: a reset, or TLS without its close_notify */
};

static inline void raw_limit(int fd)
{
    struct timeval limit = {.tv_sec = RAW_TIMEOUT_S};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static inline struct raw *raw_new(int fd)
{
    struct raw *raw = new0(struct raw);

    assert_true(fd >= 0);
    signal(SIGPIPE, SIG_IGN);
    raw_limit(fd);
    raw->fd = fd;
    raw->text = dup_text("");
    return raw;
}

static inline struct raw *raw_connect(const char *address, uint16_t port)
{
    bool is_ipv6 = strchr(address, ':') != NULL;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct raw *raw = raw_new(socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    int r;

    if (is_ipv6) {
        inet_pton(AF_INET6, address, &in6.sin6_addr);
        r = connect(raw->fd, (struct sockaddr *) &in6, sizeof in6);
    } else {
        inet_pton(AF_INET, address, &in.sin_addr);
        r = connect(raw->fd, (struct sockaddr *) &in, sizeof in);
    }
    assert_int_equal(r, 0);
    return raw;
}

static inline struct raw *raw_connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct raw *raw = raw_new(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));

    strcpy(address.sun_path, path);
    assert_int_equal(connect(raw->fd, (struct sockaddr *) &address, sizeof address), 0);
    return raw;
}

static inline void raw_start_tls(struct raw *raw, SSL_CTX *context)
{
    raw->ssl = SSL_new(context);
    SSL_set_fd(raw->ssl, raw->fd);
    assert_int_equal(SSL_connect(raw->ssl), 1);
}

static inline void raw_close(struct raw **raw_p)
{
    struct raw *raw = TAKE(*raw_p);

    if (!raw)
        return;
    SSL_free(raw->ssl);
    close_fd(&raw->fd);
    free(raw->text);
    free(raw);
}

/* Returns false when the server took not all of it. */
static inline bool raw_try_send(struct raw *raw, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t sent = raw->ssl ? SSL_write(raw->ssl, data, (int) MIN(bytes, (size_t) 1 << 20))
                                : send(raw->fd, data, bytes, MSG_NOSIGNAL);

        if (sent <= 0)
            return false;
        data += sent;
        bytes -= (size_t) sent;
    }
    return true;
}

static inline void raw_send(struct raw *raw, const char *text)
{
    assert_true(raw_try_send(raw, text, strlen(text)));
}

static inline void raw_end(struct raw *raw)
{
    if (raw->ssl)
        SSL_shutdown(raw->ssl);
    shutdown(raw->fd, SHUT_WR);
}

/* The server sees a reset. */
static inline void raw_cut(struct raw **raw)
{
    struct linger at_once = {.l_onoff = 1};

    setsockopt((*raw)->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    raw_close(raw);
}

/* Read once more. */
static inline void raw_fill(struct raw *raw)
{
    char data[65536];
    ssize_t got =
        raw->ssl ? SSL_read(raw->ssl, data, sizeof data) : recv(raw->fd, data, sizeof data, 0);

    if (got <= 0) {
        assert_true(raw->ssl || got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK));
        raw->was_reset = raw->ssl ? SSL_get_error(raw->ssl, (int) got) != SSL_ERROR_ZERO_RETURN : got < 0;
        raw->is_over = true;
        return;
    }
    raw->text = realloc_array(raw->text, raw->bytes + (size_t) got + 1, 1);
    memcpy(raw->text + raw->bytes, data, (size_t) got);
    raw->bytes += (size_t) got;
    raw->text[raw->bytes] = '\0';
}

/* Take that many bytes off the front, as a C string; valid until it is freed. */
static inline char *raw_take(struct raw *raw, size_t bytes)
{
    char *taken;

    while (raw->bytes < bytes && !raw->is_over)
        raw_fill(raw);
    assert_true(raw->bytes >= bytes);
    taken = alloc0(bytes + 1);
    memcpy(taken, raw->text, bytes);
    raw->bytes -= bytes;
    memmove(raw->text, raw->text + bytes, raw->bytes + 1);
    return taken;
}

/* Up to and with the end mark. */
static inline char *raw_take_until(struct raw *raw, const char *mark)
{
    char *found;

    while (!(found = memmem(raw->text, raw->bytes, mark, strlen(mark))) && !raw->is_over)
        raw_fill(raw);
    assert_non_null(found);
    return raw_take(raw, (size_t) (found - raw->text) + strlen(mark));
}

/* All until the server ends. */
static inline char *raw_take_all(struct raw *raw)
{
    while (!raw->is_over)
        raw_fill(raw);
    return raw_take(raw, raw->bytes);
}

/* A header's value out of a head, as a string to be freed; NULL without it. */
static inline char *raw_header(const char *head, const char *name)
{
    size_t bytes = strlen(name);

    for (const char *line = strstr(head, "\r\n"); line && line[2] != '\r';
         line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, bytes) == 0 && strncmp(line + 2 + bytes, ": ", 2) == 0)
            return strndup(line + bytes + 4, strcspn(line + bytes + 4, "\r"));
    }
    return NULL;
}

/* One answer with a content-length: checks the status, returns the body. ret_head may be NULL. */
static inline char *raw_answer(struct raw *raw, int status, char **ret_head)
{
    char *head = raw_take_until(raw, "\r\n\r\n");
    char *length = raw_header(head, "content-length");
    char *body;

    if (atoi(head + 9) != status)
        fail_msg("expected %d, got: %s", status, head);
    assert_non_null(length);
    body = raw_take(raw, (size_t) atol(length));
    free(length);
    if (ret_head)
        *ret_head = head;
    else
        free(head);
    return body;
}

/* Send, and check one answer's status and body. */
static inline void raw_expect(struct raw *raw, const char *request, int status, const char *body)
{
    char *got;

    raw_send(raw, request);
    got = raw_answer(raw, status, NULL);
    assert_string_equal(got, body);
    free(got);
}

/* The server must end the connection without another byte. */
static inline void raw_expect_end(struct raw *raw)
{
    char *rest = raw_take_all(raw);

    assert_string_equal(rest, "");
    free(rest);
}
