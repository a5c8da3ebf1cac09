/* world_guest.c - simulated guests in memory: the life of each, as drover-guests would have it
 *
 *   start, restore, receive -> PAUSED <-> RUNNING -> SENT -> RUNNING or killed
 *
 * A running guest holds its VM's lock, from unpause until it is SENT or has ended. Nobody is refused a lock here: a
 * second holder is a broken promise, and ends the simulation.
 *
 * Moving: the sender's memory is one record on the socket, sent after a while, when the guest is held; the receiver
 * confirms it, also after a while. A connection that ends before that leaves the guest where it was. */
#include "tests/sim/world_guest.h"

#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/model.h"

#define ACK_BYTE 'A'

/* What travels. */
struct memory {
    uint64_t life, runs_seen;
};

static struct trace *trace_of(const struct world_host *host)
{
    return &host->world->trace;
}

static const char *name_of(const struct world_guest *guest)
{
    return world_name(guest->host->world, guest->vm);
}

/* ---- lives ---- */

static struct life *life_new(struct world *world, ref_t vm)
{
    struct life *life = new0(struct life);

    life->number = world->lives ? world->lives->number + 1 : 1;
    life->vm = vm;
    life->next = world->lives;
    world->lives = life;
    return life;
}

static struct life *life_find(struct world *world, uint64_t number)
{
    struct life *life = world->lives;

    while (life && life->number != number)
        life = life->next;
    return life;
}

void lives_free(struct world *world)
{
    while (world->lives) {
        struct life *life = world->lives;

        world->lives = life->next;
        free(life);
    }
}

/* ---- guests ---- */

static struct world_guest *guest_new(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest = new0(struct world_guest);

    guest->host = host;
    guest->vm = request->vm;
    guest->epoch = request->epoch;
    guest->domid = request->domid;
    guest->devices = request->devices;
    guest->state = GUEST_RECEIVING;
    guest->fd = -1;
    guest->next = host->guests;
    host->guests = guest;
    return guest;
}

static void work_drop(struct world_guest *guest)
{
    timer_stop(&guest->work_timer);
    if (guest->fd >= 0)
        loop_unwatch_fd(guest->host->world->loop, guest->fd);
    close_fd(&guest->fd);
    free(guest->image);
    guest->image = NULL;
    guest->work = WORK_NONE;
    guest->is_held = false;
}

void guest_free(struct world_guest *guest)
{
    struct world_guest **place = &guest->host->guests;

    while (*place != guest)
        place = &(*place)->next;
    *place = guest->next;
    work_drop(guest);
    timer_stop(&guest->end_timer);
    free(guest);
}

static void guest_remove(struct world_guest *guest)
{
    driver_tell_gone(guest->host, guest->vm);
    guest_free(guest);
}

static void set_state(struct world_guest *guest, enum guest_state state)
{
    guest->state = state;
    driver_tell_guest(guest);
}

static void work_done(struct world_guest *guest, int result, const char *text)
{
    work_drop(guest);
    driver_tell_done(guest->host, guest->operation, result, text);
}

static uint64_t work_ms(struct world_host *host)
{
    return world_chance(host->world, host->world->chances.work_ms_max + 1);
}

static void work_begin(struct world_guest *guest, enum guest_work work,
                       const struct guest_request *request)
{
    guest->work = work;
    guest->operation = request->operation;
    guest->fd = request->fd;
}

static void due(struct world_guest *guest, void (*fn)(void *arg))
{
    timer_start(guest->host->world->loop, &guest->work_timer, work_ms(guest->host), fn, guest);
}

static int answer(struct world_host *host, const struct guest_request *request)
{
    driver_tell_done(host, request->operation, 0, "");
    return 0;
}

/* The VM may run here, from now on. */
static void run(struct world_guest *guest, const char *how)
{
    struct world_host *host = guest->host;
    struct life *life = guest->life;

    for (int i = 0; i < WORLD_HOSTS; i++) {
        const struct world_guest *other = world_guest(&host->world->hosts[i], guest->vm);

        if (other && other != guest && other->state == GUEST_RUNNING)
            trace_fail(trace_of(host), "%s runs on %s at epoch %llu and is to run on %s at epoch %llu", name_of(guest),
                       other->host->name, (unsigned long long) other->epoch, host->name,
                       (unsigned long long) guest->epoch);
    }
    if (!life || life->runs != guest->runs_seen)
        trace_fail(trace_of(host), "%s goes on on %s from memory that is older than what has run since",
                   name_of(guest), host->name);
    guest->runs_seen = ++life->runs;
    trace_event(trace_of(host), "%s: %s runs, epoch %llu, %s", host->name, name_of(guest),
                (unsigned long long) guest->epoch, how);
    set_state(guest, GUEST_RUNNING);
}

static void end(struct world_guest *guest, enum guest_change how)
{
    enum guest_work work = guest->work;

    trace_event(trace_of(guest->host), "%s: %s ends (%d)", guest->host->name, name_of(guest), (int) how);
    work_drop(guest);
    timer_stop(&guest->end_timer);
    guest->is_ending = false;
    guest->ended_by = how;
    set_state(guest, GUEST_ENDED);
    if (work)
        driver_tell_done(guest->host, guest->operation, -ERR_VM_BAD_POWER_STATE, "the guest ended");
}

void guest_end_by_itself(struct world_guest *guest, enum guest_change change)
{
    end(guest, change);
    driver_tell_changed(guest, change);
}

/* ---- requests ---- */

static int need(struct world_host *host, const struct guest_request *request, enum guest_state a, enum guest_state b,
                struct world_guest **ret)
{
    struct world_guest *guest = world_guest(host, request->vm);

    if (!guest || (guest->state != a && guest->state != b))
        return -ERR_VM_BAD_POWER_STATE;
    if (guest->work)
        return -ERR_OTHER_OPERATION_IN_PROGRESS;
    *ret = guest;
    return 0;
}

static int make(struct world_host *host, const struct guest_request *request, struct world_guest **ret)
{
    struct world_guest *guest = world_guest(host, request->vm);

    if (guest && guest->state != GUEST_ENDED)
        return -ERR_VM_BAD_POWER_STATE;
    if (world_happens(host->world, host->world->chances.start_fails))
        return -ERR_INTERNAL_ERROR;
    if (guest)
        guest_remove(guest);
    *ret = guest_new(host, request);
    return 0;
}

static void booted(void *arg)
{
    work_done(arg, 0, "");
}

static int boot(struct world_guest *guest, const struct guest_request *request)
{
    guest->host->world->boots++;
    work_begin(guest, WORK_BOOT, request);
    set_state(guest, GUEST_PAUSED);
    due(guest, booted);
    return 0;
}

int guest_do_start(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest;
    int r = make(host, request, &guest);

    if (r < 0)
        return r;
    guest->life = life_new(host->world, guest->vm);
    return boot(guest, request);
}

int guest_do_restore(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest;
    struct memory memory;
    FILE *file = fopen(request->image, "re");
    bool is_read = file && fread(&memory, sizeof memory, 1, file) == 1;
    int r;

    if (file)
        fclose(file);
    r = is_read ? make(host, request, &guest) : -ERR_INTERNAL_ERROR;
    if (r < 0)
        return r;
    guest->life = life_find(host->world, memory.life);
    guest->runs_seen = memory.runs_seen;
    return boot(guest, request);
}

int guest_do_unpause(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest = world_guest(host, request->vm);
    int r;

    if (guest && guest->state == GUEST_RUNNING)
        return answer(host, request);
    r = need(host, request, GUEST_PAUSED, GUEST_PAUSED, &guest);
    if (r < 0)
        return r;
    if (world_happens(host->world, host->world->chances.unpause_fails))
        return -ERR_INTERNAL_ERROR;
    run(guest, "unpaused");
    return answer(host, request);
}

int guest_do_pause(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest;
    int r = need(host, request, GUEST_RUNNING, GUEST_PAUSED, &guest);

    if (r < 0)
        return r;
    set_state(guest, GUEST_PAUSED);
    return answer(host, request);
}

static void end_due(void *arg)
{
    struct world_guest *guest = arg;

    if (guest->state == GUEST_RUNNING && !guest->is_held)
        guest_end_by_itself(guest, guest->ends_as);
    else
        guest->is_ending = false; /* it has other things to think of */
}

int guest_do_ask_shutdown(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest = world_guest(host, request->vm);

    if (!guest || guest->state != GUEST_RUNNING)
        return -ERR_VM_BAD_POWER_STATE;
    if (!guest->is_ending) {
        guest->is_ending = true;
        guest->ends_as = request->is_reboot ? GUEST_REBOOTED : GUEST_SHUT_DOWN;
        timer_start(host->world->loop, &guest->end_timer, work_ms(host), end_due, guest);
    }
    return answer(host, request);
}

int guest_do_kill(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest = world_guest(host, request->vm);

    if (guest && guest->state == GUEST_RECEIVING) {
        work_done(guest, -ERR_VM_BAD_POWER_STATE, "the guest was killed");
        guest_remove(guest);
    } else if (guest && guest->state != GUEST_ENDED) {
        end(guest, GUEST_KILLED);
    }
    return answer(host, request);
}

int guest_do_forget(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest = world_guest(host, request->vm);

    if (guest && guest->state != GUEST_ENDED)
        return -ERR_VM_BAD_POWER_STATE;
    if (guest)
        guest_remove(guest);
    return answer(host, request);
}

/* ---- devices ---- */

int guest_do_plug(struct world_host *host, const struct guest_request *request)
{
    const struct world_disk *wanted = &request->devices.disks[0], *there;
    struct world_guest *guest;
    int r = need(host, request, GUEST_RUNNING, GUEST_PAUSED, &guest);

    if (r < 0)
        return r;
    there = world_disk(&guest->devices, wanted->device);
    if (there && !streq(there->path, wanted->path))
        return -ERR_DEVICE_ALREADY_EXISTS;
    if (there)
        return answer(host, request);
    if (guest->devices.count == WORLD_DISKS || world_happens(host->world, host->world->chances.start_fails))
        return -ERR_INTERNAL_ERROR;
    trace_event(trace_of(host), "%s: %s gets disk %s", host->name, name_of(guest), wanted->device);
    guest->devices.disks[guest->devices.count++] = *wanted;
    driver_tell_guest(guest);
    return answer(host, request);
}

int guest_do_unplug(struct world_host *host, const struct guest_request *request)
{
    const struct world_disk *there;
    struct world_guest *guest;
    int r = need(host, request, GUEST_RUNNING, GUEST_PAUSED, &guest);

    if (r < 0)
        return r;
    there = world_disk(&guest->devices, request->devices.disks[0].device);
    if (!there)
        return answer(host, request);
    if (world_happens(host->world, host->world->chances.start_fails))
        return -ERR_DEVICE_DETACH_REJECTED;
    trace_event(trace_of(host), "%s: %s lets disk %s go", host->name, name_of(guest), there->device);
    guest->devices.disks[there - guest->devices.disks] = guest->devices.disks[guest->devices.count - 1];
    guest->devices.count--;
    driver_tell_guest(guest);
    return answer(host, request);
}

/* ---- suspend images ---- */

static void save_cancel(struct world_guest *guest, int code)
{
    unlink(guest->image);
    work_done(guest, code, "the image could not be written");
}

static void saved(void *arg)
{
    struct world_guest *guest = arg;
    struct world *world = guest->host->world;
    struct memory memory = {guest->life->number, guest->runs_seen};
    FILE *file = world_happens(world, world->chances.save_fails) ? NULL : fopen(guest->image, "we");
    bool is_written = file && fwrite(&memory, sizeof memory, 1, file) == 1;

    if (file)
        fclose(file);
    if (!is_written) {
        save_cancel(guest, -ERR_INTERNAL_ERROR);
        return;
    }
    world->saves++;
    work_drop(guest);
    trace_event(trace_of(guest->host), "%s: %s is saved", guest->host->name, name_of(guest));
    timer_stop(&guest->end_timer);
    guest->ended_by = GUEST_SAVED;
    set_state(guest, GUEST_ENDED);
    driver_tell_done(guest->host, guest->operation, 0, "");
}

int guest_do_save(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest;
    int r = need(host, request, GUEST_RUNNING, GUEST_PAUSED, &guest);

    if (r < 0)
        return r;
    work_begin(guest, WORK_SAVE, request);
    guest->is_held = true;
    guest->image = dup_text(request->image);
    due(guest, saved);
    return 0;
}

/* ---- moves ---- */

/* The connection is not, or no longer, of use. */
void guest_break_move(struct world_guest *guest)
{
    bool is_receiving = guest->work == WORK_RECEIVE;

    trace_event(trace_of(guest->host), "%s: the move of %s breaks at its %s", guest->host->name, name_of(guest),
                is_receiving ? "destination" : "source");
    work_done(guest, -ERR_INTERNAL_ERROR, "the move's connection broke");
    if (is_receiving)
        guest_remove(guest);
}

static void received(void *arg)
{
    struct world_guest *guest = arg;
    char ack = ACK_BYTE;

    if (world_happens(guest->host->world, guest->host->world->chances.move_breaks)
        || send(guest->fd, &ack, 1, MSG_NOSIGNAL) != 1) {
        guest_break_move(guest);
        return;
    }
    trace_event(trace_of(guest->host), "%s: %s has arrived", guest->host->name, name_of(guest));
    work_drop(guest);
    set_state(guest, GUEST_PAUSED);
    driver_tell_done(guest->host, guest->operation, 0, "");
}

static void receive_ready(void *arg, uint32_t events)
{
    struct world_guest *guest = arg;
    struct memory memory;
    ssize_t count = read(guest->fd, &memory, sizeof memory);

    (void) events;
    if (count != (ssize_t) sizeof memory) {
        guest_break_move(guest);
        return;
    }
    guest->life = life_find(guest->host->world, memory.life);
    guest->runs_seen = memory.runs_seen;
    loop_unwatch_fd(guest->host->world->loop, guest->fd);
    due(guest, received);
}

int guest_do_receive(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest;
    int r = make(host, request, &guest);

    if (r < 0) {
        close(request->fd);
        return r;
    }
    work_begin(guest, WORK_RECEIVE, request);
    driver_tell_guest(guest);
    loop_watch_fd(host->world->loop, guest->fd, EPOLLIN, receive_ready, guest);
    return 0;
}

static void send_ready(void *arg, uint32_t events)
{
    struct world_guest *guest = arg;
    char ack;

    (void) events;
    if (read(guest->fd, &ack, 1) != 1 || ack != ACK_BYTE) {
        guest_break_move(guest);
        return;
    }
    guest->host->world->moves++;
    trace_event(trace_of(guest->host), "%s: %s is sent", guest->host->name, name_of(guest));
    work_drop(guest);
    set_state(guest, GUEST_SENT);
    driver_tell_done(guest->host, guest->operation, 0, "");
}

static void send_memory(void *arg)
{
    struct world_guest *guest = arg;
    struct memory memory = {guest->life->number, guest->runs_seen};

    if (world_happens(guest->host->world, guest->host->world->chances.move_breaks)
        || send(guest->fd, &memory, sizeof memory, MSG_NOSIGNAL) != (ssize_t) sizeof memory) {
        guest_break_move(guest);
        return;
    }
    guest->is_held = true;
}

int guest_do_send(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest;
    int r = need(host, request, GUEST_RUNNING, GUEST_RUNNING, &guest);

    if (r < 0) {
        close(request->fd);
        return r;
    }
    work_begin(guest, WORK_SEND, request);
    loop_watch_fd(host->world->loop, guest->fd, EPOLLIN, send_ready, guest);
    due(guest, send_memory);
    return 0;
}

int guest_do_cancel_send(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest = world_guest(host, request->vm);

    if (!guest || guest->state != GUEST_RUNNING)
        return -ERR_VM_BAD_POWER_STATE;
    if (guest->work == WORK_SEND)
        work_done(guest, -ERR_TASK_CANCELLED, "the move was cancelled");
    return answer(host, request);
}

int guest_do_resume_sent(struct world_host *host, const struct guest_request *request)
{
    struct world_guest *guest = world_guest(host, request->vm);
    int r;

    if (guest && guest->state == GUEST_RUNNING && guest->epoch == request->epoch)
        return answer(host, request);
    r = need(host, request, GUEST_SENT, GUEST_SENT, &guest);
    if (r < 0)
        return r;
    if (request->epoch < guest->epoch)
        return -ERR_INTERNAL_ERROR;
    guest->epoch = request->epoch;
    run(guest, "resumed");
    return answer(host, request);
}

void guest_abandon_work(struct world_guest *guest)
{
    switch (guest->work) {
    case WORK_NONE:
        break;
    case WORK_BOOT:
        work_drop(guest);
        break;
    case WORK_SAVE:
        save_cancel(guest, -ERR_TASK_CANCELLED);
        break;
    case WORK_RECEIVE:
    case WORK_SEND:
        guest_break_move(guest);
        break;
    }
}
