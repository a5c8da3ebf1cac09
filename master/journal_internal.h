/* journal_internal.h - what the files of the journal share; nobody else includes it
 *
 *   journal.c         opening and what is checked then, meta data, loading and filling
 *   journal_write.c   the sink, the writer's thread
 *   journal_fold.c    the folder's thread
 *   journal_room.c    free space and the ballast
 *   journal_backup.c  copies
 *   journal_sql.c     SQLite with our manners */
#pragma once

#include "master/journal.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

/* ---- journal_sql.c ---- */

/* What went wrong, into JOURNAL_TEXT_BYTES. */
void journal_say(char *text, const char *format, ...) _printf_(2, 3);
/* directory/name; free() it. */
char *journal_path(const char *directory, const char *name);

struct sql {
    sqlite3 *db;
    const char *name; /* "journal.db", for what is said about it */
};

/* 0 or a negative error with a sentence in `text`, as all of these. */
int sql_open(struct sql *, const struct journal_config *, const char *name, char *text);
/* The same for a file elsewhere that is only read, or that is copied from. */
int sql_open_at_rest(struct sql *sql, const struct journal_config *config, const char *name,
                     char *text);
int sql_open_to_read(struct sql *, const char *vfs, const char *path, const char *name, char *text);
void sql_close(struct sql *);
int sql_run(struct sql *, const char *statements, char *text);
int sql_prepare(struct sql *, const char *statement, sqlite3_stmt **ret, char *text);
/* One step of a statement that gives no rows, which is then reset. */
int sql_do(struct sql *, sqlite3_stmt *statement, char *text);
/* One row: 1, 0 at the end. */
int sql_row(struct sql *, sqlite3_stmt *statement, char *text);
void sql_finalize(sqlite3_stmt **statement); /* a cleanup */
/* The first column of the first row, or `otherwise`. */
int sql_number(struct sql *, const char *statement, int64_t otherwise, int64_t *ret, char *text);
/* What SQLite says of the last call; -EBADMSG for damage, -EIO for the rest. */
int sql_failed(struct sql *, const char *doing, char *text);
void sql_bind_ref(sqlite3_stmt *statement, int place, ref_t ref);
bool sql_column_ref(sqlite3_stmt *statement, int column, ref_t *ret);

/* ---- the journal ---- */

struct journal_record {
    struct journal_record *next;
    uint64_t generation;
    size_t length;
    char bytes[];
};

struct journal {
    struct journal_config config; /* with its defaults filled in */
    char *directory, *vfs;
    int lock_fd;
    struct store_sink sink;
    struct store *store;
    struct loop *loop;
    void (*failed)(void *arg, const char *text);
    void *failed_arg;

    /* journal.db: the starting thread's, then the writer's */
    struct sql log;
    sqlite3_stmt *begin, *commit, *insert, *oldest, *prune;
    uint64_t pruned; /* no records up to here are left */

    /* objects.db: the starting thread's, then the folder's */
    struct sql objects;

    pthread_t writer, folder;
    bool is_running;

    pthread_mutex_t mutex; /* guards the queue and is_closing */
    pthread_cond_t more;   /* the writer waits: records, or the end */
    pthread_cond_t fold;   /* the folder waits: enough records, or the end */
    struct journal_record *first, **last;
    uint64_t queue_bytes;
    bool is_closing, is_writer_done;

    /* read and written by both threads and by who asks for figures */
    _Atomic uint64_t generation; /* newest on disk */
    _Atomic uint64_t folded;     /* and synced: records up to here may go */
    _Atomic uint64_t records, commits, bytes, fold_failures, wal_bytes, wal_restarts;
    _Atomic uint64_t longest_commit_us, free_bytes;
    _Atomic uint64_t unfolded; /* records committed and not folded */
    atomic_bool has_room, has_failed;
    atomic_bool is_wal_copied; /* the folder has copied most of a large WAL: the writer may let it
                                  restart */

    /* journal_room.c, under its mutex */
    pthread_mutex_t room_mutex;
    bool has_ballast;
    uint64_t room_checked_ms;
};

/* journal_write.c */
void *journal_writer_run(void *journal);
void journal_append(struct store_sink *sink, const struct changes *changes);

/* journal_fold.c */
void *journal_folder_run(void *journal);

/* A record is decoded and encoded as a whole; far more than any has, since a call's body is at most
 * 16 MiB. */
#define JOURNAL_RECORD_BYTES_MAX (256u << 20)

/* An object of the table: fields by number, VALUE_VOID and initial ones left out. `bytes` is
 * somewhere to write. */
#define JOURNAL_PUT_OBJECT                                                                        \
    "INSERT OR REPLACE INTO objects (class, ref, created, modified, record) VALUES (?, ?, ?, ?, " \
    "?)"
int journal_put_object(struct sql *, sqlite3_stmt *put, const struct class *, ref_t,
                       uint64_t created, uint64_t modified, const struct value *fields,
                       struct buffer *bytes, char *text);

/* journal_room.c */
void journal_room_init(struct journal *);
void journal_room_check(struct journal *); /* now and then; any thread */

/* journal.c, for backups: are these two a store of this pool? */
int journal_check_files(struct sql *log, struct sql *objects, ref_t pool, char *text);
