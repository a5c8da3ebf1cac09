/* http_routes.h - which function serves which path, in the master and at the slaves alike
 * (wire.md sections 1 and 19)
 *
 * A handler is found by method first, then by the longest registered path that the request's path
 * begins with. A method that nobody serves is answered 501, a path that nobody serves 403. HEAD is
 * served as GET, whose answer then goes without its body. */
#pragma once

#include "shared/http.h"

/* Runs on the HTTP loop of the request and answers as http.h says. */
typedef void http_route_fn(struct http_request *request, void *arg);

struct http_route {
    enum http_method method;
    char *path;
    size_t length; /* of the path */
    http_route_fn *fn;
    void *arg;
};

/* Zeroed: none. Filled before the server starts, since its loops read it without a lock. */
struct http_routes {
    struct http_route *items;
    size_t count;
};

/* Serve a path and what is below it: "/export" is "/export/", too, and "/export/x", but not
 * "/exported"; "/" is for that path alone. The path is copied. */
void http_routes_add(struct http_routes *, enum http_method, const char *path, http_route_fn *fn,
                     void *arg);

/* Hand the request to its handler, or refuse it. */
void http_routes_serve(const struct http_routes *, struct http_request *);

void http_routes_done(struct http_routes *);

/* An answer of our own in HTML, for what is no RPC reply. `headers` are whole lines, or "". */
void http_reply_html(struct http_request *, int status, const char *headers, const char *what);
