/* host_process.c - an agent as a process: its start from what its ledger holds, and its crash */
#include <stdio.h>

#include "shared/buffer.h"
#include "shared/pack.h"
#include "shared/workers.h"
#include "slave/agent.h"
#include "slave/hypervisor.h"
#include "tests/sim/sim.h"

#define HOST_MEMORY_BYTES (16ll << 30)
#define HOST_CPUS         8

static struct sim_host *host_of(struct process *process)
{
    return CONTAINER_OF(process, struct sim_host, process);
}

bool sim_host_is_up(const struct sim_host *host)
{
    return host->process.loop != NULL;
}

/* A row as it would be written; instead of what is there. */
static void disk_meta(struct ledger_disk *disk, const char *key, const char *text)
{
    struct ledger_row row = {.kind = "meta"};
    struct buffer bytes;
    size_t i = 0;

    snprintf(row.key, sizeof row.key, "%s", key);
    buffer_init(&bytes, 1024);
    pack_text(&bytes, text);
    row.bytes = buffer_take(&bytes, &row.count);
    while (i < disk->count && !(streq(disk->rows[i].kind, "meta") && streq(disk->rows[i].key, key)))
        i++;
    if (i == disk->count)
        disk->rows = realloc_array(disk->rows, ++disk->count, sizeof *disk->rows);
    else
        free(disk->rows[i].bytes);
    disk->rows[i] = row;
}

uint64_t sim_host_epoch(const struct sim_host *host)
{
    for (size_t i = 0; i < host->disk.count; i++) {
        const struct ledger_row *row = &host->disk.rows[i];
        struct arena *arena;
        struct value text;
        uint64_t epoch = 0;

        if (!streq(row->kind, "meta") || !streq(row->key, "epoch"))
            continue;
        arena = arena_new();
        if (unpack_value(row->bytes, row->count, NULL, arena, &text) == 0 && text.kind == KIND_STRING)
            epoch = strtoull(text.text, NULL, 10);
        arena_destroy(&arena);
        return epoch;
    }
    return 0;
}

static void die_now(struct process *process)
{
    struct sim_host *host = host_of(process);

    net_silence(host->transport);
    hypervisor_mem_cut(host->hypervisor);
}

static void bury(struct process *process)
{
    struct sim_host *host = host_of(process);

    agent_destroy(&host->agent);
    ledger_destroy(&host->ledger);
    host->transport->destroy(&host->transport);
    host->hypervisor->destroy(&host->hypervisor);
    loop_destroy(&process->loop);
}

static void start_again(struct process *process)
{
    sim_host_start(host_of(process));
}

void sim_host_init(struct sim *sim, int index)
{
    struct sim_host *host = &sim->hosts[index];
    char secret[32], uuid[UUID_TEXT_BYTES];

    host->world_host = &sim->world->hosts[index];
    host->process = (struct process){.sim = sim, .die = die_now, .bury = bury, .start = start_again};
    snprintf(host->process.name, sizeof host->process.name, "%s", host->world_host->name);
    snprintf(secret, sizeof secret, "secret of host %d", index + 1);
    link_keys_from_secret(secret, host->public_key, host->secret_key);
    disk_meta(&host->disk, "host", uuid_print(uuid, host->world_host->uuid));
    disk_meta(&host->disk, "curve_secret", host->secret_key);
}

/* What an operator has said is waited for until it is in the file; a write of before must not take it back. */
static void put_master(struct sim_host *host)
{
    disk_meta(&host->disk, "master_endpoint", host->follows->process.name);
    disk_meta(&host->disk, "master_key", host->follows->process.name);
}

void sim_host_start(struct sim_host *host)
{
    struct sim *sim = host->process.sim;
    struct process *process = &host->process;
    struct agent_config config = {
        .address = process->name,
        .name = process->name,
        .hypervisor = "sim",
        .memory_bytes = HOST_MEMORY_BYTES,
        .cpus = HOST_CPUS,
        .is_simulated = true,
        .sockets = sim->sockets,
    };
    int error;

    assert(!process->loop);
    sim_event(sim, "%s starts", process->name);
    process->is_dead = false;
    process->stopped_until_ms = 0;
    process->loop = loop_new(&sim->world->clock.clock);
    host->starts++;
    put_master(host);
    host->disk.sync_ms = 1 + world_chance(sim->world, 8);
    host->ledger = ledger_new(process->loop, ledger_memory_open(&host->disk, process->loop), &error);
    if (!host->ledger)
        sim_fail(sim, "%s cannot read its ledger: %d", process->name, error);
    host->hypervisor = hypervisor_mem_new(host->world_host, process->loop);
    host->transport = net_attach(sim->net, process->loop, host->public_key);
    config.master_key = config.master_endpoint = host->follows->process.name;
    host->agent = agent_new(&config, process->loop, sim->world->random, workers_new(0, "sim"), host->ledger,
                            host->hypervisor, host->transport, NULL);
    agent_start(host->agent);
}

void sim_host_follow(struct sim_host *host, struct sim_master *master)
{
    host->follows = master;
    put_master(host);
    sim_event(host->process.sim, "%s is to follow %s", host->process.name, master->process.name);
    if (!sim_host_is_up(host) || host->process.is_dead)
        return;
    ledger_put_meta(host->ledger, "master_endpoint", master->process.name);
    ledger_put_meta(host->ledger, "master_key", master->process.name);
    if (host->agent->is_adopted) /* else it reads that when it knows what runs */
        agent_link_to(host->agent, master->process.name, master->process.name);
}
