/* agent_link.c - the link to the master
 *
 *        hello (number n) ------------->
 *   wait                                 checks, remembers n as this host's link
 *        <-------------- welcome (n), epoch, holder
 *   up   calls, asks, confirms, acks, beats with n and 1, 2, 3 ...
 *        replies, answers, notes, beats with n and 1, 2, 3 ...
 *
 * Frames of one direction are numbered without gaps. A number seen before is a frame that was doubled or delayed, and is
 * dropped; a number too high means that one was lost, and then this link is over: a new hello opens the next, and both
 * ends find out by asking what the lost frames would have told. Beats are numbered too, so a loss is noticed within a
 * second. Link numbers rise for ever (start of the agent, hello of that start), so frames of older links are known as such.
 *
 * Notes wait here until the master has acknowledged them, across links; they have numbers of their own. */
#include <stdio.h>

#include "shared/buffer.h"
#include "shared/clock.h"
#include "shared/crash.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "shared/pack.h"
#include "shared/wire.h"
#include "slave/accounts.h"
#include "slave/agent.h"
#include "slave/ledger.h"
#include "slave/standing.h"
#include "slave/transfer.h"
#include "slave/vms.h"

#define BEAT_MS           1000
#define HELLO_AGAIN_MS    100   /* at first; doubles while nobody answers, up to */
#define HELLO_AGAIN_MAX   2000
#define REFUSED_AGAIN_MS  5000  /* after a master that we may not follow */

/* More than these, and the state of the guests is told anew by a hello instead: what is lost by that are samples. */
#define NOTES_MAX         10000

enum link_state {
    LINK_NONE,    /* no master known */
    LINK_HELLO,   /* said, not answered */
    LINK_UP,
};

struct note {
    struct note *next;
    uint64_t number;
    char name[32];
    ref_t vm;
    uint64_t vm_epoch;
    bool is_latest;
    void *body;          /* packed */
    size_t body_bytes;
};

struct agent_link {
    struct agent *agent;
    enum link_state state;
    uint64_t number;             /* of the last hello */
    uint32_t hellos;             /* of this start of the agent */
    uint64_t sent, taken;        /* numbers of frames on this link */
    uint64_t heard_ms;           /* last frame of this link */
    uint64_t again_ms;           /* until the next hello, if there is no answer */
    uint64_t generation;         /* the newest durable one that the master of the ledger's epoch has told */
    bool must_sync;              /* whom we follow is not in the file yet */
    struct timer hello_timer, beat_timer;
    char endpoint[256], key[LINK_KEY_BYTES];
    struct note *notes, **notes_end;
    size_t note_count;
    uint32_t note_last;
};

static void say_hello(void *arg);

static void hello_in(struct agent_link *link, uint64_t delay_ms)
{
    link->state = LINK_HELLO;
    timer_stop(&link->beat_timer);
    timer_start(link->agent->loop, &link->hello_timer, delay_ms, say_hello, link);
}

static void link_over(struct agent_link *link, const char *why)
{
    if (link->state != LINK_UP)
        return;
    log_warning(NULL, "link %llu to the master is over: %s", (unsigned long long) link->number, why);
    standing_put_silent(link->agent->config.standing);
    link->again_ms = HELLO_AGAIN_MS;
    hello_in(link, 0);
}

/* ---- sending ---- */

static void send_frame(struct agent_link *link, struct wire_frame *frame)
{
    struct link_transport *transport = link->agent->transport;
    struct buffer bytes;
    bool was_sent;

    buffer_init(&bytes, LINK_FRAME_BYTES_MAX);
    frame->link = link->number;
    wire_encode(frame, &bytes);
    was_sent = !bytes.is_full && transport->send(transport, link->key, bytes.bytes, bytes.length);
    buffer_done(&bytes);
    if (!was_sent)
        link_over(link, "the queue to the master is full");
}

/* The next frame of this link. Dropped when there is none: who waits for it will ask. */
static void send_next(struct agent_link *link, struct wire_frame *frame)
{
    if (link->state != LINK_UP)
        return;
    frame->seq = ++link->sent;
    send_frame(link, frame);
}

static bool has_outcome(struct wire_frame *frame, struct arena *arena, const void *outcome, size_t bytes)
{
    struct value set;

    if (unpack_value(outcome, bytes, NULL, arena, &set) < 0 || set.kind != KIND_SET || set.length != 3)
        return false;
    if (set.items[0].kind == KIND_STRING) {
        frame->code = set.items[0].text;
        frame->params = set.items[1];
    } else {
        frame->body = set.items[2];
    }
    return true;
}

void agent_link_lose(struct agent *agent, bool was_received)
{
    if (was_received)
        agent->link->taken--;
    else
        agent->link->sent++;
}

void agent_link_reply(struct agent *agent, ref_t id, const void *outcome, size_t bytes)
{
    struct arena *arena = arena_new();
    struct wire_frame frame = {.type = WIRE_REPLY, .id = id};

    if (!has_outcome(&frame, arena, outcome, bytes))
        die("agent: an outcome that was packed here cannot be read");
    send_next(agent->link, &frame);
    arena_destroy(&arena);
}

void agent_link_answer(struct agent *agent, ref_t id, const char *state, const void *outcome, size_t bytes)
{
    struct arena *arena = arena_new();
    struct wire_frame frame = {.type = WIRE_ANSWER, .id = id, .state = state};

    if (outcome && !has_outcome(&frame, arena, outcome, bytes))
        die("agent: an outcome that was packed here cannot be read");
    if (CRASH_POINT("slave.answer.before"))
        agent->link->sent++; /* as if it had been lost on its way */
    else
        send_next(agent->link, &frame);
    CRASH_POINT("slave.answer.after");
    arena_destroy(&arena);
}

static void send_note(struct agent_link *link, const struct note *note)
{
    bool is_transfer = streq(note->name, "transfer"); /* which a test tells from those that come all the time */
    struct arena *arena = arena_new();
    struct wire_frame frame = {
        .type = WIRE_NOTE,
        .number = note->number,
        .name = note->name,
        .vm = note->vm,
        .vm_epoch = note->vm_epoch,
    };

    if (unpack_value(note->body, note->body_bytes, NULL, arena, &frame.body) < 0)
        die("agent: a note that was packed here cannot be read");
    if (CRASH_POINT("slave.note.before") || (is_transfer && CRASH_POINT("slave.transfer.note.before")))
        link->sent++;
    else
        send_next(link, &frame);
    CRASH_POINT("slave.note.after");
    if (is_transfer)
        CRASH_POINT("slave.transfer.note.after");
    arena_destroy(&arena);
}

/* ---- notes ---- */

static void note_remove(struct agent_link *link, struct note **at)
{
    struct note *note = *at;

    *at = note->next;
    if (!*at)
        link->notes_end = at;
    link->note_count--;
    free(note->body);
    free(note);
}

static void notes_drop_until(struct agent_link *link, uint64_t number)
{
    while (link->notes && link->notes->number <= number)
        note_remove(link, &link->notes);
}

void agent_note(struct agent *agent, const char *name, ref_t vm, uint64_t vm_epoch, const struct value *body,
                bool is_latest)
{
    struct agent_link *link = agent->link;
    struct note *note = new0(struct note);
    struct buffer bytes;

    for (struct note **at = &link->notes; is_latest && *at;) {
        if ((*at)->is_latest && streq((*at)->name, name) && ref_equal((*at)->vm, vm))
            note_remove(link, at);
        else
            at = &(*at)->next;
    }
    if (link->note_count >= NOTES_MAX) {
        notes_drop_until(link, UINT64_MAX);
        link_over(link, "too many notes were not acknowledged; what runs is told anew");
    }
    buffer_init(&bytes, LINK_FRAME_BYTES_MAX - 4096);
    pack_value(&bytes, body);
    assert(!bytes.is_full);
    note->number = agent->start_number << 32 | ++link->note_last;
    snprintf(note->name, sizeof note->name, "%s", name);
    note->vm = vm;
    note->vm_epoch = vm_epoch;
    note->is_latest = is_latest;
    note->body = buffer_take(&bytes, &note->body_bytes);
    *link->notes_end = note;
    link->notes_end = &note->next;
    link->note_count++;
    if (link->state == LINK_UP)
        send_note(link, note);
}

/* ---- hello and beats ---- */

static void send_hello(struct agent_link *link)
{
    struct agent *agent = link->agent;
    struct arena *arena = arena_new();
    struct wire_frame frame = {.type = WIRE_HELLO, .host = agent->host, .version = WIRE_VERSION};
    struct value *ids = arena_alloc_array(arena, ledger_op_count(agent->ledger), sizeof *ids);
    const struct ledger_op *op;
    const char *pool = ledger_meta(agent->ledger, "pool", "");
    uint32_t id_count = 0;

    link->number = agent->start_number << 32 | ++link->hellos;
    link->sent = link->taken = 0;
    for (size_t at = 0; (op = ledger_each_op(agent->ledger, &at));)
        if (!refmap_get(&agent->running, op->id))
            ids[id_count++] = VALUE_REF(op->id);
    frame.epoch = ledger_epoch(agent->ledger);
    frame.holder = ledger_holder(agent->ledger);
    frame.generation = link->generation;
    frame.key = ledger_meta(agent->ledger, "epoch_key", NULL);
    (void) uuid_parse(pool, strlen(pool), &frame.pool);
    frame.about = agent_about(agent, arena);
    frame.guests = vms_report(agent, arena);
    frame.operations = VALUE_SET(id_count, ids);
    log_debug(NULL, "hello, link %llu", (unsigned long long) link->number);
    hello_in(link, link->again_ms);
    link->again_ms = MIN(2 * link->again_ms, (uint64_t) HELLO_AGAIN_MAX);
    if (!CRASH_POINT("slave.hello.before"))
        send_frame(link, &frame);
    CRASH_POINT("slave.hello.after");
    arena_destroy(&arena);
}

static void sync_main(void *arg)
{
    struct agent_link *link = arg;
    uint64_t epoch = ledger_epoch(link->agent->ledger);

    ledger_sync(link->agent->ledger);
    if (epoch == ledger_epoch(link->agent->ledger))
        link->must_sync = false;
}

/* What hello says about whom we follow must stay true: a master that may lack what others have ordered builds on it. */
static void hello_main(void *arg)
{
    struct agent_link *link = arg;

    sync_main(link);
    if (link->state == LINK_HELLO && !link->must_sync)
        send_hello(link);
}

/* Has nothing been heard of the master, on whatever link? Then it may have given this host up, and what its transfers hold. */
static bool notice_silence(struct agent_link *link)
{
    struct agent *agent = link->agent;

    if (clock_now_ms(agent->clock) < link->heard_ms + agent->config.master_dead_ms)
        return false;
    if (agent->transfers)
        transfers_follow(agent->transfers, 0);
    return true;
}

static void say_hello(void *arg)
{
    struct agent_link *link = arg;

    (void) notice_silence(link);
    if (!link->must_sync) {
        send_hello(link);
        return;
    }
    hello_in(link, link->again_ms); /* if there is no fiber now */
    (void) fiber_spawn(link->agent->loop, hello_main, link, "hello");
}

static void beat(void *arg)
{
    struct agent_link *link = arg;
    struct agent *agent = link->agent;
    struct wire_frame frame = {.type = WIRE_BEAT};

    if (notice_silence(link)) {
        link_over(link, "nothing was heard of the master");
        return;
    }
    timer_start(agent->loop, &link->beat_timer, BEAT_MS, beat, link);
    send_next(link, &frame);
    if (agent->transfers) /* again and again: it may give one up right after it has heard that it is there */
        transfers_follow(agent->transfers, ledger_epoch(agent->ledger));
}

static void refuse(struct agent_link *link, uint64_t epoch, const char *text)
{
    struct wire_frame frame = {.type = WIRE_REFUSE,
                               .epoch = ledger_epoch(link->agent->ledger),
                               .holder = ledger_holder(link->agent->ledger),
                               .text = text};

    log_warning(NULL, "refused a master of epoch %llu: %s", (unsigned long long) epoch, text);
    send_frame(link, &frame);
}

void agent_link_remember(struct agent *agent)
{
    ledger_put_meta_number(agent->ledger, "generation", agent->link->generation);
}

/* Remembered before the first effect of its calls: what an operation writes down goes to the file behind this. */
static bool follow(struct agent_link *link, const struct wire_frame *frame)
{
    struct ledger *ledger = link->agent->ledger;
    bool is_another = frame->epoch > ledger_epoch(ledger);

    if (!ledger_may_follow(ledger, frame->epoch, frame->holder)) {
        refuse(link, frame->epoch,
               frame->epoch < ledger_epoch(ledger) ? "a higher epoch is known here" : "another holder has this epoch");
        return false;
    }
    if (is_another) {
        link->must_sync = true;
        link->generation = 0;
        ledger_put_meta(ledger, "epoch_key", link->key);
        agent_link_remember(link->agent);
    }
    ledger_follow(ledger, frame->epoch, frame->holder);
    if (is_another && link->agent->transfers)
        transfers_follow(link->agent->transfers, frame->epoch);
    return true;
}

static void welcomed(struct agent_link *link, const struct wire_frame *frame)
{
    struct agent *agent = link->agent;
    char text[UUID_TEXT_BYTES];

    if (link->state != LINK_HELLO || frame->link != link->number)
        return;
    if (!follow(link, frame)) {
        hello_in(link, REFUSED_AGAIN_MS);
        return;
    }
    if (agent->transfers)
        transfers_follow(agent->transfers, frame->epoch); /* it may have given some up while there was no link */
    link->state = LINK_UP;
    standing_put_master(agent->config.standing, frame->address);
    link->heard_ms = clock_now_ms(agent->clock);
    link->again_ms = HELLO_AGAIN_MS;
    timer_stop(&link->hello_timer);
    log_info(NULL, "link %llu stands, the master's epoch is %llu", (unsigned long long) link->number,
             (unsigned long long) frame->epoch);
    ledger_put_meta(agent->ledger, "master_endpoint", link->endpoint);
    ledger_put_meta(agent->ledger, "master_key", link->key);
    if (!ref_is_null(frame->pool))
        ledger_put_meta(agent->ledger, "pool", uuid_print(text, frame->pool));
    (void) fiber_spawn(agent->loop, sync_main, link, "ledger"); /* if not now, with the next operation */
    timer_start(agent->loop, &link->beat_timer, BEAT_MS, beat, link);
    for (struct note *note = link->notes, *next; note && link->state == LINK_UP; note = next) {
        next = note->next;
        send_note(link, note);
    }
}

/* ---- receiving ---- */

static void take_hosts(struct agent *agent, const struct value *hosts)
{
    if (hosts->kind != KIND_MAP)
        return;
    for (uint32_t i = 0; i < hosts->length; i++) {
        const struct value *host = &hosts->items[2 * i], *text = &hosts->items[2 * i + 1];

        if (host->kind == KIND_STRING && host->length < UUID_TEXT_BYTES && text->kind == KIND_STRING)
            ledger_put_peer(agent->ledger, host->text, text->text);
    }
}

/* In the file soon, since a password that was changed is not to be right again after our end. */
static void directory(struct agent_link *link, const struct wire_frame *frame)
{
    take_hosts(link->agent, &frame->body);
    accounts_put(link->agent->ledger, &frame->accounts);
    (void) fiber_spawn(link->agent->loop, sync_main, link, "ledger"); /* if not now, with the next operation */
}

/* A frame of the present link, in its turn. Takes the arena when it returns true. */
static bool take_frame(struct agent_link *link, const struct wire_frame *frame, struct arena *arena)
{
    struct agent *agent = link->agent;

    switch (frame->type) {
    case WIRE_CALL:
        agent_take_call(agent, arena, frame->id, frame->name, &frame->body,
                        clock_now_ms(agent->clock) + (uint64_t) frame->deadline_ms);
        return true;
    case WIRE_ASK:
        if (CRASH_POINT("slave.ask.before"))
            link->taken--; /* as if it had not come: the next frame shows it */
        else
            agent_take_ask(agent, frame->id);
        break;
    case WIRE_CONFIRM:
        if (CRASH_POINT("slave.confirm.before"))
            link->taken--;
        else
            agent_take_confirm(agent, &frame->operations);
        CRASH_POINT("slave.confirm.after");
        break;
    case WIRE_ACK:
        if (CRASH_POINT("slave.ack.before"))
            link->taken--;
        else
            notes_drop_until(link, frame->number);
        break;
    case WIRE_DIRECTORY:
        directory(link, frame);
        break;
    default: /* beat */
        link->generation = MAX(link->generation, frame->generation);
        break;
    }
    return false;
}

static bool is_master_frame(enum wire_type type)
{
    return type == WIRE_CALL || type == WIRE_ASK || type == WIRE_CONFIRM || type == WIRE_ACK || type == WIRE_DIRECTORY
           || type == WIRE_BEAT;
}

static void on_frame(void *arg, const char *key, const void *bytes, size_t count)
{
    struct agent_link *link = arg;
    struct arena *arena = arena_new();
    struct wire_frame frame;
    bool is_taken = false;

    if (link->state == LINK_NONE) {
        /* late word of a master that was left */
    } else if (!streq(key, link->key) || wire_decode(bytes, count, arena, &frame) < 0) {
        log_warning(NULL, "a frame that makes no sense came from %s", key);
    } else if (frame.type == WIRE_WELCOME) {
        if (!CRASH_POINT("slave.welcome.before"))
            welcomed(link, &frame);
    } else if (frame.type == WIRE_AGAIN) {
        if (frame.link == link->number && link->state == LINK_UP)
            link_over(link, frame.text ? frame.text : "the master says so");
    } else if (is_master_frame(frame.type) && link->state == LINK_UP && frame.link == link->number
               && frame.seq > link->taken) {
        if (frame.seq != link->taken + 1) {
            link_over(link, "a frame was lost");
        } else if (follow(link, &frame)) {
            link->taken = frame.seq;
            link->heard_ms = clock_now_ms(link->agent->clock);
            is_taken = take_frame(link, &frame, arena);
        }
    }
    if (!is_taken)
        arena_destroy(&arena);
}

static void on_down(void *arg, const char *key, const char *why)
{
    struct agent_link *link = arg;

    if (streq(key, link->key))
        link_over(link, why);
}

/* ---- set up ---- */

struct agent_link *agent_link_new(struct agent *agent)
{
    struct agent_link *link = new0(struct agent_link);

    link->agent = agent;
    link->notes_end = &link->notes;
    link->again_ms = HELLO_AGAIN_MS;
    link->generation = ledger_meta_number(agent->ledger, "generation");
    agent->transport->receiver = (struct link_receiver){on_frame, on_down, link};
    return link;
}

void agent_link_destroy(struct agent_link **link_p)
{
    struct agent_link *link = TAKE(*link_p);

    if (!link)
        return;
    link->agent->transport->receiver = (struct link_receiver){0};
    timer_stop(&link->hello_timer);
    timer_stop(&link->beat_timer);
    notes_drop_until(link, UINT64_MAX);
    free(link);
}

void agent_link_to(struct agent *agent, const char *endpoint, const char *key)
{
    struct agent_link *link = agent->link;

    if (streq(link->endpoint, endpoint) && streq(link->key, key) && link->state != LINK_NONE)
        return;
    snprintf(link->endpoint, sizeof link->endpoint, "%s", endpoint);
    snprintf(link->key, sizeof link->key, "%s", key);
    log_info(NULL, "the master is at %s", endpoint);
    agent->transport->connect(agent->transport, link->endpoint, link->key);
    link->again_ms = HELLO_AGAIN_MS;
    hello_in(link, 0);
}

void agent_link_leave(struct agent *agent)
{
    struct agent_link *link = agent->link;

    link_over(link, "another master is to be followed");
    timer_stop(&link->hello_timer);
    link->state = LINK_NONE;
    link->endpoint[0] = link->key[0] = '\0';
    agent->transport->connect(agent->transport, NULL, NULL);
    if (agent->transfers) /* what they hold may be somebody else's from now on */
        transfers_follow(agent->transfers, 0);
}

void agent_link_renew(struct agent *agent)
{
    struct agent_link *link = agent->link;

    if (link->state == LINK_NONE)
        return;
    link_over(link, "the network has changed");
    agent->transport->connect(agent->transport, NULL, NULL);
    agent->transport->connect(agent->transport, link->endpoint, link->key);
    link->again_ms = HELLO_AGAIN_MS;
    hello_in(link, 0);
}

uint64_t agent_link_number(const struct agent *agent)
{
    return agent->link->number;
}

void agent_link_tell_anew(struct agent *agent, const char *why)
{
    if (agent->link->state == LINK_UP)
        link_over(agent->link, why);
    else if (agent->link->state == LINK_HELLO)
        hello_in(agent->link, 0); /* what the last one said is old */
}

bool agent_is_linked(const struct agent *agent)
{
    return agent->link->state == LINK_UP;
}
