/* metadata_internal.h - the two handlers of metadata_http.h */
#pragma once

#include "shared/http.h"

void metadata_export_serve(struct http_request *, void *front);
void metadata_import_serve(struct http_request *, void *front);
