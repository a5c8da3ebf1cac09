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
#include "slave/work_in.h"
#include "slave/qcow2_read.h"

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
    if (!name[0] || name[0] == '.' || name[0] == '-' || strchr(name, ':') || strlen(name) > 240 || is_record(name))
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

struct sr {
    enum sr_type type;
    struct sr_place place;
};

static int read_sr(struct op *op, const struct value *map, struct sr *ret)
{
    static const char *const names[] = {
        [SR_FILE] = "file", [SR_SHARED_FILE] = "shared-file", [SR_ISO] = "iso", [SR_DUMMY] = "dummy"};
    const char *type = value_map_text(map, "type", "");

    *ret = (struct sr){.place = sr_place_of(map)};
    while (ret->type < ARRAY_SIZE(names) && !streq(names[ret->type], type))
        ret->type++;
    if (ret->type == ARRAY_SIZE(names))
        return op_fail(op, SR_UNKNOWN_DRIVER, type);
    if (ret->type != SR_DUMMY && (ret->place.directory[0] != '/' || strlen(ret->place.directory) > 200))
        return op_fail(op, INVALID_VALUE, "location", ret->place.directory);
    return 0;
}

/* What a worker does with a directory. */
struct sr_job {
    const struct sr *sr;
    struct op *op;        /* its arena is the job's while the fiber waits */
    int (*fn)(struct sr_job *job, int dir); /* with the directory open and known to be the SR's; a negative errno */
    int error;
    char text[STORAGE_TEXT_BYTES]; /* about the error; "": strerror() says it */
    struct value ret;
    int64_t size, used;
};

static void checked_job(void *arg)
{
    struct sr_job *job = arg;
    _cleanup_(close_fd) int dir = sr_open(&job->sr->place, job->text);

    job->error = dir < 0 ? dir : job->fn(job, dir);
}

int storage_place_failed(struct op *op, int error, const char *text)
{
    return op_fail(op, SR_BACKEND_FAILURE, op_text(op, "%d", -error), "", text);
}

/* A job that sees to the directory itself. */
static int run_unchecked(struct op *op, const struct value *map, void (*fn)(void *arg), struct sr_job *job, struct sr *sr)
{
    int r = read_sr(op, map, sr);

    job->sr = sr;
    job->op = op;
    job->ret = VALUE_EMPTY_MAP;
    if (r < 0 || sr->type == SR_DUMMY)
        return r;
    op_work_in(op, (const char *[]){sr->place.directory}, 1, fn, job);
    if (job->error == -ENOTEMPTY)
        return op_fail(op, SR_NOT_EMPTY);
    if (job->error < 0 && !job->text[0])
        snprintf(job->text, sizeof job->text, "%s: %s", sr->place.directory, strerror(-job->error));
    return job->error < 0 ? storage_place_failed(op, job->error, job->text) : 0;
}

static int run_job(struct op *op, const struct value *map, int (*fn)(struct sr_job *job, int dir), struct sr_job *job,
                   struct sr *sr)
{
    *job = (struct sr_job){.fn = fn};
    return run_unchecked(op, map, checked_job, job, sr);
}

/* ---- what guests are to have ---- */

struct check {
    const struct value *maps;
    uint32_t count;
    bool with_files;
    int error;
    uint32_t missing; /* [out] without an error: which one has no file; count: none */
    char text[STORAGE_TEXT_BYTES];
};

/* Disks of a VM mostly lie in one SR: it is looked at once. */
static bool was_checked(const struct check *check, uint32_t index, const struct sr_place *place)
{
    for (uint32_t i = 0; i < index; i++) {
        struct sr_place before = sr_place_of_disk(&check->maps[i]);

        if (before.marker == place->marker && streq(before.uuid, place->uuid) && streq(before.directory, place->directory))
            return true;
    }
    return false;
}

static const char *location_of(const struct value *map)
{
    return value_map_text(map, "location", "");
}

static bool has_file(const struct value *map)
{
    return location_of(map)[0] && !streq(value_map_text(map, "sr_type", ""), "dummy");
}

/* Other errors than this one are the driver's to meet. */
static bool is_missing(const struct value *map, const struct sr_place *place)
{
    _cleanup_(close_fd) int dir = open(place->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;

    return dir < 0 ? errno == ENOENT : fstatat(dir, location_of(map), &st, 0) < 0 && errno == ENOENT;
}

static void check_job(void *arg)
{
    struct check *check = arg;

    for (uint32_t i = 0; i < check->count && check->error == 0; i++) {
        struct sr_place place = sr_place_of_disk(&check->maps[i]);
        _cleanup_(close_fd) int dir = -1;

        if (place.marker != MARKER_NONE && !was_checked(check, i, &place)) {
            dir = sr_open(&place, check->text);
            check->error = MIN(dir, 0);
        }
        if (check->error == 0 && check->missing == check->count && check->with_files && has_file(&check->maps[i])
            && is_missing(&check->maps[i], &place))
            check->missing = i;
    }
}

static int run_check(struct op *op, const struct value *maps, uint32_t count, bool with_files)
{
    struct check check = {.maps = maps, .count = count, .with_files = with_files, .missing = count};
    const char **directories = arena_alloc_array(op->arena, count + 1, sizeof *directories);
    bool is_needed = false;

    for (uint32_t i = 0; i < count; i++) {
        struct sr_place place = sr_place_of_disk(&maps[i]);
        bool is_looked_at = place.marker != MARKER_NONE || (with_files && has_file(&maps[i]));

        directories[i] = is_looked_at ? place.directory : NULL;
        is_needed |= is_looked_at;
    }
    if (!is_needed)
        return 0;
    op_work_in(op, directories, count, check_job, &check);
    if (check.error < 0)
        return storage_place_failed(op, check.error, check.text);
    return check.missing == count ? 0
                                  : op_fail(op, VDI_LOCATION_MISSING, value_map_text(&maps[check.missing], "sr", ""),
                                            location_of(&maps[check.missing]));
}

int storage_check(struct op *op, const struct value *maps, uint32_t count)
{
    return run_check(op, maps, count, false);
}

int storage_check_files(struct op *op, const struct value *maps, uint32_t count)
{
    return run_check(op, maps, count, true);
}

/* ---- create, attach, detach, destroy ---- */

/* Disks, or what they rest on. */
static bool has_disks(DIR *list)
{
    struct dirent *entry;
    bool has = false;

    while (!has && (entry = readdir(list)))
        has = storage_format_of(entry->d_name, false) || ends_with(entry->d_name, ".base.qcow2");
    return has;
}

/* What another SR has left behind without a disk is nobody's. */
static int take_shared(struct sr_job *job, int dir)
{
    struct sr_place place = job->sr->place;
    int r;

    place.marker = MARKER_MAY_LACK; /* it is to be made now */
    r = sr_marker_check(&place, dir, job->text);
    if (r == -EEXIST) {
        DIR *list = dir_list(dir);
        bool is_taken = !list || has_disks(list);

        if (list)
            closedir(list);
        if (is_taken)
            return r;
    } else if (r < 0) {
        return r;
    }
    job->text[0] = '\0';
    return sr_marker_write(dir, place.uuid);
}

/* Of a host's own SR the last part of the path may be made. A shared one, or ISOs, are somewhere already: a path that is not
 * there is not mounted, or misspelt. */
static void create_job(void *arg)
{
    struct sr_job *job = arg;
    _cleanup_(close_fd) int dir = -1;

    if (job->sr->type == SR_FILE && mkdir(job->sr->place.directory, 0755) < 0 && errno != EEXIST) {
        job->error = -errno;
        return;
    }
    dir = sr_open_unchecked(&job->sr->place, job->text);
    job->error = dir < 0 ? dir : job->sr->type == SR_SHARED_FILE ? take_shared(job, dir) : 0;
}

int do_sr_create(struct op *op, const struct slave_sr_create_args *args, struct value *ret)
{
    struct sr_job job = {0};
    struct sr sr;

    (void) ret;
    return run_unchecked(op, args->sr, create_job, &job, &sr);
}

static int attach_in(struct sr_job *job, int dir)
{
    (void) job;
    (void) dir;
    return 0; /* that it is there is all */
}

int do_sr_attach(struct op *op, const struct slave_sr_attach_args *args, struct value *ret)
{
    struct sr_job job;
    struct sr sr;

    (void) ret;
    return run_job(op, args->sr, attach_in, &job, &sr);
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
    const struct sr_place *place = &job->sr->place;
    DIR *list = opendir(place->directory);
    struct dirent *entry;

    if (!list) {
        job->error = errno == ENOENT ? 0 : -errno;
        return;
    }
    if (has_disks(list))
        job->error = -ENOTEMPTY;
    rewinddir(list);
    while (job->error == 0 && (entry = readdir(list)))
        if (is_record(entry->d_name) || qcow2_is_store(entry->d_name))
            unlinkat(dirfd(list), entry->d_name, 0);
    if (job->error == 0)
        sr_marker_remove(dirfd(list), place->uuid);
    closedir(list);
    /* Files that are not ours stay, and the directory with them; one that we have not made, too. */
    if (job->error == 0 && job->sr->type == SR_FILE)
        (void) rmdir(place->directory);
}

int do_sr_destroy(struct op *op, const struct slave_sr_destroy_args *args, struct value *ret)
{
    struct sr_job job = {0};
    struct sr sr;
    int r = read_sr(op, args->sr, &sr);

    (void) ret;
    if (r < 0 || sr.type == SR_ISO)
        return r;
    return run_unchecked(op, args->sr, destroy_job, &job, &sr); /* of what is not mounted there is nothing to be removed */
}

/* ---- scan and figures ---- */

static int scan_in(struct sr_job *job, int dir)
{
    DIR *list = dir_list(dir);
    struct value *items = NULL;
    struct dirent *entry;
    size_t count = 0, room = 0;

    if (!list)
        return -errno;
    if (job->sr->type != SR_ISO) {
        qcow2_sweep(dir);
        bases_sweep(dir);
    }
    while ((entry = readdir(list))) {
        const char *format = storage_format_of(entry->d_name, job->sr->type == SR_ISO);
        struct disk_facts facts;

        if (!format || !storage_name_is_good(entry->d_name)
            || !text_is_xml(entry->d_name, strlen(entry->d_name))
            || disk_facts(dir, entry->d_name, format, &facts) < 0)
            continue;
        if (count == room) {
            room = MAX(2 * room, (size_t) 64);
            items = realloc_array(items, room, sizeof *items);
        }
        items[count++] = storage_disk_answer(job->op, entry->d_name, facts.format, &facts);
    }
    closedir(list);
    job->ret = VALUE_SET((uint32_t) count, arena_dup(job->op->arena, items ? (void *) items : "", count * sizeof *items));
    free(items);
    return 0;
}

int do_sr_scan(struct op *op, const struct slave_sr_scan_args *args, struct value *ret)
{
    struct sr_job job;
    struct sr sr;
    int r = run_job(op, args->sr, scan_in, &job, &sr);

    if (r < 0)
        return r;
    *ret = sr.type == SR_DUMMY ? VALUE_EMPTY_SET : job.ret;
    return 0;
}

static int stat_in(struct sr_job *job, int dir)
{
    struct statvfs st;

    if (fstatvfs(dir, &st) < 0)
        return -errno;
    job->size = (int64_t) (st.f_blocks * st.f_frsize);
    job->used = (int64_t) ((st.f_blocks - st.f_bfree) * st.f_frsize);
    return 0;
}

int do_sr_stat(struct op *op, const struct slave_sr_stat_args *args, struct value *ret)
{
    struct sr_job job;
    struct sr sr;
    int r = run_job(op, args->sr, stat_in, &job, &sr);

    if (r < 0)
        return r;
    if (sr.type == SR_DUMMY)
        job.size = DUMMY_BYTES;
    *ret = op_map(op, "physical_size", op_text(op, "%lld", (long long) job.size), "physical_utilisation",
                  op_text(op, "%lld", (long long) job.used), NULL);
    return 0;
}
