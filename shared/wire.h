/* wire.h - what master and slaves say to each other: frames, each a MessagePack map
 *
 *   {"t": "call", "link": 7, "seq": 12, "epoch": 3, "holder": "..", "id": "..", "name": "vm_start",
 *    "deadline_ms": 300000, "body": {"vm": "..", ...}}
 *
 * A row for each kind of frame (wire.c) says which keys it must and may have. Decoding is strict about those: a key
 * that is missing, given twice or of another type ends in -EBADMSG. Unknown keys are ignored, so that a later version may
 * add some. What frames mean together is told in docs/protocol.md:
 *
 *   slave -> master   hello    here I am, this runs here; opens the link that it names
 *                     reply    result of an operation        answer  to an ask: done, pending, never, interrupted
 *                     note     something happened here       beat    I live
 *                     refuse   your epoch, or holder, is not the one I follow
 *   master -> slave   welcome  the link stands               again   I know no such link: say hello
 *                     call     do this                       ask     what became of that
 *                     confirm  you may forget these results  ack     notes up to this one have arrived
 *                     beat     I live                        directory  the pool's hosts, their keys and addresses; and the
 *                                                              accounts that may log in there without a master
 *   enrolment         join, proof -> ;  <- challenge, joined, denied */
#pragma once

#include "shared/base.h"
#include "shared/link.h"
#include "shared/ref.h"
#include "shared/value.h"

struct arena;
struct buffer;

/* Raised when old and new could no longer talk. */
#define WIRE_VERSION 1

enum wire_type {
    WIRE_HELLO,
    WIRE_WELCOME,
    WIRE_AGAIN,
    WIRE_REFUSE,
    WIRE_BEAT,
    WIRE_CALL,
    WIRE_REPLY,
    WIRE_ASK,
    WIRE_ANSWER,
    WIRE_CONFIRM,
    WIRE_NOTE,
    WIRE_ACK,
    WIRE_DIRECTORY,
    WIRE_JOIN,
    WIRE_CHALLENGE,
    WIRE_PROOF,
    WIRE_JOINED,
    WIRE_DENIED,
    WIRE_TYPE_COUNT,
};

/* A link's number holds that of the agent's start. */
#define WIRE_LINK_START(link) ((link) >> 32)

/* One frame of any kind; what its kind does not have is zero. Texts and values point into the arena it was decoded in,
 * or to the sender's own. */
struct wire_frame {
    enum wire_type type;
    uint64_t link;            /* the slave's number of its hello: start << 32 | hello */
    uint64_t seq;             /* of the frame on this link and in this direction, from 1; on hello and welcome 0 */
    uint64_t epoch;           /* master's */
    ref_t holder;
    uint64_t generation;      /* beat of a master, hello: the newest durable one of that epoch; 0: none was told */
    ref_t id;                 /* operation */
    const char *name;         /* of the call or note */
    int64_t deadline_ms;      /* left, when it was sent */
    struct value body;        /* arguments, result, what a note tells: a map or a set; VOID: none */
    struct value accounts;    /* directory: {name: hash of the password}, all there are; VOID: as they were */
    const char *code;         /* reply, answer: error code; NULL: success */
    struct value params;      /* its details, a set of strings */
    const char *state;        /* answer: "done", "pending", "never", "interrupted" */
    uint64_t number;          /* note, ack: of the note */
    ref_t vm;                 /* note: the VM that it concerns, or null */
    uint64_t vm_epoch;
    ref_t host;               /* hello, join: who it is; welcome: the master's host */
    ref_t pool;               /* welcome, joined, hello: the pool it belongs to */
    int64_t version;          /* hello, join: WIRE_VERSION */
    struct value about;       /* hello, join: string map that describes the host */
    struct value guests;      /* hello: set of maps, what runs */
    struct value operations;  /* hello: unconfirmed operations; confirm: those to forget: set of ids */
    const char *key;          /* challenge, joined: the master's public key; hello: of the master that had the epoch */
    const char *nonce;        /* join, challenge */
    const char *proof;        /* proof, joined */
    const char *endpoint;     /* joined: where the master listens */
    const char *address;      /* welcome: of the master's host, for clients of the API */
    const char *text;         /* denied, refuse, again: for people */
};

/* The name on the wire: "hello". */
const char *wire_type_name(enum wire_type type);

/* Appends the frame. What its kind must have is asserted to be there. */
void wire_encode(const struct wire_frame *frame, struct buffer *out);

/* Returns 0 or -EBADMSG. Bytes may be anything. */
int wire_decode(const void *bytes, size_t count, struct arena *arena, struct wire_frame *ret);

/* ---- enrolment ---- */

#define WIRE_NONCE_BYTES 33 /* 16 bytes in hex */
#define WIRE_PROOF_BYTES 65 /* HMAC-SHA256 in hex */

struct random;
void wire_nonce(struct random *random, char ret_nonce[WIRE_NONCE_BYTES]);

/* What one who knows the secret says about both keys and both nonces; by whom: "slave" or "master". */
void wire_proof(const char *secret, const char *by, const char *slave_key, const char *master_key,
                const char *slave_nonce, const char *master_nonce, char ret_proof[WIRE_PROOF_BYTES]);

/* Equal? In a time that does not depend on where they differ. */
bool wire_same_secret(const char *a, const char *b);
