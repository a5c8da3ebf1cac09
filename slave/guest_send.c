/* guest_send.c - moving a running guest's memory away (the frames: guest_move.h)
 *
 * Round by round the pages that were written since they were sent go out again, while the guest
 * ticks. When what is left would fit into the wanted downtime (or no round makes it less), the
 * guest is held, the rest follows, and its state with the digest of everything. The receiver's ACK
 * ends it: lock and journal are let go, the guest is SENT. Anything else, at any time, and the
 * guest runs on here.
 *
 * The socket is written when it takes bytes, at most 1 MiB a turn, so a fast receiver does not stop
 * the other guests' ticks, and a slow one only its own move. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zstd.h>

#include "shared/model.h"
#include "slave/guest.h"
#include "slave/guest_move.h"

#define FRAMES_A_TURN 16
#define ROUNDS_MAX    30 /* a guest that writes faster than we send: then it has to wait */
#define PAGES_FEW     8  /* not worth another round */
#define REST_MS       50 /* between rounds that only pass the time until move-ms-min */
#define PROGRESS_MS   250
#define ZSTD_LEVEL    1 /* a guest's pages at the speed of a network */

enum send_phase {
    SEND_ROUNDS, /* the guest ticks */
    SEND_LAST,   /* it is held: the last pages, */
    SEND_DIGEST, /* the digest of all, */
    SEND_ACK,    /* everything is out: the receiver's word */
};

struct send {
    struct guest *guest;
    int fd;
    int64_t downtime_ms;
    ZSTD_CCtx *packer; /* NULL: pages travel as they are */
    enum send_phase phase;
    struct timer turn_timer, stall_timer;
    uint64_t began_ms, held_ms, moved_ms; /* moved: the last progress */
    uint64_t told_ms;
    uint32_t at; /* in this round's walk over the pages */
    int rounds;
    uint64_t round_began_us, round_bytes; /* this round's speed says how long the rest would take */
    uint64_t bytes, bytes_expected;
    struct guest_digest digest;

    size_t out_used, out_sent, in_used;
    uint8_t in[sizeof(struct move_head) + MOVE_TEXT_BYTES_MAX];
    uint8_t out[MOVE_FRAME_BYTES_MAX];
};

static void send_ready(void *arg, uint32_t events);
static void send_turn(void *arg);

int move_prepare_socket(int fd)
{
    int flags = fcntl(fd, F_GETFL), one = 1;

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    /* The last frame is small and a guest stands still for it. Other sockets than TCP refuse, and
     * do not need it. */
    (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return 0;
}

/* Let go of the connection. */
static void send_drop(struct guest *guest)
{
    struct send *send = guest->work_state;

    loop_unwatch_fd(guest->guests->loop, send->fd);
    timer_stop(&send->turn_timer);
    timer_stop(&send->stall_timer);
    guest_digest_done(&send->digest);
    ZSTD_freeCCtx(send->packer);
    close_fd(&send->fd);
    free(send);
}

/* It came to nothing: the guest runs on. */
static void send_cancel(struct guest *guest, int code, const char *text)
{
    send_drop(guest);
    if (!guest->is_executing)
        guest_continue(guest, "resumed");
    guests_log("%s: not moved: %s", guest->name, text);
    guest_work_done(guest, code, text);
}

static const struct guest_work send_work = {"being sent", send_cancel, send_drop};

bool guest_is_being_sent(const struct guest *guest)
{
    return guest->work == &send_work;
}

static void send_fail(struct send *send, const char *format, ...) _printf_(2, 3);
static void send_fail(struct send *send, const char *format, ...)
{
    char text[sizeof(((struct guest_error *) 0)->text)];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    send_cancel(send->guest, -ERR_VM_MIGRATE_FAILED, text);
}

static void stall_due(void *arg)
{
    struct send *send = arg;
    struct loop *loop = send->guest->guests->loop;
    uint64_t due_ms = send->moved_ms + (uint64_t) send->guest->options.move_timeout_ms;

    if (due_ms > loop_now_ms(loop))
        timer_start_at(loop, &send->stall_timer, due_ms, stall_due, send);
    else
        send_fail(send, "the receiver made no progress for %lld ms",
                  (long long) send->guest->options.move_timeout_ms);
}

void guest_send_begin(struct guest *guest, const struct guest_op *op, int fd, int downtime_ms,
                      bool is_compressed)
{
    struct loop *loop = guest->guests->loop;
    struct send *send = new0(struct send);
    const uint64_t hello[HELLO_WORDS] = {
        [HELLO_MAGIC] = MOVE_MAGIC,
        [HELLO_VERSION] = MOVE_VERSION,
        [HELLO_VM_HI] = guest->vm.hi,
        [HELLO_VM_LO] = guest->vm.lo,
        [HELLO_PAGE_BYTES] = GUEST_PAGE_BYTES,
        [HELLO_PAGE_COUNT] = guest->memory->page_count,
    };
    int r;

    guest_work_begin(guest, &send_work, op);
    guest->work_state = send;
    send->guest = guest;
    send->fd = fd;
    send->downtime_ms = MAX(downtime_ms, 0);
    send->packer = is_compressed ? ZSTD_createCCtx() : NULL; /* without memory for it: as they are */
    send->began_ms = send->moved_ms = send->told_ms = loop_now_ms(loop);
    send->round_began_us = clock_now_us(loop_clock(loop));
    guest_memory_mark_all(guest->memory);
    send->bytes_expected = (uint64_t) guest->memory->dirty_count * sizeof(struct move_page) + 1;
    send->out_used = move_put_words(send->out, MOVE_HELLO, hello, HELLO_WORDS);

    r = move_prepare_socket(fd);
    if (r == 0)
        r = loop_watch_fd(loop, fd, EPOLLIN, send_ready, send);
    if (r < 0) {
        send_fail(send, "cannot use the connection: %s", strerror(-r));
        return;
    }
    timer_start(loop, &send->stall_timer, (uint64_t) guest->options.move_timeout_ms, stall_due,
                send);
    timer_start(loop, &send->turn_timer, 0, send_turn, send);
}

static void tell_progress(struct send *send, uint64_t now_ms)
{
    double share = (double) send->bytes / (double) send->bytes_expected;
    uint64_t least_ms = (uint64_t) send->guest->options.move_ms_min;

    if (now_ms - send->told_ms < PROGRESS_MS)
        return;
    send->told_ms = now_ms;
    if (least_ms > 0)
        share = MIN(share, (double) (now_ms - send->began_ms) / (double) least_ms);
    guests_tell_progress(send->guest, MIN(share, 0.99));
}

/* A round is over: another one, or hold the guest, or wait. Returns false to wait. */
static bool round_end(struct send *send)
{
    struct guest *guest = send->guest;
    struct loop *loop = guest->guests->loop;
    uint64_t now_ms = loop_now_ms(loop), now_us = clock_now_us(loop_clock(loop));
    uint64_t end_ms = send->began_ms + (uint64_t) guest->options.move_ms_min;
    uint32_t left = guest->memory->dirty_count;
    double us_a_byte = send->round_bytes
                           ? (double) (now_us - send->round_began_us) / (double) send->round_bytes
                           : 0;

    send->rounds++;
    send->at = 0;
    send->round_bytes = 0;
    send->round_began_us = now_us;
    if (now_ms < end_ms) {
        send->moved_ms = now_ms; /* it is us who wait */
        timer_start(loop, &send->turn_timer, MIN(end_ms - now_ms, (uint64_t) REST_MS), send_turn,
                    send);
        return false;
    }
    if (left <= PAGES_FEW || send->rounds >= ROUNDS_MAX
        || left * sizeof(struct move_page) * us_a_byte <= (double) send->downtime_ms * 1000) {
        send->phase = SEND_LAST;
        send->held_ms = now_ms;
        guest_hold(guest);
    }
    return true;
}

/* The frame of pages in `out` as a smaller one; left alone when it does not get smaller. */
static void pack_pages(struct send *send)
{
    uint8_t packed[MOVE_PAYLOAD_BYTES_MAX];
    size_t bytes = send->out_used - sizeof(struct move_head), packed_bytes;
    struct move_head head;

    packed_bytes = ZSTD_compressCCtx(send->packer, packed, bytes - 1, send->out + sizeof(head), bytes, ZSTD_LEVEL);
    if (ZSTD_isError(packed_bytes)) /* no room: it would not be smaller */
        return;
    head = (struct move_head){htole32(MOVE_PACKED), htole32((uint32_t) packed_bytes)};
    memcpy(send->out, &head, sizeof(head));
    memcpy(send->out + sizeof(head), packed, packed_bytes);
    send->out_used = sizeof(head) + packed_bytes;
}

static void fill_pages(struct send *send)
{
    struct guest_memory *memory = send->guest->memory;
    struct move_head head = {.type = htole32(MOVE_PAGES)};
    size_t used = sizeof(head);
    uint32_t page;

    for (int i = 0; i < MOVE_PAGES_A_FRAME && guest_memory_take_dirty(memory, &send->at, &page);
         i++) {
        uint32_t number = htole32(page);

        memcpy(send->out + used, &number, sizeof(number));
        memcpy(send->out + used + sizeof(number), guest_memory_page(memory, page),
               GUEST_PAGE_BYTES);
        used += sizeof(struct move_page);
    }
    if (used == sizeof(head))
        return;
    head.bytes = htole32((uint32_t) (used - sizeof(head)));
    memcpy(send->out, &head, sizeof(head));
    send->out_used = used;
    if (send->packer)
        pack_pages(send);
}

static void fill_state(struct send *send)
{
    const struct guest *guest = send->guest;
    const uint64_t state[STATE_WORDS] = {
        [STATE_TICK] = guest->tick,          [STATE_LAST_TICK_MS] = guest->last_tick_ms,
        [STATE_PLAN] = guest->plan,          [STATE_PLAN_LEFT_MS] = guest->plan_left_ms,
        [STATE_DIGEST] = send->digest.value,
    };

    send->out_used = move_put_words(send->out, MOVE_STATE, state, STATE_WORDS);
}

/* Put the next frame into `out`. Returns false when there is nothing to do until a timer or the
 * receiver says so. */
static bool fill(struct send *send)
{
    send->out_used = send->out_sent = 0;
    switch (send->phase) {
    case SEND_ROUNDS:
        fill_pages(send);
        return send->out_used > 0 || round_end(send);
    case SEND_LAST:
        fill_pages(send);
        if (send->out_used == 0)
            send->phase = SEND_DIGEST;
        return true;
    case SEND_DIGEST:
        if (!guest_digest_step(&send->digest, send->guest->memory, GUEST_DIGEST_PAGES)) {
            timer_start(send->guest->guests->loop, &send->turn_timer, 0, send_turn, send);
            return false;
        }
        fill_state(send);
        send->phase = SEND_ACK;
        return true;
    case SEND_ACK:
        return false;
    }
    return false;
}

static void send_turn(void *arg)
{
    struct send *send = arg;
    struct loop *loop = send->guest->guests->loop;

    for (int frames = 0; frames < FRAMES_A_TURN;) {
        ssize_t n;

        if (send->out_sent == send->out_used) {
            if (!fill(send)) {
                tell_progress(send, loop_now_ms(loop));
                loop_watch_fd(loop, send->fd, EPOLLIN, send_ready, send);
                return;
            }
            frames++;
            continue;
        }
        n = write(send->fd, send->out + send->out_sent, send->out_used - send->out_sent);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            send_fail(send, "the connection to the receiver broke: %s", strerror(errno));
            return;
        }
        send->out_sent += (size_t) n;
        send->bytes += (uint64_t) n;
        send->round_bytes += (uint64_t) n;
        send->moved_ms = loop_now_ms(loop);
    }
    tell_progress(send, send->moved_ms);
    loop_watch_fd(loop, send->fd, EPOLLIN | EPOLLOUT, send_ready, send);
}

static void send_finished(struct send *send)
{
    struct guest *guest = send->guest;
    uint64_t now_ms = loop_now_ms(guest->guests->loop);
    char text[200];
    struct guest_op op;

    snprintf(text, sizeof(text), "downtime_ms=%llu bytes=%llu rounds=%d tick=%llu digest=%016llx",
             (unsigned long long) (now_ms - send->held_ms), (unsigned long long) send->bytes,
             send->rounds, (unsigned long long) guest->tick,
             (unsigned long long) send->digest.value);
    op = guest_work_detach(guest);
    guest->work_state = send;
    send_drop(guest);
    guest->work_state = NULL;
    guest_release_files(guest, "sent");
    guest_set_state(guest, GUEST_SENT);
    guests_log("%s: moved: %s", guest->name, text);
    guests_answer(&op, 0, text);
}

/* What the receiver says: nothing before our STATE, then ACK; REFUSED at any time. */
static void send_answer(struct send *send)
{
    struct move_head head;
    uint32_t type, bytes;

    if (send->in_used < sizeof(head))
        return;
    memcpy(&head, send->in, sizeof(head));
    type = le32toh(head.type);
    bytes = le32toh(head.bytes);
    if (type == MOVE_REFUSED && bytes <= MOVE_TEXT_BYTES_MAX) {
        if (send->in_used >= sizeof(head) + bytes) {
            for (uint32_t i = 0; i < bytes; i++) /* the text goes into logs */
                if (send->in[sizeof(head) + i] < ' ' || send->in[sizeof(head) + i] > '~')
                    send->in[sizeof(head) + i] = '?';
            send_fail(send, "the receiver refused: %.*s", (int) bytes,
                      (const char *) send->in + sizeof(head));
        }
        return;
    }
    if (type != MOVE_ACK || bytes != ACK_WORDS * sizeof(uint64_t)) {
        send_fail(send, "the receiver sent something that is no answer");
        return;
    }
    if (send->in_used < sizeof(head) + bytes)
        return;
    if (send->phase != SEND_ACK || send->out_sent < send->out_used)
        send_fail(send, "the receiver confirmed what was not yet sent");
    else if (move_word(send->in + sizeof(head), ACK_DIGEST) != send->digest.value)
        send_fail(send, "the receiver confirmed another digest");
    else
        send_finished(send);
}

static void send_ready(void *arg, uint32_t events)
{
    struct send *send = arg;
    ssize_t n;

    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        n = read(send->fd, send->in + send->in_used, sizeof(send->in) - send->in_used);
        if (n > 0) {
            send->in_used += (size_t) n;
            send_answer(send); /* may be the end */
            return;
        }
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            send_fail(send, "the receiver closed the connection%s%s", n < 0 ? ": " : "",
                      n < 0 ? strerror(errno) : "");
            return;
        }
    }
    if (events & EPOLLOUT)
        send_turn(send);
}
