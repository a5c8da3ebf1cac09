/* listing.h - replies that are written piece by piece: get_all_records of ten thousand
 * VMs, a first event.from
 *
 * Such a reply is never one value in memory. The handler leaves a listing in the call; front.c asks
 * it for pieces, each appended to a buffer, until it has a whole small reply or, beyond a limit,
 * while the socket drains. A listing reads from the call's pinned view and lives in the call's
 * arena. */
#pragma once

#include "master/call.h"
#include "shared/buffer.h"
#include "shared/record.h"

/* How values are spelled: xmlrpc.h's and jsonrpc.h's functions of the same names. */
struct writer {
    void (*value)(struct buffer *, const struct value *);
    void (*record)(struct buffer *, const struct record *);
    void (*map_begin)(struct buffer *, size_t count);
    void (*map_key)(struct buffer *, const char *key, size_t length, bool is_first);
    void (*map_end)(struct buffer *, size_t count);
    void (*set_begin)(struct buffer *, size_t count);
    void (*set_item)(struct buffer *, bool is_first);
    void (*set_end)(struct buffer *, size_t count);
};
extern const struct writer writer_xmlrpc, writer_jsonrpc;

struct listing {
    /* Append some more of the value, about one item; false after the last. `scratch` may be reset
     * between two calls. */
    bool (*next)(struct listing *, const struct writer *, struct buffer *out,
                 struct arena *scratch);
};

/* Helpers: a member of a map in the making. */
void write_key(const struct writer *, struct buffer *, const char *name, bool is_first);
void write_text(const struct writer *, struct buffer *, const char *text);

/* The derived listings. Objects of a class that match the filter (NULL: all), as a set of refs or a
 * map from ref to record. */
struct filter;
struct listing *listing_objects(struct arena *, const struct view *, const struct class *,
                                const struct filter *, bool with_records);
/* Refs of those with a name_label. */
struct listing *listing_named(struct arena *, const struct view *, const struct class *,
                              const char *name_label);
