/* mirror.c - the thread that keeps Redis in step
 *
 * Each round of the thread, while connected:
 *
 *   1. pin the newest visible view, generation v
 *   2. take the queued redo entries up to v
 *   3. write them with the records, as v has them, of the objects that they touch
 *
 * Records are taken from the view, so an object that changed a hundred times since the last round
 * is written once. Since entries and view end at the same generation, log and records agree after
 * every write.
 *
 * What Redis has is never assumed: each answer of the script tells it, and so does a beat every
 * second. When it is not what our queue follows - Redis was emptied, restored from an old copy, or
 * was away for longer than the queue holds - the model is written anew under a new incarnation.
 * When the connection breaks the outcome of the last write is unknown; the next answer tells it. */
#include "master/mirror_internal.h"

#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/clock.h"
#include "shared/log.h"
#include "shared/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#define QUEUE_BYTES_MAX (64 << 20)
#define LOG_ENTRIES     100000
#define ANEW_WAIT_MS    10
#define BEAT_MS         1000
#define RETRY_MS_MIN    100
#define RETRY_MS_MAX    2000

/* ---- the queue (core thread) ---- */

static void entry_free(struct entry *entry)
{
    free(entry->bytes);
    free(entry);
}

/* Drops what waits: the next round writes the model anew. With the mutex held. */
static void queue_drop(struct mirror *mirror)
{
    while (mirror->first) {
        struct entry *entry = mirror->first;

        mirror->first = entry->next;
        mirror->before = entry->generation;
        entry_free(entry);
    }
    mirror->last = &mirror->first;
    mirror->queue_bytes = 0;
    mirror->figures.waiting = 0;
}

static void append(struct store_sink *sink, const struct changes *changes)
{
    struct mirror *mirror = CONTAINER_OF(sink, struct mirror, sink);
    _cleanup_(arena_destroy) struct arena *arena = NULL;
    struct buffer bytes;
    struct entry *entry;

    if (!changes->is_durable)
        return;
    arena = arena_new();
    buffer_init(&bytes, RECORD_BYTES_MAX);
    mirror_encode(mirror, changes, arena, &bytes);
    entry = alloc0(sizeof *entry + (size_t) changes->count * sizeof entry->touched[0]);
    entry->generation = changes->generation;
    entry->follows = changes->follows;
    for (int i = 0; i < changes->count; i++)
        if (changes->list[i].class->flags & CLASS_PERSIST && changes->list[i].kind != CHANGE_TOUCH)
            entry->touched[entry->touched_count++] =
                (struct touched){changes->list[i].class, changes->list[i].ref};
    entry->bytes = buffer_take(&bytes, &entry->length);
    buffer_done(&bytes);

    pthread_mutex_lock(&mirror->mutex);
    *mirror->last = entry;
    mirror->last = &entry->next;
    mirror->queue_bytes += entry->length + sizeof *entry;
    mirror->figures.waiting++;
    if (mirror->queue_bytes > (size_t) mirror->config.queue_bytes_max)
        queue_drop(mirror);
    pthread_mutex_unlock(&mirror->mutex);
}

/* ---- states ---- */

struct telling {
    mirror_told told;
    void *arg;
    enum mirror_state state;
    char text[512];
};

static void tell(void *arg)
{
    struct telling *telling = arg;

    telling->told(telling->arg, telling->state, telling->text);
    free(telling);
}

static void set_state(struct mirror *mirror, enum mirror_state state, const char *text)
{
    struct telling *telling;
    bool is_new;

    pthread_mutex_lock(&mirror->mutex);
    is_new = mirror->figures.state != state || mirror->figures.state_since_ms == 0;
    mirror->figures.state = state;
    if (is_new)
        mirror->figures.state_since_ms = clock_real()->now_ms(clock_real());
    pthread_mutex_unlock(&mirror->mutex);
    if (!is_new)
        return;
    if (state == MIRROR_AWAY || state == MIRROR_SUPERSEDED)
        log_warning("mirror", "%s", text);
    else
        log_info("mirror", "%s", text);
    if (!mirror->told)
        return;
    telling = new0(struct telling);
    telling->told = mirror->told;
    telling->arg = mirror->told_arg;
    telling->state = state;
    snprintf(telling->text, sizeof telling->text, "%s", text);
    loop_call(mirror->loop, tell, telling);
}

void mirror_has_generation(struct mirror *mirror, uint64_t generation)
{
    pthread_mutex_lock(&mirror->mutex);
    mirror->figures.generation = generation;
    pthread_mutex_unlock(&mirror->mutex);
}

/* ---- writing (mirror thread) ---- */

/* Take the entries up to a generation off the queue; NULL when there are none. */
static struct entry *queue_take(struct mirror *mirror, uint64_t generation)
{
    struct entry *first = NULL, **end = &first;

    pthread_mutex_lock(&mirror->mutex);
    while (mirror->first && mirror->first->generation <= generation) {
        struct entry *entry = mirror->first;

        mirror->first = entry->next;
        mirror->queue_bytes -= entry->length + sizeof *entry;
        mirror->figures.waiting--;
        mirror->before = entry->generation;
        entry->next = NULL;
        *end = entry;
        end = &entry->next;
    }
    if (!mirror->first)
        mirror->last = &mirror->first;
    pthread_mutex_unlock(&mirror->mutex);
    return first;
}

static void entries_free(struct entry *first)
{
    while (first) {
        struct entry *next = first->next;

        entry_free(first);
        first = next;
    }
}

/* Back to the front of the queue: whether they were written will be told by what Redis has. When
 * the queue was dropped meanwhile nothing follows them any more. */
static void queue_return(struct mirror *mirror, struct entry *first)
{
    struct entry *last = first;
    size_t bytes = 0;
    uint64_t count = 0;

    for (struct entry *entry = first; entry; entry = entry->next) {
        last = entry;
        bytes += entry->length + sizeof *entry;
        count++;
    }
    pthread_mutex_lock(&mirror->mutex);
    if (mirror->before != last->generation) {
        pthread_mutex_unlock(&mirror->mutex);
        mirror->must_write_anew = true;
        entries_free(first);
        return;
    }
    mirror->before = first->follows;
    mirror->queue_bytes += bytes;
    mirror->figures.waiting += count;
    if (!mirror->first)
        mirror->last = &last->next;
    last->next = mirror->first;
    mirror->first = first;
    pthread_mutex_unlock(&mirror->mutex);
}

/* One round: everything visible in one write, since the records are as the view's generation has
 * them. What waits is bounded by the queue's limit. */
static int write_visible(struct mirror *mirror)
{
    _cleanup_(view_unpin) struct view *view = store_pin(mirror->store);
    struct entry *entries = queue_take(mirror, view_generation(view));
    int r;

    if (!entries)
        return 0;
    r = mirror_write_entries(mirror, entries, view);
    if (r < 0)
        queue_return(mirror, entries);
    else
        entries_free(entries);
    return r;
}

/* The whole model. Entries that were dropped may belong to generations that are not visible yet:
 * then later. */
static int write_anew(struct mirror *mirror)
{
    _cleanup_(view_unpin) struct view *view = store_pin(mirror->store);
    uint64_t generation;
    int r;

    entries_free(queue_take(mirror, view_generation(view)));
    pthread_mutex_lock(&mirror->mutex);
    generation = mirror->before;
    pthread_mutex_unlock(&mirror->mutex);
    if (generation > view_generation(view))
        return 0;
    r = mirror_write_model(mirror, view, generation);
    if (r < 0)
        return r;
    mirror->must_write_anew = false;
    mirror_has_generation(mirror, generation);
    pthread_mutex_lock(&mirror->mutex);
    mirror->figures.incarnations++;
    pthread_mutex_unlock(&mirror->mutex);
    return 0;
}

/* Redis says what it has: drop what it has already, or see that nothing follows it and the model
 * must be written anew. */
static void compare(struct mirror *mirror, const struct mirror_head *head)
{
    bool follows;

    pthread_mutex_lock(&mirror->mutex);
    while (mirror->first && mirror->first->generation <= head->generation
           && head->generation != mirror->first->follows) {
        struct entry *entry = mirror->first;

        mirror->first = entry->next;
        if (!mirror->first)
            mirror->last = &mirror->first;
        mirror->queue_bytes -= entry->length + sizeof *entry;
        mirror->figures.waiting--;
        mirror->before = entry->generation;
        entry_free(entry);
    }
    follows = head->incarnation[0] && head->generation == mirror->before;
    mirror->figures.generation = head->generation;
    pthread_mutex_unlock(&mirror->mutex);
    if (!follows)
        mirror->must_write_anew = true;
}

/* ---- the thread ---- */

static int connect_and_claim(struct mirror *mirror)
{
    struct mirror_answer answer;
    int r;

    mirror->redis = mirror_redis_open(&mirror->config, mirror->text, sizeof mirror->text);
    if (!mirror->redis)
        return -EIO;
    r = mirror_verb(mirror, "claim", NULL, &answer);
    if (r < 0)
        return r;
    compare(mirror, &answer.head);
    set_state(mirror, MIRROR_CATCHING_UP, "Redis answers; bringing the mirror up to date");
    return 0;
}

static int beat(struct mirror *mirror)
{
    struct mirror_answer answer;
    int r = mirror_verb(mirror, "beat", NULL, &answer);

    if (r < 0)
        return r;
    if (answer.word != MIRROR_OK) {
        mirror->must_write_anew = true;
        return 0;
    }
    compare(mirror, &answer.head);
    if (mirror->must_write_anew)
        log_warning("mirror",
                    "Redis has generation %" PRIu64
                    ", which is not what was written: emptied or restored?",
                    answer.head.generation);
    return 0;
}

/* Something to write, and visible? With the mutex held. */
static bool has_work(struct mirror *mirror)
{
    return mirror->first && mirror->first->generation <= store_visible(mirror->store);
}

static bool must_stop(struct mirror *mirror)
{
    return mirror->stop_at_ms
           && (!mirror->first || clock_real()->now_ms(clock_real()) >= mirror->stop_at_ms);
}

static void wait_on(struct mirror *mirror, uint64_t ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t) (ms / 1000);
    until.tv_nsec += (long) (ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&mirror->wake, &mirror->mutex, &until);
}

static int step(struct mirror *mirror)
{
    int r;

    if (!mirror->redis) {
        r = connect_and_claim(mirror);
        if (r < 0)
            return r;
    }
    if (mirror->must_write_anew) {
        r = write_anew(mirror);
        if (r < 0)
            return r;
    }
    r = write_visible(mirror);
    if (r == 0 && !mirror->must_write_anew)
        set_state(mirror, MIRROR_IN_STEP, "the mirror in Redis is in step");
    return r;
}

static void *run(void *arg)
{
    struct mirror *mirror = arg;
    uint64_t retry_ms = RETRY_MS_MIN, beat_at_ms = 0;
    sigset_t signals;

    /* Signals are the main thread's; hiredis writes to sockets that may be closed. */
    sigfillset(&signals);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    for (;;) {
        uint64_t now_ms = clock_real()->now_ms(clock_real());
        bool stops;
        int r = step(mirror);

        if (r == 0 && now_ms >= beat_at_ms) {
            r = beat(mirror);
            beat_at_ms = now_ms + BEAT_MS;
        }
        if (r < 0) {
            mirror_redis_close(&mirror->redis);
            set_state(mirror, r == -ESTALE ? MIRROR_SUPERSEDED : MIRROR_AWAY, mirror->text);
        }

        pthread_mutex_lock(&mirror->mutex);
        if (r < 0) {
            if (!must_stop(mirror))
                wait_on(mirror, retry_ms);
            retry_ms = MIN(2 * retry_ms, (uint64_t) RETRY_MS_MAX);
        } else {
            retry_ms = RETRY_MS_MIN;
            if (!has_work(mirror) && !must_stop(mirror))
                wait_on(mirror, mirror->must_write_anew ? ANEW_WAIT_MS : BEAT_MS);
        }
        stops = must_stop(mirror) || (mirror->stop_at_ms && r < 0);
        pthread_mutex_unlock(&mirror->mutex);
        if (stops)
            return NULL;
    }
}

/* Told by the store after each step of visibility (core thread). */
static void visible(struct store_listener *listener, uint64_t generation,
                    const uint64_t class_mask[2])
{
    struct mirror *mirror = CONTAINER_OF(listener, struct mirror, listener);

    (void) generation;
    (void) class_mask;
    pthread_mutex_lock(&mirror->mutex);
    if (mirror->first)
        pthread_cond_signal(&mirror->wake);
    pthread_mutex_unlock(&mirror->mutex);
}

struct mirror *mirror_new(const struct mirror_config *config, struct store *store,
                          struct loop *loop, uint64_t epoch, ref_t holder, uint64_t mirrored,
                          mirror_told told, void *arg)
{
    struct mirror *mirror = new0(struct mirror);
    pthread_condattr_t monotonic;

    mirror->config = *config;
    mirror->config.address = dup_text(config->address);
    mirror->config.user = config->user ? dup_text(config->user) : NULL;
    mirror->config.password = config->password ? dup_text(config->password) : NULL;
    if (config->secret_key) {
        memcpy(mirror->secret_key, config->secret_key, SECRET_KEY_BYTES);
        mirror->config.secret_key = mirror->secret_key;
    }
    if (!mirror->config.queue_bytes_max)
        mirror->config.queue_bytes_max = QUEUE_BYTES_MAX;
    if (!mirror->config.log_entries)
        mirror->config.log_entries = LOG_ENTRIES;
    mirror->sink = (struct store_sink){.name = "redis", .append = append};
    mirror->store = store;
    mirror->loop = loop;
    mirror->epoch = epoch;
    mirror->holder = holder;
    mirror->told = told;
    mirror->told_arg = arg;
    mirror->before = mirrored;
    mirror->last = &mirror->first;
    pthread_mutex_init(&mirror->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&mirror->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    store_add_sink(store, &mirror->sink);
    mirror->listener.visible = visible;
    store_add_listener(store, &mirror->listener);
    if (pthread_create(&mirror->thread, NULL, run, mirror) != 0)
        die("mirror: no thread: %s", strerror(errno));
    return mirror;
}

struct store_sink *mirror_sink(struct mirror *mirror)
{
    return &mirror->sink;
}

void mirror_figures(struct mirror *mirror, struct mirror_figures *ret)
{
    pthread_mutex_lock(&mirror->mutex);
    *ret = mirror->figures;
    pthread_mutex_unlock(&mirror->mutex);
}

void mirror_destroy(struct mirror **mirror_p, uint64_t wait_ms)
{
    struct mirror *mirror = *mirror_p;

    if (!mirror)
        return;
    store_remove_listener(mirror->store, &mirror->listener);
    pthread_mutex_lock(&mirror->mutex);
    mirror->stop_at_ms = clock_real()->now_ms(clock_real()) + wait_ms;
    pthread_cond_signal(&mirror->wake);
    pthread_mutex_unlock(&mirror->mutex);
    pthread_join(mirror->thread, NULL);

    queue_drop(mirror);
    mirror_redis_close(&mirror->redis);
    pthread_mutex_destroy(&mirror->mutex);
    pthread_cond_destroy(&mirror->wake);
    free((char *) mirror->config.address);
    free((char *) mirror->config.user);
    free((char *) mirror->config.password);
    OPENSSL_cleanse(mirror->secret_key, sizeof mirror->secret_key);
    free(mirror);
    *mirror_p = NULL;
}
