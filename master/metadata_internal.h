/* metadata_internal.h - the two handlers of metadata_http.h, and the memory that they may have */
#pragma once

#include "shared/http.h"

struct core;

void metadata_export_serve(struct http_request *, void *front);
void metadata_import_serve(struct http_request *, void *front);

/* Archives lie in memory while they come and go, and how long that takes is up to their clients: so
 * all of them together have METADATA_BYTES_MAX. False: there is no room for so many more bytes now.
 * What was held is let go, by any thread. (Texts and plans only exist while a worker is at them.) */
#define METADATA_BYTES_MAX ((size_t) 256 << 20)
bool metadata_hold(struct core *, size_t bytes);
void metadata_let_go(struct core *, size_t bytes);
