/* templates.h - the built-in templates (wire.md section 26) */
#pragma once

#include "master/handler.h"

/* Makes those that are missing, by name; one that stands is left as its owner made it. Returns how
 * many were made. */
int templates_create(struct call *, struct txn *);
