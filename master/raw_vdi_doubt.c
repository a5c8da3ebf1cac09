/* raw_vdi_doubt.c - a disk that is being overwritten stays claimed until nobody can be at it any more
 *
 * A host that falls silent in the middle of a raw import may go on writing when it comes back - its process was stopped,
 * its network was cut. One whose disk does not answer goes on when that does. A VM that had been started with the disk meanwhile
 * would have its contents changed beneath it. */
#include "master/raw_vdi_doubt.h"

#include "master/claim.h"
#include "master/put.h"
#include "master/slaves.h"
#include "master/task.h"
#include "master/transfer_left.h"
#include "shared/log.h"

/* ---- in the import's own fiber ---- */

void raw_write_begin(struct http_transfer *transfer, ref_t vdi)
{
    struct call *call = transfer->call;
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct value details = text_map(call->arena, "vdi", ref_text(call, vdi), "transfer", transfer->id, "tag", call->tag, NULL);

    call->intent = txn_create_new(txn, call->core->random, CLASS_OF(intent), NULL);
    intent_put_operation(txn, call->intent, RAW_WRITE);
    intent_put_task(txn, call->intent, call->task);
    intent_put_source(txn, call->intent, transfer->host);
    intent_put_details(txn, call->intent, &details);
    call_commit(call, &txn);
}

int raw_write_end(struct http_transfer *transfer, struct claim *claim, int r)
{
    struct call *call = transfer->call;
    struct txn *txn;

    if (transfer->is_left) {
        log_warning(call->tag, "the disk stays claimed until nothing of the import is at work at its host");
        claim_keep(claim);
        return r;
    }
    txn = store_begin(call->core->store);
    if (txn_get(txn, intent, call->intent))
        txn_delete(txn, CLASS_OF(intent), call->intent);
    claim_end_txn(claim, txn);
    if (r == 0)
        task_put_end(call->core, txn, call->task, &call->reply, NULL);
    call_commit(call, &txn);
    slave_confirm(call);
    return r;
}

/* ---- afterwards ---- */

static ref_t detail_ref(const struct object *intent, const char *key)
{
    const char *text = value_map_text(intent_get_details(intent), key, "");
    ref_t ref = NULL_REF;

    (void) ref_parse(text, strlen(text), &ref);
    return ref;
}

static bool is_ours(const struct object *intent)
{
    return streq(intent_get_operation(intent), RAW_WRITE);
}

/* The host does not write any more. */
static void release(struct call *call, ref_t ref)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct object *intent = txn_get(txn, intent, ref);
    const char *tag;
    ref_t vdi;

    if (!intent)
        return;
    vdi = detail_ref(intent, "vdi");
    tag = arena_strdup(call->arena, value_map_text(intent_get_details(intent), "tag", ""));
    txn_delete(txn, CLASS_OF(intent), ref);
    if (txn_get(txn, VDI, vdi))
        claim_release(call->core, txn, CLASS_OF(VDI), vdi, tag);
    call_commit(call, &txn);
}

/* An import whose fiber lives sees to its own end. */
static bool is_left(struct core *core, const struct object *intent)
{
    struct call *live = claim_live_call(core, detail_ref(intent, "vdi"));

    return !live || !streq(live->tag, value_map_text(intent_get_details(intent), "tag", ""));
}

/* The next one of a host, or NULL. */
static const struct object *next_left(struct core *core, struct view_iter *intents, ref_t host)
{
    const struct object *intent;

    while ((intent = view_next(intents)))
        if (is_ours(intent) && ref_equal(intent_get_source(intent), host) && is_left(core, intent))
            return intent;
    return NULL;
}

static ref_t transfer_of(const struct object *intent)
{
    const char *text = value_map_text(intent_get_details(intent), "transfer", "");
    ref_t id = NULL_REF;

    (void) uuid_parse(text, strlen(text), &id);
    return id;
}

/* What the host may still be writing ends, and is over when it says so. */
static void on_hello(struct core *core, ref_t host, const struct slave_guest *guests, size_t count)
{
    const struct object *intent;
    struct view_iter intents;

    (void) guests;
    (void) count;
    view_each(&intents, store_core_view(core->store), CLASS_OF(intent));
    while ((intent = next_left(core, &intents, host)))
        transfer_left_end(core, host, transfer_of(intent));
}

void raw_write_over(struct call *call, ref_t transfer)
{
    const struct object *intent;
    struct view_iter intents;
    ref_t ref = NULL_REF;

    view_each(&intents, call_view(call), CLASS_OF(intent));
    while (ref_is_null(ref) && (intent = view_next(&intents)))
        if (is_ours(intent) && ref_equal(transfer_of(intent), transfer) && is_left(call->core, intent))
            ref = intent->ref;
    if (!ref_is_null(ref))
        release(call, ref);
}

void raw_writes_host_gone(struct call *call, ref_t host)
{
    const struct object *intent;
    struct view_iter intents;

    do {
        view_each(&intents, call_view(call), CLASS_OF(intent));
        intent = next_left(call->core, &intents, host);
        if (intent)
            release(call, intent->ref);
    } while (intent);
}

void raw_writes_start(struct core *core)
{
    slaves_on_hello(core->slaves, on_hello);
}

void raw_write_recover(struct txn *txn, const struct object *intent)
{
    ref_t vdi = detail_ref(intent, "vdi");

    if (txn_get(txn, VDI, vdi))
        claim_restore(txn, CLASS_OF(VDI), vdi, value_map_text(intent_get_details(intent), "tag", ""), vdi_operations_update);
}
