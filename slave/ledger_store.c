/* ledger_store.c - where the ledger's rows are kept: an SQLite file with a thread of its own, or memory
 *
 *   fibers: ledger_sync() --+
 *   fibers: ledger_sync() --+--> queue --> thread: BEGIN, all that has come, COMMIT (one fsync) --> all are woken
 *   fibers: ledger_sync() --+
 *
 * The file is held exclusively: two agents with one ledger would each believe to be the only one. */
#include "slave/ledger.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>

#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"

#define LEDGER_VERSION 1
#define LOG_BYTES      "4000000" /* SQLite begins the log anew at 1,000 pages of 4 KiB */

static void rows_free(struct ledger_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(rows[i].bytes);
    free(rows);
}


/* --- SQLite --- */

struct batch {
    struct batch *next;
    struct ledger_row *rows;
    size_t count;
    struct completion *done;
};

struct sqlite_store {
    struct ledger_store store;
    sqlite3 *db;
    sqlite3_stmt *put, *drop;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct batch *first, **last;
    bool is_stopping;
};

static int run(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static int write_row(struct sqlite_store *store, const struct ledger_row *row)
{
    sqlite3_stmt *statement = row->bytes ? store->put : store->drop;
    int r;

    sqlite3_bind_text(statement, 1, row->kind, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 2, row->key, -1, SQLITE_STATIC);
    if (row->bytes)
        sqlite3_bind_blob64(statement, 3, row->bytes, row->count, SQLITE_STATIC);
    r = sqlite3_step(statement);
    sqlite3_reset(statement);
    return r == SQLITE_DONE ? SQLITE_OK : r;
}

static int write_batches(struct sqlite_store *store, const struct batch *batches)
{
    int r = run(store->db, "BEGIN IMMEDIATE");

    for (const struct batch *batch = batches; batch && r == SQLITE_OK; batch = batch->next)
        for (size_t i = 0; i < batch->count && r == SQLITE_OK; i++)
            r = write_row(store, &batch->rows[i]);
    if (r == SQLITE_OK)
        r = run(store->db, "COMMIT");
    if (r == SQLITE_OK)
        return 0;
    log_error(NULL, "ledger: %s", sqlite3_errmsg(store->db));
    return r == SQLITE_FULL ? -ENOSPC : -EIO;
}

static void *store_main(void *arg)
{
    struct sqlite_store *store = arg;

    pthread_setname_np(pthread_self(), "ledger");
    pthread_mutex_lock(&store->lock);
    for (;;) {
        struct batch *batches, *batch;
        bool has_rows = false;
        int result = 0;

        while (!store->first && !store->is_stopping)
            pthread_cond_wait(&store->wake, &store->lock);
        if (!store->first)
            break;
        batches = TAKE(store->first);
        store->last = &store->first;
        pthread_mutex_unlock(&store->lock);
        for (batch = batches; batch; batch = batch->next)
            has_rows |= batch->count > 0;
        if (has_rows)
            result = write_batches(store, batches);
        while ((batch = batches)) {
            batches = batch->next;
            completion_post(batch->done, result);
            rows_free(batch->rows, batch->count);
            free(batch);
        }
        pthread_mutex_lock(&store->lock);
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

static void sqlite_write(struct ledger_store *base, struct ledger_row *rows, size_t count, struct completion *done)
{
    struct sqlite_store *store = CONTAINER_OF(base, struct sqlite_store, store);
    struct batch *batch = new0(struct batch);

    *batch = (struct batch){.rows = rows, .count = count, .done = done};
    pthread_mutex_lock(&store->lock);
    *store->last = batch;
    store->last = &batch->next;
    pthread_cond_signal(&store->wake);
    pthread_mutex_unlock(&store->lock);
}

static int sqlite_load(struct ledger_store *base, void (*row)(void *arg, const struct ledger_row *), void *arg)
{
    static const char *const kinds[] = {"meta", "vm", "op", "peer"};
    struct sqlite_store *store = CONTAINER_OF(base, struct sqlite_store, store);
    sqlite3_stmt *all = NULL;
    int r;

    if (sqlite3_prepare_v2(store->db, "SELECT kind, key, value FROM rows", -1, &all, NULL) != SQLITE_OK)
        return -EIO;
    while ((r = sqlite3_step(all)) == SQLITE_ROW) {
        const char *kind = (const char *) sqlite3_column_text(all, 0);
        const char *key = (const char *) sqlite3_column_text(all, 1);
        struct ledger_row found = {
            .kind = "unknown",
            .bytes = (void *) sqlite3_column_blob(all, 2),
            .count = (size_t) sqlite3_column_bytes(all, 2),
        };

        for (size_t i = 0; kind && i < ARRAY_SIZE(kinds); i++)
            if (streq(kinds[i], kind))
                found.kind = kinds[i];
        snprintf(found.key, sizeof found.key, "%s", key ? key : "");
        row(arg, &found);
    }
    sqlite3_finalize(all);
    if (r == SQLITE_DONE)
        return 0;
    log_error(NULL, "ledger: %s", sqlite3_errmsg(store->db));
    return -EIO;
}

static void sqlite_destroy(struct ledger_store **base_p)
{
    struct sqlite_store *store = CONTAINER_OF(TAKE(*base_p), struct sqlite_store, store);

    pthread_mutex_lock(&store->lock);
    store->is_stopping = true;
    pthread_cond_signal(&store->wake);
    pthread_mutex_unlock(&store->lock);
    pthread_join(store->thread, NULL);
    sqlite3_finalize(store->put);
    sqlite3_finalize(store->drop);
    sqlite3_close(store->db);
    pthread_cond_destroy(&store->wake);
    pthread_mutex_destroy(&store->lock);
    free(store);
}

static int read_version(sqlite3 *db)
{
    sqlite3_stmt *statement = NULL;
    int version = -1;

    if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &statement, NULL) == SQLITE_OK
        && sqlite3_step(statement) == SQLITE_ROW)
        version = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return version;
}

/* Have the log be as long as it ever gets, by pages that are never committed: a sync that makes a file longer writes the file's
 * inode as well, a third of what the disk does for it. A log that cannot be made longer is no reason not to begin. */
static void lengthen_log(sqlite3 *db)
{
    run(db, "PRAGMA cache_size=8; BEGIN; INSERT INTO rows VALUES ('spare', '', zeroblob(" LOG_BYTES ")); ROLLBACK;");
    if (!sqlite3_get_autocommit(db))
        run(db, "ROLLBACK");
    run(db, "PRAGMA cache_size=-2000");
}

/* 0 or a negative errno. */
static int sqlite_prepare(struct sqlite_store *store)
{
    int version, r;

    sqlite3_busy_timeout(store->db, 0);
    r = run(store->db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                       "BEGIN EXCLUSIVE; COMMIT;");
    if (r == SQLITE_BUSY)
        return -EBUSY;
    version = r == SQLITE_OK ? read_version(store->db) : -1;
    if (version > LEDGER_VERSION)
        return -EPROTO;
    if (version < 0
        || run(store->db, "CREATE TABLE IF NOT EXISTS rows (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,"
                          " PRIMARY KEY (kind, key)) WITHOUT ROWID; PRAGMA user_version=1;") != SQLITE_OK
        || sqlite3_prepare_v2(store->db, "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", -1, &store->put, NULL)
               != SQLITE_OK
        || sqlite3_prepare_v2(store->db, "DELETE FROM rows WHERE kind = ? AND key = ?", -1, &store->drop, NULL)
               != SQLITE_OK) {
        log_error(NULL, "ledger: %s", sqlite3_errmsg(store->db));
        return -EIO;
    }
    lengthen_log(store->db);
    return 0;
}

struct ledger_store *ledger_sqlite_open(const char *path, const char *vfs, int *ret_error)
{
    struct sqlite_store *store = new0(struct sqlite_store);
    mode_t mask = umask(077); /* the file holds the host's secret key */

    *ret_error = -EIO;
    if (sqlite3_open_v2(path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, vfs)
        == SQLITE_OK)
        *ret_error = sqlite_prepare(store);
    else
        log_error(NULL, "ledger: %s: %s", path, sqlite3_errmsg(store->db));
    umask(mask);
    if (*ret_error < 0) {
        sqlite3_finalize(store->put);
        sqlite3_finalize(store->drop);
        sqlite3_close(store->db);
        free(store);
        return NULL;
    }
    store->store = (struct ledger_store){sqlite_load, sqlite_write, sqlite_destroy};
    store->last = &store->first;
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->wake, NULL);
    if (pthread_create(&store->thread, NULL, store_main, store) != 0)
        die("ledger: no thread");
    return &store->store;
}


/* --- memory --- */

struct memory_batch {
    struct memory_batch *next;
    struct memory_store *store;
    struct timer timer;
    struct ledger_row *rows;
    size_t count;
    struct completion *done;
};

struct memory_store {
    struct ledger_store store;
    struct ledger_disk *disk;
    struct loop *loop;
    struct memory_batch *batches;
};

static void disk_put(struct ledger_disk *disk, struct ledger_row *row)
{
    size_t i = 0;

    while (i < disk->count && !(streq(disk->rows[i].kind, row->kind) && streq(disk->rows[i].key, row->key)))
        i++;
    if (i == disk->count) {
        if (!row->bytes)
            return;
        disk->rows = realloc_array(disk->rows, ++disk->count, sizeof *disk->rows);
    } else {
        free(disk->rows[i].bytes);
    }
    if (row->bytes)
        disk->rows[i] = *row;
    else
        disk->rows[i] = disk->rows[--disk->count];
    row->bytes = NULL;
}

static void memory_batch_free(struct memory_batch *batch)
{
    struct memory_batch **at = &batch->store->batches;

    while (*at != batch)
        at = &(*at)->next;
    *at = batch->next;
    timer_stop(&batch->timer);
    rows_free(batch->rows, batch->count);
    free(batch);
}

static void memory_synced(void *arg)
{
    struct memory_batch *batch = arg;
    struct ledger_disk *disk = batch->store->disk;

    if (disk->error == 0) {
        for (size_t i = 0; i < batch->count; i++)
            disk_put(disk, &batch->rows[i]);
        disk->syncs++;
    }
    completion_post(batch->done, disk->error);
    memory_batch_free(batch);
}

static void memory_write(struct ledger_store *base, struct ledger_row *rows, size_t count, struct completion *done)
{
    struct memory_store *store = CONTAINER_OF(base, struct memory_store, store);
    struct memory_batch *batch = new0(struct memory_batch);

    batch->next = store->batches;
    store->batches = batch;
    batch->store = store;
    batch->rows = rows;
    batch->count = count;
    batch->done = done;
    timer_start(store->loop, &batch->timer, store->disk->sync_ms, memory_synced, batch);
}

static int memory_load(struct ledger_store *base, void (*row)(void *arg, const struct ledger_row *), void *arg)
{
    struct ledger_disk *disk = CONTAINER_OF(base, struct memory_store, store)->disk;

    for (size_t i = 0; i < disk->count; i++)
        row(arg, &disk->rows[i]);
    return 0;
}

static void memory_destroy(struct ledger_store **base_p)
{
    struct memory_store *store = CONTAINER_OF(TAKE(*base_p), struct memory_store, store);

    while (store->batches) {
        completion_post(store->batches->done, -EIO); /* gives up our end of it; nobody runs any more */
        memory_batch_free(store->batches);
    }
    free(store);
}

struct ledger_store *ledger_memory_open(struct ledger_disk *disk, struct loop *loop)
{
    struct memory_store *store = new0(struct memory_store);

    store->store = (struct ledger_store){memory_load, memory_write, memory_destroy};
    store->disk = disk;
    store->loop = loop;
    return &store->store;
}

void ledger_disk_done(struct ledger_disk *disk)
{
    rows_free(disk->rows, disk->count);
    *disk = (struct ledger_disk){0};
}
