/* front.h - HTTP requests become calls, and calls' outcomes replies
 * (wire.md sections 1 to 3 and 19)
 *
 *   POST, OPTIONS                calls: rpc.h has the paths
 *   GET /                        a page that says what this is
 *   whatever else is registered  import, export, consoles, metrics: http_routes.h */
#pragma once

#include "shared/http_routes.h"
#include "shared/ref.h"
#include "shared/rpc.h"

struct core;
struct front;

struct front_config {
    unsigned loops;
    size_t rpc_bytes_max, bodies_bytes_max; /* of one call's text, and of all together (http.h) */
};

struct front *front_new(struct core *, const struct front_config *);
/* Before the start. */
struct http_server *front_server(struct front *);

/* Serve a path, before the start; http_auth.h finds out who is asking. */
void front_add(struct front *, enum http_method, const char *path, http_route_fn *fn, void *arg);

/* Have the slave of a host answer, since what is asked for is there: of our own host through its
 * local socket, of any other by sending the client to it. When our own host's agent is away the client
 * is sent to `other`; 503 if that is null. On the request's loop, before anything is answered. */
void front_hand_to(struct front *, struct http_request *, ref_t host, ref_t other);

/* Begin to serve: 0 or a negative errno. */
int front_start(struct front *);
/* Cut all connections; afterwards nothing of the core is touched by another thread. */
void front_stop(struct front *);
void front_destroy(struct front **);

struct core *front_core(const struct front *);
