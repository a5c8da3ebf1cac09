/* VM.c - fields of a VM that have a rule of their own
 *
 * Most only store. The others: what a template may become, which maps keep only what a hypervisor
 * understands, and what may change only while the VM is halted. Lifetime is in VM_create.c,
 * VM_clone.c and VM_provision.c, memory and CPUs in VM_memory.c. */
#include "master/VM.h"

#include "master/claim.h"
#include "master/lifecycle.h"
#include "master/memory.h"

/* ---- templates ---- */

/* To a template: a halted VM that nobody will start by itself. Back: its install time is now. */
int VM_set_is_a_template(struct call *call, const struct VM_set_is_a_template_args *args,
                         struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *vm = live(call, call_view(call), VM, args->self), *pool;
    ref_t metrics;
    int r;

    (void) ret;
    if (!vm)
        return -ERR_HANDLE_INVALID;
    if (VM_get_is_a_template(vm) == args->value)
        return 0;
    if (args->value) {
        r = claim_begin(&claim, call, CLASS_OF(VM), args->self, vm_operations_make_into_template);
        if (r < 0)
            return r;
    } else if (VM_get_is_a_snapshot(vm)) {
        return failure_set_text(
            &call->failure, call->arena, "VM_IS_SNAPSHOT", 2,
            (const char *const[]){ref_text(call, args->self), "set_is_a_template"});
    }

    txn = store_begin(call->core->store);
    vm = live(call, txn_view(txn), VM, args->self);
    if (!vm)
        return -ERR_HANDLE_INVALID;
    pool = pool_object(txn_view(txn));
    if (args->value && pool && pool_get_ha_enabled(pool)
        && streq(VM_get_ha_restart_priority(vm), "restart"))
        return fail(call, VM_IS_PROTECTED, ref_text(call, args->self));
    metrics = VM_get_metrics(vm);
    if (args->value)
        VM_put_ha_always_run(txn, args->self, false);
    else if (txn_get(txn, VM_metrics, metrics))
        VM_metrics_put_install_time(txn, metrics, clock_utc_s(call->core->clock));
    VM_put_is_a_template(txn, args->self, args->value);
    claim_end_txn(&claim, txn);
    return call_commit(call, &txn);
}

/* A default template is a template, whatever it was. */
int VM_set_is_default_template(struct call *call,
                               const struct VM_set_is_default_template_args *args,
                               struct value *ret)
{
    const struct object *vm = live(call, call_view(call), VM, args->vm);

    (void) ret;
    if (!vm)
        return -ERR_HANDLE_INVALID;
    if (args->value && !VM_get_is_a_template(vm))
        return fail(call, OPERATION_NOT_ALLOWED, "Only a template can be a default template");
    return field_set(call, CLASS_OF(VM), args->vm, F_VM_is_default_template,
                     VALUE_BOOL(args->value));
}

/* ---- maps ---- */

SETTER(VM, other_config, self, VALUE_GIVEN)

int VM_add_to_other_config(struct call *call, const struct VM_add_to_other_config_args *args,
                           struct value *ret)
{
    (void) ret;
    return field_add_to(call, CLASS_OF(VM), args->self, F_VM_other_config, value_text(args->key),
                        value_text(args->value));
}

int VM_remove_from_other_config(struct call *call,
                                const struct VM_remove_from_other_config_args *args,
                                struct value *ret)
{
    (void) ret;
    return field_remove_from(call, CLASS_OF(VM), args->self, F_VM_other_config,
                             value_text(args->key));
}

int VM_set_platform(struct call *call, const struct VM_set_platform_args *args, struct value *ret)
{
    const struct object *vm = live(call, call_view(call), VM, args->self);
    int r;

    (void) ret;
    if (!vm)
        return -ERR_HANDLE_INVALID;
    r = vm_check_platform(call, args->value, VM_get_VCPUs_max(vm));
    if (r < 0)
        return r;
    return field_set(call, CLASS_OF(VM), args->self, F_VM_platform, *args->value);
}

int VM_add_to_platform(struct call *call, const struct VM_add_to_platform_args *args,
                       struct value *ret)
{
    const struct object *vm = live(call, call_view(call), VM, args->self);
    struct value added = text_map(call->arena, args->key, args->value, NULL);
    int r;

    (void) ret;
    if (!vm)
        return -ERR_HANDLE_INVALID;
    r = vm_check_platform(call, &added, VM_get_VCPUs_max(vm));
    if (r < 0)
        return r;
    return field_add_to(call, CLASS_OF(VM), args->self, F_VM_platform, value_text(args->key),
                        value_text(args->value));
}

int VM_remove_from_platform(struct call *call, const struct VM_remove_from_platform_args *args,
                            struct value *ret)
{
    (void) ret;
    return field_remove_from(call, CLASS_OF(VM), args->self, F_VM_platform, value_text(args->key));
}

SETTER(VM, blocked_operations, self, VALUE_GIVEN)

int VM_add_to_blocked_operations(struct call *call,
                                 const struct VM_add_to_blocked_operations_args *args,
                                 struct value *ret)
{
    (void) ret;
    return field_add_to(call, CLASS_OF(VM), args->self, F_VM_blocked_operations,
                        VALUE_ENUM(vm_operations, (int) args->key), value_text(args->value));
}

int VM_remove_from_blocked_operations(struct call *call,
                                      const struct VM_remove_from_blocked_operations_args *args,
                                      struct value *ret)
{
    (void) ret;
    return field_remove_from(call, CLASS_OF(VM), args->self, F_VM_blocked_operations,
                             VALUE_ENUM(vm_operations, (int) args->key));
}

/* NVRAM is read when the VM starts, so it stays while the VM runs. */
static int begin_changing_NVRAM(struct claim *claim, struct call *call, ref_t vm)
{
    return claim_begin(claim, call, CLASS_OF(VM), vm, vm_operations_changing_NVRAM);
}

int VM_set_NVRAM(struct call *call, const struct VM_set_NVRAM_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    int r = begin_changing_NVRAM(&claim, call, args->self);

    (void) ret;
    return r < 0 ? r : field_set(call, CLASS_OF(VM), args->self, F_VM_NVRAM, *args->value);
}

int VM_add_to_NVRAM(struct call *call, const struct VM_add_to_NVRAM_args *args, struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    int r = begin_changing_NVRAM(&claim, call, args->self);

    (void) ret;
    return r < 0 ? r
                 : field_add_to(call, CLASS_OF(VM), args->self, F_VM_NVRAM, value_text(args->key),
                                value_text(args->value));
}

int VM_remove_from_NVRAM(struct call *call, const struct VM_remove_from_NVRAM_args *args,
                         struct value *ret)
{
    _cleanup_(claim_end) struct claim claim = {0};
    int r = begin_changing_NVRAM(&claim, call, args->self);

    (void) ret;
    return r < 0 ? r
                 : field_remove_from(call, CLASS_OF(VM), args->self, F_VM_NVRAM,
                                     value_text(args->key));
}

/* BIOS strings are set once, before the first start; only known keys, at most 512 printable
 * characters. */
static int check_bios_strings(struct call *call, const struct value *strings)
{
    static const char *const keys[] = {
        "bios-vendor",
        "bios-version",
        "system-manufacturer",
        "system-product-name",
        "system-version",
        "system-serial-number",
        "enclosure-asset-tag",
        "baseboard-manufacturer",
        "baseboard-product-name",
        "baseboard-version",
        "baseboard-serial-number",
        "baseboard-asset-tag",
        "baseboard-location-in-chassis",
        "hp-rombios",
    };

    for (uint32_t i = 0; i < strings->length; i++) {
        const char *key = strings->items[2 * i].text, *text = strings->items[2 * i + 1].text;
        bool is_known = false;

        for (size_t j = 0; j < ARRAY_SIZE(keys); j++)
            is_known |= streq(keys[j], key) || (strncmp(key, "oem-", 4) == 0);
        if (!is_known || strlen(text) > 512)
            return fail(call, INVALID_VALUE, key, text);
        for (const char *p = text; *p; p++)
            if (*p < 32 || *p > 126)
                return fail(call, INVALID_VALUE, key, text);
    }
    return 0;
}

static int put_bios_strings(struct call *call, ref_t self, const struct value *strings)
{
    const struct object *vm = live(call, call_view(call), VM, self);
    int r;

    if (!vm)
        return -ERR_HANDLE_INVALID;
    if (VM_get_bios_strings(vm)->length > 0)
        return fail(call, VM_BIOS_STRINGS_ALREADY_SET);
    if (VM_get_power_state(vm) != vm_power_state_Halted)
        return fail(call, VM_BAD_POWER_STATE, ref_text(call, self), "halted",
                    power_state_text(VM_get_power_state(vm)));
    r = check_bios_strings(call, strings);
    return r < 0 ? r : field_set(call, CLASS_OF(VM), self, F_VM_bios_strings, *strings);
}

int VM_set_bios_strings(struct call *call, const struct VM_set_bios_strings_args *args,
                        struct value *ret)
{
    (void) ret;
    return put_bios_strings(call, args->self, args->value);
}

int VM_copy_bios_strings(struct call *call, const struct VM_copy_bios_strings_args *args,
                         struct value *ret)
{
    const struct object *host = live(call, call_view(call), host, args->host);
    struct value strings;

    (void) ret;
    if (!host)
        return -ERR_HANDLE_INVALID;
    strings = value_copy(call->arena, host_get_bios_strings(host));
    return put_bios_strings(call, args->vm, &strings);
}

/* ---- how it boots ---- */

/* The type of domain and the boot policy say the same in two words; one setter keeps the other's in
 * step. */
static int put_boot(struct call *call, ref_t self, const char *policy, enum domain_type type)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);
    const struct object *vm = live(call, txn_view(txn), VM, self);

    if (!vm)
        return -ERR_HANDLE_INVALID;
    if (VM_get_power_state(vm) != vm_power_state_Halted)
        return fail(call, VM_BAD_POWER_STATE, ref_text(call, self), "halted",
                    power_state_text(VM_get_power_state(vm)));
    VM_put_HVM_boot_policy(txn, self, policy);
    VM_put_domain_type(txn, self, type);
    vm_count_overhead(txn, self);
    return call_commit(call, &txn);
}

int VM_set_HVM_boot_policy(struct call *call, const struct VM_set_HVM_boot_policy_args *args,
                           struct value *ret)
{
    (void) ret;
    if (!streq(args->value, "") && !streq(args->value, "BIOS order"))
        return fail(call, INVALID_VALUE, "HVM_boot_policy", args->value);
    return put_boot(call, args->self, args->value, *args->value ? domain_type_hvm : domain_type_pv);
}

int VM_set_domain_type(struct call *call, const struct VM_set_domain_type_args *args,
                       struct value *ret)
{
    (void) ret;
    return put_boot(call, args->self, args->value == domain_type_hvm ? "BIOS order" : "",
                    args->value);
}

int VM_set_has_vendor_device(struct call *call, const struct VM_set_has_vendor_device_args *args,
                             struct value *ret)
{
    const struct object *vm = live(call, call_view(call), VM, args->self);

    (void) ret;
    if (!vm)
        return -ERR_HANDLE_INVALID;
    if (VM_get_power_state(vm) != vm_power_state_Halted)
        return fail(call, VM_BAD_POWER_STATE, ref_text(call, args->self), "halted",
                    power_state_text(VM_get_power_state(vm)));
    return field_set(call, CLASS_OF(VM), args->self, F_VM_has_vendor_device,
                     VALUE_BOOL(args->value));
}

/* ---- fields that only store ---- */

int VM_set_actions_after_crash(struct call *call,
                               const struct VM_set_actions_after_crash_args *args,
                               struct value *ret)
{
    (void) ret;
    return field_set(call, CLASS_OF(VM), args->self, F_VM_actions_after_crash,
                     VALUE_ENUM(on_crash_behaviour, (int) args->value));
}

SETTER_WITHIN(VM, hardware_platform_version, self, INT64_MAX)
SETTER_WITHIN(VM, start_delay, self, INT64_MAX)
SETTER_WITHIN(VM, shutdown_delay, self, INT64_MAX)
SETTER_WITHIN(VM, order, self, INT64_MAX)

/* Only a suspended VM has an image that could be another. */
int VM_set_suspend_VDI(struct call *call, const struct VM_set_suspend_VDI_args *args,
                       struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *vm = live(call, view, VM, args->self);

    (void) ret;
    if (!vm)
        return -ERR_HANDLE_INVALID;
    if (VM_get_power_state(vm) != vm_power_state_Suspended)
        return fail(call, VM_BAD_POWER_STATE, ref_text(call, args->self), "suspended",
                    power_state_text(VM_get_power_state(vm)));
    if (!ref_is_null(args->value) && !live(call, view, VDI, args->value))
        return -ERR_HANDLE_INVALID;
    return field_set(call, CLASS_OF(VM), args->self, F_VM_suspend_VDI, VALUE_REF(args->value));
}

int VM_set_appliance(struct call *call, const struct VM_set_appliance_args *args, struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *vm = live(call, view, VM, args->self);

    (void) ret;
    if (!vm || (!ref_is_null(args->value) && !live(call, view, VM_appliance, args->value)))
        return -ERR_HANDLE_INVALID;
    if (!ref_is_null(args->value) && VM_get_is_control_domain(vm))
        return fail(call, OPERATION_NOT_ALLOWED, "A control domain cannot be part of an appliance");
    return field_set(call, CLASS_OF(VM), args->self, F_VM_appliance, VALUE_REF(args->value));
}

int VM_set_groups(struct call *call, const struct VM_set_groups_args *args, struct value *ret)
{
    const struct view *view = call_view(call);

    (void) ret;
    if (args->value->length > 1)
        return fail(call, INVALID_VALUE, "groups", "a VM can be in one group");
    for (uint32_t i = 0; i < args->value->length; i++)
        if (!live(call, view, VM_group, args->value->items[i].ref))
            return -ERR_HANDLE_INVALID;
    return field_set(call, CLASS_OF(VM), args->self, F_VM_groups, *args->value);
}

/* "restart", "best-effort" or "": which of them counts when a host is lost. */
int VM_set_ha_restart_priority(struct call *call,
                               const struct VM_set_ha_restart_priority_args *args,
                               struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *vm;

    (void) ret;
    if (!streq(args->value, "") && !streq(args->value, "restart")
        && !streq(args->value, "best-effort"))
        return fail(call, INVALID_VALUE, "ha_restart_priority", args->value);
    txn = store_begin(call->core->store);
    vm = live(call, txn_view(txn), VM, args->self);
    if (!vm)
        return -ERR_HANDLE_INVALID;
    VM_put_ha_restart_priority(txn, args->self, args->value);
    VM_put_ha_always_run(txn, args->self,
                         streq(args->value, "restart")
                             && VM_get_power_state(vm) == vm_power_state_Running);
    return call_commit(call, &txn);
}

SETTER(VM, ha_always_run, self, VALUE_BOOL)

/* ---- asked ---- */

/* What the running guest was started from: its record as it is, since it cannot change while the VM
 * runs. */
int VM_get_boot_record(struct call *call, const struct VM_get_boot_record_args *args,
                       struct value *ret)
{
    const struct view *view = call_view(call);
    const struct object *vm = live(call, view, VM, args->self);
    const struct class *class = CLASS_OF(VM);
    struct value *fields =
        arena_alloc_array(call->arena, (size_t) class->field_count, sizeof *fields);

    if (!vm)
        return -ERR_HANDLE_INVALID;
    for (int i = 0; i < class->field_count; i++) {
        struct value field = i == F_VM_allowed_operations
                                 ? allowed_operations(view, vm, call->arena)
                                 : view_field(view, vm, &class->fields[i], call->arena);

        fields[i] = value_copy(call->arena, &field);
    }
    *ret = (struct value){.kind = KIND_RECORD, .record = {class, fields}};
    return 0;
}

/* No service offers itself for a VM here. */
int VM_query_services(struct call *call, const struct VM_query_services_args *args,
                      struct value *ret)
{
    if (!live(call, call_view(call), VM, args->self))
        return -ERR_HANDLE_INVALID;
    *ret = VALUE_EMPTY_MAP;
    return 0;
}
