/* fuzz_xmlrpc.c - any bytes as an XML-RPC call: refused, or values that can be written and read again
 *
 * The document is also fed in two pieces, cut where its length says: the outcome must be the same, unless it had to be
 * mended, which is done to whole documents only. */
#include "shared/arena.h"
#include "shared/xmlrpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_and_read_again(struct arena *arena, const struct value *value)
{
    struct buffer buffer;
    struct value reply;
    const char *reason;

    buffer_init(&buffer, 64 << 20);
    xmlrpc_reply_success(&buffer, value);
    /* Bytes of a <base64> may be no text, and a float's NaN no number; all else must come back. */
    if (!buffer.is_full && text_is_xml(buffer.bytes, buffer.length)
        && xmlrpc_parse_reply(buffer.bytes, buffer.length, arena, &reply, &reason) == 0)
        assert(reply.kind == KIND_MAP && reply.length == 2);
    buffer_done(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *) data;
    struct arena *arena = arena_new();
    struct xmlrpc_call call, same;
    const char *reason;
    int r = xmlrpc_parse_call(bytes, size, arena, &call, &reason);
    _cleanup_(xmlrpc_parser_destroy) struct xmlrpc_parser *parser = xmlrpc_parser_new(arena);

    xmlrpc_parser_feed(parser, bytes, size / 3);
    xmlrpc_parser_feed(parser, bytes + size / 3, size - size / 3);
    if (xmlrpc_parser_finish(parser, &same, &reason) < 0) {
        assert(r < 0 || call.bad_text);
    } else {
        assert(r == 0);
        assert(!call.fault == !same.fault);
        assert(streq(call.method, same.method) && call.param_count == same.param_count);
        for (unsigned i = 0; i < call.param_count; i++) {
            assert(value_equal(&call.params[i], &same.params[i]));
            write_and_read_again(arena, &call.params[i]);
        }
    }
    arena_destroy(&arena);
    return 0;
}
