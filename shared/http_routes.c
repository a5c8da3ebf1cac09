/* http_routes.c - which function serves which path */
#include "shared/http_routes.h"

#include <stdio.h>

void http_reply_html(struct http_request *http, int status, const char *headers, const char *what)
{
    char *all, *text;

    if (asprintf(
            &all,
            "content-type: text/html; charset=utf-8\r\ncache-control: no-cache, no-store\r\n%s",
            headers)
            < 0
        || asprintf(&text, "<html><body><h1>HTTP %d %s</h1></body></html>\n", status, what) < 0)
        die("out of memory");
    http_reply_text(http, status, all, text);
    free(all);
    free(text);
}

void http_routes_add(struct http_routes *routes, enum http_method method, const char *path,
                     http_route_fn *fn, void *arg)
{
    routes->items = realloc_array(routes->items, routes->count + 1, sizeof *routes->items);
    routes->items[routes->count++] =
        (struct http_route){method, dup_text(path), strlen(path), fn, arg};
}

/* The path itself, or one below it; below "/" nothing is. */
static bool leads_to(const struct http_route *route, const char *path)
{
    const char *rest = path + route->length;

    return strncmp(path, route->path, route->length) == 0 && (!*rest || (*rest == '/' && route->length > 1));
}

static const struct http_route *find(const struct http_routes *routes, enum http_method method, const char *path,
                                     bool *ret_knows_method)
{
    const struct http_route *best = NULL;

    *ret_knows_method = false;
    for (size_t i = 0; i < routes->count; i++) {
        const struct http_route *route = &routes->items[i];

        if (route->method != method)
            continue;
        *ret_knows_method = true;
        if (leads_to(route, path) && (!best || route->length > best->length))
            best = route;
    }
    return best;
}

/* A path that is served, but not with this method, is told apart from one that is not: with the methods that it takes. */
static bool refuse_method(const struct http_routes *routes, struct http_request *http)
{
    static const struct {
        enum http_method method;
        const char *name;
    } methods[] = {{HTTP_GET, "GET"}, {HTTP_PUT, "PUT"}, {HTTP_POST, "POST"}};
    char allow[64] = "", what[128], header[80];
    bool ignored;

    for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
        if (find(routes, methods[i].method, http->path, &ignored)) {
            size_t used = strlen(allow);

            snprintf(allow + used, sizeof allow - used, "%s%s", used ? ", " : "", methods[i].name);
        }
    if (!*allow)
        return false;
    snprintf(header, sizeof header, "Allow: %s\r\n", allow);
    snprintf(what, sizeof what, "this path takes %s", allow);
    http_close_after(http); /* a body that comes is not wanted */
    http_reply_html(http, 405, header, what);
    return true;
}

void http_routes_serve(const struct http_routes *routes, struct http_request *http)
{
    bool knows_method;
    const struct http_route *route =
        find(routes, http->method == HTTP_HEAD ? HTTP_GET : http->method, http->path, &knows_method);

    if (route)
        route->fn(http, route->arg);
    else if (!knows_method)
        http_reply_html(http, 501, "", "this method is not served");
    else if (!refuse_method(routes, http))
        http_reply_html(http, 403, "", "there is nothing at this path");
}

void http_routes_done(struct http_routes *routes)
{
    for (size_t i = 0; i < routes->count; i++)
        free(routes->items[i].path);
    free(routes->items);
    *routes = (struct http_routes){0};
}
