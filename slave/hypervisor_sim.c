/* hypervisor_sim.c - the driver for simulated guests: a client of drover-guests (slave/guests.c)
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
#include <sys/un.h>
#include <unistd.h>

#include "shared/model.h"
#include "shared/value.h"
#include "slave/guest_link.h"
#include "slave/guest_table.h"

#define QUEUE_BYTES_MAX \
    (64 * 1024 * 1024) /* requests that a stopped guests process has not yet read */
#define RETRY_MS_FIRST 10
#define RETRY_MS_MOST  1000
#define TEXT_BYTES_MAX 4096 /* of a name, a path, an option */

enum sim_state { SIM_NO_PEER, SIM_GREETING, SIM_READY, SIM_LOST };

/* A guest as we know it. */
struct known {
    struct guest_node node; /* by VM */
    struct guest_found found;
    struct guest_sample sample;
    bool is_ghost;  /* of a dead process: only we remember it */
    bool is_listed; /* in the list that is coming */
};

/* What an operation leaves when it has succeeded: how to tell, when its answer was lost. */
enum leaves {
    LEAVES_NOTHING_TO_SEE, /* no telling: a failure */
    LEAVES_PAUSED,
    LEAVES_RUNNING,
    LEAVES_SENT,
    LEAVES_ENDED, /* or unknown */
    LEAVES_SAVED,
    LEAVES_FORGOTTEN,
};

struct pending {
    struct guest_node node; /* by operation number */
    uint64_t operation;
    ref_t vm;
    uint64_t epoch; /* of a guest that it makes or resumes; 0: any */
    enum leaves leaves;
    bool is_local; /* answered by us: 0 */
    struct sim *sim;
    struct timer timer; /* for that */
};

struct sim {
    struct hypervisor driver; /* handed out; the first member */
    struct loop *loop;
    struct sockaddr_un address;
    enum sim_state state;
    struct guest_link *link;
    int pid_fd;        /* of the process whose guests we know; -1: none, or no pidfds here */
    char instance[64]; /* which it is; empty: none yet, or dead */
    struct timer retry_timer;
    uint64_t retry_ms;
    struct guest_table known, pending;
};

static void sim_connect(void *arg);

/* --- what is known --- */

static const char *const state_names[] = {"none",    "receiving", "paused",
                                          "running", "sent",      "ended"};
static const char *const change_names[] = {"shutdown", "reboot", "crash",
                                           "vanished", "killed", "saved"};

static int index_of(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (streq(names[i], name))
            return (int) i;
    return -1;
}

static struct known *find_known(const struct sim *sim, ref_t vm)
{
    struct guest_node *node = guest_table_find(&sim->known, vm);

    return node ? CONTAINER_OF(node, struct known, node) : NULL;
}

static void drop_known(struct sim *sim, struct known *known)
{
    guest_table_remove(&sim->known, &known->node);
    free(known);
}

static void guest_told(struct sim *sim, const struct guest_message *message)
{
    int state =
        index_of(state_names, ARRAY_SIZE(state_names), guest_message_text(message, "state", ""));
    int ended_by = index_of(change_names, ARRAY_SIZE(change_names),
                            guest_message_text(message, "ended_by", ""));
    struct known *known;
    ref_t vm;

    if (state <= GUEST_NONE || !guest_message_uuid(message, "vm", &vm))
        return; /* a state that a newer guests process has: nothing we could do with it */
    known = find_known(sim, vm);
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
    known = find_known(sim, vm);
    if (known && !known->is_ghost)
        drop_known(sim, known);
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
    known = find_known(sim, vm);
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

static ref_t operation_key(uint64_t operation)
{
    return (ref_t){1, operation};
}

/* The end of an operation, told after it is forgotten, so that the agent may begin another one at
 * once. */
static void pending_end(struct pending *pending, int result, const char *text)
{
    struct sim *sim = pending->sim;
    uint64_t operation = pending->operation;

    timer_stop(&pending->timer);
    guest_table_remove(&sim->pending, &pending->node);
    free(pending);
    sim->driver.events.done(sim->driver.events.arg, operation, result, text);
}

static struct pending *find_pending(const struct sim *sim, uint64_t operation)
{
    struct guest_node *node = guest_table_find(&sim->pending, operation_key(operation));

    return node ? CONTAINER_OF(node, struct pending, node) : NULL;
}

static void done_told(struct sim *sim, const struct guest_message *message)
{
    struct pending *pending = find_pending(sim, guest_message_uint(message, "op", 0));
    const char *error = guest_message_text(message, "error", NULL);

    if (pending && !pending->is_local)
        pending_end(pending, error ? guest_error_code(error) : 0,
                    guest_message_text(message, "text", ""));
}

static void progress_told(struct sim *sim, const struct guest_message *message)
{
    struct pending *pending = find_pending(sim, guest_message_uint(message, "op", 0));

    if (pending && !pending->is_local)
        sim->driver.events.progress(sim->driver.events.arg, pending->operation,
                                    guest_message_double(message, "share", 0));
}

static void changed_told(struct sim *sim, const struct guest_message *message)
{
    int change =
        index_of(change_names, ARRAY_SIZE(change_names), guest_message_text(message, "change", ""));
    ref_t vm;

    if (change >= 0 && guest_message_uuid(message, "vm", &vm))
        sim->driver.events.changed(sim->driver.events.arg, vm,
                                   guest_message_uint(message, "epoch", 0),
                                   (enum guest_change) change);
}

/* Did the operation do what it was to do, by the state that the guest is in? */
static bool has_succeeded(const struct sim *sim, const struct pending *pending)
{
    const struct known *known = find_known(sim, pending->vm);
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
        struct pending *pending = find_pending(sim, batch.keys[i].lo);
        struct known *known;

        if (!pending)
            continue;
        if (!has_succeeded(sim, pending)) {
            pending_end(pending, -ERR_INTERNAL_ERROR, why);
            continue;
        }
        known = find_known(sim, pending->vm);
        if (pending->leaves == LEAVES_FORGOTTEN && known)
            drop_known(sim, known);
        pending_end(pending, 0, "");
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
    guest_table_each(&sim->known, bury, &batch);
    for (size_t i = 0; i < batch.count; i++) {
        const struct known *known = find_known(sim, batch.keys[i]);

        if (known && known->is_ghost)
            sim->driver.events.changed(sim->driver.events.arg, known->found.vm, known->found.epoch,
                                       GUEST_VANISHED);
    }
    settle_pending(sim, "the process of the host's guests has died");
}

static void retry_later(struct sim *sim)
{
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

    guest_link_destroy(&sim->link);
    sim->state = SIM_LOST;
    retry_later(sim);
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
    guest_table_each(&sim->known, unlist, NULL);
}

static int drop_unlisted(void *arg, struct guest_node *node)
{
    struct known *known = CONTAINER_OF(node, struct known, node);

    if (!known->is_listed && !known->is_ghost)
        drop_known(arg, known);
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

/* --- the driver's functions --- */

static struct sim *sim_of(struct hypervisor *driver)
{
    return (struct sim *) driver;
}

/* Begin a request for an operation. Negative, and nothing is begun, when there is nobody to ask. */
static int request_begin(struct sim *sim, struct guest_frame *frame, const char *word,
                         uint64_t operation, ref_t vm)
{
    assert(!find_pending(sim, operation)); /* numbers are the agent's promise */
    if (sim->state != SIM_READY)
        return -ERR_INTERNAL_ERROR;
    guest_frame_begin(frame, word);
    guest_frame_uint(frame, "op", operation);
    guest_frame_uuid(frame, "vm", vm);
    return 0;
}

static struct pending *pending_new(struct sim *sim, uint64_t operation, ref_t vm,
                                   enum leaves leaves, uint64_t epoch)
{
    struct pending *pending = new0(struct pending);

    *pending = (struct pending){
        .node = {.key = operation_key(operation)},
        .operation = operation,
        .vm = vm,
        .epoch = epoch,
        .leaves = leaves,
        .sim = sim,
    };
    guest_table_add(&sim->pending, &pending->node);
    return pending;
}

static int request_send(struct sim *sim, struct guest_frame *frame, uint64_t operation, ref_t vm,
                        enum leaves leaves, uint64_t epoch)
{
    pending_new(sim, operation, vm, leaves, epoch);
    guest_link_send(sim->link, frame);
    return 0;
}

/* A request of a word and a VM only. */
static int request_plain(struct hypervisor *driver, const char *word, uint64_t operation, ref_t vm,
                         enum leaves leaves)
{
    struct sim *sim = sim_of(driver);
    struct guest_frame frame;
    int r = request_begin(sim, &frame, word, operation, vm);

    return r < 0 ? r : request_send(sim, &frame, operation, vm, leaves, 0);
}

static void local_done(void *arg)
{
    pending_end(arg, 0, "");
}

/* Done, without asking anybody; told later, as ends always are. */
static int answer_locally(struct sim *sim, uint64_t operation, ref_t vm)
{
    struct pending *pending = pending_new(sim, operation, vm, LEAVES_NOTHING_TO_SEE, 0);

    pending->is_local = true;
    timer_start(sim->loop, &pending->timer, 0, local_done, pending);
    return 0;
}

static void put_path(struct guest_frame *frame, const char *key, const char *path)
{
    assert(!path || strlen(path) <= TEXT_BYTES_MAX); /* PATH_MAX: no file has a longer one */
    guest_frame_text(frame, key, path);
}

static bool is_option(const struct value *key, const struct value *value)
{
    return key->kind == KIND_STRING && value->kind == KIND_STRING && key->length <= TEXT_BYTES_MAX
           && value->length <= TEXT_BYTES_MAX && key->length > 4
           && memcmp(key->text, "sim-", 4) == 0;
}

static void put_options(struct guest_frame *frame, const struct value *options)
{
    uint32_t count = 0;
    msgpack_packer *packer = guest_frame_key(frame, "options");

    for (uint32_t i = 0; options && i < options->length; i++)
        count += is_option(&options->items[2 * i], &options->items[2 * i + 1]) && count < 64;
    msgpack_pack_map(packer, count);
    for (uint32_t i = 0; i < (options ? options->length : 0) && count > 0; i++) {
        const struct value *key = &options->items[2 * i], *value = &options->items[2 * i + 1];

        if (!is_option(key, value))
            continue;
        msgpack_pack_str_with_body(packer, key->text, key->length);
        msgpack_pack_str_with_body(packer, value->text, value->length);
        count--;
    }
}

static void put_config(struct guest_frame *frame, const struct guest_config *config)
{
    assert(!config->options || config->options->kind == KIND_MAP);
    guest_frame_uint(frame, "epoch", config->epoch);
    guest_frame_int(frame, "domid", config->domid);
    if (config->name && strlen(config->name) <= TEXT_BYTES_MAX) /* for logs only */
        guest_frame_text(frame, "name", config->name);
    guest_frame_int(frame, "memory_target", config->memory_target_bytes);
    guest_frame_int(frame, "vcpus", config->vcpus);
    guest_frame_uint(frame, "disks", (uint64_t) config->disk_count);
    guest_frame_uint(frame, "nics", (uint64_t) config->nic_count);
    put_path(frame, "lock_path", config->lock_path);
    put_path(frame, "journal_path", config->journal_path);
    put_options(frame, config->options);
}

static int sim_start(struct hypervisor *driver, uint64_t operation,
                     const struct guest_config *config)
{
    struct sim *sim = sim_of(driver);
    struct guest_frame frame;
    int r = request_begin(sim, &frame, "start", operation, config->vm);

    if (r < 0)
        return r;
    put_config(&frame, config);
    return request_send(sim, &frame, operation, config->vm, LEAVES_PAUSED, config->epoch);
}

static int sim_restore(struct hypervisor *driver, uint64_t operation,
                       const struct guest_config *config, const char *image_path)
{
    struct sim *sim = sim_of(driver);
    struct guest_frame frame;
    int r = request_begin(sim, &frame, "restore", operation, config->vm);

    if (r < 0)
        return r;
    put_config(&frame, config);
    put_path(&frame, "path", image_path);
    return request_send(sim, &frame, operation, config->vm, LEAVES_PAUSED, config->epoch);
}

static int sim_unpause(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    return request_plain(driver, "unpause", operation, vm, LEAVES_RUNNING);
}

static int sim_pause(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    return request_plain(driver, "pause", operation, vm, LEAVES_PAUSED);
}

static int sim_ask_shutdown(struct hypervisor *driver, uint64_t operation, ref_t vm, bool is_reboot)
{
    struct sim *sim = sim_of(driver);
    struct guest_frame frame;
    int r = request_begin(sim, &frame, "ask_shutdown", operation, vm);

    if (r < 0)
        return r;
    guest_frame_uint(&frame, "reboot", is_reboot);
    return request_send(sim, &frame, operation, vm, LEAVES_NOTHING_TO_SEE, 0);
}

static int sim_kill(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    struct sim *sim = sim_of(driver);
    const struct known *known = find_known(sim, vm);

    if (known && known->is_ghost)
        return answer_locally(sim, operation, vm);
    return request_plain(driver, "kill", operation, vm, LEAVES_ENDED);
}

static int sim_save(struct hypervisor *driver, uint64_t operation, ref_t vm, const char *image_path)
{
    struct sim *sim = sim_of(driver);
    struct guest_frame frame;
    int r = request_begin(sim, &frame, "save", operation, vm);

    if (r < 0)
        return r;
    put_path(&frame, "path", image_path);
    return request_send(sim, &frame, operation, vm, LEAVES_SAVED, 0);
}

static int sim_receive(struct hypervisor *driver, uint64_t operation,
                       const struct guest_config *config, int socket)
{
    struct sim *sim = sim_of(driver);
    _cleanup_(close_fd) int fd = socket;
    struct guest_frame frame;
    int r = request_begin(sim, &frame, "receive", operation, config->vm);

    if (r < 0)
        return r;
    put_config(&frame, config);
    guest_frame_fd(&frame, fd);
    fd = -1; /* the frame's */
    return request_send(sim, &frame, operation, config->vm, LEAVES_PAUSED, config->epoch);
}

static int sim_send(struct hypervisor *driver, uint64_t operation, ref_t vm, int socket,
                    int downtime_ms)
{
    struct sim *sim = sim_of(driver);
    _cleanup_(close_fd) int fd = socket;
    struct guest_frame frame;
    int r = request_begin(sim, &frame, "send", operation, vm);

    if (r < 0)
        return r;
    guest_frame_uint(&frame, "downtime_ms", (uint64_t) MAX(downtime_ms, 0));
    guest_frame_fd(&frame, fd);
    fd = -1; /* the frame's */
    return request_send(sim, &frame, operation, vm, LEAVES_SENT, 0);
}

static int sim_cancel_send(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    return request_plain(driver, "cancel_send", operation, vm, LEAVES_RUNNING);
}

static int sim_resume_sent(struct hypervisor *driver, uint64_t operation, ref_t vm, uint64_t epoch)
{
    struct sim *sim = sim_of(driver);
    struct guest_frame frame;
    int r = request_begin(sim, &frame, "resume_sent", operation, vm);

    if (r < 0)
        return r;
    guest_frame_uint(&frame, "epoch", epoch);
    return request_send(sim, &frame, operation, vm, LEAVES_RUNNING, epoch);
}

static int sim_forget(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    struct sim *sim = sim_of(driver);
    struct known *known = find_known(sim, vm);

    if (known && known->is_ghost) {
        drop_known(sim, known);
        return answer_locally(sim, operation, vm);
    }
    return request_plain(driver, "forget", operation, vm, LEAVES_FORGOTTEN);
}

static int sim_set_memory_target(struct hypervisor *driver, uint64_t operation, ref_t vm,
                                 int64_t bytes)
{
    struct sim *sim = sim_of(driver);
    struct guest_frame frame;
    int r = request_begin(sim, &frame, "set_memory_target", operation, vm);

    if (r < 0)
        return r;
    guest_frame_int(&frame, "bytes", bytes);
    return request_send(sim, &frame, operation, vm, LEAVES_NOTHING_TO_SEE, 0);
}

static int sim_set_vcpus(struct hypervisor *driver, uint64_t operation, ref_t vm, int vcpus)
{
    struct sim *sim = sim_of(driver);
    struct guest_frame frame;
    int r = request_begin(sim, &frame, "set_vcpus", operation, vm);

    if (r < 0)
        return r;
    guest_frame_int(&frame, "vcpus", vcpus);
    return request_send(sim, &frame, operation, vm, LEAVES_NOTHING_TO_SEE, 0);
}

struct listing {
    void (*found)(void *arg, const struct guest_found *guest);
    void *arg;
};

static int list_one(void *arg, struct guest_node *node)
{
    struct listing *listing = arg;

    listing->found(listing->arg, &CONTAINER_OF(node, struct known, node)->found);
    return 0;
}

static int sim_list(struct hypervisor *driver,
                    void (*found)(void *arg, const struct guest_found *guest), void *arg)
{
    struct sim *sim = sim_of(driver);
    struct listing listing = {found, arg};

    if (sim->state != SIM_READY)
        return -ERR_INTERNAL_ERROR;
    return guest_table_each(&sim->known, list_one, &listing);
}

static int sim_sample(struct hypervisor *driver, ref_t vm, struct guest_sample *ret)
{
    const struct known *known = find_known(sim_of(driver), vm);

    if (!known || known->found.state == GUEST_ENDED)
        return -ERR_HANDLE_INVALID;
    *ret = known->sample;
    return 0;
}

static int free_known(_unused_ void *arg, struct guest_node *node)
{
    free(CONTAINER_OF(node, struct known, node));
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
    sim = sim_of(driver);
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

    sim->driver = (struct hypervisor){
        .name = "sim",
        .start = sim_start,
        .restore = sim_restore,
        .unpause = sim_unpause,
        .pause = sim_pause,
        .ask_shutdown = sim_ask_shutdown,
        .kill = sim_kill,
        .save = sim_save,
        .receive = sim_receive,
        .send = sim_send,
        .cancel_send = sim_cancel_send,
        .resume_sent = sim_resume_sent,
        .forget = sim_forget,
        .set_memory_target = sim_set_memory_target,
        .set_vcpus = sim_set_vcpus,
        .list = sim_list,
        .sample = sim_sample,
        .destroy = sim_destroy,
    };
    sim->loop = loop;
    sim->pid_fd = -1;
    sim->address.sun_family = AF_UNIX;
    if (strlen(socket_path) >= sizeof(sim->address.sun_path))
        die("the path of the guests' socket is too long: %s", socket_path);
    strcpy(sim->address.sun_path, socket_path);
    timer_start(loop, &sim->retry_timer, 0, sim_connect, sim);
    return &sim->driver;
}
