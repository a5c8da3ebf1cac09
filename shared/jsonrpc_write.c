/* jsonrpc_write.c - values as JSON-RPC text */
#include "shared/jsonrpc.h"

#include <math.h>

#include "shared/failure.h"
#include "shared/model.h"

/* ---- text ---- */

#define EACH_BYTE(x) (0x0101010101010101ULL * (x))

static inline uint64_t has_zero(uint64_t word)
{
    return (word - EACH_BYTE(0x01)) & ~word & EACH_BYTE(0x80);
}

/* Might one of the eight bytes need an escape? */
static inline bool has_special(uint64_t word)
{
    return ((word - EACH_BYTE(0x20)) & ~word & EACH_BYTE(0x80)) | has_zero(word ^ EACH_BYTE('"'))
           | has_zero(word ^ EACH_BYTE('\\'));
}

#define ESCAPE_BYTES_MAX 6
#define PIECE_BYTES      4096 /* so that the room reserved for the worst case stays small */

static char *escape(char *at, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char names[256] = {['"'] = '"', ['\\'] = '\\', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};

    *at++ = '\\';
    if (names[c]) {
        *at++ = names[c];
        return at;
    }
    memcpy(at, "u00", 3);
    at[3] = hex[c >> 4];
    at[4] = hex[c & 15];
    return at + 5;
}

static void add_piece(struct buffer *buffer, const char *text, size_t length)
{
    char *start = buffer_reserve(buffer, length * ESCAPE_BYTES_MAX), *at = start;
    size_t i = 0;

    if (!start)
        return;
    while (i < length) {
        unsigned char c = (unsigned char) text[i];

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
        if (c >= 0x20 && c != '"' && c != '\\')
            *at++ = text[i];
        else
            at = escape(at, c);
        i++;
    }
    buffer_wrote(buffer, (size_t) (at - start));
}

static void add_string(struct buffer *buffer, const char *text, size_t length)
{
    buffer_add_char(buffer, '"');
    while (length > PIECE_BYTES) {
        add_piece(buffer, text, PIECE_BYTES);
        text += PIECE_BYTES;
        length -= PIECE_BYTES;
    }
    if (length > 0)
        add_piece(buffer, text, length);
    buffer_add_char(buffer, '"');
}

static void add_text(struct buffer *buffer, const char *text)
{
    add_string(buffer, text, strlen(text));
}

/* ---- values ---- */

/* The name of a map's member: any scalar, as text. */
static void add_key(struct buffer *buffer, const struct value *key)
{
    if (key->kind != KIND_INT) {
        jsonrpc_value(buffer, key);
        return;
    }
    buffer_add_char(buffer, '"');
    buffer_add_int(buffer, key->i);
    buffer_add_char(buffer, '"');
}

static void add_record(struct buffer *buffer, const struct record *record)
{
    bool is_first = true;

    buffer_add_char(buffer, '{');
    for (int i = 0; i < record->class->field_count; i++) {
        const struct field *field = &record->class->fields[i];
        const struct value *value = &record->fields[i];
        struct value inverse = VALUE_EMPTY_SET;

        if (field->flags & FIELD_INTERNAL)
            continue;
        if (value->kind == KIND_VOID) {
            if (!(field->flags & FIELD_INVERSE))
                continue;
            if (record->inverse)
                inverse = record->inverse(record->context, field);
            value = &inverse;
        }
        jsonrpc_set_item(buffer, is_first);
        buffer_add_char(buffer, '"');
        buffer_add_text(buffer, field->name);
        buffer_add_literal(buffer, "\":");
        jsonrpc_value(buffer, value);
        is_first = false;
    }
    buffer_add_char(buffer, '}');
}

void jsonrpc_record(struct buffer *buffer, const struct record *record)
{
    add_record(buffer, record);
}

void jsonrpc_value(struct buffer *buffer, const struct value *value)
{
    char text[MAX(REF_TEXT_BYTES, DATETIME_TEXT_BYTES)];

    switch ((enum kind) value->kind) {
    case KIND_STRING:
        add_string(buffer, value->text, value->length);
        break;
    case KIND_INT:
        buffer_add_int(buffer, value->i);
        break;
    case KIND_FLOAT:
        if (isfinite(value->f))
            buffer_add_float(buffer, value->f);
        else
            buffer_add_literal(buffer, "null");
        break;
    case KIND_BOOL:
        buffer_add_text(buffer, value->b ? "true" : "false");
        break;
    case KIND_DATETIME:
        add_text(buffer, datetime_print(text, value->i));
        break;
    case KIND_ENUM:
        add_text(buffer, enum_text(value->e.type, value->e.index));
        break;
    case KIND_REF:
        add_text(buffer, ref_print(text, value->ref));
        break;
    case KIND_SET:
        buffer_add_char(buffer, '[');
        for (uint32_t i = 0; i < value->length; i++) {
            jsonrpc_set_item(buffer, i == 0);
            jsonrpc_value(buffer, &value->items[i]);
        }
        buffer_add_char(buffer, ']');
        break;
    case KIND_MAP:
        buffer_add_char(buffer, '{');
        for (uint32_t i = 0; i < value->length; i++) {
            jsonrpc_set_item(buffer, i == 0);
            add_key(buffer, &value->items[2 * i]);
            buffer_add_char(buffer, ':');
            jsonrpc_value(buffer, &value->items[2 * i + 1]);
        }
        buffer_add_char(buffer, '}');
        break;
    case KIND_RECORD:
        add_record(buffer, &(struct record){value->record.class, value->record.fields, NULL, NULL});
        break;
    case KIND_VOID:
        buffer_add_literal(buffer, "\"\"");
        break;
    case KIND_NIL:
        buffer_add_literal(buffer, "null");
        break;
    }
}

/* ---- replies ---- */

void jsonrpc_success_begin(struct buffer *buffer, const struct jsonrpc_call *call)
{
    if (call->is_version_2)
        buffer_add_literal(buffer, "{\"jsonrpc\":\"2.0\",\"result\":");
    else
        buffer_add_literal(buffer, "{\"result\":");
}

static void add_id(struct buffer *buffer, const struct jsonrpc_call *call)
{
    buffer_add_literal(buffer, ",\"id\":");
    jsonrpc_value(buffer, &call->id);
    buffer_add_char(buffer, '}');
}

void jsonrpc_success_end(struct buffer *buffer, const struct jsonrpc_call *call)
{
    if (!call->is_version_2)
        buffer_add_literal(buffer, ",\"error\":null");
    add_id(buffer, call);
}

void jsonrpc_reply_success(struct buffer *buffer, const struct jsonrpc_call *call, const struct value *value)
{
    jsonrpc_success_begin(buffer, call);
    jsonrpc_value(buffer, value);
    jsonrpc_success_end(buffer, call);
}

/* [params...], or [code, params...] */
static void add_details(struct buffer *buffer, const struct failure *failure, bool has_code)
{
    buffer_add_char(buffer, '[');
    if (has_code)
        add_text(buffer, failure->text);
    for (unsigned i = 0; i < failure->count; i++) {
        jsonrpc_set_item(buffer, i == 0 && !has_code);
        add_text(buffer, failure->params[i]);
    }
    buffer_add_char(buffer, ']');
}

void jsonrpc_reply_failure(struct buffer *buffer, const struct jsonrpc_call *call, const struct failure *failure)
{
    if (call->is_version_2) {
        buffer_add_literal(buffer, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":");
        add_text(buffer, failure->text);
        buffer_add_literal(buffer, ",\"data\":");
        add_details(buffer, failure, false);
        buffer_add_char(buffer, '}');
    } else {
        buffer_add_literal(buffer, "{\"result\":null,\"error\":");
        add_details(buffer, failure, true);
    }
    add_id(buffer, call);
}

void jsonrpc_reply_early_failure(struct buffer *buffer, const struct failure *failure)
{
    buffer_add_literal(buffer, "{\"jsonrpc\":\"2.0\",\"error\":");
    add_details(buffer, failure, true);
    buffer_add_literal(buffer, ",\"id\":0}");
}

/* ---- pieces ---- */

void jsonrpc_map_begin(struct buffer *buffer, size_t count)
{
    (void) count;
    buffer_add_char(buffer, '{');
}

void jsonrpc_map_key(struct buffer *buffer, const char *key, size_t length, bool is_first)
{
    jsonrpc_set_item(buffer, is_first);
    add_string(buffer, key, length);
    buffer_add_char(buffer, ':');
}

void jsonrpc_map_end(struct buffer *buffer, size_t count)
{
    (void) count;
    buffer_add_char(buffer, '}');
}

void jsonrpc_set_begin(struct buffer *buffer, size_t count)
{
    (void) count;
    buffer_add_char(buffer, '[');
}

void jsonrpc_set_item(struct buffer *buffer, bool is_first)
{
    if (!is_first)
        buffer_add_char(buffer, ',');
}

void jsonrpc_set_end(struct buffer *buffer, size_t count)
{
    (void) count;
    buffer_add_char(buffer, ']');
}
