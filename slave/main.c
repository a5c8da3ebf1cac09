/* main.c - drover-slave: options, start order, main loop, stop order
 *
 *   settings, log -> loop, ledger, workers -> HTTP -> who we are -> driver, transports -> agent: adopt, hello
 *
 * The end goes the same way back, and ends no guest. HTTP is answered from early on: clients hear why this host cannot help
 * them yet. A line "ready HOST" on standard output says that the agent has adopted what runs and is talking to its master, for
 * scripts that started us. SIGTERM, SIGINT and host.shutdown_agent end the agent, SIGHUP reopens its log and reads its
 * certificate again. kill -9 loses nothing: what the agent has promised is in its ledger. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/crash.h"
#include "shared/fiber.h"
#include "shared/listeners.h"
#include "shared/log.h"
#include "shared/random.h"
#include "shared/signals.h"
#include "shared/workers.h"
#include "slave/agent.h"
#include "slave/hypervisor_sim.h"
#include "slave/ledger.h"
#include "slave/local_calls.h"
#include "slave/metrics.h"
#include "slave/settings.h"
#include "slave/slave_front.h"
#include "slave/standing.h"
#include "slave/transfer.h"

#define READY_LOOK_MS 20
#define SHUTDOWN_MS   500 /* from host.shutdown_agent to the end: its answer is sent meanwhile */

struct slave {
    struct settings settings;
    struct loop *loop;
    struct workers *workers;
    struct ledger *ledger;
    struct hypervisor *hypervisor;
    struct link_transport *transport, *door;
    struct standing *standing;
    struct slave_front *front;
    struct transfers *transfers;
    struct agent_metrics *metrics;
    struct listeners listeners;
    struct agent *agent;
    struct timer ready_timer, shutdown_timer;
    struct local_calls *local_calls;
    int signal_fd;
    int status;
    char secret_key[LINK_KEY_BYTES];
    char pool_secret[256];
    char join[300], name[256];
    char http_socket[PATH_MAX];  /* as others find it */
};

/* ---- signals ---- */

static void on_signal(void *arg, uint32_t events)
{
    struct slave *slave = arg;
    struct signalfd_siginfo info;

    (void) events;
    while (read(slave->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            if (log_open(*slave->settings.log_file ? slave->settings.log_file : NULL) < 0)
                log_error(NULL, "the log file cannot be opened");
            if (slave->front)
                listeners_reload(&slave->listeners, slave_front_server(slave->front));
        } else {
            log_info(NULL, "signal %u: stopping; guests run on", info.ssi_signo);
            loop_stop(slave->loop);
        }
    }
}

/* ---- the end, as a client asked for it ---- */

static void end_now(void *arg)
{
    struct slave *slave = arg;

    loop_stop(slave->loop);
}

static void end_soon(void *arg)
{
    struct slave *slave = arg;

    timer_start(slave->loop, &slave->shutdown_timer, SHUTDOWN_MS, end_now, slave);
}

/* ---- start ---- */

static void look_whether_ready(void *arg)
{
    struct slave *slave = arg;
    char uuid[UUID_TEXT_BYTES];

    if (!slave->agent->is_adopted) {
        timer_start(slave->loop, &slave->ready_timer, READY_LOOK_MS, look_whether_ready, slave);
        return;
    }
    printf("ready %s\n", uuid_print(uuid, slave->agent->host));
    fflush(stdout);
}

/* In a fiber, since it waits for the ledger. */
static void start_agent(void *arg)
{
    struct slave *slave = arg;
    struct settings *settings = &slave->settings;
    ref_t host = NULL_REF;
    struct agent_config config = {
        .address = settings->address,
        .name = slave->name,
        .hypervisor = settings->hypervisor,
        .storage = settings->storage,
        .memory_bytes = settings->memory_mib << 20,
        .cpus = (int) settings->cpus,
        .join_endpoint = *settings->join ? slave->join : NULL,
        .pool_secret = *slave->pool_secret ? slave->pool_secret : NULL,
        .http_socket = slave->http_socket,
        .standing = slave->standing,
    };

    (void) uuid_parse(settings->host, strlen(settings->host), &host);
    agent_identity(slave->ledger, random_real(), host, slave->secret_key);
    slave->hypervisor = hypervisor_sim_new(slave->loop, settings->guests);
    slave->transport = link_zmq_connect(slave->loop, slave->secret_key);
    if (config.pool_secret)
        slave->door = link_zmq_connect(slave->loop, slave->secret_key);
    slave->agent = agent_new(&config, slave->loop, random_real(), slave->workers, slave->ledger, slave->hypervisor,
                             slave->transport, slave->door);
    transfers_start(slave->transfers, slave->agent);
    local_calls_start(slave->local_calls, slave->agent);
    agent_start(slave->agent);
    look_whether_ready(slave);
}

static int read_secret(struct slave *slave, const char *path)
{
    _cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, slave->pool_secret, sizeof slave->pool_secret - 1);

    if (length < 0) {
        log_error(NULL, "%s: %s", path, strerror(errno));
        return -1;
    }
    slave->pool_secret[length] = '\0';
    slave->pool_secret[strcspn(slave->pool_secret, "\r\n")] = '\0';
    return 0;
}

static int open_ledger(struct slave *slave)
{
    char path[PATH_MAX];
    struct ledger_store *store;
    int error = 0;

    if (mkdir(slave->settings.dir, 0700) < 0 && errno != EEXIST) {
        log_error(NULL, "%s: %s", slave->settings.dir, strerror(errno));
        return -1;
    }
    snprintf(path, sizeof path, "%s/ledger.sqlite", slave->settings.dir);
    store = ledger_sqlite_open(path, NULL, &error);
    if (store)
        slave->ledger = ledger_new(slave->loop, store, &error);
    if (slave->ledger)
        return 0;
    log_error(NULL, "%s: %s", path,
              error == -EBUSY    ? "another agent has it open"
              : error == -EPROTO ? "a newer version of drover-slave wrote it"
                                 : strerror(-error));
    return -1;
}

/* The local SR is the host's own; the master is told where it is. */
static void make_storage(struct settings *settings)
{
    char path[PATH_MAX];

    if ((mkdir(settings->storage, 0755) < 0 && errno != EEXIST) || !realpath(settings->storage, path))
        log_warning(NULL, "%s: %s", settings->storage, strerror(errno));
    else
        settings->storage = arena_strdup(settings->memory, path);
}

/* After the ledger is ours: of two agents with one directory the second leaves the first one's socket alone. */
static int serve_http(struct slave *slave)
{
    const struct settings *settings = &slave->settings;
    char url[256];
    int r;

    slave->listeners = (struct listeners){
        .plain = &settings->listen,
        .tls = &settings->listen_tls,
        .unix_socket = settings->unix_socket,
        .certificate = settings->certificate,
        .key = settings->key,
        .name = slave->name,
        .address = settings->address,
    };
    slave->standing = standing_new();
    slave->local_calls = local_calls_new(&(struct local_calls_config){
        .loop = slave->loop,
        .random = random_real(),
        .workers = slave->workers,
        .ledger = slave->ledger,
        .standing = slave->standing,
        .pool_secret = slave->pool_secret,
        .address = settings->address,
        .has_listeners = settings->listen.count + settings->listen_tls.count > 0,
        .shut_down = end_soon,
        .arg = slave,
    });
    slave->front = slave_front_new(&(struct slave_front_config){
        .loops = (unsigned) settings->http_loops,
        .bodies_bytes_max = (size_t) settings->bodies_mb << 20,
        .standing = slave->standing,
        .local = slave->local_calls,
    });
    slave->transfers = transfers_new(slave->loop, slave->front,
                                     &(struct transfers_config){
                                         .at_work_max = (unsigned) settings->transfers,
                                         .requests_max = (unsigned) settings->transfer_requests,
                                         .bytes_per_s = settings->transfer_kib_per_s << 10,
                                     });
    slave->metrics = agent_metrics_new(slave->loop, slave->front, slave->transfers);
    if (listeners_open(&slave->listeners, slave_front_server(slave->front), url, sizeof url) < 0)
        return -1;
    if (!realpath(settings->unix_socket, slave->http_socket)) {
        log_error(NULL, "%s: %s", settings->unix_socket, strerror(errno));
        return -1;
    }
    r = slave_front_start(slave->front);
    if (r < 0)
        log_error(NULL, "cannot serve HTTP: %s", strerror(-r));
    else
        log_info(NULL, "serving HTTP at %s", *url ? slave->listeners.urls : slave->http_socket);
    return r;
}

static int start(struct slave *slave)
{
    struct settings *settings = &slave->settings;
    ref_t host;

    if (*settings->host && !uuid_parse(settings->host, strlen(settings->host), &host)) {
        log_error(NULL, "host: '%s' is no uuid", settings->host);
        return -1;
    }
    if (!streq(settings->hypervisor, "sim")) {
        log_error(NULL, "hypervisor: '%s' is unknown; there is sim", settings->hypervisor);
        return -1;
    }
    if (*settings->pool_secret_file && read_secret(slave, settings->pool_secret_file) < 0)
        return -1;
    if (*settings->join && !*slave->pool_secret)
        log_warning(NULL, "join is set, but there is no pool secret (pool_secret_file): this host cannot join");
    snprintf(slave->name, sizeof slave->name, "%s", settings->name);
    if (!*slave->name)
        gethostname(slave->name, sizeof slave->name - 1);
    snprintf(slave->join, sizeof slave->join, "tcp://%.280s", settings->join);
    loop_set_limits(slave->loop, &(struct loop_limits){.fibers_max = (unsigned) settings->fibers_max});
    if (listeners_try(&settings->listen) < 0 || listeners_try(&settings->listen_tls) < 0) /* before anything is made */
        return -1;
    if (open_ledger(slave) < 0)
        return -1;
    slave->workers = workers_new((unsigned) settings->workers, "worker");
    if (serve_http(slave) < 0)
        return -1;
    make_storage(settings);
    return fiber_spawn(slave->loop, start_agent, slave, "start") ? 0 : -1;
}

static void stop(struct slave *slave)
{
    if (slave->front)
        slave_front_stop(slave->front);
    loop_abandon(slave->loop); /* nothing is unwound: the next agent goes on from the ledger */
    timer_stop(&slave->ready_timer);
    timer_stop(&slave->shutdown_timer);
    workers_destroy(&slave->workers);
    local_calls_destroy(&slave->local_calls);
    transfers_destroy(&slave->transfers);
    agent_metrics_destroy(&slave->metrics);
    agent_destroy(&slave->agent);
    if (slave->hypervisor)
        slave->hypervisor->destroy(&slave->hypervisor);
    if (slave->door)
        slave->door->destroy(&slave->door);
    if (slave->transport)
        slave->transport->destroy(&slave->transport);
    slave_front_destroy(&slave->front);
    standing_destroy(&slave->standing);
    ledger_destroy(&slave->ledger);
    loop_unwatch_fd(slave->loop, slave->signal_fd);
    close_fd(&slave->signal_fd);
    loop_destroy(&slave->loop);
    settings_done(&slave->settings);
}

/* ---- options ---- */

static int usage(void)
{
    printf("usage: drover-slave [--config FILE] [--crash-at POINT[:kill|stop|drop-reply]] [--KEY VALUE ...]\n"
           "       drover-slave --crash-points | --version | --help\n\n"
           "Keys, in the file as \"key = value\", as options with their default in brackets:\n\n");
    settings_print_help();
    return 0;
}

static bool is_only(int argc, char **argv, const char *option)
{
    return argc == 2 && streq(argv[1], option);
}

int main(int argc, char **argv)
{
    struct slave slave = {.signal_fd = -1};
    const char *file = NULL;
    enum log_level level;

    if (is_only(argc, argv, "--help"))
        return usage();
    if (is_only(argc, argv, "--version"))
        return puts("drover-slave " DROVER_VERSION) < 0;
    model_init();
    if (is_only(argc, argv, "--crash-points")) {
        crash_print("slave");
        return 0;
    }
    if (!crash_from_environment()) {
        fprintf(stderr, "DROVER_CRASH_AT or DROVER_CRASH_TRACE makes no sense\n");
        return 2;
    }
    while (argc > 2 && (streq(argv[1], "--config") || streq(argv[1], "--crash-at"))) {
        if (streq(argv[1], "--config"))
            file = argv[2];
        else if (!crash_arm(argv[2])) {
            fprintf(stderr, "--crash-at: no such point or action: %s\n", argv[2]);
            return 2;
        }
        argc -= 2;
        argv += 2;
    }
    if (settings_read(&slave.settings, file, argc, argv) < 0)
        return 2;
    if (!log_level_parse(slave.settings.log_level, &level)) {
        fprintf(stderr, "log_level: '%s' is none of debug, info, warning, error\n", slave.settings.log_level);
        return 2;
    }
    slave.signal_fd = signals_open(true);
    slave.loop = loop_new(clock_real());
    log_start("drover-slave", NULL);
    log_set_level(level);
    if (*slave.settings.log_file && log_open(slave.settings.log_file) < 0)
        log_error(NULL, "%s: %s", slave.settings.log_file, strerror(errno));
    if (slave.signal_fd < 0 || loop_watch_fd(slave.loop, slave.signal_fd, EPOLLIN, on_signal, &slave) < 0)
        die("no signals: %s", strerror(errno));
    if (start(&slave) < 0)
        slave.status = 1;
    else
        loop_run(slave.loop);
    stop(&slave);
    return slave.status;
}
