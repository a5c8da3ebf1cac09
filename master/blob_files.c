/* blob_files.c - what blobs hold: files, and how they stay at one with the records
 *
 * The record decides whether there is a blob, the file what it holds. So a file gets its name
 * before the record tells of it, and loses it when the record is durably gone: whenever the master
 * dies, the next one finds either the old contents or the new, whole, and lets size and time in the
 * record follow. Deleting blobs needs nobody who thinks of files: whoever deletes a record, the
 * store tells us, and the directory is swept.
 *
 * Room is given before the first byte is taken: against the limits, against the floor that the
 * store needs, and then on the disk itself. What is promised to uploads counts until they end. */
#include "master/blob_files.h"

#include "master/background.h"
#include "master/handler.h"
#include "master/journal.h"
#include "shared/crash.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/workers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNFINISHED ".new"

struct blobs {
    struct core *core;
    char *directory;
    uint64_t one_max, all_max;      /* bytes */
    uint64_t promised_bytes;        /* to writings */
    unsigned transfers;             /* of clients, now */
    uint64_t writings;              /* ever begun: numbers their files */
    struct store_listener listener; /* for blobs that are deleted */
    uint64_t seen;                  /* generation up to which deletions are swept, or will be */
    bool is_sweeping, is_due;       /* a fiber is at it; and again */
    bool is_placing;                /* one blob at a time gets new contents */
    struct waitq placers;
};

struct blob_writing {
    struct blobs *blobs;
    ref_t blob;
    char *path, *final_path;
    int fd;
    int64_t bytes, written; /* promised; and taken */
    int64_t updated_utc_s;  /* the file's time */
    int error;              /* errno of the first thing that failed */
    bool is_placed;
};

static char *path_of(const struct blobs *blobs, const char *name)
{
    char *path = NULL;

    return asprintf(&path, "%s/%s", blobs->directory, name) < 0 ? NULL : path;
}

/* ---- sweeping ---- */

static bool is_unfinished(const char *name)
{
    size_t length = strlen(name);

    return length > strlen(UNFINISHED) && streq(name + length - strlen(UNFINISHED), UNFINISHED);
}

/* Names first, then the view: a file that was there before it has a blob in it, or none any more.
 */
static void sweep(struct blobs *blobs, bool is_start)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    _cleanup_(view_unpin) struct view *view = NULL;
    struct name {
        const char *text;
        struct name *next;
    } *names = NULL;
    DIR *directory = opendir(blobs->directory);
    struct dirent *entry;
    ref_t uuid;

    if (!directory) {
        log_warning("blobs", "%s: %s", blobs->directory, strerror(errno));
        return;
    }
    while ((entry = readdir(directory)))
        if ((is_start && is_unfinished(entry->d_name))
            || uuid_parse(entry->d_name, strlen(entry->d_name), &uuid)) {
            struct name *name = arena_new0(arena, struct name);

            name->text = arena_strdup(arena, entry->d_name);
            name->next = names;
            names = name;
        }
    view = store_pin(blobs->core->store);
    for (; names; names = names->next)
        if (is_unfinished(names->text) || !view_by_uuid(view, CLASS_OF(blob), names->text))
            unlinkat(dirfd(directory), names->text, 0);
    closedir(directory);
}

static void sweep_job(void *arg)
{
    sweep(arg, false);
}

static void sweep_fiber(struct call *call, void *arg)
{
    struct blobs *blobs = arg;

    while (blobs->is_due) {
        blobs->is_due = false;
        workers_run(call->core->workers, sweep_job, blobs);
    }
    blobs->is_sweeping = false;
}

static void sweep_soon(struct blobs *blobs)
{
    blobs->is_due = true;
    if (!blobs->is_sweeping) {
        blobs->is_sweeping = true;
        background_run(blobs->core, "blob.sweep", "", sweep_fiber, blobs);
    }
}

static void visible(struct store_listener *listener, uint64_t generation,
                    const uint64_t class_mask[2])
{
    struct blobs *blobs = CONTAINER_OF(listener, struct blobs, listener);
    _cleanup_(view_unpin) struct view *view = NULL;
    struct view_iter all;
    struct deleted deleted;

    if (!(class_mask[CLASS_NUMBER_blob / 64] >> CLASS_NUMBER_blob % 64 & 1))
        return;
    view = store_pin(blobs->core->store);
    view_each_deleted(&all, view, CLASS_OF(blob), blobs->seen);
    if (view_next_deleted(&all, &deleted)
        || view_deletions_known_since(view, CLASS_OF(blob)) > blobs->seen)
        sweep_soon(blobs);
    blobs->seen = generation;
}

/* ---- start and end ---- */

/* Records follow the files: a master may have died between the two, or an old store was put back.
 */
static void follow_files(struct blobs *blobs)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(blobs->core->store);
    const struct object *blob;
    struct view_iter all;

    view_each(&all, txn_view(txn), CLASS_OF(blob));
    while ((blob = view_next(&all))) {
        _cleanup_(free_p) char *path = path_of(blobs, blob_get_uuid(blob));
        struct stat status = {0};
        bool is_there = stat(path, &status) == 0;

        if (!is_there && blob_get_size(blob) > 0) {
            log_warning("blobs", "%s is not there: what the blob held is lost", path);
            blob_put_size(txn, blob->ref, 0);
        } else if (is_there
                   && (blob_get_size(blob) != status.st_size
                       || blob_get_last_updated(blob) < status.st_mtime)) {
            blob_put_size(txn, blob->ref, status.st_size);
            blob_put_last_updated(txn, blob->ref, status.st_mtime);
        }
    }
    store_apply(&txn);
}

struct blobs *blobs_open(struct core *core, const char *directory, uint64_t one_max,
                         uint64_t all_max)
{
    struct blobs *blobs = new0(struct blobs);

    if (mkdir(directory, 0700) < 0 && errno != EEXIST) {
        log_error(NULL, "%s: %s", directory, strerror(errno));
        free(blobs);
        return NULL;
    }
    blobs->core = core;
    blobs->directory = dup_text(directory);
    blobs->one_max = one_max;
    blobs->all_max = all_max;
    sweep(blobs, true);
    follow_files(blobs);
    blobs->seen = store_visible(core->store);
    blobs->listener.visible = visible;
    store_add_listener(core->store, &blobs->listener);
    return blobs;
}

void blobs_close(struct blobs **blobs_p)
{
    struct blobs *blobs = TAKE(*blobs_p);

    if (!blobs)
        return;
    store_remove_listener(blobs->core->store, &blobs->listener);
    free(blobs->directory);
    free(blobs);
}

/* ---- clients ---- */

bool blobs_enter(struct blobs *blobs, bool is_stranger)
{
    if (blobs->transfers >= (is_stranger ? BLOB_TRANSFERS_MAX / 2 : BLOB_TRANSFERS_MAX))
        return false;
    blobs->transfers++;
    return true;
}

void blobs_leave(struct blobs *blobs)
{
    blobs->transfers--;
}

/* ---- reading ---- */

struct opening {
    char *path;
    int fd, error;
    struct stat status;
};

static void open_job(void *arg)
{
    struct opening *opening = arg;

    opening->fd = open(opening->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (opening->fd < 0 || fstat(opening->fd, &opening->status) < 0)
        opening->error = errno;
}

int blob_open(struct call *call, const struct object *blob, int *ret_fd, int64_t *ret_bytes)
{
    _cleanup_(free_p) char *path = path_of(call->core->blobs, blob_get_uuid(blob));
    struct opening opening = {.path = path};
    int64_t size = blob_get_size(blob);

    workers_run(call->core->workers, open_job, &opening);
    if (opening.error == ENOENT && size == 0)
        opening.error = 0;
    if (opening.error) {
        if (opening.fd >= 0)
            close(opening.fd);
        return fail(call, INTERNAL_ERROR,
                    arena_text(call->arena, "the blob's file: %s", strerror(opening.error)));
    }
    *ret_fd = opening.fd;
    *ret_bytes = opening.fd < 0 ? 0 : opening.status.st_size;
    return 0;
}

/* ---- writing ---- */

static uint64_t bytes_of_all(const struct view *view)
{
    const struct object *blob;
    struct view_iter all;
    uint64_t sum = 0;

    view_each(&all, view, CLASS_OF(blob));
    while ((blob = view_next(&all)))
        sum += (uint64_t) blob_get_size(blob);
    return sum;
}

static void create_job(void *arg)
{
    struct blob_writing *writing = arg;

    writing->fd = open(writing->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (writing->fd < 0)
        writing->error = errno;
    else if (writing->bytes > 0)
        writing->error = posix_fallocate(writing->fd, 0, writing->bytes);
}

/* What a failed file means for the client. */
static int disk_failed(struct call *call, int error)
{
    if (error == ENOSPC || error == EDQUOT)
        return fail(call, OUT_OF_SPACE, "the master's blobs");
    log_error("blobs", "%s", strerror(error));
    return fail(call, INTERNAL_ERROR,
                arena_text(call->arena, "the blob's file: %s", strerror(error)));
}

int blob_write_begin(struct call *call, const struct object *blob, int64_t bytes,
                     struct blob_writing **ret)
{
    struct blobs *blobs = call->core->blobs;
    _cleanup_(blob_write_drop) struct blob_writing *writing = NULL;
    _cleanup_(free_p) char *name = NULL;
    uint64_t wanted = (uint64_t) bytes + blobs->promised_bytes;

    if ((uint64_t) bytes > blobs->one_max)
        return fail(call, INVALID_VALUE, "content-length",
                    arena_text(call->arena, "a blob holds at most %llu bytes",
                               (unsigned long long) blobs->one_max));
    if (bytes_of_all(call_view(call)) + wanted > blobs->all_max
        || (call->core->journal && !journal_has_room_beside(call->core->journal, wanted)))
        return fail(call, OUT_OF_SPACE, "the master's blobs");
    if (asprintf(&name, "%s.%llu" UNFINISHED, blob_get_uuid(blob),
                 (unsigned long long) ++blobs->writings)
        < 0)
        abort();
    writing = new0(struct blob_writing);
    *writing = (struct blob_writing){
        .blobs = blobs,
        .blob = blob->ref,
        .path = path_of(blobs, name),
        .final_path = path_of(blobs, blob_get_uuid(blob)),
        .fd = -1,
        .bytes = bytes,
    };
    blobs->promised_bytes += (uint64_t) bytes;
    workers_run(call->core->workers, create_job, writing);
    if (writing->error)
        return disk_failed(call, writing->error);
    *ret = TAKE(writing);
    return 0;
}

bool blob_write(struct blob_writing *writing, const char *bytes, size_t count)
{
    while (count > 0 && writing->error == 0) {
        ssize_t n = pwrite(writing->fd, bytes, count, writing->written);

        if (n < 0 && errno != EINTR)
            writing->error = errno;
        if (n > 0) {
            bytes += n;
            count -= (size_t) n;
            writing->written += n;
        }
    }
    return writing->error == 0;
}

bool blob_write_has_failed(const struct blob_writing *writing)
{
    return writing->error != 0;
}

static void sync_job(void *arg)
{
    struct blob_writing *writing = arg;
    struct stat status;

    if (fsync(writing->fd) < 0 || fstat(writing->fd, &status) < 0)
        writing->error = errno;
    else
        writing->updated_utc_s = status.st_mtime;
}

static void place_job(void *arg)
{
    struct blob_writing *writing = arg;
    int directory = open(writing->blobs->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (directory < 0 || rename(writing->path, writing->final_path) < 0) {
        writing->error = errno;
    } else {
        writing->is_placed = true;
        if (fsync(directory) < 0)
            writing->error = errno;
    }
    if (directory >= 0)
        close(directory);
}

/* Names and records change in the same order. */
static int place(struct call *call, struct blob_writing *writing)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    int r;

    if (!live(call, call_view(call), blob, writing->blob))
        return -ERR_HANDLE_INVALID;
    core_emit(call); /* a file is seen at once, so its blob must be durable */
    CRASH_POINT("master.blob.place.before");
    workers_run(call->core->workers, place_job, writing);
    CRASH_POINT("master.blob.place.after");
    if (writing->error && !writing->is_placed)
        return disk_failed(call, writing->error);
    txn = store_begin(call->core->store);
    if (!live(call, txn_view(txn), blob, writing->blob)) {
        sweep_soon(writing->blobs); /* it may have been swept before it got its name */
        return -ERR_HANDLE_INVALID;
    }
    blob_put_size(txn, writing->blob, writing->bytes);
    blob_put_last_updated(txn, writing->blob, writing->updated_utc_s);
    r = call_commit(call, &txn);
    return r == 0 && writing->error ? disk_failed(call, writing->error) : r;
}

int blob_write_end(struct call *call, struct blob_writing *writing)
{
    struct blobs *blobs = writing->blobs;
    int r;

    if (writing->error == 0 && writing->written != writing->bytes)
        writing->error = EIO;
    if (writing->error == 0)
        workers_run(call->core->workers, sync_job, writing);
    if (writing->error)
        return disk_failed(call, writing->error);
    fiber_uncancellable_begin();
    while (blobs->is_placing)
        waitq_wait(&blobs->placers, 0);
    blobs->is_placing = true;
    r = place(call, writing);
    blobs->is_placing = false;
    waitq_wake_one(&blobs->placers);
    fiber_uncancellable_end();
    return r;
}

static void drop_job(void *arg)
{
    struct blob_writing *writing = arg;

    if (writing->fd >= 0)
        close(writing->fd);
    if (writing->fd >= 0 && !writing->is_placed)
        unlink(writing->path);
}

void blob_write_drop(struct blob_writing **writing_p)
{
    struct blob_writing *writing = TAKE(*writing_p);

    if (!writing)
        return;
    workers_run(writing->blobs->core->workers, drop_job, writing);
    writing->blobs->promised_bytes -= (uint64_t) writing->bytes;
    free(writing->path);
    free(writing->final_path);
    free(writing);
}
