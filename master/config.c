/* config.c - the master's settings
 *
 * One table row per key says its type, default and meaning; reading, --help and comparing go by the
 * rows. */
#include "master/config.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <unistd.h>

#include "shared/arena.h"

enum setting_kind { SETTING_TEXT, SETTING_NUMBER, SETTING_LIST };

struct setting {
    const char *key;
    enum setting_kind kind;
    size_t offset;
    const char *initial;
    int64_t least, most;
    bool is_live; /* taken over by SIGHUP */
    const char *help;
};

#define TEXT(key, initial, is_live, help)                                              \
    {                                                                                  \
#key, SETTING_TEXT, offsetof(struct config, key), initial, 0, 0, is_live, help \
    }
#define NUMBER(key, initial, least, most, help)                                               \
    {                                                                                         \
#key, SETTING_NUMBER, offsetof(struct config, key), initial, least, most, false, help \
    }
#define LIST(key, initial, help)                                                     \
    {                                                                                \
#key, SETTING_LIST, offsetof(struct config, key), initial, 0, 0, false, help \
    }

static const struct setting settings[] = {
    TEXT(dir, "", false, "directory of the master's state; must be given"),
    LIST(listen, "", "ADDRESS:PORT for plain HTTP, repeatable; port 0 takes a free one"),
    LIST(listen_tls, "", "ADDRESS:PORT for HTTPS, repeatable"),
    TEXT(unix_socket, "", false, "local socket, whose root needs no password (DIR/master.sock)"),
    TEXT(certificate, "", true,
         "certificate for HTTPS (DIR/master.crt, made if missing); reloaded on SIGHUP"),
    TEXT(key, "", true, "its key (DIR/master.key)"),
    TEXT(root_password_file, "", false,
         "the first password of root (DIR/root-password, drawn if missing)"),
    TEXT(pool_secret_file, "", false,
         "what hosts of the pool prove themselves with (DIR/pool-secret, drawn if missing)"),
    TEXT(pool_name, "", false, "name of a new pool"),
    TEXT(host_uuid, "", false, "uuid of the master's host in a new pool (drawn)"),
    TEXT(host_name, "", false, "name of the master's host (as the machine calls itself)"),
    TEXT(host_address, "", false, "address of the master's host (the first one listened on)"),
    TEXT(link_listen, "", false, "ADDRESS:PORT where the hosts' agents connect"),
    TEXT(join_listen, "", false, "ADDRESS:PORT where new hosts present the pool secret"),
    TEXT(redis, "", false, "Redis for the mirror: HOST:PORT or unix:PATH"),
    TEXT(redis_user, "", false, "its ACL user"),
    TEXT(redis_password, "", false, "and password"),
    TEXT(log_file, "", true, "log to this file (standard error); reopened on SIGHUP"),
    TEXT(log_level, "info", true, "debug, info, warning or error"),
    NUMBER(http_loops, "2", 1, 64, "threads that serve HTTP"),
    NUMBER(bodies_mb, "64", 16, 1048576, "MiB that calls being read may hold; more are answered 503"),
    NUMBER(workers, "4", 1, 256, "threads for what blocks: passwords, files"),
    NUMBER(fibers_max, "4096", 16, 65536, "calls and tasks at work at once"),
    NUMBER(queue_max, "20000", 1, 1000000, "calls that wait for their turn, and as many tasks"),
    NUMBER(sessions_per_originator, "500", 1, 100000, "sessions of root with one originator"),
    NUMBER(sessions_per_user, "500", 1, 100000, "sessions of one other user"),
    NUMBER(sessions_nameless, "400", 1, 100000, "sessions of root without originator"),
    NUMBER(sessions_pool, "400", 1, 100000, "sessions of hosts"),
    NUMBER(session_expiry_s, "86400", 60, 31536000, "an unused session ends after"),
    TEXT(backup_dir, "", false, "directory of the copies of the store (DIR/backups)"),
    NUMBER(backup_hours, "24", 1, 8760, "a copy of the store is made each so many hours"),
    NUMBER(backups_kept, "7", 1, 1000, "copies of the store that are kept"),
    NUMBER(blob_mb, "64", 1, 1048576, "MiB that one blob may hold"),
    NUMBER(blobs_mb, "1024", 1, 1048576, "MiB that all blobs may hold"),
    NUMBER(host_dead_s, "10", 2, 3600, "a host that is silent so long is taken for dead"),
    NUMBER(tasks_kept, "20000", 0, 1000000, "tasks kept that finished over five minutes ago"),
    NUMBER(task_kept_s, "3900", 300, 31536000, "a finished task goes after"),
    NUMBER(migrations_per_host, "2", 1, 1000, "VMs that a host sends, and receives, at a time"),
};

static const struct setting *find(const char *key, size_t length)
{
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        const char *p = settings[i].key;
        size_t n = 0;

        while (n < length && p[n] && (p[n] == key[n] || (p[n] == '_' && key[n] == '-')))
            n++;
        if (n == length && !p[n])
            return &settings[i];
    }
    return NULL;
}

static int put_number(const struct setting *setting, const char *value, int64_t *ret)
{
    char *end;

    errno = 0;
    *ret = strtoll(value, &end, 10);
    if (errno || end == value || *end || *ret < setting->least || *ret > setting->most) {
        fprintf(stderr, "%s: '%s' is no number from %lld to %lld\n", setting->key, value,
                (long long) setting->least, (long long) setting->most);
        return -1;
    }
    return 0;
}

static int put(struct config *config, const struct setting *setting, const char *value)
{
    void *at = (char *) config + setting->offset;
    struct text_list *list = at;

    switch (setting->kind) {
    case SETTING_NUMBER:
        return put_number(setting, value, at);
    case SETTING_TEXT:
        *(const char **) at = arena_strdup(config->memory, value);
        return 0;
    case SETTING_LIST:
        if (list->count == TEXT_LIST_MAX) {
            fprintf(stderr, "%s: more than %d\n", setting->key, TEXT_LIST_MAX);
            return -1;
        }
        list->items[list->count++] = arena_strdup(config->memory, value);
        return 0;
    }
    return -1;
}

/* inih stops at the first 0. */
static int file_line(void *arg, const char *section, const char *key, const char *value)
{
    struct config *config = arg;
    const struct setting *setting = find(key, strlen(key));

    if (*section) {
        fprintf(stderr, "[%s]: the file has no sections\n", section);
        return 0;
    }
    if (!setting) {
        fprintf(stderr, "%s: no such setting; --help lists them\n", key);
        return 0;
    }
    return put(config, setting, value) == 0;
}

static int read_options(struct config *config, int argc, char **argv, int *ret_first)
{
    int i;

    for (i = 1; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        const char *name = argv[i] + 2, *value = strchr(name, '=');
        const struct setting *setting = find(name, value ? (size_t) (value - name) : strlen(name));

        if (!setting) {
            fprintf(stderr, "%s: no such option; --help lists them\n", argv[i]);
            return -1;
        }
        if (!value && i + 1 == argc) {
            fprintf(stderr, "%s: a value is missing\n", argv[i]);
            return -1;
        }
        if (put(config, setting, value ? value + 1 : argv[++i]) < 0)
            return -1;
    }
    *ret_first = i;
    return 0;
}

static int read_all(struct config *ret, const char *file, int argc, char **argv, int *ret_first)
{
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
        if (settings[i].kind != SETTING_LIST)
            put(ret, &settings[i], settings[i].initial);
    if (file) {
        int r = ini_parse(file, file_line, ret);

        if (r != 0) {
            if (r > 0)
                fprintf(stderr, "%s: line %d cannot be used\n", file, r);
            else
                fprintf(stderr, "%s: cannot be read\n", file);
            return -1;
        }
    }
    return read_options(ret, argc, argv, ret_first);
}

int config_read(struct config *ret, const char *file, int argc, char **argv, int *ret_first)
{
    int r;

    *ret = (struct config){.memory = arena_new()};
    r = read_all(ret, file, argc, argv, ret_first);
    if (r < 0)
        config_done(ret);
    return r;
}

void config_done(struct config *config)
{
    arena_destroy((struct arena **) &config->memory);
}

static int check_file(const char *key, const char *path)
{
    if (!*path || access(path, R_OK) == 0)
        return 0;
    fprintf(stderr, "%s: %s: %s\n", key, path, strerror(errno));
    return -1;
}

int config_check(const struct config *config)
{
    char role[4096];

    if (!*config->dir) {
        fprintf(stderr, "dir: not given, on the command line or in a file (--config FILE); --help "
                        "lists the settings\n");
        return -1;
    }
    if (config->listen.count + config->listen_tls.count == 0 && !*config->unix_socket) {
        fprintf(stderr, "listen: there is no listener: give listen, listen_tls or unix_socket; "
                        "--help lists the settings\n");
        return -1;
    }
    snprintf(role, sizeof role, "%s/role", config->dir);
    if (access(role, F_OK) < 0 && check_file("root_password_file", config->root_password_file) < 0)
        return -1;
    return check_file("pool_secret_file", config->pool_secret_file);
}

static bool equal(const struct setting *setting, const struct config *a, const struct config *b)
{
    const void *x = (const char *) a + setting->offset, *y = (const char *) b + setting->offset;
    const struct text_list *list = x, *other = y;

    switch (setting->kind) {
    case SETTING_NUMBER:
        return *(const int64_t *) x == *(const int64_t *) y;
    case SETTING_TEXT:
        return streq(*(const char *const *) x, *(const char *const *) y);
    case SETTING_LIST:
        break;
    }
    for (unsigned i = 0; i < list->count && i < other->count; i++)
        if (!streq(list->items[i], other->items[i]))
            return false;
    return list->count == other->count;
}

void config_compare(const struct config *now, const struct config *then,
                    void (*fn)(const char *key))
{
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
        if (!settings[i].is_live && !equal(&settings[i], now, then))
            fn(settings[i].key);
}

void config_print_help(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        printf("  --%-26s %s", settings[i].key, settings[i].help);
        if (*settings[i].initial)
            printf(" [%s]", settings[i].initial);
        printf("\n");
    }
}
