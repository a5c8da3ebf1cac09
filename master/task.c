/* task.c - work that outlives its request: progress, cancel, result */
#include "master/task.h"

#include "master/core.h"
#include "master/put.h"
#include "master/store.h"
#include "shared/buffer.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/xmlrpc.h"

#define PROGRESS_MS 1000
#define COLLECT_MS  60000
#define RECENT_MS \
    300000 /* finished tasks that clients may still ask about: never counted against the cap */
#define COLLECT_BATCH    500    /* rows deleted in one transaction */
#define ROWS_MAX         400000 /* tasks there may be, of all states; more are refused */
#define RESULT_BYTES_MAX (16 << 20)
#define BUCKETS          1024

/* A call at work on a task. */
struct work {
    ref_t task;
    struct call *call;
    struct fiber *fiber; /* NULL while it waits for one */
    bool is_cancellable, is_cancel_wanted;
    double progress, written;
    uint64_t written_ms;
    struct timer flush; /* writes what was reported too soon */
    struct work *next;
};

struct ended {
    ref_t task;
    uint64_t ended_ms;
};

struct tasks {
    struct core *core;
    struct task_limits limits;
    struct work *works[BUCKETS];
    size_t work_count;
    struct ended
        *ended; /* finished tasks, oldest first: ended[(first + i) % room]; some may be gone */
    size_t first, count, room;
    struct timer collect;
    uint64_t pending_checked_ms;
};

/* ---- works ---- */

static struct work **work_slot(struct tasks *tasks, ref_t task)
{
    struct work **slot = &tasks->works[task.lo % BUCKETS];

    while (*slot && !ref_equal((*slot)->task, task))
        slot = &(*slot)->next;
    return slot;
}

static struct work *work_of(const struct call *call)
{
    struct work *work = ref_is_null(call->task) ? NULL : *work_slot(call->core->tasks, call->task);

    return work && work->call == call ? work : NULL;
}

/* Its client may have asked before anybody worked on it: task.create, task.cancel, then the upload. */
static bool row_wants_cancel(const struct object *task)
{
    const struct value *operations = task ? task_get_current_operations(task) : &VALUE_EMPTY_MAP;

    for (uint32_t i = 0; i < operations->length; i++)
        if (operations->items[2 * i + 1].e.index == task_allowed_operations_cancel)
            return true;
    return false;
}

static void work_begin(struct call *call)
{
    struct tasks *tasks = call->core->tasks;
    struct work **slot = work_slot(tasks, call->task);

    if (*slot)
        return; /* another call works on this task already: that one is told of a cancel */
    *slot = new0(struct work);
    (*slot)->task = call->task;
    (*slot)->call = call;
    (*slot)->fiber = fiber_self();
    (*slot)->is_cancel_wanted = row_wants_cancel(view_get(call_view(call), task, call->task));
    tasks->work_count++;
}

static void work_end(struct call *call)
{
    struct tasks *tasks = call->core->tasks;
    struct work *work = work_of(call);

    if (!work)
        return;
    *work_slot(tasks, call->task) = work->next;
    timer_stop(&work->flush);
    free(work);
    tasks->work_count--;
}

void task_suspend(struct call *call)
{
    struct work *work = work_of(call);

    if (work)
        work->fiber = NULL;
}

void task_resume(struct call *call)
{
    struct work *work = work_of(call);

    if (work)
        work->fiber = fiber_self();
}

/* ---- progress and cancel ---- */

bool task_is_pending(const struct object *task)
{
    return task
           && (task_get_status(task) == task_status_type_pending
               || task_get_status(task) == task_status_type_cancelling);
}

static void progress_write(void *arg)
{
    struct work *work = arg;
    struct core *core = work->call->core;
    _cleanup_(txn_end) struct txn *txn = NULL;

    work->written_ms = clock_now_ms(core->clock);
    work->written = work->progress;
    txn = store_begin(core->store);
    if (task_is_pending(txn_get(txn, task, work->task)))
        task_put_progress(txn, work->task, work->progress);
    store_apply(&txn);
}

void task_progress(struct call *call, double share)
{
    struct work *work = work_of(call);
    uint64_t now = clock_now_ms(call->core->clock);

    if (!work || !(share > work->progress))
        return;
    work->progress = MIN(share, 1.0);
    if (now >= work->written_ms + PROGRESS_MS)
        progress_write(work);
    else if (!timer_is_running(&work->flush))
        timer_start_at(call->core->loop, &work->flush, work->written_ms + PROGRESS_MS,
                       progress_write, work);
}

static void allowed_write(struct call *call, bool is_cancellable)
{
    struct value cancel = VALUE_ENUM(task_allowed_operations, task_allowed_operations_cancel);
    struct value allowed = VALUE_SET(is_cancellable, &cancel);
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    if (task_is_pending(txn_get(txn, task, call->task)))
        task_put_allowed_operations(txn, call->task, &allowed);
    store_apply(&txn);
}

void task_set_cancellable(struct call *call, bool is_cancellable)
{
    struct work *work = work_of(call);

    if (!work || work->is_cancellable == is_cancellable)
        return;
    work->is_cancellable = is_cancellable;
    allowed_write(call, is_cancellable);
    if (work->fiber && work->is_cancel_wanted) {
        if (is_cancellable)
            fiber_cancel(work->fiber);
        else
            fiber_cancel_clear(work->fiber);
    }
}

bool task_is_cancelled(const struct call *call)
{
    struct work *work = work_of(call);

    return work && work->is_cancel_wanted;
}

int task_cancelled(struct call *call)
{
    return fail(call, TASK_CANCELLED, ref_text(call, call->task));
}

void task_want_cancel(struct core *core, ref_t task)
{
    struct work *work = *work_slot(core->tasks, task);

    if (!work)
        return;
    work->is_cancel_wanted = true;
    if (work->is_cancellable && work->fiber)
        fiber_cancel(work->fiber);
}

bool task_has_work(const struct core *core, ref_t task)
{
    return *work_slot(core->tasks, task);
}

/* ---- a new one ---- */

int task_new(struct call *call, const char *label, const char *description, ref_t parent,
             ref_t *ret)
{
    struct core *core = call->core;
    const struct class *class = CLASS_OF(task);
    struct value *fields =
        arena_alloc_array(call->arena, (size_t) class->field_count, sizeof *fields);
    _cleanup_(txn_end) struct txn *txn = NULL;

    if (view_count(call_view(call), class) >= ROWS_MAX)
        return fail(call, TOO_MANY_PENDING_TASKS);
    for (int i = 0; i < class->field_count; i++)
        fields[i] = class->fields[i].initial;
    fields[F_task_name_label] = value_text(label);
    fields[F_task_name_description] = value_text(description);
    fields[F_task_created] = VALUE_DATETIME(clock_utc_s(core->clock));
    fields[F_task_status] = VALUE_ENUM(task_status_type, task_status_type_pending);
    fields[F_task_session] = VALUE_REF(call->caller.session);
    fields[F_task_owner] = value_text(call->caller.user_name ? call->caller.user_name : "");
    fields[F_task_resident_on] = VALUE_REF(core->host);
    fields[F_task_type] = value_text("<none/>");
    fields[F_task_subtask_of] = VALUE_REF(parent);
    txn = store_begin(core->store);
    *ret = txn_create_new(txn, core->random, class, fields);
    return call_commit(call, &txn);
}

/* A task named in a request's header: it must be there and not over. */
static int task_of_header(struct call *call, const char *text, ref_t *ret)
{
    ref_t ref;

    if (!ref_parse(text, strlen(text), &ref)
        || !task_is_pending(view_get(call_view(call), task, ref)))
        return fail(call, HANDLE_INVALID, "task", text);
    *ret = ref;
    return 0;
}

static void attach(struct call *call)
{
    call->tag = ref_text(call, call->task);
    fiber_set_log_tag(fiber_self(), call->tag);
    work_begin(call);
}

int task_attach_new(struct call *call, const char *label, const char *description,
                    const char *subtask_of)
{
    ref_t parent = NULL_REF;
    int r = subtask_of ? task_of_header(call, subtask_of, &parent) : 0;

    if (r == 0)
        r = task_new(call, label, description, parent, &call->task);
    if (r == 0)
        attach(call);
    return r;
}

int task_attach(struct call *call, const char *name, const char *task_id, const char *subtask_of)
{
    const struct work *work;
    ref_t task;
    int r;

    if (call->is_async)
        return task_attach_new(call, name, "", subtask_of);
    if (!task_id)
        return 0;
    r = task_of_header(call, task_id, &task);
    if (r < 0)
        return r;
    work = *work_slot(call->core->tasks, task);
    if (work) /* whose end would be taken for that of the other */
        return fail(call, OTHER_OPERATION_IN_PROGRESS, "task", task_id, work->call->name, task_id);
    call->task = task;
    attach(call);
    return 0;
}

void task_detach(struct call *call)
{
    work_end(call);
}

/* ---- the end ---- */

static void ended_add(struct tasks *tasks, ref_t task, uint64_t ended_ms)
{
    if (tasks->count == tasks->room) {
        size_t room = MAX((size_t) 1024, 2 * tasks->room);
        struct ended *ended = new0_array(struct ended, room);

        for (size_t i = 0; i < tasks->count; i++)
            ended[i] = tasks->ended[(tasks->first + i) % tasks->room];
        free(tasks->ended);
        tasks->ended = ended;
        tasks->first = 0;
        tasks->room = room;
    }
    tasks->ended[(tasks->first + tasks->count++) % tasks->room] = (struct ended){task, ended_ms};
}

static bool wants_destroy(const struct object *task)
{
    const struct value *operations = task_get_current_operations(task);

    for (uint32_t i = 0; i < operations->length; i++)
        if (operations->items[2 * i + 1].e.index == task_allowed_operations_destroy)
            return true;
    return false;
}

void task_put_ended(struct core *core, struct txn *txn, ref_t ref, enum task_status_type status)
{
    struct value no_operations = VALUE_EMPTY_MAP, none = VALUE_EMPTY_SET;

    if (wants_destroy(txn_get(txn, task, ref))) { /* its client does not want to know */
        txn_delete(txn, CLASS_OF(task), ref);
        return;
    }
    task_put_current_operations(txn, ref, &no_operations);
    task_put_allowed_operations(txn, ref, &none);
    task_put_finished(txn, ref, clock_utc_s(core->clock));
    task_put_progress(txn, ref, 1.0);
    task_put_status(txn, ref, status);
    ended_add(core->tasks, ref, clock_now_ms(core->clock));
}

bool task_put_end(struct core *core, struct txn *txn, ref_t ref, const struct value *result,
                  const struct failure *failure)
{
    if (!task_is_pending(txn_get(txn, task, ref)))
        return false;
    if (failure) {
        struct value items[FAILURE_PARAMS_MAX + 1];
        struct value error_info = VALUE_SET(failure->count + 1, items);

        items[0] = value_text(failure->text);
        for (unsigned i = 0; i < failure->count; i++)
            items[i + 1] = value_text(failure->params[i]);
        task_put_error_info(txn, ref, &error_info);
    } else {
        _cleanup_(buffer_done) struct buffer text = {0};

        buffer_init(&text, RESULT_BYTES_MAX);
        xmlrpc_value(&text, result);
        task_put_result(txn, ref, text.is_full ? "" : buffer_text(&text));
    }
    task_put_ended(core, txn, ref,
                   !failure                              ? task_status_type_success
                   : failure->code == ERR_TASK_CANCELLED ? task_status_type_cancelled
                                                         : task_status_type_failure);
    return true;
}

void task_put_refused(struct core *core, struct txn *txn, const char *task,
                      const struct failure *failure)
{
    ref_t ref;

    if (ref_parse(task, strlen(task), &ref) && !task_has_work(core, ref))
        task_put_end(core, txn, ref, NULL, failure);
}

void task_end(struct call *call, int r)
{
    _cleanup_(txn_end) struct txn *txn = NULL;

    work_end(call);
    fiber_cancel_clear(fiber_self());
    if (r < 0)
        log_info(call->tag, "%s failed: %s", call->name, call->failure.text);
    else
        log_info(call->tag, "%s succeeded", call->name);
    txn = store_begin(call->core->store);
    task_put_end(call->core, txn, call->task, &call->reply, r < 0 ? &call->failure : NULL);
    call_commit(call, &txn);
}

/* ---- collection ---- */

/* Entries of tasks that clients have destroyed go, when they are most of the list. */
static void ended_sift(struct tasks *tasks, struct txn *txn)
{
    size_t kept = 0;

    for (size_t i = 0; i < tasks->count; i++) {
        struct ended ended = tasks->ended[(tasks->first + i) % tasks->room];

        if (txn_get(txn, task, ended.task))
            tasks->ended[(tasks->first + kept++) % tasks->room] = ended;
    }
    tasks->count = kept;
}

/* Pending rows that nobody works on: those that are to be destroyed go now, the others after a day.
 */
static void collect_pending(struct tasks *tasks, struct txn *txn)
{
    int64_t now_s = clock_utc_s(tasks->core->clock);
    ref_t gone[COLLECT_BATCH];
    struct view_iter iter;
    const struct object *task;
    size_t n = 0;

    view_each(&iter, txn_view(txn), CLASS_OF(task));
    while (n < COLLECT_BATCH && (task = view_next(&iter)))
        if (task_is_pending(task) && !task_has_work(tasks->core, task->ref)
            && (wants_destroy(task)
                || task_get_created(task) + (int64_t) tasks->limits.pending_s < now_s))
            gone[n++] = task->ref;
    for (size_t i = 0; i < n; i++)
        txn_delete(txn, CLASS_OF(task), gone[i]);
}

static void collect(void *arg)
{
    struct tasks *tasks = arg;
    struct core *core = tasks->core;
    uint64_t now = clock_now_ms(core->clock);
    _cleanup_(txn_end) struct txn *txn = store_begin(core->store);
    size_t rows = view_count(txn_view(txn), CLASS_OF(task)), recent = 0, dropped = 0;

    if (tasks->count > 2 * rows + 1024)
        ended_sift(tasks, txn);
    while (recent < tasks->count
           && tasks->ended[(tasks->first + tasks->count - 1 - recent) % tasks->room].ended_ms
                      + RECENT_MS
                  > now)
        recent++;
    while (tasks->count > 0 && dropped < COLLECT_BATCH) {
        struct ended oldest = tasks->ended[tasks->first];
        const struct object *task = txn_get(txn, task, oldest.task);
        bool is_old = oldest.ended_ms + tasks->limits.kept_s * 1000 <= now;
        bool is_over =
            rows > tasks->limits.kept_max + recent + tasks->work_count && tasks->count > recent;

        if (task && !is_old && !is_over)
            break;
        if (task) {
            txn_delete(txn, CLASS_OF(task), oldest.task);
            rows--;
            dropped++;
        }
        tasks->first = (tasks->first + 1) % tasks->room;
        tasks->count--;
    }
    if (now >= tasks->pending_checked_ms + 60 * COLLECT_MS) {
        tasks->pending_checked_ms = now;
        collect_pending(tasks, txn);
    }
    store_apply(&txn);
    timer_start(core->loop, &tasks->collect, dropped == COLLECT_BATCH ? 10 : COLLECT_MS, collect,
                tasks);
}

/* ---- life ---- */

static int by_end(const void *a, const void *b)
{
    uint64_t x = ((const struct ended *) a)->ended_ms, y = ((const struct ended *) b)->ended_ms;

    return x < y ? -1 : x > y;
}

static bool has_intent(const struct view *view, ref_t task)
{
    struct view_iter iter;
    const struct object *intent;

    view_each(&iter, view, CLASS_OF(intent));
    while ((intent = view_next(&iter)))
        if (ref_equal(intent_get_task(intent), task))
            return true;
    return false;
}

void tasks_recover(struct core *core)
{
    struct tasks *tasks = core->tasks;
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    _cleanup_(txn_end) struct txn *txn = store_begin(core->store);
    const struct view *view = txn_view(txn);
    ref_t *lost = arena_alloc_array(arena, view_count(view, CLASS_OF(task)), sizeof *lost);
    uint64_t now_ms = clock_now_ms(core->clock);
    int64_t now_s = clock_utc_s(core->clock);
    struct failure failure = {0};
    struct view_iter iter;
    const struct object *task;
    size_t n = 0;

    view_each(&iter, view, CLASS_OF(task));
    while ((task = view_next(&iter))) {
        uint64_t age_ms = (uint64_t) MAX(now_s - task_get_finished(task), 0) * 1000;

        if (!task_is_pending(task))
            ended_add(tasks, task->ref, now_ms > age_ms ? now_ms - age_ms : 0);
        else if (!has_intent(view, task->ref))
            lost[n++] = task->ref;
    }
    if (tasks->count > 0)
        qsort(tasks->ended, tasks->count, sizeof *tasks->ended, by_end);
    failure_set(&failure, arena, INTERNAL_ERROR,
                "the master was restarted while this was under way");
    for (size_t i = 0; i < n; i++)
        task_put_end(core, txn, lost[i], NULL, &failure);
    store_apply(&txn);
}

struct tasks *tasks_new(struct core *core, const struct task_limits *limits)
{
    struct tasks *tasks = new0(struct tasks);

    tasks->core = core;
    tasks->limits = *limits;
    timer_start(core->loop, &tasks->collect, COLLECT_MS, collect, tasks);
    return tasks;
}

void tasks_destroy(struct tasks **tasks_p)
{
    struct tasks *tasks = TAKE(*tasks_p);

    if (!tasks)
        return;
    timer_stop(&tasks->collect);
    for (size_t i = 0; i < BUCKETS; i++) {
        while (tasks->works[i]) {
            struct work *work = TAKE(tasks->works[i]);

            tasks->works[i] = work->next;
            timer_stop(&work->flush);
            free(work);
        }
    }
    free(tasks->ended);
    free(tasks);
}
