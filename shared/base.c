/* base.c - memory that does not fail, and the cleanups of base.h */
#include "shared/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("drover: fatal: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

void *alloc0(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);

    if (!p)
        die("out of memory (%zu bytes)", bytes);
    return p;
}

void *alloc_array(size_t count, size_t bytes_each)
{
    void *p = calloc(count ? count : 1, bytes_each);

    if (!p)
        die("out of memory (%zu times %zu bytes)", count, bytes_each);
    return p;
}

void *realloc_array(void *p, size_t count, size_t bytes_each)
{
    p = reallocarray(p, count ? count : 1, bytes_each);
    if (!p)
        die("out of memory (%zu times %zu bytes)", count, bytes_each);
    return p;
}

char *dup_text(const char *text)
{
    size_t bytes = strlen(text) + 1;

    return memcpy(alloc0(bytes), text, bytes);
}

void free_p(void *p)
{
    free(*(void **) p);
}

void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}
