/* lifecycle.c - which operation fits which state: the question, and what the classes' rules share
 *
 * The rules stand in lifecycle_vm.c, lifecycle_device.c (VBD, VIF), lifecycle_storage.c (VDI, SR)
 * and lifecycle_host.c (host, pool), each in the order of wire.md section 10, since the first
 * refusal is what the client is told. Whose rules look at what of other objects is the table of
 * lifecycle_follow.c. */
#include "master/lifecycle_rules.h"

#include <stdio.h>

static int allow(struct check *check)
{
    (void) check;
    return 0;
}

static const struct {
    int (*check)(struct check *);
    bool (*is_listed)(int operation);
    int operations_field, allowed_field;
} rules[CLASS_COUNT] = {
    [CLASS_NUMBER_VM] = {check_VM, vm_operation_is_listed, F_VM_current_operations,
                         F_VM_allowed_operations},
    [CLASS_NUMBER_VBD] = {check_VBD, NULL, F_VBD_current_operations, F_VBD_allowed_operations},
    [CLASS_NUMBER_VIF] = {check_VIF, NULL, F_VIF_current_operations, F_VIF_allowed_operations},
    [CLASS_NUMBER_VDI] = {check_VDI, NULL, F_VDI_current_operations, F_VDI_allowed_operations},
    [CLASS_NUMBER_SR] = {check_SR, NULL, F_SR_current_operations, F_SR_allowed_operations},
    [CLASS_NUMBER_host] = {check_host, NULL, F_host_current_operations, F_host_allowed_operations},
    [CLASS_NUMBER_pool] = {check_pool, NULL, F_pool_current_operations, F_pool_allowed_operations},
    [CLASS_NUMBER_network] = {allow, NULL, F_network_current_operations,
                              F_network_allowed_operations},
};

int operation_check(const struct view *view, const struct object *object, int operation,
                    bool strict, struct arena *arena, struct failure *failure)
{
    struct check check = {view, object, operation, strict, arena, failure};

    assert(rules[object->class->number].check);
    return rules[object->class->number].check(&check);
}

/* Is the operation among the object's allowed_operations? */
static bool is_allowed(const struct view *view, const struct object *object, int operation)
{
    int number = object->class->number;
    struct failure ignored;
    /* A NULL arena: only whether is asked, and no details are made. */
    struct check check = {view, object, operation, true, NULL, &ignored};

    return !(rules[number].is_listed && !rules[number].is_listed(operation))
           && rules[number].check(&check) == 0;
}

static const struct enum_type *operations_type(const struct object *object)
{
    int field = rules[object->class->number].allowed_field;

    return object->class->fields[field].type->element->enum_type;
}

struct value allowed_operations(const struct view *view, const struct object *object,
                                struct arena *arena)
{
    const struct enum_type *type;
    struct value *items;
    uint32_t count = 0;

    if (!rules[object->class->number].check)
        return VALUE_EMPTY_SET;
    type = operations_type(object);
    items = arena_alloc(arena, (size_t) type->count * sizeof *items);
    for (int i = 0; i < type->count; i++)
        if (is_allowed(view, object, i))
            items[count++] = (struct value){.kind = KIND_ENUM, .e = {type, i}};
    return VALUE_SET(count, items);
}

bool allowed_operations_differ(const struct view *a, const struct view *b,
                               const struct object *object)
{
    int count = operations_type(object)->count;

    for (int i = 0; i < count; i++)
        if (is_allowed(a, object, i) != is_allowed(b, object, i))
            return true;
    return false;
}

const char *power_state_text(enum vm_power_state state)
{
    static const char *const texts[] = {
        [vm_power_state_Halted] = "halted",
        [vm_power_state_Paused] = "paused",
        [vm_power_state_Running] = "running",
        [vm_power_state_Suspended] = "suspended",
    };

    return texts[state];
}

const char *operation_text(const struct enum_type *type, int operation)
{
    return enum_text(type, operation);
}

const char *check_ref(struct check *check, ref_t ref)
{
    char text[REF_TEXT_BYTES];

    return check->arena ? arena_strdup(check->arena, ref_print(text, ref)) : "";
}

const char *check_self(struct check *check)
{
    return check_ref(check, check->object->ref);
}

const struct value *operations_of(const struct object *object)
{
    return &object->fields[rules[object->class->number].operations_field];
}

int refuse_busy(struct check *check, const struct object *object, const char *separator)
{
    const struct value *operations = operations_of(object);
    const char *names = "", *tasks = "";

    if (!check->arena)
        return -ERR_OTHER_OPERATION_IN_PROGRESS;
    for (uint32_t i = 0; i < operations->length; i++) {
        const struct value *key = &operations->items[2 * i],
                           *operation = &operations->items[2 * i + 1];
        const char *between = i ? separator : "";

        names = arena_text(check->arena, "%s%s%s", names, between,
                           enum_text(operation->e.type, operation->e.index));
        tasks = arena_text(check->arena, "%s%s%s", tasks, between, key->text);
    }
    if (operations->length > 1) {
        names = arena_text(check->arena, "{%s}", names);
        tasks = arena_text(check->arena, "{%s}", tasks);
    }
    return refuse(check, OTHER_OPERATION_IN_PROGRESS, object->class->name,
                  check_ref(check, object->ref), names, tasks);
}
