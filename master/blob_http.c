/* blob_http.c - what blobs hold, over HTTP
 *
 *   PUT   loop: socket -> bounded buffer  --- wake --->  fiber: a worker writes what is there
 *   GET   fiber: a worker reads a piece  --- resume -->  loop: the piece goes to the socket
 *                                        <--- wake ----
 *
 * A request holds one piece, however large the blob and slow the client, and no worker while it
 * waits for either. A client that goes away is seen by the loop, which tells the fiber.
 *
 * Clients of PUT send the body only when they have seen a status, so 200 goes out when the request
 * itself is good; what fails later shows in the task, and in the body of the answer. */
#include "master/blob_http.h"

#include "master/blob_files.h"
#include "master/front.h"
#include "master/handler.h"
#include "master/http_call.h"
#include "master/task.h"
#include "shared/fiber.h"
#include "shared/workers.h"

#include <pthread.h>
#include <unistd.h>

#define PIECE_BYTES (256 << 10)

/* One request, from its head to its end. The fiber and, for GET, the stream hold it. */
struct transfer {
    char *ref, *uuid; /* of the blob, or NULL */
    bool is_head;
    int64_t bytes; /* that the client sends (-1: it does not say) or is sent */
    struct call *call;
    const char *headers;

    pthread_mutex_t lock; /* for these, which fiber and loop share */
    unsigned holders;
    struct completion *waiting; /* the fiber, for a word from the loop */
    bool is_gone;               /* the loop has no more to do with it */
    struct http_upload *upload; /* PUT: where the body comes from, once it is wanted */
    const char *piece;          /* GET: for the loop to take; NULL: taken */
    size_t piece_bytes;
    int64_t left; /* GET: bytes that the loop has not taken yet */
    bool has_failed;

    /* The fiber's and its workers' alone. */
    struct blob_writing *writing;
    enum http_upload_state state;
    int fd;
    char *buffer;
    int64_t offset;
    ssize_t got;
};

static char *copy_named(struct http_request *http, const char *name)
{
    const char *text = http_named(http, name);

    return text ? dup_text(text) : NULL;
}

static struct transfer *transfer_new(struct http_request *http)
{
    struct transfer *transfer = new0(struct transfer);

    transfer->ref = copy_named(http, "ref");
    transfer->uuid = copy_named(http, "uuid");
    transfer->is_head = http->method == HTTP_HEAD;
    transfer->bytes = http->content_length;
    transfer->holders = 1;
    transfer->fd = -1;
    pthread_mutex_init(&transfer->lock, NULL);
    return transfer;
}

static void transfer_unref(struct transfer *transfer)
{
    unsigned holders;

    pthread_mutex_lock(&transfer->lock);
    holders = --transfer->holders;
    pthread_mutex_unlock(&transfer->lock);
    if (holders > 0)
        return;
    pthread_mutex_destroy(&transfer->lock);
    free(transfer->ref);
    free(transfer->uuid);
    free(transfer);
}

/* ---- between loop and fiber ---- */

/* With the lock held, which is given back. */
static void unlock_and_wake(struct transfer *transfer)
{
    struct completion *waiting = TAKE(transfer->waiting);

    pthread_mutex_unlock(&transfer->lock);
    if (waiting)
        completion_post(waiting, 0);
}

static void loop_is_done(struct transfer *transfer)
{
    pthread_mutex_lock(&transfer->lock);
    transfer->is_gone = true;
    unlock_and_wake(transfer);
}

/* Until is_ready() says so, asked with the lock held, or the loop is done. 0 or -ECANCELED. */
static int wait_for_loop(struct transfer *transfer, bool (*is_ready)(struct transfer *))
{
    int r = 0;

    for (;;) {
        _cleanup_(completion_drop) struct completion *waiting = NULL;

        pthread_mutex_lock(&transfer->lock);
        if (transfer->is_gone || is_ready(transfer) || r < 0)
            break;
        waiting = completion_new(transfer->call->core->loop);
        transfer->waiting = waiting;
        pthread_mutex_unlock(&transfer->lock);
        r = completion_wait(waiting, 0, NULL);
    }
    unlock_and_wake(transfer); /* nobody waits any more: the loop's end of it goes */
    return r;
}

/* ---- which blob ---- */

static const struct object *find(const struct view *view, const char *ref, const char *uuid)
{
    ref_t number;

    if (!ref)
        return uuid ? view_by_uuid(view, CLASS_OF(blob), uuid) : NULL;
    return ref_parse(ref, strlen(ref), &number) ? view_get(view, blob, number) : NULL;
}

static int find_blob(struct transfer *transfer, const struct object **ret)
{
    struct call *call = transfer->call;

    if (!transfer->ref && !transfer->uuid)
        return fail(call, INVALID_VALUE, "ref", "neither ref nor uuid");
    *ret = find(call_view(call), transfer->ref, transfer->uuid);
    if (*ret)
        return 0;
    return transfer->ref ? fail(call, HANDLE_INVALID, "blob", transfer->ref)
                         : fail(call, UUID_INVALID, "blob", transfer->uuid);
}

/* ---- GET ---- */

static enum http_produced produce(struct http_request *http, struct evbuffer *out, size_t wanted,
                                  void *arg)
{
    struct transfer *transfer = arg;
    enum http_produced produced = HTTP_WAIT;

    (void) http;
    (void) wanted;
    pthread_mutex_lock(&transfer->lock);
    if (transfer->piece) {
        evbuffer_add(out, transfer->piece, transfer->piece_bytes);
        transfer->left -= (int64_t) transfer->piece_bytes;
        transfer->piece = NULL;
    }
    if (transfer->left == 0)
        produced = HTTP_DONE;
    else if (transfer->has_failed)
        produced = HTTP_FAILED;
    unlock_and_wake(transfer);
    return produced;
}

static void stream_ended(void *arg)
{
    struct transfer *transfer = arg;

    loop_is_done(transfer);
    transfer_unref(transfer);
}

static void begin_stream(struct http_request *http, void *arg)
{
    struct transfer *transfer = arg;

    if (http)
        http_produce(http, 200, transfer->headers, transfer->bytes, produce, transfer,
                     stream_ended);
    else
        stream_ended(transfer);
}

static void read_piece(void *arg)
{
    struct transfer *transfer = arg;
    int64_t wanted = MIN(transfer->bytes - transfer->offset, (int64_t) PIECE_BYTES);

    transfer->got = pread(transfer->fd, transfer->buffer, (size_t) wanted, transfer->offset);
}

static void close_file(void *arg)
{
    struct transfer *transfer = arg;

    if (transfer->fd >= 0)
        close(transfer->fd);
}

static bool is_taken(struct transfer *transfer)
{
    return !transfer->piece;
}

/* Piece by piece, each when the one before was taken. */
static int feed(struct transfer *transfer)
{
    struct call *call = transfer->call;

    while (transfer->offset < transfer->bytes) {
        workers_run(call->core->workers, read_piece, transfer);
        if (transfer->got <= 0)
            return fail(call, INTERNAL_ERROR, "the blob's file cannot be read");
        transfer->offset += transfer->got;
        pthread_mutex_lock(&transfer->lock);
        transfer->piece = transfer->buffer;
        transfer->piece_bytes = (size_t) transfer->got;
        pthread_mutex_unlock(&transfer->lock);
        http_resume(http_call_ticket(call));
        if (wait_for_loop(transfer, is_taken) < 0)
            return task_cancelled(call);
        if (!is_taken(transfer)) /* nobody is there who would change it */
            return fail(call, INTERNAL_ERROR, "the client has gone");
    }
    return 0;
}

static int send_file(struct transfer *transfer, const struct object *blob)
{
    struct call *call = transfer->call;
    int r;

    transfer->headers = arena_text(call->arena, "content-type: %s\r\n%s",
                                   arena_strdup(call->arena, blob_get_mime_type(blob)),
                                   http_call_task_header(call));
    r = blob_open(call, blob, &transfer->fd, &transfer->bytes);
    if (r < 0)
        return r;
    transfer->left = transfer->bytes;
    transfer->holders++; /* the stream; nobody else knows of it yet */
    http_ticket_post(http_call_ticket(call), begin_stream, transfer);
    if (!transfer->is_head) {
        transfer->buffer = malloc(PIECE_BYTES);
        task_set_cancellable(call, true);
        r = feed(transfer);
        task_set_cancellable(call, false);
    }
    pthread_mutex_lock(&transfer->lock);
    transfer->has_failed = r < 0;
    transfer->piece = NULL;
    pthread_mutex_unlock(&transfer->lock);
    http_resume(http_call_ticket(call));
    workers_run(call->core->workers, close_file, transfer);
    free(transfer->buffer);
    return r;
}

/* ---- PUT ---- */

static void on_upload(struct http_upload *upload, void *arg)
{
    struct transfer *transfer = arg;

    (void) upload;
    pthread_mutex_lock(&transfer->lock);
    unlock_and_wake(transfer);
}

static void begin_upload(struct http_request *http, void *arg)
{
    struct transfer *transfer = arg;
    struct http_upload *upload;

    if (!http) {
        loop_is_done(transfer);
        return;
    }
    http_send_head_early(http, 200, transfer->headers);
    upload = http_consume(http, PIECE_BYTES, on_upload, transfer);
    pthread_mutex_lock(&transfer->lock);
    transfer->upload = upload;
    unlock_and_wake(transfer);
}

static bool has_come(struct transfer *transfer)
{
    enum http_upload_state state;
    const char *bytes;

    return transfer->upload
           && (http_upload_peek(transfer->upload, &bytes, &state) > 0 || state != HTTP_UPLOAD_OPEN);
}

static void write_what_came(void *arg)
{
    struct transfer *transfer = arg;
    const char *bytes;
    size_t count;

    while ((count = http_upload_peek(transfer->upload, &bytes, &transfer->state)) > 0) {
        if (!blob_write(transfer->writing, bytes, count))
            return;
        http_upload_consumed(transfer->upload, count);
    }
}

static int receive(struct transfer *transfer)
{
    struct call *call = transfer->call;

    http_ticket_post(http_call_ticket(call), begin_upload, transfer);
    while (transfer->state == HTTP_UPLOAD_OPEN) {
        if (wait_for_loop(transfer, has_come) < 0)
            return task_cancelled(call);
        if (!transfer->upload)
            transfer->state = HTTP_UPLOAD_BROKEN;
        else
            workers_run(call->core->workers, write_what_came, transfer);
        if (blob_write_has_failed(transfer->writing))
            break; /* blob_write_end() says why */
    }
    if (transfer->state == HTTP_UPLOAD_SHORT || transfer->state == HTTP_UPLOAD_BROKEN)
        return fail(call, IMPORT_ERROR_PREMATURE_EOF);
    return 0;
}

static int receive_file(struct transfer *transfer, const struct object *blob)
{
    struct call *call = transfer->call;
    int r = blob_write_begin(call, blob, transfer->bytes, &transfer->writing);

    if (r < 0)
        return r;
    transfer->headers = arena_text(call->arena, "content-type: text/plain; charset=utf-8\r\n%s",
                                   http_call_task_header(call));
    task_set_cancellable(call, true);
    r = receive(transfer);
    task_set_cancellable(call, false);
    if (r == 0)
        r = blob_write_end(call, transfer->writing);
    blob_write_drop(&transfer->writing);
    return r;
}

/* ---- the request ---- */

static bool is_stranger(const struct caller *caller)
{
    return ref_is_null(caller->session) && !caller->is_local_superuser;
}

static int run_get(struct call *call, void *arg)
{
    struct transfer *transfer = arg;
    const struct object *blob;
    int r;

    transfer->call = call;
    r = find_blob(transfer, &blob);
    if (r < 0)
        return r;
    if (!blobs_enter(call->core->blobs, is_stranger(&call->caller)))
        return fail(call, TOO_MANY_PENDING_TASKS);
    call->reply = value_text("");
    r = send_file(transfer, blob);
    blobs_leave(call->core->blobs);
    return r;
}

static int run_put(struct call *call, void *arg)
{
    struct transfer *transfer = arg;
    const struct object *blob;
    int r;

    transfer->call = call;
    r = find_blob(transfer, &blob);
    if (r < 0)
        return r;
    if (transfer->bytes < 0)
        return fail(call, INVALID_VALUE, "content-length", "it is needed");
    r = http_call_task(call, arena_text(call->arena, "Upload of blob: %s", blob_get_uuid(blob)),
                       "");
    if (r == 0)
        r = find_blob(transfer, &blob); /* a task was made meanwhile */
    if (r < 0)
        return r;
    if (!blobs_enter(call->core->blobs, false))
        return fail(call, TOO_MANY_PENDING_TASKS);
    call->reply = value_text("");
    r = receive_file(transfer, blob);
    blobs_leave(call->core->blobs);
    return r;
}

static void answer(struct http_request *http, struct call *call, int r, void *arg)
{
    struct transfer *transfer = arg;

    if (http && r < 0)
        http_call_reply_failure(http, call);
    else if (http)
        http_reply_text(http, 200, "", "");
    http_upload_unref(&transfer->upload);
    transfer_unref(transfer);
}

static void begin_get(struct http_request *http, struct http_caller *caller, void *arg)
{
    (void) arg;
    http_call_start(
        http, caller,
        &(struct http_call){
            .name = "blob.get", .run = run_get, .answer = answer, .arg = transfer_new(http)});
}

static void begin_put(struct http_request *http, struct http_caller *caller, void *arg)
{
    (void) arg;
    http_call_start(
        http, caller,
        &(struct http_call){
            .name = "blob.put", .run = run_put, .answer = answer, .arg = transfer_new(http)});
}

/* A stranger may read a public blob, but end nobody's task. */
static void get(struct http_request *http, void *arg)
{
    struct front *front = arg;
    _cleanup_(view_unpin) struct view *view = store_pin(front_core(front)->store);
    const struct object *blob = find(view, http_named(http, "ref"), http_named(http, "uuid"));

    if (blob && blob_get_public(blob) && !http_named(http, "task_id")
        && !http_named(http, "subtask_of"))
        http_anybody(front, http, begin_get, NULL);
    else
        http_authenticate(front, http, "get_blob", ROLE_READ_ONLY, begin_get, NULL);
}

static void put(struct http_request *http, void *arg)
{
    http_authenticate(arg, http, "put_blob", ROLE_VM_POWER_ADMIN, begin_put, NULL);
}

void blob_serve(struct front *front)
{
    front_add(front, HTTP_GET, "/blob", get, front);
    front_add(front, HTTP_PUT, "/blob", put, front);
}
