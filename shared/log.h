/* log.h - one line for each thing worth knowing
 *
 *   2025-01-31T12:00:00.123Z warning drover-master [OpaqueRef:71f0...] mirror is silent for 3 s
 *   time                     level   program        task or call        message
 *
 * The tag is that of the running fiber when it has one (fiber_set_log_tag), else the one given,
 * else "-"; so all lines of one task are found by its ref, in the logs of master and slaves alike.
 * Control characters are escaped: a line is always one line, and nothing that a client sends can
 * look like another. What is secret must not be passed in here; that is the caller's duty, nobody
 * can check it.
 *
 * Any thread. A line is one write(2), so lines of several threads and processes do not mix. The
 * sink is the one thing that all loops of a process share. */
#pragma once

#include "shared/base.h"

struct clock;

enum log_level {
    LOG_DEBUG,
    LOG_INFO,
    LOG_WARNING,
    LOG_ERROR,
};

/* tag: a text, or NULL. The arguments are not evaluated when the level is not wanted. */
#define log_debug(tag, ...)   log_at(LOG_DEBUG, tag, __VA_ARGS__)
#define log_info(tag, ...)    log_at(LOG_INFO, tag, __VA_ARGS__)
#define log_warning(tag, ...) log_at(LOG_WARNING, tag, __VA_ARGS__)
#define log_error(tag, ...)   log_at(LOG_ERROR, tag, __VA_ARGS__)
#define log_at(level, tag, ...)                     \
    do {                                            \
        if (log_is_wanted(level))                   \
            log_write((level), (tag), __VA_ARGS__); \
    } while (0)

bool log_is_wanted(enum log_level level);
void log_write(enum log_level level, const char *tag, const char *format, ...) _printf_(3, 4);

/* Before the first thread starts: the program's name (kept, not copied) and its clock; NULL for the
 * real one. */
void log_start(const char *program, struct clock *clock);

/* Append to this file from now on, or to stderr with NULL. Again with the same path after the file
 * was rotated. Returns 0 or -errno, the log staying where it was. The first time before other
 * threads log, later whenever. */
int log_open(const char *path);

/* Lines below the level are left out; LOG_INFO at first. */
void log_set_level(enum log_level level);

/* "debug", "info", "warning", "error"; false for another name. */
bool log_level_parse(const char *name, enum log_level *ret_level);

/* For tests and the simulator: lines, each with its newline, go to sink and nowhere else; NULL ends
 * that. Set while no other thread logs. */
void log_set_sink(void (*sink)(void *arg, enum log_level level, const char *line), void *arg);
