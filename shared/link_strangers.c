/* link_strangers.c - who could not even begin to speak at a listening socket of ZeroMQ, for the log
 */
#include "shared/link_strangers.h"

#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <zmq.h>

#include "shared/clock.h"
#include "shared/log.h"

#define TELL_MS 10000 /* between lines: a host with another secret tries again and again */

static void remember(struct link_strangers *strangers, int fd)
{
    struct sockaddr_storage peer;
    socklen_t bytes = sizeof peer;
    char *address = strangers->accepted[strangers->next].address;

    strangers->accepted[strangers->next].fd = fd;
    if (getpeername(fd, (struct sockaddr *) &peer, &bytes) < 0
        || getnameinfo((struct sockaddr *) &peer, bytes, address,
                       sizeof strangers->accepted->address, NULL, 0, NI_NUMERICHOST)
               != 0)
        snprintf(address, sizeof strangers->accepted->address, "an unknown address");
    strangers->next = (strangers->next + 1) % STRANGERS_ACCEPTED;
}

static const char *address_of(const struct link_strangers *strangers, int fd)
{
    for (unsigned i = 1; i <= STRANGERS_ACCEPTED; i++) { /* the newest first: numbers come again */
        unsigned at = (strangers->next + STRANGERS_ACCEPTED - i) % STRANGERS_ACCEPTED;

        if (strangers->accepted[at].address[0] && strangers->accepted[at].fd == fd)
            return strangers->accepted[at].address;
    }
    return "an unknown address";
}

/* IPv4 that came to a socket for both. */
static const char *without_prefix(const char *address)
{
    return strncmp(address, "::ffff:", 7) == 0 ? address + 7 : address;
}

static void tell(struct link_strangers *strangers, const char *address, const char *what)
{
    uint64_t now = clock_now_ms(clock_real());

    strangers->untold++;
    if (strangers->told_ms && now < strangers->told_ms + TELL_MS)
        return;
    log_warning(
        NULL,
        "link: %s tried to speak and does not have %s; such attempts since the last such line: %u",
        without_prefix(address), what, strangers->untold);
    strangers->told_ms = now;
    strangers->untold = 0;
}

void link_strangers_event(struct link_strangers *strangers, unsigned number, uint32_t value,
                          const char *what)
{
    if (number == ZMQ_EVENT_ACCEPTED)
        remember(strangers, (int) value);
    else if (number == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)
        strangers->has_failed = true;
    else if (number == ZMQ_EVENT_DISCONNECTED && strangers->has_failed) {
        strangers->has_failed = false;
        tell(strangers, address_of(strangers, (int) value), what);
    }
}
