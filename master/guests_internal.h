/* guests_internal.h - inside guest_changes.c, guest_again.c, guest_strays.c and guest_samples.c */
#pragma once

#include "master/claim.h"
#include "master/guest_changes.h"
#include "master/slaves.h"
#include "shared/refmap.h"

struct guests {
    struct refmap bounces; /* VM -> struct bounce: guests that begin anew too often */
    struct refmap usages;  /* VM -> struct usage: the last samples of their CPU time */
    struct refmap lost_moves; /* lost_move.c: being undone, by the VM's uuid */
};

enum ending {
    ENDING_SHUT_DOWN,
    ENDING_REBOOTED,
    ENDING_CRASHED,
    ENDING_VANISHED,
    ENDING_LOST,
    ENDING_NONE /* nothing was told */
};

/* As hosts name them; ENDING_NONE: no such name. */
enum ending ending_named(const char *name);

/* One guest to look after, in a fiber of its own. */
struct ward {
    ref_t host, vm_uuid;
    uint64_t epoch;
    enum ending ending;
    int64_t domid;    /* of the guest that ended; not above 0: unknown */
    uint64_t wait_ms; /* before the next attempt to have the host forget it */
};

/* Wait until nobody works on the VM, and claim it then. False when the matter is settled meanwhile: it is
 * not about the guest that the model knows, or there is none. */
bool ward_wait_until_idle(struct call *, const struct ward *, ref_t *ret_vm);
bool ward_claim_when_idle(struct call *, const struct ward *, struct claim *);
/* Have the host forget it, so that its right is over there: 0, or the slave call's failure. With the claim. */
int ward_forget(struct call *, const struct ward *, uint64_t epoch);

/* guest_again.c: does the VM's owner want it to begin anew? And have it do so; with the claim, which ends. */
bool ward_wants_restart(const struct object *vm, const struct ward *);
void ward_begin_anew(struct call *, struct claim *, const struct ward *);

/* VMs that an earlier master was to begin anew. */
void wards_go_on(struct core *);

/* Listen to the notes that carry figures. */
void samples_start(struct core *);

/* A host's hello tells of this guest: remove what has no right to be there, believe what only the
 * model can have made. Guests of VMs that are resident there are not its affair. */
void stray_look_at(struct core *, ref_t host, const struct slave_guest *);
