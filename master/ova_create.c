/* ova_create.c - the objects of an import, made in the caller's transaction
 *
 *      networks -> disks -> VMs -> which VM is whose snapshot -> drives -> interfaces
 *
 * Drafts come from a file that anyone may have written: each reference is replaced by that of the
 * object here, or by null, and what the server keeps begins as with any new object. */
#include <stdio.h>

#include "master/VM.h"
#include "master/blob.h"
#include "master/network.h"
#include "master/ova_fate.h"
#include "master/storage.h"
#include "shared/log.h"

/* An object of the file as it is here; null for what is not. */
static ref_t here(const struct ova_import *import, ref_t ref)
{
    return ova_object(import->plan, ref) ? import->fates[ova_number(ref)].here : NULL_REF;
}

/* A draft from the file's, with the references as they are here. */
static struct object *draft_here(const struct ova_import *import, const struct object *from)
{
    const struct class *class = from->class;
    struct object *draft = draft_of(import->call->arena, class, from->fields);

    for (int i = 0; i < class->field_count; i++)
        if (class->fields[i].type->kind == KIND_REF && !(class->fields[i].flags & FIELD_INVERSE))
            draft->fields[i] = VALUE_REF(here(import, from->fields[i].ref));
    return draft;
}

static struct value with_import_task(const struct ova_import *import,
                                     const struct value *other_config)
{
    struct call *call = import->call;

    if (ref_is_null(call->task))
        return map_without_text(call->arena, other_config, "import_task");
    return map_with_text(call->arena, other_config, "import_task", ref_text(call, call->task));
}

/* ---- networks and disks ---- */

static int create_network(struct ova_import *import, struct txn *txn, size_t n)
{
    struct object *draft = draft_here(import, import->plan->objects[n].draft);

    draft->fields[F_network_other_config] =
        with_import_task(import, network_get_other_config(draft));
    import->fates[n].here = network_make(import->call, txn, draft, &import->bridges);
    return 0;
}

static void relate_disks(struct ova_import *import, struct txn *txn)
{
    for (int i = 0; i < import->disk_count; i++)
        import->fates[import->disks[i].number].here = import->disks[i].vdi;
    for (int i = 0; i < import->disk_count; i++) {
        const struct object *draft = import->plan->objects[import->disks[i].number].draft;
        ref_t of = here(import, VDI_get_snapshot_of(draft));

        if (VDI_get_is_a_snapshot(draft) && !ref_equal(of, import->disks[i].vdi))
            VDI_put_snapshot_of(txn, import->disks[i].vdi, of);
    }
}

/* ---- VMs ---- */

/* A VM of its own: other addresses, another generation, no access to the API. */
static void settle_identity(const struct ova_import *import, struct object *draft)
{
    struct call *call = import->call;
    struct value *fields = draft->fields, other_config = *VM_get_other_config(draft);

    other_config = map_without_text(call->arena, &other_config, "grant_api_access");
    other_config = map_without_text(call->arena, &other_config, "default_template");
    other_config = with_import_task(import, &other_config);
    if (!import->options.is_restore) {
        fields[F_VM_uuid] = value_text("");
        other_config = map_with_text(call->arena, &other_config, "mac_seed", uuid_new_text(call));
        if (!VM_get_is_a_template(draft) && *VM_get_generation_id(draft))
            fields[F_VM_generation_id] = value_text(vm_generation_id_new(call));
    }
    fields[F_VM_other_config] = other_config;
}

static void settle_snapshot(struct object *draft)
{
    struct value *fields = draft->fields;

    fields[F_VM_snapshot_of] = fields[F_VM_parent] = VALUE_REF(NULL_REF); /* relate_vms() */
    if (VM_get_is_a_snapshot(draft)) {
        fields[F_VM_is_a_template] = VALUE_BOOL(true);
        return;
    }
    fields[F_VM_snapshot_time] = VALUE_DATETIME(0);
    fields[F_VM_transportable_snapshot_id] = value_text("");
    fields[F_VM_snapshot_info] = VALUE_EMPTY_MAP;
    fields[F_VM_snapshot_metadata] = value_text("");
}

static ref_t create_guest_metrics(struct ova_import *import, struct txn *txn,
                                  const struct object *vm)
{
    const struct object *from = ova_object(import->plan, VM_get_guest_metrics(vm));
    struct object *draft;

    if (!from)
        return NULL_REF;
    draft = draft_here(import, from);
    draft->fields[F_VM_guest_metrics_live] = VALUE_BOOL(false);
    return draft_create(import->call, txn, draft);
}

/* vm_create() has made new ones; history is the file's. */
static void keep_metrics(const struct ova_import *import, struct txn *txn, const struct object *vm,
                         ref_t made)
{
    const struct object *from = ova_object(import->plan, VM_get_metrics(vm));
    ref_t metrics = VM_get_metrics(txn_get(txn, VM, made));

    if (!from)
        return;
    VM_metrics_put_VCPUs_number(txn, metrics, VM_metrics_get_VCPUs_number(from));
    VM_metrics_put_start_time(txn, metrics, VM_metrics_get_start_time(from));
    VM_metrics_put_install_time(txn, metrics, VM_metrics_get_install_time(from));
    VM_metrics_put_other_config(txn, metrics, VM_metrics_get_other_config(from));
}

/* Until the contents are there the VM is ours: nobody starts it, and who may end whatever is under way ends the import. No
 * rule lets an import begin on a VM that is there, so the claim is taken. */
static int claim_vm(struct ova_import *import, struct txn *txn, ref_t vm)
{
    int r;

    if (import->options.is_metadata)
        return 0;
    r = claim_take_txn(&import->claims[import->claim_count], import->call, txn, CLASS_OF(VM), vm,
                       vm_operations_import, false);
    import->claim_count += r == 0;
    return r;
}

static int create_vm(struct ova_import *import, struct txn *txn, size_t n)
{
    struct call *call = import->call;
    const struct object *from = import->plan->objects[n].draft, *pool = pool_object(txn_view(txn));
    struct object *draft = draft_here(import, from);
    struct value *fields = draft->fields;
    ref_t image = VM_get_suspend_VDI(draft);
    const char *uuid;
    int r;

    vm_draft_halt(draft);
    fields[F_VM_is_control_domain] = VALUE_BOOL(false);
    fields[F_VM_is_default_template] = VALUE_BOOL(false);
    fields[F_VM_suspend_VDI] = VALUE_REF(import->fates[n].is_suspended ? image : NULL_REF);
    if (import->fates[n].is_suspended)
        fields[F_VM_power_state] = VALUE_ENUM(vm_power_state, vm_power_state_Suspended);
    if (VM_get_memory_target(draft) == 0)
        fields[F_VM_memory_target] = VALUE_INT(VM_get_memory_dynamic_max(draft));
    if (pool && pool_get_policy_no_vendor_device(pool))
        fields[F_VM_has_vendor_device] = VALUE_BOOL(false);
    settle_snapshot(draft);
    fields[F_VM_uuid] = value_text(VM_get_uuid(from));
    settle_identity(import, draft);
    if (import->options.is_restore) { /* two of the file may have the same one */
        r = ova_check_uuid(import, txn_view(txn), from);
        if (r == 0)
            r = uuid_wanted(call, VM_get_uuid(from), &uuid);
        if (r < 0)
            return r;
        fields[F_VM_uuid] = value_text(uuid);
    }
    fields[F_VM_guest_metrics] = VALUE_REF(create_guest_metrics(import, txn, from));
    import->fates[n].here = vm_create(call, txn, draft);
    keep_metrics(import, txn, from, import->fates[n].here);
    return claim_vm(import, txn, import->fates[n].here);
}

/* When all VMs are there: whose snapshots they are, and from what each came. */
static int relate_vm(struct ova_import *import, struct txn *txn, size_t n)
{
    const struct object *from = import->plan->objects[n].draft;
    ref_t vm = import->fates[n].here;

    VM_put_parent(txn, vm, here(import, VM_get_parent(from)));
    if (VM_get_is_a_snapshot(from))
        VM_put_snapshot_of(txn, vm, here(import, VM_get_snapshot_of(from)));
    return 0;
}

/* ---- drives and interfaces ---- */

/* The devices of a suspended guest stay as they were. */
static bool is_suspended(const struct ova_import *import, ref_t vm)
{
    return import->fates[ova_number(vm)].is_suspended;
}

static int create_vbd(struct ova_import *import, struct txn *txn, size_t n)
{
    const struct object *from = import->plan->objects[n].draft;
    struct object *draft = draft_here(import, from);
    struct value *fields = draft->fields;

    if (import->fates[n].is_left_out)
        return 0;
    if (VBD_get_type(draft) == vbd_type_CD && ref_is_null(VBD_get_VDI(draft)))
        fields[F_VBD_empty] = VALUE_BOOL(true);
    fields[F_VBD_reserved] = VALUE_BOOL(false);
    fields[F_VBD_storage_lock] = VALUE_BOOL(false);
    fields[F_VBD_status_code] = VALUE_INT(0);
    fields[F_VBD_status_detail] = value_text("");
    fields[F_VBD_runtime_properties] = VALUE_EMPTY_MAP;
    if (!is_suspended(import, VBD_get_VM(from))) {
        fields[F_VBD_currently_attached] = VALUE_BOOL(false);
        fields[F_VBD_device] = value_text("");
    }
    return vbd_create(import->call, txn, draft, &import->fates[n].here);
}

static int create_vif(struct ova_import *import, struct txn *txn, size_t n)
{
    const struct object *from = import->plan->objects[n].draft;
    struct object *draft = draft_here(import, from);
    struct value *fields = draft->fields;
    int r;

    fields[F_VIF_reserved] = VALUE_BOOL(false);
    fields[F_VIF_status_code] = VALUE_INT(0);
    fields[F_VIF_status_detail] = value_text("");
    fields[F_VIF_runtime_properties] = VALUE_EMPTY_MAP;
    if (!is_suspended(import, VIF_get_VM(from)))
        fields[F_VIF_currently_attached] = VALUE_BOOL(false);
    if (!import->options.is_restore)
        fields[F_VIF_MAC] = value_text("");
    r = vif_create(import->call, txn, draft, &import->fates[n].here);
    if (r == 0 && import->options.is_restore && *VIF_get_MAC(from))
        VIF_put_MAC_autogenerated(txn, import->fates[n].here, VIF_get_MAC_autogenerated(from));
    return r;
}

/* ---- all of it ---- */

typedef int create_fn(struct ova_import *, struct txn *, size_t n);

static int create_each(struct ova_import *import, struct txn *txn, const struct class *class,
                       create_fn *fn)
{
    int r = 0;

    for (size_t i = 0; i < import->plan->count && r == 0; i++)
        if (import->fates[i].is_made && import->plan->objects[i].draft->class == class)
            r = fn(import, txn, i);
    return r;
}

/* User interfaces wait for this to map networks anew. */
static void tell_task(struct call *call, struct txn *txn)
{
    const struct object *task = txn_get(txn, task, call->task);
    struct value other_config;

    if (!task)
        return;
    other_config =
        map_with_text(call->arena, task_get_other_config(task), "object_creation", "complete");
    task_put_other_config(txn, call->task, &other_config);
}

int ova_import_create(struct ova_import *import, struct txn *txn)
{
    int r;

    import->claims = arena_alloc_array(import->call->arena, import->plan->count, sizeof *import->claims);
    relate_disks(import, txn);
    bridges_collect(&import->bridges, txn_view(txn));
    create_each(import, txn, CLASS_OF(network), create_network);
    bridges_done(&import->bridges);
    r = create_each(import, txn, CLASS_OF(VM), create_vm);
    if (r == 0)
        r = create_each(import, txn, CLASS_OF(VM), relate_vm);
    if (r == 0)
        r = create_each(import, txn, CLASS_OF(VBD), create_vbd);
    if (r == 0)
        r = create_each(import, txn, CLASS_OF(VIF), create_vif);
    if (r == 0)
        tell_task(import->call, txn);
    for (size_t i = 0; r < 0 && i < import->claim_count; i++)
        claim_keep(&import->claims[i]); /* what it put is rolled back */
    return r;
}

struct value ova_import_result(const struct ova_import *import)
{
    struct value *items =
        arena_alloc_array(import->call->arena, import->plan->count, sizeof *items);
    uint32_t n = 0;

    for (int snapshots = 0; snapshots < 2 && n == 0; snapshots++)
        for (size_t i = 0; i < import->plan->count; i++)
            if (import->fates[i].is_made && import->plan->objects[i].draft->class == CLASS_OF(VM)
                && VM_get_is_a_snapshot(import->plan->objects[i].draft) == (snapshots == 1))
                items[n++] = VALUE_REF(import->fates[i].here);
    return VALUE_SET(n, items);
}

void ova_import_log(const struct ova_import *import, const struct view *view)
{
    struct value made = ova_import_result(import);

    for (uint32_t i = 0; i < made.length; i++) {
        const struct object *vm = view_get(view, VM, made.items[i].ref);

        log_info(import->call->tag, "%s makes VM %s (%.200s)", import->call->name, VM_get_uuid(vm),
                 VM_get_name_label(vm));
    }
}

void ova_import_done(struct ova_import *import, struct txn *txn)
{
    for (size_t i = 0; i < import->claim_count; i++)
        claim_end_txn(&import->claims[i], txn);
}

/* Refs of what was made of a class, as one text. */
static const char *made_text(const struct ova_import *import, const struct class *class)
{
    struct arena *arena = import->call->arena;
    char *text = arena_alloc(arena, import->plan->count * REF_TEXT_BYTES + 1), *at = text;
    char ref[REF_TEXT_BYTES];

    for (size_t i = 0; i < import->plan->count; i++)
        if (import->fates[i].is_made && import->plan->objects[i].draft->class == class)
            at += sprintf(at, "%s%s", at == text ? "" : " ",
                          ref_print(ref, import->fates[i].here));
    return text;
}

struct value ova_import_made(const struct ova_import *import)
{
    return text_map(import->call->arena, "VMs", made_text(import, CLASS_OF(VM)), "networks",
                    made_text(import, CLASS_OF(network)), NULL);
}

/* The next reference of such a text; null at its end. */
static ref_t next_made(const char **text)
{
    size_t length;
    ref_t ref = NULL_REF;

    *text += strspn(*text, " ");
    length = strcspn(*text, " ");
    if (length > 0)
        (void) ref_parse(*text, length, &ref);
    *text += length;
    return ref;
}

void ova_import_undo(struct ova_import *import, struct txn *txn)
{
    struct value made = ova_import_made(import);

    ova_import_delete(txn, &made);
    for (size_t i = 0; i < import->claim_count; i++)
        claim_end_txn(&import->claims[i], txn);
}

void ova_import_delete(struct txn *txn, const struct value *made)
{
    const char *vms = value_map_text(made, "VMs", ""),
               *networks = value_map_text(made, "networks", "");
    ref_t ref;

    while (!ref_is_null(ref = next_made(&vms)))
        if (txn_get(txn, VM, ref))
            vm_delete(txn, ref);
    /* Somebody may have come to use a network meanwhile. */
    while (!ref_is_null(ref = next_made(&networks)))
        if (txn_get(txn, network, ref)
            && view_count_inverse(txn_view(txn), &CLASS_OF(network)->fields[F_network_VIFs], ref)
                   == 0) {
            blobs_delete(txn, network_get_blobs(txn_get(txn, network, ref)));
            txn_delete(txn, CLASS_OF(network), ref);
        }
}
