/* crash_vfs.c - see crash_vfs.h
 *
 * One mutex guards everything: the tests want faults, not speed, and a crash must find all files at
 * rest. */
#include "crash_vfs.h"

#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#include "shared/random.h"

#define SECTOR 512

/* A sector as it was at the last sync. */
struct saved {
    struct saved *next;
    sqlite3_int64 number;
    bool is_beyond; /* it was behind the end of the file */
    unsigned char bytes[SECTOR];
};

#define BUCKETS 1024

/* What is unsynced of one file, whoever has it open. */
struct shadow {
    struct shadow *next;
    char *path;
    int users;
    sqlite3_int64 synced_bytes;
    bool is_dirty;
    struct saved *saved[BUCKETS];
};

struct file {
    sqlite3_file base;
    struct shadow *shadow; /* NULL: a file without a name, gone after a crash anyway */
    sqlite3_file *real;    /* lies behind this struct */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static sqlite3_vfs vfs, *real_vfs;
static struct shadow *shadows;
static uint64_t crash_after, crash_seed, fail_syncs_after, syncs;
static int crash_status;
static bool do_syncs_fail, is_disk_full;

static struct file *file_of(sqlite3_file *base)
{
    return (struct file *) base;
}

/* ---- the shadow ---- */

static struct shadow *shadow_open(const char *path)
{
    struct shadow *shadow = shadows;

    while (shadow && !streq(shadow->path, path))
        shadow = shadow->next;
    if (!shadow) {
        shadow = new0(struct shadow);
        shadow->path = dup_text(path);
        shadow->next = shadows;
        shadows = shadow;
    }
    shadow->users++;
    return shadow;
}

static void shadow_forget(struct shadow *shadow)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct saved *saved = TAKE(shadow->saved[i]), *next; saved; saved = next) {
            next = saved->next;
            free(saved);
        }
    shadow->is_dirty = false;
}

/* Keep the synced content of the sectors that are about to change. */
static void shadow_save(struct file *file, sqlite3_int64 from, sqlite3_int64 to)
{
    struct shadow *shadow = file->shadow;

    if (!shadow->is_dirty) {
        if (file->real->pMethods->xFileSize(file->real, &shadow->synced_bytes) != SQLITE_OK)
            die("crash_vfs: %s has no size", shadow->path);
        shadow->is_dirty = true;
    }
    for (sqlite3_int64 n = from / SECTOR; n * SECTOR < to; n++) {
        struct saved **bucket = &shadow->saved[n % BUCKETS], *saved;

        for (saved = *bucket; saved && saved->number != n; saved = saved->next)
            ;
        if (saved)
            continue;
        saved = new0(struct saved);
        saved->number = n;
        saved->is_beyond = n * SECTOR >= shadow->synced_bytes;
        if (!saved->is_beyond) /* SQLITE_IOERR_SHORT_READ fills the rest with zeroes */
            file->real->pMethods->xRead(file->real, saved->bytes, SECTOR, n * SECTOR);
        saved->next = *bucket;
        *bucket = saved;
    }
}

/* ---- losing power ---- */

static void lose(struct shadow *shadow, struct random *random)
{
    /* Of ten sectors so many are lost: none or all of them are the most interesting cases. */
    uint64_t lost_of_10 = (uint64_t[]){0, 10, 5, 1, 9}[random_below(random, 5)];
    bool is_end_lost = random_below(random, 2);
    int fd;

    if (!shadow->is_dirty)
        return;
    fd = open(shadow->path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return; /* was deleted */
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct saved *saved = shadow->saved[i]; saved; saved = saved->next)
            if (random_below(random, 10) < lost_of_10
                && pwrite(fd, saved->bytes, SECTOR, saved->number * SECTOR) != SECTOR)
                die("crash_vfs: cannot put back %s", shadow->path);
    if (is_end_lost && lost_of_10 > 0 && ftruncate(fd, shadow->synced_bytes) < 0)
        die("crash_vfs: cannot cut %s", shadow->path);
    close(fd);
}

static _noreturn_ void crash_locked(uint64_t seed, int status)
{
    struct seeded_random seeded;

    seeded_random_init(&seeded, seed);
    for (struct shadow *shadow = shadows; shadow; shadow = shadow->next)
        lose(shadow, &seeded.random);
    _exit(status);
}

void crash_vfs_crash(uint64_t seed, int status)
{
    pthread_mutex_lock(&mutex);
    crash_locked(seed, status);
}

void crash_vfs_crash_after(uint64_t operations, uint64_t seed, int status)
{
    pthread_mutex_lock(&mutex);
    crash_after = operations;
    crash_seed = seed;
    crash_status = status;
    pthread_mutex_unlock(&mutex);
}

void crash_vfs_fail_syncs(uint64_t after)
{
    pthread_mutex_lock(&mutex);
    fail_syncs_after = after;
    do_syncs_fail = false;
    pthread_mutex_unlock(&mutex);
}

void crash_vfs_fill_disk(bool is_full)
{
    pthread_mutex_lock(&mutex);
    is_disk_full = is_full;
    pthread_mutex_unlock(&mutex);
}

uint64_t crash_vfs_syncs(void)
{
    uint64_t n;

    pthread_mutex_lock(&mutex);
    n = syncs;
    pthread_mutex_unlock(&mutex);
    return n;
}

static void operation_begin(void)
{
    pthread_mutex_lock(&mutex);
    if (crash_after > 0 && --crash_after == 0)
        crash_locked(crash_seed, crash_status);
}

static int operation_end(int r)
{
    pthread_mutex_unlock(&mutex);
    return r;
}

/* ---- files ---- */

static int do_write(sqlite3_file *base, const void *bytes, int count, sqlite3_int64 at)
{
    struct file *file = file_of(base);
    sqlite3_int64 size = 0;

    operation_begin();
    if (is_disk_full && file->real->pMethods->xFileSize(file->real, &size) == SQLITE_OK
        && at + count > size)
        return operation_end(SQLITE_FULL);
    if (file->shadow)
        shadow_save(file, at, at + count);
    return operation_end(file->real->pMethods->xWrite(file->real, bytes, count, at));
}

static int do_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct file *file = file_of(base);
    sqlite3_int64 old = 0;

    operation_begin();
    file->real->pMethods->xFileSize(file->real, &old);
    if (file->shadow && size < old)
        shadow_save(file, size, old);
    return operation_end(file->real->pMethods->xTruncate(file->real, size));
}

/* The kernel's part of a sync is left out: what counts here is what the layer calls synced. */
static int do_sync(sqlite3_file *base, int flags)
{
    struct file *file = file_of(base);

    (void) flags;
    operation_begin();
    syncs++;
    if (fail_syncs_after > 0 && --fail_syncs_after == 0)
        do_syncs_fail = true;
    if (do_syncs_fail)
        return operation_end(SQLITE_IOERR_FSYNC);
    if (file->shadow)
        shadow_forget(file->shadow);
    return operation_end(SQLITE_OK);
}

static int do_close(sqlite3_file *base)
{
    struct file *file = file_of(base);
    int r;

    pthread_mutex_lock(&mutex);
    r = file->real->pMethods->xClose(file->real);
    if (file->shadow)
        file->shadow->users--; /* what it has not synced may still be lost */
    return operation_end(r);
}

/* Nobody reads what a crash is just putting back. */
static int do_read(sqlite3_file *base, void *out, int count, sqlite3_int64 at)
{
    pthread_mutex_lock(&mutex);
    return operation_end(file_of(base)->real->pMethods->xRead(file_of(base)->real, out, count, at));
}

static int do_size(sqlite3_file *base, sqlite3_int64 *ret)
{
    return file_of(base)->real->pMethods->xFileSize(file_of(base)->real, ret);
}

static int do_lock(sqlite3_file *base, int level)
{
    return file_of(base)->real->pMethods->xLock(file_of(base)->real, level);
}

static int do_unlock(sqlite3_file *base, int level)
{
    return file_of(base)->real->pMethods->xUnlock(file_of(base)->real, level);
}

static int do_check_lock(sqlite3_file *base, int *ret)
{
    return file_of(base)->real->pMethods->xCheckReservedLock(file_of(base)->real, ret);
}

static int do_control(sqlite3_file *base, int op, void *arg)
{
    return file_of(base)->real->pMethods->xFileControl(file_of(base)->real, op, arg);
}

static int do_sector_size(sqlite3_file *base)
{
    (void) base;
    return SECTOR;
}

/* No promises: neither atomic writes nor writes in order. */
static int do_characteristics(sqlite3_file *base)
{
    (void) base;
    return 0;
}

static int do_shm_map(sqlite3_file *base, int page, int bytes, int extend, void volatile **ret)
{
    return file_of(base)->real->pMethods->xShmMap(file_of(base)->real, page, bytes, extend, ret);
}

static int do_shm_lock(sqlite3_file *base, int offset, int n, int flags)
{
    return file_of(base)->real->pMethods->xShmLock(file_of(base)->real, offset, n, flags);
}

static void do_shm_barrier(sqlite3_file *base)
{
    file_of(base)->real->pMethods->xShmBarrier(file_of(base)->real);
}

static int do_shm_unmap(sqlite3_file *base, int delete_it)
{
    return file_of(base)->real->pMethods->xShmUnmap(file_of(base)->real, delete_it);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2, /* not 3: no memory mapping, which would write past us */
    .xClose = do_close,
    .xRead = do_read,
    .xWrite = do_write,
    .xTruncate = do_truncate,
    .xSync = do_sync,
    .xFileSize = do_size,
    .xLock = do_lock,
    .xUnlock = do_unlock,
    .xCheckReservedLock = do_check_lock,
    .xFileControl = do_control,
    .xSectorSize = do_sector_size,
    .xDeviceCharacteristics = do_characteristics,
    .xShmMap = do_shm_map,
    .xShmLock = do_shm_lock,
    .xShmBarrier = do_shm_barrier,
    .xShmUnmap = do_shm_unmap,
};

static int do_open(sqlite3_vfs *self, const char *path, sqlite3_file *base, int flags,
                   int *ret_flags)
{
    struct file *file = file_of(base);
    int r;

    (void) self;
    pthread_mutex_lock(&mutex);
    memset(file, 0, sizeof *file);
    file->real = (sqlite3_file *) (file + 1);
    r = real_vfs->xOpen(real_vfs, path, file->real, flags, ret_flags);
    if (r == SQLITE_OK) {
        file->base.pMethods = &methods;
        if (path)
            file->shadow = shadow_open(path);
    }
    return operation_end(r);
}

static int do_delete(sqlite3_vfs *self, const char *path, int sync_directory)
{
    (void) self;
    operation_begin();
    for (struct shadow *shadow = shadows; shadow; shadow = shadow->next)
        if (streq(shadow->path, path))
            shadow_forget(shadow);
    return operation_end(real_vfs->xDelete(real_vfs, path, sync_directory));
}

void crash_vfs_register(void)
{
    if (real_vfs)
        return;
    real_vfs = sqlite3_vfs_find(NULL);
    vfs = *real_vfs; /* all else is the real one's; its own data goes along in pAppData */
    vfs.szOsFile = (int) sizeof(struct file) + real_vfs->szOsFile;
    vfs.zName = CRASH_VFS;
    vfs.pNext = NULL;
    vfs.xOpen = do_open;
    vfs.xDelete = do_delete;
    if (sqlite3_vfs_register(&vfs, 0) != SQLITE_OK)
        die("crash_vfs: cannot register");
}
