/* storage.c - SRs on this host: names, attach, scan, figures
 *
 * An SR is a directory that the master names with each call; the slave remembers none. Types: file (of this host),
 * shared-file (several hosts see it; that it is mounted is the operator's affair), iso (read only), dummy (no files:
 * for tests of scale). */
#include "slave/storage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "shared/log.h"

/* What a dummy SR says of itself. */
#define DUMMY_BYTES (1LL << 50)

static bool ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), end_length = strlen(end);

    return length > end_length && strcasecmp(name + length - end_length, end) == 0;
}

/* Files of our own beside the disks. */
static bool is_record(const char *name)
{
    return ends_with(name, ".owner") || ends_with(name, ".lock") || ends_with(name, ".journal");
}

bool storage_name_is_good(const char *name)
{
    if (!name[0] || name[0] == '.' || strlen(name) > 240 || is_record(name))
        return false;
    for (const char *p = name; *p; p++)
        if (*p == '/' || (unsigned char) *p < ' ' || *p == 0x7f)
            return false;
    return true;
}

const char *storage_format_of(const char *name, bool is_iso_sr)
{
    if (is_iso_sr)
        return ends_with(name, ".iso") || ends_with(name, ".img") ? "raw" : NULL;
    if (ends_with(name, ".base.qcow2"))
        return NULL; /* what clones rest on; no disk of anybody */
    if (ends_with(name, ".suspend"))
        return "raw"; /* a guest's memory: copied and removed as a disk is */
    return ends_with(name, ".raw") ? "raw" : ends_with(name, ".qcow2") ? "qcow2" : NULL;
}

int storage_image_path(struct op *op, const struct value *image, const char **ret_path)
{
    const char *sr = value_map_text(image, "sr_location", ""), *location = value_map_text(image, "location", "");

    if (sr[0] != '/' || !storage_name_is_good(location))
        return op_fail(op, VDI_LOCATION_MISSING, value_map_text(image, "sr", ""), location);
    *ret_path = op_text(op, "%s/%s", sr, location);
    return 0;
}

bool storage_image_is_complete(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
}

void storage_image_grow(const char *path, int64_t bytes)
{
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size < bytes && truncate(path, bytes) < 0)
        log_warning(NULL, "the suspend image %s cannot be made as large as its disk: %m", path);
}

/* ---- one SR ---- */

enum sr_type { SR_FILE, SR_SHARED_FILE, SR_ISO, SR_DUMMY };

/* What the master knows of the file .drover-sr. */
enum sr_marker {
    MARKER_MAY_LACK, /* the SR was made before there were any; another SR's is refused all the same */
    MARKER_MUST_BE,
    MARKER_MAKE,     /* first attach of an SR that has none yet */
};

struct sr {
    enum sr_type type;
    enum sr_marker marker; /* of a shared-file SR */
    const char *uuid, *directory;
};

static int read_sr(struct op *op, const struct value *map, struct sr *ret)
{
    static const char *const names[] = {
        [SR_FILE] = "file", [SR_SHARED_FILE] = "shared-file", [SR_ISO] = "iso", [SR_DUMMY] = "dummy"};
    const char *type = value_map_text(map, "type", ""), *marker = value_map_text(map, "marker", "");

    *ret = (struct sr){
        .marker = streq(marker, "make") ? MARKER_MAKE : streq(marker, "check") ? MARKER_MUST_BE : MARKER_MAY_LACK,
        .uuid = value_map_text(map, "uuid", ""),
        .directory = value_map_text(map, "location", ""),
    };
    while (ret->type < ARRAY_SIZE(names) && !streq(names[ret->type], type))
        ret->type++;
    if (ret->type == ARRAY_SIZE(names))
        return op_fail(op, SR_UNKNOWN_DRIVER, type);
    if (ret->type != SR_DUMMY && (ret->directory[0] != '/' || strlen(ret->directory) > 200))
        return op_fail(op, INVALID_VALUE, "location", ret->directory);
    return 0;
}

/* What a worker does with a directory. */
struct sr_job {
    const struct sr *sr;
    struct op *op;        /* its arena is the job's while the fiber waits */
    void (*fn)(void *arg); /* with the directory known to be the SR's */
    int error;
    char text[MARKER_TEXT_BYTES]; /* about the error; "": strerror() says it */
    struct value ret;
    int64_t size, used;
};

static void check_marker(struct sr_job *job)
{
    const struct sr *sr = job->sr;
    _cleanup_(close_fd) int dir = dir_open(sr->directory);

    if (dir < 0)
        job->error = dir;
    else
        job->error = sr_marker_check(dir, sr->uuid, sr->marker == MARKER_MUST_BE, job->text);
    if (job->error == 0 && sr->marker == MARKER_MAKE)
        job->error = sr_marker_write(dir, sr->uuid);
}

static void checked_job(void *arg)
{
    struct sr_job *job = arg;

    check_marker(job);
    if (job->error == 0)
        job->fn(job);
}

static int sr_failed(struct op *op, int error, const char *what)
{
    return op_fail(op, SR_BACKEND_FAILURE, op_text(op, "%d", -error), "", op_text(op, "%s: %s", what, strerror(-error)));
}

/* check: see that a shared directory is the SR's. */
static int run(struct op *op, const struct value *map, void (*fn)(void *arg), bool check, struct sr_job *job, struct sr *sr)
{
    int r = read_sr(op, map, sr);

    *job = (struct sr_job){.sr = sr, .op = op, .fn = fn, .ret = VALUE_EMPTY_MAP};
    if (r < 0 || sr->type == SR_DUMMY)
        return r;
    r = op_work(op, check && sr->type == SR_SHARED_FILE ? checked_job : fn, job);
    if (r < 0)
        return r;
    if (job->error == -ENOTEMPTY)
        return op_fail(op, SR_NOT_EMPTY);
    if (job->error < 0 && job->text[0])
        return op_fail(op, SR_BACKEND_FAILURE, op_text(op, "%d", -job->error), "",
                       op_text(op, "%s: %s", sr->directory, job->text));
    return job->error < 0 ? sr_failed(op, job->error, sr->directory) : 0;
}

static int run_job(struct op *op, const struct value *map, void (*fn)(void *arg), struct sr_job *job, struct sr *sr)
{
    return run(op, map, fn, true, job, sr);
}

/* ---- create, attach, detach, destroy ---- */

static bool has_disks(const char *directory)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    bool has = false;

    while (dir && !has && (entry = readdir(dir)))
        has = storage_format_of(entry->d_name, false) || ends_with(entry->d_name, ".base.qcow2");
    if (dir)
        closedir(dir);
    return has;
}

/* What another SR has left behind without a disk is nobody's. */
static int take_shared(struct sr_job *job, int dir)
{
    int r = sr_marker_check(dir, job->sr->uuid, false, job->text);

    if (r < 0 && (r != -EEXIST || has_disks(job->sr->directory)))
        return r;
    return sr_marker_write(dir, job->sr->uuid);
}

/* Of a host's own SR the last part of the path may be made. A shared one, or ISOs, are somewhere already: a path that is not
 * there is not mounted, or misspelt. */
static void create_job(void *arg)
{
    struct sr_job *job = arg;
    _cleanup_(close_fd) int dir = -1;

    if (job->sr->type == SR_FILE && mkdir(job->sr->directory, 0755) < 0 && errno != EEXIST) {
        job->error = -errno;
        return;
    }
    dir = dir_open(job->sr->directory);
    if (dir == -ENOENT)
        snprintf(job->text, sizeof job->text, "there is no such directory on this host: is it mounted?");
    job->error = dir < 0 ? dir : job->sr->type == SR_SHARED_FILE ? take_shared(job, dir) : 0;
}

int do_sr_create(struct op *op, const struct slave_sr_create_args *args, struct value *ret)
{
    struct sr_job job;
    struct sr sr;

    (void) ret;
    return run(op, args->sr, create_job, false, &job, &sr);
}

static void attach_job(void *arg)
{
    struct sr_job *job = arg;
    int fd = dir_open(job->sr->directory);

    if (fd < 0)
        job->error = fd;
    else
        close(fd);
}

int do_sr_attach(struct op *op, const struct slave_sr_attach_args *args, struct value *ret)
{
    struct sr_job job;
    struct sr sr;

    (void) ret;
    return run_job(op, args->sr, attach_job, &job, &sr);
}

int do_sr_detach(struct op *op, const struct slave_sr_detach_args *args, struct value *ret)
{
    struct sr sr;

    (void) ret;
    return read_sr(op, args->sr, &sr); /* nothing is kept open between calls */
}

static void destroy_job(void *arg)
{
    struct sr_job *job = arg;
    DIR *dir = opendir(job->sr->directory);
    struct dirent *entry;

    if (!dir) {
        job->error = errno == ENOENT ? 0 : -errno;
        return;
    }
    while (job->error == 0 && (entry = readdir(dir)))
        if (storage_format_of(entry->d_name, false) || ends_with(entry->d_name, ".base.qcow2"))
            job->error = -ENOTEMPTY;
    rewinddir(dir);
    while (job->error == 0 && (entry = readdir(dir)))
        if (is_record(entry->d_name))
            unlinkat(dirfd(dir), entry->d_name, 0);
    if (job->error == 0)
        sr_marker_remove(dirfd(dir), job->sr->uuid);
    closedir(dir);
    /* Files that are not ours stay, and the directory with them; one that we have not made, too. */
    if (job->error == 0 && job->sr->type == SR_FILE)
        (void) rmdir(job->sr->directory);
}

int do_sr_destroy(struct op *op, const struct slave_sr_destroy_args *args, struct value *ret)
{
    struct sr_job job;
    struct sr sr;
    int r = read_sr(op, args->sr, &sr);

    (void) ret;
    if (r < 0 || sr.type == SR_ISO)
        return r;
    return run(op, args->sr, destroy_job, false, &job, &sr); /* of what is not mounted there is nothing to be removed */
}

/* ---- scan and figures ---- */

static void scan_job(void *arg)
{
    struct sr_job *job = arg;
    DIR *dir = opendir(job->sr->directory);
    struct value *items = NULL;
    struct dirent *entry;
    size_t count = 0, room = 0;

    if (!dir) {
        job->error = -errno;
        return;
    }
    while ((entry = readdir(dir))) {
        const char *format = storage_format_of(entry->d_name, job->sr->type == SR_ISO);
        struct disk_facts facts;

        if (!format || !storage_name_is_good(entry->d_name)
            || !text_is_xml(entry->d_name, strlen(entry->d_name))
            || disk_facts(dirfd(dir), entry->d_name, format, &facts) < 0)
            continue;
        if (count == room) {
            room = MAX(2 * room, (size_t) 64);
            items = realloc_array(items, room, sizeof *items);
        }
        items[count++] = storage_disk_answer(job->op, entry->d_name, facts.format, &facts);
    }
    closedir(dir);
    job->ret = VALUE_SET((uint32_t) count, arena_dup(job->op->arena, items ? (void *) items : "", count * sizeof *items));
    free(items);
}

int do_sr_scan(struct op *op, const struct slave_sr_scan_args *args, struct value *ret)
{
    struct sr_job job;
    struct sr sr;
    int r = run_job(op, args->sr, scan_job, &job, &sr);

    if (r < 0)
        return r;
    *ret = sr.type == SR_DUMMY ? VALUE_EMPTY_SET : job.ret;
    return 0;
}

static void stat_job(void *arg)
{
    struct sr_job *job = arg;
    struct statvfs st;

    if (statvfs(job->sr->directory, &st) < 0) {
        job->error = -errno;
        return;
    }
    job->size = (int64_t) (st.f_blocks * st.f_frsize);
    job->used = (int64_t) ((st.f_blocks - st.f_bfree) * st.f_frsize);
}

int do_sr_stat(struct op *op, const struct slave_sr_stat_args *args, struct value *ret)
{
    struct sr_job job;
    struct sr sr;
    int r = run_job(op, args->sr, stat_job, &job, &sr);

    if (r < 0)
        return r;
    if (sr.type == SR_DUMMY)
        job.size = DUMMY_BYTES;
    *ret = op_map(op, "physical_size", op_text(op, "%lld", (long long) job.size), "physical_utilisation",
                  op_text(op, "%lld", (long long) job.used), NULL);
    return 0;
}
