/* storage_clone.c - a disk from another one, also while a guest has that open
 *
 * Where the file system can, the two files share their blocks (reflink). Where it cannot, a qcow2 disk is split:
 *
 *     a.qcow2                 becomes        a.qcow2 --+
 *                                                      +--> b.base.qcow2   (the old file, never written again)
 *                                            b.qcow2 --+
 *
 * with the backing file's format always stated. A raw disk, and a qcow2 disk at the end of a long chain, is copied, its holes
 * left out.
 *
 * Three steps, because a running guest stands still for the second one, and that is to be short:
 *
 *   prepare   finds the way; makes the overlay that is to be a.qcow2, under a hidden name
 *   take      reflink; or: the old file gets the base's name as well, the overlay takes over a.qcow2's; or the copy
 *   finish    makes b.qcow2 over the base
 *
 * The name a.qcow2 stays, and with it what the pool's records, the owner record beside the disk and the next start say of it.
 * A guest that has the old file open would go on writing to the base: its driver opens the disk anew (hypervisor.h) before the
 * guest goes on. If that does not happen because everything dies in between, nothing is lost: the overlay is empty, so what the
 * guest writes to the base is what a reader of a.qcow2 sees, and b.qcow2 is not there yet, or is taken back by the master.
 *
 * The base is named after the clone, whose name the master draws anew for each: a step that is repeated finds what it had made,
 * and destroying b.qcow2, half made or not, finds the base. Everything is fsynced, names included. */
#include "slave/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bases under a disk: each costs whoever opens the disk a file, and a look into it for each block that it does not have. */
#define CHAIN_MAX 60

bool disk_clone_base(const char *name, char ret_base[DISK_NAME_BYTES])
{
    size_t length = strlen(name), end = strlen(".qcow2");

    if (length <= end || length > 240 || !streq(name + length - end, ".qcow2"))
        return false;
    snprintf(ret_base, DISK_NAME_BYTES, "%.*s.base.qcow2", (int) (length - end), name);
    return true;
}

/* The overlay that will be the source. */
static void over_name(const char *name, char ret[DISK_NAME_BYTES])
{
    snprintf(ret, DISK_NAME_BYTES, ".%.250s.over", name);
}

/* The clone, before it is whole. */
static void draft_name(const char *name, char ret[DISK_NAME_BYTES])
{
    snprintf(ret, DISK_NAME_BYTES, ".%.250s.draft", name);
}

void disk_clone_sweep(int dir, const char *name)
{
    char hidden[DISK_NAME_BYTES];

    over_name(name, hidden);
    unlinkat(dir, hidden, 0);
    draft_name(name, hidden);
    unlinkat(dir, hidden, 0);
}

static bool is_there(int dir, const char *name)
{
    return faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Has `take` split the source already? */
static bool is_split(int dir, const struct disk_clone *clone)
{
    char base[DISK_NAME_BYTES];
    struct disk_facts facts;

    return disk_clone_base(clone->name, base) && is_there(dir, base)
           && disk_facts(dir, clone->source, clone->format, &facts) == 0 && streq(facts.backing, base);
}

static int chain_length(int dir, const char *name)
{
    struct disk_facts facts;
    char at[DISK_NAME_BYTES];
    int length = 0;

    snprintf(at, sizeof at, "%s", name);
    while (length < CHAIN_MAX && disk_facts(dir, at, "qcow2", &facts) == 0 && facts.backing[0]) {
        snprintf(at, sizeof at, "%s", facts.backing);
        length++;
    }
    return length;
}

/* Which way, if this directory has no reflinks? */
static enum clone_way way_without_reflink(int dir, const struct disk_clone *clone)
{
    char base[DISK_NAME_BYTES];

    return streq(clone->format, "qcow2") && disk_clone_base(clone->name, base)
                   && chain_length(dir, clone->source) < CHAIN_MAX
               ? CLONE_SPLIT
               : CLONE_COPY;
}

/* An overlay on a base that may still be missing. It appears as a whole: under a hidden name, synced. */
static int make_overlay(int dir, struct disk_clone *clone, const char *base, int64_t virtual_size, const char *hidden)
{
    char size[32];
    const char *arguments[] = {"create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, hidden, size, NULL};
    int r;

    snprintf(size, sizeof size, "%lld", (long long) virtual_size);
    unlinkat(dir, hidden, 0);
    r = qemu_img(clone->place.directory, clone->text, arguments);
    if (r == 0)
        r = disk_sync(dir, hidden);
    if (r < 0)
        unlinkat(dir, hidden, 0);
    return r;
}

int disk_clone_prepare(int dir, struct disk_clone *clone)
{
    char hidden[DISK_NAME_BYTES], base[DISK_NAME_BYTES];
    struct disk_facts facts;
    int r = disk_facts(dir, clone->source, clone->format, &facts);

    if (r < 0)
        return r;
    clone->facts.virtual_size = facts.virtual_size; /* for a failure's text */
    if (is_split(dir, clone)) {
        clone->way = CLONE_SPLIT;
        clone->was_split = true;
        return 0;
    }
    draft_name(clone->name, hidden);
    unlinkat(dir, hidden, 0);
    r = disk_reflink(dir, clone->source, dir, hidden);
    unlinkat(dir, hidden, 0);
    clone->way = r == -EOPNOTSUPP ? way_without_reflink(dir, clone) : CLONE_REFLINK;
    if (r < 0 && r != -EOPNOTSUPP)
        return r;
    if (clone->way != CLONE_SPLIT)
        return 0;
    over_name(clone->name, hidden);
    disk_clone_base(clone->name, base);
    return make_overlay(dir, clone, base, facts.virtual_size, hidden);
}

static int take_split(int dir, struct disk_clone *clone)
{
    _cleanup_(close_fd) int lock = bases_lock(dir, BASES_PUT_ON);
    char hidden[DISK_NAME_BYTES], base[DISK_NAME_BYTES];
    struct stat old, found;

    if (lock < 0)
        return lock;
    disk_clone_base(clone->name, base);
    over_name(clone->name, hidden);
    if (is_split(dir, clone))
        return 0;
    if (linkat(dir, clone->source, dir, base, 0) < 0) {
        int link_errno = errno;

        /* Interrupted between the two names: the base is the source still. */
        if (link_errno != EEXIST || fstatat(dir, clone->source, &old, AT_SYMLINK_NOFOLLOW) < 0
            || fstatat(dir, base, &found, AT_SYMLINK_NOFOLLOW) < 0 || old.st_ino != found.st_ino)
            return -link_errno;
    }
    /* The base's name is on the disk before anything rests on it. */
    if (fsync(dir) < 0 || renameat(dir, hidden, dir, clone->source) < 0 || fsync(dir) < 0)
        return -errno;
    return 0;
}

static int take_copy(int dir, struct disk_clone *clone)
{
    const char *arguments[] = {"convert", "-q",          "-U",        "-f", "qcow2",
                               "-O",      clone->format, clone->source, clone->name, NULL};
    int r;

    if (streq(clone->format, "raw"))
        return disk_copy_sparse(dir, clone->source, dir, clone->name, clone->stop);
    if (is_there(dir, clone->name))
        return -EEXIST;
    r = qemu_img(clone->place.directory, clone->text, arguments);
    if (r == 0)
        r = disk_sync(dir, clone->name);
    if (r < 0)
        unlinkat(dir, clone->name, 0);
    return r;
}

int disk_clone_take(int dir, struct disk_clone *clone)
{
    assert(clone->way != CLONE_UNDECIDED);
    switch (clone->way) {
    case CLONE_REFLINK:
        return disk_reflink(dir, clone->source, dir, clone->name);
    case CLONE_SPLIT:
        return take_split(dir, clone);
    default:
        return take_copy(dir, clone);
    }
}

int disk_clone_finish(int dir, struct disk_clone *clone)
{
    char hidden[DISK_NAME_BYTES], base[DISK_NAME_BYTES];
    struct disk_facts facts;
    int r;

    if (clone->way == CLONE_SPLIT) {
        _cleanup_(close_fd) int lock = bases_lock(dir, BASES_PUT_ON);

        if (lock < 0)
            return lock;
        disk_clone_base(clone->name, base);
        draft_name(clone->name, hidden);
        r = disk_facts(dir, base, "qcow2", &facts);
        if (r == 0)
            r = make_overlay(dir, clone, base, facts.virtual_size, hidden);
        /* linkat and not renameat: a disk that is there already is nobody's to replace. */
        if (r == 0 && linkat(dir, hidden, dir, clone->name, 0) < 0)
            r = -errno;
        unlinkat(dir, hidden, 0);
        if (r == 0 && fsync(dir) < 0)
            r = -errno;
        if (r < 0)
            return r;
    }
    return disk_facts(dir, clone->name, clone->format, &clone->facts);
}
