/* crash_vfs.h - an SQLite file layer that loses what was not synced, as a machine does that loses
 * power
 *
 * kill -9 keeps what was written, since the kernel has it; only this shows a missing sync. The
 * layer lies over SQLite's own. Writes go through to the real file, and for each sector written
 * since the last xSync of its file the synced content is kept. At the crash each such sector, by
 * lot, stays as it was written or goes back to what was synced; so syncs order writes and nothing
 * else does, parts of a page may be old and parts new, and a file's new end may be missing. Then
 * the process ends.
 *
 * What is not played: a file that vanishes because its directory was not synced. */
#pragma once

#include "shared/base.h"

#define CRASH_VFS "crash"

/* Registers the layer under its name, once. */
void crash_vfs_register(void);

/* Any thread: lose power now, then _exit(status). Which sectors survive follows from the seed. */
_noreturn_ void crash_vfs_crash(uint64_t seed, int status);

/* The same at the start of the n-th operation from now on that changes a file or syncs it; 0:
 * never. */
void crash_vfs_crash_after(uint64_t operations, uint64_t seed, int status);

/* From the n-th sync from now on, all syncs fail, and lose what they should have synced only if the
 * power fails; 0: from now on they work again. */
void crash_vfs_fail_syncs(uint64_t after);

/* All writes that make a file longer fail as on a full disk. */
void crash_vfs_fill_disk(bool is_full);

/* Syncs that were asked for. */
uint64_t crash_vfs_syncs(void);
