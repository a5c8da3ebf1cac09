/* http_pass.c - a request that another server answers: of this machine, or of another host
 *
 *      head, parsed and checked --> written anew, with "connection: close" and X-Drover-From
 *      body: what came with the head, then the rest ==> http_relay ==> server
 *                                           answer <== http_relay <== server
 *
 * Since the server is told to close, it reads this one request and no more: what the client sends
 * behind it can become no request that nobody has checked. Server and client end the framing of the
 * body between themselves; both parse heads alike, so they agree on it.
 *
 * How either ends, in order or cut, reaches the other: what goes over the unix socket goes in parcels
 * (http_parcel.c). Only tunnels are passed on bare, as their servers want the connection itself. */
#include "shared/http_pass.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "shared/http_routes.h"
#include "shared/log.h"

/* "https 192.0.2.7 40112 443": scheme, the client's address and port, and the listener's port. */
#define FROM_HEADER "x-drover-from"

/* ---- how it came here ---- */

static bool read_from(const char *text, struct http_origin *ret)
{
    char scheme[6], peer[INET6_ADDRSTRLEN];
    unsigned peer_port, local_port;
    int length = -1;

    if (sscanf(text, "%5[a-z] %45[0-9a-f.:] %5u %5u%n", scheme, peer, &peer_port, &local_port, &length) != 4
        || text[length] || peer_port > UINT16_MAX || local_port > UINT16_MAX
        || (!streq(scheme, "http") && !streq(scheme, "https")))
        return false;
    ret->is_tls = streq(scheme, "https");
    strcpy(ret->peer, peer);
    ret->peer_port = (uint16_t) peer_port;
    ret->local_port = (uint16_t) local_port;
    return true;
}

void http_origin_of(const struct http_request *request, struct http_origin *ret)
{
    const char *from = http_is_ours(request) ? http_header(request, FROM_HEADER) : NULL;

    *ret = (struct http_origin){
        .is_tls = request->is_tls,
        .peer_port = request->peer_port,
        .local_port = request->local_port,
        .is_local = http_is_ours(request) && !from,
    };
    snprintf(ret->peer, sizeof ret->peer, "%s", request->peer);
    if (from && !streq(from, "unix"))
        (void) read_from(from, ret); /* a text that makes no sense names nobody, and is not local either */
    else if (from)
        ret->is_local = true;
}

/* ---- the head ---- */

/* What concerns this connection only, and what only we may say. */
static bool is_dropped(const char *name)
{
    static const char *const names[] = {"connection",          "keep-alive", "proxy-connection", "te",
                                        "proxy-authorization", FROM_HEADER};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

static void write_from(const struct http_request *request, struct evbuffer *head)
{
    struct http_origin origin;

    http_origin_of(request, &origin);
    if (origin.is_local)
        evbuffer_add_printf(head, FROM_HEADER ": unix\r\n");
    else
        evbuffer_add_printf(head, FROM_HEADER ": %s %s %u %u\r\n", origin.is_tls ? "https" : "http", origin.peer,
                            origin.peer_port, origin.local_port);
}

static struct evbuffer *head_of(const struct http_request *request)
{
    struct evbuffer *head = evbuffer_new();
    const char *name, *value;

    if (!head)
        die("out of memory (evbuffer)");
    evbuffer_add_printf(head, "%s %s HTTP/1.%d\r\n", request->method_text, request->target, request->minor);
    write_from(request, head);
    for (size_t i = 0; http_header_at(request, i, &name, &value); i++)
        if (!is_dropped(name))
            evbuffer_add_printf(head, "%s: %s\r\n", name, value);
    evbuffer_add_printf(head, "connection: close%s\r\n\r\n", http_header(request, "upgrade") ? ", upgrade" : "");
    return head;
}

/* ---- passing on ---- */

/* A connected socket, or a negative errno. On a unix socket this waits for nothing: -EAGAIN when the server has more
 * connections to accept than it can. */
static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int connected;

    if (fd < 0)
        return -errno;
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *) &address, sizeof address) < 0)
        return -errno;
    connected = fd;
    fd = -1;
    return connected;
}

bool http_pass_unix(struct http_request *request, const char *socket_path)
{
    bool is_tunnel = request->method == HTTP_CONNECT || http_header(request, "upgrade");
    struct http_onward server = {.in_parcels = !is_tunnel, .head = ""};

    server.fd = request->is_passed ? -ELOOP : connect_unix(socket_path);
    if (server.fd < 0) {
        log_warning(NULL, "%s: %s", socket_path, strerror(-server.fd));
        return false;
    }
    server.first = head_of(request);
    http_relay(request, &server);
    evbuffer_free(server.first);
    return true;
}

/* ---- sending elsewhere ---- */

/* From the path on, of a target that may be a whole URL. */
static const char *path_and_query(const char *target)
{
    const char *host = strstr(target, "://");
    size_t before_query = strcspn(target, "?");

    if (*target == '/' || !host || host > target + before_query)
        return *target == '/' ? target : "/";
    host += 3;
    return host[strcspn(host, "/?")] == '/' ? host + strcspn(host, "/") : "/";
}

void http_redirect(struct http_request *request, const char *address)
{
    struct http_origin origin;
    char port[8] = "", *header;
    bool is_ipv6 = strchr(address, ':');

    http_close_after(request); /* a body that comes is not wanted here */
    if (!*address || !http_header_value_is_safe(address)) { /* another host's words */
        http_reply_html(request, 503, "", "the host that serves this has no address");
        return;
    }
    http_origin_of(request, &origin);
    if (origin.local_port != 0 && origin.local_port != (origin.is_tls ? 443 : 80))
        snprintf(port, sizeof port, ":%u", origin.local_port);
    if (asprintf(&header, "location: %s://%s%s%s%s%s\r\n", origin.is_tls ? "https" : "http", is_ipv6 ? "[" : "",
                 address, is_ipv6 ? "]" : "", port, path_and_query(request->target))
        < 0)
        die("out of memory");
    http_reply_html(request, 302, header, "another host serves this");
    free(header);
}
