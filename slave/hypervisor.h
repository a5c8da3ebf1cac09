/* hypervisor.h - what a hypervisor driver does for the agent: one table of functions, filled by
 * hypervisor_sim.c (simulated guests in the process drover-guests) and later by hypervisor_qemu.c.
 *
 * An operation never blocks: the function starts it and returns 0, or a negative ERR_ code when it is refused at
 * once - HOST_STILL_BOOTING while what runs the guests is away, and nothing was asked of it; its end comes as events->done with the operation's number. Everything happens on the agent's core thread.
 * Guests outlive the agent: a driver that starts up finds what runs and reports it through list().
 *
 * Sockets are handed in, already connected and authenticated by the agents; the driver owns the descriptor from
 * the call on, and closes it at the end, whatever the result. The driver moves memory only: who may run is decided
 * above it, by VM epochs. It never starts, resumes or unpauses a guest by itself. */
#pragma once

#include "shared/base.h"
#include "shared/ref.h"

struct value;

enum guest_state {
    GUEST_NONE,      /* not known here */
    GUEST_RECEIVING, /* an empty guest that takes memory from a socket */
    GUEST_PAUSED,    /* complete and not running: paused by us, or received and not yet unpaused */
    GUEST_RUNNING,
    GUEST_SENT,      /* paused, its memory sent and its disks flushed and released: "paused for move" */
    GUEST_ENDED,     /* shut down, crashed or killed; remembered until forget() */
};

/* How a guest ended or changed by itself. */
enum guest_change {
    GUEST_SHUT_DOWN,
    GUEST_REBOOTED,  /* wants a reboot: it has ended, the agent starts it anew or not (actions_after_reboot) */
    GUEST_CRASHED,
    GUEST_VANISHED,  /* its process is gone: killed, or the host's hypervisor failed */
    GUEST_KILLED,    /* by kill(): only in list() */
    GUEST_SAVED,     /* by save(), the image is complete: only in list() */
};

struct guest_disk {
    const char *device;  /* userdevice, "0" */
    const char *path;    /* file; NULL for an empty CD drive, and for a disk of a dummy SR, which reads as zeros */
    const char *format;  /* "raw" or "qcow2", always explicit where there is a file */
    bool is_read_only;
    bool is_cd;
};

static inline bool guest_disk_is_writable(const struct guest_disk *disk)
{
    return disk->path && !disk->is_read_only && !disk->is_cd;
}

struct guest_nic {
    const char *device;  /* "0" */
    const char *mac;
    const char *bridge;
    int64_t mtu;
};

/* What a guest has now. */
struct guest_devices {
    struct guest_disk *disks;
    int disk_count;
    struct guest_nic *nics;
    int nic_count;
};

/* What a guest is made of. Valid during the call only: drivers copy what they keep. */
struct guest_config {
    ref_t vm;                 /* the VM's uuid */
    uint64_t epoch;           /* VM epoch it is to run at */
    int64_t domid;            /* chosen by the agent, above 0, never used again on this host */
    const char *name;         /* for logs and process titles */
    int64_t memory_static_max_bytes, memory_target_bytes;
    int vcpus;
    bool is_hvm;
    const char *boot_order;   /* HVM: "cdn"; PV: NULL */
    const char *kernel, *ramdisk, *kernel_args; /* PV direct boot, or NULL */
    const struct guest_disk *disks;
    int disk_count;
    const struct guest_nic *nics;
    int nic_count;
    const char *lock_path;    /* file whose exclusive lock a running guest holds, on shared storage; NULL: none */
    const char *journal_path; /* sim: where a running guest appends "host-uuid epoch tick boottime-ms" lines; NULL: none */
    const struct value *options; /* string map: keys "sim-..." of VM.other_config and of the host's configuration */
};

/* A guest that list() found. */
struct guest_found {
    ref_t vm;
    uint64_t epoch;
    int64_t domid;
    enum guest_state state;
    enum guest_change ended_by; /* for GUEST_ENDED */
};

/* Counters since the guest started, for metrics and RRDs. */
struct guest_sample {
    double vcpu_seconds;          /* summed over vcpus */
    int64_t memory_actual_bytes;
    int64_t disk_read_bytes, disk_write_bytes; /* summed over disks */
    int64_t nic_rx_bytes, nic_tx_bytes;        /* summed over nics */
    uint64_t ticks;               /* sim: the guest's own clock; 0 elsewhere */
};

struct hypervisor_events {
    /* The end of an operation. result 0, or a negative ERR_ code with a text for people. */
    void (*done)(void *arg, uint64_t operation, int result, const char *text);
    /* Share of an operation done, 0 to 1, at most a few times a second. */
    void (*progress)(void *arg, uint64_t operation, double share);
    /* A guest changed by itself. Not called for what an operation did. Each change is told once to each agent that
     * is connected; one that connects later sees it in list(). */
    void (*changed)(void *arg, ref_t vm, uint64_t epoch, enum guest_change change);
    /* The driver has lost what runs its guests, or has it again: meanwhile list() and new operations fail. It says nothing of
     * the guests: those that are known to have ended with it are told by changed(). NULL: nobody asks. */
    void (*reachable)(void *arg, bool is_reachable);
    void *arg;
};

struct hypervisor {
    const char *name;                   /* "sim", "qemu" */
    struct hypervisor_events events;    /* set by the agent before anything else */

    /* Build a guest from its disks; it stays paused until unpause(). done: complete and paused. */
    int (*start)(struct hypervisor *, uint64_t operation, const struct guest_config *);
    /* Build a guest from a suspend image; paused until unpause(). The image stays. */
    int (*restore)(struct hypervisor *, uint64_t operation, const struct guest_config *, const char *image_path);
    int (*unpause)(struct hypervisor *, uint64_t operation, ref_t vm);
    int (*pause)(struct hypervisor *, uint64_t operation, ref_t vm);
    /* Ask the guest to shut down (or reboot); done when it was asked. Its end comes as changed(). */
    int (*ask_shutdown)(struct hypervisor *, uint64_t operation, ref_t vm, bool is_reboot);
    /* End the guest now; done when it has certainly ended and its locks are free. Of an unknown guest: done, 0. */
    int (*kill)(struct hypervisor *, uint64_t operation, ref_t vm);
    /* Pause, write everything to the file, fsync, end the guest; done then. After a failure the guest runs on and
     * the file is removed. */
    int (*save)(struct hypervisor *, uint64_t operation, ref_t vm, const char *image_path);

    /* Take a guest from the socket; done when its memory is complete and verified: GUEST_PAUSED. A failure leaves
     * nothing behind. kill() ends it at any time. */
    int (*receive)(struct hypervisor *, uint64_t operation, const struct guest_config *, int socket);
    /* Send a running guest's memory while it runs, then the rest while it is paused (downtime_ms at most is wanted).
     * done, 0: everything was sent and confirmed by the receiver, disks and lock are released, GUEST_SENT.
     * Any failure, or cancel_send() before done: GUEST_RUNNING again. Compressed, if that is wanted: who receives sees it. */
    int (*send)(struct hypervisor *, uint64_t operation, ref_t vm, int socket, int downtime_ms, bool is_compressed);
    int (*cancel_send)(struct hypervisor *, uint64_t operation, ref_t vm);
    /* GUEST_SENT back to GUEST_RUNNING: takes lock and disks again. It runs at `epoch` from then on: the one it had
     * when the move came to nothing, a higher one when the master gave it back after COMMIT; a lower one is refused. */
    int (*resume_sent)(struct hypervisor *, uint64_t operation, ref_t vm, uint64_t epoch);

    /* The guest is paused and its disks flushed, as pause() leaves them. Where another file has taken over the path of one of
     * its writable disks - an overlay, whose base is the file that the guest has open - it goes on in that file, and never
     * writes to the old one again (QEMU: blockdev-snapshot). Disks whose file is the same are left alone. After a failure it
     * may have any of the files open: what it writes is not lost, but the base is no snapshot. */
    int (*reopen_disks)(struct hypervisor *, uint64_t operation, ref_t vm);

    /* Devices of a guest that runs or is paused. Plugging what is there already (the same file, for a disk) and unplugging what
     * is not are done; a device of that number with another file is refused: DEVICE_ALREADY_EXISTS. `done` comes when the guest
     * has the device, or has given it up and its file is closed (QEMU: device_del and then DEVICE_DELETED); a guest that does
     * not let go: DEVICE_DETACH_REJECTED, unless it is forced, and the device is as before. What the guest has then, it has
     * until it ends, whatever happens to the agent, and devices() tells it. A disk that was plugged is written to only from
     * then on. change_cd: the drive holds disk->path from now on, or nothing. */
    int (*plug_disk)(struct hypervisor *, uint64_t operation, ref_t vm, const struct guest_disk *disk);
    int (*unplug_disk)(struct hypervisor *, uint64_t operation, ref_t vm, const char *device, bool is_forced);
    int (*change_cd)(struct hypervisor *, uint64_t operation, ref_t vm, const struct guest_disk *disk);
    int (*plug_nic)(struct hypervisor *, uint64_t operation, ref_t vm, const struct guest_nic *nic);
    int (*unplug_nic)(struct hypervisor *, uint64_t operation, ref_t vm, const char *device, bool is_forced);
    /* What a guest has, from what the driver knows; never waits. Good until the next callback. NULL for an unknown guest, and
     * where the driver cannot tell: then nothing may be concluded. */
    const struct guest_devices *(*devices)(struct hypervisor *, ref_t vm);

    /* Forget an ended guest: list() no longer has it. */
    int (*forget)(struct hypervisor *, uint64_t operation, ref_t vm);
    int (*set_memory_target)(struct hypervisor *, uint64_t operation, ref_t vm, int64_t bytes);
    int (*set_vcpus)(struct hypervisor *, uint64_t operation, ref_t vm, int vcpus);

    /* What is here now; calls `found` for each guest before it returns, then 0; negative when the driver cannot
     * tell (its guests process is not reachable): then nothing may be concluded. */
    int (*list)(struct hypervisor *, void (*found)(void *arg, const struct guest_found *), void *arg);
    /* 0, or negative for an unknown guest. From what the driver knows; never waits. */
    int (*sample)(struct hypervisor *, ref_t vm, struct guest_sample *ret);
    void (*destroy)(struct hypervisor **); /* ends the driver, not the guests */
};
