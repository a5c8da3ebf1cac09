/* test_task.c - tasks: progress, cancel, their end, and what the collector leaves */
#include <errno.h>

#include "tests/unit/mini_master.h"

/* A call at work on a task, as dispatch.c would run it; what it does is up to the test. */
struct worker {
    struct mini *mini;
    struct call call;
    struct waitq gate;
    int waited; /* what the wait at the gate answered */
    bool is_cancellable;
    bool is_over;
};

static void work(void *arg)
{
    struct worker *worker = arg;
    struct call *call = &worker->call;
    int r = 0;

    assert_int_equal(task_attach(call, "Async.VM.start", NULL, NULL), 0);
    task_set_cancellable(call, worker->is_cancellable);
    worker->waited = waitq_wait(&worker->gate, 0);
    if (worker->waited == -ECANCELED)
        r = task_cancelled(call);
    call->reply = value_text("<done>");
    task_end(call, r);
    worker->is_over = true;
}

static void begin(struct worker *worker, struct mini *mini, bool is_cancellable)
{
    *worker = (struct worker){.mini = mini, .is_cancellable = is_cancellable};
    worker->call.core = &mini->core;
    worker->call.arena = arena_new();
    worker->call.is_async = true;
    worker->call.name = "VM.start";
    worker->call.caller.user_name = "root";
    ref_parse(mini->session, strlen(mini->session), &worker->call.caller.session);
    assert_non_null(fiber_spawn(mini->core.loop, work, worker, "worker"));
    mini_run(mini);
}

static const struct object *row(struct worker *worker)
{
    return view_get(store_core_view(worker->mini->core.store), task, worker->call.task);
}

static void progress_is_written_once_a_second_and_never_backwards(void **state)
{
    struct mini mini;
    struct worker w;

    (void) state;
    mini_start(&mini);
    begin(&w, &mini, false);
    task_progress(&w.call, 0.25);
    assert_float_equal(task_get_progress(row(&w)), 0.25, 0);
    task_progress(&w.call, 0.5);
    task_progress(&w.call, 0.4);
    assert_float_equal(task_get_progress(row(&w)), 0.25, 0);
    mini_advance(&mini, 999);
    assert_float_equal(task_get_progress(row(&w)), 0.25, 0);
    mini_advance(&mini, 1);
    assert_float_equal(task_get_progress(row(&w)), 0.5, 0);
    mini_advance(&mini, 5000);
    task_progress(&w.call, 7);
    assert_float_equal(task_get_progress(row(&w)), 1, 0);
    waitq_wake_all(&w.gate);
    mini_run(&mini);
    assert_int_equal(task_get_status(row(&w)), task_status_type_success);
    assert_string_equal(task_get_result(row(&w)), "<value>&lt;done&gt;</value>");
    arena_destroy(&w.call.arena);
    mini_stop(&mini);
}

static void a_cancel_waits_until_it_may(void **state)
{
    struct mini mini;
    struct worker w;
    struct mini_call cancel;
    char task[REF_TEXT_BYTES];

    (void) state;
    mini_start(&mini);
    begin(&w, &mini, false);
    ref_print(task, w.call.task);
    assert_int_equal(task_get_allowed_operations(row(&w))->length, 0);
    mini_call(&mini, &cancel, "task.cancel", mini.session, task);
    assert_int_equal(cancel.r, 0);
    assert_false(w.is_over);
    assert_true(task_is_cancelled(&w.call));
    assert_int_equal(task_get_current_operations(row(&w))->length, 1);
    task_set_cancellable(&w.call, true);
    /* From outside of the fiber, as the note of a slave would: */
    mini_run(&mini);
    assert_true(w.is_over);
    assert_int_equal(w.waited, -ECANCELED);
    assert_int_equal(task_get_status(row(&w)), task_status_type_cancelled);
    assert_string_equal(task_get_error_info(row(&w))->items[0].text, "TASK_CANCELLED");
    assert_string_equal(task_get_error_info(row(&w))->items[1].text, task);
    assert_int_equal(task_get_current_operations(row(&w))->length, 0);
    mini_call(&mini, &cancel, "task.cancel", mini.session, task);
    assert_string_equal(cancel.code, "OPERATION_NOT_ALLOWED");
    arena_destroy(&w.call.arena);

    begin(&w, &mini, true);
    assert_int_equal(task_get_allowed_operations(row(&w))->length, 1);
    ref_print(task, w.call.task);
    mini_call(&mini, &cancel, "task.cancel", mini.session, task);
    assert_true(w.is_over);
    assert_int_equal(task_get_status(row(&w)), task_status_type_cancelled);
    arena_destroy(&w.call.arena);
    mini_stop(&mini);
}

static size_t rows(struct mini *mini)
{
    return view_count(store_core_view(mini->core.store), CLASS_OF(task));
}

static void make(struct mini *mini, unsigned count, char last[REF_TEXT_BYTES])
{
    struct mini_call call;

    for (unsigned i = 0; i < count; i++) {
        mini_call(mini, &call, "task.create", mini->session, "x", "");
        strcpy(last, call.text);
        mini_call(mini, &call, "task.set_status", mini->session, last, "success");
        assert_int_equal(call.r, 0);
    }
}

static void finished_tasks_go_by_age_and_number(void **state)
{
    struct mini mini;
    char task[REF_TEXT_BYTES];
    struct mini_call call;

    (void) state;
    mini_start_with(&mini,
                    &(struct dispatch_limits){.fibers_max = 8, .queue_max = 8, .tasks_max = 8},
                    &(struct session_limits) SESSION_LIMITS_DEFAULT,
                    &(struct task_limits){.kept_max = 10, .kept_s = 3900, .pending_s = 86400});
    make(&mini, 30, task);
    mini_advance(&mini, 299000);
    assert_int_equal(rows(&mini), 30); /* recent ones do not count against the cap */
    mini_advance(&mini, 62000);
    assert_int_equal(rows(&mini), 10);
    make(&mini, 5, task);
    mini_advance(&mini, 120000);
    assert_int_equal(rows(&mini), 15);
    mini_advance(&mini, 3600000);
    assert_int_equal(rows(&mini), 5); /* the first ten are older than 65 min */
    mini_call(&mini, &call, "task.destroy", mini.session, task);
    assert_int_equal(rows(&mini), 4);
    mini_advance(&mini, 600000);
    assert_int_equal(rows(&mini), 0);

    /* Pending without work: a day; one that is to be destroyed: the next round. */
    mini_call(&mini, &call, "task.create", mini.session, "stays", "");
    mini_call(&mini, &call, "task.create", mini.session, "goes", "");
    strcpy(task, call.text);
    mini_call(&mini, &call, "task.destroy", mini.session, task);
    assert_int_equal(rows(&mini), 2);
    mini_advance(&mini, 3700000);
    assert_int_equal(rows(&mini), 1);
    mini_advance(&mini, 86400000);
    assert_int_equal(rows(&mini), 0);
    mini_stop(&mini);
}

static void a_new_master_ends_what_nobody_continues(void **state)
{
    struct mini mini;
    struct mini_call lost, kept, ended;
    const struct object *task;

    (void) state;
    mini_start(&mini);
    mini_call(&mini, &lost, "task.create", mini.session, "lost", "");
    mini_call(&mini, &kept, "task.create", mini.session, "kept", "");
    mini_call(&mini, &ended, "task.create", mini.session, "ended", "");
    {
        struct mini_call call;
        struct txn *txn;
        ref_t intent, ref;

        mini_call(&mini, &call, "task.set_status", mini.session, ended.text, "success");
        txn = store_begin(mini.core.store);
        intent = txn_create_new(txn, mini.core.random, CLASS_OF(intent), NULL);
        assert_true(ref_parse(kept.text, strlen(kept.text), &ref));
        intent_put_task(txn, intent, ref);
        store_apply(&txn);
    }
    tasks_recover(&mini.core);
    task = mini_get(&mini, task, lost.text);
    assert_int_equal(task_get_status(task), task_status_type_failure);
    assert_string_equal(task_get_error_info(task)->items[0].text, "INTERNAL_ERROR");
    assert_int_equal(task_get_status(mini_get(&mini, task, kept.text)), task_status_type_pending);
    assert_int_equal(task_get_status(mini_get(&mini, task, ended.text)), task_status_type_success);
    mini_stop(&mini);
}

static void others_tasks_take_a_role(void **state)
{
    struct mini mini;
    struct mini_call call, task, own;
    struct txn *txn;
    ref_t account;
    char *hash = password_hash("x");
    char ada[REF_TEXT_BYTES];

    (void) state;
    mini_start(&mini);
    txn = store_begin(mini.core.store);
    account = txn_create_new(txn, mini.core.random, CLASS_OF(account), NULL);
    account_put_name_label(txn, account, "ada");
    account_put_password_hash(txn, account, hash);
    account_put_role(txn, account, "read-only");
    store_apply(&txn);
    free(hash);
    mini_call(&mini, &call, "session.login_with_password", "ada", "x");
    assert_int_equal(call.r, 0);
    strcpy(ada, call.text);
    mini_call(&mini, &task, "task.create", mini.session, "root's", "");
    mini_call(&mini, &call, "task.cancel", ada, task.text);
    assert_string_equal(call.code, "RBAC_PERMISSION_DENIED");
    mini_call(&mini, &own, "task.create", ada, "ada's", "");
    mini_call(&mini, &call, "task.cancel", ada, own.text);
    assert_int_equal(call.r, 0);
    mini_call(&mini, &call, "session.logout", ada);
    mini_call(&mini, &call, "session.login_with_password", "ada", "x");
    strcpy(ada, call.text);
    mini_call(&mini, &call, "task.cancel", ada, own.text); /* the user's, whatever the session */
    assert_int_equal(call.r, 0);
    mini_call(&mini, &call, "task.destroy", mini.session, own.text);
    assert_int_equal(call.r, 0);
    mini_stop(&mini);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(progress_is_written_once_a_second_and_never_backwards),
        cmocka_unit_test(a_cancel_waits_until_it_may),
        cmocka_unit_test(finished_tasks_go_by_age_and_number),
        cmocka_unit_test(a_new_master_ends_what_nobody_continues),
        cmocka_unit_test(others_tasks_take_a_role),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
