/* fake_slaves.h - hosts without processes: the calls of master/slaves.h, for pool_world.h
 *
 * The store and the handlers above are real; the calls to slaves are defined here, by hosts that
 * keep the rules of slave_calls.def: each guest has an epoch and how far it got, operations are
 * remembered by their id. A script makes one call of a kind go wrong: refused, lost before its
 * effect, lost after it. After every effect the world asserts the promise: a VM runs on at most one
 * host, and only where the *visible* model has given it the right to. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#undef fail /* call.h has its own */

#include "master/background.h"
#include "master/claim.h"
#include "master/core.h"
#include "master/flows.h"
#include "master/guest_changes.h"
#include "master/memory.h"
#include "master/put.h"
#include "master/recovery.h"
#include "master/room.h"
#include "master/slaves.h"
#include "master/storage.h"
#include "master/task.h"
#include "master/vm_work.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/random.h"
#include "shared/refmap.h"
#include "shared/timers.h"

#define HOSTS      3
#define GIB        (1024LL * MIB)
#define GUESTS_MAX 8
#define OPS_MAX    256

enum trouble { FINE, REFUSED, LOST_BEFORE, LOST_AFTER };

struct fake_guest {
    char vm[UUID_TEXT_BYTES]; /* "": free */
    uint64_t epoch;           /* highest seen here, */
    const char *progress;     /* and how far it got at that epoch */
    const char *state;        /* of the guest: none, receiving, paused, running, sent, ended */
    char move[UUID_TEXT_BYTES], aborted[UUID_TEXT_BYTES];
    bool has_image;
    int64_t domid;
    const char *change; /* how it ended by itself; NULL: it did not */
    const char *disks;  /* as vm_ask tells them; NULL: it does not */
};

struct fake_op {
    ref_t id;
    int result; /* 0, or the negative error */
    char state[16], domid[16], code[64], detail[64];
};

struct fake_host {
    ref_t ref;
    bool is_linked, is_declared_dead;
    struct fake_guest guests[GUESTS_MAX];
    struct fake_op ops[OPS_MAX];
    int op_count;
    bool forgets_results; /* the agent was restarted: operations are "interrupted" */
};

struct world {
    struct fake_clock clock;
    struct seeded_random random;
    struct core core;
    struct store_sink sink;
    bool is_disk_stopped; /* nothing becomes durable */
    uint64_t appended;
    uint64_t sync_ms; /* how long the disk takes; 0: no time */
    struct timer sync;
    ref_t vm, sr, vdi, network, pool;
    struct fake_host hosts[HOSTS];
    /* what goes wrong, once */
    int trouble_call; /* SLAVE_CALL_x, -1: none */
    enum trouble trouble;
    int trouble_host; /* index, -1: any */
    int refused_call; /* this one is refused, too, once */
    int crash_call;   /* the master dies when it makes this call, */
    bool crash_after; /* after its effect */
    bool has_crashed;
    int slow_call; /* waits until slow_over, or is cancelled */
    bool slow_over;
    uint64_t latency_ms; /* each call takes up to so long */
    int calls[SLAVE_CALL_COUNT];
    int64_t domids;
    void (*on_guest)(struct core *, const struct slave_note *);
    void (*on_samples)(struct core *, const struct slave_note *);
    void (*on_hello)(struct core *, ref_t, const struct slave_guest *, size_t);
};

static struct world *world; /* the one of the running test */

/* ---- hosts ---- */

static struct fake_host *fake_host(ref_t ref)
{
    for (int i = 0; i < HOSTS; i++)
        if (ref_equal(world->hosts[i].ref, ref))
            return &world->hosts[i];
    assert_true(!"no such host");
    return NULL;
}

static struct fake_guest *fake_guest(struct fake_host *host, const char *vm)
{
    struct fake_guest *unused = NULL;

    for (int i = 0; i < GUESTS_MAX; i++) {
        if (streq(host->guests[i].vm, vm))
            return &host->guests[i];
        if (!host->guests[i].vm[0] && !unused)
            unused = &host->guests[i];
    }
    assert_non_null(unused);
    *unused = (struct fake_guest){.progress = "none", .state = "none", .domid = -1};
    snprintf(unused->vm, sizeof unused->vm, "%s", vm);
    return unused;
}

_unused_ static int runners(const char *vm)
{
    int running = 0;

    for (int i = 0; i < HOSTS; i++)
        for (int j = 0; j < GUESTS_MAX; j++)
            running += streq(world->hosts[i].guests[j].vm, vm)
                       && streq(world->hosts[i].guests[j].state, "running");
    return running;
}

/* The promises, after each effect. */
static void assert_promises(struct fake_host *host, struct fake_guest *guest)
{
    struct view *view = store_pin(world->core.store);
    const struct object *vm = view_by_uuid(view, CLASS_OF(VM), guest->vm);

    assert_true(runners(guest->vm) <= 1);
    if (streq(guest->state, "running") && vm) {
        assert_int_equal(VM_get_epoch(vm), guest->epoch);
        assert_true(ref_equal(VM_get_resident_on(vm), host->ref)
                    || ref_equal(VM_get_scheduled_to_be_resident_on(vm), host->ref));
    }
    view_unpin(&view);
}

struct answer {
    int result;
    const char *code, *detail;
};

static struct answer bad_state(const struct fake_guest *guest)
{
    return (struct answer){-ERR_VM_BAD_POWER_STATE, "VM_BAD_POWER_STATE", guest->state};
}

static void begin_at(struct fake_guest *guest, uint64_t epoch, const char *progress,
                     const char *state)
{
    guest->epoch = epoch;
    guest->progress = progress;
    guest->state = state;
    guest->domid = ++world->domids;
}

/* What a host does, by the rules of slave/vm_ops.c and vm_move.c. */
static struct answer fake_do(int number, struct fake_guest *guest, uint64_t epoch, const char *move,
                             bool is_paused)
{
    struct answer fine = {0};

    if (epoch && epoch < guest->epoch)
        return (struct answer){-ERR_OPERATION_NOT_ALLOWED, "OPERATION_NOT_ALLOWED",
                               "a higher epoch was seen"};
    switch (number) {
    case SLAVE_CALL_vm_start:
    case SLAVE_CALL_vm_resume:
        if (guest->epoch == epoch && !streq(guest->progress, "aborted")) {
            if (streq(guest->state, "paused") && !is_paused)
                guest->state = "running";
            return fine;
        }
        begin_at(guest, epoch, "ran", is_paused ? "paused" : "running");
        return fine;
    case SLAVE_CALL_vm_pause:
        if (!streq(guest->state, "running") && !streq(guest->state, "paused"))
            return bad_state(guest);
        guest->state = "paused";
        return fine;
    case SLAVE_CALL_vm_unpause:
        if (guest->epoch == epoch) {
            if (streq(guest->progress, "aborted") || streq(guest->progress, "none"))
                return bad_state(guest);
            if (streq(guest->progress, "receiving") && !streq(guest->state, "paused"))
                return bad_state(guest);
            if (streq(guest->state, "paused")) {
                guest->state = "running";
                guest->progress = "ran";
            }
            return fine;
        }
        if (streq(guest->state, "sent") || streq(guest->state, "paused")
            || streq(guest->state, "running")) {
            guest->epoch = epoch;
            guest->state = "running";
            guest->progress = "ran";
            return fine;
        }
        guest->epoch = epoch;
        guest->progress = "aborted";
        return bad_state(guest);
    case SLAVE_CALL_vm_shutdown:
    case SLAVE_CALL_vm_kill:
        if (number == SLAVE_CALL_vm_shutdown && !streq(guest->state, "running")
            && !streq(guest->state, "ended") && !streq(guest->state, "none"))
            return bad_state(guest);
        guest->epoch = epoch;
        guest->progress = "ended";
        guest->state = "none";
        return fine;
    case SLAVE_CALL_vm_reboot:
        if (guest->epoch != epoch)
            return bad_state(guest);
        begin_at(guest, epoch, "ran", "running");
        return fine;
    case SLAVE_CALL_vm_suspend:
        if (streq(guest->state, "none") && streq(guest->progress, "ended") && guest->has_image)
            return fine;
        if (!streq(guest->state, "running"))
            return bad_state(guest);
        guest->state = "none";
        guest->progress = "ended";
        guest->has_image = true;
        return fine;
    case SLAVE_CALL_vm_receive_open:
        if (streq(guest->aborted, move) || streq(guest->state, "running"))
            return bad_state(guest);
        if (guest->epoch == epoch && !streq(guest->progress, "receiving")
            && !streq(guest->progress, "aborted"))
            return bad_state(guest);
        begin_at(guest, epoch, "receiving", "receiving");
        snprintf(guest->move, sizeof guest->move, "%s", move);
        return fine;
    case SLAVE_CALL_vm_receive_abort:
        if (guest->epoch == epoch
            && (streq(guest->progress, "ran") || streq(guest->progress, "paused-for-move")
                || (streq(guest->progress, "ended") && !streq(guest->aborted, move))))
            return bad_state(guest);
        if (guest->epoch < epoch || streq(guest->progress, "receiving")) {
            guest->progress = "aborted";
            guest->state = "none";
            guest->epoch = epoch;
        }
        snprintf(guest->aborted, sizeof guest->aborted, "%s", move);
        return fine;
    case SLAVE_CALL_vm_send:
        if (guest->epoch != epoch)
            return bad_state(guest);
        if (streq(guest->state, "sent") && streq(guest->move, move))
            return fine;
        if (!streq(guest->state, "running") || streq(guest->aborted, move))
            return bad_state(guest);
        for (int i = 0; i < HOSTS; i++) { /* the memory arrives */
            struct fake_guest *copy = fake_guest(&world->hosts[i], guest->vm);

            if (streq(copy->state, "receiving") && streq(copy->move, move)) {
                copy->state = "paused";
                guest->state = "sent";
                guest->progress = "paused-for-move";
                snprintf(guest->move, sizeof guest->move, "%s", move);
                return fine;
            }
        }
        return (struct answer){-ERR_VM_MIGRATE_FAILED, "VM_MIGRATE_FAILED", "nobody listens"};
    case SLAVE_CALL_vm_send_abort:
        if (guest->epoch != epoch)
            return bad_state(guest);
        snprintf(guest->aborted, sizeof guest->aborted, "%s", move);
        if (streq(guest->state, "sent")) {
            guest->state = "running";
            guest->progress = "ran";
        }
        return fine;
    case SLAVE_CALL_vm_forget:
        if (guest->epoch == epoch
            && (streq(guest->state, "running") || streq(guest->state, "paused")))
            return bad_state(guest);
        guest->epoch = epoch;
        guest->progress = "ended";
        guest->state = "none";
        return fine;
    default:
        return fine;
    }
}

/* ---- the calls of master/slaves.h ---- */

static struct { /* of the call that is answered last: as slaves.c keeps it per call */
    const struct call *call;
    bool in_doubt;
} doubt;

bool slave_call_in_doubt(const struct call *call)
{
    return doubt.call == call && doubt.in_doubt;
}

ref_t slave_operation_prepare(struct call *call, struct txn *txn)
{
    ref_t id = ref_new(call->core->random);
    char text[UUID_TEXT_BYTES];

    intent_put_operation_id(txn, call->intent, uuid_print(text, id));
    return id;
}

void slave_confirm(struct call *call)
{
    (void) call;
}

void slave_confirm_operation(struct core *core, ref_t host, ref_t operation)
{
    (void) core;
    (void) host;
    (void) operation;
}

bool slave_is_linked(const struct slaves *slaves, ref_t host)
{
    (void) slaves;
    return fake_host(host)->is_linked;
}

int slave_wait_linked(struct call *call, ref_t host, uint64_t deadline_ms)
{
    (void) deadline_ms;
    return slave_is_linked(call->core->slaves, host) ? 0 : fail(call, HOST_OFFLINE, ref_text(call, host));
}

bool slave_may_hold_guests(const struct slaves *slaves, ref_t host)
{
    (void) slaves;
    return !fake_host(host)->is_declared_dead;
}

bool slave_has_followed(const struct slaves *slaves, ref_t host)
{
    return slave_is_linked(slaves, host);
}

void slaves_ask_hellos(struct slaves *slaves)
{
    (void) slaves;
}

void slaves_declare_dead(struct slaves *slaves, ref_t host)
{
    (void) slaves;
    fake_host(host)->is_declared_dead = true;
}

void slaves_on_live(struct slaves *slaves, void (*fn)(struct core *, ref_t, bool))
{
    (void) slaves;
    (void) fn;
}

void slaves_on_note(struct slaves *slaves, const char *name,
                    void (*fn)(struct core *, const struct slave_note *))
{
    (void) slaves;
    if (streq(name, "guest"))
        world->on_guest = fn;
    else if (streq(name, "samples"))
        world->on_samples = fn;
}

void slaves_on_hello(struct slaves *slaves,
                     void (*fn)(struct core *, ref_t, const struct slave_guest *, size_t))
{
    (void) slaves;
    world->on_hello = fn;
}

/* The connection breaks: the host cannot be reached, and its record says so. */
static void lose_host(struct fake_host *host)
{
    host->is_linked = false;
}

static struct value op_value(struct call *call, const struct fake_op *op)
{
    struct value *items = arena_alloc_array(call->arena, 4, sizeof *items);

    items[0] = value_text("state");
    items[1] = value_text(arena_strdup(call->arena, op->state));
    items[2] = value_text("domid");
    items[3] = value_text(arena_strdup(call->arena, op->domid));
    return VALUE_MAP(2, items);
}

static int op_failure(struct call *call, const struct fake_op *op)
{
    const char *vm = "11111111-2222-3333-4444-555555555555"; /* slaves name VMs by uuid */
    const char *params[] = {vm, "running", op->detail, op->detail};
    int code = -op->result;

    return failure_set_text(&call->failure, call->arena, op->code,
                            (unsigned) model_error(code)->param_count, params);
}

static void abandon_master(void)
{
    world->has_crashed = true;
    loop_abandon(world->core.loop); /* does not return */
}

static int fake_ask(struct call *call, ref_t host_ref, const char *vm, struct value *ret);

/* An integer or boolean among the arguments. */
static int64_t argument(const struct value *map, const char *key)
{
    const struct value *value = value_map_find(map, key);

    return !value ? 0 : value->kind == KIND_BOOL ? value->b : value->i;
}

static int fake_call(struct call *call, ref_t host_ref, int number, const void *args,
                     struct value *ret)
{
    struct value map = slave_call_pack(slave_call_row(number), args, call->arena);
    const char *vm = value_map_text(&map, "vm", NULL), *move = value_map_text(&map, "move", "");
    uint64_t epoch = (uint64_t) argument(&map, "epoch");
    bool is_paused = argument(&map, "paused");
    struct fake_host *host = fake_host(host_ref);
    bool hits = world->trouble_call == number
                && (world->trouble_host < 0 || host == &world->hosts[world->trouble_host]);
    enum trouble trouble = hits ? world->trouble : world->refused_call == number ? REFUSED : FINE;
    const struct object *intent;
    struct fake_guest *guest;
    struct fake_op op = {0};
    struct answer answer;
    bool was_cancelled = false;

    if (number == SLAVE_CALL_vm_ask)
        return fake_ask(call, host_ref, vm, ret);
    core_emit(call);
    doubt.call = call;
    doubt.in_doubt = false;
    world->calls[number]++;
    if (hits)
        world->trouble_call = -1;
    else if (trouble == REFUSED)
        world->refused_call = -1;
    if (world->crash_call == number && !world->crash_after)
        abandon_master();
    fiber_yield();
    if (!host->is_linked)
        return fail(call, HOST_OFFLINE, ref_text(call, host_ref));
    intent = view_get(store_core_view(world->core.store), intent, call->intent);
    if (intent)
        assert_true(uuid_parse(intent_get_operation_id(intent), 36, &op.id));
    if (world->slow_call == number) {
        while (!world->slow_over)
            if (fiber_sleep(100) < 0) {
                doubt.call = call;
                doubt.in_doubt = true;
                return fail(call, TASK_CANCELLED, ref_text(call, call->task));
            }
    }
    if (world->latency_ms && fiber_sleep(random_below(call->core->random, world->latency_ms)) < 0)
        was_cancelled = true;
    if (was_cancelled && random_below(call->core->random, 2) == 0) {
        doubt.call = call;
        doubt.in_doubt = true;
        return fail(call, TASK_CANCELLED, ref_text(call, call->task));
    }
    if (!host->is_linked) { /* lost while it was under way */
        doubt.call = call;
        doubt.in_doubt = true;
        return fail(call, HOST_OFFLINE, ref_text(call, host_ref));
    }
    if (trouble == LOST_BEFORE) {
        lose_host(host);
        doubt.call = call;
        doubt.in_doubt = true;
        return fail(call, HOST_OFFLINE, ref_text(call, host_ref));
    }

    guest = vm ? fake_guest(host, vm) : NULL;
    answer = trouble == REFUSED
                 ? (struct answer){-ERR_INTERNAL_ERROR, "INTERNAL_ERROR", "refused by the script"}
             : guest ? fake_do(number, guest, epoch, move, is_paused)
                     : (struct answer){0};
    if (getenv("STORY")) /* STORY=1 test_VM_chaos 53: what happened */
        print_message("%llu ms host %d %s e%llu move %.8s: %d -> %s e%llu %s %s\n",
                      (unsigned long long) clock_now_ms(&world->clock.clock),
                      (int) (host - world->hosts), slave_call_row(number)->name,
                      (unsigned long long) epoch, move, answer.result, guest ? guest->state : "",
                      guest ? (unsigned long long) guest->epoch : 0, guest ? guest->progress : "",
                      trouble == LOST_AFTER ? "LOST"
                      : was_cancelled       ? "CANCELLED"
                                            : "");
    if (guest)
        assert_promises(host, guest);
    op.result = answer.result;
    if (guest) {
        snprintf(op.state, sizeof op.state, "%s",
                 streq(guest->state, "running") || streq(guest->state, "paused") ? guest->state
                                                                                 : "ended");
        snprintf(op.domid, sizeof op.domid, "%lld", (long long) guest->domid);
    }
    snprintf(op.code, sizeof op.code, "%s", answer.code ? answer.code : "");
    snprintf(op.detail, sizeof op.detail, "%s", answer.detail ? answer.detail : "");
    if (!ref_is_null(op.id))
        host->ops[host->op_count++ % OPS_MAX] = op;
    if (world->crash_call == number && world->crash_after)
        abandon_master();
    if (was_cancelled) {
        doubt.call = call;
        doubt.in_doubt = true;
        return fail(call, TASK_CANCELLED, ref_text(call, call->task));
    }
    if (trouble == LOST_AFTER) {
        lose_host(host);
        doubt.in_doubt = true;
        doubt.call = call;
        return fail(call, HOST_OFFLINE, ref_text(call, host_ref));
    }
    doubt.call = call;
    doubt.in_doubt = false;
    if (op.result < 0)
        return op_failure(call, &op);
    if (ret) /* about disks: each is where it was asked for */
        *ret = number == SLAVE_CALL_vm_snapshot ? *value_map_find(&map, "disks")
                                                : op_value(call, &op);
    return 0;
}

int slave_ask(struct call *call, ref_t host_ref, ref_t operation, enum slave_answer *ret_answer,
              int *ret_result, struct value *ret)
{
    struct fake_host *host = fake_host(host_ref);

    core_emit(call);
    doubt.call = call;
    doubt.in_doubt = false;
    fiber_yield();
    if (!host->is_linked)
        return fail(call, HOST_OFFLINE, ref_text(call, host_ref));
    if (host->forgets_results) {
        *ret_answer = SLAVE_ANSWER_INTERRUPTED;
        return 0;
    }
    for (int i = 0; i < MIN(host->op_count, OPS_MAX); i++) {
        if (!ref_equal(host->ops[i].id, operation))
            continue;
        *ret_answer = SLAVE_ANSWER_DONE;
        *ret_result = host->ops[i].result < 0 ? op_failure(call, &host->ops[i]) : 0;
        *ret = op_value(call, &host->ops[i]);
        return 0;
    }
    *ret_answer =
        world->slow_call >= 0 && !world->slow_over ? SLAVE_ANSWER_PENDING : SLAVE_ANSWER_NEVER;
    return 0;
}

static int fake_ask(struct call *call, ref_t host_ref, const char *vm, struct value *ret)
{
    struct fake_host *host = fake_host(host_ref);
    struct fake_guest *guest;
    struct value *items;

    core_emit(call);
    doubt.call = call;
    doubt.in_doubt = false;
    fiber_yield();
    if (!host->is_linked)
        return fail(call, HOST_OFFLINE, ref_text(call, host_ref));
    guest = fake_guest(host, vm);
    items = arena_alloc_array(call->arena, 16, sizeof *items);
    items[0] = value_text("state");
    items[1] = value_text(guest->state);
    items[2] = value_text("epoch");
    items[3] = value_text(arena_text(call->arena, "%llu", (unsigned long long) guest->epoch));
    items[4] = value_text("progress");
    items[5] = value_text(guest->progress);
    items[6] = value_text("domid");
    items[7] = value_text(arena_text(call->arena, "%lld", (long long) guest->domid));
    items[8] = value_text("move");
    items[9] = value_text(arena_strdup(call->arena, guest->move));
    items[10] = value_text("change");
    items[11] = value_text(guest->change && streq(guest->state, "ended") ? guest->change : "");
    items[12] = value_text("disks");
    items[13] = value_text(guest->disks ? guest->disks : "");
    items[14] = value_text("nics");
    items[15] = value_text("");
    *ret = VALUE_MAP(guest->disks ? 8 : 6, items);
    if (world->slow_call == SLAVE_CALL_vm_ask) /* the answer is on its way, and gets old */
        while (!world->slow_over)
            if (fiber_sleep(100) < 0)
                return fail(call, TASK_CANCELLED, ref_text(call, call->task));
    return 0;
}

#define SLAVE_CALL(name, deadline_ms, effect, result, args_)                                \
    int slave_##name(struct call *call, ref_t host, const struct slave_##name##_args *args, \
                     struct value *ret)                                                     \
    {                                                                                       \
        return fake_call(call, host, SLAVE_CALL_##name, args, ret);                         \
    }
#include "shared/model/slave_calls.def"
#undef SLAVE_CALL
