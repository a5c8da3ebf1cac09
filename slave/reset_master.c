/* reset_master.c - pool.emergency_reset_master: this host is to follow another master
 *
 *   text -> address and port -> found by a worker, since names take their time -> is it one that a host can have? ->
 *   the ledger -> the old link ends, and the host knocks at the new master's door (agent_join.c) */
#include "slave/reset_master.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

#include "shared/failure.h"
#include "shared/listeners.h"
#include "shared/workers.h"
#include "slave/agent.h"
#include "slave/standing.h"

/* Of one name; who has more may be reached at the first ones. */
#define FOUND_MAX 16

/* ---- what was given ---- */

/* "10.0.0.1", "name", "fd00::1", and with a port "10.0.0.1:10810", "name:10810", "[fd00::1]:10810"; port 0: none was given. */
static bool split(const char *text, char ret_address[STANDING_ADDRESS_BYTES], uint16_t *ret_port)
{
    const char *colon = strchr(text, ':');

    *ret_port = 0;
    if (*text == '[' || (colon && colon == strrchr(text, ':'))) {
        if (!listener_split(text, ret_address, STANDING_ADDRESS_BYTES, ret_port) || *ret_port == 0)
            return false;
    } else {
        if (strlen(text) >= STANDING_ADDRESS_BYTES)
            return false;
        strcpy(ret_address, text);
    }
    return is_host_address(ret_address);
}

/* ---- what it stands for ---- */

struct finding {
    const char *address, *own;  /* own may be NULL */
    int error;                  /* of getaddrinfo() */
    bool is_nobodys, is_own;
};

static bool is_nobodys(const struct sockaddr *address)
{
    const struct in6_addr *six = &((const struct sockaddr_in6 *) address)->sin6_addr;
    uint32_t four;

    if (address->sa_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(six) || IN6_IS_ADDR_MULTICAST(six);
    four = ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr);
    return four >> 24 == 0 || four >> 24 >= 224; /* "this network", multicast, reserved, broadcast */
}

static bool is_same(const struct sockaddr *a, const struct sockaddr *b)
{
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET6)
        return IN6_ARE_ADDR_EQUAL(&((const struct sockaddr_in6 *) a)->sin6_addr,
                                  &((const struct sockaddr_in6 *) b)->sin6_addr);
    return ((const struct sockaddr_in *) a)->sin_addr.s_addr == ((const struct sockaddr_in *) b)->sin_addr.s_addr;
}

static int look_up(const char *name, struct addrinfo **ret)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

    *ret = NULL;
    return getaddrinfo(name, NULL, &hints, ret);
}

/* By a worker: it may ask a name server, and wait for it. */
static void find(void *arg)
{
    struct finding *finding = arg;
    struct addrinfo *found, *own = NULL;
    int count = 0;

    finding->error = look_up(finding->address, &found);
    if (finding->own && look_up(finding->own, &own) != 0)
        own = NULL;
    for (struct addrinfo *one = found; one && count < FOUND_MAX; one = one->ai_next, count++) {
        finding->is_nobodys |= is_nobodys(one->ai_addr);
        for (struct addrinfo *mine = own; mine; mine = mine->ai_next)
            finding->is_own |= is_same(one->ai_addr, mine->ai_addr);
    }
    if (found)
        freeaddrinfo(found);
    if (own)
        freeaddrinfo(own);
}

/* ---- the whole ---- */

int reset_master(struct agent *agent, const char *text, const char *own, struct arena *arena, struct failure *failure)
{
    char address[STANDING_ADDRESS_BYTES];
    struct finding finding = {.address = address, .own = own};
    uint16_t port;

    if (!agent_join_is_possible(agent))
        return failure_set(failure, arena, OPERATION_NOT_ALLOWED,
                           "this host has no pool secret to join with (pool_secret_file)");
    if (!split(text, address, &port))
        return failure_set(failure, arena, INVALID_VALUE, "master_address", text);
    workers_run(agent->workers, find, &finding);
    if (finding.is_own)
        return failure_set(failure, arena, HOST_ITS_OWN_SLAVE);
    if (finding.error != 0 || finding.is_nobodys)
        return failure_set(failure, arena, INVALID_VALUE, "master_address", text);
    if (port == 0)
        port = agent_join_port(agent);
    if (port == 0)
        return failure_set(failure, arena, OPERATION_NOT_ALLOWED,
                           "this host was never told at which port hosts are taken (join): give ADDRESS:PORT");
    agent_join_at(agent, arena_text(arena, strchr(address, ':') ? "tcp://[%s]:%u" : "tcp://%s:%u", address, port));
    return 0;
}
