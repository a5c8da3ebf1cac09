/* disk.c - a master's disk in memory */
#include "tests/sim/disk.h"

#include <errno.h>

#include "shared/arena.h"

#define RECORD_BYTES_MAX (64 << 20)

struct disk_redo {
    struct store_sink sink;
    struct disk *disk;
    struct store *store;
    struct loop *loop;
    struct random *random;
    struct record *waiting;
    size_t waiting_count;
    size_t syncing;          /* of these, that the sync under way covers */
    struct timer timer;
    unsigned slow_ms;
    bool is_dead;
};

void disk_done(struct disk *disk)
{
    for (size_t i = 0; i < disk->count; i++)
        free(disk->records[i].bytes);
    free(disk->records);
    *disk = (struct disk){0};
}

static void put(struct disk *disk, struct record record)
{
    if (disk->count == disk->room) {
        disk->room = MAX(2 * disk->room, (size_t) 64);
        disk->records = realloc_array(disk->records, disk->room, sizeof *disk->records);
    }
    disk->records[disk->count++] = record;
    disk->generation = record.generation;
}

void disk_copy(struct disk *disk, const struct disk *from)
{
    *disk = (struct disk){.epoch = from->epoch, .known = from->known, .sync_ms_max = from->sync_ms_max};
    for (size_t i = 0; i < from->count; i++) {
        struct record record = from->records[i];

        record.bytes = memcpy(alloc0(record.count), record.bytes, record.count);
        put(disk, record);
    }
}

int disk_load(struct disk *disk, struct store *store)
{
    int r = 0;

    for (size_t i = 0; i < disk->count && r == 0; i++) {
        struct arena *arena = arena_new();
        struct changes changes;

        r = changes_decode(disk->records[i].bytes, disk->records[i].count, arena, &changes);
        if (r == 0 && changes.generation != disk->records[i].generation)
            r = -EBADMSG;
        if (r == 0)
            r = store_load_changes(store, &changes);
        arena_destroy(&arena);
        if (r < 0 && i == disk->count - 1) { /* the torn one */
            free(disk->records[i].bytes);
            disk->count--;
            disk->generation = disk->count ? disk->records[disk->count - 1].generation : 0;
            r = 0;
        }
    }
    return r;
}

/* ---- the sink ---- */

static void sync_begin(struct disk_redo *sink);

static void synced(void *arg)
{
    struct disk_redo *sink = arg;
    uint64_t generation;

    if (sink->is_dead)
        return;
    for (size_t i = 0; i < sink->syncing; i++)
        put(sink->disk, sink->waiting[i]);
    generation = sink->disk->generation;
    sink->waiting_count -= sink->syncing;
    memmove(sink->waiting, sink->waiting + sink->syncing, sink->waiting_count * sizeof *sink->waiting);
    sink->syncing = 0;
    store_acknowledge(sink->store, &sink->sink, generation);
    if (sink->waiting_count > 0)
        sync_begin(sink);
}

static void sync_begin(struct disk_redo *sink)
{
    sink->syncing = sink->waiting_count;
    timer_start(sink->loop, &sink->timer,
                1 + random_below(sink->random, sink->disk->sync_ms_max + 1) + sink->slow_ms, synced, sink);
}

static void append(struct store_sink *base, const struct changes *changes)
{
    struct disk_redo *sink = CONTAINER_OF(base, struct disk_redo, sink);
    struct buffer out;
    struct record record = {.generation = changes->generation};

    if (sink->is_dead || !changes->is_durable)
        return;
    buffer_init(&out, RECORD_BYTES_MAX);
    changes_encode(changes, &out);
    record.bytes = buffer_take(&out, &record.count);
    sink->waiting = realloc_array(sink->waiting, sink->waiting_count + 1, sizeof *sink->waiting);
    sink->waiting[sink->waiting_count++] = record;
    if (sink->syncing == 0)
        sync_begin(sink);
}

struct disk_redo *disk_redo_new(struct disk *disk, struct store *store, struct loop *loop, struct random *random)
{
    struct disk_redo *sink = new0(struct disk_redo);

    *sink = (struct disk_redo){
        .sink = {.name = "disk", .is_required = true, .append = append},
        .disk = disk,
        .store = store,
        .loop = loop,
        .random = random,
    };
    store_add_sink(store, &sink->sink);
    return sink;
}

void disk_redo_flush(struct disk_redo *sink)
{
    timer_stop(&sink->timer);
    sink->syncing = sink->waiting_count;
    synced(sink);
}

bool disk_redo_is_idle(const struct disk_redo *sink)
{
    return sink->waiting_count == 0;
}

void disk_redo_crash(struct disk_redo *sink)
{
    size_t kept;

    if (sink->is_dead)
        return;
    sink->is_dead = true;
    timer_stop(&sink->timer);
    kept = random_below(sink->random, sink->waiting_count + 1);
    for (size_t i = 0; i < sink->waiting_count; i++) {
        struct record record = sink->waiting[i];

        if (i == kept && random_below(sink->random, 2) == 0)
            record.count = random_below(sink->random, record.count); /* torn */
        if (i < kept || (i == kept && record.count < sink->waiting[i].count))
            put(sink->disk, record);
        else
            free(record.bytes);
    }
    sink->waiting_count = 0;
}

void disk_redo_slow(struct disk_redo *sink, unsigned ms)
{
    sink->slow_ms = ms;
}
