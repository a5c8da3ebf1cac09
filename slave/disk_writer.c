/* disk_writer.c - gather bytes, write runs of data and runs of zeros */
#include "slave/disk_writer.h"

#define GATHER_BYTES (2 * 1024 * 1024) /* at once: what a disk is written fastest in (disk_io.h) */
#define BLOCK_BYTES  (64 * 1024)       /* is data or zeros as a whole: the cluster of qcow2 */

bool bytes_are_zero(const void *bytes, size_t count)
{
    const char *first = bytes;

    return count == 0 || (first[0] == 0 && memcmp(first, first + 1, count - 1) == 0);
}

/* Bytes up to the next border of the disk's blocks, of at most `count`. */
static size_t to_border(int64_t at, size_t count)
{
    return MIN(BLOCK_BYTES - (size_t) (at % BLOCK_BYTES), count);
}

int disk_write_runs(struct disk_io *disk, const void *bytes, size_t count, int64_t at, bool is_new)
{
    const char *next = bytes;

    while (count > 0) {
        size_t run = to_border(at, count);
        bool is_zero = bytes_are_zero(next, run);
        int r = 0;

        while (run < count) {
            size_t block = to_border(at + (int64_t) run, count - run);

            if (bytes_are_zero(next + run, block) != is_zero)
                break;
            run += block;
        }
        if (!is_zero)
            r = disk_io_write(disk, next, run, at);
        else if (!is_new)
            r = disk_io_write_zeros(disk, (int64_t) run, at);
        if (r < 0)
            return r;
        next += run;
        count -= run;
        at += (int64_t) run;
    }
    return 0;
}

void disk_writer_init(struct disk_writer *writer, struct disk_io *disk, struct transfer_figures *figures)
{
    *writer = (struct disk_writer){.disk = disk, .figures = figures, .bytes = alloc0(GATHER_BYTES)};
}

void disk_writer_done(struct disk_writer *writer)
{
    free(writer->bytes);
    *writer = (struct disk_writer){0};
}

static void count_done(struct disk_writer *writer, int64_t count)
{
    if (writer->figures)
        writer->figures->disk_bytes_done += count;
}

int disk_writer_flush(struct disk_writer *writer)
{
    int r = disk_write_runs(writer->disk, writer->bytes, writer->count, writer->at, false);

    if (r == 0 && writer->count > 0)
        r = disk_io_passed(writer->disk, writer->at + (int64_t) writer->count);
    if (r == 0)
        count_done(writer, (int64_t) writer->count);
    writer->at += (int64_t) writer->count;
    writer->count = 0;
    return r;
}

int disk_writer_put(struct disk_writer *writer, const void *bytes, size_t count, int64_t at)
{
    const char *next = bytes;

    if (at != writer->at + (int64_t) writer->count) {
        int r = disk_writer_flush(writer);

        if (r < 0)
            return r;
        writer->at = at;
    }
    while (count > 0) {
        /* Up to a border of blocks, however it began. */
        size_t room = GATHER_BYTES - (size_t) (writer->at % BLOCK_BYTES) - writer->count;
        size_t some = MIN(count, room);

        memcpy(writer->bytes + writer->count, next, some);
        writer->count += some;
        next += some;
        count -= some;
        if (some == room) {
            int r = disk_writer_flush(writer);

            if (r < 0)
                return r;
        }
    }
    return 0;
}

int disk_writer_put_zeros(struct disk_writer *writer, int64_t count, int64_t at)
{
    int r = disk_writer_flush(writer);

    if (r == 0)
        r = disk_io_write_zeros(writer->disk, count, at);
    if (r == 0)
        count_done(writer, count);
    writer->at = at + count;
    return r;
}
