/* test_storage.c - a slave's disks as files: made, cloned, copied, grown, gone; and names that lead outside */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/fiber.h"
#include "shared/loop.h"
#include "shared/workers.h"
#include "slave/storage.h"
#include "tests/unit/no_log.h"

struct fixture {
    struct agent agent;
    struct arena *arena;
    char dir[64], other[64];
    bool has_qemu_img;
    struct value sr, other_sr;

    /* the last call */
    struct op op;
    struct value ret;
    int r;
};

struct run {
    struct fixture *f;
    int (*fn)(struct op *op, const void *args, struct value *ret);
    const void *args;
};

static void run_main(void *arg)
{
    struct run *run = arg;

    run->f->r = run->fn(&run->f->op, run->args, &run->f->ret);
}

/* One handler, in a fiber as it always is. */
#define DO(f, name, ...)                                                                           \
    do_it((f), (int (*)(struct op *, const void *, struct value *)) do_##name,                     \
          &(struct slave_##name##_args){__VA_ARGS__})

static int do_it(struct fixture *f, int (*fn)(struct op *, const void *, struct value *), const void *args)
{
    struct run run = {f, fn, args};

    f->op.failure = (struct failure){0};
    f->ret = VALUE_EMPTY_MAP;
    fiber_spawn(f->agent.loop, run_main, &run, "op");
    while (loop_step(f->agent.loop))
        ;
    return f->r;
}

static const char *code(struct fixture *f)
{
    return f->r < 0 ? f->op.failure.text : "";
}

static struct value sr_map(struct fixture *f, const char *type, const char *dir)
{
    struct value *items = arena_alloc_array(f->arena, 6, sizeof *items);

    items[0] = value_text("uuid");
    items[1] = value_text("sr-uuid");
    items[2] = value_text("type");
    items[3] = value_text(type);
    items[4] = value_text("location");
    items[5] = value_text(dir);
    return VALUE_MAP(3, items);
}

static int begin(void **state)
{
    struct fixture *f = new0(struct fixture);

    model_init();
    f->arena = arena_new();
    f->agent.loop = loop_new(clock_real());
    f->agent.workers = workers_new(0, "test");
    f->op = (struct op){.agent = &f->agent, .arena = f->arena, .is_written_down = true};
    strcpy(f->op.id_text, "6a7f1f4c-0000-4000-8000-000000000001");
    strcpy(f->dir, "/tmp/drover-storage-XXXXXX");
    strcpy(f->other, "/tmp/drover-storage-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_non_null(mkdtemp(f->other));
    f->sr = sr_map(f, "file", f->dir);
    f->other_sr = sr_map(f, "shared-file", f->other);
    f->has_qemu_img = system("qemu-img --version >/dev/null 2>&1") == 0;
    *state = f;
    return 0;
}

static int end(void **state)
{
    struct fixture *f = *state;
    char command[256];

    snprintf(command, sizeof command, "rm -rf %s %s", f->dir, f->other);
    assert_int_equal(system(command), 0);
    workers_destroy(&f->agent.workers);
    loop_destroy(&f->agent.loop);
    arena_destroy(&f->arena);
    free(f);
    return 0;
}

static const char *path_in(struct fixture *f, const char *dir, const char *name)
{
    return arena_text(f->arena, "%s/%s", dir, name);
}

static void write_at(const char *path, const char *text, off_t at)
{
    int fd = open(path, O_RDWR);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, text, strlen(text), at), strlen(text));
    close(fd);
}

static void assert_text_at(const char *path, const char *text, off_t at)
{
    char found[64] = "";
    int fd = open(path, O_RDONLY);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, found, strlen(text), at), strlen(text));
    assert_string_equal(found, text);
    close(fd);
}

static void raw_disks_are_sparse_and_copies_stay_so(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    assert_int_equal(DO(f, disk_create, &f->sr, "a.raw", "raw", 1LL << 30), 0);
    assert_string_equal(value_map_text(&f->ret, "virtual_size", ""), "1073741824");
    assert_string_equal(value_map_text(&f->ret, "physical_utilisation", ""), "0");
    write_at(path_in(f, f->dir, "a.raw"), "in the middle", 500 << 20);

    assert_int_equal(DO(f, disk_clone, &f->sr, "a.raw", "b.raw"), 0);
    assert_text_at(path_in(f, f->dir, "b.raw"), "in the middle", 500 << 20);
    assert_int_equal(DO(f, disk_copy, &f->sr, "a.raw", &f->other_sr, "c.raw"), 0);
    assert_text_at(path_in(f, f->other, "c.raw"), "in the middle", 500 << 20);
    assert_int_equal(stat(path_in(f, f->other, "c.raw"), &st), 0);
    assert_int_equal(st.st_size, 1LL << 30);
    assert_true(st.st_blocks * 512 < 4 << 20);
    write_at(path_in(f, f->dir, "a.raw"), "IN THE MIDDLE", 500 << 20);
    assert_text_at(path_in(f, f->dir, "b.raw"), "in the middle", 500 << 20);
}

static void a_disk_only_grows(void **state)
{
    struct fixture *f = *state;

    DO(f, disk_create, &f->sr, "a.raw", "raw", 1 << 20);
    assert_int_equal(DO(f, disk_resize, &f->sr, "a.raw", 2 << 20), 0);
    assert_string_equal(value_map_text(&f->ret, "virtual_size", ""), "2097152");
    DO(f, disk_resize, &f->sr, "a.raw", 1 << 20);
    assert_string_equal(code(f), "SR_BACKEND_FAILURE");
}

static void destroying_twice_is_done_once(void **state)
{
    struct fixture *f = *state;

    DO(f, disk_create, &f->sr, "a.raw", "raw", 1 << 20);
    assert_int_equal(DO(f, disk_destroy, &f->sr, "a.raw"), 0);
    assert_int_equal(access(path_in(f, f->dir, "a.raw"), F_OK), -1);
    assert_int_equal(DO(f, disk_destroy, &f->sr, "a.raw"), 0);
}

static void names_stay_inside(void **state)
{
    static const char *const names[] = {"../a.raw", "/etc/passwd", "..", ".", "", ".a.raw", "a/b.raw", "a.raw.owner", "a\n.raw",
                                        "a.txt", "-o.qcow2", "nbd:127.0.0.1:10809.qcow2"};
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        DO(f, disk_create, &f->sr, names[i], "raw", 1);
        assert_string_equal(code(f), "INVALID_VALUE");
        DO(f, disk_destroy, &f->sr, names[i]);
        assert_string_equal(code(f), "INVALID_VALUE");
    }
    /* a link that somebody laid there is not followed */
    assert_int_equal(symlink("/etc/passwd", path_in(f, f->dir, "l.raw")), 0);
    DO(f, disk_clone, &f->sr, "l.raw", "x.raw");
    assert_string_equal(code(f), "SR_BACKEND_FAILURE");
    DO(f, disk_resize, &f->sr, "l.raw", 1 << 20);
    assert_string_equal(code(f), "SR_BACKEND_FAILURE");
    /* and nothing that exists is overwritten */
    DO(f, disk_create, &f->sr, "a.raw", "raw", 1 << 20);
    DO(f, disk_create, &f->sr, "a.raw", "raw", 1 << 20);
    assert_string_equal(code(f), "SR_BACKEND_FAILURE");
    DO(f, disk_create, &f->sr, "a.raw", "qcow2", 1 << 20);
    assert_string_equal(code(f), "INVALID_VALUE");
    DO(f, disk_clone, &f->sr, "none.raw", "b.raw");
    assert_string_equal(code(f), "VDI_LOCATION_MISSING");
}

static void a_repeated_create_finds_what_it_made(void **state)
{
    struct fixture *f = *state;

    DO(f, disk_create, &f->sr, "a.raw", "raw", 1 << 20);
    f->op.is_repeated = true;
    assert_int_equal(DO(f, disk_create, &f->sr, "a.raw", "raw", 1 << 20), 0);
    assert_int_equal(DO(f, disk_clone, &f->sr, "a.raw", "b.raw"), 0);
    assert_int_equal(DO(f, disk_clone, &f->sr, "a.raw", "b.raw"), 0);
}

/* Their names, each with a space; without the lock of bases. */
static const char *files_in(struct fixture *f, const char *dir)
{
    const char *names = "";
    struct dirent **entries;
    int count = scandir(dir, &entries, NULL, alphasort);

    assert_true(count >= 0);
    for (int i = 0; i < count; i++) {
        if (!streq(entries[i]->d_name, ".") && !streq(entries[i]->d_name, "..")
            && !streq(entries[i]->d_name, ".drover-bases.lock"))
            names = arena_text(f->arena, "%s%s ", names, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return names;
}

static void qcow2_clones_share_a_base_that_goes_with_the_last(void **state)
{
    struct fixture *f = *state;
    char command[512];

    if (!f->has_qemu_img)
        return;
    assert_int_equal(DO(f, disk_create, &f->sr, "a.qcow2", "qcow2", 64 << 20), 0);
    assert_string_equal(value_map_text(&f->ret, "virtual_size", ""), "67108864");
    assert_int_equal(DO(f, disk_clone, &f->sr, "a.qcow2", "b.qcow2"), 0);
    assert_string_equal(value_map_text(&f->ret, "virtual_size", ""), "67108864");
    assert_int_equal(DO(f, disk_resize, &f->sr, "b.qcow2", 128 << 20), 0);
    assert_string_equal(value_map_text(&f->ret, "virtual_size", ""), "134217728");
    assert_int_equal(DO(f, disk_copy, &f->sr, "b.qcow2", &f->other_sr, "c.qcow2"), 0);
    snprintf(command, sizeof command, "qemu-img check -q %s/a.qcow2 && qemu-img check -q %s/b.qcow2 &&"
             " qemu-img check -q %s/c.qcow2 && ! qemu-img info %s/c.qcow2 | grep -q backing",
             f->dir, f->dir, f->other, f->other);
    assert_int_equal(system(command), 0);
    assert_int_equal(DO(f, disk_destroy, &f->sr, "a.qcow2"), 0);
    snprintf(command, sizeof command, "qemu-img check -q %s/b.qcow2", f->dir);
    assert_int_equal(system(command), 0); /* still rests on the base, if there is one */
    assert_int_equal(DO(f, disk_destroy, &f->sr, "b.qcow2"), 0);
    assert_string_equal(files_in(f, f->dir), "");
}

/* One thread takes a base away that another one's disk rests on, and is just to rest on by way of another. */
struct destroying {
    int dir;
    const char *base;
};

static void *destroy_main(void *arg)
{
    struct destroying *destroying = arg;

    bases_drop(destroying->dir, destroying->base);
    return NULL;
}

static void no_base_goes_while_a_disk_is_put_on_another(void **state)
{
    struct fixture *f = *state;
    _cleanup_(close_fd) int dir = open(f->dir, O_RDONLY | O_DIRECTORY);

    if (!f->has_qemu_img)
        return;
    for (int i = 0; i < 20; i++) {
        struct disk_clone clone = {.place.directory = f->dir, .source = "a.qcow2", .name = "d.qcow2", .format = "qcow2"};
        struct destroying destroying = {dir, "c.base.qcow2"};
        char command[256];
        pthread_t thread;

        assert_int_equal(DO(f, disk_create, &f->sr, "a.qcow2", "qcow2", 1 << 20), 0);
        assert_int_equal(DO(f, disk_clone, &f->sr, "a.qcow2", "c.qcow2"), 0);
        assert_int_equal(disk_clone_prepare(dir, &clone), 0);
        if (clone.way != CLONE_SPLIT)
            return; /* this file system shares blocks instead */
        /* Many files, so that looking takes a while. */
        snprintf(command, sizeof command, "cd %s; for i in $(seq 300); do ln c.base.qcow2 f$i.qcow2; done; rm c.qcow2", f->dir);
        assert_int_equal(system(command), 0);
        assert_int_equal(pthread_create(&thread, NULL, destroy_main, &destroying), 0);
        usleep(50 + 50 * (unsigned) i); /* at different moments of its looking; which, nobody can tell */
        assert_int_equal(disk_clone_take(dir, &clone), 0);
        pthread_join(thread, NULL);
        assert_int_equal(faccessat(dir, "c.base.qcow2", F_OK, 0), 0);
        snprintf(command, sizeof command, "rm %s/*.qcow2", f->dir);
        assert_int_equal(system(command), 0);
    }
}

static void bases_that_an_interrupted_end_has_left_go_with_a_scan(void **state)
{
#define UUID "6a7f1f4c-0000-4000-8000-00000000000"
    struct fixture *f = *state;
    char command[256];

    if (!f->has_qemu_img)
        return;
    assert_int_equal(DO(f, disk_create, &f->sr, "a.qcow2", "qcow2", 1 << 20), 0);
    assert_int_equal(DO(f, disk_clone, &f->sr, "a.qcow2", UUID "1.qcow2"), 0);
    assert_int_equal(DO(f, disk_clone, &f->sr, "a.qcow2", UUID "2.qcow2"), 0);
    assert_int_equal(DO(f, disk_clone, &f->sr, "a.qcow2", "b.qcow2"), 0);
    if (!strstr(files_in(f, f->dir), ".base."))
        return;
    assert_int_equal(DO(f, sr_scan, &f->sr), 0);
    assert_int_equal(f->ret.length, 4);
    assert_string_equal(files_in(f, f->dir), UUID "1.base.qcow2 " UUID "1.qcow2 " UUID "2.base.qcow2 " UUID "2.qcow2 "
                        "a.qcow2 b.base.qcow2 b.qcow2 "); /* all are needed */
    snprintf(command, sizeof command, "cd %s && rm a.qcow2 b.qcow2 b.base.qcow2 " UUID "2.qcow2", f->dir);
    assert_int_equal(system(command), 0); /* as agents do that die right then */
    assert_int_equal(DO(f, sr_scan, &f->sr), 0);
    assert_string_equal(files_in(f, f->dir), UUID "1.base.qcow2 " UUID "1.qcow2 ");
    snprintf(command, sizeof command, "cd %s && cp " UUID "1.base.qcow2 mine.base.qcow2 && rm " UUID "1.qcow2", f->dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(DO(f, sr_scan, &f->sr), 0);
    assert_string_equal(files_in(f, f->dir), "mine.base.qcow2 "); /* nobody knows whose that is */
#undef UUID
}

/* A guest that has a.qcow2 open, while b.qcow2 is made from it: the file that it writes to becomes the base. */
static void a_clone_of_an_open_disk_is_of_one_moment(void **state)
{
    struct fixture *f = *state;
    struct disk_clone clone = {.place.directory = f->dir, .source = "a.qcow2", .name = "b.qcow2", .format = "qcow2"};
    struct stat open_file, base, source;
    char command[512];
    int dir, fd;

    if (!f->has_qemu_img)
        return;
    assert_int_equal(DO(f, disk_create, &f->sr, "a.qcow2", "qcow2", 64 << 20), 0);
    snprintf(command, sizeof command, "cd %s && qemu-io -f qcow2 -c 'write -P 1 0 64k' a.qcow2 >/dev/null", f->dir);
    assert_int_equal(system(command), 0);
    fd = open(path_in(f, f->dir, "a.qcow2"), O_RDWR);
    dir = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(fstat(fd, &open_file), 0);

    assert_int_equal(disk_clone_prepare(dir, &clone), 0);
    if (clone.way == CLONE_SPLIT) {
        assert_int_equal(disk_clone_take(dir, &clone), 0);
        assert_int_equal(stat(path_in(f, f->dir, "b.base.qcow2"), &base), 0);
        assert_int_equal(stat(path_in(f, f->dir, "a.qcow2"), &source), 0);
        assert_int_equal(base.st_ino, open_file.st_ino);
        assert_int_not_equal(source.st_ino, open_file.st_ino);
        assert_int_equal(DO(f, sr_scan, &f->sr), 0);
        assert_int_equal(f->ret.length, 1); /* neither the base nor what is half made */
    } else {
        assert_int_equal(disk_clone_take(dir, &clone), 0);
    }
    assert_int_equal(disk_clone_finish(dir, &clone), 0);
    assert_int_equal(clone.facts.virtual_size, 64 << 20);
    /* The guest has opened its disk anew. */
    snprintf(command, sizeof command, "cd %s && qemu-io -f qcow2 -c 'write -P 2 0 64k' a.qcow2 >/dev/null &&"
             " qemu-io -f qcow2 -c 'read -P 1 0 64k' b.qcow2 | grep -qv failed && qemu-io -f qcow2 -c 'read -P 2 0 64k' a.qcow2"
             " | grep -qv failed && qemu-img check -q a.qcow2 && qemu-img check -q b.qcow2", f->dir);
    assert_int_equal(system(command), 0);
    close(fd);
    close(dir);
}

/* Whatever was done before everything died: the steps are repeated, or the clone is destroyed. */
static void an_interrupted_clone_is_finished_or_goes(void **state)
{
    struct fixture *f = *state;
    int dir;

    if (!f->has_qemu_img)
        return;
    dir = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(DO(f, disk_create, &f->sr, "a.qcow2", "qcow2", 64 << 20), 0);
    for (int steps = 1; steps <= 4; steps++)
        for (int is_finished = 0; is_finished < 2; is_finished++) {
            struct disk_clone first = {.place.directory = f->dir, .source = "a.qcow2", .name = "b.qcow2", .format = "qcow2"};
            struct disk_clone second = first;

            assert_int_equal(disk_clone_prepare(dir, &first), 0);
            if (steps == 2 && first.way == CLONE_SPLIT) /* half of the second step */
                assert_int_equal(link(path_in(f, f->dir, "a.qcow2"), path_in(f, f->dir, "b.base.qcow2")), 0);
            if (steps > 2)
                assert_int_equal(disk_clone_take(dir, &first), 0);
            if (steps > 3)
                assert_int_equal(disk_clone_finish(dir, &first), 0);
            if (is_finished) {
                unlinkat(dir, "b.qcow2", 0);
                assert_int_equal(disk_clone_prepare(dir, &second), 0);
                assert_int_equal(second.was_split, steps > 2 && second.way == CLONE_SPLIT);
                assert_int_equal(disk_clone_take(dir, &second), 0);
                assert_int_equal(disk_clone_finish(dir, &second), 0);
            }
            assert_int_equal(DO(f, disk_destroy, &f->sr, "b.qcow2"), 0);
            assert_int_equal(disk_clone_prepare(dir, &second), 0); /* the name is free again, or names the old base */
            disk_clone_sweep(dir, "b.qcow2");
            assert_int_equal(DO(f, disk_copy, &f->sr, "a.qcow2", &f->sr, "c.qcow2"), 0);
            assert_int_equal(DO(f, disk_destroy, &f->sr, "a.qcow2"), 0);
            assert_string_equal(files_in(f, f->dir), "c.qcow2 ");
            assert_int_equal(renameat(dir, "c.qcow2", dir, "a.qcow2"), 0);
        }
    close(dir);
}

static void long_chains_end_in_a_copy(void **state)
{
    struct fixture *f = *state;
    char command[256];

    if (!f->has_qemu_img)
        return;
    assert_int_equal(DO(f, disk_create, &f->sr, "a.qcow2", "qcow2", 1 << 20), 0);
    for (int i = 0; i < 62; i++)
        assert_int_equal(DO(f, disk_clone, &f->sr, "a.qcow2", arena_text(f->arena, "b%d.qcow2", i)), 0);
    snprintf(command, sizeof command, "cd %s && ! qemu-img info b61.qcow2 | grep -q backing && qemu-img check -q a.qcow2"
             " && test $(qemu-img info --backing-chain a.qcow2 | grep -c '^file format: qcow2') -le 61", f->dir);
    assert_int_equal(system(command), 0);
    for (int i = 0; i < 62; i++)
        assert_int_equal(DO(f, disk_destroy, &f->sr, arena_text(f->arena, "b%d.qcow2", i)), 0);
    snprintf(command, sizeof command, "qemu-img check -q %s/a.qcow2", f->dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(DO(f, disk_destroy, &f->sr, "a.qcow2"), 0);
    assert_string_equal(files_in(f, f->dir), "");
}

static void a_scan_finds_disks_only(void **state)
{
    struct fixture *f = *state;
    char command[256];

    DO(f, disk_create, &f->sr, "a.raw", "raw", 1 << 20);
    snprintf(command, sizeof command, "cd %s; echo x > a.raw.owner; echo x > vm.lock; echo x > notes.txt; mkdir d.raw;"
             " echo broken > b.qcow2; echo x > .c.raw", f->dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(DO(f, sr_scan, &f->sr), 0);
    assert_int_equal(f->ret.length, 1);
    assert_string_equal(value_map_text(&f->ret.items[0], "location", ""), "a.raw");
    assert_int_equal(DO(f, sr_stat, &f->sr), 0);
    assert_true(atoll(value_map_text(&f->ret, "physical_size", "0")) > 0);
}

static void srs_are_attached_by_their_type(void **state)
{
    struct fixture *f = *state;
    struct value fresh = sr_map(f, "file", path_in(f, f->dir, "fresh")), lvm = sr_map(f, "lvmoiscsi", f->dir);
    struct value dummy = sr_map(f, "dummy", ""), relative = sr_map(f, "file", "here");

    DO(f, sr_attach, &fresh);
    assert_string_equal(code(f), "SR_BACKEND_FAILURE");
    assert_int_equal(DO(f, sr_create, &fresh), 0);
    assert_int_equal(DO(f, sr_attach, &fresh), 0);
    DO(f, disk_create, &fresh, "a.raw", "raw", 4096);
    DO(f, sr_destroy, &fresh);
    assert_string_equal(code(f), "SR_NOT_EMPTY");
    DO(f, disk_destroy, &fresh, "a.raw");
    assert_int_equal(DO(f, sr_destroy, &fresh), 0);
    assert_int_equal(access(path_in(f, f->dir, "fresh"), F_OK), -1);
    DO(f, sr_create, &lvm);
    assert_string_equal(code(f), "SR_UNKNOWN_DRIVER");
    DO(f, sr_attach, &relative);
    assert_string_equal(code(f), "INVALID_VALUE");
    assert_int_equal(DO(f, sr_attach, &dummy), 0);
    assert_int_equal(DO(f, disk_create, &dummy, "a.raw", "raw", 4096), 0);
    assert_string_equal(value_map_text(&f->ret, "virtual_size", ""), "4096");
    assert_int_equal(DO(f, sr_scan, &dummy), 0);
}

static struct value marked(struct fixture *f, const struct value *sr, const char *uuid, const char *marker)
{
    struct value *items = arena_alloc_array(f->arena, 8, sizeof *items);

    memcpy(items, sr->items, 6 * sizeof *items);
    items[1] = value_text(uuid);
    items[6] = value_text("marker");
    items[7] = value_text(marker);
    return VALUE_MAP(*marker ? 4 : 3, items);
}

#define FAILS(what)                                     \
    do {                                                \
        what;                                           \
        assert_string_equal(code(f), "SR_BACKEND_FAILURE"); \
    } while (0)

static void a_shared_directory_is_known_by_its_marker(void **state)
{
    struct fixture *f = *state;
    const char *path = path_in(f, f->dir, "mounted");
    struct value sr = sr_map(f, "shared-file", path), mine = marked(f, &sr, "sr-a", "check");
    struct value other = marked(f, &sr, "sr-b", "check"), old = marked(f, &sr, "sr-a", "");
    struct value first = marked(f, &sr, "sr-a", "make"), iso = sr_map(f, "iso", path_in(f, f->dir, "isos"));

    FAILS(DO(f, sr_create, &mine)); /* nothing is mounted */
    FAILS(DO(f, sr_create, &iso));
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(mkdir(path, 0755), 0);
    FAILS(DO(f, sr_attach, &mine)); /* the mount point alone */
    FAILS(DO(f, sr_scan, &mine));
    FAILS(DO(f, disk_create, &mine, "a.raw", "raw", 4096));
    assert_int_equal(access(path_in(f, path, "a.raw"), F_OK), -1);
    assert_int_equal(DO(f, sr_attach, &old), 0);

    assert_int_equal(DO(f, sr_create, &mine), 0);
    assert_int_equal(DO(f, sr_create, &mine), 0); /* repeated */
    assert_int_equal(DO(f, sr_attach, &mine), 0);
    assert_int_equal(DO(f, disk_create, &mine, "a.raw", "raw", 4096), 0);
    FAILS(DO(f, sr_attach, &other));
    FAILS(DO(f, sr_create, &other)); /* it has disks */
    DO(f, disk_destroy, &mine, "a.raw");
    assert_int_equal(DO(f, sr_create, &other), 0);
    FAILS(DO(f, sr_attach, &mine));
    FAILS(DO(f, sr_attach, &old));

    assert_int_equal(DO(f, sr_destroy, &other), 0);
    assert_int_equal(access(path_in(f, path, ".drover-sr"), F_OK), -1);
    assert_int_equal(access(path, F_OK), 0); /* the operator's */
    assert_int_equal(DO(f, sr_attach, &first), 0);
    assert_int_equal(DO(f, sr_attach, &mine), 0);
}

static bool is_not_mounted(struct fixture *f)
{
    return streq(code(f), "SR_BACKEND_FAILURE") && strstr(f->op.failure.params[2], "is it mounted?");
}

#define REFUSED(what)                  \
    do {                               \
        what;                          \
        assert_true(is_not_mounted(f)); \
    } while (0)

/* What hides the mount point is gone: what is left is an empty directory of the host's own. */
static void nothing_is_done_where_an_sr_is_not_mounted(void **state)
{
    struct fixture *f = *state;
    const char *path = path_in(f, f->dir, "mount"), *away = path_in(f, f->dir, "away");
    struct value shared = sr_map(f, "shared-file", path), sr = marked(f, &shared, "sr-a", "check");
    struct value unmade = marked(f, &shared, "sr-a", "unmade");

    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(DO(f, sr_create, &sr), 0);
    assert_int_equal(DO(f, disk_create, &sr, "a.raw", "raw", 1 << 20), 0);
    assert_int_equal(DO(f, disk_create, &f->sr, "b.raw", "raw", 1 << 20), 0);
    assert_int_equal(rename(path, away), 0);
    for (int is_bare = 0; is_bare < 2; is_bare++) {
        if (is_bare)
            assert_int_equal(mkdir(path, 0755), 0);
        REFUSED(DO(f, sr_attach, &sr));
        REFUSED(DO(f, sr_scan, &sr));
        REFUSED(DO(f, sr_stat, &sr));
        REFUSED(DO(f, disk_create, &sr, "c.raw", "raw", 4096));
        REFUSED(DO(f, disk_create, &sr, "c.qcow2", "qcow2", 4096));
        REFUSED(DO(f, disk_clone, &sr, "a.raw", "c.raw"));
        REFUSED(DO(f, disk_copy, &sr, "a.raw", &f->sr, "c.raw"));
        REFUSED(DO(f, disk_copy, &f->sr, "b.raw", &sr, "c.raw"));
        REFUSED(DO(f, disk_resize, &sr, "a.raw", 2 << 20));
        REFUSED(DO(f, disk_destroy, &sr, "a.raw")); /* it is there still, and nobody would know */
        assert_int_equal(DO(f, disk_destroy, &unmade, "c.raw"), 0);
    }
    assert_int_equal(rmdir(path), 0); /* nothing was left there */
    assert_int_equal(access(path_in(f, f->dir, "c.raw"), F_OK), -1);

    assert_int_equal(rename(away, path), 0);
    assert_int_equal(DO(f, disk_clone, &sr, "a.raw", "c.raw"), 0);
    assert_int_equal(DO(f, disk_resize, &sr, "a.raw", 2 << 20), 0);
    assert_int_equal(DO(f, disk_destroy, &unmade, "c.raw"), 0);
    assert_int_equal(access(path_in(f, path, "c.raw"), F_OK), -1);
    assert_int_equal(DO(f, disk_destroy, &sr, "a.raw"), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(raw_disks_are_sparse_and_copies_stay_so),
        TEST(a_disk_only_grows),
        TEST(destroying_twice_is_done_once),
        TEST(names_stay_inside),
        TEST(a_repeated_create_finds_what_it_made),
        TEST(qcow2_clones_share_a_base_that_goes_with_the_last),
        TEST(no_base_goes_while_a_disk_is_put_on_another),
        TEST(bases_that_an_interrupted_end_has_left_go_with_a_scan),
        TEST(a_clone_of_an_open_disk_is_of_one_moment),
        TEST(an_interrupted_clone_is_finished_or_goes),
        TEST(long_chains_end_in_a_copy),
        TEST(a_scan_finds_disks_only),
        TEST(a_shared_directory_is_known_by_its_marker),
        TEST(nothing_is_done_where_an_sr_is_not_mounted),
        TEST(srs_are_attached_by_their_type),
    };
#undef TEST

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
