/* transfer_pipe.c - what an export's codec writes on its thread becomes an HTTP answer on a loop
 *
 *      free ==> filling ==> full, full ==> the answer's queue ==> socket
 *       ^                                                           |
 *       +------------------- a block that was sent -----------------+
 *
 * Bytes are copied once, into one of a few blocks; the answer refers to blocks, and gives each back
 * when the socket has taken it. So nothing is allocated on the way, and memory stays what it is.
 * The codec fills its block without the lock. The loop takes full blocks, or the one in filling
 * when it would wait otherwise.
 *
 * Waking a thread costs more than copying a block. So the loop is woken when half of the blocks are full, or if it has not
 * been for AGAIN_MS: what is made slowly goes out as it comes. What a codec made just before it fell silent can stay behind,
 * half of the blocks at most, until it goes on or ends. The codec, too, waits until half of them are free. */
#include "slave/transfer_pipe.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "shared/clock.h"
#include "slave/transfer_places.h"
#include "slave/transfer_rate.h"

/* Large enough that the two threads seldom wake each other, and small enough to stay in the
 * processor's cache. */
#define BLOCK_BYTES  ((size_t) 256 * 1024)
#define BLOCKS_COUNT 4
#define AGAIN_MS     20

struct block {
    struct pipe *pipe;
    struct block *next;
    size_t used;
    char *bytes; /* BLOCK_BYTES; NULL: was never needed */
};

struct pipe {
    struct sink sink;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_int references; /* the maker's, the loop's while there is an answer, one for each block
                              in its queue */
    struct http_ticket ticket;
    struct transfer_figures *figures;
    struct transfer_rate *rate;
    size_t owed;         /* transfer_rate.h; the codec's thread only */
    struct place *place; /* or NULL */
    struct block blocks[BLOCKS_COUNT];

    _Atomic bool is_cancelled; /* set with the lock */

    /* with the lock */
    struct block *free;
    unsigned free_count;
    struct block *full, **full_end; /* oldest first */
    unsigned full_count;
    struct block *filling;          /* or NULL */
    bool is_copying;                /* the codec, into it */
    bool codec_waits;               /* for free blocks */
    bool is_complete;               /* nothing comes after them */
    bool is_broken;                 /* the client is to see that they are not all */
    bool is_over;                   /* the answer has ended, one way or the other */
    bool was_taken;                 /* ... having passed on all of it */
    bool loop_waits;                /* for bytes */
    uint64_t woken_ms;              /* when it was last told of some */

    /* what the answer begins with */
    int status;
    char *headers;
    int64_t length;
};

static void pipe_release(struct pipe *pipe)
{
    if (atomic_fetch_sub(&pipe->references, 1) > 1)
        return;
    for (unsigned i = 0; i < BLOCKS_COUNT; i++)
        free(pipe->blocks[i].bytes);
    pthread_cond_destroy(&pipe->changed);
    pthread_mutex_destroy(&pipe->lock);
    free(pipe->headers);
    free(pipe);
}

/* With the lock. */
static void block_free(struct pipe *pipe, struct block *block)
{
    block->used = 0;
    block->next = pipe->free;
    pipe->free = block;
    pipe->free_count++;
}

/* With the lock. What is in filling comes after all that is full. */
static void push_filling(struct pipe *pipe)
{
    struct block *block = TAKE(pipe->filling);

    block->next = NULL;
    *pipe->full_end = block;
    pipe->full_end = &block->next;
    pipe->full_count++;
}

static struct block *pop_full(struct pipe *pipe)
{
    struct block *block;

    if (!pipe->full && pipe->filling && !pipe->is_copying && pipe->filling->used > 0)
        push_filling(pipe);
    block = pipe->full;
    if (block) {
        pipe->full = block->next;
        if (!pipe->full)
            pipe->full_end = &pipe->full;
        pipe->full_count--;
    }
    return block;
}

static bool is_empty(const struct pipe *pipe)
{
    return !pipe->full && (!pipe->filling || pipe->filling->used == 0);
}

/* ---- the loop's side ---- */

static void block_sent(const void *bytes, size_t count, void *arg)
{
    struct block *block = arg;
    struct pipe *pipe = block->pipe;

    (void) bytes;
    (void) count;
    pthread_mutex_lock(&pipe->lock);
    block_free(pipe, block);
    /* Some at once, so that the two do not wake each other for each block. */
    if (pipe->codec_waits && pipe->free_count >= BLOCKS_COUNT / 2)
        pthread_cond_broadcast(&pipe->changed);
    pthread_mutex_unlock(&pipe->lock);
    pipe_release(pipe);
}

static void send_block(struct pipe *pipe, struct block *block, struct evbuffer *out)
{
    atomic_fetch_add(&pipe->references, 1);
    if (evbuffer_add_reference(out, block->bytes, block->used, block_sent, block) < 0)
        die("out of memory (evbuffer)");
}

static enum http_produced produce(struct http_request *request, struct evbuffer *out,
                                  size_t bytes_wanted, void *arg)
{
    struct pipe *pipe = arg;
    enum http_produced result = HTTP_MORE;
    struct block *block;

    (void) request;
    (void) bytes_wanted; /* a block is more, and is there already */
    pthread_mutex_lock(&pipe->lock);
    if (pipe->is_broken || pipe->is_cancelled)
        result = HTTP_FAILED;
    else if ((block = pop_full(pipe)))
        send_block(pipe, block, out);
    else if (!pipe->is_complete)
        result = HTTP_WAIT;
    if (result == HTTP_MORE && pipe->is_complete && is_empty(pipe))
        result = HTTP_DONE;
    pipe->loop_waits = result == HTTP_WAIT;
    pthread_mutex_unlock(&pipe->lock);
    return result;
}

/* All of it is with the socket. */
static void sent(void *arg)
{
    struct pipe *pipe = arg;

    pthread_mutex_lock(&pipe->lock);
    pipe->was_taken = true;
    pthread_mutex_unlock(&pipe->lock);
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
        http_tell_sent(request, sent);
        http_produce(request, pipe->status, pipe->headers, pipe->length, produce, pipe,
                     answer_over);
    } else {
        answer_over(pipe);
    }
}

/* ---- the codec's side ---- */

static bool must_wait(const struct pipe *pipe)
{
    return !pipe->filling && !pipe->free && !pipe->is_over && !pipe->is_cancelled;
}

/* With the lock. It is for the client to take something first: others may work meanwhile. */
static void wait_for_client(struct pipe *pipe)
{
    place_lend(pipe->place);
    pipe->codec_waits = true;
    while (must_wait(pipe))
        pthread_cond_wait(&pipe->changed, &pipe->lock);
    pipe->codec_waits = false;
    if (pipe->is_over || pipe->is_cancelled)
        return; /* there is no more to do */
    pthread_mutex_unlock(&pipe->lock); /* the loop may go on while there is no place yet; nobody else fills blocks */
    (void) place_take_back(pipe->place); /* without one it was cancelled, which is seen next */
    pthread_mutex_lock(&pipe->lock);
}

/* With the lock. A block with room to fill: 0, or what is wrong. Waits for one. */
static int find_room(struct pipe *pipe)
{
    if (must_wait(pipe))
        wait_for_client(pipe);
    if (pipe->is_cancelled)
        return -ECANCELED;
    if (pipe->is_over)
        return -EPIPE;
    if (!pipe->filling) {
        pipe->filling = pipe->free;
        pipe->free = pipe->filling->next;
        pipe->free_count--;
        if (!pipe->filling->bytes)
            pipe->filling->bytes = alloc0(BLOCK_BYTES);
    }
    return 0;
}

/* With the lock. Whether the loop is to be told now that there is something for it. */
static bool must_wake(struct pipe *pipe)
{
    uint64_t now_ms;

    if (!pipe->loop_waits)
        return false;
    now_ms = clock_now_ms(clock_real());
    if (pipe->full_count < BLOCKS_COUNT / 2 && now_ms - pipe->woken_ms < AGAIN_MS)
        return false;
    pipe->woken_ms = now_ms;
    pipe->loop_waits = false;
    return true;
}

/* As many of the bytes as the block takes. *ret_wake: the loop is to be told. */
static int write_some(struct pipe *pipe, const char *bytes, size_t *count, bool *ret_wake)
{
    struct block *block;
    int r;

    pthread_mutex_lock(&pipe->lock);
    r = find_room(pipe);
    if (r == 0) {
        block = pipe->filling;
        *count = MIN(*count, BLOCK_BYTES - block->used);
        pipe->is_copying = true;
        pthread_mutex_unlock(&pipe->lock);
        memcpy(block->bytes + block->used, bytes, *count);
        pthread_mutex_lock(&pipe->lock);
        pipe->is_copying = false;
        block->used += *count;
        if (block->used == BLOCK_BYTES)
            push_filling(pipe);
        *ret_wake = must_wake(pipe);
    }
    pthread_mutex_unlock(&pipe->lock);
    return r;
}

/* Some bytes that the rate lets pass. */
static int write_piece(struct pipe *pipe, const char *bytes, size_t count)
{
    int r = 0;

    if (transfer_rate_wait(pipe->rate, &pipe->owed, count, &pipe->is_cancelled) < 0)
        return -ECANCELED;
    for (size_t done = 0, some; done < count && r == 0; done += some) {
        bool wake = false;

        some = count - done;
        r = write_some(pipe, bytes + done, &some, &wake);
        if (wake)
            http_resume(pipe->ticket);
    }
    if (r == 0)
        atomic_fetch_add(&pipe->figures->stream_bytes, (int64_t) count);
    return r;
}

static int pipe_write(struct sink *sink, const void *bytes, size_t count)
{
    struct pipe *pipe = CONTAINER_OF(sink, struct pipe, sink);
    size_t piece = transfer_rate_piece(pipe->rate);
    int r = 0;

    for (size_t done = 0, some; done < count && r == 0; done += some) {
        some = MIN(count - done, piece);
        r = write_piece(pipe, (const char *) bytes + done, some);
    }
    return r;
}

struct pipe *pipe_new(struct http_ticket ticket, struct transfer_figures *figures,
                      struct transfer_rate *rate, struct place *place)
{
    struct pipe *pipe = new0(struct pipe);

    pipe->sink.write = pipe_write;
    pthread_mutex_init(&pipe->lock, NULL);
    pthread_cond_init(&pipe->changed, NULL);
    atomic_store(&pipe->references, 1);
    pipe->ticket = ticket;
    pipe->figures = figures;
    pipe->rate = rate;
    pipe->place = place;
    pipe->full_end = &pipe->full;
    for (unsigned i = 0; i < BLOCKS_COUNT; i++) {
        pipe->blocks[i].pipe = pipe;
        block_free(pipe, &pipe->blocks[i]);
    }
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
    place_lend(pipe->place); /* for good: there is no more to do */
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
