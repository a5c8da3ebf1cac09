/* test_journal_crash.c - no acknowledged write is lost, however the process ends
 *
 *   child: eight fibers, each again and again:                     parent, after each crash: load
 * the store; one transaction: my counter + 1, the counter of all + 1      every fiber's counter is
 * at least what its wait until it is visible                                     note says, and the
 * counter of all is the note my counter in a file                                    sum of theirs:
 * a prefix, nothing mixed
 *
 * The child ends by kill -9 at a random instant, or loses power (tests/vfs) before a random write
 * or sync: anywhere in making the store, loading it, group commits, folding, pruning, and WAL
 * restarts, since all limits are small. The notes need no sync: neither end takes the kernel's
 * pages from a file outside of the VFS.
 *
 * One directory goes through all crashes of a kind. DROVER_CRASHES says how many (10), DROVER_SEED
 * repeats. */
#include "journal_world.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "shared/fiber.h"

#include "tests/vfs/crash_vfs.h"

#define FIBERS       8
#define POWER_STATUS 77

static const ref_t all = {77, 77}; /* the host that counts all writes, in its name_description */

static ref_t vm_of(int i)
{
    return (ref_t){100, (uint64_t) i + 1};
}

/* ---- the child ---- */

struct writer {
    struct journal_world *world;
    int number;
    int notes_fd;
};

static void note(const struct writer *writer, int64_t counter)
{
    if (pwrite(writer->notes_fd, &counter, sizeof counter, writer->number * 8) != sizeof counter)
        die("cannot note");
}

static int64_t counter_of_all(const struct view *view)
{
    const struct object *host = view_get(view, host, all);

    return host ? strtoll(host_get_name_description(host), NULL, 10) : 0;
}

static int64_t count_one(struct journal_world *world, int number)
{
    struct txn *txn = store_begin(world->store);
    ref_t vm = vm_of(number);
    int64_t counter;
    char text[32];

    if (!txn_get(txn, host, all))
        txn_create(txn, CLASS_OF(host), all, NULL);
    if (!txn_get(txn, VM, vm))
        txn_create(txn, CLASS_OF(VM), vm, NULL);
    counter = VM_get_memory_target(txn_get(txn, VM, vm)) + 1;
    VM_put_memory_target(txn, vm, counter);
    snprintf(text, sizeof text, "%lld", (long long) counter_of_all(txn_view(txn)) + 1);
    host_put_name_description(txn, all, text);
    if (counter % 50 == 0) { /* objects come and go, too */
        ref_t vbd = txn_create_new(txn, world->random, CLASS_OF(VBD), NULL);
        ref_t old = random_object(txn_view(txn), world->random, CLASS_OF(VBD));

        VBD_put_VM(txn, vbd, vm);
        if (!ref_is_null(old))
            txn_delete(txn, CLASS_OF(VBD), old);
    }
    store_wait_visible(world->store, store_apply(&txn));
    return counter;
}

static void write_fiber(void *arg)
{
    struct writer *writer = arg;

    for (;;)
        note(writer, count_one(writer->world, writer->number));
}

static _noreturn_ void child(struct journal_world *world, int notes_fd, uint64_t crash_seed,
                             uint64_t operations)
{
    struct writer writers[FIBERS];

    seeded_random_init(&world->seeded,
                       crash_seed); /* random_real() reads ahead: a fork would repeat it */
    world->config.fold_records = 64;
    world->config.fold_interval_ms = 5;
    world->config.wal_bytes_max = 128 << 10;
    if (operations > 0) {
        crash_vfs_register();
        crash_vfs_crash_after(operations, crash_seed, POWER_STATUS);
        world->config.vfs = CRASH_VFS;
    }
    if (world_start(world) < 0)
        die("child: %s", world->text);
    for (int i = 0; i < FIBERS; i++) {
        writers[i] = (struct writer){world, i, notes_fd};
        fiber_spawn(world->loop, write_fiber, &writers[i], "writer");
    }
    for (;;)
        loop_run(world->loop); /* the listener of the world stops it now and then */
}

/* ---- the parent ---- */

static void check(struct journal_world *world, int notes_fd, bool must_exist)
{
    int64_t sum = 0;

    world->config.vfs = NULL;
    if (world_start(world) < 0)
        fail_msg("%s", world->text);
    check_indexes(store_core_view(world->store), true);
    for (int i = 0; i < FIBERS; i++) {
        const struct object *vm = view_get(store_core_view(world->store), VM, vm_of(i));
        int64_t counter = vm ? VM_get_memory_target(vm) : 0, noted = 0;

        if (pread(notes_fd, &noted, sizeof noted, i * 8) < 0)
            fail_msg("cannot read the notes");
        if (counter < noted || counter > noted + 1)
            fail_msg("fiber %d: noted %lld, found %lld", i, (long long) noted, (long long) counter);
        sum += counter;
    }
    assert_int_equal(counter_of_all(store_core_view(world->store)), sum);
    if (must_exist) {
        print_message("%lld writes\n", (long long) sum);
        assert_true(sum > 0);
    }
    world_stop(world);
}

/* The fiber whose note was cut off by the crash goes on from what was found. */
static void take_over(struct journal_world *world, int notes_fd)
{
    if (world_start(world) < 0)
        fail_msg("%s", world->text);
    for (int i = 0; i < FIBERS; i++) {
        const struct object *vm = view_get(store_core_view(world->store), VM, vm_of(i));
        struct writer writer = {world, i, notes_fd};

        note(&writer, vm ? VM_get_memory_target(vm) : 0);
    }
    world_stop(world);
}

static void crashes(bool is_power, uint64_t seed)
{
    const char *count_text = getenv("DROVER_CRASHES");
    int count = count_text ? atoi(count_text) : 10;
    struct journal_world world;
    struct seeded_random seeded;
    char path[256];
    int notes_fd;

    print_message("seed %llu\n", (unsigned long long) seed);
    seeded_random_init(&seeded, seed);
    world_init(&world, seed);
    snprintf(path, sizeof path, "%s/notes", world.directory);
    notes_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(notes_fd >= 0);
    for (int i = 0; i < count; i++) {
        /* Early ones hit the making of the store, late ones folding and restarts. */
        uint64_t operations = is_power ? 1 + random_below(&seeded.random, i % 3 ? 5000 : 100) : 0;
        uint64_t crash_seed = random_u64(&seeded.random);
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
            child(&world, notes_fd, crash_seed, operations);
        if (!is_power) {
            struct timespec pause = {0, (long) random_below(&seeded.random, 300 * 1000 * 1000)};

            nanosleep(&pause, NULL); /* the random instant itself: nothing to be waited for */
            kill(pid, SIGKILL);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (is_power ? !WIFEXITED(status) || WEXITSTATUS(status) != POWER_STATUS
                     : !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail_msg("crash %d of seed %llu: the child ended by itself, status %x", i,
                     (unsigned long long) seed, status);
        check(&world, notes_fd, false);
        take_over(&world, notes_fd);
    }
    check(&world, notes_fd, true);
    close(notes_fd);
    world_done(&world);
}

static uint64_t first_seed(void)
{
    const char *text = getenv("DROVER_SEED");

    return text ? strtoull(text, NULL, 10) : random_u64(random_real());
}

static void killed(_unused_ void **state)
{
    crashes(false, first_seed());
}

static void out_of_power(_unused_ void **state)
{
    crashes(true, first_seed());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed),
        cmocka_unit_test(out_of_power),
    };

    model_init();
    return cmocka_run_group_tests_name("journal_crash", tests, NULL, NULL);
}
