/* http_auth.h - who makes an HTTP request that is no call: import, export, consoles (wire.md
 * section 19)
 *
 * The first of these that a request has decides, right or wrong: the local socket's root,
 * session_id (cookie, else query), the cookie pool_secret, Authorization: Basic. Basic logs in for
 * this request only. Without any: 401; known, but without the role: 403. */
#pragma once

#include "master/call.h"
#include "master/front.h"

/* Who it is; the caller's until http_caller_end(). Any thread. */
struct http_caller {
    struct caller caller; /* session null for the socket's root and holders of the pool secret */
    struct core *core;
    struct arena *arena;
    bool is_for_request; /* a session that ends with the request */
};

/* On the request's loop: fn is called there with the caller, at once or later; or the request is
 * answered here, and a task that it names (task_id) fails with SESSION_AUTHENTICATION_FAILED; the
 * answer names it.
 *
 *   realm   named in the 401: the handler's name
 *   least   role that the handler takes */
typedef void http_auth_fn(struct http_request *, struct http_caller *, void *arg);
void http_authenticate(struct front *, struct http_request *, const char *realm, enum role least,
                       http_auth_fn *fn, void *arg);

/* The same for what anybody may have: whatever credentials there are, nobody looks at them. */
void http_anybody(struct front *, struct http_request *, http_auth_fn *fn, void *arg);

/* "task-id: OpaqueRef:...\r\n", for the answer to a request that names this task; "" for NULL, and for what is no reference:
 * what a client sends becomes no header as it is. */
#define HTTP_TASK_HEADER_BYTES (REF_TEXT_BYTES + 16)
const char *http_task_header(char ret[HTTP_TASK_HEADER_BYTES], const char *task_id);

/* The client is gone before its request was served: the task that it named (or NULL) fails. Any thread. */
void http_client_gone(struct core *, const char *task_id);

/* The request is done: ends a session that was only for it. Any thread; NULL is fine. */
void http_caller_end(struct http_caller **);

/* A cookie, else a parameter, of that name; or NULL. */
const char *http_named(struct http_request *, const char *name);
