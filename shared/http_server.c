/* http_server.c - listeners, limits, and what holds the loops together
 *
 * On TCP each loop listens with a socket of its own (SO_REUSEPORT), so the kernel spreads the
 * connections and no loop hands one to another. A unix socket cannot be shared like that: the first
 * loop accepts and deals the connections out in turn. */
#include "shared/http_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096

/* Accepted at a time; then the connections that we have are looked after. */
#define ACCEPTS_MAX 32

/* Out of descriptors or memory, listening pauses so long. */
#define ACCEPT_PAUSE_MS 100

/* A listening socket of one loop. */
struct accepter {
    struct listener *listener;
    struct http_loop *loop;
    int fd;
    struct event event;
    struct event resume;
};

struct listener {
    struct http_server *server;
    LIST_ENTRY(listener) next;
    bool is_unix;
    char *path; /* unix: removed at the end */
    uint16_t port;
    SSL_CTX *tls;       /* or NULL; under the server's lock */
    unsigned next_loop; /* unix: whose turn it is */
    unsigned count;
    struct accepter accepters[];
};

/* Connections of one address. */
struct address_count {
    struct address_count *next;
    uint8_t key[16];
    unsigned connections;
};

/* --- limits ---------------------------------------------------------------------------------- */

static struct address_count **address_bucket(struct http_server *server, const uint8_t key[16])
{
    uint32_t hash = 2166136261u; /* FNV-1a; the chains are bounded by connections_max */

    for (int i = 0; i < 16; i++)
        hash = (hash ^ key[i]) * 16777619u;
    return &server->addresses[hash % ARRAY_SIZE(server->addresses)];
}

/* Count a new connection. Returns false, with nothing counted, when it is one too many. */
static bool server_admit(struct http_server *server, struct peer *peer)
{
    struct address_count **place, *count;
    bool is_admitted;

    if (atomic_fetch_add(&server->connections_now, 1) >= server->config.connections_max) {
        atomic_fetch_sub(&server->connections_now, 1);
        return false;
    }
    if (!peer->is_counted)
        return true;

    pthread_mutex_lock(&server->lock);
    place = address_bucket(server, peer->key);
    for (count = *place; count && memcmp(count->key, peer->key, sizeof count->key) != 0;
         count = count->next)
        ;
    if (!count) {
        count = new0(struct address_count);
        memcpy(count->key, peer->key, sizeof count->key);
        count->next = *place;
        *place = count;
    }
    is_admitted = count->connections < server->config.connections_per_address_max;
    count->connections += is_admitted;
    pthread_mutex_unlock(&server->lock);
    if (!is_admitted)
        atomic_fetch_sub(&server->connections_now, 1);
    return is_admitted;
}

void http_server_forget_peer(struct http_server *server, const struct peer *peer)
{
    atomic_fetch_sub(&server->connections_now, 1);
    if (!peer->is_counted)
        return;
    pthread_mutex_lock(&server->lock);
    for (struct address_count **place = address_bucket(server, peer->key); *place;
         place = &(*place)->next) {
        struct address_count *count = *place;

        if (memcmp(count->key, peer->key, sizeof count->key) != 0)
            continue;
        if (--count->connections == 0) {
            *place = count->next;
            free(count);
        }
        break;
    }
    pthread_mutex_unlock(&server->lock);
}

/* --- accepting ------------------------------------------------------------------------------- */

static void peer_describe(struct peer *peer, int fd, const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *) address;

        inet_ntop(AF_INET, &in->sin_addr, peer->text, sizeof peer->text);
        peer->port = ntohs(in->sin_port);
        memcpy(peer->key, &in->sin_addr, sizeof in->sin_addr);
        peer->is_counted = ntohl(in->sin_addr.s_addr) >> 24 != 127;
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *) address;

        inet_ntop(AF_INET6, &in6->sin6_addr, peer->text, sizeof peer->text);
        peer->port = ntohs(in6->sin6_port);
        peer->key[15] = 6;                     /* apart from IPv4 */
        memcpy(peer->key, &in6->sin6_addr, 8); /* whoever has one address of a /64 has all */
        peer->is_counted = !IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    } else {
        struct ucred credentials = {.uid = (uid_t) -1};
        socklen_t size = sizeof credentials;

        strcpy(peer->text, "unix");
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size);
        peer->is_unix = true;
        peer->uid = credentials.uid;
        peer->pid = credentials.pid;
    }
}

/* A TLS session of the listener's present context; false when that cannot be made. */
static bool listener_ssl(struct listener *listener, int fd, SSL **ret_ssl)
{
    SSL *ssl = NULL;

    *ret_ssl = NULL;
    pthread_mutex_lock(&listener->server->lock);
    if (listener->tls)
        ssl = SSL_new(listener->tls);
    pthread_mutex_unlock(&listener->server->lock);
    if (!ssl)
        return !listener->tls;
    if (SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        return false;
    }
    SSL_set_accept_state(ssl);
    SSL_set_read_ahead(ssl, 1); /* a record in one read, not header and rest */
    SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                          | SSL_MODE_RELEASE_BUFFERS);
    *ret_ssl = ssl;
    return true;
}

/* On its way from the loop that accepted to the one that serves. */
struct arrival {
    struct http_loop *loop;
    int fd;
    struct peer peer;
};

static void arrival_run(void *arg)
{
    struct arrival *arrival = arg;

    if (arrival->loop->is_over) {
        close(arrival->fd);
        http_server_forget_peer(arrival->loop->server, &arrival->peer);
    } else
        http_connection_new(arrival->loop, arrival->fd, NULL, &arrival->peer);
    free(arrival);
}

static void accept_one(struct accepter *accepter, int fd, const struct sockaddr_storage *address)
{
    struct listener *listener = accepter->listener;
    struct http_server *server = listener->server;
    struct peer peer = {.local_port = listener->port};
    SSL *ssl;

    peer_describe(&peer, fd, address);
    if (!server_admit(server, &peer)) {
        atomic_fetch_add(&server->refused, 1);
        close(fd);
        return;
    }
    atomic_fetch_add(&server->connections, 1);
    if (!listener_ssl(listener, fd, &ssl)) {
        http_server_forget_peer(server, &peer);
        close(fd);
        return;
    }
    if (listener->is_unix) {
        struct arrival *arrival = new0(struct arrival);

        *arrival = (struct arrival){
            .loop = &server->loops[listener->next_loop++ % server->config.loops],
            .fd = fd,
            .peer = peer,
        };
        http_loop_post(arrival->loop, arrival_run, arrival);
    } else
        http_connection_new(accepter->loop, fd, ssl, &peer);
}

static void on_accept(evutil_socket_t listening_fd, short what, void *arg)
{
    struct accepter *accepter = arg;

    (void) what;
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        struct sockaddr_storage address = {0};
        socklen_t size = sizeof address;
        int fd = accept4(listening_fd, (struct sockaddr *) &address, &size,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            accept_one(accepter, fd, &address);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};

            event_del(&accepter->event);
            event_add(&accepter->resume, &pause);
            return;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        /* anything else concerns that one connection only */
    }
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    struct accepter *accepter = arg;

    (void) fd;
    (void) what;
    event_add(&accepter->event, NULL);
}

static void accepter_begin(void *arg)
{
    struct accepter *accepter = arg;

    if (accepter->loop->is_over)
        return;
    event_assign(&accepter->event, accepter->loop->base, accepter->fd, EV_READ | EV_PERSIST,
                 on_accept, accepter);
    event_assign(&accepter->resume, accepter->loop->base, -1, 0, on_resume, accepter);
    event_add(&accepter->event, NULL);
}

/* --- listeners ------------------------------------------------------------------------------- */

static struct listener *listener_new(struct http_server *server, unsigned count)
{
    struct listener *listener = alloc0(sizeof *listener + count * sizeof *listener->accepters);

    listener->server = server;
    listener->count = count;
    for (unsigned i = 0; i < count; i++) {
        listener->accepters[i].listener = listener;
        listener->accepters[i].loop = &server->loops[i];
        listener->accepters[i].fd = -1;
    }
    return listener;
}

/* Only when its loops do not run any more and have emptied their mailboxes, or never knew it. */
static void listener_destroy(struct listener **listener_p)
{
    struct listener *listener = TAKE(*listener_p);

    if (!listener)
        return;
    for (unsigned i = 0; i < listener->count; i++) {
        struct accepter *accepter = &listener->accepters[i];

        if (event_initialized(&accepter->event)) {
            event_del(&accepter->event);
            event_del(&accepter->resume);
        }
        close_fd(&accepter->fd);
    }
    if (listener->path)
        unlink(listener->path);
    free(listener->path);
    SSL_CTX_free(listener->tls);
    free(listener);
}

static void listener_begin(struct listener *listener)
{
    struct http_server *server = listener->server;

    pthread_mutex_lock(&server->lock);
    LIST_INSERT_HEAD(&server->listeners, listener, next);
    pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < listener->count; i++)
        http_loop_post(listener->accepters[i].loop, accepter_begin, &listener->accepters[i]);
}

static void socket_option(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof value);
}

/* A bound TCP socket. What is set here, accepted sockets inherit. */
static int tcp_bind(const struct addrinfo *address, bool is_shared, int *ret_fd)
{
    _cleanup_(close_fd) int fd =
        socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    socket_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    socket_option(fd, SOL_SOCKET, SO_REUSEPORT, is_shared);
    socket_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (address->ai_family == AF_INET6)
        socket_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);

    /* Parked requests have no deadline: this finds the clients that vanished without a word. */
    socket_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    socket_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 30);
    socket_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    socket_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
    if (bind(fd, address->ai_addr, address->ai_addrlen) < 0)
        return -errno;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static void address_set_port(struct addrinfo *address, uint16_t port)
{
    if (address->ai_family == AF_INET6)
        ((struct sockaddr_in6 *) address->ai_addr)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *) address->ai_addr)->sin_port = htons(port);
}

static int socket_port(int fd, uint16_t *ret_port)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;

    if (getsockname(fd, (struct sockaddr *) &address, &size) < 0)
        return -errno;
    *ret_port = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *) &address)->sin6_port
                                                    : ((struct sockaddr_in *) &address)->sin_port);
    return 0;
}

/* SO_REUSEPORT would let a second server of the same user share our port and take half of our
 * clients, so the port must first be free for a socket that does not share. */
static int tcp_probe(const struct addrinfo *address)
{
    _cleanup_(close_fd) int fd = -1;

    return tcp_bind(address, false, &fd);
}

static int tcp_listen_all(struct listener *listener, struct addrinfo *address, uint16_t port)
{
    int r = 0;

    address_set_port(address, port);
    if (port != 0)
        r = tcp_probe(address);
    for (unsigned i = 0; i < listener->count && r == 0; i++) {
        int *fd = &listener->accepters[i].fd;

        r = tcp_bind(address, true, fd);
        if (r == 0 && i == 0) {
            r = socket_port(*fd, &listener->port);
            address_set_port(address, listener->port);
        }
        if (r == 0 && listen(*fd, BACKLOG) < 0)
            r = -errno;
    }
    return r;
}

int http_listen_tcp(struct http_server *server, const char *address, uint16_t port, SSL_CTX *tls,
                    uint16_t *ret_port)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *found;
    _cleanup_(listener_destroy) struct listener *listener = NULL;
    int r;

    if (getaddrinfo(address, NULL, &hints, &found) != 0)
        return -EINVAL;
    listener = listener_new(server, server->config.loops);
    r = tcp_listen_all(listener, found, port);
    freeaddrinfo(found);
    if (r < 0)
        return r;
    if (tls)
        SSL_CTX_up_ref(tls);
    listener->tls = tls;
    if (ret_port)
        *ret_port = listener->port;
    listener_begin(TAKE(listener));
    return 0;
}

/* Is somebody serving on this socket file? */
static bool unix_is_live(const struct sockaddr_un *address)
{
    _cleanup_(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd >= 0
           && (connect(fd, (const struct sockaddr *) address, sizeof *address) == 0
               || errno == EAGAIN);
}

int http_listen_unix(struct http_server *server, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_(listener_destroy) struct listener *listener = NULL;
    struct stat status;
    int fd;

    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    if (lstat(path, &status) == 0) {
        if (!S_ISSOCK(status.st_mode))
            return -EEXIST;
        if (unix_is_live(&address))
            return -EADDRINUSE;
        unlink(path);
    }

    listener = listener_new(server, 1);
    listener->is_unix = true;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    listener->accepters[0].fd = fd;
    if (bind(fd, (struct sockaddr *) &address, sizeof address) < 0)
        return -errno;
    listener->path = dup_text(path);
    /* Before listen(): nobody can have connected by the mode that the umask left. */
    if (chmod(path, 0600) < 0 || listen(fd, BACKLOG) < 0)
        return -errno;
    listener_begin(TAKE(listener));
    return 0;
}

void http_server_replace_tls(struct http_server *server, SSL_CTX *tls)
{
    struct listener *listener;

    pthread_mutex_lock(&server->lock);
    LIST_FOREACH(listener, &server->listeners, next)
    {
        if (!listener->tls)
            continue;
        SSL_CTX_up_ref(tls);
        SSL_CTX_free(listener->tls);
        listener->tls = tls;
    }
    pthread_mutex_unlock(&server->lock);
}

/* --- the server ------------------------------------------------------------------------------ */

struct http_server *http_server_new(const struct http_config *config)
{
    struct http_server *server = new0(struct http_server);

    assert(config->handle && config->loops > 0);
    assert(config->head_bytes_max > 0 && config->head_bytes_max <= HTTP_HEAD_BYTES_MAX);
    assert(config->handshake_ms > 0 && config->head_ms > 0 && config->body_ms > 0
           && config->idle_ms > 0);
    assert(config->linger_ms > 0 && config->rate_window_ms > 0);
    server->config = *config;
    pthread_mutex_init(&server->lock, NULL);
    LIST_INIT(&server->listeners);
    server->loops = new0_array(struct http_loop, config->loops);
    for (unsigned i = 0; i < config->loops; i++) {
        int r = http_loop_init(&server->loops[i], server);

        if (r < 0)
            die("HTTP loop: %s", strerror(-r));
    }
    return server;
}

int http_server_start(struct http_server *server)
{
    assert(!server->is_started);
    server->is_started = true;
    for (unsigned i = 0; i < server->config.loops; i++) {
        int r = http_loop_start(&server->loops[i]);

        if (r < 0) {
            http_server_stop(server);
            return r;
        }
    }
    return 0;
}

void http_server_stop(struct http_server *server)
{
    struct listener *listener;

    if (server->is_stopped)
        return;
    server->is_stopped = true;
    for (unsigned i = 0; i < server->config.loops; i++)
        http_loop_stop(&server->loops[i]);
    while ((listener = LIST_FIRST(&server->listeners))) {
        LIST_REMOVE(listener, next);
        listener_destroy(&listener);
    }
}

void http_server_destroy(struct http_server **server_p)
{
    struct http_server *server = TAKE(*server_p);

    if (!server)
        return;
    http_server_stop(server);
    for (unsigned i = 0; i < server->config.loops; i++)
        http_loop_done(&server->loops[i]);
    assert(atomic_load(&server->connections_now) == 0);
    free(server->loops);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

void http_server_stats(struct http_server *server, struct http_stats *ret_stats)
{
    *ret_stats = (struct http_stats){
        .connections = atomic_load(&server->connections),
        .connections_now = atomic_load(&server->connections_now),
        .refused = atomic_load(&server->refused),
        .bodies_bytes = atomic_load(&server->bodies_bytes),
    };
    for (unsigned i = 0; i < server->config.loops; i++)
        ret_stats->requests +=
            atomic_load_explicit(&server->loops[i].requests, memory_order_relaxed);
}

unsigned http_server_loops(const struct http_server *server)
{
    return server->config.loops;
}

struct http_loop *http_server_loop(struct http_server *server, unsigned index)
{
    assert(index < server->config.loops);
    return &server->loops[index];
}
