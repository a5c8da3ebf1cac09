/* http_transfer.h - export and import over HTTP, as the master sees them (docs/transfers.md)
 *
 *   client          master                                       slave that sees the disks
 *   GET /export --> may he? which host sees all disks?
 *          <------- 302 to that host, or passed to this host's slave as it came
 *   GET /export ----------------------------------------------> parked
 *                   <---------------------------- note "transfer": who asks for what
 *                   a fiber: credentials, role, task, claim
 *                   slave_export_vm ------------------------->  200, bytes ...
 *                   claim and task end
 *
 * Whoever got the request, a slave serves it and the master decides on it, in one place: the fiber that the note begins.
 * What this file asks of a request before that only chooses the host. */
#pragma once

#include "master/call.h"
#include "master/storage.h"

struct front;
struct http_transfers;

/* The SRs that the host must see which serves a request. */
struct transfer_needs {
    ref_t srs[DISKS_MAX + 1];
    unsigned count;
};

/* Each once. */
void transfer_needs_add(struct transfer_needs *, ref_t sr);

/* A request at a slave, on its fiber. */
struct http_transfer {
    struct call *call;
    const struct transfer_kind *kind;
    ref_t host;                 /* whose slave has it */
    const char *id;             /* and names it so */
    const struct value *params; /* query and cookies, map of texts */
    int64_t length;             /* of the body; -1: not said beforehand */
    bool is_head;
    bool is_left;               /* something of it may be at work on the host: that cannot be asked, or its disk does not answer */
    int64_t bytes;              /* over the connection, as its host told last */
    bool is_client_gone;        /* before the host was told to begin */
};

struct transfer_kind {
    const char *name;   /* "VM.export" */
    const char *realm;  /* "export", and the path */
    bool is_upload;
    enum role least;
    /* In any view: what must the host see? 0, or the request's failure. */
    int (*needs)(struct call *, const struct view *, const struct value *params, struct transfer_needs *ret);
    /* On a host that sees it. 0 with the task's result in call->reply, or a failure. */
    int (*run)(struct http_transfer *);
    /* A master starts, and finds an INTENT of this name that one before has left: what it tells of is undone, or awaited. NULL:
     * this kind leaves none. */
    void (*recover)(struct txn *, const struct object *intent);
};

extern const struct transfer_kind transfer_export, transfer_import;         /* export.c import.c */
extern const struct transfer_kind transfer_export_raw, transfer_import_raw; /* raw_vdi.c */

/* From here on a client may watch the work: unless the request named a task, there is a new one. The log says who asked, and for
 * what: the description. 0, or the failure. */
int http_transfer_task(struct http_transfer *, const char *label, const char *description);

/* "VM UUID (NAME)", in the call's arena: how logs and descriptions of tasks name what is transferred. */
const char *transfer_about(struct call *, const char *class, const char *uuid, const char *name);

/* An upload of nothing that names no task: clients find out by it whether they are sent elsewhere (npm xen-api). It succeeds
 * without having done anything. */
bool http_transfer_is_probe(const struct http_transfer *);

/* What a slave call of the transfer has ended with. When it is not known how, or the task was cancelled, the slave's part
 * is ended first, so that nothing of it is at work when this returns - or is_left is set; then the disks that it may still write
 * to must be nobody else's, and are not touched here (raw_vdi_doubt.h, disks_leave). Returns r. */
int http_transfer_settle(struct http_transfer *, int r);

/* A parameter as text, or NULL; "true" and "1" are true. */
const char *transfer_param(const struct value *params, const char *name);
bool transfer_flag(const struct value *params, const char *name);
/* The object that `ref` or `uuid`, under either name, means: 0, -ERR_HANDLE_INVALID, -ERR_UUID_INVALID, or
 * -ERR_INVALID_VALUE ["ref or uuid", ""] when neither was given. Names may be the same. */
int transfer_object(struct call *, const struct view *, const struct value *params, const struct class *,
                    const char *by_ref, const char *by_uuid, const struct object **ret);

/* After the store is loaded, before the first call: what transfers had begun under an earlier master is undone, or awaited, and
 * their tasks end. Disks go when a host is there that sees them (storage_sweep). */
void http_transfers_recover(struct core *);

/* Handlers of the front, and of notes: after core->slaves is there, before the front starts. */
struct http_transfers *http_transfers_new(struct core *, struct front *);
void http_transfers_destroy(struct http_transfers **);

/* Of all hosts, since this master began. On the core's thread. */
struct http_transfers_figures {
    unsigned active;  /* requests of which hosts have told, until they have ended */
    uint64_t begun;   /* of which hosts have told */
    uint64_t failed;  /* of these, refusals and cancelled ones too */
    uint64_t refused; /* of these, because too much was under way in the pool */
    uint64_t bytes;   /* over the connections of all of them; hosts tell each second */
};
void http_transfers_figures(const struct http_transfers *, struct http_transfers_figures *ret);
