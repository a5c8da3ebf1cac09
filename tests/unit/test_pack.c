/* test_pack.c - MessagePack: round trips, the same bytes as msgpack-c, bad bytes refused */
#include "shared/pack.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>
#include <msgpack.h>

#include "shared/arena.h"
#include "shared/model.h"

struct bench {
    struct arena *arena;
    struct buffer buffer;
};

static int bench_up(void **state)
{
    struct bench *bench = new0(struct bench);

    model_init();
    bench->arena = arena_new();
    buffer_init(&bench->buffer, 64 << 20);
    *state = bench;
    return 0;
}

static int bench_down(void **state)
{
    struct bench *bench = *state;

    arena_destroy(&bench->arena);
    buffer_done(&bench->buffer);
    free(bench);
    return 0;
}

static struct value round_trip(struct bench *bench, const struct type *type, struct value value)
{
    struct value back;

    buffer_clear(&bench->buffer);
    pack_value(&bench->buffer, &value);
    assert_int_equal(unpack_value(bench->buffer.bytes, bench->buffer.length, type, bench->arena, &back), 0);
    return back;
}

static void values_describe_themselves(void **state)
{
    struct bench *bench = *state;
    struct value items[] = {value_text("k"), VALUE_INT(1), VALUE_REF(((ref_t){1, 2})), VALUE_BOOL(true)};
    const struct value values[] = {
        value_text(""),       value_text("gr\xc3\xbc\xc3\x9f"), VALUE_FLOAT(0.1), VALUE_FLOAT(-INFINITY),
        VALUE_BOOL(true),     VALUE_BOOL(false),                VALUE_VOID,       VALUE_REF(NULL_REF),
        VALUE_REF(((ref_t){0x0123456789abcdef, 0xfedcba9876543210})),
        VALUE_EMPTY_SET,      VALUE_EMPTY_MAP,                  VALUE_SET(4, items), VALUE_MAP(2, items),
    };

    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        struct value back = round_trip(bench, NULL, values[i]);

        assert_true(value_equal(&back, &values[i]));
    }
}

static void ints_of_every_size_survive(void **state)
{
    struct bench *bench = *state;

    for (int bit = 0; bit < 64; bit++) {
        for (int off = -2; off <= 2; off++) {
            for (int sign = 0; sign < 2; sign++) {
                int64_t number = (int64_t) ((1ULL << bit) + (uint64_t) (int64_t) off);
                struct value value = VALUE_INT(sign ? (int64_t) (0 - (uint64_t) number) : number);
                struct value back = round_trip(bench, NULL, value);

                assert_true(value_equal(&back, &value));
            }
        }
    }
}

static void lengths_of_every_form_survive(void **state)
{
    static const uint32_t lengths[] = {1, 15, 16, 31, 32, 255, 256, 65535, 65536, 100000};
    struct bench *bench = *state;

    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        struct value *items = arena_alloc_array(bench->arena, 2 * lengths[i], sizeof *items);
        char *text = arena_alloc(bench->arena, lengths[i] + 1);
        struct value values[3], back;

        memset(text, 'x', lengths[i]);
        for (uint32_t j = 0; j < 2 * lengths[i]; j++)
            items[j] = VALUE_INT(j);
        values[0] = value_text(text);
        values[1] = VALUE_SET(lengths[i], items);
        values[2] = VALUE_MAP(lengths[i], items);
        for (int j = 0; j < 3; j++) {
            back = round_trip(bench, NULL, values[j]);
            assert_true(value_equal(&back, &values[j]));
        }
    }
}

static void types_bring_back_what_the_bytes_do_not_say(void **state)
{
    const struct type datetime = {.kind = KIND_DATETIME}, number = {.kind = KIND_FLOAT}, text = {.kind = KIND_STRING};
    const struct type power = {.kind = KIND_ENUM, .enum_type = &enum_type_vm_power_state};
    const struct type map = {.kind = KIND_MAP, .key = &text, .element = &power};
    struct bench *bench = *state;
    struct value pair[] = {value_text("a"), VALUE_ENUM(vm_power_state, vm_power_state_Running)};
    struct value back, wrong = value_text("Flying");

    back = round_trip(bench, &datetime, VALUE_DATETIME(-5));
    assert_true(back.kind == KIND_DATETIME && back.i == -5);
    back = round_trip(bench, NULL, VALUE_DATETIME(-5));
    assert_int_equal(back.kind, KIND_INT);
    back = round_trip(bench, &number, VALUE_INT(3));
    assert_true(back.kind == KIND_FLOAT && back.f == 3);
    back = round_trip(bench, &map, VALUE_MAP(1, pair));
    assert_true(value_equal(&back.items[1], &pair[1]));
    back = round_trip(bench, NULL, pair[1]);
    assert_string_equal(back.text, "Running");
    buffer_clear(&bench->buffer);
    pack_value(&bench->buffer, &wrong);
    assert_int_equal(unpack_value(bench->buffer.bytes, bench->buffer.length, &power, bench->arena, &back), -1);
    assert_int_equal(unpack_value(bench->buffer.bytes, bench->buffer.length, &datetime, bench->arena, &back), -1);
}

static void records_of_every_class_survive(void **state)
{
    struct bench *bench = *state;

    for (int c = 0; c < CLASS_COUNT; c++) {
        const struct class *class = &model_classes[c];
        const struct type type = {.kind = KIND_RECORD, .class = class};
        struct value *fields = arena_alloc_array(bench->arena, (size_t) class->field_count, sizeof *fields);
        struct value record = {.kind = KIND_RECORD, .record = {class, fields}}, back;

        for (int i = 0; i < class->field_count; i++)
            fields[i] = class->fields[i].initial;
        back = round_trip(bench, &type, record);
        assert_true(value_equal(&back, &record));
    }
}

static void members_may_come_and_go(void **state)
{
    struct bench *bench = *state;
    const struct type type = {.kind = KIND_RECORD, .class = CLASS_OF(VBD)};
    struct value back;

    pack_map(&bench->buffer, 3);
    pack_text(&bench->buffer, "from_the_future");
    pack_array(&bench->buffer, 1);
    pack_map(&bench->buffer, 1);
    pack_text(&bench->buffer, "a");
    pack_int(&bench->buffer, 5);
    pack_text(&bench->buffer, "bootable");
    pack_value(&bench->buffer, &VALUE_BOOL(true));
    pack_text(&bench->buffer, "VM");
    pack_ref(&bench->buffer, (ref_t){3, 4});
    assert_int_equal(unpack_value(bench->buffer.bytes, bench->buffer.length, &type, bench->arena, &back), 0);
    assert_true(back.record.fields[F_VBD_bootable].b);
    assert_true(back.record.fields[F_VBD_unpluggable].b); /* its default */
    assert_int_equal(back.record.fields[F_VBD_VM].ref.lo, 4);
}

static void msgpack_c_reads_and_writes_the_same(void **state)
{
    struct bench *bench = *state;
    struct value items[] = {value_text("text"), VALUE_INT(-129), VALUE_INT(70000), VALUE_FLOAT(2.5),
                            VALUE_BOOL(true),   VALUE_VOID,      VALUE_REF(((ref_t){1, 2}))};
    struct value set = VALUE_SET(ARRAY_SIZE(items), items), back;
    msgpack_sbuffer theirs;
    msgpack_packer packer;
    msgpack_unpacked message;

    msgpack_sbuffer_init(&theirs);
    msgpack_packer_init(&packer, &theirs, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, ARRAY_SIZE(items));
    msgpack_pack_str_with_body(&packer, "text", 4);
    msgpack_pack_int64(&packer, -129);
    msgpack_pack_int64(&packer, 70000);
    msgpack_pack_double(&packer, 2.5);
    msgpack_pack_true(&packer);
    msgpack_pack_nil(&packer);
    msgpack_pack_bin_with_body(&packer, "\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2", 16);
    pack_value(&bench->buffer, &set);
    assert_int_equal(theirs.size, bench->buffer.length);
    assert_memory_equal(theirs.data, bench->buffer.bytes, theirs.size);
    assert_int_equal(unpack_value(theirs.data, theirs.size, NULL, bench->arena, &back), 0);
    assert_true(value_equal(&back, &set));
    msgpack_unpacked_init(&message);
    assert_int_equal(msgpack_unpack_next(&message, bench->buffer.bytes, bench->buffer.length, NULL),
                     MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(message.data.type, MSGPACK_OBJECT_ARRAY);
    assert_int_equal(message.data.via.array.size, ARRAY_SIZE(items));
    msgpack_unpacked_destroy(&message);
    msgpack_sbuffer_clear(&theirs);
    msgpack_pack_float(&packer, 0.5f);
    assert_int_equal(unpack_value(theirs.data, theirs.size, NULL, bench->arena, &back), 0);
    assert_true(back.f == 0.5);
    msgpack_sbuffer_destroy(&theirs);
}

static void bad_bytes_are_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t count;
    } cases[] = {
        {"", 0},
        {"\xc1", 1},                                       /* never used */
        {"\xd4\x01\x01", 3},                               /* an extension */
        {"\xc7\x01\x01\x01", 4},
        {"\x01\x02", 2},                                   /* two values */
        {"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9},       /* above int64 */
        {"\xdd\xff\xff\xff\xff", 5},                       /* four billion items */
        {"\xdd\xff\xff\xff\xff\x01\x01\x01", 8},
        {"\xdf\x80\x00\x00\x00\x01\x01", 7},               /* twice that many is zero in 32 bits */
        {"\xdb\xff\xff\xff\xff" "abc", 8},
        {"\xa2\xc3\x28", 3},                               /* no UTF-8 */
        {"\xa1\x00", 2},                                   /* NUL */
        {"\xc4\x03" "abc", 5},                             /* bytes that are no reference */
        {"\xc4\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 18},  /* null, but not its form */
        {"\x82\xa1\x61\x01\xa1\x61\x02", 7},               /* a key twice */
    };
    struct bench *bench = *state;
    struct value back, value = VALUE_INT(0), deep[PACK_DEPTH_MAX + 1];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(unpack_value(cases[i].bytes, cases[i].count, NULL, bench->arena, &back), -1);

    for (int i = 0; i <= PACK_DEPTH_MAX; i++) {
        deep[i] = value;
        value = VALUE_SET(1, &deep[i]);
        buffer_clear(&bench->buffer);
        pack_value(&bench->buffer, &value);
        assert_int_equal(unpack_value(bench->buffer.bytes, bench->buffer.length, NULL, bench->arena, &back),
                         i < PACK_DEPTH_MAX ? 0 : -1);
    }
    arena_set_limit(bench->arena, arena_bytes(bench->arena) + 1000);
    buffer_clear(&bench->buffer);
    pack_array(&bench->buffer, 1000);
    for (int i = 0; i < 1000; i++)
        pack_int(&bench->buffer, i);
    assert_int_equal(unpack_value(bench->buffer.bytes, bench->buffer.length, NULL, bench->arena, &back), -1);
}

/* Nested headers that each claim all the bytes behind them take no more memory than the bytes could fill. */
static void claims_do_not_add_up(void **state)
{
    struct bench *bench = *state;
    size_t before = arena_bytes(bench->arena), count = 100000;
    char *bytes = alloc0(count);
    struct value back;

    for (size_t i = 0; i + 5 < 60 * 5; i += 5)
        memcpy(bytes + i, "\xdd\x00\x01\x00\x00", 5); /* 65,536 items, of which the first is the next header */
    assert_int_equal(unpack_value(bytes, count, NULL, bench->arena, &back), -1);
    assert_true(arena_bytes(bench->arena) - before < (count + 1000) * sizeof(struct value));
    free(bytes);
}

static void every_cut_is_refused(void **state)
{
    struct bench *bench = *state;
    const struct class *class = CLASS_OF(VM);
    const struct type type = {.kind = KIND_RECORD, .class = class};
    struct value *fields = arena_alloc_array(bench->arena, (size_t) class->field_count, sizeof *fields), back;
    struct value record = {.kind = KIND_RECORD, .record = {class, fields}};

    for (int i = 0; i < class->field_count; i++)
        fields[i] = class->fields[i].initial;
    pack_value(&bench->buffer, &record);
    for (size_t length = 0; length < bench->buffer.length; length++) {
        char *cut = memcpy(alloc0(length), bench->buffer.bytes, length); /* its own block: reading over is seen */

        assert_int_equal(unpack_value(cut, length, &type, bench->arena, &back), -1);
        free(cut);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(values_describe_themselves, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(ints_of_every_size_survive, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(lengths_of_every_form_survive, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(types_bring_back_what_the_bytes_do_not_say, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(records_of_every_class_survive, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(members_may_come_and_go, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(msgpack_c_reads_and_writes_the_same, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(bad_bytes_are_refused, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(claims_do_not_add_up, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(every_cut_is_refused, bench_up, bench_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
