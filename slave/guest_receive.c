/* guest_receive.c - taking a moving guest's memory (the frames: guest_move.h)
 *
 * Every byte is foreign: each frame's length is checked against its type before the payload is
 * read, each page against the size that HELLO announced, and nothing is believed until the digest
 * fits. Whatever is wrong, the guest and its memory go, the sender is told why if it still listens,
 * and its copy runs on. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zstd.h>

#include "shared/model.h"
#include "slave/guest.h"
#include "slave/guest_move.h"

#define READS_A_TURN 16

struct receive {
    struct guest *guest;
    int fd;
    struct timer digest_timer, stall_timer;
    uint64_t moved_ms;
    bool has_state; /* complete: nothing more may come */
    uint64_t state[STATE_WORDS];
    struct guest_digest digest;
    size_t used;
    uint8_t in[2 * MOVE_FRAME_BYTES_MAX];
};

static void receive_ready(void *arg, uint32_t events);

static void receive_drop(struct guest *guest)
{
    struct receive *receive = guest->work_state;

    loop_unwatch_fd(guest->guests->loop, receive->fd);
    timer_stop(&receive->digest_timer);
    timer_stop(&receive->stall_timer);
    guest_digest_done(&receive->digest);
    close_fd(&receive->fd);
    free(receive);
}

/* An incomplete guest is none: nothing remains. */
static void receive_cancel(struct guest *guest, int code, const char *text)
{
    struct guest_op op;

    receive_drop(guest);
    op = guest_work_detach(guest);
    guests_log("%s: not received: %s", guest->name, text);
    guest_remove(guest);
    guests_answer(&op, code, text);
}

static const struct guest_work receive_work = {"being received", receive_cancel, receive_drop};

/* Fails the receiving, and tells the sender if it can be told without waiting. Returns false. */
static bool receive_fail(struct receive *receive, const char *format, ...) _printf_(2, 3);
static bool receive_fail(struct receive *receive, const char *format, ...)
{
    struct guest_error error;
    struct move_head head = {.type = htole32(MOVE_REFUSED)};
    uint8_t frame[sizeof(head) + sizeof(error.text)];
    size_t length;
    va_list args;

    va_start(args, format);
    vsnprintf(error.text, sizeof(error.text), format, args);
    va_end(args);
    length = MIN(strlen(error.text), (size_t) MOVE_TEXT_BYTES_MAX);
    head.bytes = htole32((uint32_t) length);
    memcpy(frame, &head, sizeof(head));
    memcpy(frame + sizeof(head), error.text, length);
    (void) !write(receive->fd, frame, sizeof(head) + length);
    receive_cancel(receive->guest, -ERR_VM_MIGRATE_FAILED, error.text);
    return false;
}

static void stall_due(void *arg)
{
    struct receive *receive = arg;
    struct loop *loop = receive->guest->guests->loop;
    uint64_t due_ms = receive->moved_ms + (uint64_t) receive->guest->options.move_timeout_ms;

    if (due_ms > loop_now_ms(loop))
        timer_start_at(loop, &receive->stall_timer, due_ms, stall_due, receive);
    else
        receive_fail(receive, "the sender made no progress for %lld ms",
                     (long long) receive->guest->options.move_timeout_ms);
}

void guest_receive_begin(struct guest *guest, const struct guest_op *op, int fd)
{
    struct loop *loop = guest->guests->loop;
    struct receive *receive = new0(struct receive);
    int r;

    guest_work_begin(guest, &receive_work, op);
    guest->work_state = receive;
    guest_set_state(guest, GUEST_RECEIVING);
    receive->guest = guest;
    receive->fd = fd;
    receive->moved_ms = loop_now_ms(loop);
    r = move_prepare_socket(fd);
    if (r == 0)
        r = loop_watch_fd(loop, fd, EPOLLIN, receive_ready, receive);
    if (r < 0) {
        receive_fail(receive, "cannot use the connection: %s", strerror(-r));
        return;
    }
    timer_start(loop, &receive->stall_timer, (uint64_t) guest->options.move_timeout_ms, stall_due,
                receive);
}

/* --- the frames; each returns false when the receiving has ended --- */

static bool take_hello(struct receive *receive, const uint8_t *payload)
{
    struct guest *guest = receive->guest;
    uint64_t pages = move_word(payload, HELLO_PAGE_COUNT);
    ref_t vm = {move_word(payload, HELLO_VM_HI), move_word(payload, HELLO_VM_LO)};
    struct guest_error error;

    if (move_word(payload, HELLO_MAGIC) != MOVE_MAGIC)
        return receive_fail(receive, "this is no moving guest");
    if (move_word(payload, HELLO_VERSION) != MOVE_VERSION
        || move_word(payload, HELLO_PAGE_BYTES) != GUEST_PAGE_BYTES)
        return receive_fail(receive, "the sender is of a version that we do not know");
    if (!ref_equal(vm, guest->vm))
        return receive_fail(receive, "the sender sends another VM");
    if (pages == 0 || pages > GUEST_PAGES_MAX)
        return receive_fail(receive, "the sender announces %llu pages", (unsigned long long) pages);
    if (guest_build_memory(guest, (uint32_t) pages, &error) < 0)
        return receive_fail(receive, "%s", error.text);
    return true;
}

static bool take_pages(struct receive *receive, const uint8_t *payload, uint32_t bytes)
{
    struct guest_memory *memory = receive->guest->memory;

    for (const uint8_t *p = payload; p < payload + bytes; p += sizeof(struct move_page)) {
        uint32_t page;

        memcpy(&page, p, sizeof(page));
        page = le32toh(page);
        if (page >= memory->page_count)
            return receive_fail(receive, "the sender sends page %u of %u", page,
                                memory->page_count);
        guest_memory_put(memory, page, p + sizeof(page));
    }
    return true;
}

/* Nothing that comes out may be larger than a frame of pages. */
static bool take_packed(struct receive *receive, const uint8_t *payload, uint32_t bytes)
{
    uint8_t pages[MOVE_PAYLOAD_BYTES_MAX];
    size_t length = ZSTD_decompress(pages, sizeof(pages), payload, bytes);

    if (ZSTD_isError(length) || length == 0 || length % sizeof(struct move_page) != 0)
        return receive_fail(receive, "the sender sends packed pages that are none");
    return take_pages(receive, pages, (uint32_t) length);
}

static void receive_finish(void *arg)
{
    struct receive *receive = arg;
    struct guest *guest = receive->guest;
    uint8_t ack[sizeof(struct move_head) + ACK_WORDS * sizeof(uint64_t)];
    struct guest_op op;
    size_t length;

    if (!guest_digest_step(&receive->digest, guest->memory, GUEST_DIGEST_PAGES)) {
        timer_start(guest->guests->loop, &receive->digest_timer, 0, receive_finish, receive);
        return;
    }
    if (receive->digest.value != receive->state[STATE_DIGEST]) {
        receive_fail(receive, "the memory is not what the sender had: its digest does not fit");
        return;
    }
    length = move_put_words(ack, MOVE_ACK, &receive->digest.value, ACK_WORDS);
    if (write(receive->fd, ack, length)
        != (ssize_t) length) { /* the first bytes we write: there is room */
        receive_fail(receive,
                     "the sender closed the connection before it was told that all is well");
        return;
    }
    guest->tick = receive->state[STATE_TICK];
    guest->last_tick_ms = receive->state[STATE_LAST_TICK_MS];
    guest->plan = (enum own_plan) receive->state[STATE_PLAN];
    guest->plan_left_ms = receive->state[STATE_PLAN_LEFT_MS];
    guest->origin = "received";
    receive_drop(guest);
    op = guest_work_detach(guest);
    guest_set_state(guest, GUEST_PAUSED);
    guests_answer(&op, 0, "");
}

static bool take_state(struct receive *receive, const uint8_t *payload)
{
    for (size_t i = 0; i < STATE_WORDS; i++)
        receive->state[i] = move_word(payload, i);
    if (receive->state[STATE_PLAN] > PLAN_REBOOT || receive->state[STATE_PLAN_LEFT_MS] > UINT32_MAX)
        return receive_fail(receive, "the sender sends a state that cannot be");
    receive->has_state = true;
    timer_stop(&receive->stall_timer); /* the rest is our own work */
    timer_start(receive->guest->guests->loop, &receive->digest_timer, 0, receive_finish, receive);
    return true;
}

static bool is_size_right(uint32_t type, uint32_t bytes)
{
    switch (type) {
    case MOVE_HELLO:
        return bytes == HELLO_WORDS * sizeof(uint64_t);
    case MOVE_PAGES:
        return bytes > 0 && bytes <= MOVE_PAYLOAD_BYTES_MAX
               && bytes % sizeof(struct move_page) == 0;
    case MOVE_PACKED:
        return bytes > 0 && bytes < MOVE_PAYLOAD_BYTES_MAX;
    case MOVE_STATE:
        return bytes == STATE_WORDS * sizeof(uint64_t);
    }
    return false;
}

static bool take_frame(struct receive *receive, uint32_t type, const uint8_t *payload,
                       uint32_t bytes)
{
    switch (type) {
    case MOVE_HELLO:
        return take_hello(receive, payload);
    case MOVE_PAGES:
        return take_pages(receive, payload, bytes);
    case MOVE_PACKED:
        return take_packed(receive, payload, bytes);
    default:
        return take_state(receive, payload);
    }
}

/* All complete frames. Returns false when the receiving has ended. */
static bool take_frames(struct receive *receive)
{
    size_t at = 0;
    struct move_head head;

    while (receive->used - at >= sizeof(head)) {
        uint32_t type, bytes;

        memcpy(&head, receive->in + at, sizeof(head));
        type = le32toh(head.type);
        bytes = le32toh(head.bytes);
        if (receive->has_state || (type == MOVE_HELLO) != (receive->guest->memory == NULL))
            return receive_fail(receive, "the sender sends frames in an order that cannot be");
        if (!is_size_right(type, bytes))
            return receive_fail(receive, "the sender sent a frame of type %u with %u bytes", type,
                                bytes);
        if (receive->used - at - sizeof(head) < bytes)
            break;
        if (!take_frame(receive, type, receive->in + at + sizeof(head), bytes))
            return false;
        at += sizeof(head) + bytes;
    }
    receive->used -= at;
    memmove(receive->in, receive->in + at, receive->used);
    return true;
}

static void receive_ready(void *arg, _unused_ uint32_t events)
{
    struct receive *receive = arg;
    struct loop *loop = receive->guest->guests->loop;

    for (int i = 0; i < READS_A_TURN; i++) {
        size_t room = sizeof(receive->in) - receive->used;
        ssize_t n = read(receive->fd, receive->in + receive->used, room);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            receive_fail(receive,
                         "the sender closed the connection before the guest was complete%s%s",
                         n < 0 ? ": " : "", n < 0 ? strerror(errno) : "");
            return;
        }
        receive->used += (size_t) n;
        receive->moved_ms = loop_now_ms(loop);
        if (!take_frames(receive) || (size_t) n < room)
            return;
    }
}
