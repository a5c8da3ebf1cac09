/* settings.c - the agent's settings: a row for each, by which they are read and explained */
#include "slave/settings.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>

#include "shared/arena.h"

enum setting_kind { SETTING_TEXT, SETTING_NUMBER, SETTING_LIST };

struct setting {
    const char *key;
    size_t offset;
    const char *initial;
    enum setting_kind kind;
    int64_t least, most;
    const char *help;
};

/* clang-format off: rows in columns */
#define TEXT(key, initial, help)              {#key, offsetof(struct settings, key), initial, SETTING_TEXT, 0, 0, help},
#define NUMBER(key, initial, least, most, help) {#key, offsetof(struct settings, key), initial, SETTING_NUMBER, least, most, help},
#define LIST(key, initial, help)              {#key, offsetof(struct settings, key), initial, SETTING_LIST, 0, 0, help},
static const struct setting rows[] = {
    /*      key               default   what it means */
    TEXT   (dir,              "",       "directory of the agent's state; must be given")
    TEXT   (host,             "",       "uuid of this host, before its first start (drawn)")
    TEXT   (name,             "",       "name of this host (as the machine calls itself)")
    TEXT   (address,          "127.0.0.1", "address of this host, as clients and other hosts reach it")
    LIST   (listen,           "",       "ADDRESS:PORT for plain HTTP, repeatable; port 0 takes a free one")
    LIST   (listen_tls,       "",       "ADDRESS:PORT for HTTPS, repeatable")
    TEXT   (unix_socket,      "",       "local socket, by which a master on this host passes requests on (DIR/slave.sock)")
    TEXT   (certificate,      "",       "certificate for HTTPS (DIR/slave.crt, made if missing); reloaded on SIGHUP")
    TEXT   (key,              "",       "its key (DIR/slave.key)")
    TEXT   (storage,          "",       "directory of this host's own SR (DIR/sr)")
    TEXT   (hypervisor,       "sim",    "driver: sim")
    TEXT   (guests,           "",       "sim: socket of drover-guests (DIR/guests.sock)")
    TEXT   (join,             "",       "ADDRESS:PORT at which a pool's master takes new hosts")
    TEXT   (pool_secret_file, "",       "the pool's secret, by which to join")
    TEXT   (log_file,         "",       "log to this file (standard error); reopened on SIGHUP")
    TEXT   (log_level,        "info",   "debug, info, warning or error")
    NUMBER (memory_mib,       "0",      0, 1 << 30, "memory offered to guests; 0: what the machine has")
    NUMBER (cpus,             "0",      0, 65536,   "CPUs offered to guests; 0: what the machine has")
    NUMBER (http_loops,       "2",      1, 64,      "threads that serve HTTP")
    NUMBER (bodies_mb,        "64",     1, 1 << 20, "MiB that calls being read may hold; more are answered 503")
    NUMBER (workers,          "16",     1, 256,     "threads for files; at most half of them at one SR")
    NUMBER (transfers,        "64",     1, 1024,    "exports and imports at work at once, but for those that wait for their clients")
    NUMBER (transfer_requests, "256",   1, 1024,    "exports and imports there at once; beyond that a very slow client gives way")
    NUMBER (transfer_kib_per_s, "0",    0, 1LL << 40, "bandwidth of all exports and imports together; 0: no bound")
    NUMBER (fibers_max,       "4096",   64, 65536,  "operations at work at once")
};
#undef TEXT
#undef NUMBER
#undef LIST
/* clang-format on */

/* host-name is host_name. */
static const struct setting *find(const char *key)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const char *a = rows[i].key, *b = key;

        while (*a && (*a == *b || (*a == '_' && *b == '-'))) {
            a++;
            b++;
        }
        if (!*a && !*b)
            return &rows[i];
    }
    return NULL;
}

static int put_number(const struct setting *row, const char *value, int64_t *ret)
{
    char *end;

    errno = 0;
    *ret = strtoll(value, &end, 10);
    if (errno || end == value || *end || *ret < row->least || *ret > row->most) {
        fprintf(stderr, "%s: '%s' is no number from %lld to %lld\n", row->key, value, (long long) row->least,
                (long long) row->most);
        return -1;
    }
    return 0;
}

static int put(struct settings *settings, const struct setting *row, const char *value)
{
    void *at = (char *) settings + row->offset;
    struct text_list *list = at;

    switch (row->kind) {
    case SETTING_TEXT:
        *(const char **) at = arena_strdup(settings->memory, value);
        return 0;
    case SETTING_NUMBER:
        return put_number(row, value, at);
    case SETTING_LIST:
        if (list->count == TEXT_LIST_MAX) {
            fprintf(stderr, "%s: more than %d\n", row->key, TEXT_LIST_MAX);
            return -1;
        }
        list->items[list->count++] = arena_strdup(settings->memory, value);
        return 0;
    }
    return -1;
}

/* inih stops at the first 0. */
static int file_line(void *arg, const char *section, const char *key, const char *value)
{
    const struct setting *row = find(key);

    if (*section || !row) {
        fprintf(stderr, "%s%s%s: no such setting; --help lists them\n", section, *section ? "." : "", key);
        return 0;
    }
    return put(arg, row, value) == 0;
}

static int read_file(struct settings *settings, const char *file)
{
    int r = ini_parse(file, file_line, settings);

    if (r == 0)
        return 0;
    if (r < 0)
        fprintf(stderr, "%s: %s\n", file, strerror(errno));
    else
        fprintf(stderr, "%s, line %d\n", file, r);
    return -1;
}

static void default_path(struct settings *settings, const char **path, const char *name)
{
    if (!**path)
        *path = arena_text(settings->memory, "%s/%s", settings->dir, name);
}

static int read_all(struct settings *ret, const char *file, int argc, char **argv)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (rows[i].kind != SETTING_LIST)
            (void) put(ret, &rows[i], rows[i].initial);
    if (file && read_file(ret, file) < 0)
        return -1;
    for (int i = 1; i < argc; i += 2) {
        const struct setting *row = strncmp(argv[i], "--", 2) == 0 ? find(argv[i] + 2) : NULL;

        if (!row) {
            fprintf(stderr, "%s: no such option; --help lists them\n", argv[i]);
            return -1;
        }
        if (i + 1 == argc) {
            fprintf(stderr, "%s: a value is missing\n", argv[i]);
            return -1;
        }
        if (put(ret, row, argv[i + 1]) < 0)
            return -1;
    }
    if (!*ret->dir) {
        fprintf(stderr, "dir: not given, on the command line or in a file (--config FILE); --help lists the settings\n");
        return -1;
    }
    default_path(ret, &ret->storage, "sr");
    default_path(ret, &ret->guests, "guests.sock");
    default_path(ret, &ret->unix_socket, "slave.sock");
    default_path(ret, &ret->certificate, "slave.crt");
    default_path(ret, &ret->key, "slave.key");
    return 0;
}

int settings_read(struct settings *ret, const char *file, int argc, char **argv)
{
    int r;

    *ret = (struct settings){.memory = arena_new()};
    r = read_all(ret, file, argc, argv);
    if (r < 0)
        settings_done(ret);
    return r;
}

void settings_done(struct settings *settings)
{
    arena_destroy(&settings->memory);
}

void settings_print_help(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        printf("  --%-18s %s%s%s%s\n", rows[i].key, rows[i].help, *rows[i].initial ? " [" : "", rows[i].initial,
               *rows[i].initial ? "]" : "");
}
