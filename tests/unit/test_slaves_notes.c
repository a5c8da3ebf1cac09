/* test_slaves_notes.c - what hosts tell by themselves: notes, once and in order, and epochs above the model's */
#include "tests/unit/slaves_world.h"

static void note(struct fixture *f, uint64_t number, uint64_t epoch)
{
    say(f, (struct wire_frame){.type = WIRE_NOTE,
                               .number = number,
                               .name = "guest",
                               .vm = vm1,
                               .vm_epoch = epoch,
                               .body = a_state(f, "ended")});
}

static ref_t make_vm(struct fixture *f, int64_t epoch)
{
    struct txn *txn = store_begin(f->mini.core.store);
    ref_t vm = txn_create_new(txn, f->mini.core.random, CLASS_OF(VM), NULL);

    VM_put_uuid(txn, vm, vm1_text);
    VM_put_epoch(txn, vm, epoch);
    store_apply(&txn);
    txn_end(&txn);
    mini_run(&f->mini);
    return vm;
}

static void notes_are_handled_once_and_acknowledged(void **state)
{
    struct fixture *f = *state;

    make_vm(f, 3);
    note(f, 11, 3);
    assert_int_equal(f->notes, 1);
    assert_string_equal(f->note, "guest ended");
    assert_int_equal(last_of(f, WIRE_ACK)->number, 11);
    hello(f);
    f->got.count = 0;
    note(f, 11, 3); /* the acknowledgement was lost */
    assert_int_equal(f->notes, 1);
    assert_int_equal(last_of(f, WIRE_ACK)->number, 11);
    note(f, 12, 2); /* of an older right */
    assert_int_equal(f->notes, 1);
    assert_int_equal(last_of(f, WIRE_ACK)->number, 12);
}

static void set_guest(struct fixture *f, uint64_t epoch, const char *state, const char *progress)
{
    struct value *items = arena_alloc_array(f->arena, 12, sizeof *items), *set = arena_new0(f->arena, struct value);

    items[0] = value_text("vm");
    items[1] = VALUE_REF(vm1);
    items[2] = value_text("epoch");
    items[3] = VALUE_INT((int64_t) epoch);
    items[4] = value_text("state");
    items[5] = value_text(state);
    items[6] = value_text("progress");
    items[7] = value_text(progress);
    items[8] = value_text("domid");
    items[9] = VALUE_INT(12);
    *set = VALUE_MAP(5, items);
    f->guests = VALUE_SET(1, set);
}

static void an_epoch_above_the_models_is_believed(void **state)
{
    struct fixture *f = *state;
    struct core *core = &f->mini.core;
    ref_t ref = make_vm(f, 3);
    const struct object *vm;

    set_guest(f, 4, "paused", "receiving"); /* a copy proves nothing */
    hello(f);
    assert_int_equal(VM_get_epoch(view_get(store_core_view(core->store), VM, ref)), 3);
    set_guest(f, 5, "running", "ran");
    hello(f);
    vm = view_get(store_core_view(core->store), VM, ref);
    assert_int_equal(VM_get_epoch(vm), 5);
    assert_int_equal(VM_get_power_state(vm), vm_power_state_Running);
    assert_true(ref_equal(VM_get_resident_on(vm), core->host));
    assert_int_equal(VM_get_domid(vm), 12);
    set_guest(f, 6, "ended", "starting"); /* by another master's order, which is under way */
    hello(f);
    vm = view_get(store_core_view(core->store), VM, ref);
    assert_int_equal(VM_get_epoch(vm), 6);
    assert_true(ref_equal(VM_get_resident_on(vm), core->host));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(notes_are_handled_once_and_acknowledged),
        TEST(an_epoch_above_the_models_is_believed),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
