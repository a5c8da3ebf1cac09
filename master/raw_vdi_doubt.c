/* raw_vdi_doubt.c - a disk that is being overwritten stays claimed until nobody can be at it any more
 *
 * A host that falls silent in the middle of a raw import may go on writing when it comes back - its process was stopped,
 * its network was cut. A VM that had been started with the disk meanwhile would have its contents changed beneath it. */
#include "master/raw_vdi_doubt.h"

#include "master/background.h"
#include "master/claim.h"
#include "master/put.h"
#include "master/slaves.h"
#include "master/task.h"
#include "shared/fiber.h"
#include "shared/log.h"

#define RETRY_MS 2000

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
        log_warning(call->tag, "the host that was writing to the disk cannot be asked: the disk stays claimed");
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
static bool is_left(struct call *call, const struct object *intent)
{
    ref_t vdi = detail_ref(intent, "vdi");
    struct call *live = claim_live_call(call->core, vdi);

    return !live || !streq(live->tag, value_map_text(intent_get_details(intent), "tag", ""));
}

static ref_t next_left(struct call *call, ref_t host)
{
    const struct object *intent;
    struct view_iter intents;

    view_each(&intents, call_view(call), CLASS_OF(intent));
    while ((intent = view_next(&intents)))
        if (is_ours(intent) && ref_equal(intent_get_source(intent), host) && is_left(call, intent))
            return intent->ref;
    return NULL_REF;
}

/* The host has said hello: what it may still be writing ends, and is over when it answers. */
static void ask_host(struct call *call, void *arg)
{
    ref_t host = *(ref_t *) arg, ref;

    while (!ref_is_null(ref = next_left(call, host)) && slave_is_linked(call->core->slaves, host)) {
        const struct object *intent = view_get(call_view(call), intent, ref);
        struct slave_transfer_abort_args args = {
            arena_strdup(call->arena, value_map_text(intent_get_details(intent), "transfer", ""))};

        if (slave_transfer_abort(call, host, &args, NULL) == 0)
            release(call, ref);
        else if (fiber_sleep(RETRY_MS) < 0)
            break;
    }
    free(arg);
}

static void on_hello(struct core *core, ref_t host, const struct slave_guest *guests, size_t count)
{
    ref_t *arg = new0(ref_t);

    (void) guests;
    (void) count;
    *arg = host;
    background_run(core, "raw import in doubt", "", ask_host, arg);
}

void raw_writes_host_gone(struct call *call, ref_t host)
{
    ref_t ref;

    while (!ref_is_null(ref = next_left(call, host)))
        release(call, ref);
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
