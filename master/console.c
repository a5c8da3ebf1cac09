/* console.c - console records made by hand; those of running VMs come and go with the VM */
#include "master/handler.h"

int console_create(struct call *call, const struct console_create_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct object *draft = draft_of(call->arena, CLASS_OF(console), args->args->record.fields);

    *ret = VALUE_REF(draft_create(call, txn, draft));
    return call_commit(call, &txn);
}

int console_destroy(struct call *call, const struct console_destroy_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    (void) ret;
    if (!live(call, txn_view(txn), console, args->self))
        return -ERR_HANDLE_INVALID;
    txn_delete(txn, CLASS_OF(console), args->self);
    return call_commit(call, &txn);
}
