/* front.c - HTTP requests become calls, and calls' outcomes replies
 *
 *      body complete -> parsed into an arena -> dispatch()
 *                                                  |  READ: answered before it returns
 *      reply <- encoded on this loop <- ticket <---+  else: by the core; the arena travels along
 *
 * Small replies are written at once, with their length. A listing that passes REPLY_BYTES goes on
 * as a stream: a piece each time the socket has room, from the generation that the call has pinned,
 * so memory stays flat however large the pool and however slow the client - within limits, since a
 * pin keeps old versions alive. */
#include "master/front.h"


#include "master/core.h"
#include "master/dispatch.h"
#include "master/events.h"
#include "master/listing.h"
#include "master/slaves.h"
#include "master/store.h"
#include "shared/http_pass.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "shared/rpc.h"
#include "shared/xmlrpc.h"

#define REPLY_BYTES     (256 << 10)  /* listings up to here go in one piece */
#define REPLY_BYTES_MAX (1u << 30)   /* of one value: far above what one object holds */
#define KEPT_BYTES      (1 << 20)    /* of a loop's buffer between replies */
#define PIN_AGE_MS      60000        /* a stream that reads a generation older than this is cut, */
#define PIN_BYTES       (256u << 20) /* or one that holds more than this of old versions */

struct front {
    struct core *core;
    struct http_server *server;
    size_t rpc_bytes_max;
    struct http_routes routes;
};

/* What each HTTP loop keeps. */
struct front_loop {
    struct reader_loop *readers;
    struct buffer reply;
    struct evbuffer *body;
    struct arena *scratch;
};

/* A call over HTTP: request->user. */
struct exchange {
    struct http_request *http; /* good on its loop, as long as it is not gone */
    struct http_ticket ticket;
    struct rpc_call call;
    void (*gone)(void *arg);
    void *gone_arg;
    struct buffer piece; /* of a stream */
};

/* ---- encoding ---- */

static const struct writer *writer_of(const struct exchange *exchange)
{
    return exchange->call.is_json ? &writer_jsonrpc : &writer_xmlrpc;
}

static void encode_begin(const struct exchange *exchange, struct buffer *out)
{
    if (exchange->call.is_json)
        jsonrpc_success_begin(out, &exchange->call.json);
    else
        xmlrpc_success_begin(out);
}

static void encode_end(const struct exchange *exchange, struct buffer *out)
{
    if (exchange->call.is_json)
        jsonrpc_success_end(out, &exchange->call.json);
    else
        xmlrpc_success_end(out);
}

/* Append pieces up to about `bytes`; false after the last. */
static bool encode_pieces(struct request *request, struct buffer *out, size_t bytes,
                          struct arena *scratch)
{
    struct exchange *exchange = request->user;
    struct listing *listing = request->call.listing;
    bool has_more = true;

    while (has_more && out->length < bytes && !out->is_full) {
        has_more = listing->next(listing, writer_of(exchange), out, scratch);
        arena_reset(scratch);
    }
    if (!has_more)
        encode_end(exchange, out);
    return has_more;
}

/* ---- replying, on the request's loop ---- */

static enum http_produced produce(struct http_request *http, struct evbuffer *out,
                                  size_t bytes_wanted, void *arg)
{
    struct request *request = arg;
    struct exchange *exchange = request->user;
    struct front_loop *loop = http_loop_user(http_request_loop(http));
    bool has_more;

    if (view_age_ms(request->pinned) > PIN_AGE_MS || view_held_bytes(request->pinned) > PIN_BYTES) {
        log_warning(request->call.name,
                    "the reply is cut: its client reads too slowly (%llu ms, %zu bytes held)",
                    (unsigned long long) view_age_ms(request->pinned),
                    view_held_bytes(request->pinned));
        return HTTP_FAILED;
    }
    has_more = encode_pieces(request, &exchange->piece, bytes_wanted, loop->scratch);
    if (exchange->piece.is_full)
        return HTTP_FAILED;
    evbuffer_add(out, exchange->piece.bytes, exchange->piece.length);
    buffer_clear(&exchange->piece);
    return has_more ? HTTP_MORE : HTTP_DONE;
}

static void produce_end(void *arg)
{
    struct request *request = arg;
    struct exchange *exchange = request->user;

    buffer_done(&exchange->piece);
    request_destroy(&request);
}

/* The loop's buffer is the body. */
static void send_body(struct http_request *http, struct front_loop *loop, bool is_json)
{
    struct buffer *reply = &loop->reply;

    if (reply->length <= KEPT_BYTES) {
        evbuffer_add(loop->body, reply->bytes, reply->length);
        buffer_clear(reply);
    } else {
        size_t length;
        char *bytes = buffer_take(reply, &length);

        evbuffer_add_reference(loop->body, bytes, length, buffer_release, NULL);
    }
    http_reply(http, 200, rpc_headers(is_json), loop->body);
}

/* Ends request and exchange. */
static void reply(struct request *request, int r)
{
    struct call *call = &request->call;
    struct exchange *exchange = request->user;
    struct http_request *http = exchange->http;
    struct front_loop *loop = http_loop_user(http_request_loop(http));

    if (!may_act(call->core)) {
        http_abort(http);
        request_destroy(&request);
        return;
    }
    buffer_clear(&loop->reply);
    if (r < 0) {
        rpc_failure(&exchange->call, &loop->reply, &call->failure, request->is_early);
    } else if (!call->listing) {
        rpc_success(&exchange->call, &loop->reply, &call->reply, call->is_bare);
    } else {
        encode_begin(exchange, &loop->reply);
        if (encode_pieces(request, &loop->reply, REPLY_BYTES, loop->scratch)) {
            exchange->piece = loop->reply; /* what there is goes first */
            buffer_init(&loop->reply, REPLY_BYTES_MAX);
            http_produce(http, 200, rpc_headers(exchange->call.is_json), HTTP_LENGTH_UNKNOWN,
                         produce, request, produce_end);
            return;
        }
    }
    if (loop->reply.is_full) {
        log_error(call->name, "a reply of more than %u bytes", REPLY_BYTES_MAX);
        http_abort(http);
    } else {
        send_body(http, loop, exchange->call.is_json);
    }
    request_destroy(&request);
}

/* ---- answers of the core ---- */

static void reply_later(struct http_request *http, void *arg)
{
    struct request *request = arg;
    struct exchange *exchange = request->user;

    exchange->http = http;
    if (http)
        reply(request, -request->call.failure.code);
    else
        request_destroy(&request);
}

/* The task's reference, while the call goes on. */
struct early {
    bool is_json;
    struct buffer text;
};

static void reply_early(struct http_request *http, void *arg)
{
    struct early *early = arg;

    if (http) {
        struct front_loop *loop = http_loop_user(http_request_loop(http));

        evbuffer_add(loop->body, early->text.bytes, early->text.length);
        http_reply(http, 200, rpc_headers(early->is_json), loop->body);
    }
    buffer_done(&early->text);
    free(early);
}

static void answer(struct request *request, int r, bool is_last)
{
    struct exchange *exchange = request->user;

    if (!is_last) {
        struct early *early = new0(struct early);

        early->is_json = exchange->call.is_json;
        buffer_init(&early->text, REPLY_BYTES);
        rpc_success(&exchange->call, &early->text, &request->call.reply, false);
        http_ticket_post(exchange->ticket, reply_early, early);
    } else if (loop_is_current(request->call.core->loop)) {
        if (r >= 0)
            request->call.failure.code = 0; /* a failure that the handler has got over */
        http_ticket_post(exchange->ticket, reply_later, request);
    } else {
        reply(request, r);
    }
}

/* ---- waiting readers ---- */

static void client_gone(struct http_request *http, void *arg)
{
    struct request *request = arg;
    struct exchange *exchange = request->user;

    (void) http;
    exchange->gone(exchange->gone_arg);
}

static void park(struct request *request, void (*gone)(void *arg), void *arg)
{
    struct exchange *exchange = request->user;

    exchange->gone = gone;
    exchange->gone_arg = arg;
    http_park(exchange->http, client_gone, request);
}

/* ---- calls ---- */

/* Who is at the other end, before any login. */
static void fill_caller(struct caller *caller, struct arena *arena, const struct http_request *http)
{
    *caller = (struct caller){
        .role = http_is_ours(http) ? ROLE_LOCAL_ROOT : ROLE_READ_ONLY,
        .user_name = "",
        .originator = "",
        .address = http->is_unix ? "unix" : arena_strdup(arena, http->peer),
    };
}

static const char *header_copy(struct arena *arena, const struct http_request *http,
                               const char *name)
{
    const char *value = http_header(http, name);

    return value ? arena_strdup(arena, value) : NULL;
}

static void rpc_body(struct http_request *http, const char *body, size_t bytes, bool is_json,
                     struct front *front)
{
    struct front_loop *loop = http_loop_user(http_request_loop(http));
    struct request *request = request_new(front->core->dispatch);
    struct arena *arena = request->call.arena;
    struct exchange *exchange = arena_new0(arena, struct exchange);

    exchange->http = http;
    exchange->call.is_json = is_json;
    request->user = exchange;
    request->answer = answer;
    request->park = park;
    request->reader = loop->readers;
    request->task_id = header_copy(arena, http, "task-id");
    request->subtask_of = header_copy(arena, http, "subtask-of");
    fill_caller(&request->call.caller, arena, http);
    if (rpc_parse(body, bytes, arena, &exchange->call) < 0) {
        request_destroy(&request);
        rpc_refuse(http);
        return;
    }
    request->text = exchange->call.method;
    request->raw = exchange->call.params;
    request->raw_count = exchange->call.param_count;
    request->bad_text = exchange->call.bad_text;
    request->fault = exchange->call.fault;
    exchange->ticket = http_ticket_of(http);
    if (dispatch(request) == DISPATCH_LATER)
        http_park(http, NULL, NULL);
}

static void xmlrpc_body(struct http_request *http, const char *body, size_t bytes, void *arg)
{
    rpc_body(http, body, bytes, false, arg);
}

static void jsonrpc_body(struct http_request *http, const char *body, size_t bytes, void *arg)
{
    rpc_body(http, body, bytes, true, arg);
}

static void post_xmlrpc(struct http_request *http, void *arg)
{
    struct front *front = arg;

    http_read_body(http, front->rpc_bytes_max, xmlrpc_body, front);
}

static void post_jsonrpc(struct http_request *http, void *arg)
{
    struct front *front = arg;

    http_read_body(http, front->rpc_bytes_max, jsonrpc_body, front);
}

/* ---- other requests ---- */

static void page(struct http_request *http, void *arg)
{
    (void) arg;
    http_reply_text(
        http, 200, "content-type: text/html; charset=utf-8\r\n",
        "<!DOCTYPE html>\n<html><head><title>Drover</title></head><body><h1>Drover</h1>\n"
        "<p>A pool of virtual machine hosts. This address speaks XenAPI: XML-RPC by POST to "
        "<code>/</code>, "
        "JSON-RPC by POST to <code>/jsonrpc</code>.</p></body></html>\n");
}

static void send_to(struct front *front, struct http_request *http, ref_t ref)
{
    struct view *view = store_pin(front->core->store);
    const struct object *host = view_get(view, host, ref);

    http_redirect(http, host ? host_get_address(host) : "");
    view_unpin(&view);
}

void front_hand_to(struct front *front, struct http_request *http, ref_t host, ref_t other)
{
    char path[SLAVE_SOCKET_BYTES];

    if (!may_act(front->core)) {
        http_abort(http);
    } else if (!ref_equal(host, front->core->host)) {
        send_to(front, http, host);
    } else if (slaves_own_socket(front->core->slaves, path) && http_pass_unix(http, path)) {
        return;
    } else if (!ref_is_null(other)) {
        send_to(front, http, other);
    } else {
        http_close_after(http);
        http_reply_html(http, 503, "", "this host's agent is not there");
    }
}

static void handle(struct http_request *http, void *arg)
{
    struct front *front = arg;

    http_routes_serve(&front->routes, http);
}

/* ---- life ---- */

static void loop_start(struct http_loop *http, void *arg)
{
    struct front *front = arg;
    struct front_loop *loop = new0(struct front_loop);

    buffer_init(&loop->reply, REPLY_BYTES_MAX);
    loop->body = evbuffer_new();
    loop->scratch = arena_new();
    loop->readers = reader_loop_new(front->core->events, http);
    http_loop_set_user(http, loop);
}

static void loop_stop_readers(struct http_loop *http, void *arg)
{
    struct front_loop *loop = http_loop_user(http);

    (void) arg;
    reader_loop_destroy(&loop->readers);
    buffer_done(&loop->reply);
    evbuffer_free(loop->body);
    arena_destroy(&loop->scratch);
    free(loop);
    http_loop_set_user(http, NULL);
}

void front_add(struct front *front, enum http_method method, const char *path, http_route_fn *fn,
               void *arg)
{
    http_routes_add(&front->routes, method, path, fn, arg);
}

struct front *front_new(struct core *core, const struct front_config *config)
{
    struct front *front = new0(struct front);
    struct http_config http = {HTTP_CONFIG_DEFAULT};

    front->core = core;
    front->rpc_bytes_max = config->rpc_bytes_max;
    http.loops = config->loops;
    http.bodies_bytes_max = config->bodies_bytes_max;
    http.handle = handle;
    http.loop_start = loop_start;
    http.loop_stop = loop_stop_readers;
    http.arg = front;
    front->server = http_server_new(&http);
    rpc_routes_add(&front->routes, post_xmlrpc, post_jsonrpc, front);
    front_add(front, HTTP_GET, "/", page, front);
    return front;
}

struct http_server *front_server(struct front *front)
{
    return front->server;
}

struct core *front_core(const struct front *front)
{
    return front->core;
}

int front_start(struct front *front)
{
    return http_server_start(front->server);
}

void front_stop(struct front *front)
{
    http_server_stop(front->server);
}

void front_destroy(struct front **front_p)
{
    struct front *front = TAKE(*front_p);

    if (!front)
        return;
    http_server_destroy(&front->server);
    http_routes_done(&front->routes);
    free(front);
}
