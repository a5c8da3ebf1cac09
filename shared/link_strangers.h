/* link_strangers.h - who could not even begin to speak at a listening socket of ZeroMQ, for the log
 *
 * Who does not know the key of the socket fails before our ZAP handler is asked. ZeroMQ tells its
 * monitor so, without an address; that comes from the connection, which it has told of when it was
 * accepted and tells of when it is closed. */
#pragma once

#include "shared/base.h"

#define STRANGERS_ACCEPTED 64 /* connections whose address is remembered; the latest */
#define STRANGERS_EVENTS \
    (ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)

struct link_strangers {
    struct {
        int fd; /* a number; ZeroMQ's */
        char address[64];
    } accepted[STRANGERS_ACCEPTED];
    unsigned next;
    bool has_failed;  /* the connection that is closed next */
    unsigned untold;  /* since the last line */
    uint64_t told_ms; /* 0: never */
};

/* An event of the socket's monitor: its number and value. `what`: what those who fail lack. One
 * line in ten seconds. */
void link_strangers_event(struct link_strangers *, unsigned number, uint32_t value,
                          const char *what);
