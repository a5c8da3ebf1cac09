/* test_changes.c - what is written is what is read; whatever else is read is refused */
#include "random_pool.h"

#include <errno.h>

#include "shared/buffer.h"
#include "shared/loop.h"
#include "shared/pack.h"

struct world {
    struct fake_clock clock;
    struct loop *loop;
    struct store *store;
};

static void world_init(struct world *world)
{
    fake_clock_init(&world->clock, 1000, 1700000000);
    world->loop = loop_new(&world->clock.clock);
    world->store = store_new(&world->clock.clock, world->loop);
}

static void world_done(struct world *world)
{
    store_destroy(&world->store);
    loop_destroy(&world->loop);
}

/* A sink that passes everything durable through its bytes into another store. */
struct courier {
    struct store_sink sink;
    struct store *to;
    struct buffer bytes; /* of the last one */
    int sent;
};

static void courier_append(struct store_sink *sink, const struct changes *changes)
{
    struct courier *courier = CONTAINER_OF(sink, struct courier, sink);
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct changes read;

    if (!changes->is_durable)
        return;
    buffer_clear(&courier->bytes);
    changes_encode(changes, &courier->bytes);
    assert_int_equal(changes_decode(courier->bytes.bytes, courier->bytes.length, arena, &read), 0);
    assert_int_equal(read.generation, changes->generation);
    assert_int_equal(read.follows, changes->follows);
    assert_true(read.is_durable);
    assert_true(read.count > 0);
    assert_int_equal(read.skipped, 0);
    assert_int_equal(store_load_changes(courier->to, &read), 0);
    courier->sent++;
}

static void courier_init(struct courier *courier, struct world *from, struct world *to)
{
    *courier = (struct courier){.sink.append = courier_append, .to = to->store};
    buffer_init(&courier->bytes, 1 << 20);
    store_add_sink(from->store, &courier->sink);
}

static void replayed_bytes_give_the_same_objects(_unused_ void **state)
{
    struct world world, copy;
    struct courier courier;
    struct seeded_random seeded;

    seeded_random_init(&seeded, 11);
    world_init(&world);
    world_init(&copy);
    courier_init(&courier, &world, &copy);
    for (int round = 0; round < 2000; round++) {
        struct txn *txn = store_begin(world.store);

        random_changes(txn, &seeded.random);
        store_apply(&txn);
        if (round % 50 == 0)
            assert_int_equal(digest_view(store_core_view(world.store), true, false),
                             digest_view(store_core_view(copy.store), true, false));
    }
    assert_true(courier.sent > 1000);
    store_load_end(copy.store, 1, 0);
    check_indexes(store_core_view(copy.store), true);
    buffer_done(&courier.bytes);
    world_done(&world);
    world_done(&copy);
}

/* Several objects with all kinds of fields, as bytes. */
static void sample(struct courier *courier, struct world *world, struct world *copy)
{
    struct seeded_random seeded;
    struct txn *txn;

    seeded_random_init(&seeded, 12);
    world_init(world);
    world_init(copy);
    courier_init(courier, world, copy);
    for (int round = 0; round < 10; round++) { /* what exists is changed and deleted, too */
        txn = store_begin(world->store);
        for (int i = 0; i < 10; i++)
            random_changes(txn, &seeded.random);
        store_apply(&txn);
    }
    assert_true(courier->bytes.length > 1000);
}

static void sample_done(struct courier *courier, struct world *world, struct world *copy)
{
    buffer_done(&courier->bytes);
    world_done(world);
    world_done(copy);
}

static void a_record_cut_anywhere_is_refused(_unused_ void **state)
{
    struct world world, copy;
    struct courier courier;
    _cleanup_(arena_destroy) struct arena *arena = arena_new();

    sample(&courier, &world, &copy);
    for (size_t length = 0; length < courier.bytes.length; length++) {
        struct changes read = {.generation = 77};
        _cleanup_(free_p) char *cut = malloc(length ? length : 1); /* so that reading on is seen */

        memcpy(cut, courier.bytes.bytes, length);
        assert_int_equal(changes_decode(cut, length, arena, &read), -EBADMSG);
        assert_int_equal(read.generation, 77);
        arena_reset(arena);
    }
    sample_done(&courier, &world, &copy);
}

/* Any bytes are refused, or are changes that a store takes or refuses without harm. */
static void changed_bytes_do_no_harm(_unused_ void **state)
{
    struct world world, copy;
    struct courier courier;
    struct seeded_random seeded;
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    _cleanup_(free_p) char *bytes = NULL;
    int decoded = 0;

    sample(&courier, &world, &copy);
    bytes = malloc(courier.bytes.length);
    seeded_random_init(&seeded, 13);
    for (int i = 0; i < 5000; i++) {
        struct changes read;
        struct world other;

        memcpy(bytes, courier.bytes.bytes, courier.bytes.length);
        for (uint64_t n = random_below(&seeded.random, 3) + 1; n-- > 0;)
            bytes[random_below(&seeded.random, courier.bytes.length)] =
                (char) random_below(&seeded.random, 256);
        arena_reset(arena);
        if (changes_decode(bytes, courier.bytes.length, arena, &read) < 0)
            continue;
        decoded++;
        world_init(&other);
        store_load_changes(other.store, &read);
        store_load_end(other.store, 1, 0);
        check_indexes(store_core_view(other.store), true);
        world_done(&other);
    }
    assert_in_range(decoded, 100, 4900);
    sample_done(&courier, &world, &copy);
}

static void put_head(struct buffer *out, uint32_t pairs, uint32_t changes)
{
    buffer_clear(out);
    pack_map(out, pairs);
    pack_text(out, "g");
    pack_int(out, 5);
    pack_text(out, "f");
    pack_int(out, 4);
    pack_text(out, "c");
    pack_array(out, changes);
}

static void put_change(struct buffer *out, int kind, const char *class, ref_t ref)
{
    pack_array(out, 4);
    pack_int(out, kind);
    pack_text(out, class);
    pack_ref(out, ref);
}

static void what_newer_versions_add_is_skipped(_unused_ void **state)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct changes read;
    struct buffer out;

    buffer_init(&out, 1 << 20);
    put_head(&out, 4, 3);
    put_change(&out, 1, "spaceship", (ref_t){1, 2});
    pack_map(&out, 1);
    pack_text(&out, "warp");
    pack_array(&out, 2), pack_int(&out, 1), pack_map(&out, 0);
    put_change(&out, 2, "VM", (ref_t){3, 4});
    pack_map(&out, 3);
    pack_text(&out, "hats");
    pack_ref(&out, (ref_t){7, 7});
    pack_text(&out, "name_label");
    pack_text(&out, "vm");
    pack_text(&out, "allowed_operations"); /* volatile: not to be read from disk */
    pack_array(&out, 0);
    put_change(&out, 3, "session", (ref_t){5, 6}); /* a class without durable objects */
    pack_map(&out, 0);
    pack_text(&out, "more");
    pack_array(&out, 0);
    assert_int_equal(changes_decode(out.bytes, out.length, arena, &read), 0);
    assert_int_equal(read.generation, 5);
    assert_int_equal(read.follows, 4);
    assert_int_equal(read.count, 1);
    assert_int_equal(read.skipped, 5);
    assert_int_equal(read.list[0].kind, CHANGE_MODIFY);
    assert_ptr_equal(read.list[0].class, CLASS_OF(VM));
    assert_int_equal(read.list[0].field_count, 1);
    assert_int_equal(read.list[0].fields[0], F_VM_name_label);
    assert_string_equal(read.list[0].values[0].text, "vm");
    buffer_done(&out);
}

static void what_is_wrong_is_refused(_unused_ void **state)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct changes read;
    struct buffer out;

    buffer_init(&out, 1 << 20);
    put_head(&out, 3, 1);
    put_change(&out, 2, "VM", (ref_t){3, 4});
    pack_map(&out, 1);
    pack_text(&out, "name_label");
    pack_int(&out, 3); /* no string */
    assert_int_equal(changes_decode(out.bytes, out.length, arena, &read), -EBADMSG);

    put_head(&out, 3, 1);
    put_change(&out, 4, "VM", (ref_t){3, 4}); /* no such kind */
    pack_map(&out, 0);
    assert_int_equal(changes_decode(out.bytes, out.length, arena, &read), -EBADMSG);

    put_head(&out, 3, 1);
    put_change(&out, 1, "VM", NULL_REF);
    pack_map(&out, 0);
    assert_int_equal(changes_decode(out.bytes, out.length, arena, &read), -EBADMSG);

    put_head(&out, 3, UINT32_MAX); /* claims more than there is */
    assert_int_equal(changes_decode(out.bytes, out.length, arena, &read), -EBADMSG);

    put_head(&out, 3, 0);
    pack_int(&out, 0); /* something behind the end */
    assert_int_equal(changes_decode(out.bytes, out.length, arena, &read), -EBADMSG);

    put_head(&out, 4, 0);
    pack_text(&out, "c"); /* twice */
    pack_array(&out, 0);
    assert_int_equal(changes_decode(out.bytes, out.length, arena, &read), -EBADMSG);

    put_head(&out, 4, 0);
    pack_text(&out, "f"); /* follows a later one */
    pack_int(&out, 5);
    assert_int_equal(changes_decode(out.bytes, out.length, arena, &read), -EBADMSG);
    buffer_done(&out);
}

static void fields_alone(_unused_ void **state)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    int numbers[] = {F_VM_name_label, F_VM_allowed_operations, F_VM_resident_on};
    struct value values[] = {value_text("vm"), VALUE_EMPTY_SET, VALUE_REF(((ref_t){1, 2}))};
    struct change change = {CHANGE_CREATE, CLASS_OF(VM), {3, 4}, 3, numbers, values};
    struct value *fields =
        arena_alloc_array(arena, (size_t) CLASS_OF(VM)->field_count, sizeof *fields);
    struct buffer out;

    buffer_init(&out, 1 << 20);
    change_fields_encode(&change, &out);
    assert_int_equal(change_fields_decode(CLASS_OF(VM), out.bytes, out.length, arena, fields), 0);
    assert_string_equal(fields[F_VM_name_label].text, "vm");
    assert_true(ref_equal(fields[F_VM_resident_on].ref, (ref_t){1, 2}));
    assert_int_equal(fields[F_VM_allowed_operations].kind, KIND_VOID);
    assert_int_equal(fields[F_VM_name_description].kind, KIND_VOID);
    assert_int_equal(change_fields_decode(CLASS_OF(VM), out.bytes, out.length - 1, arena, fields),
                     -EBADMSG);
    buffer_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replayed_bytes_give_the_same_objects),
        cmocka_unit_test(a_record_cut_anywhere_is_refused),
        cmocka_unit_test(changed_bytes_do_no_harm),
        cmocka_unit_test(what_newer_versions_add_is_skipped),
        cmocka_unit_test(what_is_wrong_is_refused),
        cmocka_unit_test(fields_alone),
    };

    model_init();
    return cmocka_run_group_tests_name("changes", tests, NULL, NULL);
}
