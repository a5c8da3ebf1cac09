/* rpc.c - calls that come by HTTP, whichever codec they are written in */
#include "shared/rpc.h"

#include <stdio.h>

#include "shared/arena.h"
#include "shared/args.h"
#include "shared/failure.h"
#include "shared/model.h"
#include "shared/xmlrpc.h"

#define PARSED_BYTES_MAX (256 << 20) /* of values made from one document */

#define CORS_HEADERS \
    "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: X-Requested-With\r\n"
#define RPC_HEADERS(type) \
    "cache-control: no-cache, no-store\r\ncontent-type: " type "\r\n" CORS_HEADERS

/* ---- reading ---- */

int rpc_parse(const char *body, size_t bytes, struct arena *arena, struct rpc_call *ret)
{
    const char *reason;

    arena_set_limit(arena, PARSED_BYTES_MAX);
    if (!ret->is_json) {
        struct xmlrpc_call xml;

        if (xmlrpc_parse_call(body, bytes, arena, &xml, &reason) < 0)
            return -1;
        ret->method = xml.method;
        ret->params = xml.params;
        ret->param_count = xml.param_count;
        ret->bad_text = xml.bad_text;
        ret->fault = xml.fault;
        return 0;
    }
    if (jsonrpc_parse_call(body, bytes, arena, &ret->json, &reason) < 0)
        return -1;
    ret->method = ret->json.method;
    ret->params = ret->json.params;
    ret->param_count = ret->json.param_count;
    ret->bad_text = ret->json.bad_text;
    ret->fault = ret->json.fault;
    return 0;
}

int rpc_check_params(const char *fault, const char *bad_text, struct arena *arena,
                     struct failure *failure)
{
    if (fault)
        return failure_set(failure, arena, INVALID_VALUE, "params", fault);
    if (bad_text)
        return failure_set(failure, arena, INVALID_VALUE, "Invalid UTF-8 string in parameter",
                           bad_text);
    return 0;
}

/* ---- names and types ---- */

/* Split "Async." off. */
static void read_name(const char *text, struct rpc_bound *ret)
{
    *ret = (struct rpc_bound){.name = text};
    if (strncmp(text, "Async.", 6) == 0) {
        ret->is_async = true;
        ret->name += 6;
    } else if (strncmp(text, "InternalAsync.", 14) == 0) {
        ret->is_async = ret->is_internal = true;
        ret->name += 14;
    }
    ret->method = model_method(ret->name);
}

static int read_session(const struct value *params, unsigned count, struct arena *arena, struct rpc_bound *ret,
                        struct failure *failure)
{
    const struct method *method = ret->method;

    if (count > 0 && params[0].kind == KIND_STRING)
        ret->session = params[0].text;
    if (method && count == 0)
        return failure_set(failure, arena, MESSAGE_PARAMETER_COUNT_MISMATCH, method->name,
                           arena_text(arena, "%d", method->params_required), "-1"); /* the session counts as none */
    return method && !ret->session ? failure_set(failure, arena, FIELD_TYPE_ERROR, "session_id") : 0;
}

int rpc_bind(const char *text, const struct value *params, unsigned count, const char *fault, const char *bad_text,
             struct arena *arena, struct rpc_bound *ret, struct failure *failure)
{
    const struct method *method;
    struct value *values;
    void *args;
    int r;

    read_name(text, ret);
    method = ret->method;
    r = fault ? rpc_check_params(fault, bad_text, arena, failure) : 0;
    if (r < 0)
        return r;
    if (!method || !(method->flags & METHOD_NO_SESSION)) {
        r = read_session(params, count, arena, ret, failure);
        if (r < 0 || !method)
            return r;
        params++;
        count--;
    }
    values = arena_alloc_array(arena, (size_t) method->param_count, sizeof *values);
    args = method->args_bytes ? arena_alloc(arena, method->args_bytes) : NULL;
    r = args_bind(method, params, count, arena, args, values, failure);
    /* args_bind() sees most bad texts, and keeps secrets to itself, but not what no row asks for: an unknown member of a
     * record, the session. */
    if ((r == 0 || r == -ERR_HANDLE_INVALID) && rpc_check_params(fault, bad_text, arena, failure) < 0)
        r = -failure->code;
    ret->args = args;
    ret->values = values;
    return r;
}

int rpc_refuse_async(const char *name, struct arena *arena, struct failure *failure)
{
    const char *text = arena_text(arena, "No async mode for this operation (rpc: %s)", name);

    return failure_set_text(failure, arena, "Fault", 1, &text);
}

/* ---- replies ---- */

const char *rpc_headers(bool is_json)
{
    return is_json ? RPC_HEADERS("application/json") : RPC_HEADERS("text/xml");
}

void rpc_success(const struct rpc_call *call, struct buffer *out, const struct value *value,
                 bool is_bare)
{
    if (call->is_json)
        jsonrpc_reply_success(out, &call->json, value);
    else if (is_bare)
        xmlrpc_reply_bare(out, value);
    else
        xmlrpc_reply_success(out, value);
}

void rpc_failure(const struct rpc_call *call, struct buffer *out, const struct failure *failure,
                 bool is_early)
{
    if (!call->is_json)
        xmlrpc_reply_failure(out, failure);
    else if (is_early)
        jsonrpc_reply_early_failure(out, failure);
    else
        jsonrpc_reply_failure(out, &call->json, failure);
}

void rpc_refuse(struct http_request *http)
{
    http_reply_html(http, 500, "", "the request is no remote procedure call");
}

/* ---- system.* ---- */

static struct value method_names(struct arena *arena)
{
    size_t count, n = 0;
    const struct method *const *methods = model_methods(&count);
    struct value *items = arena_alloc_array(arena, count, sizeof *items);

    for (size_t i = 0; i < count; i++)
        if (!(methods[i]->flags & METHOD_HIDDEN))
            items[n++] = value_text(methods[i]->name);
    return VALUE_SET((uint32_t) n, items);
}

bool rpc_system(const char *method, const struct value *params, unsigned count, const char *fault,
                const char *bad_text, struct arena *arena, struct value *ret, bool *ret_is_bare, struct failure *ret_failure)
{
    *ret_is_bare = false;
    if (streq(method, "system.listMethods")) {
        *ret = method_names(arena);
        *ret_is_bare = true;
        return true;
    }
    if (strncmp(method, "system.isAlive:", 15) != 0)
        return false;
    if (rpc_check_params(fault, bad_text, arena, ret_failure) < 0)
        return true;
    if (count > 0)
        *ret = params[0];
    else
        failure_set(ret_failure, arena, MESSAGE_PARAMETER_COUNT_MISMATCH, method, "1", "0");
    return true;
}

/* ---- paths ---- */

static void options(struct http_request *http, void *arg)
{
    const char *asked = http_header(http, "access-control-request-headers");
    char *headers;

    (void) arg;
    if (asprintf(&headers,
                 "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: "
                 "%s%sX-Requested-With\r\n"
                 "Access-Control-Allow-Methods: PUT\r\n",
                 asked ? asked : "", asked && *asked ? ", " : "")
        < 0)
        die("out of memory");
    http_reply(http, 200, headers, NULL);
    free(headers);
}

void rpc_routes_add(struct http_routes *routes, http_route_fn *post_xmlrpc,
                    http_route_fn *post_jsonrpc, void *arg)
{
    static const char *const xmlrpc_paths[] = {"/", "/RPC2", "/xmlrpc", "/json"};

    for (size_t i = 0; i < ARRAY_SIZE(xmlrpc_paths); i++) {
        http_routes_add(routes, HTTP_POST, xmlrpc_paths[i], post_xmlrpc, arg);
        http_routes_add(routes, HTTP_OPTIONS, xmlrpc_paths[i], options, NULL);
    }
    http_routes_add(routes, HTTP_POST, "/jsonrpc", post_jsonrpc, arg);
    http_routes_add(routes, HTTP_OPTIONS, "/jsonrpc", options, NULL);
}
