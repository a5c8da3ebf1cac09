/* lifecycle_vm.c - the rules of a VM's operations, in the order of wire.md section 10 */
#include "master/lifecycle_rules.h"

#include "master/memory.h"

#define HALTED    (1u << vm_power_state_Halted)
#define PAUSED    (1u << vm_power_state_Paused)
#define RUNNING   (1u << vm_power_state_Running)
#define SUSPENDED (1u << vm_power_state_Suspended)
#define ANY       (HALTED | PAUSED | RUNNING | SUSPENDED)

enum rule_flags {
    UNLISTED = 1,        /* never in allowed_operations */
    ON_TEMPLATE = 2,     /* fits a template that is no snapshot */
    ON_OWN_TEMPLATE = 4, /* ... that is no default template */
    ON_SNAPSHOT = 8,
    MOVES = 16, /* refused for a VM that must stay where it is, unless it is forced to go */
    ON_CONTROL_DOMAIN = 32,
    NOT_ON_DOM0 = 64,
    RUNNING_IN_DOM0 = 128, /* for a control domain Running is as good as Halted */
    IN_UPGRADE = 256,      /* fits while the pool is upgraded (wire.md section 16) */
    NEEDS_GUEST = 512,     /* the guest must work with us (PV drivers) */
};

/* Operation, states it begins in (wire.md section 11), and where else it fits. Rows that are
 * missing fit no state. */
static const struct {
    unsigned states, flags;
} rules[] = {
    [vm_operations_snapshot] = {ANY, 0},
    [vm_operations_clone] = {HALTED, ON_TEMPLATE | ON_SNAPSHOT | IN_UPGRADE},
    [vm_operations_copy] = {HALTED, ON_TEMPLATE | ON_SNAPSHOT | IN_UPGRADE},
    [vm_operations_create_template] = {HALTED | SUSPENDED, UNLISTED},
    [vm_operations_revert] = {ANY, ON_SNAPSHOT},
    [vm_operations_checkpoint] = {PAUSED | SUSPENDED | RUNNING, MOVES},
    [vm_operations_provision] = {HALTED, ON_TEMPLATE | IN_UPGRADE},
    [vm_operations_start] = {HALTED, ON_CONTROL_DOMAIN | IN_UPGRADE},
    [vm_operations_start_on] = {HALTED, ON_CONTROL_DOMAIN | IN_UPGRADE},
    [vm_operations_pause] = {RUNNING, IN_UPGRADE},
    [vm_operations_unpause] = {PAUSED, IN_UPGRADE},
    [vm_operations_clean_shutdown] = {RUNNING, IN_UPGRADE | NEEDS_GUEST},
    [vm_operations_clean_reboot] = {RUNNING, IN_UPGRADE | NEEDS_GUEST},
    [vm_operations_hard_shutdown] = {PAUSED | SUSPENDED | RUNNING, ON_SNAPSHOT | IN_UPGRADE},
    [vm_operations_power_state_reset] = {ANY, UNLISTED | IN_UPGRADE},
    [vm_operations_hard_reboot] = {PAUSED | RUNNING, IN_UPGRADE},
    [vm_operations_suspend] = {RUNNING, MOVES | IN_UPGRADE | NEEDS_GUEST},
    [vm_operations_csvm] = {SUSPENDED, UNLISTED | IN_UPGRADE},
    [vm_operations_resume] = {SUSPENDED, IN_UPGRADE},
    [vm_operations_resume_on] = {SUSPENDED, IN_UPGRADE},
    [vm_operations_pool_migrate] = {RUNNING, MOVES | IN_UPGRADE | NEEDS_GUEST},
    [vm_operations_migrate_send] = {HALTED | SUSPENDED | RUNNING,
                                    MOVES | ON_OWN_TEMPLATE | IN_UPGRADE},
    [vm_operations_get_boot_record] = {PAUSED | SUSPENDED | RUNNING, UNLISTED | IN_UPGRADE},
    [vm_operations_send_sysrq] = {RUNNING, UNLISTED | IN_UPGRADE},
    [vm_operations_send_trigger] = {RUNNING, UNLISTED | IN_UPGRADE},
    [vm_operations_query_services] = {ANY, UNLISTED},
    [vm_operations_shutdown] = {PAUSED | SUSPENDED | RUNNING, UNLISTED},
    [vm_operations_call_plugin] = {RUNNING, UNLISTED},
    [vm_operations_changing_memory_live] = {RUNNING, UNLISTED | ON_CONTROL_DOMAIN | IN_UPGRADE},
    [vm_operations_awaiting_memory_live] = {RUNNING, UNLISTED},
    [vm_operations_changing_dynamic_range] = {HALTED | RUNNING, ON_TEMPLATE | ON_CONTROL_DOMAIN},
    [vm_operations_changing_static_range] = {HALTED,
                                             ON_TEMPLATE | ON_CONTROL_DOMAIN | RUNNING_IN_DOM0},
    [vm_operations_changing_memory_limits] = {HALTED, UNLISTED | ON_TEMPLATE | ON_CONTROL_DOMAIN
                                                          | RUNNING_IN_DOM0},
    [vm_operations_changing_shadow_memory] = {HALTED, ON_TEMPLATE},
    [vm_operations_changing_shadow_memory_live] = {RUNNING, UNLISTED | IN_UPGRADE},
    [vm_operations_changing_VCPUs] = {HALTED, ON_TEMPLATE | ON_CONTROL_DOMAIN | NOT_ON_DOM0
                                                  | RUNNING_IN_DOM0},
    [vm_operations_changing_VCPUs_live] = {RUNNING, IN_UPGRADE | NEEDS_GUEST},
    [vm_operations_changing_NVRAM] = {HALTED, ON_TEMPLATE},
    [vm_operations_assert_operation_valid] = {ANY, UNLISTED | IN_UPGRADE},
    [vm_operations_data_source_op] = {RUNNING, UNLISTED | ON_CONTROL_DOMAIN},
    [vm_operations_update_allowed_operations] = {ANY, UNLISTED | IN_UPGRADE},
    [vm_operations_make_into_template] = {HALTED, IN_UPGRADE},
    [vm_operations_import] = {0, UNLISTED | IN_UPGRADE},
    [vm_operations_export] = {HALTED | SUSPENDED, ON_TEMPLATE | ON_SNAPSHOT | IN_UPGRADE},
    [vm_operations_metadata_export] = {ANY, ON_TEMPLATE | ON_SNAPSHOT | ON_CONTROL_DOMAIN},
    [vm_operations_reverting] = {0, UNLISTED},
    [vm_operations_destroy] = {HALTED | SUSPENDED, ON_OWN_TEMPLATE | ON_SNAPSHOT | ON_CONTROL_DOMAIN
                                                       | NOT_ON_DOM0 | IN_UPGRADE},
    [vm_operations_create_vtpm] = {HALTED, 0},
};

bool vm_operation_is_listed(int operation)
{
    return operation < (int) ARRAY_SIZE(rules) && rules[operation].states
           && !(rules[operation].flags & UNLISTED);
}

/* The states as the table of wire.md section 11 orders them. */
static const char *expected_states(struct check *check, unsigned states)
{
    static const enum vm_power_state order[] = {vm_power_state_Halted, vm_power_state_Paused,
                                                vm_power_state_Suspended, vm_power_state_Running};
    const char *text = "";

    if (!check->arena)
        return text;
    for (size_t i = 0; i < ARRAY_SIZE(order); i++)
        if (states & 1u << order[i])
            text = arena_text(check->arena, "%s%s%s", text, *text ? ", " : "",
                              power_state_text(order[i]));
    return text;
}

/* May `operation` run beside one that is under way? */
static bool pair_allowed(int running, int operation)
{
    static const unsigned copying[] = {vm_operations_clone, vm_operations_copy,
                                       vm_operations_export};
    static const unsigned snapping[] = {vm_operations_snapshot, vm_operations_checkpoint};
    bool first = false, second = false;

    if (operation == vm_operations_hard_shutdown)
        return running != vm_operations_hard_shutdown;
    if (operation == vm_operations_hard_reboot)
        return running != vm_operations_hard_shutdown && running != vm_operations_hard_reboot;
    if (operation == vm_operations_get_boot_record && running == operation)
        return true;
    if (running == vm_operations_migrate_send)
        return operation == vm_operations_metadata_export
               || operation == vm_operations_clean_shutdown
               || operation == vm_operations_clean_reboot;
    for (size_t i = 0; i < ARRAY_SIZE(copying); i++) {
        first |= running == (int) copying[i];
        second |= operation == (int) copying[i];
    }
    if (first && second)
        return true;
    first = second = false;
    for (size_t i = 0; i < ARRAY_SIZE(snapping); i++) {
        first |= running == (int) snapping[i];
        second |= operation == (int) snapping[i];
    }
    return first && second;
}

static int check_other_operations(struct check *check)
{
    const struct value *operations = operations_of(check->object);

    for (uint32_t i = 0; i < operations->length; i++)
        if (!pair_allowed(operations->items[2 * i + 1].e.index, check->operation))
            return refuse_busy(check, check->object, ",");
    return 0;
}

/* A guest that leaves takes its devices along: none may come or go meanwhile. */
static int check_devices(struct check *check)
{
    static const int fields[] = {F_VM_VBDs, F_VM_VIFs};
    const struct object *device;
    struct view_iter devices;

    if (check->operation != vm_operations_pool_migrate
        && check->operation != vm_operations_suspend)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        view_each_inverse(&devices, check->view, &CLASS_OF(VM)->fields[fields[i]],
                          check->object->ref);
        while ((device = view_next(&devices)))
            if (operations_of(device)->length > 0)
                return refuse_busy(check, device, ",");
    }
    return 0;
}

static int check_template(struct check *check, unsigned flags)
{
    const struct object *vm = check->object;
    const char *operation = operation_text(&enum_type_vm_operations, check->operation);

    if (check->operation == vm_operations_assert_operation_valid
        || check->operation == vm_operations_update_allowed_operations)
        return 0;
    if (VM_get_is_a_snapshot(vm)) {
        if (!(flags & ON_SNAPSHOT) && check->operation != vm_operations_power_state_reset)
            return refuse_unlisted(check, "VM_IS_SNAPSHOT", 2, check_self(check), operation);
    } else if (VM_get_is_a_template(vm)) {
        if (!(flags & ON_TEMPLATE) && !(flags & ON_OWN_TEMPLATE && !VM_get_is_default_template(vm)))
            return refuse(check, VM_IS_TEMPLATE, check_self(check), operation);
    }
    if (check->operation == vm_operations_provision && !VM_get_is_a_template(vm))
        return refuse_unlisted(check, "ONLY_PROVISION_TEMPLATE", 0);
    if (check->operation == vm_operations_revert && !VM_get_is_a_snapshot(vm))
        return refuse_unlisted(check, "ONLY_REVERT_SNAPSHOT", 0);
    return 0;
}

static bool is_true(const struct value *map, const char *key)
{
    const char *text = value_map_text(map, key, "");

    return streq(text, "true") || streq(text, "1");
}

/* What a guest without PV drivers cannot do. A PV guest has every feature; an HVM guest says so in
 * its metrics. */
static int check_guest_features(struct check *check)
{
    static const struct {
        int operation;
        const char *features[2];
    } needs[] = {
        {vm_operations_clean_shutdown, {"feature-shutdown", "feature-poweroff"}},
        {vm_operations_clean_reboot, {"feature-shutdown", "feature-reboot"}},
        {vm_operations_suspend, {"feature-suspend"}},
        {vm_operations_pool_migrate, {"feature-suspend"}},
        {vm_operations_changing_VCPUs_live, {"feature-vcpu-hotplug"}},
    };
    const struct object *vm = check->object;
    const struct object *metrics =
        view_get(check->view, VM_guest_metrics, VM_get_guest_metrics(vm));
    const struct value *other = metrics ? VM_guest_metrics_get_other(metrics) : NULL;

    if (other && check->operation == vm_operations_suspend) {
        const char *reason = value_map_text(other, "data-cant-suspend-reason", NULL);

        if (reason)
            return refuse(check, VM_NON_SUSPENDABLE, check_self(check), reason);
    }
    if (!vm_is_hvm(vm))
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(needs); i++) {
        if (needs[i].operation != check->operation)
            continue;
        for (size_t j = 0; j < 2 && needs[i].features[j]; j++)
            if (other && is_true(other, needs[i].features[j]))
                return 0;
        return refuse(check, VM_LACKS_FEATURE, check_self(check));
    }
    return 0;
}

static int check_control_domain(struct check *check, unsigned flags)
{
    if (!VM_get_is_control_domain(check->object))
        return 0;
    if (flags & NOT_ON_DOM0 && VM_get_domid(check->object) == 0)
        return refuse(check, OPERATION_NOT_ALLOWED, "This operation is not allowed on dom0");
    if (!(flags & ON_CONTROL_DOMAIN) && check->operation != vm_operations_assert_operation_valid
        && check->operation != vm_operations_update_allowed_operations
        && check->operation != vm_operations_power_state_reset)
        return refuse(check, OPERATION_NOT_ALLOWED,
                      "This operation is not allowed on a control domain");
    return 0;
}

/* Disks that are reset at boot have no state worth keeping. */
static int check_disks(struct check *check)
{
    struct view_iter vbds;
    const struct object *vbd;

    if (check->operation != vm_operations_snapshot && check->operation != vm_operations_checkpoint
        && check->operation != vm_operations_suspend)
        return 0;
    view_each_inverse(&vbds, check->view, &CLASS_OF(VM)->fields[F_VM_VBDs], check->object->ref);
    while ((vbd = view_next(&vbds))) {
        const struct object *vdi = view_get(check->view, VDI, VBD_get_VDI(vbd));

        if (vdi && VDI_get_on_boot(vdi) == on_boot_reset)
            return refuse(check, VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION);
    }
    return 0;
}

static int check_template_membership(struct check *check)
{
    const struct object *vm = check->object;

    if (check->operation != vm_operations_make_into_template)
        return 0;
    if (!ref_is_null(VM_get_appliance(vm)))
        return refuse(check, VM_IS_PART_OF_AN_APPLIANCE, check_self(check),
                      check_ref(check, VM_get_appliance(vm)));
    if (!ref_is_null(VM_get_protection_policy(vm)))
        return refuse(check, VM_ASSIGNED_TO_PROTECTION_POLICY, check_self(check),
                      check_ref(check, VM_get_protection_policy(vm)));
    return 0;
}

/* The calls that take `force`: they ask strictly unless it is given. */
static bool can_be_forced(int operation)
{
    return operation == vm_operations_pool_migrate || operation == vm_operations_migrate_send;
}

static const struct object *the_pool(const struct view *view)
{
    struct view_iter pools;

    view_each(&pools, view, CLASS_OF(pool));
    return view_next(&pools);
}

static unsigned states_of(struct check *check, unsigned flags)
{
    const struct object *vm = check->object;
    unsigned states = rules[check->operation].states;

    if (flags & RUNNING_IN_DOM0 && VM_get_is_control_domain(vm))
        states |= RUNNING;
    if (check->operation == vm_operations_clone || check->operation == vm_operations_copy) {
        const struct object *pool = the_pool(check->view);

        if (VM_get_is_a_snapshot(vm)
            || (pool
                && !streq(
                    value_map_text(pool_get_other_config(pool), "allow_clone_suspended_vm", "true"),
                    "false")))
            states |= SUSPENDED;
    }
    return states;
}

int check_VM(struct check *check)
{
    const struct object *vm = check->object;
    const struct value *blocked = VM_get_blocked_operations(vm);
    const struct object *pool;
    unsigned flags, states;
    int r;

    if (check->operation >= (int) ARRAY_SIZE(rules))
        return refuse(check, OPERATION_NOT_ALLOWED, "This operation is not offered");
    flags = rules[check->operation].flags;

    for (uint32_t i = 0; i < blocked->length; i++)
        if (blocked->items[2 * i].e.index == check->operation)
            return refuse(check, OPERATION_BLOCKED, check_self(check),
                          blocked->items[2 * i + 1].text);

    states = states_of(check, flags);
    if (!(states & 1u << VM_get_power_state(vm)))
        return refuse(check, VM_BAD_POWER_STATE, check_self(check), expected_states(check, states),
                      power_state_text(VM_get_power_state(vm)));

    r = check_other_operations(check);
    if (r == 0)
        r = check_devices(check);
    if (r < 0)
        return r;
    r = check_template(check, flags);
    if (r < 0)
        return r;
    if (flags & MOVES && (check->is_strict || !can_be_forced(check->operation))
        && (is_true(VM_get_platform(vm), "nomigrate")
            || is_true(VM_get_platform(vm), "nested-virt")))
        return refuse(check, VM_IS_IMMOBILE, check_self(check));
    r = check_control_domain(check, flags);
    if (r < 0)
        return r;
    if (flags & NEEDS_GUEST) {
        r = check_guest_features(check);
        if (r < 0)
            return r;
    }
    r = check_disks(check);
    if (r < 0)
        return r;
    r = check_template_membership(check);
    if (r < 0)
        return r;
    pool = the_pool(check->view);
    if (pool && !(flags & IN_UPGRADE)
        && streq(value_map_text(pool_get_other_config(pool), "rolling_upgrade_in_progress", ""),
                 "true"))
        return refuse(check, NOT_SUPPORTED_DURING_UPGRADE);
    return 0;
}
