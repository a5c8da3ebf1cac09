/* xva_read.c - the reader: from the source to members of the tar (xva_read.h)
 *
 *      caller's source -> unpacked (decompress.c) -> bounded
 *                      -> libarchive: tar and nothing else -> members
 *
 * libarchive understands long names, extended headers and sparse members; nothing of that is in an
 * XVA. Extended headers are let pass, for tools put them everywhere; sparse members are refused. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include "shared/buffer.h"
#include "shared/decompress.h"
#include "slave/xva_reader.h"

/* A block of half a KiB takes 2 KiB of the archive: its header, its checksum, that one's header.
 * Keep-alive blocks have no bytes at all: the second summand has room for one every 5 seconds over
 * two weeks. */
#define UNPACKED_FACTOR 4
#define UNPACKED_MORE   ((int64_t) 512 * 1024 * 1024)
/* What tars end with beyond the end: at most a few records, or a disk's block of them. */
#define PADDING_BYTES_MAX ((int64_t) 1024 * 1024)

/* ---- errors ---- */

int xva_fail_at(struct xva_reader *reader, const char *code, const char *where)
{
    reader->error.code = code;
    reader->error.count = 0;
    snprintf(reader->error.where, sizeof reader->error.where, "%s", where);
    return -EBADMSG;
}

int xva_fail(struct xva_reader *reader, const char *code)
{
    return xva_fail_at(reader, code, reader->at);
}

int xva_fail_unexpected(struct xva_reader *reader, const char *expected, const char *found)
{
    xva_fail(reader, "IMPORT_ERROR_UNEXPECTED_FILE");
    reader->error.count = 2;
    snprintf(reader->error.params[0], XVA_ERROR_BYTES, "%s", expected);
    snprintf(reader->error.params[1], XVA_ERROR_BYTES, "%s", found);
    return -EBADMSG;
}

int xva_fail_text(struct xva_reader *reader, const char *format, ...)
{
    va_list args;

    xva_fail(reader, "IMPORT_ERROR");
    reader->error.count = 1;
    va_start(args, format);
    vsnprintf(reader->error.params[0], XVA_ERROR_BYTES, format, args);
    va_end(args);
    return -EBADMSG;
}

/* ---- bytes ---- */

static ssize_t bounded_read(struct xva_reader *reader, const void **ret_bytes)
{
    ssize_t n;

    if (reader->source_result < 0)
        return reader->source_result;
    n = reader->source->read(reader->source, ret_bytes);
    reader->is_source_ended = n == 0;
    if (n > 0)
        reader->unpacked += n;
    if (n == -EBADMSG)
        xva_fail_text(reader, "the compressed data is damaged");
    else if (n == -E2BIG)
        n = xva_fail_text(reader, DECOMPRESS_WINDOW_TEXT);
    else if (n == -EPIPE)
        xva_fail(reader, "IMPORT_ERROR_PREMATURE_EOF");
    else if (n > 0 && reader->unpacked > reader->unpacked_max)
        n = xva_fail_text(reader, "the archive is much larger than what it has to contain");
    if (n < 0)
        reader->source_result = (int) n;
    return n;
}

static la_ssize_t archive_source(struct archive *archive, void *arg, const void **ret_bytes)
{
    ssize_t n = bounded_read(arg, ret_bytes);

    if (n < 0)
        archive_set_error(archive, (int) -n, "the source failed");
    return n < 0 ? -1 : n;
}

struct xva_reader *xva_reader_new(struct source *source, struct transfer_figures *figures)
{
    struct xva_reader *reader = new0(struct xva_reader);

    reader->source = decompress_new(source);
    reader->figures = figures;
    reader->unpacked_max = 2 * XVA_OVA_BYTES_MAX;
    return reader;
}

void xva_reader_destroy(struct xva_reader **reader_p)
{
    struct xva_reader *reader = TAKE(*reader_p);

    if (!reader)
        return;
    if (reader->archive)
        archive_read_free(reader->archive);
    decompress_destroy(&reader->source);
    xva_forget_ova(reader);
    free(reader);
}

void xva_reader_share(struct xva_reader *reader, struct xva_budget *budget)
{
    reader->budget = budget;
}

const struct xva_error *xva_reader_error(const struct xva_reader *reader)
{
    return &reader->error;
}

uint64_t xva_wrong_checksums(const struct xva_reader *reader)
{
    return reader->wrong_checksums;
}

/* ---- members ---- */

/* libarchive gave up: because of the source, because that ended, or because this is no tar. */
static int fail_archive(struct xva_reader *reader)
{
    const char *text = archive_error_string(reader->archive);

    if (reader->source_result < 0)
        return reader->source_result;
    if (reader->is_source_ended)
        return xva_fail(reader, "IMPORT_ERROR_PREMATURE_EOF");
    return xva_fail_text(reader, "this is no archive of a VM: %s", text ? text : "unreadable");
}

static int open_archive(struct xva_reader *reader)
{
    reader->archive = archive_read_new();
    if (!reader->archive || archive_read_support_format_tar(reader->archive) != ARCHIVE_OK)
        die("libarchive cannot read tars");
    return archive_read_open(reader->archive, reader, NULL, archive_source, NULL) == ARCHIVE_OK
               ? 0
               : fail_archive(reader);
}

/* The end is two records of zeros. libarchive takes an end without them as well; we do not, since
 * that is how a stream looks that was cut between two members. One of them is enough, as for other
 * tars. */
static int check_end(struct xva_reader *reader)
{
    int64_t begin = archive_read_header_position(reader->archive);

    if (reader->source_result < 0)
        return reader->source_result;
    return archive_filter_bytes(reader->archive, 0) > begin
               ? 0
               : xva_fail(reader, "IMPORT_ERROR_PREMATURE_EOF");
}

/* The name may be the one that is expected: what is wrong is what bears it. */
static int fail_kind(struct xva_reader *reader, const char *expected, const char *name)
{
    char found[XVA_ERROR_BYTES];

    snprintf(found, sizeof found, "%.400s, which is no plain file", name);
    return xva_fail_unexpected(reader, expected, found);
}

int xva_next_member(struct xva_reader *reader, const char *expected, bool with_directories,
                    struct member *ret)
{
    struct archive_entry *entry;
    int r;

    if (!reader->archive) {
        r = open_archive(reader);
        if (r < 0)
            return r;
    }
    r = archive_read_next_header(reader->archive, &entry);
    if (r == ARCHIVE_EOF)
        return check_end(reader);
    if (r != ARCHIVE_OK && r != ARCHIVE_WARN) /* a warning: of an attribute that we do not use */
        return fail_archive(reader);
    ret->name = archive_entry_pathname(entry);
    ret->bytes = archive_entry_size(entry);
    if (!ret->name)
        ret->name = "a name that is no text";
    snprintf(reader->at, sizeof reader->at, "%s", ret->name);
    ret->is_directory = archive_entry_filetype(entry) == AE_IFDIR;
    if (ret->is_directory && with_directories && ret->bytes == 0)
        return 1;
    if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry)
        || archive_entry_symlink(entry) || archive_entry_sparse_count(entry) > 0
        || !archive_entry_size_is_set(entry) || ret->bytes < 0)
        return fail_kind(reader, expected, ret->name);
    return 1;
}

ssize_t xva_member_read(struct xva_reader *reader, const char **ret_bytes)
{
    const void *bytes = NULL;
    size_t count = 0;
    la_int64_t at;
    int r;

    do {
        r = archive_read_data_block(reader->archive, &bytes, &count, &at);
        if (r == ARCHIVE_EOF)
            return 0;
        if (r != ARCHIVE_OK)
            return fail_archive(reader);
    } while (count == 0);
    *ret_bytes = bytes;
    return (ssize_t) count;
}

ssize_t xva_member_text(struct xva_reader *reader, char *text, size_t room)
{
    size_t length = 0;
    const char *bytes = NULL;
    ssize_t n;

    while ((n = xva_member_read(reader, &bytes)) > 0) {
        if ((size_t) n > room - length)
            return -EBADMSG;
        memcpy(text + length, bytes, (size_t) n);
        length += (size_t) n;
    }
    return n < 0 ? n : (ssize_t) length;
}

int xva_finish(struct xva_reader *reader)
{
    const void *bytes;
    ssize_t n;

    reader->unpacked_max = reader->unpacked + PADDING_BYTES_MAX;
    if (reader->source->is_endless)
        return 0;
    while (!reader->is_source_ended) {
        n = bounded_read(reader, &bytes);
        if (n < 0)
            return (int) n;
    }
    return 0;
}

/* ---- ova.xml ---- */

static bool take_budget(struct xva_reader *reader, int64_t bytes)
{
    if (!reader->budget)
        return true;
    reader->budget_taken += bytes;
    return atomic_fetch_sub(&reader->budget->bytes_left, bytes) >= bytes;
}

void xva_forget_ova(struct xva_reader *reader)
{
    free(TAKE(reader->ova));
    reader->ova_bytes = 0;
    if (reader->budget)
        atomic_fetch_add(&reader->budget->bytes_left, reader->budget_taken);
    reader->budget_taken = 0;
}

int xva_read_ova(struct xva_reader *reader, const char **ret_text, size_t *ret_bytes)
{
    struct member member;
    struct buffer text;
    const char *bytes = NULL;
    ssize_t n;
    int r = xva_next_member(reader, "ova.xml", false, &member);

    if (r < 0)
        return r;
    if (r == 0)
        return xva_fail(reader, "IMPORT_ERROR_PREMATURE_EOF");
    if (!streq(member.name, "ova.xml"))
        return xva_fail_unexpected(reader, "ova.xml", member.name);
    if (member.bytes > XVA_OVA_BYTES_MAX)
        return xva_fail_text(reader, "ova.xml has %lld bytes, which is too large",
                             (long long) member.bytes);
    buffer_init(&text, XVA_OVA_BYTES_MAX); /* grows as bytes come, whatever was said */
    while ((n = xva_member_read(reader, &bytes)) > 0) {
        if (!take_budget(reader, n)) {
            n = -ENOBUFS;
            break;
        }
        buffer_add(&text, bytes, (size_t) n);
    }
    if (n == 0) {
        reader->ova = buffer_take(&text, &reader->ova_bytes);
        *ret_text = reader->ova ? reader->ova : "";
        *ret_bytes = reader->ova_bytes;
    } else {
        xva_forget_ova(reader);
    }
    buffer_done(&text);
    return (int) n;
}

void xva_expect_bytes(struct xva_reader *reader, const struct xva_import *import)
{
    int64_t total = 0;

    for (unsigned i = 0; i < import->count; i++)
        total += import->disks[i].bytes; /* that exist: far from an overflow */
    atomic_store(&reader->figures->disk_bytes_total, total);
    reader->unpacked_max =
        reader->unpacked + UNPACKED_MORE + UNPACKED_FACTOR * MIN(total, INT64_MAX / 8);
}
