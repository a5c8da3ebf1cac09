/* http_transfer.c - export and import over HTTP: which host serves a request, and the fiber that decides on it */
#include "master/http_transfer.h"

#include <stdio.h>

#include "master/account.h"
#include "master/background.h"
#include "master/dispatch.h"
#include "master/http_call.h"
#include "master/roles.h"
#include "master/session.h"
#include "master/slaves.h"
#include "master/task.h"
#include "master/transfer_left.h"
#include "master/transfer_options.h"
#include "shared/crash.h"
#include "shared/fiber.h"
#include "shared/http_query.h"
#include "shared/log.h"
#include "shared/refmap.h"

/* Each holds a fiber as long as it lasts: with more than a fourth of them slow clients could keep all tasks waiting. */
#define TRANSFERS_MAX 1024

/* Of an object's name, in logs and descriptions: names are as long as clients like. */
#define NAME_BYTES_TOLD 200

static const struct transfer_kind *const kinds[] = {&transfer_export, &transfer_import, &transfer_export_raw,
                                                    &transfer_import_raw};

/* What the front serves one path with. */
struct served {
    struct front *front;
    const struct transfer_kind *kind;
};

struct http_transfers {
    struct core *core;
    struct refmap active; /* id at the slave -> struct http_transfer, from its note until its fiber has ended */
    struct http_transfers_figures figures;
    struct served served[ARRAY_SIZE(kinds)];
};

/* ---- parameters ---- */

const char *transfer_param(const struct value *params, const char *name)
{
    return value_map_text(params, name, NULL);
}

bool transfer_flag(const struct value *params, const char *name)
{
    const char *text = value_map_text(params, name, "");

    return streq(text, "true") || streq(text, "1");
}

int transfer_object(struct call *call, const struct view *view, const struct value *params, const struct class *class,
                    const char *by_ref, const char *by_uuid, const struct object **ret)
{
    const char *ref_given = transfer_param(params, by_ref), *uuid = transfer_param(params, by_uuid);
    ref_t ref;

    *ret = NULL;
    if (ref_given && ref_parse(ref_given, strlen(ref_given), &ref))
        *ret = view_object(view, class, ref);
    if (!*ret && uuid)
        *ret = view_by_uuid(view, class, uuid);
    if (*ret)
        return 0;
    if (ref_given && (!uuid || strncmp(ref_given, "OpaqueRef:", 10) == 0))
        return fail(call, HANDLE_INVALID, class->name, ref_given);
    if (uuid)
        return fail(call, UUID_INVALID, class->name, uuid);
    return fail(call, INVALID_VALUE,
                streq(by_ref, by_uuid) ? by_ref : arena_text(call->arena, "%s or %s", by_ref, by_uuid), "");
}

const char *transfer_about(struct call *call, const char *class, const char *uuid, const char *name)
{
    size_t length = strnlen(name, NAME_BYTES_TOLD + 1);

    if (length > NAME_BYTES_TOLD) {
        length = NAME_BYTES_TOLD;
        while (length > 0 && (name[length] & 0xc0) == 0x80) /* not in the middle of a character */
            length--;
    }
    return arena_text(call->arena, "%s %s (%.*s)", class, uuid, (int) length, name);
}

void transfer_needs_add(struct transfer_needs *needs, ref_t sr)
{
    for (unsigned i = 0; i < needs->count; i++)
        if (ref_equal(needs->srs[i], sr))
            return;
    assert(needs->count < ARRAY_SIZE(needs->srs));
    needs->srs[needs->count++] = sr;
}

/* ---- which host ---- */

/* The first SR that the host does not see; null: it sees all. */
static ref_t misses(const struct view *view, const struct transfer_needs *needs, ref_t host)
{
    for (unsigned i = 0; i < needs->count; i++)
        if (!storage_is_attached(view, needs->srs[i], host))
            return needs->srs[i];
    return NULL_REF;
}

/* The text and what a living host misses, with the host before the first of it. */
static const char *add_missing(struct call *call, const struct view *view, const struct transfer_needs *needs,
                               const struct object *host, const char *text)
{
    bool is_named = false;

    for (unsigned i = 0; i < needs->count; i++) {
        const struct object *sr = view_get(view, SR, needs->srs[i]);

        if (!sr || storage_is_attached(view, needs->srs[i], host->ref) || strlen(text) > FAILURE_PARAM_BYTES_MAX / 2)
            continue;
        if (!is_named)
            text = arena_text(call->arena, "%s; host %s (%s) does not see SR ", text, host_get_name_label(host),
                              host_get_address(host));
        text = arena_text(call->arena, "%s%s%s (%s)", text, is_named ? ", " : "", SR_get_name_label(sr), SR_get_uuid(sr));
        is_named = true;
    }
    return text;
}

/* No host that lives sees all: which do and do not live, and what each of the others misses. */
static int refuse_all(struct call *call, const struct view *view, const struct transfer_needs *needs)
{
    const char *text = "no host that lives sees all disks";
    const struct object *host;
    struct view_iter hosts;

    view_each(&hosts, view, CLASS_OF(host));
    while ((host = view_next(&hosts)))
        if (!storage_host_lives(view, host->ref) && ref_is_null(misses(view, needs, host->ref))
            && strlen(text) <= FAILURE_PARAM_BYTES_MAX / 2) {
            text = arena_text(call->arena, "%s; host %s (%s) sees them, and is not live", text, host_get_name_label(host),
                              host_get_address(host));
            call->http_status = 503; /* it may be back */
        }
    view_each(&hosts, view, CLASS_OF(host));
    while ((host = view_next(&hosts)))
        if (storage_host_lives(view, host->ref))
            text = add_missing(call, view, needs, host, text);
    return fail(call, OPERATION_NOT_ALLOWED, text);
}

/* It lives and sees all. is_linked: its agent can be spoken to now, too; one that ended a moment ago has no link and still counts as
 * living. */
static bool can_serve(struct core *core, const struct view *view, const struct transfer_needs *needs, ref_t host, bool is_linked)
{
    return storage_host_lives(view, host) && (!is_linked || slave_is_linked(core->slaves, host))
           && ref_is_null(misses(view, needs, host));
}

/* Any that can serve it and has a link, but for this one; null: none. */
static ref_t choose_other(struct core *core, const struct view *view, const struct transfer_needs *needs, ref_t but)
{
    const struct object *host;
    struct view_iter hosts;

    view_each(&hosts, view, CLASS_OF(host));
    while ((host = view_next(&hosts)))
        if (!ref_equal(host->ref, but) && can_serve(core, view, needs, host->ref, true))
            return host->ref;
    return NULL_REF;
}

/* Where the request is, if that host will do; else the master's own; else any. Hosts without a link are the last choice. */
static int choose_host(struct call *call, const struct view *view, const struct transfer_needs *needs, ref_t here,
                       ref_t *ret)
{
    struct core *core = call->core;
    const struct object *host;
    struct view_iter hosts;

    *ret = can_serve(core, view, needs, here, true)         ? here
           : can_serve(core, view, needs, core->host, true) ? core->host
                                                            : choose_other(core, view, needs, NULL_REF);
    view_each(&hosts, view, CLASS_OF(host));
    while (ref_is_null(*ret) && (host = view_next(&hosts)))
        if (can_serve(core, view, needs, host->ref, false))
            *ret = host->ref;
    return ref_is_null(*ret) ? refuse_all(call, view, needs) : 0;
}

/* ---- requests at the master: passed on ---- */

struct routing {
    struct front *front;
    const struct transfer_kind *kind;
    struct arena *arena;
    struct value params;   /* in the arena */
    ref_t host;            /* [out] */
    ref_t other;           /* [out] when that one's agent turns out to be away; may be null */
};

static int route(struct call *call, void *arg)
{
    struct routing *routing = arg;
    const struct view *view = call_view(call);
    struct transfer_needs *needs = arena_new0(call->arena, struct transfer_needs);
    int r = transfer_check_options(call, routing->kind->realm, &routing->params);

    if (r == 0)
        r = routing->kind->needs(call, view, &routing->params, needs);
    if (r == 0)
        r = choose_host(call, view, needs, call->core->host, &routing->host);
    if (r < 0)
        return r;
    routing->other = choose_other(call->core, view, needs, routing->host);
    http_call_pass_on(call);
    return 0;
}

static void routed(struct http_request *http, struct call *call, int r, void *arg)
{
    struct routing *routing = arg;

    if (http && r < 0)
        http_call_reply_failure(http, call);
    else if (http)
        front_hand_to(routing->front, http, routing->host, routing->other);
    arena_destroy(&routing->arena);
    free(routing);
}

static void authenticated(struct http_request *http, struct http_caller *caller, void *arg)
{
    const struct served *served = arg;
    struct routing *routing = new0(struct routing);
    struct http_call what = {.name = served->kind->name, .run = route, .answer = routed, .arg = routing};

    routing->front = served->front;
    routing->kind = served->kind;
    routing->arena = arena_new();
    if (http_query_map(http, routing->arena, &routing->params)) {
        http_call_start(http, caller, &what);
        return;
    }
    http_query_refuse(http);
    http_caller_end(&caller);
    arena_destroy(&routing->arena);
    free(routing);
}

static void serve(struct http_request *http, void *arg)
{
    struct served *served = arg;

    http_authenticate(served->front, http, served->kind->realm, served->kind->least, authenticated, served);
}

/* ---- requests at slaves: who asks ---- */

static int refuse_credentials(struct call *call, const char *user)
{
    return fail(call, SESSION_AUTHENTICATION_FAILED, user, "the request's credentials were refused");
}

/* The first of these that the request has decides, as in http_auth.h. *ret_session: one for this request only. */
static int authenticate(struct call *call, const struct value *asked, const struct value *params, ref_t *ret_session)
{
    const char *address = call->caller.address, *text;
    struct value session;
    char ref[REF_TEXT_BYTES];
    int r;

    *ret_session = NULL_REF;
    if (streq(value_map_text(asked, "is_local_root", ""), "true")) {
        call->caller.role = ROLE_LOCAL_ROOT;
        call->caller.is_local_superuser = true;
        call->caller.user_name = "root";
        return 0;
    }
    if ((text = transfer_param(params, "session_id"))) {
        r = session_check(call, text, NULL);
        if (r == 0 && session_get_is_local(view_get(call_view(call), session, call->caller.session)))
            r = fail(call, SESSION_INVALID, text);
        return r;
    }
    if ((text = value_map_text(asked, "pool_secret", NULL))) {
        if (!session_pool_secret_is(call->core, text))
            return refuse_credentials(call, "");
        call->caller.role = ROLE_LOCAL_ROOT;
        call->caller.is_pool = call->caller.is_local_superuser = true;
        return 0;
    }
    if (!(text = value_map_text(asked, "user", NULL)))
        return refuse_credentials(call, "");
    r = session_login_with_password(call,
                                    &(struct session_login_with_password_args){
                                        .uname = text,
                                        .pwd = value_map_text(asked, "password", ""),
                                        .version = "1.1",
                                        .originator = "http",
                                    },
                                    &session);
    if (r < 0)
        return r;
    *ret_session = session.ref;
    r = session_check(call, ref_print(ref, session.ref), NULL);
    call->caller.address = address;
    return r;
}

/* ---- the fiber ---- */

/* A request's part of http_transfer.h, in the call's arena. */
struct asking {
    struct http_transfer transfer;
    const struct value *asked; /* the note's body */
    const char *task_id, *subtask_of;
};

static int answer_with(struct http_transfer *transfer, int status, const char *headers, const char *text,
                       const char *redirect)
{
    struct slave_transfer_refuse_args args = {transfer->id, status, headers, text, redirect};

    return slave_transfer_refuse(transfer->call, transfer->host, &args, NULL);
}

static void refuse(struct asking *asking)
{
    struct http_transfer *transfer = &asking->transfer;
    struct call *call = transfer->call;
    _cleanup_(free_p) char *text = http_failure_text(&call->failure);
    int status = http_call_status(call);
    const char *realm =
        status == 401 ? arena_text(call->arena, "WWW-Authenticate: Basic realm=\"%s\"\r\n", transfer->kind->realm) : "";

    fiber_uncancellable_begin();
    answer_with(transfer, status, arena_text(call->arena, "%s%s", realm, http_call_refusal_header(call, asking->task_id)),
                text, "");
    fiber_uncancellable_end();
}

/* Is this host the one to serve it? *ret_moved: no, and the client was sent to another. */
static int stay_or_send_on(struct http_transfer *transfer, bool *ret_moved)
{
    struct call *call = transfer->call;
    struct transfer_needs *needs = arena_new0(call->arena, struct transfer_needs);
    const struct view *view = call_view(call);
    ref_t host;
    int r = transfer->kind->needs(call, view, transfer->params, needs);

    if (r < 0 || ref_is_null(misses(view, needs, transfer->host)))
        return r; /* that it lives is seen from its asking */
    r = choose_host(call, view, needs, transfer->host, &host);
    if (r < 0 || ref_equal(host, transfer->host))
        return r;
    *ret_moved = true;
    return answer_with(transfer, 302, "", "", arena_strdup(call->arena, host_get_address(view_get(view, host, host))));
}

static int run(struct asking *asking, bool *ret_moved)
{
    struct http_transfer *transfer = &asking->transfer;
    struct call *call = transfer->call;
    int r = 0;

    if (call->caller.role < transfer->kind->least)
        r = role_require(call, transfer->kind->least, arena_text(call->arena, "http/%s", transfer->kind->realm));
    if (r == 0)
        r = transfer_check_options(call, transfer->kind->realm, transfer->params);
    if (r == 0)
        r = stay_or_send_on(transfer, ret_moved);
    if (r < 0 || *ret_moved)
        return r;
    if (asking->task_id)
        r = task_attach(call, call->name, asking->task_id, NULL);
    if (r == 0 && (transfer->is_client_gone || task_is_cancelled(call)))
        r = task_cancelled(call);
    if (r == 0)
        r = transfer->kind->run(transfer);
    if (r == -ERR_TASK_CANCELLED && transfer->is_client_gone)
        r = fail(call, INTERNAL_ERROR, "the client has closed the connection before its turn came");
    return r;
}

/* What failed before the task was taken is told by it all the same: its client may look nowhere else. */
static void fail_named_task(struct call *call, const char *task_id)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    task_put_refused(call->core, txn, task_id, &call->failure);
    call_commit(call, &txn);
}

static ref_t id_of(const struct http_transfer *transfer)
{
    ref_t id = NULL_REF;

    (void) uuid_parse(transfer->id, strlen(transfer->id), &id);
    return id;
}

static void put_away(struct http_transfer *transfer)
{
    refmap_take(&transfer->call->core->transfers->active, id_of(transfer));
}

static void transfer_main(struct request *request)
{
    struct call *call = &request->call;
    struct asking *asking = request->user;
    struct http_transfer *transfer = &asking->transfer;
    bool is_moved = false;
    ref_t session;
    int r;

    call->started_ms = clock_now_ms(call->core->clock);
    r = authenticate(call, asking->asked, transfer->params, &session);
    if (r == -ERR_SESSION_INVALID) /* as at the master itself (http_auth.h) */
        r = refuse_credentials(call, value_map_text(asking->asked, "user", ""));
    if (r == 0)
        r = run(asking, &is_moved);
    if (!ref_is_null(call->task))
        task_end(call, r);
    else if (r < 0)
        dispatch_log_refused(call);
    if (ref_is_null(call->task) && r < 0 && asking->task_id)
        fail_named_task(call, asking->task_id);
    call->core->transfers->figures.failed += r < 0;
    if (r < 0) /* what has begun to be answered is not answered again */
        refuse(asking);
    else if (transfer->kind->is_upload && !is_moved)
        slave_transfer_end(call, transfer->host, &(struct slave_transfer_end_args){transfer->id}, NULL);
    put_away(transfer);
    if (transfer->is_left) /* what it leaves is written down by now */
        transfer_left_end(call->core, transfer->host, id_of(transfer));
    if (!ref_is_null(session))
        session_drop(call, session);
    core_emit(call);
    request_destroy(&request);
}

/* It may not begin: too much waits, there is no room. The slave is told by a call of the pool's own. */
struct turned_away {
    ref_t host;
    char *id, *text, *task_id;
    int status;
    struct failure failure;
    struct arena *arena;
};

static void turn_away(struct call *call, void *arg)
{
    struct turned_away *away = arg;
    char header[HTTP_TASK_HEADER_BYTES];
    struct slave_transfer_refuse_args args = {away->id, away->status, http_task_header(header, away->task_id), away->text, ""};

    call->failure = away->failure;
    if (away->task_id)
        fail_named_task(call, away->task_id);
    slave_transfer_refuse(call, away->host, &args, NULL);
    free(away->id);
    free(away->text);
    free(away->task_id);
    arena_destroy(&away->arena);
    free(away);
}

static void not_begun(struct request *request, int r, bool is_last)
{
    struct asking *asking = request->user;
    struct turned_away *away = new0(struct turned_away);
    struct http_transfers_figures *figures = &request->call.core->transfers->figures;

    (void) r;
    (void) is_last;
    figures->failed++;
    figures->refused++;
    put_away(&asking->transfer);
    away->host = asking->transfer.host;
    away->id = dup_text(asking->transfer.id);
    away->text = http_failure_text(&request->call.failure);
    away->task_id = asking->task_id ? dup_text(asking->task_id) : NULL;
    away->status = http_call_status(&request->call);
    away->arena = arena_new();
    failure_copy(&away->failure, away->arena, &request->call.failure);
    background_run(request->call.core, "transfer", "", turn_away, away);
    request_destroy(&request);
}

int http_transfer_task(struct http_transfer *transfer, const char *label, const char *description)
{
    struct asking *asking = CONTAINER_OF(transfer, struct asking, transfer);
    int r = 0;

    if (ref_is_null(transfer->call->task))
        r = task_attach_new(transfer->call, label, description, asking->subtask_of);
    if (r == 0)
        dispatch_log_asked(transfer->call, description);
    return r;
}

bool http_transfer_is_probe(const struct http_transfer *transfer)
{
    return transfer->length == 0 && !CONTAINER_OF(transfer, struct asking, transfer)->task_id;
}

int http_transfer_settle(struct http_transfer *transfer, int r)
{
    struct call *call = transfer->call;
    struct failure before = call->failure;
    struct slave_transfer_abort_args args = {transfer->id};

    if (r == 0 || (r != -ERR_TASK_CANCELLED && !slave_call_in_doubt(call)))
        return r;
    fiber_uncancellable_begin();
    transfer->is_left = slave_transfer_abort(call, transfer->host, &args, NULL) < 0;
    fiber_uncancellable_end();
    if (transfer->is_left) {
        _cleanup_(free_p) char *why = http_failure_text(&call->failure);

        log_warning(call->tag, "something of it may be at work at its host still: %s", why);
    }
    call->failure = before;
    return r;
}

/* ---- notes ---- */

static const struct transfer_kind *kind_of(const char *path)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        size_t length = strlen(kinds[i]->realm);

        if (path[0] == '/' && strncmp(path + 1, kinds[i]->realm, length) == 0
            && (path[1 + length] == '\0' || path[1 + length] == '/'))
            return kinds[i];
    }
    return NULL;
}

static void on_transfer(struct core *core, const struct slave_note *note)
{
    const struct transfer_kind *kind = kind_of(value_map_text(note->body, "path", ""));
    const struct value *params = value_map_find(note->body, "params");
    struct request *request;
    struct asking *asking;
    struct arena *arena;
    struct value *body;
    char uuid[UUID_TEXT_BYTES];

    if (!kind || !params || params->kind != KIND_MAP) {
        log_warning(NULL, "a host tells of a transfer that makes no sense");
        return;
    }
    request = request_new(core->dispatch);
    arena = request->call.arena;
    asking = arena_new0(arena, struct asking);
    body = arena_new0(arena, struct value);
    *body = value_copy(arena, note->body);
    params = value_map_find(body, "params");
    asking->asked = body;
    asking->task_id = transfer_param(params, "task_id");
    asking->subtask_of = transfer_param(params, "subtask_of");
    asking->transfer = (struct http_transfer){
        .call = &request->call,
        .kind = kind,
        .host = note->host,
        .id = arena_strdup(arena, uuid_print(uuid, note->vm_uuid)),
        .params = params,
        .length = strtoll(value_map_text(body, "length", "-1"), NULL, 10),
        .is_head = streq(value_map_text(body, "method", ""), "HEAD"),
    };
    request->call.name = kind->name;
    request->call.caller = (struct caller){
        .role = ROLE_READ_ONLY, .user_name = "", .originator = "", .address = value_map_text(body, "peer", "")};
    request->user = asking;
    request->answer = not_begun;
    core->transfers->figures.begun++;
    refmap_put(&core->transfers->active, note->vm_uuid, &asking->transfer);
    if (core->transfers->active.count > TRANSFERS_MAX) {
        log_warning(NULL, "a client's %s from %s is refused with TOO_BUSY: a pool has at most %d transfers at once", kind->realm,
                    request->call.caller.address, TRANSFERS_MAX);
        fail(&request->call, TOO_BUSY);
        not_begun(request, -ERR_TOO_BUSY, true);
        return;
    }
    dispatch_work(request, transfer_main);
    CRASH_POINT("master.transfer.note.handled");
}

/* A host has a request that nobody here works on any more: the host was taken for dead and is back, or it could not end the request
 * in time when that was cancelled, or an earlier master was told of it. */
static void on_there(struct core *core, const struct slave_note *note)
{
    if (!refmap_get(&core->transfers->active, note->vm_uuid) && transfer_left_end(core, note->host, note->vm_uuid))
        log_info(NULL, "a transfer at a host is cut: nobody here works on it any more");
}

/* Its client has gone while it waits for what is busy: it ends as if it had been cancelled, and gives its place to others. */
static void on_client_gone(struct core *core, const struct slave_note *note)
{
    struct http_transfer *transfer = refmap_get(&core->transfers->active, note->vm_uuid);

    if (!transfer || task_is_cancelled(transfer->call))
        return;
    transfer->is_client_gone = true;
    task_want_cancel(core, transfer->call->task);
}

/* Bytes and rate stand in the task's other_config, for whoever watches it. */
static void on_progress(struct core *core, const struct slave_note *note)
{
    struct http_transfer *transfer = refmap_get(&core->transfers->active, note->vm_uuid);
    const struct value *share = value_map_find(note->body, "share"), *bytes = value_map_find(note->body, "bytes");
    const struct value *rate = value_map_find(note->body, "bytes_per_s");
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *task;
    struct value other_config;
    struct arena *arena;

    if (!transfer || !share || share->kind != KIND_FLOAT || !bytes || bytes->kind != KIND_INT || !rate
        || rate->kind != KIND_INT || ref_is_null(transfer->call->task))
        return;
    if (bytes->i > transfer->bytes) {
        core->transfers->figures.bytes += (uint64_t) (bytes->i - transfer->bytes);
        transfer->bytes = bytes->i;
    }
    task_progress(transfer->call, share->f);
    txn = store_begin(core->store);
    task = txn_get(txn, task, transfer->call->task);
    if (!task || !task_is_pending(task))
        return;
    arena = arena_new();
    other_config = map_with_text(arena, task_get_other_config(task), "transfer_bytes",
                                 arena_text(arena, "%lld", (long long) bytes->i));
    other_config = map_with_text(arena, &other_config, "transfer_bytes_per_s", arena_text(arena, "%lld", (long long) rate->i));
    task_put_other_config(txn, task->ref, &other_config);
    store_apply(&txn);
    arena_destroy(&arena);
}

/* ---- a master's start ---- */

static const struct transfer_kind *kind_named(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (streq(kinds[i]->name, name))
            return kinds[i];
    return NULL;
}

void http_transfers_recover(struct core *core)
{
    struct arena *arena = arena_new();
    struct txn *txn = store_begin(core->store);
    struct failure failure = {0};
    const struct object *intent;
    struct view_iter intents;

    failure_set(&failure, arena, INTERNAL_ERROR, "the master ended in the middle of the import");
    view_each(&intents, txn_view(txn), CLASS_OF(intent));
    while ((intent = view_next(&intents))) {
        const struct transfer_kind *kind = kind_named(intent_get_operation(intent));

        if (!kind || !kind->recover)
            continue;
        task_put_end(core, txn, intent_get_task(intent), NULL, &failure);
        kind->recover(txn, intent);
    }
    store_apply(&txn);
    arena_destroy(&arena);
}

/* ---- life ---- */

struct http_transfers *http_transfers_new(struct core *core, struct front *front)
{
    struct http_transfers *transfers = new0(struct http_transfers);
    char path[64];

    transfers->core = core;
    core->transfers = transfers;
    transfers_left_start(core);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        transfers->served[i] = (struct served){front, kinds[i]};
        snprintf(path, sizeof path, "/%s", kinds[i]->realm);
        front_add(front, kinds[i]->is_upload ? HTTP_PUT : HTTP_GET, path, serve,
                  &transfers->served[i]);
    }
    slaves_on_note(core->slaves, "transfer", on_transfer);
    slaves_on_note(core->slaves, "transfer_gone", on_client_gone);
    slaves_on_note(core->slaves, "transfer_there", on_there);
    slaves_on_note(core->slaves, "transfer_progress", on_progress);
    return transfers;
}

void http_transfers_destroy(struct http_transfers **transfers_p)
{
    struct http_transfers *transfers = TAKE(*transfers_p);

    if (!transfers)
        return;
    transfers_left_destroy(&transfers->core->transfers_left);
    refmap_done(&transfers->active);
    free(transfers);
}

void http_transfers_figures(const struct http_transfers *transfers, struct http_transfers_figures *ret)
{
    *ret = transfers->figures;
    ret->active = (unsigned) transfers->active.count;
}
