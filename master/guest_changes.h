/* guest_changes.h - guests change by themselves: they shut down, reboot, crash, vanish; and what
 * they use */
#pragma once

#include "shared/ref.h"

struct core;
struct guests;

struct guests *guests_new(struct core *);
void guests_destroy(struct guests **);

/* Listen to the hosts' notes and hellos, and go on with what an earlier master was to begin anew: after slaves_new(), before
 * slaves_start(). */
void guests_start(struct core *);

/* What a host did or refused shows that the model may be wrong about the VM that is resident there:
 * when nobody works on it, its host is asked and believed. */
void guest_compare_later(struct core *, ref_t vm);

/* Have a host drop a guest that has no right to be there (move: NULL), or the copy that arrives for
 * a move; repeated until it has, or is away: its next hello shows what is left. */
void guest_remove_later(struct core *, ref_t host, ref_t vm_uuid, uint64_t epoch, const char *move);
