/* slaves_guests.c - guests that only are remembered: a driver for measuring everything around it
 *
 * It keeps the promises of hypervisor.h but for what a guest does: nothing. A move is one byte and its answer, through the
 * socket that the agents have opened, so all of their protocol is real and only the memory is missing. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/failure.h"
#include "shared/loop.h"
#include "shared/refmap.h"
#include "slave/hypervisor.h"
#include "tests/bench/slaves.h"

#define MEMORY_BYTE 'm'
#define THANKS_BYTE 't'

struct guests {
    struct hypervisor driver;
    struct loop *loop;
    struct refmap all;            /* VM's uuid -> struct guest */
};

struct guest {
    struct guests *guests;
    struct guest_found found;
    int64_t memory_bytes;
    int socket;                   /* of a move under way, else -1 */
    uint64_t moving;              /* its operation */
};

/* The end of an operation, told in a later step: the agent waits for it only after the driver's function has returned. */
struct ending {
    struct loop_item item;
    struct guests *guests;
    uint64_t operation;
    int result;
};

static void tell(struct loop_item *item)
{
    struct ending *ending = CONTAINER_OF(item, struct ending, item);
    struct hypervisor_events *events = &ending->guests->driver.events;

    events->done(events->arg, ending->operation, ending->result, ending->result < 0 ? "refused by the bench's driver" : "");
    free(ending);
}

static void drop(struct loop_item *item)
{
    free(CONTAINER_OF(item, struct ending, item));
}

static int end(struct guests *guests, uint64_t operation, int result)
{
    struct ending *ending = new0(struct ending);

    *ending = (struct ending){{.run = tell, .drop = drop}, guests, operation, result};
    loop_defer(guests->loop, &ending->item);
    return 0;
}

static struct guests *guests_of(struct hypervisor *driver)
{
    return CONTAINER_OF(driver, struct guests, driver);
}

static struct guest *find(struct hypervisor *driver, ref_t vm)
{
    return refmap_get(&guests_of(driver)->all, vm);
}

static void remove_guest(struct guest *guest)
{
    refmap_take(&guest->guests->all, guest->found.vm);
    free(guest);
}

static void stop_moving(struct guest *guest)
{
    if (guest->socket < 0)
        return;
    loop_unwatch_fd(guest->guests->loop, guest->socket);
    close_fd(&guest->socket);
}

static struct guest *add(struct hypervisor *driver, const struct guest_config *config, enum guest_state state)
{
    struct guest *guest = new0(struct guest);

    guest->guests = guests_of(driver);
    guest->found = (struct guest_found){.vm = config->vm, .epoch = config->epoch, .domid = config->domid, .state = state};
    guest->memory_bytes = config->memory_target_bytes;
    guest->socket = -1;
    refmap_put(&guest->guests->all, config->vm, guest);
    return guest;
}

/* From one state to another, or refused. */
static int change(struct hypervisor *driver, uint64_t operation, ref_t vm, enum guest_state from, enum guest_state to)
{
    struct guest *guest = find(driver, vm);

    if (!guest || guest->found.state != from)
        return -ERR_VM_BAD_POWER_STATE;
    guest->found.state = to;
    return end(guests_of(driver), operation, 0);
}

/* ---- life ---- */

static int start(struct hypervisor *driver, uint64_t operation, const struct guest_config *config)
{
    if (find(driver, config->vm))
        return -ERR_VM_BAD_POWER_STATE;
    add(driver, config, GUEST_PAUSED);
    return end(guests_of(driver), operation, 0);
}

static int restore(struct hypervisor *driver, uint64_t operation, const struct guest_config *config, const char *image)
{
    (void) image;
    return start(driver, operation, config);
}

static int unpause(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    return change(driver, operation, vm, GUEST_PAUSED, GUEST_RUNNING);
}

static int pause_guest(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    return change(driver, operation, vm, GUEST_RUNNING, GUEST_PAUSED);
}

static void tell_shut_down(struct loop_item *item)
{
    struct ending *ending = CONTAINER_OF(item, struct ending, item);
    struct hypervisor_events *events = &ending->guests->driver.events;
    struct guest *guest;
    size_t at = 0;
    void *value;
    ref_t vm;

    /* operation is the domid here, which no other guest of the host has. */
    while (refmap_each(&ending->guests->all, &at, &vm, &value)) {
        guest = value;
        if ((uint64_t) guest->found.domid == ending->operation && guest->found.state == GUEST_RUNNING) {
            guest->found.state = GUEST_ENDED;
            guest->found.ended_by = (enum guest_change) ending->result;
            events->changed(events->arg, vm, guest->found.epoch, guest->found.ended_by);
            break;
        }
    }
    free(ending);
}

static int ask_shutdown(struct hypervisor *driver, uint64_t operation, ref_t vm, bool is_reboot)
{
    struct guest *guest = find(driver, vm);
    struct ending *ending;

    if (!guest || guest->found.state != GUEST_RUNNING)
        return -ERR_VM_BAD_POWER_STATE;
    end(guests_of(driver), operation, 0);
    ending = new0(struct ending);
    *ending = (struct ending){{.run = tell_shut_down, .drop = drop}, guest->guests, (uint64_t) guest->found.domid,
                              is_reboot ? GUEST_REBOOTED : GUEST_SHUT_DOWN};
    loop_defer(guest->guests->loop, &ending->item);
    return 0;
}

static int kill_guest(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    struct guests *guests = guests_of(driver);
    struct guest *guest = find(driver, vm);

    if (guest && guest->found.state != GUEST_ENDED) {
        if (guest->socket >= 0)
            end(guests, guest->moving, -ERR_VM_MIGRATE_FAILED);
        stop_moving(guest);
        if (guest->found.state == GUEST_RECEIVING) {
            remove_guest(guest);
        } else {
            guest->found.state = GUEST_ENDED;
            guest->found.ended_by = GUEST_KILLED;
        }
    }
    return end(guests, operation, 0);
}

static int save(struct hypervisor *driver, uint64_t operation, ref_t vm, const char *image)
{
    (void) image;
    find(driver, vm) ? find(driver, vm)->found.ended_by = GUEST_SAVED : GUEST_SAVED;
    return change(driver, operation, vm, GUEST_RUNNING, GUEST_ENDED);
}

static int forget(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    struct guest *guest = find(driver, vm);

    if (guest && guest->found.state != GUEST_ENDED && guest->found.state != GUEST_SENT)
        return -ERR_VM_BAD_POWER_STATE;
    if (guest)
        remove_guest(guest);
    return end(guests_of(driver), operation, 0);
}

static int reopen_disks(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    (void) vm;
    return end(guests_of(driver), operation, 0);
}

/* These guests have no devices. */
static int plug_disk(struct hypervisor *driver, uint64_t operation, ref_t vm, const struct guest_disk *disk)
{
    (void) vm;
    (void) disk;
    return end(guests_of(driver), operation, 0);
}

static int plug_nic(struct hypervisor *driver, uint64_t operation, ref_t vm, const struct guest_nic *nic)
{
    (void) vm;
    (void) nic;
    return end(guests_of(driver), operation, 0);
}

static int unplug(struct hypervisor *driver, uint64_t operation, ref_t vm, const char *device, bool is_forced)
{
    (void) vm;
    (void) device;
    (void) is_forced;
    return end(guests_of(driver), operation, 0);
}

static const struct guest_devices *devices(struct hypervisor *driver, ref_t vm)
{
    (void) driver;
    (void) vm;
    return NULL;
}

static int set_memory_target(struct hypervisor *driver, uint64_t operation, ref_t vm, int64_t bytes)
{
    if (find(driver, vm))
        find(driver, vm)->memory_bytes = bytes;
    return end(guests_of(driver), operation, 0);
}

static int set_vcpus(struct hypervisor *driver, uint64_t operation, ref_t vm, int vcpus)
{
    (void) vm;
    (void) vcpus;
    return end(guests_of(driver), operation, 0);
}

/* ---- moves ---- */

static void receive_ready(void *arg, uint32_t events)
{
    struct guest *guest = arg;
    struct guests *guests = guest->guests;
    char byte = THANKS_BYTE;
    ssize_t n = recv(guest->socket, &byte, 1, MSG_DONTWAIT);

    (void) events;
    if (n < 0 && errno == EAGAIN)
        return;
    if (n == 1 && byte == MEMORY_BYTE) {
        byte = THANKS_BYTE;
        guest->found.state = GUEST_PAUSED;
        (void) !send(guest->socket, &byte, 1, MSG_NOSIGNAL);
        stop_moving(guest);
        end(guests, guest->moving, 0);
        return;
    }
    stop_moving(guest);
    end(guests, guest->moving, -ERR_VM_MIGRATE_FAILED);
    remove_guest(guest);
}

static int receive(struct hypervisor *driver, uint64_t operation, const struct guest_config *config, int socket)
{
    struct guest *guest;

    if (find(driver, config->vm)) {
        close(socket);
        return -ERR_VM_BAD_POWER_STATE;
    }
    guest = add(driver, config, GUEST_RECEIVING);
    guest->socket = socket;
    guest->moving = operation;
    if (loop_watch_fd(guest->guests->loop, socket, EPOLLIN, receive_ready, guest) < 0)
        die("the socket of a move cannot be watched");
    return 0;
}

static void send_ready(void *arg, uint32_t events)
{
    struct guest *guest = arg;
    char byte = 0;
    ssize_t n = recv(guest->socket, &byte, 1, MSG_DONTWAIT);
    bool is_done = n == 1 && byte == THANKS_BYTE;

    (void) events;
    if (n < 0 && errno == EAGAIN)
        return;
    stop_moving(guest);
    if (is_done)
        guest->found.state = GUEST_SENT;
    end(guest->guests, guest->moving, is_done ? 0 : -ERR_VM_MIGRATE_FAILED);
}

static int send_guest(struct hypervisor *driver, uint64_t operation, ref_t vm, int socket, int downtime_ms,
                      bool is_compressed)
{
    struct guest *guest = find(driver, vm);
    char byte = MEMORY_BYTE;

    (void) downtime_ms;
    (void) is_compressed;
    if (!guest || guest->found.state != GUEST_RUNNING || guest->socket >= 0) {
        close(socket);
        return -ERR_VM_BAD_POWER_STATE;
    }
    guest->socket = socket;
    guest->moving = operation;
    (void) !send(socket, &byte, 1, MSG_NOSIGNAL); /* a failure shows itself to the reader, too */
    if (loop_watch_fd(guest->guests->loop, socket, EPOLLIN, send_ready, guest) < 0)
        die("the socket of a move cannot be watched");
    return 0;
}

static int cancel_send(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    struct guest *guest = find(driver, vm);

    if (guest && guest->socket >= 0 && guest->found.state == GUEST_RUNNING) {
        stop_moving(guest);
        end(guest->guests, guest->moving, -ERR_VM_MIGRATE_FAILED);
    }
    return end(guests_of(driver), operation, 0);
}

static int resume_sent(struct hypervisor *driver, uint64_t operation, ref_t vm, uint64_t epoch)
{
    struct guest *guest = find(driver, vm);

    if (!guest || epoch < guest->found.epoch)
        return -ERR_VM_BAD_POWER_STATE;
    guest->found.epoch = epoch;
    return change(driver, operation, vm, GUEST_SENT, GUEST_RUNNING);
}

/* ---- what is here ---- */

static int list(struct hypervisor *driver, void (*found)(void *arg, const struct guest_found *), void *arg)
{
    size_t at = 0;
    void *value;
    ref_t vm;

    while (refmap_each(&guests_of(driver)->all, &at, &vm, &value))
        found(arg, &((struct guest *) value)->found);
    return 0;
}

static int sample(struct hypervisor *driver, ref_t vm, struct guest_sample *ret)
{
    struct guest *guest = find(driver, vm);

    if (!guest)
        return -ERR_VM_BAD_POWER_STATE;
    *ret = (struct guest_sample){.memory_actual_bytes = guest->memory_bytes};
    return 0;
}

static void destroy(struct hypervisor **driver_p)
{
    struct guests *guests;
    size_t at = 0;
    void *value;
    ref_t vm;

    if (!*driver_p)
        return;
    guests = guests_of(TAKE(*driver_p));
    while (refmap_each(&guests->all, &at, &vm, &value)) {
        stop_moving(value);
        free(value);
    }
    refmap_done(&guests->all);
    free(guests);
}

struct hypervisor *bench_guests_new(struct loop *loop)
{
    struct guests *guests = new0(struct guests);

    guests->loop = loop;
    guests->driver = (struct hypervisor){
        .name = "sim", .start = start, .restore = restore, .unpause = unpause, .pause = pause_guest,
        .ask_shutdown = ask_shutdown, .kill = kill_guest, .save = save, .receive = receive, .send = send_guest,
        .cancel_send = cancel_send, .resume_sent = resume_sent, .reopen_disks = reopen_disks, .forget = forget,
        .plug_disk = plug_disk, .unplug_disk = unplug, .change_cd = plug_disk, .plug_nic = plug_nic, .unplug_nic = unplug,
        .devices = devices,
        .set_memory_target = set_memory_target, .set_vcpus = set_vcpus, .list = list, .sample = sample,
        .destroy = destroy};
    return &guests->driver;
}
