/* raw_stream.h - a disk as the plain bytes that a guest sees
 *
 *      raw        all bytes in order, holes as zeros
 *      chunked    records {u64 offset, u32 length, data}, little endian, in any order; {0, 0} ends
 *
 * Both block: for a transfer's own thread. What an import wrote is not synced; that is the caller's. When one fails the
 * disk holds some of the old and some of the new.
 * Source: wire.md section 21. */
#pragma once

#include "slave/disk_io.h"
#include "slave/stream.h"

/* Send the bytes [from, to) of the disk. figures->disk_bytes_done counts them; it may be NULL, here and below. 0 or a
 * negative errno, of the disk or the sink. */
int raw_export(struct disk_io *disk, int64_t from, int64_t to, struct sink *sink, struct transfer_figures *figures);

/* The disk's contents become what comes: zeros follow a body that is shorter than the disk, so that nothing is left of
 * what was there. 0; -EFBIG when more comes than the disk has room for, which is known only when the disk is full; or
 * a negative errno of the disk or the source. ret_text says what was wrong, for people. */
int raw_import(struct disk_io *disk, struct source *source, struct transfer_figures *figures,
               char ret_text[DISK_IO_TEXT_BYTES]);

/* The records are written over what the disk holds; what none of them names stays. 0; -EFBIG for a record that leads
 * outside the disk, of which nothing is written; -EBADMSG when it ends without the last record or goes on after it;
 * or a negative errno of the disk or the source. */
int raw_import_chunked(struct disk_io *disk, struct source *source, struct transfer_figures *figures,
                       char ret_text[DISK_IO_TEXT_BYTES]);
