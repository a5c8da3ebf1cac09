/* metrics.c - GET /metrics of a host: its agent, and the exports and imports that it serves
 *
 * Most figures belong to the agent's loop, so the request waits while that puts them together. On the master's own machine the
 * agent listens at its unix socket only, and is asked there. */
#include "slave/metrics.h"

#include "shared/http.h"
#include "shared/loop.h"
#include "shared/metrics_text.h"
#include "slave/slave_front.h"
#include "slave/transfer.h"

#define TEXT_BYTES_MAX (64 << 10)

struct agent_metrics {
    struct loop *loop;
    struct slave_front *front;
    struct transfers *transfers;
};

/* One that was asked for, on its way to the agent's loop and back. */
struct question {
    const struct agent_metrics *metrics;
    struct http_ticket ticket;
    struct buffer out;
};

static void add_http(struct buffer *out, struct slave_front *front)
{
    struct http_stats stats;

    http_server_stats(slave_front_server(front), &stats);
    metrics_line(out, "http_requests_total", "counter", stats.requests);
    metrics_line(out, "http_connections_total", "counter", stats.connections);
    metrics_line(out, "http_connections", "gauge", stats.connections_now);
    metrics_line(out, "http_bodies_bytes", "gauge", stats.bodies_bytes);
    metrics_line(out, "http_refused_total", "counter", stats.refused);
}

static void add_loop(struct buffer *out, const struct loop *loop)
{
    struct loop_counters counters;

    loop_counters_read(loop, &counters);
    metrics_line(out, "agent_longest_step_us", "gauge", counters.longest_step_us);
    metrics_line(out, "agent_fibers", "gauge", counters.fibers);
}

static void add_transfers(struct buffer *out, struct transfers *transfers)
{
    struct transfers_figures figures;

    transfers_figures(transfers, &figures);
    metrics_line(out, "host_transfers", "gauge", figures.there);
    metrics_line(out, "host_transfers_at_work", "gauge", figures.at_work);
    metrics_line(out, "host_transfers_waiting_place", "gauge", figures.wait_for_place);
    metrics_line(out, "host_transfers_waiting_client", "gauge", figures.wait_for_client);
    metrics_line(out, "host_transfers_refused_total", "counter", figures.refused);
    metrics_line(out, "host_transfers_gave_way_total", "counter", figures.gave_way);
    metrics_line(out, "host_transfers_sent_bytes_total", "counter", figures.sent_bytes);
    metrics_line(out, "host_transfers_received_bytes_total", "counter", figures.received_bytes);
}

static void answer(struct http_request *http, void *arg)
{
    struct question *question = arg;

    if (http)
        http_reply_text(http, 200, METRICS_HEADERS, buffer_text(&question->out));
    buffer_done(&question->out);
    free(question);
}

static void gather(void *arg)
{
    struct question *question = arg;

    add_loop(&question->out, question->metrics->loop);
    add_transfers(&question->out, question->metrics->transfers);
    http_ticket_post(question->ticket, answer, question);
}

static void metrics(struct http_request *http, void *arg)
{
    struct question *question = new0(struct question);

    question->metrics = arg;
    question->ticket = http_park(http, NULL, NULL);
    buffer_init(&question->out, TEXT_BYTES_MAX);
    add_http(&question->out, question->metrics->front);
    loop_call(question->metrics->loop, gather, question);
}

struct agent_metrics *agent_metrics_new(struct loop *loop, struct slave_front *front, struct transfers *transfers)
{
    struct agent_metrics *self = new0(struct agent_metrics);

    *self = (struct agent_metrics){loop, front, transfers};
    slave_front_add(front, HTTP_GET, "/metrics", metrics, self);
    return self;
}

void agent_metrics_destroy(struct agent_metrics **self_p)
{
    free(TAKE(*self_p));
}
