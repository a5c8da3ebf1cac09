/* test_xva_compressed.c - imports by gzip and zstd, and as they are: in pieces, cut anywhere, without an end, and bombs */
#include <zstd.h>

#include "slave/compress.h"
#include "tests/unit/import_world.h"

/* The archive as it is so far, compressed in parts, one behind the other. */
static void pack(struct world *world, enum compression kind, unsigned parts)
{
    struct memory_sink out;

    if (kind == COMPRESSION_NONE)
        return;
    memory_sink_init(&out);
    for (unsigned i = 0; i < parts; i++) {
        struct sink *sink = compress_new(kind, &out.base);
        size_t from = world->tar.length * i / parts, to = world->tar.length * (i + 1) / parts;

        assert_int_equal(sink->write(sink, world->tar.bytes + from, to - from), 0);
        assert_int_equal(compress_end(sink), 0);
        compress_destroy(&sink);
    }
    buffer_done(&world->tar);
    world->tar = out.bytes;
}

/* A whole archive by gzip and zstd in one piece and in several. */
static void compressed_archives_are_recognised(void **state)
{
    (void) state;
    for (int kind = COMPRESSION_GZIP; kind <= COMPRESSION_ZSTD; kind++)
        for (unsigned parts = 1; parts <= 3; parts++)
            for (size_t step = 1; step < 10000; step = step * 5 + 1) {
                struct world w;

                world_begin_with(&w, "Ref:7", 3000);
                w.step = step;
                tar_block(&w.tar, "Ref:7/00000000", block, 1000);
                tar_block(&w.tar, "Ref:7/00000001", block, 1000);
                tar_block(&w.tar, "Ref:7/00000002", block, 1000);
                tar_end(&w.tar);
                pack(&w, (enum compression) kind, parts);
                assert_int_equal(read_world(&w), 0);
                assert_disk(w.disks[0], 2000, block, 1000);
                world_end(&w);
            }
}

/* Whatever its compression, a cut archive is never taken, and says why. */
static void an_archive_cut_anywhere_is_refused(void **state)
{
    (void) state;
    for (int kind = COMPRESSION_NONE; kind <= COMPRESSION_ZSTD; kind++) {
        struct world w;
        size_t whole;
        int r;

        world_begin_with(&w, "Ref:7", 20 * 4096 + 100);
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
        pack(&w, (enum compression) kind, 1);
        assert_int_equal(read_world(&w), 0);
        /* one of the two records at the end is enough */
        whole = kind == COMPRESSION_NONE ? w.tar.length - 1023 : w.tar.length;
        for (size_t at = 0; at < whole;
             at += at < whole - 600 ? (kind == COMPRESSION_NONE ? 256 : 61) : 1) {
            w.end_result = at % 2 ? -EPIPE : 0;
            r = read_bytes(&w, w.tar.bytes, at, xva_read_disks);
            assert_true(r == -EBADMSG || r == -EPIPE);
            assert_string_equal(w.error.code, CUT);
        }
        w.end_result = -ECANCELED;
        assert_int_equal(read_bytes(&w, w.tar.bytes, w.tar.length / 2, xva_read_disks), -ECANCELED);
        assert_null(w.error.code);
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
            struct world w;

            world_begin_with(&w, "Ref:7", 1000);
            w.is_endless = true;
            w.end_result = -ECANCELED;
            w.step = step;
            tar_block(&w.tar, "Ref:7/00000000", noise, sizeof noise);
            tar_end(&w.tar);
            pack(&w, (enum compression) kind, 1);
            assert_int_equal(read_world(&w), 0);
            assert_disk(w.disks[0], 0, noise, sizeof noise);
            world_end(&w);
        }
}

/* What the sink has been given is the archive. */
static void assert_bomb_refused(struct world *world, struct sink *sink, struct memory_sink *out)
{
    assert_int_equal(compress_end(sink), 0);
    compress_destroy(&sink);
    buffer_done(&world->tar);
    world->tar = out->bytes;
    assert_refused(world, xva_read_disks, "IMPORT_ERROR",
                   "the archive is much larger than what it has to contain", NULL);
}

/* A kilobyte of zstd that would become an endless tar. */
static void bombs_are_refused(void **state)
{
    char *zeros = alloc0((size_t) MIB);
    struct memory_sink out;
    struct sink *sink;
    struct world w;

    (void) state;
    memory_sink_init(&out);
    sink = compress_new(COMPRESSION_ZSTD, &out.base);
    world_begin_with(&w, "Ref:7", 1000);
    tar_block(&w.tar, "Ref:7/00000000", block, 1000);
    tar_end(&w.tar);
    sink->write(sink, w.tar.bytes, w.tar.length);
    for (unsigned i = 0; i < 100; i++)
        sink->write(sink, zeros, (size_t) MIB);
    assert_bomb_refused(&w, sink, &out);

    /* endless keep-alive blocks: as many as fit into the numbers */
    memory_sink_init(&out);
    sink = compress_new(COMPRESSION_ZSTD, &out.base);
    world_begin_with(&w, "Ref:7", 1000);
    w.step = 100000;
    sink->write(sink, w.tar.bytes, w.tar.length);
    for (unsigned i = 0; i < 1200000; i++) {
        char name[40];

        snprintf(name, sizeof name, "Ref:7/%08u", i);
        buffer_clear(&w.tar);
        tar_head(&w.tar, name, '0', 0);
        sink->write(sink, w.tar.bytes, w.tar.length);
    }
    assert_bomb_refused(&w, sink, &out);
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
    world_begin_with(&w, "Ref:7", 1000);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compressed_archives_are_recognised),
        cmocka_unit_test(an_archive_cut_anywhere_is_refused),
        cmocka_unit_test(behind_the_end_of_an_endless_stream_nothing_is_read),
        cmocka_unit_test(bombs_are_refused),
        cmocka_unit_test(windows_beyond_what_decoders_must_have_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
