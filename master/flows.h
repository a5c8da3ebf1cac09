/* flows.h - whose turn it is to move: how many guests a host sends and receives at a time
 *
 * A few fat flows beat many thin ones: memory that crosses the network faster is dirtied less
 * meanwhile. Each host sends `per_host` guests and receives `per_host` at a time, two unless told:
 * one flow fills the link while the other is being opened, in its last round or being unpaused. The
 * rest wait in the order in which they came, but a move waits only for its own two hosts: one
 * host's queue does not hold up another's. Who is passed by too often closes its hosts for those
 * behind it, so that nobody starves between two busy hosts. */
#pragma once

#include "master/call.h"
#include "shared/fiber.h"

struct flows;
struct host_flows;

#define FLOWS_PER_HOST_DEFAULT 2

struct flows *flows_new(unsigned per_host); /* 0: the default */
void flows_destroy(struct flows **);

/* One move's turn. */
struct flow {
    struct flows *flows; /* NULL: not in it */
    ref_t source, destination;
    struct host_flows *from, *to;
    bool is_running;
    unsigned passed_by;
    struct flow *next, **link; /* the queue */
    struct waitq turn;
};

/* Wait for the turn: 0 or -ERR_TASK_CANCELLED. */
int flow_enter(struct flow *, struct call *, ref_t source, ref_t destination);
/* The cleanup: the next ones' turn. */
void flow_leave(struct flow *);

/* For /metrics and tests. */
unsigned flows_waiting(const struct flows *);
unsigned flows_running(const struct flows *);
