/* fuzz_xva.c - any bytes as an XVA: refused with a reason, or read into disks
 *
 * The first byte chooses what is expected (export_vsn, force, legacy chunks), the second how many
 * bytes the source gives at a time. What was read without force is exported, and has to come back
 * the same. */
#include <errno.h>
#include <stdatomic.h>

#include "slave/xva_write.h"
#include "tests/unit/xva_world.h"
#include "slave/xva_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

enum { DISKS = 2 };

static const int64_t sizes[DISKS] = {8192 + 77, 1048576 + 5000};

static void make_disks(struct xva_import_disk disks[DISKS], bool is_legacy)
{
    for (unsigned i = 0; i < DISKS; i++)
        disks[i] =
            (struct xva_import_disk){is_legacy ? (i ? "swap" : "sda") : (i ? "Ref:12" : "Ref:7"),
                                     world_disk(sizes[i]), sizes[i]};
}

static int read_archive(const void *bytes, size_t count, size_t step,
                        const struct xva_import *import, bool is_legacy)
{
    struct transfer_figures figures = {0};
    struct memory_source source;
    struct xva_reader *reader;
    const char *text;
    size_t text_bytes;
    int r;

    memory_source_init(&source, bytes, count, step);
    reader = xva_reader_new(&source.base, &figures);
    r = xva_read_ova(reader, &text, &text_bytes);
    if (r == 0)
        r = is_legacy ? xva_read_chunks(reader, import) : xva_read_disks(reader, import);
    if (r < 0 && !xva_reader_error(reader)->code)
        abort(); /* neither source nor disks fail here */
    if (r == 0 && atomic_load(&figures.disk_bytes_done) != sizes[0] + sizes[1])
        abort();
    xva_reader_destroy(&reader);
    return r;
}

/* Export and import once more. */
static void check_round_trip(const struct xva_import_disk disks[DISKS])
{
    struct transfer_figures figures = {0};
    struct xva_import_disk again[DISKS];
    struct xva_export_disk from[DISKS];
    struct memory_sink out;

    make_disks(again, false);
    for (unsigned i = 0; i < DISKS; i++)
        from[i] = (struct xva_export_disk){again[i].prefix, disks[i].io};
    memory_sink_init(&out);
    if (xva_write(
            &(struct xva_export){.ova = "x", .ova_bytes = 1, .disks = from, .disk_count = DISKS},
            &out.base, &figures)
            < 0
        || read_archive(out.bytes.bytes, out.bytes.length, 65536,
                        &(struct xva_import){again, DISKS, 2, false}, false)
               < 0)
        abort();
    for (unsigned i = 0; i < DISKS; i++) {
        if (!world_disks_equal(disks[i].io, again[i].io))
            abort();
        disk_io_close(&again[i].io);
    }
    buffer_done(&out.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct xva_import_disk disks[DISKS];
    struct xva_import import = {.disks = disks, .count = DISKS};
    bool is_legacy;

    if (count < 2)
        return 0;
    is_legacy = bytes[0] & 8;
    import.export_vsn = bytes[0] & 3;
    import.force = bytes[0] & 4;
    make_disks(disks, is_legacy);
    if (read_archive(bytes + 2, count - 2, 1 + (size_t) bytes[1] * 16, &import, is_legacy) == 0)
        check_round_trip(disks);
    for (unsigned i = 0; i < DISKS; i++)
        disk_io_close(&disks[i].io);
    return 0;
}
