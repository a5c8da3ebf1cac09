/* test_http_stream.c - streams, uploads and tunnels, plain and over TLS
 *
 * The pattern of all streams: byte i is i % 251, so that a lost, doubled or displaced run shows. */
#include "shared/http.h"
#include "shared/tls.h"
#include "tests/raw_http.h"

#include <linux/sockios.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>

#define BINARY "content-type: application/octet-stream\r\n"

static struct http_server *server;
static uint16_t port, tls_port, tunnel_port;
static SSL_CTX *client_context;
static atomic_int destroyed, produced_kib, broken, ended_short, complete, complete_kib, relays_done, sink_threads;

static char pattern(uint64_t at)
{
    return (char) (at % 251);
}

/* --- producers ------------------------------------------------------------------------------- */

struct source {
    struct http_ticket ticket;
    uint64_t at, end;
    enum http_produced last; /* how it ends */
    bool waits;              /* after each piece, until a thread resumes it */
};

static void source_destroy(void *arg)
{
    free(arg);
    atomic_fetch_add(&destroyed, 1);
}

static void *resume_thread(void *arg)
{
    struct http_ticket *ticket = arg;

    http_resume(*ticket);
    free(ticket);
    return NULL;
}

static void resume_elsewhere(struct http_ticket ticket)
{
    struct http_ticket *copy = new0(struct http_ticket);
    pthread_t thread;

    *copy = ticket;
    pthread_create(&thread, NULL, resume_thread, copy);
    pthread_detach(thread);
}

static enum http_produced source_produce(struct http_request *request, struct evbuffer *out,
                                         size_t wanted, void *arg)
{
    struct source *source = arg;
    char piece[65536];
    size_t bytes = MIN(wanted, (size_t) (source->end - source->at));

    (void) request;
    assert(wanted <= sizeof piece);
    if (source->waits)
        bytes = MIN(bytes, (size_t) 1000);
    for (size_t i = 0; i < bytes; i++)
        piece[i] = pattern(source->at++);
    evbuffer_add(out, piece, bytes);
    atomic_fetch_add(&produced_kib, (int) (bytes / 1024));
    if (source->at == source->end)
        return source->last;
    if (!source->waits)
        return HTTP_MORE;
    resume_elsewhere(source->ticket);
    return HTTP_WAIT;
}

static uint64_t number(struct http_request *request, const char *name)
{
    const char *text = http_param(request, name);

    return text ? strtoull(text, NULL, 10) : 0;
}

static void produce(struct http_request *request)
{
    struct source *source = new0(struct source);
    const char *how = http_param(request, "how");
    int64_t length = HTTP_LENGTH_UNKNOWN;

    source->end = number(request, "bytes");
    source->last = http_param(request, "fail") ? HTTP_FAILED : HTTP_DONE;
    source->waits = http_param(request, "wait") != NULL;
    source->ticket = http_ticket_of(request);
    if (how)
        length = (int64_t) strtoll(how, NULL, 10);
    http_produce(request, 200, BINARY, length, source_produce, source, source_destroy);
}

/* --- consumers ------------------------------------------------------------------------------- */

/* An upload read by a thread of its own, which answers with what it saw. */
struct sink {
    struct http_ticket ticket;
    struct http_upload *upload;
    uint64_t bytes, wrong;
    enum http_upload_state state;
    int pause_ms;
    bool gives_up;
};

static void on_upload(struct http_upload *upload, void *arg)
{
    (void) upload; /* the thread waits by itself */
    (void) arg;
}

static void sink_answer(struct http_request *request, void *arg)
{
    struct sink *sink = arg;
    char text[128];

    if (request) {
        snprintf(text, sizeof text, "%llu bytes, %llu wrong", (unsigned long long) sink->bytes,
                 (unsigned long long) sink->wrong);
        http_reply_text(request, sink->gives_up ? 507 : 200, BINARY, text);
    }
    if (sink->state == HTTP_UPLOAD_BROKEN)
        atomic_fetch_add(&broken, 1);
    if (sink->state == HTTP_UPLOAD_SHORT)
        atomic_fetch_add(&ended_short, 1);
    if (sink->state == HTTP_UPLOAD_COMPLETE && sink->wrong == 0) {
        atomic_fetch_add(&complete_kib, (int) (sink->bytes / 1024));
        atomic_fetch_add(&complete, 1);
    }
    free(sink);
}

static void *sink_thread(void *arg)
{
    struct sink *sink = arg;
    const char *data;
    size_t bytes;

    usleep((useconds_t) sink->pause_ms * 1000);
    while ((bytes = http_upload_wait(sink->upload, &data, &sink->state)) > 0) {
        for (size_t i = 0; i < bytes; i++)
            sink->wrong += data[i] != pattern(sink->bytes + i);
        sink->bytes += bytes;
        http_upload_consumed(sink->upload, bytes);
        if (sink->gives_up)
            break;
    }
    http_upload_unref(&sink->upload);
    http_ticket_post(sink->ticket, sink_answer, sink);
    atomic_fetch_sub(&sink_threads, 1);
    return NULL;
}

static void upload_to_thread(struct http_request *request)
{
    struct sink *sink = new0(struct sink);
    pthread_t thread;

    sink->ticket = http_park(request, NULL, NULL);
    sink->pause_ms = (int) number(request, "pause");
    sink->gives_up = http_param(request, "give_up") != NULL;
    if (http_param(request, "early"))
        http_send_head_early(request, 200, "cache-control: no-cache\r\n");
    if (http_param(request, "silence"))
        http_allow_silence(request, (int) number(request, "silence"));
    sink->upload = http_consume(request, 100000, on_upload, sink);
    atomic_fetch_add(&sink_threads, 1);
    pthread_create(&thread, NULL, sink_thread, sink);
    pthread_detach(thread);
}

/* The same on the loop, without a thread. */
static void on_loop_upload(struct http_upload *upload, void *arg)
{
    struct sink *sink = arg;
    const char *data;
    size_t bytes;

    while ((bytes = http_upload_peek(upload, &data, &sink->state)) > 0) {
        for (size_t i = 0; i < bytes; i++)
            sink->wrong += data[i] != pattern(sink->bytes + i);
        sink->bytes += bytes;
        http_upload_consumed(upload, bytes);
    }
    if (sink->state == HTTP_UPLOAD_OPEN)
        return;
    http_upload_unref(&sink->upload);
    http_ticket_post(sink->ticket, sink_answer, sink);
}

static void upload_to_loop(struct http_request *request)
{
    struct sink *sink = new0(struct sink);

    sink->ticket = http_park(request, NULL, NULL);
    sink->upload = http_consume(request, 5000, on_loop_upload, sink);
}

/* --- tunnels --------------------------------------------------------------------------------- */

#define CONNECTED \
    "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n"

static void relay_done(void *arg)
{
    (void) arg;
    atomic_fetch_add(&relays_done, 1);
}

/* To an echo server of the test, which may have to be waited for. */
static void tunnel(struct http_request *request)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(tunnel_port)};
    struct http_onward console = {.head = CONNECTED, .done = relay_done};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    console.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    connect(console.fd, (struct sockaddr *) &address, sizeof address);
    http_relay(request, &console);
}

/* A WebSocket's way: callbacks of one's own. */
static void on_shout(struct bufferevent *connection, void *arg)
{
    struct evbuffer *input = bufferevent_get_input(connection);
    size_t bytes = evbuffer_get_length(input);
    unsigned char *text = evbuffer_pullup(input, -1);

    (void) arg;
    for (size_t i = 0; i < bytes; i++)
        text[i] = (unsigned char) (text[i] >= 'a' && text[i] <= 'z' ? text[i] - 32 : text[i]);
    bufferevent_write_buffer(connection, input);
}

static void on_shout_end(struct bufferevent *connection, short what, void *arg)
{
    (void) what;
    (void) arg;
    bufferevent_free(connection);
}

static void shout(struct http_request *request, struct bufferevent *connection, void *arg)
{
    (void) request;
    (void) arg;
    bufferevent_setcb(connection, on_shout, NULL, on_shout_end, NULL);
    bufferevent_enable(connection, EV_READ | EV_WRITE);
}

static void handle(struct http_request *request, void *arg)
{
    (void) arg;
    if (request->method == HTTP_CONNECT)
        tunnel(request);
    else if (streq(request->path, "/shout"))
        http_take_over(request, "HTTP/1.1 101 Switching Protocols\r\n\r\n", shout, NULL);
    else if (streq(request->path, "/produce"))
        produce(request);
    else if (streq(request->path, "/upload"))
        upload_to_thread(request);
    else if (streq(request->path, "/loop_upload"))
        upload_to_loop(request);
    else
        http_reply_text(request, 200, BINARY, request->is_tls ? "tls" : "plain");
}

/* --- the echo server behind tunnels ---------------------------------------------------------- */

static int echo_fd;

/* Echoes until the client ends, says goodbye, and ends. */
static void *echo_thread(void *arg)
{
    int fd;

    (void) arg;
    while ((fd = accept(echo_fd, NULL, NULL)) >= 0) {
        char data[10000];
        ssize_t got;

        while ((got = read(fd, data, sizeof data)) > 0) {
            if (send(fd, data, (size_t) got, MSG_NOSIGNAL) != got)
                break;
        }
        send(fd, "goodbye", 7, MSG_NOSIGNAL);
        close(fd);
    }
    return NULL;
}

static pthread_t echo_id;

static void echo_start(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    echo_fd = socket(AF_INET, SOCK_STREAM, 0);
    bind(echo_fd, (struct sockaddr *) &address, sizeof address);
    listen(echo_fd, 10);
    getsockname(echo_fd, (struct sockaddr *) &address, &size);
    tunnel_port = ntohs(address.sin_port);
    pthread_create(&echo_id, NULL, echo_thread, NULL);
}

/* --- set up ---------------------------------------------------------------------------------- */

static char directory[] = P_tmpdir "/test_http_stream.XXXXXX";

static SSL_CTX *new_certificate(char digits[65])
{
    static const char *const names[] = {"localhost", "127.0.0.1"};
    char certificate[128], key[128];
    SSL_CTX *context;

    snprintf(certificate, sizeof certificate, "%s/certificate.pem", directory);
    snprintf(key, sizeof key, "%s/key.pem", directory);
    assert_int_equal(tls_make(certificate, key, names, 2), 0);
    assert_int_equal(tls_server_context(certificate, key, &context), 0);
    assert_int_equal(tls_fingerprint(certificate, digits), 0);
    unlink(certificate);
    unlink(key);
    return context;
}

static int setup(void **state)
{
    struct http_config config = {HTTP_CONFIG_DEFAULT, .handle = handle};
    char digits[65];
    SSL_CTX *context;

    (void) state;
    config.handshake_ms = 500;
    config.rate_window_ms = 500;
    config.rate_window_bytes = 1000;
    assert_non_null(mkdtemp(directory));
    context = new_certificate(digits);
    client_context = SSL_CTX_new(TLS_client_method());
    echo_start();
    server = http_server_new(&config);
    assert_int_equal(http_listen_tcp(server, "127.0.0.1", 0, NULL, &port), 0);
    assert_int_equal(http_listen_tcp(server, "127.0.0.1", 0, context, &tls_port), 0);
    SSL_CTX_free(context);
    return http_server_start(server);
}

static int teardown(void **state)
{
    (void) state;
    http_server_destroy(&server);
    SSL_CTX_free(client_context);
    shutdown(echo_fd, SHUT_RDWR);
    pthread_join(echo_id, NULL);
    close_fd(&echo_fd);
    return rmdir(directory);
}

static struct raw *connect_either(bool is_tls)
{
    struct raw *raw = raw_connect("127.0.0.1", is_tls ? tls_port : port);

    if (is_tls)
        raw_start_tls(raw, client_context);
    return raw;
}

static void check_pattern(const char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (data[i] != pattern(i))
            fail_msg("wrong byte at %zu", i);
    }
}

static void wait_for(atomic_int *counter, int value)
{
    for (int ms = 0; atomic_load(counter) < value && ms < RAW_TIMEOUT_S * 1000; ms++)
        usleep(1000);
    assert_true(atomic_load(counter) >= value);
}

/* --- producing ------------------------------------------------------------------------------- */

static char *take_chunked(struct raw *raw, size_t *ret_bytes)
{
    char *body = alloc0(1);
    size_t bytes = 0, size;

    do {
        char *line = raw_take_until(raw, "\r\n"), *data;

        size = strtoul(line, NULL, 16);
        free(line);
        data = raw_take(raw, size + 2);
        body = realloc_array(body, bytes + size + 1, 1);
        memcpy(body + bytes, data, size);
        bytes += size;
        free(data);
    } while (size > 0);
    *ret_bytes = bytes;
    return body;
}

static void streams_have_every_framing(void **state)
{
    (void) state;
    for (int is_tls = 0; is_tls < 2; is_tls++) {
        struct raw *raw = connect_either(is_tls);
        char *head, *body;
        size_t bytes;

        /* known length, twice on the connection */
        for (int i = 0; i < 2; i++) {
            raw_send(raw, "GET /produce?bytes=3000000&how=3000000 HTTP/1.1\r\n\r\n");
            body = raw_answer(raw, 200, NULL);
            check_pattern(body, 3000000);
            free(body);
        }
        /* chunked, woken by another thread each 1,000 bytes */
        raw_send(raw, "GET /produce?bytes=30500&wait=1 HTTP/1.1\r\n\r\n");
        head = raw_take_until(raw, "\r\n\r\n");
        assert_string_equal(head, "HTTP/1.1 200 OK\r\n" BINARY
                                  "transfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n");
        free(head);
        body = take_chunked(raw, &bytes);
        assert_int_equal(bytes, 30500);
        check_pattern(body, bytes);
        free(body);
        /* HEAD: the head only, and the connection goes on */
        raw_send(raw, "HEAD /produce?bytes=5&how=5 HTTP/1.1\r\n\r\n");
        head = raw_take_until(raw, "\r\n\r\n");
        assert_non_null(strstr(head, "content-length: 5\r\n"));
        free(head);
        /* up to the end, as HTTP/1.0 needs it, keep-alive or not */
        raw_send(raw, "GET /produce?bytes=1000000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        head = raw_take_until(raw, "\r\n\r\n");
        assert_string_equal(head, "HTTP/1.0 200 OK\r\n" BINARY "connection: close\r\n\r\n");
        free(head);
        body = raw_take_all(raw);
        check_pattern(body, 1000000);
        free(body);
        assert_false(raw->was_reset);
        raw_close(&raw);
    }
    wait_for(&destroyed, 10);
    assert_int_equal(atomic_load(&destroyed), 10);
}

static void a_failed_stream_is_seen_to_fail(void **state)
{
    static const char *const requests[] = {
        "GET /produce?bytes=1000&fail=1 HTTP/1.0\r\n\r\n",
        "GET /produce?bytes=1000&fail=1 HTTP/1.1\r\n\r\n",
        "GET /produce?bytes=1000&how=2000 HTTP/1.1\r\n\r\n", /* ends too early */
    };
    int destroyed_before = atomic_load(&destroyed);

    (void) state;
    for (size_t i = 0; i < 2 * ARRAY_SIZE(requests); i++) {
        struct raw *raw = connect_either(i % 2);

        raw_send(raw, requests[i / 2]);
        free(raw_take_all(raw));
        assert_true(raw->was_reset);
        raw_close(&raw);
    }
    wait_for(&destroyed, destroyed_before + 6);
}

static void a_slow_reader_bounds_what_is_made(void **state)
{
    struct raw *slow = connect_either(false), *quick = connect_either(false);
    int before = atomic_load(&produced_kib), seen, still;
    int destroyed_before = atomic_load(&destroyed);

    (void) state;
    raw_send(slow, "GET /produce?bytes=10000000000&how=10000000000 HTTP/1.1\r\n\r\n");
    raw_expect(quick, "GET / HTTP/1.1\r\n\r\n", 200, "plain");
    do { /* until both socket buffers are full */
        seen = atomic_load(&produced_kib);
        usleep(50000);
        still = atomic_load(&produced_kib);
    } while (seen != still || seen == before);
    assert_true(still - before < 64 * 1024);
    raw_expect(quick, "GET / HTTP/1.1\r\n\r\n", 200, "plain");
    wait_for(&destroyed, destroyed_before + 1); /* below the least rate it is cut */
    raw_close(&slow);
    raw_close(&quick);
}

static void streams_take_turns(void **state)
{
    struct raw *raws[8];

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(raws); i++) {
        raws[i] = connect_either(i % 2);
        raw_send(raws[i], "GET /produce?bytes=2000000&how=2000000 HTTP/1.1\r\n\r\n");
    }
    for (size_t i = ARRAY_SIZE(raws); i-- > 0;) {
        char *body = raw_answer(raws[i], 200, NULL);

        check_pattern(body, 2000000);
        free(body);
        raw_close(&raws[i]);
    }
}

/* --- uploading ------------------------------------------------------------------------------- */

static char *pattern_bytes(size_t bytes)
{
    char *data = alloc0(bytes);

    for (size_t i = 0; i < bytes; i++)
        data[i] = pattern(i);
    return data;
}

static void uploads_have_every_framing(void **state)
{
    char *data = pattern_bytes(1000000);

    (void) state;
    for (int is_tls = 0; is_tls < 2; is_tls++) {
        static const char *const paths[] = {"/upload", "/loop_upload"};

        for (size_t p = 0; p < ARRAY_SIZE(paths); p++) {
            struct raw *raw = connect_either(is_tls);
            char head[256];

            snprintf(head, sizeof head, "PUT %s HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n",
                     paths[p]);
            raw_send(raw, head);
            assert_true(raw_try_send(raw, data, 1000000));
            raw_expect(raw, "", 200, "1000000 bytes, 0 wrong");

            snprintf(
                head, sizeof head,
                "PUT %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
                paths[p]);
            raw_send(raw, head);
            free(raw_take_until(raw, "100 Continue\r\n\r\n"));
            for (size_t at = 0; at < 1000000; at += 12500) {
                raw_send(raw, "30d4\r\n");
                assert_true(raw_try_send(raw, data + at, 12500));
                raw_send(raw, "\r\n");
            }
            raw_send(raw, "0\r\n\r\n");
            raw_expect(raw, "", 200, "1000000 bytes, 0 wrong");

            snprintf(head, sizeof head, "PUT %s HTTP/1.1\r\nContent-Length: 0\r\n\r\n", paths[p]);
            raw_expect(raw, head, 200, "0 bytes, 0 wrong");

            snprintf(head, sizeof head, "PUT %s HTTP/1.0\r\n\r\n", paths[p]);
            raw_send(raw, head);
            assert_true(raw_try_send(raw, data, 1000000));
            raw_end(raw);
            raw_expect(raw, "", 200, "1000000 bytes, 0 wrong");
            raw_expect_end(raw);
            raw_close(&raw);
        }
    }
    free(data);
}

static void a_full_buffer_holds_the_client_back(void **state)
{
    _cleanup_(raw_close) struct raw *raw = connect_either(false);
    size_t bytes = 30000000, sent = 0;
    char *data = pattern_bytes(bytes);

    (void) state;
    /* The consumer sleeps for much longer than the rate window: that is ours to excuse, not the
     * client's. */
    raw_send(raw, "PUT /upload?pause=1500 HTTP/1.1\r\nContent-Length: 30000000\r\n\r\n");
    while (sent < bytes) {
        ssize_t now = send(raw->fd, data + sent, bytes - sent, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (now < 0) {
            struct timeval wait = {.tv_usec = 300000};
            fd_set writable;

            FD_ZERO(&writable);
            FD_SET(raw->fd, &writable);
            if (select(raw->fd + 1, NULL, &writable, NULL, &wait) == 0)
                break;
            continue;
        }
        sent += (size_t) now;
    }
    assert_true(sent < bytes - 5000000); /* sockets and ring hold the rest up */
    assert_true(raw_try_send(raw, data + sent, bytes - sent));
    raw_expect(raw, "", 200, "30000000 bytes, 0 wrong");
    free(data);
}

static void an_early_head_comes_before_the_body(void **state)
{
    _cleanup_(raw_close) struct raw *raw = connect_either(false);
    char *data = pattern_bytes(200000), *head;

    (void) state;
    raw_send(
        raw,
        "PUT /upload?early=1 HTTP/1.1\r\nContent-Length: 200000\r\nExpect: 100-continue\r\n\r\n");
    head = raw_take_until(raw, "\r\n\r\n");
    assert_string_equal(head, "HTTP/1.1 100 Continue\r\n\r\n");
    free(head);
    head = raw_take_until(raw, "\r\n\r\n");
    assert_string_equal(head,
                        "HTTP/1.1 200 OK\r\ncache-control: no-cache\r\nconnection: close\r\n\r\n");
    free(head);
    assert_true(raw_try_send(raw, data, 200000));
    head = raw_take_all(raw);
    assert_string_equal(head, "200000 bytes, 0 wrong");
    assert_false(raw->was_reset);
    free(head);
    free(data);
}

static void a_broken_upload_is_told(void **state)
{
    int before = atomic_load(&broken);
    struct raw *raw = connect_either(false);

    (void) state;
    raw_send(raw, "PUT /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n20\r\nnot all");
    raw_close(&raw); /* ends early, and knew better */
    wait_for(&broken, before + 1);
    raw = connect_either(false);
    raw_send(raw, "PUT /loop_upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX");
    raw_expect(raw, "", 400, ""); /* nonsense */
    wait_for(&broken, before + 2);
    raw_close(&raw);
    raw = connect_either(false);
    raw_send(raw, "PUT /upload HTTP/1.1\r\nContent-Length: 20\r\n\r\nslow");
    wait_for(&broken, before + 3); /* falls below the least rate */
    raw_close(&raw);
}

/* For clients that go without having read: a server of TLS 1.3 sends tickets some time after the handshake, to close with those
 * unread is a reset, and one that comes before them takes the request along. */
static struct raw *connect_to_go(bool is_tls)
{
    struct raw *raw;

    SSL_CTX_set_max_proto_version(client_context, TLS1_2_VERSION);
    raw = connect_either(is_tls);
    SSL_CTX_set_max_proto_version(client_context, 0);
    return raw;
}

static void an_end_in_order_is_told_from_a_cut(void **state)
{
    static const char *const paths[] = {"/upload", "/loop_upload"};
    char head[128];

    (void) state;
    for (int is_tls = 0; is_tls < 2; is_tls++) {
        for (size_t p = 0; p < ARRAY_SIZE(paths); p++) {
            int short_before = atomic_load(&ended_short), broken_before = atomic_load(&broken);
            struct raw *raw = connect_either(is_tls);

            snprintf(head, sizeof head, "PUT %s HTTP/1.1\r\nContent-Length: 1125899906842624\r\n\r\nabc", paths[p]);
            raw_send(raw, head);
            raw_end(raw); /* who half-closes hears how it went */
            raw_expect(raw, "", 200, "3 bytes, 3 wrong");
            raw_expect_end(raw);
            assert_false(raw->was_reset);
            raw_close(&raw);
            wait_for(&ended_short, short_before + 1);

            if (is_tls) { /* TLS's own word alone, TCP stays open */
                raw = connect_either(true);
                raw_send(raw, head);
                SSL_shutdown(raw->ssl);
                raw_expect(raw, "", 200, "3 bytes, 3 wrong");
                raw_expect_end(raw);
                assert_false(raw->was_reset);
                raw_close(&raw);
                wait_for(&ended_short, short_before + 2);
            }

            raw = connect_to_go(is_tls);
            raw_send(raw, head);
            if (is_tls)
                SSL_shutdown(raw->ssl);
            raw_close(&raw); /* for good, but in order */
            wait_for(&ended_short, short_before + 2 + is_tls);
            assert_int_equal(atomic_load(&broken), broken_before);

            raw = connect_to_go(is_tls);
            raw_send(raw, head);
            raw_cut(&raw);
            wait_for(&broken, broken_before + 1);
            if (is_tls) { /* TCP ends, TLS does not */
                raw = connect_to_go(true);
                raw_send(raw, head);
                raw_close(&raw);
                wait_for(&broken, broken_before + 2);
            }
            assert_int_equal(atomic_load(&ended_short), short_before + 2 + is_tls);
        }
    }
}

/* Far below the least rate, which is 1,000 bytes in half a second here. */
static void an_upload_that_may_be_silent_lives_from_any_byte(void **state)
{
    int broken_before = atomic_load(&broken), complete_before = atomic_load(&complete);

    (void) state;
    for (int is_tls = 0; is_tls < 2; is_tls++) {
        struct raw *raw = connect_either(is_tls);
        char *data = pattern_bytes(10);

        raw_send(raw, "PUT /upload?silence=1000 HTTP/1.1\r\nContent-Length: 10\r\n\r\n");
        for (int i = 0; i < 10; i++) {
            usleep(300000);
            assert_true(raw_try_send(raw, data + i, 1));
        }
        raw_expect(raw, "", 200, "10 bytes, 0 wrong");
        free(data);
        raw_close(&raw);
    }
    wait_for(&complete, complete_before + 2);
    assert_int_equal(atomic_load(&broken), broken_before);

    for (int is_early = 0; is_early < 2; is_early++) { /* but not for ever */
        struct raw *raw = connect_either(false);

        raw_send(raw, is_early ? "PUT /upload?silence=1000&early=1 HTTP/1.1\r\nContent-Length: 20\r\n\r\nslow"
                               : "PUT /upload?silence=1000 HTTP/1.1\r\nContent-Length: 20\r\n\r\nslow");
        wait_for(&broken, broken_before + 1 + is_early);
        raw_close(&raw);
    }
}

/* Nor is it lost that it had sent all. */
static void what_came_before_a_reset_is_read(void **state)
{
    enum { ALL = 110 * 1024 }; /* more than the buffer, which is full when the reset comes */
    int broken_before = atomic_load(&broken), complete_before = atomic_load(&complete), kib_before = atomic_load(&complete_kib);
    struct raw *raw = connect_either(false);
    char *data = pattern_bytes(ALL);
    int unsent = 1;

    (void) state;
    raw_send(raw, "PUT /upload?pause=500 HTTP/1.1\r\nContent-Length: 112640\r\n\r\n");
    assert_true(raw_try_send(raw, data, ALL));
    while (unsent > 0) {
        assert_int_equal(ioctl(raw->fd, SIOCOUTQ, &unsent), 0);
        sched_yield();
    }
    setsockopt(raw->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
    raw_close(&raw);
    wait_for(&complete, complete_before + 1);
    assert_int_equal(atomic_load(&complete_kib), kib_before + ALL / 1024);
    assert_int_equal(atomic_load(&broken), broken_before);
    free(data);
}

static void a_consumer_may_give_up(void **state)
{
    _cleanup_(raw_close) struct raw *raw = connect_either(false);
    char *data = pattern_bytes(100000), *head;

    (void) state;
    raw_send(raw, "PUT /upload?give_up=1 HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n");
    raw_try_send(raw, data, 100000);
    head = raw_take_until(raw, "\r\n\r\n");
    assert_int_equal(atoi(head + 9), 507);
    assert_non_null(strstr(head, "connection: close\r\n"));
    free(head);
    free(data);
}

/* --- tunnels and TLS ------------------------------------------------------------------------- */

static void a_tunnel_passes_everything_both_ways(void **state)
{
    (void) state;
    for (int is_tls = 0; is_tls < 2; is_tls++) {
        struct raw *raw = connect_either(is_tls);
        int done_before = atomic_load(&relays_done);
        char *data = pattern_bytes(3000000), *got;

        /* what follows the head at once belongs to the tunnel */
        raw_send(raw, "CONNECT /console?ref=x HTTP/1.0\r\n\r\nRFB 003.008\n");
        got = raw_take(raw, strlen(CONNECTED) + 12);
        assert_string_equal(got, CONNECTED "RFB 003.008\n");
        free(got);
        for (size_t at = 0; at < 3000000; at += 100000) {
            assert_true(raw_try_send(raw, data + at, 100000));
            got = raw_take(raw, 100000);
            assert_memory_equal(got, data + at, 100000);
            free(got);
        }
        if (!is_tls) { /* the last words still arrive */
            raw_send(raw, "bye ");
            raw_end(raw);
            got = raw_take_all(raw);
            assert_string_equal(got, "bye goodbye");
            free(got);
        }
        raw_close(&raw);
        wait_for(&relays_done, done_before + 1);
        free(data);
    }
}

static void a_connection_can_be_taken_over(void **state)
{
    (void) state;
    for (int is_tls = 0; is_tls < 2; is_tls++) {
        struct raw *raw = connect_either(is_tls);
        char *got;

        raw_send(raw, "GET /shout HTTP/1.1\r\nUpgrade: shouting\r\n\r\nhello");
        got = raw_take_until(raw, "HELLO");
        assert_string_equal(got, "HTTP/1.1 101 Switching Protocols\r\n\r\nHELLO");
        free(got);
        raw_send(raw, " world");
        got = raw_take(raw, 6);
        assert_string_equal(got, " WORLD");
        free(got);
        raw_close(&raw);
    }
}

static void peer_digits(struct raw *raw, char digits[65])
{
    X509 *certificate = SSL_get1_peer_certificate(raw->ssl);
    unsigned char digest[32];

    X509_digest(certificate, EVP_sha256(), digest, NULL);
    for (size_t i = 0; i < sizeof digest; i++)
        sprintf(digits + 2 * i, "%02x", digest[i]);
    X509_free(certificate);
}

static void a_new_certificate_serves_new_connections(void **state)
{
    struct raw *old = connect_either(true), *new;
    char old_digits[65], new_digits[65], expected[65];
    SSL_CTX *context = new_certificate(expected);

    (void) state;
    raw_expect(old, "GET / HTTP/1.1\r\n\r\n", 200, "tls");
    http_server_replace_tls(server, context);
    SSL_CTX_free(context);
    new = connect_either(true);
    peer_digits(old, old_digits);
    peer_digits(new, new_digits);
    assert_string_equal(new_digits, expected);
    assert_string_not_equal(old_digits, expected);
    raw_expect(old, "GET / HTTP/1.1\r\n\r\n", 200, "tls");
    raw_expect(new, "GET / HTTP/1.1\r\n\r\n", 200, "tls");
    raw_close(&old);
    raw_close(&new);
}

static void a_silent_handshake_is_cut(void **state)
{
    _cleanup_(raw_close) struct raw *silent = raw_connect("127.0.0.1", tls_port);
    _cleanup_(raw_close) struct raw *plain = raw_connect("127.0.0.1", tls_port);

    (void) state;
    raw_send(plain, "GET / HTTP/1.1\r\n\r\n");
    free(raw_take_all(plain)); /* an alert, perhaps, but no answer */
    raw_expect_end(silent);
}

static void a_stop_ends_what_is_under_way(void **state)
{
    struct raw *stream = connect_either(false), *upload = connect_either(true),
               *tunnelled = connect_either(true);
    int relays_before = atomic_load(&relays_done);
    int destroyed_before = atomic_load(&destroyed), broken_before = atomic_load(&broken);

    (void) state;
    raw_send(stream, "GET /produce?bytes=1000000000&how=1000000000 HTTP/1.1\r\n\r\n");
    free(raw_take(stream, 1000));
    raw_send(upload,
             "PUT /upload HTTP/1.1\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n");
    free(raw_take_until(upload, "100 Continue\r\n\r\n"));
    raw_send(tunnelled, "CONNECT /console HTTP/1.1\r\n\r\nx");
    free(raw_take(tunnelled, strlen(CONNECTED) + 1));
    http_server_stop(server);
    assert_int_equal(atomic_load(&relays_done), relays_before + 1);
    wait_for(&destroyed, destroyed_before + 1);
    free(raw_take_all(stream));
    raw_close(&stream);
    raw_close(&upload);
    raw_close(&tunnelled);
    for (int ms = 0; atomic_load(&sink_threads) > 0 && ms < RAW_TIMEOUT_S * 1000; ms++)
        usleep(1000); /* who may post must be done before the end */
    http_server_destroy(&server);
    assert_int_equal(atomic_load(&broken), broken_before + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_have_every_framing),
        cmocka_unit_test(a_failed_stream_is_seen_to_fail),
        cmocka_unit_test(a_slow_reader_bounds_what_is_made),
        cmocka_unit_test(streams_take_turns),
        cmocka_unit_test(uploads_have_every_framing),
        cmocka_unit_test(a_full_buffer_holds_the_client_back),
        cmocka_unit_test(an_early_head_comes_before_the_body),
        cmocka_unit_test(a_broken_upload_is_told),
        cmocka_unit_test(an_end_in_order_is_told_from_a_cut),
        cmocka_unit_test(an_upload_that_may_be_silent_lives_from_any_byte),
        cmocka_unit_test(what_came_before_a_reset_is_read),
        cmocka_unit_test(a_consumer_may_give_up),
        cmocka_unit_test(a_tunnel_passes_everything_both_ways),
        cmocka_unit_test(a_connection_can_be_taken_over),
        cmocka_unit_test(a_new_certificate_serves_new_connections),
        cmocka_unit_test(a_silent_handshake_is_cut),
        cmocka_unit_test(a_stop_ends_what_is_under_way),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
