/* link_zmq.c - frames over ZeroMQ with CURVE
 *
 *   loop's thread                  poller thread                         network
 *   send() ---- queue, eventfd ---> zmq_msg_send, never waiting -------> ROUTER or DEALER
 *   receiver.frame() <-- mailbox -- zmq_msg_recv, User-Id <-------------
 *                                   ZAP: is this key let in?
 *
 * All sockets belong to the poller thread, so no ZeroMQ call ever runs on a fiber's small stack. The sender of a frame is
 * the key that CURVE proved for its connection: our ZAP handler makes it the User-Id, which ZeroMQ attaches to each frame.
 * A routing id only says where to answer; each peer's newest one is remembered from its last frame.
 *
 * Nobody can fill our memory. What a peer does not read stays in its own pipe up to SEND_FRAMES_MAX; then its frames are
 * dropped and the loop is told that it is down - the links above notice what was lost by their sequence numbers. What the
 * loop has not yet taken is counted, and beyond a limit the poller leaves the rest in the kernel's buffers. */
#include "shared/link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "shared/link_strangers.h"
#include "shared/log.h"
#include "shared/loop.h"

#define SEND_FRAMES_MAX    2000               /* in each peer's pipe; ZeroMQ holds no more for one that does not read */
#define SEND_BYTES_MAX     (64 * 1024 * 1024) /* between the loop and the poller, all peers */
#define TAKE_BYTES_MAX     (32 * 1024 * 1024) /* between the poller and the loop */
#define ROUND_FRAMES       256                /* from the sockets before the queue is looked at again */
#define PEER_BUCKETS       1024
#define ROUTE_BYTES_MAX    255
#define HEARTBEAT_MS       1000               /* ZeroMQ's own: finds connections that died without a word */
#define HEARTBEAT_DEAD_MS  5000
#define HANDSHAKE_MS       3000
#define REFUSAL_TELL_MS    10000              /* between log lines about strangers, who try again and again */
#define RECONNECT_MS       100
#define RECONNECT_MAX_MS   1000
#define REFUSALS           3                  /* handshakes broken off in a row; one may be a master that just ends */

/* A frame on its way to the poller. */
struct departure {
    struct departure *next;
    size_t count;
    char key[LINK_KEY_BYTES];
    char bytes[];
};

/* A frame on its way to the loop; or word that a peer is down, or that it refuses us. */
struct arrival {
    struct loop_item item;
    struct zmq_link *link;
    char key[LINK_KEY_BYTES];
    zmq_msg_t message;
    const char *why;           /* down: a literal */
    bool is_refusal;
};

/* Where a peer's connections are: the newest, and the one before it, which may be the living one. */
struct route {
    uint8_t id[ROUTE_BYTES_MAX];
    size_t count;
};

struct peer {
    struct peer *next;
    char key[LINK_KEY_BYTES];
    bool is_allowed;           /* under the lock */
    bool is_up;                /* the poller's */
    struct route routes[2];    /* the poller's */
};

struct zmq_link {
    struct link_transport transport;
    struct loop *loop;
    bool is_closed;            /* the loop's: destroyed, waits for its last arrivals */
    atomic_uint holders;       /* the owner, and each arrival */
    atomic_size_t taking_bytes;

    pthread_t thread;
    int event_fd;
    void *context;
    void *socket;              /* the poller's; NULL: connected to nobody */
    void *zap;                 /* the poller's; listening end only */
    void *monitor;             /* the poller's: how the handshakes of the socket go */
    struct link_strangers strangers; /* the poller's; listening end only */
    unsigned refusals;         /* the poller's */
    bool is_listening, is_open;
    uint64_t refusal_told_ms;  /* the poller's */
    char secret_key[LINK_KEY_BYTES], public_key[LINK_KEY_BYTES];
    char listens_at[256];

    pthread_mutex_t lock;
    struct departure *first, **last;
    size_t sending_bytes;
    struct peer *peers[PEER_BUCKETS];
    bool is_stopping;
    bool has_new_master;
    char master_endpoint[256], master_key[LINK_KEY_BYTES];

    char connected_key[LINK_KEY_BYTES]; /* the poller's: the present master */
    bool is_master_up;
};

static void release(struct zmq_link *link)
{
    if (atomic_fetch_sub(&link->holders, 1) > 1)
        return;
    loop_release(link->loop);
    free(link);
}


/* --- towards the loop --- */

static void arrival_free(struct arrival *arrival)
{
    struct zmq_link *link = arrival->link;

    if (!arrival->why && !arrival->is_refusal) {
        atomic_fetch_sub(&link->taking_bytes, zmq_msg_size(&arrival->message));
        zmq_msg_close(&arrival->message);
    }
    free(arrival);
    release(link);
}

static void arrival_drop(struct loop_item *item)
{
    arrival_free(CONTAINER_OF(item, struct arrival, item));
}

static void arrival_run(struct loop_item *item)
{
    struct arrival *arrival = CONTAINER_OF(item, struct arrival, item);
    struct zmq_link *link = arrival->link;
    struct link_receiver *receiver = &link->transport.receiver;

    if (!link->is_closed) {
        if (arrival->is_refusal && receiver->refused)
            receiver->refused(receiver->arg, arrival->key);
        else if (arrival->why)
            receiver->down(receiver->arg, arrival->key, arrival->why);
        else if (!arrival->is_refusal)
            receiver->frame(receiver->arg, arrival->key, zmq_msg_data(&arrival->message),
                            zmq_msg_size(&arrival->message));
    }
    arrival_free(arrival);
}

/* Hand a frame (which is taken), or word of a peer that is down (why) or refuses us (neither), to the loop. */
static void tell_loop(struct zmq_link *link, const char *key, zmq_msg_t *message, const char *why)
{
    struct arrival *arrival = new0(struct arrival);

    arrival->item.run = arrival_run;
    arrival->item.drop = arrival_drop;
    arrival->link = link;
    arrival->why = why;
    arrival->is_refusal = !message && !why;
    memcpy(arrival->key, key, LINK_KEY_BYTES);
    if (message) {
        zmq_msg_init(&arrival->message);
        zmq_msg_move(&arrival->message, message);
        atomic_fetch_add(&link->taking_bytes, zmq_msg_size(&arrival->message));
    }
    atomic_fetch_add(&link->holders, 1);
    if (!loop_post(link->loop, &arrival->item))
        arrival_free(arrival);
}


/* --- peers --- */

static struct peer **peer_slot(struct zmq_link *link, const char *key)
{
    size_t hash = 5381;
    struct peer **slot;

    for (const char *p = key; *p; p++)
        hash = hash * 33 + (unsigned char) *p;
    slot = &link->peers[hash % PEER_BUCKETS];
    while (*slot && !streq((*slot)->key, key))
        slot = &(*slot)->next;
    return slot;
}

/* With the lock. */
static struct peer *peer_make(struct zmq_link *link, const char *key)
{
    struct peer **slot = peer_slot(link, key);

    if (!*slot) {
        *slot = new0(struct peer);
        memcpy((*slot)->key, key, LINK_KEY_BYTES);
    }
    return *slot;
}

/* The peer of this key if it is let in, or NULL. Peers are never freed before the end, so the pointer stays good. At the
 * open socket strangers become peers here; but to get so far they must know the secret from which its key is made. */
static struct peer *peer_let_in(struct zmq_link *link, const char *key)
{
    struct peer *peer;

    pthread_mutex_lock(&link->lock);
    peer = link->is_open ? peer_make(link, key) : *peer_slot(link, key);
    if (peer && !link->is_open && !peer->is_allowed)
        peer = NULL;
    pthread_mutex_unlock(&link->lock);
    return peer;
}

static void peer_came_by(struct peer *peer, const zmq_msg_t *route_message)
{
    zmq_msg_t *message = (zmq_msg_t *) route_message;
    struct route *newest = &peer->routes[0];

    peer->is_up = true;
    if (newest->count == zmq_msg_size(message) && memcmp(newest->id, zmq_msg_data(message), newest->count) == 0)
        return;
    peer->routes[1] = *newest;
    newest->count = MIN(zmq_msg_size(message), sizeof newest->id);
    memcpy(newest->id, zmq_msg_data(message), newest->count);
}


/* --- poller: frames out --- */

/* 0 or an errno. */
static int send_to_route(struct zmq_link *link, const struct route *route, const struct departure *frame)
{
    if (route->count == 0)
        return EHOSTUNREACH;
    if (zmq_send(link->socket, route->id, route->count, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return zmq_errno();
    if (zmq_send(link->socket, frame->bytes, frame->count, ZMQ_DONTWAIT) < 0)
        return zmq_errno();
    return 0;
}

static void send_as_master(struct zmq_link *link, const struct departure *frame)
{
    struct peer *peer;
    int error;

    pthread_mutex_lock(&link->lock);
    peer = *peer_slot(link, frame->key);
    pthread_mutex_unlock(&link->lock);
    if (!peer || !peer->is_up)
        return; /* was told already */
    error = send_to_route(link, &peer->routes[0], frame);
    if (error == EHOSTUNREACH) {
        error = send_to_route(link, &peer->routes[1], frame);
        if (error == 0) {
            struct route living = peer->routes[1];

            peer->routes[1] = peer->routes[0];
            peer->routes[0] = living;
        }
    }
    if (error) {
        peer->is_up = false;
        tell_loop(link, peer->key, NULL, error == EAGAIN ? "does not read what it is sent" : "is not connected");
    }
}

static void send_as_slave(struct zmq_link *link, const struct departure *frame)
{
    if (!link->socket || !streq(frame->key, link->connected_key))
        return;
    if (zmq_send(link->socket, frame->bytes, frame->count, ZMQ_DONTWAIT) >= 0) {
        link->is_master_up = true;
        return;
    }
    if (link->is_master_up)
        tell_loop(link, link->connected_key, NULL, "the master is not connected");
    link->is_master_up = false;
}

static void *dealer_new(struct zmq_link *link, const char *endpoint, const char *key);

static void close_master(struct zmq_link *link)
{
    if (link->monitor)
        zmq_close(link->monitor);
    if (link->socket)
        zmq_close(link->socket);
    link->monitor = link->socket = NULL;
    link->refusals = 0;
}

/* What the loop has asked for. Returns false when it asked for the end. */
static bool do_as_asked(struct zmq_link *link)
{
    struct departure *frame, *next;
    char endpoint[sizeof link->master_endpoint], key[LINK_KEY_BYTES];
    bool has_new_master, is_stopping;

    pthread_mutex_lock(&link->lock);
    frame = TAKE(link->first);
    link->last = &link->first;
    link->sending_bytes = 0;
    is_stopping = link->is_stopping;
    has_new_master = link->has_new_master;
    link->has_new_master = false;
    memcpy(endpoint, link->master_endpoint, sizeof endpoint);
    memcpy(key, link->master_key, sizeof key);
    pthread_mutex_unlock(&link->lock);

    if (has_new_master) {
        close_master(link);
        link->socket = endpoint[0] ? dealer_new(link, endpoint, key) : NULL;
        memcpy(link->connected_key, key, sizeof key);
        link->is_master_up = false;
    }
    for (; frame; frame = next) {
        next = frame->next;
        if (link->is_listening)
            send_as_master(link, frame);
        else
            send_as_slave(link, frame);
        free(frame);
    }
    return !is_stopping;
}


/* --- poller: frames in --- */

/* One message of the ROUTER: [route][frame]. Returns false when there is none. */
static bool take_as_master(struct zmq_link *link)
{
    zmq_msg_t route, frame;
    const char *user;
    struct peer *peer;

    zmq_msg_init(&route);
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&route, link->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&route);
        zmq_msg_close(&frame);
        return false;
    }
    if (zmq_msg_more(&route) && zmq_msg_recv(&frame, link->socket, ZMQ_DONTWAIT) >= 0) {
        user = zmq_msg_gets(&frame, "User-Id");
        peer = !zmq_msg_more(&frame) && user && link_key_is_valid(user) ? peer_let_in(link, user) : NULL;
        if (peer) {
            peer_came_by(peer, &route);
            tell_loop(link, peer->key, &frame, NULL);
        }
        while (zmq_msg_more(&frame) && zmq_msg_recv(&frame, link->socket, ZMQ_DONTWAIT) >= 0)
            ; /* nobody of ours sends more parts */
    }
    zmq_msg_close(&route);
    zmq_msg_close(&frame);
    return true;
}

static bool take_as_slave(struct zmq_link *link)
{
    zmq_msg_t frame;
    bool is_single;

    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, link->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return false;
    }
    is_single = !zmq_msg_more(&frame);
    while (zmq_msg_more(&frame) && zmq_msg_recv(&frame, link->socket, ZMQ_DONTWAIT) >= 0)
        ;
    if (is_single)
        tell_loop(link, link->connected_key, &frame, NULL);
    zmq_msg_close(&frame);
    return true;
}

/* RFC 27: version, request id, domain, address, routing id, mechanism, credentials. */
static void answer_zap(struct zmq_link *link)
{
    uint8_t parts[7][256];
    int sizes[7], count = 0, more = 1;
    size_t more_bytes = sizeof more;
    char key[LINK_KEY_BYTES] = "", address[256] = "";
    bool is_let_in;

    while (more) {
        uint8_t rest[256];
        int size = zmq_recv(link->zap, count < 7 ? parts[count] : rest, 256, 0);

        if (size < 0)
            return;
        if (count < 7)
            sizes[count] = MIN(size, 256);
        count++;
        zmq_getsockopt(link->zap, ZMQ_RCVMORE, &more, &more_bytes);
    }
    if (count < 2)
        return;
    if (count == 7 && sizes[5] == 5 && memcmp(parts[5], "CURVE", 5) == 0 && sizes[6] == 32)
        zmq_z85_encode(key, parts[6], 32);
    if (count >= 4)
        snprintf(address, sizeof address, "%.*s", MIN(sizes[3], 255), (char *) parts[3]);
    is_let_in = key[0] && peer_let_in(link, key);
    if (!is_let_in && clock_now_ms(clock_real()) >= link->refusal_told_ms + REFUSAL_TELL_MS) {
        link->refusal_told_ms = clock_now_ms(clock_real());
        log_warning(NULL, "link: refused the key %s from %s", key[0] ? key : "(none)", address);
    }
    zmq_send(link->zap, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(link->zap, parts[1], (size_t) sizes[1], ZMQ_SNDMORE);
    /* After 400 the other end would give up for ever, and its key may be let in later. After 300 nothing is said, and it tries
     * again when its handshake has taken too long. */
    zmq_send(link->zap, is_let_in ? "200" : "300", 3, ZMQ_SNDMORE);
    zmq_send(link->zap, "", 0, ZMQ_SNDMORE);
    zmq_send(link->zap, key, is_let_in ? strlen(key) : 0, ZMQ_SNDMORE);
    zmq_send(link->zap, "", 0, 0);
}

/* One event of the socket: [number, value][endpoint]. Returns false when there is none. */
static bool take_event(struct zmq_link *link)
{
    struct {
        uint16_t number;
        uint32_t value;
    } __attribute__((packed)) event;
    char endpoint[256];
    bool is_refusal;

    if (zmq_recv(link->monitor, &event, sizeof event, ZMQ_DONTWAIT) != (int) sizeof event)
        return false;
    (void) zmq_recv(link->monitor, endpoint, sizeof endpoint, ZMQ_DONTWAIT);
    if (link->is_listening) {
        link_strangers_event(&link->strangers, event.number, event.value,
                             link->is_open ? "our pool secret" : "this master's key");
        return true;
    }
    /* One that cannot read our first words hangs up; a handshake that is only not answered ends in a timeout (EAGAIN). */
    is_refusal = event.number == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL || event.number == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
                 || (event.number == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL
                     && (event.value == EPIPE || event.value == ECONNRESET));
    link->refusals = is_refusal ? link->refusals + 1 : 0;
    if (link->refusals == REFUSALS) {
        link->refusals = 0; /* told again after as many */
        tell_loop(link, link->connected_key, NULL, NULL);
    }
    return true;
}

static void *poller_main(void *arg)
{
    struct zmq_link *link = arg;

    pthread_setname_np(pthread_self(), "link");
    for (;;) {
        bool is_behind = atomic_load(&link->taking_bytes) > TAKE_BYTES_MAX;
        zmq_pollitem_t items[4] = {{.fd = link->event_fd, .events = ZMQ_POLLIN}};
        int count = 1;

        if (link->zap)
            items[count++] = (zmq_pollitem_t){.socket = link->zap, .events = ZMQ_POLLIN};
        if (link->socket && !is_behind)
            items[count++] = (zmq_pollitem_t){.socket = link->socket, .events = ZMQ_POLLIN};
        if (link->monitor)
            items[count++] = (zmq_pollitem_t){.socket = link->monitor, .events = ZMQ_POLLIN};
        if (zmq_poll(items, count, is_behind ? 10 : -1) < 0 && zmq_errno() != EINTR)
            die("link: zmq_poll: %s", zmq_strerror(zmq_errno()));
        if (items[0].revents) {
            uint64_t number;

            (void) !read(link->event_fd, &number, sizeof number);
        }
        if (link->zap && items[1].revents & ZMQ_POLLIN)
            answer_zap(link);
        while (link->monitor && take_event(link))
            ;
        for (int i = 0; link->socket && !is_behind && i < ROUND_FRAMES; i++)
            if (!(link->is_listening ? take_as_master(link) : take_as_slave(link)))
                break;
        if (!do_as_asked(link))
            return NULL;
    }
}


/* --- the loop's side --- */

static void wake_poller(struct zmq_link *link)
{
    uint64_t one = 1;

    (void) !write(link->event_fd, &one, sizeof one);
}

static bool link_zmq_send(struct link_transport *transport, const char *key, const void *bytes, size_t count)
{
    struct zmq_link *link = CONTAINER_OF(transport, struct zmq_link, transport);
    struct departure *frame;
    bool was_empty;

    if (count > LINK_FRAME_BYTES_MAX || !link_key_is_valid(key))
        return false;
    frame = alloc0(sizeof *frame + count);
    frame->count = count;
    memcpy(frame->key, key, LINK_KEY_BYTES);
    memcpy(frame->bytes, bytes, count);
    pthread_mutex_lock(&link->lock);
    if (link->sending_bytes + count > SEND_BYTES_MAX) {
        pthread_mutex_unlock(&link->lock);
        free(frame);
        return false;
    }
    was_empty = !link->first;
    link->sending_bytes += count;
    *link->last = frame;
    link->last = &frame->next;
    pthread_mutex_unlock(&link->lock);
    if (was_empty)
        wake_poller(link);
    return true;
}

static void link_zmq_allow(struct link_transport *transport, const char *key, bool is_allowed)
{
    struct zmq_link *link = CONTAINER_OF(transport, struct zmq_link, transport);

    if (!link_key_is_valid(key))
        return;
    pthread_mutex_lock(&link->lock);
    peer_make(link, key)->is_allowed = is_allowed;
    pthread_mutex_unlock(&link->lock);
}

static void link_zmq_connect_to(struct link_transport *transport, const char *endpoint, const char *key)
{
    struct zmq_link *link = CONTAINER_OF(transport, struct zmq_link, transport);

    pthread_mutex_lock(&link->lock);
    link->has_new_master = true;
    snprintf(link->master_endpoint, sizeof link->master_endpoint, "%s", endpoint ? endpoint : "");
    snprintf(link->master_key, sizeof link->master_key, "%s", key ? key : "");
    pthread_mutex_unlock(&link->lock);
    wake_poller(link);
}

static void link_zmq_destroy(struct link_transport **transport_p)
{
    struct zmq_link *link;
    struct departure *frame;

    if (!*transport_p)
        return;
    link = CONTAINER_OF(TAKE(*transport_p), struct zmq_link, transport);
    link->is_closed = true;
    pthread_mutex_lock(&link->lock);
    link->is_stopping = true;
    pthread_mutex_unlock(&link->lock);
    wake_poller(link);
    pthread_join(link->thread, NULL);
    close_master(link);
    if (link->zap)
        zmq_close(link->zap);
    zmq_ctx_term(link->context);
    while ((frame = link->first)) {
        link->first = frame->next;
        free(frame);
    }
    for (size_t i = 0; i < PEER_BUCKETS; i++) {
        struct peer *peer;

        while ((peer = link->peers[i])) {
            link->peers[i] = peer->next;
            free(peer);
        }
    }
    close_fd(&link->event_fd);
    pthread_mutex_destroy(&link->lock);
    release(link);
}

static void set_int(void *socket, int option, int value)
{
    if (zmq_setsockopt(socket, option, &value, sizeof value) < 0)
        die("link: zmq_setsockopt %d: %s", option, zmq_strerror(zmq_errno()));
}

static void *socket_new(struct zmq_link *link, int type)
{
    void *socket = zmq_socket(link->context, type);
    int64_t frame_max = LINK_FRAME_BYTES_MAX;

    if (!socket)
        die("link: zmq_socket: %s", zmq_strerror(zmq_errno()));
    set_int(socket, ZMQ_LINGER, 0);
    set_int(socket, ZMQ_IPV6, 1);
    set_int(socket, ZMQ_SNDHWM, SEND_FRAMES_MAX);
    set_int(socket, ZMQ_RCVHWM, SEND_FRAMES_MAX);
    set_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    set_int(socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS);
    set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_DEAD_MS);
    zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, link->secret_key, LINK_KEY_BYTES - 1);
    return socket;
}

static void watch_handshakes(struct zmq_link *link, void *socket, int events)
{
    char at[64];

    snprintf(at, sizeof at, "inproc://monitor-%p", socket);
    link->monitor = zmq_socket(link->context, ZMQ_PAIR);
    if (!link->monitor
        || zmq_socket_monitor(socket, at, events) < 0 || zmq_connect(link->monitor, at) < 0)
        die("link: no monitor: %s", zmq_strerror(zmq_errno()));
    set_int(link->monitor, ZMQ_LINGER, 0);
}

static void *dealer_new(struct zmq_link *link, const char *endpoint, const char *key)
{
    void *socket = socket_new(link, ZMQ_DEALER);

    set_int(socket, ZMQ_IMMEDIATE, 1); /* nothing waits for a connection: what was meant for the old one is gone */
    set_int(socket, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set_int(socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, link->public_key, LINK_KEY_BYTES - 1);
    watch_handshakes(link, socket, ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL
                                       | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH);
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, key, LINK_KEY_BYTES - 1) < 0 ||
        zmq_connect(socket, endpoint) < 0) {
        log_error(NULL, "link: cannot connect to %s: %s", endpoint, zmq_strerror(zmq_errno()));
        zmq_close(socket);
        return NULL;
    }
    return socket;
}

static struct zmq_link *zmq_link_new(struct loop *loop, const char *secret_key)
{
    struct zmq_link *link = new0(struct zmq_link);

    link->transport = (struct link_transport){
        .send = link_zmq_send,
        .allow = link_zmq_allow,
        .connect = link_zmq_connect_to,
        .destroy = link_zmq_destroy,
    };
    link->loop = loop_hold(loop);
    link->holders = 1;
    link->last = &link->first;
    pthread_mutex_init(&link->lock, NULL);
    snprintf(link->secret_key, sizeof link->secret_key, "%s", secret_key);
    if (!link_public_key(secret_key, link->public_key))
        die("link: not a secret key");
    link->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->context = zmq_ctx_new();
    if (link->event_fd < 0 || !link->context)
        die("link: no eventfd or ZeroMQ context");
    return link;
}

static void poller_start(struct zmq_link *link)
{
    if (pthread_create(&link->thread, NULL, poller_main, link) != 0)
        die("link: no thread for the poller");
}

struct link_transport *link_zmq_listen(struct loop *loop, const char *endpoint, const char *secret_key, bool is_open,
                                       int *ret_error)
{
    struct zmq_link *link = zmq_link_new(loop, secret_key);
    struct link_transport *transport = &link->transport;
    size_t bytes = sizeof link->listens_at;

    link->is_listening = true;
    link->is_open = is_open;
    link->zap = zmq_socket(link->context, ZMQ_REP);
    link->socket = socket_new(link, ZMQ_ROUTER);
    if (!link->zap || zmq_bind(link->zap, "inproc://zeromq.zap.01") < 0)
        die("link: no ZAP handler: %s", zmq_strerror(zmq_errno()));
    set_int(link->zap, ZMQ_LINGER, 0);
    set_int(link->socket, ZMQ_ROUTER_MANDATORY, 1);
    set_int(link->socket, ZMQ_CURVE_SERVER, 1);
    zmq_setsockopt(link->socket, ZMQ_ZAP_DOMAIN, "drover", 6);
    watch_handshakes(link, link->socket, STRANGERS_EVENTS);
    *ret_error = zmq_bind(link->socket, endpoint) < 0 ? -zmq_errno() : 0;
    zmq_getsockopt(link->socket, ZMQ_LAST_ENDPOINT, link->listens_at, &bytes);
    poller_start(link); /* also after a failure, so that destroy has one thing to end */
    if (*ret_error < 0)
        transport->destroy(&transport);
    return transport;
}

const char *link_zmq_endpoint(const struct link_transport *transport)
{
    return CONTAINER_OF(transport, const struct zmq_link, transport)->listens_at;
}

struct link_transport *link_zmq_connect(struct loop *loop, const char *secret_key)
{
    struct zmq_link *link = zmq_link_new(loop, secret_key);

    poller_start(link);
    return &link->transport;
}
