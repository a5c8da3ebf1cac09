/* sim.h - a pool in one thread: masters, agents and clients as they are, around a world that misbehaves
 *
 *   world.c hypervisor_mem.c   the truth: guests, sockets of moves           disk.c   masters' disks
 *   net.c                      frames lost, doubled, late, out of order
 *   host_process.c             an agent, from its start to its crash
 *   master_process.c           a master, likewise
 *   clients.c                  calls at random, and what was promised to them
 *   faults.c                   what goes wrong, and when
 *   checks.c                   what must be true all the same
 *
 * Everything follows from the seed: clock, network, disks, failures and faults draw from one sequence of random numbers,
 * and loops run one after the other. So a seed that fails, fails again, in the same step. */
#pragma once

#include "master/core.h"
#include "master/slaves.h"
#include "shared/link.h"
#include "shared/loop.h"
#include "slave/ledger.h"
#include "tests/sim/disk.h"
#include "tests/sim/net.h"
#include "tests/sim/world.h"

#define SIM_VMS         8
#define SIM_MASTERS_MAX 16 /* that ever were, in one simulation; at most two live */
#define SIM_TASKS_MAX   4096

struct agent;
struct clients;
struct faults;
struct hypervisor;
struct sim;

/* A process: runs when its loop is stepped, is stopped while it is not, and crashes between two steps or at a crash
 * point within one. */
struct process {
    struct sim *sim;
    char name[24];
    struct loop *loop;         /* NULL: does not run */
    uint64_t stopped_until_ms; /* SIGSTOP */
    bool is_dead;              /* crashed in the step that runs now */
    void (*die)(struct process *);   /* nothing it does has an effect any more */
    void (*bury)(struct process *);  /* after that step */
    void (*start)(struct process *); /* again, after a while */
    struct timer start_timer;
};

struct sim_host {
    struct process process;
    struct world_host *world_host;
    struct ledger_disk disk;
    char public_key[LINK_KEY_BYTES], secret_key[LINK_KEY_BYTES];
    ref_t ref;                 /* in the model */
    struct sim_master *follows; /* whom it is told to follow at its start */
    struct ledger *ledger;
    struct hypervisor *hypervisor;
    struct link_transport *transport;
    struct agent *agent;
    unsigned starts;
};

struct sim_master {
    struct process process;
    int number;
    struct disk disk;
    struct disk_redo *sink;
    struct link_transport *transport;
    struct core core;
    char session[64];          /* "": none yet */
    struct slaves_known above; /* it is to begin anew above that */
    bool is_from_copy;         /* of a disk that may lack something, and is not told so yet */
    bool is_superseded;        /* another one began after it, from a copy: its promises are void */
    unsigned starts;
};

struct sim {
    struct world *world;
    struct net *net;
    struct sim_host hosts[WORLD_HOSTS];
    struct sim_master *masters[SIM_MASTERS_MAX];
    int master_count;          /* the last one is the one that counts */
    ref_t pool, sr;            /* in the model */
    ref_t vms[SIM_VMS];
    ref_t vm_uuids[SIM_VMS];
    char vm_names[SIM_VMS][16];
    ref_t vbds[SIM_VMS];       /* of each VM: a disk that comes and goes */
    char directory[64];        /* of what is really a file: disks' owner records, suspend images */
    struct process *running;   /* whose step it is */
    struct clients *clients;
    struct faults *faults;
    struct agent_sockets *sockets;
    struct sim_points *points;
    const char *without;
    bool records_were_old;     /* some master began from an old copy */
    bool is_calm;              /* nothing goes wrong any more */
};

static inline uint64_t sim_now_ms(const struct sim *sim)
{
    return clock_now_ms((struct clock *) &sim->world->clock.clock);
}
#define sim_event(sim, ...) trace_event(&(sim)->world->trace, __VA_ARGS__)
#define sim_fail(sim, ...)  trace_fail(&(sim)->world->trace, __VA_ARGS__)

/* ---- sim.c ---- */

/* How often a crash point was passed, and was the last. In memory that all simulations share. */
struct sim_points {
    unsigned count;
    struct sim_point {
        char name[72];
        unsigned passed, crashed;
    } points[1024];
};

struct sim_options {
    uint64_t seed;
    unsigned minutes;          /* simulated, until calm */
    bool is_verbose;
    struct sim_points *points; /* to be counted in; NULL: not */
    char without[256];         /* names of faults that do not happen, each with a space; "points" are the crash points */
};

/* Run one simulation; returns the fingerprint of its trace. A failure ends the process with TRACE_FAILED. */
uint64_t sim_run(const struct sim_options *);

/* The process ends here and now, as by SIGKILL. From within a fiber of it, this does not return. */
void process_crash(struct process *);
/* Let everybody run until nothing more happens at this moment, then go to the next. False at `until_ms`. */
bool sim_step(struct sim *, uint64_t until_ms);

/* ---- host_process.c ---- */

void sim_host_init(struct sim *, int index);
void sim_host_start(struct sim_host *);
/* It is to follow this master from now on, as by emergency_reset_master. */
void sim_host_follow(struct sim_host *, struct sim_master *);
bool sim_host_is_up(const struct sim_host *);
/* The highest that its ledger holds for good. */
uint64_t sim_host_epoch(const struct sim_host *);

/* ---- master_process.c ---- */

/* The newest master. */
static inline struct sim_master *sim_master(const struct sim *sim)
{
    return sim->masters[sim->master_count - 1];
}
struct sim_master *sim_master_add(struct sim *, const struct disk *copied);
void sim_master_start(struct sim_master *);
bool sim_master_is_up(const struct sim_master *);
/* The pool as it is at first: hosts, shared storage, VMs. */
void sim_pool_make(struct sim_master *);

/* ---- clients.c ---- */

struct clients *clients_new(struct sim *);
void clients_stop(struct clients *);
/* Calls that were made and not answered, by masters that still live. */
unsigned clients_waiting(const struct clients *);
/* The master's disk was put back to an old copy: what was promised since is void. */
void clients_forget(struct clients *);
/* A master has crashed: its calls are never answered. */
void clients_master_died(struct clients *, struct sim_master *);
/* What was acknowledged, against what a master that has just started knows. */
void clients_check(struct clients *, struct sim_master *);
void clients_report(const struct clients *);

/* ---- faults.c ---- */

struct faults *faults_new(struct sim *);
bool faults_has(const char *name);
/* Everything heals: who is dead starts, who is cut off is connected. */
void faults_end(struct faults *);

/* ---- checks.c ---- */

/* Of each frame that a master (the argument) sends. */
void check_order(void *sim_master, const void *bytes, size_t count);
/* Cheap; after each moment. */
void check_moment(struct sim *);
/* Complete; when nothing is under way. */
void check_replay(struct sim_master *);
bool check_is_quiet(struct sim_master *);
void check_end(struct sim *);

/* ---- sockets_mem.c ---- */

struct agent_sockets *sockets_mem_new(struct sim *);
