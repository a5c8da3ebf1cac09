/* base.h - what every file of Drover may use: ownership by cleanup, memory that does not fail.
 *
 * Allocation does not fail: the process ends with a message instead. What bounds memory is a named limit
 * wherever input enters (body size, depth, queue length, sessions, events). */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A local that is destroyed on every return: _cleanup_(x_destroy) struct x *x = x_new(); */
#define _cleanup_(f) __attribute__((cleanup(f)))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))
#define _noreturn_ __attribute__((noreturn))
#define _unused_ __attribute__((unused))

/* Give a pointer away: the variable is NULL afterwards, so that its cleanup does nothing. */
#define TAKE(p)                                                                                    \
    ({                                                                                             \
        __typeof__(p) *taken_p_ = &(p);                                                            \
        __typeof__(p) taken_ = *taken_p_;                                                          \
        *taken_p_ = NULL;                                                                          \
        taken_;                                                                                    \
    })

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ({ __typeof__(a) min_a_ = (a); __typeof__(b) min_b_ = (b); min_a_ < min_b_ ? min_a_ : min_b_; })
#define MAX(a, b) ({ __typeof__(a) max_a_ = (a); __typeof__(b) max_b_ = (b); max_a_ > max_b_ ? max_a_ : max_b_; })
#define CONTAINER_OF(p, type, member) ((type *) ((char *) (p) - offsetof(type, member)))

static inline bool streq(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* Ends the process: a message on stderr, then abort(). */
_noreturn_ void die(const char *format, ...) _printf_(1, 2);

/* Zeroed memory, never NULL; free() gives it back. */
void *alloc0(size_t bytes);
void *alloc_array(size_t count, size_t bytes_each);
void *realloc_array(void *p, size_t count, size_t bytes_each);
char *dup_text(const char *text);
#define new0(type) ((type *) alloc0(sizeof(type)))
#define new0_array(type, count) ((type *) alloc_array((count), sizeof(type)))

/* Cleanups for what libc hands out. */
void free_p(void *p);      /* _cleanup_(free_p) char *text */
void close_fd(int *fd);    /* _cleanup_(close_fd) int fd = -1; closes when >= 0 and sets it to -1 */
