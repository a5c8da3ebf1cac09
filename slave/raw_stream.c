/* raw_stream.c - plain bytes and records of plain bytes, to and from a disk */
#include "slave/raw_stream.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>

#include "slave/disk_writer.h"
#include "slave/stream_reader.h"

#define EXPORT_BYTES (2 * 1024 * 1024) /* read at once */
#define TAKE_BYTES   (1024 * 1024)     /* of a source at once */

/* ---- out ---- */

static void count_done(struct transfer_figures *figures, size_t count)
{
    if (figures)
        figures->disk_bytes_done += (int64_t) count;
}

/* What lies between `from` and `to` is data, or zeros when `disk` is NULL. */
static int send_range(struct disk_io *disk, int64_t from, int64_t to, char *bytes, struct sink *sink,
                      struct transfer_figures *figures)
{
    if (!disk)
        memset(bytes, 0, (size_t) MIN(to - from, (int64_t) EXPORT_BYTES));
    while (from < to) {
        size_t count = (size_t) MIN(to - from, (int64_t) EXPORT_BYTES);
        int r = disk ? disk_io_read(disk, bytes, count, from) : 0;

        if (r == 0)
            r = sink->write(sink, bytes, count);
        from += (int64_t) count;
        if (r == 0 && disk)
            r = disk_io_passed(disk, from);
        if (r < 0)
            return r;
        count_done(figures, count);
    }
    return 0;
}

int raw_export(struct disk_io *disk, int64_t from, int64_t to, struct sink *sink, struct transfer_figures *figures)
{
    _cleanup_(free_p) char *bytes = alloc0(EXPORT_BYTES);
    int r = 0;

    if (from < 0 || from > to || to > disk_io_size(disk))
        return -EINVAL;
    if (figures)
        figures->disk_bytes_total += to - from;
    while (from < to && r == 0) {
        int64_t data, end;

        r = disk_io_next_data(disk, from, &data, &end);
        if (r == -ENXIO)
            data = end = to;
        else if (r < 0)
            return r;
        data = MIN(data, to);
        end = MIN(end, to);
        r = send_range(NULL, from, data, bytes, sink, figures);
        if (r == 0)
            r = send_range(disk, data, end, bytes, sink, figures);
        from = end;
    }
    return r;
}

/* ---- in ---- */

static int refuse(char *ret_text, int error, const char *why)
{
    snprintf(ret_text, DISK_IO_TEXT_BYTES, "%s", why);
    return error;
}

/* Exactly `count` bytes of the stream to one place. */
static int take_range(struct disk_writer *writer, struct stream_reader *reader, int64_t count, int64_t at)
{
    while (count > 0) {
        const char *some;
        ssize_t n = stream_reader_some(reader, &some, (size_t) MIN(count, (int64_t) TAKE_BYTES));
        int r;

        if (n <= 0)
            return n < 0 ? (int) n : -ENODATA;
        r = disk_writer_put(writer, some, (size_t) n, at);
        if (r < 0)
            return r;
        count -= n;
        at += n;
    }
    return 0;
}

int raw_import(struct disk_io *disk, struct source *source, struct transfer_figures *figures,
               char ret_text[DISK_IO_TEXT_BYTES])
{
    _cleanup_(disk_writer_done) struct disk_writer writer;
    struct stream_reader reader = {.source = source};
    int64_t size = disk_io_size(disk);
    int r;

    ret_text[0] = '\0';
    disk_writer_init(&writer, disk, figures);
    if (figures)
        figures->disk_bytes_total += size;
    r = take_range(&writer, &reader, size, 0);
    if (r == 0)
        r = stream_reader_end(&reader);
    else if (r == -ENODATA)
        r = disk_writer_put_zeros(&writer, size - reader.at, reader.at);
    if (r == -EFBIG)
        return refuse(ret_text, r, "there is more than the disk has room for");
    return r < 0 ? r : disk_writer_flush(&writer);
}

static int import_records(struct disk_writer *writer, struct stream_reader *reader, char *ret_text)
{
    int64_t size = disk_io_size(writer->disk);

    for (;;) {
        unsigned char head[12];
        uint64_t offset;
        uint32_t length;
        int r = stream_reader_exact(reader, head, sizeof head);

        if (r < 0)
            return r;
        memcpy(&offset, head, sizeof offset);
        memcpy(&length, head + sizeof offset, sizeof length);
        offset = le64toh(offset);
        length = le32toh(length);
        if (offset == 0 && length == 0)
            return 0;
        if (offset > (uint64_t) size || length > (uint64_t) size - offset)
            return refuse(ret_text, -EFBIG, "a record leads outside the disk");
        if (writer->figures)
            writer->figures->disk_bytes_total += length;
        r = take_range(writer, reader, length, (int64_t) offset);
        if (r < 0)
            return r;
    }
}

int raw_import_chunked(struct disk_io *disk, struct source *source, struct transfer_figures *figures,
                       char ret_text[DISK_IO_TEXT_BYTES])
{
    _cleanup_(disk_writer_done) struct disk_writer writer;
    struct stream_reader reader = {.source = source};
    int r;

    ret_text[0] = '\0';
    disk_writer_init(&writer, disk, figures);
    r = import_records(&writer, &reader, ret_text);
    if (r == -ENODATA)
        return refuse(ret_text, -EBADMSG, "it ends without the record that ends it");
    if (r == 0) {
        r = stream_reader_end(&reader);
        if (r == -EFBIG)
            return refuse(ret_text, -EBADMSG, "it goes on after the record that ends it");
    }
    return r < 0 ? r : disk_writer_flush(&writer);
}
