/* buffer.c - bytes that grow at their end, and numbers as text */
#include "shared/buffer.h"

#include <stdio.h>

/* The first allocation: most replies fit. */
#define FIRST_BYTES 512

void buffer_init(struct buffer *buffer, size_t bytes_max)
{
    *buffer = (struct buffer){.bytes_max = bytes_max};
}

void buffer_done(struct buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct buffer){0};
}

void buffer_clear(struct buffer *buffer)
{
    buffer->length = 0;
    buffer->is_full = false;
}

char *buffer_take(struct buffer *buffer, size_t *ret_length)
{
    *ret_length = buffer->length;
    buffer->length = 0;
    buffer->room = 0;
    buffer->is_full = false;
    return TAKE(buffer->bytes);
}

void buffer_release(const void *bytes, size_t length, void *unused)
{
    (void) length;
    (void) unused;
    free((void *) bytes);
}

bool buffer_grow(struct buffer *buffer, size_t bytes)
{
    size_t room = MAX(buffer->room, (size_t) FIRST_BYTES);

    if (bytes > buffer->bytes_max || buffer->length > buffer->bytes_max - bytes) {
        buffer->is_full = true;
        return false;
    }
    while (room - buffer->length < bytes)
        room *= 2;
    room = MIN(room, buffer->bytes_max);
    buffer->bytes = realloc_array(buffer->bytes, room, 1);
    buffer->room = room;
    return true;
}

void buffer_add_text(struct buffer *buffer, const char *text)
{
    buffer_add(buffer, text, strlen(text));
}

void buffer_add_int(struct buffer *buffer, int64_t number)
{
    char digits[20]; /* of the least int64, with its sign */
    char *p = digits + sizeof digits;
    uint64_t rest = number < 0 ? 0 - (uint64_t) number : (uint64_t) number;

    do {
        *--p = (char) ('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (number < 0)
        *--p = '-';
    buffer_add(buffer, p, (size_t) (digits + sizeof digits - p));
}

void buffer_add_float(struct buffer *buffer, double number)
{
    char text[32];

    /* Whole numbers are common and need no printf; zero may have a sign. */
    if (number > -1e15 && number < 1e15 && number == (double) (int64_t) number && number != 0)
        buffer_add_int(buffer, (int64_t) number);
    else
        buffer_add(buffer, text, (size_t) snprintf(text, sizeof text, "%.16g", number));
}

const char *buffer_text(struct buffer *buffer)
{
    char *end = buffer_reserve(buffer, 1);

    if (!end)
        return NULL;
    *end = '\0';
    return buffer->bytes;
}
