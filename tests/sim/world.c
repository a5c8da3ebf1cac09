/* world.c - the beginning and the end of a world, and what happens in it by itself */
#include "tests/sim/world.h"

#include <stdio.h>

#include "tests/sim/world_guest.h"

/* Not 0, which means "no deadline". */
#define BEGIN_MS  1000000
#define BEGIN_UTC 1750000000

#define PROCESS_AGAIN_MS 3000 /* at most, until the guests process is started again */

uint64_t world_chance(struct world *world, uint64_t below)
{
    return random_below(world->random, below);
}

bool world_happens(struct world *world, unsigned per_mille)
{
    return world_chance(world, 1000) < per_mille;
}

const char *world_name(struct world *world, ref_t vm)
{
    return world->name_of ? world->name_of(world->name_arg, vm) : "?";
}

struct world *world_new(uint64_t seed, bool is_verbose)
{
    struct world *world = new0(struct world);

    seeded_random_init(&world->seeded, seed);
    world->random = &world->seeded.random;
    fake_clock_init(&world->clock, BEGIN_MS, BEGIN_UTC);
    world->loop = loop_new(&world->clock.clock);
    trace_init(&world->trace, seed, &world->clock.clock, is_verbose);
    for (int i = 0; i < WORLD_HOSTS; i++) {
        struct world_host *host = &world->hosts[i];

        host->world = world;
        host->number = i + 1;
        host->uuid = ref_new(world->random);
        host->has_guests_process = true;
        snprintf(host->name, sizeof host->name, "host%d", host->number);
    }
    return world;
}

void world_destroy(struct world **world_p)
{
    struct world *world = TAKE(*world_p);

    if (!world)
        return;
    for (int i = 0; i < WORLD_HOSTS; i++) {
        timer_stop(&world->hosts[i].process_timer);
        while (world->hosts[i].guests)
            guest_free(world->hosts[i].guests);
    }
    lives_free(world);
    loop_destroy(&world->loop);
    free(world);
}

struct world_guest *world_guest(const struct world_host *host, ref_t vm)
{
    struct world_guest *guest = host->guests;

    while (guest && !ref_equal(guest->vm, vm))
        guest = guest->next;
    return guest;
}

const struct world_disk *world_disk(const struct world_devices *devices, const char *device)
{
    for (int i = 0; i < devices->count; i++)
        if (streq(devices->disks[i].device, device))
            return &devices->disks[i];
    return NULL;
}

const struct world_host *world_runs_on(const struct world *world, ref_t vm)
{
    for (int i = 0; i < WORLD_HOSTS; i++) {
        const struct world_guest *guest = world_guest(&world->hosts[i], vm);

        if (guest && guest->state == GUEST_RUNNING)
            return &world->hosts[i];
    }
    return NULL;
}

static void process_again(void *arg)
{
    struct world_host *host = arg;

    host->has_guests_process = true;
    trace_event(&host->world->trace, "%s: a new guests process", host->name);
    driver_process_came(host);
}

void world_kill_guests(struct world_host *host)
{
    if (!host->has_guests_process)
        return;
    trace_event(&host->world->trace, "%s: the guests process is killed", host->name);
    host->has_guests_process = false;
    while (host->guests)
        guest_free(host->guests);
    driver_process_died(host);
    timer_start(host->world->loop, &host->process_timer,
                1 + world_chance(host->world, PROCESS_AGAIN_MS), process_again, host);
}

bool world_end_some_guest(struct world *world, enum guest_change change)
{
    struct world_guest *running[64];
    uint64_t count = 0;

    for (int i = 0; i < WORLD_HOSTS; i++)
        for (struct world_guest *guest = world->hosts[i].guests; guest; guest = guest->next)
            if (guest->state == GUEST_RUNNING && !guest->is_held && count < ARRAY_SIZE(running))
                running[count++] = guest;
    if (count == 0)
        return false;
    guest_end_by_itself(running[world_chance(world, count)], change);
    return true;
}

void world_break_moves(struct world_host *host)
{
    for (struct world_guest *guest = host->guests, *next; guest; guest = next) {
        next = guest->next;
        if (guest->work == WORK_SEND || guest->work == WORK_RECEIVE)
            guest_break_move(guest);
    }
}
