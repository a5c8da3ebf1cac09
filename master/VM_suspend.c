/* VM_suspend.c - a guest's memory into a file, and back
 *
 *   suspend   the VDI's record is made with the INTENT; the slave writes the image, syncs it
 *             and ends the guest
 *   resume    as start: host, room, next epoch; the slave builds the guest from the image,
 *             which goes afterwards
 *
 * The image is destroyed only when the guest is known to run, and when nobody needs it: until then
 * it is the VM. */
#include "master/VM_power.h"

#include "master/core.h"
#include "master/message.h"
#include "master/put.h"
#include "master/slaves.h"
#include "master/storage.h"
#include "master/VM_boot.h"
#include "master/vm_config.h"
#include "master/vm_state.h"
#include "shared/log.h"

static void tell(struct work *work, struct txn *txn, const char *name, const char *what)
{
    message_about_vm(txn, work->call->core, name, MESSAGE_VM_PRIORITY, work->vm, work->host, what);
}

/* ---- suspend ---- */

/* The first of wire.md section 11's that there is and that the host sees. */
static ref_t suspend_sr(struct core *core, const struct view *view, const struct object *vm)
{
    const struct object *pool = view_get(view, pool, core->pool),
                        *host = view_get(view, host, VM_get_resident_on(vm));
    ref_t candidates[] = {
        VM_get_suspend_SR(vm),
        pool ? pool_get_suspend_image_SR(pool) : NULL_REF,
        host ? host_get_suspend_image_sr(host) : NULL_REF,
        pool ? pool_get_default_SR(pool) : NULL_REF,
    };

    for (size_t i = 0; i < ARRAY_SIZE(candidates); i++)
        if (view_get(view, SR, candidates[i]) && storage_is_attached(view, candidates[i], VM_get_resident_on(vm)))
            return candidates[i];
    return NULL_REF;
}

static ref_t image_new(struct txn *txn, struct core *core, const struct object *vm, ref_t sr)
{
    ref_t vdi = txn_create_new(txn, core->random, CLASS_OF(VDI), NULL);
    struct arena *arena = arena_new();

    VDI_put_name_label(txn, vdi, "Suspend image");
    VDI_put_name_description(txn, vdi, "Memory of a suspended VM");
    VDI_put_SR(txn, vdi, sr);
    VDI_put_type(txn, vdi, vdi_type_suspend);
    VDI_put_virtual_size(txn, vdi, VM_get_memory_static_max(vm));
    VDI_put_managed(txn, vdi, true);
    storage_count(txn, sr, VM_get_memory_static_max(vm), 0);
    VDI_put_location(txn, vdi,
                     arena_text(arena, "%s.suspend", VDI_get_uuid(txn_get(txn, VDI, vdi))));
    arena_destroy(&arena);
    return vdi;
}

static int suspend_begin(struct work *work, struct txn *txn)
{
    struct core *core = work->call->core;
    const struct object *vm = txn_get(txn, VM, work->vm);
    ref_t sr = suspend_sr(core, txn_view(txn), vm);

    if (ref_is_null(sr))
        return fail(work->call, VM_NO_SUSPEND_SR, ref_text(work->call, work->vm));
    work->vdi = image_new(txn, core, vm, sr);
    return 0;
}

static void suspend_done(struct work *work, struct txn *txn, enum guest_is guest, int64_t domid)
{
    (void) guest;
    (void) domid;
    VM_put_suspend_VDI(txn, work->vm, work->vdi);
    tell(work, txn, "VM_SUSPENDED", "has been suspended");
    vm_put_suspended(txn, work->vm);
}

/* After a failure the slave has removed the file. */
static void suspend_undone(struct work *work, struct txn *txn)
{
    if (txn_get(txn, VDI, work->vdi))
        storage_drop_vdi(txn, work->vdi);
}

static int suspend_call(struct work *work, struct value *ret_answer)
{
    struct call *call = work->call;
    struct value image = vm_image(call, call_view(call), work->vdi, work->host);
    struct slave_vm_suspend_args args = {work->uuid, (int64_t) work->epoch, &image};

    return slave_vm_suspend(call, work->host, &args, ret_answer);
}

const struct work_kind work_suspend = {
    .name = "suspend",
    .operation = vm_operations_suspend,
    .begin = suspend_begin,
    .done = suspend_done,
    .undone = suspend_undone,
    .repeat = suspend_call, /* a guest that has ended may have left a whole image or none: the slave
                               knows */
};

int VM_suspend(struct call *call, const struct VM_suspend_args *args, struct value *ret)
{
    _cleanup_(work_end) struct work work = {0};
    struct value answer = VALUE_VOID;
    int r;

    (void) ret;
    r = work_begin(&work, call, &work_suspend, args->vm);
    if (r < 0)
        return r;
    r = suspend_call(&work, &answer);
    return work_conclude(&work, r, &answer);
}

/* ---- resume ---- */

static int resume_begin(struct work *work, struct txn *txn)
{
    int r;

    work->vdi = VM_get_suspend_VDI(txn_get(txn, VM, work->vm));
    if (!txn_get(txn, VDI, work->vdi))
        return fail(work->call, VM_HAS_NO_SUSPEND_VDI, ref_text(work->call, work->vm));
    r = reserve_disks(work->call, txn, work->vm, true); /* another VM may have them since */
    if (r < 0)
        return r;
    return arrival_begin(work, txn, host_allowed_operations_vm_resume);
}

static void resume_done(struct work *work, struct txn *txn, enum guest_is guest, int64_t domid)
{
    vm_put_home(txn, work->call->core, work->vm, work->host, domid, guest == GUEST_IS_PAUSED);
    VM_put_suspend_VDI(txn, work->vm, NULL_REF);
    vm_put_reserved(txn, work->vm, false);
    tell(work, txn, "VM_RESUMED", "has been resumed");
    if (guest == GUEST_IS_ENDED)
        vm_put_halted(txn, work->vm);
}

static void resume_after(struct work *work)
{
    suspend_image_destroy(work->call, work->vdi);
}

static void resume_undone(struct work *work, struct txn *txn)
{
    arrival_undone(work, txn);
    vm_put_reserved(txn, work->vm, false);
}

static bool resume_was_done(enum guest_is guest)
{
    return guest != GUEST_IS_NOWHERE;
}

const struct work_kind work_resume = {
    .name = "resume",
    .operation = vm_operations_resume,
    .lets_run = true,
    .begin = resume_begin,
    .done = resume_done,
    .undone = resume_undone,
    .after = resume_after,
    .was_done = resume_was_done,
};
const struct work_kind work_resume_on = {
    .name = "resume_on",
    .operation = vm_operations_resume_on,
    .lets_run = true,
    .begin = resume_begin,
    .done = resume_done,
    .undone = resume_undone,
    .after = resume_after,
    .was_done = resume_was_done,
};

static int resume_run(struct work *work)
{
    struct call *call = work->call;
    struct vm_config config;
    struct value image, answer = VALUE_VOID;
    int r;

    vm_config(call, call_view(call), work->vm, work->host, DEVICES_ATTACHED, &config);
    image = vm_image(call, call_view(call), work->vdi, work->host);
    r = slave_vm_resume(call, work->host,
                        &(struct slave_vm_resume_args){
                            .vm = config.uuid,
                            .epoch = (int64_t) work->epoch,
                            .config = &config.config,
                            .disks = &config.disks,
                            .nics = &config.nics,
                            .image = &image,
                            .image_epoch = VM_get_image_epoch(view_get(call_view(call), VM, work->vm)),
                            .paused = work->is_paused,
                        },
                        &answer);
    return work_conclude(work, r, &answer);
}

int VM_resume(struct call *call, const struct VM_resume_args *args, struct value *ret)
{
    _cleanup_(work_end) struct work work = {.is_paused = args->start_paused,
                                            .is_forced = args->force};
    int r;

    (void) ret;
    r = work_begin(&work, call, &work_resume, args->vm);
    return r < 0 ? r : resume_run(&work);
}

int VM_resume_on(struct call *call, const struct VM_resume_on_args *args, struct value *ret)
{
    _cleanup_(work_end) struct work work = {
        .is_paused = args->start_paused, .is_forced = args->force, .wanted_host = args->host};
    int r;

    (void) ret;
    r = work_begin(&work, call, &work_resume_on, args->vm);
    return r < 0 ? r : resume_run(&work);
}

/* ---- the image's end ---- */

/* A host that sees the SR and can be asked. */
static ref_t host_for(struct call *call, ref_t sr)
{
    struct view_iter pbds;
    const struct object *pbd;

    view_each_inverse(&pbds, call_view(call), &CLASS_OF(SR)->fields[F_SR_PBDs], sr);
    while ((pbd = view_next(&pbds)))
        if (PBD_get_currently_attached(pbd)
            && slave_is_linked(call->core->slaves, PBD_get_host(pbd)))
            return PBD_get_host(pbd);
    return NULL_REF;
}

void suspend_image_destroy(struct call *call, ref_t vdi_ref)
{
    const struct object *vdi = view_get(call_view(call), VDI, vdi_ref);
    struct failure kept = call->failure;
    struct value sr;
    const char *location;
    struct txn *txn;
    ref_t host;
    int r;

    if (!vdi)
        return;
    host = host_for(call, VDI_get_SR(vdi));
    if (ref_is_null(host)) {
        log_warning(call->tag, "no host can delete the suspend image %s", VDI_get_uuid(vdi));
        return;
    }
    sr = vm_sr(call, call_view(call), VDI_get_SR(vdi), host);
    location = arena_strdup(call->arena, VDI_get_location(vdi));
    r = slave_disk_destroy(call, host, &(struct slave_disk_destroy_args){&sr, location}, NULL);
    call->failure = kept;
    if (r < 0) {
        log_warning(call->tag, "the suspend image %s could not be deleted", location);
        return;
    }
    txn = store_begin(call->core->store);
    if (txn_get(txn, VDI, vdi_ref))
        storage_drop_vdi(txn, vdi_ref);
    call_commit(call, &txn);
}
