/* jsonrpc.h - values <-> JSON-RPC text, versions 1.0 and 2.0 (wire.md section 3)
 *
 * jansson reads: repeated members are refused, integers are exact 64 bits. Its tree costs some forty bytes for two
 * bytes of text, so depth and values are counted before it sees the text. Writing is by hand: integers and floats
 * are JSON numbers, references and datetimes strings, void is "", and what no JSON number can say (infinity, not a
 * number) is null. */
#pragma once

#include "shared/buffer.h"
#include "shared/record.h"
#include "shared/value.h"

struct arena;
struct failure;

#define JSONRPC_DEPTH_MAX  66     /* of the text: 64 values inside values, the params array, the call */
#define JSONRPC_VALUES_MAX 262144

/* ---- reading ---- */

struct jsonrpc_call {
    const char *method;
    const struct value *params;
    unsigned param_count;
    bool is_version_2;
    struct value id;          /* a string or an int, for the reply */
    const char *bad_text;     /* a string of the parameters that is no UTF-8, as it stands there; else NULL */
    const char *fault;        /* what makes the parameters worthless; else NULL */
};

/* 0, or -1 and the reason in plain text. Everything lives in the arena; a limit set there is kept.
 *
 * A text that is a call but for characters that no text may hold (mend.h), or for values nested too deeply, is a call
 * with `bad_text` or `fault`, so that its client can be told. */
int jsonrpc_parse_call(const char *bytes, size_t length, struct arena *arena, struct jsonrpc_call *ret,
                       const char **ret_reason);

/* ---- writing ---- */

void jsonrpc_value(struct buffer *buffer, const struct value *value);
void jsonrpc_record(struct buffer *buffer, const struct record *record);

/* Whole replies, in the version of the call. */
void jsonrpc_reply_success(struct buffer *buffer, const struct jsonrpc_call *call, const struct value *value);
void jsonrpc_reply_failure(struct buffer *buffer, const struct jsonrpc_call *call, const struct failure *failure);
/* An error raised before dispatch (slave emergency mode): `error` a plain array, id 0, whatever was asked. */
void jsonrpc_reply_early_failure(struct buffer *buffer, const struct failure *failure);

/* A reply in pieces; see xmlrpc.h. */
void jsonrpc_success_begin(struct buffer *buffer, const struct jsonrpc_call *call);
void jsonrpc_success_end(struct buffer *buffer, const struct jsonrpc_call *call);
void jsonrpc_map_begin(struct buffer *buffer, size_t count);
void jsonrpc_map_key(struct buffer *buffer, const char *key, size_t length, bool is_first);
void jsonrpc_map_end(struct buffer *buffer, size_t count);
void jsonrpc_set_begin(struct buffer *buffer, size_t count);
void jsonrpc_set_item(struct buffer *buffer, bool is_first);
void jsonrpc_set_end(struct buffer *buffer, size_t count);
