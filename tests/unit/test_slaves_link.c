/* test_slaves_link.c - links of hosts to their master: who is welcomed, who is alive, who joins */
#include "tests/unit/slaves_world.h"

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
    f->got.count = 0;
    join(f, key, host, "sesame"); /* again, as after a lost answer */
    assert_non_null(last_of(f, WIRE_JOINED));
}

static bool is_told_away(struct fixture *f)
{
    return host_get_guests_away(view_get(store_core_view(f->mini.core.store), host, f->mini.core.host));
}

static void a_host_says_whether_guests_can_be_made_there(void **state)
{
    struct fixture *f = *state;
    struct value state_of[] = {value_text("state"), value_text("away")};
    struct value about[] = {value_text("hypervisor_state"), value_text("away")};

    assert_false(is_told_away(f));
    for (uint64_t number = 1; number <= 2; number++) {
        say(f, (struct wire_frame){
                   .type = WIRE_NOTE, .number = number, .name = "hypervisor", .body = VALUE_MAP(1, state_of)});
        assert_int_equal(is_told_away(f), number == 1);
        assert_true(is_live(f));
        state_of[1] = value_text("there");
    }
    f->about = VALUE_MAP(1, about);
    hello(f); /* to a master that may know nothing of it */
    assert_true(is_told_away(f));
    f->about = VALUE_VOID;
    hello(f);
    assert_false(is_told_away(f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_hello_is_welcomed_once),
        TEST(hosts_are_told_the_accounts),
        TEST(the_socket_of_the_own_slave_is_known),
        TEST(the_key_says_who_it_is),
        TEST(a_host_that_follows_another_master_is_not_welcomed),
        TEST(beats_keep_a_host_alive_and_silence_does_not),
        TEST(a_host_says_whether_guests_can_be_made_there),
        TEST(a_lost_frame_ends_the_link),
        TEST(a_host_that_left_the_pool_is_shut_out),
        TEST(a_host_joins_by_the_secret_only),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
