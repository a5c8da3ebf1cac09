/* test_value.c - values: order, copies, packing, maps and sets, text, datetimes, DB text */
#include "shared/value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "shared/arena.h"
#include "shared/dbtext.h"
#include "shared/model.h"

static int arena_up(void **state)
{
    model_init();
    *state = arena_new();
    return 0;
}

static int arena_down(void **state)
{
    arena_destroy((struct arena **) state);
    return 0;
}

/* A value with everything in it: a VM's record of which two fields are filled. */
static struct value sample(struct arena *arena)
{
    struct value *fields = arena_alloc(arena, (size_t) CLASS_OF(VM)->field_count * sizeof *fields);
    struct value *pairs = arena_alloc(arena, 4 * sizeof *pairs);
    struct value *items = arena_alloc(arena, 3 * sizeof *items);

    for (int i = 0; i < CLASS_OF(VM)->field_count; i++)
        fields[i] = CLASS_OF(VM)->fields[i].initial;
    pairs[0] = value_text("first");
    pairs[1] = value_text("one");
    pairs[2] = value_text("second");
    pairs[3] = value_text("");
    fields[F_VM_other_config] = VALUE_MAP(2, pairs);
    items[0] = value_text("a");
    items[1] = VALUE_EMPTY_SET;
    items[2] = value_text("a longer text");
    fields[F_VM_tags] = VALUE_SET(3, items);
    fields[F_VM_power_state] = VALUE_ENUM(vm_power_state, 1);
    return (struct value){.kind = KIND_RECORD, .record = {CLASS_OF(VM), fields}};
}

static void values_have_an_order(void **state)
{
    struct value ab = value_text("ab"), abc = value_text("abc"), b = value_text("b"), empty = value_text("");
    struct value one = VALUE_INT(1), two = VALUE_INT(2), text = value_text("1");
    struct value number = VALUE_FLOAT(1.5), none = VALUE_FLOAT(__builtin_nan(""));

    (void) state;
    assert_true(value_compare(&ab, &abc) < 0);
    assert_true(value_compare(&b, &abc) > 0);
    assert_true(value_compare(&empty, &ab) < 0);
    assert_true(value_compare(&one, &two) < 0);
    assert_true(value_equal(&one, &one));
    assert_false(value_equal(&one, &text));
    assert_true(value_compare(&number, &none) < 0);
    assert_true(value_equal(&none, &none));
}

static void copies_are_equal_and_independent(void **state)
{
    struct arena *arena = *state, *other = arena_new();
    struct value value = sample(arena);
    struct value copy = value_copy(other, &value), packed = value_pack(&value);

    assert_true(value_equal(&value, &copy));
    assert_ptr_not_equal(copy.record.fields, value.record.fields);
    assert_true(packed.is_packed);
    assert_true(value_packed_bytes(&value) > (size_t) CLASS_OF(VM)->field_count * sizeof(struct value));
    arena_destroy(&other);
    assert_true(value_equal(&packed, &value));
    assert_string_equal(packed.record.fields[F_VM_tags].items[2].text, "a longer text");
    assert_false(packed.record.fields[F_VM_tags].is_packed);
    value_unpack(&packed);
    assert_int_equal(packed.kind, KIND_VOID);
}

static void small_values_pack_into_no_block(void **state)
{
    const struct value small[] = {VALUE_INT(7), VALUE_EMPTY_SET, VALUE_EMPTY_MAP, value_text(""), VALUE_VOID};
    struct value text = value_text("abc"), packed = value_pack(&text);

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(small); i++) {
        struct value same = value_pack(&small[i]);

        assert_false(same.is_packed);
        assert_int_equal(value_packed_bytes(&small[i]), 0);
        assert_true(value_equal(&same, &small[i]));
        value_unpack(&same);
    }
    assert_int_equal(value_packed_bytes(&text), 4);
    assert_string_equal(packed.text, "abc");
    value_unpack(&packed);
}

static void maps_keep_the_place_of_their_keys(void **state)
{
    struct arena *arena = *state;
    struct value map = VALUE_EMPTY_MAP, a = value_text("a"), b = value_text("b"), c = value_text("c");

    map = value_map_with(arena, &map, &a, &a);
    map = value_map_with(arena, &map, &b, &b);
    map = value_map_with(arena, &map, &a, &c);
    assert_int_equal(map.length, 2);
    assert_string_equal(map.items[0].text, "a");
    assert_string_equal(value_map_text(&map, "a", "none"), "c");
    assert_string_equal(value_map_text(&map, "x", "none"), "none");
    assert_null(value_map_find(&map, ""));
    map = value_map_without(arena, &map, &c);
    assert_int_equal(map.length, 2);
    map = value_map_without(arena, &map, &a);
    assert_int_equal(map.length, 1);
    assert_string_equal(map.items[0].text, "b");
}

static void sets_hold_an_item_once(void **state)
{
    struct arena *arena = *state;
    struct value set = VALUE_EMPTY_SET, a = VALUE_INT(1), b = VALUE_INT(2);

    set = value_set_with(arena, &set, &a);
    set = value_set_with(arena, &set, &a);
    assert_int_equal(set.length, 1);
    assert_true(value_set_has(&set, &a));
    assert_false(value_set_has(&set, &b));
    set = value_set_without(arena, &set, &b);
    assert_int_equal(set.length, 1);
    set = value_set_without(arena, &set, &a);
    assert_int_equal(set.length, 0);
}

static void repeated_items_are_found(void **state)
{
    struct value many[200];

    (void) state;
    for (int i = 0; i < 200; i++)
        many[i] = VALUE_INT(i * 7 % 200); /* 7 and 200 share no divisor: all differ */
    assert_null(value_find_repeated(many, 200, 1));
    many[150] = many[3];
    assert_non_null(value_find_repeated(many, 200, 1));
    many[1] = many[0];
    assert_non_null(value_find_repeated(many, 2, 1));
    assert_null(value_find_repeated(many, 2, 2));
}

static void utf8_is_checked(void **state)
{
    static const struct {
        const char *text;
        bool is_utf8, is_xml;
    } cases[] = {
        {"", true, true},
        {"plain\ttext\r\n", true, true},
        {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x84", true, true},
        {"\x01", true, false},
        {"\x7f", true, true},
        {"\xef\xbf\xbe", true, false},     /* U+FFFE */
        {"\xef\xbf\xbd", true, true},      /* U+FFFD */
        {"\xc0\x80", false, false},        /* overlong */
        {"\xe0\x80\x80", false, false},
        {"\xed\xa0\x80", false, false},    /* surrogate */
        {"\xf4\x90\x80\x80", false, false},/* above U+10FFFF */
        {"\xc3", false, false},            /* cut */
        {"\xe2\x82", false, false},
        {"a\x80", false, false},
        {"\xff", false, false},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(text_is_utf8(cases[i].text, strlen(cases[i].text)), cases[i].is_utf8);
        assert_int_equal(text_is_xml(cases[i].text, strlen(cases[i].text)), cases[i].is_xml);
    }
    assert_false(text_is_utf8("a\0b", 3));
    assert_int_equal(text_good_length("abc\xff", 4, false), 3);
}

static void datetimes_are_printed(void **state)
{
    static const struct {
        int64_t utc_s;
        const char *text;
    } cases[] = {
        {0, "19700101T00:00:00Z"},
        {-1, "19691231T23:59:59Z"},
        {951782400, "20000229T00:00:00Z"},
        {1785542400, "20260801T00:00:00Z"},
        {4107542399, "21000228T23:59:59Z"},
        {INT64_MAX, "99991231T23:59:59Z"},
        {INT64_MIN, "00000101T00:00:00Z"},
    };
    char text[DATETIME_TEXT_BYTES];

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_string_equal(datetime_print(text, cases[i].utc_s), cases[i].text);
}

static void datetimes_are_read_in_their_forms(void **state)
{
    static const char *const same[] = {
        "20260801T10:20:30Z",      "2026-08-01T10:20:30Z",   "20260801T10:20:30",    "20260801T102030",
        "2026-08-01T10:20:30.75Z", "20260801T12:20:30+0200", "20260801T12:20:30+02", "20260801T05:50:30-04:30",
    };
    static const char *const bad[] = {
        "",
        "20260801",
        "20260801 10:20:30",
        "2026-0801T10:20:30",
        "20260801T10:2030",
        "20260230T10:20:30",
        "21000229T00:00:00",
        "20261301T00:00:00",
        "20260801T24:00:00",
        "20260801T10:60:00",
        "20260801T10:20:30X",
        "20260801T10:20:30Zx",
        "20260801T10:20:30+",
        "20260801T10:20:30+2",
        "20260801T10:20:30+02:",
        "20260801T10:20:30+25:00",
        "20260801T10:20:30.",
        "-0260801T10:20:30",
    };
    int64_t utc_s;

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
        assert_true(datetime_parse(same[i], strlen(same[i]), &utc_s));
        assert_int_equal(utc_s, 1785579630);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(datetime_parse(bad[i], strlen(bad[i]), &utc_s));
}

static void every_day_survives_print_and_parse(void **state)
{
    char text[DATETIME_TEXT_BYTES];

    (void) state;
    for (int64_t day = -719528; day <= 2932896; day += 97) { /* the years 0 to 9999 */
        int64_t utc_s = day * 86400 + 12345 % 86400, back;

        datetime_print(text, utc_s);
        assert_true(datetime_parse(text, strlen(text), &back));
        assert_int_equal(back, utc_s);
    }
}

static void db_text_is_as_xenapi_spells_it(void **state)
{
    struct arena *arena = *state;
    struct buffer buffer;
    struct value a = value_text("it's"), b = value_text("b\\c"), map = VALUE_EMPTY_MAP, inner, outer;
    struct value items[] = {a, b};
    const struct {
        struct value value;
        const char *text;
    } cases[] = {
        {VALUE_BOOL(true), "true"},
        {VALUE_INT(-42), "-42"},
        {VALUE_FLOAT(0.1), "0.1"},
        {VALUE_FLOAT(1e300), "1e+300"},
        {VALUE_ENUM(vm_power_state, 0), "Halted"},
        {VALUE_REF(NULL_REF), "OpaqueRef:NULL"},
        {VALUE_DATETIME(0), "19700101T00:00:00Z"},
        {VALUE_EMPTY_SET, "()"},
        {VALUE_EMPTY_MAP, "()"},
        {VALUE_SET(2, items), "('it\\'s' 'b\\\\c')"},
        {a, "it's"},
    };

    buffer_init(&buffer, 4096);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        buffer_clear(&buffer);
        dbtext_print(&buffer, &cases[i].value);
        assert_string_equal(buffer_text(&buffer), cases[i].text);
    }
    map = value_map_with(arena, &map, &a, &b);
    map = value_map_with(arena, &map, &b, &cases[1].value);
    buffer_clear(&buffer);
    dbtext_print(&buffer, &map);
    assert_string_equal(buffer_text(&buffer), "(('it\\'s' 'b\\\\c') ('b\\\\c' '-42'))");
    inner = VALUE_SET(1, items);
    outer = VALUE_SET(1, &inner);
    buffer_clear(&buffer);
    dbtext_print(&buffer, &outer);
    assert_string_equal(buffer_text(&buffer), "('(\\'it\\\\\\'s\\')')");
    buffer_done(&buffer);
}

static void buffers_stop_at_their_limit(void **state)
{
    struct buffer buffer;
    size_t length;
    char *bytes;

    (void) state;
    buffer_init(&buffer, 1000);
    for (int i = 0; i < 100; i++)
        buffer_add_literal(&buffer, "0123456789");
    assert_false(buffer.is_full);
    buffer_add_char(&buffer, 'x');
    assert_true(buffer.is_full);
    assert_int_equal(buffer.length, 1000);
    bytes = buffer_take(&buffer, &length);
    assert_int_equal(length, 1000);
    assert_memory_equal(bytes + 990, "0123456789", 10);
    buffer_release(bytes, length, NULL);
    buffer_add_int(&buffer, INT64_MIN);
    assert_string_equal(buffer_text(&buffer), "-9223372036854775808");
    buffer_done(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(values_have_an_order, arena_up, arena_down),
        cmocka_unit_test_setup_teardown(copies_are_equal_and_independent, arena_up, arena_down),
        cmocka_unit_test_setup_teardown(small_values_pack_into_no_block, arena_up, arena_down),
        cmocka_unit_test_setup_teardown(maps_keep_the_place_of_their_keys, arena_up, arena_down),
        cmocka_unit_test_setup_teardown(sets_hold_an_item_once, arena_up, arena_down),
        cmocka_unit_test_setup_teardown(repeated_items_are_found, arena_up, arena_down),
        cmocka_unit_test_setup_teardown(utf8_is_checked, arena_up, arena_down),
        cmocka_unit_test_setup_teardown(datetimes_are_printed, arena_up, arena_down),
        cmocka_unit_test_setup_teardown(datetimes_are_read_in_their_forms, arena_up, arena_down),
        cmocka_unit_test_setup_teardown(every_day_survives_print_and_parse, arena_up, arena_down),
        cmocka_unit_test_setup_teardown(db_text_is_as_xenapi_spells_it, arena_up, arena_down),
        cmocka_unit_test_setup_teardown(buffers_stop_at_their_limit, arena_up, arena_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
