/* snapshot.c - new disks from old ones, all of them as the old ones are at one moment
 *
 *     nobody has the disks open                   a guest has
 *
 *     claims                                      claims, INTENT and hidden VDIs: one transaction
 *     hidden VDIs                                 vm_snapshot ------------> its host: pause, take,
 * go on disk_clone, for each -----> some host              <----------------- shown, claims end
 * shown, claims and INTENT end
 *
 * The INTENT is there so that a guest that stands still for its snapshot goes on whatever happens:
 * when the host's answer is not to be had, recovery.c asks for it, and a guest that was left
 * standing is let go on. What had been made then is nobody's: its VDIs name the call that made them
 * (storage.h), and are swept when that INTENT is settled. */
#include "master/snapshot.h"

#include <errno.h>

#include "master/core.h"
#include "master/slaves.h"
#include "master/task.h"
#include "master/VM_power.h"

/* The VM began or ceased to run before it was claimed: look again. No client sees it. */
#define CHANGED_MEANWHILE (-EAGAIN)

int snapshot_add(struct snapshot *snapshot, ref_t vdi)
{
    struct call *call = snapshot->call;

    if (!snapshot->list)
        snapshot->list = arena_alloc_array(call->arena, DISKS_MAX, sizeof *snapshot->list);
    if (snapshot->count == DISKS_MAX)
        return fail(call, INVALID_VALUE, "VBDs", int_text(call, snapshot->count));
    for (int i = 0; i < snapshot->count; i++)
        if (ref_equal(snapshot->list[i].source, vdi))
            return 0; /* two drives, one disk */
    snapshot->list[snapshot->count++] = (struct snapshot_disk){.source = vdi};
    return 0;
}

ref_t snapshot_made(const struct snapshot *snapshot, ref_t source)
{
    for (int i = 0; i < snapshot->count; i++)
        if (ref_equal(snapshot->list[i].source, source))
            return snapshot->list[i].made;
    return NULL_REF;
}

void snapshot_end(struct snapshot *snapshot)
{
    disks_undo(&snapshot->disks);
    for (int i = 0; i < snapshot->count; i++)
        claim_end(&snapshot->list[i].claim);
    claim_end(&snapshot->claim);
}

static bool has_guest(const struct view *view, ref_t vm_ref)
{
    const struct object *vm = ref_is_null(vm_ref) ? NULL : view_get(view, VM, vm_ref);

    return vm
           && (VM_get_power_state(vm) == vm_power_state_Running
               || VM_get_power_state(vm) == vm_power_state_Paused);
}

/* The disks as they are in this view, and that nobody but the VM has them open. */
static int choose(struct snapshot *snapshot, const struct view *view)
{
    int r;

    snapshot->count = 0;
    r = snapshot->choose(snapshot, view);
    for (int i = 0; r == 0 && i < snapshot->count; i++) {
        ref_t disk = snapshot->list[i].source, writer = storage_writer(view, disk);

        if (ref_is_null(writer) || (ref_equal(writer, snapshot->vm) && has_guest(view, writer)))
            continue;
        r = snapshot->is_of_disk
                ? CHANGED_MEANWHILE
                : fail(snapshot->call, VDI_IN_USE, ref_text(snapshot->call, disk),
                       enum_text(&enum_type_vdi_operations, (int) snapshot->operation));
    }
    return r;
}

static int check_SRs(struct snapshot *snapshot)
{
    struct call *call = snapshot->call;
    bool is_clone = snapshot->operation == vdi_operations_clone;

    for (int i = 0; i < snapshot->count; i++) {
        const struct object *vdi = live(call, call_view(call), VDI, snapshot->list[i].source);
        int r;

        if (!vdi)
            return -ERR_HANDLE_INVALID;
        r = storage_check_SR(call, VDI_get_SR(vdi),
                             is_clone ? storage_operations_vdi_clone
                                      : storage_operations_vdi_snapshot);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The hidden VDIs of all disks. */
static int add_disks(struct snapshot *snapshot, struct txn *txn)
{
    struct call *call = snapshot->call;

    if (!snapshot->disks)
        snapshot->disks = disks_new(call);
    assert(snapshot->disks->count == 0); /* whoever tried before has forgotten those of the transaction that went */
    for (int i = 0; i < snapshot->count; i++) {
        struct snapshot_disk *disk = &snapshot->list[i];
        const struct object *vdi = live(call, txn_view(txn), VDI, disk->source);
        struct object *draft;

        if (!vdi)
            return -ERR_HANDLE_INVALID;
        draft = vdi_draft_copy(call, vdi);
        snapshot->draft(snapshot, draft, disk->source);
        disk->made = disks_add(snapshot->disks, txn, draft);
    }
    return 0;
}

/* The end of the last transaction; when it fails it has changed nothing. */
static int keep_disks(struct snapshot *snapshot, struct txn *txn)
{
    int r = disks_check(snapshot->disks, txn);

    if (r == 0)
        r = snapshot->finish(snapshot, txn);
    if (r < 0)
        return r;
    disks_keep(snapshot->disks, txn);
    for (int i = 0; i < snapshot->count; i++)
        claim_end_txn(&snapshot->list[i].claim, txn);
    return 0;
}

/* ---- disks that nobody has open ---- */

static int make_still(struct snapshot *snapshot)
{
    struct call *call = snapshot->call;
    struct txn *txn = store_begin(call->core->store);
    int r = add_disks(snapshot, txn);

    if (r < 0) {
        snapshot->disks->count = 0; /* with the transaction */
        txn_end(&txn);
        return r;
    }
    call_commit(call, &txn);
    task_set_cancellable(call, true);
    for (int i = 0; r == 0 && i < snapshot->count; i++) {
        r = disk_make_clone(snapshot->disks, snapshot->list[i].made, snapshot->list[i].source);
        task_progress(call, (double) (i + 1) / (snapshot->count + 1));
    }
    task_set_cancellable(call, false);
    return r;
}

static int run_still(struct snapshot *snapshot)
{
    struct call *call = snapshot->call;
    struct txn *txn;
    int r = 0;

    if (!snapshot->is_of_disk) {
        r = claim_begin(&snapshot->claim, call, CLASS_OF(VM), snapshot->vm, vm_operations_snapshot);
        if (r < 0)
            return r;
        if (has_guest(call_view(call), snapshot->vm))
            return CHANGED_MEANWHILE;
    }
    r = choose(snapshot, call_view(call));
    for (int i = 0; r == 0 && i < snapshot->count; i++)
        r = claim_begin(&snapshot->list[i].claim, call, CLASS_OF(VDI), snapshot->list[i].source,
                        (int) snapshot->operation);
    /* Claiming may have waited; from now on no guest opens them. */
    for (int i = 0; r == 0 && i < snapshot->count; i++)
        if (!ref_is_null(storage_writer(call_view(call), snapshot->list[i].source)))
            r = CHANGED_MEANWHILE;
    if (r == 0)
        r = check_SRs(snapshot);
    if (r == 0)
        r = make_still(snapshot);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    r = keep_disks(snapshot, txn);
    if (r < 0) {
        txn_end(&txn);
        return r;
    }
    claim_end_txn(&snapshot->claim, txn);
    return call_commit(call, &txn);
}

/* ---- disks that a guest has open ---- */

static int begin_disks(struct snapshot *snapshot, struct txn *txn)
{
    int r;

    if (!has_guest(txn_view(txn), snapshot->vm))
        return CHANGED_MEANWHILE;
    r = choose(snapshot, txn_view(txn));
    for (int i = 0; r == 0 && i < snapshot->count; i++)
        r = claim_begin_txn(&snapshot->list[i].claim, snapshot->call, txn, CLASS_OF(VDI),
                            snapshot->list[i].source, (int) snapshot->operation);
    return r < 0 ? r : add_disks(snapshot, txn);
}

static int snapshot_begin(struct work *work, struct txn *txn)
{
    struct snapshot *snapshot = work->detail;
    int r = begin_disks(snapshot, txn);

    if (r == 0)
        return 0;
    /* The transaction goes, and with it what the claims and the disks have put. */
    for (int i = 0; i < snapshot->count; i++)
        claim_keep(&snapshot->list[i].claim);
    if (snapshot->disks)
        snapshot->disks->count = 0;
    return r;
}

/* Nobody but the call that began it finishes it; whoever takes it up from the INTENT only says so.
 */
static void snapshot_done(struct work *work, struct txn *txn, enum guest_is guest, int64_t domid)
{
    struct snapshot *snapshot = work->detail;

    (void) guest;
    (void) domid;
    if (snapshot)
        snapshot->r = keep_disks(snapshot, txn);
    else
        fail(work->call, INTERNAL_ERROR, "the snapshot was interrupted");
}

/* The agent was restarted in the middle, and nobody wants the snapshot any more: a guest that
 * stands for it goes on. */
static int let_go_on(struct work *work, struct value *ret_answer)
{
    struct call *call = work->call;
    const struct object *vm = view_get(call_view(call), VM, work->vm);

    if (!vm || VM_get_power_state(vm) != vm_power_state_Running)
        return 0;
    return slave_vm_unpause(call, work->host,
                            &(struct slave_vm_unpause_args){work->uuid, (int64_t) work->epoch},
                            ret_answer);
}

/* Also an agent that has failed: one that had got another master meanwhile lets nobody run by the old one's word. */
static int see_it_goes_on(struct work *work)
{
    struct value answer = VALUE_VOID;
    int r = let_go_on(work, &answer);

    return r < 0 && (slave_call_in_doubt(work->call) || r == -ERR_HOST_OFFLINE) ? r : 0;
}

const struct work_kind work_snapshot = {
    .name = "snapshot",
    .operation = vm_operations_snapshot,
    .is_cancellable = true, /* a disk that must be copied takes its time */
    .begin = snapshot_begin,
    .done = snapshot_done,
    .see_undone = see_it_goes_on,
    .repeat = let_go_on,
};

/* {sr, sr_type, sr_location, sr_marker, source, location} of each. */
static int disk_maps(struct snapshot *snapshot, ref_t host, struct value *ret)
{
    struct call *call = snapshot->call;
    struct value *items = arena_alloc_array(call->arena, (size_t) snapshot->count, sizeof *items);

    for (int i = 0; i < snapshot->count; i++) {
        const struct object *vdi = live(call, call_view(call), VDI, snapshot->list[i].source);
        struct made_disk *disk = &snapshot->disks->list[i];
        struct value sr;
        int r;

        if (!vdi)
            return -ERR_HANDLE_INVALID;
        r = storage_sr_map(call, VDI_get_SR(vdi), host, &sr);
        if (r < 0)
            return r;
        disk->host = host;
        items[i] = text_map(call->arena, "sr", value_map_text(&sr, "uuid", ""), "sr_type",
                            value_map_text(&sr, "type", ""), "sr_location",
                            value_map_text(&sr, "location", ""), "sr_marker",
                            value_map_text(&sr, "marker", ""), "source",
                            arena_strdup(call->arena, VDI_get_location(vdi)), "location",
                            disk->location, NULL);
    }
    *ret = VALUE_SET((uint32_t) snapshot->count, items);
    return 0;
}

static int make_live(struct snapshot *snapshot, struct work *work)
{
    struct call *call = snapshot->call;
    const struct object *vm = live(call, call_view(call), VM, snapshot->vm);
    struct slave_vm_snapshot_args args = {.vm = work->uuid, .epoch = (int64_t) work->epoch};
    struct value maps, answers;
    int r;

    if (!vm)
        return -ERR_HANDLE_INVALID;
    args.paused = VM_get_power_state(vm) == vm_power_state_Paused;
    r = disk_maps(snapshot, work->host, &maps);
    if (r < 0)
        return r;
    args.disks = &maps;
    task_set_cancellable(call, true);
    r = slave_vm_snapshot(call, work->host, &args, &answers);
    task_set_cancellable(call, false);
    if (r < 0)
        return r;
    if (answers.length != (uint32_t) snapshot->count)
        return fail(call, INTERNAL_ERROR, "the host's answer is not about these disks");
    for (int i = 0; i < snapshot->count; i++)
        disks_made(snapshot->disks, snapshot->list[i].made, &answers.items[i]);
    return 0;
}

static int run_live(struct snapshot *snapshot)
{
    _cleanup_(work_end) struct work work = {.detail = snapshot};
    struct call *call = snapshot->call;
    int r = choose(snapshot, call_view(call));

    if (r == 0)
        r = check_SRs(snapshot);
    if (r == 0)
        r = work_begin(&work, call, &work_snapshot, snapshot->vm);
    if (r < 0)
        return r;
    snapshot->host = work.host;
    r = make_live(snapshot, &work);
    if (r < 0 && slave_call_in_doubt(call))
        disks_leave(snapshot->disks); /* what the host does with them is not known yet */
    r = work_conclude(&work, r, NULL);
    return r < 0 ? r : snapshot->r;
}

int snapshot_run(struct snapshot *snapshot)
{
    int r;

    do {
        snapshot_end(snapshot);
        r = has_guest(call_view(snapshot->call), snapshot->vm) ? run_live(snapshot)
                                                               : run_still(snapshot);
        if (r == CHANGED_MEANWHILE && snapshot->is_of_disk)
            snapshot->vm = storage_writer(call_view(snapshot->call), snapshot->list[0].source);
    } while (r == CHANGED_MEANWHILE);
    return r;
}
