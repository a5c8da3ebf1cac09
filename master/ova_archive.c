/* ova_archive.c - the tar archive of an export of metadata, by libarchive
 *
 * Only tar, gzip and zstd are let in: libarchive reads much more, and what arrives here is foreign.
 * What a small archive unpacks to is bounded by the buffer it goes to. */
#include "master/ova_archive.h"

#include <archive.h>
#include <archive_entry.h>

#include "shared/arena.h"
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

static int read_member(struct archive *archive, struct buffer *out, struct arena *arena,
                       struct failure *failure)
{
    for (;;) {
        char *at = buffer_reserve(out, PIECE_BYTES);
        la_ssize_t got = at ? archive_read_data(archive, at, PIECE_BYTES) : 0;

        if (!at)
            return failure_set(failure, arena, IMPORT_ERROR, "ova.xml: it is too long");
        if (got < 0)
            return failure_set(failure, arena, IMPORT_ERROR_PREMATURE_EOF);
        if (got == 0)
            return 0;
        buffer_wrote(out, (size_t) got);
    }
}

int ova_unpack(const char *bytes, size_t length, struct buffer *out, struct arena *arena,
               struct failure *failure)
{
    _cleanup_(reader_free) struct archive *archive = archive_read_new();
    struct archive_entry *entry;
    const char *name;
    int r;

    if (!archive)
        die("out of memory");
    archive_read_support_filter_gzip(archive);
    archive_read_support_filter_zstd(archive);
    archive_read_support_format_tar(archive);
    if (length == 0)
        return failure_set(failure, arena, IMPORT_ERROR_PREMATURE_EOF);
    if (archive_read_open_memory(archive, bytes, length) != ARCHIVE_OK)
        return failure_set(failure, arena, IMPORT_ERROR, reason(archive));
    r = archive_read_next_header(archive, &entry);
    if (r == ARCHIVE_EOF)
        return failure_set(failure, arena, IMPORT_ERROR_PREMATURE_EOF);
    if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
        return failure_set(failure, arena, IMPORT_ERROR, reason(archive));
    name = archive_entry_pathname(entry);
    if (!name || !streq(name, NAME) || archive_entry_filetype(entry) != AE_IFREG)
        return failure_set(failure, arena, IMPORT_ERROR_UNEXPECTED_FILE, NAME, name ? name : "");
    return read_member(archive, out, arena, failure);
}
