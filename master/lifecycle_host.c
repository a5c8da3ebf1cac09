/* lifecycle_host.c - the rules of hosts and the pool, wire.md section 10 */
#include "master/lifecycle_rules.h"

/* Work that brings VMs to a host, and work that empties or stops it, exclude each other. */
static bool brings_vms(int operation)
{
    return operation == host_allowed_operations_provision
           || operation == host_allowed_operations_vm_resume
           || operation == host_allowed_operations_vm_migrate;
}

static bool stops_host(int operation)
{
    return operation == host_allowed_operations_reboot
           || operation == host_allowed_operations_shutdown;
}

static bool pair_excluded(int running, int operation)
{
    bool running_leaves = running == host_allowed_operations_evacuate || stops_host(running);
    bool leaves = operation == host_allowed_operations_evacuate || stops_host(operation);

    if ((brings_vms(running) && leaves) || (running_leaves && brings_vms(operation)))
        return true;
    if (stops_host(running) || running == host_allowed_operations_apply_updates)
        return stops_host(operation) || operation == host_allowed_operations_apply_updates;
    return running == operation
           && (operation == host_allowed_operations_provision
               || operation == host_allowed_operations_evacuate);
}

int check_host(struct check *check)
{
    const struct object *host = check->object;
    const struct object *metrics = view_get(check->view, host_metrics, host_get_metrics(host));
    const struct value *operations = host_get_current_operations(host);
    bool is_live = metrics && host_metrics_get_live(metrics);

    for (uint32_t i = 0; i < operations->length; i++)
        if (pair_excluded(operations->items[2 * i + 1].e.index, check->operation))
            return refuse_busy(check, host, "; ");

    if (stops_host(check->operation) && host_get_enabled(host))
        return refuse(check, HOST_NOT_DISABLED);
    if (check->operation == host_allowed_operations_power_on) {
        if (is_live)
            return refuse(check, HOST_IS_LIVE, check_self(check));
        if (streq(host_get_power_on_mode(host), ""))
            return refuse(check, HOST_POWER_ON_MODE_DISABLED);
    }
    return 0;
}

int check_pool(struct check *check)
{
    const struct object *pool = check->object;
    const struct value *operations = pool_get_current_operations(pool);

    for (uint32_t i = 0; i < operations->length; i++) {
        switch (operations->items[2 * i + 1].e.index) {
        case pool_allowed_operations_ha_enable:
            return refuse(check, HA_ENABLE_IN_PROGRESS);
        case pool_allowed_operations_ha_disable:
            return refuse(check, HA_DISABLE_IN_PROGRESS);
        case pool_allowed_operations_designate_new_master:
            return refuse_unlisted(check, "DESIGNATE_NEW_MASTER_IN_PROGRESS", 0);
        default:
            return refuse_busy(check, pool, "; ");
        }
    }
    if (check->operation == pool_allowed_operations_ha_enable && pool_get_ha_enabled(pool))
        return refuse(check, HA_IS_ENABLED);
    if (check->operation == pool_allowed_operations_ha_disable && !pool_get_ha_enabled(pool))
        return refuse(check, HA_NOT_ENABLED);
    return 0;
}
