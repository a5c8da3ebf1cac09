/* test_mirror.c - the mirror against a real Redis: in step, away, emptied, restored, superseded,
 * and loaded from */
#include "random_pool.h"

#include "master/mirror.h"
#include "master/secret.h"
#include "shared/loop.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const ref_t pool_uuid = {0x1111222233334444, 0x8888777766665555};

struct world {
    char dir[64], socket[96], address[104];
    pid_t redis;
    struct loop *loop;
    struct store *store;
    struct mirror *mirror;
    struct seeded_random seeded;
    uint8_t key[SECRET_KEY_BYTES];
    struct mirror_config config;
    enum mirror_state told;
    int told_count;
};

static void nap(void)
{
    nanosleep(&(struct timespec){0, 2000000}, NULL);
}

static redisContext *connect_once(struct world *world)
{
    redisContext *context = redisConnectUnix(world->socket);

    if (context && context->err) {
        redisFree(context);
        return NULL;
    }
    return context;
}

static void redis_start(struct world *world)
{
    redisContext *context = NULL;

    world->redis = fork();
    if (world->redis == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves nothing behind */
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", world->socket,
               "--dir", world->dir, "--save", "", "--appendonly", "no", "--logfile", "redis.log",
               (char *) NULL);
        _exit(127);
    }
    for (int i = 0; i < 5000 && !context; i++) {
        redisReply *reply;

        nap();
        context = connect_once(world);
        reply = context ? redisCommand(context, "PING") : NULL;
        if (reply && reply->type == REDIS_REPLY_ERROR) { /* still loading its file */
            redisFree(context);
            context = NULL;
        }
        if (reply)
            freeReplyObject(reply);
    }
    assert_non_null(context);
    redisFree(context);
}

static void redis_kill(struct world *world)
{
    kill(world->redis, SIGKILL);
    assert_int_equal(waitpid(world->redis, NULL, 0), world->redis);
    unlink(world->socket);
}

/* The integer, or the length of the text, that Redis answers. */
static long long redis_ask(struct world *world, const char *command)
{
    redisContext *context = connect_once(world);
    redisReply *reply = redisCommand(context, command);
    long long answer;

    assert_non_null(reply);
    assert_int_not_equal(reply->type, REDIS_REPLY_ERROR);
    answer = reply->type == REDIS_REPLY_INTEGER ? reply->integer : (long long) reply->len;
    freeReplyObject(reply);
    redisFree(context);
    return answer;
}

static void told(void *arg, enum mirror_state state, const char *text)
{
    struct world *world = arg;

    assert_true(*text);
    world->told = state;
    world->told_count++;
}

static void mirror_begin(struct world *world, uint64_t epoch)
{
    world->mirror = mirror_new(&world->config, world->store, world->loop, epoch, (ref_t){epoch, 7},
                               store_newest_durable(world->store), told, world);
}

static int setup(void **state)
{
    struct world *world = new0(struct world);

    model_init();
    strcpy(world->dir, "/tmp/drover-test-XXXXXX");
    assert_non_null(mkdtemp(world->dir));
    snprintf(world->socket, sizeof world->socket, "%s/redis.sock", world->dir);
    snprintf(world->address, sizeof world->address, "unix:%s", world->socket);
    memset(world->key, 42, sizeof world->key);
    world->config = (struct mirror_config){
        .address = world->address, .pool = pool_uuid, .secret_key = world->key};
    world->loop = loop_new(clock_real());
    world->store = store_new(clock_real(), world->loop);
    store_load_end(world->store, 1, 0);
    seeded_random_init(&world->seeded, 11);
    redis_start(world);
    mirror_begin(world, 1);
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    char command[128];

    mirror_destroy(&world->mirror, 0);
    store_destroy(&world->store);
    loop_destroy(&world->loop);
    redis_kill(world);
    snprintf(command, sizeof command, "rm -rf %s", world->dir);
    assert_int_equal(system(command), 0);
    free(world);
    return 0;
}

static ref_t add_vm(struct world *world, const char *name)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(world->store);
    ref_t ref = txn_create_new(txn, &world->seeded.random, CLASS_OF(VM), NULL);

    VM_put_name_label(txn, ref, name);
    store_apply(&txn);
    return ref;
}

static void wait_for_state(struct world *world, enum mirror_state state)
{
    struct mirror_figures figures;

    for (int i = 0; i < 10000; i++) {
        while (loop_step(world->loop))
            ;
        mirror_figures(world->mirror, &figures);
        if (figures.state == state
            && (state != MIRROR_IN_STEP
                || (figures.generation == store_newest_durable(world->store)
                    && figures.waiting == 0)))
            return;
        nap();
    }
    fail_msg("state %d, generation %llu, waiting %llu", figures.state,
             (unsigned long long) figures.generation, (unsigned long long) figures.waiting);
}

static uint64_t incarnations(struct world *world)
{
    struct mirror_figures figures;

    mirror_figures(world->mirror, &figures);
    return figures.incarnations;
}

/* What a new master would start from is what this one has. */
static void assert_mirror_equals(struct world *world, uint64_t epoch)
{
    struct loop *loop = loop_new(clock_real());
    struct store *copy = store_new(clock_real(), loop);
    struct mirror_head head;
    char text[512] = "";
    size_t objects;
    struct view *mine, *theirs;

    mirror_destroy(&world->mirror, 5000);
    assert_int_equal(mirror_peek(&world->config, &head, text, sizeof text), 0);
    assert_int_equal(head.generation, store_newest_durable(world->store));
    if (mirror_load(&world->config, epoch, (ref_t){epoch, 7}, copy, &objects, text, sizeof text)
        < 0)
        fail_msg("%s", text);
    store_load_end(copy, epoch, head.generation);
    mine = store_pin(world->store);
    theirs = store_pin(copy);
    assert_int_equal(digest_view(mine, true, false), digest_view(theirs, true, false));
    view_unpin(&mine);
    view_unpin(&theirs);
    store_destroy(&copy);
    loop_destroy(&loop);
}

static void follows_and_is_loaded(void **state)
{
    struct world *world = *state;
    ref_t vm = add_vm(world, "one");
    char key[128];
    long long entries;

    wait_for_state(world, MIRROR_IN_STEP);
    assert_int_equal(incarnations(world), 1);
    /* The first VM is an entry, or part of the model that the incarnation began with. */
    snprintf(key, sizeof key, "XLEN drover:{%s}:log", "11112222-3333-4444-8888-777766665555");
    entries = redis_ask(world, key);
    for (int i = 0; i < 100; i++) {
        struct txn *txn = store_begin(world->store);

        VM_put_user_version(txn, vm, i + 1);
        store_apply(&txn);
        add_vm(world, "many");
    }
    {
        struct txn *txn = store_begin(world->store);
        ref_t account = txn_create_new(txn, &world->seeded.random, CLASS_OF(account), NULL);

        account_put_name_label(txn, account, "root");
        account_put_password_hash(txn, account, "hidden-hash-text");
        txn_delete(txn, CLASS_OF(VM), vm);
        store_apply(&txn);
    }
    wait_for_state(world, MIRROR_IN_STEP);
    assert_int_equal(incarnations(world), 1);
    assert_int_equal(redis_ask(world, key), entries + 201);
    assert_mirror_equals(world, 2);
    assert_int_equal(redis_ask(world, "SAVE"), 2);
    snprintf(key, sizeof key, "grep -qa hidden-hash-text %s/dump.rdb", world->dir);
    assert_int_not_equal(system(key), 0);
}

static void large_change_is_staged(void **state)
{
    struct world *world = *state;
    struct txn *txn;

    add_vm(world, "first");
    wait_for_state(world, MIRROR_IN_STEP);
    txn = store_begin(world->store);
    for (int i = 0; i < 2500; i++)
        txn_create_new(txn, &world->seeded.random, CLASS_OF(VM), NULL);
    store_apply(&txn);
    wait_for_state(world, MIRROR_IN_STEP);
    assert_int_equal(incarnations(world), 1);
    assert_mirror_equals(world, 2);
}

static void away_then_caught_up(void **state)
{
    struct world *world = *state;

    add_vm(world, "before");
    wait_for_state(world, MIRROR_IN_STEP);
    /* Stopped, it answers nothing; nothing is lost in it. */
    kill(world->redis, SIGSTOP);
    for (int i = 0; i < 50; i++)
        add_vm(world, "meanwhile");
    kill(world->redis, SIGCONT);
    wait_for_state(world, MIRROR_IN_STEP);
    assert_int_equal(incarnations(world), 1);

    assert_int_equal(redis_ask(world, "SAVE"), 2);
    redis_kill(world);
    add_vm(world, "while it is dead");
    wait_for_state(world, MIRROR_AWAY);
    assert_int_equal(world->told, MIRROR_AWAY);
    redis_start(world);
    wait_for_state(world, MIRROR_IN_STEP);
    assert_int_equal(incarnations(world), 1); /* what it had was followed up */
    assert_mirror_equals(world, 2);
}

static void emptied_is_seen_without_a_write(void **state)
{
    struct world *world = *state;

    add_vm(world, "one");
    wait_for_state(world, MIRROR_IN_STEP);
    assert_int_equal(redis_ask(world, "FLUSHALL"), 2);
    for (int i = 0; i < 10000 && incarnations(world) < 2; i++)
        nap();
    assert_int_equal(incarnations(world), 2);
    wait_for_state(world, MIRROR_IN_STEP);
    assert_mirror_equals(world, 2);
}

static void old_dump_is_seen_and_healed(void **state)
{
    struct world *world = *state;

    add_vm(world, "in the dump");
    wait_for_state(world, MIRROR_IN_STEP);
    assert_int_equal(redis_ask(world, "SAVE"), 2);
    add_vm(world, "after the dump");
    wait_for_state(world, MIRROR_IN_STEP);
    redis_kill(world);
    redis_start(world); /* loads the dump */
    for (int i = 0; i < 10000 && incarnations(world) < 2; i++)
        nap();
    assert_int_equal(incarnations(world), 2);
    wait_for_state(world, MIRROR_IN_STEP);
    assert_mirror_equals(world, 2);
}

static void too_much_missed_is_written_anew(void **state)
{
    struct world *world = *state;

    mirror_destroy(&world->mirror, 0);
    store_destroy(&world->store);
    world->store = store_new(clock_real(), world->loop);
    store_load_end(world->store, 1, 0);
    world->config.queue_bytes_max = 4096;
    world->config.pool.hi++;
    mirror_begin(world, 1);
    add_vm(world, "one");
    wait_for_state(world, MIRROR_IN_STEP);
    kill(world->redis, SIGSTOP);
    for (int i = 0; i < 200; i++)
        add_vm(world, "more than the queue holds");
    kill(world->redis, SIGCONT);
    for (int i = 0; i < 10000 && incarnations(world) < 2; i++) {
        while (loop_step(world->loop))
            ;
        nap();
    }
    assert_true(incarnations(world) >= 2);
    wait_for_state(world, MIRROR_IN_STEP);
    assert_mirror_equals(world, 2);
}

static void higher_epoch_stops_us(void **state)
{
    struct world *world = *state;
    struct loop *loop = loop_new(clock_real());
    struct store *other = store_new(clock_real(), loop);
    struct mirror_head head;
    char text[512];
    size_t objects;

    add_vm(world, "one");
    wait_for_state(world, MIRROR_IN_STEP);
    assert_int_equal(
        mirror_load(&world->config, 5, (ref_t){5, 5}, other, &objects, text, sizeof text), 0);
    add_vm(world, "not for Redis any more");
    wait_for_state(world, MIRROR_SUPERSEDED);
    assert_int_equal(mirror_peek(&world->config, &head, text, sizeof text), 0);
    assert_int_equal(head.epoch, 5);
    assert_true(head.generation < store_newest_durable(world->store));
    /* and a lower one cannot load */
    assert_int_equal(
        mirror_load(&world->config, 4, (ref_t){4, 4}, other, &objects, text, sizeof text), -ESTALE);
    store_load_end(other, 9, 9);
    store_destroy(&other);
    loop_destroy(&loop);
}

static void foreign_bytes_are_refused(void **state)
{
    struct world *world = *state;
    struct loop *loop = loop_new(clock_real());
    struct store *other = store_new(clock_real(), loop);
    struct mirror_head head;
    char text[512] = "", command[256];
    size_t objects;

    add_vm(world, "one");
    wait_for_state(world, MIRROR_IN_STEP);
    assert_int_equal(mirror_peek(&world->config, &head, text, sizeof text), 0);
    snprintf(command, sizeof command,
             "HSET drover:{11112222-3333-4444-8888-777766665555}:%s:VM x garbage",
             head.incarnation);
    assert_int_equal(redis_ask(world, command), 1);
    assert_int_equal(
        mirror_load(&world->config, 9, (ref_t){9, 9}, other, &objects, text, sizeof text),
        -EBADMSG);
    assert_non_null(strstr(text, "VM record"));
    store_load_end(other, 9, 9);
    store_destroy(&other);
    loop_destroy(&loop);
}

static void secrets_are_sealed(void **state)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    uint8_t key[SECRET_KEY_BYTES] = {1}, other_key[SECRET_KEY_BYTES] = {2};
    ref_t object = {3, 4};
    const char *sealed = secret_seal(key, object, "password_hash", "text", arena);

    (void) state;
    assert_string_equal(secret_open(key, object, "password_hash", sealed, arena), "text");
    assert_null(secret_open(other_key, object, "password_hash", sealed, arena));
    assert_null(secret_open(key, object, "other_field", sealed, arena));
    assert_null(secret_open(key, (ref_t){3, 5}, "password_hash", sealed, arena));
    assert_null(secret_open(key, object, "password_hash", "sealed:1:AAAA", arena));
    assert_null(secret_open(key, object, "password_hash", "sealed:1:", arena));
    assert_string_equal(secret_open(key, object, "password_hash", "plain", arena), "plain");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(follows_and_is_loaded),
        TEST(large_change_is_staged),
        TEST(away_then_caught_up),
        TEST(emptied_is_seen_without_a_write),
        TEST(old_dump_is_seen_and_healed),
        TEST(too_much_missed_is_written_anew),
        TEST(higher_epoch_stops_us),
        TEST(foreign_bytes_are_refused),
        cmocka_unit_test(secrets_are_sealed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
