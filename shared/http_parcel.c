/* http_parcel.c - bytes in parcels, with an end that is said */
#include "shared/http_parcel.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

void http_parcel_begin(unsigned char head[HTTP_PARCEL_HEAD_BYTES], size_t bytes)
{
    assert(bytes <= HTTP_PARCEL_BYTES_MAX);
    head[0] = 0;
    head[1] = (unsigned char) (bytes >> 16);
    head[2] = (unsigned char) (bytes >> 8);
    head[3] = (unsigned char) bytes;
}

/* A head is whole. */
static void parcel_open(struct parcel_reader *reader)
{
    reader->left = (size_t) reader->head[1] << 16 | (size_t) reader->head[2] << 8 | reader->head[3];
    reader->head_bytes = 0;
    reader->is_over = reader->left == 0;
}

ssize_t http_parcel_recv(struct parcel_reader *reader, int fd, char *to, size_t bytes)
{
    assert(bytes > 0);
    while (!reader->is_over) {
        size_t some = MIN(bytes, reader->left);
        struct iovec parts[] = {
            {.iov_base = to, .iov_len = some},
            {.iov_base = reader->head + reader->head_bytes, .iov_len = HTTP_PARCEL_HEAD_BYTES - reader->head_bytes},
        };
        /* the rest of this one, and at once the head of the next: one call a parcel */
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = some == reader->left ? 2 : 1};
        ssize_t got = recvmsg(fd, &message, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = ECONNRESET;
        if (got <= 0)
            return -1;
        some = MIN(some, (size_t) got);
        reader->left -= some;
        reader->head_bytes += (size_t) got - some;
        if (reader->head_bytes > 0 && reader->head[0] != 0) {
            errno = EPROTO;
            return -1;
        }
        if (reader->head_bytes == HTTP_PARCEL_HEAD_BYTES)
            parcel_open(reader);
        if (some > 0)
            return (ssize_t) some;
    }
    return 0;
}
