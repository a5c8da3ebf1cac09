/* dbtext.h - values as the database of XenAPI spells them (wire.md section 9)
 *
 * Filter expressions compare fields in this form, and the XML dump of the database is made of it:
 *
 *   true  42  0.5  Running  OpaqueRef:...  20260801T00:00:00Z  ('a' 'b')  (('k' 'v') ('k2' 'v2'))  () */
#pragma once

#include "shared/buffer.h"
#include "shared/value.h"

/* Appends. Inside sets and maps a quote or a backslash has a backslash before it. */
void dbtext_print(struct buffer *buffer, const struct value *value);
