/* metadata_http.c - where the handlers of metadata are served */
#include "master/metadata_http.h"

#include "master/front.h"
#include "master/metadata_internal.h"

void metadata_serve(struct front *front)
{
    front_add(front, HTTP_GET, "/export_metadata", metadata_export_serve, front);
    front_add(front, HTTP_PUT, "/import_metadata", metadata_import_serve, front);
}
