/* load_watch.c - the processor time and memory of the processes that serve
 *
 * Processor time is read from each process's own clock, which counts nanoseconds; /proc/PID/stat counts hundredths of a
 * second. The load of a whole processor comes from /proc/stat: what is neither ours nor of those watched there is someone
 * else's, or the kernel's work for the network. */
#include <err.h>
#include <stdio.h>
#include <time.h>

#include "tests/bench/load.h"

void watch_add(struct watch *watch, const char *text)
{
    struct watched *group = &watch->groups[watch->count];
    const char *equals = strchr(text, '=');
    char *copy, *save = NULL;

    if (!equals || watch->count == WATCHED_MAX)
        errx(2, "--watch takes NAME=PID,PID..., at most %d times", WATCHED_MAX);
    copy = dup_text(text);
    copy[equals - text] = '\0';
    group->name = copy;
    group->pids = new0_array(int, WATCHED_PIDS);
    for (char *pid = strtok_r(copy + (equals - text) + 1, ",", &save); pid; pid = strtok_r(NULL, ",", &save))
        if (group->count < WATCHED_PIDS)
            group->pids[group->count++] = atoi(pid);
    watch->count++;
}

/* 0 of a process that has ended. */
static uint64_t cpu_ns(int pid)
{
    struct timespec used;
    clockid_t clock;

    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
        return 0;
    return (uint64_t) used.tv_sec * 1000000000 + (uint64_t) used.tv_nsec;
}

static uint64_t group_ns(const struct watched *group)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < group->count; i++)
        sum += cpu_ns(group->pids[i]);
    return sum;
}

static uint64_t own_ns(void)
{
    struct timespec used;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t) used.tv_sec * 1000000000 + (uint64_t) used.tv_nsec;
}

/* Ticks of each processor: all of them, and those it was not idle in. */
static void read_processors(uint64_t *ret_all, uint64_t *ret_busy)
{
    FILE *file = fopen("/proc/stat", "re");
    char line[512];

    while (file && fgets(line, sizeof line, file)) {
        unsigned long long t[8];
        unsigned number;

        if (sscanf(line, "cpu%u %llu %llu %llu %llu %llu %llu %llu %llu", &number, &t[0], &t[1], &t[2], &t[3], &t[4],
                   &t[5], &t[6], &t[7]) != 9 || number >= 64)
            continue;
        ret_busy[number] = t[0] + t[1] + t[2] + t[5] + t[6] + t[7];
        ret_all[number] = ret_busy[number] + t[3] + t[4];
    }
    if (file)
        fclose(file);
}

void watch_begin(struct watch *watch)
{
    watch->begin_ns = now_ns();
    watch->begin_own_ns = own_ns();
    for (unsigned i = 0; i < watch->count; i++)
        watch->groups[i].begin_cpu_ns = group_ns(&watch->groups[i]);
    read_processors(watch->begin_all, watch->begin_busy);
}

void watch_end(struct watch *watch)
{
    double passed = (double) (now_ns() - watch->begin_ns);
    uint64_t all[64] = {0}, busy[64] = {0};

    watch->own_share = (double) (own_ns() - watch->begin_own_ns) / passed;
    for (unsigned i = 0; i < watch->count; i++) {
        struct watched *group = &watch->groups[i];
        uint64_t used = group_ns(group);

        group->cpu_share = used > group->begin_cpu_ns ? (double) (used - group->begin_cpu_ns) / passed : 0;
    }
    read_processors(all, busy);
    for (unsigned i = 0; i < 64; i++)
        if (all[i] > watch->begin_all[i])
            watch->cpu_busy[i] = (double) (busy[i] - watch->begin_busy[i]) / (double) (all[i] - watch->begin_all[i]);
}

/* ---- /metrics ---- */

static void nothing(struct connection *connection, void *arg)
{
    (void) connection;
    (void) arg;
}

static struct metric *metric_of(struct metrics *metrics, const char *name)
{
    for (unsigned i = 0; i < metrics->count; i++)
        if (streq(metrics->list[i].name, name))
            return &metrics->list[i];
    if (metrics->count == METRICS_MAX)
        return NULL;
    snprintf(metrics->list[metrics->count].name, sizeof metrics->list[0].name, "%s", name);
    return &metrics->list[metrics->count++];
}

/* Lines "NAME VALUE" whose name ends in _total. */
static void take_lines(struct metrics *metrics, char *text, bool is_end)
{
    char *save = NULL, name[64];
    double value;

    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        struct metric *metric;
        size_t length;

        if (line[0] == '#' || sscanf(line, "%63s %lf", name, &value) != 2)
            continue;
        length = strlen(name);
        metric = length > 6 && streq(name + length - 6, "_total") ? metric_of(metrics, name) : NULL;
        if (metric && is_end)
            metric->passed = value - metric->begin;
        else if (metric)
            metric->begin = value;
    }
}

static void metrics_take(struct metrics *metrics, const char *url, bool is_end)
{
    struct client client = {.keep_max = 1 << 20, .answered = nothing};

    client_open(&client, url, 1);
    snprintf(client.path, sizeof client.path, "/metrics");
    get_send(&client.connections[0]);
    client_run(&client, now_ns() + 10 * 1000000000ULL);
    if (client.busy == 0 && client.connections[0].status == 200 && client.connections[0].body.length > 0) {
        buffer_text(&client.connections[0].body);
        take_lines(metrics, client.connections[0].body.bytes, is_end);
    }
    client_close(&client);
}

void metrics_begin(struct metrics *metrics, const char *url)
{
    metrics_take(metrics, url, false);
}

void metrics_end(struct metrics *metrics, const char *url)
{
    metrics_take(metrics, url, true);
}

/* ---- memory ---- */

static uint64_t status_kib(int pid, const char *key)
{
    unsigned long long kib = 0;
    char path[64], line[256];
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/status", pid);
    file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), ": %llu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

uint64_t rss_now(int pid)
{
    return status_kib(pid, "VmRSS") * 1024;
}

uint64_t rss_most(int pid)
{
    return status_kib(pid, "VmHWM") * 1024;
}

void rss_reset(int pid)
{
    char path[64];
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/clear_refs", pid);
    file = fopen(path, "we");
    if (!file)
        return;
    fputs("5", file);
    fclose(file);
}
