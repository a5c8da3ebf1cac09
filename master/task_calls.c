/* task_calls.c - the messages of class task
 *
 * A task belongs to the user who began it, whatever session is used; others' tasks take the pool
 * operator's role. Clients may move tasks that are not over, as external workers do; what has ended
 * stays as it is. */
#include "master/call.h"
#include "master/core.h"
#include "master/put.h"
#include "master/roles.h"
#include "master/task.h"

static int may_touch(struct call *call, const struct object *task)
{
    if (ref_equal(task_get_session(task), call->caller.session)
        && !ref_is_null(call->caller.session))
        return 0;
    if (*task_get_owner(task) && streq(task_get_owner(task), call->caller.user_name))
        return 0;
    return role_require(call, ROLE_POOL_OPERATOR,
                        arena_text(call->arena, "%s/any", call->method->name));
}

/* The row, live in this transaction, of a task that the caller may touch. */
static int begin(struct call *call, ref_t ref, struct txn **txn, const struct object **ret)
{
    const struct object *task;

    *txn = store_begin(call->core->store);
    task = txn_get(*txn, task, ref);
    if (!task)
        return fail(call, HANDLE_INVALID, "task", ref_text(call, ref));
    *ret = task;
    return may_touch(call, task);
}

static int begin_pending(struct call *call, ref_t ref, struct txn **txn, const struct object **ret)
{
    int r = begin(call, ref, txn, ret);

    if (r < 0)
        return r;
    if (!task_is_pending(*ret))
        return fail(call, OPERATION_NOT_ALLOWED, "the task has ended");
    return 0;
}

int task_create(struct call *call, const struct task_create_args *args, struct value *ret)
{
    ref_t task;
    int r = task_new(call, args->label, args->description, NULL_REF, &task);

    if (r < 0)
        return r;
    *ret = VALUE_REF(task);
    return 0;
}

static void put_operation(struct call *call, struct txn *txn, const struct object *task,
                          int operation)
{
    struct value key = value_text(call->tag),
                 value = VALUE_ENUM(task_allowed_operations, operation);
    struct value operations =
        value_map_with(call->arena, task_get_current_operations(task), &key, &value);

    task_put_current_operations(txn, task->ref, &operations);
}

int task_destroy(struct call *call, const struct task_destroy_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *task;
    int r = begin(call, args->self, &txn, &task);

    (void) ret;
    if (r < 0)
        return r;
    if (task_is_pending(task))
        put_operation(call, txn, task,
                      task_allowed_operations_destroy); /* task_put_ended() deletes it */
    else
        txn_delete(txn, CLASS_OF(task), args->self);
    return call_commit(call, &txn);
}

int task_cancel(struct call *call, const struct task_cancel_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *task;
    int r = begin_pending(call, args->task, &txn, &task);

    (void) ret;
    if (r < 0)
        return r;
    put_operation(call, txn, task, task_allowed_operations_cancel);
    r = call_commit(call, &txn);
    task_want_cancel(call->core, args->task);
    return r;
}

int task_set_status(struct call *call, const struct task_set_status_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *task;
    int r = begin_pending(call, args->self, &txn, &task);

    (void) ret;
    if (r < 0)
        return r;
    if (args->value == task_status_type_pending || args->value == task_status_type_cancelling)
        task_put_status(txn, args->self, args->value);
    else if (task_has_work(call->core, args->self))
        return fail(call, OPERATION_NOT_ALLOWED, "the task ends with the call that works on it");
    else
        task_put_ended(call->core, txn, args->self, args->value);
    return call_commit(call, &txn);
}

int task_set_progress(struct call *call, const struct task_set_progress_args *args,
                      struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *task;
    int r = begin_pending(call, args->self, &txn, &task);

    (void) ret;
    if (r < 0)
        return r;
    if (!(args->value >= 0 && args->value <= 1))
        return fail(call, INVALID_VALUE, "value", arena_text(call->arena, "%.16g", args->value));
    task_put_progress(txn, args->self, args->value);
    return call_commit(call, &txn);
}

int task_set_result(struct call *call, const struct task_set_result_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *task;
    int r = begin_pending(call, args->self, &txn, &task);

    (void) ret;
    if (r < 0)
        return r;
    task_put_result(txn, args->self, args->value);
    return call_commit(call, &txn);
}

int task_set_error_info(struct call *call, const struct task_set_error_info_args *args,
                        struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *task;
    int r = begin_pending(call, args->self, &txn, &task);

    (void) ret;
    if (r < 0)
        return r;
    task_put_error_info(txn, args->self, args->value);
    return call_commit(call, &txn);
}

/* ---- other_config ---- */

int task_add_to_other_config(struct call *call, const struct task_add_to_other_config_args *args,
                             struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *task;
    struct value key = value_text(args->key), value = value_text(args->value), map;
    int r = begin(call, args->self, &txn, &task);

    (void) ret;
    if (r < 0)
        return r;
    if (value_map_find(task_get_other_config(task), args->key))
        return fail(call, MAP_DUPLICATE_KEY, "task", "other_config", ref_text(call, args->self),
                    args->key);
    map = value_map_with(call->arena, task_get_other_config(task), &key, &value);
    task_put_other_config(txn, args->self, &map);
    return call_commit(call, &txn);
}

int task_remove_from_other_config(struct call *call,
                                  const struct task_remove_from_other_config_args *args,
                                  struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *task;
    struct value key = value_text(args->key), map;
    int r = begin(call, args->self, &txn, &task);

    (void) ret;
    if (r < 0)
        return r;
    map = value_map_without(call->arena, task_get_other_config(task), &key);
    task_put_other_config(txn, args->self, &map);
    return call_commit(call, &txn);
}

int task_set_other_config(struct call *call, const struct task_set_other_config_args *args,
                          struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *task;
    int r = begin(call, args->self, &txn, &task);

    (void) ret;
    if (r < 0)
        return r;
    task_put_other_config(txn, args->self, args->value);
    return call_commit(call, &txn);
}
