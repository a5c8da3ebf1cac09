/* xva_disk_thread.c - a thread that writes what an import brings (xva_reader.h)
 *
 * The disks are new and read as zeros, so zeros are not written: what was a hole when it was
 * exported is one again, also where the exporting side's blocks are larger. */
#include <errno.h>
#include <pthread.h>

#include "slave/disk_writer.h"
#include "slave/pieces.h"
#include "slave/xva_reader.h"

struct disk_thread {
    const struct xva_import *import;
    struct pieces *pieces;
    pthread_t id;
    struct piece *piece; /* being filled; NULL: none */
};

static void *thread_main(void *arg)
{
    struct disk_thread *thread = arg;
    struct piece *piece;
    int r = 0;

    pthread_setname_np(pthread_self(), "xva-write-disks");
    while (r == 0 && (piece = pieces_next(thread->pieces))) {
        struct disk_io *io = thread->import->disks[piece->disk].io;

        r = disk_write_runs(io, piece->bytes, piece->count, piece->at, true);
        if (r == 0)
            r = disk_io_passed(io, piece->at + (int64_t) piece->count);
        if (r < 0)
            pieces_stop(thread->pieces, r);
        pieces_took(thread->pieces);
    }
    return NULL;
}

struct disk_thread *disk_thread_new(const struct xva_import *import)
{
    struct disk_thread *thread = new0(struct disk_thread);

    thread->import = import;
    thread->pieces = pieces_new();
    if (pthread_create(&thread->id, NULL, thread_main, thread) != 0) {
        pieces_destroy(&thread->pieces);
        free(thread);
        return NULL;
    }
    return thread;
}

void disk_thread_destroy(struct disk_thread **thread_p)
{
    struct disk_thread *thread = TAKE(*thread_p);

    if (!thread)
        return;
    pieces_end(thread->pieces);
    pthread_join(thread->id, NULL);
    pieces_destroy(&thread->pieces);
    free(thread);
}

static void put(struct disk_thread *thread)
{
    if (thread->piece && thread->piece->count > 0)
        pieces_put(thread->pieces);
    thread->piece = NULL;
}

int disk_thread_write(struct disk_thread *thread, unsigned disk, const char *bytes, size_t count,
                      int64_t at)
{
    while (count > 0) {
        struct piece *piece = thread->piece;
        size_t n;

        if (piece
            && (piece->disk != disk || piece->at + (int64_t) piece->count != at
                || piece->count == PIECE_BYTES))
            put(thread);
        if (!thread->piece) {
            piece = thread->piece = pieces_room(thread->pieces);
            if (!piece)
                return pieces_settle(thread->pieces);
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

int disk_thread_settle(struct disk_thread *thread)
{
    put(thread);
    return pieces_settle(thread->pieces);
}

int disk_thread_sync(struct disk_thread *thread)
{
    int r = disk_thread_settle(thread);

    for (unsigned i = 0; i < thread->import->count && r == 0; i++)
        r = disk_io_sync(thread->import->disks[i].io);
    return r;
}
