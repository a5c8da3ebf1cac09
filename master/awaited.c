/* awaited.c - hosts that must have spoken before a master with an old copy of the records lets any VM run */
#include "master/awaited.h"

#include "master/call.h"
#include "master/core.h"
#include "master/message.h"
#include "master/put.h"
#include "master/recovery.h"
#include "master/slaves.h"
#include "master/store.h"
#include "master/task.h"
#include "shared/arena.h"
#include "shared/fiber.h"
#include "shared/link.h"
#include "shared/log.h"

#include <errno.h>

/* The INTENT's operation; its details are {reference of a host: ""}. */
#define OPERATION "await_hosts"

struct awaited {
    ref_t intent;          /* null: nobody is waited for */
    struct waitq nobody;   /* woken when that is so again */
};

void awaited_new(struct core *core)
{
    const struct object *intent;
    struct view_iter all;

    core->awaited = new0(struct awaited);
    view_each(&all, store_core_view(core->store), CLASS_OF(intent));
    while ((intent = view_next(&all)))
        if (streq(intent_get_operation(intent), OPERATION)) {
            core->awaited->intent = intent->ref;
            log_warning(NULL, "the records may be old: no VM is started, resumed, unpaused or moved until %u hosts have "
                              "said hello or are declared dead",
                        intent_get_details(intent)->length);
        }
}

void awaited_destroy(struct awaited **awaited_p)
{
    free(TAKE(*awaited_p));
}

bool awaited_any(const struct core *core)
{
    return core->awaited && !ref_is_null(core->awaited->intent);
}

/* ---- beginning ---- */

/* A host without a key has no agent, so no guests. */
static bool may_hold_guests(struct core *core, const struct object *host)
{
    return link_key_is_valid(host_get_curve_key(host)) && !slave_has_followed(core->slaves, host->ref);
}

static void tell(struct core *core, struct txn *txn, const char *name, int64_t priority, const char *text)
{
    const struct object *pool = txn_get(txn, pool, core->pool);

    log_warning(NULL, "%s", text);
    if (pool)
        message_raise(txn, core, name, priority, cls_Pool, pool_get_uuid(pool), text);
}

/* An INTENT that was found in an old copy tells of an earlier wait, which knew of fewer hosts. */
static uint32_t waited_for(const struct core *core, const struct txn *txn)
{
    return awaited_any(core) ? intent_get_details(txn_get(txn, intent, core->awaited->intent))->length : 0;
}

uint64_t awaited_begin(struct core *core, const char *why)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct txn *txn = store_begin(core->store);
    struct value *items = arena_alloc_array(arena, 2 * view_count(txn_view(txn), CLASS_OF(host)), sizeof *items);
    struct value fields[F_intent_created + 1] = {[F_intent_operation] = value_text(OPERATION),
                                                 [F_intent_created] = VALUE_DATETIME(clock_utc_s(core->clock))};
    const struct object *host;
    const char *names = "";
    char text[REF_TEXT_BYTES];
    struct view_iter hosts;
    uint64_t generation;
    uint32_t count = 0;

    view_each(&hosts, txn_view(txn), CLASS_OF(host));
    while ((host = view_next(&hosts))) {
        if (!may_hold_guests(core, host))
            continue;
        names = arena_text(arena, "%s%s'%s'", names, count ? ", " : "", host_get_name_label(host));
        items[2 * count] = value_text(arena_strdup(arena, ref_print(text, host->ref)));
        items[2 * count++ + 1] = value_text("");
    }
    if (count > waited_for(core, txn)) {
        fields[F_intent_details] = VALUE_MAP(count, items);
        if (awaited_any(core))
            intent_put_details(txn, core->awaited->intent, &fields[F_intent_details]);
        else
            core->awaited->intent = txn_create_new(txn, core->random, CLASS_OF(intent), fields);
        tell(core, txn, "POOL_RECORDS_MAY_BE_OLD", 1,
             arena_text(arena,
                        "The pool's records may lack the newest changes: %s. No VM is started, resumed, unpaused or moved "
                        "until each of these hosts has said what runs there, or is declared dead: %s",
                        why, names));
    }
    generation = store_apply(&txn);
    txn_end(&txn);
    return generation;
}

/* ---- ending ---- */

/* A map without one of its keys. */
static struct value map_without(struct arena *arena, const struct value *map, const char *key)
{
    struct value *items = arena_alloc_array(arena, 2 * map->length, sizeof *items);
    uint32_t count = 0;

    for (uint32_t i = 0; i < map->length; i++)
        if (!streq(map->items[2 * i].text, key)) {
            items[2 * count] = map->items[2 * i];
            items[2 * count++ + 1] = map->items[2 * i + 1];
        }
    return VALUE_MAP(count, items);
}

void awaited_host_done(struct core *core, ref_t host)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    char text[REF_TEXT_BYTES];
    const struct object *intent;
    struct value left;
    struct txn *txn;

    if (!awaited_any(core))
        return;
    txn = store_begin(core->store);
    intent = txn_get(txn, intent, core->awaited->intent);
    left = map_without(arena, intent_get_details(intent), ref_print(text, host));
    if (left.length > 0) {
        intent_put_details(txn, intent->ref, &left);
    } else {
        txn_delete(txn, CLASS_OF(intent), intent->ref);
        tell(core, txn, "POOL_RECORDS_COMPLETE", 5,
             "Every host has said what runs there, or is declared dead: VMs are started, resumed, unpaused and moved again");
        core->awaited->intent = NULL_REF;
    }
    store_apply(&txn);
    txn_end(&txn);
    if (!awaited_any(core)) {
        waitq_wake_all(&core->awaited->nobody);
        recovery_look_again(core);
    }
}

static void on_hello(struct core *core, ref_t host, const struct slave_guest *guests, size_t count)
{
    (void) guests;
    (void) count;
    if (slave_has_followed(core->slaves, host))
        awaited_host_done(core, host);
}

void awaited_start(struct core *core)
{
    slaves_on_hello(core->slaves, on_hello);
}

/* ---- waiting ---- */

int awaited_wait(struct call *call, uint64_t deadline_ms)
{
    struct core *core = call->core;
    int r = 0;

    while (r == 0 && awaited_any(core))
        r = waitq_wait(&core->awaited->nobody, deadline_ms);
    if (!awaited_any(core))
        return 0;
    if (r == -ECANCELED)
        return task_cancelled(call);
    return fail(call, HOST_OFFLINE,
                arena_strdup(call->arena,
                             intent_get_details(view_get(call_view(call), intent, core->awaited->intent))->items[0].text));
}
