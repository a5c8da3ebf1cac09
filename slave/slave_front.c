/* slave_front.c - what a host of the pool serves over HTTP while it is no master
 *
 * A call is read like at the master, since what is no call must be refused as there, and the answer goes back in
 * the caller's codec. Where to ask instead, a host says at once, whatever its agent and its master do; the calls for a host in
 * need go to the agent's loop (local_calls.h), which needs no master. */
#include "slave/slave_front.h"

#include "shared/arena.h"
#include "shared/failure.h"
#include "shared/http_pass.h"
#include "shared/model.h"
#include "shared/rpc.h"
#include "slave/local_calls.h"
#include "slave/standing.h"

/* Of a call. Nobody who asks the wrong host has more to say than a login. */
#define CALL_BYTES_MAX (1 << 20)

/* Of an answer: system.listMethods is the longest. */
#define REPLY_BYTES_MAX (16 << 20)

struct slave_front {
    struct http_server *server;
    struct standing *standing;
    struct local_calls *local;
    struct http_routes routes;
};

/* ---- answers ---- */

/* A call on its way, in its own arena. */
struct exchange {
    struct slave_front *front;
    struct rpc_call call;
    struct http_ticket ticket;    /* of a local call */
    struct local_call local;
};

/* value NULL: the failure. */
static void reply(struct http_request *http, const struct rpc_call *call, const struct value *value, bool is_bare,
                  const struct failure *failure, bool is_early)
{
    struct buffer out;

    buffer_init(&out, REPLY_BYTES_MAX);
    if (value)
        rpc_success(call, &out, value, is_bare);
    else
        rpc_failure(call, &out, failure, is_early);
    if (out.is_full) {
        http_abort(http);
    } else {
        struct evbuffer *body = evbuffer_new();

        evbuffer_add(body, out.bytes, out.length);
        http_reply(http, 200, rpc_headers(call->is_json), body);
        evbuffer_free(body);
    }
    buffer_done(&out);
}

static void reply_local(struct http_request *http, void *arg)
{
    struct exchange *exchange = arg;
    struct local_call *local = &exchange->local;

    if (http)
        reply(http, &exchange->call, local->result == 0 ? &local->reply : NULL, false, &local->failure, false);
    local_call_free(local);
}

static void answer_local(struct local_call *local)
{
    struct exchange *exchange = local->user;

    http_ticket_post(exchange->ticket, reply_local, exchange);
}

/* ---- calls ---- */

/* Takes the exchange. */
static void ask_local(struct exchange *exchange, struct http_request *http)
{
    struct local_call *local = &exchange->local;

    local->address = http->is_unix ? "unix" : arena_strdup(local->arena, http->peer);
    local->is_root = http_is_ours(http);
    local->answer = answer_local;
    local->user = exchange;
    exchange->ticket = http_park(http, NULL, NULL);
    local_calls_take(exchange->front->local, local);
}

/* Nothing here waits for the agent. */
static void answer_now(struct exchange *exchange, struct http_request *http)
{
    const struct rpc_call *call = &exchange->call;
    struct arena *arena = exchange->local.arena;
    struct failure *failure = &exchange->local.failure;
    struct standing_now now;
    struct value value;
    bool is_bare;

    if (rpc_system(call->method, call->params, call->param_count, call->fault, call->bad_text, arena, &value, &is_bare,
                   failure)) {
        reply(http, call, failure->code ? NULL : &value, is_bare, failure, false);
    } else {
        standing_get(exchange->front->standing, &now);
        standing_failure(&now, arena, failure);
        reply(http, call, NULL, false, failure, now.kind != STANDING_SLAVE);
    }
    local_call_free(&exchange->local);
}

static void call_body(struct http_request *http, const char *body, size_t bytes, struct slave_front *front,
                      bool is_json)
{
    struct arena *arena = arena_new();
    struct exchange *exchange = arena_new0(arena, struct exchange);
    struct rpc_call *call = &exchange->call;
    struct local_call *local = &exchange->local;

    exchange->front = front;
    call->is_json = is_json;
    local->arena = arena;
    if (rpc_parse(body, bytes, arena, call) < 0) {
        arena_destroy(&arena);
        rpc_refuse(http);
        return;
    }
    local->result = rpc_bind(call->method, call->params, call->param_count, call->fault, call->bad_text, arena,
                             &local->bound, &local->failure);
    if (local->bound.method && local->bound.method->flags & METHOD_EMERGENCY) {
        ask_local(exchange, http);
    } else {
        local->failure = (struct failure){0}; /* where it is to be asked comes before what is wrong with it */
        answer_now(exchange, http);
    }
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
    front->local = config->local;
    http.loops = config->loops;
    http.bodies_bytes_max = config->bodies_bytes_max;
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
