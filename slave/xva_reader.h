/* xva_reader.h - what the files of the XVA reader share
 *
 *   xva_read.c         the reader: source, tar, members, errors; ova.xml
 *   xva_disks.c        blocks and their checksums
 *   xva_table.c        checksums in a table at the end, of the oldest archives
 *   xva_chunks.c       legacy archives: gzip chunks
 *   xva_disk_thread.c  pieces into disks */
#pragma once

#include "slave/xva_read.h"

struct archive;

struct xva_reader {
    struct source *source; /* unpacked */
    struct transfer_figures *figures;
    struct archive *archive;
    int source_result; /* what the source refused with */
    bool is_source_ended;
    int64_t unpacked;     /* bytes that came out of the source */
    int64_t unpacked_max; /* more would be a bomb */
    char *ova;
    size_t ova_bytes;
    struct xva_budget *budget; /* or NULL */
    int64_t budget_taken;
    uint64_t wrong_checksums;
    char at[XVA_ERROR_BYTES]; /* the name of the last member */
    struct xva_error error;
};

struct member {
    const char *name; /* good until the next member */
    int64_t bytes;
    bool is_directory; /* then the name ends with a slash */
};

/* The next member, a plain file, or a directory where those are let pass: 1; 0 at the proper end;
 * or negative. `expected` is for the error when it is anything else. */
int xva_next_member(struct xva_reader *reader, const char *expected, bool with_directories,
                    struct member *ret);
/* The next bytes of the member, at least one, good until the next call; 0 at its end; or negative.
 */
ssize_t xva_member_read(struct xva_reader *reader, const char **ret_bytes);
/* All of a small member: its bytes; -EBADMSG, without an error set, when it is larger than room. */
ssize_t xva_member_text(struct xva_reader *reader, char *text, size_t room);
/* Behind the end: nothing may follow but padding, and the source has to end well. */
int xva_finish(struct xva_reader *reader);
/* For disks of so many bytes together. */
void xva_expect_bytes(struct xva_reader *reader, const struct xva_import *import);

/* Set the error, which is at the last member, or elsewhere; -EBADMSG. xva_fail_text() is
 * IMPORT_ERROR with a text. */
int xva_fail(struct xva_reader *reader, const char *code);
int xva_fail_at(struct xva_reader *reader, const char *code, const char *where);
int xva_fail_unexpected(struct xva_reader *reader, const char *expected, const char *found);
int xva_fail_text(struct xva_reader *reader, const char *format, ...) _printf_(2, 3);

/* ---- xva_disk_thread.c: a thread that writes disks, zeros left out ---- */

struct disk_thread;

/* NULL when there is no thread to be had. */
struct disk_thread *disk_thread_new(const struct xva_import *import);
/* Ends the thread. NULL is fine. */
void disk_thread_destroy(struct disk_thread **thread_p);
/* The bytes lie inside the disk. They are written some time later: 0, or the negative errno of an
 * earlier write. */
int disk_thread_write(struct disk_thread *thread, unsigned disk, const char *bytes, size_t count,
                      int64_t at);
/* Everything is written: 0 or a negative errno. The disks are the caller's until its next write. */
int disk_thread_settle(struct disk_thread *thread);
/* Everything is written and on the media. */
int disk_thread_sync(struct disk_thread *thread);

/* ---- xva_table.c ---- */

struct xva_table;

struct xva_table *xva_table_new(void);
void xva_table_destroy(struct xva_table **table_p);
/* A block that came, with the SHA-1 of its contents. -EBADMSG when there are too many. */
int xva_table_add(struct xva_table *table, const char *name, const char *sha1);
/* Compare with the member that was just begun: how many of the blocks that came are not in it, or
 * not the same. Also 0, when all are; or negative. */
int64_t xva_table_compare(struct xva_table *table, struct xva_reader *reader);
