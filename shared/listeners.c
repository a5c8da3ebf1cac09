/* listeners.c - where a program listens for HTTP, as its settings say, and its certificate */
#include "shared/listeners.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

#include "shared/arena.h"
#include "shared/http.h"
#include "shared/log.h"
#include "shared/tls.h"

/* Of a certificate: the listeners of both kinds, the host's own, and those of this machine to itself. */
#define NAMES_MAX (2 * TEXT_LIST_MAX + 5)

#define ADDRESS_BYTES 128

bool listener_split(const char *text, char *ret_address, size_t bytes, uint16_t *ret_port)
{
    const char *colon = strrchr(text, ':'), *start = text;
    size_t length;
    char *end;
    long port;

    if (!colon)
        return false;
    length = (size_t) (colon - text);
    if (*text == '[' && length > 1 && colon[-1] == ']') {
        start++;
        length -= 2;
    }
    port = strtol(colon + 1, &end, 10);
    if (length == 0 || length >= bytes || *end || end == colon + 1 || port < 0 || port > 65535)
        return false;
    memcpy(ret_address, start, length);
    ret_address[length] = '\0';
    *ret_port = (uint16_t) port;
    return true;
}

/* ---- the certificate ---- */

static void add_name(const char **names, size_t *count, const char *name)
{
    for (size_t i = 0; i < *count; i++)
        if (streq(names[i], name))
            return;
    assert(*count < NAMES_MAX);
    names[(*count)++] = name;
}

static void add_addresses(struct arena *arena, const char **names, size_t *count,
                          const struct text_list *list)
{
    char address[ADDRESS_BYTES];
    uint16_t port;

    for (unsigned i = 0; i < list->count; i++)
        if (listener_split(list->items[i], address, sizeof address, &port))
            add_name(names, count, arena_strdup(arena, address));
}

/* By which clients may know this host. */
static int ensure_certificate(const struct listeners *listeners)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    const char *names[NAMES_MAX];
    size_t count = 0;

    add_name(names, &count, listeners->name);
    add_name(names, &count, listeners->address);
    add_addresses(arena, names, &count, listeners->tls);
    add_addresses(arena, names, &count, listeners->plain);
    add_name(names, &count, "localhost");
    add_name(names, &count, "127.0.0.1");
    add_name(names, &count, "::1");
    return tls_ensure(listeners->certificate, listeners->key, names, count);
}

void listeners_reload(const struct listeners *listeners, struct http_server *server)
{
    _cleanup_(tls_context_unref) SSL_CTX *tls = NULL;

    if (listeners->tls->count == 0)
        return;
    if (tls_server_context(listeners->certificate, listeners->key, &tls) < 0)
        log_error(NULL, "the certificate stays the old one: %s", tls_error());
    else
        http_server_replace_tls(server, tls);
}

/* ---- listening ---- */

/* As the HTTP server asks before it listens: with an option that forgives what old connections
 * left, and without the one by which two servers share a port. */
static int try_bind(const struct addrinfo *address)
{
    _cleanup_(close_fd) int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0
        || (address->ai_family == AF_INET6
            && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0)
        || bind(fd, address->ai_addr, address->ai_addrlen) < 0)
        return -errno;
    return 0;
}

int listener_try(const char *text)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM},
                    *found;
    char address[ADDRESS_BYTES], service[8];
    uint16_t port;
    int r;

    if (!listener_split(text, address, sizeof address, &port))
        return -EINVAL;
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(address, service, &hints, &found) != 0)
        return -EINVAL;
    r = try_bind(found);
    freeaddrinfo(found);
    return r;
}

static void cannot_listen(const char *text, int error)
{
    if (error == -EINVAL)
        log_error(NULL, "'%s' is no ADDRESS:PORT", text);
    else
        log_error(NULL, "cannot listen on %s: %s", text, strerror(-error));
}

int listeners_try(const struct text_list *list)
{
    for (unsigned i = 0; i < list->count; i++) {
        int r = listener_try(list->items[i]);

        if (r < 0) {
            cannot_listen(list->items[i], r);
            return -1;
        }
    }
    return 0;
}

static int open_tcp(struct http_server *server, const char *text, SSL_CTX *tls, char *urls,
                    size_t bytes)
{
    size_t length = strlen(urls);
    char address[ADDRESS_BYTES];
    uint16_t port;
    int r;

    if (!listener_split(text, address, sizeof address, &port)) {
        cannot_listen(text, -EINVAL);
        return -1;
    }
    r = http_listen_tcp(server, address, port, tls, &port);
    if (r < 0) {
        cannot_listen(text, r);
        return -1;
    }
    snprintf(urls + length, bytes - length,
             strchr(address, ':') ? "%s%s://[%s]:%u" : "%s%s://%s:%u", length ? " " : "",
             tls ? "https" : "http", address, port);
    return 0;
}

int listeners_open(struct listeners *listeners, struct http_server *server, char *ret_url,
                   size_t bytes)
{
    _cleanup_(tls_context_unref) SSL_CTX *tls = NULL;
    char *urls = listeners->urls;
    int r;

    *urls = '\0';
    for (unsigned i = 0; i < listeners->plain->count; i++)
        if (open_tcp(server, listeners->plain->items[i], NULL, urls, sizeof listeners->urls) < 0)
            return -1;
    if (listeners->tls->count > 0
        && (ensure_certificate(listeners) < 0
            || tls_server_context(listeners->certificate, listeners->key, &tls) < 0)) {
        log_error(NULL, "no certificate: %s", tls_error());
        return -1;
    }
    for (unsigned i = 0; i < listeners->tls->count; i++)
        if (open_tcp(server, listeners->tls->items[i], tls, urls, sizeof listeners->urls) < 0)
            return -1;
    snprintf(ret_url, bytes, "%.*s", (int) strcspn(urls, " "), urls);
    r = http_listen_unix(server, listeners->unix_socket);
    if (r < 0)
        log_error(NULL, "cannot listen on %s: %s", listeners->unix_socket, strerror(-r));
    return r < 0 ? -1 : 0;
}
