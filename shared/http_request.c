/* http_request.c - what a handler may ask of a request */
#include "shared/http_internal.h"

#include <strings.h>
#include <unistd.h>

/* Room for the text of nearly all requests: such exchanges are kept for the next one. */
#define USUAL_TEXT_BYTES 2048

struct exchange *http_exchange_of(struct http_request *request)
{
    return CONTAINER_OF(request, struct exchange, request);
}

struct exchange *http_exchange_new(struct connection *conn, size_t head_bytes)
{
    struct http_loop *loop = conn->loop;
    size_t text_size = MAX(2 * head_bytes, (size_t) USUAL_TEXT_BYTES); /* head, and path at worst */
    struct exchange *ex;

    if (text_size == USUAL_TEXT_BYTES && loop->spare_count > 0) {
        ex = loop->spare[--loop->spare_count];
        memset(ex, 0, sizeof *ex);
    } else
        ex = alloc0(sizeof *ex + text_size);
    ex->text_size = text_size;
    ex->connection = conn;
    ex->generation = ++loop->generation;
    return ex;
}

void http_exchange_free(struct exchange *ex)
{
    struct http_loop *loop = ex->connection->loop;

    if (ex->answer == ANSWER_NONE && ex->on_gone)
        ex->on_gone(&ex->request, ex->on_gone_arg);
    http_body_upload_end(ex, HTTP_UPLOAD_BROKEN);
    http_produce_end(ex);
    if (ex->request.user_destroy)
        ex->request.user_destroy(ex->request.user);
    http_input_clear(&ex->gathered);
    http_body_uncount(ex);
    free(ex->params);
    free(ex->param_text);
    free(ex->cookies);
    free(ex->cookie_text);
    if (ex->text_size == USUAL_TEXT_BYTES && loop->spare_count < ARRAY_SIZE(loop->spare))
        loop->spare[loop->spare_count++] = ex;
    else
        free(ex);
}

static enum http_method method_by_name(const char *name)
{
    static const struct {
        const char *name;
        enum http_method method;
    } table[] = {
        {"GET", HTTP_GET},         {"POST", HTTP_POST},     {"PUT", HTTP_PUT},
        {"HEAD", HTTP_HEAD},       {"DELETE", HTTP_DELETE}, {"OPTIONS", HTTP_OPTIONS},
        {"CONNECT", HTTP_CONNECT},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (streq(name, table[i].name))
            return table[i].method;
    }
    return HTTP_OTHER;
}

/* How the end of the body is found. A 1.0 client may upload without a length, up to the end of its
 * side. */
static enum framing framing_of(const struct exchange *ex)
{
    enum http_method method = ex->request.method;

    if (ex->head.is_chunked)
        return FRAMING_CHUNKED;
    if (ex->head.content_length > 0)
        return FRAMING_LENGTH;
    if (ex->head.content_length < 0 && ex->head.minor == 0
        && (method == HTTP_PUT || method == HTTP_POST))
        return FRAMING_UNTIL_CLOSE;
    return FRAMING_NONE;
}

void http_exchange_describe(struct exchange *ex)
{
    const struct connection *conn = ex->connection;
    struct http_request *request = &ex->request;

    request->method = method_by_name(ex->head.method);
    request->method_text = ex->head.method;
    request->target = ex->head.target;
    request->path = ex->head.path;
    request->query = ex->head.query;
    request->minor = ex->head.minor;
    request->content_length = ex->head.content_length;
    request->is_chunked = ex->head.is_chunked;
    request->is_tls = conn->ssl != NULL;
    request->is_unix = conn->peer.is_unix;
    request->is_passed = conn->is_parcelled;
    request->peer_uid = conn->peer.uid;
    request->peer_pid = conn->peer.pid;
    request->peer = conn->peer.text;
    request->peer_port = conn->peer.port;
    request->local_port = conn->peer.local_port;

    ex->framing = framing_of(ex);
    ex->body = ex->framing == FRAMING_NONE ? BODY_DONE : BODY_UNREAD;
    ex->body_left = ex->framing == FRAMING_LENGTH ? (uint64_t) ex->head.content_length : 0;
    ex->expects_continue =
        ex->head.expects_continue && ex->head.minor > 0 && ex->body == BODY_UNREAD;
    request->has_body = ex->body == BODY_UNREAD;
}

struct http_loop *http_request_loop(const struct http_request *request)
{
    return CONTAINER_OF(request, const struct exchange, request)->connection->loop;
}

bool http_is_ours(const struct http_request *request)
{
    return request->is_unix && (request->peer_uid == 0 || request->peer_uid == geteuid());
}

const char *http_header(const struct http_request *request, const char *name)
{
    return http_head_header(&CONTAINER_OF(request, const struct exchange, request)->head, name);
}

bool http_header_at(const struct http_request *request, size_t index, const char **ret_name,
                    const char **ret_value)
{
    const struct http_head *head = &CONTAINER_OF(request, const struct exchange, request)->head;

    if (index >= head->header_count)
        return false;
    *ret_name = head->text + head->headers[index].name;
    *ret_value = head->text + head->headers[index].value;
    return true;
}

size_t http_params(struct http_request *request, const struct http_pair **ret_pairs)
{
    struct exchange *ex = http_exchange_of(request);

    if (!ex->params) {
        ex->param_text = dup_text(request->query);
        ex->param_count = http_pairs_split(ex->param_text, "&", &ex->params);
    }
    *ret_pairs = ex->params;
    return ex->param_count;
}

/* All Cookie headers as one text, as if they had been sent in one line. */
static char *cookies_join(const struct http_head *head)
{
    char *all = NULL;
    size_t bytes = 0;

    for (uint16_t i = 0; i < head->header_count; i++) {
        const char *value = head->text + head->headers[i].value;
        size_t more = strlen(value);

        if (strcasecmp(head->text + head->headers[i].name, "cookie") != 0)
            continue;
        all = realloc_array(all, bytes + more + 2, 1);
        memcpy(all + bytes, value, more);
        bytes += more;
        all[bytes++] = ';';
        all[bytes] = '\0';
    }
    return all ? all : dup_text("");
}

size_t http_cookies(struct http_request *request, const struct http_pair **ret_pairs)
{
    struct exchange *ex = http_exchange_of(request);

    if (!ex->cookies) {
        ex->cookie_text = cookies_join(&ex->head);
        ex->cookie_count = http_pairs_split(ex->cookie_text, ";&", &ex->cookies);
    }
    *ret_pairs = ex->cookies;
    return ex->cookie_count;
}

static const char *pair_find(const struct http_pair *pairs, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (streq(pairs[i].name, name))
            return pairs[i].value;
    }
    return NULL;
}

const char *http_param(struct http_request *request, const char *name)
{
    const struct http_pair *pairs;
    size_t count = http_params(request, &pairs);

    return pair_find(pairs, count, name);
}

const char *http_cookie(struct http_request *request, const char *name)
{
    const struct http_pair *pairs;
    size_t count = http_cookies(request, &pairs);

    return pair_find(pairs, count, name);
}

bool http_basic(const struct http_request *request, char **ret_user, char **ret_password)
{
    const char *authorization = http_header(request, "authorization");

    return authorization && http_basic_decode(authorization, ret_user, ret_password);
}

void http_close_after(struct http_request *request)
{
    http_exchange_of(request)->connection->is_keep_alive = false;
}

struct http_ticket http_ticket_of(struct http_request *request)
{
    struct exchange *ex = http_exchange_of(request);

    return (struct http_ticket){
        .loop = ex->connection->loop,
        .slot = ex->connection->slot,
        .generation = ex->generation,
    };
}

struct http_ticket http_park(struct http_request *request,
                             void (*on_gone)(struct http_request *, void *), void *arg)
{
    struct exchange *ex = http_exchange_of(request);

    assert(ex->answer == ANSWER_NONE);
    ex->is_parked = true;
    ex->on_gone = on_gone;
    ex->on_gone_arg = arg;
    return http_ticket_of(request);
}
