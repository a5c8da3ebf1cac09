/* test_guests.c - simulated guests: real drover-guests processes, real sockets, and the driver on a
 * loop of ours
 *
 * Each test has a directory, up to two hosts (a process and a driver each), and proves what
 * happened from the guests' journals and locks. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/model.h"
#include "shared/value.h"
#include "slave/guest_link.h"
#include "slave/hypervisor_sim.h"

#define HOSTS   2
#define OPS_MAX 4096
#define WAIT_MS 20000
#define CHANGES 64

struct result {
    bool is_done;
    int code;
    char text[256];
    int progress; /* times told */
};

struct change {
    ref_t vm;
    uint64_t epoch;
    enum guest_change change;
};

struct world;

struct host {
    struct world *world;
    char socket_path[100], uuid[UUID_TEXT_BYTES];
    pid_t pid;
    struct hypervisor *driver;
    struct change changes[CHANGES];
    int change_count;
};

struct world {
    struct loop *loop;
    struct host hosts[HOSTS];
    struct result results[OPS_MAX];
    uint64_t op; /* the last */
};

static struct world world;
static char test_dir[64];

/* --- the loop, until something is so --- */

static void stop_waiting(void *arg)
{
    loop_stop(arg);
}

/* Conditions are looked at whenever a callback stopped the loop, and every 5 ms for those outside
 * of it. */
static bool wait_for(bool (*is_so)(void *arg), void *arg, uint64_t wait_ms)
{
    uint64_t end_ms = loop_now_ms(world.loop) + wait_ms;
    struct timer timer = {0};

    while (!is_so(arg)) {
        if (loop_now_ms(world.loop) >= end_ms)
            return false;
        timer_start(world.loop, &timer, 5, stop_waiting, world.loop);
        loop_run(world.loop);
    }
    timer_stop(&timer);
    return true;
}

static bool never(_unused_ void *arg)
{
    return false;
}

/* Let time pass: for what must not happen. */
static void pass_ms(uint64_t ms)
{
    wait_for(never, NULL, ms);
}

static void told_done(_unused_ void *arg, uint64_t operation, int code, const char *text)
{
    struct result *result = &world.results[operation];

    assert_false(result->is_done);
    result->is_done = true;
    result->code = code;
    snprintf(result->text, sizeof(result->text), "%s", text);
    loop_stop(world.loop);
}

static void told_progress(_unused_ void *arg, uint64_t operation, double share)
{
    assert_false(world.results[operation].is_done);
    assert_true(share >= 0 && share <= 1);
    world.results[operation].progress++;
}

static void told_changed(void *arg, ref_t vm, uint64_t epoch, enum guest_change change)
{
    struct host *host = arg;

    assert_true(host->change_count < CHANGES);
    host->changes[host->change_count++] = (struct change){vm, epoch, change};
    loop_stop(world.loop);
}

static bool op_is_done(void *arg)
{
    return ((struct result *) arg)->is_done;
}

static uint64_t next_op(void)
{
    assert_true(world.op + 1 < OPS_MAX);
    return ++world.op;
}

/* The result of an operation that was begun with the number world.op. */
static int finish_op(int begun, uint64_t op)
{
    assert_int_equal(begun, 0);
    assert_true(wait_for(op_is_done, &world.results[op], WAIT_MS));
    return world.results[op].code;
}

#define FINISH(call)                                          \
    ({                                                        \
        int begun_ = (call); /* first: it takes the number */ \
        finish_op(begun_, world.op);                          \
    })
#define OK(call)                                                                                \
    do {                                                                                        \
        int ok_ = FINISH(call);                                                                 \
        if (ok_ != 0)                                                                           \
            fail_msg("%s: %s: %s", #call, guest_error_name(ok_), world.results[world.op].text); \
    } while (0)

/* --- hosts --- */

static void binary_path(char *ret, size_t bytes)
{
    ssize_t n = readlink("/proc/self/exe", ret, bytes - 1);

    assert_true(n > 0);
    ret[n] = '\0';
    assert_true((size_t) (strrchr(ret, '/') - ret) + sizeof("/drover-guests") < bytes);
    strcpy(strrchr(ret, '/'), "/drover-guests");
}

static pid_t spawn(struct host *host)
{
    char binary[512], log[128];
    pid_t pid;

    binary_path(binary, sizeof(binary));
    snprintf(log, sizeof(log), "%s.log", host->socket_path);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl(binary, "drover-guests", "--socket", host->socket_path, "--host-uuid", host->uuid,
              "--log", log, "--default", "sim-tick-ms=10", "--default", "sim-boot-ms=0",
              "--default", "sim-memory-kib=256", NULL);
        _exit(127);
    }
    return pid;
}

static void ignore_found(_unused_ void *arg, _unused_ const struct guest_found *found)
{
}

static bool is_ready(void *arg)
{
    struct host *host = arg;

    return host->driver->list(host->driver, ignore_found, NULL) == 0;
}

static bool is_not_ready(void *arg)
{
    return !is_ready(arg);
}

static void connect_driver(struct host *host)
{
    host->driver = hypervisor_sim_new(world.loop, host->socket_path);
    host->driver->events = (struct hypervisor_events){told_done, told_progress, told_changed, host};
    assert_true(is_not_ready(host));
    assert_true(wait_for(is_ready, host, WAIT_MS));
}

static void host_up(int i)
{
    struct host *host = &world.hosts[i];

    *host = (struct host){.world = &world};
    snprintf(host->socket_path, sizeof(host->socket_path), "%s/guests%d", test_dir, i);
    uuid_print(host->uuid, (ref_t){0xaaaa000000004000ULL, 0x8000000000000000ULL + (uint64_t) i});
    host->pid = spawn(host);
    connect_driver(host);
}

static void host_signal(int i, int signal_number)
{
    int status;

    assert_int_equal(kill(world.hosts[i].pid, signal_number), 0);
    if (signal_number == SIGSTOP || signal_number == SIGCONT)
        return;
    assert_int_equal(waitpid(world.hosts[i].pid, &status, 0), world.hosts[i].pid);
    if (signal_number == SIGTERM) /* under a sanitizer: also that nothing leaked */
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    world.hosts[i].pid = 0;
}

static int remove_one(const char *path, _unused_ const struct stat *s, _unused_ int type,
                      _unused_ struct FTW *at)
{
    return remove(path);
}

static int set_up(_unused_ void **state)
{
    signal(SIGPIPE, SIG_IGN);
    world = (struct world){0};
    strcpy(test_dir, "/tmp/drover-guests-XXXXXX");
    assert_non_null(mkdtemp(test_dir));
    world.loop = loop_new(clock_real());
    return 0;
}

static int tear_down(_unused_ void **state)
{
    for (int i = 0; i < HOSTS; i++) {
        if (world.hosts[i].driver)
            world.hosts[i].driver->destroy(&world.hosts[i].driver);
        if (world.hosts[i].pid > 0) {
            kill(world.hosts[i].pid, SIGCONT);
            host_signal(i, SIGTERM);
        }
    }
    loop_destroy(&world.loop);
    nftw(test_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}

/* --- guests --- */

static ref_t vm_number(int n)
{
    return (ref_t){0xbbbb000000004000ULL, 0x9000000000000000ULL + (uint64_t) n};
}

struct test_vm {
    struct guest_config config;
    char lock_path[128], journal_path[128], image_path[128];
    struct value options, items[16];
};

/* VM number n with the options "sim-x=1", ... (NULL ends them). */
static struct test_vm *vm_make(struct test_vm *vm, int n, uint64_t epoch, ...)
{
    va_list args;
    const char *text;

    *vm = (struct test_vm){0};
    snprintf(vm->lock_path, sizeof(vm->lock_path), "%s/vm%d.lock", test_dir, n);
    snprintf(vm->journal_path, sizeof(vm->journal_path), "%s/vm%d.journal", test_dir, n);
    snprintf(vm->image_path, sizeof(vm->image_path), "%s/vm%d.image", test_dir, n);
    vm->options = VALUE_MAP(0, vm->items);
    va_start(args, epoch);
    while ((text = va_arg(args, const char *))) {
        const char *equals = strchr(text, '=');

        vm->items[2 * vm->options.length] =
            (struct value){.kind = KIND_STRING, .length = (uint32_t) (equals - text), .text = text};
        vm->items[2 * vm->options.length + 1] = (struct value){
            .kind = KIND_STRING, .length = (uint32_t) strlen(equals + 1), .text = equals + 1};
        vm->options.length++;
    }
    va_end(args);
    vm->config = (struct guest_config){
        .vm = vm_number(n),
        .epoch = epoch,
        .domid = n,
        .name = "test",
        .memory_target_bytes = 1 << 30,
        .vcpus = 2,
        .disk_count = 1,
        .lock_path = vm->lock_path,
        .journal_path = vm->journal_path,
        .options = &vm->options,
    };
    return vm;
}

static struct hypervisor *driver(int host)
{
    return world.hosts[host].driver;
}

static int begin_start(int host, const struct test_vm *vm)
{
    return driver(host)->start(driver(host), next_op(), &vm->config);
}

#define VM_CALL(host, call, of, ...) \
    driver(host)->call(driver(host), next_op(), (of)->config.vm, ##__VA_ARGS__)

static void vm_run(int host, const struct test_vm *vm)
{
    OK(begin_start(host, vm));
    OK(VM_CALL(host, unpause, vm));
}

struct search {
    ref_t vm;
    struct guest_found found;
    int count;
};

static void search_found(void *arg, const struct guest_found *found)
{
    struct search *search = arg;

    search->count++;
    if (ref_equal(found->vm, search->vm))
        search->found = *found;
}

static struct guest_found vm_found(int host, const struct test_vm *vm)
{
    struct search search = {.vm = vm->config.vm};

    assert_int_equal(driver(host)->list(driver(host), search_found, &search), 0);
    return search.found;
}

static void assert_state(int host, const struct test_vm *vm, enum guest_state state)
{
    assert_int_equal(vm_found(host, vm).state, state);
}

static void assert_ended(int host, const struct test_vm *vm, enum guest_change how)
{
    assert_state(host, vm, GUEST_ENDED);
    assert_int_equal(vm_found(host, vm).ended_by, how);
}

struct awaited {
    int host, changes;
};

static bool has_changed(void *arg)
{
    struct awaited *awaited = arg;

    return world.hosts[awaited->host].change_count >= awaited->changes;
}

/* Wait for the n-th change that host tells of. */
static struct change wait_change(int host, int n)
{
    struct awaited awaited = {host, n};

    assert_true(wait_for(has_changed, &awaited, WAIT_MS));
    return world.hosts[host].changes[n - 1];
}

static bool lock_is_free(const struct test_vm *vm)
{
    struct flock whole_file = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(vm->lock_path, O_RDWR | O_CREAT, 0600);
    bool is_free = fd >= 0 && fcntl(fd, F_OFD_SETLK, &whole_file) == 0;

    close(fd);
    return is_free;
}

/* --- journals --- */

struct journal {
    unsigned long long ticks, last_tick, last_epoch;
    char last_host[64];
    bool is_broken; /* a tick missing or twice, an epoch going back */
};

static struct journal journal_read(const struct test_vm *vm)
{
    struct journal journal = {0};
    FILE *file = fopen(vm->journal_path, "r");
    char line[256], host[64];
    unsigned long long epoch, tick, ms;

    while (file && fgets(line, sizeof(line), file)) {
        if (line[0] == '#')
            continue;
        assert_int_equal(sscanf(line, "%63s %llu %llu %llu", host, &epoch, &tick, &ms), 4);
        journal.is_broken |=
            journal.ticks > 0 && (tick != journal.last_tick + 1 || epoch < journal.last_epoch);
        journal.ticks++;
        journal.last_tick = tick;
        journal.last_epoch = epoch;
        snprintf(journal.last_host, sizeof(journal.last_host), "%s", host);
    }
    if (file)
        fclose(file);
    return journal;
}

struct ticking {
    const struct test_vm *vm;
    unsigned long long ticks;
};

static bool has_ticked(void *arg)
{
    struct ticking *ticking = arg;

    return journal_read(ticking->vm).ticks >= ticking->ticks;
}

/* Wait until the guest has made n more ticks. */
static void wait_ticks(const struct test_vm *vm, int n)
{
    struct ticking ticking = {vm, journal_read(vm).ticks + (unsigned long long) n};

    assert_true(wait_for(has_ticked, &ticking, WAIT_MS));
}

static void assert_no_ticks(const struct test_vm *vm)
{
    unsigned long long ticks = journal_read(vm).ticks;

    pass_ms(60);
    assert_int_equal(journal_read(vm).ticks, ticks);
}

/* What tests/journal.py says of the journal: its exit status. */
static int judge(const struct test_vm *vm)
{
    char command[256];

    snprintf(command, sizeof(command), "python3 tests/journal.py %s >%s/judged", vm->journal_path,
             test_dir);
    return WEXITSTATUS(system(command));
}

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

/* --- moving --- */

struct move {
    uint64_t receive, send;
};

/* Begin to move a VM that runs on host `from` at epoch e; it is to run at e + 1 on the other. */
static struct move move_begin(int from, struct test_vm *vm, int downtime_ms)
{
    struct guest_config config = vm->config;
    struct move move;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    config.epoch++;
    move.receive = next_op();
    assert_int_equal(driver(1 - from)->receive(driver(1 - from), move.receive, &config, pair[0]),
                     0);
    move.send = next_op();
    assert_int_equal(
        driver(from)->send(driver(from), move.send, vm->config.vm, pair[1], downtime_ms), 0);
    return move;
}

static int wait_op(uint64_t op)
{
    return finish_op(0, op);
}

static void guest_moves_and_loses_no_tick(_unused_ void **state)
{
    struct test_vm vm;
    int from = 0;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, "sim-memory-kib=4096", "sim-dirty-pages=20", NULL));
    wait_ticks(&vm, 20);
    for (int i = 0; i < 10; i++, from = 1 - from) {
        struct move move = move_begin(from, &vm, 5);

        assert_int_equal(wait_op(move.send), 0);
        assert_int_equal(wait_op(move.receive), 0);
        assert_non_null(strstr(world.results[move.send].text, "downtime_ms="));
        assert_state(from, &vm, GUEST_SENT);
        assert_state(1 - from, &vm, GUEST_PAUSED);
        assert_true(lock_is_free(&vm));
        assert_int_equal(FINISH(VM_CALL(from, unpause, &vm)), -(int) ERR_VM_BAD_POWER_STATE);
        OK(VM_CALL(1 - from, unpause, &vm));
        assert_int_equal(FINISH(VM_CALL(from, resume_sent, &vm, vm.config.epoch)),
                         -(int) ERR_DOMAIN_EXISTS);
        vm.config.epoch++;
        assert_int_equal(vm_found(1 - from, &vm).epoch, vm.config.epoch);
        OK(VM_CALL(from, kill, &vm));
        OK(VM_CALL(from, forget, &vm));
        wait_ticks(&vm, 5);
    }
    assert_false(journal_read(&vm).is_broken);
    assert_int_equal(judge(&vm), 0);
}

static void sent_guest_is_given_back(_unused_ void **state)
{
    struct test_vm vm;
    struct move move;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 4, NULL));
    move = move_begin(0, &vm, 0);
    assert_int_equal(wait_op(move.send), 0);
    OK(VM_CALL(1, kill, &vm));
    assert_int_equal(FINISH(VM_CALL(0, resume_sent, &vm, 3)), -(int) ERR_INTERNAL_ERROR);
    OK(VM_CALL(0, resume_sent, &vm, 6));
    OK(VM_CALL(0, resume_sent, &vm, 6));
    assert_int_equal(vm_found(0, &vm).epoch, 6);
    wait_ticks(&vm, 3);
    assert_false(journal_read(&vm).is_broken);
    assert_int_equal(judge(&vm), 0);
}

static void move_can_be_cancelled(_unused_ void **state)
{
    struct test_vm vm;
    struct move move;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, "sim-move-ms-min=60000", NULL));
    move = move_begin(0, &vm, 0);
    wait_ticks(&vm, 40);
    assert_state(1, &vm, GUEST_RECEIVING);
    assert_true(world.results[move.send].progress > 0);
    OK(VM_CALL(0, cancel_send, &vm));
    assert_int_equal(wait_op(move.send), -(int) ERR_TASK_CANCELLED);
    assert_int_equal(wait_op(move.receive), -(int) ERR_VM_MIGRATE_FAILED);
    assert_state(0, &vm, GUEST_RUNNING);
    assert_state(1, &vm, GUEST_NONE);
    OK(VM_CALL(0, cancel_send, &vm)); /* nothing to cancel */

    move = move_begin(0, &vm, 0); /* from the other end */
    wait_ticks(&vm, 10);
    OK(VM_CALL(1, kill, &vm));
    assert_int_equal(wait_op(move.receive), -(int) ERR_VM_BAD_POWER_STATE);
    assert_int_equal(wait_op(move.send), -(int) ERR_VM_MIGRATE_FAILED);
    assert_state(1, &vm, GUEST_NONE);

    move = move_begin(0, &vm, 0); /* the guest ends */
    wait_ticks(&vm, 10);
    OK(VM_CALL(0, kill, &vm));
    assert_int_equal(wait_op(move.send), -(int) ERR_VM_BAD_POWER_STATE);
    assert_int_equal(wait_op(move.receive), -(int) ERR_VM_MIGRATE_FAILED);
    assert_false(journal_read(&vm).is_broken);
}

static void receiver_killed_in_the_middle(_unused_ void **state)
{
    struct test_vm vm;
    struct move move;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, "sim-move-ms-min=60000", NULL));
    move = move_begin(0, &vm, 0);
    wait_ticks(&vm, 10);
    assert_state(1, &vm, GUEST_RECEIVING);
    host_signal(1, SIGKILL);
    assert_int_equal(wait_op(move.send), -(int) ERR_VM_MIGRATE_FAILED);
    assert_true(wait_op(move.receive) < 0);
    wait_ticks(&vm, 10);
    assert_state(0, &vm, GUEST_RUNNING);
    assert_false(journal_read(&vm).is_broken);
    assert_int_equal(judge(&vm), 0);
}

static void sender_killed_in_the_middle(_unused_ void **state)
{
    struct test_vm vm;
    struct move move;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, "sim-move-ms-min=60000", NULL));
    move = move_begin(0, &vm, 0);
    wait_ticks(&vm, 10);
    host_signal(0, SIGKILL);
    assert_int_equal(wait_op(move.receive), -(int) ERR_VM_MIGRATE_FAILED);
    assert_int_equal(wait_change(0, 1).change, GUEST_VANISHED);
    assert_true(wait_op(move.send) < 0);
    assert_state(1, &vm, GUEST_NONE);
    assert_true(lock_is_free(&vm));
}

/* Both copies exist, no word of the master: whoever is killed then, at most the other one is there,
 * paused. */
static void hosts_killed_after_the_move(_unused_ void **state)
{
    struct test_vm vm;

    host_up(0);
    host_up(1);
    vm_run(0, vm_make(&vm, 1, 1, NULL));
    assert_int_equal(wait_op(move_begin(0, &vm, 0).send), 0);
    host_signal(1, SIGKILL);
    assert_int_equal(wait_change(1, 1).change, GUEST_VANISHED);
    assert_no_ticks(&vm);
    OK(VM_CALL(0, resume_sent, &vm, 3));
    wait_ticks(&vm, 3);
    assert_false(journal_read(&vm).is_broken);
}

/* A receiver that takes nothing: its move fails after a while, and nobody else notices. */
static void stopped_receiver_stops_only_its_move(_unused_ void **state)
{
    struct test_vm vm, other;
    int pair[2];

    host_up(0);
    vm_run(0, vm_make(&vm, 1, 1, "sim-move-timeout-ms=300", "sim-memory-kib=16384",
                      "sim-dirty-pages=500", NULL));
    vm_run(0, vm_make(&other, 2, 1, NULL));
    wait_ticks(&vm, 10);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(VM_CALL(0, send, &vm, pair[1], 0), 0);
    wait_ticks(&other, 20);
    assert_false(world.results[world.op].is_done);
    assert_int_equal(wait_op(world.op), -(int) ERR_VM_MIGRATE_FAILED);
    wait_ticks(&vm, 3);
    close(pair[0]);
}

static void foreign_bytes_make_no_guest(_unused_ void **state)
{
    static const struct {
        uint32_t type, bytes;
        uint64_t words[6];
    } frames[] = {
        {1, 48, {0}}, /* no magic */
        {0, 0, {0}},
        {2, 0xffffffff, {0}}, /* a huge frame */
        {2, 4100, {0}},       /* pages before HELLO */
        {3, 40, {0}},         /* a state before HELLO */
        {1, 47, {0}},
        {1, 48, {0x53564f4d52445247ULL, 1, 1, 2, 4096, 64}}, /* another VM */
        {1,
         48,
         {0x53564f4d52445247ULL, 1, 0xbbbb000000004000ULL, 0x9000000000000001ULL, 4096,
          1ULL << 40}},
        {1, 48, {0x53564f4d52445247ULL, 9, 0xbbbb000000004000ULL, 0x9000000000000001ULL, 4096, 64}},
    };
    struct test_vm vm;

    host_up(0);
    vm_make(&vm, 1, 1, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(driver(0)->receive(driver(0), next_op(), &vm.config, pair[1]), 0);
        assert_int_equal(write(pair[0], &frames[i], sizeof(frames[i])), sizeof(frames[i]));
        assert_int_equal(wait_op(world.op), -(int) ERR_VM_MIGRATE_FAILED);
        assert_state(0, &vm, GUEST_NONE);
        close(pair[0]);
    }
}

/* A sender that gets the memory wrong, and one that confirms what it never had. */
static void digest_decides(_unused_ void **state)
{
    const struct {
        uint32_t type, bytes;
        uint64_t words[6];
    } hello = {
        1, 48, {0x53564f4d52445247ULL, 1, 0xbbbb000000004000ULL, 0x9000000000000001ULL, 4096, 64}};
    const struct {
        uint32_t type, bytes;
        uint64_t words[5];
    } end = {3, 40, {5, 0, 0, 0, 0x1234}};
    const struct {
        uint32_t type, bytes;
        uint64_t digest;
    } ack = {4, 8, 0x1234};
    struct test_vm vm;
    int pair[2];
    char answer[64];

    host_up(0);
    vm_make(&vm, 1, 1, NULL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(driver(0)->receive(driver(0), next_op(), &vm.config, pair[1]), 0);
    assert_int_equal(write(pair[0], &hello, sizeof(hello)), sizeof(hello));
    assert_int_equal(write(pair[0], &end, sizeof(end)), sizeof(end));
    assert_int_equal(wait_op(world.op), -(int) ERR_VM_MIGRATE_FAILED);
    assert_true(read(pair[0], answer, sizeof(answer)) > 8);
    assert_int_equal(answer[0], 5); /* REFUSED */
    assert_state(0, &vm, GUEST_NONE);
    close(pair[0]);

    vm_run(0, &vm);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(VM_CALL(0, send, &vm, pair[1], 0), 0);
    assert_int_equal(write(pair[0], &ack, sizeof(ack)), sizeof(ack));
    assert_int_equal(wait_op(world.op), -(int) ERR_VM_MIGRATE_FAILED);
    assert_state(0, &vm, GUEST_RUNNING);
    wait_ticks(&vm, 3);
    close(pair[0]);
}

/* --- processes that die, stop, and are replaced --- */

static void killed_process_takes_its_guests_along(_unused_ void **state)
{
    struct test_vm vm, ended;
    uint64_t op;

    host_up(0);
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
    assert_true(VM_CALL(0, unpause, &vm) < 0);
    assert_true(lock_is_free(&vm));

    world.hosts[0].pid = spawn(&world.hosts[0]);
    assert_true(wait_for(is_ready, &world.hosts[0], WAIT_MS));
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
    assert_false(world.results[op].is_done);
    assert_false(lock_is_free(&vm));

    world.hosts[0].driver->destroy(
        &world.hosts[0].driver); /* an agent that starts now knows nothing yet */
    world.hosts[0].driver = hypervisor_sim_new(world.loop, world.hosts[0].socket_path);
    driver(0)->events =
        (struct hypervisor_events){told_done, told_progress, told_changed, &world.hosts[0]};
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

#define MANY 500

static bool all_are_done(_unused_ void *arg)
{
    for (uint64_t op = 1; op <= world.op; op++)
        if (!world.results[op].is_done)
            return false;
    return true;
}

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

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(guest_runs_pauses_and_ends),
        CASE(samples_come_by_themselves),
        CASE(second_guest_of_a_vm_does_not_run),
        CASE(guests_end_by_themselves_and_when_asked),
        CASE(wrong_options_are_refused),
        CASE(suspended_guest_goes_on_where_it_was),
        CASE(damaged_image_is_refused),
        CASE(failed_save_lets_the_guest_run_on),
        CASE(guest_moves_and_loses_no_tick),
        CASE(sent_guest_is_given_back),
        CASE(move_can_be_cancelled),
        CASE(receiver_killed_in_the_middle),
        CASE(sender_killed_in_the_middle),
        CASE(hosts_killed_after_the_move),
        CASE(stopped_receiver_stops_only_its_move),
        CASE(foreign_bytes_make_no_guest),
        CASE(digest_decides),
        CASE(killed_process_takes_its_guests_along),
        CASE(stopped_process_is_not_dead),
        CASE(next_agent_finds_everything),
        CASE(path_has_one_process),
        CASE(asked_process_ends_its_guests_in_order),
        CASE(many_guests_are_cheap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
