/* guests_internal.h - inside guest_changes.c, guest_strays.c and guest_samples.c */
#pragma once

#include "master/guest_changes.h"
#include "master/slaves.h"
#include "shared/refmap.h"

struct guests {
    struct refmap bounces; /* VM -> struct bounce: guests that begin anew too often */
    struct refmap usages;  /* VM -> struct usage: the last samples of their CPU time */
    struct refmap lost_moves; /* lost_move.c: being undone, by the VM's uuid */
};

/* Listen to the notes that carry figures. */
void samples_start(struct core *);

/* A host's hello tells of this guest: remove what has no right to be there, believe what only the
 * model can have made. Guests of VMs that are resident there are not its affair. */
void stray_look_at(struct core *, ref_t host, const struct slave_guest *);
