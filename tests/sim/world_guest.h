/* world_guest.h - guests and drivers, among the world's files */
#pragma once

#include "tests/sim/world.h"

/* A life: from one boot on, through moves and suspend images. */
struct life {
    struct life *next;
    uint64_t number;
    ref_t vm;
    uint64_t runs;
};

void lives_free(struct world *);

/* ---- world_guest.c: requests, as the guests process answers them ---- */

struct guest_request {
    uint64_t operation;
    int (*run)(struct world_host *, const struct guest_request *);
    ref_t vm;
    uint64_t epoch;
    int64_t domid;
    char *image;
    int fd;
    bool is_reboot;
    struct world_devices devices; /* all that it is to have; of a plug or unplug: the one */
};

int guest_do_start(struct world_host *, const struct guest_request *);
int guest_do_restore(struct world_host *, const struct guest_request *);
int guest_do_unpause(struct world_host *, const struct guest_request *);
int guest_do_pause(struct world_host *, const struct guest_request *);
int guest_do_ask_shutdown(struct world_host *, const struct guest_request *);
int guest_do_kill(struct world_host *, const struct guest_request *);
int guest_do_save(struct world_host *, const struct guest_request *);
int guest_do_receive(struct world_host *, const struct guest_request *);
int guest_do_send(struct world_host *, const struct guest_request *);
int guest_do_cancel_send(struct world_host *, const struct guest_request *);
int guest_do_resume_sent(struct world_host *, const struct guest_request *);
int guest_do_forget(struct world_host *, const struct guest_request *);
int guest_do_plug(struct world_host *, const struct guest_request *);
int guest_do_unplug(struct world_host *, const struct guest_request *);

void guest_free(struct world_guest *);
void guest_end_by_itself(struct world_guest *, enum guest_change);
void guest_break_move(struct world_guest *);
/* What a lost agent had under way does not go on: moves and saves are cancelled, boots are complete. */
void guest_abandon_work(struct world_guest *);

/* ---- hypervisor_mem.c: what the agent that is connected is told ---- */

void driver_tell_guest(struct world_guest *);
void driver_tell_gone(struct world_host *, ref_t vm);
void driver_tell_changed(struct world_guest *, enum guest_change);
void driver_tell_done(struct world_host *, uint64_t operation, int result, const char *text);
void driver_process_died(struct world_host *);
void driver_process_came(struct world_host *);
