/* arena.h - memory with the lifetime of one call: given out piece by piece, freed all at once
 *
 * Allocation does not fail (base.h). What a client can make us allocate is bounded by whoever reads
 * the client's bytes: it sets a limit and asks arena_room() before it allocates for them. One
 * thread at a time. */
#pragma once

#include "shared/base.h"

#include <stdarg.h>

struct arena;

struct arena *arena_new(void);

/* Frees all that was allocated from it. NULL is fine. */
void arena_destroy(struct arena **arena_p);

/* The same, but keep the arena and its first block for the next call. The limit stays. */
void arena_reset(struct arena *arena);

/* Zeroed, aligned to 16 bytes; 0 bytes give a pointer of their own, too. */
void *arena_alloc(struct arena *arena, size_t bytes) __attribute__((malloc, returns_nonnull));
#define arena_new0(arena, type) ((type *) arena_alloc((arena), sizeof(type)))

/* An array of count elements; ends the process when the product overflows. */
void *arena_alloc_array(struct arena *arena, size_t count, size_t bytes_each)
    __attribute__((malloc, returns_nonnull));

/* Copies. arena_dup adds a NUL behind the bytes, so that it serves for text with a known length. */
void *arena_dup(struct arena *arena, const void *bytes, size_t count);
char *arena_strdup(struct arena *arena, const char *text);

/* As printf would write it. */
char *arena_text(struct arena *arena, const char *format, ...) _printf_(2, 3);
char *arena_text_v(struct arena *arena, const char *format, va_list args) _printf_(2, 0);

/* Given out so far, rounding included. */
size_t arena_bytes(const struct arena *arena);

/* At most so many bytes for what others send us; 0 for no limit, as at first. */
void arena_set_limit(struct arena *arena, size_t bytes_max);

/* Does the limit leave room for so many bytes more? */
bool arena_room(const struct arena *arena, size_t bytes);
