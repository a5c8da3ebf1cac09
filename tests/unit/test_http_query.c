/* test_http_query.c - query and cookies of a request as one map */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include "shared/http_query.h"
#include "tests/raw_http.h"

static uint16_t port;

/* Answers with "name=value;" of each pair. */
static void handle(struct http_request *request, void *arg)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    const char *text = "";
    struct value map;

    (void) arg;
    if (!http_query_map(request, arena, &map)) {
        http_query_refuse(request);
        return;
    }
    for (uint32_t i = 0; i < map.length; i++)
        text = arena_text(arena, "%s%s=%s;", text, map.items[2 * i].text, map.items[2 * i + 1].text);
    http_reply_text(request, 200, "", text);
}

static char *ask(const char *query, const char *headers, int status)
{
    struct raw *raw = raw_connect("127.0.0.1", port);
    char *text, *body = NULL;

    assert_true(asprintf(&text, "GET /?%s HTTP/1.1\r\nhost: a\r\n%s\r\n", query, headers) > 0);
    raw_send(raw, text);
    body = raw_answer(raw, status, NULL);
    free(text);
    raw_close(&raw);
    return body;
}

static void is(const char *query, const char *headers, const char *expected)
{
    char *body = ask(query, headers, 200);

    assert_string_equal(body, expected);
    free(body);
}

static void cookies_go_first_and_first_ones_count(void **state)
{
    (void) state;
    is("", "", "");
    is("a=1&b=&c", "", "a=1;b=;c=;");
    is("a=1&a=2&b=3", "", "a=1;b=3;");
    is("a=1&b=2", "cookie: b=3; d=4; b=5\r\n", "b=3;d=4;a=1;");
    is("a=%3Cx%3E+y%C3%BC", "", "a=<x> y\xc3\xbc;");
}

static void too_many_and_what_is_no_text_are_refused(void **state)
{
    char many[16 * (HTTP_QUERY_MAX + 2)] = "";

    (void) state;
    for (unsigned i = 0; i < HTTP_QUERY_MAX; i++)
        sprintf(many + strlen(many), "p%u=&", i);
    many[strlen(many) - 1] = '\0';
    free(ask(many, "", 200));
    free(ask(many, "cookie: one=more\r\n", 400));
    free(ask("a=%01", "", 400));
    free(ask("%1f=a", "", 400));
    free(ask("a=%ff", "", 400));
}

int main(void)
{
    struct http_config config = {HTTP_CONFIG_DEFAULT, .handle = handle};
    struct http_server *server = http_server_new(&config);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cookies_go_first_and_first_ones_count),
        cmocka_unit_test(too_many_and_what_is_no_text_are_refused),
    };
    int failed;

    if (http_listen_tcp(server, "127.0.0.1", 0, NULL, &port) < 0 || http_server_start(server) < 0)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    http_server_destroy(&server);
    return failed;
}
