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
};

/* "127.0.0.1:80" or "[::1]:80"; false for anything else. */
bool listener_split(const char *text, char *ret_address, size_t bytes, uint16_t *ret_port);

/* Listen everywhere, before or after the server starts. 0, or -1 when something of it was not
 * possible, which is logged.
 *
 *   ret_url   of the first listener that is no unix socket, "" without one */
int listeners_open(const struct listeners *, struct http_server *, char *ret_url, size_t bytes);

/* Read the certificate again, for new connections. One that cannot be used is logged, and the old one
 * stays. */
void listeners_reload(const struct listeners *, struct http_server *);
