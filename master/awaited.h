/* awaited.h - hosts that must have spoken before a master with an old copy of the records lets any VM run
 *
 * A master may begin from a copy that lacks generations which an earlier one has acknowledged: the store was put back, the
 * records came from Redis. Whatever that one ordered since, the hosts know. So until every host that could hold a VM
 * has said hello as this master's own - or was declared dead - no VM is started, resumed, unpaused or moved. (design.md
 * section 5; how a master finds out, docs/protocol.md, "A copy that is old")
 *
 *   awaited_begin   ->  an INTENT that names the hosts, a message, a log line
 *     hello, declare_dead, destroy  ->  one host less
 *   none is left    ->  the INTENT is gone, a message; who waits goes on, and so does recovery
 *
 * The INTENT is durable: the next master goes on waiting. */
#pragma once

#include "shared/ref.h"

struct call;
struct core;
struct awaited;

/* Sets core->awaited. After the store is loaded. */
void awaited_new(struct core *);
void awaited_destroy(struct awaited **);

/* After slaves_new(), as the last of the hooks: what a hello proves is committed by then. */
void awaited_start(struct core *);

/* From now on all hosts are waited for that have not said hello as ours. `why` is for people. When the returned
 * generation is visible, this outlives the master. */
uint64_t awaited_begin(struct core *, const char *why);

/* Is anybody waited for? */
bool awaited_any(const struct core *);

/* Until nobody is. 0, -ERR_TASK_CANCELLED, or at the deadline (0: none) -ERR_HOST_OFFLINE [the first of them]. */
int awaited_wait(struct call *, uint64_t deadline_ms);

/* The host has spoken, is fenced, or is no host any more. */
void awaited_host_done(struct core *, ref_t host);
