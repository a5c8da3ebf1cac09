/* test_xva_refusals.c - imports of archives that have what does not belong there, or lack what does */
#include "tests/unit/import_world.h"

static void begin_without_ova(struct world *world)
{
    world_begin(world);
    buffer_clear(&world->tar);
}

static void the_first_member_is_ova_xml(void **state)
{
    struct world w;

    (void) state;
    begin_without_ova(&w);
    tar_file(&w.tar, "../ova.xml", "x", 1);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, UNEXPECTED, "ova.xml", "../ova.xml");

    begin_without_ova(&w);
    tar_head(&w.tar, "ova.xml", '2', 0);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, UNEXPECTED, "ova.xml", "ova.xml, which is no plain file");

    begin_without_ova(&w);
    tar_head(&w.tar, "ova.xml", '0', XVA_OVA_BYTES_MAX + 1);
    assert_refused(&w, xva_read_disks, "IMPORT_ERROR",
                   "ova.xml has 16777217 bytes, which is too large", NULL);

    begin_without_ova(&w);
    for (unsigned i = 0; i < 3000; i++)
        buffer_add(&w.tar, "no archive ", 11);
    assert_refused(&w, xva_read_disks, "IMPORT_ERROR", NULL, NULL);

    begin_without_ova(&w);
    assert_refused(&w, xva_read_disks, CUT, NULL, NULL);

    begin_without_ova(&w);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, CUT, NULL, NULL);
}

/* A member where the second block of Ref:7 is expected. */
static void assert_member_refused(const char *name, char type, int64_t size, const char *code)
{
    struct world w;

    world_begin_with(&w, "Ref:7", 3000);
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
    world_begin_with(&w, "Ref:7", 3000);
    tar_head(&w.tar, "Ref:7/99999999", '0', INT64_MAX - 4096);
    assert_refused(&w, xva_read_disks, "IMPORT_ERROR", NULL, NULL);
}

static void a_block_needs_its_checksum(void **state)
{
    struct world w;

    (void) state;
    world_begin_with(&w, "Ref:7", 3000);
    tar_file(&w.tar, "Ref:7/00000000", block, 1000);
    tar_block(&w.tar, "Ref:7/00000002", block, 1000);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, UNEXPECTED, "Ref:7/00000000.xxhash", "Ref:7/00000002");

    world_begin_with(&w, "Ref:7", 1000);
    tar_file(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, CUT, NULL, NULL);
}

static void long_names_are_compared_like_any(void **state)
{
    struct world w;
    char name[5000];

    (void) state;
    world_begin_with(&w, "Ref:7", 1000);
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

        world_begin_with(&w, "Ref:7", 1000);
        tar_head(&w.tar, "pax", 'x', (int64_t) strlen(pax[i]));
        tar_body(&w.tar, pax[i], strlen(pax[i]));
        tar_file(&w.tar, "Ref:7/00000000", block, 1000);
        tar_end(&w.tar);
        assert_int_equal(read_world(&w), -EBADMSG);
        world_end(&w);
    }
}

/* What is wrong is not its name. */
static void members_that_are_no_files_are_told_as_such(void **state)
{
    struct world w;

    (void) state;
    world_begin_with(&w, "Ref:7", 1000);
    tar_head(&w.tar, "Ref:7/00000000", '3', 0);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_disks, UNEXPECTED, "Ref:7/00000000", "Ref:7/00000000, which is no plain file");
}

static void disks_that_do_not_come_are_told(void **state)
{
    struct world w;

    (void) state;
    world_begin_with(&w, "Ref:7", 1000);
    world_add_disk(&w, "Ref:8", 1000);
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    w.expected_where = "Ref:8";
    assert_refused(&w, xva_read_disks, "IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND", NULL, NULL);

    world_begin_with(&w, "Ref:7", 2000);
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    w.expected_where = "Ref:7/00000000.xxhash"; /* cut behind it */
    assert_refused(&w, xva_read_disks, CUT, NULL, NULL);

    world_begin_with(&w, "Ref:7", 2000);
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    w.expected_where = "Ref:7";
    assert_refused(&w, xva_read_disks, CUT, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_member_is_ova_xml),
        cmocka_unit_test(members_that_have_no_business_there_are_refused),
        cmocka_unit_test(a_gap_cannot_overflow),
        cmocka_unit_test(a_block_needs_its_checksum),
        cmocka_unit_test(long_names_are_compared_like_any),
        cmocka_unit_test(members_that_are_no_files_are_told_as_such),
        cmocka_unit_test(disks_that_do_not_come_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
