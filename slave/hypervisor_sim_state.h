/* hypervisor_sim_state.h - what the two files of the driver for simulated guests share */
#pragma once

#include <sys/un.h>

#include "shared/base.h"
#include "shared/loop.h"
#include "slave/guest_devices.h"
#include "slave/guest_link.h"
#include "slave/guest_table.h"
#include "slave/hypervisor.h"

enum sim_state { SIM_NO_PEER, SIM_GREETING, SIM_READY, SIM_LOST };

/* A guest as we know it. */
struct known {
    struct guest_node node; /* by VM */
    struct guest_found found;
    struct guest_sample sample;
    struct guest_devices devices; /* owned (guest_devices.h) */
    bool has_devices;             /* they were told: not by a guests process of an older version */
    bool is_ghost;  /* of a dead process: only we remember it */
    bool is_listed; /* in the list that is coming */
};

/* What an operation leaves when it has succeeded: how to tell, when its answer was lost. */
enum leaves {
    LEAVES_NOTHING_TO_SEE, /* no telling: a failure */
    LEAVES_PAUSED,
    LEAVES_RUNNING,
    LEAVES_SENT,
    LEAVES_ENDED, /* or unknown */
    LEAVES_SAVED,
    LEAVES_FORGOTTEN,
    LEAVES_DISK, /* the device is there */
    LEAVES_NO_DISK,
    LEAVES_NIC,
    LEAVES_NO_NIC,
};

struct pending {
    struct guest_node node; /* by operation number */
    uint64_t operation;
    ref_t vm;
    uint64_t epoch; /* of a guest that it makes or resumes; 0: any */
    enum leaves leaves;
    char device[16]; /* of LEAVES_DISK and its like */
    bool is_local; /* answered by us: 0 */
    struct sim *sim;
    struct timer timer; /* for that */
};

struct sim {
    struct hypervisor driver; /* handed out; the first member */
    struct loop *loop;
    struct sockaddr_un address;
    enum sim_state state;
    struct guest_link *link;
    int pid_fd;        /* of the process whose guests we know; -1: none, or no pidfds here */
    char instance[64]; /* which it is; empty: none yet, or dead */
    bool is_dead;      /* it is certain, and no other has said hello: there are no guests but those that we remember */
    struct timer retry_timer;
    uint64_t retry_ms;
    uint64_t away_ms,
        told_ms; /* since when nobody listens, and when that was last said; 0: not so */
    struct guest_table known, pending;
};

static inline ref_t sim_operation_key(uint64_t operation)
{
    return (ref_t){1, operation};
}

struct known *sim_find_known(const struct sim *sim, ref_t vm);
void sim_drop_known(struct sim *sim, struct known *known);
struct pending *sim_find_pending(const struct sim *sim, uint64_t operation);

/* The end of an operation, told after it is forgotten, so that the agent may begin another one at
 * once. */
void sim_pending_end(struct pending *pending, int result, const char *text);

/* Set all functions but destroy. */
void sim_fill_driver(struct hypervisor *driver);
