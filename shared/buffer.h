/* buffer.h - bytes that grow at their end, up to a limit stated at creation
 *
 * What an emitter writes into. A buffer that would pass its limit keeps what it has, drops the rest and says so
 * in is_full: emitters write on without a check at each step, and whoever sends the bytes looks once.
 *
 * The bytes are one malloc'd block, so they can go to libevent without a copy:
 *
 *     size_t length;
 *     char *bytes = buffer_take(&buffer, &length);
 *     evbuffer_add_reference(output, bytes, length, buffer_release, NULL); */
#pragma once

#include "shared/base.h"

struct buffer {
    char *bytes;
    size_t length;
    size_t room;      /* allocated */
    size_t bytes_max;
    bool is_full;     /* something did not fit and was dropped */
};

void buffer_init(struct buffer *buffer, size_t bytes_max);
void buffer_done(struct buffer *buffer);
/* Empty again; keeps its memory. */
void buffer_clear(struct buffer *buffer);
/* The bytes become the caller's, who frees them; NULL when there are none. The buffer is empty afterwards. */
char *buffer_take(struct buffer *buffer, size_t *ret_length);
/* A cleanup of evbuffer_add_reference(). */
void buffer_release(const void *bytes, size_t length, void *unused);

/* Grows; false, and is_full, when the limit forbids it. */
bool buffer_grow(struct buffer *buffer, size_t bytes);

/* Where `bytes` more may be written, to be followed by buffer_wrote(); NULL when they would not fit. */
static inline char *buffer_reserve(struct buffer *buffer, size_t bytes)
{
    if (buffer->room - buffer->length < bytes && !buffer_grow(buffer, bytes))
        return NULL;
    return buffer->bytes + buffer->length;
}

static inline void buffer_wrote(struct buffer *buffer, size_t bytes)
{
    buffer->length += bytes;
    assert(buffer->length <= buffer->room);
}

static inline void buffer_add(struct buffer *buffer, const void *bytes, size_t length)
{
    char *at = length > 0 ? buffer_reserve(buffer, length) : NULL;

    if (!at)
        return;
    memcpy(at, bytes, length);
    buffer->length += length;
}

static inline void buffer_add_char(struct buffer *buffer, char c)
{
    buffer_add(buffer, &c, 1);
}

#define buffer_add_literal(buffer, literal) buffer_add((buffer), "" literal, sizeof(literal) - 1)
void buffer_add_text(struct buffer *buffer, const char *text);
void buffer_add_int(struct buffer *buffer, int64_t number);
/* 16 significant digits: what "%.16g" prints. */
void buffer_add_float(struct buffer *buffer, double number);
/* A NUL behind the bytes, not counted in length, so that they read as text. NULL when it did not fit. */
const char *buffer_text(struct buffer *buffer);
