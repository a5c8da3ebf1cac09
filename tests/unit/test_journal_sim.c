/* test_journal_sim.c - the simulated disk keeps what it acknowledged, and a prefix of the rest */
#include "random_pool.h"

#include <errno.h>

#include "master/journal_sim.h"

#include "shared/loop.h"

struct world {
    struct fake_clock clock;
    struct loop *loop;
    struct store *store;
    struct journal_sim *journal;
    int failures;
};

static void world_start(struct world *world, struct sim_disk *disk, struct random *random)
{
    uint64_t epoch, generation;
    ref_t holder;

    memset(world, 0, sizeof *world);
    fake_clock_init(&world->clock, 1000, 1700000000);
    world->loop = loop_new(&world->clock.clock);
    world->store = store_new(&world->clock.clock, world->loop);
    assert_int_equal(sim_disk_load(disk, world->store), 0);
    sim_disk_head(disk, &epoch, &holder, &generation);
    assert_int_equal(sim_disk_claim_epoch(disk, epoch, (ref_t){1, 1}), -EEXIST);
    assert_int_equal(sim_disk_claim_epoch(disk, epoch + 1, (ref_t){1, 1}), 0);
    store_load_end(world->store, epoch + 1, generation);
    world->journal = journal_sim_new(disk, world->store, world->loop, random, 20);
}

static void world_crash(struct world *world)
{
    journal_sim_crash(&world->journal);
    store_destroy(&world->store);
    loop_destroy(&world->loop);
}

static void change(struct world *world, struct random *random)
{
    struct txn *txn = store_begin(world->store);

    random_changes(txn, random);
    store_apply(&txn);
}

static void pass(struct world *world, uint64_t ms)
{
    fake_clock_advance_ms(&world->clock, ms);
    while (loop_step(world->loop))
        ;
}

static void crashes_lose_no_acknowledged_write(_unused_ void **state)
{
    struct sim_disk *disk = sim_disk_new();
    struct seeded_random seeded;
    struct random *random = &seeded.random;
    struct world world;

    seeded_random_init(&seeded, 41);
    for (int crash = 0; crash < 25; crash++) {
        struct {
            uint64_t generation, digest;
        } states[100];
        size_t count = 0, i = 0;
        uint64_t visible;

        world_start(&world, disk, random);
        states[count].generation = store_newest_durable(world.store);
        states[count++].digest = digest_view(store_core_view(world.store), true, false);
        while (count < ARRAY_SIZE(states) && random_below(random, 60) > 0) {
            change(&world, random);
            states[count].generation = store_newest_durable(world.store);
            states[count++].digest = digest_view(store_core_view(world.store), true, false);
            pass(&world, random_below(random, 10));
        }
        visible = store_visible(world.store);
        world_crash(&world);

        world_start(&world, disk, random);
        while (i < count && states[i].generation != store_newest_durable(world.store))
            i++;
        assert_in_range(i, 0, count - 1); /* one of the states there were, and no older than */
        assert_int_equal(digest_view(store_core_view(world.store), true, false), states[i].digest);
        for (size_t j = 0; j < count; j++) /* the newest durable one that was visible */
            if (states[j].generation <= visible)
                assert_true(store_newest_durable(world.store) >= states[j].generation);
        world_crash(&world);
    }
    sim_disk_destroy(&disk);
}

static void failed(void *arg, _unused_ const char *text)
{
    ((struct world *) arg)->failures++;
}

static void a_failed_disk_acknowledges_nothing(_unused_ void **state)
{
    struct sim_disk *disk = sim_disk_new();
    struct seeded_random seeded;
    struct world world;
    uint64_t visible, durable;

    seeded_random_init(&seeded, 42);
    world_start(&world, disk, &seeded.random);
    for (int i = 0; i < 10; i++)
        change(&world, &seeded.random);
    pass(&world, 1000);
    pass(&world, 1000);
    assert_int_equal(store_visible(world.store), store_newest(world.store));
    visible = store_visible(world.store);
    durable = store_newest_durable(world.store);
    journal_sim_fail(world.journal, failed, &world);
    while (store_newest_durable(world.store) == durable)
        change(&world, &seeded.random);
    pass(&world, 1000);
    assert_int_equal(world.failures, 1);
    assert_int_equal(store_visible(world.store), visible);
    world_crash(&world);
    world_start(&world, disk, &seeded.random);
    assert_true(store_newest_durable(world.store) >= durable);
    world_crash(&world);
    sim_disk_destroy(&disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crashes_lose_no_acknowledged_write),
        cmocka_unit_test(a_failed_disk_acknowledges_nothing),
    };

    model_init();
    return cmocka_run_group_tests_name("journal_sim", tests, NULL, NULL);
}
