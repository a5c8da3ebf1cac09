/* metrics.c - GET /metrics: how the master is doing
 *
 * Most figures belong to the core's thread, so the request waits while that puts them together. */
#include "master/metrics.h"

#include "master/core.h"
#include "master/dispatch.h"
#include "master/events.h"
#include "master/flows.h"
#include "master/front.h"
#include "master/journal.h"
#include "master/mirror.h"
#include "master/slaves.h"
#include "master/store.h"
#include "shared/buffer.h"
#include "shared/workers.h"

static void line(struct buffer *out, const char *name, const char *kind, uint64_t value)
{
    buffer_add_literal(out, "# TYPE drover_");
    buffer_add_text(out, name);
    buffer_add_char(out, ' ');
    buffer_add_text(out, kind);
    buffer_add_literal(out, "\ndrover_");
    buffer_add_text(out, name);
    buffer_add_char(out, ' ');
    buffer_add_int(out, (int64_t) value);
    buffer_add_char(out, '\n');
}

static void add_calls(struct buffer *out, struct core *core)
{
    struct dispatch_figures calls;
    struct event_figures events;

    dispatch_figures(core->dispatch, &calls);
    line(out, "calls_read_total", "counter", calls.reads);
    line(out, "calls_core_total", "counter", calls.calls);
    line(out, "tasks_started_total", "counter", calls.tasks);
    line(out, "calls_refused_total", "counter", calls.refused);
    line(out, "calls_not_implemented_total", "counter", calls.not_implemented);
    line(out, "calls_running", "gauge", calls.running);
    line(out, "calls_queued", "gauge", calls.queued);
    line(out, "tasks_queued", "gauge", calls.tasks_queued);
    events_figures(core->events, &events);
    line(out, "event_readers_waiting", "gauge", events.waiting);
    line(out, "event_readers_woken_total", "counter", events.wakes);
    line(out, "event_readers_answered_total", "counter", events.answers);
}

static void add_core(struct buffer *out, struct core *core)
{
    struct loop_counters loop;
    struct store_figures store;
    const struct view *view = store_core_view(core->store);

    line(out, "sessions", "gauge", view_count(view, CLASS_OF(session)));
    line(out, "tasks", "gauge", view_count(view, CLASS_OF(task)));
    loop_counters_read(core->loop, &loop);
    line(out, "core_rounds_total", "counter", loop.rounds);
    line(out, "core_longest_step_us", "gauge", loop.longest_step_us);
    line(out, "fibers", "gauge", loop.fibers);
    line(out, "fibers_most", "gauge", loop.fibers_most);
    line(out, "workers_queued", "gauge", workers_queued(core->workers));
    store_figures(core->store, &store);
    line(out, "store_generations_total", "counter", store.generations);
    line(out, "store_versions_live", "gauge", store.versions_live);
    line(out, "store_bytes_live", "gauge", store.bytes_live);
    line(out, "store_bytes_retired", "gauge", store.bytes_retired);
    line(out, "store_oldest_pin_age_ms", "gauge", store.oldest_pin_age_ms);
    line(out, "store_waiting_durable", "gauge", store.waiting_durable);
}

static void add_durability(struct buffer *out, struct core *core)
{
    struct journal_figures journal;
    struct mirror_figures mirror;

    line(out, "read_only", "gauge", core->read_only_why != NULL);
    if (core->journal) {
        journal_figures(core->journal, &journal);
        line(out, "journal_records_total", "counter", journal.records);
        line(out, "journal_commits_total", "counter", journal.commits);
        line(out, "journal_bytes_total", "counter", journal.bytes);
        line(out, "journal_queue_bytes", "gauge", journal.queue_bytes);
        line(out, "journal_longest_commit_us", "gauge", journal.longest_commit_us);
        line(out, "journal_fold_failures_total", "counter", journal.fold_failures);
        line(out, "journal_wal_bytes", "gauge", journal.wal_bytes);
        line(out, "journal_free_bytes", "gauge", journal.free_bytes);
        line(out, "journal_has_room", "gauge", journal.has_room);
    }
    if (core->mirror) {
        mirror_figures(core->mirror, &mirror);
        line(out, "mirror_in_step", "gauge", mirror.state == MIRROR_IN_STEP);
        line(out, "mirror_generations_waiting", "gauge", mirror.waiting);
        line(out, "mirror_incarnations_total", "counter", mirror.incarnations);
    }
}

static void add_hosts(struct buffer *out, struct core *core)
{
    struct slaves_figures slaves;

    if (!core->slaves)
        return;
    slaves_figures(core->slaves, &slaves);
    line(out, "hosts", "gauge", slaves.hosts);
    line(out, "hosts_linked", "gauge", slaves.linked);
    line(out, "slave_calls_total", "counter", slaves.calls);
    line(out, "slave_replies_total", "counter", slaves.replies);
    line(out, "slave_calls_in_doubt_total", "counter", slaves.in_doubt);
    line(out, "slave_notes_total", "counter", slaves.notes);
    line(out, "slave_frames_refused_total", "counter", slaves.frames_refused);
    line(out, "moves_running", "gauge", flows_running(core->flows));
    line(out, "moves_waiting", "gauge", flows_waiting(core->flows));
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
        http_reply_text(http, 200, "content-type: text/plain; version=0.0.4\r\n",
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
    line(&question->out, "http_requests_total", "counter", stats.requests);
    line(&question->out, "http_connections_total", "counter", stats.connections);
    line(&question->out, "http_connections", "gauge", stats.connections_now);
    line(&question->out, "http_bodies_bytes", "gauge", stats.bodies_bytes);
    line(&question->out, "http_refused_total", "counter", stats.refused);
    loop_call(front_core(question->front)->loop, gather, question);
}

void metrics_serve(struct front *front)
{
    front_add(front, HTTP_GET, "/metrics", metrics, front);
}
