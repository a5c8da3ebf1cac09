/* test_http_pass.c - requests that another server answers: two servers in one process, and what goes between them */
#include "tests/raw_http.h"

#include <stdatomic.h>

#include "shared/http_pass.h"
#include "shared/http_routes.h"
#include "shared/tls.h"

/* For the server behind. */
#define LINGER_MS 200

#define GIB ((uint64_t) 1 << 30)

/* That this process may grow while a GiB goes through it. The address sanitizer keeps freed memory for a while. */
#ifndef __has_feature /* gcc */
#define __has_feature(x) 0
#endif
#if __has_feature(address_sanitizer) || defined(__SANITIZE_ADDRESS__)
#define GROWTH_BYTES_MAX (512 << 20)
#else
#define GROWTH_BYTES_MAX (32 << 20)
#endif

static struct http_server *front, *back;
static uint16_t port, port_v6, tls_port;
static char directory[] = P_tmpdir "/test_http_pass.XXXXXX";
static char front_path[128], back_path[128];
static SSL_CTX *client_context;
static atomic_int broken, ended_short, complete, sources_gone;
static atomic_size_t produced_bytes;

/* Bodies: byte n is block[n % 65536], which is there twice. */
static char block[2 * 65536];

static void block_fill(void)
{
    uint32_t random = 1;

    for (size_t i = 0; i < 65536; i++) {
        random = random * 1664525 + 1013904223;
        block[i] = block[65536 + i] = (char) (random >> 24);
    }
}

/* ---- the server behind ---- */

struct source {
    uint64_t at, end;
    enum http_produced last;
};

static void source_gone(void *arg)
{
    free(arg);
    atomic_fetch_add(&sources_gone, 1);
}

static enum http_produced source_produce(struct http_request *http, struct evbuffer *out, size_t wanted, void *arg)
{
    struct source *source = arg;
    size_t bytes = MIN(MIN(wanted, (size_t) 65536), (size_t) (source->end - source->at));

    (void) http;
    evbuffer_add(out, block + source->at % 65536, bytes);
    source->at += bytes;
    atomic_fetch_add(&produced_bytes, bytes);
    return source->at == source->end ? source->last : HTTP_MORE;
}

static void get_bytes(struct http_request *http, void *arg)
{
    struct source *source = new0(struct source);
    const char *length = http_param(http, "length");

    (void) arg;
    source->end = strtoull(http_param(http, "bytes"), NULL, 10);
    source->last = http_param(http, "fail") ? HTTP_FAILED : HTTP_DONE;
    http_produce(http, 200, "", length ? strtoll(length, NULL, 10) : HTTP_LENGTH_UNKNOWN, source_produce, source,
                 source_gone);
}

struct sink {
    struct http_ticket ticket;
    struct http_upload *upload;
    uint64_t bytes;
    bool is_wrong;
    bool aborts; /* instead of an answer */
    enum http_upload_state state;
};

static void sink_answer(struct http_request *http, void *arg)
{
    struct sink *sink = arg;
    char text[64];

    if (http && sink->aborts)
        http_abort(http);
    else if (http) {
        snprintf(text, sizeof text, "%llu %s", (unsigned long long) sink->bytes, sink->is_wrong ? "wrong" : "right");
        http_reply_text(http, 200, "", text);
    }
    free(sink);
}

static void on_upload(struct http_upload *upload, void *arg)
{
    struct sink *sink = arg;
    const char *data;
    size_t bytes;

    while ((bytes = http_upload_peek(upload, &data, &sink->state)) > 0) {
        bytes = MIN(bytes, (size_t) 65536);
        sink->is_wrong |= memcmp(data, block + sink->bytes % 65536, bytes) != 0;
        sink->bytes += bytes;
        http_upload_consumed(upload, bytes);
    }
    if (sink->state == HTTP_UPLOAD_OPEN)
        return;
    atomic_fetch_add(sink->state == HTTP_UPLOAD_BROKEN ? &broken : sink->state == HTTP_UPLOAD_SHORT ? &ended_short : &complete, 1);
    http_upload_unref(&sink->upload);
    http_ticket_post(sink->ticket, sink_answer, sink);
}

static void put_bytes(struct http_request *http, void *arg)
{
    struct sink *sink = new0(struct sink);

    (void) arg;
    sink->ticket = http_park(http, NULL, NULL);
    sink->aborts = http_param(http, "abort");
    if (http_param(http, "early"))
        http_send_head_early(http, 200, "");
    sink->upload = http_consume(http, 100000, on_upload, sink);
}

static void refuse(struct http_request *http, void *arg)
{
    (void) arg;
    http_reply_html(http, 403, "", "no");
}

/* What the server behind was told: the line, the headers but for ours, and where it all came from. */
static void tell(struct http_request *http, void *arg)
{
    struct evbuffer *text = evbuffer_new();
    const char *name, *value;
    struct http_origin origin;

    (void) arg;
    http_origin_of(http, &origin);
    evbuffer_add_printf(text, "%s %s 1.%d\n", http->method_text, http->target, http->minor);
    for (size_t i = 0; http_header_at(http, i, &name, &value); i++)
        if (strcasecmp(name, "x-drover-from") != 0)
            evbuffer_add_printf(text, "%s: %s\n", name, value);
    evbuffer_add_printf(text, "%s %s %s %d\n", origin.is_local ? "local" : "passed", origin.is_tls ? "tls" : "plain",
                        origin.peer, origin.local_port);
    http_reply(http, 200, "", text);
    evbuffer_free(text);
}

static void on_echo(struct bufferevent *connection, void *arg)
{
    (void) arg;
    bufferevent_write_buffer(connection, bufferevent_get_input(connection));
}

static void on_echo_end(struct bufferevent *connection, short what, void *arg)
{
    (void) what;
    (void) arg;
    bufferevent_free(connection);
}

static void echo(struct http_request *http, struct bufferevent *connection, void *arg)
{
    (void) http;
    (void) arg;
    bufferevent_setcb(connection, on_echo, NULL, on_echo_end, NULL);
    bufferevent_enable(connection, EV_READ | EV_WRITE);
}

static void upgrade(struct http_request *http, void *arg)
{
    (void) arg;
    if (http_header(http, "upgrade"))
        http_take_over(http, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n", echo, NULL);
    else
        http_take_over(http, "HTTP/1.1 200 OK\r\n\r\n", echo, NULL);
}

static void redirect(struct http_request *http, void *arg)
{
    (void) arg;
    http_redirect(http, http_param(http, "to"));
}

/* ---- the server in front ---- */

static void pass(struct http_request *http, void *arg)
{
    assert(http_pass_unix(http, arg));
}

static void pass_nowhere(struct http_request *http, void *arg)
{
    (void) arg;
    assert(!http_pass_unix(http, "/nonexistent/socket"));
    http_close_after(http);
    http_reply_html(http, 503, "", "nobody is there");
}

static struct http_routes front_routes, back_routes;

static void serve(struct http_request *http, void *arg)
{
    http_routes_serve(arg, http);
}

static SSL_CTX *new_certificate(void)
{
    static const char *const names[] = {"127.0.0.1"};
    char certificate[128], key[128];
    SSL_CTX *context;

    snprintf(certificate, sizeof certificate, "%s/certificate.pem", directory);
    snprintf(key, sizeof key, "%s/key.pem", directory);
    assert_int_equal(tls_make(certificate, key, names, 1), 0);
    assert_int_equal(tls_server_context(certificate, key, &context), 0);
    unlink(certificate);
    unlink(key);
    return context;
}

static int setup(void **state)
{
    struct http_config config = {HTTP_CONFIG_DEFAULT, .handle = serve};
    SSL_CTX *context;

    (void) state;
    block_fill();
    assert_non_null(mkdtemp(directory));
    snprintf(front_path, sizeof front_path, "%s/front", directory);
    snprintf(back_path, sizeof back_path, "%s/back", directory);
    context = new_certificate();
    client_context = SSL_CTX_new(TLS_client_method());

    http_routes_add(&back_routes, HTTP_GET, "/bytes", get_bytes, NULL);
    http_routes_add(&back_routes, HTTP_PUT, "/bytes", put_bytes, NULL);
    http_routes_add(&back_routes, HTTP_PUT, "/refuse", refuse, NULL);
    http_routes_add(&back_routes, HTTP_GET, "/tell", tell, NULL);
    http_routes_add(&back_routes, HTTP_POST, "/tell", tell, NULL);
    http_routes_add(&back_routes, HTTP_CONNECT, "/upgrade", upgrade, NULL);
    http_routes_add(&back_routes, HTTP_GET, "/upgrade", upgrade, NULL);
    http_routes_add(&back_routes, HTTP_GET, "/redirect", redirect, NULL);
    for (enum http_method method = HTTP_GET; method <= HTTP_CONNECT; method++) {
        static const char *const paths[] = {"/bytes", "/refuse", "/tell", "/upgrade", "/redirect"};

        for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
            http_routes_add(&front_routes, method, paths[i], pass, back_path);
    }
    http_routes_add(&front_routes, HTTP_GET, "/here", redirect, NULL);
    http_routes_add(&front_routes, HTTP_PUT, "/nowhere", pass_nowhere, NULL);

    config.loops = 1;
    config.arg = &back_routes;
    config.linger_ms = LINGER_MS;
    back = http_server_new(&config);
    assert_int_equal(http_listen_unix(back, back_path), 0);
    assert_int_equal(http_server_start(back), 0);
    config.arg = &front_routes;
    front = http_server_new(&config);
    assert_int_equal(http_listen_tcp(front, "127.0.0.1", 0, NULL, &port), 0);
    assert_int_equal(http_listen_tcp(front, "::1", 0, NULL, &port_v6), 0);
    assert_int_equal(http_listen_tcp(front, "127.0.0.1", 0, context, &tls_port), 0);
    assert_int_equal(http_listen_unix(front, front_path), 0);
    SSL_CTX_free(context);
    return http_server_start(front);
}

static int teardown(void **state)
{
    (void) state;
    http_server_destroy(&front);
    http_server_destroy(&back);
    http_routes_done(&front_routes);
    http_routes_done(&back_routes);
    SSL_CTX_free(client_context);
    unlink(front_path);
    unlink(back_path);
    return rmdir(directory);
}

/* ---- clients ---- */

static struct raw *connect_either(bool is_tls)
{
    struct raw *raw = raw_connect("127.0.0.1", is_tls ? tls_port : port);

    if (is_tls)
        raw_start_tls(raw, client_context);
    return raw;
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

static void send_bytes(struct raw *raw, uint64_t from, uint64_t to)
{
    while (from < to) {
        size_t bytes = MIN((uint64_t) 65536, to - from);

        assert_true(raw_try_send(raw, block + from % 65536, bytes));
        from += bytes;
    }
}

/* Up to the server's end, comparing; returns how many came. */
static uint64_t take_bytes(struct raw *raw)
{
    uint64_t count = 0;

    while (true) {
        for (size_t at = 0; at < raw->bytes;) {
            size_t bytes = MIN(raw->bytes - at, (size_t) 65536);

            assert_memory_equal(raw->text + at, block + count % 65536, bytes);
            at += bytes;
            count += bytes;
        }
        raw->bytes = 0;
        if (raw->is_over)
            return count;
        raw_fill(raw);
    }
}

static void wait_for(atomic_int *counter, int value)
{
    for (int ms = 0; atomic_load(counter) < value && ms < RAW_TIMEOUT_S * 1000; ms++)
        usleep(1000);
    assert_true(atomic_load(counter) >= value);
}

static size_t memory_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    size_t size = 0, resident = 0;

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%zu %zu", &size, &resident), 2);
    fclose(file);
    return resident * (size_t) sysconf(_SC_PAGESIZE);
}

/* ---- heads ---- */

static void a_request_comes_through_as_it_was(void **state)
{
    (void) state;
    for (int is_tls = 0; is_tls < 2; is_tls++) {
        struct raw *raw = connect_either(is_tls);
        char expected[512], *got;

        raw_send(raw, "GET /tell/a%20b?x=%2f&y=+ HTTP/1.1\r\nHost: pool\r\nX-Drover-From: unix\r\nCookie: a=b\r\n"
                      "Connection: keep-alive\r\ncookie: c=d\r\nKeep-Alive: 5\r\nTE: trailers\r\nX-Empty:\r\n\r\n");
        snprintf(expected, sizeof expected,
                 "GET /tell/a%%20b?x=%%2f&y=+ 1.1\nHost: pool\nCookie: a=b\ncookie: c=d\nX-Empty: \nconnection: close\n"
                 "passed %s 127.0.0.1 %u\n",
                 is_tls ? "tls" : "plain", is_tls ? tls_port : port);
        got = raw_answer(raw, 200, NULL);
        assert_string_equal(got, expected);
        free(got);
        raw_expect_end(raw);
        raw_close(&raw);
    }
}

static void who_asked_is_believed_from_the_socket_only(void **state)
{
    struct raw *raw = raw_connect("::1", port_v6);
    char expected[128];

    (void) state;
    snprintf(expected, sizeof expected, "GET /tell 1.0\nconnection: close\npassed plain ::1 %u\n", port_v6);
    raw_expect(raw, "GET /tell HTTP/1.0\r\nX-Drover-From: https 192.0.2.1 1 443\r\n\r\n", 200, expected);
    raw_close(&raw);
    raw = raw_connect_unix(front_path);
    raw_expect(raw, "GET /tell HTTP/1.0\r\n\r\n", 200, "GET /tell 1.0\nconnection: close\nlocal plain unix 0\n");
    raw_close(&raw);
    raw = raw_connect_unix(back_path);
    raw_expect(raw, "GET /tell HTTP/1.0\r\n\r\n", 200, "GET /tell 1.0\nlocal plain unix 0\n");
    raw_close(&raw);
    raw = raw_connect_unix(back_path);
    raw_expect(raw, "GET /tell HTTP/1.0\r\nX-Drover-From: https 2001:db8::1 999 443\r\n\r\n", 200,
               "GET /tell 1.0\npassed tls 2001:db8::1 443\n");
    raw_close(&raw);
    raw = raw_connect_unix(back_path); /* makes no sense: at any rate not local */
    raw_expect(raw, "GET /tell HTTP/1.0\r\nX-Drover-From: https 192.0.2.1 999 443 unix\r\n\r\n", 200,
               "GET /tell 1.0\npassed plain unix 0\n");
    raw_close(&raw);
}

static void what_follows_a_request_is_no_second_one(void **state)
{
    _cleanup_(raw_close) struct raw *raw = connect_either(false);
    char *got;

    (void) state;
    raw_send(raw, "POST /tell HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
                  "GET /bytes?bytes=5 HTTP/1.1\r\nX-Drover-From: unix\r\n\r\n");
    got = raw_answer(raw, 200, NULL);
    free(got);
    raw_expect_end(raw);
}

static void a_server_that_is_not_there_is_503(void **state)
{
    _cleanup_(raw_close) struct raw *raw = connect_either(false);
    char *got;

    (void) state;
    raw_send(raw, "PUT /nowhere HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789");
    got = raw_answer(raw, 503, NULL);
    assert_non_null(strstr(got, "<h1>HTTP 503 "));
    free(got);
}

/* ---- bodies ---- */

static void uploads_pass_in_every_framing(void **state)
{
    (void) state;
    for (int is_tls = 0; is_tls < 2; is_tls++) {
        struct raw *raw = connect_either(is_tls);
        char *head;

        raw_send(raw, "PUT /bytes HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
        send_bytes(raw, 0, 1000000);
        raw_expect(raw, "", 200, "1000000 right");
        raw_close(&raw);

        raw = connect_either(is_tls);
        raw_send(raw, "PUT /bytes HTTP/1.1\r\nContent-Length: 300000\r\nExpect: 100-continue\r\n\r\n");
        head = raw_take_until(raw, "\r\n\r\n");
        assert_string_equal(head, "HTTP/1.1 100 Continue\r\n\r\n");
        free(head);
        send_bytes(raw, 0, 300000);
        raw_expect(raw, "", 200, "300000 right");
        raw_close(&raw);

        raw = connect_either(is_tls);
        raw_send(raw, "PUT /bytes HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (uint64_t at = 0; at < 1000000; at += 12500) {
            raw_send(raw, "30d4\r\n");
            send_bytes(raw, at, at + 12500);
            raw_send(raw, "\r\n");
        }
        raw_send(raw, "0\r\n\r\n");
        raw_expect(raw, "", 200, "1000000 right");
        raw_close(&raw);
    }
}

static void an_upload_up_to_the_end_passes(void **state)
{
    (void) state;
    for (int how = 0; how < 3; how++) {
        struct raw *raw = connect_either(how > 0);

        raw_send(raw, "PUT /bytes HTTP/1.0\r\n\r\n");
        send_bytes(raw, 0, 3000000);
        if (how == 2)
            SSL_shutdown(raw->ssl); /* and TCP stays open */
        else
            raw_end(raw);
        raw_expect(raw, "", 200, "3000000 right");
        raw_expect_end(raw);
        assert_false(raw->was_reset);
        raw_close(&raw);
    }
}

static void downloads_pass_in_every_framing(void **state)
{
    struct raw *raw = connect_either(false);
    char *head;

    (void) state;
    raw_send(raw, "GET /bytes?bytes=3000000&length=3000000 HTTP/1.1\r\n\r\n");
    head = raw_take_until(raw, "\r\n\r\n");
    assert_non_null(strstr(head, "content-length: 3000000\r\n"));
    free(head);
    assert_int_equal(take_bytes(raw), 3000000);
    raw_close(&raw);

    raw = connect_either(true);
    raw_send(raw, "GET /bytes?bytes=5000 HTTP/1.1\r\n\r\n");
    head = raw_take_until(raw, "\r\n\r\n");
    assert_non_null(strstr(head, "transfer-encoding: chunked\r\n"));
    free(head);
    free(raw_take_until(raw, "0\r\n\r\n"));
    raw_close(&raw);

    raw = connect_either(true);
    raw_send(raw, "GET /bytes?bytes=3000000 HTTP/1.0\r\n\r\n");
    head = raw_take_until(raw, "\r\n\r\n");
    assert_memory_equal(head, "HTTP/1.0 200 OK\r\n", 17);
    free(head);
    assert_int_equal(take_bytes(raw), 3000000);
    raw_close(&raw);
}

static void a_gigabyte_each_way_takes_no_memory(void **state)
{
    struct raw *raw = connect_either(false);
    size_t before = memory_bytes();
    char *head;

    (void) state;
    raw_send(raw, "PUT /bytes HTTP/1.1\r\nContent-Length: 1073741824\r\n\r\n");
    send_bytes(raw, 0, GIB);
    raw_expect(raw, "", 200, "1073741824 right");
    raw_close(&raw);
    assert_true(memory_bytes() < before + GROWTH_BYTES_MAX);

    raw = connect_either(false);
    raw_send(raw, "GET /bytes?bytes=1073741824 HTTP/1.0\r\n\r\n");
    head = raw_take_until(raw, "\r\n\r\n");
    free(head);
    assert_int_equal(take_bytes(raw), GIB);
    raw_close(&raw);
    assert_true(memory_bytes() < before + GROWTH_BYTES_MAX);
}

static void a_slow_reader_bounds_what_is_made(void **state)
{
    _cleanup_(raw_close) struct raw *raw = connect_either(false);
    size_t made, still;
    char *head;

    (void) state;
    atomic_store(&produced_bytes, 0);
    raw_send(raw, "GET /bytes?bytes=200000000&length=200000000 HTTP/1.1\r\n\r\n");
    head = raw_take_until(raw, "\r\n\r\n");
    free(head);
    do { /* until nothing moves any more */
        made = atomic_load(&produced_bytes);
        usleep(200000);
        still = atomic_load(&produced_bytes);
    } while (made != still);
    assert_true(made < 20000000); /* what sockets and relay hold */
    assert_int_equal(take_bytes(raw), 200000000);
}

/* ---- ends ---- */

static void a_refused_upload_hears_why(void **state)
{
    (void) state;
    for (int round = 0; round < 2; round++) {
        struct raw *raw = connect_either(false);
        char *head;

        raw_send(raw, "PUT /refuse HTTP/1.1\r\nContent-Length: 500000000\r\n\r\n");
        for (int i = 0; i < 3000; i++) /* much more than sockets hold, and no look at the answer meanwhile */
            if (!raw_try_send(raw, block, 65536))
                break;
        head = raw_take_until(raw, "\r\n\r\n");
        assert_memory_equal(head, "HTTP/1.1 403 ", 13);
        free(head);
        raw_close(&raw);
    }
}

static void a_cut_upload_is_seen_as_cut(void **state)
{
    static const char *const heads[] = {
        "PUT /bytes HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n",
        "PUT /bytes?early=1 HTTP/1.1\r\nContent-Length: 1125899906842624\r\n\r\n",
        "PUT /bytes HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n",
        "PUT /bytes HTTP/1.0\r\n\r\n", /* where a mere end would be the end of the body */
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
        for (int how = 0; how < 3; how++) {
            int before = atomic_load(&broken), others_before = atomic_load(&complete) + atomic_load(&ended_short);
            struct raw *raw = connect_to_go(how > 0);

            raw_send(raw, heads[i]);
            send_bytes(raw, 0, 1000000);
            if (how < 2)
                raw_cut(&raw);
            else /* TCP ends, TLS does not */
                raw_close(&raw);
            wait_for(&broken, before + 1);
            assert_int_equal(atomic_load(&complete) + atomic_load(&ended_short), others_before);
        }
    }
}

static void an_upload_that_ends_in_order_is_not_broken(void **state)
{
    (void) state;
    for (int is_early = 0; is_early < 2; is_early++) {
        for (int how = 0; how < 5; how++) {
            int before = atomic_load(&ended_short), broken_before = atomic_load(&broken);
            bool is_tls = how > 1, is_closed = how == 0 || how == 2;
            struct raw *raw = is_closed ? connect_to_go(is_tls) : connect_either(is_tls);

            raw_send(raw, is_early ? "PUT /bytes?early=1 HTTP/1.1\r\nContent-Length: 1125899906842624\r\n\r\n"
                                   : "PUT /bytes HTTP/1.1\r\nContent-Length: 1125899906842624\r\n\r\n");
            if (is_early) /* unread it would be a reset */
                free(raw_take_until(raw, "\r\n\r\n"));
            send_bytes(raw, 0, 1000000);
            if (how == 4 || (is_tls && is_closed))
                SSL_shutdown(raw->ssl); /* which leaves TCP open */
            else if (!is_closed)
                raw_end(raw);
            if (is_early && !is_closed) {
                char *text = raw_take_all(raw);

                assert_string_equal(text, "1000000 right");
                assert_false(raw->was_reset);
                free(text);
            } else if (!is_closed)
                raw_expect(raw, "", 200, "1000000 right");
            raw_close(&raw);
            wait_for(&ended_short, before + 1);
            assert_int_equal(atomic_load(&broken), broken_before);
        }
    }
}

static void a_reader_that_goes_ends_the_answer(void **state)
{
    (void) state;
    for (int is_reset = 0; is_reset < 2; is_reset++) {
        int before = atomic_load(&sources_gone);
        struct raw *raw = connect_either(false);

        raw_send(raw, "GET /bytes?bytes=100000000000 HTTP/1.1\r\n\r\n");
        free(raw_take(raw, 1000000));
        if (is_reset)
            raw_cut(&raw);
        else
            raw_close(&raw);
        wait_for(&sources_gone, before + 1);
    }
}

static void a_server_that_breaks_off_is_noticed(void **state)
{
    static const char *const requests[] = {
        "GET /bytes?bytes=1000000&length=2000000&fail=1 HTTP/1.1\r\n\r\n",
        "GET /bytes?bytes=1000000&fail=1 HTTP/1.1\r\n\r\n",
        "GET /bytes?bytes=1000000&fail=1 HTTP/1.0\r\n\r\n", /* where a mere end would be the end of the answer */
        "GET /bytes?bytes=10&fail=1 HTTP/1.0\r\n\r\n",
        "PUT /bytes?early=1&abort=1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", /* the end of an early answer */
        "PUT /bytes?early=1&abort=1 HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        for (int is_tls = 0; is_tls < 2; is_tls++) {
            struct raw *raw = connect_either(is_tls);

            raw_send(raw, requests[i]);
            free(raw_take_all(raw));
            assert_true(raw->was_reset);
            raw_close(&raw);
        }
    }
}

/* Whatever the server does meanwhile, its answer has ended in order. */
static void a_slow_reader_of_an_answer_without_length_has_all(void **state)
{
    (void) state;
    for (int is_tls = 0; is_tls < 2; is_tls++) {
        struct raw *raw = connect_either(is_tls);

        raw_send(raw, "GET /bytes?bytes=4000000 HTTP/1.0\r\n\r\n");
        free(raw_take_until(raw, "\r\n\r\n"));
        usleep(2 * LINGER_MS * 1000); /* the server may have said all, lingered, and closed */
        assert_int_equal(take_bytes(raw), 4000000);
        assert_false(raw->was_reset);
        raw_close(&raw);
    }
}

static void tunnels_pass(void **state)
{
    struct raw *raw;
    char *got;

    (void) state;
    for (int is_tls = 0; is_tls < 2; is_tls++) {
        raw = connect_either(is_tls);
        raw_send(raw, "CONNECT /upgrade HTTP/1.0\r\n\r\nRFB");
        got = raw_take(raw, 22);
        assert_string_equal(got, "HTTP/1.1 200 OK\r\n\r\nRFB");
        free(got);
        raw_send(raw, "more");
        got = raw_take(raw, 4);
        assert_string_equal(got, "more");
        free(got);
        raw_close(&raw);
    }
    raw = connect_either(false);
    raw_send(raw, "GET /upgrade HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    got = raw_take_until(raw, "\r\n\r\n");
    assert_memory_equal(got, "HTTP/1.1 101 ", 13);
    free(got);
    raw_send(raw, "frames");
    got = raw_take(raw, 6);
    assert_string_equal(got, "frames");
    free(got);
    raw_close(&raw);
}

/* ---- sent elsewhere ---- */

static void expect_location(struct raw *raw, const char *target, const char *format, uint16_t at_port)
{
    char request[256], expected[256], *head, *location;

    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n\r\n", target);
    snprintf(expected, sizeof expected, format, at_port);
    raw_send(raw, request);
    free(raw_answer(raw, 302, &head));
    location = raw_header(head, "location");
    assert_non_null(location);
    assert_string_equal(location, expected);
    assert_non_null(strstr(head, "connection: close\r\n"));
    free(location);
    free(head);
    raw_close(&raw);
}

static void a_redirect_keeps_scheme_port_and_query(void **state)
{
    (void) state;
    expect_location(connect_either(false), "/here/x%20y?to=192.0.2.1&a=%26", "http://192.0.2.1:%u/here/x%%20y?to=192.0.2.1&a=%%26",
                    port);
    expect_location(connect_either(true), "/here?to=2001:db8::1", "https://[2001:db8::1]:%u/here?to=2001:db8::1",
                    tls_port);
    expect_location(connect_either(false), "http://pool/here?to=h2", "http://h2:%u/here?to=h2", port);
    /* through the other server: as it came to the first one */
    expect_location(connect_either(true), "/redirect?to=192.0.2.1", "https://192.0.2.1:%u/redirect?to=192.0.2.1",
                    tls_port);
    expect_location(raw_connect("::1", port_v6), "/redirect?to=::2", "http://[::2]:%u/redirect?to=::2", port_v6);
}

static void usual_ports_are_left_out(void **state)
{
    static const struct {
        const char *from, *location;
    } rows[] = {
        {"https 192.0.2.9 5 443", "https://h2/redirect?to=h2"},
        {"http 192.0.2.9 5 80", "http://h2/redirect?to=h2"},
        {"http 192.0.2.9 5 443", "http://h2:443/redirect?to=h2"},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char request[256], *head, *location;
        struct raw *raw = raw_connect_unix(back_path);

        snprintf(request, sizeof request, "GET /redirect?to=h2 HTTP/1.1\r\nX-Drover-From: %s\r\n\r\n", rows[i].from);
        raw_send(raw, request);
        free(raw_answer(raw, 302, &head));
        location = raw_header(head, "location");
        assert_string_equal(location, rows[i].location);
        free(location);
        free(head);
        raw_close(&raw);
    }
}

static void an_address_cannot_make_a_header(void **state)
{
    struct raw *raw = connect_either(false);

    (void) state;
    raw_send(raw, "GET /here?to=h2%0d%0aSet-Cookie:%20x HTTP/1.1\r\n\r\n");
    free(raw_answer(raw, 503, NULL));
    raw_close(&raw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_comes_through_as_it_was),
        cmocka_unit_test(who_asked_is_believed_from_the_socket_only),
        cmocka_unit_test(what_follows_a_request_is_no_second_one),
        cmocka_unit_test(a_server_that_is_not_there_is_503),
        cmocka_unit_test(uploads_pass_in_every_framing),
        cmocka_unit_test(an_upload_up_to_the_end_passes),
        cmocka_unit_test(downloads_pass_in_every_framing),
        cmocka_unit_test(a_gigabyte_each_way_takes_no_memory),
        cmocka_unit_test(a_slow_reader_bounds_what_is_made),
        cmocka_unit_test(a_refused_upload_hears_why),
        cmocka_unit_test(a_cut_upload_is_seen_as_cut),
        cmocka_unit_test(an_upload_that_ends_in_order_is_not_broken),
        cmocka_unit_test(a_reader_that_goes_ends_the_answer),
        cmocka_unit_test(a_server_that_breaks_off_is_noticed),
        cmocka_unit_test(a_slow_reader_of_an_answer_without_length_has_all),
        cmocka_unit_test(tunnels_pass),
        cmocka_unit_test(a_redirect_keeps_scheme_port_and_query),
        cmocka_unit_test(usual_ports_are_left_out),
        cmocka_unit_test(an_address_cannot_make_a_header),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
