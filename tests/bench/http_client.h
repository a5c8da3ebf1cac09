/* http_client.h - many keep-alive connections to one server, on one thread, at little cost
 *
 * Each connection has one request under way at most: begin it with call_begin() or get_send(), and answered() comes when the
 * last byte is here. There it may send the next one. Answers are read in place; what is kept of a body is its beginning, up
 * to the client's keep_max, and its last bytes: enough to tell success from failure, and the rest is only counted. */
#pragma once

#include "shared/base.h"
#include "shared/buffer.h"

#define TAIL_BYTES 32

struct client;

enum answer_part { PART_NONE, PART_HEAD, PART_BODY, PART_SIZE, PART_CHUNK, PART_CHUNK_END, PART_TRAILER };

struct connection {
    struct client *client;
    unsigned number;
    int fd;
    struct buffer out;
    size_t out_sent;
    uint64_t sent_ns, first_ns;   /* request handed to the kernel; first bytes of the answer */

    enum answer_part part;
    struct buffer head;           /* lines of the head, or of a chunk's size, that came in pieces */
    size_t left;                  /* bytes of the body or chunk still to come */
    bool is_chunked, must_close;
    int status;                   /* of the answer; 0: the connection was lost */
    size_t body_bytes;
    struct buffer body;           /* its beginning */
    char tail[TAIL_BYTES + 1];
    size_t tail_bytes;

    char session[64];             /* instead of the client's; "": none of its own */
    size_t at;                    /* whose requests it makes: the caller's own counters */
    int step;
};

struct client {
    char host[64], port[8], path[256];
    const char *session;          /* first argument of calls, or NULL */
    struct buffer text;           /* of the call that is being written */
    int epoll_fd;
    struct connection *connections;
    unsigned count, busy;
    size_t keep_max;
    bool is_stopped;              /* answered() sends no more */
    void (*answered)(struct connection *, void *arg);
    void *arg;
};

uint64_t now_ns(void);

/* url: "http://ADDRESS:PORT/path". Connects them all; dies with a message when the server is not there. */
void client_open(struct client *client, const char *url, unsigned connections);
void client_close(struct client *client);

/* ---- requests ---- */

/* An XML-RPC call: begin, the arguments in their order (the session is put before them), send. */
void call_begin(struct client *client, const char *method);
void call_begin_on(struct connection *connection, const char *method); /* with the connection's own session */
void call_text(struct client *client, const char *text);
void call_bool(struct client *client, bool is_true);
void call_float(struct client *client, double number);
void call_xml(struct client *client, const char *value); /* what stands between <value> and </value> */
void call_send(struct connection *connection);

void get_send(struct connection *connection);

/* ---- answers ---- */

/* Take what comes until this time, or until nothing is under way. */
void client_run(struct client *client, uint64_t until_ns);
/* Send nothing new and wait for what is under way; how much is left after that time. */
unsigned client_drain(struct client *client, unsigned seconds);

/* NULL: Status is Success and the answer is complete. Else the error code, or what was wrong. In the given buffer. */
const char *answer_failure(const struct connection *connection, char *buffer, size_t bytes);
/* The text of the first value behind `mark`, such as "<name>Value</name>", whatever tags stand around it. In the buffer; NULL
 * when there is none among the bytes that were kept. */
const char *answer_value(const struct connection *connection, const char *mark, char *buffer, size_t bytes);

/* One call on the first connection, waited for; its answer is there until the next one. Dies when it fails. */
struct connection *call_now(struct client *client);
