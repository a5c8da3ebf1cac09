/* user_calls.c - the messages of class user: names that old releases kept, without a right attached
 */
#include "master/call.h"
#include "master/core.h"
#include "master/put.h"

int user_create(struct call *call, const struct user_create_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    *ret = VALUE_REF(
        txn_create_new(txn, call->core->random, CLASS_OF(user), args->args->record.fields));
    return call_commit(call, &txn);
}

int user_destroy(struct call *call, const struct user_destroy_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    (void) ret;
    if (!txn_get(txn, user, args->self))
        return fail(call, HANDLE_INVALID, "user", ref_text(call, args->self));
    txn_delete(txn, CLASS_OF(user), args->self);
    return call_commit(call, &txn);
}
