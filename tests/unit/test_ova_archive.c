/* test_ova_archive.c - the archive around ova.xml: packed and unpacked, cut, blown up, of the wrong
 * kind */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <archive.h>
#include <archive_entry.h>
#include <zstd.h>

#include "master/ova_archive.h"
#include "shared/arena.h"
#include "shared/decompress.h"
#include "shared/failure.h"

static struct arena *arena;
static struct failure failure;

static int setup(void **state)
{
    (void) state;
    model_init();
    arena = arena_new();
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    arena_destroy(&arena);
    return 0;
}

static void pack(const char *text, size_t length, enum ova_compression compression,
                 struct buffer *ret)
{
    buffer_init(ret, 8 << 20);
    assert_int_equal(ova_pack(text, length, compression, ret, arena, &failure), 0);
}

static int unpack(const char *bytes, size_t length, struct buffer *ret)
{
    buffer_init(ret, 1 << 20);
    return ova_unpack(bytes, length, ret, arena, &failure);
}

static void what_is_packed_is_unpacked(void **state)
{
    static const char text[] = "<value>x</value>";

    (void) state;
    for (enum ova_compression how = OVA_PLAIN; how <= OVA_ZSTD; how++) {
        struct buffer archive, again, got;

        pack(text, strlen(text), how, &archive);
        pack(text, strlen(text), how, &again);
        assert_int_equal(archive.length, again.length);
        assert_memory_equal(archive.bytes, again.bytes, archive.length);
        assert_int_equal(unpack(archive.bytes, archive.length, &got), 0);
        assert_string_equal(buffer_text(&got), text);
        if (how == OVA_PLAIN) /* one header, one block, two zero blocks */
            assert_int_equal(archive.length, 4 * 512);
        buffer_done(&archive);
        buffer_done(&again);
        buffer_done(&got);
    }
}

static void each_cut_is_refused(void **state)
{
    char text[3000];
    struct buffer archive, got;

    (void) state;
    memset(text, 'x', sizeof text);
    pack(text, sizeof text, OVA_PLAIN, &archive);
    for (size_t length = 0; length < 512 + sizeof text; length++) {
        assert_true(unpack(archive.bytes, length, &got) < 0);
        assert_true(got.length < sizeof text);
        buffer_done(&got);
    }
    buffer_done(&archive);
}

static void a_bomb_stays_small(void **state)
{
    char *text = alloc0(4 << 20);

    (void) state;
    for (enum ova_compression how = OVA_GZIP; how <= OVA_ZSTD; how++) {
        struct buffer archive, got;

        pack(text, 4 << 20, how, &archive);
        assert_true(archive.length < 64 << 10);
        assert_int_equal(unpack(archive.bytes, archive.length, &got), -ERR_IMPORT_ERROR);
        assert_true(got.room <= 1 << 20);
        buffer_done(&archive);
        buffer_done(&got);
    }
    free(text);
}

/* The same decoder as for disks: what a host would refuse is refused here. */
static void large_windows_are_refused(void **state)
{
    size_t room = ZSTD_compressBound(20000000), count;
    char *packed = alloc0(room), *text = alloc0(20000000); /* less makes no window so large */
    struct buffer archive, got;

    (void) state;
    pack("<value/>", 8, OVA_PLAIN, &archive);
    memcpy(text, archive.bytes, archive.length);
    for (int log = 23; log <= 24; log++) {
        ZSTD_CCtx *context = ZSTD_createCCtx();

        ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
        ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, log);
        count = ZSTD_compress2(context, packed, room, text, 20000000);
        assert_false(ZSTD_isError(count));
        assert_int_equal(unpack(packed, count, &got), log == 23 ? 0 : -ERR_IMPORT_ERROR);
        assert_string_equal(log == 23 ? buffer_text(&got) : failure.params[0], log == 23 ? "<value/>" : DECOMPRESS_WINDOW_TEXT);
        buffer_done(&got);
        ZSTD_freeCCtx(context);
    }
    free(packed);
    free(text);
    buffer_done(&archive);
}

/* Cut within, whatever it is packed by; and damaged, by gzip's checksum, which comes last (libarchive's zstd has none). */
static void damaged_compression_is_told(void **state)
{
    char text[20000];

    (void) state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char) (i * i % 251 + i / 500);
    for (enum ova_compression how = OVA_GZIP; how <= OVA_ZSTD; how++) {
        struct buffer archive, got;

        pack(text, sizeof text, how, &archive);
        assert_int_equal(unpack(archive.bytes, archive.length / 2, &got), -ERR_IMPORT_ERROR_PREMATURE_EOF);
        buffer_done(&got);
        if (how == OVA_GZIP) {
            archive.bytes[archive.length - 6] ^= 1;
            assert_int_equal(unpack(archive.bytes, archive.length, &got), -ERR_IMPORT_ERROR);
            assert_string_equal(failure.params[0], "the compressed data is damaged");
            buffer_done(&got);
        }
        buffer_done(&archive);
    }
}

/* An archive with one member of any kind. */
static void odd_archive(const char *name, unsigned type, char *bytes, size_t room,
                        size_t *ret_length)
{
    struct archive *archive = archive_write_new();
    struct archive_entry *entry = archive_entry_new();

    archive_write_set_format_ustar(archive);
    archive_write_open_memory(archive, bytes, room, ret_length);
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, 0644);
    if (type == AE_IFLNK)
        archive_entry_set_symlink(entry, "/etc/passwd");
    archive_entry_set_size(entry, 0);
    archive_write_header(archive, entry);
    archive_entry_free(entry);
    archive_write_close(archive);
    archive_write_free(archive);
}

static void only_a_file_of_that_name_will_do(void **state)
{
    static const struct {
        const char *name;
        unsigned type;
    } odd[] = {{"ova.xml", AE_IFLNK},
               {"ova.xml", AE_IFDIR},
               {"../ova.xml", AE_IFREG},
               {"Ref:0", AE_IFREG}};
    char bytes[16384];

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        struct buffer got;
        size_t length;

        odd_archive(odd[i].name, odd[i].type, bytes, sizeof bytes, &length);
        assert_int_equal(unpack(bytes, length, &got), -ERR_IMPORT_ERROR_UNEXPECTED_FILE);
        assert_string_equal(failure.params[0], "ova.xml");
        buffer_done(&got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_packed_is_unpacked, setup, teardown),
        cmocka_unit_test_setup_teardown(each_cut_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bomb_stays_small, setup, teardown),
        cmocka_unit_test_setup_teardown(large_windows_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_compression_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(only_a_file_of_that_name_will_do, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
