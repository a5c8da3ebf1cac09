/* test_http_parse.c - heads that must be refused and heads that must not, chunks, queries,
 * credentials */
#include "shared/http_parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

struct parsed {
    char text[4096], path[4096];
    struct http_head head;
};

static int parse_bytes(struct parsed *parsed, const char *text, size_t bytes)
{
    assert_true(bytes <= sizeof parsed->text);
    memcpy(parsed->text, text, bytes);
    return http_head_parse(parsed->text, bytes, parsed->path, &parsed->head);
}

static int parse(struct parsed *parsed, const char *text)
{
    return parse_bytes(parsed, text, strlen(text));
}

static void a_head_is_taken_apart(void **state)
{
    struct parsed p;

    (void) state;
    assert_int_equal(
        parse(
            &p,
            "PUT /import%20me?task_id=a%2fb&x HTTP/1.1\r\nHost: h\r\nX-A:  1 2\t\r\nx-a: second\r\n"
            "Content-Length: 0042\r\nExpect: 100-Continue\r\nEmpty:\r\n\r\n"),
        0);
    assert_string_equal(p.head.method, "PUT");
    assert_string_equal(p.head.target, "/import%20me?task_id=a%2fb&x");
    assert_string_equal(p.head.path, "/import me");
    assert_string_equal(p.head.query, "task_id=a%2fb&x");
    assert_int_equal(p.head.minor, 1);
    assert_int_equal(p.head.content_length, 42);
    assert_true(p.head.expects_continue);
    assert_true(p.head.is_keep_alive);
    assert_false(p.head.is_chunked);
    assert_string_equal(http_head_header(&p.head, "X-a"), "1 2");
    assert_string_equal(http_head_header(&p.head, "empty"), "");
    assert_null(http_head_header(&p.head, "nothing"));
}

static void keep_alive_follows_version_and_header(void **state)
{
    static const struct {
        const char *head;
        bool is_keep_alive;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", true},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.2\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nConnection: TE, Close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nConnection: closed\r\n\r\n", true},
    };
    struct parsed p;

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(parse(&p, cases[i].head), 0);
        assert_int_equal(p.head.is_keep_alive, cases[i].is_keep_alive);
    }
}

static void targets_have_few_forms(void **state)
{
    struct parsed p;

    (void) state;
    assert_int_equal(parse(&p, "GET http://host:80/a/b?c=d HTTP/1.1\r\n\r\n"), 0);
    assert_string_equal(p.head.path, "/a/b");
    assert_string_equal(p.head.query, "c=d");
    assert_int_equal(parse(&p, "GET HTTPS://host?c=d HTTP/1.1\r\n\r\n"), 0);
    assert_string_equal(p.head.path, "/");
    assert_string_equal(p.head.query, "c=d");
    assert_int_equal(parse(&p, "OPTIONS * HTTP/1.1\r\n\r\n"), 0);
    assert_string_equal(p.head.path, "*");
    assert_int_equal(parse(&p, "CONNECT /console?ref=x HTTP/1.0\r\n\r\n"), 0);
    assert_string_equal(p.head.path, "/console");
    assert_int_equal(p.head.minor, 0);
}

static void malformed_heads_are_refused(void **state)
{
    static const struct {
        const char *head;
        int status;
    } cases[] = {
        {"GET /\r\n\r\n", 400}, /* HTTP/0.9 */
        {"\r\n\r\n", 400},
        {"GET  / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1 \r\n\r\n", 400},
        {" GET / HTTP/1.1\r\n\r\n", 400},
        {"G(T / HTTP/1.1\r\n\r\n", 400},
        {"GET /\x7f HTTP/1.1\r\n\r\n", 400},
        {"GET /\ta HTTP/1.1\r\n\r\n", 400},
        {"GET relative HTTP/1.1\r\n\r\n", 400},
        {"CONNECT host:80 HTTP/1.1\r\n\r\n", 400},
        {"GET * HTTP/1.1\r\n\r\n", 400},
        {"GET /%zz HTTP/1.1\r\n\r\n", 400},
        {"GET /%0 HTTP/1.1\r\n\r\n", 400},
        {"GET /%00 HTTP/1.1\r\n\r\n", 400},
        {"GET / http/1.1\r\n\r\n", 400},
        {"GET / HTTP/1\r\n\r\n", 400},
        {"GET / HTTP/1.10\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\n\r\n", 505},
        {"GET / HTTP/0.9\r\n\r\n", 505},
        {"GET / HTTP/1.1\r\nNo colon\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n: no name\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nBlank : before\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: b\r\n\tfolded\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400},
        {"GET / HTTP/1.1\nA: b\n\n", 400},
        {"GET / HTTP/1.1\r\nA: \x01\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
         400},
        {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", 501},
        {"POST / HTTP/1.1\r\nExpect: miracle\r\n\r\n", 417},
    };
    static const char with_nul[] = "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n";
    struct parsed p;

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int status = parse(&p, cases[i].head);

        if (status != cases[i].status)
            fail_msg("%d instead of %d for: %s", status, cases[i].status, cases[i].head);
    }
    assert_int_equal(parse_bytes(&p, with_nul, sizeof with_nul - 1), 400);
}

static void too_many_headers_are_431(void **state)
{
    struct parsed p;
    char text[4096] = "GET / HTTP/1.1\r\n";

    (void) state;
    for (int i = 0; i < HTTP_HEADERS_MAX; i++)
        strcat(text, "A: b\r\n");
    strcat(text, "\r\n");
    assert_int_equal(parse(&p, text), 0);
    assert_int_equal(p.head.header_count, HTTP_HEADERS_MAX);
    strcpy(text + strlen(text) - 2, "A: b\r\n\r\n");
    assert_int_equal(parse(&p, text), 431);
}

static void the_end_of_a_head_is_found_bytewise(void **state)
{
    static const char text[] = "GET / HTTP/1.1\r\nA: b\r\n\r\nbody\r\n\r\n";
    size_t line = 0;

    (void) state;
    for (size_t bytes = 1; bytes < 24; bytes++)
        assert_int_equal(http_head_end(text, bytes, &line), 0);
    assert_int_equal(http_head_end(text, 24, &line), 24);
    line = 0;
    assert_int_equal(http_head_end(text, sizeof text - 1, &line), 24);

    line = 0;
    assert_int_equal(http_head_end("GET / HTTP/1.1\n", 15, &line), -1);
    line = 0;
    assert_int_equal(http_head_end("\x16\x03\x01", 3, &line), -1);
    line = 0;
    assert_int_equal(http_head_end("GET / HTTP/1.1\r\n\n", 17, &line), -1);
}

/* Decode in pieces of the given size; the result, or NULL when it is refused or incomplete. */
static char *unchunk(const char *text, size_t piece, size_t *ret_left)
{
    struct http_chunks chunks = {0};
    char *body = alloc0(strlen(text) + 1);
    size_t at = 0, length = strlen(text);

    while (true) {
        size_t used, bytes, offered = MIN(piece, length - at);
        const char *data;

        switch (http_chunks_next(&chunks, text + at, offered, &used, &data, &bytes)) {
        case HTTP_CHUNKS_DATA:
            strncat(body, data, bytes);
            break;
        case HTTP_CHUNKS_END:
            *ret_left = length - at - used;
            return body;
        case HTTP_CHUNKS_MORE:
            if (at + used < length)
                break;
            /* fallthrough */
        case HTTP_CHUNKS_BAD:
            free(body);
            return NULL;
        }
        at += used;
    }
}

static void chunks_are_joined(void **state)
{
    static const char text[] =
        "5\r\nhello\r\n1;name=\"v\"\r\n,\r\n0006 \r\n world\r\n0\r\nTrailer: x\r\n\r\nNEXT";

    (void) state;
    for (size_t piece = 1; piece <= sizeof text; piece++) {
        size_t left;
        char *body = unchunk(text, piece, &left);

        assert_string_equal(body, "hello, world");
        assert_int_equal(left, 4);
        free(body);
    }
}

static void malformed_chunks_are_refused(void **state)
{
    static const char *const cases[] = {
        "g\r\n",
        "\r\n",
        ";x\r\n",
        "-1\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhell",
        "1000000000000000\r\n",
        "0\r\n bad\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\n\rX",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "0\r\n",
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        for (size_t piece = 1; piece < 4; piece++) {
            size_t left;

            assert_null(unchunk(cases[i], piece, &left));
        }
    }
}

static void chunk_extensions_and_trailers_are_bounded(void **state)
{
    char *text = alloc0(20000);
    size_t left;

    (void) state;
    strcpy(text, "0;");
    memset(text + 2, 'x', 1000);
    strcat(text, "\r\n\r\n");
    assert_null(unchunk(text, 20000, &left));

    memset(text, 0, 20000);
    strcpy(text, "0\r\n");
    for (int i = 0; i < 1000; i++)
        strcat(text, "Trailer: x\r\n");
    strcat(text, "\r\n");
    assert_null(unchunk(text, 20000, &left));
    free(text);
}

static void pairs_keep_order_and_repeats(void **state)
{
    char text[] = "a=1&b=x%20y+z&a=2&flag&=odd&pct=100%&nul=%00&eq=a=b&&%41=%C3%A9";
    struct http_pair *pairs;
    size_t count = http_pairs_split(text, "&", &pairs);
    static const struct http_pair expected[] = {
        {"a", "1"},      {"b", "x y z"}, {"a", "2"},    {"flag", ""},      {"", "odd"},
        {"pct", "100%"}, {"nul", "%00"}, {"eq", "a=b"}, {"A", "\xc3\xa9"},
    };

    (void) state;
    assert_int_equal(count, ARRAY_SIZE(expected));
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(pairs[i].name, expected[i].name);
        assert_string_equal(pairs[i].value, expected[i].value);
    }
    free(pairs);
}

static void cookies_have_two_separators(void **state)
{
    char text[] = "session_id=OpaqueRef%3a1; pool_secret=a/b&task_id=t;;";
    struct http_pair *pairs;

    (void) state;
    assert_int_equal(http_pairs_split(text, ";&", &pairs), 3);
    assert_string_equal(pairs[0].value, "OpaqueRef:1");
    assert_string_equal(pairs[1].name, "pool_secret");
    assert_string_equal(pairs[2].value, "t");
    free(pairs);
}

static void basic_credentials_are_decoded(void **state)
{
    static const char *const bad[] = {
        "Bearer cm9vdDpzZWNyZXQ=",
        "Basic",
        "Basic cm9vdA==" /* no colon */,
        "Basic !!!!",
        "Basic cm9vdDpz=ZWNyZXQ",
        "Basic cm9vdDpzZ",
        "Basic cjoA" /* a NUL */,
        "Basic ====",
        "",
    };
    char *user, *password;

    (void) state;
    assert_true(http_basic_decode("Basic cm9vdDpzZWNyZXQ=", &user, &password));
    assert_string_equal(user, "root");
    assert_string_equal(password, "secret");
    free(user);
    free(password);
    assert_true(
        http_basic_decode("bAsIc cm9vdDphOmI", &user, &password)); /* unpadded, a colon inside */
    assert_string_equal(password, "a:b");
    free(user);
    free(password);
    assert_true(http_basic_decode("Basic Og==", &user, &password));
    assert_string_equal(user, "");
    assert_string_equal(password, "");
    free(user);
    free(password);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(http_basic_decode(bad[i], &user, &password));
}

static void header_values_cannot_end_their_line(void **state)
{
    (void) state;
    assert_true(http_header_value_is_safe("https://h/p?q=1"));
    assert_false(http_header_value_is_safe("a\r\nSet-Cookie: x"));
    assert_false(http_header_value_is_safe("a\nb"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_is_taken_apart),
        cmocka_unit_test(keep_alive_follows_version_and_header),
        cmocka_unit_test(targets_have_few_forms),
        cmocka_unit_test(malformed_heads_are_refused),
        cmocka_unit_test(too_many_headers_are_431),
        cmocka_unit_test(the_end_of_a_head_is_found_bytewise),
        cmocka_unit_test(chunks_are_joined),
        cmocka_unit_test(malformed_chunks_are_refused),
        cmocka_unit_test(chunk_extensions_and_trailers_are_bounded),
        cmocka_unit_test(pairs_keep_order_and_repeats),
        cmocka_unit_test(cookies_have_two_separators),
        cmocka_unit_test(basic_credentials_are_decoded),
        cmocka_unit_test(header_values_cannot_end_their_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
