/* test_claim.c - claims on objects: who may, who waits, who is cancelled, what stays */
#include "pool_world.h"

struct claimer {
    struct call call;
    struct arena *arena;
    struct claim claim;
    const struct class *class; /* NULL: the world's VM is claimed, */
    ref_t ref;                 /* else this */
    int operation;
    struct waitq until; /* holds the claim so long */
    int result;
    bool has_it, is_over, wants_alone, keeps;
    uint64_t wait_ms;   /* 0: as long as anybody */
    struct fiber *fiber;
};

static void claimer_main(void *arg)
{
    struct claimer *claimer = arg;

    const struct class *class = claimer->class ? claimer->class : CLASS_OF(VM);
    ref_t ref = claimer->class ? claimer->ref : world->vm;

    claimer->result = claimer->wait_ms ? claim_begin_within(&claimer->claim, &claimer->call, class, ref, claimer->operation, claimer->wait_ms)
                                       : claim_begin(&claimer->claim, &claimer->call, class, ref, claimer->operation);
    if (claimer->result == 0 && claimer->wants_alone)
        claimer->result = claim_alone(&claimer->claim);
    if (claimer->result == 0) {
        claimer->has_it = true;
        waitq_wait(&claimer->until, 0);
        if (claimer->keeps)
            claim_keep(&claimer->claim);
    }
    claim_end(&claimer->claim);
    claimer->is_over = true;
}

static void claimer_begin(struct claimer *claimer, const char *tag, int operation)
{
    bool wants_alone = claimer->wants_alone, keeps = claimer->keeps;

    const struct class *class = claimer->class;
    ref_t ref = claimer->ref;
    uint64_t wait_ms = claimer->wait_ms;

    *claimer = (struct claimer){.operation = operation,
                                .wants_alone = wants_alone,
                                .keeps = keeps,
                                .class = class,
                                .ref = ref,
                                .wait_ms = wait_ms};
    claimer->arena = arena_new();
    claimer->call = (struct call){.core = &world->core, .arena = claimer->arena, .tag = tag};
    claimer->fiber = fiber_spawn(world->core.loop, claimer_main, claimer, tag);
    assert_non_null(claimer->fiber);
    settle_now();
}

static void claimer_end(struct claimer *claimer)
{
    waitq_wake_all(&claimer->until);
    settle_now();
    assert_true(claimer->is_over);
    arena_destroy(&claimer->arena);
}

static const struct value *operations(void)
{
    return VM_get_current_operations(vm_now());
}

static void run_vm(void)
{
    struct txn *txn = store_begin(world->core.store);

    VM_put_power_state(txn, world->vm, vm_power_state_Running);
    store_apply(&txn);
}

static void a_claim_shows_and_goes(void **state)
{
    struct claimer one = {.result = 0};

    (void) state;
    claimer_begin(&one, "task one", vm_operations_start);
    assert_true(one.has_it);
    assert_int_equal(operations()->length, 1);
    assert_string_equal(operations()->items[0].text, "task one");
    assert_int_equal(operations()->items[1].e.index, vm_operations_start);
    assert_ptr_equal(claim_live_call(&world->core, world->vm), &one.call);
    claimer_end(&one);
    assert_int_equal(operations()->length, 0);
    assert_null(claim_live_call(&world->core, world->vm));
}

static void others_wait_in_order(void **state)
{
    struct claimer claimers[4] = {{.result = 0}};

    (void) state;
    for (int i = 0; i < 4; i++)
        claimer_begin(&claimers[i], "task", vm_operations_start);
    for (int i = 0; i < 4; i++) {
        for (int j = i + 1; j < 4; j++)
            assert_false(claimers[j].has_it || claimers[j].is_over);
        assert_true(claimers[i].has_it);
        claimer_end(&claimers[i]);
    }
}

static void what_is_refused_does_not_wait(void **state)
{
    struct claimer claimer = {.result = 0};

    (void) state;
    claimer_begin(&claimer, "task", vm_operations_pause); /* of a halted VM */
    assert_true(claimer.is_over);
    assert_int_equal(claimer.result, -ERR_VM_BAD_POWER_STATE);
    arena_destroy(&claimer.arena);
}

static void waiting_ends_by_cancel(void **state)
{
    struct claimer first = {.result = 0}, second = {.result = 0};

    (void) state;
    claimer_begin(&first, "first", vm_operations_start);
    claimer_begin(&second, "second", vm_operations_start);
    fiber_cancel(second.fiber);
    settle_now();
    assert_true(second.is_over);
    assert_int_equal(second.result, -ERR_TASK_CANCELLED);
    claimer_end(&first);
    arena_destroy(&second.arena);
}

static void waiting_ends_after_two_hours(void **state)
{
    struct claimer first = {.result = 0}, second = {.result = 0};

    (void) state;
    claimer_begin(&first, "first", vm_operations_start);
    claimer_begin(&second, "second", vm_operations_start);
    pass_ms(2 * 3600 * 1000 - 1000);
    assert_false(second.is_over);
    pass_ms(2000);
    assert_true(second.is_over);
    assert_int_equal(second.result, -ERR_OTHER_OPERATION_IN_PROGRESS);
    assert_string_equal(second.call.failure.params[0], "VM");
    assert_string_equal(second.call.failure.params[2], "start");
    assert_string_equal(second.call.failure.params[3], "first");
    claimer_end(&first);
    arena_destroy(&second.arena);
}

static void who_has_less_time_waits_less(void **state)
{
    struct claimer first = {.result = 0}, second = {.wait_ms = 120000}, third = {.wait_ms = 120000};

    (void) state;
    claimer_begin(&first, "first", vm_operations_start);
    claimer_begin(&second, "second", vm_operations_start);
    pass_ms(119000);
    assert_false(second.is_over);
    claimer_begin(&third, "third", vm_operations_start);
    pass_ms(2000);
    assert_true(second.is_over);
    assert_int_equal(second.result, -ERR_OTHER_OPERATION_IN_PROGRESS);
    claimer_end(&first);
    assert_true(third.has_it);
    claimer_end(&third);
    arena_destroy(&second.arena);
}

static void a_hard_operation_cancels_the_others(void **state)
{
    struct claimer soft = {.result = 0}, hard = {.wants_alone = true}, third = {.result = 0};

    (void) state;
    run_vm();
    claimer_begin(&soft, "soft", vm_operations_pause);
    assert_true(soft.has_it);
    claimer_begin(&third, "third", vm_operations_pause);
    claimer_begin(&hard, "hard", vm_operations_hard_shutdown);
    assert_true(soft.is_over); /* its wait was ended */
    assert_true(hard.has_it);
    assert_false(third.has_it); /* waits for the hard one now */
    claimer_end(&hard);
    assert_true(third.has_it);
    claimer_end(&third);
    arena_destroy(&soft.arena);
}

static void a_kept_claim_outlives_its_call(void **state)
{
    struct claimer keeper = {.keeps = true}, next = {.result = 0};
    struct txn *txn;

    (void) state;
    claimer_begin(&keeper, "keeper", vm_operations_start);
    claimer_end(&keeper);
    assert_int_equal(operations()->length, 1);
    assert_null(claim_live_call(&world->core, world->vm));
    claimer_begin(&next, "next", vm_operations_start);
    assert_false(next.has_it || next.is_over);
    txn = store_begin(world->core.store);
    claim_release(&world->core, txn, CLASS_OF(VM), world->vm, "keeper");
    store_apply(&txn);
    settle_now();
    assert_true(next.has_it);
    claimer_end(&next);
    assert_int_equal(operations()->length, 0);
}

static void an_object_that_goes_ends_the_wait(void **state)
{
    struct claimer destroyer = {.result = 0}, next = {.result = 0};
    struct txn *txn;

    (void) state;
    claimer_begin(&destroyer, "destroyer", vm_operations_destroy);
    claimer_begin(&next, "next", vm_operations_start);
    txn = store_begin(world->core.store);
    txn_delete(txn, CLASS_OF(VM), world->vm);
    store_apply(&txn);
    claimer_end(&destroyer);
    assert_true(next.is_over);
    assert_int_equal(next.result, -ERR_HANDLE_INVALID);
    arena_destroy(&next.arena);
}

static ref_t the_drive(void)
{
    struct view_iter vbds;

    view_each_inverse(&vbds, model(), &CLASS_OF(VM)->fields[F_VM_VBDs], world->vm);
    return view_next(&vbds)->ref;
}

/* What is in the way of the disk is the drive's operation, whatever the refusal names. */
static void a_disk_waits_for_what_is_done_with_its_drive(void **state)
{
    struct claimer plug = {.class = CLASS_OF(VBD), .ref = the_drive()};
    struct claimer snapshot = {.class = CLASS_OF(VDI), .ref = world->vdi};
    struct claimer destroy = {.class = CLASS_OF(VDI), .ref = world->vdi};

    (void) state;
    run_vm();
    claimer_begin(&plug, "plug", vbd_operations_plug);
    assert_true(plug.has_it);
    claimer_begin(&snapshot, "snapshot", vdi_operations_snapshot);
    claimer_begin(&destroy, "destroy", vdi_operations_destroy);
    assert_false(snapshot.has_it || snapshot.is_over || destroy.has_it || destroy.is_over);
    assert_string_equal(snapshot.call.failure.params[0], "VDI");
    assert_string_equal(snapshot.call.failure.params[2], "plug");
    claimer_end(&plug);
    assert_true(snapshot.has_it);
    assert_false(destroy.has_it || destroy.is_over);
    claimer_end(&snapshot);
    assert_true(destroy.has_it);
    claimer_end(&destroy);
}

/* What copies the disk keeps away who would change it, until it ends; who reads it, too, is let in. */
static void a_copy_is_waited_for(void **state)
{
    struct claimer copies[2] = {{.class = CLASS_OF(VDI), .ref = world->vdi}, {.class = CLASS_OF(VDI), .ref = world->vdi}}, changes = {.class = CLASS_OF(VDI), .ref = world->vdi};

    (void) state;
    claimer_begin(&copies[0], "copy", vdi_operations_copy);
    claimer_begin(&copies[1], "another", vdi_operations_copy);
    claimer_begin(&changes, "destroy", vdi_operations_forget);
    assert_true(copies[0].has_it && copies[1].has_it);
    claimer_end(&copies[0]);
    assert_false(changes.has_it || changes.is_over);
    claimer_end(&copies[1]);
    assert_true(changes.has_it);
    claimer_end(&changes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(a_claim_shows_and_goes),         WORLD_TEST(others_wait_in_order),
        WORLD_TEST(what_is_refused_does_not_wait),  WORLD_TEST(waiting_ends_by_cancel),
        WORLD_TEST(waiting_ends_after_two_hours),   WORLD_TEST(a_hard_operation_cancels_the_others),
        WORLD_TEST(who_has_less_time_waits_less),   WORLD_TEST(a_hard_operation_cancels_the_others),
        WORLD_TEST(a_kept_claim_outlives_its_call), WORLD_TEST(an_object_that_goes_ends_the_wait),
        WORLD_TEST(a_disk_waits_for_what_is_done_with_its_drive),
        WORLD_TEST(a_copy_is_waited_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
