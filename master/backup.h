/* backup.h - copies of the store while it runs: one a day, the newest few kept */
#pragma once

#include "master/core.h"

struct backups;

/* Into `directory`, made if missing, one each `interval_h` hours, the first when the newest that is there
 * is so old. Outside of fibers. */
struct backups *backups_start(struct core *, const char *directory, uint64_t interval_h, unsigned keep);
/* After the loop's last turn, before the workers end. */
void backups_destroy(struct backups **);
