/* mend.h - documents that no parser takes, made readable so that their sender can be told what is wrong
 *
 * libxml2 and jansson stop at the first byte that is no UTF-8, and then nobody knows which call it was, nor, in JSON, its
 * id. So a document that was refused is read once more from a copy in which all that no text may hold is a mark:
 *
 *     document -> parser: refused -> mend_xml(), mend_json() -> parser again -> mend_unmark() on each text
 *
 * mend_unmark() makes of each mark a byte that is no UTF-8, so that a value which was no text is none again, and whoever
 * looks at texts (args.h) finds it where it stood. Only documents that were refused pay for this. The mark is U+FFFD: a
 * sender's own U+FFFD is taken for one, too, which in a document that is bad anyhow does no harm. */
#pragma once

#include "shared/buffer.h"

#define MEND_MARK "\xef\xbf\xbd"

/* What any of the copies below may take. */
#define MEND_BYTES_MAX(length) (2 * (length) + sizeof MEND_MARK)

/* Write to `out` a copy in which each run of bytes that are no UTF-8, or that XML cannot carry, is one mark, as is each
 * reference to such a character: in XML &#0; or &#xd800;, in JSON \u0000 or half a pair of surrogates. False when there was
 * nothing to mend. */
bool mend_xml(const char *bytes, size_t length, struct buffer *out);
bool mend_json(const char *bytes, size_t length, struct buffer *out);

/* JSON: write a copy in which each array and object that is nested deeper than depth_max is `null`. */
void mend_json_depth(const char *bytes, size_t length, unsigned depth_max, struct buffer *out);

bool mend_has_mark(const char *text, size_t length);

/* Make each mark the byte 0xff, in place; the new length. The text ends in a NUL, before and after. */
size_t mend_unmark(char *text, size_t length);
