/* memory_stream.h - sinks and sources in memory, for tests of codecs */
#pragma once

#include <errno.h>

#include "shared/buffer.h"
#include "slave/stream.h"

struct memory_sink {
    struct sink base;
    struct buffer bytes;
    size_t fail_after; /* bytes; then -EPIPE */
};

static int memory_write(struct sink *base, const void *bytes, size_t count)
{
    struct memory_sink *sink = CONTAINER_OF(base, struct memory_sink, base);

    if (sink->bytes.length + count > sink->fail_after)
        return -EPIPE;
    buffer_add(&sink->bytes, bytes, count);
    return 0;
}

static void memory_sink_init(struct memory_sink *sink)
{
    *sink = (struct memory_sink){.base.write = memory_write, .fail_after = SIZE_MAX};
    buffer_init(&sink->bytes, SIZE_MAX);
}

struct memory_source {
    struct source base;
    const char *bytes;
    size_t count, piece; /* what one read gives at most */
    size_t at;
    int end; /* what comes at its end: 0 or a negative errno */
};

/* In a buffer of its own size, so that the address sanitizer sees who goes beyond it, or keeps it for too long. */
static ssize_t memory_read(struct source *base, const void **ret_bytes)
{
    struct memory_source *source = CONTAINER_OF(base, struct memory_source, base);
    static _Thread_local void *given;
    size_t count = MIN(source->piece, source->count - source->at);

    free(given);
    given = NULL;
    if (count == 0)
        return source->end;
    given = alloc0(count);
    memcpy(given, source->bytes + source->at, count);
    source->at += count;
    *ret_bytes = given;
    return (ssize_t) count;
}

static void memory_source_init(struct memory_source *source, const void *bytes, size_t count, size_t piece)
{
    *source = (struct memory_source){.base.read = memory_read, .bytes = bytes, .count = count, .piece = piece};
}
