/* slaves_internal.h - among slaves.c, slave_call.c, slave_notes.c, slave_hello.c and slave_join.c */
#pragma once

#include <pthread.h>

#include "master/core.h"
#include "master/put.h"
#include "master/slaves.h"
#include "master/store.h"
#include "shared/clock.h"
#include "shared/crash.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "shared/refmap.h"
#include "shared/wire.h"

#define NOTE_HANDLERS_MAX 16
#define HOOKS_MAX         8

struct pending_note;

/* A host of the pool that has a key. */
struct peer {
    struct slaves *slaves;
    ref_t host;
    char uuid[UUID_TEXT_BYTES];
    char key[LINK_KEY_BYTES];
    bool is_linked;
    bool is_gone;                /* given up: calls fail at once until it says hello */
    bool has_followed;           /* likewise one as one that follows us */
    bool follows_us;             /* so it said in its last hello */
    uint64_t asked_ms;           /* last time it was asked for a hello that says so */
    uint64_t refused_epoch;      /* the last one that was told to people, which it follows instead */
    bool is_declared_dead;       /* since its last hello */
    void *hello;                 /* kept until the opening is over; NULL: none */
    size_t hello_bytes;
    bool is_forgotten;           /* no host of the pool any more; freed when no fiber uses it */
    uint64_t link;               /* the slave's number; 0: none yet */
    uint64_t sent, taken;        /* numbers of frames on this link */
    uint64_t heard_ms;
    uint64_t again_ms;           /* last time it was told that we do not know its link */
    unsigned users;              /* fibers that hold the pointer across a wait */
    struct waitq changed;        /* linked, or given up */
    struct refmap requests;      /* operation -> struct request: calls under way */
    struct refmap askings;       /* operation -> struct asking */

    struct pending_note *notes, **notes_end; /* taken, not yet handled */
    uint64_t note_taken;         /* number of the newest */
    bool is_noting;              /* a fiber handles them */

    bool is_greeting;            /* a fiber works on a hello */
    struct waitq greeted;
};

struct note_handler {
    const char *name;
    void (*fn)(struct core *, const struct slave_note *);
};

struct slaves {
    struct core *core;
    struct slaves_config config;
    struct link_transport *transport;
    struct link_transport nowhere; /* instead, of a master that listens for no slaves */
    struct refmap peers;         /* host -> struct peer */
    struct refmap keys;          /* first half of the key -> struct peer */
    struct store_listener listener;
    uint64_t seen_generation;    /* of the store, whose hosts have been looked at */
    struct timer beat_timer;
    struct opening {
        struct timer timer;
        bool is_over;            /* somebody may be welcomed, or has been */
        bool has_waited;         /* who has not said hello by now is away */
        bool is_beginning_anew;  /* above what the hosts follow: nobody is welcomed any more */
    } opening;
    struct note_handler note_handlers[NOTE_HANDLERS_MAX];
    size_t note_handler_count;
    void (*hello_hooks[HOOKS_MAX])(struct core *, ref_t, const struct slave_guest *, size_t);
    size_t hello_hook_count;
    void (*live_hooks[HOOKS_MAX])(struct core *, ref_t, bool);
    size_t live_hook_count;
    struct slave_join *join;
    struct slaves_figures figures;
    pthread_mutex_t own_lock;    /* HTTP loops read what follows */
    char own_socket[SLAVE_SOCKET_BYTES];
};

/* slaves.c */
struct peer *slaves_peer(const struct slaves *, ref_t host);
void peer_hold(struct peer *);
void peer_release(struct peer *);
/* The next frame of the link; false when there is none. */
bool peer_send(struct peer *, struct wire_frame *);
/* As if the frame had been lost on its way: the other end will notice. */
void peer_lose(struct peer *);
/* What is told to, and found out by, fibers when the link is new or the host was given up. */
void slave_calls_relinked(struct peer *);
void slave_calls_gone(struct peer *);

/* Does the host follow us? And if not, somebody whom we may not take it from? */
bool hello_is_ours(const struct peer *, const struct wire_frame *);
bool hello_is_above(const struct peer *, const struct wire_frame *);
/* Is it the host whose key brought it, of this pool and our version? Logs what it is else. */
bool hello_makes_sense(struct peer *, const struct wire_frame *);
/* Welcome it, or not. */
void hello_take(struct peer *, const struct wire_frame *);

/* slave_opening.c */
void opening_start(struct slaves *);
/* Keeps the hello for later, or for nobody when the master begins anew; false when the opening is over. */
bool opening_keeps(struct peer *, const void *bytes, size_t count);
/* A hello that follows an epoch above ours. True: it was ours, and this master begins anew above it. */
bool opening_meets(struct peer *, const struct wire_frame *);
/* Somebody need not be waited for any more. */
void opening_judge(struct slaves *);

/* slave_call.c */
void slave_call_reply(struct peer *, const struct wire_frame *);
void slave_call_answer(struct peer *, const struct wire_frame *);
bool slave_call_is_under_way(const struct peer *, ref_t operation);

/* slave_failure.c: the failure of the call, as a slave has told it, names things as clients know them. */
void slave_failure_name(struct call *);

/* slave_notes.c */
void slave_note_take(struct peer *, const struct wire_frame *);
void slave_notes_drop(struct peer *);

/* slave_hello.c */
void slave_hello_greet(struct peer *, const struct wire_frame *);

/* slave_join.c */
struct slave_join *slave_join_new(struct slaves *, struct link_transport *);
void slave_join_destroy(struct slave_join **);
