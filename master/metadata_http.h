/* metadata_http.h - GET /export_metadata and PUT /import_metadata (wire.md sections 19 and 20)
 *
 *   GET  ref or uuid, or all=true; include_dom0, export_snapshots (both true unless told),
 * preserve_power_state, use_compression (true, gzip, zstd), excluded_device_types (vif, vbd, vgpu,
 * vtpm), include_vhd_parents PUT  restore, force, dry_run, vdi:<uuid>=<uuid>; live and check_cpu,
 * which have no effect here
 *
 * Both take a vm-admin. The archive holds ova.xml alone; the disks are found by their uuids. */
#pragma once

#include "shared/base.h"

struct core;
struct front;

void metadata_serve(struct front *);

/* Archives lie in memory while they come and go, and what an import with disks has read of its own as
 * long as those come: how long that takes is up to their clients. So all of them together have
 * METADATA_BYTES_MAX. False: there is no room for so many more bytes now. What was held is let go, by
 * any thread. (Texts and plans of metadata only exist while a worker is at them.) */
#define METADATA_BYTES_MAX ((size_t) 256 << 20)
bool metadata_hold(struct core *, size_t bytes);
void metadata_let_go(struct core *, size_t bytes);
