/* http_pass.h - a request that another server answers: of this machine, or of another host
 *
 *   client --> master --unix socket--> slave of the same machine     http_pass_unix()
 *   client --> master --302--> client --> slave of another host      http_redirect()
 *
 * What is passed on is the request as it came, the body byte for byte and in its own framing, and the
 * answer likewise: nothing of either is looked at or kept. A header of our own tells the other server
 * how the request came here; it is believed only when it comes over a unix socket from a process of
 * the same user or of root. The connection serves this one request. */
#pragma once

#include "shared/http.h"

#include <arpa/inet.h>

/* Where a request came from, through whatever passed it on. */
struct http_origin {
    bool is_local; /* over a unix socket of this machine, by root or our own user: nobody passed it */
    bool is_tls;
    char peer[INET6_ADDRSTRLEN]; /* address without port; "unix" */
    uint16_t peer_port;
    uint16_t local_port; /* of the listener that the client reached; 0 for unix */
};

void http_origin_of(const struct http_request *, struct http_origin *ret);

/* Have the server at this unix socket answer: the request ends here. False when it cannot be reached: nothing
 * was answered, and the request is still the caller's.
 *
 * A client that is cut is cut for the server too, and one that ends in order ends so; the same the other
 * way, also of bodies that have neither length nor chunks (HTTP/1.0). Of a tunnel (CONNECT, Upgrade) the
 * server is told only that its socket has ended. */
bool http_pass_unix(struct http_request *, const char *socket_path);

/* Send the client to the same path and query at another host, by the scheme and port that it used
 * here: all hosts of a pool have the same ports. `address` is numeric, IPv4 or IPv6, or a name. */
void http_redirect(struct http_request *, const char *address);
