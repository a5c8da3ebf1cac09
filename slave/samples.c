/* samples.c - figures of the host and its guests, every 5 seconds, in one place
 *
 * One note "samples" that replaces the one before it, so a master that is away misses figures, not memory. Later the RRDs
 * are fed from the same tick. Also what the host says about itself in hello. */
#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/fiber.h"
#include "shared/loop.h"
#include "slave/vms.h"

#define SAMPLE_MS 5000

struct samples {
    struct agent *agent;
    struct timer timer;
    uint64_t busy_before, total_before;   /* of /proc/stat, in ticks */
    uint64_t sampled_ms;
};

/* ---- the machine ---- */

/* "MemTotal:  16316412 kB" of /proc/meminfo, in bytes; 0 when it cannot be read. */
static int64_t meminfo(const char *key)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    long long kib = 0;

    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), ": %lld", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib * 1024;
}

static double cpu_share(struct samples *samples)
{
    FILE *file = samples->agent->config.is_simulated ? NULL : fopen("/proc/stat", "re");
    unsigned long long t[8] = {0};
    uint64_t busy, total = 0;
    double share = 0;

    if (file) {
        if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6],
                   &t[7])
            != 8)
            memset(t, 0, sizeof t);
        fclose(file);
    }
    for (int i = 0; i < 8; i++)
        total += t[i];
    busy = total - t[3] - t[4];
    if (samples->total_before && total > samples->total_before)
        share = (double) (busy - samples->busy_before) / (double) (total - samples->total_before);
    samples->busy_before = busy;
    samples->total_before = total;
    return share;
}

static int64_t memory_total(const struct agent *agent)
{
    return agent->config.memory_bytes ? agent->config.memory_bytes : meminfo("MemTotal");
}

static int64_t memory_free(const struct agent *agent, int64_t guests_bytes)
{
    if (agent->config.memory_bytes) /* a share of a machine: what its guests leave */
        return MAX(agent->config.memory_bytes - guests_bytes, (int64_t) 0);
    return meminfo("MemAvailable");
}

static void cpu_facts(const struct agent *agent, struct arena *arena, const char **ret_vendor, const char **ret_model, const char **ret_mhz,
                      const char **ret_flags)
{
    FILE *file = agent->config.is_simulated ? NULL : fopen("/proc/cpuinfo", "re");
    char line[4096], *colon;

    *ret_vendor = *ret_model = *ret_mhz = *ret_flags = "";
    while (file && fgets(line, sizeof line, file) && line[0] != '\n') {
        line[strcspn(line, "\n")] = '\0';
        colon = strstr(line, ": ");
        if (!colon)
            continue;
        if (strncmp(line, "vendor_id", 9) == 0)
            *ret_vendor = arena_strdup(arena, colon + 2);
        else if (strncmp(line, "model name", 10) == 0)
            *ret_model = arena_strdup(arena, colon + 2);
        else if (strncmp(line, "cpu MHz", 7) == 0)
            *ret_mhz = arena_strdup(arena, colon + 2);
        else if (strncmp(line, "flags", 5) == 0)
            *ret_flags = arena_strdup(arena, colon + 2);
    }
    if (file)
        fclose(file);
}

static void put(struct value *items, uint32_t *pairs, const char *key, const char *text)
{
    items[2 * *pairs] = value_text(key);
    items[2 * *pairs + 1] = value_text(text);
    (*pairs)++;
}

struct value agent_about(struct agent *agent, struct arena *arena)
{
    struct value *items = arena_alloc_array(arena, 2 * 16, sizeof *items);
    const char *vendor, *model, *mhz, *flags;
    long cpus = agent->config.cpus ? agent->config.cpus : sysconf(_SC_NPROCESSORS_ONLN);
    struct utsname machine;
    uint32_t pairs = 0;

    cpu_facts(agent, arena, &vendor, &model, &mhz, &flags);
    put(items, &pairs, "version", DROVER_VERSION);
    put(items, &pairs, "name", agent->config.name ? agent->config.name : "");
    put(items, &pairs, "address", agent->config.address ? agent->config.address : "");
    put(items, &pairs, "hypervisor", agent->config.hypervisor ? agent->config.hypervisor : agent->hypervisor->name);
    put(items, &pairs, "memory_bytes", arena_text(arena, "%lld", (long long) memory_total(agent)));
    if (agent->config.storage)
        put(items, &pairs, "storage", agent->config.storage);
    if (agent->config.http_socket)
        put(items, &pairs, "http_socket", agent->config.http_socket);
    put(items, &pairs, "cpus", arena_text(arena, "%ld", MAX(cpus, 1L)));
    put(items, &pairs, "cpu_vendor", vendor);
    put(items, &pairs, "cpu_model", model);
    put(items, &pairs, "cpu_mhz", mhz);
    put(items, &pairs, "cpu_flags", flags);
    if (agent->is_driver_away)
        put(items, &pairs, "hypervisor_state", "away");
    put(items, &pairs, "kernel", uname(&machine) == 0 ? arena_strdup(arena, machine.release) : "");
    put(items, &pairs, "start", arena_text(arena, "%llu", (unsigned long long) agent->start_number));
    return VALUE_MAP(pairs, items);
}

/* ---- samples ---- */

static struct value guest_map(struct arena *arena, const struct vm *vm, const struct guest_sample *sample)
{
    struct value *items = arena_alloc_array(arena, 2 * 9, sizeof *items);
    const struct {
        const char *key;
        struct value value;
    } rows[] = {
        {"epoch", VALUE_INT((int64_t) vm_row(vm).epoch)},
        {"vcpu_seconds", VALUE_FLOAT(sample->vcpu_seconds)},
        {"memory", VALUE_INT(sample->memory_actual_bytes)},
        {"disk_read", VALUE_INT(sample->disk_read_bytes)},
        {"disk_write", VALUE_INT(sample->disk_write_bytes)},
        {"nic_rx", VALUE_INT(sample->nic_rx_bytes)},
        {"nic_tx", VALUE_INT(sample->nic_tx_bytes)},
        {"ticks", VALUE_INT((int64_t) sample->ticks)},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        items[2 * i] = value_text(rows[i].key);
        items[2 * i + 1] = rows[i].value;
    }
    return VALUE_MAP(ARRAY_SIZE(rows), items);
}

static void take_samples(void *arg)
{
    struct samples *samples = arg;
    struct agent *agent = samples->agent;
    struct arena *arena = arena_new();
    struct value *guests = arena_alloc_array(arena, 2 * agent->vms.count, sizeof *guests);
    struct value items[10], body = VALUE_MAP(5, items);
    int64_t guests_bytes = 0;
    uint32_t count = 0;
    void *value;
    ref_t key;

    timer_start(agent->loop, &samples->timer, SAMPLE_MS, take_samples, samples);
    for (size_t at = 0; refmap_each(&agent->vms, &at, &key, &value);) {
        const struct vm *vm = value;
        struct guest_sample sample = {0};

        if (vm->state == GUEST_NONE || vm->state == GUEST_ENDED
            || agent->hypervisor->sample(agent->hypervisor, vm->uuid, &sample) < 0)
            continue;
        guests[2 * count] = VALUE_REF(vm->uuid);
        guests[2 * count + 1] = guest_map(arena, vm, &sample);
        guests_bytes += sample.memory_actual_bytes;
        count++;
    }
    items[0] = value_text("at_utc");
    items[1] = VALUE_INT(clock_utc_s(agent->clock));
    items[2] = value_text("memory_total");
    items[3] = VALUE_INT(memory_total(agent));
    items[4] = value_text("memory_free");
    items[5] = VALUE_INT(memory_free(agent, guests_bytes));
    items[6] = value_text("cpu");
    items[7] = VALUE_FLOAT(cpu_share(samples));
    items[8] = value_text("guests");
    items[9] = VALUE_MAP(count, guests);
    agent_note(agent, "samples", NULL_REF, 0, &body, true);
    arena_destroy(&arena);
}

struct samples *samples_new(struct agent *agent)
{
    struct samples *samples = new0(struct samples);

    samples->agent = agent;
    timer_start(agent->loop, &samples->timer, SAMPLE_MS, take_samples, samples);
    return samples;
}

void samples_destroy(struct samples **samples_p)
{
    struct samples *samples = TAKE(*samples_p);

    if (!samples)
        return;
    timer_stop(&samples->timer);
    free(samples);
}
