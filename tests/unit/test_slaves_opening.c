/* test_slaves_opening.c - what a master learns of epochs from hosts, before it welcomes one and at work */
#include "tests/unit/slaves_world.h"

/* A second host of the store, which is away. */
static ref_t add_host(struct fixture *f)
{
    struct txn *txn = store_begin(f->mini.core.store);
    char key[LINK_KEY_BYTES], secret[LINK_KEY_BYTES];
    ref_t host = txn_create_new(txn, f->mini.core.random, CLASS_OF(host), NULL);

    link_keys_new(key, secret);
    host_put_curve_key(txn, host, key);
    store_apply(&txn);
    txn_end(&txn);
    mini_run(&f->mini);
    return host;
}

static void hello_from(struct fixture *f, ref_t ref, uint64_t epoch, const char *key, uint64_t generation)
{
    const struct object *host = view_get(store_core_view(f->mini.core.store), host, ref);
    struct wire_frame frame = {.type = WIRE_HELLO,
                               .link = ++f->link,
                               .version = WIRE_VERSION,
                               .epoch = epoch,
                               .holder = epoch == 7 ? f->mini.core.holder : (ref_t){6, 6},
                               .generation = generation,
                               .key = key,
                               .about = VALUE_EMPTY_MAP,
                               .guests = f->guests,
                               .operations = f->operations};

    assert_true(uuid_parse(host_get_uuid(host), strlen(host_get_uuid(host)), &frame.host));
    f->sent = 0;
    say_as(f, &f->transport, host_get_curve_key(host), &frame);
}

static void hello_of(struct fixture *f, uint64_t epoch, const char *key, uint64_t generation)
{
    hello_from(f, f->mini.core.host, epoch, key, generation);
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

/* Some hosts follow another master, some our forgotten selves: those are ours to go above. */
static void above_ours_and_not_above_the_others(void **state)
{
    struct fixture *f = *state;
    ref_t other = add_host(f);

    add_host(f);
    hello_of(f, 8, f->master_key, 300);
    hello_from(f, other, 11, "another master", 400);
    pass_ms(f, 4000, false);
    assert_int_equal(f->above.epoch, 8);
    assert_int_equal(f->above.generation, 400);
}

static void at_work_it_takes_nothing_from_another_master(void **state)
{
    struct fixture *f = *state;

    hello_of(f, 9, "another master", 300);
    assert_int_equal(f->above.epoch, 0);
    assert_int_equal(f->higher_epoch, 9);
}

/* The host that knows it has come when others were welcomed. */
static void at_work_a_forgotten_epoch_of_ours_is_gone_above(void **state)
{
    struct fixture *f = *state;

    hello_of(f, 7, f->master_key, 0);
    assert_true(slave_has_followed(f->mini.core.slaves, f->mini.core.host));
    f->got.count = 0;
    hello_of(f, 9, f->master_key, 300);
    assert_int_equal(f->above.epoch, 9);
    assert_int_equal(f->above.generation, 300);
    assert_int_equal(f->higher_epoch, 0);
    assert_false(slave_has_followed(f->mini.core.slaves, f->mini.core.host));
    hello_of(f, 6, f->master_key, 300); /* nobody is welcomed any more */
    assert_int_equal(count_of(f, WIRE_WELCOME), 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        OPENING(nobody_is_welcomed_before_all_have_said_hello),
        OPENING(a_forgotten_epoch_of_ours_is_gone_above),
        OPENING(a_host_of_another_master_is_not_taken_from_it),
        OPENING(when_all_have_come_nobody_is_left_to_the_other),
        OPENING(above_ours_and_not_above_the_others),
        TEST(at_work_it_takes_nothing_from_another_master),
        TEST(at_work_a_forgotten_epoch_of_ours_is_gone_above),
        OPENING(newer_generations_make_it_wait_for_a_hello_as_ours),
        OPENING(what_was_known_at_the_start_is_not_newer),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
