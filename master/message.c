/* message.c - what the pool tells its operators
 *
 * Messages are made in the transaction of what they tell about, so neither exists without the
 * other. Clients read them with message.get and its kin, or as events; they stay until someone
 * destroys them, or until MESSAGES_MAX newer ones have come. */
#include "master/message.h"

#include "master/filter.h"
#include "master/handler.h"
#include "master/listing.h"

/* xapi keeps about as many; a pool that raises more than these faster than anyone reads has other
 * troubles. */
#define MESSAGES_MAX 10000

/* The message that has not changed for longest: messages never change, so the oldest. */
static void drop_oldest(struct txn *txn)
{
    struct view_iter by_age;
    const struct object *message;

    view_each_changed(&by_age, txn_view(txn), CLASS_OF(message), 0);
    message = view_next(&by_age);
    if (message)
        txn_delete(txn, CLASS_OF(message), message->ref);
}

ref_t message_raise(struct txn *txn, struct core *core, const char *name, int64_t priority,
                    enum cls cls, const char *obj_uuid, const char *body)
{
    struct value fields[F_message_body + 1] = {
        [F_message_name] = value_text(name),
        [F_message_priority] = VALUE_INT(priority),
        [F_message_cls] = VALUE_ENUM(cls, (int) cls),
        [F_message_obj_uuid] = value_text(obj_uuid),
        [F_message_timestamp] = VALUE_DATETIME(clock_utc_s(core->clock)),
        [F_message_body] = value_text(body),
    };

    assert(CLASS_OF(message)->field_count == ARRAY_SIZE(fields));
    if (view_count(txn_view(txn), CLASS_OF(message)) >= MESSAGES_MAX)
        drop_oldest(txn);
    return txn_create_new(txn, core->random, CLASS_OF(message), fields);
}

void message_about_vm(struct txn *txn, struct core *core, const char *name, int64_t priority,
                      ref_t vm_ref, ref_t host_ref, const char *what)
{
    const struct object *vm = txn_get(txn, VM, vm_ref), *host = txn_get(txn, host, host_ref);
    struct arena *arena = arena_new();

    message_raise(txn, core, name, priority, cls_VM, VM_get_uuid(vm),
                  arena_text(arena, "VM '%s' %s%s%s%s", VM_get_name_label(vm), what,
                             host ? " on host '" : "", host ? host_get_name_label(host) : "",
                             host ? "'" : ""));
    arena_destroy(&arena);
}

/* ---- calls ---- */

static const struct class *class_of_cls(enum cls cls)
{
    switch (cls) {
    case cls_VM:
        return CLASS_OF(VM);
    case cls_Host:
        return CLASS_OF(host);
    case cls_SR:
        return CLASS_OF(SR);
    case cls_Pool:
        return CLASS_OF(pool);
    case cls_VMPP:
        return CLASS_OF(VMPP);
    case cls_VMSS:
        return CLASS_OF(VMSS);
    case cls_PVS_proxy:
        return CLASS_OF(PVS_proxy);
    case cls_VDI:
        return CLASS_OF(VDI);
    default:
        return CLASS_OF(Certificate);
    }
}

int message_create(struct call *call, const struct message_create_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    if (!view_by_uuid(txn_view(txn), class_of_cls(args->cls), args->obj_uuid)) {
        call_view(call);
        return fail(call, UUID_INVALID, class_of_cls(args->cls)->name, args->obj_uuid);
    }
    *ret = VALUE_REF(message_raise(txn, call->core, args->name, args->priority, args->cls,
                                   args->obj_uuid, args->body));
    return call_commit(call, &txn);
}

int message_destroy(struct call *call, const struct message_destroy_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    (void) ret;
    if (!live(call, txn_view(txn), message, args->self))
        return -ERR_HANDLE_INVALID;
    txn_delete(txn, CLASS_OF(message), args->self);
    return call_commit(call, &txn);
}

int message_destroy_many(struct call *call, const struct message_destroy_many_args *args,
                         struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    (void) ret;
    for (uint32_t i = 0; i < args->messages->length; i++)
        if (txn_get(txn, message, args->messages->items[i].ref)) /* gone already is as good */
            txn_delete(txn, CLASS_OF(message), args->messages->items[i].ref);
    return call_commit(call, &txn);
}

/* The record as a value: the class has no derived fields, so it is the object's own. */
static struct value record_of(struct call *call, const struct object *message)
{
    struct value record = {.kind = KIND_RECORD, .record = {CLASS_OF(message), message->fields}};

    return value_copy(call->arena, &record);
}

/* Which messages a reader wants. */
struct wanted {
    int64_t since_utc;
    const char *obj_uuid; /* NULL: of any object */
    enum cls cls;
};

static bool is_wanted(const struct object *message, const struct wanted *wanted)
{
    return message_get_timestamp(message) >= wanted->since_utc
           && (!wanted->obj_uuid
               || (message_get_cls(message) == wanted->cls
                   && streq(message_get_obj_uuid(message), wanted->obj_uuid)));
}

static struct value records(struct call *call, const struct wanted *wanted)
{
    const struct view *view = call_view(call);
    size_t room = 2 * view_count(view, CLASS_OF(message));
    struct value *items = arena_alloc_array(call->arena, room, sizeof *items);
    const struct object *message;
    struct view_iter all;
    uint32_t count = 0;

    view_each(&all, view, CLASS_OF(message));
    while ((message = view_next(&all))) {
        if (!is_wanted(message, wanted))
            continue;
        items[2 * count] = VALUE_REF(message->ref);
        items[2 * count + 1] = record_of(call, message);
        count++;
    }
    return VALUE_MAP(count, items);
}

int message_get(struct call *call, const struct message_get_args *args, struct value *ret)
{
    *ret = records(call, &(struct wanted){args->since, args->obj_uuid, args->cls});
    return 0;
}

int message_get_since(struct call *call, const struct message_get_since_args *args,
                      struct value *ret)
{
    *ret = records(call, &(struct wanted){args->since, NULL, cls_VM});
    return 0;
}

/* Listings are written piece by piece, however many there are. */
static int list(struct call *call, const struct filter *filter, bool with_records)
{
    call->listing =
        listing_objects(call->arena, call_view(call), CLASS_OF(message), filter, with_records);
    return 0;
}

int message_get_all(struct call *call, const struct message_get_all_args *args, struct value *ret)
{
    (void) args, (void) ret;
    return list(call, NULL, false);
}

int message_get_all_records(struct call *call, const struct message_get_all_records_args *args,
                            struct value *ret)
{
    (void) args, (void) ret;
    return list(call, NULL, true);
}

int message_get_all_records_where(struct call *call,
                                  const struct message_get_all_records_where_args *args,
                                  struct value *ret)
{
    struct filter *filter;
    int r = filter_parse(args->expr, CLASS_OF(message), call->arena, &filter, &call->failure);

    (void) ret;
    return r < 0 ? r : list(call, filter, true);
}

int message_get_record(struct call *call, const struct message_get_record_args *args,
                       struct value *ret)
{
    const struct object *message = live(call, call_view(call), message, args->self);

    if (!message)
        return -ERR_HANDLE_INVALID;
    *ret = record_of(call, message);
    return 0;
}

int message_get_by_uuid(struct call *call, const struct message_get_by_uuid_args *args,
                        struct value *ret)
{
    const struct object *message = view_by_uuid(call_view(call), CLASS_OF(message), args->uuid);

    if (!message)
        return fail(call, UUID_INVALID, "message", args->uuid);
    *ret = VALUE_REF(message->ref);
    return 0;
}
