/* test_agent.c - an agent between a scripted master and guests in a table, under a clock of the test's own
 *
 * Every test may restart the agent (kill -9: its fibers are abandoned, the ledger keeps what was synced, guests go on) and
 * then looks at what really ran, from the guests' side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/buffer.h"
#include "shared/crash.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/random.h"
#include "shared/wire.h"
#include "shared/workers.h"
#include "slave/accounts.h"
#include "slave/agent.h"
#include "slave/ledger.h"
#include "slave/standing.h"
#include "slave/vms.h"
#include "tests/unit/fake_hypervisor.h"

#define FRAMES_MAX 400

static const ref_t host = {7, 7}, alice = {3, 1}, bob = {3, 2};
static const ref_t vm1 = {0x6a7f1f4c00004000, 0x8000000000000001};
#define VM1_TEXT "6a7f1f4c-0000-4000-8000-000000000001"
static const char vm1_text[] = VM1_TEXT;

struct fixture {
    struct fake_clock clock;
    struct seeded_random random;
    struct loop *loop;
    struct workers *workers;
    struct ledger_disk disk;
    struct ledger *ledger;
    struct fake_hypervisor fake;
    struct link_transport transport;
    struct standing *standing;
    struct agent *agent;
    char master_key[LINK_KEY_BYTES];

    /* the master */
    struct arena *arena;
    struct wire_frame got[FRAMES_MAX];   /* from the agent, oldest first */
    int got_count;
    uint64_t link, sent;                 /* of the link that it has welcomed */
    uint64_t epoch;
    ref_t holder;
    bool is_silent;                      /* does not welcome */
    uint64_t last_id;
};

static bool fake_transport_send(struct link_transport *transport, const char *key, const void *bytes, size_t count)
{
    struct fixture *f = CONTAINER_OF(transport, struct fixture, transport);

    assert_string_equal(key, f->master_key);
    assert_true(f->got_count < FRAMES_MAX);
    assert_int_equal(wire_decode(bytes, count, f->arena, &f->got[f->got_count]), 0);
    f->got_count++;
    return true;
}

static void fake_transport_connect(struct link_transport *transport, const char *endpoint, const char *key)
{
    struct fixture *f = CONTAINER_OF(transport, struct fixture, transport);

    (void) endpoint;
    snprintf(f->master_key, sizeof f->master_key, "%s", key ? key : "");
}

/* What the master says; on the present link, in turn, unless the frame says otherwise. */
static void say_raw(struct fixture *f, struct wire_frame *frame)
{
    struct link_receiver *receiver = &f->transport.receiver;
    struct buffer bytes;

    buffer_init(&bytes, LINK_FRAME_BYTES_MAX);
    wire_encode(frame, &bytes);
    receiver->frame(receiver->arg, f->master_key, bytes.bytes, bytes.length);
    buffer_done(&bytes);
}

static void say(struct fixture *f, struct wire_frame frame)
{
    frame.link = f->link;
    frame.seq = ++f->sent;
    frame.epoch = f->epoch;
    frame.holder = f->holder;
    say_raw(f, &frame);
}

static void run(struct fixture *f)
{
    while (loop_step(f->loop))
        ;
}

static void pass_ms(struct fixture *f, uint64_t ms)
{
    for (uint64_t i = 0; i < ms; i += 50) {
        fake_clock_advance_ms(&f->clock, 50);
        run(f);
    }
}

static struct wire_frame *last_of(struct fixture *f, enum wire_type type)
{
    for (int i = f->got_count - 1; i >= 0; i--)
        if (f->got[i].type == type)
            return &f->got[i];
    return NULL;
}

static struct wire_frame *of_id(struct fixture *f, enum wire_type type, ref_t id)
{
    for (int i = f->got_count - 1; i >= 0; i--)
        if (f->got[i].type == type && ref_equal(f->got[i].id, id))
            return &f->got[i];
    return NULL;
}

static int count_of(struct fixture *f, enum wire_type type)
{
    int count = 0;

    for (int i = 0; i < f->got_count; i++)
        count += f->got[i].type == type;
    return count;
}

static void welcome(struct fixture *f)
{
    struct wire_frame frame = {
        .type = WIRE_WELCOME, .link = last_of(f, WIRE_HELLO)->link, .epoch = f->epoch, .holder = f->holder,
        .host = host, .address = "192.0.2.1"};

    f->link = frame.link;
    f->sent = 0;
    say_raw(f, &frame);
    run(f);
}

static void agent_up(struct fixture *f)
{
    struct agent_config config = {.address = "127.0.0.1",
                                  .name = "h",
                                  .memory_bytes = 1 << 30,
                                  .cpus = 2,
                                  .is_simulated = true,
                                  .standing = f->standing,
                                  .http_socket = "/run/slave.sock",
                                  .master_endpoint = "tcp://m",
                                  .master_key = "the-master"};
    int error;

    f->loop = loop_new(&f->clock.clock);
    f->workers = workers_new(0, 0, "test");
    fake_attach(&f->fake, f->loop);
    f->ledger = ledger_new(f->loop, ledger_memory_open(&f->disk, f->loop), &error);
    f->transport = (struct link_transport){.send = fake_transport_send, .connect = fake_transport_connect};
    f->agent = agent_new(&config, f->loop, &f->random.random, f->workers, f->ledger, &f->fake.hypervisor, &f->transport,
                         NULL);
    agent_start(f->agent);
    run(f);
    pass_ms(f, 50);
    if (!f->is_silent && last_of(f, WIRE_HELLO))
        welcome(f);
}

/* As kill -9 would: nothing is unwound. */
static void agent_down(struct fixture *f)
{
    if (!f->agent)
        return;
    loop_abandon(f->loop);
    agent_destroy(&f->agent);
    ledger_destroy(&f->ledger);
    loop_destroy(&f->loop);
    workers_destroy(&f->workers);
}

static void agent_restart(struct fixture *f)
{
    agent_down(f);
    agent_up(f);
}

struct first_start {
    struct fixture *f;
    struct ledger *ledger;
};

static void first_start_main(void *arg)
{
    struct first_start *first = arg;
    char secret[LINK_KEY_BYTES];

    agent_identity(first->ledger, &first->f->random.random, host, secret);
}

static int begin(void **state)
{
    struct fixture *f = new0(struct fixture);
    struct first_start first = {.f = f};
    struct loop *loop;
    int error;

    model_init();
    fake_clock_init(&f->clock, 1000, 1700000000);
    seeded_random_init(&f->random, 1);
    f->arena = arena_new();
    f->epoch = 5;
    f->holder = alice;
    f->standing = standing_new();
    loop = loop_new(&f->clock.clock);
    first.ledger = ledger_new(loop, ledger_memory_open(&f->disk, loop), &error);
    fiber_spawn(loop, first_start_main, &first, "first");
    while (loop_step(loop))
        ;
    ledger_destroy(&first.ledger);
    loop_destroy(&loop);
    agent_up(f);
    *state = f;
    return 0;
}

static int end(void **state)
{
    struct fixture *f = *state;

    agent_down(f);
    fake_attach(&f->fake, NULL);
    fake_done(&f->fake);
    ledger_disk_done(&f->disk);
    standing_destroy(&f->standing);
    arena_destroy(&f->arena);
    crash_disarm();
    free(f);
    return 0;
}

/* ---- calls ---- */

static ref_t new_id(struct fixture *f)
{
    return (ref_t){9, ++f->last_id};
}

static void call_as(struct fixture *f, ref_t id, int number, const void *args)
{
    const struct slave_call *row = slave_call_row(number);

    say(f, (struct wire_frame){.type = WIRE_CALL,
                               .id = id,
                               .name = row->name,
                               .deadline_ms = row->deadline_ms,
                               .body = slave_call_pack(row, args, f->arena)});
    run(f);
}

static ref_t call(struct fixture *f, int number, const void *args)
{
    ref_t id = new_id(f);

    call_as(f, id, number, args);
    return id;
}

static struct value no_disks = {.kind = KIND_SET}, no_options = {.kind = KIND_MAP};

static ref_t start(struct fixture *f, int64_t epoch)
{
    struct slave_vm_start_args args = {
        .vm = vm1_text, .epoch = epoch, .config = &no_options, .disks = &no_disks, .nics = &no_disks};

    return call(f, SLAVE_CALL_vm_start, &args);
}

static ref_t simple(struct fixture *f, int number, int64_t epoch)
{
    struct slave_vm_kill_args args = {.vm = vm1_text, .epoch = epoch}; /* pause, unpause, kill, forget are alike */

    return call(f, number, &args);
}

static const char *code_of(struct fixture *f, ref_t id)
{
    struct wire_frame *reply = of_id(f, WIRE_REPLY, id);

    return !reply ? "no reply" : reply->code ? reply->code : "";
}

static const char *state_of(struct fixture *f, ref_t id)
{
    struct wire_frame *reply = of_id(f, WIRE_REPLY, id);

    assert_non_null(reply);
    assert_null(reply->code);
    return value_map_text(&reply->body, "state", "");
}

static struct fake_guest *guest(struct fixture *f)
{
    struct fake_guest *found = fake_find(&f->fake, vm1);

    assert_non_null(found);
    return found;
}

static void ask(struct fixture *f, ref_t id)
{
    say(f, (struct wire_frame){.type = WIRE_ASK, .id = id});
    run(f);
}

static const char *answer_of(struct fixture *f, ref_t id)
{
    struct wire_frame *answer = of_id(f, WIRE_ANSWER, id);

    return answer ? answer->state : "no answer";
}

/* ---- hello and link ---- */

static void hello_says_who_and_what_runs(void **state)
{
    struct fixture *f = *state;
    struct wire_frame *hello = last_of(f, WIRE_HELLO);
    const struct value *item;

    assert_true(ref_equal(hello->host, host));
    assert_int_equal(hello->guests.length, 0);
    assert_true(agent_is_linked(f->agent));
    start(f, 3);
    f->got_count = 0;
    agent_restart(f);
    hello = last_of(f, WIRE_HELLO);
    assert_int_equal(hello->epoch, 5);
    assert_true(ref_equal(hello->holder, alice));
    assert_int_equal(hello->guests.length, 1);
    item = &hello->guests.items[0];
    assert_string_equal(value_map_text(item, "state", ""), "running");
    assert_string_equal(value_map_text(item, "progress", ""), "ran");
    assert_int_equal(value_map_find(item, "epoch")->i, 3);
    assert_string_equal(value_map_text(&hello->about, "memory_bytes", ""), "1073741824");
}

static void clients_are_told_whose_slave_it_is(void **state)
{
    struct fixture *f = *state;
    struct standing_now now;

    standing_get(f->standing, &now);
    assert_int_equal(now.kind, STANDING_SLAVE);
    assert_string_equal(now.master_address, "192.0.2.1");
    assert_true(now.is_linked);
    pass_ms(f, 6000); /* nothing is heard of the master */
    standing_get(f->standing, &now);
    assert_int_equal(now.kind, STANDING_SLAVE);
    assert_false(now.is_linked);
    welcome(f);
    standing_get(f->standing, &now);
    assert_true(now.is_linked);
    agent_down(f);
    standing_destroy(&f->standing);
    f->standing = standing_new();
    f->is_silent = true;
    agent_up(f); /* that it had a master is not enough: this one may be another's by now */
    standing_get(f->standing, &now);
    assert_int_equal(now.kind, STANDING_BOOTING);
}

/* As the master tells them, with the directory; kept for the next agent, which may find no master. */
static void accounts_are_kept(void **state)
{
    struct fixture *f = *state;
    struct value items[] = {value_text("root"), value_text("$y$hash")};
    struct wire_frame frame = {.type = WIRE_DIRECTORY, .body = VALUE_EMPTY_MAP};
    uint64_t syncs;

    say(f, frame); /* of an older master, which tells none */
    run(f);
    assert_null(accounts_hash(f->ledger, "root", f->arena));
    frame.accounts = VALUE_MAP(1, items);
    syncs = f->disk.syncs;
    say(f, frame);
    run(f);
    assert_string_equal(accounts_hash(f->ledger, "root", f->arena), "$y$hash");
    assert_true(f->disk.syncs > syncs); /* at once, without any operation */
    frame.accounts = (struct value){0}; /* not told: as they were */
    say(f, frame);
    run(f);
    f->is_silent = true;
    agent_restart(f);
    assert_string_equal(accounts_hash(f->ledger, "root", f->arena), "$y$hash");
}

static void a_link_can_be_made_anew(void **state)
{
    struct fixture *f = *state;
    uint64_t old = f->link;

    agent_link_renew(f->agent);
    run(f);
    assert_false(agent_is_linked(f->agent));
    assert_true(last_of(f, WIRE_HELLO)->link > old);
    welcome(f);
    assert_true(agent_is_linked(f->agent));
}

/* The master is left: nothing is said to it any more, and what still comes from it is not heard. */
static void a_master_can_be_left(void **state)
{
    struct fixture *f = *state;
    struct standing_now now;
    int hellos;

    agent_link_leave(f->agent);
    standing_put_booting(f->standing);
    hellos = count_of(f, WIRE_HELLO);
    assert_false(agent_is_linked(f->agent));
    assert_string_equal(f->master_key, ""); /* connected to nobody */
    snprintf(f->master_key, sizeof f->master_key, "the-master");
    say(f, (struct wire_frame){.type = WIRE_BEAT});
    pass_ms(f, 20000);
    agent_link_renew(f->agent);
    pass_ms(f, 1000);
    assert_int_equal(count_of(f, WIRE_HELLO), hellos);
    standing_get(f->standing, &now);
    assert_int_equal(now.kind, STANDING_BOOTING);
    agent_link_to(f->agent, "tcp://m", "the-master");
    run(f);
    welcome(f);
    assert_true(agent_is_linked(f->agent));
}

static void hello_waits_until_the_driver_can_tell(void **state)
{
    struct fixture *f = *state;

    agent_down(f);
    f->got_count = 0;
    f->fake.is_blind = true;
    agent_up(f);
    pass_ms(f, 2000);
    assert_int_equal(f->got_count, 0);
    f->fake.is_blind = false;
    pass_ms(f, 500);
    assert_non_null(last_of(f, WIRE_HELLO));
}

static void frames_of_older_links_and_doubled_frames_are_dropped(void **state)
{
    struct fixture *f = *state;
    uint64_t old = f->link;
    struct slave_vm_kill_args args = {.vm = vm1_text, .epoch = 3};
    struct wire_frame frame = {.type = WIRE_CALL,
                               .id = {9, 99},
                               .name = "vm_pause",
                               .deadline_ms = 1000,
                               .epoch = f->epoch,
                               .holder = f->holder,
                               .body = slave_call_pack(slave_call_row(SLAVE_CALL_vm_pause), &args, f->arena)};
    ref_t id;

    start(f, 3);
    f->transport.receiver.down(f->transport.receiver.arg, f->master_key, "test");
    pass_ms(f, 300);
    welcome(f);
    assert_true(f->link > old);
    frame.link = old;
    frame.seq = 2;
    say_raw(f, &frame);
    run(f);
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    assert_string_equal(code_of(f, frame.id), "no reply");

    id = simple(f, SLAVE_CALL_vm_pause, 3);
    assert_string_equal(state_of(f, id), "paused");
    simple(f, SLAVE_CALL_vm_unpause, 3);
    frame.link = f->link;
    frame.seq = 1; /* the pause once more */
    say_raw(f, &frame);
    run(f);
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    assert_true(agent_is_linked(f->agent));
}

static void a_gap_ends_the_link(void **state)
{
    struct fixture *f = *state;
    int hellos = count_of(f, WIRE_HELLO);

    f->sent++; /* one was lost */
    say(f, (struct wire_frame){.type = WIRE_BEAT});
    run(f);
    pass_ms(f, 100);
    assert_false(agent_is_linked(f->agent));
    assert_true(count_of(f, WIRE_HELLO) > hellos);
    welcome(f);
    assert_true(agent_is_linked(f->agent));
}

static void beats_go_each_second_and_silence_ends_the_link(void **state)
{
    struct fixture *f = *state;
    int beats = count_of(f, WIRE_BEAT);

    for (int i = 0; i < 10; i++) {
        pass_ms(f, 1000);
        say(f, (struct wire_frame){.type = WIRE_BEAT});
    }
    assert_in_range(count_of(f, WIRE_BEAT) - beats, 9, 11);
    assert_true(agent_is_linked(f->agent));
    pass_ms(f, 6500);
    assert_false(agent_is_linked(f->agent));
}

static void lower_epochs_and_second_holders_are_refused(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    f->epoch = 4;
    id = start(f, 3);
    assert_string_equal(code_of(f, id), "no reply");
    assert_non_null(last_of(f, WIRE_REFUSE));
    assert_int_equal(last_of(f, WIRE_REFUSE)->epoch, 5);
    assert_null(fake_find(&f->fake, vm1));
    f->epoch = 5;
    f->holder = bob;
    f->sent = 0;
    id = start(f, 3);
    assert_string_equal(code_of(f, id), "no reply");
    assert_null(fake_find(&f->fake, vm1));
    /* a higher epoch is followed, for ever */
    f->epoch = 6;
    f->sent = 0;
    id = start(f, 3);
    assert_string_equal(state_of(f, id), "running");
    agent_restart(f);
    assert_int_equal(last_of(f, WIRE_HELLO)->epoch, 6);
    f->epoch = 5;
    f->holder = alice;
    f->got_count = 1;
    f->got[0] = *last_of(f, WIRE_HELLO);
    agent_down(f);
    f->got_count = 0;
    agent_up(f);
    assert_false(agent_is_linked(f->agent));
    assert_non_null(last_of(f, WIRE_REFUSE));
}

/* ---- operations ---- */

static void a_start_happens_once(void **state)
{
    struct fixture *f = *state;
    ref_t id = start(f, 3);
    struct slave_vm_start_args args = {
        .vm = vm1_text, .epoch = 3, .config = &no_options, .disks = &no_disks, .nics = &no_disks};

    assert_string_equal(state_of(f, id), "running");
    f->got_count = 0;
    call_as(f, id, SLAVE_CALL_vm_start, &args); /* the same operation: the same reply */
    assert_string_equal(state_of(f, id), "running");
    id = start(f, 3); /* another one, the same right */
    assert_string_equal(state_of(f, id), "running");
    assert_int_equal(guest(f)->starts, 1);
    assert_int_equal(guest(f)->runs, 1);

    fake_guest_changes(&f->fake, vm1, GUEST_SHUT_DOWN);
    run(f);
    id = start(f, 3); /* ended since: that is the answer */
    assert_string_equal(state_of(f, id), "ended");
    assert_int_equal(guest(f)->starts, 1);
    id = start(f, 2);
    assert_string_equal(code_of(f, id), "INTERNAL_ERROR");
    id = start(f, 4); /* a new right */
    assert_string_equal(state_of(f, id), "running");
    assert_int_equal(guest(f)->starts, 2);
}

static void a_result_is_kept_until_it_is_confirmed(void **state)
{
    struct fixture *f = *state;
    ref_t id = start(f, 3);
    struct value item = VALUE_REF(id);

    agent_restart(f);
    ask(f, id);
    assert_string_equal(answer_of(f, id), "done");
    assert_string_equal(value_map_text(&of_id(f, WIRE_ANSWER, id)->body, "state", ""), "running");
    assert_int_equal(last_of(f, WIRE_HELLO)->operations.length, 1);
    say(f, (struct wire_frame){.type = WIRE_CONFIRM, .operations = VALUE_SET(1, &item)});
    run(f);
    assert_int_equal(ledger_op_count(f->ledger), 0);
}

static void what_was_asked_before_it_came_never_happens(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_start_args args = {
        .vm = vm1_text, .epoch = 3, .config = &no_options, .disks = &no_disks, .nics = &no_disks};
    ref_t id = new_id(f);

    ask(f, id);
    assert_string_equal(answer_of(f, id), "never");
    call_as(f, id, SLAVE_CALL_vm_start, &args);
    assert_string_equal(code_of(f, id), "INTERNAL_ERROR");
    agent_restart(f);
    call_as(f, id, SLAVE_CALL_vm_start, &args);
    assert_null(fake_find(&f->fake, vm1));
    ask(f, id);
    assert_string_equal(answer_of(f, id), "never");
}

static void never_is_said_only_when_it_is_in_the_file(void **state)
{
    struct fixture *f = *state;
    ref_t id = new_id(f);

    f->disk.sync_ms = 200;
    ask(f, id);
    pass_ms(f, 100);
    assert_string_equal(answer_of(f, id), "no answer");
    pass_ms(f, 200);
    assert_string_equal(answer_of(f, id), "never");
}

static void an_effect_waits_until_its_id_is_in_the_file(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    f->disk.sync_ms = 200;
    id = start(f, 3);
    pass_ms(f, 100);
    assert_null(fake_find(&f->fake, vm1));
    ask(f, id);
    assert_string_equal(answer_of(f, id), "pending");
    f->disk.sync_ms = 0;
    agent_restart(f); /* nothing had been written: it never happened */
    ask(f, id);
    assert_string_equal(answer_of(f, id), "never");
    assert_null(fake_find(&f->fake, vm1));
}

static void an_interrupted_start_is_finished_when_repeated(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_start_args args = {
        .vm = vm1_text, .epoch = 3, .config = &no_options, .disks = &no_disks, .nics = &no_disks};
    ref_t id = new_id(f);

    f->fake.is_holding = true; /* the guest is made, its agent does not hear of it */
    call_as(f, id, SLAVE_CALL_vm_start, &args);
    pass_ms(f, 100);
    assert_int_equal(guest(f)->starts, 1);
    f->fake.is_holding = false;
    agent_restart(f);
    ask(f, id);
    assert_string_equal(answer_of(f, id), "interrupted");
    call_as(f, id, SLAVE_CALL_vm_start, &args);
    assert_string_equal(state_of(f, id), "running");
    assert_int_equal(guest(f)->starts, 1);
    assert_int_equal(guest(f)->runs, 1);
}

static void a_start_that_fails_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    f->fake.fail_next = -ERR_BOOTLOADER_FAILED;
    id = start(f, 3);
    assert_string_equal(code_of(f, id), "BOOTLOADER_FAILED");
    assert_int_equal(of_id(f, WIRE_REPLY, id)->params.length, 2);
    assert_string_equal(of_id(f, WIRE_REPLY, id)->params.items[0].text, vm1_text);
    id = start(f, 3);
    assert_string_equal(state_of(f, id), "ended");
    id = start(f, 4);
    assert_string_equal(state_of(f, id), "running");
}

static void replies_are_lost_at_named_points(void **state)
{
    struct fixture *f = *state;
    ref_t id;

    assert_true(crash_arm("slave.vm_start.reply.before:drop-reply"));
    id = start(f, 3);
    assert_string_equal(code_of(f, id), "no reply");
    pass_ms(f, 1000);
    assert_int_equal(last_of(f, WIRE_BEAT)->seq, 2); /* by which the master notices */
    ask(f, id);
    assert_string_equal(answer_of(f, id), "done");
    assert_true(crash_arm("slave.vm_pause.call.before:drop-reply"));
    id = simple(f, SLAVE_CALL_vm_pause, 3);
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    say(f, (struct wire_frame){.type = WIRE_BEAT}); /* by which the agent notices */
    pass_ms(f, 100);
    assert_false(agent_is_linked(f->agent));
    welcome(f);
    ask(f, id);
    assert_string_equal(answer_of(f, id), "never");
}

static void bad_calls_are_answered(void **state)
{
    struct fixture *f = *state;
    ref_t id = new_id(f);
    struct slave_vm_kill_args args = {.vm = "no uuid", .epoch = 3};
    struct value map = VALUE_EMPTY_MAP;

    say(f, (struct wire_frame){.type = WIRE_CALL, .id = id, .name = "vm_dance", .deadline_ms = 1, .body = map});
    run(f);
    assert_string_equal(code_of(f, id), "INTERNAL_ERROR");
    id = new_id(f);
    say(f, (struct wire_frame){.type = WIRE_CALL, .id = id, .name = "vm_kill", .deadline_ms = 1, .body = map});
    run(f);
    assert_string_equal(code_of(f, id), "FIELD_TYPE_ERROR");
    id = call(f, SLAVE_CALL_vm_kill, &args);
    assert_string_equal(code_of(f, id), "UUID_INVALID");
    f->transport.receiver.frame(f->transport.receiver.arg, f->master_key, "garbage", 7);
    f->transport.receiver.frame(f->transport.receiver.arg, "somebody else", "\x80", 1);
    assert_true(agent_is_linked(f->agent));
}

/* ---- life of guests ---- */

static void pause_unpause_kill_and_forget(void **state)
{
    struct fixture *f = *state;

    start(f, 3);
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_pause, 3)), "paused");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_unpause, 3)), "running");
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_forget, 3)), "VM_BAD_POWER_STATE");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_kill, 3)), "ended");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_kill, 3)), "ended");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_unpause, 3)), "ended");
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_pause, 3)), "VM_BAD_POWER_STATE");
    assert_string_equal(state_of(f, simple(f, SLAVE_CALL_vm_forget, 3)), "ended");
    assert_int_equal(count_of(f, WIRE_NOTE), 0); /* what the master did itself it need not be told */
}

static void a_shutdown_is_answered_when_the_guest_has_ended(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_shutdown_args args = {.vm = vm1_text, .epoch = 3, .timeout_s = 60};
    struct wire_frame *note;
    ref_t id, again;

    start(f, 3);
    id = call(f, SLAVE_CALL_vm_shutdown, &args);
    pass_ms(f, 2000);
    assert_string_equal(code_of(f, id), "no reply");
    fake_guest_changes(&f->fake, vm1, GUEST_SHUT_DOWN);
    run(f);
    assert_string_equal(state_of(f, id), "ended");
    assert_int_equal(count_of(f, WIRE_NOTE), 1); /* who asked for it may no longer wait */
    note = last_of(f, WIRE_NOTE);
    assert_string_equal(value_map_text(&note->body, "change", ""), "shut_down");
    assert_int_equal(value_map_find(&note->body, "domid")->i, guest(f)->found.domid);

    start(f, 4);
    args.epoch = 4;
    args.timeout_s = 2;
    again = call(f, SLAVE_CALL_vm_shutdown, &args);
    pass_ms(f, 3000);
    assert_string_equal(code_of(f, again), "VM_SHUTDOWN_TIMEOUT");
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
}

static void a_kill_ends_what_waits(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_shutdown_args args = {.vm = vm1_text, .epoch = 3, .timeout_s = 600};
    ref_t shutdown, kill;

    start(f, 3);
    shutdown = call(f, SLAVE_CALL_vm_shutdown, &args);
    kill = simple(f, SLAVE_CALL_vm_kill, 3);
    run(f);
    assert_string_equal(state_of(f, kill), "ended");
    assert_string_equal(state_of(f, shutdown), "ended");
}

static void a_reboot_happens_once(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_reboot_args args = {.vm = vm1_text,
                                        .epoch = 3,
                                        .config = &no_options,
                                        .disks = &no_disks,
                                        .nics = &no_disks,
                                        .is_hard = true,
                                        .timeout_s = 60};
    ref_t id;

    start(f, 3);
    f->fake.is_holding = false;
    id = call(f, SLAVE_CALL_vm_reboot, &args);
    assert_string_equal(state_of(f, id), "running");
    assert_int_equal(guest(f)->starts, 2);

    id = new_id(f);
    assert_true(crash_arm("slave.vm_reboot.effect:drop-reply"));
    f->disk.sync_ms = 0;
    call_as(f, id, SLAVE_CALL_vm_reboot, &args);
    assert_int_equal(guest(f)->starts, 3);
    agent_restart(f);
    call_as(f, id, SLAVE_CALL_vm_reboot, &args);
    assert_string_equal(state_of(f, id), "running");
    assert_int_equal(guest(f)->starts, 3);
}

static void a_kill_ends_a_reboot_that_waits(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_reboot_args args = {
        .vm = vm1_text, .epoch = 3, .config = &no_options, .disks = &no_disks, .nics = &no_disks, .timeout_s = 600};
    ref_t reboot, kill;

    start(f, 3);
    reboot = call(f, SLAVE_CALL_vm_reboot, &args);
    kill = simple(f, SLAVE_CALL_vm_kill, 3);
    run(f);
    assert_string_equal(state_of(f, kill), "ended");
    assert_string_equal(code_of(f, reboot), "VM_BAD_POWER_STATE");
    assert_int_equal(guest(f)->starts, 1);
}

static ref_t reboot(struct fixture *f, bool is_hard)
{
    struct slave_vm_reboot_args args = {.vm = vm1_text,
                                        .epoch = 3,
                                        .config = &no_options,
                                        .disks = &no_disks,
                                        .nics = &no_disks,
                                        .is_hard = is_hard,
                                        .timeout_s = 600};

    return call(f, SLAVE_CALL_vm_reboot, &args);
}

/* Those that wait had asked another guest, which is gone. */
static void a_hard_reboot_is_not_undone_by_what_it_overtook(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_shutdown_args args = {.vm = vm1_text, .epoch = 3, .timeout_s = 600};
    ref_t clean, shutdown, hard;
    struct wire_frame *note;

    start(f, 3);
    clean = reboot(f, false);
    shutdown = call(f, SLAVE_CALL_vm_shutdown, &args);
    hard = reboot(f, true);
    pass_ms(f, 1000);
    assert_string_equal(state_of(f, hard), "running");
    assert_string_equal(code_of(f, clean), "TASK_CANCELLED");
    assert_string_equal(code_of(f, shutdown), "TASK_CANCELLED");
    assert_int_equal(guest(f)->starts, 2);
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);

    fake_guest_changes(&f->fake, vm1, GUEST_CRASHED); /* the new one: nobody waits for it */
    run(f);
    note = last_of(f, WIRE_NOTE);
    assert_non_null(note);
    assert_string_equal(value_map_text(&note->body, "change", ""), "crashed");
}

static void a_reboot_that_fails_half_way_is_told(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_reboot_args args = {.vm = vm1_text,
                                        .epoch = 3,
                                        .config = &no_options,
                                        .disks = &no_disks,
                                        .nics = &no_disks,
                                        .is_hard = true,
                                        .timeout_s = 60};
    struct wire_frame *note;
    ref_t id;

    start(f, 3);
    f->fake.fail_next = -ERR_BOOTLOADER_FAILED;
    id = call(f, SLAVE_CALL_vm_reboot, &args);
    run(f);
    assert_string_equal(code_of(f, id), "BOOTLOADER_FAILED");
    note = last_of(f, WIRE_NOTE);
    assert_non_null(note);
    assert_string_equal(note->name, "guest");
    assert_int_equal(note->vm_epoch, 3);
}

static void a_late_abort_leaves_a_running_guest_its_right(void **state)
{
    struct fixture *f = *state;
    struct slave_vm_receive_abort_args abort = {.vm = vm1_text, .epoch = 4, .move = "move"};
    ref_t id;

    start(f, 3);
    id = call(f, SLAVE_CALL_vm_receive_abort, &abort);
    run(f);
    assert_string_equal(state_of(f, id), "running");
    id = simple(f, SLAVE_CALL_vm_pause, 3);
    run(f);
    assert_string_equal(state_of(f, id), "paused");
}

static void a_guest_that_ends_by_itself_is_told_until_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct wire_frame *note;
    uint64_t number;

    start(f, 3);
    fake_guest_changes(&f->fake, vm1, GUEST_CRASHED);
    run(f);
    note = last_of(f, WIRE_NOTE);
    assert_non_null(note);
    assert_string_equal(note->name, "guest");
    assert_true(ref_equal(note->vm, vm1));
    assert_int_equal(note->vm_epoch, 3);
    assert_string_equal(value_map_text(&note->body, "change", ""), "crashed");
    number = note->number;

    f->got_count = 0;
    f->transport.receiver.down(f->transport.receiver.arg, f->master_key, "test");
    pass_ms(f, 300);
    welcome(f);
    note = last_of(f, WIRE_NOTE);
    assert_non_null(note);
    assert_int_equal(note->number, number);
    say(f, (struct wire_frame){.type = WIRE_ACK, .number = number});
    f->got_count = 0;
    f->transport.receiver.down(f->transport.receiver.arg, f->master_key, "test");
    pass_ms(f, 300);
    welcome(f);
    assert_null(last_of(f, WIRE_NOTE));
}

static void samples_replace_one_another(void **state)
{
    struct fixture *f = *state;
    struct wire_frame *note;

    start(f, 3);
    f->transport.receiver.down(f->transport.receiver.arg, f->master_key, "test");
    pass_ms(f, 20000);
    f->got_count = 0;
    f->agent->config.master_dead_ms = 100000;
    pass_ms(f, 2100);
    welcome(f);
    assert_int_equal(count_of(f, WIRE_NOTE), 1);
    note = last_of(f, WIRE_NOTE);
    assert_string_equal(note->name, "samples");
    assert_int_equal(value_map_find(&note->body, "memory_total")->i, 1 << 30);
    assert_int_equal(value_map_find(&note->body, "memory_free")->i, (1 << 30) - (1 << 20));
    assert_int_equal(value_map_find(&note->body, "guests")->length, 1);
}

/* ---- moves ---- */

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

/* ---- disks ---- */

static void a_higher_owner_record_keeps_the_disk_shut(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/drover-agent-XXXXXX", path[128], text[128] = "", command[128];
    struct value disk[8], disks, map;
    struct slave_vm_start_args args = {.vm = vm1_text, .epoch = 3, .config = &no_options, .nics = &no_disks};
    FILE *file;
    ref_t id;

    assert_non_null(mkdtemp(dir));
    disk[0] = value_text("sr_location");
    disk[1] = value_text(dir);
    disk[2] = value_text("location");
    disk[3] = value_text("a.raw");
    map = VALUE_MAP(2, disk);
    disks = VALUE_SET(1, &map);
    args.disks = &disks;
    id = call(f, SLAVE_CALL_vm_start, &args);
    assert_string_equal(state_of(f, id), "running");
    snprintf(path, sizeof path, "%s/a.raw.owner", dir);
    file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    assert_string_equal(text, "3 00000000-0000-0007-0000-000000000007 " VM1_TEXT "\n");
    fclose(file);

    simple(f, SLAVE_CALL_vm_kill, 3);
    file = fopen(path, "w");
    fputs("9 somebody\n", file);
    fclose(file);
    args.epoch = 4;
    id = call(f, SLAVE_CALL_vm_start, &args);
    assert_string_equal(code_of(f, id), "VDI_IN_USE");
    assert_int_equal(guest(f)->starts, 1);
    args.epoch = 10;
    id = call(f, SLAVE_CALL_vm_start, &args);
    assert_string_equal(state_of(f, id), "running");

    disk[3] = value_text("../a.raw");
    args.epoch = 11;
    id = call(f, SLAVE_CALL_vm_start, &args);
    assert_string_equal(code_of(f, id), "VDI_LOCATION_MISSING");
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

static void put_owner(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* Memory fits to what the disks were when it was saved; a resume that failed has not changed them, and one that ran has. */
static void memory_that_is_older_than_its_disks_is_not_resumed(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/drover-agent-XXXXXX", path[128], command[128];
    struct value disk[] = {value_text("sr_location"), value_text(dir), value_text("location"), value_text("a.raw")};
    struct value memory[] = {value_text("sr_location"), value_text(dir), value_text("location"), value_text("image")};
    struct value map = VALUE_MAP(2, disk), disks = VALUE_SET(1, &map), image = VALUE_MAP(2, memory);
    struct slave_vm_resume_args args = {.vm = vm1_text,
                                        .epoch = 20,
                                        .config = &no_options,
                                        .disks = &disks,
                                        .nics = &no_disks,
                                        .image = &image,
                                        .image_epoch = 3};

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.raw.owner", dir);
    put_owner(path, "3 somebody\n");
    f->fake.fail_next = -ERR_INTERNAL_ERROR;
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_resume, &args)), "INTERNAL_ERROR");
    put_owner(path, "9 somebody\n"); /* by another master's word */
    args.epoch = 21;
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_resume, &args)), "VDI_IN_USE");
    args.epoch = 22; /* a refusal changes nothing */
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_resume, &args)), "VDI_IN_USE");
    put_owner(path, "3 somebody\n");
    args.epoch = 23;
    f->fake.fail_next = -ERR_INTERNAL_ERROR;
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_resume, &args)), "INTERNAL_ERROR");
    put_owner(path, "2 somebody 00000000-0000-0002-0000-000000000002\n"); /* another VM has it, and has written */
    args.epoch = 24;
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_resume, &args)), "VDI_IN_USE");
    put_owner(path, "3 somebody\n");
    args.epoch = 25; /* nor does a failure */
    assert_string_equal(state_of(f, call(f, SLAVE_CALL_vm_resume, &args)), "running");
    simple(f, SLAVE_CALL_vm_kill, 25);
    args.epoch = 26;
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_resume, &args)), "VDI_IN_USE");
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

/* Two disks in a directory of their own, and a guest that has them. */
struct two_disks {
    char dir[32];
    struct value items[2][10], maps[2], disks;
};

static void two_disks_make(struct fixture *f, struct two_disks *two, const char *format)
{
    static const char *const keys[] = {"sr_location", "location", "source", "sr_type", "device"};
    struct slave_vm_start_args args = {.vm = vm1_text, .epoch = 3, .config = &no_options, .nics = &no_disks};

    strcpy(two->dir, "/tmp/drover-agent-XXXXXX");
    assert_non_null(mkdtemp(two->dir));
    for (int i = 0; i < 2; i++) {
        struct slave_disk_create_args create = {.format = format, .virtual_size = 1 << 20};
        struct value sr_items[] = {value_text("type"), value_text("file"), value_text("location"), value_text(two->dir)};
        struct value sr = VALUE_MAP(2, sr_items);

        for (int k = 0; k < 5; k++)
            two->items[i][2 * k] = value_text(keys[k]);
        two->items[i][1] = value_text(two->dir);
        two->items[i][3] = value_text(arena_text(f->arena, "%c.%s", 'a' + i, format));
        two->items[i][5] = two->items[i][3];
        two->items[i][7] = value_text("file");
        two->items[i][9] = value_text(i == 0 ? "0" : "1");
        two->maps[i] = VALUE_MAP(5, two->items[i]);
        create.sr = &sr;
        create.location = two->items[i][3].text;
        assert_string_equal(code_of(f, call(f, SLAVE_CALL_disk_create, &create)), "");
    }
    two->disks = VALUE_SET(2, two->maps);
    args.disks = &two->disks;
    assert_string_equal(state_of(f, call(f, SLAVE_CALL_vm_start, &args)), "running");
}

static void two_disks_end(struct two_disks *two)
{
    char command[64];

    snprintf(command, sizeof command, "rm -rf %s", two->dir);
    assert_int_equal(system(command), 0);
}

/* ---- devices that come and go ---- */

/* What stands beside a disk, without the newline; "" when nothing does. */
static const char *owner_of(struct fixture *f, const struct two_disks *two, const char *disk)
{
    char text[128] = "";
    FILE *file = fopen(arena_text(f->arena, "%s/%s.owner", two->dir, disk), "r");

    if (file && fgets(text, sizeof text, file))
        text[strcspn(text, "\n")] = '\0';
    if (file)
        fclose(file);
    return arena_strdup(f->arena, text);
}

/* The map of a disk c.raw in the same directory, as device "2". */
static struct value third_disk(struct fixture *f, const struct two_disks *two)
{
    struct value *items = arena_alloc_array(f->arena, 8, sizeof *items);

    items[0] = value_text("sr_location");
    items[1] = value_text(two->dir);
    items[2] = value_text("location");
    items[3] = value_text("c.raw");
    items[4] = value_text("device");
    items[5] = value_text("2");
    items[6] = value_text("sr_type");
    items[7] = value_text("file");
    return VALUE_MAP(4, items);
}

static ref_t plug(struct fixture *f, ref_t id, struct value *disk)
{
    struct slave_vbd_plug_args args = {.vm = vm1_text, .epoch = 3, .disk = disk};

    call_as(f, id, SLAVE_CALL_vbd_plug, &args);
    return id;
}

static ref_t unplug(struct fixture *f, ref_t id, const char *device)
{
    struct slave_vbd_unplug_args args = {.vm = vm1_text, .epoch = 3, .device = device};

    call_as(f, id, SLAVE_CALL_vbd_unplug, &args);
    return id;
}

static const char *told_of(struct fixture *f, const char *what)
{
    struct slave_vm_ask_args args = {.vm = vm1_text};
    ref_t id = call(f, SLAVE_CALL_vm_ask, &args);

    return value_map_text(&of_id(f, WIRE_REPLY, id)->body, what, "nothing");
}

static const char *owned_by_1 = "3 00000000-0000-0007-0000-000000000007 " VM1_TEXT;
static const char *given_back_by_1 = "3 00000000-0000-0007-0000-000000000007 " VM1_TEXT " free";

static void a_plugged_disk_is_owned_until_it_is_unplugged(void **state)
{
    struct fixture *f = *state;
    struct two_disks two;
    struct value disk;

    two_disks_make(f, &two, "raw");
    disk = third_disk(f, &two);
    assert_string_equal(told_of(f, "disks"), "0 a.raw\n1 b.raw\n");
    assert_string_equal(told_of(f, "nics"), "");
    assert_string_equal(state_of(f, plug(f, new_id(f), &disk)), "running");
    assert_string_equal(owner_of(f, &two, "c.raw"), owned_by_1);
    assert_string_equal(told_of(f, "disks"), "0 a.raw\n1 b.raw\n2 c.raw\n");
    assert_string_equal(state_of(f, plug(f, new_id(f), &disk)), "running"); /* again: it is there */

    agent_restart(f);
    assert_string_equal(told_of(f, "disks"), "0 a.raw\n1 b.raw\n2 c.raw\n");
    assert_non_null(strstr(ledger_vm(f->agent->ledger, vm1)->disks, "/c.raw\n"));

    /* A guest that does not let go keeps it, and the right to it. */
    f->fake.fail_next = -ERR_DEVICE_DETACH_REJECTED;
    assert_string_equal(code_of(f, unplug(f, new_id(f), "2")), "DEVICE_DETACH_REJECTED");
    assert_string_equal(owner_of(f, &two, "c.raw"), owned_by_1);
    assert_string_equal(state_of(f, unplug(f, new_id(f), "2")), "running");
    assert_string_equal(owner_of(f, &two, "c.raw"), given_back_by_1);
    assert_string_equal(owner_of(f, &two, "a.raw"), owned_by_1);
    assert_null(strstr(ledger_vm(f->agent->ledger, vm1)->disks, "/c.raw\n"));
    assert_string_equal(told_of(f, "disks"), "0 a.raw\n1 b.raw\n");

    /* One that could not be plugged is nobody's. */
    f->fake.fail_next = -ERR_INTERNAL_ERROR;
    assert_string_equal(code_of(f, plug(f, new_id(f), &disk)), "INTERNAL_ERROR");
    assert_string_equal(owner_of(f, &two, "c.raw"), given_back_by_1);
    two_disks_end(&two);
}

static void an_interrupted_plug_is_done_once(void **state)
{
    struct fixture *f = *state;
    struct two_disks two;
    struct value disk;
    ref_t id = new_id(f);

    two_disks_make(f, &two, "raw");
    disk = third_disk(f, &two);
    f->fake.is_holding = true; /* the guest has it, its agent does not hear of it */
    plug(f, id, &disk);
    pass_ms(f, 100);
    f->fake.is_holding = false;
    agent_restart(f);
    ask(f, id);
    assert_string_equal(answer_of(f, id), "interrupted");
    assert_string_equal(told_of(f, "disks"), "0 a.raw\n1 b.raw\n2 c.raw\n");
    assert_string_equal(state_of(f, plug(f, id, &disk)), "running");
    assert_int_equal(guest(f)->devices.disk_count, 3);

    id = new_id(f);
    f->fake.is_holding = true;
    unplug(f, id, "2");
    pass_ms(f, 100);
    f->fake.is_holding = false;
    agent_restart(f);
    assert_string_equal(owner_of(f, &two, "c.raw"), owned_by_1); /* nobody saw to it yet */
    assert_string_equal(state_of(f, unplug(f, id, "2")), "running");
    assert_string_equal(owner_of(f, &two, "c.raw"), given_back_by_1);
    two_disks_end(&two);
}

static void a_disk_that_was_given_back_is_free_for_another_vm(void **state)
{
    struct fixture *f = *state;
    struct two_disks two;
    struct slave_vm_start_args args = {
        .vm = "00000000-0000-0002-0000-000000000002", .epoch = 1, .config = &no_options, .nics = &no_disks};
    FILE *file;

    two_disks_make(f, &two, "raw");
    args.disks = &two.disks;
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_start, &args)), "VDI_IN_USE");
    assert_string_equal(owner_of(f, &two, "a.raw"), owned_by_1);
    simple(f, SLAVE_CALL_vm_kill, 3);
    assert_string_equal(owner_of(f, &two, "a.raw"), given_back_by_1);
    args.epoch = 2; /* below the 3 of the VM that had it */
    assert_string_equal(state_of(f, call(f, SLAVE_CALL_vm_start, &args)), "running");
    assert_string_equal(owner_of(f, &two, "b.raw"), "2 00000000-0000-0007-0000-000000000007 00000000-0000-0002-0000-000000000002");
    /* Given back or not: what this VM had at a higher epoch stays shut to its older ones. */
    file = fopen(arena_text(f->arena, "%s/a.raw.owner", two.dir), "w");
    fputs("9 somebody " VM1_TEXT " free\n", file);
    fclose(file);
    args.vm = vm1_text;
    args.epoch = 8;
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_start, &args)), "VDI_IN_USE");
    two_disks_end(&two);
}

/* ---- an SR that is not mounted ---- */

static bool is_not_mounted(struct fixture *f, ref_t id)
{
    struct wire_frame *reply = of_id(f, WIRE_REPLY, id);

    return streq(code_of(f, id), "SR_BACKEND_FAILURE") && strstr(reply->params.items[2].text, "is it mounted?");
}

static struct value shared_disk(struct fixture *f, const char *directory, const char *location, const char *device)
{
    const char *pairs[] = {"sr", "sr-a", "sr_type", "shared-file", "sr_location", directory, "sr_marker", "check",
                           "source", "s.raw", "location", location, "device", device};
    struct value *items = arena_alloc_array(f->arena, ARRAY_SIZE(pairs), sizeof *items);

    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
        items[i] = value_text(pairs[i]);
    return VALUE_MAP(ARRAY_SIZE(pairs) / 2, items);
}

/* The mount point alone is a directory, too. A guest that were let into it would write, with its owner record, beside its disk. */
static void no_guest_is_let_where_an_sr_is_not_mounted(void **state)
{
    struct fixture *f = *state;
    char top[] = "/tmp/drover-agent-XXXXXX";
    const char *mount, *away;
    struct value disk, second, disks, image;
    struct slave_vm_start_args start_args = {.vm = vm1_text, .epoch = 3, .config = &no_options, .nics = &no_disks};
    struct slave_vm_resume_args resume_args = {.vm = vm1_text, .epoch = 5, .config = &no_options, .nics = &no_disks};
    struct slave_vm_reboot_args reboot_args = {.vm = vm1_text, .epoch = 4, .config = &no_options, .nics = &no_disks};
    struct slave_vm_receive_open_args receive_args = {
        .vm = vm1_text, .epoch = 6, .move = "m1", .config = &no_options, .nics = &no_disks};

    assert_non_null(mkdtemp(top));
    mount = arena_text(f->arena, "%s/mount", top);
    away = arena_text(f->arena, "%s/away", top);
    disk = shared_disk(f, mount, "a.raw", "0");
    second = shared_disk(f, mount, "b.raw", "1");
    image = shared_disk(f, mount, "image", "");
    disks = VALUE_SET(1, &disk);
    start_args.disks = reboot_args.disks = resume_args.disks = receive_args.disks = &disks;
    resume_args.image = &image;
    assert_int_equal(mkdir(mount, 0755), 0);
    assert_true(is_not_mounted(f, call(f, SLAVE_CALL_vm_start, &start_args)));
    assert_null(fake_find(&f->fake, vm1));

    put_owner(arena_text(f->arena, "%s/.drover-sr", mount), "sr-a\n");
    start_args.epoch = 4;
    assert_string_equal(state_of(f, call(f, SLAVE_CALL_vm_start, &start_args)), "running");
    assert_int_equal(rename(mount, away), 0);
    assert_int_equal(mkdir(mount, 0755), 0);
    for (int is_hard = 0; is_hard < 2; is_hard++) {
        reboot_args.is_hard = is_hard;
        assert_true(is_not_mounted(f, call(f, SLAVE_CALL_vm_reboot, &reboot_args)));
    }
    assert_true(is_not_mounted(f, call(f, SLAVE_CALL_vbd_plug, &(struct slave_vbd_plug_args){vm1_text, 4, &second})));
    assert_true(is_not_mounted(f, call(f, SLAVE_CALL_cd_change, &(struct slave_cd_change_args){vm1_text, 4, &second})));
    assert_true(is_not_mounted(f, call(f, SLAVE_CALL_vm_suspend, &(struct slave_vm_suspend_args){vm1_text, 4, &image})));
    assert_true(is_not_mounted(f, call(f, SLAVE_CALL_vm_snapshot, &(struct slave_vm_snapshot_args){vm1_text, 4, &disks, false})));
    assert_int_equal(guest(f)->starts, 1); /* it runs on, as it was */
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    assert_int_equal(guest(f)->devices.disk_count, 1);
    simple(f, SLAVE_CALL_vm_kill, 4);
    assert_true(is_not_mounted(f, call(f, SLAVE_CALL_vm_resume, &resume_args)));
    assert_true(is_not_mounted(f, call(f, SLAVE_CALL_vm_receive_open, &receive_args)));
    assert_int_equal(guest(f)->starts, 1);

    assert_int_equal(rmdir(mount), 0); /* nothing was written there */
    assert_int_equal(rename(away, mount), 0);
    put_owner(arena_text(f->arena, "%s/.drover-sr", mount), "sr-b\n");
    start_args.epoch = 7;
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_start, &start_args)), "SR_BACKEND_FAILURE");
    put_owner(arena_text(f->arena, "%s/.drover-sr", mount), "sr-a\n");
    start_args.epoch = 8;
    assert_string_equal(state_of(f, call(f, SLAVE_CALL_vm_start, &start_args)), "running");
    assert_int_equal(system(arena_text(f->arena, "rm -rf %s", top)), 0);
}

/* Of both, under new names that begin with `name`. */
static ref_t snapshot_as(struct fixture *f, ref_t id, struct two_disks *two, const char *name, bool is_paused)
{
    struct slave_vm_snapshot_args args = {
        .vm = vm1_text, .epoch = 3, .disks = &two->disks, .paused = is_paused};

    for (int i = 0; i < 2; i++)
        two->items[i][3] = value_text(arena_text(f->arena, "%s-%s", name, two->items[i][5].text));
    call_as(f, id, SLAVE_CALL_vm_snapshot, &args);
    return id;
}

static bool has_file(struct two_disks *two, const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", two->dir, name);
    return access(path, F_OK) == 0;
}

static bool has_qemu_img(void)
{
    return system("qemu-img --version >/dev/null 2>&1") == 0;
}

static void a_snapshot_holds_the_guest_for_a_moment(void **state)
{
    struct fixture *f = *state;
    struct two_disks two;
    struct wire_frame *reply;
    ref_t id;

    two_disks_make(f, &two, has_qemu_img() ? "qcow2" : "raw");
    id = snapshot_as(f, new_id(f), &two, "one", false);
    assert_string_equal(code_of(f, id), "");
    reply = of_id(f, WIRE_REPLY, id);
    assert_int_equal(reply->body.length, 2);
    assert_string_equal(value_map_text(&reply->body.items[1], "location", ""), two.items[1][3].text);
    assert_string_equal(value_map_text(&reply->body.items[1], "virtual_size", ""), "1048576");
    assert_true(has_file(&two, two.items[0][3].text));
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    assert_int_equal(guest(f)->reopens, 1);
    assert_int_equal(guest(f)->runs, 2);
    assert_int_equal(guest(f)->run_epoch, 3);

    /* One that is paused stays so; and it is known whose right it is. */
    simple(f, SLAVE_CALL_vm_pause, 3);
    assert_string_equal(code_of(f, snapshot_as(f, new_id(f), &two, "two", true)), "");
    assert_int_equal(guest(f)->found.state, GUEST_PAUSED);
    assert_int_equal(guest(f)->reopens, 2);
    simple(f, SLAVE_CALL_vm_unpause, 3);
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_snapshot,
                                        &(struct slave_vm_snapshot_args){.vm = vm1_text, .epoch = 2, .disks = &two.disks})),
                        "INTERNAL_ERROR");

    /* The disks of one that has ended are at rest. */
    fake_guest_changes(&f->fake, vm1, GUEST_SHUT_DOWN);
    assert_string_equal(code_of(f, snapshot_as(f, new_id(f), &two, "three", false)), "");
    assert_int_equal(guest(f)->reopens, 2);
    two_disks_end(&two);
}

static void a_snapshot_that_fails_lets_the_guest_go_on(void **state)
{
    struct fixture *f = *state;
    struct two_disks two;
    char path[128];
    ref_t id;

    two_disks_make(f, &two, "raw");
    f->fake.fail_next = -ERR_INTERNAL_ERROR; /* it cannot be paused */
    id = snapshot_as(f, new_id(f), &two, "one", false);
    assert_string_equal(code_of(f, id), "INTERNAL_ERROR");
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);

    /* The second disk cannot be taken: its name is a directory's. */
    snprintf(path, sizeof path, "%s/two-b.raw", two.dir);
    assert_int_equal(mkdir(path, 0755), 0);
    id = snapshot_as(f, new_id(f), &two, "two", false);
    assert_string_equal(code_of(f, id), "SR_BACKEND_FAILURE");
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    assert_int_equal(guest(f)->runs, 2);

    snprintf(path, sizeof path, "%s/b.raw", two.dir);
    assert_int_equal(unlink(path), 0);
    id = snapshot_as(f, new_id(f), &two, "three", false);
    assert_string_equal(code_of(f, id), "VDI_LOCATION_MISSING");
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    assert_int_equal(guest(f)->runs, 2); /* it was never held */
    two_disks_end(&two);
}

static void an_interrupted_snapshot_is_finished_by_the_next_agent(void **state)
{
    struct fixture *f = *state;
    struct two_disks two;
    ref_t id = new_id(f);

    two_disks_make(f, &two, has_qemu_img() ? "qcow2" : "raw");
    f->fake.is_holding = true;
    snapshot_as(f, id, &two, "one", false); /* the guest stands; nobody has told the agent */
    assert_string_equal(code_of(f, id), "no reply");
    assert_int_equal(guest(f)->found.state, GUEST_PAUSED);
    f->fake.is_holding = false;
    agent_restart(f);
    assert_int_equal(guest(f)->found.state, GUEST_PAUSED);
    ask(f, id);
    assert_string_equal(answer_of(f, id), "interrupted");
    snapshot_as(f, id, &two, "one", false);
    assert_string_equal(code_of(f, id), "");
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    assert_true(has_file(&two, two.items[1][3].text));
    two_disks_end(&two);
}

static void a_disk_is_destroyed_after_it_was_made(void **state)
{
    struct fixture *f = *state;
    struct two_disks two;
    struct value sr_items[4], sr = VALUE_MAP(2, sr_items);
    ref_t id = new_id(f), destroyed;

    two_disks_make(f, &two, "raw");
    sr_items[0] = value_text("type");
    sr_items[1] = value_text("file");
    sr_items[2] = value_text("location");
    sr_items[3] = value_text(two.dir);
    f->fake.is_holding = true;
    snapshot_as(f, id, &two, "one", false);
    destroyed = call(f, SLAVE_CALL_disk_destroy,
                     &(struct slave_disk_destroy_args){.sr = &sr, .location = two.items[0][3].text});
    assert_string_equal(code_of(f, destroyed), "no reply");
    f->fake.is_holding = false;
    fake_tell(&f->fake);
    run(f);
    assert_string_equal(code_of(f, id), "");
    assert_string_equal(code_of(f, destroyed), "");
    assert_false(has_file(&two, two.items[0][3].text));
    assert_true(has_file(&two, two.items[1][3].text));
    two_disks_end(&two);
}

static void a_kill_comes_through_a_snapshot(void **state)
{
    struct fixture *f = *state;
    struct two_disks two;
    ref_t id = new_id(f), killed;

    two_disks_make(f, &two, "raw");
    f->fake.is_holding = true;
    snapshot_as(f, id, &two, "one", false);
    killed = simple(f, SLAVE_CALL_vm_kill, 3);
    f->fake.is_holding = false;
    fake_tell(&f->fake);
    run(f);
    assert_string_equal(code_of(f, killed), "");
    assert_string_equal(code_of(f, id), "VM_BAD_POWER_STATE"); /* it could not go on */
    assert_int_equal(guest(f)->runs, 1);
    two_disks_end(&two);
}

static void drop_line(void *arg, enum log_level level, const char *line)
{
    (void) arg;
    (void) level;
    (void) line;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(hello_says_who_and_what_runs),
        TEST(clients_are_told_whose_slave_it_is),
        TEST(accounts_are_kept),
        TEST(a_link_can_be_made_anew),
        TEST(a_master_can_be_left),
        TEST(hello_waits_until_the_driver_can_tell),
        TEST(frames_of_older_links_and_doubled_frames_are_dropped),
        TEST(a_gap_ends_the_link),
        TEST(beats_go_each_second_and_silence_ends_the_link),
        TEST(lower_epochs_and_second_holders_are_refused),
        TEST(a_start_happens_once),
        TEST(a_result_is_kept_until_it_is_confirmed),
        TEST(what_was_asked_before_it_came_never_happens),
        TEST(never_is_said_only_when_it_is_in_the_file),
        TEST(an_effect_waits_until_its_id_is_in_the_file),
        TEST(an_interrupted_start_is_finished_when_repeated),
        TEST(a_start_that_fails_leaves_nothing),
        TEST(replies_are_lost_at_named_points),
        TEST(bad_calls_are_answered),
        TEST(pause_unpause_kill_and_forget),
        TEST(a_shutdown_is_answered_when_the_guest_has_ended),
        TEST(a_kill_ends_what_waits),
        TEST(a_reboot_happens_once),
        TEST(a_kill_ends_a_reboot_that_waits),
        TEST(a_hard_reboot_is_not_undone_by_what_it_overtook),
        TEST(a_reboot_that_fails_half_way_is_told),
        TEST(a_late_abort_leaves_a_running_guest_its_right),
        TEST(a_guest_that_ends_by_itself_is_told_until_acknowledged),
        TEST(samples_replace_one_another),
        TEST(a_copy_runs_only_by_the_masters_word),
        TEST(unpause_waits_for_the_copy),
        TEST(an_aborted_copy_never_runs),
        TEST(a_wrong_token_gets_nothing),
        TEST(a_copy_survives_its_agent),
        TEST(a_sent_guest_comes_back_only_by_the_masters_word),
        TEST(the_promise_is_kept_by_the_next_agent),
        TEST(a_send_can_be_called_off_while_it_runs),
        TEST(the_source_gets_it_back_with_a_higher_right),
        TEST(a_guest_that_ends_while_it_is_sent_ends_the_move),
        TEST(an_unreachable_destination_is_an_error),
        TEST(a_higher_owner_record_keeps_the_disk_shut),
        TEST(a_plugged_disk_is_owned_until_it_is_unplugged),
        TEST(an_interrupted_plug_is_done_once),
        TEST(a_disk_that_was_given_back_is_free_for_another_vm),
        TEST(memory_that_is_older_than_its_disks_is_not_resumed),
        TEST(no_guest_is_let_where_an_sr_is_not_mounted),
        TEST(a_snapshot_holds_the_guest_for_a_moment),
        TEST(a_snapshot_that_fails_lets_the_guest_go_on),
        TEST(an_interrupted_snapshot_is_finished_by_the_next_agent),
        TEST(a_disk_is_destroyed_after_it_was_made),
        TEST(a_kill_comes_through_a_snapshot),
    };
#undef TEST

    log_set_sink(drop_line, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
