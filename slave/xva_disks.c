/* xva_disks.c - blocks of disks and their checksums (xva_read.h)
 *
 *      Ref:7/00000000            the first bytes of the disk
 *      Ref:7/00000000.xxhash     16 hex digits: XXH64; or .checksum, 40: SHA-1
 *      Ref:7/00000003            behind a gap of two blocks, which are zeros
 *      Ref:7/00000004            no bytes: a sign of life; it takes a number and no room
 *      Ref:7/00000005 ...        right behind 3
 *
 * So a block's place follows from what came before, not from its number alone: the place behind the
 * block before it, and for each number left out the size of the disk's first block. (xapi takes the
 * first block of the whole stream. It makes a difference only where a first disk is smaller than a
 * block, and there xapi's own streams mean what we do.) The disks come one behind the other, in any
 * order.
 *
 * A block is hashed before we know by which function, since the checksum comes behind it. So the
 * first block is hashed by both, and from then on by the one that was used. If the other one comes
 * after all, the block is read back from its disk, and both are computed from then on.
 *
 * Archives of export_vsn below 2 end with a table of all checksums (xva_table.c); those of 0 have
 * no others. */
#include <errno.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <strings.h>
#include <xxhash.h>

#include "slave/xva_reader.h"

#define NUMBER_DIGITS   8
#define NAME_BYTES      300
#define SHA1_DIGITS     40
#define XXH64_DIGITS    16
#define READ_BACK_BYTES ((size_t) 64 * 1024)

enum { BY_XXH64 = 1, BY_SHA1 = 2 };

struct disk_state {
    bool is_begun;
    int64_t at;          /* so much of the disk has come, gaps included */
    int64_t block_bytes; /* of its first block that has any; 0: none has come */
    int64_t number;      /* of its last block; -1: none */
};

struct disks {
    struct xva_reader *reader;
    const struct xva_import *import;
    struct disk_thread *thread;
    struct disk_state *states; /* one a disk */
    struct xva_table *table;   /* NULL: the archive has none */
    bool has_inline;           /* a checksum behind each block is a must */
    int current;               /* disk; -1: none yet */

    /* The last block, until its checksum has come. */
    char block[NAME_BYTES]; /* its name, "": none yet */
    int64_t block_at, block_bytes;
    bool is_open;      /* its checksum may still come */
    bool is_checked;   /* and has come */
    unsigned used;     /* BY_x: of all checksums so far */
    unsigned computed; /* of this block */
    XXH64_state_t *xxh64;
    EVP_MD_CTX *sha1;
    char xxh64_digits[XXH64_DIGITS + 1], sha1_digits[SHA1_DIGITS + 1];
};

/* ---- names ---- */

/* What would be in order: the next block of this disk, or the first one of the next disk; or the
 * end. */
static void expected_name(const struct disks *disks, char name[NAME_BYTES])
{
    const struct xva_import *import = disks->import;

    snprintf(name, NAME_BYTES, "the end of the archive");
    if (disks->is_open && !disks->is_checked && disks->has_inline && disks->block_bytes > 0) {
        snprintf(name, NAME_BYTES, "%.*s.xxhash", NAME_BYTES - 10, disks->block);
        return;
    }
    if (disks->current >= 0
        && disks->states[disks->current].at < import->disks[disks->current].bytes) {
        snprintf(name, NAME_BYTES, "%s/%08lld", import->disks[disks->current].prefix,
                 (long long) disks->states[disks->current].number + 1);
        return;
    }
    for (unsigned i = 0; i < import->count; i++)
        if (!disks->states[i].is_begun && import->disks[i].bytes > 0) {
            snprintf(name, NAME_BYTES, "%s/%08d", import->disks[i].prefix, 0);
            return;
        }
}

static int fail_unexpected(struct disks *disks, const char *found)
{
    char expected[NAME_BYTES];

    expected_name(disks, expected);
    return xva_fail_unexpected(disks->reader, expected, found);
}

/* The disk of a name that begins with its prefix and a slash; -1: none. ret_rest: what follows. */
static int find_disk(const struct disks *disks, const char *name, const char **ret_rest)
{
    for (unsigned i = 0; i < disks->import->count; i++) {
        const char *prefix = disks->import->disks[i].prefix;
        size_t length = strlen(prefix);

        if (strncmp(name, prefix, length) == 0 && name[length] == '/') {
            *ret_rest = name + length + 1;
            return (int) i;
        }
    }
    return -1;
}

/* Eight digits and nothing else; else -1. */
static int64_t block_number(const char *text)
{
    int64_t number = 0;

    if (strspn(text, "0123456789") != NUMBER_DIGITS || text[NUMBER_DIGITS] != '\0')
        return -1;
    for (unsigned i = 0; i < NUMBER_DIGITS; i++)
        number = number * 10 + (text[i] - '0');
    return number;
}

/* ---- hashes ---- */

static void hash_begin(struct disks *disks)
{
    disks->computed = disks->used == 0 || disks->table ? BY_XXH64 | BY_SHA1
                                                       : disks->used; /* a table is of SHA-1 */
    if (disks->computed & BY_XXH64)
        XXH64_reset(disks->xxh64, 0);
    if (disks->computed & BY_SHA1 && EVP_DigestInit_ex(disks->sha1, EVP_sha1(), NULL) != 1)
        die("OpenSSL has no SHA-1");
}

static void hash_bytes(struct disks *disks, const char *bytes, size_t count)
{
    if (disks->computed & BY_XXH64)
        XXH64_update(disks->xxh64, bytes, count);
    if (disks->computed & BY_SHA1)
        EVP_DigestUpdate(disks->sha1, bytes, count);
}

static void hash_end(struct disks *disks)
{
    if (disks->computed & BY_XXH64)
        snprintf(disks->xxh64_digits, sizeof disks->xxh64_digits, "%016llX",
                 (unsigned long long) XXH64_digest(disks->xxh64));
    if (disks->computed & BY_SHA1) {
        unsigned char digest[EVP_MAX_MD_SIZE];
        unsigned length = 0;

        EVP_DigestFinal_ex(disks->sha1, digest, &length);
        for (unsigned i = 0; i < length; i++)
            snprintf(disks->sha1_digits + 2 * i, 3, "%02x", digest[i]);
    }
}

/* The block was hashed by the other function: from its disk, once more, by both. */
static int hash_again(struct disks *disks)
{
    struct disk_io *io = disks->import->disks[disks->current].io;
    _cleanup_(free_p) char *bytes = alloc0(READ_BACK_BYTES);
    int r = disk_thread_settle(disks->thread);

    disks->used = BY_XXH64 | BY_SHA1;
    hash_begin(disks);
    for (int64_t done = 0; r == 0 && done < disks->block_bytes;) {
        size_t count = (size_t) MIN(disks->block_bytes - done, (int64_t) READ_BACK_BYTES);

        r = disk_io_read(io, bytes, count, disks->block_at + done);
        hash_bytes(disks, bytes, count);
        done += (int64_t) count;
    }
    hash_end(disks);
    return r;
}

/* ---- members ---- */

/* Bytes of a block; their place and number are checked. */
static int read_block(struct disks *disks, const struct member *member)
{
    const char *bytes;
    int64_t at = disks->block_at;
    ssize_t n;

    hash_begin(disks);
    while ((n = xva_member_read(disks->reader, &bytes)) > 0) {
        int r;

        if (n > disks->block_at + member->bytes - at) /* it has more bytes than it said */
            return xva_fail_text(disks->reader, "%s is damaged", member->name);
        hash_bytes(disks, bytes, (size_t) n);
        r = disk_thread_write(disks->thread, (unsigned) disks->current, bytes, (size_t) n, at);
        if (r < 0)
            return r;
        at += n;
    }
    if (n < 0)
        return (int) n;
    if (at != disks->block_at + member->bytes)
        return xva_fail_text(disks->reader, "%s is damaged", member->name);
    hash_end(disks);
    return 0;
}

static int take_block(struct disks *disks, const struct member *member, unsigned disk,
                      int64_t number)
{
    struct disk_state *state = &disks->states[disk];
    const struct xva_import_disk *to = &disks->import->disks[disk];
    int64_t gap, end;

    if (disks->is_open && !disks->is_checked && disks->has_inline && disks->block_bytes > 0)
        return fail_unexpected(disks, member->name);
    if (disks->current != (int) disk) {
        bool is_complete =
            disks->current < 0
            || disks->states[disks->current].at == disks->import->disks[disks->current].bytes;

        if (state->is_begun || !is_complete)
            return fail_unexpected(disks, member->name);
        state->is_begun = true;
        disks->current = (int) disk;
    }
    if (number <= state->number)
        return fail_unexpected(disks, member->name);
    if (state->block_bytes == 0)
        state->block_bytes = member->bytes;
    if (__builtin_mul_overflow(number - state->number - 1, state->block_bytes, &gap)
        || __builtin_add_overflow(state->at, gap, &gap)
        || __builtin_add_overflow(gap, member->bytes, &end) || end > to->bytes)
        return xva_fail_text(disks->reader,
                             "%s lies beyond the end of its disk, which has %lld bytes",
                             member->name, (long long) to->bytes);
    disks->block_at = gap;
    disks->block_bytes = member->bytes;
    disks->is_open = true;
    disks->is_checked = false;
    snprintf(disks->block, sizeof disks->block, "%s", member->name);
    atomic_fetch_add(&disks->reader->figures->disk_bytes_done, end - state->at);
    state->number = number;
    state->at = end;
    return read_block(disks, member);
}

static int take_checksum(struct disks *disks, const char *name, unsigned by)
{
    char digits[SHA1_DIGITS];
    const char *computed;
    ssize_t length = xva_member_text(disks->reader, digits, sizeof digits);
    int r;

    if (length < 0 && disks->reader->error.code == NULL && length == -EBADMSG)
        return xva_fail_text(disks->reader, "%s is no checksum", name);
    if (length < 0)
        return (int) length;
    if (!(disks->computed & by)) {
        r = hash_again(disks);
        if (r < 0)
            return r;
    }
    disks->used |= by;
    disks->is_checked = true;
    computed = by == BY_SHA1 ? disks->sha1_digits : disks->xxh64_digits;
    if ((size_t) length == strlen(computed) && strncasecmp(digits, computed, (size_t) length) == 0)
        return 0;
    if (!disks->import->force)
        return xva_fail(disks->reader, "IMPORT_ERROR_SOME_CHECKSUMS_FAILED");
    disks->reader->wrong_checksums++;
    return 0;
}

/* The block behind us has no checksum of its own to come any more: the table gets it. */
static int close_block(struct disks *disks)
{
    if (!disks->is_open)
        return 0;
    disks->is_open = false;
    if (disks->table && xva_table_add(disks->table, disks->block, disks->sha1_digits) < 0)
        return xva_fail_text(disks->reader, "there are too many blocks for a table of checksums");
    return 0;
}

static bool are_complete(const struct disks *disks)
{
    for (unsigned i = 0; i < disks->import->count; i++)
        if (disks->states[i].at < disks->import->disks[i].bytes)
            return false;
    return true;
}

static int take_table(struct disks *disks)
{
    int64_t wrong = xva_table_compare(disks->table, disks->reader);

    if (wrong < 0)
        return (int) wrong;
    xva_table_destroy(&disks->table);
    if (wrong > 0 && !disks->import->force)
        return xva_fail(disks->reader, "IMPORT_ERROR_SOME_CHECKSUMS_FAILED");
    disks->reader->wrong_checksums += (uint64_t) wrong;
    return 0;
}

static int take_member(struct disks *disks, const struct member *member)
{
    const char *rest = "";
    size_t length = strlen(disks->block);
    int disk;
    int64_t number;
    int r;

    if (disks->is_open && strncmp(member->name, disks->block, length) == 0) {
        if (streq(member->name + length, ".xxhash"))
            return take_checksum(disks, member->name, BY_XXH64);
        if (streq(member->name + length, ".checksum"))
            return take_checksum(disks, member->name, BY_SHA1);
    }
    disk = find_disk(disks, member->name, &rest);
    number = block_number(rest);
    if (disk < 0 && disks->table && are_complete(disks)) {
        r = close_block(disks);
        return r < 0 ? r : take_table(disks);
    }
    if (disk < 0 || number < 0)
        return fail_unexpected(disks, member->name);
    /* a block that lacks its checksum is refused there, before it is closed */
    if (disks->is_open && (disks->is_checked || !disks->has_inline || disks->block_bytes == 0)) {
        r = close_block(disks);
        if (r < 0)
            return r;
    }
    return take_block(disks, member, (unsigned) disk, number);
}

/* ---- all of them ---- */

/* The archive has ended properly: has everything come? */
static int check_all(struct disks *disks)
{
    if (disks->is_open && !disks->is_checked && disks->has_inline && disks->block_bytes > 0)
        return xva_fail(disks->reader, "IMPORT_ERROR_PREMATURE_EOF");
    for (unsigned i = 0; i < disks->import->count; i++)
        if (disks->states[i].at < disks->import->disks[i].bytes)
            return xva_fail_at(disks->reader,
                               disks->states[i].is_begun ? "IMPORT_ERROR_PREMATURE_EOF"
                                                         : "IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND",
                               disks->import->disks[i].prefix);
    if (disks->table && !disks->import->force)
        return xva_fail(disks->reader, "IMPORT_ERROR_PREMATURE_EOF");
    return 0;
}

static int read_all(struct disks *disks)
{
    char expected[NAME_BYTES];
    struct member member;
    int r;

    for (;;) {
        expected_name(disks, expected);
        r = xva_next_member(disks->reader, expected, false, &member);
        if (r <= 0)
            break;
        r = take_member(disks, &member);
        if (r < 0)
            return r;
    }
    if (r == 0)
        r = check_all(disks);
    if (r == 0)
        r = xva_finish(disks->reader);
    return r < 0 ? r : disk_thread_sync(disks->thread);
}

int xva_read_disks(struct xva_reader *reader, const struct xva_import *import)
{
    struct disks disks = {
        .reader = reader,
        .import = import,
        .thread = disk_thread_new(import),
        .states = new0_array(struct disk_state, import->count + 1),
        .table = import->export_vsn < 2 ? xva_table_new() : NULL,
        .has_inline = import->export_vsn >= 1,
        .current = -1,
        .xxh64 = XXH64_createState(),
        .sha1 = EVP_MD_CTX_new(),
    };
    int r;

    if (!disks.xxh64 || !disks.sha1)
        die("out of memory for an import");
    for (unsigned i = 0; i < import->count; i++)
        disks.states[i].number = -1;
    xva_expect_bytes(reader, import);
    r = disks.thread ? read_all(&disks) : -EAGAIN;
    disk_thread_destroy(&disks.thread);
    xva_table_destroy(&disks.table);
    XXH64_freeState(disks.xxh64);
    EVP_MD_CTX_free(disks.sha1);
    free(disks.states);
    return r;
}
