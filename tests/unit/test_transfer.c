/* test_transfer.c - transfer_pipe.c, transfer_upload.c, transfer_rate.c and transfer_places.c: codecs at either end of real sockets
 *
 * A codec is a thread that writes or reads a pattern, byte i being i % 251. Requests are let through to it by the handler, as
 * transfer.c does. */
#include "shared/http.h"
#include "slave/transfer_pipe.h"
#include "slave/transfer_places.h"
#include "slave/transfer_rate.h"
#include "slave/transfer_upload.h"
#include "tests/raw_http.h"

#include <pthread.h>
#include <stdatomic.h>

#define MIB    ((size_t) 1 << 20)
#define BINARY "content-type: application/octet-stream\r\n"

/* One request and the codec behind it. The test looks at what the codec ended with when it has joined the thread. */
struct work {
    struct http_ticket ticket;
    pthread_t thread;
    int64_t bytes;        /* that an export writes */
    int64_t length;       /* that its answer names, or HTTP_LENGTH_UNKNOWN */
    int fails;            /* an export ends with this */
    size_t stops_after;   /* an import reads no more then; 0: all */
    bool is_open_ended;
    struct transfer_rate *rate;
    struct place place;   /* without places: none is needed */

    struct transfer_figures figures;
    _Atomic bool is_cancelled;
    _Atomic(struct pipe *) pipe;
    struct http_upload *upload;
    _Atomic size_t done;  /* bytes that the codec has passed */
    size_t wrong;
    int result;
    int result_again;     /* of an import's next read after one that failed */
    atomic_bool has_begun;
};

/* The codec works when it has a place, where the test has some. */
static struct place *begin_work(struct work *w)
{
    w->place.is_cancelled = &w->is_cancelled;
    if (!w->place.places)
        return NULL;
    assert(place_take(&w->place) == 0);
    return &w->place;
}

static void end_work(struct work *w)
{
    if (w->place.places)
        place_give(&w->place);
}

static struct http_server *server;
static uint16_t port;
static struct work *work; /* of the test that runs */

/* ---- exports ---- */

static void *export_thread(void *arg)
{
    struct work *w = arg;
    struct pipe *pipe = pipe_new(w->ticket, &w->figures, w->rate, begin_work(w));
    char piece[10000];
    int r = 0;

    atomic_store(&w->pipe, pipe);
    pipe_begin(pipe, 200, BINARY, w->length);
    while (r == 0 && (int64_t) w->done < w->bytes) {
        size_t count = MIN(sizeof piece, (size_t) w->bytes - w->done);

        for (size_t i = 0; i < count; i++)
            piece[i] = (char) ((w->done + i) % 251);
        r = pipe_sink(pipe)->write(pipe_sink(pipe), piece, count);
        if (r == 0)
            w->done += count;
    }
    if (r == 0)
        r = w->fails;
    w->result = pipe_end(pipe, r);
    end_work(w);
    pipe_unref(&pipe);
    return NULL;
}

/* ---- imports ---- */

static void nobody(struct http_upload *upload, void *arg)
{
    (void) upload;
    (void) arg;
}

static void answer(struct http_request *request, void *arg)
{
    (void) arg;
    if (request)
        http_reply_text(request, 200, BINARY, "done");
}

static void *import_thread(void *arg)
{
    struct work *w = arg;
    struct upload_source *upload =
        upload_source_new(w->upload, w->is_open_ended, &w->is_cancelled, &w->figures, w->rate, begin_work(w));
    struct source *source = upload_source_of(upload);
    const void *bytes = NULL;
    ssize_t n = 1;

    while ((w->stops_after == 0 || w->done < w->stops_after) && (n = source->read(source, &bytes)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            w->wrong += ((const char *) bytes)[i] != (char) ((w->done + (size_t) i) % 251);
        w->done += (size_t) n;
    }
    w->result = (int) MIN(n, 0);
    if (n < 0)
        w->result_again = (int) source->read(source, &bytes);
    upload_source_destroy(&upload);
    end_work(w);
    http_ticket_post(w->ticket, answer, NULL);
    return NULL;
}

static void handle(struct http_request *request, void *arg)
{
    (void) arg;
    work->ticket = http_park(request, NULL, NULL);
    if (request->method == HTTP_PUT)
        work->upload = http_consume(request, 100000, nobody, NULL);
    assert(pthread_create(&work->thread, NULL, request->method == HTTP_PUT ? import_thread : export_thread, work) == 0);
    atomic_store(&work->has_begun, true);
}

/* ---- tests ---- */

static int begin(void **state)
{
    (void) state;
    work = new0(struct work);
    work->length = HTTP_LENGTH_UNKNOWN;
    return 0;
}

static int end(void **state)
{
    (void) state;
    transfer_rate_destroy(&work->rate);
    places_destroy(&work->place.places);
    free(TAKE(work));
    return 0;
}

static struct raw *ask(const char *head)
{
    struct raw *raw = raw_connect("127.0.0.1", port);

    raw_send(raw, head);
    return raw;
}

static void codec_ends(void)
{
    while (!atomic_load(&work->has_begun))
        sched_yield();
    pthread_join(work->thread, NULL);
}

static void check_pattern(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (text[i] != (char) (i % 251))
            fail_msg("byte %zu is wrong", i);
}

static char *pattern(size_t bytes)
{
    char *text = alloc0(bytes + 1);

    for (size_t i = 0; i < bytes; i++)
        text[i] = (char) (i % 251);
    return text;
}

static void an_export_arrives_whole(void **state)
{
    static const int64_t lengths[] = {HTTP_LENGTH_UNKNOWN, 9 << 20};

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        struct raw *raw;
        char *head, *body;

        memset(work, 0, sizeof *work);
        work->bytes = 9 << 20;
        work->length = lengths[i];
        raw = ask("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
        head = raw_take_until(raw, "\r\n\r\n");
        assert_memory_equal(head, "HTTP/1.0 200", 12);
        body = raw_take_all(raw);
        codec_ends();
        assert_int_equal(work->result, 0);
        assert_int_equal(work->figures.stream_bytes, work->bytes);
        check_pattern(body, (size_t) work->bytes);
        assert_false(raw->was_reset);
        free(head);
        free(body);
        raw_close(&raw);
    }
}

static void head_takes_nothing(void **state)
{
    struct raw *raw;
    char *all;

    (void) state;
    work->length = 12345;
    raw = ask("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
    all = raw_take_all(raw);
    codec_ends();
    assert_int_equal(work->result, 0);
    assert_non_null(strstr(all, "content-length: 12345\r\n"));
    assert_string_equal(strstr(all, "\r\n\r\n"), "\r\n\r\n");
    free(all);
    raw_close(&raw);
}

/* The codec gets no further than what pipe and sockets hold. */
static void a_reader_that_does_not_read_holds_the_codec(void **state)
{
    struct raw *raw;
    size_t before = 0;

    (void) state;
    work->bytes = 256 << 20;
    raw = ask("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    do { /* until it stands still */
        before = work->done;
        usleep(200000);
    } while (before == 0 || work->done > before);
    assert_true(work->done < 64 * MIB);
    raw_close(&raw);
    codec_ends();
    assert_int_equal(work->result, -EPIPE);
}

static void a_failed_export_is_seen_as_broken(void **state)
{
    struct raw *raw;
    char *all;

    (void) state;
    work->bytes = 100000;
    work->fails = -EIO;
    raw = ask("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    all = raw_take_all(raw);
    codec_ends();
    assert_int_equal(work->result, -EIO);
    assert_true(raw->was_reset);
    free(all);
    raw_close(&raw);
}

static void a_cancelled_export_ends_at_once(void **state)
{
    struct raw *raw;
    char *all;

    (void) state;
    work->bytes = 256 << 20;
    raw = ask("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    while (work->done < 4 * MIB) /* the pipe is full, and nobody reads */
        sched_yield();
    pipe_cancel(atomic_load(&work->pipe));
    codec_ends();
    assert_int_equal(work->result, -ECANCELED);
    all = raw_take_all(raw);
    assert_true(raw->was_reset);
    free(all);
    raw_close(&raw);
}

static void clients_that_go_end_exports(void **state)
{
    (void) state;
    for (int round = 0; round < 20; round++) {
        struct raw *raw;

        memset(work, 0, sizeof *work);
        work->length = HTTP_LENGTH_UNKNOWN;
        work->bytes = 64 << 20;
        raw = ask("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
        while (!atomic_load(&work->has_begun) || work->done < (size_t) round * 100000)
            sched_yield();
        raw_close(&raw);
        codec_ends();
        assert_int_equal(work->result, -EPIPE);
    }
}

static void upload(struct raw *raw, const char *body, size_t bytes)
{
    char *head;

    assert_true(asprintf(&head, "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: %zu\r\n\r\n", bytes) > 0);
    raw_send(raw, head);
    (void) raw_try_send(raw, body, bytes);
    free(head);
}

static void an_import_reads_all(void **state)
{
    struct raw *raw = raw_connect("127.0.0.1", port);
    char *body = pattern(5 * MIB);

    (void) state;
    upload(raw, body, 5 * MIB);
    free(raw_answer(raw, 200, NULL));
    codec_ends();
    assert_int_equal(work->result, 0);
    assert_int_equal(work->done, 5 * MIB);
    assert_int_equal(work->wrong, 0);
    assert_int_equal(work->figures.stream_bytes, 5 * MIB);
    free(body);
    raw_close(&raw);
}

static void an_upload_that_breaks_is_told_apart(void **state)
{
    static const struct {
        const char *head;
        bool is_open_ended;
        int result;
    } cases[] = {
        {"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n", false, -EPIPE},
        {"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1125899906842624\r\n\r\n", true, 0}, /* it is not known */
        {"PUT / HTTP/1.0\r\n\r\n", false, 0},                                                /* the end is the end */
        {"PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", false, -EPIPE},
    };
    char *body = pattern(50000);

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct raw *raw;

        memset(work, 0, sizeof *work);
        work->is_open_ended = cases[i].is_open_ended;
        raw = ask(cases[i].head);
        if (strstr(cases[i].head, "chunked"))
            raw_send(raw, "c350\r\n");
        (void) raw_try_send(raw, body, 50000);
        raw_end(raw);
        codec_ends();
        assert_int_equal(work->result, cases[i].result);
        assert_int_equal(work->wrong, 0);
        if (cases[i].result == 0)
            assert_int_equal(work->done, 50000);
        raw_close(&raw);
    }
    free(body);
}

/* A reset that comes together with the last bytes is seen at once, not when the time for a slow client is over. */
static void a_reset_is_seen_at_once(void **state)
{
    struct linger at_once = {.l_onoff = 1};

    (void) state;
    for (int round = 0; round < 100; round++) {
        struct raw *raw;
        struct timespec before, after;

        memset(work, 0, sizeof *work);
        raw = ask("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
        while (!atomic_load(&work->has_begun))
            sched_yield();
        (void) raw_try_send(raw, "abc", 3);
        setsockopt(raw->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        clock_gettime(CLOCK_MONOTONIC, &before);
        raw_close(&raw);
        codec_ends();
        clock_gettime(CLOCK_MONOTONIC, &after);
        assert_int_equal(work->result, -EPIPE);
        assert_true(after.tv_sec - before.tv_sec < 10);
    }
}

static void an_import_that_stops_reading_holds_its_client(void **state)
{
    struct raw *raw = raw_connect("127.0.0.1", port);
    char *body = pattern(20 * MIB);

    (void) state;
    work->stops_after = MIB;
    upload(raw, body, 20 * MIB); /* it is answered before all was sent, and the rest is not wanted */
    free(raw_answer(raw, 200, NULL));
    codec_ends();
    assert_int_equal(work->result, 0);
    assert_true(work->done >= MIB && work->done < 2 * MIB);
    free(body);
    raw_close(&raw);
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

static void nothing_is_faster_than_the_rate(void **state)
{
    struct raw *raw;
    double before = seconds();

    (void) state;
    work->rate = transfer_rate_new((int64_t) (4 * MIB));
    work->bytes = 4 << 20;
    raw = ask("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    free(raw_take_all(raw));
    codec_ends();
    assert_int_equal(work->result, 0);
    assert_true(seconds() - before > 0.7); /* a fourth may come at once */
    raw_close(&raw);
}

static void no_rate_is_no_bound(void **state)
{
    struct transfer_rate *rate = transfer_rate_new(0);
    _Atomic bool is_cancelled = false;
    size_t owed = 0;

    (void) state;
    assert_null(rate);
    assert_int_equal(transfer_rate_wait(rate, &owed, SIZE_MAX, &is_cancelled), 0);
    transfer_rate_destroy(&rate);
}

struct sharer {
    pthread_t thread;
    struct transfer_rate *rate;
    double until;
    size_t piece; /* that it takes at once */
    size_t bytes;
};

static void *share(void *arg)
{
    struct sharer *sharer = arg;
    _Atomic bool is_cancelled = false;
    size_t owed = 0;

    while (seconds() < sharer->until) {
        assert(transfer_rate_wait(sharer->rate, &owed, sharer->piece, &is_cancelled) == 0);
        sharer->bytes += sharer->piece;
    }
    return NULL;
}

/* All together keep to the rate, and each has its share, however much it takes at once. */
static void those_at_once_share_the_rate(void **state)
{
    static const size_t pieces[4] = {20000, 2 * MIB, 512, 256 * 1024};
    struct sharer sharers[4] = {0};
    double begun = seconds(), took;
    size_t all = 0;

    (void) state;
    work->rate = transfer_rate_new((int64_t) (4 * MIB));
    for (size_t i = 0; i < ARRAY_SIZE(sharers); i++) {
        sharers[i] = (struct sharer){.rate = work->rate, .piece = pieces[i], .until = seconds() + 1.5};
        assert_int_equal(pthread_create(&sharers[i].thread, NULL, share, &sharers[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(sharers); i++) {
        pthread_join(sharers[i].thread, NULL);
        all += sharers[i].bytes;
    }
    took = seconds() - begun;
    assert_true((double) all < (took + 0.5) * 4 * (double) MIB); /* a fourth at once, and what is less than a turn */
    for (size_t i = 0; i < ARRAY_SIZE(sharers); i++)
        assert_true(sharers[i].bytes > all / 8);
}

static void who_waits_for_the_rate_can_be_called_off(void **state)
{
    struct raw *raw;
    double before;

    (void) state;
    work->rate = transfer_rate_new(1000); /* a quarter of an hour for what is sent */
    raw = ask("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000000\r\n\r\n");
    {
        char *body = pattern(50000);

        assert_true(raw_try_send(raw, body, 50000));
        free(body);
    }
    while (work->figures.stream_bytes == 0) /* it has taken some, and pays for it */
        sched_yield();
    before = seconds();
    atomic_store(&work->is_cancelled, true);
    codec_ends();
    assert_int_equal(work->result, -ECANCELED);
    assert_int_equal(work->result_again, -ECANCELED);
    assert_int_equal(work->figures.stream_bytes, work->done); /* what was taken counts once */
    assert_true(seconds() - before < 5);
    raw_close(&raw);
}

/* However much a codec writes at once: its client sees that it goes on. */
static void a_low_rate_is_a_steady_stream(void **state)
{
    struct raw *raw;
    double before = seconds();

    (void) state;
    work->rate = transfer_rate_new(1000); /* a write of 10,000 takes ten seconds */
    work->bytes = 1 << 20;
    raw = ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    free(raw_take_until(raw, "\r\n\r\n"));
    free(raw_take(raw, 1000)); /* what a second lets pass, and goes out with it */
    assert_true(seconds() - before < 5);
    pipe_cancel(work->pipe);
    codec_ends();
    assert_int_equal(work->result, -ECANCELED);
    raw_close(&raw);
}

/* Nobody else waits for what a cancelled one would have taken. */
static void who_is_called_off_takes_nothing(void **state)
{
    _Atomic bool is_cancelled = true, is_wanted = false;
    size_t owed = 0, others = 0;
    double before = seconds();

    (void) state;
    work->rate = transfer_rate_new(1000);
    assert_int_equal(transfer_rate_wait(work->rate, &owed, 1 << 20, &is_cancelled), -ECANCELED);
    assert_int_equal(transfer_rate_wait(work->rate, &others, 250, &is_wanted), 0);
    assert_true(seconds() - before < 5);
}

/* ---- places ---- */

struct taker {
    pthread_t thread;
    struct place place;
    _Atomic bool is_cancelled;
    _Atomic int number; /* which one it was that got a place; 0: none yet */
    int result;
};

static _Atomic int places_taken;

static void *take(void *arg)
{
    struct taker *taker = arg;

    taker->result = place_take(&taker->place);
    if (taker->result == 0)
        taker->number = ++places_taken;
    return NULL;
}

static struct taker taker_of(struct places *places, _Atomic bool *is_cancelled)
{
    return (struct taker){.place = {.places = places, .is_cancelled = is_cancelled}};
}

/* In the order of asking; who is called off leaves the queue. */
static void places_go_to_who_has_waited_longest(void **state)
{
    struct places *places = places_new(2);
    struct taker takers[6];

    (void) state;
    places_taken = 0;
    for (size_t i = 0; i < ARRAY_SIZE(takers); i++) {
        takers[i] = taker_of(places, &takers[i].is_cancelled);
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take, &takers[i]), 0);
        if (i < 2)
            pthread_join(takers[i].thread, NULL);
        while (i >= 2 && places_waiting(places) < i - 1)
            sched_yield();
    }
    assert_int_equal(places_taken, 2);
    takers[3].is_cancelled = true;
    place_lose(&takers[3].place);
    pthread_join(takers[3].thread, NULL);
    assert_int_equal(takers[3].result, -ECANCELED);
    place_give(&takers[3].place); /* it has none to give */
    assert_int_equal(places_taken, 2);
    place_give(&takers[0].place);
    pthread_join(takers[2].thread, NULL);
    place_give(&takers[1].place);
    pthread_join(takers[4].thread, NULL);
    place_give(&takers[2].place);
    pthread_join(takers[5].thread, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(takers); i++) {
        assert_int_equal(takers[i].number, i == 3 ? 0 : i < 3 ? i + 1 : i);
        assert_int_equal(takers[i].place.is_held, i >= 4);
        place_give(&takers[i].place);
    }
    places_destroy(&places);
}

/* Whatever its thread does meanwhile: that may hang. */
static void who_is_called_off_loses_its_place(void **state)
{
    struct places *places = places_new(1);
    _Atomic bool hung_is_cancelled = false, next_is_cancelled = false;
    struct taker hung = taker_of(places, &hung_is_cancelled), next = taker_of(places, &next_is_cancelled);

    (void) state;
    assert_int_equal(place_take(&hung.place), 0);
    assert_int_equal(pthread_create(&next.thread, NULL, take, &next), 0);
    while (places_waiting(places) == 0)
        sched_yield();
    hung_is_cancelled = true;
    place_lose(&hung.place);
    pthread_join(next.thread, NULL);
    assert_int_equal(next.result, 0);
    place_lend(&hung.place); /* it comes free at last: it has none to give, and gets none */
    assert_int_equal(place_take_back(&hung.place), -ECANCELED);
    place_give(&hung.place);
    assert_true(next.place.is_held);
    place_give(&next.place);
    assert_int_equal(place_take(&next.place), 0);
    place_give(&next.place);
    places_destroy(&places);
}

/* The only place: while its client does not read, somebody else has it, and it goes on when that one is done. */
static void a_client_that_does_not_read_lends_its_place(void **state)
{
    struct taker other;
    struct raw *raw;
    int64_t taken = 0;
    size_t before;

    (void) state;
    work->place.places = places_new(1);
    other = taker_of(work->place.places, &other.is_cancelled);
    work->bytes = work->length = 64 << 20;
    raw = ask("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    while (!atomic_load(&work->has_begun) || work->done == 0)
        sched_yield();
    take(&other); /* waits until the codec has filled all there is */
    assert_int_equal(other.result, 0);
    before = work->done;
    assert_true(before < (size_t) work->bytes);
    free(raw_take_until(raw, "\r\n\r\n"));
    while (work->place.waits_for_client) /* the client reads on, and gets what was there */
        if (taken + 65536 <= (int64_t) before) {
            free(raw_take(raw, 65536));
            taken += 65536;
        }
    assert_int_equal(work->done, before); /* it has no place */
    place_give(&other.place);
    for (; taken < work->bytes; taken += 65536)
        free(raw_take(raw, 65536));
    codec_ends();
    assert_int_equal(work->result, 0);
    assert_int_equal(work->figures.stream_bytes, work->bytes);
    raw_close(&raw);
}

static void a_client_that_does_not_send_lends_its_place(void **state)
{
    struct raw *raw = raw_connect("127.0.0.1", port);
    char *body = pattern(MIB);
    struct taker other;

    (void) state;
    work->place.places = places_new(1);
    other = taker_of(work->place.places, &other.is_cancelled);
    raw_send(raw, "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1048576\r\n\r\n");
    assert_true(raw_try_send(raw, body, 1000));
    while (!atomic_load(&work->has_begun))
        sched_yield();
    while (work->done < 1000 || !work->place.waits_for_client)
        sched_yield();
    take(&other);
    assert_int_equal(other.result, 0);
    assert_true(raw_try_send(raw, body + 1000, MIB / 2));
    while (work->place.waits_for_client)
        sched_yield();
    assert_int_equal(work->done, 1000);
    place_give(&other.place);
    assert_true(raw_try_send(raw, body + 1000 + MIB / 2, MIB - 1000 - MIB / 2));
    free(raw_answer(raw, 200, NULL));
    codec_ends();
    assert_int_equal(work->result, 0);
    assert_int_equal(work->done, MIB);
    assert_int_equal(work->wrong, 0);
    free(body);
    raw_close(&raw);
}

int main(void)
{
    struct http_config config = {HTTP_CONFIG_DEFAULT, .handle = handle};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_export_arrives_whole, begin, end),
        cmocka_unit_test_setup_teardown(head_takes_nothing, begin, end),
        cmocka_unit_test_setup_teardown(a_reader_that_does_not_read_holds_the_codec, begin, end),
        cmocka_unit_test_setup_teardown(a_failed_export_is_seen_as_broken, begin, end),
        cmocka_unit_test_setup_teardown(a_cancelled_export_ends_at_once, begin, end),
        cmocka_unit_test_setup_teardown(clients_that_go_end_exports, begin, end),
        cmocka_unit_test_setup_teardown(an_import_reads_all, begin, end),
        cmocka_unit_test_setup_teardown(an_upload_that_breaks_is_told_apart, begin, end),
        cmocka_unit_test_setup_teardown(a_reset_is_seen_at_once, begin, end),
        cmocka_unit_test_setup_teardown(an_import_that_stops_reading_holds_its_client, begin, end),
        cmocka_unit_test_setup_teardown(nothing_is_faster_than_the_rate, begin, end),
        cmocka_unit_test_setup_teardown(no_rate_is_no_bound, begin, end),
        cmocka_unit_test_setup_teardown(those_at_once_share_the_rate, begin, end),
        cmocka_unit_test_setup_teardown(who_waits_for_the_rate_can_be_called_off, begin, end),
        cmocka_unit_test_setup_teardown(a_low_rate_is_a_steady_stream, begin, end),
        cmocka_unit_test_setup_teardown(who_is_called_off_takes_nothing, begin, end),
        cmocka_unit_test(places_go_to_who_has_waited_longest),
        cmocka_unit_test(who_is_called_off_loses_its_place),
        cmocka_unit_test_setup_teardown(a_client_that_does_not_read_lends_its_place, begin, end),
        cmocka_unit_test_setup_teardown(a_client_that_does_not_send_lends_its_place, begin, end),
    };
    int failed;

    server = http_server_new(&config);
    if (http_listen_tcp(server, "127.0.0.1", 0, NULL, &port) < 0 || http_server_start(server) < 0)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    http_server_destroy(&server);
    return failed;
}
