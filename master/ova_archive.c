/* ova_archive.c - the tar archive of an export of metadata, by libarchive
 *
 * Only tar is let in: libarchive reads much more, and what arrives here is foreign. How it is
 * compressed is for decompress.h, whose memory is bounded; what a small archive unpacks to is bounded
 * by the buffer it goes to. */
#include "master/ova_archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>

#include "shared/arena.h"
#include "shared/decompress.h"
#include "shared/failure.h"

#define NAME        "ova.xml"
#define PIECE_BYTES 65536

static void reader_free(struct archive **archive)
{
    archive_read_free(*archive);
}

static void writer_free(struct archive **archive)
{
    archive_write_free(*archive);
}

static void entry_free(struct archive_entry **entry)
{
    archive_entry_free(*entry);
}

static const char *reason(struct archive *archive)
{
    const char *text = archive_error_string(archive);

    return text ? text : "the archive cannot be used";
}

/* ---- written ---- */

static la_ssize_t append(struct archive *archive, void *out, const void *bytes, size_t length)
{
    (void) archive;
    buffer_add(out, bytes, length);
    return ((struct buffer *) out)->is_full ? -1 : (la_ssize_t) length;
}

static bool write_archive(struct archive *archive, struct archive_entry *entry, const char *text,
                          size_t length, enum ova_compression compression, struct buffer *out)
{
    if (archive_write_set_format_ustar(archive) != ARCHIVE_OK
        || (compression == OVA_GZIP && archive_write_add_filter_gzip(archive) != ARCHIVE_OK)
        || (compression == OVA_ZSTD && archive_write_add_filter_zstd(archive) != ARCHIVE_OK))
        return false;
    if (compression == OVA_GZIP) /* when it was made is not part of it */
        archive_write_set_filter_option(archive, "gzip", "timestamp", NULL);
    archive_write_set_bytes_per_block(archive, PIECE_BYTES);
    archive_write_set_bytes_in_last_block(archive, 1);
    archive_entry_set_pathname(entry, NAME);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_mtime(entry, 0, 0);
    archive_entry_set_size(entry, (la_int64_t) length);
    return archive_write_open(archive, out, NULL, append, NULL) == ARCHIVE_OK
           && archive_write_header(archive, entry) == ARCHIVE_OK
           && archive_write_data(archive, text, length) == (la_ssize_t) length
           && archive_write_close(archive) == ARCHIVE_OK;
}

int ova_pack(const char *text, size_t length, enum ova_compression compression, struct buffer *out,
             struct arena *arena, struct failure *failure)
{
    _cleanup_(entry_free) struct archive_entry *entry = archive_entry_new();
    _cleanup_(writer_free) struct archive *archive = archive_write_new();

    if (!entry || !archive)
        die("out of memory");
    if (!write_archive(archive, entry, text, length, compression, out))
        return failure_set(failure, arena, INTERNAL_ERROR, reason(archive));
    return 0;
}

/* ---- read ---- */

struct unpacking {
    struct source packed;  /* the bytes that are in memory */
    const char *bytes;     /* of them, not read yet */
    size_t length;
    struct source *source; /* unpacked */
    struct archive *archive;
    int result;            /* what the source refused with, or 0 */
};

static ssize_t read_packed(struct source *source, const void **ret_bytes)
{
    struct unpacking *unpacking = CONTAINER_OF(source, struct unpacking, packed);
    size_t length = unpacking->length;

    *ret_bytes = unpacking->bytes;
    unpacking->length = 0;
    return (ssize_t) length;
}

static la_ssize_t read_unpacked(struct archive *archive, void *arg, const void **ret_bytes)
{
    struct unpacking *unpacking = arg;
    ssize_t n = unpacking->source->read(unpacking->source, ret_bytes);

    if (n >= 0)
        return n;
    unpacking->result = (int) n;
    archive_set_error(archive, (int) -n, "the source failed");
    return -1;
}

/* Why no more is read; `is_within`: of ova.xml some bytes are missing. */
static int unpack_failed(struct unpacking *unpacking, bool is_within, struct arena *arena, struct failure *failure)
{
    switch (unpacking->result) {
    case -E2BIG:
        return failure_set(failure, arena, IMPORT_ERROR, DECOMPRESS_WINDOW_TEXT);
    case -EBADMSG:
        return failure_set(failure, arena, IMPORT_ERROR, "the compressed data is damaged");
    case -EPIPE:
        return failure_set(failure, arena, IMPORT_ERROR_PREMATURE_EOF);
    default:
        return is_within ? failure_set(failure, arena, IMPORT_ERROR_PREMATURE_EOF)
                         : failure_set(failure, arena, IMPORT_ERROR, reason(unpacking->archive));
    }
}

static int read_member(struct unpacking *unpacking, struct buffer *out, struct arena *arena,
                       struct failure *failure)
{
    for (;;) {
        char *at = buffer_reserve(out, PIECE_BYTES);
        la_ssize_t got = at ? archive_read_data(unpacking->archive, at, PIECE_BYTES) : 0;

        if (!at)
            return failure_set(failure, arena, IMPORT_ERROR, "ova.xml: it is too long");
        if (got < 0)
            return unpack_failed(unpacking, true, arena, failure);
        if (got == 0)
            return 0;
        buffer_wrote(out, (size_t) got);
    }
}

/* The compression's checksum is at its end: up to that, unless there is more behind the text than that may have. */
static int read_rest(struct unpacking *unpacking, size_t bytes_max, struct arena *arena, struct failure *failure)
{
    struct source *source = unpacking->source;
    const void *bytes;
    ssize_t n;

    for (size_t done = 0; done < bytes_max; done += (size_t) n) {
        n = source->read(source, &bytes);
        if (n == 0)
            return 0;
        if (n < 0) {
            unpacking->result = (int) n;
            return unpack_failed(unpacking, true, arena, failure);
        }
    }
    return 0;
}

static int read_archive(struct unpacking *unpacking, struct buffer *out, struct arena *arena,
                        struct failure *failure)
{
    struct archive *archive = unpacking->archive;
    struct archive_entry *entry;
    const char *name;
    int r;

    archive_read_support_format_tar(archive);
    if (archive_read_open(archive, unpacking, NULL, read_unpacked, NULL) != ARCHIVE_OK)
        return unpack_failed(unpacking, false, arena, failure);
    r = archive_read_next_header(archive, &entry);
    if (r == ARCHIVE_EOF)
        return failure_set(failure, arena, IMPORT_ERROR_PREMATURE_EOF);
    if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
        return unpack_failed(unpacking, false, arena, failure);
    name = archive_entry_pathname(entry);
    if (!name || !streq(name, NAME) || archive_entry_filetype(entry) != AE_IFREG)
        return failure_set(failure, arena, IMPORT_ERROR_UNEXPECTED_FILE, NAME, name ? name : "");
    r = read_member(unpacking, out, arena, failure);
    return r < 0 ? r : read_rest(unpacking, out->bytes_max, arena, failure);
}

int ova_unpack(const char *bytes, size_t length, struct buffer *out, struct arena *arena,
               struct failure *failure)
{
    _cleanup_(decompress_destroy) struct source *source = NULL;
    _cleanup_(reader_free) struct archive *archive = archive_read_new();
    struct unpacking unpacking = {
        .packed.read = read_packed, .bytes = bytes, .length = length, .archive = archive};

    if (!archive)
        die("out of memory");
    if (length == 0)
        return failure_set(failure, arena, IMPORT_ERROR_PREMATURE_EOF);
    unpacking.source = source = decompress_new(&unpacking.packed);
    return read_archive(&unpacking, out, arena, failure);
}
