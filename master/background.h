/* background.h - calls that nobody made: the pool's own work as a fiber with a call of its own
 *
 * Settling what is in doubt, following a guest that ended by itself: such work uses the same
 * functions as API calls do, so it needs a struct call - with root's rights, without a task. When
 * all fibers are taken it waits its turn. */
#pragma once

#include "master/call.h"

/* Run fn(call, arg) as a fiber; the call ends with it. `tag` is copied; "" makes one of the name.
 */
void background_run(struct core *, const char *name, const char *tag,
                    void (*fn)(struct call *, void *arg), void *arg);
