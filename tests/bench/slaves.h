/* slaves.h - drover-bench-slaves: what its files share
 *
 *   slaves.c          N hosts in one process: an agent each, options, start and end
 *   slaves_link.c     their links: all sockets in one ZeroMQ context, served by the loop itself
 *   slaves_guests.c   their guests: a driver that only remembers them */
#pragma once

#include "shared/base.h"
#include "shared/link.h"

struct hypervisor;
struct loop;

/* The sockets of all hosts. */
struct bench_links;
struct bench_links *bench_links_new(struct loop *loop, unsigned sockets_max);
void bench_links_destroy(struct bench_links **links); /* after all its transports */

/* A slave's end, as link_zmq_connect() gives it, without a thread of its own. */
struct link_transport *bench_link_new(struct bench_links *links, const char *secret_key);

/* Guests that take no memory and no time. */
struct hypervisor *bench_guests_new(struct loop *loop);
