/* crash.c - named points at which a test may end, stop or silence this process */
#include "shared/crash.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "shared/slave_calls.h"

#define NAME_BYTES 80

enum action { CRASH_NOTHING, CRASH_KILL, CRASH_STOP, CRASH_DROP };

bool crash_is_armed;

/* Set at the start, before threads pass points; afterwards only the core's thread does. */
static char armed_name[NAME_BYTES];
static enum action armed_action;
static int trace_fd = -1;
static bool call_was_passed[SLAVE_CALL_COUNT][CRASH_STEP_COUNT];
static bool (*hook)(void *arg, const char *name);
static void *hook_arg;

static const char *const steps[CRASH_STEP_COUNT][2] = {
    [CRASH_MASTER_CALL_BEFORE] = {"master", "call.before"},
    [CRASH_MASTER_CALL_AFTER] = {"master", "call.after"},
    [CRASH_MASTER_REPLY_BEFORE] = {"master", "reply.before"},
    [CRASH_MASTER_REPLY_AFTER] = {"master", "reply.after"},
    [CRASH_SLAVE_CALL_BEFORE] = {"slave", "call.before"},
    [CRASH_SLAVE_BEGUN] = {"slave", "begun"},
    [CRASH_SLAVE_EFFECT] = {"slave", "effect"},
    [CRASH_SLAVE_REPLY_BEFORE] = {"slave", "reply.before"},
    [CRASH_SLAVE_REPLY_AFTER] = {"slave", "reply.after"},
};

/* The linker's: the points of the object files in this program. One is always here, so the section exists. */
extern struct crash_point __start_crash_points[], __stop_crash_points[];
static struct crash_point none __attribute__((section("crash_points"), used, aligned(8)));

static bool is_step_for(int step, int number)
{
    /* ASK calls are not written down. */
    return slave_call_row(number)->has_effect || (step != CRASH_SLAVE_BEGUN && step != CRASH_SLAVE_EFFECT);
}

static void call_name(char out[NAME_BYTES], int step, int number)
{
    snprintf(out, NAME_BYTES, "%s.%s.%s", steps[step][0], slave_call_row(number)->name, steps[step][1]);
}

static bool passed(const char *name, bool *was_passed)
{
    enum action action;

    if (hook)
        return hook(hook_arg, name);
    if (trace_fd >= 0 && !*was_passed) {
        char line[NAME_BYTES + 1];
        int length = snprintf(line, sizeof line, "%s\n", name);

        (void) !write(trace_fd, line, (size_t) length);
    }
    *was_passed = true;
    if (armed_action == CRASH_NOTHING || !streq(armed_name, name))
        return false;
    action = armed_action;
    armed_action = CRASH_NOTHING;
    if (action == CRASH_KILL)
        kill(getpid(), SIGKILL);
    if (action == CRASH_STOP)
        kill(getpid(), SIGSTOP);
    return action == CRASH_DROP;
}

bool crash_pass(struct crash_point *point)
{
    return passed(point->name, &point->was_passed);
}

bool crash_pass_call(enum crash_step step, int number)
{
    char name[NAME_BYTES];

    call_name(name, step, number);
    return passed(name, &call_was_passed[number][step]);
}

/* ---- setting up ---- */

static bool is_known(const char *wanted)
{
    char name[NAME_BYTES];

    for (int number = 0; number < SLAVE_CALL_COUNT; number++)
        for (int step = 0; step < CRASH_STEP_COUNT; step++) {
            call_name(name, step, number);
            if (is_step_for(step, number) && streq(name, wanted))
                return true;
        }
    for (struct crash_point *point = __start_crash_points; point < __stop_crash_points; point++)
        if (point->name && streq(point->name, wanted))
            return true;
    return false;
}

bool crash_arm(const char *text)
{
    static const char *const actions[] = {[CRASH_KILL] = "kill", [CRASH_STOP] = "stop", [CRASH_DROP] = "drop-reply"};
    const char *colon = strchr(text, ':');
    size_t length = colon ? (size_t) (colon - text) : strlen(text);
    enum action action = colon ? CRASH_NOTHING : CRASH_KILL;
    char name[NAME_BYTES];

    for (int i = CRASH_KILL; colon && i <= CRASH_DROP; i++)
        if (streq(actions[i], colon + 1))
            action = (enum action) i;
    if (length >= sizeof name || action == CRASH_NOTHING)
        return false;
    memcpy(name, text, length);
    name[length] = '\0';
    if (!is_known(name))
        return false;
    memcpy(armed_name, name, sizeof name);
    armed_action = action;
    crash_is_armed = true;
    return true;
}

void crash_disarm(void)
{
    armed_action = CRASH_NOTHING;
    crash_is_armed = trace_fd >= 0 || hook;
}

bool crash_from_environment(void)
{
    const char *at = getenv("DROVER_CRASH_AT"), *trace = getenv("DROVER_CRASH_TRACE");

    if (trace) {
        trace_fd = open(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (trace_fd < 0)
            return false;
        crash_is_armed = true;
    }
    return !at || crash_arm(at);
}

void crash_print(const char *side)
{
    char name[NAME_BYTES];

    for (int number = 0; number < SLAVE_CALL_COUNT; number++)
        for (int step = 0; step < CRASH_STEP_COUNT; step++)
            if ((!side || streq(side, steps[step][0])) && is_step_for(step, number)) {
                call_name(name, step, number);
                puts(name);
            }
    for (struct crash_point *point = __start_crash_points; point < __stop_crash_points; point++)
        if (point->name)
            puts(point->name);
}

void crash_set_hook(bool (*new_hook)(void *arg, const char *name), void *arg)
{
    hook = new_hook;
    hook_arg = arg;
    crash_is_armed = hook || trace_fd >= 0 || armed_action != CRASH_NOTHING;
}
