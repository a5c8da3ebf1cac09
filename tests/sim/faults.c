/* faults.c - what goes wrong, and when
 *
 * Every few seconds one of the table's faults, on somebody. Who crashes, by a fault or at a crash point, starts again
 * after a while; who is stopped goes on by itself. Pauses are drawn so that some are below and some far beyond the time
 * after which a host is given up. */
#include <stdio.h>

#include "tests/sim/sim.h"

#define PAUSE_MS       9000   /* between two faults, at most */
#define SHORT_MS       4000
#define LONG_MS        40000
#define SUCCESSORS_MAX 3      /* second masters, in one simulation */

struct heal {
    struct timer timer;
    struct sim *sim;
    char from[LINK_KEY_BYTES], to[LINK_KEY_BYTES];
};

struct faults {
    struct sim *sim;
    struct timer timer, disk_timer, net_timer;
    struct heal heals[16];       /* cuts of the network */
    struct timer join_timers[WORLD_HOSTS];  /* moves are cut off until */
    struct timer follow_timers[WORLD_HOSTS];
    struct timer return_timer;   /* the old master goes on */
    unsigned successors;
    struct disk kept;            /* the master's disk as it was */
    int kept_of;                 /* its number; 0: none is kept */
};

static uint64_t some_ms(struct sim *sim)
{
    return 1 + world_chance(sim->world, world_chance(sim->world, 3) ? SHORT_MS : LONG_MS);
}

static struct sim_host *some_host(struct sim *sim)
{
    return &sim->hosts[world_chance(sim->world, WORLD_HOSTS)];
}

static struct process *some_process(struct sim *sim)
{
    return world_chance(sim->world, 3) == 0 ? &sim_master(sim)->process : &some_host(sim)->process;
}

/* ---- the faults ---- */

static void crash_host(struct faults *faults)
{
    process_crash(&some_host(faults->sim)->process);
}

static void crash_master(struct faults *faults)
{
    process_crash(&sim_master(faults->sim)->process);
}

static void stop_process(struct faults *faults)
{
    struct process *process = some_process(faults->sim);

    if (!process->loop)
        return;
    process->stopped_until_ms = sim_now_ms(faults->sim) + some_ms(faults->sim);
    sim_event(faults->sim, "%s is stopped", process->name);
}

static void kill_guests(struct faults *faults)
{
    world_kill_guests(some_host(faults->sim)->world_host);
}

static void end_guest(struct faults *faults)
{
    static const enum guest_change changes[] = {GUEST_SHUT_DOWN, GUEST_REBOOTED, GUEST_CRASHED};

    world_end_some_guest(faults->sim->world, changes[world_chance(faults->sim->world, ARRAY_SIZE(changes))]);
}

static void break_moves(struct faults *faults)
{
    world_break_moves(some_host(faults->sim)->world_host);
}

static void wall_clock_jumps(struct faults *faults)
{
    struct fake_clock *clock = &faults->sim->world->clock;
    int64_t by_s = (int64_t) world_chance(faults->sim->world, 7200) - 3600;

    sim_event(faults->sim, "the wall clock jumps by %lld s", (long long) by_s);
    fake_clock_set_utc(clock, clock_utc_s(&clock->clock) + by_s);
}

static void healed(void *arg)
{
    struct heal *heal = arg;

    sim_event(heal->sim, "the way from %s is whole again", heal->from);
    net_cut(heal->sim->net, heal->from, heal->to[0] ? heal->to : NULL, false);
}

/* One direction, the other, or both. */
static void cut_net(struct faults *faults)
{
    struct sim *sim = faults->sim;
    struct sim_host *host = some_host(sim);
    struct heal *heal = NULL;
    const char *master = host->follows->process.name;

    for (size_t i = 0; i < ARRAY_SIZE(faults->heals) && !heal; i++)
        if (!timer_is_running(&faults->heals[i].timer))
            heal = &faults->heals[i];
    if (!heal)
        return;
    *heal = (struct heal){.sim = sim};
    switch (world_chance(sim->world, 3)) {
    case 0:
        snprintf(heal->from, sizeof heal->from, "%s", host->public_key);
        snprintf(heal->to, sizeof heal->to, "%s", master);
        break;
    case 1:
        snprintf(heal->from, sizeof heal->from, "%s", master);
        snprintf(heal->to, sizeof heal->to, "%s", host->public_key);
        break;
    default:
        snprintf(heal->from, sizeof heal->from, "%s", host->public_key);
    }
    sim_event(sim, "%s is cut off from the master (%s)", host->process.name,
              !heal->to[0] ? "both ways" : streq(heal->to, master) ? "its frames" : "the master's frames");
    net_cut(sim->net, heal->from, heal->to[0] ? heal->to : NULL, true);
    timer_start(sim->world->loop, &heal->timer, some_ms(sim), healed, heal);
}

static void joined(void *arg)
{
    ((struct world_host *) arg)->is_cut_off = false;
}

static void cut_moves(struct faults *faults)
{
    struct sim *sim = faults->sim;
    struct world_host *host = some_host(sim)->world_host;

    sim_event(sim, "%s is cut off from the other hosts", host->name);
    host->is_cut_off = true;
    world_break_moves(host);
    timer_start(sim->world->loop, &faults->join_timers[host->number - 1], some_ms(sim), joined, host);
}

static void disk_is_fast(void *arg)
{
    struct sim *sim = arg;

    if (sim_master_is_up(sim_master(sim)))
        disk_redo_slow(sim_master(sim)->sink, 0);
}

static void slow_disk(struct faults *faults)
{
    struct sim *sim = faults->sim;

    if (!sim_master_is_up(sim_master(sim)))
        return;
    sim_event(sim, "the disk of %s is slow", sim_master(sim)->process.name);
    disk_redo_slow(sim_master(sim)->sink, (unsigned) world_chance(sim->world, 3000));
    timer_start(sim->world->loop, &faults->disk_timer, some_ms(sim), disk_is_fast, sim);
}

static void net_is_good(void *arg)
{
    struct sim *sim = arg;

    net_set_chances(sim->net, &(struct net_chances){
                                  .lost = 4, .doubled = 4, .late = 10, .delay_ms_max = 4, .late_ms_max = 1500});
}

static void bad_net(struct faults *faults)
{
    struct sim *sim = faults->sim;

    sim_event(sim, "the network is bad");
    net_set_chances(sim->net, &(struct net_chances){
                                  .lost = 100, .doubled = 100, .late = 200, .delay_ms_max = 20, .late_ms_max = 8000});
    timer_start(sim->world->loop, &faults->net_timer, some_ms(sim), net_is_good, sim);
}

static void follow_newest(void *arg)
{
    struct sim_host *host = arg;

    sim_host_follow(host, sim_master(host->process.sim));
}

static struct sim_master *begin_successor(struct faults *faults, bool is_from_copy)
{
    struct sim *sim = faults->sim;
    struct sim_master *old = sim_master(sim), *master;

    if (faults->successors == SUCCESSORS_MAX)
        return NULL;
    faults->successors++;
    for (int i = 0; i < sim->master_count - 1; i++)
        process_crash(&sim->masters[i]->process); /* at most two at a time */
    master = sim_master_add(sim, &old->disk);
    old->is_superseded = true;
    master->is_from_copy = is_from_copy;
    sim_event(sim, "%s is given up", old->process.name);
    sim_master_start(master);
    for (int i = 0; i < WORLD_HOSTS; i++)
        timer_start(sim->world->loop, &faults->follow_timers[i], some_ms(sim), follow_newest, &sim->hosts[i]);
    return old;
}

/* Do all hosts know the newest master's epoch, for good? */
static bool is_known_to_all(struct sim *sim)
{
    for (int i = 0; i < WORLD_HOSTS; i++)
        if (sim_host_epoch(&sim->hosts[i]) < sim_master(sim)->disk.epoch)
            return false;
    return true;
}

static void old_master_comes_back(void *arg)
{
    struct faults *faults = arg;
    struct sim *sim = faults->sim;
    struct process *old = &sim->masters[sim->master_count - 2]->process;

    if (is_known_to_all(sim)) {
        sim_event(sim, "%s comes back", old->name);
        old->stopped_until_ms = 0;
    } else {
        timer_start(sim->world->loop, &faults->return_timer, SHORT_MS, old_master_comes_back, faults);
    }
}

/* A master hangs; an operator starts another one on what its disk holds, and sends the hosts there one by one. When all
 * follow, the old one goes on as if nothing had been. */
static void second_master(struct faults *faults)
{
    struct sim *sim = faults->sim;
    struct sim_master *old;

    if (!sim_master_is_up(sim_master(sim)) || (sim->master_count > 1 && !is_known_to_all(sim)))
        return;
    old = begin_successor(faults, false);
    if (!old)
        return;
    old->process.stopped_until_ms = UINT64_MAX;
    timer_start(sim->world->loop, &faults->return_timer, SHORT_MS, old_master_comes_back, faults);
}

/* A host is sent back to the old master by mistake, for a while. */
static void wrong_master(struct faults *faults)
{
    struct sim *sim = faults->sim;
    struct sim_host *host = some_host(sim);
    struct sim_master *old = sim->master_count > 1 ? sim->masters[sim->master_count - 2] : NULL;

    if (!old || !sim_master_is_up(old) || !is_known_to_all(sim) || host->follows == old)
        return;
    sim_host_follow(host, old);
    timer_start(sim->world->loop, &faults->follow_timers[host->world_host->number - 1], some_ms(sim), follow_newest,
                host);
}

/* The second master begins from a copy, as of the mirror, while the old one lives and goes on with the hosts that it still
 * has: what it does is missing in the copy. */
static void old_copy(struct faults *faults)
{
    struct sim_master *old;

    if (!sim_master_is_up(sim_master(faults->sim)))
        return;
    old = begin_successor(faults, true);
    if (old && world_chance(faults->sim->world, 2) == 0)
        old->process.stopped_until_ms = sim_now_ms(faults->sim) + some_ms(faults->sim);
}

/* The master's disk is put back to what it was some faults ago, and the master starts from that. */
static void old_disk(struct faults *faults)
{
    struct sim *sim = faults->sim;
    struct sim_master *master = sim_master(sim);

    if (faults->kept_of != master->number) {
        disk_done(&faults->kept);
        disk_copy(&faults->kept, &master->disk);
        faults->kept_of = master->number;
        return;
    }
    if (!sim_master_is_up(master))
        return;
    sim_event(sim, "the disk of %s is put back from epoch %llu to %llu", master->process.name,
              (unsigned long long) master->disk.epoch, (unsigned long long) faults->kept.epoch);
    process_crash(&master->process);
    disk_done(&master->disk);
    disk_copy(&master->disk, &faults->kept);
    master->is_from_copy = true;
    clients_forget(sim->clients);
    faults->kept_of = 0;
}

static const struct {
    const char *name;
    void (*happen)(struct faults *);
    unsigned weight;
} table[] = {
    {"crash_host", crash_host, 6},
    {"crash_master", crash_master, 6},
    {"stop", stop_process, 6},
    {"cut_net", cut_net, 6},
    {"cut_moves", cut_moves, 3},
    {"kill_guests", kill_guests, 3},
    {"end_guest", end_guest, 8},
    {"break_moves", break_moves, 3},
    {"slow_disk", slow_disk, 3},
    {"bad_net", bad_net, 3},
    {"clock", wall_clock_jumps, 1},
    {"second_master", second_master, 2},
    {"wrong_master", wrong_master, 6},
    {"old_copy", old_copy, 2},
    {"old_disk", old_disk, 2},
};

bool faults_has(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (streq(table[i].name, name))
            return true;
    return false;
}

static void next_fault(void *arg)
{
    struct faults *faults = arg;
    struct sim *sim = faults->sim;
    uint64_t total = 0, at;
    size_t i = 0;

    for (size_t j = 0; j < ARRAY_SIZE(table); j++)
        total += table[j].weight;
    for (at = world_chance(sim->world, total); at >= table[i].weight; i++)
        at -= table[i].weight;
    if (!strstr(sim->without, table[i].name))
        table[i].happen(faults);
    timer_start(sim->world->loop, &faults->timer, world_chance(sim->world, PAUSE_MS), next_fault, faults);
}

struct faults *faults_new(struct sim *sim)
{
    struct faults *faults = new0(struct faults);

    faults->sim = sim;
    timer_start(sim->world->loop, &faults->timer, PAUSE_MS, next_fault, faults);
    return faults;
}

void faults_end(struct faults *faults)
{
    struct sim *sim = faults->sim;

    timer_stop(&faults->timer);
    timer_stop(&faults->net_timer);
    timer_stop(&faults->disk_timer);
    timer_stop(&faults->return_timer);
    disk_is_fast(sim);
    for (size_t i = 0; i < ARRAY_SIZE(faults->heals); i++)
        if (timer_is_running(&faults->heals[i].timer)) {
            timer_stop(&faults->heals[i].timer);
            healed(&faults->heals[i]);
        }
    for (int i = 0; i < sim->master_count - 1; i++)
        process_crash(&sim->masters[i]->process);
    sim_master(sim)->process.stopped_until_ms = 0;
    for (int i = 0; i < WORLD_HOSTS; i++) {
        struct sim_host *host = &sim->hosts[i];

        timer_stop(&faults->join_timers[i]);
        timer_stop(&faults->follow_timers[i]);
        host->world_host->is_cut_off = false;
        host->process.stopped_until_ms = 0;
        if (host->follows != sim_master(sim))
            sim_host_follow(host, sim_master(sim));
    }
}
