/* transfer.c - HTTP requests that carry VMs and disks: arrival, table, end */
#include "slave/transfer.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>

#include "shared/clock.h"
#include "shared/fiber.h"
#include "shared/http_pass.h"
#include "shared/http_query.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "shared/random.h"
#include "shared/workers.h"
#include "slave/ledger.h"
#include "slave/slave_front.h"
#include "slave/storage.h"
#include "slave/transfer_counts.h"
#include "slave/transfer_pipe.h"
#include "slave/transfer_rate.h"
#include "slave/transfer_upload.h"
#include "slave/xva_read.h"

/* For the master's word; it may have to wait itself for a VM that is busy, as clients of exports know. */
#define WAITING_MS    300000
#define PROGRESS_MS   1000
/* When there are more requests than may be, a client that has taken or sent less than this in so long gives way. That is
 * 51 KiB/s: so slow a transfer of some GiB would keep others waiting for a day. */
#define SLOW_MS       20000
#define SLOW_BYTES    ((int64_t) 1 << 20)
/* For what a transfer has asked of a disk when it is cut; the master asks again. */
#define ENDING_MS     20000
/* Of ova.xml of all imports, from its first byte until their disks begin, which is up to their clients: 16 of the largest. */
#define OVA_BYTES_MAX ((int64_t) 64 << 20)
/* From here on a length is no length: clients that do not know it say 2^50 and close early (npm xen-api). */
#define LENGTH_UNKNOWN_FROM ((int64_t) 1 << 50)
/* When the last transfer has been over for so long, what their buffers took goes back to the system; by itself malloc keeps it
 * (after 250 transfers at once some 650 MiB), and the next one to come soon is quicker for it. */
#define TRIM_MS             5000
#define TOO_MANY            "this host has as many transfers under way as its setting transfer_requests allows"

struct transfers {
    struct loop *loop;          /* the agent's */
    struct agent *agent;        /* NULL before there is one; its loop */
    struct workers *workers;
    struct transfer_rate *rate;
    struct places *places;
    unsigned requests_max;
    struct xva_budget ova;      /* what texts of ova.xml may still take */
    struct refmap table;        /* id -> struct transfer, the agent's loop */
    struct timer trim;          /* runs from when one has left the table */
    atomic_uint count;
    struct transfer_counts counts;
};

/* ---- one transfer ---- */

struct transfer *transfer_ref(struct transfer *transfer)
{
    atomic_fetch_add(&transfer->references, 1);
    return transfer;
}

void transfer_unref(struct transfer **transfer_p)
{
    struct transfer *transfer = TAKE(*transfer_p);

    if (!transfer || atomic_fetch_sub(&transfer->references, 1) > 1)
        return;
    xva_reader_destroy(&transfer->reader);
    upload_source_destroy(&transfer->source);
    pipe_unref(&transfer->pipe);
    pthread_mutex_destroy(&transfer->lock);
    arena_destroy(&transfer->arena);
    atomic_fetch_sub(&transfer->transfers->count, 1);
    free(transfer);
}

/* Whatever its codec does or waits for ends now. */
static void cancel(struct transfer *transfer)
{
    atomic_store(&transfer->is_cancelled, true);
    pthread_mutex_lock(&transfer->lock);
    if (transfer->pipe)
        pipe_cancel(transfer->pipe);
    pthread_mutex_unlock(&transfer->lock);
    place_lose(&transfer->place);
}

/* ---- answers, on the request's loop ---- */

static void cut(struct http_request *request, void *arg)
{
    struct transfer *transfer = arg;

    if (request)
        http_abort(request);
    transfer_unref(&transfer);
}

static void answer_cut(struct transfer *transfer)
{
    cancel(transfer);
    http_ticket_post(transfer->ticket, cut, transfer_ref(transfer));
}

struct refusal {
    struct transfer *transfer;
    int status;
    char *headers, *text, *redirect;
};

static void refuse(struct http_request *request, void *arg)
{
    struct refusal *refusal = arg;

    if (request && refusal->transfer->is_head_sent) {
        http_abort(request); /* 200 was said already */
    } else if (request && refusal->redirect) {
        http_redirect(request, refusal->redirect);
    } else if (request) {
        http_close_after(request); /* a body that comes is not wanted */
        http_reply_html(request, refusal->status, refusal->headers, refusal->text);
    }
    transfer_unref(&refusal->transfer);
    free(refusal->headers);
    free(refusal->text);
    free(refusal->redirect);
    free(refusal);
}

static void answer_refusal(struct transfer *transfer, int status, const char *headers, const char *text,
                           const char *redirect)
{
    struct refusal *refusal = new0(struct refusal);

    *refusal = (struct refusal){
        .transfer = transfer_ref(transfer),
        .status = status,
        .headers = dup_text(headers),
        .text = dup_text(text),
        .redirect = *redirect ? dup_text(redirect) : NULL,
    };
    http_ticket_post(transfer->ticket, refuse, refusal);
}

void transfer_answer(struct transfer *transfer, int status, const char *headers, const char *text)
{
    answer_refusal(transfer, status, headers, text, "");
}

static void end(struct http_request *request, void *arg)
{
    struct transfer *transfer = arg;

    if (request)
        http_reply(request, 200, transfer->task_header, NULL);
    transfer_unref(&transfer);
}

/* ---- the table, on the agent's loop ---- */

static void trim(void *arg)
{
    struct transfers *transfers = arg;

    if (transfers->table.count == 0)
        (void) malloc_trim(0);
}

/* Nothing comes after: it leaves the table, whose reference it was. */
static void forget(struct transfer *transfer)
{
    if (transfer->is_gone)
        return;
    transfer->is_gone = true;
    timer_stop(&transfer->waiting);
    refmap_take(&transfer->transfers->table, transfer->id);
    timer_start(transfer->transfers->loop, &transfer->transfers->trim, TRIM_MS, trim, transfer->transfers);
    transfer_unref(&transfer);
}

static void waited_in_vain(void *arg)
{
    struct transfer *transfer = transfer_ref(arg);

    log_warning(NULL, "the master has not said what a client's %s is to get", value_map_text(&transfer->asked, "path", ""));
    if (transfer->source) /* what came of it is not known, and nothing is said */
        answer_cut(transfer);
    else
        answer_refusal(transfer, 503, "", "the pool's master does not answer", "");
    forget(transfer);
    transfer_unref(&transfer);
}

/* The one that waits for the slowest client, if there is one that is slow at all. */
static struct transfer *find_slowest(const struct transfers *transfers)
{
    struct transfer *slowest = NULL;
    void *value;

    for (size_t at = 0; refmap_each(&transfers->table, &at, NULL, &value);) {
        struct transfer *transfer = value;

        if (transfer->op && !transfer->has_given_way && atomic_load(&transfer->place.waits_for_client)
            && transfer->slow_bytes >= 0 && transfer->slow_bytes < SLOW_BYTES
            && (!slowest || transfer->slow_bytes < slowest->slow_bytes))
            slowest = transfer;
    }
    return slowest;
}

/* Those that have been cut are as good as gone, though a disk may keep them. */
static unsigned count_there(const struct transfers *transfers)
{
    unsigned count = 0;
    void *value;

    for (size_t at = 0; refmap_each(&transfers->table, &at, NULL, &value);)
        count += !atomic_load(&((struct transfer *) value)->is_cancelled);
    return count;
}

/* May one more come? */
static bool make_room(struct transfers *transfers)
{
    struct transfer *slowest;

    if (transfers->table.count < transfers->requests_max || count_there(transfers) < transfers->requests_max)
        return true;
    slowest = find_slowest(transfers);
    if (!slowest)
        return false;
    log_warning(NULL, "a client's %s gives way to others: it moved %lld bytes in %d s", value_map_text(&slowest->asked, "path", ""),
                (long long) slowest->slow_bytes, SLOW_MS / 1000);
    slowest->has_given_way = true;
    transfers->counts.gave_way++;
    answer_cut(slowest);
    return true;
}

/* The master may be waiting for what the client wanted: there is nobody to wait for. */
static void tell_gone(struct transfer *transfer)
{
    agent_note(transfer->transfers->agent, "transfer_gone", transfer->id, 0, &VALUE_EMPTY_MAP, true);
}

static void announce(void *arg)
{
    struct transfer *transfer = arg;
    struct transfers *transfers = transfer->transfers;
    struct agent *agent = transfers->agent;

    if (!agent || !agent_is_linked(agent)) {
        answer_refusal(transfer, 503, "Retry-After: 5\r\n", "this host has no link to the pool's master", "");
        transfer_unref(&transfer);
        return;
    }
    if (!transfer->is_gone && !make_room(transfers)) {
        transfer_count_refused(&transfers->counts, value_map_text(&transfer->asked, "path", ""),
                               value_map_text(&transfer->asked, "peer", ""), transfers->requests_max);
        answer_refusal(transfer, 503, "Retry-After: 5\r\n", TOO_MANY, "");
        transfer_unref(&transfer);
        return;
    }
    transfer->id = ref_new(agent->random);
    transfer->epoch = ledger_epoch(agent->ledger);
    if (!transfer->is_gone) {
        refmap_put(&transfers->table, transfer->id, transfer_ref(transfer));
        timer_start(transfers->loop, &transfer->waiting, WAITING_MS, waited_in_vain, transfer);
    }
    /* A client that has gone as soon as it came is told of, too: the task that it named is for the master to end.
     * The note is about no VM: its place names the transfer, so that notes of several do not replace each other. */
    agent_note(agent, "transfer", transfer->id, 0, &transfer->asked, false);
    if (transfer->is_gone)
        tell_gone(transfer);
    transfer_unref(&transfer);
}

static void client_gone(void *arg)
{
    struct transfer *transfer = arg;

    if (refmap_get(&transfer->transfers->table, transfer->id) == transfer && !transfer->op) {
        tell_gone(transfer);
        forget(transfer);
    } else if (!transfer->op) {
        transfer->is_gone = true;
    } else {
        transfer->has_left = true;
        cancel(transfer);
    }
    transfer_unref(&transfer);
}

void transfers_follow(struct transfers *transfers, uint64_t epoch)
{
    _cleanup_(free_p) struct transfer **list = new0_array(struct transfer *, transfers->table.count + 1);
    size_t count = 0;
    void *value;

    for (size_t at = 0; refmap_each(&transfers->table, &at, NULL, &value);) {
        struct transfer *transfer = value;

        if (transfer->epoch != epoch && !atomic_load(&transfer->is_cancelled))
            list[count++] = transfer_ref(transfer);
        else if (epoch)
            agent_note(transfers->agent, "transfer_there", transfer->id, 0, &VALUE_EMPTY_MAP, true);
    }
    for (size_t i = 0; i < count; i++) {
        log_info(NULL, "a transfer is cut: %s", epoch ? "another master has taken over" : "the master is silent");
        answer_cut(list[i]);
        if (!list[i]->op)
            forget(list[i]);
        transfer_unref(&list[i]);
    }
}

/* ---- arrival, on an HTTP loop ---- */

static void on_gone(struct http_request *request, void *arg)
{
    struct transfer *transfer = arg;

    (void) request;
    /* An upload may have all that it wants: clients that do not know its length close when they have sent it. Whether that is so
     * its reader finds out, now or when the master has made the disks that it reads into. */
    if (!transfer->is_let_through)
        loop_call(transfer->transfers->loop, client_gone, transfer_ref(transfer));
}

static void request_over(void *arg)
{
    struct transfer *transfer = arg;

    transfer_unref(&transfer);
}

struct asked {
    struct arena *arena;
    struct value *items;
    uint32_t pairs;
};

/* Texts that no record could hold are nobody's parameters. */
static bool ask(struct asked *asked, const char *key, const char *value)
{
    if (!value)
        return true;
    if (!text_is_xml(key, strlen(key)) || !text_is_xml(value, strlen(value)))
        return false;
    asked->items[2 * asked->pairs] = value_text(arena_strdup(asked->arena, key));
    asked->items[2 * asked->pairs + 1] = value_text(arena_strdup(asked->arena, value));
    asked->pairs++;
    return true;
}

/* What the master needs to know of the request: {method, path, length, peer, credentials ..., params: {...}}. */
static bool describe(struct transfer *transfer, struct http_request *http)
{
    struct arena *arena = transfer->arena;
    struct asked asked = {arena, arena_alloc_array(arena, 32, sizeof(struct value)), 0};
    struct http_origin origin;
    char *user = NULL, *password = NULL;
    struct value params = VALUE_EMPTY_MAP;
    bool is_good = http_query_map(http, arena, &params);

    http_origin_of(http, &origin);
    if (http_basic(http, &user, &password))
        is_good = is_good && ask(&asked, "user", user) && ask(&asked, "password", password);
    is_good = is_good && ask(&asked, "pool_secret", http_cookie(http, "pool_secret"));
    is_good = is_good && ask(&asked, "method", http->method_text) && ask(&asked, "path", http->path)
              && ask(&asked, "peer", origin.peer)
              && ask(&asked, "length", arena_text(arena, "%lld", http->has_body ? (long long) http->content_length : 0));
    if (origin.is_local)
        is_good = is_good && ask(&asked, "is_local_root", "true");
    asked.items[2 * asked.pairs] = value_text("params");
    asked.items[2 * asked.pairs + 1] = params;
    transfer->asked = VALUE_MAP(asked.pairs + 1, asked.items);
    free(user);
    free(password);
    return is_good;
}

static const char *header(struct transfer *transfer, struct http_request *http, const char *name)
{
    const char *value = http_header(http, name);

    return value ? arena_strdup(transfer->arena, value) : NULL;
}

static void arrive(struct http_request *http, void *arg)
{
    struct transfers *transfers = arg;
    struct transfer *transfer;

    /* The agent's loop decides who may stay; here it is seen to that not many wait for that. */
    if (atomic_fetch_add(&transfers->count, 1) >= 2 * transfers->requests_max) {
        atomic_fetch_sub(&transfers->count, 1);
        transfer_count_refused(&transfers->counts, http->path, http->peer, transfers->requests_max);
        http_close_after(http);
        http_reply_html(http, 503, "Retry-After: 5\r\n", TOO_MANY);
        return;
    }
    transfer = new0(struct transfer);
    atomic_store(&transfer->references, 1);
    transfer->transfers = transfers;
    transfer->place = (struct place){.places = transfers->places, .is_cancelled = &transfer->is_cancelled};
    pthread_mutex_init(&transfer->lock, NULL);
    transfer->arena = arena_new();
    transfer->is_head = http->method == HTTP_HEAD;
    transfer->is_upload = http->method == HTTP_PUT;
    transfer->is_open_ended = http->content_length >= LENGTH_UNKNOWN_FROM;
    transfer->range = header(transfer, http, "range");
    transfer->if_range = header(transfer, http, "if-range");
    transfer->if_match = header(transfer, http, "if-match");
    if (!describe(transfer, http)) {
        transfer_unref(&transfer);
        http_query_refuse(http);
        return;
    }
    http->user = transfer; /* the request's reference */
    http->user_destroy = request_over;
    transfer->ticket = http_park(http, on_gone, transfer);
    loop_call(transfers->loop, announce, transfer_ref(transfer));
}

/* ---- for the calls ---- */

static struct transfer *find(struct op *op, const char *id)
{
    struct transfers *transfers = op->agent->transfers;
    ref_t ref;

    return transfers && uuid_parse(id, strlen(id), &ref) ? refmap_get(&transfers->table, ref) : NULL;
}

/* Found, and nobody is at it. */
static struct transfer *wait_idle(struct op *op, const char *id)
{
    struct transfer *transfer;

    while ((transfer = find(op, id)) && transfer->op) {
        transfer_ref(transfer);
        waitq_wait(&transfer->idle, UINT64_MAX);
        transfer_unref(&transfer);
    }
    return transfer;
}

int transfer_take(struct op *op, const char *id, struct transfer **ret)
{
    struct transfer *transfer = wait_idle(op, id);

    if (!transfer)
        return op_fail(op, INTERNAL_ERROR, "the client's request is not there any more: it was closed, or the agent restarted");
    timer_stop(&transfer->waiting);
    transfer->op = op;
    *ret = transfer_ref(transfer);
    return 0;
}

void transfer_give(struct transfer **transfer_p, bool is_over)
{
    struct transfer *transfer = TAKE(*transfer_p);

    if (!transfer)
        return;
    transfer->op = NULL;
    waitq_wake_all(&transfer->idle);
    if (transfer->is_stuck)
        log_info(NULL, "a client's %s that had been cut is over: its disk has answered",
                 value_map_text(&transfer->asked, "path", ""));
    if (is_over || atomic_load(&transfer->is_cancelled))
        forget(transfer);
    else
        timer_start(transfer->transfers->loop, &transfer->waiting, WAITING_MS, waited_in_vain, transfer);
    transfer_unref(&transfer);
}

struct transfer_rate *transfer_rate_of(const struct transfer *transfer)
{
    return transfer->transfers->rate;
}

struct xva_budget *transfer_ova_budget(const struct transfer *transfer)
{
    return &transfer->transfers->ova;
}

/* ---- progress ---- */

struct reporting {
    struct op *op;
    struct transfer *transfer;
    struct timer timer;
    int64_t bytes_before; /* of the stream, when it was last told */
};

/* What went over its connection since this was last done. */
static void count_bytes(struct transfer *transfer)
{
    int64_t bytes = atomic_load(&transfer->figures.stream_bytes);
    struct transfer_counts *counts = &transfer->transfers->counts;

    *(transfer->is_upload ? &counts->received_bytes : &counts->sent_bytes) += (uint64_t) (bytes - transfer->counted_bytes);
    transfer->counted_bytes = bytes;
}

/* How far it is, and how fast it was in the last so many milliseconds, since it had bytes_before. */
static void tell(struct reporting *reporting, int64_t bytes_before, uint64_t ms)
{
    struct transfer_figures *figures = &reporting->transfer->figures;
    int64_t bytes = atomic_load(&figures->stream_bytes), total = atomic_load(&figures->disk_bytes_total);
    struct value items[6] = {
        value_text("share"), VALUE_FLOAT(total > 0 ? (double) atomic_load(&figures->disk_bytes_done) / (double) total : 0),
        value_text("bytes"), VALUE_INT(bytes),
        value_text("bytes_per_s"), VALUE_INT((bytes - bytes_before) * 1000 / (int64_t) MAX(ms, (uint64_t) 1)),
    };
    struct value body = VALUE_MAP(3, items);

    reporting->bytes_before = bytes;
    count_bytes(reporting->transfer);
    agent_note(reporting->op->agent, "transfer_progress", reporting->transfer->id, 0, &body, true);
}

static void window_begin(struct transfer *transfer, uint64_t now_ms)
{
    transfer->window_ms = now_ms;
    transfer->window_bytes = atomic_load(&transfer->figures.stream_bytes);
}

static void report(void *arg)
{
    struct reporting *reporting = arg;
    struct transfer *transfer = reporting->transfer;
    uint64_t now_ms = loop_now_ms(reporting->op->agent->loop);

    if (now_ms - transfer->window_ms >= SLOW_MS) {
        transfer->slow_bytes = atomic_load(&transfer->figures.stream_bytes) - transfer->window_bytes;
        window_begin(transfer, now_ms);
    }
    tell(reporting, reporting->bytes_before, PROGRESS_MS);
    timer_start(reporting->op->agent->loop, &reporting->timer, PROGRESS_MS, report, reporting);
}

struct job {
    struct transfer *transfer;
    void (*fn)(void *arg);
    void *arg;
    int result; /* -ECANCELED: there was no place for it before it was called off */
};

static void run_job(void *arg)
{
    struct job *job = arg;

    job->result = place_take(&job->transfer->place);
    if (job->result == 0)
        job->fn(job->arg);
    place_give(&job->transfer->place);
}

int transfer_work(struct op *op, struct transfer *transfer, void (*fn)(void *arg), void *arg)
{
    struct reporting reporting = {.op = op, .transfer = transfer};
    struct job job = {.transfer = transfer, .fn = fn, .arg = arg};
    int64_t bytes_before = atomic_load(&transfer->figures.stream_bytes);
    uint64_t begun_ms = loop_now_ms(op->agent->loop);

    op_write_down(op);
    reporting.bytes_before = bytes_before;
    transfer->slow_bytes = -1;
    window_begin(transfer, begun_ms);
    timer_start(op->agent->loop, &reporting.timer, PROGRESS_MS, report, &reporting);
    workers_run(transfer->transfers->workers, run_job, &job);
    timer_stop(&reporting.timer);
    if (job.result < 0)
        return transfer_failed(transfer, job.result, "", streq(value_map_text(&transfer->asked, "method", ""), "PUT"));
    tell(&reporting, bytes_before, loop_now_ms(op->agent->loop) - begun_ms); /* before the reply: what stays with the task */
    return 0;
}

int transfer_failed(struct transfer *transfer, int error, const char *text, bool is_import)
{
    struct op *op = transfer->op;

    if (error == -ECANCELED && transfer->has_left)
        error = -EPIPE;
    switch (error) {
    case -ECANCELED:
        return op_fail(op, INTERNAL_ERROR,
                       transfer->has_given_way ? "its client was the slowest of too many, and gave way to another"
                                               : "the transfer was called off");
    case -EPIPE:
        if (is_import)
            return op_fail(op, IMPORT_ERROR_PREMATURE_EOF);
        return op_fail(op, INTERNAL_ERROR, "the client has closed the connection before it had all");
    default:
        return op_fail(op, SR_BACKEND_FAILURE, op_text(op, "%d", -error), "", *text ? text : strerror(-error));
    }
}

int transfer_check_disk(struct op *op, const struct value *disk)
{
    const char *directory = value_map_text(disk, "sr_location", ""), *name = value_map_text(disk, "location", "");
    const char *format = value_map_text(disk, "format", "");

    if (directory[0] != '/' || !storage_name_is_good(name))
        return op_fail(op, VDI_LOCATION_MISSING, value_map_text(disk, "sr", ""), name);
    if (!streq(format, "raw") && !streq(format, "qcow2"))
        return op_fail(op, INVALID_VALUE, "format", format);
    return 0;
}

/* ---- the master's word ---- */

/* The request is answered like this; who has gone meanwhile does not hear it. */
int do_transfer_refuse(struct op *op, const struct slave_transfer_refuse_args *args, struct value *ret)
{
    struct transfer *transfer = find(op, args->transfer);

    (void) ret;
    if (!transfer || transfer->op)
        return 0;
    answer_refusal(transfer, (int) args->status, args->headers, args->text, args->redirect);
    forget(transfer);
    return 0;
}

static void tell_stuck(struct transfer *transfer)
{
    if (!transfer->is_stuck)
        log_warning(NULL, "a client's %s was cut, but a disk has not answered it for %d s: it is over when that does",
                    value_map_text(&transfer->asked, "path", ""), ENDING_MS / 1000);
    transfer->is_stuck = true;
}

/* Cut, and nothing of it is at work any more - unless a disk keeps it, for which the master waits better than we do: it asks again,
 * and nothing here waits for ever. */
int do_transfer_abort(struct op *op, const struct slave_transfer_abort_args *args, struct value *ret)
{
    uint64_t until_ms = MIN(op->deadline_ms, clock_now_ms(op->agent->clock) + ENDING_MS);
    struct transfer *transfer = find(op, args->transfer);
    int r = 0;

    (void) ret;
    if (!transfer)
        return 0;
    transfer_ref(transfer);
    answer_cut(transfer);
    while (transfer->op && r == 0)
        r = waitq_wait(&transfer->idle, until_ms);
    if (transfer->op) {
        tell_stuck(transfer);
        r = op_fail(op, INTERNAL_ERROR, "it was cut, but a disk does not answer it");
    } else {
        forget(transfer);
        r = 0;
    }
    transfer_unref(&transfer);
    return r;
}

/* An upload whose content has its meaning: the answer, begun early, ends. */
int do_transfer_end(struct op *op, const struct slave_transfer_end_args *args, struct value *ret)
{
    struct transfer *transfer = find(op, args->transfer);

    (void) ret;
    if (!transfer || transfer->op)
        return 0;
    http_ticket_post(transfer->ticket, end, transfer_ref(transfer));
    forget(transfer);
    return 0;
}

/* ---- figures ---- */

void transfers_figures(struct transfers *transfers, struct transfers_figures *ret)
{
    const struct transfer_counts *counts = &transfers->counts;
    void *value;

    *ret = (struct transfers_figures){
        .there = (unsigned) transfers->table.count,
        .at_work = places_held(transfers->places),
        .wait_for_place = places_waiting(transfers->places),
    };
    for (size_t at = 0; refmap_each(&transfers->table, &at, NULL, &value);) {
        struct transfer *transfer = value;

        ret->wait_for_client += atomic_load(&transfer->place.waits_for_client);
        count_bytes(transfer);
    }
    ret->refused = atomic_load(&counts->refused);
    ret->gave_way = counts->gave_way;
    ret->sent_bytes = counts->sent_bytes;
    ret->received_bytes = counts->received_bytes;
}

/* ---- life ---- */

struct transfers *transfers_new(struct loop *loop, struct slave_front *front, const struct transfers_config *config)
{
    static const struct {
        enum http_method method;
        const char *path;
    } served[] = {
        {HTTP_GET, "/export"}, {HTTP_PUT, "/import"}, {HTTP_GET, "/export_raw_vdi"}, {HTTP_PUT, "/import_raw_vdi"},
    };
    struct transfers *transfers = new0(struct transfers);

    transfers->loop = loop;
    transfers->requests_max = config->requests_max;
    transfers->workers = workers_new(2 * config->requests_max, "transfer"); /* who gives way may take a moment to go */
    transfers->places = places_new(config->at_work_max);
    transfers->rate = transfer_rate_new(config->bytes_per_s);
    atomic_store(&transfers->ova.bytes_left, OVA_BYTES_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(served); i++)
        slave_front_add(front, served[i].method, served[i].path, arrive, transfers);
    return transfers;
}

void transfers_start(struct transfers *transfers, struct agent *agent)
{
    transfers->agent = agent;
    agent->transfers = transfers;
}

void transfers_destroy(struct transfers **transfers_p)
{
    struct transfers *transfers = TAKE(*transfers_p);
    void *value;

    if (!transfers)
        return;
    for (size_t at = 0; refmap_each(&transfers->table, &at, NULL, &value);)
        cancel(value);
    workers_destroy(&transfers->workers);
    for (size_t at = 0; refmap_each(&transfers->table, &at, NULL, &value);) {
        struct transfer *transfer = value;

        timer_stop(&transfer->waiting);
        transfer_unref(&transfer);
    }
    timer_stop(&transfers->trim);
    refmap_done(&transfers->table);
    transfer_rate_destroy(&transfers->rate);
    places_destroy(&transfers->places);
    free(transfers);
}
