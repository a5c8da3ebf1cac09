/* coroutine.h - a stack of its own for a function, and the switch to it and back. Knows nothing of
 * loops; fiber.h is what programs use. */
#pragma once

#include "shared/base.h"

struct coroutine;

/* A coroutine that will call run(arg) when it is first entered. run never returns; it leaves
 * instead. NULL when the system has no memory for a stack. */
struct coroutine *coroutine_new(void (*run)(void *arg), void *arg);

/* From outside: let it go on until it leaves. Always from the same thread, and never nested. */
void coroutine_enter(struct coroutine *coroutine);

/* From inside: back to who entered. Returns when it is entered again. */
void coroutine_leave(struct coroutine *coroutine);

/* Release the stack, whatever is on it; nothing is unwound. NULL is fine. */
void coroutine_destroy(struct coroutine **coroutine_p);
