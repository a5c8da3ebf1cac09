/* load_records.c - one large answer, again and again, while another connection makes single writes
 *
 *   connection 0   VM.get_all_records: time to the first and to the last byte
 *   connection 1   VM.set_name_description, one after the other: first alone, for comparison, then meanwhile
 *
 * Both are read by the same thread, which does nothing with the records but count their bytes; still, a write that is answered
 * while some hundred KiB of records are being taken from the kernel waits for that, some tens of microseconds. */
#include <stdio.h>

#include "tests/bench/load.h"

#define ALONE_S 2

enum { READER, WRITER, CONNECTIONS };

struct records {
    struct load *load;
    struct tally answers, alone, meanwhile;
    struct histogram first_byte;
    double answer_bytes;
    uint64_t number;
    bool is_alone;
};

static void ask_records(struct client *client)
{
    call_begin(client, "VM.get_all_records");
    call_send(&client->connections[READER]);
}

static void ask_write(struct records *records, struct client *client)
{
    char text[64];

    snprintf(text, sizeof text, "meanwhile %llx-%llu", (unsigned long long) records->load->run,
             (unsigned long long) ++records->number);
    call_begin(client, "VM.set_name_description");
    call_text(client, records->load->vms[records->number % records->load->vm_count].ref);
    call_text(client, text);
    call_send(&client->connections[WRITER]);
}

static void answered(struct connection *connection, void *arg)
{
    struct records *records = arg;
    struct client *client = connection->client;

    if (connection->number == READER) {
        if (tally_answer(records->load, &records->answers, connection) && records->load->is_counting)
            histogram_add(&records->first_byte, connection->first_ns - connection->sent_ns);
        records->answer_bytes = (double) connection->body_bytes;
        if (!client->is_stopped)
            ask_records(client);
    } else {
        tally_answer(records->load, records->is_alone ? &records->alone : &records->meanwhile, connection);
        if (!client->is_stopped)
            ask_write(records, client);
    }
}

static void measure_alone(struct records *records, struct client *client)
{
    records->is_alone = true;
    ask_write(records, client);
    client_run(client, now_ns() + (uint64_t) (records->load->warm_up_s * 1e9));
    records->load->is_counting = true;
    client_run(client, now_ns() + ALONE_S * 1000000000ULL);
    records->load->is_counting = false;
    records->is_alone = false;
}

static void report(struct load *load, struct records *records, uint64_t rss_before)
{
    double mean_s = records->answers.latency.count > 0
                        ? (double) records->answers.latency.sum / (double) records->answers.latency.count / 1e9
                        : 0;

    report_begin(load);
    report_tally(load, "", &records->answers);
    report_latency(load, "first_byte_", &records->first_byte);
    report_tally(load, "write_", &records->meanwhile);
    report_latency(load, "alone_", &records->alone.latency);
    report_number(load, "answer_bytes", records->answer_bytes);
    report_number(load, "mb_per_s", mean_s > 0 ? records->answer_bytes / mean_s / 1e6 : 0);
    report_number(load, "rss_before_bytes", (double) rss_before);
    report_number(load, "rss_most_bytes", load->pid ? (double) rss_most((int) load->pid) : 0);
    report_watch(load);
    report_end(load);
}

void load_records(struct load *load)
{
    struct client client = {0};
    struct records *records = new0(struct records);
    uint64_t rss_before = 0;

    records->load = load;
    load->connections = CONNECTIONS;
    load->vms_max = load->vms_max ? load->vms_max : 64;
    pool_open(load, &client, CONNECTIONS);
    pool_find(load, &client, "any");
    client.answered = answered;
    client.arg = records;
    measure_alone(records, &client);
    if (load->pid) {
        rss_reset((int) load->pid);
        rss_before = rss_now((int) load->pid);
    }
    load->least = &records->answers;
    ask_records(&client);
    load_measure(load, &client);
    report(load, records, rss_before);
    client.is_stopped = false;
    pool_close(&client);
    free(records);
}
