/* transfer_pipe.c - what an export's codec writes on its thread becomes an HTTP answer on a loop */
#include "slave/transfer_pipe.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "slave/transfer_rate.h"

/* Some blocks of an export: enough that neither side waits for the other's pauses. */
#define PIPE_BYTES ((size_t) 4 << 20)

struct pipe {
    struct sink sink;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_int references;       /* the maker's, and the loop's while there is an answer */
    struct http_ticket ticket;
    struct transfer_figures *figures;
    struct transfer_rate *rate;

    _Atomic bool is_cancelled;   /* set with the lock */

    /* with the lock */
    struct evbuffer *bytes;      /* on their way */
    bool is_complete;            /* nothing comes after them */
    bool is_broken;              /* the client is to see that they are not all */
    bool is_over;                /* the answer has ended, one way or the other */
    bool was_taken;              /* ... having passed on all of it */
    bool loop_waits;             /* for bytes */

    /* what the answer begins with */
    int status;
    char *headers;
    int64_t length;
};

static void pipe_release(struct pipe *pipe)
{
    if (atomic_fetch_sub(&pipe->references, 1) > 1)
        return;
    evbuffer_free(pipe->bytes);
    pthread_cond_destroy(&pipe->changed);
    pthread_mutex_destroy(&pipe->lock);
    free(pipe->headers);
    free(pipe);
}

/* ---- the loop's side ---- */

static enum http_produced produce(struct http_request *request, struct evbuffer *out, size_t bytes_wanted, void *arg)
{
    struct pipe *pipe = arg;
    enum http_produced result = HTTP_MORE;

    (void) request;
    pthread_mutex_lock(&pipe->lock);
    if (pipe->is_broken || pipe->is_cancelled)
        result = HTTP_FAILED;
    else if (evbuffer_get_length(pipe->bytes) > 0)
        evbuffer_remove_buffer(pipe->bytes, out, bytes_wanted);
    else if (!pipe->is_complete)
        result = HTTP_WAIT;
    if (result == HTTP_MORE && pipe->is_complete && evbuffer_get_length(pipe->bytes) == 0)
        result = HTTP_DONE;
    pipe->loop_waits = result == HTTP_WAIT;
    pipe->was_taken = result == HTTP_DONE;
    pthread_cond_broadcast(&pipe->changed);
    pthread_mutex_unlock(&pipe->lock);
    return result;
}

static void answer_over(void *arg)
{
    struct pipe *pipe = arg;

    pthread_mutex_lock(&pipe->lock);
    pipe->is_over = true;
    pthread_cond_broadcast(&pipe->changed);
    pthread_mutex_unlock(&pipe->lock);
    pipe_release(pipe);
}

static void begin(struct http_request *request, void *arg)
{
    struct pipe *pipe = arg;

    if (request) {
        bool is_head = request->method == HTTP_HEAD;

        http_close_after(request);
        if (is_head)
            pipe->was_taken = true; /* there is nothing to take */
        http_produce(request, pipe->status, pipe->headers, pipe->length, produce, pipe, answer_over);
    } else {
        answer_over(pipe);
    }
}

/* ---- the codec's side ---- */

static int pipe_write(struct sink *sink, const void *bytes, size_t count)
{
    struct pipe *pipe = CONTAINER_OF(sink, struct pipe, sink);
    bool wake;
    int r = 0;

    if (transfer_rate_wait(pipe->rate, count, &pipe->is_cancelled) < 0)
        return -ECANCELED;
    pthread_mutex_lock(&pipe->lock);
    while (evbuffer_get_length(pipe->bytes) >= PIPE_BYTES && !pipe->is_over && !pipe->is_cancelled)
        pthread_cond_wait(&pipe->changed, &pipe->lock);
    if (pipe->is_cancelled)
        r = -ECANCELED;
    else if (pipe->is_over)
        r = -EPIPE;
    else
        evbuffer_add(pipe->bytes, bytes, count);
    wake = r == 0 && pipe->loop_waits;
    if (wake)
        pipe->loop_waits = false;
    pthread_mutex_unlock(&pipe->lock);
    if (r == 0)
        atomic_fetch_add(&pipe->figures->stream_bytes, (int64_t) count);
    if (wake)
        http_resume(pipe->ticket);
    return r;
}

struct pipe *pipe_new(struct http_ticket ticket, struct transfer_figures *figures, struct transfer_rate *rate)
{
    struct pipe *pipe = new0(struct pipe);

    pipe->sink.write = pipe_write;
    pthread_mutex_init(&pipe->lock, NULL);
    pthread_cond_init(&pipe->changed, NULL);
    atomic_store(&pipe->references, 1);
    pipe->ticket = ticket;
    pipe->figures = figures;
    pipe->rate = rate;
    pipe->bytes = evbuffer_new();
    return pipe;
}

void pipe_begin(struct pipe *pipe, int status, const char *headers, int64_t length)
{
    pipe->status = status;
    pipe->headers = dup_text(headers);
    pipe->length = length;
    atomic_fetch_add(&pipe->references, 1);
    http_ticket_post(pipe->ticket, begin, pipe);
}

struct sink *pipe_sink(struct pipe *pipe)
{
    return &pipe->sink;
}

int pipe_end(struct pipe *pipe, int r)
{
    pthread_mutex_lock(&pipe->lock);
    if (r < 0)
        pipe->is_broken = true;
    pipe->is_complete = true;
    pipe->loop_waits = false;
    pthread_mutex_unlock(&pipe->lock);
    http_resume(pipe->ticket);
    pthread_mutex_lock(&pipe->lock);
    while (!pipe->is_over && !pipe->is_cancelled)
        pthread_cond_wait(&pipe->changed, &pipe->lock);
    if (r == 0 && pipe->is_cancelled)
        r = -ECANCELED;
    else if (r == 0 && !pipe->was_taken)
        r = -EPIPE;
    pthread_mutex_unlock(&pipe->lock);
    return r;
}

void pipe_cancel(struct pipe *pipe)
{
    pthread_mutex_lock(&pipe->lock);
    pipe->is_cancelled = true;
    pthread_cond_broadcast(&pipe->changed);
    pthread_mutex_unlock(&pipe->lock);
    http_resume(pipe->ticket); /* to be told that it failed */
}

void pipe_unref(struct pipe **pipe_p)
{
    struct pipe *pipe = TAKE(*pipe_p);

    if (pipe)
        pipe_release(pipe);
}
