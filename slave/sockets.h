/* sockets.h - how two agents come to a connection for a guest's memory: a small interface with two forms
 *
 * TCP (sockets.c) between hosts; the simulator's is in memory, so that all connections of its pool are made within one
 * thread and at moments that follow from its seed. Both give non-blocking descriptors that read, write and epoll
 * treat as any stream socket. */
#pragma once

#include "shared/base.h"

struct agent_sockets {
    /* Listen at a free port of the host's address. 0 or a negative errno. From a fiber. */
    int (*listen)(struct agent_sockets *, const char *address, int *ret_fd, int *ret_port);
    /* Begin to connect: the descriptor becomes writable when that is over, SO_ERROR says how. 0 or a negative errno,
     * -EINVAL for what is no address. From a fiber. */
    int (*connect)(struct agent_sockets *, const char *address, const char *port, int *ret_fd);
};

/* Lives for ever. */
struct agent_sockets *sockets_tcp(void);
