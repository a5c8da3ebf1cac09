/* stream_reader.h - a source read in the portions that a format is made of
 *
 * A source gives what has come; formats want so many bytes, or as many as there are up to a border. The reader also
 * counts, so that a format whose parts name their places knows where it is. */
#pragma once

#include "slave/stream.h"

struct stream_reader {
    struct source *source;
    const char *bytes; /* what it gave and nobody has taken: its memory */
    size_t left;
    int64_t at;        /* bytes taken so far */
};

/* The next bytes, at least one and at most `max`, good until the next call: their number; 0 at the proper end; or what
 * the source fails with. */
ssize_t stream_reader_some(struct stream_reader *, const char **ret_bytes, size_t max);

/* Exactly so many bytes: 0; -ENODATA when the end comes first; or what the source fails with. */
int stream_reader_exact(struct stream_reader *, void *bytes, size_t count);
int stream_reader_skip(struct stream_reader *, int64_t count);

/* 0 when nothing comes any more, or nothing has come of a source that is endless, -EFBIG when something does, or what the
 * source fails with. */
int stream_reader_end(struct stream_reader *);
