/* metadata_http.h - GET /export_metadata and PUT /import_metadata (wire.md sections 19 and 20)
 *
 *   GET  ref or uuid, or all=true; include_dom0, export_snapshots (both true unless told),
 * preserve_power_state, use_compression (true, gzip, zstd), excluded_device_types (vif, vbd, vgpu,
 * vtpm), include_vhd_parents PUT  restore, force, dry_run, vdi:<uuid>=<uuid>; live and check_cpu,
 * which have no effect here
 *
 * Both take a vm-admin. The archive holds ova.xml alone; the disks are found by their uuids. */
#pragma once

struct front;

void metadata_serve(struct front *);
