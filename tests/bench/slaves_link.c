/* slaves_link.c - the links of a thousand hosts, on one thread
 *
 * link_zmq.c gives each slave a context and a thread, as is right for one slave a process. Here all sockets are in one
 * context and the loop watches their descriptors. Such a descriptor only says that something may have happened; what did
 * is asked with ZMQ_EVENTS, also after each send, which may have swallowed the news of a frame that came. ZeroMQ needs more
 * stack than a fiber has, so what fibers send is queued and sent from the loop's own stack. */
#include "tests/bench/slaves.h"

#include <stdio.h>
#include <sys/epoll.h>
#include <zmq.h>

#include "shared/loop.h"

#define FRAMES_MAX        2000
#define HEARTBEAT_MS      1000
#define HEARTBEAT_DEAD_MS 5000
#define HANDSHAKE_MS      30000 /* a thousand of them at once take their time */
#define RECONNECT_MS      100
#define RECONNECT_MAX_MS  1000
#define ROUND_FRAMES      64    /* of one host before the others have their turn */

struct bench_links {
    struct loop *loop;
    void *context;
};

struct departure {
    struct departure *next;
    size_t count;
    char bytes[];
};

struct bench_link {
    struct link_transport transport;
    struct bench_links *links;
    struct loop_item item;
    bool is_queued, is_destroyed;
    void *socket;                 /* NULL: connected to nobody */
    int fd;
    struct departure *first, **last;
    bool has_new_master;
    char endpoint[256], key[LINK_KEY_BYTES], connected_key[LINK_KEY_BYTES];
    char secret_key[LINK_KEY_BYTES], public_key[LINK_KEY_BYTES];
};

struct bench_links *bench_links_new(struct loop *loop, unsigned sockets_max)
{
    struct bench_links *links = new0(struct bench_links);

    links->loop = loop;
    links->context = zmq_ctx_new();
    if (!links->context || zmq_ctx_set(links->context, ZMQ_MAX_SOCKETS, (int) sockets_max) < 0)
        die("zmq_ctx_new: %s", zmq_strerror(zmq_errno()));
    return links;
}

void bench_links_destroy(struct bench_links **links_p)
{
    struct bench_links *links = TAKE(*links_p);

    if (!links)
        return;
    zmq_ctx_term(links->context);
    free(links);
}

/* ---- the socket ---- */

static void touch(struct bench_link *link)
{
    if (link->is_queued)
        return;
    link->is_queued = true;
    loop_defer(link->links->loop, &link->item);
}

static void on_fd(void *arg, uint32_t events)
{
    (void) events;
    touch(arg);
}

static void disconnect(struct bench_link *link)
{
    if (!link->socket)
        return;
    loop_unwatch_fd(link->links->loop, link->fd);
    zmq_close(link->socket);
    link->socket = NULL;
}

static void set_int(void *socket, int option, int value)
{
    if (zmq_setsockopt(socket, option, &value, sizeof value) < 0)
        die("zmq_setsockopt %d: %s", option, zmq_strerror(zmq_errno()));
}

static void connect_to_master(struct bench_link *link)
{
    size_t bytes = sizeof link->fd;

    disconnect(link);
    link->has_new_master = false;
    if (!link->endpoint[0])
        return;
    link->socket = zmq_socket(link->links->context, ZMQ_DEALER);
    if (!link->socket)
        die("zmq_socket: %s", zmq_strerror(zmq_errno()));
    set_int(link->socket, ZMQ_LINGER, 0);
    set_int(link->socket, ZMQ_SNDHWM, FRAMES_MAX);
    set_int(link->socket, ZMQ_RCVHWM, FRAMES_MAX);
    set_int(link->socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    set_int(link->socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS);
    set_int(link->socket, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_DEAD_MS);
    set_int(link->socket, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set_int(link->socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    zmq_setsockopt(link->socket, ZMQ_CURVE_SECRETKEY, link->secret_key, LINK_KEY_BYTES - 1);
    zmq_setsockopt(link->socket, ZMQ_CURVE_PUBLICKEY, link->public_key, LINK_KEY_BYTES - 1);
    zmq_setsockopt(link->socket, ZMQ_CURVE_SERVERKEY, link->key, LINK_KEY_BYTES - 1);
    if (zmq_connect(link->socket, link->endpoint) < 0)
        die("zmq_connect %s: %s", link->endpoint, zmq_strerror(zmq_errno()));
    memcpy(link->connected_key, link->key, LINK_KEY_BYTES);
    zmq_getsockopt(link->socket, ZMQ_FD, &link->fd, &bytes);
    if (loop_watch_fd(link->links->loop, link->fd, EPOLLIN, on_fd, link) < 0)
        die("the socket of a link cannot be watched");
}

/* ---- a link's turn, on the loop's own stack ---- */

static void send_queued(struct bench_link *link)
{
    struct departure *frame;

    while ((frame = link->first)) {
        if (link->socket && zmq_send(link->socket, frame->bytes, frame->count, ZMQ_DONTWAIT) < 0)
            link->transport.receiver.down(link->transport.receiver.arg, link->connected_key, zmq_strerror(zmq_errno()));
        link->first = frame->next;
        free(frame);
    }
    link->last = &link->first;
}

static bool may_receive(struct bench_link *link)
{
    int events = 0;
    size_t bytes = sizeof events;

    return link->socket && zmq_getsockopt(link->socket, ZMQ_EVENTS, &events, &bytes) == 0 && events & ZMQ_POLLIN;
}

static void take_frame(struct bench_link *link)
{
    struct link_receiver *receiver = &link->transport.receiver;
    zmq_msg_t frame;

    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, link->socket, ZMQ_DONTWAIT) >= 0 && receiver->frame)
        receiver->frame(receiver->arg, link->connected_key, zmq_msg_data(&frame), zmq_msg_size(&frame));
    zmq_msg_close(&frame);
}

static void turn(struct loop_item *item)
{
    struct bench_link *link = CONTAINER_OF(item, struct bench_link, item);

    link->is_queued = false;
    if (link->is_destroyed) {
        free(link);
        return;
    }
    if (link->has_new_master)
        connect_to_master(link);
    send_queued(link);
    for (int i = 0; i < ROUND_FRAMES && may_receive(link); i++)
        take_frame(link);
    /* Whatever is left, or came by in the meantime, has its turn after the other hosts. */
    if (link->first || link->has_new_master || may_receive(link))
        touch(link);
}

/* ---- the agent's side ---- */

static bool link_send(struct link_transport *transport, const char *key, const void *bytes, size_t count)
{
    struct bench_link *link = CONTAINER_OF(transport, struct bench_link, transport);
    struct departure *frame;

    if (count > LINK_FRAME_BYTES_MAX || !streq(key, link->has_new_master ? link->key : link->connected_key))
        return count <= LINK_FRAME_BYTES_MAX;
    frame = alloc0(sizeof *frame + count);
    frame->count = count;
    memcpy(frame->bytes, bytes, count);
    *link->last = frame;
    link->last = &frame->next;
    touch(link);
    return true;
}

static void link_allow(struct link_transport *transport, const char *key, bool is_allowed)
{
    (void) transport;
    (void) key;
    (void) is_allowed; /* for the master's end */
}

static void link_connect(struct link_transport *transport, const char *endpoint, const char *key)
{
    struct bench_link *link = CONTAINER_OF(transport, struct bench_link, transport);

    snprintf(link->endpoint, sizeof link->endpoint, "%s", endpoint ? endpoint : "");
    snprintf(link->key, sizeof link->key, "%s", key ? key : "");
    link->has_new_master = true;
    touch(link);
}

static void link_destroy(struct link_transport **transport_p)
{
    struct bench_link *link;

    if (!*transport_p)
        return;
    link = CONTAINER_OF(TAKE(*transport_p), struct bench_link, transport);
    disconnect(link);
    for (struct departure *frame; (frame = link->first);) {
        link->first = frame->next;
        free(frame);
    }
    link->is_destroyed = true;
    if (!link->is_queued)
        free(link);
}

struct link_transport *bench_link_new(struct bench_links *links, const char *secret_key)
{
    struct bench_link *link = new0(struct bench_link);

    link->links = links;
    link->last = &link->first;
    link->item.run = link->item.drop = turn;
    snprintf(link->secret_key, sizeof link->secret_key, "%s", secret_key);
    if (!link_public_key(secret_key, link->public_key))
        die("a host's key is none");
    link->transport = (struct link_transport){
        .send = link_send, .allow = link_allow, .connect = link_connect, .destroy = link_destroy};
    return &link->transport;
}
