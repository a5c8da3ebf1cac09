/* blob_http.h - GET and PUT /blob (wire.md section 19)
 *
 *   GET  ref or uuid     what the blob holds, with its length and type; read-only, and of a public
 *                        blob anybody
 *   PUT  ref or uuid     new contents, all or nothing; Content-Length is needed; vm-power-admin
 *
 * The reference page is docs/blobs.md. */
#pragma once

struct front;

void blob_serve(struct front *);
