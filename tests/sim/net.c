/* net.c - the simulator's network */
#include "tests/sim/net.h"

#include <stdio.h>

#define NODES_MAX 16

struct frame {
    struct timer timer;
    struct frame *next, **previous_next; /* the receiving node's list */
    struct node *to;
    char from[LINK_KEY_BYTES];
    size_t count;
    char bytes[];
};

struct node {
    struct link_transport transport;
    struct net *net;
    struct loop *loop;
    char key[LINK_KEY_BYTES];
    struct frame *frames;
    struct {
        char from[LINK_KEY_BYTES];
        uint64_t due_ms; /* of the last frame that came in time */
    } streams[NODES_MAX];
    bool is_silent;
    void (*watch)(void *arg, const void *bytes, size_t count); /* NULL: nobody looks */
    void *watch_arg;
};

struct net {
    struct random *random;
    struct net_chances chances;
    struct node *nodes[NODES_MAX];
    struct {
        char from[LINK_KEY_BYTES], to[LINK_KEY_BYTES];
    } cuts[64];
    int cut_count;
    uint64_t sent, lost;
};

struct net *net_new(struct random *random, const struct net_chances *chances)
{
    struct net *net = new0(struct net);

    net->random = random;
    net->chances = *chances;
    return net;
}

void net_destroy(struct net **net_p)
{
    struct net *net = *net_p;

    if (!net)
        return;
    for (int i = 0; i < NODES_MAX; i++)
        assert(!net->nodes[i]);
    free(net);
    *net_p = NULL;
}

void net_set_chances(struct net *net, const struct net_chances *chances)
{
    net->chances = *chances;
}

static struct node *node_find(struct net *net, const char *key)
{
    for (int i = 0; i < NODES_MAX; i++)
        if (net->nodes[i] && streq(net->nodes[i]->key, key))
            return net->nodes[i];
    return NULL;
}

void net_watch(struct link_transport *transport, void (*fn)(void *arg, const void *bytes, size_t count), void *arg)
{
    struct node *node = CONTAINER_OF(transport, struct node, transport);

    node->watch = fn;
    node->watch_arg = arg;
}

void net_silence(struct link_transport *transport)
{
    CONTAINER_OF(transport, struct node, transport)->is_silent = true;
}

static bool is_cut(const struct net *net, const char *from, const char *to)
{
    for (int i = 0; i < net->cut_count; i++) {
        const char *cut_from = net->cuts[i].from, *cut_to = net->cuts[i].to;

        if (*cut_to ? streq(cut_from, from) && streq(cut_to, to)
                    : streq(cut_from, from) || streq(cut_from, to))
            return true;
    }
    return false;
}

void net_cut(struct net *net, const char *from, const char *to, bool wanted)
{
    for (int i = 0; i < net->cut_count; i++)
        if (streq(net->cuts[i].from, from) && streq(net->cuts[i].to, to ? to : "")) {
            if (!wanted)
                net->cuts[i] = net->cuts[--net->cut_count];
            return;
        }
    if (!wanted)
        return;
    assert(net->cut_count < (int) ARRAY_SIZE(net->cuts));
    snprintf(net->cuts[net->cut_count].from, LINK_KEY_BYTES, "%s", from);
    snprintf(net->cuts[net->cut_count].to, LINK_KEY_BYTES, "%s", to ? to : "");
    net->cut_count++;
}

static void frame_unlink(struct frame *frame)
{
    *frame->previous_next = frame->next;
    if (frame->next)
        frame->next->previous_next = frame->previous_next;
}

static void deliver(void *arg)
{
    struct frame *frame = arg;
    struct node *to = frame->to;

    frame_unlink(frame);
    if (!to->is_silent && to->transport.receiver.frame)
        to->transport.receiver.frame(to->transport.receiver.arg, frame->from, frame->bytes,
                                     frame->count);
    free(frame);
}

/* When the last frame of this sender arrives: the next one in time comes after it. */
static uint64_t *stream_of(struct node *to, const char *from)
{
    for (int i = 0; i < NODES_MAX; i++) {
        if (!to->streams[i].from[0])
            snprintf(to->streams[i].from, sizeof to->streams[i].from, "%s", from);
        if (streq(to->streams[i].from, from))
            return &to->streams[i].due_ms;
    }
    die("net: more than %d senders", NODES_MAX);
}

static void send_once(struct net *net, const struct node *from, struct node *to, const void *bytes,
                      size_t count)
{
    struct frame *frame = alloc0(sizeof *frame + count);
    uint64_t due_ms = loop_now_ms(to->loop) + random_below(net->random, net->chances.delay_ms_max + 1);
    uint64_t *stream_ms = stream_of(to, from->key);

    if (random_below(net->random, 1000) < net->chances.late)
        due_ms += random_below(net->random, net->chances.late_ms_max + 1);
    else
        due_ms = *stream_ms = MAX(*stream_ms, due_ms);
    frame->to = to;
    memcpy(frame->from, from->key, sizeof frame->from);
    memcpy(frame->bytes, bytes, count);
    frame->count = count;
    frame->next = to->frames;
    frame->previous_next = &to->frames;
    if (to->frames)
        to->frames->previous_next = &frame->next;
    to->frames = frame;
    timer_start_at(to->loop, &frame->timer, due_ms, deliver, frame);
}

static bool node_send(struct link_transport *transport, const char *key, const void *bytes,
                      size_t count)
{
    struct node *from = CONTAINER_OF(transport, struct node, transport);
    struct net *net = from->net;
    struct node *to = node_find(net, key);

    net->sent++;
    if (from->watch && !from->is_silent)
        from->watch(from->watch_arg, bytes, count);
    if (!to || from->is_silent || is_cut(net, from->key, key) || random_below(net->random, 1000) < net->chances.lost) {
        net->lost++;
        return true; /* whoever sends cannot know */
    }
    send_once(net, from, to, bytes, count);
    if (random_below(net->random, 1000) < net->chances.doubled)
        send_once(net, from, to, bytes, count);
    return true;
}

static void node_allow(struct link_transport *transport, const char *key, bool is_allowed)
{
    (void) transport;
    (void) key;
    (void) is_allowed;
}

static void node_connect(struct link_transport *transport, const char *endpoint, const char *key)
{
    (void) transport;
    (void) endpoint;
    (void) key;
}

static void node_destroy(struct link_transport **transport_p)
{
    struct node *node;

    if (!*transport_p)
        return;
    node = CONTAINER_OF(*transport_p, struct node, transport);
    while (node->frames) {
        struct frame *frame = node->frames;

        frame_unlink(frame);
        timer_stop(&frame->timer);
        free(frame);
    }
    for (int i = 0; i < NODES_MAX; i++)
        if (node->net->nodes[i] == node)
            node->net->nodes[i] = NULL;
    free(node);
    *transport_p = NULL;
}

struct link_transport *net_attach(struct net *net, struct loop *loop, const char *key)
{
    struct node *node = new0(struct node);

    assert(!node_find(net, key));
    node->transport = (struct link_transport){
        .send = node_send, .allow = node_allow, .connect = node_connect, .destroy = node_destroy};
    node->net = net;
    node->loop = loop;
    snprintf(node->key, sizeof node->key, "%s", key);
    for (int i = 0; i < NODES_MAX; i++)
        if (!net->nodes[i]) {
            net->nodes[i] = node;
            return &node->transport;
        }
    die("net: more than %d nodes", NODES_MAX);
}

void net_figures(const struct net *net, uint64_t *ret_sent, uint64_t *ret_lost)
{
    *ret_sent = net->sent;
    *ret_lost = net->lost;
}
