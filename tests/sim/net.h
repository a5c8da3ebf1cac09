/* net.h - the simulator's network between one master's address and its slaves, as link transports
 * in memory
 *
 * Frames of a sender arrive in their order, as over TCP, but for those that are late: these come after others that were
 * sent later. Each may be lost, or come twice. Each end is a node with a loop; a frame is delivered by a timer of the
 * receiving loop. All chances come from the seed. */
#pragma once

#include "shared/clock.h"
#include "shared/link.h"
#include "shared/loop.h"
#include "shared/random.h"

struct net;

/* Out of 1,000 frames each. */
struct net_chances {
    unsigned lost, doubled, late;
    unsigned delay_ms_max, late_ms_max;
};

struct net *net_new(struct random *, const struct net_chances *);
void net_destroy(struct net **);
void net_set_chances(struct net *, const struct net_chances *);

/* An end of the network on a loop. The node named `key` must not be there yet; destroying the
 * transport takes it away, and frames on their way to it are lost. */
struct link_transport *net_attach(struct net *, struct loop *, const char *key);

/* Who sees each frame that this end sends, lost ones too. */
void net_watch(struct link_transport *, void (*fn)(void *arg, const void *bytes, size_t count), void *arg);

/* The transport's process is dead: it still holds it, but nothing it sends goes out, nothing comes in. */
void net_silence(struct link_transport *);

/* Cut the way from one node to another, or all ways of a node (to == NULL: both directions of
 * `from`). */
void net_cut(struct net *, const char *from, const char *to, bool is_cut);

/* Frames sent and lost so far. */
void net_figures(const struct net *, uint64_t *ret_sent, uint64_t *ret_lost);
