/* start.h - from files to a store that may be written: whose pool this is, what the disk and the
 * mirror hold, a new epoch */
#pragma once

#include "master/config.h"
#include "master/core.h"
#include "master/journal.h"
#include "master/store.h"

#define EPOCHS_KEPT 64

struct mirror;

/* What start_store() makes beside the store; end_store() ends it. */
struct store_parts {
    /* Epochs known here, newest first; event tokens of older ones make their readers read everything anew. */
    struct epoch_entry epochs[EPOCHS_KEPT];
    size_t epoch_count;
    struct journal *journal;    /* NULL: the disk refuses writes (core->read_only_why) */
    struct journal_config journal_config;
    char *directory;            /* of the store */
    struct mirror *mirror;      /* NULL: no Redis is configured */
    ref_t pool_uuid, host_uuid; /* as the role file says */
    uint64_t generation;        /* the newest that was known at the start */
    const char *may_lack;       /* the store may be an old copy, for this reason; NULL: no sign of it */
    struct core *core;
    void (*failed)(
        void *arg); /* the disk failed: the outcome of what was not acknowledged is unknown */
    void *failed_arg;
};

/* Reads (at the first start: makes) the role file, opens the journal, looks into the mirror, fills
 * core->store, claims an epoch above all known ones and starts journal and mirror. Sets
 * core->store, epoch and holder. Where the disk refuses writes: core->read_only_why is set, and there is only the store.
 * Outside of fibers. 0, or -1 with sentences in the log. */
int start_store(struct core *, const struct config *, struct store_parts *);

/* What is written from now on says by itself that the store may lack something: a new start need not be told. */
void start_is_told(const struct config *);

/* The hosts follow this epoch, which the store has forgotten: the next start claims one above it. With the store ended. 0, or
 * -1 with a sentence in the log. */
struct slaves_known;
int start_learn(const struct config *, const struct store_parts *, const struct slaves_known *);

/* After the last transaction: writes what is queued. The store itself is the caller's. */
void end_store(struct store_parts *);
