/* master_process.c - a master as a process: wired as master/main.c does it, but for HTTP, SQLite and Redis */
#include <stdio.h>

#include "master/awaited.h"
#include "master/claim.h"
#include "master/dispatch.h"
#include "master/events.h"
#include "master/flows.h"
#include "master/guest_changes.h"
#include "master/put.h"
#include "master/recovery.h"
#include "master/room.h"
#include "master/session.h"
#include "master/slaves.h"
#include "master/storage.h"
#include "master/task.h"
#include "shared/fiber.h"
#include "shared/passwords.h"
#include "shared/workers.h"
#include "tests/sim/sim.h"

#define HOST_MEMORY_BYTES (16ll << 30)
#define VM_MEMORY_BYTES   (256ll << 20)
#define DISK_BYTES        (1ll << 30)
#define SYNC_MS_MAX       6
#define FIBERS_MAX        256
#define OTHER_FIBERS      256

static struct sim_master *master_of(struct process *process)
{
    return CONTAINER_OF(process, struct sim_master, process);
}

bool sim_master_is_up(const struct sim_master *master)
{
    return master->process.loop != NULL && !master->process.is_dead;
}

/* ---- the end ---- */

static void die_now(struct process *process)
{
    struct sim_master *master = master_of(process);

    net_silence(master->transport);
    disk_redo_crash(master->sink);
    master->session[0] = '\0';
}

/* Its memory stays as it lay: nothing is unwound, so nothing is asserted about it. */
static void bury(struct process *process)
{
    struct sim_master *master = master_of(process);

    master->transport->destroy(&master->transport);
    loop_destroy(&process->loop);
    clients_master_died(process->sim->clients, master);
}

static void start_again(struct process *process)
{
    if (!master_of(process)->is_superseded)
        sim_master_start(master_of(process));
}

struct sim_master *sim_master_add(struct sim *sim, const struct disk *copied)
{
    struct sim_master *master = new0(struct sim_master);

    assert(sim->master_count < SIM_MASTERS_MAX);
    sim->masters[sim->master_count++] = master;
    master->number = sim->master_count;
    master->process = (struct process){.sim = sim, .die = die_now, .bury = bury, .start = start_again};
    snprintf(master->process.name, sizeof master->process.name, "master%d", master->number);
    if (copied)
        disk_copy(&master->disk, copied);
    master->disk.sync_ms_max = SYNC_MS_MAX;
    return master;
}

/* ---- a session for the clients ---- */

struct login {
    struct sim_master *master;
    struct arena *arena;
};

static void login_main(void *arg)
{
    struct login *login = arg;
    struct session_identity root = {
        .user_name = "root",
        .sid = "",
        .originator = "simulator",
        .role = ROLE_POOL_ADMIN,
        .is_local_superuser = true,
    };
    struct call call = {
        .core = &login->master->core, .arena = login->arena, .name = "session.login", .tag = "DummyRef:|login"};
    char text[REF_TEXT_BYTES];
    ref_t session;

    store_wait_visible(call.core->store, store_newest(call.core->store));
    login->master->is_from_copy = false; /* that is written down now */
    if (session_create(&call, &root, &session) == 0)
        snprintf(login->master->session, sizeof login->master->session, "%s", ref_print(text, session));
    arena_destroy(&login->arena);
    free(login);
}

static void login(struct sim_master *master)
{
    struct login *login = new0(struct login);

    *login = (struct login){master, arena_new()};
    if (!fiber_spawn(master->process.loop, login_main, login, "login"))
        die("simulator: no fiber for a login");
}

/* ---- the hosts know more ---- */

static void begin_above_main(void *arg)
{
    struct sim_master *master = arg;
    struct core *core = &master->core;

    store_wait_visible(core->store, awaited_begin(core, "the hosts follow an epoch that they do not know"));
    master->disk.epoch = MAX(master->disk.epoch, master->above.epoch);
    master->disk.known = MAX(master->disk.known, master->above.generation);
    process_crash(&master->process);
}

static void begin_above(struct core *core, const struct slaves_known *known)
{
    struct sim_master *master = CONTAINER_OF(core, struct sim_master, core);

    sim_event(master->process.sim, "%s is to begin above epoch %llu", master->process.name,
              (unsigned long long) known->epoch);
    master->above = *known;
    if (!fiber_spawn(core->loop, begin_above_main, master, "begin anew"))
        die("simulator: no fiber to begin anew");
}

static void hosts_know_more(struct core *core, uint64_t generation)
{
    struct sim_master *master = CONTAINER_OF(core, struct sim_master, core);

    sim_event(master->process.sim, "%s hears of generation %llx", master->process.name, (unsigned long long) generation);
    awaited_begin(core, "a host has heard of newer ones");
}

/* ---- the start ---- */

static void load(struct sim_master *master)
{
    struct core *core = &master->core;
    uint64_t highest;

    core->store = store_new(core->clock, core->loop);
    if (disk_load(&master->disk, core->store) < 0)
        sim_fail(master->process.sim, "%s cannot read its disk", master->process.name);
    highest = MAX(master->disk.generation, master->disk.known);
    core->epoch = ++master->disk.epoch;
    core->holder = ref_new(core->random);
    store_load_end(core->store, core->epoch, highest);
    master->sink = disk_redo_new(&master->disk, core->store, core->loop, core->random);
}

static void find_pool(struct core *core)
{
    struct view_iter iter;
    const struct object *pool;

    view_each(&iter, store_core_view(core->store), CLASS_OF(pool));
    pool = view_next(&iter);
    core->pool = pool->ref;
    core->host = pool_get_master(pool);
}

void sim_master_start(struct sim_master *master)
{
    static const struct session_limits session_limits = SESSION_LIMITS_DEFAULT;
    static const struct task_limits task_limits = TASK_LIMITS_DEFAULT;
    static const struct dispatch_limits dispatch_limits = {
        .fibers_max = FIBERS_MAX, .queue_max = 10000, .tasks_max = 10000};
    struct process *process = &master->process;
    struct sim *sim = process->sim;
    struct core *core = &master->core;

    assert(!process->loop);
    process->is_dead = false;
    process->stopped_until_ms = 0;
    process->loop = loop_new(&sim->world->clock.clock);
    master->starts++;
    *core = (struct core){
        .clock = &sim->world->clock.clock, .random = sim->world->random, .loop = process->loop};
    loop_set_limits(core->loop, &(struct loop_limits){.fibers_max = FIBERS_MAX + OTHER_FIBERS});
    load(master);
    sim_event(sim, "%s starts, epoch %llu", process->name, (unsigned long long) core->epoch);
    core->workers = workers_new(0, "sim");
    core->claims = claims_new();
    core->room = room_new(core->store);
    core->flows = flows_new(0);
    find_pool(core);
    core->passwords = passwords_new(core->clock, core->random, core->workers);
    core->sessions = sessions_new(core, &session_limits, "secret");
    core->tasks = tasks_new(core, &task_limits);
    core->recovery = recovery_new(core);
    core->guests = guests_new(core);
    awaited_new(core);
    master->transport = net_attach(sim->net, core->loop, process->name);
    net_watch(master->transport, check_order, master);
    slaves_new(core,
               &(struct slaves_config){
                   .link_endpoint = process->name,
                   .key = process->name,
                   .generation = MAX(master->disk.generation, master->disk.known),
                   .begin_above = begin_above,
                   .on_newer_generation = hosts_know_more,
               },
               master->transport, NULL);
    guests_start(core);
    storage_start(core);
    awaited_start(core);
    sim->records_were_old |= master->is_from_copy;
    if (master->is_from_copy)
        awaited_begin(core, "the store is a copy");
    recovery_start(core);
    tasks_recover(core);
    core->events = events_new(core);
    core->dispatch = dispatch_new(core, &dispatch_limits);
    slaves_start(core->slaves);
    login(master);
    if (sim->clients)
        clients_check(sim->clients, master);
}

/* ---- the pool at first ---- */

static ref_t make(struct txn *txn, struct random *random, const struct class *class)
{
    return txn_create_new(txn, random, class, NULL);
}

static void put_uuid(struct txn *txn, const struct class *class, ref_t ref, int field, ref_t uuid)
{
    char text[UUID_TEXT_BYTES];

    txn_put(txn, class, ref, field, value_text(uuid_print(text, uuid)));
}

static void make_host(struct sim *sim, struct txn *txn, struct sim_host *host)
{
    struct random *random = sim->world->random;
    struct value items[] = {VALUE_INT(0), VALUE_INT(1), VALUE_INT(2)}, versions = VALUE_SET(3, items);
    struct value location[] = {value_text("location"), value_text(sim->directory)};
    struct value device_config = VALUE_MAP(1, location);
    ref_t metrics = make(txn, random, CLASS_OF(host_metrics)), pbd = make(txn, random, CLASS_OF(PBD));

    host->ref = make(txn, random, CLASS_OF(host));
    put_uuid(txn, CLASS_OF(host), host->ref, F_host_uuid, host->world_host->uuid);
    host_put_name_label(txn, host->ref, host->process.name);
    host_put_hostname(txn, host->ref, host->process.name);
    host_put_address(txn, host->ref, host->process.name);
    host_put_enabled(txn, host->ref, true);
    host_put_curve_key(txn, host->ref, host->public_key);
    host_put_metrics(txn, host->ref, metrics);
    host_put_virtual_hardware_platform_versions(txn, host->ref, &versions);
    host_metrics_put_memory_total(txn, metrics, HOST_MEMORY_BYTES);
    PBD_put_host(txn, pbd, host->ref);
    PBD_put_SR(txn, pbd, sim->sr);
    PBD_put_device_config(txn, pbd, &device_config);
    PBD_put_currently_attached(txn, pbd, true);
}

/* A file like any other to the agents, who copy it when a snapshot is taken; no guest here writes to it. */
static void make_disk_file(struct sim *sim, const char *name)
{
    char path[sizeof sim->directory + 64];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", sim->directory, name);
    file = fopen(path, "w");
    if (!file || fputs("a disk", file) < 0 || fclose(file) != 0)
        die("cannot write %s", path);
}

static ref_t make_disk(struct sim *sim, struct txn *txn, ref_t vm, const char *name, const char *device)
{
    struct random *random = sim->world->random;
    ref_t vdi = make(txn, random, CLASS_OF(VDI)), vbd = make(txn, random, CLASS_OF(VBD));

    make_disk_file(sim, name);
    VDI_put_name_label(txn, vdi, name);
    VDI_put_location(txn, vdi, name);
    VDI_put_SR(txn, vdi, sim->sr);
    VDI_put_virtual_size(txn, vdi, DISK_BYTES);
    VDI_put_managed(txn, vdi, true);
    VBD_put_VM(txn, vbd, vm);
    VBD_put_VDI(txn, vbd, vdi);
    VBD_put_userdevice(txn, vbd, device);
    VBD_put_mode(txn, vbd, vbd_mode_RW);
    VBD_put_type(txn, vbd, vbd_type_Disk);
    VBD_put_unpluggable(txn, vbd, true);
    VBD_put_metrics(txn, vbd, make(txn, random, CLASS_OF(VBD_metrics)));
    return vbd;
}

static void make_vm(struct sim *sim, struct txn *txn, int index)
{
    struct random *random = sim->world->random;
    ref_t vm = make(txn, random, CLASS_OF(VM)), metrics = make(txn, random, CLASS_OF(VM_metrics));
    char text[64];

    snprintf(sim->vm_names[index], sizeof sim->vm_names[index], "vm%d", index + 1);
    sim->vms[index] = vm;
    sim->vm_uuids[index] = ref_new(random);
    put_uuid(txn, CLASS_OF(VM), vm, F_VM_uuid, sim->vm_uuids[index]);
    VM_put_name_label(txn, vm, sim->vm_names[index]);
    VM_put_name_description(txn, vm, "0"); /* a number that clients count up */
    VM_put_power_state(txn, vm, vm_power_state_Halted);
    VM_put_metrics(txn, vm, metrics);
    VM_put_VCPUs_max(txn, vm, 1);
    VM_put_VCPUs_at_startup(txn, vm, 1);
    VM_put_memory_static_max(txn, vm, VM_MEMORY_BYTES);
    VM_put_memory_dynamic_max(txn, vm, VM_MEMORY_BYTES);
    VM_put_memory_dynamic_min(txn, vm, VM_MEMORY_BYTES);
    VM_put_memory_static_min(txn, vm, VM_MEMORY_BYTES);
    VM_put_memory_target(txn, vm, VM_MEMORY_BYTES);
    VM_put_HVM_shadow_multiplier(txn, vm, 1.0);
    VM_put_HVM_boot_policy(txn, vm, "BIOS order");
    VM_put_actions_after_reboot(txn, vm, on_normal_exit_restart);
    VM_put_actions_after_shutdown(txn, vm, on_normal_exit_destroy);
    VM_put_actions_after_crash(txn, vm, index % 2 ? on_crash_behaviour_restart : on_crash_behaviour_destroy);
    snprintf(text, sizeof text, "disk%d.raw", index + 1);
    make_disk(sim, txn, vm, text, "0");
    snprintf(text, sizeof text, "extra%d.raw", index + 1);
    sim->vbds[index] = make_disk(sim, txn, vm, text, "1");
}

/* What can be done with disks here. */
static void make_driver(struct sim *sim, struct txn *txn)
{
    struct value items[] = {value_text("VDI_SNAPSHOT"), VALUE_INT(1), value_text("VDI_DELETE"), VALUE_INT(1)};
    struct value features = VALUE_MAP(2, items);
    ref_t sm = make(txn, sim->world->random, CLASS_OF(SM));

    SM_put_type(txn, sm, "shared-file");
    SM_put_features(txn, sm, &features);
}

static void make_pool(struct sim *sim, struct txn *txn)
{
    struct random *random = sim->world->random;

    sim->sr = make(txn, random, CLASS_OF(SR));
    SR_put_name_label(txn, sim->sr, "shared");
    SR_put_type(txn, sim->sr, "shared-file");
    SR_put_content_type(txn, sim->sr, "user");
    SR_put_shared(txn, sim->sr, true);
    SR_put_physical_size(txn, sim->sr, 1ll << 40);
    for (int i = 0; i < WORLD_HOSTS; i++)
        make_host(sim, txn, &sim->hosts[i]);
    for (int i = 0; i < SIM_VMS; i++)
        make_vm(sim, txn, i);
    sim->pool = make(txn, random, CLASS_OF(pool));
    pool_put_name_label(txn, sim->pool, "simulated");
    pool_put_master(txn, sim->pool, sim->hosts[0].ref);
    pool_put_default_SR(txn, sim->pool, sim->sr);
    make_driver(sim, txn);
    pool_put_suspend_image_SR(txn, sim->pool, sim->sr);
}

void sim_pool_make(struct sim_master *master)
{
    struct sim *sim = master->process.sim;
    struct loop *loop = loop_new(&sim->world->clock.clock);
    struct store *store = store_new(&sim->world->clock.clock, loop);
    struct disk_redo *sink;
    struct txn *txn;

    store_load_end(store, ++master->disk.epoch, 0);
    sink = disk_redo_new(&master->disk, store, loop, sim->world->random);
    txn = store_begin(store);
    make_pool(sim, txn);
    store_apply(&txn);
    disk_redo_flush(sink);
    while (loop_step(loop))
        ;
    loop_destroy(&loop);
    store_destroy(&store);
    free(sink);
    for (int i = 0; i < WORLD_HOSTS; i++)
        sim->hosts[i].follows = master;
}
