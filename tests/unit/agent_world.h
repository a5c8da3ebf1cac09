/* agent_world.h - an agent between a scripted master and guests in a table, under a clock of the test's own
 *
 * Every test may restart the agent (kill -9: its fibers are abandoned, the ledger keeps what was synced, guests go on) and
 * then looks at what really ran, from the guests' side. A test program includes this once. */
#pragma once

#pragma GCC diagnostic ignored "-Wunused-function" /* no test program uses all of this */

#include <unistd.h>

#include "shared/crash.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/random.h"
#include "shared/workers.h"
#include "slave/accounts.h"
#include "slave/agent.h"
#include "slave/ledger.h"
#include "slave/standing.h"
#include "slave/vms.h"
#include "tests/unit/fake_hypervisor.h"
#include "tests/unit/frames.h"
#include "tests/unit/no_log.h"
#include "tests/unit/pass_time.h"

static const ref_t host = {7, 7}, alice = {3, 1}, bob = {3, 2};

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
    struct frames got;                   /* from the agent */
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
    return frames_take(&f->got, f->arena, bytes, count);
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
    frame_say(&f->transport, f->master_key, frame);
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
    run_until_idle(f->loop);
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
    return frames_last(&f->got, type);
}

static struct wire_frame *of_id(struct fixture *f, enum wire_type type, ref_t id)
{
    for (int i = f->got.count - 1; i >= 0; i--)
        if (f->got.list[i].type == type && ref_equal(f->got.list[i].id, id))
            return &f->got.list[i];
    return NULL;
}

static int count_of(struct fixture *f, enum wire_type type)
{
    return frames_count(&f->got, type);
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
    f->workers = workers_new(0, "test");
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
    run_until_idle(loop);
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

static void start_as(struct fixture *f, ref_t id, int64_t epoch)
{
    struct slave_vm_start_args args = {
        .vm = vm1_text, .epoch = epoch, .config = &no_options, .disks = &no_disks, .nics = &no_disks};

    call_as(f, id, SLAVE_CALL_vm_start, &args);
}

static ref_t start(struct fixture *f, int64_t epoch)
{
    ref_t id = new_id(f);

    start_as(f, id, epoch);
    return id;
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

/* ---- a guest with disks ---- */

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

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
