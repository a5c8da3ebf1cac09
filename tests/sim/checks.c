/* checks.c - what must be true, whatever went wrong
 *
 * That a VM never runs twice, nor from old memory, is seen by the world in the moment when it would happen. Here is the
 * rest: between steps what costs nothing; at rest, that disk and memory say the same; at the end, that the pool has come
 * to rest by itself and its records are true. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "master/claim.h"
#include "master/memory.h"
#include "master/room.h"
#include "master/slaves.h"
#include "master/store.h"
#include "shared/arena.h"
#include "shared/wire.h"
#include "tests/sim/sim.h"

/* ---- the redo log gives the objects in memory ---- */

static bool is_kept(const struct field *field)
{
    return !(field->flags & (FIELD_VOLATILE | FIELD_INVERSE));
}

static void compare_object(struct sim *sim, const struct object *a, const struct object *b)
{
    const struct class *class = a->class;
    char text[REF_TEXT_BYTES];

    if (!b)
        sim_fail(sim, "%s %s is in memory, but not in the redo log", class->name, ref_print(text, a->ref));
    for (int f = 0; f < class->field_count; f++)
        if (is_kept(&class->fields[f]) && !value_equal(&a->fields[f], &b->fields[f]))
            sim_fail(sim, "%s.%s of %s differs between memory and redo log", class->name, class->fields[f].name,
                     ref_print(text, a->ref));
}

static void compare_stores(struct sim *sim, struct store *memory, struct store *replayed)
{
    for (int c = 0; c < CLASS_COUNT; c++) {
        const struct class *class = &model_classes[c];
        const struct object *object;
        struct view_iter iter;

        if (!(class->flags & CLASS_IN_DATABASE) || !(class->flags & CLASS_PERSIST))
            continue;
        view_each(&iter, store_core_view(memory), class);
        while ((object = view_next(&iter)))
            compare_object(sim, object, view_object(store_core_view(replayed), class, object->ref));
        if (view_count(store_core_view(memory), class) != view_count(store_core_view(replayed), class))
            sim_fail(sim, "there are more objects of class %s in the redo log than in memory", class->name);
    }
}

void check_replay(struct sim_master *master)
{
    struct sim *sim = master->process.sim;
    struct loop *loop = loop_new(&sim->world->clock.clock);
    struct store *store = store_new(&sim->world->clock.clock, loop);

    assert(disk_redo_is_idle(master->sink));
    if (disk_load(&master->disk, store) < 0)
        sim_fail(sim, "%s: the redo log cannot be replayed", master->process.name);
    store_load_end(store, master->disk.epoch + 1, master->disk.generation);
    compare_stores(sim, master->core.store, store);
    loop_destroy(&loop);
    store_destroy(&store);
}

/* ---- no claim without who works on it ---- */

static bool has_intent(const struct view *view, ref_t vm)
{
    const struct object *intent;
    struct view_iter iter;

    view_each(&iter, view, CLASS_OF(intent));
    while ((intent = view_next(&iter)))
        if (ref_equal(intent_get_VM(intent), vm))
            return true;
    return false;
}

static void check_claims(struct sim_master *master)
{
    struct sim *sim = master->process.sim;
    const struct view *view = store_core_view(master->core.store);

    for (int i = 0; i < SIM_VMS; i++) {
        const struct object *vm = view_get(view, VM, sim->vms[i]);

        if (VM_get_current_operations(vm)->length > 0 && !claim_live_call(&master->core, vm->ref)
            && !has_intent(view, vm->ref))
            sim_fail(sim, "%s: %s is claimed, and nobody works on it", master->process.name, sim->vm_names[i]);
    }
}

/* ---- no right to run that a crash could take back ---- */

static bool gives_right(const struct wire_frame *frame)
{
    return frame->type == WIRE_CALL
           && (streq(frame->name, "vm_start") || streq(frame->name, "vm_resume") || streq(frame->name, "vm_unpause"));
}

/* A host that is told to run a VM at an epoch can keep no more than its own promise: that the epoch is on the master's disk. */
void check_order(void *sim_master, const void *bytes, size_t count)
{
    struct sim_master *master = sim_master;
    struct arena *arena = arena_new();
    struct wire_frame frame;

    if (wire_decode(bytes, count, arena, &frame) == 0 && gives_right(&frame)) {
        struct view *durable = store_pin(master->core.store);
        const char *uuid = value_map_text(&frame.body, "vm", "");
        const struct object *vm = view_by_uuid(durable, CLASS_OF(VM), uuid);
        const struct value *epoch = value_map_find(&frame.body, "epoch");

        if (vm && epoch && epoch->i > VM_get_epoch(vm))
            sim_fail(master->process.sim, "%s: %s %s at epoch %lld, which is not on its disk", master->process.name,
                     frame.name, VM_get_name_label(vm), (long long) epoch->i);
        view_unpin(&durable);
    }
    arena_destroy(&arena);
}

/* Out of so many moments one is looked at more closely. */
#define REPLAY_ONE_IN 500

void check_moment(struct sim *sim)
{
    for (int i = 0; i < sim->master_count; i++) {
        struct sim_master *master = sim->masters[i];

        if (!sim_master_is_up(master))
            continue;
        check_claims(master);
        if (disk_redo_is_idle(master->sink) && world_chance(sim->world, REPLAY_ONE_IN) == 0)
            check_replay(master);
    }
}

/* ---- rest ---- */

static bool task_is_pending(const struct object *task)
{
    return task_get_status(task) == task_status_type_pending || task_get_status(task) == task_status_type_cancelling;
}

static bool has_half_made_disks(const struct view *view)
{
    const struct object *vdi;
    struct view_iter vdis;

    view_each(&vdis, view, CLASS_OF(VDI));
    while ((vdi = view_next(&vdis)))
        if (!streq(VDI_get_maker(vdi), ""))
            return true;
    return false;
}

/* Those of a move count, at both ends: somebody has still to say which of them runs. */
static int guests_of(struct sim *sim, int vm)
{
    int count = 0;

    for (int i = 0; i < WORLD_HOSTS; i++) {
        const struct world_guest *guest = world_guest(&sim->world->hosts[i], sim->vm_uuids[vm]);

        count += guest && guest->state != GUEST_ENDED ? guest->state == GUEST_SENT ? 2 : 1 : 0;
    }
    return count;
}

static const char *what_is_under_way(struct sim_master *master)
{
    struct sim *sim = master->process.sim;
    const struct object *object;
    const struct view *view;
    struct view_iter iter;
    static char text[200];

    if (!sim_master_is_up(master))
        return "the master is down";
    view = store_core_view(master->core.store);
    view_each(&iter, view, CLASS_OF(intent));
    object = view_next(&iter);
    if (object) {
        snprintf(text, sizeof text, "an INTENT: %s of epoch %lld, step '%s'", intent_get_operation(object),
                 (long long) intent_get_epoch(object), intent_get_step(object));
        return text;
    }
    view_each(&iter, view, CLASS_OF(task));
    while ((object = view_next(&iter)))
        if (task_is_pending(object)) {
            snprintf(text, sizeof text, "a task: %s", task_get_name_label(object));
            return text;
        }
    for (int i = 0; i < SIM_VMS; i++) {
        object = view_get(view, VM, sim->vms[i]);
        if (VM_get_current_operations(object)->length > 0 || !ref_is_null(VM_get_scheduled_to_be_resident_on(object))) {
            snprintf(text, sizeof text, "%s has a claim or room reserved", sim->vm_names[i]);
            return text;
        }
    }
    for (int i = 0; i < WORLD_HOSTS; i++) {
        const struct sim_host *host = &sim->hosts[i];

        object = view_get(view, host, host->ref);
        if (!sim_host_is_up(host) || !slave_is_linked(master->core.slaves, host->ref)) {
            snprintf(text, sizeof text, "%s is not linked", host->process.name);
            return text;
        }
        if (host_get_current_operations(object)->length > 0) {
            snprintf(text, sizeof text, "%s has a claim", host->process.name);
            return text;
        }
        if (!host_metrics_get_live(view_get(view, host_metrics, host_get_metrics(object)))) {
            snprintf(text, sizeof text, "%s is not live", host->process.name);
            return text;
        }
    }
    if (has_half_made_disks(store_core_view(master->core.store)))
        return "half-made disks";
    for (int i = 0; i < SIM_VMS; i++)
        if (guests_of(sim, i) > 1) {
            snprintf(text, sizeof text, "%s has the guests of a move", sim->vm_names[i]);
            return text;
        }
    if (!disk_redo_is_idle(master->sink))
        return "writes";
    return NULL;
}

bool check_is_quiet(struct sim_master *master)
{
    return !what_is_under_way(master);
}

/* ---- the end: records are true ---- */

static const struct world_guest *guest_anywhere(struct sim *sim, int vm, const struct world_host **ret_host)
{
    const struct world_guest *found = NULL;

    for (int i = 0; i < WORLD_HOSTS; i++) {
        const struct world_guest *guest = world_guest(&sim->world->hosts[i], sim->vm_uuids[vm]);

        if (!guest || guest->state == GUEST_ENDED)
            continue;
        if (found)
            sim_fail(sim, "%s has guests on %s and %s at the end", sim->vm_names[vm], (*ret_host)->name,
                     sim->world->hosts[i].name);
        found = guest;
        *ret_host = &sim->world->hosts[i];
    }
    return found;
}

static void check_vm(struct sim *sim, const struct view *view, int index)
{
    const struct object *vm = view_get(view, VM, sim->vms[index]);
    const struct world_host *host = NULL;
    const struct world_guest *guest = guest_anywhere(sim, index, &host);
    enum vm_power_state power = VM_get_power_state(vm);
    const struct object *resident = view_get(view, host, VM_get_resident_on(vm));
    const char *where = resident ? host_get_name_label(resident) : "nowhere";
    bool is_right;

    switch (power) {
    case vm_power_state_Running:
        is_right = guest && guest->state == GUEST_RUNNING;
        break;
    case vm_power_state_Paused:
        is_right = guest && guest->state == GUEST_PAUSED;
        break;
    default:
        is_right = !guest;
    }
    is_right = is_right && streq(where, guest ? host->name : "nowhere");
    if (!is_right)
        sim_fail(sim, "%s is %s on %s by its record of epoch %lld, and in truth in state %d on %s at epoch %llu",
                 sim->vm_names[index], enum_text(&enum_type_vm_power_state, (int) power), where,
                 (long long) VM_get_epoch(vm), guest ? (int) guest->state : 0, guest ? host->name : "no host",
                 (unsigned long long) (guest ? guest->epoch : 0));
}

/* A guest has the disks that its VM's VBDs say are attached. */
static void check_devices(struct sim *sim, const struct view *view, int index)
{
    const struct world_host *host = NULL;
    const struct world_guest *guest = guest_anywhere(sim, index, &host);
    const struct object *vbd;
    struct view_iter vbds;

    view_each_inverse(&vbds, view, &CLASS_OF(VM)->fields[F_VM_VBDs], sim->vms[index]);
    while (guest && (vbd = view_next(&vbds)))
        if (VBD_get_currently_attached(vbd) != (world_disk(&guest->devices, VBD_get_userdevice(vbd)) != NULL))
            sim_fail(sim, "disk %s of %s is%s attached by its record, and in truth it is%s", VBD_get_userdevice(vbd),
                     sim->vm_names[index], VBD_get_currently_attached(vbd) ? "" : " not",
                     VBD_get_currently_attached(vbd) ? " not" : "");
}

/* Room is what residents need, and nothing else. */
static void check_room(struct sim *sim, struct sim_master *master, const struct view *view)
{
    for (int i = 0; i < WORLD_HOSTS; i++) {
        const struct room_host *room = room_host(master->core.room, sim->hosts[i].ref);
        int64_t bytes = 0;

        for (int v = 0; v < SIM_VMS; v++) {
            const struct object *vm = view_get(view, VM, sim->vms[v]);

            if (ref_equal(VM_get_resident_on(vm), sim->hosts[i].ref))
                bytes += vm_memory_need_bytes(vm);
        }
        if (!room || room->committed_bytes != bytes)
            sim_fail(sim, "%s: room of %lld bytes is taken, its VMs need %lld", sim->hosts[i].process.name,
                     (long long) (room ? room->committed_bytes : -1), (long long) bytes);
    }
}

/* Each disk has its file, and each file its disk: what was not finished is gone. Unless records were put back: nobody touches
 * the files that they do not know, and those that are gone stay so; SR.scan shows it. */
static void check_disks(struct sim *sim, const struct view *view)
{
    const struct object *vdi;
    struct view_iter vdis;
    struct dirent *entry;
    int disks = 0, files = 0;
    DIR *dir;

    if (sim->records_were_old)
        return;
    dir = opendir(sim->directory);
    view_each(&vdis, view, CLASS_OF(VDI));
    while ((vdi = view_next(&vdis))) {
        if (VDI_get_type(vdi) == vdi_type_suspend)
            continue;
        disks++;
        if (!dir || faccessat(dirfd(dir), VDI_get_location(vdi), F_OK, 0) < 0)
            sim_fail(sim, "the disk %s has no file", VDI_get_location(vdi));
    }
    while (dir && (entry = readdir(dir)))
        files += strlen(entry->d_name) > 4 && streq(entry->d_name + strlen(entry->d_name) - 4, ".raw");
    if (dir)
        closedir(dir);
    if (files != disks)
        sim_fail(sim, "there are %d files of %d disks", files, disks);
}

void check_end(struct sim *sim)
{
    struct sim_master *master = sim_master(sim);
    const char *under_way = what_is_under_way(master);
    const struct view *view;

    if (under_way)
        sim_fail(sim, "there is no rest: %s", under_way);
    if (clients_waiting(sim->clients) > 0)
        sim_fail(sim, "%u calls were never answered", clients_waiting(sim->clients));
    view = store_core_view(master->core.store);
    for (int i = 0; i < SIM_VMS; i++) {
        check_vm(sim, view, i);
        check_devices(sim, view, i);
    }
    check_room(sim, master, view);
    check_disks(sim, view);
    check_replay(master);
    clients_check(sim->clients, master);
}
