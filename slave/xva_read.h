/* xva_read.h - an XVA on its way in: ova.xml, then the disks
 *
 * In two steps, for the disks have to be made in between from what ova.xml says:
 *
 *     reader = xva_reader_new(source, figures);
 *     r = xva_read_ova(reader, &text, &bytes);
 *     ...                                               disks are made, empty
 *     r = xva_read_disks(reader, &import);              or xva_read_chunks(): appliance version 0.1
 *     if (r < 0) xva_reader_error(reader)               what to tell the client
 *     xva_reader_destroy(&reader);
 *
 * Source of the form and of the errors: wire.md section 20. Everything that comes is foreign. Names
 * are compared with what is expected and never used for anything else, so a path that leads
 * elsewhere is just an unexpected file; so are links, devices and directories. Memory is 1 MiB and
 * what decompress.h says, whatever comes; what is unpacked is bounded by the disks' sizes.
 *
 * Results are 0 or a negative errno. With -EBADMSG, and -EPIPE when the source ended too early, the
 * error says more; other errors are those of the source (-ECANCELED ...) and of the disks (-ENOSPC,
 * -EIO ...), and pass unchanged. */
#pragma once

#include "slave/disk_io.h"
#include "slave/stream.h"

#define XVA_OVA_BYTES_MAX (16 * 1024 * 1024)
#define XVA_ERROR_PARAMS  2
#define XVA_ERROR_BYTES   512

/* For failure_set_text(). */
struct xva_error {
    const char *code; /* "IMPORT_ERROR_PREMATURE_EOF"; NULL: it is not the archive's fault */
    unsigned count;
    char params[XVA_ERROR_PARAMS][XVA_ERROR_BYTES]; /* may repeat foreign bytes */
    char where[XVA_ERROR_BYTES]; /* for the log, since most codes have no room for it: the member that
                                    was read last, or the disk that did not come; "": none was yet */
};

struct xva_import_disk {
    const char *prefix; /* "Ref:7", as in ova.xml; of a legacy archive the directory's name */
    struct disk_io
        *io; /* new, reads as zeros; lent, and used by another thread until the call returns */
    int64_t bytes; /* that the archive has to bring; at most the disk's size */
};

struct xva_import {
    const struct xva_import_disk *disks; /* prefixes differ */
    unsigned count;
    int export_vsn; /* of ova.xml: 2 today; below that the archive ends with a table of checksums */
    bool force;     /* wrong checksums are counted, not refused */
};

/* What ova.xml of several readers may take together; any thread. */
struct xva_budget {
    _Atomic int64_t bytes_left;
};

struct xva_reader;

/* The source is lent until the end. The figures count from now on. */
struct xva_reader *xva_reader_new(struct source *source, struct transfer_figures *figures);
/* Its text is within this budget, which outlives the reader; without one only XVA_OVA_BYTES_MAX bounds it. */
void xva_reader_share(struct xva_reader *reader, struct xva_budget *budget);
void xva_reader_destroy(struct xva_reader **reader_p);
const struct xva_error *xva_reader_error(const struct xva_reader *reader);

/* The first member, which has to be ova.xml. The text is the reader's, not 0-terminated. -ENOBUFS: others have the budget. */
int xva_read_ova(struct xva_reader *reader, const char **ret_text, size_t *ret_bytes);
/* The text is not wanted any more. */
void xva_forget_ova(struct xva_reader *reader);

/* All the rest, up to the end of the archive; then the disks are on their media. */
int xva_read_disks(struct xva_reader *reader, const struct xva_import *import);
int xva_read_chunks(struct xva_reader *reader, const struct xva_import *import);

/* Checksums that were wrong, under force. */
uint64_t xva_wrong_checksums(const struct xva_reader *reader);
