/* test_ledger_crash.c - the agent's ledger on a disk that fails: loss of power, failing syncs, a full disk
 *
 * A child writes operations as the agent does - begun, synced, the effect; outcome, synced, the reply - and notes in memory
 * that it shares with us what it has let out: the effect after the first sync, the reply after the second. Then its disk
 * fails. What the file holds afterwards must account for all that was let out. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "slave/ledger.h"
#include "tests/vfs/crash_vfs.h"

#define FIBERS       4
#define POWER_STATUS 42
#define POWER_CUTS   60

/* Per fiber, the number of the last operation that had its effect, was answered, was confirmed to be forgotten. */
struct notes {
    uint64_t effects[FIBERS], replies[FIBERS], epoch;
};

struct fixture {
    struct notes *notes;
    char dir[64], path[128];
};

struct worker {
    struct fixture *f;
    struct ledger *ledger;
    int number;
};

static ref_t op_of(int fiber, uint64_t n)
{
    return (ref_t){(uint64_t) fiber + 1, n};
}

static ref_t vm_of(int fiber)
{
    return (ref_t){77, (uint64_t) fiber + 1};
}

static int begin(void **state)
{
    struct fixture *f = new0(struct fixture);

    f->notes = mmap(NULL, sizeof *f->notes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(f->notes, MAP_FAILED);
    strcpy(f->dir, "/tmp/drover-ledger-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/ledger", f->dir);
    *state = f;
    return 0;
}

static int end(void **state)
{
    struct fixture *f = *state;
    char command[160];

    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    munmap(f->notes, sizeof *f->notes);
    free(f);
    return 0;
}

/* ---- the child: an agent's operations, one after the other for each fiber ---- */

static void work(void *arg)
{
    struct worker *worker = arg;
    struct notes *notes = worker->f->notes;
    struct ledger *ledger = worker->ledger;
    uint64_t n = MAX(notes->effects[worker->number], notes->replies[worker->number]);

    for (;;) {
        struct ledger_vm vm = {.vm = vm_of(worker->number), .epoch = ++n, .progress = VM_RAN};

        ledger_op_begin(ledger, op_of(worker->number, n), "vm_start");
        ledger_put_vm(ledger, &vm);
        if (worker->number == 0)
            ledger_follow(ledger, n, (ref_t){5, n});
        ledger_sync(ledger);
        if (worker->number == 0)
            notes->epoch = n;
        notes->effects[worker->number] = n;
        ledger_op_end(ledger, op_of(worker->number, n), "\xc3", 1); /* true */
        ledger_sync(ledger);
        notes->replies[worker->number] = n;
        if (n > 2)
            ledger_op_forget(ledger, op_of(worker->number, n - 2)); /* confirmed */
    }
}

struct failing {
    uint64_t cut_after, seed; /* power is lost at that operation on files; 0: not */
    bool is_at_opening; /* counted from the opening of the file, not from the first row */
    uint64_t syncs_fail_after;
    bool is_full;
};

static _noreturn_ void child(struct fixture *f, const struct failing *failing)
{
    struct loop *loop = loop_new(clock_real());
    struct worker workers[FIBERS];
    struct ledger *ledger;
    struct ledger_store *store;
    int error;

    setrlimit(RLIMIT_CORE, &(struct rlimit){0});
    alarm(60); /* a disk that never fails ends no child */
    log_set_level(LOG_ERROR);
    crash_vfs_register();
    if (failing->is_at_opening)
        crash_vfs_crash_after(failing->cut_after, failing->seed, POWER_STATUS);
    store = ledger_sqlite_open(f->path, CRASH_VFS, &error);
    if (!failing->is_at_opening)
        crash_vfs_crash_after(failing->cut_after, failing->seed, POWER_STATUS);
    ledger = store ? ledger_new(loop, store, &error) : NULL;
    if (!ledger)
        _exit(1);
    crash_vfs_fail_syncs(failing->syncs_fail_after);
    crash_vfs_fill_disk(failing->is_full);
    for (int i = 0; i < FIBERS; i++) {
        workers[i] = (struct worker){f, ledger, i};
        fiber_spawn(loop, work, &workers[i], "worker");
    }
    loop_run(loop);
    _exit(1);
}

static int run_child(struct fixture *f, const struct failing *failing)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0)
        child(f, failing);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* ---- afterwards ---- */

/* At least as far as what was let out, and at most one operation further. */
static void check(struct fixture *f)
{
    struct loop *loop = loop_new(clock_real());
    struct ledger_store *store;
    struct ledger *ledger;
    int error;

    store = ledger_sqlite_open(f->path, NULL, &error);
    assert_non_null(store);
    ledger = ledger_new(loop, store, &error);
    assert_non_null(ledger);
    assert_in_range(ledger_epoch(ledger), f->notes->epoch, f->notes->epoch + 1);
    for (int i = 0; i < FIBERS; i++) {
        const struct ledger_vm *vm = ledger_vm(ledger, vm_of(i));
        uint64_t effects = f->notes->effects[i], replies = f->notes->replies[i];
        const struct ledger_op *op = ledger_op(ledger, op_of(i, effects));

        if (effects > 0) {
            assert_non_null(vm);
            assert_in_range(vm->epoch, effects, effects + 1);
            assert_non_null(op);
        }
        if (replies > 0) {
            op = ledger_op(ledger, op_of(i, replies));
            assert_non_null(op);
            assert_int_equal(op->state, OP_DONE);
            assert_int_equal(op->outcome_bytes, 1);
        }
        if (vm) /* the next round goes on behind all that is there */
            f->notes->effects[i] = MAX(effects, vm->epoch);
    }
    f->notes->epoch = MAX(f->notes->epoch, ledger_epoch(ledger));
    ledger_destroy(&ledger);
    loop_destroy(&loop);
}

static void nothing_let_out_is_lost_with_the_power(void **state)
{
    struct fixture *f = *state;
    uint64_t replies = 0;

    for (uint64_t round = 1; round <= POWER_CUTS; round++) {
        int status = run_child(f, &(struct failing){.cut_after = 7 + 23 * round % 400,
                                                        .is_at_opening = round % 8 == 0, .seed = round});

        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), POWER_STATUS);
        check(f);
        /* what is there is taken for answered: its number is not used again */
        for (int i = 0; i < FIBERS; i++)
            f->notes->replies[i] = 0;
        replies += f->notes->effects[0];
    }
    assert_true(replies > 0);
}

static void a_failing_sync_ends_the_agent(void **state)
{
    struct fixture *f = *state;

    for (uint64_t after = 1; after < 20; after += 3) {
        int status = run_child(f, &(struct failing){.syncs_fail_after = after});

        assert_true(WIFSIGNALED(status)); /* die(): nothing was said that the disk does not hold */
        assert_int_equal(WTERMSIG(status), SIGABRT);
        check(f);
        for (int i = 0; i < FIBERS; i++)
            f->notes->replies[i] = 0;
    }
}

static void a_full_disk_ends_the_agent(void **state)
{
    struct fixture *f = *state;
    int status;

    status = run_child(f, &(struct failing){.cut_after = 300, .seed = 3}); /* something is there */
    assert_true(WIFEXITED(status));
    check(f);
    status = run_child(f, &(struct failing){.is_full = true});
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    check(f);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(nothing_let_out_is_lost_with_the_power),
        TEST(a_failing_sync_ends_the_agent),
        TEST(a_full_disk_ends_the_agent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
