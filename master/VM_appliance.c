/* VM_appliance.c - VMs that belong together, as a record; its members are those whose field
 * appliance names it */
#include "master/handler.h"

int VM_appliance_create(struct call *call, const struct VM_appliance_create_args *args,
                        struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct object *draft = draft_of(call->arena, CLASS_OF(VM_appliance), args->args->record.fields);

    *ret = VALUE_REF(draft_create(call, txn, draft));
    return call_commit(call, &txn);
}

int VM_appliance_destroy(struct call *call, const struct VM_appliance_destroy_args *args,
                         struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct value members;

    (void) ret;
    if (!live(call, txn_view(txn), VM_appliance, args->self))
        return -ERR_HANDLE_INVALID;
    members = view_inverse(txn_view(txn), &CLASS_OF(VM_appliance)->fields[F_VM_appliance_VMs],
                           args->self, call->arena);
    for (uint32_t i = 0; i < members.length; i++)
        VM_put_appliance(txn, members.items[i].ref, NULL_REF);
    txn_delete(txn, CLASS_OF(VM_appliance), args->self);
    return call_commit(call, &txn);
}
