/* transfer.h - HTTP requests that carry VMs and disks: from their arrival to their end
 *
 *   HTTP loop          agent's loop                                   master
 *   request arrives
 *   parked ----------> transfer: in the table, a number drawn
 *                      note "transfer": who asks for what ----------> checks who asks, claims, makes a task
 *                      <------------- call export_vm, import_open ... on a fiber of its own
 *   answer begins <--- a thread runs the codec (workers of their own)
 *   bytes =========== pipe or upload ============ codec === disk
 *   answer ends -----> result ---------------------------------------> task ends
 *
 * The slave decides nothing: without the master's word a request gets no answer but 503. What the master refuses, and with
 * which status, comes as transfer_refuse. A transfer belongs to the master that was told of it; when another takes over,
 * which knows nothing of it, it is cut; after each break of the link the master is told which are there, and has those cut that
 * it has given up (docs/transfers.md). It is told, too, when a client goes before it has said anything: it may be waiting for what
 * that one wanted.
 *
 * One that is cut while the kernel keeps its thread, as on a network file system whose server is away, stays in the table until
 * that comes free, and the master is told so: what it holds of a disk must not be given to others. It counts for no bound here.
 *
 *   transfer.c          arrival, table, end
 *   transfer_places.c   how many are at work at once
 *   transfer_counts.c   what they add up to, for metrics.c
 *   transfer_export.c   export_vm, export_raw
 *   transfer_import.c   import_open, import_disks, import_raw */
#pragma once

#include "shared/fiber.h"
#include "shared/http.h"
#include "slave/agent.h"
#include "slave/stream.h"
#include "slave/transfer_places.h"

#include <pthread.h>
#include <stdatomic.h>

struct slave_front;
struct transfer_rate;
struct transfers;

struct transfers_config {
    unsigned at_work_max;    /* at once; others wait their turn, and who waits for its client does not count */
    unsigned requests_max;   /* there at once, at work or waiting */
    int64_t bytes_per_s;     /* of all together; 0: no bound */
};

/* Registers the handlers of export and import, before the front starts. The loop is the agent's. */
struct transfers *transfers_new(struct loop *, struct slave_front *, const struct transfers_config *);
/* There is an agent: until then requests are refused. Sets agent->transfers. */
void transfers_start(struct transfers *, struct agent *);
/* After the front has stopped and the agent's loop was abandoned. NULL is fine. */
void transfers_destroy(struct transfers **);

/* The agent has a link to a master of this epoch: when it is new, and with each beat; 0: none is heard. Transfers that another was
 * told of are cut; of the others, and of those that were cut and do not end, the master is told that they are still there: it may
 * have given them up when it took this host for dead. */
void transfers_follow(struct transfers *, uint64_t epoch);

struct transfers_figures {
    unsigned there;           /* at work or waiting */
    unsigned at_work;         /* have a place */
    unsigned wait_for_place;  /* would go on if they had one */
    unsigned wait_for_client; /* to take or send something; the rest waits for the master's word */
    uint64_t refused, gave_way, sent_bytes, received_bytes; /* since the agent began (transfer_counts.h) */
};
/* On the agent's loop. */
void transfers_figures(struct transfers *, struct transfers_figures *ret);

/* ---- among the transfer files ---- */

struct transfer {
    atomic_int references;
    struct transfers *transfers;
    ref_t id;
    struct http_ticket ticket;
    bool is_open_ended;          /* the client may close when it has sent all, whatever length it said */
    const char *range, *if_range, *if_match; /* headers, or NULL; in the arena */
    bool is_head, is_upload;
    struct arena *arena;
    struct value asked;          /* the body of the note */

    /* the agent's loop */
    uint64_t epoch;              /* of the master that was told */
    bool is_gone;                /* answered, or the client is */
    struct timer waiting;        /* for the master's word */
    struct op *op;               /* at work on it, or NULL */
    struct waitq idle;           /* woken when that has ended */
    bool has_given_way;          /* was cut because it was slow and others waited */
    bool has_left;               /* was cut because its client had closed the connection */
    bool is_stuck;               /* was cut, and the log says that it does not end */
    uint64_t window_ms;          /* when the stretch of time began in which its client's speed is measured, */
    int64_t window_bytes;        /* at so many bytes of the stream; */
    int64_t slow_bytes;          /* how many moved in the last one; -1: there was none yet */
    int64_t counted_bytes;       /* of the stream, that the host's counts have */

    /* shared with the codec's thread */
    _Atomic bool is_cancelled;
    struct transfer_figures figures;
    struct place place;
    pthread_mutex_t lock;        /* for what a cancel must reach: */
    struct pipe *pipe;           /* of an export */

    /* the request's loop */
    bool is_head_sent;           /* the answer has begun before its upload */
    bool is_let_through;         /* its body is: from then on the upload tells that the client has gone, behind all that came before */

    const char *task_header;     /* of the answer to an upload, from when that is let through; a line, or NULL */

    /* the agent's loop, and the codec's thread while its op waits */
    struct upload_source *source; /* of an import, once it was opened */
    struct xva_reader *reader;    /* which reads from it, between import_open and import_disks */
    const char *ova;              /* the reader's, until import_disks begins; NULL before it was read */
    size_t ova_bytes;
};

/* The transfer that a call names, for the op alone; one that another call is at is waited for, since a call whose reply was
 * lost comes again. 0, or the failure when the client has gone. */
int transfer_take(struct op *, const char *id, struct transfer **ret);
/* Gives it back. is_over: its answer has ended, nothing comes after. */
void transfer_give(struct transfer **, bool is_over);

struct transfer *transfer_ref(struct transfer *);
void transfer_unref(struct transfer **);

/* Have fn(arg) run by one of the transfers' threads, as soon as there is a place; reports progress each second, and at the end
 * all of it with its mean rate. 0, or the op's failure when there is no thread, or it was cancelled before there was a place. */
int transfer_work(struct op *, struct transfer *, void (*fn)(void *arg), void *arg);

struct transfer_rate *transfer_rate_of(const struct transfer *);
/* Of all imports: their texts of ova.xml wait here for slow clients. */
struct xva_budget *transfer_ova_budget(const struct transfer *);

/* Answer its request with a page of our own, before anything else was. */
void transfer_answer(struct transfer *, int status, const char *headers, const char *text);

/* What a codec returned, as the failure of the op that has the transfer: -EPIPE, -ECANCELED ... `text` says more, or is "". */
int transfer_failed(struct transfer *, int error, const char *text, bool is_import);

/* Does the {sr, sr_type, sr_location, sr_marker, location, format} of a call name a disk that there may be? 0 or the failure. */
int transfer_check_disk(struct op *, const struct value *disk);
