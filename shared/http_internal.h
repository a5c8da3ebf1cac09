/* http_internal.h - what the files of the HTTP server share; nobody else includes it
 *
 *   http.c          the life of a connection: handshake, head, exchange, linger
 *   http_io.c       bytes in and out of a socket, plain or TLS
 *   http_request.c  what a handler may ask of a request
 *   http_body.c     request bodies, whole or as an upload
 *   http_reply.c    answers and streams
 *   http_tunnel.c   connections taken over
 *   http_relay.c    connections that go on to another server
 *   http_parcel.c   what goes between two servers of ours, with an end of its own
 *   http_loop.c     threads, mailboxes, tickets, deadlines
 *   http_server.c   listeners and limits
 *
 * Why events of our own and not bufferevents: those of libevent 2.1 ask FIONREAD and read 4 KiB at
 * a time, and register and unregister the socket for each answer that they write. Here a socket is
 * registered once, edge-triggered for everything; "readable" and "writable" remember what the edges
 * told, and not reading is all that it takes to hold a client back. A small call costs one recv and
 * one writev. Only who takes a connection over gets a bufferevent; relays have events of their own, too. */
#pragma once

#include "shared/http.h"
#include "shared/http_parcel.h"

#include <event2/event_struct.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/socket.h>

/* The most that one read takes, and what a loop's scratch memory holds. */
#define HTTP_READ_BYTES 65536

/* The most that one read takes of an upload, which has memory of its own. */
#define HTTP_UPLOAD_READ_BYTES 262144

/* A producer is asked for this much at a time. */
#define HTTP_PRODUCE_BYTES 65536

/* So much of a large answer is sent before the other connections have their turn. */
#define HTTP_FLUSH_BYTES 1048576

/* So much of a body that nobody wants is read to keep the connection; more, and it is closed. */
#define HTTP_DRAIN_BYTES_MAX 65536

/* Slots of the wheel; a power of two. */
#define HTTP_WHEEL_SLOTS 256

struct connection;
struct exchange;
struct relay;

/* Bytes [start, end) of data. Either its own memory or, while a connection runs, the scratch of its
 * loop. */
struct input {
    char *data;
    size_t start, end, size;
    bool is_borrowed;
};

enum phase {
    PHASE_HANDSHAKE, /* TLS */
    PHASE_HEAD,      /* waiting for a request */
    PHASE_EXCHANGE,  /* with a request, until its answer is sent */
    PHASE_LINGER,    /* the last answer goes out; what comes in is thrown away */
};

enum deadline {
    DEADLINE_NONE, /* waiting for ourselves */
    DEADLINE_HANDSHAKE,
    DEADLINE_HEAD,
    DEADLINE_IDLE,
    DEADLINE_BODY,
    DEADLINE_RATE, /* the end of a window in which bytes must move */
    DEADLINE_SILENCE, /* the same, and one byte is enough */
    DEADLINE_LINGER,
};

/* Who is on the other side, as the accepting listener saw it. */
struct peer {
    char text[INET6_ADDRSTRLEN];
    uint16_t port, local_port;
    bool is_unix, is_counted; /* counted per address */
    uid_t uid;
    pid_t pid;
    uint8_t key[16]; /* of the count: the address, the /64 for IPv6 */
};

struct connection {
    struct http_loop *loop;
    struct event event;
    int fd;
    SSL *ssl;      /* or NULL */
    uint32_t slot; /* in the loop's table */

    enum phase phase;
    bool is_readable, is_writable; /* by the last edge, until a read or write says otherwise */
    bool is_closed_by_peer;        /* there is an end to be read after the data */
    bool is_at_eof;                /* and it was read */
    bool is_running;               /* up the stack: freed only when that returns */
    bool is_dead;
    bool is_cut; /* end with a reset, so that a truncated answer is seen as one */
    bool is_scheduled;
    bool is_keep_alive; /* after the present answer */
    bool has_served;    /* idle from now on, where the first head has its own deadline */
    bool is_end_said;   /* after the last answer: our half of the connection is closed, in order */

    bool has_begun;      /* unix: it is known whether bytes come and go in parcels, */
    bool is_parcelled;   /* and they do */
    struct parcel_reader parcels;
    size_t parcel_left;  /* of out, what is packed already: heads and bytes */

    struct input in;
    size_t head_line; /* of http_head_end, counted from in.start */
    struct evbuffer *out;
    struct exchange *exchange; /* in PHASE_EXCHANGE only */

    enum deadline deadline;
    int64_t deadline_ms;  /* 0: none */
    uint64_t moved_bytes; /* in this window of DEADLINE_RATE or DEADLINE_SILENCE */
    int64_t wheel_ms;     /* when the wheel will look at us; 0: not on it */
    LIST_ENTRY(connection) wheel;
    TAILQ_ENTRY(connection) turn;

    struct peer peer;
};

enum framing {
    FRAMING_NONE,
    FRAMING_LENGTH,
    FRAMING_CHUNKED,
    FRAMING_UNTIL_CLOSE,
};

enum body_state {
    BODY_UNREAD,
    BODY_WHOLE,     /* http_read_body gathers it */
    BODY_UPLOAD,    /* goes into exchange->upload */
    BODY_DRAIN,     /* answered already; thrown away to keep the connection */
    BODY_ABANDONED, /* answered already; never read, the connection closes */
    BODY_DONE,
};

enum answer_state {
    ANSWER_NONE,
    ANSWER_PRODUCING,
    ANSWER_DONE, /* all of it is in connection->out, or sent */
};

/* A request and its answer. */
struct exchange {
    struct http_request request;
    struct connection *connection;
    uint64_t generation; /* unique in the loop: what makes tickets stale */
    struct http_head head;

    enum framing framing;
    enum body_state body;
    uint64_t body_left; /* FRAMING_LENGTH */
    struct http_chunks chunks;
    bool expects_continue; /* not yet answered */
    size_t body_bytes_max;
    struct input gathered; /* BODY_WHOLE, when it came in pieces */
    size_t body_counted;   /* of it, in the server's bodies_bytes */
    void (*on_body)(struct http_request *, const char *, size_t, void *);
    void *on_body_arg;
    struct http_upload *upload;
    int silence_ms; /* of an upload, that are no reason to cut it; 0: it has to keep to the least rate */

    enum answer_state answer;
    bool is_head_sent; /* http_send_head_early */
    bool is_chunked_answer;
    bool is_parked;
    bool is_producer_waiting;
    int64_t produce_left; /* -1: as much as there is */
    http_produce_fn *produce;
    void *produce_arg;
    void (*produce_destroy)(void *);
    void (*produce_sent)(void *); /* or NULL */
    void (*on_gone)(struct http_request *, void *);
    void *on_gone_arg;

    struct http_pair *params, *cookies; /* made when first asked for */
    size_t param_count, cookie_count;
    char *param_text, *cookie_text;

    size_t text_size;
    char text[]; /* the head, then the decoded path */
};

struct message {
    struct message *next;
    void (*fn)(void *);                                /* http_loop_post */
    void (*on_request)(struct http_request *, void *); /* http_ticket_post */
    void *arg;
    struct http_ticket ticket;
    bool even_if_answered;
};

struct slot {
    struct connection *connection;
    uint32_t next_free;
};

struct http_loop {
    struct http_server *server;
    struct event_base *base;
    pthread_t thread;
    bool is_running, is_over; /* over: only the mailbox is still emptied */
    void *user;

    _Atomic(struct message *) mailbox; /* newest first */
    int wake_fd;
    struct event wake_event;

    TAILQ_HEAD(connection_turns, connection) turns; /* have more to do */
    unsigned turn_count;
    struct event turn_event;

    LIST_HEAD(, connection) wheel[HTTP_WHEEL_SLOTS];
    unsigned wheel_count;
    int64_t wheel_tick; /* the last one done */
    int tick_ms;
    struct event tick_event;

    struct slot *slots;
    uint32_t slot_count, slot_free; /* the first free one, slot_count when none */
    uint64_t generation;

    char *scratch;              /* HTTP_READ_BYTES, lent to the connection that runs */
    LIST_HEAD(, relay) relays;  /* ended with the loop */
    struct evbuffer *produced;  /* lent to the producer that runs */
    struct exchange *spare[16]; /* ended ones of the usual size */
    unsigned spare_count;

    _Atomic uint64_t requests;
};

struct listener;
struct address_count;

struct http_server {
    struct http_config config;
    struct http_loop *loops;
    bool is_started, is_stopped;

    pthread_mutex_t lock; /* what follows */
    LIST_HEAD(, listener) listeners;
    struct address_count *addresses[1024]; /* hashed */

    atomic_uint connections_now;
    _Atomic uint64_t connections, refused;
    _Atomic size_t bodies_bytes; /* what is gathered of all bodies, beyond the free bytes of each */
};

/* --- http.c ---------------------------------------------------------------------------------- */

void http_connection_new(struct http_loop *loop, int fd, SSL *ssl, const struct peer *peer);
void http_connection_run(struct connection *conn);

/* Freed at once, or when what runs it returns. */
void http_connection_kill(struct connection *conn);

/* Around what calls handlers: no free meanwhile, then a run. */
void http_connection_enter(struct connection *conn);
void http_connection_leave(struct connection *conn);

/* Something changed, maybe outside of a run. */
void http_connection_touch(struct connection *conn);
void http_connection_expired(struct connection *conn);
void http_connection_refuse(struct connection *conn, int status);

/* Off the loop's event base. */
void http_connection_detach(struct connection *conn);
struct exchange *http_exchange_of(struct http_request *request);

/* Asserts that somebody answers it. */
void http_exchange_check(const struct exchange *ex);

/* --- http_io.c ------------------------------------------------------------------------------- */

enum { IO_AGAIN = -1, IO_ERROR = -2 };

/* Bytes; 0 at the end; or the above. */
ssize_t http_io_read(struct connection *conn, char *to, size_t bytes);

/* What is in out, and after the last answer the end. 0, with what the socket did not take left for the next time, or IO_ERROR. */
int http_io_flush(struct connection *conn);

/* Nothing is left, of the end neither. */
bool http_io_is_flushed(const struct connection *conn);
int http_io_handshake(struct connection *conn);

/* In both directions. */
bool http_io_is_hung_up(struct connection *conn);
void http_io_close(struct connection *conn);

/* Of a TLS session: bytes; 0 when the client has said that this was all; or IO_AGAIN, IO_ERROR. A socket that ends without that
 * is an error. */
ssize_t http_io_tls_read(SSL *ssl, char *to, size_t bytes);

/* Bytes, one record at most; or IO_AGAIN, after which the same bytes and maybe more must come again; or IO_ERROR. */
ssize_t http_io_tls_write(SSL *ssl, const char *from, size_t bytes);

/* Says that this was all: 0, IO_AGAIN, IO_ERROR. */
int http_io_tls_end(SSL *ssl);

/* End with a reset and without TLS's word: the other side sees that something is missing. */
void http_io_make_cut(int fd);

/* 1 when there is more, 0 at the end, or IO_AGAIN, IO_ERROR. */
int http_input_fill(struct connection *conn, size_t bytes_max);

/* Give the scratch back. */
void http_input_settle(struct connection *conn);
void http_input_append(struct input *in, const char *data, size_t bytes);
void http_input_clear(struct input *in);

/* --- http_request.c -------------------------------------------------------------------------- */

struct exchange *http_exchange_new(struct connection *conn, size_t head_bytes);
void http_exchange_free(struct exchange *ex);

/* From head and connection to what the handler sees. */
void http_exchange_describe(struct exchange *ex);

/* --- http_body.c ----------------------------------------------------------------------------- */

/* True: call again. */
bool http_body_step(struct exchange *ex);

/* Do we wait for the client's bytes? */
bool http_body_is_wanted(const struct exchange *ex);

/* "100 Continue", where the client waits for it. */
void http_body_invite(struct exchange *ex);

/* The request ends: what its body counted for is free for others. */
void http_body_uncount(struct exchange *ex);
void http_body_upload_end(struct exchange *ex, enum http_upload_state state);

/* --- http_reply.c ---------------------------------------------------------------------------- */

void http_reply_head(struct exchange *ex, int status, const char *headers, int64_t length);
void http_produce_step(struct exchange *ex);
void http_produce_end(struct exchange *ex);

/* --- http_relay.c ---------------------------------------------------------------------------- */

void http_relay_end_all(struct http_loop *loop);

/* --- http_loop.c ----------------------------------------------------------------------------- */

/* Whose thread this is; NULL elsewhere. */
struct http_loop *http_loop_here(void);
int http_loop_init(struct http_loop *loop, struct http_server *server);
int http_loop_start(struct http_loop *loop);
void http_loop_stop(struct http_loop *loop);
void http_loop_done(struct http_loop *loop);
void http_loop_schedule(struct connection *conn);
void http_loop_unschedule(struct connection *conn);
void http_loop_set_deadline(struct connection *conn, enum deadline deadline);
void http_loop_forget_deadline(struct connection *conn);
void http_loop_slot_take(struct connection *conn);
void http_loop_slot_free(struct connection *conn);
void http_loop_post_ticket(struct http_ticket ticket, void (*fn)(struct http_request *, void *),
                           void *arg, bool even_if_answered);

/* --- http_server.c --------------------------------------------------------------------------- */

void http_server_forget_peer(struct http_server *server, const struct peer *peer);
