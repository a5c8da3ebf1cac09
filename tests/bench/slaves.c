/* slaves.c - drover-bench-slaves: N hosts in one process, for measuring a master with more hosts than a machine has room for
 *
 *   agent 1 .. agent N   the agents that drover-slave runs, slave/agent.c, whole
 *   ledger               in memory: what a thousand ledgers do to one disk is not what is measured
 *   driver               slaves_guests.c remembers guests and does nothing else
 *   transport            slaves_link.c, all on one thread; each host has keys of its own and joins by the pool's secret
 *
 * Hosts are known again by number: their uuids follow from --seed, and guests and ledgers last as long as the process,
 * which the master's restarts do not touch. Prints "ready N" when all are linked. SIGTERM ends it. */
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "shared/model.h"
#include "shared/random.h"
#include "shared/workers.h"
#include "slave/agent.h"
#include "slave/hypervisor.h"
#include "slave/ledger.h"
#include "tests/bench/slaves.h"

#define LOOK_MS      50
#define JOINING_MAX  32      /* handshakes at once; each costs both ends a millisecond of arithmetic */
#define HOST_MEMORY  (1LL << 40)
#define HOST_CPUS    64
#define FIBERS_MAX   65536

struct host {
    struct agent *agent;
    struct ledger_disk disk;
    struct ledger *ledger;
    struct hypervisor *hypervisor;
    struct link_transport *transport, *door;
    char address[32], name[32], storage[512], secret_key[LINK_KEY_BYTES];
};

struct fleet {
    struct loop *loop;
    struct workers *workers;
    struct bench_links *links;
    struct host *hosts;
    unsigned count, started;
    bool was_told;
    struct timer timer;
    int signal_fd;
    const char *join, *directory;
    uint64_t seed;
    char endpoint[300], secret[256];
};

/* From a fiber. */
static void start_host(struct fleet *fleet, unsigned number)
{
    struct host *host = &fleet->hosts[number];
    struct seeded_random seeded;
    struct agent_config config = {
        .hypervisor = "sim", .memory_bytes = HOST_MEMORY, .cpus = HOST_CPUS, .join_endpoint = fleet->endpoint,
        .pool_secret = fleet->secret, .is_simulated = true};
    int error = 0;
    ref_t uuid;

    /* Moves go through these: 127.0.0.0/8 is all this machine. */
    snprintf(host->address, sizeof host->address, "127.1.%u.%u", (number + 1) >> 8 & 255, (number + 1) & 255);
    snprintf(host->name, sizeof host->name, "bench%u", number + 1);
    snprintf(host->storage, sizeof host->storage, "%s", fleet->directory);
    config.address = host->address;
    config.name = host->name;
    config.storage = host->storage;
    seeded_random_init(&seeded, fleet->seed + number);
    uuid = ref_new(&seeded.random);
    host->ledger = ledger_new(fleet->loop, ledger_memory_open(&host->disk, fleet->loop), &error);
    if (!host->ledger)
        die("a ledger in memory fails: %s", strerror(-error));
    agent_identity(host->ledger, random_real(), uuid, host->secret_key);
    host->hypervisor = bench_guests_new(fleet->loop);
    host->transport = bench_link_new(fleet->links, host->secret_key);
    host->door = bench_link_new(fleet->links, host->secret_key);
    host->agent = agent_new(&config, fleet->loop, random_real(), fleet->workers, host->ledger, host->hypervisor,
                            host->transport, host->door);
    agent_start(host->agent);
}

static unsigned linked(const struct fleet *fleet)
{
    unsigned count = 0;

    for (unsigned i = 0; i < fleet->started; i++)
        count += agent_is_linked(fleet->hosts[i].agent);
    return count;
}

/* A fiber: starts the next hosts as earlier ones are linked. */
static void start_hosts(void *arg)
{
    struct fleet *fleet = arg;

    while (fleet->started < fleet->count) {
        unsigned joining = fleet->started - linked(fleet);

        for (; joining < JOINING_MAX && fleet->started < fleet->count; joining++) {
            start_host(fleet, fleet->started); /* waits; until then the others must not look at it */
            fleet->started++;
        }
        fiber_sleep(LOOK_MS);
    }
}

static void look(void *arg)
{
    struct fleet *fleet = arg;

    if (!fleet->was_told && linked(fleet) == fleet->count) {
        printf("ready %u\n", fleet->count);
        fflush(stdout);
        fleet->was_told = true;
    }
    timer_start(fleet->loop, &fleet->timer, LOOK_MS, look, fleet);
}

static void on_signal(void *arg, uint32_t events)
{
    struct fleet *fleet = arg;

    (void) events;
    loop_stop(fleet->loop);
}

static void end(struct fleet *fleet)
{
    loop_abandon(fleet->loop);
    timer_stop(&fleet->timer);
    workers_destroy(&fleet->workers);
    for (unsigned i = 0; i < fleet->started; i++) {
        struct host *host = &fleet->hosts[i];

        agent_destroy(&host->agent);
        host->hypervisor->destroy(&host->hypervisor);
        host->door->destroy(&host->door);
        host->transport->destroy(&host->transport);
        ledger_destroy(&host->ledger);
        ledger_disk_done(&host->disk);
    }
    loop_unwatch_fd(fleet->loop, fleet->signal_fd);
    close_fd(&fleet->signal_fd);
    loop_destroy(&fleet->loop);
    bench_links_destroy(&fleet->links);
    free(fleet->hosts);
}

/* ---- options ---- */

static void read_secret(struct fleet *fleet, const char *path)
{
    FILE *file = fopen(path, "re");

    if (!file || !fgets(fleet->secret, sizeof fleet->secret, file))
        err(1, "%s", path);
    fclose(file);
    fleet->secret[strcspn(fleet->secret, "\r\n")] = '\0';
}

static void take_options(struct fleet *fleet, int argc, char **argv)
{
    static const struct option options[] = {
        {"join", required_argument, NULL, 'j'}, {"secret-file", required_argument, NULL, 's'},
        {"hosts", required_argument, NULL, 'n'}, {"directory", required_argument, NULL, 'd'},
        {"seed", required_argument, NULL, 'e'}, {0}};
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'j': fleet->join = optarg; break;
        case 's': read_secret(fleet, optarg); break;
        case 'n': fleet->count = (unsigned) strtoul(optarg, NULL, 10); break;
        case 'd': fleet->directory = optarg; break;
        case 'e': fleet->seed = strtoull(optarg, NULL, 10); break;
        default: exit(2);
        }
    if (!fleet->join || !fleet->directory || !fleet->secret[0] || fleet->count < 1 || fleet->count > 10000)
        errx(2, "usage: drover-bench-slaves --join ADDRESS:PORT --secret-file FILE --directory DIR --hosts 1..10000"
                " [--seed N]");
    snprintf(fleet->endpoint, sizeof fleet->endpoint, "tcp://%.280s", fleet->join);
}

/* Each host has two sockets, and each of these two descriptors; moves need some more. */
static void raise_limits(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    struct fleet fleet = {.seed = 1};
    sigset_t signals;

    take_options(&fleet, argc, argv);
    raise_limits();
    model_init();
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    fleet.signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    fleet.loop = loop_new(clock_real());
    loop_set_limits(fleet.loop, &(struct loop_limits){.fibers_max = FIBERS_MAX});
    log_start("drover-bench-slaves", NULL);
    log_set_level(LOG_WARNING); /* what each of a thousand agents does is no news */
    if (fleet.signal_fd < 0 || loop_watch_fd(fleet.loop, fleet.signal_fd, EPOLLIN, on_signal, &fleet) < 0)
        die("no signals: %s", strerror(errno));
    fleet.workers = workers_new(2, "worker");
    fleet.links = bench_links_new(fleet.loop, 2 * fleet.count + 16);
    fleet.hosts = new0_array(struct host, fleet.count);
    if (!fiber_spawn(fleet.loop, start_hosts, &fleet, "start"))
        die("no fiber");
    look(&fleet);
    loop_run(fleet.loop);
    end(&fleet);
    return 0;
}
