/* fuzz_jsonrpc.c - any bytes as a JSON-RPC call: refused, or values that can be written and read again */
#include "shared/arena.h"
#include "shared/jsonrpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct jsonrpc_call call, same;
    const char *reason;

    if (jsonrpc_parse_call((const char *) data, size, arena, &call, &reason) == 0) {
        struct buffer buffer;
        struct value params = VALUE_SET(call.param_count, call.params);

        buffer_init(&buffer, 64 << 20);
        buffer_add_literal(&buffer, "{\"method\":\"m\",\"id\":");
        jsonrpc_value(&buffer, &call.id);
        buffer_add_literal(&buffer, ",\"params\":");
        jsonrpc_value(&buffer, &params);
        buffer_add_char(&buffer, '}');
        if (call.bad_text && text_is_utf8(call.bad_text, strlen(call.bad_text)))
            abort();
        /* Floats are printed with 16 digits, so only the form is compared. */
        if (jsonrpc_parse_call(buffer.bytes, buffer.length, arena, &same, &reason) < 0)
            abort();
        assert(same.param_count == call.param_count && value_equal(&same.id, &call.id));
        buffer_done(&buffer);
    }
    arena_destroy(&arena);
    return 0;
}
