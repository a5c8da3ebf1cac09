/* agent.h - the agent: one on each host, doing there what the master asks
 *
 *   agent.c        its life: start, adopt what runs, stop; operations: each a fiber, at most once, remembered
 *   agent_link.c   the link to the master: hello, beats, frames in order, notes until they are acknowledged
 *   agent_join.c   becoming a host of the pool by its secret
 *   vms.c          the guests as the agent knows them, and the driver's operations as something to wait for
 *   vm_ops.c vm_move.c vm_snapshot.c storage.c ...   the functions do_x() that slave_calls.def asks for
 *
 * Nothing is global and the world is reached only through what agent_new() is given, so the simulator runs many
 * agents in one process. The agent has no pool state but its ledger (ledger.h). */
#pragma once

#include "shared/arena.h"
#include "shared/failure.h"
#include "shared/fiber.h"
#include "shared/link.h"
#include "shared/refmap.h"
#include "shared/slave_calls.h"
#include "shared/timers.h"

struct agent_link;
struct agent_join;
struct agent_sockets;
struct clock;
struct hypervisor;
struct ledger;
struct loop;
struct random;
struct samples;
struct standing;
struct transfers;
struct worked_in;
struct workers;

struct agent_config {
    const char *address;          /* of this host, for clients and for the other agents */
    const char *name;             /* host name */
    const char *hypervisor;       /* "sim" */
    const char *storage;          /* directory of the host's own SR; NULL: none */
    int64_t memory_bytes;         /* what the host offers its guests; 0: what the machine has */
    int cpus;                     /* 0: what the machine has */
    const char *master_endpoint;  /* of a master known beforehand, with its key; else from the ledger */
    const char *master_key;
    const char *join_endpoint;    /* where a pool's master takes new hosts, unless it was said later
                                     (agent_join_at); NULL: nowhere */
    const char *pool_secret;
    bool is_simulated;            /* say nothing about the machine beneath; memory_bytes and cpus are given */
    const char *http_socket;      /* unix socket of this host's HTTP server, an absolute path; NULL: none */
    struct standing *standing;    /* standing.h: what HTTP clients are told about the master; NULL: nobody asks */
    struct agent_sockets *sockets; /* sockets.h; NULL: TCP */
    uint64_t master_dead_ms;      /* without a frame from the master: say hello again. 0: 5 s */
};

struct agent {
    struct agent_config config;   /* texts are the caller's, who keeps them */
    struct clock *clock;
    struct loop *loop;
    struct random *random;
    struct workers *workers;
    struct worked_in *worked_in;  /* where they are at work (work_in.h) */
    struct ledger *ledger;
    struct hypervisor *hypervisor;
    struct agent_sockets *sockets;
    struct link_transport *transport, *door; /* door: for joining; may be NULL */
    char public_key[LINK_KEY_BYTES];
    ref_t host;                   /* who we are */
    uint64_t start_number;        /* raised at each start: numbers made from it never repeat */
    struct refmap vms;            /* uuid -> struct vm */
    struct refmap driving;        /* number -> struct driving: operations of the driver under way */
    uint64_t driving_last;
    struct refmap running;        /* operation id -> struct op: calls that run in this process */
    struct waitq op_ended;        /* woken when one of them has */
    struct agent_link *link;
    struct agent_join *join;
    struct samples *samples;
    struct transfers *transfers;  /* transfer.h; NULL in tests and the simulator, which serve no HTTP */
    struct timer list_timer;      /* until the driver can tell what runs */
    bool is_adopted, is_stopping;
    bool is_driver_away;          /* since it was adopted: no guest can be made here now */
};

/* Everything given is the caller's and outlives the agent - but for the hypervisor's events, which the agent sets. The
 * ledger knows the host and its key (agent_identity). Nothing is sent before agent_start. */
struct agent *agent_new(const struct agent_config *, struct loop *, struct random *, struct workers *, struct ledger *,
                        struct hypervisor *, struct link_transport *transport, struct link_transport *door);
/* From the loop's thread: count this start, adopt what runs, say hello. */
void agent_start(struct agent *);
/* Guests run on. Operations under way are abandoned as by a crash; the loop must not run their fibers any more. */
void agent_destroy(struct agent **);

/* At the first start of a host: draw its uuid (unless one is given) and keys, and write them down. From a fiber. */
void agent_identity(struct ledger *, struct random *, ref_t host, char ret_secret_key[LINK_KEY_BYTES]);

/* ---- operations ---- */

/* One call of the master on its way through the agent. */
struct op {
    struct agent *agent;
    struct arena *arena;          /* arguments, result; ends with the call */
    const struct slave_call *row;
    ref_t id;
    char id_text[UUID_TEXT_BYTES];
    struct value body;            /* arguments as they came */
    uint64_t deadline_ms;         /* by the loop's clock */
    uint64_t link;                /* on which it came */
    uint64_t epoch;               /* of the master that asked */
    bool is_written_down;         /* that it has begun, as far as that is needed; see op_write_down() */
    bool is_repeated;             /* begun before the agent was restarted: part of its effect may be there */
    struct failure failure;
};

/* The operation fails: code and details for the master; returns -ERR_<code>. */
#define op_fail(op, code, ...) failure_set(&(op)->failure, (op)->arena, code, ##__VA_ARGS__)

/* int do_vm_start(struct op *, const struct slave_vm_start_args *, struct value *ret) for each row: 0 with the result in
 * *ret, in the op's arena; or what op_fail() returned. Runs as a fiber. May be run again with the same id after the agent was
 * restarted in the middle of it, so it starts with looking at how far things are. */
#define SLAVE_CALL(name, deadline_ms, effect, result, args)                                        \
    int do_##name(struct op *, const struct slave_##name##_args *, struct value *ret);
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL

/* A string map from pairs of texts, ended by NULL, in the op's arena; texts are copied. */
struct value op_map(struct op *, const char *key, ...) __attribute__((sentinel));
const char *op_text(struct op *, const char *format, ...) _printf_(2, 3);

/* From a fiber: what was put into the ledger is in the file when this returns, and that the operation has begun. */
void op_sync(struct op *);
/* From here on the operation may have an effect: the same, unless that it has begun is in the file already. */
void op_write_down(struct op *);

/* Have fn(arg) run by a worker; for what touches disks see work_in.h. */
void op_work(struct op *, void (*fn)(void *arg), void *arg);

/* ---- notes ---- */

/* Tell the master; kept and repeated until it acknowledges. is_latest: replaces an older note of this name and VM that
 * was not acknowledged (samples, progress). The body is copied. vm may be null. */
void agent_note(struct agent *, const char *name, ref_t vm, uint64_t vm_epoch, const struct value *body, bool is_latest);

/* ---- among the agent's files ---- */

void agent_take_call(struct agent *, struct arena *arena, ref_t id, const char *name, const struct value *body,
                     uint64_t deadline_ms);
void agent_take_ask(struct agent *, ref_t id);
void agent_take_confirm(struct agent *, const struct value *ids);

/* The host as it describes itself; a string map in the arena. */
struct value agent_about(struct agent *, struct arena *arena);

struct agent_link *agent_link_new(struct agent *);
void agent_link_destroy(struct agent_link **);
/* Say hello to this master, from now on; remembered by the ledger when it has answered. */
void agent_link_to(struct agent *, const char *endpoint, const char *key);
bool agent_is_linked(const struct agent *);
/* This master is not followed any more; there is none until the next agent_link_to(). */
void agent_link_leave(struct agent *);
/* The same master, over a new connection: the old one may be dead without anybody having noticed. */
void agent_link_renew(struct agent *);
/* For crash points: the frame that was just received, or is about to be sent, counts as lost; the other end notices. */
void agent_link_lose(struct agent *, bool was_received);
/* What the master has told of itself goes into the ledger with the next sync. */
void agent_link_remember(struct agent *);
/* The number of the last hello; and say another one. */
uint64_t agent_link_number(const struct agent *);
void agent_link_tell_anew(struct agent *, const char *why);
/* Outcome: packed [code or nil, params or nil, result or nil]. */
void agent_link_reply(struct agent *, ref_t id, const void *outcome, size_t bytes);
void agent_link_answer(struct agent *, ref_t id, const char *state, const void *outcome, size_t bytes);

struct agent_join *agent_join_new(struct agent *);
void agent_join_destroy(struct agent_join **);
void agent_join_start(struct agent *);
/* Is there a secret to join with? And where would a host that is told no port do it: 0, or the port in use now. */
bool agent_join_is_possible(const struct agent *);
uint16_t agent_join_port(const struct agent *);
/* From now on the pool's master is whoever takes hosts at this endpoint, "tcp://ADDRESS:PORT", also after a restart - until the
 * setting `join` says something new. From a fiber; waits until that is in the ledger. */
void agent_join_at(struct agent *, const char *endpoint);
void agent_join_renew(struct agent *);

struct samples *samples_new(struct agent *);
void samples_destroy(struct samples **);
