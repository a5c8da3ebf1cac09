/* test_refmap.c - the table from references to pointers against a plain array */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "shared/random.h"
#include "shared/refmap.h"

#define KEYS 500

static void random_work_agrees_with_an_array(void **state)
{
    struct refmap map = {0};
    struct seeded_random random;
    int values[KEYS], *present[KEYS] = {0};
    size_t count = 0;

    (void) state;
    seeded_random_init(&random, 7);
    for (int step = 0; step < 20000; step++) {
        uint64_t i = random_below(&random.random, KEYS);
        ref_t key = {i % 3, i + 1};

        if (random_below(&random.random, 2)) {
            assert_ptr_equal(refmap_put(&map, key, &values[i]), present[i]);
            count += !present[i];
            present[i] = &values[i];
        } else {
            assert_ptr_equal(refmap_take(&map, key), present[i]);
            count -= !!present[i];
            present[i] = NULL;
        }
        assert_int_equal(map.count, count);
    }
    for (uint64_t i = 0; i < KEYS; i++)
        assert_ptr_equal(refmap_get(&map, (ref_t){i % 3, i + 1}), present[i]);

    ref_t key;
    void *value;
    for (size_t at = 0; refmap_each(&map, &at, &key, &value); count--)
        assert_ptr_equal(value, present[key.lo - 1]);
    assert_int_equal(count, 0);
    refmap_done(&map);
    assert_null(refmap_get(&map, (ref_t){0, 1}));
    assert_null(refmap_take(&map, (ref_t){0, 1}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_work_agrees_with_an_array),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
