/* load_loops.c - closed loops: each connection asks again as soon as it was answered
 *
 * So the rate is what the server gives to that many clients, and latencies are those of a server that is never asked more
 * than it answers: rate times mean latency is the number of connections. */
#include <err.h>
#include <stdio.h>

#include "tests/bench/load.h"

#define DRAIN_S     60
#define LEAST_COUNT 3
#define LEAST_S     120

bool tally_answer(struct load *load, struct tally *tally, const struct connection *connection)
{
    char buffer[64];
    const char *failure = answer_failure(connection, buffer, sizeof buffer);

    if (!load->is_counting)
        return !failure;
    if (!failure) {
        histogram_add(&tally->latency, now_ns() - connection->sent_ns);
        return true;
    }
    tally->failures++;
    for (size_t i = 0; i < CODES_MAX; i++) {
        struct code *code = &tally->codes[i];

        if (code->count == 0)
            snprintf(code->text, sizeof code->text, "%s", failure);
        if (i == CODES_MAX - 1 || streq(code->text, failure)) {
            code->count++;
            break;
        }
    }
    return false;
}

void load_measure(struct load *load, struct client *client)
{
    client_run(client, now_ns() + (uint64_t) (load->warm_up_s * 1e9));
    metrics_begin(&load->metrics, load->url);
    /* Answers that came meanwhile have waited for us, not for the server: they are not counted either. */
    client_run(client, now_ns() + (uint64_t) (load->warm_up_s * 1e8));
    watch_begin(&load->watch);
    load->is_counting = true;
    load->begin_ns = now_ns();
    client_run(client, load->begin_ns + (uint64_t) (load->seconds * 1e9));
    while (load->least && load->least->latency.count + load->least->failures < LEAST_COUNT
           && now_ns() < load->begin_ns + LEAST_S * 1000000000ULL)
        client_run(client, now_ns() + 10000000);
    load->end_ns = now_ns();
    load->is_counting = false;
    watch_end(&load->watch);
    metrics_end(&load->metrics, load->url);
    if (client_drain(client, DRAIN_S) > 0)
        errx(1, "%u requests were not answered within %d s", client->busy, DRAIN_S);
}

/* ---- what all loops share ---- */

struct loop {
    struct load *load;
    struct tally tally;                     /* of all */
    struct tally kinds[2];                  /* lifecycle: starts, shutdowns */
    size_t stride;                          /* connection i works on VMs i, i + stride, ... */
    uint64_t number;                        /* makes each write another one */
    uint64_t random;
    unsigned *host_vms;                     /* migrate: how many VMs each host has */
    double answer_bytes;
    void (*ask)(struct loop *, struct connection *);
};

static void again(struct loop *loop, struct connection *connection)
{
    if (!connection->client->is_stopped)
        loop->ask(loop, connection);
}

static void run(struct load *load, struct client *client, struct loop *loop)
{
    client->arg = loop;
    for (unsigned i = 0; i < client->count; i++) {
        client->connections[i].at = i % MAX(load->vm_count, (size_t) 1);
        loop->ask(loop, &client->connections[i]);
    }
    load_measure(load, client);
}

static void next_vm(struct loop *loop, struct connection *connection)
{
    connection->at += loop->stride;
    if (connection->at >= loop->load->vm_count)
        connection->at = connection->number % loop->load->vm_count;
}

static void report(struct load *load, struct loop *loop)
{
    report_begin(load);
    report_tally(load, "", &loop->tally);
    report_number(load, "answer_bytes", loop->answer_bytes);
    report_watch(load);
}

/* ---- read, get, write ---- */

static void single_answered(struct connection *connection, void *arg)
{
    struct loop *loop = arg;

    tally_answer(loop->load, &loop->tally, connection);
    loop->answer_bytes = (double) connection->body_bytes;
    next_vm(loop, connection);
    again(loop, connection);
}

static void read_ask(struct loop *loop, struct connection *connection)
{
    call_begin(connection->client, "VM.get_power_state");
    call_text(connection->client, loop->load->vms[connection->at].ref);
    call_send(connection);
}

static void write_ask(struct loop *loop, struct connection *connection)
{
    char text[64];

    snprintf(text, sizeof text, "write %llx-%llu", (unsigned long long) loop->load->run,
             (unsigned long long) ++loop->number);
    call_begin(connection->client, "VM.set_name_description");
    call_text(connection->client, loop->load->vms[connection->at].ref);
    call_text(connection->client, text);
    call_send(connection);
}

static void single(struct load *load, void (*ask)(struct loop *, struct connection *))
{
    struct client client = {.answered = single_answered};
    struct loop *loop = new0(struct loop);

    *loop = (struct loop){.load = load, .stride = load->connections, .ask = ask};
    pool_open(load, &client, load->connections);
    pool_find(load, &client, "any");
    client.answered = single_answered;
    run(load, &client, loop);
    report(load, loop);
    report_end(load);
    client.is_stopped = false;
    pool_close(&client);
    free(loop);
}

void load_read(struct load *load)
{
    single(load, read_ask);
}

void load_write(struct load *load)
{
    single(load, write_ask);
}

static void get_ask(struct loop *loop, struct connection *connection)
{
    (void) loop;
    get_send(connection);
}

static void get_answered(struct connection *connection, void *arg)
{
    struct loop *loop = arg;

    if (connection->status != 200)
        errx(1, "the yardstick answers HTTP %d", connection->status);
    if (loop->load->is_counting)
        histogram_add(&loop->tally.latency, now_ns() - connection->sent_ns);
    loop->answer_bytes = (double) connection->body_bytes;
    again(loop, connection);
}

void load_get(struct load *load)
{
    struct client client = {.answered = get_answered};
    struct loop *loop = new0(struct loop);

    *loop = (struct loop){.load = load, .ask = get_ask};
    client_open(&client, load->url, load->connections);
    run(load, &client, loop);
    report(load, loop);
    report_end(load);
    client_close(&client);
    free(loop);
}

/* ---- lifecycle: start and shut down in turns ---- */

static void lifecycle_ask(struct loop *loop, struct connection *connection)
{
    struct vm *vm = &loop->load->vms[connection->at];

    connection->step = vm->is_running;
    call_begin(connection->client, vm->is_running ? "VM.hard_shutdown" : "VM.start");
    call_text(connection->client, vm->ref);
    if (!vm->is_running) {
        call_bool(connection->client, false);
        call_bool(connection->client, false);
    }
    call_send(connection);
}

static void lifecycle_answered(struct connection *connection, void *arg)
{
    struct loop *loop = arg;
    struct vm *vm = &loop->load->vms[connection->at];
    char code[64];
    const char *failure = answer_failure(connection, code, sizeof code);

    tally_answer(loop->load, &loop->tally, connection);
    tally_answer(loop->load, &loop->kinds[connection->step], connection);
    /* After a failure it may be either; a wrong guess costs one more failure that says so. */
    if (!failure || streq(failure, "VM_BAD_POWER_STATE"))
        vm->is_running = !vm->is_running;
    if (failure || !vm->is_running)
        next_vm(loop, connection);
    again(loop, connection);
}

void load_lifecycle(struct load *load)
{
    struct client client = {0};
    struct loop *loop = new0(struct loop);

    *loop = (struct loop){.load = load, .stride = load->connections, .ask = lifecycle_ask};
    pool_open(load, &client, load->connections);
    pool_find(load, &client, "any");
    if (load->vm_count < load->connections)
        errx(1, "%zu VMs are too few for %u connections", load->vm_count, load->connections);
    pool_tune(load, &client);
    client.answered = lifecycle_answered;
    run(load, &client, loop);
    report(load, loop);
    report_tally(load, "start_", &loop->kinds[0]);
    report_tally(load, "shutdown_", &loop->kinds[1]);
    report_number(load, "hosts", (double) load->host_count);
    report_end(load);
    client.is_stopped = false;
    pool_close(&client);
    free(loop);
}

/* ---- migrate ---- */

static uint64_t draw(struct loop *loop)
{
    loop->random ^= loop->random << 13;
    loop->random ^= loop->random >> 7;
    loop->random ^= loop->random << 17;
    return loop->random;
}

/* Of two drawn hosts the emptier one; so no host is filled up by chance. */
static int destination(struct loop *loop, int source)
{
    size_t count = loop->load->host_count;
    int a, b;

    do
        a = (int) (draw(loop) % count);
    while (a == source);
    do
        b = (int) (draw(loop) % count);
    while (b == source);
    return loop->host_vms[a] <= loop->host_vms[b] ? a : b;
}

enum { MIGRATE_MOVE, MIGRATE_LOOK };

static void migrate_ask(struct loop *loop, struct connection *connection)
{
    struct load *load = loop->load;
    struct vm *vm = &load->vms[connection->at];

    if (connection->step == MIGRATE_LOOK) { /* after a failure: where is it? */
        call_begin(connection->client, "VM.get_record");
        call_text(connection->client, vm->ref);
        call_send(connection);
        return;
    }
    if (vm->host >= 0)
        loop->host_vms[vm->host]--;
    vm->host = destination(loop, vm->host);
    loop->host_vms[vm->host]++;
    call_begin(connection->client, "VM.pool_migrate");
    call_text(connection->client, vm->ref);
    call_text(connection->client, load->hosts[vm->host]);
    call_xml(connection->client, "<struct><member><name>live</name><value>true</value></member></struct>");
    call_send(connection);
}

static void look(struct loop *loop, struct connection *connection)
{
    struct load *load = loop->load;
    struct vm *vm = &load->vms[connection->at];
    char ref[REF_BYTES];

    loop->host_vms[vm->host]--;
    vm->host = -1;
    if (answer_value(connection, "<name>resident_on</name>", ref, sizeof ref))
        for (size_t i = 0; i < load->host_count; i++)
            if (streq(load->hosts[i], ref))
                vm->host = (int) i;
    if (vm->host >= 0)
        loop->host_vms[vm->host]++;
}

static void migrate_answered(struct connection *connection, void *arg)
{
    struct loop *loop = arg;

    if (connection->step == MIGRATE_LOOK) {
        look(loop, connection);
        connection->step = MIGRATE_MOVE;
        next_vm(loop, connection);
    } else if (tally_answer(loop->load, &loop->tally, connection)) {
        next_vm(loop, connection);
    } else {
        connection->step = MIGRATE_LOOK;
    }
    again(loop, connection);
}

void load_migrate(struct load *load)
{
    struct client client = {0};
    struct loop *loop = new0(struct loop);

    *loop = (struct loop){.load = load, .random = 88172645463325252ULL, .ask = migrate_ask};
    pool_open(load, &client, load->connections);
    pool_find(load, &client, "running");
    if (load->host_count < 2)
        errx(1, "a pool of one host has nowhere to move a VM to");
    if (load->vm_count < load->connections)
        errx(1, "%zu running VMs are too few for %u moves at once", load->vm_count, load->connections);
    loop->stride = load->connections;
    loop->host_vms = new0_array(unsigned, load->host_count);
    for (size_t i = 0; i < load->vm_count; i++)
        if (load->vms[i].host >= 0)
            loop->host_vms[load->vms[i].host]++;
    client.answered = migrate_answered;
    client.keep_max = 64 * 1024;
    for (unsigned i = 0; i < client.count; i++)
        client.connections[i].step = MIGRATE_MOVE;
    run(load, &client, loop);
    report(load, loop);
    report_number(load, "hosts", (double) load->host_count);
    report_end(load);
    client.is_stopped = false;
    pool_close(&client);
    free(loop->host_vms);
    free(loop);
}
