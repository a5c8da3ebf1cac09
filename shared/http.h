/* http.h - an HTTP/1.0 and 1.1 server: limits, deadlines, parked requests, streams, tunnels
 *
 * A server has a few loops, each a thread with an event base and its own listening sockets. A
 * connection belongs to the loop that accepted it, and so does its request: every function that
 * takes a struct http_request is called on that loop, and the pointer is good until the request is
 * answered. Other threads hold a ticket and post what is to be done:
 *
 *      loop:  handle(request) -> http_read_body() -> body(request, text)
 *                                                      ticket = http_park(request)   -> core thread
 *      loop:  answer(request) <- mailbox <- http_ticket_post(ticket, answer, arg)    <- core thread
 *               http_reply(request, ...)
 *
 * handle() is told of each complete head, the body not yet read, and ends in one of these, at once
 * or later:
 *
 *      http_read_body     the whole body, up to a limit, then http_reply
 *      http_reply         a whole answer
 *      http_produce       a stream made while the socket drains
 *      http_consume       an upload through a bounded buffer, then http_reply (or
 * http_send_head_early first) http_take_over     the connection itself, for tunnels and WebSockets
 *      http_relay         another server answers
 *      http_park          nothing yet: the connection waits, for memory only
 *      http_abort         no answer: the connection is cut
 *
 * What a client does wrong is answered here (400, 408, 413, 431, ...) and the request just ends:
 * its user destructor is then all that the upper layer hears. Calling a function out of turn is our
 * own mistake and asserts. Texts of headers are given whole, each line ended by CRLF; "connection"
 * and, where there is one, "content-length" are added. */
#pragma once

#include "shared/http_parse.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <openssl/ssl.h>
#include <sys/types.h>

struct http_server;
struct http_loop;
struct http_request;

struct http_config {
    unsigned loops;           /* threads */
    size_t head_bytes_max;    /* at most HTTP_HEAD_BYTES_MAX */
    unsigned connections_max; /* of the server */
    /* An IPv6 /64 counts as one address; loopback and unix sockets are exempt. */
    unsigned connections_per_address_max;
    /* What the bodies of http_read_body may hold together, beyond a little of each: see there. */
    size_t bodies_bytes_max;

    int handshake_ms;         /* TLS: from accept */
    int head_ms;              /* from its first byte; of the first request, from accept */
    int body_ms;              /* of http_read_body, and of what is left unread after a reply */
    int idle_ms;              /* between the requests of a connection */
    int linger_ms;            /* for the client to read the answer before we close */
    int rate_window_ms;       /* streams (but see http_allow_silence) and unsent answers must move ... */
    size_t rate_window_bytes; /* ... this much in each window, or are cut */

    void (*handle)(struct http_request *request, void *arg);

    /* Or NULL; on the loop: its first act, and its last (free what was taken over). */
    void (*loop_start)(struct http_loop *loop, void *arg);
    void (*loop_stop)(struct http_loop *loop, void *arg);
    void *arg;
};

/* The limits of design.md; the caller adds handle and what else it wants different. */
#define HTTP_CONFIG_DEFAULT                                                         \
    .loops = 2, .head_bytes_max = 32768, .connections_max = 20000,                  \
    .connections_per_address_max = 1000, .bodies_bytes_max = 64u << 20,             \
    .handshake_ms = 10000, .head_ms = 10000, .body_ms = 30000, .idle_ms = 60000, .linger_ms = 2000, .rate_window_ms = 20000, \
    .rate_window_bytes = 16384

/* --- the server ------------------------------------------------------------------------------ */

struct http_server *http_server_new(const struct http_config *config);

/* Listen; before or after the start. Returns 0 or a negative errno.
 *
 *   address   numeric, IPv4 or IPv6 ("::" is IPv6 only)
 *   port      0 chooses a free one, the same for all loops
 *   tls       or NULL for plain HTTP; the server takes its own reference
 *   ret_port  may be NULL */
int http_listen_tcp(struct http_server *server, const char *address, uint16_t port, SSL_CTX *tls,
                    uint16_t *ret_port);

/* A socket file for this user only (mode 0600). A dead one in its place is replaced, a live one is
 * -EADDRINUSE. */
int http_listen_unix(struct http_server *server, const char *path);

/* New connections of all TLS listeners use this from now on (certificates reloaded). Any thread. */
void http_server_replace_tls(struct http_server *server, SSL_CTX *tls);

int http_server_start(struct http_server *server);

/* Cut all connections and end the threads; parked requests hear on_gone. Not from a loop. */
void http_server_stop(struct http_server *server);

/* Stops if need be. Posts that waited run now, tickets with NULL. Whoever might post has ended
 * before, or would touch freed memory. */
void http_server_destroy(struct http_server **server);

struct http_stats {
    uint64_t requests, connections, connections_now, refused;
    uint64_t bodies_bytes; /* now, of bodies_bytes_max */
};

void http_server_stats(struct http_server *server, struct http_stats *ret_stats);

/* --- loops ----------------------------------------------------------------------------------- */

unsigned http_server_loops(const struct http_server *server);
struct http_loop *http_server_loop(struct http_server *server, unsigned index);

/* Run fn on the loop. Any thread, never blocks; posts of one thread keep their order. */
void http_loop_post(struct http_loop *loop, void (*fn)(void *arg), void *arg);

struct event_base *http_loop_base(struct http_loop *loop);
void *http_loop_user(const struct http_loop *loop);
void http_loop_set_user(struct http_loop *loop, void *user);

/* --- requests -------------------------------------------------------------------------------- */

enum http_method {
    HTTP_OTHER,
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_OPTIONS,
    HTTP_CONNECT,
};

struct http_request {
    enum http_method method;
    const char *method_text;
    const char *target; /* as sent, with its query */
    const char *path;   /* decoded; may hold ".." parts and any byte but NUL */
    const char *query;  /* encoded, "" without one */
    int minor;          /* HTTP/1.minor: 0 or 1 */
    bool has_body;      /* false too for Content-Length: 0 */
    bool is_chunked;
    int64_t content_length; /* -1 when chunked, absent, or (1.0) up to the end of the connection */
    bool is_tls, is_unix;
    bool is_passed; /* by another server of ours, in parcels (http_parcel.c): it cannot be taken over, nor passed on */
    uid_t peer_uid; /* unix only, and so is the pid */
    pid_t peer_pid;
    const char *peer; /* address without port; "unix" */
    uint16_t peer_port;
    uint16_t local_port; /* which listener: 0 for unix */

    void *user; /* the upper layer's, with what frees it when the request ends */
    void (*user_destroy)(void *user);
};

struct http_loop *http_request_loop(const struct http_request *request);

/* It came over a unix socket of this machine, from a process of our own user or of root: the kernel names the peer. */
bool http_is_ours(const struct http_request *request);

/* NULL when there is none. Header names in any case; of several the first. The strings live as long
 * as the request. */
const char *http_header(const struct http_request *request, const char *name);

/* The header lines in order, counted from 0; false beyond the last. */
bool http_header_at(const struct http_request *request, size_t index, const char **ret_name,
                    const char **ret_value);
const char *http_param(struct http_request *request, const char *name);
const char *http_cookie(struct http_request *request, const char *name);

/* All of them, in order, repeated names kept. */
size_t http_params(struct http_request *request, const struct http_pair **ret_pairs);
size_t http_cookies(struct http_request *request, const struct http_pair **ret_pairs);

/* Credentials of the Authorization header; see http_basic_decode(). */
bool http_basic(const struct http_request *request, char **ret_user, char **ret_password);

/* Close the connection after this answer. */
void http_close_after(struct http_request *request);

/* --- answers --------------------------------------------------------------------------------- */

/* A body that is read whole counts for bodies_bytes_max with what of it has come beyond these bytes, until its request ends. */
#define HTTP_BODY_FREE_BYTES 16384u

/* Read the whole body, then call fn; what it is given is good until it returns. A longer body is
 * answered with 413, one that the bodies of others leave no room for with 503: small ones always have room.
 * A request without a body has one of 0 bytes. */
void http_read_body(struct http_request *request, size_t bytes_max,
                    void (*fn)(struct http_request *request, const char *body, size_t bytes,
                               void *arg),
                    void *arg);

/* A whole answer. The body (may be NULL) is moved out of the evbuffer, which stays the caller's and
 * is empty then. HEAD, 204 and 304 send the head only. The request ends when it is sent: do not
 * touch it any more. */
void http_reply(struct http_request *request, int status, const char *headers,
                struct evbuffer *body);
void http_reply_text(struct http_request *request, int status, const char *headers,
                     const char *text);

/* No answer: cut the connection, so that the client sees it broken. */
void http_abort(struct http_request *request);

enum http_produced {
    HTTP_DONE,   /* that was the last of it */
    HTTP_MORE,   /* call again when the socket has room */
    HTTP_WAIT,   /* nothing now: http_resume() will tell */
    HTTP_FAILED, /* cut the connection: the client must see that it is incomplete */
};

/* Adds about bytes_wanted (more is allowed, and costs memory) to out. */
typedef enum http_produced http_produce_fn(struct http_request *request, struct evbuffer *out,
                                           size_t bytes_wanted, void *arg);

#define HTTP_LENGTH_UNKNOWN (-1)

/* Answer with a stream.
 *
 *   length   its bytes, which fn must then keep to; HTTP_LENGTH_UNKNOWN: chunked, or for
 *            HTTP/1.0 up to the end of the connection
 *   destroy  (may be NULL) frees arg, exactly once, when the stream has ended either way
 *
 * fn is called on the loop about 64 KiB at a time, connections taking turns; not for HEAD. */
void http_produce(struct http_request *request, int status, const char *headers, int64_t length,
                  http_produce_fn *fn, void *arg, void (*destroy)(void *arg));

/* Before http_produce: call sent(arg) when the socket has taken all of the stream, just before destroy. Who is not told that
 * has a client that does not have all. Not for HEAD. */
void http_tell_sent(struct http_request *request, void (*sent)(void *arg));

/* --- uploads --------------------------------------------------------------------------------- */

/* A body on its way through a bounded buffer. The loop fills it and stops reading the socket while
 * it is full; one consumer, on any thread, empties it. */
struct http_upload;

enum http_upload_state {
    HTTP_UPLOAD_OPEN,     /* more may come */
    HTTP_UPLOAD_COMPLETE, /* nothing comes after what is in the buffer */
    /* The client has ended in order before its Content-Length: by a close or half-close of TCP, by TLS's close_notify. Some do
     * that on purpose, since they do not know the length (wire.md section 20). */
    HTTP_UPLOAD_SHORT,
    /* The client was cut (a reset, TLS that ends without its word), is too slow, or sent nonsense: what came is not all. */
    HTTP_UPLOAD_BROKEN,
};

/* Let the body through. fn is called on the loop when bytes arrive in an empty buffer and when the
 * state leaves OPEN; it may consume right there, or wake whoever does. Answer after COMPLETE and SHORT, or
 * earlier to refuse the rest. When the state is BROKEN the request may be gone already: only its
 * ticket can tell.
 *
 * Returns the upload with a reference for the consumer, who ends with http_upload_unref(). arg must
 * live until fn was told of another state than OPEN, or the loop has run a post that was made after
 * http_upload_unref(). */
struct http_upload *http_consume(struct http_request *request, size_t buffer_bytes,
                                 void (*fn)(struct http_upload *upload, void *arg), void *arg);

/* Before http_consume: the client of this upload may send nothing for so long, and any byte then gives it as much time again.
 * Others have to keep to the least rate. For streams whose makers are silent while they have nothing to say, where a slow client
 * keeps nobody waiting; one that has vanished is found by TCP itself within a minute. */
void http_allow_silence(struct http_request *request, int silence_ms);

/* Before http_consume: send status and headers now, as clients of /import expect, closing the
 * connection after the answer. What is given to http_reply later is then only the body. */
void http_send_head_early(struct http_request *request, int status, const char *headers);

/* The next bytes in one piece, 0 when none are there; ret_state may be NULL. Bytes and state are of
 * one moment. */
size_t http_upload_peek(struct http_upload *upload, const char **ret_data,
                        enum http_upload_state *ret_state);

/* That many of them are used up. */
void http_upload_consumed(struct http_upload *upload, size_t bytes);

/* Block until there are bytes or the state is not OPEN: for consumers with a thread of their own.
 * Returns like http_upload_peek(). */
size_t http_upload_wait(struct http_upload *upload, const char **ret_data,
                        enum http_upload_state *ret_state);

/* The consumer goes; what still comes is thrown away. Sets the pointer to NULL. */
void http_upload_unref(struct http_upload **upload);

/* --- taking a connection over ---------------------------------------------------------------- */

/* Hand the connection over. fn gets a bufferevent of the loop's base that already queues head (a
 * whole head with its empty line, or ""), with what was read past the request in its input. fn sets
 * callbacks, enables reading, and frees the bufferevent in the end, at the latest in loop_stop; the
 * request ends when fn returns. If there was input, the read callback is called once soon after.
 * What is taken over counts no longer for the limits of connections. Not of a request that is_passed:
 * a CONNECT or one with an Upgrade header never is. */
void http_take_over(struct http_request *request, const char *head,
                    void (*fn)(struct http_request *request, struct bufferevent *connection,
                               void *arg),
                    void *arg);

/* A server that a connection is passed on to. */
struct http_onward {
    int fd;           /* its socket, not blocking, connected or on the way to that: the relay's from now on */
    bool in_parcels;  /* it is a server of ours behind a unix socket, which is told and tells ends for sure (http_parcel.c) */
    const char *head; /* the client is sent this first, or "" */
    struct evbuffer *first; /* the server is sent this first; moved out; may be NULL */
    void (*done)(void *arg); /* the relay is over; may be NULL */
    void *arg;
};

/* Pass on what the client sends behind the request, and what the server sends, until both have ended. The request ends here; its
 * connection counts no longer for the limits. Memory is bounded: a side is not read while the other has unsent bytes. A loop that
 * stops ends its relays.
 *
 * An end in order is passed on as one, so the client may half-close, by TLS's close_notify too. When the server has said all, the
 * client has a moment to end. A side that is cut - a reset, TLS without its word, parcels without their end, silence - cuts the
 * other: the client sees a reset, the server a reset or parcels without their end. A server that takes nothing more is still
 * listened to: it may have refused, and said why. */
void http_relay(struct http_request *request, const struct http_onward *);

/* --- tickets --------------------------------------------------------------------------------- */

/* Stands for a request on any thread; may be copied and forgotten freely. */
struct http_ticket {
    struct http_loop *loop;
    uint32_t slot;
    uint64_t generation;
};

/* A ticket for the request. */
struct http_ticket http_ticket_of(struct http_request *request);

/* The same, and let the request wait without a deadline. on_gone (may be NULL) is called when the
 * connection breaks before the answer began; a client that only stops sending is still served. */
struct http_ticket http_park(struct http_request *request,
                             void (*on_gone)(struct http_request *request, void *arg), void *arg);

/* Run fn on the request's loop; with NULL when the request is gone or its answer has begun, so that
 * arg can be freed. Any thread, never blocks. */
void http_ticket_post(struct http_ticket ticket,
                      void (*fn)(struct http_request *request, void *arg), void *arg);

/* A producer that said HTTP_WAIT is asked again; without effect on one that did not. Any thread. */
void http_resume(struct http_ticket ticket);
