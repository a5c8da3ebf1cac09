/* disk_writer.c - gather bytes, write runs of data and runs of zeros */
#include "slave/disk_writer.h"

#define GATHER_BYTES (2 * 1024 * 1024) /* at once: what a disk is written fastest in (disk_io.h) */
#define BLOCK_BYTES  (64 * 1024)       /* is data or zeros as a whole: the cluster of qcow2 */

bool bytes_are_zero(const void *bytes, size_t count)
{
    const char *first = bytes;

    return count == 0 || (first[0] == 0 && memcmp(first, first + 1, count - 1) == 0);
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
    int r = 0;

    for (size_t done = 0; done < writer->count && r == 0;) {
        int64_t at = writer->at + (int64_t) done;
        bool is_zero = false;
        size_t run = 0;

        while (done + run < writer->count) {
            size_t block = MIN(BLOCK_BYTES - (size_t) ((at + (int64_t) run) % BLOCK_BYTES), writer->count - done - run);
            bool block_is_zero = bytes_are_zero(writer->bytes + done + run, block);

            if (run > 0 && block_is_zero != is_zero)
                break;
            is_zero = block_is_zero;
            run += block;
        }
        r = is_zero ? disk_io_write_zeros(writer->disk, (int64_t) run, at)
                    : disk_io_write(writer->disk, writer->bytes + done, run, at);
        done += run;
    }
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
