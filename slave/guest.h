/* guest.h - one simulated guest, and the process that runs all guests of a host (drover-guests).
 *
 *   guests.c          the process: clients, requests, the table of guests
 *   guest.c           a guest's life: running, pausing, ticking, ending
 *   guest_options.c   the sim-... options
 *   guest_journal.c   its lock and its journal
 *   guest_disks.c     what it writes to its disks
 *   guest_devices.c   the list of its disks and interfaces;  guest_plug.c: how it changes
 *   guest_memory.c    its pages
 *   guest_image.c     save and restore: files, written and read by a thread of their own
 *   guest_send.c, guest_receive.c   moving its memory over a socket;  guest_move.h: the bytes
 *
 * At most one piece of work is under way on a guest (building, saving, moving); what takes no time
 * is done at once. Everything but the image thread happens on one loop, and nothing there waits. */
#pragma once

#include <stdio.h>

#include "shared/base.h"
#include "shared/loop.h"
#include "shared/ref.h"
#include "slave/guest_devices.h"
#include "slave/guest_link.h"
#include "slave/guest_memory.h"
#include "slave/guest_table.h"
#include "slave/hypervisor.h"

struct guest;
struct guests;
struct client;

#define GUEST_DIGEST_PAGES 2048 /* digested in one step: 8 MiB, about a millisecond */

/* --- errors: a function returns the negative code and leaves a text for people --- */

struct guest_error {
    char text[256];
};

/* Returns -code. */
int guest_fail(struct guest_error *error, int code, const char *format, ...) _printf_(3, 4);

/* --- options --- */

struct guest_options {
    int64_t memory_kib, tick_ms, dirty_pages;
    int64_t boot_ms, shutdown_ms, reboot_ms, suspend_ms, move_ms_min, move_timeout_ms;
    int64_t crash_at_tick, shutdown_at_tick, reboot_at_tick; /* 0: never */
    int64_t cpu_percent;
    int64_t ignores_shutdown; /* 0 or 1 */
    int64_t writes_disks;     /* 0 or 1 */
    int64_t refuses_unplug;   /* 0 or 1 */
};

extern const struct guest_options guest_options_default;

/* Set one option from text. Keys that no row names are ignored: other layers have sim- options of
 * their own. Returns 0 or -ERR_INVALID_VALUE. */
int guest_option_set(struct guest_options *options, const char *key, const char *text,
                     struct guest_error *error);
bool guest_option_exists(const char *key);
void guest_options_help(FILE *out);

/* --- work: what is under way on a guest --- */

struct guest_work {
    const char *name; /* for texts: "being sent" */
    /* The agent has gone, or wants no more. The guest becomes what it was before, or is removed;
     * guest_work_done() says so, now or soon. */
    void (*cancel)(struct guest *guest, int code, const char *text);
    /* The guest is ending: let go of everything that belongs to the work. */
    void (*drop)(struct guest *guest);
};

/* Who asked, and under which number. */
struct guest_op {
    struct client *client; /* NULL: gone since */
    uint64_t number;
};

/* --- a guest --- */

enum own_plan { PLAN_NONE, PLAN_SHUTDOWN, PLAN_REBOOT };

struct guest {
    struct guest_node node; /* by VM */
    struct guests *guests;
    ref_t vm;
    uint64_t epoch;
    int64_t domid;
    char *name;
    enum guest_state state;
    enum guest_change ended_by;
    struct guest_options options;
    struct guest_memory *memory; /* NULL once ended, and before a receiver knows its size */
    int64_t memory_target_bytes;
    int vcpus;
    struct guest_devices devices; /* owned (guest_devices.h) */

    /* the guest's clock */
    bool is_executing; /* it ticks: RUNNING, and not held still for the end of a move or save */
    uint64_t tick;
    uint64_t last_tick_ms; /* boot time of the last tick */
    uint64_t due_ms;
    struct timer tick_timer;
    enum own_plan plan;    /* it is about to shut down or reboot by itself, */
    uint64_t plan_left_ms; /* which takes so long still when it does not execute */
    struct timer plan_timer;

    /* lock and journal, held from the first run to the end, or until it was sent */
    char *lock_path, *journal_path;
    int lock_fd, journal_fd;
    bool has_journal_error;
    struct guest_disk_file *files; /* of the disks that it writes to, open as long */
    int file_count;
    bool has_disk_error; /* told once */
    const char *origin; /* "boot", "restored", "received": for the note of its first run here */

    /* what is under way, and for whom */
    const struct guest_work *work;
    struct guest_op op;
    struct timer work_timer;
    void *work_state;

    /* counters since it came here */
    double vcpu_seconds;
    int64_t disk_read_bytes, disk_write_bytes, nic_rx_bytes, nic_tx_bytes;
};

/* A new guest in the table, without memory, state GUEST_RECEIVING, from a request's fields.
 * Replaces an ended guest of the VM. NULL and an error when the request or its options are not
 * acceptable. */
struct guest *guest_new(struct guests *guests, const struct guest_message *request, int *ret_code,
                        struct guest_error *error);
void guest_remove(struct guest *guest); /* forget it at once; no work under way */

/* Give it memory as its options say. */
int guest_build_memory(struct guest *guest, uint32_t page_count, struct guest_error *error);
uint32_t guest_page_count(const struct guest *guest);

/* Let it run: takes lock and journal when it does not have them. */
int guest_run(struct guest *guest, const char *origin, struct guest_error *error);
/* Stop and restart its clock; the state stays what the caller makes it. */
void guest_hold(struct guest *guest);
void guest_continue(struct guest *guest, const char *origin);
void guest_set_state(struct guest *guest, enum guest_state state); /* tells the agents */
void guest_release_files(struct guest *guest, const char *reason);

/* End it: work under way fails, locks are free when this returns. */
void guest_end(struct guest *guest, enum guest_change how);

/* It wants to shut down or reboot: begin with that. */
void guest_plan(struct guest *guest, enum own_plan plan, uint64_t in_ms);

void guest_work_begin(struct guest *guest, const struct guest_work *work,
                      const struct guest_op *op);
/* Nothing is under way any more; the caller answers the operation. */
struct guest_op guest_work_detach(struct guest *guest);
/* Its end: result 0 or negative, with a text. */
void guest_work_done(struct guest *guest, int result, const char *text);


/* --- lock and journal (guest_journal.c says the format) --- */

int guest_files_open(struct guest *guest,
                     struct guest_error *error); /* 0 or -ERR_DOMAIN_EXISTS, -ERR_INTERNAL_ERROR */
void guest_files_close(struct guest *guest);
void guest_journal_tick(struct guest *guest);
void guest_journal_note(struct guest *guest, const char *word, const char *detail);

/* --- disks that the guest writes (guest_disks.c) --- */

/* Those that it may write, if its options say that it does, and that are not open. */
int guest_disks_open(struct guest *guest, struct guest_error *error);
/* Those that are open, by their paths: another file may stand there now. */
int guest_disks_reopen(struct guest *guest, struct guest_error *error);
void guest_disk_close(struct guest *guest, const char *device);
void guest_disks_close(struct guest *guest);
void guest_disks_tick(struct guest *guest);

/* --- devices that come and go (guest_plug.c): 0, or negative and nothing has changed --- */

int guest_plug_disk(struct guest *guest, const struct guest_disk *disk, struct guest_error *error);
int guest_unplug_disk(struct guest *guest, const char *device, bool is_forced,
                      struct guest_error *error);
int guest_change_cd(struct guest *guest, const struct guest_disk *disk, struct guest_error *error);
int guest_plug_nic(struct guest *guest, const struct guest_nic *nic, struct guest_error *error);
int guest_unplug_nic(struct guest *guest, const char *device, bool is_forced,
                     struct guest_error *error);

/* --- long work: each begins it and answers through guest_work_done --- */

void guest_boot_begin(struct guest *guest, const struct guest_op *op);
void guest_save_begin(struct guest *guest, const struct guest_op *op, const char *path);
void guest_restore_begin(struct guest *guest, const struct guest_op *op, const char *path);
void guest_send_begin(struct guest *guest, const struct guest_op *op, int fd, int downtime_ms,
                      bool is_compressed);
void guest_receive_begin(struct guest *guest, const struct guest_op *op, int fd);
bool guest_is_being_sent(const struct guest *guest);
bool guest_is_booting(const struct guest *guest);
void guest_boot_finish(struct guest *guest);

/* The thread that writes and reads images: started with the first one. Stopping waits for the job
 * under way. */
struct image_thread;
void image_thread_stop(struct image_thread **thread_p);

/* --- the process --- */

struct guests {
    struct loop *loop;
    char host_uuid[UUID_TEXT_BYTES];
    char instance[UUID_TEXT_BYTES]; /* of this process: who sees another one knows that all guests
                                       are gone */
    struct guest_options defaults;
    struct guest_table table;
    struct image_thread *image_thread;
    const char *socket_path;
    int listen_fd, lock_fd;
    struct client *clients;
    int client_count;
    struct timer sample_timer, listen_timer;
};

/* Listens; dies with a message when the socket's path is taken by a living process. */
struct guests *guests_new(struct loop *loop, const char *socket_path, ref_t host_uuid,
                          const struct guest_options *defaults);
/* Ends all guests. */
void guests_destroy(struct guests **guests_p);

struct guest *guests_find(const struct guests *guests, ref_t vm);
void guests_tell(struct guest *guest);      /* its state, to every agent */
void guests_tell_gone(struct guest *guest); /* no longer in the table */
void guests_tell_changed(struct guest *guest, enum guest_change change);
void guests_tell_progress(const struct guest *guest, double share);
void guests_answer(const struct guest_op *op, int result, const char *text);
void guests_log(const char *format, ...) _printf_(1, 2);
