/* compress_gzip.c - one gzip member made by several threads (compress.h)
 *
 *      head   [ chunk 0 ][ chunk 1 ][ chunk 2 ] ...   trailer: crc, length
 *                      \__________/
 *                     its dictionary: the last 32 KiB before it
 *
 * Each chunk is deflated by itself, knowing the bytes before it, and ends at a whole byte (a sync
 * flush), so the results one behind the other are one deflate stream; the CRCs are combined. Chunks
 * go round in slots:
 *
 *      FREE -> FILLING -> READY -> BUSY -> DONE -> FREE
 *              caller     |  a worker  |   caller, in order: written below
 *
 * Only the caller moves a slot from DONE to FREE, and it waits for one only when it needs it. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <zlib.h>

#include "slave/compress.h"

/* zlib's fastest: at 6, its default, it makes some 50 MB/s a processor, a tenth of what disks give.
 * Whoever wants it small asks for zstd. */
#define GZIP_LEVEL 1

#define CHUNK_BYTES      ((size_t) 128 * 1024)
#define DICTIONARY_BYTES ((size_t) 32 * 1024)
/* What does not compress grows by less than this, and a flush adds some bytes. */
#define OUT_BYTES (CHUNK_BYTES + 4096)

enum slot_state { FREE, READY, BUSY, DONE };

struct slot {
    enum slot_state state;   /* FREE also while it is filled: the caller knows which one that is */
    bool is_last;            /* ends the stream */
    size_t dictionary_count; /* bytes before the chunk */
    size_t in_count, out_count;
    uLong crc;                                        /* of the chunk */
    unsigned char in[DICTIONARY_BYTES + CHUNK_BYTES]; /* the chunk, at DICTIONARY_BYTES; its
                                                         dictionary just before it */
    unsigned char out[OUT_BYTES];
};

struct compress_gzip {
    struct compressor base;
    unsigned thread_count, slot_count;
    pthread_t threads[COMPRESS_WORKERS_MAX];
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool is_stopping;
    uint64_t next_busy; /* number of the chunk that a worker takes next */
    uint64_t
        filling; /* number of the chunk being filled; its slot is the number modulo slot_count */
    uint64_t written; /* chunks that went below */
    bool is_begun;    /* the head went below */
    uLong crc;
    uint64_t length;
    int result;         /* the first that went wrong */
    struct slot *slots; /* one more than threads */
};

static int gzip_write(struct sink *sink, const void *bytes, size_t count);

static struct slot *slot_of(struct compress_gzip *gzip, uint64_t number)
{
    return &gzip->slots[number % gzip->slot_count];
}

/* ---- workers ---- */

static void deflate_chunk(z_stream *z, struct slot *slot)
{
    unsigned char *chunk = slot->in + DICTIONARY_BYTES;
    int r = deflateReset(z);

    if (r == Z_OK && slot->dictionary_count > 0)
        r = deflateSetDictionary(z, chunk - slot->dictionary_count, (uInt) slot->dictionary_count);
    assert(r == Z_OK);
    z->next_in = chunk;
    z->avail_in = (uInt) slot->in_count;
    z->next_out = slot->out;
    z->avail_out = OUT_BYTES;
    r = deflate(z, slot->is_last ? Z_FINISH : Z_SYNC_FLUSH);
    assert(r == (slot->is_last ? Z_STREAM_END : Z_OK) && z->avail_in == 0 && z->avail_out > 0);
    slot->out_count = OUT_BYTES - z->avail_out;
    slot->crc = crc32(crc32(0, NULL, 0), chunk, (uInt) slot->in_count);
}

static void *gzip_main(void *arg)
{
    struct compress_gzip *gzip = arg;
    z_stream z = {0};

    if (deflateInit2(&z, GZIP_LEVEL, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        die("out of memory for gzip");
    pthread_setname_np(pthread_self(), "gzip");
    pthread_mutex_lock(&gzip->lock);
    while (!gzip->is_stopping) {
        struct slot *slot = slot_of(gzip, gzip->next_busy);

        if (slot->state != READY) {
            pthread_cond_wait(&gzip->change, &gzip->lock);
            continue;
        }
        gzip->next_busy++;
        slot->state = BUSY;
        pthread_mutex_unlock(&gzip->lock);
        deflate_chunk(&z, slot);
        pthread_mutex_lock(&gzip->lock);
        slot->state = DONE;
        pthread_cond_broadcast(&gzip->change);
    }
    pthread_mutex_unlock(&gzip->lock);
    deflateEnd(&z);
    return NULL;
}

/* ---- the caller ---- */

struct compressor *compress_gzip_new(unsigned workers)
{
    struct compress_gzip *gzip = new0(struct compress_gzip);

    gzip->base.sink.write = gzip_write;
    gzip->slot_count = workers + 1;
    gzip->slots = new0_array(struct slot, gzip->slot_count);
    gzip->crc = crc32(0, NULL, 0);
    pthread_mutex_init(&gzip->lock, NULL);
    pthread_cond_init(&gzip->change, NULL);
    while (gzip->thread_count < workers
           && pthread_create(&gzip->threads[gzip->thread_count], NULL, gzip_main, gzip) == 0)
        gzip->thread_count++;
    if (gzip->thread_count == 0) { /* fewer than wanted are only slower */
        compress_gzip_destroy(&gzip->base);
        return NULL;
    }
    return &gzip->base;
}

static void below(struct compress_gzip *gzip, const void *bytes, size_t count)
{
    if (gzip->result == 0)
        gzip->result = gzip->base.below->write(gzip->base.below, bytes, count);
}

/* The oldest chunk that has not been written: wait for it and write it. */
static void write_oldest(struct compress_gzip *gzip)
{
    static const unsigned char head[10] = {0x1f, 0x8b, 8, 0, 0,
                                           0,    0,    0, 0, 255}; /* no name, no time, no system */
    struct slot *slot = slot_of(gzip, gzip->written);

    pthread_mutex_lock(&gzip->lock);
    while (slot->state != DONE)
        pthread_cond_wait(&gzip->change, &gzip->lock);
    pthread_mutex_unlock(&gzip->lock);
    if (!gzip->is_begun)
        below(gzip, head, sizeof head);
    gzip->is_begun = true;
    below(gzip, slot->out, slot->out_count);
    gzip->crc = crc32_combine(gzip->crc, slot->crc, (z_off_t) slot->in_count);
    gzip->length += slot->in_count;
    gzip->written++;
    pthread_mutex_lock(&gzip->lock);
    slot->state = FREE;
    pthread_mutex_unlock(&gzip->lock);
}

/* The chunk that was filled goes to the workers, and the next slot begins with its end as
 * dictionary. */
static void submit(struct compress_gzip *gzip, bool is_last)
{
    struct slot *slot = slot_of(gzip, gzip->filling), *next;
    size_t dictionary = MIN(slot->in_count, DICTIONARY_BYTES);

    slot->is_last = is_last;
    pthread_mutex_lock(&gzip->lock);
    slot->state = READY;
    pthread_cond_broadcast(&gzip->change);
    pthread_mutex_unlock(&gzip->lock);
    gzip->filling++;
    if (is_last)
        return;
    if (gzip->filling - gzip->written == gzip->slot_count)
        write_oldest(gzip);
    next = slot_of(gzip, gzip->filling);
    memcpy(next->in + DICTIONARY_BYTES - dictionary,
           slot->in + DICTIONARY_BYTES + slot->in_count - dictionary,
           dictionary); /* which a worker only reads */
    next->dictionary_count = dictionary;
    next->in_count = 0;
}

static int gzip_write(struct sink *sink, const void *bytes, size_t count)
{
    struct compress_gzip *gzip = CONTAINER_OF(sink, struct compress_gzip, base.sink);
    const char *at = bytes;

    while (count > 0 && gzip->result == 0) {
        struct slot *slot = slot_of(gzip, gzip->filling);
        size_t n = MIN(count, CHUNK_BYTES - slot->in_count);

        memcpy(slot->in + DICTIONARY_BYTES + slot->in_count, at, n);
        slot->in_count += n;
        at += n;
        count -= n;
        if (slot->in_count == CHUNK_BYTES)
            submit(gzip, false);
    }
    return gzip->result;
}

int compress_gzip_end(struct compressor *compressor)
{
    struct compress_gzip *gzip = CONTAINER_OF(compressor, struct compress_gzip, base);
    unsigned char trailer[8];

    submit(gzip, true);
    while (gzip->written < gzip->filling)
        write_oldest(gzip);
    for (unsigned i = 0; i < 4; i++) {
        trailer[i] = (unsigned char) (gzip->crc >> 8 * i);
        trailer[4 + i] = (unsigned char) (gzip->length >> 8 * i);
    }
    below(gzip, trailer, sizeof trailer);
    return gzip->result;
}

void compress_gzip_destroy(struct compressor *compressor)
{
    struct compress_gzip *gzip = CONTAINER_OF(compressor, struct compress_gzip, base);

    pthread_mutex_lock(&gzip->lock);
    gzip->is_stopping = true;
    pthread_cond_broadcast(&gzip->change);
    pthread_mutex_unlock(&gzip->lock);
    for (unsigned i = 0; i < gzip->thread_count; i++)
        pthread_join(gzip->threads[i], NULL);
    pthread_cond_destroy(&gzip->change);
    pthread_mutex_destroy(&gzip->lock);
    free(gzip->slots);
    free(gzip);
}

void compress_gzip_recipe(char ret[COMPRESS_RECIPE_BYTES])
{
    snprintf(ret, COMPRESS_RECIPE_BYTES, "zlib %.16s, level %d, %zu", zlibVersion(), GZIP_LEVEL, CHUNK_BYTES);
}
