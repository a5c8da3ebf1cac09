/* journal_fold.c - the folder's thread: redo records become whole objects in objects.db
 *
 * It reads a batch of records from journal.db over a connection of its own, gathers what they say
 * of each object, and then writes each object once, however often it changed: in one transaction
 * with the generation that objects.db now stands for. Only when SQLite has synced that does
 * `folded` rise, by which the writer deletes records. A crash before the commit leaves objects.db
 * as it was, one after it leaves records that are skipped. Folding a batch twice cannot happen, and
 * would not matter if it did: it puts values, it adds nothing.
 *
 * The larger a batch, the less is written: updates hit random pages, and a batch of a tenth of the
 * table rewrites nearly all of it, one of the whole table no more. So folding waits for many
 * records; what bounds that is the time to replay them at start.
 *
 * If folding fails, because the disk is full, nothing is lost: the records stay and it is tried
 * again. */
#include "master/journal_internal.h"

#include <errno.h>
#include <linux/ioprio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/log.h"
#include "shared/refmap.h"

/* Bytes of records taken into memory at once. */
#define BATCH_BYTES_MAX (16u << 20)

/* A field that the batch put; the last one counts. */
struct put {
    struct put *next;
    int field;
    const struct value *value;
};

/* What a batch says of an object. */
struct folded {
    const struct class *class;
    ref_t ref;
    bool is_new; /* made in this batch: what the table may have is not looked at */
    bool is_deleted;
    uint64_t created, modified;
    struct put *puts, **last_put;
};

struct batch {
    struct arena *arena;
    struct refmap maps[CLASS_COUNT];
    struct folded **objects;
    size_t count, room;
    uint64_t records, bytes, newest;
};

struct folder {
    struct journal *journal;
    struct sql log; /* to read */
    sqlite3_stmt *read, *get, *put, *delete, *set_folded;
    struct buffer bytes;
};

/* ---- gathering ---- */

static struct folded *folded_of(struct batch *batch, const struct change *change)
{
    struct refmap *map = &batch->maps[change->class->number];
    struct folded *folded = refmap_get(map, change->ref);

    if (folded)
        return folded;
    folded = arena_new0(batch->arena, struct folded);
    folded->class = change->class;
    folded->ref = change->ref;
    folded->last_put = &folded->puts;
    if (batch->count == batch->room) {
        batch->room = batch->room ? 2 * batch->room : 1024;
        batch->objects = realloc_array(batch->objects, batch->room, sizeof *batch->objects);
    }
    batch->objects[batch->count++] = folded;
    refmap_put(map, change->ref, folded);
    return folded;
}

static void gather_change(struct batch *batch, const struct change *change)
{
    struct folded *folded = folded_of(batch, change);

    folded->modified = batch->newest;
    folded->is_deleted = change->kind == CHANGE_DELETE;
    if (change->kind == CHANGE_CREATE) {
        folded->is_new = true;
        folded->created = batch->newest;
        folded->puts = NULL;
        folded->last_put = &folded->puts;
    }
    for (int i = 0; i < change->field_count; i++) {
        struct put *put = arena_new0(batch->arena, struct put);

        put->field = change->fields[i];
        put->value = &change->values[i];
        *folded->last_put = put;
        folded->last_put = &put->next;
    }
}

/* Read records above what is folded. Values live in the batch's arena. */
static int gather(struct folder *folder, struct batch *batch, char *text)
{
    int r;

    sqlite3_bind_int64(folder->read, 1, (int64_t) batch->newest);
    sqlite3_bind_int64(folder->read, 2, folder->journal->config.fold_records);
    while ((r = sql_row(&folder->log, folder->read, text)) > 0 && batch->bytes < BATCH_BYTES_MAX) {
        size_t length = (size_t) sqlite3_column_bytes(folder->read, 1);
        struct changes changes;

        if (changes_decode(sqlite3_column_blob(folder->read, 1), length, batch->arena, &changes)
            < 0) {
            journal_say(text, "%s is damaged: the record of generation %lld cannot be read",
                        folder->log.name, (long long) sqlite3_column_int64(folder->read, 0));
            r = -EBADMSG;
            break;
        }
        batch->newest = changes.generation;
        batch->bytes += length;
        batch->records++;
        for (int i = 0; i < changes.count; i++)
            gather_change(batch, &changes.list[i]);
    }
    sqlite3_reset(folder->read); /* ends the reading: the WAL may be restarted */
    return MIN(r, 0);
}

/* ---- writing ---- */

int journal_put_object(struct sql *objects, sqlite3_stmt *put, const struct class *class, ref_t ref,
                       uint64_t created, uint64_t modified, const struct value *fields,
                       struct buffer *bytes, char *text)
{
    int numbers[class->field_count + 1];
    struct value values[class->field_count + 1];
    struct change change = {.class = class, .fields = numbers, .values = values};

    for (int i = 0; i < class->field_count; i++) {
        if (fields[i].kind == KIND_VOID || class->fields[i].flags & FIELD_INVERSE
            || value_equal(&fields[i], &class->fields[i].initial))
            continue;
        numbers[change.field_count] = i;
        values[change.field_count++] = fields[i];
    }
    buffer_clear(bytes);
    change_fields_encode(&change, bytes);
    assert(!bytes->is_full);
    sqlite3_bind_text(put, 1, class->name, -1, SQLITE_STATIC);
    sql_bind_ref(put, 2, ref);
    sqlite3_bind_int64(put, 3, (int64_t) created);
    sqlite3_bind_int64(put, 4, (int64_t) modified);
    sqlite3_bind_blob64(put, 5, bytes->bytes, bytes->length, SQLITE_STATIC);
    return sql_do(objects, put, text);
}

/* What the table has of an object that was there before the batch. */
static int read_object(struct folder *folder, struct folded *folded, struct arena *arena,
                       struct value *ret_fields, char *text)
{
    struct sql *objects = &folder->journal->objects;
    const struct class *class = folded->class;
    char ref[REF_TEXT_BYTES];
    int r;

    sqlite3_bind_text(folder->get, 1, class->name, -1, SQLITE_STATIC);
    sql_bind_ref(folder->get, 2, folded->ref);
    r = sql_row(objects, folder->get, text);
    if (r > 0
        && change_fields_decode(class, sqlite3_column_blob(folder->get, 1),
                                (size_t) sqlite3_column_bytes(folder->get, 1), arena, ret_fields)
               == 0) {
        folded->created = (uint64_t) sqlite3_column_int64(folder->get, 0);
        r = 0;
    } else if (r >= 0) {
        journal_say(text, "%s is damaged: the %s %s is missing or cannot be read", objects->name,
                    class->name, ref_print(ref, folded->ref));
        r = -EBADMSG;
    }
    sqlite3_reset(folder->get);
    return r;
}

static int write_object(struct folder *folder, struct folded *folded, struct arena *arena,
                        char *text)
{
    struct sql *objects = &folder->journal->objects;
    struct value *fields;
    int r = 0;

    if (folded->is_deleted) {
        sqlite3_bind_text(folder->delete, 1, folded->class->name, -1, SQLITE_STATIC);
        sql_bind_ref(folder->delete, 2, folded->ref);
        return sql_do(objects, folder->delete, text);
    }
    fields = arena_alloc_array(arena, (size_t) folded->class->field_count, sizeof *fields);
    if (!folded->is_new)
        r = read_object(folder, folded, arena, fields, text);
    if (r < 0)
        return r;
    for (const struct put *put = folded->puts; put; put = put->next)
        fields[put->field] = *put->value;
    return journal_put_object(objects, folder->put, folded->class, folded->ref, folded->created,
                              folded->modified, fields, &folder->bytes, text);
}

/* The table's order, so that each of its pages is visited once. Names order classes there. */
static int by_key(const void *a_, const void *b_)
{
    const struct folded *a = *(struct folded *const *) a_, *b = *(struct folded *const *) b_;

    return a->class == b->class ? ref_compare(a->ref, b->ref)
                                : strcmp(a->class->name, b->class->name);
}

static int write_batch(struct folder *folder, struct batch *batch, char *text)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct sql *objects = &folder->journal->objects;
    int r = sql_run(objects, "BEGIN IMMEDIATE", text);

    qsort(batch->objects, batch->count, sizeof *batch->objects, by_key);
    for (size_t i = 0; i < batch->count && r == 0; i++) {
        r = write_object(folder, batch->objects[i], arena, text);
        arena_reset(arena);
    }
    if (r == 0) {
        sqlite3_bind_int64(folder->set_folded, 1, (int64_t) batch->newest);
        r = sql_do(objects, folder->set_folded, text);
    }
    if (r == 0)
        r = sql_run(objects, "COMMIT", text);
    if (r < 0 && !sqlite3_get_autocommit(objects->db))
        sqlite3_exec(objects->db, "ROLLBACK", NULL, NULL, NULL);
    return r;
}

/* Returns how many records were folded, or an error. */
static int64_t fold_batch(struct folder *folder, char *text)
{
    struct journal *journal = folder->journal;
    struct batch batch = {.arena = arena_new(), .newest = journal->folded};
    int r;

    r = gather(folder, &batch, text);
    if (r == 0 && batch.records > 0)
        r = write_batch(folder, &batch, text);
    if (r == 0 && batch.records > 0) {
        journal->folded = batch.newest;
        journal->unfolded -= batch.records;
    }
    for (int i = 0; i < CLASS_COUNT; i++)
        refmap_done(&batch.maps[i]);
    free(batch.objects);
    arena_destroy(&batch.arena);
    return r < 0 ? r : (int64_t) batch.records;
}

/* ---- WALs ---- */

/* The WAL of journal.db is long, and not yet told to be copied. */
static bool is_wal_long(struct journal *journal)
{
    return journal->wal_bytes > journal->config.wal_bytes_max
           && !atomic_load(&journal->is_wal_copied);
}

/* Copy it while the writer goes on, so that its pause is short. */
static void copy_wal(struct folder *folder)
{
    struct journal *journal = folder->journal;

    sqlite3_wal_checkpoint_v2(folder->log.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    atomic_store(&journal->is_wal_copied, true);
}

/* ---- the thread ---- */

static int folder_open(struct folder *folder, struct journal *journal, char *text)
{
    struct sql *objects = &journal->objects;
    int r;

    *folder = (struct folder){.journal = journal};
    buffer_init(&folder->bytes, JOURNAL_RECORD_BYTES_MAX);
    if ((r = sql_open(&folder->log, &journal->config, "journal.db", text)) < 0
        || (r = sql_prepare(&folder->log,
                            "SELECT generation, changes FROM journal WHERE generation > ? ORDER BY "
                            "generation LIMIT ?",
                            &folder->read, text))
               < 0
        || (r = sql_prepare(objects,
                            "SELECT created, record FROM objects WHERE class = ? AND ref = ?",
                            &folder->get, text))
               < 0
        || (r = sql_prepare(objects, JOURNAL_PUT_OBJECT, &folder->put, text)) < 0
        || (r = sql_prepare(objects, "DELETE FROM objects WHERE class = ? AND ref = ?",
                            &folder->delete, text))
               < 0
        || (r = sql_prepare(objects, "UPDATE meta SET folded = ?", &folder->set_folded, text)) < 0)
        return r;
    return 0;
}

static void folder_done(struct folder *folder)
{
    sql_finalize(&folder->read);
    sql_finalize(&folder->get);
    sql_finalize(&folder->put);
    sql_finalize(&folder->delete);
    sql_finalize(&folder->set_folded);
    sql_close(&folder->log);
    buffer_done(&folder->bytes);
}

static struct timespec after_ms(unsigned ms)
{
    struct timespec due;

    clock_gettime(CLOCK_MONOTONIC, &due);
    due.tv_sec += ms / 1000;
    due.tv_nsec += ms % 1000 * 1000000l;
    if (due.tv_nsec >= 1000000000l) {
        due.tv_nsec -= 1000000000l;
        due.tv_sec++;
    }
    return due;
}

enum work { WORK_FOLD, WORK_COPY_WAL, WORK_END };

/* Wait for something to do: many records, or few after the interval; a long WAL; the end of the
 * writer. After a failure the interval passes first. */
static enum work wait_for_work(struct journal *journal, const struct timespec *due, bool is_failing)
{
    enum work work = WORK_FOLD;
    int r = 0;

    pthread_mutex_lock(&journal->mutex);
    while (!journal->is_writer_done && !is_wal_long(journal) && r != ETIMEDOUT
           && (is_failing || journal->unfolded < journal->config.fold_records))
        r = pthread_cond_timedwait(&journal->fold, &journal->mutex, due);
    if (journal->is_writer_done)
        work = WORK_END;
    else if (is_wal_long(journal))
        work = WORK_COPY_WAL;
    pthread_mutex_unlock(&journal->mutex);
    return work;
}

/* Returns whether it worked. */
static bool fold_all(struct folder *folder)
{
    struct journal *journal = folder->journal;
    char text[JOURNAL_TEXT_BYTES];
    int64_t n;

    do {
        n = fold_batch(folder, text);
        sqlite3_wal_checkpoint_v2(journal->objects.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    } while (n > 0 && journal->unfolded >= journal->config.fold_records && !is_wal_long(journal));
    if (n < 0 && journal->fold_failures++ == 0)
        log_error(NULL, "journal: folding failed, and will be tried again: %s", text);
    return n >= 0;
}

/* Folding can wait; the core and commits cannot. Not too far back: it must keep up on a busy
 * machine. */
static void step_back(void)
{
    pid_t thread = (pid_t) syscall(SYS_gettid);

    setpriority(PRIO_PROCESS, (id_t) thread, 5);
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, thread, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7));
}

static void run(struct folder *folder)
{
    struct journal *journal = folder->journal;
    struct timespec due = after_ms(journal->config.fold_interval_ms);
    bool is_failing = false;
    enum work work;

    while ((work = wait_for_work(journal, &due, is_failing)) != WORK_END) {
        journal_room_check(journal);
        if (work == WORK_COPY_WAL) {
            copy_wal(folder);
            continue;
        }
        if (journal->unfolded > 0)
            is_failing = !fold_all(folder);
        due = after_ms(journal->config.fold_interval_ms);
    }
    if (!atomic_load(&journal->has_failed))
        fold_all(folder);
}

void *journal_folder_run(void *arg)
{
    struct journal *journal = arg;
    struct folder folder;
    char text[JOURNAL_TEXT_BYTES];

    step_back();
    if (folder_open(&folder, journal, text) == 0) {
        run(&folder);
    } else {
        /* Like a failed batch: the journal grows until the master is started again. */
        log_error(NULL, "journal: cannot fold: %s", text);
        journal->fold_failures++;
    }
    folder_done(&folder);
    return NULL;
}
