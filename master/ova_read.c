/* ova_read.c - ova.xml of an import, as drafts of objects
 *
 *      text -> one XML-RPC value -> version -> ids -> drafts, field by field
 *
 * A reference of the file is the number of its object, dressed as a ref_t; what names nothing gets
 * a number among the strangers, so that whoever needs it can say what is missing. */
#include "master/ova_read.h"

#include "master/api_version.h"
#include "master/handler.h"
#include "master/ova_write.h"
#include "shared/args.h"
#include "shared/xmlrpc.h"

#define VALUES_MAX (4u << 20)

/* No random uuid is one of these. */
#define OBJECT_HI   0x6f76612e786d6c00u /* "ova.xml" */
#define STRANGER_HI 0x6f76612e786d6c01u

struct reading {
    struct arena *arena;
    struct failure *failure;
    struct ova_plan *plan;
    struct ova_object **by_id; /* sorted */
    size_t strangers_room;
};

ref_t ova_ref(size_t n)
{
    return (ref_t){OBJECT_HI, n + 1};
}

size_t ova_number(ref_t ref)
{
    assert(ref.hi == OBJECT_HI);
    return ref.lo - 1;
}

const struct object *ova_object(const struct ova_plan *plan, ref_t ref)
{
    return ref.hi == OBJECT_HI && ref.lo - 1 < plan->count ? plan->objects[ref.lo - 1].draft : NULL;
}

const char *ova_id(const struct ova_plan *plan, ref_t ref)
{
    if (ref.hi == OBJECT_HI && ref.lo - 1 < plan->count)
        return plan->objects[ref.lo - 1].id;
    if (ref.hi == STRANGER_HI && ref.lo - 1 < plan->stranger_count)
        return plan->strangers[ref.lo - 1];
    return "OpaqueRef:NULL";
}

static int bad(struct reading *r, const char *reason)
{
    return failure_set(r->failure, r->arena, IMPORT_ERROR,
                       arena_text(r->arena, "ova.xml: %s", reason));
}

/* ---- version ---- */

/* Numbers may come as text or as ints. */
static int64_t number(const struct value *map, const char *name, int64_t otherwise)
{
    const struct value *value = value_map_find(map, name);

    if (value && value->kind == KIND_INT)
        return value->i;
    return value && value->kind == KIND_STRING ? strtoll(value->text, NULL, 10) : otherwise;
}

static int check_version(struct reading *r, const struct value *root)
{
    const struct value *version = value_map_find(root, "version");
    int64_t major, minor;

    if (!version || version->kind != KIND_MAP)
        return bad(r, "it has no version");
    major = number(version, "xapi_major", 0);
    minor = number(version, "xapi_minor", 0);
    if (major > API_MAJOR || (major == API_MAJOR && minor > API_MINOR)
        || number(version, "export_vsn", 0) > OVA_EXPORT_VSN)
        return failure_set(r->failure, r->arena, IMPORT_INCOMPATIBLE_VERSION);
    r->plan->export_vsn = (int) number(version, "export_vsn", 0);
    return 0;
}

/* ---- ids ---- */

static int by_id(const void *a, const void *b)
{
    return strcmp((*(struct ova_object *const *) a)->id, (*(struct ova_object *const *) b)->id);
}

static int id_compare(const void *id, const void *object)
{
    return strcmp(id, (*(struct ova_object *const *) object)->id);
}

/* Each object's class and id, and room for its draft. */
static int list_objects(struct reading *r, const struct value *objects)
{
    struct ova_plan *plan = r->plan;
    size_t each = sizeof *plan->objects + sizeof *r->by_id;

    if (!arena_room(r->arena, each * objects->length))
        return bad(r, "too many objects");
    plan->objects = arena_alloc_array(r->arena, objects->length, sizeof *plan->objects);
    r->by_id = arena_alloc_array(r->arena, objects->length, sizeof *r->by_id);
    for (uint32_t i = 0; i < objects->length; i++) {
        const struct value *object = &objects->items[i];
        const char *class_name, *id;

        if (object->kind != KIND_MAP)
            return bad(r, "an object is no struct");
        class_name = value_map_text(object, "class", NULL);
        id = value_map_text(object, "id", NULL);
        if (!class_name || !id || !*id)
            return bad(r, "an object without class and id");
        plan->objects[i] = (struct ova_object){.id = id, .class_name = class_name};
        r->by_id[i] = &plan->objects[i];
    }
    plan->count = objects->length;
    qsort(r->by_id, plan->count, sizeof *r->by_id, by_id);
    for (size_t i = 1; i < plan->count; i++)
        if (streq(r->by_id[i - 1]->id, r->by_id[i]->id))
            return bad(r, arena_text(r->arena, "two objects with the id %.100s", r->by_id[i]->id));
    return 0;
}

static ref_t stranger(struct reading *r, const char *id)
{
    struct ova_plan *plan = r->plan;

    if (plan->stranger_count == r->strangers_room) {
        const char **more;

        r->strangers_room = r->strangers_room ? 2 * r->strangers_room : 16;
        more = arena_alloc_array(r->arena, r->strangers_room, sizeof *more);
        if (plan->stranger_count)
            memcpy(more, plan->strangers, plan->stranger_count * sizeof *more);
        plan->strangers = more;
    }
    plan->strangers[plan->stranger_count++] = id;
    return (ref_t){STRANGER_HI, plan->stranger_count};
}

/* ---- drafts ---- */

static const struct class *class_of(const char *name)
{
    static const int known[] = {
        CLASS_NUMBER_VM,  CLASS_NUMBER_VM_metrics, CLASS_NUMBER_VM_guest_metrics,
        CLASS_NUMBER_VBD, CLASS_NUMBER_VIF,        CLASS_NUMBER_network,
        CLASS_NUMBER_VDI, CLASS_NUMBER_SR,         CLASS_NUMBER_host};

    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (streq(model_classes[known[i]].name, name))
            return &model_classes[known[i]];
    return NULL;
}

static int read_ref(struct reading *r, const struct field *field, const struct value *raw,
                    struct value *ret)
{
    struct ova_object **found;

    *ret = VALUE_REF(NULL_REF);
    if (raw->kind != KIND_STRING)
        return failure_set(r->failure, r->arena, FIELD_TYPE_ERROR, field->name);
    if (streq(raw->text, "") || streq(raw->text, "OpaqueRef:NULL") || streq(raw->text, "NULL"))
        return 0;
    found = bsearch(raw->text, r->by_id, r->plan->count, sizeof *r->by_id, id_compare);
    if (!found)
        *ret = VALUE_REF(stranger(r, raw->text));
    else if (!class_of((*found)->class_name))
        return 0;
    else if (!streq((*found)->class_name, field->type->class->name))
        return failure_set(r->failure, r->arena, FIELD_TYPE_ERROR, field->name);
    else
        *ret = VALUE_REF(ova_ref((size_t) (*found - r->plan->objects)));
    return 0;
}

/* Fields that no import takes over: what was under way, and what points to many objects. */
static bool is_skipped(const struct field *field)
{
    const struct type *type = field->type;

    return field->flags & (FIELD_INTERNAL | FIELD_INVERSE | FIELD_SECRET)
           || streq(field->name, "allowed_operations") || streq(field->name, "current_operations")
           || (type->element && type->element->kind == KIND_REF)
           || (type->key && type->key->kind == KIND_REF);
}

static int read_object(struct reading *r, struct ova_object *object, size_t n,
                       const struct value *snapshot)
{
    const struct class *class = class_of(object->class_name);

    if (!class)
        return 0;
    if (!snapshot || snapshot->kind != KIND_MAP || snapshot->length > RECORD_MEMBERS_MAX)
        return bad(r, arena_text(r->arena, "%.100s has no record", object->id));
    if (!arena_room(r->arena,
                    sizeof *object->draft + (size_t) class->field_count * sizeof(struct value)))
        return bad(r, "it takes too much memory");
    object->draft = draft_new(r->arena, class);
    object->draft->ref = ova_ref(n);
    for (int i = 0; i < class->field_count; i++) {
        const struct field *field = &class->fields[i];
        const struct value *raw = is_skipped(field) ? NULL : value_map_find(snapshot, field->name);
        int result;

        if (!raw || raw->kind == KIND_NIL)
            continue;
        if (field->type->kind == KIND_REF)
            result = read_ref(r, field, raw, &object->draft->fields[i]);
        else
            result = value_type_check(field->type, raw, field->name, PLACE_MEMBER, r->arena,
                                      &object->draft->fields[i], r->failure);
        if (result < 0) { /* its first detail is the name */
            r->failure->params[0] = arena_text(r->arena, "%s.%s", class->name, field->name);
            return result;
        }
    }
    return 0;
}

/* ---- the document ---- */

static int read_current(struct reading *r, const char *text, size_t length)
{
    const struct value *objects;
    const char *reason;
    struct value root;
    int result;

    if (xmlrpc_parse_value(text, length, r->arena, VALUES_MAX, &root, &reason) < 0)
        return bad(r, reason);
    if (root.kind != KIND_MAP)
        return bad(r, "it is no struct");
    result = check_version(r, &root);
    if (result < 0)
        return result;
    objects = value_map_find(&root, "objects");
    if (!objects || objects->kind != KIND_SET)
        return bad(r, "it has no objects");
    result = list_objects(r, objects);
    for (size_t i = 0; i < r->plan->count && result == 0; i++)
        result =
            read_object(r, &r->plan->objects[i], i, value_map_find(&objects->items[i], "snapshot"));
    return result;
}

/* Does the root element have this name? Declaration and comments may stand before it. */
static bool root_is(const char *text, size_t length, const char *name)
{
    const char *end = text + length, *p = text;

    while ((p = memchr(p, '<', (size_t) (end - p))) && p + 1 < end && (p[1] == '?' || p[1] == '!'))
        p++;
    return p && (size_t) (end - p) > strlen(name) + 1 && memcmp(p + 1, name, strlen(name)) == 0;
}

int ova_read(struct arena *arena, const char *text, size_t length, struct ova_plan *ret,
             struct failure *failure)
{
    struct reading r = {.arena = arena, .failure = failure, .plan = ret};

    *ret = (struct ova_plan){0};
    if (length > OVA_READ_BYTES_MAX)
        return bad(&r, "it is too long");
    arena_set_limit(arena, arena_bytes(arena) + OVA_READ_ARENA_MAX);
    if (root_is(text, length, "appliance"))
        return ova_read_legacy(arena, text, length, ret, failure);
    return read_current(&r, text, length);
}
