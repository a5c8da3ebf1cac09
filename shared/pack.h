/* pack.h - values <-> MessagePack: the binary form of SQLite, Redis and the link between master and slaves
 *
 *   string, enum   str: an enum is its text, so that versions may mix      set      array
 *   int, datetime  int                                                     map      map
 *   float          float 64                                                record   map by field name
 *   bool           bool                                                    void     nil
 *   ref            bin of 16 bytes, high word first; the null reference is a bin of 0 bytes
 *
 * Only references are bin, so they are known without a type. Datetimes, enums and records come back as such when
 * the reader states the type; without it they are ints, strings and maps. A record's unknown members are skipped and
 * its missing ones initial: fields may come and go while versions mix.
 *
 * The bytes are read by our own hand, not by msgpack-c: it makes room for as many items as a header claims, stops at
 * a depth of 32, and its tree would have to be walked once more to become values. The test reads and writes the
 * same bytes with msgpack-c. */
#pragma once

#include "shared/buffer.h"
#include "shared/value.h"

struct arena;
struct type;

#define PACK_DEPTH_MAX 64

/* ---- writing ---- */

void pack_value(struct buffer *buffer, const struct value *value);

/* Parts of a message that is put together: a header, then so many items or pairs. */
void pack_map(struct buffer *buffer, uint32_t pairs);
void pack_array(struct buffer *buffer, uint32_t items);
void pack_text(struct buffer *buffer, const char *text);
void pack_int(struct buffer *buffer, int64_t number);
void pack_ref(struct buffer *buffer, ref_t ref);

/* ---- reading: 0, or -1 for bytes that are no such value ---- */

/* Exactly one value. `type` may be NULL. Texts and items are copied to the arena; its limit is kept, and whatever
 * the bytes claim, no more than 24 bytes are taken for each of theirs. */
int unpack_value(const void *bytes, size_t count, const struct type *type, struct arena *arena, struct value *ret);

/* Several values one after the other. */
struct unpack {
    const uint8_t *at, *end;
    struct arena *arena;
    size_t items_left; /* how many items the bytes can still hold */
};
void unpack_init(struct unpack *unpack, const void *bytes, size_t count, struct arena *arena);
int unpack_next(struct unpack *unpack, const struct type *type, struct value *ret);
/* The header of a map or an array whose items are then read one by one. */
int unpack_map(struct unpack *unpack, uint32_t *ret_pairs);
int unpack_array(struct unpack *unpack, uint32_t *ret_items);
