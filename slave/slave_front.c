/* slave_front.c - what a host of the pool serves over HTTP while it is no master
 *
 * A call is read like at the master, since what is no call must be refused as there, and the answer goes back in
 * the caller's codec. Nothing here waits for the agent or the master: a host answers at once, whatever they do. */
#include "slave/slave_front.h"

#include "shared/arena.h"
#include "shared/failure.h"
#include "shared/http_pass.h"
#include "shared/model.h"
#include "shared/rpc.h"
#include "slave/standing.h"

/* Of a call. Nobody who asks the wrong host has more to say than a login. */
#define CALL_BYTES_MAX (1 << 20)

/* Of an answer: system.listMethods is the longest. */
#define REPLY_BYTES_MAX (16 << 20)

struct slave_front {
    struct http_server *server;
    struct standing *standing;
    struct http_routes routes;
};

/* ---- calls ---- */

/* 0 with a value, or negative with a failure; *ret_is_early: it was raised before anybody looked at the call. */
static int answer(struct slave_front *front, const struct rpc_call *call, struct arena *arena, struct value *ret,
                  bool *ret_is_bare, bool *ret_is_early, struct failure *failure)
{
    const struct method *method = model_method(call->method);
    struct standing_now now;

    *ret_is_early = false;
    if (rpc_system(call->method, call->params, call->param_count, call->fault, call->bad_text, arena, ret, ret_is_bare,
                   failure))
        return -failure->code;
    standing_get(front->standing, &now);
    if (method && streq(method->name, "host.is_in_emergency_mode")) {
        *ret = VALUE_BOOL(now.kind != STANDING_SLAVE);
        return 0;
    }
    if (method && method->flags & METHOD_EMERGENCY)
        return failure_set(failure, arena, NOT_IMPLEMENTED, method->name);
    standing_failure(&now, arena, failure);
    *ret_is_early = now.kind != STANDING_SLAVE;
    return -failure->code;
}

static void call_body(struct http_request *http, const char *body, size_t bytes, struct slave_front *front,
                      bool is_json)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct rpc_call call = {.is_json = is_json};
    struct failure failure = {0};
    struct value value;
    bool is_bare, is_early;
    struct buffer reply;

    if (rpc_parse(body, bytes, arena, &call) < 0) {
        rpc_refuse(http);
        return;
    }
    buffer_init(&reply, REPLY_BYTES_MAX);
    if (answer(front, &call, arena, &value, &is_bare, &is_early, &failure) < 0)
        rpc_failure(&call, &reply, &failure, is_early);
    else
        rpc_success(&call, &reply, &value, is_bare);
    if (reply.is_full) {
        http_abort(http);
    } else {
        struct evbuffer *out = evbuffer_new();

        evbuffer_add(out, reply.bytes, reply.length);
        http_reply(http, 200, rpc_headers(is_json), out);
        evbuffer_free(out);
    }
    buffer_done(&reply);
}

static void xmlrpc_body(struct http_request *http, const char *body, size_t bytes, void *arg)
{
    call_body(http, body, bytes, arg, false);
}

static void jsonrpc_body(struct http_request *http, const char *body, size_t bytes, void *arg)
{
    call_body(http, body, bytes, arg, true);
}

static void post_xmlrpc(struct http_request *http, void *arg)
{
    http_read_body(http, CALL_BYTES_MAX, xmlrpc_body, arg);
}

static void post_jsonrpc(struct http_request *http, void *arg)
{
    http_read_body(http, CALL_BYTES_MAX, jsonrpc_body, arg);
}

/* ---- the page ---- */

static const char *page_text(struct arena *arena, const struct standing_now *now)
{
    switch (now->kind) {
    case STANDING_SLAVE:
        return arena_text(arena, "This host is a slave of %s, which speaks for the pool%s.", now->master_address,
                          now->is_linked ? "" : ", but is not heard at the moment");
    case STANDING_UNKNOWN:
        return "This host belongs to a pool whose master does not know it.";
    case STANDING_BOOTING:
        break;
    }
    return "This host has not yet heard of its pool's master.";
}

static void page(struct http_request *http, void *arg)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct slave_front *front = arg;
    struct standing_now now;

    standing_get(front->standing, &now);
    http_reply_text(http, 200, "content-type: text/html; charset=utf-8\r\ncache-control: no-cache, no-store\r\n",
                    arena_text(arena,
                               "<!DOCTYPE html>\n<html><head><title>Drover</title></head><body><h1>Drover</h1>\n"
                               "<p>%s</p></body></html>\n",
                               page_text(arena, &now)));
}

/* ---- what only the master serves ---- */

static void to_master(struct http_request *http, void *arg)
{
    struct slave_front *front = arg;
    struct standing_now now;

    standing_get(front->standing, &now);
    if (now.kind == STANDING_SLAVE && now.master_address[0])
        http_redirect(http, now.master_address);
    else
        http_reply_text(http, 503, "", "This host has not yet heard of its pool's master.");
}

static void serve_to_master(struct slave_front *front)
{
    static const struct {
        enum http_method method;
        const char *path;
    } paths[] = {
        {HTTP_GET, "/export_metadata"},
        {HTTP_PUT, "/import_metadata"},
        {HTTP_GET, "/blob"},
        {HTTP_PUT, "/blob"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
        slave_front_add(front, paths[i].method, paths[i].path, to_master, front);
}

/* ---- life ---- */

static void handle(struct http_request *http, void *arg)
{
    struct slave_front *front = arg;

    http_routes_serve(&front->routes, http);
}

void slave_front_add(struct slave_front *front, enum http_method method, const char *path, http_route_fn *fn,
                     void *arg)
{
    http_routes_add(&front->routes, method, path, fn, arg);
}

struct slave_front *slave_front_new(const struct slave_front_config *config)
{
    struct slave_front *front = new0(struct slave_front);
    struct http_config http = {HTTP_CONFIG_DEFAULT};

    front->standing = config->standing;
    http.loops = config->loops;
    http.handle = handle;
    http.arg = front;
    front->server = http_server_new(&http);
    rpc_routes_add(&front->routes, post_xmlrpc, post_jsonrpc, front);
    slave_front_add(front, HTTP_GET, "/", page, front);
    serve_to_master(front);
    return front;
}

struct http_server *slave_front_server(struct slave_front *front)
{
    return front->server;
}

int slave_front_start(struct slave_front *front)
{
    return http_server_start(front->server);
}

void slave_front_stop(struct slave_front *front)
{
    http_server_stop(front->server);
}

void slave_front_destroy(struct slave_front **front_p)
{
    struct slave_front *front = TAKE(*front_p);

    if (!front)
        return;
    http_server_destroy(&front->server);
    http_routes_done(&front->routes);
    free(front);
}
