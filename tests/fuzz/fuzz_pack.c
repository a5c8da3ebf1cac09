/* fuzz_pack.c - any bytes as MessagePack: refused, or a value that is written and read again equal
 *
 * The first byte chooses the type that is asked for: none, or a record of a class. */
#include "shared/arena.h"
#include "shared/model.h"
#include "shared/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *data, size_t size, const struct type *type)
{
    struct arena *arena = arena_new();
    struct value value, same;

    if (unpack_value(data, size, type, arena, &value) == 0) {
        struct buffer buffer;

        buffer_init(&buffer, 64 << 20);
        pack_value(&buffer, &value);
        if (unpack_value(buffer.bytes, buffer.length, type, arena, &same) < 0)
            abort();
        assert(value_equal(&value, &same));
        buffer_done(&buffer);
    }
    arena_destroy(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct type type = {.kind = KIND_RECORD};

    model_init();
    if (size == 0)
        return 0;
    type.class = &model_classes[data[0] % CLASS_COUNT];
    check(data + 1, size - 1, data[0] == 0xff ? NULL : &type);
    return 0;
}
