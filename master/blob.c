/* blob.c - blobs: names and types of contents that clients keep in the pool
 *
 * The handlers know records only. What a client puts into a blob comes and goes by /blob
 * (blob_http.c), and the files follow the records by themselves (blob_files.c), so deleting a blob
 * is deleting its record. Which map names it stands in the blob, too, so that destroying one leaves
 * no reference to nothing. */
#include "master/blob.h"

#include "master/handler.h"

#define MIME_TYPE_BYTES_MAX 255
#define MIME_TYPE_UNKNOWN   "application/octet-stream"

/* It becomes a header of answers. */
static bool mime_type_is_good(const char *text)
{
    for (const char *c = text; *c; c++)
        if (*c < ' ' || *c > '~')
            return false;
    return strlen(text) <= MIME_TYPE_BYTES_MAX;
}

/* ---- making ---- */

static int make(struct call *call, struct txn *txn, const char *mime_type, bool is_public,
                const char *owner, ref_t *ret)
{
    struct object *draft = draft_new(call->arena, CLASS_OF(blob));

    if (!mime_type_is_good(mime_type))
        return fail(call, INVALID_VALUE, "mime_type", mime_type);
    draft->fields[F_blob_mime_type] = value_text(*mime_type ? mime_type : MIME_TYPE_UNKNOWN);
    draft->fields[F_blob_public] = VALUE_BOOL(is_public);
    draft->fields[F_blob_last_updated] = VALUE_DATETIME(clock_utc_s(call->core->clock));
    draft->fields[F_blob_owner] = value_text(owner);
    *ret = draft_create(call, txn, draft);
    return 0;
}

int blob_create(struct call *call, const struct blob_create_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    ref_t blob;
    int r = make(call, txn, args->mime_type, args->public, "", &blob);

    if (r < 0)
        return r;
    *ret = VALUE_REF(blob);
    return call_commit(call, &txn);
}

/* A blob that hangs in the map `field` of an object under that name. */
static int make_for(struct call *call, const struct class *class, int field, ref_t owner,
                    const char *name, const char *mime_type, bool is_public, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct object *object = live_object(call, txn_view(txn), class, owner);
    struct value key = value_text(name);
    ref_t blob;
    int r;

    if (!object)
        return -ERR_HANDLE_INVALID;
    if (value_map_find(&object->fields[field], name))
        return fail(call, MAP_DUPLICATE_KEY, class->name, "blobs", ref_text(call, owner), name);
    r = make(call, txn, mime_type, is_public,
             arena_text(call->arena, "%s %s", class->name, ref_text(call, owner)), &blob);
    if (r < 0)
        return r;
    *ret = VALUE_REF(blob);
    txn_put(txn, class, owner, field,
            value_map_with(call->arena, &object->fields[field], &key, ret));
    return call_commit(call, &txn);
}

#define CREATE_NEW_BLOB(class_, owner)                                                          \
    int class_##_create_new_blob(                                                               \
        struct call *call, const struct class_##_create_new_blob_args *args, struct value *ret) \
    {                                                                                           \
        return make_for(call, CLASS_OF(class_), F_##class_##_blobs, args->owner, args->name,    \
                        args->mime_type, args->public, ret);                                    \
    }

CREATE_NEW_BLOB(VM, vm)
CREATE_NEW_BLOB(host, host)
CREATE_NEW_BLOB(network, network)
CREATE_NEW_BLOB(pool, pool)
CREATE_NEW_BLOB(SR, sr)

/* ---- the end ---- */

/* Takes the blob out of the map that names it. */
static void leave_owner(struct call *call, struct txn *txn, const struct object *blob)
{
    const char *owner = blob_get_owner(blob), *text = strchr(owner, ' ');
    const struct class *class =
        text ? model_class(arena_dup(call->arena, owner, (size_t) (text - owner))) : NULL;
    const struct object *object;
    const struct field *field;
    const struct value *map;
    ref_t ref;

    if (!class || !ref_parse(text + 1, strlen(text + 1), &ref)
        || !(object = view_object(txn_view(txn), class, ref)))
        return;
    field = model_field(class, "blobs");
    map = &object->fields[field->number];
    for (uint32_t i = 0; i < map->length; i++)
        if (ref_equal(map->items[2 * i + 1].ref, blob->ref)) {
            txn_put(txn, class, ref, field->number,
                    value_map_without(call->arena, map, &map->items[2 * i]));
            return;
        }
}

int blob_destroy(struct call *call, const struct blob_destroy_args *args, struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct object *blob = live(call, txn_view(txn), blob, args->self);

    (void) ret;
    if (!blob)
        return -ERR_HANDLE_INVALID;
    leave_owner(call, txn, blob);
    txn_delete(txn, CLASS_OF(blob), args->self);
    return call_commit(call, &txn);
}

void blobs_delete(struct txn *txn, const struct value *blobs)
{
    for (uint32_t i = 0; i < blobs->length; i++)
        if (txn_get(txn, blob, blobs->items[2 * i + 1].ref))
            txn_delete(txn, CLASS_OF(blob), blobs->items[2 * i + 1].ref);
}
