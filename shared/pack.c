/* pack.c - values <-> MessagePack */
#include "shared/pack.h"

#include "shared/arena.h"
#include "shared/model.h"

/* Type bytes of the format. Small ints, short strings, arrays and maps are in the byte itself. */
enum {
    FIXMAP = 0x80,
    FIXARRAY = 0x90,
    FIXSTR = 0xa0,
    NIL = 0xc0,
    FALSE = 0xc2,
    TRUE = 0xc3,
    BIN8 = 0xc4,
    BIN16 = 0xc5,
    BIN32 = 0xc6,
    FLOAT32 = 0xca,
    FLOAT64 = 0xcb,
    UINT8 = 0xcc,
    UINT64 = 0xcf,
    INT8 = 0xd0,
    INT64 = 0xd3,
    STR8 = 0xd9,
    STR16 = 0xda,
    STR32 = 0xdb,
    ARRAY16 = 0xdc,
    ARRAY32 = 0xdd,
    MAP16 = 0xde,
    MAP32 = 0xdf,
    NEGATIVE = 0xe0,
};

/* ---- writing ---- */

/* A type byte and `bytes` bytes of a number, high byte first. */
static void add_head(struct buffer *buffer, uint8_t type, uint64_t number, unsigned bytes)
{
    uint8_t head[9] = {type};

    for (unsigned i = 0; i < bytes; i++)
        head[1 + i] = (uint8_t) (number >> (8 * (bytes - 1 - i)));
    buffer_add(buffer, head, 1 + bytes);
}

void pack_int(struct buffer *buffer, int64_t number)
{
    /* The shortest form: 0 to 3 says 1, 2, 4 or 8 bytes, as in the type bytes. */
    if (number >= -32 && number <= 127)
        add_head(buffer, (uint8_t) number, 0, 0);
    else if (number >= 0)
        add_head(buffer, (uint8_t) (UINT8 + (number > UINT8_MAX) + (number > UINT16_MAX) + (number > UINT32_MAX)),
                 (uint64_t) number, number > UINT32_MAX ? 8 : number > UINT16_MAX ? 4 : number > UINT8_MAX ? 2 : 1);
    else
        add_head(buffer, (uint8_t) (INT8 + (number < INT8_MIN) + (number < INT16_MIN) + (number < INT32_MIN)),
                 (uint64_t) number, number < INT32_MIN ? 8 : number < INT16_MIN ? 4 : number < INT8_MIN ? 2 : 1);
}

static void add_text(struct buffer *buffer, const char *text, uint32_t length)
{
    if (length < 32)
        add_head(buffer, (uint8_t) (FIXSTR | length), 0, 0);
    else if (length <= UINT8_MAX)
        add_head(buffer, STR8, length, 1);
    else if (length <= UINT16_MAX)
        add_head(buffer, STR16, length, 2);
    else
        add_head(buffer, STR32, length, 4);
    buffer_add(buffer, text, length);
}

void pack_text(struct buffer *buffer, const char *text)
{
    add_text(buffer, text, (uint32_t) strlen(text));
}

void pack_ref(struct buffer *buffer, ref_t ref)
{
    uint8_t bytes[16];

    if (ref_is_null(ref)) {
        add_head(buffer, BIN8, 0, 1);
        return;
    }
    for (int i = 0; i < 16; i++)
        bytes[i] = (uint8_t) ((i < 8 ? ref.hi : ref.lo) >> (56 - 8 * (i % 8)));
    add_head(buffer, BIN8, sizeof bytes, 1);
    buffer_add(buffer, bytes, sizeof bytes);
}

void pack_array(struct buffer *buffer, uint32_t items)
{
    if (items < 16)
        add_head(buffer, (uint8_t) (FIXARRAY | items), 0, 0);
    else if (items <= UINT16_MAX)
        add_head(buffer, ARRAY16, items, 2);
    else
        add_head(buffer, ARRAY32, items, 4);
}

void pack_map(struct buffer *buffer, uint32_t pairs)
{
    if (pairs < 16)
        add_head(buffer, (uint8_t) (FIXMAP | pairs), 0, 0);
    else if (pairs <= UINT16_MAX)
        add_head(buffer, MAP16, pairs, 2);
    else
        add_head(buffer, MAP32, pairs, 4);
}

static void add_record(struct buffer *buffer, const struct class *class, const struct value *fields)
{
    uint32_t members = 0;

    for (int i = 0; i < class->field_count; i++)
        members += fields[i].kind != KIND_VOID; /* inverse sets, options without a value */
    pack_map(buffer, members);
    for (int i = 0; i < class->field_count; i++) {
        if (fields[i].kind == KIND_VOID)
            continue;
        pack_text(buffer, class->fields[i].name);
        pack_value(buffer, &fields[i]);
    }
}

void pack_value(struct buffer *buffer, const struct value *value)
{
    uint64_t bits;

    switch ((enum kind) value->kind) {
    case KIND_STRING:
        add_text(buffer, value->text, value->length);
        break;
    case KIND_INT:
    case KIND_DATETIME:
        pack_int(buffer, value->i);
        break;
    case KIND_FLOAT:
        memcpy(&bits, &value->f, sizeof bits);
        add_head(buffer, FLOAT64, bits, 8);
        break;
    case KIND_BOOL:
        add_head(buffer, value->b ? TRUE : FALSE, 0, 0);
        break;
    case KIND_ENUM:
        pack_text(buffer, enum_text(value->e.type, value->e.index));
        break;
    case KIND_REF:
        pack_ref(buffer, value->ref);
        break;
    case KIND_SET:
        pack_array(buffer, value->length);
        for (uint32_t i = 0; i < value->length; i++)
            pack_value(buffer, &value->items[i]);
        break;
    case KIND_MAP:
        pack_map(buffer, value->length);
        for (uint32_t i = 0; i < 2 * value->length; i++)
            pack_value(buffer, &value->items[i]);
        break;
    case KIND_RECORD:
        add_record(buffer, value->record.class, value->record.fields);
        break;
    case KIND_VOID:
    case KIND_NIL:
        add_head(buffer, NIL, 0, 0);
        break;
    }
}

/* ---- reading ---- */

void unpack_init(struct unpack *unpack, const void *bytes, size_t count, struct arena *arena)
{
    *unpack = (struct unpack){bytes, (const uint8_t *) bytes + count, arena, count};
}

static size_t bytes_left(const struct unpack *unpack)
{
    return (size_t) (unpack->end - unpack->at);
}

static int read_number(struct unpack *unpack, unsigned bytes, uint64_t *ret)
{
    uint64_t number = 0;

    if (bytes_left(unpack) < bytes)
        return -1;
    for (unsigned i = 0; i < bytes; i++)
        number = number << 8 | *unpack->at++;
    *ret = number;
    return 0;
}

/* What a value starts with. */
struct head {
    enum { HEAD_NIL, HEAD_BOOL, HEAD_INT, HEAD_FLOAT, HEAD_STR, HEAD_BIN, HEAD_ARRAY, HEAD_MAP } kind;
    uint64_t number; /* the int's or float's bits; bytes of a str or bin; items of an array; pairs of a map */
};

static int read_head(struct unpack *unpack, struct head *ret)
{
    uint64_t byte, number = 0;
    unsigned log2_bytes;
    int r;

    if (read_number(unpack, 1, &byte) < 0)
        return -1;
    if (byte < FIXMAP || byte >= NEGATIVE)
        *ret = (struct head){HEAD_INT, (uint64_t) (int8_t) byte};
    else if (byte < FIXARRAY)
        *ret = (struct head){HEAD_MAP, byte & 15};
    else if (byte < FIXSTR)
        *ret = (struct head){HEAD_ARRAY, byte & 15};
    else if (byte < NIL)
        *ret = (struct head){HEAD_STR, byte & 31};
    else if (byte == NIL)
        *ret = (struct head){HEAD_NIL, 0};
    else if (byte == TRUE || byte == FALSE)
        *ret = (struct head){HEAD_BOOL, byte == TRUE};
    else if (byte >= BIN8 && byte <= BIN32) {
        ret->kind = HEAD_BIN;
        return read_number(unpack, 1u << (byte - BIN8), &ret->number);
    } else if (byte >= STR8 && byte <= STR32) {
        ret->kind = HEAD_STR;
        return read_number(unpack, 1u << (byte - STR8), &ret->number);
    } else if (byte == ARRAY16 || byte == ARRAY32) {
        ret->kind = HEAD_ARRAY;
        return read_number(unpack, byte == ARRAY16 ? 2 : 4, &ret->number);
    } else if (byte == MAP16 || byte == MAP32) {
        ret->kind = HEAD_MAP;
        return read_number(unpack, byte == MAP16 ? 2 : 4, &ret->number);
    } else if (byte == FLOAT64) {
        ret->kind = HEAD_FLOAT;
        return read_number(unpack, 8, &ret->number);
    } else if (byte == FLOAT32) {
        uint32_t bits;
        float single;
        double number_f;

        r = read_number(unpack, 4, &number);
        bits = (uint32_t) number;
        memcpy(&single, &bits, sizeof single);
        number_f = single;
        ret->kind = HEAD_FLOAT;
        memcpy(&ret->number, &number_f, sizeof ret->number);
        return r;
    } else if (byte >= UINT8 && byte <= INT64) {
        log2_bytes = (unsigned) (byte - UINT8) % 4;
        r = read_number(unpack, 1u << log2_bytes, &number);
        ret->kind = HEAD_INT;
        ret->number = byte == INT8       ? (uint64_t) (int8_t) number
                      : byte == INT8 + 1 ? (uint64_t) (int16_t) number
                      : byte == INT8 + 2 ? (uint64_t) (int32_t) number
                                         : number;
        return byte == UINT64 && number > INT64_MAX ? -1 : r;
    } else {
        return -1; /* an extension, or the byte that means nothing */
    }
    return 0;
}

/* Room for items, of which each takes at least one byte: so no header can claim more than the bytes hold. */
static struct value *items_alloc(struct unpack *unpack, uint64_t count)
{
    if (count > bytes_left(unpack) || count > unpack->items_left
        || !arena_room(unpack->arena, count * sizeof(struct value)))
        return NULL;
    unpack->items_left -= count;
    return arena_alloc_array(unpack->arena, count, sizeof(struct value));
}

static int read_value(struct unpack *unpack, const struct type *type, unsigned depth, struct value *ret);

static int read_text(struct unpack *unpack, uint64_t length, struct value *ret)
{
    const char *text = (const char *) unpack->at;

    if (length > bytes_left(unpack) || !arena_room(unpack->arena, length + 1) || !text_is_utf8(text, length))
        return -1;
    unpack->at += length;
    *ret = (struct value){.kind = KIND_STRING,
                          .length = (uint32_t) length,
                          .text = length ? arena_dup(unpack->arena, text, length) : ""};
    return 0;
}

static int read_ref(struct unpack *unpack, uint64_t length, struct value *ret)
{
    ref_t ref = NULL_REF;

    if (length == 16) {
        if (read_number(unpack, 8, &ref.hi) < 0 || read_number(unpack, 8, &ref.lo) < 0 || ref_is_null(ref))
            return -1;
    } else if (length != 0) {
        return -1;
    }
    *ret = VALUE_REF(ref);
    return 0;
}

static int read_set(struct unpack *unpack, const struct type *type, uint64_t count, unsigned depth, struct value *ret)
{
    struct value *items = items_alloc(unpack, count);

    if (!items)
        return -1;
    for (uint64_t i = 0; i < count; i++)
        if (read_value(unpack, type ? type->element : NULL, depth, &items[i]) < 0)
            return -1;
    *ret = VALUE_SET((uint32_t) count, items);
    return 0;
}

static int read_map(struct unpack *unpack, const struct type *type, uint64_t pairs, unsigned depth, struct value *ret)
{
    struct value *items = items_alloc(unpack, 2 * pairs);

    if (!items)
        return -1;
    for (uint64_t i = 0; i < 2 * pairs; i++) {
        const struct type *inner = !type ? NULL : i % 2 ? type->element : type->key;

        if (read_value(unpack, inner, depth, &items[i]) < 0)
            return -1;
    }
    if (value_find_repeated(items, (uint32_t) pairs, 2))
        return -1;
    *ret = VALUE_MAP((uint32_t) pairs, items);
    return 0;
}

/* The field of a member's name, or NULL. Writers keep the order of the rows, so we look from the last one on. */
static const struct field *field_of(const struct class *class, const char *name, size_t length, int last)
{
    for (int i = 1; i <= class->field_count; i++) {
        const struct field *field = &class->fields[(last + i) % class->field_count];

        if (strlen(field->name) == length && memcmp(field->name, name, length) == 0)
            return field;
    }
    return NULL;
}

static int read_record(struct unpack *unpack, const struct class *class, uint64_t pairs, unsigned depth,
                       struct value *ret)
{
    size_t bytes = (size_t) class->field_count * sizeof(struct value);
    struct value *fields;
    int last = -1;

    if (!arena_room(unpack->arena, bytes))
        return -1;
    fields = arena_alloc(unpack->arena, bytes);
    for (int i = 0; i < class->field_count; i++)
        fields[i] = class->fields[i].initial;
    for (uint64_t i = 0; i < pairs; i++) {
        const struct field *field;
        struct head name;
        struct value unknown;

        if (read_head(unpack, &name) < 0 || name.kind != HEAD_STR || name.number > bytes_left(unpack))
            return -1;
        field = field_of(class, (const char *) unpack->at, name.number, last);
        unpack->at += name.number;
        last = field ? field->number : last;
        if (read_value(unpack, field ? field->type : NULL, depth, field ? &fields[field->number] : &unknown) < 0)
            return -1;
    }
    *ret = (struct value){.kind = KIND_RECORD, .record = {class, fields}};
    return 0;
}

/* A value as its head says. */
static int read_plain(struct unpack *unpack, const struct type *type, const struct head *head, unsigned depth,
                      struct value *ret)
{
    switch (head->kind) {
    case HEAD_NIL:
        *ret = VALUE_VOID;
        return 0;
    case HEAD_BOOL:
        *ret = VALUE_BOOL(head->number);
        return 0;
    case HEAD_INT:
        *ret = VALUE_INT((int64_t) head->number);
        return 0;
    case HEAD_FLOAT:
        *ret = VALUE_FLOAT(0);
        memcpy(&ret->f, &head->number, sizeof ret->f);
        return 0;
    case HEAD_STR:
        return read_text(unpack, head->number, ret);
    case HEAD_BIN:
        return read_ref(unpack, head->number, ret);
    case HEAD_ARRAY:
        return depth > 0 ? read_set(unpack, type, head->number, depth - 1, ret) : -1;
    case HEAD_MAP:
        if (depth == 0)
            return -1;
        if (type && type->kind == KIND_RECORD)
            return read_record(unpack, type->class, head->number, depth - 1, ret);
        return read_map(unpack, type, head->number, depth - 1, ret);
    }
    return -1;
}

/* Does a value of the type start so? */
static bool head_fits(const struct type *type, const struct head *head)
{
    switch (type->kind) {
    case KIND_STRING:
    case KIND_ENUM:
        return head->kind == HEAD_STR;
    case KIND_INT:
    case KIND_DATETIME:
        return head->kind == HEAD_INT;
    case KIND_FLOAT:
        return head->kind == HEAD_FLOAT || head->kind == HEAD_INT;
    case KIND_BOOL:
        return head->kind == HEAD_BOOL;
    case KIND_REF:
        return head->kind == HEAD_BIN;
    case KIND_SET:
        return head->kind == HEAD_ARRAY;
    case KIND_MAP:
    case KIND_RECORD:
        return head->kind == HEAD_MAP;
    case KIND_VOID:
    case KIND_NIL:
        return head->kind == HEAD_NIL;
    }
    return false;
}

static int read_value(struct unpack *unpack, const struct type *type, unsigned depth, struct value *ret)
{
    struct head head;

    if (type && type->kind == KIND_RECORD && !type->class)
        type = NULL; /* a record of any class is a map */
    if (read_head(unpack, &head) < 0 || (type && !head_fits(type, &head))
        || read_plain(unpack, type, &head, depth, ret) < 0)
        return -1;
    if (!type)
        return 0;
    if (type->kind == KIND_DATETIME) {
        ret->kind = KIND_DATETIME;
    } else if (type->kind == KIND_FLOAT && ret->kind == KIND_INT) {
        *ret = VALUE_FLOAT((double) ret->i);
    } else if (type->kind == KIND_ENUM) {
        int index = enum_index(type->enum_type, ret->text);

        if (index < 0)
            return -1;
        *ret = (struct value){.kind = KIND_ENUM, .e = {type->enum_type, index}};
    }
    return 0;
}

int unpack_next(struct unpack *unpack, const struct type *type, struct value *ret)
{
    return read_value(unpack, type, PACK_DEPTH_MAX, ret);
}

int unpack_map(struct unpack *unpack, uint32_t *ret_pairs)
{
    struct head head;

    if (read_head(unpack, &head) < 0 || head.kind != HEAD_MAP || head.number > bytes_left(unpack) / 2)
        return -1;
    *ret_pairs = (uint32_t) head.number;
    return 0;
}

int unpack_array(struct unpack *unpack, uint32_t *ret_items)
{
    struct head head;

    if (read_head(unpack, &head) < 0 || head.kind != HEAD_ARRAY || head.number > bytes_left(unpack))
        return -1;
    *ret_items = (uint32_t) head.number;
    return 0;
}

int unpack_value(const void *bytes, size_t count, const struct type *type, struct arena *arena, struct value *ret)
{
    struct unpack unpack;

    unpack_init(&unpack, bytes, count, arena);
    if (unpack_next(&unpack, type, ret) < 0 || unpack.at != unpack.end)
        return -1;
    return 0;
}
