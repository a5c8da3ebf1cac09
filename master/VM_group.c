/* VM_group.c - VMs that are placed with regard to each other */
#include "master/handler.h"

int VM_group_create(struct call *call, const struct VM_group_create_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct object *draft = draft_of(call->arena, CLASS_OF(VM_group), args->args->record.fields);

    *ret = VALUE_REF(draft_create(call, txn, draft));
    return call_commit(call, &txn);
}

int VM_group_destroy(struct call *call, const struct VM_group_destroy_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct value members, group = VALUE_REF(args->self);

    (void) ret;
    if (!live(call, txn_view(txn), VM_group, args->self))
        return -ERR_HANDLE_INVALID;
    members = view_inverse(txn_view(txn), &CLASS_OF(VM_group)->fields[F_VM_group_VMs], args->self,
                           call->arena);
    for (uint32_t i = 0; i < members.length; i++) {
        const struct object *vm = txn_get(txn, VM, members.items[i].ref);
        struct value groups = value_set_without(call->arena, VM_get_groups(vm), &group);

        VM_put_groups(txn, members.items[i].ref, &groups);
    }
    txn_delete(txn, CLASS_OF(VM_group), args->self);
    return call_commit(call, &txn);
}
