/* link.h - frames between master and slaves, as bytes: a small interface with two forms
 *
 * link_zmq.c carries frames over ZeroMQ with CURVE, in a poller thread of its own; the simulator carries them in
 * memory. What a frame means is wire.h's affair, and which frames belong together (links, sequence numbers) that of
 * slave/agent.c and master/slaves.c: a transport may lose a frame, never change one.
 *
 * A peer is named by its CURVE public key in Z85 text, 40 characters: the key that it has proven to have. So the
 * sender of a frame is the host that the key belongs to, whatever the frame says.
 *
 * Everything here happens on the loop's thread. */
#pragma once

#include "shared/base.h"

struct loop;

#define LINK_KEY_BYTES 41

/* No frame is larger. The largest are a hello with a host's guests and the directory of a large pool. */
#define LINK_FRAME_BYTES_MAX (4 * 1024 * 1024)

/* Who is told; set before the first frame can come. The bytes are good during the call. */
struct link_receiver {
    void (*frame)(void *arg, const char *key, const void *bytes, size_t count);
    /* Frames to this peer were dropped, and will be: it is not connected, or does not read. Until its next frame. */
    void (*down)(void *arg, const char *key, const char *why);
    void *arg;
    /* Connecting end; may be NULL: who listens there hangs up again and again before any frame could be said. It has
     * another key than this one. */
    void (*refused)(void *arg, const char *key);
};

struct link_transport {
    struct link_receiver receiver;
    /* False when the peer's queue is full or there is no peer; down() may also tell so later. */
    bool (*send)(struct link_transport *, const char *key, const void *bytes, size_t count);
    /* Listening end: frames of this key are let in, or no longer. */
    void (*allow)(struct link_transport *, const char *key, bool is_allowed);
    /* Connecting end: talk to this master from now on; NULL endpoint: to none. */
    void (*connect)(struct link_transport *, const char *endpoint, const char *key);
    void (*destroy)(struct link_transport **);
};

/* ---- ZeroMQ ---- */

/* A new pair of keys in Z85. */
void link_keys_new(char ret_public[LINK_KEY_BYTES], char ret_secret[LINK_KEY_BYTES]);
/* The pair that follows from a shared secret; for the socket at which new hosts present themselves. */
void link_keys_from_secret(const char *secret, char ret_public[LINK_KEY_BYTES], char ret_secret[LINK_KEY_BYTES]);
/* False when the text is no key. */
bool link_public_key(const char *secret_key, char ret_public[LINK_KEY_BYTES]);
bool link_key_is_valid(const char *key);

/* The master's end, listening at "tcp://ADDRESS:PORT" ("tcp://127.0.0.1:*" takes a free port). is_open: any key is let
 * in. NULL with *ret_error negative errno. link_zmq_endpoint: where it really listens. */
struct link_transport *link_zmq_listen(struct loop *, const char *endpoint, const char *secret_key, bool is_open,
                                       int *ret_error);
const char *link_zmq_endpoint(const struct link_transport *);

/* A slave's end. */
struct link_transport *link_zmq_connect(struct loop *, const char *secret_key);
