/* world.h - the truth of a simulation: what really runs where, whatever agents and master believe
 *
 *   agent --requests--> guests of its host      both ways a queue: in order, a little late,
 *         <--what is--                          and read to its end when the agent dies
 *
 * The guests of a host are its own process: they outlive the agent, and vanish together when that process is killed.
 * A guest has a life, drawn when it boots, which travels with its memory; each time it begins to run, the life is one
 * run older. So the world sees at once when a VM runs twice, and when a guest goes on from memory that is older than
 * what has run since - time that its users would find lost.
 *
 * Guests and their sockets live on the world's own loop, which is never stopped. */
#pragma once

#include "shared/clock.h"
#include "shared/loop.h"
#include "shared/random.h"
#include "shared/ref.h"
#include "shared/timers.h"
#include "slave/hypervisor.h"
#include "tests/sim/trace.h"

#define WORLD_HOSTS 3
#define WORLD_DISKS 2 /* that a guest can have */

struct driver;
struct life;
struct world;

enum guest_work { WORK_NONE, WORK_BOOT, WORK_RECEIVE, WORK_SEND, WORK_SAVE };

/* What a guest has. */
struct world_devices {
    int count;
    struct world_disk {
        char device[8], path[96];
        bool is_read_only;
    } disks[WORLD_DISKS];
};

struct world_guest {
    struct world_host *host;
    struct world_guest *next;
    ref_t vm;
    uint64_t epoch;
    int64_t domid;
    enum guest_state state;
    enum guest_change ended_by;
    struct world_devices devices;
    struct life *life;         /* NULL: an empty copy */
    uint64_t runs_seen;        /* of its life, when its memory was as it is */
    enum guest_work work;
    uint64_t operation;        /* the agent's, of that work */
    struct timer work_timer;
    int fd;                    /* of a move; -1 */
    bool is_held;              /* by the move or the save: does not execute, keeps its lock */
    char *image;               /* path that is being saved to */
    bool is_ending;            /* it was asked to, */
    enum guest_change ends_as; /* and will */
    struct timer end_timer;
};

struct world_host {
    struct world *world;
    int number;                /* from 1 */
    ref_t uuid;
    char name[16];
    bool has_guests_process;
    struct timer process_timer; /* until there is one again */
    struct world_guest *guests;
    struct driver *driver;     /* of the agent that is connected, or NULL */
    bool is_cut_off;           /* from the other hosts: moves do not get through */
};

/* How the world misbehaves; out of 1,000 of each. */
struct world_chances {
    unsigned start_fails, unpause_fails, move_breaks, save_fails;
    unsigned work_ms_max;      /* boot, save, and moving */
};

struct world {
    struct seeded_random seeded;
    struct random *random;
    struct fake_clock clock;
    struct loop *loop;
    struct trace trace;
    struct world_chances chances;
    struct world_host hosts[WORLD_HOSTS];
    struct life *lives;
    const char *(*name_of)(void *arg, ref_t vm); /* for the trace */
    void *name_arg;
    uint64_t boots, moves, saves; /* that succeeded, to see that something happens */
};

struct world *world_new(uint64_t seed, bool is_verbose);
void world_destroy(struct world **);

uint64_t world_chance(struct world *, uint64_t below); /* 0 to below - 1 */
bool world_happens(struct world *, unsigned per_mille);
const char *world_name(struct world *, ref_t vm);

/* The guests process dies with all guests; another one starts a little later. */
void world_kill_guests(struct world_host *);
/* Some running guest ends by itself. False when none runs. */
bool world_end_some_guest(struct world *, enum guest_change);
/* Break all moves from or to the host. */
void world_break_moves(struct world_host *);

struct world_guest *world_guest(const struct world_host *, ref_t vm);
/* A disk of these, or NULL. */
const struct world_disk *world_disk(const struct world_devices *, const char *device);
/* The host where the VM holds its lock, or NULL. */
const struct world_host *world_runs_on(const struct world *, ref_t vm);

/* ---- hypervisor_mem.c ---- */

/* A driver for the host's agent, which is connected from now on. */
struct hypervisor *hypervisor_mem_new(struct world_host *, struct loop *agent_loop);
/* The agent's process is gone, at this moment: what it sent arrives, nothing more is told to it. The driver's memory
 * stays with the dead process. */
void hypervisor_mem_cut(struct hypervisor *);
