/* hypervisor_mem.c - the driver of the simulator: hypervisor.h for the guests of a world
 *
 * Like the driver of the real simulated guests it is a client of the host's guests process, and has a copy of what it
 * was told. Requests and news travel in queues that keep their order and take a little while; a request that is on its way
 * when the agent dies still arrives.
 *
 *   GREETING   connected; the list of guests is coming
 *   READY      the copy is true: list() answers, operations are taken
 *   LOST       the process has died; its guests are ended, and operations are answered by that */
#include <stdio.h>
#include <unistd.h>

#include "shared/model.h"
#include "tests/sim/world_guest.h"

#define DELAY_US_MAX 3000
#define KNOWN_MAX    64

enum driver_state { DRIVER_GREETING, DRIVER_READY, DRIVER_LOST };

enum news_kind { NEWS_LISTED, NEWS_GUEST, NEWS_GONE, NEWS_CHANGED, NEWS_DONE, NEWS_DIED, NEWS_CAME };

/* One message of either direction. */
struct message {
    struct message *next;
    struct guest_request request;
    enum news_kind kind;
    struct guest_found found;
    struct world_devices devices; /* of that guest */
    uint64_t operation;
    int result;
    char text[80];
    enum guest_change change;
};

struct queue {
    struct message *first, **end;
    struct loop *loop;
    struct timer timer;
};

struct known {
    struct guest_found found;
    struct world_devices devices;
    bool is_ghost;           /* its process is dead: it is ours to forget */
};

/* An operation that was asked for. */
struct pending {
    uint64_t operation;
    ref_t vm;
    bool is_over_when_dead;  /* kill, forget: the death of the process is their success */
};

struct driver {
    struct hypervisor hypervisor;
    struct world_host *host;      /* NULL: the agent is gone */
    enum driver_state state;
    struct queue requests, news;  /* on the world's loop, on the agent's */
    struct known known[KNOWN_MAX];
    int known_count;
    struct pending pending[256];
    int pending_count;
    struct guest_devices devices; /* the last answer of devices() */
    struct guest_disk disks[WORLD_DISKS];
};

static struct driver *driver_of(struct hypervisor *hypervisor)
{
    return CONTAINER_OF(hypervisor, struct driver, hypervisor);
}

/* ---- queues ---- */

static void queue_start(struct queue *queue, struct world *world, void (*fn)(void *arg), void *arg)
{
    timer_start(queue->loop, &queue->timer, world_chance(world, DELAY_US_MAX) / 1000, fn, arg);
}

static void queue_put(struct queue *queue, const struct message *message, struct world *world,
                      void (*fn)(void *arg), void *arg)
{
    struct message *copy = new0(struct message);

    *copy = *message;
    copy->next = NULL;
    *queue->end = copy;
    queue->end = &copy->next;
    if (!timer_is_running(&queue->timer))
        queue_start(queue, world, fn, arg);
}

static struct message *queue_take(struct queue *queue)
{
    struct message *message = queue->first;

    if (!message)
        return NULL;
    queue->first = message->next;
    if (!queue->first)
        queue->end = &queue->first;
    return message;
}

static void queue_init(struct queue *queue, struct loop *loop)
{
    queue->loop = loop;
    queue->end = &queue->first;
}

/* ---- what the guests process tells: onto the agent's loop ---- */

static struct known *known_find(struct driver *driver, ref_t vm)
{
    for (int i = 0; i < driver->known_count; i++)
        if (ref_equal(driver->known[i].found.vm, vm))
            return &driver->known[i];
    return NULL;
}

static void known_drop(struct driver *driver, struct known *known)
{
    *known = driver->known[--driver->known_count];
}

static void known_put(struct driver *driver, const struct message *message)
{
    struct known *known = known_find(driver, message->found.vm);

    if (!known) {
        assert(driver->known_count < KNOWN_MAX);
        known = &driver->known[driver->known_count++];
    }
    *known = (struct known){.found = message->found, .devices = message->devices};
}

static void pending_end(struct driver *driver, uint64_t operation, int result, const char *text)
{
    for (int i = 0; i < driver->pending_count; i++)
        if (driver->pending[i].operation == operation) {
            driver->pending[i] = driver->pending[--driver->pending_count];
            driver->hypervisor.events.done(driver->hypervisor.events.arg, operation, result, text);
            return;
        }
}

/* It is certain that the process is dead, and all guests with it. */
static void process_died(struct driver *driver)
{
    struct hypervisor_events *events = &driver->hypervisor.events;
    ref_t ended[KNOWN_MAX];
    uint64_t epochs[KNOWN_MAX];
    int count = 0;

    driver->state = DRIVER_LOST;
    for (int i = 0; i < driver->known_count; i++) {
        struct known *known = &driver->known[i];

        known->is_ghost = true;
        if (known->found.state != GUEST_ENDED) {
            known->found.state = GUEST_ENDED;
            known->found.ended_by = GUEST_VANISHED;
            ended[count] = known->found.vm;
            epochs[count++] = known->found.epoch;
        }
    }
    for (int i = 0; i < count; i++)
        events->changed(events->arg, ended[i], epochs[i], GUEST_VANISHED);
    while (driver->pending_count > 0) {
        struct pending pending = driver->pending[0];

        pending_end(driver, pending.operation, pending.is_over_when_dead ? 0 : -ERR_INTERNAL_ERROR,
                    "the process of the host's guests has died");
    }
}

static void say_hello(struct driver *driver);

static void news_take(struct driver *driver, const struct message *message)
{
    struct hypervisor_events *events = &driver->hypervisor.events;
    struct known *known = known_find(driver, message->found.vm);

    switch (message->kind) {
    case NEWS_LISTED:
        driver->state = DRIVER_READY;
        break;
    case NEWS_GUEST:
        known_put(driver, message);
        break;
    case NEWS_GONE:
        if (known && !known->is_ghost)
            known_drop(driver, known);
        break;
    case NEWS_CHANGED:
        events->changed(events->arg, message->found.vm, message->found.epoch, message->change);
        break;
    case NEWS_DONE:
        pending_end(driver, message->operation, message->result, message->text);
        break;
    case NEWS_DIED:
        process_died(driver);
        break;
    case NEWS_CAME:
        say_hello(driver);
        break;
    }
}

static void news_due(void *arg)
{
    struct driver *driver = arg;
    struct message *message = queue_take(&driver->news);
    struct world *world;

    if (!message || !driver->host)
        return;
    world = driver->host->world;
    news_take(driver, message);
    free(message);
    if (driver->host && driver->news.first)
        queue_start(&driver->news, world, news_due, driver);
}

static void tell(struct world_host *host, const struct message *message)
{
    struct driver *driver = host->driver;

    if (driver)
        queue_put(&driver->news, message, host->world, news_due, driver);
}

void driver_tell_guest(struct world_guest *guest)
{
    tell(guest->host, &(struct message){.kind = NEWS_GUEST,
                                        .found = {guest->vm, guest->epoch, guest->domid, guest->state, guest->ended_by},
                                        .devices = guest->devices});
}

void driver_tell_gone(struct world_host *host, ref_t vm)
{
    tell(host, &(struct message){.kind = NEWS_GONE, .found = {.vm = vm}});
}

void driver_tell_changed(struct world_guest *guest, enum guest_change change)
{
    tell(guest->host, &(struct message){.kind = NEWS_CHANGED,
                                        .found = {.vm = guest->vm, .epoch = guest->epoch},
                                        .change = change});
}

void driver_tell_done(struct world_host *host, uint64_t operation, int result, const char *text)
{
    struct message message = {.kind = NEWS_DONE, .operation = operation, .result = result};

    if (operation == 0)
        return;
    snprintf(message.text, sizeof message.text, "%s", text);
    tell(host, &message);
}

void driver_process_died(struct world_host *host)
{
    tell(host, &(struct message){.kind = NEWS_DIED});
}

void driver_process_came(struct world_host *host)
{
    tell(host, &(struct message){.kind = NEWS_CAME});
}

/* ---- what the agent asks for: onto the world's loop ---- */

static void request_free(struct message *message)
{
    free(message->request.image);
    free(message);
}

static void request_run(struct world_host *host, struct message *message)
{
    struct guest_request *request = &message->request;
    int r;

    if (!host->has_guests_process) {
        if (request->fd >= 0)
            close(request->fd);
        return;
    }
    r = request->run(host, request);
    if (r < 0)
        driver_tell_done(host, request->operation, r, "refused");
}

static void request_due(void *arg)
{
    struct driver *driver = arg;
    struct message *message = queue_take(&driver->requests);
    struct world_host *host = driver->host;

    if (!message)
        return;
    request_run(host, message);
    request_free(message);
    if (driver->requests.first)
        queue_start(&driver->requests, host->world, request_due, driver);
}

static void request_put(struct driver *driver, const struct guest_request *request)
{
    struct message message = {.request = *request};

    queue_put(&driver->requests, &message, driver->host->world, request_due, driver);
}

static int do_hello(struct world_host *host, const struct guest_request *request)
{
    (void) request;
    for (struct world_guest *guest = host->guests; guest; guest = guest->next)
        driver_tell_guest(guest);
    tell(host, &(struct message){.kind = NEWS_LISTED});
    return 0;
}

static void say_hello(struct driver *driver)
{
    driver->state = DRIVER_GREETING;
    request_put(driver, &(struct guest_request){.run = do_hello, .fd = -1});
}

/* ---- the driver's functions ---- */

/* Of an agent that is dead nothing comes any more; it has not noticed yet. */
static int ask(struct hypervisor *hypervisor, const struct guest_request *request)
{
    struct driver *driver = driver_of(hypervisor);
    bool is_lost = !driver->host || driver->state != DRIVER_READY;

    if (is_lost || driver->pending_count == (int) ARRAY_SIZE(driver->pending)) {
        if (request->fd >= 0)
            close(request->fd);
        return -ERR_INTERNAL_ERROR;
    }
    driver->pending[driver->pending_count++] = (struct pending){
        .operation = request->operation,
        .vm = request->vm,
        .is_over_when_dead = request->run == guest_do_kill || request->run == guest_do_forget,
    };
    request_put(driver, request);
    return 0;
}

static int ask_plain(struct hypervisor *hypervisor, uint64_t operation, ref_t vm,
                     int (*run)(struct world_host *, const struct guest_request *))
{
    return ask(hypervisor, &(struct guest_request){.operation = operation, .run = run, .vm = vm, .fd = -1});
}

static void add_disk(struct world_devices *devices, const struct guest_disk *disk)
{
    struct world_disk *copy = &devices->disks[devices->count++];

    assert(devices->count <= WORLD_DISKS && strlen(disk->device) < sizeof copy->device
           && (!disk->path || strlen(disk->path) < sizeof copy->path));
    strcpy(copy->device, disk->device);
    strcpy(copy->path, disk->path ? disk->path : "");
    copy->is_read_only = disk->is_read_only;
}

static struct guest_request request_of(uint64_t operation, const struct guest_config *config)
{
    struct guest_request request = {
        .operation = operation, .vm = config->vm, .epoch = config->epoch, .domid = config->domid, .fd = -1};

    for (int i = 0; i < config->disk_count; i++)
        add_disk(&request.devices, &config->disks[i]);
    return request;
}

static int mem_start(struct hypervisor *hypervisor, uint64_t operation, const struct guest_config *config)
{
    struct guest_request request = request_of(operation, config);

    request.run = guest_do_start;
    return ask(hypervisor, &request);
}

static int mem_restore(struct hypervisor *hypervisor, uint64_t operation, const struct guest_config *config,
                       const char *image_path)
{
    struct guest_request request = request_of(operation, config);

    request.run = guest_do_restore;
    request.image = dup_text(image_path);
    return ask(hypervisor, &request);
}

static int mem_unpause(struct hypervisor *hypervisor, uint64_t operation, ref_t vm)
{
    return ask_plain(hypervisor, operation, vm, guest_do_unpause);
}

static int mem_pause(struct hypervisor *hypervisor, uint64_t operation, ref_t vm)
{
    return ask_plain(hypervisor, operation, vm, guest_do_pause);
}

static int mem_ask_shutdown(struct hypervisor *hypervisor, uint64_t operation, ref_t vm, bool is_reboot)
{
    return ask(hypervisor, &(struct guest_request){.operation = operation,
                                                   .run = guest_do_ask_shutdown,
                                                   .vm = vm,
                                                   .fd = -1,
                                                   .is_reboot = is_reboot});
}

/* A ghost is dead already, and known only here. Answered later, as all ends are. */
static int ghost_done(struct driver *driver, uint64_t operation, ref_t vm)
{
    if (!driver->host)
        return -ERR_INTERNAL_ERROR;
    assert(driver->pending_count < (int) ARRAY_SIZE(driver->pending));
    driver->pending[driver->pending_count++] = (struct pending){operation, vm, true};
    driver_tell_done(driver->host, operation, 0, "");
    return 0;
}

static int mem_kill(struct hypervisor *hypervisor, uint64_t operation, ref_t vm)
{
    struct driver *driver = driver_of(hypervisor);
    struct known *known = known_find(driver, vm);

    return known && known->is_ghost ? ghost_done(driver, operation, vm)
                                    : ask_plain(hypervisor, operation, vm, guest_do_kill);
}

static int mem_save(struct hypervisor *hypervisor, uint64_t operation, ref_t vm, const char *image_path)
{
    return ask(hypervisor, &(struct guest_request){.operation = operation,
                                                   .run = guest_do_save,
                                                   .vm = vm,
                                                   .fd = -1,
                                                   .image = dup_text(image_path)});
}

static int mem_receive(struct hypervisor *hypervisor, uint64_t operation, const struct guest_config *config, int socket)
{
    struct guest_request request = request_of(operation, config);

    request.run = guest_do_receive;
    request.fd = socket;
    return ask(hypervisor, &request);
}

static int mem_send(struct hypervisor *hypervisor, uint64_t operation, ref_t vm, int socket, int downtime_ms,
                    bool is_compressed)
{
    (void) downtime_ms;
    (void) is_compressed;
    return ask(hypervisor,
               &(struct guest_request){.operation = operation, .run = guest_do_send, .vm = vm, .fd = socket});
}

static int mem_cancel_send(struct hypervisor *hypervisor, uint64_t operation, ref_t vm)
{
    return ask_plain(hypervisor, operation, vm, guest_do_cancel_send);
}

static int mem_resume_sent(struct hypervisor *hypervisor, uint64_t operation, ref_t vm, uint64_t epoch)
{
    return ask(hypervisor, &(struct guest_request){
                               .operation = operation, .run = guest_do_resume_sent, .vm = vm, .epoch = epoch, .fd = -1});
}

static int mem_forget(struct hypervisor *hypervisor, uint64_t operation, ref_t vm)
{
    struct driver *driver = driver_of(hypervisor);
    struct known *known = known_find(driver, vm);

    if (!known || !known->is_ghost)
        return ask_plain(hypervisor, operation, vm, guest_do_forget);
    known_drop(driver, known);
    return ghost_done(driver, operation, vm);
}

static int answer_at_once(struct world_host *host, const struct guest_request *request)
{
    driver_tell_done(host, request->operation, 0, "");
    return 0;
}

/* No guest of this world has a file open. */
static int mem_reopen_disks(struct hypervisor *hypervisor, uint64_t operation, ref_t vm)
{
    return ask_plain(hypervisor, operation, vm, answer_at_once);
}

static int mem_plug_disk(struct hypervisor *hypervisor, uint64_t operation, ref_t vm, const struct guest_disk *disk)
{
    struct guest_request request = {.operation = operation, .run = guest_do_plug, .vm = vm, .fd = -1};

    add_disk(&request.devices, disk);
    return ask(hypervisor, &request);
}

static int mem_unplug_disk(struct hypervisor *hypervisor, uint64_t operation, ref_t vm, const char *device, bool is_forced)
{
    struct guest_request request = {.operation = operation, .run = guest_do_unplug, .vm = vm, .fd = -1};

    (void) is_forced;
    add_disk(&request.devices, &(struct guest_disk){.device = device});
    return ask(hypervisor, &request);
}

/* No VM of the simulator has a CD drive or a network interface. */
static int mem_change_cd(struct hypervisor *hypervisor, uint64_t operation, ref_t vm, const struct guest_disk *disk)
{
    (void) disk;
    return ask_plain(hypervisor, operation, vm, answer_at_once);
}

static int mem_plug_nic(struct hypervisor *hypervisor, uint64_t operation, ref_t vm, const struct guest_nic *nic)
{
    (void) nic;
    return ask_plain(hypervisor, operation, vm, answer_at_once);
}

static int mem_unplug_nic(struct hypervisor *hypervisor, uint64_t operation, ref_t vm, const char *device, bool is_forced)
{
    (void) device;
    (void) is_forced;
    return ask_plain(hypervisor, operation, vm, answer_at_once);
}

static const struct guest_devices *mem_devices(struct hypervisor *hypervisor, ref_t vm)
{
    struct driver *driver = driver_of(hypervisor);
    const struct known *known = known_find(driver, vm);

    if (!known || known->is_ghost)
        return NULL;
    driver->devices = (struct guest_devices){.disks = driver->disks, .disk_count = known->devices.count};
    for (int i = 0; i < known->devices.count; i++) {
        const struct world_disk *disk = &known->devices.disks[i];

        driver->disks[i] = (struct guest_disk){
            .device = disk->device, .path = disk->path, .format = "raw", .is_read_only = disk->is_read_only};
    }
    return &driver->devices;
}

static int mem_set_memory_target(struct hypervisor *hypervisor, uint64_t operation, ref_t vm, int64_t bytes)
{
    (void) bytes;
    return ask_plain(hypervisor, operation, vm, answer_at_once);
}

static int mem_set_vcpus(struct hypervisor *hypervisor, uint64_t operation, ref_t vm, int vcpus)
{
    (void) vcpus;
    return ask_plain(hypervisor, operation, vm, answer_at_once);
}

static int mem_list(struct hypervisor *hypervisor, void (*found)(void *arg, const struct guest_found *), void *arg)
{
    struct driver *driver = driver_of(hypervisor);

    if (driver->state != DRIVER_READY)
        return -ERR_INTERNAL_ERROR;
    for (int i = 0; i < driver->known_count; i++)
        found(arg, &driver->known[i].found);
    return 0;
}

static int mem_sample(struct hypervisor *hypervisor, ref_t vm, struct guest_sample *ret)
{
    const struct known *known = known_find(driver_of(hypervisor), vm);

    if (!known || known->found.state == GUEST_ENDED)
        return -ERR_HANDLE_INVALID;
    *ret = (struct guest_sample){0};
    return 0;
}

/* ---- begin and end ---- */

void hypervisor_mem_cut(struct hypervisor *hypervisor)
{
    struct driver *driver = driver_of(hypervisor);
    struct world_host *host = driver->host;
    struct message *message;

    if (!host)
        return;
    while ((message = queue_take(&driver->requests)))  {
        if (world_chance(host->world, 3) > 0) {
            request_run(host, message);
        } else { /* this one, and what follows, was not written yet */
            if (message->request.fd >= 0)
                close(message->request.fd);
            request_free(message);
            break;
        }
        request_free(message);
    }
    while ((message = queue_take(&driver->requests))) {
        if (message->request.fd >= 0)
            close(message->request.fd);
        request_free(message);
    }
    timer_stop(&driver->requests.timer);
    timer_stop(&driver->news.timer);
    host->driver = NULL;
    driver->host = NULL;
    for (struct world_guest *guest = host->guests, *next; guest; guest = next) {
        next = guest->next;
        guest_abandon_work(guest);
    }
}

static void mem_destroy(struct hypervisor **hypervisor_p)
{
    struct driver *driver = driver_of(*hypervisor_p);
    struct message *message;

    hypervisor_mem_cut(*hypervisor_p);
    while ((message = queue_take(&driver->news)))
        free(message);
    free(driver);
    *hypervisor_p = NULL;
}

struct hypervisor *hypervisor_mem_new(struct world_host *host, struct loop *agent_loop)
{
    struct driver *driver = new0(struct driver);

    assert(!host->driver);
    driver->hypervisor = (struct hypervisor){
        .name = "mem",
        .start = mem_start,
        .restore = mem_restore,
        .unpause = mem_unpause,
        .pause = mem_pause,
        .ask_shutdown = mem_ask_shutdown,
        .kill = mem_kill,
        .save = mem_save,
        .receive = mem_receive,
        .send = mem_send,
        .cancel_send = mem_cancel_send,
        .resume_sent = mem_resume_sent,
        .reopen_disks = mem_reopen_disks,
        .plug_disk = mem_plug_disk,
        .unplug_disk = mem_unplug_disk,
        .change_cd = mem_change_cd,
        .plug_nic = mem_plug_nic,
        .unplug_nic = mem_unplug_nic,
        .devices = mem_devices,
        .forget = mem_forget,
        .set_memory_target = mem_set_memory_target,
        .set_vcpus = mem_set_vcpus,
        .list = mem_list,
        .sample = mem_sample,
        .destroy = mem_destroy,
    };
    driver->host = host;
    queue_init(&driver->requests, host->world->loop);
    queue_init(&driver->news, agent_loop);
    host->driver = driver;
    driver->state = DRIVER_LOST;
    if (host->has_guests_process)
        say_hello(driver);
    return &driver->hypervisor;
}
