/* test_http_parcel.c - bytes in parcels: in any pieces, with every end */
#include "shared/http_parcel.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* Two parcels and the end. */
static const char wire[] = "\0\0\0\3abc\0\0\0\5defgh\0\0\0";
#define WIRE_BYTES sizeof wire /* with the end's last byte */

struct link {
    int here, there;
    struct parcel_reader reader;
};

static struct link link_new(void)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    return (struct link){.here = fds[0], .there = fds[1]};
}

static void link_done(struct link *link)
{
    close_fd(&link->here);
    close_fd(&link->there);
}

/* All that is there, `bytes_max` at a time, behind what text holds; the last result and errno. */
static ssize_t take(struct link *link, size_t bytes_max, char *text)
{
    char some[64];
    ssize_t got;

    while ((got = http_parcel_recv(&link->reader, link->here, some, bytes_max)) > 0)
        strncat(text, some, (size_t) got);
    return got;
}

static void any_pieces_make_the_same(void **state)
{
    (void) state;
    for (size_t bytes_max = 1; bytes_max <= 9; bytes_max++) {
        for (size_t cut = 0; cut <= WIRE_BYTES; cut++) {
            struct link link = link_new();
            char text[64] = "";
            ssize_t last;

            assert_int_equal(send(link.there, wire, cut, 0), cut);
            last = take(&link, bytes_max, text);
            if (cut < WIRE_BYTES) {
                assert_int_equal(last, -1);
                assert_int_equal(errno, EAGAIN);
                assert_int_equal(send(link.there, wire + cut, WIRE_BYTES - cut, 0), WIRE_BYTES - cut);
                last = take(&link, bytes_max, text);
            }
            assert_int_equal(last, 0);
            assert_string_equal(text, "abcdefgh");
            assert_int_equal(take(&link, bytes_max, text), 0); /* and again */
            link_done(&link);
        }
    }
}

static void an_end_that_is_not_said_is_none(void **state)
{
    (void) state;
    for (int is_closed = 0; is_closed < 2; is_closed++) {
        for (size_t cut = 0; cut < WIRE_BYTES; cut++) {
            struct link link = link_new();
            char text[64] = "";

            assert_int_equal(send(link.there, wire, cut, 0), cut);
            if (is_closed)
                close_fd(&link.there);
            else
                shutdown(link.there, SHUT_WR);
            assert_int_equal(take(&link, 64, text), -1);
            assert_int_equal(errno, ECONNRESET);
            assert_int_equal(take(&link, 64, text), -1);
            link_done(&link);
        }
    }
}

static void what_follows_the_end_is_not_looked_at(void **state)
{
    struct link link = link_new();
    char text[64] = "";

    (void) state;
    assert_int_equal(send(link.there, wire, WIRE_BYTES, 0), WIRE_BYTES);
    assert_int_equal(send(link.there, "GET", 3, 0), 3);
    assert_int_equal(take(&link, 64, text), 0);
    assert_string_equal(text, "abcdefgh");
    link_done(&link);
}

static void what_are_no_parcels_is_refused(void **state)
{
    struct link link = link_new();
    char text[64] = "";

    (void) state;
    assert_int_equal(send(link.there, "\0\0\0\1aGET /", 10, 0), 10);
    assert_int_equal(take(&link, 64, text), -1);
    assert_int_equal(errno, EPROTO);
    link_done(&link);
}

static void a_length_is_in_its_head(void **state)
{
    unsigned char head[HTTP_PARCEL_HEAD_BYTES];

    (void) state;
    http_parcel_begin(head, HTTP_PARCEL_BYTES_MAX);
    assert_memory_equal(head, "\0\xff\xff\xff", 4);
    http_parcel_begin(head, 0x10203);
    assert_memory_equal(head, "\0\1\2\3", 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_pieces_make_the_same),
        cmocka_unit_test(an_end_that_is_not_said_is_none),
        cmocka_unit_test(what_follows_the_end_is_not_looked_at),
        cmocka_unit_test(what_are_no_parcels_is_refused),
        cmocka_unit_test(a_length_is_in_its_head),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
