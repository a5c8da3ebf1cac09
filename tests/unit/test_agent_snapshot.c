/* test_agent_snapshot.c - snapshots of the disks of a guest that runs, and what fails or dies meanwhile */
#include <sys/stat.h>

#include "tests/unit/agent_world.h"

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

/* A new master is followed while the guest stands, and was told that it is paused. */
static void a_snapshot_of_an_older_master_lets_the_guest_go_on(void **state)
{
    struct fixture *f = *state;
    struct two_disks two;
    int hellos;

    two_disks_make(f, &two, "raw");
    f->fake.is_holding = true;
    snapshot_as(f, new_id(f), &two, "one", false);
    assert_int_equal(guest(f)->found.state, GUEST_PAUSED);
    f->transport.receiver.down(f->transport.receiver.arg, f->master_key, "test");
    pass_ms(f, 300);
    f->epoch++;
    f->holder = (ref_t){8, 8};
    welcome(f);
    hellos = count_of(f, WIRE_HELLO);
    f->fake.is_holding = false;
    fake_tell(&f->fake);
    pass_ms(f, 300);
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    assert_true(count_of(f, WIRE_HELLO) > hellos);
    assert_string_equal(value_map_text(&last_of(f, WIRE_HELLO)->guests.items[0], "state", ""), "running");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_snapshot_holds_the_guest_for_a_moment),
        TEST(a_snapshot_that_fails_lets_the_guest_go_on),
        TEST(a_snapshot_of_an_older_master_lets_the_guest_go_on),
        TEST(an_interrupted_snapshot_is_finished_by_the_next_agent),
        TEST(a_disk_is_destroyed_after_it_was_made),
        TEST(a_kill_comes_through_a_snapshot),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
