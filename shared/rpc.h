/* rpc.h - calls that come by HTTP, whichever codec they are written in (wire.md sections 1 to 3)
 *
 *   POST / /RPC2 /xmlrpc /json   XML-RPC
 *   POST /jsonrpc                JSON-RPC, both versions
 *   OPTIONS of the same          what browsers ask before a page of another origin may call
 *
 * The master's front hands what was read to dispatch(); a slave's front answers by itself. */
#pragma once

#include "shared/buffer.h"
#include "shared/http_routes.h"
#include "shared/jsonrpc.h"
#include "shared/value.h"

struct arena;
struct failure;
struct method;

/* No document is longer: the transport's limit of a body. */
#define RPC_BYTES_MAX (16 << 20)

/* A call that was read, in the arena that it was read into; what its reply needs to be written. */
struct rpc_call {
    bool is_json;
    const char *method;
    const struct value *params;
    unsigned param_count;
    const char *bad_text; /* a string of the parameters that is no UTF-8; or NULL */
    const char *fault;    /* why they could not all be read; or NULL */
    struct jsonrpc_call json; /* of a call in JSON */
};

/* Serve the paths above, with one function for either codec. */
void rpc_routes_add(struct http_routes *, http_route_fn *post_xmlrpc, http_route_fn *post_jsonrpc,
                    void *arg);

/* ret->is_json says which codec is meant. 0, or -1 when the document is no call: rpc_refuse() it.
 * The arena gets a limit, which a document of few bytes and many values may hit. */
int rpc_parse(const char *body, size_t bytes, struct arena *, struct rpc_call *ret);
void rpc_refuse(struct http_request *);

/* 0, or -ERR_INVALID_VALUE for parameters that are none: `fault` and `bad_text` of the call. */
int rpc_check_params(const char *fault, const char *bad_text, struct arena *, struct failure *);

/* What can be known of a call without any state: its row, where its session is, its arguments by type. */
struct rpc_bound {
    const char *name;            /* as written, without "Async." */
    const struct method *method; /* NULL: there is none of that name */
    bool is_async, is_internal;  /* "Async." stood before it, or "InternalAsync." */
    const char *session;         /* the first parameter; NULL where none is asked for, or none was given */
    const void *args;            /* as args.h tells; NULL: not bound */
    const struct value *values;  /* the same as typed values */
};

/* text to bad_text are of the call. Returns 0 or a negative error, which is then in `failure`; *ret holds what was found up to
 * there. -ERR_HANDLE_INVALID [class, text] is one for later: the session and the role come before it (dispatch.c). */
int rpc_bind(const char *text, const struct value *params, unsigned count, const char *fault, const char *bad_text,
             struct arena *, struct rpc_bound *ret, struct failure *);

/* "No" to Async in the words that clients know, which are no error code of the table. */
int rpc_refuse_async(const char *name, struct arena *, struct failure *);

/* Headers of a reply. */
const char *rpc_headers(bool is_json);

/* Whole replies. is_bare: without Status and Value, as the one reply of system.listMethods.
 * is_early: a failure raised before the call was looked at, for which JSON-RPC has a form of its
 * own. */
void rpc_success(const struct rpc_call *, struct buffer *, const struct value *, bool is_bare);
void rpc_failure(const struct rpc_call *, struct buffer *, const struct failure *, bool is_early);

/* Answer the calls that belong to no class: system.listMethods, system.isAlive. False for all others.
 *
 *   method to bad_text   of the call; parameters that are none are not given back
 *   ret_is_bare          of the reply
 *   ret_failure          its code is set when the call failed */
bool rpc_system(const char *method, const struct value *params, unsigned count, const char *fault,
                const char *bad_text, struct arena *, struct value *ret, bool *ret_is_bare, struct failure *ret_failure);
