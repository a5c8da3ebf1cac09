/* log.c - one line for each thing worth knowing */
#include "shared/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/fiber.h"

/* Longer messages are cut. Both buffers lie on the stack of a fiber. */
#define MESSAGE_MAX 2048
#define LINE_MAX_   (MESSAGE_MAX + 1024)

static struct {
    const char *program;
    struct clock *clock;
    atomic_int level;
    int fd; /* stays the same number when the file is reopened */
    void (*sink)(void *arg, enum log_level level, const char *line);
    void *sink_arg;
} sink = {.program = "drover", .level = LOG_INFO, .fd = STDERR_FILENO};

static const char *const level_names[] = {
    [LOG_DEBUG] = "debug",
    [LOG_INFO] = "info",
    [LOG_WARNING] = "warning",
    [LOG_ERROR] = "error",
};

void log_start(const char *program, struct clock *clock)
{
    sink.program = program;
    sink.clock = clock;
}

int log_open(const char *path)
{
    _cleanup_(close_fd) int fd = -1;

    if (!path) {
        if (sink.fd != STDERR_FILENO && dup3(STDERR_FILENO, sink.fd, O_CLOEXEC) < 0)
            return -errno;
        return 0;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
    if (fd < 0)
        return -errno;
    if (sink.fd == STDERR_FILENO) {
        sink.fd = fd;
        fd = -1;
        return 0;
    }
    /* In one step, so that a thread that is about to write finds the old file or the new one. */
    if (dup3(fd, sink.fd, O_CLOEXEC) < 0)
        return -errno;
    return 0;
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&sink.level, (int) level, memory_order_relaxed);
}

bool log_is_wanted(enum log_level level)
{
    return (int) level >= atomic_load_explicit(&sink.level, memory_order_relaxed);
}

bool log_level_parse(const char *name, enum log_level *ret_level)
{
    for (size_t i = 0; i < ARRAY_SIZE(level_names); i++)
        if (streq(name, level_names[i])) {
            *ret_level = (enum log_level) i;
            return true;
        }
    return false;
}

void log_set_sink(void (*fn)(void *arg, enum log_level level, const char *line), void *arg)
{
    sink.sink = fn;
    sink.sink_arg = arg;
}

/* --- a line --- */

struct line {
    char text[LINE_MAX_];
    size_t length;
};

/* Room is kept for "...", newline and NUL. False when the bytes do not fit. */
static bool line_add(struct line *line, const char *bytes, size_t count)
{
    if (count > sizeof(line->text) - 5 - line->length)
        return false;
    memcpy(line->text + line->length, bytes, count);
    line->length += count;
    return true;
}

/* How many bytes the well-formed UTF-8 character at p has; 0 when it is none, or one that controls
 * a terminal. */
static size_t printable(const unsigned char *p)
{
    static const struct {
        unsigned char first_min, first_max, second_min, second_max;
        size_t bytes;
    } forms[] = {
        {0x20, 0x5b, 0, 0, 1},       {0x5d, 0x7e, 0, 0, 1},       {0xc2, 0xc2, 0xa0, 0xbf, 2},
        {0xc3, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
        {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        if (*p < forms[i].first_min || *p > forms[i].first_max)
            continue;
        if (forms[i].bytes > 1 && (p[1] < forms[i].second_min || p[1] > forms[i].second_max))
            return 0;
        for (size_t j = 2; j < forms[i].bytes; j++)
            if (p[j] < 0x80 || p[j] > 0xbf)
                return 0;
        return forms[i].bytes;
    }
    return 0;
}

/* What follows the backslash for the usual ones, as in C; 0 for the others. */
static char letter_of(char c)
{
    switch (c) {
    case '\n':
        return 'n';
    case '\t':
        return 't';
    case '\r':
        return 'r';
    case '\\':
        return '\\';
    default:
        return 0;
    }
}

/* Text, with \n, \\ and \x1b in place of what would not be one line of text. */
static bool line_add_escaped(struct line *line, const char *text)
{
    while (*text) {
        size_t bytes = printable((const unsigned char *) text);
        char escaped[8], letter;

        if (bytes > 0) {
            if (!line_add(line, text, bytes))
                return false;
            text += bytes;
            continue;
        }
        letter = letter_of(*text);
        if (letter)
            snprintf(escaped, sizeof(escaped), "\\%c", letter);
        else
            snprintf(escaped, sizeof(escaped), "\\x%02x", (unsigned char) *text);
        if (!line_add(line, escaped, strlen(escaped)))
            return false;
        text++;
    }
    return true;
}

static void line_begin(struct line *line, enum log_level level, const char *tag)
{
    struct clock *clock = sink.clock ? sink.clock : clock_real();
    int64_t utc_ms = clock_utc_ms(clock);
    time_t utc_s = (time_t) (utc_ms / 1000);
    char head[128];
    struct tm t;

    gmtime_r(&utc_s, &t);
    snprintf(head, sizeof(head), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ %s %.40s [", t.tm_year + 1900,
             t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, (int) (utc_ms % 1000),
             level_names[level], sink.program);
    line_add(line, head, strlen(head));
    line_add_escaped(line, tag);
    line_add(line, "] ", 2);
}

static void line_write(const char *text, size_t length)
{
    /* A log that cannot be written is no reason to stop, and there is nowhere to say so. */
    while (write(sink.fd, text, length) < 0 && errno == EINTR)
        ;
}

void log_write(enum log_level level, const char *tag, const char *format, ...)
{
    int saved_errno = errno;
    struct fiber *self = fiber_self();
    char message[MESSAGE_MAX];
    struct line line;
    va_list args;
    int length;

    if (!log_is_wanted(level))
        return;
    if (self && *fiber_log_tag(self))
        tag = fiber_log_tag(self);
    line.length = 0;
    line_begin(&line, level, tag ? tag : "-");
    va_start(args, format);
    length = vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    if (length < 0)
        snprintf(message, sizeof(message), "(cannot format \"%s\")", format);
    if (!line_add_escaped(&line, message) || length >= (int) sizeof(message)) {
        memcpy(line.text + line.length, "...", 3);
        line.length += 3;
    }
    line.text[line.length++] = '\n';
    line.text[line.length] = '\0';
    if (sink.sink)
        sink.sink(sink.sink_arg, level, line.text);
    else
        line_write(line.text, line.length);
    errno = saved_errno;
}
