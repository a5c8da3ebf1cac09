/* test_VM_migrate.c - moving a VM while every message of the move is refused or lost, hosts die and
 * masters restart
 *
 * Whatever goes wrong, in the end the VM runs at exactly one place, or is Halted when nobody can
 * have it, and nothing is left behind: no INTENT, no claim, no room. The hosts of pool_world.h
 * assert meanwhile that it never runs twice. */
#include "pool_world.h"

#include "master/VM_power.h"

#define SOURCE 1
#define TARGET 2

static void bring_up(void)
{
    assert_int_equal(API(VM_start_on, .vm = world->vm, .host = world->hosts[SOURCE].ref), 0);
    assert_int_equal(resident(), SOURCE);
}

static int move_to(int host)
{
    struct value options = VALUE_EMPTY_MAP;

    return API(VM_pool_migrate, .vm = world->vm, .host = world->hosts[host].ref,
               .options = &options);
}

static int move_with(int host, const char *key, const char *text)
{
    struct value items[] = {value_text(key), value_text(text)}, options = VALUE_MAP(1, items);

    return API(VM_pool_migrate, .vm = world->vm, .host = world->hosts[host].ref,
               .options = &options);
}

static void assert_runs_on(int host)
{
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(resident(), host);
    assert_string_equal(guest_on(host)->state, "running");
    assert_int_equal(runners(vm_uuid()), 1);
    assert_quiet();
}

/* The VM has ended, and nothing of it is left behind. */
static void assert_over(void)
{
    assert_int_equal(power(), vm_power_state_Halted);
    assert_int_equal(resident(), -1);
    assert_string_equal(guest_on(SOURCE)->state, "none");
    assert_int_equal(runners(vm_uuid()), 0);
    assert_quiet();
}

static void a_move(void **state)
{
    int64_t before;

    (void) state;
    bring_up();
    before = VM_get_epoch(vm_now());
    assert_int_equal(move_to(TARGET), 0);
    assert_runs_on(TARGET);
    assert_int_equal(VM_get_epoch(vm_now()), before + 1);
    assert_int_equal(VM_get_domid(vm_now()), guest_on(TARGET)->domid);
    assert_string_equal(guest_on(SOURCE)->state, "none");
    assert_int_equal(move_to(SOURCE), 0); /* and back */
    assert_runs_on(SOURCE);
    assert_int_equal(world->calls[SLAVE_CALL_vm_receive_abort], 0);
    assert_int_equal(world->calls[SLAVE_CALL_vm_send_abort], 0);
}

/* ---- moves that the records have forgotten ---- */

/* They have the VM at the source, whose guest was sent. Returns its epoch by the records. */
static int64_t bring_up_sent(void)
{
    bring_up();
    guest_is_sent(SOURCE);
    return VM_get_epoch(vm_now());
}

/* A move that the records have forgotten, and that came to nothing: the guest runs on, and the records say what it has. */
static void a_forgotten_move_is_undone(void **state)
{
    struct view_iter vbds;
    struct txn *txn;
    ref_t vbd;

    (void) state;
    bring_up_sent();
    view_each_inverse(&vbds, model(), &CLASS_OF(VM)->fields[F_VM_VBDs], world->vm);
    vbd = view_next(&vbds)->ref;
    guest_on(SOURCE)->disks = "0 disk\n";
    txn = store_begin(world->core.store); /* old records */
    VM_put_power_state(txn, world->vm, vm_power_state_Paused);
    VBD_put_currently_attached(txn, vbd, false);
    store_apply(&txn);
    say_hello(SOURCE);
    pass_ms(20000);
    assert_runs_on(SOURCE);
    assert_true(VBD_get_currently_attached(view_get(model(), VBD, vbd)));
}

/* A move that the records have forgotten, and whose guest has ended where it went: that host tells of it only when asked. */
static void a_forgotten_move_is_followed_to_its_end(void **state)
{
    int64_t before;

    (void) state;
    before = bring_up_sent();
    guest_on(TARGET)->epoch = (uint64_t) before + 1;
    guest_on(TARGET)->progress = "ended";
    guest_on(TARGET)->state = "none";
    say_hello(SOURCE);
    pass_ms(20000);
    assert_over();
    assert_int_equal(VM_get_epoch(vm_now()), before + 1);
}

/* While the move is being undone the host to which it went comes back, and the VM runs there. */
static void a_forgotten_move_is_told_of_meanwhile(void **state)
{
    struct txn *txn;
    int64_t before;

    (void) state;
    before = bring_up_sent();
    lose_host(&world->hosts[TARGET]);
    say_hello(SOURCE);
    pass_ms(5000);
    assert_string_equal(guest_on(SOURCE)->state, "sent");
    guest_on(TARGET)->epoch = (uint64_t) before + 1;
    guest_on(TARGET)->progress = "ran";
    guest_on(TARGET)->state = "running";
    txn = store_begin(world->core.store); /* as slave_hello.c believes it */
    VM_put_epoch(txn, world->vm, before + 1);
    VM_put_resident_on(txn, world->vm, world->hosts[TARGET].ref);
    VM_put_power_state(txn, world->vm, vm_power_state_Running);
    store_apply(&txn);
    all_return();
    pass_ms(20000);
    assert_runs_on(TARGET);
    assert_string_equal(guest_on(SOURCE)->state, "none");
}

/* From there it had gone on, and was on its way to the third host when it ended: one says that it was over at a higher epoch, one
 * that a copy of a still higher one has not come. */
static void a_forgotten_move_is_followed_beyond_its_end(void **state)
{
    int64_t before;

    (void) state;
    before = bring_up_sent();
    guest_on(TARGET)->epoch = (uint64_t) before + 3;
    guest_on(TARGET)->progress = "ended";
    guest_on(0)->epoch = (uint64_t) before + 4;
    guest_on(0)->progress = "aborted";
    say_hello(SOURCE);
    pass_ms(20000);
    assert_over();
    assert_int_equal(VM_get_epoch(vm_now()), before + 3);
}

/* By old records the VM is on a host to which, in truth, it was on its way from another; and that one has lost it. */
static void a_copy_hides_no_vm_that_is_over(void **state)
{
    (void) state;
    bring_up();
    guest_on(SOURCE)->epoch += 1000;
    guest_on(SOURCE)->progress = "receiving";
    guest_on(SOURCE)->state = "paused";
    strcpy(guest_on(SOURCE)->move, SOME_MOVE);
    say_hello(SOURCE);
    pass_ms(20000);
    assert_over();
}

/* By old records the VM is where, in truth, a guest is left that was sent long ago: the VM was to come back, and ended elsewhere. */
static void what_was_sent_long_ago_is_not_the_vm(void **state)
{
    (void) state;
    bring_up();
    guest_on(SOURCE)->epoch += 1000;
    guest_on(SOURCE)->progress = "aborted";
    guest_on(SOURCE)->state = "sent";
    say_hello(SOURCE);
    pass_ms(20000);
    assert_over();
}

static void to_where_it_is(void **state)
{
    int64_t before;

    (void) state;
    bring_up();
    before = VM_get_epoch(vm_now());
    assert_int_equal(move_to(SOURCE), 0);
    assert_runs_on(SOURCE);
    assert_int_equal(VM_get_epoch(vm_now()), before);
}

static void refusals(void **state)
{
    struct txn *txn;

    (void) state;
    assert_int_equal(move_to(TARGET), -ERR_VM_BAD_POWER_STATE);
    bring_up();
    assert_int_equal(move_with(TARGET, "live", "perhaps"), -ERR_INVALID_VALUE);
    assert_int_equal(move_with(TARGET, "network", "OpaqueRef:nonsense"), -ERR_HANDLE_INVALID);
    assert_int_equal(move_with(TARGET, "compress", "true"), 0);
    assert_runs_on(TARGET);
    txn = store_begin(world->core.store);
    host_put_enabled(txn, world->hosts[SOURCE].ref, false);
    store_apply(&txn);
    assert_int_equal(move_to(SOURCE), -ERR_HOST_DISABLED);
    assert_runs_on(TARGET);
    txn = store_begin(world->core.store);
    host_put_enabled(txn, world->hosts[SOURCE].ref, true);
    host_metrics_put_memory_total(
        txn, host_get_metrics(txn_get(txn, host, world->hosts[SOURCE].ref)), GIB / 2);
    store_apply(&txn);
    assert_int_equal(move_to(SOURCE), -ERR_HOST_NOT_ENOUGH_FREE_MEMORY);
    assert_runs_on(TARGET);
}

/* ---- every message, every trouble ---- */

static const int messages[] = {
    SLAVE_CALL_vm_receive_open,
    SLAVE_CALL_vm_send,
    SLAVE_CALL_vm_unpause,
    SLAVE_CALL_vm_forget,
};

struct trial {
    int call, host;
    enum trouble trouble;
    void (*then)(struct trial *);
};

static void run_trial(struct trial *trial)
{
    void *state;

    world_setup(&state);
    bring_up();
    print_message("  %s %s\n", slave_call_row(trial->call)->name,
                  trial->trouble == REFUSED       ? "refused"
                  : trial->trouble == LOST_BEFORE ? "lost before"
                                                  : "lost after");
    world->trouble_call = trial->call;
    world->trouble = trial->trouble;
    trial->then(trial);
    world_teardown(&state);
}

static void run_trials(void (*then)(struct trial *))
{
    for (size_t i = 0; i < ARRAY_SIZE(messages); i++)
        for (enum trouble trouble = REFUSED; trouble <= LOST_AFTER; trouble++)
            run_trial(&(struct trial){messages[i], -1, trouble, then});
}

/* The VM runs somewhere, once, as the model says, and can be moved again. */
static void assert_well(void)
{
    assert_quiet();
    assert_int_equal(power(), vm_power_state_Running);
    assert_int_equal(runners(vm_uuid()), 1);
    assert_string_equal(guest_on(resident())->state, "running");
    assert_int_equal(move_to(0), 0);
    assert_runs_on(0);
}

static void hosts_return(struct trial *trial)
{
    int r = move_to(TARGET);

    if (trial->trouble == REFUSED && trial->call != SLAVE_CALL_vm_forget)
        assert_int_equal(r, -ERR_VM_MIGRATE_FAILED);
    assert_true(runners(vm_uuid()) <= 1);
    all_return();
    assert_well();
}

static void refused_open(struct trial *trial)
{
    (void) trial;
    assert_int_equal(move_to(TARGET), -ERR_INTERNAL_ERROR);
    assert_runs_on(SOURCE);
    assert_well();
}

static void each_message_fails_and_hosts_return(void **state)
{
    (void) state;
    run_trial(&(struct trial){SLAVE_CALL_vm_receive_open, -1, REFUSED, refused_open});
    for (size_t i = 0; i < ARRAY_SIZE(messages); i++)
        for (enum trouble trouble = REFUSED; trouble <= LOST_AFTER; trouble++)
            if (messages[i] != SLAVE_CALL_vm_receive_open || trouble != REFUSED)
                run_trial(&(struct trial){messages[i], -1, trouble, hosts_return});
}

/* Aborting is made of messages, too. */
static void abort_fails(struct trial *trial)
{
    (void) trial;
    world->refused_call = SLAVE_CALL_vm_send; /* so the guards go to work */
    assert_true(move_to(TARGET) < 0);
    all_return();
    assert_well();
}

static void each_message_of_undoing_fails(void **state)
{
    static const int undoing[] = {SLAVE_CALL_vm_receive_abort, SLAVE_CALL_vm_send_abort};

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(undoing); i++)
        for (enum trouble trouble = REFUSED; trouble <= LOST_AFTER; trouble++)
            run_trial(&(struct trial){undoing[i], -1, trouble, abort_fails});
}

/* The host that was lost is declared dead - truly: the machine was off when it comes back. */
static void host_is_declared_dead(struct trial *trial)
{
    int dead = -1;

    (void) trial;
    move_to(TARGET);
    for (int i = 0; i < HOSTS; i++)
        if (!world->hosts[i].is_linked)
            dead = i;
    if (dead < 0)
        return; /* refused: nobody was lost */
    set_live(dead, false);
    guest_on(dead)->state = "none";
    assert_int_equal(API(host_declare_dead, .host = world->hosts[dead].ref), 0);
    pass_ms(5000);
    assert_quiet();
    if (dead == TARGET) {
        assert_runs_on(SOURCE); /* the source has it, before COMMIT and after */
    } else {
        assert_true(power() == vm_power_state_Halted || resident() == TARGET);
    }
    all_return();
    set_live(dead, true);
    assert_quiet();
    if (power() == vm_power_state_Halted)
        assert_int_equal(API(VM_start, .vm = world->vm), 0);
    assert_well();
}

static void each_message_is_lost_with_a_host_that_stays_away(void **state)
{
    (void) state;
    run_trials(host_is_declared_dead);
}

static void master_dies(struct trial *trial)
{
    world->trouble_call = -1;
    world->crash_call = trial->call;
    world->crash_after = trial->trouble == LOST_AFTER;
    move_to(TARGET);
    assert_true(world->has_crashed);
    restart_master();
    assert_int_equal(VM_get_current_operations(vm_now())->length, 1);
    for (int i = HOSTS - 1; i >= 0; i--)
        say_hello(i);
    pass_ms(10000);
    assert_well();
}

static void the_master_dies_at_each_message(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(messages); i++)
        for (enum trouble trouble = LOST_BEFORE; trouble <= LOST_AFTER; trouble++)
            run_trial(&(struct trial){messages[i], -1, trouble, master_dies});
}

/* First the host is lost with a message, then the master dies while the move is in doubt. */
static void master_dies_in_doubt(struct trial *trial)
{
    (void) trial;
    move_to(TARGET);
    restart_master();
    for (int i = 0; i < HOSTS; i++)
        say_hello(i);
    pass_ms(40000);
    assert_well();
}

static void the_master_dies_while_a_move_is_in_doubt(void **state)
{
    (void) state;
    run_trials(master_dies_in_doubt);
}

static void every_task_ends_even_if_a_host_never_returns(void **state)
{
    struct view_iter tasks;
    const struct object *task;

    (void) state;
    bring_up();
    world->crash_call = SLAVE_CALL_vm_send;
    move_to(TARGET);
    restart_master();
    lose_host(&world->hosts[SOURCE]);
    lose_host(&world->hosts[TARGET]);
    pass_ms(60000);
    view_each(&tasks, model(), CLASS_OF(task));
    while ((task = view_next(&tasks)))
        assert_int_not_equal(task_get_status(task), task_status_type_pending);
    assert_int_equal(VM_get_current_operations(vm_now())->length, 1); /* the VM is still in doubt */
    all_return();
    assert_well();
}

/* ---- beside other things ---- */

struct move {
    struct value options;
    struct VM_pool_migrate_args args;
    struct api api;
};

/* To the target. It comes to a stand in this call to a slave, until world->slow_over. */
static void begin_move(struct move *move, int slow_call)
{
    move->options = VALUE_EMPTY_MAP;
    move->args = (struct VM_pool_migrate_args){world->vm, world->hosts[TARGET].ref, &move->options};
    world->slow_call = slow_call;
    world->slow_over = false;
    api_begin(&move->api, "VM.pool_migrate", AS_RUN(VM_pool_migrate), &move->args);
    pass_ms(1000);
}

static void cancel_before_commit(void **state)
{
    struct move move;

    (void) state;
    bring_up();
    begin_move(&move, SLAVE_CALL_vm_send);
    assert_false(move.api.is_over);
    task_want_cancel(&world->core, move.api.task);
    pass_ms(1000);
    assert_true(move.api.is_over);
    assert_int_equal(move.api.result, -ERR_TASK_CANCELLED);
    api_done(&move.api);
    assert_runs_on(SOURCE);
    assert_string_equal(guest_on(TARGET)->state, "none");
}

static void hard_shutdown_before_commit(void **state)
{
    struct move move;

    (void) state;
    bring_up();
    begin_move(&move, SLAVE_CALL_vm_send);
    assert_int_equal(API(VM_hard_shutdown, .vm = world->vm), 0);
    assert_int_equal(move.api.result, -ERR_TASK_CANCELLED);
    api_done(&move.api);
    assert_int_equal(power(), vm_power_state_Halted);
    assert_int_equal(runners(vm_uuid()), 0);
    assert_quiet();
}

static void hard_reboot_after_commit(void **state)
{
    struct VM_hard_reboot_args reboot = {world->vm};
    struct api second;
    struct move move;

    (void) state;
    bring_up();
    begin_move(&move, SLAVE_CALL_vm_unpause);
    api_begin(&second, "VM.hard_reboot", AS_RUN(VM_hard_reboot), &reboot);
    pass_ms(1000);
    assert_false(move.api.is_over || second.is_over);
    world->slow_over = true;
    pass_ms(1000);
    assert_int_equal(move.api.result, 0);
    assert_int_equal(second.result, 0);
    api_done(&move.api);
    api_done(&second);
    assert_runs_on(TARGET); /* rebooted there */
}

static void a_guest_that_ends_ends_the_move(void **state)
{
    struct move move;

    (void) state;
    bring_up();
    begin_move(&move, SLAVE_CALL_vm_send);
    guest_ends(SOURCE, "shut_down");
    world->slow_over = true;
    pass_ms(2000);
    assert_int_equal(move.api.result, -ERR_VM_BAD_POWER_STATE);
    api_done(&move.api);
    assert_int_equal(power(), vm_power_state_Halted);
    assert_quiet();
}

static void a_refused_move_shows_what_was_missed(void **state)
{
    (void) state;
    bring_up();
    guest_on(SOURCE)->state = "none";
    guest_on(SOURCE)->progress = "ended";
    assert_int_equal(move_to(TARGET), -ERR_VM_BAD_POWER_STATE);
    pass_ms(20000);
    assert_int_equal(power(), vm_power_state_Halted);
    assert_quiet();
}

/* It runs where it went, and crashes before the move is concluded: as anywhere, it begins anew if its owner wants that. */
static void a_guest_that_crashes_where_it_went(void **state)
{
    static const enum on_crash_behaviour wanted[] = {on_crash_behaviour_restart, on_crash_behaviour_destroy};
    struct move move;

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        int64_t before;

        bring_up();
        before = VM_get_epoch(vm_now());
        assert_int_equal(API(VM_set_actions_after_crash, .self = world->vm, .value = wanted[i]), 0);
        begin_move(&move, SLAVE_CALL_vm_unpause);
        guest_ends(TARGET, "crashed");
        world->slow_over = true;
        pass_ms(20000);
        assert_int_equal(move.api.result, 0);
        api_done(&move.api);
        if (wanted[i] == on_crash_behaviour_restart) {
            assert_int_equal(power(), vm_power_state_Running);
            assert_true(VM_get_epoch(vm_now()) > before + 1); /* the move gave one right, the new start another */
            assert_int_equal(API(VM_hard_shutdown, .vm = world->vm), 0);
        }
        assert_int_equal(power(), vm_power_state_Halted);
        assert_int_equal(runners(vm_uuid()), 0);
        assert_string_equal(guest_on(TARGET)->state, "none");
        assert_quiet();
    }
}

/* Three VMs at a host that sends two at a time. */
static void moves_wait_their_turn(void **state)
{
    struct value options = VALUE_EMPTY_MAP;
    struct VM_pool_migrate_args args[3];
    struct api apis[3];
    ref_t vms[3] = {world->vm};

    (void) state;
    bring_up();
    for (int i = 1; i < 3; i++) {
        vms[i] = new_vm_with_own_disk("more", GIB / 4);
        assert_int_equal(API(VM_start_on, .vm = vms[i], .host = world->hosts[SOURCE].ref), 0);
    }
    world->slow_call = SLAVE_CALL_vm_send;
    for (int i = 0; i < 3; i++) {
        args[i] =
            (struct VM_pool_migrate_args){vms[i], world->hosts[i == 1 ? 0 : TARGET].ref, &options};
        api_begin(&apis[i], "VM.pool_migrate", AS_RUN(VM_pool_migrate), &args[i]);
    }
    pass_ms(1000);
    assert_int_equal(flows_running(world->core.flows), 2);
    assert_int_equal(flows_waiting(world->core.flows), 1);
    assert_int_equal(world->calls[SLAVE_CALL_vm_receive_open], 2);
    world->slow_over = true;
    pass_ms(2000);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(apis[i].result, 0);
        api_done(&apis[i]);
    }
    assert_runs_on(TARGET);
}

/* Flows from a fiber each, with a call of its own. */
struct mover {
    struct flow flow;
    struct call call;
    ref_t from, to;
    struct waitq *until;
    int *order, *last;
    int number;
};

static void mover_main(void *arg)
{
    struct mover *mover = arg;

    assert_int_equal(flow_enter(&mover->flow, &mover->call, mover->from, mover->to), 0);
    mover->order[(*mover->last)++] = mover->number;
    waitq_wait(mover->until, 0);
    flow_leave(&mover->flow);
}

static void nobody_starves_between_busy_hosts(void **state)
{
    enum { MOVERS = 80 };
    struct mover movers[MOVERS];
    struct waitq until = {0};
    int order[MOVERS], last = 0, place = -1;
    ref_t a = world->hosts[0].ref, b = world->hosts[1].ref, c = world->hosts[2].ref;

    (void) state;
    /* Number 4 wants a -> b; all others keep a's sending or b's receiving busy, never leaving both
     * free at once. */
    for (int i = 0; i < MOVERS; i++) {
        bool is_other = i % 2;

        movers[i] = (struct mover){.call = {.core = &world->core},
                                   .from = is_other ? a : c,
                                   .to = is_other ? c : b,
                                   .until = &until,
                                   .order = order,
                                   .last = &last,
                                   .number = i};
    }
    movers[4].from = a;
    movers[4].to = b;
    for (int i = 0; i < MOVERS; i++)
        assert_non_null(fiber_spawn(world->core.loop, mover_main, &movers[i], "mover"));
    settle_now();
    assert_int_equal(flows_running(world->core.flows), 4); /* a sends two, b receives two */
    while (last < MOVERS) {
        waitq_wake_one(&until);
        settle_now();
    }
    waitq_wake_all(&until);
    settle_now();
    for (int i = 0; i < MOVERS; i++)
        if (order[i] == 4)
            place = i;
    assert_true(place > 4 && place < 50);
    assert_int_equal(flows_running(world->core.flows), 0);
}

/* ---- evacuation ---- */

static void a_host_is_emptied(void **state)
{
    ref_t vms[5];

    (void) state;
    for (int i = 0; i < 5; i++) {
        vms[i] = new_vm_with_own_disk("many", GIB / 2);
        assert_int_equal(API(VM_start_on, .vm = vms[i], .host = world->hosts[SOURCE].ref), 0);
    }
    world->vm = vms[0];
    assert_int_equal(API(host_disable, .host = world->hosts[SOURCE].ref), 0);
    assert_int_equal(API(host_assert_can_evacuate, .host = world->hosts[SOURCE].ref), 0);
    /* one move fails, and is planned again */
    world->trouble_call = SLAVE_CALL_vm_send;
    world->trouble = REFUSED;
    assert_int_equal(API(host_evacuate, .host = world->hosts[SOURCE].ref), 0);
    for (int i = 0; i < 5; i++) {
        const struct object *vm = view_get(model(), VM, vms[i]);

        assert_int_equal(VM_get_power_state(vm), vm_power_state_Running);
        assert_false(ref_equal(VM_get_resident_on(vm), world->hosts[SOURCE].ref));
    }
    assert_quiet();
    assert_int_equal(API(host_enable, .host = world->hosts[SOURCE].ref), 0);
}

static void a_host_that_cannot_be_emptied_says_why(void **state)
{
    struct txn *txn;

    (void) state;
    bring_up();
    txn = store_begin(world->core.store);
    host_put_enabled(txn, world->hosts[0].ref, false);
    host_metrics_put_memory_total(
        txn, host_get_metrics(txn_get(txn, host, world->hosts[TARGET].ref)), GIB / 2);
    store_apply(&txn);
    assert_int_equal(API(host_assert_can_evacuate, .host = world->hosts[SOURCE].ref),
                     -ERR_CANNOT_EVACUATE_HOST);
    assert_int_equal(API(host_evacuate, .host = world->hosts[SOURCE].ref),
                     -ERR_HOST_NOT_ENOUGH_FREE_MEMORY);
    assert_int_equal(API(host_destroy, .self = world->hosts[SOURCE].ref), -ERR_HOST_IS_LIVE);
    assert_runs_on(SOURCE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(a_move),
        WORLD_TEST(a_forgotten_move_is_undone),
        WORLD_TEST(a_forgotten_move_is_followed_to_its_end),
        WORLD_TEST(a_forgotten_move_is_told_of_meanwhile),
        WORLD_TEST(a_forgotten_move_is_followed_beyond_its_end),
        WORLD_TEST(a_copy_hides_no_vm_that_is_over),
        WORLD_TEST(what_was_sent_long_ago_is_not_the_vm),
        WORLD_TEST(to_where_it_is),
        WORLD_TEST(refusals),
        cmocka_unit_test(each_message_fails_and_hosts_return),
        cmocka_unit_test(each_message_of_undoing_fails),
        cmocka_unit_test(each_message_is_lost_with_a_host_that_stays_away),
        cmocka_unit_test(the_master_dies_at_each_message),
        cmocka_unit_test(the_master_dies_while_a_move_is_in_doubt),
        WORLD_TEST(every_task_ends_even_if_a_host_never_returns),
        WORLD_TEST(cancel_before_commit),
        WORLD_TEST(hard_shutdown_before_commit),
        WORLD_TEST(hard_reboot_after_commit),
        WORLD_TEST(a_guest_that_ends_ends_the_move),
        WORLD_TEST(a_refused_move_shows_what_was_missed),
        WORLD_TEST(a_guest_that_crashes_where_it_went),
        WORLD_TEST(moves_wait_their_turn),
        WORLD_TEST(nobody_starves_between_busy_hosts),
        WORLD_TEST(a_host_is_emptied),
        WORLD_TEST(a_host_that_cannot_be_emptied_says_why),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
