/* test_xva_read.c - imports: each rule of the form, each refusal, and archives cut everywhere */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>
#include <openssl/sha.h>
#include <zlib.h>
#include <zstd.h>

#include "slave/compress.h"
#include "slave/xva_read.h"
#include "tests/unit/xva_world.h"

#define MIB       ((int64_t) 1048576)
#define DISKS_MAX 3

/* An archive being made, and the disks it is read into. */
struct world {
    struct buffer tar;
    struct disk_io *disks[DISKS_MAX];
    struct xva_import_disk import[DISKS_MAX];
    unsigned count;
    int export_vsn; /* 2 */
    bool force;
    size_t step;    /* bytes that the source gives at a time */
    int end_result; /* of the source */
    bool is_endless; /* nobody knows where it ends */
    struct xva_error error;
    uint64_t wrong;
};

static char block[4096]; /* what blocks are made of */

static void world_begin(struct world *world)
{
    *world = (struct world){.export_vsn = 2, .step = 3000};
    buffer_init(&world->tar, SIZE_MAX);
    for (unsigned i = 0; i < sizeof block; i++)
        block[i] = (char) (i % 251 + 1);
    tar_file(&world->tar, "ova.xml", "<value/>", 8);
}

static void world_add_disk(struct world *world, const char *prefix, int64_t bytes)
{
    world->disks[world->count] = world_disk(bytes);
    world->import[world->count] =
        (struct xva_import_disk){prefix, world->disks[world->count], bytes};
    world->count++;
}

static void world_end(struct world *world)
{
    buffer_done(&world->tar);
    for (unsigned i = 0; i < world->count; i++)
        disk_io_close(&world->disks[i]);
}

/* As an expression, for declarations. */
static struct memory_sink memory_sink(void)
{
    struct memory_sink sink;

    memory_sink_init(&sink);
    return sink;
}

typedef int read_fn(struct xva_reader *reader, const struct xva_import *import);

static int read_bytes(struct world *world, const char *bytes, size_t count, read_fn *read)
{
    struct transfer_figures figures = {0};
    struct memory_source source;
    struct xva_reader *reader;
    struct xva_import import = {world->import, world->count, world->export_vsn, world->force};
    const char *text;
    size_t text_bytes;
    int r;

    memory_source_init(&source, bytes, count, world->step);
    source.end = world->end_result;
    source.base.is_endless = world->is_endless;
    reader = xva_reader_new(&source.base, &figures);
    r = xva_read_ova(reader, &text, &text_bytes);
    if (r == 0)
        r = read(reader, &import);
    world->error = *xva_reader_error(reader);
    world->wrong = xva_wrong_checksums(reader);
    if (r == 0)
        assert_int_equal(atomic_load(&figures.disk_bytes_done),
                         atomic_load(&figures.disk_bytes_total));
    xva_reader_destroy(&reader);
    return r;
}

static int read_world(struct world *world)
{
    return read_bytes(world, world->tar.bytes, world->tar.length, xva_read_disks);
}

/* Refused with this code, and these parameters where given. */
static void assert_refused(struct world *world, read_fn *read, const char *code, const char *first,
                           const char *second)
{
    assert_int_equal(read_bytes(world, world->tar.bytes, world->tar.length, read), -EBADMSG);
    assert_string_equal(world->error.code, code);
    if (first)
        assert_string_equal(world->error.params[0], first);
    if (second)
        assert_string_equal(world->error.params[1], second);
    world_end(world);
}

#define UNEXPECTED "IMPORT_ERROR_UNEXPECTED_FILE"
#define CUT        "IMPORT_ERROR_PREMATURE_EOF"

static void tar_sha1(struct buffer *tar, const char *name, const void *bytes, size_t count)
{
    unsigned char digest[SHA_DIGEST_LENGTH];
    char digits[41];

    SHA1(bytes, count, digest);
    for (unsigned i = 0; i < sizeof digest; i++)
        snprintf(digits + 2 * i, 3, "%02x", digest[i]);
    tar_file(tar, name, digits, 40);
}

static void assert_disk(struct disk_io *disk, int64_t at, const char *bytes, size_t count)
{
    char here[4096] = {0};

    disk_io_read(disk, here, count, at);
    assert_memory_equal(here, bytes, count);
}

static const char nothing[4096];

/* ---- what is read ---- */

static void gaps_are_as_large_as_the_first_block(void **state)
{
    struct world w;

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 10 * 1000 + 5);
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_block(&w.tar, "Ref:7/00000003", block + 1, 1000);
    tar_block(&w.tar, "Ref:7/00000010", block + 2, 5);
    tar_end(&w.tar);
    assert_int_equal(read_world(&w), 0);
    assert_disk(w.disks[0], 0, block, 1000);
    assert_disk(w.disks[0], 1000, nothing, 2000);
    assert_disk(w.disks[0], 3000, block + 1, 1000);
    assert_disk(w.disks[0], 10000, block + 2, 5);
    assert_int_equal(w.disks[0]->bytes_written, 2005);
    assert_int_equal(w.disks[0]->syncs, 1);
    world_end(&w);
}

static void an_empty_block_takes_a_number_and_no_room(void **state)
{
    struct world w;

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 5000);
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_block(&w.tar, "Ref:7/00000002", "", 0);
    tar_block(&w.tar, "Ref:7/00000003", block, 1000);
    tar_file(&w.tar, "Ref:7/00000004", "", 0); /* without a checksum, too */
    tar_block(&w.tar, "Ref:7/00000006", block, 1000);
    tar_end(&w.tar);
    assert_int_equal(read_world(&w), 0);
    assert_disk(w.disks[0], 1000, nothing, 1000);
    assert_disk(w.disks[0], 2000, block, 1000);
    assert_disk(w.disks[0], 3000, nothing, 1000);
    assert_disk(w.disks[0], 4000, block, 1000);
    world_end(&w);
}

static void checksums_of_both_kinds_are_taken_also_mixed(void **state)
{
    (void) state;
    for (unsigned pattern = 0; pattern < 32; pattern++) {
        struct world w;

        world_begin(&w);
        world_add_disk(&w, "Ref:7", 5000);
        for (unsigned i = 0; i < 5; i++) {
            char name[40];

            snprintf(name, sizeof name, "Ref:7/%08u%s", i, "");
            if (pattern >> i & 1) {
                tar_block(&w.tar, name, block + i, 1000);
            } else {
                tar_file(&w.tar, name, block + i, 1000);
                snprintf(name, sizeof name, "Ref:7/%08u.checksum", i);
                tar_sha1(&w.tar, name, block + i, 1000);
            }
        }
        tar_end(&w.tar);
        assert_int_equal(read_world(&w), 0);
        for (unsigned i = 0; i < 5; i++)
            assert_disk(w.disks[0], 1000 * i, block + i, 1000);
        world_end(&w);
    }
}

static void a_wrong_checksum_is_refused_unless_forced(void **state)
{
    (void) state;
    for (unsigned kind = 0; kind < 2; kind++)
        for (unsigned forced = 0; forced < 2; forced++) {
            struct world w;

            world_begin(&w);
            world_add_disk(&w, "Ref:7", 2000);
            w.force = forced;
            tar_block(&w.tar, "Ref:7/00000000", block, 1000);
            tar_file(&w.tar, "Ref:7/00000001", block, 1000);
            if (kind == 0)
                tar_file(&w.tar, "Ref:7/00000001.xxhash", "0123456789ABCDEF", 16);
            else
                tar_sha1(&w.tar, "Ref:7/00000001.checksum", block + 1, 1000);
            tar_end(&w.tar);
            if (forced) {
                assert_int_equal(read_world(&w), 0);
                assert_int_equal(w.wrong, 1);
                assert_disk(w.disks[0], 1000, block, 1000);
                world_end(&w);
            } else {
                assert_refused(&w, xva_read_disks, "IMPORT_ERROR_SOME_CHECKSUMS_FAILED", NULL,
                               NULL);
            }
        }
}

static void zeros_are_not_written(void **state)
{
    struct world w;
    char *large = alloc0((size_t) MIB);

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 3 * MIB);
    w.step = 100000;
    tar_block(&w.tar, "Ref:7/00000000", large, (size_t) MIB);
    large[500000] = 1;
    tar_block(&w.tar, "Ref:7/00000001", large, (size_t) MIB);
    large[500000] = 0;
    tar_block(&w.tar, "Ref:7/00000002", large, (size_t) MIB);
    tar_end(&w.tar);
    assert_int_equal(read_world(&w), 0);
    assert_int_equal(w.disks[0]->bytes_written, 65536);
    assert_disk(w.disks[0], MIB + 500000, "\1", 1);
    free(large);
    world_end(&w);
}

static void disks_come_in_any_order_and_empty_ones_not_at_all(void **state)
{
    struct world w;

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 1000);
    world_add_disk(&w, "Ref:1", 0);
    world_add_disk(&w, "Ref:77", 2000);
    tar_block(&w.tar, "Ref:77/00000000", block, 2000); /* a first block of its own size */
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    assert_int_equal(read_world(&w), 0);
    assert_disk(w.disks[0], 0, block, 1000);
    assert_disk(w.disks[2], 0, block, 2000);
    world_end(&w);
}

static void tools_own_headers_are_let_pass(void **state)
{
    static const char pax[] = "30 mtime=1234567890.123456789\n";
    struct world w;

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 1000);
    tar_head(&w.tar, "PaxHeader/x", 'x', (int64_t) strlen(pax));
    tar_body(&w.tar, pax, strlen(pax));
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    buffer_add(&w.tar, nothing, 4096); /* tar's own padding */
    buffer_add(&w.tar, nothing, 4096);
    assert_int_equal(read_world(&w), 0);
    world_end(&w);
}

/* A whole archive by gzip and zstd in one piece and in several. */
static void compressed_archives_are_recognised(void **state)
{
    (void) state;
    for (int kind = COMPRESSION_GZIP; kind <= COMPRESSION_ZSTD; kind++)
        for (unsigned parts = 1; parts <= 3; parts++)
            for (size_t step = 1; step < 10000; step = step * 5 + 1) {
                struct memory_sink out = memory_sink();
                struct world w;

                world_begin(&w);
                world_add_disk(&w, "Ref:7", 3000);
                w.step = step;
                tar_block(&w.tar, "Ref:7/00000000", block, 1000);
                tar_block(&w.tar, "Ref:7/00000001", block, 1000);
                tar_block(&w.tar, "Ref:7/00000002", block, 1000);
                tar_end(&w.tar);
                for (unsigned i = 0; i < parts; i++) {
                    struct sink *sink = compress_new((enum compression) kind, &out.base);
                    size_t from = w.tar.length * i / parts, to = w.tar.length * (i + 1) / parts;

                    assert_int_equal(sink->write(sink, w.tar.bytes + from, to - from), 0);
                    assert_int_equal(compress_end(sink), 0);
                    compress_destroy(&sink);
                }
                assert_int_equal(read_bytes(&w, out.bytes.bytes, out.bytes.length, xva_read_disks),
                                 0);
                assert_disk(w.disks[0], 2000, block, 1000);
                buffer_done(&out.bytes);
                world_end(&w);
            }
}

/* ---- the table of checksums ---- */

static void add_table(struct world *world, const char *const names[], unsigned count,
                      bool with_string, int wrong)
{
    struct buffer xml;
    unsigned char digest[SHA_DIGEST_LENGTH];
    char line[300];

    buffer_init(&xml, SIZE_MAX);
    buffer_add(&xml, "<value><struct>", 15);
    for (unsigned i = 0; i < count; i++) {
        char digits[41];

        SHA1((unsigned char *) block + i, 1000, digest);
        if ((int) i == wrong)
            digest[19] ^= 1;
        for (unsigned k = 0; k < sizeof digest; k++)
            snprintf(digits + 2 * k, 3, "%02x", digest[k]);
        snprintf(line, sizeof line, "\n <member><name>%s</name><value>%s%s%s</value></member>",
                 names[i], with_string ? "<string>" : "", digits, with_string ? "</string>" : "");
        buffer_add(&xml, line, strlen(line));
    }
    buffer_add(&xml, "</struct></value>", 17);
    tar_file(&world->tar, "checksum.xml", xml.bytes, xml.length);
    buffer_done(&xml);
}

static void the_oldest_archives_have_a_table_at_the_end(void **state)
{
    static const char *const names[] = {"Ref:7/00000000", "Ref:7/00000001", "Ref:7/00000002"};

    (void) state;
    for (int vsn = 0; vsn < 2; vsn++)
        for (unsigned variant = 0; variant < 6; variant++) {
            struct world w;

            world_begin(&w);
            world_add_disk(&w, "Ref:7", 3000);
            w.export_vsn = vsn;
            for (unsigned i = 0; i < 3; i++) {
                char name[40];

                tar_file(&w.tar, names[i], block + i, 1000);
                snprintf(name, sizeof name, "%s.checksum", names[i]);
                if (vsn == 1)
                    tar_sha1(&w.tar, name, block + i, 1000);
            }
            switch (variant) {
            case 0:
            case 1:
                add_table(&w, names, 3, variant, -1);
                tar_end(&w.tar);
                assert_int_equal(read_world(&w), 0);
                world_end(&w);
                break;
            case 2: /* wrong */
                add_table(&w, names, 3, true, 1);
                tar_end(&w.tar);
                assert_refused(&w, xva_read_disks, "IMPORT_ERROR_SOME_CHECKSUMS_FAILED", NULL,
                               NULL);
                break;
            case 3: /* a block lacks; forced */
                w.force = true;
                add_table(&w, names, 2, true, -1);
                tar_end(&w.tar);
                assert_int_equal(read_world(&w), 0);
                assert_int_equal(w.wrong, 1);
                world_end(&w);
                break;
            case 4: /* there is none */
                tar_end(&w.tar);
                assert_refused(&w, xva_read_disks, CUT, NULL, NULL);
                break;
            case 5: /* not XML; with a DOCTYPE */
                tar_file(&w.tar, "checksum.xml", "<!DOCTYPE x [<!ENTITY a 'b'>]><value/>", 39);
                tar_end(&w.tar);
                assert_refused(&w, xva_read_disks, "IMPORT_ERROR",
                               "the table of checksums is not readable", NULL);
                break;
            }
        }
}

/* ---- what is refused ---- */

static void the_first_member_is_ova_xml(void **state)
{
    struct world w;

    (void) state;
    world_begin(&w);
    w.tar.length = 0;
    tar_file(&w.tar, "../ova.xml", "x", 1);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, UNEXPECTED, "ova.xml", "../ova.xml");

    world_begin(&w);
    w.tar.length = 0;
    tar_head(&w.tar, "ova.xml", '2', 0);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, UNEXPECTED, "ova.xml", "ova.xml");

    world_begin(&w);
    w.tar.length = 0;
    tar_head(&w.tar, "ova.xml", '0', XVA_OVA_BYTES_MAX + 1);
    assert_refused(&w, xva_read_disks, "IMPORT_ERROR",
                   "ova.xml has 16777217 bytes, which is too large", NULL);

    world_begin(&w);
    w.tar.length = 0;
    for (unsigned i = 0; i < 3000; i++)
        buffer_add(&w.tar, "no archive ", 11);
    assert_refused(&w, xva_read_disks, "IMPORT_ERROR", NULL, NULL);

    world_begin(&w);
    w.tar.length = 0;
    assert_refused(&w, xva_read_disks, CUT, NULL, NULL);

    world_begin(&w);
    w.tar.length = 0;
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, CUT, NULL, NULL);
}

/* A member where the second block of Ref:7 is expected. */
static void assert_member_refused(const char *name, char type, int64_t size, const char *code)
{
    struct world w;

    world_begin(&w);
    world_add_disk(&w, "Ref:7", 3000);
    world_add_disk(&w, "Ref:8", 3000);
    tar_block(&w.tar, "Ref:7/00000001", block, 1000);
    tar_head(&w.tar, name, type, size);
    for (int64_t i = 0; i < MIN(size, 5000); i += 512)
        buffer_add(&w.tar, block, 512);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, code, NULL, NULL);
}

static void members_that_have_no_business_there_are_refused(void **state)
{
    (void) state;
    assert_member_refused("ova.xml", '0', 8, UNEXPECTED);           /* once more */
    assert_member_refused("Ref:7/00000001", '0', 1000, UNEXPECTED); /* not above the last */
    assert_member_refused("Ref:7/00000000", '0', 1000, UNEXPECTED);
    assert_member_refused("Ref:8/00000000", '0', 1000,
                          UNEXPECTED); /* the disk before it is not complete */
    assert_member_refused("Ref:9/00000000", '0', 1000, UNEXPECTED); /* nobody's */
    assert_member_refused("Ref:7/2", '0', 1000, UNEXPECTED);
    assert_member_refused("Ref:7/000000002", '0', 1000, UNEXPECTED);
    assert_member_refused("Ref:7/0000000x", '0', 1000, UNEXPECTED);
    assert_member_refused("Ref:7/-0000002", '0', 1000, UNEXPECTED);
    assert_member_refused("Ref:7/../Ref:7/00000002", '0', 1000, UNEXPECTED);
    assert_member_refused("/Ref:7/00000002", '0', 1000, UNEXPECTED);
    assert_member_refused("../../etc/passwd", '0', 1000, UNEXPECTED);
    assert_member_refused("Ref:7/00000000.xxhash", '0', 16,
                          UNEXPECTED); /* of a block that is over */
    assert_member_refused("Ref:7/00000002", '1', 0,
                          UNEXPECTED); /* links, devices, directories, pipes */
    assert_member_refused("Ref:7/00000002", '2', 0, UNEXPECTED);
    assert_member_refused("Ref:7/00000002", '3', 0, UNEXPECTED);
    assert_member_refused("Ref:7/00000002", '4', 0, UNEXPECTED);
    assert_member_refused("Ref:7/", '5', 0, UNEXPECTED);
    assert_member_refused("Ref:7/00000002", '6', 0, UNEXPECTED);
    assert_member_refused("Ref:7/00000002", '0', 1001, "IMPORT_ERROR"); /* beyond the disk's end */
    assert_member_refused("Ref:7/00000002", '0', INT64_MAX / 2, "IMPORT_ERROR");
    assert_member_refused("Ref:7/00000003", '0', 1, "IMPORT_ERROR");
    assert_member_refused("Ref:7/99999999", '0', 1, "IMPORT_ERROR");
    assert_member_refused("Ref:7/00000001.xxhash", '0', 4000, "IMPORT_ERROR");
}

static void a_gap_cannot_overflow(void **state)
{
    struct world w;

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 3000);
    tar_head(&w.tar, "Ref:7/99999999", '0', INT64_MAX - 4096);
    assert_refused(&w, xva_read_disks, "IMPORT_ERROR", NULL, NULL);
}

static void a_block_needs_its_checksum(void **state)
{
    struct world w;

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 3000);
    tar_file(&w.tar, "Ref:7/00000000", block, 1000);
    tar_block(&w.tar, "Ref:7/00000002", block, 1000);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, UNEXPECTED, "Ref:7/00000000.xxhash", "Ref:7/00000002");

    world_begin(&w);
    world_add_disk(&w, "Ref:7", 1000);
    tar_file(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, CUT, NULL, NULL);
}

static void long_names_are_compared_like_any(void **state)
{
    struct world w;
    char name[5000];

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 1000);
    memset(name, 'a', sizeof name);
    memcpy(name, "Ref:7/00000000", 14);
    tar_head(&w.tar, "././@LongLink", 'L', sizeof name);
    tar_body(&w.tar, name, sizeof name);
    tar_file(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, UNEXPECTED, "Ref:7/00000000", NULL);

    /* a pax header that gives another name, and one that makes a member sparse */
    for (unsigned i = 0; i < 2; i++) {
        static const char *const pax[] = {
            "27 path=../../../etc/passwd\n",
            "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
            "29 GNU.sparse.realsize=10000\n36 GNU.sparse.name=Ref:7/00000000\n"};

        world_begin(&w);
        world_add_disk(&w, "Ref:7", 1000);
        tar_head(&w.tar, "pax", 'x', (int64_t) strlen(pax[i]));
        tar_body(&w.tar, pax[i], strlen(pax[i]));
        tar_file(&w.tar, "Ref:7/00000000", block, 1000);
        tar_end(&w.tar);
        assert_int_equal(read_world(&w), -EBADMSG);
        world_end(&w);
    }
}

static void disks_that_do_not_come_are_told(void **state)
{
    struct world w;

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 1000);
    world_add_disk(&w, "Ref:8", 1000);
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, "IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND", NULL, NULL);

    world_begin(&w);
    world_add_disk(&w, "Ref:7", 2000);
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, CUT, NULL, NULL);
}

/* Whatever its compression, a cut archive is never taken, and says why. */
static void an_archive_cut_anywhere_is_refused(void **state)
{
    (void) state;
    for (int kind = COMPRESSION_NONE; kind <= COMPRESSION_ZSTD; kind++) {
        struct memory_sink out = memory_sink();
        struct world w;
        size_t whole;
        int r;

        world_begin(&w);
        world_add_disk(&w, "Ref:7", 20 * 4096 + 100);
        world_add_disk(&w, "Ref:8", 5000);
        for (unsigned i = 0; i < 20; i++) {
            char name[40];

            snprintf(name, sizeof name, "Ref:7/%08u", i);
            if (i % 3 != 1)
                tar_block(&w.tar, name, block, sizeof block);
        }
        tar_block(&w.tar, "Ref:7/00000020", block, 100);
        tar_block(&w.tar, "Ref:8/00000000", block, 2500);
        tar_block(&w.tar, "Ref:8/00000001", block, 2500);
        tar_end(&w.tar);
        if (kind == COMPRESSION_NONE) {
            out.bytes = w.tar;
            buffer_init(&w.tar, SIZE_MAX);
        } else {
            struct sink *sink = compress_new((enum compression) kind, &out.base);

            assert_int_equal(sink->write(sink, w.tar.bytes, w.tar.length), 0);
            assert_int_equal(compress_end(sink), 0);
            compress_destroy(&sink);
        }
        assert_int_equal(read_bytes(&w, out.bytes.bytes, out.bytes.length, xva_read_disks), 0);
        /* one of the two records at the end is enough */
        whole = kind == COMPRESSION_NONE ? out.bytes.length - 1023 : out.bytes.length;
        for (size_t at = 0; at < whole;
             at += at < whole - 600 ? (kind == COMPRESSION_NONE ? 256 : 61) : 1) {
            w.end_result = at % 2 ? -EPIPE : 0;
            r = read_bytes(&w, out.bytes.bytes, at, xva_read_disks);
            assert_true(r == -EBADMSG || r == -EPIPE);
            assert_string_equal(w.error.code, CUT);
        }
        w.end_result = -ECANCELED;
        assert_int_equal(read_bytes(&w, out.bytes.bytes, out.bytes.length / 2, xva_read_disks),
                         -ECANCELED);
        assert_null(w.error.code);
        buffer_done(&out.bytes);
        world_end(&w);
    }
}

/* A client that does not know a length leaves its connection open: a read behind the end would wait. */
static void behind_the_end_of_an_endless_stream_nothing_is_read(void **state)
{
    char noise[1000]; /* what is packed has to be longer than what the packing is told by */

    (void) state;
    for (unsigned i = 0; i < sizeof noise; i++)
        noise[i] = (char) (i * 2654435761u >> 13);
    for (int kind = COMPRESSION_NONE; kind <= COMPRESSION_ZSTD; kind++)
        for (size_t step = 1; step < 10000; step = step * 5 + 1) {
            struct memory_sink out = memory_sink();
            struct world w;

            world_begin(&w);
            world_add_disk(&w, "Ref:7", 1000);
            w.is_endless = true;
            w.end_result = -ECANCELED;
            w.step = step;
            tar_block(&w.tar, "Ref:7/00000000", noise, sizeof noise);
            tar_end(&w.tar);
            if (kind == COMPRESSION_NONE) {
                buffer_add(&out.bytes, w.tar.bytes, w.tar.length);
            } else {
                struct sink *sink = compress_new((enum compression) kind, &out.base);

                assert_int_equal(sink->write(sink, w.tar.bytes, w.tar.length), 0);
                assert_int_equal(compress_end(sink), 0);
                compress_destroy(&sink);
            }
            assert_int_equal(read_bytes(&w, out.bytes.bytes, out.bytes.length, xva_read_disks), 0);
            assert_disk(w.disks[0], 0, noise, sizeof noise);
            buffer_done(&out.bytes);
            world_end(&w);
        }
}

/* A kilobyte of zstd that would become an endless tar. */
static void bombs_are_refused(void **state)
{
    struct memory_sink out = memory_sink();
    struct sink *sink = compress_new(COMPRESSION_ZSTD, &out.base);
    struct world w;
    char *zeros = alloc0((size_t) MIB);

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 1000);
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    sink->write(sink, w.tar.bytes, w.tar.length);
    for (unsigned i = 0; i < 100; i++)
        sink->write(sink, zeros, (size_t) MIB);
    assert_int_equal(compress_end(sink), 0);
    compress_destroy(&sink);
    buffer_done(&w.tar);
    w.tar = out.bytes;
    assert_refused(&w, xva_read_disks, "IMPORT_ERROR",
                   "the archive is much larger than what it has to contain", NULL);

    /* endless keep-alive blocks: as many as fit into the numbers */
    out = memory_sink();
    sink = compress_new(COMPRESSION_ZSTD, &out.base);
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 1000);
    sink->write(sink, w.tar.bytes, w.tar.length);
    for (unsigned i = 0; i < 1200000; i++) {
        char name[40];

        snprintf(name, sizeof name, "Ref:7/%08u", i);
        w.tar.length = 0;
        tar_head(&w.tar, name, '0', 0);
        sink->write(sink, w.tar.bytes, w.tar.length);
    }
    assert_int_equal(compress_end(sink), 0);
    compress_destroy(&sink);
    buffer_done(&w.tar);
    w.tar = out.bytes;
    w.step = 100000;
    assert_refused(&w, xva_read_disks, "IMPORT_ERROR",
                   "the archive is much larger than what it has to contain", NULL);
    free(zeros);
}

static void windows_beyond_what_decoders_must_have_are_refused(void **state)
{
    struct world w;
    size_t room = ZSTD_compressBound(20000000);
    char *packed = alloc0(room), *text = alloc0(20000000);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    size_t count;

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 1000);
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    memcpy(text, w.tar.bytes, w.tar.length);
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 24);
    count = ZSTD_compress2(context, packed, room, text, 20000000);
    assert_false(ZSTD_isError(count));
    buffer_clear(&w.tar);
    buffer_add(&w.tar, packed, count);
    assert_refused(&w, xva_read_disks, "IMPORT_ERROR",
                   "it was compressed with a window of more than 8 MiB (zstd --long): compress it anew without", NULL);
    ZSTD_freeCCtx(context);
    free(packed);
    free(text);
}

static void a_disk_that_cannot_be_written_ends_it(void **state)
{
    struct world w;

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "Ref:7", 200 * 4096);
    for (unsigned i = 0; i < 200; i++) {
        char name[40];

        snprintf(name, sizeof name, "Ref:7/%08u", i);
        tar_block(&w.tar, name, block, sizeof block);
    }
    tar_end(&w.tar);
    w.disks[0]->fail_result = -ENOSPC;
    for (w.disks[0]->fail_write_at = 0; w.disks[0]->fail_write_at < 200 * 4096;
         w.disks[0]->fail_write_at += 77777) {
        assert_int_equal(read_world(&w), -ENOSPC);
        assert_null(w.error.code);
        assert_int_equal(w.disks[0]->syncs, 0);
    }
    world_end(&w);
}

/* ---- legacy ---- */

static void tar_chunk(struct buffer *tar, const char *name, const void *bytes, size_t count)
{
    uLong bound = compressBound((uLong) count) + 100;
    char *packed = alloc0(bound);
    z_stream z = {.next_in = (Bytef *) bytes,
                  .avail_in = (uInt) count,
                  .next_out = (Bytef *) packed,
                  .avail_out = (uInt) bound};

    deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    tar_file(tar, name, packed, z.total_out);
    deflateEnd(&z);
    free(packed);
}

static void legacy_chunks_are_read(void **state)
{
    struct world w;

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "sda", 4000);
    world_add_disk(&w, "swap", 2000);
    tar_head(&w.tar, "swap/", '5', 0);
    tar_chunk(&w.tar, "swap/chunk000000000.gz", block + 3, 1000); /* short: zeros follow */
    tar_chunk(&w.tar, "sda/chunk-000000000.gz", block, 4000);
    tar_end(&w.tar);
    assert_int_equal(read_bytes(&w, w.tar.bytes, w.tar.length, xva_read_chunks), 0);
    assert_disk(w.disks[0], 0, block, 4000);
    assert_disk(w.disks[1], 0, block + 3, 1000);
    assert_disk(w.disks[1], 1000, nothing, 1000);
    world_end(&w);
}

/* Chunks of 1e9 bytes, of which few are not zeros, in the wrong order. */
static void legacy_chunks_lie_at_their_number_times_a_billion(void **state)
{
    const size_t full = 1000 * 1000 * 1000;
    char *chunk = calloc(full, 1);
    struct world w;

    (void) state;
    world_begin(&w);
    world_add_disk(&w, "sda", (int64_t) full + 3000);
    w.step = 100000;
    tar_chunk(&w.tar, "sda/chunk-000000001.gz", block, 3000);
    memcpy(chunk + full - 100, block, 100);
    tar_chunk(&w.tar, "sda/chunk-000000000.gz", chunk, full);
    tar_end(&w.tar);
    assert_int_equal(read_bytes(&w, w.tar.bytes, w.tar.length, xva_read_chunks), 0);
    assert_disk(w.disks[0], (int64_t) full - 100, block, 100);
    assert_disk(w.disks[0], (int64_t) full, block, 3000);
    assert_true(w.disks[0]->bytes_written < 4 * 65536);
    world_end(&w);

    world_begin(&w);
    world_add_disk(&w, "sda", (int64_t) full + 3000);
    tar_chunk(&w.tar, "sda/chunk-000000000.gz", block, 3000);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_chunks, "IMPORT_ERROR",
                   "sda/chunk-000000000.gz has 3000 bytes instead of 1000000000", NULL);

    /* more than its place holds: a bomb ends at once */
    world_begin(&w);
    world_add_disk(&w, "sda", 3000);
    tar_chunk(&w.tar, "sda/chunk-000000000.gz", chunk, full);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_chunks, "IMPORT_ERROR",
                   "sda/chunk-000000000.gz has more bytes than its place has", NULL);
    free(chunk);
}

static void legacy_refusals(void **state)
{
    static const char *const names[] = {
        "sda/chunk-000000001.gz",        "sda/chunk-00000000.gz",     "sdb/chunk-000000000.gz",
        "sda/../sda/chunk-000000000.gz", "sda/chunk-000000000.gz.gz", "sda/00000000"};
    struct world w;

    (void) state;
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        world_begin(&w);
        world_add_disk(&w, "sda", 3000);
        tar_chunk(&w.tar, names[i], block, 3000);
        tar_end(&w.tar);
        assert_refused(&w, xva_read_chunks, UNEXPECTED, "sda/chunk-000000000.gz", names[i]);
    }
    world_begin(&w);
    world_add_disk(&w, "sda", 3000);
    tar_chunk(&w.tar, "sda/chunk-000000000.gz", block, 3000);
    tar_chunk(&w.tar, "sda/chunk000000000.gz", block, 3000); /* twice */
    tar_end(&w.tar);
    assert_refused(&w, xva_read_chunks, UNEXPECTED, "the end of the archive",
                   "sda/chunk000000000.gz");

    world_begin(&w);
    world_add_disk(&w, "sda", 3000);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_chunks, "IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND", NULL, NULL);

    world_begin(&w);
    world_add_disk(&w, "sda", 3000);
    tar_file(&w.tar, "sda/chunk-000000000.gz", block, 500);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_chunks, "IMPORT_ERROR", "sda/chunk-000000000.gz is damaged", NULL);

    world_begin(&w);
    world_add_disk(&w, "sda", 3000);
    tar_head(&w.tar, "sda/chunk-000000000.gz", '2', 0);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_chunks, UNEXPECTED, NULL, NULL);

    /* a gzip that is cut inside its member */
    world_begin(&w);
    world_add_disk(&w, "sda", 3000);
    tar_chunk(&w.tar, "x", block, 3000);
    {
        struct buffer cut;

        buffer_init(&cut, SIZE_MAX);
        tar_file(&cut, "ova.xml", "<value/>", 8);
        tar_file(&cut, "sda/chunk-000000000.gz", w.tar.bytes + 3 * 512, 200);
        tar_end(&cut);
        buffer_done(&w.tar);
        w.tar = cut;
    }
    assert_refused(&w, xva_read_chunks, CUT, NULL, NULL);
}

/* Those that read at once share what there is, and give it back when their text is not wanted any more. */
static void texts_share_a_budget(void **state)
{
    static char text[3000];
    struct xva_budget budget = {5000};
    struct transfer_figures figures = {0};
    struct memory_source sources[3];
    struct xva_reader *readers[3];
    struct buffer tar;
    const char *ova;
    size_t bytes;

    (void) state;
    memset(text, 'x', sizeof text);
    buffer_init(&tar, SIZE_MAX);
    tar_file(&tar, "ova.xml", text, sizeof text);
    buffer_add(&tar, nothing, 1024);
    for (unsigned i = 0; i < 3; i++) {
        memory_source_init(&sources[i], tar.bytes, tar.length, 700);
        readers[i] = xva_reader_new(&sources[i].base, &figures);
        xva_reader_share(readers[i], &budget);
    }
    assert_int_equal(xva_read_ova(readers[0], &ova, &bytes), 0);
    assert_int_equal(bytes, sizeof text);
    assert_int_equal(xva_read_ova(readers[1], &ova, &bytes), -ENOBUFS);
    assert_int_equal(budget.bytes_left, 2000); /* what it had taken is free again */
    xva_forget_ova(readers[0]);
    assert_int_equal(budget.bytes_left, 5000);
    assert_int_equal(xva_read_ova(readers[2], &ova, &bytes), 0);
    for (unsigned i = 0; i < 3; i++)
        xva_reader_destroy(&readers[i]);
    assert_int_equal(budget.bytes_left, 5000);
    buffer_done(&tar);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_share_a_budget),
        cmocka_unit_test(gaps_are_as_large_as_the_first_block),
        cmocka_unit_test(an_empty_block_takes_a_number_and_no_room),
        cmocka_unit_test(checksums_of_both_kinds_are_taken_also_mixed),
        cmocka_unit_test(a_wrong_checksum_is_refused_unless_forced),
        cmocka_unit_test(zeros_are_not_written),
        cmocka_unit_test(disks_come_in_any_order_and_empty_ones_not_at_all),
        cmocka_unit_test(tools_own_headers_are_let_pass),
        cmocka_unit_test(compressed_archives_are_recognised),
        cmocka_unit_test(the_oldest_archives_have_a_table_at_the_end),
        cmocka_unit_test(the_first_member_is_ova_xml),
        cmocka_unit_test(members_that_have_no_business_there_are_refused),
        cmocka_unit_test(a_gap_cannot_overflow),
        cmocka_unit_test(a_block_needs_its_checksum),
        cmocka_unit_test(long_names_are_compared_like_any),
        cmocka_unit_test(disks_that_do_not_come_are_told),
        cmocka_unit_test(an_archive_cut_anywhere_is_refused),
        cmocka_unit_test(behind_the_end_of_an_endless_stream_nothing_is_read),
        cmocka_unit_test(bombs_are_refused),
        cmocka_unit_test(windows_beyond_what_decoders_must_have_are_refused),
        cmocka_unit_test(a_disk_that_cannot_be_written_ends_it),
        cmocka_unit_test(legacy_chunks_are_read),
        cmocka_unit_test(legacy_chunks_lie_at_their_number_times_a_billion),
        cmocka_unit_test(legacy_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
