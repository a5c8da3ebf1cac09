/* hypervisor_sim.c - the driver for simulated guests: a client of drover-guests (slave/guests.c).
 * Here is its connection and what it knows; hypervisor_sim_calls.c has the functions of the driver.
 *
 * The guests process tells every change, so the driver has a copy of what is there and never asks.
 * What matters is what is known when nothing is told:
 *
 *   NO_PEER     nobody listens at the path; tried again, later and later, up to a second
 *   GREETING    connected; the list of guests is coming
 *   READY       the copy is true: list() answers, operations are taken
 *   LOST        the connection has ended. That proves nothing: the process may live
 *
 * Guests live in their process, so they are dead if and only if it is. Its death is proved by a
 * pidfd, taken before the greeting is sent, so that the answer shows that it is of the process that
 * answered. Without pidfds (old kernel, another pid namespace) the proof is a closed connection and
 * then a path where nobody listens: the process listens as long as it lives. A process that does
 * not answer - stopped, swapped out - is never taken for dead.
 *
 * When the process is dead, its guests are told as GUEST_VANISHED and stay in the list, ended,
 * until forget(). Operations that were under way when the connection was lost are answered when the
 * truth is known: by the state that the guest is found in, so that a lost answer is not mistaken
 * for a failure. */
#include "slave/hypervisor_sim.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/model.h"
#include "slave/hypervisor_sim_state.h"

#define QUEUE_BYTES_MAX (64 * 1024 * 1024) /* requests that a stopped process has not yet read */
#define RETRY_MS_FIRST  10
#define RETRY_MS_MOST   1000
#define AWAY_TELL_MS    3000   /* without guests process before the log says so */
#define AWAY_AGAIN_MS   300000 /* and says it again */

static void sim_connect(void *arg);

/* --- what is known --- */

struct known *sim_find_known(const struct sim *sim, ref_t vm)
{
    struct guest_node *node = guest_table_find(&sim->known, vm);

    return node ? CONTAINER_OF(node, struct known, node) : NULL;
}

void sim_drop_known(struct sim *sim, struct known *known)
{
    guest_table_remove(&sim->known, &known->node);
    guest_devices_done(&known->devices);
    free(known);
}

static void guest_told(struct sim *sim, const struct guest_message *message)
{
    int state = guest_state_of(guest_message_text(message, "state", ""));
    int ended_by = guest_change_of(guest_message_text(message, "ended_by", ""));
    struct known *known;
    ref_t vm;

    if (state <= GUEST_NONE || !guest_message_uuid(message, "vm", &vm))
        return; /* a state that a newer guests process has: nothing we could do with it */
    known = sim_find_known(sim, vm);
    if (!known) {
        known = new0(struct known);
        known->node.key = vm;
        guest_table_add(&sim->known, &known->node);
    }
    known->found = (struct guest_found){
        .vm = vm,
        .epoch = guest_message_uint(message, "epoch", 0),
        .domid = guest_message_int(message, "domid", 0),
        .state = (enum guest_state) state,
        .ended_by = ended_by < 0 ? GUEST_VANISHED : (enum guest_change) ended_by,
    };
    guest_devices_done(&known->devices);
    known->has_devices = guest_devices_unpack(message, &known->devices);
    known->sample.memory_actual_bytes = guest_message_int(message, "memory", 0);
    known->is_ghost = false;
    known->is_listed = true;
}

static void gone_told(struct sim *sim, const struct guest_message *message)
{
    struct known *known;
    ref_t vm;

    if (!guest_message_uuid(message, "vm", &vm))
        return;
    known = sim_find_known(sim, vm);
    if (known && !known->is_ghost)
        sim_drop_known(sim, known);
}

static int64_t sample_int(const msgpack_object *object)
{
    return object->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? (int64_t) object->via.u64 : 0;
}

/* [vm, ticks, vcpu seconds, disk read, disk write, nic rx, nic tx] */
static void sample_told(struct sim *sim, const msgpack_object *row)
{
    const msgpack_object *column = row->via.array.ptr;
    struct known *known;
    ref_t vm;

    if (row->type != MSGPACK_OBJECT_ARRAY || row->via.array.size < 7
        || column[0].type != MSGPACK_OBJECT_STR
        || !uuid_parse(column[0].via.str.ptr, column[0].via.str.size, &vm))
        return;
    known = sim_find_known(sim, vm);
    if (!known || known->is_ghost)
        return;
    known->sample.ticks = (uint64_t) sample_int(&column[1]);
    known->sample.vcpu_seconds = column[2].type == MSGPACK_OBJECT_FLOAT64 ? column[2].via.f64 : 0;
    known->sample.disk_read_bytes = sample_int(&column[3]);
    known->sample.disk_write_bytes = sample_int(&column[4]);
    known->sample.nic_rx_bytes = sample_int(&column[5]);
    known->sample.nic_tx_bytes = sample_int(&column[6]);
}

static void samples_told(struct sim *sim, const struct guest_message *message)
{
    const msgpack_object *rows = guest_message_find(message, "samples");

    for (uint32_t i = 0; rows && rows->type == MSGPACK_OBJECT_ARRAY && i < rows->via.array.size;
         i++)
        sample_told(sim, &rows->via.array.ptr[i]);
}

/* --- operations --- */

/* The end of an operation, told after it is forgotten, so that the agent may begin another one at
 * once. */
void sim_pending_end(struct pending *pending, int result, const char *text)
{
    struct sim *sim = pending->sim;
    uint64_t operation = pending->operation;

    timer_stop(&pending->timer);
    guest_table_remove(&sim->pending, &pending->node);
    free(pending);
    sim->driver.events.done(sim->driver.events.arg, operation, result, text);
}

struct pending *sim_find_pending(const struct sim *sim, uint64_t operation)
{
    struct guest_node *node = guest_table_find(&sim->pending, sim_operation_key(operation));

    return node ? CONTAINER_OF(node, struct pending, node) : NULL;
}

static void done_told(struct sim *sim, const struct guest_message *message)
{
    struct pending *pending = sim_find_pending(sim, guest_message_uint(message, "op", 0));
    const char *error = guest_message_text(message, "error", NULL);

    if (pending && !pending->is_local)
        sim_pending_end(pending, error ? guest_error_code(error) : 0,
                        guest_message_text(message, "text", ""));
}

static void progress_told(struct sim *sim, const struct guest_message *message)
{
    struct pending *pending = sim_find_pending(sim, guest_message_uint(message, "op", 0));

    if (pending && !pending->is_local)
        sim->driver.events.progress(sim->driver.events.arg, pending->operation,
                                    guest_message_double(message, "share", 0));
}

static void changed_told(struct sim *sim, const struct guest_message *message)
{
    int change = guest_change_of(guest_message_text(message, "change", ""));
    ref_t vm;

    if (change >= 0 && guest_message_uuid(message, "vm", &vm))
        sim->driver.events.changed(sim->driver.events.arg, vm,
                                   guest_message_uint(message, "epoch", 0),
                                   (enum guest_change) change);
}

static bool has_device(const struct known *known, const struct pending *pending)
{
    if (pending->leaves == LEAVES_DISK || pending->leaves == LEAVES_NO_DISK)
        return guest_devices_disk(&known->devices, pending->device);
    return guest_devices_nic(&known->devices, pending->device);
}

/* Did the operation do what it was to do, by the state that the guest is in? */
static bool has_succeeded(const struct sim *sim, const struct pending *pending)
{
    const struct known *known = sim_find_known(sim, pending->vm);
    enum guest_state state = known ? known->found.state : GUEST_NONE;

    if (known && pending->epoch > 0 && known->found.epoch != pending->epoch)
        return false;
    switch (pending->leaves) {
    case LEAVES_NOTHING_TO_SEE:
        return false;
    case LEAVES_PAUSED:
        return state == GUEST_PAUSED;
    case LEAVES_RUNNING:
        return state == GUEST_RUNNING;
    case LEAVES_SENT:
        return state == GUEST_SENT;
    case LEAVES_ENDED:
        return state == GUEST_ENDED || state == GUEST_NONE;
    case LEAVES_SAVED:
        return state == GUEST_ENDED && known->found.ended_by == GUEST_SAVED;
    case LEAVES_FORGOTTEN:
        return state == GUEST_NONE || known->is_ghost;
    case LEAVES_DISK:
    case LEAVES_NO_DISK:
    case LEAVES_NIC:
    case LEAVES_NO_NIC:
        return (state == GUEST_PAUSED || state == GUEST_RUNNING) && known->has_devices
               && has_device(known, pending)
                      == (pending->leaves == LEAVES_DISK || pending->leaves == LEAVES_NIC);
    }
    return false;
}

/* A list of nodes, taken out of a table before their owners are called back: these may change the
 * table. */
struct batch {
    ref_t *keys;
    size_t count, room;
};

static void batch_add(struct batch *batch, ref_t key)
{
    if (batch->count == batch->room) {
        batch->room = MAX(2 * batch->room, (size_t) 64);
        batch->keys = realloc_array(batch->keys, batch->room, sizeof(*batch->keys));
    }
    batch->keys[batch->count++] = key;
}

static void batch_done(struct batch *batch)
{
    free(batch->keys);
}

static int collect_pending(void *arg, struct guest_node *node)
{
    if (!CONTAINER_OF(node, struct pending, node)->is_local)
        batch_add(arg, node->key);
    return 0;
}

/* The connection under them was lost, and now we know what is: the end of all operations. */
static void settle_pending(struct sim *sim, const char *why)
{
    _cleanup_(batch_done) struct batch batch = {0};

    guest_table_each(&sim->pending, collect_pending, &batch);
    for (size_t i = 0; i < batch.count; i++) {
        struct pending *pending = sim_find_pending(sim, batch.keys[i].lo);
        struct known *known;

        if (!pending)
            continue;
        if (!has_succeeded(sim, pending)) {
            sim_pending_end(pending, -ERR_INTERNAL_ERROR, why);
            continue;
        }
        known = sim_find_known(sim, pending->vm);
        if (pending->leaves == LEAVES_FORGOTTEN && known)
            sim_drop_known(sim, known);
        sim_pending_end(pending, 0, "");
    }
}

/* --- the life of the guests process --- */

static int bury(void *arg, struct guest_node *node)
{
    struct known *known = CONTAINER_OF(node, struct known, node);

    if (known->is_ghost)
        return 0;
    known->is_ghost = true;
    if (known->found.state != GUEST_ENDED) {
        known->found.state = GUEST_ENDED;
        known->found.ended_by = GUEST_VANISHED;
        batch_add(arg, known->found.vm);
    }
    return 0;
}

static void tell_reachable(struct sim *sim, bool is_reachable)
{
    if (sim->driver.events.reachable)
        sim->driver.events.reachable(sim->driver.events.arg, is_reachable);
}

static void forget_pid(struct sim *sim)
{
    if (sim->pid_fd >= 0)
        loop_unwatch_fd(sim->loop, sim->pid_fd);
    close_fd(&sim->pid_fd);
}

/* It is certain that the process is dead. */
static void peer_died(struct sim *sim)
{
    _cleanup_(batch_done) struct batch batch = {0};

    forget_pid(sim);
    sim->instance[0] = '\0';
    sim->is_dead = true;
    guest_table_each(&sim->known, bury, &batch);
    for (size_t i = 0; i < batch.count; i++) {
        const struct known *known = sim_find_known(sim, batch.keys[i]);

        if (known && known->is_ghost)
            sim->driver.events.changed(sim->driver.events.arg, known->found.vm, known->found.epoch,
                                       GUEST_VANISHED);
    }
    settle_pending(sim, "the process of the host's guests has died");
}

static void tell_that_we_wait(struct sim *sim)
{
    uint64_t now = loop_now_ms(sim->loop);

    if (sim->away_ms == 0)
        sim->away_ms = now;
    if (now < sim->away_ms + AWAY_TELL_MS || (sim->told_ms && now < sim->told_ms + AWAY_AGAIN_MS))
        return;
    sim->told_ms = now;
    log_warning(
        NULL, "waiting for drover-guests at %s; until it is there this host takes part in nothing",
        sim->address.sun_path);
}

static void retry_later(struct sim *sim)
{
    tell_that_we_wait(sim);
    sim->retry_ms =
        MIN(MAX(2 * sim->retry_ms, (uint64_t) RETRY_MS_FIRST), (uint64_t) RETRY_MS_MOST);
    timer_start(sim->loop, &sim->retry_timer, sim->retry_ms, sim_connect, sim);
}

/* The pidfd is readable: nothing that the process still wrote may be lost, so the connection is
 * read to its end first. Its closed() comes here again. */
static void pid_ended(void *arg, _unused_ uint32_t events)
{
    struct sim *sim = arg;

    loop_unwatch_fd(sim->loop, sim->pid_fd);
    if (sim->state == SIM_NO_PEER || sim->state == SIM_LOST)
        peer_died(sim);
}

static bool pid_has_ended(const struct sim *sim)
{
    struct pollfd p = {.fd = sim->pid_fd, .events = POLLIN};

    return sim->pid_fd >= 0 && poll(&p, 1, 0) == 1;
}

static void peer_lost(void *arg, _unused_ const char *why)
{
    struct sim *sim = arg;
    bool was_ready = sim->state == SIM_READY;

    guest_link_destroy(&sim->link);
    sim->state = SIM_LOST;
    retry_later(sim);
    if (was_ready) /* first: nobody is to begin what has ended anew here */
        tell_reachable(sim, false);
    if (!sim->instance[0])
        forget_pid(sim); /* it never answered, so we do not know whose the pidfd is */
    else if (pid_has_ended(sim))
        peer_died(sim);
}

static int unlist(_unused_ void *arg, struct guest_node *node)
{
    CONTAINER_OF(node, struct known, node)->is_listed = false;
    return 0;
}

/* The peer says who it is. One that we do not know took the path of another one, which must be
 * dead, since a path has one living process. Where we have a pidfd we want to see that ourselves,
 * and come again until we do. */
static void hello_told(struct sim *sim, const struct guest_message *message)
{
    const char *instance = guest_message_text(message, "instance", "");

    if (sim->state != SIM_GREETING || instance[0] == '\0'
        || strlen(instance) >= sizeof(sim->instance)) {
        guest_link_fail(sim->link, "the peer's greeting is not understood");
        return;
    }
    if (sim->instance[0] && !streq(sim->instance, instance) && sim->pid_fd < 0)
        peer_died(sim);
    if (sim->instance[0] && !streq(sim->instance, instance)) {
        guest_link_fail(
            sim->link,
            "the guests process was replaced, and the former one is not known to be dead");
        return;
    }
    strcpy(sim->instance, instance);
    sim->is_dead = false;
    guest_table_each(&sim->known, unlist, NULL);
}

static int drop_unlisted(void *arg, struct guest_node *node)
{
    struct known *known = CONTAINER_OF(node, struct known, node);

    if (!known->is_listed && !known->is_ghost)
        sim_drop_known(arg, known);
    return 0;
}

static void listed_told(struct sim *sim)
{
    if (sim->state != SIM_GREETING)
        return;
    guest_table_each(&sim->known, drop_unlisted,
                     sim); /* the same process has forgotten them meanwhile */
    sim->state = SIM_READY;
    sim->retry_ms = 0;
    if (sim->told_ms)
        log_info(NULL, "drover-guests is there");
    sim->away_ms = sim->told_ms = 0;
    tell_reachable(sim, true);
    settle_pending(sim, "the connection to the host's guests was lost");
}

static void peer_told(void *arg, const char *word, const struct guest_message *message)
{
    struct sim *sim = arg;

    if (streq(word, "guest"))
        guest_told(sim, message);
    else if (streq(word, "gone"))
        gone_told(sim, message);
    else if (streq(word, "done"))
        done_told(sim, message);
    else if (streq(word, "changed"))
        changed_told(sim, message);
    else if (streq(word, "samples"))
        samples_told(sim, message);
    else if (streq(word, "progress"))
        progress_told(sim, message);
    else if (streq(word, "hello"))
        hello_told(sim, message);
    else if (streq(word, "listed"))
        listed_told(sim);
}

static void watch_pid(struct sim *sim, pid_t pid)
{
    if (sim->pid_fd >= 0 || pid <= 0)
        return; /* we watch one already, and its instance is checked: the same */
    sim->pid_fd = (int) syscall(SYS_pidfd_open, pid, 0);
    if (sim->pid_fd >= 0 && loop_watch_fd(sim->loop, sim->pid_fd, EPOLLIN, pid_ended, sim) < 0)
        close_fd(&sim->pid_fd);
}

static void sim_connect(void *arg)
{
    struct sim *sim = arg;
    _cleanup_(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct guest_frame hello;
    pid_t pid = 0;

    if (fd < 0 || connect(fd, (struct sockaddr *) &sim->address, sizeof(sim->address)) < 0) {
        bool is_dead =
            sim->state == SIM_LOST && errno == ECONNREFUSED && sim->pid_fd < 0 && sim->instance[0];

        retry_later(sim);
        if (is_dead)
            peer_died(sim);
        return;
    }
    if (!guest_link_peer_is_trusted(fd, &pid)) {
        retry_later(sim);
        return;
    }
    watch_pid(sim, pid);
    sim->state = SIM_GREETING;
    sim->link = guest_link_new(sim->loop, fd, QUEUE_BYTES_MAX,
                               &(struct guest_link_events){peer_told, peer_lost, sim});
    fd = -1;
    guest_frame_begin(&hello, "hello");
    guest_link_send(sim->link, &hello);
}

/* --- begin and end --- */

static int free_known(_unused_ void *arg, struct guest_node *node)
{
    struct known *known = CONTAINER_OF(node, struct known, node);

    guest_devices_done(&known->devices);
    free(known);
    return 0;
}

static int free_pending(_unused_ void *arg, struct guest_node *node)
{
    struct pending *pending = CONTAINER_OF(node, struct pending, node);

    timer_stop(&pending->timer);
    free(pending);
    return 0;
}

static void sim_destroy(struct hypervisor **driver_p)
{
    struct hypervisor *driver = TAKE(*driver_p);
    struct sim *sim;

    if (!driver)
        return;
    sim = (struct sim *) driver;
    guest_link_destroy(&sim->link);
    timer_stop(&sim->retry_timer);
    if (sim->pid_fd >= 0)
        loop_unwatch_fd(sim->loop, sim->pid_fd);
    close_fd(&sim->pid_fd);
    guest_table_each(&sim->known, free_known, NULL);
    guest_table_each(&sim->pending, free_pending, NULL);
    guest_table_done(&sim->known);
    guest_table_done(&sim->pending);
    free(sim);
}

struct hypervisor *hypervisor_sim_new(struct loop *loop, const char *socket_path)
{
    struct sim *sim = new0(struct sim);

    sim_fill_driver(&sim->driver);
    sim->driver.destroy = sim_destroy;
    sim->loop = loop;
    sim->pid_fd = -1;
    sim->address.sun_family = AF_UNIX;
    if (strlen(socket_path) >= sizeof(sim->address.sun_path))
        die("the path of the guests' socket is too long: %s", socket_path);
    strcpy(sim->address.sun_path, socket_path);
    timer_start(loop, &sim->retry_timer, 0, sim_connect, sim);
    return &sim->driver;
}
