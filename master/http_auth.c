/* http_auth.c - who makes an HTTP request that is no call
 *
 * Sessions are checked in a pinned view, right on the loop. Basic credentials go the way of every
 * login: a call to session.login_with_password through dispatch(), with all that guards it; the
 * request waits meanwhile. */
#include "master/http_auth.h"

#include <openssl/crypto.h>
#include <stdio.h>

#include "master/core.h"
#include "master/dispatch.h"
#include "master/session.h"
#include "master/store.h"
#include "master/task.h"

struct asking {
    struct front *front;
    struct http_ticket ticket;
    char *realm;
    enum role least;
    http_auth_fn *fn;
    void *arg;
    struct http_caller *caller; /* of a Basic login; NULL: refused */
    char *task_id;              /* that the request names, or NULL */
};

static struct http_caller *caller_new(struct core *core, const struct http_request *http)
{
    struct http_caller *caller = new0(struct http_caller);

    caller->core = core;
    caller->arena = arena_new();
    caller->caller = (struct caller){
        .role = ROLE_READ_ONLY,
        .user_name = "",
        .originator = "",
        .address = http->is_unix ? "unix" : arena_strdup(caller->arena, http->peer),
    };
    return caller;
}

const char *http_named(struct http_request *http, const char *name)
{
    const char *cookie = http_cookie(http, name);

    return cookie ? cookie : http_param(http, name);
}

const char *http_task_header(char ret[HTTP_TASK_HEADER_BYTES], const char *task_id)
{
    char text[REF_TEXT_BYTES];
    ref_t task;

    ret[0] = '\0';
    if (task_id && ref_parse(task_id, strlen(task_id), &task))
        snprintf(ret, HTTP_TASK_HEADER_BYTES, "task-id: %s\r\n", ref_print(text, task));
    return ret;
}

/* ---- the end ---- */

static void logged_out(struct request *request, int r, bool is_last)
{
    (void) r;
    (void) is_last;
    request_destroy(&request);
}

void http_caller_end(struct http_caller **caller_p)
{
    struct http_caller *caller = TAKE(*caller_p);

    if (!caller)
        return;
    if (caller->is_for_request) {
        struct request *request = request_new(caller->core->dispatch);
        struct value *raw = arena_new0(request->call.arena, struct value);

        *raw = value_text(ref_text(&request->call, caller->caller.session));
        request->text = "session.logout";
        request->raw = raw;
        request->raw_count = 1;
        request->call.caller.address = "";
        request->answer = logged_out;
        dispatch(request);
    }
    arena_destroy(&caller->arena);
    free(caller);
}

/* ---- refusals ---- */

struct failing {
    struct core *core;
    char *task;
    bool is_gone; /* the client; else it was refused */
};

static void fail_task(void *arg)
{
    struct failing *failing = arg;
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    _cleanup_(txn_end) struct txn *txn = store_begin(failing->core->store);
    struct failure failure = {0};

    if (failing->is_gone)
        failure_set(&failure, arena, INTERNAL_ERROR, "the client has closed the connection");
    else
        failure_set(&failure, arena, SESSION_AUTHENTICATION_FAILED, "",
                    "the request's credentials were refused");
    task_put_refused(failing->core, txn, failing->task, &failure);
    store_apply(&txn);
    free(failing->task);
    free(failing);
}

static void fail_named_task(struct core *core, const char *task, bool is_gone)
{
    struct failing *failing;

    if (!task)
        return;
    failing = new0(struct failing);
    *failing = (struct failing){core, dup_text(task), is_gone};
    loop_call(core->loop, fail_task, failing);
}

void http_client_gone(struct core *core, const char *task_id)
{
    fail_named_task(core, task_id, true);
}

static void refuse(struct core *core, struct http_request *http, const char *realm, int status)
{
    const char *task_id = http_named(http, "task_id");
    char task[HTTP_TASK_HEADER_BYTES], headers[256 + HTTP_TASK_HEADER_BYTES];

    fail_named_task(core, task_id, false);
    http_close_after(http); /* a body that comes is not wanted */
    http_task_header(task, task_id);
    if (status == 401) {
        snprintf(headers, sizeof headers, "WWW-Authenticate: Basic realm=\"%.200s\"\r\n%s", realm, task);
        http_reply_html(http, 401, headers, "who are you?");
    } else {
        http_reply_html(http, status, task, "your role does not allow this");
    }
}

static void settle(struct core *core, struct http_request *http, struct http_caller *caller,
                   const char *realm, enum role least, http_auth_fn *fn, void *arg)
{
    if (caller && caller->caller.role >= least) {
        fn(http, caller, arg);
        return;
    }
    refuse(core, http, realm, caller ? 403 : 401);
    http_caller_end(&caller);
}

/* ---- sessions ---- */

/* The session's caller, or NULL. */
static struct http_caller *caller_of_session(struct core *core, const struct http_request *http,
                                             const char *text)
{
    struct request *request = request_new(core->dispatch);
    struct http_caller *caller = NULL;

    request_pin(request);
    if (session_check(&request->call, text, NULL) == 0
        && !session_get_is_local(
            view_get(request->pinned, session, request->call.caller.session))) {
        caller = caller_new(core, http);
        request->call.caller.address = caller->caller.address;
        caller->caller = request->call.caller;
        caller->caller.user_name = arena_strdup(caller->arena, caller->caller.user_name);
        caller->caller.originator = arena_strdup(caller->arena, caller->caller.originator);
    }
    request_destroy(&request);
    return caller;
}

/* ---- Basic ---- */

static void basic_done(struct http_request *http, void *arg)
{
    struct asking *asking = arg;

    if (http) {
        settle(front_core(asking->front), http, asking->caller, asking->realm, asking->least,
               asking->fn, asking->arg);
    } else {
        http_client_gone(front_core(asking->front), asking->task_id);
        http_caller_end(&asking->caller);
    }
    free(asking->task_id);
    free(asking->realm);
    free(asking);
}

/* On the core's thread: the login is over. */
static void basic_answer(struct request *request, int r, bool is_last)
{
    struct asking *asking = request->user;
    struct http_caller *caller = asking->caller;

    (void) is_last;
    if (r == 0) {
        const struct object *session =
            view_get(store_core_view(request->call.core->store), session, request->call.reply.ref);

        if (session) {
            struct call as = {.core = request->call.core, .arena = caller->arena};
            char text[REF_TEXT_BYTES];

            as.caller.address = caller->caller.address;
            r = session_check(&as, ref_print(text, session->ref), NULL);
            caller->caller = as.caller;
            caller->is_for_request = true;
        }
    }
    if (r < 0 || !caller->is_for_request)
        http_caller_end(&asking->caller);
    request_destroy(&request);
    http_ticket_post(asking->ticket, basic_done, asking);
}

static void basic_begin(struct front *front, struct http_request *http, const char *realm,
                        enum role least, http_auth_fn *fn, void *arg, const char *user,
                        const char *password)
{
    struct core *core = front_core(front);
    struct asking *asking = new0(struct asking);
    struct request *request = request_new(core->dispatch);
    struct arena *arena = request->call.arena;
    struct value *raw = arena_alloc_array(arena, 4, sizeof *raw);

    *asking = (struct asking){
        .front = front,
        .ticket = http_ticket_of(http),
        .realm = dup_text(realm),
        .least = least,
        .fn = fn,
        .arg = arg,
        .caller = caller_new(core, http),
        .task_id = http_named(http, "task_id") ? dup_text(http_named(http, "task_id")) : NULL,
    };
    raw[0] = value_text(arena_strdup(arena, user));
    raw[1] = value_text(arena_strdup(arena, password));
    raw[2] = value_text("1.1");
    raw[3] = value_text(arena_strdup(arena, realm));
    request->text = "session.login_with_password";
    request->raw = raw;
    request->raw_count = 4;
    request->call.caller.address = arena_strdup(arena, asking->caller->caller.address);
    request->answer = basic_answer;
    request->user = asking;
    http_park(http, NULL, NULL);
    dispatch(request);
}

void http_authenticate(struct front *front, struct http_request *http, const char *realm,
                       enum role least, http_auth_fn *fn, void *arg)
{
    struct core *core = front_core(front);
    struct http_caller *caller = NULL;
    const char *text;
    char *user, *password;

    if (http_is_ours(http)) {
        caller = caller_new(core, http);
        caller->caller.role = ROLE_LOCAL_ROOT;
        caller->caller.is_local_superuser = true;
        caller->caller.user_name = "root";
    } else if ((text = http_named(http, "session_id"))) {
        caller = caller_of_session(core, http, text);
    } else if ((text = http_cookie(http, "pool_secret"))) {
        if (session_pool_secret_is(core, text)) {
            caller = caller_new(core, http);
            caller->caller.role = ROLE_LOCAL_ROOT;
            caller->caller.is_pool = caller->caller.is_local_superuser = true;
        }
    } else if (http_basic(http, &user, &password)) {
        basic_begin(front, http, realm, least, fn, arg, user, password);
        OPENSSL_cleanse(password, strlen(password));
        free(user);
        free(password);
        return;
    }
    settle(core, http, caller, realm, least, fn, arg);
}

void http_anybody(struct front *front, struct http_request *http, http_auth_fn *fn, void *arg)
{
    fn(http, caller_new(front_core(front), http), arg);
}
