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

static const struct http_route *find(const struct http_routes *routes,
                                     const struct http_request *http, bool *ret_knows_method)
{
    enum http_method method = http->method == HTTP_HEAD ? HTTP_GET : http->method;
    const struct http_route *best = NULL;

    *ret_knows_method = false;
    for (size_t i = 0; i < routes->count; i++) {
        const struct http_route *route = &routes->items[i];
        const char *rest;

        if (route->method != method)
            continue;
        *ret_knows_method = true;
        if (strncmp(http->path, route->path, route->length) != 0)
            continue;
        rest = http->path + route->length;
        if (*rest && (*rest != '/' || route->length == 1))
            continue;
        if (!best || route->length > best->length)
            best = route;
    }
    return best;
}

void http_routes_serve(const struct http_routes *routes, struct http_request *http)
{
    bool knows_method;
    const struct http_route *route = find(routes, http, &knows_method);

    if (route)
        route->fn(http, route->arg);
    else if (!knows_method)
        http_reply_html(http, 501, "", "this method is not served");
    else
        http_reply_html(http, 403, "", "there is nothing at this path");
}

void http_routes_done(struct http_routes *routes)
{
    for (size_t i = 0; i < routes->count; i++)
        free(routes->items[i].path);
    free(routes->items);
    *routes = (struct http_routes){0};
}
