/* subscription.h - what a reader of events wants, and what of it has happened since a generation
 *
 * Events are no queue: what a reader is told is the difference between two generations, each object
 * at most once (wire.md section 7). So a slow reader costs nothing, and nobody can be told of a
 * generation that is not visible. */
#pragma once

#include "master/store.h"
#include "shared/failure.h"

struct wanted_object {
    const struct class *class;
    ref_t ref;
};

struct subscription {
    uint64_t classes[2]; /* wanted whole; a bit per class number */
    unsigned object_count;
    const struct wanted_object *objects; /* of classes that are not wanted whole */
};

#define SUBSCRIPTION_OBJECTS_MAX 10000

/* From the elements "*", "class" and "class/ref", classes in any case. Lives in the arena.
 * Returns 0 or -ERR_EVENT_SUBSCRIPTION_PARSE_FAILURE [element]. */
int subscription_parse(const struct value *elements, struct arena *, struct subscription *ret,
                       struct failure *);

static inline bool class_in(const uint64_t mask[2], const struct class *class)
{
    return mask[class->number / 64] >> class->number % 64 & 1;
}

static inline void class_add(uint64_t mask[2], const struct class *class)
{
    mask[class->number / 64] |= 1ull << class->number % 64;
}

/* Is a deletion that the subscription would have told forgotten by now? Then the reader has to read
 * everything. */
bool subscription_missed(const struct subscription *, const struct view *, uint64_t after);

/* ---- what has happened ---- */

enum happening { HAPPENED_ADD, HAPPENED_MOD, HAPPENED_DEL };
extern const char *const happening_names[];

struct happened {
    enum happening what;
    const struct class *class;
    ref_t ref;
    const struct object *object; /* as it is in the view; NULL for HAPPENED_DEL */
    uint64_t generation;
};

/* All of it, in the order of generations. */
struct source;
struct happenings {
    const struct view *view;
    uint64_t after;
    struct source *sources;
    unsigned count;
};

/*   after    tell what came later than this generation; 0: every object, as added
 *   among    only changes of these classes, or NULL: the others are known not to have changed */
void happenings_begin(struct happenings *, struct arena *, const struct view *,
                      const struct subscription *, uint64_t after, const uint64_t among[2]);
bool happenings_next(struct happenings *, struct happened *ret);
