/* http_client.c - see http_client.h */
#include "tests/bench/http_client.h"

#include <err.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES     (256 * 1024)
#define REQUEST_MAX    (1024 * 1024)
#define HEAD_MAX       (READ_BYTES + 64 * 1024)
#define BODY_MAX       (1024 * 1024 * 1024)
#define EVENTS_AT_ONCE 256

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000 + (uint64_t) now.tv_nsec;
}

/* ---- connections ---- */

static void connection_open(struct connection *connection)
{
    struct client *client = connection->client;
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    int one = 1;

    if (getaddrinfo(client->host, client->port, &hints, &found) != 0)
        errx(1, "%s:%s is no numeric address", client->host, client->port);
    connection->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0)
        errx(1, "socket: %s", strerror(errno));
    if (connect(connection->fd, found->ai_addr, found->ai_addrlen) < 0)
        errx(1, "no server at %s:%s: %s", client->host, client->port, strerror(errno));
    freeaddrinfo(found);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) < 0)
        errx(1, "epoll_ctl: %s", strerror(errno));
}

static void parse_url(struct client *client, const char *url)
{
    client->path[0] = '/';
    if (sscanf(url, "http://%63[^:/]:%7[0-9]/%254s", client->host, client->port, client->path + 1) < 2)
        errx(1, "not of the form http://ADDRESS:PORT/: %s", url);
}

void client_open(struct client *client, const char *url, unsigned connections)
{
    parse_url(client, url);
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (client->epoll_fd < 0)
        errx(1, "epoll_create1: %s", strerror(errno));
    if (client->keep_max == 0)
        client->keep_max = 4096;
    buffer_init(&client->text, REQUEST_MAX);
    client->connections = new0_array(struct connection, connections);
    client->count = connections;
    for (unsigned i = 0; i < connections; i++) {
        struct connection *connection = &client->connections[i];

        connection->client = client;
        connection->number = i;
        buffer_init(&connection->out, REQUEST_MAX);
        buffer_init(&connection->head, HEAD_MAX);
        buffer_init(&connection->body, BODY_MAX);
        connection_open(connection);
    }
}

void client_close(struct client *client)
{
    for (unsigned i = 0; i < client->count; i++) {
        struct connection *connection = &client->connections[i];

        close_fd(&connection->fd);
        buffer_done(&connection->out);
        buffer_done(&connection->head);
        buffer_done(&connection->body);
    }
    free(client->connections);
    buffer_done(&client->text);
    close_fd(&client->epoll_fd);
}

/* ---- requests ---- */

static void begin(struct client *client, const char *method, const char *session)
{
    buffer_clear(&client->text);
    buffer_add_literal(&client->text, "<?xml version=\"1.0\"?><methodCall><methodName>");
    buffer_add_text(&client->text, method);
    buffer_add_literal(&client->text, "</methodName><params>");
    if (session)
        call_text(client, session);
}

void call_begin(struct client *client, const char *method)
{
    begin(client, method, client->session);
}

void call_begin_on(struct connection *connection, const char *method)
{
    begin(connection->client, method, connection->session[0] ? connection->session : connection->client->session);
}

void call_xml(struct client *client, const char *value)
{
    buffer_add_literal(&client->text, "<param><value>");
    buffer_add_text(&client->text, value);
    buffer_add_literal(&client->text, "</value></param>");
}

void call_text(struct client *client, const char *text)
{
    buffer_add_literal(&client->text, "<param><value>");
    for (; *text; text++)
        if (*text == '<')
            buffer_add_literal(&client->text, "&lt;");
        else if (*text == '&')
            buffer_add_literal(&client->text, "&amp;");
        else
            buffer_add_char(&client->text, *text);
    buffer_add_literal(&client->text, "</value></param>");
}

void call_bool(struct client *client, bool is_true)
{
    call_xml(client, is_true ? "<boolean>1</boolean>" : "<boolean>0</boolean>");
}

void call_float(struct client *client, double number)
{
    char value[64];

    snprintf(value, sizeof value, "<double>%.3f</double>", number);
    call_xml(client, value);
}

/* What the socket does not take at once waits for EPOLLOUT. */
static void push(struct connection *connection)
{
    struct buffer *out = &connection->out;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};

    while (connection->out_sent < out->length) {
        ssize_t n = send(connection->fd, out->bytes + connection->out_sent, out->length - connection->out_sent,
                         MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) /* an error other than EAGAIN shows itself to the reader, too */
            break;
        connection->out_sent += (size_t) n;
    }
    event.events |= connection->out_sent < out->length ? EPOLLOUT : 0;
    if (event.events & EPOLLOUT)
        epoll_ctl(connection->client->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
}

static void request_sent(struct connection *connection)
{
    assert(connection->part == PART_NONE && !connection->out.is_full);
    connection->out_sent = 0;
    connection->part = PART_HEAD;
    connection->first_ns = 0;
    connection->status = 0;
    connection->body_bytes = connection->tail_bytes = 0;
    buffer_clear(&connection->head);
    buffer_clear(&connection->body);
    connection->client->busy++;
    connection->sent_ns = now_ns();
    push(connection);
}

void call_send(struct connection *connection)
{
    struct client *client = connection->client;
    struct buffer *out = &connection->out;

    buffer_add_literal(&client->text, "</params></methodCall>");
    assert(!client->text.is_full);
    buffer_clear(out);
    buffer_add_literal(out, "POST / HTTP/1.1\r\nHost: ");
    buffer_add_text(out, client->host);
    buffer_add_literal(out, "\r\nContent-Type: text/xml\r\nContent-Length: ");
    buffer_add_int(out, (int64_t) client->text.length);
    buffer_add_literal(out, "\r\n\r\n");
    buffer_add(out, client->text.bytes, client->text.length);
    request_sent(connection);
}

void get_send(struct connection *connection)
{
    struct buffer *out = &connection->out;

    buffer_clear(out);
    buffer_add_literal(out, "GET ");
    buffer_add_text(out, connection->client->path);
    buffer_add_literal(out, " HTTP/1.1\r\nHost: ");
    buffer_add_text(out, connection->client->host);
    buffer_add_literal(out, "\r\n\r\n");
    request_sent(connection);
}

/* ---- answers ---- */

static void finish(struct connection *connection)
{
    connection->part = PART_NONE;
    connection->client->busy--;
    if (connection->must_close || connection->status == 0) {
        close_fd(&connection->fd);
        connection_open(connection);
    }
    connection->client->answered(connection, connection->client->arg);
}

/* The text behind "name:" in the head, or NULL. Names are compared without case, as they are in HTTP. */
static const char *header(const char *head, const char *name)
{
    size_t length = strlen(name);

    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':')
            return line + 3 + length + strspn(line + 3 + length, " \t");
    return NULL;
}

/* A complete head, NUL behind it. False: not HTTP. */
static bool take_head(struct connection *connection, const char *head)
{
    const char *length = header(head, "content-length"), *coding = header(head, "transfer-encoding"),
               *lives = header(head, "connection");

    if (sscanf(head, "HTTP/1.%*1[01] %d", &connection->status) != 1)
        return false;
    connection->must_close = lives && strncasecmp(lives, "close", 5) == 0;
    connection->is_chunked = coding && strncasecmp(coding, "chunked", 7) == 0;
    if (!length && !connection->is_chunked)
        return false;
    connection->left = connection->is_chunked ? 0 : strtoull(length, NULL, 10);
    connection->part = connection->is_chunked ? PART_SIZE : PART_BODY;
    return true;
}

static void take_body(struct connection *connection, const char *bytes, size_t count)
{
    size_t kept = MIN(count, connection->client->keep_max - MIN(connection->body.length, connection->client->keep_max));

    buffer_add(&connection->body, bytes, kept);
    connection->body_bytes += count;
    if (count >= TAIL_BYTES) {
        memcpy(connection->tail, bytes + count - TAIL_BYTES, TAIL_BYTES);
        connection->tail_bytes = TAIL_BYTES;
    } else {
        size_t stays = MIN(connection->tail_bytes, TAIL_BYTES - count);

        memmove(connection->tail, connection->tail + connection->tail_bytes - stays, stays);
        memcpy(connection->tail + stays, bytes, count);
        connection->tail_bytes = stays + count;
    }
    connection->left -= count;
}

/* Gather a line, or a head, into connection->head until `end` has come. Returns how many bytes were taken. Most come
 * whole, and only those bytes are copied. */
static size_t take_until(struct connection *connection, const char *bytes, size_t count, const char *end, bool *ret_is_whole)
{
    struct buffer *head = &connection->head;
    size_t before = head->length, end_bytes = strlen(end), from = before - MIN(before, end_bytes - 1);
    const char *found = before == 0 ? memmem(bytes, count, end, end_bytes) : NULL;

    if (found)
        count = (size_t) (found - bytes) + end_bytes;
    if (head->length + count >= HEAD_MAX)
        errx(1, "the server sends a head without an end");
    buffer_add(head, bytes, count);
    found = memmem(head->bytes + from, head->length - from, end, end_bytes);
    *ret_is_whole = found != NULL;
    if (!found)
        return count;
    head->length = (size_t) (found - head->bytes) + end_bytes;
    buffer_text(head);
    return head->length - before;
}

/* Advance by some of the bytes; how many were used, or -1: this is not HTTP. */
static ssize_t advance(struct connection *connection, const char *bytes, size_t count)
{
    bool is_whole = false;
    size_t used;

    switch (connection->part) {
    case PART_HEAD:
        used = take_until(connection, bytes, count, "\r\n\r\n", &is_whole);
        if (is_whole && !take_head(connection, connection->head.bytes))
            return -1;
        break;
    case PART_BODY:
    case PART_CHUNK:
        used = MIN(count, connection->left);
        take_body(connection, bytes, used);
        if (connection->left == 0 && connection->part == PART_CHUNK)
            connection->part = PART_CHUNK_END;
        break;
    case PART_SIZE:
        used = take_until(connection, bytes, count, "\r\n", &is_whole);
        if (is_whole) {
            connection->left = strtoull(connection->head.bytes, NULL, 16);
            connection->part = connection->left > 0 ? PART_CHUNK : PART_TRAILER;
        }
        break;
    case PART_CHUNK_END:
    case PART_TRAILER: /* without fields: an empty line */
        used = take_until(connection, bytes, count, "\r\n", &is_whole);
        if (is_whole && connection->head.length != 2)
            return -1;
        if (is_whole && connection->part == PART_CHUNK_END)
            connection->part = PART_SIZE;
        else if (is_whole)
            connection->part = PART_NONE;
        break;
    default:
        return -1; /* bytes that nobody asked for */
    }
    if (connection->part != PART_HEAD && is_whole)
        buffer_clear(&connection->head);
    return (ssize_t) used;
}

static bool is_over(const struct connection *connection)
{
    return connection->part == PART_NONE || (connection->part == PART_BODY && connection->left == 0);
}

static void lost(struct connection *connection)
{
    bool was_busy = connection->part != PART_NONE;

    connection->status = 0;
    if (was_busy) {
        finish(connection);
        return;
    }
    close_fd(&connection->fd);
    connection_open(connection);
}

static void readable(struct connection *connection)
{
    static char bytes[READ_BYTES];
    ssize_t n = recv(connection->fd, bytes, sizeof bytes, MSG_DONTWAIT), at = 0;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        lost(connection);
        return;
    }
    if (connection->first_ns == 0)
        connection->first_ns = now_ns();
    while (at < n) {
        ssize_t used = advance(connection, bytes + at, (size_t) (n - at));

        if (used < 0) {
            lost(connection);
            return;
        }
        at += used;
        if (is_over(connection)) {
            if (at < n) /* more than one answer to one request */
                connection->status = 0;
            finish(connection);
            return;
        }
    }
}

void client_run(struct client *client, uint64_t until_ns)
{
    struct epoll_event events[EVENTS_AT_ONCE];

    while (client->busy > 0) {
        uint64_t now = now_ns();
        int n;

        if (now >= until_ns)
            return;
        n = epoll_wait(client->epoll_fd, events, EVENTS_AT_ONCE, (int) MIN((until_ns - now) / 1000000 + 1, (uint64_t) 1000));
        for (int i = 0; i < n; i++) {
            struct connection *connection = events[i].data.ptr;

            if (events[i].events & EPOLLOUT) {
                struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};

                epoll_ctl(client->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
                push(connection);
            }
            if (events[i].events & ~(uint32_t) EPOLLOUT)
                readable(connection);
        }
    }
}

unsigned client_drain(struct client *client, unsigned seconds)
{
    client->is_stopped = true;
    client_run(client, now_ns() + seconds * 1000000000ULL);
    return client->busy;
}

/* ---- what an answer says ---- */

/* Copies the text at `from` up to the next '<'. */
static const char *copy_text(const char *from, char *buffer, size_t bytes)
{
    size_t length = strcspn(from, "<");

    length = MIN(length, bytes - 1);
    memcpy(buffer, from, length);
    buffer[length] = '\0';
    return buffer;
}

const char *answer_value(const struct connection *connection, const char *mark, char *buffer, size_t bytes)
{
    const char *text = buffer_text((struct buffer *) &connection->body), *at = text ? strstr(text, mark) : NULL;

    at = at ? strstr(at, "<value>") : NULL;
    while (at && at[0] == '<' && at[1] != '/') {
        at = strchr(at, '>');
        if (at)
            at += 1 + strspn(at + 1, "\n"); /* other servers than ours put array elements on lines */
    }
    return at ? copy_text(at, buffer, bytes) : NULL;
}

const char *answer_failure(const struct connection *connection, char *buffer, size_t bytes)
{
    static const char end[] = "</methodResponse>";
    const char *status;

    if (connection->status == 0)
        return "connection lost";
    if (connection->status != 200) {
        snprintf(buffer, bytes, "HTTP %d", connection->status);
        return buffer;
    }
    status = answer_value(connection, "<name>Status</name>", buffer, bytes);
    if (!status)
        return "no Status";
    if (!streq(status, "Success")) {
        status = answer_value(connection, "<name>ErrorDescription</name>", buffer, bytes);
        return status ? status : "no ErrorDescription";
    }
    if (!memmem(connection->tail, connection->tail_bytes, end, sizeof end - 1))
        return "cut off";
    return NULL;
}

static void nothing(struct connection *connection, void *arg)
{
    (void) connection;
    (void) arg;
}

struct connection *call_now(struct client *client)
{
    void (*answered)(struct connection *, void *) = client->answered;
    struct connection *connection = &client->connections[0];
    char code[256];
    const char *failure;

    client->answered = nothing;
    call_send(connection);
    client_run(client, now_ns() + 300 * 1000000000ULL);
    client->answered = answered;
    if (connection->part != PART_NONE)
        errx(1, "no answer within 300 s: %.200s", client->text.bytes);
    failure = answer_failure(connection, code, sizeof code);
    if (failure)
        errx(1, "%s: %.300s", failure, client->text.bytes);
    return connection;
}
