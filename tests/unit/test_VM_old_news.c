/* test_VM_old_news.c - hosts whose news are old when they come, or newer than the records, or never come */
#include "tests/unit/power_world.h"

/* ---- what hosts tell is old ---- */

static void old_news_are_no_news(void **state)
{
    uint64_t before;
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    before = (uint64_t) VM_get_epoch(vm_now());
    assert_int_equal(op_hard_shutdown(), 0);
    assert_int_equal(API(VM_start_on, .vm = world->vm, .host = world->hosts[home].ref), 0);
    say_note(home, before, "shut_down", 1); /* of the guest before */
    pass_ms(5000);
    assert_int_equal(power(), vm_power_state_Running);
    assert_quiet();
}

/* A reboot keeps the epoch: the guest's number tells which one the news is of. */
static void news_of_the_guest_before_a_reboot_are_old(void **state)
{
    int64_t before;

    (void) state;
    assert_int_equal(start(false), 0);
    before = VM_get_domid(vm_now());
    assert_int_equal(op_clean_reboot(), 0);
    guest_on(resident())->state = "ended"; /* nobody has asked yet */
    say_note(resident(), (uint64_t) VM_get_epoch(vm_now()), "shut_down", before);
    pass_ms(5000);
    assert_int_equal(power(), vm_power_state_Running);
    say_note(resident(), (uint64_t) VM_get_epoch(vm_now()), "shut_down", guest_on(resident())->domid);
    pass_ms(5000);
    assert_halted();
    assert_quiet();
}

/* A reboot that nobody waits for any more goes on at the host: what has ended there may run again
 * before the model says Halted, and must not do so after it. */
static void nothing_is_halted_before_its_host_has_forgotten_it(void **state)
{
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    world->slow_call = SLAVE_CALL_vm_forget;
    guest_ends(home, "shut_down");
    pass_ms(1000);
    assert_int_equal(world->calls[SLAVE_CALL_vm_forget], 1);
    assert_int_equal(power(), vm_power_state_Running);
    begin_at(guest_on(home), (uint64_t) VM_get_epoch(vm_now()), "ran", "running");
    world->slow_over = true;
    pass_ms(5000);
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(resident(), home);
    assert_int_equal(VM_get_domid(vm_now()), guest_on(home)->domid);
    assert_quiet();
}

/* What a host said before an operation ended is not believed after it. */
static void an_answer_that_has_become_old_is_not_believed(void **state)
{
    struct VM_pause_args pause = {world->vm};
    struct VM_unpause_args unpause = {world->vm};
    struct api first, second;
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    guest_on(home)->state = "paused"; /* so that its hello is a reason to ask */
    world->slow_call = SLAVE_CALL_vm_ask;
    say_hello(home);
    api_begin(&first, "VM.pause", AS_RUN(VM_pause), &pause);
    pass_ms(1000);
    api_begin(&second, "VM.unpause", AS_RUN(VM_unpause), &unpause);
    pass_ms(1000);
    world->slow_over = true; /* and "paused" arrives */
    pass_ms(5000);
    assert_true(first.is_over && second.is_over);
    assert_int_equal(power() == vm_power_state_Running,
                     streq(guest_on(home)->state, "running"));
    api_done(&first);
    api_done(&second);
    assert_quiet();
}

/* A hello waits for the master's disk before anybody looks at it. */
static void a_hello_that_has_become_old_brings_nothing_back(void **state)
{
    struct hello *hello = new0(struct hello);
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    hello->host = home;
    hello->count = 1;
    hello->guests[0] = (struct slave_guest){
        .epoch = (uint64_t) VM_get_epoch(vm_now()), .state = "running", .progress = "ran", .move = "", .domid = 1};
    uuid_parse(vm_uuid(), 36, &hello->guests[0].vm_uuid);
    assert_int_equal(op_hard_shutdown(), 0);
    assert_non_null(fiber_spawn(world->core.loop, hello_main, hello, "hello"));
    settle_now();
    assert_int_equal(power(), vm_power_state_Halted);
    pass_ms(5000);
    assert_halted();
    assert_quiet();
}

/* ---- the records are old ---- */

/* What runs at the model's own epoch is the VM, whatever the model says. */
static void a_guest_with_the_models_own_right_is_the_vm(void **state)
{
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    assert_int_equal(op_hard_shutdown(), 0);
    begin_at(guest_on(home), (uint64_t) VM_get_epoch(vm_now()), "ran", "running");
    say_hello(home);
    pass_ms(5000);
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(resident(), home);
    assert_int_equal(VM_get_domid(vm_now()), guest_on(home)->domid);
    assert_quiet();
}

/* The records were old: while the host that they name is told to end the guest, another one proves that the VM is there. */
static void what_is_done_elsewhere_halts_nothing(void **state)
{
    struct VM_hard_shutdown_args args;
    struct txn *txn;
    struct api api;
    uint64_t epoch;

    (void) state;
    assert_int_equal(API(VM_start_on, .vm = world->vm, .host = world->hosts[0].ref), 0);
    args = (struct VM_hard_shutdown_args){.vm = world->vm};
    world->slow_call = SLAVE_CALL_vm_kill;
    api_begin(&api, "VM.hard_shutdown", AS_RUN(VM_hard_shutdown), &args);
    epoch = guest_on(0)->epoch + 1000;
    *guest_on(1) = *guest_on(0);
    guest_on(1)->epoch = epoch;
    guest_on(0)->state = "none";
    guest_on(0)->progress = "ended";
    txn = store_begin(world->core.store); /* as slave_hello.c does */
    VM_put_epoch(txn, world->vm, (int64_t) epoch);
    VM_put_resident_on(txn, world->vm, world->hosts[1].ref);
    store_apply(&txn);
    world->slow_over = true;
    pass_ms(5000);
    assert_true(api.is_over);
    assert_string_equal(api.code, "INTERNAL_ERROR");
    api_done(&api);
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(resident(), 1);
    assert_int_equal(runners(vm_uuid()), 1);
    assert_quiet();
}

/* In old records the VM is being started; in truth it was, and was sent for a move that these records lack. */
static void a_start_that_a_forgotten_move_has_followed(void **state)
{
    static const enum trouble troubles[] = {LOST_BEFORE, LOST_AFTER};

    for (size_t i = 0; i < ARRAY_SIZE(troubles); i++) {
        int host = 0;

        world_setup(state);
        world->trouble_call = SLAVE_CALL_vm_start;
        world->trouble = troubles[i];
        assert_int_equal(start(false), -ERR_HOST_OFFLINE);
        while (world->hosts[host].is_linked)
            host++;
        world->hosts[host].forgets_results = troubles[i] == LOST_AFTER;
        guest_on(host)->epoch = (uint64_t) VM_get_epoch(vm_now());
        guest_is_sent(host);
        all_return();
        pass_ms(20000);
        assert_int_equal(power(), vm_power_state_Running);
        assert_int_equal(resident(), host);
        assert_string_equal(guest_on(host)->state, "running");
        assert_int_equal(runners(vm_uuid()), 1);
        assert_quiet();
        world_teardown(state);
    }
}

/* ---- nothing was told ---- */

/* No note came, and no hello: that the host refuses shows it. */
static void a_refusal_shows_what_was_missed(void **state)
{
    (void) state;
    assert_int_equal(start(false), 0);
    guest_on(resident())->state = "none";
    assert_int_equal(API(VM_pause, .vm = world->vm), -ERR_VM_BAD_POWER_STATE);
    pass_ms(5000);
    assert_halted();
    assert_quiet();
}

static void a_host_comes_back_empty(void **state)
{
    int home;

    (void) state;
    assert_int_equal(start(false), 0);
    home = resident();
    lose_host(&world->hosts[home]);
    guest_on(home)->state = "none"; /* the machine was switched off and on */
    all_return();
    assert_halted();
    assert_quiet();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(old_news_are_no_news),
        WORLD_TEST(news_of_the_guest_before_a_reboot_are_old),
        WORLD_TEST(nothing_is_halted_before_its_host_has_forgotten_it),
        WORLD_TEST(an_answer_that_has_become_old_is_not_believed),
        WORLD_TEST(a_hello_that_has_become_old_brings_nothing_back),
        WORLD_TEST(a_guest_with_the_models_own_right_is_the_vm),
        WORLD_TEST(what_is_done_elsewhere_halts_nothing),
        cmocka_unit_test(a_start_that_a_forgotten_move_has_followed),
        WORLD_TEST(a_refusal_shows_what_was_missed),
        WORLD_TEST(a_host_comes_back_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
