/* backup.c - copies of the store while it runs
 *
 * A copy is made by SQLite's online backup, in a worker, and opened and checked before it counts
 * (journal_backup). The next one is due when the newest in the directory has reached the interval's
 * age, so a master that is started often makes as many as one that is never; and none makes one in
 * its first minute, when it has more urgent things to do. To restore: stop the master, put the copy in the place of
 * DIR/store, start; the new epoch makes everybody read anew. */
#include "master/backup.h"

#include "master/journal.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/workers.h"

#include <errno.h>
#include <sys/stat.h>

#define HOUR_MS  (3600 * 1000ULL)
#define FIRST_MS (60 * 1000ULL) /* after the start */

struct backups {
    struct core *core;
    char *directory;
    uint64_t interval_ms;
    unsigned keep;
    struct timer timer;
};

struct copy {
    struct backups *backups;
    int result;
    char text[JOURNAL_TEXT_BYTES];
};

static void make_copy(void *arg)
{
    struct copy *copy = arg;
    struct backups *backups = copy->backups;

    if (mkdir(backups->directory, 0700) < 0 && errno != EEXIST) {
        copy->result = -errno;
        return;
    }
    copy->result =
        journal_backup(backups->core->journal, backups->directory, backups->keep, copy->text);
}

static void backup_fiber(void *arg)
{
    struct copy copy = {.backups = arg};

    workers_run(copy.backups->core->workers, make_copy, &copy);
    if (copy.result < 0)
        log_error("backup", "no copy of the store was made in %s: %s", copy.backups->directory,
                  *copy.text ? copy.text : strerror(-copy.result));
    else
        log_info("backup", "a copy of the store was made in %s", copy.backups->directory);
}

static void due(void *arg)
{
    struct backups *backups = arg;

    timer_start(backups->core->loop, &backups->timer, backups->interval_ms, due, backups);
    if (!fiber_spawn(backups->core->loop, backup_fiber, backups, "backup"))
        log_error("backup", "no fiber is free for it");
}

/* How long after the start the first one is due. A copy from the future was made by another clock. */
static uint64_t first_ms(const struct backups *backups)
{
    int64_t age_s =
        clock_utc_s(backups->core->clock) - journal_newest_backup(backups->directory);
    uint64_t interval_s = backups->interval_ms / 1000;
    uint64_t left_s = age_s < 0 || (uint64_t) age_s >= interval_s ? 0 : interval_s - (uint64_t) age_s;

    return MIN(MAX(left_s * 1000, FIRST_MS), backups->interval_ms);
}

struct backups *backups_start(struct core *core, const char *directory, uint64_t interval_h,
                              unsigned keep)
{
    struct backups *backups = new0(struct backups);

    backups->core = core;
    backups->directory = dup_text(directory);
    backups->interval_ms = interval_h * HOUR_MS;
    backups->keep = keep;
    timer_start(core->loop, &backups->timer, first_ms(backups), due, backups);
    return backups;
}

void backups_destroy(struct backups **backups_p)
{
    struct backups *backups = *backups_p;

    if (!backups)
        return;
    timer_stop(&backups->timer);
    free(backups->directory);
    free(backups);
    *backups_p = NULL;
}
