/* guests.c - the process that runs all simulated guests of a host
 *
 * Agents connect to a unix socket (one at a time, two for a moment when one is replaced), send
 * requests and hear of every change. The guests belong to no connection: an agent that comes later
 * finds them as they are. What a lost agent had under way does not go on behind the back of the
 * next one: moves and saves are cancelled, boots are complete at once, so that what the next agent
 * is told stays so until it asks for something.
 *
 * A path has one living process: its lock file PATH.lock is held as long as the process lives, be
 * it stopped by a signal. So whoever finds another instance at the path knows that the former one's
 * guests have ended. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "shared/model.h"
#include "shared/random.h"
#include "slave/guest.h"

#define CLIENTS_MAX       16
#define QUEUE_BYTES_MAX   (64 * 1024 * 1024) /* 65,536 guests with two devices are told in 24 MiB */
#define QUEUE_BYTES_IDLE  (256 * 1024)       /* who has more unread gets no samples */
#define LISTEN_AGAIN_MS   200
#define SAMPLE_MS         1000
#define SAMPLES_A_MESSAGE 500

struct client {
    struct client *next;
    struct guests *guests;
    struct guest_link *link;
};

void guests_log(const char *format, ...)
{
    struct timespec now;
    struct tm utc;
    char when[32], text[512];
    va_list args;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &utc);
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fprintf(stderr, "%s.%03ldZ %s\n", when, now.tv_nsec / 1000000, text);
}

struct guest *guests_find(const struct guests *guests, ref_t vm)
{
    struct guest_node *node = guest_table_find(&guests->table, vm);

    return node ? CONTAINER_OF(node, struct guest, node) : NULL;
}

/* --- telling agents --- */

static void put_guest(struct guest_frame *frame, const struct guest *guest)
{
    guest_frame_begin(frame, "guest");
    guest_frame_uuid(frame, "vm", guest->vm);
    guest_frame_uint(frame, "epoch", guest->epoch);
    guest_frame_int(frame, "domid", guest->domid);
    guest_frame_text(frame, "state", guest_state_name(guest->state));
    if (guest->state == GUEST_ENDED)
        guest_frame_text(frame, "ended_by", guest_change_name(guest->ended_by));
    guest_frame_int(frame, "memory", guest->memory_target_bytes);
    guest_devices_pack(frame, &guest->devices);
}

static void tell_guest(struct client *client, const struct guest *guest)
{
    struct guest_frame frame;

    put_guest(&frame, guest);
    guest_link_send(client->link, &frame);
}

void guests_tell(struct guest *guest)
{
    for (struct client *c = guest->guests->clients; c; c = c->next)
        tell_guest(c, guest);
}

void guests_tell_gone(struct guest *guest)
{
    for (struct client *c = guest->guests->clients; c; c = c->next) {
        struct guest_frame frame;

        guest_frame_begin(&frame, "gone");
        guest_frame_uuid(&frame, "vm", guest->vm);
        guest_link_send(c->link, &frame);
    }
}

void guests_tell_changed(struct guest *guest, enum guest_change change)
{
    guests_log("%s: ended by itself: %s", guest->name, guest_change_name(change));
    for (struct client *c = guest->guests->clients; c; c = c->next) {
        struct guest_frame frame;

        guest_frame_begin(&frame, "changed");
        guest_frame_uuid(&frame, "vm", guest->vm);
        guest_frame_uint(&frame, "epoch", guest->epoch);
        guest_frame_text(&frame, "change", guest_change_name(change));
        guest_link_send(c->link, &frame);
    }
}

void guests_tell_progress(const struct guest *guest, double share)
{
    struct guest_frame frame;

    if (!guest->op.client)
        return;
    guest_frame_begin(&frame, "progress");
    guest_frame_uint(&frame, "op", guest->op.number);
    guest_frame_double(&frame, "share", share);
    guest_link_send(guest->op.client->link, &frame);
}

void guests_answer(const struct guest_op *op, int result, const char *text)
{
    struct guest_frame frame;

    if (!op->client)
        return;
    guest_frame_begin(&frame, "done");
    guest_frame_uint(&frame, "op", op->number);
    if (result < 0)
        guest_frame_text(&frame, "error", guest_error_name(result));
    if (text[0])
        guest_frame_text(&frame, "text", text);
    guest_link_send(op->client->link, &frame);
}

/* Counters of what runs, many in a message: [vm, ticks, vcpu seconds, disk read, disk write, nic
 * rx, nic tx]. */
struct sampling {
    struct guests *guests;
    uint32_t count;
    const struct guest *chosen[SAMPLES_A_MESSAGE];
};

static void send_samples(struct sampling *sampling)
{
    for (struct client *c = sampling->guests->clients; c; c = c->next) {
        struct guest_frame frame;
        msgpack_packer *p;

        if (guest_link_queued_bytes(c->link) > QUEUE_BYTES_IDLE)
            continue;
        guest_frame_begin(&frame, "samples");
        p = guest_frame_key(&frame, "samples");
        msgpack_pack_array(p, sampling->count);
        for (uint32_t i = 0; i < sampling->count; i++) {
            const struct guest *guest = sampling->chosen[i];
            char vm[UUID_TEXT_BYTES];

            msgpack_pack_array(p, 7);
            msgpack_pack_str_with_body(p, uuid_print(vm, guest->vm), UUID_TEXT_BYTES - 1);
            msgpack_pack_uint64(p, guest->tick);
            msgpack_pack_double(p, guest->vcpu_seconds);
            msgpack_pack_int64(p, guest->disk_read_bytes);
            msgpack_pack_int64(p, guest->disk_write_bytes);
            msgpack_pack_int64(p, guest->nic_rx_bytes);
            msgpack_pack_int64(p, guest->nic_tx_bytes);
        }
        guest_link_send(c->link, &frame);
    }
    sampling->count = 0;
}

static int sample_guest(void *arg, struct guest_node *node)
{
    struct sampling *sampling = arg;
    const struct guest *guest = CONTAINER_OF(node, struct guest, node);

    if (guest->state == GUEST_RUNNING)
        sampling->chosen[sampling->count++] = guest;
    if (sampling->count == SAMPLES_A_MESSAGE)
        send_samples(sampling);
    return 0;
}

static void sample_due(void *arg)
{
    struct guests *guests = arg;
    struct sampling sampling = {.guests = guests};

    if (!guests->clients)
        return; /* the next client starts the timer again */
    guest_table_each(&guests->table, sample_guest, &sampling);
    if (sampling.count > 0)
        send_samples(&sampling);
    timer_start(guests->loop, &guests->sample_timer, SAMPLE_MS, sample_due, guests);
}

/* --- requests: 0 when answered or under way; negative with a text, for the caller to answer --- */

struct request {
    struct client *client;
    const struct guest_message *message;
    struct guest_op op;
    struct guest *guest; /* of the VM it names, or NULL */
    struct guest_error error;
};

static int answer(struct request *request)
{
    guests_answer(&request->op, 0, "");
    return 0;
}

static int bad_state(struct request *request, const char *wanted)
{
    const struct guest *guest = request->guest;

    return guest_fail(&request->error, ERR_VM_BAD_POWER_STATE, "the guest is %s, not %s",
                      guest ? guest_state_name(guest->state) : "not here", wanted);
}

/* The guest, in a state that fits and with nothing under way. */
static int need(struct request *request, enum guest_state a, enum guest_state b)
{
    const struct guest *guest = request->guest;

    if (!guest || (guest->state != a && guest->state != b))
        return bad_state(request, guest_state_name(a));
    if (guest->work)
        return guest_fail(&request->error, ERR_OTHER_OPERATION_IN_PROGRESS, "the guest is %s",
                          guest->work->name);
    return 0;
}

static struct guest *make_guest(struct request *request, int *ret_code)
{
    return guest_new(request->client->guests, request->message, ret_code, &request->error);
}

static int do_start(struct request *request)
{
    int r;
    struct guest *guest = make_guest(request, &r);

    if (!guest)
        return r;
    r = guest_build_memory(guest, guest_page_count(guest), &request->error);
    if (r < 0) {
        guest_remove(guest);
        return r;
    }
    guest_boot_begin(guest, &request->op);
    return 0;
}

static int do_restore(struct request *request)
{
    const char *path = guest_message_text(request->message, "path", NULL);
    int r;
    struct guest *guest;

    if (!path)
        return guest_fail(&request->error, ERR_INTERNAL_ERROR, "the request names no image");
    guest = make_guest(request, &r);
    if (!guest)
        return r;
    guest_restore_begin(guest, &request->op, path);
    return 0;
}

static int do_receive(struct request *request)
{
    _cleanup_(close_fd) int fd = guest_message_take_fd(request->message);
    int r;
    struct guest *guest;

    if (fd < 0)
        return guest_fail(&request->error, ERR_INTERNAL_ERROR, "no socket came with the request");
    guest = make_guest(request, &r);
    if (!guest)
        return r;
    guest_receive_begin(guest, &request->op, fd);
    fd = -1; /* the guest's */
    return 0;
}

static int do_unpause(struct request *request)
{
    struct guest *guest = request->guest;
    int r;

    if (guest && guest->state == GUEST_RUNNING)
        return answer(request);
    r = need(request, GUEST_PAUSED, GUEST_PAUSED);
    if (r < 0)
        return r;
    r = guest_run(guest, guest->origin, &request->error);
    if (r < 0)
        return r;
    guest->origin = "unpaused"; /* the next time */
    return answer(request);
}

static int do_pause(struct request *request)
{
    int r = need(request, GUEST_RUNNING, GUEST_PAUSED);

    if (r < 0)
        return r;
    if (request->guest->state == GUEST_RUNNING) {
        guest_hold(request->guest);
        guest_set_state(request->guest, GUEST_PAUSED);
    }
    return answer(request);
}

static int do_ask_shutdown(struct request *request)
{
    struct guest *guest = request->guest;
    bool is_reboot = guest_message_uint(request->message, "reboot", 0) > 0;

    if (!guest || guest->state != GUEST_RUNNING)
        return bad_state(request, guest_state_name(GUEST_RUNNING));
    if (!guest->options.ignores_shutdown)
        guest_plan(guest, is_reboot ? PLAN_REBOOT : PLAN_SHUTDOWN,
                   (uint64_t) (is_reboot ? guest->options.reboot_ms : guest->options.shutdown_ms));
    return answer(request);
}

static int do_kill(struct request *request)
{
    struct guest *guest = request->guest;

    if (guest && guest->state == GUEST_RECEIVING)
        guest->work->cancel(guest, -ERR_VM_BAD_POWER_STATE,
                            "the guest was killed"); /* and is gone */
    else if (guest && guest->state != GUEST_ENDED)
        guest_end(guest, GUEST_KILLED);
    return answer(request);
}

static int do_save(struct request *request)
{
    const char *path = guest_message_text(request->message, "path", NULL);
    int r = need(request, GUEST_RUNNING, GUEST_PAUSED);

    if (r < 0)
        return r;
    if (!path)
        return guest_fail(&request->error, ERR_INTERNAL_ERROR, "the request names no image");
    guest_save_begin(request->guest, &request->op, path);
    return 0;
}

static int do_send(struct request *request)
{
    _cleanup_(close_fd) int fd = guest_message_take_fd(request->message);
    int r = need(request, GUEST_RUNNING, GUEST_RUNNING);

    if (r < 0)
        return r;
    if (fd < 0)
        return guest_fail(&request->error, ERR_INTERNAL_ERROR, "no socket came with the request");
    guest_send_begin(
        request->guest, &request->op, fd,
        (int) MIN(guest_message_uint(request->message, "downtime_ms", 0), (uint64_t) INT32_MAX),
        guest_message_uint(request->message, "compress", 0) > 0);
    fd = -1; /* the guest's */
    return 0;
}

static int do_cancel_send(struct request *request)
{
    struct guest *guest = request->guest;

    if (!guest || guest->state != GUEST_RUNNING)
        return bad_state(request, guest_state_name(GUEST_RUNNING));
    if (guest_is_being_sent(guest))
        guest->work->cancel(guest, -ERR_TASK_CANCELLED, "the move was cancelled");
    return answer(request);
}

static int do_resume_sent(struct request *request)
{
    struct guest *guest = request->guest;
    uint64_t epoch = guest_message_uint(request->message, "epoch", 0), epoch_before;
    int r;

    if (guest && guest->state == GUEST_RUNNING && guest->epoch == epoch)
        return answer(request);
    r = need(request, GUEST_SENT, GUEST_SENT);
    if (r < 0)
        return r;
    if (epoch < guest->epoch)
        return guest_fail(&request->error, ERR_INTERNAL_ERROR,
                          "the guest's epoch is %llu, not %llu", (unsigned long long) guest->epoch,
                          (unsigned long long) epoch);
    epoch_before = guest->epoch;
    guest->epoch = epoch;
    r = guest_run(guest, "resumed", &request->error);
    if (r < 0) {
        guest->epoch = epoch_before;
        return r;
    }
    return answer(request);
}

static int do_forget(struct request *request)
{
    if (!request->guest)
        return answer(request);
    if (request->guest->state != GUEST_ENDED)
        return bad_state(request, guest_state_name(GUEST_ENDED));
    guest_remove(request->guest);
    return answer(request);
}

static int do_reopen_disks(struct request *request)
{
    struct guest *guest = request->guest;
    int r = need(request, GUEST_PAUSED, GUEST_PAUSED);

    if (r == 0)
        r = guest_disks_reopen(guest, &request->error);
    return r < 0 ? r : answer(request);
}

/* --- devices --- */

/* What a request about devices says. The list owns its texts. */
struct device_request {
    struct guest_devices named; /* plug: the one that is plugged */
    const char *device;         /* unplug */
    bool is_forced;
};

static int change_device(struct request *request,
                         int (*change)(struct request *request, const struct device_request *what))
{
    struct device_request what = {
        .device = guest_message_text(request->message, "device", ""),
        .is_forced = guest_message_uint(request->message, "forced", 0) > 0,
    };
    int r = need(request, GUEST_RUNNING, GUEST_PAUSED);

    if (r < 0)
        return r;
    guest_devices_unpack(request->message, &what.named);
    r = change(request, &what);
    guest_devices_done(&what.named);
    if (r < 0)
        return r;
    guests_tell(request->guest);
    return answer(request);
}

static int no_device(struct request *request)
{
    return guest_fail(&request->error, ERR_INTERNAL_ERROR, "the request names no device");
}

static int plug_disk(struct request *request, const struct device_request *what)
{
    return what->named.disk_count == 1
               ? guest_plug_disk(request->guest, what->named.disks, &request->error)
               : no_device(request);
}

static int unplug_disk(struct request *request, const struct device_request *what)
{
    return guest_unplug_disk(request->guest, what->device, what->is_forced, &request->error);
}

static int change_cd(struct request *request, const struct device_request *what)
{
    return what->named.disk_count == 1
               ? guest_change_cd(request->guest, what->named.disks, &request->error)
               : no_device(request);
}

static int plug_nic(struct request *request, const struct device_request *what)
{
    return what->named.nic_count == 1
               ? guest_plug_nic(request->guest, what->named.nics, &request->error)
               : no_device(request);
}

static int unplug_nic(struct request *request, const struct device_request *what)
{
    return guest_unplug_nic(request->guest, what->device, what->is_forced, &request->error);
}

static int do_plug_disk(struct request *request)
{
    return change_device(request, plug_disk);
}

static int do_unplug_disk(struct request *request)
{
    return change_device(request, unplug_disk);
}

static int do_change_cd(struct request *request)
{
    return change_device(request, change_cd);
}

static int do_plug_nic(struct request *request)
{
    return change_device(request, plug_nic);
}

static int do_unplug_nic(struct request *request)
{
    return change_device(request, unplug_nic);
}

/* --- small changes --- */

static int do_set_memory_target(struct request *request)
{
    struct guest *guest = request->guest;

    if (!guest || guest->state == GUEST_ENDED)
        return bad_state(request, guest_state_name(GUEST_RUNNING));
    guest->memory_target_bytes =
        guest_message_int(request->message, "bytes", guest->memory_target_bytes);
    guests_tell(guest);
    return answer(request);
}

static int do_set_vcpus(struct request *request)
{
    struct guest *guest = request->guest;

    if (!guest || guest->state == GUEST_ENDED)
        return bad_state(request, guest_state_name(GUEST_RUNNING));
    guest->vcpus =
        (int) MIN(MAX(guest_message_int(request->message, "vcpus", guest->vcpus), 1), 1024);
    return answer(request);
}

static int list_guest(void *arg, struct guest_node *node)
{
    tell_guest(arg, CONTAINER_OF(node, struct guest, node));
    return 0;
}

/* The first request of an agent: who we are, and all that is here. */
static int do_hello(struct request *request)
{
    struct client *client = request->client;
    struct guests *guests = client->guests;
    struct guest_frame frame;

    guest_frame_begin(&frame, "hello");
    guest_frame_text(&frame, "instance", guests->instance);
    guest_link_send(client->link, &frame);
    guest_table_each(&guests->table, list_guest, client);
    guest_frame_begin(&frame, "listed");
    guest_link_send(client->link, &frame);
    return 0;
}

static const struct {
    const char *word;
    int (*run)(struct request *request);
} requests[] = {
    {"start", do_start},
    {"restore", do_restore},
    {"unpause", do_unpause},
    {"pause", do_pause},
    {"ask_shutdown", do_ask_shutdown},
    {"kill", do_kill},
    {"save", do_save},
    {"receive", do_receive},
    {"send", do_send},
    {"cancel_send", do_cancel_send},
    {"resume_sent", do_resume_sent},
    {"reopen_disks", do_reopen_disks},
    {"plug_disk", do_plug_disk},
    {"unplug_disk", do_unplug_disk},
    {"change_cd", do_change_cd},
    {"plug_nic", do_plug_nic},
    {"unplug_nic", do_unplug_nic},
    {"forget", do_forget},
    {"set_memory_target", do_set_memory_target},
    {"set_vcpus", do_set_vcpus},
    {"hello", do_hello},
};

static int run_request(struct request *request, const char *word)
{
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
        if (streq(requests[i].word, word))
            return requests[i].run(request);
    return guest_fail(&request->error, ERR_INTERNAL_ERROR,
                      "this guests process does not know the request \"%.40s\"", word);
}

static void client_message(void *arg, const char *word, const struct guest_message *message)
{
    struct client *client = arg;
    struct request request = {
        .client = client,
        .message = message,
        .op = {client, guest_message_uint(message, "op", 0)},
    };
    ref_t vm;
    int r;

    if (guest_message_uuid(message, "vm", &vm))
        request.guest = guests_find(client->guests, vm);
    r = run_request(&request, word);
    if (r < 0)
        guests_answer(&request.op, r, request.error.text);
}

/* --- clients --- */

static int abandon_work(void *arg, struct guest_node *node)
{
    struct guest *guest = CONTAINER_OF(node, struct guest, node);

    if (!guest->work || guest->op.client != arg)
        return 0;
    guest->op.client = NULL; /* nobody to answer */
    if (guest_is_booting(guest))
        guest_boot_finish(guest);
    else
        guest->work->cancel(guest, -ERR_TASK_CANCELLED, "the agent has gone");
    return 0;
}

static void client_closed(void *arg, const char *why)
{
    struct client *client = arg, **place = &client->guests->clients;
    struct guests *guests = client->guests;

    while (*place != client)
        place = &(*place)->next;
    *place = client->next;
    guests->client_count--;
    guests_log("an agent has gone: %s", why);
    guest_table_each(&guests->table, abandon_work, client);
    guest_link_destroy(&client->link);
    free(client);
}

static void client_come(void *arg, uint32_t events);

static void listen_again(void *arg)
{
    struct guests *guests = arg;

    loop_watch_fd(guests->loop, guests->listen_fd, EPOLLIN, client_come, guests);
}

static void client_come(void *arg, _unused_ uint32_t events)
{
    struct guests *guests = arg;
    int fd = accept4(guests->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct client *client;
    pid_t pid;

    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
        loop_unwatch_fd(guests->loop, guests->listen_fd); /* it stays ready: do not spin */
        timer_start(guests->loop, &guests->listen_timer, LISTEN_AGAIN_MS, listen_again, guests);
    }
    if (fd < 0)
        return;
    if (guests->client_count >= CLIENTS_MAX || !guest_link_peer_is_trusted(fd, &pid)) {
        guests_log("a connection was refused");
        close(fd);
        return;
    }
    client = new0(struct client);
    client->guests = guests;
    client->link =
        guest_link_new(guests->loop, fd, QUEUE_BYTES_MAX,
                       &(struct guest_link_events){client_message, client_closed, client});
    client->next = guests->clients;
    guests->clients = client;
    guests->client_count++;
    guests_log("an agent has come: pid %d", (int) pid);
    if (!timer_is_running(&guests->sample_timer))
        timer_start(guests->loop, &guests->sample_timer, SAMPLE_MS, sample_due, guests);
}

/* --- begin and end --- */

/* Held for the process's life. */
static int take_path(const char *socket_path)
{
    struct flock whole_file = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char lock_path[sizeof(((struct sockaddr_un *) 0)->sun_path) + 8];
    int fd;

    snprintf(lock_path, sizeof(lock_path), "%s.lock", socket_path);
    fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        die("cannot open %s: %s", lock_path, strerror(errno));
    if (fcntl(fd, F_OFD_SETLK, &whole_file) < 0)
        die("another drover-guests lives at %s", socket_path);
    return fd;
}

static int listen_at(const char *socket_path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, socket_path); /* its length was checked */
    unlink(socket_path);                   /* of a process that is dead, since we have the lock */
    if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof(address)) < 0
        || listen(fd, CLIENTS_MAX) < 0)
        die("cannot listen at %s: %s", socket_path, strerror(errno));
    return fd;
}

struct guests *guests_new(struct loop *loop, const char *socket_path, ref_t host_uuid,
                          const struct guest_options *defaults)
{
    struct guests *guests = new0(struct guests);

    if (strlen(socket_path) >= sizeof(((struct sockaddr_un *) 0)->sun_path))
        die("the socket's path is too long: %s", socket_path);
    guests->loop = loop;
    guests->socket_path = socket_path;
    guests->defaults = *defaults;
    uuid_print(guests->host_uuid, host_uuid);
    uuid_print(guests->instance, ref_new(random_real()));
    guests->lock_fd = take_path(socket_path);
    guests->listen_fd = listen_at(socket_path);
    loop_watch_fd(loop, guests->listen_fd, EPOLLIN, client_come, guests);
    return guests;
}

/* Locks are free and journals closed; nobody is told: a process that ends is heard of by all. */
static int end_guest(_unused_ void *arg, struct guest_node *node)
{
    struct guest *guest = CONTAINER_OF(node, struct guest, node);

    guest->op.client = NULL;
    if (guest->state == GUEST_RECEIVING) {
        guest->work->cancel(guest, -ERR_VM_BAD_POWER_STATE, "the guests process ends");
        return 0;
    }
    if (guest->state != GUEST_ENDED)
        guest_end(guest, GUEST_KILLED);
    guest_remove(guest);
    return 0;
}

void guests_destroy(struct guests **guests_p)
{
    struct guests *guests = TAKE(*guests_p);
    struct client *client;

    if (!guests)
        return;
    while ((client = guests->clients)) {
        guests->clients = client->next;
        guest_link_destroy(&client->link);
        free(client);
    }
    guest_table_each(&guests->table, end_guest, NULL);
    image_thread_stop(&guests->image_thread);
    timer_stop(&guests->sample_timer);
    timer_stop(&guests->listen_timer);
    loop_unwatch_fd(guests->loop, guests->listen_fd);
    close_fd(&guests->listen_fd);
    guest_table_done(&guests->table);
    close_fd(&guests->lock_fd);
    free(guests);
}
