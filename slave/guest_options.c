/* guest_options.c - what a simulated guest is told to be like: a row for each option
 *
 * An option comes from VM.other_config or from the host's configuration as "sim-..." text, or for
 * the whole process from --default. What is not there has its default. */
#include <errno.h>
#include <stdio.h>

#include "shared/model.h"
#include "slave/guest.h"

#define HOUR_MS   (3600 * 1000)
#define PAGES_MAX GUEST_PAGES_MAX
#define KIB_MAX   (GUEST_PAGES_MAX * 4LL)

const struct guest_options guest_options_default = {
    .memory_kib = 1024,
    .tick_ms = 100,
    .dirty_pages = 4,
    .boot_ms = 50,
    .shutdown_ms = 50,
    .reboot_ms = 50,
    .move_timeout_ms = 30000,
    .cpu_percent = 10,
};

/* clang-format off: rows in columns */
#define OPTION(key, field, least, most, help) \
    {"sim-" key, offsetof(struct guest_options, field), least, most, help, false},
#define SWITCH(key, field, help) \
    {"sim-" key, offsetof(struct guest_options, field), 0, 1, help, true},

static const struct {
    const char *key;
    size_t offset;
    int64_t least, most;
    const char *help;
    bool is_bool;
} rows[] = {
    /*     key                 field             least most       what it means */
    OPTION("memory-kib",       memory_kib,        4, KIB_MAX,   "real pages behind the VM's memory")
    OPTION("tick-ms",          tick_ms,           1, HOUR_MS,   "time between two ticks of its clock")
    OPTION("dirty-pages",      dirty_pages,       0, PAGES_MAX, "pages written in each tick")
    OPTION("boot-ms",          boot_ms,           0, HOUR_MS,   "time that start takes")
    OPTION("shutdown-ms",      shutdown_ms,       0, HOUR_MS,   "from being asked to shut down on")
    OPTION("reboot-ms",        reboot_ms,         0, HOUR_MS,   "from being asked to reboot on")
    OPTION("suspend-ms",       suspend_ms,        0, HOUR_MS,   "least time that a save takes")
    OPTION("move-ms-min",      move_ms_min,       0, HOUR_MS,   "least time that a move takes")
    OPTION("move-timeout-ms",  move_timeout_ms,  10, HOUR_MS,   "without progress a move fails then")
    OPTION("crash-at-tick",    crash_at_tick,     0, INT64_MAX, "crashes then; 0: never")
    OPTION("shutdown-at-tick", shutdown_at_tick,  0, INT64_MAX, "shuts down by itself; 0: never")
    OPTION("reboot-at-tick",   reboot_at_tick,    0, INT64_MAX, "reboots by itself; 0: never")
    OPTION("cpu-percent",      cpu_percent,       0, 100,       "load of each virtual CPU")
    SWITCH("ignores-shutdown", ignores_shutdown, "true: does not shut down when asked")
    SWITCH("writes-disks",     writes_disks,     "true: writes each tick to its disks, too")
    SWITCH("refuses-unplug",   refuses_unplug,   "true: does not let go of a disk or interface")
};
#undef OPTION
#undef SWITCH
/* clang-format on */

static int64_t *value_of(struct guest_options *options, size_t row)
{
    return (int64_t *) ((char *) options + rows[row].offset);
}

static bool parse(const char *text, bool is_bool, int64_t *ret)
{
    char *end;
    long long number;

    if (is_bool && (streq(text, "true") || streq(text, "false"))) {
        *ret = text[0] == 't';
        return true;
    }
    if (text[0] < '0' || text[0] > '9') /* strtoll is too kind: blanks, signs */
        return false;
    errno = 0;
    number = strtoll(text, &end, 10);
    *ret = number;
    return errno == 0 && *end == '\0';
}

int guest_option_set(struct guest_options *options, const char *key, const char *text,
                     struct guest_error *error)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int64_t number;

        if (!streq(rows[i].key, key))
            continue;
        if (!parse(text, rows[i].is_bool, &number) || number < rows[i].least
            || number > rows[i].most)
            return guest_fail(error, ERR_INVALID_VALUE, "%s takes %s%lld to %lld, not \"%.60s\"",
                              key, rows[i].is_bool ? "true, false, " : "",
                              (long long) rows[i].least, (long long) rows[i].most, text);
        *value_of(options, i) = number;
        return 0;
    }
    return 0;
}

bool guest_option_exists(const char *key)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (streq(rows[i].key, key))
            return true;
    return false;
}

void guest_options_help(FILE *out)
{
    struct guest_options defaults = guest_options_default;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        fprintf(out, "  %-22s %s [%lld]\n", rows[i].key, rows[i].help,
                (long long) *value_of(&defaults, i));
}
