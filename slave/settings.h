/* settings.h - the agent's settings: one file of `key = value` lines, each key also an option --key VALUE */
#pragma once

#include "shared/listeners.h"

struct arena;

struct settings {
    struct text_list listen, listen_tls;
    const char *certificate, *key, *unix_socket;
    const char *dir, *host, *name, *address, *storage, *hypervisor, *guests, *join, *pool_secret_file;
    const char *log_file, *log_level;
    int64_t memory_mib, cpus, workers, fibers_max, http_loops, bodies_mb, transfers, transfer_requests, transfer_kib_per_s;
    struct arena *memory; /* of the texts */
};

/* Defaults, then the file (NULL: none), then options. 0, or -1 with a sentence on stderr. */
int settings_read(struct settings *ret, const char *file, int argc, char **argv);
void settings_done(struct settings *);
void settings_print_help(void);
