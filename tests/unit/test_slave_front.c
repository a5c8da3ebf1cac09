/* test_slave_front.c - what a host that is no master tells those who ask it over HTTP */
#include "tests/raw_http.h"

#include <pthread.h>

#include "shared/loop.h"
#include "shared/model.h"
#include "shared/random.h"
#include "shared/workers.h"
#include "slave/ledger.h"
#include "slave/local_calls.h"
#include "slave/slave_front.h"
#include "slave/standing.h"

#define LOGIN_XML                                                                                          \
    "<methodCall><methodName>session.login_with_password</methodName><params><param><value>root</value>"   \
    "</param><param><value>secret</value></param></params></methodCall>"
#define FAILURE_XML(strings)                                                                               \
    "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member><name>Status</name>"      \
    "<value>Failure</value></member><member><name>ErrorDescription</name><value><array><data>" strings     \
    "</data></array></value></member></struct></value></param></params></methodResponse>"
#define LOGIN_1 "{\"method\":\"session.login_with_password\",\"params\":[\"root\",\"x\"],\"id\":\"a\"}"
#define LOGIN_2 "{\"jsonrpc\":\"2.0\",\"method\":\"VM.get_all\",\"params\":[\"no session\"],\"id\":7}"

static const ref_t host = {0x6a7f1f4c00004000, 0x8000000000000001};

#define SECRET "secret"

struct served {
    struct loop *loop; /* of an agent that does nothing else, */
    pthread_t thread;  /* here */
    struct workers *workers;
    struct ledger_disk disk;
    struct ledger *ledger;
    struct local_calls *local;
    struct standing *standing;
    struct slave_front *front;
    struct raw *raw;
    uint16_t port;
};

static void export(struct http_request *http, void *arg)
{
    (void) arg;
    http_reply_text(http, 200, "", http->path);
}

static void *run_loop(void *arg)
{
    loop_run(arg);
    return NULL;
}

static int serve(void **state)
{
    struct served *served = new0(struct served);
    int error;

    model_init();
    served->loop = loop_new(clock_real());
    served->workers = workers_new(0, "test");
    served->ledger = ledger_new(served->loop, ledger_memory_open(&served->disk, served->loop), &error);
    served->standing = standing_new();
    served->local = local_calls_new(&(struct local_calls_config){.loop = served->loop,
                                                                 .random = random_real(),
                                                                 .workers = served->workers,
                                                                 .ledger = served->ledger,
                                                                 .standing = served->standing,
                                                                 .pool_secret = SECRET});
    assert_int_equal(pthread_create(&served->thread, NULL, run_loop, served->loop), 0);
    served->front = slave_front_new(
        &(struct slave_front_config){.loops = 1, .bodies_bytes_max = 1u << 20, .standing = served->standing, .local = served->local});
    slave_front_add(served->front, HTTP_GET, "/export", export, NULL);
    assert_int_equal(http_listen_tcp(slave_front_server(served->front), "127.0.0.1", 0, NULL, &served->port), 0);
    assert_int_equal(slave_front_start(served->front), 0);
    served->raw = raw_connect("127.0.0.1", served->port);
    *state = served;
    return 0;
}

static int unserve(void **state)
{
    struct served *served = *state;

    raw_close(&served->raw);
    slave_front_stop(served->front);
    loop_stop(served->loop);
    pthread_join(served->thread, NULL);
    local_calls_destroy(&served->local);
    slave_front_destroy(&served->front);
    standing_destroy(&served->standing);
    ledger_destroy(&served->ledger);
    workers_destroy(&served->workers);
    loop_destroy(&served->loop);
    ledger_disk_done(&served->disk);
    free(served);
    return 0;
}

/* The body of the answer to a POST, to be freed. */
static char *ask(struct served *served, const char *path, const char *body, int status)
{
    char head[256];

    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", path, strlen(body));
    raw_send(served->raw, head);
    raw_send(served->raw, body);
    return raw_answer(served->raw, status, NULL);
}

static void expect(struct served *served, const char *path, const char *body, const char *wanted)
{
    char *got = ask(served, path, body, 200);

    assert_string_equal(got, wanted);
    free(got);
}

static void expect_page(struct served *served, const char *words)
{
    char *got;

    raw_send(served->raw, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    got = raw_answer(served->raw, 200, NULL);
    if (!strstr(got, words))
        fail_msg("no '%s' in: %s", words, got);
    free(got);
}

/* ---- the tests ---- */

static void a_host_without_a_master_is_still_booting(void **state)
{
    struct served *served = *state;

    expect(served, "/", LOGIN_XML, FAILURE_XML("<value>HOST_STILL_BOOTING</value>"));
    expect(served, "/RPC2", LOGIN_XML, FAILURE_XML("<value>HOST_STILL_BOOTING</value>"));
    /* before dispatch: one form for both versions */
    expect(served, "/jsonrpc", LOGIN_1, "{\"jsonrpc\":\"2.0\",\"error\":[\"HOST_STILL_BOOTING\"],\"id\":0}");
    expect(served, "/jsonrpc", LOGIN_2, "{\"jsonrpc\":\"2.0\",\"error\":[\"HOST_STILL_BOOTING\"],\"id\":0}");
    expect_page(served, "not yet heard");
}

static void a_slave_names_its_master(void **state)
{
    struct served *served = *state;

    standing_put_master(served->standing, "127.0.1.1");
    expect(served, "/", LOGIN_XML, FAILURE_XML("<value>HOST_IS_SLAVE</value><value>127.0.1.1</value>"));
    expect(served, "/jsonrpc", LOGIN_1, "{\"result\":null,\"error\":[\"HOST_IS_SLAVE\",\"127.0.1.1\"],\"id\":\"a\"}");
    expect(served, "/jsonrpc", LOGIN_2,
           "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"HOST_IS_SLAVE\",\"data\":[\"127.0.1.1\"]},\"id\":7}");
    expect_page(served, "a slave of 127.0.1.1, which speaks for the pool.");
    standing_put_silent(served->standing); /* and stays it while that one is not heard */
    expect(served, "/", LOGIN_XML, FAILURE_XML("<value>HOST_IS_SLAVE</value><value>127.0.1.1</value>"));
    expect_page(served, "not heard");
    standing_put_master(served->standing, "fd00::2");
    expect(served, "/", LOGIN_XML, FAILURE_XML("<value>HOST_IS_SLAVE</value><value>fd00::2</value>"));
}

static void a_host_that_was_refused_says_so(void **state)
{
    struct served *served = *state;

    standing_put_master(served->standing, "127.0.1.1");
    standing_put_unknown(served->standing, host);
    expect(served, "/", LOGIN_XML,
           FAILURE_XML("<value>HOST_UNKNOWN_TO_MASTER</value><value>6a7f1f4c-0000-4000-8000-000000000001</value>"));
    expect_page(served, "does not know it");
    standing_put_master(served->standing, "127.0.1.1");
    expect(served, "/", LOGIN_XML, FAILURE_XML("<value>HOST_IS_SLAVE</value><value>127.0.1.1</value>"));
}

static void what_is_no_address_is_not_shown(void **state)
{
    struct served *served = *state;

    standing_put_master(served->standing, "<script>");
    standing_put_master(served->standing, "");
    standing_put_master(served->standing, NULL);
    expect(served, "/", LOGIN_XML, FAILURE_XML("<value>HOST_STILL_BOOTING</value>"));
}

static void what_needs_no_pool_is_answered(void **state)
{
    struct served *served = *state;
    char *got;

    expect(served, "/jsonrpc", "{\"jsonrpc\":\"2.0\",\"method\":\"system.isAlive:x\",\"params\":[\"yes\"],\"id\":1}",
           "{\"jsonrpc\":\"2.0\",\"result\":\"yes\",\"id\":1}");
    got = ask(served, "/", "<methodCall><methodName>system.listMethods</methodName></methodCall>", 200);
    assert_non_null(strstr(got, "<value>VM.start</value>"));
    free(got);
}

/* What they do is in test_local_calls.c. */
static void calls_for_a_host_in_need_are_answered(void **state)
{
    struct served *served = *state;
    char *got = ask(served, "/jsonrpc",
                    "{\"jsonrpc\":\"2.0\",\"method\":\"session.slave_local_login\",\"params\":[\"" SECRET "\"],\"id\":1}",
                    200);
    char *session = strstr(got, "OpaqueRef:"), *call;

    assert_non_null(session);
    session[strcspn(session, "\"")] = '\0';
    for (int is_slave = 0; is_slave < 2; is_slave++) {
        assert_true(asprintf(&call,
                             "{\"jsonrpc\":\"2.0\",\"method\":\"host.is_in_emergency_mode\",\"params\":[\"%s\"],\"id\":1}",
                             session)
                    > 0);
        expect(served, "/jsonrpc", call, is_slave ? "{\"jsonrpc\":\"2.0\",\"result\":false,\"id\":1}"
                                                  : "{\"jsonrpc\":\"2.0\",\"result\":true,\"id\":1}");
        free(call);
        standing_put_master(served->standing, "127.0.1.1");
    }
    assert_true(asprintf(&call,
                         "<methodCall><methodName>pool.emergency_transition_to_master</methodName><params><param><value>%s"
                         "</value></param></params></methodCall>",
                         session)
                > 0);
    expect(served, "/", call,
           FAILURE_XML("<value>NOT_IMPLEMENTED</value><value>pool.emergency_transition_to_master</value>"));
    free(call);
    free(got);
    /* Failures of these have the usual form, not the early one. */
    expect(served, "/jsonrpc", "{\"method\":\"host.is_in_emergency_mode\",\"params\":[\"x\"],\"id\":1}",
           "{\"result\":null,\"error\":[\"SESSION_INVALID\",\"x\"],\"id\":1}");
    /* One whose client has gone meanwhile meets nobody. */
    for (int i = 0; i < 3; i++)
        free(ask(served, "/", "<methodCall><methodName>session.slave_local_login</methodName><params><param><value>x"
                              "</value></param></params></methodCall>",
                 200));
    raw_send(served->raw, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 123\r\n\r\n"
                          "<methodCall><methodName>session.slave_local_login</methodName><params><param><value>x"
                          "</value></param></params></methodCall>");
    raw_close(&served->raw);
    served->raw = raw_connect("127.0.0.1", served->port);
    expect(served, "/jsonrpc", "{\"method\":\"system.isAlive:x\",\"params\":[1],\"id\":1}",
           "{\"result\":1,\"error\":null,\"id\":1}");
}

static void other_requests_are_served_or_refused(void **state)
{
    struct served *served = *state;

    free(ask(served, "/", "no call", 500));
    free(ask(served, "/jsonrpc", "[]", 500));
    raw_expect(served->raw, "GET /export HTTP/1.1\r\nHost: x\r\n\r\n", 200, "/export");
    raw_expect(served->raw, "GET /export/ HTTP/1.1\r\nHost: x\r\n\r\n", 200, "/export/");
    raw_expect(served->raw, "GET /exported HTTP/1.1\r\nHost: x\r\n\r\n", 403,
               "<html><body><h1>HTTP 403 there is nothing at this path</h1></body></html>\n");
    raw_expect(served->raw, "DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", 501,
               "<html><body><h1>HTTP 501 this method is not served</h1></body></html>\n");
    raw_expect(served->raw, "OPTIONS /jsonrpc HTTP/1.1\r\nHost: x\r\n\r\n", 200, "");
    raw_expect(served->raw, "POST /export HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405, /* and it is closed */
               "<html><body><h1>HTTP 405 this path takes GET</h1></body></html>\n");
}

static void what_the_master_serves_is_asked_there(void **state)
{
    static const char *const requests[] = {
        "GET /export_metadata?uuid=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /import_metadata?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        "GET /blob?ref=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /blob?ref=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    };
    struct served *served = *state;

    for (size_t i = 0; i < 2 * ARRAY_SIZE(requests); i++) {
        bool is_known = i >= ARRAY_SIZE(requests);
        const char *request = requests[i % ARRAY_SIZE(requests)];
        char *head, *location, *path = strndup(strchr(request, '/'), strcspn(strchr(request, '/'), " "));

        if (is_known)
            standing_put_master(served->standing, "127.0.1.1");
        raw_close(&served->raw);
        served->raw = raw_connect("127.0.0.1", served->port);
        raw_send(served->raw, request);
        free(raw_answer(served->raw, is_known ? 302 : 503, &head));
        if (is_known) {
            location = raw_header(head, "location");
            assert_non_null(strstr(location, "http://127.0.1.1:"));
            assert_string_equal(strrchr(location, '/'), path);
            free(location);
        }
        free(head);
        free(path);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, serve, unserve)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_host_without_a_master_is_still_booting),
        TEST(a_slave_names_its_master),
        TEST(a_host_that_was_refused_says_so),
        TEST(what_is_no_address_is_not_shown),
        TEST(what_needs_no_pool_is_answered),
        TEST(calls_for_a_host_in_need_are_answered),
        TEST(other_requests_are_served_or_refused),
        TEST(what_the_master_serves_is_asked_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
