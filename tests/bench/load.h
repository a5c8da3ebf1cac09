/* load.h - drover-load: what its files share
 *
 *   load.c          options, the table of subcommands
 *   load_pool.c     logging in, finding the VMs and hosts to work on, making more of them
 *   load_loops.c    read, get, write, lifecycle, migrate: closed loops, each connection asks again when it was answered
 *   load_records.c  records: one large answer while another connection writes
 *   load_events.c   events: many that wait, one change at a time
 *   load_disk.c     fdatasync: what the disk allows
 *   load_watch.c    the processor time and memory of the processes that serve
 *   load_report.c   results as one JSON object
 *   http_client.[ch], histogram.[ch]
 *
 * One thread and one epoll: the load shares its processor with agents and guests, so each microsecond it takes is theirs. A
 * latency is the time from handing a request to the kernel to the last byte of its answer. Every answer is looked at: one
 * that is no Success is a failure, counted by its code, and its time is in no percentile. */
#pragma once

#include <stdio.h>

#include "shared/base.h"
#include "tests/bench/histogram.h"
#include "tests/bench/http_client.h"

#define REF_BYTES      64
#define CODES_MAX      16
#define WATCHED_MAX    8
#define WATCHED_PIDS   4096

/* ---- who is watched ---- */

/* Processes under one name: "agents=12,14,19". */
struct watched {
    const char *name;
    int *pids;
    unsigned count;
    uint64_t begin_cpu_ns;
    double cpu_share;             /* of one processor, during the measurement */
};

struct watch {
    struct watched groups[WATCHED_MAX];
    unsigned count;
    uint64_t begin_ns, begin_own_ns, begin_busy[64], begin_all[64];
    double own_share, cpu_busy[64];
};

void watch_add(struct watch *watch, const char *text);
void watch_begin(struct watch *watch);
void watch_end(struct watch *watch);

/* The counters that the server shows at /metrics; what passed between begin and end is reported as "metrics". A server
 * without that page is not watched so. Both wait for the answer, while nothing is counted. */
#define METRICS_MAX 128

struct metric {
    char name[64];
    double begin, passed;
};

struct metrics {
    struct metric list[METRICS_MAX];
    unsigned count;
};

void metrics_begin(struct metrics *metrics, const char *url);
void metrics_end(struct metrics *metrics, const char *url);

/* Resident memory of a process, now and at most since rss_reset(); bytes. 0: cannot be read. */
uint64_t rss_now(int pid);
uint64_t rss_most(int pid);
void rss_reset(int pid);

/* ---- what is measured ---- */

struct code {
    char text[64];
    uint64_t count;
};

/* Answers to one kind of request. */
struct tally {
    struct histogram latency;
    uint64_t failures;
    struct code codes[CODES_MAX];
};

/* An answer that came: its time, or its failure. Counted only while `load->is_counting`. */
struct load;
bool tally_answer(struct load *load, struct tally *tally, const struct connection *connection);

/* ---- the pool ---- */

struct vm {
    char ref[REF_BYTES];
    int host;                     /* index of resident_on; -1: none */
    bool is_running;
};

struct load {
    const char *row, *url, *user, *password, *directory, *name, *options, *sr, *network;
    double seconds, warm_up_s;
    unsigned connections, vms_max, waiters, pid;
    struct watch watch;
    struct metrics metrics;

    char session[REF_BYTES];
    uint64_t run;                 /* in each text that is written: writing what is there already changes nothing */
    struct vm *vms;
    size_t vm_count, pool_vms;    /* pool_vms: templates and all */
    char (*hosts)[REF_BYTES];
    size_t host_count;

    const struct tally *least;    /* measure on, however slow, until some of these have come; or NULL */
    bool is_counting;
    uint64_t begin_ns, end_ns;
    FILE *out;                    /* the report */
    bool has_members;
};

/* Connections to the pool, with a session. */
void pool_open(struct load *load, struct client *client, unsigned connections);
void pool_close(struct client *client);
/* A session of its own for each connection but the first, which keep them when they are done; they end with the pool's
 * patience. For readers of events: a master may hold back one reader while it has just answered another of its session. */
void pool_login_each(struct load *load, struct client *client);
/* Fills load->hosts and load->vms, of plain VMs, at most vms_max: those that pass `wanted` ("running", "halted", "any"). */
void pool_find(struct load *load, struct client *client, const char *wanted);
/* Sets options of simulated guests, "sim-boot-ms=0,...", in other_config of all found VMs. */
void pool_tune(struct load *load, struct client *client);

/* Count from after the warm-up until the end, while the client runs; then wait for what is under way. The caller has sent
 * each connection's first request. */
void load_measure(struct load *load, struct client *client);

/* ---- report ---- */

void report_begin(struct load *load);
void report_number(struct load *load, const char *name, double value);
void report_text(struct load *load, const char *name, const char *value);
/* "latency_ms": {"p50": .., "p99": ..}; prefix names it: "start_latency_ms". */
void report_latency(struct load *load, const char *prefix, const struct histogram *histogram);
/* Counts, rate, failures by code, latencies. */
void report_tally(struct load *load, const char *prefix, const struct tally *tally);
void report_watch(struct load *load);
void report_end(struct load *load);

/* ---- subcommands ---- */

void load_read(struct load *load);
void load_get(struct load *load);
void load_write(struct load *load);
void load_lifecycle(struct load *load);
void load_migrate(struct load *load);
void load_records(struct load *load);
void load_events(struct load *load);
void load_fdatasync(struct load *load);
void load_make(struct load *load);
void load_start(struct load *load);
