/* agent.c - the agent's life, and operations: each a fiber, at most once, remembered
 *
 *   call --> known?  done: the same reply again       voided: refused
 *              |     running: nothing, its reply comes   interrupted by a restart: run again
 *              v
 *            do_x() looks, and decides
 *              v
 *            written down: begun    (fsync), and what do_x() has put so far: op_write_down(), before the first effect
 *            do_x()                 the effect
 *            written down: outcome  (fsync)
 *            reply ... confirm --> forgotten
 *
 * Nothing has an effect but the driver and the workers, so that what leads to these (DRIVE, op_work, transfer_work) writes down
 * first, and an operation waits for the disk as rarely as it can.
 *
 * An ask for an id that is not known voids it first, so that "never" stays true: a call that comes late is refused. */
#include "slave/agent.h"

#include <stdarg.h>
#include <stdio.h>

#include "shared/buffer.h"
#include "shared/clock.h"
#include "shared/crash.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "shared/pack.h"
#include "shared/random.h"
#include "shared/workers.h"
#include "slave/ledger.h"
#include "slave/work_in.h"
#include "slave/sockets.h"
#include "slave/vms.h"

/* Between questions to a driver that cannot yet say what runs. */
#define LIST_AGAIN_MS 100

/* ---- the table of calls ---- */

#define SLAVE_CALL(name, deadline_ms, effect, result, args)                                        \
    static int run_##name(struct op *op, const void *arguments, struct value *ret)                 \
    {                                                                                              \
        return do_##name(op, arguments, ret);                                                      \
    }
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL

static int (*const handlers[SLAVE_CALL_COUNT])(struct op *op, const void *arguments, struct value *ret) = {
#define SLAVE_CALL(name, deadline_ms, effect, result, args) run_##name,
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL
};

/* ---- for handlers ---- */

struct value op_map(struct op *op, const char *key, ...)
{
    struct value *items = arena_alloc_array(op->arena, 32, sizeof *items);
    uint32_t pairs = 0;
    va_list args;

    va_start(args, key);
    for (; key; key = va_arg(args, const char *)) {
        const char *text = va_arg(args, const char *);

        assert(pairs < 16 && text);
        items[2 * pairs] = value_text(arena_strdup(op->arena, key));
        items[2 * pairs + 1] = value_text(arena_strdup(op->arena, text));
        pairs++;
    }
    va_end(args);
    return VALUE_MAP(pairs, items);
}

const char *op_text(struct op *op, const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    text = arena_text_v(op->arena, format, args);
    va_end(args);
    return text;
}

void op_sync(struct op *op)
{
    bool is_first = !op->is_written_down;

    ledger_sync(op->agent->ledger);
    op->is_written_down = true;
    if (is_first)
        crash_call(CRASH_SLAVE_BEGUN, op->row->number);
}

void op_write_down(struct op *op)
{
    if (!op->is_written_down)
        op_sync(op);
}

void op_work(struct op *op, void (*fn)(void *arg), void *arg)
{
    op_write_down(op);
    workers_run(op->agent->workers, fn, arg);
}

/* ---- outcomes ---- */

static void pack_outcome(struct buffer *out, int result, const struct failure *failure, const struct value *ret)
{
    static const struct value nil = {.kind = KIND_NIL};

    pack_array(out, 3);
    if (result < 0) {
        pack_text(out, failure->text);
        pack_array(out, failure->count);
        for (unsigned i = 0; i < failure->count; i++)
            pack_text(out, failure->params[i]);
        pack_value(out, &nil);
    } else {
        pack_value(out, &nil);
        pack_value(out, &nil);
        pack_value(out, ret);
    }
}

static void op_free(struct op *op)
{
    struct arena *arena = op->arena;

    refmap_take(&op->agent->running, op->id);
    waitq_wake_all(&op->agent->op_ended);
    arena_destroy(&arena); /* the op itself is in it */
}

static int op_run(struct op *op, struct value *ret)
{
    void *args = arena_alloc(op->arena, op->row->shape.args_bytes);
    int r = slave_call_bind(op->row, &op->body, op->arena, args, &op->failure);

    if (r == 0)
        r = handlers[op->row->number](op, args, ret);
    assert(r == 0 || op->failure.code != 0);
    return r;
}

static void reply(struct op *op, const void *outcome, size_t bytes)
{
    if (crash_call(CRASH_SLAVE_REPLY_BEFORE, op->row->number))
        agent_link_lose(op->agent, false);
    else
        agent_link_reply(op->agent, op->id, outcome, bytes);
    crash_call(CRASH_SLAVE_REPLY_AFTER, op->row->number);
}

static void refuse_void(struct op *op)
{
    struct buffer outcome;
    int r = op_fail(op, INTERNAL_ERROR, "this operation was asked after before it came, and was voided");

    buffer_init(&outcome, LINK_FRAME_BYTES_MAX);
    pack_outcome(&outcome, r, &op->failure, NULL);
    reply(op, outcome.bytes, outcome.length);
    buffer_done(&outcome);
}

/* The fiber of one operation. */
static void op_main(void *arg)
{
    struct op *op = arg;
    struct ledger *ledger = op->agent->ledger;
    const struct ledger_op *known = op->row->has_effect ? ledger_op(ledger, op->id) : NULL;
    struct value ret = VALUE_EMPTY_MAP;
    struct buffer outcome;
    int r;

    fiber_set_log_tag(fiber_self(), op->id_text);
    if (known && known->state == OP_VOID) {
        refuse_void(op);
        op_free(op);
        return;
    }
    if (op->row->has_effect) {
        log_info(NULL, "%s%s", op->row->name, known ? ", again after a restart" : "");
        op->is_repeated = known;
        if (!known)
            ledger_op_begin(ledger, op->id, op->row->name);
        agent_link_remember(op->agent);
    }
    r = op_run(op, &ret);
    buffer_init(&outcome, LINK_FRAME_BYTES_MAX - 4096);
    pack_outcome(&outcome, r, &op->failure, &ret);
    if (outcome.is_full) {
        buffer_clear(&outcome);
        r = op_fail(op, INTERNAL_ERROR, "the answer is too large for one message");
        pack_outcome(&outcome, r, &op->failure, NULL);
    }
    if (op->row->has_effect) {
        crash_call(CRASH_SLAVE_EFFECT, op->row->number);
        ledger_op_end(ledger, op->id, outcome.bytes, outcome.length);
        ledger_sync(ledger);
        log_info(NULL, "%s: %s%s%s", op->row->name, r < 0 ? op->failure.text : "done",
                 r < 0 && op->failure.count ? " " : "",
                 r < 0 && op->failure.count ? op->failure.params[op->failure.count - 1] : "");
    }
    reply(op, outcome.bytes, outcome.length);
    buffer_done(&outcome);
    if (op->row->has_effect && op->epoch != ledger_epoch(ledger)) /* the master that is followed now need not know of it */
        agent_link_tell_anew(op->agent, "what another master had ordered was done since the hello");
    op_free(op);
}

static void refuse_at_once(struct agent *agent, ref_t id, const char *text)
{
    struct failure failure = {.text = "INTERNAL_ERROR", .count = 1, .params = {text}};
    struct buffer outcome;

    buffer_init(&outcome, 4096);
    pack_outcome(&outcome, -1, &failure, NULL);
    agent_link_reply(agent, id, outcome.bytes, outcome.length);
    buffer_done(&outcome);
}

/* Takes the arena, in which the body is. */
void agent_take_call(struct agent *agent, struct arena *arena, ref_t id, const char *name, const struct value *body,
                     uint64_t deadline_ms)
{
    const struct slave_call *row = slave_call_find(name);
    const struct ledger_op *known = ledger_op(agent->ledger, id);
    struct op *op;

    if (row && crash_call(CRASH_SLAVE_CALL_BEFORE, row->number)) {
        agent_link_lose(agent, true);
        arena_destroy(&arena);
    } else if (refmap_get(&agent->running, id)) {
        arena_destroy(&arena); /* its reply comes */
    } else if (!row) {
        refuse_at_once(agent, id, "this slave does not know the call");
        arena_destroy(&arena);
    } else if (known && known->state == OP_DONE) {
        agent_link_reply(agent, id, known->outcome, known->outcome_bytes);
        arena_destroy(&arena);
    } else {
        op = arena_new0(arena, struct op);
        *op = (struct op){
            .agent = agent,
            .arena = arena,
            .row = row,
            .id = id,
            .body = *body,
            .deadline_ms = deadline_ms,
            .link = agent_link_number(agent),
            .epoch = ledger_epoch(agent->ledger),
            .is_written_down = !row->has_effect,
        };
        uuid_print(op->id_text, id);
        refmap_put(&agent->running, id, op);
        if (!fiber_spawn(agent->loop, op_main, op, row->name)) {
            refuse_at_once(agent, id, "this host has too much to do");
            op_free(op);
        }
    }
}

/* ---- what became of it? ---- */

struct never {
    struct agent *agent;
    ref_t id;
};

static void never_main(void *arg)
{
    struct never *never = arg;

    ledger_sync(never->agent->ledger);
    agent_link_answer(never->agent, never->id, "never", NULL, 0);
    free(never);
}

void agent_take_ask(struct agent *agent, ref_t id)
{
    const struct ledger_op *known = ledger_op(agent->ledger, id);
    struct never *never;

    if (refmap_get(&agent->running, id)) {
        agent_link_answer(agent, id, "pending", NULL, 0);
    } else if (known && known->state == OP_DONE) {
        agent_link_answer(agent, id, "done", known->outcome, known->outcome_bytes);
    } else if (known && known->state == OP_BEGUN) {
        agent_link_answer(agent, id, "interrupted", NULL, 0);
    } else {
        if (!known)
            ledger_op_void(agent->ledger, id); /* from now on; said when it is in the file */
        never = new0(struct never);
        *never = (struct never){agent, id};
        if (!fiber_spawn(agent->loop, never_main, never, "never"))
            free(never); /* asked again */
    }
}

void agent_take_confirm(struct agent *agent, const struct value *ids)
{
    for (uint32_t i = 0; i < ids->length; i++)
        if (ids->items[i].kind == KIND_REF && !refmap_get(&agent->running, ids->items[i].ref))
            ledger_op_forget(agent->ledger, ids->items[i].ref);
}

/* ---- life ---- */

void agent_identity(struct ledger *ledger, struct random *random, ref_t host, char ret_secret_key[LINK_KEY_BYTES])
{
    char uuid[UUID_TEXT_BYTES], public[LINK_KEY_BYTES], secret[LINK_KEY_BYTES];

    if (!ledger_meta(ledger, "host", NULL))
        ledger_put_meta(ledger, "host", uuid_print(uuid, ref_is_null(host) ? ref_new(random) : host));
    if (!ledger_meta(ledger, "curve_secret", NULL)) {
        link_keys_new(public, secret);
        ledger_put_meta(ledger, "curve_secret", secret);
    }
    ledger_sync(ledger);
    snprintf(ret_secret_key, LINK_KEY_BYTES, "%s", ledger_meta(ledger, "curve_secret", ""));
}

struct agent *agent_new(const struct agent_config *config, struct loop *loop, struct random *random,
                        struct workers *workers, struct ledger *ledger, struct hypervisor *hypervisor,
                        struct link_transport *transport, struct link_transport *door)
{
    struct agent *agent = new0(struct agent);
    const char *host = ledger_meta(ledger, "host", "");

    agent->config = *config;
    if (agent->config.master_dead_ms == 0)
        agent->config.master_dead_ms = 5000;
    agent->clock = loop_clock(loop);
    agent->loop = loop;
    agent->random = random;
    agent->workers = workers;
    agent->ledger = ledger;
    agent->hypervisor = hypervisor;
    agent->sockets = config->sockets ? config->sockets : sockets_tcp();
    agent->transport = transport;
    agent->door = door;
    if (!uuid_parse(host, strlen(host), &agent->host)
        || !link_public_key(ledger_meta(ledger, "curve_secret", ""), agent->public_key))
        die("agent: the ledger names no host and key");
    vms_init(agent);
    agent->link = agent_link_new(agent);
    agent->join = agent_join_new(agent);
    return agent;
}

static void begin_talking(struct agent *agent)
{
    const char *endpoint = ledger_meta(agent->ledger, "master_endpoint", agent->config.master_endpoint);
    const char *key = ledger_meta(agent->ledger, "master_key", agent->config.master_key);

    agent->samples = samples_new(agent);
    if (endpoint && key && *endpoint && *key) /* empty: that master was left */
        agent_link_to(agent, endpoint, key);
    agent_join_start(agent);
}

static void adopt(void *arg)
{
    struct agent *agent = arg;

    if (!vms_adopt(agent)) {
        timer_start(agent->loop, &agent->list_timer, LIST_AGAIN_MS, adopt, agent);
        return;
    }
    agent->is_adopted = true;
    begin_talking(agent);
}

static void start_main(void *arg)
{
    struct agent *agent = arg;

    ledger_put_meta_number(agent->ledger, "starts", agent->start_number);
    ledger_sync(agent->ledger);
    fiber_on_loop_stack(adopt, agent);
}

void agent_start(struct agent *agent)
{
    agent->start_number = ledger_meta_number(agent->ledger, "starts") + 1;
    if (!fiber_spawn(agent->loop, start_main, agent, "agent"))
        die("agent: no fiber to start with");
}

void agent_destroy(struct agent **agent_p)
{
    struct agent *agent = TAKE(*agent_p);
    void *value;
    ref_t key;

    if (!agent)
        return;
    timer_stop(&agent->list_timer);
    samples_destroy(&agent->samples);
    agent_join_destroy(&agent->join);
    agent_link_destroy(&agent->link);
    vms_done(agent);
    for (size_t at = 0; refmap_each(&agent->running, &at, &key, &value);) {
        struct arena *arena = ((struct op *) value)->arena;

        arena_destroy(&arena);
    }
    refmap_done(&agent->running);
    work_in_forget(&agent->worked_in);
    free(agent);
}
