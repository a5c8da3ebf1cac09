/* record.h - an object as a codec prints it
 *
 * Stored fields are there as values; inverse sets (VM.VBDs) are derived and belong to nobody, so the codec asks for
 * each when it comes to it. Internal fields are left out, and so is an option without a value (KIND_VOID). */
#pragma once

#include "shared/value.h"

struct class;
struct field;

struct record {
    const struct class *class;
    const struct value *fields; /* class->field_count; FIELD_INVERSE ones are asked for when they are KIND_VOID */
    /* The set of a FIELD_INVERSE field; its items need to live until the next question. NULL: all are empty. */
    struct value (*inverse)(void *context, const struct field *field);
    void *context;
};
