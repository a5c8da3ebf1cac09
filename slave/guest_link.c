/* guest_link.c - messages and descriptors over a unix socket, without waiting
 *
 * What is sent during one round of the loop is gathered in a queue and leaves with one system call.
 * Descriptors keep their place in the queue: one sendmsg never reaches past the next message that
 * carries one, and the kernel keeps that boundary, so the receiver finds descriptors in the order
 * of their messages. */
#include "slave/guest_link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/model.h"

#define LENGTH_BYTES 4
#define READ_BYTES   (64 * 1024)
#define READS_MAX    8  /* a round: then the other descriptors of the loop get their turn */
#define FDS_MAX      64 /* descriptors that came before their messages are complete */

struct sent_fd {
    size_t offset; /* in the queue: leaves with this byte */
    int fd;
};

struct guest_link {
    struct loop *loop;
    int fd;
    struct guest_link_events events;
    struct timer flush_timer, closed_timer;
    char why[160]; /* it is broken; empty: it is not */

    char *queue; /* queue[sent .. queued] is still to be sent */
    size_t sent, queued, queue_room, queue_bytes_max;
    struct sent_fd *sent_fds;
    size_t sent_fd_first, sent_fd_count, sent_fd_room;
    bool waits_to_write;

    char *in;
    size_t in_used, in_room;
    int fds[FDS_MAX];
    int fd_count;
    bool has_fd; /* the message being handled: the first of fds is its */
};

/* --- writing --- */

void guest_frame_begin(struct guest_frame *frame, const char *word)
{
    static const char head[LENGTH_BYTES + 5] = {[LENGTH_BYTES] =
                                                    (char) 0xdf}; /* a map with 32 bits of count */

    frame->pairs = 0;
    frame->fd = -1;
    msgpack_sbuffer_init(&frame->bytes);
    msgpack_packer_init(&frame->packer, &frame->bytes, msgpack_sbuffer_write);
    msgpack_sbuffer_write(&frame->bytes, head, sizeof(head));
    guest_frame_text(frame, "word", word);
}

msgpack_packer *guest_frame_key(struct guest_frame *frame, const char *key)
{
    frame->pairs++;
    msgpack_pack_str_with_body(&frame->packer, key, strlen(key));
    return &frame->packer;
}

void guest_frame_text(struct guest_frame *frame, const char *key, const char *text)
{
    if (text)
        msgpack_pack_str_with_body(guest_frame_key(frame, key), text, strlen(text));
}

void guest_frame_uint(struct guest_frame *frame, const char *key, uint64_t number)
{
    msgpack_pack_uint64(guest_frame_key(frame, key), number);
}

void guest_frame_int(struct guest_frame *frame, const char *key, int64_t number)
{
    msgpack_pack_int64(guest_frame_key(frame, key), number);
}

void guest_frame_double(struct guest_frame *frame, const char *key, double number)
{
    msgpack_pack_double(guest_frame_key(frame, key), number);
}

void guest_frame_uuid(struct guest_frame *frame, const char *key, ref_t uuid)
{
    char text[UUID_TEXT_BYTES];

    guest_frame_text(frame, key, uuid_print(text, uuid));
}

void guest_frame_fd(struct guest_frame *frame, int fd)
{
    assert(frame->fd < 0 && fd >= 0);
    msgpack_pack_true(guest_frame_key(frame, "fd"));
    frame->fd = fd;
}

void guest_frame_done(struct guest_frame *frame)
{
    close_fd(&frame->fd);
    msgpack_sbuffer_destroy(&frame->bytes);
}

/* Fill in the length and the number of pairs, known only now. */
static void guest_frame_finish(struct guest_frame *frame)
{
    uint32_t length = htonl((uint32_t) (frame->bytes.size - LENGTH_BYTES)),
             pairs = htonl(frame->pairs);

    assert(frame->bytes.size <= GUEST_MESSAGE_BYTES_MAX);
    memcpy(frame->bytes.data, &length, sizeof(length));
    memcpy(frame->bytes.data + LENGTH_BYTES + 1, &pairs, sizeof(pairs));
}

/* --- reading --- */

const msgpack_object *guest_message_find(const struct guest_message *message, const char *key)
{
    size_t length = strlen(key);

    for (uint32_t i = 0; i < message->map->size; i++) {
        const msgpack_object *name = &message->map->ptr[i].key;

        if (name->type == MSGPACK_OBJECT_STR && name->via.str.size == length
            && memcmp(name->via.str.ptr, key, length) == 0)
            return &message->map->ptr[i].val;
    }
    return NULL;
}

const char *guest_message_text(const struct guest_message *message, const char *key,
                               const char *otherwise)
{
    const msgpack_object *found = guest_message_find(message, key);
    char *text;

    if (!found || found->type != MSGPACK_OBJECT_STR
        || memchr(found->via.str.ptr, '\0', found->via.str.size))
        return otherwise;
    text = msgpack_zone_malloc(message->zone, found->via.str.size + 1);
    if (!text)
        die("out of memory");
    memcpy(text, found->via.str.ptr, found->via.str.size);
    text[found->via.str.size] = '\0';
    return text;
}

uint64_t guest_message_uint(const struct guest_message *message, const char *key,
                            uint64_t otherwise)
{
    const msgpack_object *found = guest_message_find(message, key);

    return found && found->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? found->via.u64 : otherwise;
}

int64_t guest_message_int(const struct guest_message *message, const char *key, int64_t otherwise)
{
    const msgpack_object *found = guest_message_find(message, key);

    if (found && found->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return found->via.i64;
    if (found && found->type == MSGPACK_OBJECT_POSITIVE_INTEGER && found->via.u64 <= INT64_MAX)
        return (int64_t) found->via.u64;
    return otherwise;
}

double guest_message_double(const struct guest_message *message, const char *key, double otherwise)
{
    const msgpack_object *found = guest_message_find(message, key);

    return found && (found->type == MSGPACK_OBJECT_FLOAT64 || found->type == MSGPACK_OBJECT_FLOAT32)
               ? found->via.f64
               : otherwise;
}

bool guest_message_uuid(const struct guest_message *message, const char *key, ref_t *ret)
{
    const char *text = guest_message_text(message, key, "");

    return uuid_parse(text, strlen(text), ret);
}

int guest_message_take_fd(const struct guest_message *message)
{
    struct guest_link *link = message->link;
    int fd;

    if (!link->has_fd)
        return -1;
    link->has_fd = false;
    fd = link->fds[0];
    memmove(link->fds, link->fds + 1, sizeof(*link->fds) * (size_t) --link->fd_count);
    return fd;
}

/* --- the connection --- */

static void link_ready(void *arg, uint32_t events);

struct guest_link *guest_link_new(struct loop *loop, int fd, size_t queue_bytes_max,
                                  const struct guest_link_events *events)
{
    struct guest_link *link = new0(struct guest_link);
    int r;

    *link = (struct guest_link){
        .loop = loop, .fd = fd, .events = *events, .queue_bytes_max = queue_bytes_max};
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    r = loop_watch_fd(loop, fd, EPOLLIN, link_ready, link);
    if (r < 0)
        guest_link_fail(link, strerror(-r));
    return link;
}

void guest_link_destroy(struct guest_link **link_p)
{
    struct guest_link *link = TAKE(*link_p);

    if (!link)
        return;
    loop_unwatch_fd(link->loop, link->fd);
    timer_stop(&link->flush_timer);
    timer_stop(&link->closed_timer);
    for (size_t i = link->sent_fd_first; i < link->sent_fd_count; i++)
        close_fd(&link->sent_fds[i].fd);
    for (int i = 0; i < link->fd_count; i++)
        close_fd(&link->fds[i]);
    close_fd(&link->fd);
    free(link->sent_fds);
    free(link->queue);
    free(link->in);
    free(link);
}

static void tell_closed(void *arg)
{
    struct guest_link *link = arg;

    link->events.closed(link->events.arg, link->why);
}

void guest_link_fail(struct guest_link *link, const char *why)
{
    if (link->why[0])
        return;
    snprintf(link->why, sizeof(link->why), "%s", why[0] ? why : "closed");
    loop_unwatch_fd(link->loop, link->fd);
    timer_stop(&link->flush_timer);
    timer_start(link->loop, &link->closed_timer, 0, tell_closed, link);
}

size_t guest_link_queued_bytes(const struct guest_link *link)
{
    return link->queued - link->sent;
}

/* One sendmsg; returns whether to go on. */
static bool send_some(struct guest_link *link)
{
    struct sent_fd *carried =
        link->sent_fd_first < link->sent_fd_count ? &link->sent_fds[link->sent_fd_first] : NULL;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    size_t end = link->queued;
    struct iovec part;
    struct msghdr head = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t n;

    if (carried && carried->offset > link->sent) {
        end = carried->offset;
        carried = NULL;
    } else if (carried) {
        head.msg_control = control.bytes;
        head.msg_controllen = sizeof(control.bytes);
        control.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), &carried->fd, sizeof(int));
        end = link->sent + LENGTH_BYTES; /* the message's own first bytes, nothing of the next */
    }
    part = (struct iovec){link->queue + link->sent, end - link->sent};
    n = sendmsg(link->fd, &head, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            guest_link_fail(link, strerror(errno));
        return errno == EINTR;
    }
    link->sent += (size_t) n;
    if (carried) {
        close_fd(&carried->fd);
        link->sent_fd_first++;
    }
    return true;
}

void guest_link_flush(struct guest_link *link)
{
    timer_stop(&link->flush_timer);
    if (link->why[0])
        return;
    while (link->sent < link->queued && send_some(link))
        ;
    if (link->why[0])
        return;
    if (link->sent == link->queued) {
        link->sent = link->queued = 0;
        link->sent_fd_first = link->sent_fd_count = 0;
    }
    if (link->waits_to_write != (link->queued > 0)) {
        link->waits_to_write = link->queued > 0;
        loop_watch_fd(link->loop, link->fd, EPOLLIN | (link->waits_to_write ? EPOLLOUT : 0),
                      link_ready, link);
    }
}

static void flush_due(void *arg)
{
    guest_link_flush(arg);
}

void guest_link_send(struct guest_link *link, struct guest_frame *frame)
{
    size_t bytes = frame->bytes.size;

    if (link->why[0]) {
        guest_frame_done(frame);
        return;
    }
    guest_frame_finish(frame);
    if (link->sent > link->queue_room / 2) { /* move what is left to the front: seldom, so cheap */
        memmove(link->queue, link->queue + link->sent, link->queued - link->sent);
        for (size_t i = link->sent_fd_first; i < link->sent_fd_count; i++)
            link->sent_fds[i].offset -= link->sent;
        link->queued -= link->sent;
        link->sent = 0;
    }
    if (link->queued + bytes > link->queue_room) {
        link->queue_room = MAX(2 * link->queue_room, link->queued + bytes);
        link->queue = realloc_array(link->queue, link->queue_room, 1);
    }
    if (frame->fd >= 0) {
        if (link->sent_fd_count == link->sent_fd_room) {
            link->sent_fd_room = MAX(2 * link->sent_fd_room, (size_t) 8);
            link->sent_fds =
                realloc_array(link->sent_fds, link->sent_fd_room, sizeof(*link->sent_fds));
        }
        link->sent_fds[link->sent_fd_count++] = (struct sent_fd){link->queued, frame->fd};
        frame->fd = -1;
    }
    memcpy(link->queue + link->queued, frame->bytes.data, bytes);
    link->queued += bytes;
    guest_frame_done(frame);
    msgpack_sbuffer_init(&frame->bytes);

    if (guest_link_queued_bytes(link) > link->queue_bytes_max)
        guest_link_fail(link, "the peer does not read");
    else if (!link->waits_to_write && !timer_is_running(&link->flush_timer))
        timer_start(link->loop, &link->flush_timer, 0, flush_due, link);
}

/* Take the descriptors that came; false when there are more than messages may bring. */
static bool take_fds(struct guest_link *link, struct msghdr *head)
{
    bool fits = !(head->msg_flags & MSG_CTRUNC);

    for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c; c = CMSG_NXTHDR(head, c)) {
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (link->fd_count < FDS_MAX) {
                link->fds[link->fd_count++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    return fits;
}

/* One message, given to the owner. Its descriptor, if the owner left it, is closed. */
static void handle(struct guest_link *link, const char *bytes, size_t length)
{
    msgpack_unpacked unpacked;
    struct guest_message message = {.link = link};
    size_t offset = 0;

    msgpack_unpacked_init(&unpacked);
    if (msgpack_unpack_next(&unpacked, bytes, length, &offset) != MSGPACK_UNPACK_SUCCESS
        || offset != length || unpacked.data.type != MSGPACK_OBJECT_MAP) {
        guest_link_fail(link, "the peer sent something that is no message");
    } else {
        const msgpack_object *fd;
        int left;

        message.map = &unpacked.data.via.map;
        message.zone = unpacked.zone;
        fd = guest_message_find(&message, "fd");
        link->has_fd =
            fd && fd->type == MSGPACK_OBJECT_BOOLEAN && fd->via.boolean && link->fd_count > 0;
        link->events.message(link->events.arg, guest_message_text(&message, "word", ""), &message);
        left = guest_message_take_fd(&message);
        close_fd(&left);
    }
    msgpack_unpacked_destroy(&unpacked);
}

static void handle_all(struct guest_link *link)
{
    size_t at = 0;

    while (!link->why[0] && link->in_used - at >= LENGTH_BYTES) {
        uint32_t length;

        memcpy(&length, link->in + at, sizeof(length));
        length = ntohl(length);
        if (length > GUEST_MESSAGE_BYTES_MAX) {
            guest_link_fail(link, "the peer announced a message beyond all bounds");
            return;
        }
        if (link->in_used - at - LENGTH_BYTES < length)
            break;
        handle(link, link->in + at + LENGTH_BYTES, length);
        at += LENGTH_BYTES + length;
    }
    memmove(link->in, link->in + at, link->in_used - at);
    link->in_used -= at;
}

static bool read_some(struct guest_link *link)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec part;
    struct msghdr head = {.msg_iov = &part,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof(control.bytes)};
    ssize_t n;

    if (link->in_room - link->in_used < READ_BYTES) {
        link->in_room = link->in_used + READ_BYTES;
        link->in = realloc_array(link->in, link->in_room, 1);
    }
    part = (struct iovec){link->in + link->in_used, link->in_room - link->in_used};
    n = recvmsg(link->fd, &head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            guest_link_fail(link, strerror(errno));
        return false;
    }
    if (n == 0) {
        guest_link_fail(link, "the peer closed the connection");
        return false;
    }
    link->in_used += (size_t) n;
    if (!take_fds(link, &head)) {
        guest_link_fail(link, "the peer sent too many descriptors");
        return false;
    }
    handle_all(link);
    return !link->why[0] && (size_t) n == part.iov_len; /* a full read: there is likely more */
}

static void link_ready(void *arg, uint32_t events)
{
    struct guest_link *link = arg;

    if (events & EPOLLOUT)
        guest_link_flush(link);
    if (!link->why[0] && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        for (int i = 0; i < READS_MAX && read_some(link); i++)
            ;
}

bool guest_link_peer_is_trusted(int fd, pid_t *ret_pid)
{
    struct ucred peer;
    socklen_t bytes = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0
        || (peer.uid != geteuid() && peer.uid != 0))
        return false;
    *ret_pid = peer.pid;
    return true;
}

/* --- names for numbers --- */

static const char *const state_names[] = {
    [GUEST_NONE] = "none",       [GUEST_RECEIVING] = "receiving", [GUEST_PAUSED] = "paused",
    [GUEST_RUNNING] = "running", [GUEST_SENT] = "sent",           [GUEST_ENDED] = "ended",
};

static const char *const change_names[] = {
    [GUEST_SHUT_DOWN] = "shutdown", [GUEST_REBOOTED] = "reboot", [GUEST_CRASHED] = "crash",
    [GUEST_VANISHED] = "vanished",  [GUEST_KILLED] = "killed",   [GUEST_SAVED] = "saved",
};

static int index_of(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (streq(names[i], name))
            return (int) i;
    return -1;
}

const char *guest_state_name(enum guest_state state)
{
    return state_names[state];
}

int guest_state_of(const char *name)
{
    return index_of(state_names, ARRAY_SIZE(state_names), name);
}

const char *guest_change_name(enum guest_change change)
{
    return change_names[change];
}

int guest_change_of(const char *name)
{
    return index_of(change_names, ARRAY_SIZE(change_names), name);
}

/* A table of our own: the model's is made at run time, and the guests process needs no model. */
static const char *const error_names[] = {
#define ERROR(code, life, params) [ERR_##code - ERR_NONE_] = #code,
#include "shared/model/errors.def"
#undef ERROR
};

const char *guest_error_name(int code)
{
    int index = (code < 0 ? -code : code) - ERR_NONE_;

    assert(index > 0 && index < (int) ARRAY_SIZE(error_names));
    return error_names[index];
}

int guest_error_code(const char *name)
{
    for (int index = 1; index < (int) ARRAY_SIZE(error_names); index++)
        if (streq(error_names[index], name))
            return -(index + ERR_NONE_);
    return -ERR_INTERNAL_ERROR;
}
