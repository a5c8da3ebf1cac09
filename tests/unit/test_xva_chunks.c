/* test_xva_chunks.c - imports of the oldest archives, whose disks are gzipped chunks of a billion bytes */
#include <zlib.h>

#include "tests/unit/import_world.h"

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
    world_begin_with(&w, "sda", 4000);
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
    world_begin_with(&w, "sda", (int64_t) full + 3000);
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

    world_begin_with(&w, "sda", (int64_t) full + 3000);
    tar_chunk(&w.tar, "sda/chunk-000000000.gz", block, 3000);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_chunks, "IMPORT_ERROR",
                   "sda/chunk-000000000.gz has 3000 bytes instead of 1000000000", NULL);

    /* more than its place holds: a bomb ends at once */
    world_begin_with(&w, "sda", 3000);
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
        world_begin_with(&w, "sda", 3000);
        tar_chunk(&w.tar, names[i], block, 3000);
        tar_end(&w.tar);
        assert_refused(&w, xva_read_chunks, UNEXPECTED, "sda/chunk-000000000.gz", names[i]);
    }
    world_begin_with(&w, "sda", 3000);
    tar_chunk(&w.tar, "sda/chunk-000000000.gz", block, 3000);
    tar_chunk(&w.tar, "sda/chunk000000000.gz", block, 3000); /* twice */
    tar_end(&w.tar);
    assert_refused(&w, xva_read_chunks, UNEXPECTED, "the end of the archive",
                   "sda/chunk000000000.gz");

    world_begin_with(&w, "sda", 3000);
    tar_end(&w.tar);
    w.expected_where = "sda";
    assert_refused(&w, xva_read_chunks, "IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND", NULL, NULL);

    world_begin_with(&w, "sda", 3000);
    tar_file(&w.tar, "sda/chunk-000000000.gz", block, 500);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_chunks, "IMPORT_ERROR", "sda/chunk-000000000.gz is damaged", NULL);

    world_begin_with(&w, "sda", 3000);
    tar_head(&w.tar, "sda/chunk-000000000.gz", '2', 0);
    tar_end(&w.tar);
    assert_refused(&w, xva_read_chunks, UNEXPECTED, NULL, NULL);

    /* a gzip that is cut inside its member */
    world_begin_with(&w, "sda", 3000);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(legacy_chunks_are_read),
        cmocka_unit_test(legacy_chunks_lie_at_their_number_times_a_billion),
        cmocka_unit_test(legacy_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
