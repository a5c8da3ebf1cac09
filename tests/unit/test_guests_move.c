/* test_guests_move.c - simulated guests on the move, and what may happen to them then */
#include "tests/unit/guests_world.h"

static void guest_moves_and_loses_no_tick(_unused_ void **state)
{
    struct test_vm vm;
    int from = 0;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, "sim-memory-kib=4096", "sim-dirty-pages=20", NULL));
    wait_ticks(&vm, 20);
    for (int i = 0; i < 10; i++, from = 1 - from) {
        struct move move = move_begin(from, &vm, 5);

        assert_int_equal(wait_op(move.send), 0);
        assert_int_equal(wait_op(move.receive), 0);
        assert_non_null(strstr(world.results[move.send].text, "downtime_ms="));
        assert_state(from, &vm, GUEST_SENT);
        assert_state(1 - from, &vm, GUEST_PAUSED);
        assert_true(lock_is_free(&vm));
        assert_int_equal(FINISH(VM_CALL(from, unpause, &vm)), -(int) ERR_VM_BAD_POWER_STATE);
        OK(VM_CALL(1 - from, unpause, &vm));
        assert_int_equal(FINISH(VM_CALL(from, resume_sent, &vm, vm.config.epoch)),
                         -(int) ERR_DOMAIN_EXISTS);
        vm.config.epoch++;
        assert_int_equal(vm_found(1 - from, &vm).epoch, vm.config.epoch);
        OK(VM_CALL(from, kill, &vm));
        OK(VM_CALL(from, forget, &vm));
        wait_ticks(&vm, 5);
    }
    assert_false(journal_read(&vm).is_broken);
    assert_int_equal(judge(&vm), 0);
}

/* What its sender says of it. */
static unsigned long long bytes_moved(const struct move *move)
{
    const char *text = strstr(world.results[move->send].text, "bytes=");

    assert_non_null(text);
    return strtoull(text + 6, NULL, 10);
}

static void a_compressed_move_sends_less(_unused_ void **state)
{
    unsigned long long plain, packed;
    struct test_vm vm;
    struct move move;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, "sim-memory-kib=4096", "sim-dirty-pages=64", NULL));
    wait_ticks(&vm, 60);
    move = move_begin_as(0, &vm, 300, false);
    assert_int_equal(wait_op(move.send), 0);
    assert_int_equal(wait_op(move.receive), 0);
    plain = bytes_moved(&move);
    vm.config.epoch++;
    OK(VM_CALL(1, unpause, &vm));
    OK(VM_CALL(0, kill, &vm));
    wait_ticks(&vm, 5);
    move = move_begin_as(1, &vm, 300, true);
    assert_int_equal(wait_op(move.send), 0);
    assert_int_equal(wait_op(move.receive), 0); /* whose digest fitted */
    packed = bytes_moved(&move);
    print_message("%llu bytes as they are, %llu compressed\n", plain, packed);
    assert_true(packed < plain / 2);
    vm.config.epoch++;
    OK(VM_CALL(0, unpause, &vm));
    wait_ticks(&vm, 5);
    assert_int_equal(judge(&vm), 0);
}

static void sent_guest_is_given_back(_unused_ void **state)
{
    struct test_vm vm;
    struct move move;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 4, NULL));
    move = move_begin(0, &vm, 0);
    assert_int_equal(wait_op(move.send), 0);
    OK(VM_CALL(1, kill, &vm));
    assert_int_equal(FINISH(VM_CALL(0, resume_sent, &vm, 3)), -(int) ERR_INTERNAL_ERROR);
    OK(VM_CALL(0, resume_sent, &vm, 6));
    OK(VM_CALL(0, resume_sent, &vm, 6));
    assert_int_equal(vm_found(0, &vm).epoch, 6);
    wait_ticks(&vm, 3);
    assert_false(journal_read(&vm).is_broken);
    assert_int_equal(judge(&vm), 0);
}

static void move_can_be_cancelled(_unused_ void **state)
{
    struct test_vm vm;
    struct move move;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, "sim-move-ms-min=60000", NULL));
    move = move_begin(0, &vm, 0);
    wait_ticks(&vm, 40);
    assert_state(1, &vm, GUEST_RECEIVING);
    assert_true(world.results[move.send].progress > 0);
    OK(VM_CALL(0, cancel_send, &vm));
    assert_int_equal(wait_op(move.send), -(int) ERR_TASK_CANCELLED);
    assert_int_equal(wait_op(move.receive), -(int) ERR_VM_MIGRATE_FAILED);
    assert_state(0, &vm, GUEST_RUNNING);
    assert_state(1, &vm, GUEST_NONE);
    OK(VM_CALL(0, cancel_send, &vm)); /* nothing to cancel */

    move = move_begin(0, &vm, 0); /* from the other end */
    wait_ticks(&vm, 10);
    OK(VM_CALL(1, kill, &vm));
    assert_int_equal(wait_op(move.receive), -(int) ERR_VM_BAD_POWER_STATE);
    assert_int_equal(wait_op(move.send), -(int) ERR_VM_MIGRATE_FAILED);
    assert_state(1, &vm, GUEST_NONE);

    move = move_begin(0, &vm, 0); /* the guest ends */
    wait_ticks(&vm, 10);
    OK(VM_CALL(0, kill, &vm));
    assert_int_equal(wait_op(move.send), -(int) ERR_VM_BAD_POWER_STATE);
    assert_int_equal(wait_op(move.receive), -(int) ERR_VM_MIGRATE_FAILED);
    assert_false(journal_read(&vm).is_broken);
}

static void receiver_killed_in_the_middle(_unused_ void **state)
{
    struct test_vm vm;
    struct move move;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, "sim-move-ms-min=60000", NULL));
    move = move_begin(0, &vm, 0);
    wait_ticks(&vm, 10);
    assert_state(1, &vm, GUEST_RECEIVING);
    host_signal(1, SIGKILL);
    assert_int_equal(wait_op(move.send), -(int) ERR_VM_MIGRATE_FAILED);
    assert_true(wait_op(move.receive) < 0);
    wait_ticks(&vm, 10);
    assert_state(0, &vm, GUEST_RUNNING);
    assert_false(journal_read(&vm).is_broken);
    assert_int_equal(judge(&vm), 0);
}

static void sender_killed_in_the_middle(_unused_ void **state)
{
    struct test_vm vm;
    struct move move;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, "sim-move-ms-min=60000", NULL));
    move = move_begin(0, &vm, 0);
    wait_ticks(&vm, 10);
    host_signal(0, SIGKILL);
    assert_int_equal(wait_op(move.receive), -(int) ERR_VM_MIGRATE_FAILED);
    assert_int_equal(wait_change(0, 1).change, GUEST_VANISHED);
    assert_true(wait_op(move.send) < 0);
    assert_state(1, &vm, GUEST_NONE);
    assert_true(lock_is_free(&vm));
}

/* Both copies exist, no word of the master: whoever is killed then, at most the other one is there,
 * paused. */
static void hosts_killed_after_the_move(_unused_ void **state)
{
    struct test_vm vm;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, NULL));
    assert_int_equal(wait_op(move_begin(0, &vm, 0).send), 0);
    host_signal(1, SIGKILL);
    assert_int_equal(wait_change(1, 1).change, GUEST_VANISHED);
    assert_no_ticks(&vm);
    OK(VM_CALL(0, resume_sent, &vm, 3));
    wait_ticks(&vm, 3);
    assert_false(journal_read(&vm).is_broken);
}

/* A receiver that takes nothing: its move fails after a while, and nobody else notices. */
static void stopped_receiver_stops_only_its_move(_unused_ void **state)
{
    struct test_vm vm, other;
    int pair[2];

    host_up(0);
    vm_run(0, vm_make(&vm, 1, 1, "sim-move-timeout-ms=300", "sim-memory-kib=16384",
                      "sim-dirty-pages=500", NULL));
    vm_run(0, vm_make(&other, 2, 1, NULL));
    wait_ticks(&vm, 10);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(VM_CALL(0, send, &vm, pair[1], 0, false), 0);
    wait_ticks(&other, 20);
    assert_false(world.results[world.op].is_done);
    assert_int_equal(wait_op(world.op), -(int) ERR_VM_MIGRATE_FAILED);
    wait_ticks(&vm, 3);
    close(pair[0]);
}

static void foreign_bytes_make_no_guest(_unused_ void **state)
{
    static const struct {
        uint32_t type, bytes;
        uint64_t words[6];
    } frames[] = {
        {1, 48, {0}}, /* no magic */
        {0, 0, {0}},
        {2, 0xffffffff, {0}}, /* a huge frame */
        {2, 4100, {0}},       /* pages before HELLO */
        {3, 40, {0}},         /* a state before HELLO */
        {1, 47, {0}},
        {1, 48, {0x53564f4d52445247ULL, 1, 1, 2, 4096, 64}}, /* another VM */
        {1,
         48,
         {0x53564f4d52445247ULL, 1, 0xbbbb000000004000ULL, 0x9000000000000001ULL, 4096,
          1ULL << 40}},
        {1, 48, {0x53564f4d52445247ULL, 9, 0xbbbb000000004000ULL, 0x9000000000000001ULL, 4096, 64}},
    };
    struct test_vm vm;

    host_up(0);
    vm_make(&vm, 1, 1, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(driver(0)->receive(driver(0), next_op(), &vm.config, pair[1]), 0);
        assert_int_equal(write(pair[0], &frames[i], sizeof(frames[i])), sizeof(frames[i]));
        assert_int_equal(wait_op(world.op), -(int) ERR_VM_MIGRATE_FAILED);
        assert_state(0, &vm, GUEST_NONE);
        close(pair[0]);
    }
}

/* A sender that gets the memory wrong, and one that confirms what it never had. */
static void digest_decides(_unused_ void **state)
{
    const struct {
        uint32_t type, bytes;
        uint64_t words[6];
    } hello = {
        1, 48, {0x53564f4d52445247ULL, 1, 0xbbbb000000004000ULL, 0x9000000000000001ULL, 4096, 64}};
    const struct {
        uint32_t type, bytes;
        uint64_t words[5];
    } end = {3, 40, {5, 0, 0, 0, 0x1234}};
    const struct {
        uint32_t type, bytes;
        uint64_t digest;
    } ack = {4, 8, 0x1234};
    struct test_vm vm;
    int pair[2];
    char answer[64];

    host_up(0);
    vm_make(&vm, 1, 1, NULL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(driver(0)->receive(driver(0), next_op(), &vm.config, pair[1]), 0);
    assert_int_equal(write(pair[0], &hello, sizeof(hello)), sizeof(hello));
    assert_int_equal(write(pair[0], &end, sizeof(end)), sizeof(end));
    assert_int_equal(wait_op(world.op), -(int) ERR_VM_MIGRATE_FAILED);
    assert_true(read(pair[0], answer, sizeof(answer)) > 8);
    assert_int_equal(answer[0], 5); /* REFUSED */
    assert_state(0, &vm, GUEST_NONE);
    close(pair[0]);

    vm_run(0, &vm);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(VM_CALL(0, send, &vm, pair[1], 0, false), 0);
    assert_int_equal(write(pair[0], &ack, sizeof(ack)), sizeof(ack));
    assert_int_equal(wait_op(world.op), -(int) ERR_VM_MIGRATE_FAILED);
    assert_state(0, &vm, GUEST_RUNNING);
    wait_ticks(&vm, 3);
    close(pair[0]);
}

/* Kill one side at any moment of a move: whatever is left, at most one copy can run, and it loses
 * nothing. */
static void move_with_a_kill_at_any_moment(_unused_ void **state)
{
    struct seeded_random seeded;
    struct test_vm vm;

    seeded_random_init(&seeded, clock_now_us(clock_real()));
    host_up(0);
    host_up(1);
    for (int i = 0; i < 12; i++) {
        int victim = i % 2, survivor = 1 - victim;
        uint64_t after_us = random_below(&seeded.random, 12000), end_us;
        struct move move;

        vm_run(0, vm_make(&vm, i, 1, "sim-memory-kib=8192", "sim-dirty-pages=400", NULL));
        wait_ticks(&vm, 3);
        move = move_begin(0, &vm, 0);
        end_us = clock_now_us(clock_real()) + after_us;
        while (clock_now_us(clock_real()) < end_us)
            loop_step(world.loop);
        host_signal(victim, SIGKILL);
        (void) wait_op(move.send);
        (void) wait_op(move.receive);
        if (survivor == 0) {
            /* The source runs on by itself until it was sent, and then by our word only. */
            if (world.results[move.send].code == 0)
                OK(VM_CALL(0, resume_sent, &vm, 3));
            assert_state(0, &vm, GUEST_RUNNING);
            wait_ticks(&vm, 3);
        } else if (world.results[move.send].code == 0) {
            OK(VM_CALL(1, unpause, &vm));
            wait_ticks(&vm, 3);
        } else {
            assert_true(lock_is_free(&vm));
            assert_no_ticks(&vm);
        }
        OK(VM_CALL(survivor, kill, &vm));
        assert_false(journal_read(&vm).is_broken);
        assert_int_equal(judge(&vm), 0);
        world.hosts[victim].pid = spawn(&world.hosts[victim]);
        assert_true(wait_for(is_ready, &world.hosts[victim], WAIT_MS));
    }
}

#define MOVED 200

static bool all_tick_on_host_1(void *arg)
{
    struct test_vm *vms = arg;

    for (int i = 0; i < MOVED; i++)
        if (!streq(journal_read(&vms[i]).last_host, world.hosts[1].uuid))
            return false;
    return true;
}

/* As many at once as nobody would: each arrives, and the guests process is fast. */
static void many_guests_move_at_once(_unused_ void **state)
{
    static struct test_vm vms[MOVED];
    uint64_t began_ms;

    host_up(0);
    host_up(1);
    for (int i = 0; i < MOVED; i++)
        vm_run(0, vm_make(&vms[i], i, 1, "sim-tick-ms=100", NULL));
    assert_true(wait_for(all_are_done, NULL, WAIT_MS));
    wait_ticks(&vms[MOVED - 1], 3);
    began_ms = loop_now_ms(world.loop);
    for (int i = 0; i < MOVED; i++)
        move_begin(0, &vms[i], 10);
    assert_true(wait_for(all_are_done, NULL, WAIT_MS));
    print_message("%d guests moved in %llu ms\n", MOVED,
                  (unsigned long long) (loop_now_ms(world.loop) - began_ms));
    for (int i = 0; i < MOVED; i++)
        OK(VM_CALL(1, unpause, &vms[i]));
    assert_true(wait_for(all_tick_on_host_1, vms, WAIT_MS));
    for (int i = 0; i < MOVED; i++)
        assert_false(journal_read(&vms[i]).is_broken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(guest_moves_and_loses_no_tick),
        CASE(a_compressed_move_sends_less),
        CASE(sent_guest_is_given_back),
        CASE(move_can_be_cancelled),
        CASE(receiver_killed_in_the_middle),
        CASE(sender_killed_in_the_middle),
        CASE(hosts_killed_after_the_move),
        CASE(stopped_receiver_stops_only_its_move),
        CASE(foreign_bytes_make_no_guest),
        CASE(digest_decides),
        CASE(move_with_a_kill_at_any_moment),
        CASE(many_guests_move_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
