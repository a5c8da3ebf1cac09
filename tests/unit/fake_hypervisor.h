/* fake_hypervisor.h - guests in a table, for tests of the agent: operations end when the test lets them
 *
 * It outlives agents as a real host's guests do, and counts how often each guest has run: twice at one epoch is what must
 * never happen. */
#pragma once

#include <unistd.h>

#include "shared/loop.h"
#include "slave/guest_devices.h"
#include "slave/hypervisor.h"

#define FAKE_GUESTS_MAX 16

struct fake_guest {
    struct guest_found found;
    int starts;              /* how often it was made */
    int runs;                /* how often it began to run */
    uint64_t run_epoch;      /* at which it did so last */
    struct guest_devices devices;
    int reopens;             /* how often it went on in other files, standing still */
};

struct fake_done {
    struct fake_done *next;
    uint64_t operation;
    int result;
};

struct fake_hypervisor {
    struct hypervisor hypervisor;
    struct fake_guest guests[FAKE_GUESTS_MAX];
    int guest_count;
    struct fake_done *first, **last;   /* ended, not yet told */
    bool is_holding;                   /* tell the ends only by fake_tell() */
    bool is_blind;                     /* list() cannot tell */
    int fail_next;                     /* result of the next operation */
    uint64_t send_operation;           /* of the send under way */
    int receive_socket, send_socket;
    struct loop *loop;
    struct loop_item teller;
    bool is_teller_queued;
};

static struct fake_guest *fake_find(struct fake_hypervisor *fake, ref_t vm)
{
    for (int i = 0; i < fake->guest_count; i++)
        if (ref_equal(fake->guests[i].found.vm, vm))
            return &fake->guests[i];
    return NULL;
}

static struct fake_guest *fake_make(struct fake_hypervisor *fake, ref_t vm)
{
    struct fake_guest *guest = fake_find(fake, vm);

    if (!guest) {
        assert(fake->guest_count < FAKE_GUESTS_MAX);
        guest = &fake->guests[fake->guest_count++];
        guest->found.vm = vm;
    }
    return guest;
}

/* Tell the agent what has ended. */
static void fake_tell(struct fake_hypervisor *fake)
{
    struct fake_done *done;

    while ((done = fake->first)) {
        struct hypervisor_events *events = &fake->hypervisor.events;

        fake->first = done->next;
        if (!fake->first)
            fake->last = &fake->first;
        if (events->done)
            events->done(events->arg, done->operation, done->result, done->result < 0 ? "it failed" : "");
        free(done);
    }
}

static void fake_teller(struct loop_item *item)
{
    struct fake_hypervisor *fake = CONTAINER_OF(item, struct fake_hypervisor, teller);

    fake->is_teller_queued = false;
    if (!fake->is_holding)
        fake_tell(fake);
}

static void fake_end(struct fake_hypervisor *fake, uint64_t operation, int result)
{
    struct fake_done *done = new0(struct fake_done);

    done->operation = operation;
    done->result = result;
    *fake->last = done;
    fake->last = &done->next;
    if (!fake->is_teller_queued) {
        fake->is_teller_queued = true;
        loop_defer(fake->loop, &fake->teller);
    }
}

#define FAKE_SELF(hv) CONTAINER_OF(hv, struct fake_hypervisor, hypervisor)

static bool fake_fails(struct fake_hypervisor *fake, uint64_t operation)
{
    int result = fake->fail_next;

    fake->fail_next = 0;
    if (result < 0)
        fake_end(fake, operation, result);
    return result < 0;
}

static int fake_build(struct fake_hypervisor *fake, uint64_t operation, const struct guest_config *config)
{
    struct fake_guest *guest;

    if (fake_fails(fake, operation))
        return 0;
    guest = fake_make(fake, config->vm);
    guest->starts++;
    guest->found.epoch = config->epoch;
    guest->found.domid = config->domid;
    guest->found.state = GUEST_PAUSED;
    guest_devices_done(&guest->devices);
    for (int i = 0; i < config->disk_count; i++)
        guest_devices_put_disk(&guest->devices, &config->disks[i]);
    for (int i = 0; i < config->nic_count; i++)
        guest_devices_put_nic(&guest->devices, &config->nics[i]);
    fake_end(fake, operation, 0);
    return 0;
}

static int fake_start(struct hypervisor *hv, uint64_t operation, const struct guest_config *config)
{
    return fake_build(FAKE_SELF(hv), operation, config);
}

static int fake_restore(struct hypervisor *hv, uint64_t operation, const struct guest_config *config, const char *image)
{
    (void) image;
    return fake_build(FAKE_SELF(hv), operation, config);
}

static int fake_change(struct hypervisor *hv, uint64_t operation, ref_t vm, enum guest_state from, enum guest_state to)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);
    struct fake_guest *guest = fake_find(fake, vm);

    if (fake_fails(fake, operation))
        return 0;
    if (!guest || guest->found.state != from) {
        fake_end(fake, operation, -ERR_VM_BAD_POWER_STATE);
        return 0;
    }
    guest->found.state = to;
    if (to == GUEST_RUNNING) {
        guest->runs++;
        guest->run_epoch = guest->found.epoch;
    }
    fake_end(fake, operation, 0);
    return 0;
}

static int fake_unpause(struct hypervisor *hv, uint64_t operation, ref_t vm)
{
    return fake_change(hv, operation, vm, GUEST_PAUSED, GUEST_RUNNING);
}

static int fake_pause(struct hypervisor *hv, uint64_t operation, ref_t vm)
{
    return fake_change(hv, operation, vm, GUEST_RUNNING, GUEST_PAUSED);
}

static int fake_resume_sent(struct hypervisor *hv, uint64_t operation, ref_t vm, uint64_t epoch)
{
    struct fake_guest *guest = fake_find(FAKE_SELF(hv), vm);

    if (guest)
        guest->found.epoch = epoch;
    return fake_change(hv, operation, vm, GUEST_SENT, GUEST_RUNNING);
}

static int fake_ask_shutdown(struct hypervisor *hv, uint64_t operation, ref_t vm, bool is_reboot)
{
    (void) vm;
    (void) is_reboot;
    fake_end(FAKE_SELF(hv), operation, 0);
    return 0;
}

static int fake_kill(struct hypervisor *hv, uint64_t operation, ref_t vm)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);
    struct fake_guest *guest = fake_find(fake, vm);

    if (guest)
        guest->found.state = GUEST_ENDED;
    fake_end(fake, operation, 0);
    return 0;
}

static int fake_save(struct hypervisor *hv, uint64_t operation, ref_t vm, const char *image)
{
    (void) image;
    return fake_change(hv, operation, vm, GUEST_RUNNING, GUEST_ENDED);
}

static int fake_receive(struct hypervisor *hv, uint64_t operation, const struct guest_config *config, int socket)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);

    fake->receive_socket = socket;
    close(socket);
    return fake_build(fake, operation, config);
}

/* Ends by fake_send_end(). */
static int fake_send(struct hypervisor *hv, uint64_t operation, ref_t vm, int socket, int downtime_ms, bool is_compressed)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);

    (void) vm;
    (void) downtime_ms;
    (void) is_compressed;
    fake->send_socket = socket;
    close(socket);
    fake->send_operation = operation;
    return 0;
}

static void fake_send_end(struct fake_hypervisor *fake, ref_t vm, int result)
{
    if (result == 0)
        fake_find(fake, vm)->found.state = GUEST_SENT;
    fake_end(fake, fake->send_operation, result);
    fake->send_operation = 0;
}

static int fake_cancel_send(struct hypervisor *hv, uint64_t operation, ref_t vm)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);

    if (fake->send_operation)
        fake_send_end(fake, vm, -ERR_TASK_CANCELLED);
    fake_end(fake, operation, 0);
    return 0;
}

static int fake_forget(struct hypervisor *hv, uint64_t operation, ref_t vm)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);
    struct fake_guest *guest = fake_find(fake, vm);

    if (guest)
        guest->found.state = GUEST_NONE;
    fake_end(fake, operation, 0);
    return 0;
}

static int fake_reopen_disks(struct hypervisor *hv, uint64_t operation, ref_t vm)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);
    struct fake_guest *guest = fake_find(fake, vm);

    if (fake_fails(fake, operation))
        return 0;
    guest->reopens += guest->found.state == GUEST_PAUSED;
    fake_end(fake, operation, 0);
    return 0;
}

static int fake_plug_disk(struct hypervisor *hv, uint64_t operation, ref_t vm, const struct guest_disk *disk)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);

    if (fake_fails(fake, operation))
        return 0;
    guest_devices_put_disk(&fake_find(fake, vm)->devices, disk);
    fake_end(fake, operation, 0);
    return 0;
}

static int fake_unplug_disk(struct hypervisor *hv, uint64_t operation, ref_t vm, const char *device, bool is_forced)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);

    (void) is_forced;
    if (fake_fails(fake, operation))
        return 0;
    guest_devices_drop_disk(&fake_find(fake, vm)->devices, device);
    fake_end(fake, operation, 0);
    return 0;
}

static int fake_plug_nic(struct hypervisor *hv, uint64_t operation, ref_t vm, const struct guest_nic *nic)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);

    if (fake_fails(fake, operation))
        return 0;
    guest_devices_put_nic(&fake_find(fake, vm)->devices, nic);
    fake_end(fake, operation, 0);
    return 0;
}

static int fake_unplug_nic(struct hypervisor *hv, uint64_t operation, ref_t vm, const char *device, bool is_forced)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);

    (void) is_forced;
    if (fake_fails(fake, operation))
        return 0;
    guest_devices_drop_nic(&fake_find(fake, vm)->devices, device);
    fake_end(fake, operation, 0);
    return 0;
}

static const struct guest_devices *fake_devices(struct hypervisor *hv, ref_t vm)
{
    struct fake_guest *guest = fake_find(FAKE_SELF(hv), vm);

    return guest ? &guest->devices : NULL;
}

/* At the end of a test. */
static _unused_ void fake_done(struct fake_hypervisor *fake)
{
    for (int i = 0; i < fake->guest_count; i++)
        guest_devices_done(&fake->guests[i].devices);
}

static int fake_set_memory(struct hypervisor *hv, uint64_t operation, ref_t vm, int64_t bytes)
{
    (void) vm;
    (void) bytes;
    fake_end(FAKE_SELF(hv), operation, 0);
    return 0;
}

static int fake_set_vcpus(struct hypervisor *hv, uint64_t operation, ref_t vm, int vcpus)
{
    (void) vm;
    (void) vcpus;
    fake_end(FAKE_SELF(hv), operation, 0);
    return 0;
}

static int fake_list(struct hypervisor *hv, void (*found)(void *arg, const struct guest_found *), void *arg)
{
    struct fake_hypervisor *fake = FAKE_SELF(hv);

    if (fake->is_blind)
        return -1;
    for (int i = 0; i < fake->guest_count; i++)
        if (fake->guests[i].found.state != GUEST_NONE)
            found(arg, &fake->guests[i].found);
    return 0;
}

static int fake_sample(struct hypervisor *hv, ref_t vm, struct guest_sample *ret)
{
    *ret = (struct guest_sample){.vcpu_seconds = 1, .memory_actual_bytes = 1 << 20};
    return fake_find(FAKE_SELF(hv), vm) ? 0 : -1;
}

/* The guest changes by itself. */
static _unused_ void fake_guest_changes(struct fake_hypervisor *fake, ref_t vm, enum guest_change change)
{
    struct fake_guest *guest = fake_find(fake, vm);

    guest->found.state = GUEST_ENDED;
    guest->found.ended_by = change;
    if (fake->hypervisor.events.changed)
        fake->hypervisor.events.changed(fake->hypervisor.events.arg, vm, guest->found.epoch, change);
}

/* For a new agent, or a new loop: what is under way is forgotten, the guests stay. */
static void fake_attach(struct fake_hypervisor *fake, struct loop *loop)
{
    struct fake_done *done;

    while (fake->first && (done = fake->first)) {
        fake->first = done->next;
        free(done);
    }
    fake->last = &fake->first;
    fake->loop = loop;
    fake->is_teller_queued = false;
    fake->send_operation = 0;
    fake->teller = (struct loop_item){.run = fake_teller};
    fake->hypervisor = (struct hypervisor){
        .name = "fake",
        .start = fake_start,
        .restore = fake_restore,
        .unpause = fake_unpause,
        .pause = fake_pause,
        .ask_shutdown = fake_ask_shutdown,
        .kill = fake_kill,
        .save = fake_save,
        .receive = fake_receive,
        .send = fake_send,
        .cancel_send = fake_cancel_send,
        .resume_sent = fake_resume_sent,
        .reopen_disks = fake_reopen_disks,
        .plug_disk = fake_plug_disk,
        .unplug_disk = fake_unplug_disk,
        .change_cd = fake_plug_disk,
        .plug_nic = fake_plug_nic,
        .unplug_nic = fake_unplug_nic,
        .devices = fake_devices,
        .forget = fake_forget,
        .set_memory_target = fake_set_memory,
        .set_vcpus = fake_set_vcpus,
        .list = fake_list,
        .sample = fake_sample,
    };
}
