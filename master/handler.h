/* handler.h - what the classes' handlers share: live objects, writes of one field, objects in the
 * making
 *
 * Handlers that change one field and have no rule of their own are one line each, made by SETTER.
 * Those that make an object start from a draft: a struct object in the call's arena that no store
 * knows, so that the typed readers work on it before it exists. */
#pragma once

#include "master/call.h"
#include "master/core.h"
#include "master/limits.h"
#include "master/put.h"
#include "master/store.h"

/* The object, or NULL: then the call has failed with HANDLE_INVALID [class, ref], and the handler
 * returns -ERR_HANDLE_INVALID. Dispatch has looked at references among the parameters, but not at
 * those in records, nor again after the handler has waited. */
const struct object *live_object(struct call *, const struct view *, const struct class *, ref_t);
#define live(call, view, class, ref) live_object((call), (view), CLASS_OF(class), (ref))

/* ---- one field in a transaction of its own ---- */

int field_set(struct call *, const struct class *, ref_t, int field, struct value);
/* A number from 0 to `most`, else -ERR_INVALID_VALUE [field, value]. */
int field_set_within(struct call *, const struct class *, ref_t, int field, int64_t value,
                     int64_t most);
/* A key that stands already is -ERR_MAP_DUPLICATE_KEY; one that is missing is removed with success.
 */
int field_add_to(struct call *, const struct class *, ref_t, int field, struct value key,
                 struct value);
int field_remove_from(struct call *, const struct class *, ref_t, int field, struct value key);
/* Members of a set; neither a present nor an absent one is an error. */
int field_add(struct call *, const struct class *, ref_t, int field, struct value member);
int field_remove(struct call *, const struct class *, ref_t, int field, struct value member);

/* A setter that only stores: SETTER (VM, order, self, VALUE_INT). `subject` is the name of the
 * first parameter. */
#define SETTER(class_, name, subject, VALUE_OF)                                               \
    int class_##_set_##name(struct call *call, const struct class_##_set_##name##_args *args, \
                            struct value *ret)                                                \
    {                                                                                         \
        (void) ret;                                                                           \
        return field_set(call, CLASS_OF(class_), args->subject, F_##class_##_##name,          \
                         VALUE_OF(args->value));                                              \
    }
#define VALUE_GIVEN(x) (*(x))
/* The same for a number from 0 to `most`. */
#define SETTER_WITHIN(class_, name, subject, most)                                            \
    int class_##_set_##name(struct call *call, const struct class_##_set_##name##_args *args, \
                            struct value *ret)                                                \
    {                                                                                         \
        (void) ret;                                                                           \
        return field_set_within(call, CLASS_OF(class_), args->subject, F_##class_##_##name,   \
                                args->value, (most));                                         \
    }

/* ---- drafts ---- */

/* All fields have their initial values; their texts and items stay where they are. */
struct object *draft_new(struct arena *, const struct class *);
/* From a constructor's record, or of another object: without ref and uuid. */
struct object *draft_of(struct arena *, const struct class *, const struct value *fields);
/* Makes the object with a new ref and, unless the draft has one, a new uuid; returns the ref. */
ref_t draft_create(struct call *, struct txn *, struct object *draft);

/* A map of texts in the arena, from pairs that end with NULL: text_map(arena, "a", "1", NULL). */
struct value text_map(struct arena *, ...) __attribute__((sentinel));
struct value text_set(struct arena *, ...) __attribute__((sentinel));
struct value map_with_text(struct arena *, const struct value *map, const char *key,
                           const char *value);
struct value map_without_text(struct arena *, const struct value *map, const char *key);

/* A new random uuid as text in the arena. */
const char *uuid_new_text(struct call *);
/* Is the text a uuid that no object of the class has? A new one for empty text. 0 and the canonical
 * text, or -ERR_INVALID_VALUE ["uuid", text]. */
int uuid_wanted(struct call *, const char *text, const char **ret_uuid);

/* The one pool object, or NULL before the pool is made. */
const struct object *pool_object(const struct view *);
