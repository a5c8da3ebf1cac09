/* lifecycle_follow.c - whose allowed_operations move when something else changes (wire.md sections 7 and 10)
 *
 * The field is computed when a record is read, from the object and its neighbours. A client that keeps records from events
 * learns of it only if the object has an event, so a change that moves a neighbour's field touches the neighbour: a version
 * and an event, as a reference that joins an inverse set makes them (apply.c); nothing in the redo log.
 *
 *      VM paused --> row: VM power_state, along VBDs --> each VBD: allowed before? and now? --> touch
 *
 * The rows say which fields of which class the rules of lifecycle_*.c look at, and on which way whose they are is found from
 * there: along references and inverse sets, so it costs what the object has of neighbours. At the end of a way the rules are
 * asked about both views, which spares an event where the answer is the same.
 *
 * There are no rows for what does not change while clients look: an SR's type, what the storage drivers can (SM.features, put
 * before a master answers anybody), pool.ha_enabled, which nothing sets. */
#include "master/lifecycle_rules.h"

/* The change of one object, as the ways begin. */
struct moved {
    struct txn *txn;
    const struct view *before, *after;
    const struct object *old, *new; /* one may be NULL */
};

#define END (-1) /* of a list of fields */

/* An SR's disks ask only whether any host has it attached. */
static bool attachment_moved(const struct moved *moved)
{
    ref_t sr = PBD_get_SR(moved->new ? moved->new : moved->old);

    return sr_is_attached(moved->before, sr) != sr_is_attached(moved->after, sr);
}

/* Rows of a class stand together. */
static const struct row {
    int class;                             /* CLASS_NUMBER_x: whose change it is */
    int fields[6];                         /* of these */
    int way[4];                            /* from there to whom it concerns, by field */
    bool (*matters)(const struct moved *); /* or NULL: may it concern anybody there? */
} rows[] = {
    {CLASS_NUMBER_VM,
     {F_VM_power_state, F_VM_current_operations, F_VM_guest_metrics, F_VM_domain_type,
      F_VM_HVM_boot_policy, END},
     {F_VM_VBDs, END},
     NULL},
    {CLASS_NUMBER_VM,
     {F_VM_power_state, F_VM_current_operations, F_VM_guest_metrics, F_VM_domain_type,
      F_VM_HVM_boot_policy, END},
     {F_VM_VIFs, END},
     NULL},
    /* a suspended VM has its disks no longer: others may, and they can be copied */
    {CLASS_NUMBER_VM, {F_VM_power_state, END}, {F_VM_VBDs, F_VBD_VDI, END}, NULL},
    {CLASS_NUMBER_VM, {F_VM_power_state, END}, {F_VM_VBDs, F_VBD_VDI, F_VDI_VBDs, END}, NULL},

    {CLASS_NUMBER_VM_guest_metrics,
     {F_VM_guest_metrics_PV_drivers_version, F_VM_guest_metrics_other, END},
     {F_VM_guest_metrics_VMs, END},
     NULL},
    {CLASS_NUMBER_VM_guest_metrics,
     {F_VM_guest_metrics_PV_drivers_version, END},
     {F_VM_guest_metrics_VMs, F_VM_VBDs, END},
     NULL},
    {CLASS_NUMBER_VM_guest_metrics,
     {F_VM_guest_metrics_PV_drivers_version, END},
     {F_VM_guest_metrics_VMs, F_VM_VIFs, END},
     NULL},

    {CLASS_NUMBER_VBD,
     {F_VBD_currently_attached, F_VBD_reserved, F_VBD_mode, F_VBD_current_operations, F_VBD_VDI,
      END},
     {F_VBD_VDI, END},
     NULL},
    {CLASS_NUMBER_VBD,
     {F_VBD_currently_attached, F_VBD_reserved, F_VBD_mode, F_VBD_VDI, END},
     {F_VBD_VDI, F_VDI_VBDs, END},
     NULL},
    {CLASS_NUMBER_VBD, {F_VBD_current_operations, F_VBD_VDI, END}, {F_VBD_VM, END}, NULL},
    {CLASS_NUMBER_VIF, {F_VIF_current_operations, END}, {F_VIF_VM, END}, NULL},

    {CLASS_NUMBER_VDI,
     {F_VDI_managed, F_VDI_current_operations, F_VDI_sharable, F_VDI_read_only, END},
     {F_VDI_VBDs, END},
     NULL},
    {CLASS_NUMBER_VDI, {F_VDI_on_boot, END}, {F_VDI_VBDs, F_VBD_VM, END}, NULL},
    {CLASS_NUMBER_VDI, {F_VDI_managed, F_VDI_type, END}, {F_VDI_SR, END}, NULL},

    {CLASS_NUMBER_PBD, {F_PBD_currently_attached, END}, {F_PBD_SR, END}, NULL},
    {CLASS_NUMBER_PBD,
     {F_PBD_currently_attached, END},
     {F_PBD_SR, F_SR_VDIs, END},
     attachment_moved},

    {CLASS_NUMBER_host_metrics, {F_host_metrics_live, END}, {F_host_metrics_hosts, END}, NULL},
};

static const struct row *const rows_end = rows + ARRAY_SIZE(rows);

static bool row_fits(const struct row *row, const struct moved *moved)
{
    bool differs = !moved->old || !moved->new;

    for (int i = 0; !differs && row->fields[i] != END; i++)
        differs = !value_equal(&moved->old->fields[row->fields[i]],
                               &moved->new->fields[row->fields[i]]);
    return differs && (!row->matters || row->matters(moved));
}

/* The end of a way. What this transaction has changed or touched is told anyway. */
static void arrive(const struct moved *moved, const struct object *object)
{
    if (object->modified != view_generation(moved->after)
        && allowed_operations_differ(moved->before, moved->after, object))
        txn_touch(moved->txn, object->class, object->ref);
}

static void go(const struct moved *moved, const struct object *object, const int *way)
{
    const struct field *field;
    const struct object *next;

    if (*way == END) {
        arrive(moved, object);
        return;
    }
    field = &object->class->fields[*way];
    if (field->flags & FIELD_INVERSE) {
        struct view_iter all;

        view_each_inverse(&all, moved->after, field, object->ref);
        while ((next = view_next(&all)))
            go(moved, next, way + 1);
    } else {
        next = view_object(moved->after, field->type->class, object->fields[*way].ref);
        if (next)
            go(moved, next, way + 1);
    }
}

/* From where the object stands, and where it stood. */
static void row_follow(const struct row *row, const struct moved *moved)
{
    int first = row->way[0];

    if (moved->new)
        go(moved, moved->new, row->way);
    if (moved->old
        && (!moved->new || !value_equal(&moved->old->fields[first], &moved->new->fields[first])))
        go(moved, moved->old, row->way);
}

/* Two keys of the pool's other_config concern every VM (states_of() and check_VM() of lifecycle_vm.c). */
static void pool_follow(const struct moved *moved)
{
    static const char *const keys[] = {"rolling_upgrade_in_progress", "allow_clone_suspended_vm"};
    const struct object *vm;
    struct view_iter vms;
    bool differs = false;

    if (!moved->old || !moved->new)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        differs |= !streq(value_map_text(pool_get_other_config(moved->old), keys[i], ""),
                          value_map_text(pool_get_other_config(moved->new), keys[i], ""));
    if (!differs)
        return;
    view_each(&vms, moved->after, CLASS_OF(VM));
    while ((vm = view_next(&vms)))
        arrive(moved, vm);
}

void lifecycle_follow(struct txn *txn, const struct view *before, const struct object *old,
                      const struct object *new)
{
    const struct moved moved = {txn, before, txn_view(txn), old, new};
    int class = (new ? new : old)->class->number;
    const struct row *row = rows;

    if (class == CLASS_NUMBER_pool)
        pool_follow(&moved);
    while (row < rows_end && row->class != class)
        row++;
    for (; row < rows_end && row->class == class; row++)
        if (row_fits(row, &moved))
            row_follow(row, &moved);
}
