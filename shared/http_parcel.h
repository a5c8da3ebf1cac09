/* http_parcel.h - what goes between a server that passes a request on and the one that answers it
 *
 *      00 nn nn nn  n bytes   00 nn nn nn  n bytes   00 00 00 00
 *      length                                        "that was all"
 *
 * A unix socket has one end only: its reader cannot tell whether the writer had said all, was broken off by its own
 * client, or was killed. TCP has resets for that and TLS its close_notify, and what they tell must not get lost on the
 * way. So between two servers of ours bytes go in parcels, an empty one says that there are no more, and a socket that
 * ends without it was broken off. That holds in both directions and whenever the socket is closed.
 *
 * No HTTP request begins with a byte of 0, so the first one tells whether a client of the unix socket speaks HTTP
 * right away or in parcels. */
#pragma once

#include "shared/base.h"

#include <sys/types.h>

#define HTTP_PARCEL_HEAD_BYTES 4
#define HTTP_PARCEL_BYTES_MAX  0xffffff

/* How far the bytes are that come. Begins as {0}. */
struct parcel_reader {
    unsigned char head[HTTP_PARCEL_HEAD_BYTES];
    size_t head_bytes; /* of the next head, which are there */
    size_t left;       /* of the present parcel */
    bool is_over;      /* the other side has said that there are no more */
};

/* What goes before so many bytes, HTTP_PARCEL_BYTES_MAX at most; 0 for the end. */
void http_parcel_begin(unsigned char head[HTTP_PARCEL_HEAD_BYTES], size_t bytes);

/* Like recv(), but 0 only when the other side has said that this was all: a socket that ends before is -1 and ECONNRESET, and
 * what are no parcels EPROTO. When it has given bytes, is_over may say that the next call will give 0, whether or not the socket
 * is readable. */
ssize_t http_parcel_recv(struct parcel_reader *reader, int fd, char *to, size_t bytes);
