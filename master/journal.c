/* journal.c - opening a store and what is checked then; its epochs; loading it and filling it
 *
 * Everything here runs before the threads start or after they have ended, so both files belong to
 * the caller. What a file says about itself comes first: SQLite's application id tells our files
 * from others, its user version is the version of the format, and both files name the pool. */
#include "master/journal_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/clock.h"
#include "shared/log.h"

#define APPLICATION_ID 0x44727672 /* "Drvr" */

static const char *const file_names[] = {"journal.db", "journal.db-wal", "journal.db-shm",
                                         "objects.db", "objects.db-wal", "objects.db-shm"};

/* The format, and what makes version n of version n - 1; each file on its own, in one transaction
 * with its new version. The table is the history: a row is never changed, tests/unit/test_journal.c
 * keeps a file of each version. */
struct upgrade {
    const char *log;     /* statements for journal.db; NULL: nothing to do */
    const char *objects; /* for objects.db */
};

static const struct upgrade upgrades[] = {
    {NULL, NULL}, /* 0: an empty file */
    /* 1: the first */
    {"CREATE TABLE meta (pool BLOB NOT NULL);"
     "CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, holder BLOB NOT NULL, first INTEGER NOT NULL,"
     "                     inherited INTEGER NOT NULL);"
     "CREATE TABLE journal (generation INTEGER PRIMARY KEY, changes BLOB NOT NULL);",
     "CREATE TABLE meta (pool BLOB NOT NULL, folded INTEGER NOT NULL DEFAULT -1);"
     "CREATE TABLE objects (class TEXT NOT NULL, ref BLOB NOT NULL, created INTEGER NOT NULL,"
     "                      modified INTEGER NOT NULL, record BLOB NOT NULL,"
     "                      PRIMARY KEY (class, ref)) WITHOUT ROWID;"},
};

#define VERSION ((int) ARRAY_SIZE(upgrades) - 1)

/* ---- opening ---- */

/* Bring a file to our version; a new one gets its pool. */
static int upgrade_file(struct sql *sql, bool is_log, int version, ref_t pool, char *text)
{
    _cleanup_(sql_finalize) sqlite3_stmt *statement = NULL;
    char numbers[128];
    int r;

    r = sql_run(sql, "BEGIN IMMEDIATE", text);
    for (int v = version + 1; v <= VERSION && r == 0; v++) {
        const char *statements = is_log ? upgrades[v].log : upgrades[v].objects;

        if (statements)
            r = sql_run(sql, statements, text);
    }
    if (r == 0 && version == 0) {
        r = sql_prepare(sql, "INSERT INTO meta (pool) VALUES (?)", &statement, text);
        if (r == 0) {
            sql_bind_ref(statement, 1, pool);
            r = sql_do(sql, statement, text);
        }
    }
    if (r < 0)
        return r;
    snprintf(numbers, sizeof numbers, "PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT",
             APPLICATION_ID, VERSION);
    return sql_run(sql, numbers, text);
}

static int check_pool(struct sql *sql, ref_t pool, char *text)
{
    _cleanup_(sql_finalize) sqlite3_stmt *statement = NULL;
    char theirs[UUID_TEXT_BYTES], ours[UUID_TEXT_BYTES];
    ref_t found;
    int r = sql_prepare(sql, "SELECT pool FROM meta", &statement, text);

    if (r == 0)
        r = sql_row(sql, statement, text);
    if (r < 0)
        return r;
    if (r == 0 || !sql_column_ref(statement, 0, &found)) {
        journal_say(text, "%s is damaged: it does not say whose it is", sql->name);
        return -EBADMSG;
    }
    if (!ref_equal(found, pool)) {
        journal_say(text, "%s belongs to pool %s, not to %s", sql->name, uuid_print(theirs, found),
                    uuid_print(ours, pool));
        return -EXDEV;
    }
    return 0;
}

/* Whose file it is, of which version, and whether its pages hang together. `version` 0: an empty
 * file. */
static int check_file(struct sql *sql, ref_t pool, int *ret_version, char *text)
{
    _cleanup_(sql_finalize) sqlite3_stmt *statement = NULL;
    int64_t id, version, tables;
    int r;

    if ((r = sql_number(sql, "PRAGMA application_id", 0, &id, text)) < 0
        || (r = sql_number(sql, "PRAGMA user_version", 0, &version, text)) < 0
        || (r = sql_number(sql, "SELECT count(*) FROM sqlite_schema", 0, &tables, text)) < 0)
        return r;
    *ret_version = (int) version;
    if (id == 0 && version == 0 && tables == 0)
        return 0;
    if (id != APPLICATION_ID || version < 1) {
        journal_say(text, "%s is no file of Drover's", sql->name);
        return -EBADMSG;
    }
    if (version > VERSION) {
        journal_say(text, "%s was written by a newer version (format %d, this one knows up to %d)",
                    sql->name, (int) version, VERSION);
        return -EPROTO;
    }
    r = sql_prepare(sql, "PRAGMA quick_check(1)", &statement, text);
    if (r == 0)
        r = sql_row(sql, statement, text);
    if (r < 0)
        return r;
    if (!streq((const char *) sqlite3_column_text(statement, 0), "ok")) {
        journal_say(text, "%s is damaged: %s", sql->name,
                    (const char *) sqlite3_column_text(statement, 0));
        return -EBADMSG;
    }
    return check_pool(sql, pool, text);
}

/* The two files must fit each other: objects.db holds what journal.db no longer has. */
static int check_pair(struct sql *log, struct sql *objects, char *text)
{
    int64_t folded, oldest;
    int r;

    if ((r = sql_number(objects, "SELECT folded FROM meta", 0, &folded, text)) < 0
        || (r = sql_number(log, "SELECT min(generation) FROM journal", 0, &oldest, text)) < 0)
        return r;
    if (folded < 0 || oldest < 0) {
        journal_say(text, "%s is damaged: generation below zero",
                    folded < 0 ? objects->name : log->name);
        return -EBADMSG;
    }
    return 0;
}

int journal_check_files(struct sql *log, struct sql *objects, ref_t pool, char *text)
{
    int version, r;

    if ((r = check_file(log, pool, &version, text)) < 0)
        return r;
    if (version == 0) {
        journal_say(text, "%s is empty", log->name);
        return -EBADMSG;
    }
    if ((r = check_file(objects, pool, &version, text)) < 0)
        return r;
    if (version == 0) {
        journal_say(text, "%s is empty", objects->name);
        return -EBADMSG;
    }
    return check_pair(log, objects, text);
}

static bool is_there(const char *directory, const char *name)
{
    _cleanup_(free_p) char *path = journal_path(directory, name);
    struct stat status;

    return stat(path, &status) == 0;
}

static int lock_directory(struct journal *journal, bool is_to_read, char *text)
{
    _cleanup_(free_p) char *path = journal_path(journal->directory, "lock");

    journal->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (journal->lock_fd < 0 && is_to_read)
        journal->lock_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (journal->lock_fd < 0) {
        journal_say(text, "cannot open %s: %s", path, strerror(errno));
        return -EIO;
    }
    if (flock(journal->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        journal_say(text, "%s is locked: another process has this store open", path);
        return -EBUSY;
    }
    return 0;
}

/* A file that has just been made is there after a crash only when its directory was synced. */
static int sync_directory(const char *directory, char *text)
{
    _cleanup_(close_fd) int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0) {
        journal_say(text, "cannot sync %s: %s", directory, strerror(errno));
        return -EIO;
    }
    return 0;
}

/* SQLite gives its WAL the rights of the file: passwords' hashes are for nobody else. */
static int make_file(const char *directory, const char *name, char *text)
{
    _cleanup_(free_p) char *path = journal_path(directory, name);
    _cleanup_(close_fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0) {
        journal_say(text, "cannot make %s: %s", path, strerror(errno));
        return -EIO;
    }
    return 0;
}

/* Open one file, at its version; one that is empty or not there only if a store is being made. */
static int open_file(struct journal *journal, struct sql *sql, const char *name, bool is_being_made,
                     char *text)
{
    const struct journal_config *config = &journal->config;
    int version, r;

    if (!is_there(config->directory, name)) {
        if (!is_being_made) {
            journal_say(text, "%s/%s is missing", config->directory, name);
            return -EBADMSG;
        }
        if ((r = make_file(config->directory, name, text)) < 0)
            return r;
    }
    if ((r = sql_open(sql, config, name, text)) < 0
        || (r = check_file(sql, config->pool, &version, text)) < 0)
        return r;
    if (version == 0 && !is_being_made) {
        journal_say(text, "%s is empty", name);
        return -EBADMSG;
    }
    return version < VERSION ? upgrade_file(sql, sql == &journal->log, version, config->pool, text)
                             : 0;
}

/* objects.db is made first, and says -1 for `folded` until journal.db is there. So what a crash
 * during making leaves is told from a store that has lost a file. */
static int open_files(struct journal *journal, char *text)
{
    const struct journal_config *config = &journal->config;
    bool is_new =
        !is_there(config->directory, "objects.db") && !is_there(config->directory, "journal.db");
    int64_t folded;
    int r;

    if (is_new && !config->is_new) {
        journal_say(text, "there is no store in %s", config->directory);
        return -ENOENT;
    }
    is_new |= config->is_new && !is_there(config->directory, "journal.db");
    if ((r = open_file(journal, &journal->objects, "objects.db", is_new, text)) < 0
        || (r = sql_number(&journal->objects, "SELECT folded FROM meta", 0, &folded, text)) < 0)
        return r;
    if (folded == -1 && !config->is_new) {
        journal_say(text, "the store in %s was never finished", config->directory);
        return -ENOENT;
    }
    if ((r = open_file(journal, &journal->log, "journal.db", folded == -1, text)) < 0
        || folded != -1)
        return r;
    r = sync_directory(config->directory, text);
    return r < 0 ? r : sql_run(&journal->objects, "UPDATE meta SET folded = 0", text);
}

static int read_state(struct journal *journal, char *text)
{
    int64_t folded, newest, records;
    char query[96];
    int r;

    if ((r = check_pair(&journal->log, &journal->objects, text)) < 0
        || (r = sql_number(&journal->objects, "SELECT folded FROM meta", 0, &folded, text)) < 0
        || (r = sql_number(&journal->log, "SELECT max(generation) FROM journal", 0, &newest, text))
               < 0)
        return r;
    snprintf(query, sizeof query, "SELECT count(*) FROM journal WHERE generation > %lld",
             (long long) folded);
    if ((r = sql_number(&journal->log, query, 0, &records, text)) < 0)
        return r;
    journal->folded = (uint64_t) folded;
    journal->generation = (uint64_t) MAX(folded, newest);
    journal->unfolded = (uint64_t) records;
    return 0;
}

static void destroy(struct journal *journal)
{
    sql_finalize(&journal->begin);
    sql_finalize(&journal->commit);
    sql_finalize(&journal->insert);
    sql_finalize(&journal->oldest);
    sql_finalize(&journal->prune);
    sql_close(&journal->log);
    sql_close(&journal->objects);
    close_fd(&journal->lock_fd);
    pthread_mutex_destroy(&journal->mutex);
    pthread_mutex_destroy(&journal->room_mutex);
    pthread_cond_destroy(&journal->more);
    pthread_cond_destroy(&journal->fold);
    free(journal->directory);
    free(journal->vfs);
    free(journal);
}

static struct journal *journal_new(const struct journal_config *config)
{
    struct journal *journal = new0(struct journal);
    pthread_condattr_t monotonic;

    journal->config = *config;
    journal->config.directory = journal->directory = dup_text(config->directory);
    journal->config.vfs = journal->vfs = config->vfs ? dup_text(config->vfs) : NULL;
    journal->config.room_bytes_min = config->room_bytes_min ? config->room_bytes_min : 64 << 20;
    journal->config.ballast_bytes = config->ballast_bytes ? config->ballast_bytes : 16 << 20;
    journal->config.wal_bytes_max = config->wal_bytes_max ? config->wal_bytes_max : 64 << 20;
    journal->config.fold_records = config->fold_records ? config->fold_records : 100000;
    journal->config.fold_interval_ms = config->fold_interval_ms ? config->fold_interval_ms : 30000;
    journal->lock_fd = -1;
    journal->last = &journal->first;
    journal->sink =
        (struct store_sink){.name = "journal", .is_required = true, .append = journal_append};
    pthread_mutex_init(&journal->mutex, NULL);
    pthread_mutex_init(&journal->room_mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&journal->more, &monotonic);
    pthread_cond_init(&journal->fold, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return journal;
}

int journal_open(const struct journal_config *config, struct journal **ret,
                 char text[JOURNAL_TEXT_BYTES])
{
    struct journal *journal = journal_new(config);
    struct sql *log = &journal->log;
    int r;

    model_init();
    if ((r = lock_directory(journal, false, text)) < 0 || (r = open_files(journal, text)) < 0
        || (r = read_state(journal, text)) < 0
        || (r = sql_prepare(log, "BEGIN IMMEDIATE", &journal->begin, text)) < 0
        || (r = sql_prepare(log, "COMMIT", &journal->commit, text)) < 0
        || (r = sql_prepare(log, "INSERT INTO journal (generation, changes) VALUES (?, ?)",
                            &journal->insert, text))
               < 0
        || (r = sql_prepare(log, "SELECT min(generation) FROM journal", &journal->oldest, text)) < 0
        || (r = sql_prepare(log, "DELETE FROM journal WHERE generation <= ?", &journal->prune,
                            text))
               < 0) {
        destroy(journal);
        return r;
    }
    journal_room_init(journal);
    *ret = journal;
    return 0;
}

int journal_open_to_read(const struct journal_config *config, struct journal **ret,
                         char text[JOURNAL_TEXT_BYTES])
{
    struct journal *journal = journal_new(config);
    int r;

    model_init();
    if ((r = lock_directory(journal, true, text)) < 0
        || (r = sql_open_at_rest(&journal->objects, config, "objects.db", text)) < 0
        || (r = sql_open_at_rest(&journal->log, config, "journal.db", text)) < 0
        || (r = journal_check_files(&journal->log, &journal->objects, config->pool, text)) < 0
        || (r = read_state(journal, text)) < 0) {
        destroy(journal);
        return r;
    }
    *ret = journal;
    return 0;
}

int journal_try(const struct journal_config *config, char text[JOURNAL_TEXT_BYTES])
{
    struct journal *journal;
    struct journal_head head;
    int r = journal_open(config, &journal, text);

    if (r < 0)
        return r;
    journal_head(journal, &head);
    r = journal_claim_epoch(journal, head.epoch + 1, head.holder, journal->generation, text);
    journal_close(&journal);
    return r;
}

/* ---- epochs ---- */

size_t journal_epochs(struct journal *journal, struct epoch_entry *ret, size_t count_max)
{
    _cleanup_(sql_finalize) sqlite3_stmt *statement = NULL;
    char text[JOURNAL_TEXT_BYTES];
    size_t n = 0;

    assert(!journal->is_running);
    if (sql_prepare(&journal->log, "SELECT epoch, first, inherited FROM epochs ORDER BY epoch DESC",
                    &statement, text)
        < 0)
        return 0;
    while (n < count_max && sql_row(&journal->log, statement, text) > 0)
        ret[n++] = (struct epoch_entry){(uint64_t) sqlite3_column_int64(statement, 0),
                                        (uint64_t) sqlite3_column_int64(statement, 1),
                                        (uint64_t) sqlite3_column_int64(statement, 2)};
    return n;
}

void journal_head(struct journal *journal, struct journal_head *ret)
{
    _cleanup_(sql_finalize) sqlite3_stmt *statement = NULL;
    char text[JOURNAL_TEXT_BYTES];
    uint64_t first;

    assert(!journal->is_running);
    *ret = (struct journal_head){.generation = journal->generation};
    if (sql_prepare(&journal->log, "SELECT epoch, holder, first FROM epochs ORDER BY epoch DESC LIMIT 1",
                    &statement, text)
            < 0
        || sql_row(&journal->log, statement, text) <= 0)
        return;
    ret->epoch = (uint64_t) sqlite3_column_int64(statement, 0);
    sql_column_ref(statement, 1, &ret->holder);
    first = (uint64_t) sqlite3_column_int64(statement, 2);
    if (first > store_first_generation(ret->generation))
        ret->known = first - 1;
}

static int put_epoch(struct journal *journal, uint64_t epoch, ref_t holder, uint64_t first,
                     uint64_t inherited, char *text)
{
    _cleanup_(sql_finalize) sqlite3_stmt *statement = NULL;
    struct journal_head head;
    int r;

    journal_head(journal, &head);
    if (epoch <= head.epoch) {
        journal_say(text, "epoch %llu was claimed before, the highest is %llu",
                    (unsigned long long) epoch, (unsigned long long) head.epoch);
        return -EEXIST;
    }
    r = sql_prepare(&journal->log,
                    "INSERT INTO epochs (epoch, holder, first, inherited) VALUES (?, ?, ?, ?)",
                    &statement, text);
    if (r < 0)
        return r;
    sqlite3_bind_int64(statement, 1, (int64_t) epoch);
    sql_bind_ref(statement, 2, holder);
    sqlite3_bind_int64(statement, 3, (int64_t) first);
    sqlite3_bind_int64(statement, 4, (int64_t) inherited);
    return sql_do(&journal->log, statement, text);
}

int journal_claim_epoch(struct journal *journal, uint64_t epoch, ref_t holder,
                        uint64_t highest_known, char text[JOURNAL_TEXT_BYTES])
{
    return put_epoch(journal, epoch, holder, store_first_generation(highest_known), highest_known,
                     text);
}

/* It inherits what this store has: whoever has seen more has seen what is lost. */
int journal_learn_epoch(struct journal *journal, uint64_t epoch, ref_t holder, uint64_t generation,
                        char text[JOURNAL_TEXT_BYTES])
{
    return put_epoch(journal, epoch, holder, store_first_generation(generation),
                     journal->generation, text);
}

/* ---- loading ---- */

static int load_object(struct journal *journal, struct store *store, sqlite3_stmt *row,
                       struct arena *arena, char *text)
{
    const char *name = (const char *) sqlite3_column_text(row, 0);
    const struct class *class = name ? model_class(name) : NULL;
    char ref_text[REF_TEXT_BYTES] = "without a reference";
    struct value *fields;
    ref_t ref;

    if (!class || !(class->flags & CLASS_PERSIST)) {
        log_warning(NULL, "%s: objects of the unknown class %s are left out", journal->objects.name,
                    name ? name : "");
        return 0;
    }
    fields = arena_alloc_array(arena, (size_t) class->field_count, sizeof *fields);
    if (!sql_column_ref(row, 1, &ref)
        || change_fields_decode(class, sqlite3_column_blob(row, 4),
                                (size_t) sqlite3_column_bytes(row, 4), arena, fields)
               < 0
        || store_load_object(store, class, ref, fields, (uint64_t) sqlite3_column_int64(row, 2),
                             (uint64_t) sqlite3_column_int64(row, 3))
               < 0) {
        if (sql_column_ref(row, 1, &ref))
            ref_print(ref_text, ref);
        journal_say(text, "%s is damaged: the %s %s cannot be read", journal->objects.name, name,
                    ref_text);
        return -EBADMSG;
    }
    return 1;
}

static int load_objects(struct journal *journal, struct store *store, size_t *ret_count, char *text)
{
    _cleanup_(sql_finalize) sqlite3_stmt *row = NULL;
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    int r =
        sql_prepare(&journal->objects,
                    "SELECT class, ref, created, modified, record FROM objects ORDER BY class, ref",
                    &row, text);

    *ret_count = 0;
    if (r < 0)
        return r;
    while ((r = sql_row(&journal->objects, row, text)) > 0) {
        r = load_object(journal, store, row, arena, text);
        if (r < 0)
            return r;
        *ret_count += (size_t) r;
        arena_reset(arena);
    }
    return r;
}

/* Does a record go on where the one before ended? The first of an epoch may rest on what this store
 * never had. */
static bool goes_on(const struct changes *changes, uint64_t last)
{
    return changes->follows == last
           || (changes->follows > last && changes->generation >> 32 > last >> 32);
}

static int load_record(struct journal *journal, struct store *store, sqlite3_stmt *row,
                       struct arena *arena, uint64_t *last, char *text)
{
    uint64_t generation = (uint64_t) sqlite3_column_int64(row, 0);
    struct changes changes;
    const char *wrong = NULL;

    if (changes_decode(sqlite3_column_blob(row, 1), (size_t) sqlite3_column_bytes(row, 1), arena,
                       &changes)
            < 0
        || changes.generation != generation)
        wrong = "cannot be read";
    else if (!goes_on(&changes, *last))
        wrong = "does not follow the one before";
    else if (store_load_changes(store, &changes) < 0)
        wrong = "does not fit the objects";
    if (wrong) {
        journal_say(text, "%s is damaged: the record of generation %llu %s", journal->log.name,
                    (unsigned long long) generation, wrong);
        return -EBADMSG;
    }
    if (changes.skipped > 0)
        log_warning(NULL, "%s: generation %llu holds %d things that this version does not know",
                    journal->log.name, (unsigned long long) generation, changes.skipped);
    *last = generation;
    return 0;
}

static int load_records(struct journal *journal, struct store *store, size_t *ret_count, char *text)
{
    _cleanup_(sql_finalize) sqlite3_stmt *row = NULL;
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    uint64_t last = journal->folded;
    int r = sql_prepare(
        &journal->log,
        "SELECT generation, changes FROM journal WHERE generation > ? ORDER BY generation", &row,
        text);

    *ret_count = 0;
    if (r < 0)
        return r;
    sqlite3_bind_int64(row, 1, (int64_t) last);
    while ((r = sql_row(&journal->log, row, text)) > 0) {
        r = load_record(journal, store, row, arena, &last, text);
        if (r < 0)
            return r;
        ++*ret_count;
        arena_reset(arena);
    }
    return r;
}

int journal_load(struct journal *journal, struct store *store, size_t *ret_objects,
                 size_t *ret_records, char text[JOURNAL_TEXT_BYTES])
{
    int r;

    assert(!journal->is_running);
    r = load_objects(journal, store, ret_objects, text);
    return r < 0 ? r : load_records(journal, store, ret_records, text);
}

/* ---- filling ---- */

static int fill_class(struct journal *journal, sqlite3_stmt *insert, const struct view *view,
                      const struct class *class, struct buffer *bytes, char *text)
{
    const struct object *object;
    struct view_iter it;
    int r = 0;

    view_each(&it, view, class);
    while (r == 0 && (object = view_next(&it)))
        r = journal_put_object(&journal->objects, insert, object->class, object->ref,
                               object->created, object->modified, object->fields, bytes, text);
    return r;
}

int journal_fill(struct journal *journal, const struct view *view, uint64_t generation,
                 char text[JOURNAL_TEXT_BYTES])
{
    _cleanup_(sql_finalize) sqlite3_stmt *insert = NULL;
    _cleanup_(buffer_done) struct buffer bytes = {0};
    struct sql *objects = &journal->objects;
    char folded[64];
    int r;

    assert(!journal->is_running && generation >= journal->generation);
    buffer_init(&bytes, JOURNAL_RECORD_BYTES_MAX);
    r = sql_prepare(objects, JOURNAL_PUT_OBJECT, &insert, text);
    if (r == 0)
        r = sql_run(objects, "BEGIN IMMEDIATE; DELETE FROM objects", text);
    for (int i = 0; i < CLASS_COUNT && r == 0; i++)
        if (model_classes[i].flags & CLASS_PERSIST && model_classes[i].flags & CLASS_IN_DATABASE)
            r = fill_class(journal, insert, view, &model_classes[i], &bytes, text);
    if (r < 0)
        return r;
    snprintf(folded, sizeof folded, "UPDATE meta SET folded=%llu; COMMIT",
             (unsigned long long) generation);
    if ((r = sql_run(objects, folded, text)) < 0
        || (r = sql_run(&journal->log, "DELETE FROM journal", text)) < 0)
        return r;
    return read_state(journal, text);
}

/* ---- setting aside ---- */

int journal_set_aside(const char *directory, struct clock *clock, const char *why)
{
    _cleanup_(free_p) char *folder = NULL;
    char name[128], date[DATETIME_TEXT_BYTES];
    bool any = false;

    snprintf(name, sizeof name, "%s-%s", datetime_print(date, clock_utc_s(clock)), why);
    folder = journal_path(directory, name);
    for (size_t i = 0; i < ARRAY_SIZE(file_names); i++)
        any |= is_there(directory, file_names[i]);
    if (!any)
        return -ENOENT;
    if (mkdir(folder, 0700) < 0)
        return -errno;
    /* journal.db goes first: what is left when we are interrupted is a store without it, which is
     * refused. */
    for (size_t i = 0; i < ARRAY_SIZE(file_names); i++) {
        _cleanup_(free_p) char *from = journal_path(directory, file_names[i]);
        _cleanup_(free_p) char *to = journal_path(folder, file_names[i]);

        if (rename(from, to) < 0 && errno != ENOENT)
            return -errno;
    }
    return 0;
}

/* ---- running ---- */

void journal_start(struct journal *journal, struct store *store, struct loop *loop,
                   void (*failed)(void *arg, const char *text), void *arg)
{
    assert(!journal->is_running);
    journal->store = store;
    journal->loop = loop;
    journal->failed = failed;
    journal->failed_arg = arg;
    journal->is_running = true;
    store_add_sink(store, &journal->sink);
    if (pthread_create(&journal->writer, NULL, journal_writer_run, journal) != 0
        || pthread_create(&journal->folder, NULL, journal_folder_run, journal) != 0)
        die("cannot start the journal's threads");
}

struct store_sink *journal_sink(struct journal *journal)
{
    return &journal->sink;
}

void journal_close(struct journal **journal_p)
{
    struct journal *journal = TAKE(*journal_p);
    char text[JOURNAL_TEXT_BYTES];

    if (!journal)
        return;
    if (journal->is_running) {
        pthread_mutex_lock(&journal->mutex);
        journal->is_closing = true;
        pthread_cond_broadcast(&journal->more);
        pthread_cond_broadcast(&journal->fold);
        pthread_mutex_unlock(&journal->mutex);
        pthread_join(journal->writer, NULL);
        pthread_join(journal->folder, NULL);
        if (!journal->has_failed) { /* what is folded need not be read again; if this fails, it is
                                       skipped */
            sqlite3_bind_int64(journal->prune, 1, (int64_t) journal->folded);
            sql_do(&journal->log, journal->prune, text);
        }
    }
    for (struct journal_record *record = journal->first, *next; record; record = next) {
        next = record->next; /* a failed journal leaves its queue */
        free(record);
    }
    destroy(journal);
}

void journal_figures(struct journal *journal, struct journal_figures *ret)
{
    *ret = (struct journal_figures){
        .records = journal->records,
        .commits = journal->commits,
        .bytes = journal->bytes,
        .generation = journal->generation,
        .folded = journal->folded,
        .fold_failures = journal->fold_failures,
        .wal_bytes = journal->wal_bytes,
        .wal_restarts = journal->wal_restarts,
        .longest_commit_us = journal->longest_commit_us,
        .free_bytes = journal->free_bytes,
        .has_room = journal->has_room,
        .has_failed = journal->has_failed,
    };
    pthread_mutex_lock(&journal->mutex);
    ret->queue_bytes = journal->queue_bytes;
    pthread_mutex_unlock(&journal->mutex);
}
