/* front.h - HTTP requests become calls, and calls' outcomes replies
 * (wire.md sections 1 to 3 and 19)
 *
 *   POST / /RPC2 /xmlrpc /json   XML-RPC
 *   POST /jsonrpc                JSON-RPC, both versions
 *   GET /                        a page that says what this is
 *   whatever else is registered  import, export, consoles, metrics
 *
 * A handler is found by method first, then by the longest registered path that the request's path
 * begins with. */
#pragma once

#include "shared/http.h"

struct core;
struct front;

struct front_config {
    unsigned loops;
    size_t rpc_bytes_max;
};
#define FRONT_RPC_BYTES_MAX (16 << 20)

struct front *front_new(struct core *, const struct front_config *);
/* Before the start. */
struct http_server *front_server(struct front *);

/* Serve a path and what is below it; "/" is for that path alone. Before the start. fn runs on the
 * HTTP loop of the request and answers as http.h says; http_auth.h finds out who is asking. */
typedef void front_fn(struct http_request *, void *arg);
void front_add(struct front *, enum http_method, const char *path, front_fn *fn, void *arg);

/* Begin to serve: 0 or a negative errno. */
int front_start(struct front *);
/* Cut all connections; afterwards nothing of the core is touched by another thread. */
void front_stop(struct front *);
void front_destroy(struct front **);

struct core *front_core(const struct front *);

/* An answer of our own in HTML, for what is no RPC reply. */
void front_reply_html(struct http_request *, int status, const char *headers, const char *what);
