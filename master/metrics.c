/* metrics.c - GET /metrics: how the master is doing
 *
 * Most figures belong to the core's thread, so the request waits while that puts them together. */
#include "master/metrics.h"

#include "master/core.h"
#include "master/dispatch.h"
#include "master/events.h"
#include "master/flows.h"
#include "master/front.h"
#include "master/http_transfer.h"
#include "master/journal.h"
#include "master/mirror.h"
#include "master/slaves.h"
#include "master/store.h"
#include "shared/metrics_text.h"
#include "shared/workers.h"

static void add_calls(struct buffer *out, struct core *core)
{
    struct dispatch_figures calls;
    struct event_figures events;

    dispatch_figures(core->dispatch, &calls);
    metrics_line(out, "calls_read_total", "counter", calls.reads);
    metrics_line(out, "calls_core_total", "counter", calls.calls);
    metrics_line(out, "tasks_started_total", "counter", calls.tasks);
    metrics_line(out, "calls_refused_total", "counter", calls.refused);
    metrics_line(out, "calls_not_implemented_total", "counter", calls.not_implemented);
    metrics_line(out, "calls_running", "gauge", calls.running);
    metrics_line(out, "calls_queued", "gauge", calls.queued);
    metrics_line(out, "tasks_queued", "gauge", calls.tasks_queued);
    events_figures(core->events, &events);
    metrics_line(out, "event_readers_waiting", "gauge", events.waiting);
    metrics_line(out, "event_readers_woken_total", "counter", events.wakes);
    metrics_line(out, "event_readers_answered_total", "counter", events.answers);
}

static void add_core(struct buffer *out, struct core *core)
{
    struct loop_counters loop;
    struct store_figures store;
    const struct view *view = store_core_view(core->store);

    metrics_line(out, "sessions", "gauge", view_count(view, CLASS_OF(session)));
    metrics_line(out, "tasks", "gauge", view_count(view, CLASS_OF(task)));
    loop_counters_read(core->loop, &loop);
    metrics_line(out, "core_rounds_total", "counter", loop.rounds);
    metrics_line(out, "core_longest_step_us", "gauge", loop.longest_step_us);
    metrics_line(out, "fibers", "gauge", loop.fibers);
    metrics_line(out, "fibers_most", "gauge", loop.fibers_most);
    metrics_line(out, "workers_queued", "gauge", workers_queued(core->workers));
    store_figures(core->store, &store);
    metrics_line(out, "store_generations_total", "counter", store.generations);
    metrics_line(out, "store_versions_live", "gauge", store.versions_live);
    metrics_line(out, "store_bytes_live", "gauge", store.bytes_live);
    metrics_line(out, "store_bytes_retired", "gauge", store.bytes_retired);
    metrics_line(out, "store_oldest_pin_age_ms", "gauge", store.oldest_pin_age_ms);
    metrics_line(out, "store_waiting_durable", "gauge", store.waiting_durable);
}

static void add_durability(struct buffer *out, struct core *core)
{
    struct journal_figures journal;
    struct mirror_figures mirror;

    metrics_line(out, "read_only", "gauge", core->read_only_why != NULL);
    if (core->journal) {
        journal_figures(core->journal, &journal);
        metrics_line(out, "journal_records_total", "counter", journal.records);
        metrics_line(out, "journal_commits_total", "counter", journal.commits);
        metrics_line(out, "journal_bytes_total", "counter", journal.bytes);
        metrics_line(out, "journal_queue_bytes", "gauge", journal.queue_bytes);
        metrics_line(out, "journal_longest_commit_us", "gauge", journal.longest_commit_us);
        metrics_line(out, "journal_fold_failures_total", "counter", journal.fold_failures);
        metrics_line(out, "journal_wal_bytes", "gauge", journal.wal_bytes);
        metrics_line(out, "journal_free_bytes", "gauge", journal.free_bytes);
        metrics_line(out, "journal_has_room", "gauge", journal.has_room);
    }
    if (core->mirror) {
        mirror_figures(core->mirror, &mirror);
        metrics_line(out, "mirror_in_step", "gauge", mirror.state == MIRROR_IN_STEP);
        metrics_line(out, "mirror_generations_waiting", "gauge", mirror.waiting);
        metrics_line(out, "mirror_incarnations_total", "counter", mirror.incarnations);
    }
}

static void add_hosts(struct buffer *out, struct core *core)
{
    struct slaves_figures slaves;

    if (!core->slaves)
        return;
    slaves_figures(core->slaves, &slaves);
    metrics_line(out, "hosts", "gauge", slaves.hosts);
    metrics_line(out, "hosts_linked", "gauge", slaves.linked);
    metrics_line(out, "slave_calls_total", "counter", slaves.calls);
    metrics_line(out, "slave_replies_total", "counter", slaves.replies);
    metrics_line(out, "slave_calls_in_doubt_total", "counter", slaves.in_doubt);
    metrics_line(out, "slave_notes_total", "counter", slaves.notes);
    metrics_line(out, "slave_frames_refused_total", "counter", slaves.frames_refused);
    metrics_line(out, "moves_running", "gauge", flows_running(core->flows));
    metrics_line(out, "moves_waiting", "gauge", flows_waiting(core->flows));
}

static void add_transfers(struct buffer *out, struct core *core)
{
    struct http_transfers_figures transfers;

    if (!core->transfers)
        return;
    http_transfers_figures(core->transfers, &transfers);
    metrics_line(out, "transfers", "gauge", transfers.active);
    metrics_line(out, "transfers_total", "counter", transfers.begun);
    metrics_line(out, "transfers_failed_total", "counter", transfers.failed);
    metrics_line(out, "transfers_refused_total", "counter", transfers.refused);
    metrics_line(out, "transfers_bytes_total", "counter", transfers.bytes);
}

/* One that was asked for, on its way to the core and back. */
struct question {
    struct front *front;
    struct http_ticket ticket;
    struct buffer out;
};

static void answer(struct http_request *http, void *arg)
{
    struct question *question = arg;

    if (http)
        http_reply_text(http, 200, METRICS_HEADERS,
                        buffer_text(&question->out));
    buffer_done(&question->out);
    free(question);
}

static void gather(void *arg)
{
    struct question *question = arg;
    struct core *core = front_core(question->front);

    add_calls(&question->out, core);
    add_core(&question->out, core);
    add_durability(&question->out, core);
    add_hosts(&question->out, core);
    add_transfers(&question->out, core);
    http_ticket_post(question->ticket, answer, question);
}

static void metrics(struct http_request *http, void *arg)
{
    struct question *question = new0(struct question);
    struct http_stats stats;

    question->front = arg;
    question->ticket = http_park(http, NULL, NULL);
    buffer_init(&question->out, 1 << 20);
    http_server_stats(front_server(question->front), &stats);
    metrics_line(&question->out, "http_requests_total", "counter", stats.requests);
    metrics_line(&question->out, "http_connections_total", "counter", stats.connections);
    metrics_line(&question->out, "http_connections", "gauge", stats.connections_now);
    metrics_line(&question->out, "http_bodies_bytes", "gauge", stats.bodies_bytes);
    metrics_line(&question->out, "http_refused_total", "counter", stats.refused);
    loop_call(front_core(question->front)->loop, gather, question);
}

void metrics_serve(struct front *front)
{
    front_add(front, HTTP_GET, "/metrics", metrics, front);
}
