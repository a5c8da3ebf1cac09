/* export.c - GET /export: a VM with its disks, as one stream that the host makes which sees them (wire.md sections 19, 20)
 *
 *   task --> claim VM --> ova.xml, by a worker, and claims of its disks --> slave_export_vm: disks read, stream sent
 *
 * The export holds nothing up but what would change VM or disks. It has no effect of its own, so a master that dies leaves
 * nothing to undo; the slave cuts the stream when another master takes over. */
#include "master/claim.h"
#include "master/ova_write.h"
#include "master/slaves.h"
#include "master/task.h"
#include "master/transfer_parts.h"
#include "shared/workers.h"

/* The text goes to the slave in one frame. */
#define OVA_BYTES_SENT (LINK_FRAME_BYTES_MAX - 65536)

/* ---- claims ---- */

/* What may be under way on a disk that is read. */
static bool is_only_read(const struct object *vdi)
{
    const struct value *operations = VDI_get_current_operations(vdi);

    for (uint32_t i = 0; i < operations->length; i++) {
        int operation = operations->items[2 * i + 1].e.index;

        if (operation != vdi_operations_copy && operation != vdi_operations_clone && operation != vdi_operations_snapshot)
            return false;
    }
    return true;
}

/* May the disk be read now? Its drives may be attached, since those of a suspended VM stay so, but no guest may have it. 0, or
 * the refusal; -ERR_OTHER_OPERATION_IN_PROGRESS: later. */
static int check_readable(struct call *call, const struct view *view, const struct object *vdi)
{
    if (!storage_is_shown(vdi))
        return fail(call, VDI_NOT_MANAGED, ref_text(call, vdi->ref));
    if (!is_only_read(vdi) || !ref_is_null(storage_changing_drive(view, vdi->ref)))
        return -ERR_OTHER_OPERATION_IN_PROGRESS;
    if (storage_is_written(view, vdi))
        return fail(call, VDI_IN_USE, ref_text(call, vdi->ref), "copy");
    return 0;
}

/* From here on nobody destroys or resizes the disk, and no guest is given it to write to. */
static int claim_disk(struct claim *claim, struct call *call, ref_t ref)
{
    uint64_t deadline_ms = clock_now_ms(call->core->clock) + TRANSFER_WAIT_MS;

    for (;;) {
        _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
        const struct object *vdi = live(call, txn_view(txn), VDI, ref);
        ref_t drive = storage_changing_drive(txn_view(txn), ref);
        int r;

        if (!vdi)
            return -ERR_HANDLE_INVALID;
        r = check_readable(call, txn_view(txn), vdi);
        if (r == 0)
            r = claim_take_txn(claim, call, txn, CLASS_OF(VDI), ref, vdi_operations_copy, true);
        if (r == 0)
            return call_commit(call, &txn);
        txn_end(&txn);
        if (r != -ERR_OTHER_OPERATION_IN_PROGRESS)
            return r;
        if (clock_now_ms(call->core->clock) >= deadline_ms)
            return fail(call, VDI_IN_USE, ref_text(call, ref), "copy");
        if (claim_wait_object(call, ref_is_null(drive) ? ref : drive, deadline_ms) < 0)
            return -ERR_TASK_CANCELLED;
    }
}

/* ---- what is needed ---- */

static int find_vm(struct call *call, const struct view *view, const struct value *params, const struct object **ret)
{
    return transfer_object(call, view, params, CLASS_OF(VM), "ref", "uuid", ret);
}

static bool keeps_memory(const struct object *vm, const struct value *params)
{
    return VM_get_power_state(vm) == vm_power_state_Suspended && transfer_flag(params, "preserve_power_state");
}

/* Does the disk's content go into the stream? */
static bool is_exported(const struct view *view, const struct object *vdi)
{
    const struct object *sr = vdi ? view_get(view, SR, VDI_get_SR(vdi)) : NULL;

    return sr && !streq(SR_get_content_type(sr), "iso");
}

static int needs(struct call *call, const struct view *view, const struct value *params, struct transfer_needs *ret)
{
    const struct object *vm, *vbd, *image;
    struct view_iter vbds;
    int r = find_vm(call, view, params, &vm);

    if (r < 0)
        return r;
    view_each_inverse(&vbds, view, &CLASS_OF(VM)->fields[F_VM_VBDs], vm->ref);
    while ((vbd = view_next(&vbds))) {
        const struct object *vdi = view_get(view, VDI, VBD_get_VDI(vbd));

        if (VBD_get_type(vbd) != vbd_type_CD && !VBD_get_empty(vbd) && is_exported(view, vdi)
            && ret->count < DISKS_MAX)
            transfer_needs_add(ret, VDI_get_SR(vdi));
    }
    image = view_get(view, VDI, VM_get_suspend_VDI(vm));
    if (keeps_memory(vm, params) && is_exported(view, image))
        transfer_needs_add(ret, VDI_get_SR(image));
    return 0;
}

/* ---- the work ---- */

struct writing {
    const struct view *view;
    struct arena *arena;
    ref_t vm;
    struct ova_options options;
    struct buffer text;
    struct ova_disk *disks;
    size_t disk_count;
};

static void write_ova(void *arg)
{
    struct writing *writing = arg;

    ova_write(writing->view, writing->arena, &writing->vm, 1, &writing->options, &writing->text, &writing->disks,
              &writing->disk_count);
}

static const char *compression_of(const struct value *params)
{
    const char *text = transfer_param(params, "use_compression");

    if (!text || streq(text, "false") || streq(text, "0"))
        return "none";
    if (streq(text, "true") || streq(text, "1") || streq(text, "gzip"))
        return "gzip";
    return streq(text, "zstd") ? "zstd" : NULL;
}

/* Claims of the disks that the stream has; on the heap, for there may be many. */
struct disk_claims {
    struct claim list[DISKS_MAX];
    unsigned count;
};

static void disk_claims_end(struct disk_claims **claims_p)
{
    struct disk_claims *claims = TAKE(*claims_p);

    for (unsigned i = 0; claims && i < claims->count; i++)
        claim_end(&claims->list[i]);
    free(claims);
}

static bool disk_claims_have(const struct disk_claims *claims, ref_t vdi)
{
    for (unsigned i = 0; i < claims->count; i++)
        if (ref_equal(claims->list[i].ref, vdi))
            return true;
    return false;
}

/* The text, and which disks it tells of. */
static int describe(struct call *call, struct writing *writing)
{
    _cleanup_(view_unpin) struct view *pinned = store_pin(call->core->store);

    buffer_done(&writing->text);
    buffer_init(&writing->text, OVA_BYTES_SENT);
    writing->view = pinned;
    workers_run(call->core->workers, write_ova, writing);
    if (writing->text.is_full || writing->disk_count > DISKS_MAX)
        return fail(call, INTERNAL_ERROR, "this VM has more to describe than one message to its host can hold");
    return 0;
}

/* Of disks that are not held yet the text may say what soon is not true any more, so it is written again when they are. */
static int describe_and_claim(struct call *call, struct writing *writing, struct disk_claims *claims)
{
    bool is_settled = false;
    int r = 0;

    while (r == 0 && !is_settled) {
        r = describe(call, writing);
        is_settled = true;
        for (size_t i = 0; i < writing->disk_count && r == 0; i++) {
            if (disk_claims_have(claims, writing->disks[i].vdi))
                continue;
            if (claims->count == DISKS_MAX)
                return fail(call, INTERNAL_ERROR, "its disks change all the time");
            r = claim_disk(&claims->list[claims->count], call, writing->disks[i].vdi);
            claims->count += r == 0;
            is_settled = false;
        }
    }
    return r;
}

static int send_vm(struct http_transfer *transfer, struct writing *writing, const char *compression)
{
    _cleanup_(disk_claims_end) struct disk_claims *claims = new0(struct disk_claims);
    struct call *call = transfer->call;
    struct value *disks, set, options, answer;
    int r = describe_and_claim(call, writing, claims);

    if (r < 0)
        return r;
    disks = arena_alloc_array(call->arena, writing->disk_count, sizeof *disks);
    for (size_t i = 0; i < writing->disk_count && r == 0; i++)
        r = transfer_disk(call, writing->disks[i].vdi, transfer->host, writing->disks[i].prefix, &disks[i]);
    if (r < 0)
        return r;
    set = VALUE_SET((uint32_t) writing->disk_count, disks);
    options = text_map(call->arena, "compression", compression, "file_name", "export.xva", "task",
                       ref_is_null(call->task) ? "" : ref_text(call, call->task), NULL);
    task_set_cancellable(call, true);
    r = slave_export_vm(call, transfer->host,
                        &(struct slave_export_vm_args){transfer->id, buffer_text(&writing->text), &set, &options}, &answer);
    r = http_transfer_settle(transfer, r);
    task_set_cancellable(call, false);
    return r;
}

static int run(struct http_transfer *transfer)
{
    _cleanup_(claim_end) struct claim claim = {0};
    struct call *call = transfer->call;
    const char *compression = compression_of(transfer->params);
    struct writing writing = {.arena = call->arena};
    const struct object *vm;
    int r = find_vm(call, call_view(call), transfer->params, &vm);

    if (r < 0)
        return r;
    if (!compression)
        return fail(call, INVALID_VALUE, "use_compression", transfer_param(transfer->params, "use_compression"));
    writing.vm = vm->ref;
    writing.options = (struct ova_options){
        .preserve_power_state = transfer_flag(transfer->params, "preserve_power_state"),
        .host = call->core->host, /* whoever sends the stream, it is the same one */
    };
    r = http_transfer_task(transfer, arena_text(call->arena, "Export of VM: %s", VM_get_uuid(vm)),
                           transfer_about(call, "VM", VM_get_uuid(vm), VM_get_name_label(vm)));
    if (r == 0)
        r = transfer_claim(&claim, call, CLASS_OF(VM), writing.vm, vm_operations_export);
    if (r == 0)
        r = send_vm(transfer, &writing, compression);
    buffer_done(&writing.text);
    return r;
}

const struct transfer_kind transfer_export = {
    .name = "VM.export",
    .realm = "export",
    .least = ROLE_VM_ADMIN,
    .needs = needs,
    .run = run,
};
