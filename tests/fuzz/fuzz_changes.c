/* fuzz_changes.c - any bytes as a redo record: refused, or changes that encode and decode to
 * themselves, and that a store takes or refuses */
#include <string.h>

#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/clock.h"
#include "shared/loop.h"

#include "master/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static void replay(const struct changes *changes)
{
    struct loop *loop = loop_new(clock_real());
    struct store *store = store_new(clock_real(), loop);

    store_load_changes(store, changes);
    store_load_end(store, 1, 0);
    store_destroy(&store);
    loop_destroy(&loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct arena *arena;
    struct changes changes, again;
    struct buffer out;

    model_init();
    arena = arena_new();
    if (changes_decode(bytes, count, arena, &changes) == 0) {
        buffer_init(&out, SIZE_MAX);
        changes_encode(&changes, &out);
        if (changes_decode(out.bytes, out.length, arena, &again) < 0
            || again.generation != changes.generation || again.follows != changes.follows
            || again.skipped != 0 || again.count > changes.count)
            abort();
        buffer_done(&out);
        replay(&changes);
    }
    arena_destroy(&arena);
    return 0;
}
