/* ledger.h - the little that a slave must not forget: whom it follows, which right each VM had here, what it was told to do
 *
 *   meta   host, curve_secret, epoch, holder, pool, master, accounts (accounts.h), ..., as texts
 *   vm     per VM the highest epoch seen and how far it got; also after the VM is gone
 *   op     each operation id: written before its effect, with its outcome after it, until the master confirms; and the
 *          ids that were voided: asked for before they had begun
 *   peer   the directory: each host's key and address
 *
 * Everything is in memory, too, so reading never waits. Writing changes memory at once and the file at the next
 * ledger_sync(), which a fiber calls before it says or does anything that rests on it; the file's thread writes what many
 * fibers wait for in one transaction. A ledger that cannot be written ends the agent: its guests run on, and an agent
 * that cannot keep its word had better give none. (design.md section 5) */
#pragma once

#include "shared/base.h"
#include "shared/ref.h"

struct completion;
struct ledger;
struct loop;

/* ---- where the rows are kept ---- */

struct ledger_row {
    const char *kind;   /* "meta", "vm", "op", "peer": a literal */
    char key[64];
    void *bytes;        /* NULL: the row goes */
    size_t count;
};

struct ledger_store {
    /* Tell all rows, before the first write. 0, or -EBADMSG, -EIO with a line in the log. */
    int (*load)(struct ledger_store *, void (*row)(void *arg, const struct ledger_row *), void *arg);
    /* Keep these rows, in order; they are the store's now, an array from alloc_array(). Then the completion is posted:
     * 0, or a negative errno. */
    void (*write)(struct ledger_store *, struct ledger_row *rows, size_t count, struct completion *done);
    void (*destroy)(struct ledger_store **);
};

/* A file; `vfs` is SQLite's name of a file layer, NULL its own. NULL with *ret_error: -EBUSY when another agent holds it,
 * -EPROTO when a newer version wrote it. */
struct ledger_store *ledger_sqlite_open(const char *path, const char *vfs, int *ret_error);

/* In memory, for tests and the simulator: `disk` outlives agents. Writes reach it after sync_ms of the loop's clock; those
 * that have not when the store is destroyed are lost, as in a crash. */
struct ledger_disk {
    struct ledger_row *rows;
    size_t count;
    uint64_t sync_ms;
    int error;          /* not 0: what writes answer */
    uint64_t syncs;
};
struct ledger_store *ledger_memory_open(struct ledger_disk *, struct loop *);
void ledger_disk_done(struct ledger_disk *);

/* ---- the ledger ---- */

/* Takes the store. NULL, and *ret_error, when it cannot be loaded. */
struct ledger *ledger_new(struct loop *, struct ledger_store *, int *ret_error);
void ledger_destroy(struct ledger **);

/* From a fiber: everything put so far is safe when this returns. Not ended by cancel. */
void ledger_sync(struct ledger *);

const char *ledger_meta(const struct ledger *, const char *key, const char *otherwise);
void ledger_put_meta(struct ledger *, const char *key, const char *text);
uint64_t ledger_meta_number(const struct ledger *, const char *key);
void ledger_put_meta_number(struct ledger *, const char *key, uint64_t number);

/* May this master order? A lower epoch never, the highest seen only for the holder that came with it. */
bool ledger_may_follow(const struct ledger *, uint64_t epoch, ref_t holder);
/* From now on nobody lower. Synced before anything is done for it. */
void ledger_follow(struct ledger *, uint64_t epoch, ref_t holder);
uint64_t ledger_epoch(const struct ledger *);
ref_t ledger_holder(const struct ledger *);

/* ---- VMs ---- */

enum vm_progress {
    VM_NONE,
    VM_RECEIVING,       /* a copy arrives, or has arrived; it has no right to run */
    VM_ABORTED,         /* that copy was dropped; nothing ran at this epoch */
    VM_STARTING,
    VM_RAN,             /* runs, is paused, or was about to run: written before it may */
    VM_PAUSED_FOR_MOVE, /* sent; runs again only by the master's word */
    VM_ENDED,           /* never again at this epoch */
    VM_PROGRESS_COUNT,
};

#define LEDGER_MOVE_BYTES   64
#define LEDGER_CHANGE_BYTES 16

struct ledger_vm {
    ref_t vm;
    uint64_t epoch;                      /* the highest that this host has seen */
    enum vm_progress progress;           /* at that epoch */
    int64_t domid;
    char move[LEDGER_MOVE_BYTES];        /* the move that it is receiving, sending or was sent by; "" */
    char aborted[LEDGER_MOVE_BYTES];     /* the last move that was called off here: never begun again */
    char change[LEDGER_CHANGE_BYTES];    /* how its guest ended by itself, as the note "guest" names it; "": it did not */
    ref_t reboot;                        /* operation of the last reboot that got so far as to start anew */
    char *disks;                         /* paths of its writable disks, each with a newline; owned by the ledger */
};

const char *vm_progress_text(enum vm_progress);

/* NULL when the VM was never here. Good until the next put of it. */
const struct ledger_vm *ledger_vm(const struct ledger *, ref_t vm);
/* Copies, disks included (NULL: as they were). */
void ledger_put_vm(struct ledger *, const struct ledger_vm *);
/* for (size_t at = 0; (vm = ledger_each_vm(ledger, &at));) */
const struct ledger_vm *ledger_each_vm(const struct ledger *, size_t *at);

/* ---- operations ---- */

enum op_state { OP_BEGUN, OP_DONE, OP_VOID };

struct ledger_op {
    ref_t id;
    char name[32];
    enum op_state state;
    void *outcome;          /* DONE: as packed by the agent */
    size_t outcome_bytes;
};

const struct ledger_op *ledger_op(const struct ledger *, ref_t id);
void ledger_op_begin(struct ledger *, ref_t id, const char *name);
void ledger_op_end(struct ledger *, ref_t id, const void *outcome, size_t bytes);
void ledger_op_void(struct ledger *, ref_t id);
void ledger_op_forget(struct ledger *, ref_t id);
const struct ledger_op *ledger_each_op(const struct ledger *, size_t *at);
size_t ledger_op_count(const struct ledger *);

/* ---- the directory ---- */

/* The whole of it, as {host uuid: "key address"}; one row changes only when its text does. */
const char *ledger_peer(const struct ledger *, const char *host);
void ledger_put_peer(struct ledger *, const char *host, const char *text);

/* A number for a new guest on this host, above all before. */
int64_t ledger_next_domid(struct ledger *);
