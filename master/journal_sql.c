/* journal_sql.c - SQLite with our manners: every call returns 0 or a negative error and a sentence
 */
#include "master/journal_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

void journal_say(char *text, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(text, JOURNAL_TEXT_BYTES, format, args);
    va_end(args);
}

char *journal_path(const char *directory, const char *name)
{
    char *path = alloc0(strlen(directory) + strlen(name) + 2);

    sprintf(path, "%s/%s", directory, name);
    return path;
}

int sql_failed(struct sql *sql, const char *doing, char *text)
{
    int code = sql->db ? sqlite3_errcode(sql->db) : SQLITE_NOMEM;
    const char *says = sql->db ? sqlite3_errmsg(sql->db) : "out of memory";

    if ((code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB) {
        journal_say(text, "%s is damaged: %s", sql->name, says);
        return -EBADMSG;
    }
    journal_say(text, "%s %s: %s (%d)", doing, sql->name, says,
                sql->db ? sqlite3_extended_errcode(sql->db) : code);
    return -EIO;
}

void sql_close(struct sql *sql)
{
    if (sql->db && sqlite3_close(sql->db) != SQLITE_OK)
        die("%s is closed while it is in use", sql->name);
    sql->db = NULL;
}

/* WAL: readers never wait for the writer. FULL: a commit returns when the disk has it. Checkpoints
 * are made by the folder, not by whichever commit finds the WAL too long. */
static const char manners[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                              "PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-16384;";

static int open_path(struct sql *sql, const char *vfs, const char *path, const char *name,
                     int flags, char *text)
{
    sql->name = name;
    if (sqlite3_open_v2(path, &sql->db, flags | SQLITE_OPEN_NOMUTEX, vfs) != SQLITE_OK)
        return sql_failed(sql, "cannot open", text);
    sqlite3_extended_result_codes(sql->db, true);
    sqlite3_busy_timeout(sql->db, 1000);
    return 0;
}

int sql_open(struct sql *sql, const struct journal_config *config, const char *name, char *text)
{
    _cleanup_(free_p) char *path = journal_path(config->directory, name);
    int r;

    r = open_path(sql, config->vfs, path, name, SQLITE_OPEN_READWRITE, text);
    return r < 0 ? r : sql_run(sql, manners, text);
}

int sql_open_to_read(struct sql *sql, const char *vfs, const char *path, const char *name,
                     char *text)
{
    return open_path(sql, vfs, path, name, SQLITE_OPEN_READONLY, text);
}

/* A file that nobody writes, on a disk that may refuse the files that SQLite makes beside it. The index of its WAL is kept in
 * memory, for which SQLite wants the file for itself - and the lock that it would take needs a file that can be written:
 * without SQLite's locks, then, the caller has the directory's. Where there is no WAL, all is in the file itself. */
int sql_open_at_rest(struct sql *sql, const struct journal_config *config, const char *name, char *text)
{
    _cleanup_(free_p) char *path = journal_path(config->directory, name);
    _cleanup_(free_p) char *wal = alloc0(strlen(path) + 5), *uri = alloc0(3 * strlen(path) + 32);
    struct stat status;
    char *end;
    int r;

    sprintf(wal, "%s-wal", path);
    if (stat(wal, &status) == 0 && status.st_size > 0) {
        r = open_path(sql, config->vfs ? config->vfs : "unix-none", path, name, SQLITE_OPEN_READONLY, text);
        if (r == 0)
            sqlite3_db_config(sql->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        return r < 0 ? r : sql_run(sql, "PRAGMA locking_mode=EXCLUSIVE", text);
    }
    end = stpcpy(uri, "file:");
    for (const char *p = path; *p; p++) /* an URI's own characters, escaped */
        end += sprintf(end, strchr("%?#", *p) ? "%%%02X" : "%c", *p);
    strcpy(end, "?immutable=1");
    return open_path(sql, config->vfs, uri, name, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, text);
}

int sql_run(struct sql *sql, const char *statements, char *text)
{
    if (sqlite3_exec(sql->db, statements, NULL, NULL, NULL) != SQLITE_OK)
        return sql_failed(sql, "cannot work with", text);
    return 0;
}

int sql_prepare(struct sql *sql, const char *statement, sqlite3_stmt **ret, char *text)
{
    if (sqlite3_prepare_v3(sql->db, statement, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL)
        != SQLITE_OK)
        return sql_failed(sql, "cannot work with", text);
    return 0;
}

int sql_do(struct sql *sql, sqlite3_stmt *statement, char *text)
{
    int r = 0;

    if (sqlite3_step(statement) != SQLITE_DONE)
        r = sql_failed(sql, "cannot write", text);
    sqlite3_reset(statement);
    return r;
}

int sql_row(struct sql *sql, sqlite3_stmt *statement, char *text)
{
    int code = sqlite3_step(statement);

    if (code == SQLITE_ROW)
        return 1;
    return code == SQLITE_DONE ? 0 : sql_failed(sql, "cannot read", text);
}

void sql_finalize(sqlite3_stmt **statement)
{
    sqlite3_finalize(*statement);
    *statement = NULL;
}

int sql_number(struct sql *sql, const char *query, int64_t otherwise, int64_t *ret, char *text)
{
    _cleanup_(sql_finalize) sqlite3_stmt *statement = NULL;
    int r = sql_prepare(sql, query, &statement, text);

    if (r < 0)
        return r;
    r = sql_row(sql, statement, text);
    if (r < 0)
        return r;
    *ret = r > 0 && sqlite3_column_type(statement, 0) != SQLITE_NULL
               ? sqlite3_column_int64(statement, 0)
               : otherwise;
    return 0;
}

/* As pack.h has them: high word first. */
void sql_bind_ref(sqlite3_stmt *statement, int place, ref_t ref)
{
    uint64_t words[2] = {__builtin_bswap64(ref.hi), __builtin_bswap64(ref.lo)};

    sqlite3_bind_blob(statement, place, words, sizeof words, SQLITE_TRANSIENT);
}

bool sql_column_ref(sqlite3_stmt *statement, int column, ref_t *ret)
{
    const void *bytes = sqlite3_column_blob(statement, column);
    uint64_t words[2];

    if (sqlite3_column_bytes(statement, column) != sizeof words)
        return false;
    memcpy(words, bytes, sizeof words);
    *ret = (ref_t){__builtin_bswap64(words[0]), __builtin_bswap64(words[1])};
    return true;
}
