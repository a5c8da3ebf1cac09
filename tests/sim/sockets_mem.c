/* sockets_mem.c - connections between agents, for moves: unix sockets, so that they are there at once
 *
 * TCP over loopback would depend on when the kernel's network runs; a unix socket is connected, readable or closed in the
 * call that made it so. Whether hosts reach each other is the world's to say. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "slave/agent.h"
#include "slave/sockets.h"
#include "tests/sim/sim.h"

struct sockets_mem {
    struct agent_sockets sockets;
    struct sim *sim;
    int last_port;
};

/* In the abstract name space: nothing stays when the process ends. */
static socklen_t address_of(struct sockaddr_un *ret, int port)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    return (socklen_t) (offsetof(struct sockaddr_un, sun_path) + 1
                        + (size_t) snprintf(ret->sun_path + 1, sizeof ret->sun_path - 1, "drover-simulate-%d-%d",
                                            (int) getpid(), port));
}

static int mem_listen(struct agent_sockets *base, const char *address, int *ret_fd, int *ret_port)
{
    struct sockets_mem *sockets = CONTAINER_OF(base, struct sockets_mem, sockets);
    int port = ++sockets->last_port;
    struct sockaddr_un name;
    socklen_t bytes = address_of(&name, port);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    (void) address;
    if (fd < 0 || bind(fd, (struct sockaddr *) &name, bytes) < 0 || listen(fd, 16) < 0)
        die("sockets_mem: %s", strerror(errno));
    *ret_fd = fd;
    *ret_port = port;
    return 0;
}

static const struct sim_host *host_at(const struct sim *sim, const char *address)
{
    for (int i = 0; i < WORLD_HOSTS; i++)
        if (streq(sim->hosts[i].process.name, address))
            return &sim->hosts[i];
    return NULL;
}

static int mem_connect(struct agent_sockets *base, const char *address, const char *port, int *ret_fd)
{
    struct sim *sim = CONTAINER_OF(base, struct sockets_mem, sockets)->sim;
    const struct sim_host *from = CONTAINER_OF(sim->running, struct sim_host, process), *to = host_at(sim, address);
    struct sockaddr_un name;
    socklen_t bytes = address_of(&name, atoi(port));
    int fd;

    if (!to)
        return -EINVAL;
    if (from->world_host->is_cut_off || to->world_host->is_cut_off)
        return -EHOSTUNREACH;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        die("sockets_mem: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *) &name, bytes) < 0) {
        close(fd);
        return -ECONNREFUSED;
    }
    *ret_fd = fd;
    return 0;
}

struct agent_sockets *sockets_mem_new(struct sim *sim)
{
    struct sockets_mem *sockets = new0(struct sockets_mem);

    sockets->sockets = (struct agent_sockets){mem_listen, mem_connect};
    sockets->sim = sim;
    return &sockets->sockets;
}
