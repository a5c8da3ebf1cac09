/* http_parse.h - the pure part of HTTP: heads, chunked bodies, queries, cookies, credentials.
 *
 * Nothing here does I/O or knows a connection, so all of it runs under the fuzzer. Everything works
 * in place: names and values become C strings inside the caller's text, which must outlive them. */
#pragma once

#include "shared/base.h"

/* More header lines than any client sends; what bounds the table. */
#define HTTP_HEADERS_MAX 128

/* Positions in a head are 16 bits wide. */
#define HTTP_HEAD_BYTES_MAX 65535

/* A parsed head. Strings point into the text that was given to http_head_parse(). */
struct http_head {
    const char *method;     /* a token, as sent */
    const char *target;     /* as sent: "/export?ref=x", "http://host/x", "*" */
    const char *query;      /* what follows the first '?', still encoded; "" without one */
    const char *path;       /* percent-decoded, without the query; begins with '/', or is "*" */
    const char *text;       /* what the positions below count from */
    int64_t content_length; /* -1 when not given */
    int minor;              /* 0 for HTTP/1.0, else 1 */
    bool is_chunked;
    bool is_keep_alive; /* by version and Connection: */
    bool expects_continue;
    uint16_t header_count;
    struct {
        uint16_t name;
        uint16_t value;
    } headers[HTTP_HEADERS_MAX];
};

/* Look for the end of a head that is arriving.
 *
 *   line    [in, out] start of the first line not yet seen whole; 0 at first. Makes the search
 *           linear however slowly the bytes come
 *
 * Returns the head's length including its empty line, 0 when more is needed, or -1 when this can
 * become no head: a bare LF, or a first byte that begins no method (a TLS hello on the plain port,
 * say). */
int http_head_end(const char *text, size_t bytes, size_t *line);

/* Parse a whole head.
 *
 *   text    the head with its empty line, at most HTTP_HEAD_BYTES_MAX; is changed
 *   path    room for the decoded path: as many bytes as text
 *
 * Refused: line ends other than CRLF, NUL and other control characters, names that are no token, a
 * blank before the colon, folded lines, a second Content-Length or Host, Content-Length beside
 * Transfer-Encoding, a target that is neither path, URL nor "*", %00 in the path.
 * Returns 0, or the HTTP status that says what is wrong (400, 417, 431, 501, 505). */
int http_head_parse(char *text, size_t bytes, char *path, struct http_head *ret_head);

/* A header's value by its name in any case, or NULL; the first of several. */
const char *http_head_header(const struct http_head *head, const char *name);

/* A chunked body as it arrives. Starts zeroed. */
struct http_chunks {
    uint64_t left;       /* data bytes of this chunk still to come */
    uint32_t line_bytes; /* of the size line, or of all trailers: both are bounded */
    uint8_t state;
    uint8_t digits; /* of the chunk's size */
};

enum http_chunks_result {
    HTTP_CHUNKS_MORE, /* all input used, the body goes on */
    HTTP_CHUNKS_DATA, /* *ret_data is body; call again with the rest */
    HTTP_CHUNKS_END,  /* the body is complete; unused input belongs to the next request */
    HTTP_CHUNKS_BAD,
};

/* Take the next run of body out of chunked input; ret_used says how much input that used up. */
enum http_chunks_result http_chunks_next(struct http_chunks *chunks, const char *in, size_t bytes,
                                         size_t *ret_used, const char **ret_data,
                                         size_t *ret_data_bytes);

/* name=value, decoded. */
struct http_pair {
    const char *name;
    const char *value;
};

/* Split and decode a query ("&") or a Cookie header (";&").
 *
 * Order and repeated names are kept, a name without '=' has the value "". '+' is a blank, as
 * XenAPI's clients write it; a '%' that begins no valid escape, or would make a NUL, stays as it
 * is. Returns the count; *ret_pairs is freed by the caller and points into text, which is changed.
 */
size_t http_pairs_split(char *text, const char *separators, struct http_pair **ret_pairs);

/* Undo percent-encoding in place; the new length, or -1 for a bad escape or %00. */
int http_percent_decode(char *text);

/* Credentials from the value of an Authorization header: "Basic <base64 of user:password>".
 *
 * Returns false when it is something else or malformed. The strings are freed by the caller, who
 * should wipe the password first. */
bool http_basic_decode(const char *authorization, char **ret_user, char **ret_password);

/* May this go into a header line that we send? False for anything that could end the line. */
bool http_header_value_is_safe(const char *value);

/* "OK" for 200; "Unknown" where we know none. */
const char *http_status_text(int status);
