/* test_agent_disks.c - who may write to a disk: owner records, devices that come and go, an SR that is not mounted */
#include <sys/stat.h>

#include "tests/unit/agent_world.h"

/* ---- disks ---- */

static void put_owner(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* The file of a disk, or of an image. */
static void put_file(struct fixture *f, const char *directory, const char *name)
{
    put_owner(arena_text(f->arena, "%s/%s", directory, name), "");
}

static void a_higher_owner_record_keeps_the_disk_shut(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/drover-agent-XXXXXX", path[128], text[128] = "", command[128];
    struct value disk[8], disks, map;
    struct slave_vm_start_args args = {.vm = vm1_text, .epoch = 3, .config = &no_options, .nics = &no_disks};
    FILE *file;
    ref_t id;

    assert_non_null(mkdtemp(dir));
    put_file(f, dir, "a.raw");
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
    put_file(f, dir, "a.raw");
    put_file(f, dir, "image");
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

    put_file(f, two->dir, "c.raw");
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

/* Its link has gone over it, so nobody may wait for it any more: the hello of then did not know the disk. */
static void a_plug_that_outlasts_its_link_is_told(void **state)
{
    struct fixture *f = *state;
    struct two_disks two;
    struct value disk;
    int hellos;

    two_disks_make(f, &two, "raw");
    disk = third_disk(f, &two);
    f->fake.is_holding = true;
    plug(f, new_id(f), &disk);
    f->transport.receiver.down(f->transport.receiver.arg, f->master_key, "test");
    pass_ms(f, 300);
    welcome(f);
    hellos = count_of(f, WIRE_HELLO);
    fake_tell(&f->fake);
    pass_ms(f, 100);
    assert_int_equal(count_of(f, WIRE_HELLO), hellos + 1);
    assert_string_equal(value_map_text(&last_of(f, WIRE_HELLO)->guests.items[0], "disks", ""),
                        "0 a.raw\n1 b.raw\n2 c.raw\n");
    welcome(f);
    f->fake.is_holding = false;
    unplug(f, new_id(f), "2"); /* in time: the answer tells it */
    assert_int_equal(count_of(f, WIRE_HELLO), hellos + 1);
    two_disks_end(&two);
}

/* The copy has taken its disks when the master that wanted it to run was not followed any more: the source gets them back. */
static void a_copy_that_was_called_off_holds_no_disk(void **state)
{
    struct fixture *f = *state;
    struct two_disks two;
    struct slave_vm_receive_open_args open = {
        .vm = vm1_text, .epoch = 6, .move = "m1", .config = &no_options, .nics = &no_disks};
    struct slave_vm_receive_abort_args abort = {.vm = vm1_text, .epoch = 6, .move = "m1"};
    FILE *file;

    two_disks_make(f, &two, "raw");
    assert_string_equal(code_of(f, simple(f, SLAVE_CALL_vm_kill, 3)), "");
    open.disks = &two.disks;
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_receive_open, &open)), "");
    file = fopen(arena_text(f->arena, "%s/a.raw.owner", two.dir), "w");
    fputs("6 00000000-0000-0007-0000-000000000007 " VM1_TEXT "\n", file);
    fclose(file);
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_receive_abort, &abort)), "");
    assert_string_equal(owner_of(f, &two, "a.raw"), "4 00000000-0000-0007-0000-000000000007 " VM1_TEXT " free");
    assert_string_equal(owner_of(f, &two, "b.raw"), given_back_by_1);
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
    assert_string_equal(owner_of(f, &two, "b.raw"),
                        "2 00000000-0000-0007-0000-000000000007 00000000-0000-0002-0000-000000000002");
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

/* The mount point alone is a directory, too. A guest that were let into it would write, with its owner record, beside its
 * disk. */
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
    put_file(f, mount, "a.raw");
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
    assert_true(is_not_mounted(
        f, call(f, SLAVE_CALL_vm_snapshot, &(struct slave_vm_snapshot_args){vm1_text, 4, &disks, false})));
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

/* A start, reboot or plug of a disk whose file is gone makes nothing and ends nothing. */
static void a_disk_whose_file_is_gone_is_missed_first(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/drover-agent-XXXXXX";
    struct value disk, second, disks;
    struct slave_vm_start_args start_args = {.vm = vm1_text, .epoch = 3, .config = &no_options, .nics = &no_disks};
    struct slave_vm_reboot_args reboot_args = {
        .vm = vm1_text, .epoch = 4, .config = &no_options, .nics = &no_disks, .is_hard = true};
    struct wire_frame *reply;
    ref_t id;

    assert_non_null(mkdtemp(dir));
    put_owner(arena_text(f->arena, "%s/.drover-sr", dir), "sr-a\n");
    disk = shared_disk(f, dir, "a.raw", "0");
    second = shared_disk(f, dir, "b.raw", "1");
    disks = VALUE_SET(1, &disk);
    start_args.disks = reboot_args.disks = &disks;
    id = call(f, SLAVE_CALL_vm_start, &start_args);
    assert_string_equal(code_of(f, id), "VDI_LOCATION_MISSING");
    reply = of_id(f, WIRE_REPLY, id);
    assert_string_equal(reply->params.items[0].text, "sr-a");
    assert_string_equal(reply->params.items[1].text, "a.raw");
    assert_null(fake_find(&f->fake, vm1));

    put_file(f, dir, "a.raw");
    start_args.epoch = 4;
    assert_string_equal(state_of(f, call(f, SLAVE_CALL_vm_start, &start_args)), "running");
    id = call(f, SLAVE_CALL_vbd_plug, &(struct slave_vbd_plug_args){vm1_text, 4, &second});
    assert_string_equal(code_of(f, id), "VDI_LOCATION_MISSING");
    assert_int_equal(unlink(arena_text(f->arena, "%s/a.raw", dir)), 0);
    assert_string_equal(code_of(f, call(f, SLAVE_CALL_vm_reboot, &reboot_args)), "VDI_LOCATION_MISSING");
    assert_int_equal(guest(f)->starts, 1);
    assert_int_equal(guest(f)->found.state, GUEST_RUNNING);
    assert_int_equal(system(arena_text(f->arena, "rm -rf %s", dir)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_higher_owner_record_keeps_the_disk_shut),
        TEST(a_plugged_disk_is_owned_until_it_is_unplugged),
        TEST(an_interrupted_plug_is_done_once),
        TEST(a_plug_that_outlasts_its_link_is_told),
        TEST(a_copy_that_was_called_off_holds_no_disk),
        TEST(a_disk_that_was_given_back_is_free_for_another_vm),
        TEST(memory_that_is_older_than_its_disks_is_not_resumed),
        TEST(no_guest_is_let_where_an_sr_is_not_mounted),
        TEST(a_disk_whose_file_is_gone_is_missed_first),
    };

    no_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
