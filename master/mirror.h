/* mirror.h - the copy of the pool in Redis: redo log, current records, and who holds the epoch
 *
 *   core: append() of each generation --> queue --+
 *                                                 +--> mirror thread --> Redis, by one Lua script
 *   store: newest visible generation, pinned -----+
 *
 * SQLite decides, Redis follows (mode `local`): only generations that are visible, and so durable
 * here, are written. The thread keeps the mirror in step by itself. Redis refuses what does not
 * follow the generation it has; then, or when more was missed than the queue holds, the whole model
 * is written anew under a new incarnation id. docs/redis.md describes the keys for other programs.
 * (design.md section 4, "Redis" and "Modes") */
#pragma once

#include "master/store.h"

struct loop;

struct mirror;

struct mirror_config {
    const char *address;  /* "unix:/path" or "host:port" */
    const char *user;     /* NULL: Redis without ACL users */
    const char *password; /* NULL: none */
    ref_t pool;           /* uuid of the pool; part of every key */
    const uint8_t
        *secret_key; /* SECRET_KEY_BYTES; NULL: SECRET-marked fields are left out of the mirror */
    int queue_bytes_max; /* 0: 64 MiB */
    int log_entries;     /* redo entries kept; 0: 100,000 */
};

enum mirror_state {
    MIRROR_AWAY, /* Redis does not answer, or has not yet */
    MIRROR_CATCHING_UP,
    MIRROR_IN_STEP,
    MIRROR_SUPERSEDED, /* Redis knows a higher epoch: another master has taken over */
};

struct mirror_figures {
    enum mirror_state state;
    uint64_t generation; /* that Redis has, as far as we know */
    uint64_t waiting;    /* generations not yet there */
    uint64_t state_since_ms;
    uint64_t incarnations; /* times the whole model was written anew */
};

/* Called on the core's loop when the state changes, with a sentence for the operator. */
typedef void (*mirror_told)(void *arg, enum mirror_state, const char *text);

/* What Redis says of a pool before a master starts. */
struct mirror_head {
    uint64_t epoch, generation; /* 0: nothing there */
    char incarnation[UUID_TEXT_BYTES];
};

/* 0, or -errno with a sentence in `text`. A Redis without this pool is 0 with an empty head. */
int mirror_peek(const struct mirror_config *, struct mirror_head *ret, char *text,
                size_t text_bytes);

/* Fill an empty store from Redis, after claiming the epoch there, so that no other master writes
 * meanwhile. Counts the objects. Records that cannot be read are named in the text and end the
 * load: -EBADMSG. */
int mirror_load(const struct mirror_config *, uint64_t epoch, ref_t holder, struct store *,
                size_t *ret_objects, char *text, size_t text_bytes);

/* Starts the thread; `mirrored` is the store's newest durable generation at this moment. Strings
 * are copied. */
struct mirror *mirror_new(const struct mirror_config *, struct store *, struct loop *,
                          uint64_t epoch, ref_t holder, uint64_t mirrored, mirror_told, void *arg);
/* Tries for at most `wait_ms` to write what is queued, then ends the thread. No transaction may
 * follow: the store keeps the sink. */
void mirror_destroy(struct mirror **, uint64_t wait_ms);
struct store_sink *mirror_sink(struct mirror *);
void mirror_figures(struct mirror *, struct mirror_figures *ret);
