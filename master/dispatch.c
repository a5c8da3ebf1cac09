/* dispatch.c - the road every call takes
 *
 * check_call() below is that road: gate, name, arguments, session, role, references (style.md
 * section 4). The order binds: it decides which of several errors a client sees. What needs no
 * state - the name and the types of the arguments - is done on the thread that read the request;
 * its outcome is kept in `bound` until its turn comes.
 *
 * References: a given one must name a live object of its class, in parameters and in sets of them.
 * The null reference stands for "none", so it is refused only where that makes no sense: as the
 * first parameter, which is what the call is about, and inside a set. Maps are not looked into,
 * since those of migrations name objects of another pool, nor are records: their constructors know
 * which members must exist. A setter may name an object that is gone, as long as its field is not
 * what the call is about: dangling references are legal (wire.md section 8). */
#include "master/dispatch.h"
#include "master/journal.h"

#include <stdatomic.h>
#include <stdio.h>

#include "master/core.h"
#include "master/derived.h"
#include "master/methods.h"
#include "master/roles.h"
#include "master/session.h"
#include "master/store.h"
#include "master/task.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/rpc.h"

struct queue {
    struct request *first, *last;
    size_t count, count_max;
};

struct dispatch {
    struct core *core;
    unsigned fibers_max;
    unsigned running;       /* fibers at work on requests */
    unsigned tasks_running; /* of these, on tasks whose client has its answer */
    struct queue calls, tasks;
    dispatch_gate_fn *gate;
    void *gate_arg;
    _Atomic uint64_t read_count, call_count, task_count, refused_count, later_count;
    _Atomic uint64_t later[METHOD_COUNT];
};

/* Tasks may take this much of the fibers, so that some are left for those who wait. */
#define TASK_SHARE(fibers) ((fibers) - (fibers) / 4)

/* ---- requests ---- */

struct request *request_new(struct dispatch *dispatch)
{
    struct arena *arena = arena_new();
    struct request *request = arena_new0(arena, struct request);

    request->dispatch = dispatch;
    request->call.core = dispatch->core;
    request->call.arena = arena;
    return request;
}

void request_destroy(struct request **request_p)
{
    struct request *request = TAKE(*request_p);

    if (!request)
        return;
    if (request->uses_session)
        session_use_end(request->call.core, request->call.caller.session);
    view_unpin(&request->pinned);
    arena_destroy(&(struct arena *){request->call.arena});
}

void request_pin(struct request *request)
{
    request_unpin(request);
    request->pinned = store_pin(request->call.core->store);
    request->call.view = request->pinned;
}

void request_unpin(struct request *request)
{
    view_unpin(&request->pinned);
    request->call.view = NULL;
}

static void queue_add(struct queue *queue, struct request *request)
{
    request->next = NULL;
    if (queue->last)
        queue->last->next = request;
    else
        queue->first = request;
    queue->last = request;
    queue->count++;
}

static struct request *queue_take(struct queue *queue)
{
    struct request *request = queue->first;

    if (request) {
        queue->first = request->next;
        if (!queue->first)
            queue->last = NULL;
        queue->count--;
    }
    return request;
}

/* ---- the road ---- */

/* What needs no state: the row, the session's place, the types of the arguments. */
static void read_request(struct request *request)
{
    struct call *call = &request->call;
    struct rpc_bound bound;

    request->bound = rpc_bind(request->text, request->raw, request->raw_count, request->fault, request->bad_text,
                              call->arena, &bound, &call->failure);
    call->name = bound.name;
    call->method = bound.method;
    call->is_async = bound.is_async;
    call->args = bound.args;
    call->values = bound.values;
    request->is_internal = bound.is_internal;
    request->session = bound.session;
}

static int ref_check(struct call *call, const struct class *class, ref_t ref, bool may_be_null)
{
    if (ref_is_null(ref) && may_be_null)
        return 0;
    if (!ref_is_null(ref) && view_object(call_view(call), class, ref))
        return 0;
    return fail(call, HANDLE_INVALID, class->name, ref_text(call, ref));
}

static bool is_live(struct call *call, const struct class *class, ref_t ref)
{
    return class->flags & CLASS_IN_DATABASE && view_object(call_view(call), class, ref);
}

/* What is written may be null or name what is gone (wire.md section 8), but no object of another class. */
static int written_ref_check(struct call *call, const struct class *class, ref_t ref)
{
    if (ref_is_null(ref) || is_live(call, class, ref))
        return 0;
    for (int i = 0; i < CLASS_COUNT; i++)
        if (is_live(call, &model_classes[i], ref))
            return fail(call, HANDLE_INVALID, class->name, ref_text(call, ref));
    return 0;
}

static int written_refs_check(struct call *call, const struct type *type, const struct value *value)
{
    int r = 0;

    switch (type->kind) {
    case KIND_REF:
        return written_ref_check(call, type->class, value->ref);
    case KIND_SET:
        for (uint32_t i = 0; i < value->length && r == 0; i++)
            r = written_refs_check(call, type->element, &value->items[i]);
        return r;
    case KIND_MAP:
        for (uint32_t i = 0; i < value->length && r == 0; i++) {
            r = written_refs_check(call, type->key, &value->items[2 * i]);
            if (r == 0)
                r = written_refs_check(call, type->element, &value->items[2 * i + 1]);
        }
        return r;
    case KIND_RECORD:
        for (int i = 0; i < type->class->field_count && r == 0; i++)
            if (value->record.fields[i].kind != KIND_VOID)
                r = written_refs_check(call, type->class->fields[i].type, &value->record.fields[i]);
        return r;
    default:
        return 0;
    }
}

static int refs_check(struct call *call, const struct method *method)
{
    bool is_derived = method->kind != METHOD_CUSTOM;

    for (int i = 0; i < method->param_count; i++) {
        const struct type *type = method->params[i].type;
        const struct value *value = &call->values[i];
        int r = 0;

        if ((is_derived && i > 0) || type->kind == KIND_RECORD || type->kind == KIND_MAP)
            r = written_refs_check(call, type, value);
        else if (type->kind == KIND_REF)
            r = ref_check(call, type->class, value->ref, i > 0);
        else if (type->kind == KIND_SET && type->element->kind == KIND_REF)
            for (uint32_t j = 0; j < value->length && r == 0; j++)
                r = ref_check(call, type->element->class, value->items[j].ref, false);
        if (r < 0)
            return r;
    }
    return 0;
}

int dispatch_check(struct request *request, const struct method *method)
{
    struct call *call = &request->call;
    int r = session_check(call, request->session, method); /* who is asking */

    if (r < 0)
        return r;
    if (!request->uses_session && !ref_is_null(call->caller.session)) {
        session_use_begin(call->core, call->caller.session);
        request->uses_session = true;
    }
    if (request->is_internal && !call->caller.is_pool)
        return fail(call, INTERNAL_ERROR, SESSION_NOT_POOL_TEXT);
    r = role_check(call, method); /* may they */
    if (r < 0)
        return r;
    if (request->bound < 0) /* a reference that is none of ours */
        return request->bound;
    return refs_check(call, method); /* live references */
}

/* Every call takes this road; a handler is reached only past all the checks. */
static int check_call(struct request *request)
{
    struct call *call = &request->call;
    const struct method *method = call->method;
    int r = request->dispatch->gate
                ? request->dispatch->gate(call, method, request->dispatch->gate_arg)
                : 0;

    request->is_early = r < 0;
    if (r < 0)
        return r;
    if (!method && request->bound == 0) {
        r = session_check(call, request->session ? request->session : "", NULL);
        return r < 0 ? r : fail(call, MESSAGE_METHOD_UNKNOWN, call->name);
    }
    if (request->bound < 0 && request->bound != -ERR_HANDLE_INVALID)
        return request->bound; /* count, types */
    if (method->flags & METHOD_REMOVED) {
        r = session_check(call, request->session, method);
        return r < 0 ? r : fail(call, MESSAGE_REMOVED);
    }
    r = dispatch_check(request, method);
    if (r < 0)
        return r;
    if (call->is_async && !method->is_async)
        return rpc_refuse_async(call->name, call->arena, &call->failure);
    if (method->flags & METHOD_LATER) {
        request->dispatch->later[method->number]++;
        request->dispatch->later_count++;
        return fail(call, NOT_IMPLEMENTED, method->name);
    }
    return 0;
}

static int run_call(struct call *call)
{
    const struct method *method = call->method;

    call->started_ms = clock_now_ms(call->core->clock);
    call->reply = VALUE_VOID;
    if (method->kind != METHOD_CUSTOM)
        return derived_run(call, method, call->values, &call->reply);
    return method_functions[method->number](call, call->args, &call->reply);
}

/* ---- calls that read ---- */

static enum dispatched run_read(struct request *request)
{
    int r;

    request->dispatch->read_count++;
    request_pin(request);
    r = check_call(request);
    if (r == 0)
        r = run_call(&request->call);
    if (r == CALL_PARKED)
        return DISPATCH_PARKED;
    request->answer(request, r, true);
    return DISPATCH_ANSWERED;
}

/* ---- calls of the core ---- */

static void run_next(struct dispatch *);

static bool start_fiber(struct dispatch *dispatch, void (*fn)(void *arg), struct request *request)
{
    if (dispatch->running >= dispatch->fibers_max)
        return false;
    if (!fiber_spawn(dispatch->core->loop, fn, request, request->call.name))
        return false;
    dispatch->running++;
    return true;
}

/* Whom the log lines of this call name, and the key in current_operations. */
static void tag_call(struct call *call)
{
    char uuid[UUID_TEXT_BYTES];

    call->tag = arena_text(call->arena, "DummyRef:|%s|%s",
                           uuid_print(uuid, ref_new(call->core->random)), call->name);
    fiber_set_log_tag(fiber_self(), call->tag);
}

/* The rest of an async call: its client has the task's reference. */
static void finish_task(struct request *request)
{
    struct dispatch *dispatch = request->dispatch;
    int r;

    dispatch->tasks_running++;
    r = task_is_cancelled(&request->call) ? task_cancelled(&request->call)
                                          : run_call(&request->call);
    task_end(&request->call, r);
    dispatch->tasks_running--;
    request_destroy(&request);
}

static const char *name_of(const struct caller *caller)
{
    if (caller->user_name && *caller->user_name)
        return caller->user_name;
    return caller->is_pool ? "a holder of the pool secret" : "nobody by name";
}

void dispatch_log_asked(struct call *call, const char *what)
{
    const struct object *task = view_get(call_view(call), task, call->task);

    log_info(call->tag, "%s asked by %s from %s%s%s%s%s", call->name, name_of(&call->caller),
             call->caller.address ? call->caller.address : "inside", task ? ": task " : "",
             task ? task_get_uuid(task) : "", *what ? ", " : "", what);
}

void dispatch_log_refused(struct call *call)
{
    dispatch_log_asked(call, "");
    log_info(call->tag, "%s failed: %s", call->name, call->failure.text);
}

static void call_fiber(void *arg)
{
    struct request *request = arg;
    struct dispatch *dispatch = request->dispatch;
    struct call *call = &request->call;
    int r;

    dispatch->call_count++;
    tag_call(call);
    fiber_set_user(fiber_self(), call);
    r = check_call(request);
    if (r == 0 && call->method->acts == ACTS_READ) /* a reading message as a task */
        request_pin(request);
    if (r == 0)
        r = task_attach(call, request->text, request->task_id, request->subtask_of);
    if (r == 0 && call->is_async) {
        dispatch_log_asked(call, "");
        dispatch->task_count++;
        core_emit(call);
        call->reply = VALUE_REF(call->task);
        request->answer(request, 0, false);
        if (dispatch->tasks_running < TASK_SHARE(dispatch->fibers_max)) {
            finish_task(request);
        } else {
            task_suspend(call);
            queue_add(&dispatch->tasks, request);
        }
    } else {
        if (r == 0)
            r = run_call(call);
        if (r < 0 && !(call->method && call->method->acts == ACTS_READ))
            log_info(call->tag, "%s failed: %s", call->name, call->failure.text);
        task_detach(call);
        core_emit(call);
        request->answer(request, r, true);
    }
    dispatch->running--;
    run_next(dispatch);
}

static void task_fiber(void *arg)
{
    struct request *request = arg;
    struct dispatch *dispatch = request->dispatch;

    fiber_set_user(fiber_self(), &request->call);
    if (request->work) {
        tag_call(&request->call);
        dispatch->call_count++;
        dispatch->tasks_running++;
        request->work(request);
        dispatch->tasks_running--;
    } else {
        fiber_set_log_tag(fiber_self(), request->call.tag);
        task_resume(&request->call);
        finish_task(request);
    }
    dispatch->running--;
    run_next(dispatch);
}

/* A fiber has ended, or will when its caller returns: let the next begin. Those whose client waits
 * come first. */
static void run_next(struct dispatch *dispatch)
{
    if (dispatch->calls.first && start_fiber(dispatch, call_fiber, dispatch->calls.first))
        queue_take(&dispatch->calls);
    if (dispatch->tasks.first && dispatch->tasks_running < TASK_SHARE(dispatch->fibers_max)
        && start_fiber(dispatch, task_fiber, dispatch->tasks.first))
        queue_take(&dispatch->tasks);
}

static void refuse(struct request *request)
{
    request->dispatch->refused_count++;
    request->answer(request, fail(&request->call, TOO_MANY_PENDING_TASKS), true);
}

/* Running out of space is met here, before anything is begun: behind the floor stands room to end
 * what was. Sessions are not stored, nor does any call for a host in need write, and who mends this
 * must be able to log in and to ask. */
static int check_room(struct request *request)
{
    struct call *call = &request->call;
    const struct core *core = call->core;
    const struct method *method = call->method;
    bool is_free = method && (method->class == CLASS_OF(session) || method->flags & METHOD_EMERGENCY);

    if (core->read_only_why && !is_free && !(method && method->class == CLASS_OF(event)))
        return call_refuse_write(call);
    if (core->journal && !is_free && !journal_has_room(core->journal))
        return fail(call, OUT_OF_SPACE, "the master's store");
    return 0;
}

static void arrive(struct loop_item *item)
{
    struct request *request = CONTAINER_OF(item, struct request, item);
    struct dispatch *dispatch = request->dispatch;
    int r = check_room(request);

    if (r < 0)
        request->answer(request, r, true);
    else if (request->call.is_async && dispatch->tasks.count >= dispatch->tasks.count_max)
        refuse(request);
    else if (dispatch->calls.count >= dispatch->calls.count_max)
        refuse(request);
    else
        queue_add(&dispatch->calls, request);
    run_next(dispatch);
}

static void arrive_work(struct loop_item *item)
{
    struct request *request = CONTAINER_OF(item, struct request, item);
    struct dispatch *dispatch = request->dispatch;
    int r = dispatch->gate ? dispatch->gate(&request->call, NULL, dispatch->gate_arg) : 0;

    if (r == 0)
        r = check_room(request);
    if (r < 0)
        request->answer(request, r, true);
    else if (dispatch->tasks.count >= dispatch->tasks.count_max)
        refuse(request);
    else
        queue_add(&dispatch->tasks, request);
    run_next(dispatch);
}

static void forget_request(struct request *request)
{
    if (request->forgotten)
        request->forgotten(request);
    request_destroy(&request);
}

static void forget(struct loop_item *item)
{
    forget_request(CONTAINER_OF(item, struct request, item));
}

void dispatch_work(struct request *request, void (*work)(struct request *))
{
    request->work = work;
    request->item = (struct loop_item){.run = arrive_work, .drop = forget};
    loop_post(request->call.core->loop, &request->item);
}

/* ---- system.* ---- */

/* Answers what belongs to no class; false for all other names. */
static bool run_system(struct request *request)
{
    struct call *call = &request->call;

    if (!rpc_system(request->text, request->raw, request->raw_count, request->fault,
                    request->bad_text, call->arena, &call->reply, &call->is_bare, &call->failure))
        return false;
    call->name = request->text;
    request->answer(request, -call->failure.code, true);
    return true;
}

enum dispatched dispatch(struct request *request)
{
    const struct method *method;

    if (run_system(request))
        return DISPATCH_ANSWERED;
    read_request(request);
    method = request->call.method;
    if (!method || method->flags & (METHOD_LATER | METHOD_REMOVED)
        || (method->acts == ACTS_READ && !request->call.is_async))
        return run_read(request);
    request->item = (struct loop_item){.run = arrive, .drop = forget};
    loop_post(request->call.core->loop, &request->item);
    return DISPATCH_LATER;
}

/* ---- life ---- */

struct dispatch *dispatch_new(struct core *core, const struct dispatch_limits *limits)
{
    struct dispatch *dispatch = new0(struct dispatch);

    dispatch->core = core;
    dispatch->fibers_max = limits->fibers_max;
    dispatch->calls.count_max = limits->queue_max;
    dispatch->tasks.count_max = limits->tasks_max;
    return dispatch;
}

void dispatch_destroy(struct dispatch **dispatch_p)
{
    struct dispatch *dispatch = TAKE(*dispatch_p);
    struct request *request;

    if (!dispatch)
        return;
    while ((request = queue_take(&dispatch->calls)))
        forget_request(request);
    while ((request = queue_take(&dispatch->tasks)))
        forget_request(request);
    free(dispatch);
}

void dispatch_set_gate(struct dispatch *dispatch, dispatch_gate_fn *gate, void *arg)
{
    dispatch->gate = gate;
    dispatch->gate_arg = arg;
}

void dispatch_figures(struct dispatch *dispatch, struct dispatch_figures *ret)
{
    *ret = (struct dispatch_figures){
        .reads = dispatch->read_count,
        .calls = dispatch->call_count,
        .tasks = dispatch->task_count,
        .refused = dispatch->refused_count,
        .not_implemented = dispatch->later_count,
        .running = dispatch->running,
        .queued = dispatch->calls.count,
        .tasks_queued = dispatch->tasks.count,
    };
}

uint64_t dispatch_later_count(struct dispatch *dispatch, int method_number)
{
    return dispatch->later[method_number];
}
