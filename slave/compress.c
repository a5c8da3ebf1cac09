/* compress.c - which compression, and how many threads each one gets (compress.h) */
#include <sched.h>
#include <stdatomic.h>

#include "slave/compress.h"

/* Of the process, as its memory and its processors are: threads that compress now. */
static atomic_uint workers_used;

/* More than one for each processor would only cost memory. */
static unsigned workers_max(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) == 0 ? MIN((unsigned) CPU_COUNT(&set), COMPRESS_WORKERS_MAX) : 1;
}

static unsigned workers_take(void)
{
    unsigned used = atomic_load(&workers_used), most = workers_max(), take;

    do {
        take = used < most ? most - used : 1;
    } while (!atomic_compare_exchange_weak(&workers_used, &used, used + take));
    return take;
}

struct sink *compress_new(enum compression kind, struct sink *below)
{
    unsigned workers = workers_take();
    struct compressor *compressor =
        kind == COMPRESSION_GZIP ? compress_gzip_new(workers) : compress_zstd_new(workers);

    assert(kind != COMPRESSION_NONE);
    if (!compressor) {
        atomic_fetch_sub(&workers_used, workers);
        return NULL;
    }
    compressor->kind = kind;
    compressor->below = below;
    compressor->workers = workers;
    return &compressor->sink;
}

int compress_end(struct sink *sink)
{
    struct compressor *compressor = CONTAINER_OF(sink, struct compressor, sink);

    return compressor->kind == COMPRESSION_GZIP ? compress_gzip_end(compressor)
                                                : compress_zstd_end(compressor);
}

void compress_destroy(struct sink **sink_p)
{
    struct sink *sink = TAKE(*sink_p);
    struct compressor *compressor;

    if (!sink)
        return;
    compressor = CONTAINER_OF(sink, struct compressor, sink);
    atomic_fetch_sub(&workers_used, compressor->workers);
    if (compressor->kind == COMPRESSION_GZIP)
        compress_gzip_destroy(compressor);
    else
        compress_zstd_destroy(compressor);
}

void compress_recipe(enum compression kind, char ret[COMPRESS_RECIPE_BYTES])
{
    ret[0] = '\0';
    if (kind == COMPRESSION_GZIP)
        compress_gzip_recipe(ret);
    else if (kind == COMPRESSION_ZSTD)
        compress_zstd_recipe(ret);
}
