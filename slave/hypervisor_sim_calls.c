/* hypervisor_sim_calls.c - the functions of the driver for simulated guests
 *
 * Each is a message to the guests process, and a note of what the operation leaves when it has
 * succeeded. Checks are made there, where the truth is; here is refused only what cannot be asked.
 */
#include <stdio.h>

#include "shared/model.h"
#include "shared/value.h"
#include "slave/hypervisor_sim_state.h"

#define TEXT_BYTES_MAX 4096 /* of a name, a path, an option */
#define OPTIONS_MAX    64

static struct sim *sim_of(struct hypervisor *driver)
{
    return (struct sim *) driver;
}

/* Begin a request for an operation. Negative, and nothing is begun, when there is nobody to ask. */
static int request_begin(struct sim *sim, struct guest_frame *frame, const char *word,
                         uint64_t operation, ref_t vm)
{
    assert(!sim_find_pending(sim, operation)); /* numbers are the agent's promise */
    if (sim->state != SIM_READY)
        return -ERR_HOST_STILL_BOOTING;
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
        .node = {.key = sim_operation_key(operation)},
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
    sim_pending_end(arg, 0, "");
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
        count +=
            is_option(&options->items[2 * i], &options->items[2 * i + 1]) && count < OPTIONS_MAX;
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
    guest_devices_pack(frame, &(struct guest_devices){(struct guest_disk *) config->disks, config->disk_count,
                                                      (struct guest_nic *) config->nics, config->nic_count});
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

/* Is it certain that no process has this guest? */
static bool is_gone(const struct sim *sim, const struct known *known)
{
    return known ? known->is_ghost : sim->is_dead;
}

static int sim_kill(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    struct sim *sim = sim_of(driver);
    const struct known *known = sim_find_known(sim, vm);

    if (is_gone(sim, known))
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
                    int downtime_ms, bool is_compressed)
{
    struct sim *sim = sim_of(driver);
    _cleanup_(close_fd) int fd = socket;
    struct guest_frame frame;
    int r = request_begin(sim, &frame, "send", operation, vm);

    if (r < 0)
        return r;
    guest_frame_uint(&frame, "downtime_ms", (uint64_t) MAX(downtime_ms, 0));
    guest_frame_uint(&frame, "compress", is_compressed);
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

static int sim_reopen_disks(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    return request_plain(driver, "reopen_disks", operation, vm, LEAVES_NOTHING_TO_SEE);
}

static int device_send(struct sim *sim, struct guest_frame *frame, uint64_t operation, ref_t vm,
                       enum leaves leaves, const char *device)
{
    struct pending *pending = pending_new(sim, operation, vm, leaves, 0);

    snprintf(pending->device, sizeof(pending->device), "%s", device);
    guest_link_send(sim->link, frame);
    return 0;
}

static int disk_request(struct hypervisor *driver, const char *word, uint64_t operation, ref_t vm,
                        const struct guest_disk *disk, enum leaves leaves)
{
    struct sim *sim = sim_of(driver);
    struct guest_frame frame;
    int r = request_begin(sim, &frame, word, operation, vm);

    if (r < 0)
        return r;
    guest_devices_pack(&frame, &(struct guest_devices){.disks = (struct guest_disk *) disk, .disk_count = 1});
    return device_send(sim, &frame, operation, vm, leaves, disk->device);
}

static int unplug_request(struct hypervisor *driver, const char *word, uint64_t operation, ref_t vm,
                          const char *device, bool is_forced, enum leaves leaves)
{
    struct sim *sim = sim_of(driver);
    struct guest_frame frame;
    int r = request_begin(sim, &frame, word, operation, vm);

    if (r < 0)
        return r;
    guest_frame_text(&frame, "device", device);
    guest_frame_uint(&frame, "forced", is_forced);
    return device_send(sim, &frame, operation, vm, leaves, device);
}

static int sim_plug_disk(struct hypervisor *driver, uint64_t operation, ref_t vm,
                         const struct guest_disk *disk)
{
    return disk_request(driver, "plug_disk", operation, vm, disk, LEAVES_DISK);
}

static int sim_unplug_disk(struct hypervisor *driver, uint64_t operation, ref_t vm,
                           const char *device, bool is_forced)
{
    return unplug_request(driver, "unplug_disk", operation, vm, device, is_forced, LEAVES_NO_DISK);
}

static int sim_change_cd(struct hypervisor *driver, uint64_t operation, ref_t vm,
                         const struct guest_disk *disk)
{
    return disk_request(driver, "change_cd", operation, vm, disk, LEAVES_NOTHING_TO_SEE);
}

static int sim_plug_nic(struct hypervisor *driver, uint64_t operation, ref_t vm,
                        const struct guest_nic *nic)
{
    struct sim *sim = sim_of(driver);
    struct guest_frame frame;
    int r = request_begin(sim, &frame, "plug_nic", operation, vm);

    if (r < 0)
        return r;
    guest_devices_pack(&frame, &(struct guest_devices){.nics = (struct guest_nic *) nic, .nic_count = 1});
    return device_send(sim, &frame, operation, vm, LEAVES_NIC, nic->device);
}

static int sim_unplug_nic(struct hypervisor *driver, uint64_t operation, ref_t vm,
                          const char *device, bool is_forced)
{
    return unplug_request(driver, "unplug_nic", operation, vm, device, is_forced, LEAVES_NO_NIC);
}

static const struct guest_devices *sim_devices(struct hypervisor *driver, ref_t vm)
{
    const struct known *known = sim_find_known(sim_of(driver), vm);

    return known && known->has_devices ? &known->devices : NULL;
}

static int sim_forget(struct hypervisor *driver, uint64_t operation, ref_t vm)
{
    struct sim *sim = sim_of(driver);
    struct known *known = sim_find_known(sim, vm);

    if (is_gone(sim, known)) {
        if (known)
            sim_drop_known(sim, known);
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
    const struct known *known = sim_find_known(sim_of(driver), vm);

    if (!known || known->found.state == GUEST_ENDED)
        return -ERR_HANDLE_INVALID;
    *ret = known->sample;
    return 0;
}

void sim_fill_driver(struct hypervisor *driver)
{
    *driver = (struct hypervisor){
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
        .reopen_disks = sim_reopen_disks,
        .plug_disk = sim_plug_disk,
        .unplug_disk = sim_unplug_disk,
        .change_cd = sim_change_cd,
        .plug_nic = sim_plug_nic,
        .unplug_nic = sim_unplug_nic,
        .devices = sim_devices,
        .forget = sim_forget,
        .set_memory_target = sim_set_memory_target,
        .set_vcpus = sim_set_vcpus,
        .list = sim_list,
        .sample = sim_sample,
    };
}
