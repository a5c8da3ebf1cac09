/* http_reply.c - answers: whole ones, and streams made while the socket drains */
#include "shared/http_internal.h"

#include <errno.h>
#include <stdio.h>

/* Text of a non-negative number; returns its start inside of the buffer. */
static char *number_text(char *end, uint64_t number)
{
    *--end = '\0';
    do
        *--end = (char) ('0' + number % 10);
    while (number /= 10);
    return end;
}

/* From now on the answer is ours to send. Decides whether the connection can be kept. */
static void answer_begin(struct exchange *ex)
{
    struct connection *conn = ex->connection;

    assert(ex->answer == ANSWER_NONE);
    ex->answer = ANSWER_DONE;
    if (ex->body == BODY_DONE)
        return;

    /* The client still sends, or waits to be invited and may now do either. */
    http_body_upload_end(ex, HTTP_UPLOAD_BROKEN);
    if (ex->framing == FRAMING_LENGTH && ex->body_left <= HTTP_DRAIN_BYTES_MAX
        && !ex->expects_continue)
        ex->body = BODY_DRAIN;
    else {
        ex->body = BODY_ABANDONED;
        conn->is_keep_alive = false;
    }
}

static bool status_has_body(int status)
{
    return status >= 200 && status != 204 && status != 304;
}

/* length: -1 when the head says nothing of it */
void http_reply_head(struct exchange *ex, int status, const char *headers, int64_t length)
{
    struct evbuffer *out = ex->connection->out;
    char digits[24];

    assert(!headers || !*headers || strcmp(headers + strlen(headers) - 2, "\r\n") == 0);
    if (status == 200 && ex->request.minor > 0)
        evbuffer_add(out, "HTTP/1.1 200 OK\r\n", 17);
    else
        evbuffer_add_printf(out, "HTTP/1.%d %d %s\r\n", ex->request.minor, status,
                            http_status_text(status));
    if (headers)
        evbuffer_add(out, headers, strlen(headers));
    if (length >= 0) {
        char *text = number_text(digits + sizeof digits, (uint64_t) length);

        evbuffer_add(out, "content-length: ", 16);
        evbuffer_add(out, text, strlen(text));
        evbuffer_add(out, "\r\n", 2);
    } else if (ex->is_chunked_answer)
        evbuffer_add(out, "transfer-encoding: chunked\r\n", 28);
    if (ex->connection->is_keep_alive)
        evbuffer_add(out, "connection: keep-alive\r\n\r\n", 26);
    else
        evbuffer_add(out, "connection: close\r\n\r\n", 21);
}

/* Head of a whole answer. Returns true when the body is to follow. */
static bool reply_begin(struct exchange *ex, int status, const char *headers, size_t bytes)
{
    answer_begin(ex);
    if (ex->is_head_sent)
        return true;
    http_reply_head(ex, status, headers, status_has_body(status) ? (int64_t) bytes : -1);
    return ex->request.method != HTTP_HEAD && status_has_body(status);
}

void http_reply(struct http_request *request, int status, const char *headers,
                struct evbuffer *body)
{
    struct exchange *ex = http_exchange_of(request);

    if (reply_begin(ex, status, headers, body ? evbuffer_get_length(body) : 0) && body)
        evbuffer_add_buffer(ex->connection->out, body);
    else if (body)
        evbuffer_drain(body, evbuffer_get_length(body));
    http_connection_touch(ex->connection);
}

void http_reply_text(struct http_request *request, int status, const char *headers,
                     const char *text)
{
    struct exchange *ex = http_exchange_of(request);
    size_t bytes = strlen(text);

    if (reply_begin(ex, status, headers, bytes))
        evbuffer_add(ex->connection->out, text, bytes);
    http_connection_touch(ex->connection);
}

void http_send_head_early(struct http_request *request, int status, const char *headers)
{
    struct exchange *ex = http_exchange_of(request);

    assert(ex->answer == ANSWER_NONE && !ex->is_head_sent);
    ex->connection->is_keep_alive = false;
    http_body_invite(ex); /* after a final status the client might send nothing */
    http_reply_head(ex, status, headers, -1);
    ex->is_head_sent = true;
    http_connection_touch(ex->connection);
}

void http_abort(struct http_request *request)
{
    struct connection *conn = http_exchange_of(request)->connection;

    conn->is_cut = true;
    http_connection_kill(conn);
}

/* --- streams --------------------------------------------------------------------------------- */

void http_produce_end(struct exchange *ex)
{
    void (*destroy)(void *) = TAKE(ex->produce_destroy);

    ex->produce = NULL;
    ex->produce_sent = NULL;
    if (destroy)
        destroy(ex->produce_arg);
}

void http_tell_sent(struct http_request *request, void (*sent)(void *arg))
{
    http_exchange_of(request)->produce_sent = sent;
}

void http_produce(struct http_request *request, int status, const char *headers, int64_t length,
                  http_produce_fn *fn, void *arg, void (*destroy)(void *))
{
    struct exchange *ex = http_exchange_of(request);
    struct connection *conn = ex->connection;
    bool has_body = request->method != HTTP_HEAD && status_has_body(status);

    ex->produce_arg = arg;
    ex->produce_destroy = destroy;
    answer_begin(ex);
    if (length == HTTP_LENGTH_UNKNOWN && !ex->is_head_sent && request->minor > 0)
        ex->is_chunked_answer = status_has_body(status);
    else if (length < 0 && has_body)
        conn->is_keep_alive = false;
    ex->produce_left = length;
    if (!ex->is_head_sent)
        http_reply_head(ex, status, headers, status_has_body(status) ? ex->produce_left : -1);
    if (has_body) {
        ex->produce = fn;
        ex->answer = ANSWER_PRODUCING;
    } else
        http_produce_end(ex);
    http_connection_touch(conn);
}

/* Move what was made to the socket's queue, in its framing. */
static void produced_send(struct exchange *ex, struct evbuffer *made, size_t bytes)
{
    struct evbuffer *out = ex->connection->out;

    if (bytes > 0 && ex->is_chunked_answer)
        evbuffer_add_printf(out, "%zx\r\n", bytes);
    evbuffer_add_buffer(out, made);
    if (bytes > 0 && ex->is_chunked_answer)
        evbuffer_add(out, "\r\n", 2);
}

static void produce_fail(struct exchange *ex)
{
    struct connection *conn = ex->connection;

    evbuffer_drain(conn->loop->produced, evbuffer_get_length(conn->loop->produced));
    conn->is_cut = true;
    http_connection_kill(conn);
}

/* Ask the producer once. */
void http_produce_step(struct exchange *ex)
{
    struct connection *conn = ex->connection;
    struct evbuffer *made = conn->loop->produced;
    size_t wanted = HTTP_PRODUCE_BYTES, bytes;
    enum http_produced result;

    if (ex->produce_left >= 0)
        wanted = (size_t) MIN((uint64_t) ex->produce_left, (uint64_t) wanted);
    result = ex->produce(&ex->request, made, wanted, ex->produce_arg);
    bytes = evbuffer_get_length(made);

    /* A file, for one, may turn out shorter or longer than was said: the client must notice. */
    if (conn->is_dead || result == HTTP_FAILED
        || (ex->produce_left >= 0 && bytes > (uint64_t) ex->produce_left)
        || (ex->produce_left >= 0 && bytes < (uint64_t) ex->produce_left && result == HTTP_DONE)) {
        produce_fail(ex);
        return;
    }
    if (ex->produce_left >= 0)
        ex->produce_left -= (int64_t) bytes;
    produced_send(ex, made, bytes);
    if (result == HTTP_DONE) {
        if (ex->is_chunked_answer)
            evbuffer_add(conn->out, "0\r\n\r\n", 5);
        ex->answer = ANSWER_DONE; /* it ends with the exchange, when the socket has it */
        ex->produce = NULL;
    } else
        ex->is_producer_waiting = result == HTTP_WAIT;
}

static void produce_continue(struct http_request *request, void *arg)
{
    (void) arg;
    if (request)
        http_exchange_of(request)->is_producer_waiting = false;
}

void http_resume(struct http_ticket ticket)
{
    http_loop_post_ticket(ticket, produce_continue, NULL, true);
}
