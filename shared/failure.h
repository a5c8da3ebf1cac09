/* failure.h - what a failing call tells its client: a code and its details
 *
 *     return failure_set(failure, arena, VM_BAD_POWER_STATE, ref, "running", "halted");
 *
 * The number of details is asserted against the error's row in model/errors.def: clients take them by position.
 * Details may be foreign bytes (the name that was not found, a slave's message); what is not valid text is
 * replaced on the way in, so that every codec can print a failure. */
#pragma once

#include "shared/arena.h"
#include "shared/base.h"
#include "shared/model.h"
#include "shared/ref.h"

#define FAILURE_PARAMS_MAX 8 /* no row has more than 5; some messages of a slave are longer */

/* A detail that repeats a client's own huge text back is cut here. */
#define FAILURE_PARAM_BYTES_MAX 4096

struct failure {
    int code;         /* ERR_x; ERR_NONE_ when the code is no row ("Fault", codes of plugins); 0: no failure */
    const char *text; /* the code as on the wire */
    unsigned count;
    const char *params[FAILURE_PARAMS_MAX];
    ref_t in_way; /* OTHER_OPERATION_IN_PROGRESS: the object whose operation is in the way, when the details name another
                     one; else null. Clients do not see it */
};

/* Sets the failure and returns -ERR_<code>. The texts are copied to the arena. */
#define failure_set(failure, arena, code, ...)                                                     \
    failure_set_counted((failure), (arena), ERR_##code, FAILURE_COUNT_(__VA_ARGS__),               \
                        FAILURE_TEXTS_(__VA_ARGS__))
#define FAILURE_TEXTS_(...) (&((const char *const[]){NULL, ##__VA_ARGS__})[1])
#define FAILURE_COUNT_(...) ((unsigned) (ARRAY_SIZE(((const char *const[]){NULL, ##__VA_ARGS__})) - 1))

int failure_set_counted(struct failure *failure, struct arena *arena, int code, unsigned count,
                        const char *const *params);

/* Any code text: a row's when there is one of that name, without the check of the count (a slave's answer, a plugin's
 * error). Details beyond FAILURE_PARAMS_MAX are dropped. Returns -ERR_x, -ERR_NONE_ for a code that is no row. */
int failure_set_text(struct failure *failure, struct arena *arena, const char *code, unsigned count,
                     const char *const *params);

/* A copy in another arena. */
void failure_copy(struct failure *to, struct arena *arena, const struct failure *from);
