/* loop.c - the event loop of a core thread
 *
 * The mailbox is a list onto whose head senders push with one compare-and-swap; the loop takes all
 * of it with one exchange and turns it around. A sender writes to the eventfd only when the loop
 * has said that it is about to sleep, so a busy loop costs its senders no system call:
 *
 *   sender:  push the item;        then  was it asleep? -> wake
 *   loop:    say "I am asleep";    then  is there an item? -> do not sleep
 *
 * Both sides use sequentially consistent operations, so at least one of them sees the other. */
#include "shared/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* How many messages, and how many steps of the run queue, one round takes at most. At a few
 * microseconds each a timer is late by less than a millisecond. */
#define ROUND_MAX 128

#define EVENTS_MAX 64

/* The longest sleep. The kernel's timeouts stand still while the machine is suspended and
 * CLOCK_BOOTTIME does not: after a suspend the loop must soon notice that its deadlines have
 * passed. */
#define SLEEP_MAX_MS 1000

struct queue {
    struct loop_item *first, *last;
    size_t count;
};

struct watch {
    uint32_t generation; /* odd: watched. Tells events of an earlier use of the number apart */
    void (*fn)(void *arg, uint32_t events);
    void *arg;
};

struct counters {
    _Atomic uint64_t rounds, sleeps, items, deferred, timers, fd_events;
    _Atomic uint64_t timers_running, longest_step_us;
    _Atomic uint64_t fibers, fibers_most, fibers_spawned, fibers_refused;
};

struct loop {
    /* what other threads touch */
    _Atomic(struct loop_item *) mail; /* newest first; &mail_closed when the loop is gone */
    atomic_bool is_sleeping;          /* who sets it to false writes to the eventfd */
    atomic_bool is_stopping;
    atomic_uint holders; /* the owner and every loop_hold */
    _Atomic(pthread_t) owner;
    int wake_fd, epoll_fd;
    char padding[64]; /* a sender's cache line is not ours */

    /* the loop's own */
    struct clock *clock;
    struct queue inbox; /* taken from the mail, oldest first */
    struct queue ready; /* the run queue */
    struct timers timers;
    struct watch *watches; /* by descriptor */
    size_t watches_room, watched;
    uint64_t step_began_us;
    struct fibers *fibers;
    void (*fibers_destroy)(struct fibers *fibers);
    struct counters counters;
};

/* The event of the eventfd; no watch has all bits set. */
#define WAKE_EVENT UINT64_MAX

static struct loop_item mail_closed; /* only its address is used */

/* Only the loop's thread writes, so an addition need not be atomic; reading from elsewhere is. */
static void count(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more,
                          memory_order_relaxed);
}

static void note(_Atomic uint64_t *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

static void note_most(_Atomic uint64_t *counter, uint64_t value)
{
    if (value > atomic_load_explicit(counter, memory_order_relaxed))
        note(counter, value);
}

struct loop *loop_new(struct clock *clock)
{
    struct loop *loop = new0(struct loop);

    loop->clock = clock;
    loop->wake_fd = loop->epoll_fd = -1;
    atomic_store(&loop->holders, 1);
    atomic_store(&loop->owner, pthread_self());
    return loop;
}

/* Not before they are needed: a simulator makes thousands of loops that never sleep. */
static void open_fds(struct loop *loop)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE_EVENT};

    if (loop->epoll_fd >= 0)
        return;
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->wake_fd < 0 || loop->epoll_fd < 0
        || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0)
        die("cannot make an event loop: %s", strerror(errno));
}

struct loop *loop_hold(struct loop *loop)
{
    atomic_fetch_add(&loop->holders, 1);
    return loop;
}

void loop_release(struct loop *loop)
{
    if (atomic_fetch_sub(&loop->holders, 1) > 1)
        return;
    assert(atomic_load(&loop->mail) == &mail_closed);
    close_fd(&loop->wake_fd);
    free(loop);
}

struct clock *loop_clock(const struct loop *loop)
{
    return loop->clock;
}

uint64_t loop_now_ms(const struct loop *loop)
{
    return clock_now_ms(loop->clock);
}

bool loop_is_current(const struct loop *loop)
{
    return pthread_equal(atomic_load_explicit(&loop->owner, memory_order_relaxed), pthread_self());
}

/* --- mailbox --- */

static void queue_add(struct queue *queue, struct loop_item *item)
{
    item->next = NULL;
    if (queue->last)
        queue->last->next = item;
    else
        queue->first = item;
    queue->last = item;
    queue->count++;
}

static struct loop_item *queue_take(struct queue *queue)
{
    struct loop_item *item = queue->first;

    if (!item)
        return NULL;
    queue->first = item->next;
    if (!queue->first)
        queue->last = NULL;
    queue->count--;
    item->next = NULL;
    return item;
}

static void wake(struct loop *loop)
{
    uint64_t one = 1;

    if (!atomic_load(&loop->is_sleeping) || !atomic_exchange(&loop->is_sleeping, false))
        return;
    while (write(loop->wake_fd, &one, sizeof(one)) < 0)
        if (errno != EINTR)
            die("cannot wake an event loop: %s", strerror(errno));
}

bool loop_post(struct loop *loop, struct loop_item *item)
{
    struct loop_item *head = atomic_load(&loop->mail);

    assert(item->run);
    do {
        if (head == &mail_closed)
            return false;
        item->next = head;
    } while (!atomic_compare_exchange_weak(&loop->mail, &head, item));
    wake(loop);
    return true;
}

struct call_item {
    struct loop_item item;
    void (*fn)(void *arg);
    void *arg;
};

static void call_drop(struct loop_item *item)
{
    free(CONTAINER_OF(item, struct call_item, item));
}

static void call_run(struct loop_item *item)
{
    struct call_item call = *CONTAINER_OF(item, struct call_item, item);

    call_drop(item);
    call.fn(call.arg);
}

void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct call_item *call = new0(struct call_item);

    *call = (struct call_item){.item = {.run = call_run, .drop = call_drop}, .fn = fn, .arg = arg};
    if (!loop_post(loop, &call->item))
        free(call);
}

void loop_defer(struct loop *loop, struct loop_item *item)
{
    assert(loop_is_current(loop) && item->run);
    queue_add(&loop->ready, item);
}

/* Move what `mail` holds, newest first, to the end of the inbox, oldest first. */
static void inbox_fill(struct loop *loop, struct loop_item *mail)
{
    struct loop_item *oldest = NULL;

    while (mail) {
        struct loop_item *older = mail->next;

        mail->next = oldest;
        oldest = mail;
        mail = older;
    }
    while (oldest) {
        struct loop_item *newer = oldest->next;

        queue_add(&loop->inbox, oldest);
        oldest = newer;
    }
}

/* --- timers --- */

static void start_at_us(struct loop *loop, struct timer *timer, uint64_t due_us,
                        void (*fn)(void *arg), void *arg)
{
    assert(loop_is_current(loop));
    timer_stop(timer);
    timer->loop = loop;
    timer->due_us = due_us;
    timer->fn = fn;
    timer->arg = arg;
    timers_add(&loop->timers, timer);
    note(&loop->counters.timers_running, loop->timers.count);
}

void timer_start(struct loop *loop, struct timer *timer, uint64_t delay_ms, void (*fn)(void *arg),
                 void *arg)
{
    uint64_t now_us = clock_now_us(loop->clock), delay_us;

    if (__builtin_mul_overflow(delay_ms, 1000, &delay_us) || delay_us > UINT64_MAX - now_us)
        delay_us = UINT64_MAX - now_us;
    start_at_us(loop, timer, now_us + delay_us, fn, arg);
}

void timer_start_at(struct loop *loop, struct timer *timer, uint64_t due_ms, void (*fn)(void *arg),
                    void *arg)
{
    uint64_t due_us;

    if (__builtin_mul_overflow(due_ms, 1000, &due_us))
        due_us = UINT64_MAX;
    /* Never in the past: a timer that starts itself again would always be first, and the others
     * never run. */
    start_at_us(loop, timer, MAX(due_us, clock_now_us(loop->clock)), fn, arg);
}

void timer_stop(struct timer *timer)
{
    if (!timer_is_running(timer))
        return;
    assert(loop_is_current(timer->loop));
    timers_remove(&timer->loop->timers, timer);
    note(&timer->loop->counters.timers_running, timer->loop->timers.count);
}

uint64_t loop_next_timer_ms(const struct loop *loop)
{
    const struct timer *first = timers_first(&loop->timers);

    return first ? first->due_us / 1000 + (first->due_us % 1000 > 0) : UINT64_MAX;
}

/* --- file descriptors --- */

int loop_watch_fd(struct loop *loop, int fd, uint32_t events,
                  void (*fn)(void *arg, uint32_t events), void *arg)
{
    struct epoll_event event = {.events = events};
    struct watch *watch;
    bool is_watched;

    assert(loop_is_current(loop) && fd >= 0);
    open_fds(loop);
    if ((size_t) fd >= loop->watches_room) {
        size_t room = MAX((size_t) fd + 1, loop->watches_room * 2);

        loop->watches = realloc_array(loop->watches, room, sizeof(*loop->watches));
        memset(loop->watches + loop->watches_room, 0,
               (room - loop->watches_room) * sizeof(*loop->watches));
        loop->watches_room = room;
    }
    watch = &loop->watches[fd];
    is_watched = watch->generation % 2;
    event.data.u64 = (uint64_t) (watch->generation | 1) << 32 | (uint32_t) fd;
    if (epoll_ctl(loop->epoll_fd, is_watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    watch->generation |= 1;
    watch->fn = fn;
    watch->arg = arg;
    loop->watched += !is_watched;
    return 0;
}

void loop_unwatch_fd(struct loop *loop, int fd)
{
    assert(loop_is_current(loop));
    if (fd < 0 || (size_t) fd >= loop->watches_room || loop->watches[fd].generation % 2 == 0)
        return;
    loop->watches[fd].generation++;
    loop->watched--;
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL) < 0)
        die("descriptor %d was closed while the event loop watched it: %s", fd, strerror(errno));
}

/* --- running --- */

static void step_end(struct loop *loop)
{
    uint64_t now_us = clock_now_us(loop->clock);

    note_most(&loop->counters.longest_step_us, now_us - loop->step_began_us);
    loop->step_began_us = now_us;
}

static bool run_mail(struct loop *loop)
{
    struct loop_item *item;
    size_t ran = 0;

    if (atomic_load_explicit(&loop->mail, memory_order_relaxed))
        inbox_fill(loop, atomic_exchange(&loop->mail, NULL));
    while (ran < ROUND_MAX && (item = queue_take(&loop->inbox))) {
        item->run(item);
        step_end(loop);
        ran++;
    }
    count(&loop->counters.items, ran);
    return ran > 0;
}

/* Those due at the beginning; one that is started meanwhile waits for the next round, though it be
 * due. */
static bool run_timers(struct loop *loop)
{
    uint64_t now_us = loop->step_began_us, order_end = loop->timers.order_next;
    struct timer *timer;
    size_t ran = 0;

    while ((timer = timers_first(&loop->timers)) && timer->due_us <= now_us
           && timer->order < order_end) {
        timer_stop(timer);
        timer->fn(timer->arg);
        step_end(loop);
        ran++;
    }
    count(&loop->counters.timers, ran);
    return ran > 0;
}

static bool run_ready(struct loop *loop)
{
    size_t ran = 0, end = MIN(loop->ready.count, (size_t) ROUND_MAX);

    for (; ran < end; ran++) {
        struct loop_item *item = queue_take(&loop->ready);

        item->run(item);
        step_end(loop);
    }
    count(&loop->counters.deferred, ran);
    return ran > 0;
}

static void wake_event(struct loop *loop)
{
    uint64_t writes;

    while (read(loop->wake_fd, &writes, sizeof(writes)) < 0 && errno == EINTR)
        ;
}

static bool run_fds(struct loop *loop, int timeout_ms)
{
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(loop->epoll_fd, events, EVENTS_MAX, timeout_ms);
    size_t ran = 0;

    atomic_store(&loop->is_sleeping, false);
    if (n < 0 && errno != EINTR)
        die("epoll_wait fails: %s", strerror(errno));
    loop->step_began_us = clock_now_us(loop->clock); /* sleeping is no step */
    for (int i = 0; i < n; i++) {
        uint32_t fd = (uint32_t) events[i].data.u64;
        struct watch watch;

        if (events[i].data.u64 == WAKE_EVENT) {
            wake_event(loop);
            continue;
        }
        watch = loop->watches[fd];
        if (watch.generation != events[i].data.u64 >> 32)
            continue; /* unwatched by one of the callbacks before it */
        watch.fn(watch.arg, events[i].events);
        step_end(loop);
        ran++;
    }
    count(&loop->counters.fd_events, ran);
    return ran > 0;
}

bool loop_step(struct loop *loop)
{
    bool ran;

    atomic_store_explicit(&loop->owner, pthread_self(), memory_order_relaxed);
    count(&loop->counters.rounds, 1);
    loop->step_began_us = clock_now_us(loop->clock);
    ran = run_mail(loop);
    ran |= run_timers(loop);
    ran |= run_ready(loop);
    if (loop->watched > 0)
        ran |= run_fds(loop, 0);
    return ran;
}

static int sleep_ms(const struct loop *loop)
{
    const struct timer *first = timers_first(&loop->timers);
    uint64_t now_us = clock_now_us(loop->clock);

    if (!first)
        return -1;
    if (first->due_us <= now_us)
        return 0;
    return (int) MIN((first->due_us - now_us + 999) / 1000, (uint64_t) SLEEP_MAX_MS);
}

void loop_run(struct loop *loop)
{
    open_fds(loop);
    while (!atomic_exchange(&loop->is_stopping, false)) {
        if (loop_step(loop))
            continue;
        count(&loop->counters.sleeps, 1);
        atomic_store(&loop->is_sleeping, true);
        if (atomic_load(&loop->mail) || atomic_load(&loop->is_stopping))
            atomic_store(&loop->is_sleeping, false);
        else
            run_fds(loop, sleep_ms(loop));
    }
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->is_stopping, true);
    wake(loop);
}

static void drop_all(struct queue *queue)
{
    struct loop_item *item;

    while ((item = queue_take(queue)))
        if (item->drop)
            item->drop(item);
}

void loop_destroy(struct loop **loop_p)
{
    struct loop *loop = TAKE(*loop_p);

    if (!loop)
        return;
    /* Messages and timers first: they may lie on the stacks of fibers. */
    inbox_fill(loop, atomic_exchange(&loop->mail, &mail_closed));
    drop_all(&loop->inbox);
    drop_all(&loop->ready);
    timers_done(&loop->timers);
    if (loop->fibers_destroy)
        loop->fibers_destroy(TAKE(loop->fibers));
    free(loop->watches);
    close_fd(&loop->epoll_fd);
    loop_release(loop);
}

/* --- counters, and what fiber.c needs --- */

void loop_counters_read(const struct loop *loop, struct loop_counters *ret_counters)
{
    const struct counters *c = &loop->counters;

#define READ(name) .name = atomic_load_explicit(&c->name, memory_order_relaxed)
    *ret_counters = (struct loop_counters){
        READ(rounds), READ(sleeps),      READ(items),          READ(deferred),
        READ(timers), READ(fd_events),   READ(timers_running), READ(longest_step_us),
        READ(fibers), READ(fibers_most), READ(fibers_spawned), READ(fibers_refused),
    };
#undef READ
}

struct fibers *loop_fibers(const struct loop *loop)
{
    return loop->fibers;
}

void loop_set_fibers(struct loop *loop, struct fibers *fibers,
                     void (*destroy)(struct fibers *fibers))
{
    assert(!loop->fibers);
    loop->fibers = fibers;
    loop->fibers_destroy = destroy;
}

void loop_count_fibers(struct loop *loop, uint64_t now, uint64_t spawned, uint64_t refused)
{
    note(&loop->counters.fibers, now);
    note_most(&loop->counters.fibers_most, now);
    count(&loop->counters.fibers_spawned, spawned);
    count(&loop->counters.fibers_refused, refused);
}
