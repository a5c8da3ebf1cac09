/* test_xva_write.c - exports: what lies in the tar, sparse, repeatable, and read back */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "slave/xva_read.h"
#include "slave/xva_write.h"
#include "tests/unit/xva_world.h"

#define MIB ((int64_t) 1048576)

static const char ova[] = "<value><struct></struct></value>";

/* Export to memory; the result is the call's. */
static int export_to(struct memory_sink *to, const struct xva_export_disk *disks, unsigned count,
                     enum compression compression, int64_t skip)
{
    struct transfer_figures figures = {0};
    struct xva_export export = {.ova = ova,
                                .ova_bytes = strlen(ova),
                                .disks = disks,
                                .disk_count = count,
                                .compression = compression,
                                .skip = skip};
    size_t fail_after = to->fail_after; /* 0: never */
    int r;

    memory_sink_init(to);
    if (fail_after > 0)
        to->fail_after = fail_after;
    r = xva_write(&export, &to->base, &figures);
    if (r == 0) {
        assert_int_equal(atomic_load(&figures.disk_bytes_done),
                         atomic_load(&figures.disk_bytes_total));
    }
    return r;
}

static int import_from(const struct buffer *xva, const struct xva_import_disk *disks,
                       unsigned count)
{
    struct transfer_figures figures = {0};
    struct memory_source source;
    struct xva_import import = {.disks = disks, .count = count, .export_vsn = 2};
    struct xva_reader *reader;
    const char *text;
    size_t bytes;
    int r;

    memory_source_init(&source, xva->bytes, xva->length, 100000);
    reader = xva_reader_new(&source.base, &figures);
    r = xva_read_ova(reader, &text, &bytes);
    if (r == 0) {
        assert_int_equal(bytes, strlen(ova));
        assert_memory_equal(text, ova, bytes);
        r = xva_read_disks(reader, &import);
    }
    if (r < 0)
        print_message("%d %s %s %s\n", r, xva_reader_error(reader)->code,
                      xva_reader_error(reader)->params[0], xva_reader_error(reader)->params[1]);
    else
        assert_int_equal(atomic_load(&figures.disk_bytes_done),
                         atomic_load(&figures.disk_bytes_total));
    xva_reader_destroy(&reader);
    return r;
}

/* Names in a tar, one a line. */
static char *names_of(const struct buffer *tar)
{
    struct buffer names;

    buffer_init(&names, SIZE_MAX);
    for (size_t at = 0; at + 512 <= tar->length && tar->bytes[at];) {
        size_t size = strtoul(tar->bytes + at + 124, NULL, 8);

        buffer_add(&names, tar->bytes + at, strlen(tar->bytes + at));
        buffer_add(&names, "\n", 1);
        at += 512 + (size + 511) / 512 * 512;
    }
    buffer_add(&names, "", 1);
    return names.bytes;
}

static void blocks_that_are_zeros_are_left_out_but_the_first_and_the_last(void **state)
{
    struct disk_io *disk = world_disk(6 * MIB + 1000);
    struct xva_export_disk disks[] = {{"Ref:3", disk}};
    struct memory_sink out = {0};
    char *names;

    (void) state;
    world_fill(disk, 2 * MIB + 5000, 10, 1);
    world_fill(disk, 3 * MIB + 700000, 400000, 2); /* into block 4, and behind a hole */
    for (int64_t at = 0; at < 8192; at += 4096)    /* written zeros */
        disk_io_write(disk, (char[4096]){0}, 4096, 5 * MIB + at);
    assert_int_equal(export_to(&out, disks, 1, COMPRESSION_NONE, 0), 0);
    names = names_of(&out.bytes);
    assert_string_equal(names, "ova.xml\n"
                               "Ref:3/00000000\nRef:3/00000000.xxhash\n"
                               "Ref:3/00000002\nRef:3/00000002.xxhash\n"
                               "Ref:3/00000003\nRef:3/00000003.xxhash\n"
                               "Ref:3/00000004\nRef:3/00000004.xxhash\n"
                               "Ref:3/00000006\nRef:3/00000006.xxhash\n");
    assert_int_equal(disk->hole_bytes_read, 0);
    assert_int_equal(disk->passed, disk->size);
    free(names);
    buffer_done(&out.bytes);
    disk_io_close(&disk);
}

static void disks_come_in_the_order_of_the_text_of_their_prefixes(void **state)
{
    struct disk_io *a = world_disk(MIB), *b = world_disk(2 * MIB), *c = world_disk(0);
    struct xva_export_disk disks[] = {{"Ref:9", a}, {"Ref:11", b}, {"Ref:10", c}};
    struct memory_sink out = {0};
    char *names;

    (void) state;
    assert_int_equal(export_to(&out, disks, 3, COMPRESSION_NONE, 0), 0);
    names = names_of(&out.bytes);
    assert_string_equal(names, "ova.xml\n"
                               "Ref:11/00000000\nRef:11/00000000.xxhash\n"
                               "Ref:11/00000001\nRef:11/00000001.xxhash\n"
                               "Ref:9/00000000\nRef:9/00000000.xxhash\n");
    free(names);
    buffer_done(&out.bytes);
    disk_io_close(&a);
    disk_io_close(&b);
    disk_io_close(&c);
}

static void nothing_is_left_out_behind_a_first_disk_smaller_than_a_block(void **state)
{
    struct disk_io *small = world_disk(5000), *large = world_disk(3 * MIB);
    struct xva_export_disk disks[] = {{"Ref:1", small}, {"Ref:2", large}};
    struct memory_sink out = {0};
    char *names;

    (void) state;
    assert_int_equal(export_to(&out, disks, 2, COMPRESSION_NONE, 0), 0);
    names = names_of(&out.bytes);
    assert_non_null(strstr(names, "Ref:2/00000001\n"));
    assert_int_equal(large->bytes_read, 0);
    free(names);
    buffer_done(&out.bytes);
    disk_io_close(&small);
    disk_io_close(&large);
}

/* Another reader takes out of it what we put in: python's tarfile, with the checksum of each block
 * computed anew. */
static void python_reads_it(void **state)
{
    static const char script[] = "import sys, tarfile\n"
                                 "data = {}\n"
                                 "with tarfile.open(sys.argv[1], 'r|*') as tar:\n"
                                 "    for m in tar:\n"
                                 "        assert m.isfile() and m.mtime == 0, m\n"
                                 "        data[m.name] = tar.extractfile(m).read()\n"
                                 "assert data['ova.xml'].startswith(b'<value>')\n"
                                 "disk = bytearray(int(sys.argv[2]))\n"
                                 "for name, block in data.items():\n"
                                 "    if name.startswith('Ref:5/') and '.' not in name:\n"
                                 "        at = int(name[6:]) * 1048576\n"
                                 "        assert len(block) == min(1048576, len(disk) - at)\n"
                                 "        disk[at:at + len(block)] = block\n"
                                 "        assert len(data[name + '.xxhash']) == 16\n"
                                 "sys.stdout.buffer.write(disk)\n";
    struct disk_io *disk = world_disk(4 * MIB + 12345);
    struct xva_export_disk disks[] = {{"Ref:5", disk}};
    struct memory_sink out = {0};

    (void) state;
    world_fill(disk, 100, 3000, 1);
    world_fill(disk, 3 * MIB - 5, 700000, 2);
    world_fill(disk, 4 * MIB, 12345, 3);
    for (int kind = COMPRESSION_NONE; kind <= COMPRESSION_GZIP; kind++) {
        char path[] = "/tmp/test_xva.XXXXXX", copy[] = "/tmp/test_xva.XXXXXX",
             command[4096 + sizeof script];
        int fd = mkstemp(path), copy_fd = mkstemp(copy);
        char *read_back = alloc0((size_t) disk->size);
        char *original = alloc0((size_t) disk->size);

        assert_int_equal(export_to(&out, disks, 1, (enum compression) kind, 0), 0);
        assert_int_equal(write(fd, out.bytes.bytes, out.bytes.length), out.bytes.length);
        snprintf(command, sizeof command,
                 "python3 -c \"$(cat <<'END'\n%s\nEND\n)\" %s %lld >%s && tar tf %s >/dev/null",
                 script, path, (long long) disk->size, copy, path);
        assert_int_equal(system(command), 0);
        assert_int_equal(read(copy_fd, read_back, (size_t) disk->size), disk->size);
        disk_io_read(disk, original, (size_t) disk->size, 0);
        assert_memory_equal(read_back, original, (size_t) disk->size);
        free(read_back);
        free(original);
        close(fd);
        close(copy_fd);
        unlink(path);
        unlink(copy);
        buffer_done(&out.bytes);
    }
    disk_io_close(&disk);
}

static void random_disks_come_back(void **state)
{
    (void) state;
    for (unsigned seed = 0; seed < 60; seed++) {
        struct disk_io *from[3], *to[3];
        struct xva_export_disk disks[3];
        struct xva_import_disk import[3];
        static const char *const prefixes[] = {"Ref:8", "Ref:12", "Ref:3"};
        struct memory_sink out = {0};
        unsigned count = seed % 4;

        srandom(seed);
        for (unsigned i = 0; i < count; i++) {
            int64_t size = random() % 5 == 0 ? random() % 3 * MIB : random() % (5 * MIB);

            from[i] = world_disk(size);
            to[i] = world_disk(size);
            for (long n = random() % 6; n > 0 && size > 0; n--) {
                int64_t at = random() % size;

                world_fill(from[i], at, MIN(random() % 600000, size - at), (unsigned) random());
            }
            disks[i] = (struct xva_export_disk){prefixes[i], from[i]};
            import[i] = (struct xva_import_disk){prefixes[i], to[i], size};
        }
        assert_int_equal(export_to(&out, disks, count, (enum compression)(seed % 3), 0), 0);
        for (unsigned i = 0; i < count; i++)
            assert_int_equal(from[i]->hole_bytes_read, 0);
        assert_int_equal(import_from(&out.bytes, import, count), 0);
        for (unsigned i = 0; i < count; i++) {
            assert_true(world_disks_equal(from[i], to[i]));
            assert_int_equal(to[i]->syncs, 1);
            disk_io_close(&from[i]);
            disk_io_close(&to[i]);
        }
        buffer_done(&out.bytes);
    }
}

static void the_rest_behind_a_skip_fits_to_the_whole(void **state)
{
    struct disk_io *disk = world_disk(5 * MIB + 77);
    struct xva_export_disk disks[] = {{"Ref:1", disk}};

    (void) state;
    world_fill(disk, 0, 300000, 1);
    world_fill(disk, 2 * MIB, MIB, 2);
    for (int kind = COMPRESSION_NONE; kind <= COMPRESSION_ZSTD; kind++) {
        struct memory_sink whole = {0};

        assert_int_equal(export_to(&whole, disks, 1, (enum compression) kind, 0), 0);
        for (unsigned i = 0; i <= 40; i++) {
            size_t skip = whole.bytes.length * i / 40;
            struct memory_sink rest = {0};

            assert_int_equal(export_to(&rest, disks, 1, (enum compression) kind, (int64_t) skip),
                             0);
            assert_int_equal(rest.bytes.length, whole.bytes.length - skip);
            if (rest.bytes.length > 0)
                assert_memory_equal(rest.bytes.bytes, whole.bytes.bytes + skip, rest.bytes.length);
            buffer_done(&rest.bytes);
        }
        struct memory_sink beyond = {0};
        assert_int_equal(
            export_to(&beyond, disks, 1, (enum compression) kind, (int64_t) whole.bytes.length + 1),
            -ERANGE);
        buffer_done(&beyond.bytes);
        buffer_done(&whole.bytes);
    }
    disk_io_close(&disk);
}

/* Compressions at the same time get fewer workers, and make the same; also where the last chunk is
 * just full. */
static void what_comes_out_does_not_depend_on_workers_or_writes(void **state)
{
    static const size_t counts[] = {9 * 1048576, 9 * 1048576 - 12345};
    char *bytes = alloc0(counts[0]);

    (void) state;
    for (size_t i = 0; i < counts[0]; i++)
        bytes[i] = (char) (i * i >> 9 ^ i % 251);
    for (unsigned variant = 0; variant < 4; variant++) {
        size_t count = counts[variant / 2];
        struct memory_sink out[20];
        struct sink *sinks[20];

        for (unsigned i = 0; i < 20; i++) {
            memory_sink_init(&out[i]);
            sinks[i] =
                compress_new(variant % 2 ? COMPRESSION_GZIP : COMPRESSION_ZSTD, &out[i].base);
        }
        assert_int_equal(CONTAINER_OF(sinks[19], struct compressor, sink)->workers, 1);
        for (unsigned i = 0; i < 20; i += 19)
            for (size_t at = 0; at < count;) {
                size_t n = MIN(count - at, i == 0 ? 262144 : at % 70001 + 1);

                assert_int_equal(sinks[i]->write(sinks[i], bytes + at, n), 0);
                at += n;
            }
        for (unsigned i = 0; i < 20; i++) {
            assert_int_equal(compress_end(sinks[i]), 0);
            compress_destroy(&sinks[i]);
        }
        assert_int_equal(out[0].bytes.length, out[19].bytes.length);
        assert_memory_equal(out[0].bytes.bytes, out[19].bytes.bytes, out[0].bytes.length);
        for (unsigned i = 0; i < 20; i++)
            buffer_done(&out[i].bytes);
    }
    free(bytes);
}

static void a_sink_that_refuses_ends_it(void **state)
{
    struct disk_io *disk = world_disk(20 * MIB);
    struct xva_export_disk disks[] = {{"Ref:1", disk}};

    (void) state;
    world_fill(disk, 0, 20 * MIB, 1);
    for (int kind = COMPRESSION_NONE; kind <= COMPRESSION_ZSTD; kind++)
        for (size_t at = 1; at < 100000; at = at * 7 + 3) {
            struct memory_sink out = {.fail_after = at};

            assert_int_equal(export_to(&out, disks, 1, (enum compression) kind, 0), -EPIPE);
            buffer_done(&out.bytes);
        }
    disk_io_close(&disk);
}

static void a_disk_that_cannot_be_read_ends_it(void **state)
{
    struct disk_io *disk = world_disk(4 * MIB);
    struct xva_export_disk disks[] = {{"Ref:1", disk}};

    (void) state;
    world_fill(disk, 0, 4 * MIB, 1);
    disk->fail_result = -EIO;
    for (disk->fail_read_at = 0; disk->fail_read_at < 4 * MIB; disk->fail_read_at += 500000) {
        struct memory_sink out = {0};

        assert_int_equal(export_to(&out, disks, 1, COMPRESSION_NONE, 0), -EIO);
        buffer_done(&out.bytes);
    }
    disk_io_close(&disk);
}

/* Zeros, written or a hole: the stream does not tell which. */
static void a_block_is_sent_each_four_gib(void **state)
{
    char *zeros = alloc0((size_t) MIB);
    struct buffer streams[2];

    (void) state;
    for (int is_hole = 0; is_hole < 2; is_hole++) {
        struct disk_io *disk = world_disk(9 * 1024 * MIB + 4096), *again = world_disk(disk->size);
        struct xva_export_disk disks[] = {{"Ref:1", disk}};
        struct xva_import_disk to[] = {{.prefix = "Ref:1", .bytes = disk->size, .io = again}};
        struct memory_sink out = {0};
        char *names;

        world_fill(disk, 5 * 1024 * MIB, 10, 1);
        for (int64_t block = 4090; block < 4100 && !is_hole; block++)
            disk_io_write(disk, zeros, (size_t) MIB, block * MIB);
        assert_int_equal(export_to(&out, disks, 1, COMPRESSION_NONE, 0), 0);
        assert_int_equal(disk->hole_bytes_read, 0);
        names = names_of(&out.bytes);
        assert_string_equal(names, "ova.xml\n"
                                   "Ref:1/00000000\nRef:1/00000000.xxhash\n"
                                   "Ref:1/00004096\nRef:1/00004096.xxhash\n"
                                   "Ref:1/00005120\nRef:1/00005120.xxhash\n"
                                   "Ref:1/00008192\nRef:1/00008192.xxhash\n"
                                   "Ref:1/00009216\nRef:1/00009216.xxhash\n");
        free(names);
        assert_int_equal(import_from(&out.bytes, to, 1), 0);
        assert_int_equal(again->bytes_written, 65536); /* none of the zeros */
        assert_memory_equal(again->pages[5 * 1024 * MIB / PAGE_BYTES], disk->pages[5 * 1024 * MIB / PAGE_BYTES], PAGE_BYTES);
        streams[is_hole] = out.bytes;
        disk_io_close(&disk);
        disk_io_close(&again);
    }
    assert_int_equal(streams[0].length, streams[1].length);
    assert_memory_equal(streams[0].bytes, streams[1].bytes, streams[0].length);
    buffer_done(&streams[0]);
    buffer_done(&streams[1]);
    free(zeros);
}

static void a_hole_of_100_gib_takes_no_time(void **state)
{
    struct disk_io *disk = world_disk(100 * 1024 * MIB);
    struct xva_export_disk disks[] = {{"Ref:1", disk}};
    struct memory_sink out = {0};
    struct timespec begin, end;

    (void) state;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    assert_int_equal(export_to(&out, disks, 1, COMPRESSION_NONE, 0), 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_true(end.tv_sec - begin.tv_sec < 2);
    assert_true(out.bytes.length < (size_t) (27 * MIB));
    assert_int_equal(disk->bytes_read, 0);
    buffer_done(&out.bytes);
    disk_io_close(&disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_that_are_zeros_are_left_out_but_the_first_and_the_last),
        cmocka_unit_test(disks_come_in_the_order_of_the_text_of_their_prefixes),
        cmocka_unit_test(nothing_is_left_out_behind_a_first_disk_smaller_than_a_block),
        cmocka_unit_test(python_reads_it),
        cmocka_unit_test(random_disks_come_back),
        cmocka_unit_test(the_rest_behind_a_skip_fits_to_the_whole),
        cmocka_unit_test(what_comes_out_does_not_depend_on_workers_or_writes),
        cmocka_unit_test(a_sink_that_refuses_ends_it),
        cmocka_unit_test(a_disk_that_cannot_be_read_ends_it),
        cmocka_unit_test(a_block_is_sent_each_four_gib),
        cmocka_unit_test(a_hole_of_100_gib_takes_no_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
