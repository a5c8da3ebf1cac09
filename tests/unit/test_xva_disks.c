/* test_xva_disks.c - XVAs of real disks, raw and qcow2: contents come over, and so do holes */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "slave/storage.h"
#include "slave/xva_read.h"
#include "slave/xva_write.h"
#include "tests/unit/memory_stream.h"

#define MIB        ((int64_t) 1048576)
#define DISK_BYTES (40 * MIB + 512)

struct world {
    char directory[64];
};

static int set_up(void **state)
{
    struct world *world = new0(struct world);

    strcpy(world->directory, "/tmp/test_xva_disks.XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    char command[100];

    snprintf(command, sizeof command, "rm -rf '%s'", world->directory);
    assert_int_equal(system(command), 0);
    free(world);
    return 0;
}

static struct disk_io *make_disk(struct world *world, const char *name, const char *format)
{
    char command[256], text[DISK_IO_TEXT_BYTES];
    struct disk_io *io;

    snprintf(command, sizeof command, "qemu-img create -q -f %s '%s/%s' %lld", format,
             world->directory, name, (long long) DISK_BYTES);
    assert_int_equal(system(command), 0);
    if (disk_io_open(&io, &(struct sr_place){.directory = world->directory}, name, format, true, NULL, text) < 0)
        fail_msg("%s", text);
    return io;
}

static void fill(struct disk_io *io, int64_t at, size_t count)
{
    char *bytes = alloc0(count);

    for (size_t i = 0; i < count; i++)
        bytes[i] = (char) (((size_t) at + i) * 2654435761u >> 13 | 1);
    assert_int_equal(disk_io_write(io, bytes, count, at), 0);
    free(bytes);
}

static void assert_same(struct disk_io *a, struct disk_io *b)
{
    static char x[1048576], y[1048576];

    for (int64_t at = 0; at < DISK_BYTES; at += MIB) {
        size_t n = (size_t) MIN(MIB, DISK_BYTES - at);

        assert_int_equal(disk_io_read(a, x, n, at), 0);
        assert_int_equal(disk_io_read(b, y, n, at), 0);
        assert_memory_equal(x, y, n);
    }
}

static int64_t bytes_taken(struct world *world, const char *name)
{
    char path[100];
    struct stat st;

    snprintf(path, sizeof path, "%s/%s", world->directory, name);
    assert_int_equal(stat(path, &st), 0);
    return (int64_t) st.st_blocks * 512;
}

/* From both formats into both. */
static void contents_and_holes_come_over(void **state)
{
    struct world *world = *state;
    struct disk_io *raw = make_disk(world, "a.raw", "raw");
    struct disk_io *qcow2 = make_disk(world, "a.qcow2", "qcow2");
    struct xva_export_disk from[] = {{"Ref:1", raw}, {"Ref:2", qcow2}};
    struct transfer_figures figures = {0};
    struct memory_sink out;

    for (unsigned i = 0; i < 2; i++) {
        fill(from[i].io, 65536, 65536);
        fill(from[i].io, 7 * MIB + 300, 3000000);
        fill(from[i].io, DISK_BYTES - 512, 512);
    }
    memory_sink_init(&out);
    assert_int_equal(xva_write(&(struct xva_export){.ova = "x",
                                                    .ova_bytes = 1,
                                                    .disks = from,
                                                    .disk_count = 2,
                                                    .compression = COMPRESSION_ZSTD},
                               &out.base, &figures),
                     0);
    for (unsigned swapped = 0; swapped < 2; swapped++) {
        const char *names[] = {swapped ? "b.qcow2" : "b.raw", swapped ? "c.raw" : "c.qcow2"};
        struct xva_import_disk to[2];
        struct memory_source source;
        struct xva_reader *reader;
        const char *text;
        size_t text_bytes;

        for (unsigned i = 0; i < 2; i++)
            to[i] = (struct xva_import_disk){
                from[i].prefix, make_disk(world, names[i], strrchr(names[i], '.') + 1), DISK_BYTES};
        memory_source_init(&source, out.bytes.bytes, out.bytes.length, 40000);
        reader = xva_reader_new(&source.base, &figures);
        assert_int_equal(xva_read_ova(reader, &text, &text_bytes), 0);
        assert_int_equal(xva_read_disks(reader, &(struct xva_import){to, 2, 2, false}), 0);
        xva_reader_destroy(&reader);
        for (unsigned i = 0; i < 2; i++) {
            assert_same(from[i].io, to[i].io);
            disk_io_close(&to[i].io);
            assert_true(bytes_taken(world, names[i]) < 5 * MIB);
        }
    }
    buffer_done(&out.bytes);
    disk_io_close(&raw);
    disk_io_close(&qcow2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(contents_and_holes_come_over, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
