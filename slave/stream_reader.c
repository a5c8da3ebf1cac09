/* stream_reader.c - a source read in portions */
#include "slave/stream_reader.h"

#include <errno.h>

ssize_t stream_reader_some(struct stream_reader *reader, const char **ret_bytes, size_t max)
{
    size_t count;

    if (reader->left == 0) {
        const void *bytes;
        ssize_t n = reader->source->read(reader->source, &bytes);

        if (n <= 0)
            return n;
        reader->bytes = bytes;
        reader->left = (size_t) n;
    }
    count = MIN(reader->left, max);
    *ret_bytes = reader->bytes;
    reader->bytes += count;
    reader->left -= count;
    reader->at += (int64_t) count;
    return (ssize_t) count;
}

int stream_reader_exact(struct stream_reader *reader, void *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        const char *some;
        ssize_t n = stream_reader_some(reader, &some, count - done);

        if (n <= 0)
            return n < 0 ? (int) n : -ENODATA;
        memcpy((char *) bytes + done, some, (size_t) n);
        done += (size_t) n;
    }
    return 0;
}

int stream_reader_skip(struct stream_reader *reader, int64_t count)
{
    while (count > 0) {
        const char *some;
        ssize_t n = stream_reader_some(reader, &some, (size_t) count);

        if (n <= 0)
            return n < 0 ? (int) n : -ENODATA;
        count -= n;
    }
    return 0;
}

int stream_reader_end(struct stream_reader *reader)
{
    const char *some;
    ssize_t n;

    if (reader->source->is_endless && reader->left == 0)
        return 0;
    n = stream_reader_some(reader, &some, 1);
    return n < 0 ? (int) n : n > 0 ? -EFBIG : 0;
}
