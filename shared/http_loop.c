/* http_loop.c - threads, mailboxes, tickets, turns and deadlines
 *
 * Each loop is one thread with an event base that nobody else touches. Others reach it through its
 * mailbox: a stack that any thread pushes on with one compare-and-swap and the loop takes whole.
 * Only a push on the empty stack wakes the loop, so a burst costs one wake.
 *
 * Deadlines sit on a wheel that turns only while there are any. Most are put off before they come
 * due, so a connection stays where it was put and is looked at when its slot passes: a request
 * costs no timer. */
#include "shared/http_internal.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static _Thread_local struct http_loop *here;

struct http_loop *http_loop_here(void)
{
    return here;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- mailbox and tickets --------------------------------------------------------------------- */

static void mailbox_push(struct http_loop *loop, struct message *message)
{
    struct message *head = atomic_load_explicit(&loop->mailbox, memory_order_relaxed);
    uint64_t one = 1;

    do
        message->next = head;
    while (!atomic_compare_exchange_weak_explicit(&loop->mailbox, &head, message,
                                                  memory_order_release, memory_order_relaxed));
    /* The descriptor does not block, and full it would be readable anyway. */
    if (!head && write(loop->wake_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        die("eventfd: %s", strerror(errno));
}

void http_loop_post(struct http_loop *loop, void (*fn)(void *), void *arg)
{
    struct message *message = new0(struct message);

    message->fn = fn;
    message->arg = arg;
    mailbox_push(loop, message);
}

void http_loop_post_ticket(struct http_ticket ticket, void (*fn)(struct http_request *, void *),
                           void *arg, bool even_if_answered)
{
    struct message *message = new0(struct message);

    message->on_request = fn;
    message->arg = arg;
    message->ticket = ticket;
    message->even_if_answered = even_if_answered;
    mailbox_push(ticket.loop, message);
}

void http_ticket_post(struct http_ticket ticket, void (*fn)(struct http_request *, void *),
                      void *arg)
{
    http_loop_post_ticket(ticket, fn, arg, false);
}

/* The connection whose present request the ticket means, or NULL. */
static struct connection *ticket_find(const struct http_loop *loop, const struct message *message)
{
    const struct http_ticket *ticket = &message->ticket;
    struct connection *conn =
        ticket->slot < loop->slot_count ? loop->slots[ticket->slot].connection : NULL;

    if (!conn || conn->is_dead || !conn->exchange
        || conn->exchange->generation != ticket->generation)
        return NULL;
    if (conn->exchange->answer != ANSWER_NONE && !message->even_if_answered)
        return NULL;
    return conn;
}

static void message_run(struct http_loop *loop, struct message *message)
{
    struct connection *conn;

    if (message->fn)
        message->fn(message->arg);
    else if ((conn = ticket_find(loop, message))) {
        http_connection_enter(conn);
        message->on_request(&conn->exchange->request, message->arg);
        http_connection_leave(conn);
    } else
        message->on_request(NULL, message->arg);
    free(message);
}

static void mailbox_run(struct http_loop *loop)
{
    struct message *newest = atomic_exchange_explicit(&loop->mailbox, NULL, memory_order_acquire);
    struct message *oldest = NULL;

    while (newest) {
        struct message *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct message *message = oldest;

        oldest = message->next;
        message_run(loop, message);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void) fd; /* edge-triggered: each write is an edge, nobody needs to read it back */
    (void) what;
    mailbox_run(arg);
}

void http_loop_slot_take(struct connection *conn)
{
    struct http_loop *loop = conn->loop;

    if (loop->slot_free == loop->slot_count) {
        uint32_t count = loop->slot_count ? loop->slot_count * 2 : 64;

        loop->slots = realloc_array(loop->slots, count, sizeof *loop->slots);
        for (uint32_t i = loop->slot_count; i < count; i++)
            loop->slots[i] = (struct slot){.next_free = i + 1};
        loop->slot_count = count;
    }
    conn->slot = loop->slot_free;
    loop->slot_free = loop->slots[conn->slot].next_free;
    loop->slots[conn->slot].connection = conn;
}

void http_loop_slot_free(struct connection *conn)
{
    struct http_loop *loop = conn->loop;

    loop->slots[conn->slot] = (struct slot){.next_free = loop->slot_free};
    loop->slot_free = conn->slot;
}

/* --- turns ----------------------------------------------------------------------------------- */

void http_loop_schedule(struct connection *conn)
{
    static const struct timeval next_round; /* after the sockets were asked again */
    struct http_loop *loop = conn->loop;

    if (conn->is_scheduled)
        return;
    if (TAILQ_EMPTY(&loop->turns))
        event_add(&loop->turn_event, &next_round);
    conn->is_scheduled = true;
    TAILQ_INSERT_TAIL(&loop->turns, conn, turn);
    loop->turn_count++;
}

void http_loop_unschedule(struct connection *conn)
{
    if (conn->is_scheduled) {
        TAILQ_REMOVE(&conn->loop->turns, conn, turn);
        conn->loop->turn_count--;
    }
    conn->is_scheduled = false;
}

/* One turn for each that waits; who wants another queues behind them for the next round. */
static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval next_round;
    struct http_loop *loop = arg;
    struct connection *conn;

    (void) fd;
    (void) what;
    for (unsigned count = loop->turn_count; count > 0 && (conn = TAILQ_FIRST(&loop->turns));
         count--) {
        http_loop_unschedule(conn);
        http_connection_run(conn);
    }
    if (!TAILQ_EMPTY(&loop->turns))
        event_add(&loop->turn_event, &next_round);
}

/* --- deadlines ------------------------------------------------------------------------------- */

/* Behind a unix socket there may be another server that passes the bytes on, to a slow client. What
 * that one and the socket hold moves in gulps of this many windows' least bytes. */
#define UNIX_WINDOWS 16

static int deadline_ms(const struct connection *conn, enum deadline deadline)
{
    const struct http_config *config = &conn->loop->server->config;

    switch (deadline) {
    case DEADLINE_HANDSHAKE:
        return config->handshake_ms;
    case DEADLINE_HEAD:
        return config->head_ms;
    case DEADLINE_IDLE:
        return config->idle_ms;
    case DEADLINE_BODY:
        return config->body_ms;
    case DEADLINE_RATE:
        return config->rate_window_ms * (conn->peer.is_unix ? UNIX_WINDOWS : 1);
    case DEADLINE_SILENCE:
        return conn->exchange->silence_ms;
    case DEADLINE_LINGER:
        return config->linger_ms;
    case DEADLINE_NONE:
        break;
    }
    return 0;
}

/* Put it where the wheel comes by at its deadline, or a turn of the wheel from now to look again.
 */
static void wheel_insert(struct connection *conn)
{
    struct http_loop *loop = conn->loop;
    int64_t tick = conn->deadline_ms / loop->tick_ms + 1;

    tick = MIN(tick, loop->wheel_tick + HTTP_WHEEL_SLOTS - 1);
    tick = MAX(tick, loop->wheel_tick + 1);
    conn->wheel_ms = tick * loop->tick_ms;
    LIST_INSERT_HEAD(&loop->wheel[tick % HTTP_WHEEL_SLOTS], conn, wheel);
    loop->wheel_count++;
}

void http_loop_forget_deadline(struct connection *conn)
{
    if (conn->wheel_ms) {
        LIST_REMOVE(conn, wheel);
        conn->loop->wheel_count--;
    }
    conn->wheel_ms = 0;
    conn->deadline_ms = 0;
}

/* Deadlines are absolute: saying the same again does not put it off. */
void http_loop_set_deadline(struct connection *conn, enum deadline deadline)
{
    struct http_loop *loop = conn->loop;

    if (conn->deadline == deadline)
        return;
    conn->deadline = deadline;
    conn->moved_bytes = 0;
    if (deadline == DEADLINE_NONE) {
        conn->deadline_ms = 0; /* the wheel drops it when it comes by */
        return;
    }
    conn->deadline_ms = now_ms() + deadline_ms(conn, deadline);
    if (conn->wheel_ms && conn->wheel_ms <= conn->deadline_ms)
        return;
    if (conn->wheel_ms) {
        LIST_REMOVE(conn, wheel);
        loop->wheel_count--;
    }
    if (loop->wheel_count == 0) {
        struct timeval tick = {.tv_sec = loop->tick_ms / 1000,
                               .tv_usec = loop->tick_ms % 1000 * 1000};

        loop->wheel_tick = now_ms() / loop->tick_ms;
        event_add(&loop->tick_event, &tick);
    }
    wheel_insert(conn);
}

static void wheel_turn(struct http_loop *loop, int64_t tick, int64_t time_ms)
{
    LIST_HEAD(, connection) due;
    struct connection *conn;

    /* Taken off first: what is put back may belong into the same slot, a turn later. */
    LIST_INIT(&due);
    while ((conn = LIST_FIRST(&loop->wheel[tick % HTTP_WHEEL_SLOTS]))) {
        LIST_REMOVE(conn, wheel);
        LIST_INSERT_HEAD(&due, conn, wheel);
    }
    while ((conn = LIST_FIRST(&due))) {
        LIST_REMOVE(conn, wheel);
        loop->wheel_count--;
        conn->wheel_ms = 0;
        if (conn->deadline_ms && conn->deadline_ms > time_ms)
            wheel_insert(conn);
        else if (conn->deadline_ms)
            http_connection_expired(conn);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct http_loop *loop = arg;
    int64_t time_ms = now_ms();
    int64_t tick = time_ms / loop->tick_ms;

    (void) fd;
    (void) what;
    if (tick - loop->wheel_tick > HTTP_WHEEL_SLOTS) /* we slept: once around sees all */
        loop->wheel_tick = tick - HTTP_WHEEL_SLOTS;
    while (loop->wheel_tick < tick)
        wheel_turn(loop, ++loop->wheel_tick, time_ms);
    if (loop->wheel_count == 0)
        event_del(&loop->tick_event);
}

/* A fine tick only where a test has short deadlines. */
static int tick_ms(const struct http_config *config)
{
    int shortest_ms = config->linger_ms;

    shortest_ms = MIN(shortest_ms, config->handshake_ms);
    shortest_ms = MIN(shortest_ms, config->head_ms);
    shortest_ms = MIN(shortest_ms, config->body_ms);
    shortest_ms = MIN(shortest_ms, config->idle_ms);
    shortest_ms = MIN(shortest_ms, config->rate_window_ms);
    return MAX(10, MIN(250, shortest_ms / 8));
}

/* --- the thread ------------------------------------------------------------------------------ */

int http_loop_init(struct http_loop *loop, struct http_server *server)
{
    struct event_config *config = event_config_new();

    *loop = (struct http_loop){.server = server, .wake_fd = -1};
    TAILQ_INIT(&loop->turns);
    LIST_INIT(&loop->relays);
    loop->tick_ms = tick_ms(&server->config);
    loop->scratch = alloc0(HTTP_READ_BYTES);
    loop->produced = evbuffer_new();

    event_config_require_features(config, EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE);
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
    loop->base = event_base_new_with_config(config);
    event_config_free(config);
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!loop->base || !loop->produced || loop->wake_fd < 0)
        return errno ? -errno : -ENOMEM;

    event_assign(&loop->wake_event, loop->base, loop->wake_fd, EV_READ | EV_PERSIST | EV_ET,
                 on_wake, loop);
    event_assign(&loop->turn_event, loop->base, -1, 0, on_turn, loop);
    event_assign(&loop->tick_event, loop->base, -1, EV_PERSIST, on_tick, loop);
    return event_add(&loop->wake_event, NULL) < 0 ? -EIO : 0;
}

static void *loop_main(void *arg)
{
    struct http_loop *loop = arg;
    const struct http_config *config = &loop->server->config;
    sigset_t all;

    sigfillset(&all); /* signals are for the main thread; a broken pipe is an error code to us */
    pthread_sigmask(SIG_BLOCK, &all, NULL);

    here = loop;
    if (config->loop_start)
        config->loop_start(loop, config->arg);
    event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);

    for (uint32_t i = 0; i < loop->slot_count; i++) {
        struct connection *conn = loop->slots[i].connection;

        if (conn) {
            conn->is_cut = true;
            http_connection_kill(conn);
        }
    }
    http_relay_end_all(loop);
    if (config->loop_stop)
        config->loop_stop(loop, config->arg);
    return NULL;
}

int http_loop_start(struct http_loop *loop)
{
    int error = pthread_create(&loop->thread, NULL, loop_main, loop);

    loop->is_running = error == 0;
    return -error;
}

static void loop_break(void *arg)
{
    event_base_loopbreak(((struct http_loop *) arg)->base);
}

void http_loop_stop(struct http_loop *loop)
{
    if (loop->is_running) {
        http_loop_post(loop, loop_break, loop);
        pthread_join(loop->thread, NULL);
        loop->is_running = false;
    }
    loop->is_over = true;
    mailbox_run(loop); /* no connection is left: tickets hear NULL */
}

void http_loop_done(struct http_loop *loop)
{
    mailbox_run(loop); /* what the others' ends have posted */
    while (loop->spare_count > 0)
        free(loop->spare[--loop->spare_count]);
    if (loop->base) {
        event_del(&loop->wake_event);
        event_del(&loop->turn_event);
        event_del(&loop->tick_event);
        event_base_free(loop->base);
    }
    close_fd(&loop->wake_fd);
    if (loop->produced)
        evbuffer_free(loop->produced);
    free(loop->slots);
    free(loop->scratch);
}

struct event_base *http_loop_base(struct http_loop *loop)
{
    return loop->base;
}

void *http_loop_user(const struct http_loop *loop)
{
    return loop->user;
}

void http_loop_set_user(struct http_loop *loop, void *user)
{
    loop->user = user;
}
