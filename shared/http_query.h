/* http_query.h - what a request asks for by name: its query and its cookies as one map of texts (wire.md section 19)
 *
 * For handlers whose parameters travel on, from a slave to the master, or into records: so they are bounded in number, and what
 * no record could hold is nobody's parameter. */
#pragma once

#include "shared/arena.h"
#include "shared/http.h"
#include "shared/value.h"

/* Query parameters and cookies together: several times what any handler knows. */
#define HTTP_QUERY_MAX 128

/* On the request's loop: name -> text, copied to the arena. A cookie goes over a parameter of its name; of several the first
 * counts. False, and no map: there are more than HTTP_QUERY_MAX, or one has characters that XML does not know. */
bool http_query_map(struct http_request *, struct arena *, struct value *ret);

/* Answers a request of which http_query_map() had none: 400. */
void http_query_refuse(struct http_request *);
