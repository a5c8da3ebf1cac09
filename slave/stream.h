/* stream.h - the streams of a transfer (shared/stream.h), and how far it is */
#pragma once

#include "shared/stream.h"

/* How far a transfer is; any thread reads. Codecs count the disks, whatever is behind sink and source the stream. */
struct transfer_figures {
    _Atomic int64_t disk_bytes_done;  /* of the disks, holes included: for the share that is done */
    _Atomic int64_t disk_bytes_total;
    _Atomic int64_t stream_bytes;     /* that went over the connection */
};
