/* http_parse.c - heads, chunked bodies, queries, cookies and credentials, without I/O
 *
 * Strict where two readers could disagree about where a request ends, for that is how requests are
 * smuggled past a proxy; lenient only where nothing depends on it (a missing Host, empty lines
 * before the request line, odd escapes in a query). */
#include "shared/http_parse.h"

#include <ctype.h>
#include <stdio.h>
#include <strings.h>

#include "shared/base64.h"

/* Size line and extensions of one chunk; all trailers of a body. */
#define CHUNK_LINE_BYTES_MAX 256
#define TRAILER_BYTES_MAX    8192

/* 15 hexadecimal digits stay below 2^60, so sums of sizes cannot overflow. */
#define CHUNK_DIGITS_MAX 15

enum chunk_state {
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER_START,
    CHUNK_TRAILER,
    CHUNK_TRAILER_LF,
    CHUNK_LAST_LF,
    CHUNK_END,
};

/* RFC 9110 tchar */
static bool is_token_char(unsigned char c)
{
    static const bool table[256] = {
        ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1,         ['&'] = 1,         ['\''] = 1,
        ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1,         ['^'] = 1,         ['_'] = 1,
        ['`'] = 1, ['|'] = 1, ['~'] = 1, ['0' ... '9'] = 1, ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1,
    };

    return table[c];
}

/* Blanks, tabs, printable characters and bytes above ASCII; no control characters */
static bool is_value_char(unsigned char c)
{
    return (c >= 0x20 && c != 0x7f) || c == '\t';
}

static int hex_digit(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int http_head_end(const char *text, size_t bytes, size_t *line)
{
    while (*line < bytes) {
        const char *start = text + *line;
        const char *lf;

        if (*start != '\r' && *line == 0 && !is_token_char((unsigned char) *start))
            return -1;
        lf = memchr(start, '\n', bytes - *line);
        if (!lf)
            return 0;
        if (lf == start || lf[-1] != '\r')
            return -1;
        *line = (size_t) (lf + 1 - text);
        if (lf - start == 1)
            return (int) *line;
    }
    return 0;
}

/* --- the head -------------------------------------------------------------------------------- */

int http_percent_decode(char *text)
{
    char *out = text;

    for (const char *in = text; *in; in++) {
        int high, low;

        if (*in != '%') {
            *out++ = *in;
            continue;
        }
        high = hex_digit((unsigned char) in[1]);
        low = high < 0 ? -1 : hex_digit((unsigned char) in[2]);
        if (low < 0 || (high == 0 && low == 0))
            return -1;
        *out++ = (char) (high * 16 + low);
        in += 2;
    }
    *out = '\0';
    return (int) (out - text);
}

/* Find path and query in the target. The path is copied out because the target is kept as it was
 * sent: redirects repeat its query. */
static int target_split(const char *target, char *path, struct http_head *head)
{
    const char *start = target;
    const char *query = strchrnul(target, '?');
    size_t bytes;

    if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
        start = strchr(target, ':') + 3;
        start += strcspn(start, "/?");
        if (*start != '/') { /* a URL that ends with its host */
            strcpy(path, "/");
            goto query;
        }
    } else if (*target != '/' && !(streq(target, "*") && streq(head->method, "OPTIONS")))
        return 400;

    bytes = (size_t) (query - start);
    memcpy(path, start, bytes);
    path[bytes] = '\0';
    if (http_percent_decode(path) < 0)
        return 400;
query:
    head->path = path;
    head->query = *query ? query + 1 : "";
    return 0;
}

/* "GET /path HTTP/1.1": exactly two blanks. */
static int request_line_parse(char *line, char *path, struct http_head *head)
{
    char *target, *version;

    for (target = line; is_token_char((unsigned char) *target); target++)
        ;
    if (target == line || *target != ' ')
        return 400;
    *target++ = '\0';
    head->method = line;

    for (version = target; (unsigned char) *version > ' ' && *version != 0x7f; version++)
        ;
    if (version == target || *version != ' ')
        return 400;
    *version++ = '\0';
    head->target = target;

    if (strncmp(version, "HTTP/", 5) != 0 || !isdigit((unsigned char) version[5])
        || version[6] != '.' || !isdigit((unsigned char) version[7]) || version[8])
        return 400;
    if (version[5] != '1')
        return 505;
    head->minor = version[7] != '0';
    return target_split(target, path, head);
}

/* Only digits, and small enough that sums with it cannot overflow. */
static int content_length_parse(const char *value, int64_t *ret_length)
{
    int64_t length = 0;

    if (!*value)
        return 400;
    for (; *value; value++) {
        if (!isdigit((unsigned char) *value) || length > INT64_MAX / 100)
            return 400;
        length = length * 10 + (*value - '0');
    }
    *ret_length = length;
    return 0;
}

/* Is the word one of the comma-separated elements of the list? */
static bool list_has(const char *list, const char *word)
{
    size_t bytes = strlen(word);

    while (*list) {
        size_t element;

        list += strspn(list, ", \t");
        element = strcspn(list, ", \t");
        if (element == bytes && strncasecmp(list, word, bytes) == 0)
            return true;
        list += element;
    }
    return false;
}

/* What the connection itself must know of a header. */
static int header_note(struct http_head *head, const char *name, const char *value, bool *has_host)
{
    switch (strlen(name)) {
    case 4:
        if (strcasecmp(name, "host") == 0) {
            if (*has_host)
                return 400;
            *has_host = true;
        }
        break;
    case 6:
        if (strcasecmp(name, "expect") == 0) {
            if (strcasecmp(value, "100-continue") != 0)
                return 417;
            head->expects_continue = true;
        }
        break;
    case 10:
        if (strcasecmp(name, "connection") == 0) {
            if (list_has(value, "close"))
                head->is_keep_alive = false;
            else if (list_has(value, "keep-alive"))
                head->is_keep_alive = true;
        }
        break;
    case 14:
        if (strcasecmp(name, "content-length") == 0) {
            if (head->content_length >= 0)
                return 400;
            return content_length_parse(value, &head->content_length);
        }
        break;
    case 17:
        if (strcasecmp(name, "transfer-encoding") == 0) {
            if (head->is_chunked || head->minor == 0)
                return 400;
            if (strcasecmp(value, "chunked") != 0)
                return 501;
            head->is_chunked = true;
        }
        break;
    }
    return 0;
}

/* One header line, already a C string without its CRLF. */
static int header_parse(struct http_head *head, char *line, bool *has_host)
{
    char *colon = line, *value, *end;

    while (is_token_char((unsigned char) *colon))
        colon++;
    if (colon == line || *colon != ':') /* also a folded line and a blank before the colon */
        return 400;
    *colon = '\0';
    value = colon + 1 + strspn(colon + 1, " \t");
    for (end = value; is_value_char((unsigned char) *end); end++)
        ;
    if (*end)
        return 400;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *end = '\0';

    if (head->header_count == HTTP_HEADERS_MAX)
        return 431;
    head->headers[head->header_count].name = (uint16_t) (line - head->text);
    head->headers[head->header_count].value = (uint16_t) (value - head->text);
    head->header_count++;
    return header_note(head, line, value, has_host);
}

int http_head_parse(char *text, size_t bytes, char *path, struct http_head *ret_head)
{
    char *line = text, *end = text + bytes;
    bool has_host = false;
    int status;

    *ret_head = (struct http_head){.text = text, .content_length = -1, .minor = 1};
    if (bytes < 4 || bytes > HTTP_HEAD_BYTES_MAX || memcmp(end - 4, "\r\n\r\n", 4) != 0
        || memchr(text, '\0', bytes))
        return 400;

    for (bool is_first = true; line < end - 2; is_first = false) {
        char *lf = memchr(line, '\n', (size_t) (end - line));

        if (lf == line || lf[-1] != '\r')
            return 400;
        lf[-1] = '\0'; /* any other CR now meets the character checks */
        if (is_first) {
            status = request_line_parse(line, path, ret_head);
            ret_head->is_keep_alive = ret_head->minor == 1;
        } else
            status = header_parse(ret_head, line, &has_host);
        if (status)
            return status;
        line = lf + 1;
    }
    if (!ret_head->method || (ret_head->is_chunked && ret_head->content_length >= 0))
        return 400;
    return 0;
}

const char *http_head_header(const struct http_head *head, const char *name)
{
    for (uint16_t i = 0; i < head->header_count; i++) {
        if (strcasecmp(head->text + head->headers[i].name, name) == 0)
            return head->text + head->headers[i].value;
    }
    return NULL;
}

/* --- chunked bodies -------------------------------------------------------------------------- */

/* One byte of framing. Returns false when it does not belong there. */
static bool chunk_byte(struct http_chunks *chunks, char c)
{
    int digit;

    switch ((enum chunk_state) chunks->state) {
    case CHUNK_SIZE:
        digit = hex_digit((unsigned char) c);
        if (digit >= 0) {
            if (++chunks->digits > CHUNK_DIGITS_MAX)
                return false;
            chunks->left = chunks->left * 16 + (unsigned) digit;
            return true;
        }
        if (chunks->digits == 0)
            return false;
        chunks->state = c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
        return c == '\r' || c == ';' || c == ' ' || c == '\t';
    case CHUNK_EXTENSION:
        if (c == '\r')
            chunks->state = CHUNK_SIZE_LF;
        else if (!is_value_char((unsigned char) c))
            return false;
        return ++chunks->line_bytes <= CHUNK_LINE_BYTES_MAX;
    case CHUNK_SIZE_LF:
        chunks->state = chunks->left ? CHUNK_DATA : CHUNK_TRAILER_START;
        chunks->line_bytes = 0;
        chunks->digits = 0;
        return c == '\n';
    case CHUNK_DATA_CR:
        chunks->state = CHUNK_DATA_LF;
        return c == '\r';
    case CHUNK_DATA_LF:
        chunks->state = CHUNK_SIZE;
        return c == '\n';
    case CHUNK_TRAILER_START:
        chunks->state = c == '\r' ? CHUNK_LAST_LF : CHUNK_TRAILER;
        return c == '\r' || is_token_char((unsigned char) c);
    case CHUNK_TRAILER:
        if (c == '\r')
            chunks->state = CHUNK_TRAILER_LF;
        else if (!is_value_char((unsigned char) c))
            return false;
        return ++chunks->line_bytes <= TRAILER_BYTES_MAX;
    case CHUNK_TRAILER_LF:
        chunks->state = CHUNK_TRAILER_START;
        return c == '\n';
    case CHUNK_LAST_LF:
        chunks->state = CHUNK_END;
        return c == '\n';
    case CHUNK_DATA:
    case CHUNK_END:
        break;
    }
    return false;
}

enum http_chunks_result http_chunks_next(struct http_chunks *chunks, const char *in, size_t bytes,
                                         size_t *ret_used, const char **ret_data,
                                         size_t *ret_data_bytes)
{
    size_t used = 0;

    while (chunks->state != CHUNK_END && used < bytes) {
        if (chunks->state == CHUNK_DATA) {
            size_t run = MIN(bytes - used, chunks->left);

            chunks->left -= run;
            if (!chunks->left)
                chunks->state = CHUNK_DATA_CR;
            *ret_data = in + used;
            *ret_data_bytes = run;
            *ret_used = used + run;
            return HTTP_CHUNKS_DATA;
        }
        if (!chunk_byte(chunks, in[used++])) {
            *ret_used = used;
            return HTTP_CHUNKS_BAD;
        }
    }
    *ret_used = used;
    return chunks->state == CHUNK_END ? HTTP_CHUNKS_END : HTTP_CHUNKS_MORE;
}

/* --- queries, cookies, credentials ----------------------------------------------------------- */

static void pair_decode(char *text)
{
    char *out = text;

    for (const char *in = text; *in; in++) {
        int high = -1, low = -1;

        if (*in == '%') {
            high = hex_digit((unsigned char) in[1]);
            low = high < 0 ? -1 : hex_digit((unsigned char) in[2]);
        }
        if (low >= 0 && high * 16 + low != 0) {
            *out++ = (char) (high * 16 + low);
            in += 2;
        } else
            *out++ = *in == '+' ? ' ' : *in;
    }
    *out = '\0';
}

size_t http_pairs_split(char *text, const char *separators, struct http_pair **ret_pairs)
{
    size_t room = 1, count = 0;
    struct http_pair *pairs;

    for (const char *c = text; *c; c++)
        room += strchr(separators, *c) != NULL;
    pairs = new0_array(struct http_pair, room);

    while (*text) {
        char *end = text + strcspn(text, separators);
        char *next = *end ? end + 1 : end;
        char *equals;

        *end = '\0';
        text += strspn(text, " \t");
        equals = strchrnul(text, '=');
        if (*text) {
            if (*equals)
                *equals++ = '\0';
            pairs[count].name = text;
            pairs[count].value = equals;
            pair_decode(text);
            pair_decode(equals);
            count++;
        }
        text = next;
    }
    *ret_pairs = pairs;
    return count;
}

/* Standard alphabet; padding may be missing. Returns the length, or -1; out needs 3/4 of the input
 * + 1. */
static int base64_decode(const char *in, char *out)
{
    uint32_t bits = 0;
    int count = 0, length = 0;

    for (; *in && *in != '='; in++) {
        int digit = base64_digit(*in);

        if (digit < 0)
            return -1;
        bits = bits << 6 | (uint32_t) digit;
        if (++count % 4 != 1)
            out[length++] = (char) (bits >> (6 - 2 * ((count - 1) % 4)));
    }
    if (count % 4 == 1 || strspn(in, "=") != strlen(in) || strlen(in) > 2)
        return -1;
    out[length] = '\0';
    return length;
}

bool http_basic_decode(const char *authorization, char **ret_user, char **ret_password)
{
    size_t bytes = strlen(authorization);
    char *text, *colon;
    bool is_good;
    int length;

    if (strncasecmp(authorization, "basic ", 6) != 0)
        return false;
    authorization += 6;
    authorization += strspn(authorization, " ");
    text = alloc0(bytes + 1);
    length = base64_decode(authorization, text);
    colon = length < 0 ? NULL : memchr(text, ':', (size_t) length);
    is_good = colon && !memchr(text, '\0', (size_t) length);
    if (is_good) {
        *colon = '\0';
        *ret_user = dup_text(text);
        *ret_password = dup_text(colon + 1);
    }
    explicit_bzero(text, bytes + 1);
    free(text);
    return is_good;
}

bool http_header_value_is_safe(const char *value)
{
    while (is_value_char((unsigned char) *value))
        value++;
    return !*value;
}

const char *http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } table[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (table[i].status == status)
            return table[i].text;
    }
    return "Unknown";
}
