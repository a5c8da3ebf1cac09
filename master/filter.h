/* filter.h - the expressions of get_all_where and get_all_records_where (wire.md section 9)
 *
 *   (field "uuid"="X") or not (field "name__label"="Y" and field "is_a_template"="true")
 *
 * Fields go by their wire or database names; what is compared is the database's text of it. */
#pragma once

#include "master/store.h"
#include "shared/failure.h"

struct filter;

#define FILTER_BYTES_MAX 65536 /* nobody types more; what is parsed grows with it */
#define FILTER_DEPTH_MAX 100   /* parentheses and `not` inside each other */

/* 0 and the expression, which lives in the arena; or -ERR_INVALID_VALUE [expression, reason]. */
int filter_parse(const char *text, const struct class *, struct arena *, struct filter **ret,
                 struct failure *);

/* `scratch` may be reset after each object. */
bool filter_matches(const struct filter *, const struct view *, const struct object *,
                    struct arena *scratch);

/* The uuid that an object must have to match, or NULL when the expression does not say: then all
 * have to be tried. */
const char *filter_uuid(const struct filter *);
