/* config.h - the master's settings: one file of `key = value` lines, each key also an option --key
 */
#pragma once

#include "shared/listeners.h"

struct config {
    const char *dir;         /* state: store, secrets, certificate; "": not given */
    struct text_list listen; /* ADDRESS:PORT, plain HTTP; port 0 chooses one */
    struct text_list listen_tls;
    const char *unix_socket;       /* "": DIR/master.sock */
    const char *certificate, *key; /* "": DIR/master.crt and DIR/master.key, made if missing */
    const char
        *root_password_file; /* "": DIR/root-password; read when there is no account root yet */
    const char *pool_secret_file; /* "": DIR/pool-secret */
    const char *pool_name;
    const char *host_uuid;    /* "": drawn at the first start */
    const char *host_name;    /* "": what the machine calls itself */
    const char *host_address; /* "": the first address listened on */
    const char *link_listen, *join_listen; /* ADDRESS:PORT; "": no slaves */
    const char *redis;                     /* "unix:PATH" or "HOST:PORT"; "": no mirror */
    const char *redis_user, *redis_password;
    const char *log_file;     /* "": stderr */
    const char *log_level;
    int64_t http_loops, bodies_mb;
    int64_t workers;
    int64_t fibers_max;
    int64_t queue_max;
    int64_t sessions_per_originator, sessions_per_user, sessions_nameless, sessions_pool;
    int64_t session_expiry_s;
    const char *backup_dir;  /* "": DIR/backups */
    int64_t backup_hours, backups_kept;
    int64_t blob_mb, blobs_mb;
    int64_t host_dead_s;
    int64_t tasks_kept;
    int64_t task_kept_s;
    int64_t migrations_per_host;

    void *memory; /* of the texts */
};

/* Defaults, then the file (NULL: none), then options in their order. Returns 0, or -1 with a
 * sentence that names what is wrong on stderr. `ret_first` is the index of the first argument that
 * is no option. */
int config_read(struct config *ret, const char *file, int argc, char **argv, int *ret_first);
void config_done(struct config *);

/* What can be known to be wrong before anything is made: nobody means to start without `dir` or
 * without a listener, or with a secret's file that was named and is not there. 0, or -1 with a
 * sentence on stderr.
 *
 * The file of the first password may be gone once there is a pool: it is read only by a pool
 * without accounts. */
int config_check(const struct config *);

/* A second reading, after SIGHUP: names each key that differs and takes effect with a restart only,
 * as a line to fn. */
void config_compare(const struct config *now, const struct config *then,
                    void (*fn)(const char *key));

/* Every key with its default and meaning, for --help. */
void config_print_help(void);
