/* main.c - drover-master: options, start order, main loop, stop order
 *
 *   settings, log, loop, store -> first start or recovery -> sessions, tasks, events, calls ->
 *   HTTP -> ready
 *
 * Each step needs those before it; the end goes the same way back. When all listeners answer, a
 * line "ready URL" on standard output says so, for scripts that started us. SIGTERM and SIGINT end
 * the master, SIGHUP makes it reopen its log, reload certificates and say which changed settings
 * need a restart. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "master/awaited.h"
#include "master/backup.h"
#include "master/blob_files.h"
#include "master/blob_http.h"
#include "master/bootstrap.h"
#include "master/claim.h"
#include "master/config.h"
#include "master/core.h"
#include "master/describe.h"
#include "master/dispatch.h"
#include "master/enrol.h"
#include "master/events.h"
#include "master/flows.h"
#include "master/front.h"
#include "master/guest_changes.h"
#include "master/http_transfer.h"
#include "master/journal.h"
#include "master/message.h"
#include "master/metadata_http.h"
#include "master/metrics.h"
#include "master/raw_vdi_doubt.h"
#include "master/recovery.h"
#include "master/room.h"
#include "master/secret_file.h"
#include "master/session.h"
#include "master/slaves.h"
#include "master/start.h"
#include "master/store.h"
#include "master/task.h"
#include "shared/arena.h"
#include "shared/crash.h"
#include "shared/fiber.h"
#include "shared/link.h"
#include "shared/log.h"
#include "shared/passwords.h"
#include "shared/random.h"
#include "shared/signals.h"
#include "shared/workers.h"

#define DISK_TRY_MS  2000 /* between two attempts to write to a disk that refused */
#define OTHER_FIBERS 256 /* beside those of calls: recovery, notes of slaves */

struct master {
    int argc;
    char **argv;
    const char *config_file;
    struct config config;
    struct core core;
    struct front *front;
    struct listeners listeners;
    struct backups *backups;
    int signal_fd;
    char **argv_given; /* to begin anew with */
    struct store_parts parts;
    struct link_transport *link, *door;
    char link_public[LINK_KEY_BYTES];
    struct slaves_known above; /* epoch not 0: begin anew above that */
    bool has_failed;
    char url[256]; /* of the first listener */
};

/* DIR/name, or what the setting says; in the configuration's memory. */
static const char *path_of(struct master *master, const char *setting, const char *name)
{
    return *setting ? setting
                    : arena_text(master->config.memory, "%s/%s", master->config.dir, name);
}

/* ---- signals ---- */

static void needs_restart(const char *key)
{
    log_warning(NULL, "the setting %s has changed; it takes effect with a restart", key);
}

static void reload(struct master *master)
{
    struct config fresh;
    int first;

    if (config_read(&fresh, master->config_file, master->argc, master->argv, &first) < 0) {
        log_error(NULL, "the settings cannot be read; the old ones stay");
    } else {
        enum log_level level;

        config_compare(&master->config, &fresh, needs_restart);
        if (log_level_parse(fresh.log_level, &level))
            log_set_level(level);
        if (log_open(*fresh.log_file ? fresh.log_file : NULL) < 0)
            log_error(NULL, "the log file cannot be opened");
        config_done(&fresh);
    }
    if (master->listeners.tls) /* listening already */
        listeners_reload(&master->listeners, front_server(master->front));
    log_info(NULL, "settings read again");
}

static void on_signal(void *arg, uint32_t events)
{
    struct master *master = arg;
    struct signalfd_siginfo info;

    (void) events;
    while (read(master->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            reload(master);
        } else {
            log_info(NULL, "signal %u: stopping", info.ssi_signo);
            loop_stop(master->core.loop);
        }
    }
}

/* ---- listening ---- */

static const char *first_address(const struct config *config)
{
    static char address[128];
    uint16_t port;

    if (*config->host_address)
        return config->host_address;
    if (config->listen.count > 0
        && listener_split(config->listen.items[0], address, sizeof address, &port))
        return address;
    return "127.0.0.1";
}

static const char *first_name(const struct config *config)
{
    static char name[256] = "localhost";

    if (*config->host_name)
        return config->host_name;
    gethostname(name, sizeof name - 1);
    return name;
}

static int listen_all(struct master *master)
{
    const struct config *config = &master->config;

    master->listeners = (struct listeners){
        .plain = &config->listen,
        .tls = &config->listen_tls,
        .unix_socket = path_of(master, config->unix_socket, "master.sock"),
        .certificate = path_of(master, config->certificate, "master.crt"),
        .key = path_of(master, config->key, "master.key"),
        .name = first_name(config),
        .address = first_address(config),
    };
    return listeners_open(&master->listeners, front_server(master->front), master->url,
                          sizeof master->url);
}

/* ---- start ---- */

/* The disk failed: what became of the writes under way is unknown. Nobody is answered any more; we
 * begin anew from what the disk holds, with a new epoch. (design.md section 4, "Nothing is ever
 * taken back") */
static void begin_anew(void *arg)
{
    struct master *master = arg;

    log_error(NULL, "closing all connections and starting anew");
    execv("/proc/self/exe", master->argv_given);
    log_error(NULL, "cannot start anew: %s", strerror(errno));
    _exit(1);
}

/* One attempt to write to the disk. */
struct trial {
    const struct journal_config *config;
    int result;
    char text[JOURNAL_TEXT_BYTES];
};

static void try_disk(void *arg)
{
    struct trial *trial = arg;

    trial->result = journal_try(trial->config, trial->text);
}

/* Serving reads only, from a disk that refuses writes: until it takes them, and then as any start. */
static void wait_for_disk(void *arg)
{
    struct master *master = arg;
    struct trial *trial = arena_new0(master->config.memory, struct trial); /* not on a fiber's stack: SQLite writes to it */

    trial->config = &master->parts.journal_config;
    trial->result = -1;
    while (trial->result < 0) {
        if (fiber_sleep(DISK_TRY_MS) < 0)
            return;
        workers_run(master->core.workers, try_disk, trial);
    }
    log_info(NULL, "the disk takes writes again");
    begin_anew(master);
}

static int start_model(struct master *master)
{
    struct core *core = &master->core;
    const struct config *config = &master->config;
    const char *password_file = path_of(master, config->root_password_file, "root-password");
    bool may_lack =
        *config->root_password_file && access(password_file, F_OK) < 0; /* see config_check() */
    _cleanup_(free_p) char *password =
        may_lack ? NULL : secret_file_read(password_file, core->random);
    struct bootstrap first = {
        .pool_name = config->pool_name,
        .host_name = first_name(config),
        .host_address = first_address(config),
        .root_password = password,
    };

    if (!password && !may_lack) {
        log_error(NULL, "%s: %s", password_file, strerror(errno));
        return -1;
    }
    master->parts.failed = begin_anew;
    master->parts.failed_arg = master;
    if (start_store(core, config, &master->parts) < 0)
        return -1;
    first.pool_uuid = master->parts.pool_uuid;
    first.host_uuid = master->parts.host_uuid;
    core->claims = claims_new();
    core->room = room_new(core->store);
    core->flows = flows_new((unsigned) config->migrations_per_host);
    core->recovery = recovery_new(core);
    core->guests = guests_new(core);
    awaited_new(core);
    if (bootstrap(core, &first) < 0)
        return -1;
    if (!core->read_only_why)
        pool_furnish(core);
    return 0;
}

static int start_calls(struct master *master)
{
    struct core *core = &master->core;
    const struct config *config = &master->config;
    const char *secret_file = path_of(master, config->pool_secret_file, "pool-secret");
    _cleanup_(free_p) char *secret = secret_file_read(secret_file, core->random);
    struct session_limits sessions = {
        .per_originator = (unsigned) config->sessions_per_originator,
        .per_user = (unsigned) config->sessions_per_user,
        .nameless = (unsigned) config->sessions_nameless,
        .pool = (unsigned) config->sessions_pool,
        .expiry_s = (uint64_t) config->session_expiry_s,
    };
    struct task_limits tasks = TASK_LIMITS_DEFAULT;
    struct dispatch_limits calls = {
        .fibers_max = (unsigned) config->fibers_max,
        .queue_max = (size_t) config->queue_max,
        .tasks_max = (size_t) config->queue_max,
    };
    struct front_config front = {.loops = (unsigned) config->http_loops,
                                 .rpc_bytes_max = RPC_BYTES_MAX,
                                 .bodies_bytes_max = (size_t) config->bodies_mb << 20};

    if (!secret) {
        log_error(NULL, "%s: %s", secret_file, strerror(errno));
        return -1;
    }
    tasks.kept_max = (unsigned) config->tasks_kept;
    tasks.kept_s = (uint64_t) config->task_kept_s;
    core->workers = workers_new((unsigned) config->workers, "worker");
    core->passwords = passwords_new(core->clock, core->random, core->workers);
    core->sessions = sessions_new(core, &sessions, secret);
    core->tasks = tasks_new(core, &tasks);
    if (!core->read_only_why) { /* else it is the next start's, which may write what comes of it */
        http_transfers_recover(core);
        tasks_recover(core);
        recovery_start(core);
    }
    core->events = events_new(core);
    events_set_epochs(core->events, master->parts.epochs, master->parts.epoch_count);
    core->dispatch = dispatch_new(core, &calls);
    master->front = front_new(core, &front);
    metrics_serve(master->front);
    metadata_serve(master->front);
    if (core->read_only_why)
        return 0;
    core->blobs = blobs_open(core, path_of(master, "", "blobs"), (uint64_t) config->blob_mb << 20,
                             (uint64_t) config->blobs_mb << 20);
    if (!core->blobs)
        return -1;
    blob_serve(master->front);
    master->backups =
        backups_start(core, path_of(master, config->backup_dir, "backups"),
                      (uint64_t) config->backup_hours, (unsigned) config->backups_kept);
    return 0;
}

static void listen_and_say_so(void *arg)
{
    struct master *master = arg;
    int r = listen_all(master);

    if (r == 0) {
        r = front_start(master->front);
        if (r < 0)
            log_error(NULL, "cannot serve: %s", strerror(-r));
    }
    if (r < 0) {
        master->has_failed = true;
        loop_stop(master->core.loop);
        return;
    }
    printf("ready %s\n", master->url);
    fflush(stdout);
    log_info(NULL, "ready at %s",
             *master->listeners.urls ? master->listeners.urls : master->listeners.unix_socket);
}

/* ---- the hosts ---- */

/* The key that this master's links prove, drawn at the first start. */
static int link_key(struct master *master, char ret_public[LINK_KEY_BYTES],
                    char ret_secret[LINK_KEY_BYTES])
{
    const char *path = path_of(master, "", "link-key");
    FILE *file = fopen(path, "re");
    bool is_read =
        file && fscanf(file, "%40s", ret_secret) == 1 && link_public_key(ret_secret, ret_public);

    if (file)
        fclose(file);
    if (is_read)
        return 0;
    if (file) {
        log_error(NULL, "%s holds no key", path);
        return -1;
    }
    link_keys_new(ret_public, ret_secret);
    file = fopen(path, "wxe");
    if (!file || fchmod(fileno(file), 0600) < 0 || fprintf(file, "%s\n", ret_secret) < 0
        || fflush(file) != 0 || fsync(fileno(file)) < 0) {
        log_error(NULL, "%s: %s", path, strerror(errno));
        if (file)
            fclose(file);
        return -1;
    }
    fclose(file);
    return 0;
}

/* Another master has taken over, as it seems. */
static void superseded(struct core *core, uint64_t epoch)
{
    struct txn *txn = store_begin(core->store);
    const struct object *pool = txn_get(txn, pool, core->pool);
    char text[256];

    snprintf(text, sizeof text,
             "A host follows another master, of epoch %llu; this one's is %llu. The host is not "
             "welcomed here: send it back, or end this master",
             (unsigned long long) epoch, (unsigned long long) core->epoch);
    if (pool)
        message_raise(txn, core, "MASTER_SUPERSEDED", 1, cls_Pool, pool_get_uuid(pool), text);
    store_apply(&txn);
    txn_end(&txn);
}

static void hosts_know_more(struct core *core, uint64_t generation)
{
    char why[128];

    snprintf(why, sizeof why, "a host was told of generation %llu, which is not among them",
             (unsigned long long) generation);
    awaited_begin(core, why);
}

static void begin_above_main(void *arg)
{
    struct master *master = arg;
    struct core *core = &master->core;

    store_wait_visible(core->store,
                       awaited_begin(core, "the hosts follow an epoch that they do not know"));
    loop_stop(core->loop);
}

/* The store was put back from before this master's last starts. It is written down there that it waits for all hosts, then what
 * epoch they follow, and then this process begins anew. */
static void begin_above(struct core *core, const struct slaves_known *known)
{
    struct master *master = CONTAINER_OF(core, struct master, core);

    master->above = *known;
    if (!fiber_spawn(core->loop, begin_above_main, master, "begin anew"))
        die("no fiber to begin anew with");
}

static struct link_transport *listen_link(struct master *master, const char *address,
                                          const char *secret, bool is_open)
{
    char endpoint[256];
    struct link_transport *transport;
    int error;

    snprintf(endpoint, sizeof endpoint, "tcp://%s", address);
    transport = link_zmq_listen(master->core.loop, endpoint, secret, is_open, &error);
    if (!transport)
        log_error(NULL, "cannot listen on %s: %s", endpoint, strerror(-error));
    return transport;
}

static int start_hosts(struct master *master)
{
    struct core *core = &master->core;
    const struct config *config = &master->config;
    _cleanup_(free_p) char *secret =
        secret_file_read(path_of(master, config->pool_secret_file, "pool-secret"), core->random);
    char secret_key[LINK_KEY_BYTES], door_public[LINK_KEY_BYTES], door_secret[LINK_KEY_BYTES];
    struct slaves_config slaves = {
        .host_dead_ms = 1000 * (uint64_t) config->host_dead_s,
        .key = master->link_public,
        .generation = master->parts.generation,
        .on_higher_epoch = superseded,
        .begin_above = begin_above,
        .on_newer_generation = hosts_know_more,
    };

    if (!secret || link_key(master, master->link_public, secret_key) < 0)
        return -1;
    slaves.pool_secret = arena_strdup(master->config.memory, secret);
    if (*config->link_listen) {
        master->link = listen_link(master, config->link_listen, secret_key, false);
        if (!master->link)
            return -1;
        slaves.link_endpoint = link_zmq_endpoint(master->link);
    }
    if (*config->join_listen) {
        link_keys_from_secret(secret, door_public, door_secret);
        master->door = listen_link(master, config->join_listen, door_secret, true);
        if (!master->door)
            return -1;
    }
    core->slaves = slaves_new(core, &slaves, master->link, master->door);
    guests_start(core);
    http_transfers_new(core, master->front);
    raw_writes_start(core);
    awaited_start(core);
    if (master->parts.may_lack)
        awaited_begin(core, master->parts.may_lack);
    slaves_start(core->slaves);
    return 0;
}

/* Nothing is answered before what the start has written is durable. */
static void serve(void *arg)
{
    struct master *master = arg;

    store_wait_visible(master->core.store, store_newest(master->core.store));
    if (!master->core.read_only_why)
        start_is_told(&master->config);
    fiber_on_loop_stack(listen_and_say_so, master);
}

/* ZeroMQ knows more names than addresses: those are found out later. */
static int try_link(const char *address)
{
    int r = *address ? listener_try(address) : 0;

    if (r == 0 || r == -EINVAL)
        return 0;
    log_error(NULL, "cannot listen on %s: %s", address, strerror(-r));
    return -1;
}

/* A port that is taken is found before anything is made of an empty directory. */
static int try_listeners(const struct config *config)
{
    return listeners_try(&config->listen) < 0 || listeners_try(&config->listen_tls) < 0
                   || try_link(config->link_listen) < 0 || try_link(config->join_listen) < 0
               ? -1
               : 0;
}

static int start(struct master *master)
{
    struct core *core = &master->core;
    int r;

    core->clock = clock_real();
    core->random = random_real();
    core->config = &master->config;
    core->loop = loop_new(core->clock);
    loop_set_limits(
        core->loop,
        &(struct loop_limits){.fibers_max = (unsigned) master->config.fibers_max + OTHER_FIBERS});
    if (try_listeners(&master->config) < 0)
        return -1;
    if (mkdir(master->config.dir, 0700) < 0 && errno != EEXIST) {
        log_error(NULL, "%s: %s", master->config.dir, strerror(errno));
        return -1;
    }
    r = start_model(master);
    if (r == 0)
        r = start_calls(master);
    /* Without an epoch there is nobody to order, and nothing that a host tells could be written down. */
    if (r == 0 && !core->read_only_why)
        r = start_hosts(master);
    if (r == 0 && !fiber_spawn(core->loop, serve, master, "start"))
        r = -1;
    if (r == 0 && core->read_only_why && !fiber_spawn(core->loop, wait_for_disk, master, "disk"))
        r = -1;
    return r;
}

static void stop(struct master *master)
{
    struct core *core = &master->core;

    if (master->front)
        front_stop(master->front);
    front_destroy(&master->front);
    backups_destroy(&master->backups);
    http_transfers_destroy(&core->transfers);
    slaves_destroy(&core->slaves);
    dispatch_destroy(&core->dispatch);
    workers_destroy(&core->workers);
    blobs_close(&core->blobs);
    events_destroy(&core->events);
    tasks_destroy(&core->tasks);
    sessions_destroy(&core->sessions);
    passwords_destroy(&core->passwords);
    end_store(&master->parts);
    if (master->link)
        master->link->destroy(&master->link);
    if (master->door)
        master->door->destroy(&master->door);
    loop_destroy(&core->loop);
    guests_destroy(&core->guests);
    awaited_destroy(&core->awaited);
    recovery_destroy(&core->recovery);
    flows_destroy(&core->flows);
    claims_destroy(&core->claims);
    store_destroy(&core->store);
    room_destroy(&core->room);
}

static int usage(void)
{
    printf("usage: drover-master [--config FILE] [--KEY VALUE ...]\n"
           "       drover-master --describe | --crash-points | --version | --help\n\n"
           "Keys, in the file as \"key = value\", as options with their default in brackets:\n\n"
           "  --%-26s %s\n",
           "config", "file of settings; options go over it");
    config_print_help();
    return 0;
}

/* --config comes first, so that all else can go over it. */
static bool take_config_option(struct master *master)
{
    if (master->argc > 1 && strcmp(master->argv[1], "--config") == 0) {
        if (master->argc == 2) {
            fprintf(stderr, "--config: a value is missing\n");
            return false;
        }
        master->config_file = master->argv[2];
        master->argc -= 2;
        master->argv += 2;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct master master = {.argc = argc, .argv = argv, .argv_given = argv};
    enum log_level level;
    int first, r;

    model_init();
    if (argc == 2 && streq(argv[1], "--help"))
        return usage();
    if (argc == 2 && streq(argv[1], "--version"))
        return printf("drover-master %s\n", DROVER_VERSION) < 0;
    if (argc == 2 && streq(argv[1], "--describe"))
        return describe(stdout);
    if (argc == 2 && streq(argv[1], "--crash-points")) {
        crash_print("master");
        return 0;
    }
    if (!crash_from_environment()) {
        fprintf(stderr,
                "DROVER_CRASH_AT: no such crash point or action; --crash-points lists them\n");
        return 2;
    }
    if (!take_config_option(&master)
        || config_read(&master.config, master.config_file, master.argc, master.argv, &first) < 0)
        return 2;
    if (first < master.argc || !log_level_parse(master.config.log_level, &level)) {
        fprintf(stderr, "%s: not understood; --help lists the settings\n",
                first < master.argc ? master.argv[first] : "log_level");
        config_done(&master.config);
        return 2;
    }
    if (config_check(&master.config) < 0) {
        config_done(&master.config);
        return 2;
    }
    log_start("drover-master", NULL);
    log_set_level(level);
    if (*master.config.log_file && log_open(master.config.log_file) < 0) {
        fprintf(stderr, "%s: %s\n", master.config.log_file, strerror(errno));
        config_done(&master.config);
        return 2;
    }
    master.signal_fd = signals_open(true);
    r = start(&master);
    if (r == 0) {
        loop_watch_fd(master.core.loop, master.signal_fd, EPOLLIN, on_signal, &master);
        loop_run(master.core.loop);
        loop_unwatch_fd(master.core.loop, master.signal_fd);
    }
    stop(&master);
    if (master.above.epoch > 0 && start_learn(&master.config, &master.parts, &master.above) == 0)
        begin_anew(&master);
    close(master.signal_fd);
    config_done(&master.config);
    return r == 0 && !master.has_failed ? 0 : 1;
}
