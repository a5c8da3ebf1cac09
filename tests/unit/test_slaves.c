/* test_slaves.c - the master's side of the links, against a scripted slave, on a fake clock
 *
 * The slave answers only what a test has it answer, so that every reply can be lost, late, doubled, or never given. */
#include "tests/unit/mini_master.h"

#include "master/awaited.h"
#include "master/recovery.h"
#include "master/slaves.h"
#include "shared/buffer.h"
#include "shared/crash.h"
#include "shared/log.h"
#include "shared/wire.h"

#define FRAMES_MAX 400

static const ref_t vm_uuid = {0x6a7f1f4c00004000, 0x8000000000000001};
static const char vm_text[] = "6a7f1f4c-0000-4000-8000-000000000001";

struct fixture {
    struct mini mini;
    struct link_transport transport, door;
    char key[LINK_KEY_BYTES], secret[LINK_KEY_BYTES];
    char master_key[LINK_KEY_BYTES];
    char allowed[4][LINK_KEY_BYTES];

    /* the slave */
    struct arena *arena;
    struct wire_frame got[FRAMES_MAX];
    char got_key[FRAMES_MAX][LINK_KEY_BYTES];
    int got_count;
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

static bool take(struct fixture *f, const char *key, const void *bytes, size_t count)
{
    assert_true(f->got_count < FRAMES_MAX);
    assert_int_equal(wire_decode(bytes, count, f->arena, &f->got[f->got_count]), 0);
    snprintf(f->got_key[f->got_count], LINK_KEY_BYTES, "%s", key);
    f->got_count++;
    return true;
}

static bool transport_send(struct link_transport *transport, const char *key, const void *bytes, size_t count)
{
    return take(CONTAINER_OF(transport, struct fixture, transport), key, bytes, count);
}

static bool door_send(struct link_transport *transport, const char *key, const void *bytes, size_t count)
{
    return take(CONTAINER_OF(transport, struct fixture, door), key, bytes, count);
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
    struct buffer bytes;

    buffer_init(&bytes, LINK_FRAME_BYTES_MAX);
    wire_encode(frame, &bytes);
    transport->receiver.frame(transport->receiver.arg, key, bytes.bytes, bytes.length);
    buffer_done(&bytes);
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
    for (int i = f->got_count - 1; i >= 0; i--)
        if (f->got[i].type == type)
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
    struct slave_vm_unpause_args args = {.vm = vm_text, .epoch = 3};

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
    assert_true(slave_has_reported(core->slaves, host));
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

/* ---- links ---- */

static void a_hello_is_welcomed_once(void **state)
{
    struct fixture *f = *state;
    struct wire_frame *welcome = last_of(f, WIRE_WELCOME);

    assert_non_null(welcome);
    assert_int_equal(welcome->link, 1);
    assert_int_equal(welcome->epoch, 7);
    assert_true(ref_equal(welcome->holder, f->mini.core.holder));
    assert_true(ref_equal(welcome->host, f->host_uuid)); /* this one is the master's own */
    assert_non_null(welcome->address);
    assert_true(slave_is_linked(f->mini.core.slaves, f->mini.core.host));
    assert_int_equal(f->hellos, 1);
    assert_int_equal(f->lives, 1);
    assert_non_null(last_of(f, WIRE_DIRECTORY));
    f->link--; /* the same hello, late */
    hello(f);
    assert_int_equal(count_of(f, WIRE_WELCOME), 1);
}

/* With the directory after a hello, and when one changes; of a host without a link, after its next hello. */
static void hosts_are_told_the_accounts(void **state)
{
    struct fixture *f = *state;
    const struct wire_frame *directory = last_of(f, WIRE_DIRECTORY);
    char hash[256], other[256];
    struct mini_call call;
    int told;

    assert_int_equal(directory->accounts.kind, KIND_MAP);
    assert_int_equal(directory->accounts.length, 1);
    snprintf(hash, sizeof hash, "%s", value_map_text(&directory->accounts, "root", ""));
    assert_int_equal(strncmp(hash, "$y$", 3), 0);
    told = count_of(f, WIRE_DIRECTORY);
    mini_call(&f->mini, &call, "session.change_password", f->mini.session, "", "changed");
    assert_int_equal(call.r, 0);
    assert_int_equal(count_of(f, WIRE_DIRECTORY), told + 1);
    directory = last_of(f, WIRE_DIRECTORY);
    snprintf(other, sizeof other, "%s", value_map_text(&directory->accounts, "root", ""));
    assert_int_equal(strncmp(other, "$y$", 3), 0);
    assert_string_not_equal(hash, other);
    assert_int_equal(directory->body.length, 0); /* of the hosts there is nothing new */
    mini_call(&f->mini, &call, "pool.set_name_label", f->mini.session, "x", "y");
    assert_int_equal(count_of(f, WIRE_DIRECTORY), told + 1);
    f->transport.receiver.down(f->transport.receiver.arg, f->key, "test");
    mini_call(&f->mini, &call, "session.change_password", f->mini.session, "", "once more");
    assert_int_equal(call.r, 0);
    assert_int_equal(count_of(f, WIRE_DIRECTORY), told + 1);
    hello(f);
    directory = last_of(f, WIRE_DIRECTORY);
    assert_string_not_equal(value_map_text(&directory->accounts, "root", other), other);
}

static void the_socket_of_the_own_slave_is_known(void **state)
{
    struct fixture *f = *state;
    char path[SLAVE_SOCKET_BYTES], long_path[2 * SLAVE_SOCKET_BYTES];
    struct value items[2] = {value_text("http_socket"), value_text("/run/slave.sock")};

    assert_false(slaves_own_socket(f->mini.core.slaves, path)); /* did not say */
    f->about = VALUE_MAP(1, items);
    hello(f);
    assert_true(slaves_own_socket(f->mini.core.slaves, path));
    assert_string_equal(path, "/run/slave.sock");
    memset(long_path, '/', sizeof long_path);
    long_path[sizeof long_path - 1] = '\0';
    items[1] = value_text(long_path);
    hello(f);
    items[1] = value_text("relative");
    hello(f);
    assert_true(slaves_own_socket(f->mini.core.slaves, path));
    assert_string_equal(path, "/run/slave.sock");
    f->mini.core.host = (ref_t){1, 1}; /* it is another host now */
    items[1] = value_text("/run/other.sock");
    hello(f);
    assert_true(slaves_own_socket(f->mini.core.slaves, path));
    assert_string_equal(path, "/run/slave.sock");
}

static void the_key_says_who_it_is(void **state)
{
    struct fixture *f = *state;
    char other[LINK_KEY_BYTES], secret[LINK_KEY_BYTES];
    struct wire_frame beat = {.type = WIRE_BEAT, .link = 1, .seq = 1};

    link_keys_new(other, secret);
    say_as(f, &f->transport, other, &beat);
    f->host_uuid.lo++; /* somebody else's name */
    hello(f);
    assert_int_equal(count_of(f, WIRE_WELCOME), 1);
}

static void a_host_that_follows_another_master_is_not_welcomed(void **state)
{
    struct fixture *f = *state;

    f->epoch_seen = 7;
    f->holder_seen = (ref_t){6, 6};
    hello(f);
    assert_int_equal(count_of(f, WIRE_WELCOME), 1);
    assert_int_equal(f->higher_epoch, 7);
    f->epoch_seen = 9;
    hello(f);
    assert_int_equal(f->higher_epoch, 9);
    assert_int_equal(count_of(f, WIRE_WELCOME), 1);
    f->epoch_seen = 7;
    f->holder_seen = f->mini.core.holder;
    hello(f);
    assert_int_equal(count_of(f, WIRE_WELCOME), 2);
}

/* ---- the opening ---- */

/* A second host of the store, which is away. */
static void add_host(struct fixture *f)
{
    struct txn *txn = store_begin(f->mini.core.store);
    char key[LINK_KEY_BYTES], secret[LINK_KEY_BYTES];
    ref_t host = txn_create_new(txn, f->mini.core.random, CLASS_OF(host), NULL);

    link_keys_new(key, secret);
    host_put_curve_key(txn, host, key);
    store_apply(&txn);
    txn_end(&txn);
    mini_run(&f->mini);
}

static void hello_of(struct fixture *f, uint64_t epoch, const char *key, uint64_t generation)
{
    struct wire_frame frame = {.type = WIRE_HELLO,
                               .link = ++f->link,
                               .host = f->host_uuid,
                               .version = WIRE_VERSION,
                               .epoch = epoch,
                               .holder = epoch == 7 ? f->mini.core.holder : (ref_t){6, 6},
                               .generation = generation,
                               .key = key,
                               .about = VALUE_EMPTY_MAP,
                               .guests = f->guests,
                               .operations = f->operations};

    f->sent = 0;
    say_as(f, &f->transport, f->key, &frame);
}

static void nobody_is_welcomed_before_all_have_said_hello(void **state)
{
    struct fixture *f = *state;

    add_host(f);
    hello_of(f, 6, f->master_key, 50);
    assert_int_equal(count_of(f, WIRE_WELCOME), 0);
    pass_ms(f, 2500, false);
    assert_int_equal(count_of(f, WIRE_WELCOME), 0);
    pass_ms(f, 1000, false); /* the other one is away */
    assert_int_equal(count_of(f, WIRE_WELCOME), 1);
    assert_int_equal(f->above.epoch, 0);
}

static void a_forgotten_epoch_of_ours_is_gone_above(void **state)
{
    struct fixture *f = *state;

    add_host(f);
    hello_of(f, 9, f->master_key, 300);
    pass_ms(f, 4000, false);
    assert_int_equal(f->above.epoch, 9);
    assert_int_equal(f->above.generation, 300);
    assert_true(ref_equal(f->above.holder, (ref_t){6, 6}));
    assert_int_equal(count_of(f, WIRE_WELCOME), 0);
}

static void a_host_of_another_master_is_not_taken_from_it(void **state)
{
    struct fixture *f = *state;

    add_host(f);
    hello_of(f, 9, "another master", 300);
    pass_ms(f, 4000, false);
    assert_int_equal(f->above.epoch, 0);
    assert_int_equal(f->higher_epoch, 9);
    assert_int_equal(count_of(f, WIRE_WELCOME), 0);
}

static void when_all_have_come_nobody_is_left_to_the_other(void **state)
{
    struct fixture *f = *state;

    hello_of(f, 9, "another master", 300);
    assert_int_equal(f->above.epoch, 9);
}

static void at_work_it_takes_nothing_whoever_had_the_epoch(void **state)
{
    struct fixture *f = *state;

    hello_of(f, 9, f->master_key, 300);
    assert_int_equal(f->above.epoch, 0);
    assert_int_equal(f->higher_epoch, 9);
}

static void newer_generations_make_it_wait_for_a_hello_as_ours(void **state)
{
    struct fixture *f = *state;

    hello_of(f, 6, f->master_key, 101);
    assert_int_equal(f->newer_generation, 101);
    assert_true(awaited_any(&f->mini.core));
    assert_non_null(last_of(f, WIRE_AGAIN)); /* it may have begun something for another before it followed us */
    hello_of(f, 7, f->master_key, 0);
    assert_false(awaited_any(&f->mini.core));
    assert_true(slave_has_followed(f->mini.core.slaves, f->mini.core.host));
}

static void what_was_known_at_the_start_is_not_newer(void **state)
{
    struct fixture *f = *state;

    hello_of(f, 6, f->master_key, 100);
    assert_int_equal(f->newer_generation, 0);
    assert_false(awaited_any(&f->mini.core));
}

static void beats_keep_a_host_alive_and_silence_does_not(void **state)
{
    struct fixture *f = *state;
    int beats = count_of(f, WIRE_BEAT);

    pass_ms(f, 20000, true);
    assert_true(is_live(f));
    assert_in_range(count_of(f, WIRE_BEAT) - beats, 19, 21);
    pass_ms(f, 12000, false);
    assert_false(is_live(f));
    assert_int_equal(f->deaths, 1);
    hello(f);
    assert_true(is_live(f));
    assert_int_equal(f->lives, 2);
}

static void a_lost_frame_ends_the_link(void **state)
{
    struct fixture *f = *state;

    say(f, (struct wire_frame){.type = WIRE_BEAT});
    f->sent++;
    say(f, (struct wire_frame){.type = WIRE_BEAT});
    assert_false(slave_is_linked(f->mini.core.slaves, f->mini.core.host));
    assert_int_equal(last_of(f, WIRE_AGAIN)->link, 1);
    hello(f);
    assert_true(slave_is_linked(f->mini.core.slaves, f->mini.core.host));
}

static void a_host_that_left_the_pool_is_shut_out(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    struct txn *txn;

    caller_begin(f, &caller);
    assert_false(caller.is_done);
    txn = store_begin(f->mini.core.store);
    txn_delete(txn, CLASS_OF(host), f->mini.core.host);
    store_apply(&txn);
    txn_end(&txn);
    mini_run(&f->mini);
    assert_false(is_allowed(f, f->key));
    assert_true(caller.is_done && caller.is_in_doubt);
    caller_end(&caller);
}

/* ---- calls ---- */

static void a_call_is_answered_and_confirmed(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    struct wire_frame *sent;

    caller_begin(f, &caller);
    sent = last_of(f, WIRE_CALL);
    assert_string_equal(sent->name, "vm_unpause");
    assert_int_equal(sent->epoch, 7);
    assert_int_equal(sent->deadline_ms, 60000);
    assert_string_equal(value_map_text(&sent->body, "vm", ""), vm_text);
    assert_false(caller.is_done);
    reply_running(f, sent->id);
    assert_int_equal(caller.r, 0);
    assert_false(caller.is_in_doubt);
    assert_string_equal(value_map_text(&caller.ret, "state", ""), "running");
    assert_true(ref_equal(last_of(f, WIRE_CONFIRM)->operations.items[0].ref, sent->id));
    caller_end(&caller);
}

static void a_failure_comes_with_its_details(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    struct value params[] = {value_text(vm_text), value_text("paused"), value_text("halted")};

    caller_begin(f, &caller);
    say(f, (struct wire_frame){.type = WIRE_REPLY,
                               .id = last_of(f, WIRE_CALL)->id,
                               .code = "VM_BAD_POWER_STATE",
                               .params = VALUE_SET(3, params)});
    assert_int_equal(caller.r, -ERR_VM_BAD_POWER_STATE);
    assert_string_equal(caller.call.failure.params[2], "halted");
    assert_false(caller.is_in_doubt);
    caller_end(&caller);
}

static void a_result_of_the_wrong_form_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    struct value item = VALUE_INT(3);

    caller_begin(f, &caller);
    say(f, (struct wire_frame){.type = WIRE_REPLY, .id = last_of(f, WIRE_CALL)->id, .body = VALUE_SET(1, &item)});
    assert_true(caller.is_done);
    assert_true(caller.r < 0);
    caller_end(&caller);
}

static void a_lost_reply_is_asked_for_on_the_next_link(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id;

    caller_begin(f, &caller);
    id = last_of(f, WIRE_CALL)->id;
    link_down(f);
    reply_running(f, id); /* of the old link: dropped */
    assert_false(caller.is_done);
    hello(f);
    assert_true(ref_equal(last_of(f, WIRE_ASK)->id, id));
    answer(f, id, "pending");
    assert_false(caller.is_done);
    reply_running(f, id);
    assert_int_equal(caller.r, 0);
    caller_end(&caller);
}

static void never_means_that_it_may_be_sent_anew(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id, second;

    caller_begin(f, &caller);
    id = last_of(f, WIRE_CALL)->id;
    hello(f);
    answer(f, id, "never");
    assert_false(caller.is_done);
    second = last_of(f, WIRE_CALL)->id;
    assert_false(ref_equal(id, second)); /* the first one is void for ever */
    reply_running(f, second);
    assert_int_equal(caller.r, 0);
    caller_end(&caller);
}

static void never_after_the_deadline_is_the_end(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id;

    caller_begin(f, &caller);
    id = last_of(f, WIRE_CALL)->id;
    pass_ms(f, 61000, true);
    assert_true(ref_equal(last_of(f, WIRE_ASK)->id, id));
    answer(f, id, "never");
    assert_int_equal(caller.r, -ERR_HOST_OFFLINE);
    assert_false(caller.is_in_doubt);
    caller_end(&caller);
}

static void an_interrupted_call_is_sent_again_under_its_id(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id;

    caller_begin(f, &caller);
    id = last_of(f, WIRE_CALL)->id;
    hello(f);
    assert_int_equal(count_of(f, WIRE_CALL), 1);
    answer(f, id, "interrupted");
    assert_int_equal(count_of(f, WIRE_CALL), 2);
    assert_true(ref_equal(last_of(f, WIRE_CALL)->id, id));
    reply_running(f, id);
    assert_int_equal(caller.r, 0);
    caller_end(&caller);
}

static void after_the_deadline_it_asks_and_then_is_in_doubt(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id;

    caller_begin(f, &caller);
    id = last_of(f, WIRE_CALL)->id;
    pass_ms(f, 59000, true);
    assert_null(last_of(f, WIRE_ASK));
    pass_ms(f, 2000, true);
    assert_true(ref_equal(last_of(f, WIRE_ASK)->id, id));
    assert_false(caller.is_done);
    pass_ms(f, 6000, true);
    assert_int_equal(caller.r, -ERR_HOST_OFFLINE);
    assert_true(caller.is_in_doubt);
    assert_null(last_of(f, WIRE_CONFIRM)); /* somebody will ask for it */
    caller_end(&caller);
}

static void a_host_that_is_given_up_leaves_doubt(void **state)
{
    struct fixture *f = *state;
    struct asker sent = {0}, late = {0}, unknown = {.host = {1, 1}};

    caller_begin(f, &sent);
    pass_ms(f, 12000, false);
    assert_int_equal(sent.r, -ERR_HOST_OFFLINE);
    assert_true(sent.is_in_doubt);
    caller_begin(f, &late); /* at once, and nothing was sent */
    assert_int_equal(late.r, -ERR_HOST_OFFLINE);
    assert_false(late.is_in_doubt);
    caller_begin(f, &unknown);
    assert_int_equal(unknown.r, -ERR_HOST_OFFLINE);
    assert_int_equal(count_of(f, WIRE_CALL), 1);
    caller_end(&sent);
    caller_end(&late);
    caller_end(&unknown);
}

static void a_call_waits_for_a_link_that_is_only_away(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};

    link_down(f);
    caller_begin(f, &caller);
    assert_null(last_of(f, WIRE_CALL));
    hello(f);
    assert_non_null(last_of(f, WIRE_CALL));
    reply_running(f, last_of(f, WIRE_CALL)->id);
    assert_int_equal(caller.r, 0);
    caller_end(&caller);
}

static void cancelling_leaves_doubt_when_it_was_sent(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};

    caller_begin(f, &caller);
    fiber_cancel(caller.fiber);
    mini_run(&f->mini);
    assert_int_equal(caller.r, -ERR_TASK_CANCELLED);
    assert_true(caller.is_in_doubt);
    caller_end(&caller);
}

static ref_t make_intent(struct fixture *f, const char *operation_id)
{
    struct txn *txn = store_begin(f->mini.core.store);
    ref_t intent = txn_create_new(txn, f->mini.core.random, CLASS_OF(intent), NULL);

    intent_put_operation_id(txn, intent, operation_id);
    store_apply(&txn);
    txn_end(&txn);
    mini_run(&f->mini);
    return intent;
}

static void the_intent_names_the_operation_before_it_leaves(void **state)
{
    struct fixture *f = *state;
    struct core *core = &f->mini.core;
    struct asker caller = {0};
    struct wire_frame *sent;
    char uuid[UUID_TEXT_BYTES];

    caller.call.intent = make_intent(f, "");
    caller_begin(f, &caller);
    sent = last_of(f, WIRE_CALL);
    assert_string_equal(intent_get_operation_id(view_get(store_core_view(core->store), intent, caller.call.intent)),
                        uuid_print(uuid, sent->id));
    reply_running(f, sent->id);
    assert_int_equal(caller.r, 0);
    assert_null(last_of(f, WIRE_CONFIRM)); /* not before the INTENT has ended */
    slave_confirm(&caller.call);
    assert_non_null(last_of(f, WIRE_CONFIRM));
    caller_end(&caller);
}

static void a_hello_confirms_what_nobody_will_ask_for(void **state)
{
    struct fixture *f = *state;
    struct value ids[] = {VALUE_REF(((ref_t){8, 1})), VALUE_REF(((ref_t){8, 2}))};
    struct wire_frame *confirm;
    char uuid[UUID_TEXT_BYTES];

    make_intent(f, uuid_print(uuid, ids[1].ref));
    f->operations = VALUE_SET(2, ids);
    hello(f);
    confirm = last_of(f, WIRE_CONFIRM);
    assert_non_null(confirm);
    assert_int_equal(confirm->operations.length, 1);
    assert_true(ref_equal(confirm->operations.items[0].ref, ids[0].ref));
}

static void an_earlier_operation_can_be_asked_for(void **state)
{
    struct fixture *f = *state;
    struct asker done = {.is_asking = true, .operation = {8, 1}}, never = {.is_asking = true, .operation = {8, 2}},
                  lost = {.is_asking = true, .operation = {8, 3}};

    caller_begin(f, &done);
    assert_true(ref_equal(last_of(f, WIRE_ASK)->id, done.operation));
    answer(f, done.operation, "done");
    assert_int_equal(done.r, 0);
    assert_int_equal(done.answer, SLAVE_ANSWER_DONE);
    assert_int_equal(done.result, 0);
    assert_string_equal(value_map_text(&done.ret, "state", ""), "running");
    caller_begin(f, &never);
    hello(f); /* asked again on the new link */
    answer(f, never.operation, "never");
    assert_int_equal(never.answer, SLAVE_ANSWER_NEVER);
    caller_begin(f, &lost);
    pass_ms(f, 11000, true);
    assert_int_equal(lost.r, -ERR_HOST_OFFLINE);
    caller_end(&done);
    caller_end(&never);
    caller_end(&lost);
}

static void crash_points_lose_messages_as_a_network_would(void **state)
{
    struct fixture *f = *state;
    struct asker caller = {0};
    ref_t id;

    assert_true(crash_arm("master.vm_unpause.call.before:drop-reply"));
    caller_begin(f, &caller);
    assert_null(last_of(f, WIRE_CALL));
    pass_ms(f, 1000, true);
    assert_int_equal(last_of(f, WIRE_BEAT)->seq, last_of(f, WIRE_DIRECTORY)->seq + 2); /* the slave sees the gap, */
    hello(f);                                                                          /* says hello, */
    id = last_of(f, WIRE_ASK)->id;
    answer(f, id, "never");                                                            /* and has not seen it: */
    reply_running(f, last_of(f, WIRE_CALL)->id);                                       /* it is sent anew */
    assert_int_equal(caller.r, 0);
    assert_false(caller.is_in_doubt);
    caller_end(&caller);
}

/* ---- notes and epochs ---- */

static void note(struct fixture *f, uint64_t number, uint64_t epoch)
{
    say(f, (struct wire_frame){.type = WIRE_NOTE,
                               .number = number,
                               .name = "guest",
                               .vm = vm_uuid,
                               .vm_epoch = epoch,
                               .body = a_state(f, "ended")});
}

static ref_t make_vm(struct fixture *f, int64_t epoch)
{
    struct txn *txn = store_begin(f->mini.core.store);
    ref_t vm = txn_create_new(txn, f->mini.core.random, CLASS_OF(VM), NULL);

    VM_put_uuid(txn, vm, vm_text);
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
    f->got_count = 0;
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
    items[1] = VALUE_REF(vm_uuid);
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

/* ---- enrolment ---- */

static void join(struct fixture *f, const char *key, ref_t host, const char *secret)
{
    struct wire_frame knock = {.type = WIRE_JOIN, .host = host, .version = WIRE_VERSION, .about = VALUE_EMPTY_MAP};
    struct wire_frame proof = {.type = WIRE_PROOF, .host = host}, *challenge;
    char nonce[WIRE_NONCE_BYTES], text[WIRE_PROOF_BYTES];

    wire_nonce(f->mini.core.random, nonce);
    knock.nonce = nonce;
    say_as(f, &f->door, key, &knock);
    challenge = last_of(f, WIRE_CHALLENGE);
    assert_non_null(challenge);
    wire_proof(secret, "slave", key, challenge->key, nonce, challenge->nonce, text);
    proof.proof = text;
    say_as(f, &f->door, key, &proof);
    if (last_of(f, WIRE_JOINED)) {
        wire_proof(secret, "master", key, challenge->key, nonce, challenge->nonce, text);
        assert_string_equal(last_of(f, WIRE_JOINED)->proof, text);
    }
}

static void a_host_joins_by_the_secret_only(void **state)
{
    struct fixture *f = *state;
    char key[LINK_KEY_BYTES], secret[LINK_KEY_BYTES], uuid[UUID_TEXT_BYTES];
    ref_t host = {0x33, 0x44};
    const struct object *row;

    link_keys_new(key, secret);
    join(f, key, host, "wrong");
    assert_non_null(last_of(f, WIRE_DENIED));
    assert_null(last_of(f, WIRE_JOINED));
    assert_false(is_allowed(f, key));

    join(f, key, host, "sesame");
    assert_non_null(last_of(f, WIRE_JOINED));
    assert_string_equal(last_of(f, WIRE_JOINED)->endpoint, "tcp://127.0.0.1:1");
    assert_true(is_allowed(f, key));
    row = view_by_uuid(store_core_view(f->mini.core.store), CLASS_OF(host), uuid_print(uuid, host));
    assert_non_null(row);
    assert_string_equal(host_get_curve_key(row), key);
    f->got_count = 0;
    join(f, key, host, "sesame"); /* again, as after a lost answer */
    assert_non_null(last_of(f, WIRE_JOINED));
}

static void drop_line(void *arg, enum log_level level, const char *line)
{
    (void) arg;
    (void) level;
    (void) line;
}

int main(void)
{
#define TEST(name)    cmocka_unit_test_setup_teardown(name, begin, end)
#define OPENING(name) cmocka_unit_test_setup_teardown(name, begin_opening, end)
    const struct CMUnitTest tests[] = {
        TEST(a_hello_is_welcomed_once),
        TEST(hosts_are_told_the_accounts),
        TEST(the_socket_of_the_own_slave_is_known),
        TEST(the_key_says_who_it_is),
        TEST(a_host_that_follows_another_master_is_not_welcomed),
        OPENING(nobody_is_welcomed_before_all_have_said_hello),
        OPENING(a_forgotten_epoch_of_ours_is_gone_above),
        OPENING(a_host_of_another_master_is_not_taken_from_it),
        OPENING(when_all_have_come_nobody_is_left_to_the_other),
        TEST(at_work_it_takes_nothing_whoever_had_the_epoch),
        OPENING(newer_generations_make_it_wait_for_a_hello_as_ours),
        OPENING(what_was_known_at_the_start_is_not_newer),
        TEST(beats_keep_a_host_alive_and_silence_does_not),
        TEST(a_lost_frame_ends_the_link),
        TEST(a_host_that_left_the_pool_is_shut_out),
        TEST(a_call_is_answered_and_confirmed),
        TEST(a_failure_comes_with_its_details),
        TEST(a_result_of_the_wrong_form_is_an_error),
        TEST(a_lost_reply_is_asked_for_on_the_next_link),
        TEST(never_means_that_it_may_be_sent_anew),
        TEST(never_after_the_deadline_is_the_end),
        TEST(an_interrupted_call_is_sent_again_under_its_id),
        TEST(after_the_deadline_it_asks_and_then_is_in_doubt),
        TEST(a_host_that_is_given_up_leaves_doubt),
        TEST(a_call_waits_for_a_link_that_is_only_away),
        TEST(cancelling_leaves_doubt_when_it_was_sent),
        TEST(the_intent_names_the_operation_before_it_leaves),
        TEST(a_hello_confirms_what_nobody_will_ask_for),
        TEST(an_earlier_operation_can_be_asked_for),
        TEST(crash_points_lose_messages_as_a_network_would),
        TEST(notes_are_handled_once_and_acknowledged),
        TEST(an_epoch_above_the_models_is_believed),
        TEST(a_host_joins_by_the_secret_only),
    };
#undef TEST

    log_set_sink(drop_line, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
