/* record.c - an object of a view as clients see it */
#include "master/record.h"

#include <pthread.h>

#include "master/lifecycle.h"
#include "master/roles.h"
#include "shared/arena.h"

/* Fields whose stored value is not what is shown, inverse sets aside. A task's allowed_operations
 * are stored. */
static bool is_computed(const struct field *field)
{
    return field->flags & FIELD_SECRET
           || (streq(field->name, "allowed_operations") && field->class != CLASS_OF(task))
           || field == &CLASS_OF(session)->fields[F_session_rbac_permissions];
}

/* Numbers of such fields, by class, or -1; no class has more than one. */
static int computed[CLASS_COUNT];

static void computed_init(void)
{
    for (int i = 0; i < CLASS_COUNT; i++) {
        computed[i] = -1;
        for (int j = 0; j < model_classes[i].field_count; j++) {
            if (is_computed(&model_classes[i].fields[j])) {
                assert(computed[i] < 0);
                computed[i] = j;
            }
        }
    }
}

static int computed_field(const struct class *class)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, computed_init);
    return computed[class->number];
}

static struct value compute(const struct view *view, const struct object *object,
                            const struct field *field, struct arena *arena)
{
    if (field->flags & FIELD_SECRET)
        return value_text("");
    if (object->class == CLASS_OF(session))
        return roles_permissions(session_get_role(object), arena);
    return allowed_operations(view, object, arena);
}

struct value record_field(const struct view *view, const struct object *object,
                          const struct field *field, struct arena *arena)
{
    if (field->number == computed_field(object->class))
        return compute(view, object, field, arena);
    return view_field(view, object, field, arena);
}

static struct value inverse(void *context, const struct field *field)
{
    const struct shown *shown = context;

    return view_inverse(shown->view, field, shown->object->ref, shown->arena);
}

void record_show(struct shown *shown, const struct view *view, const struct object *object,
                 struct arena *arena)
{
    const struct class *class = object->class;
    int number = computed_field(class);

    *shown = (struct shown){
        .record = {.class = class, .fields = object->fields, .inverse = inverse, .context = shown},
        .view = view,
        .object = object,
        .arena = arena,
    };
    if (number >= 0) {
        struct value *fields =
            arena_dup(arena, object->fields, (size_t) class->field_count * sizeof *fields);

        fields[number] = compute(view, object, &class->fields[number], arena);
        shown->record.fields = fields;
    }
}

struct value record_value(const struct view *view, const struct object *object, struct arena *arena)
{
    const struct class *class = object->class;
    struct value *fields = arena_alloc_array(arena, (size_t) class->field_count, sizeof *fields);

    for (int i = 0; i < class->field_count; i++)
        if (!(class->fields[i].flags & FIELD_INTERNAL))
            fields[i] = record_field(view, object, &class->fields[i], arena);
    return (struct value){.kind = KIND_RECORD, .record = {class, fields}};
}
