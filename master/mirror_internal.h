/* mirror_internal.h - what mirror.c (queue, thread) and mirror_write.c (records, script calls)
 * share */
#pragma once

#include "master/mirror.h"

#include "master/mirror_redis.h"
#include "master/secret.h"

#include <pthread.h>

struct buffer;

#define RECORD_BYTES_MAX (16 << 20)

/* The redo entry of one durable generation, waiting. */
struct entry {
    struct entry *next;
    uint64_t generation, follows;
    char *bytes;
    size_t length;
    int touched_count;
    struct touched {
        const struct class *class;
        ref_t ref;
    } touched[];
};

struct mirror {
    struct store_sink sink;
    struct store_listener listener;
    struct mirror_config config; /* texts are ours */
    uint8_t secret_key[SECRET_KEY_BYTES];
    struct store *store;
    struct loop *loop;
    uint64_t epoch;
    ref_t holder;
    mirror_told told;
    void *told_arg;
    pthread_t thread;

    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t wake;
    struct entry *first, **last;
    size_t queue_bytes;
    uint64_t before;     /* newest durable generation that is no longer in the queue */
    uint64_t stop_at_ms; /* 0: run on */
    struct mirror_figures figures;

    /* the thread's own */
    struct mirror_redis *redis;
    bool must_write_anew;
    char text[512]; /* why the last step failed */
};

/* The changes as they go to Redis: texts of SECRET fields sealed, or left out without a key. */
void mirror_encode(const struct mirror *, const struct changes *, struct arena *,
                   struct buffer *out);

/* A verb of the script. 0 with Redis' answer; -EIO, the connection is of no use any more; -ESTALE,
 * another epoch. */
int mirror_verb(struct mirror *, const char *name, const struct mirror_args *,
                struct mirror_answer *ret);

/* Append the entries, which all are in the view, and put the records they touch. Sets
 * must_write_anew when Redis has not what they follow. */
int mirror_write_entries(struct mirror *, const struct entry *first, const struct view *);

/* Write the view's whole model under a new incarnation; `generation` is the newest durable one in
 * it. */
int mirror_write_model(struct mirror *, const struct view *, uint64_t generation);

/* What Redis has, for the figures. */
void mirror_has_generation(struct mirror *, uint64_t generation);
