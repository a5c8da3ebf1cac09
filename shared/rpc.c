/* rpc.c - calls that come by HTTP, whichever codec they are written in */
#include "shared/rpc.h"

#include <stdio.h>

#include "shared/arena.h"
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
