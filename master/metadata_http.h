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

/* What lies in memory for as long as a client or the disk likes: archives while they come and go, texts
 * that are out of their archives, plans that were read from them - those of imports with disks as long as
 * the disks come. All of them together have METADATA_BYTES_MAX. False: there is no room for so many more
 * bytes now. What was held is let go, by any thread. Not counted is what each worker is making just now:
 * at most a text and a plan (OVA_READ_BYTES_MAX, OVA_READ_ARENA_MAX; for exports OVA_BYTES_MAX twice). */
#define METADATA_BYTES_MAX ((size_t) 256 << 20)
bool metadata_hold(struct core *, size_t bytes);
void metadata_let_go(struct core *, size_t bytes);
