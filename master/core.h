/* core.h - the master's core: one thread that owns the datamodel and makes all decisions
 *
 * Everything hangs off this struct and nothing is global, so that the simulator can run several masters in one
 * process. The core reaches the world only through what is set here: clock and random numbers, the loop, the
 * sinks of the store, the link to the slaves, workers for what blocks. main.c and the simulator fill it. */
#pragma once

#include "shared/clock.h"
#include "shared/loop.h"
#include "shared/ref.h"

struct awaited;
struct blobs;
struct call;
struct config;
struct dispatch;
struct events;
struct claims;
struct flows;
struct guests;
struct http_transfers;
struct journal;
struct mirror;
struct passwords;
struct recovery;
struct refreshing;
struct room;
struct sessions;
struct slaves;
struct store;
struct tasks;
struct transfers_left;
struct workers;

struct core {
    struct clock *clock;
    struct random *random;
    struct loop *loop;
    struct workers *workers;
    const struct config *config;
    struct store *store;
    struct journal *journal; /* journal.h; NULL in tests and the simulator */
    struct mirror *mirror;   /* mirror.h; NULL without Redis */
    struct dispatch *dispatch;   /* dispatch.h */
    struct passwords *passwords; /* shared/passwords.h */
    struct sessions *sessions;   /* session.h */
    struct tasks *tasks;         /* task.h */
    struct events *events;       /* events.h */
    struct slaves *slaves;       /* slaves.h */
    struct claims *claims;       /* claim.c: who waits for which object */
    struct room *room;           /* room.h */
    struct flows *flows;         /* flows.h: whose turn it is to move */
    struct recovery *recovery;   /* recovery.h */
    struct awaited *awaited;     /* awaited.h; NULL: nobody is */
    struct guests *guests;       /* guest_changes.h */
    struct blobs *blobs;         /* blob_files.h; NULL in tests and the simulator */
    struct http_transfers *transfers; /* http_transfer.h */
    struct transfers_left *transfers_left; /* transfer_left.h; made with them */
    uint64_t epoch;              /* of this master, and who holds it: */
    ref_t holder;                /* drawn anew at each start */
    ref_t pool;                  /* the one pool object */
    ref_t host;                  /* the host that the master runs on */
    const char *read_only_why;   /* the disk refuses writes, since the start (start.h); NULL: it takes them */
    int64_t left_over_disks;     /* storage.h: hidden disks that nobody is making any more */
    struct refreshing *refreshing; /* storage.c: SRs that are being asked for their sums behind some call */
    _Atomic size_t metadata_bytes; /* metadata_http.h: archives in memory; any thread */
};

/* May this master answer and order? The one place that every reply, event and slave call passes, on the core's thread
 * and on the HTTP loops. Without HA always; with HA (a later issue) while the lease holds. */
bool may_act(const struct core *);

/* Nothing leaves the core - reply, error, event, slave call - before every generation that its fiber has read or made
 * is durable. Waits for call->depends to be visible, then for leave to act. */
void core_emit(struct call *);
