/* claim.c - long operations claim the objects they work on
 *
 * What others see of a claim is the object's current_operations in the store. Beside it stands, for
 * each object with live claims or with fibers that wait for it, one `struct claimed`: whom to
 * cancel, and whom to wake. */
#include "master/claim.h"

#include <errno.h>

#include "master/core.h"
#include "master/lifecycle.h"
#include "master/task.h"
#include "shared/fiber.h"
#include "shared/refmap.h"

/* wire.md section 10; xapi polls meanwhile, we are woken. */
#define WAIT_MS_MAX (2 * 3600 * 1000ull)

struct claimed {
    struct claim *live;
    struct waitq ended; /* woken when a claim ends */
    unsigned waiters;
};

struct claims {
    struct refmap objects; /* of struct claimed, by the object's ref */
};

struct claims *claims_new(void)
{
    return new0(struct claims);
}

void claims_destroy(struct claims **claims_p)
{
    struct claims *claims = TAKE(*claims_p);
    void *claimed;

    if (!claims)
        return;
    for (size_t i = 0; refmap_each(&claims->objects, &i, NULL, &claimed);)
        free(claimed);
    refmap_done(&claims->objects);
    free(claims);
}

/* ---- who is at work, and who waits ---- */

static struct claimed *claimed_of(struct claims *claims, ref_t ref)
{
    struct claimed *claimed = refmap_get(&claims->objects, ref);

    if (!claimed) {
        claimed = new0(struct claimed);
        refmap_put(&claims->objects, ref, claimed);
    }
    return claimed;
}

static void claimed_drop_unused(struct claims *claims, ref_t ref, struct claimed *claimed)
{
    if (claimed->live || claimed->waiters)
        return;
    refmap_take(&claims->objects, ref);
    free(claimed);
}

static void wake(struct core *core, ref_t ref)
{
    struct claimed *claimed = refmap_get(&core->claims->objects, ref);

    if (claimed)
        waitq_wake_all(&claimed->ended);
}

static void go_live(struct claim *claim, struct call *call, const struct class *class, ref_t ref,
                    int operation)
{
    struct claimed *claimed = claimed_of(call->core->claims, ref);

    assert(!claim->call);
    *claim =
        (struct claim){call, class, ref, operation, fiber_self(), claimed->live, &claimed->live};
    if (claimed->live)
        claimed->live->link = &claim->next;
    claimed->live = claim;
}

static void leave(struct claim *claim)
{
    struct claims *claims = claim->call->core->claims;
    struct claimed *claimed = refmap_get(&claims->objects, claim->ref);

    *claim->link = claim->next;
    if (claim->next)
        claim->next->link = claim->link;
    waitq_wake_all(&claimed->ended);
    claimed_drop_unused(claims, claim->ref, claimed);
    claim->call = NULL;
}

struct call *claim_live_call(const struct core *core, ref_t ref)
{
    const struct claimed *claimed = refmap_get(&core->claims->objects, ref);

    return claimed && claimed->live ? claimed->live->call : NULL;
}

int claim_wait_object(struct call *call, ref_t ref, uint64_t deadline_ms)
{
    struct claims *claims = call->core->claims;
    struct claimed *claimed = claimed_of(claims, ref);
    int r;

    claimed->waiters++;
    task_set_cancellable(call, true);
    r = waitq_wait(&claimed->ended, deadline_ms);
    task_set_cancellable(call, false);
    claimed->waiters--;
    claimed_drop_unused(claims, ref, claimed);
    return r == -ECANCELED ? fail(call, TASK_CANCELLED, ref_text(call, call->task)) : 0;
}

static int wait_until(struct call *call, uint64_t deadline_ms)
{
    ref_t busy = call->failure.in_way;

    assert(call->failure.code == ERR_OTHER_OPERATION_IN_PROGRESS);
    if (loop_now_ms(call->core->loop) >= deadline_ms
        || (ref_is_null(busy)
            && !ref_parse(call->failure.params[1], strlen(call->failure.params[1]), &busy)))
        return -ERR_OTHER_OPERATION_IN_PROGRESS;
    return claim_wait_object(call, busy, deadline_ms);
}

int claim_wait(struct call *call, uint64_t since_ms)
{
    return wait_until(call, since_ms + WAIT_MS_MAX);
}

/* ---- current_operations ---- */

static int operations_field(const struct class *class)
{
    switch (class->number) {
    case CLASS_NUMBER_VM:
        return F_VM_current_operations;
    case CLASS_NUMBER_VBD:
        return F_VBD_current_operations;
    case CLASS_NUMBER_VIF:
        return F_VIF_current_operations;
    case CLASS_NUMBER_VDI:
        return F_VDI_current_operations;
    case CLASS_NUMBER_SR:
        return F_SR_current_operations;
    case CLASS_NUMBER_host:
        return F_host_current_operations;
    case CLASS_NUMBER_pool:
        return F_pool_current_operations;
    case CLASS_NUMBER_network:
        return F_network_current_operations;
    default:
        die("a %s cannot be claimed", class->name);
    }
}

static void put_operation(struct txn *txn, const struct class *class, ref_t ref, const char *tag,
                          int operation)
{
    const struct field *field = &class->fields[operations_field(class)];
    const struct object *object = view_object(txn_view(txn), class, ref);
    struct value key = value_text(tag);
    struct value name = {.kind = KIND_ENUM, .e = {field->type->element->enum_type, operation}};
    struct arena *arena = arena_new();

    txn_put(txn, class, ref, field->number,
            value_map_with(arena, &object->fields[field->number], &key, &name));
    arena_destroy(&arena);
}

static void drop_operation(struct txn *txn, const struct class *class, ref_t ref, const char *tag)
{
    int field = operations_field(class);
    const struct object *object = view_object(txn_view(txn), class, ref);
    struct value key = value_text(tag);
    struct arena *arena;

    if (!object) /* destroyed by the operation itself */
        return;
    arena = arena_new();
    txn_put(txn, class, ref, field, value_map_without(arena, &object->fields[field], &key));
    arena_destroy(&arena);
}

/* ---- a claim's life ---- */

int claim_begin_txn(struct claim *claim, struct call *call, struct txn *txn,
                    const struct class *class, ref_t ref, int operation)
{
    const struct object *object = view_object(txn_view(txn), class, ref);
    int r;

    if (!object)
        return fail(call, HANDLE_INVALID, class->name, ref_text(call, ref));
    r = operation_check(txn_view(txn), object, operation, false, call->arena, &call->failure);
    if (r < 0)
        return r;
    /* One call holds at most one claim on an object: the tag is the key. */
    assert(!value_map_find(&object->fields[operations_field(class)], call->tag));
    put_operation(txn, class, ref, call->tag, operation);
    go_live(claim, call, class, ref, operation);
    return 0;
}

int claim_take_txn(struct claim *claim, struct call *call, struct txn *txn,
                   const struct class *class, ref_t ref, int operation, bool beside_others)
{
    const struct object *object = view_object(txn_view(txn), class, ref);
    const struct value *others;

    if (!object)
        return fail(call, HANDLE_INVALID, class->name, ref_text(call, ref));
    others = &object->fields[operations_field(class)];
    if (others->length > 0 && !beside_others)
        return fail(call, OTHER_OPERATION_IN_PROGRESS, class->name, ref_text(call, ref),
                    enum_text(others->items[1].e.type, others->items[1].e.index),
                    others->items[0].text);
    assert(!value_map_find(others, call->tag));
    put_operation(txn, class, ref, call->tag, operation);
    go_live(claim, call, class, ref, operation);
    return 0;
}

int claim_begin_within(struct claim *claim, struct call *call, const struct class *class, ref_t ref,
                       int operation, uint64_t wait_ms)
{
    uint64_t deadline_ms = loop_now_ms(call->core->loop) + wait_ms;
    int r;

    for (;;) {
        _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

        call_view(call); /* a refusal, too, rests on what is there */
        r = claim_begin_txn(claim, call, txn, class, ref, operation);
        if (r == 0)
            call->depends = MAX(call->depends, store_apply(&txn));
        if (r != -ERR_OTHER_OPERATION_IN_PROGRESS)
            return r;
        txn_end(&txn);
        r = wait_until(call, deadline_ms);
        if (r < 0)
            return r;
    }
}

int claim_begin(struct claim *claim, struct call *call, const struct class *class, ref_t ref,
                int operation)
{
    return claim_begin_within(claim, call, class, ref, operation, WAIT_MS_MAX);
}

int claim_alone(struct claim *claim)
{
    struct claimed *claimed = refmap_get(&claim->call->core->claims->objects, claim->ref);

    for (;;) {
        struct claim *other;
        bool is_alone = true;
        int r;

        for (other = claimed->live; other; other = other->next) {
            if (other == claim)
                continue;
            is_alone = false;
            if (other->fiber && !fiber_is_cancelled(other->fiber))
                fiber_cancel(other->fiber);
        }
        if (is_alone)
            return 0;
        r = claim_wait_object(claim->call, claim->ref, 0);
        if (r < 0)
            return r;
    }
}

void claim_end_txn(struct claim *claim, struct txn *txn)
{
    if (!claim->call)
        return;
    drop_operation(txn, claim->class, claim->ref, claim->call->tag);
    leave(claim);
}

void claim_end(struct claim *claim)
{
    struct call *call = claim->call;
    struct txn *txn;

    if (!call)
        return;
    txn = store_begin(call->core->store);
    claim_end_txn(claim, txn);
    call->depends = MAX(call->depends, store_apply(&txn));
}

void claim_keep(struct claim *claim)
{
    if (claim->call)
        leave(claim);
}

void claim_adopt(struct claim *claim, struct call *call, const struct class *class, ref_t ref,
                 int operation)
{
    go_live(claim, call, class, ref, operation);
}

void claim_restore(struct txn *txn, const struct class *class, ref_t ref, const char *tag,
                   int operation)
{
    put_operation(txn, class, ref, tag, operation);
}

void claim_release(struct core *core, struct txn *txn, const struct class *class, ref_t ref,
                   const char *tag)
{
    drop_operation(txn, class, ref, tag);
    wake(core, ref);
}
