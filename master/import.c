/* import.c - PUT /import: VMs with their disks, from the stream of an export (wire.md sections 19 and 20)
 *
 *   task --> slave_import_open: ova.xml --> read by a worker
 *        --> one transaction: disks hidden, networks, VMs, drives, interfaces, INTENT
 *        --> files made --> slave_import_disks: contents
 *        --> one transaction: disks shown, VMs free, INTENT gone, the task a success
 *
 * Whatever fails in between, nothing remains: what was made is deleted in one transaction with the INTENT, and disks go as
 * storage.h says. The INTENT names what was made, so that the next master does the same when this one dies. */
#include "master/metadata_http.h"
#include "master/ova_import.h"
#include "master/put.h"
#include "master/slaves.h"
#include "master/task.h"
#include "master/transfer_parts.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/workers.h"

struct importing {
    struct http_transfer *transfer;
    struct call *call;
    const char *text;          /* ova.xml */
    struct arena *arena;       /* of the plan: its limit is for what comes from outside */
    size_t held;               /* bytes of text and plan, of what all imports may hold while their clients are slow */
    struct ova_plan plan;
    struct ova_import *import; /* once it is decided */
    struct disks *disks;
    bool is_made;              /* the objects exist */
    int64_t wrong_checksums;   /* of blocks of its disks, under force */
    struct failure failure;    /* of the worker */
    int result;
};

/* ---- ova.xml ---- */

static void read_job(void *arg)
{
    struct importing *importing = arg;

    importing->result =
        ova_read(importing->arena, importing->text, strlen(importing->text), &importing->plan, &importing->failure);
}

static int read_ova(struct importing *importing)
{
    struct call *call = importing->call;
    struct value options = text_map(call->arena, "task", ref_text(call, call->task), NULL), answer;
    int r;

    task_set_cancellable(call, true);
    r = slave_import_open(call, importing->transfer->host,
                          &(struct slave_import_open_args){importing->transfer->id, &options}, &answer);
    r = http_transfer_settle(importing->transfer, r);
    task_set_cancellable(call, false);
    if (r < 0)
        return r;
    importing->text = value_map_text(&answer, "ova", "");
    workers_run(call->core->workers, read_job, importing);
    if (importing->result < 0) {
        failure_copy(&call->failure, call->arena, &importing->failure);
        return importing->result;
    }
    importing->held = strlen(importing->text) + arena_bytes(importing->arena);
    if (metadata_hold(call->core, importing->held))
        return 0;
    importing->held = 0;
    return fail(call, TOO_BUSY);
}

/* ---- objects ---- */

/* What must be deleted again if this master dies now. */
static void put_intent(struct importing *importing, struct txn *txn)
{
    struct call *call = importing->call;
    struct value details = ova_import_made(importing->import);

    call->intent = txn_create_new(txn, call->core->random, CLASS_OF(intent), NULL);
    intent_put_operation(txn, call->intent, importing->transfer->kind->name);
    intent_put_task(txn, call->intent, call->task);
    intent_put_source(txn, call->intent, importing->transfer->host);
    intent_put_details(txn, call->intent, &details);
}

static int make_objects(struct importing *importing)
{
    struct call *call = importing->call;
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct ova_import_options options = {
        .is_restore = transfer_flag(importing->transfer->params, "restore"),
        .is_forced = transfer_flag(importing->transfer->params, "force"),
    };
    const struct object *sr;
    int r = transfer_sr(call, call_view(call), importing->transfer->params, &sr);

    if (r < 0)
        return r;
    options.sr = sr->ref;
    txn = store_begin(call->core->store);
    r = ova_import_decide(call, txn_view(txn), &importing->plan, &options, &importing->import);
    if (r < 0)
        return r;
    importing->disks = disks_new(call);
    for (int i = 0; i < importing->import->disk_count; i++) {
        struct ova_new_disk *disk = &importing->import->disks[i];

        disk->vdi = disks_add(importing->disks, txn, disk->draft);
    }
    r = ova_import_create(importing->import, txn);
    if (r < 0) {
        importing->disks->count = 0; /* rolled back */
        return r;
    }
    put_intent(importing, txn);
    importing->is_made = true;
    ova_import_log(importing->import, txn_view(txn));
    return call_commit(call, &txn);
}

/* ---- contents ---- */

static int make_files(struct importing *importing)
{
    int r = 0;

    for (int i = 0; i < importing->import->disk_count && r == 0; i++) {
        if (task_is_cancelled(importing->call))
            return task_cancelled(importing->call);
        r = disk_make_empty(importing->disks, importing->import->disks[i].vdi);
    }
    return r;
}

/* How much room each disk takes now, and what was wrong with them. */
static void take_answer(struct importing *importing, const struct value *answer)
{
    struct call *call = importing->call;

    for (int i = 0; i < importing->import->disk_count; i++)
        for (int j = 0; j < importing->disks->count; j++)
            if (ref_equal(importing->disks->list[j].vdi, importing->import->disks[i].vdi))
                importing->disks->list[j].physical_utilisation =
                    strtoll(value_map_text(answer, int_text(call, i), "0"), NULL, 10);
    importing->wrong_checksums = strtoll(value_map_text(answer, "wrong_checksums", "0"), NULL, 10);
}

static int receive_contents(struct importing *importing)
{
    struct call *call = importing->call;
    struct ova_import *import = importing->import;
    struct value *maps = arena_alloc_array(call->arena, (size_t) import->disk_count, sizeof *maps), disks, options, answer;
    int r;

    for (int i = 0; i < import->disk_count; i++) {
        struct value place;

        r = transfer_disk(call, import->disks[i].vdi, importing->transfer->host, import->disks[i].id, &place);
        if (r < 0)
            return r;
        maps[i] = map_with_text(call->arena, &place, "bytes", int_text(call, import->disks[i].virtual_size));
    }
    disks = VALUE_SET((uint32_t) import->disk_count, maps);
    options = text_map(call->arena, "force", import->options.is_forced ? "true" : "false", "version",
                       importing->plan.is_legacy ? "0.1" : "", "export_vsn",
                       int_text(call, importing->plan.export_vsn), NULL);
    task_set_cancellable(call, true);
    r = slave_import_disks(call, importing->transfer->host,
                           &(struct slave_import_disks_args){importing->transfer->id, &disks, &options}, &answer);
    r = http_transfer_settle(importing->transfer, r);
    task_set_cancellable(call, false);
    if (r == 0)
        take_answer(importing, &answer);
    return r;
}

/* ---- the end ---- */

/* Whoever forces an import wants what is left of it, and has to know that it is damaged. */
static void tell_of_wrong(struct importing *importing, struct txn *txn)
{
    struct call *call = importing->call;
    const struct object *task = txn_get(txn, task, call->task);
    struct value other_config;

    if (importing->wrong_checksums == 0)
        return;
    log_warning(call->tag, "%lld checksums of the import were wrong, which it was told to let pass",
                (long long) importing->wrong_checksums);
    if (!task)
        return;
    other_config = map_with_text(call->arena, task_get_other_config(task), "wrong_checksums",
                                 int_text(call, importing->wrong_checksums));
    task_put_other_config(txn, call->task, &other_config);
}

/* The task's success is in the transaction that makes it one: no master that dies afterwards leaves VMs and a failure. */
static int keep(struct importing *importing)
{
    struct call *call = importing->call;
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    int r = disks_keep(importing->disks, txn);

    if (r < 0)
        return r;
    ova_import_done(importing->import, txn);
    call->reply = ova_import_result(importing->import);
    tell_of_wrong(importing, txn);
    task_put_end(call->core, txn, call->task, &call->reply, NULL);
    txn_delete(txn, CLASS_OF(intent), call->intent);
    importing->is_made = false; /* from now on it is the client's */
    call_commit(call, &txn);
    slave_confirm(call);
    return 0;
}

static void undo(struct importing *importing)
{
    struct call *call = importing->call;
    struct failure before = call->failure;
    struct txn *txn;

    if (!importing->is_made)
        return;
    fiber_uncancellable_begin();
    txn = store_begin(call->core->store);
    ova_import_undo(importing->import, txn);
    txn_delete(txn, CLASS_OF(intent), call->intent);
    call_commit(call, &txn);
    slave_confirm(call);
    fiber_uncancellable_end();
    call->failure = before;
}

static void refresh(struct importing *importing)
{
    for (int i = 0; i < importing->disks->count; i++)
        if (i == 0 || !ref_equal(importing->disks->list[i].sr, importing->disks->list[i - 1].sr))
            storage_refresh_later(importing->call, importing->disks->list[i].sr, importing->transfer->host);
}

static int import_all(struct importing *importing)
{
    int r = read_ova(importing);

    if (r == 0)
        r = make_objects(importing);
    if (r == 0)
        r = make_files(importing);
    if (r == 0)
        r = receive_contents(importing);
    if (r == 0)
        r = keep(importing);
    return r;
}

static bool is_upgrading(const struct view *view)
{
    const struct object *pool = pool_object(view);

    return pool && streq(value_map_text(pool_get_other_config(pool), "rolling_upgrade_in_progress", ""), "true");
}

static int run(struct http_transfer *transfer)
{
    struct call *call = transfer->call;
    _cleanup_(free_p) struct importing *importing = new0(struct importing);
    const struct object *sr;
    int r;

    if (http_transfer_is_probe(transfer))
        return 0;
    if (is_upgrading(call_view(call)))
        return fail(call, NOT_SUPPORTED_DURING_UPGRADE);
    r = transfer_sr(call, call_view(call), transfer->params, &sr);
    if (r == 0)
        r = http_transfer_task(transfer, "VM.import", transfer_about(call, "into SR", SR_get_uuid(sr), SR_get_name_label(sr)));
    if (r < 0)
        return r;
    importing->transfer = transfer;
    importing->call = call;
    importing->arena = arena_new();
    r = import_all(importing);
    if (r == 0)
        refresh(importing);
    undo(importing);
    if (transfer->is_left && importing->disks)
        disks_leave(importing->disks); /* the host may be at their files: they go when that is over */
    disks_undo(&importing->disks);
    metadata_let_go(call->core, importing->held);
    arena_destroy(&importing->arena);
    return r;
}

static int needs(struct call *call, const struct view *view, const struct value *params, struct transfer_needs *ret)
{
    const struct object *sr;
    int r = transfer_sr(call, view, params, &sr);

    if (r == 0)
        transfer_needs_add(ret, sr->ref);
    return r;
}

static void recover(struct txn *txn, const struct object *intent)
{
    log_info(NULL, "an import was cut short: what it had made goes");
    ova_import_delete(txn, intent_get_details(intent));
    txn_delete(txn, CLASS_OF(intent), intent->ref);
}

const struct transfer_kind transfer_import = {
    .name = "VM.import",
    .realm = "import",
    .is_upload = true,
    .least = ROLE_VM_ADMIN,
    .needs = needs,
    .run = run,
    .recover = recover,
};
