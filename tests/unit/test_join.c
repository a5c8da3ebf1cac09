/* test_join.c - a host joins a master over real sockets, is linked, and starts a guest
 *
 * Master and agent are whole, in one loop; only guests are a table. What slaves_world.h and agent_world.h script from one side
 * each is here said by the other. */
#include "tests/unit/mini_master.h"

#include <stdatomic.h>
#include <unistd.h>

#include "master/enrol.h"
#include "master/slaves.h"
#include "shared/log.h"
#include "slave/agent.h"
#include "slave/ledger.h"
#include "slave/reset_master.h"
#include "slave/vms.h"
#include "tests/unit/fake_hypervisor.h"

#define SECRET  "correct horse battery staple"
#define WAIT_MS 30000

static const ref_t host_uuid = {0x6a7f1f4c00004000, 0x8000000000000099};
static const char vm_text[] = "6a7f1f4c-0000-4000-8000-000000000001";

/* libzmq is not instrumented: what it hands from thread to thread by its own atomics would look unsynchronised. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1";
}

struct fixture {
    struct mini mini;
    struct link_transport *link, *door;         /* the master's */
    char key[LINK_KEY_BYTES], secret[LINK_KEY_BYTES];
    struct fake_hypervisor fake;
    struct ledger_disk disk;
    struct ledger *ledger;
    struct link_transport *agent_link, *agent_door;
    struct agent *agent;
    const char *agent_secret;                   /* the pool's, as the host was given it */
    const char *agent_join;                     /* where it is to join; NULL: at the master's door */
    const char *reset_to;                       /* of reset_main() */
    struct failure failure;
    bool is_done;
    int r;
};

#define UNTIL(f, condition)                                                                        \
    do {                                                                                           \
        uint64_t until_ = clock_now_ms(clock_real()) + WAIT_MS;                                    \
        while (!(condition)) {                                                                     \
            assert_true(clock_now_ms(clock_real()) < until_);                                      \
            if (!loop_step((f)->mini.core.loop))                                                   \
                usleep(500);                                                                       \
        }                                                                                          \
    } while (0)

static int begin(void **state)
{
    struct fixture *f = new0(struct fixture);
    struct slaves_config config = {.pool_secret = SECRET, .key = f->key};
    char door_public[LINK_KEY_BYTES], door_secret[LINK_KEY_BYTES];
    int error;

    mini_start_real(&f->mini);
    f->mini.core.epoch = 3;
    f->mini.core.holder = ref_new(random_real());
    link_keys_new(f->key, f->secret);
    link_keys_from_secret(SECRET, door_public, door_secret);
    f->link = link_zmq_listen(f->mini.core.loop, "tcp://127.0.0.1:*", f->secret, false, &error);
    f->door = link_zmq_listen(f->mini.core.loop, "tcp://127.0.0.1:*", door_secret, true, &error);
    assert_non_null(f->link);
    assert_non_null(f->door);
    config.link_endpoint = link_zmq_endpoint(f->link);
    slaves_new(&f->mini.core, &config, f->link, f->door);
    slaves_start(f->mini.core.slaves);
    f->agent_secret = SECRET;
    *state = f;
    return 0;
}

static void agent_main(void *arg)
{
    struct fixture *f = arg;
    struct agent_config config = {.address = "127.0.0.1",
                                  .name = "h1",
                                  .memory_bytes = 1 << 30,
                                  .cpus = 2,
                                  .is_simulated = true,
                                  .join_endpoint = f->agent_join ? f->agent_join : link_zmq_endpoint(f->door),
                                  .pool_secret = f->agent_secret};
    char secret[LINK_KEY_BYTES];
    struct loop *loop = f->mini.core.loop;

    agent_identity(f->ledger, random_real(), host_uuid, secret);
    f->agent_link = link_zmq_connect(loop, secret);
    f->agent_door = link_zmq_connect(loop, secret);
    f->agent = agent_new(&config, loop, random_real(), f->mini.core.workers, f->ledger, &f->fake.hypervisor,
                         f->agent_link, f->agent_door);
    agent_start(f->agent);
}

static void agent_up(struct fixture *f)
{
    int error;

    fake_attach(&f->fake, f->mini.core.loop);
    f->ledger = ledger_new(f->mini.core.loop, ledger_memory_open(&f->disk, f->mini.core.loop), &error);
    assert_non_null(f->ledger);
    fiber_spawn(f->mini.core.loop, agent_main, f, "agent");
    UNTIL(f, f->agent);
}

/* The loop is the master's, too, and goes on: no fiber may be waiting for the ledger. */
static void agent_down(struct fixture *f)
{
    while (loop_step(f->mini.core.loop))
        ;
    agent_destroy(&f->agent);
    f->agent_door->destroy(&f->agent_door);
    f->agent_link->destroy(&f->agent_link);
    ledger_destroy(&f->ledger);
}

static int end(void **state)
{
    struct fixture *f = *state;

    loop_abandon(f->mini.core.loop);
    agent_down(f);
    slaves_destroy(&f->mini.core.slaves);
    f->door->destroy(&f->door);
    f->link->destroy(&f->link);
    mini_stop(&f->mini);
    fake_attach(&f->fake, NULL);
    fake_done(&f->fake);
    ledger_disk_done(&f->disk);
    free(f);
    return 0;
}

static ref_t host_ref(struct fixture *f)
{
    char uuid[UUID_TEXT_BYTES];
    const struct object *host =
        view_by_uuid(store_core_view(f->mini.core.store), CLASS_OF(host), uuid_print(uuid, host_uuid));

    return host ? host->ref : NULL_REF;
}

static void start_main(void *arg)
{
    struct fixture *f = arg;
    struct arena *arena = arena_new();
    struct call call = {.core = &f->mini.core, .arena = arena, .name = "test", .tag = "test"};
    struct value none = VALUE_EMPTY_MAP, no_items = VALUE_EMPTY_SET;
    struct slave_vm_start_args args = {
        .vm = vm_text, .epoch = 1, .config = &none, .disks = &no_items, .nics = &no_items};

    f->r = slave_vm_start(&call, host_ref(f), &args, NULL);
    f->is_done = true;
    arena_destroy(&arena);
}

static void a_host_joins_and_starts_a_guest(void **state)
{
    struct fixture *f = *state;
    ref_t vm;

    agent_up(f);
    UNTIL(f, slave_is_linked(f->mini.core.slaves, host_ref(f)));
    UNTIL(f, agent_is_linked(f->agent));
    assert_string_equal(host_get_address(view_get(store_core_view(f->mini.core.store), host, host_ref(f))), "127.0.0.1");
    fiber_spawn(f->mini.core.loop, start_main, f, "start");
    UNTIL(f, f->is_done);
    assert_int_equal(f->r, 0);
    assert_true(uuid_parse(vm_text, strlen(vm_text), &vm));
    assert_int_equal(fake_find(&f->fake, vm)->found.state, GUEST_RUNNING);
    UNTIL(f, ledger_op_count(f->ledger) == 0); /* confirmed */

    /* An agent that comes back needs the door no more. */
    agent_down(f);
    f->agent_secret = NULL;
    agent_up(f);
    UNTIL(f, agent_is_linked(f->agent));
    UNTIL(f, slave_is_linked(f->mini.core.slaves, host_ref(f)));
}

static void reset_main(void *arg)
{
    struct fixture *f = arg;
    struct arena *arena = arena_new();

    f->failure = (struct failure){0};
    f->r = reset_master(f->agent, f->reset_to, "192.0.2.2", arena, &f->failure);
    f->is_done = true;
    arena_destroy(&arena);
}

static int reset_to(struct fixture *f, const char *address)
{
    f->reset_to = address;
    f->is_done = false;
    fiber_spawn(f->mini.core.loop, reset_main, f, "reset");
    UNTIL(f, f->is_done);
    return f->r;
}

/* Somebody else's door, and the same machine's other one. */
static void a_host_is_sent_to_another_master(void **state)
{
    static const char *const wrong[] = {"",          "0.0.0.0",      "::",        "224.0.0.1",    "255.255.255.255",
                                        "ff02::1",   "a b",          "127.0.0.1:0", "127.0.0.1:x", "[::1]",
                                        "nobody.invalid", "127.0.0.1:70000"};
    struct fixture *f = *state;
    char address[64];

    f->agent_join = "tcp://127.0.0.1:1"; /* nobody is there */
    agent_up(f);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_int_equal(reset_to(f, wrong[i]), -ERR_INVALID_VALUE);
    assert_int_equal(reset_to(f, "192.0.2.2"), -ERR_HOST_ITS_OWN_SLAVE);
    assert_int_equal(reset_to(f, "192.0.2.2:10"), -ERR_HOST_ITS_OWN_SLAVE);
    assert_int_equal(agent_join_port(f->agent), 1);
    assert_int_equal(reset_to(f, "::1"), 0);
    assert_string_equal(ledger_meta(f->ledger, "join", ""), "tcp://[::1]:1"); /* the port stays what it was */
    snprintf(address, sizeof address, "localhost:%s", strrchr(link_zmq_endpoint(f->door), ':') + 1);
    assert_int_equal(reset_to(f, address), 0);
    UNTIL(f, agent_is_linked(f->agent));
    UNTIL(f, slave_is_linked(f->mini.core.slaves, host_ref(f)));

    /* To one that does not answer, and killed before it has given up: the next agent looks for it there, not where it was. */
    assert_int_equal(reset_to(f, "127.0.0.1:1"), 0);
    assert_false(agent_is_linked(f->agent));
    agent_down(f);
    agent_up(f);
    assert_int_equal(agent_join_port(f->agent), 1);
    assert_string_equal(ledger_meta(f->ledger, "master_key", ""), "");
    assert_int_equal(reset_to(f, address), 0);
    agent_down(f);
    agent_up(f);
    UNTIL(f, agent_is_linked(f->agent));

    /* A setting that says something new goes over what was said before. */
    agent_down(f);
    f->agent_join = "tcp://127.0.0.1:2";
    agent_up(f);
    assert_int_equal(agent_join_port(f->agent), 2);
    agent_down(f);
    f->agent_secret = NULL;
    agent_up(f);
    assert_int_equal(reset_to(f, address), -ERR_OPERATION_NOT_ALLOWED);
    UNTIL(f, agent_is_linked(f->agent)); /* with the master that it knows */
}

static atomic_int strangers_told;

/* All others are dropped. */
static void take_line(void *arg, enum log_level level, const char *line)
{
    (void) arg;
    if (level == LOG_WARNING && strstr(line, "127.0.0.1 tried to speak and does not have our pool secret"))
        atomic_fetch_add(&strangers_told, 1);
}

static void without_the_secret_nobody_joins(void **state)
{
    struct fixture *f = *state;
    uint64_t until;

    f->agent_secret = "wrong";
    agent_up(f);
    UNTIL(f, atomic_load(&strangers_told) > 0); /* a machine that is busy takes its time */
    until = clock_now_ms(clock_real()) + 1500;
    while (clock_now_ms(clock_real()) < until)
        if (!loop_step(f->mini.core.loop))
            usleep(1000);
    assert_true(ref_is_null(host_ref(f)));
    assert_false(agent_is_linked(f->agent));
    assert_int_equal(atomic_load(&strangers_told), 1); /* though it knocked several times */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_host_joins_and_starts_a_guest, begin, end),
        cmocka_unit_test_setup_teardown(a_host_is_sent_to_another_master, begin, end),
        cmocka_unit_test_setup_teardown(without_the_secret_nobody_joins, begin, end),
    };

    log_set_sink(take_line, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
