/* power_world.h - the operations on the VM of pool_world.h, and what it must be after them
 *
 * A test program includes this once. */
#pragma once

#pragma GCC diagnostic ignored "-Wunused-function" /* no test program uses all of this */

#include "tests/unit/pool_world.h"

#include "master/VM_power.h"

/* ---- operations, without arguments as rows of tables have them ---- */

static int start(bool is_paused)
{
    return API(VM_start, .vm = world->vm, .start_paused = is_paused);
}

static int op_start(void)
{
    return start(false);
}
static int op_pause(void)
{
    return API(VM_pause, .vm = world->vm);
}
static int op_unpause(void)
{
    return API(VM_unpause, .vm = world->vm);
}
static int op_clean_shutdown(void)
{
    return API(VM_clean_shutdown, .vm = world->vm);
}
static int op_hard_shutdown(void)
{
    return API(VM_hard_shutdown, .vm = world->vm);
}
static int op_clean_reboot(void)
{
    return API(VM_clean_reboot, .vm = world->vm);
}
static int op_hard_reboot(void)
{
    return API(VM_hard_reboot, .vm = world->vm);
}
static int op_suspend(void)
{
    return API(VM_suspend, .vm = world->vm);
}
static int op_resume(void)
{
    return API(VM_resume, .vm = world->vm);
}

/* ---- what is seen then ---- */

static void assert_halted(void)
{
    struct view_iter vbds;
    const struct object *vbd;

    assert_int_equal(power(), vm_power_state_Halted);
    assert_int_equal(resident(), -1);
    assert_int_equal(VM_get_domid(vm_now()), -1);
    assert_int_equal(view_count_inverse(model(), &CLASS_OF(VM)->fields[F_VM_consoles], world->vm),
                     0);
    view_each_inverse(&vbds, model(), &CLASS_OF(VM)->fields[F_VM_VBDs], world->vm);
    while ((vbd = view_next(&vbds))) {
        assert_false(VBD_get_currently_attached(vbd));
        assert_false(VBD_get_reserved(vbd));
    }
}

static bool has_message(const char *name)
{
    struct view_iter messages;
    const struct object *message;

    view_each(&messages, model(), CLASS_OF(message));
    while ((message = view_next(&messages)))
        if (streq(message_get_name(message), name)
            && streq(message_get_obj_uuid(message), vm_uuid()))
            return true;
    return false;
}

static bool is_attached(ref_t vbd)
{
    return VBD_get_currently_attached(view_get(model(), VBD, vbd));
}

/* ---- what a VM has ---- */

/* A drive whose disk only another host sees: a reboot would end a guest for one that cannot be made. */
static ref_t put_drive_of_elsewhere(void)
{
    struct txn *txn = store_begin(world->core.store);
    ref_t sr = new_object(txn, CLASS_OF(SR)), vbd = new_drive(txn, world->vm, new_disk(txn, sr), "1");

    store_apply(&txn);
    settle_now();
    return vbd;
}
