/* test_guests.c - simulated guests on one host: their life, and processes that die, stop and are
 * replaced */
#include "tests/unit/guests_world.h"

/* --- life on one host --- */

static void guest_runs_pauses_and_ends(_unused_ void **state)
{
    struct test_vm vm;
    struct guest_sample sample;

    host_up(0);
    vm_make(&vm, 1, 7, NULL);
    OK(begin_start(0, &vm));
    assert_state(0, &vm, GUEST_PAUSED);
    assert_true(lock_is_free(&vm));
    assert_int_equal(journal_read(&vm).ticks, 0);

    OK(VM_CALL(0, unpause, &vm));
    assert_state(0, &vm, GUEST_RUNNING);
    assert_int_equal(vm_found(0, &vm).epoch, 7);
    assert_int_equal(vm_found(0, &vm).domid, 1);
    assert_false(lock_is_free(&vm));
    wait_ticks(&vm, 5);
    assert_string_equal(journal_read(&vm).last_host, world.hosts[0].uuid);
    assert_int_equal(journal_read(&vm).last_epoch, 7);
    OK(VM_CALL(0, unpause, &vm)); /* again: the same */

    OK(VM_CALL(0, pause, &vm));
    assert_state(0, &vm, GUEST_PAUSED);
    assert_false(lock_is_free(&vm)); /* it is still ours */
    assert_no_ticks(&vm);
    OK(VM_CALL(0, unpause, &vm));
    wait_ticks(&vm, 3);
    OK(VM_CALL(0, set_memory_target, &vm, 12345678));
    OK(VM_CALL(0, set_vcpus, &vm, 3));
    assert_int_equal(driver(0)->sample(driver(0), vm.config.vm, &sample), 0);
    assert_int_equal(sample.memory_actual_bytes, 12345678);

    OK(VM_CALL(0, kill, &vm));
    assert_ended(0, &vm, GUEST_KILLED);
    assert_true(lock_is_free(&vm));
    assert_false(journal_read(&vm).is_broken);
    assert_int_equal(FINISH(VM_CALL(0, unpause, &vm)), -(int) ERR_VM_BAD_POWER_STATE);
    OK(VM_CALL(0, kill, &vm));
    OK(VM_CALL(0, forget, &vm));
    assert_state(0, &vm, GUEST_NONE);
    OK(VM_CALL(0, kill, &vm)); /* of an unknown guest */
    assert_true(driver(0)->sample(driver(0), vm.config.vm, &sample) < 0);
    assert_int_equal(world.hosts[0].change_count, 0);
    assert_int_equal(judge(&vm), 0);
}

static bool has_sample(void *arg)
{
    struct test_vm *vm = arg;
    struct guest_sample sample;

    return driver(0)->sample(driver(0), vm->config.vm, &sample) == 0 && sample.ticks > 0
           && sample.vcpu_seconds > 0 && sample.disk_write_bytes > 0 && sample.nic_rx_bytes == 0;
}

static void samples_come_by_themselves(_unused_ void **state)
{
    struct test_vm vm;

    host_up(0);
    vm_run(0, vm_make(&vm, 1, 1, NULL));
    assert_true(wait_for(has_sample, &vm, WAIT_MS));
}

/* --- disks --- */

static void disk_make(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
}

/* The tick that the guest wrote last; 0: none. */
static unsigned long long disk_tick(const char *path)
{
    unsigned long long epoch, tick = 0;
    char line[512] = "";
    int fd = open(path, O_RDONLY);

    assert_true(fd >= 0);
    assert_int_equal(read(fd, line, sizeof(line) - 1), sizeof(line) - 1);
    close(fd);
    return sscanf(line, "%*s %llu %llu", &epoch, &tick) == 2 ? tick : 0;
}

static void disks_are_written_and_opened_anew(_unused_ void **state)
{
    struct test_vm vm;
    char old[140];
    unsigned long long ticks;

    host_up(0);
    vm_make(&vm, 1, 1, "sim-writes-disks=true", NULL);
    OK(begin_start(0, &vm));
    assert_int_equal(FINISH(VM_CALL(0, unpause, &vm)), -(int) ERR_INTERNAL_ERROR); /* no such files */
    assert_true(lock_is_free(&vm));
    disk_make(vm.disk_paths[0]);
    disk_make(vm.disk_paths[1]);
    OK(VM_CALL(0, unpause, &vm));
    wait_ticks(&vm, 3);
    assert_int_equal(FINISH(VM_CALL(0, reopen_disks, &vm)), -(int) ERR_VM_BAD_POWER_STATE);

    OK(VM_CALL(0, pause, &vm));
    ticks = disk_tick(vm.disk_paths[0]);
    assert_true(ticks >= 3);
    assert_int_equal(disk_tick(vm.disk_paths[1]), ticks);
    /* Another file takes over the path of the first one. */
    snprintf(old, sizeof(old), "%s.old", vm.disk_paths[0]);
    assert_int_equal(rename(vm.disk_paths[0], old), 0);
    disk_make(vm.disk_paths[0]);
    OK(VM_CALL(0, reopen_disks, &vm));
    OK(VM_CALL(0, unpause, &vm));
    wait_ticks(&vm, (int) ticks + 3);
    assert_int_equal(disk_tick(old), ticks);
    assert_true(disk_tick(vm.disk_paths[0]) > ticks);

    OK(VM_CALL(0, pause, &vm));
    assert_int_equal(unlink(vm.disk_paths[1]), 0);
    assert_int_equal(FINISH(VM_CALL(0, reopen_disks, &vm)), -(int) ERR_INTERNAL_ERROR);
    OK(VM_CALL(0, unpause, &vm)); /* in the file that it has */
    OK(VM_CALL(0, kill, &vm));
    assert_int_equal(judge(&vm), 0);
}

/* "0=vm1-0.raw nic0=br0 ": the devices of a guest, as its driver knows them, in the order of plugging. */
static const char *devices_text(int host, const struct test_vm *vm)
{
    static char text[1024];
    const struct guest_devices *devices = driver(host)->devices(driver(host), vm->config.vm);
    size_t used = 0;

    assert_non_null(devices);
    text[0] = '\0';
    for (int i = 0; i < devices->disk_count; i++)
        used += (size_t) snprintf(text + used, sizeof(text) - used, "%s=%s ", devices->disks[i].device,
                                  devices->disks[i].path ? strrchr(devices->disks[i].path, '/') + 1 : "");
    for (int i = 0; i < devices->nic_count; i++)
        used += (size_t) snprintf(text + used, sizeof(text) - used, "nic%s=%s ", devices->nics[i].device,
                                  devices->nics[i].bridge);
    return text;
}

static void devices_come_and_go(_unused_ void **state)
{
    struct test_vm vm;
    char path[128], iso[128];
    struct guest_disk disk = {.device = "2", .path = path, .format = "raw"}, other = disk;
    struct guest_disk cd = {.device = "3", .is_cd = true};
    struct guest_nic nic = {.device = "0", .mac = "02:00:00:00:00:01", .bridge = "br0", .mtu = 1500};
    unsigned long long ticks;

    host_up(0);
    vm_make(&vm, 1, 1, "sim-writes-disks=true", NULL);
    snprintf(path, sizeof(path), "%s/plugged.raw", test_dir);
    snprintf(iso, sizeof(iso), "%s/a.iso", test_dir);
    disk_make(vm.disk_paths[0]);
    disk_make(vm.disk_paths[1]);
    vm_run(0, &vm);
    assert_string_equal(devices_text(0, &vm), "0=vm1-0.raw 1=vm1-1.raw ");

    /* A disk that is not there is none; nothing has changed then. */
    assert_int_equal(FINISH(VM_CALL(0, plug_disk, &vm, &disk)), -(int) ERR_INTERNAL_ERROR);
    assert_string_equal(devices_text(0, &vm), "0=vm1-0.raw 1=vm1-1.raw ");
    disk_make(path);
    OK(VM_CALL(0, plug_disk, &vm, &disk));
    OK(VM_CALL(0, plug_disk, &vm, &disk)); /* is there */
    other.path = iso;
    assert_int_equal(FINISH(VM_CALL(0, plug_disk, &vm, &other)), -(int) ERR_DEVICE_ALREADY_EXISTS);
    wait_ticks(&vm, 3);
    OK(VM_CALL(0, plug_disk, &vm, &cd));
    cd.path = iso;
    OK(VM_CALL(0, change_cd, &vm, &cd));
    other.device = "1";
    assert_int_equal(FINISH(VM_CALL(0, change_cd, &vm, &other)), -(int) ERR_INVALID_DEVICE);
    OK(VM_CALL(0, plug_nic, &vm, &nic));
    OK(VM_CALL(0, plug_nic, &vm, &nic));
    assert_string_equal(devices_text(0, &vm), "0=vm1-0.raw 1=vm1-1.raw 2=plugged.raw 3=a.iso nic0=br0 ");

    /* The next agent is told. */
    driver(0)->destroy(&world.hosts[0].driver);
    connect_driver(&world.hosts[0]);
    assert_string_equal(devices_text(0, &vm), "0=vm1-0.raw 1=vm1-1.raw 2=plugged.raw 3=a.iso nic0=br0 ");

    OK(VM_CALL(0, pause, &vm));
    ticks = disk_tick(path);
    assert_true(ticks > 0);
    assert_int_equal(disk_tick(vm.disk_paths[0]), ticks);
    OK(VM_CALL(0, unplug_disk, &vm, "2", false)); /* also while it stands still */
    OK(VM_CALL(0, unpause, &vm));
    OK(VM_CALL(0, unplug_disk, &vm, "2", false)); /* is gone */
    OK(VM_CALL(0, unplug_nic, &vm, "0", false));
    cd.path = NULL;
    OK(VM_CALL(0, change_cd, &vm, &cd));
    wait_ticks(&vm, (int) ticks + 3);
    assert_int_equal(disk_tick(path), ticks); /* not written any more, the others are */
    assert_true(disk_tick(vm.disk_paths[0]) > ticks);
    assert_string_equal(devices_text(0, &vm), "0=vm1-0.raw 1=vm1-1.raw 3= ");
    OK(VM_CALL(0, kill, &vm));
    assert_int_equal(FINISH(VM_CALL(0, unplug_disk, &vm, "0", false)), -(int) ERR_VM_BAD_POWER_STATE);
    assert_int_equal(judge(&vm), 0);
}

static void a_guest_may_refuse_to_let_go(_unused_ void **state)
{
    struct guest_nic nic = {.device = "0", .mac = "02:00:00:00:00:01", .bridge = "br0", .mtu = 1500};
    struct test_vm vm;

    host_up(0);
    vm_run(0, vm_make(&vm, 1, 1, "sim-refuses-unplug=true", NULL));
    OK(VM_CALL(0, plug_nic, &vm, &nic));
    assert_int_equal(FINISH(VM_CALL(0, unplug_disk, &vm, "1", false)), -(int) ERR_DEVICE_DETACH_REJECTED);
    assert_int_equal(FINISH(VM_CALL(0, unplug_nic, &vm, "0", false)), -(int) ERR_DEVICE_DETACH_REJECTED);
    assert_string_equal(devices_text(0, &vm), "0=vm1-0.raw 1=vm1-1.raw nic0=br0 ");
    OK(VM_CALL(0, unplug_disk, &vm, "1", true));
    OK(VM_CALL(0, unplug_nic, &vm, "0", true));
    assert_string_equal(devices_text(0, &vm), "0=vm1-0.raw ");
}

static void a_plug_that_nobody_hears_has_failed(_unused_ void **state)
{
    struct guest_nic nic = {.device = "0", .mac = "02:00:00:00:00:01", .bridge = "br0", .mtu = 1500};
    struct test_vm vm;

    host_up(0);
    vm_run(0, vm_make(&vm, 1, 1, NULL));
    host_signal(0, SIGSTOP);
    assert_int_equal(VM_CALL(0, plug_nic, &vm, &nic), 0);
    pass_ms(20);
    assert_false(world.results[world.op].is_done);
    host_signal(0, SIGKILL);
    assert_int_equal(finish_op(0, world.op), -(int) ERR_INTERNAL_ERROR);
    assert_int_equal(wait_change(0, 1).change, GUEST_VANISHED);
}

static void second_guest_of_a_vm_does_not_run(_unused_ void **state)
{
    struct test_vm vm;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, NULL));
    assert_int_equal(FINISH(begin_start(0, &vm)), -(int) ERR_VM_BAD_POWER_STATE);
    OK(begin_start(1, &vm));
    assert_int_equal(FINISH(VM_CALL(1, unpause, &vm)), -(int) ERR_DOMAIN_EXISTS);
    assert_non_null(strstr(world.results[world.op].text, "lock"));
    assert_state(1, &vm, GUEST_PAUSED);
    OK(VM_CALL(0, kill, &vm));
    OK(VM_CALL(1, unpause, &vm));
}

/* Whatever VM or host: who has a disk open to write keeps the others out. */
static void a_disk_has_one_writer(_unused_ void **state)
{
    struct test_vm vm, other;
    struct guest_disk disk = {.device = "2", .format = "raw"};

    host_up(0);
    host_up(1);
    vm_make(&vm, 1, 1, "sim-writes-disks=true", NULL);
    vm_make(&other, 2, 9, "sim-writes-disks=true", NULL);
    for (int i = 0; i < 2; i++) {
        disk_make(vm.disk_paths[i]);
        disk_make(other.disk_paths[i]);
    }
    vm_run(0, &vm);
    disk.path = vm.disk_paths[1];
    vm_run(1, &other);
    assert_int_equal(FINISH(VM_CALL(1, plug_disk, &other, &disk)), -(int) ERR_DOMAIN_EXISTS);
    OK(VM_CALL(1, kill, &other));
    OK(VM_CALL(1, forget, &other));

    other.disks[1].path = vm.disk_paths[1];
    OK(begin_start(1, &other));
    assert_int_equal(FINISH(VM_CALL(1, unpause, &other)), -(int) ERR_DOMAIN_EXISTS);
    assert_non_null(strstr(world.results[world.op].text, "vm1-1.raw"));
    assert_true(lock_is_free(&other));
    wait_ticks(&vm, 3);

    /* Opened anew, one disk is the same file and the other is not; the lock stays on both. */
    OK(VM_CALL(0, pause, &vm));
    assert_int_equal(unlink(vm.disk_paths[0]), 0);
    disk_make(vm.disk_paths[0]);
    OK(VM_CALL(0, reopen_disks, &vm));
    OK(VM_CALL(0, reopen_disks, &vm));
    assert_int_equal(FINISH(VM_CALL(1, unpause, &other)), -(int) ERR_DOMAIN_EXISTS);
    OK(VM_CALL(0, kill, &vm));
    OK(VM_CALL(1, unpause, &other));
}

static void guests_end_by_themselves_and_when_asked(_unused_ void **state)
{
    struct test_vm crash, down, reboot, asked, again, deaf;

    host_up(0);
    vm_run(0, vm_make(&crash, 1, 5, "sim-crash-at-tick=7", NULL));
    assert_int_equal(wait_change(0, 1).change, GUEST_CRASHED);
    assert_int_equal(wait_change(0, 1).epoch, 5);
    assert_ended(0, &crash, GUEST_CRASHED);
    assert_int_equal(journal_read(&crash).last_tick, 7);
    assert_true(lock_is_free(&crash));

    vm_run(0, vm_make(&down, 2, 1, "sim-shutdown-at-tick=3", "sim-shutdown-ms=1", NULL));
    assert_int_equal(wait_change(0, 2).change, GUEST_SHUT_DOWN);
    vm_run(0, vm_make(&reboot, 3, 1, "sim-reboot-at-tick=3", "sim-reboot-ms=1", NULL));
    assert_int_equal(wait_change(0, 3).change, GUEST_REBOOTED);
    assert_ended(0, &reboot, GUEST_REBOOTED);

    vm_run(0, vm_make(&asked, 4, 1, "sim-shutdown-ms=20", NULL));
    OK(VM_CALL(0, ask_shutdown, &asked, false));
    assert_int_equal(wait_change(0, 4).change, GUEST_SHUT_DOWN);
    assert_true(ref_equal(wait_change(0, 4).vm, asked.config.vm));
    vm_run(0, vm_make(&again, 5, 1, NULL));
    OK(VM_CALL(0, ask_shutdown, &again, true));
    assert_int_equal(wait_change(0, 5).change, GUEST_REBOOTED);
    OK(begin_start(0, &again)); /* over the ended one */
    assert_state(0, &again, GUEST_PAUSED);

    vm_run(0, vm_make(&deaf, 6, 1, "sim-ignores-shutdown=true", "sim-shutdown-ms=0", NULL));
    OK(VM_CALL(0, ask_shutdown, &deaf, false));
    wait_ticks(&deaf, 10);
    assert_state(0, &deaf, GUEST_RUNNING);
    assert_int_equal(world.hosts[0].change_count, 5);
}

static void wrong_options_are_refused(_unused_ void **state)
{
    struct test_vm vm;

    host_up(0);
    assert_int_equal(FINISH(begin_start(0, vm_make(&vm, 1, 1, "sim-tick-ms=-5", NULL))),
                     -(int) ERR_INVALID_VALUE);
    assert_int_equal(FINISH(begin_start(0, vm_make(&vm, 1, 1, "sim-tick-ms=0", NULL))),
                     -(int) ERR_INVALID_VALUE);
    assert_int_equal(FINISH(begin_start(0, vm_make(&vm, 1, 1, "sim-memory-kib=9e9", NULL))),
                     -(int) ERR_INVALID_VALUE);
    assert_state(0, &vm, GUEST_NONE);
    OK(begin_start(0, vm_make(&vm, 1, 1, "sim-no-pv-drivers=true", "other=x", NULL)));
}

static int begin_restore(int host, const struct test_vm *vm)
{
    return driver(host)->restore(driver(host), next_op(), &vm->config, vm->image_path);
}

static void suspended_guest_goes_on_where_it_was(_unused_ void **state)
{
    struct test_vm vm;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, NULL));
    wait_ticks(&vm, 10);
    OK(VM_CALL(0, save, &vm, vm.image_path));
    assert_ended(0, &vm, GUEST_SAVED);
    assert_true(lock_is_free(&vm));
    assert_no_ticks(&vm);

    vm.config.epoch = 2;
    OK(begin_restore(1, &vm));
    assert_state(1, &vm, GUEST_PAUSED);
    OK(VM_CALL(1, unpause, &vm));
    wait_ticks(&vm, 10);
    assert_false(journal_read(&vm).is_broken);
    assert_int_equal(journal_read(&vm).last_epoch, 2);
    assert_int_equal(judge(&vm), 0);
    assert_int_equal(access(vm.image_path, F_OK), 0);
}

static void flip(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    char c;

    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 1;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static void damaged_image_is_refused(_unused_ void **state)
{
    struct test_vm vm;
    struct stat image;

    host_up(0);
    vm_run(0, vm_make(&vm, 1, 1, NULL));
    wait_ticks(&vm, 10);
    OK(VM_CALL(0, save, &vm, vm.image_path));
    OK(VM_CALL(0, forget, &vm));
    assert_int_equal(stat(vm.image_path, &image), 0);
    for (off_t at = 0; at < image.st_size; at += at < 160 ? 3 : 4093) {
        flip(vm.image_path, at);
        assert_int_equal(FINISH(begin_restore(0, &vm)), -(int) ERR_SR_BACKEND_FAILURE);
        assert_state(0, &vm, GUEST_NONE);
        flip(vm.image_path, at);
    }
    flip(vm.image_path, image.st_size - 1);
    assert_int_equal(FINISH(begin_restore(0, &vm)), -(int) ERR_SR_BACKEND_FAILURE);
    flip(vm.image_path, image.st_size - 1);
    OK(begin_restore(0, &vm));
    OK(VM_CALL(0, kill, &vm));
    OK(VM_CALL(0, forget, &vm));
    assert_int_equal(truncate(vm.image_path, image.st_size - 1), 0);
    assert_int_equal(FINISH(begin_restore(0, &vm)), -(int) ERR_SR_BACKEND_FAILURE);
    assert_int_equal(truncate(vm.image_path, 0), 0);
    assert_int_equal(FINISH(begin_restore(0, &vm)), -(int) ERR_SR_BACKEND_FAILURE);
    unlink(vm.image_path);
    assert_int_equal(FINISH(begin_restore(0, &vm)), -(int) ERR_SR_BACKEND_FAILURE);
}

static void failed_save_lets_the_guest_run_on(_unused_ void **state)
{
    struct test_vm vm;
    uint64_t save;

    host_up(0);
    vm_run(0, vm_make(&vm, 1, 1, NULL));
    assert_int_equal(FINISH(VM_CALL(0, save, &vm, "/nowhere/at/all")),
                     -(int) ERR_SR_BACKEND_FAILURE);
    assert_state(0, &vm, GUEST_RUNNING);
    wait_ticks(&vm, 3);
    OK(VM_CALL(0, kill, &vm));

    vm_run(0,
           vm_make(&vm, 2, 1, "sim-suspend-ms=60000", NULL)); /* killed while it is being saved */
    assert_int_equal(VM_CALL(0, save, &vm, vm.image_path), 0);
    save = world.op;
    assert_int_equal(FINISH(VM_CALL(0, pause, &vm)), -(int) ERR_OTHER_OPERATION_IN_PROGRESS);
    OK(VM_CALL(0, kill, &vm));
    assert_true(world.results[save].is_done);
    assert_int_equal(world.results[save].code, -(int) ERR_VM_BAD_POWER_STATE);
    assert_int_equal(access(vm.image_path, F_OK), -1);
}

/* --- processes that die, stop, and are replaced --- */

static void killed_process_takes_its_guests_along(_unused_ void **state)
{
    struct test_vm vm, ended, never_there;
    uint64_t op;

    host_up(0);
    vm_make(&never_there, 4, 1, NULL);
    vm_run(0, vm_make(&ended, 2, 1, NULL));
    OK(VM_CALL(0, kill, &ended));
    vm_run(0, vm_make(&vm, 1, 3, "sim-suspend-ms=60000", NULL));
    assert_int_equal(VM_CALL(0, save, &vm, vm.image_path), 0);
    op = world.op;
    OK(VM_CALL(0, set_vcpus, &vm, 1));
    host_signal(0, SIGKILL);
    assert_int_equal(wait_change(0, 1).change, GUEST_VANISHED);
    assert_int_equal(wait_change(0, 1).epoch, 3);
    assert_int_equal(wait_op(op), -(int) ERR_INTERNAL_ERROR);
    assert_true(is_not_ready(&world.hosts[0]));
    assert_int_equal(world.hosts[0].losses, 1);
    assert_int_equal(world.hosts[0].returns, 1);
    assert_int_equal(VM_CALL(0, unpause, &vm), -ERR_HOST_STILL_BOOTING);
    assert_int_equal(begin_start(0, &vm), -ERR_HOST_STILL_BOOTING);
    assert_true(lock_is_free(&vm));
    OK(VM_CALL(0, kill, &never_there)); /* nobody can have it */
    OK(VM_CALL(0, forget, &never_there));

    world.hosts[0].pid = spawn(&world.hosts[0]);
    assert_true(wait_for(is_ready, &world.hosts[0], WAIT_MS));
    assert_int_equal(world.hosts[0].returns, 2);
    assert_ended(0, &vm, GUEST_VANISHED);
    assert_ended(0, &ended, GUEST_KILLED);
    OK(VM_CALL(0, kill, &vm));
    OK(VM_CALL(0, forget, &vm));
    OK(VM_CALL(0, forget, &ended));
    assert_state(0, &vm, GUEST_NONE);
    vm_run(0, &vm);
    assert_int_equal(world.hosts[0].change_count, 1);
}

static void stopped_process_is_not_dead(_unused_ void **state)
{
    struct test_vm vm;
    uint64_t op;

    host_up(0);
    vm_run(0, vm_make(&vm, 1, 1, NULL));
    host_signal(0, SIGSTOP);
    assert_int_equal(VM_CALL(0, pause, &vm), 0);
    op = world.op;
    pass_ms(300);
    assert_state(0, &vm, GUEST_RUNNING); /* as far as anybody knows */
    assert_int_equal(world.hosts[0].change_count, 0);
    assert_int_equal(world.hosts[0].losses, 0);
    assert_false(world.results[op].is_done);
    assert_false(lock_is_free(&vm));

    world.hosts[0].driver->destroy(
        &world.hosts[0].driver); /* an agent that starts now knows nothing yet */
    world.hosts[0].driver = hypervisor_sim_new(world.loop, world.hosts[0].socket_path);
    driver(0)->events =
        (struct hypervisor_events){told_done, told_progress, told_changed, told_reachable, &world.hosts[0]};
    pass_ms(100);
    assert_true(is_not_ready(&world.hosts[0]));
    host_signal(0, SIGCONT);
    assert_true(wait_for(is_ready, &world.hosts[0], WAIT_MS));
    assert_state(0, &vm, GUEST_PAUSED); /* what the former agent asked for */

    host_signal(0, SIGSTOP);
    host_signal(0, SIGKILL);
    assert_int_equal(wait_change(0, 1).change, GUEST_VANISHED);
}

static void next_agent_finds_everything(_unused_ void **state)
{
    struct test_vm vm, paused, ended, moving, booting;
    struct search search = {0};

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 11, NULL));
    OK(begin_start(0, vm_make(&paused, 2, 12, NULL)));
    vm_run(0, vm_make(&ended, 3, 13, "sim-crash-at-tick=1", NULL));
    wait_change(0, 1);
    vm_run(0, vm_make(&moving, 4, 14, "sim-move-ms-min=60000", NULL));
    move_begin(0, &moving, 0);
    assert_int_equal(begin_start(0, vm_make(&booting, 5, 15, "sim-boot-ms=60000", NULL)), 0);
    wait_ticks(&moving, 10);

    driver(0)->destroy(&world.hosts[0].driver);
    wait_ticks(&vm, 5); /* agent or not */
    connect_driver(&world.hosts[0]);
    assert_int_equal(driver(0)->list(driver(0), search_found, &search), 0);
    assert_int_equal(search.count, 5);
    assert_state(0, &vm, GUEST_RUNNING);
    assert_int_equal(vm_found(0, &vm).epoch, 11);
    assert_state(0, &paused, GUEST_PAUSED);
    assert_ended(0, &ended, GUEST_CRASHED);
    assert_state(0, &moving, GUEST_RUNNING);
    assert_state(0, &booting, GUEST_PAUSED);
    OK(VM_CALL(0, unpause, &booting));
    OK(VM_CALL(0, pause, &moving)); /* the move was ended with its agent */
    OK(VM_CALL(0, kill, &vm));
    assert_int_equal(world.hosts[0].change_count, 1); /* told once, to the first */
}

static void path_has_one_process(_unused_ void **state)
{
    pid_t second;
    int status;

    host_up(0);
    second = spawn(&world.hosts[0]);
    assert_int_equal(waitpid(second, &status, 0), second);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(is_ready(&world.hosts[0]));
}

static void asked_process_ends_its_guests_in_order(_unused_ void **state)
{
    struct test_vm vm, saving;

    host_up(0);
    vm_run(0, vm_make(&vm, 1, 1, NULL));
    vm_run(0, vm_make(&saving, 2, 1, NULL));
    wait_ticks(&vm, 3);
    assert_int_equal(VM_CALL(0, save, &saving, saving.image_path), 0);
    host_signal(0, SIGTERM);
    assert_int_equal(wait_change(0, 1).change, GUEST_VANISHED);
    assert_true(lock_is_free(&vm));
    assert_int_equal(judge(&vm), 0);
}

/* The judge of journals is to be trusted. */
static void journals_are_judged(_unused_ void **state)
{
#define A     "aaaa0000-0000-4000-8000-000000000000"
#define B     "aaaa0000-0000-4000-8000-000000000001"
#define START "# " A " 1 0 100 run boot\n" A " 1 1 100\n" A " 1 2 200\n"
    static const struct {
        int status;
        const char *text;
    } journals[] = {
        {0, ""},
        {0, START},
        {0, START A " 1 3 30"}, /* cut off by a power loss */
        {0, START "# " A " 1 2 205 pause\n# " A " 1 2 210 stop sent\n# " B
                  " 2 2 220 run received\n" B " 2 3 300\n"},
        {0, START "# " B " 2 0 900 run boot\n" B " 2 1 900\n"},                /* A was killed */
        {1, START "# " B " 2 0 900 run boot\n" B " 2 1 900\n" A " 1 3 300\n"}, /* it was not */
        {1, START B " 1 3 300\n"},                                  /* two in one epoch */
        {1, START "# " B " 2 2 220 run received\n" B " 2 3 300\n"}, /* never sent */
        {1, START "# " A " 1 2 210 stop killed\n" A " 1 3 300\n"},
        {1, START "# " A " 1 2 210 pause\n" A " 1 3 300\n"},
        {1, START A " 1 4 400\n"}, /* a tick missing */
        {1, START A " 1 2 300\n"}, /* twice */
        {1, START A " 1 three 300\n"},
        {1, START "\n"},
        {1, START "# " A " 1 2 300 dance\n"},
    };
    struct test_vm vm;

    vm_make(&vm, 1, 1, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(journals); i++) {
        FILE *file = fopen(vm.journal_path, "w");

        assert_non_null(file);
        fputs(journals[i].text, file);
        fclose(file);
        if (judge(&vm) != journals[i].status)
            fail_msg("journal %zu is judged %d", i, judge(&vm));
    }
#undef A
#undef B
#undef START
}

#define MANY 500

static bool all_have_ticked(void *arg)
{
    struct test_vm *vms = arg;

    for (int i = 0; i < MANY; i++)
        if (journal_read(&vms[i]).ticks < 2)
            return false;
    return true;
}

static void many_guests_are_cheap(_unused_ void **state)
{
    static struct test_vm vms[MANY];
    uint64_t began_ms, took_ms;

    host_up(0);
    for (int i = 0; i < MANY; i++)
        vm_make(&vms[i], i, 1, "sim-tick-ms=100", NULL);
    began_ms = loop_now_ms(world.loop);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(begin_start(0, &vms[i]), 0);
        assert_int_equal(VM_CALL(0, unpause, &vms[i]), 0);
    }
    assert_true(wait_for(all_are_done, NULL, WAIT_MS));
    took_ms = loop_now_ms(world.loop) - began_ms;
    assert_true(wait_for(all_have_ticked, vms, WAIT_MS));
    began_ms = loop_now_ms(world.loop);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(VM_CALL(0, kill, &vms[i]), 0);
    assert_true(wait_for(all_are_done, NULL, WAIT_MS));
    took_ms += loop_now_ms(world.loop) - began_ms;
    for (uint64_t op = 1; op <= world.op; op++)
        assert_int_equal(world.results[op].code, 0);
    print_message("%d guests started, run and killed in %llu ms\n", MANY,
                  (unsigned long long) took_ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(guest_runs_pauses_and_ends),
        CASE(samples_come_by_themselves),
        CASE(disks_are_written_and_opened_anew),
        CASE(devices_come_and_go),
        CASE(a_guest_may_refuse_to_let_go),
        CASE(a_plug_that_nobody_hears_has_failed),
        CASE(second_guest_of_a_vm_does_not_run),
        CASE(a_disk_has_one_writer),
        CASE(guests_end_by_themselves_and_when_asked),
        CASE(wrong_options_are_refused),
        CASE(suspended_guest_goes_on_where_it_was),
        CASE(damaged_image_is_refused),
        CASE(failed_save_lets_the_guest_run_on),
        CASE(killed_process_takes_its_guests_along),
        CASE(stopped_process_is_not_dead),
        CASE(next_agent_finds_everything),
        CASE(path_has_one_process),
        CASE(asked_process_ends_its_guests_in_order),
        CASE(journals_are_judged),
        CASE(many_guests_are_cheap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
