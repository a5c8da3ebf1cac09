/* ref.h - object references and uuids: 128 bits, passed by value, owned by nobody.
 *
 * On the wire a reference is the text "OpaqueRef:" and a lower-case uuid; the null reference is
 * "OpaqueRef:NULL". Any other text a client sends names no object of ours: it is answered with
 * HANDLE_INVALID and that very text, so it never needs to be stored. (wire.md section 8) */
#pragma once

#include "shared/base.h"

struct random;

typedef struct {
    uint64_t hi, lo;
} ref_t;

#define NULL_REF         ((ref_t){0, 0})
#define UUID_TEXT_BYTES  37 /* 36 characters and NUL */
#define REF_TEXT_BYTES   (10 + UUID_TEXT_BYTES) /* "OpaqueRef:" before them */

static inline bool ref_is_null(ref_t ref)
{
    return ref.hi == 0 && ref.lo == 0;
}

static inline bool ref_equal(ref_t a, ref_t b)
{
    return a.hi == b.hi && a.lo == b.lo;
}

static inline int ref_compare(ref_t a, ref_t b)
{
    if (a.hi != b.hi)
        return a.hi < b.hi ? -1 : 1;
    return a.lo < b.lo ? -1 : a.lo > b.lo;
}

/* A new version 4 uuid (RFC 4122). */
ref_t ref_new(struct random *random);

/* Text forms; return their argument `out`. */
char *ref_print(char out[REF_TEXT_BYTES], ref_t ref);
char *uuid_print(char out[UUID_TEXT_BYTES], ref_t uuid);

/* Strict: exactly the canonical text (null too). The all-zero uuid is refused, since it is our null.
 * Returns false, *ret untouched, for any other text. */
bool ref_parse(const char *text, size_t length, ref_t *ret);

/* A uuid in either case, as clients type it; the value is canonical. */
bool uuid_parse(const char *text, size_t length, ref_t *ret);
