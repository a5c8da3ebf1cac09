/* derived.h - the messages that every class has: getters, setters, records, listings (wire.md
 * section 9)
 *
 * They have no rows and no handlers of their own; the field or class that the message is about says
 * everything. */
#pragma once

#include "master/call.h"

/* Runs a derived message; its references are live. Returns 0 or a negative error. */
int derived_run(struct call *, const struct method *, const struct value *values,
                struct value *ret);
