/* test_vhd.c - disks as VHD files and back, with QEMU as the other reader and writer; files that lie */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "slave/big_endian.h"
#include "slave/vhd.h"
#include "slave/vhd_read.h"
#include "slave/vhd_write.h"
#include "tests/unit/disk_files.h"
#include "tests/unit/memory_stream.h"

#define NOW 1700000000

static const ref_t uuid = {0x0123456789abcdef, 0x8edcba9876543210};
static const ref_t base_uuid = {0x1111111122224333, 0x8444555555555555};

/* f->disk as a VHD file, in memory and as `name`. */
static void export(struct disk_files *f, const struct vhd_base *base, struct memory_sink *ret, const char *name)
{
    struct transfer_figures figures = {0};
    struct vhd_plan *plan;

    assert_int_equal(vhd_plan_make(&plan, f->disk, uuid, NOW, base, f->text), 0);
    memory_sink_init(ret);
    assert_int_equal(vhd_write(plan, &ret->base, &figures), 0);
    assert_int_equal(ret->bytes.length, vhd_stream_bytes(plan));
    assert_int_equal(figures.disk_bytes_done, disk_io_size(f->disk));
    assert_int_equal(figures.disk_bytes_total, disk_io_size(f->disk));
    vhd_plan_destroy(&plan);
    write_file(f, name, &ret->bytes);
}

static int import(struct disk_files *f, struct disk_io *disk, const void *bytes, size_t count, size_t piece, ref_t base)
{
    struct memory_source source;

    memory_source_init(&source, bytes, count, piece);
    return vhd_read(disk, &source.base, base, NULL, f->text);
}

/* ---- what goes out comes in again ---- */

static void qemu_reads_what_we_write(void **state)
{
    struct disk_files *f = *state;
    struct memory_sink sink, again;

    make_disk(f, 33 * MIB);
    export(f, NULL, &sink, "a.vhd");
    run(f, "qemu-img compare -q -f raw -F vpc a.raw a.vhd");
    /* blocks 0, 1, 2, 10, 16 of 2 MiB */
    assert_int_equal(sink.bytes.length, 512 + 1024 + 512 + 5 * (512 + 2 * MIB) + 512);
    export(f, NULL, &again, "b.vhd");
    run(f, "cmp a.vhd b.vhd");
    buffer_done(&again.bytes);
    buffer_done(&sink.bytes);
}

static void disks_come_back(void **state)
{
    static const int64_t sizes[] = {0, 512, 1000, 2 * MIB, 2 * MIB + 512, 33 * MIB, 64 * MIB + 1};
    struct disk_files *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct memory_sink sink;

        make_disk(f, sizes[i]);
        export(f, NULL, &sink, "a.vhd");
        for (size_t piece = 511; piece < MIB; piece *= 511) {
            make_used(f, sizes[i]);
            assert_int_equal(import(f, f->other, sink.bytes.bytes, sink.bytes.length, piece, NULL_REF), 0);
            run(f, "cmp a.raw b.raw");
        }
        make_used(f, sizes[i] + 3 * MIB); /* a larger disk: zeros behind it */
        assert_int_equal(import(f, f->other, sink.bytes.bytes, sink.bytes.length, MIB, NULL_REF), 0);
        run(f, "truncate -s +3M a.raw && cmp a.raw b.raw && rm a.raw");
        if (sizes[i] >= MIB) {
            make_used(f, sizes[i] - 512);
            assert_int_equal(import(f, f->other, sink.bytes.bytes, sink.bytes.length, MIB, NULL_REF), -EFBIG);
        }
        disk_io_close(&f->disk);
        buffer_done(&sink.bytes);
    }
}

static void we_read_what_qemu_writes(void **state)
{
    static const char *const kinds[] = {"dynamic", "fixed"};
    struct disk_files *f = *state;

    make_disk(f, 33 * MIB);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct buffer file;

        run(f, "qemu-img convert -f raw -O vpc -o subformat=%s,force_size=on a.raw q.vhd", kinds[i]);
        read_file(f, "q.vhd", &file);
        for (size_t piece = 100; piece < 4 * MIB; piece *= 9999) {
            make_used(f, 33 * MIB);
            assert_int_equal(import(f, f->other, file.bytes, file.length, piece, NULL_REF), 0);
            run(f, "cmp a.raw b.raw");
        }
        make_used(f, 33 * MIB - 512);
        assert_int_equal(import(f, f->other, file.bytes, file.length, MIB, NULL_REF), -EFBIG);
        for (size_t less = 1; less < file.length; less = less * 7 + 300) {
            make_used(f, 33 * MIB);
            assert_int_equal(import(f, f->other, file.bytes, file.length - less, MIB, NULL_REF), -EBADMSG);
            assert_true(f->text[0]);
        }
        buffer_done(&file);
    }
}

/* A client that does not know a length leaves its connection open: a read behind the end would wait. */
static void behind_the_end_of_an_endless_stream_nothing_is_read(void **state)
{
    static const char *const kinds[] = {"dynamic", "fixed"};
    struct disk_files *f = *state;

    make_disk(f, 33 * MIB);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        for (size_t piece = 100; piece < 4 * MIB; piece *= 9999) {
            struct memory_source source;
            struct buffer file;

            run(f, "qemu-img convert -f raw -O vpc -o subformat=%s,force_size=on a.raw q.vhd", kinds[i]);
            read_file(f, "q.vhd", &file);
            make_used(f, 33 * MIB);
            memory_source_init(&source, file.bytes, file.length, piece);
            source.base.is_endless = true;
            source.end = -ECANCELED;
            assert_int_equal(vhd_read(f->other, &source.base, NULL_REF, NULL, f->text), 0);
            run(f, "cmp a.raw b.raw");
            memory_source_init(&source, file.bytes, file.length - 1, piece);
            source.base.is_endless = true;
            source.end = -ECANCELED;
            assert_int_equal(vhd_read(f->other, &source.base, NULL_REF, NULL, f->text), -ECANCELED);
            buffer_done(&file);
        }
}

/* QEMU allocates where it is written first: here the last block comes first in the file. */
static void blocks_in_any_order(void **state)
{
    struct disk_files *f = *state;
    struct buffer file;

    run(f, "qemu-img create -q -f vpc -o force_size=on q.vhd 20M");
    run(f, "qemu-io -f vpc -c 'write -P 1 18M 4k' -c 'write -P 2 0 1M' -c 'write -P 3 9M 2M' -c 'write -P 4 6M 512' q.vhd");
    run(f, "qemu-img convert -f vpc -O raw q.vhd a.raw");
    read_file(f, "q.vhd", &file);
    make_used(f, 20 * MIB);
    assert_int_equal(import(f, f->other, file.bytes, file.length, 4000, NULL_REF), 0);
    run(f, "cmp a.raw b.raw");
    buffer_done(&file);
}

static void into_a_qcow2(void **state)
{
    struct disk_files *f = *state;
    struct memory_sink sink;

    make_disk(f, 33 * MIB);
    export(f, NULL, &sink, "a.vhd");
    run(f, "qemu-img create -q -f qcow2 b.qcow2 33M && qemu-io -f qcow2 -c 'write -P 7 0 33M' b.qcow2");
    f->other = open_disk(f, "b.qcow2", "qcow2", true);
    assert_int_equal(import(f, f->other, sink.bytes.bytes, sink.bytes.length, 65536, NULL_REF), 0);
    assert_int_equal(disk_io_sync(f->other), 0);
    disk_io_close(&f->other);
    run(f, "qemu-img compare -q -f raw -F qcow2 a.raw b.qcow2");
    buffer_done(&sink.bytes);
}

static void the_largest_disk(void **state)
{
    struct disk_files *f = *state;
    struct memory_sink sink;
    struct vhd_plan *plan = NULL;

    make_disk(f, VHD_BYTES_MAX);
    export(f, NULL, &sink, "a.vhd");
    run(f, "qemu-img info --output=json -f vpc a.vhd | grep -q '\"virtual-size\": %lld,'", VHD_BYTES_MAX);
    run(f, "truncate -s %lld b.raw", VHD_BYTES_MAX);
    f->other = open_disk(f, "b.raw", "raw", true);
    assert_int_equal(import(f, f->other, sink.bytes.bytes, sink.bytes.length, MIB, NULL_REF), 0);
    run(f, "tail -c 2M a.raw | cmp - b.raw -i 0:%lld", VHD_BYTES_MAX - 2 * MIB);
    disk_io_close(&f->disk);
    make_disk(f, VHD_BYTES_MAX + 512);
    assert_int_equal(vhd_plan_make(&plan, f->disk, uuid, NOW, NULL, f->text), -EFBIG);
    assert_null(plan);
    buffer_done(&sink.bytes);
}

/* ---- differences ---- */

static void only_differences(void **state)
{
    struct disk_files *f = *state;
    struct vhd_base base = {.uuid = base_uuid, .made_utc = NOW - 10};
    struct memory_sink sink;

    make_disk(f, 33 * MIB);
    run(f, "cp --sparse=always a.raw base.raw");
    assert_int_equal(disk_io_write(f->disk, "changed", 7, 11 * MIB), 0); /* block 5, a hole */
    assert_int_equal(disk_io_write_zeros(f->disk, MIB, 20 * MIB), 0);    /* block 10, all of its data */
    base.disk = open_disk(f, "base.raw", "raw", true);
    export(f, &base, &sink, "a.vhd");
    disk_io_close(&base.disk);
    assert_int_equal(sink.bytes.length, 512 + 1024 + 512 + 512 + 2 * (512 + 2 * MIB) + 512);
    assert_int_equal(get_be32(sink.bytes.bytes + 60), VHD_DIFFERENCING);
    assert_memory_equal(sink.bytes.bytes + 512 + 64, "\0001\0001\0001\0001\0001\0001\0001\0001\0-", 18);

    f->other = open_disk(f, "base.raw", "raw", true);
    assert_int_equal(import(f, f->other, sink.bytes.bytes, sink.bytes.length, MIB, NULL_REF), -EOPNOTSUPP);
    assert_int_equal(import(f, f->other, sink.bytes.bytes, sink.bytes.length, MIB, uuid), -EOPNOTSUPP);
    assert_string_equal(f->text, "the VHD holds only differences from another disk");
    assert_int_equal(import(f, f->other, sink.bytes.bytes, sink.bytes.length, MIB, base_uuid), 0);
    run(f, "cmp a.raw base.raw");
    buffer_done(&sink.bytes);
}

/* ---- files that lie ---- */

#define LIE_SIZE (8 * MIB)
#define TABLE_AT 1536
#define STORED   (512 + VHD_BLOCK_BYTES)

/* A dynamic disk of four blocks, of which the table names what it is told. */
static size_t make_lie(char *bytes, const struct vhd_header *header, const uint32_t entries[4], int stored)
{
    struct vhd_footer footer = {.type = VHD_DYNAMIC, .size = LIE_SIZE, .header_at = 512, .made_utc = NOW, .uuid = uuid};
    size_t length = TABLE_AT + 512 + (size_t) stored * STORED;

    memset(bytes, 0xff, length);
    vhd_footer_write((unsigned char *) bytes, &footer);
    vhd_header_write((unsigned char *) bytes + 512, header);
    for (int i = 0; i < 4; i++)
        put_be32(bytes + TABLE_AT + 4 * i, entries[i]);
    vhd_footer_write((unsigned char *) bytes + length, &footer);
    return length + 512;
}

static void lies_are_refused(void **state)
{
    static const struct {
        struct vhd_header header;
        uint32_t entries[4];
        int error;
    } rows[] = {
#define GOOD {.table_at = TABLE_AT, .entries = 4, .block_bytes = VHD_BLOCK_BYTES}
#define NONE VHD_UNUSED
        {GOOD, {4, NONE, NONE, NONE}, 0},
        {GOOD, {NONE, 4 + STORED / 512, NONE, 4}, 0},
        {GOOD, {3, NONE, NONE, NONE}, -EBADMSG},                         /* in the table */
        {GOOD, {0, NONE, NONE, NONE}, -EBADMSG},                         /* in the footer */
        {GOOD, {4, 4, NONE, NONE}, -EBADMSG},                            /* twice the same */
        {GOOD, {4, 4 + STORED / 512 - 1, NONE, NONE}, -EBADMSG},         /* overlapping */
        {GOOD, {4, NONE, 0xfffffffe, NONE}, -EBADMSG},                   /* far beyond */
        {{.table_at = TABLE_AT, .entries = 3, .block_bytes = VHD_BLOCK_BYTES}, {4, NONE, NONE, NONE}, -EBADMSG},
        {{.table_at = TABLE_AT, .entries = UINT32_MAX, .block_bytes = VHD_BLOCK_BYTES}, {4, NONE, NONE, NONE}, -EBADMSG},
        {{.table_at = TABLE_AT, .entries = 1u << 22, .block_bytes = VHD_BLOCK_BYTES}, {4, NONE, NONE, NONE}, -EBADMSG},
        {{.table_at = TABLE_AT, .entries = 4, .block_bytes = 0}, {4, NONE, NONE, NONE}, -EBADMSG},
        {{.table_at = TABLE_AT, .entries = 4, .block_bytes = 3 * MIB}, {4, NONE, NONE, NONE}, -EBADMSG},
        {{.table_at = TABLE_AT, .entries = 4, .block_bytes = 1u << 31}, {4, NONE, NONE, NONE}, -EBADMSG},
        {{.table_at = 512, .entries = 4, .block_bytes = VHD_BLOCK_BYTES}, {4, NONE, NONE, NONE}, -EOPNOTSUPP},
        {{.table_at = UINT64_MAX, .entries = 4, .block_bytes = VHD_BLOCK_BYTES}, {4, NONE, NONE, NONE}, -EBADMSG},
        {{.table_at = 1u << 30, .entries = 4, .block_bytes = VHD_BLOCK_BYTES}, {4, NONE, NONE, NONE}, -EBADMSG},
        {{.table_at = 10 * MIB, .entries = 4, .block_bytes = VHD_BLOCK_BYTES}, {4, NONE, NONE, NONE}, -EBADMSG},
    };
    struct disk_files *f = *state;
    char *bytes = alloc0(TABLE_AT + 1024 + 2 * STORED);

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        size_t length = make_lie(bytes, &rows[i].header, rows[i].entries, 2);
        int r;

        make_used(f, LIE_SIZE);
        r = import(f, f->other, bytes, length, 4096, NULL_REF);
        if (r != rows[i].error)
            fail_msg("row %zu: %d %s", i, r, f->text);
        assert_int_equal(r < 0, f->text[0] != '\0');
    }
    free(bytes);
}

static void damage_is_seen(void **state)
{
    struct vhd_header header = GOOD;
    uint32_t entries[4] = {4, NONE, NONE, NONE};
    static const size_t places[] = {0, 9, 40, 60, 66, 100, 511, 512, 530, 543, 600, 1535};
    struct disk_files *f = *state;
    char *bytes = alloc0(TABLE_AT + 1024 + STORED);

    for (size_t i = 0; i < ARRAY_SIZE(places) + 2; i++) {
        size_t length = make_lie(bytes, &header, entries, 1);
        size_t at = i < ARRAY_SIZE(places) ? places[i] : length - 512 * (i - ARRAY_SIZE(places)) - 1;

        bytes[at] ^= 0x10;
        make_used(f, LIE_SIZE);
        assert_int_equal(import(f, f->other, bytes, length, 4096, NULL_REF), at == length - 513 ? 0 : -EBADMSG);
    }
    free(bytes);
    assert_int_equal(import(f, f->other, "", 0, 1, NULL_REF), -EBADMSG);
}

/* Sectors that the bitmap leaves out read as zeros. */
static void bitmaps_count(void **state)
{
    struct vhd_header header = GOOD;
    uint32_t entries[4] = {NONE, 4, NONE, NONE};
    struct disk_files *f = *state;
    char *bytes = alloc0(TABLE_AT + 1024 + STORED), *disk = alloc0(LIE_SIZE);
    size_t length = make_lie(bytes, &header, entries, 1);

    memset(bytes + 2048, 0, 512);
    bytes[2048] = 0x41; /* sectors 1 and 7 */
    make_used(f, LIE_SIZE);
    assert_int_equal(import(f, f->other, bytes, length, 4096, NULL_REF), 0);
    assert_int_equal(disk_io_read(f->other, disk, LIE_SIZE, 0), 0);
    for (int i = 0; i < LIE_SIZE; i++) {
        int sector = i / 512 - VHD_BLOCK_BYTES / 512;

        if ((unsigned char) disk[i] != (sector == 1 || sector == 7 ? 0xff : 0))
            fail_msg("byte %d is %02x", i, (unsigned char) disk[i]);
    }
    free(bytes);
    free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(qemu_reads_what_we_write, begin, end),
        cmocka_unit_test_setup_teardown(disks_come_back, begin, end),
        cmocka_unit_test_setup_teardown(we_read_what_qemu_writes, begin, end),
        cmocka_unit_test_setup_teardown(behind_the_end_of_an_endless_stream_nothing_is_read, begin, end),
        cmocka_unit_test_setup_teardown(blocks_in_any_order, begin, end),
        cmocka_unit_test_setup_teardown(into_a_qcow2, begin, end),
        cmocka_unit_test_setup_teardown(the_largest_disk, begin, end),
        cmocka_unit_test_setup_teardown(only_differences, begin, end),
        cmocka_unit_test_setup_teardown(lies_are_refused, begin, end),
        cmocka_unit_test_setup_teardown(damage_is_seen, begin, end),
        cmocka_unit_test_setup_teardown(bitmaps_count, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
