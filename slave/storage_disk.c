/* storage_disk.c - disks: create, clone, copy, resize, destroy
 *
 * A clone shares blocks with its source where the file system can (reflink). Where it cannot, a qcow2 disk is split:
 *
 *     a.qcow2                 becomes        a.qcow2 --+
 *                                                      +--> a-<id>.base.qcow2   (the old file, never written again)
 *                                            b.qcow2 --+
 *
 * with the backing file's format always stated. A base goes with the last disk that rests on it. A raw disk is copied, its
 * holes left out. Everything is fsynced, names included, before it is answered. */
#include "slave/storage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/log.h"

/* What a worker does; paths and names are the op's. */
struct disk_job {
    struct op *op;
    const char *directory, *to_directory;
    const char *source, *name, *format;
    int64_t virtual_size;
    int error;
    char text[256];              /* of qemu-img */
    struct disk_facts facts;     /* [out] of the disk that was made or changed */
};

static int disk_failed(struct op *op, const struct disk_job *job)
{
    const char *why = job->text[0] ? job->text : strerror(-job->error);

    if (job->error == -ENOSPC || job->error == -EDQUOT)
        return op_fail(op, SR_FULL, op_text(op, "%lld", (long long) job->virtual_size), "0");
    if (job->error == -ENOENT && !job->text[0])
        return op_fail(op, VDI_LOCATION_MISSING, job->directory, job->source ? job->source : job->name);
    return op_fail(op, SR_BACKEND_FAILURE, op_text(op, "%d", -job->error), "",
                   op_text(op, "%s: %s", job->name, why));
}

/* The SR's directory and type; *ret_is_dummy has nothing to be done. */
static int read_directory(struct op *op, const struct value *sr, const char **ret, bool *ret_is_dummy)
{
    const char *type = value_map_text(sr, "type", ""), *directory = value_map_text(sr, "location", "");

    *ret_is_dummy = streq(type, "dummy");
    *ret = directory;
    if (*ret_is_dummy)
        return 0;
    if (!streq(type, "file") && !streq(type, "shared-file"))
        return op_fail(op, SR_UNKNOWN_DRIVER, type);
    if (directory[0] != '/' || strlen(directory) > 200)
        return op_fail(op, INVALID_VALUE, "location", directory);
    return 0;
}

static int check_name(struct op *op, const char *name)
{
    if (!storage_name_is_good(name) || !storage_format_of(name, false))
        return op_fail(op, INVALID_VALUE, "location", name);
    return 0;
}

static int run_job(struct op *op, void (*fn)(void *arg), struct disk_job *job)
{
    int r = op_work(op, fn, job);

    if (r < 0)
        return r;
    return job->error < 0 ? disk_failed(op, job) : 0;
}

static struct value answer(struct op *op, const struct disk_job *job)
{
    return op_map(op, "location", job->name, "format", job->format, "virtual_size",
                  op_text(op, "%lld", (long long) job->facts.virtual_size), "physical_utilisation",
                  op_text(op, "%lld", (long long) job->facts.physical_utilisation), NULL);
}

/* In a dummy SR everything is true that the master says. */
static struct value dummy_answer(struct op *op, const char *name, int64_t virtual_size)
{
    struct disk_job job = {.name = name, .format = "raw", .facts = {.virtual_size = virtual_size}};

    return answer(op, &job);
}

/* Run by a worker, with the directory open. */
static void in_directory(struct disk_job *job, int (*fn)(struct disk_job *job, int dir))
{
    _cleanup_(close_fd) int dir = dir_open(job->directory);

    job->error = dir < 0 ? dir : fn(job, dir);
}

/* ---- create ---- */

static int sync_name(int dir, const char *name)
{
    _cleanup_(close_fd) int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 || fsync(fd) < 0 || fsync(dir) < 0 ? -errno : 0;
}

static int create_in(struct disk_job *job, int dir)
{
    int r;

    if (job->op->is_repeated && disk_facts(dir, job->name, job->format, &job->facts) == 0
        && job->facts.virtual_size == job->virtual_size)
        return sync_name(dir, job->name); /* made before the agent was restarted; names are drawn anew for each disk */
    if (job->op->is_repeated)
        unlinkat(dir, job->name, 0);
    if (streq(job->format, "raw")) {
        r = disk_make_raw(dir, job->name, job->virtual_size);
    } else if (faccessat(dir, job->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        r = -EEXIST;
    } else {
        char size[32];
        const char *arguments[] = {"create", "-q", "-f", "qcow2", job->name, size, NULL};

        snprintf(size, sizeof size, "%lld", (long long) job->virtual_size);
        r = qemu_img(job->directory, job->text, arguments);
        if (r == 0)
            r = sync_name(dir, job->name);
        else
            unlinkat(dir, job->name, 0);
    }
    return r < 0 ? r : disk_facts(dir, job->name, job->format, &job->facts);
}

static void create_job(void *arg)
{
    in_directory(arg, create_in);
}

int do_disk_create(struct op *op, const struct slave_disk_create_args *args, struct value *ret)
{
    struct disk_job job = {
        .op = op, .name = args->location, .format = args->format, .virtual_size = args->virtual_size};
    bool is_dummy;
    int r = read_directory(op, args->sr, &job.directory, &is_dummy);

    if (r == 0)
        r = check_name(op, job.name);
    if (r < 0)
        return r;
    if (args->virtual_size < 0)
        return op_fail(op, INVALID_VALUE, "virtual_size", op_text(op, "%lld", (long long) args->virtual_size));
    if (!streq(storage_format_of(job.name, false), job.format))
        return op_fail(op, INVALID_VALUE, "format", job.format);
    if (is_dummy) {
        *ret = dummy_answer(op, job.name, args->virtual_size);
        return 0;
    }
    r = run_job(op, create_job, &job);
    if (r == 0)
        *ret = answer(op, &job);
    return r;
}

/* ---- clone ---- */

/* An overlay `name` on `base`, under another name first, so that it is there as a whole or not at all. */
static int make_overlay(struct disk_job *job, int dir, const char *base, const char *name)
{
    char draft[300];
    const char *arguments[] = {"create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, draft, NULL};
    int r;

    snprintf(draft, sizeof draft, ".%s.draft", name);
    unlinkat(dir, draft, 0);
    r = qemu_img(job->directory, job->text, arguments);
    if (r == 0)
        r = sync_name(dir, draft);
    if (r == 0 && renameat(dir, draft, dir, name) < 0)
        r = -errno;
    if (r == 0 && fsync(dir) < 0)
        r = -errno;
    if (r < 0)
        unlinkat(dir, draft, 0);
    return r;
}

static int split(struct disk_job *job, int dir)
{
    char base[300];
    int r;

    /* The base's name comes from the operation: a repeated one finds what it had made. */
    snprintf(base, sizeof base, "%.100s-%s.base.qcow2", job->source, job->op->id_text);
    if (linkat(dir, job->source, dir, base, 0) == 0) {
        r = make_overlay(job, dir, base, job->source); /* takes over the name; the old file keeps the base's */
        if (r < 0)
            unlinkat(dir, base, 0);
    } else {
        struct disk_facts facts;

        if (errno != EEXIST)
            return -errno;
        r = disk_facts(dir, job->source, "qcow2", &facts);
        if (r == 0 && !streq(facts.backing, base))
            r = make_overlay(job, dir, base, job->source);
    }
    return r < 0 ? r : make_overlay(job, dir, base, job->name);
}

static int clone_in(struct disk_job *job, int dir)
{
    struct disk_facts facts;
    int r = disk_facts(dir, job->source, job->format, &facts);

    if (r < 0)
        return r;
    job->virtual_size = facts.virtual_size;
    if (job->op->is_repeated)
        unlinkat(dir, job->name, 0);
    r = disk_reflink(dir, job->source, dir, job->name);
    if (r == -EOPNOTSUPP)
        r = streq(job->format, "qcow2") ? split(job, dir) : disk_copy_sparse(dir, job->source, dir, job->name);
    return r < 0 ? r : disk_facts(dir, job->name, job->format, &job->facts);
}

static void clone_job(void *arg)
{
    in_directory(arg, clone_in);
}

static int check_pair(struct op *op, const char *source, const char *name)
{
    int r = check_name(op, source);

    if (r == 0)
        r = check_name(op, name);
    if (r == 0 && !streq(storage_format_of(source, false), storage_format_of(name, false)))
        r = op_fail(op, INVALID_VALUE, "location", name);
    if (r == 0 && streq(source, name))
        r = op_fail(op, INVALID_VALUE, "location", name);
    return r;
}

int do_disk_clone(struct op *op, const struct slave_disk_clone_args *args, struct value *ret)
{
    struct disk_job job = {.op = op, .source = args->source, .name = args->location};
    bool is_dummy;
    int r = read_directory(op, args->sr, &job.directory, &is_dummy);

    if (r == 0)
        r = check_pair(op, job.source, job.name);
    if (r < 0)
        return r;
    if (is_dummy) {
        *ret = dummy_answer(op, job.name, 0);
        return 0;
    }
    job.format = storage_format_of(job.source, false);
    r = run_job(op, clone_job, &job);
    if (r == 0)
        *ret = answer(op, &job);
    return r;
}

/* ---- copy ---- */

static int copy_in(struct disk_job *job, int dir)
{
    _cleanup_(close_fd) int to_dir = dir_open(job->to_directory);
    struct disk_facts facts;
    int r;

    if (to_dir < 0)
        return to_dir;
    r = disk_facts(dir, job->source, job->format, &facts);
    if (r < 0)
        return r;
    job->virtual_size = facts.virtual_size;
    if (job->op->is_repeated)
        unlinkat(to_dir, job->name, 0);
    if (streq(job->format, "raw")) {
        r = disk_copy_sparse(dir, job->source, to_dir, job->name);
    } else if (faccessat(to_dir, job->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        r = -EEXIST;
    } else {
        char to[512];
        const char *arguments[] = {"convert", "-q", "-f", "qcow2", "-O", "qcow2", job->source, to, NULL};

        snprintf(to, sizeof to, "%s/%s", job->to_directory, job->name);
        r = qemu_img(job->directory, job->text, arguments);
        if (r == 0)
            r = sync_name(to_dir, job->name);
        else
            unlinkat(to_dir, job->name, 0);
    }
    return r < 0 ? r : disk_facts(to_dir, job->name, job->format, &job->facts);
}

static void copy_job(void *arg)
{
    in_directory(arg, copy_in);
}

int do_disk_copy(struct op *op, const struct slave_disk_copy_args *args, struct value *ret)
{
    struct disk_job job = {.op = op, .source = args->source, .name = args->location};
    bool is_dummy, is_to_dummy;
    int r = read_directory(op, args->sr, &job.directory, &is_dummy);

    if (r == 0)
        r = read_directory(op, args->to_sr, &job.to_directory, &is_to_dummy);
    if (r == 0)
        r = check_name(op, job.source);
    if (r == 0)
        r = check_name(op, job.name);
    if (r == 0 && !streq(storage_format_of(job.source, false), storage_format_of(job.name, false)))
        r = op_fail(op, INVALID_VALUE, "location", job.name);
    if (r < 0)
        return r;
    if (is_dummy && is_to_dummy) {
        *ret = dummy_answer(op, job.name, 0);
        return 0;
    }
    if (is_dummy || is_to_dummy)
        return op_fail(op, SR_BACKEND_FAILURE, "95", "", "a dummy SR has no data");
    job.format = storage_format_of(job.source, false);
    r = run_job(op, copy_job, &job);
    if (r == 0)
        *ret = answer(op, &job);
    return r;
}

/* ---- resize ---- */

static int resize_in(struct disk_job *job, int dir)
{
    int r = disk_facts(dir, job->name, job->format, &job->facts);

    if (r < 0)
        return r;
    if (job->virtual_size < job->facts.virtual_size)
        return -EINVAL; /* data would be lost */
    if (streq(job->format, "raw")) {
        _cleanup_(close_fd) int fd = openat(dir, job->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0 || ftruncate(fd, job->virtual_size) < 0 || fsync(fd) < 0)
            r = -errno;
    } else if (job->virtual_size > job->facts.virtual_size) {
        char size[32];
        const char *arguments[] = {"resize", "-q", "-f", "qcow2", job->name, size, NULL};

        snprintf(size, sizeof size, "%lld", (long long) job->virtual_size);
        r = qemu_img(job->directory, job->text, arguments);
        if (r == 0)
            r = sync_name(dir, job->name);
    }
    return r < 0 ? r : disk_facts(dir, job->name, job->format, &job->facts);
}

static void resize_job(void *arg)
{
    in_directory(arg, resize_in);
}

int do_disk_resize(struct op *op, const struct slave_disk_resize_args *args, struct value *ret)
{
    struct disk_job job = {.op = op, .name = args->location, .virtual_size = args->virtual_size};
    bool is_dummy;
    int r = read_directory(op, args->sr, &job.directory, &is_dummy);

    if (r == 0)
        r = check_name(op, job.name);
    if (r < 0)
        return r;
    if (is_dummy) {
        *ret = dummy_answer(op, job.name, args->virtual_size);
        return 0;
    }
    job.format = storage_format_of(job.name, false);
    r = run_job(op, resize_job, &job);
    if (r == 0)
        *ret = answer(op, &job);
    return r;
}

/* ---- destroy ---- */

/* Does any file of the directory rest on this base? When nobody can say, yes. */
static bool is_needed(int dir, const char *base)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    bool is_found = false;

    if (!list)
        return true;
    while (!is_found && (entry = readdir(list))) {
        size_t length = strlen(entry->d_name);
        struct disk_facts facts;
        int r;

        if (length < 6 || !streq(entry->d_name + length - 6, ".qcow2"))
            continue;
        r = disk_facts(dir, entry->d_name, "qcow2", &facts);
        is_found = r < 0 ? r != -ENOENT : streq(facts.backing, base);
    }
    closedir(list);
    return is_found;
}

static int destroy_in(struct disk_job *job, int dir)
{
    struct disk_facts facts = {0};
    char name[300], owner[300];

    snprintf(name, sizeof name, "%s", job->name);
    snprintf(owner, sizeof owner, "%s.owner", job->name);
    (void) disk_facts(dir, name, job->format, &facts); /* also of a broken one: it goes anyway */
    if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
        return -errno;
    unlinkat(dir, owner, 0);
    while (facts.backing[0]) {
        size_t length = strlen(facts.backing);

        snprintf(name, sizeof name, "%s", facts.backing);
        if (strchr(name, '/') || length < 11 || !streq(name + length - 11, ".base.qcow2") || is_needed(dir, name))
            break;
        if (disk_facts(dir, name, "qcow2", &facts) < 0)
            facts.backing[0] = '\0';
        unlinkat(dir, name, 0);
    }
    return fsync(dir) < 0 ? -errno : 0;
}

static void destroy_job(void *arg)
{
    in_directory(arg, destroy_in);
}

int do_disk_destroy(struct op *op, const struct slave_disk_destroy_args *args, struct value *ret)
{
    struct disk_job job = {.op = op, .name = args->location};
    bool is_dummy;
    int r = read_directory(op, args->sr, &job.directory, &is_dummy);

    (void) ret;
    if (r == 0)
        r = check_name(op, job.name);
    if (r < 0 || is_dummy)
        return r;
    job.format = storage_format_of(job.name, false);
    return run_job(op, destroy_job, &job);
}
