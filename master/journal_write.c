/* journal_write.c - the journal as a sink, and its writer's thread: group commit
 *
 * append() encodes on the core and queues; the writer takes all that waits, inserts it in one
 * transaction, and when SQLite has synced that, acknowledges the last generation. While a sync is
 * under way the next group gathers, so the slower the disk, the larger the groups: throughput
 * follows load, and a lone write waits for one sync only.
 *
 * The queue needs no limit of its own: whoever made a generation waits for it before doing anything
 * else, so it holds at most one record for each fiber.
 *
 * Between two groups the writer does what only it can do without being in its own way: it deletes
 * some of the records that are folded, and lets the WAL start again at its beginning. SQLite does
 * that when everything in it was copied to the file, which never happens while the writer runs
 * ahead of the copying folder; so when the WAL is too long the folder copies most of it, and then
 * the writer pauses for the rest.
 *
 * When a commit fails nothing is known about it: the sync may have failed after the bytes were
 * written. The writer then says so, once, and ends; the store must be read again. */
#include "master/journal_internal.h"

#include <errno.h>
#include <stdio.h>

#include "shared/buffer.h"
#include "shared/clock.h"
#include "shared/log.h"
#include "shared/loop.h"

/* Records deleted in one commit: small beside what a busy group inserts, and more than arrives when
 * it is idle. */
#define PRUNE_AT_ONCE 5000u

/* A WAL beyond so many times its limit is restarted even if the folder did not copy it. */
#define WAL_PATIENCE 4u

/* ---- the core's side ---- */

void journal_append(struct store_sink *sink, const struct changes *changes)
{
    struct journal *journal = CONTAINER_OF(sink, struct journal, sink);
    _cleanup_(buffer_done) struct buffer bytes = {0};
    struct journal_record *record;

    if (!changes->is_durable || atomic_load(&journal->has_failed))
        return;
    buffer_init(&bytes, JOURNAL_RECORD_BYTES_MAX);
    changes_encode(changes, &bytes);
    assert(!bytes.is_full);
    record = alloc0(sizeof *record + bytes.length);
    record->generation = changes->generation;
    record->length = bytes.length;
    memcpy(record->bytes, bytes.bytes, bytes.length);

    pthread_mutex_lock(&journal->mutex);
    *journal->last = record;
    journal->last = &record->next;
    journal->queue_bytes += record->length;
    pthread_cond_signal(&journal->more);
    pthread_mutex_unlock(&journal->mutex);
}

/* ---- the writer's ---- */

static struct journal_record *take_all(struct journal *journal)
{
    struct journal_record *records;

    pthread_mutex_lock(&journal->mutex);
    while (!journal->first && !journal->is_closing)
        pthread_cond_wait(&journal->more, &journal->mutex);
    records = TAKE(journal->first);
    journal->last = &journal->first;
    pthread_mutex_unlock(&journal->mutex);
    return records;
}

/* Some of the records that objects.db holds, durably, too. */
static int prune(struct journal *journal, char *text)
{
    uint64_t folded = journal->folded, oldest;
    int r;

    if (journal->pruned >= folded)
        return 0;
    r = sql_row(&journal->log, journal->oldest, text);
    oldest = r > 0 && sqlite3_column_type(journal->oldest, 0) != SQLITE_NULL
                 ? (uint64_t) sqlite3_column_int64(journal->oldest, 0)
                 : UINT64_MAX;
    sqlite3_reset(journal->oldest);
    if (r < 0)
        return r;
    if (oldest > folded) {
        journal->pruned = folded;
        return 0;
    }
    sqlite3_bind_int64(journal->prune, 1, (int64_t) MIN(folded, oldest + PRUNE_AT_ONCE));
    return sql_do(&journal->log, journal->prune, text);
}

static int write_group(struct journal *journal, const struct journal_record *records, char *text)
{
    int r = sql_do(&journal->log, journal->begin, text);

    for (; records && r == 0; records = records->next) {
        sqlite3_bind_int64(journal->insert, 1, (int64_t) records->generation);
        sqlite3_bind_blob64(journal->insert, 2, records->bytes, records->length, SQLITE_STATIC);
        r = sql_do(&journal->log, journal->insert, text);
    }
    if (r == 0)
        r = prune(journal, text);
    return r < 0 ? r : sql_do(&journal->log, journal->commit, text);
}

/* Done with a group: count it and give it back. */
static void group_end(struct journal *journal, struct journal_record *records, uint64_t commit_us)
{
    uint64_t count = 0, bytes = 0;

    for (struct journal_record *next; records; records = next) {
        next = records->next;
        journal->generation = records->generation;
        bytes += records->length;
        count++;
        free(records);
    }
    journal->records += count;
    journal->bytes += bytes;
    journal->commits++;
    if (commit_us > journal->longest_commit_us)
        journal->longest_commit_us = commit_us;
    journal->unfolded += count;
    pthread_mutex_lock(&journal->mutex);
    journal->queue_bytes -= bytes;
    if (journal->unfolded >= journal->config.fold_records
        || journal->wal_bytes > journal->config.wal_bytes_max)
        pthread_cond_signal(&journal->fold);
    pthread_mutex_unlock(&journal->mutex);
}

static void restart_wal(struct journal *journal)
{
    uint64_t bytes = journal->wal_bytes, max = journal->config.wal_bytes_max;

    if (bytes <= max || (!atomic_load(&journal->is_wal_copied) && bytes <= WAL_PATIENCE * max))
        return;
    atomic_store(&journal->is_wal_copied, false);
    sqlite3_busy_timeout(journal->log.db, 0); /* a reader of old records: another time */
    if (sqlite3_wal_checkpoint_v2(journal->log.db, NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL)
        == SQLITE_OK) {
        journal->wal_restarts++;
        journal->wal_bytes = 0;
    }
    sqlite3_busy_timeout(journal->log.db, 1000);
}

static int note_wal(void *arg, sqlite3 *db, const char *name, int pages)
{
    struct journal *journal = arg;

    (void) db;
    (void) name;
    journal->wal_bytes = (uint64_t) pages * (4096 + 24);
    return SQLITE_OK;
}

/* On its way to the loop, which may get to it after the journal was closed. */
struct failure_note {
    void (*failed)(void *arg, const char *text);
    void *arg;
    char text[JOURNAL_TEXT_BYTES];
};

static void tell_failure(void *arg)
{
    struct failure_note *note = arg;

    note->failed(note->arg, note->text);
    free(note);
}

static void fail_for_good(struct journal *journal, const char *text)
{
    struct failure_note *note = new0(struct failure_note);

    atomic_store(&journal->has_failed, true);
    log_error(NULL, "journal: %s", text);
    note->failed = journal->failed;
    note->arg = journal->failed_arg;
    strcpy(note->text, text);
    loop_call(journal->loop, tell_failure, note);
}

static void records_free(struct journal_record *records)
{
    for (struct journal_record *next; records; records = next) {
        next = records->next;
        free(records);
    }
}

void *journal_writer_run(void *arg)
{
    struct journal *journal = arg;
    struct journal_record *records;
    char text[JOURNAL_TEXT_BYTES];

    sqlite3_wal_hook(journal->log.db, note_wal, journal);
    while ((records = take_all(journal))) {
        uint64_t began_us = clock_now_us(clock_real());

        if (write_group(journal, records, text) < 0) {
            fail_for_good(journal, text);
            records_free(records);
            break;
        }
        group_end(journal, records, clock_now_us(clock_real()) - began_us);
        store_acknowledge(journal->store, &journal->sink, journal->generation);
        restart_wal(journal);
        journal_room_check(journal);
    }
    pthread_mutex_lock(&journal->mutex);
    journal->is_writer_done = true;
    pthread_cond_signal(&journal->fold);
    pthread_mutex_unlock(&journal->mutex);
    return NULL;
}
