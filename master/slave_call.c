/* slave_call.c - calls to slaves, from fibers, and the questions that a lost reply leaves
 *
 *   slave_call:  id -> INTENT -> all durable -> call --------------> reply -> result
 *                                                 |  link lost
 *                                                 +--> new link: ask --+--> done          -> result
 *                                                 |  deadline: ask ----+--> never         -> HOST_OFFLINE, nothing happened
 *                                                 |                    +--> pending       -> wait on
 *                                                 |                    +--> interrupted   -> the same call again
 *                                                 +--> host given up, or no answer        -> in doubt
 *
 * An id is drawn once and sent as often as is needed: the slave does it once. */
#include "master/slaves_internal.h"

#include <errno.h>

#include "shared/failure.h"

/* After the deadline, for the answer to what became of it. */
#define ASK_WAIT_MS 5000

/* An operation whose outcome has come, and which its slave still remembers. */
struct slave_operation {
    struct slave_operation *next;
    ref_t host, id;
};

enum request_state {
    REQUEST_NEW,      /* never sent: it has not happened */
    REQUEST_SENT,
    REQUEST_DONE,     /* its outcome has come */
    REQUEST_NEVER,    /* it has not happened and never will */
    REQUEST_GONE,     /* the host was given up */
};

/* A call under way; on its fiber's stack. */
struct request {
    struct call *call;
    struct peer *peer;
    const struct slave_call *row;
    ref_t id;
    struct value body;
    uint64_t deadline_ms;
    enum request_state state;
    bool was_sent;
    int result;
    struct value ret;
    struct waitq wake;
};

static void finish(struct request *request, enum request_state state)
{
    request->state = state;
    waitq_wake_all(&request->wake);
}

/* ---- frames out ---- */

static void send_call(struct request *request)
{
    uint64_t now = clock_now_ms(request->call->core->clock);
    char id[UUID_TEXT_BYTES];
    struct wire_frame frame = {
        .type = WIRE_CALL,
        .id = request->id,
        .name = request->row->name,
        .deadline_ms = (int64_t) (request->deadline_ms > now ? request->deadline_ms - now : 0),
        .body = request->body,
    };

    if (!request->peer->is_linked)
        return; /* when there is a link again */
    request->was_sent = true;
    request->state = REQUEST_SENT;
    request->peer->slaves->figures.calls++;
    if (request->row->has_effect) /* so that a task can be followed into the host's log */
        log_info(request->call->tag, "%s on host %s, operation %s", request->row->name, request->peer->uuid,
                 uuid_print(id, request->id));
    if (crash_call(CRASH_MASTER_CALL_BEFORE, request->row->number))
        peer_lose(request->peer);
    else
        peer_send(request->peer, &frame);
    crash_call(CRASH_MASTER_CALL_AFTER, request->row->number);
}

static void send_ask(struct peer *peer, ref_t id)
{
    struct wire_frame frame = {.type = WIRE_ASK, .id = id};

    if (CRASH_POINT("master.ask.before"))
        peer_lose(peer);
    else
        peer_send(peer, &frame);
    CRASH_POINT("master.ask.after");
}

static void send_confirm(struct peer *peer, ref_t id)
{
    struct value item = VALUE_REF(id);
    struct wire_frame frame = {.type = WIRE_CONFIRM, .operations = VALUE_SET(1, &item)};

    /* One that is lost is made good by the next hello, which lists what the slave remembers. */
    if (CRASH_POINT("master.confirm.before"))
        peer_lose(peer);
    else
        peer_send(peer, &frame);
    CRASH_POINT("master.confirm.after");
}

/* ---- frames in, on the loop ---- */

/* The outcome in a reply or answer, copied to the call's arena: a result, or -ERR_x with its details. */
static int take_outcome(struct call *call, const struct wire_frame *frame, struct value *ret)
{
    const char *params[FAILURE_PARAMS_MAX];
    unsigned count = 0;
    int r;

    if (!frame->code) {
        *ret = frame->body.kind == KIND_VOID ? VALUE_EMPTY_MAP : value_copy(call->arena, &frame->body);
        return 0;
    }
    for (uint32_t i = 0; i < frame->params.length && count < FAILURE_PARAMS_MAX; i++)
        if (frame->params.items[i].kind == KIND_STRING)
            params[count++] = frame->params.items[i].text;
    r = failure_set_text(&call->failure, call->arena, frame->code, count, params);
    slave_failure_name(call);
    return r;
}

void slave_call_reply(struct peer *peer, const struct wire_frame *frame)
{
    struct request *request = refmap_get(&peer->requests, frame->id);

    if (!request || request->state == REQUEST_DONE)
        return;
    peer->slaves->figures.replies++;
    if (crash_call(CRASH_MASTER_REPLY_BEFORE, request->row->number)) {
        peer->taken--; /* as if it had not come */
        return;
    }
    request->result = take_outcome(request->call, frame, &request->ret);
    finish(request, REQUEST_DONE);
}

/* ---- asking about operations of others ---- */

struct asking {
    struct call *call;
    enum slave_answer answer;
    bool is_done, is_gone;
    int result;
    struct value ret;
    struct waitq wake;
};

static bool parse_answer(const char *state, enum slave_answer *ret)
{
    static const char *const texts[] = {
        [SLAVE_ANSWER_DONE] = "done",
        [SLAVE_ANSWER_PENDING] = "pending",
        [SLAVE_ANSWER_NEVER] = "never",
        [SLAVE_ANSWER_INTERRUPTED] = "interrupted",
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (streq(texts[i], state)) {
            *ret = (enum slave_answer) i;
            return true;
        }
    return false;
}

static void answer_request(struct request *request, const struct wire_frame *frame, enum slave_answer answer)
{
    switch (answer) {
    case SLAVE_ANSWER_DONE:
        request->result = take_outcome(request->call, frame, &request->ret);
        finish(request, REQUEST_DONE);
        break;
    case SLAVE_ANSWER_NEVER:
        finish(request, REQUEST_NEVER);
        break;
    case SLAVE_ANSWER_INTERRUPTED:
        log_info(request->call->tag, "%s was interrupted by a restart of the agent; again", request->row->name);
        send_call(request);
        break;
    case SLAVE_ANSWER_PENDING:
        waitq_wake_all(&request->wake); /* a fiber past its deadline gives up now */
        break;
    }
}

void slave_call_answer(struct peer *peer, const struct wire_frame *frame)
{
    struct asking *asking = refmap_get(&peer->askings, frame->id);
    struct request *request = refmap_get(&peer->requests, frame->id);
    enum slave_answer answer;

    if (!parse_answer(frame->state, &answer)) {
        peer->slaves->figures.frames_refused++;
        return;
    }
    if (request && request->state == REQUEST_SENT)
        answer_request(request, frame, answer);
    if (asking && !asking->is_done) {
        asking->answer = answer;
        if (answer == SLAVE_ANSWER_DONE)
            asking->result = take_outcome(asking->call, frame, &asking->ret);
        asking->is_done = true;
        waitq_wake_all(&asking->wake);
    }
}

/* ---- links come and go ---- */

void slave_calls_relinked(struct peer *peer)
{
    void *value;
    ref_t key;

    for (size_t at = 0; refmap_each(&peer->requests, &at, &key, &value);) {
        struct request *request = value;

        if (request->state == REQUEST_NEW || (request->state == REQUEST_SENT && !request->row->has_effect))
            send_call(request); /* never sent, or without effect */
        else if (request->state == REQUEST_SENT)
            send_ask(peer, request->id);
    }
    for (size_t at = 0; refmap_each(&peer->askings, &at, &key, &value);)
        if (!((struct asking *) value)->is_done)
            send_ask(peer, key);
}

void slave_calls_gone(struct peer *peer)
{
    void *value;
    ref_t key;

    for (size_t at = 0; refmap_each(&peer->requests, &at, &key, &value);)
        if (((struct request *) value)->state <= REQUEST_SENT)
            finish(value, REQUEST_GONE);
    for (size_t at = 0; refmap_each(&peer->askings, &at, &key, &value);) {
        struct asking *asking = value;

        asking->is_gone = true;
        waitq_wake_all(&asking->wake);
    }
}

bool slave_call_is_under_way(const struct peer *peer, ref_t operation)
{
    return refmap_get(&peer->requests, operation) || refmap_get(&peer->askings, operation);
}

/* ---- ids ---- */

static void put_operation(struct call *call, struct txn *txn, ref_t id)
{
    char text[UUID_TEXT_BYTES];

    intent_put_operation_id(txn, call->intent, uuid_print(text, id));
}

ref_t slave_operation_prepare(struct call *call, struct txn *txn)
{
    call->next_operation = ref_new(call->core->random);
    put_operation(call, txn, call->next_operation);
    return call->next_operation;
}

/* For a call with an effect: in the INTENT, if there is one, before anything leaves. */
static ref_t take_id(struct call *call, const struct slave_call *row)
{
    ref_t id = call->next_operation;
    struct txn *txn;

    if (!row->has_effect)
        return ref_new(call->core->random);
    call->next_operation = NULL_REF;
    if (!ref_is_null(id))
        return id;
    id = ref_new(call->core->random);
    if (!ref_is_null(call->intent) && view_get(call_view(call), intent, call->intent)) {
        txn = store_begin(call->core->store);
        put_operation(call, txn, id);
        call->depends = MAX(call->depends, store_apply(&txn));
        txn_end(&txn);
    }
    return id;
}

/* ---- confirming ---- */

static void remember(struct call *call, struct peer *peer, ref_t id)
{
    struct slave_operation *operation = arena_new0(call->arena, struct slave_operation);

    *operation = (struct slave_operation){call->operations, peer->host, id};
    call->operations = operation;
}

void slave_confirm_operation(struct core *core, ref_t host, ref_t id)
{
    struct peer *peer = slaves_peer(core->slaves, host);

    if (peer && peer->is_linked)
        send_confirm(peer, id);
}

void slave_confirm(struct call *call)
{
    for (struct slave_operation *operation = TAKE(call->operations); operation; operation = operation->next)
        slave_confirm_operation(call->core, operation->host, operation->id);
}

/* ---- calling ---- */

static int offline(struct call *call, ref_t host)
{
    return fail(call, HOST_OFFLINE, ref_text(call, host));
}

static int cancelled(struct call *call)
{
    return fail(call, TASK_CANCELLED, ref_text(call, call->task));
}

/* Wait for the outcome, as long as there is sense in it. */
static void wait_for_outcome(struct request *request, bool *ret_was_cancelled)
{
    uint64_t until_ms = request->deadline_ms;
    bool is_asked = false;

    *ret_was_cancelled = false;
    while (request->state == REQUEST_NEW || request->state == REQUEST_SENT) {
        int r = waitq_wait(&request->wake, until_ms);

        if (request->state != REQUEST_NEW && request->state != REQUEST_SENT)
            return;
        if (r == -ECANCELED) {
            *ret_was_cancelled = true;
            return;
        }
        if (r == 0 && !is_asked)
            continue; /* pending, and there is time */
        if (is_asked || !request->was_sent || !request->row->has_effect)
            return;
        /* The deadline bounds the waiting; what happened is a question. */
        is_asked = true;
        until_ms = clock_now_ms(request->call->core->clock) + ASK_WAIT_MS;
        if (request->peer->is_linked)
            send_ask(request->peer, request->id);
    }
}

static int outcome(struct request *request, bool was_cancelled, struct value *ret)
{
    struct call *call = request->call;
    struct value checked;
    int r;

    switch (request->state) {
    case REQUEST_DONE:
        crash_call(CRASH_MASTER_REPLY_AFTER, request->row->number);
        if (request->row->has_effect && ref_is_null(call->intent))
            send_confirm(request->peer, request->id);
        else if (request->row->has_effect)
            remember(call, request->peer, request->id);
        if (request->result < 0)
            return request->result;
        r = slave_call_check_result(request->row, &request->ret, call->arena, &checked, &call->failure);
        if (r == 0 && ret)
            *ret = checked;
        return r;
    case REQUEST_NEVER: /* kept voided until the next hello */
        return was_cancelled ? cancelled(call) : offline(call, request->peer->host);
    default:
        call->is_in_doubt = request->was_sent && request->row->has_effect;
        if (call->is_in_doubt) {
            request->peer->slaves->figures.in_doubt++;
            log_warning(call->tag, "%s on host %s is in doubt", request->row->name, request->peer->uuid);
        }
        return was_cancelled ? cancelled(call) : offline(call, request->peer->host);
    }
}

bool slave_call_in_doubt(const struct call *call)
{
    return call->is_in_doubt;
}

/* One sending, under an id of its own. *ret_again: it certainly did not happen, since the link was lost on its way, and
 * there is time to send it once more. */
static int call_once(struct call *call, ref_t host, const struct slave_call *row, const void *args, uint64_t deadline_ms,
                     struct value *ret, bool *ret_again)
{
    struct request request = {
        .call = call,
        .row = row,
        .body = slave_call_pack(row, args, call->arena),
        .deadline_ms = deadline_ms,
    };
    bool was_cancelled;
    int r;

    *ret_again = false;
    request.id = take_id(call, row);
    core_emit(call);
    request.peer = slaves_peer(call->core->slaves, host);
    if (!request.peer || request.peer->is_gone)
        return offline(call, host);
    peer_hold(request.peer);
    refmap_put(&request.peer->requests, request.id, &request);
    send_call(&request);
    wait_for_outcome(&request, &was_cancelled);
    *ret_again = request.state == REQUEST_NEVER && !was_cancelled && !request.peer->is_gone
                 && clock_now_ms(call->core->clock) < deadline_ms;
    r = *ret_again ? 0 : outcome(&request, was_cancelled, ret);
    refmap_take(&request.peer->requests, request.id);
    peer_release(request.peer);
    return r;
}

int slave_call(struct call *call, ref_t host, int number, const void *args, struct value *ret)
{
    const struct slave_call *row = slave_call_row(number);
    uint64_t deadline_ms = clock_now_ms(call->core->clock) + (uint64_t) row->deadline_ms;
    bool again;
    int r;

    assert(!call->view); /* reading calls send nothing */
    call->is_in_doubt = false;
    do
        r = call_once(call, host, row, args, deadline_ms, ret, &again);
    while (again);
    return r;
}

int slave_ask(struct call *call, ref_t host, ref_t operation, enum slave_answer *ret_answer, int *ret_result,
              struct value *ret)
{
    uint64_t deadline_ms = clock_now_ms(call->core->clock) + 2 * ASK_WAIT_MS;
    struct asking asking = {.call = call};
    struct peer *peer;
    int r = 0;

    core_emit(call);
    peer = slaves_peer(call->core->slaves, host);
    if (!peer || peer->is_gone || refmap_get(&peer->askings, operation))
        return offline(call, host);
    peer_hold(peer);
    refmap_put(&peer->askings, operation, &asking);
    if (peer->is_linked)
        send_ask(peer, operation);
    while (r == 0 && !asking.is_done && !asking.is_gone)
        r = waitq_wait(&asking.wake, deadline_ms);
    refmap_take(&peer->askings, operation);
    peer_release(peer);
    if (!asking.is_done)
        return r == -ECANCELED ? cancelled(call) : offline(call, host);
    *ret_answer = asking.answer;
    *ret_result = asking.result;
    if (ret && asking.answer == SLAVE_ANSWER_DONE && asking.result == 0)
        *ret = asking.ret;
    return 0;
}

int slave_wait_linked(struct call *call, ref_t host, uint64_t deadline_ms)
{
    struct peer *peer = slaves_peer(call->core->slaves, host);
    int r = 0;

    if (!peer)
        return offline(call, host);
    peer_hold(peer);
    while (r == 0 && !peer->is_linked && !peer->is_forgotten)
        r = waitq_wait(&peer->changed, deadline_ms);
    if (peer->is_linked)
        r = 0;
    else
        r = r == -ECANCELED ? cancelled(call) : offline(call, host);
    peer_release(peer);
    return r;
}
