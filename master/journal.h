/* journal.h - the local truth: what SQLite holds of the pool, and how it gets there
 *
 *   core: append() --> queue --> writer: one commit for all that waits --> journal.db
 *                                  |                                         |
 *   store: visible <-- acknowledge-+          folder: deltas become whole <--+
 *                                             objects --> objects.db
 *
 * The writer's thread appends redo records to one table and syncs them in groups; a second thread
 * folds them into the table of objects. Two files, since SQLite has one writer for each: folding
 * never holds up a commit.
 *
 * What the pool is: objects.db, which says up to which generation it is folded, and then the
 * records of journal.db above that. Folding writes objects and that number in one transaction, and
 * a record is deleted from journal.db only when the transaction that folded it has been synced. So
 * a crash at any moment leaves records that are in both, which are skipped, and never one that is
 * in neither. (design.md section 4, "SQLite" and "Commit") */
#pragma once

#include "shared/base.h"
#include "shared/ref.h"

#include "master/store.h"

struct clock;
struct journal;
struct loop;

#define JOURNAL_TEXT_BYTES 512 /* for what went wrong, in a sentence */

struct journal_config {
    const char *directory;
    const char *vfs; /* SQLite's name of a file layer; NULL: its own */
    ref_t pool;      /* uuid of the pool */
    bool is_new;     /* make an empty store where there is none */
    struct clock *clock;
    uint64_t room_bytes_min;   /* free space below which writes are refused; 0: 64 MiB */
    uint64_t ballast_bytes;    /* set aside for the time after that; 0: 16 MiB */
    uint64_t wal_bytes_max;    /* the writer lets SQLite's WAL restart beyond that; 0: 64 MiB */
    unsigned fold_records;     /* fold when so many records wait; 0: 100,000 */
    unsigned fold_interval_ms; /* or when the oldest has waited so long; 0: 30,000 */
    /* Free bytes of the file system; NULL: statvfs(). */
    uint64_t (*free_bytes)(void *arg);
    void *free_arg;
};

/* ---- starting; one thread ---- */

/* Open the store of a directory, which exists. Returns 0 or, with a sentence in `text`:
 *
 *   -ENOENT   there is no store, and none was to be made
 *   -EBUSY    another process has it open
 *   -EXDEV    it is another pool's
 *   -EPROTO   a newer version wrote it
 *   -EBADMSG  it is damaged, or no store of ours
 *   -EIO      the file system refuses */
int journal_open(const struct journal_config *, struct journal **ret,
                 char text[JOURNAL_TEXT_BYTES]);

/* The same for a disk that refuses writes: nothing is made, locked for longer than that, or brought to a newer format. It can
 * be loaded and closed, no more. */
int journal_open_to_read(const struct journal_config *, struct journal **ret, char text[JOURNAL_TEXT_BYTES]);

/* Does the disk take writes again? Opens the store, claims an epoch and closes it: what a start does first. Blocks; any
 * thread, while nothing has the store open. 0, or why not. */
int journal_try(const struct journal_config *, char text[JOURNAL_TEXT_BYTES]);

/* What the disk holds. */
struct journal_head {
    uint64_t epoch;      /* the highest claimed here, 0: none */
    ref_t holder;        /* who claimed it */
    uint64_t generation; /* the newest */
    uint64_t known;      /* so high others have been, by what was learnt (journal_learn_epoch); 0: nothing */
};
void journal_head(struct journal *, struct journal_head *ret);

/* Fill an empty store: objects, then redo records. Counts both. 0, -EBADMSG or -EIO with a
 * sentence. The caller ends with store_load_end(). */
int journal_load(struct journal *, struct store *, size_t *ret_objects, size_t *ret_records,
                 char text[JOURNAL_TEXT_BYTES]);

/* The other way, for a master that starts from the mirror or a dump: replace what is here by the
 * objects of a view, as folded up to `generation`. Durable when it returns 0. Epochs stay. */
int journal_fill(struct journal *, const struct view *, uint64_t generation,
                 char text[JOURNAL_TEXT_BYTES]);

/* Claim an epoch, above all that were claimed here; durable when it returns 0. `highest_known` is
 * the generation that the epoch builds on, as given to store_load_end(). -EEXIST: it, or a higher
 * one, was claimed already. */
int journal_claim_epoch(struct journal *, uint64_t epoch, ref_t holder, uint64_t highest_known,
                        char text[JOURNAL_TEXT_BYTES]);

/* Others have claimed this epoch, above all that are known here, and had generations up to `generation` in it or before; this
 * store has none of them. What is claimed next goes above both. Durable when it returns 0; -EEXIST as above. */
int journal_learn_epoch(struct journal *, uint64_t epoch, ref_t holder, uint64_t generation,
                        char text[JOURNAL_TEXT_BYTES]);

/* A file of this name in a store's directory says that the store is a copy, and may lack what was acknowledged since it was
 * made. Copies of journal_backup() have it. */
#define JOURNAL_COPY_MARK "copy"
/* Make the file of this path, durably. 0, or -EIO with a sentence. */
int journal_mark_copy(const char *path, char text[JOURNAL_TEXT_BYTES]);

/* The epochs claimed here, newest first, at most `count_max`; returns how many. */
size_t journal_epochs(struct journal *, struct epoch_entry *ret, size_t count_max);

/* Move a store's files aside, to a folder within `directory` named after the date and `why`;
 * nothing has it open. Returns 0 or -errno; -ENOENT when there is none. */
int journal_set_aside(const char *directory, struct clock *clock, const char *why);

/* ---- running ---- */

/* Start the threads and become a required sink of the store. failed() is called once, on the loop,
 * when a sync failed: from then on nothing is acknowledged any more, and what becomes of the
 * unacknowledged generations is unknown until the store is read again. */
void journal_start(struct journal *, struct store *, struct loop *,
                   void (*failed)(void *arg, const char *text), void *arg);
struct store_sink *journal_sink(struct journal *);

/* Any thread: is there room to begin a write? Asked before anything is changed; behind it stands
 * the ballast, so what was begun can be ended. */
bool journal_has_room(struct journal *);
/* Any thread: would there be room left if somebody else put so many bytes on the same file system? */
bool journal_has_room_beside(struct journal *, uint64_t bytes);

/* Writes what is queued, folds it, ends the threads and closes. No transaction may follow. */
void journal_close(struct journal **);

/* Any thread: copy the store to a new folder, named after the date, within `directory` while it
 * runs; the copy is opened and checked before it counts; then all but the newest `keep` are
 * deleted. 0, -EIO or -EBADMSG with a sentence. It blocks: for a worker. Restoring is: stop the
 * master, put the copy in the place of the store, start. */
int journal_backup(struct journal *, const char *directory, unsigned keep,
                   char text[JOURNAL_TEXT_BYTES]);

/* When the newest copy there was made, in seconds UTC by its name; 0 when there is none. */
int64_t journal_newest_backup(const char *directory);

/* For /metrics; any thread. */
struct journal_figures {
    uint64_t records, commits; /* since the start: records per commit is the group's size */
    uint64_t bytes;
    uint64_t queue_bytes;   /* not yet committed */
    uint64_t generation;    /* the newest on disk */
    uint64_t folded;        /* up to this generation */
    uint64_t fold_failures; /* folding failed and will be tried again */
    uint64_t wal_bytes;
    uint64_t wal_restarts;      /* times the writer paused for it */
    uint64_t longest_commit_us; /* since the start */
    uint64_t free_bytes;
    bool has_room, has_failed;
};
void journal_figures(struct journal *, struct journal_figures *ret);
