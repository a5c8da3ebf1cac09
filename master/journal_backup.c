/* journal_backup.c - copies of the store while it runs
 *
 * journal.db is copied first, objects.db after it. In between records may be folded and deleted;
 * then objects.db already holds them and the copy of journal.db holds some that are skipped. The
 * other way round there could be a gap. So the copy is the pool at some moment between the two,
 * whole, whatever happens meanwhile.
 *
 * A copy is made under another name and counts, by its rename, when it was opened, checked and
 * synced. */
#include "master/journal_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/value.h"

#define BACKUP_PREFIX "backup-"
#define UNFINISHED    "unfinished"

static int sync_path(const char *path, char *text)
{
    _cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0) {
        journal_say(text, "cannot sync %s: %s", path, strerror(errno));
        return -EIO;
    }
    return 0;
}

static int copy_file(struct journal *journal, const char *name, const char *directory, char *text)
{
    _cleanup_(free_p) char *from = journal_path(journal->directory, name);
    _cleanup_(free_p) char *to = journal_path(directory, name);
    char *statement = sqlite3_mprintf("VACUUM INTO %Q", to);
    struct sql sql = {0};
    int r = sql_open_to_read(&sql, journal->vfs, from, name, text);

    if (r == 0)
        r = sql_run(&sql, statement, text);
    sqlite3_free(statement);
    sql_close(&sql);
    return r < 0 ? r : sync_path(to, text);
}

static int check_copy(struct journal *journal, const char *directory, char *text)
{
    _cleanup_(free_p) char *log_path = journal_path(directory, "journal.db");
    _cleanup_(free_p) char *objects_path = journal_path(directory, "objects.db");
    struct sql log = {0}, objects = {0};
    int r = sql_open_to_read(&log, journal->vfs, log_path, "the copy of journal.db", text);

    if (r == 0)
        r = sql_open_to_read(&objects, journal->vfs, objects_path, "the copy of objects.db", text);
    if (r == 0)
        r = journal_check_files(&log, &objects, journal->config.pool, text);
    sql_close(&log);
    sql_close(&objects);
    return r;
}

static void remove_copy(const char *directory, const char *name)
{
    static const char *const files[] = {"journal.db", "objects.db", "journal.db-journal",
                                        "objects.db-journal", JOURNAL_COPY_MARK};
    _cleanup_(free_p) char *folder = journal_path(directory, name);

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        _cleanup_(free_p) char *path = journal_path(folder, files[i]);

        unlink(path);
    }
    rmdir(folder);
}

static int is_backup(const struct dirent *entry)
{
    return strncmp(entry->d_name, BACKUP_PREFIX, strlen(BACKUP_PREFIX)) == 0;
}

/* Names are dates, so their order is that of time. */
static void remove_old(const char *directory, unsigned keep)
{
    struct dirent **entries;
    int count = scandir(directory, &entries, is_backup, alphasort);

    for (int i = 0; i < count; i++) {
        if (i + (int) keep < count)
            remove_copy(directory, entries[i]->d_name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

int64_t journal_newest_backup(const char *directory)
{
    struct dirent **entries;
    int count = scandir(directory, &entries, is_backup, alphasort);
    int64_t newest_utc_s = 0;

    for (int i = 0; i < count; i++) {
        const char *date = entries[i]->d_name + strlen(BACKUP_PREFIX);
        int64_t utc_s;

        if (datetime_parse(date, strlen(date), &utc_s))
            newest_utc_s = MAX(newest_utc_s, utc_s);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return newest_utc_s;
}

int journal_mark_copy(const char *path, char text[JOURNAL_TEXT_BYTES])
{
    static const char says[] = "This store is a copy. A master that starts from it waits for all hosts.\n";
    _cleanup_(close_fd) int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (file >= 0 && write(file, says, sizeof says - 1) == (ssize_t) sizeof says - 1 && fsync(file) == 0)
        return 0;
    journal_say(text, "cannot write %s: %s", path, strerror(errno));
    return -EIO;
}

static int mark_copy(const char *directory, char *text)
{
    _cleanup_(free_p) char *path = journal_path(directory, JOURNAL_COPY_MARK);

    return journal_mark_copy(path, text);
}

int journal_backup(struct journal *journal, const char *directory, unsigned keep,
                   char text[JOURNAL_TEXT_BYTES])
{
    _cleanup_(free_p) char *made = journal_path(directory, UNFINISHED);
    _cleanup_(free_p) char *final = NULL;
    char name[64], date[DATETIME_TEXT_BYTES];
    int r;

    remove_copy(directory, UNFINISHED);
    if (mkdir(made, 0700) < 0) {
        journal_say(text, "cannot make %s: %s", made, strerror(errno));
        return -EIO;
    }
    if ((r = copy_file(journal, "journal.db", made, text)) < 0
        || (r = copy_file(journal, "objects.db", made, text)) < 0
        || (r = check_copy(journal, made, text)) < 0 || (r = mark_copy(made, text)) < 0
        || (r = sync_path(made, text)) < 0) {
        remove_copy(directory, UNFINISHED);
        return r;
    }
    snprintf(name, sizeof name, BACKUP_PREFIX "%s",
             datetime_print(date, clock_utc_s(journal->config.clock)));
    final = journal_path(directory, name);
    if (rename(made, final) < 0) {
        journal_say(text, "cannot rename %s to %s: %s", made, final, strerror(errno));
        remove_copy(directory, UNFINISHED);
        return -EIO;
    }
    remove_old(directory, MAX(keep, 1u));
    return sync_path(directory, text);
}
