/* disk_sink.c - a thread that writes what an import brings (xva_reader.h)
 *
 * The disks are new and read as zeros, so zeros are not written: what was a hole when it was
 * exported is one again, also where the exporting side's blocks are larger. */
#include <errno.h>
#include <pthread.h>

#include "slave/disk_writer.h"
#include "slave/pieces.h"
#include "slave/xva_reader.h"

struct disk_sink {
    const struct xva_import *import;
    struct pieces *pieces;
    pthread_t thread;
    struct piece *piece; /* being filled; NULL: none */
};

static void *sink_main(void *arg)
{
    struct disk_sink *sink = arg;
    struct piece *piece;
    int r = 0;

    pthread_setname_np(pthread_self(), "xva-write-disks");
    while (r == 0 && (piece = pieces_next(sink->pieces, &r))) {
        r = disk_write_runs(sink->import->disks[piece->disk].io, piece->bytes, piece->count, piece->at, true);
        if (r < 0)
            pieces_stop(sink->pieces, r);
        pieces_took(sink->pieces);
    }
    return NULL;
}

struct disk_sink *disk_sink_new(const struct xva_import *import)
{
    struct disk_sink *sink = new0(struct disk_sink);

    sink->import = import;
    sink->pieces = pieces_new();
    if (pthread_create(&sink->thread, NULL, sink_main, sink) != 0) {
        pieces_destroy(&sink->pieces);
        free(sink);
        return NULL;
    }
    return sink;
}

void disk_sink_destroy(struct disk_sink **sink_p)
{
    struct disk_sink *sink = TAKE(*sink_p);

    if (!sink)
        return;
    pieces_end(sink->pieces, 0);
    pthread_join(sink->thread, NULL);
    pieces_destroy(&sink->pieces);
    free(sink);
}

static void put(struct disk_sink *sink)
{
    if (sink->piece && sink->piece->count > 0)
        pieces_put(sink->pieces);
    sink->piece = NULL;
}

int disk_sink_write(struct disk_sink *sink, unsigned disk, const char *bytes, size_t count,
                    int64_t at)
{
    while (count > 0) {
        struct piece *piece = sink->piece;
        size_t n;

        if (piece
            && (piece->disk != disk || piece->at + (int64_t) piece->count != at
                || piece->count == PIECE_BYTES))
            put(sink);
        if (!sink->piece) {
            piece = sink->piece = pieces_room(sink->pieces);
            if (!piece)
                return pieces_settle(sink->pieces);
            piece->disk = disk;
            piece->at = at;
            piece->count = 0;
        }
        n = MIN(count, PIECE_BYTES - piece->count);
        memcpy(piece->bytes + piece->count, bytes, n);
        piece->count += n;
        bytes += n;
        at += (int64_t) n;
        count -= n;
    }
    return 0;
}

int disk_sink_settle(struct disk_sink *sink)
{
    put(sink);
    return pieces_settle(sink->pieces);
}

int disk_sink_sync(struct disk_sink *sink)
{
    int r = disk_sink_settle(sink);

    for (unsigned i = 0; i < sink->import->count && r == 0; i++)
        r = disk_io_sync(sink->import->disks[i].io);
    return r;
}
