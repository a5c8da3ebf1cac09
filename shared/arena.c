/* arena.c - memory with the lifetime of one call
 *
 *   struct arena | first block ...........|     one malloc of 4 KiB: most calls need no other
 *                  block 8 KiB -> 16 KiB -> 32 -> 64 -> 64 ...      the newest is the one we cut
 * from large pieces, each a block of its own
 *
 * Memory is zeroed when it is given out, not when a block is made: only what is used is touched,
 * and then it is in the cache. Under the address sanitizer what is not given out is poisoned, with
 * a gap behind each piece. */
#include "shared/arena.h"

#include <stdio.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#define GAP_BYTES 16
#else
#define ASAN_POISON_MEMORY_REGION(p, bytes)   ((void) (p), (void) (bytes))
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes) ((void) (p), (void) (bytes))
#define GAP_BYTES                             0
#endif

#define ALIGNMENT       16
#define FIRST_BYTES     4096
#define BLOCK_BYTES_MAX (64 * 1024)

/* A larger piece gets a block of its own: cutting it would waste the rest of the current one. */
#define LARGE_BYTES (BLOCK_BYTES_MAX / 4)

struct block {
    struct block *older;
    size_t bytes; /* behind this head */
};

struct arena {
    char *free, *end; /* what is left of the newest block */
    size_t used_bytes, bytes_max;
    size_t block_bytes;   /* of the newest block */
    struct block *blocks; /* all but the first */
};

_Static_assert(sizeof(struct block) % ALIGNMENT == 0 && sizeof(struct arena) % ALIGNMENT == 0,
               "what follows a head is aligned");

static void use_first_block(struct arena *arena)
{
    arena->free = (char *) (arena + 1);
    arena->end = (char *) arena + FIRST_BYTES;
    arena->block_bytes = FIRST_BYTES;
    ASAN_POISON_MEMORY_REGION(arena->free, (size_t) (arena->end - arena->free));
}

struct arena *arena_new(void)
{
    struct arena *arena = malloc(FIRST_BYTES);

    if (!arena)
        die("out of memory (%d bytes)", FIRST_BYTES);
    *arena = (struct arena){.bytes_max = SIZE_MAX};
    use_first_block(arena);
    return arena;
}

static void free_blocks(struct arena *arena)
{
    struct block *block;

    while ((block = arena->blocks)) {
        arena->blocks = block->older;
        ASAN_UNPOISON_MEMORY_REGION(block + 1, block->bytes);
        free(block);
    }
}

void arena_reset(struct arena *arena)
{
    free_blocks(arena);
    arena->used_bytes = 0;
    use_first_block(arena);
}

void arena_destroy(struct arena **arena_p)
{
    struct arena *arena = TAKE(*arena_p);

    if (!arena)
        return;
    free_blocks(arena);
    ASAN_UNPOISON_MEMORY_REGION(arena + 1, FIRST_BYTES - sizeof(*arena));
    free(arena);
}

/* A new block with so many bytes to give out. */
static char *add_block(struct arena *arena, size_t bytes)
{
    struct block *block = malloc(sizeof(*block) + bytes);

    if (!block)
        die("out of memory (%zu bytes)", bytes);
    block->older = arena->blocks;
    block->bytes = bytes;
    arena->blocks = block;
    ASAN_POISON_MEMORY_REGION(block + 1, bytes);
    return (char *) (block + 1);
}

__attribute__((noinline)) static char *cut_from_new_block(struct arena *arena, size_t whole)
{
    char *memory;

    if (whole >= LARGE_BYTES)
        return add_block(arena, whole);
    arena->block_bytes = MIN(arena->block_bytes * 2, (size_t) BLOCK_BYTES_MAX);
    while (arena->block_bytes - sizeof(struct block) < whole)
        arena->block_bytes *= 2;
    memory = add_block(arena, arena->block_bytes - sizeof(struct block));
    arena->free = memory + whole;
    arena->end = memory + arena->block_bytes - sizeof(struct block);
    return memory;
}

/* Not yet zeroed. */
static char *cut(struct arena *arena, size_t bytes)
{
    size_t whole;
    char *memory;

    if (bytes > SIZE_MAX / 2)
        die("out of memory (%zu bytes)", bytes);
    whole = (MAX(bytes, (size_t) 1) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + GAP_BYTES;
    if (whole <= (size_t) (arena->end - arena->free)) {
        memory = arena->free;
        arena->free += whole;
    } else {
        memory = cut_from_new_block(arena, whole);
    }
    arena->used_bytes += whole;
    ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
    return memory;
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    return memset(cut(arena, bytes), 0, bytes);
}

void *arena_alloc_array(struct arena *arena, size_t count, size_t bytes_each)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, bytes_each, &bytes))
        die("out of memory (%zu times %zu bytes)", count, bytes_each);
    return arena_alloc(arena, bytes);
}

void *arena_dup(struct arena *arena, const void *bytes, size_t count)
{
    char *copy = cut(arena, count + 1);

    if (count > 0)
        memcpy(copy, bytes, count);
    copy[count] = '\0';
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
    size_t bytes = strlen(text) + 1;

    return memcpy(cut(arena, bytes), text, bytes);
}

char *arena_text_v(struct arena *arena, const char *format, va_list args)
{
    char small[256], *text;
    va_list again;
    int length;

    va_copy(again, args);
    length = vsnprintf(small, sizeof(small), format, args);
    if (length < 0)
        die("cannot format \"%s\"", format);
    text = cut(arena, (size_t) length + 1);
    if ((size_t) length < sizeof(small))
        memcpy(text, small, (size_t) length + 1);
    else
        vsnprintf(text, (size_t) length + 1, format, again);
    va_end(again);
    return text;
}

char *arena_text(struct arena *arena, const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    text = arena_text_v(arena, format, args);
    va_end(args);
    return text;
}

size_t arena_bytes(const struct arena *arena)
{
    return arena->used_bytes;
}

void arena_set_limit(struct arena *arena, size_t bytes_max)
{
    arena->bytes_max = bytes_max ? bytes_max : SIZE_MAX;
}

bool arena_room(const struct arena *arena, size_t bytes)
{
    return arena->used_bytes <= arena->bytes_max && bytes <= arena->bytes_max - arena->used_bytes;
}
