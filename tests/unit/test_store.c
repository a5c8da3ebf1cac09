/* test_store.c - generations, transactions, indexes, visibility, pins, loading */
#include "random_pool.h"

#include "master/lifecycle.h"
#include "shared/fiber.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

struct world {
    struct fake_clock clock;
    struct loop *loop;
    struct store *store;
    struct seeded_random seeded;
    struct random *random;
};

static void world_init(struct world *world)
{
    fake_clock_init(&world->clock, 1000, 1700000000);
    world->loop = loop_new(&world->clock.clock);
    world->store = store_new(&world->clock.clock, world->loop);
    seeded_random_init(&world->seeded, 7);
    world->random = &world->seeded.random;
}

static void world_done(struct world *world)
{
    store_destroy(&world->store);
    loop_destroy(&world->loop);
}

static void run(struct world *world)
{
    while (loop_step(world->loop))
        ;
}

/* A sink that remembers what it was given last, and replays it all into another store. */
struct spy {
    struct store_sink sink;
    struct store *copy;
    uint64_t generation, follows;
    bool is_durable;
    int count;
    struct change first; /* its lists are gone */
    int counts[CHANGE_TOUCH + 1];
    uint64_t class_mask[2];
};

static void spy_append(struct store_sink *sink, const struct changes *changes)
{
    struct spy *spy = CONTAINER_OF(sink, struct spy, sink);

    spy->generation = changes->generation;
    spy->follows = changes->follows;
    spy->is_durable = changes->is_durable;
    spy->count = changes->count;
    spy->first = changes->list[0];
    memset(spy->counts, 0, sizeof spy->counts);
    memcpy(spy->class_mask, changes->class_mask, sizeof spy->class_mask);
    for (int i = 0; i < changes->count; i++)
        spy->counts[changes->list[i].kind]++;
    if (spy->copy)
        assert_int_equal(store_load_changes(spy->copy, changes), 0);
}

static ref_t create_vm(struct world *world, const char *name)
{
    struct txn *txn = store_begin(world->store);
    ref_t vm = txn_create_new(txn, world->random, CLASS_OF(VM), NULL);

    VM_put_name_label(txn, vm, name);
    store_apply(&txn);
    return vm;
}

static ref_t create_vbd(struct world *world, ref_t vm)
{
    struct txn *txn = store_begin(world->store);
    ref_t vbd = txn_create_new(txn, world->random, CLASS_OF(VBD), NULL);

    VBD_put_VM(txn, vbd, vm);
    store_apply(&txn);
    return vbd;
}

static const struct field *inverse_VBDs(void)
{
    return &CLASS_OF(VM)->fields[F_VM_VBDs];
}

static void objects_come_change_and_go(_unused_ void **state)
{
    struct world world;
    const struct object *vm;
    struct txn *txn;
    struct view *old;
    ref_t ref;
    char uuid[UUID_TEXT_BYTES];

    world_init(&world);
    ref = create_vm(&world, "one");
    vm = view_get(store_core_view(world.store), VM, ref);
    assert_string_equal(VM_get_name_label(vm), "one");
    assert_int_equal(vm->created, 1);
    assert_int_equal(vm->modified, 1);
    strcpy(uuid, VM_get_uuid(vm));
    for (char *p = uuid; *p; p++)
        if (*p >= 'a')
            *p = (char) (*p - 'a' + 'A');
    assert_ptr_equal(view_by_uuid(store_core_view(world.store), CLASS_OF(VM), uuid), vm);
    assert_null(view_by_uuid(store_core_view(world.store), CLASS_OF(VM), "no uuid"));
    old = store_pin(world.store);

    txn = store_begin(world.store);
    VM_put_name_label(txn, ref, "two");
    VM_put_name_description(txn, ref, "more");
    assert_string_equal(VM_get_name_label(txn_get(txn, VM, ref)), "two");
    assert_string_equal(VM_get_name_label(view_get(store_core_view(world.store), VM, ref)), "one");
    assert_int_equal(store_apply(&txn), 2);
    assert_null(txn);
    vm = view_get(store_core_view(world.store), VM, ref);
    assert_int_equal(vm->created, 1);
    assert_int_equal(vm->modified, 2);

    txn = store_begin(world.store);
    txn_delete(txn, CLASS_OF(VM), ref);
    assert_null(txn_get(txn, VM, ref));
    assert_int_equal(store_apply(&txn), 3);
    assert_null(view_get(store_core_view(world.store), VM, ref));
    assert_string_equal(VM_get_name_label(view_get(old, VM, ref)), "one");
    assert_int_equal(view_count(old, CLASS_OF(VM)), 1);
    view_unpin(&old);
    world_done(&world);
}

static void what_is_not_applied_leaves_nothing(_unused_ void **state)
{
    struct world world;
    struct store_figures before, after;
    uint64_t digest;
    ref_t vm;

    world_init(&world);
    vm = create_vm(&world, "stays");
    create_vbd(&world, vm);
    store_figures(world.store, &before);
    digest = digest_view(store_core_view(world.store), false, true);
    {
        _cleanup_(txn_end) struct txn *txn = store_begin(world.store);

        VM_put_name_label(txn, vm, "goes");
        txn_create_new(txn, world.random, CLASS_OF(VBD), NULL);
        txn_delete(txn, CLASS_OF(VM), vm);
        check_indexes(txn_view(txn), false);
    }
    assert_int_equal(digest_view(store_core_view(world.store), false, true), digest);
    check_indexes(store_core_view(world.store), true);
    store_figures(world.store, &after);
    assert_int_equal(before.bytes_live, after.bytes_live);
    assert_int_equal(before.versions_live, after.versions_live);
    assert_int_equal(store_newest(world.store), 2);
    world_done(&world);
}

static void put_back_is_no_change(_unused_ void **state)
{
    struct world world;
    struct spy spy = {.sink.append = spy_append};
    const struct object *version;
    struct txn *txn;
    ref_t vm, vbd;

    world_init(&world);
    vm = create_vm(&world, "same");
    vbd = create_vbd(&world, vm);
    store_add_sink(world.store, &spy.sink);
    version = view_get(store_core_view(world.store), VM, vm);

    txn = store_begin(world.store);
    VM_put_name_label(txn, vm, "other");
    VBD_put_VM(txn, vbd, NULL_REF);
    assert_int_equal(view_count_inverse(txn_view(txn), inverse_VBDs(), vm), 0);
    VM_put_name_label(txn, vm, "same");
    VBD_put_VM(txn, vbd, vm);
    txn_delete(txn, CLASS_OF(VM), txn_create_new(txn, world.random, CLASS_OF(VM), NULL));
    assert_int_equal(store_apply(&txn), 2);
    assert_int_equal(spy.generation, 0);

    /* Beside a real change: only that one counts. */
    txn = store_begin(world.store);
    VM_put_name_label(txn, vm, "other");
    VBD_put_bootable(txn, vbd, true);
    VM_put_name_label(txn, vm, "same");
    assert_int_equal(store_apply(&txn), 3);
    assert_ptr_equal(view_get(store_core_view(world.store), VM, vm), version);
    assert_int_equal(version->modified, 2); /* when the VBD came */
    assert_int_equal(spy.count, 1);
    assert_int_equal(spy.first.kind, CHANGE_MODIFY);
    assert_ptr_equal(spy.first.class, CLASS_OF(VBD));
    assert_int_equal(spy.first.field_count, 1);
    check_indexes(store_core_view(world.store), true);
    world_done(&world);
}

static void inverse_sets_touch_both_ends(_unused_ void **state)
{
    struct world world;
    struct spy spy = {.sink.append = spy_append};
    const struct view *core;
    struct txn *txn;
    ref_t a, b, vbd;

    world_init(&world);
    store_add_sink(world.store, &spy.sink);
    core = store_core_view(world.store);
    a = create_vm(&world, "a");
    b = create_vm(&world, "b");
    vbd = create_vbd(&world, a);
    assert_int_equal(view_get(core, VM, a)->modified, 3);
    assert_int_equal(view_get(core, VM, b)->modified, 2);
    assert_int_equal(spy.counts[CHANGE_CREATE], 1);
    assert_int_equal(spy.counts[CHANGE_TOUCH], 1);
    assert_true(spy.class_mask[CLASS_NUMBER_VM / 64] >> CLASS_NUMBER_VM % 64 & 1);

    txn = store_begin(world.store);
    VBD_put_VM(txn, vbd, b);
    store_apply(&txn);
    assert_int_equal(view_get(core, VM, a)->modified, 4);
    assert_int_equal(view_get(core, VM, b)->modified, 4);
    assert_int_equal(view_count_inverse(core, inverse_VBDs(), a), 0);
    assert_int_equal(view_count_inverse(core, inverse_VBDs(), b), 1);

    txn = store_begin(world.store);
    txn_delete(txn, CLASS_OF(VBD), vbd);
    store_apply(&txn);
    assert_int_equal(view_get(core, VM, a)->modified, 4);
    assert_int_equal(view_get(core, VM, b)->modified, 5);

    txn = store_begin(world.store);
    txn_touch(txn, CLASS_OF(VM), a);
    assert_int_equal(store_apply(&txn), 6);
    assert_false(spy.is_durable);
    assert_int_equal(view_get(core, VM, a)->modified, 6);
    world_done(&world);
}

static struct value operations(struct value *items, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        items[2 * i] = value_text(i == 0 ? "first" : "second");
        items[2 * i + 1] = VALUE_ENUM(vm_operations, i == 0 ? vm_operations_pause : vm_operations_suspend);
    }
    return VALUE_MAP(count, items);
}

/* A VM's disk may be plugged while the VM runs and nobody stops it. */
static void what_is_shown_otherwise_is_touched(_unused_ void **state)
{
    struct world world;
    struct spy spy = {.sink.append = spy_append};
    struct value items[4], none = VALUE_MAP(0, NULL), one = operations(items, 1);
    const struct view *core;
    struct txn *txn;
    ref_t a, vbd, other;

    world_init(&world);
    store_add_sink(world.store, &spy.sink);
    store_set_follow(world.store, lifecycle_follow);
    core = store_core_view(world.store);
    a = create_vm(&world, "a");
    vbd = create_vbd(&world, a);
    other = create_vbd(&world, create_vm(&world, "b"));
    assert_int_equal(view_get(core, VBD, vbd)->modified, 2);
    assert_int_equal(view_get(core, VBD, other)->modified, 4);

    txn = store_begin(world.store);
    VM_put_power_state(txn, a, vm_power_state_Running);
    store_apply(&txn);
    assert_int_equal(view_get(core, VBD, vbd)->modified, 5);
    assert_int_equal(spy.counts[CHANGE_MODIFY], 1);
    assert_int_equal(spy.counts[CHANGE_TOUCH], 1);

    txn = store_begin(world.store);
    VM_put_current_operations(txn, a, &one);
    store_apply(&txn);
    assert_int_equal(view_get(core, VBD, vbd)->modified, 6);
    assert_int_equal(spy.counts[CHANGE_TOUCH], 1);
    assert_false(spy.is_durable);

    txn = store_begin(world.store); /* the same is allowed: nothing */
    one = operations(items, 2);
    VM_put_current_operations(txn, a, &one);
    VM_put_name_label(txn, a, "c");
    store_apply(&txn);
    assert_int_equal(view_get(core, VM, a)->modified, 7);
    assert_int_equal(view_get(core, VBD, vbd)->modified, 6);

    txn = store_begin(world.store); /* changed itself: told as that, once */
    VM_put_current_operations(txn, a, &none);
    VBD_put_device(txn, vbd, "xvda");
    store_apply(&txn);
    assert_int_equal(spy.counts[CHANGE_MODIFY], 2);
    assert_int_equal(spy.counts[CHANGE_TOUCH], 0);
    assert_int_equal(view_get(core, VBD, other)->modified, 4);
    world_done(&world);
}

static void deletions_are_remembered(_unused_ void **state)
{
    struct world world;
    const struct view *core;
    struct view_iter it;
    struct deleted deleted;
    struct txn *txn;
    ref_t first, refs[600];

    world_init(&world);
    store_keep_deletions(world.store, 1);
    core = store_core_view(world.store);
    first = create_vm(&world, "first");
    txn = store_begin(world.store);
    txn_delete(txn, CLASS_OF(VM), first);
    store_apply(&txn);
    view_each_deleted(&it, core, CLASS_OF(VM), 0);
    assert_true(view_next_deleted(&it, &deleted));
    assert_true(ref_equal(deleted.ref, first));
    assert_int_equal(deleted.created, 1);
    assert_int_equal(deleted.deleted, 2);
    assert_false(view_next_deleted(&it, &deleted));
    assert_false(view_next_deleted(&it, &deleted));
    view_each_deleted(&it, core, CLASS_OF(VM), 2);
    assert_false(view_next_deleted(&it, &deleted));
    assert_int_equal(view_deletions_known_since(core, CLASS_OF(VM)), 0);

    txn = store_begin(world.store);
    for (size_t i = 0; i < ARRAY_SIZE(refs); i++)
        refs[i] = txn_create_new(txn, world.random, CLASS_OF(VM), NULL);
    store_apply(&txn);
    for (size_t i = 0; i < ARRAY_SIZE(refs); i++) {
        txn = store_begin(world.store);
        txn_delete(txn, CLASS_OF(VM), refs[i]);
        store_apply(&txn);
    }
    /* 601 were deleted, 512 are known: the first 89 are forgotten, the last of them of generation 3
     * + 88. */
    assert_int_equal(view_deletions_known_since(core, CLASS_OF(VM)), 91);
    view_each_deleted(&it, core, CLASS_OF(VM), 91);
    assert_true(view_next_deleted(&it, &deleted));
    assert_int_equal(deleted.deleted, 92);
    world_done(&world);
}

static void an_iterator_outlives_changes(_unused_ void **state)
{
    struct world world;
    const struct object *vbd;
    struct view_iter it;
    struct txn *txn;
    int seen = 0;
    ref_t vm;

    world_init(&world);
    vm = create_vm(&world, "vm");
    for (int i = 0; i < 100; i++)
        create_vbd(&world, vm);
    txn = store_begin(world.store);
    view_each_inverse(&it, txn_view(txn), inverse_VBDs(), vm);
    for (; (vbd = view_next(&it)); seen++)
        txn_delete(txn, CLASS_OF(VBD), vbd->ref);
    assert_int_equal(seen, 100);
    store_apply(&txn);

    for (int i = 0; i < 100; i++)
        create_vbd(&world, vm);
    view_each(&it, store_core_view(world.store), CLASS_OF(VBD));
    for (seen = 0; (vbd = view_next(&it)); seen++) {
        txn = store_begin(world.store);
        txn_delete(txn, CLASS_OF(VBD), vbd->ref);
        store_apply(&txn);
    }
    assert_int_equal(seen, 100);
    assert_int_equal(view_count(store_core_view(world.store), CLASS_OF(VBD)), 0);
    world_done(&world);
}

/* ---- visibility ---- */

struct ear {
    struct store_listener listener;
    int calls;
    uint64_t generation, mask[2];
};

static void ear_visible(struct store_listener *listener, uint64_t generation,
                        const uint64_t class_mask[2])
{
    struct ear *ear = CONTAINER_OF(listener, struct ear, listener);

    ear->calls++;
    ear->generation = generation;
    ear->mask[0] = class_mask[0];
    ear->mask[1] = class_mask[1];
}

struct waiter {
    struct store *store;
    uint64_t generation;
    bool is_done;
};

static void wait_fiber(void *arg)
{
    struct waiter *waiter = arg;

    store_wait_visible(waiter->store, waiter->generation);
    assert_true(store_visible(waiter->store) >= waiter->generation);
    waiter->is_done = true;
}

static void visible_when_the_required_sinks_have_it(_unused_ void **state)
{
    struct world world;
    struct spy journal = {.sink = {.append = spy_append, .is_required = true}};
    struct spy mirror = {.sink = {.append = spy_append}};
    struct ear ear = {.listener.visible = ear_visible};
    struct waiter waiters[4];
    struct view *view;
    struct txn *txn;
    ref_t vm;

    world_init(&world);
    store_add_sink(world.store, &journal.sink);
    store_add_sink(world.store, &mirror.sink);
    store_add_listener(world.store, &ear.listener);

    vm = create_vm(&world, "one"); /* 1, durable */
    txn = store_begin(world.store);
    VM_put_allowed_operations(txn, vm, &VALUE_SET(1, &VALUE_ENUM(vm_operations, 0)));
    assert_int_equal(store_apply(&txn), 2); /* 2, volatile */
    assert_false(journal.is_durable);
    create_vm(&world, "three"); /* 3, durable */
    assert_true(journal.is_durable);
    assert_int_equal(journal.follows, 1);
    txn = store_begin(world.store);
    txn_touch(txn, CLASS_OF(VM), vm);
    assert_int_equal(store_apply(&txn), 4); /* 4, volatile */
    for (size_t i = 0; i < ARRAY_SIZE(waiters); i++) {
        waiters[i] = (struct waiter){world.store, 4 - i, false};
        fiber_spawn(world.loop, wait_fiber, &waiters[i], "wait");
    }
    fiber_cancel(
        fiber_spawn(world.loop, wait_fiber, &(struct waiter){world.store, 4, false}, "cancelled"));
    run(&world);
    assert_int_equal(store_visible(world.store), 0);
    assert_int_equal(ear.calls, 0);
    view = store_pin(world.store);
    assert_int_equal(view_count(view, CLASS_OF(VM)), 0);
    view_unpin(&view);

    store_acknowledge(world.store, &mirror.sink, 3); /* not required: helps nobody */
    run(&world);
    assert_int_equal(store_visible(world.store), 0);
    store_acknowledge(world.store, &journal.sink, 1);
    run(&world);
    assert_int_equal(store_visible(world.store), 2);
    assert_false(waiters[0].is_done);
    assert_false(waiters[1].is_done);
    assert_true(waiters[2].is_done);
    assert_true(waiters[3].is_done);
    assert_int_equal(ear.calls, 1);
    assert_int_equal(ear.generation, 2);
    assert_true(ear.mask[CLASS_NUMBER_VM / 64] >> CLASS_NUMBER_VM % 64 & 1);
    store_acknowledge(world.store, &journal.sink, 3);
    run(&world);
    assert_int_equal(store_visible(world.store), 4);
    assert_true(waiters[0].is_done);
    assert_int_equal(ear.calls, 2);

    store_require_sink(world.store, &mirror.sink, true);
    create_vm(&world, "five");
    store_acknowledge(world.store, &journal.sink, 5);
    run(&world);
    assert_int_equal(store_visible(world.store), 4);
    store_require_sink(world.store, &mirror.sink, false);
    run(&world);
    assert_int_equal(store_visible(world.store), 5);
    assert_int_equal(ear.calls, 3);
    world_done(&world);
}

static void a_store_may_go_before_its_loop(_unused_ void **state)
{
    struct world world;
    struct spy journal = {.sink = {.append = spy_append, .is_required = true}};
    struct ear ear = {.listener.visible = ear_visible};

    world_init(&world);
    store_add_listener(world.store, &ear.listener);
    create_vm(&world, "told later");
    store_add_sink(world.store, &journal.sink);
    create_vm(&world, "never visible");
    store_acknowledge(world.store, &journal.sink, 2);
    store_destroy(&world.store);
    run(&world);
    assert_int_equal(ear.calls, 0);
    loop_destroy(&world.loop);

    world_init(&world);
    store_add_listener(world.store, &ear.listener);
    create_vm(&world, "told never");
    loop_destroy(&world.loop);
    store_destroy(&world.store);
}

/* ---- random transactions ---- */

static void random_transactions(_unused_ void **state)
{
    struct world world, copy;
    struct spy spy = {.sink.append = spy_append};
    struct {
        struct view *view;
        uint64_t digest;
    } pins[16] = {0};
    struct store_figures figures;

    world_init(&world);
    world_init(&copy);
    spy.copy = copy.store;
    store_add_sink(world.store, &spy.sink);
    for (int round = 0; round < 3000; round++) {
        struct txn *txn = store_begin(world.store);
        size_t i = random_below(world.random, ARRAY_SIZE(pins));

        random_changes(txn, world.random);
        if (round % 50 == 0)
            check_indexes(txn_view(txn), false);
        if (random_below(world.random, 10) == 0)
            txn_end(&txn);
        else
            store_apply(&txn);
        if (pins[i].view) {
            assert_int_equal(digest_view(pins[i].view, false, true), pins[i].digest);
            view_unpin(&pins[i].view);
        }
        if (round % 3 == 0) {
            pins[i].view = store_pin(world.store);
            pins[i].digest = digest_view(pins[i].view, false, true);
        }
        if (round % 50 == 0) {
            check_indexes(store_core_view(world.store), true);
            assert_int_equal(digest_view(store_core_view(world.store), false, true),
                             digest_view(store_core_view(copy.store), false, true));
            run(&world);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(pins); i++)
        view_unpin(&pins[i].view);
    for (int i = 0; i < 3; i++) {
        create_vm(&world, "last");
        run(&world);
    }
    store_figures(world.store, &figures);
    assert_int_equal(figures.bytes_retired, 0);
    store_load_end(copy.store, 1, 0);
    check_indexes(store_core_view(copy.store), true);
    world_done(&world);
    world_done(&copy);
}

/* Deleting everything gives all the memory back that was counted. */
static void figures_add_up(_unused_ void **state)
{
    struct world world;
    struct store_figures figures;
    const struct object *object;
    struct view *pin;
    struct txn *txn;

    world_init(&world);
    for (int round = 0; round < 300; round++) {
        txn = store_begin(world.store);
        random_changes(txn, world.random);
        store_apply(&txn);
    }
    pin = store_pin(world.store);
    assert_int_equal(view_held_bytes(pin), 0);
    fake_clock_advance_ms(&world.clock, 1500);
    assert_int_equal(view_age_ms(pin), 1500);
    store_figures(world.store, &figures);
    assert_int_equal(figures.oldest_pin_age_ms, 1500);
    txn = store_begin(world.store);
    for (size_t i = 0; i < ARRAY_SIZE(pool_classes); i++) {
        struct view_iter it;

        view_each(&it, txn_view(txn), &model_classes[pool_classes[i]]);
        while ((object = view_next(&it)))
            txn_delete(txn, object->class, object->ref);
    }
    store_apply(&txn);
    assert_true(view_held_bytes(pin) > 10000);
    store_figures(world.store, &figures);
    assert_true(figures.bytes_retired >= view_held_bytes(pin));
    view_unpin(&pin);
    create_vm(&world, "one");
    run(&world);
    store_figures(world.store, &figures);
    assert_int_equal(figures.versions_live, 1);
    assert_int_equal(figures.bytes_retired, 0);
    world_done(&world);
}

static void loading(_unused_ void **state)
{
    struct world world, copy;
    const struct object *object;
    struct view_iter it;
    struct change change = {.kind = CHANGE_MODIFY, .class = CLASS_OF(VM)};
    struct changes changes = {.generation = 1, .count = 1, .list = &change};
    struct txn *txn;
    uint64_t highest;

    world_init(&world);
    world_init(&copy);
    for (int round = 0; round < 300; round++) {
        txn = store_begin(world.store);
        random_changes(txn, world.random);
        store_apply(&txn);
    }
    highest = store_newest(world.store);
    for (size_t i = 0; i < ARRAY_SIZE(pool_classes); i++) {
        view_each(&it, store_core_view(world.store), &model_classes[pool_classes[i]]);
        while ((object = view_next(&it)))
            assert_int_equal(store_load_object(copy.store, object->class, object->ref,
                                               object->fields, object->created, object->modified),
                             0);
    }
    view_each(&it, store_core_view(world.store), CLASS_OF(VM));
    object = view_next(&it);
    assert_int_equal(store_load_object(copy.store, object->class, object->ref, NULL, 1, 1),
                     -EBADMSG);
    assert_int_equal(store_load_object(copy.store, object->class, NULL_REF, NULL, 1, 1), -EBADMSG);
    assert_int_equal(store_load_object(copy.store, object->class, (ref_t){1, 1}, NULL, 2, 1),
                     -EBADMSG);
    change.ref = object->ref;
    assert_int_equal(store_load_changes(copy.store, &changes), -EBADMSG); /* old */
    changes.generation = highest + 1;
    change.ref = (ref_t){1, 1};
    assert_int_equal(store_load_changes(copy.store, &changes), -EBADMSG); /* modifies nothing */
    change.kind = CHANGE_DELETE;
    assert_int_equal(store_load_changes(copy.store, &changes), -EBADMSG);
    change.kind = CHANGE_CREATE;
    change.ref = object->ref;
    assert_int_equal(store_load_changes(copy.store, &changes), -EBADMSG); /* comes twice */

    store_load_end(copy.store, 3, 0);
    assert_int_equal(store_epoch(copy.store), 3);
    assert_int_equal(store_newest(copy.store), 1ull << 32);
    assert_int_equal(store_visible(copy.store), 1ull << 32);
    assert_int_equal(store_newest_durable(copy.store), highest);
    assert_int_equal(digest_view(store_core_view(world.store), false, true),
                     digest_view(store_core_view(copy.store), false, true));
    check_indexes(store_core_view(copy.store), true);
    assert_int_equal(view_deletions_known_since(store_core_view(copy.store), CLASS_OF(VM)),
                     1ull << 32);
    create_vm(&copy, "new");
    assert_int_equal(store_newest(copy.store), (1ull << 32) + 1);
    world_done(&world);
    world_done(&copy);
}

/* ---- readers on other threads ---- */

struct reader {
    struct store *store;
    atomic_bool *is_over;
    uint64_t pins;
};

/* Each VM's name and description are always written together, and so is the count of all. */
static void *read_loop(void *arg)
{
    struct reader *reader = arg;
    uint64_t last = 0;

    while (!atomic_load(reader->is_over)) {
        struct view *view = store_pin(reader->store);
        const struct object *vm;
        struct view_iter it;

        assert_true(view_generation(view) >= last);
        last = view_generation(view);
        view_each(&it, view, CLASS_OF(VM));
        while ((vm = view_next(&it)))
            assert_string_equal(VM_get_name_label(vm), VM_get_name_description(vm));
        (void) view_held_bytes(view);
        view_unpin(&view);
        reader->pins++;
    }
    return NULL;
}

static void readers_see_whole_generations(_unused_ void **state)
{
    struct loop *loop = loop_new(clock_real());
    struct store *store = store_new(clock_real(), loop);
    struct seeded_random seeded;
    atomic_bool is_over = false;
    struct reader readers[2];
    pthread_t threads[2];

    seeded_random_init(&seeded, 3);
    for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
        readers[i] = (struct reader){store, &is_over, 0};
        pthread_create(&threads[i], NULL, read_loop, &readers[i]);
    }
    for (int i = 0; i < 3000; i++) {
        struct txn *txn = store_begin(store);
        ref_t vm = random_object(txn_view(txn), &seeded.random, CLASS_OF(VM));
        char text[32];

        snprintf(text, sizeof text, "%d", i);
        if (ref_is_null(vm) || i < 50)
            vm = txn_create_new(txn, &seeded.random, CLASS_OF(VM), NULL);
        else if (i % 7 == 0) {
            txn_delete(txn, CLASS_OF(VM), vm);
            vm = txn_create_new(txn, &seeded.random, CLASS_OF(VM), NULL);
        }
        VM_put_name_label(txn, vm, text);
        VM_put_name_description(txn, vm, text);
        store_apply(&txn);
        loop_step(loop);
    }
    atomic_store(&is_over, true);
    for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
        pthread_join(threads[i], NULL);
        assert_true(readers[i].pins > 0);
    }
    store_destroy(&store);
    loop_destroy(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_come_change_and_go),
        cmocka_unit_test(what_is_not_applied_leaves_nothing),
        cmocka_unit_test(put_back_is_no_change),
        cmocka_unit_test(inverse_sets_touch_both_ends),
        cmocka_unit_test(what_is_shown_otherwise_is_touched),
        cmocka_unit_test(deletions_are_remembered),
        cmocka_unit_test(an_iterator_outlives_changes),
        cmocka_unit_test(visible_when_the_required_sinks_have_it),
        cmocka_unit_test(a_store_may_go_before_its_loop),
        cmocka_unit_test(random_transactions),
        cmocka_unit_test(figures_add_up),
        cmocka_unit_test(loading),
        cmocka_unit_test(readers_see_whole_generations),
    };

    model_init();
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
