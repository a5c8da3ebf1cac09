/* crash.h - named points at which a test may end, stop or silence this process
 *
 *     CRASH_POINT("claim.begin.durable");                 a point of one's own, found by the linker
 *     crash_call(CRASH_REPLY_BEFORE, row->number);        a point of each slave call, made from slave_calls.def
 *
 * Each slave call has points on both sides, before a message is sent, after that, and after it was handled:
 *
 *     master.vm_send.call.before    slave.vm_send.call.before     it has come, nothing was done
 *     master.vm_send.call.after     slave.vm_send.begun           its id is written down
 *     master.vm_send.reply.before   slave.vm_send.effect          the effect has happened, the result is not written down
 *     master.vm_send.reply.after    slave.vm_send.reply.before    written down, not sent
 *                                   slave.vm_send.reply.after
 *
 * `--crash-at NAME[:kill|stop|drop-reply]` arms one point for its first passage, also as DROVER_CRASH_AT=...; kill is
 * SIGKILL, stop SIGSTOP, and drop-reply has the message before which the point stands not sent. `--crash-points` prints
 * all names. DROVER_CRASH_TRACE=FILE appends each point's name when it is first passed: a test reads there what was
 * never reached. When nothing is armed a point costs one branch that is never taken. */
#pragma once

#include "shared/base.h"

enum crash_step {
    CRASH_MASTER_CALL_BEFORE,
    CRASH_MASTER_CALL_AFTER,
    CRASH_MASTER_REPLY_BEFORE, /* it has come, and was not looked at */
    CRASH_MASTER_REPLY_AFTER,
    CRASH_SLAVE_CALL_BEFORE,
    CRASH_SLAVE_BEGUN,
    CRASH_SLAVE_EFFECT,
    CRASH_SLAVE_REPLY_BEFORE,
    CRASH_SLAVE_REPLY_AFTER,
    CRASH_STEP_COUNT,
};

struct crash_point {
    const char *name;
    bool was_passed;
};

extern bool crash_is_armed;

/* These answer whether the message that follows is to be dropped. */
bool crash_pass(struct crash_point *point);
bool crash_pass_call(enum crash_step step, int number);

static inline bool crash_call(enum crash_step step, int number)
{
    return __builtin_expect(crash_is_armed, 0) && crash_pass_call(step, number);
}

#define CRASH_POINT(name_)                                                                         \
    ({                                                                                             \
        static struct crash_point crash_point_                                                     \
            __attribute__((section("crash_points"), used, aligned(8))) = {.name = name_};          \
        __builtin_expect(crash_is_armed, 0) && crash_pass(&crash_point_);                          \
    })

/* Arm "NAME" or "NAME:kill|stop|drop-reply". False for an unknown name or action. */
bool crash_arm(const char *text);
void crash_disarm(void);
/* From the environment: DROVER_CRASH_AT and DROVER_CRASH_TRACE. False when those make no sense. */
bool crash_from_environment(void);
/* All names, one a line, to stdout. side: "master", "slave", or NULL for the points of both. */
void crash_print(const char *side);

/* Many hosts in one process, as in the simulator: instead of a signal. Called at every point once armed by
 * crash_set_hook; answers whether the message that follows is to be dropped. NULL ends it. */
void crash_set_hook(bool (*hook)(void *arg, const char *name), void *arg);
