/* wire_value.c - plain values <-> MessagePack
 *
 * Writing goes through msgpack-c. Reading is by hand: these bytes come from another machine, and a reader that believes
 * the count in an array's head allocates gigabytes for five bytes. Here no count is believed that the bytes left
 * cannot hold, so what a frame can make us allocate is a constant times its length.
 *
 * Only what our own ends write is accepted: nil, booleans, integers within int64, floats, UTF-8 text without NUL, arrays,
 * and maps whose keys are texts, none of them twice. */
#include "shared/wire.h"

#include <errno.h>
#include <msgpack.h>

#include "shared/arena.h"
#include "shared/buffer.h"

/* Frames are flat: a frame, its body, a set in it, maps in that. */
#define DEPTH_MAX 8

static int write_bytes(void *data, const char *bytes, size_t count)
{
    buffer_add(data, bytes, count);
    return 0;
}

static void write_value(msgpack_packer *packer, const struct value *value)
{
    switch (value->kind) {
    case KIND_STRING:
        msgpack_pack_str(packer, value->length);
        msgpack_pack_str_body(packer, value->text, value->length);
        break;
    case KIND_INT:
    case KIND_DATETIME:
        msgpack_pack_int64(packer, value->i);
        break;
    case KIND_FLOAT:
        msgpack_pack_double(packer, value->f);
        break;
    case KIND_BOOL:
        value->b ? msgpack_pack_true(packer) : msgpack_pack_false(packer);
        break;
    case KIND_SET:
        msgpack_pack_array(packer, value->length);
        for (uint32_t i = 0; i < value->length; i++)
            write_value(packer, &value->items[i]);
        break;
    case KIND_MAP:
        msgpack_pack_map(packer, value->length);
        for (uint32_t i = 0; i < 2 * value->length; i++)
            write_value(packer, &value->items[i]);
        break;
    case KIND_VOID:
    case KIND_NIL:
        msgpack_pack_nil(packer);
        break;
    default:
        die("wire: a value of kind %d does not travel", value->kind);
    }
}

void wire_value_write(struct buffer *out, const struct value *value)
{
    msgpack_packer packer;

    msgpack_packer_init(&packer, out, write_bytes);
    write_value(&packer, value);
}

struct reader {
    const unsigned char *at, *end;
    struct arena *arena;
};

/* A big-endian number of 1, 2, 4 or 8 bytes. */
static bool take(struct reader *reader, size_t bytes, uint64_t *ret)
{
    uint64_t number = 0;

    if ((size_t) (reader->end - reader->at) < bytes)
        return false;
    for (size_t i = 0; i < bytes; i++)
        number = number << 8 | *reader->at++;
    *ret = number;
    return true;
}

static bool read_text(struct reader *reader, uint64_t length, struct value *ret)
{
    const char *text = (const char *) reader->at;

    if ((uint64_t) (reader->end - reader->at) < length || !text_is_utf8(text, length))
        return false;
    *ret = (struct value){.kind = KIND_STRING,
                          .length = (uint32_t) length,
                          .text = arena_dup(reader->arena, text, length)};
    reader->at += length;
    return true;
}

static bool read_value(struct reader *reader, int depth, struct value *ret);

static bool read_items(struct reader *reader, uint64_t count, uint32_t each, int depth, struct value *ret)
{
    struct value *items;

    if (depth >= DEPTH_MAX || count * each > (uint64_t) (reader->end - reader->at))
        return false;
    items = arena_alloc_array(reader->arena, count * each, sizeof *items);
    for (uint64_t i = 0; i < count * each; i++) {
        if (!read_value(reader, depth + 1, &items[i]))
            return false;
        if (each == 2 && i % 2 == 0 && items[i].kind != KIND_STRING)
            return false;
    }
    if (each == 2 && value_find_repeated(items, (uint32_t) count, 2))
        return false;
    *ret = each == 2 ? VALUE_MAP((uint32_t) count, items) : VALUE_SET((uint32_t) count, items);
    return true;
}

static bool read_sized(struct reader *reader, unsigned head, int depth, struct value *ret)
{
    uint64_t number;

    switch (head) {
    case 0xd9: /* str 8, 16, 32 */
    case 0xda:
    case 0xdb:
        return take(reader, (size_t) 1 << (head - 0xd9), &number) && read_text(reader, number, ret);
    case 0xdc: /* array 16, 32 */
    case 0xdd:
        return take(reader, (size_t) 2 << (head - 0xdc), &number) && read_items(reader, number, 1, depth, ret);
    case 0xde: /* map 16, 32 */
    case 0xdf:
        return take(reader, (size_t) 2 << (head - 0xde), &number) && read_items(reader, number, 2, depth, ret);
    default:
        return false;
    }
}

static bool read_number(struct reader *reader, unsigned head, struct value *ret)
{
    uint64_t number;
    uint32_t bits;
    float single;

    if (head >= 0xcc && head <= 0xcf) { /* uint 8 to 64 */
        if (!take(reader, (size_t) 1 << (head - 0xcc), &number) || number > INT64_MAX)
            return false;
        *ret = VALUE_INT((int64_t) number);
        return true;
    }
    switch (head) {
    case 0xd0: /* int 8 to 64 */
        if (!take(reader, 1, &number))
            return false;
        *ret = VALUE_INT((int8_t) number);
        return true;
    case 0xd1:
        if (!take(reader, 2, &number))
            return false;
        *ret = VALUE_INT((int16_t) number);
        return true;
    case 0xd2:
        if (!take(reader, 4, &number))
            return false;
        *ret = VALUE_INT((int32_t) number);
        return true;
    case 0xd3:
        if (!take(reader, 8, &number))
            return false;
        *ret = VALUE_INT((int64_t) number);
        return true;
    case 0xca: /* float 32, 64 */
        if (!take(reader, 4, &number))
            return false;
        bits = (uint32_t) number;
        memcpy(&single, &bits, sizeof single);
        *ret = VALUE_FLOAT(single);
        return true;
    case 0xcb:
        if (!take(reader, 8, &number))
            return false;
        ret->kind = KIND_FLOAT;
        memcpy(&ret->f, &number, sizeof ret->f);
        return true;
    default:
        return false;
    }
}

static bool read_value(struct reader *reader, int depth, struct value *ret)
{
    uint64_t number;
    unsigned head;

    if (!take(reader, 1, &number))
        return false;
    head = (unsigned) number;
    *ret = VALUE_VOID;
    if (head < 0x80 || head >= 0xe0) {
        *ret = VALUE_INT((int8_t) head);
        return true;
    }
    if (head < 0x90)
        return read_items(reader, head & 15, 2, depth, ret);
    if (head < 0xa0)
        return read_items(reader, head & 15, 1, depth, ret);
    if (head < 0xc0)
        return read_text(reader, head & 31, ret);
    switch (head) {
    case 0xc0:
        *ret = (struct value){.kind = KIND_NIL};
        return true;
    case 0xc2:
    case 0xc3:
        *ret = VALUE_BOOL(head == 0xc3);
        return true;
    default:
        return head >= 0xd9 ? read_sized(reader, head, depth, ret) : read_number(reader, head, ret);
    }
}

int wire_value_read(const void *bytes, size_t count, struct arena *arena, struct value *ret)
{
    struct reader reader = {bytes, (const unsigned char *) bytes + count, arena};

    return read_value(&reader, 0, ret) && reader.at == reader.end ? 0 : -EBADMSG;
}
