/* test_arena.c - alignment, zeroes, growth, reuse, limits */
#include "shared/arena.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "shared/random.h"

static void memory_is_zeroed_and_aligned(_unused_ void **state)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();

    for (int round = 0; round < 3; round++) {
        for (size_t bytes = 0; bytes < 3000; bytes += 7) {
            unsigned char *p = arena_alloc(arena, bytes);

            assert_int_equal((uintptr_t) p % 16, 0);
            for (size_t i = 0; i < bytes; i++)
                assert_int_equal(p[i], 0);
            memset(p, 0xa5, bytes);
        }
        arena_reset(arena);
    }
}

static void pieces_do_not_overlap(_unused_ void **state)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct piece {
        struct piece *next;
        size_t bytes;
        unsigned char fill, data[];
    } *pieces = NULL;
    struct seeded_random seeded;
    size_t asked = 0;

    seeded_random_init(&seeded, 1);
    for (int i = 0; i < 5000; i++) {
        size_t bytes = random_below(&seeded.random, i % 50 ? 200 : 200000);
        struct piece *piece = arena_alloc(arena, sizeof(*piece) + bytes);

        piece->next = pieces;
        piece->bytes = bytes;
        piece->fill = (unsigned char) i;
        memset(piece->data, piece->fill, bytes);
        pieces = piece;
        asked += sizeof(*piece) + bytes;
    }
    for (; pieces; pieces = pieces->next)
        for (size_t i = 0; i < pieces->bytes; i += 13)
            assert_int_equal(pieces->data[i], pieces->fill);
    assert_true(arena_bytes(arena) >= asked);
}

static void copies_and_texts(_unused_ void **state)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    char *longer;

    assert_string_equal(arena_strdup(arena, ""), "");
    assert_string_equal(arena_strdup(arena, "herd"), "herd");
    assert_memory_equal(arena_dup(arena, "a\0b", 3), "a\0b", 4);
    assert_string_equal(arena_dup(arena, NULL, 0), "");
    assert_string_equal(arena_text(arena, "%s-%d", "vm", 7), "vm-7");
    longer = arena_text(arena, "%5000d", 1);
    assert_int_equal(strlen(longer), 5000);
    assert_int_equal(longer[4999], '1');
    assert_int_equal(strlen(arena_text(arena, "%255d", 1)), 255);
    assert_int_equal(strlen(arena_text(arena, "%256d", 1)), 256);
}

static void reset_gives_the_first_block_again(_unused_ void **state)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    void *first = arena_alloc(arena, 100);

    arena_alloc(arena, 1000000);
    arena_reset(arena);
    assert_int_equal(arena_bytes(arena), 0);
    assert_ptr_equal(arena_alloc(arena, 100), first);
}

static void a_limit_is_asked_for(_unused_ void **state)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();

    assert_true(arena_room(arena, SIZE_MAX - 1));
    arena_set_limit(arena, 1000);
    assert_true(arena_room(arena, 1000));
    assert_false(arena_room(arena, 1001));
    arena_alloc(arena, 500);
    assert_false(arena_room(arena, 501));
    assert_true(arena_room(arena, 400));
    arena_alloc(arena, 5000); /* allocation itself does not fail */
    assert_false(arena_room(arena, 0));
    assert_false(arena_room(arena, SIZE_MAX));
    arena_reset(arena);
    assert_false(arena_room(arena, 1001));
    arena_set_limit(arena, 0);
    assert_true(arena_room(arena, 1001));
}

static void nothing_to_destroy(_unused_ void **state)
{
    struct arena *arena = NULL;

    arena_destroy(&arena);
    arena = arena_new();
    arena_destroy(&arena);
    assert_null(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_and_aligned),
        cmocka_unit_test(pieces_do_not_overlap),
        cmocka_unit_test(copies_and_texts),
        cmocka_unit_test(reset_gives_the_first_block_again),
        cmocka_unit_test(a_limit_is_asked_for),
        cmocka_unit_test(nothing_to_destroy),
    };

    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
