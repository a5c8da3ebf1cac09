/* lifecycle_rules.h - the rules of each class, inside lifecycle*.c */
#pragma once

#include "master/lifecycle.h"

#include "shared/arena.h"

/* One question: may this operation begin on this object? */
struct check {
    const struct view *view;
    const struct object *object;
    int operation;
    bool is_strict;
    struct arena *arena;
    struct failure *failure;
};

int check_VM(struct check *);
int check_VBD(struct check *);
int check_VIF(struct check *);
int check_VDI(struct check *);
int check_SR(struct check *);
int check_host(struct check *);
int check_pool(struct check *);

/* May the operation appear in VM.allowed_operations at all? */
bool vm_operation_is_listed(int operation);

/* Are allowed_operations of the object, which is the same in both views, others in `b` than in `a`? Of a class with rules. */
bool allowed_operations_differ(const struct view *a, const struct view *b, const struct object *);
/* Has the SR a PBD that is attached? */
bool sr_is_attached(const struct view *, ref_t sr);

/* The refusal and its details. Without an arena only the answer no is wanted, and no details are
 * made. */
#define refuse(check, code, ...)                                                         \
    ((check)->arena ? failure_set((check)->failure, (check)->arena, code, ##__VA_ARGS__) \
                    : -ERR_##code)
/* For codes that the reference table of errors does not list. */
#define refuse_unlisted(check, code, count, ...)                                       \
    ((check)->arena ? failure_set_text((check)->failure, (check)->arena, code, count,  \
                                       (const char *const[]){NULL, ##__VA_ARGS__} + 1) \
                    : -ERR_NONE_)

/* Texts for details. */
const char *check_ref(struct check *, ref_t);
const char *check_self(struct check *);
const char *operation_text(const struct enum_type *, int operation);

/* -ERR_OTHER_OPERATION_IN_PROGRESS [class, ref, operations, tasks] for what the object's
 * current_operations hold; several are written {a<separator>b}. */
int refuse_busy(struct check *, const struct object *, const char *separator);
/* The object's current_operations: a map of tag -> operation. */
const struct value *operations_of(const struct object *);
