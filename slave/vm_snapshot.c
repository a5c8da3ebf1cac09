/* vm_snapshot.c - the disks of a guest as they are at one moment
 *
 *     prepare    each disk: how it is to be shared, and an overlay where one is needed
 *     pause      the guest stands, its disks are flushed
 *     take       all disks: the moment (storage_clone.c)
 *     reopen     the driver goes on in the files that have taken over the paths
 *     unpause    ... and the guest runs
 *     finish     the new disks are completed
 *
 * The VM's lock is held throughout, so no other operation sees the guest paused; only a kill comes through. Whatever fails, the
 * guest goes on. An agent that dies while the guest stands leaves it so: the master sends the call again, to the next agent,
 * which does what is missing and lets the guest go on. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "shared/log.h"
#include "slave/work_in.h"
#include "slave/storage.h"
#include "slave/vms.h"

struct snapshot {
    struct op *op;
    struct disk_clone *clones;   /* of the disks that have files */
    int count;
    atomic_bool stop;            /* the guest is to end: nobody wants the snapshot any more */
    int (*step)(int dir, struct disk_clone *);
    int error;                   /* [out] of the step: a negative errno, */
    int failed;                  /* [out] and the clone where it happened */
};

/* In a worker: one step for all disks. */
static void run_step(void *arg)
{
    struct snapshot *snapshot = arg;

    for (int i = 0; i < snapshot->count && snapshot->error == 0; i++) {
        struct disk_clone *clone = &snapshot->clones[i];
        _cleanup_(close_fd) int dir = sr_open(&clone->place, clone->text);

        snapshot->failed = i;
        snapshot->error = dir < 0 ? dir : snapshot->step(dir, clone);
    }
}

static int do_step(struct snapshot *snapshot, int (*step)(int dir, struct disk_clone *))
{
    const char **directories = arena_alloc_array(snapshot->op->arena, (size_t) snapshot->count + 1, sizeof *directories);
    struct disk_clone *clone;

    for (int i = 0; i < snapshot->count; i++)
        directories[i] = snapshot->clones[i].place.directory;
    snapshot->step = step;
    snapshot->error = 0;
    op_work_in(snapshot->op, directories, (size_t) snapshot->count, run_step, snapshot);
    if (snapshot->error == 0)
        return 0;
    clone = &snapshot->clones[snapshot->failed];
    return storage_disk_failed(snapshot->op, snapshot->error, clone->text, clone->place.uuid, clone->source,
                               clone->facts.virtual_size);
}

/* Begun by an agent that was restarted: what was taken then was taken before the guest was held again. */
static int prepare(int dir, struct disk_clone *clone)
{
    unlinkat(dir, clone->name, 0);
    return disk_clone_prepare(dir, clone);
}

static int read_disks(struct op *op, const struct value *disks, struct snapshot *snapshot)
{
    snapshot->clones = arena_alloc_array(op->arena, disks->length, sizeof *snapshot->clones);
    for (uint32_t i = 0; i < disks->length; i++) {
        const struct value *map = &disks->items[i];
        struct disk_clone *clone = &snapshot->clones[snapshot->count];
        bool is_dummy;
        int r;

        *clone = (struct disk_clone){
            .place = sr_place_of_disk(map),
            .source = value_map_text(map, "source", ""),
            .name = value_map_text(map, "location", ""),
            .stop = &snapshot->stop,
        };
        r = storage_disk_directory(op, value_map_text(map, "sr_type", ""), clone->place.directory, &is_dummy);
        if (r == 0)
            r = storage_check_pair(op, clone->source, clone->name);
        if (r < 0)
            return r;
        clone->format = storage_format_of(clone->source, false);
        snapshot->count += !is_dummy;
    }
    return 0;
}

static bool has_guest(const struct vm *vm)
{
    return vm->state == GUEST_RUNNING || vm->state == GUEST_PAUSED;
}

static int hold(struct op *op, struct vm *vm)
{
    int r;

    if (vm->state != GUEST_RUNNING)
        return 0;
    r = DRIVE(op, vm, pause, vm->uuid);
    if (!has_guest(vm)) { /* it has ended meanwhile, and its disks are at rest */
        op->failure = (struct failure){0};
        return 0;
    }
    if (r == 0)
        vm_set_state(vm, GUEST_PAUSED);
    return r;
}

/* With the guest standing still, or gone. */
static int take(struct op *op, struct vm *vm, struct snapshot *snapshot)
{
    int r = do_step(snapshot, disk_clone_take);

    if (!has_guest(vm))
        return r;
    if (r < 0) { /* some disks may be split */
        struct failure failure = op->failure;

        if (DRIVE(op, vm, reopen_disks, vm->uuid) < 0)
            log_warning(vm->text, "the guest goes on in the old files of its disks");
        op->failure = failure;
        return r;
    }
    r = DRIVE(op, vm, reopen_disks, vm->uuid);
    if (r < 0 && !has_guest(vm)) {
        op->failure = (struct failure){0};
        r = 0;
    }
    return r;
}

/* By the right that it has and has used: also when the master that asked for the snapshot is not followed any more, for nobody else
 * would let it go on. */
static int go_on(struct op *op, struct vm *vm, uint64_t epoch)
{
    struct failure failure = op->failure;
    int r;

    if (vm->state != GUEST_PAUSED)
        return 0;
    r = owner_take(op, vm, vm_row(vm).disks, epoch, epoch);
    if (r == 0)
        r = DRIVE(op, vm, unpause, vm->uuid);
    if (r == 0 && vm->state == GUEST_PAUSED)
        vm_set_state(vm, GUEST_RUNNING);
    if (r < 0 && !has_guest(vm))
        r = 0;
    if (r == 0 || failure.code)
        op->failure = failure;
    return r;
}

/* Split by an agent that was restarted since: all of them are of one moment if the guest has stood still from then on, or if
 * nothing is left to be taken. */
static int check_moment(struct op *op, const struct vm *vm, const struct snapshot *snapshot, bool *ret_is_taken)
{
    int split = 0;

    for (int i = 0; i < snapshot->count; i++)
        split += snapshot->clones[i].was_split;
    *ret_is_taken = split > 0 && split == snapshot->count;
    if (split == 0 || *ret_is_taken || vm->state == GUEST_PAUSED)
        return 0;
    return op_fail(op, SR_BACKEND_FAILURE, "4", "", "the snapshot was interrupted, and the guest has gone on since");
}

static struct value answers(struct op *op, const struct value *disks, const struct snapshot *snapshot)
{
    struct value *items = arena_alloc_array(op->arena, disks->length, sizeof *items);
    const struct disk_clone *clone = snapshot->clones;

    for (uint32_t i = 0; i < disks->length; i++) {
        const char *name = value_map_text(&disks->items[i], "location", "");

        if (streq(value_map_text(&disks->items[i], "sr_type", ""), "dummy")) {
            items[i] = storage_disk_answer(op, name, storage_format_of(name, false), &(struct disk_facts){0});
        } else {
            items[i] = storage_disk_answer(op, name, clone->format, &clone->facts);
            clone++;
        }
    }
    return VALUE_SET(disks->length, items);
}

int do_vm_snapshot(struct op *op, const struct slave_vm_snapshot_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    struct snapshot snapshot = {.op = op, .stop = false};
    bool is_taken;
    int r = read_disks(op, args->disks, &snapshot), gone_on;

    if (r == 0)
        r = vm_take(op, args->vm, args->epoch, &vm);
    if (r < 0)
        return r;
    if (vm->sending || vm->state == GUEST_RECEIVING || vm->state == GUEST_SENT
        || (has_guest(vm) && vm_row(vm).epoch != (uint64_t) args->epoch))
        return vm_bad_state(op, vm, "running");
    r = do_step(&snapshot, op->is_repeated ? prepare : disk_clone_prepare);
    if (r == 0)
        r = check_moment(op, vm, &snapshot, &is_taken);
    if (r == 0 && !(is_taken && vm->state == GUEST_RUNNING)) {
        vm->stop = &snapshot.stop;
        r = hold(op, vm);
        if (r == 0)
            r = take(op, vm, &snapshot);
        vm->stop = NULL;
    }
    /* Also after a failure, and where an earlier agent has held it. */
    gone_on = args->paused ? 0 : go_on(op, vm, (uint64_t) args->epoch);
    if (r == 0)
        r = gone_on;
    if (r == 0)
        r = do_step(&snapshot, disk_clone_finish);
    if (r == 0)
        *ret = answers(op, args->disks, &snapshot);
    return r;
}
