/* work_in.h - work on files, counted by where they lie
 *
 * A disk that does not answer keeps each thread that touches it. So at most half of the workers are at one directory at a time;
 * what else is to be done there waits, and the other half is left for the other disks. Whoever needs several directories takes
 * them all at once: one that waits for a directory keeps nobody from another one. */
#pragma once

#include "slave/agent.h"

/* op_work() for a function that touches files in these directories; NULL ones, and the same one again, do not count. Waits until
 * it may, as long as it takes. */
void op_work_in(struct op *, const char *const directories[], size_t count, void (*fn)(void *arg), void *arg);
/* With the directories of paths, each with a newline. */
void op_work_at_paths(struct op *, const char *paths, void (*fn)(void *arg), void *arg);

void work_in_forget(struct worked_in **);
