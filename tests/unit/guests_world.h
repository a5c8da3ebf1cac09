/* guests_world.h - for tests of simulated guests: real drover-guests processes, real sockets, and
 * the driver on a loop of ours
 *
 * A test has a directory and up to two hosts, each a process and a driver, and proves what happened
 * from the guests' journals and locks. A test program includes this once. */
#pragma once

#pragma GCC diagnostic ignored "-Wunused-function" /* no test program uses all of this */

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
#include "shared/random.h"
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
    int losses, returns; /* how often what runs the guests was told to be away, and there */
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

static void told_reachable(void *arg, bool is_reachable)
{
    struct host *host = arg;

    if (is_reachable)
        host->returns++;
    else
        host->losses++;
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
    host->driver->events = (struct hypervisor_events){told_done, told_progress, told_changed, told_reachable, host};
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
    char disk_paths[2][128]; /* raw files that are not there */
    struct guest_disk disks[2];
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
    for (int i = 0; i < 2; i++) {
        snprintf(vm->disk_paths[i], sizeof(vm->disk_paths[i]), "%s/vm%d-%d.raw", test_dir, n, i);
        vm->disks[i] =
            (struct guest_disk){.device = i == 0 ? "0" : "1", .path = vm->disk_paths[i], .format = "raw"};
    }
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
        .disks = vm->disks,
        .disk_count = 2,
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

static bool all_are_done(_unused_ void *arg)
{
    for (uint64_t op = 1; op <= world.op; op++)
        if (!world.results[op].is_done)
            return false;
    return true;
}

/* --- moves --- */

struct move {
    uint64_t receive, send;
};

/* Begin to move a VM that runs on host `from` at epoch e; it is to run at e + 1 on the other. */
static struct move move_begin_as(int from, struct test_vm *vm, int downtime_ms, bool is_compressed)
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
        driver(from)->send(driver(from), move.send, vm->config.vm, pair[1], downtime_ms,
                           is_compressed),
        0);
    return move;
}

static struct move move_begin(int from, struct test_vm *vm, int downtime_ms)
{
    return move_begin_as(from, vm, downtime_ms, false);
}

static int wait_op(uint64_t op)
{
    return finish_op(0, op);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
