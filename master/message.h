/* message.h - what the pool tells its operators: message objects, an ordinary durable class */
#pragma once

#include "master/store.h"

struct core;

/* wire.md section 11: 1 is worst. */
enum {
    MESSAGE_VM_CRASHED_PRIORITY = 2,
    MESSAGE_HOST_PRIORITY = 3,
    MESSAGE_VM_PRIORITY = 5,
};

/* A new message, in the caller's transaction. The number of messages is bounded: the oldest makes
 * place. */
ref_t message_raise(struct txn *, struct core *, const char *name, int64_t priority, enum cls,
                    const char *obj_uuid, const char *body);

/* The usual sentence about a VM: "VM 'web' <what> on host 'h1'"; null host: without it. */
void message_about_vm(struct txn *, struct core *, const char *name, int64_t priority, ref_t vm,
                      ref_t host, const char *what);
