/* test_xva_read.c - imports: what blocks, their numbers and their checksums mean, and disks that fail */
#include <openssl/sha.h>

#include "tests/unit/import_world.h"

/* ---- blocks ---- */

static void gaps_are_as_large_as_the_first_block(void **state)
{
    struct world w;

    (void) state;
    world_begin_with(&w, "Ref:7", 10 * 1000 + 5);
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
    world_begin_with(&w, "Ref:7", 5000);
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

static void zeros_are_not_written(void **state)
{
    struct world w;
    char *large = alloc0((size_t) MIB);

    (void) state;
    world_begin_with(&w, "Ref:7", 3 * MIB);
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
    world_begin_with(&w, "Ref:7", 1000);
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
    world_begin_with(&w, "Ref:7", 1000);
    tar_head(&w.tar, "PaxHeader/x", 'x', (int64_t) strlen(pax));
    tar_body(&w.tar, pax, strlen(pax));
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    buffer_add(&w.tar, nothing, 4096); /* tar's own padding */
    buffer_add(&w.tar, nothing, 4096);
    assert_int_equal(read_world(&w), 0);
    world_end(&w);
}

static void a_disk_that_cannot_be_written_ends_it(void **state)
{
    struct world w;

    (void) state;
    world_begin_with(&w, "Ref:7", 200 * 4096);
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

/* ---- checksums ---- */

static void tar_sha1(struct buffer *tar, const char *name, const void *bytes, size_t count)
{
    unsigned char digest[SHA_DIGEST_LENGTH];
    char digits[41];

    SHA1(bytes, count, digest);
    for (unsigned i = 0; i < sizeof digest; i++)
        snprintf(digits + 2 * i, 3, "%02x", digest[i]);
    tar_file(tar, name, digits, 40);
}

static void checksums_of_both_kinds_are_taken_also_mixed(void **state)
{
    (void) state;
    for (unsigned pattern = 0; pattern < 32; pattern++) {
        struct world w;

        world_begin_with(&w, "Ref:7", 5000);
        for (unsigned i = 0; i < 5; i++) {
            char name[40];

            snprintf(name, sizeof name, "Ref:7/%08u", i);
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

            world_begin_with(&w, "Ref:7", 2000);
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
                w.expected_where = kind == 0 ? "Ref:7/00000001.xxhash" : "Ref:7/00000001.checksum";
                assert_refused(&w, xva_read_disks, "IMPORT_ERROR_SOME_CHECKSUMS_FAILED", NULL,
                               NULL);
            }
        }
}

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

            world_begin_with(&w, "Ref:7", 3000);
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

/* ---- ova.xml ---- */

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
        cmocka_unit_test(gaps_are_as_large_as_the_first_block),
        cmocka_unit_test(an_empty_block_takes_a_number_and_no_room),
        cmocka_unit_test(zeros_are_not_written),
        cmocka_unit_test(disks_come_in_any_order_and_empty_ones_not_at_all),
        cmocka_unit_test(tools_own_headers_are_let_pass),
        cmocka_unit_test(a_disk_that_cannot_be_written_ends_it),
        cmocka_unit_test(checksums_of_both_kinds_are_taken_also_mixed),
        cmocka_unit_test(a_wrong_checksum_is_refused_unless_forced),
        cmocka_unit_test(the_oldest_archives_have_a_table_at_the_end),
        cmocka_unit_test(texts_share_a_budget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
