/* test_http.c - requests and whole answers, keep-alive, limits, deadlines, tickets
 *
 * One server with short deadlines answers by path; the tests say raw bytes to it. */
#include "shared/http.h"
#include "tests/raw_http.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#define TEXT "content-type: text/plain\r\n"

static struct http_server *server;
static uint16_t port;
static char unix_path[128];

static atomic_int gone, destroyed, posted_null, loops_started, loops_stopped;

/* Tickets of /park, for the test to answer */
static pthread_mutex_t parked_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t parked_more = PTHREAD_COND_INITIALIZER;
static struct http_ticket parked[4096];
static size_t parked_count;

/* --- the handler ----------------------------------------------------------------------------- */

static void echo(struct http_request *request, const char *body, size_t bytes, void *arg)
{
    struct evbuffer *copy = evbuffer_new();

    (void) arg;
    evbuffer_add(copy, body, bytes);
    http_reply(request, 200, TEXT, copy);
    assert_int_equal(evbuffer_get_length(copy), 0);
    evbuffer_free(copy);
}

static void describe(struct http_request *request)
{
    struct evbuffer *text = evbuffer_new();
    const struct http_pair *pairs;
    size_t count = http_params(request, &pairs);
    char *user, *password;

    evbuffer_add_printf(text, "%s %s 1.%d", request->method_text, request->path, request->minor);
    for (size_t i = 0; i < count; i++)
        evbuffer_add_printf(text, " %s=%s", pairs[i].name, pairs[i].value);
    count = http_cookies(request, &pairs);
    for (size_t i = 0; i < count; i++)
        evbuffer_add_printf(text, " cookie:%s=%s", pairs[i].name, pairs[i].value);
    if (http_basic(request, &user, &password)) {
        evbuffer_add_printf(text, " basic:%s/%s", user, password);
        free(user);
        free(password);
    }
    if (request->is_unix)
        evbuffer_add_printf(text, " uid=%d pid=%d", (int) request->peer_uid,
                            (int) request->peer_pid);
    else
        evbuffer_add_printf(text, " from %s", request->peer);
    http_reply(request, 200, TEXT, text);
    evbuffer_free(text);
}

static void on_gone(struct http_request *request, void *arg)
{
    assert_non_null(request);
    assert_ptr_equal(arg, &gone);
    atomic_fetch_add(&gone, 1);
}

static void park(struct http_request *request)
{
    struct http_ticket ticket = http_park(request, on_gone, &gone);

    pthread_mutex_lock(&parked_lock);
    parked[parked_count++] = ticket;
    pthread_cond_broadcast(&parked_more);
    pthread_mutex_unlock(&parked_lock);
}

static void count_destroyed(void *user)
{
    assert_ptr_equal(user, &destroyed);
    atomic_fetch_add(&destroyed, 1);
}

static void handle(struct http_request *request, void *arg)
{
    const char *path = request->path;

    assert_ptr_equal(arg, &server);
    request->user = &destroyed;
    request->user_destroy = count_destroyed;
    if (streq(path, "/echo"))
        http_read_body(request, 100000, echo, NULL);
    else if (streq(path, "/describe"))
        describe(request);
    else if (streq(path, "/park"))
        park(request);
    else if (streq(path, "/abort"))
        http_abort(request);
    else if (streq(path, "/empty"))
        http_reply(request, 204, NULL, NULL);
    else if (streq(path, "/close")) {
        http_close_after(request);
        http_reply_text(request, 200, TEXT, "closing");
    } else
        http_reply_text(request, 404, TEXT, "not found");
}

static void loop_begin(struct http_loop *loop, void *arg)
{
    (void) arg;
    http_loop_set_user(loop, &loops_started);
    atomic_fetch_add(&loops_started, 1);
}

static void loop_end(struct http_loop *loop, void *arg)
{
    (void) arg;
    assert_ptr_equal(http_loop_user(loop), &loops_started);
    atomic_fetch_add(&loops_stopped, 1);
}

static int setup(void **state)
{
    struct http_config config = {
        HTTP_CONFIG_DEFAULT,   .handle = handle, .loop_start = loop_begin,
        .loop_stop = loop_end, .arg = &server,
    };
    char directory[] = P_tmpdir "/test_http.XXXXXX";

    (void) state;
    config.head_ms = 600;
    config.body_ms = 600;
    config.idle_ms = 1000;
    config.linger_ms = 500;
    config.rate_window_ms = 500;
    server = http_server_new(&config);
    assert_int_equal(http_listen_tcp(server, "127.0.0.1", 0, NULL, &port), 0);
    assert_non_null(mkdtemp(directory));
    snprintf(unix_path, sizeof unix_path, "%s/socket", directory);
    assert_int_equal(http_listen_unix(server, unix_path), 0);
    return http_server_start(server);
}

static int teardown(void **state)
{
    (void) state;
    http_server_destroy(&server);
    *strrchr(unix_path, '/') = '\0';
    rmdir(unix_path);
    return atomic_load(&loops_started) == 2 && atomic_load(&loops_stopped) == 2 ? 0 : -1;
}

/* --- waiting --------------------------------------------------------------------------------- */

static void wait_for(atomic_int *counter, int value)
{
    for (int ms = 0; atomic_load(counter) < value && ms < RAW_TIMEOUT_S * 1000; ms++)
        usleep(1000);
    assert_int_equal(atomic_load(counter), value);
}

static void parked_reset(void)
{
    pthread_mutex_lock(&parked_lock);
    parked_count = 0;
    pthread_mutex_unlock(&parked_lock);
}

static void parked_wait(size_t count)
{
    pthread_mutex_lock(&parked_lock);
    while (parked_count < count)
        pthread_cond_wait(&parked_more, &parked_lock);
    pthread_mutex_unlock(&parked_lock);
}

static void answer(struct http_request *request, void *arg)
{
    if (request)
        http_reply_text(request, 200, TEXT, arg);
    else
        atomic_fetch_add(&posted_null, 1);
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- requests and answers -------------------------------------------------------------------- */

static void an_answer_has_what_we_say_and_no_more(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);
    char *head, *body;

    (void) state;
    raw_send(raw, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    body = raw_answer(raw, 200, &head);
    assert_string_equal(body, "hello");
    assert_string_equal(head, "HTTP/1.1 200 OK\r\n" TEXT
                              "content-length: 5\r\nconnection: keep-alive\r\n\r\n");
    free(head);
    free(body);
    raw_send(raw, "GET /empty HTTP/1.1\r\n\r\n");
    head = raw_take_until(raw, "\r\n\r\n");
    assert_string_equal(head, "HTTP/1.1 204 No Content\r\nconnection: keep-alive\r\n\r\n");
    free(head);
    raw_expect(raw, "GET /x HTTP/1.1\r\n\r\n", 404, "not found");
}

static void a_request_is_described(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);

    (void) state;
    raw_expect(raw,
               "DELETE /desc%72ibe?a=1&a=%32 HTTP/1.1\r\nCookie: c=d; e=f\r\ncookie: g=h\r\n"
               "Authorization: Basic cm9vdDpzZWNyZXQ=\r\n\r\n",
               200,
               "DELETE /describe 1.1 a=1 a=2 cookie:c=d cookie:e=f cookie:g=h basic:root/secret "
               "from 127.0.0.1");
}

static void version_1_0_closes_unless_asked(void **state)
{
    struct raw *raw = raw_connect("127.0.0.1", port);
    char *head, *body;

    (void) state;
    raw_send(raw, "GET /describe HTTP/1.0\r\n\r\n");
    body = raw_answer(raw, 200, &head);
    assert_string_equal(body, "GET /describe 1.0 from 127.0.0.1");
    assert_int_equal(strncmp(head, "HTTP/1.0 200 OK\r\n", 17), 0);
    assert_non_null(strstr(head, "connection: close\r\n"));
    free(head);
    free(body);
    raw_expect_end(raw);
    raw_close(&raw);

    raw = raw_connect("127.0.0.1", port);
    raw_expect(raw, "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 404, "not found");
    raw_expect(raw, "GET /x HTTP/1.0\r\n\r\n", 404, "not found");
    raw_expect_end(raw);
    raw_close(&raw);

    raw = raw_connect("127.0.0.1", port);
    raw_expect(raw, "GET /close HTTP/1.1\r\n\r\n", 200, "closing");
    raw_expect_end(raw);
    raw_close(&raw);
}

static void head_requests_get_no_body(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);
    char *head;

    (void) state;
    raw_send(raw, "HEAD /x HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\n");
    head = raw_take_until(raw, "\r\n\r\n");
    assert_non_null(strstr(head, "content-length: 9\r\n"));
    free(head);
    raw_expect(raw, "", 404, "not found");
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);
    char expected[16];

    (void) state;
    parked_reset();
    raw_send(raw, "GET /park HTTP/1.1\r\n\r\n");
    for (int i = 0; i < 200; i++) {
        char request[128];

        snprintf(request, sizeof request,
                 "\r\nPOST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\n%03d", i);
        raw_send(raw, request);
    }
    parked_wait(1);
    http_ticket_post(parked[0], answer, "first");
    raw_expect(raw, "", 200, "first");
    for (int i = 0; i < 200; i++) {
        snprintf(expected, sizeof expected, "%03d", i);
        raw_expect(raw, "", 200, expected);
    }
}

static void bodies_may_come_in_any_pieces(void **state)
{
    static const char request[] = "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  "5\r\nhello\r\n7;x\r\n, world\r\n0\r\nA: b\r\n\r\n";
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);
    char large[60000], text[128];

    (void) state;
    for (size_t i = 0; i < sizeof request - 1; i++)
        assert_true(raw_try_send(raw, request + i, 1));
    raw_expect(raw, "", 200, "hello, world");

    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    snprintf(text, sizeof text, "POST /echo HTTP/1.1\r\nContent-Length: %zu\r\n\r\n",
             sizeof large - 1);
    raw_send(raw, text);
    raw_expect(raw, large, 200, large);
    raw_expect(raw, "POST /echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 200, "");
    raw_expect(raw, "GET /echo HTTP/1.1\r\n\r\n", 200, "");
}

static void a_1_0_body_may_end_with_the_connection(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);

    (void) state;
    raw_send(raw, "PUT /echo HTTP/1.0\r\n\r\nto the end");
    raw_end(raw);
    raw_expect(raw, "", 200, "to the end");
    raw_expect_end(raw);
}

static void a_client_is_invited_to_continue(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);
    char *head;

    (void) state;
    raw_send(raw, "POST /echo HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    head = raw_take_until(raw, "\r\n\r\n");
    assert_string_equal(head, "HTTP/1.1 100 Continue\r\n\r\n");
    free(head);
    raw_expect(raw, "ok", 200, "ok");

    /* not when it did not wait, nor when nobody wants the body: it may then send or not, so we
     * close */
    raw_expect(raw, "POST /echo HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nok",
               200, "ok");
    raw_expect(raw, "POST /x HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", 404,
               "not found");
    raw_expect_end(raw);
}

static void an_unread_body_does_not_harm_the_next_request(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);
    char chunk[65536];

    (void) state;
    raw_expect(raw, "POST /x HTTP/1.1\r\nContent-Length: 20\r\n\r\nGET /echo HTTP/1.1\r\n", 404,
               "not found");
    raw_expect(raw, "GET /describe HTTP/1.1\r\n\r\n", 200, "GET /describe 1.1 from 127.0.0.1");

    /* Too large to throw away: the answer is read although we never stop sending, then it ends. */
    memset(chunk, 'x', sizeof chunk);
    raw_send(raw, "POST /x HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n");
    assert_true(raw_try_send(raw, chunk, sizeof chunk));
    raw_expect(raw, "", 404, "not found");
    assert_true(raw_try_send(raw, chunk, sizeof chunk));
    raw_end(raw);
    raw_expect_end(raw);
    assert_false(raw->was_reset);
}

/* --- what clients do wrong ------------------------------------------------------------------- */

static void malformed_requests_are_answered_and_closed(void **state)
{
    static const struct {
        const char *request;
        int status;
    } cases[] = {
        {"GET /\r\n\r\n", 400},
        {"\x16\x03\x01\x02", 400},
        {"GET / HTTP/1.1\nHost: x\n\n", 400},
        {"GET / HTTP/3.0\r\n\r\n", 505},
        {"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
        {"POST /echo HTTP/1.1\r\nContent-Length: 100001\r\n\r\n", 413},
        {"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n186a1\r\n",
         0 /* with 100,001 bytes */},
        {"POST /echo HTTP/1.1\r\nExpect: more\r\n\r\n", 417},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);
        int status = cases[i].status;

        raw_send(raw, cases[i].request);
        if (status == 0) {
            char *many = alloc0(100002);

            memset(many, 'y', 100001);
            raw_send(raw, many);
            free(many);
            status = 413;
        }
        raw_expect(raw, "", status, "");
        raw_expect_end(raw);
        assert_false(raw->was_reset);
    }
}

static void a_large_head_is_431(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);
    char *filler = alloc0(32768 + 1);

    (void) state;
    memset(filler, 'a', 32700);
    raw_send(raw, "GET /describe HTTP/1.1\r\nX: ");
    raw_send(raw, filler);
    raw_expect(raw, "\r\n\r\n", 200, "GET /describe 1.1 from 127.0.0.1");
    memset(filler, 'a', 32768);
    raw_send(raw, "GET /describe HTTP/1.1\r\nX: ");
    raw_send(raw, filler);
    raw_expect(raw, "", 431, "");
    raw_expect_end(raw);
    free(filler);
}

static void a_slow_head_is_408(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);
    int64_t start_ms = now_ms();
    char *answer_text;

    (void) state;
    /* A byte now and then does not help: the deadline is absolute. */
    for (int i = 0; i < 1000; i++) {
        struct timeval wait = {.tv_usec = 20000};
        fd_set readable;

        if (!raw_try_send(raw, i == 0 ? "G" : "X", 1))
            break;
        FD_ZERO(&readable);
        FD_SET(raw->fd, &readable);
        if (select(raw->fd + 1, &readable, NULL, NULL, &wait) == 1)
            break;
    }
    assert_in_range(now_ms() - start_ms, 500, 10000);
    answer_text = raw_take_until(raw, "\r\n\r\n");
    assert_int_equal(atoi(answer_text + 9), 408);
    free(answer_text);
}

static void a_slow_body_is_408(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);

    (void) state;
    raw_send(raw, "POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nhello");
    raw_expect(raw, "", 408, "");
}

static void an_idle_connection_is_closed_without_a_word(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);
    int64_t start_ms;

    (void) state;
    raw_expect(raw, "GET /x HTTP/1.1\r\n\r\n", 404, "not found");
    start_ms = now_ms();
    raw_expect_end(raw);
    assert_in_range(now_ms() - start_ms, 800, 10000);
}

static void an_abort_is_seen(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);

    (void) state;
    raw_send(raw, "GET /abort HTTP/1.1\r\n\r\n");
    raw_expect_end(raw);
    assert_true(raw->was_reset);
}

/* --- tickets --------------------------------------------------------------------------------- */

static void a_parked_request_outlives_deadlines_and_half_close(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);

    (void) state;
    parked_reset();
    raw_send(raw, "GET /park HTTP/1.1\r\n\r\n");
    parked_wait(1);
    raw_end(raw);
    usleep(1200000); /* longer than all deadlines: that nothing happens can only be waited for */
    http_ticket_post(parked[0], answer, "late");
    raw_expect(raw, "", 200, "late");
    raw_expect_end(raw);
}

static void a_second_answer_finds_the_request_gone(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect("127.0.0.1", port);
    int null_before = atomic_load(&posted_null);

    (void) state;
    parked_reset();
    raw_send(raw, "GET /park HTTP/1.1\r\n\r\n");
    parked_wait(1);
    http_ticket_post(parked[0], answer, "one");
    http_ticket_post(parked[0], answer, "two");
    raw_expect(raw, "", 200, "one");
    wait_for(&posted_null, null_before + 1);
    raw_send(raw, "GET /park HTTP/1.1\r\n\r\n"); /* the same connection, another request */
    parked_wait(2);
    http_ticket_post(parked[0], answer, "old");
    http_ticket_post(parked[1], answer, "new");
    raw_expect(raw, "", 200, "new");
    wait_for(&posted_null, null_before + 2);
}

static void a_broken_client_is_noticed(void **state)
{
    struct raw *raw = raw_connect("127.0.0.1", port);
    struct linger reset = {.l_onoff = 1};
    int gone_before = atomic_load(&gone), null_before = atomic_load(&posted_null);

    (void) state;
    parked_reset();
    raw_send(raw, "GET /park HTTP/1.1\r\n\r\n");
    parked_wait(1);
    setsockopt(raw->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    raw_close(&raw);
    wait_for(&gone, gone_before + 1);

    raw = raw_connect("127.0.0.1", port); /* also after it had stopped sending */
    raw_send(raw, "GET /park HTTP/1.1\r\n\r\n");
    parked_wait(2);
    raw_end(raw);
    setsockopt(raw->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    raw_close(&raw);
    wait_for(&gone, gone_before + 2);

    raw = raw_connect_unix(unix_path);
    raw_send(raw, "GET /park HTTP/1.1\r\n\r\n");
    parked_wait(3);
    raw_close(&raw);
    wait_for(&gone, gone_before + 3);
    for (int i = 0; i < 3; i++)
        http_ticket_post(parked[i], answer, "nobody");
    wait_for(&posted_null, null_before + 3);
}

static void thousands_wait_and_are_answered(void **state)
{
    enum { COUNT = 2000 };
    struct rlimit files = {0};
    struct raw **raws = new0_array(struct raw *, COUNT);
    struct http_stats stats;

    (void) state;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = MIN(files.rlim_max, (rlim_t) 3 * COUNT);
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < 2 * COUNT + 100)
        skip();
    parked_reset();
    for (int i = 0; i < COUNT; i++) {
        raws[i] = raw_connect("127.0.0.1", port);
        raw_send(raws[i], "GET /park HTTP/1.1\r\n\r\n");
    }
    parked_wait(COUNT);
    http_server_stats(server, &stats);
    assert_true(stats.connections_now >= COUNT);
    for (int i = 0; i < COUNT; i++)
        http_ticket_post(parked[i], answer, "event");
    for (int i = 0; i < COUNT; i++) {
        raw_expect(raws[i], "", 200, "event");
        raw_close(&raws[i]);
    }
    free(raws);
}

static int order_seen;
static atomic_int order_done;

static void order_check(void *arg)
{
    assert_int_equal(order_seen++, (int) (intptr_t) arg);
    if (order_seen == 10000)
        atomic_store(&order_done, 1);
}

static void posts_keep_their_order(void **state)
{
    (void) state;
    for (intptr_t i = 0; i < 10000; i++)
        http_loop_post(http_server_loop(server, 1), order_check, (void *) i);
    wait_for(&order_done, 1);
}

/* --- listeners ------------------------------------------------------------------------------- */

static void a_unix_peer_is_known(void **state)
{
    _cleanup_(raw_close) struct raw *raw = raw_connect_unix(unix_path);
    char expected[128];

    (void) state;
    snprintf(expected, sizeof expected, "GET /describe 1.1 uid=%d pid=%d", (int) getuid(),
             (int) getpid());
    raw_expect(raw, "GET /describe HTTP/1.1\r\n\r\n", 200, expected);
}

static void ports_and_sockets_are_not_shared_by_accident(void **state)
{
    struct http_config config = {HTTP_CONFIG_DEFAULT, .handle = handle};
    struct http_server *second = http_server_new(&config);
    char other[160];
    uint16_t free_port;
    FILE *file;

    (void) state;
    assert_int_equal(http_listen_tcp(second, "127.0.0.1", port, NULL, NULL), -EADDRINUSE);
    assert_int_equal(http_listen_unix(second, unix_path), -EADDRINUSE);
    assert_int_equal(http_listen_tcp(second, "localhost", 0, NULL, NULL), -EINVAL);
    assert_int_equal(http_listen_tcp(second, "127.0.0.1", 0, NULL, &free_port), 0);
    assert_int_not_equal(free_port, 0);

    snprintf(other, sizeof other, "%s.2", unix_path);
    file = fopen(other, "w");
    fclose(file);
    assert_int_equal(http_listen_unix(second, other), -EEXIST);
    unlink(other);
    assert_int_equal(http_listen_unix(second, other), 0);
    http_server_destroy(&second); /* never started */
    assert_int_equal(access(other, F_OK), -1);
}

static void connections_are_limited(void **state)
{
    struct http_config config = {HTTP_CONFIG_DEFAULT, .handle = handle, .arg = &server};
    struct http_server *small;
    struct raw *one, *two;
    uint16_t small_port;

    (void) state;
    config.connections_max = 1;
    small = http_server_new(&config);
    assert_int_equal(http_server_start(small), 0);
    assert_int_equal(http_listen_tcp(small, "127.0.0.1", 0, NULL, &small_port),
                     0); /* after the start */
    one = raw_connect("127.0.0.1", small_port);
    raw_expect(one, "GET /x HTTP/1.1\r\n\r\n", 404, "not found");
    two = raw_connect("127.0.0.1", small_port);
    raw_expect_end(two);
    raw_close(&two);
    raw_expect(one, "GET /x HTTP/1.1\r\n\r\n", 404, "not found");
    raw_close(&one);
    for (int i = 0; i < 1000; i++) { /* until the server has seen the close */
        struct http_stats stats;

        http_server_stats(small, &stats);
        if (stats.connections_now == 0)
            break;
        usleep(1000);
    }
    one = raw_connect("127.0.0.1", small_port);
    raw_expect(one, "GET /x HTTP/1.1\r\n\r\n", 404, "not found");
    raw_close(&one);
    http_server_destroy(&small);
}

static size_t bodies_bytes(struct http_server *of)
{
    struct http_stats stats;

    http_server_stats(of, &stats);
    return stats.bodies_bytes;
}

/* Until the server has read, or let go of, as much. */
static void wait_for_bodies(struct http_server *of, size_t bytes)
{
    for (int ms = 0; bodies_bytes(of) != bytes && ms < RAW_TIMEOUT_S * 1000; ms++)
        usleep(1000);
    assert_int_equal(bodies_bytes(of), bytes);
}

static void bodies_share_a_bound(void **state)
{
    static const char small[] = "POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
    enum { EACH = 60000, COUNTED = EACH - HTTP_BODY_FREE_BYTES };
    struct http_config config = {HTTP_CONFIG_DEFAULT, .handle = handle, .arg = &server};
    struct http_server *tight;
    struct raw *half[2], *one;
    char large[EACH + 1], chunked[EACH + 64];
    uint16_t tight_port;

    (void) state;
    memset(large, 'x', EACH);
    large[EACH] = '\0';
    config.bodies_bytes_max = 2 * COUNTED + COUNTED / 2;
    tight = http_server_new(&config);
    assert_int_equal(http_listen_tcp(tight, "127.0.0.1", 0, NULL, &tight_port), 0);
    assert_int_equal(http_server_start(tight), 0);
    for (size_t i = 0; i < ARRAY_SIZE(half); i++) { /* two that do not end, */
        half[i] = raw_connect("127.0.0.1", tight_port);
        raw_send(half[i], "POST /echo HTTP/1.1\r\nContent-Length: 60001\r\n\r\n");
        raw_send(half[i], large);
        wait_for_bodies(tight, (i + 1) * COUNTED);
    }
    one = raw_connect("127.0.0.1", tight_port); /* a third that is one too many, */
    raw_send(one, "POST /echo HTTP/1.1\r\nContent-Length: 60001\r\n\r\n");
    raw_send(one, large);
    raw_expect(one, "", 503, "");
    raw_close(&one);
    one = raw_connect("127.0.0.1", tight_port); /* whatever it says of its length, */
    snprintf(chunked, sizeof chunked,
             "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s", EACH, large);
    raw_send(one, chunked);
    raw_expect(one, "", 503, "");
    raw_close(&one);
    wait_for_bodies(tight, 2 * COUNTED);

    one = raw_connect("127.0.0.1", tight_port); /* and small ones, in pieces too, are served */
    raw_send(one, small);
    wait_for_bodies(tight, 2 * COUNTED);
    raw_expect(one, "hello", 200, "hello");
    raw_close(&half[0]);
    wait_for_bodies(tight, COUNTED);
    raw_send(one, "POST /echo HTTP/1.1\r\nContent-Length: 60000\r\n\r\n");
    raw_expect(one, large, 200, large);
    raw_send(half[1], "x");
    free(raw_answer(half[1], 200, NULL));
    wait_for_bodies(tight, 0);
    raw_close(&half[1]);
    raw_close(&one);
    http_server_destroy(&tight);
}

static void stopping_tells_those_who_wait(void **state)
{
    struct http_config config = {HTTP_CONFIG_DEFAULT, .handle = handle, .arg = &server};
    struct http_server *other = http_server_new(&config);
    int gone_before = atomic_load(&gone), null_before = atomic_load(&posted_null);
    struct raw *raw;
    uint16_t other_port;

    (void) state;
    parked_reset();
    assert_int_equal(http_listen_tcp(other, "::1", 0, NULL, &other_port), 0);
    assert_int_equal(http_server_start(other), 0);
    raw = raw_connect("::1", other_port);
    raw_send(raw, "GET /park HTTP/1.1\r\n\r\n");
    parked_wait(1);
    http_server_stop(other);
    assert_int_equal(atomic_load(&gone), gone_before + 1);
    raw_expect_end(raw);
    http_ticket_post(parked[0], answer, "too late");
    http_server_destroy(&other);
    assert_int_equal(atomic_load(&posted_null), null_before + 1);
    raw_close(&raw);
}

static void a_server_may_stop_as_soon_as_it_started(void **state)
{
    (void) state;
    for (int i = 0; i < 100; i++) {
        struct http_config config = {HTTP_CONFIG_DEFAULT, .handle = handle};
        struct http_server *brief = http_server_new(&config);

        assert_int_equal(http_server_start(brief), 0);
        http_server_destroy(&brief);
    }
}

static void each_request_ends_once(void **state)
{
    struct http_stats stats;

    (void) state;
    for (int i = 0; i < 5000; i++) {
        http_server_stats(server, &stats);
        if (stats.connections_now == 0)
            break;
        usleep(1000);
    }
    assert_int_equal(stats.connections_now, 0);
    assert_true(atomic_load(&destroyed) > 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_has_what_we_say_and_no_more),
        cmocka_unit_test(a_request_is_described),
        cmocka_unit_test(version_1_0_closes_unless_asked),
        cmocka_unit_test(head_requests_get_no_body),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(bodies_may_come_in_any_pieces),
        cmocka_unit_test(a_1_0_body_may_end_with_the_connection),
        cmocka_unit_test(a_client_is_invited_to_continue),
        cmocka_unit_test(an_unread_body_does_not_harm_the_next_request),
        cmocka_unit_test(malformed_requests_are_answered_and_closed),
        cmocka_unit_test(a_large_head_is_431),
        cmocka_unit_test(a_slow_head_is_408),
        cmocka_unit_test(a_slow_body_is_408),
        cmocka_unit_test(an_idle_connection_is_closed_without_a_word),
        cmocka_unit_test(an_abort_is_seen),
        cmocka_unit_test(a_parked_request_outlives_deadlines_and_half_close),
        cmocka_unit_test(a_second_answer_finds_the_request_gone),
        cmocka_unit_test(a_broken_client_is_noticed),
        cmocka_unit_test(thousands_wait_and_are_answered),
        cmocka_unit_test(posts_keep_their_order),
        cmocka_unit_test(a_unix_peer_is_known),
        cmocka_unit_test(ports_and_sockets_are_not_shared_by_accident),
        cmocka_unit_test(connections_are_limited),
        cmocka_unit_test(bodies_share_a_bound),
        cmocka_unit_test(stopping_tells_those_who_wait),
        cmocka_unit_test(a_server_may_stop_as_soon_as_it_started),
        cmocka_unit_test(each_request_ends_once),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
