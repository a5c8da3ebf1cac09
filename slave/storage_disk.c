/* storage_disk.c - disks: create, clone, copy, resize, destroy
 *
 * A clone is what storage_clone.c makes of it; what it rests on goes by the rules of storage_bases.c. Everything is fsynced, names
 * included, before it is answered. */
#include "slave/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/log.h"
#include "slave/work_in.h"

/* What a worker does; paths and names are the op's. */
struct disk_job {
    struct op *op;
    int (*fn)(struct disk_job *, int dir); /* with the directory open; returns the error */
    struct sr_place place, to_place;
    const char *source, *name, *format;
    int64_t virtual_size;
    int error;                     /* [out] */
    char text[STORAGE_TEXT_BYTES]; /* [out] more about it, or "" */
    struct disk_facts facts;       /* [out] of the disk that was made or changed */
};

int storage_disk_failed(struct op *op, int error, const char *text, const char *sr, const char *name, int64_t bytes)
{
    if (error == -ENOSPC || error == -EDQUOT)
        return op_fail(op, SR_FULL, op_text(op, "%lld", (long long) bytes), "0");
    if (error == -ENOENT && !text[0])
        return op_fail(op, VDI_LOCATION_MISSING, sr, name);
    return op_fail(op, SR_BACKEND_FAILURE, op_text(op, "%d", -error), "",
                   op_text(op, "%s: %s", name, text[0] ? text : strerror(-error)));
}

static int disk_failed(struct op *op, const struct disk_job *job)
{
    bool is_missing = job->error == -ENOENT && job->source;

    return storage_disk_failed(op, job->error, job->text, job->place.uuid, is_missing ? job->source : job->name,
                               job->virtual_size);
}

int storage_disk_directory(struct op *op, const char *type, const char *directory, bool *ret_is_dummy)
{
    *ret_is_dummy = streq(type, "dummy");
    if (*ret_is_dummy)
        return 0;
    if (!streq(type, "file") && !streq(type, "shared-file"))
        return op_fail(op, SR_UNKNOWN_DRIVER, type);
    if (directory[0] != '/' || strlen(directory) > 200)
        return op_fail(op, INVALID_VALUE, "location", directory);
    return 0;
}

/* Where the SR is; *ret_is_dummy has nothing to be done. */
static int read_place(struct op *op, const struct value *sr, struct sr_place *ret, bool *ret_is_dummy)
{
    *ret = sr_place_of(sr);
    return storage_disk_directory(op, value_map_text(sr, "type", ""), ret->directory, ret_is_dummy);
}

static int check_name(struct op *op, const char *name)
{
    if (!storage_name_is_good(name) || !storage_format_of(name, false))
        return op_fail(op, INVALID_VALUE, "location", name);
    return 0;
}

static void work(void *arg)
{
    struct disk_job *job = arg;
    _cleanup_(close_fd) int dir = sr_open(&job->place, job->text);

    if (job->place.is_unmade && (dir == -ENOENT || dir == -EEXIST))
        return; /* what was not made in another directory need not be removed there */
    job->error = dir < 0 ? dir : job->fn(job, dir);
}

static int run_job(struct op *op, int (*fn)(struct disk_job *, int dir), struct disk_job *job)
{
    job->fn = fn;
    op_work_in(op, (const char *[]){job->place.directory, job->to_place.directory}, 2, work, job);
    return job->error < 0 ? disk_failed(op, job) : 0;
}

struct value storage_disk_answer(struct op *op, const char *name, const char *format, const struct disk_facts *facts)
{
    return op_map(op, "location", name, "format", format, "virtual_size",
                  op_text(op, "%lld", (long long) facts->virtual_size), "physical_utilisation",
                  op_text(op, "%lld", (long long) facts->physical_utilisation), NULL);
}

/* With what is said of the disk that the job has made or changed. */
static int run_and_answer(struct op *op, int (*fn)(struct disk_job *, int dir), struct disk_job *job, struct value *ret)
{
    int r = run_job(op, fn, job);

    if (r == 0)
        *ret = storage_disk_answer(op, job->name, job->format, &job->facts);
    return r;
}

/* In a dummy SR everything is true that the master says. */
static struct value dummy_answer(struct op *op, const char *name, int64_t virtual_size)
{
    return storage_disk_answer(op, name, "raw", &(struct disk_facts){.virtual_size = virtual_size});
}

/* ---- create ---- */

static int create_in(struct disk_job *job, int dir)
{
    int r;

    if (job->op->is_repeated && disk_facts(dir, job->name, job->format, &job->facts) == 0
        && job->facts.virtual_size == job->virtual_size)
        return disk_sync(dir, job->name); /* made before the agent was restarted; names are drawn anew for each disk */
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
        r = qemu_img(job->place.directory, job->text, arguments);
        if (r == 0)
            r = disk_sync(dir, job->name);
        else
            unlinkat(dir, job->name, 0);
    }
    return r < 0 ? r : disk_facts(dir, job->name, job->format, &job->facts);
}

int do_disk_create(struct op *op, const struct slave_disk_create_args *args, struct value *ret)
{
    struct disk_job job = {
        .op = op, .name = args->location, .format = args->format, .virtual_size = args->virtual_size};
    bool is_dummy;
    int r = read_place(op, args->sr, &job.place, &is_dummy);

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
    return run_and_answer(op, create_in, &job, ret);
}

/* ---- clone ---- */

static int clone_in(struct disk_job *job, int dir)
{
    struct disk_clone clone = {
        .place = job->place, .source = job->source, .name = job->name, .format = job->format};
    int r;

    if (job->op->is_repeated)
        unlinkat(dir, job->name, 0);
    r = disk_clone_prepare(dir, &clone);
    job->virtual_size = clone.facts.virtual_size;
    if (r == 0)
        r = disk_clone_take(dir, &clone);
    if (r == 0)
        r = disk_clone_finish(dir, &clone);
    memcpy(job->text, clone.text, sizeof job->text);
    job->facts = clone.facts;
    return r;
}

int storage_check_pair(struct op *op, const char *source, const char *name)
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
    int r = read_place(op, args->sr, &job.place, &is_dummy);

    if (r == 0)
        r = storage_check_pair(op, job.source, job.name);
    if (r < 0)
        return r;
    if (is_dummy) {
        *ret = dummy_answer(op, job.name, 0);
        return 0;
    }
    job.format = storage_format_of(job.source, false);
    return run_and_answer(op, clone_in, &job, ret);
}

/* ---- copy ---- */

static int copy_in(struct disk_job *job, int dir)
{
    _cleanup_(close_fd) int to_dir = sr_open(&job->to_place, job->text);
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
        r = disk_copy_sparse(dir, job->source, to_dir, job->name, NULL);
    } else if (faccessat(to_dir, job->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        r = -EEXIST;
    } else {
        char to[512];
        const char *arguments[] = {"convert", "-q", "-f", "qcow2", "-O", "qcow2", job->source, to, NULL};

        snprintf(to, sizeof to, "%s/%s", job->to_place.directory, job->name);
        r = qemu_img(job->place.directory, job->text, arguments);
        if (r == 0)
            r = disk_sync(to_dir, job->name);
        else
            unlinkat(to_dir, job->name, 0);
    }
    return r < 0 ? r : disk_facts(to_dir, job->name, job->format, &job->facts);
}

int do_disk_copy(struct op *op, const struct slave_disk_copy_args *args, struct value *ret)
{
    struct disk_job job = {.op = op, .source = args->source, .name = args->location};
    bool is_dummy, is_to_dummy;
    int r = read_place(op, args->sr, &job.place, &is_dummy);

    if (r == 0)
        r = read_place(op, args->to_sr, &job.to_place, &is_to_dummy);
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
    return run_and_answer(op, copy_in, &job, ret);
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
        r = qemu_img(job->place.directory, job->text, arguments);
        if (r == 0)
            r = disk_sync(dir, job->name);
    }
    return r < 0 ? r : disk_facts(dir, job->name, job->format, &job->facts);
}

int do_disk_resize(struct op *op, const struct slave_disk_resize_args *args, struct value *ret)
{
    struct disk_job job = {.op = op, .name = args->location, .virtual_size = args->virtual_size};
    bool is_dummy;
    int r = read_place(op, args->sr, &job.place, &is_dummy);

    if (r == 0)
        r = check_name(op, job.name);
    if (r < 0)
        return r;
    if (is_dummy) {
        *ret = dummy_answer(op, job.name, args->virtual_size);
        return 0;
    }
    job.format = storage_format_of(job.name, false);
    return run_and_answer(op, resize_in, &job, ret);
}

/* ---- destroy ---- */

/* Is the operation making a disk of this name? Names are drawn anew for each, so that of another directory does no harm. */
static bool makes(const struct op *op, const char *name)
{
    const struct value *disks = value_map_find(&op->body, "disks");

    switch (op->row->number) {
    case SLAVE_CALL_disk_create:
    case SLAVE_CALL_disk_clone:
    case SLAVE_CALL_disk_copy:
        return streq(value_map_text(&op->body, "location", ""), name);
    case SLAVE_CALL_vm_snapshot:
        for (uint32_t i = 0; disks && disks->kind == KIND_SET && i < disks->length; i++)
            if (disks->items[i].kind == KIND_MAP && streq(value_map_text(&disks->items[i], "location", ""), name))
                return true;
        return false;
    default:
        return false;
    }
}

/* A master that gave up a disk in the making has it destroyed: that comes after the making, or its last step would leave a file
 * that nobody knows. */
static void wait_until_made(struct agent *agent, const char *name)
{
    struct op *other = NULL;
    void *value;

    do {
        if (other)
            waitq_wait(&agent->op_ended, 0);
        other = NULL;
        for (size_t at = 0; !other && refmap_each(&agent->running, &at, NULL, &value);)
            other = makes(value, name) ? value : NULL;
    } while (other);
}

static int destroy_in(struct disk_job *job, int dir)
{
    struct disk_facts facts = {0};
    char name[DISK_NAME_BYTES], owner[DISK_NAME_BYTES], base[DISK_NAME_BYTES];

    snprintf(name, sizeof name, "%s", job->name);
    snprintf(owner, sizeof owner, "%s.owner", job->name);
    (void) disk_facts(dir, name, job->format, &facts); /* also of a broken one: it goes anyway */
    if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
        return -errno;
    unlinkat(dir, owner, 0);
    disk_clone_sweep(dir, name);
    if (facts.backing[0])
        bases_drop(dir, facts.backing);
    /* The base that was made for a clone which did not come to be; if its source rests on it, it stays. */
    if (disk_clone_base(name, base) && !streq(base, facts.backing))
        bases_drop(dir, base);
    return fsync(dir) < 0 ? -errno : 0;
}

int do_disk_destroy(struct op *op, const struct slave_disk_destroy_args *args, struct value *ret)
{
    struct disk_job job = {.op = op, .name = args->location};
    bool is_dummy;
    int r = read_place(op, args->sr, &job.place, &is_dummy);

    (void) ret;
    if (r == 0)
        r = check_name(op, job.name);
    if (r < 0 || is_dummy)
        return r;
    wait_until_made(op->agent, job.name);
    job.format = storage_format_of(job.name, false);
    return run_job(op, destroy_in, &job);
}
