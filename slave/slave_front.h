/* slave_front.h - what a host of the pool serves over HTTP while it is no master
 *
 *   POST, OPTIONS                calls: told where the master is (standing.h); those for a host in need are answered
 *                                here (local_calls.h), and so are system.listMethods and system.isAlive
 *   GET /                        a page that says so to people
 *   /export_metadata, /import_metadata, /blob
 *                                302 to the master's host, 503 while it is not known
 *   whatever else is registered  transfers of this host's disks, /metrics */
#pragma once

#include "shared/http_routes.h"

struct local_calls;
struct slave_front;
struct standing;

struct slave_front_config {
    unsigned loops;
    size_t bodies_bytes_max;   /* http.h */
    struct standing *standing; /* the caller's, who keeps both */
    struct local_calls *local;
};

struct slave_front *slave_front_new(const struct slave_front_config *);
/* To listen. */
struct http_server *slave_front_server(struct slave_front *);

/* Serve a path, before the start. fn runs on an HTTP loop, which is another thread than the agent's. */
void slave_front_add(struct slave_front *, enum http_method, const char *path, http_route_fn *fn, void *arg);

/* Begin to serve: 0 or a negative errno. */
int slave_front_start(struct slave_front *);
/* Cut all connections; afterwards no handler runs any more. */
void slave_front_stop(struct slave_front *);
void slave_front_destroy(struct slave_front **);
