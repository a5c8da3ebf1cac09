/* metadata_http.c - where the handlers of metadata are served, and the memory that they may have */
#include "master/metadata_http.h"

#include <stdatomic.h>

#include "master/core.h"
#include "master/front.h"
#include "master/metadata_internal.h"

bool metadata_hold(struct core *core, size_t bytes)
{
    if (atomic_fetch_add(&core->metadata_bytes, bytes) + bytes <= METADATA_BYTES_MAX)
        return true;
    metadata_let_go(core, bytes);
    return false;
}

void metadata_let_go(struct core *core, size_t bytes)
{
    atomic_fetch_sub(&core->metadata_bytes, bytes);
}

void metadata_serve(struct front *front)
{
    front_add(front, HTTP_GET, "/export_metadata", metadata_export_serve, front);
    front_add(front, HTTP_PUT, "/import_metadata", metadata_import_serve, front);
}
