/* test_raw_stream.c - plain bytes of disks out and in; records that lie, ends that come too early or not at all */
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "slave/raw_stream.h"
#include "tests/unit/disk_files.h"
#include "tests/unit/memory_stream.h"

#define SIZE (8 * MIB)

struct fixture {
    struct disk_files files; /* its disk: SIZE bytes of 0x99 */
    char *bytes;             /* SIZE bytes: 2 MiB of data, zeros, 1 MiB of data at 5 MiB + 1000 */
    struct transfer_figures figures;
};

static int begin_format(void **state, const char *format)
{
    struct fixture *f = new0(struct fixture);
    char *old = alloc0(SIZE);

    disk_files_make(&f->files);
    run(&f->files, "qemu-img create -q -f %s disk %d", format, SIZE);
    f->files.disk = open_disk(&f->files, "disk", format, true);
    memset(old, 0x99, SIZE);
    assert_int_equal(disk_io_write(f->files.disk, old, SIZE, 0), 0);
    free(old);
    f->bytes = alloc0(SIZE);
    memset(f->bytes, 0x11, 2 * MIB);
    memset(f->bytes + 5 * MIB + 1000, 0x22, MIB);
    *state = f;
    return 0;
}

static int begin_raw(void **state)
{
    return begin_format(state, "raw");
}

static int begin_qcow2(void **state)
{
    return begin_format(state, "qcow2");
}

static int end_format(void **state)
{
    struct fixture *f = *state;

    disk_files_done(&f->files);
    free(f->bytes);
    free(f);
    return 0;
}

static int import(struct fixture *f, const void *bytes, size_t count, size_t piece, int last)
{
    struct memory_source source;

    memory_source_init(&source, bytes, count, piece);
    source.end = last;
    f->figures = (struct transfer_figures){0};
    return raw_import(f->files.disk, &source.base, &f->figures, f->files.text);
}

static int import_chunked(struct fixture *f, const struct buffer *records, size_t piece)
{
    struct memory_source source;

    memory_source_init(&source, records->bytes, records->length, piece);
    return raw_import_chunked(f->files.disk, &source.base, &f->figures, f->files.text);
}

static void disk_is(struct fixture *f, const char *expected)
{
    char *bytes = alloc0(SIZE);

    assert_int_equal(disk_io_read(f->files.disk, bytes, SIZE, 0), 0);
    for (size_t i = 0; i < SIZE; i++)
        if (bytes[i] != expected[i])
            fail_msg("byte %zu is %02x, not %02x", i, (unsigned char) bytes[i], (unsigned char) expected[i]);
    free(bytes);
}

static void what_goes_in_comes_out(void **state)
{
    struct fixture *f = *state;
    struct memory_sink sink;
    int64_t at, to;

    assert_int_equal(import(f, f->bytes, SIZE, 60001, 0), 0);
    assert_int_equal(f->figures.disk_bytes_done, SIZE);
    assert_int_equal(f->figures.disk_bytes_total, SIZE);
    disk_is(f, f->bytes);
    /* the zeros take no room */
    assert_int_equal(disk_io_next_data(f->files.disk, 2 * MIB, &at, &to), 0);
    assert_true(at > 4 * MIB && at <= 5 * MIB + 1000);
    assert_int_equal(disk_io_next_data(f->files.disk, 7 * MIB, &at, &to), -ENXIO);

    f->figures = (struct transfer_figures){0};
    memory_sink_init(&sink);
    assert_int_equal(raw_export(f->files.disk, 0, SIZE, &sink.base, &f->figures), 0);
    assert_int_equal(sink.bytes.length, SIZE);
    assert_memory_equal(sink.bytes.bytes, f->bytes, SIZE);
    assert_int_equal(f->figures.disk_bytes_done, SIZE);
    buffer_clear(&sink.bytes);

    assert_int_equal(raw_export(f->files.disk, 2 * MIB - 7, 5 * MIB + 1001, &sink.base, NULL), 0);
    assert_int_equal(sink.bytes.length, 3 * MIB + 1008);
    assert_memory_equal(sink.bytes.bytes, f->bytes + 2 * MIB - 7, sink.bytes.length);
    assert_int_equal(raw_export(f->files.disk, 7, 7, &sink.base, NULL), 0);
    assert_int_equal(raw_export(f->files.disk, 0, SIZE + 1, &sink.base, NULL), -EINVAL);
    assert_int_equal(raw_export(f->files.disk, 2, 1, &sink.base, NULL), -EINVAL);
    sink.fail_after = 0;
    assert_int_equal(raw_export(f->files.disk, 0, SIZE, &sink.base, NULL), -EPIPE);
    buffer_done(&sink.bytes);
}

static void a_short_body_leaves_nothing_old(void **state)
{
    struct fixture *f = *state;

    memset(f->bytes + 6 * MIB - 3, 0, 2 * MIB + 3);
    assert_int_equal(import(f, f->bytes, 6 * MIB - 3, 4096, 0), 0);
    assert_int_equal(f->figures.disk_bytes_done, SIZE);
    disk_is(f, f->bytes);
    memset(f->bytes, 0, SIZE);
    assert_int_equal(import(f, f->bytes, 0, 1, 0), 0);
    disk_is(f, f->bytes);
}

static void a_long_body_is_refused(void **state)
{
    struct fixture *f = *state;
    char *longer = alloc0(SIZE + 1);

    assert_int_equal(import(f, longer, SIZE + 1, MIB, 0), -EFBIG);
    assert_string_equal(f->files.text, "there is more than the disk has room for");
    free(longer);
}

/* A client that does not know a length leaves its connection open: a read behind the end would wait. */
static void behind_the_end_of_an_endless_stream_nothing_is_read(void **state)
{
    struct fixture *f = *state;
    struct memory_source source;
    static const char records[12 + 7 + 12] = "\0\0\0\0\0\0\0\0\7\0\0\0changed";

    memory_source_init(&source, f->bytes, SIZE, MIB);
    source.end = -ECANCELED;
    source.base.is_endless = true;
    assert_int_equal(raw_import(f->files.disk, &source.base, NULL, f->files.text), 0);
    disk_is(f, f->bytes);

    memory_source_init(&source, records, sizeof records, 5);
    source.end = -ECANCELED;
    source.base.is_endless = true;
    assert_int_equal(raw_import_chunked(f->files.disk, &source.base, NULL, f->files.text), 0);
    memcpy(f->bytes, "changed", 7);
    disk_is(f, f->bytes);
}

static void a_lost_connection_is_no_end(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(import(f, f->bytes, 3 * MIB, MIB, -EPIPE), -EPIPE);
    assert_int_equal(import(f, f->bytes, SIZE, MIB, -EPIPE), -EPIPE);
    assert_int_equal(import(f, f->bytes, 3 * MIB, MIB, -ECANCELED), -ECANCELED);
}

/* ---- records ---- */

static void add_record(struct buffer *records, uint64_t offset, uint32_t length, const void *bytes, size_t count)
{
    uint64_t offset_le = htole64(offset);
    uint32_t length_le = htole32(length);

    buffer_add(records, &offset_le, sizeof offset_le);
    buffer_add(records, &length_le, sizeof length_le);
    buffer_add(records, bytes, count);
}

static void records_in_any_order(void **state)
{
    struct fixture *f = *state;
    char *expected = alloc0(SIZE);

    for (size_t piece = 1; piece <= 4096; piece *= 64) {
        struct buffer records;

        buffer_init(&records, SIZE_MAX);
        memset(expected, 0x99, SIZE);
        memcpy(expected + SIZE - 5000, f->bytes, 5000);
        memset(expected + 131072, 0, 131072);
        memcpy(expected, f->bytes, 3);
        add_record(&records, SIZE - 5000, 5000, f->bytes, 5000);
        add_record(&records, 131072, 131072, f->bytes + 3 * MIB, 131072);
        add_record(&records, 77, 0, "", 0);
        add_record(&records, 0, 3, f->bytes, 3);
        add_record(&records, SIZE, 0, "", 0);
        add_record(&records, 0, 0, "", 0);
        assert_int_equal(import_chunked(f, &records, piece), 0);
        disk_is(f, expected);
        buffer_done(&records);
    }
    free(expected);
}

static void records_that_lie(void **state)
{
    static const struct {
        uint64_t offset;
        uint32_t length, count;
        bool has_end;
        int error;
    } rows[] = {
        {SIZE, 1, 1, true, -EFBIG},
        {SIZE - 1, 2, 2, true, -EFBIG},
        {UINT64_MAX, 1, 1, true, -EFBIG},
        {UINT64_MAX - 10, 4096, 4096, true, -EFBIG},
        {1ULL << 63, 16, 16, true, -EFBIG},
        {0, UINT32_MAX, 16, false, -EFBIG},
        {0, 4096, 4095, false, -EBADMSG},
        {0, 4096, 4096, false, -EBADMSG},
        {SIZE, 0, 0, false, -EBADMSG},
    };
    struct fixture *f = *state;
    char *expected = alloc0(SIZE);
    struct buffer records;

    memset(expected, 0x99, SIZE);
    buffer_init(&records, SIZE_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        buffer_clear(&records);
        add_record(&records, rows[i].offset, rows[i].length, f->bytes, rows[i].count);
        if (rows[i].has_end)
            add_record(&records, 0, 0, "", 0);
        assert_int_equal(import_chunked(f, &records, 4096), rows[i].error);
        assert_true(f->files.text[0]);
        if (rows[i].error == -EFBIG)
            disk_is(f, expected);
    }
    buffer_clear(&records);
    add_record(&records, 0, 0, "x", 1);
    assert_int_equal(import_chunked(f, &records, 4096), -EBADMSG);
    buffer_clear(&records);
    assert_int_equal(import_chunked(f, &records, 4096), -EBADMSG);
    buffer_done(&records);
    free(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"what_goes_in_comes_out_raw", what_goes_in_comes_out, begin_raw, end_format, NULL},
        {"what_goes_in_comes_out_qcow2", what_goes_in_comes_out, begin_qcow2, end_format, NULL},
        {"a_short_body_leaves_nothing_old_raw", a_short_body_leaves_nothing_old, begin_raw, end_format, NULL},
        {"a_short_body_leaves_nothing_old_qcow2", a_short_body_leaves_nothing_old, begin_qcow2, end_format, NULL},
        cmocka_unit_test_setup_teardown(a_long_body_is_refused, begin_raw, end_format),
        cmocka_unit_test_setup_teardown(behind_the_end_of_an_endless_stream_nothing_is_read, begin_raw, end_format),
        cmocka_unit_test_setup_teardown(a_lost_connection_is_no_end, begin_raw, end_format),
        cmocka_unit_test_setup_teardown(records_in_any_order, begin_raw, end_format),
        cmocka_unit_test_setup_teardown(records_that_lie, begin_raw, end_format),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
