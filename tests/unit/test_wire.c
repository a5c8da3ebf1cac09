/* test_wire.c - frames survive the journey, and everything else is refused */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/crash.h"
#include "shared/failure.h"
#include "shared/pack.h"
#include "shared/random.h"
#include "shared/slave_calls.h"
#include "shared/wire.h"

struct fixture {
    struct arena *arena;
    struct buffer bytes;
};

static int begin(void **state)
{
    struct fixture *f = new0(struct fixture);

    model_init();
    f->arena = arena_new();
    buffer_init(&f->bytes, LINK_FRAME_BYTES_MAX);
    *state = f;
    return 0;
}

static int end(void **state)
{
    struct fixture *f = *state;

    buffer_done(&f->bytes);
    arena_destroy(&f->arena);
    free(f);
    return 0;
}

static struct wire_frame a_call(struct fixture *f)
{
    static const char *const texts[] = {"name", "vm1", "vcpus", "2"};
    struct value *config = arena_alloc_array(f->arena, 4, sizeof *config);
    struct value *disk = arena_alloc_array(f->arena, 1, sizeof *disk);
    struct slave_vm_start_args *args = arena_new0(f->arena, struct slave_vm_start_args);
    struct value *map = arena_new0(f->arena, struct value), *set = arena_new0(f->arena, struct value);
    struct value *none = arena_new0(f->arena, struct value);

    for (int i = 0; i < 4; i++)
        config[i] = value_text(texts[i]);
    *map = VALUE_MAP(2, config);
    *disk = *map;
    *set = VALUE_SET(1, disk);
    *none = VALUE_EMPTY_SET;
    *args = (struct slave_vm_start_args){.vm = "6a7f1f4c-0000-4000-8000-000000000001",
                                         .epoch = 7,
                                         .config = map,
                                         .disks = set,
                                         .nics = none,
                                         .paused = true};
    return (struct wire_frame){
        .type = WIRE_CALL,
        .link = 3,
        .seq = 9,
        .epoch = 2,
        .holder = {1, 2},
        .id = {3, 4},
        .name = "vm_start",
        .deadline_ms = 1500,
        .body = slave_call_pack(slave_call_row(SLAVE_CALL_vm_start), args, f->arena),
    };
}

static void a_call_arrives_as_it_was_sent(void **state)
{
    struct fixture *f = *state;
    struct wire_frame sent = a_call(f), got;
    struct slave_vm_start_args args;
    struct failure failure = {0};

    wire_encode(&sent, &f->bytes);
    assert_int_equal(wire_decode(f->bytes.bytes, f->bytes.length, f->arena, &got), 0);
    assert_int_equal(got.type, WIRE_CALL);
    assert_int_equal(got.link, 3);
    assert_int_equal(got.seq, 9);
    assert_true(ref_equal(got.holder, sent.holder) && ref_equal(got.id, sent.id));
    assert_string_equal(got.name, "vm_start");
    assert_int_equal(got.deadline_ms, 1500);
    assert_int_equal(slave_call_bind(slave_call_find(got.name), &got.body, f->arena, &args, &failure), 0);
    assert_int_equal(args.epoch, 7);
    assert_true(args.paused);
    assert_string_equal(value_map_text(args.config, "name", ""), "vm1");
    assert_int_equal(args.disks->length, 1);
    assert_int_equal(args.nics->length, 0);
}

static void every_cut_and_every_flipped_byte_is_survived(void **state)
{
    struct fixture *f = *state;
    struct wire_frame sent = a_call(f), got;
    struct arena *arena = arena_new();

    wire_encode(&sent, &f->bytes);
    for (size_t length = 0; length < f->bytes.length; length++) {
        assert_int_equal(wire_decode(f->bytes.bytes, length, arena, &got), -EBADMSG);
        arena_reset(arena);
    }
    for (size_t i = 0; i < f->bytes.length; i++)
        for (int bit = 0; bit < 8; bit++) {
            f->bytes.bytes[i] ^= (char) (1 << bit);
            (void) wire_decode(f->bytes.bytes, f->bytes.length, arena, &got);
            f->bytes.bytes[i] ^= (char) (1 << bit);
            arena_reset(arena);
        }
    arena_destroy(&arena);
}

static int decode_map(struct fixture *f, const struct value *items, uint32_t pairs)
{
    struct value map = VALUE_MAP(pairs, items);
    struct wire_frame got;

    buffer_clear(&f->bytes);
    pack_value(&f->bytes, &map);
    return wire_decode(f->bytes.bytes, f->bytes.length, f->arena, &got);
}

static void frames_are_checked_strictly(void **state)
{
    struct fixture *f = *state;
    struct value beat[] = {value_text("t"),   value_text("beat"), value_text("link"), VALUE_INT(1),
                           value_text("seq"), VALUE_INT(2),       value_text("new"),  VALUE_BOOL(true)};

    assert_int_equal(decode_map(f, beat, 3), 0);
    assert_int_equal(decode_map(f, beat, 4), 0); /* a key of a later version */
    assert_int_equal(decode_map(f, beat, 2), -EBADMSG);
    beat[5] = VALUE_INT(-2);
    assert_int_equal(decode_map(f, beat, 3), -EBADMSG);
    beat[5] = value_text("2");
    assert_int_equal(decode_map(f, beat, 3), -EBADMSG);
    beat[5] = VALUE_INT(2);
    beat[6] = value_text("seq"); /* twice */
    beat[7] = VALUE_INT(3);
    assert_int_equal(decode_map(f, beat, 4), -EBADMSG);
    beat[1] = value_text("bet");
    assert_int_equal(decode_map(f, beat, 3), -EBADMSG);
}

static void arguments_must_all_be_there(void **state)
{
    struct fixture *f = *state;
    struct value items[] = {value_text("vm"), value_text("x")}, map = VALUE_MAP(1, items);
    struct slave_vm_pause_args args;
    struct failure failure = {0};

    assert_int_equal(slave_call_bind(slave_call_find("vm_pause"), &map, f->arena, &args, &failure), -ERR_FIELD_TYPE_ERROR);
    assert_string_equal(failure.params[0], "epoch");
    assert_null(slave_call_find("vm_dance"));
}

static void proofs_need_the_secret_and_name_both_sides(void **state)
{
    char a[WIRE_PROOF_BYTES], b[WIRE_PROOF_BYTES], nonce[WIRE_NONCE_BYTES];

    (void) state;
    wire_nonce(random_real(), nonce);
    assert_int_equal(strlen(nonce), WIRE_NONCE_BYTES - 1);
    wire_proof("secret", "slave", "K1", "K2", nonce, "n", a);
    wire_proof("secret", "slave", "K1", "K2", nonce, "n", b);
    assert_true(wire_same_secret(a, b));
    wire_proof("secret", "master", "K1", "K2", nonce, "n", b);
    assert_false(wire_same_secret(a, b));
    wire_proof("secret", "slave", "K1K", "2", nonce, "n", b);
    assert_false(wire_same_secret(a, b));
    wire_proof("secre", "slave", "K1", "K2", nonce, "n", b);
    assert_false(wire_same_secret(a, b));
}

static void crash_points_exist_for_each_call(void **state)
{
    size_t count;
    const char *const *names = slave_call_names(&count);
    char name[128];

    (void) state;
    assert_int_equal(count, SLAVE_CALL_COUNT);
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "slave.%s.reply.before:drop-reply", names[i]);
        assert_true(crash_arm(name));
    }
    assert_false(crash_arm("slave.vm_ask.begun")); /* nothing is written down for a question */
    assert_false(crash_arm("slave.vm_dance.reply.before"));
    assert_false(crash_arm("slave.vm_send.reply.before:explode"));
    assert_true(crash_arm("slave.vm_send.reply.before:drop-reply"));
    assert_false(crash_call(CRASH_SLAVE_REPLY_BEFORE, SLAVE_CALL_vm_start));
    assert_true(crash_call(CRASH_SLAVE_REPLY_BEFORE, SLAVE_CALL_vm_send));
    assert_false(crash_call(CRASH_SLAVE_REPLY_BEFORE, SLAVE_CALL_vm_send)); /* once */
    crash_disarm();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_call_arrives_as_it_was_sent, begin, end),
        cmocka_unit_test_setup_teardown(every_cut_and_every_flipped_byte_is_survived, begin, end),
        cmocka_unit_test_setup_teardown(frames_are_checked_strictly, begin, end),
        cmocka_unit_test_setup_teardown(arguments_must_all_be_there, begin, end),
        cmocka_unit_test(proofs_need_the_secret_and_name_both_sides),
        cmocka_unit_test(crash_points_exist_for_each_call),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
