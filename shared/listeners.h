/* listeners.h - where a program listens for HTTP, as its settings say, and its certificate
 *
 * Master and slaves listen in the same way: at addresses for plain HTTP, at addresses for HTTPS, and
 * at a unix socket for this user. A certificate that is missing is made at the first start. */
#pragma once

#include "shared/base.h"

struct http_server;

/* A setting that may be given several times. */
#define TEXT_LIST_MAX 16
struct text_list {
    unsigned count;
    const char *items[TEXT_LIST_MAX];
};

struct listeners {
    const struct text_list *plain, *tls; /* of ADDRESS:PORT; port 0 takes a free one */
    const char *unix_socket;             /* path */
    const char *certificate, *key;       /* paths; of no concern while tls is empty */
    const char *name, *address;          /* of this host: the certificate is made out to them, */
                                         /* and to all addresses listened on */
    char urls[1024]; /* listeners_open() says here where it listens, for people; "": only the socket
                      */
};

/* "127.0.0.1:80" or "[::1]:80"; false for anything else. */
bool listener_split(const char *text, char *ret_address, size_t bytes, uint16_t *ret_port);

/* Could we listen there now? Nothing is kept open: this is for finding out before anything is made.
 * 0, -EINVAL for what is no numeric ADDRESS:PORT, or what bind() says, such as -EADDRINUSE. */
int listener_try(const char *text);
/* The same of a whole setting. 0, or -1 when one is not possible, which is logged. */
int listeners_try(const struct text_list *);

/* Listen everywhere, before or after the server starts. 0, or -1 when something of it was not
 * possible, which is logged.
 *
 *   ret_url   of the first listener that is no unix socket, "" without one */
int listeners_open(struct listeners *, struct http_server *, char *ret_url, size_t bytes);

/* Read the certificate again, for new connections. One that cannot be used is logged, and the old one
 * stays. */
void listeners_reload(const struct listeners *, struct http_server *);
