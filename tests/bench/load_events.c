/* load_events.c - many that wait in event.from, one change at a time
 *
 *   connection 0        changes a VM's description to "change N "
 *   connections 1 to W  event.from(["VM"], token, 60 s), each in a session of its own
 *
 * Times run from sending the change to the last byte of an answer that shows it, so the change's own way to the disk is in
 * them. When all have been told they ask again with the token they were given, and the next change comes PAUSE_MS later: the
 * master may gather events for 50 ms for a reader that it has just answered, and that is not what is measured here. */
#include <err.h>
#include <stdio.h>
#include <time.h>

#include "tests/bench/load.h"

#define PAUSE_MS      120
#define ROUND_S       20
#define WAIT_S        60.0
#define TOKEN_BYTES   128
#define KEEP_BYTES    (64 * 1024)

struct events {
    struct load *load;
    char (*tokens)[TOKEN_BYTES];   /* of each waiting connection */
    unsigned waiters, told;
    uint64_t number, changed_ns;
    struct tally change;
    struct histogram first, last, each;
    uint64_t rounds, early;        /* early: answers that did not show the change */
};

static void ask(struct events *events, struct connection *connection)
{
    struct client *client = connection->client;

    call_begin_on(connection, "event.from");
    call_xml(client, "<array><data><value>VM</value></data></array>");
    call_text(client, events->tokens[connection->number]);
    call_float(client, WAIT_S);
    call_send(connection);
}

static void take_token(struct events *events, const struct connection *connection)
{
    char code[64];
    const char *failure = answer_failure(connection, code, sizeof code);

    if (failure)
        errx(1, "event.from: %s", failure);
    if (!answer_value(connection, "<name>token</name>", events->tokens[connection->number], TOKEN_BYTES))
        errx(1, "event.from gives no token");
}

static bool shows_change(const struct events *events, struct connection *connection)
{
    char mark[64];

    snprintf(mark, sizeof mark, ">change %llx-%llu<", (unsigned long long) events->load->run,
             (unsigned long long) events->number);
    return strstr(buffer_text(&connection->body), mark) != NULL;
}

static void answered(struct connection *connection, void *arg)
{
    struct events *events = arg;
    uint64_t passed = now_ns() - events->changed_ns;

    if (connection->number == 0) {
        if (!tally_answer(events->load, &events->change, connection) && events->load->is_counting)
            errx(1, "a change failed: %s", events->change.codes[0].text);
        return;
    }
    take_token(events, connection);
    if (!shows_change(events, connection)) {
        events->early++;
        ask(events, connection);
        return;
    }
    events->told++;
    if (!events->load->is_counting)
        return;
    histogram_add(&events->each, passed);
    if (events->told == 1)
        histogram_add(&events->first, passed);
    if (events->told == events->waiters)
        histogram_add(&events->last, passed);
}

static void change(struct events *events, struct client *client)
{
    char text[64];

    events->told = 0;
    snprintf(text, sizeof text, "change %llx-%llu", (unsigned long long) events->load->run,
             (unsigned long long) ++events->number);
    call_begin(client, "VM.set_name_description");
    call_text(client, events->load->vms[events->number % events->load->vm_count].ref);
    call_text(client, text);
    events->changed_ns = now_ns();
    call_send(&client->connections[0]);
}

static void one_round(struct events *events, struct client *client)
{
    for (unsigned i = 1; i <= events->waiters; i++)
        ask(events, &client->connections[i]);
    /* Whoever is answered now, before the change, asks again by itself. */
    client_run(client, now_ns() + PAUSE_MS * 1000000ULL);
    change(events, client);
    client_run(client, now_ns() + ROUND_S * 1000000000ULL);
    if (client->busy > 0)
        errx(1, "round %llu: of %u waiting clients %u were told of a change within %d s; the change was %s",
             (unsigned long long) events->number, events->waiters, events->told, ROUND_S,
             client->connections[0].part == PART_NONE ? "made" : "not answered");
    events->rounds += events->load->is_counting;
}

/* Every reader starts from the same token; class pool, because that answer is small. */
static void first_tokens(struct events *events, struct client *client)
{
    call_begin(client, "event.from");
    call_xml(client, "<array><data><value>pool</value></data></array>");
    call_text(client, "");
    call_float(client, 0);
    take_token(events, call_now(client));
    for (unsigned i = 1; i <= events->waiters; i++)
        memcpy(events->tokens[i], events->tokens[0], TOKEN_BYTES);
}

static void report(struct load *load, struct events *events)
{
    report_begin(load);
    report_number(load, "waiters", events->waiters);
    report_number(load, "rounds", (double) events->rounds);
    report_number(load, "early_answers", (double) events->early);
    report_latency(load, "first_", &events->first);
    report_latency(load, "last_", &events->last);
    report_latency(load, "each_", &events->each);
    report_latency(load, "change_", &events->change.latency);
    report_watch(load);
    report_end(load);
}

static void measure(struct load *load, struct events *events, struct client *client)
{
    uint64_t end_ns;

    for (uint64_t warm_ns = now_ns() + (uint64_t) (load->warm_up_s * 1e9); now_ns() < warm_ns;)
        one_round(events, client);
    watch_begin(&load->watch);
    load->is_counting = true;
    load->begin_ns = now_ns();
    end_ns = load->begin_ns + (uint64_t) (load->seconds * 1e9);
    while (now_ns() < end_ns)
        one_round(events, client);
    load->is_counting = false;
    load->end_ns = now_ns();
    watch_end(&load->watch);
}

void load_events(struct load *load)
{
    struct client client = {.keep_max = KEEP_BYTES};
    struct events *events = new0(struct events);

    events->load = load;
    events->waiters = load->waiters;
    events->tokens = alloc_array(events->waiters + 1, TOKEN_BYTES);
    load->connections = events->waiters + 1;
    load->vms_max = load->vms_max ? load->vms_max : 64;
    pool_open(load, &client, load->connections);
    pool_find(load, &client, "any");
    pool_login_each(load, &client);
    first_tokens(events, &client);
    client.answered = answered;
    client.arg = events;
    measure(load, events, &client);
    report(load, events);
    pool_close(&client); /* the readers' sessions expire */
    free(events->tokens);
    free(events);
}
