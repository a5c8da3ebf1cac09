/* test_agent_move.c - both ends of a move: who may run, and by whose word */
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/unit/agent_world.h"

static ref_t receive_open(struct fixture *f, int64_t epoch, const char *move)
{
    struct slave_vm_receive_open_args args = {.vm = vm1_text,
                                              .epoch = epoch,
                                              .move = move,
                                              .config = &no_options,
                                              .disks = &no_disks,
                                              .nics = &no_disks};

    return call(f, SLAVE_CALL_vm_receive_open, &args);
}

static ref_t move_call(struct fixture *f, int number, int64_t epoch, const char *move)
{
    struct slave_vm_send_abort_args args = {.vm = vm1_text, .epoch = epoch, .move = move};

    return call(f, number, &args);
}

/* Sockets are real, so what travels through them is waited for in real time. */
#define UNTIL(f, condition)                                                                        \
    do {                                                                                           \
        for (int i_ = 0; !(condition); i_++) {                                                     \
            assert_true(i_ < 20000);                                                               \
            run(f);                                                                                \
            usleep(500);                                                                           \
        }                                                                                          \
    } while (0)

/* Connects as a source agent would, and says the token. */
static int connect_as_source(struct fixture *f, ref_t opened, const char *token)
{
    const struct value *endpoint = &of_id(f, WIRE_REPLY, opened)->body;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_port = htons((uint16_t) atoi(value_map_text(endpoint, "port", "0")));
    assert_int_equal(connect(fd, (struct sockaddr *) &to, sizeof to), 0);
    if (!token)
        token = value_map_text(endpoint, "token", "");
    assert_int_equal(write(fd, token, strlen(token)), strlen(token));
    return fd;
}

static void receive(struct fixture *f, int64_t epoch, const char *move)
{
    ref_t opened = receive_open(f, epoch, move);
    int fd;

    assert_string_equal(code_of(f, opened), "");
    fd = connect_as_source(f, opened, NULL);
    UNTIL(f, fake_find(&f->fake, vm1) && guest(f)->found.state == GUEST_PAUSED);
    run(f);
    close(fd);
}

static void a_copy_runs_only_by_the_masters_word(void **state)
{
    struct fixture *f = *state;

    receive(f, 4, "m1");
    assert_int_equal(guest(f)->runs, 0);
    assert_string_equal(code_of(f, start(f, 4)), "VM_BAD_POWER_STATE");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_unpause, 4)), "running");
    assert_int_equal(guest(f)->runs, 1);
    assert_int_equal(guest(f)->run_epoch, 4);
    assert_string_equal(code_of(f, move_call(f, SLAVE_CALL_vm_receive_abort, 4, "m1")), "VM_BAD_POWER_STATE");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_unpause, 4)), "running");
    assert_int_equal(guest(f)->runs, 1);
}

static bool copy_is_lost(void *arg, const char *point)
{
    if (streq(point, "slave.vm_unpause.begun"))
        fake_guest_changes(&((struct fixture *) arg)->fake, vm1, GUEST_VANISHED);
    return false;
}

/* Its guests process dies when the right has come, and before the disks are its own: it never ran, and the move is taken back. */
static void a_copy_that_is_lost_meanwhile_never_ran(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/drover-agent-XXXXXX", command[128];
    struct value disk[] = {value_text("sr_location"), value_text(dir), value_text("location"), value_text("a.raw")};
    struct value map = VALUE_MAP(2, disk), disks = VALUE_SET(1, &map);
    struct slave_vm_receive_open_args args = {
        .vm = vm1_text, .epoch = 4, .move = "m1", .config = &no_options, .disks = &disks, .nics = &no_disks};
    ref_t opened;
    int fd;

    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof command, "touch %s/a.raw", dir);
    assert_int_equal(system(command), 0);
    opened = call(f, SLAVE_CALL_vm_receive_open, &args);
    fd = connect_as_source(f, opened, NULL);
    UNTIL(f, fake_find(&f->fake, vm1) && guest(f)->found.state == GUEST_PAUSED);
    run(f);
    close(fd);
    crash_set_hook(copy_is_lost, f);
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_unpause, 4)), "VM_BAD_POWER_STATE");
    crash_set_hook(NULL, NULL);
    assert_int_equal(guest(f)->runs, 0);
    assert_string_equal(state_of(f, move_call(f, SLAVE_CALL_vm_receive_abort, 4, "m1")), "ended");
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_unpause, 4)), "VM_BAD_POWER_STATE");
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void unpause_waits_for_the_copy(void **state)
{
    struct fixture *f = *state;
    ref_t opened = receive_open(f, 4, "m1"), unpause = simple(f, SLAVE_CALL_vm_unpause, 4);
    int fd;

    assert_string_equal(code_of(f, unpause), "no reply");
    fd = connect_as_source(f, opened, NULL);
    UNTIL(f, of_id(f, WIRE_REPLY, unpause));
    assert_string_equal(state_of(f, unpause), "running");
    close(fd);
}

static void an_aborted_copy_never_runs(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    receive(f, 4, "m1");
    assert_string_equal(state_of(f, move_call(f, SLAVE_CALL_vm_receive_abort, 4, "m1")), "ended");
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_unpause, 4)), "VM_BAD_POWER_STATE");
    assert_string_equal(code_of(f, receive_open(f, 4, "m1")), "INTERNAL_ERROR");
    assert_int_equal(guest(f)->runs, 0);
    /* before it was begun */
    assert_string_equal(state_of(f, move_call(f, SLAVE_CALL_vm_receive_abort, 6, "m2")), "ended");
    assert_string_equal(code_of(f, receive_open(f, 6, "m2")), "INTERNAL_ERROR");
    /* another move at the same epoch: the VM's own has not risen */
    id = receive_open(f, 6, "m3");
    assert_string_equal(code_of(f, id), "");
    assert_string_equal(state_of(f, move_call(f, SLAVE_CALL_vm_receive_abort, 6, "m3")), "ended");
    assert_int_equal(guest(f)->runs, 0);
}

static void a_wrong_token_gets_nothing(void **state)
{
    struct fixture *f = *state;
    char wrong[65];
    ref_t opened = receive_open(f, 4, "m1");
    int bad, good;
    char answer[16];

    memset(wrong, '0', 64);
    wrong[64] = '\0';
    bad = connect_as_source(f, opened, wrong);
    good = connect_as_source(f, opened, NULL);
    UNTIL(f, fake_find(&f->fake, vm1));
    assert_int_equal(read(good, answer, sizeof answer), 10);
    UNTIL(f, recv(bad, answer, sizeof answer, MSG_DONTWAIT) == 0);
    close(bad);
    close(good);
}

static void a_copy_survives_its_agent(void **state)
{
    struct fixture *f = *state;

    receive(f, 4, "m1");
    agent_restart(f);
    assert_string_equal(value_map_text(&last_of(f, WIRE_HELLO)->guests.items[0], "progress", ""), "receiving");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_unpause, 4)), "running");
    /* one that was only half there does not */
    fake_guest_changes(&f->fake, vm1, GUEST_VANISHED);
    run(f);
    receive_open(f, 5, "m2");
    agent_restart(f);
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_unpause, 5)), "VM_BAD_POWER_STATE");
    assert_int_equal(guest(f)->runs, 1);
}

/* A destination for the source under test: a socket that answers as another agent would. */
static int listen_as_destination(int *ret_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *) &at, sizeof at), 0);
    assert_int_equal(listen(fd, 4), 0);
    getsockname(fd, (struct sockaddr *) &at, &bytes);
    *ret_port = ntohs(at.sin_port);
    return fd;
}

static const char a_token[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

static ref_t send_to(struct fixture *f, int64_t epoch, const char *move, int port)
{
    struct value *items = arena_alloc_array(f->arena, 6, sizeof *items), map = VALUE_MAP(3, items);
    struct slave_vm_send_args args = {.vm = vm1_text, .epoch = epoch, .move = move, .endpoint = &map};

    items[0] = value_text("address");
    items[1] = value_text("127.0.0.1");
    items[2] = value_text("port");
    items[3] = value_text(arena_text(f->arena, "%d", port));
    items[4] = value_text("token");
    items[5] = value_text(a_token);
    return call(f, SLAVE_CALL_vm_send, &args);
}

/* Until the driver is sending. */
static ref_t send_begun(struct fixture *f, int64_t epoch, const char *move)
{
    char token[64];
    int port, listening = listen_as_destination(&port), fd;
    ref_t id = send_to(f, epoch, move, port);

    fd = accept(listening, NULL, NULL);
    UNTIL(f, recv(fd, token, sizeof token, MSG_DONTWAIT | MSG_PEEK) == 64);
    assert_memory_equal(token, a_token, 64);
    assert_int_equal(write(fd, "drover ok\n", 10), 10);
    UNTIL(f, f->fake.send_operation);
    close(fd);
    close(listening);
    return id;
}

static void a_sent_guest_comes_back_only_by_the_masters_word(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    start(f, 3);
    id = send_begun(f, 3, "m1");
    assert_string_equal(code_of(f, id), "no reply");
    f->disk.sync_ms = 200;
    fake_send_end(&f->fake, vm1, 0);
    pass_ms(f, 100);
    assert_string_equal(code_of(f, id), "no reply"); /* the promise is not in the file yet */
    pass_ms(f, 600);
    assert_string_equal(state_of(f, id), "sent");
    f->disk.sync_ms = 0;
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_unpause, 3)), "VM_BAD_POWER_STATE");
    agent_restart(f);
    assert_string_equal(value_map_text(&last_of(f, WIRE_HELLO)->guests.items[0], "progress", ""), "paused-for-move");
    assert_int_equal(guest(f)->runs, 1);
    assert_string_equal(state_of(f, move_call(f, SLAVE_CALL_vm_send_abort, 3, "m1")), "running");
    assert_int_equal(guest(f)->runs, 2); /* the same guest goes on */
    assert_int_equal(guest(f)->starts, 1);
}

/* The VM has run where it was sent to, was to come back, and that was called off: what is here still is nobody's. */
static void a_sent_guest_that_was_left_behind_never_runs(void **state)
{
    struct fixture *f = *state;

    start(f, 3);
    send_begun(f, 3, "m1");
    fake_send_end(&f->fake, vm1, 0);
    run(f);
    assert_string_equal(code_of(f, move_call(f, SLAVE_CALL_vm_receive_abort, 5, "m2")), "");
    agent_restart(f);
    assert_string_equal(value_map_text(&last_of(f, WIRE_HELLO)->guests.items[0], "progress", ""), "aborted");
    assert_string_equal(state_of(f, move_call(f, SLAVE_CALL_vm_send_abort, 5, "m1")), "sent");
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_unpause, 7)), "VM_BAD_POWER_STATE");
    assert_int_equal(guest(f)->runs, 1);
}

/* The agent ends when it is about to let the guest run on: the next one knows which move it was. */
static void a_guest_that_was_about_to_run_on_is_still_that_moves(void **state)
{
    struct fixture *f = *state;
    const struct value *told;

    start(f, 3);
    send_begun(f, 3, "m1");
    fake_send_end(&f->fake, vm1, 0);
    run(f);
    f->fake.fail_next = -ERR_INTERNAL_ERROR;
    assert_string_equal(code_of(f, move_call(f, SLAVE_CALL_vm_send_abort, 3, "m1")), "INTERNAL_ERROR");
    agent_restart(f);
    told = &last_of(f, WIRE_HELLO)->guests.items[0];
    assert_string_equal(value_map_text(told, "progress", ""), "paused-for-move");
    assert_string_equal(value_map_text(told, "move", ""), "m1");
    assert_string_equal(code_of(f, send_to(f, 3, "m1", 1)), "TASK_CANCELLED");
    assert_string_equal(state_of(f, move_call(f, SLAVE_CALL_vm_send_abort, 3, "m1")), "running");
}

static void the_promise_is_kept_by_the_next_agent(void **state)
{
    struct fixture *f = *state;
    struct value empty = VALUE_EMPTY_MAP;
    struct slave_vm_send_args args = {.vm = vm1_text, .epoch = 3, .move = "m1", .endpoint = &empty};
    ref_t id;

    start(f, 3);
    id = send_begun(f, 3, "m1");
    f->fake.is_holding = true;
    fake_send_end(&f->fake, vm1, 0); /* the agent dies before it hears of it */
    run(f);
    f->fake.is_holding = false;
    agent_restart(f);
    ask(f, id);
    assert_string_equal(answer_of(f, id), "interrupted");
    call_as(f, id, SLAVE_CALL_vm_send, &args);
    assert_string_equal(state_of(f, id), "sent");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_forget, 4)), "ended");
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_unpause, 3)), "INTERNAL_ERROR");
}

static void a_send_can_be_called_off_while_it_runs(void **state)
{
    struct fixture *f = *state;
    ref_t id, abort;

    start(f, 3);
    id = send_begun(f, 3, "m1");
    abort = move_call(f, SLAVE_CALL_vm_send_abort, 3, "m1");
    run(f);
    assert_string_equal(state_of(f, abort), "running");
    assert_string_equal(code_of(f, id), "TASK_CANCELLED");
    assert_string_equal(code_of(f, send_to(f, 3, "m1", 1)), "TASK_CANCELLED"); /* never again by this name */
    assert_int_equal(guest(f)->runs, 1);
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
}

static void the_source_gets_it_back_with_a_higher_right(void **state)
{
    struct fixture *f = *state;

    start(f, 3);
    send_begun(f, 3, "m1");
    fake_send_end(&f->fake, vm1, 0);
    run(f);
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_unpause, 5)), "running"); /* the second COMMIT */
    assert_int_equal(guest(f)->run_epoch, 5);
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_kill, 4)), "INTERNAL_ERROR");
}

static void a_guest_that_ends_while_it_is_sent_ends_the_move(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    start(f, 3);
    id = send_begun(f, 3, "m1");
    fake_guest_changes(&f->fake, vm1, GUEST_SHUT_DOWN);
    fake_send_end(&f->fake, vm1, -ERR_VM_BAD_POWER_STATE);
    run(f);
    assert_string_equal(code_of(f, id), "VM_BAD_POWER_STATE");
    assert_string_equal(last_of(f, WIRE_NOTE)->name, "guest");
}

static void an_unreachable_destination_is_an_error(void **state)
{
    struct fixture *f = *state;
    int port, listening = listen_as_destination(&port);
    ref_t id;

    close(listening);
    start(f, 3);
    id = send_to(f, 3, "m1", port);
    UNTIL(f, of_id(f, WIRE_REPLY, id));
    assert_string_equal(code_of(f, id), "VM_MIGRATE_FAILED");
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_copy_runs_only_by_the_masters_word),
        TEST(a_copy_that_is_lost_meanwhile_never_ran),
        TEST(unpause_waits_for_the_copy),
        TEST(an_aborted_copy_never_runs),
        TEST(a_wrong_token_gets_nothing),
        TEST(a_copy_survives_its_agent),
        TEST(a_sent_guest_comes_back_only_by_the_masters_word),
        TEST(a_sent_guest_that_was_left_behind_never_runs),
        TEST(a_guest_that_was_about_to_run_on_is_still_that_moves),
        TEST(the_promise_is_kept_by_the_next_agent),
        TEST(a_send_can_be_called_off_while_it_runs),
        TEST(the_source_gets_it_back_with_a_higher_right),
        TEST(a_guest_that_ends_while_it_is_sent_ends_the_move),
        TEST(an_unreachable_destination_is_an_error),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
