/* slaves_world.h - the master's side of the links, against a scripted slave, on a fake clock
 *
 * The slave answers only what a test has it answer, so that every reply can be lost, late, doubled, or never given. A test
 * program includes this once. */
#pragma once

#pragma GCC diagnostic ignored "-Wunused-function" /* no test program uses all of this */

#include "master/awaited.h"
#include "master/recovery.h"
#include "master/slaves.h"
#include "shared/crash.h"
#include "shared/log.h"
#include "tests/unit/frames.h"
#include "tests/unit/mini_master.h"
#include "tests/unit/no_log.h"

struct fixture {
    struct mini mini;
    struct link_transport transport, door;
    char key[LINK_KEY_BYTES], secret[LINK_KEY_BYTES];
    char master_key[LINK_KEY_BYTES];
    char allowed[4][LINK_KEY_BYTES];

    /* the slave */
    struct arena *arena;
    struct frames got;                   /* from the master, at either of the two */
    uint64_t link, sent, epoch_seen;
    ref_t holder_seen, host_uuid;
    struct value about;                  /* VOID: nothing */
    struct value guests, operations;

    /* what hooks were told */
    int notes, hellos, lives, deaths;
    char note[64];
    uint64_t higher_epoch, newer_generation;
    struct slaves_known above;
};

static struct fixture *the_fixture; /* for hooks, which know the core only */

/* A call by a fiber, and what came of it. */
struct asker {
    struct fixture *f;
    struct arena *arena;
    struct call call;
    ref_t host;
    bool is_asking, is_done, is_in_doubt;
    ref_t operation;
    enum slave_answer answer;
    int result, r;
    struct value ret;
    struct fiber *fiber;
};

/* ---- the slave's end ---- */

static bool transport_send(struct link_transport *transport, const char *key, const void *bytes, size_t count)
{
    struct fixture *f = CONTAINER_OF(transport, struct fixture, transport);

    (void) key;
    return frames_take(&f->got, f->arena, bytes, count);
}

static bool door_send(struct link_transport *transport, const char *key, const void *bytes, size_t count)
{
    struct fixture *f = CONTAINER_OF(transport, struct fixture, door);

    (void) key;
    return frames_take(&f->got, f->arena, bytes, count);
}

static void transport_allow(struct link_transport *transport, const char *key, bool is_allowed)
{
    struct fixture *f = CONTAINER_OF(transport, struct fixture, transport);

    for (size_t i = 0; i < ARRAY_SIZE(f->allowed); i++)
        if (is_allowed ? !f->allowed[i][0] : streq(f->allowed[i], key)) {
            snprintf(f->allowed[i], LINK_KEY_BYTES, "%s", is_allowed ? key : "");
            return;
        }
}

static bool is_allowed(struct fixture *f, const char *key)
{
    for (size_t i = 0; i < ARRAY_SIZE(f->allowed); i++)
        if (streq(f->allowed[i], key))
            return true;
    return false;
}

static void say_as(struct fixture *f, struct link_transport *transport, const char *key, struct wire_frame *frame)
{
    frame_say(transport, key, frame);
    mini_run(&f->mini);
}

/* The next frame of the slave's link. */
static void say(struct fixture *f, struct wire_frame frame)
{
    frame.link = f->link;
    frame.seq = ++f->sent;
    say_as(f, &f->transport, f->key, &frame);
}

static void hello(struct fixture *f)
{
    struct wire_frame frame = {.type = WIRE_HELLO,
                               .link = ++f->link,
                               .host = f->host_uuid,
                               .version = WIRE_VERSION,
                               .epoch = f->epoch_seen,
                               .holder = f->holder_seen,
                               .about = f->about.kind == KIND_MAP ? f->about : VALUE_EMPTY_MAP,
                               .guests = f->guests,
                               .operations = f->operations};

    f->sent = 0;
    say_as(f, &f->transport, f->key, &frame);
}

static struct wire_frame *last_of(struct fixture *f, enum wire_type type)
{
    return frames_last(&f->got, type);
}

static int count_of(struct fixture *f, enum wire_type type)
{
    return frames_count(&f->got, type);
}

static void pass_ms(struct fixture *f, uint64_t ms, bool is_beating)
{
    for (uint64_t i = 0; i < ms; i += 500) {
        mini_advance(&f->mini, 500);
        if (is_beating)
            say(f, (struct wire_frame){.type = WIRE_BEAT});
    }
}

static void link_down(struct fixture *f)
{
    f->transport.receiver.down(f->transport.receiver.arg, f->key, "test");
}

static struct value a_state(struct fixture *f, const char *state)
{
    struct value *items = arena_alloc_array(f->arena, 2, sizeof *items);

    items[0] = value_text("state");
    items[1] = value_text(state);
    return VALUE_MAP(1, items);
}

static void reply_running(struct fixture *f, ref_t id)
{
    say(f, (struct wire_frame){.type = WIRE_REPLY, .id = id, .body = a_state(f, "running")});
}

static void answer(struct fixture *f, ref_t id, const char *state)
{
    say(f, (struct wire_frame){.type = WIRE_ANSWER, .id = id, .state = state, .body = a_state(f, "running")});
}

/* ---- the master's end ---- */

static void call_main(void *arg)
{
    struct asker *caller = arg;
    struct slave_vm_unpause_args args = {.vm = vm1_text, .epoch = 3};

    if (caller->is_asking)
        caller->r = slave_ask(&caller->call, caller->host, caller->operation, &caller->answer, &caller->result,
                              &caller->ret);
    else
        caller->r = slave_vm_unpause(&caller->call, caller->host, &args, &caller->ret);
    caller->is_in_doubt = slave_call_in_doubt(&caller->call);
    caller->is_done = true;
    caller->fiber = NULL;
}

static void caller_begin(struct fixture *f, struct asker *caller)
{
    caller->f = f;
    caller->arena = arena_new();
    caller->call.core = &f->mini.core;
    caller->call.arena = caller->arena;
    caller->call.name = "test";
    caller->call.tag = "test";
    if (ref_is_null(caller->host))
        caller->host = f->mini.core.host;
    caller->fiber = fiber_spawn(f->mini.core.loop, call_main, caller, "caller");
    mini_run(&f->mini);
}

static void caller_end(struct asker *caller)
{
    assert_true(caller->is_done);
    arena_destroy(&caller->arena);
}

static void on_note(struct core *core, const struct slave_note *note)
{
    (void) core;
    the_fixture->notes++;
    snprintf(the_fixture->note, sizeof the_fixture->note, "%s %s", note->name,
             value_map_text(note->body, "state", ""));
}

static void on_hello(struct core *core, ref_t host, const struct slave_guest *guests, size_t count)
{
    (void) host;
    (void) guests;
    (void) count;
    assert_true(slave_is_linked(core->slaves, host));
    the_fixture->hellos++;
}

static void on_live(struct core *core, ref_t host, bool is_live)
{
    (void) core;
    (void) host;
    the_fixture->lives += is_live;
    the_fixture->deaths += !is_live;
}

static void on_higher_epoch(struct core *core, uint64_t epoch)
{
    (void) core;
    the_fixture->higher_epoch = epoch;
}

static void begin_above(struct core *core, const struct slaves_known *known)
{
    (void) core;
    the_fixture->above = *known;
}

static void on_newer_generation(struct core *core, uint64_t generation)
{
    the_fixture->newer_generation = generation;
    awaited_begin(core, "a test");
}

static bool is_live(struct fixture *f)
{
    const struct view *view = store_core_view(f->mini.core.store);
    const struct object *host = view_get(view, host, f->mini.core.host);

    return host_metrics_get_live(view_get(view, host_metrics, host_get_metrics(host)));
}

static void know_host(struct fixture *f)
{
    struct core *core = &f->mini.core;
    struct txn *txn = store_begin(core->store);
    char uuid[UUID_TEXT_BYTES];

    host_put_curve_key(txn, core->host, f->key);
    host_put_uuid(txn, core->host, uuid_print(uuid, f->host_uuid));
    store_apply(&txn);
    txn_end(&txn);
    mini_run(&f->mini);
}

static void begin_master(void **state, bool knows_host)
{
    struct fixture *f = the_fixture = new0(struct fixture);
    struct slaves_config config = {.pool_secret = "sesame",
                                   .link_endpoint = "tcp://127.0.0.1:1",
                                   .key = f->master_key,
                                   .generation = 100,
                                   .on_higher_epoch = on_higher_epoch,
                                   .begin_above = begin_above,
                                   .on_newer_generation = on_newer_generation};
    struct core *core = &f->mini.core;
    char secret[LINK_KEY_BYTES];

    mini_start(&f->mini);
    core->epoch = 7;
    core->holder = (ref_t){5, 5};
    f->arena = arena_new();
    f->guests = f->operations = VALUE_EMPTY_SET;
    f->host_uuid = (ref_t){0x11, 0x22};
    link_keys_new(f->key, f->secret);
    link_keys_new(f->master_key, secret);
    f->transport = (struct link_transport){.send = transport_send, .allow = transport_allow};
    f->door = (struct link_transport){.send = door_send};
    core->recovery = recovery_new(core);
    awaited_new(core);
    slaves_new(core, &config, &f->transport, &f->door);
    slaves_on_note(core->slaves, "guest", on_note);
    slaves_on_hello(core->slaves, on_hello);
    slaves_on_live(core->slaves, on_live);
    awaited_start(core);
    if (knows_host)
        know_host(f);
    slaves_start(core->slaves);
    *state = f;
}

/* The host is enrolled, and welcomed. */
static int begin(void **state)
{
    struct fixture *f;

    begin_master(state, false);
    f = *state;
    assert_false(is_allowed(f, f->key));
    know_host(f);
    assert_true(is_allowed(f, f->key)); /* the listener follows the store */
    hello(f);
    return 0;
}

/* The store of the master that begins knows the host. */
static int begin_opening(void **state)
{
    begin_master(state, true);
    return 0;
}

static int end(void **state)
{
    struct fixture *f = *state;

    slaves_destroy(&f->mini.core.slaves);
    awaited_destroy(&f->mini.core.awaited);
    recovery_destroy(&f->mini.core.recovery);
    mini_stop(&f->mini);
    arena_destroy(&f->arena);
    crash_disarm();
    free(f);
    return 0;
}

#define TEST(name)    cmocka_unit_test_setup_teardown(name, begin, end)
#define OPENING(name) cmocka_unit_test_setup_teardown(name, begin_opening, end)
