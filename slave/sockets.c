/* sockets.c - connections between agents over TCP */
#include "slave/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "shared/fiber.h"

#define BACKLOG 16

struct resolving {
    const char *address, *port;
    struct sockaddr_storage to;
    socklen_t bytes;
    bool ok;
};

static void resolve_on_loop_stack(void *arg)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *info = NULL;
    struct resolving *resolving = arg;

    if (getaddrinfo(resolving->address, resolving->port, &hints, &info) != 0)
        return;
    memcpy(&resolving->to, info->ai_addr, info->ai_addrlen);
    resolving->bytes = info->ai_addrlen;
    resolving->ok = true;
    freeaddrinfo(info);
}

/* Addresses are numbers, so nothing is looked up; but getaddrinfo needs more stack than a fiber has. */
static bool resolve(struct resolving *resolving)
{
    fiber_on_loop_stack(resolve_on_loop_stack, resolving);
    return resolving->ok;
}

static int tcp_listen(struct agent_sockets *sockets, const char *address, int *ret_fd, int *ret_port)
{
    struct resolving at = {.address = address, .port = "0"};
    struct sockaddr_storage bound;
    socklen_t bytes = sizeof bound;
    _cleanup_(close_fd) int fd = -1;

    (void) sockets;
    if (!resolve(&at))
        return -EINVAL;
    fd = socket(at.to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *) &at.to, at.bytes) < 0 || listen(fd, BACKLOG) < 0
        || getsockname(fd, (struct sockaddr *) &bound, &bytes) < 0)
        return -errno;
    *ret_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *) &bound)->sin6_port
                                                  : ((struct sockaddr_in *) &bound)->sin_port);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int tcp_connect(struct agent_sockets *sockets, const char *address, const char *port, int *ret_fd)
{
    struct resolving to = {.address = address, .port = port};
    _cleanup_(close_fd) int fd = -1;
    int one = 1;

    (void) sockets;
    if (!resolve(&to))
        return -EINVAL;
    fd = socket(to.to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || (connect(fd, (struct sockaddr *) &to.to, to.bytes) < 0 && errno != EINPROGRESS))
        return -errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

struct agent_sockets *sockets_tcp(void)
{
    static struct agent_sockets sockets = {tcp_listen, tcp_connect};

    return &sockets;
}
