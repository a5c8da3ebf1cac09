/* guest_memory.c - the pages of a simulated guest */
#include "slave/guest_memory.h"

#include <sys/mman.h>
#include <xxhash.h>

static size_t bitmap_words(uint32_t page_count)
{
    return (page_count + 63) / 64;
}

struct guest_memory *guest_memory_new(uint32_t page_count)
{
    struct guest_memory *memory;
    void *pages;

    if (page_count == 0 || page_count > GUEST_PAGES_MAX)
        return NULL;
    pages = mmap(NULL, (size_t) page_count * GUEST_PAGE_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED)
        return NULL;
    memory = new0(struct guest_memory);
    memory->page_count = page_count;
    memory->pages = pages;
    memory->touched = new0_array(uint64_t, 2 * bitmap_words(page_count));
    memory->dirty = memory->touched + bitmap_words(page_count);
    return memory;
}

void guest_memory_destroy(struct guest_memory **memory_p)
{
    struct guest_memory *memory = TAKE(*memory_p);

    if (!memory)
        return;
    munmap(memory->pages, (size_t) memory->page_count * GUEST_PAGE_BYTES);
    free(memory->touched);
    free(memory);
}

static uint8_t *touch(struct guest_memory *memory, uint32_t page)
{
    uint64_t bit = 1ULL << page % 64;

    memory->touched_count += !(memory->touched[page / 64] & bit);
    memory->dirty_count += !(memory->dirty[page / 64] & bit);
    memory->touched[page / 64] |= bit;
    memory->dirty[page / 64] |= bit;
    return memory->pages + (size_t) page * GUEST_PAGE_BYTES;
}

/* splitmix64: a good mix of one number. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

void guest_memory_work(struct guest_memory *memory, ref_t vm, uint64_t tick, uint32_t pages)
{
    uint64_t seed = mix(vm.hi ^ mix(vm.lo ^ mix(tick)));

    for (uint32_t i = 0; i < pages; i++) {
        uint32_t page = (uint32_t) ((mix(seed + i) >> 32) * memory->page_count >> 32);
        uint64_t *words = (uint64_t *) touch(memory, page), word = mix(seed ^ page);

        /* Each number four times: memory of real guests can be compressed as well. */
        for (size_t w = 0; w < GUEST_PAGE_BYTES / sizeof(*words); w++)
            words[w] = w % 4 > 0 ? word : (word += seed | 1);
    }
}

void guest_memory_put(struct guest_memory *memory, uint32_t page, const void *bytes)
{
    assert(page < memory->page_count);
    memcpy(touch(memory, page), bytes, GUEST_PAGE_BYTES);
}

void guest_memory_mark_all(struct guest_memory *memory)
{
    memcpy(memory->dirty, memory->touched,
           bitmap_words(memory->page_count) * sizeof(*memory->dirty));
    memory->dirty_count = memory->touched_count;
}

bool guest_memory_take_dirty(struct guest_memory *memory, uint32_t *at, uint32_t *ret_page)
{
    size_t words = bitmap_words(memory->page_count);

    for (size_t w = *at / 64; w < words; w++) {
        uint64_t bits = memory->dirty[w];

        if (w == *at / 64)
            bits &= ~0ULL << *at % 64;
        if (bits == 0)
            continue;
        *ret_page = (uint32_t) (w * 64) + (uint32_t) __builtin_ctzll(bits);
        memory->dirty[w] &= ~(1ULL << *ret_page % 64);
        memory->dirty_count--;
        *at = *ret_page + 1;
        return true;
    }
    *at = memory->page_count;
    return false;
}

/* A page that was never written is all zeros; looking at it would have the kernel map one. */
static const uint8_t *page_for_digest(const struct guest_memory *memory, uint32_t page)
{
    static const uint8_t zeros[GUEST_PAGE_BYTES];

    return guest_memory_is_touched(memory, page) ? guest_memory_page(memory, page) : zeros;
}

uint64_t guest_memory_digest(const struct guest_memory *memory)
{
    struct guest_digest digest = {0};

    guest_digest_step(&digest, memory, memory->page_count);
    return digest.value;
}

bool guest_digest_step(struct guest_digest *digest, const struct guest_memory *memory,
                       uint32_t pages_max)
{
    uint32_t pages = MIN(pages_max, memory->page_count - digest->at);

    if (!digest->state) {
        digest->state = XXH64_createState();
        if (!digest->state)
            die("out of memory");
        XXH64_reset(digest->state, 0);
    }
    for (uint32_t end = digest->at + pages; digest->at < end; digest->at++)
        XXH64_update(digest->state, page_for_digest(memory, digest->at), GUEST_PAGE_BYTES);
    if (digest->at < memory->page_count)
        return false;
    digest->value = XXH64_digest(digest->state);
    guest_digest_done(digest);
    return true;
}

void guest_digest_done(struct guest_digest *digest)
{
    if (digest->state)
        XXH64_freeState(digest->state);
    digest->state = NULL;
}
