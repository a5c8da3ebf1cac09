/* journal_sim.c - see journal_sim.h */
#include "master/journal_sim.h"

#include <errno.h>

#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/loop.h"
#include "shared/random.h"

#define RECORD_BYTES_MAX (256u << 20)

struct sim_record {
    uint64_t generation;
    char *bytes;
    size_t length;
};

struct sim_disk {
    struct sim_record *records;
    size_t count, room;
    size_t synced; /* so many are safe */
    uint64_t epoch;
    ref_t holder;
};

struct journal_sim {
    struct store_sink sink;
    struct sim_disk *disk;
    struct store *store;
    struct loop *loop;
    struct random *random;
    uint64_t sync_ms_max;
    struct timer timer; /* runs while a sync is under way */
    size_t syncing;     /* records that it makes safe */
    bool has_failed;
    void (*failed)(void *arg, const char *text);
    void *failed_arg;
};

/* ---- the disk ---- */

struct sim_disk *sim_disk_new(void)
{
    return new0(struct sim_disk);
}

/* The first `count` records stay. */
static void cut(struct sim_disk *disk, size_t count)
{
    while (disk->count > count)
        free(disk->records[--disk->count].bytes);
}

void sim_disk_destroy(struct sim_disk **disk_p)
{
    struct sim_disk *disk = TAKE(*disk_p);

    if (!disk)
        return;
    cut(disk, 0);
    free(disk->records);
    free(disk);
}

void sim_disk_head(const struct sim_disk *disk, uint64_t *ret_epoch, ref_t *ret_holder,
                   uint64_t *ret_generation)
{
    *ret_epoch = disk->epoch;
    *ret_holder = disk->holder;
    *ret_generation = disk->count > 0 ? disk->records[disk->count - 1].generation : 0;
}

int sim_disk_claim_epoch(struct sim_disk *disk, uint64_t epoch, ref_t holder)
{
    if (epoch <= disk->epoch)
        return -EEXIST;
    disk->epoch = epoch;
    disk->holder = holder;
    return 0;
}

size_t sim_disk_records(const struct sim_disk *disk)
{
    return disk->count;
}

int sim_disk_load(struct sim_disk *disk, struct store *store)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();

    for (size_t i = 0; i < disk->count; i++) {
        struct changes changes;

        if (changes_decode(disk->records[i].bytes, disk->records[i].length, arena, &changes) < 0) {
            if (i + 1 < disk->count)
                return -EBADMSG;
            cut(disk, i);
        } else if (store_load_changes(store, &changes) < 0) {
            return -EBADMSG;
        }
        arena_reset(arena);
    }
    disk->synced = disk->count;
    return 0;
}

/* ---- the journal ---- */

static void sync_begin(struct journal_sim *sim);

static void sync_end(void *arg)
{
    struct journal_sim *sim = arg;
    struct sim_disk *disk = sim->disk;

    disk->synced = sim->syncing;
    store_acknowledge(sim->store, &sim->sink, disk->records[disk->synced - 1].generation);
    if (disk->count > disk->synced)
        sync_begin(sim);
}

static void sync_begin(struct journal_sim *sim)
{
    sim->syncing = sim->disk->count;
    timer_start(sim->loop, &sim->timer, random_below(sim->random, sim->sync_ms_max + 1), sync_end,
                sim);
}

static void append(struct store_sink *sink, const struct changes *changes)
{
    struct journal_sim *sim = CONTAINER_OF(sink, struct journal_sim, sink);
    struct sim_disk *disk = sim->disk;
    struct sim_record record = {.generation = changes->generation};
    struct buffer bytes;

    if (!changes->is_durable)
        return;
    if (disk->count == disk->room) {
        disk->room = disk->room ? 2 * disk->room : 64;
        disk->records = realloc_array(disk->records, disk->room, sizeof *disk->records);
    }
    buffer_init(&bytes, RECORD_BYTES_MAX);
    changes_encode(changes, &bytes);
    record.bytes = buffer_take(&bytes, &record.length);
    disk->records[disk->count++] = record;
    if (!timer_is_running(&sim->timer) && !sim->has_failed)
        sync_begin(sim);
}

struct journal_sim *journal_sim_new(struct sim_disk *disk, struct store *store, struct loop *loop,
                                    struct random *random, uint64_t sync_ms_max)
{
    struct journal_sim *sim = new0(struct journal_sim);

    sim->sink = (struct store_sink){.name = "journal", .is_required = true, .append = append};
    sim->disk = disk;
    sim->store = store;
    sim->loop = loop;
    sim->random = random;
    sim->sync_ms_max = sync_ms_max;
    store_add_sink(store, &sim->sink);
    return sim;
}

struct store_sink *journal_sim_sink(struct journal_sim *sim)
{
    return &sim->sink;
}

static void tell_failure(void *arg)
{
    struct journal_sim *sim = arg;

    sim->failed(sim->failed_arg, "the simulated disk fails");
}

void journal_sim_fail(struct journal_sim *sim, void (*failed)(void *arg, const char *text),
                      void *arg)
{
    assert(!sim->has_failed);
    sim->has_failed = true;
    sim->failed = failed;
    sim->failed_arg = arg;
    timer_start(sim->loop, &sim->timer, 0, tell_failure, sim);
}

void journal_sim_crash(struct journal_sim **sim_p)
{
    struct journal_sim *sim = TAKE(*sim_p);
    struct sim_disk *disk;

    if (!sim)
        return;
    disk = sim->disk;
    timer_stop(&sim->timer);
    cut(disk, disk->synced + random_below(sim->random, disk->count - disk->synced + 1));
    if (disk->count > disk->synced && random_below(sim->random, 2)) {
        struct sim_record *last = &disk->records[disk->count - 1];

        last->length = random_below(sim->random, last->length);
    }
    free(sim);
}

void journal_sim_close(struct journal_sim **sim_p)
{
    struct journal_sim *sim = TAKE(*sim_p);

    if (!sim)
        return;
    timer_stop(&sim->timer);
    sim->disk->synced = sim->disk->count;
    free(sim);
}
