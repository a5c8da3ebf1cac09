/* child.c - run a program, hear it, end it */
#include "slave/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define FDS_MAX 208

/* What the child finds: its directory, 0 to 2, and its descriptors. 0 or a positive errno. */
static int set_actions(posix_spawn_file_actions_t *actions, const char *directory, int said, const int fds[], int count)
{
    int error = posix_spawn_file_actions_addchdir_np(actions, directory);

    if (!error)
        error = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    for (int to = 1; to <= 2 && !error; to++)
        error = posix_spawn_file_actions_adddup2(actions, said, to);
    for (int i = 0; i < count && !error; i++)
        error = posix_spawn_file_actions_adddup2(actions, fds[i], CHILD_FIRST_FD + i);
    return error;
}

static int spawn(pid_t *ret_pid, const char *directory, int said, char *const argv[], const int fds[], int count)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    int error = posix_spawn_file_actions_init(&actions);

    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (!error) {
        /* Our threads may hold signals back; that is not for the child, which could not be ended then. */
        sigemptyset(&none);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
        error = set_actions(&actions, directory, said, fds, count);
        if (!error)
            error = posix_spawnp(ret_pid, argv[0], &actions, &attributes, argv, environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

int child_start(struct child *ret, const char *directory, const char *const argv[], const int fds[], int count)
{
    int said[2], copies[FDS_MAX + 1] = {0}, made = 0, error = 0;

    assert(count <= FDS_MAX);
    if (pipe2(said, O_CLOEXEC) < 0)
        return -errno;
    fcntl(said[1], F_SETFL, O_NONBLOCK);
    /* Out of the way first, so that none is overwritten by one that takes its number. */
    for (; made <= count && !error; made++) {
        copies[made] = fcntl(made < count ? fds[made] : said[1], F_DUPFD_CLOEXEC, CHILD_FIRST_FD + count);
        if (copies[made] < 0) {
            error = errno;
            break;
        }
    }
    close(said[1]);
    if (!error)
        error = spawn(&ret->pid, directory, copies[count], (char *const *) argv, copies, count);
    while (made > 0)
        close(copies[--made]);
    if (error) {
        *ret = (struct child){0};
        close(said[0]);
        return -error;
    }
    ret->said_fd = said[0];
    return 0;
}

void child_hear(struct child *child, char *ret_text, size_t bytes)
{
    size_t length = 0;
    ssize_t n = 1;

    while (length + 1 < bytes && n != 0) {
        n = read(child->said_fd, ret_text + length, bytes - 1 - length);
        if (n < 0 && errno != EINTR)
            break;
        length += n > 0 ? (size_t) n : 0;
    }
    while (length > 0 && ret_text[length - 1] == '\n')
        length--;
    ret_text[length] = '\0';
}

void child_kill(struct child *child)
{
    kill(child->pid, SIGKILL);
}

int child_end(struct child *child, int wait_ms)
{
    int status, r = 0;

    if (!child->pid)
        return 0;
    if (wait_ms >= 0) {
        _cleanup_(close_fd) int fd = pidfd_open(child->pid, 0);
        struct pollfd end = {.fd = fd, .events = POLLIN};
        int n;

        do
            n = fd < 0 ? 0 : poll(&end, 1, wait_ms);
        while (n < 0 && errno == EINTR);
        if (n <= 0)
            child_kill(child);
    }
    while (waitpid(child->pid, &status, 0) < 0)
        if (errno != EINTR) {
            r = -errno;
            break;
        }
    if (r == 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        r = -EIO;
    close(child->said_fd);
    *child = (struct child){0};
    return r;
}
