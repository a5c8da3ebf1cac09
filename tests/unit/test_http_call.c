/* test_http_call.c - an HTTP request that is no call becomes a fiber, reports into a task, and is
 * answered */
#include <stdatomic.h>

#include "tests/unit/served.h"

#include "shared/fiber.h"

#include "master/http_call.h"

/* What /work does is in its path's query: ?how=well|badly|elsewhere|early|later|slowly. */
struct deed {
    char how[16];
};

static atomic_bool is_held, is_released; /* what is done slowly */

static int run(struct call *call, void *arg)
{
    struct deed *deed = arg;
    int r;

    if (streq(deed->how, "early"))
        return fail(call, UUID_INVALID, "VM", "<x>");
    r = http_call_task(call, "Work on a thing", "");
    if (r < 0)
        return r;
    if (streq(deed->how, "later"))
        return fail(call, TOO_BUSY);
    task_progress(call, 0.5);
    if (streq(deed->how, "slowly")) {
        atomic_store(&is_held, true);
        while (!atomic_load(&is_released))
            fiber_sleep(1);
    }
    if (streq(deed->how, "badly"))
        return fail(call, IMPORT_ERROR, "no luck");
    if (streq(deed->how, "elsewhere"))
        http_call_pass_on(call);
    call->reply = value_text("done");
    return 0;
}

static void answered(struct http_request *http, struct call *call, int r, void *arg)
{
    if (http && r < 0)
        http_call_reply_failure(http, call);
    else if (http)
        http_reply_text(http, 200, http_call_task_header(call), call->reply.text);
    free(arg);
}

static void begin(struct http_request *http, struct http_caller *caller, void *arg)
{
    struct deed *deed = new0(struct deed);

    (void) arg;
    snprintf(deed->how, sizeof deed->how, "%s", http_param(http, "how"));
    http_call_start(
        http, caller,
        &(struct http_call){.name = "work", .run = run, .answer = answered, .arg = deed});
}

static void on_work(struct http_request *http, void *arg)
{
    http_authenticate(arg, http, "work", ROLE_VM_ADMIN, begin, NULL);
}

static void serve(struct served *served, struct mini_call *call)
{
    serve_new(served);
    front_add(served->front, HTTP_GET, "/work", on_work, served->front);
    serve_start(served);
    mini_call(&served->mini, call, "task.create", served->mini.session, "mine", "");
    go(served);
}

/* The task of the answer's header, or "". */
static void ask(struct served *served, const char *query, int status, const char *body,
                char *ret_task)
{
    struct raw *raw = raw_connect("127.0.0.1", served->port);
    char request[512];
    char *got, *head, *task;

    snprintf(request, sizeof request, "GET /work?session_id=%s&%s HTTP/1.1\r\nHost: x\r\n\r\n",
             served->mini.session, query);
    raw_send(raw, request);
    got = raw_answer(raw, status, &head);
    assert_non_null(strstr(got, body));
    task = raw_header(head, "task-id");
    if (ret_task)
        strcpy(ret_task, task ? task : "");
    free(got);
    free(head);
    free(task);
    raw_close(&raw);
}

/* The core's thread ends, so that the test may look. */
static void halt(struct served *served)
{
    loop_stop(served->mini.core.loop);
    pthread_join(served->thread, NULL);
    mini_run(&served->mini);
}

static void expect_task(struct served *served, const char *text, const char *label,
                        enum task_status_type status, const char *result)
{
    const struct object *task = mini_get(&served->mini, task, text);

    assert_non_null(task);
    assert_string_equal(task_get_name_label(task), label);
    assert_int_equal(task_get_status(task), status);
    if (status == task_status_type_failure)
        assert_string_equal(task_get_error_info(task)->items[0].text, result);
    else
        assert_string_equal(task_get_result(task), result);
}

static void work_makes_a_task_of_its_own(void **state)
{
    struct served served;
    struct mini_call mine;
    char good[REF_TEXT_BYTES], bad[REF_TEXT_BYTES], child[REF_TEXT_BYTES], query[256];

    (void) state;
    serve(&served, &mine);
    ask(&served, "how=well", 200, "done", good);
    ask(&served, "how=badly", 400, "IMPORT_ERROR: no luck", bad);
    assert_string_not_equal(bad, ""); /* a refusal says so, too */
    ask(&served, "how=later", 503, "TOO_BUSY", NULL);
    ask(&served, "how=early", 404, "UUID_INVALID: VM, &lt;x&gt;", NULL);
    snprintf(query, sizeof query, "how=well&subtask_of=%s", mine.text);
    ask(&served, query, 200, "done", child);
    halt(&served);
    expect_task(&served, good, "Work on a thing", task_status_type_success, "<value>done</value>");
    assert_true(ref_is_null(task_get_subtask_of(mini_get(&served.mini, task, good))));
    assert_true(ref_equal(task_get_subtask_of(mini_get(&served.mini, task, child)),
                          mini_get(&served.mini, task, mine.text)->ref));
    assert_int_equal(view_count(store_core_view(served.mini.core.store), CLASS_OF(task)), 5);
    go(&served);
    unserve(&served);
}

static void a_named_task_is_reported_into_and_ends(void **state)
{
    struct served served;
    struct mini_call mine;
    char task[REF_TEXT_BYTES], query[256];

    (void) state;
    serve(&served, &mine);
    snprintf(query, sizeof query, "how=elsewhere&task_id=%s", mine.text);
    ask(&served, query, 200, "done", task); /* the other host's now */
    assert_string_equal(task, "");
    snprintf(query, sizeof query, "how=early&task_id=%s", mine.text);
    ask(&served, query, 404, "UUID_INVALID", task);
    assert_string_equal(task, mine.text);
    ask(&served, "how=early&task_id=x%0d%0aset-cookie:%20a", 404, "HANDLE_INVALID", task);
    assert_string_equal(task, "");
    snprintf(query, sizeof query, "how=well&task_id=%s", mine.text);
    ask(&served, query, 404, "HANDLE_INVALID: task", NULL); /* it is over */
    halt(&served);
    expect_task(&served, mine.text, "mine", task_status_type_failure, "UUID_INVALID");
    assert_int_equal(view_count(store_core_view(served.mini.core.store), CLASS_OF(task)), 1);
    go(&served);
    unserve(&served);
}

static int closed(struct call *call, const struct method *method, void *arg)
{
    (void) method;
    (void) arg;
    return fail(call, HOST_IS_SLAVE, "192.0.2.9");
}

static void what_may_not_begin_fails_its_task(void **state)
{
    struct served served;
    struct mini_call mine;
    char query[256];

    (void) state;
    serve(&served, &mine);
    dispatch_set_gate(served.mini.core.dispatch, closed, NULL);
    snprintf(query, sizeof query, "how=well&task_id=%s", mine.text);
    ask(&served, query, 503, "HOST_IS_SLAVE: 192.0.2.9", NULL);
    halt(&served);
    expect_task(&served, mine.text, "mine", task_status_type_failure, "HOST_IS_SLAVE");
    go(&served);
    unserve(&served);
}

/* Who is refused cannot end what another one does. */
static void a_refusal_ends_no_task_that_is_at_work(void **state)
{
    struct served served;
    struct mini_call mine;
    struct raw *slow, *stranger;
    char request[512], *got, *head;

    (void) state;
    serve(&served, &mine);
    slow = raw_connect("127.0.0.1", served.port);
    stranger = raw_connect("127.0.0.1", served.port);
    snprintf(request, sizeof request,
             "GET /work?session_id=%s&how=slowly&task_id=%s HTTP/1.1\r\nHost: x\r\n\r\n",
             served.mini.session, mine.text);
    raw_send(slow, request);
    while (!atomic_load(&is_held))
        usleep(1000);
    snprintf(request, sizeof request,
             "GET /work?session_id=OpaqueRef:NULL&how=well&task_id=%s HTTP/1.1\r\nHost: x\r\n\r\n",
             mine.text);
    raw_send(stranger, request);
    got = raw_answer(stranger, 401, &head);
    free(got);
    free(head);
    raw_close(&stranger);
    halt(&served); /* what the refusal has posted is done */
    assert_int_equal(task_get_status(mini_get(&served.mini, task, mine.text)), task_status_type_pending);
    go(&served);
    atomic_store(&is_released, true);
    got = raw_answer(slow, 200, &head);
    free(got);
    free(head);
    raw_close(&slow);
    halt(&served);
    expect_task(&served, mine.text, "mine", task_status_type_success, "<value>done</value>");
    go(&served);
    unserve(&served);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_makes_a_task_of_its_own),
        cmocka_unit_test(a_named_task_is_reported_into_and_ends),
        cmocka_unit_test(what_may_not_begin_fails_its_task),
        cmocka_unit_test(a_refusal_ends_no_task_that_is_at_work),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
