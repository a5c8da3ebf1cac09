/* secret_calls.c - secrets that clients keep in the pool (class secret) */
#include "master/handler.h"

int secret_create(struct call *call, const struct secret_create_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct object *draft = draft_of(call->arena, CLASS_OF(secret), args->args->record.fields);

    *ret = VALUE_REF(draft_create(call, txn, draft));
    return call_commit(call, &txn);
}

int secret_introduce(struct call *call, const struct secret_introduce_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    struct object *draft = draft_new(call->arena, CLASS_OF(secret));
    const char *uuid;
    int r = uuid_wanted(call, args->uuid, &uuid);

    if (r < 0)
        return r;
    if (view_by_uuid(txn_view(txn), CLASS_OF(secret), uuid))
        return fail(call, INVALID_VALUE, "uuid", uuid);
    draft->fields[F_secret_uuid] = value_text(uuid);
    draft->fields[F_secret_value] = value_text(args->value);
    draft->fields[F_secret_other_config] = *args->other_config;
    *ret = VALUE_REF(draft_create(call, txn, draft));
    return call_commit(call, &txn);
}

int secret_destroy(struct call *call, const struct secret_destroy_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    (void) ret;
    if (!live(call, txn_view(txn), secret, args->self))
        return -ERR_HANDLE_INVALID;
    txn_delete(txn, CLASS_OF(secret), args->self);
    return call_commit(call, &txn);
}
