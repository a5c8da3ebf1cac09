/* load.c - drover-load: asks a pool for one thing, as fast as it answers, and tells what it saw
 *
 *   POOL_URL=http://127.0.1.1:PORT POOL_USER=root POOL_PASSWORD=... drover-load read --seconds 10
 *
 * The result is one JSON object on standard output. Exit 0 when it was measured, whatever came out; 1 when it could not be;
 * 2 for wrong usage. scripts/bench runs it and compares with the targets; load.h tells how the files hang together. */
#include <err.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include "tests/bench/load.h"

static const struct row {
    const char *name;
    void (*run)(struct load *);
    unsigned connections;
    bool needs_pool;
    const char *help;
} rows[] = {
    {"read", load_read, 16, true, "VM.get_power_state"},
    {"get", load_get, 16, false, "GET of --url, for the yardstick"},
    {"write", load_write, 64, true, "VM.set_name_description, each on another VM"},
    {"lifecycle", load_lifecycle, 128, true, "VM.start and VM.hard_shutdown in turns"},
    {"migrate", load_migrate, 128, true, "VM.pool_migrate of all running VMs"},
    {"records", load_records, 2, true, "VM.get_all_records, and single writes meanwhile"},
    {"events", load_events, 1, true, "--waiters in event.from, one change at a time"},
    {"fdatasync", load_fdatasync, 16, false, "the disk under --directory, alone; --connections files together"},
    {"make", load_make, 64, true, "make --vms VMs called --name and a number"},
    {"start", load_start, 64, true, "start at most --vms halted VMs"},
};

static const struct option options[] = {
    {"url", required_argument, NULL, 'u'},       {"seconds", required_argument, NULL, 's'},
    {"warm-up", required_argument, NULL, 'w'},   {"connections", required_argument, NULL, 'c'},
    {"vms", required_argument, NULL, 'v'},       {"waiters", required_argument, NULL, 'e'},
    {"watch", required_argument, NULL, 'p'},     {"pid", required_argument, NULL, 'm'},
    {"directory", required_argument, NULL, 'd'}, {"name", required_argument, NULL, 'n'},
    {"options", required_argument, NULL, 'o'},   {"sr", required_argument, NULL, 'r'},
    {"network", required_argument, NULL, 'k'},   {"help", no_argument, NULL, 'h'},
    {0},
};

static void help(FILE *out)
{
    fputs("usage: drover-load ROW [options]; POOL_URL, POOL_USER and POOL_PASSWORD name the pool\n\n", out);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        fprintf(out, "  %-10s %s [%u connections]\n", rows[i].name, rows[i].help, rows[i].connections);
    fputs("\n"
          "  --seconds S          measure for so long [5]       --warm-up S      before that, uncounted [1]\n"
          "  --connections N                                    --vms N          at most so many VMs; make: so many\n"
          "  --waiters N          events: who wait [1]          --options K=V,.. lifecycle, start: set in other_config\n"
          "  --watch NAME=PID,..  tell their processor time     --pid PID        records: the master, for its memory\n"
          "  --directory DIR      fdatasync: where              --url URL        instead of POOL_URL\n"
          "  --name NAME          make: prefix [bench]          --sr, --network  make: references; VDI, VBD and VIF too\n",
          out);
}

static double number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= least && value <= most))
        errx(2, "%s is no number from %g to %g", text, least, most);
    return value;
}

static void take_option(struct load *load, int option)
{
    switch (option) {
    case 'u': load->url = optarg; break;
    case 's': load->seconds = number(optarg, 0.01, 86400); break;
    case 'w': load->warm_up_s = number(optarg, 0, 86400); break;
    case 'c': load->connections = (unsigned) number(optarg, 1, 20000); break;
    case 'v': load->vms_max = (unsigned) number(optarg, 0, 10000000); break;
    case 'e': load->waiters = (unsigned) number(optarg, 1, 20000); break;
    case 'p': watch_add(&load->watch, optarg); break;
    case 'm': load->pid = (unsigned) number(optarg, 1, INT32_MAX); break;
    case 'd': load->directory = optarg; break;
    case 'n': load->name = optarg; break;
    case 'o': load->options = optarg; break;
    case 'r': load->sr = optarg; break;
    case 'k': load->network = optarg; break;
    case 'h': help(stdout); exit(0);
    default: exit(2);
    }
}

/* A descriptor for each connection, as far as we may. */
static void raise_limits(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    struct load load = {.seconds = 5, .warm_up_s = 1, .waiters = 1, .directory = ".", .name = "bench", .out = stdout,
                        .url = getenv("POOL_URL"), .user = getenv("POOL_USER"), .password = getenv("POOL_PASSWORD")};
    const struct row *row = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        take_option(&load, option);
    for (size_t i = 0; i < ARRAY_SIZE(rows) && optind + 1 == argc; i++)
        if (streq(rows[i].name, argv[optind]))
            row = &rows[i];
    if (!row) {
        help(stderr);
        return 2;
    }
    if (row->needs_pool && (!load.url || !load.user || !load.password))
        errx(2, "POOL_URL, POOL_USER and POOL_PASSWORD are not set");
    if (streq(row->name, "get") && !load.url)
        errx(2, "--url is missing");
    if (!load.sr != !load.network)
        errx(2, "--sr and --network belong together");
    load.row = row->name;
    load.connections = load.connections ? load.connections : row->connections;
    signal(SIGPIPE, SIG_IGN);
    raise_limits();
    row->run(&load);
    free(load.vms);
    free(load.hosts);
    return 0;
}
