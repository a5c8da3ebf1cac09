/* xmlrpc_write.c - values as XML-RPC text
 *
 * The hot path is a record among ten thousand: a class's member tags are spelled once, and a text without special
 * characters is copied eight bytes at a time. */
#include "shared/xmlrpc.h"

#include <pthread.h>

#include "shared/arena.h"
#include "shared/failure.h"
#include "shared/model.h"

/* ---- text ---- */

/* What a byte becomes: itself (0), nothing (1), or an entity. */
enum { PLAIN, DROPPED, LESS, GREATER, AMPERSAND, QUOTE };

static const uint8_t byte_class[256] = {
    [0x00 ... 0x08] = DROPPED, [0x0b ... 0x0c] = DROPPED, [0x0e ... 0x1f] = DROPPED,
    ['<'] = LESS,              ['>'] = GREATER,           ['&'] = AMPERSAND,
    ['"'] = QUOTE,
};

static const struct {
    const char *text;
    size_t length;
} entities[] = {
    [LESS] = {"&lt;", 4},
    [GREATER] = {"&gt;", 4},
    [AMPERSAND] = {"&amp;", 5},
    [QUOTE] = {"&quot;", 6},
};
#define ENTITY_BYTES_MAX 6

#define EACH_BYTE(x) (0x0101010101010101ULL * (x))

/* Is any of the eight bytes zero? May also say so of a 0x01 above a zero, which is then zero's fault. */
static inline uint64_t has_zero(uint64_t word)
{
    return (word - EACH_BYTE(0x01)) & ~word & EACH_BYTE(0x80);
}

/* Might one of the eight bytes not be plain? '<' and '>' differ in one bit, '"' and '&' in another. */
static inline bool has_special(uint64_t word)
{
    uint64_t control = (word - EACH_BYTE(0x20)) & ~word & EACH_BYTE(0x80);

    return control | has_zero((word | EACH_BYTE(0x02)) ^ EACH_BYTE('>'))
           | has_zero((word | EACH_BYTE(0x04)) ^ EACH_BYTE('&'));
}

/* Texts are escaped in pieces of this size, so that the room reserved for the worst case stays small. */
#define PIECE_BYTES 4096

static void add_piece(struct buffer *buffer, const char *text, size_t length)
{
    char *start = buffer_reserve(buffer, length * ENTITY_BYTES_MAX), *at = start;
    size_t i = 0;

    if (!start)
        return;
    while (i < length) {
        uint8_t class;

        if (length - i >= 8) {
            uint64_t word;

            memcpy(&word, text + i, 8);
            if (!has_special(word)) {
                memcpy(at, &word, 8);
                at += 8;
                i += 8;
                continue;
            }
        }
        class = byte_class[(unsigned char) text[i]];
        if (class == PLAIN) {
            *at++ = text[i];
        } else if (class != DROPPED) {
            memcpy(at, entities[class].text, entities[class].length);
            at += entities[class].length;
        }
        i++;
    }
    buffer_wrote(buffer, (size_t) (at - start));
}

static void add_escaped(struct buffer *buffer, const char *text, size_t length)
{
    while (length > PIECE_BYTES) {
        add_piece(buffer, text, PIECE_BYTES);
        text += PIECE_BYTES;
        length -= PIECE_BYTES;
    }
    if (length > 0)
        add_piece(buffer, text, length);
}

/* ---- values ---- */

static void add_inner(struct buffer *buffer, const struct value *value);

/* The name of a map's member: any scalar, as text. */
static void add_key(struct buffer *buffer, const struct value *key)
{
    char text[DATETIME_TEXT_BYTES];

    if (key->kind == KIND_DATETIME)
        buffer_add_text(buffer, datetime_print(text, key->i));
    else if (key->kind == KIND_INT)
        buffer_add_int(buffer, key->i);
    else
        add_inner(buffer, key);
}

static void add_set(struct buffer *buffer, const struct value *set)
{
    if (set->length == 0) {
        buffer_add_literal(buffer, "<array><data/></array>");
        return;
    }
    buffer_add_literal(buffer, "<array><data>");
    for (uint32_t i = 0; i < set->length; i++)
        xmlrpc_value(buffer, &set->items[i]);
    buffer_add_literal(buffer, "</data></array>");
}

static void add_map(struct buffer *buffer, const struct value *map)
{
    if (map->length == 0) {
        buffer_add_literal(buffer, "<struct/>");
        return;
    }
    buffer_add_literal(buffer, "<struct>");
    for (uint32_t i = 0; i < map->length; i++) {
        buffer_add_literal(buffer, "<member><name>");
        add_key(buffer, &map->items[2 * i]);
        buffer_add_literal(buffer, "</name><value>");
        add_inner(buffer, &map->items[2 * i + 1]);
        buffer_add_literal(buffer, "</value></member>");
    }
    buffer_add_literal(buffer, "</struct>");
}

/* `<member><name>x</name><value>` of each field, by class and number; empty for internal fields. */
struct member_start {
    const char *text;
    uint32_t length;
};
static const struct member_start *member_starts[CLASS_COUNT];

static void member_starts_init(void)
{
    struct arena *arena = arena_new(); /* for the life of the process */

    for (int i = 0; i < CLASS_COUNT; i++) {
        const struct class *class = &model_classes[i];
        struct member_start *starts = arena_alloc_array(arena, (size_t) class->field_count, sizeof *starts);

        for (int j = 0; j < class->field_count; j++) {
            if (class->fields[j].flags & FIELD_INTERNAL)
                continue;
            starts[j].text = arena_text(arena, "<member><name>%s</name><value>", class->fields[j].name);
            starts[j].length = (uint32_t) strlen(starts[j].text);
        }
        member_starts[i] = starts;
    }
}

static void add_record(struct buffer *buffer, const struct record *record)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const struct member_start *starts;

    pthread_once(&once, member_starts_init);
    starts = member_starts[record->class->number];
    buffer_add_literal(buffer, "<struct>");
    for (int i = 0; i < record->class->field_count; i++) {
        const struct value *value = &record->fields[i];
        struct value inverse = VALUE_EMPTY_SET;

        if (starts[i].length == 0)
            continue;
        if (value->kind == KIND_VOID) {
            const struct field *field = &record->class->fields[i];

            if (!(field->flags & FIELD_INVERSE))
                continue;
            if (record->inverse)
                inverse = record->inverse(record->context, field);
            value = &inverse;
        }
        buffer_add(buffer, starts[i].text, starts[i].length);
        add_inner(buffer, value);
        buffer_add_literal(buffer, "</value></member>");
    }
    buffer_add_literal(buffer, "</struct>");
}

static void add_inner(struct buffer *buffer, const struct value *value)
{
    char text[MAX(REF_TEXT_BYTES, DATETIME_TEXT_BYTES)];

    switch ((enum kind) value->kind) {
    case KIND_STRING:
        add_escaped(buffer, value->text, value->length);
        break;
    case KIND_INT:
        if (value->is_i4)
            buffer_add_literal(buffer, "<i4>");
        buffer_add_int(buffer, value->i);
        if (value->is_i4)
            buffer_add_literal(buffer, "</i4>");
        break;
    case KIND_FLOAT:
        buffer_add_literal(buffer, "<double>");
        buffer_add_float(buffer, value->f);
        buffer_add_literal(buffer, "</double>");
        break;
    case KIND_BOOL:
        if (value->b)
            buffer_add_literal(buffer, "<boolean>1</boolean>");
        else
            buffer_add_literal(buffer, "<boolean>0</boolean>");
        break;
    case KIND_DATETIME:
        buffer_add_literal(buffer, "<dateTime.iso8601>");
        buffer_add_text(buffer, datetime_print(text, value->i));
        buffer_add_literal(buffer, "</dateTime.iso8601>");
        break;
    case KIND_ENUM:
        buffer_add_text(buffer, enum_text(value->e.type, value->e.index));
        break;
    case KIND_REF:
        buffer_add_text(buffer, ref_print(text, value->ref));
        break;
    case KIND_SET:
        add_set(buffer, value);
        break;
    case KIND_MAP:
        add_map(buffer, value);
        break;
    case KIND_RECORD:
        add_record(buffer, &(struct record){value->record.class, value->record.fields, NULL, NULL});
        break;
    case KIND_VOID: /* the empty text */
    case KIND_NIL:
        break;
    }
}

void xmlrpc_value(struct buffer *buffer, const struct value *value)
{
    buffer_add_literal(buffer, "<value>");
    add_inner(buffer, value);
    buffer_add_literal(buffer, "</value>");
}

void xmlrpc_record(struct buffer *buffer, const struct record *record)
{
    buffer_add_literal(buffer, "<value>");
    add_record(buffer, record);
    buffer_add_literal(buffer, "</value>");
}

/* ---- replies ---- */

#define REPLY_START "<?xml version=\"1.0\"?><methodResponse><params><param>"
#define REPLY_END   "</param></params></methodResponse>"

void xmlrpc_success_begin(struct buffer *buffer)
{
    buffer_add_literal(buffer, REPLY_START
                       "<value><struct><member><name>Status</name><value>Success</value></member>"
                       "<member><name>Value</name>");
}

void xmlrpc_success_end(struct buffer *buffer)
{
    buffer_add_literal(buffer, "</member></struct></value>" REPLY_END);
}

void xmlrpc_reply_success(struct buffer *buffer, const struct value *value)
{
    xmlrpc_success_begin(buffer);
    xmlrpc_value(buffer, value);
    xmlrpc_success_end(buffer);
}

void xmlrpc_reply_bare(struct buffer *buffer, const struct value *value)
{
    buffer_add_literal(buffer, REPLY_START);
    xmlrpc_value(buffer, value);
    buffer_add_literal(buffer, REPLY_END);
}

void xmlrpc_reply_failure(struct buffer *buffer, const struct failure *failure)
{
    buffer_add_literal(buffer, REPLY_START
                       "<value><struct><member><name>Status</name><value>Failure</value></member>"
                       "<member><name>ErrorDescription</name><value><array><data><value>");
    add_escaped(buffer, failure->text, strlen(failure->text));
    buffer_add_literal(buffer, "</value>");
    for (unsigned i = 0; i < failure->count; i++) {
        buffer_add_literal(buffer, "<value>");
        add_escaped(buffer, failure->params[i], strlen(failure->params[i]));
        buffer_add_literal(buffer, "</value>");
    }
    buffer_add_literal(buffer, "</data></array></value></member></struct></value>" REPLY_END);
}

/* ---- pieces ---- */

void xmlrpc_map_begin(struct buffer *buffer, size_t count)
{
    if (count > 0)
        buffer_add_literal(buffer, "<value><struct>");
    else
        buffer_add_literal(buffer, "<value><struct/>");
}

void xmlrpc_map_key(struct buffer *buffer, const char *key, size_t length, bool is_first)
{
    if (!is_first)
        buffer_add_literal(buffer, "</member>");
    buffer_add_literal(buffer, "<member><name>");
    add_escaped(buffer, key, length);
    buffer_add_literal(buffer, "</name>");
}

void xmlrpc_map_end(struct buffer *buffer, size_t count)
{
    if (count > 0)
        buffer_add_literal(buffer, "</member></struct></value>");
    else
        buffer_add_literal(buffer, "</value>");
}

void xmlrpc_set_begin(struct buffer *buffer, size_t count)
{
    if (count > 0)
        buffer_add_literal(buffer, "<value><array><data>");
    else
        buffer_add_literal(buffer, "<value><array><data/></array>");
}

void xmlrpc_set_item(struct buffer *buffer, bool is_first)
{
    (void) buffer;
    (void) is_first;
}

void xmlrpc_set_end(struct buffer *buffer, size_t count)
{
    if (count > 0)
        buffer_add_literal(buffer, "</data></array></value>");
    else
        buffer_add_literal(buffer, "</value>");
}
