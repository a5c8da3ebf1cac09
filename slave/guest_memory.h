/* guest_memory.h - the memory of a simulated guest: real pages, fewer than the VM believes to have.
 *
 * A page is in one of three states: never touched (all zero; never sent nor stored), touched, and
 * touched and dirty: written since it was last given to a mover. Pages are only made as they are
 * touched, so that thousands of guests that have just started need little memory. */
#pragma once

#include "shared/base.h"
#include "shared/ref.h"

#define GUEST_PAGE_BYTES 4096
#define GUEST_PAGES_MAX  (1024 * 1024) /* 4 GiB: what a foreign stream or image may make us map */

struct guest_memory {
    uint32_t page_count;
    uint32_t touched_count, dirty_count;
    uint64_t *touched, *dirty; /* a bit a page */
    uint8_t *pages;
};

/* NULL when the system has no memory left, or page_count is 0 or beyond GUEST_PAGES_MAX. */
struct guest_memory *guest_memory_new(uint32_t page_count);
void guest_memory_destroy(struct guest_memory **memory_p);

/* What a guest does in one tick: fill `pages` pages, chosen and filled by (vm, tick) alone, so that
 * whoever knows these can say what the memory must be. */
void guest_memory_work(struct guest_memory *memory, ref_t vm, uint64_t tick, uint32_t pages);

/* Set one page to what came from elsewhere. */
void guest_memory_put(struct guest_memory *memory, uint32_t page, const void *bytes);

/* All touched pages are dirty: the begin of a move. */
void guest_memory_mark_all(struct guest_memory *memory);

/* The first dirty page from *at on, clean from now on; *at moves behind it. False when there is
 * none. */
bool guest_memory_take_dirty(struct guest_memory *memory, uint32_t *at, uint32_t *ret_page);

/* xxh64 over all pages, untouched ones too. The second form does at most `pages_max` pages a call,
 * so that large guests do not hold up the others: zeroed before the first, *digest is done when the
 * call returns true. */
struct guest_digest {
    void *state;
    uint32_t at;
    uint64_t value;
};
uint64_t guest_memory_digest(const struct guest_memory *memory);
bool guest_digest_step(struct guest_digest *digest, const struct guest_memory *memory,
                       uint32_t pages_max);
void guest_digest_done(struct guest_digest *digest);

static inline const uint8_t *guest_memory_page(const struct guest_memory *memory, uint32_t page)
{
    return memory->pages + (size_t) page * GUEST_PAGE_BYTES;
}

static inline bool guest_memory_is_touched(const struct guest_memory *memory, uint32_t page)
{
    return memory->touched[page / 64] >> page % 64 & 1;
}
