/* fuzz_wire.c - any bytes as a frame: refused, or a frame that encodes and decodes to itself */
#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct arena *arena = arena_new();
    struct wire_frame frame, again;
    struct buffer out;

    if (wire_decode(bytes, count, arena, &frame) == 0) {
        buffer_init(&out, 2 * LINK_FRAME_BYTES_MAX);
        wire_encode(&frame, &out);
        if (wire_decode(out.bytes, out.length, arena, &again) < 0 || again.type != frame.type || again.link != frame.link ||
            !ref_equal(again.id, frame.id) || !value_equal(&again.body, &frame.body))
            abort();
        buffer_done(&out);
    }
    arena_destroy(&arena);
    return 0;
}
