/* journal_room.c - free space: writes are refused before the disk is full
 *
 *   free space   |==============================|--------------|----------|
 *                         all is well             min: no new    half of it: the
 *                                                 writes begin   ballast is let go
 *
 * A commit that fails for lack of space ends the master, so it must not come to that. Below the
 * floor no write is begun; those under way, folding and checkpoints still have the rest. If others
 * fill the disk meanwhile, a file that was set aside, the ballast, is deleted. Room comes back,
 * ballast first, when there is half as much again as the floor, so that it does not flap. */
#include "master/journal_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/log.h"

/* A look at the file system costs a microsecond, but says nothing new more often than that. */
#define CHECK_INTERVAL_MS 100

static uint64_t free_bytes(struct journal *journal)
{
    struct statvfs status;

    if (journal->config.free_bytes)
        return journal->config.free_bytes(journal->config.free_arg);
    if (statvfs(journal->directory, &status) < 0)
        return 0;
    return (uint64_t) status.f_bavail * status.f_frsize;
}

static void ballast_take(struct journal *journal)
{
    _cleanup_(free_p) char *path = journal_path(journal->directory, "ballast");
    _cleanup_(close_fd) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    int error = fd < 0 ? errno : posix_fallocate(fd, 0, (off_t) journal->config.ballast_bytes);

    journal->has_ballast = error == 0;
    if (error) {
        log_warning(NULL, "journal: cannot set %llu bytes of ballast aside: %s",
                    (unsigned long long) journal->config.ballast_bytes, strerror(error));
        unlink(path);
    }
}

static void ballast_release(struct journal *journal)
{
    _cleanup_(free_p) char *path = journal_path(journal->directory, "ballast");

    unlink(path);
    journal->has_ballast = false;
    log_warning(NULL, "journal: the disk is nearly full, the ballast is let go");
}

static void judge(struct journal *journal)
{
    uint64_t min = journal->config.room_bytes_min, bytes = free_bytes(journal);
    bool had_room = atomic_load(&journal->has_room);

    journal->free_bytes = bytes;
    if (bytes < min / 2 && journal->has_ballast)
        ballast_release(journal);
    if (!journal->has_ballast && bytes >= min + min / 2 + journal->config.ballast_bytes)
        ballast_take(journal);
    if (had_room && bytes < min) {
        atomic_store(&journal->has_room, false);
        log_error(NULL, "journal: %llu bytes are free, writes are refused below %llu",
                  (unsigned long long) bytes, (unsigned long long) min);
    } else if (!had_room && journal->has_ballast && bytes >= min + min / 2) {
        atomic_store(&journal->has_room, true);
        log_info(NULL, "journal: there is room again: %llu bytes are free",
                 (unsigned long long) bytes);
    }
}

void journal_room_check(struct journal *journal)
{
    uint64_t now_ms = clock_now_ms(clock_real());

    pthread_mutex_lock(&journal->room_mutex);
    if (now_ms - journal->room_checked_ms >= CHECK_INTERVAL_MS || journal->config.free_bytes) {
        journal->room_checked_ms = now_ms;
        judge(journal);
    }
    pthread_mutex_unlock(&journal->room_mutex);
}

void journal_room_init(struct journal *journal)
{
    _cleanup_(free_p) char *path = journal_path(journal->directory, "ballast");

    journal->has_ballast = access(path, F_OK) == 0;
    journal->free_bytes = free_bytes(journal);
    if (!journal->has_ballast
        && journal->free_bytes >= journal->config.room_bytes_min + journal->config.ballast_bytes)
        ballast_take(journal);
    atomic_store(&journal->has_room, journal->free_bytes >= journal->config.room_bytes_min);
}

bool journal_has_room_beside(struct journal *journal, uint64_t bytes)
{
    uint64_t free_now;

    pthread_mutex_lock(&journal->room_mutex);
    free_now = free_bytes(journal);
    pthread_mutex_unlock(&journal->room_mutex);
    return journal_has_room(journal) && free_now >= journal->config.room_bytes_min
           && free_now - journal->config.room_bytes_min >= bytes;
}

bool journal_has_room(struct journal *journal)
{
    return atomic_load(&journal->has_room);
}
