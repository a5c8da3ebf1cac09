/* dbtext.c - values as the database of XenAPI spells them */
#include "shared/dbtext.h"

#include "shared/model.h"

static void add_quoted(struct buffer *buffer, const char *text, size_t length)
{
    size_t start = 0;

    buffer_add_char(buffer, '\'');
    for (size_t i = 0; i < length; i++) {
        if (text[i] != '\'' && text[i] != '\\')
            continue;
        buffer_add(buffer, text + start, i - start);
        buffer_add_char(buffer, '\\');
        start = i;
    }
    buffer_add(buffer, text + start, length - start);
    buffer_add_char(buffer, '\'');
}

static void print_quoted(struct buffer *buffer, const struct value *value)
{
    _cleanup_(buffer_done) struct buffer inner = {.bytes_max = buffer->bytes_max};

    if (value->kind == KIND_STRING) {
        add_quoted(buffer, value->text, value->length);
        return;
    }
    dbtext_print(&inner, value);
    add_quoted(buffer, inner.bytes, inner.length);
}

void dbtext_print(struct buffer *buffer, const struct value *value)
{
    char text[MAX(REF_TEXT_BYTES, DATETIME_TEXT_BYTES)];

    switch ((enum kind) value->kind) {
    case KIND_STRING:
        buffer_add(buffer, value->text, value->length);
        break;
    case KIND_INT:
        buffer_add_int(buffer, value->i);
        break;
    case KIND_FLOAT:
        buffer_add_float(buffer, value->f);
        break;
    case KIND_BOOL:
        buffer_add_text(buffer, value->b ? "true" : "false");
        break;
    case KIND_DATETIME:
        buffer_add_text(buffer, datetime_print(text, value->i));
        break;
    case KIND_ENUM:
        buffer_add_text(buffer, enum_text(value->e.type, value->e.index));
        break;
    case KIND_REF:
        buffer_add_text(buffer, ref_print(text, value->ref));
        break;
    case KIND_SET:
        buffer_add_char(buffer, '(');
        for (uint32_t i = 0; i < value->length; i++) {
            if (i > 0)
                buffer_add_char(buffer, ' ');
            print_quoted(buffer, &value->items[i]);
        }
        buffer_add_char(buffer, ')');
        break;
    case KIND_MAP:
        buffer_add_char(buffer, '(');
        for (uint32_t i = 0; i < value->length; i++) {
            buffer_add_text(buffer, i > 0 ? " (" : "(");
            print_quoted(buffer, &value->items[2 * i]);
            buffer_add_char(buffer, ' ');
            print_quoted(buffer, &value->items[2 * i + 1]);
            buffer_add_char(buffer, ')');
        }
        buffer_add_char(buffer, ')');
        break;
    case KIND_RECORD: /* no field of the database is a record */
    case KIND_VOID:
    case KIND_NIL:
        break;
    }
}
