/* test_ledger.c - what was synced is there again; what was not is gone; and nobody else may hold it */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "shared/fiber.h"
#include "shared/loop.h"
#include "slave/ledger.h"
#include "tests/unit/no_log.h"

static const ref_t vm1 = {1, 1}, vm2 = {1, 2}, op1 = {2, 1}, op2 = {2, 2}, op3 = {2, 3};
static const ref_t alice = {3, 1}, bob = {3, 2};

struct fixture {
    struct loop *loop;
    struct ledger *ledger;
    struct ledger_disk disk;
    char dir[64], path[128];
    int running;
};

static int begin(void **state)
{
    struct fixture *f = new0(struct fixture);

    f->loop = loop_new(clock_real());
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

    ledger_destroy(&f->ledger);
    loop_destroy(&f->loop);
    ledger_disk_done(&f->disk);
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

static void open_file(struct fixture *f)
{
    struct ledger_store *store;
    int error;

    store = ledger_sqlite_open(f->path, NULL, &error);
    assert_non_null(store);
    f->ledger = ledger_new(f->loop, store, &error);
    assert_non_null(f->ledger);
}

static void sync_fiber(void *arg)
{
    struct fixture *f = arg;

    ledger_sync(f->ledger);
    if (--f->running == 0)
        loop_stop(f->loop);
}

static void sync_by(struct fixture *f, int fibers)
{
    f->running = fibers;
    for (int i = 0; i < fibers; i++)
        assert_non_null(fiber_spawn(f->loop, sync_fiber, f, "sync"));
    loop_run(f->loop);
}

static void fill(struct ledger *ledger)
{
    struct ledger_vm vm = {.vm = vm1, .epoch = 7, .progress = VM_PAUSED_FOR_MOVE, .domid = 12, .disks = (char *) "/a\n/b\n"};

    strcpy(vm.move, "move-1");
    strcpy(vm.aborted, "move-0");
    vm.reboot = op3;
    ledger_put_vm(ledger, &vm);
    ledger_put_vm(ledger, &(struct ledger_vm){.vm = vm2, .epoch = 1, .progress = VM_ENDED});
    ledger_op_begin(ledger, op1, "vm_send");
    ledger_op_begin(ledger, op2, "vm_start");
    ledger_op_end(ledger, op2, "\x93\xc0\xc0\xc0", 4);
    ledger_op_void(ledger, op3);
    ledger_follow(ledger, 4, alice);
    ledger_put_meta(ledger, "pool", "p");
    ledger_put_peer(ledger, "h1", "key address");
    assert_int_equal(ledger_next_domid(ledger), 1);
    assert_int_equal(ledger_next_domid(ledger), 2);
}

static void check(struct ledger *ledger)
{
    const struct ledger_vm *vm = ledger_vm(ledger, vm1);

    assert_non_null(vm);
    assert_int_equal(vm->epoch, 7);
    assert_int_equal(vm->progress, VM_PAUSED_FOR_MOVE);
    assert_int_equal(vm->domid, 12);
    assert_string_equal(vm->move, "move-1");
    assert_string_equal(vm->aborted, "move-0");
    assert_string_equal(vm->disks, "/a\n/b\n");
    assert_true(ref_equal(vm->reboot, op3));
    assert_int_equal(ledger_vm(ledger, vm2)->progress, VM_ENDED);
    assert_int_equal(ledger_op(ledger, op1)->state, OP_BEGUN);
    assert_string_equal(ledger_op(ledger, op1)->name, "vm_send");
    assert_int_equal(ledger_op(ledger, op2)->state, OP_DONE);
    assert_memory_equal(ledger_op(ledger, op2)->outcome, "\x93\xc0\xc0\xc0", 4);
    assert_int_equal(ledger_op(ledger, op3)->state, OP_VOID);
    assert_int_equal(ledger_epoch(ledger), 4);
    assert_true(ref_equal(ledger_holder(ledger), alice));
    assert_string_equal(ledger_meta(ledger, "pool", ""), "p");
    assert_string_equal(ledger_peer(ledger, "h1"), "key address");
    assert_int_equal(ledger_meta_number(ledger, "domid"), 2);
}

static void what_was_synced_is_there_again(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    open_file(f);
    fill(f->ledger);
    sync_by(f, 1);
    ledger_destroy(&f->ledger);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 077, 0); /* it holds the host's secret key */
    open_file(f);
    check(f->ledger);

    ledger_op_forget(f->ledger, op2);
    ledger_op_forget(f->ledger, op3);
    sync_by(f, 1);
    ledger_destroy(&f->ledger);
    open_file(f);
    assert_int_equal(ledger_op_count(f->ledger), 1);
    assert_null(ledger_op(f->ledger, op2));
}

static void many_fibers_share_a_sync(void **state)
{
    struct fixture *f = *state;

    open_file(f);
    for (uint64_t i = 1; i <= 500; i++)
        ledger_op_begin(f->ledger, (ref_t){9, i}, "vm_start");
    sync_by(f, 300);
    ledger_destroy(&f->ledger);
    open_file(f);
    assert_int_equal(ledger_op_count(f->ledger), 500);
}

static void a_ledger_has_one_holder(void **state)
{
    struct fixture *f = *state;
    int error = 0;

    open_file(f);
    assert_null(ledger_sqlite_open(f->path, NULL, &error));
    assert_int_equal(error, -EBUSY);
}

static void change_file(struct fixture *f, const char *sql)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void what_makes_no_sense_is_refused(void **state)
{
    struct fixture *f = *state;
    struct ledger_store *store;
    int error;

    open_file(f);
    fill(f->ledger);
    sync_by(f, 1);
    ledger_destroy(&f->ledger);
    change_file(f, "UPDATE rows SET value = x'01' WHERE kind = 'vm'");
    store = ledger_sqlite_open(f->path, NULL, &error);
    assert_non_null(store);
    assert_null(ledger_new(f->loop, store, &error));
    assert_int_equal(error, -EBADMSG);

    change_file(f, "PRAGMA user_version=2");
    assert_null(ledger_sqlite_open(f->path, NULL, &error));
    assert_int_equal(error, -EPROTO);
    assert_null(ledger_sqlite_open("/nonexistent/ledger", NULL, &error));
    assert_int_equal(error, -EIO);
}

static void memory_forgets_what_was_not_synced(void **state)
{
    struct fixture *f = *state;
    int error;

    f->ledger = ledger_new(f->loop, ledger_memory_open(&f->disk, f->loop), &error);
    fill(f->ledger);
    sync_by(f, 1);
    ledger_op_forget(f->ledger, op1);
    ledger_follow(f->ledger, 9, bob);
    ledger_destroy(&f->ledger);
    f->ledger = ledger_new(f->loop, ledger_memory_open(&f->disk, f->loop), &error);
    check(f->ledger);
    assert_true(f->disk.syncs >= 1);
}

static void lower_epochs_and_second_holders_are_refused(void **state)
{
    struct fixture *f = *state;
    int error;

    f->ledger = ledger_new(f->loop, ledger_memory_open(&f->disk, f->loop), &error);
    assert_true(ledger_may_follow(f->ledger, 1, alice));
    ledger_follow(f->ledger, 4, alice);
    assert_true(ledger_may_follow(f->ledger, 4, alice));
    assert_false(ledger_may_follow(f->ledger, 4, bob));
    assert_false(ledger_may_follow(f->ledger, 3, alice));
    assert_true(ledger_may_follow(f->ledger, 5, bob));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_synced_is_there_again, begin, end),
        cmocka_unit_test_setup_teardown(many_fibers_share_a_sync, begin, end),
        cmocka_unit_test_setup_teardown(a_ledger_has_one_holder, begin, end),
        cmocka_unit_test_setup_teardown(what_makes_no_sense_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(memory_forgets_what_was_not_synced, begin, end),
        cmocka_unit_test_setup_teardown(lower_epochs_and_second_holders_are_refused, begin, end),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
