/* test_qcow2.c - disks as qcow2 files and back, with QEMU as the other reader and writer; images that lead elsewhere */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "slave/qcow2_read.h"
#include "slave/qcow2_write.h"
#include "tests/unit/disk_files.h"
#include "tests/unit/memory_stream.h"

static const ref_t base_uuid = {0x1111111122224333, 0x8444555555555555};
#define BASE_FILE "11111111-2222-4333-8444-555555555555.qcow2"

static void export(struct disk_files *f, const struct qcow2_base *base, struct memory_sink *ret, const char *name)
{
    struct transfer_figures figures = {0};
    struct qcow2_plan *plan;

    assert_int_equal(qcow2_plan_make(&plan, f->disk, base), 0);
    memory_sink_init(ret);
    assert_int_equal(qcow2_write(plan, &ret->base, &figures), 0);
    assert_int_equal(ret->bytes.length, qcow2_stream_bytes(plan));
    assert_int_equal(figures.disk_bytes_done, disk_io_size(f->disk));
    write_file(f, name, &ret->bytes);
    ret->fail_after = 0; /* and a client that is gone is told of */
    assert_int_equal(qcow2_write(plan, &ret->base, NULL), -EPIPE);
    qcow2_plan_destroy(&plan);
}

static int import_file(struct disk_files *f, const char *name)
{
    struct memory_source source;
    struct buffer file;
    int r;

    read_file(f, name, &file);
    memory_source_init(&source, file.bytes, file.length, 100000);
    r = qcow2_read(f->other, &source.base, f->dir, NULL, f->text);
    buffer_done(&file);
    return r;
}

static void qemu_reads_what_we_write(void **state)
{
    static const int64_t sizes[] = {0, 512, 65536, 33 * MIB, 64 * MIB + 512, 600LL * MIB + 512};
    struct disk_files *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct memory_sink sink;

        make_disk(f, sizes[i]);
        export(f, NULL, &sink, "a.qcow2");
        run(f, "qemu-img check -q -f qcow2 a.qcow2");
        run(f, "qemu-img compare -q -s -f raw -F qcow2 a.raw a.qcow2 || qemu-img compare -q -f raw -F qcow2 a.raw a.qcow2");
        buffer_done(&sink.bytes);
    }
}

/* So many clusters that refcounts need several blocks, and the tables several clusters. */
static void large_disks(void **state)
{
    struct disk_files *f = *state;
    struct qcow2_plan *plan;
    struct memory_sink sink;

    make_disk(f, 5LL << 40); /* two clusters of L1 */
    assert_int_equal(disk_io_write(f->disk, "x", 1, 3LL << 40), 0);
    export(f, NULL, &sink, "a.qcow2");
    run(f, "qemu-img check -q -f qcow2 a.qcow2");
    run(f, "qemu-io -r -f qcow2 -c 'read -P 120 3T 1' a.qcow2 | grep -v failed");
    run(f, "qemu-io -r -f qcow2 -c 'read -P 122 %lld 1' a.qcow2 | grep -v failed", (5LL << 40) - 1);
    buffer_done(&sink.bytes);

    /* 4 GiB of clusters are more than the 2 GiB that a block of refcounts counts. */
    make_disk(f, 5LL << 30);
    for (int64_t at = 0; at < 4LL << 30; at += 65536)
        assert_int_equal(disk_io_write(f->disk, "y", 1, at), 0);
    assert_int_equal(qcow2_plan_make(&plan, f->disk, NULL), 0);
    assert_int_equal(qcow2_stream_bytes(plan) / 65536, 1 + 1 + 3 + 1 + 9 + 65537);
    qcow2_plan_destroy(&plan);
}

static void only_differences(void **state)
{
    struct disk_files *f = *state;
    struct qcow2_base base = {.uuid = base_uuid};
    struct memory_sink sink;

    make_disk(f, 33 * MIB);
    run(f, "qemu-img convert -f raw -O qcow2 a.raw " BASE_FILE);
    assert_int_equal(disk_io_write(f->disk, "changed", 7, 11 * MIB), 0);
    assert_int_equal(disk_io_write_zeros(f->disk, 65536, 20 * MIB), 0);
    base.disk = open_disk(f, BASE_FILE, "qcow2", true);
    export(f, &base, &sink, "a.qcow2");
    disk_io_close(&base.disk);
    assert_int_equal(sink.bytes.length, (1 + 1 + 1 + 1 + 1 + 2) * 65536);
    run(f, "qemu-img check -q -f qcow2 a.qcow2 && qemu-img compare -q -f raw -F qcow2 a.raw a.qcow2");

    make_used(f, 33 * MIB);
    assert_int_equal(import_file(f, "a.qcow2"), -EOPNOTSUPP); /* a disk of the same directory is not read for it */
    assert_string_equal(f->text, "the image: rests on another disk");
    f->disk = (disk_io_close(&f->disk), open_disk(f, "a.qcow2", "qcow2", true)); /* ours may rest on it */
    buffer_done(&sink.bytes);
}

static void what_qemu_writes_comes_in(void **state)
{
    static const char *const options[] = {"compat=1.1", "compat=0.10", "cluster_size=4k", "compat=1.1 -c"};
    struct disk_files *f = *state;

    make_disk(f, 33 * MIB);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        run(f, "qemu-img convert -f raw -O qcow2 -o %s a.raw q.qcow2", options[i]);
        make_used(f, 33 * MIB);
        if (import_file(f, "q.qcow2") != 0)
            fail_msg("%s: %s", options[i], f->text);
        run(f, "cmp a.raw b.raw");
    }
    make_used(f, 36 * MIB);
    assert_int_equal(import_file(f, "q.qcow2"), 0);
    run(f, "truncate -s 36M a.raw && cmp a.raw b.raw");
    make_used(f, 33 * MIB - 512);
    assert_int_equal(import_file(f, "q.qcow2"), -EFBIG);
}

static void images_that_lie(void **state)
{
    struct disk_files *f = *state;
    struct memory_source source = {0};
    char *zeros = alloc0(70 * MIB);

    make_disk(f, 33 * MIB);
    make_used(f, MIB);
    run(f, "cp b.raw old.raw");
    run(f, "qemu-img create -q -u -f qcow2 -F raw -b /etc/passwd passwd.qcow2 1M");
    run(f, "qemu-img create -q -u -f qcow2 -F raw -b a.raw neighbour.qcow2 1M");
    run(f, "qemu-img create -q -f qcow2 -o data_file=x.data data.qcow2 1M");
    run(f, "head -c 1M /dev/urandom >noise.qcow2; : >empty.qcow2; qemu-img create -q -f qcow2 big.qcow2 1T");
    assert_int_equal(import_file(f, "passwd.qcow2"), -EOPNOTSUPP);
    assert_int_equal(import_file(f, "neighbour.qcow2"), -EOPNOTSUPP);
    assert_int_equal(import_file(f, "data.qcow2"), -EOPNOTSUPP);
    assert_int_equal(import_file(f, "noise.qcow2"), -EBADMSG);
    assert_int_equal(import_file(f, "empty.qcow2"), -EBADMSG);
    assert_int_equal(import_file(f, "big.qcow2"), -EFBIG);
    memory_source_init(&source, zeros, 70 * MIB, MIB);
    assert_int_equal(qcow2_read(f->other, &source.base, f->dir, NULL, f->text), -EFBIG);
    assert_string_equal(f->text, "the image is larger than one of such a disk can be");
    memory_source_init(&source, zeros, MIB, MIB);
    source.end = -EPIPE;
    assert_int_equal(qcow2_read(f->other, &source.base, f->dir, NULL, f->text), -EPIPE);
    run(f, "cmp old.raw b.raw"); /* nothing of the disk has been touched by any of them */

    run(f, "qemu-img convert -f raw -O qcow2 old.raw q.qcow2");
    run(f, "printf '\\200\\0\\0\\0\\0\\3\\2\\1' | dd of=q.qcow2 bs=1 seek=$((0x30000)) conv=notrunc status=none");
    assert_int_equal(import_file(f, "q.qcow2"), -EBADMSG);
    assert_string_equal(f->text, "the image is damaged, or ends too early");
    free(zeros);
}

/* A source whose end is a cancel that comes when all has been read. */
struct cancelling_source {
    struct memory_source memory;
    _Atomic bool is_cancelled;
};

static ssize_t read_and_cancel(struct source *source, const void **ret_bytes)
{
    struct cancelling_source *self = CONTAINER_OF(source, struct cancelling_source, memory.base);
    ssize_t n = memory_read(source, ret_bytes);

    self->is_cancelled = n == 0;
    return n;
}

/* In the stretches where nobody reads from a client or writes to one. */
static void what_is_cancelled_ends(void **state)
{
    struct disk_files *f = *state;
    struct cancelling_source source = {.is_cancelled = false};
    struct qcow2_base base = {.uuid = base_uuid};
    _Atomic bool is_cancelled = true;
    struct qcow2_plan *plan = NULL;
    struct buffer file;

    make_disk(f, 33 * MIB);
    run(f, "qemu-img convert -f raw -O qcow2 a.raw q.qcow2");
    f->is_cancelled = &source.is_cancelled;
    make_used(f, 33 * MIB);
    run(f, "cp b.raw old.raw");
    read_file(f, "q.qcow2", &file);
    memory_source_init(&source.memory, file.bytes, file.length, MIB);
    source.memory.base.read = read_and_cancel;
    assert_int_equal(qcow2_read(f->other, &source.memory.base, f->dir, NULL, f->text), -ECANCELED);
    run(f, "cmp b.raw old.raw");
    buffer_done(&file);

    f->is_cancelled = NULL;
    make_used(f, 33 * MIB);
    base.disk = f->other;
    disk_io_close(&f->disk);
    f->is_cancelled = &is_cancelled;
    f->disk = open_disk(f, "a.raw", "raw", true);
    assert_int_equal(qcow2_plan_make(&plan, f->disk, &base), -ECANCELED);
    assert_null(plan);
}

/* QEMU reads zeros where its file has ended. */
static void what_was_cut_is_refused(void **state)
{
    static const char *const options[] = {"compat=1.1", "compat=0.10", "cluster_size=4k", "compat=1.1 -c", "extended_l2=on",
                                          "preallocation=metadata"};
    struct disk_files *f = *state;

    make_disk(f, 4 * MIB);
    for (int64_t at = 0; at < 4 * MIB; at += 4)
        assert_int_equal(disk_io_write(f->disk, &at, 4, at), 0);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        struct buffer whole;
        int64_t lengths[] = {0, 3, 71, 104, 300, 4096, 70000, 0, 0, 0};

        run(f, "qemu-img convert -f raw -O qcow2 -o %s a.raw q.qcow2", options[i]);
        read_file(f, "q.qcow2", &whole);
        lengths[7] = (int64_t) whole.length / 2;
        lengths[8] = (int64_t) whole.length - 65536;
        lengths[9] = (int64_t) whole.length - 512;
        for (size_t j = 0; j < ARRAY_SIZE(lengths); j++) {
            struct memory_source source;

            make_used(f, 5 * MIB);
            run(f, "cp b.raw old.raw");
            memory_source_init(&source, whole.bytes, (size_t) lengths[j], 100000);
            if (qcow2_read(f->other, &source.base, f->dir, NULL, f->text) >= 0 || !f->text[0])
                fail_msg("%s: the first %lld of %zu bytes are taken for a disk", options[i], (long long) lengths[j], whole.length);
            run(f, "cmp old.raw b.raw"); /* refused before anything was written */
        }
        buffer_done(&whole);
    }
}

static void put_entry(struct buffer *file, size_t at, uint64_t entry)
{
    assert_true(at + 8 <= file->length);
    entry = htobe64(entry);
    memcpy(file->bytes + at, &entry, 8);
}

static uint64_t get_entry(const struct buffer *file, size_t at)
{
    uint64_t entry;

    assert_true(at + 8 <= file->length);
    memcpy(&entry, file->bytes + at, 8);
    return be64toh(entry);
}

static void tables_that_lead_nowhere(void **state)
{
    struct disk_files *f = *state;
    struct buffer good;
    uint64_t l1, l2;

    make_disk(f, 4 * MIB);
    assert_int_equal(disk_io_write(f->disk, "x", 1, 2 * MIB), 0);
    run(f, "qemu-img convert -f raw -O qcow2 a.raw q.qcow2");
    read_file(f, "q.qcow2", &good);
    l1 = get_entry(&good, 40);
    l2 = get_entry(&good, l1) & 0x00fffffffffffe00;
    struct {
        size_t at;
        uint64_t entry;
    } lies[] = {
        {40, 0},                       /* no L1 table */
        {40, l1 + 512},                /* ... not at a cluster's begin */
        {40, 1ULL << 40},              /* ... beyond the end */
        {40, 1ULL << 63 | l1},
        {l1, l1},                      /* L2 is L1 */
        {l1, 1ULL << 40},
        {l1, l2 + 512},
        {l2 + 32 * 8, 1ULL << 40},     /* data beyond the end */
        {l2 + 32 * 8, 512},            /* in the header */
        {l2 + 32 * 8, good.length},
        {l2 + 32 * 8, 1ULL << 62 | good.length},
        {l2 + 32 * 8, 1ULL << 62 | 0x3fffffffffffffff},
    };
    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        uint64_t before = get_entry(&good, lies[i].at);

        put_entry(&good, lies[i].at, lies[i].entry);
        write_file(f, "lie.qcow2", &good);
        make_used(f, 4 * MIB);
        if (import_file(f, "lie.qcow2") != -EBADMSG)
            fail_msg("%llx at %zx was taken", (unsigned long long) lies[i].entry, lies[i].at);
        put_entry(&good, lies[i].at, before);
    }
    write_file(f, "lie.qcow2", &good);
    make_used(f, 4 * MIB);
    assert_int_equal(import_file(f, "lie.qcow2"), 0);
    run(f, "cmp a.raw b.raw");
    buffer_done(&good);
}

/* 4 Mi entries that lead to the same empty table of 2 MiB: 34 MiB that say to be a disk of 2^61 bytes. */
static void one_table_for_a_whole_disk(void **state)
{
    enum { CLUSTER_BITS = 21, CLUSTER = 1 << CLUSTER_BITS, L1_BYTES = 32 << 20, L2_AT = CLUSTER + L1_BYTES };
    struct disk_files *f = *state;
    struct memory_source source;
    struct buffer file;
    char *zeros = alloc0(L2_AT + CLUSTER);

    buffer_init(&file, L2_AT + CLUSTER);
    buffer_add(&file, zeros, L2_AT + CLUSTER);
    put_entry(&file, 0, 0x514649fb00000002);               /* magic, version 2 */
    put_entry(&file, 16, CLUSTER_BITS);                    /* and no bytes of a base's name */
    put_entry(&file, 24, 1ULL << 61);
    put_entry(&file, 32, L1_BYTES / 8);                    /* not encrypted; entries of L1 */
    put_entry(&file, 40, CLUSTER);
    for (size_t i = 0; i < L1_BYTES / 8; i++)
        put_entry(&file, CLUSTER + 8 * i, 1ULL << 63 | L2_AT);
    make_used(f, MIB);
    memory_source_init(&source, file.bytes, file.length, MIB);
    assert_int_equal(qcow2_read(f->other, &source.base, f->dir, NULL, f->text), -EFBIG);
    assert_string_equal(f->text, "the image's disk is larger than the disk that it is for");
    buffer_done(&file);
    free(zeros);
}

/* What has no name cannot be left; what has one for a moment, and was, goes with the next. */
static void stores_leave_no_names(void **state)
{
    struct disk_files *f = *state;
    _cleanup_(close_fd) int dir = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(qcow2_is_store(".import-Ab3dEf"));
    assert_false(qcow2_is_store("import-Ab3dEf"));
    run(f, "touch -d '2 hours ago' .import-Ab3dEf other && touch .import-recent && mkdir .import-dir"
           " && touch -d '2 hours ago' .import-dir && ln -s other .import-link");
    qcow2_sweep(dir);
    run(f, "test ! -e .import-Ab3dEf && test -e other && test -e .import-recent && test -d .import-dir && test -L .import-link");
    run(f, "rm -r .import-recent .import-dir .import-link");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(qemu_reads_what_we_write, begin, end),
        cmocka_unit_test_setup_teardown(large_disks, begin, end),
        cmocka_unit_test_setup_teardown(only_differences, begin, end),
        cmocka_unit_test_setup_teardown(what_qemu_writes_comes_in, begin, end),
        cmocka_unit_test_setup_teardown(images_that_lie, begin, end),
        cmocka_unit_test_setup_teardown(what_is_cancelled_ends, begin, end),
        cmocka_unit_test_setup_teardown(what_was_cut_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(tables_that_lead_nowhere, begin, end),
        cmocka_unit_test_setup_teardown(one_table_for_a_whole_disk, begin, end),
        cmocka_unit_test_setup_teardown(stores_leave_no_names, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
