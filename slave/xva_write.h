/* xva_write.h - a VM as an XVA: ova.xml and its disks as one stream
 *
 * Source of the form: wire.md section 20. The stream is the same, byte for byte, each time the same
 * disks are exported, so that an export which was interrupted can go on where it was: `skip`. */
#pragma once

#include "slave/compress.h"
#include "slave/disk_io.h"

#define XVA_BLOCK_BYTES 1048576

/* From each multiple of this on a block is sent, also where it is zeros: a sign of life, each 40 s from a disk of zeros that is
 * read at 100 MB/s. Of a TiB of holes 256 MiB are sent; compressed they are a few KiB. */
#define XVA_SIGN_BYTES ((int64_t) 4 << 30)

/* Differs when other bytes are made of the same disks. */
#define XVA_RECIPE "a block each 4 GiB"

struct xva_export_disk {
    const char *prefix; /* "Ref:7", its id in ova.xml */
    struct disk_io *io; /* lent until xva_write() returns */
};

struct xva_export {
    const char *ova; /* text of ova.xml; NULL: disks alone, as the format "tar" of raw disks has them */
    size_t ova_bytes;
    const struct xva_export_disk *disks; /* in any order */
    unsigned disk_count;
    enum compression compression;
    int64_t skip; /* bytes of the stream, as it is sent, that the receiver has already */
};

/* Make the stream; takes as long as disks and sink do, in the caller's thread, and 256 KiB of
 * memory beside what compress.h says. The figures' total is set at once.
 *
 * Returns 0; the negative errno of a disk or of the sink; -ERANGE when the stream is shorter than
 * `skip`. */
int xva_write(const struct xva_export *export, struct sink *sink, struct transfer_figures *figures);
