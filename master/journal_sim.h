/* journal_sim.h - a journal on a disk that exists in memory only: for tests and for the simulator
 *
 * It keeps the very bytes that SQLite and Redis would get, syncs them in groups after a while by
 * the loop's clock, and acknowledges then. The disk outlives the journal, as a disk outlives a
 * process: a crash loses what was not synced, or half of it, and the next journal loads what is
 * left. */
#pragma once

#include "master/store.h"

struct loop;
struct random;

/* ---- the disk ---- */

struct sim_disk;
struct sim_disk *sim_disk_new(void);
void sim_disk_destroy(struct sim_disk **);

/* What it holds: highest epoch, its holder, newest generation. */
void sim_disk_head(const struct sim_disk *, uint64_t *ret_epoch, ref_t *ret_holder,
                   uint64_t *ret_generation);
/* Durable at once. -EEXIST when it, or a higher one, was claimed. */
int sim_disk_claim_epoch(struct sim_disk *, uint64_t epoch, ref_t holder);
/* Fill an empty store with what is there; a torn record at the end is dropped for good. 0 or
 * -EBADMSG. */
int sim_disk_load(struct sim_disk *, struct store *);
size_t sim_disk_records(const struct sim_disk *);

/* ---- the journal ---- */

struct journal_sim;

/* Becomes a required sink of the store. A sync takes up to sync_ms_max, by lot. */
struct journal_sim *journal_sim_new(struct sim_disk *, struct store *, struct loop *,
                                    struct random *, uint64_t sync_ms_max);
struct store_sink *journal_sim_sink(struct journal_sim *);

/* The process ends: of what was not synced a part, by lot, is on the disk all the same, its last
 * record perhaps torn. Before the store and the loop are destroyed. */
void journal_sim_crash(struct journal_sim **);
/* The process ends in order: everything is synced. */
void journal_sim_close(struct journal_sim **);

/* From now on nothing is acknowledged any more, and failed() is called as journal_start() says;
 * what becomes of the bytes is settled by journal_sim_crash(). */
void journal_sim_fail(struct journal_sim *, void (*failed)(void *arg, const char *text), void *arg);
