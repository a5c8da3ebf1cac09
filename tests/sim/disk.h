/* disk.h - a master's disk: the redo log in memory, with what a crash may do to it
 *
 * A generation's record waits until the disk's next sync, some milliseconds later; then it is durable and acknowledged.
 * A crash keeps what was synced, and of the rest as much as chance lets through - whole records, then perhaps a torn
 * one, which reading ends at. That is all that a real journal promises. */
#pragma once

#include "shared/buffer.h"
#include "shared/loop.h"
#include "shared/random.h"
#include "master/store.h"

struct record {
    void *bytes;
    size_t count;
    uint64_t generation;
};

struct disk {
    struct record *records;
    size_t count, room;
    uint64_t epoch;          /* the highest claimed here */
    uint64_t generation;     /* of the last record */
    uint64_t known;          /* so high others have been */
    unsigned sync_ms_max;
};

void disk_done(struct disk *);
/* As it is, for a second master that begins from a copy. */
void disk_copy(struct disk *, const struct disk *from);

/* Fill a store with what the disk holds, torn tail aside; then the caller ends with store_load_end(). Returns 0 or
 * -EBADMSG. */
int disk_load(struct disk *, struct store *);

/* The sink of a running master. */
struct disk_redo;
struct disk_redo *disk_redo_new(struct disk *, struct store *, struct loop *, struct random *);
/* Sync all that waits, now. */
void disk_redo_flush(struct disk_redo *);
/* Nothing waits for a sync. */
bool disk_redo_is_idle(const struct disk_redo *);
/* The process dies now. The sink stays with it, and does nothing any more. */
void disk_redo_crash(struct disk_redo *);
/* Syncs take so much longer until told otherwise. */
void disk_redo_slow(struct disk_redo *, unsigned ms);
