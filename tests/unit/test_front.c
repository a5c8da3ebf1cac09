/* test_front.c - over real sockets: whose request it is, and replies too large for one piece */
#include "tests/unit/served.h"

#include "master/http_auth.h"

#define TASKS 3000

static ref_t other_host;

/* ---- a master that serves ---- */

static void say_who(struct http_request *http, struct http_caller *who, void *arg)
{
    char text[256];

    (void) arg;
    snprintf(text, sizeof text, "%s %s %s", who->caller.user_name, role_name(who->caller.role),
             who->is_for_request ? "once" : "stays");
    http_caller_end(&who);
    http_reply_text(http, 200, "", text);
}

static void who(struct http_request *http, void *arg)
{
    http_authenticate(arg, http, "who", ROLE_READ_ONLY, say_who, arg);
}

static void root_only(struct http_request *http, void *arg)
{
    http_authenticate(arg, http, "root", ROLE_LOCAL_ROOT, say_who, arg);
}

/* "/hand" to the slave of our own host, "/hand/on" to another's, "/hand/or" to our own's or, when that is away, the other's. */
static void hand(struct http_request *http, void *arg)
{
    bool is_or = streq(http->path, "/hand/or");

    front_hand_to(arg, http, is_or || streq(http->path, "/hand") ? front_core(arg)->host : other_host, is_or ? other_host : NULL_REF);
}

static void make_other_host(struct mini *mini)
{
    struct txn *txn = store_begin(mini->core.store);

    other_host = txn_create_new(txn, mini->core.random, CLASS_OF(host), NULL);
    host_put_address(txn, other_host, "2001:db8::2");
    store_apply(&txn);
    mini_run(mini);
}

static void serve(struct served *served)
{
    serve_new(served);
    front_add(served->front, HTTP_GET, "/who", who, served->front);
    front_add(served->front, HTTP_GET, "/root", root_only, served->front);
    front_add(served->front, HTTP_GET, "/hand", hand, served->front);
    serve_start(served);
}

/* ---- credentials ---- */

static void expect_from(struct raw *raw, const char *path, const char *headers, int status,
                        const char *body)
{
    char request[1024];
    char *got, *head;

    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, headers);
    raw_send(raw, request);
    got = raw_answer(raw, status, &head);
    if (body)
        assert_string_equal(got, body);
    if (status == 401)
        assert_non_null(strcasestr(head, "WWW-Authenticate: Basic realm=\"who\""));
    free(got);
    free(head);
    raw_close(&raw);
}

static void expect(struct served *served, const char *path, const char *headers, int status,
                   const char *body)
{
    expect_from(raw_connect("127.0.0.1", served->port), path, headers, status, body);
}

#define BASIC_RIGHT "Authorization: Basic cm9vdDpzZXNhbWU=\r\n" /* root:sesame */
#define BASIC_WRONG "Authorization: Basic cm9vdDp3cm9uZw==\r\n" /* root:wrong */

static void the_first_credentials_decide(void **state)
{
    struct served served;
    char session[REF_TEXT_BYTES + 64], text[256];

    (void) state;
    serve(&served);
    go(&served);
    expect(&served, "/who", "", 401, NULL);
    expect(&served, "/who", BASIC_RIGHT, 200, "root pool-admin once");
    expect(&served, "/who", BASIC_WRONG, 401, NULL);
    snprintf(session, sizeof session, "/who?session_id=%s", served.mini.session);
    expect(&served, session, "", 200, "root pool-admin stays");
    expect(&served, "/who?session_id=x", BASIC_RIGHT, 401, NULL);
    snprintf(text, sizeof text, "Cookie: session_id=%s\r\n", served.mini.session);
    expect(&served, "/who?session_id=x", text, 200, "root pool-admin stays");
    expect(&served, session, "Cookie: session_id=x\r\n", 401, NULL);
    expect(&served, "/who", "Cookie: pool_secret=pool secret\r\n", 200, " local-root stays");
    expect(&served, "/who", "Cookie: pool_secret=guess\r\n" BASIC_RIGHT, 401, NULL);
    snprintf(text, sizeof text, "/root?session_id=%s", served.mini.session);
    expect(&served, text, "", 403, NULL);
    expect_from(raw_connect_unix(served.path), "/root", "", 200, "root local-root stays");
    unserve(&served);
    /* Basic sessions ended with their requests. */
}

static void refused_credentials_fail_the_task(void **state)
{
    struct served served;
    struct mini_call call;
    const struct object *task;
    char path[256];

    (void) state;
    serve(&served);
    mini_call(&served.mini, &call, "task.create", served.mini.session, "import", "");
    go(&served);
    snprintf(path, sizeof path, "/who?session_id=x&task_id=%s", call.text);
    expect(&served, path, "", 401, NULL);
    loop_stop(served.mini.core.loop);
    pthread_join(served.thread, NULL);
    mini_run(&served.mini);
    task = mini_get(&served.mini, task, call.text);
    assert_int_equal(task_get_status(task), task_status_type_failure);
    assert_string_equal(task_get_error_info(task)->items[0].text, "SESSION_AUTHENTICATION_FAILED");
    assert_int_equal(sessions_count(&served.mini.core), 1);
    go(&served);
    unserve(&served);
}

/* ---- what slaves serve ---- */

static void expect_sent_on(struct served *served, const char *target)
{
    struct raw *raw = raw_connect("127.0.0.1", served->port);
    char *head, *location, request[128], expected[64];

    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target);
    raw_send(raw, request);
    free(raw_answer(raw, 302, &head));
    location = raw_header(head, "location");
    snprintf(expected, sizeof expected, "http://[2001:db8::2]:%u%s", served->port, target);
    assert_string_equal(location, expected);
    free(location);
    free(head);
    raw_close(&raw);
}

static void what_a_host_has_is_asked_of_that_host(void **state)
{
    struct served served;

    (void) state;
    serve(&served);
    make_other_host(&served.mini);
    go(&served);
    expect(&served, "/hand", "", 503, NULL); /* no agent has said hello */
    expect_sent_on(&served, "/hand/on?x=1");
    expect_sent_on(&served, "/hand/or?x=1");
    other_host.lo++; /* is gone */
    expect(&served, "/hand/on", "", 503, NULL);
    unserve(&served);
}

/* ---- before dispatch ---- */

static int closed(struct call *call, const struct method *method, void *arg)
{
    (void) method;
    (void) arg;
    return fail(call, HOST_IS_SLAVE, "192.0.2.9");
}

static void what_the_gate_refuses_has_one_form_in_json(void **state)
{
    struct served served;
    struct raw *raw;
    char *body;

    (void) state;
    serve(&served);
    dispatch_set_gate(served.mini.core.dispatch, closed, NULL);
    go(&served);
    raw = raw_connect("127.0.0.1", served.port);
    raw_send(raw, "POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Length: 39\r\n\r\n"
                  "{\"method\":\"pool.x\",\"params\":[],\"id\":17}");
    body = raw_answer(raw, 200, NULL);
    assert_non_null(strstr(body, "\"jsonrpc\""));
    assert_non_null(strstr(body, "[\"HOST_IS_SLAVE\",\"192.0.2.9\"]"));
    assert_null(strstr(body, "17"));
    free(body);
    raw_close(&raw);
    unserve(&served);
}

/* ---- large replies ---- */

static void make_tasks(struct mini *mini)
{
    struct txn *txn = store_begin(mini->core.store);
    char words[600];

    memset(words, 'w', sizeof words - 1);
    words[sizeof words - 1] = '\0';
    for (int i = 0; i < TASKS; i++) {
        ref_t ref = txn_create_new(txn, mini->core.random, CLASS_OF(task), NULL);

        task_put_name_label(txn, ref, "before");
        task_put_name_description(txn, ref, words);
    }
    store_apply(&txn);
    mini_run(mini);
}

static void rename_tasks(void *arg)
{
    struct mini *mini = arg;
    struct txn *txn = store_begin(mini->core.store);
    struct view_iter iter;
    const struct object *task;
    ref_t refs[TASKS];
    int n = 0;

    view_each(&iter, txn_view(txn), CLASS_OF(task));
    while ((task = view_next(&iter)))
        refs[n++] = task->ref;
    for (int i = 0; i < n; i++)
        task_put_name_label(txn, refs[i], "after");
    store_apply(&txn);
}

static void ask(struct served *served, struct raw *raw, const char *path, const char *version)
{
    char body[512], head[256];

    if (streq(path, "/jsonrpc"))
        snprintf(body, sizeof body,
                 "{\"method\":\"task.get_all_records\",\"params\":[\"%s\"],\"id\":1}",
                 served->mini.session);
    else
        snprintf(body, sizeof body,
                 "<methodCall><methodName>task.get_all_records</"
                 "methodName><params><param><value>%s</value>"
                 "</param></params></methodCall>",
                 served->mini.session);
    snprintf(head, sizeof head, "POST %s HTTP/%s\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", path,
             version, strlen(body));
    raw_send(raw, head);
    raw_send(raw, body);
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;

    for (const char *p = strstr(text, what); p; p = strstr(p + 1, what))
        n++;
    return n;
}

/* The chunks' data, as one text. */
static char *take_chunks(struct raw *raw)
{
    char *all = dup_text("");
    size_t length = 0;

    for (;;) {
        char *line = raw_take_until(raw, "\r\n"), *data;
        size_t bytes = strtoul(line, NULL, 16);

        free(line);
        data = raw_take(raw, bytes + 2);
        all = realloc_array(all, length + bytes + 1, 1);
        memcpy(all + length, data, bytes);
        length += bytes;
        all[length] = '\0';
        free(data);
        if (bytes == 0)
            return all;
    }
}

static void large_listings_come_in_chunks(void **state)
{
    struct served served;
    struct raw *raw;
    char *head, *text;

    (void) state;
    serve(&served);
    make_tasks(&served.mini);
    go(&served);
    raw = raw_connect("127.0.0.1", served.port);
    ask(&served, raw, "/", "1.1");
    head = raw_take_until(raw, "\r\n\r\n");
    assert_non_null(strcasestr(head, "transfer-encoding: chunked"));
    text = take_chunks(raw);
    assert_int_equal(count(text, "<member><name>OpaqueRef:"), TASKS);
    assert_non_null(strstr(text, "</member></struct></value></param></params></methodResponse>"));
    free(head);
    free(text);
    ask(&served, raw, "/jsonrpc", "1.1"); /* the connection goes on */
    free(raw_take_until(raw, "\r\n\r\n"));
    text = take_chunks(raw);
    assert_int_equal(count(text, "\"name_label\""), TASKS);
    assert_int_equal(text[strlen(text) - 1], '}');
    free(text);
    raw_close(&raw);
    raw = raw_connect("127.0.0.1", served.port);
    ask(&served, raw, "/", "1.0"); /* up to the end */
    text = raw_take_all(raw);
    assert_int_equal(count(text, "<member><name>OpaqueRef:"), TASKS);
    assert_null(strcasestr(text, "chunked"));
    free(text);
    raw_close(&raw);
    unserve(&served);
}

static void a_slow_reader_sees_one_generation(void **state)
{
    struct served served;
    struct raw *raw;
    char *head, *text;

    (void) state;
    serve(&served);
    make_tasks(&served.mini);
    go(&served);
    raw = raw_connect("127.0.0.1", served.port);
    ask(&served, raw, "/", "1.1");
    head = raw_take_until(raw, "\r\n\r\n"); /* it has begun, and most of it is not made yet */
    loop_call(served.mini.core.loop, rename_tasks, &served.mini);
    text = take_chunks(raw);
    assert_int_equal(count(text, "<value>before</value>"), TASKS);
    free(head);
    free(text);
    raw_close(&raw);
    unserve(&served);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_credentials_decide),
        cmocka_unit_test(refused_credentials_fail_the_task),
        cmocka_unit_test(what_a_host_has_is_asked_of_that_host),
        cmocka_unit_test(what_the_gate_refuses_has_one_form_in_json),
        cmocka_unit_test(large_listings_come_in_chunks),
        cmocka_unit_test(a_slow_reader_sees_one_generation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
