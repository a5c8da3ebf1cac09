/* ova_archive.h - the tar archive of an export of metadata: one member, ova.xml (wire.md section
 * 20)
 *
 * Whole in memory, since the text is bounded (OVA_BYTES_MAX). Both functions compute for long: from
 * a worker. */
#pragma once

#include "shared/buffer.h"

struct arena;
struct failure;

enum ova_compression { OVA_PLAIN, OVA_GZIP, OVA_ZSTD };

/* Append the archive to `out`. The same text gives the same bytes. 0 or -ERR_INTERNAL_ERROR [text].
 */
int ova_pack(const char *text, size_t length, enum ova_compression, struct buffer *out,
             struct arena *, struct failure *);

/* Append the text of ova.xml to `out`, at most as much as that may hold. The archive may be
 * compressed, whatever its sender said. 0, -ERR_IMPORT_ERROR_UNEXPECTED_FILE ["ova.xml", found],
 * -ERR_IMPORT_ERROR_PREMATURE_EOF, -ERR_IMPORT_ERROR [text]. */
int ova_unpack(const char *bytes, size_t length, struct buffer *out, struct arena *,
               struct failure *);
