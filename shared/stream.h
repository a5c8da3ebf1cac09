/* stream.h - bytes on their way between a codec and the other end
 *
 * Exports write to a sink, imports read from a source; what stands behind them is an HTTP connection, a file or, in
 * tests, memory. Both block, so a codec is a plain function in a thread of its own. A user is told of the end by what
 * the call returns, and passes that up unchanged. */
#pragma once

#include "shared/base.h"

#include <stdint.h>
#include <sys/types.h>

/* Negative results, beside those of files:
 *   -EPIPE       the other end went away
 *   -ECANCELED   the transfer is not wanted any more
 *   -EBADMSG     what comes is not what it has to be */
struct sink {
    /* All of the bytes, sooner or later. 0 or a negative errno; after that every write fails alike. */
    int (*write)(struct sink *, const void *bytes, size_t count);
};

struct source {
    /* Nobody knows where it ends (clients that do not know a length say 2^50): who has all that the format has, looks no
     * further, for the next read might wait for ever. */
    bool is_endless;
    /* The next bytes, at least one, good until the next call: their number; 0 at the proper end; or a negative errno:
     * -EPIPE when the bytes end before their time. */
    ssize_t (*read)(struct source *, const void **ret_bytes);
};
