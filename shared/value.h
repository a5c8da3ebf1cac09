/* value.h - one value of the API: what codecs read and write, fields hold, and calls take and return.
 *
 * A value is 24 bytes and describes itself, so a codec needs no schema to print it. It owns nothing: text,
 * items and fields point into the memory of whoever made it - the arena of a call, or the packed block of a
 * stored field (value_pack).
 *
 *   KIND_STRING    text, length bytes of valid UTF-8 without NUL, and a NUL behind them
 *   KIND_INT       i            KIND_FLOAT  f           KIND_BOOL  b
 *   KIND_DATETIME  i, seconds since 1970 UTC; 0 is the API's "never"
 *   KIND_ENUM      e, the enum's rows and an index into them
 *   KIND_REF       ref
 *   KIND_SET       length items
 *   KIND_MAP       length pairs: items[2 i] is a key, items[2 i + 1] its value
 *   KIND_RECORD    a record of a class: record.fields[i] for each of record.class's fields
 *   KIND_VOID      nothing; the result of a call without one
 *   KIND_NIL       XML-RPC nil, JSON null; only from clients
 *
 * What a parser makes of a client's text knows no schema yet: XML-RPC structs and JSON objects are maps with
 * string keys, references and enums are strings, and integers may be strings. A string may even be no valid text (mend.h).
 * args_bind() gives them types. */
#pragma once

#include "shared/base.h"
#include "shared/ref.h"

struct arena;
struct class;
struct enum_type;

enum kind {
    KIND_VOID,
    KIND_NIL,
    KIND_STRING,
    KIND_INT,
    KIND_FLOAT,
    KIND_BOOL,
    KIND_DATETIME,
    KIND_ENUM,
    KIND_REF,
    KIND_SET,
    KIND_MAP,
    KIND_RECORD,
};

struct value {
    uint8_t kind;    /* enum kind */
    bool is_packed;  /* text or items start a block of their own, which value_unpack() frees */
    bool is_i4;      /* an int that XML-RPC prints as a real <i4>, not as text; only valid_ref_counts of event.from */
    uint32_t length; /* bytes of text; items of a set; pairs of a map */
    union {
        const char *text;
        int64_t i;
        double f;
        bool b;
        ref_t ref;
        const struct value *items;
        struct {
            const struct enum_type *type;
            int index;
        } e;
        struct {
            const struct class *class;
            const struct value *fields;
        } record;
    };
};

#define VALUE_VOID          ((struct value){.kind = KIND_VOID})
#define VALUE_INT(x)        ((struct value){.kind = KIND_INT, .i = (x)})
#define VALUE_FLOAT(x)      ((struct value){.kind = KIND_FLOAT, .f = (x)})
#define VALUE_BOOL(x)       ((struct value){.kind = KIND_BOOL, .b = (x)})
#define VALUE_DATETIME(x)   ((struct value){.kind = KIND_DATETIME, .i = (x)})
#define VALUE_REF(x)        ((struct value){.kind = KIND_REF, .ref = (x)})
#define VALUE_ENUM(t, x)    ((struct value){.kind = KIND_ENUM, .e = {&enum_type_##t, (x)}})
#define VALUE_SET(n, x)     ((struct value){.kind = KIND_SET, .length = (n), .items = (x)})
#define VALUE_MAP(n, x)     ((struct value){.kind = KIND_MAP, .length = (n), .items = (x)})
#define VALUE_EMPTY_SET     VALUE_SET(0, NULL)
#define VALUE_EMPTY_MAP     VALUE_MAP(0, NULL)

/* The text stays the caller's. */
struct value value_text(const char *text);

bool value_equal(const struct value *a, const struct value *b);

/* Order of two values of one kind: for sorted sets and map keys. */
int value_compare(const struct value *a, const struct value *b);

/* An item that stands more than once among `count` items, one each `step` values (1 for a set, 2 for a map's
 * keys); NULL when all differ. Quick for many items too: they may come from a client. */
const struct value *value_find_repeated(const struct value *items, uint32_t count, uint32_t step);

/* A deep copy in the arena. */
struct value value_copy(struct arena *arena, const struct value *value);

/* A deep copy in one malloc'd block (none for scalars and for empty text, sets and maps); value_unpack frees
 * it. Packed values are never nested in packed values: sub-values point into the same block. */
struct value value_pack(const struct value *value);
void value_unpack(struct value *value);
size_t value_packed_bytes(const struct value *value);

/* Maps with string keys: the value of a key, or NULL. */
const struct value *value_map_find(const struct value *map, const char *key);
/* Its text, or `otherwise` when the key is missing or its value is no string. */
const char *value_map_text(const struct value *map, const char *key, const char *otherwise);
/* New maps in the arena, keys keep their place; with() replaces or appends, without() of a missing key is a copy. */
struct value value_map_with(struct arena *arena, const struct value *map, const struct value *key,
                            const struct value *value);
struct value value_map_without(struct arena *arena, const struct value *map, const struct value *key);
bool value_set_has(const struct value *set, const struct value *item);
struct value value_set_with(struct arena *arena, const struct value *set, const struct value *item);
struct value value_set_without(struct arena *arena, const struct value *set, const struct value *item);

/* Is the text valid UTF-8 (RFC 3629) without NUL; and moreover of characters that XML 1.0 can carry? */
bool text_is_utf8(const char *text, size_t length);
bool text_is_xml(const char *text, size_t length);
/* How many bytes from the start are so. */
size_t text_good_length(const char *text, size_t length, bool is_xml);

/* Datetimes, wire.md section 2: printed YYYYMMDDTHH:MM:SSZ; read with or without separators, with Z, an
 * offset or nothing (UTC), fractions dropped. Returns false for other text or impossible dates. */
#define DATETIME_TEXT_BYTES 24
char *datetime_print(char out[DATETIME_TEXT_BYTES], int64_t utc_s);
bool datetime_parse(const char *text, size_t length, int64_t *ret_utc_s);
