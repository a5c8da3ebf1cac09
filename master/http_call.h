/* http_call.h - an HTTP request becomes a fiber of the core: export and import (wire.md section 19)
 *
 *      HTTP loop                                   core
 *      http_authenticate -> caller
 *      http_call_start   -------- mailbox ------>  run(call, arg), a fiber as a task's is
 *           (parked)                                 http_call_task()   there is real work
 *           ...  what run posts to the ticket  <---  e.g. send the head, let the body through
 *                                                    task ends: result or failure, durable
 *      answer(http, call, r, arg)  <-------------
 *
 * The request's task_id (cookie, else query) is the task that run reports into: a pending one, or
 * the request fails with HANDLE_INVALID. It ends when run has returned, with call->reply as its
 * result or with call->failure. Without a task_id there is a task as soon as run says that there is
 * real work, a child of subtask_of where that is named. In run everything of task.h works:
 * progress, cancel.
 *
 * The answer never comes before what it tells is durable. A client that goes away does not end run:
 * whoever sends or receives for it sees that, and says so to run. */
#pragma once

#include "master/http_auth.h"

struct http_call {
    const char *name; /* for logs and current_operations, "VM.import"; a literal */
    int (*run)(struct call *,
               void *arg); /* 0, the task's result in call->reply; or a negative error */

    /* Once, on the request's loop, when all is over; http is NULL when the client is gone or the
     * answer has begun before: then nothing is left but to free arg. r is what run returned, or why
     * it did not run; reply and failure stand in the call. */
    void (*answer)(struct http_request *http, struct call *, int r, void *arg);
    void *arg;
};

/* On the request's loop: park it and have run called. The caller's end (http_auth.h) is ours now.
 */
void http_call_start(struct http_request *, struct http_caller *, const struct http_call *);

/* ---- for run ---- */

/* For what is to be done on the request's loop meanwhile: http_ticket_post. */
struct http_ticket http_call_ticket(const struct call *);

/* From here on there is work that a client may watch: unless the request named a task, a new one is
 * made, durable on return, in call->task. The log says who asked for it: for what the description
 * says, or the label where there is none. 0 or -ERR_TOO_MANY_PENDING_TASKS, or -ERR_HANDLE_INVALID
 * for a bad subtask_of. */
int http_call_task(struct call *, const char *label, const char *description);

/* Another host goes on with it (302): the task is left to that one, as it is. */
void http_call_pass_on(struct call *);

/* ---- for answer ---- */

/* Answer with the call's failure: a status and a page that names code and details, and the task in a header. */
void http_call_reply_failure(struct http_request *, struct call *);
/* The parts of that. The status is the call's http_status, else by the failure 400, 401, 403, 404, 500 or 503; code and details
 * are HTML, and free() gives the text back. */
int http_call_status(const struct call *);
char *http_failure_text(const struct failure *);

/* "task-id: OpaqueRef:...\r\n" in the call's arena, "" without a task. */
const char *http_call_task_header(struct call *);

/* The same for a refusal: also of one before the call took the task that its request names (or NULL), which fails all the same. */
const char *http_call_refusal_header(struct call *, const char *task_id);

/* A switch by that name (http_named): "true", "1", "false" or "0"; `unless` when there is none. False for another
 * text. */
bool http_switch(struct http_request *, const char *name, bool unless, bool *ret);
