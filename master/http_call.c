/* http_call.c - an HTTP request becomes a fiber of the core
 *
 * A request of dispatch.h carries it there, with work() instead of a method: so the limits, the
 * room in the store and the gate of emergency mode are those of every call. */
#include "master/http_call.h"

#include "master/core.h"
#include "master/dispatch.h"
#include "master/store.h"
#include "master/task.h"
#include "shared/buffer.h"
#include "shared/http_routes.h"

/* request->user; lives in the request's arena. */
struct going {
    struct http_call what;
    struct http_ticket ticket;
    struct http_caller *caller;
    const char *task_id; /* or NULL */
    const char *subtask_of;
    bool has_begun; /* else it was refused before */
    bool is_passed_on;
    int r;          /* of what.run, until the answer */
};

static struct going *going_of(const struct call *call)
{
    return CONTAINER_OF(call, struct request, call)->user;
}

bool http_switch(struct http_request *http, const char *name, bool unless, bool *ret)
{
    const char *text = http_named(http, name);

    *ret = text ? streq(text, "true") || streq(text, "1") : unless;
    return !text || *ret || streq(text, "false") || streq(text, "0");
}

/* ---- the end ---- */

static void over(struct http_request *http, struct request *request)
{
    struct going *going = request->user;

    if (http && !may_act(request->call.core)) {
        http_abort(http);
        http = NULL;
    }
    if (!http && going->is_passed_on)
        http_client_gone(request->call.core, going->task_id);
    going->what.answer(http, &request->call, going->r, going->what.arg);
    http_caller_end(&going->caller);
    request_destroy(&request);
}

static void over_on_loop(struct http_request *http, void *arg)
{
    over(http, arg);
}

/* Whoever waits for the task hears of the refusal too. */
static void fail_named_task(struct call *call, const char *task_id)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    task_put_refused(call->core, txn, task_id, &call->failure);
    store_apply(&txn);
}

static void answer(struct request *request, int r, bool is_last)
{
    struct going *going = request->user;

    (void) is_last;
    going->r = r;
    if (!going->has_begun && going->task_id)
        fail_named_task(&request->call, going->task_id);
    if (r >= 0)
        request->call.failure.code = 0; /* a failure that run has got over */
    http_ticket_post(going->ticket, over_on_loop, request);
}

/* The loops have ended before the core's: nobody is there to be answered, nor to log out. */
static void forgotten(struct request *request)
{
    struct going *going = request->user;

    going->what.answer(NULL, &request->call, -ERR_INTERNAL_ERROR, going->what.arg);
    going->caller->is_for_request = false;
    http_caller_end(&going->caller);
}

/* ---- the work ---- */

static void work(struct request *request)
{
    struct call *call = &request->call;
    struct going *going = request->user;
    int r = 0;

    going->has_begun = true;
    call->started_ms = clock_now_ms(call->core->clock);
    if (going->task_id)
        r = task_attach(call, call->name, going->task_id, NULL);
    if (r == 0 && task_is_cancelled(call))
        r = task_cancelled(call);
    if (r == 0)
        r = going->what.run(call, going->what.arg);
    if (!ref_is_null(call->task))
        task_end(call, r);
    else if (r < 0)
        dispatch_log_refused(call);
    core_emit(call);
    answer(request, r, true);
}

struct http_ticket http_call_ticket(const struct call *call)
{
    return going_of(call)->ticket;
}

int http_call_task(struct call *call, const char *label, const char *description)
{
    int r = 0;

    if (ref_is_null(call->task))
        r = task_attach_new(call, label, description, going_of(call)->subtask_of);
    if (r == 0)
        dispatch_log_asked(call, *description ? description : label);
    return r;
}

void http_call_pass_on(struct call *call)
{
    going_of(call)->is_passed_on = true;
    if (ref_is_null(call->task))
        return;
    task_detach(call);
    call->task = NULL_REF;
}

void http_call_start(struct http_request *http, struct http_caller *caller,
                     const struct http_call *what)
{
    struct request *request = request_new(caller->core->dispatch);
    struct arena *arena = request->call.arena;
    struct going *going = arena_new0(arena, struct going);
    const char *task_id = http_named(http, "task_id"), *subtask_of = http_named(http, "subtask_of");

    going->what = *what;
    going->caller = caller;
    going->task_id = task_id ? arena_strdup(arena, task_id) : NULL;
    going->subtask_of = subtask_of ? arena_strdup(arena, subtask_of) : NULL;
    going->ticket = http_park(http, NULL, NULL);
    request->call.name = what->name;
    request->call.caller = caller->caller;
    request->answer = answer;
    request->forgotten = forgotten;
    request->user = going;
    dispatch_work(request, work);
}

/* ---- answers ---- */

int http_call_status(const struct call *call)
{
    if (call->http_status)
        return call->http_status;
    switch (call->failure.code) {
    case ERR_SESSION_INVALID:
    case ERR_SESSION_AUTHENTICATION_FAILED:
        return 401;
    case ERR_RBAC_PERMISSION_DENIED:
        return 403;
    case ERR_HANDLE_INVALID:
    case ERR_UUID_INVALID:
        return 404;
    case ERR_TOO_MANY_PENDING_TASKS:
    case ERR_TOO_BUSY:
    case ERR_OUT_OF_SPACE:
    case ERR_HOST_IS_SLAVE:
    case ERR_HOST_OFFLINE:
        return 503;
    case ERR_INTERNAL_ERROR:
    case ERR_NONE_:
        return 500;
    default:
        return 400; /* the request, or what came with it, is not what can be done here */
    }
}

/* Details may repeat what the client sent. */
static void add_escaped(struct buffer *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '<')
            buffer_add_literal(out, "&lt;");
        else if (*text == '>')
            buffer_add_literal(out, "&gt;");
        else if (*text == '&')
            buffer_add_literal(out, "&amp;");
        else
            buffer_add_char(out, *text);
    }
}

char *http_failure_text(const struct failure *failure)
{
    struct buffer text;
    size_t length;

    buffer_init(&text, (size_t) FAILURE_PARAM_BYTES_MAX * (FAILURE_PARAMS_MAX + 1) * 8);
    add_escaped(&text, failure->text);
    for (unsigned i = 0; i < failure->count; i++) {
        buffer_add_text(&text, i == 0 ? ": " : ", ");
        add_escaped(&text, failure->params[i]);
    }
    buffer_text(&text);
    return buffer_take(&text, &length);
}

void http_call_reply_failure(struct http_request *http, struct call *call)
{
    _cleanup_(free_p) char *text = http_failure_text(&call->failure);

    http_close_after(http); /* a body that still comes is not wanted */
    http_reply_html(http, http_call_status(call), http_call_refusal_header(call, going_of(call)->task_id), text);
}

const char *http_call_task_header(struct call *call)
{
    return ref_is_null(call->task)
               ? ""
               : arena_text(call->arena, "task-id: %s\r\n", ref_text(call, call->task));
}

const char *http_call_refusal_header(struct call *call, const char *task_id)
{
    if (!ref_is_null(call->task))
        return http_call_task_header(call);
    return http_task_header(arena_alloc(call->arena, HTTP_TASK_HEADER_BYTES), task_id);
}
