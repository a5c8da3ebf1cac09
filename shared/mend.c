/* mend.c - documents that no parser takes, made readable */
#include "shared/mend.h"

#include <ctype.h>

#include "shared/value.h"

#define MARK_BYTES (sizeof MEND_MARK - 1)

static void add_mark(struct buffer *out)
{
    buffer_add_literal(out, MEND_MARK);
}

/* How many bytes from `p` are no text. */
static size_t bad_length(const char *p, const char *end)
{
    const char *start = p;

    while (p < end && text_good_length(p, (size_t) MIN(end - p, 4), true) == 0)
        p++;
    return (size_t) (p - start);
}

/* How many bytes a character takes that is good. */
static size_t good_length(const char *p)
{
    unsigned char lead = (unsigned char) *p;

    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* Is it a character that XML knows? */
static bool is_xml_character(uint32_t c)
{
    return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c < 0xd800) || (c >= 0xe000 && c < 0xfffe)
           || (c >= 0x10000 && c <= 0x10ffff);
}

static int hex_digit(char c)
{
    return isdigit((unsigned char) c) ? c - '0' : isxdigit((unsigned char) c) ? tolower((unsigned char) c) - 'a' + 10 : -1;
}

/* ---- XML ---- */

/* The length of a reference "&#...;" to a character that XML does not know; 0 for all else. */
static size_t bad_reference(const char *p, const char *end)
{
    const char *start = p;
    bool is_hex;
    uint32_t number = 0;

    if (end - p < 4 || p[0] != '&' || p[1] != '#')
        return 0;
    is_hex = p[2] == 'x';
    p += is_hex ? 3 : 2;
    for (; p < end && hex_digit(*p) >= 0 && (is_hex || hex_digit(*p) < 10); p++)
        number = MIN(number * (is_hex ? 16 : 10) + (uint32_t) hex_digit(*p), 0x110000u);
    if (p == end || *p != ';' || p == start + (is_hex ? 3 : 2) || is_xml_character(number))
        return 0;
    return (size_t) (p + 1 - start);
}

bool mend_xml(const char *bytes, size_t length, struct buffer *out)
{
    const char *p = bytes, *end = bytes + length, *kept = bytes;
    bool is_mended = false;

    while (p < end) {
        size_t bad = *p == '&' ? bad_reference(p, end) : bad_length(p, end);

        if (bad == 0) {
            p += good_length(p);
            continue;
        }
        buffer_add(out, kept, (size_t) (p - kept));
        add_mark(out);
        p += bad;
        kept = p;
        is_mended = true;
    }
    buffer_add(out, kept, (size_t) (end - kept));
    return is_mended;
}

/* ---- JSON ---- */

/* The number of a "\uXXXX"; -1 for all else. */
static int32_t escaped(const char *p, const char *end)
{
    int32_t number = 0;

    if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        if (hex_digit(p[i]) < 0)
            return -1;
        number = number * 16 + hex_digit(p[i]);
    }
    return number;
}

/* How many bytes the escape at `p` takes, and whether it stands for no character. */
static size_t escape_length(const char *p, const char *end, bool *ret_is_bad)
{
    int32_t first = escaped(p, end), second;

    *ret_is_bad = false;
    if (first < 0)
        return (size_t) MIN(end - p, 2);
    if (first >= 0xd800 && first < 0xdc00) {
        second = escaped(p + 6, end);
        if (second >= 0xdc00 && second < 0xe000)
            return 12;
    }
    *ret_is_bad = first == 0 || (first >= 0xd800 && first < 0xe000);
    return 6;
}

bool mend_json(const char *bytes, size_t length, struct buffer *out)
{
    const char *p = bytes, *end = bytes + length;
    bool is_mended = false;

    while (p < end) {
        bool is_bad = true;
        size_t taken = *p == '\\' ? escape_length(p, end, &is_bad) : bad_length(p, end);

        if (taken == 0) {
            taken = good_length(p);
            is_bad = false;
        }
        if (is_bad)
            add_mark(out);
        else
            buffer_add(out, p, taken);
        p += taken;
        is_mended |= is_bad;
    }
    return is_mended;
}

void mend_json_depth(const char *bytes, size_t length, unsigned depth_max, struct buffer *out)
{
    unsigned depth = 0;
    bool is_string = false;

    for (size_t i = 0; i < length; i++) {
        char c = bytes[i];
        bool is_kept = depth <= depth_max;

        if (is_string) {
            if (c == '\\' && i + 1 < length) {
                if (is_kept)
                    buffer_add_char(out, c);
                c = bytes[++i];
            } else if (c == '"') {
                is_string = false;
            }
        } else if (c == '"') {
            is_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth == depth_max + 1)
                buffer_add_literal(out, "null");
            is_kept = depth <= depth_max;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
        if (is_kept)
            buffer_add_char(out, c);
    }
}

/* ---- marks ---- */

bool mend_has_mark(const char *text, size_t length)
{
    return length >= MARK_BYTES && memmem(text, length, MEND_MARK, MARK_BYTES) != NULL;
}

size_t mend_unmark(char *text, size_t length)
{
    char *to = text, *end = text + length;

    for (const char *from = text; from < end;) {
        if ((size_t) (end - from) >= MARK_BYTES && memcmp(from, MEND_MARK, MARK_BYTES) == 0) {
            *to++ = (char) 0xff;
            from += MARK_BYTES;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
    return (size_t) (to - text);
}
