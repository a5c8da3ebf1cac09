/* guest_link.h - the connection between the agent's driver (hypervisor_sim.c) and drover-guests.
 *
 * A unix stream socket carries messages: four bytes of length, big-endian, then a MessagePack map
 * whose keys are texts. The key "word" says what the message is; keys that a reader does not know
 * are ignored, so agent and guests process may be of different versions, as they are while an agent
 * is upgraded under its guests. A message may carry one descriptor (SCM_RIGHTS), which travels with
 * the first byte of its length.
 *
 *   driver -> guests   hello, or a function of the driver table by its name, with its operation's
 *                      number "op"
 *   guests -> driver   hello (instance), a guest for each, listed;  then whenever it happens:
 *                      guest, gone, changed, samples, progress, done
 *
 * Errors travel as their codes' texts, since the numbers of ERR_ constants are those of one build
 * only. */
#pragma once

#include <msgpack.h>

#include "shared/base.h"
#include "shared/loop.h"
#include "shared/ref.h"
#include "slave/hypervisor.h"

/* The largest message: paths and options of a guest stay far below; 500 samples need 40 KiB. */
#define GUEST_MESSAGE_BYTES_MAX (1024 * 1024)

struct guest_link;

/* --- messages being written --- */

struct guest_frame {
    msgpack_sbuffer bytes;
    msgpack_packer packer;
    uint32_t pairs;
    int fd; /* travels with it; -1: none */
};

/* guest_frame_begin(&frame, "hello"); guest_frame_text(&frame, ...); guest_link_send(link, &frame);
 * nothing is left to free then. */
void guest_frame_begin(struct guest_frame *frame, const char *word);
void guest_frame_text(struct guest_frame *frame, const char *key,
                      const char *text); /* nothing when text is NULL */
void guest_frame_uint(struct guest_frame *frame, const char *key, uint64_t number);
void guest_frame_int(struct guest_frame *frame, const char *key, int64_t number);
void guest_frame_double(struct guest_frame *frame, const char *key, double number);
void guest_frame_uuid(struct guest_frame *frame, const char *key, ref_t uuid);
void guest_frame_fd(struct guest_frame *frame, int fd); /* the frame owns fd from now on */
msgpack_packer *guest_frame_key(struct guest_frame *frame,
                                const char *key); /* the caller packs the value */
void guest_frame_done(struct guest_frame *frame);

/* --- messages being read: valid until the callback returns --- */

struct guest_message {
    const msgpack_object_map *map;
    msgpack_zone *zone;
    struct guest_link *link;
};

/* These return `otherwise` (or false) when the key is missing or its value is of another type.
 * Texts end with NUL; one that has a NUL inside counts as missing. */
const char *guest_message_text(const struct guest_message *message, const char *key,
                               const char *otherwise);
uint64_t guest_message_uint(const struct guest_message *message, const char *key,
                            uint64_t otherwise);
int64_t guest_message_int(const struct guest_message *message, const char *key, int64_t otherwise);
double guest_message_double(const struct guest_message *message, const char *key, double otherwise);
bool guest_message_uuid(const struct guest_message *message, const char *key, ref_t *ret);
const msgpack_object *guest_message_find(const struct guest_message *message, const char *key);
/* The descriptor that came with the message, the caller's from now on; -1: none came. */
int guest_message_take_fd(const struct guest_message *message);

/* --- the connection --- */

struct guest_link_events {
    void (*message)(void *arg, const char *word, const struct guest_message *message);
    /* The connection has ended: by the peer, by garbage, or because it does not read (`why` says
     * it). Called from the loop, never from within another call; the owner destroys the link here
     * or later. */
    void (*closed)(void *arg, const char *why);
    void *arg;
};

/* Owns fd, a connected unix stream socket. `queue_bytes_max`: the link ends when the peer leaves
 * more unread. */
struct guest_link *guest_link_new(struct loop *loop, int fd, size_t queue_bytes_max,
                                  const struct guest_link_events *events);

/* Messages not yet sent are dropped. Not from within the link's message callback. */
void guest_link_destroy(struct guest_link **link_p);

/* Queue the frame, which is empty afterwards; on its way before the loop sleeps. On a broken link
 * it is dropped. */
void guest_link_send(struct guest_link *link, struct guest_frame *frame);

/* End it: closed() follows. */
void guest_link_fail(struct guest_link *link, const char *why);

/* Write what can be written now: for a process that is about to exit. */
void guest_link_flush(struct guest_link *link);

size_t guest_link_queued_bytes(const struct guest_link *link);

/* Is the peer of our user, or root? Its pid in *ret_pid, 0 from another pid namespace. */
bool guest_link_peer_is_trusted(int fd, pid_t *ret_pid);

/* --- names for numbers --- */

const char *guest_state_name(enum guest_state state);
const char *guest_change_name(enum guest_change change);
const char *guest_error_name(int code); /* "VM_BAD_POWER_STATE"; code positive or negative */
int guest_state_of(const char *name);   /* -1 for a name we do not know; the next too */
int guest_change_of(const char *name);
int guest_error_code(const char *name); /* negative; INTERNAL_ERROR for names we do not know */
