/* xmlrpc.h - values <-> XML-RPC text (wire.md section 2)
 *
 * Reading: libxml2's push parser calls back for each tag; the values of a call gather on a pile and end up in the
 * caller's arena. What is read knows no schema (value.h), args_bind() types it.
 *
 * Writing: by hand, into a buffer. Strings have no tag, integers are strings, nothing stands between elements -
 * the C SDK takes members by position and children by number. */
#pragma once

#include "shared/buffer.h"
#include "shared/record.h"
#include "shared/value.h"

struct arena;
struct failure;

/* ---- reading ---- */

#define XMLRPC_DEPTH_MAX  64       /* values inside values */
#define XMLRPC_VALUES_MAX 262144   /* of one document: 24 bytes each, whatever the document's size */
#define XMLRPC_TAG_MAX    1024     /* bytes of one tag: XML-RPC knows no attributes, and libxml2 compares each
                                      attribute of a tag with each other */

struct xmlrpc_call {
    const char *method;
    const struct value *params;
    unsigned param_count;
    const char *bad_text; /* a string of the parameters that is no UTF-8, as it stands there; else NULL */
    const char *fault;    /* why not all parameters were read; else NULL */
};

/* A document that arrives in pieces. Result and reason live in the arena; a limit set there is kept.
 *
 * Values nested too deeply end the reading but leave a call whose method is known, with `fault` and the parameters before
 * them: its client can be told. */
struct xmlrpc_parser *xmlrpc_parser_new(struct arena *arena);
void xmlrpc_parser_destroy(struct xmlrpc_parser **parser_p);
/* 0, or -1 when the document is known to be bad: then the rest need not be read. */
int xmlrpc_parser_feed(struct xmlrpc_parser *parser, const char *bytes, size_t length);
/* The end: 0, or -1 and the reason in plain text (which may repeat bytes of the document). */
int xmlrpc_parser_finish(struct xmlrpc_parser *parser, struct xmlrpc_call *ret, const char **ret_reason);

/* The same for a whole document; and one that was refused for characters that XML does not know is a call all the same,
 * with `bad_text` (mend.h). */
int xmlrpc_parse_call(const char *bytes, size_t length, struct arena *arena, struct xmlrpc_call *ret,
                      const char **ret_reason);

/* The value of a <methodResponse>: for a client, with Status still in it. */
int xmlrpc_parse_reply(const char *bytes, size_t length, struct arena *arena, struct value *ret,
                       const char **ret_reason);

/* A document that is one <value> (ova.xml), of at most so many values. */
int xmlrpc_parse_value(const char *bytes, size_t length, struct arena *arena, uint32_t values_max, struct value *ret,
                       const char **ret_reason);

/* ---- writing ---- */

/* <value>...</value>: also how a task's result is stored. */
void xmlrpc_value(struct buffer *buffer, const struct value *value);
void xmlrpc_record(struct buffer *buffer, const struct record *record);

/* Whole replies. */
void xmlrpc_reply_success(struct buffer *buffer, const struct value *value);
void xmlrpc_reply_failure(struct buffer *buffer, const struct failure *failure);
/* Without Status and Value: system.listMethods. */
void xmlrpc_reply_bare(struct buffer *buffer, const struct value *value);

/* A reply in pieces, for listings that are written as the socket drains: between begin and end goes one value,
 * which may itself be put together:
 *
 *     xmlrpc_success_begin(b);
 *     xmlrpc_map_begin(b, n);
 *     for each:  xmlrpc_map_key(b, ref, strlen(ref), i == 0);  xmlrpc_record(b, &record);
 *     xmlrpc_map_end(b, n);
 *     xmlrpc_success_end(b);
 *
 * jsonrpc.h has the same functions, so a table of them serves both. */
void xmlrpc_success_begin(struct buffer *buffer);
void xmlrpc_success_end(struct buffer *buffer);
void xmlrpc_map_begin(struct buffer *buffer, size_t count);
void xmlrpc_map_key(struct buffer *buffer, const char *key, size_t length, bool is_first);
void xmlrpc_map_end(struct buffer *buffer, size_t count);
void xmlrpc_set_begin(struct buffer *buffer, size_t count);
void xmlrpc_set_item(struct buffer *buffer, bool is_first); /* before each item */
void xmlrpc_set_end(struct buffer *buffer, size_t count);
