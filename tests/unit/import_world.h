/* import_world.h - an XVA made by hand, the disks it is read into, and what came of it
 *
 *     world_begin_with(&w, "Ref:7", 1000);
 *     tar_block(&w.tar, "Ref:7/00000000", block, 1000);
 *     tar_end(&w.tar);
 *     assert_int_equal(read_world(&w), 0);    or assert_refused(&w, ...), which ends it
 *     world_end(&w);
 *
 * A test program includes this once. */
#pragma once

#pragma GCC diagnostic ignored "-Wunused-function" /* no test program uses all of this */

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

#include "slave/xva_read.h"
#include "tests/unit/xva_world.h"

#define MIB       ((int64_t) 1048576)
#define DISKS_MAX 3

/* What an import is refused with. */
#define UNEXPECTED "IMPORT_ERROR_UNEXPECTED_FILE"
#define CUT        "IMPORT_ERROR_PREMATURE_EOF"

static char block[4096]; /* what blocks are made of */
static const char nothing[4096];

/* An archive being made, and the disks it is read into. */
struct world {
    struct buffer tar;                        /* begins with an ova.xml; or what it was compressed to */
    struct disk_io *disks[DISKS_MAX];         /* empty before */
    struct xva_import_disk import[DISKS_MAX]; /* what is said of them to the reader */
    unsigned count;                           /* of both */
    int export_vsn;                           /* as ova.xml would say; 2 is today's */
    bool force;                               /* wrong checksums are only counted */
    size_t step;                              /* bytes that the source gives at a time */
    int end_result;                           /* what the source says at its end: 0 or a negative errno */
    bool is_endless;                          /* nobody knows where it ends */
    struct xva_error error;                   /* of the last reading */
    uint64_t wrong;                           /* checksums, of the last reading */
    const char *expected_where;               /* a refusal says that it was there; NULL: wherever */
};

static void world_begin(struct world *world)
{
    *world = (struct world){.export_vsn = 2, .step = 3000};
    buffer_init(&world->tar, SIZE_MAX);
    for (unsigned i = 0; i < sizeof block; i++)
        block[i] = (char) (i % 251 + 1);
    tar_file(&world->tar, "ova.xml", "<value/>", 8);
}

static void world_add_disk(struct world *world, const char *prefix, int64_t bytes)
{
    world->disks[world->count] = world_disk(bytes);
    world->import[world->count] =
        (struct xva_import_disk){prefix, world->disks[world->count], bytes};
    world->count++;
}

static void world_begin_with(struct world *world, const char *prefix, int64_t bytes)
{
    world_begin(world);
    world_add_disk(world, prefix, bytes);
}

static void world_end(struct world *world)
{
    buffer_done(&world->tar);
    for (unsigned i = 0; i < world->count; i++)
        disk_io_close(&world->disks[i]);
}

/* ---- reading ---- */

typedef int read_fn(struct xva_reader *reader, const struct xva_import *import);

/* Read bytes as the archive. What it says of its progress is true whenever it succeeds. */
static int read_bytes(struct world *world, const char *bytes, size_t count, read_fn *read)
{
    struct transfer_figures figures = {0};
    struct memory_source source;
    struct xva_reader *reader;
    struct xva_import import = {world->import, world->count, world->export_vsn, world->force};
    const char *text;
    size_t text_bytes;
    int r;

    memory_source_init(&source, bytes, count, world->step);
    source.end = world->end_result;
    source.base.is_endless = world->is_endless;
    reader = xva_reader_new(&source.base, &figures);
    r = xva_read_ova(reader, &text, &text_bytes);
    if (r == 0)
        r = read(reader, &import);
    world->error = *xva_reader_error(reader);
    world->wrong = xva_wrong_checksums(reader);
    if (r == 0)
        assert_int_equal(atomic_load(&figures.disk_bytes_done),
                         atomic_load(&figures.disk_bytes_total));
    xva_reader_destroy(&reader);
    return r;
}

static int read_world(struct world *world)
{
    return read_bytes(world, world->tar.bytes, world->tar.length, xva_read_disks);
}

/* Refused with this code, and these parameters where given. */
static void assert_refused(struct world *world, read_fn *read, const char *code, const char *first,
                           const char *second)
{
    assert_int_equal(read_bytes(world, world->tar.bytes, world->tar.length, read), -EBADMSG);
    assert_string_equal(world->error.code, code);
    if (first)
        assert_string_equal(world->error.params[0], first);
    if (second)
        assert_string_equal(world->error.params[1], second);
    if (world->expected_where)
        assert_string_equal(world->error.where, world->expected_where);
    world_end(world);
}

static void assert_disk(struct disk_io *disk, int64_t at, const char *bytes, size_t count)
{
    char here[4096] = {0};

    disk_io_read(disk, here, count, at);
    assert_memory_equal(here, bytes, count);
}
