/* storage_bases.c - what qcow2 disks rest on: who may take a base away, and when
 *
 *     a.qcow2 --+
 *               +--> b.base.qcow2 --> c.base.qcow2      a clone makes a base (storage_clone.c); it goes with the last disk
 *     b.qcow2 --+                                       that rests on it
 *
 * Nobody counts: which bases are needed stands in the heads of the files, so it is looked up. While somebody looks, nobody may
 * give a disk another base, or a base would be taken for one that nothing rests on since its disk was read after the change
 * and the new file listed before it. So whoever takes bases away holds the directory's lock alone, and whoever puts disks on
 * them holds it together with others. It is a lock on a file of the directory: several hosts may see that, and it goes with
 * the process that holds it.
 *
 * An agent that dies between a disk's end and its base's leaves a base that no operation will ask for again: a scan of the SR
 * finds it. Only those are removed that are named as ours, after a uuid. */
#include "slave/storage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "shared/log.h"

#define LOCK_FILE ".drover-bases.lock"

static bool ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), end_length = strlen(end);

    return length > end_length && streq(name + length - end_length, end);
}

static bool is_base(const char *name)
{
    return ends_with(name, ".base.qcow2") && !strchr(name, '/');
}

int bases_lock(int dir, enum bases_lock how)
{
    struct flock all = {.l_type = how == BASES_TAKE_AWAY ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    int fd = openat(dir, LOCK_FILE, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644), r;

    if (fd < 0)
        return -errno;
    do
        r = fcntl(fd, F_OFD_SETLKW, &all);
    while (r < 0 && errno == EINTR);
    if (r < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

/* Does any file of the directory rest on this base? When nobody can say, yes. */
static bool is_needed(int dir, const char *base)
{
    DIR *list = dir_list(dir);
    struct dirent *entry;
    bool is_found = false;

    if (!list)
        return true;
    while (!is_found && (entry = readdir(list))) {
        struct disk_facts facts;
        int r;

        if (!ends_with(entry->d_name, ".qcow2"))
            continue;
        r = disk_facts(dir, entry->d_name, "qcow2", &facts);
        is_found = r < 0 ? r != -ENOENT : streq(facts.backing, base);
    }
    closedir(list);
    return is_found;
}

void bases_drop(int dir, const char *base)
{
    struct disk_facts facts = {0};
    _cleanup_(close_fd) int lock = -1;

    if (!is_base(base) || (faccessat(dir, base, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT))
        return;
    lock = bases_lock(dir, BASES_TAKE_AWAY);
    if (lock < 0) {
        log_warning(NULL, "%s stays, needed or not: its directory cannot be locked: %s", base, strerror(-lock));
        return;
    }
    snprintf(facts.backing, sizeof facts.backing, "%s", base);
    while (facts.backing[0]) {
        char name[DISK_NAME_BYTES];

        snprintf(name, sizeof name, "%s", facts.backing);
        if (!is_base(name) || is_needed(dir, name))
            break;
        if (disk_facts(dir, name, "qcow2", &facts) < 0)
            facts.backing[0] = '\0';
        unlinkat(dir, name, 0);
    }
}

/* ---- what was left ---- */

struct names {
    char (*names)[DISK_NAME_BYTES];
    size_t count, room;
};

static void add_name(struct names *names, const char *name)
{
    if (names->count == names->room) {
        names->room = MAX(2 * names->room, (size_t) 64);
        names->names = realloc_array(names->names, names->room, sizeof *names->names);
    }
    snprintf(names->names[names->count++], sizeof *names->names, "%s", name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

static bool is_named_after_uuid(const char *base)
{
    ref_t uuid;

    return strlen(base) == UUID_TEXT_BYTES - 1 + strlen(".base.qcow2") && uuid_parse(base, UUID_TEXT_BYTES - 1, &uuid);
}

void bases_sweep(int dir)
{
    struct names needed = {0}, bases = {0};
    DIR *list = dir_list(dir);
    struct dirent *entry;
    bool is_complete = list;

    while (is_complete && (entry = readdir(list))) {
        struct disk_facts facts;
        int r;

        if (!ends_with(entry->d_name, ".qcow2"))
            continue;
        if (is_base(entry->d_name) && is_named_after_uuid(entry->d_name))
            add_name(&bases, entry->d_name);
        r = disk_facts(dir, entry->d_name, "qcow2", &facts);
        is_complete = r == 0 || r == -ENOENT;
        if (r == 0 && facts.backing[0])
            add_name(&needed, facts.backing);
    }
    if (list)
        closedir(list);
    if (needed.count > 0)
        qsort(needed.names, needed.count, sizeof *needed.names, compare_names);
    /* Without the lock this is only a guess; bases_drop() looks again, with it. */
    for (size_t i = 0; is_complete && i < bases.count; i++)
        if (needed.count == 0
            || !bsearch(bases.names[i], needed.names, needed.count, sizeof *needed.names, compare_names))
            bases_drop(dir, bases.names[i]);
    free(needed.names);
    free(bases.names);
}
