/* record.h - an object of a view as clients see it
 *
 * Most fields are stored as they are shown. The others are made when they are asked for: inverse
 * sets from the view's indexes, allowed_operations from the rules of lifecycle.h, a session's
 * permissions from its role; secrets of ours (FIELD_SECRET) are shown empty. */
#pragma once

#include "master/store.h"
#include "shared/record.h"

/* One field. */
struct value record_field(const struct view *, const struct object *, const struct field *,
                          struct arena *);

/* A whole record for a codec (codec.h's record()). Without copies: it points to the object and is
 * good as long as the view and the arena. */
struct shown {
    struct record record;
    const struct view *view;
    const struct object *object;
    struct arena *arena;
};
void record_show(struct shown *, const struct view *, const struct object *, struct arena *);

/* The same as one value. Costs memory for each inverse set, so it is for replies of one or few
 * records. */
struct value record_value(const struct view *, const struct object *, struct arena *);
