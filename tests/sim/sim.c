/* sim.c - one simulation: whose turn it is, when a process dies, and how it all ends */
#include "tests/sim/sim.h"

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/crash.h"
#include "shared/fiber.h"
#include "shared/log.h"

/* Rounds of everybody within one moment. More, and something does not give way. */
#define ROUNDS_MAX 20000

/* After the last fault: what is under way comes to its end, timeouts of guests (20 min) included. */
#define CALM_MS_MAX (90 * 60 * 1000)
/* Quiet for so long is quiet. */
#define QUIET_MS    20000

/* Until a process that has crashed is started again: below or beyond the time after which a host is given up. */
#define START_MS_SHORT 3000
#define START_MS_LONG  25000

/* ---- processes ---- */

static void start_due(void *arg)
{
    struct process *process = arg;

    process->start(process);
}

static void bury(struct process *process)
{
    struct world *world = process->sim->world;

    process->bury(process);
    timer_start(world->loop, &process->start_timer,
                world_chance(world, world_chance(world, 2) ? START_MS_SHORT : START_MS_LONG), start_due, process);
}

void process_crash(struct process *process)
{
    if (!process->loop || process->is_dead)
        return;
    process->is_dead = true;
    sim_event(process->sim, "%s crashes", process->name);
    process->die(process);
    if (process->sim->running == process)
        loop_abandon(process->loop); /* from its fiber: the end. Else its step goes on, to no effect */
    else
        bury(process);
}

static bool process_step(struct process *process)
{
    struct sim *sim = process->sim;
    bool ran;

    if (!process->loop || sim_now_ms(sim) < process->stopped_until_ms)
        return false;
    sim->running = process;
    ran = loop_step(process->loop);
    sim->running = NULL;
    if (process->is_dead && process->loop)
        bury(process);
    return ran;
}

static size_t processes(struct sim *sim, struct process *ret[])
{
    size_t count = 0;

    for (int i = 0; i < WORLD_HOSTS; i++)
        ret[count++] = &sim->hosts[i].process;
    for (int i = 0; i < sim->master_count; i++)
        ret[count++] = &sim->masters[i]->process;
    return count;
}

/* Everybody once, in any order. */
static bool round_of_all(struct sim *sim)
{
    struct process *all[WORLD_HOSTS + SIM_MASTERS_MAX];
    size_t count = processes(sim, all);
    bool ran = loop_step(sim->world->loop);

    while (count > 0) {
        size_t i = world_chance(sim->world, count);

        ran |= process_step(all[i]);
        all[i] = all[--count];
    }
    return ran;
}

static uint64_t next_moment_ms(struct sim *sim)
{
    struct process *all[WORLD_HOSTS + SIM_MASTERS_MAX];
    size_t count = processes(sim, all);
    uint64_t next_ms = loop_next_timer_ms(sim->world->loop);

    for (size_t i = 0; i < count; i++)
        if (all[i]->loop)
            next_ms = MIN(next_ms, MAX(loop_next_timer_ms(all[i]->loop), all[i]->stopped_until_ms));
    return next_ms;
}

bool sim_step(struct sim *sim, uint64_t until_ms)
{
    uint64_t now_ms = sim_now_ms(sim), next_ms;
    int rounds = 0;

    while (round_of_all(sim))
        if (++rounds == ROUNDS_MAX)
            sim_fail(sim, "%d rounds in one moment: somebody runs in circles", rounds);
    check_moment(sim);
    next_ms = next_moment_ms(sim);
    if (next_ms >= until_ms) {
        fake_clock_advance_ms(&sim->world->clock, until_ms > now_ms ? until_ms - now_ms : 0);
        return false;
    }
    if (next_ms > now_ms)
        fake_clock_set_ms(&sim->world->clock, next_ms);
    return true;
}

/* ---- crash points ---- */

/* Out of so many passages one is the last. */
#define POINT_CRASH_ONE_IN 700
#define POINT_DROP_ONE_IN  700
/* While a master has writes that are not synced: what has left it then must not rest on them. */
#define POINT_CRASH_UNSYNCED_ONE_IN 70

static struct sim_point *point_of(struct sim_points *points, const char *name)
{
    static struct sim_point none;

    for (unsigned i = 0; points && i < points->count; i++)
        if (streq(points->points[i].name, name))
            return &points->points[i];
    if (!points || points->count == ARRAY_SIZE(points->points))
        return &none;
    snprintf(points->points[points->count].name, sizeof none.name, "%s", name);
    return &points->points[points->count++];
}

static unsigned crash_one_in(const struct sim *sim, const struct process *process)
{
    for (int i = 0; i < sim->master_count; i++)
        if (&sim->masters[i]->process == process && !disk_redo_is_idle(sim->masters[i]->sink))
            return POINT_CRASH_UNSYNCED_ONE_IN;
    return POINT_CRASH_ONE_IN;
}

static bool on_crash_point(void *arg, const char *name)
{
    struct sim *sim = arg;
    struct process *process = sim->running;
    struct sim_point *point = point_of(sim->points, name);

    if (!process || process->is_dead)
        return process; /* what the dead say is not sent */
    point->passed++;
    if (sim->is_calm || strstr(sim->without, "points"))
        return false;
    if (world_chance(sim->world, crash_one_in(sim, process)) == 0) {
        point->crashed++;
        sim_event(sim, "%s at %s", process->name, name);
        process_crash(process);
        return true;
    }
    if (world_chance(sim->world, POINT_DROP_ONE_IN) == 0) {
        sim_event(sim, "%s: dropped at %s", process->name, name);
        return true;
    }
    return false;
}

/* ---- the log of all, when wanted ---- */

static void on_log(void *arg, enum log_level level, const char *line)
{
    struct sim *sim = arg;

    (void) level;
    fprintf(stderr, "          %s| %s", sim->running ? sim->running->name : "world", line);
}

static void no_log(void *arg, enum log_level level, const char *line)
{
    (void) arg;
    (void) level;
    (void) line;
}

/* ---- one simulation ---- */

static struct trace *dying_trace;

/* An assertion of the product's: what led to it is wanted, too. */
static void on_fatal_signal(int number)
{
    signal(number, SIG_DFL);
    trace_print(dying_trace);
    raise(number);
}

static void catch_signals(struct sim *sim)
{
    static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGXCPU};

    dying_trace = &sim->world->trace;
    for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
        signal(fatal[i], on_fatal_signal);
}

static const char *name_of_vm(void *arg, ref_t uuid)
{
    struct sim *sim = arg;

    for (int i = 0; i < SIM_VMS; i++)
        if (ref_equal(sim->vm_uuids[i], uuid))
            return sim->vm_names[i];
    return "unknown VM";
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void) status;
    (void) kind;
    (void) walk;
    return remove(path);
}

static void remove_directory(void *arg)
{
    nftw(((struct sim *) arg)->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct sim *sim_new(const struct sim_options *options)
{
    static const struct net_chances chances = {
        .lost = 4, .doubled = 4, .late = 10, .delay_ms_max = 4, .late_ms_max = 1500};
    struct sim *sim = new0(struct sim);

    sim->points = options->points;
    sim->without = options->without;
    sim->world = world_new(options->seed, options->is_verbose);
    sim->world->name_of = name_of_vm;
    sim->world->name_arg = sim;
    sim->world->chances = (struct world_chances){
        .start_fails = 20, .unpause_fails = 10, .move_breaks = 40, .save_fails = 50, .work_ms_max = 2000};
    log_start("drover-simulate", &sim->world->clock.clock);
    log_set_sink(options->is_verbose ? on_log : no_log, sim);
    log_set_level(options->is_verbose ? LOG_DEBUG : LOG_ERROR);
    snprintf(sim->directory, sizeof sim->directory, "/tmp/drover-simulate-XXXXXX");
    if (!mkdtemp(sim->directory))
        die("cannot make a directory in /tmp");
    sim->world->trace.last_will = remove_directory;
    sim->world->trace.last_will_arg = sim;
    sim->net = net_new(sim->world->random, &chances);
    sim->sockets = sockets_mem_new(sim);
    catch_signals(sim);
    crash_set_hook(on_crash_point, sim);
    for (int i = 0; i < WORLD_HOSTS; i++)
        sim_host_init(sim, i);
    return sim;
}

/* Until nothing is under way, for a while. */
static void calm_down(struct sim *sim)
{
    uint64_t until_ms = sim_now_ms(sim) + CALM_MS_MAX, quiet_ms = 0;

    sim->is_calm = true;
    sim_event(sim, "calm");
    net_set_chances(sim->net, &(struct net_chances){.delay_ms_max = 2});
    sim->world->chances = (struct world_chances){.work_ms_max = 500};
    clients_stop(sim->clients);
    faults_end(sim->faults);
    for (;;) {
        uint64_t now_ms = sim_now_ms(sim);

        if (!check_is_quiet(sim_master(sim)) || clients_waiting(sim->clients) > 0)
            quiet_ms = 0;
        else if (quiet_ms == 0)
            quiet_ms = now_ms;
        else if (now_ms >= quiet_ms + QUIET_MS)
            return;
        if (now_ms >= until_ms)
            return; /* the checks say what is still there */
        while (sim_step(sim, now_ms + 1000))
            ;
    }
}

uint64_t sim_run(const struct sim_options *options)
{
    struct sim *sim = sim_new(options);
    uint64_t fingerprint, until_ms = sim_now_ms(sim) + (uint64_t) options->minutes * 60000;
    uint64_t sent, lost;

    sim_pool_make(sim_master_add(sim, NULL));
    sim_master_start(sim_master(sim));
    for (int i = 0; i < WORLD_HOSTS; i++)
        sim_host_start(&sim->hosts[i]);
    sim->clients = clients_new(sim);
    sim->faults = faults_new(sim);
    while (sim_step(sim, until_ms))
        ;
    calm_down(sim);
    check_end(sim);
    net_figures(sim->net, &sent, &lost);
    sim_event(sim, "end: %llu frames, %llu lost; %llu boots, %llu moves, %llu suspends", (unsigned long long) sent,
              (unsigned long long) lost, (unsigned long long) sim->world->boots,
              (unsigned long long) sim->world->moves, (unsigned long long) sim->world->saves);
    fingerprint = sim->world->trace.fingerprint;
    if (options->is_verbose)
        clients_report(sim->clients);
    crash_set_hook(NULL, NULL);
    remove_directory(sim);
    return fingerprint; /* the process ends soon, with all that belonged to the dead */
}
