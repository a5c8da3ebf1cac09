/* test_histogram.c - what is read back is what went in, to one part in 128 */
#include "tests/bench/histogram.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void empty_is_zero(void **state)
{
    static struct histogram histogram;

    (void) state;
    assert_int_equal(histogram_at(&histogram, 0.5), 0);
}

static void small_values_are_exact(void **state)
{
    static struct histogram histogram;

    (void) state;
    for (uint64_t i = 0; i <= 200; i++)
        histogram_add(&histogram, i);
    assert_int_equal(histogram_at(&histogram, 0.0), 0);
    assert_int_equal(histogram_at(&histogram, 0.5), 100);
    assert_int_equal(histogram_at(&histogram, 1.0), 200);
}

static void every_size_is_near(void **state)
{
    (void) state;
    for (unsigned bit = 0; bit < 64; bit++)
        for (int step = 0; step < 5; step++) {
            struct histogram *histogram = new0(struct histogram);
            uint64_t value = ((uint64_t) 1 << bit) + (((uint64_t) 1 << bit) / 5) * (uint64_t) step, found;

            histogram_add(histogram, value);
            histogram_add(histogram, UINT64_MAX); /* so that `most` does not round the answer */
            found = histogram_at(histogram, 0.5);
            assert_true(found >= value && found - value <= value / 128);
            free(histogram);
        }
}

static void shares_count_whole_answers(void **state)
{
    static struct histogram histogram;

    (void) state;
    for (int i = 0; i < 99; i++)
        histogram_add(&histogram, 1000);
    histogram_add(&histogram, 50000);
    assert_in_range(histogram_at(&histogram, 0.99), 1000, 1008);
    assert_int_equal(histogram_at(&histogram, 0.991), 50000);
    assert_int_equal(histogram.most, 50000);
    assert_int_equal(histogram.count, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_is_zero),
        cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(every_size_is_near),
        cmocka_unit_test(shares_count_whole_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
