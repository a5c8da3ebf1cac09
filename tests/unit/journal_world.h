/* journal_world.h - a store with a journal in a directory of its own, for the journal's tests */
#pragma once

#include "random_pool.h"

#include "master/journal.h"

#include "shared/loop.h"

#include <ftw.h>
#include <unistd.h>

#define WORLD_POOL ((ref_t){0x1111222233334444, 0x8555666677778888})

struct journal_world {
    char directory[64];
    struct journal_config config;
    struct loop *loop;
    struct store *store;
    struct journal *journal;
    struct store_listener listener;
    uint64_t awaited;
    struct seeded_random seeded;
    struct random *random;
    int failures;
    size_t objects, records; /* loaded */
    char text[JOURNAL_TEXT_BYTES];
};

static inline int remove_entry(const char *path, const struct stat *status, int flag,
                               struct FTW *ftw)
{
    (void) status, (void) flag, (void) ftw;
    return remove(path);
}

static inline void world_make_directory(struct journal_world *world)
{
    const char *base = getenv("TMPDIR");

    snprintf(world->directory, sizeof world->directory, "%s/drover-journal-XXXXXX",
             base ? base : "/tmp");
    assert_non_null(mkdtemp(world->directory));
}

static inline void world_remove_directory(struct journal_world *world)
{
    nftw(world->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void world_visible(struct store_listener *listener, uint64_t generation,
                                 const uint64_t mask[2])
{
    struct journal_world *world = CONTAINER_OF(listener, struct journal_world, listener);

    (void) mask;
    if (generation >= world->awaited)
        loop_stop(world->loop);
}

static inline void world_failed(void *arg, const char *text)
{
    struct journal_world *world = arg;

    world->failures++;
    snprintf(world->text, sizeof world->text, "%s", text);
    loop_stop(world->loop);
}

static inline void world_init(struct journal_world *world, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    world_make_directory(world);
    world->config = (struct journal_config){
        .directory = world->directory, .pool = WORLD_POOL, .is_new = true, .clock = clock_real()};
    seeded_random_init(&world->seeded, seed);
    world->random = &world->seeded.random;
    world->listener.visible = world_visible;
}

/* Open the store, load it, claim the next epoch and start. Returns what opening or loading says. */
static inline int world_start(struct journal_world *world)
{
    struct journal_head head;
    int r = journal_open(&world->config, &world->journal, world->text);

    if (r < 0)
        return r;
    world->loop = loop_new(clock_real());
    world->store = store_new(clock_real(), world->loop);
    r = journal_load(world->journal, world->store, &world->objects, &world->records, world->text);
    journal_head(world->journal, &head);
    if (r == 0)
        r = journal_claim_epoch(world->journal, head.epoch + 1, ref_new(world->random),
                                head.generation, world->text);
    store_load_end(world->store, head.epoch + 1, head.generation);
    store_add_listener(world->store, &world->listener);
    if (r == 0)
        journal_start(world->journal, world->store, world->loop, world_failed, world);
    return r;
}

static inline void world_stop(struct journal_world *world)
{
    journal_close(&world->journal);
    if (world->loop)
        while (loop_step(world->loop))
            ;
    store_destroy(&world->store);
    loop_destroy(&world->loop);
}

/* Run the loop until everything is on disk, or the journal has failed. */
static inline void world_sync(struct journal_world *world)
{
    world->awaited = store_newest(world->store);
    if (store_visible(world->store) < world->awaited && world->failures == 0)
        loop_run(world->loop);
}

static inline void world_change(struct journal_world *world)
{
    struct txn *txn = store_begin(world->store);

    random_changes(txn, world->random);
    store_apply(&txn);
}

static inline uint64_t world_digest(struct journal_world *world)
{
    return digest_view(store_core_view(world->store), true, false);
}

static inline void world_done(struct journal_world *world)
{
    world_stop(world);
    world_remove_directory(world);
}
